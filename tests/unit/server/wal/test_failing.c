/*
 * test_failing.c - a log and its salvage without memory, descriptors or room, and on a disk that fails: for each call that may fail
 * there is an error that says where, nothing that was durable is lost, and what was not carried out can be done again.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "server/wal/files.h"
#include "server/wal/salvage.h"
#include "tests/crash/step/step.h"
#include "tests/support/failing.h"
#include "tests/support/tmp.h"
#include "tests/unit/server/wal/history.h"

#define SALT   7u
#define GROUPS 24u
#define FILE_  32768u
#define CALLS  20000u /* more than any of these takes */

static struct test_dir dir; /* the collection's */
static char wal[TEST_PATH_SIZE + 8];
static struct kithi_errmsg err;
static struct kithi_io *io;
static uint64_t written; /* epoch of the last group */

/* Groups as they are read, without memory of the test's own: that could fail, too. */
struct reading {
    uint64_t first, last;
    bool wrong;
};

static int read_group(void *arg, const struct kithi_wal_group *g)
{
    static uint8_t want[32768];
    struct reading *r = arg;
    size_t len = history_len(g->epoch, SALT);
    history_fill(want, g->epoch, SALT);
    r->wrong |= g->len != len || memcmp(g->ops, want, len) != 0 || (r->last && g->epoch != r->last + 1);
    r->first = r->first ? r->first : g->epoch;
    r->last = g->epoch;
    return 0;
}

static int scan(uint64_t after, uint64_t known, struct reading *reading, struct kithi_wal_report *report)
{
    struct kithi_wal_scan_opts o = {
        .dir = wal, .after_epoch = after, .known_durable_epoch = known, .fn = read_group, .arg = reading
    };
    memcpy(o.uid, history_uid, 16);
    *reading = (struct reading){ 0 };
    err = (struct kithi_errmsg){ 0 };
    return kithi_wal_scan(&o, report, &err);
}

static void assert_whole(uint64_t after)
{
    struct reading reading;
    struct kithi_wal_report report;
    int r = scan(after, written, &reading, &report);
    if (r != 0)
        fail_msg("after %s: %s", test_failing_what(), err.text);
    assert_false(reading.wrong);
    assert_int_equal(report.last_epoch, written);
    assert_true(after == written || (reading.first == after + 1 && reading.last == written));
}

static struct kithi_wal *open_log(uint64_t after)
{
    struct reading reading;
    struct kithi_wal_report report = { 0 };
    struct kithi_wal *log = NULL;
    if (written)
        assert_int_equal(scan(after, written, &reading, &report), 0);
    int r = history_open(io, wal, FILE_, &report, &log, &err);
    if (r != 0)
        fail_msg("after %s: %s", test_failing_what(), err.text);
    return log;
}

static void write_to(struct kithi_wal *log, uint64_t epoch)
{
    struct history_ack a = { 0 };
    uint64_t n = epoch - written;
    while (written < epoch) {
        int r = history_append(log, written + 1, SALT, &a);
        if (r != 0 && r != -EBUSY)
            fail_msg("group %u after %s: %s", (unsigned)written + 1, test_failing_what(),
                     kithi_wal_failure(log) ? kithi_wal_failure(log)->text : kithi_error_name(r));
        written += r == 0;
        while (r == -EBUSY ? kithi_io_run(io, 10000) < 0 : kithi_wal_busy(log))
            assert_true(kithi_io_run(io, 10000) >= 0);
    }
    assert_int_equal(a.acked, n);
}

/* What it had begun ahead ends with it. */
static void close_log(struct kithi_wal *log)
{
    kithi_wal_close(log);
    (void)kithi_io_run(io, 0);
}

static int setup(void **state)
{
    (void)state;
    test_dir_make_shm(&dir);
    snprintf(wal, sizeof wal, "%s/wal", dir.path);
    written = 0;
    if (mkdir(wal, 0700) != 0)
        return -1;
    /* Everything in this thread, the log's writes and its next file, too. */
    io = step_io_here();
    struct kithi_wal *log = open_log(0);
    write_to(log, GROUPS);
    close_log(log);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kithi_io_free(io);
    test_dir_remove(&dir);
    return 0;
}

