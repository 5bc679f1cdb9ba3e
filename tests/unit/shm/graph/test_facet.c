/*
 * test_facet.c - values of a field are counted exactly, at one snapshot, each value of an array once, and in bounded memory.
 */
#include "shm/graph/facet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/payload.h"
#include "tests/support/solo.h"

#define DIM   4u
#define IDS   900u
#define GROUP 90u

static unsigned char buffer[KITHI_PAYLOAD_MAX], other[KITHI_PAYLOAD_MAX];

static void json_of(uint32_t id, char out[256])
{
    snprintf(
        out, 256,
        "{\"n\":%u,\"lang\":\"l%u\",\"tags\":[\"a\",\"t%u\",\"a\"],\"flag\":%s,\"x\":%u.0,\"of\":{\"half\":%u.5},"
        "\"mixed\":%s,\"gone\":null,\"none\":[],\"own\":\"a name of %u\",\"sizes\":[%u,7,300]}",
        id, id % 7, id % 3, id % 4 == 0 ? "true" : "false", id % 5, id % 2,
        id % 3 == 0   ? "3"
        : id % 3 == 1 ? "\"3\""
                      : "3.0",
        id, id % 2 ? 7 : 8);
}

/* Ids below IDS, every tenth without a payload. */
static void open_world(struct test_solo *t)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 2 * IDS + 200);
    test_solo_open(t, &g);
    for (uint32_t first = 0; first < IDS; first += GROUP) {
        char names[GROUP][8], text[256];
        float vectors[GROUP][DIM];
        struct kithi_op ops[GROUP];
        struct kithi_payload payloads[GROUP] = { { 0 } };
        for (uint32_t i = 0; i < GROUP; i++) {
            uint32_t id = first + i;
            snprintf(names[i], sizeof names[i], "%u", id);
            for (uint32_t d = 0; d < DIM; d++)
                vectors[i][d] = (float)(id * (d + 1) % 101);
            ops[i] = test_upsert(names[i], vectors[i], DIM);
            if (id % 10 == 0)
                continue;
            json_of(id, text);
            payloads[i] = test_payload(text);
            ops[i].flags = KITHI_OP_PAYLOAD;
            ops[i].payload = payloads[i].bytes;
            ops[i].payload_len = payloads[i].len;
        }
        assert_int_equal(test_solo_commit(t, ops, GROUP), 0);
        for (uint32_t i = 0; i < GROUP; i++)
            test_payload_free(&payloads[i]);
    }
}

static struct kithi_moment now;

static void count(struct test_solo *t, const char *path, struct kithi_condition *c, uint32_t value_max,
                  struct kithi_facet *f)
{
    kithi_facet_init(f, value_max);
    assert_int_equal(kithi_facet_count(test_solo_map(t), &now, path, strlen(path), buffer, c, 0, f), 0);
}

/* The count of a string; 0: it is not among the values. */
static uint64_t count_of(const struct kithi_facet *f, const char *text)
{
    for (uint32_t i = 0; i < f->count; i++)
        if (f->entries[i].type == KITHI_PAYLOAD_STRING && f->entries[i].len == strlen(text) &&
            strcmp(f->text + f->entries[i].off, text) == 0)
            return f->entries[i].count;
    return 0;
}

static bool has(uint32_t id)
{
    return id % 10 != 0;
}

