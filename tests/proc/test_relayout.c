/*
 * test_relayout.c - a collection that leaves its layout to the daemon gets another one while it is written, searched,
 * killed, dropped. Readers never fail nor find less, and what was acknowledged stays.
 *
 * The collections keep half floats, which go with no layout that AUTO begins with: so each is copied once, whatever
 * the daemon measures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <kith/kith.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"

#define NAME     "moving"
#define DIM      32u
#define BATCH    250u
#define FEW      750u  /* less than the daemon waits for; */
#define ENOUGH   1500u /* more, and less than twice as many; */
#define COUNT    5000u /* many more */
#define K        10u
#define PATIENCE 120000u

struct shared {
    char run[TEST_PATH_SIZE];
    _Atomic uint32_t acked; /* ids below are there */
    _Atomic uint64_t epoch; /* of the last of them, or of a later one */
    _Atomic uint32_t stop;
    _Atomic uint64_t searches, missed;
    _Atomic uint64_t moves; /* to another generation, as a reader sees it */
    _Atomic uint64_t scrolls;
    char text[400];
};

struct moving {
    struct test_daemon d;
    struct shared *s;
    kith *k;
};

static void vector_of(uint32_t id, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, id + 1);
    test_rand_floats(&r, out, DIM);
}

static int attach(const char *run, kith **out)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run;
    return kith_open(NAME, &opts, out);
}

static int create(const struct moving *m, struct kith_error *error)
{
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    opts.dim = DIM;
    opts.metric = KITH_METRIC_COSINE;
    opts.m = 8;
    opts.ef_construction = 40;
    opts.quantization = KITH_QUANTIZATION_AUTO;
    opts.keep = KITH_KEEP_F16;
    opts.run_dir = m->s->run;
    opts.error = error;
    return kith_create(NAME, &opts);
}

static void start(struct moving *m)
{
    if (test_daemon_start(&m->d) < 0)
        fail_msg("kithd does not start");
}

