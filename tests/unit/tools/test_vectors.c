/*
 * test_vectors.c - vectors out of files: every format as its makers write it, and what is wrong with a
 * file named with file and row or line.
 */
#include "tools/vectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/tmp.h"

static struct test_dir dir;

static const char *write_file(const char *name, const void *bytes, size_t len)
{
    const char *path = test_path(&dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    return path;
}

static const char *write_text(const char *name, const char *text)
{
    return write_file(name, text, strlen(text));
}

/* Open with dim and read to the end: the number of vectors, or the error that ended it. */
static int read_all(const char *path, uint32_t dim, struct kithi_errmsg *err)
{
    struct kithi_vectors *v = NULL;
    struct kithi_vector item;
    int n = 0;
    int rc = kithi_vectors_open(path, dim, &v, err);
    if (rc != 0)
        return rc;
    while ((rc = kithi_vectors_next(v, &item, err)) == 1)
        n++;
    kithi_vectors_close(v);
    return rc < 0 ? rc : n;
}

static void expect_error(const char *path, uint32_t dim, int code, const char *text)
{
    struct kithi_errmsg err = { 0 };
    assert_int_equal(read_all(path, dim, &err), code);
    assert_int_equal(err.code, code);
    if (strstr(err.text, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, text);
    if (strstr(err.text, path) == NULL)
        fail_msg("\"%s\" does not name the file", err.text);
}

static void first_vector_is(const char *path, float a, float b, const char *id)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_vectors *v = NULL;
    struct kithi_vector item;
    assert_int_equal(kithi_vectors_open(path, 2, &v, &err), 0);
    assert_int_equal(kithi_vectors_next(v, &item, &err), 1);
    assert_true(item.values[0] == a && item.values[1] == b);
    assert_int_equal(item.row, 0);
    if (id == NULL)
        assert_null(item.id);
    else
        assert_string_equal(item.id, id);
    kithi_vectors_close(v);
}

struct npy {
    unsigned char bytes[512];
    size_t len;
};

/* A NumPy file as numpy.save() writes it, or not quite. */
static struct npy make_npy(unsigned version, const char *descr, const char *order, const char *shape,
                           const void *data, size_t len)
{
    struct npy n = { { 0x93, 'N', 'U', 'M', 'P', 'Y', (unsigned char)version, 0 }, 0 };
    char header[128];
    int used = snprintf(header, sizeof header, "{'descr': %s, 'fortran_order': %s, 'shape': %s, }\n", descr,
                        order, shape);
    n.bytes[8] = (unsigned char)used;
    size_t begin = version == 1 ? 10 : 12; /* later versions have a length of four bytes */
    memcpy(n.bytes + begin, header, (size_t)used);
    memcpy(n.bytes + begin + used, data, len);
    n.len = begin + (size_t)used + len;
    return n;
}

static void fvecs_and_bvecs_are_read(void **state)
{
    (void)state;
    const unsigned char fvecs[] = { 2, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0 }; /* 1, -2 */
    const unsigned char bvecs[] = { 2, 0, 0, 0, 7, 255, 2, 0, 0, 0, 1, 2 };
    struct kithi_errmsg err = { 0 };
    first_vector_is(write_file("a.fvecs", fvecs, sizeof fvecs), 1, -2, NULL);
    const char *path = write_file("a.bvecs", bvecs, sizeof bvecs);
    first_vector_is(path, 7, 255, NULL);
    assert_int_equal(read_all(path, 2, &err), 2);
    assert_int_equal(read_all(write_file("empty.fvecs", "", 0), 2, &err), 0);
}

static void vecs_files_that_are_wrong_are_named_with_their_row(void **state)
{
    (void)state;
    const unsigned char mixed[] = { 1, 0, 0, 0, 9, 2, 0, 0, 0, 1, 2 };
    expect_error(write_file("mixed.bvecs", mixed, sizeof mixed), 1, KITHI_E_DIMENSION,
                 "row 1: has 2 dimensions, the collection has 1");
    expect_error(write_file("head.bvecs", mixed, 7), 1, KITHI_E_TRUNCATED, "row 1: the file ends");
    expect_error(write_file("cut.bvecs", mixed, 10), 2, KITHI_E_DIMENSION, "row 0: has 1 dimensions");
    expect_error(write_file("half.bvecs", mixed + 5, 5), 2, KITHI_E_TRUNCATED, "needs 6 bytes, 5 are there");
    const unsigned char huge[] = { 255, 255, 255, 255, 1, 2, 3 };
    expect_error(write_file("huge.fvecs", huge, sizeof huge), 2, KITHI_E_FORMAT, "claims -1 dimensions");
    const unsigned char zero[] = { 0, 0, 0, 0 };
    expect_error(write_file("zero.fvecs", zero, sizeof zero), 2, KITHI_E_FORMAT, "claims 0 dimensions");
}

static void numpy_arrays_are_read(void **state)
{
    (void)state;
    const float f4[] = { 1.5f, -2, 3, 4 };
    const double f8[] = { 1.5, -2, 3, 4 };
    const unsigned char u1[] = { 5, 200, 1, 2 };
    struct kithi_errmsg err = { 0 };
    struct npy n = make_npy(1, "'<f4'", "False", "(2, 2)", f4, sizeof f4);
    const char *path = write_file("f4.npy", n.bytes, n.len);
    first_vector_is(path, 1.5f, -2, NULL);
    assert_int_equal(read_all(path, 2, &err), 2);
    n = make_npy(2, "'<f8'", "False", "(2, 2)", f8, sizeof f8);
    first_vector_is(write_file("f8.npy", n.bytes, n.len), 1.5f, -2, NULL);
    n = make_npy(3, "'|u1'", "False", "(2, 2)", u1, sizeof u1);
    first_vector_is(write_file("u1.npy", n.bytes, n.len), 5, 200, NULL);
}

static void numpy_arrays_of_another_kind_are_refused_by_name(void **state)
{
    (void)state;
    const float f4[] = { 1, 2, 3, 4 };
    const struct {
        unsigned version;
        const char *descr, *order, *shape;
        int code;
        const char *text;
    } cases[] = {
        { 1, "'<i8'", "False", "(2, 1)", KITHI_E_FORMAT, "dtype '<i8'" },
        { 1, "'>f4'", "False", "(2, 2)", KITHI_E_FORMAT, "dtype '>f4'" },
        { 1, "'<f4'", "True", "(2, 2)", KITHI_E_FORMAT, "Fortran order" },
        { 1, "'<f4'", "False", "(4,)", KITHI_E_FORMAT, "1 axes" },
        { 1, "'<f4'", "False", "(1, 2, 2)", KITHI_E_FORMAT, "3 axes" },
        { 1, "'<f4'", "False", "(x, 2)", KITHI_E_FORMAT, "shape" },
        { 1, "'<f4'", "False", "(1, 4)", KITHI_E_DIMENSION, "has 4 dimensions, the collection has 2" },
        { 1, "'<f4'", "False", "(3, 2)", KITHI_E_TRUNCATED,
          "promises 3 rows of 8 bytes, but 16 bytes follow" },
        { 1, "'<f4'", "False", "(1, 2)", KITHI_E_TRUNCATED,
          "promises 1 rows of 8 bytes, but 16 bytes follow" },
        { 4, "'<f4'", "False", "(2, 2)", KITHI_E_FORMAT, ".npy version 4.0" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct npy n =
            make_npy(cases[i].version, cases[i].descr, cases[i].order, cases[i].shape, f4, sizeof f4);
        expect_error(write_file("x.npy", n.bytes, n.len), 2, cases[i].code, cases[i].text);
    }
    expect_error(write_text("y.npy", "PK\003\004 this is a zip"), 2, KITHI_E_FORMAT,
                 "does not begin as a NumPy file");
    struct npy n = make_npy(1, "'<f4'", "False", "(2, 2)", f4, 0);
    expect_error(write_file("z.npy", n.bytes, 20), 2, KITHI_E_TRUNCATED, "ends inside its header");
}

static void json_lines_are_read(void **state)
{
    (void)state;
    struct kithi_errmsg err = { 0 };
    first_vector_is(write_text("a.jsonl", "\n{\"id\":\"x\",\"vector\":[1.5,-2]}\n"), 1.5f, -2, "x");
    first_vector_is(write_text("b.jsonl", "{\"vector\":[1e0,-2], \"id\":12}"), 1, -2, "12");
    first_vector_is(write_text("c.jsonl", "{\"vector\":[1,-2]}\r\n"), 1, -2, NULL);
    first_vector_is(write_text("d.jsonl", "{\"id\":\"a\\u00e4\",\"vector\":[1,-2]}"), 1, -2, "a\xc3\xa4");
    assert_int_equal(read_all(write_text("e.jsonl", "{\"vector\":[1]}\n\n  \n{\"vector\":[2]}\n"), 1, &err),
                     2);
}

static void json_lines_that_are_wrong_are_named_with_their_line(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int code;
        const char *text;
    } cases[] = {
        { "{\"id\":\"a\",\"vector\":[1,2,]}", KITHI_E_FORMAT, "line 3, byte" },
        { "{\"id\":\"a\",\"vector\":[1,NaN]}", KITHI_E_FORMAT, "line 3, byte" },
        { "{\"id\":\"a\",\"vector\":[1,1e99]}", KITHI_E_FORMAT, "line 3, byte" },
        { "{\"id\":\"a\",\"vector\":[1,2]} x", KITHI_E_FORMAT, "line 3, byte" },
        { "{\"id\":\"a\",\"vector\":[1,2]", KITHI_E_FORMAT, "line 3, byte" },
        { "[1,2]", KITHI_E_FORMAT, "line 3, byte 1" },
        { "{\"id\":\"a\"}", KITHI_E_FORMAT, "line 3: has no \"vector\"" },
        { "{\"id\":\"a\",\"vector\":[1,2,3]}", KITHI_E_DIMENSION,
          "line 3: has 3 dimensions, the collection has 2" },
        { "{\"id\":\"a\",\"vector\":[]}", KITHI_E_DIMENSION, "line 3: has 0 dimensions" },
        { "{\"id\":\"\",\"vector\":[1,2]}", KITHI_E_FORMAT, "not an id" },
        { "{\"id\":\"a\\u0000b\",\"vector\":[1,2]}", KITHI_E_FORMAT, "not an id" },
        { "{\"id\":1.5,\"vector\":[1,2]}", KITHI_E_FORMAT, "an id is a string or a whole number" },
        { "{\"id\":[],\"vector\":[1,2]}", KITHI_E_FORMAT, "an id is a string or a whole number" },
        { "{\"id\":\"a\",\"vector\":[1,2],\"color\":{}}", KITHI_E_FORMAT, "known in this version" },
        { "{\"id\":\"a\",\"vector\":[1,2],\"payload\":[]}", KITHI_E_FORMAT, "line 3, byte" },
        { "{\"id\":\"a\",\"vector\":[1,2],\"payload\":{\"a\":1", KITHI_E_FORMAT, "line 3, byte" },
        { "{\"id\":\"a\",\"vector\":[1,2],\"payload\":{\"a.b\":1}}", KITHI_E_FORMAT, "line 3, byte" },
        { "{\"id\":\"a\",\"id\":\"b\",\"vector\":[1,2]}", KITHI_E_FORMAT, "line 3, byte" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"id\":\"ok\",\"vector\":[1,2]}\n\n%s\n", cases[i].line);
        expect_error(write_text("x.jsonl", text), 2, cases[i].code, cases[i].text);
    }
    char id[600], text[800];
    memset(id, 'x', sizeof id);
    snprintf(text, sizeof text, "{\"id\":\"%.512s\",\"vector\":[1,2]}", id);
    expect_error(write_text("x.jsonl", text), 2, KITHI_E_FORMAT, "1 to 511 bytes");
    snprintf(text, sizeof text, "{\"id\":\"%.511s\",\"vector\":[1.5,-2]}", id);
    id[511] = '\0';
    first_vector_is(write_text("x.jsonl", text), 1.5f, -2, id);
    expect_error(write_text("bom.jsonl", "\xef\xbb\xbf{\"id\":1,\"vector\":[1,2]}\n"), 2, KITHI_E_FORMAT,
                 "line 1: begins with a byte order mark");
}

static void a_line_without_end_is_refused_in_bounded_memory(void **state)
{
    (void)state;
    size_t len = 3u << 20;
    char *text = malloc(len);
    assert_non_null(text);
    memset(text, '1', len);
    memcpy(text, "{\"vector\":[", 11);
    expect_error(write_file("long.jsonl", text, len), 2, KITHI_E_FORMAT, "line 1: is longer than");
    free(text);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    struct kithi_errmsg err = { 0 };
    expect_error(write_text("a.csv", "1,2\n"), 2, KITHI_E_UNSUPPORTED, ".fvecs, .bvecs, .npy and .jsonl");
    assert_true(read_all(test_path(&dir, "missing.fvecs"), 2, &err) < 0);
    assert_non_null(strstr(err.text, "missing.fvecs"));
}

static void ids_are_read_a_line_each(void **state)
{
    (void)state;
    struct kithi_errmsg err = { 0 };
    struct kithi_ids_file ids;
    const char *id = NULL;
    assert_int_equal(kithi_ids_open(write_text("a.ids", "one\nt w o\n\nfour"), &ids, &err), 0);
    assert_int_equal(kithi_ids_next(&ids, &id, &err), 1);
    assert_string_equal(id, "one");
    assert_int_equal(kithi_ids_next(&ids, &id, &err), 1);
    assert_string_equal(id, "t w o");
    assert_int_equal(kithi_ids_next(&ids, &id, &err), KITHI_E_ID);
    assert_non_null(strstr(err.text, "line 3"));
    kithi_ids_close(&ids);

    struct kithi_id_list list;
    assert_int_equal(kithi_id_list_read(write_text("b.ids", "one\ntwo"), &list, &err), 0);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.text + list.off[1], "two");
    kithi_id_list_free(&list);
}

