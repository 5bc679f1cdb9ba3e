/*
 * test_optimize.c - a collection gets one new segment after the other (kith_optimize, kith_alter) while a writer writes as
 * fast as it can and readers look whether each id is there exactly once, in a version that it may have; and while the
 * daemon dies at each point of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <kith/kith.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"
#include "tests/support/workload.h"

#define NAME     "shop"
#define DIM      16u
#define IDS      200u  /* that are always there */
#define PASSING  64u   /* that come and go */
#define FILLERS  2000u /* that stay as they are, so that a copy takes a while */
#define READERS  2u
#define GROUP    12u
#define PATIENCE 120000u
/* Old segments go at once, so that the next one may come. */
#define SOON                                                                                                 \
    "old-grace-short:1,old-grace-short:2,old-grace-short:3,old-grace-short:4,old-grace-short:5,"             \
    "old-grace-short:6,old-grace-short:7,old-grace-short:8"

struct shared {
    char run[TEST_PATH_SIZE];
    _Atomic uint32_t stop;
    _Atomic uint32_t sent[IDS], acked[IDS]; /* versions */
    _Atomic uint64_t batches, slowest_us;
    _Atomic uint64_t searches, moves;
    char text[400];
};

static void vector_of(uint32_t id, uint32_t version, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, (uint64_t)version << 32 | (id + 1));
    test_rand_floats(&r, out, DIM);
}

static int attach(const char *run, kith **out)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run;
    return kith_open(NAME, &opts, out);
}

static int complain(struct shared *s, const char *what, uint32_t which, int rc)
{
    if (!s->text[0])
        snprintf(s->text, sizeof s->text, "%s %u: %d %s", what, which, rc, rc < 0 ? kith_strerror(rc) : "");
    return 1;
}

/* ---- roles ---- */

static int put(kith_batch *b, uint32_t id, uint32_t version)
{
    char name[16];
    float v[DIM];
    snprintf(name, sizeof name, "v%u", id);
    vector_of(id, version, v);
    return kith_batch_upsert(b, name, v, DIM);
}

static int writer(void *arg)
{
    struct shared *s = arg;
    struct test_rand r;
    kith *k = NULL;
    int rc = attach(s->run, &k);
    kith_batch *b = rc < 0 ? NULL : kith_batch_new(k);
    if (!b)
        return complain(s, "attach", 0, rc);
    test_rand_seed(&r, test_seed() + 1);
    for (uint32_t passing = 0; !atomic_load(&s->stop); passing++) {
        uint32_t ids[GROUP], n = 1 + test_rand_below(&r, GROUP);
        char name[16];
        float v[DIM];
        kith_batch_clear(b);
        for (uint32_t i = 0; i < n && rc == 0; i++) {
            ids[i] = test_rand_below(&r, IDS);
            rc = put(b, ids[i], atomic_fetch_add(&s->sent[ids[i]], 1) + 1);
        }
        snprintf(name, sizeof name, "p%u", passing % PASSING);
        vector_of(passing, 0, v);
        if (rc == 0)
            rc = passing / PASSING % 2 ? kith_batch_delete(b, name) : kith_batch_upsert(b, name, v, DIM);
        uint64_t began_us = test_now_ns() / 1000;
        if (rc == 0)
            rc = kith_batch_commit(b, NULL);
        if (rc < 0)
            return complain(s, "batch", (uint32_t)passing, rc);
        uint64_t us = test_now_ns() / 1000 - began_us;
        for (uint32_t i = 0; i < n; i++)
            atomic_store(&s->acked[ids[i]], atomic_load(&s->sent[ids[i]]));
        if (us > atomic_load(&s->slowest_us))
            atomic_store(&s->slowest_us, us);
        atomic_fetch_add(&s->batches, 1);
    }
    kith_batch_free(b);
    kith_close(k);
    return 0;
}

static double distance(const float *a, const float *b)
{
    double sum = 0;
    for (uint32_t i = 0; i < DIM; i++)
        sum += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);
    return sum;
}

