/*
 * test_board.c - the board that a handle counts on: what is counted, by threads and forked children, too; who has none;
 * what is left behind. The writer is kithi_index in this process; no daemon runs.
 */
#include <kith/kith.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/layout/board.h"
#include "tests/support/boards.h"
#include "tests/support/index.h"
#include "tests/support/tmp.h"

enum { DIM = 8, COUNT = 200, THREADS = 4, EACH = 500 };

/* A run directory with a collection "c", and a directory for boards if there shall be one. */
struct world {
    struct test_dir run;
    char boards[TEST_PATH_SIZE + 16], segment[TEST_PATH_SIZE + 16];
    struct test_index index;
};

static void put(struct test_index *t, int number)
{
    char id[16];
    float v[DIM];
    struct kithi_errmsg err;
    struct kithi_op op = { .type = KITHI_OP_UPSERT, .id = id, .dim = DIM, .vector = v };
    for (int i = 0; i < DIM; i++)
        v[i] = (float)number;
    op.id_len = (uint16_t)snprintf(id, sizeof id, "%d", number);
    if (test_index_commit(t, &op, 1, &err) < 0)
        test_die("%s", err.text);
}

static void world_fill(struct world *w, bool boards)
{
    char folder[TEST_PATH_SIZE + 16];
    struct kithi_geometry g = {
        .dim = DIM, .metric = KITHI_METRIC_L2, .m = 8, .ef_construction = 50, .slot_max = 4096
    };
    kithi_geometry_want(&g, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32);
    snprintf(folder, sizeof folder, "%s/c", w->run.path);
    snprintf(w->boards, sizeof w->boards, "%s/c/" KITHI_BOARD_DIR, w->run.path);
    snprintf(w->segment, sizeof w->segment, "%s/c/segment", w->run.path);
    assert_int_equal(mkdir(folder, 0755), 0);
    test_index_create(&w->index, w->segment, &g, 1, 50, 50);
    for (int i = 0; i < COUNT; i++)
        put(&w->index, i);
    if (boards)
        assert_int_equal(mkdir(w->boards, 0700), 0);
}

static void world_make(struct world *w, bool boards)
{
    test_dir_make_shm(&w->run);
    world_fill(w, boards);
}

static void world_remove(struct world *w)
{
    test_index_close(&w->index);
    test_dir_remove(&w->run);
}

static kith *open_in(const struct world *w, uint32_t counters)
{
    kith *index = NULL;
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    o.run_dir = w->run.path;
    o.counters = counters;
    if (kith_open("c", &o, &index) != 0)
        test_die("the collection cannot be opened");
    return index;
}

static void search(kith *index, int n)
{
    float q[DIM] = { 0 };
    kith_results *r = kith_results_new();
    for (int i = 0; i < n; i++) {
        q[0] = (float)(i % COUNT);
        if (kith_search(index, q, DIM, 3, NULL, r) != 3)
            test_die("a search fails");
    }
    kith_results_free(r);
}

static void *search_thread(void *arg)
{
    search(arg, EACH);
    return NULL;
}

static void searches_of_all_threads_are_counted(void **state)
{
    (void)state;
    struct world w;
    struct test_boards b;
    pthread_t threads[THREADS];
    world_make(&w, true);
    kith *index = open_in(&w, KITH_COUNTERS_AUTO);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.files, 1);
    assert_int_equal(b.alive, 1);
    assert_int_equal(b.searches, 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, search_thread, index), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.searches, THREADS * EACH);
    /* A fourth of them is timed, in each thread from its first on. */
    assert_true(b.untimed || (b.timed >= THREADS * EACH / 4 && b.timed <= THREADS * EACH / 4 + THREADS));
    assert_int_equal(b.failures, 0);
    assert_true(b.expansions >= b.searches);
    assert_int_equal(b.epoch, COUNT);
    assert_int_equal(b.lag, 0);
    kith_close(index);
    world_remove(&w);
}

