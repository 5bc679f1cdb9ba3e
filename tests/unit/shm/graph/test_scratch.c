/*
 * test_scratch.c - memory of a search: sized by the work, kept, and not asked for again.
 *
 * What a search allocates is seen by its blocks staying where they are and by the heap staying as it is.
 */
#include "shm/graph/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/base/error.h"
#include "shm/graph/search.h"
#include "shm/layout/geometry.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

/* Bytes that a scratch holds: every array that it owns. */
static size_t bytes_of(const struct kithi_scratch *s)
{
    return malloc_usable_size(s->beam) + malloc_usable_size(s->visited) +
           malloc_usable_size(s->visited_list) + malloc_usable_size(s->near) +
           malloc_usable_size(s->query.memory) + malloc_usable_size(s->found);
}

struct blocks {
    void *beam, *near, *visited, *list, *query, *found, *hits, *ids;
};

static struct blocks blocks_of(const struct test_solo *t)
{
    const struct kithi_scratch *s = &t->scratch;
    return (struct blocks){ s->beam,         s->near,  s->visited,      s->visited_list,
                            s->query.memory, s->found, t->results.hits, t->results.ids };
}

static void fill(struct test_solo *t, struct test_rand *r, uint32_t n)
{
    uint32_t dim = t->identity.geometry.dim;
    float *v = malloc((size_t)dim * 100 * sizeof *v);
    char names[100][16];
    struct kithi_op ops[100];
    assert_non_null(v);
    for (uint32_t at = 0; at < n;) {
        uint32_t k = 0;
        test_rand_floats(r, v, (size_t)dim * 100);
        for (; k < 100 && at < n; k++, at++) {
            snprintf(names[k], sizeof names[k], "%u", at);
            ops[k] = test_upsert(names[k], v + (size_t)k * dim, dim);
        }
        assert_int_equal(test_solo_commit(t, ops, k), 0);
    }
    free(v);
}

static void a_search_in_the_steady_state_allocates_nothing(void **state)
{
    (void)state;
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(16, KITHI_METRIC_COSINE, 2000);
    float q[16];
    test_rand_seed(&r, test_seed());
    test_solo_open(&t, &g);
    fill(&t, &r, 1000);
    for (unsigned i = 0; i < 50; i++) {
        test_rand_floats(&r, q, 16);
        assert_int_equal(test_solo_search(&t, q, 10, 100, false), 10);
    }
    struct blocks before = blocks_of(&t);
#ifdef __GLIBC__
    struct mallinfo2 heap = mallinfo2();
#endif
    for (unsigned i = 0; i < 500; i++) {
        test_rand_floats(&r, q, 16);
        assert_int_equal(test_solo_search(&t, q, 10, 100, i % 8 == 0), 10);
    }
    struct blocks after = blocks_of(&t);
    assert_memory_equal(&before, &after, sizeof before);
#ifdef __GLIBC__
    assert_int_equal(mallinfo2().uordblks, heap.uordblks);
#endif
    test_solo_close(&t);
}

static void memory_of_a_search_depends_on_ef_and_not_on_the_collection(void **state)
{
    (void)state;
    struct test_rand r;
    size_t bytes[2];
    test_rand_seed(&r, test_seed());
    for (unsigned i = 0; i < 2; i++) {
        struct test_solo t;
        struct kithi_geometry g = test_geometry(8, KITHI_METRIC_L2, i ? 1u << 24 : 500);
        g.ef_construction = 20;
        float q[8];
        test_solo_open(&t, &g);
        fill(&t, &r, i ? 10000 : 500);
        for (unsigned j = 0; j < 100; j++) {
            test_rand_floats(&r, q, 8);
            assert_int_equal(test_solo_search(&t, q, 10, 100, false), 10);
        }
        bytes[i] = bytes_of(&t.scratch);
        test_solo_close(&t);
    }
    assert_true(bytes[0] <= 128u << 10);
    assert_true(bytes[1] <= 128u << 10);
}

