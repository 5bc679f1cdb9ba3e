/*
 * test_search.c - what a search returns: everything it should, at the epoch it began with.
 *
 * Situations that need two processes at an exact moment are made by storing the words that the other one
 * would have stored.
 */
#include "shm/graph/search.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/base/error.h"
#include "shm/layout/record.h"
#include "shm/layout/row.h"
#include "tests/support/codes.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define MANY 2000u

static double distance(uint32_t metric, const float *a, const float *b, uint32_t dim)
{
    double l2 = 0, dot = 0, aa = 0, bb = 0;
    for (uint32_t i = 0; i < dim; i++) {
        double x = (double)a[i], y = (double)b[i];
        l2 += (x - y) * (x - y);
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    return metric == KITHI_METRIC_L2 ? l2 : metric == KITHI_METRIC_IP ? 1 - dot : 1 - dot / sqrt(aa * bb);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* n vectors "0", "1", ... in groups of 100. */
static float *fill(struct test_solo *t, struct test_rand *r, uint32_t n)
{
    uint32_t dim = t->identity.geometry.dim;
    float *v = malloc((size_t)n * dim * sizeof *v);
    char names[100][16];
    struct kithi_op ops[100];
    assert_non_null(v);
    test_rand_floats(r, v, (size_t)n * dim);
    for (uint32_t at = 0; at < n;) {
        uint32_t k = 0;
        for (; k < 100 && at < n; k++, at++) {
            snprintf(names[k], sizeof names[k], "%u", at);
            ops[k] = test_upsert(names[k], v + (size_t)at * dim, dim);
        }
        assert_int_equal(test_solo_commit(t, ops, k), 0);
    }
    return v;
}

static void assert_nearest_first_and_different(const struct test_solo *t)
{
    for (uint32_t i = 1; i < t->results.count; i++) {
        assert_true(t->results.hits[i - 1].distance <= t->results.hits[i].distance);
        for (uint32_t j = 0; j < i; j++)
            assert_string_not_equal(test_solo_hit(t, i), test_solo_hit(t, j));
    }
}

static void search_of_an_empty_index_returns_no_hits(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(3, KITHI_METRIC_L2, 100);
    float q[3] = { 1, 2, 3 };
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_search(&t, q, 10, 100, false), 0);
    assert_int_equal(test_solo_search(&t, q, 10, 100, true), 0);
    assert_int_equal(t.results.stats.epoch, 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void search_for_more_than_there_is_returns_all(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(3, KITHI_METRIC_L2, 100);
    float q[3] = { 0, 0, 0 }, a[3] = { 1, 0, 0 }, b[3] = { 0, 2, 0 };
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "a", a), 0);
    for (int exact = 0; exact < 2; exact++) {
        assert_int_equal(test_solo_search(&t, q, 10, 100, exact), 1);
        assert_string_equal(test_solo_hit(&t, 0), "a");
        assert_true(t.results.hits[0].distance == 1);
    }
    assert_int_equal(test_solo_put(&t, "b", b), 0);
    for (int exact = 0; exact < 2; exact++) {
        assert_int_equal(test_solo_search(&t, q, 65536, 65536, exact), 2);
        assert_string_equal(test_solo_hit(&t, 1), "b");
        assert_true(t.results.hits[1].distance == 4);
        assert_int_equal(t.results.stats.epoch, 2);
        assert_int_equal(test_solo_search(&t, q, 1, 1, exact), 1);
        assert_string_equal(test_solo_hit(&t, 0), "a");
    }
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* Exact search must be exact; is what the walk finds at least that share of it? */
static bool comes_near(uint32_t metric, uint32_t dim, double floor, uint64_t seed)
{
    enum { N = 600, QUERIES = 40, K = 10 };
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(dim, metric, N);
    double all[N];
    float *q = malloc(dim * sizeof *q);
    assert_non_null(q);
    test_rand_seed(&r, seed + dim * 4 + metric);
    test_solo_open(&t, &g);
    float *v = fill(&t, &r, N);
    /* Vectors without any structure are the hardest for codes of one bit. */
    uint32_t good = 0, ef = test_quantization() == KITHI_QUANTIZATION_BITS ? 400 : 100;
    for (unsigned i = 0; i < QUERIES; i++) {
        test_rand_floats(&r, q, dim);
        for (uint32_t j = 0; j < N; j++)
            all[j] = distance(metric, q, v + (size_t)j * dim, dim);
        qsort(all, N, sizeof *all, by_value);
        double slack = 1e-4 * (1 + fabs(all[K - 1])) + 1e-6 * dim;

        assert_int_equal(test_solo_search(&t, q, K, 100, true), K);
        for (unsigned j = 0; j < K; j++) {
            assert_true(fabs((double)t.results.hits[j].distance - all[j]) <= slack);
            /* The distance is that of the vector the id names. */
            const float *own = v + (size_t)atoi(test_solo_hit(&t, j)) * dim;
            assert_true(fabs((double)t.results.hits[j].distance - distance(metric, q, own, dim)) <= slack);
        }
        assert_nearest_first_and_different(&t);
        assert_int_equal(t.results.stats.distance_count, N);

        assert_int_equal(test_solo_search(&t, q, K, ef, false), K);
        assert_nearest_first_and_different(&t);
        for (unsigned j = 0; j < K; j++)
            good += (double)t.results.hits[j].distance <= all[K - 1] + slack;
    }
    bool near = (double)good >= floor * QUERIES * K;
    if (!near)
        print_message("%s, %u dimensions: %u of %d found\n", kithi_metric_name(metric), dim, good,
                      QUERIES * K);
    assert_true(test_solo_clean(&t));
    free(v);
    free(q);
    test_solo_close(&t);
    return near;
}

static void exact_search_equals_brute_force_and_the_walk_comes_near_it(void **state)
{
    (void)state;
    static const uint32_t dims[] = { 1, 2, 3, 7, 8, 9, 16, 31, 33, 100, 257 };
    for (uint32_t metric = KITHI_METRIC_L2; metric <= KITHI_METRIC_IP; metric++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            /* With one dimension, two directions are all that cosine has, and the ends are all that
             * inner product wants: no graph is good at ties of hundreds. */
            bool ties = metric != KITHI_METRIC_L2 && dims[i] == 1;
            double floor = ties ? 0.5 : 0.97;
            /* One graph of such vectors in a hundred or so is below (257 dimensions: seed 7711137008049798716);
             * two of different vectors are a fault. */
            if (!comes_near(metric, dims[i], floor, test_seed()) &&
                !comes_near(metric, dims[i], floor, test_seed() + 1000))
                fail_msg("%s, %u dimensions: twice too little", kithi_metric_name(metric), dims[i]);
        }
}

static void a_hundred_equal_vectors_are_told_apart_by_their_ids(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(4, KITHI_METRIC_L2, 1000);
    float same[4] = { 1, 1, 1, 1 }, other[4] = { 2, 1, 1, 1 }, q[4] = { 1, 1, 1, 1.5f };
    char id[16];
    test_solo_open(&t, &g);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(id, sizeof id, "same-%u", i);
        assert_int_equal(test_solo_put(&t, id, same), 0);
    }
    assert_int_equal(test_solo_put(&t, "other", other), 0);
    for (int exact = 0; exact < 2; exact++) {
        assert_int_equal(test_solo_search(&t, q, 10, 100, exact), 10);
        assert_nearest_first_and_different(&t);
        for (uint32_t i = 0; i < 10; i++)
            assert_true(t.results.hits[i].distance == 0.25f);
        /* Equal distances are in the order of slots. */
        for (uint32_t i = 1; i < 10; i++)
            assert_true(t.results.hits[i - 1].slot < t.results.hits[i].slot);
    }
    assert_int_equal(test_solo_search(&t, q, 101, 101, true), 101);
    assert_string_equal(test_solo_hit(&t, 100), "other");
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void upper_levels_exist_and_the_descent_uses_them(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(8, KITHI_METRIC_L2, MANY);
    g.m = 2; /* half of the slots reach the next level */
    test_rand_seed(&r, test_seed());
    test_solo_open(&t, &g);
    float *v = fill(&t, &r, MANY), q[8];
    uint64_t entry = atomic_load(&test_solo_header(&t)->entry);
    uint32_t level = kithi_entry_level(entry), slot = kithi_entry_link(entry) - 1;
    assert_in_range(level, 3, KITHI_LEVEL_MAX);
    assert_true(test_solo_header(&t)->tally_upper > MANY / 2);

    struct kithi_view view;
    kithi_view_begin(test_solo_map(&t), &view);
    assert_int_equal(kithi_walk_begin(&view, &t.scratch, 1, level, KITHI_EYES_READER), 0);
    unsigned nearer = 0;
    for (unsigned i = 0; i < 20; i++) {
        test_rand_floats(&r, q, 8);
        uint32_t end = slot;
        assert_int_equal(kithi_walk_query(&view, &t.scratch, q), 0);
        kithi_walk_descend(&view, &t.scratch, level, 0, &end);
        float before = kithi_walk_distance(&view, &t.scratch, slot);
        float after = kithi_walk_distance(&view, &t.scratch, end);
        assert_true(after <= before);
        nearer += after < before;
    }
    assert_true(nearer > 10);
    uint32_t places;
    assert_non_null(kithi_view_links(&view, slot, level, &places));
    assert_int_equal(places, g.m);
    assert_null(kithi_view_links(&view, slot, level + 1, &places));
    assert_null(kithi_view_links(&view, slot, 1000, &places));
    assert_true(test_solo_clean(&t));
    free(v);
    test_solo_close(&t);
}

static void a_deadline_that_has_passed_ends_the_search_early_and_says_so(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(8, KITHI_METRIC_L2, MANY);
    test_rand_seed(&r, test_seed());
    test_solo_open(&t, &g);
    float *v = fill(&t, &r, MANY);
    struct kithi_search_params p = { .k = 10, .ef = 500, .deadline_ns = 1 };
    int n = kithi_search(test_solo_map(&t), &t.scratch, v, &p, &t.results);
    assert_in_range(n, 0, 10);
    assert_true(t.results.stats.deadline_hit);
    assert_true(t.results.stats.expansion_count < 100);
    p.exact = true;
    n = kithi_search(test_solo_map(&t), &t.scratch, v, &p, &t.results);
    assert_int_equal(n, 0);
    assert_true(t.results.stats.deadline_hit);
    p.exact = false;
    p.deadline_ns = test_now_ns() + UINT64_C(60000000000);
    assert_int_equal(kithi_search(test_solo_map(&t), &t.scratch, v, &p, &t.results), 10);
    assert_false(t.results.stats.deadline_hit);
    assert_string_equal(test_solo_hit(&t, 0), "0");
    free(v);
    test_solo_close(&t);
}

static void a_staged_group_is_seen_by_nobody(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(2, KITHI_METRIC_L2, 100);
    float a[2] = { 1, 0 }, b[2] = { 0, 1 };
    struct kithi_group_result result;
    struct kithi_errmsg err;
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "a", a), 0);
    struct kithi_op ops[2] = { test_upsert("b", b, 2), test_delete("a") };
    assert_int_equal(kithi_group_add(t.ix, ops, 2, &result, &err), 0);
    for (int step = 0; step < 2; step++) {
        for (int exact = 0; exact < 2; exact++) {
            assert_int_equal(test_solo_search(&t, b, 10, 10, exact), 1);
            assert_string_equal(test_solo_hit(&t, 0), "a");
        }
        if (step == 0)
            test_solo_jobs(&t);
    }
    assert_true(test_solo_clean(&t));
    test_solo_publish(&t);
    for (int exact = 0; exact < 2; exact++) {
        assert_int_equal(test_solo_search(&t, b, 10, 10, exact), 1);
        assert_string_equal(test_solo_hit(&t, 0), "b");
    }
    test_solo_close(&t);
}

