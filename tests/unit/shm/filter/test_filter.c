/*
 * test_filter.c - what expressions mean, what they are printed as, and what is refused where.
 */
#include "shm/filter/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/filter/build.h"
#include "tests/support/payload.h"
#include "tests/support/rand.h"

/* Text is parsed from an exact-size copy, so that AddressSanitizer sees a read beyond. */
static int parse(const char *text, size_t len, struct kithi_filter **out, struct kithi_errmsg *err)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    int rc = kithi_filter_parse(copy, len, out, err);
    free(copy);
    return rc;
}

static struct kithi_filter *good(const char *text)
{
    struct kithi_filter *f = NULL;
    struct kithi_errmsg err;
    if (parse(text, strlen(text), &f, &err) < 0)
        fail_msg("%s", err.text);
    return f;
}

static char *printed(const struct kithi_filter *f)
{
    size_t len = kithi_filter_print(f, NULL, 0);
    char *text = malloc(len + 1);
    assert_non_null(text);
    assert_int_equal(kithi_filter_print(f, text, len), len);
    text[len] = '\0';
    return text;
}

static int eval(const char *filter, const char *payload, struct kithi_filter_look *look)
{
    struct kithi_filter *f = good(filter);
    struct kithi_payload p = test_payload(payload);
    memset(look, 0, sizeof *look);
    int rc = kithi_filter_eval(f, &p, look);
    test_payload_free(&p);
    kithi_filter_free(f);
    return rc;
}

static const char doc[] =
    "{\"lang\":\"AAA\",\"chars\":40,\"score\":2.5,\"ok\":true,\"off\":false,\"none\":null,\"tags\":[\"x\",\"yz\"],"
    "\"ints\":[1,-5,70000],\"empty\":[],\"deep\":{\"er\":{\"n\":7}},\"big\":9007199254740993,\"odd name\":1,"
    "\"title\":\"The end\",\"not\":3}";

static void yes(const char *filter)
{
    struct kithi_filter_look look;
    if (eval(filter, doc, &look) != 1)
        fail_msg("not true: %s", filter);
}

static void no(const char *filter)
{
    struct kithi_filter_look look;
    if (eval(filter, doc, &look) != 0)
        fail_msg("not false: %s", filter);
}

static void comparisons_mean_what_they_say(void **state)
{
    (void)state;
    yes("lang = \"AAA\"");
    yes("lang == 'AAA'");
    no("lang = \"AA\"");
    no("lang = \"AAAA\"");
    no("lang != \"AAA\"");
    yes("lang <> \"BBB\"");
    yes("chars >= 40 and chars <= 40 and chars = 40 and chars = 40.0");
    no("chars > 40 or chars < 40 or chars != 40");
    yes("chars > 39.5 and chars < 40.5");
    yes("score = 2.5 and score > 2 and score < 3 and score >= 2.5 and score <= 2.5");
    yes("lang < \"AAB\" and lang > \"AA\" and lang <= \"AAA\" and lang < \"B\"");
    yes("ok = true and off = false and ok != false");
    no("ok = false");
    yes("deep.er.n = 7");
    no("deep.er.m = 7");
    yes("\"odd name\" = 1");
    yes("\"deep\".\"er\".n in (7)");
    yes("deep . er . n in (7)");
    yes("\"not\" = 3");
    yes("prefix(title, \"The \") and prefix(title, \"\") and prefix(title, \"The end\")");
    no("prefix(title, \"The ends\") or prefix(title, \"he\")");
    yes("chars in (1, 40, 3.5)");
    no("chars in (1, 41)");
    yes("chars not in (1, 41)");
    no("chars not in (1, 40)");
    yes("lang in (\"CCC\", \"AAA\", \"BBB\")");
    yes("LANG = 1 OR lang = \"AAA\" AND NOT chars = 41");
}

static void numbers_are_compared_exactly(void **state)
{
    (void)state;
    yes("big = 9007199254740993 and big != 9007199254740992 and big > 9007199254740992.0 and big < 9007199254740994.0");
    yes("big < 1e300 and big > -1e300 and big < 9223372036854775807");
    yes("chars < 9223372036854775808.0 and chars > -9223372036854775808.0");
    yes("big in (9007199254740992.0, 9007199254740993)");
    no("big in (9007199254740992.0, 9007199254740994.0)");
}

