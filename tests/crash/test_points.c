/*
 * test_points.c - the daemon dies at each named point of a commit, a sweep and a switch (server/base/fault.h), and its
 * log fails under it. What was acknowledged is there after the next start, and readers saw no error.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kith/kith.h>

#include "shm/layout/header.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"
#include "tests/support/workload.h"

#define VECTORS  3000u
#define DIM      24u
#define DEATH_MS 60000u

static struct test_daemon kithd;
static struct workload work;
static struct test_rand r;

static int set_up(void **state)
{
    (void)state;
    test_rand_seed(&r, test_seed());
    test_daemon_init(&kithd);
    workload_init(&work, &kithd, test_seed(), VECTORS, DIM);
    if (test_daemon_start(&kithd) < 0)
        return -1;
    workload_load(&work);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    struct workload_tally tally;
    test_daemon_kill(&kithd);
    bool ok = workload_finish(&work, &tally);
    test_daemon_fini(&kithd);
    return ok ? 0 : -1;
}

static void check(const char *point)
{
    struct workload_tally tally;
    if (!workload_check(&work, &tally)) {
        test_daemon_show_log(&kithd);
        fail_msg("after %s", point);
    }
    fprintf(stderr, "%s: %u of %u open batches are there\n", point, tally.applied, tally.pending);
}

/* Wait for the daemon's own end; its status. */
static int wait_for_death(const char *point)
{
    uint64_t end = test_now_ms() + DEATH_MS;
    int status = -1;
    while (test_daemon_alive(&kithd, &status)) {
        if (test_now_ms() > end) {
            test_daemon_show_log(&kithd);
            fail_msg("kithd never came to %s", point);
        }
        test_nap();
    }
    return status;
}

static void start_with_fault(const char *point, uint32_t passage)
{
    test_daemon_kill(&kithd);
    snprintf(kithd.fault, sizeof kithd.fault, "%s:%u", point, passage);
    test_daemon_spawn(&kithd);
}

static void start_again(void)
{
    kithd.fault[0] = '\0';
    if (test_daemon_start(&kithd) < 0) {
        test_daemon_show_log(&kithd);
        fail_msg("kithd does not start again");
    }
}

static void acknowledged_writes_survive_a_death_at_each_point_of_a_commit(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t passages; /* it dies at one of so many first ones */
    } points[] = {
        { "crash-after-append", 12 },     { "crash-after-log", 12 },       { "crash-while-filling", 200 },
        { "crash-while-linking", 3000 },  { "crash-after-insertion", 12 }, { "crash-before-publish", 12 },
        { "crash-after-births", 12 },     { "crash-after-ids", 12 },       { "crash-after-deaths", 12 },
        { "crash-after-epoch", 12 },      { "crash-after-publish", 12 },   { "crash-in-sweep", 3 },
        { "crash-while-unlinking", 500 }, { "crash-while-freeing", 60 },   { "crash-after-freeing", 60 },
    };
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        start_with_fault(points[i].name, 1 + test_rand_below(&r, points[i].passages));
        /* What a start finds left over may bring it there already. */
        bool ready = false;
        while (!(ready = test_daemon_answers(&kithd)) && test_daemon_alive(&kithd, NULL))
            test_nap();
        if (ready) {
            workload_go(&work);
            int status = wait_for_death(points[i].name);
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            assert_true(workload_halted(&work, DEATH_MS));
        }
        start_again();
        check(points[i].name);
    }
}

static void a_half_made_switch_is_completed_or_undone(void **state)
{
    (void)state;
    static const char *const points[] = { "crash-in-switch-linked", "crash-in-switch-renamed" };
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        /* Not adoptable, for a reason that no reader looks at. */
        uint64_t nonsense = 1;
        test_daemon_kill(&kithd);
        int fd = open(test_daemon_segment(&kithd, WORKLOAD_NAME), O_RDWR | O_CLOEXEC);
        off_t off = (off_t)(offsetof(struct kithi_header, taken) + KITHI_REGION_WRITER * sizeof(uint64_t));
        assert_true(fd >= 0 && pwrite(fd, &nonsense, sizeof nonsense, off) == (ssize_t)sizeof nonsense);
        close(fd);
        start_with_fault(points[i], 1);
        int status = wait_for_death(points[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        start_again();
        check(points[i]);
    }
}

static void a_failed_log_write_ends_the_daemon_and_no_acknowledged_write(void **state)
{
    (void)state;
    start_with_fault("wal-write-eio", 5);
    assert_int_equal(test_daemon_wait_ready(&kithd), 0);
    workload_go(&work);
    int status = wait_for_death("wal-write-eio");
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    assert_true(workload_halted(&work, DEATH_MS));
    start_again();
    check("wal-write-eio");
}

/* The second of two writes finds no room before the first is published, which it never is. */
static void a_write_that_waits_for_room_is_refused_when_the_log_fails_before_it(void **state)
{
    (void)state;
    enum { SMALL = 256 };
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *index = NULL;
    kith_pipe *pipe = NULL;
    float v[4] = { 0 };
    const char *run = test_path(&kithd.run, "run");
    create.run_dir = opts.run_dir = run;
    create.dim = 4;
    create.metric = KITH_METRIC_L2;
    create.max_vectors = SMALL;
    create.fixed = 1;
    start_with_fault("wal-write-eio", 1);
    assert_int_equal(test_daemon_wait_ready(&kithd), 0);
    assert_int_equal(kith_create("small", &create), 0);
    assert_int_equal(kith_open("small", &opts, &index), 0);
    assert_int_equal(kith_pipe_open(index, 2, &pipe), 0);
    kith_batch *all = kith_batch_new(index), *more = kith_batch_new(index);
    for (unsigned i = 0; i < SMALL; i++) {
        char id[16];
        snprintf(id, sizeof id, "%u", i);
        v[0] = (float)i;
        assert_int_equal(kith_batch_upsert(all, id, v, 4), 0);
        if (i < 9)
            assert_int_equal(kith_batch_upsert(more, id, v, 4), 0);
    }
    assert_int_equal(kith_pipe_submit(pipe, all, 1), 0);
    assert_int_equal(kith_pipe_submit(pipe, more, 2), 0);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t token;
        int status;
        assert_int_equal(kith_pipe_next(pipe, DEATH_MS, &token, &status, NULL), 1);
        assert_int_equal(status, KITH_E_LOG_FAILED);
    }
    int status = wait_for_death("wal-write-eio");
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    kith_batch_free(all);
    kith_batch_free(more);
    kith_pipe_close(pipe);
    kith_close(index);
    start_again();
    check("wal-write-eio while a write waits");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acknowledged_writes_survive_a_death_at_each_point_of_a_commit),
        cmocka_unit_test(a_half_made_switch_is_completed_or_undone),
        cmocka_unit_test(a_failed_log_write_ends_the_daemon_and_no_acknowledged_write),
        cmocka_unit_test(a_write_that_waits_for_room_is_refused_when_the_log_fails_before_it),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
