/*
 * test_recall.c - ef is chosen by the published curve, by what stands for one where there is none, and never out of range,
 * whatever stands in the header.
 */
#include "shm/graph/recall.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "shm/graph/search.h"
#include "tests/support/rand.h"

static alignas(64) unsigned char header[KITHI_HEADER_SIZE];
static struct kithi_map map = { .base = header };

static struct kithi_curve *clear(void)
{
    memset(header, 0, sizeof header);
    return kithi_header_curve(kithi_map_header(&map), 0);
}

static void put(struct kithi_curve *c, uint32_t i, uint32_t ef, double recall, double half)
{
    c->points[i] =
        kithi_curve_pack(ef, (uint32_t)(recall * KITHI_CURVE_UNIT), (uint32_t)(half * KITHI_CURVE_UNIT));
    c->count = i + 1;
}

/* 10: 0.80, 20: 0.90, 40: 0.95, 100: 0.99. */
static struct kithi_curve *usual(void)
{
    struct kithi_curve *c = clear();
    c->k = 10;
    c->samples = 500;
    c->epoch = 9;
    c->since = 7;
    put(c, 0, 10, 0.80, 0);
    put(c, 1, 20, 0.90, 0);
    put(c, 2, 40, 0.95, 0);
    put(c, 3, 100, 0.99, 0);
    c->magic = KITHI_CURVE_MAGIC;
    return c;
}

/* Of 1 neighbour 1: 0.60, 4: 0.90, 16: 0.99; of 100 100: 0.90, 200: 0.95, 400: 0.99. */
static void others(void)
{
    static const struct {
        uint32_t ef;
        double recall;
    } points[2][3] = { { { 1, 0.60 }, { 4, 0.90 }, { 16, 0.99 } },
                       { { 100, 0.90 }, { 200, 0.95 }, { 400, 0.99 } } };
    for (unsigned number = 1; number < KITHI_CURVE_COUNT; number++) {
        struct kithi_curve *c = kithi_header_curve(kithi_map_header(&map), number);
        c->k = number == 1 ? 1 : 100;
        c->samples = 200;
        for (uint32_t i = 0; i < 3; i++)
            put(c, i, points[number - 1][i].ef, points[number - 1][i].recall, 0);
        c->magic = KITHI_CURVE_MAGIC;
    }
}

static void expect(uint32_t k, double target, uint32_t ef, enum kithi_recall_basis basis)
{
    enum kithi_recall_basis is;
    uint32_t got = kithi_recall_ef(&map, k, target, &is);
    if (got != ef || is != basis)
        fail_msg("k %u, recall %g: ef %u by %d, not %u by %d", k, target, got, (int)is, ef, (int)basis);
}

static void a_published_curve_is_read_as_it_was_written(void **state)
{
    (void)state;
    struct kithi_recall_curve c;
    struct kithi_curve *to = usual();
    put(to, 3, 100, 0.99, 0.001);
    put(to, 2, 40, 0.95, 0.005);
    to->count = 4;
    to->kept[2] = 991000;
    to->kept_samples = 77;
    kithi_recall_read(&map, 0, &c);
    assert_int_equal(c.count, 4);
    assert_int_equal(c.k, 10);
    assert_int_equal(c.samples, 500);
    assert_int_equal(c.epoch, 9);
    assert_int_equal(c.since, 7);
    assert_int_equal(c.points[2].ef, 40);
    assert_float_equal(c.points[2].recall, 0.95, 1e-6);
    assert_float_equal(c.points[2].half, 0.005, 1e-6);
    assert_float_equal(c.kept[2], 0.991, 1e-9);
    assert_int_equal(c.kept_samples, 77);
    to->kept[2] = UINT32_MAX;
    kithi_recall_read(&map, 0, &c);
    assert_float_equal(c.kept[2], 1, 1e-9);
    for (unsigned number = 1; number < KITHI_CURVE_COUNT; number++) {
        kithi_recall_read(&map, number, &c);
        assert_int_equal(c.count, 0);
    }
    others();
    kithi_recall_read(&map, 2, &c);
    assert_int_equal(c.k, 100);
    assert_int_equal(c.count, 3);
    assert_int_equal(c.points[2].ef, 400);
}

static void ef_is_between_the_points_around_the_target(void **state)
{
    (void)state;
    usual();
    expect(10, 0.5, 10, KITHI_RECALL_CURVE); /* ef = k does it */
    expect(10, 0.80, 10, KITHI_RECALL_CURVE);
    /* What is missed falls by half as ef doubles: 0.15 / 0.20 of it are left at 4/3 of the ef, 13.3. */
    expect(10, 0.85, 13, KITHI_RECALL_CURVE);
    expect(10, 0.90, 20, KITHI_RECALL_CURVE);
    expect(10, 0.925, 27, KITHI_RECALL_CURVE); /* 26.7 */
    expect(10, 0.956, 43, KITHI_RECALL_CURVE);
    expect(10, 0.99, 100, KITHI_RECALL_CURVE);
}

