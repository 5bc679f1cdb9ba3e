/*
 * test_recycle.c - files that the log does not need any more become its next ones: what they held before is
 * never taken for a part of the log, wherever a crash meets the change.
 *
 * KITH_SEED=<number> repeats one order of losses on the simulated disk.
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

#include "server/base/io_sim.h"
#include "server/wal/files.h"
#include "server/wal/format.h"
#include "server/wal/fresh.h"
#include "server/wal/salvage.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"
#include "tests/unit/server/wal/history.h"

#define SALT  3u
#define FILE_ 65536u

static struct test_dir dir;
static struct history h;
static struct kithi_wal_report report;
static struct kithi_errmsg err;
static struct kithi_io *io;
static struct kithi_wal *wal;
static struct history_ack ack;
static uint64_t written; /* epoch of the last group */

static int setup(void **state)
{
    (void)state;
    test_dir_make_shm(&dir);
    memset(&h, 0, sizeof h);
    io = NULL;
    wal = NULL;
    written = 0;
    return kithi_io_open(KITHI_IO_THREADS, &io, &err);
}

static int teardown(void **state)
{
    (void)state;
    kithi_wal_close(wal);
    kithi_io_free(io);
    test_dir_remove(&dir);
    return 0;
}

static int scan(uint64_t after, uint64_t known)
{
    int r = history_scan(dir.path, SALT, after, known, &h, &report, &err);
    assert_false(h.wrong);
    return r;
}

static void open_log(uint64_t after)
{
    assert_int_equal(scan(after, written), 0);
    assert_int_equal(report.last_epoch, written);
    assert_string_equal(report.torn_file, "");
    assert_int_equal(history_open(io, dir.path, FILE_, &report, &wal, &err), 0);
}

static void close_log(void)
{
    kithi_wal_close(wal);
    wal = NULL;
}

/* One at a time, up to the epoch. */
static void write_to(uint64_t epoch)
{
    memset(&ack, 0, sizeof ack);
    for (uint64_t first = written + 1; written < epoch; written++) {
        int r;
        while ((r = history_append(wal, written + 1, SALT, &ack)) == -EBUSY)
            assert_true(kithi_io_run(io, 10000) >= 0);
        assert_int_equal(r, 0);
        while (ack.acked < written + 2 - first)
            assert_true(kithi_io_run(io, 10000) >= 0);
    }
}

static struct kithi_wal_stats stats(void)
{
    struct kithi_wal_stats s;
    kithi_wal_stats(wal, &s);
    return s;
}

static bool there(const char *name)
{
    return access(test_path(&dir, name), F_OK) == 0;
}

static uint8_t *load(const char *name, size_t *out_len)
{
    int fd = open(test_path(&dir, name), O_RDONLY);
    struct stat st;
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    uint8_t *bytes = malloc((size_t)st.st_size);
    assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
    close(fd);
    *out_len = (size_t)st.st_size;
    return bytes;
}

