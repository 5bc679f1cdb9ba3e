/*
 * prefetch.h - how many cache lines ahead it pays to ask for on this machine: measured, then published in the
 * header for all readers ([header.h] prefetch_row, prefetch_code). A hint: readers clamp it.
 */
#ifndef KITHI_INDEX_PREFETCH_H
#define KITHI_INDEX_PREFETCH_H

#include <stdatomic.h>

#include "server/index/index.h"

struct kithi_prefetch {
    uint32_t row, code;         /* cache lines */
    double before_us, after_us; /* CPU time of a search with what the header said, and with these */
};

/*
 * Search the segment at path, as a reader does, with several settings: some tenths of a second of one thread.
 * *cancel is looked at often. 0; KITHI_E_NOT_FOUND: too few vectors to tell; -ECANCELED; what attaching or
 * searching says (KITHI_E_MOVED among it).
 */
int kithi_prefetch_measure(const char *path, const _Atomic bool *cancel, struct kithi_prefetch *out,
                           struct kithi_errmsg *err);

/* Publish it; the owner. */
void kithi_prefetch_publish(struct kithi_index *ix, const struct kithi_prefetch *p);

#endif
