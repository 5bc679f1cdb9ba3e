/*
 * bench_core.c - the graph alone: server/index fills a segment, shm/graph searches a read-only
 * mapping of it; no daemon, no log, no libkith. For work on the graph and for profiles.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/report.h"
#include "bench/peers/peers.h"
#include "server/index/index.h"
#include "shm/graph/search.h"

#define GROUP_OPS 4096u

struct pool {
    struct kithi_index *ix;
    pthread_barrier_t gate; /* all workers and the owner, at the begin and at the end of a group */
    atomic_uint next;
    uint32_t job_count; /* 0 at the begin of a group: leave */
};

struct worker {
    struct pool *pool;
    unsigned number;
    pthread_t thread;
};

static void run_jobs(struct pool *pool, unsigned number)
{
    for (uint32_t i; (i = atomic_fetch_add(&pool->next, 1)) < pool->job_count;)
        kithi_group_job(pool->ix, kithi_group_open(pool->ix), number, i);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    for (;;) {
        pthread_barrier_wait(&w->pool->gate);
        if (w->pool->job_count == 0)
            return NULL;
        run_jobs(w->pool, w->number);
        pthread_barrier_wait(&w->pool->gate);
    }
}

static void stage(struct kithi_index *ix, const struct bench_set *set, uint32_t first, uint32_t n,
                  struct kithi_op *ops, char (*ids)[12])
{
    struct kithi_group_result result;
    struct kithi_errmsg err;
    for (uint32_t i = 0; i < n; i++) {
        int len = snprintf(ids[i], sizeof(ids[i]), "%u", first + i);
        ops[i] = (struct kithi_op){
            .type = KITHI_OP_UPSERT,
            .id_len = (uint16_t)len,
            .dim = set->dim,
            .id = ids[i],
            .vector = bench_set_base(set, first + i),
        };
    }
    int rc = kithi_group_add(ix, ops, n, &result, &err);
    if (rc < 0)
        bench_die("row %u: %s", first + result.failed_item, err.text);
}

/* What kithd does beside its groups. */
static void ask_for_huge_pages(struct kithi_index *ix)
{
    uint32_t wait_ms;
    for (uint32_t n; (n = kithi_pages_begin(ix, bench_now_ns() / 1000000, &wait_ms)) > 0;) {
        for (uint32_t i = 0; i < n; i++)
            kithi_pages_job(ix, i);
        kithi_pages_end(ix, bench_now_ns() / 1000000);
    }
}

/* Returns the seconds that it took. */
static double build(struct kithi_index *ix, const struct bench_set *set, unsigned threads)
{
    struct pool pool = { .ix = ix };
    struct worker *workers = bench_alloc(sizeof(*workers) * threads);
    struct kithi_op *ops = bench_alloc(sizeof(*ops) * GROUP_OPS);
    char(*ids)[12] = bench_alloc(sizeof(*ids) * GROUP_OPS);
    pthread_barrier_init(&pool.gate, NULL, threads);
    for (unsigned i = 1; i < threads; i++) {
        workers[i] = (struct worker){ .pool = &pool, .number = i };
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0)
            bench_die("cannot start a thread");
    }

    uint64_t cpu_begin = bench_process_cpu_ns();
    uint64_t begin = bench_now_ns();
    uint64_t epoch = kithi_index_epoch(ix);
    for (uint32_t first = 0; first < set->base_count; first += GROUP_OPS) {
        uint32_t n = set->base_count - first < GROUP_OPS ? set->base_count - first : GROUP_OPS;
        stage(ix, set, first, n, ops, ids);
        ask_for_huge_pages(ix);
        pool.job_count = kithi_group_job_count(kithi_group_open(ix));
        atomic_store(&pool.next, 0);
        pthread_barrier_wait(&pool.gate);
        run_jobs(&pool, 0);
        pthread_barrier_wait(&pool.gate);
        kithi_group_publish(ix, ++epoch, bench_now_ns() / 1000000);
    }
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    double cpu_seconds = (double)(bench_process_cpu_ns() - cpu_begin) / 1e9;
    printf("Kith: %u vectors in %.1f s (%.1f s of CPU time) by %u threads, %.0f a second\n", set->base_count,
           seconds, cpu_seconds, threads, set->base_count / seconds);
    fflush(stdout);

    pool.job_count = 0;
    pthread_barrier_wait(&pool.gate);
    for (unsigned i = 1; i < threads; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&pool.gate);
    free(ids);
    free(ops);
    free(workers);
    return seconds;
}

