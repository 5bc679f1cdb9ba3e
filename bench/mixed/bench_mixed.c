/*
 * bench_mixed.c - what a writer at full speed does to the latency of reader processes, all of them
 * wherever the scheduler puts them.
 */
#include <stdio.h>

#include "bench/common/clock.h"
#include "bench/common/reader.h"
#include "bench/common/traffic.h"

static double recall(const struct bench_daemon *d, const struct bench_set *set, const struct bench_options *o)
{
    struct bench_reader reader;
    struct bench_engine engine;
    bench_reader_open(&reader, d, &o->configs[0], &engine);
    double found = bench_recall(set, &engine, o->k, BENCH_TRAFFIC_EF > o->k ? BENCH_TRAFFIC_EF : o->k);
    bench_reader_close(&reader);
    return found;
}

static void print_phase(const struct bench_phase *p, const struct bench_traffic *t)
{
    printf("| %s | %.0f | %.0f | %.0f | %.0f | %.1f | %.0f | %.0f | %.0f | %llu |\n", p->name,
           (double)t->latency.count / t->seconds, (double)bench_histogram_at(&t->latency, 0.5) / 1e3,
           (double)bench_histogram_at(&t->latency, 0.99) / 1e3,
           (double)bench_histogram_at(&t->latency, 0.999) / 1e3, (double)t->latency.max / 1e6,
           (double)bench_histogram_at(&t->cpu, 0.5) / 1e3, (double)bench_histogram_at(&t->cpu, 0.99) / 1e3,
           (double)t->writes / t->seconds, (unsigned long long)t->errors);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto", "", 1, 60 };
    struct bench_options opts;
    bench_options_parse(argc, argv,
                        "bench_mixed [OPTIONS] [SET]: reader processes beside a writer at full speed",
                        &defaults, &opts);
    const struct bench_config *config = &opts.configs[0];
    struct bench_daemon daemon;
    bench_daemon_start(&daemon, opts.threads);
    struct bench_set set;
    bench_set_open(&opts, &set);
    bench_daemon_create(&daemon, &set, &opts, config);
    bench_daemon_load(&daemon, &set, config);

    double before = recall(&daemon, &set, &opts);
    printf(
        "\n%s: %u x %u, quantization %s, k = %u, ef = %u, %u reader processes, kithd with %u insertion threads, "
        "%u CPUs; the writer replaces random vectors, %u a batch\n\n",
        set.name, set.base_count, set.dim, config->name, opts.k,
        BENCH_TRAFFIC_EF > opts.k ? BENCH_TRAFFIC_EF : opts.k, opts.readers, opts.threads, bench_cpu_count(),
        BENCH_TRAFFIC_BATCH);
    printf(
        "| phase | searches/s | p50 us | p99 us | p99.9 us | max ms | CPU p50 us | CPU p99 us | writes/s | "
        "errors |\n");
    printf("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    const struct bench_phase phases[] = {
        { "one reader, undisturbed", 1, false, false, false, opts.seconds / 4 },
        { "all readers, undisturbed", opts.readers, false, false, false, opts.seconds / 2 },
        { "one reader, one writer", 1, true, false, false, opts.seconds / 2 },
        { "all readers, one writer", opts.readers, true, false, false, opts.seconds },
    };
    uint64_t errors = 0;
    static struct bench_traffic traffic;
    for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++) {
        bench_traffic_run(&phases[i], &daemon, &set, &opts, config, &traffic);
        print_phase(&phases[i], &traffic);
        errors += traffic.errors;
    }
    printf("\nRecall@%u before %.4f, after %.4f.\n", opts.k, before, recall(&daemon, &set, &opts));

    bench_set_close(&set);
    bench_daemon_stop(&daemon);
    return errors ? 1 : 0;
}
