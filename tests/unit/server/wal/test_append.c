/*
 * test_append.c - what was acknowledged is read again, after restarts, crashes and failures.
 *
 * The crash tests run on the simulated disk: KITH_SEED=<number> repeats one seed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "server/base/io_sim.h"
#include "server/wal/files.h"
#include "server/wal/format.h"
#include "shm/base/bytes.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"
#include "tests/unit/server/wal/history.h"

#define FILE_SIZE 65536u

static void write_groups(struct kithi_io *io, struct kithi_wal *wal, uint64_t first, uint64_t last,
                         uint64_t salt)
{
    struct history_ack a = { 0 };
    for (uint64_t e = first; e <= last; e++) {
        int r = history_append(wal, e, salt, &a);
        for (; r == -EBUSY; r = history_append(wal, e, salt, &a))
            kithi_io_run(io, 1000);
        assert_int_equal(r, 0);
    }
    while (kithi_wal_busy(wal))
        assert_true(kithi_io_run(io, 10000) >= 0);
    assert_int_equal(a.acked, last - first + 1);
    assert_int_equal(a.failed, 0);
}

/* A log in a directory of its own, and what was told of it. */
struct log {
    struct test_dir dir;
    struct kithi_io *io;
    struct kithi_wal *wal;
    struct kithi_wal_report report;
    struct kithi_errmsg err;
    struct history_ack a;
};

static void open_real(struct log *l)
{
    *l = (struct log){ 0 };
    test_dir_make(&l->dir);
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &l->io, &l->err), 0);
    assert_int_equal(history_open(l->io, l->dir.path, FILE_SIZE, &l->report, &l->wal, &l->err), 0);
}

/* On a simulated disk, which completes in the order of this seed. */
static void open_simulated(struct log *l, uint64_t seed, uint32_t file_size)
{
    *l = (struct log){ 0 };
    test_dir_make(&l->dir);
    assert_int_equal(kithi_sim_open(l->dir.path, seed, &l->io), 0);
    assert_int_equal(history_open(l->io, l->dir.path, file_size, &l->report, &l->wal, &l->err), 0);
}

/* Until nothing is on its way. */
static void finish(struct log *l)
{
    while (kithi_wal_busy(l->wal))
        kithi_io_run(l->io, 10000);
}

static void close_log(struct log *l)
{
    kithi_wal_close(l->wal);
    l->wal = NULL;
}

static void close_all(struct log *l)
{
    close_log(l);
    kithi_io_free(l->io);
    test_dir_remove(&l->dir);
}

/* Groups that the opener knows from elsewhere: as if they had been appended, in one file, however large. */
static void a_log_is_opened_with_groups_from_elsewhere(void **state)
{
    enum { MORE = 1500, OWN = 20 };
    static struct kithi_wal_content more[MORE];
    struct test_dir dir;
    struct kithi_io *io = NULL;
    struct kithi_wal *wal = NULL;
    struct kithi_wal_report report = { 0 };
    struct kithi_wal_stats stats;
    struct kithi_errmsg err;
    struct history h = { 0 };
    (void)state;
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, &err), 0);
    for (uint32_t own = 0; own <= OWN; own += OWN) {
        test_dir_make(&dir);
        report = (struct kithi_wal_report){ 0 };
        if (own) {
            assert_int_equal(history_open(io, dir.path, FILE_SIZE, &report, &wal, &err), 0);
            write_groups(io, wal, 1, own, 5);
            kithi_wal_close(wal);
            assert_int_equal(history_scan(dir.path, 5, 0, own, &h, &report, &err), 0);
        }
        for (uint32_t i = 0; i < MORE; i++) {
            uint64_t epoch = own + 1 + i;
            uint8_t *ops = malloc(history_len(epoch, 5));
            history_fill(ops, epoch, 5);
            more[i] = (struct kithi_wal_content){ ops, history_len(epoch, 5), (uint32_t)(epoch % 7 + 1) };
        }
        struct kithi_wal_open_opts o = { .dir = dir.path,
                                         .timeline = 77,
                                         .file_size = FILE_SIZE,
                                         .report = &report,
                                         .more = more,
                                         .more_count = MORE };
        memcpy(o.uid, history_uid, 16);
        assert_int_equal(kithi_wal_open(io, &o, &wal, &err), 0);
        kithi_wal_stats(wal, &stats);
        assert_int_equal(stats.last_epoch, own + MORE);
        write_groups(io, wal, own + MORE + 1, own + MORE + 3, 5);
        kithi_wal_close(wal);
        h = (struct history){ 0 };
        assert_int_equal(history_scan(dir.path, 5, 0, own + MORE + 3, &h, &report, &err), 0);
        assert_false(h.wrong);
        assert_int_equal(h.groups, own + MORE + 3);
        for (uint32_t i = 0; i < MORE; i++)
            free((void *)(uintptr_t)more[i].ops);
        test_dir_remove(&dir);
    }
    kithi_io_free(io);
}

