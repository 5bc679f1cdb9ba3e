/*
 * test_settings.c - does collection.conf come back as it was written, and is a wrong one refused?
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/writer/settings.h"
#include "tests/support/tmp.h"

static const struct kithi_geometry geometry = {
    .dim = 256, .metric = KITHI_METRIC_COSINE, .m = 24, .ef_construction = 300, .slot_max = 12345
};
static struct test_dir tmp;

static int set_up(void **state)
{
    (void)state;
    test_dir_make(&tmp);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&tmp);
    return 0;
}

static void settings_come_back_as_they_were_written(void **state)
{
    struct kithi_settings s, back;
    (void)state;
    assert_int_equal(kithi_settings_new(&s, "docs-1", &geometry, NULL), 0);
    s.generation = 7;
    assert_int_equal(kithi_settings_write(tmp.path, &s, NULL), 0);
    assert_int_equal(kithi_settings_read(tmp.path, &back, NULL), 0);
    assert_memory_equal(back.uid, s.uid, sizeof s.uid);
    assert_memory_equal(back.hash_key, s.hash_key, sizeof s.hash_key);
    assert_string_equal(back.name, "docs-1");
    assert_int_equal(back.timeline, s.timeline);
    assert_int_equal(back.generation, 7);
    assert_memory_equal(&back.geometry, &geometry, sizeof geometry);
    assert_int_not_equal(access(test_path(&tmp, KITHI_SETTINGS_NAME ".new"), F_OK), 0);
}

static void identities_differ(void **state)
{
    struct kithi_settings a, b;
    (void)state;
    assert_int_equal(kithi_settings_new(&a, "docs", &geometry, NULL), 0);
    assert_int_equal(kithi_settings_new(&b, "docs", &geometry, NULL), 0);
    assert_memory_not_equal(a.uid, b.uid, sizeof a.uid);
    assert_memory_not_equal(a.hash_key, b.hash_key, sizeof a.hash_key);
}

static void assert_same(const struct kithi_settings *a, const struct kithi_settings *b)
{
    assert_int_equal(a->wanted, b->wanted);
    assert_int_equal(a->keep, b->keep);
    assert_int_equal(a->chosen, b->chosen);
    assert_memory_equal(&a->geometry, &b->geometry, sizeof a->geometry);
}

static void every_codec_comes_back_as_it_was_asked_for(void **state)
{
    struct kithi_settings s, back;
    struct kithi_geometry asked = geometry;
    (void)state;
    for (asked.quantization = 0; asked.quantization <= KITHI_QUANTIZATION_AUTO; asked.quantization++) {
        for (asked.keep = 0; asked.keep <= KITHI_KEEP_NONE; asked.keep++) {
            bool good = asked.quantization != KITHI_QUANTIZATION_NONE || asked.keep == KITHI_KEEP_F32;
            struct kithi_errmsg err;
            assert_int_equal(kithi_settings_new(&s, "docs", &asked, &err), good ? 0 : KITHI_E_PARAMETER);
            if (!good) {
                assert_non_null(strstr(err.text, "without quantization"));
                continue;
            }
            assert_int_equal(s.chosen, asked.quantization != KITHI_QUANTIZATION_AUTO);
            assert_int_equal(s.geometry.code_bits != 0, asked.quantization == KITHI_QUANTIZATION_BITS);
            assert_int_equal(kithi_settings_write(tmp.path, &s, NULL), 0);
            assert_int_equal(kithi_settings_read(tmp.path, &back, NULL), 0);
            assert_same(&s, &back);
        }
    }
}

static void what_auto_has_chosen_lasts(void **state)
{
    struct kithi_settings s, back;
    struct kithi_geometry asked = geometry;
    (void)state;
    asked.quantization = KITHI_QUANTIZATION_AUTO;
    asked.keep = KITHI_KEEP_F16;
    assert_int_equal(kithi_settings_new(&s, "docs", &asked, NULL), 0);
    assert_int_equal(s.geometry.quantization, KITHI_QUANTIZATION_NONE); /* for the time being */
    assert_int_equal(s.geometry.keep, KITHI_KEEP_F32);
    kithi_settings_choose(&s, KITHI_QUANTIZATION_BITS);
    assert_int_equal(s.geometry.quantization, KITHI_QUANTIZATION_BITS);
    assert_int_equal(s.geometry.keep, KITHI_KEEP_F16);
    assert_int_equal(s.geometry.code_bits, kithi_geometry_code_bits(s.geometry.dim));
    assert_int_equal(kithi_settings_write(tmp.path, &s, NULL), 0);
    assert_int_equal(kithi_settings_read(tmp.path, &back, NULL), 0);
    assert_true(back.chosen);
    assert_same(&s, &back);

    /* Plain vectors are a choice, too. */
    asked.keep = KITHI_KEEP_F32;
    assert_int_equal(kithi_settings_new(&s, "docs", &asked, NULL), 0);
    kithi_settings_choose(&s, KITHI_QUANTIZATION_NONE);
    assert_int_equal(kithi_settings_write(tmp.path, &s, NULL), 0);
    assert_int_equal(kithi_settings_read(tmp.path, &back, NULL), 0);
    assert_true(back.chosen);
}

