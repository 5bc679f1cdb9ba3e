/*
 * test_walk.c - the walk by steps, what it finds with and without neighbour codes, and searches in turns.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <float.h>

#include "shm/base/error.h"
#include "shm/graph/search.h"
#include "shm/kernel/bits.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

enum { DIM = 40, COUNT = 1500, QUERIES = 33, K = 10 };

static const struct kithi_geometry kinds[] = {
    { .quantization = KITHI_QUANTIZATION_NONE },
    { .quantization = KITHI_QUANTIZATION_F16 },
    { .quantization = KITHI_QUANTIZATION_F16, .keep = KITHI_KEEP_NONE },
    { .quantization = KITHI_QUANTIZATION_SQ8 },
    { .quantization = KITHI_QUANTIZATION_SQ8, .keep = KITHI_KEEP_NONE },
    { .quantization = KITHI_QUANTIZATION_BITS, .code_bits = 1 },
    { .quantization = KITHI_QUANTIZATION_BITS, .keep = KITHI_KEEP_F16, .code_bits = 2 },
    { .quantization = KITHI_QUANTIZATION_BITS, .keep = KITHI_KEEP_NONE, .code_bits = 2 },
};
enum { KIND_COUNT = sizeof kinds / sizeof *kinds };

static float queries[QUERIES * DIM];

/* COUNT vectors under this metric, with rows of m links. One element of all of them may be the same, far from the others. */
static void open_kind_with(struct test_solo *t, unsigned kind, uint32_t metric, uint32_t m, float far)
{
    static float v[COUNT * DIM];
    static char ids[COUNT][8];
    struct test_rand r;
    struct kithi_geometry g = test_geometry(DIM, metric, 2 * COUNT);
    g.m = m;
    g.quantization = kinds[kind].quantization;
    g.keep = kinds[kind].keep;
    g.code_bits = kinds[kind].code_bits;
    test_rand_seed(&r, 7);
    test_solo_open(t, &g);
    test_rand_floats(&r, v, COUNT * DIM);
    test_rand_floats(&r, queries, QUERIES * DIM);
    for (uint32_t i = 0; far != 0 && i < COUNT; i++)
        v[i * DIM] = far;
    for (uint32_t i = 0; far != 0 && i < QUERIES; i++)
        queries[i * DIM] = far;
    for (uint32_t at = 0; at < COUNT; at += 100) {
        struct kithi_op ops[100];
        for (uint32_t i = 0; i < 100; i++) {
            snprintf(ids[at + i], sizeof ids[0], "%u", at + i);
            ops[i] = test_upsert(ids[at + i], v + (size_t)(at + i) * DIM, DIM);
        }
        assert_int_equal(test_solo_commit(t, ops, 100), 0);
    }
}

static void open_kind(struct test_solo *t, unsigned kind, uint32_t metric, uint32_t m)
{
    open_kind_with(t, kind, metric, m, 0);
}

static void the_walk_finds_nearest_first_by_the_distances_of_codes(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        struct test_solo t;
        struct kithi_view v;
        struct kithi_scratch *s = &t.scratch;
        open_kind(&t, kind, KITHI_METRIC_L2, 16);
        kithi_view_begin(test_solo_map(&t), &v);
        uint64_t entry = atomic_load(&v.header->entry);
        uint32_t steps = 0, n;
        assert_int_equal(kithi_walk_query(&v, s, queries), 0);
        assert_int_equal(kithi_walk_begin(&v, s, 50, 0, KITHI_EYES_READER), 0);
        assert_int_equal(kithi_walk_seed(&v, s, kithi_entry_link(entry) - 1), 0);
        while (kithi_walk_step(&v, s) == 1)
            steps++;
        assert_int_equal(kithi_walk_step(&v, s), 0);        /* it stays ended */
        assert_in_range(steps, v.bits_width ? 8 : 50, 500); /* a walk by estimates may end early */
        const struct kithi_beam_entry *found = kithi_walk_found(s, &n);
        assert_int_equal(n, 50);
        assert_int_equal(v.bits_width != 0, s->steps > 0);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t slot = found[i].slot & KITHI_BEAM_SLOT;
            float walked = kithi_walk_distance(&v, s, slot); /* alone; the walk compares four at a time */
            assert_true(found[i].distance > 0.9999f * walked && found[i].distance < 1.0001f * walked);
            assert_true(i == 0 || found[i - 1].distance <= found[i].distance);
            /* The code is near the vector that is kept. */
            float exact = kithi_walk_exact(&v, s, slot);
            assert_true(found[i].distance > 0.9f * exact && found[i].distance < 1.1f * exact);
        }
        test_solo_close(&t);
    }
}