/* Is that the distance of a version that the id may have had meanwhile? */
static bool known(uint32_t id, uint32_t first, uint32_t last, const float *query, double found)
{
    for (uint32_t version = first; version <= last; version++) {
        float v[DIM];
        vector_of(id, version, v);
        if (fabs(distance(query, v) - found) <= 1e-3 * (1 + found))
            return true;
    }
    return false;
}

static int look(struct shared *s, kith *k, kith_results *results, struct test_rand *r)
{
    static uint32_t first[IDS];
    static bool seen[IDS];
    const struct kith_search_opts exact = { .struct_size = sizeof exact, .exact = 1 };
    float query[DIM];
    memset(seen, 0, sizeof seen);
    for (uint32_t i = 0; i < IDS; i++)
        first[i] = atomic_load(&s->acked[i]);
    test_rand_floats(r, query, DIM);
    int rc = kith_search(k, query, DIM, IDS + PASSING + FILLERS, &exact, results);
    if (rc < 0)
        return complain(s, "exact search", 0, rc);
    uint32_t count = 0;
    for (uint32_t i = 0; i < kith_results_count(results); i++) {
        const char *name = kith_results_id(results, i);
        if (*name != 'v')
            continue;
        uint32_t id = (uint32_t)strtoul(name + 1, NULL, 10);
        if (seen[id])
            return complain(s, "there twice: v", id, 0);
        seen[id] = true;
        count++;
        if (!known(id, first[id], atomic_load(&s->sent[id]), query,
                   (double)kith_results_distance(results, i)))
            return complain(s, "of no version that it may have: v", id, 0);
    }
    for (uint32_t i = 0; i < IDS && count < IDS; i++)
        if (!seen[i])
            return complain(s, "missing: v", i, (int)count);
    return 0;
}

static int reader(void *arg)
{
    struct shared *s = arg;
    struct test_rand r;
    kith *k = NULL;
    kith_results *results = kith_results_new();
    int rc = attach(s->run, &k);
    if (rc < 0 || !results)
        return complain(s, "attach", 0, rc);
    test_rand_seed(&r, test_seed() + 2);
    for (uint64_t generation = 0; !atomic_load(&s->stop);) {
        if (look(s, k, results, &r))
            return 1;
        test_nap(); /* the daemon and the writer shall get somewhere, too */
        for (uint32_t i = 0; i < 20; i++) {
            struct kith_search_info info = KITH_SEARCH_INFO_INIT;
            uint32_t id = test_rand_below(&r, IDS);
            char name[16];
            float v[DIM];
            snprintf(name, sizeof name, "v%u", id);
            rc = kith_get(k, name, v, DIM, NULL);
            if (rc < 0)
                return complain(s, "get v", id, rc);
            rc = kith_search(k, v, DIM, 10, NULL, results);
            if (rc != 10)
                return complain(s, "search", id, rc);
            kith_results_info(results, &info);
            atomic_fetch_add(&s->searches, 1);
        }
        struct kith_stats now = KITH_STATS_INIT;
        if (kith_stats(k, &now) == 0) {
            atomic_fetch_add(&s->moves, generation && now.generation != generation);
            generation = now.generation;
        }
    }
    kith_results_free(results);
    kith_close(k);
    return 0;
}

/* ---- each id once ---- */

static void load(kith *k, struct shared *s)
{
    kith_batch *b = kith_batch_new(k);
    float v[DIM];
    char name[16];
    assert_non_null(b);
    for (uint32_t i = 0; i < IDS; i++) {
        assert_int_equal(put(b, i, 1), 0);
        atomic_store(&s->sent[i], 1);
        atomic_store(&s->acked[i], 1);
    }
    assert_int_equal(kith_batch_commit(b, NULL), 0);
    for (uint32_t i = 0; i < FILLERS; i++) {
        if (i % 500 == 0)
            kith_batch_clear(b);
        snprintf(name, sizeof name, "f%u", i);
        vector_of(IDS + i, 0, v);
        assert_int_equal(kith_batch_upsert(b, name, v, DIM), 0);
        if (i % 500 == 499)
            assert_int_equal(kith_batch_commit(b, NULL), 0);
    }
    kith_batch_free(b);
}

