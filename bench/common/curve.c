/*
 * curve.c - recall and rate by ef, engines in turns.
 */
#include "bench/common/curve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/common/clock.h"

#define ENGINE_MAX   2u
#define ROUND_MIN_NS UINT64_C(100000000) /* a turn repeats its queries until it took so long */
#define RECALL_SLACK 0.005               /* how far Kith's recall may lie below the peer's at the same ef */

static const double targets[] = { 0.95, 0.99 };
#define TARGET_COUNT (sizeof(targets) / sizeof(targets[0]))

struct point {
    double recall[ENGINE_MAX];
    double *qps[ENGINE_MAX]; /* by round */
};

static double measure_recall(const struct bench_set *set, const struct bench_options *o,
                             const struct bench_engine *e, uint32_t ef)
{
    uint32_t rows[BENCH_K_MAX];
    uint64_t hits = 0;
    for (size_t q = 0; q < set->query_count; q++) {
        e->search(e->ctx, bench_set_query(set, q), o->k, ef);
        uint32_t n = e->rows(e->ctx, rows, o->k);
        hits += bench_set_hits(set, q, rows, n, o->k);
    }
    return (double)hits / ((double)set->query_count * o->k);
}

static double measure_qps(const struct bench_set *set, const struct bench_options *o,
                          const struct bench_engine *e, uint32_t ef)
{
    uint64_t (*clock)(void) = o->cpu_time ? bench_cpu_ns : bench_now_ns;
    uint64_t count = 0;
    uint64_t begin = clock();
    uint64_t spent;
    do {
        for (size_t q = 0; q < set->query_count; q++)
            e->search(e->ctx, bench_set_query(set, q), o->k, ef);
        count += set->query_count;
        spent = clock() - begin;
    } while (spent < ROUND_MIN_NS);
    return (double)count * 1e9 / (double)spent;
}

/*
 * Rate at a recall: between the two neighbouring points, linear in recall and in the logarithm of
 * the rate. Where the narrowest ef already reaches it, the rate there (*out_floor: true); NaN
 * where the widest does not.
 */
static double qps_at(const struct point *points, uint32_t n, unsigned engine, unsigned round, double recall,
                     int *out_floor)
{
    *out_floor = points[0].recall[engine] >= recall;
    if (*out_floor)
        return points[0].qps[engine][round];
    for (uint32_t i = 1; i < n; i++) {
        double r0 = points[i - 1].recall[engine];
        double r1 = points[i].recall[engine];
        if (r1 < recall)
            continue;
        double t = (recall - r0) / (r1 - r0);
        double q0 = points[i - 1].qps[engine][round];
        double q1 = points[i].qps[engine][round];
        return exp(log(q0) + t * (log(q1) - log(q0)));
    }
    return NAN;
}

static void print_points(const struct bench_options *o, const struct point *points,
                         const struct bench_engine *e, unsigned n)
{
    printf("\n| ef |");
    for (unsigned i = 0; i < n; i++)
        printf(" recall@%u %s |", o->k, e[i].name);
    for (unsigned i = 0; i < n; i++)
        printf(" QPS %s |", e[i].name);
    printf("%s\n|---:|", n == 2 ? " ratio |" : "");
    for (unsigned i = 0; i < n; i++)
        printf("---:|---:|");
    printf("%s\n", n == 2 ? "---:|" : "");

    double *ratio = bench_alloc(sizeof(double) * o->rounds);
    for (uint32_t i = 0; i < o->ef_count; i++) {
        printf("| %u |", o->ef[i]);
        for (unsigned j = 0; j < n; j++)
            printf(" %.4f |", points[i].recall[j]);
        for (unsigned r = 0; n == 2 && r < o->rounds; r++)
            ratio[r] = points[i].qps[0][r] / points[i].qps[1][r];
        for (unsigned j = 0; j < n; j++) {
            double *copy = bench_alloc(sizeof(double) * o->rounds);
            for (unsigned r = 0; r < o->rounds; r++)
                copy[r] = points[i].qps[j][r];
            printf(" %.0f |", bench_median(copy, o->rounds));
            free(copy);
        }
        if (n == 2)
            printf(" %.2f |", bench_median(ratio, o->rounds));
        printf("\n");
    }
    free(ratio);
}

