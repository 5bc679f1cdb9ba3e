/*
 * avx512vnni.c - the set avx512 with products of bytes by VNNI: no byte is widened. The set avx512vbmi has the same
 * distances, and estimates of its own (bits_avx512vbmi.c).
 *
 * The instruction multiplies unsigned bytes with signed ones. A word of the query is 128 * high + low, two
 * signed bytes; of two codes, the second has 128 taken away.
 */
#include "shm/kernel/bits_priv.h"
#include "shm/kernel/distance_priv.h"

#if defined(__x86_64__) && !KITHI_TSAN

#include "shm/kernel/avx512_priv.h"

enum { BYTES = 64 }; /* bytes a step */

KITHI_KERNEL_INLINE __m512i load_bytes(const void *p)
{
    return _mm512_loadu_si512(p);
}

KITHI_KERNEL_INLINE __m512i load_bytes_tail(const void *p, __mmask64 mask)
{
    return _mm512_maskz_loadu_epi8(mask, p);
}

KITHI_KERNEL_INLINE __mmask64 byte_mask(uint32_t left)
{
    return ((__mmask64)1 << left) - 1;
}

/* 4096 / 16 * 255 * 128 * 128 < 2^31: the 16 sums of 32 bits do not overflow, put together either. */
KITHI_KERNEL_INLINE __m512i together(__m512i high, __m512i low)
{
    return _mm512_add_epi32(_mm512_slli_epi32(high, 7), low);
}

KITHI_KERNEL_INLINE int64_t byte_one(const struct kithi_query *q, const uint8_t *u)
{
    const int8_t *high = q->high, *low = q->low; /* padded with zeros */
    __m512i h = _mm512_setzero_si512(), l = h, h2 = h, l2 = h;
    uint32_t i = 0, dim = q->dim;
    for (; dim - i >= 2 * BYTES; i += 2 * BYTES) {
        __m512i x = load_bytes(u + i), y = load_bytes(u + i + BYTES);
        h = _mm512_dpbusd_epi32(h, x, load_bytes(high + i));
        l = _mm512_dpbusd_epi32(l, x, load_bytes(low + i));
        h2 = _mm512_dpbusd_epi32(h2, y, load_bytes(high + i + BYTES));
        l2 = _mm512_dpbusd_epi32(l2, y, load_bytes(low + i + BYTES));
    }
    if (dim - i >= BYTES) {
        __m512i x = load_bytes(u + i);
        h = _mm512_dpbusd_epi32(h, x, load_bytes(high + i));
        l = _mm512_dpbusd_epi32(l, x, load_bytes(low + i));
        i += BYTES;
    }
    if (i < dim) {
        __m512i y = load_bytes_tail(u + i, byte_mask(dim - i));
        h2 = _mm512_dpbusd_epi32(h2, y, load_bytes(high + i));
        l2 = _mm512_dpbusd_epi32(l2, y, load_bytes(low + i));
    }
    return integer_sum_of(together(_mm512_add_epi32(h, h2), _mm512_add_epi32(l, l2)));
}

KITHI_KERNEL_INLINE void byte_four(const struct kithi_query *q, const uint8_t *const u[4], int64_t out[4])
{
    const uint8_t *u0 = u[0], *u1 = u[1], *u2 = u[2], *u3 = u[3];
    const int8_t *high = q->high, *low = q->low; /* padded with zeros */
    __m512i h0 = _mm512_setzero_si512(), h1 = h0, h2 = h0, h3 = h0;
    __m512i l0 = h0, l1 = h0, l2 = h0, l3 = h0;
    uint32_t i = 0, dim = q->dim;
    for (; dim - i >= BYTES; i += BYTES) {
        __m512i h = load_bytes(high + i), l = load_bytes(low + i), x;
        x = load_bytes(u0 + i);
        h0 = _mm512_dpbusd_epi32(h0, x, h);
        l0 = _mm512_dpbusd_epi32(l0, x, l);
        x = load_bytes(u1 + i);
        h1 = _mm512_dpbusd_epi32(h1, x, h);
        l1 = _mm512_dpbusd_epi32(l1, x, l);
        x = load_bytes(u2 + i);
        h2 = _mm512_dpbusd_epi32(h2, x, h);
        l2 = _mm512_dpbusd_epi32(l2, x, l);
        x = load_bytes(u3 + i);
        h3 = _mm512_dpbusd_epi32(h3, x, h);
        l3 = _mm512_dpbusd_epi32(l3, x, l);
    }
    if (i < dim) {
        __mmask64 mask = byte_mask(dim - i);
        __m512i h = load_bytes(high + i), l = load_bytes(low + i), x;
        x = load_bytes_tail(u0 + i, mask);
        h0 = _mm512_dpbusd_epi32(h0, x, h);
        l0 = _mm512_dpbusd_epi32(l0, x, l);
        x = load_bytes_tail(u1 + i, mask);
        h1 = _mm512_dpbusd_epi32(h1, x, h);
        l1 = _mm512_dpbusd_epi32(l1, x, l);
        x = load_bytes_tail(u2 + i, mask);
        h2 = _mm512_dpbusd_epi32(h2, x, h);
        l2 = _mm512_dpbusd_epi32(l2, x, l);
        x = load_bytes_tail(u3 + i, mask);
        h3 = _mm512_dpbusd_epi32(h3, x, h);
        l3 = _mm512_dpbusd_epi32(l3, x, l);
    }
    integer_sums_of(together(h0, l0), together(h1, l1), together(h2, l2), together(h3, l3), out);
}

KITHI_KERNEL_INLINE int64_t byte_pair(const uint8_t *a, const uint8_t *b, uint32_t dim, uint32_t a_sum)
{
    __m512i top = _mm512_set1_epi8((char)0x80), s = _mm512_setzero_si512(), t = s;
    uint32_t i = 0;
    for (; dim - i >= 2 * BYTES; i += 2 * BYTES) {
        s = _mm512_dpbusd_epi32(s, load_bytes(a + i), _mm512_xor_si512(load_bytes(b + i), top));
        t = _mm512_dpbusd_epi32(t, load_bytes(a + i + BYTES),
                                _mm512_xor_si512(load_bytes(b + i + BYTES), top));
    }
    if (dim - i >= BYTES) {
        s = _mm512_dpbusd_epi32(s, load_bytes(a + i), _mm512_xor_si512(load_bytes(b + i), top));
        i += BYTES;
    }
    if (i < dim) {
        __mmask64 mask = byte_mask(dim - i);
        t = _mm512_dpbusd_epi32(t, load_bytes_tail(a + i, mask),
                                _mm512_xor_si512(load_bytes_tail(b + i, mask), top));
    }
    return integer_sum_of(_mm512_add_epi32(s, t)) + 128 * (int64_t)a_sum;
}

#include "shm/kernel/codes_priv.h"

KITHI_KERNEL_SET(avx512vnni, avx512);
KITHI_KERNEL_SET(avx512vbmi, avx512vbmi);

#endif