/* An error that was met is told in words; where there was a way on there is none. */
static void assert_told(int r, enum test_way way)
{
    if (r == 0 || way == TEST_INTERRUPTED)
        assert_int_equal(r, 0);
    else if (err.code != r || (r != -ENOMEM && !strstr(err.text, dir.path)))
        fail_msg("%s: status %d, told as %d: %s", test_failing_what(), r, err.code, err.text);
}

static void reading_fails_with_the_place_or_reads_everything(void **state)
{
    (void)state;
    for (enum test_way way = 0; way < TEST_WAYS; way++)
        for (uint64_t k = 1, failures = 0; k < CALLS; k++) {
            struct reading reading;
            struct kithi_wal_report report = { .groups = 77 };
            test_failing_begin(k, way);
            int r = scan(0, written, &reading, &report);
            bool met = test_failing_end();
            failures += r != 0;
            assert_told(r, way);
            assert_false(reading.wrong);
            assert_int_equal(report.groups, r == 0 ? GROUPS : 77);
            if (!met) {
                assert_int_equal(r, 0);
                assert_true(way == TEST_INTERRUPTED || failures > 10);
                break;
            }
            /* Looking for holes is the one thing that it can do without. */
            if (way == TEST_FAILS && !strstr(test_failing_what(), "lseek"))
                assert_true(r == -EIO || r == -EMFILE || r == -ENOMEM);
        }
    assert_whole(0);
}

static void settling_fails_with_the_place_or_waits(void **state)
{
    (void)state;
    for (enum test_way way = 0; way < TEST_WAYS; way++)
        for (uint64_t k = 1; k < CALLS; k++) {
            test_failing_begin(k, way);
            int r = kithi_wal_settle(wal, 1000, NULL, &err);
            bool met = test_failing_end();
            assert_told(r, way);
            if (way == TEST_FAILS_OTHERWISE && strstr(test_failing_what(), "flock"))
                assert_int_equal(r, 0); /* it was locked for a moment */
            if (!met)
                break;
            if (way == TEST_FAILS)
                assert_true(r < 0);
        }
    /* Without the time to wait that is what it says. */
    test_failing_begin(1, TEST_FAILS_OTHERWISE);
    for (uint64_t k = 2; !strstr(test_failing_what(), "flock"); k++) {
        test_failing_end();
        test_failing_begin(k, TEST_FAILS_OTHERWISE);
        (void)kithi_wal_settle(wal, 0, NULL, &err);
    }
    assert_true(test_failing_end());
    assert_int_equal(err.code, KITHI_E_BUSY);
    assert_non_null(strstr(err.text, "is still locked after 0 ms"));
}

/* With and without files of before that are taken for the new one. */
static void a_log_that_cannot_be_opened_stays_as_it_was(void **state)
{
    (void)state;
    for (unsigned recycled = 0; recycled < 2; recycled++)
        for (enum test_way way = 0; way < TEST_WAYS; way++)
            for (uint64_t k = 1, failures = 0; k < CALLS; k++) {
                struct reading reading;
                struct kithi_wal_report report;
                struct kithi_wal *log = NULL;
                uint64_t after = recycled ? written : 0;
                if (recycled)
                    kithi_wal_trim(io, wal, written, true);
                assert_int_equal(scan(after, written, &reading, &report), 0);
                test_failing_begin(k, way);
                int r = history_open(io, wal, FILE_, &report, &log, &err);
                bool met = test_failing_end();
                assert_told(r, way);
                assert_int_equal(r == 0, log != NULL);
                if (log) {
                    assert_whole(after);
                    assert_int_equal(kithi_wal_durable_epoch(log), written);
                    if (k % 5 == 0)
                        write_to(log, written + 1);
                }
                close_log(log);
                assert_whole(recycled && written > after ? written - 1 : after);
                failures += r != 0;
                if (!met) {
                    assert_int_equal(r, 0);
                    assert_true(way == TEST_INTERRUPTED || failures > 3);
                    break;
                }
            }
}

