/*
 * test_out.c - numbers, sizes and JSON as they are printed; latencies as they are kept.
 */
#include "tools/out.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/latency.h"

static void counts_and_bytes_are_readable(void **state)
{
    (void)state;
    char text[KITHI_OUT_TEXT_SIZE];
    assert_string_equal(kithi_out_count(text, 0), "0");
    assert_string_equal(kithi_out_count(text, 999), "999");
    assert_string_equal(kithi_out_count(text, 63666), "63,666");
    assert_string_equal(kithi_out_count(text, 1000000), "1,000,000");
    assert_string_equal(kithi_out_count(text, UINT64_MAX), "18,446,744,073,709,551,615");
    assert_string_equal(kithi_out_bytes(text, 1023), "1023 B");
    assert_string_equal(kithi_out_bytes(text, 1536), "1.5 KiB");
    assert_string_equal(kithi_out_bytes(text, UINT64_MAX), "16.0 EiB");
}

static void quoted_text_and_floats_are_json(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    const float v[] = { 0.1f, -1.5f, 16777216 };
    assert_non_null(f);
    kithi_out_quote(f, "a\"b\\c\nd\x01");
    kithi_out_vector(f, v, 3);
    char *long_text = malloc(3000);
    assert_non_null(long_text);
    memset(long_text, '\x02', 2999);
    long_text[2999] = '\0';
    kithi_out_quote(f, long_text);
    fclose(f);
    const char *begin = "\"a\\\"b\\\\c\\nd\\u0001\"[0.1,-1.5,16777216]\"\\u0002";
    assert_memory_equal(text, begin, strlen(begin));
    assert_int_equal(len, strlen("\"a\\\"b\\\\c\\nd\\u0001\"[0.1,-1.5,16777216]") + 2 + 2999 * 6);
    free(long_text);
    free(text);
}

static void text_for_people_steers_no_terminal(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    kithi_out_plain(f, "a\x1b[2J\n\x7f\xc2\x9b \xc3\xa4\xc2\xa0\xc2");
    fclose(f);
    assert_string_equal(text, "a\\u001b[2J\\u000a\\u007f\\u009b \xc3\xa4\xc2\xa0\xc2");
    free(text);
}

static void percentiles_are_right_to_one_percent(void **state)
{
    (void)state;
    struct kithi_latency *l = calloc(1, sizeof *l), *other = calloc(1, sizeof *other);
    assert_non_null(l);
    assert_non_null(other);
    assert_true(kithi_latency_us(l, 0.5) == 0);
    for (uint64_t us = 1; us <= 1000; us++)
        kithi_latency_add(us % 2 == 0 ? l : other, us * 1000);
    kithi_latency_merge(l, other);
    assert_int_equal(l->count, 1000);
    static const double PARTS[] = { 0.01, 0.5, 0.99, 0.999, 1 };
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++) {
        double got = kithi_latency_us(l, PARTS[i]), want = PARTS[i] * 1000;
        if (got < want * 0.99 || got > want * 1.01)
            fail_msg("percentile %g is %g, not about %g", PARTS[i], got, want);
    }
    kithi_latency_add(l, 0);
    kithi_latency_add(l, UINT64_MAX); /* the ends of the range have buckets, too */
    assert_int_equal(l->count, 1002);
    free(l);
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_and_bytes_are_readable),
        cmocka_unit_test(quoted_text_and_floats_are_json),
        cmocka_unit_test(text_for_people_steers_no_terminal),
        cmocka_unit_test(percentiles_are_right_to_one_percent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
