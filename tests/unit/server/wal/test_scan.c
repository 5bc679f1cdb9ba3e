/*
 * test_scan.c - a torn tail is cut, damage is refused, and nothing is delivered that was
 * never written, whatever happens to the bytes.
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
#include "server/wal/format.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "tests/support/tmp.h"
#include "tests/unit/server/wal/history.h"

#define SALT 3u

static struct test_dir dir;
static struct history h;
static struct kithi_wal_report report;
static struct kithi_errmsg err;

static int setup(void **state)
{
    (void)state;
    test_dir_make_shm(&dir);
    memset(&h, 0, sizeof h);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_dir_remove(&dir);
    return 0;
}

/* The next groups in a life of their own, behind what is in the directory. */
static void write_life(uint64_t file_size, uint64_t count)
{
    assert_int_equal(history_scan(dir.path, SALT, 0, 0, &h, &report, &err), 0);
    assert_int_equal(history_live(dir.path, SALT, file_size, &report, count, &err), 0);
}

static const char *file_of(uint64_t first_epoch)
{
    char name[KITHI_WAL_NAME_SIZE];
    snprintf(name, sizeof name, "%020llu.wal", (unsigned long long)first_epoch);
    return test_path(&dir, name);
}

static uint8_t *load(const char *path, size_t *out_len)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
    close(fd);
    *out_len = (size_t)st.st_size;
    return bytes;
}

static void store(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
}

static int scan(uint64_t after, uint64_t known)
{
    int r = history_scan(dir.path, SALT, after, known, &h, &report, &err);
    assert_false(h.wrong);
    return r;
}

static void no_files_are_an_empty_log_unless_something_was_durable(void **state)
{
    (void)state;
    assert_int_equal(scan(0, 0), 0);
    assert_int_equal(report.last_epoch, 0);
    assert_int_equal(scan(0, 1), KITHI_E_LOG_DAMAGED);
    assert_int_equal(scan(4, 0), KITHI_E_LOG_DAMAGED);
    write_life(65536, 0);
    assert_int_equal(scan(0, 0), 0);
    assert_int_equal(report.files, 1);
    assert_int_equal(scan(0, 1), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "epoch 1 was durable"));
}

static void groups_after_an_epoch_are_delivered(void **state)
{
    (void)state;
    write_life(16384, 60);
    for (uint64_t after = 0; after <= 60; after++) {
        assert_int_equal(scan(after, 60), 0);
        assert_int_equal(h.groups, 60 - after);
        assert_int_equal(report.last_epoch, 60);
        if (after < 60)
            assert_int_equal(h.first, after + 1);
    }
}

static int stop_at_three(void *arg, const struct kithi_wal_group *g)
{
    (void)arg;
    return g->epoch == 3 ? 1234 : 0;
}

static void the_callback_can_end_the_scan(void **state)
{
    (void)state;
    write_life(65536, 5);
    struct kithi_wal_scan_opts o = { .dir = dir.path, .fn = stop_at_three };
    memcpy(o.uid, history_uid, 16);
    assert_int_equal(kithi_wal_scan(&o, &report, &err), 1234);
}

static void a_last_group_torn_anywhere_is_cut_off(void **state)
{
    (void)state;
    write_life(1u << 20, 20);
    assert_int_equal(scan(0, 0), 0);
    uint64_t off = report.tail_off, end = off + report.tail_size;
    size_t len;
    uint8_t *good = load(file_of(1), &len), *torn = malloc(len);
    for (uint64_t cut = off; cut < end; cut += 512) {
        for (int head = 0; head < 2; head++) {
            /* What is behind the cut was not written, or only that was. */
            memcpy(torn, good, len);
            if (head)
                memset(torn + cut, 0, end - cut);
            else
                memset(torn + off, 0, cut + 512 - off);
            store(file_of(1), torn, len);
            bool whole = memcmp(torn, good, len) == 0; /* only zeros were lost */
            assert_int_equal(scan(0, 0), 0);
            assert_int_equal(h.last, whole ? 20 : 19);
            if (whole)
                continue;
            bool zeros = true;
            for (uint64_t i = off; i < end; i++)
                zeros = zeros && torn[i] == 0;
            assert_int_equal(report.torn_file[0] != 0, !zeros);
            if (!zeros) {
                assert_int_equal(report.torn_off, off);
                assert_true(report.torn_end > off && report.torn_end <= end);
            }
            assert_int_equal(scan(0, 19), 0);
            assert_int_equal(scan(0, 20), KITHI_E_LOG_DAMAGED); /* it was durable */
        }
    }
    /* Life goes on behind the cut, and what was cut stays cut. */
    memcpy(torn, good, len);
    memset(torn + off, 0xee, 100);
    store(file_of(1), torn, len);
    write_life(1u << 20, 4);
    assert_int_equal(scan(0, 23), 0);
    assert_int_equal(h.groups, 23);
    assert_string_equal(report.torn_file, "");
    free(good);
    free(torn);
}

