/*
 * test_distance.c - every kernel set this CPU can run, against sums in double precision.
 *
 * Error bounds. A set sums in at least 8 lanes, so an element goes through at most
 * dim/8 + 1 additions in its lane, one in the tail, at most 5 when lanes are folded, and
 * costs at most 3 roundings itself: (dim/8 + 16) units of 2^-24, relative to the sum of the
 * magnitudes that are added. For l2 that sum is the distance itself; for ip it is
 * 1 + sum |a*b|.
 */
#include "shm/kernel/distance.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/rand.h"

enum { SET_MAX = 8, ROWS = 4, EVERY_DIM_TO = 130 };

static const struct kithi_kernel *sets[SET_MAX];
static size_t set_count;

/* Room for the largest vector between two pages that nobody may touch. */
struct fenced {
    char *map;
    size_t page, room;
};

static struct fenced query_room, row_room[ROWS];

static struct fenced fenced_new(void)
{
    struct fenced f = { .page = (size_t)sysconf(_SC_PAGESIZE) };
    f.room = (KITHI_DIM_MAX * sizeof(float) + f.page - 1) / f.page * f.page;
    f.map = mmap(NULL, f.room + 2 * f.page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(f.map, MAP_FAILED);
    assert_int_equal(mprotect(f.map, f.page, PROT_NONE), 0);
    assert_int_equal(mprotect(f.map + f.page + f.room, f.page, PROT_NONE), 0);
    return f;
}

/* dim floats that end where the upper fence begins, */
static float *at_end(const struct fenced *f, uint32_t dim)
{
    return (float *)(void *)(f->map + f->page + f->room - dim * sizeof(float));
}

/* or that begin where the lower fence ends. */
static float *at_start(const struct fenced *f)
{
    return (float *)(void *)(f->map + f->page);
}

static int set_up(void **state)
{
    (void)state;
    static const char *const names[SET_MAX] = { "scalar",     "avx2",       "avx512", /* worst first */
                                                "avx512vnni", "avx512vbmi", "neon",   "neondot", "tsan" };
    fprintf(stderr, "sets:");
    for (size_t i = 0; i < SET_MAX; i++) {
        const struct kithi_kernel *set = kithi_kernel_named(names[i]);
        if (set) {
            sets[set_count++] = set;
            fprintf(stderr, " %s", names[i]);
        }
    }
    fprintf(stderr, "\n");
    query_room = fenced_new();
    for (size_t r = 0; r < ROWS; r++)
        row_room[r] = fenced_new();
    return set_count ? 0 : -1;
}

static void assert_near(const char *set, const char *what, uint32_t dim, float got, double want,
                        double magnitude)
{
    double bound = (dim / 8.0 + 16.0) * 0x1p-24 * magnitude;
    if (!(fabs((double)got - want) <= bound)) {
        fail_msg("%s %s dim %u: %.9g, want %.9g within %.3g", set, what, dim, (double)got, want, bound);
    }
}

/* All distances of one set between a query and four rows. */
static void check(const struct kithi_kernel *set, const float *query, const float *const rows[ROWS],
                  uint32_t dim)
{
    float l2[ROWS], ip[ROWS];
    set->l2_4(query, rows, dim, l2);
    set->ip_4(query, rows, dim, ip);
    for (size_t r = 0; r < ROWS; r++) {
        double square = 0, dot = 0, magnitude = 1;
        for (uint32_t i = 0; i < dim; i++) {
            double q = (double)query[i], x = (double)rows[r][i];
            square += (q - x) * (q - x);
            dot += q * x;
            magnitude += fabs(q * x);
        }
        assert_near(set->name, "l2", dim, set->l2(query, rows[r], dim), square, square);
        assert_near(set->name, "l2_4", dim, l2[r], square, square);
        assert_near(set->name, "ip", dim, set->ip(query, rows[r], dim), 1 - dot, magnitude);
        assert_near(set->name, "ip_4", dim, ip[r], 1 - dot, magnitude);
    }
}

static void check_random(struct test_rand *rand, float *query, float *const rows[ROWS], uint32_t dim)
{
    float scale = ldexpf(1.0f, (int)test_rand_below(rand, 41) - 20);
    test_rand_floats(rand, query, dim);
    for (size_t r = 0; r < ROWS; r++) {
        test_rand_floats(rand, rows[r], dim);
        for (uint32_t i = 0; i < dim; i++)
            rows[r][i] *= scale;
    }
    const float *const readable[ROWS] = { rows[0], rows[1], rows[2], rows[3] };
    for (size_t s = 0; s < set_count; s++)
        check(sets[s], query, readable, dim);
}

/* Vectors lie against the fences, so that a read before or past a row ends the test. */
static void check_fenced(struct test_rand *rand, uint32_t dim)
{
    float *rows[ROWS];
    for (size_t r = 0; r < ROWS; r++)
        rows[r] = at_end(&row_room[r], dim);
    check_random(rand, at_end(&query_room, dim), rows, dim);
    for (size_t r = 0; r < ROWS; r++)
        rows[r] = at_start(&row_room[r]);
    check_random(rand, at_start(&query_room), rows, dim);
}

static void every_set_agrees_with_double_precision_and_stays_inside_the_rows(void **state)
{
    (void)state;
    static const uint32_t usual[] = { 200, 256, 384, 512, 768, 784, 960, 1024, 1536, 3072, 4095, 4096 };
    struct test_rand rand;
    test_rand_init(&rand);
    for (uint32_t dim = 1; dim <= EVERY_DIM_TO; dim++)
        check_fenced(&rand, dim);
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        check_fenced(&rand, usual[i]);
    for (int i = 0; i < 100; i++)
        check_fenced(&rand, 1 + test_rand_below(&rand, KITHI_DIM_MAX));
}

static void rows_need_no_more_than_the_alignment_of_a_float(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (uint32_t dim = 1; dim <= EVERY_DIM_TO; dim++) {
        float *rows[ROWS];
        for (size_t r = 0; r < ROWS; r++)
            rows[r] = at_start(&row_room[r]) + test_rand_below(&rand, 16);
        check_random(&rand, at_start(&query_room) + test_rand_below(&rand, 16), rows, dim);
    }
}

static void every_element_counts_once_and_in_its_own_row(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim <= EVERY_DIM_TO; dim++) {
        float *query = at_end(&query_room, dim);
        const float *rows[ROWS];
        for (uint32_t i = 0; i < dim; i++)
            query[i] = 1.0f;
        for (size_t r = 0; r < ROWS; r++) {
            float *row = at_end(&row_room[r], dim);
            memcpy(row, query, dim * sizeof(float));
            rows[r] = row;
        }
        for (uint32_t i = 0; i < dim; i++) {
            for (size_t r = 0; r < ROWS; r++)
                at_end(&row_room[r], dim)[i] += (float)(r + 1);
            for (size_t s = 0; s < set_count; s++) {
                float l2[ROWS], ip[ROWS];
                sets[s]->l2_4(query, rows, dim, l2);
                sets[s]->ip_4(query, rows, dim, ip);
                for (size_t r = 0; r < ROWS; r++) {
                    float more = (float)(r + 1), dot = (float)dim + more; /* small integers: exact */
                    assert_true(l2[r] == more * more);
                    assert_true(sets[s]->l2(query, rows[r], dim) == more * more);
                    assert_true(ip[r] == 1.0f - dot);
                    assert_true(sets[s]->ip(query, rows[r], dim) == 1.0f - dot);
                }
            }
            for (size_t r = 0; r < ROWS; r++)
                at_end(&row_room[r], dim)[i] = 1.0f;
        }
    }
}