static void every_row_gives_estimates_of_its_neighbours(void **state)
{
    (void)state;
    static const uint32_t metrics[] = { KITHI_METRIC_L2, KITHI_METRIC_COSINE, KITHI_METRIC_IP };
    static const uint32_t ms[] = { 5, 16, 20 }; /* half a block, one, one and a quarter */
    for (unsigned i = 0; i < 3; i++) {
        struct test_solo t;
        struct kithi_view v;
        struct kithi_scratch *s = &t.scratch;
        double error = 0, scale = 0;
        open_kind(&t, 5, metrics[i], ms[i]);
        assert_true(test_solo_clean(&t)); /* each link has its own code */
        kithi_view_begin(test_solo_map(&t), &v);
        assert_int_equal(kithi_walk_query(&v, s, queries), 0);
        for (uint32_t slot = 0; slot < COUNT; slot++) {
            float est[KITHI_BITS_PLACES], own = kithi_walk_distance(&v, s, slot);
            kithi_link *links = kithi_view_row(&v, slot);
            for (uint32_t at = 0; at < v.link_count0; at++) {
                uint32_t block = at / KITHI_BITS_PLACES;
                if (at % KITHI_BITS_PLACES == 0)
                    s->kernel->estimate(&s->query, kithi_view_block(&v, slot, block), own, 0,
                                        kithi_view_block(&v, slot, block), est);
                if (!links[at])
                    continue;
                double is = (double)kithi_walk_distance(&v, s, links[at] - 1);
                error +=
                    ((double)est[at % KITHI_BITS_PLACES] - is) * ((double)est[at % KITHI_BITS_PLACES] - is);
                scale += is * is;
            }
        }
        /* At 64 signs an estimate is off by some 0.1 |q-c||r|, twice that for l2: a seventh of these distances, but as
         * much as four fifths of what inner products of vectors from all directions are. */
        assert_true(error < (metrics[i] == KITHI_METRIC_IP ? 0.8 : 0.04) * scale);
        test_solo_close(&t);
    }
}

static void a_batch_in_turns_answers_as_searches_one_by_one(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        struct test_solo t;
        open_kind(&t, kind, KITHI_METRIC_COSINE, 8);
        for (uint32_t lanes = 1; lanes <= KITHI_LANES_MAX; lanes *= 4) {
            struct kithi_scratch scratches[KITHI_LANES_MAX];
            struct kithi_results results[QUERIES], *out[QUERIES];
            int counts[QUERIES];
            struct kithi_search_params params = { .k = K, .ef = 30 };
            const struct kithi_batch b = {
                .queries = queries, .count = QUERIES, .params = &params, .results = out, .counts = counts
            };
            for (uint32_t i = 0; i < KITHI_LANES_MAX; i++)
                kithi_scratch_init(&scratches[i]);
            for (uint32_t i = 0; i < QUERIES; i++) {
                kithi_results_init(&results[i]);
                out[i] = &results[i];
            }
            kithi_search_batch(test_solo_map(&t), scratches, lanes, &b);
            for (uint32_t i = 0; i < QUERIES; i++) {
                assert_int_equal(counts[i], test_solo_search(&t, queries + i * DIM, K, 30, false));
                assert_int_equal(results[i].count, t.results.count);
                assert_int_equal(results[i].stats.expansion_count, t.results.stats.expansion_count);
                for (uint32_t h = 0; h < results[i].count; h++) {
                    assert_int_equal(results[i].hits[h].slot, t.results.hits[h].slot);
                    assert_true(results[i].hits[h].distance == t.results.hits[h].distance);
                }
                kithi_results_fini(&results[i]);
            }
            for (uint32_t i = 0; i < KITHI_LANES_MAX; i++)
                kithi_scratch_fini(&scratches[i]);
        }
        test_solo_close(&t);
    }
}

