/*
 * bench_build.c - vectors a second into an empty collection, through socket, log and index,
 * beside the peer that builds in its own memory, in turns.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/peers/peer.h"

static double kith_seconds(const struct bench_set *set, const struct bench_options *o)
{
    struct bench_daemon daemon;
    bench_daemon_start(&daemon, o->threads);
    bench_daemon_create(&daemon, set, o);
    double seconds = bench_daemon_load(&daemon, set);
    bench_daemon_stop(&daemon);
    return seconds;
}

static double peer_seconds(const struct bench_set *set, const struct bench_options *o)
{
    struct peer_params params = { set->metric, set->dim, set->base_count, o->m, o->ef_construction };
    struct peer *p = peer_new(&params);
    if (!p)
        bench_die("out of memory for %s", peer_name());
    uint64_t begin = bench_now_ns();
    peer_build(p, set->base, set->base_count, o->threads);
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    peer_free(p);
    return seconds;
}

int main(int argc, char **argv)
{
    struct bench_options opts;
    bench_options_parse(
        argc, argv, "bench_build [OPTIONS] [SET]: vectors a second, acknowledged durable and visible", &opts);
    struct bench_set set;
    bench_set_open(opts.set, &set);
    bool peer = opts.peer && peer_available();
    double *kith_rate = bench_alloc(sizeof(double) * opts.rounds);
    double *peer_rate = bench_alloc(sizeof(double) * opts.rounds);
    double *ratio = bench_alloc(sizeof(double) * opts.rounds);
    for (unsigned r = 0; r < opts.rounds; r++) {
        kith_rate[r] = set.base_count / kith_seconds(&set, &opts);
        peer_rate[r] = peer ? set.base_count / peer_seconds(&set, &opts) : 0;
        ratio[r] = kith_rate[r] / peer_rate[r];
        fprintf(stderr, "bench: round %u: Kith %.0f/s, %s %.0f/s\n", r + 1, kith_rate[r], peer_name(),
                peer_rate[r]);
    }

    printf("\n%s: %u x %u, M = %u, efConstruction = %u, %u threads, medians of %u interleaved rounds\n\n",
           set.name, set.base_count, set.dim, opts.m, opts.ef_construction, opts.threads, opts.rounds);
    if (peer) {
        printf("| set | Kith vectors/s | %s vectors/s | ratio | lowest and highest round |\n", peer_name());
        printf("|---|---:|---:|---:|---:|\n");
        double median = bench_median(ratio, opts.rounds);
        printf("| %s | %.0f | %.0f | %.2f | %.2f - %.2f |\n", set.name, bench_median(kith_rate, opts.rounds),
               bench_median(peer_rate, opts.rounds), median, ratio[0], ratio[opts.rounds - 1]);
    } else {
        printf("| set | Kith vectors/s |\n|---|---:|\n| %s | %.0f |\n", set.name,
               bench_median(kith_rate, opts.rounds));
    }
    free(ratio);
    free(peer_rate);
    free(kith_rate);
    bench_set_close(&set);
    return 0;
}
