/*
 * test_match.c - searches under a filter: always k hits or all that match, each of them a match at the epoch, and as near as brute
 * force says, whichever plan answered.
 */
#include "shm/graph/match.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/base/error.h"
#include "shm/graph/scroll.h"
#include "shm/graph/search.h"
#include "tests/support/payload.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM      16u
#define MANY     6000u
#define CLUSTERS 6u
#define K        10u
#define QUERIES  30u

static unsigned char buffer[KITHI_PAYLOAD_MAX];

/* What an id is: everything that filters below ask about. */
struct doc {
    bool has; /* a payload at all */
    int n;    /* 0..9999, evenly */
    int cluster;
};

struct world {
    struct test_solo t;
    struct test_rand r;
    float *vectors; /* of MANY ids, "0", "1", ... */
    struct doc *docs;
};

static void json_of(const struct doc *d, char out[128])
{
    snprintf(out, 128,
             "{\"n\":%d,\"cluster\":\"c%d\",\"share\":%.4f,\"tags\":[\"t%d\",\"x\"],\"of\":{\"n\":%d}}", d->n,
             d->cluster, d->n / 10000.0, d->n % 3, d->n);
}

/* An upsert of an id with its payload, or with op SET of its payload alone. The payload stays the test's. */
static struct kithi_op op_of(const char *name, const float *vector, const struct doc *d,
                             struct kithi_payload *p)
{
    char text[128];
    struct kithi_op op = test_upsert(name, vector, DIM);
    if (!vector)
        op = (struct kithi_op){ .type = KITHI_OP_SET, .id = name, .id_len = (uint16_t)strlen(name) };
    p->bytes = NULL;
    if (!d->has && vector)
        return op;
    if (d->has) {
        json_of(d, text);
        *p = test_payload(text);
        op.payload = p->bytes;
        op.payload_len = p->len;
    }
    if (vector)
        op.flags = KITHI_OP_PAYLOAD;
    return op;
}

static void open_world(struct world *w, uint32_t count)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 2 * count + 200);
    float centres[CLUSTERS * DIM];
    test_rand_init(&w->r);
    test_solo_open(&w->t, &g);
    w->vectors = malloc((size_t)count * DIM * sizeof *w->vectors);
    w->docs = calloc(count, sizeof *w->docs);
    assert_true(w->vectors && w->docs);
    test_rand_floats(&w->r, centres, CLUSTERS * DIM);
    for (uint32_t at = 0; at < count;) {
        char names[100][16];
        struct kithi_op ops[100];
        struct kithi_payload payloads[100];
        uint32_t n = 0;
        for (; n < 100 && at < count; n++, at++) {
            struct doc *d = &w->docs[at];
            float *v = w->vectors + (size_t)at * DIM;
            *d = (struct doc){ .has = test_rand_below(&w->r, 50) != 0,
                               .n = (int)test_rand_below(&w->r, 10000),
                               .cluster = (int)test_rand_below(&w->r, CLUSTERS) };
            test_rand_floats(&w->r, v, DIM);
            for (uint32_t i = 0; i < DIM; i++)
                v[i] = 0.4f * v[i] + 3 * centres[(uint32_t)d->cluster * DIM + i];
            snprintf(names[n], sizeof names[n], "%u", at);
            ops[n] = op_of(names[n], v, d, &payloads[n]);
        }
        assert_int_equal(test_solo_commit(&w->t, ops, n), 0);
        for (uint32_t i = 0; i < n; i++)
            test_payload_free(&payloads[i]);
    }
}

static void close_world(struct world *w)
{
    assert_true(test_solo_clean(&w->t));
    test_solo_close(&w->t);
    free(w->vectors);
    free(w->docs);
}

static struct kithi_condition condition_of(const char *text)
{
    struct kithi_condition c = { .payload = buffer };
    struct kithi_filter *f;
    struct kithi_errmsg err;
    if (kithi_filter_parse(text, strlen(text), &f, &err) < 0)
        fail_msg("%s", err.text);
    c.filter = f;
    return c;
}