static void truth_files_are_read_whole_or_refused(void **state)
{
    (void)state;
    struct kithi_errmsg err = { 0 };
    struct kithi_ivecs iv = { 0 };
    const int32_t good[] = { 2, 7, 8, 1, 9 };
    assert_int_equal(kithi_ivecs_read(write_file("a.ivecs", good, sizeof good), &iv, &err), 0);
    assert_int_equal(iv.count, 2);
    assert_int_equal(iv.words[iv.off[1] + 1], 9);
    kithi_ivecs_free(&iv);
    const int32_t cut[] = { 2, 7, 8, 3, 9 };
    assert_int_equal(kithi_ivecs_read(write_file("b.ivecs", cut, sizeof cut), &iv, &err), KITHI_E_TRUNCATED);
    assert_non_null(strstr(err.text, "row 1 claims 3 numbers"));
    const int32_t negative[] = { -1 };
    assert_int_equal(kithi_ivecs_read(write_file("c.ivecs", negative, 4), &iv, &err), KITHI_E_TRUNCATED);
    assert_int_equal(kithi_ivecs_read(write_file("d.ivecs", good, 7), &iv, &err), KITHI_E_FORMAT);
}

static int set_up(void **state)
{
    (void)state;
    test_dir_make(&dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fvecs_and_bvecs_are_read),
        cmocka_unit_test(vecs_files_that_are_wrong_are_named_with_their_row),
        cmocka_unit_test(numpy_arrays_are_read),
        cmocka_unit_test(numpy_arrays_of_another_kind_are_refused_by_name),
        cmocka_unit_test(json_lines_are_read),
        cmocka_unit_test(json_lines_that_are_wrong_are_named_with_their_line),
        cmocka_unit_test(a_line_without_end_is_refused_in_bounded_memory),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(ids_are_read_a_line_each),
        cmocka_unit_test(truth_files_are_read_whole_or_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
