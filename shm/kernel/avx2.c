/*
 * avx2.c - distances with 8 floats a register (AVX2, FMA and F16C).
 *
 * The same shape as avx512.c with half the width: eight sums, two query registers and the
 * loads of the rows as memory operands fit into the 16 registers. Tails are masked loads,
 * which touch no byte beyond the mask, or put together from smaller ones (tail_priv.h).
 */
#include "shm/kernel/bits_priv.h"
#include "shm/kernel/distance_priv.h"
#include "shm/kernel/query.h"
#include "shm/kernel/tail_priv.h"

#if defined(__x86_64__) && !KITHI_TSAN

#include <immintrin.h>

enum { LANES = 8 };

KITHI_KERNEL_INLINE __m256 add_term(__m256 sum, __m256 q, __m256 r, bool dot)
{
    if (dot)
        return _mm256_fmadd_ps(q, r, sum);
    __m256 d = _mm256_sub_ps(q, r);
    return _mm256_fmadd_ps(d, d, sum);
}

KITHI_KERNEL_INLINE __m256 load(const float *p)
{
    return _mm256_loadu_ps(p);
}

KITHI_KERNEL_INLINE __m256 load_tail(const float *p, __m256i mask)
{
    return _mm256_maskload_ps(p, mask);
}

KITHI_KERNEL_INLINE __m256i tail_mask(uint32_t left)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