static void condition_free(struct kithi_condition *c)
{
    kithi_candidates_fini(&c->candidates);
    kithi_filter_free((struct kithi_filter *)c->filter);
}

/* The conditions, and what they mean without any filter. */
enum what { BELOW, OTHER_CLUSTER, NOT_BELOW, TAG, WITHOUT, ANY };

static bool is_match(const struct doc *d, enum what what, int number)
{
    switch (what) {
    case BELOW: return d->has && d->n < number;
    case OTHER_CLUSTER: return d->has && d->cluster == number;
    case NOT_BELOW: return !(d->has && d->n < number);
    case TAG: return d->has && d->n % 3 == 1 && d->n >= number;
    case ANY: return true;
    default: return !d->has;
    }
}

static void text_of(enum what what, int number, char out[128])
{
    switch (what) {
    case BELOW: snprintf(out, 128, "n < %d and exists(of.n)", number); break;
    case OTHER_CLUSTER: snprintf(out, 128, "cluster = \"c%d\"", number); break;
    case NOT_BELOW: snprintf(out, 128, "not share < %.4f", number / 10000.0); break;
    case TAG: snprintf(out, 128, "tags = 't1' and of.n >= %d", number); break;
    default: snprintf(out, 128, "not exists(n)"); break;
    }
}

struct ranked {
    float d;
    uint32_t id;
};

static int by_distance(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return (x->d > y->d) - (x->d < y->d);
}

/* The ids that match, nearest first. */
static uint32_t truth(const struct world *w, const float *query, enum what what, int number,
                      struct ranked *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < MANY; i++) {
        if (!is_match(&w->docs[i], what, number))
            continue;
        out[n] = (struct ranked){ .id = i };
        for (uint32_t k = 0; k < DIM; k++) {
            float x = w->vectors[i * DIM + k] - query[k];
            out[n].d += x * x;
        }
        n++;
    }
    qsort(out, n, sizeof *out, by_distance);
    return n;
}

static int search(struct world *w, const float *query, struct kithi_condition *c, bool exact)
{
    const struct kithi_search_params p = { .k = K, .ef = 100, .exact = exact, .condition = c };
    return kithi_search(test_solo_map(&w->t), &w->t.scratch, query, &p, &w->t.results);
}

/* Every hit is a match, there are as many as there may be; returns how many of the true ones are among them. */
static uint32_t judge(const struct world *w, int n, enum what what, int number, const struct ranked *all,
                      uint32_t matches)
{
    uint32_t want = matches < K ? matches : K, good = 0;
    assert_int_equal(n, want);
    for (uint32_t i = 0; i < want; i++) {
        uint32_t id = (uint32_t)strtoul(test_solo_hit(&w->t, i), NULL, 10);
        assert_true(is_match(&w->docs[id], what, number));
        good += w->t.results.hits[i].distance <= all[want - 1].d * 1.0001f + 1e-5f;
    }
    return good;
}

