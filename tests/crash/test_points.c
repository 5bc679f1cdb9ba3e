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
#include "tests/crash/fire.h"

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
        { "crash-after-postings", 12 },   { "crash-after-era", 3 },        { "crash-in-rebuild", 500 },
    };
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        fire_start_with_fault(points[i].name, 1 + test_rand_below(&r, points[i].passages));
        /* What a start finds left over may bring it there already. */
        bool ready = false;
        while (!(ready = test_daemon_answers(&kithd)) && test_daemon_alive(&kithd, NULL))
            test_nap();
        if (ready) {
            workload_go(&work);
            int status = fire_wait_for_death(points[i].name);
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            assert_true(workload_halted(&work, FIRE_DEATH_MS));
        }
        fire_start_again();
        fire_check(points[i].name);
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
        fire_start_with_fault(points[i], 1);
        int status = fire_wait_for_death(points[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        fire_start_again();
        fire_check(points[i]);
    }
}

static void a_failed_log_write_ends_the_daemon_and_no_acknowledged_write(void **state)
{
    (void)state;
    fire_start_with_fault("wal-write-eio", 5);
    assert_int_equal(test_daemon_wait_ready(&kithd), 0);
    workload_go(&work);
    int status = fire_wait_for_death("wal-write-eio");
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    assert_true(workload_halted(&work, FIRE_DEATH_MS));
    fire_start_again();
    fire_check("wal-write-eio");
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
    fire_start_with_fault("wal-write-eio", 1);
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
        assert_int_equal(kith_pipe_next(pipe, FIRE_DEATH_MS, &token, &status, NULL), 1);
        assert_int_equal(status, KITH_E_LOG_FAILED);
    }
    int status = fire_wait_for_death("wal-write-eio");
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    kith_batch_free(all);
    kith_batch_free(more);
    kith_pipe_close(pipe);
    kith_close(index);
    fire_start_again();
    fire_check("wal-write-eio while a write waits");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acknowledged_writes_survive_a_death_at_each_point_of_a_commit),
        cmocka_unit_test(a_half_made_switch_is_completed_or_undone),
        cmocka_unit_test(a_failed_log_write_ends_the_daemon_and_no_acknowledged_write),
        cmocka_unit_test(a_write_that_waits_for_room_is_refused_when_the_log_fails_before_it),
    };
    return cmocka_run_group_tests(tests, fire_set_up, fire_tear_down);
}
