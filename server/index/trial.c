/*
 * trial.c - measuring layouts. See trial.h.
 *
 *   PREPARE  each layout gets a segment, with the whole sample staged as one group     a job a layout
 *   BUILD    insertions, timed                                                         some of one layout a job
 *   RECALL   queries held out of the sample, at every ef, against exact search         some queries a job
 *   TIME     the same ones, all layouts at one ef, timed, several rounds               some queries a job
 *
 * A sample is no large collection, so two things are estimated. A walk comes by more neighbours there that it has
 * not met before (m 16, ef 20 to 100: 14 to 16 of 32 among 100,000 vectors of 128 dimensions, 8 to 11 among 60,000
 * of 784, and 10 or 6 in samples of these), and they lie in memory and not in caches: layouts that compute a
 * distance for each of those, and only for those, are taken to do so for half of a row. And what a layout needs
 * more of ef than another counts by its root: of 4,000 vectors it needs 1.5 times as much where it needs 1.25 times
 * as much of 100,000. For those 128 dimensions codes beside links come out 1.5 to 1.8 times as quick
 * as plain vectors; among the 100,000 they were 1.8 to 2 times.
 *
 * Layouts take turns, search by search, so that they meet the same machine, and each finds the nearest caches full
 * of the others' vectors: the choice is made for a collection that will be larger than they are. What is compared
 * is CPU time of the thread, which others on the same CPU do not add to.
 */
#include "server/index/trial.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/graph/scan.h"
#include "shm/graph/search.h"

#define LAYOUT_MAX   4u
#define SAMPLE_MIN   64u
#define QUERY_SHARE  16u /* one in so many is held out and searched for */
#define QUERY_MAX    256u
#define BUILD_JOB    64u /* insertions */
#define QUERY_JOB    16u
#define ROUNDS       3u
#define TARGET       0.98
#define TARGET_SLACK 0.02 /* below the best recall of all, where that is lower */
#define EF_TIMED     64u  /* walks as long as those of large collections */
/* Shorter vectors lie in less than four cache lines: codes beside links save little reading there, take three times the
 * memory, and so few signs tell little (bench_core: half as many searches a second at recall 0.95 as plain vectors for
 * 25 dimensions, as many for 50). */
#define BITS_DIM_MIN 64u
#define EF_BUILD_MAX 64u /* more costs time and changes no choice on any of six sets */
/* A vector is read more often than it is written: what an insertion takes counts one part in so many. */
#define INSERTION_SHARE 20.0
/* A layout has to be so much better than a simpler one. */
#define MARGIN 0.95

/*
 * Tried for recall. Not below twice KITHI_TRIAL_K: of a thousand vectors ten are found by walks that are hardly
 * longer than their descent, and there codes need a larger ef than they do in large collections.
 */
static const uint32_t efs[] = { 20, 30, 45, 68, 100, 150, 225 };
enum { EF_COUNT = sizeof efs / sizeof efs[0] };

enum step { STEP_NEW, STEP_PREPARE, STEP_BUILD, STEP_RECALL, STEP_TIME, STEP_DONE };

struct layout {
    struct kithi_index_identity identity;
    struct kithi_index *ix;
    _Atomic uint64_t insert_ns;
    double recall[EF_COUNT];
    double ef; /* for the target, between two that were tried */
    struct kithi_trial_result result;
};

/* What one job over queries has found out. */
struct tally {
    uint32_t found[LAYOUT_MAX][EF_COUNT];
    uint64_t ns[ROUNDS][LAYOUT_MAX];
    uint64_t distances[LAYOUT_MAX], expansions[LAYOUT_MAX]; /* of the timed searches */
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
    double target, ef_least; /* the smallest that any layout needs for the target */
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
    return t->vectors && t->queries && t->ids && t->ops && t->tallies ? 0 : -ENOMEM;
}