static void any_share_of_matches_is_answered_as_brute_force_does(void **state)
{
    struct world *w = *state;
    static const struct {
        enum what what;
        int number;
    } all[] = { { BELOW, 10000 },    { BELOW, 5000 },    { BELOW, 2000 },      { BELOW, 1000 },
                { BELOW, 500 },      { BELOW, 100 },     { BELOW, 20 },        { BELOW, 3 },
                { BELOW, 0 },        { NOT_BELOW, 100 }, { NOT_BELOW, 9900 },  { TAG, 0 },
                { TAG, 9000 },       { WITHOUT, 0 },     { OTHER_CLUSTER, 0 }, { OTHER_CLUSTER, 3 },
                { OTHER_CLUSTER, 9 } };
    struct ranked *ranks = malloc(MANY * sizeof *ranks);
    uint32_t plans[KITHI_PLAN_HOPS + 1] = { 0 };
    assert_non_null(ranks);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char text[128];
        text_of(all[i].what, all[i].number, text);
        struct kithi_condition c = condition_of(text);
        uint32_t good = 0, wanted = 0, missed = 0;
        for (uint32_t q = 0; q < QUERIES; q++) {
            float query[DIM];
            uint32_t near = test_rand_below(&w->r, MANY);
            test_rand_floats(&w->r, query, DIM);
            for (uint32_t k = 0; k < DIM; k++)
                query[k] = w->vectors[near * DIM + k] + 0.2f * query[k];
            uint32_t everything = truth(w, query, ANY, 0, ranks);
            missed += K - judge(w, search(w, query, NULL, false), ANY, 0, ranks, everything);
            uint32_t matches = truth(w, query, all[i].what, all[i].number, ranks);
            uint32_t want = matches < K ? matches : K;
            good += judge(w, search(w, query, &c, false), all[i].what, all[i].number, ranks, matches);
            wanted += want;
            plans[c.plan]++;
            if (c.plan == KITHI_PLAN_SCAN || c.plan == KITHI_PLAN_WALK_SCAN) /* it saw everything */
                assert_true(c.matched >= matches && w->t.results.stats.scanned);
            assert_int_equal(judge(w, search(w, query, &c, true), all[i].what, all[i].number, ranks, matches),
                             want);
            assert_int_equal(c.matched, matches);
            assert_in_range(c.evaluated, matches, MANY); /* postings leave some out */
        }
        /* A walk may end among clusters beside the query's, with a filter or without. */
        if (good + missed < wanted * 97 / 100)
            fail_msg("%s: %u of %u, %u missed without it", text, good, wanted, missed);
        condition_free(&c);
    }
    assert_true(plans[KITHI_PLAN_WALK] > 0 && plans[KITHI_PLAN_SCAN] > 0);
    free(ranks);
}

/* In a collection as large as hops are for. */
static void each_plan_is_the_cheapest_somewhere(void **state)
{
    (void)state;
    static const struct {
        double share, density;
        uint64_t looks; /* that postings leave; 0: they do not know the condition */
        enum kithi_plan plan;
        enum kithi_plan_reason reason;
    } all[] = { { 1, 1, 0, KITHI_PLAN_WALK, KITHI_PLAN_MANY },
                { 0.5, 0.9, 0, KITHI_PLAN_WALK, KITHI_PLAN_MANY },
                { 0.05, 0.05, 0, KITHI_PLAN_WALK, KITHI_PLAN_MANY },
                { 0.05, 0.7, 0, KITHI_PLAN_HOPS, KITHI_PLAN_SOME },
                { 0.01, 0.5, 0, KITHI_PLAN_HOPS, KITHI_PLAN_SOME },
                { 0.01, 0.01, 0, KITHI_PLAN_WALK, KITHI_PLAN_MANY },
                { 0.001, 0.001, 0, KITHI_PLAN_SCAN, KITHI_PLAN_FEW },
                { 0.00001, 0.8, 0, KITHI_PLAN_SCAN, KITHI_PLAN_FEW },
                { 0.05, 0.05, 20000, KITHI_PLAN_WALK, KITHI_PLAN_MANY },
                { 0.01, 0.01, 4000, KITHI_PLAN_SCAN, KITHI_PLAN_FEW },
                { 0.01, 0.01, 300000, KITHI_PLAN_WALK, KITHI_PLAN_MANY } };
    struct kithi_view v = { .slots_used = 400000 };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct kithi_estimate e = { .share = all[i].share,
                                    .density = all[i].density,
                                    .of = v.slots_used,
                                    .looks = all[i].looks ? all[i].looks : v.slots_used,
                                    .indexed = all[i].looks > 0 };
        struct kithi_costs costs;
        enum kithi_plan_reason reason;
        e.matches = (uint64_t)(e.share * (double)e.of);
        kithi_plan_costs(&v, &e, K, 100, &costs);
        assert_int_equal(kithi_plan_cheapest(&costs, &reason), all[i].plan);
        assert_int_equal(reason, all[i].reason);
        assert_true(costs.scan >= (double)e.looks);
    }
    /* Where all would be walked through, a scan is left. */
    struct kithi_costs costs;
    struct kithi_estimate e = { .share = 1, .density = 1, .of = 50, .matches = 50, .looks = 50 };
    v.slots_used = 50;
    kithi_plan_costs(&v, &e, K, 100, &costs);
    assert_true(isinf(costs.walk) && isinf(costs.hops) && costs.walk_ef == 0 && costs.hops_ef == 0);
}

