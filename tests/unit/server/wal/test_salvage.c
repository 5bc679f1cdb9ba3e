/*
 * test_salvage.c - what is kept of a damaged log: all that is readable from its beginning, as it was, and nothing
 * else; the damaged one stays beside; a crash between any two steps loses neither.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "server/wal/files.h"
#include "server/wal/salvage.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "tests/support/tmp.h"
#include "tests/unit/server/wal/history.h"

#define SALT   5u
#define GROUPS 40u
#define FILE_  16384u /* three groups of one block: a log of many files */

static struct test_dir dir; /* the collection's directory */
static char wal[TEST_PATH_SIZE + 8];
static struct kithi_errmsg err;

/* Groups 1..count of the history, in files of file_size. */
static void write_log(uint64_t file_size, uint64_t count)
{
    struct kithi_io *io = NULL;
    struct kithi_wal *log = NULL;
    struct kithi_wal_report report = { 0 };
    struct history_ack a = { 0 };
    assert_int_equal(kithi_io_open(KITHI_IO_THREADS, &io, &err), 0);
    assert_int_equal(history_open(io, wal, file_size, &report, &log, &err), 0);
    for (uint64_t e = 1; e <= count; e++) {
        int r = history_append(log, e, SALT, &a);
        for (; r == -EBUSY; r = history_append(log, e, SALT, &a))
            kithi_io_run(io, 10000);
        assert_int_equal(r, 0);
        while (kithi_wal_busy(log))
            kithi_io_run(io, 10000);
    }
    assert_int_equal(a.acked, count);
    kithi_wal_close(log);
    kithi_io_free(io);
}

static int setup(void **state)
{
    (void)state;
    test_dir_make_shm(&dir);
    snprintf(wal, sizeof wal, "%s/wal", dir.path);
    return mkdir(wal, 0700);
}

static int teardown(void **state)
{
    (void)state;
    unsetenv("KITH_FAULT");
    test_dir_remove(&dir);
    return 0;
}

struct files {
    struct kithi_wal_file *at;
    int64_t n;
};

static struct files list(const char *path)
{
    struct files f = { 0 };
    f.n = kithi_wal_files_list(path, &f.at, &err);
    assert_true(f.n >= 0);
    return f;
}

static int open_file(const char *path, const char *name, int flags)
{
    char full[2 * TEST_PATH_SIZE];
    snprintf(full, sizeof full, "%s/%s", path, name);
    int fd = open(full, flags);
    assert_true(fd >= 0);
    return fd;
}

