/*
 * test_change.c - merging, deleting and picking: what comes out says what it should, and passes the check.
 */
#include "shm/payload/change.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/base/error.h"
#include "tests/support/payload.h"
#include "tests/support/rand.h"

static unsigned char out[KITHI_PAYLOAD_MAX];

/* What stands in out is a payload and says this. */
static void says(int n, const char *want)
{
    assert_true(n > 0);
    assert_int_equal(kithi_payload_check(out, (size_t)n, NULL), 0);
    struct kithi_payload p = { .bytes = out, .len = (uint32_t)n };
    char *text = test_payload_text(&p);
    assert_string_equal(text, want);
    free(text);
}

static void merge(const char *base, const char *patch, const char *want)
{
    struct kithi_payload a = test_payload(base), b = test_payload(patch);
    says(kithi_payload_merge(&a, &b, out), want);
    test_payload_free(&a);
    test_payload_free(&b);
}

static void delete_all(const char *base, const char *const *paths, uint32_t count, const char *want)
{
    struct kithi_payload a = test_payload(base);
    struct kithi_payload_field fields[KITHI_PAYLOAD_FIELDS_MAX];
    for (uint32_t i = 0; i < count; i++)
        fields[i] = (struct kithi_payload_field){ paths[i], strlen(paths[i]) };
    int n = kithi_payload_delete(&a, fields, count, out);
    says(n, want);
    assert_int_equal((uint32_t)n == a.len, strcmp(base, want) == 0);
    test_payload_free(&a);
}

static void delete (const char *base, const char *path, const char *want)
{
    delete_all(base, &path, 1, want);
}

static void pick(const char *base, const char *first, const char *second, const char *want)
{
    struct kithi_payload a = test_payload(base);
    struct kithi_payload_field fields[2] = { { first, strlen(first) },
                                             { second, second ? strlen(second) : 0 } };
    says(kithi_payload_pick(&a, fields, second ? 2 : 1, out), want);
    test_payload_free(&a);
}

/* The examples of RFC 7396 that are objects on both sides, and ours. */
static void a_patch_replaces_adds_and_takes_away(void **state)
{
    (void)state;
    merge("{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}");
    merge("{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}");
    merge("{\"a\":\"b\"}", "{\"a\":null}", "{}");
    merge("{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}");
    merge("{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}");
    merge("{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}");
    merge("{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}");
    merge("{\"a\":\"foo\"}", "{\"b\":null}", "{\"a\":\"foo\"}");
    merge("{\"e\":null}", "{\"a\":1}", "{\"a\":1,\"e\":null}");
    merge("{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}");
    merge("{\"a\":1}", "{\"a\":{\"b\":2,\"c\":null}}", "{\"a\":{\"b\":2}}");
    merge("{\"a\":{\"x\":1}}", "{\"a\":{\"y\":[70000,-1]},\"z\":9000000000}",
          "{\"a\":{\"x\":1,\"y\":[70000,-1]},\"z\":9000000000}");
    merge("{\"a\":1,\"b\":2.5,\"c\":true}", "{}", "{\"a\":1,\"b\":2.5,\"c\":true}");
}

static void a_field_is_deleted_wherever_it_is(void **state)
{
    (void)state;
    static const char base[] = "{\"a\":{\"b\":1,\"c\":{\"d\":2}},\"e\":[1,2]}";
    delete (base, "a", "{\"e\":[1,2]}");
    delete (base, "a.b", "{\"a\":{\"c\":{\"d\":2}},\"e\":[1,2]}");
    delete (base, "a.c.d", "{\"a\":{\"b\":1,\"c\":{}},\"e\":[1,2]}");
    delete (base, "e", "{\"a\":{\"b\":1,\"c\":{\"d\":2}}}");
    delete (base, "x", base);
    delete (base, "a.x", base);
    delete (base, "e.x", base);
    delete ("{\"n\":null}", "n", "{}");
    delete ("{\"ab\":1,\"a\":{\"b\":2}}", "a", "{\"ab\":1}");
}

static void fields_are_deleted_together(void **state)
{
    (void)state;
    static const char base[] = "{\"a\":{\"b\":1,\"c\":{\"d\":2}},\"e\":[1,2],\"f\":3}";
    delete_all(base, (const char *const[]){ "a.b", "a.c.d", "e" }, 3, "{\"a\":{\"c\":{}},\"f\":3}");
    delete_all(base, (const char *const[]){ "a.c.d", "a.c", "x", "e.y" }, 4,
               "{\"a\":{\"b\":1},\"e\":[1,2],\"f\":3}");
    delete_all(base, (const char *const[]){ "a", "a.b", "f", "f", "e" }, 5, "{}");
    delete_all(base, NULL, 0, base);
    struct kithi_payload a = test_payload(base);
    static const struct kithi_payload_field many[KITHI_PAYLOAD_FIELDS_MAX + 1];
    assert_int_equal(kithi_payload_delete(&a, many, KITHI_PAYLOAD_FIELDS_MAX + 1, out), KITHI_E_PAYLOAD);
    test_payload_free(&a);
}

