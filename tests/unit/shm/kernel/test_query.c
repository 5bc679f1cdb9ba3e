/*
 * test_query.c - queries, and the distances from a prepared query to codes, and between codes, in every kernel
 * set that this CPU can run.
 *
 * Sq8 is exact up to the rounding of the result to a float, and some of doubles. All sets give the same.
 * Half floats are summed as floats in at least 4 lanes: (dim/4 + 16) units of 2^-24 of the magnitudes added.
 */
#include "shm/kernel/query.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/kernel/bits.h"
#include "shm/kernel/distance.h"
#include "shm/kernel/half_priv.h"
#include "tests/support/rand.h"

enum { SET_MAX = 8, CODES = 4, EVERY_DIM_TO = 130, HEAD = sizeof(struct kithi_code_head) };

static const struct kithi_kernel *sets[SET_MAX]; /* the first one is the reference for the others */
static size_t set_count;
static struct kithi_query query;
static float values[KITHI_DIM_MAX], vectors[CODES][KITHI_DIM_MAX];
static double points[CODES][KITHI_DIM_MAX]; /* what the codes stand for, exactly */
static unsigned char *rooms[CODES];         /* each with a page behind it that nobody may touch */
static size_t room;

static int set_up(void **state)
{
    (void)state;
    static const char *const names[SET_MAX] = { "scalar",     "avx2", "avx512",  "avx512vnni",
                                                "avx512vbmi", "neon", "neondot", "tsan" };
    for (size_t i = 0; i < SET_MAX; i++) {
        if (kithi_kernel_named(names[i]))
            sets[set_count++] = kithi_kernel_named(names[i]);
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    room = (HEAD + KITHI_DIM_MAX * sizeof(float) + page - 1) / page * page;
    for (size_t r = 0; r < CODES; r++) {
        rooms[r] = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (rooms[r] == MAP_FAILED || mprotect(rooms[r] + room, page, PROT_NONE) != 0)
            return -1;
    }
    return set_count ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    kithi_query_fini(&query);
    return 0;
}

/* The code of vectors[r], ending where nobody may read on; points[r] is what it stands for. */
static unsigned char *encode(enum kithi_codec codec, uint32_t r, uint32_t dim)
{
    static uint32_t aligned[HEAD / 4 + KITHI_DIM_MAX];
    uint32_t size = kithi_code_size(codec, dim);
    unsigned char *code = rooms[r] + room - size;
    kithi_code_encode(codec, vectors[r], dim, aligned);
    memcpy(code, aligned, size);

    struct kithi_code_head head = { 0 };
    if (codec != KITHI_CODEC_F32)
        memcpy(&head, code, sizeof head);
    for (uint32_t i = 0; i < dim; i++) {
        uint16_t half;
        if (codec == KITHI_CODEC_SQ8) {
            points[r][i] = (double)head.offset + (double)head.scale * (double)code[HEAD + i];
        } else if (codec == KITHI_CODEC_F16) {
            memcpy(&half, code + HEAD + 2 * (size_t)i, sizeof half);
            points[r][i] = (double)head.scale * (double)kithi_half_to_float(half);
        } else {
            points[r][i] = (double)vectors[r][i];
        }
    }
    return code;
}

/* Distance and its bound, from a to b in double. */
struct expected {
    double l2, ip, l2_bound, ip_bound;
};

static struct expected expect(const double *a, const double *b, uint32_t dim, enum kithi_codec codec)
{
    struct expected e = { .ip = 1 };
    double least = a[0], largest = a[0], blur = 0, magnitude = 1;
    for (uint32_t i = 0; i < dim; i++) {
        e.l2 += (a[i] - b[i]) * (a[i] - b[i]);
        e.ip -= a[i] * b[i];
        least = fmin(least, fmin(a[i], b[i]));
        largest = fmax(largest, fmax(a[i], b[i]));
        blur += fabs(a[i] - b[i]) * (fabs(a[i]) + fabs(b[i])); /* a and b are rounded themselves */
        magnitude += fabs(a[i] * b[i]);
    }
    if (codec == KITHI_CODEC_SQ8) {
        double spread = (largest - least) * (largest - least) * dim;
        e.l2_bound = e.l2 * 0x1.1p-24 + spread * 0x1p-48 + blur * 0x1p-51 + 0x1p-148;
        e.ip_bound = fabs(e.ip) * 0x1.1p-24 + magnitude * 0x1p-40;
    } else {
        double units = (dim / 4.0 + 16.0) * 0x1p-24;
        e.l2_bound = units * e.l2 + 0x1p-140;
        e.ip_bound = units * magnitude;
    }
    return e;
}

static void assert_near(const struct kithi_kernel *set, const char *what, enum kithi_codec codec,
                        uint32_t dim, float got, double want, double bound)
{
    if (want > (double)FLT_MAX && got > 3e38f)
        return;
    if (!(fabs((double)got - want) <= bound)) {
        fail_msg("%s %s codec %d dim %u: %.9g, want %.9g within %.3g", set->name, what, (int)codec, dim,
                 (double)got, want, bound);
    }
}

static bool same(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

/* What a set says of four codes: one, four, and pair with the next. */
struct said {
    float one[2][CODES], four[2][CODES], pair[2][CODES];
};

static struct said ask(const struct kithi_kernel *set, enum kithi_codec codec,
                       const unsigned char *const codes[CODES], uint32_t dim)
{
    static const uint32_t metrics[2] = { KITHI_METRIC_L2, KITHI_METRIC_IP };
    struct said said;
    for (uint32_t m = 0; m < 2; m++) {
        const struct kithi_distances *d = kithi_kernel_distances(set, codec, metrics[m]);
        d->four(&query, codes, said.four[m]);
        for (uint32_t r = 0; r < CODES; r++) {
            said.one[m][r] = d->one(&query, codes[r]);
            said.pair[m][r] = d->pair(codes[r], codes[(r + 1) % CODES], dim);
        }
    }
    return said;
}

/* As far there as back, and nowhere from itself. */
static void check_equality(const struct kithi_kernel *set, const unsigned char *a, const unsigned char *b,
                           uint32_t dim)
{
    for (uint32_t m = 0; m < 2; m++) {
        kithi_pair_fn *pair = set->of[KITHI_CODEC_SQ8][m].pair;
        assert_true(same(pair(a, b, dim), pair(b, a, dim)));
    }
    assert_true(set->of[KITHI_CODEC_SQ8][0].pair(a, a, dim) == 0.0f);
}

/* All sets on values and vectors. */
static void check(enum kithi_codec codec, uint32_t dim)
{
    assert_int_equal(kithi_query_reserve(&query, dim, 0), 0);
    kithi_query_prepare(&query, values, codec, 0);
    static double meant[KITHI_DIM_MAX]; /* what the query stands for */
    for (uint32_t i = 0; i < dim; i++) {
        meant[i] =
            codec == KITHI_CODEC_SQ8 ? query.base + query.step * (double)query.words[i] : (double)values[i];
    }
    const unsigned char *codes[CODES];
    for (uint32_t r = 0; r < CODES; r++)
        codes[r] = encode(codec, r, dim);

    struct said first = { 0 };
    for (size_t s = 0; s < set_count; s++) {
        struct said said = ask(sets[s], codec, codes, dim);
        for (uint32_t r = 0; r < CODES; r++) {
            struct expected e = expect(meant, points[r], dim, codec);
            assert_near(sets[s], "one l2", codec, dim, said.one[0][r], e.l2, e.l2_bound);
            assert_near(sets[s], "four l2", codec, dim, said.four[0][r], e.l2, e.l2_bound);
            assert_near(sets[s], "one ip", codec, dim, said.one[1][r], e.ip, e.ip_bound);
            assert_near(sets[s], "four ip", codec, dim, said.four[1][r], e.ip, e.ip_bound);
            e = expect(points[r], points[(r + 1) % CODES], dim, codec);
            assert_near(sets[s], "pair l2", codec, dim, said.pair[0][r], e.l2, e.l2_bound);
            assert_near(sets[s], "pair ip", codec, dim, said.pair[1][r], e.ip, e.ip_bound);
            if (codec == KITHI_CODEC_SQ8)
                check_equality(sets[s], codes[r], codes[(r + 1) % CODES], dim);
        }
        if (s == 0)
            first = said;
        if (codec == KITHI_CODEC_SQ8) {
            assert_memory_equal(&said, &first, sizeof said);
            assert_memory_equal(said.one, said.four, sizeof said.one);
        }
    }
}

static void check_random(struct test_rand *rand, uint32_t dim)
{
    for (enum kithi_codec codec = KITHI_CODEC_F32; codec <= KITHI_CODEC_SQ8; codec++) {
        float scale = ldexpf(1.0f, (int)test_rand_below(rand, 41) - 20);
        test_rand_floats(rand, values, dim);
        for (size_t r = 0; r < CODES; r++) {
            test_rand_floats(rand, vectors[r], dim);
            for (uint32_t i = 0; i < dim; i++)
                vectors[r][i] *= scale;
        }
        check(codec, dim);
    }
}

static void every_set_agrees_with_double_precision_and_stays_inside_the_codes(void **state)
{
    (void)state;
    static const uint32_t usual[] = { 200, 256, 384, 512, 768, 784, 960, 1024, 1536, 3072, 4095, 4096 };
    struct test_rand rand;
    test_rand_init(&rand);
    for (uint32_t dim = 1; dim <= EVERY_DIM_TO; dim++) {
        for (int n = 0; n < 4; n++)
            check_random(&rand, dim);
    }
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        check_random(&rand, usual[i]);
    for (int i = 0; i < 50; i++)
        check_random(&rand, 1 + test_rand_below(&rand, KITHI_DIM_MAX));
}

static void largest_sums_do_not_overflow(void **state)
{
    (void)state;
    for (uint32_t dim = KITHI_DIM_MAX - 65; dim <= KITHI_DIM_MAX; dim++) {
        for (uint32_t i = 0; i < dim; i++) {
            /* all words as large as they get, of one sign but for one, by which there is a range */
            values[i] = (dim % 2) == (i != 5) ? 16383.0f : -16383.0f;
            for (size_t r = 0; r < CODES; r++)
                vectors[r][i] =
                    i == 0 && r % 2 ? 0.0f : 255.0f; /* bytes of 255, and none, by the one that is 0 */
        }
        check(KITHI_CODEC_SQ8, dim);
        vectors[0][0] = vectors[2][0] = 0.0f;
        check(KITHI_CODEC_SQ8, dim);
    }
}

static void extreme_values_keep_to_the_bounds(void **state)
{
    (void)state;
    static const float extremes[] = { 0.0f, 1.0f, 1e15f, -1e15f, 0x1p-149f, 0x1p-140f, 1e-20f, -65504.0f };
    enum { COUNT = sizeof extremes / sizeof extremes[0] };
    for (uint32_t a = 0; a < COUNT; a++) {
        for (uint32_t b = 0; b < COUNT; b++) {
            for (uint32_t i = 0; i < 77; i++) {
                values[i] = extremes[i % 5 ? a : b];
                for (uint32_t r = 0; r < CODES; r++)
                    vectors[r][i] = extremes[r == 3 ? b : (i + r) % 3 ? b : a];
            }
            for (enum kithi_codec codec = KITHI_CODEC_F16; codec <= KITHI_CODEC_SQ8; codec++)
                check(codec, 77);
        }
    }
}

/* Squares of these do not fit into a float; nothing is a NaN because of it, and products are right. */
static void distances_too_large_for_a_float_are_infinite(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 100; i++) {
        values[i] = i % 2 ? 1e30f : -1e30f;
        for (uint32_t r = 0; r < CODES; r++)
            vectors[r][i] = (i + r) % 5 ? 1e30f : -2e30f;
    }
    for (enum kithi_codec codec = KITHI_CODEC_F16; codec <= KITHI_CODEC_SQ8; codec++) {
        assert_int_equal(kithi_query_reserve(&query, 100, 0), 0);
        kithi_query_prepare(&query, values, codec, 0);
        const unsigned char *codes[CODES];
        for (uint32_t r = 0; r < CODES; r++)
            codes[r] = encode(codec, r, 100);
        for (size_t s = 0; s < set_count; s++) {
            struct said said = ask(sets[s], codec, codes, 100);
            for (uint32_t r = 0; r < CODES; r++)
                assert_true(isinf(said.one[0][r]) && isinf(said.four[0][r]) && isinf(said.pair[0][r]));
        }
    }
}

static void vector_is_near_its_own_code(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (uint32_t dim = 1; dim <= EVERY_DIM_TO; dim++) {
        test_rand_floats(&rand, values, dim);
        memcpy(vectors[0], values, dim * sizeof *values);
        assert_int_equal(kithi_query_reserve(&query, dim, 0), 0);
        kithi_query_prepare(&query, values, KITHI_CODEC_SQ8, 0);
        struct kithi_code_head head;
        const unsigned char *code = encode(KITHI_CODEC_SQ8, 0, dim);
        memcpy(&head, code, sizeof head);
        double far = (double)dim * pow(((double)head.scale + query.step) / 2, 2); /* both are rounded */
        far *= 1.001;
        for (size_t s = 0; s < set_count; s++) {
            float got = sets[s]->of[KITHI_CODEC_SQ8][0].one(&query, code);
            assert_true(got >= 0.0f && (double)got <= far);
        }
    }
}

/* From a to b, of floats. */
static double double_distance(const float *a, const float *b, uint32_t dim)
{
    double sum = 0;
    for (uint32_t i = 0; i < dim; i++)
        sum += pow((double)a[i] - (double)b[i], 2);
    return sum;
}

static float scale_of(const unsigned char *code)
{
    struct kithi_code_head head;
    memcpy(&head, code, sizeof head);
    return head.scale;
}

/* Only as much as elements are rounded is lost, wherever the vectors are. */
static void distances_far_from_the_origin_are_accurate(void **state)
{
    (void)state;
    static const float places[] = { 0, 1, -30, 1000, -4000, 1e6f, 3e7f };
    enum { DIM = 784 };
    struct test_rand rand;
    test_rand_init(&rand);
    assert_int_equal(kithi_query_reserve(&query, DIM, 0), 0);
    for (uint32_t p = 0; p < sizeof places / sizeof places[0]; p++) {
        test_rand_floats(&rand, values, DIM);
        for (uint32_t i = 0; i < DIM; i++)
            values[i] += places[p];
        const unsigned char *codes[CODES];
        for (uint32_t r = 0; r < CODES; r++) {
            test_rand_floats(&rand, vectors[r], DIM);
            for (uint32_t i = 0; i < DIM; i++)
                vectors[r][i] += places[p];
            codes[r] = encode(KITHI_CODEC_SQ8, r, DIM);
        }
        kithi_query_prepare(&query, values, KITHI_CODEC_SQ8, 0);
        for (size_t s = 0; s < set_count; s++) {
            struct said said = ask(sets[s], KITHI_CODEC_SQ8, codes, DIM);
            for (uint32_t r = 0; r < CODES; r++) {
                uint32_t next = (r + 1) % CODES;
                double steps = (double)scale_of(codes[r]) + query.step, slop = 1.001 * sqrt(DIM) / 2;
                double want = sqrt(double_distance(values, vectors[r], DIM));
                assert_true(fabs(sqrt((double)said.four[0][r]) - want) <= slop * steps + want * 0x1p-23);
                steps = (double)scale_of(codes[r]) + (double)scale_of(codes[next]);
                want = sqrt(double_distance(vectors[r], vectors[next], DIM));
                assert_true(fabs(sqrt((double)said.pair[0][r]) - want) <= slop * steps + want * 0x1p-23);
            }
        }
    }
}

/* Moved together, and exactly, vectors keep their codes but for the offsets, and their distances to the bit. */
static void l2_does_not_depend_on_where_the_origin_is(void **state)
{
    (void)state;
    static const float places[] = { 0, 1024, -1000, 4096, -7000 };
    struct test_rand rand;
    test_rand_init(&rand);
    for (uint32_t dim = 1; dim <= EVERY_DIM_TO; dim++) {
        struct said first = { 0 };
        float kept_values[EVERY_DIM_TO], kept[CODES][EVERY_DIM_TO];
        for (uint32_t i = 0; i < dim; i++) {
            kept_values[i] = (float)((int32_t)test_rand_below(&rand, 2048) - 1024) * 0x1p-10f;
            for (uint32_t r = 0; r < CODES; r++)
                kept[r][i] = (float)((int32_t)test_rand_below(&rand, 2048) - 1024) * 0x1p-10f;
        }
        for (uint32_t p = 0; p < sizeof places / sizeof places[0]; p++) {
            const unsigned char *codes[CODES];
            for (uint32_t r = 0; r < CODES; r++) {
                for (uint32_t i = 0; i < dim; i++)
                    vectors[r][i] = kept[r][i] + places[p];
                codes[r] = encode(KITHI_CODEC_SQ8, r, dim);
            }
            for (uint32_t i = 0; i < dim; i++)
                values[i] = kept_values[i] + places[p];
            assert_int_equal(kithi_query_reserve(&query, dim, 0), 0);
            kithi_query_prepare(&query, values, KITHI_CODEC_SQ8, 0);
            for (size_t s = 0; s < set_count; s++) {
                struct said said = ask(sets[s], KITHI_CODEC_SQ8, codes, dim);
                if (p == 0 && s == 0)
                    first = said;
                assert_memory_equal(said.one[0], first.one[0], sizeof said.one[0]);
                assert_memory_equal(said.four[0], first.four[0], sizeof said.four[0]);
                assert_memory_equal(said.pair[0], first.pair[0], sizeof said.pair[0]);
            }
        }
    }
}

static void every_element_of_a_code_counts_once(void **state)
{
    (void)state;
    for (uint32_t dim = 2; dim <= EVERY_DIM_TO; dim++) {
        for (uint32_t i = 0; i < dim; i++)
            values[i] = 0;
        assert_int_equal(kithi_query_reserve(&query, dim, 0), 0);
        for (uint32_t at = 0; at < dim; at++) {
            values[at] = 1.0f;
            for (uint32_t r = 0; r < CODES; r++) {
                for (uint32_t i = 0; i < dim; i++)
                    vectors[r][i] = i == at ? (float)(10 * r + 1) : i == (at + 1) % dim ? 255.0f : 0.0f;
            }
            for (enum kithi_codec codec = KITHI_CODEC_F32; codec <= KITHI_CODEC_SQ8; codec++)
                check(codec, dim);
            values[at] = 0;
        }
    }
}

static void hostile_codes_give_some_distance(void **state)
{
    (void)state;
    static const float special[] = { INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, 0x1p-149f, 0.0f };
    struct test_rand rand;
    test_rand_init(&rand);
    for (int n = 0; n < 3000; n++) {
        uint32_t dim = 1 + test_rand_below(&rand, 300);
        test_rand_floats(&rand, values, dim);
        assert_int_equal(kithi_query_reserve(&query, dim, 0), 0);
        kithi_query_prepare(&query, values, KITHI_CODEC_SQ8, 0);
        for (enum kithi_codec codec = KITHI_CODEC_F32; codec <= KITHI_CODEC_SQ8; codec++) {
            uint32_t size = kithi_code_size(codec, dim);
            const unsigned char *codes[CODES];
            for (uint32_t r = 0; r < CODES; r++) {
                unsigned char *code = rooms[r] + room - size;
                for (uint32_t i = 0; i < size; i++)
                    code[i] = (unsigned char)test_rand_u64(&rand);
                for (uint32_t i = 0; n % 2 && i < 3 && size >= HEAD; i++)
                    memcpy(code + 4 * (size_t)i, &special[test_rand_below(&rand, 7)], 4);
                codes[r] = code;
            }
            struct said first = ask(sets[0], codec, codes, dim);
            for (size_t s = 0; s < set_count; s++) {
                struct said said = ask(sets[s], codec, codes, dim);
                for (uint32_t r = 0; r < CODES; r++) {
                    assert_true(!(said.one[0][r] < 0) && !(said.four[0][r] < 0) && !(said.pair[0][r] < 0));
                    for (uint32_t m = 0; m < 2 && codec == KITHI_CODEC_SQ8; m++) {
                        assert_true(same(said.one[m][r], first.one[m][r]));
                        assert_true(same(said.four[m][r], first.one[m][r]));
                    }
                }
            }
        }
    }
}

static void nan_in_a_head_is_seen(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 50; i++)
        values[i] = vectors[0][i] = (float)i;
    assert_int_equal(kithi_query_reserve(&query, 50, 0), 0);
    kithi_query_prepare(&query, values, KITHI_CODEC_SQ8, 0);
    unsigned char *code = encode(KITHI_CODEC_SQ8, 0, 50);
    float nan = NAN;
    memcpy(code, &nan, sizeof nan);
    for (size_t s = 0; s < set_count; s++) {
        const struct kithi_distances *d = sets[s]->of[KITHI_CODEC_SQ8];
        assert_true(isnan(d[0].one(&query, code)) && isnan(d[1].one(&query, code)));
        assert_true(isnan(d[0].pair(code, code, 50)) && isnan(d[1].pair(code, code, 50)));
    }
}

