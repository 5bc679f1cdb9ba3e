/*
 * test_read.c - a checkpoint is read as it was written, and no flipped bit, no cut and no stranger goes unseen.
 */
#include "server/checkpoint/read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/layout/header.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

static struct test_dir dir;
static struct test_rand r;
static unsigned char *file; /* the bytes of a good one */
static struct kithi_checkpoint_header header;
static struct kithi_checkpoint_plan plan;

/* Three regions: one of two chunks, one of a chunk and a bit, one that is shorter than a block. */
static void make(void)
{
    header = (struct kithi_checkpoint_header){
        .epoch = 812,
        .timeline = 7,
        .live = 10,
        .created_ns = 99,
        .layout_sum = 5,
        .geometry = { .dim = 3, .metric = 1, .m = 8, .ef_construction = 64, .slot_max = 100 },
        .segment_version = KITHI_FORMAT_VERSION,
        .slots = 12,
        .uppers = 2,
        .blobs = { 1, 2, 3, 4 },
    };
    memset(header.uid, 0x5a, sizeof header.uid);
    header.regions[KITHI_REGION_RECORDS] = (struct kithi_checkpoint_region){ 16384, 8192 };
    header.regions[KITHI_REGION_ROWS] = (struct kithi_checkpoint_region){ 4100, 4096 };
    header.regions[KITHI_REGION_BLOB3] = (struct kithi_checkpoint_region){ 72, 12288 };
    assert_true(kithi_checkpoint_plan(&header, &plan));
    assert_int_equal(plan.chunk_count, 5);
    assert_int_equal(plan.chunk_max, 8192);
    assert_int_equal(plan.file_size, 4096 + 16384 + 8192 + 4096 + 4096);
    file = aligned_alloc(4096, plan.file_size);
    assert_non_null(file);
    memset(file, 0, plan.file_size);
    kithi_checkpoint_header_encode(file, &header);
    uint32_t sums[5];
    for (uint32_t i = 0; i < plan.chunk_count; i++) {
        struct kithi_checkpoint_chunk c = kithi_checkpoint_chunk_at(&header, &plan, i);
        for (uint32_t j = 0; j < c.len; j++)
            file[c.file_off + j] = (unsigned char)test_rand_u64(&r);
        sums[i] = kithi_crc32c(0, file + c.file_off, c.size);
    }
    kithi_checkpoint_table_encode(file + plan.table_off, &header, &plan, sums, 815);
}

static const char *put(const void *bytes, size_t len)
{
    const char *path = test_path(&dir, "checkpoint");
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    close(fd);
    return path;
}

/* Open and read all of it: 0, or the first error. */
static int read_all(const char *path, const uint8_t uid[16], struct kithi_errmsg *err)
{
    struct kithi_checkpoint c;
    int status = kithi_checkpoint_open(path, uid, &c, err);
    if (status)
        return status;
    void *to = aligned_alloc(4096, c.plan.chunk_max);
    assert_non_null(to);
    for (uint32_t i = 0; i < c.plan.chunk_count && status == 0; i++) {
        struct kithi_checkpoint_chunk chunk = kithi_checkpoint_chunk_at(&c.header, &c.plan, i);
        status = kithi_checkpoint_read(&c, i, to, err);
        if (status == 0)
            assert_memory_equal(to, file + chunk.file_off, chunk.size);
    }
    free(to);
    kithi_checkpoint_close(&c);
    return status;
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    struct kithi_checkpoint c;
    struct kithi_errmsg err;
    const char *path = put(file, plan.file_size);
    assert_int_equal(read_all(path, header.uid, &err), 0);
    assert_int_equal(read_all(path, NULL, &err), 0);
    assert_int_equal(kithi_checkpoint_open(path, header.uid, &c, &err), 0);
    assert_memory_equal(&c.header, &header, sizeof header);
    assert_int_equal(c.end_epoch, 815);
    kithi_checkpoint_close(&c);
}

static void no_flipped_bit_goes_unseen(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    for (uint64_t bit = 0; bit < plan.file_size * 8; bit += test_long() ? 1 : 1 + test_rand_below(&r, 40)) {
        file[bit / 8] ^= (unsigned char)(1u << bit % 8);
        unsigned char *good = malloc(plan.file_size);
        assert_non_null(good);
        memcpy(good, file, plan.file_size);
        good[bit / 8] ^= (unsigned char)(1u << bit % 8);
        const char *path = put(file, plan.file_size);
        memcpy(file, good, plan.file_size);
        free(good);
        int status = read_all(path, header.uid, &err);
        if (status != KITHI_E_CORRUPT)
            fail_msg("bit %llu: %d", (unsigned long long)bit, status);
    }
}

static void no_length_but_the_right_one_is_taken(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    for (uint64_t len = 0; len < plan.file_size; len += len % 512 == 511 || len < 8 ? 1 : 511)
        assert_int_equal(read_all(put(file, len), header.uid, &err), KITHI_E_CORRUPT);
    unsigned char *longer = calloc(1, plan.file_size + 4096);
    assert_non_null(longer);
    memcpy(longer, file, plan.file_size);
    assert_int_equal(read_all(put(longer, plan.file_size + 4096), header.uid, &err), KITHI_E_CORRUPT);
    assert_int_equal(read_all(put(longer, plan.file_size + 1), header.uid, &err), KITHI_E_CORRUPT);
    free(longer);
}

