/*
 * test_checkpoints.c - checkpoints taken under fire: the daemon dies, the segment is lost with it, and what was
 * acknowledged is there after a cold start, from the newest checkpoint, from the one before when that is damaged, or
 * from the log alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kith/kith.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/fire.h"

static void pause_ms(unsigned ms)
{
    uint64_t end = test_now_ms() + ms;
    while (test_now_ms() < end)
        test_nap();
}

static int checkpoint(struct kith_error *error)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    char run[TEST_PATH_SIZE];
    kith *k = NULL;
    uint64_t epoch = 0;
    snprintf(run, sizeof run, "%s", kithd.sock);
    *strrchr(run, '/') = '\0';
    opts.run_dir = run;
    opts.error = error;
    int rc = kith_open(WORKLOAD_NAME, &opts, &k);
    if (rc == 0)
        rc = kith_checkpoint(k, &epoch, error);
    kith_close(k);
    return rc;
}

/* As after a reboot: the segment is gone. */
static void lose_segment(void)
{
    assert_int_equal(unlink(test_daemon_segment(&kithd, WORKLOAD_NAME)), 0);
}

static void data_path(char out[2 * TEST_PATH_SIZE], const char *name)
{
    snprintf(out, 2 * TEST_PATH_SIZE, "%s/" WORKLOAD_NAME "/%s", test_path(&kithd.data, "data"), name);
}

/* Names of the files in the collection's directory that begin like a checkpoint, sorted; their number. */
static unsigned checkpoints(char out[8][64])
{
    char path[2 * TEST_PATH_SIZE];
    struct dirent **list = NULL;
    unsigned count = 0;
    data_path(path, ".");
    int n = scandir(path, &list, NULL, alphasort);
    assert_true(n >= 0);
    for (int i = 0; i < n; i++) {
        if (strncmp(list[i]->d_name, "checkpoint", 10) == 0 && count < 8)
            snprintf(out[count++], 64, "%.60s", list[i]->d_name);
        free(list[i]);
    }
    free(list);
    return count;
}

struct damage {
    char path[2 * TEST_PATH_SIZE];
    off_t at;
    unsigned char byte; /* as it was */
};

static void put_byte(const struct damage *d, unsigned char byte)
{
    int fd = open(d->path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &byte, 1, d->at), 1);
    close(fd);
}

