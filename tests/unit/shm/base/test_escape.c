/*
 * test_escape.c - escapes become UTF-8, and halves of pairs do not.
 */
#include "shm/base/escape.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* text begins with an escape that says utf8 and takes taken bytes. */
static void says(const char *text, const char *utf8, size_t taken)
{
    char out[4];
    const char *at = text;
    int n = kithi_escape_unicode(&at, text + strlen(text), out);
    assert_int_equal(n, strlen(utf8));
    assert_memory_equal(out, utf8, strlen(utf8));
    assert_int_equal(at - text, taken);
}

static void is_none(const char *text, int why)
{
    char out[4];
    const char *at = text;
    assert_int_equal(kithi_escape_unicode(&at, text + strlen(text), out), why);
    assert_ptr_equal(at, text);
}

static void every_length_of_utf8_is_written(void **state)
{
    (void)state;
    says("\\u007fx", "\x7f", 6);
    says("\\u0080", "\xc2\x80", 6);
    says("\\u07FF", "\xdf\xbf", 6);
    says("\\u0800", "\xe0\xa0\x80", 6);
    says("\\uffff", "\xef\xbf\xbf", 6);
    says("\\ud800\\udc00", "\xf0\x90\x80\x80", 12);
    says("\\udbff\\udfff!", "\xf4\x8f\xbf\xbf", 12);
}

static void what_is_no_escape_takes_nothing(void **state)
{
    (void)state;
    is_none("", 0);
    is_none("\\", 0);
    is_none("\\u00e", 0);
    is_none("\\u00g0", 0);
    is_none("\\x0041", 0);
    is_none("u00411", 0);
}

static void half_of_a_pair_is_none(void **state)
{
    (void)state;
    is_none("\\ud800", -1);
    is_none("\\ud800x", -1);
    is_none("\\ud800\\ud800", -1);
    is_none("\\ud800\\ue000", -1);
    is_none("\\ud800\\udc0", -1);
    is_none("\\udc00\\ud800", -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_of_utf8_is_written),
        cmocka_unit_test(what_is_no_escape_takes_nothing),
        cmocka_unit_test(half_of_a_pair_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
