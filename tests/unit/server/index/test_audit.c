/*
 * test_audit.c - what no link leads to is found and linked anew, also where every neighbour's row is full of nearer ones.
 */
#include "server/index/index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shm/graph/reach.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM   8u
#define COUNT 1200u
#define GROUP 50u
#define FAR   1000.0f

static struct test_rand rnd;

static void put(struct test_solo *t, uint32_t first, uint32_t n)
{
    char names[GROUP][16];
    float v[GROUP][DIM];
    struct kithi_op ops[GROUP];
    for (uint32_t i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "%u", first + i);
        test_rand_floats(&rnd, v[i], DIM);
        ops[i] = test_upsert(names[i], v[i], DIM);
    }
    assert_int_equal(test_solo_commit(t, ops, n), 0);
}

static void begin(struct test_solo *t)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 1 << 14);
    test_rand_seed(&rnd, test_seed());
    test_solo_open(t, &g);
    for (uint32_t i = 0; i < COUNT; i += GROUP)
        put(t, i, GROUP);
}

static struct kithi_reach_report prove(const struct test_solo *t)
{
    struct kithi_reach_report report;
    assert_int_equal(kithi_reach_prove(test_solo_map(t), 0, NULL, NULL, NULL, &report), 0);
    return report;
}

static struct kithi_audit_found pass(struct test_solo *t)
{
    struct kithi_audit_found found;
    assert_false(kithi_audit_is_begun(t->ix));
    assert_int_equal(kithi_audit_begin(t->ix), 0);
    assert_true(kithi_audit_is_begun(t->ix));
    while (!kithi_audit_found(t->ix, &found)) {
        kithi_audit_open(t->ix);
        kithi_audit_job(t->ix, 0);
        kithi_audit_close(t->ix);
    }
    kithi_audit_end(t->ix);
    return found;
}

/* Take away all links to slots from..to-1 but those that are among them. */
static void cut(const struct test_solo *t, uint32_t from, uint32_t to)
{
    struct kithi_view v;
    kithi_view_begin(test_solo_map(t), &v);
    for (uint32_t i = 0; i < v.slots_used; i++) {
        if (i >= from && i < to)
            continue;
        for (unsigned level = 0; level <= kithi_meta_level(kithi_view_record(&v, i)->meta); level++) {
            uint32_t count;
            kithi_link *links = kithi_view_links(&v, i, level, &count);
            for (uint32_t j = 0; links && j < count; j++)
                if (links[j] > from && links[j] <= to)
                    links[j] = 0;
        }
    }
}

/* So that nothing that is cut off is the entry point. */
static uint32_t entry_of(const struct test_solo *t)
{
    return kithi_entry_link(test_solo_header(t)->entry) - 1;
}

static void a_sound_graph_is_left_alone(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t);
    struct kithi_audit_found found = pass(&t);
    uint64_t mark = kithi_audit_mark(t.ix);
    assert_int_equal(found.missed, prove(&t).unreachable_count + found.relinked);
    found = pass(&t);
    assert_int_equal(found.missed, 0);
    assert_int_equal(found.relinked, 0);
    assert_int_equal(kithi_audit_mark(t.ix), mark);
    put(&t, 0, 1);
    assert_true(kithi_audit_mark(t.ix) > mark);
    mark = kithi_audit_mark(t.ix);
    test_solo_settle(&t);
    assert_true(kithi_audit_mark(t.ix) > mark); /* a sweep has moved links */
    test_solo_close(&t);
}

static void an_empty_index_has_nothing_to_look_at(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 1000);
    test_solo_open(&t, &g);
    assert_int_equal(pass(&t).missed, 0);
    kithi_audit_open(t.ix);
    assert_int_equal(kithi_audit_sample_job(t.ix, 0, 1), -1);
    kithi_audit_close(t.ix);
    test_solo_close(&t);
}

