/*
 * reader.c - searches through libkith.
 */
#include "bench/common/reader.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/common/clock.h"

static void reader_search(void *ctx, const float *query, uint32_t k, uint32_t ef)
{
    struct bench_reader *r = ctx;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = ef;
    int rc = kith_search(r->index, query, r->dim, k, &opts, r->results);
    if (rc < 0)
        bench_die("search: %s", kith_strerror(rc));
}

static uint32_t reader_rows(void *ctx, uint32_t *out_rows, uint32_t k)
{
    struct bench_reader *r = ctx;
    uint32_t n = kith_results_count(r->results);
    if (n > k)
        n = k;
    for (uint32_t i = 0; i < n; i++)
        out_rows[i] = (uint32_t)strtoul(kith_results_id(r->results, i), NULL, 10);
    return n;
}

void bench_reader_open(struct bench_reader *r, const struct bench_daemon *d,
                       const struct bench_config *config, struct bench_engine *out_engine)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = d->run_dir;
    opts.prefault = 1; /* the peers' pages are present, too */
    int rc = kith_open(config->name, &opts, &r->index);
    if (rc < 0)
        bench_die("open %s: %s", config->name, kith_strerror(rc));
    r->dim = kith_dim(r->index);
    r->results = kith_results_new();
    r->stats = (struct kith_stats)KITH_STATS_INIT;
    if (!r->results || kith_stats(r->index, &r->stats) < 0)
        bench_die("%s: out of memory, or gone", config->name);
    *out_engine = (struct bench_engine){
        .ctx = r,
        .search = reader_search,
        .rows = reader_rows,
        .bytes_per_vector = (double)r->stats.bytes_taken / (double)r->stats.live_count,
        .build_seconds = NAN,
    };
    bool chosen = config->quantization == KITH_QUANTIZATION_AUTO;
    snprintf(out_engine->name, sizeof(out_engine->name), "Kith %s%s%s%s", config->name, chosen ? " (" : "",
             chosen ? bench_quantization_name(r->stats.quantization) : "", chosen ? ")" : "");
}

void bench_reader_close(struct bench_reader *r)
{
    kith_results_free(r->results);
    kith_close(r->index);
}
