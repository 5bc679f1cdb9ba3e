/*
 * test_floats.c - vectors out of a body: the same floats as strtof says, and a body that nobody can mistake.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/gateway/floats.h"
#include "tests/support/rand.h"

static struct kithi_floats floats;
static struct kithi_text rest;

static int lift(const char *text, unsigned depth)
{
    kithi_floats_fini(&floats);
    kithi_text_fini(&rest);
    kithi_floats_init(&floats, NULL);
    kithi_text_init(&rest, 1 << 20, NULL);
    return kithi_floats_lift(&floats, text, strlen(text), depth, &rest);
}

static void vectors_are_taken_out_where_they_are_expected(void **state)
{
    (void)state;
    assert_int_equal(lift("{\"vector\" : [1, -2.5e1 ,3] , \"a\":{\"vector\":[9]}}", 1), 0);
    assert_string_equal(rest.at, "{\"vector\" : [0] , \"a\":{\"vector\":[9]}}");
    assert_int_equal(floats.vector_count, 1);
    assert_int_equal(floats.vectors[0].len, 3);
    assert_true(floats.values[1] == -25.0f);
    assert_int_equal(
        lift("{\"p\":[{\"vector\":[]},{\"vector\":[7],\"metadata\":{\"vector\":[1,2]}}],\"vector\":[5]}", 3),
        0);
    assert_string_equal(
        rest.at,
        "{\"p\":[{\"vector\":[0]},{\"vector\":[1],\"metadata\":{\"vector\":[1,2]}}],\"vector\":[5]}");
    assert_int_equal(floats.vectors[0].len, 0);
    assert_int_equal(floats.vectors[1].first, 0);
    assert_int_equal(lift("{\"vector\":\"AAAA\",\"x\":\"\\\"vector\\\":[1]\"}", 1), 0);
    assert_string_equal(rest.at, "{\"vector\":\"AAAA\",\"x\":\"\\\"vector\\\":[1]\"}");
    assert_int_equal(lift("{\"vector\":[\"a\"]}", 1), 0);
    assert_string_equal(rest.at, "{\"vector\":[\"a\"]}");
    assert_int_equal(lift("{\"vector\":[1],\"vector\":[2]}", 1),
                     0); /* the strict reader refuses the second */
}

static void what_is_no_vector_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "[1,]", "[1 2]",     "[01]",    "[1.]",   "[.5]",     "[+1]",
                                       "[1e]", "[1,\"a\"]", "[1,[2]]", "[1e39]", "[-1e400]", "[1",
                                       "[1,",  "[-]",       "[1,nan]", "[1}",    "[1,null]", "[0x1]" };
    char text[64];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "{\"vector\":%s}", bad[i]);
        int rc = lift(text, 1);
        /* What does not even begin as a vector is left to the other reader. */
        assert_true(rc == -EINVAL || (rc == 0 && floats.vector_count == 0));
        assert_true(rc == 0 || (floats.why && floats.at <= strlen(text)));
    }
    assert_int_equal(lift("{\"v\\u0065ctor\":[0]}", 1), -EINVAL);
    assert_int_equal(lift("{\"a\":{\"v\\u0065ctor\":[0]}}", 1), 0);
    char deep[200];
    memset(deep, '[', sizeof deep);
    deep[65] = 0;
    assert_int_equal(lift(deep, 1), -EINVAL);
    deep[64] = 0;
    assert_int_equal(lift(deep, 1), 0);
}

static void numbers_are_rounded_as_strtof_does(void **state)
{
    (void)state;
    struct test_rand rand;
    char text[80], number[48];
    test_rand_init(&rand);
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t bits = test_rand_u64(&rand);
        float v;
        uint32_t word = (uint32_t)bits;
        memcpy(&v, &word, sizeof v);
        switch (i % 4) {
        case 0: snprintf(number, sizeof number, "%.9g", isfinite(v) ? (double)v : 0.5); break;
        case 1: snprintf(number, sizeof number, "%.17g", isfinite(v) ? (double)v * 1.00000003 : 0.5); break;
        case 2:
            snprintf(number, sizeof number, "%" PRIu64 ".%u", bits >> 40, (unsigned)(bits & 0xffffff));
            break;
        default: /* in the middle of two floats, exactly */
            snprintf(number, sizeof number, "%.25g",
                     ldexp((double)((bits & 0xffffff) | 0x800000) + 0.5, (int)(bits >> 59) - 16));
            break;
        }
        float want = strtof(number, NULL);
        if (!isfinite(want)) {
            continue;
        }
        snprintf(text, sizeof text, "{\"vector\":[%s]}", number);
        assert_int_equal(lift(text, 1), 0);
        if (memcmp(&floats.values[0], &want, sizeof want) != 0) {
            fail_msg("%s is %a, not %a", number, (double)want, (double)floats.values[0]);
        }
    }
}

static void base64_and_bytes_are_little_endian_floats(void **state)
{
    (void)state;
    kithi_floats_fini(&floats);
    assert_int_equal(kithi_floats_base64(&floats, "AACAPwAAAMA=", 12), 2);
    assert_true(floats.values[0] == 1.0f && floats.values[1] == -2.0f);
    assert_int_equal(kithi_floats_base64(&floats, "AACAPwAAgD8AAIA/", 16), 3);
    assert_int_equal(floats.vectors[1].first, 2);
    assert_int_equal(kithi_floats_base64(&floats, "", 0), 0);
    static const char *const bad[] = { "AAAA",         "AACAPwA",      "AACAPwAAAMA",     "A===",
                                       "AA=APwAAAMA=", "AACAPwAA-MA=", "AACAPw==AACAPw==" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(kithi_floats_base64(&floats, bad[i], strlen(bad[i])), -EINVAL);
    }
    assert_int_equal(kithi_floats_bytes(&floats, "\0\0\x80\x3f", 4), 1);
    assert_int_equal(kithi_floats_bytes(&floats, "\0\0\x80", 3), -EINVAL);
}

static void a_budget_bounds_them(void **state)
{
    (void)state;
    struct kithi_budget budget = { 0, 4096 };
    struct kithi_floats f;
    static char bytes[8192];
    kithi_floats_init(&f, &budget);
    assert_int_equal(kithi_floats_bytes(&f, bytes, sizeof bytes), -EDQUOT);
    kithi_floats_fini(&f);
    assert_int_equal(kithi_budget_used(&budget), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_taken_out_where_they_are_expected),
        cmocka_unit_test(what_is_no_vector_is_refused),
        cmocka_unit_test(numbers_are_rounded_as_strtof_does),
        cmocka_unit_test(base64_and_bytes_are_little_endian_floats),
        cmocka_unit_test(a_budget_bounds_them),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kithi_floats_fini(&floats);
    kithi_text_fini(&rest);
    return failed;
}