static void an_absent_field_matches_nothing_but_a_negation(void **state)
{
    (void)state;
    no("x = 1");
    no("x != 1");
    no("x < 1 or x >= 1");
    no("x in (1)");
    no("x not in (1)");
    no("exists(x)");
    no("prefix(x, \"\")");
    yes("not x = 1");
    yes("not exists(x)");
    no("none = 1 or none != 1 or exists(none)");
    yes("exists(lang) and exists(deep) and exists(deep.er) and exists(tags) and exists(empty) and exists(off)");
    no("lang.x = 1 or tags.x = 1");
}

static void an_array_is_each_of_its_elements(void **state)
{
    (void)state;
    yes("tags = \"x\" and tags = \"yz\"");
    no("tags = \"y\"");
    yes("tags != \"y\"");
    no("tags != \"x\"");
    yes("tags in (\"a\", \"yz\")");
    no("tags in (\"a\", \"b\")");
    yes("tags not in (\"a\", \"b\")");
    no("tags not in (\"a\", \"yz\")");
    yes("prefix(tags, \"y\")");
    yes("ints = -5 and ints = 70000 and ints > 69999.5 and ints < -4 and ints in (5, 1)");
    no("ints > 70000 or ints < -5 or ints = 0");
    no("empty = 1 or empty = \"x\" or empty in (1)");
    yes("empty != 1 and empty not in (\"x\")");
}

static void words_bind_as_usual(void **state)
{
    (void)state;
    yes("chars = 40 or chars = 41 and lang = \"B\"");
    no("(chars = 40 or chars = 41) and lang = \"B\"");
    yes("not chars = 41 and lang = \"AAA\"");
    no("not (chars = 41 or lang = \"AAA\")");
    yes("not not chars = 40");
    yes("not (not (chars = 40))");
}

static void types_do_not_mix(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *field;
        enum kithi_payload_type holds;
        enum kithi_filter_kind against;
    } all[] = {
        { "chars = \"40\"", "chars", KITHI_PAYLOAD_INT64, KITHI_FILTER_STRING },
        { "lang = 4", "lang", KITHI_PAYLOAD_STRING, KITHI_FILTER_NUMBER },
        { "lang < 4.5", "lang", KITHI_PAYLOAD_STRING, KITHI_FILTER_NUMBER },
        { "ok = \"true\"", "ok", KITHI_PAYLOAD_BOOL, KITHI_FILTER_STRING },
        { "ok = 1", "ok", KITHI_PAYLOAD_BOOL, KITHI_FILTER_NUMBER },
        { "score = true", "score", KITHI_PAYLOAD_DOUBLE, KITHI_FILTER_BOOL },
        { "tags = 1", "tags", KITHI_PAYLOAD_STRINGS, KITHI_FILTER_NUMBER },
        { "ints in (\"a\", \"b\")", "ints", KITHI_PAYLOAD_INTS32, KITHI_FILTER_STRING },
        { "prefix(chars, \"4\")", "chars", KITHI_PAYLOAD_INT64, KITHI_FILTER_STRING },
        { "deep = \"x\"", "deep", KITHI_PAYLOAD_OBJECT, KITHI_FILTER_STRING },
        { "not lang != 4", "lang", KITHI_PAYLOAD_STRING, KITHI_FILTER_NUMBER },
        { "lang = \"AAA\" and chars = \"x\"", "chars", KITHI_PAYLOAD_INT64, KITHI_FILTER_STRING },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct kithi_filter_look look;
        struct kithi_errmsg err;
        if (eval(all[i].filter, doc, &look) != KITHI_E_FILTER)
            fail_msg("types mix: %s", all[i].filter);
        assert_int_equal(look.holds, all[i].holds);
        assert_int_equal(look.against, all[i].against);
        struct kithi_filter *f = good(all[i].filter);
        char want[64];
        assert_int_equal(kithi_filter_mixed(f, &look, &err), KITHI_E_FILTER);
        snprintf(want, sizeof want, "field \"%s\" holds %s", all[i].field,
                 kithi_payload_type_name(all[i].holds));
        assert_non_null(strstr(err.text, want));
        kithi_filter_free(f);
    }
    /* What does not matter is not looked at. */
    no("lang = \"B\" and chars = \"x\"");
    yes("lang = \"AAA\" or chars = \"x\"");
}

