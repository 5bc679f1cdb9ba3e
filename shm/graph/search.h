/*
 * search.h - nearest neighbours in a mapped segment. Readers and the writer run this code.
 */
#ifndef KITHI_GRAPH_SEARCH_H
#define KITHI_GRAPH_SEARCH_H

#include "shm/graph/results.h"
#include "shm/graph/scratch.h"
#include "shm/graph/view.h"

#define KITHI_K_MAX       65536u
#define KITHI_EF_MAX      1048576u
#define KITHI_EF_DEFAULT  100u
#define KITHI_RESTART_MAX 8u /* snapshots begun again before a search gives up with KITHI_E_STALE */

struct kithi_search_params {
    uint32_t k;           /* 1..KITHI_K_MAX */
    uint32_t ef;          /* k..KITHI_EF_MAX; ignored when exact */
    bool exact;           /* compare with every visible vector */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
};

/*
 * The k nearest visible vectors, with exact distances, into out.
 *   query  dim finite floats, not zero under cosine: checked by the caller
 * Returns the number of hits, KITHI_E_MOVED (attach by name again), KITHI_E_STALE, -ENOMEM.
 * Wait-free: every loop is bounded by numbers this process holds. Stores nothing to the segment.
 */
int kithi_search(const struct kithi_map *map, struct kithi_scratch *s, const float *query,
                 const struct kithi_search_params *params, struct kithi_results *out);

/*
 * Whose eyes a walk has: what takes a place in ef. Everything else that links lead to is walked
 * through as a ghost.
 */
enum kithi_eyes {
    KITHI_EYES_READER, /* visible at the view's epoch */
    KITHI_EYES_WRITER, /* linked and not dead, at any birth: a group's members see each other */
};

/*
 * Best-first walk of one level from the entries that are in the scratch's beam (kithi_walk_seed).
 * Leaves the beam sorted. Returns 0, KITHI_E_MOVED or -ENOMEM; *out_deadline_hit as its name says.
 */
int kithi_walk(const struct kithi_view *v, struct kithi_scratch *s, const float *query, uint32_t ef,
               unsigned level, enum kithi_eyes eyes, uint64_t deadline_ns, bool *out_deadline_hit);

/* Put slot (< slot_limit) into an empty or partly filled beam. 0 or -ENOMEM. */
int kithi_walk_seed(const struct kithi_view *v, struct kithi_scratch *s, const float *query, uint32_t slot,
                    enum kithi_eyes eyes);

/* Greedy descent from *slot at level from to level to + 1; *slot is replaced by the nearest found. */
void kithi_descend(const struct kithi_view *v, struct kithi_scratch *s, const float *query, unsigned from,
                   unsigned to, uint32_t *slot);

/* Distance under the view's metric; a NaN (which only hostile bytes make) becomes the largest float. */
float kithi_view_distance(const struct kithi_view *v, const struct kithi_kernel *kernel, const float *query,
                          uint32_t slot);

#endif
