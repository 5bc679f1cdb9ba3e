/*
 * test_payload.c - the check takes one form of each object and nothing else; reading stays inside whatever the bytes are.
 */
#include "shm/payload/payload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/base/error.h"
#include "tests/support/payload.h"
#include "tests/support/rand.h"

static bool find(const struct kithi_payload *p, const char *path, struct kithi_value *out)
{
    return kithi_payload_find(p, path, strlen(path), out);
}

static bool is_text(const struct kithi_payload *p, const struct kithi_value *v, const char *text)
{
    return v->type == KITHI_PAYLOAD_STRING && v->len == strlen(text) &&
           memcmp(p->bytes + v->off, text, v->len) == 0;
}

static void fields_are_found_by_dotted_paths(void **state)
{
    (void)state;
    struct kithi_payload p = test_payload(
        "{\"lang\":\"AAA\",\"a\":{\"b\":{\"c\":7,\"d\":-5000000000},\"e\":2.5},\"t\":true,\"n\":null,"
        "\"tags\":[\"x\",\"\",\"yz\"],\"ints\":[1,-300,70000]}");
    struct kithi_value v, e;
    assert_true(find(&p, "lang", &v) && is_text(&p, &v, "AAA"));
    assert_true(find(&p, "a.b.c", &v) && v.type == KITHI_PAYLOAD_INT64 && v.integer == 7);
    assert_true(find(&p, "a.b.d", &v) && v.type == KITHI_PAYLOAD_INT64 && v.integer == -5000000000);
    assert_true(find(&p, "a.e", &v) && v.type == KITHI_PAYLOAD_DOUBLE && v.number == 2.5);
    assert_true(find(&p, "a.b", &v) && v.type == KITHI_PAYLOAD_OBJECT && v.len == 2);
    assert_true(find(&p, "t", &v) && v.type == KITHI_PAYLOAD_BOOL && v.integer == 1);
    assert_true(find(&p, "n", &v) && v.type == KITHI_PAYLOAD_NULL);
    assert_true(find(&p, "tags", &v) && v.type == KITHI_PAYLOAD_STRINGS && v.len == 3);
    assert_true(kithi_payload_element(&p, &v, 0, &e) && is_text(&p, &e, "x"));
    assert_true(kithi_payload_element(&p, &v, 1, &e) && is_text(&p, &e, ""));
    assert_true(kithi_payload_element(&p, &v, 2, &e) && is_text(&p, &e, "yz"));
    assert_false(kithi_payload_element(&p, &v, 3, &e));
    assert_true(find(&p, "ints", &v) && v.type == KITHI_PAYLOAD_INTS32 && v.len == 3);
    assert_true(kithi_payload_element(&p, &v, 1, &e) && e.type == KITHI_PAYLOAD_INT64 && e.integer == -300);
    static const char *const none[] = { "",   ".",    "x",    "lan",     "langs", "lang.x",
                                        "a.", "a.b.", "a..b", "a.b.c.d", ".a",    "tags.0" };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_false(find(&p, none[i], &v));
    test_payload_free(&p);
}

static void members_come_by_the_bytes_of_their_keys(void **state)
{
    (void)state;
    struct kithi_payload p = test_payload("{\"b\":1,\"a\":2,\"ab\":3,\"B\":4}");
    static const char *const order[] = { "B", "a", "ab", "b" };
    struct kithi_value root, v;
    char key[KITHI_PAYLOAD_KEY_MAX];
    uint32_t len;
    assert_true(kithi_payload_root(&p, &root));
    assert_int_equal(root.len, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(kithi_payload_member(&p, &root, i, key, &len, &v));
        assert_int_equal(len, strlen(order[i]));
        assert_memory_equal(key, order[i], len);
    }
    assert_false(kithi_payload_member(&p, &root, 4, key, &len, &v));
    test_payload_free(&p);
}

/* A copy of the bytes on the heap, as long as they are, changed at one place. */
static struct kithi_payload changed(const struct kithi_payload *p, uint32_t at, unsigned char to)
{
    unsigned char *copy = malloc(p->len);
    assert_non_null(copy);
    memcpy(copy, p->bytes, p->len);
    copy[at] = to;
    return (struct kithi_payload){ .bytes = copy, .len = p->len };
}

