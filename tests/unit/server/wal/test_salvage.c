/*
 * test_salvage.c - what is kept of a damaged log: all that is readable from its beginning, as it was, and nothing
 * else; the damaged one stays beside; a crash between any two steps loses neither.
 */
#include <dirent.h>
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
    const struct kithi_wal_report empty = { 0 };
    assert_int_equal(history_live(wal, SALT, file_size, &empty, count, &err), 0);
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

/* Put the log back that was moved away, and forget the copy, and what a log that was opened there has left. */
static void undo(void)
{
    char from[TEST_PATH_SIZE + 16];
    snprintf(from, sizeof from, "%s/wal.damaged-1", dir.path);
    DIR *all = opendir(wal);
    assert_non_null(all);
    for (const struct dirent *e; (e = readdir(all)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        assert_int_equal(unlinkat(dirfd(all), e->d_name, 0), 0);
    }
    closedir(all);
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

/* ---- several groups in one write ---- */

/* Where the groups of the log are, by rising epoch; filled by a scan. */
static struct place {
    uint64_t epoch, off, size, durable; /* durable: the same in all groups of a write */
    char file[KITHI_WAL_NAME_SIZE];
} places[300];
static unsigned place_count;

static int note_place(void *arg, const struct kithi_wal_group *g)
{
    (void)arg;
    assert_true(place_count < sizeof places / sizeof *places);
    struct place *p = &places[place_count++];
    *p = (struct place){ .epoch = g->epoch, .off = g->off, .size = g->size, .durable = g->durable_epoch };
    snprintf(p->file, sizeof p->file, "%s", g->file);
    return 0;
}

static void find_places(uint64_t after)
{
    struct kithi_wal_report report;
    struct kithi_wal_scan_opts o = { .dir = wal, .after_epoch = after, .fn = note_place };
    memcpy(o.uid, history_uid, sizeof o.uid);
    place_count = 0;
    assert_int_equal(kithi_wal_scan(&o, &report, &err), 0);
}

/* Groups after epoch `from` up to `to`: one by a write of its own, and those that gather meanwhile by the next; and so on. */
static void append_gathered(struct kithi_io *io, struct kithi_wal *log, uint64_t from, uint64_t to,
                            unsigned together)
{
    struct history_ack a = { 0 };
    for (uint64_t e = from + 1; e <= to;) {
        int r = 0;
        for (unsigned i = 0; i < together && e <= to && r == 0; i++) {
            r = history_append(log, e, SALT, &a);
            assert_true(r == 0 || r == -EBUSY);
            e += r == 0;
        }
        while (kithi_wal_busy(log) || r == -EBUSY) {
            kithi_io_run(io, kithi_wal_busy(log) ? 10000 : 10);
            if (!kithi_wal_busy(log))
                break;
        }
    }
    assert_int_equal(a.acked, to - from);
}

#define TOGETHER 6u

static void write_gathered(uint64_t file_size, uint64_t count)
{
    struct kithi_io *io = NULL;
    struct kithi_wal *log = NULL;
    struct kithi_wal_report report = { 0 };
    assert_int_equal(kithi_io_open(KITHI_IO_THREADS, &io, &err), 0);
    assert_int_equal(history_open(io, wal, file_size, &report, &log, &err), 0);
    append_gathered(io, log, 0, count, TOGETHER);
    kithi_wal_close(log);
    kithi_io_free(io);
    unsigned shared = 0;
    find_places(0);
    assert_int_equal(place_count, count);
    for (unsigned i = 1; i < place_count; i++)
        shared += places[i].durable == places[i - 1].durable;
    assert_true(shared > count / 2);
}

/* A start opens the log and writes on: `more` groups, which the next one reads with those before. */
static void goes_on(uint64_t after, uint64_t last, uint64_t more)
{
    struct kithi_io *io = NULL;
    struct kithi_wal *log = NULL;
    struct kithi_wal_report report;
    struct history h = { 0 };
    assert_int_equal(history_scan(wal, SALT, after, last, &h, &report, &err), 0);
    assert_int_equal(report.last_epoch, last);
    assert_false(h.wrong);
    assert_int_equal(kithi_io_open(KITHI_IO_THREADS, &io, &err), 0);
    assert_int_equal(history_open(io, wal, 1u << 17, &report, &log, &err), 0);
    append_gathered(io, log, last, last + more, TOGETHER);
    kithi_wal_close(log);
    kithi_io_free(io);
    assert_int_equal(history_scan(wal, SALT, after, last + more, &h, &report, &err), 0);
    assert_int_equal(report.last_epoch, last + more);
    assert_false(h.wrong);
}

static void damage_within_a_write_of_several_groups_keeps_what_is_before_it(void **state)
{
    (void)state;
    unsigned refused = 0, within = 0;
    write_gathered(1u << 17, GROUPS);
    const struct place *last = &places[place_count - 1];
    for (unsigned i = 0; i < place_count; i++)
        for (unsigned part = 0; part < 3; part++) {
            const struct place *p = &places[i];
            const off_t at = (off_t)(p->off + (part == 0 ? 40 : part == 1 ? 200 : p->size - 1));
            uint64_t readable = 0, kept;
            flip(p->file, at);
            int r = start_reads(&readable);
            if (p->epoch > last->durable) { /* not proven: torn, for all that anybody can tell */
                assert_int_equal(r, 0);
                assert_int_equal(readable, p->epoch - 1);
            } else {
                assert_int_equal(r, KITHI_E_LOG_DAMAGED);
                refused++;
            }
            if (p->epoch > 1) { /* behind it nothing is left to begin with */
                struct kithi_wal_plan found;
                assert_int_equal(plan(&found), 0);
                assert_int_equal(found.last_epoch, p->epoch - 1);
                assert_true(p == last ? found.lost_epoch <= GROUPS : found.lost_epoch == GROUPS);
                kithi_wal_plan_fini(&found);
                assert_int_equal(salvage(), 0);
                assert_int_equal(start_reads(&kept), 0);
                assert_int_equal(kept, p->epoch - 1);
                within += places[i - 1].durable == p->durable;
                if (part == 1)
                    goes_on(0, kept, 9);
                undo();
            }
            flip(p->file, at);
        }
    assert_true(refused > 80);
    assert_true(within > 60);
}

/* Damage to a group that a start has written anew is none: the file before has it. Not even where the log is refused for something else, or
 * goes on from a checkpoint that needs it. */
static void a_group_that_is_damaged_where_it_was_written_anew_is_kept(void **state)
{
    (void)state;
    struct kithi_wal_plan p;
    uint64_t kept;
    write_gathered(1u << 17, GROUPS);
    const uint64_t anew = places[place_count - 1].durable + 1, all = GROUPS + 20;
    goes_on(0, GROUPS, 20);
    find_places(0);
    const struct place hurt = places[all - 5], copied = places[anew - 1];
    char file[KITHI_WAL_NAME_SIZE];
    kithi_wal_file_name(file, anew);
    assert_string_equal(hurt.file, file);
    assert_string_not_equal(copied.file, file);
    for (off_t at = KITHI_WAL_BLOCK + 40; at <= KITHI_WAL_BLOCK + 200;
         at += 160) { /* its header; its content */
        flip(file, at);
        assert_int_equal(start_reads(&kept), 0);
        assert_int_equal(kept, all);
        for (uint64_t epoch = anew - 2; epoch <= anew + 1; epoch++) {
            assert_int_equal(kithi_wal_plan_after(wal, history_uid, epoch, NULL, NULL, &p, &err), 0);
            assert_int_equal(p.last_epoch, all);
            assert_int_equal(p.groups, all - epoch);
            kithi_wal_plan_fini(&p);
        }
        flip(hurt.file, (off_t)hurt.off + 200);
        assert_int_equal(start_reads(&kept), KITHI_E_LOG_DAMAGED);
        assert_int_equal(salvage(), 0);
        assert_int_equal(start_reads(&kept), 0);
        assert_int_equal(kept, hurt.epoch - 1);
        goes_on(0, kept, 9);
        undo();
        flip(hurt.file, (off_t)hurt.off + 200);
        /* And if it is the last one that is readable. */
        for (off_t other = 2 * (off_t)KITHI_WAL_BLOCK; other < (off_t)hurt.off; other += KITHI_WAL_BLOCK)
            flip(file, other + 60);
        assert_int_equal(salvage(), 0);
        assert_int_equal(start_reads(&kept), 0);
        assert_int_equal(kept, anew);
        undo();
        for (off_t other = 2 * (off_t)KITHI_WAL_BLOCK; other < (off_t)hurt.off; other += KITHI_WAL_BLOCK)
            flip(file, other + 60);
        flip(file, at);
    }
}

/* Any groups of the last write may be there and any missing: a salvage keeps what a start reads, also where that is refused because
 * somebody knows that they were durable. */
static void a_last_write_that_is_there_in_part_is_kept_up_to_its_first_gap(void **state)
{
    (void)state;
    static const uint8_t zeros[32768];
    write_gathered(1u << 17, GROUPS);
    unsigned first = place_count - 1, n;
    while (places[first - 1].epoch > places[place_count - 1].durable)
        first--;
    n = place_count - first;
    assert_in_range(n, 3, 2 * TOGETHER);
    const char *file = places[first].file;
    uint8_t *good = malloc(1u << 17);
    int fd = open_file(wal, file, O_RDWR);
    assert_int_equal(pread(fd, good, 1u << 17, 0), 1u << 17);
    for (unsigned mask = 1; mask < 1u << n; mask++) {
        uint64_t whole = GROUPS, last;
        for (unsigned i = n; i-- > 0;) {
            const struct place *p = &places[first + i];
            if (!(mask >> i & 1))
                continue;
            assert_true(p->size <= sizeof zeros);
            assert_int_equal(pwrite(fd, zeros, p->size, (off_t)p->off), p->size);
            whole = p->epoch - 1;
        }
        assert_int_equal(start_reads(&last), 0);
        assert_int_equal(last, whole);
        struct history h = { 0 };
        struct kithi_wal_report report;
        assert_int_equal(history_scan(wal, SALT, 0, GROUPS, &h, &report, &err), KITHI_E_LOG_DAMAGED);
        assert_int_equal(salvage(), 0);
        assert_int_equal(start_reads(&last), 0);
        assert_int_equal(last, whole);
        goes_on(0, whole, 3);
        undo();
        for (unsigned i = 0; i < n; i++) {
            const struct place *p = &places[first + i];
            assert_int_equal(pwrite(fd, good + p->off, p->size, (off_t)p->off), p->size);
        }
    }
    close(fd);
    free(good);
}

/* With a checkpoint of any epoch, be it one in the middle of a write, and any group damaged. */
static void a_log_of_gathered_groups_goes_on_from_a_checkpoint(void **state)
{
    (void)state;
    unsigned copies = 0, cases = 0;
    write_gathered(1u << 17, GROUPS);
    for (unsigned i = 0; i < place_count; i++) {
        const struct place *hurt = &places[i];
        flip(hurt->file, (off_t)hurt->off + 200);
        for (uint64_t epoch = 0; epoch <= GROUPS; epoch++, cases++) {
            const uint64_t last = epoch < hurt->epoch ? hurt->epoch - 1 : GROUPS;
            struct kithi_wal_plan p;
            uint32_t n;
            assert_int_equal(kithi_wal_plan_after(wal, history_uid, epoch, NULL, NULL, &p, &err), 0);
            assert_int_equal(p.first_epoch, epoch + 1);
            assert_int_equal(p.last_epoch, last);
            assert_int_equal(p.groups, last - epoch);
            if (cases % 37 == 0) {
                assert_int_equal(kithi_wal_salvage_number(dir.path, &n, &err), 0);
                assert_int_equal(kithi_wal_salvage_copy(dir.path, history_uid, &p, n, &err), 0);
                assert_int_equal(kithi_wal_salvage_swap(dir.path, n, &err), 0);
                goes_on(epoch, last, 4);
                undo();
                copies++;
            }
            kithi_wal_plan_fini(&p);
        }
        flip(hurt->file, (off_t)hurt->off + 200);
    }
    assert_true(copies > 20);
}

/* ---- files that were used before ---- */

#define CHECKPOINT 200u
#define OLD_FILE   (1u << 18)

/* A log from CHECKPOINT on whose last file is recycled and has a few groups, with many old ones behind them. Returns its last epoch. */
static uint64_t write_recycled(void)
{
    struct kithi_io *io = NULL;
    struct kithi_wal *log = NULL;
    struct kithi_wal_report report = { 0 };
    struct kithi_wal_stats stats;
    struct history h = { 0 };
    struct kithi_wal_look look;
    uint64_t last = CHECKPOINT + 40, size;
    assert_int_equal(kithi_io_open(KITHI_IO_THREADS, &io, &err), 0);
    assert_int_equal(history_open(io, wal, OLD_FILE, &report, &log, &err), 0);
    append_gathered(io, log, 0, last, TOGETHER);
    kithi_wal_trim(io, wal, CHECKPOINT, true);
    kithi_wal_close(log);
    assert_int_equal(history_scan(wal, SALT, CHECKPOINT, last, &h, &report, &err), 0);
    assert_int_equal(history_open(io, wal, OLD_FILE, &report, &log, &err), 0);
    do { /* until there is room for four more in the first half of it */
        append_gathered(io, log, last, last + 1, 1);
        last++;
        assert_true(last < 2 * CHECKPOINT);
        kithi_wal_stats(log, &stats);
        assert_int_equal(kithi_wal_look(wal, stats.file, history_uid, &look, &err), 0);
        size = stats.file_off;
        for (uint64_t e = last + 1; e <= last + 4; e++)
            size += kithi_wal_group_size(history_len(e, SALT));
    } while (!look.header.recycled || size > OLD_FILE / 2);
    append_gathered(io, log, last, last + 4, TOGETHER);
    last += 4;
    kithi_wal_stats(log, &stats);
    assert_int_equal(stats.file_off, size);
    kithi_wal_close(log);
    kithi_io_free(io);
    find_places(CHECKPOINT);
    assert_string_equal(places[place_count - 1].file, stats.file);
    return last;
}

/* Old groups in the last file, behind its own. */
static unsigned old_groups(const char *file, uint64_t off)
{
    unsigned n = 0;
    uint8_t *bytes = malloc(OLD_FILE);
    int fd = open_file(wal, file, O_RDONLY);
    assert_int_equal(pread(fd, bytes, OLD_FILE, 0), OLD_FILE);
    close(fd);
    for (; off < OLD_FILE; off += KITHI_WAL_BLOCK) {
        struct kithi_wal_group_header g;
        n += kithi_wal_group_decode(bytes + off, OLD_FILE - off, history_uid, kithi_get64(bytes + off + 24),
                                    &g) == KITHI_WAL_OK;
    }
    free(bytes);
    return n;
}

/* What a start reads of the log after the checkpoint, and nothing else is in the files' groups. */
static void expect_copy(uint64_t last)
{
    struct kithi_wal_report report;
    struct history h = { 0 };
    assert_int_equal(history_scan(wal, SALT, CHECKPOINT, last, &h, &report, &err), 0);
    assert_false(h.wrong);
    assert_int_equal(report.last_epoch, last);
    assert_string_equal(report.torn_file, "");
    struct files f = list(wal);
    struct kithi_wal_look look;
    assert_int_equal(kithi_wal_look(wal, f.at[f.n - 1].name, history_uid, &look, &err), 0);
    assert_int_equal(look.verdict, KITHI_WAL_OK);
    assert_false(look.header.recycled);
    assert_int_equal(old_groups(f.at[f.n - 1].name, report.tail_off + report.tail_size), 0);
    free(f.at);
}

static void of_a_recycled_file_nothing_old_is_kept_or_missed(void **state)
{
    (void)state;
    const uint64_t written = write_recycled();
    const struct place *last = &places[place_count - 1];
    assert_true(old_groups(last->file, last->off + last->size) >= 3);
    for (unsigned i = 1; i < place_count; i++)
        for (unsigned part = 0; part < 2; part++) {
            const struct place *p = &places[i];
            const off_t at = (off_t)p->off + (part ? 200 : 40);
            struct kithi_wal_plan found;
            char own[KITHI_WAL_NAME_SIZE], path[2 * TEST_PATH_SIZE];
            kithi_wal_file_name(own, p->epoch);
            snprintf(path, sizeof path, "%s/%s", wal, own);
            if (strcmp(own, p->file) != 0 && access(path, F_OK) == 0)
                continue; /* a start has written it anew: this one is not needed */
            flip(p->file, at);
            assert_int_equal(plan(&found), 0);
            assert_int_equal(found.last_epoch, p->epoch - 1);
            assert_true(found.lost_epoch <= written);
            kithi_wal_plan_fini(&found);
            assert_int_equal(salvage(), 0);
            expect_copy(p->epoch - 1);
            if (part)
                goes_on(CHECKPOINT, p->epoch - 1, 9);
            undo();
            flip(p->file, at);
        }
    /* Its header, and with that the news that it is recycled. */
    uint8_t head[KITHI_WAL_BLOCK], zeros[KITHI_WAL_BLOCK] = { 0 };
    int fd = open_file(wal, last->file, O_RDWR);
    assert_int_equal(pread(fd, head, sizeof head, 0), sizeof head);
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, 0), sizeof zeros);
    assert_int_equal(salvage(), 0);
    expect_copy(written);
    goes_on(CHECKPOINT, written, 9);
    undo();
    assert_int_equal(pwrite(fd, head, sizeof head, 0), sizeof head);
    close(fd);
}

