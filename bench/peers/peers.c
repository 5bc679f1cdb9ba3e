/*
 * peers.c - the peers that there are, and each of them as an engine of a curve.
 */
#include "bench/peers/peers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/common/clock.h"

static const struct known {
    const char *name;
    const char *package;
    const struct peer_kind *kind; /* NULL: its package was not there when this was built */
} known[] = {
#ifdef KITH_BENCH_HNSWLIB
    { "hnswlib", "libhnswlib-dev", &peer_hnswlib },
    { "hnswlib-replace", "libhnswlib-dev", &peer_hnswlib_replace },
#else
    { "hnswlib", "libhnswlib-dev", NULL },
    { "hnswlib-replace", "libhnswlib-dev", NULL },
#endif
#ifdef KITH_BENCH_FAISS
    { "faiss", "libfaiss-dev", &peer_faiss },
    { "faiss-sq8", "libfaiss-dev", &peer_faiss_sq8 },
#else
    { "faiss", "libfaiss-dev", NULL },
    { "faiss-sq8", "libfaiss-dev", NULL },
#endif
};

static const struct known *find(const char *name)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].name, name) == 0)
            return &known[i];
    }
    bench_die("there is no peer \"%s\"; there are hnswlib, hnswlib-replace, faiss, faiss-sq8", name);
}

unsigned bench_peers_chosen(const struct bench_options *opts,
                            const struct peer_kind *out_kinds[BENCH_PEER_MAX])
{
    unsigned n = 0;
    for (unsigned i = 0; i < opts->peer_count; i++) {
        const struct known *k = find(opts->peers[i]);
        if (k->kind)
            out_kinds[n++] = k->kind;
        else
            printf("Without %s: %s was not installed when this was built.\n", k->name, k->package);
    }
    return n;
}

struct peer *bench_peer_new(const struct peer_kind *kind, const struct bench_set *set,
                            const struct bench_options *opts)
{
    struct peer_params params = {
        .metric = set->metric,
        .dim = set->dim,
        .count_max = set->base_count,
        .m = opts->m,
        .ef_construction = opts->ef_construction,
    };
    struct peer *p = kind->create(&params);
    if (!p)
        bench_die("out of memory for %s", kind->name);
    return p;
}

static void engine_search(void *ctx, const float *query, uint32_t k, uint32_t ef)
{
    const struct bench_peer *peer = ctx;
    peer->kind->search(peer->p, query, k, ef);
}

static uint32_t engine_rows(void *ctx, uint32_t *out_rows, uint32_t k)
{
    const struct bench_peer *peer = ctx;
    return peer->kind->rows(peer->p, out_rows, k);
}

/* Returns the seconds that building took; NaN when it was read. */
static double fill(const struct bench_peer *peer, const struct bench_set *set,
                   const struct bench_options *opts)
{
    char path[4096] = "";
    if (opts->peer_index && strcmp(peer->kind->name, "hnswlib") == 0)
        snprintf(path, sizeof(path), "%s", opts->peer_index);
    else if (opts->peer_index)
        snprintf(path, sizeof(path), "%s.%s", opts->peer_index, peer->kind->name);
    if (path[0] && peer->kind->load(peer->p, path))
        return NAN;
    uint64_t cpu_begin = bench_process_cpu_ns();
    uint64_t begin = bench_now_ns();
    peer->kind->build(peer->p, set->base, set->base_count, opts->threads);
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    double cpu_seconds = (double)(bench_process_cpu_ns() - cpu_begin) / 1e9;
    printf("%s: %u vectors in %.1f s (%.1f s of CPU time) by %u threads, %.0f a second\n", peer->kind->name,
           set->base_count, seconds, cpu_seconds, opts->threads, set->base_count / seconds);
    fflush(stdout);
    if (path[0])
        peer->kind->save(peer->p, path);
    return seconds;
}

unsigned bench_peers_open(const struct bench_set *set, const struct bench_options *opts,
                          struct bench_peer out_peers[BENCH_PEER_MAX], struct bench_engine *out_engines)
{
    const struct peer_kind *kinds[BENCH_PEER_MAX];
    unsigned n = bench_peers_chosen(opts, kinds);
    for (unsigned i = 0; i < n; i++) {
        struct bench_peer *peer = &out_peers[i];
        *peer = (struct bench_peer){ kinds[i], bench_peer_new(kinds[i], set, opts) };
        double seconds = fill(peer, set, opts);
        out_engines[i] = (struct bench_engine){
            .ctx = peer,
            .search = engine_search,
            .rows = engine_rows,
            .bytes_per_vector = (double)peer->kind->bytes(peer->p) / set->base_count,
            .build_seconds = seconds,
        };
        snprintf(out_engines[i].name, sizeof(out_engines[i].name), "%s", peer->kind->name);
    }
    return n;
}

void bench_peers_close(struct bench_peer *peers, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        peers[i].kind->destroy(peers[i].p);
}
