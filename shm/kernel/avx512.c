/*
 * avx512.c - the set for CPUs with AVX-512 F, BW, DQ and VL. Bytes are widened to words of 16 bits.
 */
#include "shm/kernel/bits_priv.h"
#include "shm/kernel/distance_priv.h"

#if defined(__x86_64__) && !KITHI_TSAN

#include "shm/kernel/avx512_priv.h"

enum { BYTES = 32 }; /* bytes a step */

KITHI_KERNEL_INLINE __m512i load_bytes(const uint8_t *p)
{
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

KITHI_KERNEL_INLINE __m512i load_bytes_tail(const uint8_t *p, uint32_t left)
{
    return _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8((1u << left) - 1, p));
}

KITHI_KERNEL_INLINE __m512i load_words(const int16_t *p) /* the query's: aligned, padded with zeros */
{
    return _mm512_load_si512(p);
}

/* 4096 / 16 * 255 * 16383 < 2^31: the 16 sums of 32 bits do not overflow. */
KITHI_KERNEL_INLINE __m512i add_words(__m512i sum, __m512i a, __m512i b)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
}

KITHI_KERNEL_INLINE int64_t byte_one(const struct kithi_query *q, const uint8_t *u)
{
    const int16_t *words = q->words;
    __m512i a = _mm512_setzero_si512(), b = a;
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
    return integer_sum_of(_mm512_add_epi32(a, b));
}

KITHI_KERNEL_INLINE void byte_four(const struct kithi_query *q, const uint8_t *const u[4], int64_t out[4])
{
    const uint8_t *u0 = u[0], *u1 = u[1], *u2 = u[2], *u3 = u[3];
    const int16_t *words = q->words;
    __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
    uint32_t i = 0, dim = q->dim;
    for (; dim - i >= BYTES; i += BYTES) {
        __m512i w = load_words(words + i);
        a0 = add_words(a0, load_bytes(u0 + i), w);
        a1 = add_words(a1, load_bytes(u1 + i), w);
        a2 = add_words(a2, load_bytes(u2 + i), w);
        a3 = add_words(a3, load_bytes(u3 + i), w);
    }
    if (i < dim) {
        uint32_t left = dim - i;
        __m512i w = load_words(words + i);
        a0 = add_words(a0, load_bytes_tail(u0 + i, left), w);
        a1 = add_words(a1, load_bytes_tail(u1 + i, left), w);
        a2 = add_words(a2, load_bytes_tail(u2 + i, left), w);
        a3 = add_words(a3, load_bytes_tail(u3 + i, left), w);
    }
    integer_sums_of(a0, a1, a2, a3, out);
}

KITHI_KERNEL_INLINE int64_t byte_pair(const uint8_t *a, const uint8_t *b, uint32_t dim, uint32_t a_sum)
{
    (void)a_sum;
    __m512i s = _mm512_setzero_si512(), t = s;
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
    return integer_sum_of(_mm512_add_epi32(s, t));
}

#include "shm/kernel/codes_priv.h"

KITHI_KERNEL_SET(avx512, avx512);

#endif
