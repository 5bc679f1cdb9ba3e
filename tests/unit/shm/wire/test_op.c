/*
 * test_op.c - what is encoded comes back, and bytes that are no op are refused.
 *
 * Every buffer is allocated to its exact size, so that AddressSanitizer sees a read beyond.
 */
#include "shm/layout/geometry.h"
#include "shm/wire/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/base/bytes.h"
#include "shm/base/error.h"
#include "shm/base/id.h"
#include "shm/kernel/distance.h"
#include "tests/support/rand.h"

enum { BIGGEST_OP = KITHI_OP_HEADER + KITHI_ID_MAX + 1 + KITHI_DIM_MAX * sizeof(float) };

/* A copy of len bytes with nothing behind it. */
static unsigned char *exact(const void *from, size_t len)
{
    unsigned char *b = malloc(len ? len : 1);
    assert_non_null(b);
    memcpy(b, from, len);
    return b;
}

static int64_t decode(const void *from, size_t len, struct kithi_op *out)
{
    unsigned char *b = exact(from, len);
    int64_t got = kithi_op_decode(b, len, out);
    free(b);
    return got;
}

static void assert_round_trip(const char *id, size_t id_len, const float *vector, uint32_t dim)
{
    size_t size = kithi_op_size(id_len, vector ? dim : 0);
    assert_true(size % 8 == 0 && size <= BIGGEST_OP);
    unsigned char *b = malloc(size);
    assert_non_null(b);
    memset(b, 0xee, size);
    assert_int_equal(kithi_op_encode(b, id, id_len, vector, dim), size);

    struct kithi_op op;
    assert_int_equal(kithi_op_decode(b, size, &op), size);
    assert_int_equal(op.type, vector ? KITHI_OP_UPSERT : KITHI_OP_DELETE);
    assert_int_equal(op.flags, 0);
    assert_int_equal(op.id_len, id_len);
    assert_memory_equal(op.id, id, id_len);
    assert_int_equal(op.dim, vector ? dim : 0);
    if (vector) {
        assert_int_equal((uintptr_t)op.vector % sizeof(float), 0);
        assert_memory_equal(op.vector, vector, dim * sizeof(float));
    } else {
        assert_null(op.vector);
    }

    /* The same bytes whatever was in the buffer before: the log's checksums depend on it. */
    unsigned char *again = malloc(size);
    assert_non_null(again);
    memset(again, 0x11, size);
    kithi_op_encode(again, id, id_len, vector, dim);
    assert_memory_equal(b, again, size);
    free(again);
    free(b);
}

static void what_is_encoded_comes_back(void **state)
{
    (void)state;
    static float vector[KITHI_DIM_MAX];
    char id[KITHI_ID_MAX];
    struct test_rand rand;
    test_rand_init(&rand);
    memset(id, 'i', sizeof id);
    test_rand_floats(&rand, vector, KITHI_DIM_MAX);
    for (size_t id_len = 1; id_len <= KITHI_ID_MAX; id_len++) {
        assert_round_trip(id, id_len, NULL, 0);
        assert_round_trip(id, id_len, vector, (uint32_t)(id_len % 3 + 1));
        assert_round_trip(id, id_len, vector, 1 + test_rand_below(&rand, KITHI_DIM_MAX));
    }
    assert_round_trip(id, KITHI_ID_MAX, vector, KITHI_DIM_MAX);
}

static void delete_ignores_the_dimension_of_the_caller(void **state)
{
    (void)state;
    assert_round_trip("gone", 4, NULL, 128);
}

static void bytes_are_as_the_picture_says(void **state)
{
    (void)state;
    static const unsigned char want[32] = {
        32,  0,   0,   0,        /* len */
        1,   0,   5,   0,        /* upsert, no flags, five bytes of id */
        1,   0,   0,   0,        /* dim */
        0,   0,   0,   0,        /* reserved */
        'a', 'b', 'c', 'd', 'e', /* id */
        0,   0,   0,             /* pad to 4 */
        0,   0,   128, 63,       /* 1.0f */
        0,   0,   0,   0,        /* pad to 8 */
    };
    unsigned char got[32];
    float one = 1.0f;
    assert_int_equal(kithi_op_size(5, 1), sizeof got);
    assert_int_equal(kithi_op_encode(got, "abcde", 5, &one, 1), sizeof got);
    assert_memory_equal(got, want, sizeof got);
}

static void ops_are_read_one_after_the_other(void **state)
{
    (void)state;
    _Alignas(8) unsigned char b[256];
    float vector[3] = { 1, 2, 3 };
    size_t len = kithi_op_encode(b, "one", 3, vector, 3);
    len += kithi_op_encode(b + len, "two", 3, NULL, 0);
    len += kithi_op_encode(b + len, "three", 5, vector, 2);

    static const char *const ids[] = { "one", "two", "three" };
    size_t at = 0;
    for (size_t i = 0; i < 3; i++) {
        struct kithi_op op;
        int64_t n = kithi_op_decode(b + at, len - at, &op);
        assert_true(n > 0);
        assert_int_equal(op.id_len, strlen(ids[i]));
        assert_memory_equal(op.id, ids[i], op.id_len);
        at += (size_t)n;
    }
    assert_int_equal(at, len);
}

