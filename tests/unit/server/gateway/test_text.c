/*
 * test_text.c - bytes that grow, up to a ceiling and a budget, and what JSON and refusals look like.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <kith/kith.h>

#include "server/gateway/body.h"
#include "server/gateway/refusal.h"
#include "server/gateway/text.h"

static void a_text_has_a_ceiling_and_a_budget(void **state)
{
    (void)state;
    struct kithi_budget budget = { 0, 2000 };
    struct kithi_text t, other;
    kithi_text_init(&t, 1000, &budget);
    kithi_text_init(&other, 4000, &budget);
    assert_string_equal(t.at, "");
    kithi_text_str(&t, "abc");
    kithi_text_printf(&t, "%d", 5);
    assert_string_equal(t.at, "abc5");
    for (unsigned i = 0; i < 249; i++) {
        kithi_text_str(&t, "1234");
    }
    assert_int_equal(t.len, 1000);
    assert_int_equal(t.failed, 0);
    kithi_text_str(&t, "x");
    assert_int_equal(t.failed, -EFBIG);
    assert_int_equal(t.len, 1000);
    assert_int_equal(kithi_budget_used(&budget), 1001);
    assert_false(kithi_text_room(&other, 1500));
    assert_int_equal(other.failed, -EDQUOT);
    kithi_text_fini(&t);
    kithi_text_fini(&other);
    assert_int_equal(kithi_budget_used(&budget), 0);
    assert_true(kithi_text_room(&other, 1000));
    kithi_text_fini(&other);
}

static void strings_and_floats_are_json(void **state)
{
    (void)state;
    struct kithi_text t;
    kithi_text_init(&t, 1000, NULL);
    kithi_text_json(&t, "a\"\\\n\x01\x7f\xc3\xa9\xff\xc3z", 11);
    assert_string_equal(t.at, "\"a\\\"\\\\\\n\\u0001\\u007f\xc3\xa9??z\"");
    kithi_text_cut(&t, 0);
    const float values[] = { 0.1f, -1.0f, 1e30f, 16777217.0f, 1.17549435e-38f, 0.333333343f };
    for (unsigned i = 0; i < sizeof values / sizeof values[0]; i++) {
        kithi_text_float(&t, values[i]);
        kithi_text_str(&t, " ");
    }
    assert_string_equal(t.at, "0.1 -1 1e+30 16777216 1.1754944e-38 0.33333334 ");
    kithi_text_cut(&t, 0);
    kithi_text_float(&t, 1e38f * 10);
    assert_string_equal(t.at, "null");
    kithi_text_fini(&t);
}

static void a_refusal_keeps_its_first_reason(void **state)
{
    (void)state;
    struct kithi_refusal r = { 0 };
    assert_int_equal(kithi_refuse(&r, 429, "a", "here", "%d", 5), -1);
    assert_int_equal(kithi_refuse_kith(&r, KITH_E_FULL, NULL, NULL), -1);
    assert_string_equal(r.message, "5");
    assert_int_equal(r.retry_s, 1);
    static const struct {
        int rc, status;
        enum kithi_outcome outcome;
    } list[] = { { KITH_E_NO_DAEMON, 503, KITHI_OUTCOME_NOTHING },
                 { KITH_E_UNKNOWN_OUTCOME, 503, KITHI_OUTCOME_UNKNOWN },
                 { KITH_E_LOG_FAILED, 503, KITHI_OUTCOME_UNKNOWN },
                 { KITH_E_FULL, 507, KITHI_OUTCOME_NOTHING },
                 { -EUSERS, 503, KITHI_OUTCOME_NOTHING },
                 { KITH_E_DIMENSION, 422, KITHI_OUTCOME_NOTHING },
                 { KITH_E_CORRUPT, 500, KITHI_OUTCOME_NOTHING } };
    for (unsigned i = 0; i < sizeof list / sizeof list[0]; i++) {
        r = (struct kithi_refusal){ 0 };
        kithi_refuse_kith(&r, list[i].rc, NULL, NULL);
        assert_int_equal(r.status, list[i].status);
        assert_int_equal(r.outcome, list[i].outcome);
        assert_true(strlen(r.message) > 0);
    }
}

static void members_are_of_their_type_or_refused(void **state)
{
    (void)state;
    static const char text[] = "{\"n\":5,\"big\":4294967296,\"b\":true,\"s\":\"x\",\"none\":null,\"odd\":1}";
    struct kithi_refusal r = { 0 };
    struct kithi_body_object o;
    json_t *value = kithi_body_parse(text, sizeof text - 1, &r);
    uint32_t n = 7, none = 9;
    bool b = false;
    const char *s = NULL;
    assert_non_null(value);
    assert_true(kithi_body_object(&o, value, "points[2]", &r));
    assert_true(kithi_body_u32(&o, "n", 1, 5, &n) && n == 5);
    assert_true(kithi_body_u32(&o, "none", 1, 5, &none) && none == 9);
    assert_true(kithi_body_bool(&o, "b", &b) && b);
    assert_true(kithi_body_string(&o, "s", &s) && !strcmp(s, "x"));
    assert_false(kithi_body_u32(&o, "big", 1, UINT32_MAX, &n));
    assert_int_equal(r.status, 422);
    assert_string_equal(r.where, "points[2].big");
    r = (struct kithi_refusal){ 0 };
    assert_false(kithi_body_end(&o));
    assert_string_equal(r.code, "unknown_member");
    assert_string_equal(r.where, "points[2].odd");
    json_decref(value);
    static const char *const bad[] = { "",     "{",   "{}x", "{\"a\":1,\"a\":2}", "{\"a\":\"\\u0000\"}",
                                       "[1,]", "nul", "\xff" };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        r = (struct kithi_refusal){ 0 };
        assert_null(kithi_body_parse(bad[i], strlen(bad[i]), &r));
        assert_int_equal(r.status, 400);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_has_a_ceiling_and_a_budget),
        cmocka_unit_test(strings_and_floats_are_json),
        cmocka_unit_test(a_refusal_keeps_its_first_reason),
        cmocka_unit_test(members_are_of_their_type_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
