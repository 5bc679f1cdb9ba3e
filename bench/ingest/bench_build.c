/*
 * bench_build.c - vectors a second into an empty collection, through socket, log and index, for every
 * configuration, beside the peers that build in their own memory, in turns; and what a search then finds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/common/machine.h"
#include "bench/common/reader.h"
#include "bench/peers/peers.h"

#define RECALL_EF 64u /* or k, where that is more */

struct cost {
    double seconds;
    double cpu_seconds; /* of everything that took part: daemon, loading client, peer */
    double recall;
};

static double cpu_seconds_of(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static uint32_t recall_ef(const struct bench_options *o)
{
    return RECALL_EF > o->k ? RECALL_EF : o->k;
}

static struct cost kith_cost(const struct bench_set *set, const struct bench_options *o,
                             const struct bench_config *config)
{
    struct bench_daemon daemon;
    struct bench_reader reader;
    struct bench_engine engine;
    struct cost c;
    double before = cpu_seconds_of(RUSAGE_SELF) + cpu_seconds_of(RUSAGE_CHILDREN);
    bench_daemon_start(&daemon, o->threads);
    bench_daemon_create(&daemon, set, o, config);
    c.seconds = bench_daemon_load(&daemon, set, config);
    double searching = cpu_seconds_of(RUSAGE_SELF);
    bench_reader_open(&reader, &daemon, config, &engine);
    c.recall = bench_recall(set, &engine, o->k, recall_ef(o));
    bench_reader_close(&reader);
    searching = cpu_seconds_of(RUSAGE_SELF) - searching;
    bench_daemon_stop(&daemon); /* from here on the daemon counts among the children */
    c.cpu_seconds = cpu_seconds_of(RUSAGE_SELF) + cpu_seconds_of(RUSAGE_CHILDREN) - before - searching;
    return c;
}

static struct cost peer_cost(const struct bench_set *set, const struct bench_options *o,
                             const struct peer_kind *kind)
{
    struct peer *p = bench_peer_new(kind, set, o);
    double before = cpu_seconds_of(RUSAGE_SELF);
    uint64_t begin = bench_now_ns();
    kind->build(p, set->base, set->base_count, o->threads);
    struct cost c = { (double)(bench_now_ns() - begin) / 1e9, cpu_seconds_of(RUSAGE_SELF) - before, 0 };
    uint64_t hits = 0;
    for (size_t q = 0; q < set->query_count; q++) {
        uint32_t rows[BENCH_K_MAX];
        kind->search(p, bench_set_query(set, q), o->k, recall_ef(o));
        hits += bench_set_hits(set, q, rows, kind->rows(p, rows, o->k), o->k);
    }
    c.recall = (double)hits / ((double)set->query_count * o->k);
    kind->destroy(p);
    return c;
}

/* Median of the rounds of one figure, or of its ratio to that of another row. */
enum figure { RATE, CPU, RECALL, RATE_RATIO, CPU_RATIO };

static double median(const struct cost *row, const struct cost *to, unsigned rounds, double n,
                     enum figure figure, double *out_min, double *out_max)
{
    double *v = bench_alloc(sizeof(double) * rounds);
    for (unsigned r = 0; r < rounds; r++) {
        switch (figure) {
        case RATE: v[r] = n / row[r].seconds; break;
        case CPU: v[r] = row[r].cpu_seconds; break;
        case RECALL: v[r] = row[r].recall; break;
        case RATE_RATIO: v[r] = to[r].seconds / row[r].seconds; break;
        case CPU_RATIO: v[r] = to[r].cpu_seconds / row[r].cpu_seconds; break;
        }
    }
    double m = bench_median(v, rounds);
    if (out_min)
        *out_min = v[0];
    if (out_max)
        *out_max = v[rounds - 1];
    free(v);
    return m;
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto,none", "hnswlib", 3, 0 };
    struct bench_options opts;
    bench_options_parse(argc, argv,
                        "bench_build [OPTIONS] [SET]: vectors a second, acknowledged durable and visible",
                        &defaults, &opts);
    struct bench_set set;
    bench_set_open(&opts, &set);
    const struct peer_kind *kinds[BENCH_PEER_MAX];
    unsigned peer_count = bench_peers_chosen(&opts, kinds);
    unsigned configs = opts.config_count;
    unsigned n = configs + peer_count;
    unsigned reference = peer_count ? configs : n - 1; /* the first peer, or the last configuration */

    struct cost *costs[BENCH_ENGINE_MAX];
    char names[BENCH_ENGINE_MAX][40];
    for (unsigned i = 0; i < n; i++) {
        costs[i] = bench_alloc(sizeof(struct cost) * opts.rounds);
        snprintf(names[i], sizeof(names[i]), "%s%s", i < configs ? "Kith " : "",
                 i < configs ? opts.configs[i].name : kinds[i - configs]->name);
    }
    for (unsigned r = 0; r < opts.rounds; r++) {
        for (unsigned i = 0; i < n; i++) {
            unsigned turn = (i + r) % n;
            struct cost *c = &costs[turn][r];
            *c = turn < configs ? kith_cost(&set, &opts, &opts.configs[turn])
                                : peer_cost(&set, &opts, kinds[turn - configs]);
            fprintf(stderr, "bench: round %u: %s %.0f/s, %.1f s of CPU time, recall %.4f\n", r + 1,
                    names[turn], set.base_count / c->seconds, c->cpu_seconds, c->recall);
        }
    }

    printf("\n%s: %u x %u, M = %u, efConstruction = %u, %u threads, medians of %u interleaved rounds\n\n",
           set.name, set.base_count, set.dim, opts.m, opts.ef_construction, opts.threads, opts.rounds);
    printf(
        "| | vectors/s | to %s (rounds) | CPU seconds | vectors by CPU second, to %s | recall@%u at ef %u |\n"
        "|---|---:|---:|---:|---:|---:|\n",
        names[reference], names[reference], opts.k, recall_ef(&opts));
    char machine[512];
    bench_machine(machine, sizeof(machine));
    FILE *json = NULL;
    if (opts.json && !(json = fopen(opts.json, "w")))
        bench_die("%s cannot be written", opts.json);
    for (unsigned i = 0; i < n; i++) {
        double min;
        double max;
        double count = set.base_count;
        const struct cost *to = costs[reference];
        double rate = median(costs[i], to, opts.rounds, count, RATE, NULL, NULL);
        double ratio = median(costs[i], to, opts.rounds, count, RATE_RATIO, &min, &max);
        double cpu = median(costs[i], to, opts.rounds, count, CPU, NULL, NULL);
        double cpu_ratio = median(costs[i], to, opts.rounds, count, CPU_RATIO, NULL, NULL);
        double recall = median(costs[i], to, opts.rounds, count, RECALL, NULL, NULL);
        printf("| %s | %.0f | %.2f (%.2f - %.2f) | %.1f | %.2f | %.4f |\n", names[i], rate, ratio, min, max,
               cpu, cpu_ratio, recall);
        if (json)
            fprintf(
                json,
                "%s{\"set\": \"%s\", \"engine\": \"%s\", \"vectors\": %u, \"rate\": %.1f, \"ratio\": %.4f, "
                "\"cpu_seconds\": %.3f, \"recall\": %.5f, \"recall_ef\": %u, \"threads\": %u, \"rounds\": %u, "
                "\"machine\": \"%s\"}",
                i ? ",\n" : "[\n", set.name, names[i], set.base_count, rate, ratio, cpu, recall,
                recall_ef(&opts), opts.threads, opts.rounds, machine);
        free(costs[i]);
    }
    if (json && (fprintf(json, "\n]\n") < 0 || fclose(json) != 0))
        bench_die("%s cannot be written", opts.json);
    bench_set_close(&set);
    return 0;
}
