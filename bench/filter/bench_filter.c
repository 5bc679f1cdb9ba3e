/*
 * bench_filter.c - searches under filters that have nothing to do with the vectors, by the share that matches: recall and CPU time
 * of the plan that is chosen, beside those of walks alone and of a scan, and of a search without a filter. No daemon, no log, no libkith.
 *
 *   bench_filter [--quantization Q] [SET]
 *
 * Each row has a payload of seven fields, one of them a number below 1,000,000 by chance; the filter asks for those below a border.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/report.h"
#include "client/src/payload.h"
#include "server/index/index.h"
#include "shm/graph/search.h"

#define GROUP_OPS 1024u
#define K         10u
#define EF        100u
#define QUERIES   200u
#define RANGE     1000000u

static struct kithi_map map;
static struct kithi_scratch scratch;
static struct kithi_results results;
static unsigned char buffer[KITHI_PAYLOAD_MAX];

/* The number of a row: by chance, and the same in every run. */
static uint32_t number_of(uint32_t row)
{
    uint64_t x = (row + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)((x >> 32) % RANGE);
}

static void build(struct kithi_index *ix, const struct bench_set *set)
{
    struct kithi_op *ops = bench_alloc(sizeof *ops * GROUP_OPS);
    char(*ids)[12] = bench_alloc(sizeof *ids * GROUP_OPS);
    unsigned char(*payloads)[512] = bench_alloc(sizeof *payloads * GROUP_OPS);
    uint64_t epoch = 0;
    for (uint32_t first = 0; first < set->base_count; first += GROUP_OPS) {
        uint32_t n = set->base_count - first < GROUP_OPS ? set->base_count - first : GROUP_OPS;
        struct kithi_group_result result;
        struct kithi_errmsg err;
        for (uint32_t i = 0; i < n; i++) {
            char text[512];
            uint32_t row = first + i;
            snprintf(
                text, sizeof text,
                "{\"n\":%u,\"lang\":\"l%u\",\"chars\":%u,\"tags\":[\"a\",\"t%u\"],\"author\":{\"name\":\"somebody\"},\"score\":0.5,"
                "\"text\":\"some words that nobody asks for\"}",
                number_of(row), row % 572, row % 300, row % 7);
            int len = kithi_payload_from_json(text, strlen(text), buffer, &err);
            if (len < 0 || len > (int)sizeof payloads[i])
                bench_die("%s", text);
            memcpy(payloads[i], buffer, (size_t)len);
            ops[i] = (struct kithi_op){ .type = KITHI_OP_UPSERT,
                                        .flags = KITHI_OP_PAYLOAD,
                                        .id_len = (uint16_t)snprintf(ids[i], sizeof ids[i], "%u", row),
                                        .dim = set->dim,
                                        .id = ids[i],
                                        .vector = bench_set_base(set, row),
                                        .payload = payloads[i],
                                        .payload_len = (uint32_t)len };
        }
        if (kithi_group_add(ix, ops, n, &result, &err) < 0)
            bench_die("%s", err.text);
        uint32_t jobs = kithi_group_job_count(kithi_group_open(ix));
        for (uint32_t i = 0; i < jobs; i++)
            kithi_group_job(ix, kithi_group_open(ix), 0, i);
        kithi_group_publish(ix, ++epoch, bench_now_ns() / 1000000);
    }
    free(ops);
    free(ids);
    free(payloads);
}

/* What one way to search costs, and finds. */
struct way {
    double us, recall;
    uint32_t plans[4];
};

/* The farthest hit of the truth of each query, and how many there are; filled by the scan. */
static float border[QUERIES];
static uint32_t truth[QUERIES];

static struct way measure(const struct bench_set *set, struct kithi_condition *c, bool exact)
{
    struct way w = { 0 };
    uint32_t good = 0, all = 0, n = set->query_count < QUERIES ? set->query_count : QUERIES;
    const struct kithi_search_params p = { .k = K, .ef = EF, .exact = exact, .condition = c };
    for (uint32_t q = 0; q < n / 4; q++) /* warm */
        kithi_search(&map, &scratch, bench_set_query(set, q), &p, &results);
    uint64_t begin = bench_cpu_ns();
    for (uint32_t q = 0; q < n; q++) {
        int rc = kithi_search(&map, &scratch, bench_set_query(set, q), &p, &results);
        if (rc < 0)
            bench_die("search: %s", kithi_error_text(rc));
        if (exact) {
            truth[q] = results.count;
            border[q] = results.count ? results.hits[results.count - 1].distance : 0;
        }
        for (uint32_t i = 0; i < results.count; i++)
            good += results.hits[i].distance <= border[q];
        all += truth[q];
        if (c)
            w.plans[c->plan]++;
    }
    w.us = (double)(bench_cpu_ns() - begin) / 1e3 / n;
    w.recall = all ? (double)good / all : 1;
    return w;
}

