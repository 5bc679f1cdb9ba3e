/*
 * copy.h - all that one index shows into another one, while groups go on being published in it.
 *
 *     kithi_copy_begin(from, &copy, &err)          changes of `from` are noted from here on
 *     kithi_copy_fill(copy, to, &err)              `to` is empty: all that `from` shows now goes there; or
 *     kithi_copy_follow(copy, to, &err)            `to` was made by somebody else, and shows what `from` did at the beginning
 *     for (;;)
 *         n = kithi_copy_stage(copy, now_us, last, &err)
 *         n > 0:  kithi_copy_job(copy, worker, 0 .. n - 1)     (workers, in parallel)
 *         n == 0: a moment's pause; where nothing is left, and nothing will be (kithi_copy_state()), the loop is over
 *     kithi_copy_finish(copy, now_ms, &err)        `to` shows what `from` does, and may take its place
 *     kithi_copy_end(copy)
 *
 * First everything goes, as it comes in an order (order.h); then the changes that were noted meanwhile, in theirs, until so few are left
 * that the owner of `from` lets no group begin until the end. Nothing in `from` waits for a copy: slots that die are swept and used
 * again as ever. What it costs is the memory of the notes (journal.c): NOTES_MIN, or a sixteenth of what `to` takes if that is more. Beyond
 * that every other part of the first pass is one of changes, and whoever writes has to wait (crowded). Whoever writes faster than is
 * copied has to be slowed, too, or it never ends: kithi_copy_state() has the figures. `to` is read by nobody yet; jobs for it do not run beside other jobs of it.
 *
 * Owner's thread, but for jobs. One copy of an index at a time.
 */
#ifndef KITHI_INDEX_COPY_H
#define KITHI_INDEX_COPY_H

#include "server/index/index.h"

struct kithi_copy;

struct kithi_copy_state {
    bool whole;          /* the first pass is over */
    uint32_t slots_left; /* of the first pass, out of slots */
    uint32_t slots;
    uint64_t copied;       /* vectors, in all */
    uint64_t noted, taken; /* changes since the beginning, and those of them that were copied */
    bool
        crowded; /* those that are left take all the memory that there is for them; some are copied before the first pass ends */
    double insertion_us; /* wall time of one insertion of late, all workers together; 0: not known */
};

/*
 * Memory that an index of this layout takes for what ix shows now, about; with some room for what comes. Whether there is so
 * much in the file system and the control group beside what is taken, in the latter with the memory of the notes: 0, or KITHI_E_NO_SPACE with the figures.
 */
uint64_t kithi_copy_need(const struct kithi_index *ix, const struct kithi_geometry *g);
int kithi_copy_ask(const struct kithi_index *ix, const struct kithi_geometry *g, struct kithi_errmsg *err);

/* 0 or -ENOMEM. No census is due, groups may be under way. */
int kithi_copy_begin(struct kithi_index *from, struct kithi_copy **out, struct kithi_errmsg *err);

/* to agrees with from in dimension and metric. 0 or -ENOMEM. */
int kithi_copy_fill(struct kithi_copy *copy, struct kithi_index *to, struct kithi_errmsg *err);
int kithi_copy_follow(struct kithi_copy *copy, struct kithi_index *to, struct kithi_errmsg *err);

/*
 * Take in what was staged, whose jobs have ended, and stage what comes next: so much as takes the workers some
 * milliseconds. last: `from` does not change any more, and somebody waits; nothing else is done on the way. Returns the number of
 * jobs; 0: nothing to be run now. KITHI_E_FULL, KITHI_E_NO_SPACE, -ENOMEM, or what else kithi_group_add() refuses: the copy has
 * come to an end, and `to` is of no use.
 */
int kithi_copy_stage(struct kithi_copy *copy, uint64_t now_us, bool last, struct kithi_errmsg *err);
void kithi_copy_job(struct kithi_copy *copy, unsigned worker, uint32_t i);

void kithi_copy_state(const struct kithi_copy *copy, struct kithi_copy_state *out);

/* All was copied, and no group is under way in `from`: epochs, marks, and what was measured of `from` that holds for `to`. 0, or
 * KITHI_E_CORRUPT when they do not show as many vectors. */
int kithi_copy_finish(struct kithi_copy *copy, uint64_t now_ms, struct kithi_errmsg *err);

/* Accepts NULL. No job runs. The two indexes stay as they are. */
void kithi_copy_end(struct kithi_copy *copy);

/* So many bytes for notes, for tests. Once it has `to`. */
void kithi_copy_tune(struct kithi_copy *copy, uint64_t notes_most);

#endif