static void fields_that_nothing_has_are_told(void **state)
{
    (void)state;
    struct kithi_filter *f = good("lang = \"B\" and x = 1 and chars > 3");
    struct kithi_payload p = test_payload(doc);
    struct kithi_filter_look look = { 0 };
    assert_int_equal(kithi_filter_eval(f, &p, &look), 0);
    assert_int_equal(kithi_filter_unseen(f, &look), 6); /* x and chars: lang was not "B" */
    kithi_filter_see(f, &p, &look);
    assert_int_equal(kithi_filter_unseen(f, &look), 2);
    assert_int_equal(kithi_filter_eval(f, NULL, &look), 0);
    assert_int_equal(look.count, 2);
    test_payload_free(&p);
    kithi_filter_free(f);
}

static void a_filter_is_printed_in_one_way(void **state)
{
    (void)state;
    static const char *const all[][2] = {
        { " lang='AAA'and chars>=40 ", "lang = \"AAA\" and chars >= 40" },
        { "(((a = 1)))", "a = 1" },
        { "a = 1 or (b = 2 or c = 3)", "a = 1 or b = 2 or c = 3" },
        { "(a = 1 and b = 2) and (c = 3 and (d = 4))", "a = 1 and b = 2 and c = 3 and d = 4" },
        { "(a = 1 and b = 2) or c = 3", "a = 1 and b = 2 or c = 3" },
        { "a = 1 and (b = 2 or c = 3)", "a = 1 and (b = 2 or c = 3)" },
        { "not (a = 1 and b = 2)", "not (a = 1 and b = 2)" },
        { "NOT NOT a = 1", "a = 1" },
        { "not not not (a = 1 or not b = 2)", "not (a = 1 or not b = 2)" },
        { "a in (3, 1, 2, 1, 1.0)", "a in (1, 2, 3)" },
        { "a in ('b', 'a', 'ab')", "a in (\"a\", \"ab\", \"b\")" },
        { "a not in (7)", "a != 7" },
        { "a in (7, 7)", "a = 7" },
        { "a <> 1.50e1", "a != 15.0" },
        { "\"a b\".c = true", "\"a b\".c = true" },
        { "\"and\" = false", "\"and\" = false" },
        { "\"a\" == -0", "a = 0" },
        { "\"1a\" = 1", "\"1a\" = 1" },
        { "exists ( a.b ) and prefix ( c , '\\u0041\\n\"' )", "exists(a.b) and prefix(c, \"A\\n\\\"\")" },
        { "exists = 1 and prefix = 2", "\"exists\" = 1 and \"prefix\" = 2" },
        { "a = -9223372036854775808 and b = 1e-7", "a = -9223372036854775808 and b = 1e-7" },
        { "a = '\\ud83d\\ude00\\u0000'", "a = \"\xf0\x9f\x98\x80\\u0000\"" },
        { "\xc3\xa9t\xc3\xa9 = 1", "\"\xc3\xa9t\xc3\xa9\" = 1" },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct kithi_filter *f = good(all[i][0]);
        char *text = printed(f);
        assert_string_equal(text, all[i][1]);
        struct kithi_filter *g = good(text);
        assert_true(kithi_filter_same(f, g));
        kithi_filter_free(f);
        kithi_filter_free(g);
        free(text);
    }
}

/* Refused with these words, the caret standing under byte `at` (ASCII only, short enough to be shown whole). */
static void refused(const char *text, const char *words, size_t at)
{
    struct kithi_filter *f = NULL;
    struct kithi_errmsg err = { .text = "" };
    assert_int_equal(parse(text, strlen(text), &f, &err), KITHI_E_FILTER);
    assert_null(f);
    char want[400];
    snprintf(want, sizeof want, "\n  %s\n  %*s", text, (int)at + 1, "^");
    if (!strstr(err.text, words) || !strstr(err.text, want) || !strchr(err.text, '^') ||
        strchr(err.text, '^')[1])
        fail_msg("%s\nexpected: %s%s", err.text, words, want);
}

