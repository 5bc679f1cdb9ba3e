/*
 * test_ids.c - the writer's half of the id table: growth into the other area, tombstones, redirection.
 */
#include "server/index/index_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <stdio.h>

#include "shm/base/id.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

static void begin(struct test_solo *t, uint32_t slot_max)
{
    struct kithi_geometry g = test_geometry(1, KITHI_METRIC_L2, slot_max);
    g.ef_construction = 4;
    g.m = 2;
    test_solo_open(t, &g);
}

static void put(struct test_solo *t, const char *id, float x)
{
    assert_int_equal(test_solo_put(t, id, &x), 0);
}

static uint32_t find(const struct test_solo *t, const char *id)
{
    size_t len = strlen(id);
    return kithi_ids_find(t->ix, kithi_ids_hash(t->ix, id, len), id, len);
}

static uint64_t word(const struct test_solo *t)
{
    return atomic_load(&test_solo_header(t)->id_table);
}

static void an_entry_leads_to_the_newest_version_dead_or_alive(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t, 100);
    assert_int_equal(find(&t, "a"), 0);
    put(&t, "a", 1);
    assert_int_equal(find(&t, "a"), 1);
    put(&t, "a", 2);
    assert_int_equal(find(&t, "a"), 2);
    assert_int_equal(t.ix->ids_filled, 1);
    assert_int_equal(test_solo_delete(&t, "a"), 0);
    assert_int_equal(find(&t, "a"), 2);
    test_solo_settle(&t);
    assert_int_equal(find(&t, "a"), 0);
    assert_int_equal(t.ix->ids_filled, 1); /* a tombstone */
    put(&t, "a", 3);
    assert_int_equal(t.ix->ids_filled, 1); /* which is used again */
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void growth_alternates_between_the_areas_and_loses_nothing(void **state)
{
    (void)state;
    struct test_solo t;
    char id[16];
    unsigned changes = 0;
    begin(&t, 8000);
    uint64_t last = word(&t);
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(id, sizeof id, "%u", i);
        put(&t, id, (float)i);
        uint64_t now = word(&t);
        if (now == last)
            continue;
        assert_int_equal(kithi_ids_area(now), 1 - kithi_ids_area(last));
        assert_true(kithi_ids_log2(now) > kithi_ids_log2(last));
        assert_int_equal(kithi_ids_rebuilds(now), kithi_ids_rebuilds(last) + 1);
        last = now;
        changes++;
        for (unsigned j = 0; j <= i; j++) {
            snprintf(id, sizeof id, "%u", j);
            assert_int_equal(find(&t, id), j + 1);
        }
    }
    assert_int_equal(changes, 5);
    assert_int_equal(t.ix->ids_filled, 5000);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void tombstones_are_cleared_away_by_a_rebuild_of_the_same_size(void **state)
{
    (void)state;
    struct test_solo t;
    char id[16];
    begin(&t, 1000);
    unsigned log2 = kithi_ids_log2(word(&t));
    for (unsigned i = 0; i < 4000; i++) { /* a hundred at a time, always others */
        snprintf(id, sizeof id, "%u", i);
        put(&t, id, 0);
        if (i >= 100) {
            snprintf(id, sizeof id, "%u", i - 100);
            assert_int_equal(test_solo_delete(&t, id), 0);
        }
        test_solo_sweep(&t, 100);
        uint64_t taken = (UINT64_C(1) << kithi_ids_log2(word(&t))) * 3 / 5;
        assert_true(t.ix->ids_filled <= taken);
    }
    assert_true(kithi_ids_rebuilds(word(&t)) >= 5);
    assert_true(kithi_ids_log2(word(&t)) <= log2 + 1);
    for (unsigned i = 3900; i < 4000; i++) {
        snprintf(id, sizeof id, "%u", i);
        assert_int_not_equal(find(&t, id), 0);
    }
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void redirection_moves_or_buries_only_the_entry_that_leads_to_the_slot(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t, 100);
    put(&t, "a", 1);
    put(&t, "b", 2);
    put(&t, "a", 3);
    assert_int_equal(find(&t, "a"), 3);
    kithi_ids_redirect(t.ix, 0, 0); /* slot 0 is a's old version: nothing leads there */
    assert_int_equal(find(&t, "a"), 3);
    kithi_ids_redirect(t.ix, 2, 1);
    assert_int_equal(find(&t, "a"), 1);
    assert_int_equal(find(&t, "b"), 2);
    kithi_ids_redirect(t.ix, 1, 0);
    assert_int_equal(find(&t, "b"), 0);
    assert_int_equal(find(&t, "a"), 1);
    test_solo_close(&t);
}

