/*
 * test_declared.c - the text of an index is read, and written again the same; what is wrong with one is told with its place.
 */
#include "shm/postings/declared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct kithi_declared d;
static char again[KITHI_DECLARED_TEXT_MAX + 1];

static void reads_as(const char *text, const char *want)
{
    struct kithi_errmsg err = { .text = "" };
    if (kithi_declared_read(text, &d, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(kithi_declared_print(&d, again));
    assert_string_equal(again, want);
    /* And that is read as the same. */
    struct kithi_declared e;
    assert_int_equal(kithi_declared_read(want, &e, NULL), 0);
    assert_memory_equal(&d, &e, sizeof d);
}

static void is_wrong(const char *text, const char *why)
{
    struct kithi_errmsg err = { .text = "" };
    assert_int_equal(kithi_declared_read(text, &d, &err), KITHI_E_PARAMETER);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" is wrong because of \"%s\", not \"%s\"", text, err.text, why);
}

static void words_say_all_or_nothing(void **state)
{
    (void)state;
    reads_as("", "auto");
    reads_as("auto", "auto");
    assert_true(d.automatic);
    reads_as("none", "none");
    assert_false(d.automatic);
    assert_int_equal(d.count, 0);
}

static void fields_have_types(void **state)
{
    (void)state;
    reads_as("lang:keyword,chars:integer", "lang:keyword,chars:integer");
    assert_int_equal(d.count, 2);
    assert_int_equal(d.fields[1].type, KITHI_DECLARED_INTEGER);
    assert_memory_equal(d.fields[0].path, "lang", 4);
    reads_as(" a : float , b.c-d_1:boolean ", "a:number,b.c-d_1:bool");
    assert_int_equal(d.fields[1].path_len, 7);
    reads_as("auto:number,none:bool", "auto:number,none:bool"); /* as fields, with a type */
}

static void other_characters_are_quoted(void **state)
{
    (void)state;
    reads_as("\"my key\".\"a:b\".c:keyword", "\"my key\".\"a:b\".c:keyword");
    assert_int_equal(d.fields[0].path_len, 12);
    assert_memory_equal(d.fields[0].path, "my key.a:b.c", 12);
    reads_as("\"plain\":number", "plain:number");
    reads_as("\"q\\\"b\\\\\":number", "\"q\\\"b\\\\\":number");
    assert_memory_equal(d.fields[0].path, "q\"b\\", 4);
    reads_as("gr\xc3\xb6\xc3\x9f"
             "e:number",
             "gr\xc3\xb6\xc3\x9f"
             "e:number");
}

static void what_is_wrong_is_told(void **state)
{
    (void)state;
    char text[KITHI_DECLARED_TEXT_MAX + 600] = "";
    is_wrong("lang", "byte 5");
    is_wrong("lang", "a colon and its type");
    is_wrong("lang:text", "a type is keyword");
    is_wrong("lang:text", "byte 6");
    is_wrong("lang:keyword;chars:integer", "separated by commas");
    is_wrong("lang:keyword,", "the name of a field is missing");
    is_wrong("auto,lang:keyword", "a colon and its type");
    is_wrong(".a:bool", "the name of a field is missing");
    is_wrong("a..b:bool", "the name of a field is missing");
    is_wrong("\"\":bool", "the name of a field is missing");
    is_wrong("a b:bool", "a colon and its type");
    is_wrong("\"a.b\":bool", "no dots");
    is_wrong("\"a:bool", "not closed");
    is_wrong("\"a\\\":bool", "not closed");
    is_wrong("\"a\nb\":bool", "control character");
    is_wrong("a\xff:bool", "UTF-8");
    is_wrong("a:bool,b:bool,a:integer", "twice");
    memset(text, 'x', 233);
    strcpy(text + 233, ":bool");
    is_wrong(text, "232 bytes");
    text[0] = '\0';
    for (unsigned i = 0; i < 65; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%sf%u:bool", i ? "," : "", i);
    is_wrong(text, "64 fields");
    text[0] = '\0';
    for (unsigned i = 0; i < 10; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%0215u:bool", i ? "," : "", i);
    is_wrong(text, "2047 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_say_all_or_nothing),
        cmocka_unit_test(fields_have_types),
        cmocka_unit_test(other_characters_are_quoted),
        cmocka_unit_test(what_is_wrong_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