static void vector_of_ones_has_squared_distance_dim_to_zero_and_inner_product_dim(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim <= KITHI_DIM_MAX; dim += dim < EVERY_DIM_TO ? 1 : 61) {
        float *ones = at_end(&query_room, dim), *zeros = at_end(&row_room[0], dim);
        for (uint32_t i = 0; i < dim; i++) {
            ones[i] = 1.0f;
            zeros[i] = 0.0f;
        }
        for (size_t s = 0; s < set_count; s++) {
            assert_true(sets[s]->l2(ones, zeros, dim) == (float)dim);
            assert_true(sets[s]->ip(ones, ones, dim) == 1.0f - (float)dim);
            assert_true(sets[s]->ip(ones, zeros, dim) == 1.0f);
        }
    }
}

static void distance_to_itself_is_zero_and_order_does_not_matter(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (int n = 0; n < 200; n++) {
        uint32_t dim = 1 + test_rand_below(&rand, KITHI_DIM_MAX);
        float *a = at_end(&query_room, dim), *b = at_end(&row_room[0], dim);
        test_rand_floats(&rand, a, dim);
        test_rand_floats(&rand, b, dim);
        const float *const same[ROWS] = { a, a, a, a };
        for (size_t s = 0; s < set_count; s++) {
            float l2[ROWS];
            sets[s]->l2_4(a, same, dim, l2);
            assert_true(sets[s]->l2(a, a, dim) == 0.0f);
            assert_true(l2[0] == 0.0f && l2[1] == 0.0f && l2[2] == 0.0f && l2[3] == 0.0f);
            assert_true(sets[s]->l2(a, b, dim) == sets[s]->l2(b, a, dim));
            assert_true(sets[s]->ip(a, b, dim) == sets[s]->ip(b, a, dim));
        }
    }
}