static void picked_fields_stay_where_they_were(void **state)
{
    (void)state;
    static const char base[] = "{\"a\":{\"b\":1,\"c\":{\"d\":2,\"x\":3}},\"e\":[1,2],\"f\":{}}";
    pick(base, "e", NULL, "{\"e\":[1,2]}");
    pick(base, "a.c.d", "e", "{\"a\":{\"c\":{\"d\":2}},\"e\":[1,2]}");
    pick(base, "a.c", "a.c.d", "{\"a\":{\"c\":{\"d\":2,\"x\":3}}}");
    pick(base, "a.b", "a.c.x", "{\"a\":{\"b\":1,\"c\":{\"x\":3}}}");
    pick(base, "a.z", "zz", "{}");
    pick(base, "e.x", "f", "{\"f\":{}}");
    pick(base, "f.x", NULL, "{}");
}

static void a_merge_that_is_too_large_is_refused(void **state)
{
    (void)state;
    char *text = malloc(80000);
    assert_non_null(text);
    strcpy(text, "{\"a\":\"");
    memset(text + 6, 'x', 40000);
    strcpy(text + 40006, "\"}");
    struct kithi_payload a = test_payload(text);
    text[2] = 'b';
    struct kithi_payload b = test_payload(text);
    assert_int_equal(kithi_payload_merge(&a, &b, out), KITHI_E_PAYLOAD);
    assert_int_equal(kithi_payload_merge(&a, &a, out), (int)a.len);
    test_payload_free(&a);
    test_payload_free(&b);
    free(text);
}

static void merging_is_deleting_and_replacing(void **state)
{
    (void)state;
    struct test_rand r;
    test_rand_init(&r);
    for (int i = 0; i < 3000; i++) {
        char text[16384], patch[16384];
        test_payload_random(&r, 2, text, sizeof text);
        test_payload_random(&r, 2, patch, sizeof patch);
        struct kithi_payload a = test_payload(text), b = test_payload(patch);
        int n = kithi_payload_merge(&a, &b, out);
        assert_true(n > 0);
        assert_int_equal(kithi_payload_check(out, (size_t)n, NULL), 0);

        /* Each member of the first level is that of the patch, or gone with null, or that of base. */
        struct kithi_payload m = { .bytes = out, .len = (uint32_t)n };
        struct kithi_value root, v, got, from;
        char key[KITHI_PAYLOAD_KEY_MAX];
        uint32_t len;
        assert_true(kithi_payload_root(&b, &root));
        for (uint32_t k = 0; k < root.len; k++) {
            assert_true(kithi_payload_member(&b, &root, k, key, &len, &v));
            bool there = kithi_payload_find(&m, key, len, &got);
            assert_true(there == (v.type != KITHI_PAYLOAD_NULL));
            assert_true(!there || got.type == v.type);
        }
        assert_true(kithi_payload_root(&a, &root));
        for (uint32_t k = 0; k < root.len; k++) {
            assert_true(kithi_payload_member(&a, &root, k, key, &len, &v));
            if (!kithi_payload_find(&b, key, len, &from)) {
                assert_true(kithi_payload_find(&m, key, len, &got));
                assert_int_equal(got.type, v.type);
                assert_int_equal(got.len, v.len);
            }
        }

        /* A patch has no say twice, and what it put in is what deleting its fields takes out. */
        struct kithi_payload once = { .bytes = memcpy(malloc((size_t)n), out, (size_t)n),
                                      .len = (uint32_t)n };
        assert_int_equal(kithi_payload_merge(&once, &b, out), n);
        assert_memory_equal(out, once.bytes, once.len);
        static const struct kithi_payload_field lang = { "lang", 4 };
        int after = kithi_payload_delete(&once, &lang, 1, out);
        assert_int_equal(kithi_payload_check(out, (size_t)after, NULL), 0);
        struct kithi_payload d = { .bytes = out, .len = (uint32_t)after };
        assert_false(kithi_payload_find(&d, "lang", 4, &v));
        test_payload_free(&once);
        test_payload_free(&a);
        test_payload_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_patch_replaces_adds_and_takes_away),
        cmocka_unit_test(a_field_is_deleted_wherever_it_is),
        cmocka_unit_test(fields_are_deleted_together),
        cmocka_unit_test(picked_fields_stay_where_they_were),
        cmocka_unit_test(a_merge_that_is_too_large_is_refused),
        cmocka_unit_test(merging_is_deleting_and_replacing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
