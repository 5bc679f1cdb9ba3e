/*
 * test_read_only.c - readers on a read-only mount of the run directory: search, get, wait for an epoch, write through the
 * socket, move to a rebuilt segment; without being counted. As two containers of a pod share a volume.
 *
 * Needs the right to mount; says so and is skipped without it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <kith/kith.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/layout/board.h"
#include "shm/layout/header.h"
#include "tests/support/boards.h"
#include "tests/support/child.h"
#include "tests/support/codes.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"

#define NAME    "ro"
#define DIM     4u
#define WAIT_MS 30000

struct shared {
    _Atomic uint32_t step; /* the reader has come so far */
    _Atomic uint32_t go;   /* and may go so far */
    char run[TEST_PATH_SIZE + 8];
    char text[512];
};

static void await(struct shared *s, uint32_t go)
{
    while (atomic_load(&s->go) < go)
        test_nap();
}

#define EXPECT(s, what, condition)                                                                           \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            snprintf((s)->text, sizeof(s)->text, "%s (%s)", what, #condition);                               \
            return 1;                                                                                        \
        }                                                                                                    \
    } while (0)

static int reader_role(void *arg)
{
    struct shared *s = arg;
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    char path[2 * TEST_PATH_SIZE];
    float v[DIM], query[DIM] = { 0 };
    kith *k = NULL;
    opts.run_dir = s->run;
    opts.error = &error;

    snprintf(path, sizeof path, "%s/%s/segment", s->run, NAME);
    EXPECT(s, "the mount is read-only", open(path, O_RDWR | O_CLOEXEC) < 0 && errno == EROFS);
    EXPECT(s, error.text, kith_open(NAME, &opts, &k) == 0);
    kith_results *results = kith_results_new();
    EXPECT(s, "memory", results != NULL);
    EXPECT(s, "search", kith_search(k, query, DIM, 1, NULL, results) == 1);
    EXPECT(s, "the hit", strcmp(kith_results_id(results, 0), "one") == 0);
    EXPECT(s, "get", kith_get(k, "one", v, DIM, NULL) == 0 && v[0] == 1);

    /* A futex in a mapping that cannot be written. */
    uint64_t epoch = kith_epoch(k);
    EXPECT(s, "nothing new yet", kith_wait_epoch(k, epoch + 1, 1) == KITH_E_TIMEOUT);
    atomic_store(&s->step, 1);
    EXPECT(s, "wait", kith_wait_epoch(k, epoch + 1, WAIT_MS) == 0);
    EXPECT(s, "get", kith_get(k, "two", v, DIM, NULL) == 0 && v[0] == 2);

    /* The socket can be connected to. */
    for (unsigned i = 0; i < DIM; i++)
        v[i] = 3;
    EXPECT(s, "upsert", kith_upsert(k, "three", v, DIM, &epoch) == 0);
    EXPECT(s, "exists", kith_exists(k, "three") == 1 && kith_epoch(k) >= epoch);
    atomic_store(&s->step, 2);

    /* The daemon is killed, comes back and builds the segment anew. */
    await(s, 3);
    EXPECT(s, "search without a daemon", kith_search(k, query, DIM, 3, NULL, results) == 3);
    int rc;
    while ((rc = kith_upsert(k, "four", v, DIM, NULL)) == KITH_E_UNKNOWN_OUTCOME)
        test_nap(); /* the kernel may keep a killed daemon's socket for a while; await(s, 4) of the other side has an end */
    EXPECT(s, "upsert without a daemon", rc == KITH_E_NO_DAEMON);
    atomic_store(&s->step, 3);
    await(s, 4);
    struct kith_stats stats = KITH_STATS_INIT;
    EXPECT(s, "search in the new segment", kith_search(k, query, DIM, 3, NULL, results) == 3);
    EXPECT(s, "a new generation",
           kith_stats(k, &stats) == 0 && stats.generation > 1 && stats.live_count == 3);
    kith_results_free(results);
    kith_close(k);
    return 0;
}

static void reader_at(struct shared *s, struct test_child *child, uint32_t step)
{
    uint64_t end = test_now_ms() + WAIT_MS;
    while (atomic_load(&s->step) < step) {
        if (!test_child_running(child) || test_now_ms() > end)
            fail_msg("the reader does not come to step %u: %s", step, s->text);
        test_nap();
    }
}

static void a_read_only_mount_is_enough_for_readers(void **state)
{
    (void)state;
    struct test_daemon d;
    struct test_dir view = { .path = "" };
    struct shared *s = test_shared(sizeof *s);
    struct test_child child;
    char run[TEST_PATH_SIZE + 8];
    test_daemon_init(&d);
    snprintf(run, sizeof run, "%s/run", d.run.path);
    if (!test_dir_bind_read_only(&d.run, &view)) {
        test_dir_remove(&view);
        test_daemon_fini(&d);
        skip();
        return;
    }
    snprintf(s->run, sizeof s->run, "%s/run", view.path);
    assert_int_equal(test_daemon_start(&d), 0);
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.quantization = test_quantization();
    create.keep = test_keep();
    create.run_dir = run;
    assert_int_equal(kith_create(NAME, &create), 0);
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run;
    kith *k = NULL;
    float v[DIM] = { 1, 1, 1, 1 };
    assert_int_equal(kith_open(NAME, &opts, &k), 0);
    assert_int_equal(kith_upsert(k, "one", v, DIM, NULL), 0);

    test_child_start(&child, "reader", reader_role, s);
    reader_at(s, &child, 1);
    /* It has searched, and is not counted: the one board is of this process, which has not. */
    struct test_boards boards;
    char readers[TEST_PATH_SIZE + 32];
    snprintf(readers, sizeof readers, "%s/" NAME "/" KITHI_BOARD_DIR, run);
    test_boards_read(readers, &boards);
    assert_int_equal(boards.files, 1);
    assert_int_equal(boards.alive, 1);
    assert_int_equal(boards.searches, 0);
    v[0] = 2;
    assert_int_equal(kith_upsert(k, "two", v, DIM, NULL), 0);
    reader_at(s, &child, 2);
    test_daemon_kill(&d);
    atomic_store(&s->go, 3);
    reader_at(s, &child, 3);

    uint64_t nonsense = 1; /* nothing that a reader looks at, and enough for adoption to refuse */
    int fd = open(test_daemon_segment(&d, NAME), O_RDWR | O_CLOEXEC);
    off_t off = (off_t)(offsetof(struct kithi_header, taken) + KITHI_REGION_WRITER * sizeof(uint64_t));
    assert_true(fd >= 0 && pwrite(fd, &nonsense, sizeof nonsense, off) == (ssize_t)sizeof nonsense);
    close(fd);
    assert_int_equal(test_daemon_start(&d), 0);
    atomic_store(&s->go, 4);
    if (test_child_wait(&child, WAIT_MS) != 0) {
        test_daemon_show_log(&d);
        fail_msg("%s", s->text);
    }
    assert_true(test_verify_path(test_daemon_segment(&d, NAME)));
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_dir_remove(&view);
    test_daemon_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_read_only_mount_is_enough_for_readers) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
