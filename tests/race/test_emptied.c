/*
 * test_emptied.c - [P9 emptied] on the real code: searches beside sweeps never end on a row that is being
 * emptied. A large region is written and deleted again and again; a small one far away lives all the time
 * and is what the searches want, so that they cross the dead to get there. Without the count some of them
 * come back with nothing, in about two runs of three.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>

#include "shm/graph/search.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

enum { DYING = 400, LIVING = 100, READERS = 3, K = 10, RUN_MS = 4000 };

static struct test_solo solo;
static _Atomic bool stop;
static _Atomic uint64_t searches, short_ones;

static void *reader(void *arg)
{
    const float query[2] = { 1005, 5 };
    const struct kithi_search_params params = { .k = K, .ef = 100 };
    struct kithi_scratch scratch;
    struct kithi_results results;
    kithi_scratch_init(&scratch);
    kithi_results_init(&results);
    while (!atomic_load(&stop)) {
        int n = kithi_search(test_solo_map(&solo), &scratch, query, &params, &results);
        atomic_fetch_add(&searches, 1);
        if (n != K)
            atomic_fetch_add(&short_ones, 1);
    }
    kithi_scratch_fini(&scratch);
    kithi_results_fini(&results);
    return arg;
}

static void a_search_across_a_region_that_is_swept_finds_the_living_behind_it(void **state)
{
    (void)state;
    static char ids[DYING + LIVING][16];
    static float vectors[DYING + LIVING][2];
    static struct kithi_op puts[DYING + LIVING], deletes[DYING];
    struct kithi_geometry g = test_geometry(2, KITHI_METRIC_L2, 100000);
    struct test_rand r;
    pthread_t threads[READERS];
    test_rand_init(&r);
    g.m = 8;
    g.ef_construction = 50;
    test_solo_open(&solo, &g);
    for (int i = 0; i < DYING + LIVING; i++) {
        snprintf(ids[i], sizeof ids[i], "%d", i);
        vectors[i][0] = (i < DYING ? 5.0f : 1005.0f) + 5 * test_rand_float(&r);
        vectors[i][1] = 5 + 5 * test_rand_float(&r);
        puts[i] = test_upsert(ids[i], vectors[i], 2);
        if (i < DYING)
            deletes[i] = test_delete(ids[i]);
    }
    assert_int_equal(test_solo_commit(&solo, puts + DYING, LIVING), 0);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, NULL), 0);
    uint32_t sweeps = 0;
    for (uint64_t end = test_now_ms() + RUN_MS; test_now_ms() < end;) {
        assert_int_equal(test_solo_commit(&solo, puts, DYING), 0);
        assert_int_equal(test_solo_commit(&solo, deletes, DYING), 0);
        test_nap(); /* readers are at the new epoch now */
        sweeps += test_solo_sweep(&solo, 10000) > 0;
    }
    atomic_store(&stop, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    print_message("%u sweeps, %llu searches, %llu of them short\n", sweeps,
                  (unsigned long long)atomic_load(&searches), (unsigned long long)atomic_load(&short_ones));
    assert_true(sweeps > 0);
    assert_int_equal(atomic_load(&short_ones), 0);
    assert_true(test_solo_clean(&solo));
    test_solo_close(&solo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_search_across_a_region_that_is_swept_finds_the_living_behind_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
