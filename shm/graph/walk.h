/*
 * walk.h - best-first walk of one level of the graph, one expansion at a time.
 *
 * What is compared depends on what rows hold. Plain rows: the codes of all neighbours that were not met
 * before, four at a time. Rows with neighbour codes (bits.h): the code of the node itself, and estimates of
 * all its neighbours from the row, so that an expansion reads one place and no others; the beam is then in
 * order of estimates, and `near` holds the nodes that were expanded, by the distances of their codes. It ends when
 * expansions lead nowhere nearer any more; who is still in the beam, or the nearer part of them for a writer, then joins near by
 * its code, and the beam is left empty. A walk whose
 * estimates turn out to tell nothing apart begins anew, once, by the codes of neighbours.
 */
#ifndef KITHI_GRAPH_WALK_H
#define KITHI_GRAPH_WALK_H

#include "shm/graph/scratch.h"
#include "shm/graph/view.h"

/*
 * Whose eyes a walk has: what takes a place in ef. Everything else that links lead to is walked
 * through as a ghost.
 */
enum kithi_eyes {
    KITHI_EYES_READER, /* visible at the view's epoch, which was the newest when the view began */
    KITHI_EYES_WRITER, /* linked and not dead, at any birth: a group's members see each other */
    KITHI_EYES_PAST, /* visible at the view's epoch, which was not: every record is asked, as slots born since are in no doubt */
};

/*
 * Take query (dim finite floats, normalised here under cosine) in the forms that this view's codes are
 * compared with. 0 or -ENOMEM.
 */
int kithi_walk_query(const struct kithi_view *v, struct kithi_scratch *s, const float *query);

/* Distance of the scratch's query to the code of slot; a NaN (which only hostile bytes make) becomes the largest float. */
float kithi_walk_distance(const struct kithi_view *v, const struct kithi_scratch *s, uint32_t slot);

/* The same to the kept vector: what answers say. */
float kithi_walk_exact(const struct kithi_view *v, const struct kithi_scratch *s, uint32_t slot);

/* Begin: clear the scratch for a walk of breadth ef at level. 0 or -ENOMEM. */
int kithi_walk_begin(const struct kithi_view *v, struct kithi_scratch *s, uint32_t ef, unsigned level,
                     enum kithi_eyes eyes);

/* Put slot (< slot_limit) into the beam before the first step. 0 or -ENOMEM. */
int kithi_walk_seed(const struct kithi_view *v, struct kithi_scratch *s, uint32_t slot);

/*
 * Expand the nearest that was not, and ask for the memory of the next; or compare the next few of those that wait for
 * it at the end. Returns 1, 0 when the walk has
 * ended, KITHI_E_MOVED or -ENOMEM. A walk expands each slot at most once, and once more after it has begun anew.
 */
int kithi_walk_step(const struct kithi_view *v, struct kithi_scratch *s);

/* Steps until the end, or until deadline_ns (CLOCK_MONOTONIC; 0: none): then *out_deadline_hit. 0 or as above. */
int kithi_walk(const struct kithi_view *v, struct kithi_scratch *s, uint64_t deadline_ns,
               bool *out_deadline_hit);

/*
 * What the walk has found, nearest first by the distances of codes: entries of the beam or, with
 * neighbour codes at level 0, of near. Entries may carry flags (KITHI_BEAM_*).
 */
const struct kithi_beam_entry *kithi_walk_found(const struct kithi_scratch *s, uint32_t *out_count);

/*
 * Put an entry into the sorted beam, of which ef living ones are kept. Returns the lowest place from which on the beam has changed, or
 * UINT32_MAX when it has not. An entry that is not among the ef nearest leaves it as it is.
 */
uint32_t kithi_beam_insert(struct kithi_scratch *s, uint32_t ef, float d, uint32_t slot, bool ghost);

/* Keep slot among the near_max nearest in near. */
void kithi_near_insert(struct kithi_scratch *s, float distance, uint32_t slot);

/*
 * Greedy descent from *slot at level from to level to + 1; *slot is replaced by the nearest found. The scratch is
 * begun (kithi_walk_begin()) and has met nobody, before and afterwards.
 */
void kithi_walk_descend(const struct kithi_view *v, struct kithi_scratch *s, unsigned from, unsigned to,
                        uint32_t *slot);

#endif
