/*
 * test_select.c - chosen neighbours are near, and not all in one direction.
 */
#include "server/index/index_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <stdio.h>

#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM 3u

static struct test_solo solo;
static struct kithi_view view;

/* Slots 0..n-1 hold these vectors. */
static void begin(const float (*v)[DIM], uint32_t n)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 1000);
    char id[16];
    test_solo_open(&solo, &g);
    for (uint32_t i = 0; i < n; i++) {
        snprintf(id, sizeof id, "%u", i);
        assert_int_equal(test_solo_put(&solo, id, v[i]), 0);
    }
    kithi_view_begin(test_solo_map(&solo), &view);
}

static float squared(const float *a, const float *b)
{
    float sum = 0;
    for (unsigned i = 0; i < DIM; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

static void candidates_are_sorted_by_distance_then_slot(void **state)
{
    (void)state;
    struct candidate c[5] = { { 2, 9 }, { 1, 7 }, { 2, 3 }, { 0, 5 }, { 1, 8 } };
    static const uint32_t order[5] = { 5, 7, 8, 3, 9 };
    kithi_candidates_sort(c, 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(c[i].slot, order[i]);
    kithi_candidates_sort(c, 0);
}

static void of_two_in_one_direction_the_nearer_is_kept_and_another_direction_is_kept_too(void **state)
{
    (void)state;
    static const float v[][DIM] = { { 1, 0, 0 }, { 2, 0, 0 }, { 0, 2.5f, 0 }, { -3, 0, 0 } };
    struct candidate c[4] = { { 1, 0 }, { 4, 1 }, { 6.25f, 2 }, { 9, 3 } }, out[4];
    begin(v, 4);
    uint32_t n = kithi_select(&view, kithi_kernel_pick(), c, 4, 4, out);
    assert_int_equal(n, 3);
    assert_int_equal(out[0].slot, 0);
    assert_int_equal(out[1].slot, 2);
    assert_int_equal(out[2].slot, 3);
    assert_int_equal(kithi_select(&view, kithi_kernel_pick(), c, 4, 2, out), 2);
    assert_int_equal(kithi_select(&view, kithi_kernel_pick(), c, 1, 2, out), 1);
    assert_int_equal(kithi_select(&view, kithi_kernel_pick(), c, 0, 2, out), 0);
    test_solo_close(&solo);
}

static void everybody_left_out_is_nearer_to_somebody_kept_than_to_the_centre(void **state)
{
    (void)state;
    enum { N = 200 };
    static float v[N][DIM];
    static struct candidate c[N], out[N];
    static const float centre[DIM] = { 0 };
    struct test_rand r;
    test_rand_init(&r);
    test_rand_floats(&r, v[0], (size_t)N * DIM);
    begin((const float(*)[DIM])v, N);
    for (uint32_t i = 0; i < N; i++)
        c[i] = (struct candidate){ squared(centre, v[i]), i };
    kithi_candidates_sort(c, N);
    uint32_t n = kithi_select(&view, kithi_kernel_pick(), c, N, N, out);
    assert_in_range(n, 2, N / 2);
    for (uint32_t i = 0, at = 0; i < N; i++) {
        bool kept = at < n && out[at].slot == c[i].slot, covered = false;
        for (uint32_t j = 0; j < at; j++)
            covered |= squared(v[c[i].slot], v[out[j].slot]) < c[i].distance * 1.0001f;
        at += kept;
        assert_true(kept || covered); /* and those kept are not, but for rounding */
        for (uint32_t j = 0; kept && j + 1 < at; j++)
            assert_true(squared(v[c[i].slot], v[out[j].slot]) > c[i].distance * 0.9999f);
    }
    test_solo_close(&solo);
}

static void equals_leave_half_of_a_row_to_others(void **state)
{
    (void)state;
    static const float v[][DIM] = { { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 },
                                    { 0, 0, 0 }, { 5, 0, 0 }, { 0, -6, 0 } };
    struct candidate c[6] = { { 0, 0 }, { 0, 1 }, { 0, 2 }, { 0, 3 }, { 25, 4 }, { 36, 5 } }, out[6];
    begin(v, 6);
    assert_int_equal(kithi_select(&view, kithi_kernel_pick(), c, 6, 4, out), 4);
    assert_int_equal(out[1].slot, 1);
    assert_int_equal(out[2].slot, 4);
    assert_int_equal(out[3].slot, 5);
    assert_int_equal(kithi_select(&view, kithi_kernel_pick(), c, 4, 4, out), 2);
    assert_int_equal(kithi_select(&view, kithi_kernel_pick(), c, 6, 1, out), 1);
    test_solo_close(&solo);
}

static void equals_stand_in_another_order_for_each_centre(void **state)
{
    (void)state;
    enum { N = 64, CENTRES = 50 };
    uint32_t first[N] = { 0 };
    for (uint32_t centre = 0; centre < CENTRES; centre++) {
        struct candidate c[N], again[N];
        bool seen[N] = { false };
        for (uint32_t i = 0; i < N; i++)
            c[i] = (struct candidate){ i == 0 ? 1 : i < N - 2 ? 2 : 3, i };
        kithi_candidates_mix(c, N, centre);
        memcpy(again, c, sizeof c);
        kithi_candidates_mix(again, N, centre);
        assert_memory_equal(again, c, sizeof c);
        for (uint32_t i = 0; i < N; i++) {
            assert_false(seen[c[i].slot]);
            seen[c[i].slot] = true;
            assert_true(i == 0 || c[i - 1].distance <= c[i].distance);
        }
        assert_int_equal(c[0].slot, 0);
        first[c[1].slot]++;
    }
    for (uint32_t i = 0; i < N; i++)
        assert_in_range(first[i], 0, CENTRES / 5);
    kithi_candidates_mix(NULL, 0, 0);
}

static void rows_are_filled_with_the_nearest_that_were_left_out(void **state)
{
    (void)state;
    static const struct candidate c[5] = { { 1, 10 }, { 2, 11 }, { 3, 12 }, { 4, 13 }, { 5, 14 } };
    struct candidate chosen[5] = { { 1, 10 }, { 4, 13 } };
    static const uint32_t order[5] = { 10, 13, 11, 12, 14 };
    assert_int_equal(kithi_select_more(c, 5, chosen, 2, 1), 2); /* those of the heuristic stay */
    assert_int_equal(kithi_select_more(c, 5, chosen, 2, 4), 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(chosen[i].slot, order[i]);
    assert_int_equal(kithi_select_more(c, 5, chosen, 2, 99), 5);
    assert_int_equal(chosen[4].slot, order[4]);
    assert_int_equal(kithi_select_more(c, 0, chosen, 0, 99), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(candidates_are_sorted_by_distance_then_slot),
        cmocka_unit_test(of_two_in_one_direction_the_nearer_is_kept_and_another_direction_is_kept_too),
        cmocka_unit_test(equals_leave_half_of_a_row_to_others),
        cmocka_unit_test(equals_stand_in_another_order_for_each_centre),
        cmocka_unit_test(rows_are_filled_with_the_nearest_that_were_left_out),
        cmocka_unit_test(everybody_left_out_is_nearer_to_somebody_kept_than_to_the_centre),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
