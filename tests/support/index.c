/*
 * index.c - a small stand-in for server/writer: workers, groups, sweeps.
 */
#include "tests/support/index.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/graph/verify.h"
#include "tests/support/tmp.h"

static void *worker(void *arg)
{
    struct test_index *t = arg;
    pthread_mutex_lock(&t->lock);
    unsigned me = t->running++; /* the creator waits until all have a number */
    pthread_cond_broadcast(&t->idle);
    while (!t->quit) {
        if (t->next < t->group_jobs + t->sweep_jobs) {
            uint32_t i = t->next++, group_jobs = t->group_jobs;
            t->running++;
            pthread_mutex_unlock(&t->lock);
            if (i < group_jobs)
                kithi_group_job(t->ix, kithi_group_open(t->ix), me, i);
            else
                kithi_sweep_job(t->ix, me, i - group_jobs);
            pthread_mutex_lock(&t->lock);
            t->running--;
            if (t->running == 0 && t->next == t->group_jobs + t->sweep_jobs)
                pthread_cond_broadcast(&t->idle);
        } else {
            pthread_cond_wait(&t->work, &t->lock);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void begin(struct test_index *t, unsigned worker_count)
{
    t->worker_count = worker_count;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->idle, NULL);
    t->threads = calloc(worker_count, sizeof *t->threads);
    if (!t->threads)
        test_die("out of memory");
    pthread_mutex_lock(&t->lock);
    for (unsigned i = 0; i < worker_count; i++)
        if (pthread_create(&t->threads[i], NULL, worker, t) != 0)
            test_die("cannot start a worker");
    while (t->running < worker_count)
        pthread_cond_wait(&t->idle, &t->lock);
    t->running = 0;
    pthread_mutex_unlock(&t->lock);
}

static struct kithi_index_identity identity(const struct kithi_geometry *g)
{
    struct kithi_index_identity id = { .geometry = *g };
    for (unsigned i = 0; i < 16; i++) {
        id.uid[i] = (uint8_t)(0xa0 + i);
        id.hash_key[i] = (uint8_t)(17 * i + 3);
    }
    return id;
}

void test_index_create(struct test_index *t, const char *path, const struct kithi_geometry *g,
                       unsigned worker_count, uint32_t grace_ms, uint32_t rest_ms)
{
    memset(t, 0, sizeof *t);
    struct kithi_index_identity id = identity(g);
    struct kithi_index_tuning tuning = { .worker_count = worker_count,
                                         .grace_ms = grace_ms,
                                         .rest_ms = rest_ms };
    struct kithi_errmsg err;
    if (kithi_index_create(path, &id, 1, &tuning, &t->ix, &err) < 0)
        test_die("%s", err.text);
    begin(t, worker_count);
}

void test_index_adopt(struct test_index *t, const char *path, const struct kithi_geometry *g,
                      unsigned worker_count, uint32_t grace_ms, uint32_t rest_ms)
{
    memset(t, 0, sizeof *t);
    struct kithi_index_identity id = identity(g);
    struct kithi_index_tuning tuning = { .worker_count = worker_count,
                                         .grace_ms = grace_ms,
                                         .rest_ms = rest_ms };
    struct kithi_errmsg err;
    int64_t miscounted;
    if (kithi_index_adopt(path, &id, &tuning, NULL, &t->ix, &err) < 0 ||
        kithi_index_census(t->ix, UINT32_MAX, &miscounted, &err) < 0)
        test_die("%s", err.text);
    begin(t, worker_count);
}

/* Run what is staged, and the sweep, on the workers. */
static void run_jobs(struct test_index *t)
{
    uint32_t wait_ms, group_jobs = kithi_group_job_count(kithi_group_open(t->ix));
    uint32_t sweep_jobs = kithi_sweep_begin(t->ix, test_now_ms(), &wait_ms);
    if (group_jobs + sweep_jobs) {
        pthread_mutex_lock(&t->lock);
        t->group_jobs = group_jobs;
        t->sweep_jobs = sweep_jobs;
        t->next = 0;
        pthread_cond_broadcast(&t->work);
        while (t->next < group_jobs + sweep_jobs || t->running)
            pthread_cond_wait(&t->idle, &t->lock);
        t->group_jobs = t->sweep_jobs = t->next = 0;
        pthread_mutex_unlock(&t->lock);
    }
    if (sweep_jobs) {
        kithi_sweep_end(t->ix, test_now_ms());
        t->sweep_count++;
    }
}

void test_index_close(struct test_index *t)
{
    pthread_mutex_lock(&t->lock);
    t->quit = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (unsigned i = 0; i < t->worker_count; i++)
        pthread_join(t->threads[i], NULL);
    free(t->threads);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->idle);
    pthread_mutex_destroy(&t->lock);
    kithi_index_close(t->ix);
    memset(t, 0, sizeof *t);
}

const struct kithi_map *test_index_map(const struct test_index *t)
{
    return kithi_index_map(t->ix);
}

int test_index_stage(struct test_index *t, const struct kithi_op *ops, uint32_t n, struct kithi_errmsg *err)
{
    struct kithi_group_result result;
    int rc = kithi_group_add(t->ix, ops, n, &result, err);
    if (rc < 0)
        return rc;
    run_jobs(t);
    return 0;
}

uint64_t test_index_publish(struct test_index *t)
{
    uint64_t epoch = kithi_index_epoch(t->ix) + 1;
    kithi_group_publish(t->ix, epoch, test_now_ms());
    return epoch;
}

int test_index_commit(struct test_index *t, const struct kithi_op *ops, uint32_t n, struct kithi_errmsg *err)
{
    int rc = test_index_stage(t, ops, n, err);
    if (rc == 0)
        test_index_publish(t);
    return rc;
}

bool test_index_settle(struct test_index *t, uint64_t timeout_ms)
{
    const struct kithi_header *h = kithi_map_header(kithi_index_map(t->ix));
    uint64_t end = test_now_ms() + timeout_ms;
    for (;;) {
        run_jobs(t);
        if (atomic_load_explicit(&h->tally_dead, memory_order_relaxed) == 0 &&
            atomic_load_explicit(&h->tally_resting, memory_order_relaxed) == 0)
            return true;
        if (test_now_ms() > end)
            return false;
        test_nap();
    }
}

static void print_violation(void *arg, const char *rule, const char *text)
{
    unsigned *shown = arg;
    if ((*shown)++ < 10)
        fprintf(stderr, "verify: %s: %s\n", rule, text);
}

bool test_verify_clean(const struct kithi_map *map)
{
    struct kithi_verify_report report;
    unsigned shown = 0;
    int rc = kithi_verify(map, print_violation, &shown, &report);
    if (rc < 0) {
        fprintf(stderr, "verify: %s\n", kithi_error_text(rc));
        return rc == KITHI_E_MOVED;
    }
    if (report.violation_count)
        fprintf(stderr, "verify: %" PRIu64 " violations at epoch %" PRIu64 "\n", report.violation_count,
                report.epoch);
    return report.violation_count == 0;
}

bool test_verify_path(const char *path)
{
    struct kithi_map map;
    struct kithi_errmsg err;
    if (kithi_map_attach_path(path, false, &map, &err) < 0) {
        fprintf(stderr, "verify: %s\n", err.text);
        return false;
    }
    bool clean = test_verify_clean(&map);
    kithi_map_detach(&map);
    return clean;
}