static void a_batch_on_a_segment_that_has_moved_says_so_for_each(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_scratch scratches[2];
    struct kithi_results results[3], *out[3] = { &results[0], &results[1], &results[2] };
    int counts[3] = { 0, 0, 0 };
    struct kithi_search_params params = { .k = K, .ef = 30 };
    const struct kithi_batch b = {
        .queries = queries, .count = 3, .params = &params, .results = out, .counts = counts
    };
    open_kind(&t, 5, KITHI_METRIC_L2, 16);
    kithi_scratch_init(&scratches[0]);
    kithi_scratch_init(&scratches[1]);
    for (unsigned i = 0; i < 3; i++)
        kithi_results_init(&results[i]);
    kithi_index_mark_moved(t.ix);
    kithi_search_batch(test_solo_map(&t), scratches, 2, &b);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(counts[i], KITHI_E_MOVED);
        kithi_results_fini(&results[i]);
    }
    kithi_scratch_fini(&scratches[0]);
    kithi_scratch_fini(&scratches[1]);
    test_solo_close(&t);
}

/* Squares of finite floats need not be floats: all distances are infinite then, and all vectors are there still. */
static void vectors_are_found_at_distances_that_no_float_holds(void **state)
{
    (void)state;
    static const uint32_t metrics[] = { KITHI_METRIC_L2, KITHI_METRIC_IP };
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        for (unsigned i = 0; i < 4; i++) {
            struct test_solo t;
            struct test_rand r;
            struct kithi_geometry g = test_geometry(DIM, metrics[i % 2], 200);
            float v[DIM];
            char id[8];
            g.quantization = kinds[kind].quantization;
            g.keep = kinds[kind].keep;
            g.code_bits = kinds[kind].code_bits;
            test_rand_seed(&r, 9);
            test_solo_open(&t, &g);
            for (uint32_t n = 0; n < 100; n++) {
                test_rand_floats(&r, v, DIM);
                for (uint32_t j = 0; j < DIM; j++)
                    v[j] = i < 2 ? v[j] * 1e25f : v[j] < 0 ? -FLT_MAX : FLT_MAX;
                snprintf(id, sizeof id, "%u", n);
                assert_int_equal(test_solo_put(&t, id, v), 0);
            }
            assert_int_equal(test_solo_search(&t, v, K, 30, false), K);
            assert_true(test_solo_clean(&t));
            test_solo_close(&t);
        }
    }
}

/* Look-ups are made of the query itself, so that far from the origin they tell nothing apart. */
static void where_estimates_are_no_use_the_walk_goes_by_codes(void **state)
{
    (void)state;
    enum { N = 1000 };
    static float v[N * DIM];
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 2 * N);
    g.quantization = KITHI_QUANTIZATION_BITS;
    g.keep = KITHI_KEEP_F32;
    g.code_bits = 1;
    test_rand_seed(&r, 11);
    test_rand_floats(&r, v, N * DIM);
    for (uint32_t i = 0; i < N * DIM; i++)
        v[i] += 1000;
    test_solo_open(&t, &g);
    for (uint32_t i = 0; i < N; i++) {
        char id[8];
        snprintf(id, sizeof id, "%u", i);
        assert_int_equal(test_solo_put(&t, id, v + (size_t)i * DIM), 0);
    }
    unsigned found = 0;
    for (uint32_t q = 0; q < QUERIES; q++) {
        char exact[K][8];
        float query[DIM];
        test_rand_floats(&r, query, DIM);
        for (uint32_t i = 0; i < DIM; i++)
            query[i] += 1000;
        assert_int_equal(test_solo_search(&t, query, K, K, true), K);
        for (uint32_t i = 0; i < K; i++)
            snprintf(exact[i], sizeof exact[i], "%s", test_solo_hit(&t, i));
        assert_int_equal(test_solo_search(&t, query, K, 100, false), K);
        for (uint32_t i = 0; i < K; i++)
            for (uint32_t j = 0; j < K; j++)
                found += strcmp(exact[i], test_solo_hit(&t, j)) == 0;
    }
    assert_true(found > QUERIES * K * 9 / 10); /* by estimates alone it would be a third */
    test_solo_close(&t);
}