static void round_trip(enum kithi_io_kind kind)
{
    struct test_dir dir;
    struct kithi_io *io = NULL;
    struct kithi_wal *wal = NULL;
    struct kithi_wal_report report = { 0 };
    struct kithi_wal_stats stats;
    struct kithi_errmsg err;
    struct history h = { 0 };
    if (kithi_io_open(kind, &io, &err) < 0) {
        fprintf(stderr, "skipped: %s\n", err.text);
        skip();
    }
    test_dir_make(&dir);
    assert_int_equal(history_open(io, dir.path, FILE_SIZE, &report, &wal, &err), 0);
    write_groups(io, wal, 1, 200, 5);
    kithi_wal_stats(wal, &stats);
    assert_int_equal(stats.groups, 200);
    assert_int_equal(stats.last_epoch, 200);
    assert_true(stats.files > 5);
    kithi_wal_close(wal);

    /* Three starts, the middle one without a write. */
    uint64_t last = 200;
    for (int start = 0; start < 3; start++) {
        assert_int_equal(kithi_wal_settle(dir.path, 1000, NULL, &err), 0);
        assert_int_equal(history_scan(dir.path, 5, 0, last, &h, &report, &err), 0);
        assert_false(h.wrong);
        assert_int_equal(h.groups, last);
        assert_int_equal(report.last_epoch, last);
        assert_string_equal(report.torn_file, "");
        assert_string_equal(report.ignored_file, "");
        assert_int_equal(history_open(io, dir.path, FILE_SIZE, &report, &wal, &err), 0);
        if (start != 1) {
            write_groups(io, wal, last + 1, last + 30, 5);
            last += 30;
        }
        kithi_wal_close(wal);
    }
    assert_int_equal(history_scan(dir.path, 5, last - 3, 0, &h, &report, &err), 0);
    assert_int_equal(h.first, last - 2);
    assert_int_equal(h.groups, 3);
    kithi_io_free(io);
    test_dir_remove(&dir);
}

static void groups_are_read_as_written_over_files_and_starts_uring(void **state)
{
    (void)state;
    round_trip(KITHI_IO_URING);
}

static void groups_are_read_as_written_over_files_and_starts_threads(void **state)
{
    (void)state;
    round_trip(KITHI_IO_THREADS);
}

/* What a checkpoint makes needless goes, and a scan from there on finds the rest whole. */
static void a_trimmed_log_is_whole_from_its_checkpoint_on(void **state)
{
    (void)state;
    struct log l;
    struct kithi_wal_file *files = NULL;
    struct history h = { 0 };
    open_real(&l);
    write_groups(l.io, l.wal, 1, 200, 5);
    int64_t before = kithi_wal_files_list(l.dir.path, &files, &l.err);
    assert_true(before > 5);
    uint64_t first = files[2].first_epoch; /* a file that begins right after the checkpoint */
    free(files);
    kithi_wal_trim(l.io, l.dir.path, 0, true);
    assert_int_equal(kithi_wal_files_list(l.dir.path, &files, &l.err), before);
    free(files);
    /* Its group after is the last one of the file before. */
    kithi_wal_trim(l.io, l.dir.path, first - 2, true);
    assert_int_equal(kithi_wal_files_list(l.dir.path, &files, &l.err), before - 1);
    free(files);
    kithi_wal_trim(l.io, l.dir.path, first - 1, true);
    assert_int_equal(kithi_wal_files_list(l.dir.path, &files, &l.err), before - 2);
    assert_int_equal(files[0].first_epoch, first);
    free(files);
    write_groups(l.io, l.wal, 201, 210, 5); /* the log goes on */
    close_log(&l);
    assert_int_equal(history_scan(l.dir.path, 5, first - 1, 210, &h, &l.report, &l.err), 0);
    assert_false(h.wrong);
    assert_int_equal(h.first, first);
    assert_int_equal(l.report.last_epoch, 210);
    assert_int_equal(history_scan(l.dir.path, 5, first - 2, 0, &h, &l.report, &l.err), KITHI_E_LOG_DAMAGED);
    /* However far the checkpoint has got, the last two files stay: they hold the tail. */
    kithi_wal_trim(l.io, l.dir.path, 1000000, true);
    assert_int_equal(kithi_wal_files_list(l.dir.path, &files, &l.err), 2);
    free(files);
    assert_int_equal(history_scan(l.dir.path, 5, 210, 210, &h, &l.report, &l.err), 0);
    assert_int_equal(l.report.last_epoch, 210);
    close_all(&l);
}

