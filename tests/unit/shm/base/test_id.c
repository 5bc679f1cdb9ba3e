/*
 * test_id.c - what is an id and what is a collection name.
 */
#include "shm/base/id.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define VALID(s)   assert_true(kithi_id_valid(s, sizeof(s) - 1))
#define INVALID(s) assert_false(kithi_id_valid(s, sizeof(s) - 1))

static void ids_are_1_to_511_bytes(void **state)
{
    (void)state;
    char b[513];
    memset(b, 'x', sizeof b);
    assert_false(kithi_id_valid(b, 0));
    assert_true(kithi_id_valid(b, 1));
    assert_true(kithi_id_valid(b, 511));
    assert_false(kithi_id_valid(b, 512));
    assert_false(kithi_id_valid(b, 513));
    assert_false(kithi_id_valid(b, SIZE_MAX));
}

static void ids_are_any_utf8(void **state)
{
    (void)state;
    VALID("doc-1");
    VALID(" \t\n\x01\x7f");          /* control characters are characters */
    VALID("\xc2\x80");               /* the first of two bytes */
    VALID("\xdf\xbf");               /* the last of two bytes */
    VALID("\xe0\xa0\x80");           /* the first of three bytes */
    VALID("\xed\x9f\xbf");           /* the last before the surrogates */
    VALID("\xee\x80\x80");           /* the first after them */
    VALID("\xef\xbf\xbf");           /* the last of three bytes, a noncharacter */
    VALID("\xf0\x90\x80\x80");       /* the first of four bytes */
    VALID("\xf4\x8f\xbf\xbf");       /* the last of all */
    VALID("a\xc3\xa4z\xe2\x82\xac"); /* mixed */
}

static void ids_hold_no_nul(void **state)
{
    (void)state;
    INVALID("\0");
    INVALID("a\0b");
    INVALID("ab\0");
}

static void overlong_forms_are_refused(void **state)
{
    (void)state;
    INVALID("\xc0\x80");
    INVALID("\xc0\xaf");
    INVALID("\xc1\xbf");
    INVALID("\xe0\x80\xaf");
    INVALID("\xe0\x9f\xbf");
    INVALID("\xf0\x80\x80\xaf");
    INVALID("\xf0\x8f\xbf\xbf");
}

static void surrogates_and_what_is_beyond_unicode_are_refused(void **state)
{
    (void)state;
    INVALID("\xed\xa0\x80");
    INVALID("\xed\xaf\xbf");
    INVALID("\xed\xbf\xbf");
    INVALID("\xed\xa0\x80\xed\xb0\x80");
    INVALID("\xf4\x90\x80\x80");
    INVALID("\xf5\x80\x80\x80");
    INVALID("\xf8\x88\x80\x80\x80");
    INVALID("\xfc\x84\x80\x80\x80\x80");
    INVALID("\xfe");
    INVALID("\xff");
}

static void broken_sequences_are_refused(void **state)
{
    (void)state;
    INVALID("\x80");
    INVALID("a\xbf");
    INVALID("\xc3");
    INVALID("\xc3(");
    INVALID("\xe2\x82");
    INVALID("\xe2(\xac");
    INVALID("\xe2\x82(");
    INVALID("\xf0\x9f\x98");
    INVALID("\xf0\x9f\x98(");
    INVALID("\xf0\x9f(\x80");
    INVALID("\xe2\x82\xac\xac");
}

/* Encodes by the definition and asks for every code point, and for every one or two bytes. */
static void every_code_point_is_an_id_and_nothing_else_is(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        unsigned char b[4];
        size_t len;
        if (c < 0x80) {
            len = 1;
            b[0] = (unsigned char)c;
        } else if (c < 0x800) {
            len = 2;
            b[0] = (unsigned char)(0xc0 | c >> 6);
        } else if (c < 0x10000) {
            len = 3;
            b[0] = (unsigned char)(0xe0 | c >> 12);
        } else {
            len = 4;
            b[0] = (unsigned char)(0xf0 | c >> 18);
        }
        for (size_t i = 1; i < len; i++)
            b[i] = (unsigned char)(0x80 | (c >> 6 * (len - 1 - i) & 0x3f));
        bool want = c != 0 && !(c >= 0xd800 && c <= 0xdfff);
        if (kithi_id_valid((const char *)b, len) != want)
            fail_msg("U+%04X", c);
    }
    for (unsigned first = 0; first < 256; first++) {
        for (unsigned second = 0; second < 256; second++) {
            char b[2] = { (char)first, (char)second };
            bool ascii = first >= 1 && first < 0x80 && second >= 1 && second < 0x80;
            bool two = first >= 0xc2 && first < 0xe0 && second >= 0x80 && second < 0xc0;
            assert_true(kithi_id_valid(b, 2) == (ascii || two));
        }
    }
}

static void names_are_1_to_64_letters_digits_dashes_and_underscores(void **state)
{
    (void)state;
    char b[65];
    memset(b, 'n', sizeof b);
    assert_false(kithi_name_valid(b, 0));
    assert_true(kithi_name_valid(b, 1));
    assert_true(kithi_name_valid(b, 64));
    assert_false(kithi_name_valid(b, 65));
    for (int c = 0; c < 256; c++) {
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        char first[2] = { (char)c, 'x' }, later[3] = { 'x', (char)c, 'x' };
        assert_true(kithi_name_valid(first, 2) == alnum);
        assert_true(kithi_name_valid(later, 3) == (alnum || c == '-' || c == '_'));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_1_to_511_bytes),
        cmocka_unit_test(ids_are_any_utf8),
        cmocka_unit_test(ids_hold_no_nul),
        cmocka_unit_test(overlong_forms_are_refused),
        cmocka_unit_test(surrogates_and_what_is_beyond_unicode_are_refused),
        cmocka_unit_test(broken_sequences_are_refused),
        cmocka_unit_test(every_code_point_is_an_id_and_nothing_else_is),
        cmocka_unit_test(names_are_1_to_64_letters_digits_dashes_and_underscores),
    };
    return cmocka_run_group_tests_name("id", tests, NULL, NULL);
}
