/*
 * cmd_bench.c - bench: recall against a truth file, searches a second and latency, for a list of ef, or of recalls that are
 * asked for.
 *
 * A hit counts when its exact distance is at most that of the k-th true neighbour, 1e-6 relative: of
 * several neighbours at the same distance any is right. Both distances are computed here, in double
 * precision from the stored vectors, so that rounding in the search cannot move the line.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shm/graph/search.h"
#include "tools/args.h"
#include "tools/latency.h"
#include "tools/out.h"
#include "tools/vectors.h"

#define EF_COUNT_MAX 64u
#define THREAD_MAX   256u
#define SLACK        1e-6 /* relative */

/* ef values worth a look, when none are given; those below k are left out. */
static const uint32_t EF_DEFAULT[] = { 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800 };

struct bench {
    const struct kithi_tool *t;
    kith *index;
    uint32_t dim, k, threads;
    double seconds;
    float *queries;
    size_t query_count;
    double *limit; /* distance of the k-th true neighbour of each query */

    uint32_t ef; /* of the round that runs; 0: as the target says */
    double target;
    bool timed; /* false: one pass over all queries, hits are compared */
    uint64_t end_ns;
    _Atomic uint64_t next; /* query of an untimed pass */
    _Atomic int failed;    /* first error of a search */
};

struct worker {
    struct bench *b;
    pthread_t thread;
    uint32_t number;
    kith_results *results;
    float *vector;
    uint64_t right;               /* hits that count */
    struct kithi_latency latency; /* of timed searches */
};

static double distance(const struct bench *b, const float *x, const float *y)
{
    double dot = 0, xx = 0, yy = 0, l2 = 0;
    for (uint32_t i = 0; i < b->dim; i++) {
        double p = (double)x[i], q = (double)y[i];
        dot += p * q;
        xx += p * p;
        yy += q * q;
        l2 += (p - q) * (p - q);
    }
    switch (kith_metric_of(b->index)) {
    case KITH_METRIC_L2: return l2;
    case KITH_METRIC_COSINE: return 1 - dot / sqrt(xx * yy);
    default: return 1 - dot;
    }
}

/* Hits of the search just made that count; or an error. */
static int count_right(struct worker *w, size_t query)
{
    const struct bench *b = w->b;
    const double limit = b->limit[query] + SLACK * fabs(b->limit[query]);
    int right = 0;
    for (uint32_t i = 0; i < kith_results_count(w->results); i++) {
        int rc = kith_get(b->index, kith_results_id(w->results, i), w->vector, b->dim, NULL);
        if (rc == KITH_E_NOT_FOUND)
            continue; /* deleted since */
        if (rc < 0)
            return rc;
        if (distance(b, b->queries + query * b->dim, w->vector) <= limit)
            right++;
    }
    return right;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct bench *b = w->b;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = b->ef;
    opts.target_recall = b->target;
    size_t query =
        (size_t)w->number * b->query_count / b->threads; /* timed threads begin at different places */
    while (atomic_load_explicit(&b->failed, memory_order_relaxed) == 0) {
        if (!b->timed) {
            query = atomic_fetch_add_explicit(&b->next, 1, memory_order_relaxed);
            if (query >= b->query_count)
                break;
        }
        uint64_t begin = kithi_tool_now_ns();
        if (b->timed && begin >= b->end_ns)
            break;
        int rc = kith_search(b->index, b->queries + query * b->dim, b->dim, b->k, &opts, w->results);
        uint64_t end = kithi_tool_now_ns();
        if (rc >= 0 && b->timed) {
            kithi_latency_add(&w->latency, end - begin);
            query = query + 1 == b->query_count ? 0 : query + 1;
        } else if (rc >= 0) {
            rc = count_right(w, query);
            if (rc >= 0)
                w->right += (uint64_t)rc;
        }
        if (rc < 0)
            atomic_store_explicit(&b->failed, rc, memory_order_relaxed);
    }
    return NULL;
}

