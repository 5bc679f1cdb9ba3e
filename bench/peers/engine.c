/*
 * engine.c - the peer as an engine of a curve.
 */
#include "bench/peers/engine.h"

#include <stdio.h>

#include "bench/common/clock.h"

static void engine_search(void *ctx, const float *query, uint32_t k, uint32_t ef)
{
    peer_search(ctx, query, k, ef);
}

static uint32_t engine_rows(void *ctx, uint32_t *out_rows, uint32_t k)
{
    return peer_rows(ctx, out_rows, k);
}

struct peer *peer_engine_new(const struct bench_set *set, const struct bench_options *opts,
                             struct bench_engine *out_engine)
{
    if (!opts->peer)
        return NULL;
    if (!peer_available()) {
        printf("No peer to compare with: libhnswlib-dev was not installed when this was built.\n");
        return NULL;
    }
    struct peer_params params = {
        .metric = set->metric,
        .dim = set->dim,
        .count_max = set->base_count,
        .m = opts->m,
        .ef_construction = opts->ef_construction,
    };
    struct peer *p = peer_new(&params);
    if (!p)
        bench_die("out of memory for %s", peer_name());
    if (!opts->peer_index || !peer_load(p, opts->peer_index)) {
        uint64_t cpu_begin = bench_process_cpu_ns();
        uint64_t begin = bench_now_ns();
        peer_build(p, set->base, set->base_count, opts->threads);
        double seconds = (double)(bench_now_ns() - begin) / 1e9;
        double cpu_seconds = (double)(bench_process_cpu_ns() - cpu_begin) / 1e9;
        printf("%s: %u vectors in %.1f s (%.1f s of CPU time) by %u threads, %.0f a second\n", peer_name(),
               set->base_count, seconds, cpu_seconds, opts->threads, set->base_count / seconds);
        fflush(stdout);
        if (opts->peer_index)
            peer_save(p, opts->peer_index);
    }
    *out_engine = (struct bench_engine){ peer_name(), p, engine_search, engine_rows };
    return p;
}
