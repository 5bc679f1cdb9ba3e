/*
 * distance.h - distances between vectors and their codes, by the best instructions this CPU has.
 *
 * Knows floats and codes (codec.h) and nothing of segments. The set is picked once, on first use: the best one
 * that CPU and operating system support. The environment variable KITH_KERNEL overrides the pick, for tests; a
 * name that this build or this CPU does not have is ignored and the best set is used.
 *
 *   scalar       every CPU
 *   avx2         AVX2, FMA, F16C
 *   avx512       and AVX-512 F, BW, DQ, VL
 *   avx512vnni   and AVX-512 VNNI
 *   avx512vbmi   and AVX-512 VBMI, for estimates (bits.h); else as avx512vnni
 *   neon         every aarch64 CPU
 *   neondot      and the dot product instructions
 *   tsan         builds for ThreadSanitizer have this one only: it loads codes by relaxed atomics
 *
 * No kernel reads past the last element of a row or of a code.
 *
 * Distances: l2 = sum (a-b)^2; ip = 1 - sum a*b. Cosine is ip over normalised vectors. Sums
 * of floats are float, in 8 to 64 partial sums: sets, and the one-row and four-row versions of one set,
 * may differ in the last bits. Distances over sq8 codes are the same in all sets: exact integers, and a few
 * operations in double.
 * Bytes of a shared segment may change under a kernel: any result is acceptable then, the
 * caller's birth check (PROTOCOL.md, [P2 birth]) drops it.
 */
#ifndef KITHI_KERNEL_DISTANCE_H
#define KITHI_KERNEL_DISTANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KITHI_DIM_MAX 4096u

enum kithi_metric { /* the numbers are format */
                    KITHI_METRIC_L2 = 1,
                    KITHI_METRIC_COSINE = 2,
                    KITHI_METRIC_IP = 3,
};

/* One distance. query and row: dim floats, 4-byte aligned; they may alias. */
typedef float kithi_dist_fn(const float *query, const float *row, uint32_t dim);

/* Four rows against one query: four independent miss streams, the query loaded once. */
typedef void kithi_dist4_fn(const float *query, const float *const rows[4], uint32_t dim, float out[4]);

struct kithi_query;

/* A prepared query against one or four codes; a code against a code. A NaN may come back when bytes are hostile. */
typedef float kithi_code_fn(const struct kithi_query *q, const unsigned char *code);
typedef void kithi_code4_fn(const struct kithi_query *q, const unsigned char *const codes[4], float out[4]);
typedef float kithi_pair_fn(const unsigned char *a, const unsigned char *b, uint32_t dim);

/* Distances over one codec under one metric. */
struct kithi_distances {
    kithi_code_fn *one;
    kithi_code4_fn *four;
    kithi_pair_fn *pair;
};

typedef uint32_t kithi_bits_estimate_fn(const struct kithi_query *q, const unsigned char *block,
                                        float distance, float limit, const unsigned char *ahead,
                                        float est[32]);
/* The elements of an sq8 code in float arithmetic, where kithi_code_decode() takes doubles: for what is made of many. */
typedef void kithi_decode_fn(const unsigned char *code, uint32_t dim, float *out);
typedef void kithi_bits_rotate_fn(float *v, uint32_t width);
typedef void kithi_bits_table_fn(const float *rotated, uint32_t width, uint8_t *table, float *out_scale,
                                 float *out_base);

/* What bits.c makes the factors of a link from. With r = neighbour - centre, and x its signs: */
struct kithi_bits_sums {
    float length1, length2;           /* sum |r[i]|, sum r[i]^2 */
    float centre_signs, centre_along; /* <centre, x>, <centre, r> */
};
typedef void kithi_bits_measure_fn(const float *centre, const float *neighbour, uint32_t width,
                                   uint64_t *code, struct kithi_bits_sums *out);

/* Once for each vector (once_priv.h): the least and the largest element, unit length, the words of a query (query.h). */
typedef void kithi_range_fn(const float *v, uint32_t n, float *out_low, float *out_high);
typedef float kithi_normalise_fn(float *dst, const float *src, uint32_t dim);

/* Of the halves of words: w = 128 h + l. */
struct kithi_word_sums {
    int32_t h, hl;
    uint32_t l, hh, ll;
};
struct kithi_words {
    int16_t *words;
    int8_t *high, *low;
    struct kithi_word_sums *sums;
};
typedef void kithi_words_fn(const float *v, uint32_t dim, float base, float inverse,
                            const struct kithi_words *out);

struct kithi_kernel {
    const char *name; /* "scalar", "avx2", "avx512", "avx512vnni", "avx512vbmi", "neon", "neondot", "tsan" */
    kithi_dist_fn *l2;
    kithi_dist_fn *ip; /* 1 - dot */
    kithi_dist4_fn *l2_4;
    kithi_dist4_fn *ip_4;
    struct kithi_distances of[3][2];  /* [enum kithi_codec][0: l2, 1: 1 - dot] */
    kithi_bits_estimate_fn *estimate; /* bits.h, and for it: */
    kithi_decode_fn *decode;
    kithi_bits_rotate_fn *rotate;
    kithi_bits_table_fn *table;
    kithi_bits_measure_fn *measure;
    kithi_range_fn *range;
    kithi_normalise_fn *normalise;
    kithi_words_fn *words;
};

/* The distances of a codec under a metric. */
static inline const struct kithi_distances *kithi_kernel_distances(const struct kithi_kernel *k,
                                                                   unsigned codec, uint32_t metric)
{
    return &k->of[codec][metric != KITHI_METRIC_L2];
}

/* The set for this CPU (or for KITH_KERNEL); never NULL, constant for the process. Thread-safe. */
const struct kithi_kernel *kithi_kernel_pick(void);

/* A set by name, or NULL when this build or this CPU does not have it. For tests and benches. */
const struct kithi_kernel *kithi_kernel_named(const char *name);

/* True when all of n floats are finite. */
bool kithi_floats_finite(const float *v, size_t n);

/* The least and the largest of n finite floats, n > 0. Others count by their bits: some floats come back. */
void kithi_floats_range(const float *v, uint32_t n, float *out_low, float *out_high);

/*
 * Scale src to unit length into dst (may alias) and return the old length, or 0 when src
 * has no direction: all zero, or so small or large that its length is 0 or infinite in
 * double precision, which no vector of finite floats is unless it is all zero. A length
 * above FLT_MAX is returned as FLT_MAX. Sums in double. dst is written only on success.
 */
float kithi_normalise(float *dst, const float *src, uint32_t dim);

#endif