static void values_of_every_type_are_counted_and_sorted(void **state)
{
    struct test_solo *t = *state;
    struct kithi_facet f;
    uint64_t want[7] = { 0 }, all = 0, sum = 0;
    for (uint32_t id = 0; id < IDS; id++) {
        want[id % 7] += has(id);
        all += has(id);
    }
    count(t, "lang", NULL, UINT32_MAX, &f);
    assert_int_equal(f.count, 7);
    assert_int_equal(f.vectors, IDS);
    assert_int_equal(f.with, all);
    assert_int_equal(f.other, 0);
    for (uint32_t i = 0; i < 7; i++) {
        char text[8];
        snprintf(text, sizeof text, "l%u", i);
        assert_int_equal(count_of(&f, text), want[i]);
        sum += f.entries[i].count;
        assert_true(i == 0 || f.entries[i - 1].count > f.entries[i].count ||
                    (f.entries[i - 1].count == f.entries[i].count &&
                     strcmp(f.text + f.entries[i - 1].off, f.text + f.entries[i].off) < 0));
    }
    assert_int_equal(sum, all);
    kithi_facet_fini(&f);

    count(t, "flag", NULL, UINT32_MAX, &f);
    assert_int_equal(f.count, 2);
    assert_int_equal(f.entries[0].type, KITHI_PAYLOAD_BOOL);
    assert_int_equal(f.entries[0].count + f.entries[1].count, all);
    kithi_facet_fini(&f);

    count(t, "of.half", NULL, UINT32_MAX, &f);
    assert_int_equal(f.count, 2);
    assert_int_equal(f.entries[0].type, KITHI_PAYLOAD_DOUBLE);
    kithi_facet_fini(&f);

    count(t, "x", NULL, UINT32_MAX, &f); /* 0.0 to 4.0 */
    assert_int_equal(f.count, 5);
    assert_int_equal(f.entries[0].type, KITHI_PAYLOAD_INT64);
    kithi_facet_fini(&f);

    count(t, "mixed", NULL, UINT32_MAX, &f); /* 3 and 3.0 are one number, "3" is none */
    assert_int_equal(f.count, 2);
    assert_int_equal(f.entries[0].type, KITHI_PAYLOAD_INT64);
    assert_int_equal(f.entries[0].integer, 3);
    assert_int_equal(count_of(&f, "3"), all - f.entries[0].count);
    kithi_facet_fini(&f);
}

static void an_array_counts_each_of_its_values_once(void **state)
{
    struct test_solo *t = *state;
    struct kithi_facet f;
    uint64_t all = 0, seven = 0;
    for (uint32_t id = 0; id < IDS; id++)
        all += has(id);
    count(t, "tags", NULL, UINT32_MAX, &f);
    assert_int_equal(f.count, 4);
    assert_int_equal(count_of(&f, "a"), all);
    assert_int_equal(count_of(&f, "t0") + count_of(&f, "t1") + count_of(&f, "t2"), all);
    kithi_facet_fini(&f);
    count(t, "sizes", NULL, UINT32_MAX, &f);
    for (uint32_t i = 0; i < f.count; i++)
        seven += f.entries[i].integer == 7 ? f.entries[i].count : 0;
    assert_int_equal(f.count, 3);
    assert_int_equal(seven, all);
    kithi_facet_fini(&f);
}

static void what_is_no_value_is_not_counted(void **state)
{
    struct test_solo *t = *state;
    static const char *const paths[] = { "gone", "none", "of", "nothing", "of.nothing" };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct kithi_facet f;
        count(t, paths[i], NULL, UINT32_MAX, &f);
        assert_true(f.count == 0 && f.with == 0 && f.other == 0 && f.vectors == IDS);
        kithi_facet_fini(&f);
    }
}

static void a_condition_leaves_what_fulfils_it(void **state)
{
    struct test_solo *t = *state;
    struct kithi_filter *filter;
    struct kithi_facet f;
    const char *text = "n < 300 and flag = true";
    uint64_t want[7] = { 0 }, all = 0;
    assert_int_equal(kithi_filter_parse(text, strlen(text), &filter, NULL), 0);
    struct kithi_condition c = { .filter = filter, .payload = other };
    for (uint32_t id = 0; id < 300; id += 4) {
        want[id % 7] += has(id);
        all += has(id);
    }
    count(t, "lang", &c, UINT32_MAX, &f);
    assert_int_equal(f.vectors, all);
    assert_int_equal(f.with, all);
    for (uint32_t i = 0; i < 7; i++) {
        char name[8];
        snprintf(name, sizeof name, "l%u", i);
        assert_int_equal(count_of(&f, name), want[i]);
    }
    kithi_facet_fini(&f);
    kithi_candidates_fini(&c.candidates);
    kithi_filter_free(filter);
}

