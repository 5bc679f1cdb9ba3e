/*
 * neondot.c - the set neon with products of bytes by the dot product instructions: no byte is widened.
 *
 * They multiply bytes of one kind. A word of the query is 128 * high + low: low is not negative and meets the
 * code's bytes as they are; high is signed and meets them less 128, which its sum makes good.
 */
#include "shm/kernel/bits_priv.h"
#include "shm/kernel/distance_priv.h"

#if defined(__aarch64__) && !KITHI_TSAN

#include "shm/kernel/neon_priv.h"

/* 16 words of the query, and sums of products: at most 4096 / 4 * 255 * 128 each. */
struct words {
    int8x16_t high;
    uint8x16_t low;
};

struct sum {
    int32x4_t high;
    uint32x4_t low;
};

KITHI_KERNEL_INLINE struct words load_words(const struct kithi_query *q, uint32_t i) /* padded with zeros */
{
    return (struct words){ vld1q_s8(q->high + i), vreinterpretq_u8_s8(vld1q_s8(q->low + i)) };
}

KITHI_KERNEL_INLINE struct sum zero(void)
{
    return (struct sum){ vdupq_n_s32(0), vdupq_n_u32(0) };
}

KITHI_KERNEL_INLINE struct sum add_words(struct sum s, struct words w, uint8x16_t u)
{
    s.high = vdotq_s32(s.high, vreinterpretq_s8_u8(veorq_u8(u, vdupq_n_u8(0x80))), w.high);
    s.low = vdotq_u32(s.low, u, w.low);
    return s;
}

KITHI_KERNEL_INLINE int64_t total(const struct kithi_query *q, struct sum s)
{
    int64_t high = vaddlvq_s32(s.high) + 128 * (int64_t)q->high_sum;
    return 128 * high + (int64_t)vaddlvq_u32(s.low);
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

KITHI_KERNEL_INLINE int64_t byte_pair(const uint8_t *a, const uint8_t *b, uint32_t dim, uint32_t a_sum)
{
    (void)a_sum;
    uint32x4_t s = vdupq_n_u32(0);
    uint32_t i = 0;
    for (; dim - i >= BYTES; i += BYTES)
        s = vdotq_u32(s, load_bytes(a + i), load_bytes(b + i));
    if (i < dim)
        s = vdotq_u32(s, load_bytes_tail(a + i, dim - i), load_bytes_tail(b + i, dim - i));
    return (int64_t)vaddlvq_u32(s);
}

#include "shm/kernel/codes_priv.h"

KITHI_KERNEL_SET(neondot, neon);

#endif
