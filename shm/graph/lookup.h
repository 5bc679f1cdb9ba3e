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

/* The same at a moment; KITHI_E_EPOCH, too. */
int kithi_lookup_at(const struct kithi_map *map, const struct kithi_moment *at, const char *id, size_t id_len,
                    float *vector, struct kithi_found *out);

/* The id table that a header word names. */
struct kithi_ids_table {
    const _Atomic uint64_t *places;
    uint64_t capacity; /* a power of two */
    unsigned log2;
};

/* 1, 0 when the word names none, or -1: it has more memory by now than when the view began, take a new one. */
int kithi_view_ids(const struct kithi_view *v, uint64_t word, struct kithi_ids_table *out);

/* What came of going back from a version to the one that a view sees. */
enum kithi_version { KITHI_VERSION_NONE, KITHI_VERSION_FOUND, KITHI_VERSION_AGAIN };

/* Versions that one search, look-up or page goes back at most, over all of its ids, at a moment in the past. */
#define KITHI_VERSIONS_PAST 65536u

/*
 * Is the version of id in slot (< slot_limit), or one before it, the one that the view sees? AGAIN: the entry that led here is
 * out of date, or the way back is longer than *left, which counts down.
 */
enum kithi_version kithi_version_seen(const struct kithi_view *v, uint32_t slot, const char *id,
                                      size_t id_len, float *vector, uint32_t *left, struct kithi_found *out);

/* Copy the vector of slot (< slot_limit) as it was given. Inside the caller's birth window. */
void kithi_view_vector_given(const struct kithi_view *v, uint32_t slot, float *out);

#endif