static void a_wrong_estimate_costs_time_and_no_hit(void **state)
{
    struct world *w = *state;
    struct kithi_condition c = condition_of("n < 20 and exists(of.n)");
    struct ranked *ranks = malloc(MANY * sizeof *ranks);
    struct kithi_view v;
    struct kithi_estimate e;
    assert_non_null(ranks);
    kithi_view_begin(test_solo_map(&w->t), &v);
    assert_true(kithi_estimate(&v, &c, &e));
    assert_true(e.indexed && e.looks >= e.matches && e.looks < MANY / 10 && e.high <= e.looks);
    /* As if all of the sample had matched, and all beside it, and postings knew nothing. */
    c.sample.indexed = false;
    c.sample.matched = c.sample.count;
    c.sample.beside_matched = c.sample.beside = 100;
    for (int round = 0; round < 40; round++) {
        uint32_t matches = truth(w, w->vectors, BELOW, 20, ranks), want = matches < K ? matches : K;
        assert_int_equal(judge(w, search(w, w->vectors, &c, false), BELOW, 20, ranks, matches), want);
        /* In vain at first, and again from time to time; in between it is known. */
        assert_true((c.plan == KITHI_PLAN_WALK_SCAN && c.reason == KITHI_PLAN_SHORT) ||
                    (c.plan == KITHI_PLAN_SCAN && c.reason == KITHI_PLAN_KNOWN));
        assert_int_equal(c.plan == KITHI_PLAN_WALK_SCAN, round % 16 == 0);
    }
    free(ranks);
    condition_free(&c);
}

/* Whatever they have found until then: there may be nearer ones. */
static void hops_that_cost_as_much_as_a_scan_end_in_one(void **state)
{
    struct world *w = *state;
    struct kithi_condition c = condition_of("n < 3000");
    struct kithi_view v;
    kithi_view_begin(test_solo_map(&w->t), &v);
    for (int was_dear = 0; was_dear < 2; was_dear++) {
        c.plan = KITHI_PLAN_HOPS;
        c.ef = 250;
        struct kithi_step step = kithi_plan_next(&v, &c, K, 100, K, was_dear);
        assert_int_equal(step.plan, was_dear ? KITHI_PLAN_SCAN : KITHI_PLAN_NONE);
        assert_int_equal(c.plan, was_dear ? KITHI_PLAN_WALK_SCAN : KITHI_PLAN_HOPS);
        assert_int_equal(c.lessons.no_hops > 0, was_dear);
    }
    condition_free(&c);
}