static void nan_is_seen_in_every_position(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim <= EVERY_DIM_TO; dim++) {
        float *query = at_end(&query_room, dim), *row = at_end(&row_room[0], dim);
        for (uint32_t i = 0; i < dim; i++)
            query[i] = row[i] = 1.0f;
        const float *const rows[ROWS] = { query, query, row, query };
        for (uint32_t i = 0; i < dim; i++) {
            row[i] = NAN;
            for (size_t s = 0; s < set_count; s++) {
                float l2[ROWS], ip[ROWS];
                sets[s]->l2_4(query, rows, dim, l2);
                sets[s]->ip_4(query, rows, dim, ip);
                assert_true(isnan(sets[s]->l2(query, row, dim)) && isnan(sets[s]->ip(query, row, dim)));
                assert_true(isnan(l2[2]) && isnan(ip[2]));
                assert_true(l2[1] == 0.0f && ip[3] == 1.0f - (float)dim); /* the other rows do not */
            }
            row[i] = 1.0f;
        }
    }
}

static void any_bits_in_a_row_are_survived(void **state)
{
    (void)state;
    static const float special[] = { INFINITY, -INFINITY, NAN,   FLT_MAX, -FLT_MAX,
                                     FLT_MIN,  0x1p-149f, -0.0f, 0.0f,    -0x1p-140f };
    struct test_rand rand;
    test_rand_init(&rand);
    for (int n = 0; n < 2000; n++) {
        uint32_t dim = 1 + test_rand_below(&rand, 300);
        float *query = at_end(&query_room, dim), *rows[ROWS];
        for (size_t r = 0; r < ROWS; r++) {
            rows[r] = at_end(&row_room[r], dim);
            for (uint32_t i = 0; i < dim; i++) {
                uint32_t bits = (uint32_t)test_rand_u64(&rand);
                memcpy(&rows[r][i], &bits, sizeof bits);
                if (n % 2)
                    rows[r][i] = special[bits % (sizeof special / sizeof special[0])];
            }
        }
        test_rand_floats(&rand, query, dim);
        const float *const readable[ROWS] = { rows[0], rows[1], rows[2], rows[3] };
        for (size_t s = 0; s < set_count; s++) {
            float out[ROWS];
            sets[s]->ip_4(query, readable, dim, out);
            sets[s]->l2_4(query, readable, dim, out);
            for (size_t r = 0; r < ROWS; r++) {
                float one = sets[s]->l2(query, rows[r], dim);
                assert_true(isnan(one) == isnan(out[r]) && isinf(one) == isinf(out[r]));
                assert_true(!(one < 0.0f) && !(out[r] < 0.0f));
                (void)sets[s]->ip(query, rows[r], dim);
            }
        }
    }
}

