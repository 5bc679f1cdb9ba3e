/*
 * peer.h - another library on the same data, behind a C interface.
 *
 * Built from hnswlib.cpp where the header of Debian's libhnswlib-dev is installed, else from
 * none.c, where peer_available() is false and nothing else may be called.
 */
#ifndef KITH_BENCH_PEER_H
#define KITH_BENCH_PEER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct peer;

struct peer_params {
    uint32_t metric; /* enum kith_metric; cosine is ip over vectors normalised on the way in */
    uint32_t dim;
    uint32_t count_max;
    uint32_t m;
    uint32_t ef_construction;
};

bool peer_available(void);
const char *peer_name(void);

/* NULL when out of memory. */
struct peer *peer_new(const struct peer_params *params);
void peer_free(struct peer *p);

/* Add n rows, labelled from 0, by so many threads. */
void peer_build(struct peer *p, const float *base, uint32_t n, unsigned threads);

/* False when there is no usable file. */
bool peer_load(struct peer *p, const char *path);
void peer_save(struct peer *p, const char *path);

/* One search; what it found is kept until the next. One thread. */
void peer_search(struct peer *p, const float *query, uint32_t k, uint32_t ef);
/* Labels of the last search, off the timed path; returns their number. */
uint32_t peer_rows(struct peer *p, uint32_t *out_rows, uint32_t k);

#ifdef __cplusplus
}
#endif
#endif
