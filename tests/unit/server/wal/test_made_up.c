/*
 * test_made_up.c - logs that nobody wrote, all of whose checksums are right: what is read of them is refused with its place, or is
 * what the rules of WAL.md make of it, and a salvage keeps no more than a start reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/wal/files.h"
#include "server/wal/format.h"
#include "server/wal/salvage.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/wire/op.h"
#include "tests/support/tmp.h"

#define BLOCK  KITHI_WAL_BLOCK
#define BLOCKS 16u

static const uint8_t uid[16] = { 7, 7, 7 }, other[16] = { 8 };
static struct test_dir dir;
static struct kithi_errmsg err;
static struct kithi_wal_damage damage;
static struct kithi_wal_report report;
static uint8_t file[BLOCKS * BLOCK];

static int setup(void **state)
{
    (void)state;
    test_dir_make_shm(&dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_dir_remove(&dir);
    return 0;
}

/* A file of so many blocks, empty but for its header, in `file`. */
static struct kithi_wal_file_header begin(uint64_t number, uint64_t first_epoch, unsigned blocks)
{
    struct kithi_wal_file_header h = { .number = number,
                                       .first_epoch = first_epoch,
                                       .timeline = 5,
                                       .size = (uint64_t)blocks * BLOCK,
                                       .write_max = BLOCK };
    memcpy(h.uid, uid, sizeof h.uid);
    memset(file, 0, sizeof file);
    kithi_wal_file_header_encode(file, &h);
    return h;
}

/* A group of len bytes of ops at a block. */
static void put_group(unsigned block, uint64_t number, uint64_t epoch, uint64_t durable_epoch, uint32_t len)
{
    uint8_t *p = file + (size_t)block * BLOCK;
    size_t size = (size_t)kithi_wal_group_size(len);
    struct kithi_wal_group_header h = { .number = number,
                                        .epoch = epoch,
                                        .durable_epoch = durable_epoch,
                                        .timeline = 5,
                                        .len = len,
                                        .n_ops = 1 };
    memcpy(h.uid, uid, sizeof h.uid);
    memset(p, 0, size);
    memset(p + KITHI_WAL_GROUP_HEADER, (int)epoch, len);
    h.crc = kithi_crc32c(0, p + KITHI_WAL_GROUP_HEADER, size - KITHI_WAL_GROUP_HEADER);
    kithi_wal_group_header_encode(p, &h);
}

/* Change bytes of a header, and its checksum with them. */
static void change(unsigned block, size_t at, const void *bytes, size_t len)
{
    uint8_t *p = file + (size_t)block * BLOCK;
    const size_t crc = block ? KITHI_WAL_GROUP_HEADER - 4 : BLOCK - 4;
    memcpy(p + at, bytes, len);
    kithi_put32(p + crc, kithi_crc32c(0, p, crc));
}

static void store(uint64_t name_epoch, size_t len)
{
    char name[KITHI_WAL_NAME_SIZE];
    kithi_wal_file_name(name, name_epoch);
    int fd = open(test_path(&dir, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file, len), (ssize_t)len);
    close(fd);
}

static int scan(uint64_t after, uint64_t known)
{
    struct kithi_wal_scan_opts o = {
        .dir = dir.path, .after_epoch = after, .known_durable_epoch = known, .damage = &damage
    };
    memcpy(o.uid, uid, sizeof o.uid);
    memset(&damage, 0, sizeof damage);
    memset(&report, 0, sizeof report);
    return kithi_wal_scan(&o, &report, &err);
}

static void assert_damaged(uint64_t off, const char *says)
{
    if (scan(0, 0) != KITHI_E_LOG_DAMAGED || !strstr(err.text, says) || !strstr(damage.what, says) ||
        damage.off != off)
        fail_msg("byte %llu, expected %llu and \"%s\": %s", (unsigned long long)damage.off,
                 (unsigned long long)off, says, err.text);
}

