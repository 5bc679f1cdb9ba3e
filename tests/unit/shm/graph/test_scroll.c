/*
 * test_scroll.c - pages of ids: each that stays comes once, in one order, whatever happens to the table meanwhile.
 */
#include "shm/graph/scroll.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/index/index_priv.h"
#include "shm/base/error.h"
#include "shm/base/hash.h"
#include "shm/base/id.h"
#include "tests/support/codes.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM 2u

struct seen {
    char ids[5000][48];
    uint32_t count, pages, empty_pages;
    struct kithi_place last;
};

static struct kithi_scroll_scratch scratch;
static struct kithi_results page;

static struct kithi_geometry plain(uint32_t slot_max)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, slot_max);
    g.ef_construction = 8; /* links are not the subject */
    g.m = 4;
    return g;
}

static void put(struct test_solo *t, const char *id, float x)
{
    float v[DIM] = { x, 1 };
    assert_int_equal(test_solo_put(t, id, v), 0);
}

static void put_number(struct test_solo *t, uint32_t i)
{
    char id[16];
    snprintf(id, sizeof id, "id-%u", i);
    put(t, id, (float)i);
}

/* The next page from *p on, appended to seen; returns whether there is more. Checks the order on the way. */
static bool next_page(const struct test_solo *t, struct kithi_scroll_params *p, struct seen *seen)
{
    const struct kithi_map *m = test_solo_map(t);
    int rc = kithi_scroll(m, p, &scratch, &page);
    assert_true(rc >= 0 && rc <= (int)p->limit);
    for (int i = 0; i < rc; i++) {
        const char *id = page.ids + page.hits[i].id_off;
        struct kithi_place place = kithi_scroll_place(m->hash_key, id, page.hits[i].id_len);
        assert_int_equal(strlen(id), page.hits[i].id_len);
        assert_true(place.hash > seen->last.hash || seen->count == 0);
        assert_true(place.hash >= p->from.hash);
        assert_true(isnan(page.hits[i].distance));
        seen->last = place;
        snprintf(seen->ids[seen->count++], sizeof seen->ids[0], "%.47s", id);
    }
    seen->pages++;
    seen->empty_pages += rc == 0;
    p->from = scratch.next;
    return scratch.more;
}

static void scroll(const struct test_solo *t, uint32_t limit, struct seen *seen)
{
    struct kithi_scroll_params p = { .limit = limit };
    memset(seen, 0, sizeof *seen);
    while (next_page(t, &p, seen))
        continue;
}

static uint32_t times(const struct seen *s, const char *id)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->count; i++)
        n += strcmp(s->ids[i], id) == 0;
    return n;
}

static bool same(const struct seen *a, const struct seen *b)
{
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (strcmp(a->ids[i], b->ids[i]) != 0)
            return false;
    return true;
}

static struct seen one, other;

static void an_empty_collection_is_one_empty_page(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(100);
    test_solo_open(&t, &g);
    scroll(&t, 10, &one);
    assert_int_equal(one.count, 0);
    assert_int_equal(one.pages, 1);
    put(&t, "a", 1);
    assert_int_equal(test_solo_delete(&t, "a"), 0);
    scroll(&t, 10, &one);
    assert_int_equal(one.count, 0);
    test_solo_settle(&t);
    scroll(&t, 10, &one);
    assert_int_equal(one.count, 0);
    test_solo_close(&t);
}

static void pages_of_every_size_give_each_id_once_in_the_same_order(void **state)
{
    (void)state;
    static const uint32_t limits[] = { 1, 2, 7, 64, 299, 300, 301, KITHI_SCROLL_MAX };
    struct test_solo t;
    struct kithi_geometry g = plain(1000);
    test_solo_open(&t, &g);
    for (uint32_t i = 0; i < 300; i++)
        put_number(&t, i);
    scroll(&t, 1000, &one);
    assert_int_equal(one.count, 300);
    assert_int_equal(one.pages, 1);
    for (uint32_t i = 0; i < 300; i++) {
        char id[16];
        snprintf(id, sizeof id, "id-%u", i);
        assert_int_equal(times(&one, id), 1);
    }
    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
        scroll(&t, limits[i], &other);
        assert_true(same(&one, &other));
        assert_true(other.pages <= 300 / limits[i] + 2);
    }
    test_solo_close(&t);
}

