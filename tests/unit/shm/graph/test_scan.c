/*
 * test_scan.c - a scan shows every vector of its snapshot once, as it was given.
 */
#include "shm/graph/scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/base/error.h"
#include "shm/layout/record.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM 5u
#define N   300u

/* Ids of every length: in the record and in all classes of blobs. */
static const char *name(unsigned i, char out[KITHI_ID_MAX + 1])
{
    size_t len = 4 + (size_t)i * 507 / (N - 1);
    memset(out, 'x', len);
    out[len] = '\0';
    char digits[8];
    snprintf(digits, sizeof digits, "%04u", i);
    memcpy(out, digits, 4);
    return out;
}

static unsigned number(const char *id)
{
    char digits[5] = { id[0], id[1], id[2], id[3], 0 };
    return (unsigned)strtoul(digits, NULL, 10);
}

static void put_all(struct test_solo *t, float v[N][DIM])
{
    char id[KITHI_ID_MAX + 1];
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(test_solo_put(t, name(i, id), v[i]), 0);
}

static void a_scan_of_an_empty_segment_ends_at_once(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, N);
    struct kithi_scan scan;
    struct kithi_item item;
    test_solo_open(&t, &g);
    kithi_scan_begin(test_solo_map(&t), &scan);
    assert_int_equal(kithi_scan_next(&scan, &item, NULL), 0);
    assert_int_equal(kithi_scan_next(&scan, &item, NULL), 0);
    test_solo_close(&t);
}

static void a_scan_shows_each_vector_once_as_it_was_given(void **state)
{
    (void)state;
    for (uint32_t metric = KITHI_METRIC_L2; metric <= KITHI_METRIC_IP; metric++) {
        struct test_solo t;
        struct test_rand r;
        static float v[N][DIM];
        struct kithi_geometry g = test_geometry(DIM, metric, 2 * N);
        struct kithi_scan scan;
        struct kithi_item item;
        float got[DIM];
        bool seen[N] = { false };
        unsigned count = 0;
        int rc;
        test_rand_seed(&r, test_seed());
        test_rand_floats(&r, v[0], (size_t)N * DIM);
        test_solo_open(&t, &g);
        put_all(&t, v);
        kithi_scan_begin(test_solo_map(&t), &scan);
        while ((rc = kithi_scan_next(&scan, &item, got)) == 1) {
            char id[KITHI_ID_MAX + 1];
            unsigned i = number(item.id);
            assert_true(i < N && !seen[i]);
            seen[i] = true;
            assert_string_equal(item.id, name(i, id));
            assert_int_equal(item.id_len, strlen(id));
            assert_int_equal(item.birth, i + 1);
            for (unsigned j = 0; j < DIM; j++)
                assert_true(fabsf(got[j] - v[i][j]) <= (metric == KITHI_METRIC_COSINE ? 1e-6f : 0));
            count++;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(count, N);
        assert_true(test_solo_clean(&t));
        test_solo_close(&t);
    }
}

static unsigned count_all(const struct test_solo *t, int *out_rc)
{
    struct kithi_scan scan;
    struct kithi_item item;
    unsigned n = 0;
    kithi_scan_begin(test_solo_map(t), &scan);
    while ((*out_rc = kithi_scan_next(&scan, &item, NULL)) == 1)
        n++;
    return n;
}

static void a_scan_stays_at_its_epoch_while_groups_are_published(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    static float v[N][DIM];
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 4 * N);
    struct kithi_scan scan;
    struct kithi_item item;
    unsigned n = 0;
    int rc;
    test_rand_seed(&r, test_seed());
    test_rand_floats(&r, v[0], (size_t)N * DIM);
    test_solo_open(&t, &g);
    put_all(&t, v);
    kithi_scan_begin(test_solo_map(&t), &scan);
    for (; n < N / 3; n++)
        assert_int_equal(kithi_scan_next(&scan, &item, NULL), 1);
    put_all(&t, v); /* every id is a new version now, and the old ones are unlinked */
    test_solo_sweep(&t, 1000);
    while ((rc = kithi_scan_next(&scan, &item, NULL)) == 1) {
        assert_true(item.birth <= N);
        n++;
    }
    assert_int_equal(rc, 0);
    assert_int_equal(n, N);
    assert_int_equal(count_all(&t, &rc), N);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void a_scan_that_slots_were_taken_from_is_stale(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    static float v[N][DIM];
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 4 * N);
    struct kithi_scan scan;
    struct kithi_item item;
    int rc;
    test_rand_seed(&r, test_seed());
    test_rand_floats(&r, v[0], (size_t)N * DIM);
    test_solo_open(&t, &g);
    put_all(&t, v);
    kithi_scan_begin(test_solo_map(&t), &scan);
    assert_int_equal(kithi_scan_next(&scan, &item, NULL), 1);
    char id[KITHI_ID_MAX + 1];
    assert_int_equal(test_solo_delete(&t, name(N / 2, id)), 0);
    test_solo_settle(&t);
    unsigned n = 1;
    while ((rc = kithi_scan_next(&scan, &item, NULL)) == 1)
        n++;
    assert_int_equal(rc, KITHI_E_STALE);
    assert_int_equal(n, N - 1);
    assert_int_equal(count_all(&t, &rc), N - 1);
    assert_int_equal(rc, 0);
    kithi_index_mark_moved(t.ix);
    count_all(&t, &rc);
    assert_int_equal(rc, KITHI_E_MOVED);
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scan_of_an_empty_segment_ends_at_once),
        cmocka_unit_test(a_scan_shows_each_vector_once_as_it_was_given),
        cmocka_unit_test(a_scan_stays_at_its_epoch_while_groups_are_published),
        cmocka_unit_test(a_scan_that_slots_were_taken_from_is_stale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