static void a_group_larger_than_a_file_gets_one_of_its_size(void **state)
{
    (void)state;
    struct log l;
    const size_t len = 20u << 20;
    uint8_t *big = calloc(1, len);
    open_real(&l);
    write_groups(l.io, l.wal, 1, 3, 1);
    struct iovec v = { big, len };
    assert_int_equal(kithi_wal_append(l.wal, 4, &v, 1, 9, history_done, &l.a), 0);
    finish(&l);
    assert_int_equal(l.a.acked, 1);
    write_groups(l.io, l.wal, 5, 9, 1);
    close_log(&l);
    struct kithi_wal_scan_opts o = { .dir = l.dir.path };
    memcpy(o.uid, history_uid, 16);
    assert_int_equal(kithi_wal_scan(&o, &l.report, &l.err), 0);
    assert_int_equal(l.report.last_epoch, 9);
    assert_int_equal(l.report.groups, 9);
    close_all(&l);
    free(big);
}

/*
 * Ops as a client may choose them who knows all of his collection's group headers but the number of the file: each block of the group
 * begins with the header of one that says that group `epoch` was durable before it, and all of them together try the numbers from 1 on.
 */
static uint8_t *forge(uint64_t epoch, size_t len)
{
    struct kithi_wal_group_header h = {
        .epoch = epoch + 1, .durable_epoch = epoch, .timeline = 77, .len = 64, .n_ops = 1
    };
    uint8_t *ops = calloc(1, len);
    memcpy(h.uid, history_uid, sizeof h.uid);
    for (size_t at = KITHI_WAL_BLOCK - KITHI_WAL_GROUP_HEADER; at + KITHI_WAL_GROUP_HEADER <= len;
         at += KITHI_WAL_BLOCK) {
        h.number++;
        kithi_wal_group_header_encode(ops + at, &h);
    }
    return ops;
}

/* Of the first file of a log, of one that a start begins, and of one that follows while the log is written. */
static void what_clients_write_is_no_proof_that_a_torn_group_was_durable(void **state)
{
    (void)state;
    const size_t len = 2u << 20;
    const uint8_t zeros[KITHI_WAL_BLOCK] = { 0 };
    uint8_t forged[KITHI_WAL_BLOCK], true_one[KITHI_WAL_BLOCK];
    char path[2 * TEST_PATH_SIZE];
    struct test_dir dir;
    struct kithi_io *io = NULL;
    struct kithi_wal *wal = NULL;
    struct kithi_wal_report report = { 0 };
    struct kithi_wal_stats stats;
    struct kithi_errmsg err;
    uint64_t epoch = 0;
    test_dir_make_shm(&dir);
    struct kithi_wal_scan_opts o = { .dir = dir.path };
    memcpy(o.uid, history_uid, 16);
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, &err), 0);
    for (int life = 0; life < 3; life++) {
        assert_int_equal(history_open(io, dir.path, 4u << 20, &report, &wal, &err), 0);
        assert_int_equal(report.last_epoch, epoch);
        write_groups(io, wal, epoch + 1, epoch + 2, 5);
        epoch += 2;
        do {
            struct history_ack a = { 0 };
            uint8_t *ops = forge(++epoch, len);
            struct iovec v = { ops, len };
            int r;
            while ((r = kithi_wal_append(wal, epoch, &v, 1, 1, history_done, &a)) == -EBUSY)
                kithi_io_run(io, 10000);
            assert_int_equal(r, 0);
            while (kithi_wal_busy(wal))
                kithi_io_run(io, 10000);
            assert_int_equal(a.acked, 1);
            free(ops);
            kithi_wal_stats(wal, &stats);
        } while (life == 2 && stats.files == 1);
        kithi_wal_close(wal);

        /* All of its blocks came to the disk but the first. */
        const off_t off = (off_t)(stats.file_off - kithi_wal_group_size(len));
        snprintf(path, sizeof path, "%s/%s", dir.path, stats.file);
        int fd = open(path, O_RDWR);
        assert_int_equal(pwrite(fd, zeros, sizeof zeros, off), sizeof zeros);
        int r = kithi_wal_scan(&o, &report, &err);
        if (r != 0)
            fail_msg("life %d: %s", life, err.text);
        assert_int_equal(report.last_epoch, --epoch);
        assert_string_equal(report.torn_file, stats.file);
        const struct kithi_wal_report kept = report;
        /* With the number it would be one. */
        assert_int_equal(pread(fd, forged, sizeof forged, off + KITHI_WAL_BLOCK), sizeof forged);
        memcpy(true_one, forged, sizeof true_one);
        struct kithi_wal_group_header h;
        assert_int_equal(kithi_wal_group_header_decode(true_one, history_uid, kithi_get64(true_one + 24), &h),
                         KITHI_WAL_OK);
        h.number = report.last_number;
        kithi_wal_group_header_encode(true_one, &h);
        assert_int_equal(pwrite(fd, true_one, sizeof true_one, off + KITHI_WAL_BLOCK), sizeof true_one);
        assert_int_equal(kithi_wal_scan(&o, &report, &err), KITHI_E_LOG_DAMAGED);
        assert_int_equal(pwrite(fd, forged, sizeof forged, off + KITHI_WAL_BLOCK), sizeof forged);
        close(fd);
        report = kept;
    }
    kithi_io_free(io);
    test_dir_remove(&dir);
}