static void an_op_that_is_cut_off_is_refused_at_every_length(void **state)
{
    (void)state;
    _Alignas(8) unsigned char b[128];
    float vector[7] = { 1, 2, 3, 4, 5, 6, 7 };
    size_t len = kithi_op_encode(b, "some-id", 7, vector, 7);
    struct kithi_op op;
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(decode(b, cut, &op), KITHI_E_PROTOCOL);
    assert_int_equal(decode(b, len, &op), len);
}

static void fields_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        size_t at, width;
        uint32_t value;
    } hurt[] = {
        { "length 0", 0, 4, 0 },
        { "length below the header", 0, 4, 8 },
        { "length not a multiple of 8", 0, 4, 33 },
        { "length too small for its fields", 0, 4, 24 },
        { "length too large for its fields", 0, 4, 40 },
        { "length beyond the buffer", 0, 4, 48 },
        { "length of 4 GiB", 0, 4, 0xfffffff8u },
        { "type 0", 4, 1, 0 },
        { "type unknown", 4, 1, 3 },
        { "upsert that may be skipped", 5, 1, KITHI_OP_SKIPPABLE },
        { "flag unknown", 5, 1, 2 },
        { "id too long", 6, 2, KITHI_ID_MAX + 1 },
        { "id of 64 KiB", 6, 2, 0xffff },
        { "dim 0 in an upsert", 8, 4, 0 },
        { "dim too large", 8, 4, KITHI_DIM_MAX + 1 },
        { "dim whose bytes overflow 32 bits", 8, 4, 0x40000001u },
        { "payload that is not announced", 12, 4, 1 },
        { "delete with a dim", 4, 1, KITHI_OP_DELETE },
        { "payload alone with a dim", 4, 1, KITHI_OP_SET },
    };
    _Alignas(8) unsigned char sound[40] = { 0 };
    float one = 1.0f;
    struct kithi_op op;
    assert_int_equal(kithi_op_encode(sound, "abcde", 5, &one, 1), 32);
    assert_int_equal(decode(sound, sizeof sound, &op), 32);
    for (size_t i = 0; i < sizeof hurt / sizeof hurt[0]; i++) {
        unsigned char b[40];
        memcpy(b, sound, sizeof b);
        memcpy(b + hurt[i].at, &hurt[i].value, hurt[i].width);
        if (decode(b, sizeof b, &op) != KITHI_E_PROTOCOL)
            fail_msg("accepted: %s", hurt[i].what);
    }
}

static void payloads_come_back_as_they_were_put(void **state)
{
    (void)state;
    static const struct {
        uint8_t type, flags;
        uint32_t dim, len;
        bool good;
    } cases[] = {
        { KITHI_OP_UPSERT, KITHI_OP_PAYLOAD, 3, 0, true },
        { KITHI_OP_UPSERT, KITHI_OP_PAYLOAD, 3, 77, true },
        { KITHI_OP_UPSERT, 0, 3, 0, true },
        { KITHI_OP_UPSERT, 0, 3, 77, false },
        { KITHI_OP_SET, 0, 0, 0, true },
        { KITHI_OP_SET, 0, 0, KITHI_PAYLOAD_BYTES, true },
        { KITHI_OP_SET, 0, 0, KITHI_PAYLOAD_BYTES + 1, false },
        { KITHI_OP_SET, 0, 3, 5, false },
        { KITHI_OP_SET, KITHI_OP_PAYLOAD, 0, 5, false },
        { KITHI_OP_MERGE, 0, 0, 5, true },
        { KITHI_OP_MERGE, 0, 0, 0, false },
        { KITHI_OP_REMOVE, 0, 0, 5, true },
        { KITHI_OP_REMOVE, 0, 0, 0, false },
        { KITHI_OP_DELETE, 0, 0, 5, false },
    };
    static _Alignas(8) unsigned char b[KITHI_PAYLOAD_BYTES + 128];
    static unsigned char bytes[KITHI_PAYLOAD_BYTES + 1];
    const float v[3] = { 1, 2, 3 };
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7 + 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kithi_op op = { .type = cases[i].type,
                               .flags = cases[i].flags,
                               .id_len = 5,
                               .dim = cases[i].dim,
                               .id = "abcde",
                               .vector = v,
                               .payload = bytes,
                               .payload_len = cases[i].len },
                        got;
        size_t len = kithi_op_put(b, &op);
        assert_int_equal(len, kithi_op_size_with(5, op.dim, op.payload_len));
        int64_t rc = kithi_op_decode(b, len, &got);
        if (rc != (cases[i].good ? (int64_t)len : KITHI_E_PROTOCOL))
            fail_msg("case %zu: %lld", i, (long long)rc);
        if (!cases[i].good)
            continue;
        assert_int_equal(got.type, op.type);
        assert_int_equal(got.flags, op.flags);
        assert_int_equal(got.payload_len, op.payload_len);
        assert_true(op.payload_len ? memcmp(got.payload, bytes, op.payload_len) == 0 : got.payload == NULL);
        assert_true(op.dim ? memcmp(got.vector, v, sizeof v) == 0 : got.vector == NULL);
        assert_non_null(kithi_op_name(op.type));
    }
}