/* The write that was last, in part, over what the file held before. */
static void a_write_into_recycled_space_that_is_there_in_part_is_kept_up_to_its_first_gap(void **state)
{
    (void)state;
    const uint64_t written = write_recycled();
    const struct place last = places[place_count - 1];
    unsigned first = place_count - 1;
    while (places[first - 1].durable == places[first].durable)
        first--;
    assert_true(place_count - first >= 2);
    const uint64_t begin = places[first].off, end = last.off + last.size;
    uint8_t *good = malloc(OLD_FILE), *old = malloc(OLD_FILE);
    int fd = open_file(wal, last.file, O_RDWR);
    assert_int_equal(pread(fd, good, OLD_FILE, 0), OLD_FILE);
    /* Before it: a block of zeros, and old groups. */
    memcpy(old, good, OLD_FILE);
    memset(old + begin, 0, KITHI_WAL_BLOCK);
    for (uint64_t at = begin + KITHI_WAL_BLOCK; at < end; at += KITHI_WAL_BLOCK)
        memcpy(old + at, good + end + KITHI_WAL_BLOCK + (at - begin) % (OLD_FILE - end - KITHI_WAL_BLOCK),
               KITHI_WAL_BLOCK);
    for (uint64_t cut = begin; cut < end; cut += KITHI_WAL_BLOCK)
        for (int behind = 0; behind < 2; behind++) {
            uint64_t whole = written;
            const uint64_t from = behind ? begin : cut, to = behind ? cut + KITHI_WAL_BLOCK : end;
            assert_int_equal(pwrite(fd, old + from, to - from, (off_t)from), to - from);
            for (unsigned i = place_count; i-- > first;)
                if (places[i].off < to && places[i].off + places[i].size > from)
                    whole = places[i].epoch - 1;
            struct kithi_wal_plan found;
            assert_int_equal(plan(&found), 0);
            assert_int_equal(found.last_epoch, whole);
            assert_true(found.lost_epoch <= written);
            kithi_wal_plan_fini(&found);
            assert_int_equal(salvage(), 0);
            expect_copy(whole);
            undo();
            assert_int_equal(pwrite(fd, good + from, to - from, (off_t)from), to - from);
        }
    close(fd);
    free(good);
    free(old);
}

