/*
 * test_ahead.c - what a segment shows and its log lacks: applied to the state that the log gives, it gives the segment's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "server/index/ahead.h"
#include "shm/layout/header.h"
#include "tests/support/codes.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM      6u
#define IDS      40u
#define OPS      7u
#define OPS_MAX  64u
#define SLOT_MAX 4096u

static void name_of(uint32_t number, char out[64])
{
    /* Every third one is too long for a record. */
    snprintf(out, 64, number % 3 ? "%u" : "an id that has no room in its record: %u", number);
}

/* Some changes of IDS ids; the same for both indexes. */
static uint32_t some(struct test_rand *r, char names[OPS][64], float vectors[OPS][DIM],
                     struct kithi_op ops[OPS])
{
    uint32_t n = 1 + test_rand_below(r, OPS);
    for (uint32_t i = 0; i < n; i++) {
        name_of(test_rand_below(r, IDS), names[i]);
        test_rand_floats(r, vectors[i], DIM);
        vectors[i][0] += 2;
        ops[i] = test_rand_below(r, 3) ? test_upsert(names[i], vectors[i], DIM) : test_delete(names[i]);
    }
    return n;
}

static double length_of(const float *v)
{
    double sum = 0;
    for (uint32_t i = 0; i < DIM; i++)
        sum += (double)v[i] * v[i];
    return sqrt(sum);
}

static void commit(struct test_solo *t, const struct kithi_op *ops, uint32_t n, bool durable)
{
    struct kithi_group_result result;
    struct kithi_errmsg err;
    assert_int_equal(kithi_group_add(t->ix, ops, n, &result, &err), 0);
    test_solo_jobs(t);
    if (durable)
        test_solo_publish(t);
    else
        kithi_group_publish_ahead(t->ix, kithi_index_epoch(t->ix) + 1, t->now_ms);
}

static void apply(struct test_solo *t, const struct kithi_ahead_group *g)
{
    struct kithi_op ops[OPS_MAX];
    uint32_t n = 0, all = 0;
    for (size_t at = 0; at < g->len; all++) {
        int64_t step = kithi_op_decode((const char *)g->ops + at, g->len - at, &ops[n]);
        assert_true(step > 0 && n < OPS_MAX);
        n += ops[n].type == KITHI_OP_UPSERT || ops[n].type == KITHI_OP_DELETE;
        at += (size_t)step;
    }
    assert_int_equal(all, g->op_count);
    assert_true(g->op_count > 0);
    commit(t, ops, n, true);
}

static void assert_same(const struct test_solo *a, const struct test_solo *b)
{
    assert_int_equal(kithi_index_epoch(a->ix), kithi_index_epoch(b->ix));
    assert_int_equal(kithi_index_live(a->ix), kithi_index_live(b->ix));
    for (uint32_t i = 0; i < IDS; i++) {
        float x[DIM], y[DIM];
        char id[64];
        name_of(i, id);
        int rc = test_solo_get(a, id, x);
        assert_int_equal(rc, test_solo_get(b, id, y));
        for (uint32_t j = 0; j < DIM && rc == 0; j++)
            assert_true(fabsf(x[j] - y[j]) <= 0.02f * (1 + fabsf(x[j])));
        if (rc == 0 && test_codes_kept() == KITHI_CODEC_F32 &&
            a->identity.geometry.metric != KITHI_METRIC_COSINE)
            assert_memory_equal(x, y, sizeof x);
    }
}

static void one_history(uint64_t seed, uint32_t metric)
{
    struct kithi_geometry g = test_geometry(DIM, metric, SLOT_MAX);
    struct test_solo segment, log;
    struct test_rand r;
    struct kithi_ahead ahead;
    struct kithi_errmsg err;
    struct kithi_op ops[OPS];
    char names[OPS][64];
    float vectors[OPS][DIM];
    test_rand_seed(&r, seed);
    test_solo_open(&segment, &g);
    test_solo_open(&log, &g);
    uint32_t durable = test_rand_below(&r, 30), more = test_rand_below(&r, 30);
    for (uint32_t e = 0; e < durable + more; e++) {
        uint32_t n = some(&r, names, vectors, ops);
        commit(&segment, ops, n, e < durable);
        if (e < durable)
            commit(&log, ops, n, true);
        if (test_rand_below(&r, 2))
            test_solo_sweep(&segment, 600);
    }
    assert_int_equal(kithi_index_durable_epoch(segment.ix), durable);
    test_solo_leave(&segment);
    assert_int_equal(test_solo_adopt(&segment, &err), 0);
    assert_int_equal(kithi_ahead_collect(segment.ix, durable, &ahead, &err), 0);
    assert_int_equal(ahead.group_count, more);
    assert_int_equal(ahead.first_epoch, durable + 1);
    for (uint32_t i = 0; i < ahead.group_count; i++)
        apply(&log, &ahead.groups[i]);
    assert_same(&segment, &log);
    kithi_ahead_fini(&ahead);
    kithi_index_set_durable(segment.ix, kithi_index_epoch(segment.ix));
    test_solo_settle(&segment);
    assert_true(test_solo_clean(&segment));
    test_solo_close(&segment);
    test_solo_close(&log);
}