static void begin(struct moving *m)
{
    struct kith_error error = { 0 };
    memset(m, 0, sizeof *m);
    test_daemon_init(&m->d);
    m->s = test_shared(sizeof *m->s);
    snprintf(m->s->run, sizeof m->s->run, "%s", test_path(&m->d.run, "run"));
    start(m);
    if (create(m, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(attach(m->s->run, &m->k), 0);
}

static void end(struct moving *m)
{
    kith_close(m->k);
    assert_true(test_verify_path(test_daemon_segment(&m->d, NAME)));
    assert_int_equal(test_daemon_stop(&m->d), 0);
    test_daemon_fini(&m->d);
}

/* Write ids from acked to end; 0, or the error of the batch that failed. */
static int write_up_to(struct moving *m, uint32_t end)
{
    kith_batch *b = kith_batch_new(m->k);
    float v[DIM];
    char id[16];
    int rc = 0;
    assert_non_null(b);
    for (uint32_t first; rc == 0 && (first = atomic_load(&m->s->acked)) < end;) {
        struct kith_commit commit = { .struct_size = sizeof commit };
        kith_batch_clear(b);
        for (uint32_t i = first; i < first + BATCH; i++) {
            snprintf(id, sizeof id, "%u", i);
            vector_of(i, v);
            assert_int_equal(kith_batch_upsert(b, id, v, DIM), 0);
        }
        rc = kith_batch_commit(b, &commit);
        if (rc == 0) {
            atomic_store(&m->s->epoch, commit.epoch);
            atomic_store(&m->s->acked, first + BATCH);
        }
    }
    kith_batch_free(b);
    return rc;
}

static struct kith_stats stats_of(kith *k)
{
    struct kith_stats s = KITH_STATS_INIT;
    assert_int_equal(kith_stats(k, &s), 0);
    return s;
}

/* Until the segment is of a layout that keeps half floats. */
static void wait_for_layout(struct moving *m)
{
    uint64_t until = test_now_ms() + PATIENCE;
    while (stats_of(m->k).keep != KITH_KEEP_F16) {
        if (test_now_ms() > until || !test_daemon_alive(&m->d, NULL)) {
            test_daemon_show_log(&m->d);
            fail_msg("the collection got no other layout");
        }
        test_nap();
    }
}

static void assert_all_there(struct moving *m)
{
    uint32_t acked = atomic_load(&m->s->acked);
    kith_results *r = kith_results_new();
    uint32_t found = 0, asked = 0;
    assert_non_null(r);
    for (uint32_t i = 0; i < acked; i++) {
        float v[DIM], back[DIM];
        char id[16];
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, v);
        int rc = kith_get(m->k, id, back, DIM, NULL);
        if (rc < 0)
            fail_msg("%s: %s", id, kith_strerror(rc));
        for (uint32_t j = 0; j < DIM; j++)
            assert_true(fabsf(v[j] - back[j]) < 2e-3f);
        if (i % 50)
            continue;
        asked++;
        assert_int_equal(kith_search(m->k, v, DIM, K, NULL, r), K);
        found += strcmp(kith_results_id(r, 0), id) == 0;
    }
    assert_true(found * 100 >= asked * 97);
    kith_results_free(r);
}

/* ---- readers ---- */

static int complain(struct shared *s, const char *what, int rc)
{
    snprintf(s->text, sizeof s->text, "%s: %s", what, rc < 0 ? kith_strerror(rc) : "too few hits");
    return 1;
}

/* Search for what is there, all the time. */
static int reader(void *arg)
{
    struct shared *s = arg;
    struct test_rand r;
    kith *k = NULL;
    kith_results *results = kith_results_new();
    uint64_t generation = 0;
    int rc = attach(s->run, &k);
    if (rc < 0 || !results)
        return complain(s, "attach", rc);
    test_rand_seed(&r, test_seed());
    while (!atomic_load(&s->stop)) {
        uint32_t acked = atomic_load(&s->acked);
        if (acked < BATCH) {
            test_nap();
            continue;
        }
        uint32_t which = test_rand_below(&r, acked);
        float v[DIM];
        char id[16];
        snprintf(id, sizeof id, "%u", which);
        vector_of(which, v);
        rc = kith_search(k, v, DIM, K, NULL, results);
        if (rc != (int)K)
            return complain(s, "search", rc);
        atomic_fetch_add(&s->searches, 1);
        if (strcmp(kith_results_id(results, 0), id) != 0)
            atomic_fetch_add(&s->missed, 1);
        rc = kith_exists(k, id);
        if (rc != 1)
            return complain(s, id, rc);
        if (atomic_load(&s->searches) % 64)
            continue;
        struct kith_stats now = stats_of(k);
        if (generation && now.generation != generation)
            atomic_fetch_add(&s->moves, 1);
        generation = now.generation;
    }
    kith_results_free(results);
    kith_close(k);
    return 0;
}

/* Page by page, all the time: what was there at the first page comes once. */
static int scroller(void *arg)
{
    struct shared *s = arg;
    kith *k = NULL;
    kith_results *page = kith_results_new();
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    uint8_t *seen = malloc(2 * COUNT);
    int rc = attach(s->run, &k);
    if (rc < 0 || !page || !seen)
        return complain(s, "attach", rc);
    for (uint32_t turn = 0; !atomic_load(&s->stop); turn++) {
        uint32_t acked = atomic_load(&s->acked);
        char cursor[64] = "";
        /* Who holds a segment that somebody has removed hears of the next one by waiting for what is in it. */
        rc = kith_wait_epoch(k, atomic_load(&s->epoch), 30000);
        if (rc < 0)
            return complain(s, "wait", rc);
        memset(seen, 0, 2 * COUNT);
        opts.limit = 20 + turn % 300;
        opts.vectors = turn % 2;
        do {
            rc = kith_scroll(k, cursor[0] ? cursor : NULL, &opts, page);
            if (rc < 0)
                return complain(s, "scroll", rc);
            for (uint32_t i = 0; i < (uint32_t)rc; i++)
                seen[strtoul(kith_results_id(page, i), NULL, 10) % (2 * COUNT)]++;
            const char *next = kith_results_cursor(page);
            snprintf(cursor, sizeof cursor, "%s", next ? next : "");
            test_nap(); /* for the segment to change between pages */
        } while (cursor[0]);
        for (uint32_t i = 0; i < 2 * COUNT; i++) {
            if (i < acked ? seen[i] == 1 : seen[i] <= 1)
                continue;
            snprintf(s->text, sizeof s->text, "scroll %u of %u ids: id %u came %u times", turn, acked, i,
                     seen[i]);
            return 1;
        }
        atomic_fetch_add(&s->scrolls, 1);
    }
    free(seen);
    kith_results_free(page);
    kith_close(k);
    return 0;
}

static void start_readers(struct moving *m, struct test_child *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        test_child_start(&c[i], "reader", reader, m->s);
}

static void stop_readers(struct moving *m, struct test_child *c, unsigned n)
{
    atomic_store(&m->s->stop, 1);
    for (unsigned i = 0; i < n; i++)
        if (test_child_wait(&c[i], 30000) != 0)
            fail_msg("a reader failed: %s", m->s->text);
    uint64_t searches = atomic_load(&m->s->searches), missed = atomic_load(&m->s->missed);
    fprintf(stderr, "%llu searches, %llu without the vector itself, %llu moves\n",
            (unsigned long long)searches, (unsigned long long)missed,
            (unsigned long long)atomic_load(&m->s->moves));
    assert_true(searches > 0 && missed * 33 <= searches);
}

/* ---- tests ---- */

static void readers_and_writers_notice_nothing_but_the_speed(void **state)
{
    (void)state;
    struct moving m;
    struct test_child readers[2] = { 0 };
    uint64_t epoch = 0;
    kith *waiting = NULL;
    begin(&m);
    start_readers(&m, readers, 2);
    assert_int_equal(write_up_to(&m, FEW), 0);
    assert_int_equal(attach(m.s->run, &waiting), 0); /* it will wait for an epoch of the next generation */
    struct kith_stats before = stats_of(m.k);
    assert_int_equal(before.quantization, KITH_QUANTIZATION_NONE);
    assert_int_equal(before.keep, KITH_KEEP_F32);
    assert_int_equal(before.quantization_wanted, KITH_QUANTIZATION_AUTO);
    assert_int_equal(before.keep_wanted, KITH_KEEP_F16);
    assert_int_equal(write_up_to(&m, COUNT), 0);
    wait_for_layout(&m);
    assert_int_equal(write_up_to(&m, COUNT + 1000), 0);
    struct kith_stats after = stats_of(m.k);
    assert_int_not_equal(after.quantization, KITH_QUANTIZATION_NONE);
    assert_int_equal(after.quantization_wanted, KITH_QUANTIZATION_AUTO);
    assert_int_equal(after.live_count, COUNT + 1000);
    assert_true(after.generation > before.generation && after.epoch > before.epoch);
    float v[DIM];
    vector_of(0, v);
    assert_int_equal(kith_upsert(m.k, "0", v, DIM, &epoch), 0);
    assert_int_equal(kith_wait_epoch(waiting, epoch, 30000), 0);
    assert_int_equal(kith_get(waiting, "0", v, DIM, NULL), 0);
    kith_close(waiting);
    stop_readers(&m, readers, 2);
    assert_true(atomic_load(&m.s->moves) >= 1);
    assert_all_there(&m);
    assert_true(test_daemon_logged(&m.d, "event=layout-measured"));
    assert_true(test_daemon_logged(&m.d, "auto chose"));
    assert_true(test_daemon_logged(&m.d, "event=relayout "));
    end(&m);
}

static void a_scroll_comes_to_every_id_once_whatever_the_segment(void **state)
{
    (void)state;
    struct moving m;
    struct test_child scrolling = { 0 };
    begin(&m);
    test_child_start(&scrolling, "scroller", scroller, m.s);
    assert_int_equal(write_up_to(&m, COUNT), 0);
    wait_for_layout(&m);
    for (unsigned life = 0; life < 2; life++) {
        uint64_t scrolls = atomic_load(&m.s->scrolls), until = test_now_ms() + PATIENCE;
        test_daemon_kill(&m.d);
        if (life)
            assert_int_equal(unlink(test_daemon_segment(&m.d, NAME)), 0);
        start(&m);
        assert_int_equal(write_up_to(&m, COUNT + (life + 1) * BATCH), 0);
        while (atomic_load(&m.s->scrolls) < scrolls + 3 && test_child_running(&scrolling)) {
            assert_true(test_now_ms() < until);
            test_nap();
        }
    }
    atomic_store(&m.s->stop, 1);
    if (test_child_wait(&scrolling, 30000) != 0)
        fail_msg("the scroll failed: %s", m.s->text);
    fprintf(stderr, "%llu scrolls\n", (unsigned long long)atomic_load(&m.s->scrolls));
    end(&m);
}

/* Every vector that the snapshot shows was copied, so it is as good as before; after a start it is, too. */
static void a_snapshot_outlives_a_new_layout_and_starts(void **state)
{
    (void)state;
    struct moving m;
    struct kith_snapshot at;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    kith_results *r = kith_results_new();
    begin(&m);
    assert_non_null(r);
    assert_int_equal(write_up_to(&m, ENOUGH), 0);
    assert_int_equal(kith_snapshot(m.k, &at), 0);
    opts.at = at;
    uint64_t generation = 0;
    for (unsigned life = 0; life < 4; life++) {
        if (life == 0) {
            wait_for_layout(&m);
        } else {
            test_daemon_kill(&m.d);
            if (life == 2) /* from the log alone, or a checkpoint and the log */
                assert_int_equal(unlink(test_daemon_segment(&m.d, NAME)), 0);
            start(&m);
            assert_int_equal(write_up_to(&m, ENOUGH + life * BATCH), 0);
        }
        assert_true(life % 2 || stats_of(m.k).generation > generation);
        generation = stats_of(m.k).generation;
        uint64_t count = 0;
        assert_int_equal(kith_count_at(m.k, &at, &count), 0);
        assert_int_equal(count, ENOUGH);
        for (uint32_t i = 0; i < ENOUGH + BATCH; i += 25) {
            char id[16];
            float v[DIM];
            snprintf(id, sizeof id, "%u", i);
            vector_of(i, v);
            assert_int_equal(kith_exists_at(m.k, &at, id), i < ENOUGH);
            assert_int_equal(kith_search(m.k, v, DIM, K, &opts, r), K);
            for (uint32_t h = 0; h < K; h++)
                assert_true(strtoul(kith_results_id(r, h), NULL, 10) < ENOUGH);
        }
    }
    kith_results_free(r);
    end(&m);
}

static void a_choice_outlives_warm_and_cold_starts(void **state)
{
    (void)state;
    struct moving m;
    begin(&m);
    assert_int_equal(write_up_to(&m, COUNT), 0);
    wait_for_layout(&m);
    uint32_t chosen = stats_of(m.k).quantization;
    test_daemon_kill(&m.d);
    start(&m);
    assert_int_equal(stats_of(m.k).quantization, chosen);
    assert_all_there(&m);
    test_daemon_kill(&m.d);
    assert_int_equal(unlink(test_daemon_segment(&m.d, NAME)), 0);
    start(&m);
    assert_int_equal(stats_of(m.k).quantization, chosen);
    assert_int_equal(stats_of(m.k).keep, KITH_KEEP_F16);
    assert_int_equal(write_up_to(&m, COUNT + 500), 0);
    assert_all_there(&m);
    end(&m);
}

static void a_start_from_the_log_alone_chooses_what_was_not_chosen(void **state)
{
    (void)state;
    struct moving m;
    begin(&m);
    assert_int_equal(write_up_to(&m, FEW), 0);
    struct kith_snapshot at = KITH_SNAPSHOT_INIT;
    uint64_t counts[FEW] = { 0 }, last = kith_epoch(m.k), count = 0;
    assert_int_equal(kith_timeline(m.k) != 0, 1);
    assert_true(last > 1 && last < FEW);
    at.timeline = kith_timeline(m.k);
    for (at.epoch = 1; at.epoch <= last; at.epoch++)
        assert_int_equal(kith_count_at(m.k, &at, &counts[at.epoch]), 0);
    test_daemon_kill(&m.d);
    assert_int_equal(unlink(test_daemon_segment(&m.d, NAME)), 0);
    start(&m);
    /* The log came back in larger groups than it was written in: a moment is as it was, or it is gone. */
    for (at.epoch = 1; at.epoch <= last; at.epoch++) {
        int rc = kith_count_at(m.k, &at, &count);
        assert_true(rc == KITH_E_STALE || (rc == 0 && count == counts[at.epoch]));
    }
    at.epoch = last;
    assert_int_equal(kith_count_at(m.k, &at, &count), 0);
    assert_int_equal(stats_of(m.k).keep, KITH_KEEP_F32);
    assert_int_equal(write_up_to(&m, COUNT), 0);
    wait_for_layout(&m);
    assert_all_there(&m);
    end(&m);
}

static void a_collection_is_dropped_and_a_daemon_stopped_in_the_midst_of_it(void **state)
{
    (void)state;
    struct moving m;
    struct kith_error error = { 0 };
    begin(&m);
    assert_int_equal(write_up_to(&m, 4250), 0); /* the next turn measures */
    if (kith_drop(NAME, m.s->run, &error) < 0)
        fail_msg("%s", error.text);
    if (create(&m, &error) < 0)
        fail_msg("%s", error.text);
    kith_close(m.k);
    assert_int_equal(attach(m.s->run, &m.k), 0);
    atomic_store(&m.s->acked, 0);
    assert_int_equal(write_up_to(&m, 4250), 0);
    assert_int_equal(test_daemon_stop(&m.d), 0);
    start(&m);
    wait_for_layout(&m);
    assert_all_there(&m);
    end(&m);
}

static void a_daemon_that_is_killed_at_any_moment_of_it_loses_nothing(void **state)
{
    (void)state;
    struct test_rand r;
    test_rand_seed(&r, test_seed());
    for (unsigned i = 0; i < (test_long() ? 40u : 4u); i++) {
        struct moving m;
        struct test_child reading = { 0 };
        begin(&m);
        start_readers(&m, &reading, 1);
        assert_int_equal(write_up_to(&m, 4250), 0);
        uint64_t until = test_now_ms() + test_rand_below(&r, 1500);
        while (test_now_ms() < until)
            test_nap();
        test_daemon_kill(&m.d);
        start(&m);
        assert_int_equal(write_up_to(&m, COUNT), 0);
        wait_for_layout(&m);
        stop_readers(&m, &reading, 1);
        assert_all_there(&m);
        end(&m);
    }
}

#ifdef KITH_FAULT_POINTS

static void a_death_at_each_point_of_it_loses_nothing(void **state)
{
    (void)state;
    static const char *const points[] = { "crash-after-choice",      "crash-in-copy",
                                          "crash-after-copy",        "crash-in-switch-linked",
                                          "crash-in-switch-renamed", "crash-after-switch" };
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        struct moving m;
        struct test_child reading = { 0 };
        begin(&m);
        test_daemon_kill(&m.d);
        /* A start that adopts makes no switch, so the first one is the one meant. */
        snprintf(m.d.fault, sizeof m.d.fault, "%s", points[i]);
        start(&m);
        start_readers(&m, &reading, 1);
        int rc = write_up_to(&m, COUNT), status = 0;
        assert_true(rc == 0 || rc == KITH_E_UNKNOWN_OUTCOME || rc == KITH_E_NO_DAEMON);
        for (uint64_t until = test_now_ms() + PATIENCE; test_daemon_alive(&m.d, &status); test_nap())
            if (test_now_ms() > until)
                fail_msg("kithd never came to %s", points[i]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
            test_daemon_show_log(&m.d);
            fail_msg("kithd did not die at %s: status 0x%x", points[i], (unsigned)status);
        }
        m.d.fault[0] = '\0';
        start(&m);
        assert_int_equal(write_up_to(&m, COUNT + BATCH), 0);
        wait_for_layout(&m);
        stop_readers(&m, &reading, 1);
        assert_all_there(&m);
        end(&m);
    }
}