static void store(const char *name, const void *bytes, size_t len)
{
    int fd = open(test_path(&dir, name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
}

/* A log whose last file is recycled, and has a few groups, with many old ones behind them. Closed. */
static void make_recycled(void)
{
    open_log(0);
    write_to(120);
    kithi_wal_trim(io, dir.path, 100, true);
    assert_true(there("recycled-1") && there("recycled-2") && !there("recycled-3"));
    close_log();
    open_log(100);
    while (stats().recycled == 0 || stats().file_off > FILE_ / 4)
        write_to(written + 1);
    write_to(written + 2);
    assert_true(stats().recycled > 0);
    close_log();
}

static void a_recycled_file_ends_where_it_was_written_to(void **state)
{
    (void)state;
    size_t len;
    make_recycled();
    assert_int_equal(scan(100, written), 0);
    assert_int_equal(h.groups, written - 100);
    assert_string_equal(report.torn_file, "");
    /* There are whole groups of an earlier file behind the end. */
    uint8_t *bytes = load(report.tail_file, &len);
    unsigned old = 0;
    for (size_t off = report.tail_off + report.tail_size; off < len; off += 4096) {
        struct kithi_wal_group_header g;
        if (kithi_wal_group_decode(bytes + off, len - off, history_uid, kithi_get64(bytes + off + 24), &g) !=
            KITHI_WAL_OK)
            continue;
        assert_true(g.epoch < report.last_epoch);
        assert_true(g.number < report.last_number);
        old++;
    }
    assert_true(old >= 3);
    free(bytes);
}

/* Whatever of the last write is there: it is whole, or cut off and reported, and what was there before stays buried. */
static void a_write_into_recycled_space_torn_anywhere_is_cut_off(void **state)
{
    (void)state;
    size_t len;
    make_recycled();
    assert_int_equal(scan(100, written), 0);
    char name[KITHI_WAL_NAME_SIZE];
    memcpy(name, report.tail_file, sizeof name);
    const uint64_t off = report.tail_off, end = off + report.tail_size + 4096; /* with the zeros behind it */
    uint8_t *after = load(name, &len), *torn = malloc(len), *old = malloc(len);
    /* Before the write: zeros, then what the file held before, of which any bytes serve. */
    memcpy(old, after, len);
    memset(old + off, 0, 4096);
    for (uint64_t at = off + 4096; at < end; at++)
        old[at] = after[end + (at - off) % (len - end)];
    for (uint64_t cut = off; cut <= end; cut += 512)
        for (int head = 0; head < 2; head++) {
            memcpy(torn, after, len);
            if (head)
                memcpy(torn + cut, old + cut, end - cut);
            else
                memcpy(torn + off, old + off, cut - off);
            store(name, torn, len);
            const bool whole = memcmp(torn + off, after + off, end - 4096 - off) == 0;
            const bool begun = memcmp(torn + off, after + off, 4096) == 0;
            assert_int_equal(scan(100, 0), 0);
            assert_int_equal(h.last, whole ? written : written - 1);
            if (!whole && begun)
                assert_string_equal(report.torn_file, name);
            assert_int_equal(scan(100, written), whole ? 0 : KITHI_E_LOG_DAMAGED);
        }
    free(after);
    free(torn);
    free(old);
}

static void every_flipped_bit_of_a_recycled_file_is_seen_or_harmless(void **state)
{
    (void)state;
    size_t len;
    make_recycled();
    assert_int_equal(scan(100, written), 0);
    char path[TEST_PATH_SIZE + KITHI_WAL_NAME_SIZE];
    snprintf(path, sizeof path, "%s/%s", dir.path, report.tail_file);
    const uint64_t tail = report.tail_off, end = tail + report.tail_size;
    uint8_t *bytes = load(report.tail_file, &len);
    int fd = open(path, O_RDWR);
    for (size_t at = 0; at < len; at += at % 4096 < 128 ? 1 : 61) {
        uint8_t flipped = bytes[at] ^ (uint8_t)(1u << at % 8);
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
        int r = scan(100, 0);
        if (at < tail) {
            assert_int_equal(r, KITHI_E_LOG_DAMAGED);
        } else {
            assert_int_equal(r, 0);
            assert_int_equal(h.last, at < end ? written - 1 : written);
            assert_int_equal(report.torn_file[0] != 0, at < end + 4096 && (at < end || at < end + 128));
        }
        if (at >= tail && at < end)
            assert_int_equal(scan(100, written), KITHI_E_LOG_DAMAGED);
        assert_int_equal(pwrite(fd, &bytes[at], 1, (off_t)at), 1);
    }
    close(fd);
    free(bytes);
}

/* Clients choose bytes of groups. What they choose in the hope that its space is used again cannot have the number. */
static void old_groups_that_claim_to_be_later_are_of_another_number(void **state)
{
    (void)state;
    make_recycled();
    assert_int_equal(scan(100, written), 0);
    const uint64_t before = report.last_number;
    size_t len;
    struct kithi_wal_group_header g;
    uint8_t *bytes = load(report.tail_file, &len);
    const uint64_t end = report.tail_off + report.tail_size;
    assert_int_equal(kithi_wal_group_header_decode(bytes + report.tail_off, history_uid, before, &g), 0);
    for (uint64_t number = before - 3; number <= before + 3; number++) {
        if (number == before)
            continue;
        g.number = number;
        g.epoch = written + 1;
        g.durable_epoch = written + 100;
        kithi_wal_group_header_encode(bytes + end + 4096, &g);
        g.number = number;
        store(report.tail_file, bytes, len);
        assert_int_equal(scan(100, written), 0);
        assert_int_equal(report.last_epoch, written);
        assert_string_equal(report.torn_file, "");
    }
    free(bytes);
    /* Numbers leave gaps that nobody can foresee. */
    open_log(100);
    write_to(written + 60);
    kithi_wal_trim(io, dir.path, written, true);
    write_to(written + 60);
    close_log();
    assert_int_equal(scan(written - 1, written), 0);
    assert_true(report.last_number > before + 1000);
}

static void a_headless_last_file_is_ignored_when_only_old_groups_are_in_it(void **state)
{
    (void)state;
    size_t len;
    char name[KITHI_WAL_NAME_SIZE];
    make_recycled();
    assert_int_equal(scan(100, written), 0);
    uint8_t *bytes = load(report.tail_file, &len);
    kithi_wal_file_name(name, written + 1);
    memset(bytes, 0x11, 8192);
    store(name, bytes, len);
    assert_int_equal(scan(100, written), 0);
    assert_string_equal(report.ignored_file, name);
    /* With one that could be its own the header was damaged. */
    struct kithi_wal_group_header g = { .number = 7, .epoch = written + 1, .durable_epoch = written };
    memcpy(g.uid, history_uid, 16);
    kithi_wal_group_header_encode(bytes + 4096, &g);
    store(name, bytes, len);
    assert_int_equal(scan(100, written), KITHI_E_LOG_DAMAGED);
    free(bytes);
}

static void what_cannot_be_used_again_is_removed(void **state)
{
    (void)state;
    size_t len;
    struct kithi_wal_file_header good;
    open_log(0);
    write_to(120);
    kithi_wal_trim(io, dir.path, 100, true);
    close_log();
    uint8_t *bytes = load("recycled-1", &len);
    assert_int_equal(kithi_wal_file_header_decode(bytes, history_uid, &good), KITHI_WAL_OK);
    for (int wrong = 0; wrong < 8; wrong++) {
        struct kithi_wal_file_header f = good;
        unlink(test_path(&dir, "recycled-2"));
        unlink(test_path(&dir, "spare"));
        f.uid[3] ^= wrong == 0;                            /* another collection's */
        f.number = wrong == 1 ? UINT64_MAX / 2 : f.number; /* of a later time than the log */
        f.size += wrong == 2 ? 4096 : 0;                   /* cut off */
        f.size += wrong == 6 ? 512 : 0;                    /* of no whole blocks */
        f.size = wrong == 7 ? 3 * FILE_ : f.size;          /* much larger than what is wanted */
        kithi_wal_file_header_encode(bytes, &f);
        bytes[4095] ^= wrong == 3;               /* a header that was being written */
        memset(bytes, 0, wrong == 4 ? 4096 : 0); /* one that was not written yet */
        store("recycled-1", bytes, wrong == 5 ? 8192 : len);
        if (wrong > 5)
            assert_int_equal(truncate(test_path(&dir, "recycled-1"), (off_t)f.size), 0);
        open_log(100);
        assert_int_equal(stats().recycled, 0);
        assert_false(there("recycled-1"));
        assert_false(there("new"));
        write_to(written + 1);
        close_log();
    }
    kithi_wal_file_header_encode(bytes, &good);
    store("recycled-1", bytes, len);
    open_log(100);
    assert_int_equal(stats().recycled, 1);
    assert_false(there("recycled-1"));
    write_to(written + 1);
    close_log();
    assert_int_equal(scan(100, written), 0);
    free(bytes);
}

/* A log that had one huge group does not keep its space for ever, and what is gone need not be kept. */
static void files_that_are_too_large_are_not_kept(void **state)
{
    (void)state;
    store("large", "x", 1);
    assert_int_equal(truncate(test_path(&dir, "large"), (off_t)KITHI_WAL_FILE_SIZE_DEFAULT + 4096), 0);
    assert_int_equal(kithi_wal_fresh_keep(io, dir.path, "large"), 0);
    assert_false(there("large") || there("recycled-1"));
    assert_int_equal(kithi_wal_fresh_keep(io, dir.path, "large"), 0);
    for (unsigned i = 0; i < 3; i++) { /* of others two are enough */
        store("small", "x", 1);
        assert_int_equal(kithi_wal_fresh_keep(io, dir.path, "small"), 0);
        assert_false(there("small"));
    }
    assert_true(there("recycled-1") && there("recycled-2") && !there("recycled-3"));
}

/* Half a file on, the next one is there: zeroed, so that no write has to make its space usable first. */
static void the_next_file_is_written_with_zeros_once(void **state)
{
    (void)state;
    struct stat st;
    open_log(0);
    while (stats().file_off < FILE_ / 2 + 8192)
        write_to(written + 1);
    uint64_t until = test_now_ms() + 10000;
    size_t len;
    struct kithi_wal_file_header f = { 0 };
    for (bool ready = false; !ready && test_now_ms() < until;) {
        kithi_io_run(io, 10);
        if (!there("spare"))
            continue;
        uint8_t *bytes = load("spare", &len);
        ready = len == FILE_ && kithi_wal_file_header_decode(bytes, history_uid, &f) == KITHI_WAL_OK;
        free(bytes);
    }
    assert_int_equal(f.size, FILE_);
    assert_int_equal(f.number, 0);
    int fd = open(test_path(&dir, "spare"), O_RDONLY);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 >= FILE_);
    assert_int_equal(lseek(fd, 0, SEEK_HOLE), FILE_); /* nothing is allocated and not written */
    close(fd);
    while (kithi_io_run(io, 0) > 0)
        ;
    /* It waits for the next start, which takes it. */
    close_log();
    assert_true(there("spare"));
    open_log(0);
    assert_false(there("spare"));
    assert_int_equal(stats().recycled, 0); /* no group was in it */
    write_to(written + 1);
}

static void a_write_that_is_longer_than_most_begins_a_file(void **state)
{
    (void)state;
    const size_t len = KITHI_WAL_WRITE_BYTES + 8;
    uint8_t *big = calloc(1, len);
    struct iovec v = { big, len };
    struct kithi_wal_scan_opts o = { .dir = dir.path };
    memcpy(o.uid, history_uid, 16);
    memset(&report, 0, sizeof report);
    assert_int_equal(history_open(io, dir.path, 64u << 20, &report, &wal, &err), 0);
    write_to(3);
    memset(&ack, 0, sizeof ack);
    assert_int_equal(kithi_wal_append(wal, 4, &v, 1, 1, history_done, &ack), 0);
    while (kithi_wal_busy(wal))
        kithi_io_run(io, 10000);
    assert_int_equal(stats().files, 2);
    written = 4;
    write_to(6);
    assert_int_equal(stats().files, 2);
    close_log();
    assert_int_equal(kithi_wal_scan(&o, &report, &err), 0);
    assert_int_equal(report.last_epoch, 6);
    assert_string_equal(report.tail_file, "00000000000000000004.wal");
    free(big);
}

/* ---- on the simulated disk ---- */

/*
 * A log that is about to take a recycled file, and the k-th file operation from there on is the last one. What the
 * disk holds then is a log with all that was acknowledged. Returns false when k is beyond the end.
 */
static bool die_at(uint64_t k, uint64_t seed, bool power, bool at_start)
{
    struct kithi_io *sim = NULL;
    struct kithi_wal *log = NULL;
    struct test_dir d;
    struct history_ack a = { 0 };
    struct kithi_wal_stats s = { 0 };
    uint64_t epoch = 0, base = 0;
    const uint64_t checkpoint = 45;
    test_dir_make_shm(&d);
    memset(&report, 0, sizeof report);
    assert_int_equal(kithi_sim_open(d.path, seed, &sim), 0);
    assert_int_equal(history_open(sim, d.path, FILE_, &report, &log, &err), 0);
    while (epoch < 50) {
        int r = history_append(log, epoch + 1, SALT, &a);
        assert_true(r == 0 || r == -EBUSY);
        epoch += r == 0;
        while (kithi_wal_busy(log) || r == -EBUSY)
            r = kithi_io_run(sim, 0) > 0 ? 0 : -EBUSY;
    }
    while (kithi_io_run(sim, 0) > 0)
        ;
    if (at_start) {
        assert_int_equal(kithi_sim_stop(sim), 0);
        kithi_wal_close(log);
        kithi_sim_start(sim);
        assert_int_equal(kithi_sim_settle(sim, d.path), 0);
    }
    const uint64_t before = kithi_sim_ops(sim);
    kithi_sim_fail_at(sim, k, EIO, true);
    kithi_wal_trim(sim, d.path, checkpoint, true);
    int opened = 0;
    if (at_start) {
        log = NULL;
        base = a.acked;
        memset(&a, 0, sizeof a);
        assert_int_equal(history_scan(d.path, SALT, checkpoint, epoch, &h, &report, &err), 0);
        opened = history_open(sim, d.path, FILE_, &report, &log, &err);
    }
    for (int i = 0; opened == 0 && i < 40 && !kithi_wal_failure(log); i++) {
        int r = history_append(log, epoch + 1, SALT, &a);
        epoch += r == 0;
        if (r < 0 && r != -EBUSY)
            break;
        kithi_io_run(sim, 0);
        kithi_io_run(sim, 0);
    }
    const bool beyond = kithi_sim_ops(sim) < before + k;
    if (log) {
        kithi_wal_stats(log, &s);
        assert_true(!beyond || s.recycled > 0);
    }
    const uint64_t acked = base + a.acked;
    kithi_sim_fail_at(sim, 0, 0, false);
    assert_int_equal(power ? kithi_sim_crash(sim) : kithi_sim_stop(sim), 0);
    kithi_wal_close(log);
    log = NULL;
    kithi_sim_start(sim);
    if (!power)
        assert_int_equal(kithi_sim_settle(sim, d.path), 0);
    for (int life = 0; life < 2; life++) {
        int r = history_scan(d.path, SALT, checkpoint, acked, &h, &report, &err);
        if (r != 0 || h.wrong || report.last_epoch < acked || report.last_epoch > epoch)
            fail_msg("operation %llu, seed %llu: %d %s; acked %llu, read %llu of %llu", (unsigned long long)k,
                     (unsigned long long)seed, r, err.text, (unsigned long long)acked,
                     (unsigned long long)report.last_epoch, (unsigned long long)epoch);
        r = history_scan(d.path, SALT, report.first_epoch - 1, acked, &h, &report, &err);
        if (r != 0)
            fail_msg("operation %llu, seed %llu, from the first file on: %s", (unsigned long long)k,
                     (unsigned long long)seed, err.text);
        assert_int_equal(history_open(sim, d.path, FILE_, &report, &log, &err), 0);
        epoch = report.last_epoch;
        memset(&a, 0, sizeof a);
        for (int i = 0; i < 20; i++) {
            while (history_append(log, epoch + 1, SALT, &a) != 0)
                assert_true(kithi_io_run(sim, 0) > 0);
            epoch++;
            while (kithi_wal_busy(log))
                kithi_io_run(sim, 0);
        }
        assert_int_equal(kithi_sim_crash(sim), 0);
        kithi_wal_close(log);
        log = NULL;
        kithi_sim_start(sim);
        assert_int_equal(history_scan(d.path, SALT, checkpoint, epoch, &h, &report, &err), 0);
        assert_false(h.wrong);
    }
    kithi_io_free(sim);
    test_dir_remove(&d);
    return !beyond;
}

static void a_crash_at_any_operation_of_recycling_leaves_a_whole_log(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    for (int way = 0; way < 4; way++) {
        uint64_t k = 1;
        bool went_on = true;
        for (; went_on; k++) {
            went_on = false;
            for (uint64_t i = 0; i < (test_long() ? 200u : 3u); i++)
                went_on = die_at(k, seed + i, way & 1, way & 2) || went_on;
        }
        assert_true(k > 20);
    }
}

#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLAIM(a_recycled_file_ends_where_it_was_written_to),
        CLAIM(a_write_into_recycled_space_torn_anywhere_is_cut_off),
        CLAIM(every_flipped_bit_of_a_recycled_file_is_seen_or_harmless),
        CLAIM(old_groups_that_claim_to_be_later_are_of_another_number),
        CLAIM(a_headless_last_file_is_ignored_when_only_old_groups_are_in_it),
        CLAIM(what_cannot_be_used_again_is_removed),
        CLAIM(files_that_are_too_large_are_not_kept),
        CLAIM(the_next_file_is_written_with_zeros_once),
        CLAIM(a_write_that_is_longer_than_most_begins_a_file),
        cmocka_unit_test(a_crash_at_any_operation_of_recycling_leaves_a_whole_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
