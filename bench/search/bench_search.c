/*
 * bench_search.c - recall and rate of one reader through the mapped segment of a live kithd.
 */
#include <stdio.h>
#include <stdlib.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/curve.h"
#include "bench/common/daemon.h"
#include "bench/peers/engine.h"

struct reader {
    kith *index;
    kith_results *results;
    uint32_t dim;
};

static void reader_search(void *ctx, const float *query, uint32_t k, uint32_t ef)
{
    struct reader *r = ctx;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = ef;
    int rc = kith_search(r->index, query, r->dim, k, &opts, r->results);
    if (rc < 0)
        bench_die("search: %s", kith_strerror(rc));
}

static uint32_t reader_rows(void *ctx, uint32_t *out_rows, uint32_t k)
{
    struct reader *r = ctx;
    uint32_t n = kith_results_count(r->results);
    if (n > k)
        n = k;
    for (uint32_t i = 0; i < n; i++)
        out_rows[i] = (uint32_t)strtoul(kith_results_id(r->results, i), NULL, 10);
    return n;
}

int main(int argc, char **argv)
{
    struct bench_options opts;
    bench_options_parse(argc, argv,
                        "bench_search [OPTIONS] [SET]: recall and rate of one reader of a live kithd", &opts);
    struct bench_daemon daemon;
    bench_daemon_start(&daemon, opts.threads);
    struct bench_set set;
    bench_set_open(opts.set, &set);
    bench_daemon_create(&daemon, &set, &opts);
    double seconds = bench_daemon_load(&daemon, &set);
    printf("Kith: %u vectors in %.1f s by %u threads, %.0f a second\n", set.base_count, seconds, opts.threads,
           set.base_count / seconds);
    fflush(stdout);

    struct reader reader = { .dim = set.dim, .results = kith_results_new() };
    struct kith_open_opts open_opts = KITH_OPEN_OPTS_INIT;
    open_opts.run_dir = daemon.run_dir;
    open_opts.prefault = 1; /* the peer's pages are present, too */
    int rc = kith_open(BENCH_COLLECTION, &open_opts, &reader.index);
    if (rc < 0 || !reader.results)
        bench_die("open: %s", kith_strerror(rc));

    struct bench_engine engines[2] = { { "Kith", &reader, reader_search, reader_rows } };
    struct peer *peer = peer_engine_new(&set, &opts, &engines[1]);
    bench_curve(&set, &opts, engines, peer ? 2 : 1);

    peer_free(peer);
    kith_results_free(reader.results);
    kith_close(reader.index);
    bench_set_close(&set);
    bench_daemon_stop(&daemon);
    return 0;
}
