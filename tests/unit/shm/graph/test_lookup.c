/*
 * test_lookup.c - an id leads to the version that the snapshot sees, wherever the table and the writer are.
 */
#include "shm/graph/lookup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/base/error.h"
#include "shm/base/hash.h"
#include "shm/base/id.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

static struct kithi_geometry plain(uint32_t slot_max)
{
    struct kithi_geometry g = test_geometry(2, KITHI_METRIC_L2, slot_max);
    g.ef_construction = 8; /* links are not the subject */
    g.m = 4;
    return g;
}

static void put(struct test_solo *t, const char *id, float x)
{
    float v[2] = { x, 1 };
    assert_int_equal(test_solo_put(t, id, v), 0);
}

/* The first number of the version that id has, or the error. */
static float get(const struct test_solo *t, const char *id)
{
    float v[2];
    int rc = test_solo_get(t, id, v);
    return rc < 0 ? (float)rc : v[0];
}

static void set_epoch(const struct test_solo *t, uint64_t epoch)
{
    atomic_store(&test_solo_header(t)->epoch, epoch);
}

static void an_id_that_was_never_written_is_not_found(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(100);
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_get(&t, "a", NULL), KITHI_E_NOT_FOUND);
    put(&t, "a", 1);
    assert_int_equal(test_solo_get(&t, "b", NULL), KITHI_E_NOT_FOUND);
    assert_int_equal(test_solo_get(&t, "a", NULL), 0);
    assert_int_equal(test_solo_get(&t, "", NULL), KITHI_E_NOT_FOUND);
    test_solo_close(&t);
}

