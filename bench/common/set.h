/*
 * set.h - the vectors of a benchmark: base, queries, and the true neighbours of the queries.
 */
#ifndef KITH_BENCH_SET_H
#define KITH_BENCH_SET_H

#include <stddef.h>
#include <stdint.h>

#include "bench/common/options.h"

struct bench_set {
    char name[64];
    uint32_t metric; /* enum kith_metric */
    uint32_t dim;
    uint32_t base_count;
    uint32_t query_count;
    uint32_t truth_k; /* true neighbours of a query */
    float *base;
    float *query;
    int32_t *truth; /* row numbers, nearest first */
};

/*
 * opts->set: "generated" is clustered vectors, the same at every run, with exact neighbours computed here;
 * any other name is a folder of $KITH_BENCH_DATA. Exits with a message when it cannot be read.
 */
void bench_set_open(const struct bench_options *opts, struct bench_set *out);
void bench_set_close(struct bench_set *set);

/*
 * The set with another number of vectors and at most so many queries, the neighbours computed anew: its
 * first rows, or all of them and behind them drawn ones with noise; a generated set is generated again. The
 * same at every run.
 */
void bench_set_resize(const struct bench_set *from, uint32_t base_count, uint32_t query_max,
                      struct bench_set *out);

static inline const float *bench_set_base(const struct bench_set *s, size_t i)
{
    return s->base + i * s->dim;
}

static inline const float *bench_set_query(const struct bench_set *s, size_t i)
{
    return s->query + i * s->dim;
}

/* How many of rows[0..n) are among the k true neighbours of query q. */
uint32_t bench_set_hits(const struct bench_set *s, size_t q, const uint32_t *rows, uint32_t n, uint32_t k);

#endif