/* Group 1 alone, 2 to 6 by one write, and, if asked for, 7 by one of its own. */
static void write_gathered(bool seventh)
{
    struct kithi_io *io = NULL;
    struct kithi_wal *wal = NULL;
    struct history_ack a = { 0 };
    memset(&report, 0, sizeof report);
    assert_int_equal(kithi_sim_open(dir.path, 1, &io), 0);
    assert_int_equal(history_open(io, dir.path, 1u << 17, &report, &wal, &err), 0);
    for (uint64_t e = 1; e <= 6; e++)
        assert_int_equal(history_append(wal, e, SALT, &a), 0);
    while (kithi_wal_busy(wal))
        kithi_io_run(io, 0);
    if (seventh)
        assert_int_equal(history_append(wal, 7, SALT, &a), 0);
    while (kithi_io_run(io, 0) > 0)
        ;
    assert_int_equal(a.acked, seventh ? 7 : 6);
    assert_int_equal(kithi_sim_stop(io), 0);
    kithi_wal_close(wal);
    kithi_io_free(io);
}

/*
 * Any blocks of a write may be there and any missing. With nothing behind it that is a torn write: what is whole
 * before the first gap counts, a whole group behind it proves nothing. With a group behind it that was written
 * when they were durable it is damage.
 */
static void a_write_of_several_groups_torn_in_any_way_is_cut_at_its_first_gap(void **state)
{
    (void)state;
    for (int seventh = 0; seventh < 2; seventh++) {
        size_t len;
        unsigned first[8] = { 0 }, blocks = 0, cut = 0;
        write_gathered(seventh);
        assert_int_equal(scan(0, 0), 0);
        assert_int_equal(report.last_epoch, seventh ? 7 : 6);
        assert_int_equal(report.tail_epoch, seventh ? 7 : 2);
        uint8_t *good = load(file_of(1), &len), *torn = malloc(len);
        for (uint64_t e = 1; e <= 6; e++) /* blocks before the group, counted from the second one's */
            first[e + 1] = blocks +=
                e == 1 ? 0 : (unsigned)(kithi_wal_group_size(history_len(e, SALT)) / 4096);
        assert_in_range(blocks, 6, 12);
        for (unsigned mask = 1; mask < 1u << blocks; mask++) {
            uint64_t whole = 6;
            memcpy(torn, good, len);
            for (unsigned b = 0; b < blocks; b++)
                if (mask >> b & 1)
                    memset(torn + (2 + b) * 4096, (int)(mask & 2) * 0x55, 4096);
            for (uint64_t e = 6; e >= 2; e--)
                if (mask >> first[e] & ((1u << (first[e + 1] - first[e])) - 1))
                    whole = e - 1;
            store(file_of(1), torn, len);
            assert_int_equal(scan(0, 0), seventh ? KITHI_E_LOG_DAMAGED : 0);
            if (seventh)
                continue;
            assert_int_equal(report.last_epoch, whole);
            cut += strstr(report.torn_reason, "group 6 behind it was on its way beside it") != NULL;
            assert_int_equal(scan(0, whole), 0);
            assert_int_equal(scan(0, whole + 1), KITHI_E_LOG_DAMAGED);
        }
        assert_int_equal(seventh, cut == 0);
        store(file_of(1), good, len);
        free(good);
        free(torn);
        assert_int_equal(unlink(file_of(1)), 0);
    }
}

/* What stands behind the cut stays cut when the log goes on, and is taken for nothing later. */
static void the_log_goes_on_behind_a_torn_write_of_several_groups(void **state)
{
    (void)state;
    size_t len;
    write_gathered(false);
    uint8_t *bytes = load(file_of(1), &len);
    memset(bytes + 4 * 4096, 0xee, 600); /* group 4; 5 and 6 are whole */
    store(file_of(1), bytes, len);
    assert_int_equal(scan(0, 0), 0);
    assert_int_equal(report.last_epoch, 3);
    assert_int_equal(report.tail_epoch, 2); /* 2 and 3 */
    write_life(1u << 17, 1);
    assert_int_equal(scan(0, 4), 0);
    assert_int_equal(h.groups, 4);
    assert_int_equal(report.files, 2);
    assert_string_equal(report.tail_file, "00000000000000000002.wal");
    assert_int_equal(report.tail_epoch, 4);
    write_life(1u << 17, 0);
    write_life(1u << 17, 3);
    assert_int_equal(scan(0, 7), 0);
    assert_int_equal(h.groups, 7);
    assert_string_equal(report.torn_file, "");
    free(bytes);
}

