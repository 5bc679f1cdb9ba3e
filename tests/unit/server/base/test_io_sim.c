/*
 * test_io_sim.c - does the simulated disk do what a test asks of it? What it loses is seen by the tests of the log.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/base/io_sim.h"
#include "tests/support/tmp.h"

#define BLOCK 4096u
#define TURNS 100

static int results[3];

static void note(struct kithi_io_op *op, int result)
{
    *(int *)op->arg = result;
}

static int call(void *arg)
{
    (void)arg;
    return 7;
}

static void run_out(struct kithi_io *io)
{
    for (int i = 0; i < TURNS; i++)
        (void)kithi_io_run(io, 0);
}

static void a_slow_disk_holds_durable_writes_and_nothing_else(void **state)
{
    static char bytes[BLOCK];
    struct kithi_io_op ops[3];
    struct test_dir dir;
    struct kithi_io *io;
    char path[TEST_PATH_SIZE + 8];
    bool direct;
    (void)state;
    test_dir_make(&dir);
    assert_int_equal(kithi_sim_open(dir.path, 1, &io), 0);
    snprintf(path, sizeof path, "%s/file", dir.path);
    int fd = kithi_io_file_create(io, path, true, &direct);
    assert_true(fd >= 0);
    for (int i = 0; i < 3; i++)
        ops[i] = (struct kithi_io_op){ .done = note, .arg = &results[i] };
    for (int life = 0; life < 2; life++) {
        memset(results, 0, sizeof results);
        kithi_sim_hold(io, true);
        kithi_io_write_durable(io, &ops[0], fd, bytes, BLOCK, 0);
        kithi_io_call(io, &ops[1], call);
        kithi_io_write(io, &ops[2], fd, bytes, BLOCK, BLOCK);
        run_out(io);
        assert_int_equal(results[0], 0);
        assert_int_equal(results[1], 7);
        assert_int_equal(results[2], BLOCK);
        if (life == 0) {
            kithi_sim_hold(io, false);
            run_out(io);
            assert_int_equal(results[0], BLOCK);
        }
    }
    /* The end finds it in flight, and the next life begins with a disk that answers. */
    assert_int_equal(kithi_sim_stop(io), 0);
    assert_int_equal(results[0], -ECANCELED);
    kithi_sim_start(io);
    fd = kithi_io_file_create(io, path, true, &direct);
    assert_true(fd >= 0);
    kithi_io_write_durable(io, &ops[0], fd, bytes, BLOCK, 0);
    run_out(io);
    assert_int_equal(results[0], BLOCK);
    kithi_io_free(io);
    test_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_disk_holds_durable_writes_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
