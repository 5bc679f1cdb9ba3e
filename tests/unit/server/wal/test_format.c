/*
 * test_format.c - headers of the log say what they are, and no flipped bit passes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/wal/format.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"

static const uint8_t uid[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
static uint8_t group[KITHI_WAL_BLOCK];

static void make_group(void)
{
    struct kithi_wal_group_header h = {
        .number = 3, .epoch = 9, .durable_epoch = 8, .timeline = 5, .len = 64, .n_ops = 2
    };
    memcpy(h.uid, uid, 16);
    memset(group, 0, sizeof group);
    memset(group + KITHI_WAL_GROUP_HEADER, 0xa5, h.len);
    h.crc = kithi_crc32c(0, group + KITHI_WAL_GROUP_HEADER, sizeof group - KITHI_WAL_GROUP_HEADER);
    kithi_wal_group_header_encode(group, &h);
}

static void what_is_encoded_is_decoded(void **state)
{
    (void)state;
    struct kithi_wal_file_header f = { .number = 7,
                                       .first_epoch = 1ull << 40,
                                       .timeline = UINT64_MAX,
                                       .size = 5u << 20 },
                                 g;
    uint8_t block[KITHI_WAL_BLOCK];
    struct kithi_wal_group_header h;
    memcpy(f.uid, uid, 16);
    memset(block, 0xff, sizeof block);
    kithi_wal_file_header_encode(block, &f);
    assert_int_equal(kithi_wal_file_header_decode(block, uid, &g), KITHI_WAL_OK);
    assert_memory_equal(&f, &g, sizeof f);
    make_group();
    assert_int_equal(kithi_wal_group_decode(group, sizeof group, uid, 3, &h), KITHI_WAL_OK);
    assert_int_equal(h.epoch, 9);
    assert_int_equal(h.durable_epoch, 8);
    assert_int_equal(h.timeline, 5);
    assert_int_equal(h.len, 64);
    assert_int_equal(h.n_ops, 2);
}

/* The bytes on disk, spelled out: a change here is a new version. */
static void the_places_of_fields_are_format(void **state)
{
    (void)state;
    make_group();
    assert_memory_equal(group, "KHWG\x02\0\0\0", 8);
    assert_memory_equal(group + 8, uid, 16);
    assert_int_equal(kithi_get64(group + 24), 3);
    assert_int_equal(kithi_get64(group + 32), 9);
    assert_int_equal(kithi_get64(group + 40), 8);
    assert_int_equal(kithi_get64(group + 48), 5);
    assert_int_equal(kithi_get32(group + 56), 64);
    assert_int_equal(kithi_get32(group + 60), 2);
    assert_int_equal(kithi_get32(group + 124), kithi_crc32c(0, group, 124));
}

static void no_flipped_bit_passes(void **state)
{
    (void)state;
    struct kithi_wal_file_header f = { .number = 7, .first_epoch = 4 }, g;
    uint8_t block[KITHI_WAL_BLOCK];
    struct kithi_wal_group_header h;
    memcpy(f.uid, uid, 16);
    kithi_wal_file_header_encode(block, &f);
    make_group();
    for (size_t bit = 0; bit < 8 * KITHI_WAL_BLOCK; bit++) {
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        group[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(kithi_wal_file_header_decode(block, uid, &g), KITHI_WAL_BAD);
        assert_int_equal(kithi_wal_group_decode(group, sizeof group, uid, 3, &h), KITHI_WAL_BAD);
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        group[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void every_verdict_is_told_from_the_others(void **state)
{
    (void)state;
    struct kithi_wal_group_header h;
    uint8_t other[16] = { 0 }, zeros[KITHI_WAL_BLOCK] = { 0 };
    make_group();
    assert_int_equal(kithi_wal_group_decode(zeros, sizeof zeros, uid, 3, &h), KITHI_WAL_EMPTY);
    assert_int_equal(kithi_wal_group_decode(group, sizeof group, other, 3, &h), KITHI_WAL_FOREIGN);
    assert_int_equal(kithi_wal_group_decode(group, sizeof group, uid, 4, &h), KITHI_WAL_STALE);
    assert_int_equal(kithi_wal_group_decode(group, sizeof group - 1, uid, 3, &h), KITHI_WAL_BAD);
    assert_int_equal(kithi_wal_group_decode(group, 100, uid, 3, &h), KITHI_WAL_BAD);
    group[4] = 1; /* of before payloads */
    kithi_put32(group + 124, kithi_crc32c(0, group, 124));
    assert_int_equal(kithi_wal_group_decode(group, sizeof group, uid, 3, &h), KITHI_WAL_OK);
    group[4] = 3;
    kithi_put32(group + 124, kithi_crc32c(0, group, 124));
    assert_int_equal(kithi_wal_group_decode(group, sizeof group, uid, 3, &h), KITHI_WAL_NEWER);
    group[4] = 2;
    group[68] = 1;
    kithi_put32(group + 124, kithi_crc32c(0, group, 124));
    assert_int_equal(kithi_wal_group_decode(group, sizeof group, uid, 3, &h), KITHI_WAL_NEWER);
}

static void lengths_that_no_writer_writes_are_bad(void **state)
{
    (void)state;
    static const uint32_t lens[] = { 0, 7, KITHI_WAL_PAYLOAD_MAX + 8, UINT32_MAX };
    struct kithi_wal_group_header h = { .number = 3, .epoch = 9, .n_ops = 1 }, out;
    memcpy(h.uid, uid, 16);
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        h.len = lens[i];
        kithi_wal_group_header_encode(group, &h);
        assert_int_equal(kithi_wal_group_header_decode(group, uid, 3, &out), KITHI_WAL_BAD);
    }
    /* Ops have 16 bytes at least. */
    static const uint32_t ops[] = { 0, 3, UINT32_MAX };
    h.len = 40;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        h.n_ops = ops[i];
        kithi_wal_group_header_encode(group, &h);
        assert_int_equal(kithi_wal_group_header_decode(group, uid, 3, &out), KITHI_WAL_BAD);
    }
    h.n_ops = 2;
    kithi_wal_group_header_encode(group, &h);
    assert_int_equal(kithi_wal_group_header_decode(group, uid, 3, &out), KITHI_WAL_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(the_places_of_fields_are_format),
        cmocka_unit_test(no_flipped_bit_passes),
        cmocka_unit_test(every_verdict_is_told_from_the_others),
        cmocka_unit_test(lengths_that_no_writer_writes_are_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
