/*
 * bench_build.c - vectors a second into an empty collection, through socket, log and index,
 * beside the peer that builds in its own memory, in turns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/peers/peer.h"

struct cost {
    double seconds;
    double cpu_seconds; /* of everything that took part: daemon, loading client, peer */
};

static double cpu_seconds_of(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static struct cost kith_cost(const struct bench_set *set, const struct bench_options *o)
{
    struct bench_daemon daemon;
    struct cost c;
    double before = cpu_seconds_of(RUSAGE_SELF) + cpu_seconds_of(RUSAGE_CHILDREN);
    bench_daemon_start(&daemon, o->threads);
    bench_daemon_create(&daemon, set, o);
    c.seconds = bench_daemon_load(&daemon, set);
    bench_daemon_stop(&daemon); /* from here on the daemon counts among the children */
    c.cpu_seconds = cpu_seconds_of(RUSAGE_SELF) + cpu_seconds_of(RUSAGE_CHILDREN) - before;
    return c;
}

static struct cost peer_cost(const struct bench_set *set, const struct bench_options *o)
{
    struct peer_params params = { set->metric, set->dim, set->base_count, o->m, o->ef_construction };
    struct peer *p = peer_new(&params);
    if (!p)
        bench_die("out of memory for %s", peer_name());
    double before = cpu_seconds_of(RUSAGE_SELF);
    uint64_t begin = bench_now_ns();
    peer_build(p, set->base, set->base_count, o->threads);
    struct cost c = { (double)(bench_now_ns() - begin) / 1e9, cpu_seconds_of(RUSAGE_SELF) - before };
    peer_free(p);
    return c;
}

static void show_range(const char *what, double *ratio, unsigned rounds)
{
    double median = bench_median(ratio, rounds);
    printf("%s %.2f (rounds: %.2f to %.2f)", what, median, ratio[0], ratio[rounds - 1]);
}

int main(int argc, char **argv)
{
    struct bench_options opts;
    bench_options_parse(
        argc, argv, "bench_build [OPTIONS] [SET]: vectors a second, acknowledged durable and visible", &opts);
    struct bench_set set;
    bench_set_open(opts.set, &set);
    bool peer = opts.peer && peer_available();
    double n = set.base_count;
    enum { KITH_RATE, KITH_CPU, PEER_RATE, PEER_CPU, RATE_RATIO, CPU_RATIO, COLUMNS };
    double *v[COLUMNS];
    for (unsigned i = 0; i < COLUMNS; i++)
        v[i] = bench_alloc(sizeof(double) * opts.rounds);
    for (unsigned r = 0; r < opts.rounds; r++) {
        struct cost k = kith_cost(&set, &opts);
        struct cost p = peer ? peer_cost(&set, &opts) : k;
        v[KITH_RATE][r] = n / k.seconds;
        v[KITH_CPU][r] = k.cpu_seconds;
        v[PEER_RATE][r] = n / p.seconds;
        v[PEER_CPU][r] = p.cpu_seconds;
        v[RATE_RATIO][r] = p.seconds / k.seconds;
        v[CPU_RATIO][r] = p.cpu_seconds / k.cpu_seconds;
        fprintf(stderr, "bench: round %u: Kith %.0f/s, %.1f s of CPU time; %s %.0f/s, %.1f s\n", r + 1,
                v[KITH_RATE][r], k.cpu_seconds, peer ? peer_name() : "(no peer)", v[PEER_RATE][r],
                p.cpu_seconds);
    }

    printf("\n%s: %u x %u, M = %u, efConstruction = %u, %u threads, medians of %u interleaved rounds\n\n",
           set.name, set.base_count, set.dim, opts.m, opts.ef_construction, opts.threads, opts.rounds);
    printf("| | vectors/s | CPU seconds |\n|---|---:|---:|\n");
    printf("| Kith | %.0f | %.1f |\n", bench_median(v[KITH_RATE], opts.rounds),
           bench_median(v[KITH_CPU], opts.rounds));
    if (peer) {
        printf("| %s | %.0f | %.1f |\n\n", peer_name(), bench_median(v[PEER_RATE], opts.rounds),
               bench_median(v[PEER_CPU], opts.rounds));
        show_range("Ratio of rates:", v[RATE_RATIO], opts.rounds);
        show_range("; of vectors by CPU second:", v[CPU_RATIO], opts.rounds);
        printf(".\n");
    }
    for (unsigned i = 0; i < COLUMNS; i++)
        free(v[i]);
    bench_set_close(&set);
    return 0;
}