/* What a salvage keeps: groups up to this epoch, and why no more. */
static void assert_kept(uint64_t last_epoch, const char *why)
{
    struct kithi_wal_plan p;
    assert_int_equal(kithi_wal_plan(dir.path, uid, NULL, NULL, &p, &err), 0);
    if (p.last_epoch != last_epoch || !strstr(p.end_reason, why))
        fail_msg("up to %llu: %s", (unsigned long long)p.last_epoch, p.end_reason);
    kithi_wal_plan_fini(&p);
}

static void a_group_that_is_not_the_next_one_is_damage(void **state)
{
    (void)state;
    begin(1, 1, 6);
    put_group(1, 1, 1, 0, 64);
    put_group(2, 1, 3, 1, 64);
    store(1, 6 * BLOCK);
    assert_damaged(2 * BLOCK, "group 3 stands where group 2 was expected");
    assert_kept(1, "group 3 stands where 2 was expected");
    assert_int_equal(damage.expected, 2);
}

static void a_group_of_another_collection_is_damage_but_not_in_recycled_space(void **state)
{
    (void)state;
    uint64_t stale = 77;
    uint16_t version = KITHI_WAL_VERSION + 1;
    struct kithi_wal_file_header h = begin(3, 1, 6);
    put_group(1, 3, 1, 0, 64);
    put_group(2, 3, 2, 1, 64);
    change(2, 8, other, sizeof other);
    store(1, 6 * BLOCK);
    assert_damaged(2 * BLOCK, "belongs to another collection (uid 08000000");
    assert_kept(1, "belongs to another collection");
    /* Where the file was another one before, such a group is of then, unless it has the file's own number. */
    h.recycled = true;
    kithi_wal_file_header_encode(file, &h);
    store(1, 6 * BLOCK);
    assert_damaged(2 * BLOCK, "belongs to another collection");
    change(2, 24, &stale, sizeof stale);
    store(1, 6 * BLOCK);
    assert_int_equal(scan(0, 0), 0);
    assert_int_equal(report.last_epoch, 1);
    assert_string_equal(report.torn_file, "");
    assert_kept(1, "the group belongs to another file");
    /* So is one of a version that is yet to come. */
    put_group(2, 77, 2, 1, 64);
    change(2, 4, &version, sizeof version);
    store(1, 6 * BLOCK);
    assert_int_equal(scan(0, 0), 0);
    assert_int_equal(report.last_epoch, 1);
    put_group(2, 3, 2, 1, 64);
    change(2, 4, &version, sizeof version);
    store(1, 6 * BLOCK);
    assert_int_equal(scan(0, 0), KITHI_E_VERSION);
    struct kithi_wal_plan p;
    assert_int_equal(kithi_wal_plan(dir.path, uid, NULL, NULL, &p, &err), KITHI_E_VERSION);
    kithi_wal_plan_fini(&p);
    for (uint64_t after = 0; after < 2; after++) {
        assert_int_equal(kithi_wal_plan_after(dir.path, uid, after, NULL, NULL, &p, &err), KITHI_E_VERSION);
        kithi_wal_plan_fini(&p);
    }
}

static void a_file_that_ends_inside_a_group_is_torn_there(void **state)
{
    (void)state;
    static const struct {
        size_t more;
        const char *why;
    } ends[] = { { 0, "" },
                 { 60, "the file ends inside a group header" },
                 { 128, "the file ends inside the group" },
                 { BLOCK, "the file ends inside the group" } };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct kithi_wal_file_header h = begin(1, 1, 5);
        put_group(1, 1, 1, 0, 64);
        put_group(2, 1, 2, 1, 2 * BLOCK);
        h.size = 2 * BLOCK + ends[i].more; /* it was made as short as that */
        kithi_wal_file_header_encode(file, &h);
        store(1, h.size);
        assert_int_equal(scan(0, 0), 0);
        assert_int_equal(report.last_epoch, 1);
        assert_string_equal(report.torn_reason, ends[i].why);
        assert_int_equal(report.torn_end, ends[i].more ? h.size : 0);
        assert_int_equal(scan(0, 2), KITHI_E_LOG_DAMAGED);
        assert_kept(1, i < 2 ? "zeros, or the end of the file" : "torn or has a wrong checksum");
    }
}