static void denormals_have_small_distances(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim <= EVERY_DIM_TO; dim++) {
        float *query = at_end(&query_room, dim), *row = at_end(&row_room[0], dim);
        for (uint32_t i = 0; i < dim; i++) {
            query[i] = 1.0f;
            row[i] = i % 2 ? 0x1p-149f : -0x1p-130f;
        }
        for (size_t s = 0; s < set_count; s++) {
            assert_true(sets[s]->l2(row, query, dim) == (float)dim);
            assert_true(sets[s]->ip(row, query, dim) == 1.0f);
            assert_true(sets[s]->l2(row, row, dim) == 0.0f);
        }
    }
}

/* The name that a fresh process picks under KITH_KERNEL=wish (NULL: unset). */
static void picked_under(const char *wish, char out[16])
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (wish)
            setenv("KITH_KERNEL", wish, 1);
        else
            unsetenv("KITH_KERNEL");
        char name[16] = { 0 };
        strncpy(name, kithi_kernel_pick()->name, sizeof name - 1);
        _exit(write(ends[1], name, sizeof name) == sizeof name ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(read(ends[0], out, 16), 16);
    close(ends[0]);
    close(ends[1]);
}

/* Runs before any test that picks: a child inherits the pick of its parent. */
static void kith_kernel_names_the_set_or_is_ignored(void **state)
{
    (void)state;
    char best[16], got[16];
    picked_under(NULL, best);
    assert_string_equal(best, sets[set_count - 1]->name);
    for (size_t s = 0; s < set_count; s++) {
        picked_under(sets[s]->name, got);
        assert_string_equal(got, sets[s]->name);
    }
    static const char *const absent[] = { "", "sse9", "AVX2", "scalar ", "avx51" };
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        assert_null(kithi_kernel_named(absent[i]));
        picked_under(absent[i], got);
        assert_string_equal(got, best);
    }
}

static void *pick_in_a_thread(void *unused)
{
    (void)unused;
    return (void *)(uintptr_t)kithi_kernel_pick();
}

static void all_threads_pick_the_same_set(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pick_in_a_thread, NULL), 0);
    for (size_t i = 0; i < THREADS; i++) {
        void *got;
        assert_int_equal(pthread_join(threads[i], &got), 0);
        assert_ptr_equal(got, kithi_kernel_pick());
    }
    assert_ptr_equal(kithi_kernel_named(kithi_kernel_pick()->name), kithi_kernel_pick());
}

static void finite_means_neither_nan_nor_infinity_anywhere(void **state)
{
    (void)state;
    static const uint32_t bad[] = { 0x7f800000u, 0xff800000u, 0x7fc00000u,
                                    0xffc00000u, 0x7f800001u, 0xffffffffu };
    static const uint32_t good[] = {
        0u, 0x80000000u, 0x7f7fffffu, 0xff7fffffu, 1u, 0x807fffffu, 0x00800000u
    };
    assert_true(kithi_floats_finite(at_end(&query_room, 0), 0));
    for (uint32_t n = 1; n <= EVERY_DIM_TO; n++) {
        float *v = at_end(&query_room, n);
        for (uint32_t i = 0; i < n; i++)
            memcpy(&v[i], &good[i % (sizeof good / sizeof good[0])], sizeof v[i]);
        assert_true(kithi_floats_finite(v, n));
        for (uint32_t i = 0; i < n; i++) {
            float kept = v[i];
            memcpy(&v[i], &bad[(i + n) % (sizeof bad / sizeof bad[0])], sizeof v[i]);
            assert_false(kithi_floats_finite(v, n));
            v[i] = kept;
        }
    }
}

