/*
 * lookup.h - from an id to the version of it that is visible. Readers and the writer run this code.
 */
#ifndef KITHI_GRAPH_LOOKUP_H
#define KITHI_GRAPH_LOOKUP_H

#include "shm/graph/view.h"

struct kithi_found {
    uint32_t slot;
    uint64_t birth;
    uint64_t epoch; /* the snapshot that was asked */
};

/*
 * Find id at a snapshot taken inside, and copy its vector as it was given (dim floats, under
 * cosine scaled back by its norm) when vector is not NULL. Returns 0, KITHI_E_NOT_FOUND,
 * KITHI_E_MOVED, KITHI_E_STALE. Wait-free.
 */
int kithi_lookup(const struct kithi_map *map, const char *id, size_t id_len, float *vector,
                 struct kithi_found *out);

/* Copy the vector of slot (< slot_limit) as it was given. Inside the caller's birth window. */
void kithi_view_vector_given(const struct kithi_view *v, uint32_t slot, float *out);

#endif
