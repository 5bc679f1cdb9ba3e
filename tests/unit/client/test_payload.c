/*
 * test_payload.c - JSON text to payloads and back: what comes back is what went in, and what is refused is refused with its place.
 *
 * Every text is read from an exact-size copy, so that AddressSanitizer sees a read beyond.
 */
#include "client/src/payload.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/base/decimal.h"
#include "tests/support/rand.h"

static unsigned char bytes[KITHI_PAYLOAD_MAX];

static int from(const char *text, size_t len, struct kithi_errmsg *err)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    int n = kithi_payload_from_json(copy, len, bytes, err);
    free(copy);
    return n;
}

/* text makes a payload that says `want` when it is written. */
static void says(const char *text, const char *want)
{
    struct kithi_errmsg err = { .text = "" };
    int n = from(text, strlen(text), &err);
    if (n < 0)
        fail_msg("%s: %s", text, err.text);
    assert_int_equal(kithi_payload_check(bytes, (size_t)n, NULL), 0);
    struct kithi_payload p = { .bytes = bytes, .len = (uint32_t)n };
    size_t len = kithi_payload_to_json(&p, NULL, 0);
    assert_int_equal(len, strlen(want));
    char *out = malloc(len);
    assert_non_null(out);
    assert_int_equal(kithi_payload_to_json(&p, out, len), len);
    assert_memory_equal(out, want, len);
    free(out);
}

/* text is refused with these words at this byte, counted from 1. */
static void refuses(const char *text, const char *words, size_t at)
{
    struct kithi_errmsg err = { .text = "" };
    char place[32];
    assert_int_equal(from(text, strlen(text), &err), KITHI_E_PAYLOAD);
    snprintf(place, sizeof place, ", at byte %zu", at);
    if (!strstr(err.text, words) || strcmp(err.text + strlen(err.text) - strlen(place), place) != 0)
        fail_msg("%s: %s; expected: %s%s", text, err.text, words, place);
}

static void what_goes_in_comes_back_in_order_of_keys(void **state)
{
    (void)state;
    says("{}", "{}");
    says(" { } ", "{}");
    says("{\"b\": 1, \"a\": true, \"c\": false, \"aa\": null}",
         "{\"a\":true,\"aa\":null,\"b\":1,\"c\":false}");
    says("{\"s\":\"\"}", "{\"s\":\"\"}");
    says("{\"s\":\"\\u00e9\\n\\\"\\\\\\u0000x\"}", "{\"s\":\"\xc3\xa9\\n\\\"\\\\\\u0000x\"}");
    says("{\"lang\":\"AAA\",\"tags\":[\"x\",\"\",\"yz\"],\"n\":[]}",
         "{\"lang\":\"AAA\",\"n\":[],\"tags\":[\"x\",\"\",\"yz\"]}");
    says("{\"a\":{\"b\":{\"c\":[1,2,3]},\"a\":{}}}", "{\"a\":{\"a\":{},\"b\":{\"c\":[1,2,3]}}}");
    says("{\"\\u00e9\":1,\"z\":2}", "{\"z\":2,\"\xc3\xa9\":1}");
}

static void integers_come_back_exactly(void **state)
{
    (void)state;
    says(
        "{\"a\":9223372036854775807,\"b\":-9223372036854775808,\"c\":2147483647,\"d\":2147483648,\"e\":-2147483648,\"f\":-"
        "2147483649,\"g\":9007199254740993}",
        "{\"a\":9223372036854775807,\"b\":-9223372036854775808,\"c\":2147483647,\"d\":2147483648,\"e\":-2147483648,\"f\":-"
        "2147483649,\"g\":9007199254740993}");
    says("{\"a\":-0}", "{\"a\":0}");
    says("{\"a\":[-128,127]}", "{\"a\":[-128,127]}");
    says("{\"a\":[-129,0]}", "{\"a\":[-129,0]}");
    says("{\"a\":[0,32768]}", "{\"a\":[0,32768]}");
    says("{\"a\":[2147483648,-1]}", "{\"a\":[2147483648,-1]}");
}