static void vectors_and_ids_of_every_length_come_as_they_were_given(void **state)
{
    (void)state;
    for (uint32_t metric = KITHI_METRIC_L2; metric <= KITHI_METRIC_COSINE; metric++) {
        struct test_solo t;
        struct kithi_geometry g = plain(1000);
        char id[KITHI_ID_MAX + 1];
        float vectors[16 * DIM];
        uint8_t seen[KITHI_ID_MAX + 1] = { 0 };
        g.metric = metric;
        test_solo_open(&t, &g);
        for (uint32_t len = 1; len <= KITHI_ID_MAX; len++) {
            memset(id, 'x', len);
            id[len] = '\0';
            put(&t, id, (float)len);
        }
        struct kithi_scroll_params p = { .limit = 16, .vectors = vectors };
        do {
            int rc = kithi_scroll(test_solo_map(&t), &p, &scratch, &page);
            assert_true(rc >= 0);
            for (int i = 0; i < rc; i++) {
                uint32_t len = page.hits[i].id_len;
                float want[DIM] = { (float)len, 1 };
                test_codes_decoded(test_codes_kept(), metric == KITHI_METRIC_COSINE, want, DIM);
                seen[len]++;
                for (uint32_t j = 0; j < DIM; j++)
                    assert_true(fabsf(vectors[(uint32_t)i * DIM + j] - want[j]) <= 1e-4f * (float)len);
            }
            p.from = scratch.next;
        } while (scratch.more);
        for (uint32_t len = 1; len <= KITHI_ID_MAX; len++)
            assert_int_equal(seen[len], 1);
        test_solo_close(&t);
    }
}

static void the_order_is_that_of_the_ids_and_not_of_the_table(void **state)
{
    (void)state;
    struct test_solo small, large;
    struct kithi_geometry a = plain(400), b = plain(4000);
    test_solo_open(&small, &a);
    test_solo_open(&large, &b);
    for (uint32_t i = 0; i < 250; i++)
        put_number(&small, i);
    /* The other way round, with many more that go again, in a table of another size. */
    for (uint32_t i = 3000; i-- > 0;)
        put_number(&large, i);
    for (uint32_t i = 250; i < 3000; i++) {
        char id[16];
        snprintf(id, sizeof id, "id-%u", i);
        assert_int_equal(test_solo_delete(&large, id), 0);
    }
    scroll(&small, 10, &one);
    scroll(&large, 10, &other);
    assert_int_equal(one.count, 250);
    assert_true(same(&one, &other));
    test_solo_settle(&large);
    scroll(&large, 10, &other);
    assert_true(same(&one, &other));
    /* A cursor of the one goes on in the other. */
    struct kithi_scroll_params p = { .limit = 100 };
    memset(&other, 0, sizeof other);
    assert_true(next_page(&small, &p, &other));
    assert_true(next_page(&large, &p, &other));
    while (next_page(&small, &p, &other))
        continue;
    assert_true(same(&one, &other));
    test_solo_close(&small);
    test_solo_close(&large);
}

/* Ids whose home is one of the last places go on at the first ones, and are the last all the same. */
static void ids_beyond_the_end_of_the_table_come_last(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(400);
    test_solo_open(&t, &g);
    put(&t, "first", 0);
    const struct kithi_map *m = test_solo_map(&t);
    unsigned log2 = kithi_ids_log2(test_solo_header(&t)->id_table);
    uint64_t mask = (UINT64_C(1) << log2) - 1;
    uint32_t ends = 0, begins = 0;
    for (uint32_t i = 0; ends < 12 || begins < 12; i++) {
        char id[16];
        snprintf(id, sizeof id, "id-%u", i);
        uint64_t home = kithi_ids_home(kithi_hash(m->hash_key, id, strlen(id)), log2);
        bool is_end = home + 3 > mask && ends < 12, is_begin = home < 4 && begins < 12;
        if (!is_end && !is_begin)
            continue;
        put_number(&t, i);
        ends += is_end;
        begins += is_begin;
    }
    assert_int_equal(kithi_ids_log2(test_solo_header(&t)->id_table), log2);
    for (uint32_t limit = 1; limit < 30; limit++) {
        scroll(&t, limit, &one); /* which checks the order */
        assert_int_equal(one.count, 25);
    }
    test_solo_close(&t);
}

