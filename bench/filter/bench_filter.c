/*
 * bench_filter.c - searches under filters by the share that matches and by where the matches lie: what each plan costs and finds, which one
 * is chosen, and how much dearer that is than the cheapest. No daemon, no log, no libkith.
 *
 *   bench_filter [--quantization Q] [SET]
 *
 * Each row has a payload of eight fields. `n` is a number below 1,000,000 by chance; `near` is where the row is among all by its distance from
 * one of them, from 0 to 1,000,000. So `near < x` are those around a spot, asked for by the queries nearest to the spot (near) and by those
 * farthest from it (far): conditions that have to do with the query. `both` is one of each, for the far queries.
 */
#include <errno.h>
#include <math.h>
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
#define QUERIES   100u /* of a cell */
#define ROUNDS    7u
/* Of a query and a round, so that dear plans take no hour. */
#define TURN_NS 30000000u
#define RANGE   1000000u

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

/* Rows of the set by their distance from one of them: where each is, times RANGE by their number. */
static uint32_t *places;

struct far {
    float distance;
    uint32_t row;
};

static int by_distance(const void *a, const void *b)
{
    const struct far *x = a, *y = b;
    return (x->distance > y->distance) - (x->distance < y->distance);
}

static void sort_far(const struct bench_set *set, const float *all, uint32_t count, struct far *out)
{
    const float *spot = bench_set_base(set, set->base_count / 3);
    for (uint32_t i = 0; i < count; i++) {
        double sum = 0, a = 0, b = 0;
        for (uint32_t j = 0; j < set->dim; j++) {
            double x = all[(size_t)i * set->dim + j], y = spot[j];
            sum += set->metric == KITHI_METRIC_L2 ? (x - y) * (x - y) : -x * y;
            a += x * x;
            b += y * y;
        }
        if (set->metric == KITHI_METRIC_COSINE && a > 0 && b > 0)
            sum /= sqrt(a * b);
        out[i] = (struct far){ .distance = (float)sum, .row = i };
    }
    qsort(out, count, sizeof *out, by_distance);
}

static void place_rows(const struct bench_set *set)
{
    struct far *all = bench_alloc(sizeof *all * set->base_count);
    places = bench_alloc(sizeof *places * set->base_count);
    sort_far(set, set->base, set->base_count, all);
    for (uint32_t i = 0; i < set->base_count; i++)
        places[all[i].row] = (uint32_t)((uint64_t)i * RANGE / set->base_count);
    free(all);
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
                "{\"n\":%u,\"near\":%u,\"lang\":\"l%u\",\"chars\":%u,\"tags\":[\"a\",\"t%u\"],\"author\":{\"name\":\"somebody\"},\"score\":0.5,"
                "\"text\":\"some words that nobody asks for\"}",
                number_of(row), places[row], row % 572, row % 300, row % 7);
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

/* Which queries ask, and what for. */
enum kind { CHANCE, NEAR, FAR, BOTH, KINDS };
static const char *const kind_names[] = { "chance", "near", "far", "both" };

static const float *asked[QUERIES];
static uint32_t asked_count;

static void ask(const struct bench_set *set, enum kind kind, const struct far *order)
{
    uint32_t n = set->query_count;
    asked_count = n < QUERIES ? n : QUERIES;
    for (uint32_t i = 0; i < asked_count; i++) {
        uint32_t at = kind == CHANCE ? i
                      : kind == NEAR ? i * (n / 4) / asked_count
                                     : n - 1 - i * (n / 4) / asked_count;
        asked[i] = bench_set_query(set, kind == CHANCE ? i : order[at].row);
    }
}

/* The ways to search a cell: the scan first, as it has the truth. */
enum way_of { SCAN, WALK, HOPS, CHOSEN, WAYS };
static const enum kithi_plan only[] = { KITHI_PLAN_SCAN, KITHI_PLAN_WALK, KITHI_PLAN_HOPS, KITHI_PLAN_NONE };

struct way {
    double us[ROUNDS], middle, recall;
    double evaluated;
    uint32_t missing; /* hits that there should have been */
    uint32_t plans[5];
    bool out; /* it would cost too much to be of interest */
};