static void range_is_from_the_least_to_the_largest_of_all(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (uint32_t n = 1; n <= EVERY_DIM_TO; n++) {
        float *v = at_end(&query_room, n), low, high;
        for (uint32_t at = 0; at < n; at++) {
            test_rand_floats(&rand, v, n);
            for (int sign = -1; sign <= 1; sign += 2) {
                float place = (float)sign * 3.0f, least = INFINITY, largest = -INFINITY;
                v[at] = (float)sign * (float)test_rand_below(&rand, 3);
                for (uint32_t i = 0; i < n; i++) {
                    v[i] += place;
                    least = fminf(least, v[i]);
                    largest = fmaxf(largest, v[i]);
                }
                kithi_floats_range(v, n, &low, &high);
                assert_true(low == least && high == largest);
            }
        }
    }
}

static void finite_agrees_with_isfinite_on_random_bits(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (int n = 0; n < 20000; n++) {
        uint32_t count = 1 + test_rand_below(&rand, 200);
        float *v = at_end(&query_room, count);
        bool want = true;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t bits = (uint32_t)test_rand_u64(&rand);
            memcpy(&v[i], &bits, sizeof bits);
            want = want && isfinite(v[i]);
        }
        assert_true(kithi_floats_finite(v, count) == want);
    }
}

static double length_of(const float *v, uint32_t dim)
{
    double sum = 0;
    for (uint32_t i = 0; i < dim; i++)
        sum += (double)v[i] * (double)v[i];
    return sqrt(sum);
}

static void normalised_vectors_have_length_one_at_any_scale(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    for (int n = 0; n < 2000; n++) {
        uint32_t dim = 1 + test_rand_below(&rand, n % 10 ? EVERY_DIM_TO : KITHI_DIM_MAX);
        float *src = at_end(&query_room, dim), *dst = at_end(&row_room[0], dim);
        int exponent = (int)test_rand_below(&rand, 240) - 120;
        test_rand_floats(&rand, src, dim);
        src[0] = 1.0f; /* never all zero */
        for (uint32_t i = 0; i < dim; i++)
            src[i] = ldexpf(src[i], exponent);
        double want = length_of(src, dim);
        float got = kithi_normalise(dst, src, dim);
        assert_true(fabs((double)got - want) <= want * 0x1p-23);
        assert_true(fabs(length_of(dst, dim) - 1) <= 0x1p-23);
        assert_true(kithi_normalise(src, src, dim) == got); /* in place: the same */
        assert_memory_equal(src, dst, dim * sizeof(float));
    }
}

static void the_largest_and_the_smallest_floats_have_a_direction(void **state)
{
    (void)state;
    float *v = at_end(&query_room, KITHI_DIM_MAX);
    for (uint32_t i = 0; i < KITHI_DIM_MAX; i++)
        v[i] = i % 2 ? FLT_MAX : -FLT_MAX;
    assert_true(kithi_normalise(v, v, KITHI_DIM_MAX) == FLT_MAX); /* 64 times that, in truth */
    assert_true(v[0] == -1.0f / 64 && v[KITHI_DIM_MAX - 1] == 1.0f / 64);

    float large[2] = { FLT_MAX, 0 }, small[3] = { 0, 0x1p-149f, 0 };
    assert_true(kithi_normalise(large, large, 2) == FLT_MAX);
    assert_true(large[0] == 1.0f && large[1] == 0.0f);
    assert_true(kithi_normalise(small, small, 3) == 0x1p-149f);
    assert_true(small[0] == 0.0f && small[1] == 1.0f && small[2] == 0.0f);
}