/* The forms of query.values for sq8. */
static void check_words(uint32_t dim)
{
    double step = query.step, sum = 0, squares = 0;
    int32_t high_sum = 0;
    for (uint32_t i = 0; i < dim; i++) {
        int32_t word = query.words[i], high = query.high[i], low = query.low[i];
        assert_in_range(word + 16383, 0, 2 * 16383);
        assert_true(low >= 0 && 128 * high + low == word);
        double bound = step * 0.5 * (1 + 0x1p-7) + (step > 0x1p-126 ? 0 : 0x1p-127);
        assert_true(fabs((double)query.values[i] - query.base - step * word) <= bound);
        high_sum += high;
        sum += step * word;
        squares += step * word * step * word;
    }
    for (uint32_t i = dim; i < (dim + 63) / 64 * 64; i++)
        assert_true(query.words[i] == 0 && query.high[i] == 0 && query.low[i] == 0);
    assert_int_equal(query.high_sum, high_sum);
    assert_true(fabs(query.moment1 - sum) <= 1e-12 * dim * 16383 * step);
    assert_true(fabs(query.moment2 - squares) <= 1e-12 * squares);
}

static void words_are_within_half_a_step_of_the_values(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (uint32_t dim = 1; dim <= KITHI_DIM_MAX; dim += dim < EVERY_DIM_TO ? 1 : 61) {
        assert_int_equal(kithi_query_reserve(&query, dim, 0), 0);
        assert_int_equal((uintptr_t)query.values % 64, 0);
        for (int n = 0; n < 6; n++) {
            float scale = ldexpf(1.0f, n == 0 ? 0 : (int)test_rand_below(&rand, 276) - 149);
            test_rand_floats(&rand, values, dim);
            float place = n % 2 ? 0 : 1000 * scale * test_rand_float(&rand);
            for (uint32_t i = 0; i < dim; i++) {
                values[i] *= n == 5 ? 0 : scale;
                if (isfinite(values[i] + place))
                    values[i] += place;
            }
            kithi_query_prepare(&query, values, KITHI_CODEC_SQ8, 0);
            assert_memory_equal(query.values, values, dim * sizeof *values);
            assert_int_equal(query.width, 0);
            check_words(dim);
        }
    }
}

