/*
 * test_rates.c - what kith top makes of two answers of kithd.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/rand.h"
#include "tools/top/frame.h"
#include "tools/top/rates.h"

/* For look.c, which is linked whole. */
const char *kithi_tool_run_dir(const struct kithi_tool *t, const char **out_rule)
{
    (void)t;
    (void)out_rule;
    return "/run/kith";
}

static const char FIRST[] =
    "{\"name\":\"c\",\"epoch\":10,\"durable_epoch\":10,\"waiting\":2,\"requests\":30,\"refused\":1,\"groups\":100,"
    "\"ops\":1000,\"op_bytes\":5000,\"sync_us_max\":900,\"sync_us_below_pow2\":[0,0,0,0,0,0,0,0,4,0,1],"
    "\"checkpoint_epoch\":7,\"checkpoint_time\":1000,\"checkpoint_running\":true,\"sweeping\":false,\"up_ms\":5000,"
    "\"repair_waiting\":40,\"repair_running\":7,\"repair_oldest_ms\":350,\"repaired\":1000,"
    "\"io\":\"uring\",\"workers\":2,\"version\":\"9.8.7\",\"new in a later version\":[{\"a\":[1]}],"
    "\"readers\":{\"alive\":2,\"gone\":1,\"strange\":0,\"untimed\":0,\"age_ms\":0,\"searches\":50,\"failures\":0,"
    "\"expansions\":500,\"restarts\":0,\"lag\":5,\"lag_max\":3,\"latency_ns\":[[16384,40],[32768,10]],"
    "\"list\":[{\"slot\":3,\"uid\":0,\"pid\":9,\"program\":\"a\\u0007\",\"opened\":77,\"epoch\":9,\"searches\":40,"
    "\"failures\":0,\"expansions\":400,\"restarts\":0,\"lag\":0,\"lag_max\":0,\"p50_ns\":16000,\"p99_ns\":33000}]}}";
static const char SECOND[] =
    "{\"groups\":120,\"repaired\":1500,\"ops\":1400,\"op_bytes\":9000,\"refused\":1,\"up_ms\":7000,\"sync_us_max\":900,"
    "\"sync_us_below_pow2\":[0,0,0,0,0,0,0,0,4,0,21],"
    "\"readers\":{\"alive\":2,\"searches\":250,\"failures\":2,\"expansions\":4500,\"restarts\":4,\"lag\":105,\"lag_max\":9,"
    "\"latency_ns\":[[16384,40],[32768,206],[1048576,4]],"
    "\"list\":[{\"slot\":3,\"pid\":9,\"opened\":77,\"searches\":140,\"expansions\":1400,\"lag\":50}]}}";

static struct kithi_top_collection *two_looks(const char *first, const char *second)
{
    struct kithi_top_collection *c = calloc(1, sizeof *c);
    assert_non_null(c);
    assert_int_equal(kithi_top_parse(first, strlen(first), &c->before), 0);
    assert_int_equal(kithi_top_parse(second, strlen(second), &c->now), 0);
    c->name = (char *)(uintptr_t) "c";
    c->looks = 2;
    c->now.taken_ns = 2500000000;
    return c;
}

static void near(double a, double b)
{
    if (!(fabs(a - b) <= 0.07 * fabs(b) + 1e-9))
        fail_msg("%g is not %g", a, b);
}

static void an_answer_is_understood_and_what_is_new_in_it_passed_over(void **state)
{
    (void)state;
    struct kithi_top_collection *c = two_looks(FIRST, SECOND);
    const struct kithi_top_look *l = &c->before;
    assert_true(l->daemon && l->counted && l->checkpoint_running && !l->sweeping);
    assert_string_equal(l->version, "9.8.7");
    assert_string_equal(l->io, "uring");
    near(l->waiting, 2);
    near(l->repair_waiting, 40);
    near(l->repair_running, 7);
    near(l->repair_oldest_ms, 350);
    near(l->checkpoint_epoch, 7);
    near(l->alive, 2);
    near(l->latency[kithi_board_bucket(16384)], 40);
    assert_int_equal(l->reader_count, 1);
    near(l->readers[0].p99_ns, 33000);
    free(c);
}

static void rates_are_by_the_daemons_clock(void **state)
{
    (void)state;
    struct kithi_top_collection *c = two_looks(FIRST, SECOND);
    struct kithi_top_rates r;
    struct kithi_top_reader_rates one;
    kithi_top_rates(c, &r);
    near(r.seconds, 2); /* not 2.5, which this side has waited */
    near(r.groups, 10);
    near(r.ops, 200);
    near(r.bytes, 2000);
    near(r.refused, 0);
    near(r.repaired, 250);
    near(r.ops_per_group, 20);
    near(r.flush_p50_us, 768); /* 20 of them between 512 and 1024 us */
    assert_true(r.flush_p99_us > r.flush_p50_us && r.flush_p99_us <= 1024);
    near(r.searches, 100);
    near(r.failures, 1);
    near(r.restarts, 2);
    near(r.expansions, 20);
    near(r.lag, 0.5);
    near(r.p50_us, 32.768);
    near(r.p999_us, 1048.576); /* 4 of 200 */
    kithi_top_reader_rates(c, &c->now.readers[0], &one);
    near(one.searches, 50);
    near(one.expansions, 10);
    near(one.lag, 0.5);
    /* Another reader that has the same slot by now. */
    c->now.readers[0].pid = 10;
    kithi_top_reader_rates(c, &c->now.readers[0], &one);
    assert_true(isnan(one.searches));
    free(c);
}