/* The farthest hit of the truth of each query, and how many there are; filled by the scan. */
static float border[QUERIES];
static uint32_t truth[QUERIES];

/* All queries once: what is found. */
static void find(struct way *w, struct kithi_condition *c, enum way_of way)
{
    const struct kithi_search_params p = { .k = K, .ef = EF, .exact = way == SCAN, .condition = c };
    uint32_t good = 0, all = 0;
    for (uint32_t q = 0; q < asked_count; q++) {
        int rc = kithi_search(&map, &scratch, asked[q], &p, &results);
        if (rc < 0)
            bench_die("search: %s", kithi_error_text(rc));
        if (way == SCAN) {
            truth[q] = results.count;
            border[q] = results.count ? results.hits[results.count - 1].distance : 0;
        }
        for (uint32_t i = 0; i < results.count; i++)
            good += results.hits[i].distance <= border[q];
        all += truth[q];
        w->missing += truth[q] - results.count;
        if (c) {
            w->plans[c->plan]++;
            w->evaluated += (double)c->evaluated / asked_count;
        }
    }
    w->recall = all ? (double)good / all : 1;
}

/* As many of the queries as go into a turn, another part in each round. */
static double turn(struct kithi_condition *c, bool exact, uint32_t round)
{
    const struct kithi_search_params p = { .k = K, .ef = EF, .exact = exact, .condition = c };
    uint64_t begin = bench_cpu_ns(), ns = 0;
    uint32_t n = 0;
    for (; n < asked_count && ns < TURN_NS; n++) {
        kithi_search(&map, &scratch, asked[(n + round * 13) % asked_count], &p, &results);
        ns = bench_cpu_ns() - begin;
    }
    return (double)ns / 1e3 / n;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double middle(const double *values)
{
    double sorted[ROUNDS];
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, ROUNDS, sizeof *sorted, by_size);
    return sorted[ROUNDS / 2];
}

static struct {
    uint32_t all, found, cheap, whole;
    double worst;
} cells;

#define RECALL_MIN 0.97
#define RATIO_MAX  1.2

static void cell(enum kind kind, double share)
{
    char text[64];
    double ratio[ROUNDS];
    struct kithi_filter *f;
    struct way ways[WAYS] = { 0 };
    uint32_t part = (uint32_t)((kind == BOTH ? sqrt(share) : share) * RANGE + 0.5);
    snprintf(text, sizeof text,
             kind == CHANCE ? "n < %u"
             : kind == BOTH ? "near < %u and n < %u"
                            : "near < %u",
             part, part);
    if (kithi_filter_parse(text, strlen(text), &f, NULL) < 0)
        bench_die("%s", text);
    struct kithi_condition conditions[WAYS];
    for (enum way_of i = SCAN; i < WAYS; i++) {
        conditions[i] = (struct kithi_condition){ .filter = f, .payload = buffer, .only = only[i] };
        double us = i == SCAN ? 0 : ways[SCAN].us[0];
        /* A walk that is as wide as a quarter of the collection is no way to search. */
        ways[i].out = i == WALK && K * 4 / share > map.geometry.slot_max && us > 0;
        ways[i].out |= i == WALK && share < 0.002;
        if (!ways[i].out)
            find(&ways[i], &conditions[i], i);
    }
    for (uint32_t r = 0; r < ROUNDS; r++)
        for (enum way_of i = SCAN; i < WAYS; i++)
            if (!ways[i].out)
                ways[i].us[r] = turn(&conditions[i], i == SCAN, r);
    enum way_of best = SCAN;
    for (enum way_of i = SCAN; i < WAYS; i++) {
        ways[i].middle = middle(ways[i].us);
        bool reaches = ways[i].recall >= RECALL_MIN && ways[i].missing == 0 && !ways[i].out;
        if (i < CHOSEN && reaches && ways[i].middle < ways[best].middle)
            best = i;
    }
    for (uint32_t r = 0; r < ROUNDS; r++)
        ratio[r] = ways[CHOSEN].us[r] / ways[best].us[r];
    double dearer = middle(ratio);
    const struct way *w = &ways[CHOSEN];
    const struct kithi_sample *s = &conditions[CHOSEN].sample;
    double beside = s->beside ? (double)s->beside_matched / s->beside : 0;
    printf(
        "%6s %8.3f %% | %8.0f %.4f %3u/%3u/%3u/%3u | %8.0f %.4f | %8.0f %.4f %7.0f | %8.0f | %.2f | %.3f\n",
        kind_names[kind], share * 100, w->middle, w->recall, w->plans[KITHI_PLAN_WALK],
        w->plans[KITHI_PLAN_HOPS], w->plans[KITHI_PLAN_SCAN], w->plans[KITHI_PLAN_WALK_SCAN],
        ways[WALK].middle, ways[WALK].recall, ways[HOPS].middle, ways[HOPS].recall, ways[HOPS].evaluated,
        ways[SCAN].middle, dearer, beside);
    fflush(stdout);
    cells.all++;
    cells.found += w->recall >= RECALL_MIN;
    cells.cheap += dearer <= RATIO_MAX;
    cells.whole += w->missing == 0;
    cells.worst = dearer > cells.worst ? dearer : cells.worst;
    kithi_filter_free(f);
}