/* All that are asked for are near, not only the nearer half of the beam; and a beam of one is all near. */
static void all_that_are_asked_for_are_near(void **state)
{
    (void)state;
    static const uint32_t cases[][3] = { { 10, 100, 50 }, { 100, 100, 100 }, { 60, 100, 60 }, { 1, 1, 1 } };
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        struct test_solo t;
        open_kind(&t, kind, KITHI_METRIC_L2, 16);
        for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
            assert_int_equal(test_solo_search(&t, queries, cases[i][0], cases[i][1], false), cases[i][0]);
            assert_int_equal(t.scratch.far_from, cases[i][2]);
        }
        test_solo_close(&t);
    }
}

/* Some walks do, among vectors that lie in all directions; without an early end each expands its whole beam. */
static void a_walk_by_estimates_may_end_before_its_beam_is_expanded(void **state)
{
    (void)state;
    enum { EF = 50 };
    unsigned early = 0;
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        struct test_solo t;
        open_kind(&t, kind, KITHI_METRIC_L2, 16);
        for (uint32_t q = 0; q < QUERIES; q++) {
            assert_int_equal(test_solo_search(&t, queries + q * DIM, K, EF, false), K);
            early += t.scratch.near_used && t.scratch.steps < EF;
            assert_true(t.scratch.steps == 0 || t.scratch.steps >= 8);
        }
        test_solo_close(&t);
    }
    assert_true(early > 0);
}

/* As narrow as insertions can be, among dead ones that nobody has swept: who comes is linked, and found. */
/* A whole walk; returns how many of its steps compared more than one code, and how many the most of them did. */
static unsigned walk_in_portions(struct test_solo *t, const float *query, uint32_t ef, uint64_t *most)
{
    struct kithi_view v;
    struct kithi_scratch *s = &t->scratch;
    unsigned portions = 0;
    kithi_view_begin(test_solo_map(t), &v);
    assert_int_equal(kithi_walk_query(&v, s, query), 0);
    assert_int_equal(kithi_walk_begin(&v, s, ef, 0, KITHI_EYES_READER), 0);
    assert_int_equal(kithi_walk_seed(&v, s, kithi_entry_link(atomic_load(&v.header->entry)) - 1), 0);
    for (int rc = 1; rc == 1;) {
        uint64_t before = s->distance_count;
        rc = kithi_walk_step(&v, s);
        uint64_t compared = s->distance_count - before;
        portions += compared > 1; /* an expansion by neighbour codes compares with its own node only */
        *most = compared > *most ? compared : *most;
    }
    uint32_t n;
    const struct kithi_beam_entry *found = kithi_walk_found(s, &n);
    assert_int_equal(n, ef);
    for (uint32_t i = 1; i < n; i++)
        assert_true(found[i - 1].distance <= found[i].distance);
    assert_int_equal(kithi_walk_step(&v, s), 0);
    return portions;
}

/* So that a deadline is looked at meanwhile, and other lanes of a batch get their turns. */
static void what_a_wide_beam_leaves_is_compared_in_portions(void **state)
{
    (void)state;
    struct test_solo t;
    unsigned portions = 0;
    uint64_t most = 0;
    open_kind(&t, 5, KITHI_METRIC_L2, 16);
    for (uint32_t q = 0; q < QUERIES; q++) {
        for (uint32_t ef = 300; ef <= 1200; ef += 300) {
            unsigned n = walk_in_portions(&t, queries + q * DIM, ef, &most);
            portions = n > portions ? n : portions;
        }
    }
    assert_true(portions >= 2);
    assert_in_range(most, 2, 64);
    test_solo_close(&t);
}

/* What waits in the beam when time is up counts, too: a caller who asked for many gets many. */
static void a_walk_that_is_cut_gives_the_best_so_far(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        struct test_solo t;
        bool hit;
        struct kithi_view v;
        struct kithi_scratch *s = &t.scratch;
        uint32_t n;
        open_kind(&t, kind, KITHI_METRIC_L2, 16);
        kithi_view_begin(test_solo_map(&t), &v);
        assert_int_equal(kithi_walk_query(&v, s, queries), 0);
        assert_int_equal(kithi_walk_begin(&v, s, 400, 0, KITHI_EYES_READER), 0);
        assert_int_equal(kithi_walk_seed(&v, s, kithi_entry_link(atomic_load(&v.header->entry)) - 1), 0);
        assert_int_equal(kithi_walk(&v, s, 1, &hit), 0); /* long past */
        assert_true(hit);
        const struct kithi_beam_entry *found = kithi_walk_found(s, &n);
        assert_in_range(n, 60, 400);
        for (uint32_t i = 1; i < n; i++)
            assert_true(found[i - 1].distance <= found[i].distance);
        test_solo_close(&t);
    }
}

