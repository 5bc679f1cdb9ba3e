/*
 * test_ahead.c - writes that do not ask to be durable: what they promise while the log does not answer, when kithd dies, and when
 * the segment is lost with it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kith/kith.h>

#include "tests/support/codes.h"
#include "tests/support/daemon.h"

#define NAME        "ahead"
#define DIM         8u
#define DEADLINE_MS 60000u

static struct test_daemon kithd;
static kith *k;

static void vector_of(uint32_t number, float *out)
{
    for (uint32_t i = 0; i < DIM; i++)
        out[i] = (float)(number + 1) + (float)i;
}

static void open_it(void)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    char run[TEST_PATH_SIZE + 8];
    snprintf(run, sizeof run, "%s/run", kithd.run.path);
    opts.run_dir = run;
    assert_int_equal(kith_open(NAME, &opts, &k), 0);
}

static void start(const char *fault)
{
    snprintf(kithd.fault, sizeof kithd.fault, "%s", fault);
    if (test_daemon_start(&kithd) < 0)
        fail_msg("kithd does not start");
}

/* How long the log may not answer before writes wait for it. */
static void let_lag(unsigned ms)
{
    static char config[TEST_PATH_SIZE];
    snprintf(config, sizeof config, "%.200s/kithd.conf", kithd.data.path);
    FILE *f = fopen(config, "w");
    assert_non_null(f);
    fprintf(f, "lag_ms = %u\n", ms);
    assert_int_equal(fclose(f), 0);
    kithd.option = "--config";
    kithd.value = config;
}

static int put(uint32_t number, uint32_t version, enum kith_durability durability, uint64_t *out_epoch)
{
    float vector[DIM];
    char id[24];
    snprintf(id, sizeof id, "id-%u", number);
    vector_of(1000 * version + number, vector);
    assert_int_equal(kith_set_durability(k, durability), 0);
    return kith_upsert(k, id, vector, DIM, out_epoch);
}

/* The version of number that is there; 0: none. */
static uint32_t version_of(uint32_t number)
{
    float vector[DIM];
    char id[24];
    snprintf(id, sizeof id, "id-%u", number);
    int rc = kith_get(k, id, vector, DIM, NULL);
    if (rc == KITH_E_NOT_FOUND)
        return 0;
    assert_int_equal(rc, 0);
    return (uint32_t)((double)vector[0] - 1 - number + 0.5) / 1000;
}

static void path_of(char out[2 * TEST_PATH_SIZE], const char *name)
{
    snprintf(out, 2 * TEST_PATH_SIZE, "%s/data/" NAME "/%s", kithd.data.path, name);
}

static bool marked(void)
{
    char path[2 * TEST_PATH_SIZE];
    path_of(path, "ahead");
    return access(path, F_OK) == 0;
}

static struct kith_stats stats(void)
{
    struct kith_stats s = KITH_STATS_INIT;
    assert_int_equal(kith_stats(k, &s), 0);
    return s;
}

static int set_up(void **state)
{
    (void)state;
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    char run[TEST_PATH_SIZE + 8];
    test_daemon_init(&kithd);
    let_lag(600000);
    start("");
    snprintf(run, sizeof run, "%s/run", kithd.run.path);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.max_vectors = 20000;
    create.quantization = test_quantization();
    create.keep = test_keep();
    create.run_dir = run;
    assert_int_equal(kith_create(NAME, &create), 0);
    open_it();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kith_close(k);
    test_daemon_fini(&kithd);
    return 0;
}

/* Have kithd made the marker, without which every write is durable. The log is at rest afterwards. */
static void become_ahead(void)
{
    uint64_t end = test_now_ms() + DEADLINE_MS, epoch;
    assert_int_equal(put(0, 1, KITH_DURABILITY_APPLIED, &epoch), 0);
    while (!marked()) {
        assert_true(test_now_ms() < end);
        test_nap();
    }
    /* One that is handled after it: kithd knows of it by then. */
    assert_int_equal(put(0, 1, KITH_DURABILITY_DURABLE, &epoch), 0);
    assert_int_equal(kith_flush(k, &epoch), 0);
}

/* Start again so that the log does not answer to the n-th write and those after it. */
static void stall_from(unsigned n)
{
    char fault[32];
    kith_close(k);
    test_daemon_kill(&kithd);
    snprintf(fault, sizeof fault, "wal-stalls:%u", n);
    start(fault);
    open_it();
}

static void restart(void)
{
    kith_close(k);
    test_daemon_kill(&kithd);
    start("");
    open_it();
}

