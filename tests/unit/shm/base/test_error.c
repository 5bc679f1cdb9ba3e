/*
 * test_error.c - every code has one name and one text, and messages never overflow.
 */
#include "shm/base/error.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    int code;
    const char *name, *text;
} list[] = {
#define ENTRY(name, number, text) { KITHI_E_##name, "KITH_E_" #name, text },
    KITHI_ERROR_LIST(ENTRY)
#undef ENTRY
};
enum { LIST_COUNT = sizeof list / sizeof list[0] };

static void every_code_of_the_list_has_its_own_number_name_and_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < LIST_COUNT; i++) {
        assert_true(list[i].code < -10000);
        assert_string_equal(kithi_error_name(list[i].code), list[i].name);
        assert_string_equal(kithi_error_text(list[i].code), list[i].text);
        assert_true(strlen(list[i].text) > 0 &&
                    strlen(list[i].text) < sizeof((struct kithi_errmsg *)0)->text);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(list[i].code, list[j].code);
            assert_string_not_equal(list[i].text, list[j].text);
        }
    }
}

static void system_errors_have_the_names_and_texts_of_the_system(void **state)
{
    (void)state;
    assert_string_equal(kithi_error_name(-ENOSPC), "ENOSPC");
    assert_string_equal(kithi_error_name(-EINVAL), "EINVAL");
    assert_string_equal(kithi_error_text(-ENOENT), "No such file or directory");
}

static void success_is_not_an_error(void **state)
{
    (void)state;
    assert_string_equal(kithi_error_name(0), "OK");
    assert_string_equal(kithi_error_text(0), "success");
}

static void numbers_that_mean_nothing_are_answered_too(void **state)
{
    (void)state;
    static const int odd[] = {
        1, EINVAL, 10001, INT_MAX, -4000, -4095, -4096, -9999, -10000, -20000, INT_MIN
    };
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        assert_string_equal(kithi_error_name(odd[i]), "UNKNOWN");
        assert_string_equal(kithi_error_text(odd[i]), "unknown error");
    }
}

static void set_formats_and_returns_the_code(void **state)
{
    (void)state;
    struct kithi_errmsg err = { 0 };
    assert_int_equal(kithi_error_set(&err, KITHI_E_DIMENSION, "row %d has %s", 7, "3 of 4"),
                     KITHI_E_DIMENSION);
    assert_int_equal(err.code, KITHI_E_DIMENSION);
    assert_string_equal(err.text, "row 7 has 3 of 4");
}

static void set_without_a_place_only_returns_the_code(void **state)
{
    (void)state;
    assert_int_equal(kithi_error_set(NULL, -EIO, "%s", "nobody reads this"), -EIO);
}

static void a_text_too_long_is_cut_and_terminated(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    memset(&err, 0x55, sizeof err);
    kithi_error_set(&err, -EIO, "%*d", 5000, 1);
    assert_int_equal(strnlen(err.text, sizeof err.text), sizeof err.text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_of_the_list_has_its_own_number_name_and_text),
        cmocka_unit_test(system_errors_have_the_names_and_texts_of_the_system),
        cmocka_unit_test(success_is_not_an_error),
        cmocka_unit_test(numbers_that_mean_nothing_are_answered_too),
        cmocka_unit_test(set_formats_and_returns_the_code),
        cmocka_unit_test(set_without_a_place_only_returns_the_code),
        cmocka_unit_test(a_text_too_long_is_cut_and_terminated),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