static void every_kind_of_search_is_counted(void **state)
{
    (void)state;
    enum { BATCH = 70 };
    struct world w;
    struct test_boards b;
    struct kith_search_opts exact = KITH_SEARCH_OPTS_INIT;
    static float queries[BATCH * DIM];
    float v[DIM];
    kith_results *results[BATCH];
    exact.exact = 1;
    for (int i = 0; i < BATCH; i++)
        results[i] = kith_results_new();
    world_make(&w, true);
    kith *index = open_in(&w, KITH_COUNTERS_AUTO);
    assert_int_equal(kith_search_batch(index, queries, DIM, BATCH, 3, NULL, results, NULL), 0);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.searches, BATCH);
    assert_int_equal(b.timed + b.untimed, BATCH);
    assert_int_equal(kith_search_id(index, "7", 3, NULL, results[0]), 3);
    assert_int_equal(kith_search(index, queries, DIM, 3, &exact, results[0]), 3);
    /* What is refused, and what is no search, is not. */
    assert_int_equal(kith_search(index, queries, DIM, 0, NULL, results[0]), KITH_E_K);
    assert_int_equal(kith_get(index, "7", v, DIM, NULL), 0);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.searches, BATCH + 2);
    assert_int_equal(b.failures, 0);
    for (int i = 0; i < BATCH; i++)
        kith_results_free(results[i]);
    kith_close(index);
    world_remove(&w);
}

static void a_forked_child_counts_with_its_parent_and_keeps_the_board_alive(void **state)
{
    (void)state;
    struct world w;
    struct test_boards b;
    int go[2];
    char byte = 0;
    world_make(&w, true);
    kith *index = open_in(&w, KITH_COUNTERS_AUTO);
    search(index, 1);
    assert_int_equal(pipe(go), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(go[1]);
        search(index, EACH);
        (void)!read(go[0], &byte, 1); /* until the parent says so, or is gone */
        kith_close(index);
        _exit(0);
    }
    close(go[0]);
    search(index, EACH); /* both at a time, in the same call slot */
    uint64_t end = test_now_ms() + 30000;
    do {
        test_nap();
        test_boards_read(w.boards, &b);
    } while (b.searches < 2 * EACH + 1 && test_now_ms() < end);
    assert_int_equal(b.searches, 2 * EACH + 1);
    assert_int_equal(b.files, 1);
    kith_close(index);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.files, 1);
    assert_int_equal(b.alive, 1);
    close(go[1]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.files, 1); /* what was counted stays for kithd */
    assert_int_equal(b.alive, 0);
    world_remove(&w);
}

static void the_board_of_a_killed_reader_is_left_without_a_lock(void **state)
{
    (void)state;
    struct world w;
    struct test_boards b;
    world_make(&w, true);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        search(open_in(&w, KITH_COUNTERS_AUTO), 5);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.files, 1);
    assert_int_equal(b.alive, 0);
    assert_int_equal(b.searches, 5);
    world_remove(&w);
}

static void a_board_without_counts_is_removed_by_the_one_who_made_it(void **state)
{
    (void)state;
    struct world w;
    struct test_boards b;
    world_make(&w, true);
    kith *index = open_in(&w, KITH_COUNTERS_AUTO);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        kith_close(index);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.files, 1);
    assert_int_equal(b.alive, 1);
    kith_close(index);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.files, 0);
    world_remove(&w);
}

/* Searches go well, and there is no board. */
static void expect_none(const struct world *w, uint32_t counters)
{
    struct test_boards b;
    kith *index = open_in(w, counters);
    search(index, 3);
    test_boards_read(w->boards, &b);
    assert_int_equal(b.alive, 0);
    kith_close(index);
}

static void without_a_directory_or_a_wish_there_is_no_board(void **state)
{
    (void)state;
    struct world w;
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    kith *index = NULL;
    world_make(&w, false);
    expect_none(&w, KITH_COUNTERS_AUTO);
    assert_int_equal(mkdir(w.boards, 0700), 0);
    expect_none(&w, KITH_COUNTERS_OFF);
    o.run_dir = w.run.path;
    o.counters = 2;
    assert_int_equal(kith_open("c", &o, &index), -EINVAL);
    o.counters = 0;
    o.reserved = 1;
    assert_int_equal(kith_open("c", &o, &index), -EINVAL);
    /* A program from before there were boards. */
    o.struct_size = offsetof(struct kith_open_opts, counters);
    assert_int_equal(kith_open("c", &o, &index), 0);
    kith_close(index);
    world_remove(&w);
}