static void what_stays_comes_once_while_everything_else_changes(void **state)
{
    (void)state;
    struct test_rand r;
    struct test_solo t;
    struct kithi_geometry g = plain(4000);
    unsigned rebuilt = 0;
    test_rand_init(&r);
    for (unsigned round = 0; round < 20; round++) {
        uint32_t rebuilds, limit = 1 + test_rand_below(&r, 40), next = 1000;
        test_solo_open(&t, &g);
        for (uint32_t i = 0; i < 200; i++) /* of them every second stays */
            put_number(&t, i);
        rebuilds = (uint32_t)kithi_ids_rebuilds(test_solo_header(&t)->id_table);
        struct kithi_scroll_params p = { .limit = limit };
        memset(&one, 0, sizeof one);
        while (next_page(&t, &p, &one)) {
            for (uint32_t n = test_rand_below(&r, 2 * limit); n > 0; n--) {
                char id[16];
                uint32_t i = test_rand_below(&r, 200);
                snprintf(id, sizeof id, "id-%u", i);
                if (i % 2 == 0)
                    put_number(&t, i); /* another version: it is there all the time */
                else if (test_rand_below(&r, 2))
                    put_number(&t, i);
                else
                    assert_int_equal(test_solo_delete(&t, id), 0);
                put_number(&t, next++); /* the table grows */
            }
            if (test_rand_below(&r, 3) == 0)
                test_solo_settle(&t);
        }
        for (uint32_t i = 0; i < 200; i++) {
            char id[16];
            snprintf(id, sizeof id, "id-%u", i);
            uint32_t n = times(&one, id);
            assert_true(i % 2 == 0 ? n == 1 : n <= 1);
        }
        rebuilt += kithi_ids_rebuilds(test_solo_header(&t)->id_table) > rebuilds;
        test_solo_close(&t);
    }
    assert_true(rebuilt > 0); /* which of them do is up to chance */
}

static void pages_at_a_moment_show_that_until_it_is_stale(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(2000);
    test_solo_open(&t, &g);
    for (uint32_t i = 0; i < 100; i++)
        put_number(&t, i);
    scroll(&t, 7, &one);
    struct kithi_scroll_params p = { .limit = 7,
                                     .at = { kithi_index_epoch(t.ix), test_solo_header(&t)->timeline } };
    struct kithi_scroll_params begin = p;
    memset(&other, 0, sizeof other);
    for (uint32_t i = 0; next_page(&t, &p, &other); i++) {
        assert_int_equal(page.stats.epoch, p.at.epoch);
        char id[16];
        snprintf(id, sizeof id, "id-%u", i);
        if (i % 2)
            assert_int_equal(test_solo_delete(&t, id), 0);
        for (uint32_t n = 0; n < 100; n++) /* more versions than a look-up of now goes back */
            put_number(&t, i + 1 - i % 2);
        put_number(&t, 1000 + i);
    }
    assert_true(same(&one, &other));
    test_solo_settle(&t);
    assert_int_equal(kithi_scroll(test_solo_map(&t), &begin, &scratch, &page), KITHI_E_STALE);
    assert_int_equal(page.count, 0);
    begin.at.epoch = kithi_index_epoch(t.ix) + 1;
    assert_int_equal(kithi_scroll(test_solo_map(&t), &begin, &scratch, &page), KITHI_E_EPOCH);
    test_solo_close(&t);
}