static void what_was_collected_gives_the_state_of_the_segment(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    for (uint32_t i = 0; i < (test_long() ? 2000 : 60); i++)
        one_history(seed + i, i % 2 ? KITHI_METRIC_COSINE : KITHI_METRIC_L2);
}

/* What comes back of a vector of almost FLT_MAX may be longer than that, which no group takes; the log gets what one does. */
static void lengths_that_a_float_just_holds_are_taken_from_the_log(void **state)
{
    (void)state;
    struct test_rand r;
    test_rand_init(&r);
    for (unsigned l = 0; l < TEST_ROUNDING_LAYOUTS; l++) {
        struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_COSINE, SLOT_MAX);
        struct test_solo segment, log;
        struct kithi_ahead ahead;
        struct kithi_errmsg err;
        struct kithi_op ops[IDS];
        char names[IDS][64];
        float vectors[IDS][DIM];
        uint32_t longer = 0;
        kithi_geometry_want(&g, test_rounding_layouts[l][0], test_rounding_layouts[l][1]);
        test_solo_open(&segment, &g);
        test_solo_open(&log, &g);
        for (uint32_t i = 0; i < IDS; i++) {
            name_of(i, names[i]);
            test_rand_floats(&r, vectors[i], DIM);
            double scale = 0.999999 * (double)FLT_MAX / length_of(vectors[i]);
            for (uint32_t j = 0; j < DIM; j++)
                vectors[i][j] = (float)(vectors[i][j] * scale);
            ops[i] = test_upsert(names[i], vectors[i], DIM);
        }
        commit(&segment, ops, IDS, false);
        test_solo_leave(&segment);
        assert_int_equal(test_solo_adopt(&segment, &err), 0);
        assert_int_equal(kithi_ahead_collect(segment.ix, 0, &ahead, &err), 0);
        assert_int_equal(ahead.group_count, 1);
        apply(&log, &ahead.groups[0]);
        kithi_ahead_fini(&ahead);
        for (uint32_t i = 0; i < IDS; i++) {
            float x[DIM], y[DIM];
            assert_int_equal(test_solo_get(&segment, names[i], x), 0);
            assert_int_equal(test_solo_get(&log, names[i], y), 0);
            longer += length_of(x) > (double)FLT_MAX;
            for (uint32_t j = 0; j < DIM; j++)
                assert_true(fabs((double)x[j] - (double)y[j]) <= 0.01 * (double)FLT_MAX);
        }
        assert_true(longer > 0); /* else this is no test */
        kithi_index_set_durable(segment.ix, kithi_index_epoch(segment.ix));
        test_solo_close(&segment);
        test_solo_close(&log);
    }
}

static void a_dead_slot_stays_until_its_death_is_durable(void **state)
{
    (void)state;
    static const float v[DIM] = { 1, 2, 3, 4, 5, 6 };
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, SLOT_MAX);
    struct test_solo t;
    test_solo_open(&t, &g);
    struct kithi_op put = test_upsert("x", v, DIM), gone = test_delete("x");
    commit(&t, &put, 1, true);
    commit(&t, &gone, 1, false);
    for (int i = 0; i < 20; i++)
        assert_int_equal(test_solo_sweep(&t, 1000), 0);
    assert_int_equal(atomic_load(&test_solo_header(&t)->tally_dead), 1);
    kithi_index_set_durable(t.ix, 2);
    assert_int_equal(kithi_index_durable_epoch(t.ix), 2);
    test_solo_settle(&t);
    assert_int_equal(atomic_load(&test_solo_header(&t)->tally_dead), 0);
    assert_int_equal(atomic_load(&test_solo_header(&t)->tally_free), 1);
    test_solo_close(&t);
}

static void the_durable_epoch_never_passes_the_visible_one_nor_falls(void **state)
{
    (void)state;
    static const float v[DIM] = { 1, 2, 3, 4, 5, 6 };
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, SLOT_MAX);
    struct test_solo t;
    test_solo_open(&t, &g);
    struct kithi_op put = test_upsert("x", v, DIM);
    commit(&t, &put, 1, false);
    commit(&t, &put, 1, false);
    assert_int_equal(kithi_index_durable_epoch(t.ix), 0);
    uint32_t wake = atomic_load(&test_solo_header(&t)->wake);
    kithi_index_set_durable(t.ix, 7);
    assert_int_equal(kithi_index_durable_epoch(t.ix), 2);
    assert_int_not_equal(atomic_load(&test_solo_header(&t)->wake), wake);
    wake = atomic_load(&test_solo_header(&t)->wake);
    kithi_index_set_durable(t.ix, 1);
    assert_int_equal(kithi_index_durable_epoch(t.ix), 2);
    assert_int_equal(atomic_load(&test_solo_header(&t)->wake), wake);
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_collected_gives_the_state_of_the_segment),
        cmocka_unit_test(lengths_that_a_float_just_holds_are_taken_from_the_log),
        cmocka_unit_test(a_dead_slot_stays_until_its_death_is_durable),
        cmocka_unit_test(the_durable_epoch_never_passes_the_visible_one_nor_falls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
