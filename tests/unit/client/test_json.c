/*
 * test_json.c - what the reader takes, what it refuses and where, and that floats are the C library's.
 *
 * Every text is read from an exact-size copy, so that AddressSanitizer sees a read beyond.
 */
#include "client/src/json.h"

#include <float.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/base/error.h"
#include "tests/support/rand.h"

static char *exact(const char *text, size_t len)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    return copy;
}

/* Read text to its end, passing over the value. Returns the code; where the error was in *out_off. */
static int read_all(const char *text, size_t len, size_t *out_off)
{
    struct kithi_json j;
    char *copy = exact(text, len);
    kithi_json_init(&j);
    kithi_json_begin(&j, copy, len);
    kithi_json_skip(&j);
    int rc = kithi_json_finish(&j);
    if (rc < 0)
        assert_non_null(j.error);
    else
        assert_null(j.error);
    if (out_off)
        *out_off = j.error_off;
    kithi_json_fini(&j);
    free(copy);
    return rc;
}

static void texts_of_the_grammar_are_taken(void **state)
{
    (void)state;
    static const char *const good[] = {
        "null",
        "true",
        " false\t",
        "0",
        "-0",
        "-0.0e-0",
        "1E+5",
        "12.5e-3",
        "\"\"",
        "\"\\u0000\"",
        "[]",
        "[ ]",
        "{}",
        "{ }",
        "[1,2 , 3]",
        "[[],{},[{}]]",
        "{\"a\":1,\"b\":{\"a\":[{\"a\":2}]}}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\ud83d\\ude00\"",
        "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"",
        "\"\x7f\"",
        "\r\n[\n1\n]\n",
        "0e400000000000000000000000000000000",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(read_all(good[i], strlen(good[i]), NULL), 0);
}

static void other_texts_are_refused_at_the_byte_at_fault(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t off;
    } bad[] = {
        { "", 0 },
        { " ", 1 },
        { "nul", 0 },
        { "nulll", 4 },
        { "True", 0 },
        { "NaN", 0 },
        { "Infinity", 0 },
        { "-Infinity", 0 },
        { "+1", 0 },
        { ".5", 0 },
        { "[1,2", 4 },
        { "[1,]", 3 },
        { "[,1]", 1 },
        { "[1 2]", 3 },
        { "[1,2]x", 5 },
        { "[1,2] [", 6 },
        { "{\"a\" 1}", 5 },
        { "{\"a\":}", 5 },
        { "{\"a\":1,}", 7 },
        { "{a:1}", 1 },
        { "{'a':1}", 1 },
        { "{1:1}", 1 },
        { "[1}", 2 },
        { "{\"a\":1]", 6 },
        { "]", 0 },
        { "\"a", 0 },
        { "\"a\\", 2 },
        { "\"a\\x\"", 2 },
        { "\"\\u12g4\"", 1 },
        { "\"\\u12\"", 1 },
        { "\"a\nb\"", 2 },
        { "\"\\ud800\"", 1 },
        { "\"\\ud800\\u0041\"", 1 },
        { "\"\\udc00\"", 1 },
        { "\"\xc0\x80\"", 1 },
        { "\"\xed\xa0\x80\"", 1 },
        { "\"\xf4\x90\x80\x80\"", 1 },
        { "\"ab\xe2\x82\"", 3 },
        { "{\"a\":1,\"b\":2,\"a\":3}", 14 },
        { "{\"a\":1,\"\\u0061\":3}", 8 },
        { "[1]//x", 3 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t off = SIZE_MAX;
        if (read_all(bad[i].text, strlen(bad[i].text), &off) != KITHI_E_FORMAT)
            fail_msg("taken: %s", bad[i].text);
        if (off != bad[i].off)
            fail_msg("%s: fault at byte %zu, not %zu", bad[i].text, off, bad[i].off);
    }
    static const char *const bad_numbers[] = {
        "01",   "-",   "-a", "1.",  "1.e5",  "1e",     "1e+",
        "0x10", "1_0", "00", "-01", "1e999", "-1e999", "1e99999999999999999999"
    };
    for (size_t i = 0; i < sizeof bad_numbers / sizeof bad_numbers[0]; i++)
        assert_int_equal(read_all(bad_numbers[i], strlen(bad_numbers[i]), NULL), KITHI_E_FORMAT);
    assert_int_equal(read_all("\"a\0b\"", 5, NULL), KITHI_E_FORMAT);
}

static void nesting_has_a_limit(void **state)
{
    (void)state;
    char text[2 * (KITHI_JSON_DEPTH_MAX + 1)];
    for (uint32_t depth = KITHI_JSON_DEPTH_MAX; depth <= KITHI_JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(read_all(text, 2 * depth, NULL), depth > KITHI_JSON_DEPTH_MAX ? KITHI_E_FORMAT : 0);
    }
    char *deep = malloc(1000000);
    assert_non_null(deep);
    memset(deep, '[', 1000000);
    assert_int_equal(read_all(deep, 1000000, NULL), KITHI_E_FORMAT);
    free(deep);
}

/* Fifty thousand keys would take an hour if each were compared with each. */
static void many_keys_are_checked_in_a_moment(void **state)
{
    (void)state;
    enum { KEYS = 50000 };
    char *text = malloc(KEYS * 16 + 16), *at = text;
    assert_non_null(text);
    *at++ = '{';
    for (int i = 0; i < KEYS; i++)
        at += sprintf(at, "\"%d\":%d,", i, i);
    char *last = at;
    at += sprintf(at, "\"x\":0}");
    assert_int_equal(read_all(text, (size_t)(at - text), NULL), 0);
    at = last + sprintf(last, "\"4711\":0}");
    size_t off;
    assert_int_equal(read_all(text, (size_t)(at - text), &off), KITHI_E_FORMAT);
    assert_int_equal(off, last + 1 - text);
    free(text);
}

static void a_line_of_id_and_vector_is_read_in_place(void **state)
{
    (void)state;
    static const char text[] =
        "{\"more\":[{\"id\":\"no\"}], \"i\\u0064\" : \"caf\\u00e9\\n\", \"vector\":[1, -2.5,3e-1]}";
    char *copy = exact(text, sizeof text - 1);
    char id[16];
    float v[3] = { 0 };
    size_t id_len = 0, n = 0;
    struct kithi_json j;
    kithi_json_init(&j);
    for (int round = 0; round < 3; round++) {
        kithi_json_begin(&j, copy, sizeof text - 1);
        assert_int_equal(kithi_json_object(&j), 0);
        int members = 0;
        while (kithi_json_member(&j) == 1) {
            members++;
            if (kithi_json_key_is(&j, "id")) {
                assert_int_equal(kithi_json_string(&j, id, sizeof id, &id_len), 0);
            } else if (kithi_json_key_is(&j, "vector")) {
                assert_int_equal(kithi_json_peek(&j), KITHI_JSON_ARRAY);
                assert_int_equal(kithi_json_floats(&j, v, 3, &n), 0);
            } else {
                assert_true(kithi_json_key_is(&j, "more"));
                assert_false(kithi_json_key_is(&j, "mor"));
                assert_false(kithi_json_key_is(&j, "more!"));
                assert_int_equal(kithi_json_skip(&j), 0);
            }
        }
        assert_int_equal(kithi_json_finish(&j), 0);
        assert_int_equal(members, 3);
        assert_int_equal(id_len, 6);
        assert_memory_equal(id, "caf\xc3\xa9\n", 6);
        assert_int_equal(n, 3);
        assert_true(v[0] == 1.0f && v[1] == -2.5f && v[2] == 0.3f);
    }
    kithi_json_fini(&j);
    free(copy);
}

static void the_first_error_stays(void **state)
{
    (void)state;
    struct kithi_json j;
    float v[2];
    size_t n = 77;
    bool truth = true;
    double d = 0;
    char c;
    kithi_json_init(&j);
    kithi_json_begin(&j, "[1,2,3]", 7);
    assert_int_equal(kithi_json_floats(&j, v, 2, &n), KITHI_E_FORMAT);
    assert_int_equal(n, 77);
    const char *first = j.error;
    assert_int_equal(kithi_json_object(&j), KITHI_E_FORMAT);
    assert_int_equal(kithi_json_member(&j), KITHI_E_FORMAT);
    assert_int_equal(kithi_json_element(&j), KITHI_E_FORMAT);
    assert_int_equal(kithi_json_string(&j, &c, 1, &n), KITHI_E_FORMAT);
    assert_int_equal(kithi_json_bool(&j, &truth), KITHI_E_FORMAT);
    assert_int_equal(kithi_json_null(&j), KITHI_E_FORMAT);
    assert_int_equal(kithi_json_double(&j, &d), KITHI_E_FORMAT);
    assert_int_equal(kithi_json_skip(&j), KITHI_E_FORMAT);
    assert_int_equal(kithi_json_fail(&j, "other"), KITHI_E_FORMAT);
    assert_int_equal(kithi_json_finish(&j), KITHI_E_FORMAT);
    assert_ptr_equal(j.error, first);
    kithi_json_begin(&j, "\"four\"", 6);
    assert_int_equal(kithi_json_string(&j, (char[3]){ 0 }, 3, &n), KITHI_E_FORMAT);
    kithi_json_begin(&j, "[true,false,null]", 17);
    kithi_json_array(&j);
    assert_int_equal(kithi_json_element(&j), 1);
    assert_int_equal(kithi_json_bool(&j, &truth), 0);
    assert_true(truth);
    assert_int_equal(kithi_json_element(&j), 1);
    assert_int_equal(kithi_json_bool(&j, &truth), 0);
    assert_false(truth);
    assert_int_equal(kithi_json_element(&j), 1);
    assert_int_equal(kithi_json_null(&j), 0);
    assert_int_equal(kithi_json_element(&j), 0);
    assert_int_equal(kithi_json_finish(&j), 0);
    kithi_json_fini(&j);
}

static float read_float(struct kithi_json *j, const char *text, size_t len)
{
    float v = NAN;
    kithi_json_begin(j, text, len);
    if (kithi_json_float(j, &v) < 0 || kithi_json_finish(j) < 0)
        fail_msg("refused: %.*s: %s", (int)len, text, j->error);
    return v;
}

static uint32_t bits_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static float random_float(struct test_rand *r)
{
    float v;
    do {
        uint32_t bits = (uint32_t)test_rand_u64(r);
        memcpy(&v, &bits, sizeof v);
    } while (!isfinite(v));
    return v;
}

static void assert_as_strtof(struct kithi_json *j, const char *text)
{
    float mine = read_float(j, text, strlen(text)), theirs = strtof(text, NULL);
    if (bits_of(mine) != bits_of(theirs))
        fail_msg("%s: %a, the C library says %a", text, (double)mine, (double)theirs);
}

static void floats_are_rounded_as_the_c_library_does(void **state)
{
    (void)state;
    struct test_rand r;
    struct kithi_json j;
    char text[128];
    test_rand_init(&r);
    kithi_json_init(&j);
    for (int i = 0; i < 400000; i++) {
        float v = random_float(&r);
        snprintf(text, sizeof text, "%.*e", (int)test_rand_below(&r, 20), (double)v);
        if (!isfinite(strtof(text, NULL)))
            continue;
        assert_as_strtof(&j, text);
        /* Embeddings: between -1 and 1, with 4 to 18 digits behind the point. */
        double x = (double)(int64_t)test_rand_u64(&r) / 9.3e18;
        snprintf(text, sizeof text, "%.*f", 4 + (int)test_rand_below(&r, 15), x);
        assert_as_strtof(&j, text);
        /* Borders between two floats, and a hair beside them. */
        uint32_t bits = bits_of(v) & 0x7fffffff;
        float next = nextafterf(v, INFINITY);
        if (bits > 0x32000000 && bits < 0x4c000000 && isfinite(next)) {
            double border = ((double)v + (double)next) / 2;
            size_t len = (size_t)snprintf(text, sizeof text, "%.60f", border);
            assert_as_strtof(&j, text);
            text[len] = '1';
            text[len + 1] = '\0';
            assert_as_strtof(&j, text);
            text[len - 1] = '1';
            assert_as_strtof(&j, text);
        }
        snprintf(text, sizeof text, "%" PRIu64 "e%d", test_rand_u64(&r), (int)test_rand_below(&r, 39) - 20);
        assert_as_strtof(&j, text);
    }
    static const char *const special[] = {
        "1e-45",
        "7.006492321624085e-46",
        "7.006492321624086e-46",
        "1.17549435e-38",
        "1.1754942e-38",
        "3.4028235e38",
        "3.40282346638528859811704183484516925440e+38",
        "3.4028235677973362e38",
        "16777217",
        "16777219",
        "-16777217",
        "9007199254740993",
        "0.00000000000000000000000000000000000000000000001",
        "1e-400",
        "0e999999999999",
        "33554433.9999999999999999999999999999999999999999",
        "0.1e1",
        "100000000000000000000000000000000000000",
    };
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
        assert_as_strtof(&j, special[i]);
    kithi_json_fini(&j);
}

static void doubles_are_rounded_as_the_c_library_does(void **state)
{
    (void)state;
    struct test_rand r;
    struct kithi_json j;
    char text[128];
    test_rand_init(&r);
    kithi_json_init(&j);
    for (int i = 0; i < 100000; i++) {
        uint64_t bits = test_rand_u64(&r);
        double v, mine = NAN;
        memcpy(&v, &bits, sizeof v);
        if (!isfinite(v))
            continue;
        snprintf(text, sizeof text, "%.*e", (int)test_rand_below(&r, 24), i % 2 ? v : fmod(v, 1000));
        if (!isfinite(strtod(text, NULL)))
            continue;
        kithi_json_begin(&j, text, strlen(text));
        assert_int_equal(kithi_json_double(&j, &mine), 0);
        if (mine != strtod(text, NULL))
            fail_msg("%s: %a", text, mine);
    }
    kithi_json_fini(&j);
}

/* Thousands of digits, whose last one decides; exponents that make up for thousands of zeros. */
static void numbers_of_any_length_are_exact(void **state)
{
    (void)state;
    enum { ZEROS = 5000 };
    char *text = malloc(ZEROS + 64);
    struct kithi_json j;
    kithi_json_init(&j);
    assert_non_null(text);

    int n = sprintf(
        text, "16777217."); /* half way between 16777216 and 16777218: to even, unless something follows */
    memset(text + n, '0', ZEROS);
    assert_true(read_float(&j, text, (size_t)n + ZEROS) == 16777216.0f);
    text[n + ZEROS - 1] = '1';
    assert_true(read_float(&j, text, (size_t)n + ZEROS) == 16777218.0f);

    n = sprintf(text, "0.");
    memset(text + n, '0', ZEROS);
    n += ZEROS + sprintf(text + n + ZEROS, "15e%d", ZEROS + 1);
    assert_true(read_float(&j, text, (size_t)n) == 1.5f);

    n = sprintf(text, "25");
    memset(text + n, '0', ZEROS);
    n += ZEROS + sprintf(text + n + ZEROS, "e-%d", ZEROS + 1);
    assert_true(read_float(&j, text, (size_t)n) == 2.5f);
    kithi_json_fini(&j);
    free(text);
}

static void numbers_beyond_float_are_refused(void **state)
{
    (void)state;
    static const char *const large[] = { "3.4028235677973367e38", "1e39", "-1e39", "1e400",
                                         "99999999999999999999e30" };
    struct kithi_json j;
    float v;
    kithi_json_init(&j);
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++) {
        kithi_json_begin(&j, large[i], strlen(large[i]));
        assert_int_equal(kithi_json_float(&j, &v), KITHI_E_FORMAT);
    }
    kithi_json_fini(&j);
}

