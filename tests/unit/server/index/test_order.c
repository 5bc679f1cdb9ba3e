/*
 * test_order.c - an order has every slot once, whatever the links do, and neighbours of the graph stand near each other in it.
 */
#include "server/index/order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/graph/view.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM      8u
#define COUNT    6000u
#define CLUSTERS 60u /* vectors of one lie together, and are written far from each other */
#define BATCH    500u
#define NEAR     100u
#define FURTHER  256u /* slots: in another region */

static struct test_rand r;

static void fill(struct test_solo *t)
{
    static float vectors[BATCH][DIM], centres[CLUSTERS][DIM];
    static char ids[BATCH][16];
    struct kithi_op ops[BATCH];
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 2 * COUNT);
    test_solo_open(t, &g);
    for (uint32_t i = 0; i < CLUSTERS; i++)
        test_rand_floats(&r, centres[i], DIM);
    for (uint32_t first = 0; first < COUNT; first += BATCH) {
        for (uint32_t i = 0; i < BATCH; i++) {
            float noise[DIM];
            test_rand_floats(&r, noise, DIM);
            for (uint32_t d = 0; d < DIM; d++)
                vectors[i][d] = centres[(first + i) % CLUSTERS][d] + 0.05f * noise[d];
            snprintf(ids[i], sizeof ids[i], "%u", first + i);
            ops[i] = test_upsert(ids[i], vectors[i], DIM);
        }
        assert_int_equal(test_solo_commit(t, ops, BATCH), 0);
    }
}

/* Positions by slot; each slot has one. */
static uint32_t *positions(const struct kithi_order *o)
{
    uint32_t n = kithi_order_total(o);
    uint32_t *at = malloc((n + 1) * sizeof *at);
    assert_non_null(at);
    for (uint32_t i = 0; i < n; i++)
        at[i] = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = kithi_order_slot(o, i);
        assert_in_range(slot, 0, n - 1);
        assert_int_equal(at[slot], UINT32_MAX);
        at[slot] = i;
    }
    return at;
}

/* The share of links that lead no further than so many slots in memory. */
static double near_share(const struct test_solo *t, const uint32_t *at)
{
    struct kithi_view v;
    double near = 0, n = 0;
    kithi_view_begin(test_solo_map(t), &v);
    for (uint32_t slot = 0; slot < v.slots_used; slot++) {
        const kithi_link *row = kithi_view_row(&v, slot);
        for (uint32_t i = 0; i < v.link_count0; i++) {
            uint32_t link = atomic_load(&row[i]);
            if (link) {
                near += labs((long)at[slot] - (long)at[link - 1]) <= NEAR;
                n++;
            }
        }
    }
    return near / n;
}

static void neighbours_stand_near_each_other(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_order *o;
    uint32_t pieces = 0, as_is[COUNT];
    fill(&t);
    assert_int_equal(kithi_order_new(t.ix, &o, &err), 0);
    for (; !kithi_order_is_done(o); pieces++)
        kithi_order_job(o);
    assert_int_equal(kithi_order_total(o), COUNT);
    uint32_t *at = positions(o);
    for (uint32_t i = 0; i < COUNT; i++)
        as_is[i] = i;
    double before = near_share(&t, as_is), after = near_share(&t, at);
    fprintf(stderr, "%.2f of the links lead less than %u slots away, and %.2f before\n", after, NEAR, before);
    assert_true(pieces >= 1 && after > 0.4 && after > 4 * before);
    free(at);
    kithi_order_free(o);
    test_solo_close(&t);
}

/* On a plane regions that touch are found one after the other. Where one of them ends the next is from somewhere else. */
static void regions_that_follow_each_other_lie_apart(void **state)
{
    (void)state;
    static float plane[COUNT][2];
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_order *o;
    struct kithi_op op;
    struct kithi_geometry g = test_geometry(2, KITHI_METRIC_L2, COUNT);
    double next = 0, chance = 0;
    test_solo_open(&t, &g);
    for (uint32_t i = 0; i < COUNT; i++) {
        char id[16];
        test_rand_floats(&r, plane[i], 2);
        snprintf(id, sizeof id, "%u", i);
        op = test_upsert(id, plane[i], 2);
        assert_int_equal(test_solo_commit(&t, &op, 1), 0);
    }
    assert_int_equal(kithi_order_new(t.ix, &o, &err), 0);
    while (!kithi_order_is_done(o))
        kithi_order_job(o);
    for (uint32_t i = 0; i + FURTHER < COUNT; i++) {
        /* Slots were given out in the order of writing. */
        const float *a = plane[kithi_order_slot(o, i)], *b = plane[kithi_order_slot(o, i + FURTHER)];
        const float *c = plane[test_rand_below(&r, COUNT)];
        next += hypot(a[0] - b[0], a[1] - b[1]);
        chance += hypot(a[0] - c[0], a[1] - c[1]);
    }
    fprintf(stderr, "%u slots further it is %.2f as far as by chance\n", FURTHER, next / chance);
    assert_true(next > 0.8 * chance);
    kithi_order_free(o);
    test_solo_close(&t);
}

static void what_no_link_leads_to_is_in_it_too(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_order *o;
    fill(&t);
    uint64_t entry = atomic_load(&test_solo_header(&t)->entry);
    atomic_store(&test_solo_header(&t)->entry, 0);
    assert_int_equal(kithi_order_new(t.ix, &o, &err), 0);
    while (!kithi_order_is_done(o))
        kithi_order_job(o);
    free(positions(o));
    kithi_order_free(o);
    atomic_store(&test_solo_header(&t)->entry, entry);
    test_solo_close(&t);
}

static void links_that_change_and_lead_nowhere_do_no_harm(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_order *o;
    struct kithi_view v;
    fill(&t);
    kithi_view_begin(test_solo_map(&t), &v);
    assert_int_equal(kithi_order_new(t.ix, &o, &err), 0);
    for (uint32_t slot = 0; slot < v.slots_used; slot++) {
        kithi_link *row = kithi_view_row(&v, slot);
        for (uint32_t i = 0; i < v.link_count0; i++)
            if (test_rand_below(&r, 4) == 0)
                atomic_store(&row[i], (uint32_t)test_rand_u64(&r));
    }
    while (!kithi_order_is_done(o))
        kithi_order_job(o);
    free(positions(o));
    kithi_order_free(o);
    test_solo_close(&t);
}

static void an_empty_index_has_an_empty_order(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_order *o;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 10);
    test_solo_open(&t, &g);
    assert_int_equal(kithi_order_new(t.ix, &o, &err), 0);
    assert_true(kithi_order_is_done(o));
    assert_int_equal(kithi_order_total(o), 0);
    kithi_order_free(o);
    test_solo_close(&t);
}

int main(void)
{
    test_rand_init(&r);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_stand_near_each_other),
        cmocka_unit_test(regions_that_follow_each_other_lie_apart),
        cmocka_unit_test(what_no_link_leads_to_is_in_it_too),
        cmocka_unit_test(links_that_change_and_lead_nowhere_do_no_harm),
        cmocka_unit_test(an_empty_index_has_an_empty_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