/* The next group, without memory of the test's own. */
static int append(struct kithi_wal *log, uint64_t epoch, struct history_ack *a)
{
    static uint8_t bytes[32768];
    struct iovec v = { bytes, history_len(epoch, SALT) };
    history_fill(bytes, epoch, SALT);
    return kithi_wal_append(log, epoch, &v, 1, (uint32_t)(epoch % 7 + 1), history_done, a);
}

/* What was refused can be appended again; the log stays good. */
static void a_group_that_is_refused_is_taken_later(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (enum test_way way = 0; way <= TEST_LASTS; way++) {
        struct kithi_wal *log = open_log(0);
        /* The next group alone, with a file of its own where this one is full. */
        for (uint64_t k = 1, clean = 0; clean < 40; k++) {
            struct history_ack a = { 0 };
            int r = -EBUSY;
            for (bool met = false; r == -EBUSY && !met;) {
                test_failing_begin(1 + k % 12, way);
                r = append(log, written + 1, &a);
                met = test_failing_end();
                if (r == -EBUSY)
                    assert_true(kithi_io_run(io, 10000) >= 0);
                clean += r == 0 && !met;
            }
            if (r == 0) {
                written++;
                while (kithi_wal_busy(log))
                    assert_true(kithi_io_run(io, 10000) >= 0);
                assert_int_equal(a.acked, 1);
            } else if (r != -EBUSY) {
                refused++;
                assert_true(r == -ENOMEM || r == -ENOSPC || r == -EIO || r == -EMFILE || r == -EINVAL ||
                            r == -ENOLCK || r == -EFBIG || r == -EWOULDBLOCK || r == -EACCES);
                assert_false(kithi_wal_busy(log));
            }
            assert_null(kithi_wal_failure(log));
            assert_int_equal(kithi_wal_durable_epoch(log), written);
        }
        close_log(log);
        assert_whole(0);
    }
    assert_true(refused > 0);
}

/* An error ends the log for good, and what it has acknowledged by then is there; a failure before anything was written ends nothing. */
static void a_log_that_fails_has_what_it_acknowledged(void **state)
{
    (void)state;
    unsigned failures = 0;
    for (enum test_way way = 0; way < TEST_WAYS; way++) {
        bool met = true;
        for (uint64_t k = 1; met && k < CALLS; k++) {
            struct kithi_wal *log = open_log(written);
            struct history_ack a = { 0 };
            struct reading reading;
            struct kithi_wal_report report;
            const uint64_t first = written + 1;
            uint64_t epoch = written;
            test_failing_begin(k, way);
            for (unsigned turn = 0; turn < 60 && epoch < first + 13 && !kithi_wal_failure(log); turn++) {
                int r = append(log, epoch + 1, &a);
                epoch += r == 0;
                /* Two at a time, so that one gathers while the other is written. */
                if (turn % 2 || r != 0)
                    (void)kithi_io_run(io, 0);
            }
            (void)kithi_io_run(io, 0);
            met = test_failing_end();
            assert_false(a.disorder);
            assert_int_equal(a.acked + (unsigned)a.failed, epoch + 1 - first);
            if (kithi_wal_failure(log)) {
                char says[64];
                snprintf(says, sizeof says, "nothing after epoch %llu is acknowledged",
                         (unsigned long long)(first - 1 + a.acked));
                assert_non_null(strstr(kithi_wal_failure(log)->text, says));
                assert_int_equal(append(log, epoch + 1, &a), KITHI_E_LOG_FAILED);
                if (!met || way == TEST_INTERRUPTED)
                    fail_msg("%s: %s", test_failing_what(), kithi_wal_failure(log)->text);
                failures++;
            } else {
                assert_int_equal(a.failed, 0);
            }
            close_log(log);
            assert_int_equal(scan(first - 1, first - 1 + a.acked, &reading, &report), 0);
            assert_false(reading.wrong);
            assert_in_range(report.last_epoch, first - 1 + a.acked, epoch);
            written = report.last_epoch;
            kithi_wal_trim(io, wal, written, k % 2);
        }
        assert_false(met);
    }
    assert_true(failures > 10);
}

