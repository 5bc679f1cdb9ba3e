/*
 * test_batches.c - a batch of 100 upserts that replaces 100 others is seen whole or not at all, by processes that
 * search in a loop, and memory does not grow: dead slots rest, and are used again.
 *
 * The first coordinate of each vector of batch n is 4 (n mod 8), the others belong to the id. From a query at -1 the
 * distance tells which batch a hit is of: (1 + 4 (n mod 8))^2 and a little.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <kith/kith.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/child.h"
#include "tests/support/codes.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"

#define NAME          "batches"
#define BATCH         100u
#define DIM           8u
#define READERS       3u
#define BATCHES_SHORT 600u
#define BATCHES_LONG  10000u
#define FIRST         100u /* batches after which memory is looked at first */
#define K             200u
#define EF            400u
#define FOUND         0.99  /* of the batch, by searches through the graph on average */
#define TURN_MS       4000u /* grace, sweep and rest of a dead slot, with time to spare */
#define WAIT_MS       120000u

struct shared {
    _Atomic uint32_t stop;
    char run[TEST_PATH_SIZE + 8];
    struct {
        uint64_t exact, walks, found;
        char text[512];
    } readers[READERS];
};

struct role {
    struct shared *s;
    unsigned number;
};

/* Which batch, mod 8, has a vector of this id at this distance from the query? 8: none. */
static unsigned batch_of(uint32_t id, double distance)
{
    double own = 0;
    for (uint32_t i = 1; i < DIM; i++) {
        double x = (double)((id * 31 + i * 17) % 64) / 256;
        own += x * x;
    }
    for (unsigned n = 0; n < 8; n++)
        if (fabs(distance - own - (1.0 + 4.0 * n) * (1.0 + 4.0 * n)) < 0.01)
            return n;
    return 8;
}

static void vector_of(uint32_t id, uint32_t batch, float *out)
{
    out[0] = 4.0f * (float)(batch % 8);
    for (uint32_t i = 1; i < DIM; i++)
        out[i] = (float)((id * 31 + i * 17) % 64) / 256;
}

static int reader_role(void *arg)
{
    struct role *role = arg;
    struct shared *s = role->s;
    char *text = s->readers[role->number].text;
    const size_t size = sizeof s->readers[0].text;
    struct kith_error error = { 0 };
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    open.run_dir = s->run;
    open.error = &error;
    kith *k = NULL;
    int rc = kith_open(NAME, &open, &k);
    if (rc < 0)
        snprintf(text, size, "kith_open: %s", error.text);
    kith_results *results = kith_results_new();
    float query[DIM] = { -1 };
    for (uint64_t turn = role->number; rc >= 0 && !atomic_load(&s->stop); turn++) {
        opts.exact = turn % 4 == 0;
        opts.ef = EF;
        int n = kith_search(k, query, DIM, K, &opts, results);
        if (n < 0) {
            snprintf(text, size, "search: %s: %s", kith_errname(n), kith_strerror(n));
            rc = n;
            break;
        }
        unsigned seen[9] = { 0 }, kinds = 0;
        for (uint32_t i = 0; i < (uint32_t)n; i++) {
            const char *id = kith_results_id(results, i);
            seen[batch_of((uint32_t)strtoul(id, NULL, 10), (double)kith_results_distance(results, i))]++;
        }
        for (unsigned i = 0; i < 9; i++)
            kinds += seen[i] != 0;
        struct kith_search_info info = KITH_SEARCH_INFO_INIT;
        kith_results_info(results, &info);
        if (seen[8] || kinds > 1 || (opts.exact && n != (int)BATCH)) {
            snprintf(text, size,
                     "%s search at epoch %" PRIu64
                     ": %d hits of %u batches (by number mod 8: %u %u %u %u %u %u %u %u, "
                     "none %u)",
                     opts.exact ? "exact" : "graph", info.epoch, n, kinds, seen[0], seen[1], seen[2], seen[3],
                     seen[4], seen[5], seen[6], seen[7], seen[8]);
            rc = -1;
        }
        if (turn % 8 == 0)
            test_nap(); /* two processors are enough for three readers, the daemon and the writer */
        if (opts.exact) {
            s->readers[role->number].exact++;
        } else {
            s->readers[role->number].walks++;
            s->readers[role->number].found += (uint64_t)n;
        }
    }
    kith_results_free(results);
    kith_close(k);
    return rc < 0 ? 1 : 0;
}