_Static_assert(KITHI_TRIAL_SAMPLE <= QUERY_MAX * QUERY_SHARE, "queries have room");

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
        bool useless = (q == KITHI_QUANTIZATION_F16 && keep == KITHI_KEEP_F32) ||
                       (q == KITHI_QUANTIZATION_BITS && t->dim < BITS_DIM_MIN);
        if (useless || kithi_geometry_check(&g, NULL) < 0)
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
    uint64_t want =
        KITHI_TRIAL_SAMPLE < ix->live ? KITHI_TRIAL_SAMPLE : ix->live; /* copied in some milliseconds */
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
        kithi_group_job(l->ix, kithi_group_open(l->ix), worker, j);
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
        uint32_t all = s.results.count;
        for (uint32_t c = 0; c < t->layout_count; c++) {
            uint32_t found = 0;
            for (uint32_t e = 0; e < EF_COUNT; e++) {
                if (found < all) { /* or a wider walk finds them, too */
                    found = 0;
                    p = (struct kithi_search_params){ .k = KITHI_TRIAL_K, .ef = efs[e] };
                    search(t, &s, &t->layouts[c], q, &p);
                    for (uint32_t i = 0; i < s.results.count; i++)
                        found += kithi_walk_exact(&v, &s.judge, s.results.hits[i].slot) <= limit;
                }
                tally->found[c][e] += found;
            }
        }
    }
    searching_fini(&s);
}

static void measure(struct kithi_trial *t, struct tally *tally, uint32_t first, uint32_t end)
{
    struct searching s;
    const struct kithi_search_params p = { .k = KITHI_TRIAL_K, .ef = EF_TIMED };
    searching_init(&s);
    for (uint32_t c = 0; c < t->layout_count; c++) /* memory is set aside before the clock runs */
        search(t, &s, &t->layouts[c], first, &p);
    for (uint32_t r = 0; r < ROUNDS; r++) {
        for (uint32_t q = first; q < end; q++) {
            for (uint32_t c = 0; c < t->layout_count; c++) {
                uint64_t began = cpu_ns();
                search(t, &s, &t->layouts[c], q, &p);
                tally->ns[r][c] += cpu_ns() - began;
                tally->distances[c] += s.results.stats.distance_count;
                tally->expansions[c] += s.results.stats.expansion_count;
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

/* Recalls, the target, and the ef that each layout needs for it. */
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
        struct kithi_trial_result *r = &l->result;
        uint32_t e = 0;
        while (e + 1 < EF_COUNT && l->recall[e] < t->target)
            e++;
        r->ef = efs[e];
        r->recall = l->recall[e];
        r->reached = r->recall >= t->target;
        l->ef = efs[e];
        if (r->reached && e)
            l->ef -= (efs[e] - efs[e - 1]) * (r->recall - t->target) / (r->recall - l->recall[e - 1]);
        if (r->reached && (t->ef_least == 0 || l->ef < t->ef_least))
            t->ef_least = l->ef;
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds of a search of layout c: the median of the rounds. */
static double search_us(const struct kithi_trial *t, uint32_t c)
{
    double us[ROUNDS];
    for (uint32_t r = 0; r < ROUNDS; r++) {
        uint64_t ns = 0;
        for (uint32_t i = 0; i < t->tally_count; i++)
            ns += t->tallies[i].ns[r][c];
        us[r] = (double)ns / 1000.0 / t->query_count;
    }
    qsort(us, ROUNDS, sizeof us[0], ascending);
    return us[ROUNDS / 2];
}

/* How much longer the walks of layout c are taken to be in a large collection. */
static double growth(const struct kithi_trial *t, uint32_t c)
{
    const struct kithi_geometry *g = &t->layouts[c].identity.geometry;
    uint64_t distances = 0, expansions = 0;
    if (g->quantization == KITHI_QUANTIZATION_BITS)
        return 1; /* rows are estimated whole, here as there */
    for (uint32_t i = 0; i < t->tally_count; i++) {
        distances += t->tallies[i].distances[c];
        expansions += t->tallies[i].expansions[c];
    }
    double f = (double)g->m * (double)expansions / (double)(distances ? distances : 1);
    return f > 1 ? f : 1;
}

static void conclude(struct kithi_trial *t)
{
    const struct kithi_trial_result *best = NULL;
    for (uint32_t c = 0; c < t->layout_count; c++) {
        struct layout *l = &t->layouts[c];
        struct kithi_trial_result *r = &l->result;
        r->insert_us = (double)atomic_load(&l->insert_ns) / 1000.0 / t->vector_count;
        if (!r->reached)
            continue;
        r->search_us = search_us(t, c) * growth(t, c) * sqrt(l->ef / t->ef_least);
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