/* The header's epoch set back is what a search has that began before the last group. */
static void a_search_at_the_epoch_before_sees_what_was_there_then(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(2, KITHI_METRIC_L2, 100);
    float a[2] = { 1, 0 }, b[2] = { 0, 1 }, c[2] = { 5, 5 };
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "a", a), 0);
    assert_int_equal(test_solo_put(&t, "b", b), 0);
    struct kithi_op ops[3] = { test_upsert("a", c, 2), test_delete("b"), test_upsert("c", c, 2) };
    assert_int_equal(test_solo_commit(&t, ops, 3), 0);
    struct kithi_header *h = test_solo_header(&t);
    for (int exact = 0; exact < 2; exact++) {
        atomic_store(&h->epoch, 2);
        assert_int_equal(test_solo_search(&t, a, 10, 10, exact), 2);
        assert_string_equal(test_solo_hit(&t, 0), "a");
        assert_true(t.results.hits[0].distance == 0);
        assert_string_equal(test_solo_hit(&t, 1), "b");
        assert_int_equal(t.results.stats.epoch, 2);
        atomic_store(&h->epoch, 1);
        assert_int_equal(test_solo_search(&t, a, 10, 10, exact), 1);
        assert_string_equal(test_solo_hit(&t, 0), "a");
        atomic_store(&h->epoch, 0);
        assert_int_equal(test_solo_search(&t, a, 10, 10, exact), 0);
        atomic_store(&h->epoch, 3);
        assert_int_equal(test_solo_search(&t, c, 10, 10, exact), 2);
        assert_true(t.results.hits[0].distance == 0 && t.results.hits[1].distance == 0);
    }
    test_solo_close(&t);
}

