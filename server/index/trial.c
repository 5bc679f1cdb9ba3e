/*
 * trial.c - measuring layouts. See trial.h.
 *
 *   PREPARE  each layout gets a segment, with the whole sample staged as one group     a job a layout
 *   BUILD    insertions, timed                                                         some of one layout a job
 *   RECALL   queries held out of the sample, at every ef, against exact search         some queries a job
 *   TIME     a few of them at the two efs around the target, timed, several rounds     some queries a job
 *
 * Layouts take turns within a job, so that they meet the same machine, and before each timed search the caches
 * are filled with something else: the choice is made for a collection that will be larger than they are, while
 * the sample is not. What is compared is CPU time of the thread, which others on the same CPU do not add to.
 */
#include "server/index/trial.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/graph/scan.h"
#include "shm/graph/search.h"

#define LAYOUT_MAX   4u
#define SAMPLE_BYTES (16u << 20) /* the owner copies it in some milliseconds */
#define SAMPLE_MIN   64u
#define QUERY_SHARE  16u /* one in so many is held out and searched for */
#define QUERY_MAX    256u
#define BUILD_JOB    64u /* insertions */
#define QUERY_JOB    16u
#define QUERY_TIMED  4u /* one in so many is timed */
/* What is read to empty the second-level cache: so much more than its size, which is at most so large. */
#define COLD_MORE    (1u << 20)
#define CACHE_MAX    (4u << 20)
#define CACHE_LIKE   (1u << 20) /* where the system does not say */
#define TIMED_K      10u /* as most searches ask for: what is scored at the end is no more than theirs */
#define ROUNDS       3u
#define TARGET       0.98
#define TARGET_SLACK 0.005 /* below the best recall of all, where that is lower */
#define EF_BUILD_MAX 100u  /* more costs time and changes no order */
/* A vector is read more often than it is written: what an insertion takes counts one part in so many. */
#define INSERTION_SHARE 20.0
/* A layout has to be so much better than a simpler one. */
#define MARGIN 0.95

static const uint32_t efs[] = { 32, 48, 72, 108, 162, 243, 364 };
enum { EF_COUNT = sizeof efs / sizeof efs[0] };

enum step { STEP_NEW, STEP_PREPARE, STEP_BUILD, STEP_RECALL, STEP_TIME, STEP_DONE };

struct layout {
    struct kithi_index_identity identity;
    struct kithi_index *ix;
    _Atomic uint64_t insert_ns;
    double recall[EF_COUNT];
    uint32_t first, last; /* efs that are timed */
    struct kithi_trial_result result;
};

/* What one job over queries has found out. */
struct tally {
    uint32_t found[LAYOUT_MAX][EF_COUNT];
    uint64_t ns[ROUNDS][LAYOUT_MAX][EF_COUNT];
};

struct kithi_trial {
    enum step step;
    _Atomic bool cancelled;
    _Atomic int status; /* of the first job that failed */
    uint32_t dim;
    unsigned worker_count;
    float *vectors, *queries;
    uint32_t vector_count, query_count;
    char (*ids)[12];
    struct kithi_op *ops;
    struct layout layouts[LAYOUT_MAX];
    uint32_t layout_count;
    struct tally *tallies;
    uint32_t tally_count;
    unsigned char *cold; /* what the caches are filled with */
    size_t cold_size;
    double target;
    uint32_t choice;
};

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(struct kithi_trial *t, int status)
{
    int none = 0;
    atomic_compare_exchange_strong(&t->status, &none, status);
}

/* ---- the sample ---- */

static int allocate(struct kithi_trial *t, uint32_t want)
{
    uint32_t queries = want / QUERY_SHARE + 1;
    if (queries > QUERY_MAX)
        queries = QUERY_MAX;
    t->vectors = malloc((size_t)want * t->dim * sizeof *t->vectors);
    t->queries = malloc((size_t)queries * t->dim * sizeof *t->queries);
    t->ids = malloc(want * sizeof *t->ids);
    t->ops = malloc(want * sizeof *t->ops);
    t->tally_count = (queries + QUERY_JOB - 1) / QUERY_JOB;
    t->tallies = calloc(t->tally_count, sizeof *t->tallies);
    long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
    t->cold_size = (cache <= 0 ? CACHE_LIKE : cache < CACHE_MAX ? (size_t)cache : CACHE_MAX) + COLD_MORE;
    t->cold = malloc(t->cold_size);
    if (!t->vectors || !t->queries || !t->ids || !t->ops || !t->tallies || !t->cold)
        return -ENOMEM;
    memset(t->cold, 1, t->cold_size); /* pages of its own */
    return 0;
}