static void trimming_that_fails_leaves_no_gap(void **state)
{
    (void)state;
    struct kithi_wal *log = NULL;
    for (enum test_way way = 0; way <= TEST_LASTS; way++)
        for (unsigned keep = 0; keep < 2; keep++)
            for (uint64_t k = 1; k < CALLS; k++) {
                log = open_log(written);
                write_to(log, written + 12); /* a few files more */
                close_log(log);
                test_failing_begin(k, way);
                kithi_wal_trim(io, wal, written - 4, keep);
                bool met = test_failing_end();
                assert_whole(written - 4);
                kithi_wal_trim(io, wal, written - 4, keep); /* what is left goes the next time */
                assert_whole(written - 4);
                if (!met)
                    break;
            }
}

static void salvaging_fails_with_the_place_and_can_be_begun_again(void **state)
{
    (void)state;
    unsigned failures = 0;
    for (enum test_way way = 0; way < TEST_WAYS; way++)
        for (uint64_t k = 1, step = 0; step < 6; k++) {
            struct kithi_wal_plan p = { 0 };
            struct kithi_wal_look look;
            struct stat st;
            char path[2 * TEST_PATH_SIZE];
            uint32_t n = 0;
            int r = 0;
            /* Each step by itself; those before it succeed. */
            if (step == 2 || step == 3)
                assert_int_equal(kithi_wal_plan(wal, history_uid, NULL, NULL, &p, &err), 0);
            if (step > 1)
                assert_int_equal(kithi_wal_salvage_number(dir.path, &n, &err), 0);
            if (step == 3)
                assert_int_equal(kithi_wal_salvage_copy(dir.path, history_uid, &p, n, &err), 0);
            test_failing_begin(k, way);
            switch (step) {
            case 0: r = kithi_wal_plan(wal, history_uid, NULL, NULL, &p, &err); break;
            case 1: r = kithi_wal_plan_after(wal, history_uid, 5, NULL, NULL, &p, &err); break;
            case 2: r = kithi_wal_salvage_copy(dir.path, history_uid, &p, n, &err); break;
            case 3: r = kithi_wal_salvage_swap(dir.path, n, &err); break;
            case 4: r = kithi_wal_look(wal, "00000000000000000001.wal", history_uid, &look, &err); break;
            default: r = kithi_wal_salvage_number(dir.path, &n, &err); break;
            }
            bool met = test_failing_end();
            failures += r != 0;
            assert_told(r, way);
            if (step < 2 && r == 0 && way != TEST_FAILS_OTHERWISE) {
                assert_int_equal(p.last_epoch, written);
                assert_int_equal(p.groups, written - (step ? 5 : 0));
            }
            kithi_wal_plan_fini(&p);
            /* Half a copy is removed; a whole one is named as such. */
            snprintf(path, sizeof path, "%s/" KITHI_WAL_SALVAGING "%u", dir.path, n);
            if (step == 2 && !strstr(test_failing_what(), "unlink") && !strstr(test_failing_what(), "rmdir"))
                assert_int_not_equal(stat(path, &st), 0);
            /* A swap that was cut short goes on. */
            if (step == 3 && kithi_wal_salvage_interrupted(dir.path) == n)
                assert_int_equal(kithi_wal_salvage_swap(dir.path, n, &err), 0);
            assert_whole(0);
            step += !met;
            k = met ? k : 0;
        }
    assert_true(failures > 50);
}

/* Nobody is told of errors here: what cannot be looked at is not in use, and was not interrupted. */
static void questions_without_an_answer_are_answered_with_no(void **state)
{
    (void)state;
    for (uint64_t k = 1; k < 100; k++) {
        test_failing_begin(k, TEST_FAILS);
        bool used = kithi_wal_in_use(wal);
        uint32_t n = kithi_wal_salvage_interrupted(dir.path);
        test_failing_end();
        assert_false(used);
        assert_int_equal(n, 0);
    }
}