static void print_targets(const struct bench_options *o, const struct point *points,
                          const struct bench_engine *e, unsigned n)
{
    printf("\n| at recall |");
    for (unsigned i = 0; i < n; i++)
        printf(" QPS %s |", e[i].name);
    printf("%s\n|---:|", n == 2 ? " ratio | ratio, lowest and highest round |" : "");
    for (unsigned i = 0; i < n; i++)
        printf("---:|");
    printf("%s\n", n == 2 ? "---:|---:|" : "");

    double *v[ENGINE_MAX + 1];
    for (unsigned i = 0; i <= ENGINE_MAX; i++)
        v[i] = bench_alloc(sizeof(double) * o->rounds);
    for (size_t t = 0; t < TARGET_COUNT; t++) {
        int floor[ENGINE_MAX] = { 0, 0 };
        for (unsigned r = 0; r < o->rounds; r++) {
            for (unsigned i = 0; i < n; i++)
                v[i][r] = qps_at(points, o->ef_count, i, r, targets[t], &floor[i]);
            v[ENGINE_MAX][r] = v[0][r] / v[1 % n][r];
        }
        printf("| %.2f |", targets[t]);
        for (unsigned i = 0; i < n; i++) {
            double median = bench_median(v[i], o->rounds);
            if (isnan(median))
                printf(" not reached |");
            else
                printf(" %.0f%s |", median, floor[i] ? " (lowest ef)" : "");
        }
        if (n == 2) {
            double median = bench_median(v[ENGINE_MAX], o->rounds);
            if (isnan(median))
                printf(" - | - |");
            else
                printf(" %.2f | %.2f - %.2f |", median, v[ENGINE_MAX][0], v[ENGINE_MAX][o->rounds - 1]);
        }
        printf("\n");
    }
    for (unsigned i = 0; i <= ENGINE_MAX; i++)
        free(v[i]);
}

static void print_recall_verdict(const struct bench_options *o, const struct point *points, unsigned n)
{
    double best = 0;
    double worst = INFINITY;
    uint32_t worst_ef = 0;
    for (uint32_t i = 0; i < o->ef_count; i++) {
        double difference = points[i].recall[0] - points[i].recall[n - 1];
        if (o->ef[i] <= 100 && points[i].recall[0] > best)
            best = points[i].recall[0];
        if (difference < worst) {
            worst = difference;
            worst_ef = o->ef[i];
        }
    }
    printf("\nBest recall with ef <= 100: %.4f.", best);
    if (n == 2)
        printf(" Least difference of recall at the same ef: %+.4f (ef %u)%s.", worst, worst_ef,
               worst < -RECALL_SLACK ? ", below the slack of 0.005" : "");
    printf("\n");
}

void bench_curve(const struct bench_set *set, const struct bench_options *opts,
                 const struct bench_engine *engines, unsigned n)
{
    struct point points[BENCH_EF_MAX];
    if (n < 1 || n > ENGINE_MAX)
        bench_die("one or two engines, not %u", n);
    int cpu = bench_pin(opts->cpu);
    uint64_t cpu_begin = bench_cpu_ns();
    uint64_t begin = bench_now_ns();
    for (uint32_t i = 0; i < opts->ef_count; i++) {
        for (unsigned j = 0; j < n; j++) {
            points[i].recall[j] = measure_recall(set, opts, &engines[j], opts->ef[i]);
            points[i].qps[j] = bench_alloc(sizeof(double) * opts->rounds);
        }
    }
    for (unsigned r = 0; r < opts->rounds; r++) {
        for (uint32_t i = 0; i < opts->ef_count; i++) {
            for (unsigned j = 0; j < n; j++) {
                unsigned turn = (j + r) % n;
                points[i].qps[turn][r] = measure_qps(set, opts, &engines[turn], opts->ef[i]);
            }
        }
    }
    double busy = (double)(bench_cpu_ns() - cpu_begin) / (double)(bench_now_ns() - begin);
    bench_unpin();

    printf(
        "\n%s: %u x %u, %s, k = %u, M = %u, efConstruction = %u, %u queries; one thread on CPU %d, medians of "
        "%u interleaved rounds%s\n",
        set->name, set->base_count, set->dim,
        set->metric == 1   ? "l2"
        : set->metric == 2 ? "cosine"
                           : "ip",
        opts->k, opts->m, opts->ef_construction, set->query_count, cpu, opts->rounds,
        opts->cpu_time ? ", by CPU time" : "");
    print_points(opts, points, engines, n);
    print_targets(opts, points, engines, n);
    print_recall_verdict(opts, points, n);
    if (busy < 0.97)
        printf("The thread had its CPU for %.0f %% of the time only: other programs were running.\n",
               busy * 100);
    for (uint32_t i = 0; i < opts->ef_count; i++) {
        for (unsigned j = 0; j < n; j++)
            free(points[i].qps[j]);
    }
    fflush(stdout);
}