/* want of all that is visible, evenly spread, every so manieth of them held out. */
static void take_sample(struct kithi_trial *t, const struct kithi_index *ix, uint64_t want)
{
    struct kithi_scan scan;
    struct kithi_item item;
    uint64_t every = want / (want / QUERY_SHARE < QUERY_MAX ? want / QUERY_SHARE : QUERY_MAX), taken = 0;
    kithi_scan_begin(&ix->map, &scan);
    for (uint64_t i = 0; i < ix->live; i++) {
        bool take = (i + 1) * want / ix->live != i * want / ix->live;
        bool query = taken % every == every - 1;
        float *out = query ? t->queries + (size_t)t->query_count * t->dim
                           : t->vectors + (size_t)t->vector_count * t->dim;
        if (kithi_scan_next(&scan, &item, take ? out : NULL) != 1)
            break;
        if (!take)
            continue;
        taken++;
        if (query)
            t->query_count++;
        else
            t->vector_count++;
    }
    for (uint32_t i = 0; i < t->vector_count; i++) {
        int len = snprintf(t->ids[i], sizeof t->ids[i], "%u", i);
        t->ops[i] = (struct kithi_op){ .type = KITHI_OP_UPSERT,
                                       .id_len = (uint16_t)len,
                                       .dim = t->dim,
                                       .id = t->ids[i],
                                       .vector = t->vectors + (size_t)i * t->dim };
    }
}

/*
 * Every layout that goes with keep, the simpler ones first. f16 only where vectors are not kept as they are: it
 * is what then comes next to them, and else sq8 takes half of its room and answers as well.
 */
static void list_layouts(struct kithi_trial *t, const struct kithi_index *ix, uint32_t keep)
{
    struct kithi_geometry g = ix->map.geometry;
    g.slot_max = t->vector_count;
    g.ef_construction = g.ef_construction < EF_BUILD_MAX ? g.ef_construction : EF_BUILD_MAX;
    for (uint32_t q = KITHI_QUANTIZATION_NONE; q <= KITHI_QUANTIZATION_BITS; q++) {
        kithi_geometry_want(&g, q, keep);
        if (kithi_geometry_check(&g, NULL) < 0 || (q == KITHI_QUANTIZATION_F16 && keep == KITHI_KEEP_F32))
            continue;
        struct layout *l = &t->layouts[t->layout_count++];
        l->identity.geometry = g;
        l->result.quantization = q;
    }
}

int kithi_trial_new(const struct kithi_index *ix, uint32_t keep, unsigned worker_count,
                    struct kithi_trial **out, struct kithi_errmsg *err)
{
    struct kithi_trial *t = calloc(1, sizeof *t);
    if (!t)
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    t->dim = ix->map.geometry.dim;
    t->worker_count = worker_count;
    uint64_t want = SAMPLE_BYTES / (t->dim * sizeof(float));
    want = want < KITHI_TRIAL_SAMPLE ? want : KITHI_TRIAL_SAMPLE;
    want = want < ix->live ? want : ix->live;
    int rc = 0;
    if (want >= SAMPLE_MIN && allocate(t, (uint32_t)want) < 0)
        rc = kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    if (rc == 0 && want >= SAMPLE_MIN)
        take_sample(t, ix, want);
    if (rc == 0 && t->vector_count + t->query_count < SAMPLE_MIN)
        rc = kithi_error_set(err, KITHI_E_NOT_FOUND, "%u vectors are too few to compare layouts with",
                             t->vector_count + t->query_count);
    if (rc < 0) {
        kithi_trial_free(t);
        return rc;
    }
    list_layouts(t, ix, keep);
    *out = t;
    return 0;
}

void kithi_trial_free(struct kithi_trial *t)
{
    if (!t)
        return;
    for (uint32_t i = 0; i < t->layout_count; i++)
        kithi_index_close(t->layouts[i].ix);
    free(t->vectors);
    free(t->queries);
    free(t->ids);
    free(t->ops);
    free(t->tallies);
    free(t->cold);
    free(t);
}

void kithi_trial_cancel(struct kithi_trial *t)
{
    atomic_store(&t->cancelled, true);
}

/* ---- jobs ---- */

/* Staged by a worker, which is the owner of that index meanwhile. */
static void prepare(struct kithi_trial *t, struct layout *l)
{
    struct kithi_index_tuning tuning = { .worker_count = t->worker_count };
    struct kithi_group_result result;
    int rc = kithi_index_create(NULL, &l->identity, 1, &tuning, &l->ix, NULL);
    if (rc == 0)
        rc = kithi_group_add(l->ix, t->ops, t->vector_count, &result, NULL);
    if (rc < 0)
        fail(t, rc);
}