static void vectors_without_direction_are_refused_and_nothing_is_written(void **state)
{
    (void)state;
    static const float cases[][3] = {
        { 0, 0, 0 }, { -0.0f, 0, -0.0f }, { 1, NAN, 1 }, { INFINITY, 1, 1 }, { 1, 1, -INFINITY }
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float dst[3] = { 7, 8, 9 };
        assert_true(kithi_normalise(dst, cases[i], 3) == 0.0f);
        assert_true(dst[0] == 7.0f && dst[1] == 8.0f && dst[2] == 9.0f);
    }
}

/* Range, length and words of a query, to the bit: codes and sq8 distances do not depend on the CPU. */
static void all_sets_prepare_vectors_alike(void **state)
{
    (void)state;
    struct test_rand rand;
    test_rand_init(&rand);
    static int16_t words[2][KITHI_DIM_MAX];
    static int8_t high[2][KITHI_DIM_MAX], low[2][KITHI_DIM_MAX];
    static float unit[KITHI_DIM_MAX];
    for (int n = 0; n < 500; n++) {
        uint32_t dim = n < EVERY_DIM_TO ? (uint32_t)n + 1 : 1 + test_rand_below(&rand, KITHI_DIM_MAX);
        float *v = at_end(&query_room, dim), *dst = at_end(&row_room[0], dim), least, largest, a, b;
        test_rand_floats(&rand, v, dim);
        v[test_rand_below(&rand, dim)] = 1.5f; /* never all zero */
        float len = sets[0]->normalise(unit, v, dim);
        sets[0]->range(v, dim, &least, &largest);
        float base = (least + largest) / 2, inverse = 16383.0f / (largest - least + 1.0f);
        struct kithi_word_sums sums, other;
        sets[0]->words(v, dim, base, inverse, &(struct kithi_words){ words[0], high[0], low[0], &sums });
        for (size_t s = 1; s < set_count; s++) {
            assert_true(sets[s]->normalise(dst, v, dim) == len);
            assert_memory_equal(dst, unit, dim * sizeof *dst);
            sets[s]->range(v, dim, &a, &b);
            assert_true(a == least && b == largest);
            sets[s]->words(v, dim, base, inverse, &(struct kithi_words){ words[1], high[1], low[1], &other });
            assert_memory_equal(words[1], words[0], dim * sizeof words[0][0]);
            assert_memory_equal(high[1], high[0], dim);
            assert_memory_equal(low[1], low[0], dim);
            assert_memory_equal(&other, &sums, sizeof sums);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kith_kernel_names_the_set_or_is_ignored),
        cmocka_unit_test(all_threads_pick_the_same_set),
        cmocka_unit_test(every_set_agrees_with_double_precision_and_stays_inside_the_rows),
        cmocka_unit_test(rows_need_no_more_than_the_alignment_of_a_float),
        cmocka_unit_test(every_element_counts_once_and_in_its_own_row),
        cmocka_unit_test(vector_of_ones_has_squared_distance_dim_to_zero_and_inner_product_dim),
        cmocka_unit_test(distance_to_itself_is_zero_and_order_does_not_matter),
        cmocka_unit_test(nan_is_seen_in_every_position),
        cmocka_unit_test(any_bits_in_a_row_are_survived),
        cmocka_unit_test(denormals_have_small_distances),
        cmocka_unit_test(finite_means_neither_nan_nor_infinity_anywhere),
        cmocka_unit_test(range_is_from_the_least_to_the_largest_of_all),
        cmocka_unit_test(all_sets_prepare_vectors_alike),
        cmocka_unit_test(finite_agrees_with_isfinite_on_random_bits),
        cmocka_unit_test(normalised_vectors_have_length_one_at_any_scale),
        cmocka_unit_test(the_largest_and_the_smallest_floats_have_a_direction),
        cmocka_unit_test(vectors_without_direction_are_refused_and_nothing_is_written),
    };
    return cmocka_run_group_tests_name("distance", tests, set_up, NULL);
}
