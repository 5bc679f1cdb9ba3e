/*
 * test_body.c - how deep a body may be, and the memory that bodies share.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/gateway/body.h"
#include "server/gateway/floats.h"

static struct kithi_budget budget;

/* depth levels of c, closed again by end. */
static size_t nested(char *out, unsigned depth, const char *open, const char *end)
{
    *out = 0;
    for (unsigned i = 0; i < depth; i++) {
        strcat(out, open);
    }
    strcat(out, "1");
    for (unsigned i = 0; i < depth; i++) {
        strcat(out, end);
    }
    return strlen(out);
}

static void a_body_is_64_levels_deep_at_most(void **state)
{
    (void)state;
    static const char *const kinds[][2] = { { "[", "]" }, { "{\"a\":", "}" }, { "{\"]\\\"}\":[[],", "]}" } };
    static const unsigned levels[] = { 1, 1, 2 };
    char text[1024];
    budget.max = 1 << 20;
    for (unsigned i = 0; i < 3; i++) {
        struct kithi_refusal r = { 0 };
        unsigned most = KITHI_JSON_DEPTH / levels[i] - (i == 2); /* it has an array inside that is empty */
        json_t *value = kithi_body_parse(text, nested(text, most, kinds[i][0], kinds[i][1]), &r);
        assert_non_null(value);
        json_decref(value);
        assert_null(kithi_body_parse(text, nested(text, most + 1, kinds[i][0], kinds[i][1]), &r));
        assert_int_equal(r.status, 400);
        assert_string_equal(r.code, "json");
        assert_non_null(strstr(r.message, "64"));
    }
    struct kithi_refusal r = { 0 };
    assert_null(kithi_body_parse("]]]]", 4, &r)); /* below 0 is no level */
    assert_int_equal(r.status, 400);
    assert_int_equal(kithi_budget_used(&budget), 0);
}

static void a_parameter_is_a_number_or_memory_is_used_up(void **state)
{
    (void)state;
    static const char *const bad[] = { "x", "", "null", "\"5\"", "[5]", "5 5" };
    budget.max = 1 << 20;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct kithi_refusal r = { 0 };
        assert_null(kithi_body_scalar("top_k", bad[i], &r));
        assert_int_equal(r.status, 400);
        assert_string_equal(r.where, "top_k");
    }
    unsigned starved = 0;
    for (budget.max = 0; budget.max < 4096; budget.max += 8) { /* every allocation fails once */
        struct kithi_refusal r = { 0 };
        json_t *value = kithi_body_scalar("top_k", "5", &r);
        starved += !value;
        assert_int_equal(r.status, value ? 0 : 503);
        assert_true(!value || json_integer_value(value) == 5);
        json_decref(value);
    }
    assert_in_range(starved, 2, 500);
    assert_int_equal(kithi_budget_used(&budget), 0);
}

static void what_kithd_says_is_read_when_bodies_have_used_up_their_memory(void **state)
{
    (void)state;
    struct kithi_refusal r = { 0 };
    budget.max = 0;
    json_t *value = kithi_body_own("{\"coming\":2,\"names\":[\"a\"]}");
    assert_non_null(value);
    assert_int_equal(kithi_budget_used(&budget), 0);
    assert_int_equal(json_integer_value(json_object_get(value, "coming")), 2);
    assert_null(kithi_body_parse("{}", 2, &r)); /* which does not hold for anything else afterwards */
    assert_int_equal(r.status, 503);
    json_decref(value);
    assert_int_equal(kithi_budget_used(&budget), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_is_64_levels_deep_at_most),
        cmocka_unit_test(a_parameter_is_a_number_or_memory_is_used_up),
        cmocka_unit_test(what_kithd_says_is_read_when_bodies_have_used_up_their_memory),
    };
    kithi_body_bound(&budget);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