static void flip(const char *name, off_t at)
{
    uint8_t byte;
    int fd = open_file(wal, name, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x20;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* Names, sizes and contents of a log as one number. */
static uint32_t sum_of(const char *path)
{
    static uint8_t bytes[1u << 20];
    struct files f = list(path);
    uint32_t sum = 0;
    for (int64_t i = 0; i < f.n; i++) {
        int fd = open_file(path, f.at[i].name, O_RDONLY);
        ssize_t n = read(fd, bytes, sizeof bytes);
        assert_true(n >= 0 && n < (ssize_t)sizeof bytes);
        close(fd);
        sum = kithi_crc32c(sum, f.at[i].name, strlen(f.at[i].name));
        sum = kithi_crc32c(sum, bytes, (size_t)n);
    }
    free(f.at);
    return sum;
}

/* What a start makes of the log; the last epoch, the groups checked one by one. */
static int start_reads(uint64_t *out_last)
{
    struct history h = { 0 };
    struct kithi_wal_report report;
    int r = history_scan(wal, SALT, 0, 0, &h, &report, &err);
    assert_false(h.wrong);
    *out_last = h.last;
    return r == 0 && report.files == 0 ? KITHI_E_LOG_DAMAGED : r;
}

static int plan(struct kithi_wal_plan *out)
{
    return kithi_wal_plan(wal, history_uid, NULL, NULL, out, &err);
}

/* Everything as kith wal --salvage --yes does it. Returns what failed. */
static int salvage(void)
{
    struct kithi_wal_plan p;
    uint32_t n = kithi_wal_salvage_interrupted(dir.path);
    if (n > 0)
        return kithi_wal_salvage_swap(dir.path, n, &err);
    int r = plan(&p);
    if (r == 0)
        r = kithi_wal_salvage_number(dir.path, &n, &err);
    if (r == 0)
        r = kithi_wal_salvage_copy(dir.path, history_uid, &p, n, &err);
    kithi_wal_plan_fini(&p);
    return r < 0 ? r : kithi_wal_salvage_swap(dir.path, n, &err);
}

/* Put the log back that was moved away, and forget the copy. */
static void undo(void)
{
    char from[TEST_PATH_SIZE + 16];
    snprintf(from, sizeof from, "%s/wal.damaged-1", dir.path);
    struct files f = list(wal);
    for (int64_t i = 0; i < f.n; i++) {
        char path[2 * TEST_PATH_SIZE];
        snprintf(path, sizeof path, "%s/%s", wal, f.at[i].name);
        assert_int_equal(unlink(path), 0);
    }
    free(f.at);
    assert_int_equal(rmdir(wal), 0);
    assert_int_equal(rename(from, wal), 0);
}

static void a_flip_anywhere_keeps_what_is_before_it(void **state)
{
    (void)state;
    write_log(FILE_, GROUPS);
    struct files f = list(wal);
    uint64_t refused = 0;
    assert_true(f.n > 8);
    for (int64_t i = 0; i < f.n; i++) {
        struct stat st;
        int fd = open_file(wal, f.at[i].name, O_RDONLY);
        assert_int_equal(fstat(fd, &st), 0);
        close(fd);
        for (off_t at = 12; at < st.st_size; at += 512) {
            uint64_t readable, kept;
            flip(f.at[i].name, at);
            if (start_reads(&readable) == KITHI_E_LOG_DAMAGED) {
                const uint32_t before = sum_of(wal);
                refused++;
                if (i == 0 && at >= KITHI_WAL_BLOCK && at < 2 * KITHI_WAL_BLOCK) {
                    struct kithi_wal_plan p; /* the first group: nothing is left to begin with */
                    assert_int_equal(plan(&p), 0);
                    assert_false(kithi_wal_plan_useful(&p));
                    assert_int_equal(p.lost_epoch, GROUPS);
                    kithi_wal_plan_fini(&p);
                } else {
                    assert_int_equal(salvage(), 0);
                    assert_int_equal(start_reads(&kept), 0);
                    /* A header is made anew, and all groups behind it are there again. */
                    assert_true(at < KITHI_WAL_BLOCK ? kept == GROUPS : kept == readable);
                    char damaged[TEST_PATH_SIZE + 16];
                    snprintf(damaged, sizeof damaged, "%s/wal.damaged-1", dir.path);
                    assert_int_equal(sum_of(damaged), before);
                    undo();
                }
            }
            flip(f.at[i].name, at);
        }
    }
    assert_true(refused > 100);
    free(f.at);
}

static void a_header_that_was_made_anew_is_the_one_that_was_there(void **state)
{
    (void)state;
    uint8_t before[KITHI_WAL_BLOCK], after[KITHI_WAL_BLOCK], zeros[KITHI_WAL_BLOCK] = { 0 };
    write_log(1u << 18, 10);
    struct files f = list(wal);
    int fd = open_file(wal, f.at[0].name, O_RDWR);
    assert_int_equal(pread(fd, before, sizeof before, 0), sizeof before);
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, 0), sizeof zeros);
    close(fd);
    assert_int_equal(salvage(), 0);
    fd = open_file(wal, f.at[0].name, O_RDONLY);
    assert_int_equal(pread(fd, after, sizeof after, 0), sizeof after);
    close(fd);
    assert_memory_equal(before, after, sizeof before);
    free(f.at);
}