static void values_written_in_place_are_prepared_as_copied_ones_are(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    assert_int_equal(kithi_query_reserve(&query, 100, 0), 0);
    test_rand_floats(&rand, kithi_query_values(&query), 100);
    kithi_query_prepare(&query, NULL, KITHI_CODEC_SQ8, 0);
    check_words(100);
}

static void memory_is_kept_while_it_suffices_and_padding_is_zero_again(void **state)
{
    (void)state;
    struct kithi_query q = { 0 };
    for (uint32_t i = 0; i < KITHI_DIM_MAX; i++)
        values[i] = 1.0f;
    assert_int_equal(kithi_query_reserve(&q, KITHI_DIM_MAX, 4096), 0);
    unsigned char *memory = q.memory;
    kithi_query_prepare(&q, values, KITHI_CODEC_SQ8, 4096);
    for (uint32_t dim = KITHI_DIM_MAX; dim > 0; dim -= dim > EVERY_DIM_TO ? 61 : 1) {
        assert_int_equal(kithi_query_reserve(&q, dim, 0), 0);
        kithi_query_prepare(&q, values, KITHI_CODEC_SQ8, 0);
        assert_ptr_equal(q.memory, memory);
        for (uint32_t i = dim; i < (dim + 63) / 64 * 64; i++)
            assert_true(q.words[i] == 0 && q.high[i] == 0 && q.low[i] == 0);
    }
    kithi_query_fini(&q);
    assert_null(q.memory);
    kithi_query_fini(&q);
    kithi_query_fini(NULL);
}