static void doubles_come_back_with_the_fewest_digits(void **state)
{
    (void)state;
    says("{\"a\":0.1}", "{\"a\":0.1}");
    says("{\"a\":1.0}", "{\"a\":1.0}");
    says("{\"a\":1e3}", "{\"a\":1000.0}");
    says("{\"a\":-0.0}", "{\"a\":-0.0}");
    says("{\"a\":1e15}", "{\"a\":1000000000000000.0}");
    says("{\"a\":1e16}", "{\"a\":1e+16}");
    says("{\"a\":0.30000000000000004}", "{\"a\":0.30000000000000004}");
    says("{\"a\":5e-324}", "{\"a\":5e-324}");
    says("{\"a\":2.2250738585072014e-308}", "{\"a\":2.2250738585072014e-308}");
    says("{\"a\":1.7976931348623157e308}", "{\"a\":1.7976931348623157e+308}");
    says("{\"a\":0.00001}", "{\"a\":0.00001}");
    says("{\"a\":0.000001}", "{\"a\":1e-6}");
    says("{\"a\":0.0001}", "{\"a\":0.0001}");
}

static void any_double_reads_back_as_itself_in_any_locale(void **state)
{
    (void)state;
    struct test_rand r;
    test_rand_init(&r);
    setlocale(LC_ALL, "de_DE.UTF-8"); /* where there is one: a comma for the point */
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = test_rand_u64(&r);
        double v, back = NAN;
        if (i % 4 == 0)
            bits >>= 12; /* subnormal, or nearly */
        memcpy(&v, &bits, sizeof v);
        if (i % 4 == 1)
            v = (double)test_rand_below(&r, 1000000) / 1000;
        if (!isfinite(v))
            continue;
        char text[KITHI_DECIMAL_MAX];
        struct kithi_json j;
        int64_t integer;
        size_t len = kithi_decimal_write(text, v);
        assert_true(len < sizeof text && strlen(text) == len);
        kithi_json_init(&j);
        kithi_json_begin(&j, text, len);
        assert_int_equal(kithi_json_number(&j, &integer, &back), 0);
        assert_int_equal(kithi_json_finish(&j), 0);
        assert_memory_equal(&back, &v, sizeof v);
        kithi_json_fini(&j);
    }
    setlocale(LC_ALL, "C");
}

static void what_is_no_payload_is_refused_at_its_place(void **state)
{
    (void)state;
    refuses("", "a payload is an object", 1);
    refuses("[1]", "a payload is an object", 1);
    refuses("{\"a\":1", "the text ends too early", 7);
    refuses("{\"a\":}", "expected a value", 6);
    refuses("{\"a\":1}x", "something follows", 8);
    refuses("{\"a\":1,\"b\":2,\"a\":3}", "a key occurs twice", 15);
    refuses("{\"a\":{\"\":1}}", "a key is empty", 7);
    refuses("{\"a.b\":1}", "a key has a dot", 2);
    refuses("{\"a\\u002eb\":1}", "a key has a dot", 2);
    refuses("{\"a\\u0000\":1}", "a key has a NUL", 2);
    refuses("{\"a\":[1,\"x\"]}", "either strings or integers", 9);
    refuses("{\"a\":[\"x\",1]}", "either strings or integers", 11);
    refuses("{\"a\":[1,2.5]}", "another number", 9);
    refuses("{\"a\":[true]}", "strings or integers only", 7);
    refuses("{\"a\":[[]]}", "strings or integers only", 7);
    refuses("{\"a\":[{}]}", "strings or integers only", 7);
    refuses("{\"a\":[null]}", "strings or integers only", 7);
    refuses("{\"a\":NaN}", "expected a value", 6);
    refuses("{\"a\":Infinity}", "expected a value", 6);
    refuses("{\"a\":1e999}", "a number is too large", 6);
    refuses("{\"a\":9223372036854775808}", "more than 64 bits", 6);
    refuses("{\"a\":[0,-9223372036854775809]}", "more than 64 bits", 9);
    refuses("{\"a\":\"\xff\"}", "not valid UTF-8", 7);
    refuses("{\"a\":\"\\ud800\"}", "surrogate", 7);
    refuses("{\"\xc0\x80\":1}", "not valid UTF-8", 3);
}

static void sixteen_levels_are_taken_and_seventeen_refused(void **state)
{
    (void)state;
    char text[256] = "", want[300];
    for (int i = 0; i < 15; i++)
        strcat(text, "{\"a\":");
    strcat(text, "{}");
    for (int i = 0; i < 15; i++)
        strcat(text, "}");
    says(text, text);
    snprintf(want, sizeof want, "{\"a\":%s}", text);
    refuses(want, "more than 16 levels", 16 * 5 + 1);
}

static void long_keys_are_refused(void **state)
{
    (void)state;
    char text[300] = "{\"";
    memset(text + 2, 'k', 255);
    strcpy(text + 257, "\":1}");
    says(text, text);
    strcpy(text + 257, "k\":1}");
    refuses(text, "longer than 255", 2);
}