static void show(struct shared *s, const char *what, int rc, const struct kith_alter_info *info,
                 const struct kith_error *error)
{
    if (s->text[0])
        fail_msg("%s", s->text);
    if (rc < 0)
        fail_msg("%s: %s", what, error->text);
    fprintf(stderr,
            "%s: %" PRIu64 " vectors in %" PRIu64 " ms, writes held for %" PRIu64 " us; %" PRIu64
            " batches so far, the slowest took %" PRIu64 " us\n",
            what, info->live_count, info->took_ms, info->held_us, atomic_load(&s->batches),
            atomic_exchange(&s->slowest_us, 0));
}

static void each_id_is_there_once_while_segments_replace_each_other(void **state)
{
    (void)state;
    struct test_daemon d;
    struct test_child children[READERS + 1] = { 0 };
    struct shared *s = test_shared(sizeof *s);
    struct kith_error error = { 0 };
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_alter_info info = KITH_ALTER_INFO_INIT;
    kith *k = NULL;
    test_daemon_init(&d);
    snprintf(d.fault, sizeof d.fault, "%s", SOON);
    snprintf(s->run, sizeof s->run, "%s", test_path(&d.run, "run"));
    assert_int_equal(test_daemon_start(&d), 0);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.m = 8;
    create.ef_construction = 60;
    create.run_dir = s->run;
    create.error = &error;
    create.max_vectors = 2 * FILLERS;
    if (kith_create(NAME, &create) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(attach(s->run, &k), 0);
    load(k, s);
    test_child_start(&children[0], "writer", writer, s);
    for (unsigned i = 0; i < READERS; i++)
        test_child_start(&children[1 + i], "reader", reader, s);

    static const struct kith_alter_opts alters[] = {
        { sizeof alters[0], 12, 0, KITH_AS_IS, KITH_AS_IS, 0, 0, NULL, NULL },
        { sizeof alters[0], 0, 0, KITH_QUANTIZATION_BITS, KITH_AS_IS, 0, 0, NULL, NULL },
        { sizeof alters[0], 0, 0, KITH_AS_IS, KITH_AS_IS, 5 * FILLERS, 0, NULL, NULL },
        { sizeof alters[0], 0, 40, KITH_QUANTIZATION_SQ8, KITH_AS_IS, FILLERS + IDS + 1000, 0, NULL, NULL },
    };
    for (unsigned i = 0; i < (test_long() ? 40u : 5u); i++) {
        struct kith_alter_opts opts = alters[i % 5 % 4];
        opts.error = &error;
        int rc = i % 5 == 4 ? kith_optimize(k, &info, &error) : kith_alter(k, &opts, &info);
        show(s, i % 5 == 4 ? "optimize" : "alter", rc, &info, &error);
        assert_true(i >= 4 || info.done == KITH_ALTER_COPIED);
    }
    atomic_store(&s->stop, 1);
    for (unsigned i = 0; i < READERS + 1; i++)
        if (test_child_wait(&children[i], 60000) != 0)
            fail_msg("%s", s->text);
    fprintf(stderr, "%" PRIu64 " searches, %" PRIu64 " moves\n", atomic_load(&s->searches),
            atomic_load(&s->moves));
    assert_true(atomic_load(&s->moves) > 0 && atomic_load(&s->batches) > 0);
    for (uint32_t i = 0; i < IDS; i++) {
        char name[16];
        float have[DIM], want[DIM];
        snprintf(name, sizeof name, "v%u", i);
        vector_of(i, atomic_load(&s->acked[i]), want);
        assert_int_equal(kith_get(k, name, have, DIM, NULL), 0);
        assert_memory_equal(have, want, sizeof want);
    }
    kith_close(k);
    assert_true(test_verify_path(test_daemon_segment(&d, NAME)));
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

/* ---- memory ---- */

static void what_deletions_have_left_is_given_back(void **state)
{
    (void)state;
    struct test_daemon d;
    struct shared *s = test_shared(sizeof *s);
    struct kith_error error = { 0 };
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_alter_info info = KITH_ALTER_INFO_INIT;
    struct stat before, after;
    char old[2 * TEST_PATH_SIZE];
    kith *k = NULL;
    test_daemon_init(&d);
    snprintf(d.fault, sizeof d.fault, "old-grace-short");
    snprintf(s->run, sizeof s->run, "%s", test_path(&d.run, "run"));
    assert_int_equal(test_daemon_start(&d), 0);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = s->run;
    assert_int_equal(kith_create(NAME, &create), 0);
    assert_int_equal(attach(s->run, &k), 0);
    load(k, s);
    kith_batch *b = kith_batch_new(k);
    for (uint32_t i = 0; i < FILLERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%u", i);
        assert_int_equal(kith_batch_delete(b, name), 0);
    }
    assert_int_equal(kith_batch_commit(b, NULL), 0);
    kith_batch_free(b);
    assert_int_equal(stat(test_daemon_segment(&d, NAME), &before), 0);
    if (kith_optimize(k, &info, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(info.live_count, IDS);
    assert_true(info.bytes_after * 2 < info.bytes_before);
    assert_int_equal(stat(test_daemon_segment(&d, NAME), &after), 0);
    assert_true(after.st_blocks * 2 < before.st_blocks);
    /* This handle is attached to the one before, and idle: it does not keep its memory. */
    snprintf(old, sizeof old, "%s.old", test_daemon_segment(&d, NAME));
    for (uint64_t until = test_now_ms() + PATIENCE; access(old, F_OK) == 0; test_nap())
        assert_true(test_now_ms() < until);
    uint64_t count = 0;
    assert_int_equal(kith_count(k, &count), 0);
    assert_int_equal(count, IDS);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

/* ---- what is refused ---- */

static void what_does_not_fit_is_refused_with_the_figures(void **state)
{
    (void)state;
    struct test_daemon d;
    struct shared *s = test_shared(sizeof *s);
    struct kith_error error = { 0 };
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_alter_info info = KITH_ALTER_INFO_INIT;
    struct kith_alter_opts opts = KITH_ALTER_OPTS_INIT;
    kith *k = NULL;
    test_daemon_init(&d);
    snprintf(s->run, sizeof s->run, "%s", test_path(&d.run, "run"));
    assert_int_equal(test_daemon_start(&d), 0);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = s->run;
    assert_int_equal(kith_create(NAME, &create), 0);
    assert_int_equal(attach(s->run, &k), 0);
    load(k, s);
    assert_int_equal(kith_alter(NULL, &opts, &info), -EINVAL);
    assert_int_equal(kith_alter(k, NULL, &info), -EINVAL);
    assert_int_equal(kith_optimize(NULL, &info, &error), -EINVAL);
    opts.error = &error;
    assert_int_equal(kith_alter(k, &opts, &info), 0); /* nothing is asked for */
    assert_int_equal(info.done, KITH_ALTER_NOTHING);
    opts.max_vectors = 100;
    assert_int_equal(kith_alter(k, &opts, NULL), KITH_E_PARAMETER);
    assert_non_null(strstr(error.text, "max-vectors is 100"));
    assert_non_null(strstr(error.text, "2200 vectors"));
    opts.max_vectors = 0;
    opts.m = 1;
    assert_int_equal(kith_alter(k, &opts, NULL), KITH_E_PARAMETER);
    opts.m = 0;
    opts.keep = KITH_KEEP_NONE;
    assert_int_equal(kith_alter(k, &opts, NULL), KITH_E_PARAMETER);
    opts.reserved = 1;
    assert_int_equal(kith_alter(k, &opts, NULL), -EINVAL);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

/* ---- deaths ---- */

#ifdef KITH_FAULT_POINTS

struct asking {
    const char *run;
    bool alters; /* else it optimizes */
    uint32_t m;
    int rc;
};

static void *ask(void *arg)
{
    struct asking *a = arg;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    struct kith_alter_opts alter = KITH_ALTER_OPTS_INIT;
    kith *k = NULL;
    opts.run_dir = a->run;
    alter.m = a->m;
    a->rc = kith_open(WORKLOAD_NAME, &opts, &k);
    if (a->rc == 0)
        do /* what an earlier life has left to be done comes first */
            a->rc = a->alters ? kith_alter(k, &alter, NULL) : kith_optimize(k, NULL, NULL);
        while (a->rc == -EBUSY);
    kith_close(k);
    return NULL;
}

static void a_death_at_each_point_of_it_loses_nothing(void **state)
{
    (void)state;
    static const char *const points[] = { "crash-before-choice",     "crash-after-choice",
                                          "crash-in-copy",           "crash-in-copy:9",
                                          "crash-after-copy",        "crash-in-switch-linked",
                                          "crash-in-switch-renamed", "crash-after-switch" };
    struct test_daemon d;
    static struct workload w;
    struct workload_tally tally;
    char run[TEST_PATH_SIZE];
    test_daemon_init(&d);
    workload_init(&w, &d, test_seed(), 900, DIM);
    assert_int_equal(test_daemon_start(&d), 0);
    snprintf(run, sizeof run, "%s", test_path(&d.run, "run"));
    workload_load(&w);
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        struct asking a = { .run = run, .alters = i % 3 != 2, .m = 6 + i };
        pthread_t thread;
        int status = 0;
        assert_int_equal(test_daemon_stop(&d), 0);
        snprintf(d.fault, sizeof d.fault, "%s,old-grace-short:1,old-grace-short:2", points[i]);
        assert_int_equal(test_daemon_start(&d), 0);
        workload_go(&w);
        assert_int_equal(pthread_create(&thread, NULL, ask, &a), 0);
        for (uint64_t until = test_now_ms() + PATIENCE; test_daemon_alive(&d, &status); test_nap())
            if (test_now_ms() > until)
                fail_msg("kithd never came to %s", points[i]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
            test_daemon_show_log(&d);
            fail_msg("kithd did not die at %s: status 0x%x", points[i], (unsigned)status);
        }
        pthread_join(thread, NULL);
        assert_true(a.rc == KITH_E_UNKNOWN_OUTCOME || a.rc == KITH_E_NO_DAEMON);
        assert_true(workload_halted(&w, PATIENCE));
        if (i % 2) /* all that is left are checkpoint and log */
            unlink(test_daemon_segment(&d, WORKLOAD_NAME));
        d.fault[0] = '\0';
        assert_int_equal(test_daemon_start(&d), 0);
        if (!workload_check(&w, &tally)) {
            test_daemon_show_log(&d);
            fail_msg("after %s", points[i]);
        }
    }
    test_daemon_kill(&d);
    assert_true(workload_finish(&w, &tally));
    test_daemon_fini(&d);
}

static void an_alter_that_was_cut_off_is_done_by_the_next_start(void **state)
{
    (void)state;
    struct test_daemon d;
    struct shared *s = test_shared(sizeof *s);
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_alter_opts opts = KITH_ALTER_OPTS_INIT;
    struct kith_stats now = KITH_STATS_INIT;
    kith *k = NULL;
    test_daemon_init(&d);
    snprintf(d.fault, sizeof d.fault, "crash-in-copy");
    snprintf(s->run, sizeof s->run, "%s", test_path(&d.run, "run"));
    assert_int_equal(test_daemon_start(&d), 0);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = s->run;
    assert_int_equal(kith_create(NAME, &create), 0);
    assert_int_equal(attach(s->run, &k), 0);
    load(k, s);
    opts.m = 10;
    assert_int_equal(kith_alter(k, &opts, NULL), KITH_E_UNKNOWN_OUTCOME);
    int status;
    while (test_daemon_alive(&d, &status))
        test_nap();
    d.fault[0] = '\0';
    assert_int_equal(test_daemon_start(&d), 0);
    for (uint64_t until = test_now_ms() + PATIENCE; now.m != 10; test_nap()) {
        assert_int_equal(kith_stats(k, &now), 0);
        assert_true(test_now_ms() < until);
    }
    assert_int_equal(now.live_count, IDS + FILLERS);
    assert_true(test_daemon_logged(&d, "why=settings"));
    kith_close(k);
    assert_true(test_verify_path(test_daemon_segment(&d, NAME)));
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_id_is_there_once_while_segments_replace_each_other),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(what_deletions_have_left_is_given_back),
#endif
        cmocka_unit_test(what_does_not_fit_is_refused_with_the_figures),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(a_death_at_each_point_of_it_loses_nothing),
        cmocka_unit_test(an_alter_that_was_cut_off_is_done_by_the_next_start),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
