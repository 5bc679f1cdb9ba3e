/*
 * copy.h - all that one index shows into an empty one of another layout, at the same epoch.
 *
 *     kithi_copy_begin(from, to, &copy, &err)
 *     while ((n = kithi_copy_stage(copy, now_ms, &err)) > 0)
 *         kithi_group_job(to, worker, 0 .. n - 1)           (workers, in parallel)
 *     n == 0: `to` shows what `from` does, and may take its place
 *     kithi_copy_end(copy)
 *
 * Meanwhile `from` does not change: no group, no sweep. `to` is read by nobody yet.
 */
#ifndef KITHI_INDEX_COPY_H
#define KITHI_INDEX_COPY_H

#include "server/index/index.h"

struct kithi_copy;

/* from and to agree in dimension and metric; to is empty. 0 or -ENOMEM. */
int kithi_copy_begin(struct kithi_index *from, struct kithi_index *to, struct kithi_copy **out,
                     struct kithi_errmsg *err);

/*
 * Publish what was staged, whose jobs have ended, and stage some milliseconds' worth of what comes next. Returns
 * its number of jobs; 0: everything is there, with epochs and marks; KITHI_E_NO_SPACE, KITHI_E_FULL, -ENOMEM, or
 * what else kithi_group_add() refuses: the copy has come to an end, and `to` is of no use.
 */
int kithi_copy_stage(struct kithi_copy *copy, uint64_t now_ms, struct kithi_errmsg *err);

/* Accepts NULL. The two indexes stay as they are. */
void kithi_copy_end(struct kithi_copy *copy);

#endif
