/*
 * test_pace.c - does the line rise as it says, does what presses push ahead of it, and does it come to its end?
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/writer/pace.h"

#define MS   5000u
#define RATE ((uint64_t)KITHI_PACE_RATE_DEFAULT)

static const struct kithi_pace pace = { .bytes = 4 * RATE,
                                        .rate = RATE,
                                        .began_ms = MS,
                                        .held_first = 1000,
                                        .held_most = 5000,
                                        .log_first = UINT64_C(1) << 40,
                                        .log_room = 1 << 20 };

static uint64_t allows(uint64_t ms, uint64_t held, uint64_t log_bytes)
{
    return kithi_pace_allows(&pace, MS + ms, pace.held_first + held, pace.log_first + log_bytes);
}

static void the_line_rises_with_time_and_ends(void **state)
{
    (void)state;
    assert_int_equal(allows(0, 0, 0), 0);
    assert_int_equal(allows(1, 0, 0), RATE / 1000);
    assert_int_equal(allows(500, 0, 0), RATE / 2);
    assert_int_equal(allows(3000, 0, 0), 3 * RATE);
    assert_int_equal(allows(4000, 0, 0), 4 * RATE);
    assert_int_equal(allows(4001, 0, 0), 4 * RATE);
    assert_int_equal(kithi_pace_allows(&pace, UINT64_MAX, 0, 0), 4 * RATE);
    assert_int_equal(kithi_pace_allows(&pace, MS - 1, 0, 0), 0); /* a clock that went back */
}

static void what_is_waited_for_is_allowed_then(void **state)
{
    (void)state;
    for (uint64_t bytes = 1; bytes <= pace.bytes; bytes += 999983) {
        uint64_t ms = kithi_pace_when(&pace, bytes);
        assert_true(kithi_pace_allows(&pace, ms, 0, 0) >= bytes);
        assert_true(kithi_pace_allows(&pace, ms - 1, 0, 0) < bytes);
    }
    assert_int_equal(kithi_pace_when(&pace, pace.bytes), MS + 4000);
    assert_int_equal(kithi_pace_when(&pace, 0), MS);
    const struct kithi_pace large = { .bytes = UINT64_C(1) << 50, .rate = RATE, .began_ms = MS };
    assert_int_equal(kithi_pace_when(&large, large.bytes), MS + (large.bytes / RATE) * 1000);
    const struct kithi_pace slow = { .bytes = 10, .rate = 1, .began_ms = MS };
    assert_int_equal(kithi_pace_when(&slow, 7), MS + 7000);
    assert_int_equal(kithi_pace_allows(&slow, MS + 7000, 0, 0), 10); /* no room for log */
}

static void slots_that_are_held_push_until_half_of_their_room_is_used(void **state)
{
    (void)state;
    assert_int_equal(allows(0, 1, 0), pace.bytes / 2000);
    assert_int_equal(allows(0, 1000, 0), pace.bytes / 2);
    assert_int_equal(allows(0, 2000, 0), pace.bytes);
    assert_int_equal(allows(0, 100000, 0), pace.bytes);
    /* What was held before counts for nothing, and less than that is none. */
    assert_int_equal(kithi_pace_allows(&pace, MS, 0, pace.log_first), 0);
    /* No room: at once. */
    struct kithi_pace full = pace;
    full.held_first = full.held_most + 1;
    assert_int_equal(kithi_pace_allows(&full, MS, full.held_first, full.log_first), full.bytes);
}

static void log_pushes_until_its_room_is_used(void **state)
{
    (void)state;
    assert_int_equal(allows(0, 0, 1 << 18), pace.bytes / 4);
    assert_int_equal(allows(0, 0, 1 << 20), pace.bytes);
    assert_int_equal(allows(0, 0, UINT64_C(1) << 40), pace.bytes);
}

static void the_one_that_presses_most_counts(void **state)
{
    (void)state;
    assert_int_equal(allows(500, 1000, 1 << 18), pace.bytes / 2);
    assert_int_equal(allows(3000, 1000, 1 << 18), 3 * RATE);
    assert_int_equal(allows(500, 500, 3 << 18), pace.bytes / 4 * 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_line_rises_with_time_and_ends),
        cmocka_unit_test(what_is_waited_for_is_allowed_then),
        cmocka_unit_test(slots_that_are_held_push_until_half_of_their_room_is_used),
        cmocka_unit_test(log_pushes_until_its_room_is_used),
        cmocka_unit_test(the_one_that_presses_most_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