static void a_link_in_the_place_of_the_directory_is_not_followed(void **state)
{
    (void)state;
    struct world w;
    char elsewhere[TEST_PATH_SIZE + 16];
    world_make(&w, false);
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", w.run.path);
    assert_int_equal(mkdir(elsewhere, 0700), 0);
    assert_int_equal(symlink(elsewhere, w.boards), 0);
    expect_none(&w, KITH_COUNTERS_AUTO);
    world_remove(&w);
}

static void who_may_not_write_the_directory_has_no_board(void **state)
{
    (void)state;
    struct world w;
    if (geteuid() != 0) {
        print_message("skipped: needs root, to become somebody else\n");
        skip();
    }
    world_make(&w, true);
    assert_int_equal(chmod(w.run.path, 0755), 0);
    assert_int_equal(chmod(w.segment, 0644), 0);
    for (int may = 0; may < 2; may++) {
        assert_int_equal(chmod(w.boards, may ? 01777 : 0755), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct test_boards b;
            if (setgid(65534) < 0 || setuid(65534) < 0)
                _exit(2);
            kith *index = open_in(&w, KITH_COUNTERS_AUTO);
            search(index, 3);
            test_boards_read(w.boards, &b);
            _exit(b.alive == (uint32_t)may ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    world_remove(&w);
}

/* The path of the board that is there. */
static void find_board(const struct world *w, char *path, size_t size)
{
    struct stat st;
    for (uint32_t slot = 0; slot < KITHI_BOARD_SLOTS; slot++) {
        char name[KITHI_BOARD_NAME];
        kithi_board_name(slot, name);
        snprintf(path, size, "%s/%s", w->boards, name);
        if (lstat(path, &st) == 0)
            return;
    }
    fail_msg("there is no board");
}

static void nobody_opens_a_board_for_writing_by_mistake(void **state)
{
    (void)state;
    struct world w;
    struct stat st;
    char path[TEST_PATH_SIZE + 32];
    world_make(&w, true);
    kith *index = open_in(&w, KITH_COUNTERS_AUTO);
    find_board(&w, path, sizeof path);
    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0444);
    assert_true((uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size); /* no holes */
    if (geteuid() != 0) {                                              /* root may all the same */
        assert_int_equal(truncate(path, 0), -1);
        assert_int_equal(errno, EACCES);
    }
    kith_close(index);
    world_remove(&w);
}

static void what_stands_in_the_way_is_left_alone(void **state)
{
    (void)state;
    struct world w;
    world_make(&w, true);
    for (uint32_t slot = 0; slot < KITHI_BOARD_SLOTS; slot++) {
        char name[KITHI_BOARD_NAME], path[TEST_PATH_SIZE + 32];
        kithi_board_name(slot, name);
        snprintf(path, sizeof path, "%s/%s", w.boards, name);
        int rc = slot % 3 == 0   ? mkdir(path, 0700)
                 : slot % 3 == 1 ? mkfifo(path, 0600)
                                 : symlink("/nowhere/at/all", path);
        assert_int_equal(rc, 0);
    }
    expect_none(&w, KITH_COUNTERS_AUTO);
    for (uint32_t slot = 0; slot < KITHI_BOARD_SLOTS; slot++) {
        struct stat st;
        char name[KITHI_BOARD_NAME], path[TEST_PATH_SIZE + 32];
        kithi_board_name(slot, name);
        snprintf(path, sizeof path, "%s/%s", w.boards, name);
        assert_int_equal(lstat(path, &st), 0);
    }
    world_remove(&w);
}

static void dead_boards_give_way_when_all_names_are_taken(void **state)
{
    (void)state;
    struct world w;
    struct test_boards b;
    int held = -1;
    world_make(&w, true);
    for (uint32_t slot = 0; slot < KITHI_BOARD_SLOTS; slot++) {
        char name[KITHI_BOARD_NAME], path[TEST_PATH_SIZE + 32];
        kithi_board_name(slot, name);
        snprintf(path, sizeof path, "%s/%s", w.boards, name);
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
        assert_true(fd >= 0);
        if (slot == 100) {
            held = fd;
            assert_int_equal(flock(fd, LOCK_EX), 0);
        } else {
            close(fd);
        }
    }
    kith *index = open_in(&w, KITH_COUNTERS_AUTO);
    search(index, 2);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.files, 1);
    assert_int_equal(b.searches, 2);
    struct stat st;
    assert_int_equal(fstat(held, &st), 0);
    assert_int_equal(st.st_nlink, 1); /* the living one is still there */
    close(held);
    kith_close(index);
    world_remove(&w);
}

static void a_full_file_system_means_no_board(void **state)
{
    (void)state;
    struct world w;
    struct statfs fs;
    char path[TEST_PATH_SIZE + 16];
    test_dir_make_shm(&w.run);
    if (!test_dir_mount(&w.run, 16 << 20)) {
        test_dir_remove(&w.run);
        skip();
    }
    assert_int_equal(chmod(w.run.path, 0755), 0);
    world_fill(&w, true);
    snprintf(path, sizeof path, "%s/ballast", w.run.path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    /* 200 KiB are left, less than the reserve of 256; then nothing at all. */
    for (uint64_t left = 200 << 10;; left = 0) {
        assert_int_equal(statfs(w.run.path, &fs), 0);
        struct stat st;
        assert_int_equal(fstat(fd, &st), 0);
        off_t more = (off_t)((uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize - left);
        assert_int_equal(fallocate(fd, 0, st.st_size, more), 0);
        expect_none(&w, KITH_COUNTERS_AUTO);
        if (!left)
            break;
    }
    close(fd);
    assert_int_equal(unlink(path), 0);
    kith *index = open_in(&w, KITH_COUNTERS_AUTO);
    struct test_boards b;
    test_boards_read(w.boards, &b);
    assert_int_equal(b.alive, 1);
    kith_close(index);
    world_remove(&w);
}

static void a_board_is_not_worth_a_huge_page(void **state)
{
    (void)state;
    struct world w;
    struct test_boards b;
    test_dir_make_shm(&w.run);
    if (!test_dir_mount(&w.run, 256 << 20)) {
        test_dir_remove(&w.run);
        skip();
    }
    assert_int_equal(chmod(w.run.path, 0755), 0);
    world_fill(&w, true);
    kith *index = open_in(&w, KITH_COUNTERS_AUTO);
    test_boards_read(w.boards, &b);
    assert_int_equal(b.files, 1);
    kith_close(index);
    if (mount(NULL, w.run.path, NULL, MS_REMOUNT, "huge=always") == 0) {
        /* Whether the kernel has a huge page left shows in a file of the same size. */
        struct stat st;
        char path[TEST_PATH_SIZE + 16];
        snprintf(path, sizeof path, "%s/probe", w.run.path);
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(fallocate(fd, 0, 0, 8192), 0);
        assert_int_equal(fstat(fd, &st), 0);
        close(fd);
        if (st.st_blocks * 512 > 1 << 20)
            expect_none(&w, KITH_COUNTERS_AUTO);
        else
            print_message("no huge pages here\n");
    }
    world_remove(&w);
}

static void a_disk_is_no_place_for_a_board(void **state)
{
    (void)state;
    struct world w;
    struct statfs fs;
    test_dir_make(&w.run);
    if (statfs(w.run.path, &fs) != 0 || fs.f_type == TMPFS_MAGIC) {
        test_dir_remove(&w.run);
        print_message("skipped: temporary files are on a tmpfs here\n");
        skip();
    }
    world_fill(&w, true);
    expect_none(&w, KITH_COUNTERS_AUTO);
    world_remove(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(searches_of_all_threads_are_counted),
        cmocka_unit_test(every_kind_of_search_is_counted),
        cmocka_unit_test(a_forked_child_counts_with_its_parent_and_keeps_the_board_alive),
        cmocka_unit_test(the_board_of_a_killed_reader_is_left_without_a_lock),
        cmocka_unit_test(a_board_without_counts_is_removed_by_the_one_who_made_it),
        cmocka_unit_test(without_a_directory_or_a_wish_there_is_no_board),
        cmocka_unit_test(a_link_in_the_place_of_the_directory_is_not_followed),
        cmocka_unit_test(who_may_not_write_the_directory_has_no_board),
        cmocka_unit_test(nobody_opens_a_board_for_writing_by_mistake),
        cmocka_unit_test(what_stands_in_the_way_is_left_alone),
        cmocka_unit_test(dead_boards_give_way_when_all_names_are_taken),
        cmocka_unit_test(a_full_file_system_means_no_board),
        cmocka_unit_test(a_board_is_not_worth_a_huge_page),
        cmocka_unit_test(a_disk_is_no_place_for_a_board),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