static void the_table_takes_a_whole_collection_of_new_ids_at_once(void **state)
{
    (void)state;
    struct test_solo t;
    enum { N = 1000 };
    static struct kithi_op ops[N];
    static char names[N][16];
    float v = 1;
    begin(&t, N);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < N; i++) {
            snprintf(names[i], sizeof names[i], "%u-%u", round, i);
            ops[i] = test_upsert(names[i], &v, 1);
        }
        assert_int_equal(test_solo_commit(&t, ops, N), 0);
        for (unsigned i = 0; i < N; i++)
            assert_int_not_equal(find(&t, names[i]), 0);
        assert_true(test_solo_clean(&t));
        for (unsigned i = 0; i < N; i++)
            ops[i] = test_delete(names[i]);
        assert_int_equal(test_solo_commit(&t, ops, N), 0);
        test_solo_settle(&t);
    }
    test_solo_close(&t);
}

/* Staged while the entry still stood, published after it was buried: the id gets its place again. */
static void an_id_whose_entry_is_buried_between_staging_and_publishing_is_found(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_group_result result;
    struct kithi_errmsg err;
    float v = 2;
    begin(&t, 100);
    put(&t, "z", 0);
    put(&t, "a", 1);
    assert_int_equal(test_solo_delete(&t, "a"), 0);
    struct kithi_op op = test_upsert("a", &v, 1);
    assert_int_equal(kithi_group_add(t.ix, &op, 1, &result, &err), 0);
    test_solo_jobs(&t);
    assert_int_equal(test_solo_sweep(&t, 1000), 1);
    assert_int_equal(find(&t, "a"), 0);
    test_solo_sweep(&t, 1000); /* and its slot is free again */
    assert_int_equal(t.ix->slots_free.count, 1);
    test_solo_publish(&t);
    assert_int_not_equal(find(&t, "a"), 0);
    float got;
    assert_int_equal(test_solo_get(&t, "a", &got), 0);
    assert_true(got == 2);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* Whoever knows the key can choose ids that all want one place. The log must never hold a group of them
 * that cannot be put. */
static void ids_chosen_for_their_hashes_are_refused_before_they_are_staged(void **state)
{
    (void)state;
    enum { COUNT = 2100, LOG2 = 13 }; /* the table that so many new ids get */
    static char ids[COUNT][16];
    static struct kithi_op ops[COUNT];
    static const float x = 1;
    struct test_solo t;
    struct kithi_group_result result;
    struct kithi_errmsg err;
    begin(&t, 8000);
    uint32_t n = 0;
    for (unsigned i = 0; n < COUNT; i++) {
        int len = snprintf(ids[n], sizeof ids[n], "%u", i);
        if (kithi_ids_home(kithi_ids_hash(t.ix, ids[n], (size_t)len), LOG2) == 5)
            n++;
    }
    for (uint32_t i = 0; i < COUNT; i++)
        ops[i] = test_upsert(ids[i], &x, 1);
    assert_int_equal(kithi_group_add(t.ix, ops, COUNT, &result, &err), KITHI_E_FULL);
    assert_int_equal(kithi_ids_log2(word(&t)), LOG2);
    assert_int_equal(result.failed_item, KITHI_IDS_PROBE_MAX);
    assert_int_equal(kithi_group_job_count(kithi_group_open(t.ix)), 0);
    /* As many as a probe may pass are taken, whatever was refused before, and found. */
    assert_int_equal(test_solo_commit(&t, ops, KITHI_IDS_PROBE_MAX - 100), 0);
    for (uint32_t i = 0; i < KITHI_IDS_PROBE_MAX - 100; i++)
        assert_int_not_equal(find(&t, ids[i]), 0);
    assert_int_equal(test_solo_commit(&t, ops + KITHI_IDS_PROBE_MAX - 100, 150), KITHI_E_FULL);
    put(&t, "somebody else", 2);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void a_place_claimed_for_an_id_that_goes_again_hides_nobody(void **state)
{
    (void)state;
    struct test_solo t;
    char id[16], first[16] = "";
    float x = 1;
    begin(&t, 100);
    /* Two ids with one home: the second lies behind the first, which its own group takes back. */
    for (unsigned i = 0; find(&t, "pair") == 0; i++) {
        snprintf(id, sizeof id, "%u", i);
        if (kithi_ids_home(kithi_ids_hash(t.ix, id, strlen(id)), 9) != 7)
            continue;
        if (!*first) {
            memcpy(first, id, sizeof first);
            continue;
        }
        struct kithi_op ops[] = { test_upsert(first, &x, 1), test_upsert(id, &x, 1), test_delete(first),
                                  test_upsert("pair", &x, 1) };
        assert_int_equal(test_solo_commit(&t, ops, 4), 0);
    }
    assert_int_equal(find(&t, first), 0);
    assert_int_not_equal(find(&t, id[0] ? id : "-"), 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* Found by the newest version, wherever the entry is on its way from one table to the next. */
static void assert_found(const struct test_solo *t, const uint32_t *version, uint32_t i)
{
    char id[16];
    float got;
    snprintf(id, sizeof id, "%u", i);
    int rc = test_solo_get(t, id, &got);
    if (rc != (version[i] ? 0 : KITHI_E_NOT_FOUND) || (rc == 0 && got != (float)version[i]))
        fail_msg("%s: %d, %g instead of %u", id, rc, rc == 0 ? (double)got : 0, version[i]);
}

static void a_large_table_is_filled_beside_the_present_one(void **state)
{
    (void)state;
    enum { IDS = 24000, GROUP = 60 };
    static uint32_t version[IDS];
    static char ids[GROUP][16];
    static float values[GROUP];
    struct test_solo t;
    struct test_rand r;
    struct kithi_op ops[GROUP];
    unsigned beside = 0, switched = 0;
    uint32_t known = 0, next = 1;
    test_rand_init(&r);
    begin(&t, 2 * IDS);
    memset(version, 0, sizeof version);
    while (known < IDS) {
        struct ids_build before = t.ix->ids_build;
        uint32_t n = 0;
        for (; n < GROUP; n++) {
            bool fresh = test_rand_below(&r, 3) && known < IDS, gone = !fresh && test_rand_below(&r, 2);
            uint32_t i = fresh || known == 0 ? known++ : test_rand_below(&r, known);
            snprintf(ids[n], sizeof ids[n], "%u", i);
            values[n] = (float)(version[i] = gone ? 0 : next++);
            ops[n] = gone ? test_delete(ids[n]) : test_upsert(ids[n], &values[n], 1);
        }
        assert_int_equal(test_solo_commit(&t, ops, n), 0);
        (void)test_solo_sweep(&t, test_rand_below(&r, 200));
        beside += t.ix->ids_build.at > 0;
        switched += before.at > 0 && t.ix->ids_build.word == 0;
        for (unsigned j = 0; j < 20; j++)
            assert_found(&t, version, test_rand_below(&r, known));
        assert_true(t.ix->ids_filled * 5 <= kithi_ids_capacity(t.ix) * 3 + 5 * GROUP);
    }
    assert_true(beside > 5 && switched >= 2);
    for (uint32_t i = 0; i < IDS; i++)
        assert_found(&t, version, i);
    assert_true(test_solo_clean(&t));
    test_solo_settle(&t);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* More at once than there is time for: the rest of it is done at once. */
static void a_table_that_is_filled_beside_is_finished_when_there_is_no_more_room(void **state)
{
    (void)state;
    enum { FIRST = 9100, MORE = 6000 };
    static char ids[FIRST + MORE][16];
    static struct kithi_op ops[FIRST + MORE];
    static const float x = 1;
    struct test_solo t;
    begin(&t, 2 * (FIRST + MORE));
    for (uint32_t i = 0; i < FIRST + MORE; i++) {
        snprintf(ids[i], sizeof ids[i], "%u", i);
        ops[i] = test_upsert(ids[i], &x, 1);
    }
    for (uint32_t i = 0; i < FIRST; i += 50)
        assert_int_equal(test_solo_commit(&t, ops + i, 50), 0);
    assert_true(t.ix->ids_build.word != 0);
    assert_int_equal(test_solo_commit(&t, ops + FIRST, MORE), 0);
    assert_true(t.ix->ids_build.word == 0);
    assert_int_equal(kithi_ids_log2(word(&t)), 15);
    for (uint32_t i = 0; i < FIRST + MORE; i++)
        assert_int_equal(find(&t, ids[i]), i + 1);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_leads_to_the_newest_version_dead_or_alive),
        cmocka_unit_test(growth_alternates_between_the_areas_and_loses_nothing),
        cmocka_unit_test(tombstones_are_cleared_away_by_a_rebuild_of_the_same_size),
        cmocka_unit_test(redirection_moves_or_buries_only_the_entry_that_leads_to_the_slot),
        cmocka_unit_test(the_table_takes_a_whole_collection_of_new_ids_at_once),
        cmocka_unit_test(an_id_whose_entry_is_buried_between_staging_and_publishing_is_found),
        cmocka_unit_test(ids_chosen_for_their_hashes_are_refused_before_they_are_staged),
        cmocka_unit_test(a_place_claimed_for_an_id_that_goes_again_hides_nobody),
        cmocka_unit_test(a_large_table_is_filled_beside_the_present_one),
        cmocka_unit_test(a_table_that_is_filled_beside_is_finished_when_there_is_no_more_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
