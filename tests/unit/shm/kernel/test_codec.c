/*
 * test_codec.c - half floats by their bits, and vectors into codes and back.
 */
#include "shm/kernel/codec.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/kernel/half_priv.h"
#include "tests/support/rand.h"

enum { DIM_MAX = 4096, HEAD = sizeof(struct kithi_code_head) };

static float vector[DIM_MAX], decoded[DIM_MAX];
static uint32_t code_words[(HEAD + 4 * DIM_MAX) / 4 + 1]; /* room for any code, 4-byte aligned */
static unsigned char *const code = (unsigned char *)code_words;

static struct kithi_code_head head_of_code(void)
{
    struct kithi_code_head head;
    memcpy(&head, code, sizeof head);
    return head;
}

/* The value of a finite half by its definition. */
static double half_by_definition(uint32_t half)
{
    int exponent = (int)(half >> 10 & 31);
    double fraction = (double)(half & 1023);
    double value = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return half & 0x8000 ? -value : value;
}

static void every_half_has_the_value_of_its_definition_and_comes_back(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 65536; half++) {
        float f = kithi_half_to_float((uint16_t)half);
        assert_int_equal(signbit(f) != 0, half >> 15);
        if ((half & 0x7c00) != 0x7c00) {
            assert_true((double)f == half_by_definition(half));
            assert_int_equal(kithi_half_from_float(f), half);
        } else if (half & 1023) {
            assert_true(isnan(f));
            assert_int_equal(kithi_half_from_float(f) & 0x7fff, 0x7e00);
        } else {
            assert_true(isinf(f));
            assert_int_equal(kithi_half_from_float(f), half);
        }
    }
}

static void floats_between_two_halves_go_to_the_nearer_and_ties_to_the_even_one(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7c00; half++) {
        double low = half_by_definition(half);
        double high = half == 0x7bff ? 65536.0 : half_by_definition(half + 1); /* beyond: infinity */
        float middle = (float)((low + high) / 2);
        assert_true((double)middle == (low + high) / 2);
        assert_int_equal(kithi_half_from_float(middle), half % 2 ? half + 1 : half);
        assert_int_equal(kithi_half_from_float(nextafterf(middle, 0)), half);
        assert_int_equal(kithi_half_from_float(nextafterf(middle, INFINITY)), half + 1);
        assert_int_equal(kithi_half_from_float(-middle), 0x8000 | (half % 2 ? half + 1 : half));
        if (half > 0) /* next to a half itself */
            assert_int_equal(kithi_half_from_float(nextafterf((float)low, 0)), half);
    }
    assert_int_equal(kithi_half_from_float(FLT_MAX), 0x7c00);
    assert_int_equal(kithi_half_from_float(-INFINITY), 0xfc00);
    assert_int_equal(kithi_half_from_float(0x1p-149f), 0);
    assert_int_equal(kithi_half_from_float(-0x1p-149f), 0x8000);
}

static void codes_have_a_head_and_an_element_each(void **state)
{
    (void)state;
    assert_int_equal(kithi_code_size(KITHI_CODEC_F32, 100), 400);
    assert_int_equal(kithi_code_size(KITHI_CODEC_F16, 100), 216);
    assert_int_equal(kithi_code_size(KITHI_CODEC_SQ8, 100), 116);
}

/* vector -> code -> decoded: within the bounds of codec.h, the head is right, nothing beyond is written. */
static void check(uint32_t dim)
{
    kithi_code_encode(KITHI_CODEC_F32, vector, dim, code);
    kithi_code_decode(KITHI_CODEC_F32, code, dim, decoded);
    assert_memory_equal(vector, decoded, dim * sizeof *vector);

    for (enum kithi_codec codec = KITHI_CODEC_F16; codec <= KITHI_CODEC_SQ8; codec++) {
        uint32_t size = kithi_code_size(codec, dim);
        memset(code, 0xa5, size + 4);
        kithi_code_encode(codec, vector, dim, code);
        assert_true(code[size] == 0xa5 && code[size + 3] == 0xa5);
        kithi_code_decode(codec, code, dim, decoded);

        struct kithi_code_head head = head_of_code();
        uint32_t sum = 0, squares = 0;
        for (uint32_t i = 0; i < dim; i++) {
            double want = (double)vector[i], got = (double)decoded[i], bound;
            if (codec == KITHI_CODEC_SQ8) {
                sum += code[HEAD + i];
                squares += (uint32_t)code[HEAD + i] * code[HEAD + i];
                bound = (double)head.scale * 0.5 * (1 + 0x1p-40) + fabs(want) * 0x1p-23 + 0x1p-149;
            } else {
                bound = fmax(fabs(want) * 0x1p-11, (double)head.scale * 0x1p-25);
            }
            if (!(fabs(want - got) <= bound))
                fail_msg("codec %d dim %u [%u]: %a became %a, bound %a", (int)codec, dim, i, want, got,
                         bound);
        }
        assert_int_equal(head.sum, sum);
        assert_int_equal(head.squares, squares);
        if (codec == KITHI_CODEC_F16) {
            int exponent;
            assert_true(frexpf(head.scale, &exponent) == 0.5f);
            assert_true(head.offset == 0);
        }
    }
}

static void random_vectors_of_any_scale_and_place_come_back_within_the_bounds(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (uint32_t dim = 1; dim <= DIM_MAX; dim += dim < 130 ? 1 : 61) {
        for (int n = 0; n < 8; n++) {
            int scale = (int)test_rand_below(&rand, 276) - 149; /* up to 2^126 */
            float place = n % 4 == 3 ? ldexpf(test_rand_float(&rand), scale) * 10 : 0;
            test_rand_floats(&rand, vector, dim);
            for (uint32_t i = 0; i < dim; i++) {
                vector[i] = n % 2 ? ldexpf(vector[i], scale) : vector[i];
                if (n % 4 == 3 && isfinite(vector[i] + place))
                    vector[i] += place;
            }
            check(dim);
        }
    }
}