static void without_room_for_a_copy_the_collection_stays_as_it_is(void **state)
{
    (void)state;
    struct moving m;
    begin(&m);
    test_daemon_kill(&m.d);
    snprintf(m.d.fault, sizeof m.d.fault, "copy-no-space");
    start(&m);
    assert_int_equal(write_up_to(&m, ENOUGH), 0);
    for (uint64_t until = test_now_ms() + PATIENCE; !test_daemon_logged(&m.d, "event=relayout-failed");
         test_nap())
        if (test_now_ms() > until)
            fail_msg("the copy was never tried");
    assert_int_equal(write_up_to(&m, ENOUGH + 500), 0);
    assert_int_equal(stats_of(m.k).keep, KITH_KEEP_F32);
    assert_int_equal(stats_of(m.k).undecided, 2);
    assert_int_equal(stats_of(m.k).live_count, ENOUGH + 500);
    assert_int_equal(write_up_to(&m, 2 * ENOUGH + BATCH), 0); /* with twice the vectors it is tried again */
    wait_for_layout(&m);
    assert_all_there(&m);
    end(&m);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_and_writers_notice_nothing_but_the_speed),
        cmocka_unit_test(a_scroll_comes_to_every_id_once_whatever_the_segment),
        cmocka_unit_test(a_snapshot_outlives_a_new_layout_and_starts),
        cmocka_unit_test(a_choice_outlives_warm_and_cold_starts),
        cmocka_unit_test(a_start_from_the_log_alone_chooses_what_was_not_chosen),
        cmocka_unit_test(a_collection_is_dropped_and_a_daemon_stopped_in_the_midst_of_it),
        cmocka_unit_test(a_daemon_that_is_killed_at_any_moment_of_it_loses_nothing),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(a_death_at_each_point_of_it_loses_nothing),
        cmocka_unit_test(without_room_for_a_copy_the_collection_stays_as_it_is),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
