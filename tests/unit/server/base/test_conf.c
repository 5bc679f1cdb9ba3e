/*
 * test_conf.c - what a configuration file may say, and how a wrong line is reported.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/base/conf.h"
#include "tests/support/tmp.h"

static struct {
    char data[32];
    int64_t threads;
    bool quick, data_given;
} conf;

static const struct kithi_conf_key keys[] = {
    { .name = "data",
      .type = KITHI_CONF_STRING,
      .out = conf.data,
      .size = sizeof conf.data,
      .given = &conf.data_given },
    { .name = "threads", .type = KITHI_CONF_INTEGER, .out = &conf.threads, .min = -5, .max = 4096 },
    { .name = "quick-start_2", .type = KITHI_CONF_BOOLEAN, .out = &conf.quick },
};

static int parse(const char *text, struct kithi_errmsg *err)
{
    memset(&conf, 0, sizeof conf);
    *err = (struct kithi_errmsg){ 0 };
    return kithi_conf_parse("k.conf", text, strlen(text), keys, sizeof keys / sizeof keys[0], err);
}

static void keys_comments_and_blank_lines_are_read(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    assert_int_equal(
        parse("# top\n\n  data = \"/var/lib\" # where\r\nthreads=1_024\n\tquick-start_2 = true", &err), 0);
    assert_string_equal(conf.data, "/var/lib");
    assert_true(conf.data_given);
    assert_int_equal(conf.threads, 1024);
    assert_true(conf.quick);
    assert_int_equal(parse("", &err), 0);
    assert_false(conf.data_given);
}

static void strings_mean_what_toml_says(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    assert_int_equal(parse("data = \"a\\t\\\"\\\\\\u00e9\\U0001F600#\"", &err), 0);
    assert_string_equal(conf.data, "a\t\"\\\xc3\xa9\xf0\x9f\x98\x80#");
    assert_int_equal(parse("data = 'a\\t\"#'", &err), 0);
    assert_string_equal(conf.data, "a\\t\"#");
}

static void numbers_mean_what_toml_says(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = { { "0", 0 },     { "+7", 7 },     { "-5", -5 }, { "0xfF", 255 },
                  { "0o17", 15 }, { "0b1_01", 5 }, { "-0", 0 } };
    struct kithi_errmsg err;
    char line[64];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(line, sizeof line, "threads = %s", cases[i].text);
        assert_int_equal(parse(line, &err), 0);
        assert_int_equal(conf.threads, cases[i].value);
    }
}

static void a_wrong_line_is_refused_with_its_number(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } cases[] = {
        { "dat = 'x'", "unknown key \"dat\"" },
        { "[server]", "tables are not supported" },
        { "data 'x'", "'=' is missing" },
        { "= 'x'", "a line is: key = value" },
        { "data = x", "a string in quotes" },
        { "data = 5", "a string in quotes" },
        { "data =", "a string in quotes" },
        { "data = \"x", "does not end" },
        { "data = \"x\\", "does not end" },
        { "data = 'x' y", "after the value" },
        { "data = ''", "1 to 31 bytes" },
        { "data = '0123456789012345678901234567890'1", "after the value" },
        { "data = '01234567890123456789012345678901'", "1 to 31 bytes" },
        { "data = '''x'''", "multi-line" },
        { "data = \"\\q\"", "no such escape" },
        { "data = \"\\ud800\"", "does not name a character" },
        { "data = \"\\u12\"", "hexadecimal" },
        { "data = \"a\x01\"", "control character" },
        { "threads = '4'", "whole number" },
        { "threads = 4.0", "not an integer" },
        { "threads = 4_", "not an integer" },
        { "threads = 4__0", "not an integer" },
        { "threads = _4", "whole number" },
        { "threads = 04", "begin with 0" },
        { "threads = -0x4", "no sign" },
        { "threads = 0x", "not an integer" },
        { "threads = 4097", "-5 to 4096" },
        { "threads = -6", "-5 to 4096" },
        { "threads = 99999999999999999999", "too large" },
        { "quick-start_2 = True", "true or false" },
        { "quick-start_2 = 1", "true or false" },
        { "a.b = 1", "'=' is missing" },
        { "threads = 1\nthreads = 2", "threads is given twice" },
    };
    struct kithi_errmsg err;
    char text[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(text, sizeof text, "# one\nquick-start_2 = true\n%s", cases[i].line);
        bool second = strchr(cases[i].line, '\n') != NULL;
        if (strncmp(cases[i].line, "quick", 5) == 0)
            snprintf(text, sizeof text, "# one\n\n%s", cases[i].line);
        assert_int_equal(parse(text, &err), KITHI_E_FORMAT);
        assert_memory_equal(err.text, second ? "k.conf:4: " : "k.conf:3: ", 10);
        if (!strstr(err.text, cases[i].says))
            fail_msg("\"%s\" gave: %s", cases[i].line, err.text);
        assert_false(conf.quick); /* nothing is stored of a wrong file */
    }
}

static void a_missing_required_key_is_named(void **state)
{
    (void)state;
    int64_t n;
    const struct kithi_conf_key key = {
        .name = "dim", .type = KITHI_CONF_INTEGER, .out = &n, .max = 9, .required = true
    };
    struct kithi_errmsg err;
    assert_int_equal(kithi_conf_parse("c", "# none\n", 7, &key, 1, &err), KITHI_E_FORMAT);
    assert_non_null(strstr(err.text, "\"dim\" is missing"));
}

static void bytes_that_are_no_text_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "# \xc0\xaf", "# \xed\xa0\x80", "# \xf5\x80\x80\x80", "# \xe2\x82",
                                       "# \x80" };
    struct kithi_errmsg err;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(parse(bad[i], &err), KITHI_E_FORMAT);
    assert_int_equal(kithi_conf_parse("c", "a\0b", 3, keys, 3, &err), KITHI_E_FORMAT);
    assert_int_equal(parse("# \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", &err), 0);
}

static void files_are_read_and_bad_ones_named(void **state)
{
    (void)state;
    struct test_dir dir;
    struct kithi_errmsg err;
    test_dir_make(&dir);
    assert_int_equal(kithi_conf_read(test_path(&dir, "none"), keys, 3, &err), -ENOENT);
    assert_non_null(strstr(err.text, "none"));
    assert_int_equal(kithi_conf_read(dir.path, keys, 3, &err), KITHI_E_FORMAT);
    FILE *f = fopen(test_path(&dir, "k"), "w");
    fputs("threads = 7\n", f);
    fclose(f);
    assert_int_equal(kithi_conf_read(test_path(&dir, "k"), keys, 3, &err), 0);
    assert_int_equal(conf.threads, 7);
    test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_comments_and_blank_lines_are_read),
        cmocka_unit_test(strings_mean_what_toml_says),
        cmocka_unit_test(numbers_mean_what_toml_says),
        cmocka_unit_test(a_wrong_line_is_refused_with_its_number),
        cmocka_unit_test(a_missing_required_key_is_named),
        cmocka_unit_test(bytes_that_are_no_text_are_refused),
        cmocka_unit_test(files_are_read_and_bad_ones_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