static void extreme_vectors_come_back_within_the_bounds(void **state)
{
    (void)state;
    static const float values[] = { 0.0f,     -0.0f,     1e30f,      -1e30f,    FLT_MAX,  -FLT_MAX,
                                    FLT_MIN,  0x1p-149f, -0x1p-149f, 0x1p-140f, 1e-20f,   255.0f,
                                    65504.0f, 65520.0f,  32752.0f,   0.25f,     0.24999f, 1.0f };
    enum { COUNT = sizeof values / sizeof values[0] };
    for (uint32_t a = 0; a < COUNT; a++) {
        for (uint32_t b = 0; b < COUNT; b++) {
            for (uint32_t dim = 1; dim <= 40; dim += 13) {
                for (uint32_t i = 0; i < dim; i++)
                    vector[i] = i % 3 ? values[a] : values[b];
                check(dim);
            }
        }
    }
    for (uint32_t i = 0; i < DIM_MAX; i++) /* from the least to the largest: all exponents */
        vector[i] = ldexpf(i % 2 ? 1.3f : -1.7f, (int)(i % 276) - 149);
    check(DIM_MAX);
}

static void constant_vector_is_its_offset(void **state)
{
    (void)state;
    static const float values[] = { 0.0f, 1.0f, -3.7f, FLT_MAX, 0x1p-149f };
    for (uint32_t n = 0; n < sizeof values / sizeof values[0]; n++) {
        for (uint32_t i = 0; i < 33; i++)
            vector[i] = values[n];
        kithi_code_encode(KITHI_CODEC_SQ8, vector, 33, code);
        kithi_code_decode(KITHI_CODEC_SQ8, code, 33, decoded);
        assert_memory_equal(vector, decoded, 33 * sizeof(float));
        assert_true(head_of_code().scale == 0 && head_of_code().sum == 0 && head_of_code().squares == 0);
    }
}

static void bytes_and_ordinary_halves_are_stored_as_they_are(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 256; i++)
        vector[i] = (float)(i * 97 % 256);
    for (enum kithi_codec codec = KITHI_CODEC_F16; codec <= KITHI_CODEC_SQ8; codec++) {
        kithi_code_encode(codec, vector, 256, code);
        assert_true(head_of_code().scale == 1 && head_of_code().offset == 0);
        kithi_code_decode(codec, code, 256, decoded);
        assert_memory_equal(vector, decoded, 256 * sizeof(float));
    }
}

/* Golden: a change here changes what is in files. */
static void codes_are_the_same_on_every_cpu(void **state)
{
    (void)state;
    static const uint64_t want[KITHI_CODEC_COUNT] = { 0x3e66b4c1c8a4db23, 0x21fbb0b88fbf169f,
                                                      0x4ee43829eb6643e3 };
    for (enum kithi_codec codec = KITHI_CODEC_F32; codec <= KITHI_CODEC_SQ8; codec++) {
        struct test_rand rand;
        test_rand_seed(&rand, 20260801);
        uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
        for (uint32_t dim = 1; dim < 400; dim += 7) {
            test_rand_floats(&rand, vector, dim);
            for (uint32_t i = 0; i < dim; i++)
                vector[i] = ldexpf(vector[i], (int)(dim % 60) - 30);
            kithi_code_encode(codec, vector, dim, code);
            for (uint32_t i = 0; i < kithi_code_size(codec, dim); i++)
                hash = (hash ^ code[i]) * 0x100000001b3u;
        }
        if (hash != want[codec])
            fail_msg("codec %d: %#llx", (int)codec, (unsigned long long)hash);
    }
}

static void any_bytes_are_decoded_to_some_floats(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (int n = 0; n < 500; n++) {
        uint32_t dim = 1 + test_rand_below(&rand, 300);
        for (size_t i = 0; i < sizeof code_words / sizeof code_words[0]; i++)
            code_words[i] = (uint32_t)test_rand_u64(&rand);
        for (enum kithi_codec codec = KITHI_CODEC_F32; codec <= KITHI_CODEC_SQ8; codec++)
            kithi_code_decode(codec, code, dim, decoded);
    }
}

/* Callers check for finite floats first (kithi_floats_finite); nothing worse than a useless code may follow. */
static void infinite_elements_give_some_code(void **state)
{
    (void)state;
    static const float values[] = { INFINITY, -INFINITY, NAN };
    for (uint32_t n = 0; n < 3; n++) {
        for (uint32_t i = 0; i < 50; i++)
            vector[i] = i == 7 ? values[n] : (float)i;
        for (enum kithi_codec codec = KITHI_CODEC_F32; codec <= KITHI_CODEC_SQ8; codec++)
            kithi_code_encode(codec, vector, 50, code);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_has_the_value_of_its_definition_and_comes_back),
        cmocka_unit_test(floats_between_two_halves_go_to_the_nearer_and_ties_to_the_even_one),
        cmocka_unit_test(codes_have_a_head_and_an_element_each),
        cmocka_unit_test(random_vectors_of_any_scale_and_place_come_back_within_the_bounds),
        cmocka_unit_test(extreme_vectors_come_back_within_the_bounds),
        cmocka_unit_test(constant_vector_is_its_offset),
        cmocka_unit_test(bytes_and_ordinary_halves_are_stored_as_they_are),
        cmocka_unit_test(codes_are_the_same_on_every_cpu),
        cmocka_unit_test(any_bytes_are_decoded_to_some_floats),
        cmocka_unit_test(infinite_elements_give_some_code),
    };
    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