/* Matches that lie around the query, away from it and anywhere; hops alone have to find them, whoever would have been chosen. */
static void hops_alone_find_what_brute_force_finds(void **state)
{
    struct world *w = *state;
    static const struct {
        enum what what;
        int number;
    } all[] = { { BELOW, 10000 },    { BELOW, 3000 }, { BELOW, 1000 },      { BELOW, 500 },
                { NOT_BELOW, 9000 }, { TAG, 5000 },   { OTHER_CLUSTER, 0 }, { OTHER_CLUSTER, 3 } };
    struct ranked *ranks = malloc(MANY * sizeof *ranks);
    assert_non_null(ranks);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char text[128];
        text_of(all[i].what, all[i].number, text);
        struct kithi_condition c = condition_of(text);
        c.only = KITHI_PLAN_HOPS;
        uint32_t good = 0;
        for (uint32_t q = 0; q < 40; q++) {
            const float *query = w->vectors + (size_t)test_rand_below(&w->r, MANY) * DIM;
            uint32_t matches = truth(w, query, all[i].what, all[i].number, ranks);
            good += judge(w, search(w, query, &c, false), all[i].what, all[i].number, ranks, matches);
            assert_int_equal(c.plan, KITHI_PLAN_HOPS);
            assert_true(c.evaluated <= MANY && !w->t.results.stats.scanned);
        }
        if (good < 40 * K * 97 / 100)
            fail_msg("%s: %u of %u", text, good, 40 * K);
        condition_free(&c);
    }
    free(ranks);
}

static void an_estimate_has_the_number_within_its_bounds(void **state)
{
    struct world *w = *state;
    uint32_t outside = 0, n = 0;
    for (int number = 0; number <= 10000; number += 125, n++) {
        char text[128];
        uint64_t matches = 0;
        struct kithi_view v;
        struct kithi_estimate e;
        text_of(BELOW, number, text);
        struct kithi_condition c = condition_of(text);
        for (uint32_t i = 0; i < MANY; i++)
            matches += is_match(&w->docs[i], BELOW, number);
        kithi_view_begin(test_solo_map(&w->t), &v);
        assert_true(kithi_estimate(&v, &c, &e));
        assert_true(e.low <= e.matches && e.matches <= e.high && e.high <= e.of && e.of == MANY);
        assert_true(e.share > 0 && e.share <= 1);
        assert_int_equal(e.exact, number == 0); /* of which postings know that there are none */
        outside += matches < e.low || matches > e.high;
        assert_false(kithi_estimate(&v, &c, &e)); /* the sample is kept */
        condition_free(&c);
    }
    /* One of a hundred may be outside; all of them use the same sample. */
    if (outside > n / 8)
        fail_msg("%u of %u", outside, n);
}

static void counting_and_scrolling_find_what_matches(void **state)
{
    struct world *w = *state;
    for (int number = 1; number <= 10000; number *= 10) {
        char text[128];
        uint64_t count = 0, want = 0, met = 0;
        text_of(BELOW, number, text);
        struct kithi_condition c = condition_of(text);
        struct kithi_moment now = { 0 };
        for (uint32_t i = 0; i < MANY; i++)
            want += is_match(&w->docs[i], BELOW, number);
        assert_int_equal(kithi_match_count(test_solo_map(&w->t), &now, &c, &count), 0);
        assert_int_equal(count, want);

        struct kithi_scroll_scratch s;
        struct kithi_scroll_params p = { .limit = 7, .condition = &c };
        kithi_scroll_init(&s);
        do {
            int n = kithi_scroll(test_solo_map(&w->t), &p, &s, &w->t.results);
            assert_true(n >= 0);
            for (int i = 0; i < n; i++)
                assert_true(
                    is_match(&w->docs[strtoul(test_solo_hit(&w->t, (uint32_t)i), NULL, 10)], BELOW, number));
            met += (uint64_t)n;
            p.from = s.next;
        } while (s.more);
        assert_int_equal(met, want);
        kithi_scroll_fini(&s);
        condition_free(&c);
    }
}

static void types_that_do_not_mix_end_the_search(void **state)
{
    struct world *w = *state;
    struct kithi_condition c = condition_of("n = \"x\"");
    uint64_t count;
    struct kithi_moment now = { 0 };
    for (int exact = 0; exact < 2; exact++) {
        assert_int_equal(search(w, w->vectors, &c, exact), KITHI_E_FILTER);
        assert_int_equal(c.look.holds, KITHI_PAYLOAD_INT64);
        assert_int_equal(c.look.against, KITHI_FILTER_STRING);
    }
    assert_int_equal(kithi_match_count(test_solo_map(&w->t), &now, &c, &count), KITHI_E_FILTER);
    condition_free(&c);
}