static void a_start_waits_for_the_lock_of_its_predecessor(void **state)
{
    (void)state;
    struct log l;
    open_real(&l);
    assert_int_equal(kithi_wal_settle(l.dir.path, 50, NULL, &l.err), KITHI_E_BUSY);
    assert_non_null(strstr(l.err.text, "00000000000000000001.wal"));
    close_log(&l);
    assert_int_equal(kithi_wal_settle(l.dir.path, 5000, NULL, &l.err), 0);
    assert_int_equal(kithi_wal_settle(test_path(&l.dir, "none"), 0, NULL, &l.err), 0);
    close_all(&l);
}

static void a_directory_that_is_missing_is_an_error_that_names_it(void **state)
{
    (void)state;
    struct kithi_io *io = NULL;
    struct kithi_wal *wal = NULL;
    struct kithi_wal_report report = { 0 };
    struct kithi_errmsg err;
    assert_int_equal(kithi_io_open(KITHI_IO_THREADS, &io, &err), 0);
    assert_int_equal(history_open(io, "/nonexistent/wal", 0, &report, &wal, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/wal"));
    kithi_wal_close(NULL);
    kithi_io_free(io);
}

/* ---- on the simulated disk ---- */

struct order {
    struct kithi_wal *wal;
    uint64_t told; /* groups whose done was called */
};

struct order_group {
    struct order *order;
    uint64_t epoch;
    struct order_group *next; /* to be appended from done */
};

static void order_done(void *arg, int status)
{
    struct order_group *g = arg;
    struct order *o = g->order;
    assert_int_equal(status, 0);
    assert_int_equal(g->epoch, o->told + 1); /* in order */
    assert_true(kithi_wal_durable_epoch(o->wal) >= g->epoch);
    o->told = g->epoch;
    if (g->next) {
        uint64_t op[14] = { 0 };
        struct iovec v = { op, sizeof op };
        assert_int_equal(kithi_wal_append(o->wal, g->next->epoch, &v, 1, 1, order_done, g->next), 0);
    }
}

static uint64_t durable_of[64];

static int note_durable(void *arg, const struct kithi_wal_group *g)
{
    (void)arg;
    durable_of[g->epoch] = g->durable_epoch;
    return 0;
}

/* Also from inside done, which is called after the next write went out; and whichever of two writes is done first. */
static void gather(uint64_t seed)
{
    struct log l;
    struct kithi_wal_stats stats;
    struct order o = { 0 };
    struct order_group g[20];
    open_simulated(&l, seed, 1u << 20);
    o.wal = l.wal;
    uint64_t op[14] = { 0 };
    struct iovec v = { op, sizeof op };
    for (unsigned i = 0; i < 20; i++)
        g[i] = (struct order_group){ .order = &o, .epoch = i + 1 };
    /* 1 and 2 go out; 3 to 10 gather; 11 to 19 are appended by the first nine that are told. */
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(kithi_wal_append(l.wal, i + 1, &v, 1, 1, order_done, &g[i]), 0);
    for (unsigned i = 0; i < 9; i++)
        g[i].next = &g[i + 10];
    finish(&l);
    assert_int_equal(o.told, 19);
    kithi_wal_stats(l.wal, &stats);
    assert_int_equal(stats.groups, 19);
    assert_int_equal(stats.last_epoch, 19);
    assert_int_equal(stats.bytes, 19 * sizeof op);
    assert_in_range(stats.writes, 4, 6); /* 1, 2, 3 to 10, and the others as they came */
    assert_int_equal(kithi_sim_stop(l.io), 0);
    close_log(&l);
    kithi_sim_start(l.io);
    struct kithi_wal_scan_opts so = { .dir = l.dir.path, .fn = note_durable };
    memcpy(so.uid, history_uid, 16);
    assert_int_equal(kithi_wal_scan(&so, &l.report, &l.err), 0);
    assert_int_equal(l.report.last_epoch, 19);
    assert_true(durable_of[1] == 0 && durable_of[2] == 0);
    for (uint64_t e = 3; e <= 19; e++) {
        assert_true(durable_of[e] >= durable_of[e - 1] && durable_of[e] < e);
        assert_true(e > 10 || (durable_of[e] == durable_of[3] && durable_of[e] >= 1));
        assert_true(e <= 10 || durable_of[e] >= 2); /* no third one is under way */
    }
    const uint64_t unproven = 19 - durable_of[19];
    assert_int_equal(l.report.tail_epoch, durable_of[19] + 1);
    assert_int_equal(l.report.tail_size, unproven * 4096);
    /* The next start writes all of them anew, not the last alone. */
    char name[KITHI_WAL_NAME_SIZE];
    kithi_wal_file_name(name, l.report.tail_epoch);
    assert_int_equal(history_open(l.io, l.dir.path, 1u << 20, &l.report, &l.wal, &l.err), 0);
    kithi_wal_stats(l.wal, &stats);
    assert_string_equal(stats.file, name);
    assert_int_equal(stats.file_off, (1 + unproven) * 4096);
    close_all(&l);
}

/* Two writes are under way and a group gathers. Whichever fails, nothing is written after that, and nothing acknowledged. */
static void after_one_of_two_writes_has_failed_nothing_is_written(void **state)
{
    (void)state;
    unsigned second_first = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct log l;
        open_simulated(&l, seed, 1u << 20);
        for (uint64_t epoch = 1; epoch <= 3; epoch++)
            assert_int_equal(history_append(l.wal, epoch, 3, &l.a), 0);
        kithi_sim_fail_at(l.io, 1, EIO, false);
        uint64_t ops = kithi_sim_ops(l.io);
        assert_int_equal(kithi_io_run(l.io, 0), 1);
        second_first += l.a.failed == 0; /* the first one is still under way */
        assert_int_equal(history_append(l.wal, 4, 3, &l.a), KITHI_E_LOG_FAILED);
        while (kithi_wal_busy(l.wal))
            assert_int_equal(kithi_io_run(l.io, 0), 1);
        assert_int_equal(kithi_sim_ops(l.io), ops + 2);
        assert_int_equal(l.a.acked, 0);
        assert_int_equal(l.a.failed, 3);
        assert_false(l.a.disorder);
        close_all(&l);
    }
    assert_true(second_first > 0 && second_first < 40);
}

static void groups_that_gather_go_out_by_one_write_in_their_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++)
        gather(seed);
}