static void what_is_unknown_is_no_number(void **state)
{
    (void)state;
    struct kithi_top_rates r;
    struct kithi_top_collection *c = two_looks(FIRST, SECOND);
    c->looks = 1;
    kithi_top_rates(c, &r);
    assert_true(isnan(r.seconds) && isnan(r.groups) && isnan(r.searches) && isnan(r.p50_us));
    free(c);
    c = two_looks(SECOND, FIRST); /* kithd was started in between: it counts from 0 again */
    kithi_top_rates(c, &r);
    assert_true(isnan(r.groups) && isnan(r.searches) && isnan(r.p50_us) && isnan(r.flush_p50_us));
    free(c);
    c = two_looks(FIRST, FIRST); /* nothing happened */
    c->now.up_ms += 1000;
    kithi_top_rates(c, &r);
    near(r.groups, 0);
    near(r.searches, 0);
    assert_true(isnan(r.ops_per_group) && isnan(r.p50_us) && isnan(r.expansions) && isnan(r.flush_p50_us));
    free(c);
    c = two_looks(FIRST, "{\"up_ms\":6000,\"groups\":100,\"readers\":null}");
    kithi_top_rates(c, &r);
    near(r.groups, 0);
    assert_true(isnan(r.searches));
    free(c);
}

static void figures_that_shrink_are_no_rates(void **state)
{
    (void)state;
    struct kithi_top_rates r;
    struct kithi_top_collection *c =
        two_looks(FIRST, "{\"up_ms\":6000,\"groups\":1,\"readers\":{\"searches\":1,\"latency_ns\":[]}}");
    kithi_top_rates(c, &r);
    near(r.groups, 0);
    near(r.searches, 0);
    assert_true(isnan(r.p50_us));
    free(c);
}

static char *drawn(const struct kithi_top_collection *c, bool json)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    const struct kithi_top_frame frame = {
        .run_dir = "/run/kith", .collections = c, .count = 1, .interval = 1, .time_ms = 1000000
    };
    assert_non_null(f);
    if (json)
        kithi_top_json(f, &frame);
    else
        kithi_top_draw(f, &frame);
    fclose(f);
    return text;
}

static void frames_are_plain_text_and_json(void **state)
{
    (void)state;
    struct kithi_top_collection *c = two_looks(FIRST, SECOND);
    struct kithi_top_look again;
    memset(&again, 0, sizeof again);
    strcpy(c->now.readers[0].program, "\x1b[2J\"");
    strcpy(c->problem, "because \x1b]0;title\x07");
    char *text = drawn(c, false);
    assert_null(strchr(text, '\x1b'));
    assert_null(strchr(text, '\x07'));
    assert_non_null(strstr(text, "SEARCHES/s"));
    free(text);
    text = drawn(c, true);
    assert_null(strchr(text, '\x1b'));
    assert_int_equal(text[strlen(text) - 1], '\n');
    assert_int_equal(kithi_top_parse(text, strlen(text) - 1, &again), 0); /* it is JSON */
    assert_non_null(strstr(text, "\"searches_per_s\":100,"));
    assert_non_null(strstr(text, "\"epoch\":null,"));
    free(text);
    free(c);
}

static void answers_that_are_none_are_refused(void **state)
{
    (void)state;
    struct test_rand r;
    struct kithi_top_look *l = malloc(sizeof *l);
    char bytes[sizeof FIRST];
    assert_non_null(l);
    test_rand_init(&r);
    for (size_t len = 0; len + 1 < sizeof FIRST - 1; len++) {
        memset(l, 0, sizeof *l);
        assert_true(kithi_top_parse(FIRST, len, l) < 0);
        assert_false(l->daemon);
    }
    for (int i = 0; i < 20000; i++) {
        memcpy(bytes, FIRST, sizeof FIRST);
        for (uint32_t n = 1 + test_rand_below(&r, 6); n > 0; n--)
            bytes[test_rand_below(&r, sizeof FIRST - 1)] = (char)test_rand_u64(&r);
        memset(l, 0, sizeof *l);
        kithi_top_parse(bytes, sizeof FIRST - 1,
                        l); /* a library's reader, in the process of the one who looks */
        assert_true(l->reader_count <= KITHI_TOP_READERS);
    }
    free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_is_understood_and_what_is_new_in_it_passed_over),
        cmocka_unit_test(rates_are_by_the_daemons_clock),
        cmocka_unit_test(what_is_unknown_is_no_number),
        cmocka_unit_test(figures_that_shrink_are_no_rates),
        cmocka_unit_test(frames_are_plain_text_and_json),
        cmocka_unit_test(answers_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
