/*
 * test_request.c - what a request is answered with when its call has an end that nobody wishes for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <kith/kith.h>

#include "server/gateway/request.h"
#include "server/gateway/rest.h"

static void an_answer_that_there_is_no_memory_for_leaves_the_outcome_of_a_write_unknown(void **state)
{
    (void)state;
    struct kithi_gateway gateway = { .answers = { 0, 8 } };
    struct kithi_route route = *kithi_route_of(KITHI_REST_LIVEZ);
    for (unsigned i = 0; i < 4; i++) {
        struct kithi_request r = { .gateway = &gateway, .route = &route, .call = kithi_request_call(&route) };
        bool large = i & 1;
        route.writes = i & 2;
        kithi_text_init(&r.answer, large ? 4 : 4096, large ? NULL : &gateway.answers);
        assert_int_equal(kithi_request_run(&r), KITHI_DONE);
        assert_string_equal(r.refusal.code, route.writes ? "outcome_unknown"
                                            : large      ? "answer_too_large"
                                                         : "busy");
        assert_int_equal(r.refusal.status, large && !route.writes ? 422 : 503);
        assert_int_equal(r.refusal.outcome, route.writes ? KITHI_OUTCOME_UNKNOWN : KITHI_OUTCOME_NOTHING);
        kithi_text_fini(&r.answer);
    }
}

static void a_kithd_that_stops_may_have_noted_another_layout_and_nothing_else(void **state)
{
    (void)state;
    struct kithi_gateway gateway = { .version = "" };
    static const struct {
        enum kithi_rest_id call;
        int rc;
        enum kithi_outcome outcome;
    } list[] = { { KITHI_REST_ALTER, KITH_E_SHUTDOWN, KITHI_OUTCOME_UNKNOWN },
                 { KITHI_REST_ALTER, KITH_E_NO_DAEMON, KITHI_OUTCOME_NOTHING },
                 { KITHI_REST_DROP, KITH_E_SHUTDOWN, KITHI_OUTCOME_NOTHING },
                 { KITHI_REST_UPSERT, KITH_E_SHUTDOWN, KITHI_OUTCOME_NOTHING },
                 { KITHI_REST_UPSERT, KITH_E_TIMEOUT, KITHI_OUTCOME_UNKNOWN } };
    for (unsigned i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct kithi_request r = { .gateway = &gateway, .route = kithi_route_of(list[i].call) };
        assert_int_equal(kithi_rest_end(&r, NULL, list[i].rc, NULL, NULL), KITHI_DONE);
        assert_int_equal(r.refusal.outcome, list[i].outcome);
        assert_int_equal(!strcmp(r.refusal.code, "outcome_unknown"),
                         list[i].outcome == KITHI_OUTCOME_UNKNOWN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_that_there_is_no_memory_for_leaves_the_outcome_of_a_write_unknown),
        cmocka_unit_test(a_kithd_that_stops_may_have_noted_another_layout_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