static void what_is_no_filter_is_refused_at_its_place(void **state)
{
    (void)state;
    refused("", "no condition", 0);
    refused("  ", "no condition", 2);
    refused("lang", "expected = ", 4);
    refused("lang =", "expected a value", 6);
    refused("lang = AAA", "a string is written in quotes", 7);
    refused("lang = \"AAA", "does not end", 7);
    refused("lang = \"A\\q\"", "not an escape", 9);
    refused("lang = \"A\\ud800\"", "not an escape", 9);
    refused("lang = \"AAA\" chars = 3", "expected 'and', 'or' or the end", 13);
    refused("(lang = 1", "expected 'and', 'or' or ')'", 9);
    refused("lang = 1)", "expected 'and', 'or' or the end", 8);
    refused("lang = 1 and", "expected a field", 12);
    refused("and = 1", "in \"quotes\"", 0);
    refused("a.in = 1", "in \"quotes\"", 2);
    refused("a. = 1", "expected the name", 3);
    refused(".a = 1", "expected a field", 0);
    refused("\"\" = 1", "a key is empty", 0);
    refused("\"a..b\" = 1", "a key is empty", 0);
    refused("5 = a", "expected a field", 0);
    refused("a = 5x", "a number ends here", 5);
    refused("a = 5.", "digit must follow the point", 6);
    refused("a = -", "digit must follow the sign", 4);
    refused("a = 1e", "no digits", 6);
    refused("a = 1e999", "too large", 4);
    refused("a = 9223372036854775808", "more than 64 bits", 4);
    refused("a = null", "exists()", 4);
    refused("a in 5", "expected '('", 5);
    refused("a in ()", "expected a value", 6);
    refused("a in (1,)", "expected a value", 8);
    refused("a in (1 2)", "expected ',' or ')'", 8);
    refused("a in (1, \"x\")", "different types", 0);
    refused("a not 5", "expected 'in'", 6);
    refused("a < true", "no order", 0);
    refused("x = 1 and prefix(a, 5)", "expected a string", 20);
    refused("prefix(a)", "expected ','", 8);
    refused("exists(a", "expected ')'", 8);
    refused("exists()", "expected a field", 7);
    refused("a ~ 5", "nothing of the language", 2);
    refused("a = 1 & b = 2", "nothing of the language", 6);
    refused("not", "expected a field", 3);
}

static void the_caret_stands_under_its_place_in_long_and_in_wide_text(void **state)
{
    (void)state;
    struct kithi_filter *f;
    struct kithi_errmsg err;
    char text[600] = "";
    for (int i = 0; i < 20; i++)
        strcat(text, "\xc3\xa9 = 1 or ");
    strcat(text, "\xc3\xa9 ? 1");
    for (int i = 0; i < 20; i++)
        strcat(text, " or b = 1");
    assert_int_equal(parse(text, strlen(text), &f, &err), KITHI_E_FILTER);
    const char *shown = strchr(err.text, '\n') + 1, *caret = strchr(shown, '\n') + 1;
    assert_true(strncmp(shown, "  ...", 5) == 0 && strchr(caret, '\0')[-1] == '^' &&
                strchr(caret, '\n') == NULL);
    /* as many characters before the caret as before the question mark */
    size_t before = 0;
    for (const char *p = shown; *p != '?'; p++)
        before += (*p & 0xc0) != 0x80;
    assert_int_equal(before, strlen(caret) - 1);
}

static void bounds_hold(void **state)
{
    (void)state;
    struct kithi_filter *f;
    struct kithi_errmsg err;
    char *text = malloc(200000), *at;
    assert_non_null(text);
    /* depth: parentheses alone are nothing but the parser's */
    memset(text, '(', 64);
    strcpy(text + 64, "a=1");
    memset(text + 67, ')', 64);
    text[131] = '\0';
    kithi_filter_free(good(text));
    memset(text, '(', 65);
    strcpy(text + 65, "a=1");
    assert_int_equal(parse(text, strlen(text), &f, &err), KITHI_E_FILTER);
    assert_non_null(strstr(err.text, "too deeply"));
    /* conditions */
    for (int n = 1000; n <= 1100; n += 100) {
        at = text;
        for (int i = 0; i < n; i++)
            at += sprintf(at, "%sa=%d", i ? " or " : "", i);
        int rc = parse(text, strlen(text), &f, &err);
        assert_int_equal(rc, n == 1000 ? 0 : KITHI_E_FILTER);
        if (rc == 0)
            kithi_filter_free(f);
        else
            assert_non_null(strstr(err.text, "too long"));
    }
    /* values, fields, bytes */
    at = text + sprintf(text, "a in (0");
    for (int i = 1; i < 5000; i++)
        at += sprintf(at, ",%d", i);
    strcpy(at, ")");
    assert_int_equal(parse(text, strlen(text), &f, &err), KITHI_E_FILTER);
    at = text + sprintf(text, "a=1");
    for (int i = 0; i < 64; i++)
        at += sprintf(at, " or f%d=1", i);
    assert_int_equal(parse(text, strlen(text), &f, &err), KITHI_E_FILTER);
    memset(text, ' ', 40000);
    assert_int_equal(parse(text, 40000, &f, &err), KITHI_E_FILTER);
    assert_non_null(strstr(err.text, "40000 bytes"));
    free(text);
}