static void out_is_written_only_on_success(void **state)
{
    (void)state;
    struct kithi_op op, before;
    memset(&op, 0x5a, sizeof op);
    before = op;
    unsigned char zeros[64] = { 0 };
    assert_int_equal(decode(zeros, sizeof zeros, &op), KITHI_E_PROTOCOL);
    assert_memory_equal(&op, &before, sizeof op);
}

static void an_unknown_type_is_skipped_only_with_its_flag(void **state)
{
    (void)state;
    _Alignas(8) unsigned char b[48] = { 0 };
    struct kithi_op op;
    kithi_put32(b, 40);
    b[4] = 77;
    memset(b + 6, 0xff, 34); /* fields of a type from the future may mean anything */
    assert_int_equal(decode(b, sizeof b, &op), KITHI_E_PROTOCOL);
    b[5] = KITHI_OP_SKIPPABLE;
    assert_int_equal(decode(b, sizeof b, &op), 40);
    assert_int_equal(op.type, 77);
    assert_null(op.id);
    assert_null(op.vector);
    assert_int_equal(decode(b, 32, &op), KITHI_E_PROTOCOL);
}

/* Whatever decode accepts lies inside the buffer. */
static void assert_sound(const unsigned char *b, size_t len)
{
    struct kithi_op op;
    int64_t got = kithi_op_decode(b, len, &op);
    if (got < 0) {
        assert_int_equal(got, KITHI_E_PROTOCOL);
        return;
    }
    assert_true(got >= (int64_t)KITHI_OP_HEADER && got <= (int64_t)len && got % 8 == 0);
    if (!kithi_op_is_known(op.type)) {
        assert_true(op.flags & KITHI_OP_SKIPPABLE);
        return;
    }
    const unsigned char *end = b + got, *id = (const unsigned char *)op.id;
    assert_true(id >= b && id + op.id_len <= end && op.id_len <= KITHI_ID_MAX);
    if (op.type == KITHI_OP_UPSERT) {
        const unsigned char *floats = (const unsigned char *)op.vector;
        assert_true(floats >= id + op.id_len && floats + op.dim * sizeof(float) <= end);
        assert_true(op.dim >= 1 && op.dim <= KITHI_DIM_MAX);
    } else {
        assert_true(op.vector == NULL && op.dim == 0);
    }
    const unsigned char *payload = op.payload;
    assert_true((payload == NULL) == (op.payload_len == 0) && op.payload_len <= KITHI_PAYLOAD_BYTES);
    assert_true(!payload ||
                (payload >= id + op.id_len + op.dim * sizeof(float) && payload + op.payload_len <= end));
}

static void hostile_bytes_are_refused_or_lie_inside_the_buffer(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    float vector[16];
    test_rand_floats(&rand, vector, 16);
    for (int n = 0; n < 50000; n++) {
        _Alignas(8) unsigned char b[128];
        uint32_t dim = test_rand_below(&rand, 17), id_len = test_rand_below(&rand, 40);
        size_t len =
            kithi_op_encode(b, "0123456789012345678901234567890123456789", id_len, dim ? vector : NULL, dim);
        if (n % 3 == 0) {
            len = test_rand_below(&rand, sizeof b + 1);
            for (size_t i = 0; i < len; i++)
                b[i] = (unsigned char)test_rand_u64(&rand);
        } else {
            for (uint32_t flips = 1 + test_rand_below(&rand, 3); flips; flips--)
                b[test_rand_below(&rand, KITHI_OP_HEADER)] ^=
                    (unsigned char)(1u << test_rand_below(&rand, 8));
            len -= test_rand_below(&rand, 2) * test_rand_below(&rand, (uint32_t)len);
        }
        unsigned char *copy = exact(b, len);
        assert_sound(copy, len);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_comes_back),
        cmocka_unit_test(delete_ignores_the_dimension_of_the_caller),
        cmocka_unit_test(bytes_are_as_the_picture_says),
        cmocka_unit_test(ops_are_read_one_after_the_other),
        cmocka_unit_test(an_op_that_is_cut_off_is_refused_at_every_length),
        cmocka_unit_test(fields_out_of_range_are_refused),
        cmocka_unit_test(payloads_come_back_as_they_were_put),
        cmocka_unit_test(out_is_written_only_on_success),
        cmocka_unit_test(an_unknown_type_is_skipped_only_with_its_flag),
        cmocka_unit_test(hostile_bytes_are_refused_or_lie_inside_the_buffer),
    };
    return cmocka_run_group_tests_name("op", tests, NULL, NULL);
}