/* Nanoseconds of an evaluation on bytes that lie in the cache. */
static void evaluation(const char *text)
{
    enum { TIMES = 2000000 };
    struct kithi_filter *f;
    struct kithi_filter_look look = { 0 };
    static const char doc[] =
        "{\"n\":5,\"lang\":\"l1\",\"chars\":40,\"tags\":[\"a\",\"t1\"],\"author\":{\"name\":\"somebody\"},\"score\":0.5}";
    int len = kithi_payload_from_json(doc, strlen(doc), buffer, NULL), sum = 0;
    struct kithi_payload p = { .bytes = buffer, .len = (uint32_t)len };
    if (kithi_filter_parse(text, strlen(text), &f, NULL) < 0)
        bench_die("%s", text);
    uint64_t begin = bench_cpu_ns();
    for (int i = 0; i < TIMES; i++)
        sum += kithi_filter_eval(f, &p, &look);
    printf("%6.1f ns  %s%s\n", (double)(bench_cpu_ns() - begin) / TIMES, text, sum ? "" : " (false)");
    kithi_filter_free(f);
}

int main(int argc, char **argv)
{
    static const double shares[] = { 1, 0.5, 0.2, 0.1, 0.05, 0.01, 0.002, 0.0005, 0.0001 };
    const struct bench_defaults defaults = { "bits", "", 1, 0 };
    struct bench_options opts;
    bench_options_parse(argc, argv, "bench_filter [OPTIONS] [SET]: searches under filters, without a daemon",
                        &defaults, &opts);
    struct bench_set set;
    bench_set_open(&opts, &set);
    place_rows(&set);

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

    struct far *order = bench_alloc(sizeof *order * set.query_count);
    struct way scan = { 0 }, plain = { 0 };
    sort_far(&set, set.query, set.query_count, order);
    ask(&set, CHANCE, order);
    find(&scan, NULL, SCAN);
    find(&plain, NULL, CHOSEN);
    for (uint32_t r = 0; r < ROUNDS; r++)
        plain.us[r] = turn(NULL, false, r);
    printf("%u vectors of %u dimensions, %s; without a filter %.0f us, recall@%u %.4f\n", set.base_count,
           set.dim, opts.configs[0].name, middle(plain.us), K, plain.recall);
    puts(
        "  kind    matches |  chosen recall walk/hops/scan/late |     walk recall |     hops recall   looks |     scan | ratio | beside");
    for (enum kind kind = CHANCE; kind < KINDS; kind++) {
        ask(&set, kind, order);
        for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
            cell(kind, shares[i]);
    }
    printf(
        "%u cells: recall@%u of %.2f in %u, all results in %u, at most %.1f times the cheapest in %u, %.2f at most\n",
        cells.all, K, RECALL_MIN, cells.found, cells.whole, RATIO_MAX, cells.cheap, cells.worst);
    free(order);
    free(places);
    kithi_scratch_fini(&scratch);
    kithi_results_fini(&results);
    kithi_map_detach(&map);
    kithi_index_close(ix);
    bench_set_close(&set);
    return 0;
}