static void width_prepares_the_rotated_query_and_its_tables(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (uint32_t dim = 1; dim <= KITHI_DIM_MAX; dim += dim < EVERY_DIM_TO ? 7 : 301) {
        uint32_t width = kithi_bits_width(dim, 1 + dim % 2);
        struct kithi_query q = { 0 };
        assert_int_equal(kithi_query_reserve(&q, dim, width), 0);
        test_rand_floats(&rand, values, dim);
        for (int again = 0; again < 2; again++)
            kithi_query_prepare(&q, values, KITHI_CODEC_SQ8, width);
        assert_int_equal(q.width, width);
        assert_int_equal((uintptr_t)q.rotated % 64 + (uintptr_t)q.table % 64, 0);

        float *rotated = aligned_alloc(64, width * sizeof *rotated);
        uint8_t *table = aligned_alloc(64, (size_t)width * 4);
        assert_true(rotated && table);
        memset(rotated, 0, width * sizeof *rotated);
        memcpy(rotated, values, dim * sizeof *values);
        float scale, base;
        kithi_bits_rotate(rotated, width);
        kithi_bits_table(rotated, width, table, &scale, &base);
        assert_memory_equal(rotated, q.rotated, width * sizeof *rotated);
        assert_memory_equal(table, q.table, (size_t)width * 4);
        assert_true(scale == q.table_scale && base == q.table_base);
        free(rotated);
        free(table);
        kithi_query_fini(&q);
    }
}

