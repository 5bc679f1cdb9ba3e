/*
 * solo.c - an index driven by one thread. See solo.h.
 */
#include "tests/support/solo.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/graph/lookup.h"
#include "shm/graph/search.h"
#include "shm/graph/verify.h"
#include "shm/layout/notes.h"
#include "tests/support/codes.h"

struct kithi_geometry test_geometry(uint32_t dim, uint32_t metric, uint32_t slot_max)
{
    struct kithi_geometry g = {
        .dim = dim, .metric = metric, .m = 8, .ef_construction = 64, .slot_max = slot_max
    };
    test_codes_give(&g);
    return g;
}

void test_solo_open_in(struct test_solo *t, const struct kithi_geometry *g, const struct test_dir *dir)
{
    struct kithi_errmsg err;
    memset(t, 0, sizeof *t);
    t->dir = *dir;
    snprintf(t->path, sizeof t->path, "%s/segment", dir->path);
    t->identity.geometry = *g;
    for (unsigned i = 0; i < 16; i++) {
        t->identity.uid[i] = (uint8_t)(0x50 + i);
        t->identity.hash_key[i] = (uint8_t)(11 * i + 7);
    }
    t->tuning = (struct kithi_index_tuning){ .worker_count = 1, .grace_ms = 100, .rest_ms = 400 };
    t->now_ms = 1000;
    if (kithi_index_create(t->path, &t->identity, 1, &t->tuning, &t->ix, &err) < 0)
        test_die("%s", err.text);
    kithi_scratch_init(&t->scratch);
    kithi_results_init(&t->results);
}

void test_solo_open(struct test_solo *t, const struct kithi_geometry *g)
{
    struct test_dir dir;
    test_dir_make_shm(&dir);
    test_solo_open_in(t, g, &dir);
}

void test_solo_close(struct test_solo *t)
{
    test_solo_leave(t);
    kithi_scratch_fini(&t->scratch);
    kithi_results_fini(&t->results);
    test_dir_remove(&t->dir);
}

void test_solo_leave(struct test_solo *t)
{
    kithi_index_close(t->ix);
    t->ix = NULL;
}

int test_solo_adopt(struct test_solo *t, struct kithi_errmsg *err)
{
    int rc = test_solo_adopt_only(t, err);
    return rc < 0 ? rc : test_solo_census(t, err);
}

int test_solo_adopt_only(struct test_solo *t, struct kithi_errmsg *err)
{
    return kithi_index_adopt(t->path, &t->identity, &t->tuning, NULL, &t->ix, err);
}

int test_solo_census(struct test_solo *t, struct kithi_errmsg *err)
{
    int64_t miscounted;
    int rc = kithi_index_census(t->ix, UINT32_MAX, &miscounted, err);
    if (rc == 0 && miscounted)
        test_die("%lld vectors were not counted", (long long)miscounted);
    return rc;
}

void test_solo_forget_notes(const struct test_solo *t)
{
    uint32_t none = 0;
    int fd = open(t->path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, &none, sizeof none, KITHI_NOTES_OFF) != sizeof none)
        test_die("cannot write to %s", t->path);
    close(fd);
}

const struct kithi_map *test_solo_map(const struct test_solo *t)
{
    return kithi_index_map(t->ix);
}

struct kithi_header *test_solo_header(const struct test_solo *t)
{
    return kithi_map_header(kithi_index_map(t->ix));
}

struct kithi_op test_upsert(const char *id, const float *vector, uint32_t dim)
{
    return (struct kithi_op){
        .type = KITHI_OP_UPSERT, .id_len = (uint16_t)strlen(id), .dim = dim, .id = id, .vector = vector
    };
}

struct kithi_op test_delete(const char *id)
{
    return (struct kithi_op){ .type = KITHI_OP_DELETE, .id_len = (uint16_t)strlen(id), .id = id };
}

void test_solo_jobs(struct test_solo *t)
{
    for (uint32_t i = 0; i < kithi_group_job_count(kithi_group_open(t->ix)); i++)
        kithi_group_job(t->ix, kithi_group_open(t->ix), 0, i);
}

void test_solo_publish(struct test_solo *t)
{
    kithi_group_publish(t->ix, kithi_index_epoch(t->ix) + 1, t->now_ms);
}

int test_solo_commit(struct test_solo *t, const struct kithi_op *ops, uint32_t n)
{
    struct kithi_group_result result;
    struct kithi_errmsg err;
    int rc = kithi_group_add(t->ix, ops, n, &result, &err);
    if (rc < 0)
        return rc;
    test_solo_jobs(t);
    test_solo_publish(t);
    return 0;
}

int test_solo_put(struct test_solo *t, const char *id, const float *vector)
{
    struct kithi_op op = test_upsert(id, vector, t->identity.geometry.dim);
    return test_solo_commit(t, &op, 1);
}

int test_solo_delete(struct test_solo *t, const char *id)
{
    struct kithi_op op = test_delete(id);
    return test_solo_commit(t, &op, 1);
}

uint32_t test_solo_sweep(struct test_solo *t, uint32_t ms)
{
    uint32_t wait_ms;
    t->now_ms += ms;
    uint32_t jobs = kithi_sweep_begin(t->ix, t->now_ms, &wait_ms);
    for (uint32_t i = 0; i < jobs; i++)
        kithi_sweep_job(t->ix, 0, i);
    if (jobs)
        kithi_sweep_end(t->ix, t->now_ms);
    return jobs;
}

void test_solo_settle(struct test_solo *t)
{
    const struct kithi_header *h = test_solo_header(t);
    do
        test_solo_sweep(t, 1000);
    while (atomic_load(&h->tally_dead) || atomic_load(&h->tally_resting));
}

int test_solo_search(struct test_solo *t, const float *query, uint32_t k, uint32_t ef, bool exact)
{
    struct kithi_search_params p = { .k = k, .ef = ef, .exact = exact };
    return kithi_search(test_solo_map(t), &t->scratch, query, &p, &t->results);
}

const char *test_solo_hit(const struct test_solo *t, uint32_t i)
{
    return t->results.ids + t->results.hits[i].id_off;
}

int test_solo_get(const struct test_solo *t, const char *id, float *vector)
{
    struct kithi_found found;
    return kithi_lookup(test_solo_map(t), id, strlen(id), vector, &found);
}

static void print_violation(void *arg, const char *rule, const char *text)
{
    unsigned *shown = arg;
    if ((*shown)++ < 10)
        fprintf(stderr, "verify: %s: %s\n", rule, text);
}

bool test_solo_clean(const struct test_solo *t)
{
    struct kithi_verify_report report;
    unsigned shown = 0;
    int rc = kithi_verify_within(test_solo_map(t), 0, print_violation, &shown, &report);
    if (rc < 0)
        fprintf(stderr, "verify: %s\n", kithi_error_text(rc));
    return rc == 0 && report.violation_count == 0;
}
