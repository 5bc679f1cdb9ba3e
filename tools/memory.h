/*
 * memory.h - how a segment's memory is shown: a line or a JSON object for each region, and their sum.
 */
#ifndef KITHI_TOOLS_MEMORY_H
#define KITHI_TOOLS_MEMORY_H

#include <kith/kith.h>

#include <stddef.h>
#include <stdio.h>

#include "shm/graph/account.h"

/* The same figures under the library's names. */
void kithi_memory_region(struct kith_memory_region *out, const char *name, const struct kithi_share *s);

/* `"taken":1,...`: the members that a region and the sum have in common, without braces. */
void kithi_memory_members(FILE *f, const struct kith_memory_region *r);

/* A table of n regions, those without a name left out, and of their sum. */
void kithi_memory_table(const struct kith_memory_region *regions, size_t n,
                        const struct kith_memory_region *all);

#endif