struct reader {
    struct kithi_map map;
    struct kithi_scratch scratch;
    struct kithi_results results;
};

static void reader_search(void *ctx, const float *query, uint32_t k, uint32_t ef)
{
    struct reader *r = ctx;
    struct kithi_search_params params = { .k = k, .ef = ef };
    int rc = kithi_search(&r->map, &r->scratch, query, &params, &r->results);
    if (rc < 0)
        bench_die("search: %s", kithi_error_text(rc));
}

static uint32_t reader_rows(void *ctx, uint32_t *out_rows, uint32_t k)
{
    struct reader *r = ctx;
    uint32_t n = r->results.count < k ? r->results.count : k;
    for (uint32_t i = 0; i < n; i++)
        out_rows[i] = (uint32_t)strtoul(r->results.ids + r->results.hits[i].id_off, NULL, 10);
    return n;
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "bits", "hnswlib", 7, 0 };
    struct bench_options opts;
    bench_options_parse(argc, argv,
                        "bench_core [OPTIONS] [SET]: recall and rate of the graph, without a daemon",
                        &defaults, &opts);
    struct bench_set set;
    bench_set_open(&opts, &set);

    char dir[] = "/dev/shm/kith-bench-core-XXXXXX";
    char path[sizeof(dir) + sizeof("/segment")];
    if (!mkdtemp(dir))
        bench_die("%s: %s", dir, strerror(errno));
    snprintf(path, sizeof(path), "%s/segment", dir);

    struct kithi_index_identity identity = {
        .uid = "kith bench core",
        .hash_key = "kith bench core",
        .geometry = {
            .dim = set.dim,
            .metric = set.metric,
            .m = opts.m,
            .ef_construction = opts.ef_construction,
            .slot_max = KITHI_SLOT_MAX_DEFAULT,
        },
    };
    kithi_geometry_want(&identity.geometry, opts.configs[0].quantization, opts.configs[0].keep);
    struct kithi_index_tuning tuning = { .worker_count = opts.threads };
    struct kithi_errmsg err = { 0 };
    struct kithi_index *ix;
    struct reader reader;
    int rc = kithi_index_create(path, &identity, 1, &tuning, &ix, &err);
    if (rc == 0)
        rc = kithi_map_attach_path(path, false, &reader.map, &err);
    /* Unlinked at once: the mappings keep the memory, and nothing is left behind. */
    unlink(path);
    rmdir(dir);
    if (rc < 0)
        bench_die("%s: %s", path, err.text);
    kithi_scratch_init(&reader.scratch);
    kithi_results_init(&reader.results);

    double seconds = build(ix, &set, opts.threads);
    kithi_map_prefault(&reader.map);

    struct bench_engine engines[1 + BENCH_PEER_MAX] = { {
        .ctx = &reader,
        .search = reader_search,
        .rows = reader_rows,
        .bytes_per_vector = NAN,
        .build_seconds = seconds,
    } };
    snprintf(engines[0].name, sizeof(engines[0].name), "Kith %s", opts.configs[0].name);
    struct bench_peer peers[BENCH_PEER_MAX];
    unsigned peer_count = bench_peers_open(&set, &opts, peers, engines + 1);
    struct bench_curve curve;
    bench_curve_measure(&set, &opts, engines, 1 + peer_count, &curve);
    bench_report(&set, &opts, engines, &curve);

    bench_curve_free(&curve);
    bench_peers_close(peers, peer_count);
    kithi_results_fini(&reader.results);
    kithi_scratch_fini(&reader.scratch);
    kithi_map_detach(&reader.map);
    kithi_index_close(ix);
    bench_set_close(&set);
    return 0;
}