static void build(struct kithi_trial *t, unsigned worker, uint32_t i)
{
    struct layout *l = &t->layouts[i % t->layout_count];
    uint32_t first = i / t->layout_count * BUILD_JOB;
    uint64_t began = cpu_ns();
    for (uint32_t j = first; j < first + BUILD_JOB && j < t->vector_count; j++)
        kithi_group_job(l->ix, worker, j);
    atomic_fetch_add(&l->insert_ns, cpu_ns() - began);
}

/* Scratch and results of one job over queries. */
struct searching {
    struct kithi_scratch scratch, judge;
    struct kithi_results results;
};

static void searching_init(struct searching *s)
{
    kithi_scratch_init(&s->scratch);
    kithi_scratch_init(&s->judge);
    kithi_results_init(&s->results);
}

static void searching_fini(struct searching *s)
{
    kithi_scratch_fini(&s->scratch);
    kithi_scratch_fini(&s->judge);
    kithi_results_fini(&s->results);
}

static void search(struct kithi_trial *t, struct searching *s, const struct layout *l, uint32_t query,
                   const struct kithi_search_params *p)
{
    int rc = kithi_search(&l->ix->map, &s->scratch, t->queries + (size_t)query * t->dim, p, &s->results);
    if (rc < 0)
        fail(t, rc);
}

/*
 * What was found is judged by the vectors of the first layout, which keeps the most of them: staged as one
 * group into an empty segment, a vector has the same slot in all layouts.
 */
static void recall(struct kithi_trial *t, struct tally *tally, uint32_t first, uint32_t end)
{
    struct searching s;
    struct kithi_view v;
    searching_init(&s);
    kithi_view_begin(&t->layouts[0].ix->map, &v);
    for (uint32_t q = first; q < end && atomic_load(&t->status) == 0; q++) {
        struct kithi_search_params p = { .k = KITHI_TRIAL_K, .ef = KITHI_TRIAL_K, .exact = true };
        search(t, &s, &t->layouts[0], q, &p);
        if (s.results.count == 0 || kithi_walk_query(&v, &s.judge, t->queries + (size_t)q * t->dim) < 0)
            continue;
        float limit = s.results.hits[s.results.count - 1].distance;
        limit += 1e-6f * fabsf(limit);
        for (uint32_t c = 0; c < t->layout_count; c++) {
            for (uint32_t e = 0; e < EF_COUNT; e++) {
                p = (struct kithi_search_params){ .k = KITHI_TRIAL_K, .ef = efs[e] };
                search(t, &s, &t->layouts[c], q, &p);
                for (uint32_t i = 0; i < s.results.count; i++)
                    tally->found[c][e] += kithi_walk_exact(&v, &s.judge, s.results.hits[i].slot) <= limit;
            }
        }
    }
    searching_fini(&s);
}

static void empty_caches(const struct kithi_trial *t)
{
    for (size_t i = 0; i < t->cold_size; i += KITHI_CACHE_LINE)
        (void)*(const volatile unsigned char *)(t->cold + i);
}

static void measure(struct kithi_trial *t, struct tally *tally, uint32_t first, uint32_t end)
{
    struct searching s;
    struct kithi_search_params p = { .k = TIMED_K, .ef = efs[EF_COUNT - 1] };
    searching_init(&s);
    for (uint32_t c = 0; c < t->layout_count; c++) /* memory is set aside before the clock runs */
        search(t, &s, &t->layouts[c], first, &p);
    for (uint32_t r = 0; r < ROUNDS; r++) {
        for (uint32_t q = first; q < end; q += QUERY_TIMED) {
            for (uint32_t c = 0; c < t->layout_count; c++) {
                const struct layout *l = &t->layouts[c];
                for (uint32_t e = l->first; e <= l->last; e++) {
                    p.ef = efs[e];
                    empty_caches(t);
                    uint64_t began = cpu_ns();
                    search(t, &s, l, q, &p);
                    tally->ns[r][c][e] += cpu_ns() - began;
                }
            }
        }
    }
    searching_fini(&s);
}

void kithi_trial_job(struct kithi_trial *t, unsigned worker, uint32_t i)
{
    if (atomic_load(&t->cancelled) || atomic_load(&t->status))
        return;
    uint32_t first = i * QUERY_JOB,
             end = first + QUERY_JOB < t->query_count ? first + QUERY_JOB : t->query_count;
    switch (t->step) {
    case STEP_PREPARE: prepare(t, &t->layouts[i]); break;
    case STEP_BUILD: build(t, worker, i); break;
    case STEP_RECALL: recall(t, &t->tallies[i], first, end); break;
    case STEP_TIME: measure(t, &t->tallies[i], first, end); break;
    default: break;
    }
}