/* One round of all threads; returns its seconds, or a negative error. */
static double run_round(struct bench *b, struct worker *workers, bool timed)
{
    uint32_t started = 0;
    uint64_t begin = kithi_tool_now_ns();
    b->timed = timed;
    b->end_ns = begin + (uint64_t)(b->seconds * 1e9);
    atomic_store_explicit(&b->next, 0, memory_order_relaxed);
    while (started < b->threads &&
           pthread_create(&workers[started].thread, NULL, work, &workers[started]) == 0)
        started++;
    if (started < b->threads)
        atomic_store_explicit(&b->failed, -EAGAIN, memory_order_relaxed);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    int failed = atomic_load_explicit(&b->failed, memory_order_relaxed);
    return failed != 0 ? failed : (double)(kithi_tool_now_ns() - begin) / 1e9;
}

/* What is asked for: ef, or a recall. */
struct ask {
    uint32_t ef;
    double target;
};

static int bench_one(struct bench *b, struct worker *workers, const struct ask *a, bool targets)
{
    static struct kithi_latency all;
    uint64_t right = 0;
    memset(&all, 0, sizeof all);
    for (uint32_t i = 0; i < b->threads; i++) {
        workers[i].right = 0;
        memset(&workers[i].latency, 0, sizeof workers[i].latency);
    }
    b->ef = a->ef;
    b->target = a->target;
    double seconds = run_round(b, workers, false); /* recall, and the warm-up of what follows */
    if (seconds >= 0)
        seconds = run_round(b, workers, true);
    if (seconds < 0 && a->ef == 0)
        return kithi_tool_fail(b->t, "recall %g: %s", a->target, kith_strerror((int)seconds));
    if (seconds < 0)
        return kithi_tool_fail(b->t, "ef %u: %s", a->ef, kith_strerror((int)seconds));
    /* Of the last search: the curve may have been renewed meanwhile. */
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    uint32_t ef = a->ef;
    if (ef == 0 && kith_results_info(workers[0].results, &info) == 0)
        ef = info.ef;
    for (uint32_t i = 0; i < b->threads; i++) {
        right += workers[i].right;
        kithi_latency_merge(&all, &workers[i].latency);
    }
    double recall = (double)right / ((double)b->query_count * b->k);
    double qps = (double)all.count / seconds;
    double p50 = kithi_latency_us(&all, 0.5);
    double p99 = kithi_latency_us(&all, 0.99);
    double p999 = kithi_latency_us(&all, 0.999);
    if (b->t->json) {
        printf("{\"ef\":%u", ef);
        if (a->target != 0)
            printf(",\"target_recall\":%g,\"ef_basis\":\"%s\"", a->target, kithi_tool_basis(info.ef_basis));
        printf(",\"recall\":%.6f,\"qps\":%.1f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f}\n", recall,
               qps, p50, p99, p999);
    } else {
        printf("%7u  %8.4f  %11.0f  %9.1f  %9.1f  %9.1f", ef, recall, qps, p50, p99, p999);
        if (a->target != 0)
            printf("  %8g  %+8.4f  %s", a->target, recall - a->target, kithi_tool_basis(info.ef_basis));
        else if (targets)
            printf("  %8s  %8s  %s", "-", "-", "given");
        putchar('\n');
    }
    fflush(stdout);
    return KITHI_TOOL_OK;
}

static int read_queries(struct bench *b, const char *path)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_vectors *vectors = NULL;
    struct kithi_vector v;
    size_t capacity = 0;
    int rc = kithi_vectors_open(path, b->dim, &vectors, &err);
    if (rc != 0)
        return kithi_tool_fail(b->t, "%s", err.text);
    while ((rc = kithi_vectors_next(vectors, &v, &err)) == 1) {
        if (b->query_count == capacity) {
            capacity = 2 * capacity + 1024;
            float *queries = realloc(b->queries, capacity * b->dim * sizeof *queries);
            if (queries == NULL) {
                rc = kithi_error_set(&err, -ENOMEM, "%s: out of memory", path);
                break;
            }
            b->queries = queries;
        }
        memcpy(b->queries + b->query_count++ * b->dim, v.values, b->dim * sizeof(float));
    }
    kithi_vectors_close(vectors);
    if (rc != 0)
        return kithi_tool_fail(b->t, "%s", err.text);
    if (b->query_count == 0)
        return kithi_tool_fail(b->t, "%s: holds no queries", path);
    return KITHI_TOOL_OK;
}

