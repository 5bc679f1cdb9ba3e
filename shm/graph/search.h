/*
 * search.h - nearest neighbours in a mapped segment, as readers see it.
 */
#ifndef KITHI_GRAPH_SEARCH_H
#define KITHI_GRAPH_SEARCH_H

#include "shm/graph/match.h"
#include "shm/graph/results.h"
#include "shm/graph/scratch.h"
#include "shm/graph/walk.h"

#define KITHI_K_MAX       65536u
#define KITHI_EF_MAX      1048576u
#define KITHI_EF_DEFAULT  100u
#define KITHI_RESTART_MAX 8u /* snapshots begun again before a search gives up with KITHI_E_STALE */
#define KITHI_LANES_MAX   16u

struct kithi_search_params {
    uint32_t k;           /* 1..KITHI_K_MAX */
    uint32_t ef;          /* k..KITHI_EF_MAX; ignored when exact */
    bool exact;           /* compare with every visible vector */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
    uint32_t
        left_out; /* slot + 1 that the search takes as not there, neither met nor walked through; 0: none */
    struct kithi_moment at;            /* all zeros: now */
    struct kithi_heirs *heirs;         /* whom rows then lead to instead; NULL: nobody */
    struct kithi_condition *condition; /* that hits fulfil at the epoch; NULL: none */
};

/*
 * The k nearest visible vectors, with distances to the kept vectors, into out.
 *   query  dim finite floats, not zero under cosine: checked by the caller
 * Returns the number of hits, KITHI_E_MOVED (attach by name again), KITHI_E_STALE, KITHI_E_EPOCH, -ENOMEM. Of a moment in the
 * past a walk that comes to fewer than k compares with every vector, as what has been linked since may have cut it off. Under a condition
 * there are always k hits, or all that fulfil it (match.h), unless the deadline cut the search; KITHI_E_FILTER: types do not go together.
 * Wait-free: every loop is bounded by numbers this process holds. Stores nothing to the segment.
 */
int kithi_search(const struct kithi_map *map, struct kithi_scratch *s, const float *query,
                 const struct kithi_search_params *params, struct kithi_results *out);

struct kithi_batch {
    const float *queries; /* count x dim */
    uint32_t count;
    const struct kithi_search_params *params; /* of all; not exact, without a deadline or a condition */
    struct kithi_results *const *results;     /* count of them */
    int *counts;                              /* count of them: what kithi_search() would have returned */
};

/*
 * Searches of one thread in turns, one expansion each, so that each one's memory arrives while the others
 * compute. lane_count (1..KITHI_LANES_MAX) are under way at a time, each with a scratch of its own.
 */
void kithi_search_batch(const struct kithi_map *map, struct kithi_scratch *scratches, uint32_t lane_count,
                        const struct kithi_batch *batch);

#endif
