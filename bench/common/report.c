/*
 * report.c - a curve as tables, as JSON and as a plot.
 */
#include "bench/common/report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/clock.h"
#include "bench/common/machine.h"

static const char *const metric_names[] = { "", "l2", "cosine", "ip" };
static const double targets[] = { 0.95, 0.99 };
#define TARGET_COUNT (sizeof(targets) / sizeof(targets[0]))

static unsigned reference_of(const struct bench_engine *e, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(e[i].name, "hnswlib") == 0)
            return i;
    }
    return n - 1;
}

static void print_points(const struct bench_engine *e, const struct bench_curve *c)
{
    printf("\nRecall, and searches a second:\n\n| ef |");
    for (unsigned j = 0; j < c->engine_count; j++)
        printf(" %s | |", e[j].name);
    printf("\n|---:|");
    for (unsigned j = 0; j < c->engine_count; j++)
        printf("---:|---:|");
    printf("\n");
    for (uint32_t i = 0; i < c->ef_count; i++) {
        printf("| %u |", c->ef[i]);
        for (unsigned j = 0; j < c->engine_count; j++)
            printf(" %.4f | %.0f |", c->recall[j][i], bench_curve_median(c, j, i, NULL, NULL));
        printf("\n");
    }
}

static double qps_at(const struct bench_curve *c, unsigned engine, double recall)
{
    double *v = bench_alloc(sizeof(double) * c->rounds);
    for (unsigned r = 0; r < c->rounds; r++)
        v[r] = bench_curve_qps_at(c, engine, r, recall);
    double median = bench_median(v, c->rounds);
    free(v);
    return median;
}

/*
 * Both engines at one recall: the target, or what they find at the narrowest ef where that is more for one of
 * them. The median of the ratios of the rounds, and their range.
 */
static void print_ratio(const struct bench_curve *c, unsigned engine, unsigned reference, double target)
{
    double recall = fmax(target, fmax(c->recall[engine][0], c->recall[reference][0]));
    double *v = bench_alloc(sizeof(double) * c->rounds);
    for (unsigned r = 0; r < c->rounds; r++)
        v[r] = bench_curve_qps_at(c, engine, r, recall) / bench_curve_qps_at(c, reference, r, recall);
    double median = bench_median(v, c->rounds);
    if (isnan(median))
        printf(" - |");
    else if (recall > target)
        printf(" %.2f at %.4f (%.2f - %.2f) |", median, recall, v[0], v[c->rounds - 1]);
    else
        printf(" %.2f (%.2f - %.2f) |", median, v[0], v[c->rounds - 1]);
    free(v);
}

static void print_targets(const struct bench_engine *e, const struct bench_curve *c)
{
    unsigned reference = reference_of(e, c->engine_count);
    printf("\n| |");
    for (size_t t = 0; t < TARGET_COUNT; t++)
        printf(" QPS at %.2f | ef | to %s (rounds) |", targets[t], e[reference].name);
    printf(" bytes a vector | build s |\n|---|");
    for (size_t t = 0; t < TARGET_COUNT; t++)
        printf("---:|---:|---:|");
    printf("---:|---:|\n");
    for (unsigned j = 0; j < c->engine_count; j++) {
        printf("| %s |", e[j].name);
        for (size_t t = 0; t < TARGET_COUNT; t++) {
            uint32_t i = 0;
            while (i < c->ef_count && c->recall[j][i] < targets[t])
                i++;
            if (i == c->ef_count)
                printf(" not reached | - |");
            else
                printf(" %.0f | %u |", qps_at(c, j, targets[t]), c->ef[i]);
            print_ratio(c, j, reference, targets[t]);
        }
        printf(" %.0f |", e[j].bytes_per_vector);
        if (isnan(e[j].build_seconds))
            printf(" kept |\n");
        else
            printf(" %.1f |\n", e[j].build_seconds);
    }
}

static FILE *create(const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f)
        bench_die("%s: %s", path, strerror(errno));
    return f;
}

static void json_number(FILE *f, const char *key, double v)
{
    if (isnan(v))
        fprintf(f, ", \"%s\": null", key);
    else
        fprintf(f, ", \"%s\": %.6g", key, v);
}