static void a_page_looks_at_so_many_places_and_no_more(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_geometry g = plain(1u << 20);
    test_solo_open(&t, &g);
    for (uint32_t i = 0; i < 5; i++)
        put_number(&t, i);
    /* A table as after half a million ids, which have gone again. */
    assert_int_equal(kithi_ids_reserve(t.ix, 700000, 0, &err), 0);
    assert_int_equal(kithi_ids_log2(test_solo_header(&t)->id_table), 21);
    scroll(&t, 10, &one);
    assert_int_equal(one.count, 5);
    assert_true(one.pages >= 8);
    assert_true(one.pages <= 10);
    assert_true(one.empty_pages > 0);
    test_solo_close(&t);
}

static void a_full_table_and_one_that_makes_no_sense_end(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = plain(100);
    test_rand_init(&r);
    test_solo_open(&t, &g);
    put(&t, "a", 1);
    put(&t, "b", 2);
    struct kithi_header *h = test_solo_header(&t);
    uint64_t word = h->id_table;
    for (unsigned i = 0; i < 2000; i++) {
        h->id_table = test_rand_u64(&r) >> test_rand_below(&r, 64);
        struct kithi_scroll_params p = { .limit = 3 };
        int rc = kithi_scroll(test_solo_map(&t), &p, &scratch, &page);
        assert_true(rc == KITHI_E_STALE || (rc >= 0 && rc <= 3));
    }
    h->id_table = word;
    const struct kithi_map *m = test_solo_map(&t);
    _Atomic uint64_t *table =
        (_Atomic uint64_t *)(void *)(m->base + m->layout.off[KITHI_REGION_IDS0 + kithi_ids_area(word)]);
    /* No empty place, and every entry leads to the same id: it comes where it belongs, or not at all. */
    for (unsigned i = 0; i < KITHI_IDS_CAPACITY_MIN; i++)
        table[i] = kithi_ids_entry(kithi_hash(m->hash_key, "b", 1), 2);
    struct kithi_scroll_params p = { .limit = 3 };
    uint32_t pages = 0;
    do {
        int rc = kithi_scroll(m, &p, &scratch, &page);
        assert_true(rc >= 0 && rc <= 3);
        assert_true(!scratch.more || scratch.next.hash > p.from.hash || scratch.next.tie > p.from.tie);
        assert_true(++pages < 1000);
        p.from = scratch.next;
    } while (scratch.more);
    /* Versions in a circle. */
    struct kithi_view v;
    kithi_view_begin(m, &v);
    kithi_view_record(&v, 1)->prev = 2;
    kithi_view_record(&v, 1)->birth = 9;
    p = (struct kithi_scroll_params){ .limit = 3 };
    assert_int_equal(kithi_scroll(m, &p, &scratch, &page), KITHI_E_STALE);
    test_solo_close(&t);
}

static void a_moved_segment_says_so(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = plain(100);
    struct kithi_scroll_params p = { .limit = 3 };
    test_solo_open(&t, &g);
    put(&t, "a", 1);
    kithi_index_mark_moved(t.ix);
    assert_int_equal(kithi_scroll(test_solo_map(&t), &p, &scratch, &page), KITHI_E_MOVED);
    assert_int_equal(page.count, 0);
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_collection_is_one_empty_page),
        cmocka_unit_test(pages_of_every_size_give_each_id_once_in_the_same_order),
        cmocka_unit_test(vectors_and_ids_of_every_length_come_as_they_were_given),
        cmocka_unit_test(the_order_is_that_of_the_ids_and_not_of_the_table),
        cmocka_unit_test(ids_beyond_the_end_of_the_table_come_last),
        cmocka_unit_test(what_stays_comes_once_while_everything_else_changes),
        cmocka_unit_test(pages_at_a_moment_show_that_until_it_is_stale),
        cmocka_unit_test(a_page_looks_at_so_many_places_and_no_more),
        cmocka_unit_test(a_full_table_and_one_that_makes_no_sense_end),
        cmocka_unit_test(a_moved_segment_says_so),
    };
    kithi_scroll_init(&scratch);
    kithi_results_init(&page);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    kithi_scroll_fini(&scratch);
    kithi_results_fini(&page);
    return rc;
}
