/*
 * test_postings.c - several processes count under filters while another one changes payloads, and kithd dies under them. Each commit
 * exchanges the payloads of two ids, so at every epoch as many have each value as at the first: whoever counts fewer was
 * led past somebody, and whoever counts more was told of one who is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kith/kith.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"

enum { IDS = 400, VALUES = 20, READERS = 3, DIM = 2, LIVES = 3, LIFE_MS = 1500 };

static struct test_daemon d;
static struct shared {
    _Atomic bool stop;
    _Atomic uint64_t counts, narrow;
} * shared;

static kith *attach(void)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    char run[TEST_PATH_SIZE + 8];
    kith *k = NULL;
    snprintf(run, sizeof run, "%s/run", d.run.path);
    opts.run_dir = run;
    int rc = kith_open("c", &opts, &k);
    if (rc < 0)
        test_die("kith_open: %s", kith_strerror(rc));
    return k;
}

static void payload_of(uint32_t value, char *out, size_t size)
{
    snprintf(out, size, "{\"n\":%u,\"name\":\"name %u\",\"even\":%s,\"tags\":[\"t%u\",\"all\"]}", value,
             value, value % 2 ? "false" : "true", value % 5);
}

/* A condition on a value, and how many fulfil it at every epoch. */
static uint32_t condition(uint32_t which, uint32_t value, char *out, size_t size)
{
    switch (which) {
    case 0: snprintf(out, size, "n = %u", value); return IDS / VALUES;
    case 1: snprintf(out, size, "name = \"name %u\"", value); return IDS / VALUES;
    case 2: snprintf(out, size, "n < %u and even = true", value); return (value + 1) / 2 * (IDS / VALUES);
    case 3: snprintf(out, size, "tags = \"t%u\"", value % 5); return IDS / 5;
    case 4:
        snprintf(out, size, "tags = \"all\" and n >= %u", value);
        return (VALUES - value) * (IDS / VALUES);
    default: snprintf(out, size, "not n = %u", value); return IDS - IDS / VALUES;
    }
}

static int counting(void *arg)
{
    struct test_rand r;
    kith *k = attach();
    kith_results *out = kith_results_new();
    test_rand_seed(&r, (uintptr_t)arg);
    while (!atomic_load(&shared->stop)) {
        char text[100];
        uint64_t n = 0;
        struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
        struct kith_search_info info = KITH_SEARCH_INFO_INIT;
        float query[DIM] = { 0 };
        uint32_t want = condition(test_rand_below(&r, 6), test_rand_below(&r, VALUES), text, sizeof text);
        int rc = kith_count_filter(k, text, NULL, &n, NULL);
        if (rc == KITH_E_STALE)
            continue;
        if (rc < 0 || n != want)
            test_die("%s: %d, %llu fulfil it, not %u", text, rc, (unsigned long long)n, want);
        atomic_fetch_add(&shared->counts, 1);
        opts.filter = text;
        opts.exact = 1;
        rc = kith_search(k, query, DIM, IDS, &opts, out);
        if (rc == KITH_E_STALE)
            continue;
        if (rc < 0 || (uint32_t)rc != want)
            test_die("%s: %d hits, not %u", text, rc, want);
        if (kith_results_info(out, &info) == 0 && info.evaluated_count < IDS)
            atomic_fetch_add(&shared->narrow, 1);
    }
    kith_results_free(out);
    kith_close(k);
    return 0;
}

/* Exchange, and now and then write anew, the payloads of two ids; returns whether it was answered. */
static bool exchange(kith_batch *b, struct test_rand *r, uint32_t *values)
{
    struct kith_commit commit = KITH_COMMIT_INIT;
    uint32_t one = test_rand_below(r, IDS), other = (one + 1 + test_rand_below(r, IDS - 1)) % IDS;
    const uint32_t ids[] = { one, other }, now[] = { values[other], values[one] };
    kith_batch_clear(b);
    for (unsigned i = 0; i < 2; i++) {
        char id[16], payload[200];
        float v[DIM] = { (float)ids[i], 1 };
        snprintf(id, sizeof id, "%u", ids[i]);
        payload_of(now[i], payload, sizeof payload);
        int rc = test_rand_below(r, 8) ? kith_batch_set_payload(b, id, KITH_PAYLOAD_REPLACE, payload)
                                       : kith_batch_upsert_payload(b, id, v, DIM, payload);
        assert_int_equal(rc, 0);
    }
    if (kith_batch_commit(b, &commit) < 0)
        return false;
    values[one] = now[0];
    values[other] = now[1];
    return true;
}

static void every_count_is_that_of_its_epoch(void **state)
{
    (void)state;
    static uint32_t values[IDS];
    struct test_child readers[READERS];
    struct test_rand r;
    struct kith_commit commit = KITH_COMMIT_INIT;
    test_rand_init(&r);
    kith *k = attach();
    kith_batch *b = kith_batch_new(k);
    for (uint32_t i = 0; i < IDS; i++) {
        char id[16], payload[200];
        float v[DIM] = { (float)i, 0 };
        values[i] = i % VALUES;
        snprintf(id, sizeof id, "%u", i);
        payload_of(values[i], payload, sizeof payload);
        assert_int_equal(kith_batch_upsert_payload(b, id, v, DIM, payload), 0);
    }
    assert_int_equal(kith_batch_commit(b, &commit), 0);
    for (uint32_t i = 0; i < READERS; i++)
        test_child_start(&readers[i], "counting", counting, (void *)(uintptr_t)(test_rand_u64(&r) >> 1));
    for (unsigned life = 0; life < LIVES; life++) {
        uint64_t until = test_now_ms() + LIFE_MS, exchanges = 0;
        while (test_now_ms() < until)
            exchanges += exchange(b, &r, values);
        assert_true(exchanges > 10);
        for (uint32_t i = 0; i < READERS; i++)
            assert_true(test_child_running(&readers[i]));
        test_daemon_kill(&d);
        assert_int_equal(test_daemon_start(&d), 0);
    }
    atomic_store(&shared->stop, true);
    for (uint32_t i = 0; i < READERS; i++)
        assert_int_equal(test_child_wait(&readers[i], 60000), 0);
    assert_true(atomic_load(&shared->counts) > 50);
    assert_true(atomic_load(&shared->narrow) > 10);
    kith_batch_free(b);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_count_is_that_of_its_epoch) };
    shared = test_shared(sizeof *shared);
    test_daemon_init(&d);
    if (test_daemon_start(&d) < 0)
        return 1;
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    char run[TEST_PATH_SIZE + 8];
    snprintf(run, sizeof run, "%s/run", d.run.path);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = run;
    if (kith_create("c", &create) < 0)
        test_die("no collection");
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    test_daemon_fini(&d);
    return rc;
}
