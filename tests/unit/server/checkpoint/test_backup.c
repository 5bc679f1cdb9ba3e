/*
 * test_backup.c - the header of a back-up is read as it was written; no flipped bit, no other length and no impossible number
 * goes unseen, and each is called what it is.
 */
#include "server/checkpoint/backup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "server/checkpoint/format.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"

static const struct kithi_backup_header good = {
    .uid = { 1, 2, 3 },
    .epoch = 811,
    .last_epoch = 814,
    .checkpoint_bytes = 10 * 4096,
    .log_bytes = 3 * 4096,
    .created_ns = 12345678901234567u,
    .wanted = KITHI_QUANTIZATION_AUTO,
    .keep = KITHI_KEEP_F16,
    .chosen = 1,
    .quantization = KITHI_QUANTIZATION_BITS,
    .code_bits = 2,
    .fixed = 1,
    .name = "docs",
};

static int decode(const void *bytes, uint64_t size, struct kithi_backup_header *out)
{
    struct kithi_errmsg err = { 0 };
    int status = kithi_backup_header_decode(bytes, size, out, &err);
    assert_true(status == 0 || err.text[0] != '\0');
    return status;
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    uint8_t bytes[KITHI_BACKUP_BLOCK];
    struct kithi_backup_header h;
    kithi_backup_header_encode(bytes, &good);
    assert_int_equal(kithi_backup_size(&good), 14 * 4096);
    assert_int_equal(decode(bytes, 14 * 4096, &h), 0);
    assert_memory_equal(&h, &good, sizeof h);
    h = good;
    memset(h.name, 'n', KITHI_NAME_MAX);
    struct kithi_backup_header again;
    kithi_backup_header_encode(bytes, &h);
    assert_int_equal(decode(bytes, 14 * 4096, &again), 0);
    assert_string_equal(again.name, h.name);
}

/* The word was zero before it was defined. */
static void a_file_from_before_the_ceiling_was_kept_is_of_a_collection_that_grows(void **state)
{
    (void)state;
    uint8_t bytes[KITHI_BACKUP_BLOCK];
    struct kithi_backup_header h;
    kithi_backup_header_encode(bytes, &good);
    assert_int_equal(kithi_get32(bytes + 92), 1);
    kithi_put32(bytes + 92, 0);
    kithi_put32(bytes + 4092, kithi_crc32c(0, bytes, 4092));
    assert_int_equal(decode(bytes, 14 * 4096, &h), 0);
    assert_int_equal(h.fixed, 0);
}

static void no_flipped_bit_goes_unseen(void **state)
{
    (void)state;
    uint8_t bytes[KITHI_BACKUP_BLOCK];
    struct kithi_backup_header h;
    kithi_backup_header_encode(bytes, &good);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(decode(bytes, 14 * 4096, &h), bit < 64 ? KITHI_E_FORMAT : KITHI_E_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void another_length_is_told(void **state)
{
    (void)state;
    uint8_t bytes[KITHI_BACKUP_BLOCK], cut[KITHI_BACKUP_BLOCK] = { 0 };
    struct kithi_backup_header h;
    kithi_backup_header_encode(bytes, &good);
    for (uint64_t size = 0; size < 20 * 4096; size += size < 4096 ? 1 : 512) {
        memcpy(cut, bytes, size < sizeof cut ? size : sizeof cut);
        int want = size < 8 ? KITHI_E_FORMAT : size == 14 * 4096 ? 0 : KITHI_E_TRUNCATED;
        assert_int_equal(decode(cut, size, &h), want);
    }
}

static void strangers_and_later_versions_are_told(void **state)
{
    (void)state;
    uint8_t bytes[KITHI_BACKUP_BLOCK];
    struct kithi_backup_header h;
    struct kithi_errmsg err;
    kithi_backup_header_encode(bytes, &good);
    kithi_put16(bytes + 8, KITHI_BACKUP_VERSION + 1);
    kithi_put32(bytes + 4092, kithi_crc32c(0, bytes, 4092));
    assert_int_equal(decode(bytes, 14 * 4096, &h), KITHI_E_VERSION);
    kithi_backup_header_encode(bytes, &good);
    kithi_put32(bytes + 12, 1); /* an incompatible flag */
    kithi_put32(bytes + 4092, kithi_crc32c(0, bytes, 4092));
    assert_int_equal(decode(bytes, 14 * 4096, &h), KITHI_E_VERSION);
    memset(bytes, 0, sizeof bytes);
    kithi_put64(bytes, KITHI_CHECKPOINT_MAGIC);
    assert_int_equal(kithi_backup_header_decode(bytes, 1 << 20, &h, &err), KITHI_E_FORMAT);
    assert_non_null(strstr(err.text, "a checkpoint"));
}

static void impossible_numbers_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[KITHI_BACKUP_BLOCK];
    struct kithi_backup_header h, out;
#define IMPOSSIBLE(member, value)                                                                            \
    do {                                                                                                     \
        h = good;                                                                                            \
        h.member = (value);                                                                                  \
        kithi_backup_header_encode(bytes, &h);                                                               \
        assert_int_equal(decode(bytes, kithi_backup_size(&h), &out), KITHI_E_CORRUPT);                       \
    } while (0)
    IMPOSSIBLE(checkpoint_bytes, 10 * 4096 + 8);
    IMPOSSIBLE(checkpoint_bytes, UINT64_C(1) << 60);
    IMPOSSIBLE(checkpoint_bytes, 4096);
    IMPOSSIBLE(log_bytes, 3 * 4096 + 8);
    IMPOSSIBLE(log_bytes, 0);        /* and yet there are epochs */
    IMPOSSIBLE(log_bytes, 2 * 4096); /* three groups do not fit */
    IMPOSSIBLE(last_epoch, 810);
    IMPOSSIBLE(last_epoch, 811); /* and yet there are groups */
    IMPOSSIBLE(last_epoch, UINT64_MAX);
    IMPOSSIBLE(wanted, 5);
    IMPOSSIBLE(keep, 3);
    IMPOSSIBLE(chosen, 2);
    IMPOSSIBLE(quantization, KITHI_QUANTIZATION_AUTO);
    IMPOSSIBLE(fixed, 2);
    IMPOSSIBLE(name[0], '.');
    IMPOSSIBLE(name[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(a_file_from_before_the_ceiling_was_kept_is_of_a_collection_that_grows),
        cmocka_unit_test(no_flipped_bit_goes_unseen),
        cmocka_unit_test(another_length_is_told),
        cmocka_unit_test(strangers_and_later_versions_are_told),
        cmocka_unit_test(impossible_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
