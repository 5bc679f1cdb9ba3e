/*
 * bench_scaling.c - what a second reader costs the first, and what a writer on another CPU costs it.
 *
 * Short phases in turns, each process on a CPU of its own: one reader; two readers; one reader beside the
 * writer, which shares kithd's CPU. Between phases kithd comes to rest, so that what it still sorts out after
 * writing is not counted against the readers alone. Shown are medians of the rounds, ratios likewise.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/clock.h"
#include "bench/common/machine.h"
#include "bench/common/traffic.h"

enum { ONE, TWO, BESIDE, PHASES };
enum { QPS, P50, P99, P999, WRITES, COLUMNS };

struct figures {
    double *v[PHASES][COLUMNS]; /* by round */
    unsigned rounds;
};

static void note(struct figures *f, unsigned phase, unsigned round, const struct bench_phase *p,
                 const struct bench_traffic *t, bool cpu_time)
{
    const struct bench_histogram *h = cpu_time ? &t->cpu : &t->latency;
    double seconds = cpu_time ? (double)t->cpu.sum / 1e9 / p->readers : t->seconds;
    f->v[phase][QPS][round] = (double)h->count / seconds;
    f->v[phase][P50][round] = (double)bench_histogram_at(h, 0.5) / 1e3;
    f->v[phase][P99][round] = (double)bench_histogram_at(h, 0.99) / 1e3;
    f->v[phase][P999][round] = (double)bench_histogram_at(h, 0.999) / 1e3;
    f->v[phase][WRITES][round] = (double)t->writes / t->seconds;
}

/* Median of v, or of the ratios v / to of the rounds; *out_min and *out_max may be NULL. */
static double median(const struct figures *f, const double *v, const double *to, double *out_min,
                     double *out_max)
{
    double *copy = bench_alloc(sizeof(double) * f->rounds);
    for (unsigned r = 0; r < f->rounds; r++)
        copy[r] = to ? v[r] / to[r] : v[r];
    double m = bench_median(copy, f->rounds);
    if (out_min)
        *out_min = copy[0];
    if (out_max)
        *out_max = copy[f->rounds - 1];
    free(copy);
    return m;
}

static void print_ratio(const struct figures *f, const char *what, unsigned phase, unsigned column)
{
    double min;
    double max;
    double m = median(f, f->v[phase][column], f->v[ONE][column], &min, &max);
    printf("| %s | %.2f | %.2f - %.2f |\n", what, m, min, max);
}

static void print(const struct figures *f, const struct bench_phase *phases)
{
    printf(
        "| phase | searches/s | p50 us | p99 us | p99.9 us | writes/s |\n|---|---:|---:|---:|---:|---:|\n");
    for (unsigned p = 0; p < PHASES; p++) {
        printf("| %s |", phases[p].name);
        for (unsigned c = 0; c < COLUMNS; c++)
            printf(" %.0f |", median(f, f->v[p][c], NULL, NULL, NULL));
        printf("\n");
    }
    printf("\n| to one reader alone | ratio | lowest and highest round |\n|---|---:|---:|\n");
    print_ratio(f, "searches/s of two readers", TWO, QPS);
    print_ratio(f, "searches/s beside a writer", BESIDE, QPS);
    print_ratio(f, "p99.9 beside a writer", BESIDE, P999);
    fflush(stdout);
}

static void write_json(const struct figures *f, const struct bench_phase *phases, const struct bench_set *set,
                       const struct bench_options *o)
{
    static const char *const keys[COLUMNS] = { "qps", "p50_us", "p99_us", "p999_us", "writes_per_second" };
    char machine[512];
    bench_machine(machine, sizeof(machine));
    FILE *out = fopen(o->json, "w");
    if (!out)
        bench_die("%s: %s", o->json, strerror(errno));
    for (unsigned p = 0; p < PHASES; p++) {
        fprintf(out, "%s{\"set\": \"%s\", \"quantization\": \"%s\", \"phase\": \"%s\"", p ? ",\n" : "[\n",
                set->name, o->configs[0].name, phases[p].name);
        for (unsigned c = 0; c < COLUMNS; c++)
            fprintf(out, ", \"%s\": %.6g", keys[c], median(f, f->v[p][c], NULL, NULL, NULL));
        fprintf(out, ", \"qps_ratio\": %.4f, \"p999_ratio\": %.4f, \"rounds\": %u, \"machine\": \"%s\"}",
                median(f, f->v[p][QPS], f->v[ONE][QPS], NULL, NULL),
                median(f, f->v[p][P999], f->v[ONE][P999], NULL, NULL), f->rounds, machine);
    }
    fprintf(out, "\n]\n");
    if (fclose(out) != 0)
        bench_die("%s: %s", o->json, strerror(errno));
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto", "", 7, 5 };
    struct bench_options opts;
    bench_options_parse(argc, argv,
                        "bench_scaling [OPTIONS] [SET]: two readers, and a reader beside a writer, pinned",
                        &defaults, &opts);
    const struct bench_config *config = &opts.configs[0];
    if (opts.cpu == opts.daemon_cpu)
        bench_die("reader and kithd need a CPU each");
    struct bench_daemon daemon;
    bench_daemon_start(&daemon, opts.threads);
    struct bench_set set;
    bench_set_open(&opts, &set);
    bench_daemon_create(&daemon, &set, &opts, config);
    bench_daemon_load(&daemon, &set, config);
    bench_daemon_pin(&daemon, opts.daemon_cpu);

    const struct bench_phase phases[PHASES] = {
        [ONE] = { "one reader", 1, false, true, false, opts.seconds },
        [TWO] = { "two readers", 2, false, true, false, opts.seconds },
        [BESIDE] = { "one reader, one writer", 1, true, true, false, opts.seconds },
    };
    struct figures f = { .rounds = opts.rounds };
    for (unsigned p = 0; p < PHASES; p++) {
        for (unsigned c = 0; c < COLUMNS; c++)
            f.v[p][c] = bench_alloc(sizeof(double) * opts.rounds);
    }
    uint64_t errors = 0;
    static struct bench_traffic traffic;
    for (unsigned r = 0; r < opts.rounds; r++) {
        for (unsigned i = 0; i < PHASES; i++) {
            unsigned p = (i + r) % PHASES;
            bench_daemon_settle(&daemon);
            bench_traffic_run(&phases[p], &daemon, &set, &opts, config, &traffic);
            note(&f, p, r, &phases[p], &traffic, opts.cpu_time);
            errors += traffic.errors;
        }
    }

    printf("\n%s: %u x %u, quantization %s, k = %u, ef = %u; reader on CPU %d; kithd, writer and second "
           "reader on CPU %d; medians of %u interleaved rounds of %.0f s%s\n\n",
           set.name, set.base_count, set.dim, config->name, opts.k,
           BENCH_TRAFFIC_EF > opts.k ? BENCH_TRAFFIC_EF : opts.k, opts.cpu, opts.daemon_cpu, opts.rounds,
           opts.seconds, opts.cpu_time ? ", by CPU time" : "");
    print(&f, phases);
    if (opts.json)
        write_json(&f, phases, &set, &opts);

    for (unsigned p = 0; p < PHASES; p++) {
        for (unsigned c = 0; c < COLUMNS; c++)
            free(f.v[p][c]);
    }
    bench_set_close(&set);
    bench_daemon_stop(&daemon);
    return errors ? 1 : 0;
}