static void written_floats_read_back(void **state)
{
    (void)state;
    struct test_rand r;
    struct kithi_json j;
    char text[KITHI_JSON_FLOAT_MAX];
    test_rand_init(&r);
    kithi_json_init(&j);
    for (int i = 0; i < 1000000; i++) {
        float v = i % 2 ? random_float(&r) : test_rand_float(&r);
        size_t len = kithi_json_write_float(text, v);
        assert_true(len < sizeof text && text[len] == '\0');
        float mine = read_float(&j, text, len);
        if (bits_of(mine) != bits_of(v) || bits_of(strtof(text, NULL)) != bits_of(v))
            fail_msg("%a was written as %s", (double)v, text);
    }
    kithi_json_fini(&j);
}

static void written_floats_are_short(void **state)
{
    (void)state;
    static const struct {
        float v;
        const char *text;
    } cases[] = {
        { 0.0f, "0" },
        { -0.0f, "-0" },
        { 1.0f, "1" },
        { -1.5f, "-1.5" },
        { 0.1f, "0.1" },
        { 0.3f, "0.3" },
        { 100.0f, "100" },
        { 16777216.0f, "16777216" },
        { 0.00012f, "0.00012" },
        { 1e-7f, "1e-7" },
        { 1e20f, "1e+20" },
        { 1.25e-10f, "1.25e-10" },
        { FLT_MAX, "3.4028235e+38" },
        { FLT_MIN, "1.1754944e-38" },
        { 1e-45f, "1e-45" },
        { INFINITY, "null" },
        { NAN, "null" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[KITHI_JSON_FLOAT_MAX];
        kithi_json_write_float(text, cases[i].v);
        if (cases[i].v != 1e-45f) /* any of its short forms will do */
            assert_string_equal(text, cases[i].text);
        else
            assert_true(strtof(text, NULL) == cases[i].v);
    }
}

static void the_locale_changes_nothing(void **state)
{
    (void)state;
    static const char *const commas[] = { "de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "pt_BR.UTF-8" };
    bool found = false;
    for (size_t i = 0; i < sizeof commas / sizeof commas[0] && !found; i++)
        found = setlocale(LC_ALL, commas[i]) != NULL;
    if (!found)
        skip(); /* no locale with a decimal comma is installed here */
    struct kithi_json j;
    char text[KITHI_JSON_FLOAT_MAX];
    kithi_json_init(&j);
    assert_true(read_float(&j, "1.5e-40", 7) == 1.5e-40f);
    assert_int_equal(kithi_json_write_float(text, 1.5f), 3);
    assert_string_equal(text, "1.5");
    kithi_json_fini(&j);
    setlocale(LC_ALL, "C");
}

static void written_strings_read_back(void **state)
{
    (void)state;
    static const char text[] = "a\"b\\c/\n\t\r\x01\x1f\x7f \xc3\xa9\xf0\x9f\x98\x80\0z";
    char out[128], back[64];
    size_t len = kithi_json_write_string(out, sizeof out, text, sizeof text - 1), back_len;
    assert_true(len <= sizeof out);
    struct kithi_json j;
    kithi_json_init(&j);
    kithi_json_begin(&j, out, len);
    assert_int_equal(kithi_json_string(&j, back, sizeof back, &back_len), 0);
    assert_int_equal(kithi_json_finish(&j), 0);
    assert_int_equal(back_len, sizeof text - 1);
    assert_memory_equal(back, text, back_len);
    kithi_json_fini(&j);

    assert_int_equal(kithi_json_write_string(out, sizeof out, "x\xff\xc3", 3), 9);
    assert_memory_equal(out, "\"x\xef\xbf\xbd\xef\xbf\xbd\"", 9);
}

static void a_small_buffer_is_not_overrun(void **state)
{
    (void)state;
    for (size_t cap = 0; cap < 16; cap++) {
        char *out = malloc(cap ? cap : 1);
        assert_non_null(out);
        assert_int_equal(kithi_json_write_string(out, cap, "ab\x01\"", 4), 12);
        assert_memory_equal(out, "\"ab\\u0001\\\"\"", cap < 12 ? cap : 12);
        free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_the_grammar_are_taken),
        cmocka_unit_test(other_texts_are_refused_at_the_byte_at_fault),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(many_keys_are_checked_in_a_moment),
        cmocka_unit_test(a_line_of_id_and_vector_is_read_in_place),
        cmocka_unit_test(the_first_error_stays),
        cmocka_unit_test(floats_are_rounded_as_the_c_library_does),
        cmocka_unit_test(doubles_are_rounded_as_the_c_library_does),
        cmocka_unit_test(numbers_of_any_length_are_exact),
        cmocka_unit_test(numbers_beyond_float_are_refused),
        cmocka_unit_test(written_floats_read_back),
        cmocka_unit_test(written_floats_are_short),
        cmocka_unit_test(the_locale_changes_nothing),
        cmocka_unit_test(written_strings_read_back),
        cmocka_unit_test(a_small_buffer_is_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
