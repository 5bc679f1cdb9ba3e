/*
 * avx512_priv.h - floats and half floats, 16 a register (AVX-512 F, BW, DQ and VL): what the sets avx512,
 * avx512vnni and avx512vbmi have in common.
 *
 * One row: four sums hide the latency of the additions; a step reads four cache lines.
 * Four rows: rows are read in turn, so that a row out of cache does not hold back the other three.
 * Tails are masked loads, which touch no byte beyond the mask.
 */
#ifndef KITHI_KERNEL_AVX512_PRIV_H
#define KITHI_KERNEL_AVX512_PRIV_H

#include <immintrin.h>

#include "shm/kernel/distance_priv.h"
#include "shm/kernel/query.h"

enum { LANES = 16 };

KITHI_KERNEL_INLINE __m512 add_term(__m512 sum, __m512 q, __m512 r, bool dot)
{
    if (dot)
        return _mm512_fmadd_ps(q, r, sum);
    __m512 d = _mm512_sub_ps(q, r);
    return _mm512_fmadd_ps(d, d, sum);
}

KITHI_KERNEL_INLINE __m512 load(const float *p)
{
    return _mm512_loadu_ps(p);
}

KITHI_KERNEL_INLINE __m512 load_tail(const float *p, __mmask16 mask)
{
    return _mm512_maskz_loadu_ps(mask, p);
}

KITHI_KERNEL_INLINE __mmask16 tail_mask(uint32_t left)
{
    return (__mmask16)((1u << left) - 1);
}

KITHI_KERNEL_INLINE float one(const float *q, const float *row, uint32_t dim, bool dot)
{
    __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
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
        __mmask16 mask = tail_mask(dim - i);
        d = add_term(d, load_tail(q + i, mask), load_tail(row + i, mask), dot);
    }
    float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
    return dot ? 1.0f - sum : sum;
}

/* The lower and the upper half added. */
KITHI_KERNEL_INLINE __m256 fold(__m512 v)
{
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

/* The sums of four registers. */
KITHI_KERNEL_INLINE __m128 sums_of(__m512 a, __m512 b, __m512 c, __m512 d)
{
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(fold(a), fold(b)), _mm256_hadd_ps(fold(c), fold(d)));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

KITHI_KERNEL_INLINE void four(const float *q, const float *const rows[4], uint32_t dim, float out[4],
                              bool dot)
{
    const float *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
    __m512 a0 = _mm512_setzero_ps(), a1 = a0, a2 = a0, a3 = a0;
    __m512 b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    uint32_t i = 0;
    for (; dim - i >= 2 * LANES; i += 2 * LANES) {
        __m512 x = load(q + i), y = load(q + i + LANES);
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
        __m512 x = load(q + i);
        a0 = add_term(a0, x, load(r0 + i), dot);
        a1 = add_term(a1, x, load(r1 + i), dot);
        a2 = add_term(a2, x, load(r2 + i), dot);
        a3 = add_term(a3, x, load(r3 + i), dot);
        i += LANES;
    }
    if (i < dim) {
        __mmask16 mask = tail_mask(dim - i);
        __m512 x = load_tail(q + i, mask);
        b0 = add_term(b0, x, load_tail(r0 + i, mask), dot);
        b1 = add_term(b1, x, load_tail(r1 + i, mask), dot);
        b2 = add_term(b2, x, load_tail(r2 + i, mask), dot);
        b3 = add_term(b3, x, load_tail(r3 + i, mask), dot);
    }
    __m128 sum =
        sums_of(_mm512_add_ps(a0, b0), _mm512_add_ps(a1, b1), _mm512_add_ps(a2, b2), _mm512_add_ps(a3, b3));
    _mm_storeu_ps(out, dot ? _mm_sub_ps(_mm_set1_ps(1.0f), sum) : sum);
}

/*
 * 16 half floats, or the last of them and zeros. They are widened even where the CPU computes with halves (AVX512-FP16):
 * that takes about half the time in cache, but its results have 11 bits. Flushed into floats after four products they are
 * still off by 1.4 to 130 times what test_query.c allows, and returned distances are made from f16, too. Exact
 * differences, as a half and what it is off by, take longer than floats do.
 */
KITHI_KERNEL_INLINE __m512 load_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

KITHI_KERNEL_INLINE __m512 load_half_tail(const uint16_t *p, __mmask16 mask)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
}

/* Squares of q - scale * h, or products q * h: those are scaled at the end. */
KITHI_KERNEL_INLINE __m512 add_half(__m512 sum, __m512 q, __m512 h, __m512 scale, bool dot)
{
    if (dot)
        return _mm512_fmadd_ps(q, h, sum);
    __m512 d = _mm512_fnmadd_ps(scale, h, q);
    return _mm512_fmadd_ps(d, d, sum);
}

