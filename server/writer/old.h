/*
 * old.h - segments that were replaced: kept for a grace period, in which their readers move over, and then given back.
 *
 *   segment.old, the last one --grace, or replaced again--> without a name --helper: marks, memory, mapping--> forgotten
 *
 * A crash forgets those without a name, which readers alone hold then. Giving back takes as long as there is memory, so it is done
 * by a helper and nobody waits for it.
 */
#ifndef KITHI_WRITER_OLD_H
#define KITHI_WRITER_OLD_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/io.h"

struct kithi_collection;
struct kithi_image;
struct kithi_index;

struct kithi_old {
    struct kithi_old *next;
    struct kithi_collection *collection;
    struct kithi_index *index;       /* as the writer had it open, or NULL: */
    int fd;                          /* then the file */
    const struct kithi_image *image; /* taken of it, which goes on: until that has ended */
    uint64_t until_ms;
    uint64_t given; /* bytes of it that were given back */
    struct kithi_io_op op;
};

/* Room for one, before it is too late for want of memory; NULL. free() it where it was not needed. */
struct kithi_old *kithi_old_new(struct kithi_collection *c);

/* The segment that was just replaced was index, which is kept open in o from now on: c->old_until_ms says whether it is segment.old. */
void kithi_old_keep(struct kithi_collection *c, struct kithi_old *o, struct kithi_index *index);

/* One that was never searched, and has lost its name: it need not have a grace. */
void kithi_old_discard(struct kithi_collection *c, struct kithi_old *o, struct kithi_index *index);

/* Take the name from segment.old, so that another one may have it. What was called so has its grace still. */
void kithi_old_unname(struct kithi_collection *c);

/* Give back what is due. Returns when the next one is, in ms of the clock. */
uint64_t kithi_old_turn(struct kithi_collection *c, uint64_t now_ms);

/* Memory is short: all are due now. True when there are any. */
bool kithi_old_hurry(struct kithi_collection *c);

/* No helper is at one. */
bool kithi_old_idle(const struct kithi_collection *c);

/* Forget them. Idle. */
void kithi_old_fini(struct kithi_collection *c);

#endif