/* ---- what follows from it ---- */

/* Recalls, the target, and which efs of each layout lie around it. */
static void set_target(struct kithi_trial *t)
{
    double best = 0;
    for (uint32_t c = 0; c < t->layout_count; c++) {
        struct layout *l = &t->layouts[c];
        for (uint32_t e = 0; e < EF_COUNT; e++) {
            uint64_t found = 0;
            for (uint32_t i = 0; i < t->tally_count; i++)
                found += t->tallies[i].found[c][e];
            l->recall[e] = (double)found / ((double)t->query_count * KITHI_TRIAL_K);
            best = l->recall[e] > best ? l->recall[e] : best;
        }
    }
    t->target = best - TARGET_SLACK < TARGET ? best - TARGET_SLACK : TARGET;
    for (uint32_t c = 0; c < t->layout_count; c++) {
        struct layout *l = &t->layouts[c];
        uint32_t e = 0;
        while (e + 1 < EF_COUNT && l->recall[e] < t->target)
            e++;
        l->first = e ? e - 1 : 0;
        l->last = e;
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds of a search of layout c at efs[e]: the median of the rounds. */
static double search_us(const struct kithi_trial *t, uint32_t c, uint32_t e)
{
    double us[ROUNDS];
    uint32_t timed = 0;
    for (uint32_t q = 0; q < t->query_count; q += QUERY_TIMED)
        timed++;
    for (uint32_t r = 0; r < ROUNDS; r++) {
        uint64_t ns = 0;
        for (uint32_t i = 0; i < t->tally_count; i++)
            ns += t->tallies[i].ns[r][c][e];
        us[r] = (double)ns / 1000.0 / timed;
    }
    qsort(us, ROUNDS, sizeof us[0], ascending);
    return us[ROUNDS / 2];
}

static void conclude(struct kithi_trial *t)
{
    const struct kithi_trial_result *best = NULL;
    for (uint32_t c = 0; c < t->layout_count; c++) {
        struct layout *l = &t->layouts[c];
        struct kithi_trial_result *r = &l->result;
        r->insert_us = (double)atomic_load(&l->insert_ns) / 1000.0 / t->vector_count;
        r->ef = efs[l->last];
        r->recall = l->recall[l->last];
        r->reached = r->recall >= t->target;
        if (!r->reached)
            continue;
        /* Between two efs, time rises about as recall does. */
        double high = search_us(t, c, l->last), low = search_us(t, c, l->first), rise = 0;
        if (l->first < l->last)
            rise = (t->target - l->recall[l->first]) / (r->recall - l->recall[l->first]);
        r->search_us = l->first < l->last ? low + rise * (high - low) : high;
        r->cost_us = r->search_us + r->insert_us / INSERTION_SHARE;
        if (!best || r->cost_us < MARGIN * best->cost_us)
            best = r;
    }
    KITHI_ASSERT(best); /* whoever had the best recall is above the target */
    t->choice = best->quantization;
}

int kithi_trial_stage(struct kithi_trial *t, struct kithi_errmsg *err)
{
    int status = atomic_load(&t->cancelled) ? -ECANCELED : atomic_load(&t->status);
    if (status)
        return kithi_error_set(err, status, "layouts could not be compared: %s", kithi_error_text(status));
    uint32_t jobs = (t->query_count + QUERY_JOB - 1) / QUERY_JOB;
    switch (t->step++) {
    case STEP_NEW: return (int)t->layout_count;
    case STEP_PREPARE: return (int)((t->vector_count + BUILD_JOB - 1) / BUILD_JOB * t->layout_count);
    case STEP_BUILD:
        for (uint32_t c = 0; c < t->layout_count; c++)
            kithi_group_publish(t->layouts[c].ix, 1, 0);
        return (int)jobs;
    case STEP_RECALL: set_target(t); return (int)jobs;
    case STEP_TIME: conclude(t); return 0;
    default: t->step = STEP_DONE; return 0;
    }
}

uint32_t kithi_trial_count(const struct kithi_trial *t)
{
    return t->layout_count;
}

const struct kithi_trial_result *kithi_trial_result(const struct kithi_trial *t, uint32_t i)
{
    return &t->layouts[i].result;
}

uint32_t kithi_trial_choice(const struct kithi_trial *t)
{
    return t->choice;
}

double kithi_trial_target(const struct kithi_trial *t)
{
    return t->target;
}