/* One byte more of group 2 as it stands in the second file is not what was written, or a sector; or all of it went. */
static void spoil(uint8_t *bytes, size_t case_off)
{
    if (case_off % 1024 == 0)
        bytes[4096 + case_off] ^= 0x10;
    else
        memset(bytes + 4096 + case_off, case_off % 1536 ? 0 : 0xee, 512);
}

/*
 * Groups 2 to 6 were written anew by a start, into a second file; 7 and later ones by themselves, in `lives` lives. Then the second
 * file's group 2 is damaged. It still stands in the first one, and is taken from there; what comes behind it is taken from where it is.
 * The next start writes all of it anew, if it is the last file.
 */
static void go_on_from_its_first_place(uint64_t file_size, unsigned lives, bool last_file)
{
    for (size_t off = 0; off <= 4096; off += 512) {
        size_t len, rest;
        uint64_t last = 6;
        test_dir_remove(&dir);
        test_dir_make_shm(&dir);
        write_gathered(false);
        for (unsigned i = 0; i < lives; i++, last += 3)
            write_life(file_size, 3);
        if (lives == 0)
            write_life(file_size, 0);
        uint8_t *good = load(file_of(2), &len), *bytes = load(file_of(2), &len);
        uint8_t *first = load(file_of(1), &rest);
        const uint64_t at = 4096 + kithi_wal_group_size(history_len(1, SALT));
        if (off < 4096)
            spoil(bytes, off);
        else /* the group of another file */
            memcpy(bytes + 4096, first + at, 4096);
        if (memcmp(good, bytes, len) == 0) { /* padding: zeros before and after */
            free(first);
            free(good);
            free(bytes);
            continue;
        }
        store(file_of(2), bytes, len);
        for (uint64_t after = 0; after < last; after++) {
            assert_int_equal(scan(after, 0), 0);
            assert_int_equal(report.last_epoch, last);
            assert_int_equal(h.groups, last - after);
            assert_string_equal(report.torn_file, "");
            if (report.spoilt_file[0] == '\0') { /* it had not to be read */
                assert_true(after >= 2);
                continue;
            }
            assert_string_equal(report.spoilt_file, "00000000000000000002.wal");
            assert_int_equal(report.spoilt_epoch, 2);
            assert_int_equal(report.spoilt_off, 4096);
            assert_int_equal(report.spoilt_end, 2 * 4096);
        }
        assert_int_equal(scan(0, 0), 0);
        assert_string_not_equal(report.spoilt_file, "");
        write_life(file_size, 1);
        assert_int_equal(scan(0, last + 1), 0);
        assert_int_equal(h.groups, last + 1);
        assert_int_equal(report.spoilt_file[0] == '\0', last_file);
        /* In its first place it is damaged, too: durable it was, as what comes behind says, if anything does. */
        store(file_of(2), bytes, len);
        first[at + 200] ^= 1;
        store(file_of(1), first, rest);
        if (lives > 0) {
            assert_int_equal(scan(0, 0), KITHI_E_LOG_DAMAGED);
        } else {
            assert_int_equal(scan(0, 0), 0);
            assert_int_equal(report.last_epoch, 1);
            assert_string_equal(report.torn_file, "00000000000000000002.wal");
        }
        free(first);
        free(good);
        free(bytes);
    }
}

static void a_group_that_was_written_anew_and_damaged_there_is_read_where_it_stood(void **state)
{
    (void)state;
    go_on_from_its_first_place(1u << 17, 0, true);
    go_on_from_its_first_place(1u << 17, 1, true);
    go_on_from_its_first_place(1u << 17, 3, false); /* starts have begun files since */
    go_on_from_its_first_place(3u << 13, 1, false); /* or the log was at the end of one */
}

