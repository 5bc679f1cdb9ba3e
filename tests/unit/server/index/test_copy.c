/*
 * test_copy.c - a copy in another layout shows what the original shows, at the same epoch, and goes on from there.
 */
#include "server/index/copy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "shm/graph/lookup.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM   24u
#define COUNT 3000u /* more than one part */
#define BATCH 500u

static struct test_rand r;
static float vectors[COUNT][DIM];

/* Every seventh id does not fit into a record. */
static void name(uint32_t i, char out[80])
{
    snprintf(out, 80, i % 7 ? "v%u" : "an id that is longer than what a record holds, and a number: %u", i);
}

static bool is_gone(uint32_t i)
{
    return i % 10 == 3;
}

/* COUNT vectors; some were replaced, some deleted, and nothing was swept. */
static void fill(struct test_solo *t, uint32_t metric)
{
    static char ids[BATCH][80];
    struct kithi_op ops[BATCH];
    struct kithi_geometry g = test_geometry(DIM, metric, 4 * COUNT);
    test_solo_open(t, &g);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t first = 0; first < COUNT; first += BATCH) {
            for (uint32_t i = 0; i < BATCH; i++) {
                name(first + i, ids[i]);
                test_rand_floats(&r, vectors[first + i], DIM);
                ops[i] = test_upsert(ids[i], vectors[first + i], DIM);
            }
            /* In the second round a tenth only, whose vectors the model has anew. */
            assert_int_equal(test_solo_commit(t, ops, round ? BATCH / 10 : BATCH), 0);
            if (round)
                for (uint32_t i = BATCH / 10; i < BATCH; i++)
                    assert_int_equal(test_solo_get(t, ids[i], vectors[first + i]), 0);
        }
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        char id[80];
        name(i, id);
        if (is_gone(i))
            assert_int_equal(test_solo_delete(t, id), 0);
    }
}

/* The same solo with the copy in its index's place. */
static void relay(struct test_solo *t, uint32_t quantization, uint32_t keep)
{
    struct kithi_errmsg err;
    struct kithi_copy *copy;
    struct kithi_index *next;
    snprintf(t->path, sizeof t->path, "%s/segment.%u.%u", t->dir.path, quantization, keep);
    kithi_geometry_want(&t->identity.geometry, quantization, keep);
    assert_int_equal(kithi_index_create(t->path, &t->identity, 2, &t->tuning, &next, &err), 0);
    assert_int_equal(kithi_copy_begin(t->ix, next, &copy, &err), 0);
    int jobs, parts = 0;
    while ((jobs = kithi_copy_stage(copy, t->now_ms, &err)) > 0) {
        for (int i = 0; i < jobs; i++)
            kithi_group_job(next, kithi_group_open(next), 0, (uint32_t)i);
        parts++;
    }
    assert_int_equal(jobs, 0);
    assert_true(kithi_index_live(t->ix) == 0 || parts > 1);
    const struct kithi_header *from = kithi_map_header(kithi_index_map(t->ix));
    const struct kithi_header *to = kithi_map_header(kithi_index_map(next));
    uint64_t epoch = atomic_load(&from->epoch);
    assert_int_equal(atomic_load(&to->epoch), epoch);
    assert_int_equal(kithi_index_epoch(next), epoch);
    assert_int_equal(atomic_load(&to->durable_epoch), atomic_load(&from->durable_epoch));
    assert_int_equal(atomic_load(&to->timeline), atomic_load(&from->timeline));
    assert_int_equal(atomic_load(&to->unlinked), epoch);
    assert_int_equal(atomic_load(&to->reused), epoch);
    assert_int_equal(atomic_load(&to->live), kithi_index_live(t->ix));
    assert_int_equal(to->quantization, quantization);
    kithi_copy_end(copy);
    kithi_index_close(t->ix);
    t->ix = next;
    assert_true(test_solo_clean(t));
}