/* Turn a bit somewhere. */
static void do_damage(const char *name, struct damage *d)
{
    struct stat st;
    data_path(d->path, name);
    int fd = open(d->path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    d->at = (off_t)(test_rand_u64(&r) % (uint64_t)st.st_size);
    assert_int_equal(pread(fd, &d->byte, 1, d->at), 1);
    close(fd);
    put_byte(d, d->byte ^ (unsigned char)(1u << test_rand_below(&r, 8)));
}

static void go_on(unsigned checkpoint_count)
{
    struct kith_error error = { 0 };
    workload_go(&work);
    for (unsigned i = 0; i < checkpoint_count; i++) {
        pause_ms(20 + test_rand_below(&r, 120));
        if (checkpoint(&error) < 0)
            fail_msg("%s", error.text);
    }
    pause_ms(test_rand_below(&r, 100));
}

static void a_cold_start_brings_back_what_was_acknowledged(void **state)
{
    (void)state;
    char names[8][64];
    for (unsigned round = 0; round < (test_long() ? 40 : 6); round++) {
        go_on(1 + round % 3);
        test_daemon_kill(&kithd);
        assert_true(workload_halted(&work, FIRE_DEATH_MS));
        assert_in_range(checkpoints(names), 1, 3); /* two, and one that was being written */
        lose_segment();
        fire_start_again();
        assert_true(test_daemon_logged(&kithd, "event=loaded"));
        assert_in_range(checkpoints(names), 1, 2);
        fire_check("a cold start");
    }
}

static void a_damaged_checkpoint_is_passed_over(void **state)
{
    (void)state;
    char names[8][64];
    struct damage older, newer;
    for (unsigned round = 0; round < (test_long() ? 20 : 3); round++) {
        go_on(2);
        test_daemon_kill(&kithd);
        assert_true(workload_halted(&work, FIRE_DEATH_MS));
        assert_in_range(checkpoints(names), 2, 3);
        do_damage(names[1], &newer);
        lose_segment();
        bool up = false;
        if (round % 2 == 0) { /* both: the log alone, if that is whole, or nothing that is made up */
            do_damage(names[0], &older);
            up = test_daemon_start(&kithd) == 0;
            assert_true(up || test_daemon_logged(&kithd, "the log begins with epoch"));
            put_byte(&older, older.byte);
        }
        if (!up)
            fire_start_again();
        assert_true(test_daemon_logged(&kithd, "event=checkpoint-refused"));
        fire_check("a cold start beside a damaged checkpoint");
    }
}

static void a_clean_stop_leaves_nothing_to_replay(void **state)
{
    (void)state;
    go_on(0);
    workload_rest(&work);
    assert_true(workload_halted(&work, FIRE_DEATH_MS));
    assert_int_equal(test_daemon_stop(&kithd), 0);
    lose_segment();
    fire_start_again();
    assert_true(test_daemon_logged(&kithd, "groups=0 changes=0"));
    fire_check("a clean stop");
}

static void a_death_at_each_point_of_a_checkpoint_loses_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t passages;
    } points[] = { { "crash-in-checkpoint", 4 },
                   { "crash-before-checkpoint-named", 1 },
                   { "crash-after-checkpoint-named", 1 },
                   { "crash-after-trim", 1 } };
    struct kith_error error = { 0 };
    for (unsigned i = 0; i < sizeof points / sizeof *points; i++) {
        for (unsigned cold = 0; cold < 2; cold++) {
            fire_start_with_fault(points[i].name, 1 + test_rand_below(&r, points[i].passages));
            assert_int_equal(test_daemon_wait_ready(&kithd), 0);
            workload_go(&work);
            pause_ms(50);
            while (checkpoint(&error) == 0 && test_daemon_alive(&kithd, NULL))
                test_nap();
            int status = fire_wait_for_death(points[i].name);
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            assert_true(workload_halted(&work, FIRE_DEATH_MS));
            if (cold)
                lose_segment();
            fire_start_again();
            fire_check(points[i].name);
        }
    }
}

static void a_checkpoint_that_fails_says_why_and_the_collection_goes_on(void **state)
{
    (void)state;
    static const char *const faults[] = { "checkpoint-write-enospc", "checkpoint-sync-eio" };
    static const int codes[] = { -ENOSPC, -EIO };
    char names[8][64];
    for (unsigned i = 0; i < 2; i++) {
        struct kith_error error = { 0 };
        fire_start_with_fault(faults[i], 1);
        assert_int_equal(test_daemon_wait_ready(&kithd), 0);
        workload_go(&work);
        pause_ms(50);
        /* Where nothing was written yet, the last one is the answer. */
        unsigned before = checkpoints(names);
        int rc;
        while ((rc = checkpoint(&error)) == 0 && checkpoints(names) == before)
            test_nap();
        assert_int_equal(rc, codes[i]);
        assert_true(error.text[0] != '\0');
        assert_int_equal(checkpoints(names), before); /* nothing is left behind */
        assert_int_equal(checkpoint(&error), 0);
        workload_rest(&work);
        assert_true(workload_halted(&work, FIRE_DEATH_MS));
        fire_check(faults[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cold_start_brings_back_what_was_acknowledged),
        cmocka_unit_test(a_damaged_checkpoint_is_passed_over),
        cmocka_unit_test(a_clean_stop_leaves_nothing_to_replay),
        cmocka_unit_test(a_checkpoint_that_fails_says_why_and_the_collection_goes_on),
        cmocka_unit_test(a_death_at_each_point_of_a_checkpoint_loses_nothing),
    };
    return cmocka_run_group_tests(tests, fire_set_up, fire_tear_down);
}