static void what_is_missing_or_cut_off_ends_what_is_kept(void **state)
{
    (void)state;
    char path[2 * TEST_PATH_SIZE], aside[TEST_PATH_SIZE + 8];
    uint64_t last;
    struct kithi_wal_plan p;
    write_log(FILE_, GROUPS);
    struct files f = list(wal);
    snprintf(aside, sizeof aside, "%s/aside", dir.path);
    snprintf(path, sizeof path, "%s/%s", wal, f.at[3].name);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(plan(&p), 0);
    assert_int_equal(p.last_epoch, f.at[3].first_epoch - 1);
    assert_int_equal(p.lost_epoch, GROUPS);
    assert_int_equal(p.file_count, 3);
    kithi_wal_plan_fini(&p);
    assert_int_equal(rename(aside, path), 0);

    assert_int_equal(truncate(path, KITHI_WAL_BLOCK), 0);
    assert_int_equal(start_reads(&last), KITHI_E_LOG_DAMAGED);
    assert_int_equal(salvage(), 0);
    assert_int_equal(start_reads(&last), 0);
    assert_int_equal(last, f.at[3].first_epoch - 1);
    free(f.at);
}

static int refuse_seven(void *arg, const struct kithi_wal_group *g)
{
    (void)arg;
    return g->epoch == 7;
}

static void a_group_that_the_caller_cannot_read_ends_what_is_kept(void **state)
{
    (void)state;
    struct kithi_wal_plan p;
    write_log(FILE_, 20);
    assert_int_equal(kithi_wal_plan(wal, history_uid, refuse_seven, NULL, &p, &err), 0);
    assert_int_equal(p.last_epoch, 6);
    assert_int_equal(p.groups, 6);
    assert_non_null(strstr(p.end_reason, "group 7 checks"));
    kithi_wal_plan_fini(&p);
}

/* Of a file that is whole. */
static uint64_t number_of(const char *name)
{
    uint8_t word[8];
    int fd = open_file(wal, name, O_RDONLY);
    assert_int_equal(pread(fd, word, sizeof word, 24), sizeof word);
    close(fd);
    return kithi_get64(word);
}

/* Change a field of the header of the first group and seal it. */
static void reseal(const char *name, size_t field, uint64_t value)
{
    uint8_t h[KITHI_WAL_GROUP_HEADER];
    int fd = open_file(wal, name, O_RDWR);
    assert_int_equal(pread(fd, h, sizeof h, KITHI_WAL_BLOCK), sizeof h);
    kithi_put64(h + field, value);
    kithi_put32(h + 124, kithi_crc32c(0, h, 124));
    assert_int_equal(pwrite(fd, h, sizeof h, KITHI_WAL_BLOCK), sizeof h);
    close(fd);
}

static void what_is_made_up_with_right_checksums_is_not_kept(void **state)
{
    (void)state;
    write_log(FILE_, GROUPS);
    struct files f = list(wal);
    const char *name = f.at[2].name;
    const uint64_t first = f.at[2].first_epoch, number = number_of(name);
    const struct {
        size_t field;
        uint64_t wrong, right;
    } cases[] = {
        { 24, number + 1, number },    /* number: another file's */
        { 32, first + 1, first },      /* epoch */
        { 32, 0, first },              /* epoch */
        { 40, UINT64_MAX, first - 1 }, /* durable: claims what never was */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kithi_wal_plan p;
        uint64_t last;
        reseal(name, cases[i].field, cases[i].wrong);
        assert_int_equal(plan(&p), 0);
        assert_int_equal(p.last_epoch, first - 1);
        kithi_wal_plan_fini(&p);
        assert_int_equal(salvage(), 0);
        assert_int_equal(start_reads(&last), 0);
        assert_int_equal(last, first - 1);
        undo();
        reseal(name, cases[i].field, cases[i].right);
    }
    struct kithi_wal_plan p;
    uint64_t last;
    assert_int_equal(start_reads(&last), 0);
    assert_int_equal(last, GROUPS);
    /* Of somebody else's log nothing is kept, and a later version's is left to that. */
    const uint8_t other[16] = { 9 };
    assert_int_equal(kithi_wal_plan(wal, other, NULL, NULL, &p, &err), 0);
    assert_false(kithi_wal_plan_useful(&p));
    assert_int_equal(p.groups, 0);
    kithi_wal_plan_fini(&p);
    free(f.at);
}