/* The distance that a hit of each query may have. */
static int read_truth(struct bench *b, const char *path, const char *ids_path)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_ivecs truth = { 0 };
    struct kithi_id_list ids = { 0 };
    int status = KITHI_TOOL_OK;
    float *vector = malloc(b->dim * sizeof *vector);
    b->limit = malloc(b->query_count * sizeof *b->limit);
    if (vector == NULL || b->limit == NULL) {
        status = kithi_tool_fail(b->t, "out of memory");
        goto out;
    }
    if (kithi_ivecs_read(path, &truth, &err) != 0 ||
        (ids_path != NULL && kithi_id_list_read(ids_path, &ids, &err) != 0)) {
        status = kithi_tool_fail(b->t, "%s", err.text);
        goto out;
    }
    if (truth.count != b->query_count) {
        status = kithi_tool_fail(b->t, "%s: has %zu rows, but there are %zu queries", path, truth.count,
                                 b->query_count);
        goto out;
    }
    for (size_t q = 0; q < truth.count; q++) {
        const int32_t *row = truth.words + truth.off[q];
        if (row[0] < (int32_t)b->k) {
            status = kithi_tool_fail(b->t, "%s: row %zu knows %" PRId32 " neighbours; -k %u needs as many",
                                     path, q, row[0], b->k);
            goto out;
        }
        b->limit[q] = -INFINITY;
        for (uint32_t i = 1; i <= b->k; i++) {
            char number[24];
            const char *id = number;
            snprintf(number, sizeof number, "%" PRId32, row[i]);
            if (ids_path != NULL) {
                if (row[i] < 0 || (size_t)row[i] >= ids.count) {
                    status = kithi_tool_fail(b->t, "%s: row %zu names vector %" PRId32 ", but %s has %zu ids",
                                             path, q, row[i], ids_path, ids.count);
                    goto out;
                }
                id = ids.text + ids.off[row[i]];
            }
            int rc = kith_get(b->index, id, vector, b->dim, NULL);
            if (rc < 0) {
                status = kithi_tool_fail(
                    b->t, "%s: row %zu names id \"%.64s\": %s; was the same file loaded%s?", path, q, id,
                    kith_strerror(rc), ids_path == NULL ? ", without --ids" : " with these ids");
                goto out;
            }
            double d = distance(b, b->queries + q * b->dim, vector);
            if (d > b->limit[q])
                b->limit[q] = d;
        }
    }
out:
    free(vector);
    kithi_ivecs_free(&truth);
    kithi_id_list_free(&ids);
    return status;
}

/* "40,100,200" into list; returns an exit status. */
static int parse_ef(const struct kithi_tool *t, const char *text, uint32_t k, uint32_t *list,
                    size_t *out_count)
{
    size_t n = 0;
    if (text == NULL) {
        for (size_t i = 0; i < sizeof EF_DEFAULT / sizeof *EF_DEFAULT; i++)
            if (EF_DEFAULT[i] >= k)
                list[n++] = EF_DEFAULT[i];
        if (n == 0)
            list[n++] = k;
        *out_count = n;
        return KITHI_TOOL_OK;
    }
    for (const char *p = text;; p++) {
        char *end = NULL;
        unsigned long long v = *p >= '0' && *p <= '9' ? strtoull(p, &end, 10) : 0;
        if (v == 0 || v > KITHI_EF_MAX || (*end != ',' && *end != '\0') || n == EF_COUNT_MAX)
            return kithi_tool_usage(t, "--ef takes up to %u whole numbers with commas between, not \"%s\"",
                                    EF_COUNT_MAX, text);
        if (v < k)
            return kithi_tool_usage(t, "--ef %llu is below -k %u: no room for k hits", v, k);
        list[n++] = (uint32_t)v;
        p = end;
        if (*p == '\0')
            break;
    }
    *out_count = n;
    return KITHI_TOOL_OK;
}