KITHI_KERNEL_INLINE float half_one(const float *q, const uint16_t *row, float scale, uint32_t dim, bool dot)
{
    __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a, s = _mm512_set1_ps(scale);
    uint32_t i = 0;
    for (; dim - i >= 4 * LANES; i += 4 * LANES) {
        a = add_half(a, load(q + i), load_half(row + i), s, dot);
        b = add_half(b, load(q + i + LANES), load_half(row + i + LANES), s, dot);
        c = add_half(c, load(q + i + 2 * LANES), load_half(row + i + 2 * LANES), s, dot);
        d = add_half(d, load(q + i + 3 * LANES), load_half(row + i + 3 * LANES), s, dot);
    }
    for (; dim - i >= LANES; i += LANES)
        a = add_half(a, load(q + i), load_half(row + i), s, dot);
    if (i < dim) {
        __mmask16 mask = tail_mask(dim - i);
        b = add_half(b, load_tail(q + i, mask), load_half_tail(row + i, mask), s, dot);
    }
    float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
    return dot ? 1.0f - sum * scale : sum;
}

KITHI_KERNEL_INLINE void half_four(const float *q, const uint16_t *const rows[4], const float scales[4],
                                   uint32_t dim, float out[4], bool dot)
{
    const uint16_t *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
    __m512 s0 = _mm512_set1_ps(scales[0]), s1 = _mm512_set1_ps(scales[1]);
    __m512 s2 = _mm512_set1_ps(scales[2]), s3 = _mm512_set1_ps(scales[3]);
    __m512 a0 = _mm512_setzero_ps(), a1 = a0, a2 = a0, a3 = a0;
    uint32_t i = 0;
    for (; dim - i >= LANES; i += LANES) {
        __m512 x = load(q + i);
        a0 = add_half(a0, x, load_half(r0 + i), s0, dot);
        a1 = add_half(a1, x, load_half(r1 + i), s1, dot);
        a2 = add_half(a2, x, load_half(r2 + i), s2, dot);
        a3 = add_half(a3, x, load_half(r3 + i), s3, dot);
    }
    if (i < dim) {
        __mmask16 mask = tail_mask(dim - i);
        __m512 x = load_tail(q + i, mask);
        a0 = add_half(a0, x, load_half_tail(r0 + i, mask), s0, dot);
        a1 = add_half(a1, x, load_half_tail(r1 + i, mask), s1, dot);
        a2 = add_half(a2, x, load_half_tail(r2 + i, mask), s2, dot);
        a3 = add_half(a3, x, load_half_tail(r3 + i, mask), s3, dot);
    }
    __m128 sum = sums_of(a0, a1, a2, a3);
    _mm_storeu_ps(out, dot ? _mm_sub_ps(_mm_set1_ps(1.0f), _mm_mul_ps(sum, _mm_loadu_ps(scales))) : sum);
}

KITHI_KERNEL_INLINE float half_pair(const uint16_t *a, float a_scale, const uint16_t *b, float b_scale,
                                    uint32_t dim, bool dot)
{
    __m512 x_scale = _mm512_set1_ps(dot ? 1.0f : a_scale), y_scale = _mm512_set1_ps(b_scale);
    __m512 s = _mm512_setzero_ps(), t = s;
    uint32_t i = 0;
    for (; dim - i >= 2 * LANES; i += 2 * LANES) {
        s = add_half(s, _mm512_mul_ps(x_scale, load_half(a + i)), load_half(b + i), y_scale, dot);
        t = add_half(t, _mm512_mul_ps(x_scale, load_half(a + i + LANES)), load_half(b + i + LANES), y_scale,
                     dot);
    }
    if (dim - i >= LANES) {
        s = add_half(s, _mm512_mul_ps(x_scale, load_half(a + i)), load_half(b + i), y_scale, dot);
        i += LANES;
    }
    if (i < dim) {
        __mmask16 mask = tail_mask(dim - i);
        t = add_half(t, _mm512_mul_ps(x_scale, load_half_tail(a + i, mask)), load_half_tail(b + i, mask),
                     y_scale, dot);
    }
    float sum = _mm512_reduce_add_ps(_mm512_add_ps(s, t));
    return dot ? 1.0f - sum * a_scale * b_scale : sum;
}

/* The sum of 16 numbers of 32 bits, which need not fit into 32. */
KITHI_KERNEL_INLINE __m512i widen(__m512i v)
{
    return _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(v)),
                            _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(v, 1)));
}

KITHI_KERNEL_INLINE int64_t integer_sum_of(__m512i v)
{
    return _mm512_reduce_add_epi64(widen(v));
}

/* The same for four registers. */
KITHI_KERNEL_INLINE void integer_sums_of(__m512i a, __m512i b, __m512i c, __m512i d, int64_t out[4])
{
    __m512i w0 = widen(a), w1 = widen(b), w2 = widen(c), w3 = widen(d);
    __m512i w01 = _mm512_add_epi64(_mm512_unpacklo_epi64(w0, w1), _mm512_unpackhi_epi64(w0, w1));
    __m512i w23 = _mm512_add_epi64(_mm512_unpacklo_epi64(w2, w3), _mm512_unpackhi_epi64(w2, w3));
    __m256i x = _mm256_add_epi64(_mm512_castsi512_si256(w01), _mm512_extracti64x4_epi64(w01, 1));
    __m256i y = _mm256_add_epi64(_mm512_castsi512_si256(w23), _mm512_extracti64x4_epi64(w23, 1));
    __m256i sums =
        _mm256_add_epi64(_mm256_permute2x128_si256(x, y, 0x20), _mm256_permute2x128_si256(x, y, 0x31));
    _mm256_storeu_si256((__m256i *)(void *)out, sums);
}

#endif