static void a_search_whose_snapshot_lost_finders_is_stale(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(2, KITHI_METRIC_L2, 100);
    float a[2] = { 1, 0 };
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "a", a), 0);
    struct kithi_header *h = test_solo_header(&t);
    atomic_store(&h->unlinked, 1);
    assert_int_equal(test_solo_search(&t, a, 1, 1, false), 1);
    atomic_store(&h->unlinked, 2); /* beyond the epoch: no new snapshot helps */
    assert_int_equal(test_solo_search(&t, a, 1, 1, false), KITHI_E_STALE);
    assert_int_equal(test_solo_search(&t, a, 1, 1, true), 1); /* needs no finder */
    atomic_store(&h->unlinked, 0);
    atomic_store(&h->reused, 2);
    assert_int_equal(test_solo_search(&t, a, 1, 1, false), 1); /* a walk goes by the other mark */
    assert_int_equal(test_solo_search(&t, a, 1, 1, true), KITHI_E_STALE);
    test_solo_close(&t);
}

static void a_moved_segment_is_left_unless_the_map_says_stay(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(2, KITHI_METRIC_L2, 100);
    float a[2] = { 1, 0 };
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "a", a), 0);
    uint32_t wake = atomic_load(&test_solo_header(&t)->wake);
    kithi_index_mark_moved(t.ix);
    assert_int_not_equal(atomic_load(&test_solo_header(&t)->wake), wake);
    for (int exact = 0; exact < 2; exact++)
        assert_int_equal(test_solo_search(&t, a, 1, 1, exact), KITHI_E_MOVED);
    struct kithi_map map;
    struct kithi_errmsg err;
    assert_int_equal(kithi_map_attach_path(t.path, false, &map, &err), 0);
    atomic_store(&map.stay, true);
    struct kithi_search_params p = { .k = 1, .ef = 1 };
    assert_int_equal(kithi_search(&map, &t.scratch, a, &p, &t.results), 1);
    kithi_map_detach(&map);
    test_solo_close(&t);
}