static void files_of_two_histories_are_not_mixed(void **state)
{
    (void)state;
    begin(5, 1, 4);
    put_group(1, 5, 1, 0, 64);
    put_group(2, 5, 2, 1, 64);
    store(1, 4 * BLOCK);
    begin(5, 3, 4);
    put_group(1, 5, 3, 2, 64);
    store(3, 4 * BLOCK);
    assert_damaged(0, "its number is not above that of the file before it: files of two histories are mixed");
    assert_kept(2, "file number 5 follows 5");
    /* The first group of a file may be the last one of the file before, if it is the same. */
    begin(6, 2, 4);
    put_group(1, 6, 2, 1, 64);
    put_group(2, 6, 3, 2, 64);
    store(3, 4 * BLOCK);
    assert_damaged(0, "the file was made for epoch 2, its name says another");
    assert_int_equal(unlink(test_path(&dir, "00000000000000000003.wal")), 0);
    store(2, 4 * BLOCK);
    assert_int_equal(scan(0, 0), 0);
    assert_int_equal(report.last_epoch, 3);
    assert_int_equal(report.groups, 3);
    assert_kept(3, "");
    static const uint32_t lens[] = { 72, 64 };
    for (size_t i = 0; i < 2; i++) { /* of another length, and of the same length */
        put_group(1, 6, 2, 1, lens[i]);
        file[BLOCK + KITHI_WAL_GROUP_HEADER] ^= 1;
        uint32_t crc = kithi_crc32c(0, file + BLOCK + KITHI_WAL_GROUP_HEADER, BLOCK - KITHI_WAL_GROUP_HEADER);
        change(1, 64, &crc, sizeof crc);
        store(2, 4 * BLOCK);
        assert_damaged(BLOCK, "group 2 differs from the one in the file before it");
        assert_kept(2, "group 2 differs from the one in the file before");
    }
    /* A gap, and an end that lies beyond the next file's beginning. */
    begin(7, 9, 4);
    put_group(1, 7, 9, 8, 64);
    store(9, 4 * BLOCK);
    assert_int_equal(unlink(test_path(&dir, "00000000000000000002.wal")), 0);
    assert_damaged(3 * BLOCK, "group 3 was expected (the file ends here), and the next file begins with 9");
    assert_int_equal(scan(8, 0), KITHI_E_LOG_DAMAGED); /* the last two files are always read through */
}

static void epochs_begin_with_one(void **state)
{
    (void)state;
    begin(1, 0, 4);
    store(0, 4 * BLOCK);
    assert_damaged(0, "the file was made for epoch 0");
    assert_kept(0, "the file was made for epoch 0");
    /* Without a header it is one that was being made. */
    memset(file, 0, BLOCK);
    store(0, 4 * BLOCK);
    assert_int_equal(scan(0, 0), 0);
    assert_int_equal(report.files, 0);
    assert_string_equal(report.ignored_file, "00000000000000000000.wal");
    assert_int_equal(scan(0, 3), KITHI_E_LOG_DAMAGED);
    assert_string_equal(damage.file, "");
    assert_int_equal(damage.expected, 0);
    assert_non_null(strstr(err.text, "no log file is there, but epoch 3 was durable"));
    assert_int_equal(scan(2, 0), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "no log file is there, but epoch 2 was durable"));
}

static void two_files_without_a_header_are_not_what_a_crash_leaves(void **state)
{
    (void)state;
    begin(1, 1, 4);
    put_group(1, 1, 1, 0, 64);
    store(1, 4 * BLOCK);
    memset(file, 0, sizeof file);
    store(2, 4 * BLOCK);
    assert_int_equal(scan(0, 0), 0);
    assert_string_equal(report.ignored_file, "00000000000000000002.wal");
    store(3, 4 * BLOCK);
    assert_damaged(0, "the file header is bad, though another file without one follows it");
    assert_kept(1, "the file header is bad, and so is what follows it");
    /* With a good one behind it it is damage in the middle. */
    begin(2, 3, 4);
    store(3, 4 * BLOCK);
    assert_damaged(0, "the file header is bad: it is all zeros");
    memset(file, 1, BLOCK);
    store(2, 4 * BLOCK);
    assert_damaged(0, "the file header is bad: its checksum is wrong");
}

