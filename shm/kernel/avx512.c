/*
 * avx512.c - distances with 16 floats a register (AVX-512 F).
 *
 * One row: four sums hide the latency of the additions; a step reads four cache lines.
 * Four rows: two sums a row, rows read in turn, so that a row out of cache does not hold
 * back the other three. Tails are masked loads, which touch no byte beyond the mask.
 */
#include "shm/kernel/distance_priv.h"

#if defined(__x86_64__) && !KITHI_TSAN

#include <immintrin.h>

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
    __m256d high = _mm512_extractf64x4_pd(_mm512_castps_pd(v), 1); /* F has no extractf32x8 */
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(high));
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
    __m256 s01 = _mm256_hadd_ps(fold(_mm512_add_ps(a0, b0)), fold(_mm512_add_ps(a1, b1)));
    __m256 s23 = _mm256_hadd_ps(fold(_mm512_add_ps(a2, b2)), fold(_mm512_add_ps(a3, b3)));
    __m256 s = _mm256_hadd_ps(s01, s23);
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    _mm_storeu_ps(out, dot ? _mm_sub_ps(_mm_set1_ps(1.0f), sum) : sum);
}

static float l2(const float *query, const float *row, uint32_t dim)
{
    return one(query, row, dim, false);
}

static float ip(const float *query, const float *row, uint32_t dim)
{
    return one(query, row, dim, true);
}

static void l2_4(const float *query, const float *const rows[4], uint32_t dim, float out[4])
{
    four(query, rows, dim, out, false);
}

static void ip_4(const float *query, const float *const rows[4], uint32_t dim, float out[4])
{
    four(query, rows, dim, out, true);
}

const struct kithi_kernel kithi_kernel_avx512 = { "avx512", l2, ip, l2_4, ip_4 };

#endif