static void a_file_of_another_history_ends_what_is_kept(void **state)
{
    (void)state;
    uint8_t h[KITHI_WAL_BLOCK];
    char says[100];
    struct kithi_wal_plan p;
    write_log(FILE_, GROUPS);
    struct files f = list(wal);
    const uint64_t second = number_of(f.at[1].name);
    snprintf(says, sizeof says, "file number %" PRIu64 " follows %" PRIu64, second, number_of(f.at[4].name));
    int fd = open_file(wal, f.at[5].name, O_RDWR);
    assert_int_equal(pread(fd, h, sizeof h, 0), sizeof h);
    kithi_put64(h + 24, second);
    kithi_put32(h + 4092, kithi_crc32c(0, h, 4092));
    assert_int_equal(pwrite(fd, h, sizeof h, 0), sizeof h);
    close(fd);
    assert_int_equal(plan(&p), 0);
    assert_int_equal(p.last_epoch, f.at[5].first_epoch - 1);
    assert_non_null(strstr(p.end_reason, says));
    kithi_wal_plan_fini(&p);
    free(f.at);
}

static void a_later_version_is_left_alone(void **state)
{
    (void)state;
    uint8_t h[KITHI_WAL_BLOCK];
    struct kithi_wal_plan p;
    write_log(FILE_, 9);
    struct files f = list(wal);
    int fd = open_file(wal, f.at[0].name, O_RDWR);
    assert_int_equal(pread(fd, h, sizeof h, 0), sizeof h);
    h[4]++;
    kithi_put32(h + 4092, kithi_crc32c(0, h, 4092));
    assert_int_equal(pwrite(fd, h, sizeof h, 0), sizeof h);
    close(fd);
    assert_int_equal(plan(&p), KITHI_E_VERSION);
    kithi_wal_plan_fini(&p);
    free(f.at);
}

/* Old groups behind the end of a file that was used again have another number: they are neither kept nor missed. */
static void what_stands_behind_the_end_is_not_copied(void **state)
{
    (void)state;
    uint8_t block[KITHI_WAL_BLOCK];
    struct kithi_wal_plan p;
    uint64_t last;
    write_log(1u << 18, 4);
    struct files f = list(wal);
    assert_int_equal(plan(&p), 0);
    assert_int_equal(p.last_epoch, 4);
    assert_int_equal(p.lost_epoch, 0);
    const off_t end = (off_t)p.end_off;
    kithi_wal_plan_fini(&p);
    struct kithi_wal_group_header h;
    int fd = open_file(wal, f.at[0].name, O_RDWR);
    assert_int_equal(pread(fd, block, sizeof block, KITHI_WAL_BLOCK), sizeof block);
    assert_int_equal(kithi_wal_group_header_decode(block, history_uid, number_of(f.at[0].name), &h),
                     KITHI_WAL_OK);
    h.number -= 1;
    h.epoch = 3;
    kithi_wal_group_header_encode(block, &h);
    assert_int_equal(pwrite(fd, block, sizeof block, end + KITHI_WAL_BLOCK), sizeof block);
    assert_int_equal(truncate(test_path(&dir, "wal/00000000000000000001.wal"), (1 << 18) - 4096), 0);
    close(fd);
    assert_int_equal(start_reads(&last), KITHI_E_LOG_DAMAGED); /* it is shorter than it was made */
    assert_int_equal(salvage(), 0);
    assert_int_equal(start_reads(&last), 0);
    assert_int_equal(last, 4);
    fd = open_file(wal, f.at[0].name, O_RDONLY);
    uint8_t zeros[KITHI_WAL_BLOCK] = { 0 };
    assert_int_equal(pread(fd, block, sizeof block, end + KITHI_WAL_BLOCK), sizeof block);
    assert_memory_equal(block, zeros, sizeof block);
    close(fd);
    free(f.at);
}