static void assert_all_there(struct test_solo *t, float tolerance)
{
    uint32_t found = 0, live = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        char id[80];
        float v[DIM];
        name(i, id);
        int rc = test_solo_get(t, id, v);
        assert_int_equal(rc, is_gone(i) ? KITHI_E_NOT_FOUND : 0);
        if (is_gone(i))
            continue;
        live++;
        for (uint32_t j = 0; j < DIM; j++)
            if (fabsf(v[j] - vectors[i][j]) > tolerance)
                fail_msg("%s: element %u is %g and was %g", id, j, v[j], vectors[i][j]);
        if (i % 20)
            continue;
        assert_int_equal(test_solo_search(t, vectors[i], 5, 64, false), 5);
        found += strcmp(test_solo_hit(t, 0), id) == 0;
    }
    assert_int_equal(kithi_index_live(t->ix), live);
    assert_true(found * 100 >= (live / 18) * 95);
}

static void a_copy_shows_what_the_original_shows_in_every_layout(void **state)
{
    (void)state;
    static const struct {
        uint32_t metric, quantization, keep;
        float tolerance;
    } cases[] = {
        { KITHI_METRIC_L2, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32, 0 },
        { KITHI_METRIC_COSINE, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32, 2e-6f },
        { KITHI_METRIC_IP, KITHI_QUANTIZATION_F16, KITHI_KEEP_NONE, 1e-3f },
        { KITHI_METRIC_COSINE, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F16, 2e-3f },
        { KITHI_METRIC_L2, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32, 0 },
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct test_solo t;
        fill(&t, cases[i].metric);
        relay(&t, cases[i].quantization, cases[i].keep);
        assert_all_there(&t, cases[i].tolerance);
        test_solo_close(&t);
    }
}

static void a_copy_takes_groups_and_sweeps_and_is_adopted_as_any_segment_is(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    fill(&t, KITHI_METRIC_L2);
    relay(&t, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32);
    uint64_t epoch = kithi_index_epoch(t.ix);
    for (uint32_t i = 0; i < 200; i++) {
        char id[80];
        uint32_t which = 10 * i;
        name(which, id);
        test_rand_floats(&r, vectors[which], DIM);
        assert_int_equal(test_solo_put(&t, id, vectors[which]), 0);
    }
    assert_int_equal(kithi_index_epoch(t.ix), epoch + 200);
    test_solo_settle(&t);
    assert_true(test_solo_clean(&t));
    assert_all_there(&t, 0);
    test_solo_leave(&t);
    assert_int_equal(test_solo_adopt(&t, &err), 0);
    assert_true(test_solo_clean(&t));
    assert_all_there(&t, 0);
    test_solo_close(&t);
}

static void nothing_is_copied_from_nothing_but_the_epoch(void **state)
{
    (void)state;
    struct test_solo t;
    float v[DIM] = { 1 };
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 100);
    test_solo_open(&t, &g);
    relay(&t, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32); /* of epoch 0 */
    assert_int_equal(test_solo_put(&t, "a", v), 0);
    assert_int_equal(test_solo_delete(&t, "a"), 0);
    relay(&t, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32);
    assert_int_equal(kithi_index_epoch(t.ix), 2);
    assert_int_equal(test_solo_search(&t, v, 5, 64, false), 0);
    assert_int_equal(test_solo_put(&t, "b", v), 0);
    assert_int_equal(test_solo_search(&t, v, 5, 64, false), 1);
    test_solo_close(&t);
}

static void a_copy_without_room_is_refused_and_leaves_the_original_alone(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err = { 0 };
    struct kithi_copy *copy;
    struct kithi_index *next;
    fill(&t, KITHI_METRIC_L2);
    struct kithi_index_identity small = t.identity;
    small.geometry.slot_max = 10;
    assert_int_equal(kithi_index_create(NULL, &small, 2, &t.tuning, &next, &err), 0);
    assert_int_equal(kithi_copy_begin(t.ix, next, &copy, &err), 0);
    assert_int_equal(kithi_copy_stage(copy, t.now_ms, &err), KITHI_E_FULL);
    assert_true(strlen(err.text) > 10);
    kithi_copy_end(copy);
    kithi_index_close(next);
    assert_all_there(&t, 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

int main(void)
{
    test_rand_init(&r);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_shows_what_the_original_shows_in_every_layout),
        cmocka_unit_test(a_copy_takes_groups_and_sweeps_and_is_adopted_as_any_segment_is),
        cmocka_unit_test(nothing_is_copied_from_nothing_but_the_epoch),
        cmocka_unit_test(a_copy_without_room_is_refused_and_leaves_the_original_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