/* A group that says that a later one was durable when it was written cannot be. */
static void a_group_from_the_future_is_not_kept(void **state)
{
    (void)state;
    begin(1, 1, 6);
    put_group(1, 1, 1, 0, 64);
    put_group(2, 1, 2, 9, 64);
    store(1, 6 * BLOCK);
    assert_kept(1, "group 2 says that a later one was durable");
    assert_int_equal(scan(0, 0), KITHI_E_LOG_DAMAGED);
    assert_non_null(strstr(err.text, "the log ends with epoch 2"));
    assert_non_null(strstr(err.text, "but epoch 9 was durable; kith wal --salvage shows"));
}

/* How far behind a gap the next write may begin is what the header says; a later group there proves that something is missing. */
static void proof_is_looked_for_as_far_as_a_write_reaches(void **state)
{
    (void)state;
    for (unsigned known = 0; known < 2; known++) {
        struct kithi_wal_file_header h = begin(1, 1, 12);
        h.write_max = known ? 2 * BLOCK : 0;
        kithi_wal_file_header_encode(file, &h);
        put_group(1, 1, 1, 0, 64);
        put_group(4, 1, 4, 3, 64);
        store(1, 12 * BLOCK);
        assert_damaged(2 * BLOCK, "proves that it was durable");
        assert_kept(1, "group 2 was expected");
        memset(file + 4 * BLOCK, 0, BLOCK);
        put_group(9, 1, 9, 8, 64); /* farther than the longest write */
        store(1, 12 * BLOCK);
        if (known) {
            assert_int_equal(scan(0, 0), 0);
            assert_int_equal(report.last_epoch, 1);
        } else {
            assert_damaged(2 * BLOCK, "proves that it was durable");
        }
    }
}

/* A log that goes on from a checkpoint: its group may stand anywhere in a file, and be found or not. */
static void a_beginning_in_the_middle_is_the_group_itself(void **state)
{
    (void)state;
    struct kithi_wal_plan p;
    uint8_t zeros[16] = { 0 };
    begin(4, 1, 12);
    put_group(1, 4, 1, 0, 64);
    put_group(2, 3, 3, 2, 64); /* what was in this space before */
    put_group(3, 4, 2, 1, 3 * BLOCK);
    put_group(7, 4, 3, 2, 64);
    store(1, 12 * BLOCK);
    assert_int_equal(kithi_wal_plan_after(dir.path, uid, 1, NULL, NULL, &p, &err), 0);
    assert_int_equal(p.first_epoch, 2);
    assert_int_equal(p.last_epoch, 3);
    assert_int_equal(p.groups, 2);
    kithi_wal_plan_fini(&p);
    assert_int_equal(kithi_wal_plan_after(dir.path, uid, 5, NULL, NULL, &p, &err), 0);
    assert_int_equal(p.groups, 0);
    assert_int_equal(p.file_count, 1); /* begun and empty behind the checkpoint */
    assert_non_null(strstr(p.end_reason, "group 6 is nowhere in it"));
    kithi_wal_plan_fini(&p);
    change(0, 8, other, sizeof other);
    store(1, 12 * BLOCK);
    assert_int_equal(kithi_wal_plan_after(dir.path, uid, 1, NULL, NULL, &p, &err), 0);
    assert_int_equal(p.groups, 0);
    assert_non_null(strstr(p.end_reason, "the file belongs to another collection"));
    kithi_wal_plan_fini(&p);
    change(0, 8, zeros, sizeof zeros);
    uint16_t version = KITHI_WAL_VERSION + 1;
    change(0, 4, &version, sizeof version);
    store(1, 12 * BLOCK);
    assert_int_equal(kithi_wal_plan_after(dir.path, uid, 1, NULL, NULL, &p, &err), KITHI_E_VERSION);
    kithi_wal_plan_fini(&p);
    /* A file whose header is bad is looked through all the same. */
    memset(file, 9, BLOCK);
    store(1, 12 * BLOCK);
    assert_int_equal(kithi_wal_plan_after(dir.path, uid, 1, NULL, NULL, &p, &err), 0);
    assert_int_equal(p.last_epoch, 3);
    kithi_wal_plan_fini(&p);
    /* The log begins later than that. */
    begin(4, 7, 4);
    put_group(1, 4, 7, 6, 64);
    assert_int_equal(unlink(test_path(&dir, "00000000000000000001.wal")), 0);
    store(7, 4 * BLOCK);
    assert_int_equal(kithi_wal_plan_after(dir.path, uid, 1, NULL, NULL, &p, &err), 0);
    assert_non_null(strstr(p.end_reason, "the log begins with epoch 7 only"));
    assert_int_equal(p.lost_epoch, 7);
    kithi_wal_plan_fini(&p);
    assert_int_equal(unlink(test_path(&dir, "00000000000000000007.wal")), 0);
    assert_int_equal(kithi_wal_plan_after(dir.path, uid, 1, NULL, NULL, &p, &err), 0);
    assert_non_null(strstr(p.end_reason, "there is no log file"));
    assert_true(kithi_wal_plan_useful(&p));
    kithi_wal_plan_fini(&p);
    assert_int_equal(kithi_wal_plan(dir.path, uid, NULL, NULL, &p, &err), 0);
    assert_false(kithi_wal_plan_useful(&p));
    kithi_wal_plan_fini(&p);
}