static void lose_segment(void)
{
    kith_close(k);
    test_daemon_kill(&kithd);
    assert_int_equal(unlink(test_daemon_segment(&kithd, NAME)), 0);
}

static void the_first_write_that_asks_for_less_is_durable_and_leaves_a_mark(void **state)
{
    (void)state;
    uint64_t epoch = 0;
    assert_false(marked());
    assert_int_equal(put(0, 1, KITH_DURABILITY_DURABLE, &epoch), 0);
    assert_false(marked());
    become_ahead();
    struct kith_stats s = stats();
    assert_int_equal(s.durable_epoch, s.epoch);
    assert_int_equal(s.timeline, kith_timeline(k));
}

static void applied_writes_are_visible_while_the_log_is_stuck_and_outlive_the_daemon(void **state)
{
    (void)state;
    uint64_t timeline = kith_timeline(k), epoch = 0, first;
    become_ahead();
    uint64_t before = stats().epoch;
    stall_from(1);
    assert_int_equal(put(1, 1, KITH_DURABILITY_APPLIED, &first), 0);
    assert_int_equal(first, before + 1);
    assert_int_equal(version_of(1), 1);
    struct kith_stats s = stats();
    assert_int_equal(s.epoch, first);
    assert_int_equal(s.durable_epoch, before);
    assert_int_equal(kith_wait_durable(k, before, 0), 0);
    assert_int_equal(kith_wait_durable(k, first, 50), KITH_E_TIMEOUT);

    /* Over and over, deleted, and several in one batch that says how far the log is. */
    assert_int_equal(put(1, 2, KITH_DURABILITY_APPLIED, &epoch), 0);
    assert_int_equal(put(2, 1, KITH_DURABILITY_NONE, &epoch), 0);
    assert_int_equal(kith_wait_epoch(k, epoch, (int)DEADLINE_MS), 0);
    assert_int_equal(kith_set_durability(k, KITH_DURABILITY_APPLIED), 0);
    assert_int_equal(kith_delete(k, "id-0", &epoch), 0);
    kith_batch *b = kith_batch_new(k);
    struct kith_commit commit = KITH_COMMIT_INIT;
    float vector[DIM];
    vector_of(3003, vector);
    assert_int_equal(kith_batch_upsert(b, "id-3", vector, DIM), 0);
    assert_int_equal(kith_batch_delete(b, "id-2"), 0);
    assert_int_equal(kith_batch_commit(b, &commit), 0);
    assert_int_equal(commit.found, 1);
    assert_int_equal(commit.durable_epoch, before);
    assert_true(commit.lag_ms > 0);
    epoch = commit.epoch;
    assert_int_equal(stats().durable_epoch, before);
    /* An empty one is sent to nobody, and knows as much. */
    kith_batch_clear(b);
    assert_int_equal(kith_batch_commit(b, &commit), 0);
    assert_int_equal(commit.epoch, epoch);
    assert_int_equal(commit.durable_epoch, before);
    assert_int_equal(commit.lag_ms, 0);
    kith_batch_free(b);

    restart();
    assert_true(test_daemon_logged(&kithd, "log-completed"));
    for (int round = 0; round < 2; round++) {
        s = stats();
        assert_int_equal(s.epoch, epoch);
        assert_int_equal(s.durable_epoch, epoch);
        assert_int_equal(s.live_count, 2);
        assert_int_equal(version_of(0), 0);
        assert_int_equal(version_of(1), 2);
        assert_int_equal(version_of(2), 0);
        assert_int_equal(version_of(3), 3);
        if (round == 0)
            assert_int_equal(kith_timeline(k), timeline); /* nothing was lost */
        /* And from the log alone, which had none of it. */
        if (round == 0) {
            lose_segment();
            start("");
            open_it();
        }
    }
    assert_int_not_equal(kith_timeline(k), timeline); /* kithd cannot know that nothing was */
    assert_false(marked());
}