static void single_slots_are_linked_anew(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t);
    pass(&t);
    uint32_t entry = entry_of(&t), lost = 0;
    for (uint32_t slot = 5; slot < COUNT; slot += 97)
        if (slot != entry) {
            cut(&t, slot, slot + 1);
            lost++;
        }
    assert_true(prove(&t).unreachable_count >= lost);
    struct kithi_audit_found found = pass(&t);
    assert_true(found.missed >= lost);
    assert_true(found.relinked >= 1 && found.relinked <= found.missed);
    for (unsigned i = 0; i < 4 && prove(&t).unreachable_count; i++)
        pass(&t);
    assert_int_equal(prove(&t).unreachable_count, 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* So many at once, in rows without a place to spare, that places of others are taken by the dozen: nobody is lost for them. */
static void giving_one_a_place_takes_nobody_elses_last(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_view v;
    begin(&t);
    pass(&t);
    assert_int_equal(prove(&t).unreachable_count, 0);
    uint32_t entry = entry_of(&t), lost = 0;
    kithi_view_begin(test_solo_map(&t), &v);
    for (uint32_t slot = 1; slot < COUNT; slot += 4)
        if (slot != entry) {
            cut(&t, slot, slot + 1);
            lost++;
        }
    for (uint32_t i = 0; i < COUNT; i++)
        for (uint32_t j = 0, other = i; j < v.link_count0; j++) {
            while (other = (other + 1) % COUNT, other % 4 == 1)
                continue;
            if (kithi_view_row(&v, i)[j] == 0)
                kithi_view_row(&v, i)[j] = other + 1;
        }
    assert_true(prove(&t).unreachable_count >= lost);
    struct kithi_audit_found found = pass(&t);
    assert_true(found.missed >= lost);
    assert_int_equal(prove(&t).unreachable_count, 0);
    test_solo_close(&t);
}

/* With the first of them the others are back: they lead to each other. */
static void an_island_is_brought_back_by_one_of_it(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t);
    pass(&t);
    uint32_t from = entry_of(&t) < COUNT / 2 ? COUNT / 2 : 0, to = from + COUNT / 2;
    cut(&t, from, to);
    uint64_t lost = prove(&t).unreachable_count;
    assert_true(lost > COUNT / 4);
    struct kithi_audit_found found = pass(&t);
    assert_int_equal(found.missed, lost);
    assert_true(found.relinked < lost / 4);
    for (unsigned i = 0; i < 4 && prove(&t).unreachable_count; i++)
        pass(&t);
    assert_int_equal(prove(&t).unreachable_count, 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* Its neighbours have nearer ones than they have places for, so no row would take it. */
static void one_that_no_row_would_take_is_given_a_place(void **state)
{
    (void)state;
    struct test_solo t;
    float far[DIM];
    begin(&t);
    for (unsigned i = 0; i < DIM; i++)
        far[i] = FAR;
    assert_int_equal(test_solo_put(&t, "far", far), 0);
    pass(&t);
    assert_int_equal(prove(&t).unreachable_count, 0);
    uint32_t slot = COUNT;
    if (entry_of(&t) == slot) { /* drawn as the new top: one in some thousands */
        test_solo_close(&t);
        return;
    }
    struct kithi_view v;
    kithi_view_begin(test_solo_map(&t), &v);
    cut(&t, slot, slot + 1);
    /* Rows that have places to spare are filled. */
    for (uint32_t i = 0; i < COUNT; i++)
        for (uint32_t j = 0, other = i; j < v.link_count0; j++) {
            other = (other + 1) % COUNT;
            if (kithi_view_row(&v, i)[j] == 0)
                kithi_view_row(&v, i)[j] = other + 1;
        }
    assert_int_equal(prove(&t).unreachable_count, 1);
    struct kithi_audit_found found = pass(&t);
    assert_int_equal(found.missed, 1);
    assert_int_equal(found.relinked, 1);
    for (unsigned i = 0; i < 4 && prove(&t).unreachable_count; i++)
        pass(&t);
    assert_int_equal(prove(&t).unreachable_count, 0);
    test_solo_close(&t);
}

static void a_sample_finds_what_is_there_and_links_anew_what_is_not(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t);
    pass(&t);
    uint32_t from = entry_of(&t) < COUNT / 2 ? COUNT / 2 : 0;
    unsigned there = 0, missed = 0;
    kithi_audit_open(t.ix);
    for (unsigned i = 0; i < 50; i++)
        there += kithi_audit_sample_job(t.ix, 0, test_rand_u64(&rnd)) == 1;
    assert_in_range(there, 48, 50);
    cut(&t, from, from + COUNT / 2);
    /* The first may be one that was reached by way of them only, and leads nowhere. */
    for (unsigned i = 0; i < 1000 && prove(&t).unreachable_count >= COUNT / 2; i++)
        missed += kithi_audit_sample_job(t.ix, 0, test_rand_u64(&rnd)) == 0;
    kithi_audit_close(t.ix);
    assert_in_range(missed, 1, 20);
    assert_true(prove(&t).unreachable_count < COUNT / 2);
    test_solo_close(&t);
}

/* Crowds of 50 and one of 1,000, among others. */
static void equal_vectors_are_all_reached(void **state)
{
    enum { SPOTS = 40, CROWD = 1000 };
    (void)state;
    struct test_solo t;
    char names[GROUP][16];
    float v[DIM] = { 0 };
    struct kithi_op ops[GROUP];
    begin(&t);
    for (uint32_t i = 0; i < SPOTS * GROUP + CROWD; i += GROUP) {
        if (i <= SPOTS * GROUP)
            test_rand_floats(&rnd, v, DIM);
        for (uint32_t j = 0; j < GROUP; j++) {
            snprintf(names[j], sizeof names[j], "e%u", i + j);
            ops[j] = test_upsert(names[j], v, DIM);
        }
        assert_int_equal(test_solo_commit(&t, ops, GROUP), 0);
    }
    /* Without an audit; rows with neighbour codes are full of equals. 13 to 68 of 3,000 were seen with vectors and sq8, 56 to 115 there. */
    uint64_t most = (SPOTS * GROUP + CROWD) / (t.identity.geometry.code_bits ? 20 : 30);
    assert_in_range(prove(&t).unreachable_count, 0, most);
    for (unsigned i = 0; i < 2 && prove(&t).unreachable_count; i++)
        pass(&t); /* nobody of them is cut off for another */
    assert_int_equal(prove(&t).unreachable_count, 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void no_sweep_begins_under_a_job(void **state)
{
    (void)state;
    struct test_solo t;
    uint32_t wait_ms = 77;
    begin(&t);
    for (uint32_t i = 0; i < 200; i += GROUP)
        put(&t, i, GROUP);
    kithi_audit_open(t.ix);
    assert_int_equal(kithi_sweep_begin(t.ix, t.now_ms + 100000, &wait_ms), 0);
    assert_in_range(wait_ms, 1, 10);
    kithi_audit_close(t.ix);
    assert_true(kithi_sweep_begin(t.ix, t.now_ms + 100000, &wait_ms) > 0);
    test_solo_close(&t);
}

/* Without any audit: pruning keeps what may be somebody's last link, and a sweep looks after those that the dead led to. */
static void insertion_and_repair_lose_nobody(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t);
    assert_int_equal(prove(&t).unreachable_count, 0);
    for (unsigned round = 0; round < 12; round++) {
        for (uint32_t i = 0; i < COUNT / 4; i += GROUP)
            put(&t, round % 4 * (COUNT / 4) + i, GROUP);
        test_solo_sweep(&t, 300);
        assert_in_range(prove(&t).unreachable_count, 0, 2); /* a ring of a few may be left to the audit */
    }
    test_solo_settle(&t);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_graph_is_left_alone),
        cmocka_unit_test(an_empty_index_has_nothing_to_look_at),
        cmocka_unit_test(single_slots_are_linked_anew),
        cmocka_unit_test(giving_one_a_place_takes_nobody_elses_last),
        cmocka_unit_test(an_island_is_brought_back_by_one_of_it),
        cmocka_unit_test(one_that_no_row_would_take_is_given_a_place),
        cmocka_unit_test(a_sample_finds_what_is_there_and_links_anew_what_is_not),
        cmocka_unit_test(equal_vectors_are_all_reached),
        cmocka_unit_test(no_sweep_begins_under_a_job),
        cmocka_unit_test(insertion_and_repair_lose_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