/* Callers check for finite floats first; a vector out of a hostile segment may be a query of the writer. */
static void infinite_queries_give_some_distance(void **state)
{
    (void)state;
    static const float bad[] = { INFINITY, -INFINITY, NAN };
    for (uint32_t n = 0; n < 3; n++) {
        for (uint32_t i = 0; i < 130; i++) {
            values[i] = i % 17 == 3 ? bad[n] : 1;
            for (uint32_t r = 0; r < CODES; r++)
                vectors[r][i] = (float)(i * r);
        }
        for (enum kithi_codec codec = KITHI_CODEC_F32; codec <= KITHI_CODEC_SQ8; codec++) {
            assert_int_equal(kithi_query_reserve(&query, 130, 0), 0);
            kithi_query_prepare(&query, values, codec, 0);
            const unsigned char *codes[CODES];
            for (uint32_t r = 0; r < CODES; r++)
                codes[r] = encode(codec, r, 130);
            for (size_t s = 0; s < set_count; s++)
                (void)ask(sets[s], codec, codes, 130);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_agrees_with_double_precision_and_stays_inside_the_codes),
        cmocka_unit_test(largest_sums_do_not_overflow),
        cmocka_unit_test(extreme_values_keep_to_the_bounds),
        cmocka_unit_test(distances_too_large_for_a_float_are_infinite),
        cmocka_unit_test(vector_is_near_its_own_code),
        cmocka_unit_test(distances_far_from_the_origin_are_accurate),
        cmocka_unit_test(l2_does_not_depend_on_where_the_origin_is),
        cmocka_unit_test(every_element_of_a_code_counts_once),
        cmocka_unit_test(hostile_codes_give_some_distance),
        cmocka_unit_test(nan_in_a_head_is_seen),
        cmocka_unit_test(words_are_within_half_a_step_of_the_values),
        cmocka_unit_test(values_written_in_place_are_prepared_as_copied_ones_are),
        cmocka_unit_test(memory_is_kept_while_it_suffices_and_padding_is_zero_again),
        cmocka_unit_test(width_prepares_the_rotated_query_and_its_tables),
        cmocka_unit_test(infinite_queries_give_some_distance),
    };
    return cmocka_run_group_tests_name("query", tests, set_up, tear_down);
}
