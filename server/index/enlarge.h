/*
 * enlarge.h - the same index in a larger segment, copied as it is while groups and sweeps go on.
 *
 * Nothing but the ceiling changes, so every item keeps its number and its bytes, and only regions begin elsewhere. All that is
 * in use is copied once; whoever stores to the live segment meanwhile says where, and such places are copied again, until so few are
 * left that the rest is copied in a moment in which no job runs. Then the two segments hold the same, groups under way
 * included, and the index goes on in the larger one: free lists, queues and claims are private, and hold numbers only.
 *
 *     kithi_index_create(path, larger geometry, ..., &next, &err)     any thread
 *     kithi_enlarge_new(geometry of ix, next, &e, &err)               any thread
 *     kithi_enlarge_begin(e, ix, &err)                                owner; stores are told from now on
 *     (all jobs of ix that ran then come to their end)
 *     while (!kithi_enlarge_is_near(e))
 *         n = kithi_enlarge_collect(e, most); kithi_enlarge_job(e, 0 .. n - 1); kithi_enlarge_collected(e, &err)
 *     (no job of ix runs from here on)
 *     kithi_enlarge_finish(e, &err)                                   owner: the file at path is whole
 *     kithi_enlarge_swap(e)                                           owner: ix is the larger one, next has the old segment
 *     kithi_enlarge_end(e); kithi_index_close(next)
 *
 * Until the swap nothing of ix has changed, and the way back is kithi_enlarge_stop(), the end of all jobs of ix that run then,
 * kithi_enlarge_end(), and closing next.
 */
#ifndef KITHI_INDEX_ENLARGE_H
#define KITHI_INDEX_ENLARGE_H

#include "server/index/index.h"

struct kithi_enlarge;

/*
 * What is noted about a segment of this geometry. next was made by kithi_index_create() and is empty; it differs in slot_max, which is
 * larger, and in its generation. 0 or -ENOMEM. Any thread.
 */
int kithi_enlarge_new(const struct kithi_geometry *from, struct kithi_index *next, struct kithi_enlarge **out,
                      struct kithi_errmsg *err);

/* No census of ix is due. 0, or KITHI_E_NO_SPACE where there is no room for what ix holds, with figures. */
int kithi_enlarge_begin(struct kithi_enlarge *e, struct kithi_index *ix, struct kithi_errmsg *err);

/* Find up to `most` pieces of at most 2 MiB to copy, and return their number. 0: nothing is left for now. No job of e runs. */
uint32_t kithi_enlarge_collect(struct kithi_enlarge *e, uint32_t most);
/* Copy one of them: takes memory for it, too. Workers, beside everything. */
void kithi_enlarge_job(struct kithi_enlarge *e, uint32_t i);
/* All jobs have ended. 0, KITHI_E_NO_SPACE, -errno: there is no use in going on. */
int kithi_enlarge_collected(struct kithi_enlarge *e, struct kithi_errmsg *err);

/* Bytes that were copied, places that were copied again included; and what is in use now. */
uint64_t kithi_enlarge_copied(const struct kithi_enlarge *e);
uint64_t kithi_enlarge_bytes(const struct kithi_enlarge *e);
/* Is what is left a matter of milliseconds? Also after so many passes that it will never be less. */
bool kithi_enlarge_is_near(const struct kithi_enlarge *e);

/* Copy the rest, header and notes included. No job runs, neither of ix nor of e. As kithi_enlarge_collected(). */
int kithi_enlarge_finish(struct kithi_enlarge *e, struct kithi_errmsg *err);

/*
 * ix goes on in the larger segment. An image that is being taken of the old one may go on with that, as long as next, which has it
 * now, is open: nothing changes there any more, so nothing is held back for it in ix.
 */
void kithi_enlarge_swap(struct kithi_enlarge *e);

/*
 * Give up: stores need not be told any more. True where jobs of ix that run now may still do so, and have to end before
 * kithi_enlarge_end(). Accepts NULL.
 */
bool kithi_enlarge_stop(struct kithi_enlarge *e);
/* Forget it; no job of ix runs that began before it was stopped or swapped. Accepts NULL. */
void kithi_enlarge_end(struct kithi_enlarge *e);

#endif