static void every_flipped_bit_is_seen(void **state)
{
    (void)state;
    write_life(5 * 4096, 3);
    assert_int_equal(scan(0, 0), 0);
    uint64_t tail = report.tail_off;
    size_t len;
    uint8_t *bytes = load(file_of(1), &len);
    int fd = open(file_of(1), O_RDWR);
    assert_int_equal(len, 5 * 4096);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        uint8_t flipped = bytes[bit / 8] ^ (uint8_t)(1u << bit % 8);
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)(bit / 8)), 1);
        int r = scan(0, 0);
        size_t at = bit / 8;
        if (at < tail)
            assert_int_equal(r, KITHI_E_LOG_DAMAGED);
        else
            assert_int_equal(r, 0);
        if (at >= tail)
            assert_int_equal(h.last, at < tail + 4096 ? 2 : 3);
        if (at >= tail && at < tail + 4096)
            assert_int_equal(scan(0, 3), KITHI_E_LOG_DAMAGED);
        assert_int_equal(pwrite(fd, &bytes[at], 1, (off_t)at), 1);
    }
    close(fd);
    free(bytes);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    write_life(5 * 4096, 3);
    size_t len;
    uint8_t *bytes = load(file_of(1), &len);
    for (size_t keep = 0; keep < len; keep++) {
        store(file_of(1), bytes, keep);
        assert_int_equal(scan(0, 0), KITHI_E_LOG_DAMAGED);
        assert_int_equal(h.groups, 0);
        assert_non_null(strstr(err.text, "the file has been cut off: it has "));
    }
    store(file_of(1), bytes, len);
    assert_int_equal(scan(0, 3), 0);
    store(file_of(1), bytes, 16384);
    assert_int_equal(scan(0, 0), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text,
                           "00000000000000000001.wal at byte 16384: the file has been cut off: it has "
                           "16384 bytes, and was made with 20480"));
    free(bytes);
}

static void damage_before_the_end_is_refused_with_its_place(void **state)
{
    (void)state;
    write_life(1u << 20, 20);
    size_t len;
    uint8_t *bytes = load(file_of(1), &len);
    memset(bytes + 4096, 0, 4096); /* the first group */
    store(file_of(1), bytes, len);
    assert_int_equal(scan(0, 0), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "00000000000000000001.wal at byte 4096: group 1 was expected"));
    free(bytes);
}

static void damage_in_a_file_that_is_not_the_last_is_refused(void **state)
{
    (void)state;
    write_life(16384, 60);
    struct kithi_wal_report whole;
    assert_int_equal(scan(0, 0), 0);
    whole = report;
    assert_true(whole.files > 10);
    size_t len;
    uint8_t *bytes = load(file_of(1), &len);
    for (size_t at = 0; at < len; at += 512) {
        bytes[at] ^= 0x10;
        store(file_of(1), bytes, len);
        int r = scan(0, 0);
        assert_true(r == KITHI_E_LOG_DAMAGED ||
                    (r == 0 && h.groups == 60)); /* preallocated, unused bytes are no matter */
        bytes[at] ^= 0x10;
    }
    store(file_of(1), bytes, len);
    free(bytes);
    assert_int_equal(scan(0, 0), 0);
}

static void missing_files_are_noticed(void **state)
{
    (void)state;
    write_life(16384, 60);
    assert_int_equal(scan(0, 0), 0);
    char last[KITHI_WAL_NAME_SIZE + TEST_PATH_SIZE];
    snprintf(last, sizeof last, "%s/%s", dir.path, report.tail_file);
    uint64_t middle = 0;
    for (uint64_t e = 2; e < 30 && !middle; e++)
        if (access(file_of(e), F_OK) == 0)
            middle = e;
    char kept[TEST_PATH_SIZE + 8];
    snprintf(kept, sizeof kept, "%s/kept", dir.path);

    rename(file_of(1), kept);
    assert_int_equal(scan(0, 0), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "files are missing"));
    assert_int_equal(scan(middle - 1, 0), 0); /* they are not needed then */
    rename(kept, file_of(1));

    rename(file_of(middle), kept);
    assert_int_equal(scan(0, 0), KITHI_E_LOG_DAMAGED);
    rename(kept, file_of(middle));

    rename(last, kept);
    assert_int_equal(scan(0, 60), KITHI_E_LOG_DAMAGED);
    rename(kept, last);
    assert_int_equal(scan(0, 60), 0);
}

static void a_foreign_log_is_refused_by_name(void **state)
{
    (void)state;
    write_life(65536, 3);
    struct kithi_wal_scan_opts o = { .dir = dir.path, .uid = { 9 } };
    assert_int_equal(kithi_wal_scan(&o, &report, &err), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "belongs to another collection (uid 6b010203"));
}