static void a_part_of_the_confidence_interval_is_held_back(void **state)
{
    (void)state;
    struct kithi_curve *c = usual();
    put(c, 0, 10, 0.80, 0.01);
    put(c, 1, 20, 0.90, 0.01);
    put(c, 2, 40, 0.95, 0.005);
    put(c, 3, 100, 0.99, 0.001);
    expect(10, 0.80, 10, KITHI_RECALL_CURVE); /* 10.3: to the nearest whole one */
    expect(10, 0.90, 21, KITHI_RECALL_CURVE); /* 21.2 instead of 20 */
    expect(10, 0.925, 28, KITHI_RECALL_CURVE);
    expect(10, 0.99, 200, KITHI_RECALL_BEYOND);
    /* Surer: the same as without. */
    put(c, 3, 100, 0.99, 0);
    put(c, 1, 20, 0.90, 0.0001);
    c->count = 4;
    expect(10, 0.899, 20, KITHI_RECALL_CURVE);
}

static void what_is_measured_of_other_numbers_of_neighbours_is_gone_by(void **state)
{
    (void)state;
    usual();
    others();
    expect(1, 0.90, 4, KITHI_RECALL_CURVE);
    expect(1, 0.5, 1, KITHI_RECALL_CURVE);
    expect(1, 0.95, 6, KITHI_RECALL_CURVE);   /* 6.1 */
    expect(10, 0.95, 40, KITHI_RECALL_CURVE); /* as ever */
    expect(100, 0.95, 200, KITHI_RECALL_CURVE);
    expect(300, 0.95, 600, KITHI_RECALL_CURVE); /* three times that of 100 */
    expect(300, 0.90, 375, KITHI_RECALL_CURVE); /* with room for more than k */
    /* Between. */
    expect(3, 0.95, 15, KITHI_RECALL_CURVE);
    expect(5, 0.95, 23, KITHI_RECALL_CURVE);
    expect(30, 0.95, 86, KITHI_RECALL_CURVE);
    expect(99, 0.95, 198, KITHI_RECALL_CURVE);
    uint32_t before = 0;
    for (uint32_t k = 1; k <= 200; k++) {
        enum kithi_recall_basis basis;
        uint32_t ef = kithi_recall_ef(&map, k, 0.95, &basis);
        assert_true(ef >= before && ef >= k);
        before = ef;
    }
    /* Beyond one of them. */
    expect(1, 0.995, 32, KITHI_RECALL_BEYOND);
    expect(100, 0.995, 800, KITHI_RECALL_BEYOND);
    /* Without the first there is none. */
    kithi_header_curve(kithi_map_header(&map), 0)->magic = 0;
    expect(1, 0.90, 128, KITHI_RECALL_BLIND);
    expect(100, 0.90, 1280, KITHI_RECALL_BLIND);
    /* What is of no fewer, or no more, neighbours than the first is no help. */
    usual();
    others();
    kithi_header_curve(kithi_map_header(&map), 1)->k = 10;
    kithi_header_curve(kithi_map_header(&map), 2)->k = 7;
    expect(1, 0.95, 40, KITHI_RECALL_CURVE);
    expect(50, 0.95, 200, KITHI_RECALL_CURVE);
}

static void more_neighbours_take_as_many_times_the_ef_and_fewer_the_same(void **state)
{
    (void)state;
    usual();
    expect(1, 0.95, 40, KITHI_RECALL_CURVE);
    expect(50, 0.95, 200, KITHI_RECALL_CURVE);
    expect(15, 0.80, 19, KITHI_RECALL_CURVE); /* with room for more than k */
    expect(KITHI_K_MAX, 0.99, 655360, KITHI_RECALL_CURVE);
    expect(KITHI_K_MAX, 0.995, KITHI_EF_MAX, KITHI_RECALL_BEYOND);
}

static void a_target_beyond_the_curve_takes_twice_its_widest(void **state)
{
    (void)state;
    usual();
    expect(10, 0.991, 200, KITHI_RECALL_BEYOND);
}

