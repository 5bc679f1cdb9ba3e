/*
 * test_results.c - hits are copied, ordered, and their memory is used again.
 */
#include "shm/graph/results.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/rand.h"

static void hits_keep_their_ids_while_arrays_grow(void **state)
{
    (void)state;
    struct kithi_results r;
    char id[511];
    kithi_results_init(&r);
    for (uint32_t i = 0; i < 2000; i++) {
        memset(id, 'a' + (int)(i % 26), sizeof id);
        assert_int_equal(kithi_results_add(&r, (float)i, i, i + 1, id, 1 + i % 511), 0);
    }
    assert_int_equal(r.count, 2000);
    for (uint32_t i = 0; i < 2000; i++) {
        const struct kithi_hit *h = &r.hits[i];
        assert_int_equal(h->slot, i);
        assert_int_equal(h->birth, i + 1);
        assert_int_equal(h->id_len, 1 + i % 511);
        assert_int_equal(strlen(r.ids + h->id_off), h->id_len);
        assert_int_equal(r.ids[h->id_off], 'a' + (int)(i % 26));
        assert_int_equal(r.ids[h->id_off + h->id_len - 1], 'a' + (int)(i % 26));
    }
    kithi_results_fini(&r);
    kithi_results_fini(&r);
    kithi_results_fini(NULL);
}

static void sorting_orders_by_distance_then_slot_and_keeps_ids_with_their_hits(void **state)
{
    (void)state;
    struct kithi_results r;
    struct test_rand rand;
    test_rand_init(&rand);
    kithi_results_init(&r);
    kithi_results_sort(&r);
    for (uint32_t i = 0; i < 300; i++) {
        char id[4] = { (char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10), 0 };
        assert_int_equal(kithi_results_add(&r, (float)test_rand_below(&rand, 20), i, 1, id, 3), 0);
    }
    kithi_results_sort(&r);
    bool seen[300] = { false };
    for (uint32_t i = 0; i < 300; i++) {
        const struct kithi_hit *h = &r.hits[i];
        const char *id = r.ids + h->id_off;
        assert_int_equal(
            (uint32_t)(id[0] - '0') * 100 + (uint32_t)(id[1] - '0') * 10 + (uint32_t)(id[2] - '0'), h->slot);
        assert_false(seen[h->slot]);
        seen[h->slot] = true;
        if (i > 0)
            assert_true(h[-1].distance < h->distance ||
                        (h[-1].distance == h->distance && h[-1].slot < h->slot));
    }
    kithi_results_fini(&r);
}

static void cleared_results_use_their_memory_again(void **state)
{
    (void)state;
    struct kithi_results r;
    kithi_results_init(&r);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(kithi_results_add(&r, 0, i, 1, "id", 2), 0);
    const void *hits = r.hits, *ids = r.ids;
    for (unsigned round = 0; round < 10; round++) {
        kithi_results_clear(&r);
        assert_int_equal(r.count, 0);
        for (uint32_t i = 0; i < 100; i++)
            assert_int_equal(kithi_results_add(&r, 0, i, 1, "di", 2), 0);
        assert_ptr_equal(r.hits, hits);
        assert_ptr_equal(r.ids, ids);
        assert_string_equal(r.ids + r.hits[99].id_off, "di");
    }
    kithi_results_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hits_keep_their_ids_while_arrays_grow),
        cmocka_unit_test(sorting_orders_by_distance_then_slot_and_keeps_ids_with_their_hits),
        cmocka_unit_test(cleared_results_use_their_memory_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