static void write_json(const struct bench_set *set, const struct bench_options *o,
                       const struct bench_engine *e, const struct bench_curve *c, const char *machine)
{
    FILE *f = create(o->json);
    const char *separator = "[\n";
    for (unsigned j = 0; j < c->engine_count; j++) {
        for (uint32_t i = 0; i < c->ef_count; i++) {
            double min;
            double max;
            double median = bench_curve_median(c, j, i, &min, &max);
            fprintf(f,
                    "%s{\"set\": \"%s\", \"vectors\": %u, \"dim\": %u, \"metric\": \"%s\", \"k\": %u, "
                    "\"m\": %u, \"ef_construction\": %u, \"engine\": \"%s\", \"ef\": %u, \"recall\": %.6f",
                    separator, set->name, set->base_count, set->dim, metric_names[set->metric], o->k, o->m,
                    o->ef_construction, e[j].name, c->ef[i], c->recall[j][i]);
            json_number(f, "qps", median);
            json_number(f, "qps_min", min);
            json_number(f, "qps_max", max);
            json_number(f, "bytes_per_vector", e[j].bytes_per_vector);
            json_number(f, "build_seconds", e[j].build_seconds);
            fprintf(f, ", \"rounds\": %u, \"clock\": \"%s\", \"machine\": \"%s\"}", c->rounds,
                    o->cpu_time ? "cpu" : "wall", machine);
            separator = ",\n";
        }
    }
    fprintf(f, "\n]\n");
    if (fclose(f) != 0)
        bench_die("%s: %s", o->json, strerror(errno));
}

static void write_svg(const struct bench_set *set, const struct bench_options *o,
                      const struct bench_engine *e, const struct bench_curve *c)
{
    FILE *f = popen("gnuplot", "w");
    if (!f)
        bench_die("gnuplot: %s", strerror(errno));
    double best = 0;
    for (unsigned j = 0; j < c->engine_count; j++) {
        best = fmax(best, c->recall[j][c->ef_count - 1]);
        fprintf(f, "$curve%u << EOD\n", j);
        for (uint32_t i = 0; i < c->ef_count; i++)
            fprintf(f, "%.6f %.1f\n", c->recall[j][i], bench_curve_median(c, j, i, NULL, NULL));
        fprintf(f, "EOD\n");
    }
    fprintf(f,
            "set terminal svg size 900,600 font 'sans,14' background 'white'\n"
            "set output '%s'\n"
            "set title '%s: %u x %u, %s, one reader'\n"
            "set xlabel 'recall\\@%u'\n"
            "set ylabel 'searches a second'\n"
            "set logscale y\n"
            "set xrange [%s:1]\n"
            "set grid\n"
            "set key bottom left\n"
            "plot",
            o->svg, set->name, set->base_count, set->dim, metric_names[set->metric], o->k,
            best > 0.85 ? "0.8" : "*");
    for (unsigned j = 0; j < c->engine_count; j++)
        fprintf(f, "%s $curve%u with linespoints linewidth 2 title '%s'", j ? "," : "", j, e[j].name);
    fprintf(f, "\n");
    if (pclose(f) != 0)
        fprintf(stderr, "bench: no plot in %s: gnuplot (gnuplot-nox) is missing or failed\n", o->svg);
}

void bench_report(const struct bench_set *set, const struct bench_options *opts,
                  const struct bench_engine *engines, const struct bench_curve *c)
{
    char machine[512];
    bench_machine(machine, sizeof(machine));
    printf(
        "\n%s: %u x %u, %s, k = %u, M = %u, efConstruction = %u, %u queries; one thread on CPU %d, medians of "
        "%u interleaved rounds%s\n%s\n",
        set->name, set->base_count, set->dim, metric_names[set->metric], opts->k, opts->m,
        opts->ef_construction, set->query_count, c->cpu, c->rounds, opts->cpu_time ? ", by CPU time" : "",
        machine);
    print_targets(engines, c);
    print_points(engines, c);
    if (c->busy < 0.97)
        printf("\nThe thread had its CPU for %.0f %% of the time only: other programs were running.\n",
               c->busy * 100);
    fflush(stdout);
    if (opts->json)
        write_json(set, opts, engines, c, machine);
    if (opts->svg)
        write_svg(set, opts, engines, c);
}