static void a_filter_is_built_without_text(void **state)
{
    (void)state;
    struct kithi_filter_build *b = kithi_filter_begin();
    assert_non_null(b);
    kithi_filter_add_string(b, "AAA", 3);
    kithi_filter_add(b, KITHI_FILTER_EQ, "lang", 4);
    uint32_t mark = kithi_filter_mark(b);
    kithi_filter_add_integer(b, 40);
    kithi_filter_add(b, KITHI_FILTER_GE, "chars", 5);
    kithi_filter_add_number(b, 0.5);
    kithi_filter_add(b, KITHI_FILTER_LT, "score", 5);
    struct kithi_filter *inner = good("tags in (\"y\", \"x\") or not exists(lang)");
    kithi_filter_add_filter(b, inner);
    kithi_filter_join(b, KITHI_FILTER_OR, mark);
    kithi_filter_join(b, KITHI_FILTER_AND, 0);
    struct kithi_filter *f;
    assert_int_equal(kithi_filter_end(b, &f, NULL), 0);
    char *text = printed(f);
    assert_string_equal(
        text,
        "lang = \"AAA\" and (chars >= 40 or score < 0.5 or tags in (\"x\", \"y\") or not exists(lang))");
    struct kithi_filter *g = good(text);
    assert_true(kithi_filter_same(f, g));
    assert_false(kithi_filter_same(f, inner));
    free(text);
    kithi_filter_free(f);
    kithi_filter_free(g);
    kithi_filter_free(inner);

    const char *why;
    b = kithi_filter_begin();
    kithi_filter_add_integer(b, 40);
    kithi_filter_add(b, KITHI_FILTER_EQ, "a..b", 4);
    assert_int_equal(kithi_filter_end(b, &f, &why), KITHI_E_FILTER);
    assert_string_equal(why, "a key is empty");
    b = kithi_filter_begin();
    assert_int_equal(kithi_filter_end(b, &f, &why), KITHI_E_FILTER);
    b = kithi_filter_begin();
    kithi_filter_add(b, KITHI_FILTER_EXISTS, "a", 1);
    kithi_filter_add(b, KITHI_FILTER_EXISTS, "b", 1);
    assert_int_equal(kithi_filter_end(b, &f, &why), KITHI_E_FILTER); /* two, and nothing that joins them */
}

/* ---- random filters against an evaluation that knows nothing of theirs ---- */

/* Writes a random filter at out and what it is worth for p: 1, 0, or -1 when types mix. */
static int random_filter(struct test_rand *r, const struct kithi_payload *p, int depth, char *out);

/* As the language says it, one value at a time, by way of long doubles, which hold every integer and every double. */
static bool plain_compare(int op, const struct kithi_payload *p, const struct kithi_value *v,
                          const char *text, long double number)
{
    long double a, b;
    if (v->type == KITHI_PAYLOAD_STRING) {
        size_t n = strlen(text), m = v->len;
        a = memcmp(p->bytes + v->off, text, n < m ? n : m);
        if (a == 0)
            a = (long double)m - (long double)n;
        b = 0;
    } else {
        a = v->type == KITHI_PAYLOAD_DOUBLE ? (long double)v->number : (long double)v->integer;
        b = number;
    }
    switch (op) {
    case 0: return a == b;
    case 1: return a == b; /* != asks for none */
    case 2: return a < b;
    case 3: return a <= b;
    case 4: return a > b;
    default: return a >= b;
    }
}