static void an_index_comes_back_as_it_was_asked_for(void **state)
{
    static const char *const texts[][2] = {
        { "auto", "" },
        { "none", "none" },
        { "lang : keyword,chars:integer", "lang:keyword,chars:integer" },
        { "\"q\\\"b\\\\ '#'\".x:float", "\"q\\\"b\\\\ '#'\".x:number" },
    };
    struct kithi_settings s, before, back;
    struct kithi_errmsg err;
    (void)state;
    assert_int_equal(kithi_settings_new(&s, "docs", &geometry, NULL), 0);
    assert_string_equal(s.index, "");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        before = s;
        assert_int_equal(kithi_settings_index(&s, texts[i][0], strlen(texts[i][0]), &err), 0);
        assert_string_equal(s.index, texts[i][1]);
        assert_int_equal(kithi_settings_same(&s, &before), i == 0);
        assert_int_equal(kithi_settings_write(tmp.path, &s, NULL), 0);
        assert_int_equal(kithi_settings_read(tmp.path, &back, NULL), 0);
        assert_string_equal(back.index, texts[i][1]);
        assert_same(&s, &back);
    }
    /* The longest that there is, of what is written as two bytes. */
    char text[KITHI_DECLARED_TEXT_MAX + 2] = "";
    for (unsigned i = 0; i < 8; i++) {
        size_t at = strlen(text);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s\"%u", i ? "," : "", i);
        for (unsigned n = 0; n < 115; n++)
            at += (size_t)snprintf(text + at, sizeof text - at, "\\\"");
        snprintf(text + at, sizeof text - at, "\":bool");
    }
    assert_int_equal(kithi_settings_index(&s, text, strlen(text), &err), 0);
    assert_int_equal(kithi_settings_write(tmp.path, &s, NULL), 0);
    assert_int_equal(kithi_settings_read(tmp.path, &back, NULL), 0);
    assert_string_equal(back.index, text);
    /* What is wrong changes nothing. */
    assert_int_equal(kithi_settings_index(&s, "lang", 4, &err), KITHI_E_PARAMETER);
    assert_int_equal(kithi_settings_index(&s, "a\0b", 3, &err), KITHI_E_PARAMETER);
    memset(text, 'x', sizeof text);
    assert_int_equal(kithi_settings_index(&s, text, sizeof text, &err), KITHI_E_PARAMETER);
    assert_string_equal(s.index, back.index);
}

/* Write the file with one line replaced, and read it. */
static void assert_read(const char *line, const char *instead, int status, const char *word)
{
    struct kithi_settings s, back;
    struct kithi_errmsg err = { .text = "" };
    char text[2048], changed[4096];
    assert_int_equal(kithi_settings_new(&s, "docs", &geometry, NULL), 0);
    assert_int_equal(kithi_settings_write(tmp.path, &s, NULL), 0);
    FILE *f = fopen(test_path(&tmp, KITHI_SETTINGS_NAME), "r+");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    char *at = strstr(text, line), *end = at ? strchr(at, '\n') : NULL;
    assert_non_null(end);
    int len = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, instead, end);
    rewind(f);
    assert_int_equal(ftruncate(fileno(f), 0), 0);
    fwrite(changed, 1, (size_t)len, f);
    fclose(f);
    assert_int_equal(kithi_settings_read(tmp.path, &back, &err), status);
    assert_non_null(strstr(err.text, KITHI_SETTINGS_NAME));
    assert_non_null(strstr(err.text, word));
}

static void wrong_settings_are_refused_by_name(void **state)
{
    (void)state;
    assert_read("uid =", "uid = \"xyz\"", KITHI_E_FORMAT, "uid");
    assert_read("metric =", "metric = \"hamming\"", KITHI_E_FORMAT, "hamming");
    assert_read("version =", "version = 2", KITHI_E_VERSION, "version 2");
    assert_read("name =", "name = \"a/b\"", KITHI_E_FORMAT, "a/b");
    assert_read("quantization =", "quantization = \"pq\"", KITHI_E_FORMAT, "pq");
    assert_read("keep =", "keep = \"f64\"", KITHI_E_FORMAT, "f64");
    assert_read("layout =", "layout = \"auto\"", KITHI_E_FORMAT, "layout");
    assert_read("layout =", "layout = \"sq8\"", KITHI_E_FORMAT, "does not go with quantization \"none\"");
    assert_read("slot_max =", "", KITHI_E_FORMAT, "slot_max");
    assert_read("slot_max =", "slot_max = 1\nindex = \"lang:text\"", KITHI_E_FORMAT, "a type is keyword");
    assert_read("dim =", "dim = 256\ndim = 3", KITHI_E_FORMAT, "dim");
}

static void a_missing_file_is_an_error_of_the_system(void **state)
{
    struct kithi_settings s;
    (void)state;
    assert_int_equal(kithi_settings_read(test_path(&tmp, "nowhere"), &s, NULL), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_come_back_as_they_were_written),
        cmocka_unit_test(every_codec_comes_back_as_it_was_asked_for),
        cmocka_unit_test(what_auto_has_chosen_lasts),
        cmocka_unit_test(an_index_comes_back_as_it_was_asked_for),
        cmocka_unit_test(identities_differ),
        cmocka_unit_test(wrong_settings_are_refused_by_name),
        cmocka_unit_test(a_missing_file_is_an_error_of_the_system),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