static void a_full_table_counts_what_it_has_exactly_and_tells_of_the_rest(void **state)
{
    struct test_solo *t = *state;
    struct kithi_facet f;
    uint64_t all = 0;
    for (uint32_t id = 0; id < IDS; id++)
        all += has(id);
    count(t, "own", NULL, UINT32_MAX, &f);
    assert_true(f.count == all && f.other == 0);
    kithi_facet_fini(&f);
    count(t, "own", NULL, 100, &f);
    assert_true(f.count == 100 && f.capacity <= 128 && f.other == all - 100 && f.with == all);
    for (uint32_t i = 0; i < f.count; i++)
        assert_int_equal(f.entries[i].count, 1);
    kithi_facet_fini(&f);
    count(t, "lang", NULL, 3, &f);
    uint64_t sum = f.other;
    for (uint32_t i = 0; i < f.count; i++)
        sum += f.entries[i].count;
    assert_true(f.count == 3 && sum == all);
    kithi_facet_fini(&f);
}

static void a_snapshot_is_counted_by_what_its_payloads_were(void **state)
{
    struct test_solo *t = *state;
    struct kithi_facet f;
    struct kithi_moment then = { .epoch = kithi_index_epoch(t->ix),
                                 .timeline = atomic_load(&test_solo_header(t)->timeline) };
    struct kithi_payload p = test_payload("{\"lang\":\"another\"}");
    count(t, "lang", NULL, UINT32_MAX, &f);
    uint64_t before = count_of(&f, "l1");
    kithi_facet_fini(&f);
    const struct kithi_op op = {
        .type = KITHI_OP_SET, .id = "1", .id_len = 1, .payload = p.bytes, .payload_len = p.len
    };
    assert_int_equal(test_solo_commit(t, &op, 1), 0);
    test_payload_free(&p);
    count(t, "lang", NULL, UINT32_MAX, &f);
    assert_int_equal(count_of(&f, "another"), 1);
    assert_int_equal(count_of(&f, "l1"), before - 1);
    assert_int_equal(f.epoch, then.epoch + 1);
    kithi_facet_fini(&f);
    kithi_facet_init(&f, UINT32_MAX);
    assert_int_equal(kithi_facet_count(test_solo_map(t), &then, "lang", 4, buffer, NULL, 0, &f), 0);
    assert_int_equal(count_of(&f, "l1"), before);
    assert_int_equal(count_of(&f, "another"), 0);
    assert_int_equal(f.epoch, then.epoch);
    kithi_facet_fini(&f);
}

static void a_count_is_given_up_at_its_deadline(void **state)
{
    struct test_solo *t = *state;
    struct kithi_facet f;
    kithi_facet_init(&f, UINT32_MAX);
    assert_int_equal(kithi_facet_count(test_solo_map(t), &now, "lang", 4, buffer, NULL, 1, &f),
                     KITHI_E_TIMEOUT);
    assert_int_equal(kithi_facet_count(test_solo_map(t), &now, "lang", 4, buffer, NULL, UINT64_MAX, &f), 0);
    assert_true(f.count > 1);
    kithi_facet_fini(&f);
}

int main(void)
{
    struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_type_are_counted_and_sorted),
        cmocka_unit_test(a_count_is_given_up_at_its_deadline),
        cmocka_unit_test(an_array_counts_each_of_its_values_once),
        cmocka_unit_test(what_is_no_value_is_not_counted),
        cmocka_unit_test(a_condition_leaves_what_fulfils_it),
        cmocka_unit_test(a_full_table_counts_what_it_has_exactly_and_tells_of_the_rest),
        cmocka_unit_test(
            a_snapshot_is_counted_by_what_its_payloads_were), /* changes one, so it is the last */
    };
    static struct test_solo t;
    open_world(&t);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tests[i].initial_state = &t;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    test_solo_close(&t);
    return rc;
}