static void what_gathers_has_a_limit_and_the_log_goes_on_after_it(void **state)
{
    (void)state;
    struct log l;
    struct kithi_wal_stats stats;
    const size_t len = 1u << 20;
    uint64_t *big = calloc(1, 2 * KITHI_WAL_WRITE_BYTES);
    open_simulated(&l, 1, 64u << 20);
    uint64_t epoch = 1;
    struct iovec v = { big, 8 * 14 };
    for (unsigned i = 0; i < KITHI_WAL_WRITES + KITHI_WAL_WRITE_GROUPS; i++)
        assert_int_equal(kithi_wal_append(l.wal, epoch++, &v, 1, 1, history_done, &l.a), 0);
    assert_int_equal(kithi_wal_append(l.wal, epoch, &v, 1, 1, history_done, &l.a), -EBUSY);
    while (l.a.acked == 0)
        kithi_io_run(l.io, 0);
    assert_in_range(l.a.acked, 1, KITHI_WAL_WRITES);
    while (l.a.acked < KITHI_WAL_WRITES)
        kithi_io_run(l.io, 0);
    v.iov_len = len; /* with their headers seven fit into a write; there may be a second one under way */
    unsigned taken = 0;
    int r;
    while ((r = kithi_wal_append(l.wal, epoch, &v, 1, 1, history_done, &l.a)) == 0) {
        taken++;
        epoch++;
    }
    assert_int_equal(r, -EBUSY);
    assert_in_range(taken, 7, 8);
    while (l.a.acked < KITHI_WAL_WRITES + KITHI_WAL_WRITE_GROUPS + taken)
        kithi_io_run(l.io, 0);
    v.iov_len = 8 * 14;
    assert_int_equal(kithi_wal_append(l.wal, epoch++, &v, 1, 1, history_done, &l.a), 0);
    v.iov_len = 2 * KITHI_WAL_WRITE_BYTES; /* alone it may be larger, and begins a file behind that one */
    assert_int_equal(kithi_wal_append(l.wal, epoch++, &v, 1, 1, history_done, &l.a), 0);
    v.iov_len = 8 * 14;
    assert_int_equal(kithi_wal_append(l.wal, epoch, &v, 1, 1, history_done, &l.a), -EBUSY);
    finish(&l);
    assert_int_equal(l.a.acked, epoch - 1);
    kithi_wal_stats(l.wal, &stats);
    assert_in_range(stats.writes, 6, 7);
    assert_int_equal(stats.groups, epoch - 1);
    close_all(&l);
    free(big);
}

