/*
 * test_route.c - which call a path is, and what stands behind the '?'.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/gateway/query.h"
#include "server/gateway/route.h"

static struct kithi_target target;

static bool find(enum kithi_http_method method, const char *path)
{
    return kithi_route_find(method, (struct kithi_part){ path, strlen(path) }, &target);
}

static void every_route_is_found_by_its_pattern(void **state)
{
    (void)state;
    for (unsigned i = 0; i < KITHI_REST_IDS; i++) {
        const struct kithi_route *r = kithi_route_of((enum kithi_rest_id)i);
        char path[256];
        size_t len = 0;
        assert_int_equal(r->call, i);
        for (const char *p = r->pattern; *p; p++) {
            if (*p == '{') {
                len += (size_t)snprintf(path + len, sizeof path - len, "%s", p[1] == 'c' ? "docs" : "a%2Fb");
                p = strchr(p, '}');
            } else {
                path[len++] = *p;
            }
        }
        path[len] = 0;
        assert_true(find(r->method, path));
        assert_ptr_equal(target.route, r);
        assert_string_equal(target.collection, strstr(r->pattern, "{c}") ? "docs" : "");
        assert_string_equal(target.id, strstr(r->pattern, "{id}") ? "a/b" : "");
    }
}

static void other_paths_and_methods_are_told_apart(void **state)
{
    (void)state;
    assert_true(find(KITHI_HTTP_GET, "/livez/") && !target.path_known);
    assert_true(find(KITHI_HTTP_GET, "//livez") && !target.path_known);
    assert_true(find(KITHI_HTTP_GET, "/") && target.route->call == KITHI_REST_PAGE);
    assert_true(find(KITHI_HTTP_GET, "//") && !target.path_known);
    assert_true(find(KITHI_HTTP_GET, "") && !target.path_known);
    assert_true(find(KITHI_HTTP_GET, "/collections/a/b") && !target.path_known);
    assert_true(find(KITHI_HTTP_POST, "/livez") && target.path_known && !target.route);
    assert_string_equal(target.allow, "GET");
    assert_true(find(KITHI_HTTP_OTHER, "/collections/docs") && target.path_known && !target.route);
    assert_string_equal(target.allow, "PUT, GET, PATCH, DELETE");
    assert_true(find(KITHI_HTTP_HEAD, "/livez") && target.route);
    assert_false(find(KITHI_HTTP_GET, "/collections/a.b"));
    assert_false(find(KITHI_HTTP_GET, "/collections/docs/vectors/"));
    assert_false(find(KITHI_HTTP_GET, "/collections/docs/vectors/%0"));
    assert_false(find(KITHI_HTTP_GET, "/collections/docs/vectors/a%00"));
    assert_false(find(KITHI_HTTP_GET, "/collections/docs/vectors/%c3"));
}

static void parameters_occur_once_and_are_known(void **state)
{
    (void)state;
    static struct kithi_query q;
    const char *why = NULL;
    static const char good[] = "a=1&b=x%20y+z&c";
    assert_int_equal(kithi_query_parse((struct kithi_part){ good, sizeof good - 1 }, &q, &why), 0);
    assert_string_equal(kithi_query_get(&q, "b"), "x y z");
    assert_string_equal(kithi_query_get(&q, "c"), "");
    assert_null(kithi_query_get(&q, "d"));
    assert_string_equal(kithi_query_unknown(&q), "a");
    assert_string_equal(kithi_query_get(&q, "a"), "1");
    assert_null(kithi_query_unknown(&q));
    static const char *const bad[] = { "a=1&a=1", "a=1&%61=2", "a=%",
                                       "a=%00",   "a=%ff",     "=1",
                                       "&",       "a&&b",      "a&b&c&d&e&f&g&h&i&j&k&l&m&n&o&p&q" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(kithi_query_parse((struct kithi_part){ bad[i], strlen(bad[i]) }, &q, &why), -1);
        assert_non_null(why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_is_found_by_its_pattern),
        cmocka_unit_test(other_paths_and_methods_are_told_apart),
        cmocka_unit_test(parameters_occur_once_and_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
