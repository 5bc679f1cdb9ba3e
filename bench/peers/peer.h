/*
 * peer.h - other libraries on the same data, behind one C interface.
 *
 * Each is built where Debian's package of it is installed: hnswlib.cpp with libhnswlib-dev, faiss.cpp
 * with libfaiss-dev. peers.c knows all names and says which package one that is missing needs.
 */
#ifndef KITH_BENCH_PEER_H
#define KITH_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct peer; /* of the kind that created it */

struct peer_params {
    uint32_t metric; /* enum kith_metric; cosine is ip over vectors normalised on the way in */
    uint32_t dim;
    uint32_t count_max;
    uint32_t m;
    uint32_t ef_construction;
};

struct peer_kind {
    const char *name;
    bool rebuilt; /* it has to be built anew from time to time to be rid of what was removed */
    struct peer *(*create)(const struct peer_params *params); /* NULL when out of memory */
    void (*destroy)(struct peer *p);
    /* Add n rows, labelled from 0, by so many threads. */
    void (*build)(struct peer *p, const float *base, uint32_t n, unsigned threads);
    /* False when there is no usable file. */
    bool (*load)(struct peer *p, const char *path);
    void (*save)(struct peer *p, const char *path);
    /* One search; what it found is kept until the next. One thread. */
    void (*search)(struct peer *p, const float *query, uint32_t k, uint32_t ef);
    /* Labels of the last search, off the timed path; returns their number. */
    uint32_t (*rows)(struct peer *p, uint32_t *out_rows, uint32_t k);
    /*
     * Instead of build: add n rows of base, by so many threads, as often as one likes, and take rows away by number. NULL: there is
     * no way.
     */
    void (*add)(struct peer *p, const float *base, const uint32_t *rows, uint32_t n, unsigned threads);
    void (*remove)(struct peer *p, const uint32_t *rows, uint32_t n);
    /* Bytes of vectors, links and what else the index keeps for each vector. */
    size_t (*bytes)(const struct peer *p);
};

extern const struct peer_kind peer_hnswlib;
extern const struct peer_kind peer_hnswlib_replace; /* added rows take the elements of removed ones */
extern const struct peer_kind peer_faiss;
extern const struct peer_kind peer_faiss_sq8;

#ifdef __cplusplus
}
#endif
#endif