static void write_batch(kith_batch *b, uint32_t number)
{
    struct kith_commit commit = { .struct_size = sizeof commit };
    float vector[DIM];
    char id[16];
    kith_batch_clear(b);
    for (uint32_t i = 0; i < BATCH; i++) {
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, number, vector);
        assert_int_equal(kith_batch_upsert(b, id, vector, DIM), 0);
    }
    int rc = kith_batch_commit(b, &commit);
    if (rc < 0)
        fail_msg("batch %u: %s: %s", number, kith_errname(rc), commit.error.text);
}

static struct kith_stats stats_of(kith *k)
{
    struct kith_stats stats = KITH_STATS_INIT;
    assert_int_equal(kith_stats(k, &stats), 0);
    return stats;
}

static void a_batch_is_seen_whole_or_not_at_all_and_memory_stays(void **state)
{
    (void)state;
    uint32_t batches = test_long() ? BATCHES_LONG : BATCHES_SHORT, peak = 0, peak_at_half = 0;
    struct test_daemon d;
    struct test_child readers[READERS];
    struct shared *s = test_shared(sizeof *s);
    test_daemon_init(&d);
    snprintf(s->run, sizeof s->run, "%s/run", d.run.path);
    assert_int_equal(test_daemon_start(&d), 0);

    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.quantization = test_quantization();
    create.keep = test_keep();
    create.m = 8;
    create.ef_construction = 40;
    create.run_dir = s->run;
    assert_int_equal(kith_create(NAME, &create), 0);
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    open.run_dir = s->run;
    kith *k = NULL;
    assert_int_equal(kith_open(NAME, &open, &k), 0);
    kith_batch *b = kith_batch_new(k);
    assert_non_null(b);
    write_batch(b, 0);
    for (unsigned i = 0; i < READERS; i++) {
        struct role role = { .s = s, .number = i };
        test_child_start(&readers[i], "reader", reader_role, &role);
    }

    /* Slots in use are bounded by what can be dead or at rest at a time: the most batches within TURN_MS. */
    uint64_t *ended = calloc(batches + 1, sizeof *ended);
    assert_non_null(ended);
    struct kith_stats at_first = { 0 }, at_half = { 0 }, at_end;
    ended[0] = test_now_ms();
    for (uint32_t n = 1, from = 0; n <= batches; n++) {
        write_batch(b, n);
        ended[n] = test_now_ms();
        while (ended[n] - ended[from] > TURN_MS)
            from++;
        if (n - from > peak)
            peak = n - from;
        if (n == FIRST)
            at_first = stats_of(k);
        if (n == batches / 2) {
            at_half = stats_of(k);
            peak_at_half = peak;
        }
    }
    at_end = stats_of(k);
    atomic_store(&s->stop, 1);
    uint64_t exact = 0, walks = 0, found = 0;
    bool ok = true;
    for (unsigned i = 0; i < READERS; i++) {
        if (test_child_wait(&readers[i], WAIT_MS) != 0) {
            fprintf(stderr, "reader %u: %s\n", i, s->readers[i].text);
            ok = false;
        }
        exact += s->readers[i].exact;
        walks += s->readers[i].walks;
        found += s->readers[i].found;
    }
    fprintf(stderr,
            "%u batches in %.1f s, %" PRIu64 " exact searches, %" PRIu64
            " through the graph with %.2f %% of the batch\n"
            "slots used: %" PRIu64 " after %u batches, %" PRIu64 " at half, %" PRIu64 " at the end (%" PRIu64
            " KiB, %" PRIu64 " KiB, %" PRIu64 " KiB); at most %u batches within %u ms\n",
            batches, (double)(ended[batches] - ended[0]) / 1000, exact, walks,
            walks ? 100.0 * (double)found / (double)(walks * BATCH) : 0.0, at_first.slot_count, FIRST,
            at_half.slot_count, at_end.slot_count, at_first.bytes_taken >> 10, at_half.bytes_taken >> 10,
            at_end.bytes_taken >> 10, peak, TURN_MS);
    assert_true(ok);
    assert_true(exact > 0 && walks > 0);
    assert_true((double)found >= FOUND * (double)(walks * BATCH));
    assert_int_equal(at_end.live_count, BATCH);
    assert_true(at_end.slot_count <= (uint64_t)BATCH * (peak + 2));
    /* No more than half of it comes on top, or what writing faster explains, where others left more of the processors later on. */
    assert_true(2 * at_end.slot_count * peak_at_half <= 3 * at_half.slot_count * peak);
    assert_true(test_verify_path(test_daemon_segment(&d, NAME)));
    free(ended);
    kith_batch_free(b);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(
        a_batch_is_seen_whole_or_not_at_all_and_memory_stays) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