static void a_log_that_lags_is_not_left_further_behind(void **state)
{
    (void)state;
    uint64_t epoch = 0, end = test_now_ms() + DEADLINE_MS;
    kith_pipe *pipe = NULL;
    let_lag(300);
    become_ahead();
    stall_from(1);
    assert_int_equal(put(10, 1, KITH_DURABILITY_APPLIED, &epoch), 0);
    assert_int_equal(kith_set_durability(k, KITH_DURABILITY_APPLIED), 0);
    assert_int_equal(kith_pipe_open(k, 64, &pipe), 0);
    kith_batch *b = kith_batch_new(k);
    float vector[DIM];
    vector_of(1011, vector);
    /* Sooner or later one is not answered any more, since it waits for the log. */
    uint64_t answered = 0;
    for (;;) {
        kith_batch_clear(b);
        assert_int_equal(kith_batch_upsert(b, "id-11", vector, DIM), 0);
        assert_int_equal(kith_pipe_submit(pipe, b, 1), 0);
        int status = 0;
        int rc = kith_pipe_next(pipe, 1000, NULL, &status, NULL);
        assert_true(rc >= 0);
        if (rc == 0)
            break;
        assert_int_equal(status, 0);
        answered++;
        assert_true(test_now_ms() < end);
    }
    struct kith_stats s = stats();
    assert_int_equal(s.epoch, epoch + answered);
    kith_pipe_close(pipe);
    kith_batch_free(b);
    let_lag(600000);
    restart();
    assert_true(stats().epoch >= epoch + answered);
    assert_int_equal(version_of(10), 1);
}

/* Dies at point as it starts; then it starts without. */
static void die_starting(const char *point)
{
    uint64_t end = test_now_ms() + DEADLINE_MS;
    int status = -1;
    kith_close(k);
    test_daemon_kill(&kithd);
    snprintf(kithd.fault, sizeof kithd.fault, "%s", point);
    test_daemon_spawn(&kithd);
    while (test_daemon_alive(&kithd, &status)) {
        assert_true(test_now_ms() < end);
        test_nap();
    }
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    start("");
    open_it();
}

static void completing_the_log_may_be_cut_short(void **state)
{
    (void)state;
    static const char *const points[] = { "crash-before-log-opened", "crash-after-log-opened" };
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t epoch = 0;
        become_ahead();
        stall_from(1);
        assert_int_equal(put(20, 1 + i, KITH_DURABILITY_APPLIED, &epoch), 0);
        assert_int_equal(put(21, 1 + i, KITH_DURABILITY_APPLIED, &epoch), 0);
        die_starting(points[i]);
        assert_int_equal(stats().epoch, epoch);
        assert_int_equal(stats().durable_epoch, epoch);
        lose_segment();
        start("");
        open_it();
        assert_int_equal(version_of(20), 1 + i);
        assert_int_equal(version_of(21), 1 + i);
    }
}

static void a_timeline_is_forked_once_and_lasts(void **state)
{
    (void)state;
    uint64_t before = kith_timeline(k);
    become_ahead();
    lose_segment();
    uint64_t end = test_now_ms() + DEADLINE_MS;
    int status = -1;
    snprintf(kithd.fault, sizeof kithd.fault, "crash-after-fork");
    test_daemon_spawn(&kithd);
    while (test_daemon_alive(&kithd, &status)) {
        assert_true(test_now_ms() < end);
        test_nap();
    }
    assert_true(WIFSIGNALED(status));
    assert_true(marked());
    start("");
    open_it();
    uint64_t forked = kith_timeline(k);
    assert_int_not_equal(forked, before);
    assert_false(marked());
    assert_true(test_daemon_logged(&kithd, "timeline"));

    /* Nothing is ahead now: the segment may go, and the timeline stays. */
    lose_segment();
    start("");
    open_it();
    assert_int_equal(kith_timeline(k), forked);

    /* A clean stop leaves nothing behind the log. */
    become_ahead();
    kith_close(k);
    assert_int_equal(test_daemon_stop(&kithd), 0);
    assert_false(marked());
    assert_int_equal(unlink(test_daemon_segment(&kithd, NAME)), 0);
    start("");
    open_it();
    assert_int_equal(kith_timeline(k), forked);
}

static void a_checkpoint_waits_for_the_log(void **state)
{
    (void)state;
    uint64_t epoch = 0, of = 0;
    struct kith_error error;
    become_ahead();
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(put(100 + i, 1, KITH_DURABILITY_APPLIED, &epoch), 0);
    assert_int_equal(kith_checkpoint(k, &of, &error), 0);
    assert_true(of >= epoch);
    assert_int_equal(kith_wait_durable(k, of, 0), 0);
    lose_segment();
    start("");
    open_it();
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(version_of(100 + i), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_write_that_asks_for_less_is_durable_and_leaves_a_mark),
        cmocka_unit_test(applied_writes_are_visible_while_the_log_is_stuck_and_outlive_the_daemon),
        cmocka_unit_test(a_log_that_lags_is_not_left_further_behind),
        cmocka_unit_test(completing_the_log_may_be_cut_short),
        cmocka_unit_test(a_timeline_is_forked_once_and_lasts),
        cmocka_unit_test(a_checkpoint_waits_for_the_log),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