static void line(const struct bench_set *set, double share)
{
    char text[64];
    struct kithi_filter *f;
    snprintf(text, sizeof text, "n < %u", (uint32_t)(share * RANGE + 0.5));
    if (kithi_filter_parse(text, strlen(text), &f, NULL) < 0)
        bench_die("%s", text);
    struct kithi_condition c = { .filter = f, .payload = buffer };
    struct way scan = measure(set, &c, true);
    struct way chosen = measure(set, &c, false);
    c.only_walks = true;
    struct way walk = measure(set, &c, false);
    printf("%8.3f %% | %8.0f us %.4f (%u walks, %u scans, %u both) | walk %8.0f us %.4f | scan %8.0f us\n",
           share * 100, chosen.us, chosen.recall, chosen.plans[1], chosen.plans[2], chosen.plans[3], walk.us,
           walk.recall, scan.us);
    fflush(stdout);
    kithi_candidates_fini(&c.candidates);
    kithi_filter_free(f);
}

/* Nanoseconds of an evaluation on bytes that lie in the cache. */
static void evaluation(const char *text)
{
    enum { ROUNDS = 2000000 };
    struct kithi_filter *f;
    struct kithi_filter_look look = { 0 };
    static const char doc[] =
        "{\"n\":5,\"lang\":\"l1\",\"chars\":40,\"tags\":[\"a\",\"t1\"],\"author\":{\"name\":\"somebody\"},\"score\":0.5}";
    int len = kithi_payload_from_json(doc, strlen(doc), buffer, NULL), sum = 0;
    struct kithi_payload p = { .bytes = buffer, .len = (uint32_t)len };
    if (kithi_filter_parse(text, strlen(text), &f, NULL) < 0)
        bench_die("%s", text);
    uint64_t begin = bench_cpu_ns();
    for (int i = 0; i < ROUNDS; i++)
        sum += kithi_filter_eval(f, &p, &look);
    printf("%6.1f ns  %s%s\n", (double)(bench_cpu_ns() - begin) / ROUNDS, text, sum ? "" : " (false)");
    kithi_filter_free(f);
}

int main(int argc, char **argv)
{
    static const double shares[] = { 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.0005, 0.0001 };
    const struct bench_defaults defaults = { "bits", "", 1, 0 };
    struct bench_options opts;
    bench_options_parse(argc, argv, "bench_filter [OPTIONS] [SET]: searches under filters, without a daemon",
                        &defaults, &opts);
    struct bench_set set;
    bench_set_open(&opts, &set);

    evaluation("n < 10");
    evaluation("lang = \"l1\" and chars >= 40");
    evaluation("author.name in (\"somebody\", \"else\", \"entirely\") and tags = \"t1\" and not score > 0.7");

    char dir[] = "/dev/shm/kith-bench-filter-XXXXXX", path[sizeof dir + sizeof "/segment"];
    if (!mkdtemp(dir))
        bench_die("%s: %s", dir, strerror(errno));
    snprintf(path, sizeof path, "%s/segment", dir);
    struct kithi_index_identity identity = {
        .uid = "kith bench filt",
        .hash_key = "kith bench filt",
        .geometry = { .dim = set.dim,
                      .metric = set.metric,
                      .m = opts.m,
                      .ef_construction = opts.ef_construction,
                      .slot_max = KITHI_SLOT_MAX_DEFAULT },
    };
    kithi_geometry_want(&identity.geometry, opts.configs[0].quantization, opts.configs[0].keep);
    struct kithi_index_tuning tuning = { .worker_count = 1 };
    struct kithi_errmsg err = { 0 };
    struct kithi_index *ix;
    int rc = kithi_index_create(path, &identity, 1, &tuning, &ix, &err);
    if (rc == 0)
        rc = kithi_map_attach_path(path, false, &map, &err);
    /* Unlinked at once: the mappings keep the memory, and nothing is left behind. */
    unlink(path);
    rmdir(dir);
    if (rc < 0)
        bench_die("%s: %s", path, err.text);
    kithi_scratch_init(&scratch);
    kithi_results_init(&results);
    build(ix, &set);
    kithi_map_prefault(&map);

    measure(&set, NULL, true);
    struct way plain = measure(&set, NULL, false);
    printf("%u vectors of %u dimensions, %s; without a filter %.0f us, recall@%u %.4f\n", set.base_count,
           set.dim, opts.configs[0].name, plain.us, K, plain.recall);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        line(&set, shares[i]);
    kithi_scratch_fini(&scratch);
    kithi_results_fini(&results);
    kithi_map_detach(&map);
    kithi_index_close(ix);
    bench_set_close(&set);
    return 0;
}