/* Bytes of groups are chosen by clients. A damaged one is looked through for the next group, and old ones lie in recycled space. */
static void what_clients_wrote_into_groups_is_no_group_and_speaks_of_none(void **state)
{
    (void)state;
    uint8_t newer[KITHI_WAL_GROUP_HEADER], later[KITHI_WAL_GROUP_HEADER];
    struct kithi_wal_group_header g = { .number = 3, .epoch = 1u << 20, .len = 64, .n_ops = 1 };
    struct kithi_wal_plan p;
    memcpy(g.uid, history_uid, sizeof g.uid);
    kithi_wal_group_header_encode(later, &g);
    memcpy(newer, later, sizeof newer);
    newer[4]++;
    kithi_put32(newer + 124, kithi_crc32c(0, newer, 124));

    /* In a damaged group that has more than a block. */
    write_gathered(1u << 17, GROUPS);
    unsigned i = 5;
    while (places[i].size < 4 * KITHI_WAL_BLOCK)
        i++;
    assert_true(i + 5 < place_count);
    int fd = open_file(wal, places[i].file, O_RDWR);
    assert_int_equal(pwrite(fd, newer, sizeof newer, (off_t)places[i].off + KITHI_WAL_BLOCK), sizeof newer);
    assert_int_equal(pwrite(fd, later, sizeof later, (off_t)places[i].off + 2 * KITHI_WAL_BLOCK),
                     sizeof later);
    close(fd);
    assert_int_equal(plan(&p), 0);
    assert_int_equal(p.last_epoch, places[i].epoch - 1);
    assert_int_equal(p.lost_epoch, GROUPS);
    kithi_wal_plan_fini(&p);
    assert_int_equal(kithi_wal_plan_after(wal, history_uid, places[i].epoch, NULL, NULL, &p, &err), 0);
    assert_int_equal(p.last_epoch, GROUPS);
    kithi_wal_plan_fini(&p);

    /* Behind the end of a recycled file. */
    teardown(NULL);
    assert_int_equal(setup(NULL), 0);
    const uint64_t written = write_recycled();
    const struct place last = places[place_count - 1];
    const off_t end = (off_t)(last.off + last.size);
    fd = open_file(wal, last.file, O_RDWR);
    assert_int_equal(pwrite(fd, newer, sizeof newer, end + KITHI_WAL_BLOCK), sizeof newer);
    assert_int_equal(pwrite(fd, later, sizeof later, end + 2 * KITHI_WAL_BLOCK), sizeof later);
    close(fd);
    flip(last.file, (off_t)last.off + 200);
    assert_int_equal(plan(&p), 0);
    assert_int_equal(p.last_epoch, written - 1);
    assert_true(p.lost_epoch <= written);
    kithi_wal_plan_fini(&p);
    assert_int_equal(kithi_wal_plan_after(wal, history_uid, written - 1, NULL, NULL, &p, &err), 0);
    assert_int_equal(p.groups, 0);
    assert_true(p.lost_epoch <= written);
    kithi_wal_plan_fini(&p);
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
        CLAIM(damage_within_a_write_of_several_groups_keeps_what_is_before_it),
        CLAIM(a_group_that_is_damaged_where_it_was_written_anew_is_kept),
        CLAIM(a_last_write_that_is_there_in_part_is_kept_up_to_its_first_gap),
        CLAIM(a_log_of_gathered_groups_goes_on_from_a_checkpoint),
        CLAIM(of_a_recycled_file_nothing_old_is_kept_or_missed),
        CLAIM(a_write_into_recycled_space_that_is_there_in_part_is_kept_up_to_its_first_gap),
        CLAIM(what_clients_wrote_into_groups_is_no_group_and_speaks_of_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
