/*
 * bench_recall.c - how well a recall that is asked for is kept: kithd measures on the vectors of a set, queries that are not
 * among them ask for a recall, and what they find is compared with their true neighbours.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/common/reader.h"

static const double targets[] = { 0.90, 0.95, 0.99 };
/* 10, 1 and 100 are measured; for others there is an ef between (kith.h). */
static const uint32_t ks[] = { 10, 1, 100, 3, 30 };
/* Points of a curve from here on are left out of the comparison: there is next to nothing to be missed. */
#define CURVE_END 0.998

#define WAIT_S    900.0
#define BELOW_MAX 0.01
#define ABOVE_MAX 0.03

/* The number behind "key": in what kithd says of its measuring; what "state" says in *out_resting. */
static double told(kith *index, const char *key, bool *out_resting)
{
    char *json = NULL, name[32];
    int rc = kith_daemon_stats(index, &json);
    if (rc < 0)
        bench_die("statistics: %s", kith_strerror(rc));
    snprintf(name, sizeof(name), "\"%s\":", key);
    const char *recall = strstr(json, "\"recall\":{"), *at = recall ? strstr(recall, name) : NULL;
    if (!at)
        bench_die("kithd says nothing of recall: %s", json);
    if (out_resting)
        *out_resting = strncmp(recall + strlen("\"recall\":{"), "\"state\":\"resting\"", 17) == 0;
    double value = strtod(at + strlen(name), NULL);
    free(json);
    return value;
}

static void await_curve(kith *index)
{
    const struct timespec nap = { .tv_nsec = 100000000 };
    uint64_t begin = bench_now_ns();
    bool resting = false;
    while (told(index, "taken", &resting), !resting) {
        if ((double)(bench_now_ns() - begin) / 1e9 > WAIT_S)
            bench_die("kithd has not measured recall within %.0f s", WAIT_S);
        nanosleep(&nap, NULL);
    }
    struct kith_recall c = KITH_RECALL_INIT;
    if (kith_recall_curve(index, &c) < 1)
        bench_die("kithd has published no curve; is recall_share 0?");
    printf("measured with %.0f vectors in %.1f s, %.1f s of CPU time; %u points of %llu samples\n\n",
           told(index, "taken", NULL), (double)(bench_now_ns() - begin) / 1e9,
           told(index, "cpu_ms", NULL) / 1000, c.point_count, (unsigned long long)c.samples);
}

/* Share of the true neighbours that searches find which ask for target; 0: with ef. */
static double measure(const struct bench_reader *r, const struct bench_set *set, uint32_t k, double target,
                      uint32_t ef, struct kith_search_info *out)
{
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;
    uint32_t rows[BENCH_K_MAX];
    uint64_t right = 0;
    o.target_recall = target;
    o.ef = ef;
    for (uint32_t q = 0; q < set->query_count; q++) {
        int n = kith_search(r->index, bench_set_query(set, q), set->dim, k, &o, r->results);
        if (n < 0)
            bench_die("search: %s", kith_strerror(n));
        for (int i = 0; i < n; i++)
            rows[i] = (uint32_t)strtoul(kith_results_id(r->results, (uint32_t)i), NULL, 10);
        right += bench_set_hits(set, q, rows, (uint32_t)n, k);
    }
    *out = (struct kith_search_info)KITH_SEARCH_INFO_INIT;
    kith_results_info(r->results, out);
    return (double)right / ((double)set->query_count * k);
}

static const char *verdict(double recall, double target, uint32_t ef, uint32_t k)
{
    if (recall < target - BELOW_MAX)
        return "too low";
    if (recall > target + ABOVE_MAX)
        return ef == k ? "ef = k" : "too wide";
    return "kept";
}

static void ask(const struct bench_reader *reader, const struct bench_set *set)
{
    static const char *const bases[] = { "given", "curve", "beyond", "blind", "limit" };
    printf("| k | asked | ef | by | recall | off by | |\n|---:|---:|---:|---|---:|---:|---|\n");
    for (size_t j = 0; j < sizeof(ks) / sizeof(ks[0]); j++) {
        for (size_t t = 0; ks[j] <= set->truth_k && t < sizeof(targets) / sizeof(targets[0]); t++) {
            struct kith_search_info info;
            double recall = measure(reader, set, ks[j], targets[t], 0, &info);
            printf("| %u | %.2f | %u | %s | %.4f | %+.4f | %s |\n", ks[j], targets[t], info.ef,
                   info.ef_basis < sizeof(bases) / sizeof(bases[0]) ? bases[info.ef_basis] : "unknown",
                   recall, recall - targets[t], verdict(recall, targets[t], info.ef, ks[j]));
        }
    }
    putchar('\n');
}

/* What the curves say beside what the queries find. */
static void compare(const struct bench_reader *reader, const struct bench_set *set)
{
    printf(
        "| k | ef | the curve says | queries find | missed, to what it says |\n|---:|---:|---:|---:|---:|\n");
    for (size_t j = 0; j < sizeof(ks) / sizeof(ks[0]) && ks[j] <= set->truth_k; j++) {
        struct kith_recall c = KITH_RECALL_INIT;
        if (kith_recall_curve_of(reader->index, ks[j], &c) < 1)
            continue;
        for (uint32_t i = 0; i < c.point_count && (double)c.points[i].recall < CURVE_END; i++) {
            struct kith_search_info info;
            double says = (double)c.points[i].recall;
            double recall = measure(reader, set, ks[j], 0, c.points[i].ef, &info);
            printf("| %u | %u | %.4f (%.4f to %.4f) | %.4f | %.2f |\n", ks[j], c.points[i].ef, says,
                   (double)c.points[i].low, (double)c.points[i].high, recall, (1 - recall) / (1 - says));
        }
        if (c.kept_samples)
            printf("\nkithd says of 0.90, 0.95 and 0.99 with k = %u: %.4f, %.4f, %.4f by %u vectors\n\n",
                   ks[j], (double)c.kept[0], (double)c.kept[1], (double)c.kept[2], c.kept_samples);
    }
    putchar('\n');
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto", "", 1, 0 };
    struct bench_options opts;
    bench_options_parse(
        argc, argv,
        "bench_recall [OPTIONS] [SET]: what searches find that ask for a recall of 0.90, 0.95, 0.99",
        &defaults, &opts);
    struct bench_daemon daemon;
    bench_daemon_start(&daemon, opts.threads);
    struct bench_set set;
    bench_set_open(&opts, &set);
    for (unsigned i = 0; i < opts.config_count; i++) {
        struct bench_engine engine;
        struct bench_reader reader;
        bench_daemon_create(&daemon, &set, &opts, &opts.configs[i]);
        bench_daemon_load(&daemon, &set, &opts.configs[i]);
        bench_reader_open(&reader, &daemon, &opts.configs[i], &engine);
        printf("%s, %s: %u vectors, %u queries\n", set.name, engine.name, set.base_count, set.query_count);
        await_curve(reader.index);
        ask(&reader, &set);
        compare(&reader, &set);
        bench_reader_close(&reader);
        bench_daemon_drop(&daemon, &opts.configs[i]);
    }
    bench_set_close(&set);
    bench_daemon_stop(&daemon);
    return 0;
}