KITHI_KERNEL_INLINE float sum_of(__m256 s8)
{
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/* The sums of four registers. */
KITHI_KERNEL_INLINE __m128 sums_of(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

KITHI_KERNEL_INLINE float one(const float *q, const float *row, uint32_t dim, bool dot)
{
    __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
    uint32_t i = 0;
    for (; dim - i >= 4 * LANES; i += 4 * LANES) {
        a = add_term(a, load(q + i), load(row + i), dot);
        b = add_term(b, load(q + i + LANES), load(row + i + LANES), dot);
        c = add_term(c, load(q + i + 2 * LANES), load(row + i + 2 * LANES), dot);
        d = add_term(d, load(q + i + 3 * LANES), load(row + i + 3 * LANES), dot);
    }
    if (dim - i >= 2 * LANES) {
        a = add_term(a, load(q + i), load(row + i), dot);
        b = add_term(b, load(q + i + LANES), load(row + i + LANES), dot);
        i += 2 * LANES;
    }
    if (dim - i >= LANES) {
        c = add_term(c, load(q + i), load(row + i), dot);
        i += LANES;
    }
    if (i < dim) {
        __m256i mask = tail_mask(dim - i);
        d = add_term(d, load_tail(q + i, mask), load_tail(row + i, mask), dot);
    }
    float sum = sum_of(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
    return dot ? 1.0f - sum : sum;
}

KITHI_KERNEL_INLINE void four(const float *q, const float *const rows[4], uint32_t dim, float out[4],
                              bool dot)
{
    const float *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
    __m256 a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0;
    __m256 b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    uint32_t i = 0;
    for (; dim - i >= 2 * LANES; i += 2 * LANES) {
        __m256 x = load(q + i), y = load(q + i + LANES);
        a0 = add_term(a0, x, load(r0 + i), dot);
        a1 = add_term(a1, x, load(r1 + i), dot);
        a2 = add_term(a2, x, load(r2 + i), dot);
        a3 = add_term(a3, x, load(r3 + i), dot);
        b0 = add_term(b0, y, load(r0 + i + LANES), dot);
        b1 = add_term(b1, y, load(r1 + i + LANES), dot);
        b2 = add_term(b2, y, load(r2 + i + LANES), dot);
        b3 = add_term(b3, y, load(r3 + i + LANES), dot);
    }
    if (dim - i >= LANES) {
        __m256 x = load(q + i);
        a0 = add_term(a0, x, load(r0 + i), dot);
        a1 = add_term(a1, x, load(r1 + i), dot);
        a2 = add_term(a2, x, load(r2 + i), dot);
        a3 = add_term(a3, x, load(r3 + i), dot);
        i += LANES;
    }
    if (i < dim) {
        __m256i mask = tail_mask(dim - i);
        __m256 x = load_tail(q + i, mask);
        b0 = add_term(b0, x, load_tail(r0 + i, mask), dot);
        b1 = add_term(b1, x, load_tail(r1 + i, mask), dot);
        b2 = add_term(b2, x, load_tail(r2 + i, mask), dot);
        b3 = add_term(b3, x, load_tail(r3 + i, mask), dot);
    }
    __m128 sum =
        sums_of(_mm256_add_ps(a0, b0), _mm256_add_ps(a1, b1), _mm256_add_ps(a2, b2), _mm256_add_ps(a3, b3));
    _mm_storeu_ps(out, dot ? _mm_sub_ps(_mm_set1_ps(1.0f), sum) : sum);
}

KITHI_KERNEL_INLINE __m128i load_upto_16(const void *p, uint32_t n)
{
    uint64_t v[2];
    kithi_load_upto_16(p, n, v);
    return _mm_set_epi64x((long long)v[1], (long long)v[0]);
}

/* 8 half floats, or the last of them and zeros. */
KITHI_KERNEL_INLINE __m256 load_half(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

KITHI_KERNEL_INLINE __m256 load_half_tail(const uint16_t *p, uint32_t left)
{
    return _mm256_cvtph_ps(load_upto_16(p, 2 * left));
}

/* Squares of q - scale * h, or products q * h: those are scaled at the end. */
KITHI_KERNEL_INLINE __m256 add_half(__m256 sum, __m256 q, __m256 h, __m256 scale, bool dot)
{
    if (dot)
        return _mm256_fmadd_ps(q, h, sum);
    __m256 d = _mm256_fnmadd_ps(scale, h, q);
    return _mm256_fmadd_ps(d, d, sum);
}

KITHI_KERNEL_INLINE float half_one(const float *q, const uint16_t *row, float scale, uint32_t dim, bool dot)
{
    __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a, s = _mm256_set1_ps(scale);
    uint32_t i = 0;
    for (; dim - i >= 4 * LANES; i += 4 * LANES) {
        a = add_half(a, load(q + i), load_half(row + i), s, dot);
        b = add_half(b, load(q + i + LANES), load_half(row + i + LANES), s, dot);
        c = add_half(c, load(q + i + 2 * LANES), load_half(row + i + 2 * LANES), s, dot);
        d = add_half(d, load(q + i + 3 * LANES), load_half(row + i + 3 * LANES), s, dot);
    }
    for (; dim - i >= LANES; i += LANES)
        a = add_half(a, load(q + i), load_half(row + i), s, dot);
    if (i < dim)
        b = add_half(b, load_tail(q + i, tail_mask(dim - i)), load_half_tail(row + i, dim - i), s, dot);
    float sum = sum_of(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
    return dot ? 1.0f - sum * scale : sum;
}

KITHI_KERNEL_INLINE void half_four(const float *q, const uint16_t *const rows[4], const float scales[4],
                                   uint32_t dim, float out[4], bool dot)
{
    const uint16_t *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
    __m256 s0 = _mm256_set1_ps(scales[0]), s1 = _mm256_set1_ps(scales[1]);
    __m256 s2 = _mm256_set1_ps(scales[2]), s3 = _mm256_set1_ps(scales[3]);
    __m256 a0 = _mm256_setzero_ps(), a1 = a0, a2 = a0, a3 = a0;
    uint32_t i = 0;
    for (; dim - i >= LANES; i += LANES) {
        __m256 x = load(q + i);
        a0 = add_half(a0, x, load_half(r0 + i), s0, dot);
        a1 = add_half(a1, x, load_half(r1 + i), s1, dot);
        a2 = add_half(a2, x, load_half(r2 + i), s2, dot);
        a3 = add_half(a3, x, load_half(r3 + i), s3, dot);
    }
    if (i < dim) {
        uint32_t left = dim - i;
        __m256 x = load_tail(q + i, tail_mask(left));
        a0 = add_half(a0, x, load_half_tail(r0 + i, left), s0, dot);
        a1 = add_half(a1, x, load_half_tail(r1 + i, left), s1, dot);
        a2 = add_half(a2, x, load_half_tail(r2 + i, left), s2, dot);
        a3 = add_half(a3, x, load_half_tail(r3 + i, left), s3, dot);
    }
    __m128 sum = sums_of(a0, a1, a2, a3);
    _mm_storeu_ps(out, dot ? _mm_sub_ps(_mm_set1_ps(1.0f), _mm_mul_ps(sum, _mm_loadu_ps(scales))) : sum);
}

KITHI_KERNEL_INLINE float half_pair(const uint16_t *a, float a_scale, const uint16_t *b, float b_scale,
                                    uint32_t dim, bool dot)
{
    __m256 x_scale = _mm256_set1_ps(dot ? 1.0f : a_scale), y_scale = _mm256_set1_ps(b_scale);
    __m256 s = _mm256_setzero_ps(), t = s;
    uint32_t i = 0;
    for (; dim - i >= 2 * LANES; i += 2 * LANES) {
        s = add_half(s, _mm256_mul_ps(x_scale, load_half(a + i)), load_half(b + i), y_scale, dot);
        t = add_half(t, _mm256_mul_ps(x_scale, load_half(a + i + LANES)), load_half(b + i + LANES), y_scale,
                     dot);
    }
    if (dim - i >= LANES) {
        s = add_half(s, _mm256_mul_ps(x_scale, load_half(a + i)), load_half(b + i), y_scale, dot);
        i += LANES;
    }
    if (i < dim) {
        __m256 x = load_half_tail(a + i, dim - i), y = load_half_tail(b + i, dim - i);
        t = add_half(t, _mm256_mul_ps(x_scale, x), y, y_scale, dot);
    }
    float sum = sum_of(_mm256_add_ps(s, t));
    return dot ? 1.0f - sum * a_scale * b_scale : sum;
}

enum { BYTES = 16 }; /* bytes a step: widened to 16 words */

KITHI_KERNEL_INLINE __m256i load_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}

KITHI_KERNEL_INLINE __m256i load_bytes_tail(const uint8_t *p, uint32_t left)
{
    return _mm256_cvtepu8_epi16(load_upto_16(p, left));
}

/* 4096 / 8 * 255 * 16383 < 2^31: the 8 sums of 32 bits do not overflow. */
KITHI_KERNEL_INLINE __m256i add_words(__m256i sum, __m256i a, __m256i b)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}

KITHI_KERNEL_INLINE __m256i load_words(const int16_t *p) /* the query's: aligned, padded with zeros */
{
    return _mm256_load_si256((const __m256i *)(const void *)p);
}

/* 8 numbers of 32 bits into 4 of 64, of the same sum. */
KITHI_KERNEL_INLINE __m256i widen(__m256i v)
{
    return _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
                            _mm256_cvtepi32_epi64(_mm256_extracti128_si256(v, 1)));
}

KITHI_KERNEL_INLINE int64_t integer_sum_of(__m256i v)
{
    __m256i four = widen(v);
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

KITHI_KERNEL_INLINE int64_t byte_one(const struct kithi_query *q, const uint8_t *u)
{
    const int16_t *words = q->words;
    __m256i a = _mm256_setzero_si256(), b = a;
    uint32_t i = 0, dim = q->dim;
    for (; dim - i >= 2 * BYTES; i += 2 * BYTES) {
        a = add_words(a, load_bytes(u + i), load_words(words + i));
        b = add_words(b, load_bytes(u + i + BYTES), load_words(words + i + BYTES));
    }
    if (dim - i >= BYTES) {
        a = add_words(a, load_bytes(u + i), load_words(words + i));
        i += BYTES;
    }
    if (i < dim)
        b = add_words(b, load_bytes_tail(u + i, dim - i), load_words(words + i));
    return integer_sum_of(_mm256_add_epi32(a, b));
}

KITHI_KERNEL_INLINE void byte_four(const struct kithi_query *q, const uint8_t *const u[4], int64_t out[4])
{
    const uint8_t *u0 = u[0], *u1 = u[1], *u2 = u[2], *u3 = u[3];
    const int16_t *words = q->words;
    __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
    uint32_t i = 0, dim = q->dim;
    for (; dim - i >= BYTES; i += BYTES) {
        __m256i w = load_words(words + i);
        a0 = add_words(a0, load_bytes(u0 + i), w);
        a1 = add_words(a1, load_bytes(u1 + i), w);
        a2 = add_words(a2, load_bytes(u2 + i), w);
        a3 = add_words(a3, load_bytes(u3 + i), w);
    }
    if (i < dim) {
        uint32_t left = dim - i;
        __m256i w = load_words(words + i);
        a0 = add_words(a0, load_bytes_tail(u0 + i, left), w);
        a1 = add_words(a1, load_bytes_tail(u1 + i, left), w);
        a2 = add_words(a2, load_bytes_tail(u2 + i, left), w);
        a3 = add_words(a3, load_bytes_tail(u3 + i, left), w);
    }
    __m256i w0 = widen(a0), w1 = widen(a1), w2 = widen(a2), w3 = widen(a3);
    __m256i w01 = _mm256_add_epi64(_mm256_unpacklo_epi64(w0, w1), _mm256_unpackhi_epi64(w0, w1));
    __m256i w23 = _mm256_add_epi64(_mm256_unpacklo_epi64(w2, w3), _mm256_unpackhi_epi64(w2, w3));
    __m256i sums = _mm256_add_epi64(_mm256_permute2x128_si256(w01, w23, 0x20),
                                    _mm256_permute2x128_si256(w01, w23, 0x31));
    _mm256_storeu_si256((__m256i *)(void *)out, sums);
}

KITHI_KERNEL_INLINE int64_t byte_pair(const uint8_t *a, const uint8_t *b, uint32_t dim, uint32_t a_sum)
{
    (void)a_sum;
    __m256i s = _mm256_setzero_si256(), t = s;
    uint32_t i = 0;
    for (; dim - i >= 2 * BYTES; i += 2 * BYTES) {
        s = add_words(s, load_bytes(a + i), load_bytes(b + i));
        t = add_words(t, load_bytes(a + i + BYTES), load_bytes(b + i + BYTES));
    }
    if (dim - i >= BYTES) {
        s = add_words(s, load_bytes(a + i), load_bytes(b + i));
        i += BYTES;
    }
    if (i < dim)
        t = add_words(t, load_bytes_tail(a + i, dim - i), load_bytes_tail(b + i, dim - i));
    return integer_sum_of(_mm256_add_epi32(s, t));
}

#include "shm/kernel/codes_priv.h"

KITHI_KERNEL_SET(avx2, avx2);

#endif