/* "0.9,0.95" into list; returns an exit status. */
static int parse_targets(const struct kithi_tool *t, const char *text, double *list, size_t *out_count)
{
    size_t n = 0;
    for (const char *p = text; p != NULL; p++) {
        char *end = NULL;
        double v = (*p >= '0' && *p <= '9') || *p == '.' ? strtod(p, &end) : 0;
        if (!(v > 0 && v < 1) || (*end != ',' && *end != '\0') || n == EF_COUNT_MAX)
            return kithi_tool_usage(
                t, "--recall takes up to %u numbers between 0 and 1 with commas between, not \"%s\"",
                EF_COUNT_MAX, text);
        list[n++] = v;
        p = end;
        if (*p == '\0')
            break;
    }
    *out_count = n;
    return KITHI_TOOL_OK;
}

int kithi_cmd_bench(struct kithi_tool *t, int argc, char **argv)
{
    const char *queries = NULL, *truth = NULL, *ids = NULL, *ef_text = NULL, *recall_text = NULL;
    struct bench b = { .t = t, .k = 10, .threads = 1, .seconds = 3 };
    const struct kithi_arg args[] = {
        { "--queries", KITHI_ARG_STRING, &queries, 0, 0 },
        { "--truth", KITHI_ARG_STRING, &truth, 0, 0 },
        { "--ids", KITHI_ARG_STRING, &ids, 0, 0 },
        { "-k", KITHI_ARG_NUMBER, &b.k, 1, KITHI_K_MAX },
        { "--ef", KITHI_ARG_STRING, &ef_text, 0, 0 },
        { "--recall", KITHI_ARG_STRING, &recall_text, 0, 0 },
        { "--threads", KITHI_ARG_NUMBER, &b.threads, 1, THREAD_MAX },
        { "--seconds", KITHI_ARG_REAL, &b.seconds, 0, 86400 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    if (queries == NULL)
        return kithi_tool_usage(t, "--queries is missing");
    if (truth == NULL)
        return kithi_tool_usage(t, "--truth is missing");
    uint32_t ef[EF_COUNT_MAX];
    size_t ef_count = 0;
    double targets[EF_COUNT_MAX];
    size_t target_count = 0;
    status = parse_targets(t, recall_text, targets, &target_count);
    if (status == KITHI_TOOL_OK && (ef_text != NULL || recall_text == NULL))
        status = parse_ef(t, ef_text, b.k, ef, &ef_count);
    if (status != KITHI_TOOL_OK)
        return status;

    struct worker *workers = NULL;
    t->searches = true;
    status = kithi_tool_open(t, argv[1], &b.index);
    if (status != KITHI_TOOL_OK)
        return status;
    b.dim = kith_dim(b.index);
    workers = calloc(b.threads, sizeof *workers);
    bool whole = workers != NULL;
    for (uint32_t i = 0; whole && i < b.threads; i++) {
        workers[i].b = &b;
        workers[i].number = i;
        workers[i].results = kith_results_new();
        workers[i].vector = malloc(b.dim * sizeof(float));
        whole = workers[i].results != NULL && workers[i].vector != NULL;
    }
    if (!whole) {
        status = kithi_tool_fail(t, "out of memory");
        goto out;
    }
    status = read_queries(&b, queries);
    if (status == KITHI_TOOL_OK)
        status = read_truth(&b, truth, ids);
    if (status != KITHI_TOOL_OK)
        goto out;

    if (!t->json) {
        printf("%zu queries, k %u, %u thread%s, %.3g s each\n", b.query_count, b.k, b.threads,
               b.threads == 1 ? "" : "s", b.seconds);
        printf("%7s  %8s  %11s  %9s  %9s  %9s", "EF", "RECALL", "SEARCHES/S", "P50 us", "P99 us", "P99.9 us");
        if (target_count > 0)
            printf("  %8s  %8s  %s", "ASKED", "OFF BY", "EF IS BY");
        putchar('\n');
    }
    for (size_t i = 0; i < ef_count && status == KITHI_TOOL_OK; i++)
        status = bench_one(&b, workers, &(struct ask){ .ef = ef[i] }, target_count > 0);
    for (size_t i = 0; i < target_count && status == KITHI_TOOL_OK; i++)
        status = bench_one(&b, workers, &(struct ask){ .target = targets[i] }, true);
out:
    for (uint32_t i = 0; workers != NULL && i < b.threads; i++) {
        kith_results_free(workers[i].results);
        free(workers[i].vector);
    }
    free(workers);
    free(b.queries);
    free(b.limit);
    kith_close(b.index);
    return status;
}