static void a_later_version_is_refused_as_such(void **state)
{
    (void)state;
    write_life(65536, 3);
    size_t len;
    uint8_t *bytes = load(file_of(1), &len);
    for (int place = 0; place < 2; place++) {
        size_t at = place ? 4096 : 0, crc = place ? 124 : 4092;
        bytes[at + 4]++;
        kithi_put32(bytes + at + crc, kithi_crc32c(0, bytes + at, crc));
        store(file_of(1), bytes, len);
        assert_int_equal(scan(0, 0), KITHI_E_VERSION);
        bytes[at + 4]--;
        kithi_put32(bytes + at + crc, kithi_crc32c(0, bytes + at, crc));
    }
    store(file_of(1), bytes, len);
    assert_int_equal(scan(0, 0), 0);
    free(bytes);
}

static void a_last_file_that_was_being_made_is_ignored(void **state)
{
    (void)state;
    uint8_t zeros[8192] = { 0 };
    write_life(65536, 3);
    for (size_t len = 4096; len <= sizeof zeros; len += 1024) {
        store(file_of(4), zeros, len);
        assert_int_equal(scan(0, 3), 0);
        assert_int_equal(h.groups, 3);
        assert_string_equal(report.ignored_file, "00000000000000000004.wal");
    }
    /* The name says that group 8 was durable before the file was made. */
    store(file_of(9), zeros, sizeof zeros);
    unlink(file_of(4));
    assert_int_equal(scan(0, 0), KITHI_E_LOG_DAMAGED);
    unlink(file_of(9));
    /* The next start removes it. */
    store(file_of(4), zeros, sizeof zeros);
    write_life(65536, 0);
    assert_int_not_equal(access(file_of(4), F_OK), 0);
    assert_int_equal(scan(0, 3), 0);
    assert_string_equal(report.ignored_file, "");
}

static void a_bad_file_header_before_groups_is_damage(void **state)
{
    (void)state;
    write_life(65536, 3);
    size_t len;
    uint8_t *bytes = load(file_of(1), &len);
    memset(bytes, 0, 4096);
    store(file_of(1), bytes, len);
    assert_int_equal(scan(0, 0), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "file header is bad"));
    free(bytes);
}

static void groups_of_another_file_are_never_delivered(void **state)
{
    (void)state;
    write_life(65536, 3);
    size_t len;
    uint8_t *bytes = load(file_of(1), &len);
    struct kithi_wal_group_header g;
    const uint64_t number = kithi_get64(bytes + 24);
    assert_int_equal(kithi_wal_group_header_decode(bytes + 3 * 4096, history_uid, number, &g), KITHI_WAL_OK);
    g.number = number + 1;
    kithi_wal_group_header_encode(bytes + 3 * 4096, &g);
    store(file_of(1), bytes, len);
    assert_int_equal(scan(0, 0), 0);
    assert_int_equal(h.last, 2);
    assert_string_equal(report.torn_reason, "the group belongs to another file");
    free(bytes);
}

static void what_is_not_a_file_is_refused_and_other_names_are_passed_over(void **state)
{
    (void)state;
    write_life(65536, 3);
    store(test_path(&dir, "notes.txt"), "x", 1);
    store(test_path(&dir, "1.wal"), "x", 1);
    store(test_path(&dir, "99999999999999999999.wal"), "x", 1); /* not a 64-bit number */
    assert_int_equal(scan(0, 3), 0);
    assert_int_equal(mkfifo(file_of(4), 0600), 0);
    assert_int_equal(scan(0, 3), -EINVAL);
    unlink(file_of(4));
    assert_int_equal(symlink("/etc/passwd", file_of(4)), 0);
    assert_int_equal(scan(0, 3), -ELOOP);
}

#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLAIM(no_files_are_an_empty_log_unless_something_was_durable),
        CLAIM(groups_after_an_epoch_are_delivered),
        CLAIM(the_callback_can_end_the_scan),
        CLAIM(a_last_group_torn_anywhere_is_cut_off),
        CLAIM(a_write_of_several_groups_torn_in_any_way_is_cut_at_its_first_gap),
        CLAIM(the_log_goes_on_behind_a_torn_write_of_several_groups),
        CLAIM(a_group_that_was_written_anew_and_damaged_there_is_read_where_it_stood),
        CLAIM(every_flipped_bit_is_seen),
        CLAIM(every_truncation_is_refused),
        CLAIM(damage_before_the_end_is_refused_with_its_place),
        CLAIM(damage_in_a_file_that_is_not_the_last_is_refused),
        CLAIM(missing_files_are_noticed),
        CLAIM(a_foreign_log_is_refused_by_name),
        CLAIM(a_later_version_is_refused_as_such),
        CLAIM(a_last_file_that_was_being_made_is_ignored),
        CLAIM(a_bad_file_header_before_groups_is_damage),
        CLAIM(groups_of_another_file_are_never_delivered),
        CLAIM(what_is_not_a_file_is_refused_and_other_names_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
