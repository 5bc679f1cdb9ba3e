/*
 * curve.c - recall and rate by ef, engines in turns.
 */
#include "bench/common/curve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/clock.h"

#define TURN_NS       UINT64_C(500000000) /* the slowest engine's turn: so many queries are taken */
#define TURN_MIN_NS   UINT64_C(100000000) /* a turn repeats its queries until it took so long */
#define ENOUGH_RECALL 0.9995

double bench_recall(const struct bench_set *set, const struct bench_engine *e, uint32_t k, uint32_t ef)
{
    uint32_t rows[BENCH_K_MAX];
    uint64_t hits = 0;
    for (size_t q = 0; q < set->query_count; q++) {
        e->search(e->ctx, bench_set_query(set, q), k, ef);
        uint32_t n = e->rows(e->ctx, rows, k);
        hits += bench_set_hits(set, q, rows, n, k);
    }
    return (double)hits / ((double)set->query_count * k);
}

/* Rate over n queries from the first on, around the end of the set. */
static double measure_qps(const struct bench_set *set, const struct bench_options *o,
                          const struct bench_engine *e, uint32_t ef, size_t first, size_t n)
{
    uint64_t (*clock)(void) = o->cpu_time ? bench_cpu_ns : bench_now_ns;
    uint64_t count = 0;
    uint64_t begin = clock();
    uint64_t spent;
    do {
        for (size_t q = 0; q < n; q++)
            e->search(e->ctx, bench_set_query(set, (first + q) % set->query_count), o->k, ef);
        count += n;
        spent = clock() - begin;
    } while (spent < TURN_MIN_NS);
    return (double)count * 1e9 / (double)spent;
}

/* Fills recall and the ef to measure; *out_queries: how many of them a turn takes at each ef. */
static void measure_recall(const struct bench_set *set, const struct bench_options *o,
                           const struct bench_engine *engines, struct bench_curve *c,
                           size_t out_queries[BENCH_EF_MAX])
{
    for (uint32_t i = 0; i < o->ef_count; i++) {
        double least = 1;
        double slowest_ns = 0;
        for (unsigned j = 0; j < c->engine_count; j++) {
            uint64_t begin = bench_cpu_ns();
            c->recall[j][i] = bench_recall(set, &engines[j], o->k, o->ef[i]);
            slowest_ns = fmax(slowest_ns, (double)(bench_cpu_ns() - begin) / set->query_count);
            least = fmin(least, c->recall[j][i]);
        }
        size_t fit = (size_t)((double)TURN_NS / slowest_ns) + 1;
        out_queries[i] = fit < set->query_count ? fit : set->query_count;
        c->ef[c->ef_count++] = o->ef[i];
        if (!o->ef_given && least >= ENOUGH_RECALL)
            break;
    }
}

void bench_curve_measure(const struct bench_set *set, const struct bench_options *opts,
                         const struct bench_engine *engines, unsigned n, struct bench_curve *out)
{
    size_t queries[BENCH_EF_MAX];
    memset(out, 0, sizeof(*out));
    out->engine_count = n;
    out->rounds = opts->rounds;
    out->cpu = opts->cpu;
    bench_pin(opts->cpu);
    uint64_t cpu_begin = bench_cpu_ns();
    uint64_t begin = bench_now_ns();
    measure_recall(set, opts, engines, out, queries);
    for (unsigned j = 0; j < n; j++) {
        for (uint32_t i = 0; i < out->ef_count; i++)
            out->qps[j][i] = bench_alloc(sizeof(double) * opts->rounds);
    }
    for (unsigned r = 0; r < opts->rounds; r++) {
        for (uint32_t i = 0; i < out->ef_count; i++) {
            for (unsigned j = 0; j < n; j++) {
                unsigned turn = (j + r) % n;
                out->qps[turn][i][r] =
                    measure_qps(set, opts, &engines[turn], out->ef[i], r * queries[i], queries[i]);
            }
        }
    }
    out->busy = (double)(bench_cpu_ns() - cpu_begin) / (double)(bench_now_ns() - begin);
    bench_unpin();
}

void bench_curve_free(struct bench_curve *c)
{
    for (unsigned j = 0; j < c->engine_count; j++) {
        for (uint32_t i = 0; i < c->ef_count; i++)
            free(c->qps[j][i]);
    }
}

double bench_curve_qps_at(const struct bench_curve *c, unsigned engine, unsigned round, double recall)
{
    const double *at = c->recall[engine];
    double *const *qps = c->qps[engine];
    if (at[0] >= recall)
        return qps[0][round];
    for (uint32_t i = 1; i < c->ef_count; i++) {
        if (at[i] < recall)
            continue;
        double t = (recall - at[i - 1]) / (at[i] - at[i - 1]);
        double from = log(qps[i - 1][round]);
        return exp(from + t * (log(qps[i][round]) - from));
    }
    return NAN;
}

double bench_curve_median(const struct bench_curve *c, unsigned engine, uint32_t point, double *out_min,
                          double *out_max)
{
    double *copy = bench_alloc(sizeof(double) * c->rounds);
    memcpy(copy, c->qps[engine][point], sizeof(double) * c->rounds);
    double median = bench_median(copy, c->rounds);
    if (out_min)
        *out_min = copy[0];
    if (out_max)
        *out_max = copy[c->rounds - 1];
    free(copy);
    return median;
}
