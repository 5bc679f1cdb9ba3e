/*
 * results.h - what a search found, copied out of the segment. Reusable: once its arrays are
 * large enough, filling it allocates nothing. One thread at a time.
 */
#ifndef KITHI_GRAPH_RESULTS_H
#define KITHI_GRAPH_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kithi_hit {
    float distance;
    uint32_t slot;  /* in the generation that was searched */
    uint64_t birth; /* of the version that was found */
    size_t id_off;  /* into ids; the id is followed by a NUL */
    uint32_t id_len;
};

struct kithi_search_stats {
    uint64_t epoch;
    uint64_t distance_count;
    uint64_t expansion_count;
    uint64_t estimate_count; /* places of rows, empty ones included, that were estimated by neighbour codes */
    uint32_t restart_count;
    bool deadline_hit;
    bool scanned; /* every record was looked at: no finder is relied on */
};

struct kithi_results {
    struct kithi_hit *hits; /* nearest first */
    uint32_t count, capacity;
    char *ids;
    size_t ids_len, ids_capacity;
    struct kithi_search_stats stats;
};

void kithi_results_init(struct kithi_results *r);
void kithi_results_fini(struct kithi_results *r);
void kithi_results_clear(struct kithi_results *r);

/* Append a hit; 0 or -ENOMEM. */
int kithi_results_add(struct kithi_results *r, float distance, uint32_t slot, uint64_t birth, const char *id,
                      size_t id_len);

/* Order by distance, then slot; nearly sorted input is cheap. */
void kithi_results_sort(struct kithi_results *r);

#endif