/* One element takes all the range of a code, and the others are told apart by a few steps: a wide search scores more. */
static void what_codes_tell_badly_apart_a_wider_search_finds(void **state)
{
    (void)state;
    static const unsigned coded[] = { 3, 5 };
    for (unsigned i = 0; i < 2; i++) {
        struct test_solo t;
        uint32_t found = 0;
        open_kind_with(&t, coded[i], KITHI_METRIC_L2, 16, 160);
        for (uint32_t q = 0; q < QUERIES; q++) {
            uint32_t truth[K];
            assert_int_equal(test_solo_search(&t, queries + q * DIM, K, K, true), K);
            for (uint32_t j = 0; j < K; j++)
                truth[j] = t.results.hits[j].slot;
            assert_int_equal(test_solo_search(&t, queries + q * DIM, K, 1000, false), K);
            for (uint32_t j = 0; j < K; j++)
                for (uint32_t l = 0; l < K; l++)
                    found += t.results.hits[j].slot == truth[l];
        }
        assert_true(found >= QUERIES * K * 95 / 100);
        test_solo_close(&t);
    }
}

/* Scratch is sized by what there is, however wide a caller wants to look. */
static void no_beam_is_wider_than_the_collection(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_view v;
    open_kind(&t, 5, KITHI_METRIC_L2, 16);
    kithi_view_begin(test_solo_map(&t), &v);
    assert_int_equal(test_solo_search(&t, queries, K, 1u << 20, false), K);
    assert_in_range(t.scratch.ef, COUNT, v.slot_limit);
    assert_true(t.scratch.visited_capacity < 64 * v.slot_limit);
    test_solo_close(&t);
}

static void an_insertion_of_breadth_one_is_linked(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 50; seed++) {
        struct test_solo t;
        struct test_rand r;
        struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 100);
        float v[2][DIM];
        g.m = 4;
        g.ef_construction = 1;
        g.quantization = KITHI_QUANTIZATION_BITS;
        g.keep = KITHI_KEEP_F32;
        g.code_bits = 1;
        test_rand_seed(&r, seed);
        test_solo_open(&t, &g);
        for (uint32_t i = 0; i < 2; i++) {
            test_rand_floats(&r, v[i], DIM);
            assert_int_equal(test_solo_put(&t, i ? "dies" : "stays", v[i]), 0);
        }
        assert_int_equal(test_solo_delete(&t, "dies"), 0);
        for (uint32_t i = 0; i < 2; i++) { /* next to each of them */
            for (uint32_t j = 0; j < DIM; j++)
                v[i][j] += 0.01f * test_rand_float(&r);
            assert_int_equal(test_solo_put(&t, i ? "b" : "a", v[i]), 0);
            assert_int_equal(test_solo_search(&t, v[i], 1, 10, false), 1);
            assert_string_equal(test_solo_hit(&t, 0), i ? "b" : "a");
        }
        assert_true(test_solo_clean(&t));
        test_solo_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_walk_finds_nearest_first_by_the_distances_of_codes),
        cmocka_unit_test(every_row_gives_estimates_of_its_neighbours),
        cmocka_unit_test(a_batch_in_turns_answers_as_searches_one_by_one),
        cmocka_unit_test(where_estimates_are_no_use_the_walk_goes_by_codes),
        cmocka_unit_test(a_batch_on_a_segment_that_has_moved_says_so_for_each),
        cmocka_unit_test(all_that_are_asked_for_are_near),
        cmocka_unit_test(a_walk_by_estimates_may_end_before_its_beam_is_expanded),
        cmocka_unit_test(what_a_wide_beam_leaves_is_compared_in_portions),
        cmocka_unit_test(a_walk_that_is_cut_gives_the_best_so_far),
        cmocka_unit_test(what_codes_tell_badly_apart_a_wider_search_finds),
        cmocka_unit_test(no_beam_is_wider_than_the_collection),
        cmocka_unit_test(an_insertion_of_breadth_one_is_linked),
        cmocka_unit_test(vectors_are_found_at_distances_that_no_float_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
