/*
 * test_bits.c - one-bit codes of links: every kernel set against the definition in double precision, and the
 * estimates against the distances that they stand for.
 *
 * Statistics are of fixed data and of a fixed rotation, so that their bounds are those of one sample.
 */
#include "shm/kernel/bits.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/rand.h"

enum { SET_MAX = 8, PLACES = KITHI_BITS_PLACES, WIDTH_MAX = KITHI_BITS_WIDTH_MAX };

static const struct kithi_kernel *sets[SET_MAX];
static size_t set_count;

static const uint32_t widths[] = { 64,  128, 192, 256, 320,  384,  448,  512,  576,  640, 704,
                                   768, 832, 896, 960, 1024, 2048, 3008, 4096, 4160, 8192 };
enum { WIDTH_COUNT = sizeof widths / sizeof widths[0] };

/* Room that ends where a page begins that nobody may touch. */
struct fenced {
    unsigned char *end;
    size_t size;
};

static struct fenced vector_room[3], table_room, block_room;

static struct fenced fenced_new(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (size + page - 1) / page * page;
    unsigned char *map =
        mmap(NULL, room + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(mprotect(map, page, PROT_NONE), 0);
    assert_int_equal(mprotect(map + page + room, page, PROT_NONE), 0);
    return (struct fenced){ map + page + room, room };
}

static float *vector(int i, uint32_t width)
{
    return (float *)(void *)(vector_room[i].end - width * sizeof(float));
}

static uint8_t *table(uint32_t width)
{
    return table_room.end - 4 * (size_t)width;
}

static unsigned char *block(uint32_t width)
{
    return block_room.end - kithi_bits_block_size(width);
}

static int set_up(void **state)
{
    (void)state;
    static const char *const names[SET_MAX] = { "scalar",     "avx2", "avx512",  "avx512vnni",
                                                "avx512vbmi", "neon", "neondot", "tsan" };
    fprintf(stderr, "sets:");
    for (size_t i = 0; i < SET_MAX; i++) {
        const struct kithi_kernel *set = kithi_kernel_named(names[i]);
        if (set) {
            sets[set_count++] = set;
            fprintf(stderr, " %s", names[i]);
        }
    }
    fprintf(stderr, "\n");
    for (int i = 0; i < 3; i++)
        vector_room[i] = fenced_new(WIDTH_MAX * sizeof(float));
    table_room = fenced_new(4 * WIDTH_MAX);
    block_room = fenced_new(kithi_bits_block_size(WIDTH_MAX));
    return set_count ? 0 : -1;
}

static float gauss(struct test_rand *r)
{
    double u = ((double)(test_rand_u64(r) >> 11) + 1) * 0x1p-53, v = (double)test_rand_float(r);
    return (float)(sqrt(-2 * log(u)) * cos(3.14159265358979 * v));
}

static void gauss_fill(struct test_rand *r, float *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        v[i] = gauss(r);
}

static double product(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static double distance2(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum;
}

static float *factor(unsigned char *b, int which, uint32_t place)
{
    return (float *)(void *)(b + 128 * which + 4 * place);
}

/* The definition of a block, place by place. */
static bool sign_in(const unsigned char *b, uint32_t place, uint32_t i)
{
    return b[256 + 16 * (i / 4) + place % 16] >> (place / 16 * 4 + i % 4) & 1;
}

static void width_is_a_multiple_of_64_that_holds_every_bit(void **state)
{
    (void)state;
    assert_int_equal(kithi_bits_width(1, 1), 64);
    assert_int_equal(kithi_bits_width(64, 1), 64);
    assert_int_equal(kithi_bits_width(65, 1), 128);
    assert_int_equal(kithi_bits_width(784, 1), 832);
    assert_int_equal(kithi_bits_width(100, 2), 256);
    assert_int_equal(kithi_bits_width(KITHI_DIM_MAX, 2), WIDTH_MAX);
    for (uint32_t dim = 1; dim <= KITHI_DIM_MAX; dim++)
        assert_int_equal(kithi_bits_block_size(kithi_bits_width(dim, 1)) % 64, 0);
}

static void rotation_keeps_lengths_and_angles_and_is_the_same_in_every_set(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    static float x[WIDTH_MAX], y[WIDTH_MAX], first[WIDTH_MAX];
    for (size_t w = 0; w < WIDTH_COUNT; w++) {
        uint32_t width = widths[w];
        gauss_fill(&rand, x, width);
        gauss_fill(&rand, y, width);
        x[0] = 30; /* not all of one size */
        for (size_t s = 0; s < set_count; s++) {
            float *a = vector(0, width), *b = vector(1, width);
            memcpy(a, x, width * sizeof *a);
            memcpy(b, y, width * sizeof *b);
            sets[s]->rotate(a, width);
            sets[s]->rotate(b, width);
            double lengths = sqrt(product(x, x, width) * product(y, y, width));
            assert_true(fabs(product(a, a, width) / product(x, x, width) - 1) < 1e-5);
            assert_true(fabs(product(a, b, width) - product(x, y, width)) < 1e-5 * lengths);
            assert_true(fabs(distance2(a, b, width) / distance2(x, y, width) - 1) < 1e-5);
            if (s == 0)
                memcpy(first, a, width * sizeof *a);
            assert_memory_equal(first, a, width * sizeof *a);
        }
    }
}

/* Codes are stored: a rotation that is another one next year would make nonsense of them. */
static void rotation_is_format(void **state)
{
    (void)state;
    static const struct {
        uint32_t width;
        uint64_t fold; /* of the signs of a rotated vector, by 64 elements */
    } known[] = { { 64, 0x5ce0c281d69d1dfau },
                  { 128, 0x2d7f1936f65c36f0u },
                  { 832, 0x55e61bd7fdd50156u },
                  { 1024, 0xd83acde35c30bfceu },
                  { 8192, 0xc6feb5dcee113cf6u } };
    static const float zero[WIDTH_MAX];
    static struct kithi_bits_edge e;
    for (size_t n = 0; n < sizeof known / sizeof known[0]; n++) {
        uint32_t width = known[n].width;
        float *v = vector(0, width);
        for (uint32_t i = 0; i < width; i++)
            v[i] = (float)(i * 37 % 101) - 50;
        kithi_bits_rotate(v, width);
        kithi_bits_encode(zero, v, width, KITHI_METRIC_L2, &e);
        uint64_t fold = 0;
        for (uint32_t i = 0; i < width / 64; i++)
            fold = (fold ^ e.code[i]) * 0x9e3779b97f4a7c15u;
        if (fold != known[n].fold)
            fail_msg("width %u: 0x%016llx", width, (unsigned long long)fold);
    }
}

/* Vectors that a rotation of little randomness would leave as they are. */
enum shape { ONE_HOT, PAIR, CONSTANT, ALTERNATING, RAMP, PIXELS, SPARSE, TAIL, SHAPES };

static void fill_shape(struct test_rand *rand, enum shape shape, float *v, uint32_t width)
{
    uint32_t at = test_rand_below(rand, width), other = test_rand_below(rand, width);
    memset(v, 0, width * sizeof *v);
    switch (shape) {
    case ONE_HOT: v[at] = 1; break;
    case PAIR: v[at] = 1, v[other] += 1; break;
    case SPARSE:
        for (int i = 0; i < 8; i++)
            v[test_rand_below(rand, width)] = gauss(rand);
        v[at] = 1;
        break;
    case PIXELS: /* one block of an image */
        for (uint32_t i = at; i < width && i < at + 16; i++)
            v[i] = 255;
        break;
    case TAIL: v[width - 1 - at % 8] = 1; break;
    default:
        for (uint32_t i = 0; i < width; i++)
            v[i] = shape == CONSTANT ? 1 : shape == RAMP ? (float)(i + at) : i % 2 ? -1 : 1;
    }
}

static void rotated_vectors_look_random_whatever_they_were(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_seed(&rand, 1);
    for (size_t w = 0; w < WIDTH_COUNT; w++) {
        uint32_t width = widths[w];
        for (int shape = 0; shape < SHAPES; shape++) {
            /* Kurtosis is 3 for normal elements, 1 for elements of one size, width for a single element. */
            enum { SAMPLES = 30 };
            double fourth = 0, worst = 0, part = 0;
            for (int n = 0; n < SAMPLES; n++) {
                float *v = vector(0, width);
                fill_shape(&rand, (enum shape)shape, v, width);
                kithi_bits_rotate(v, width);
                double mean2 = product(v, v, width) / width, k = 0;
                for (uint32_t i = 0; i < width; i++) {
                    double z2 = (double)v[i] * (double)v[i] / mean2;
                    k += z2 * z2 / width;
                    worst = z2 > worst ? z2 : worst;
                }
                fourth += k / SAMPLES;
                part += product(v, v, width / 2) / (mean2 * width) / SAMPLES;
            }
            if (!(fourth > 2.2 && fourth < 4 && worst < 36 && part > 0.35 && part < 0.65))
                fail_msg("width %u, shape %d: kurtosis %.2f, largest %.1f, first half %.3f", width, shape,
                         fourth, sqrt(worst), part);
        }
    }
}

/* A query that was rotated into vector(0), with the table that the set makes of it. */
static struct kithi_query query_of(const struct kithi_kernel *set, uint32_t width)
{
    struct kithi_query q = {
        .dim = width, .width = width, .rotated = vector(0, width), .table = table(width)
    };
    set->table(q.rotated, width, table(width), &q.table_scale, &q.table_base);
    return q;
}

static void looks_add_up_to_the_product_within_a_step_each(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (size_t w = 0; w < WIDTH_COUNT; w++) {
        uint32_t width = widths[w], groups = width / 4;
        float *v = vector(0, width), size = ldexpf(1, (int)test_rand_below(&rand, 60) - 30);
        gauss_fill(&rand, v, width);
        for (uint32_t i = 0; i < width; i++)
            v[i] *= size;
        for (size_t s = 0; s < set_count; s++) {
            struct kithi_query q = query_of(sets[s], width);
            double scale = (double)q.table_scale, zero = (double)q.table_base / groups, squares = 0;
            for (uint32_t p = 0; p < groups; p++) {
                for (uint32_t n = 0; n < 16; n++) {
                    double want = 0;
                    for (uint32_t i = 0; i < 4; i++)
                        want += n >> i & 1 ? (double)v[4 * p + i] : -(double)v[4 * p + i];
                    double error = (scale * q.table[16 * p + n] + zero - want) / scale;
                    assert_true(fabs(error) < 1.01);
                    squares += error * error;
                }
            }
            assert_true(sqrt(squares / (16 * groups)) < 0.5); /* two roundings: 0.41 */
        }
    }
}

static void tables_of_nothing_and_of_too_much_are_survived(void **state)
{
    (void)state;
    static const float values[] = { 0, -0.0f, 1e-45f, 1e-38f, 1e38f, FLT_MAX, INFINITY, -INFINITY, NAN };
    enum { WIDTH = 128 };
    float est[PLACES];
    memset(block(WIDTH), 0, kithi_bits_block_size(WIDTH));
    for (size_t n = 0; n < sizeof values / sizeof values[0]; n++) {
        for (uint32_t i = 0; i < WIDTH; i++)
            vector(0, WIDTH)[i] = values[n];
        for (size_t s = 0; s < set_count; s++) {
            struct kithi_query q = query_of(sets[s], WIDTH);
            assert_true(isfinite(q.table_scale) && isfinite(q.table_base));
            assert_int_equal(sets[s]->estimate(&q, block(WIDTH), 1, 2, block(WIDTH), est), 0xffffffff);
        }
    }
}

static void random_block(struct test_rand *rand, uint32_t width)
{
    unsigned char *b = block(width);
    for (uint32_t i = 0; i < kithi_bits_block_size(width); i++)
        b[i] = (unsigned char)test_rand_u64(rand);
    for (uint32_t place = 0; place < PLACES; place++) {
        for (int which = 0; which < 2; which++)
            *factor(b, which, place) = gauss(rand);
        if (test_rand_below(rand, 4) == 0) { /* empty */
            *factor(b, 0, place) = *factor(b, 1, place) = 0;
            for (uint32_t i = 0; i < width / 4; i++)
                b[256 + 16 * i + place % 16] &= place < 16 ? 0xf0 : 0x0f;
        }
    }
}

/* All places of the block against the definition, with the error that the table is allowed. */
static void check_estimate(const struct kithi_kernel *set, uint32_t width, float distance, float limit)
{
    struct kithi_query q = query_of(set, width);
    const unsigned char *b = block(width);
    float est[PLACES + 2];
    est[0] = est[PLACES + 1] = 77;
    uint32_t below = set->estimate(&q, b, distance, limit, b, est + 1);
    assert_true(est[0] == 77 && est[PLACES + 1] == 77);
    for (uint32_t place = 0; place < PLACES; place++) {
        /* Exactly what the looks say, up to rounding of floats ... */
        double looks = 0, signs = 0, lengths = 0;
        for (uint32_t p = 0; p < width / 4; p++)
            looks += q.table[16 * p + (b[256 + 16 * p + place % 16] >> (place < 16 ? 0 : 4) & 15)];
        for (uint32_t i = 0; i < width; i++) {
            double v = (double)q.rotated[i];
            signs += sign_in(b, place, i) ? v : -v;
            lengths += fabs(v);
        }
        double f1 = (double)*factor(block(width), 0, place), f2 = (double)*factor(block(width), 1, place);
        double scale = (double)q.table_scale, base = (double)q.table_base, got = (double)est[1 + place];
        double want = (double)distance + f1 + f2 * (scale * looks + base);
        double magnitude = fabs((double)distance) + fabs(f1) + fabs(f2 * base);
        if (!(fabs(got - want) <= 4 * 0x1p-24 * magnitude))
            fail_msg("%s, width %u, place %u: %.9g, looks say %.9g", set->name, width, place, got, want);
        /* ... and near the product itself: a look is off by 0.41 steps or so, eight times that are too many. */
        want = (double)distance + f1 + f2 * signs;
        double bound =
            fabs(f2) * (scale * 0.41 * 8 * sqrt(width / 4) + 0x1p-20 * lengths) + 0x1p-20 * magnitude;
        if (!(fabs(got - want) <= bound))
            fail_msg("%s, width %u, place %u: %.9g, not %.9g", set->name, width, place, got, want);
        assert_int_equal(below >> place & 1, est[1 + place] < limit);
    }
}

static void every_set_estimates_what_the_block_says_and_reads_nothing_else(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (size_t w = 0; w < WIDTH_COUNT; w++) {
        for (int round = 0; round < 4; round++) {
            gauss_fill(&rand, vector(0, widths[w]), widths[w]);
            random_block(&rand, widths[w]);
            for (size_t s = 0; s < set_count; s++)
                check_estimate(sets[s], widths[w], 3, 3 + gauss(&rand));
        }
    }
}

static void sums_of_the_largest_looks_do_not_overflow(void **state)
{
    (void)state;
    for (size_t w = 0; w < WIDTH_COUNT; w++) {
        uint32_t width = widths[w];
        unsigned char *b = block(width);
        memset(b, 0xff, kithi_bits_block_size(width));
        for (uint32_t place = 0; place < PLACES; place++) {
            *factor(b, 0, place) = 0;
            *factor(b, 1, place) = 1;
        }
        for (uint32_t i = 0; i < width; i++)
            vector(0, width)[i] = 1;
        for (size_t s = 0; s < set_count; s++)
            check_estimate(sets[s], width, 0, (float)width);
        memset(b + 256, 0, kithi_bits_block_size(width) - 256);
        for (size_t s = 0; s < set_count; s++)
            check_estimate(sets[s], width, 0, 0);
    }
}

static void a_nan_is_never_below_the_limit_and_infinities_compare_as_such(void **state)
{
    (void)state;
    enum { WIDTH = 192 };
    struct test_rand rand;
    test_rand_init(&rand);
    gauss_fill(&rand, vector(0, WIDTH), WIDTH);
    memset(block(WIDTH), 0, kithi_bits_block_size(WIDTH));
    for (uint32_t place = 0; place < PLACES; place++) {
        static const float starts[4] = { NAN, INFINITY, -INFINITY, 0 };
        *factor(block(WIDTH), 0, place) = starts[place % 4];
    }
    *factor(block(WIDTH), 1, 11) = NAN;
    *factor(block(WIDTH), 0, 30) = INFINITY; /* minus infinity: no number */
    *factor(block(WIDTH), 1, 30) = vector(0, WIDTH)[0] > 0 ? INFINITY : -INFINITY;
    for (size_t s = 0; s < set_count; s++) {
        struct kithi_query q = query_of(sets[s], WIDTH);
        float est[PLACES];
        uint32_t below = sets[s]->estimate(&q, block(WIDTH), 1, 2, block(WIDTH), est);
        for (uint32_t place = 0; place < PLACES; place++) {
            if (place == 30)
                assert_int_equal(below >> place & 1, est[place] < 2);
            else
                assert_int_equal(below >> place & 1, place % 4 >= 2 && place != 11);
        }
        assert_int_equal(sets[s]->estimate(&q, block(WIDTH), 1, NAN, block(WIDTH), est), 0);
        assert_int_equal(sets[s]->estimate(&q, block(WIDTH), NAN, 2, block(WIDTH), est), 0);
        assert_int_equal(sets[s]->estimate(&q, block(WIDTH), 1, 1, block(WIDTH), est) & 0x8,
                         0); /* equal is not below */
    }
}

static void any_bytes_in_a_block_are_survived(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (int n = 0; n < 300; n++) {
        uint32_t width = 64 * (1 + test_rand_below(&rand, 16));
        gauss_fill(&rand, vector(0, width), width);
        for (uint32_t i = 0; i < kithi_bits_block_size(width); i++)
            block(width)[i] = (unsigned char)test_rand_u64(&rand);
        for (size_t s = 0; s < set_count; s++) {
            struct kithi_query q = query_of(sets[s], width);
            float est[PLACES];
            uint32_t below = sets[s]->estimate(&q, block(width), 1, 0.5f, block(width), est);
            for (uint32_t place = 0; place < PLACES; place++)
                assert_int_equal(below >> place & 1, est[place] < 0.5f);
        }
    }
}

static void a_place_is_written_alone_and_read_back(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    static struct kithi_bits_edge edges[PLACES];
    static uint64_t code[WIDTH_MAX / 64];
    bool back[PLACES];
    for (size_t w = 0; w < WIDTH_COUNT; w++) {
        uint32_t width = widths[w];
        memset(block(width), 0, kithi_bits_block_size(width));
        memset(edges, 0, sizeof edges);
        memset(back, 0, sizeof back);
        for (int n = 0; n < 100; n++) {
            uint32_t place = test_rand_below(&rand, PLACES);
            struct kithi_bits_edge *e = &edges[place];
            *e = (struct kithi_bits_edge){ gauss(&rand), gauss(&rand), gauss(&rand), gauss(&rand), { 0 } };
            for (uint32_t i = 0; i < width / 64; i++)
                e->code[i] = test_rand_u64(&rand);
            back[place] = test_rand_below(&rand, 2);
            kithi_bits_put(block(width), width, place, e, back[place]);
        }
        for (uint32_t place = 0; place < PLACES; place++) {
            const struct kithi_bits_edge *e = &edges[place];
            assert_true(*factor(block(width), 0, place) == (back[place] ? e->back_f1 : e->f1));
            assert_true(*factor(block(width), 1, place) == (back[place] ? e->back_f2 : e->f2));
            kithi_bits_get(block(width), width, place, code);
            for (uint32_t i = 0; i < width / 64; i++)
                assert_true(code[i] == (back[place] ? ~e->code[i] : e->code[i]));
            for (uint32_t i = 0; i < width; i++)
                assert_int_equal(sign_in(block(width), place, i), code[i / 64] >> i % 64 & 1);
        }
    }
}

static void equal_points_have_no_slope_and_keep_the_distance(void **state)
{
    (void)state;
    enum { WIDTH = 128 };
    struct test_rand rand;
    test_rand_init(&rand);
    static struct kithi_bits_edge e;
    gauss_fill(&rand, vector(0, WIDTH), WIDTH);
    gauss_fill(&rand, vector(1, WIDTH), WIDTH);
    for (uint32_t metric = KITHI_METRIC_L2; metric <= KITHI_METRIC_IP; metric++) {
        kithi_bits_encode(vector(1, WIDTH), vector(1, WIDTH), WIDTH, metric, &e);
        assert_true(e.f1 == 0 && e.f2 == 0 && e.back_f1 == 0 && e.back_f2 == 0);
        kithi_bits_put(block(WIDTH), WIDTH, 5, &e, false);
        for (size_t s = 0; s < set_count; s++) {
            struct kithi_query q = query_of(sets[s], WIDTH);
            float est[PLACES];
            sets[s]->estimate(&q, block(WIDTH), 1.25f, 2, block(WIDTH), est);
            assert_true(est[5] == 1.25f);
        }
    }
}

static void every_set_measures_a_link_as_double_precision_does(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    static uint64_t code[WIDTH_MAX / 64];
    for (size_t w = 0; w < WIDTH_COUNT; w++) {
        uint32_t width = widths[w];
        float *c = vector(1, width), *o = vector(2, width);
        gauss_fill(&rand, c, width);
        gauss_fill(&rand, o, width);
        o[width / 2] = c[width / 2]; /* not negative */
        for (size_t s = 0; s < set_count; s++) {
            struct kithi_bits_sums sums;
            sets[s]->measure(c, o, width, code, &sums);
            double length1 = 0, length2 = 0, signs = 0, along = 0, magnitude = 1;
            for (uint32_t i = 0; i < width; i++) {
                double r = (double)o[i] - (double)c[i];
                assert_int_equal(code[i / 64] >> i % 64 & 1, r >= 0);
                length1 += fabs(r);
                length2 += r * r;
                signs += r >= 0 ? (double)c[i] : -(double)c[i];
                along += r * (double)c[i];
                magnitude += fabs(r * (double)c[i]) + fabs((double)c[i]);
            }
            assert_true(fabs((double)sums.length1 - length1) < 1e-5 * length1);
            assert_true(fabs((double)sums.length2 - length2) < 1e-5 * length2);
            assert_true(fabs((double)sums.centre_signs - signs) < 1e-5 * magnitude);
            assert_true(fabs((double)sums.centre_along - along) < 1e-5 * magnitude);
        }
    }
}

/* What estimates of one kind of data are off by, in units of |q-c| |r| / sqrt(width), twice that for l2. */
struct errors {
    double n, sum, squares;
};

/* dim elements of each vector, then zeros up to width; o = c + r, and q - c of about the length of r. */
static void collect_errors(struct test_rand *rand, const struct kithi_kernel *set, enum shape shape,
                           uint32_t dim, uint32_t width, uint32_t metric, bool back, struct errors *out)
{
    static float q[WIDTH_MAX], c[WIDTH_MAX], o[PLACES][WIDTH_MAX];
    static struct kithi_bits_edge e;
    memset(q, 0, width * sizeof *q);
    memset(c, 0, width * sizeof *c);
    if (shape == SHAPES)
        gauss_fill(rand, c, dim);
    else
        fill_shape(rand, shape, c, dim);
    uint32_t count = back ? 1 : PLACES; /* back: the block belongs to o, and there is one */
    for (uint32_t place = 0; place < count; place++) {
        memset(o[place], 0, width * sizeof *o[place]);
        if (shape == SHAPES)
            gauss_fill(rand, o[place], dim);
        else
            fill_shape(rand, shape, o[place], dim);
    }
    gauss_fill(rand, q, dim);
    if (metric == KITHI_METRIC_COSINE) {
        kithi_normalise(q, q, dim);
        kithi_normalise(c, c, dim);
        for (uint32_t place = 0; place < count; place++)
            kithi_normalise(o[place], o[place], dim);
    }

    const float *owner = back ? o[0] : c;
    double from_owner = sqrt(distance2(q, owner, dim));
    double start = metric == KITHI_METRIC_L2 ? distance2(q, owner, dim) : 1 - product(q, owner, dim);
    float *near_end = vector(1, width), *far_end = vector(2, width);
    memcpy(near_end, c, width * sizeof *c);
    set->rotate(near_end, width);
    for (uint32_t place = 0; place < count; place++) {
        memcpy(far_end, o[place], width * sizeof *c);
        set->rotate(far_end, width);
        kithi_bits_encode(near_end, far_end, width, metric, &e);
        kithi_bits_put(block(width), width, place, &e, back);
    }
    memcpy(vector(0, width), q, width * sizeof *q);
    set->rotate(vector(0, width), width);
    struct kithi_query prepared = query_of(set, width);
    float est[PLACES];
    set->estimate(&prepared, block(width), (float)start, 0, block(width), est);

    for (uint32_t place = 0; place < count; place++) {
        const float *far = back ? c : o[place];
        double want = metric == KITHI_METRIC_L2 ? distance2(q, far, dim) : 1 - product(q, far, dim);
        double unit = from_owner * sqrt(distance2(owner, far, dim)) / sqrt(width);
        if (metric == KITHI_METRIC_L2)
            unit *= 2;
        double error = ((double)est[place] - want) / unit;
        if (unit > 0) {
            out->n++;
            out->sum += error;
            out->squares += error * error;
        }
    }
}

static void estimates_are_unbiased_and_as_good_as_stated(void **state)
{
    (void)state;
    static const struct {
        uint32_t dim, width;
    } sizes[] = { { 128, 128 }, { 100, 128 }, { 100, 256 }, { 784, 832 }, { 500, 512 } };
    struct test_rand rand;
    test_rand_seed(&rand, 2);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int shape = 0; shape <= SHAPES; shape++) {
            if (shape == CONSTANT || shape == ALTERNATING)
                continue; /* all vectors are the same */
            for (uint32_t metric = KITHI_METRIC_L2; metric <= KITHI_METRIC_IP; metric++) {
                for (int back = 0; back < 2; back++) {
                    struct errors e = { 0 };
                    for (int n = 0; n < (back ? 80 : 12); n++)
                        collect_errors(&rand, sets[(size_t)n % set_count], (enum shape)shape, sizes[i].dim,
                                       sizes[i].width, metric, back, &e);
                    /* Odd shapes are few directions, so that their errors are not independent. */
                    double mean = e.sum / e.n, rms = sqrt(e.squares / e.n);
                    bool good = shape == SHAPES ? rms > 0.45 && rms < 0.85 && fabs(mean) < 4 * rms / sqrt(e.n)
                                                : rms < 1.1 && fabs(mean) < 0.35;
                    if (!good)
                        fail_msg("dim %u, width %u, shape %d, metric %u%s: mean %.3f, rms %.3f of %.0f",
                                 sizes[i].dim, sizes[i].width, shape, metric, back ? ", back" : "", mean, rms,
                                 e.n);
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(width_is_a_multiple_of_64_that_holds_every_bit),
        cmocka_unit_test(rotation_keeps_lengths_and_angles_and_is_the_same_in_every_set),
        cmocka_unit_test(rotation_is_format),
        cmocka_unit_test(rotated_vectors_look_random_whatever_they_were),
        cmocka_unit_test(looks_add_up_to_the_product_within_a_step_each),
        cmocka_unit_test(tables_of_nothing_and_of_too_much_are_survived),
        cmocka_unit_test(every_set_estimates_what_the_block_says_and_reads_nothing_else),
        cmocka_unit_test(sums_of_the_largest_looks_do_not_overflow),
        cmocka_unit_test(a_nan_is_never_below_the_limit_and_infinities_compare_as_such),
        cmocka_unit_test(any_bytes_in_a_block_are_survived),
        cmocka_unit_test(a_place_is_written_alone_and_read_back),
        cmocka_unit_test(equal_points_have_no_slope_and_keep_the_distance),
        cmocka_unit_test(every_set_measures_a_link_as_double_precision_does),
        cmocka_unit_test(estimates_are_unbiased_and_as_good_as_stated),
    };
    return cmocka_run_group_tests_name("bits", tests, set_up, NULL);
}