/* A write goes to one file: what gathered before the group that begins the next one goes first. */
static void groups_that_gather_reach_over_files(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 32; seed++) {
        struct test_dir dir;
        struct kithi_io *io = NULL;
        struct kithi_wal *wal = NULL;
        struct kithi_wal_report report = { 0 };
        struct kithi_wal_stats stats;
        struct kithi_errmsg err;
        struct history_ack a = { 0 };
        struct history h = { 0 };
        uint64_t epoch = 1;
        test_dir_make_shm(&dir);
        assert_int_equal(kithi_sim_open(dir.path, seed, &io), 0);
        assert_int_equal(history_open(io, dir.path, FILE_SIZE, &report, &wal, &err), 0);
        while (epoch <= 300) {
            int r = history_append(wal, epoch, 3, &a);
            assert_true(r == 0 || r == -EBUSY);
            epoch += r == 0;
            if (r == -EBUSY) /* as many as will go in between */
                assert_int_equal(kithi_io_run(io, 0), 1);
        }
        while (kithi_wal_busy(wal))
            kithi_io_run(io, 0);
        assert_int_equal(a.acked, 300);
        kithi_wal_stats(wal, &stats);
        assert_true(stats.files > 8);
        assert_true(stats.writes < 60);
        assert_int_equal(kithi_sim_crash(io), 0);
        kithi_wal_close(wal);
        assert_int_equal(history_scan(dir.path, 3, 0, 300, &h, &report, &err), 0);
        assert_false(h.wrong);
        assert_int_equal(h.groups, 300);
        kithi_io_free(io);
        test_dir_remove(&dir);
    }
}

static void after_a_failed_write_the_log_takes_nothing_more(void **state)
{
    (void)state;
    struct log l;
    open_simulated(&l, 1, FILE_SIZE);
    write_groups(l.io, l.wal, 1, 2, 1);
    assert_null(kithi_wal_failure(l.wal));
    kithi_sim_fail_at(l.io, 1, EIO, false);
    assert_int_equal(history_append(l.wal, 3, 1, &l.a), 0);
    assert_int_equal(history_append(l.wal, 4, 1, &l.a), 0);
    assert_int_equal(history_append(l.wal, 5, 1, &l.a), 0);
    while (kithi_io_run(l.io, 0) > 0)
        ;
    assert_int_equal(l.a.acked, 0);
    assert_int_equal(l.a.failed, 3);
    assert_false(kithi_wal_busy(l.wal));
    assert_int_equal(kithi_wal_durable_epoch(l.wal), 2);
    assert_int_equal(history_append(l.wal, 6, 1, &l.a), KITHI_E_LOG_FAILED);
    assert_int_equal(kithi_wal_failure(l.wal)->code, KITHI_E_LOG_FAILED);
    assert_non_null(strstr(kithi_wal_failure(l.wal)->text, "EIO"));
    close_all(&l);
}

static void no_space_for_the_next_file_refuses_the_group_and_keeps_the_log(void **state)
{
    (void)state;
    struct log l;
    const size_t len = 2 * FILE_SIZE;
    uint8_t *big = calloc(1, len);
    struct iovec v = { big, len };
    open_simulated(&l, 1, FILE_SIZE);
    write_groups(l.io, l.wal, 1, 2, 1);
    kithi_sim_fail_at(l.io, 2, ENOSPC, false); /* create succeeds, allocate does not */
    assert_int_equal(kithi_wal_append(l.wal, 3, &v, 1, 1, history_done, &l.a), -ENOSPC);
    assert_null(kithi_wal_failure(l.wal));
    write_groups(l.io, l.wal, 3, 4, 1);
    assert_int_equal(kithi_wal_append(l.wal, 5, &v, 1, 1, history_done, &l.a), 0);
    finish(&l);
    assert_int_equal(l.a.acked, 1);
    close_all(&l);
    free(big);
}