static void each_epoch_sees_its_own_version(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(100);
    test_solo_open(&t, &g);
    put(&t, "other", 1); /* somebody stays, or the mark would rise with the loss of the entry point */
    put(&t, "a", 2);
    put(&t, "a", 3);
    assert_int_equal(test_solo_delete(&t, "a"), 0);
    put(&t, "a", 5);
    put(&t, "a", 6);
    for (unsigned e = 0; e <= 6; e++) {
        set_epoch(&t, e);
        assert_true(get(&t, "a") == (e < 2 || e == 4 ? (float)KITHI_E_NOT_FOUND : (float)e));
    }
    struct kithi_found found;
    set_epoch(&t, 3);
    assert_int_equal(kithi_lookup(test_solo_map(&t), "a", 1, NULL, &found), 0);
    assert_int_equal(found.epoch, 3);
    assert_int_equal(found.birth, 3);
    assert_int_equal(found.slot, 2);
    set_epoch(&t, 6);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void a_group_that_writes_an_id_a_thousand_times_hides_nothing_from_the_epoch_before(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(2000);
    struct kithi_op ops[1000];
    static float v[1000][2];
    test_solo_open(&t, &g);
    put(&t, "a", -1);
    for (unsigned i = 0; i < 1000; i++) {
        v[i][0] = (float)i;
        ops[i] = test_upsert("a", v[i], 2);
    }
    assert_int_equal(test_solo_commit(&t, ops, 1000), 0);
    assert_true(get(&t, "a") == 999);
    set_epoch(&t, 1);
    assert_true(get(&t, "a") == -1);
    set_epoch(&t, 2);
    test_solo_settle(&t);
    assert_true(get(&t, "a") == 999);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void a_version_that_was_swept_away_is_stale_to_its_epoch_and_not_absent(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(100);
    test_solo_open(&t, &g);
    put(&t, "a", 1);
    put(&t, "b", 2);
    put(&t, "a", 3);
    assert_int_equal(test_solo_delete(&t, "b"), 0);
    test_solo_settle(&t);
    assert_int_equal(test_solo_header(&t)->unlinked, 4);
    set_epoch(&t, 2); /* a reader that slept; it would take a new epoch, which this test withholds */
    assert_int_equal(test_solo_get(&t, "a", NULL), KITHI_E_STALE);
    assert_int_equal(test_solo_get(&t, "b", NULL), KITHI_E_STALE);
    set_epoch(&t, 4);
    assert_true(get(&t, "a") == 3);
    assert_int_equal(test_solo_get(&t, "b", NULL), KITHI_E_NOT_FOUND);
    test_solo_close(&t);
}

static void ids_of_every_length_are_found_and_others_like_them_are_not(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(1000);
    char id[KITHI_ID_MAX + 1];
    test_solo_open(&t, &g);
    for (size_t len = 1; len <= KITHI_ID_MAX; len++) {
        memset(id, 'q', len);
        id[len] = '\0';
        put(&t, id, (float)len);
    }
    for (size_t len = 1; len <= KITHI_ID_MAX; len++) {
        memset(id, 'q', len);
        id[len] = '\0';
        assert_true(get(&t, id) == (float)len);
        id[len - 1] = 'p';
        assert_int_equal(test_solo_get(&t, id, NULL), KITHI_E_NOT_FOUND);
    }
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void all_ids_are_found_after_each_growth_of_the_table(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(5000);
    char id[16];
    unsigned written = 0, areas = 0;
    uint64_t word = 0;
    test_solo_open(&t, &g);
    while (written < 4000) {
        for (unsigned i = 0; i < 100; i++, written++) {
            snprintf(id, sizeof id, "id-%u", written);
            put(&t, id, (float)written);
        }
        uint64_t now = test_solo_header(&t)->id_table;
        if (now == word)
            continue;
        word = now;
        areas |= 1u << kithi_ids_area(now);
        for (unsigned i = 0; i < written; i++) {
            snprintf(id, sizeof id, "id-%u", i);
            assert_true(get(&t, id) == (float)i);
        }
    }
    assert_int_equal(areas, 3);
    assert_true(kithi_ids_rebuilds(word) >= 3);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void an_id_behind_a_tombstone_is_found(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(1000);
    char id[16];
    test_solo_open(&t, &g);
    for (unsigned i = 0; i < 300; i++) { /* 60 % of the smallest table: runs are long */
        snprintf(id, sizeof id, "id-%u", i);
        put(&t, id, (float)i);
    }
    uint64_t word = test_solo_header(&t)->id_table;
    for (unsigned i = 0; i < 300; i += 2) {
        snprintf(id, sizeof id, "id-%u", i);
        assert_int_equal(test_solo_delete(&t, id), 0);
    }
    test_solo_settle(&t);
    assert_int_equal(test_solo_header(&t)->id_table, word);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(id, sizeof id, "id-%u", i);
        assert_true(get(&t, id) == (i % 2 ? (float)i : (float)KITHI_E_NOT_FOUND));
    }
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* An entry with the tag of another id, in front of the right one: the record decides. */
static void an_entry_that_collides_is_told_from_the_right_one_by_its_record(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(100);
    test_solo_open(&t, &g);
    put(&t, "a", 1);
    put(&t, "b", 2);
    const struct kithi_map *m = test_solo_map(&t);
    uint64_t word = test_solo_header(&t)->id_table, hash = kithi_hash(m->hash_key, "b", 1);
    _Atomic uint64_t *table =
        (_Atomic uint64_t *)(void *)(m->base + m->layout.off[KITHI_REGION_IDS0 + kithi_ids_area(word)]);
    uint64_t at = kithi_ids_home(hash, kithi_ids_log2(word));
    assert_int_equal(table[at], kithi_ids_entry(hash, 2));
    uint64_t mask = (UINT64_C(1) << kithi_ids_log2(word)) - 1;
    assert_int_equal(table[(at + 1) & mask], 0);
    assert_int_equal(table[(at + 2) & mask], 0);
    table[(at + 2) & mask] = table[at];
    table[at] = kithi_ids_entry(hash, 1);                  /* the tag of b, the slot of a */
    table[(at + 1) & mask] = kithi_ids_entry(hash, 90001); /* beyond any slot */
    assert_true(get(&t, "b") == 2);
    assert_true(get(&t, "a") == 1);
    test_solo_close(&t);
}

static void a_table_word_that_makes_no_sense_ends_the_look_up(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = plain(100);
    test_rand_init(&r);
    test_solo_open(&t, &g);
    put(&t, "a", 1);
    struct kithi_header *h = test_solo_header(&t);
    for (unsigned i = 0; i < 2000; i++) {
        h->id_table = test_rand_u64(&r) >> test_rand_below(&r, 64);
        int rc = test_solo_get(&t, "a", NULL);
        assert_true(rc == 0 || rc == KITHI_E_NOT_FOUND || rc == KITHI_E_STALE);
    }
    /* A full table without an empty place, and every entry leads to a slot with another id. */
    h->id_table = kithi_ids_word(0, KITHI_IDS_CAPACITY_MIN_LOG2, 0);
    const struct kithi_map *m = test_solo_map(&t);
    _Atomic uint64_t *table = (_Atomic uint64_t *)(void *)(m->base + m->layout.off[KITHI_REGION_IDS0]);
    for (unsigned i = 0; i < KITHI_IDS_CAPACITY_MIN; i++)
        table[i] = kithi_ids_entry(kithi_hash(m->hash_key, "b", 1), 1);
    assert_int_equal(test_solo_get(&t, "b", NULL), KITHI_E_NOT_FOUND);
    test_solo_close(&t);
}

static void versions_that_lead_in_a_circle_end_the_look_up(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(100);
    test_solo_open(&t, &g);
    put(&t, "a", 1);
    put(&t, "a", 2);
    struct kithi_view v;
    kithi_view_begin(test_solo_map(&t), &v);
    kithi_view_record(&v, 0)->prev = 2;
    kithi_view_record(&v, 0)->birth = 9;
    kithi_view_record(&v, 1)->birth = 9;
    assert_int_equal(test_solo_get(&t, "a", NULL), KITHI_E_STALE);
    kithi_view_record(&v, 1)->prev = UINT32_MAX;
    assert_int_equal(test_solo_get(&t, "a", NULL), KITHI_E_NOT_FOUND);
    test_solo_close(&t);
}

static void a_vector_comes_back_as_it_was_given(void **state)
{
    (void)state;
    for (uint32_t metric = KITHI_METRIC_L2; metric <= KITHI_METRIC_IP; metric++) {
        static const float given[][2] = {
            { 3, 4 }, { -1e-3f, 0 }, { 1e-20f, 1e-20f }, { 1e18f, -2e18f }, { 1e-38f, 0 }
        };
        struct test_solo t;
        struct kithi_geometry g = test_geometry(2, metric, 100);
        test_solo_open(&t, &g);
        for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
            float got[2];
            assert_int_equal(test_solo_put(&t, "a", given[i]), 0);
            assert_int_equal(test_solo_get(&t, "a", got), 0);
            for (unsigned j = 0; j < 2; j++) {
                float slack = metric == KITHI_METRIC_COSINE ? 1e-6f * fabsf(given[i][j]) : 0;
                assert_true(fabsf(got[j] - given[i][j]) <= slack);
            }
        }
        test_solo_close(&t);
    }
}

static void a_moved_segment_says_so(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(100);
    test_solo_open(&t, &g);
    put(&t, "a", 1);
    kithi_index_mark_moved(t.ix);
    assert_int_equal(test_solo_get(&t, "a", NULL), KITHI_E_MOVED);
    assert_int_equal(test_solo_get(&t, "b", NULL), KITHI_E_MOVED);
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_that_was_never_written_is_not_found),
        cmocka_unit_test(each_epoch_sees_its_own_version),
        cmocka_unit_test(a_group_that_writes_an_id_a_thousand_times_hides_nothing_from_the_epoch_before),
        cmocka_unit_test(a_version_that_was_swept_away_is_stale_to_its_epoch_and_not_absent),
        cmocka_unit_test(ids_of_every_length_are_found_and_others_like_them_are_not),
        cmocka_unit_test(all_ids_are_found_after_each_growth_of_the_table),
        cmocka_unit_test(an_id_behind_a_tombstone_is_found),
        cmocka_unit_test(an_entry_that_collides_is_told_from_the_right_one_by_its_record),
        cmocka_unit_test(a_table_word_that_makes_no_sense_ends_the_look_up),
        cmocka_unit_test(versions_that_lead_in_a_circle_end_the_look_up),
        cmocka_unit_test(a_vector_comes_back_as_it_was_given),
        cmocka_unit_test(a_moved_segment_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
