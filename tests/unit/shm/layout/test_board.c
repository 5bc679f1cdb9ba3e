/*
 * test_board.c - bytes and buckets of a reader's board.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shm/layout/board.h"
#include "tests/support/rand.h"

static void buckets_follow_each_other_without_a_gap(void **state)
{
    (void)state;
    for (uint32_t i = 0; i + 1 < KITHI_BOARD_BUCKETS; i++) {
        uint64_t from = kithi_board_bucket_ns(i), to = kithi_board_bucket_ns(i + 1);
        assert_true(to > from);
        assert_int_equal(kithi_board_bucket(from), i);
        assert_int_equal(kithi_board_bucket(to - 1), i);
        assert_int_equal(kithi_board_bucket(to), i + 1);
    }
}

static void a_bucket_is_a_sixteenth_of_its_value_wide_at_most(void **state)
{
    (void)state;
    for (uint32_t i = 16; i < KITHI_BOARD_BUCKETS; i++) {
        uint64_t from = kithi_board_bucket_ns(i);
        assert_true((kithi_board_bucket_ns(i + 1) - from) * 16 <= from);
    }
    assert_int_equal(kithi_board_bucket_ns(1), 8);
}

static void every_duration_has_a_bucket(void **state)
{
    (void)state;
    struct test_rand r;
    test_rand_init(&r);
    assert_int_equal(kithi_board_bucket(0), 0);
    assert_int_equal(kithi_board_bucket(UINT64_MAX), KITHI_BOARD_BUCKETS - 1);
    assert_true(kithi_board_bucket_ns(KITHI_BOARD_BUCKETS - 1) > UINT64_C(30000000000));
    for (uint32_t i = 0; i < 100000; i++) {
        uint64_t ns = test_rand_u64(&r) >> test_rand_below(&r, 64);
        uint32_t b = kithi_board_bucket(ns);
        assert_true(b < KITHI_BOARD_BUCKETS);
        assert_true(kithi_board_bucket_ns(b) <= ns);
        assert_true(b == KITHI_BOARD_BUCKETS - 1 || ns < kithi_board_bucket_ns(b + 1));
    }
}

static void names_are_three_digits(void **state)
{
    (void)state;
    char name[KITHI_BOARD_NAME];
    kithi_board_name(0, name);
    assert_string_equal(name, "000");
    kithi_board_name(47, name);
    assert_string_equal(name, "047");
    kithi_board_name(KITHI_BOARD_SLOTS - 1, name);
    assert_string_equal(name, "511");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_follow_each_other_without_a_gap),
        cmocka_unit_test(a_bucket_is_a_sixteenth_of_its_value_wide_at_most),
        cmocka_unit_test(every_duration_has_a_bucket),
        cmocka_unit_test(names_are_three_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