/* A group that needs the next file while it is being made is not taken on trust. */
static void no_space_for_a_file_made_ahead_refuses_the_group_and_keeps_the_log(void **state)
{
    (void)state;
    unsigned refused = 0;
    const size_t len = FILE_SIZE * 3 / 4;
    uint8_t *most = calloc(1, len);
    struct iovec v = { most, len };
    for (uint64_t seed = 1; seed <= 16; seed++) { /* orders of completion */
        struct log l;
        open_simulated(&l, seed, FILE_SIZE);
        assert_int_equal(kithi_wal_append(l.wal, 1, &v, 1, 1, history_done, &l.a), 0);
        finish(&l);
        int r = kithi_wal_append(l.wal, 2, &v, 1, 1, history_done, &l.a);
        if (r == -EBUSY) {
            refused++;
            kithi_sim_fail_at(l.io, 1, ENOSPC, true);
            while ((r = kithi_wal_append(l.wal, 2, &v, 1, 1, history_done, &l.a)) == -EBUSY)
                assert_int_equal(kithi_io_run(l.io, 0), 1);
            assert_int_equal(r, -ENOSPC);
            assert_null(kithi_wal_failure(l.wal));
            kithi_sim_fail_at(l.io, 0, 0, false);
            r = kithi_wal_append(l.wal, 2, &v, 1, 1, history_done, &l.a);
        }
        assert_int_equal(r, 0);
        finish(&l);
        assert_int_equal(l.a.acked, 2);
        while (kithi_io_run(l.io, 0) > 0)
            ;
        close_all(&l);
    }
    assert_in_range(refused, 1, 15);
    free(most);
}

static void a_start_on_a_nearly_full_disk_makes_do_with_a_smaller_file(void **state)
{
    (void)state;
    struct test_dir dir;
    struct kithi_io *io = NULL;
    struct kithi_wal *wal = NULL;
    struct kithi_wal_report report = { 0 };
    struct kithi_errmsg err;
    struct kithi_wal_stats stats;
    struct history_ack a = { 0 };
    const size_t len = 600u << 10; /* two of them are more than the smaller file holds */
    uint8_t *big = calloc(1, len);
    struct iovec v = { big, len };
    test_dir_make(&dir);
    assert_int_equal(kithi_sim_open(dir.path, 1, &io), 0);
    kithi_sim_fail_at(io, 6, ENOSPC,
                      false); /* sync, three looks for what was kept, create succeed, allocate does not */
    assert_int_equal(history_open(io, dir.path, 16u << 20, &report, &wal, &err), 0);
    for (uint64_t e = 1; e <= 2; e++) {
        while (kithi_wal_append(wal, e, &v, 1, 1, history_done, &a) == -EBUSY)
            kithi_io_run(io, 0);
        while (kithi_wal_busy(wal))
            kithi_io_run(io, 0);
    }
    assert_int_equal(a.acked, 2);
    kithi_wal_stats(wal, &stats);
    assert_int_equal(stats.files, 2);
    kithi_wal_close(wal);
    kithi_io_free(io);
    free(big);
    test_dir_remove(&dir);
}