/* path, made longer without leading elsewhere. */
static void lengthen(const char *path, size_t len, char out[2 * KITHI_WAL_PATH_SIZE])
{
    size_t n = strlen(path);
    memcpy(out, path, n + 1);
    for (; n < len; n++)
        out[n] = (len - n) % 2 ? '.' : '/';
    out[n] = '\0';
    if (out[strlen(path)] == '.') /* an odd number */
        out[strlen(path)] = '/';
}

/* Names below a directory are of several lengths: wherever the longest path ends, nothing is cut off, and nothing is lost. */
static void a_path_that_is_too_long_is_refused(void **state)
{
    (void)state;
    unsigned refused[8] = { 0 };
    static char log_dir[2 * KITHI_WAL_PATH_SIZE], collection[2 * KITHI_WAL_PATH_SIZE];
    for (size_t len = KITHI_WAL_PATH_SIZE - 60; len < KITHI_WAL_PATH_SIZE + 3; len++) {
        struct reading reading = { 0 };
        struct kithi_wal_report report = { 0 }, found;
        struct kithi_wal *log = NULL;
        struct kithi_wal_plan p = { 0 };
        struct kithi_wal_look look;
        uint32_t n = 0;
        lengthen(wal, len, log_dir);
        lengthen(dir.path, len, collection);
        assert_true(strlen(log_dir) == len && strlen(collection) == len);
        struct kithi_wal_scan_opts o = { .dir = log_dir, .fn = read_group, .arg = &reading };
        memcpy(o.uid, history_uid, 16);
        int r[8] = { 0 };
        r[0] = kithi_wal_scan(&o, &report, &err);
        r[1] = kithi_wal_settle(log_dir, 0, NULL, &err);
        r[2] = kithi_wal_plan(log_dir, history_uid, NULL, NULL, &p, &err);
        kithi_wal_plan_fini(&p);
        r[3] = kithi_wal_look(log_dir, "00000000000000000001.wal", history_uid, &look, &err);
        assert_int_equal(scan(0, written, &reading, &found), 0);
        assert_int_equal(kithi_wal_plan(wal, history_uid, NULL, NULL, &p, &err), 0);
        r[4] = kithi_wal_salvage_number(collection, &n, &err);
        r[5] = kithi_wal_salvage_copy(collection, history_uid, &p, n ? n : 1, &err);
        /* Whoever has no copy does not put one in place. */
        if (r[5] == 0 || len + sizeof "/" KITHI_WAL_SALVAGED "1" > KITHI_WAL_PATH_SIZE)
            r[6] = kithi_wal_salvage_swap(collection, n ? n : 1, &err);
        kithi_wal_plan_fini(&p);
        assert_int_equal(kithi_wal_salvage_interrupted(collection), 0);
        kithi_wal_trim(io, log_dir, 3, len % 2);
        if (scan(3, written, &reading, &found) == 0)
            r[7] = history_open(io, log_dir, FILE_, &found, &log, &err);
        close_log(log);
        for (unsigned i = 0; i < 8; i++) {
            refused[i] += r[i] != 0;
            assert_true(r[i] == 0 || r[i] == -ENAMETOOLONG);
        }
        assert_whole(3);
    }
    for (unsigned i = 0; i < 8; i++)
        assert_true(refused[i] > 0);
}

#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLAIM(reading_fails_with_the_place_or_reads_everything),
        CLAIM(settling_fails_with_the_place_or_waits),
        CLAIM(a_log_that_cannot_be_opened_stays_as_it_was),
        CLAIM(a_group_that_is_refused_is_taken_later),
        CLAIM(a_log_that_fails_has_what_it_acknowledged),
        CLAIM(trimming_that_fails_leaves_no_gap),
        CLAIM(salvaging_fails_with_the_place_and_can_be_begun_again),
        CLAIM(questions_without_an_answer_are_answered_with_no),
        CLAIM(a_path_that_is_too_long_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