static void reseal(unsigned char *head)
{
    kithi_put32(head + 4092, kithi_crc32c(0, head, 4092));
}

static void strangers_and_later_versions_are_told_apart(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    unsigned char *head = malloc(plan.file_size);
    uint8_t uid[16] = { 1 };
    assert_non_null(head);
    assert_int_equal(read_all(put(file, plan.file_size), uid, &err), KITHI_E_REPLACED);
    static const struct {
        unsigned at, value;
        int status;
    } cases[] = {
        { 8, KITHI_CHECKPOINT_VERSION + 1, KITHI_E_VERSION },
        { 12, 1, KITHI_E_VERSION },                         /* a flag that nobody knows */
        { 104, KITHI_FORMAT_VERSION + 1, KITHI_E_VERSION }, /* regions of another segment format */
        { 192 + 16 + 8, 4095, KITHI_E_CORRUPT },            /* a chunk of no whole blocks */
        { 192 + 16 + 8, 0, KITHI_E_CORRUPT },
        { 192 + 16 + 8, 65u << 20, KITHI_E_CORRUPT }, /* a chunk longer than anybody writes */
        { 192 + 16 + 4, 1u << 30, KITHI_E_CORRUPT },  /* more bytes than there are */
        { 192 + 16 + 4, 1u << 15, KITHI_E_CORRUPT },  /* and more chunks than are counted */
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(head, file, plan.file_size);
        kithi_put32(head + cases[i].at, cases[i].value);
        reseal(head);
        assert_int_equal(read_all(put(head, plan.file_size), header.uid, &err), cases[i].status);
    }
    free(head);
    assert_int_equal(read_all(test_path(&dir, "missing"), header.uid, &err), -ENOENT);
    assert_int_equal(read_all(dir.path, header.uid, &err), -EINVAL);
}

/* Under a checksum of its own, but another checkpoint's. */
static void a_table_that_is_of_another_checkpoint_is_refused(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    static const unsigned places[] = { 0, 4, 8, 24 }; /* magic, number of chunks, uid, epoch */
    unsigned char *copy = malloc(plan.file_size);
    assert_non_null(copy);
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        memcpy(copy, file, plan.file_size);
        unsigned char *table = copy + plan.table_off;
        table[places[i]] ^= 1;
        kithi_put32(table + 32, 0);
        kithi_put32(table + 32, kithi_crc32c(0, table, plan.table_size));
        assert_int_equal(read_all(put(copy, plan.file_size), header.uid, &err), KITHI_E_CORRUPT);
        assert_non_null(strstr(err.text, "the checksums of a checkpoint, do not match their own"));
    }
    free(copy);
}

/* Looked at without a fault, then cut off or replaced by a shorter one under the descriptor. */
static void what_is_cut_off_after_it_was_opened_is_noticed(void **state)
{
    (void)state;
    struct kithi_checkpoint c;
    struct kithi_errmsg err;
    const char *path = put(file, plan.file_size);
    assert_int_equal(kithi_checkpoint_open(path, header.uid, &c, &err), 0);
    void *to = aligned_alloc(4096, c.plan.chunk_max);
    assert_non_null(to);
    assert_int_equal(truncate(path, 8192), 0);
    assert_int_equal(kithi_checkpoint_read(&c, c.plan.chunk_count - 1, to, &err), KITHI_E_CORRUPT);
    assert_non_null(strstr(err.text, "it ends there"));
    close(c.fd);
    c.fd = open(dir.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(kithi_checkpoint_read(&c, 0, to, &err), -EISDIR);
    free(to);
    kithi_checkpoint_close(&c);
    kithi_checkpoint_close(&c);
}

static void a_directory_lists_its_checkpoints_newest_first(void **state)
{
    (void)state;
    static const char *const others[] = { "checkpoint.new", "checkpoint-12",
                                          "checkpoint-0000000000000000000x",
                                          "checkpoint-99999999999999999999", "collection.conf" };
    static const uint64_t there[] = { 7, 18446744073709551615u, 0, 812 };
    struct test_dir d;
    char name[KITHI_CHECKPOINT_NAME_SIZE];
    uint64_t *epochs = NULL;
    test_dir_make(&d);
    for (unsigned i = 0; i < 5; i++)
        close(open(test_path(&d, others[i]), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    for (unsigned i = 0; i < 4; i++) {
        kithi_checkpoint_name(name, there[i]);
        close(open(test_path(&d, name), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    assert_int_equal(kithi_checkpoint_list(d.path, &epochs, NULL), 4);
    static const uint64_t want[] = { 18446744073709551615u, 812, 7, 0 };
    assert_memory_equal(epochs, want, sizeof want);
    free(epochs);
    assert_int_equal(kithi_checkpoint_list(test_path(&d, "missing"), &epochs, NULL), -ENOENT);
    test_dir_remove(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(no_flipped_bit_goes_unseen),
        cmocka_unit_test(no_length_but_the_right_one_is_taken),
        cmocka_unit_test(strangers_and_later_versions_are_told_apart),
        cmocka_unit_test(a_table_that_is_of_another_checkpoint_is_refused),
        cmocka_unit_test(what_is_cut_off_after_it_was_opened_is_noticed),
        cmocka_unit_test(a_directory_lists_its_checkpoints_newest_first),
    };
    test_rand_init(&r);
    test_dir_make(&dir);
    make();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(file);
    test_dir_remove(&dir);
    return failed;
}
