/*
 * test_checksum.c - CRC-32C: published values, and the instruction against the table.
 */
#include "shm/base/checksum.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/rand.h"

static void assert_both(const void *data, size_t len, uint32_t want)
{
    assert_int_equal(kithi_crc32c(0, data, len), want);
    assert_int_equal(kithi_crc32c_table(0, data, len), want);
}

static void published_values_come_out(void **state)
{
    (void)state;
    unsigned char b[32];
    assert_both("", 0, 0);
    assert_both("a", 1, 0xc1d04330u);
    assert_both("123456789", 9, 0xe3069283u);

    /* RFC 3720, B.4 */
    memset(b, 0, sizeof b);
    assert_both(b, sizeof b, 0x8a9136aau);
    memset(b, 0xff, sizeof b);
    assert_both(b, sizeof b, 0x62a8ab43u);
    for (unsigned i = 0; i < sizeof b; i++)
        b[i] = (unsigned char)i;
    assert_both(b, sizeof b, 0x46dd794eu);
    for (unsigned i = 0; i < sizeof b; i++)
        b[i] = (unsigned char)(31 - i);
    assert_both(b, sizeof b, 0x113fdb5cu);
}

static void instruction_and_table_agree_at_any_length_and_alignment(void **state)
{
    (void)state;
    unsigned char b[600];
    struct test_rand rand;
    test_rand_init(&rand);
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (unsigned char)test_rand_u64(&rand);
    for (size_t from = 0; from < 16; from++) {
        for (size_t len = 0; len <= 300; len++) {
            uint32_t begin = (uint32_t)test_rand_u64(&rand);
            assert_int_equal(kithi_crc32c(begin, b + from, len), kithi_crc32c_table(begin, b + from, len));
        }
    }
}

/* Long ones go by three stretches of 4096 at a time. */
static void instruction_and_table_agree_about_long_data(void **state)
{
    (void)state;
    enum { SIZE = 5 * 3 * 4096 + 100 };
    static unsigned char b[SIZE];
    struct test_rand rand;
    test_rand_init(&rand);
    for (size_t i = 0; i < SIZE; i++)
        b[i] = (unsigned char)test_rand_u64(&rand);
    for (size_t times = 1; times <= 4; times++) {
        for (size_t more = 0; more < 40; more++) {
            size_t len = times * 3 * 4096 + more - 20, from = test_rand_below(&rand, 64);
            uint32_t begin = (uint32_t)test_rand_u64(&rand);
            assert_int_equal(kithi_crc32c(begin, b + from, len), kithi_crc32c_table(begin, b + from, len));
        }
    }
}

static void sum_of_parts_is_the_sum_of_the_whole(void **state)
{
    (void)state;
    unsigned char b[257];
    struct test_rand rand;
    test_rand_init(&rand);
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (unsigned char)test_rand_u64(&rand);
    uint32_t whole = kithi_crc32c(0, b, sizeof b);
    for (size_t cut = 0; cut <= sizeof b; cut++)
        assert_int_equal(kithi_crc32c(kithi_crc32c(0, b, cut), b + cut, sizeof b - cut), whole);
}

static void every_flipped_bit_changes_the_sum(void **state)
{
    (void)state;
    unsigned char b[100] = { 0 };
    uint32_t before = kithi_crc32c(0, b, sizeof b);
    for (size_t bit = 0; bit < 8 * sizeof b; bit++) {
        b[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_int_not_equal(kithi_crc32c(0, b, sizeof b), before);
        b[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_values_come_out),
        cmocka_unit_test(instruction_and_table_agree_at_any_length_and_alignment),
        cmocka_unit_test(instruction_and_table_agree_about_long_data),
        cmocka_unit_test(sum_of_parts_is_the_sum_of_the_whole),
        cmocka_unit_test(every_flipped_bit_changes_the_sum),
    };
    return cmocka_run_group_tests_name("checksum", tests, NULL, NULL);
}