/* Everything that reading offers, to an end. */
static void read_all(const struct kithi_payload *p)
{
    struct kithi_value root, v, e;
    char key[KITHI_PAYLOAD_KEY_MAX];
    uint32_t len;
    static const char *const paths[] = {
        "a", "a.b", "a.a", "a.a.a.a.a.a.a.a", "lang", "tags", "ab.c", "b.b.b"
    };
    if (kithi_payload_root(p, &root)) {
        for (uint32_t i = 0; i < root.len; i++)
            kithi_payload_member(p, &root, i, key, &len, &v);
    }
    for (size_t n = 0; n < sizeof paths / sizeof *paths; n++) {
        if (!find(p, paths[n], &v))
            continue;
        if (v.type == KITHI_PAYLOAD_STRING)
            assert_true(v.off <= p->len && v.len <= p->len - v.off);
        for (uint32_t i = 0; kithi_payload_is_array(v.type) && i < v.len; i++) {
            if (kithi_payload_element(p, &v, i, &e) && e.type == KITHI_PAYLOAD_STRING)
                assert_true(e.off <= p->len && e.len <= p->len - e.off);
        }
        for (uint32_t i = 0; v.type == KITHI_PAYLOAD_OBJECT && i < v.len; i++)
            kithi_payload_member(p, &v, i, key, &len, &e);
    }
}

static void no_change_of_a_byte_is_taken_for_the_same_object(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\":{\"b\":[1,2,300],\"a\":9.5},\"ab\":{\"c\":9000000000},\"lang\":\"AAA\",\"tags\":[\"x\",\"yz\"],"
        "\"t\":true,\"z\":null}";
    struct kithi_payload p = test_payload(text);
    uint32_t taken = 0;
    for (uint32_t at = 0; at < p.len; at++) {
        for (unsigned to = 0; to < 256; to++) {
            if (to == p.bytes[at])
                continue;
            struct kithi_payload c = changed(&p, at, (unsigned char)to);
            if (kithi_payload_check(c.bytes, c.len, NULL) == 0 && taken++ % 16 == 0) {
                /* another object, then: it says so, and is the one form of what it says */
                char *says = test_payload_text(&c);
                struct kithi_payload again = test_payload(says);
                assert_int_equal(again.len, c.len);
                assert_memory_equal(again.bytes, c.bytes, c.len);
                assert_string_not_equal(says, text);
                test_payload_free(&again);
                free(says);
            }
            read_all(&c);
            test_payload_free(&c);
        }
    }
    assert_true(taken > 100); /* letters, digits and booleans */
    for (uint32_t len = 0; len < p.len; len++) {
        struct kithi_payload cut = { .bytes = memcpy(malloc(len + 1u), p.bytes, len), .len = len };
        assert_int_equal(kithi_payload_check(cut.bytes, len, NULL), KITHI_E_PAYLOAD);
        read_all(&cut);
        test_payload_free(&cut);
    }
    test_payload_free(&p);
}

static void bytes_that_were_never_a_payload_are_read_to_an_end(void **state)
{
    (void)state;
    struct test_rand r;
    test_rand_init(&r);
    for (int i = 0; i < 20000; i++) {
        uint32_t len = test_rand_below(&r, 200);
        unsigned char *bytes = malloc(len + 1u);
        assert_non_null(bytes);
        for (uint32_t n = 0; n < len; n++)
            bytes[n] = (unsigned char)(test_rand_below(&r, 2) ? test_rand_below(&r, 13) : test_rand_u64(&r));
        if (len >= 4) {
            bytes[0] = 1;
            bytes[1] = 0;
            bytes[3] = 0;
        }
        struct kithi_payload p = { .bytes = bytes, .len = len };
        const char *why = NULL;
        int rc = kithi_payload_check(bytes, len, &why);
        assert_true((rc == 0) == (why == NULL));
        read_all(&p);
        free(bytes);
    }
}

static void an_object_has_one_form(void **state)
{
    (void)state;
    struct test_rand r;
    test_rand_init(&r);
    for (int i = 0; i < 2000; i++) {
        char text[16384];
        test_payload_random(&r, 3, text, sizeof text);
        struct kithi_payload p = test_payload(text);
        assert_int_equal(kithi_payload_check(p.bytes, p.len, NULL), 0);
        char *says = test_payload_text(&p);
        struct kithi_payload q = test_payload(says);
        assert_int_equal(p.len, q.len);
        assert_memory_equal(p.bytes, q.bytes, p.len);
        free(says);
        test_payload_free(&p);
        test_payload_free(&q);
    }
}

static void paths_are_keys_with_dots_between(void **state)
{
    (void)state;
    static const char *const good[] = { "a", "a.b", "a b", "\xc3\xa9", "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a" };
    static const char *const bad[] = {
        "", ".", "a.", ".a", "a..b", "\xff", "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a"
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_null(kithi_payload_path_wrong(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_non_null(kithi_payload_path_wrong(bad[i], strlen(bad[i])));
    assert_non_null(kithi_payload_path_wrong("a\0b", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_found_by_dotted_paths),
        cmocka_unit_test(members_come_by_the_bytes_of_their_keys),
        cmocka_unit_test(no_change_of_a_byte_is_taken_for_the_same_object),
        cmocka_unit_test(bytes_that_were_never_a_payload_are_read_to_an_end),
        cmocka_unit_test(an_object_has_one_form),
        cmocka_unit_test(paths_are_keys_with_dots_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