static void memory_of_any_search_of_breadth_100_is_below_a_mebibyte(void **state)
{
    (void)state;
    struct kithi_scratch s;
    kithi_scratch_init(&s);
    assert_int_equal(kithi_scratch_prepare(&s, 100), 0);
    /* A walk that meets 100,000 slots is far beyond what ef = 100 does. */
    for (uint32_t slot = 0; slot < 100000; slot++) {
        if (kithi_visited_full(&s))
            assert_int_equal(kithi_scratch_grow_visited(&s), 0);
        assert_true(kithi_visited_add(&s, slot * 7));
    }
    for (uint32_t slot = 0; slot < 100000; slot++)
        assert_false(kithi_visited_add(&s, slot * 7));
    assert_int_equal(s.visited_count, 100000);
    assert_true(bytes_of(&s) <= 2u << 20);
    kithi_scratch_fini(&s);

    kithi_scratch_init(&s);
    assert_int_equal(kithi_scratch_prepare(&s, 100), 0);
    assert_true(bytes_of(&s) <= 1u << 20);
    kithi_scratch_fini(&s);
    kithi_scratch_fini(&s);
    kithi_scratch_fini(NULL);
}

static void a_set_that_grew_starts_small_and_empty_again(void **state)
{
    (void)state;
    struct kithi_scratch s;
    kithi_scratch_init(&s);
    assert_int_equal(kithi_scratch_prepare(&s, 10), 0);
    uint32_t mask = s.visited_mask;
    for (uint32_t slot = 0; slot < 20000; slot++) {
        if (kithi_visited_full(&s))
            assert_int_equal(kithi_scratch_grow_visited(&s), 0);
        kithi_visited_add(&s, slot);
    }
    assert_true(s.visited_mask > mask);
    s.beam_count = s.live_count = s.ghost_count = 1;
    assert_int_equal(kithi_scratch_prepare(&s, 10), 0);
    assert_int_equal(s.visited_mask, mask);
    assert_int_equal(s.visited_count + s.beam_count + s.live_count + s.ghost_count, 0);
    for (uint32_t slot = 0; slot < 500; slot++)
        assert_true(kithi_visited_add(&s, slot));
    kithi_scratch_fini(&s);
}

static void a_row_of_new_slots_fits_once_the_set_is_not_full(void **state)
{
    (void)state;
    struct kithi_scratch s;
    kithi_scratch_init(&s);
    assert_int_equal(kithi_scratch_prepare(&s, 1), 0);
    uint32_t slot = 0;
    for (unsigned rounds = 0; rounds < 200; rounds++) {
        if (kithi_visited_full(&s))
            assert_int_equal(kithi_scratch_grow_visited(&s), 0);
        for (unsigned i = 0; i < 2 * KITHI_M_MAX; i++) /* under ASan a list too short shows */
            assert_true(kithi_visited_add(&s, slot++));
    }
    kithi_scratch_fini(&s);
}

static void the_largest_breadth_can_be_prepared(void **state)
{
    (void)state;
    struct kithi_scratch s;
    kithi_scratch_init(&s);
    assert_int_equal(kithi_scratch_prepare(&s, KITHI_EF_MAX), 0);
    assert_true(s.beam_capacity > KITHI_EF_MAX);
    kithi_scratch_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_search_in_the_steady_state_allocates_nothing),
        cmocka_unit_test(memory_of_a_search_depends_on_ef_and_not_on_the_collection),
        cmocka_unit_test(memory_of_any_search_of_breadth_100_is_below_a_mebibyte),
        cmocka_unit_test(a_set_that_grew_starts_small_and_empty_again),
        cmocka_unit_test(a_row_of_new_slots_fits_once_the_set_is_not_full),
        cmocka_unit_test(the_largest_breadth_can_be_prepared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
