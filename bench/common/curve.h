/*
 * curve.h - recall and rate by ef, of one thread on one CPU, engines in turns.
 *
 * The engines take turns at every ef of every round, in changing order and with the same queries, so that
 * whatever else the machine does meets all of them.
 */
#ifndef KITH_BENCH_CURVE_H
#define KITH_BENCH_CURVE_H

#include "bench/common/options.h"
#include "bench/common/set.h"

#define BENCH_ENGINE_MAX (BENCH_CONFIG_MAX + BENCH_PEER_MAX)

struct bench_engine {
    char name[40];
    void *ctx;
    /* One timed search. */
    void (*search)(void *ctx, const float *query, uint32_t k, uint32_t ef);
    /* Row numbers of what the last search found, not timed; returns their number, at most k. */
    uint32_t (*rows)(void *ctx, uint32_t *out_rows, uint32_t k);
    double bytes_per_vector; /* NaN: unknown */
    double build_seconds;    /* NaN: it was read from a file */
};

struct bench_curve {
    unsigned engine_count;
    unsigned rounds;
    uint32_t ef_count; /* the narrowest ones of the options: see bench_curve_measure */
    uint32_t ef[BENCH_EF_MAX];
    double recall[BENCH_ENGINE_MAX][BENCH_EF_MAX];
    double *qps[BENCH_ENGINE_MAX][BENCH_EF_MAX]; /* by round */
    int cpu;
    double busy; /* share of the time that the thread had its CPU */
};

/* Share of the true neighbours of all queries that the engine finds. */
double bench_recall(const struct bench_set *set, const struct bench_engine *e, uint32_t k, uint32_t ef);

/* Measure n engines. Where the ef are not given by hand, those that all engines do not need are left out. */
void bench_curve_measure(const struct bench_set *set, const struct bench_options *opts,
                         const struct bench_engine *engines, unsigned n, struct bench_curve *out);
void bench_curve_free(struct bench_curve *c);

/*
 * Rate of a round at a recall: between the two neighbouring points, linear in recall and in the logarithm
 * of the rate. The rate at the narrowest ef where that is better already; NaN where the widest does not reach it.
 */
double bench_curve_qps_at(const struct bench_curve *c, unsigned engine, unsigned round, double recall);

/* Median over the rounds; *out_min and *out_max may be NULL. */
double bench_curve_median(const struct bench_curve *c, unsigned engine, uint32_t point, double *out_min,
                          double *out_max);

#endif