/* One life after another on one disk, each ended by a power failure, a kill or a failing disk. */
static void live_through_crashes(uint64_t seed, uint64_t *recycled)
{
    struct test_dir dir;
    struct kithi_io *io = NULL;
    struct test_rand rand;
    uint64_t acked = 0;           /* highest epoch acknowledged */
    uint64_t given = 0;           /* highest epoch handed over */
    bool quiet = false;           /* the last life ended with nothing on its way */
    uint64_t checkpoint = 0;      /* epoch up to which the log is not needed */
    uint64_t salts[2048] = { 0 }; /* what was written last under an epoch */
    test_rand_seed(&rand, seed);
    test_dir_make_shm(&dir);
    assert_int_equal(kithi_sim_open(dir.path, seed, &io), 0);
    uint64_t file_size = 4 * 4096u + 8192u * test_rand_below(&rand, 8);
    for (int life = 0; life < 6; life++) {
        struct kithi_wal *wal = NULL;
        struct kithi_wal_report report;
        struct kithi_errmsg err;
        struct history h = { .salts = salts };
        struct history_ack a = { 0 };
        int r = history_scan(dir.path, seed, checkpoint, acked, &h, &report, &err);
        if (r != 0 || h.wrong || report.last_epoch < acked || report.last_epoch > given ||
            h.groups != report.last_epoch - checkpoint)
            fail_msg("seed %llu life %d: %d %s; acked %llu, read %llu after %llu, wrong %d",
                     (unsigned long long)seed, life, r, err.text, (unsigned long long)acked,
                     (unsigned long long)report.last_epoch, (unsigned long long)checkpoint, h.wrong);
        if (quiet && (report.torn_file[0] || report.ignored_file[0]))
            fail_msg("seed %llu life %d: nothing was on its way, but %s is torn: %s",
                     (unsigned long long)seed, life, report.torn_file, report.torn_reason);
        /* Whole it is from whatever file on a crash has left. */
        struct kithi_wal_report all;
        if (report.first_epoch > 0 &&
            history_scan(dir.path, seed, report.first_epoch - 1, acked, &h, &all, &err) != 0)
            fail_msg("seed %llu life %d: from its first file on: %s", (unsigned long long)seed, life,
                     err.text);
        /* What was read counts as visible from here on, so it must never be lost either. */
        uint64_t epoch = report.last_epoch;
        bool faulty = test_rand_below(&rand, 3) == 0;
        if (faulty)
            kithi_sim_fail_at(io, 1 + test_rand_below(&rand, 40), test_rand_below(&rand, 2) ? EIO : ENOSPC,
                              test_rand_below(&rand, 2));
        if (test_rand_below(&rand, 4) == 0)
            file_size = 4 * 4096u + 8192u * test_rand_below(&rand, 8);
        r = history_open(io, dir.path, file_size, &report, &wal, &err);
        if (r == 0)
            acked = epoch;
        else
            assert_true(faulty);
        uint32_t steps = test_rand_below(&rand, 90);
        uint32_t burst =
            2 + test_rand_below(&rand, 7); /* groups handed over for each completion, on average, + 1 */
        uint64_t base = epoch;
        for (uint32_t i = 0; r == 0 && i < steps; i++) {
            if (test_rand_below(&rand, 12) == 0 && base + a.acked > checkpoint) {
                checkpoint += 1 + test_rand_below(&rand, (uint32_t)(base + a.acked - checkpoint));
                kithi_wal_trim(io, dir.path, checkpoint, true);
            } else if (test_rand_below(&rand, burst)) {
                uint64_t salt = seed * 8 + (uint64_t)life;
                int taken = history_append(wal, epoch + 1, salt, &a);
                if (taken == 0)
                    salts[epoch + 1] = salt;
                assert_true(taken == 0 || taken == -EBUSY || taken == KITHI_E_LOG_FAILED ||
                            (faulty && taken < 0));
                epoch += taken == 0;
            } else {
                kithi_io_run(io, 0);
            }
        }
        assert_false(a.disorder);
        acked = r == 0 ? base + a.acked : acked;
        given = epoch;
        kithi_sim_fail_at(io, 0, 0, false);
        quiet = r == 0 && !kithi_wal_busy(wal) && !kithi_wal_failure(wal);
        if (r == 0) {
            struct kithi_wal_stats stats;
            kithi_wal_stats(wal, &stats);
            *recycled += stats.recycled;
        }
        bool power = test_rand_below(&rand, 3) != 0;
        assert_int_equal(power ? kithi_sim_crash(io) : kithi_sim_stop(io), 0);
        kithi_wal_close(wal);
        kithi_sim_start(io);
        if (!power)
            assert_int_equal(kithi_sim_settle(io, dir.path), 0);
    }
    kithi_io_free(io);
    test_dir_remove(&dir);
}

static void every_acknowledged_group_survives_crashes(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    uint64_t count = test_long() ? 20000 : 400, recycled = 0;
    for (uint64_t i = 0; i < count; i++)
        live_through_crashes(seed + i, &recycled);
    fprintf(stderr, "%llu recycled files in %llu seeds\n", (unsigned long long)recycled,
            (unsigned long long)count);
    assert_true(recycled > count / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_is_opened_with_groups_from_elsewhere),
        cmocka_unit_test(groups_are_read_as_written_over_files_and_starts_uring),
        cmocka_unit_test(groups_are_read_as_written_over_files_and_starts_threads),
        cmocka_unit_test(a_trimmed_log_is_whole_from_its_checkpoint_on),
        cmocka_unit_test(a_group_larger_than_a_file_gets_one_of_its_size),
        cmocka_unit_test(what_clients_write_is_no_proof_that_a_torn_group_was_durable),
        cmocka_unit_test(a_start_waits_for_the_lock_of_its_predecessor),
        cmocka_unit_test(a_directory_that_is_missing_is_an_error_that_names_it),
        cmocka_unit_test(groups_that_gather_go_out_by_one_write_in_their_order),
        cmocka_unit_test(after_one_of_two_writes_has_failed_nothing_is_written),
        cmocka_unit_test(what_gathers_has_a_limit_and_the_log_goes_on_after_it),
        cmocka_unit_test(groups_that_gather_reach_over_files),
        cmocka_unit_test(after_a_failed_write_the_log_takes_nothing_more),
        cmocka_unit_test(no_space_for_the_next_file_refuses_the_group_and_keeps_the_log),
        cmocka_unit_test(no_space_for_a_file_made_ahead_refuses_the_group_and_keeps_the_log),
        cmocka_unit_test(a_start_on_a_nearly_full_disk_makes_do_with_a_smaller_file),
        cmocka_unit_test(every_acknowledged_group_survives_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