static int random_condition(struct test_rand *r, const struct kithi_payload *p, char *out)
{
    static const char *const fields[] = { "a",    "b",   "ab",     "c",     "lang", "chars",
                                          "tags", "a.b", "a.lang", "b.c.a", "zz" };
    static const char *const ops[] = { "=", "!=", "<", "<=", ">", ">=" };
    static const char *const texts[] = { "", "x", "xy", "Aa", "Bc", "Cb" };
    const char *field = fields[test_rand_below(r, 11)];
    int op = (int)test_rand_below(r, 6), kind = (int)test_rand_below(r, 4);
    const char *text = texts[test_rand_below(r, 6)];
    long double number = 0;
    struct kithi_value v;
    bool there = kithi_payload_find(p, field, strlen(field), &v) && v.type != KITHI_PAYLOAD_NULL;
    if (kind == 0) {
        sprintf(out, "exists(%s)", field);
        return there;
    }
    if (kind == 1) {
        sprintf(out, "%s %s '%s'", field, ops[op], text);
    } else if (kind == 2) {
        int64_t n = test_rand_below(r, 2) ? (int64_t)test_rand_below(r, 20) - 10 : (int64_t)test_rand_u64(r);
        number = n;
        sprintf(out, "%s %s %lld", field, ops[op], (long long)n);
    } else if (test_rand_below(r, 2)) {
        double d = (double)test_rand_float(r) * (test_rand_below(r, 2) ? 10 : 1e19);
        number = d;
        sprintf(out, "%s %s %.17e", field, ops[op], d);
    } else {
        number = test_rand_below(r, 2);
        op &= 1;
        kind = 4;
        sprintf(out, "%s %s %s", field, ops[op], number != 0 ? "true" : "FALSE");
    }
    if (!there)
        return 0;
    bool array = kithi_payload_is_array(v.type), one = false;
    if (array && v.len == 0)
        return op == 1;
    int is = v.type == KITHI_PAYLOAD_STRING || v.type == KITHI_PAYLOAD_STRINGS ? 1
             : v.type == KITHI_PAYLOAD_BOOL                                    ? 4
             : v.type == KITHI_PAYLOAD_OBJECT                                  ? 0
                                                                               : 2;
    if (is != (kind == 3 ? 2 : kind))
        return -1;
    for (uint32_t i = 0; i < (array ? v.len : 1); i++) {
        struct kithi_value e = v;
        if (array)
            assert_true(kithi_payload_element(p, &v, i, &e));
        one |= plain_compare(op, p, &e, text, number);
    }
    return op == 1 ? !one : one;
}

static int random_filter(struct test_rand *r, const struct kithi_payload *p, int depth, char *out)
{
    uint32_t what = depth ? test_rand_below(r, 5) : 0;
    if (what < 2)
        return random_condition(r, p, out);
    if (what == 2) {
        strcpy(out, "not (");
        int a = random_filter(r, p, depth - 1, out + 5);
        strcat(out, ")");
        return a < 0 ? a : !a;
    }
    strcpy(out, "(");
    int a = random_filter(r, p, depth - 1, out + 1);
    strcat(out, what == 3 ? ") and (" : ") or (");
    int b = random_filter(r, p, depth - 1, out + strlen(out));
    strcat(out, ")");
    return a < 0 ? a : what == 3 ? (a ? b : 0) : (a ? 1 : b);
}

static void random_filters_are_worth_what_the_language_says(void **state)
{
    (void)state;
    struct test_rand r;
    uint32_t worth[3] = { 0, 0, 0 };
    test_rand_init(&r);
    for (int i = 0; i < 4000; i++) {
        char json[16384], text[8192];
        test_payload_random(&r, 2, json, sizeof json);
        struct kithi_payload p = test_payload(json);
        int want = random_filter(&r, &p, 4, text);
        struct kithi_filter *f = good(text);
        struct kithi_filter_look look = { 0 }, again = { 0 };
        int got = kithi_filter_eval(f, &p, &look);
        if (got != (want < 0 ? KITHI_E_FILTER : want))
            fail_msg("%s of %s: %d, not %d", text, json, got, want);
        worth[want + 1]++;
        char *one = printed(f);
        struct kithi_filter *g = good(one);
        assert_true(kithi_filter_same(f, g));
        assert_int_equal(kithi_filter_eval(g, &p, &again), got);
        free(one);
        kithi_filter_free(f);
        kithi_filter_free(g);
        test_payload_free(&p);
    }
    assert_true(worth[0] > 200 && worth[1] > 200 && worth[2] > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparisons_mean_what_they_say),
        cmocka_unit_test(numbers_are_compared_exactly),
        cmocka_unit_test(an_absent_field_matches_nothing_but_a_negation),
        cmocka_unit_test(an_array_is_each_of_its_elements),
        cmocka_unit_test(words_bind_as_usual),
        cmocka_unit_test(types_do_not_mix),
        cmocka_unit_test(fields_that_nothing_has_are_told),
        cmocka_unit_test(a_filter_is_printed_in_one_way),
        cmocka_unit_test(what_is_no_filter_is_refused_at_its_place),
        cmocka_unit_test(the_caret_stands_under_its_place_in_long_and_in_wide_text),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(a_filter_is_built_without_text),
        cmocka_unit_test(random_filters_are_worth_what_the_language_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
