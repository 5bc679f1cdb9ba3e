/*
 * neon.c - the set for every aarch64 CPU. Bytes are widened to words of 16 bits.
 */
#include "shm/kernel/bits_priv.h"
#include "shm/kernel/distance_priv.h"

#if defined(__aarch64__) && !KITHI_TSAN

#include "shm/kernel/neon_priv.h"

/* 16 words of the query, and sums of products: 4096 / 8 * 255 * 16383 < 2^31, so that none overflows. */
struct words {
    int16x8_t low, high;
};

struct sum {
    int32x4_t a, b;
};

KITHI_KERNEL_INLINE struct words load_words(const struct kithi_query *q, uint32_t i)
{
    return (struct words){ vld1q_s16(q->words + i), vld1q_s16(q->words + i + 8) };
}

KITHI_KERNEL_INLINE struct sum zero(void)
{
    return (struct sum){ vdupq_n_s32(0), vdupq_n_s32(0) };
}

KITHI_KERNEL_INLINE struct sum add_words(struct sum s, struct words w, uint8x16_t u)
{
    int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(u)));
    int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(u));
    s.a = vmlal_s16(s.a, vget_low_s16(low), vget_low_s16(w.low));
    s.b = vmlal_high_s16(s.b, low, w.low);
    s.a = vmlal_s16(s.a, vget_low_s16(high), vget_low_s16(w.high));
    s.b = vmlal_high_s16(s.b, high, w.high);
    return s;
}

KITHI_KERNEL_INLINE int64_t total(const struct kithi_query *q, struct sum s)
{
    (void)q;
    return vaddlvq_s32(s.a) + vaddlvq_s32(s.b);
}

KITHI_KERNEL_INLINE int64_t byte_one(const struct kithi_query *q, const uint8_t *u)
{
    struct sum s = zero();
    uint32_t i = 0, dim = q->dim;
    for (; dim - i >= BYTES; i += BYTES)
        s = add_words(s, load_words(q, i), load_bytes(u + i));
    if (i < dim)
        s = add_words(s, load_words(q, i), load_bytes_tail(u + i, dim - i));
    return total(q, s);
}

KITHI_KERNEL_INLINE void byte_four(const struct kithi_query *q, const uint8_t *const u[4], int64_t out[4])
{
    const uint8_t *u0 = u[0], *u1 = u[1], *u2 = u[2], *u3 = u[3];
    struct sum s0 = zero(), s1 = s0, s2 = s0, s3 = s0;
    uint32_t i = 0, dim = q->dim;
    for (; dim - i >= BYTES; i += BYTES) {
        struct words w = load_words(q, i);
        s0 = add_words(s0, w, load_bytes(u0 + i));
        s1 = add_words(s1, w, load_bytes(u1 + i));
        s2 = add_words(s2, w, load_bytes(u2 + i));
        s3 = add_words(s3, w, load_bytes(u3 + i));
    }
    if (i < dim) {
        uint32_t left = dim - i;
        struct words w = load_words(q, i);
        s0 = add_words(s0, w, load_bytes_tail(u0 + i, left));
        s1 = add_words(s1, w, load_bytes_tail(u1 + i, left));
        s2 = add_words(s2, w, load_bytes_tail(u2 + i, left));
        s3 = add_words(s3, w, load_bytes_tail(u3 + i, left));
    }
    out[0] = total(q, s0);
    out[1] = total(q, s1);
    out[2] = total(q, s2);
    out[3] = total(q, s3);
}

KITHI_KERNEL_INLINE uint32x4_t add_bytes(uint32x4_t sum, uint8x16_t a, uint8x16_t b)
{
    sum = vpadalq_u16(sum, vmull_u8(vget_low_u8(a), vget_low_u8(b)));
    return vpadalq_u16(sum, vmull_high_u8(a, b));
}

KITHI_KERNEL_INLINE int64_t byte_pair(const uint8_t *a, const uint8_t *b, uint32_t dim, uint32_t a_sum)
{
    (void)a_sum;
    uint32x4_t s = vdupq_n_u32(0);
    uint32_t i = 0;
    for (; dim - i >= BYTES; i += BYTES)
        s = add_bytes(s, load_bytes(a + i), load_bytes(b + i));
    if (i < dim)
        s = add_bytes(s, load_bytes_tail(a + i, dim - i), load_bytes_tail(b + i, dim - i));
    return (int64_t)vaddlvq_u32(s);
}

#include "shm/kernel/codes_priv.h"

KITHI_KERNEL_SET(neon, neon);

#endif
