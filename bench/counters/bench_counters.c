/*
 * bench_counters.c - what being counted costs a reader: two handles of the same collection, one with a board and one
 * without, take turns at the same queries. In CPU time of the thread, which other programs of the machine disturb least.
 */
#include <stdio.h>
#include <stdlib.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"

#define TURN    500u /* searches */
#define OPENS   101u
#define TURNS_A 2u /* of each handle in a round: A B B A, so that a drift hits both */

static kith *attach(const struct bench_daemon *d, const struct bench_config *config, uint32_t counters)
{
    kith *index;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = d->run_dir;
    opts.counters = counters;
    int rc = kith_open(config->name, &opts, &index);
    if (rc < 0)
        bench_die("open: %s", kith_strerror(rc));
    return index;
}

static double turn(kith *index, const struct bench_set *set, const struct bench_options *o, uint32_t ef,
                   uint32_t first, kith_results *results)
{
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = ef;
    uint64_t begin = bench_cpu_ns();
    for (uint32_t i = 0; i < TURN; i++) {
        int rc = kith_search(index, bench_set_query(set, (first + i) % set->query_count), set->dim, o->k,
                             &opts, results);
        if (rc < 0)
            bench_die("search: %s", kith_strerror(rc));
    }
    return (double)(bench_cpu_ns() - begin) / TURN;
}

static void compare(const struct bench_daemon *d, const struct bench_config *config,
                    const struct bench_set *set, const struct bench_options *o, uint32_t ef)
{
    kith *counted = attach(d, config, KITH_COUNTERS_AUTO), *plain = attach(d, config, KITH_COUNTERS_OFF);
    kith_results *results = kith_results_new();
    double *with = bench_alloc(sizeof *with * o->rounds), *without = bench_alloc(sizeof *without * o->rounds),
           *ratio = bench_alloc(sizeof *ratio * o->rounds);
    for (uint32_t warm = 0; warm < set->query_count; warm += TURN) {
        turn(counted, set, o, ef, warm, results);
        turn(plain, set, o, ef, warm, results);
    }
    for (uint32_t i = 0; i < o->rounds; i++) {
        kith *a = i % 2 ? plain : counted, *b = i % 2 ? counted : plain;
        uint32_t first = i * TURN;
        double ta = turn(a, set, o, ef, first, results), tb = turn(b, set, o, ef, first, results);
        tb += turn(b, set, o, ef, first, results);
        ta += turn(a, set, o, ef, first, results);
        with[i] = (i % 2 ? tb : ta) / TURNS_A;
        without[i] = (i % 2 ? ta : tb) / TURNS_A;
        ratio[i] = with[i] / without[i];
    }
    double median = bench_median(ratio, o->rounds);
    printf("| %s | %u | %.2f | %.2f | %.4f |\n", config->name, ef, bench_median(without, o->rounds) / 1e3,
           bench_median(with, o->rounds) / 1e3, median);
    fflush(stdout);
    free(with);
    free(without);
    free(ratio);
    kith_results_free(results);
    kith_close(counted);
    kith_close(plain);
}

static double open_us(const struct bench_daemon *d, const struct bench_config *config, uint32_t counters)
{
    double us[OPENS];
    for (unsigned i = 0; i < OPENS; i++) {
        uint64_t begin = bench_now_ns();
        kith *index = attach(d, config, counters);
        us[i] = (double)(bench_now_ns() - begin) / 1e3;
        kith_close(index);
    }
    return bench_median(us, OPENS);
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "bits,none", "", 101, 0 };
    struct bench_options opts;
    bench_options_parse(argc, argv,
                        "bench_counters [OPTIONS] [SET]: a reader that is counted, and one that is not",
                        &defaults, &opts);
    struct bench_daemon daemon;
    bench_daemon_start(&daemon, opts.threads);
    struct bench_set set;
    bench_set_open(&opts, &set);
    for (unsigned i = 0; i < opts.config_count; i++) {
        bench_daemon_create(&daemon, &set, &opts, &opts.configs[i]);
        bench_daemon_load(&daemon, &set, &opts.configs[i]);
    }
    bench_daemon_settle(&daemon);
    bench_daemon_pin(&daemon, opts.daemon_cpu);
    bench_pin(opts.cpu);
    printf("\n%s: %u x %u; medians of %u rounds of %u searches each, CPU time\n\n", set.name, set.base_count,
           set.dim, opts.rounds, TURNS_A * TURN);
    printf("| collection | ef | not counted us | counted us | ratio |\n|---|---:|---:|---:|---:|\n");
    static const uint32_t EF[] = { 10, 50, 100 };
    for (unsigned i = 0; i < opts.config_count; i++) {
        for (unsigned e = 0; e < (opts.ef_given ? opts.ef_count : sizeof EF / sizeof *EF); e++)
            compare(&daemon, &opts.configs[i], &set, &opts, opts.ef_given ? opts.ef[e] : EF[e]);
    }
    printf("\nopening a handle, medians of %u: %.0f us, without a board %.0f us\n", OPENS,
           open_us(&daemon, &opts.configs[0], KITH_COUNTERS_AUTO),
           open_us(&daemon, &opts.configs[0], KITH_COUNTERS_OFF));
    bench_set_close(&set);
    bench_daemon_stop(&daemon);
    return 0;
}
