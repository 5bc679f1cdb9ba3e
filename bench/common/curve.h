/*
 * curve.h - recall and rate by ef, of one thread on one CPU, engines in turns.
 *
 * The engines take turns at every ef of every round, in changing order, so that whatever else the
 * machine does meets both. Shown are medians of the rounds; a ratio is the median of the ratios of
 * the rounds.
 */
#ifndef KITH_BENCH_CURVE_H
#define KITH_BENCH_CURVE_H

#include "bench/common/options.h"
#include "bench/common/set.h"

struct bench_engine {
    const char *name;
    void *ctx;
    /* One timed search. */
    void (*search)(void *ctx, const float *query, uint32_t k, uint32_t ef);
    /* Row numbers of what the last search found, not timed; returns their number, at most k. */
    uint32_t (*rows)(void *ctx, uint32_t *out_rows, uint32_t k);
};

/* Measure the engines (one or two) and print the tables. */
void bench_curve(const struct bench_set *set, const struct bench_options *opts,
                 const struct bench_engine *engines, unsigned n);

#endif