static void without_a_curve_ef_is_wide_and_says_so(void **state)
{
    (void)state;
    struct kithi_curve *c = clear();
    expect(10, 0.90, 128, KITHI_RECALL_BLIND);
    expect(10, 0.95, 200, KITHI_RECALL_BLIND);
    expect(10, 0.99, 400, KITHI_RECALL_BLIND);
    expect(1, 0.01, 64, KITHI_RECALL_BLIND);
    expect(100, 0.95, 2000, KITHI_RECALL_BLIND);
    expect(10, 0.9999, 2000, KITHI_RECALL_BLIND);
    usual();
    c->k = 0; /* bytes that make no sense are no curve */
    expect(10, 0.95, 200, KITHI_RECALL_BLIND);
    usual();
    c->count = 0;
    expect(10, 0.95, 200, KITHI_RECALL_BLIND);
}

static void a_recall_that_falls_counts_as_the_one_before(void **state)
{
    (void)state;
    struct kithi_curve *c = usual();
    put(c, 2, 40, 0.85, 0.005);
    put(c, 3, 100, 0.99, 0.001);
    expect(10, 0.90, 20, KITHI_RECALL_CURVE);
    expect(10, 0.945, 51, KITHI_RECALL_CURVE); /* between 40, which is taken for 0.90, and 100 */
}

static void what_makes_no_sense_ends_the_curve(void **state)
{
    (void)state;
    struct kithi_recall_curve r;
    const uint64_t bad[] = {
        0,                                             /* no ef */
        kithi_curve_pack(20, 990000, 0),               /* one that does not rise */
        kithi_curve_pack(KITHI_EF_MAX + 1, 990000, 0), /* one that nobody may use */
        kithi_curve_pack(50, KITHI_CURVE_UNIT + 1, 0), /* more than all */
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct kithi_curve *c = usual();
        c->points[2] = bad[i];
        kithi_recall_read(&map, 0, &r);
        assert_int_equal(r.count, 2);
        expect(10, 0.95, 40, KITHI_RECALL_BEYOND);
    }
    struct kithi_curve *c = usual();
    c->count = UINT32_MAX;
    c->points[0] = kithi_curve_pack(10, 800000, 0xfffff);
    kithi_recall_read(&map, 0, &r);
    assert_int_equal(r.count, 4); /* behind it are zeros */
    assert_true(r.points[0].half <= 1);
}

static void arbitrary_bytes_choose_an_ef_that_may_be_used(void **state)
{
    (void)state;
    struct test_rand r;
    test_rand_init(&r);
    clear();
    for (uint32_t round = 0; round < 200000; round++) {
        for (unsigned number = 0; number < KITHI_CURVE_COUNT; number++) {
            struct kithi_curve *c = kithi_header_curve(kithi_map_header(&map), number);
            for (size_t i = 0; i < sizeof *c / 8; i++) {
                uint64_t word = test_rand_u64(&r);
                memcpy((unsigned char *)c + 8 * i, &word, 8);
            }
            c->magic = KITHI_CURVE_MAGIC;
            if (round % 4 > number) {
                c->k = 1 + test_rand_below(&r, KITHI_K_MAX + 2);
                c->count = test_rand_below(&r, 40);
                for (uint32_t i = 0; i < KITHI_CURVE_POINTS; i++) /* some of them go on for long */
                    c->points[i] =
                        kithi_curve_pack(i * 30000 + test_rand_below(&r, 30000),
                                         test_rand_below(&r, KITHI_CURVE_UNIT), (uint32_t)test_rand_u64(&r));
            }
        }
        uint32_t k = 1 + test_rand_below(&r, KITHI_K_MAX);
        double target = (1 + test_rand_below(&r, 999998)) / 1e6;
        enum kithi_recall_basis basis;
        uint32_t ef = kithi_recall_ef(&map, k, target, &basis);
        assert_true(ef >= k && ef <= KITHI_EF_MAX);
        assert_true(basis >= KITHI_RECALL_CURVE && basis <= KITHI_RECALL_BLIND);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_published_curve_is_read_as_it_was_written),
        cmocka_unit_test(ef_is_between_the_points_around_the_target),
        cmocka_unit_test(a_part_of_the_confidence_interval_is_held_back),
        cmocka_unit_test(what_is_measured_of_other_numbers_of_neighbours_is_gone_by),
        cmocka_unit_test(more_neighbours_take_as_many_times_the_ef_and_fewer_the_same),
        cmocka_unit_test(a_target_beyond_the_curve_takes_twice_its_widest),
        cmocka_unit_test(without_a_curve_ef_is_wide_and_says_so),
        cmocka_unit_test(a_recall_that_falls_counts_as_the_one_before),
        cmocka_unit_test(what_makes_no_sense_ends_the_curve),
        cmocka_unit_test(arbitrary_bytes_choose_an_ef_that_may_be_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