static void ghosts_take_no_place_in_ef(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(8, KITHI_METRIC_L2, 6000);
    char id[16];
    test_rand_seed(&r, test_seed());
    test_solo_open(&t, &g);
    float *v = fill(&t, &r, 200), q[8];
    /* 300 dead all round each of two spots that the query is near. */
    for (unsigned i = 0; i < 600; i++) {
        for (unsigned j = 0; j < 8; j++)
            q[j] = v[8 * (i % 2) + j] + 0.001f * test_rand_float(&r);
        snprintf(id, sizeof id, "gone-%u", i);
        assert_int_equal(test_solo_put(&t, id, q), 0);
    }
    for (unsigned i = 0; i < 600; i++) {
        snprintf(id, sizeof id, "gone-%u", i);
        assert_int_equal(test_solo_delete(&t, id), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(test_solo_search(&t, v + 8 * i, 10, 10, true), 10);
        float limit = t.results.hits[9].distance;
        assert_int_equal(test_solo_search(&t, v + 8 * i, 10, 10, false), 10);
        assert_string_equal(test_solo_hit(&t, 0), i ? "1" : "0");
        unsigned good = 0;
        for (unsigned j = 0; j < 10; j++)
            good += t.results.hits[j].distance <= limit;
        assert_true(good >= 5);
    }
    assert_true(test_solo_clean(&t));
    free(v);
    test_solo_close(&t);
}

static void a_doubt_bit_on_a_living_slot_changes_nothing(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(8, KITHI_METRIC_L2, 1000);
    test_rand_seed(&r, test_seed());
    test_solo_open(&t, &g);
    float *v = fill(&t, &r, 500);
    char before[10][16];
    assert_int_equal(test_solo_search(&t, v, 10, 50, false), 10);
    for (uint32_t i = 0; i < 10; i++)
        snprintf(before[i], sizeof before[i], "%s", test_solo_hit(&t, i));
    struct kithi_view view;
    kithi_view_begin(test_solo_map(&t), &view);
    memset(view.doubt, 0xff, 500 / 8);
    assert_int_equal(test_solo_search(&t, v, 10, 50, false), 10);
    for (uint32_t i = 0; i < 10; i++)
        assert_string_equal(before[i], test_solo_hit(&t, i));
    free(v);
    test_solo_close(&t);
}

/*
 * What stands in the segment when a search begins while a group goes from the owner's hands to the readers, in a collection
 * with others far away. Leaves a search behind whose places in ef were taken, and returns what that came to.
 */
static int search_among_newborns(struct test_solo *t, uint32_t far_count)
{
    struct kithi_geometry g = test_geometry(2, KITHI_METRIC_L2, 1000 + far_count);
    char id[16];
    float v[2] = { 0, 0 };
    g.m = 4;
    g.ef_construction = 16;
    test_solo_open(t, &g);
    for (unsigned i = 0; i < far_count; i++) {
        v[0] = 1e4f + (float)(i % 100);
        v[1] = (float)(i / 100);
        snprintf(id, sizeof id, "far-%u", i);
        assert_int_equal(test_solo_put(t, id, v), 0);
    }
    v[1] = 0;
    for (unsigned i = 0; i < 20; i++) {
        v[0] = 1 + (float)i;
        snprintf(id, sizeof id, "old-%u", i);
        assert_int_equal(test_solo_put(t, id, v), 0);
    }
    struct kithi_op ops[10];
    char names[10][16];
    float near[10][2];
    for (unsigned i = 0; i < 10; i++) {
        near[i][0] = 0.01f * (float)i;
        near[i][1] = 0;
        snprintf(names[i], sizeof names[i], "new-%u", i);
        ops[i] = test_upsert(names[i], near[i], 2);
    }
    assert_int_equal(test_solo_commit(t, ops, 10), 0);
    v[0] = 0;
    /* The epoch before with doubt bits still set: the records tell. */
    struct kithi_header *h = test_solo_header(t);
    struct kithi_view view;
    kithi_view_begin(test_solo_map(t), &view);
    memset(view.doubt, 0xff, (far_count + 30) / 8 + 1);
    atomic_store(&h->epoch, far_count + 20);
    assert_int_equal(test_solo_search(t, v, 10, 10, false), 10);
    assert_string_equal(test_solo_hit(t, 0), "old-0");
    assert_int_equal(t->results.stats.restart_count, 0);
    /* Cleared behind the snapshot's back. */
    memset(view.doubt, 0, (far_count + 30) / 8 + 1);
    return test_solo_search(t, v, 10, 10, false);
}

static void newborn_slots_do_not_take_the_places_of_what_the_snapshot_sees(void **state)
{
    (void)state;
    struct test_solo t;
    float v[2] = { 0, 0 };
    /* Comparing with all of them is cheaper than to begin again. */
    assert_int_equal(search_among_newborns(&t, 0), 10);
    assert_string_equal(test_solo_hit(&t, 0), "old-0");
    assert_int_equal(t.results.stats.restart_count, 0);
    test_solo_close(&t);
    /* In a larger collection it is begun again, and compares with all of them if that does not help. */
    assert_int_equal(search_among_newborns(&t, 6000), 10);
    assert_string_equal(test_solo_hit(&t, 0), "old-0");
    assert_int_equal(t.results.stats.restart_count, KITHI_RESTART_MAX);
    atomic_store(&test_solo_header(&t)->epoch, 6021);
    assert_int_equal(test_solo_search(&t, v, 10, 10, false), 10);
    assert_string_equal(test_solo_hit(&t, 0), "new-0");
    test_solo_close(&t);
}

/* The entry point is dead and leads to nobody, which rewriting everything faster than it is swept may come to. */
static void a_walk_that_is_cut_off_among_the_dead_finds_the_living(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(4, KITHI_METRIC_L2, 500);
    test_rand_seed(&r, test_seed());
    test_solo_open(&t, &g);
    float *v = fill(&t, &r, 100);
    assert_int_equal(test_solo_delete(&t, "7"), 0);
    struct kithi_view view;
    kithi_view_begin(test_solo_map(&t), &view);
    for (uint32_t i = 0; i < view.link_count0; i++)
        atomic_store(&kithi_view_row(&view, 7)[i], 0);
    atomic_store(&test_solo_header(&t)->entry, kithi_entry_pack(7, 0));
    for (unsigned i = 0; i < 20; i++) {
        float limit;
        assert_int_equal(test_solo_search(&t, v + 4 * i, 10, 20, true), 10);
        limit = t.results.hits[9].distance;
        assert_int_equal(test_solo_search(&t, v + 4 * i, 10, 20, false), 10);
        assert_true(t.results.hits[9].distance == limit);
        assert_int_equal(test_solo_search(&t, v + 4 * i, 200, 200, false), 99);
    }
    free(v);
    test_solo_close(&t);
}

/* However many died meanwhile, and however few of them the walk meets. */
static void a_walk_that_is_cut_off_at_once_finds_the_living_among_many_dead(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(4, KITHI_METRIC_L2, 4000);
    test_rand_seed(&r, test_seed());
    test_solo_open(&t, &g);
    for (unsigned round = 0; round < 30; round++)
        free(fill(&t, &r, 100));
    struct kithi_view view;
    kithi_view_begin(test_solo_map(&t), &view);
    for (uint32_t i = 0; i < view.link_count0; i++)
        atomic_store(&kithi_view_row(&view, 7)[i], 0);
    atomic_store(&test_solo_header(&t)->entry, kithi_entry_pack(7, 0));
    assert_true(view.slots_used >= 3000);
    const float q[4] = { 0 };
    assert_int_equal(test_solo_search(&t, q, 10, 10, false), 10);
    assert_int_equal(test_solo_search(&t, q, 200, 10, false), 100);
    test_solo_close(&t);
}

static void links_that_lead_nowhere_are_passed_over(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(4, KITHI_METRIC_L2, 500);
    test_rand_seed(&r, test_seed());
    test_solo_open(&t, &g);
    float *v = fill(&t, &r, 300);
    struct kithi_view view;
    kithi_view_begin(test_solo_map(&t), &view);
    for (uint32_t slot = 0; slot < 300; slot++) {
        kithi_link *row = kithi_view_row(&view, slot);
        atomic_store(&row[0], UINT32_MAX);
        atomic_store(&row[1], 501 + slot);
        atomic_store(&row[2], (uint32_t)test_rand_u64(&r));
        atomic_store(&row[3], slot + 1);
    }
    for (unsigned i = 0; i < 50; i++)
        assert_in_range(test_solo_search(&t, v + 4 * i, 10, 50, false), 0, 10);
    /* An entry point beyond what has memory: the search is begun again, and gives up. */
    struct kithi_header *h = test_solo_header(&t);
    atomic_store(&h->entry, kithi_entry_pack(view.slot_limit + 5, 0));
    assert_int_equal(test_solo_search(&t, v, 10, 50, false), KITHI_E_STALE);
    assert_int_equal(test_solo_search(&t, v, 10, 50, true), 10);
    atomic_store(&h->entry, kithi_entry_pack(3, 4000000000u)); /* a level that nobody has */
    assert_in_range(test_solo_search(&t, v, 10, 50, false), 1, 10);
    free(v);
    test_solo_close(&t);
}

static void bytes_that_are_no_numbers_end_up_last(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(4, KITHI_METRIC_L2, 500);
    test_rand_seed(&r, test_seed());
    test_solo_open(&t, &g);
    float *v = fill(&t, &r, 50);
    struct kithi_view view;
    kithi_view_begin(test_solo_map(&t), &view);
    float *bad = (float *)(void *)kithi_view_vector(&view, 7);
    for (unsigned i = 0; i < 4; i++)
        bad[i] = NAN;
    assert_int_equal(test_solo_search(&t, v, 50, 50, true), 50);
    assert_string_equal(test_solo_hit(&t, 49), "7");
    assert_true(t.results.hits[49].distance == FLT_MAX);
    assert_in_range(test_solo_search(&t, v, 50, 50, false), 49, 50);
    free(v);
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(search_of_an_empty_index_returns_no_hits),
        cmocka_unit_test(search_for_more_than_there_is_returns_all),
        cmocka_unit_test(exact_search_equals_brute_force_and_the_walk_comes_near_it),
        cmocka_unit_test(a_hundred_equal_vectors_are_told_apart_by_their_ids),
        cmocka_unit_test(upper_levels_exist_and_the_descent_uses_them),
        cmocka_unit_test(a_deadline_that_has_passed_ends_the_search_early_and_says_so),
        cmocka_unit_test(a_staged_group_is_seen_by_nobody),
        cmocka_unit_test(a_search_at_the_epoch_before_sees_what_was_there_then),
        cmocka_unit_test(a_search_whose_snapshot_lost_finders_is_stale),
        cmocka_unit_test(a_moved_segment_is_left_unless_the_map_says_stay),
        cmocka_unit_test(ghosts_take_no_place_in_ef),
        cmocka_unit_test(a_doubt_bit_on_a_living_slot_changes_nothing),
        cmocka_unit_test(newborn_slots_do_not_take_the_places_of_what_the_snapshot_sees),
        cmocka_unit_test(a_walk_that_is_cut_off_among_the_dead_finds_the_living),
        cmocka_unit_test(a_walk_that_is_cut_off_at_once_finds_the_living_among_many_dead),
        cmocka_unit_test(links_that_lead_nowhere_are_passed_over),
        cmocka_unit_test(bytes_that_are_no_numbers_end_up_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