/* A log whose beginning a checkpoint covers. */
static void a_log_that_begins_later_is_kept_from_there(void **state)
{
    (void)state;
    char path[2 * TEST_PATH_SIZE];
    struct kithi_wal_plan p;
    write_log(FILE_, GROUPS);
    struct files f = list(wal);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", wal, f.at[i].name);
        assert_int_equal(unlink(path), 0);
    }
    flip(f.at[6].name, KITHI_WAL_BLOCK + 200);
    assert_int_equal(plan(&p), 0);
    assert_int_equal(p.first_epoch, f.at[4].first_epoch);
    assert_int_equal(p.last_epoch, f.at[6].first_epoch - 1);
    kithi_wal_plan_fini(&p);
    flip(f.at[4].name, KITHI_WAL_BLOCK + 200);
    assert_int_equal(plan(&p),
                     0); /* its first group: the checkpoint is what is left, and the log goes on behind it */
    assert_int_equal(p.groups, 0);
    assert_true(kithi_wal_plan_useful(&p));
    kithi_wal_plan_fini(&p);
    assert_int_equal(salvage(), 0);
    struct kithi_wal_report report;
    struct history h = { 0 };
    assert_int_equal(history_scan(wal, SALT, f.at[4].first_epoch - 1, 0, &h, &report, &err), 0);
    assert_int_equal(report.last_epoch, f.at[4].first_epoch - 1);
    free(f.at);
}

/* With a checkpoint of any epoch, and any group damaged: the groups after the checkpoint up to the damage, or all. */
static void a_log_goes_on_from_a_checkpoint_wherever_its_group_stands(void **state)
{
    (void)state;
    unsigned copies = 0, cases = 0;
    write_log(FILE_, GROUPS);
    struct files f = list(wal);
    for (int64_t i = 0; i < f.n; i++)
        for (off_t at = KITHI_WAL_BLOCK + 40; at < (off_t)FILE_; at += KITHI_WAL_BLOCK) {
            struct kithi_wal_plan p;
            flip(f.at[i].name, at);
            assert_int_equal(plan(&p), 0);
            const uint64_t hurt = p.last_epoch + 1;
            kithi_wal_plan_fini(&p);
            for (uint64_t epoch = 0; epoch <= GROUPS; epoch++, cases++) {
                const uint64_t last = epoch < hurt ? hurt - 1 : GROUPS;
                uint32_t n;
                assert_int_equal(kithi_wal_plan_after(wal, history_uid, epoch, NULL, NULL, &p, &err), 0);
                assert_int_equal(p.first_epoch, epoch + 1);
                assert_int_equal(p.last_epoch, last);
                assert_int_equal(p.groups, last - epoch);
                /* Of the last group of all nothing tells but itself. */
                assert_true(p.lost_epoch <= GROUPS &&
                            (last == GROUPS || hurt == GROUPS || p.lost_epoch == GROUPS));
                if (cases % 29 == 0) {
                    struct history h = { 0 };
                    struct kithi_wal_report report;
                    assert_int_equal(kithi_wal_salvage_number(dir.path, &n, &err), 0);
                    assert_int_equal(kithi_wal_salvage_copy(dir.path, history_uid, &p, n, &err), 0);
                    assert_int_equal(kithi_wal_salvage_swap(dir.path, n, &err), 0);
                    assert_int_equal(history_scan(wal, SALT, epoch, 0, &h, &report, &err), 0);
                    assert_false(h.wrong);
                    assert_int_equal(report.last_epoch, last);
                    assert_int_equal(report.groups, last - epoch);
                    undo();
                    copies++;
                }
                kithi_wal_plan_fini(&p);
            }
            flip(f.at[i].name, at);
        }
    assert_true(copies > 20);
    free(f.at);
}