/* Only numbers count that this program could have given. */
static void names_of_other_things_have_no_number(void **state)
{
    (void)state;
    static const char *const names[] = { "wal.damaged-",
                                         "wal.damaged-x",
                                         "wal.damaged-3x",
                                         "wal.salvaged-/",
                                         "wal.damaged-99999999999999999999",
                                         "wal.other-7" };
    uint32_t n;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        (void)mkdir(test_path(&dir, names[i]), 0700);
    assert_int_equal(kithi_wal_salvage_number(dir.path, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(mkdir(test_path(&dir, "wal.salvaging-41"), 0700), 0);
    assert_int_equal(mkdir(test_path(&dir, "wal.damaged-7"), 0700), 0);
    assert_int_equal(kithi_wal_salvage_number(dir.path, &n, &err), 0);
    assert_int_equal(n, 42);
    /* A swap that was interrupted has left both, and no log. */
    assert_int_equal(kithi_wal_salvage_interrupted(dir.path), 0);
    assert_int_equal(mkdir(test_path(&dir, "wal.salvaged-7"), 0700), 0);
    assert_int_equal(mkdir(test_path(&dir, "wal.salvaged-6"), 0700), 0);
    assert_int_equal(mkdir(test_path(&dir, "wal.salvaged-9"), 0700), 0);
    assert_int_equal(kithi_wal_salvage_interrupted(dir.path), 7);
    assert_int_equal(kithi_wal_salvage_swap(dir.path, 7, &err), 0);
    assert_int_equal(kithi_wal_salvage_interrupted(dir.path), 0);
    /* What is in the way is not replaced. */
    assert_int_equal(mkdir(test_path(&dir, "wal.damaged-6"), 0700), 0);
    assert_int_equal(kithi_wal_salvage_swap(dir.path, 6, &err), -EEXIST);
    assert_int_equal(kithi_wal_salvage_interrupted(test_path(&dir, "missing")), 0);
    assert_int_equal(kithi_wal_salvage_number(test_path(&dir, "missing"), &n, &err), -ENOENT);
}

#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLAIM(a_group_that_is_not_the_next_one_is_damage),
        CLAIM(a_group_of_another_collection_is_damage_but_not_in_recycled_space),
        CLAIM(a_file_that_ends_inside_a_group_is_torn_there),
        CLAIM(files_of_two_histories_are_not_mixed),
        CLAIM(epochs_begin_with_one),
        CLAIM(two_files_without_a_header_are_not_what_a_crash_leaves),
        CLAIM(a_group_from_the_future_is_not_kept),
        CLAIM(proof_is_looked_for_as_far_as_a_write_reaches),
        CLAIM(a_beginning_in_the_middle_is_the_group_itself),
        CLAIM(names_of_other_things_have_no_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