static void fields_that_nothing_has_are_known_afterwards(void **state)
{
    struct world *w = *state;
    struct kithi_condition c = condition_of("n = -1 and of.m = 3 or zz = 2");
    assert_int_equal(search(w, w->vectors, &c, false), 0);
    assert_int_equal(kithi_filter_unseen(c.filter, &c.look), 6);
    condition_free(&c);
}

static void a_snapshot_is_filtered_by_what_its_payloads_were(void **state)
{
    struct world *w = *state;
    struct kithi_condition c = condition_of("n < 1000");
    struct kithi_moment then = { .epoch = kithi_index_epoch(w->t.ix),
                                 .timeline = atomic_load(&test_solo_header(&w->t)->timeline) };
    struct doc *before = malloc(MANY * sizeof *before);
    struct ranked *ranks = malloc(MANY * sizeof *ranks);
    assert_true(before && ranks);
    memcpy(before, w->docs, MANY * sizeof *before);
    for (uint32_t id = 0; id < MANY; id += 5) {
        char name[16];
        struct kithi_payload p;
        w->docs[id] =
            (struct doc){ .has = id % 10 != 0, .n = (int)test_rand_below(&w->r, 10000), .cluster = 1 };
        snprintf(name, sizeof name, "%u", id);
        struct kithi_op op = op_of(name, NULL, &w->docs[id], &p);
        assert_int_equal(test_solo_commit(&w->t, &op, 1), 0);
        test_payload_free(&p);
    }
    struct doc *after = w->docs;
    for (uint32_t q = 0; q < 40; q++) {
        const float *query = w->vectors + (size_t)test_rand_below(&w->r, MANY) * DIM;
        struct kithi_search_params p = { .k = K, .ef = 100, .condition = &c };
        p.exact = q % 4 == 3;
        p.at = q % 2 ? then : (struct kithi_moment){ 0 };
        w->docs = q % 2 ? before : after;
        uint32_t matches = truth(w, query, BELOW, 1000, ranks);
        int n = kithi_search(test_solo_map(&w->t), &w->t.scratch, query, &p, &w->t.results);
        uint32_t good = judge(w, n, BELOW, 1000, ranks, matches);
        assert_true(good >= 9 && (!p.exact || good == K));
    }
    w->docs = after;
    free(before);
    free(ranks);
    condition_free(&c);
}

static void an_empty_collection_matches_nothing(void **state)
{
    (void)state;
    struct world w;
    struct kithi_condition c = condition_of("not exists(a)");
    float query[DIM] = { 0 };
    open_world(&w, 0);
    assert_int_equal(search(&w, query, &c, false), 0);
    assert_int_equal(search(&w, query, &c, true), 0);
    condition_free(&c);
    close_world(&w);
}

int main(void)
{
    struct CMUnitTest tests[] = {
        cmocka_unit_test(any_share_of_matches_is_answered_as_brute_force_does),
        cmocka_unit_test(each_plan_is_the_cheapest_somewhere),
        cmocka_unit_test(a_wrong_estimate_costs_time_and_no_hit),
        cmocka_unit_test(hops_that_cost_as_much_as_a_scan_end_in_one),
        cmocka_unit_test(hops_alone_find_what_brute_force_finds),
        cmocka_unit_test(an_estimate_has_the_number_within_its_bounds),
        cmocka_unit_test(counting_and_scrolling_find_what_matches),
        cmocka_unit_test(types_that_do_not_mix_end_the_search),
        cmocka_unit_test(fields_that_nothing_has_are_known_afterwards),
        cmocka_unit_test(
            a_snapshot_is_filtered_by_what_its_payloads_were), /* changes payloads, so it is the last */
        cmocka_unit_test(an_empty_collection_matches_nothing),
    };
    static struct world w;
    open_world(&w, MANY);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tests[i].initial_state = &w;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    close_world(&w);
    return rc;
}