static void a_crash_between_any_two_steps_leaves_a_log_that_is_refused_or_read(void **state)
{
    (void)state;
    static const char *const POINTS[] = { "crash-in-salvage-copied:1", "crash-in-salvage-copied:3",
                                          "crash-in-salvage-complete", "crash-in-salvage-moved",
                                          "crash-in-salvage-swapped" };
    for (size_t i = 0; i < sizeof POINTS / sizeof *POINTS; i++) {
        uint64_t last;
        teardown(NULL);
        assert_int_equal(setup(NULL), 0);
        write_log(FILE_, GROUPS);
        struct files f = list(wal);
        const uint64_t keeps = f.at[7].first_epoch - 1;
        flip(f.at[7].name, KITHI_WAL_BLOCK + 200);
        const uint32_t before = sum_of(wal);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            setenv("KITH_FAULT", POINTS[i], 1);
            salvage();
            _exit(3);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        int r = start_reads(&last);
        assert_true(r == KITHI_E_LOG_DAMAGED || (r == 0 && last == keeps));
        if (r != 0)
            assert_int_equal(salvage(), 0);
        assert_int_equal(start_reads(&last), 0);
        assert_int_equal(last, keeps);
        char damaged[TEST_PATH_SIZE + 16];
        uint32_t n;
        assert_int_equal(kithi_wal_salvage_number(dir.path, &n, &err), 0);
        snprintf(damaged, sizeof damaged, "%s/wal.damaged-%u", dir.path, n - 1);
        assert_int_equal(sum_of(damaged), before);
        free(f.at);
    }
}

static void a_copy_that_cannot_be_written_leaves_nothing_behind(void **state)
{
    (void)state;
    uint64_t last;
    write_log(FILE_, GROUPS);
    struct files f = list(wal);
    flip(f.at[7].name, KITHI_WAL_BLOCK + 200);
    const uint32_t before = sum_of(wal);
    setenv("KITH_FAULT", "salvage-write-enospc:3", 1);
    assert_int_equal(salvage(), -ENOSPC);
    unsetenv("KITH_FAULT");
    uint32_t n;
    assert_int_equal(kithi_wal_salvage_number(dir.path, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(sum_of(wal), before);
    assert_int_equal(start_reads(&last), KITHI_E_LOG_DAMAGED);
    free(f.at);
}

static void a_lock_on_the_last_file_says_that_the_log_is_in_use(void **state)
{
    (void)state;
    assert_false(kithi_wal_in_use(wal));
    write_log(FILE_, 9);
    assert_false(kithi_wal_in_use(wal));
    struct files f = list(wal);
    int fd = open_file(wal, f.at[f.n - 1].name, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_true(kithi_wal_in_use(wal));
    close(fd);
    assert_false(kithi_wal_in_use(wal));
    free(f.at);
}

#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLAIM(a_flip_anywhere_keeps_what_is_before_it),
        CLAIM(a_header_that_was_made_anew_is_the_one_that_was_there),
        CLAIM(what_is_missing_or_cut_off_ends_what_is_kept),
        CLAIM(a_group_that_the_caller_cannot_read_ends_what_is_kept),
        CLAIM(what_is_made_up_with_right_checksums_is_not_kept),
        CLAIM(a_file_of_another_history_ends_what_is_kept),
        CLAIM(a_later_version_is_left_alone),
        CLAIM(what_stands_behind_the_end_is_not_copied),
        CLAIM(a_log_that_begins_later_is_kept_from_there),
        CLAIM(a_log_goes_on_from_a_checkpoint_wherever_its_group_stands),
        CLAIM(a_crash_between_any_two_steps_leaves_a_log_that_is_refused_or_read),
        CLAIM(a_copy_that_cannot_be_written_leaves_nothing_behind),
        CLAIM(a_lock_on_the_last_file_says_that_the_log_is_in_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