/* A text that is `unit` n times with commas between, in an object. */
static char *many(const char *head, const char *unit, uint32_t n, const char *tail)
{
    size_t size = strlen(head) + strlen(tail) + (strlen(unit) + 1) * n + 1;
    char *text = malloc(size), *at = text;
    assert_non_null(text);
    at = stpcpy(at, head);
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0)
            *at++ = ',';
        at = stpcpy(at, unit);
    }
    stpcpy(at, tail);
    return text;
}

static void sixty_four_kib_are_taken_and_not_a_byte_more(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    /* version 2, count 2, entry 8, key 1: 13 bytes of a payload of one member */
    char *text = many("{\"a\":[", "7", KITHI_PAYLOAD_MAX - 14, "]}");
    assert_int_equal(from(text, strlen(text), &err), KITHI_PAYLOAD_MAX - 1);
    free(text);
    text = many("{\"a\":[", "7", KITHI_PAYLOAD_MAX - 13, "]}");
    assert_int_equal(from(text, strlen(text), &err), KITHI_PAYLOAD_MAX);
    assert_int_equal(kithi_payload_check(bytes, KITHI_PAYLOAD_MAX, NULL), 0);
    free(text);
    text = many("{\"a\":[", "7", KITHI_PAYLOAD_MAX - 12, "]}");
    refuses(text, "larger than 64 KiB", 1);
    free(text);
    text = many("{\"a\":[", "7", 200000, "]}");
    refuses(text, "larger than 64 KiB", 6 + 2 * KITHI_PAYLOAD_MAX + 1);
    free(text);
    text = many("{\"a\":[", "\"\"", 40000, "]}");
    refuses(text, "larger than 64 KiB", 6 + 3 * KITHI_PAYLOAD_MAX / 2 + 1);
    free(text);
    text = many("{\"a\":\"", "xxxxxxx", 9000, "\"}");
    refuses(text, "larger than 64 KiB", 6);
    free(text);
    text = many("{", "\"a\":{}", 20000, "}");
    assert_int_equal(from(text, strlen(text), &err), KITHI_E_PAYLOAD);
    assert_non_null(strstr(err.text, "larger than 64 KiB"));
    free(text);
}

static void a_payload_is_read_inside_of_a_line(void **state)
{
    (void)state;
    static const char line[] = "{\"id\":\"x\",\"payload\":{\"n\":1},\"vector\":[1]}";
    struct kithi_payload_reader *r = kithi_payload_reader_new();
    struct kithi_json j;
    int n = 0;
    assert_non_null(r);
    kithi_json_init(&j);
    for (int round = 0; round < 2; round++) {
        kithi_json_begin(&j, line, sizeof line - 1);
        assert_int_equal(kithi_json_object(&j), 0);
        while (kithi_json_member(&j) == 1) {
            if (kithi_json_key_is(&j, "payload"))
                n = kithi_payload_read(r, &j, bytes);
            else
                kithi_json_skip(&j);
        }
        assert_int_equal(kithi_json_finish(&j), 0);
        assert_int_equal(n, 2 + 2 + 8 + 1);
    }
    kithi_json_fini(&j);
    kithi_payload_reader_free(r);
}

static void text_that_does_not_fit_is_cut_and_counted(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":\"bcd\",\"e\":[1,2.0]}", good[] = "{\"a\":\"bcd\",\"e\":[1,2]}";
    char out[sizeof good];
    assert_int_equal(from(text, sizeof text - 1, NULL), KITHI_E_PAYLOAD);
    int n = from(good, sizeof good - 1, NULL);
    struct kithi_payload p = { .bytes = bytes, .len = (uint32_t)n };
    for (size_t cap = 0; cap < sizeof good; cap++) {
        memset(out, '#', sizeof out);
        assert_int_equal(kithi_payload_to_json(&p, out, cap), sizeof good - 1);
        assert_memory_equal(out, good, cap);
        for (size_t i = cap; i < sizeof out; i++)
            assert_int_equal(out[i], '#');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_back_in_order_of_keys),
        cmocka_unit_test(integers_come_back_exactly),
        cmocka_unit_test(doubles_come_back_with_the_fewest_digits),
        cmocka_unit_test(any_double_reads_back_as_itself_in_any_locale),
        cmocka_unit_test(what_is_no_payload_is_refused_at_its_place),
        cmocka_unit_test(sixteen_levels_are_taken_and_seventeen_refused),
        cmocka_unit_test(long_keys_are_refused),
        cmocka_unit_test(sixty_four_kib_are_taken_and_not_a_byte_more),
        cmocka_unit_test(a_payload_is_read_inside_of_a_line),
        cmocka_unit_test(text_that_does_not_fit_is_cut_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
