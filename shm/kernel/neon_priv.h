/*
 * neon_priv.h - floats and half floats, 4 a register (NEON): what the sets neon and neondot have in common.
 *
 * One row: four sums. Four rows: rows read in turn, so that a row out of cache does not hold back the other
 * three. NEON has no masked loads: the last one to three elements are put together in a zeroed register.
 */
#ifndef KITHI_KERNEL_NEON_PRIV_H
#define KITHI_KERNEL_NEON_PRIV_H

#include <arm_neon.h>

#include "shm/kernel/distance_priv.h"
#include "shm/kernel/query.h"
#include "shm/kernel/tail_priv.h"

enum { LANES = 4 };

KITHI_KERNEL_INLINE float32x4_t add_term(float32x4_t sum, float32x4_t q, float32x4_t r, bool dot)
{
    if (dot)
        return vfmaq_f32(sum, q, r);
    float32x4_t d = vsubq_f32(q, r);
    return vfmaq_f32(sum, d, d);
}

KITHI_KERNEL_INLINE float32x4_t load(const float *p)
{
    return vld1q_f32(p);
}

KITHI_KERNEL_INLINE float32x4_t load_tail(const float *p, uint32_t left)
{
    float32x4_t v = vld1q_lane_f32(p, vdupq_n_f32(0.0f), 0);
    if (left > 1)
        v = vld1q_lane_f32(p + 1, v, 1);
    if (left > 2)
        v = vld1q_lane_f32(p + 2, v, 2);
    return v;
}

KITHI_KERNEL_INLINE float one(const float *q, const float *row, uint32_t dim, bool dot)
{
    float32x4_t a = vdupq_n_f32(0.0f), b = a, c = a, d = a;
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
    if (i < dim)
        d = add_term(d, load_tail(q + i, dim - i), load_tail(row + i, dim - i), dot);
    float sum = vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)));
    return dot ? 1.0f - sum : sum;
}

/* The sums of four registers. */
KITHI_KERNEL_INLINE float32x4_t sums_of(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d)
{
    return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
}

KITHI_KERNEL_INLINE void four(const float *q, const float *const rows[4], uint32_t dim, float out[4],
                              bool dot)
{
    const float *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
    float32x4_t a0 = vdupq_n_f32(0.0f), a1 = a0, a2 = a0, a3 = a0;
    float32x4_t b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    uint32_t i = 0;
    for (; dim - i >= 2 * LANES; i += 2 * LANES) {
        float32x4_t x = load(q + i), y = load(q + i + LANES);
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
        float32x4_t x = load(q + i);
        a0 = add_term(a0, x, load(r0 + i), dot);
        a1 = add_term(a1, x, load(r1 + i), dot);
        a2 = add_term(a2, x, load(r2 + i), dot);
        a3 = add_term(a3, x, load(r3 + i), dot);
        i += LANES;
    }
    if (i < dim) {
        uint32_t left = dim - i;
        float32x4_t x = load_tail(q + i, left);
        b0 = add_term(b0, x, load_tail(r0 + i, left), dot);
        b1 = add_term(b1, x, load_tail(r1 + i, left), dot);
        b2 = add_term(b2, x, load_tail(r2 + i, left), dot);
        b3 = add_term(b3, x, load_tail(r3 + i, left), dot);
    }
    float32x4_t sum = sums_of(vaddq_f32(a0, b0), vaddq_f32(a1, b1), vaddq_f32(a2, b2), vaddq_f32(a3, b3));
    vst1q_f32(out, dot ? vsubq_f32(vdupq_n_f32(1.0f), sum) : sum);
}

/* 4 half floats, or the last of them and zeros. */
KITHI_KERNEL_INLINE float32x4_t load_half(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

KITHI_KERNEL_INLINE float32x4_t load_half_tail(const uint16_t *p, uint32_t left)
{
    return vcvt_f32_f16(vcreate_f16(kithi_load_upto_8((const unsigned char *)p, 2 * left)));
}

/* Squares of q - scale * h, or products q * h: those are scaled at the end. */
KITHI_KERNEL_INLINE float32x4_t add_half(float32x4_t sum, float32x4_t q, float32x4_t h, float32x4_t scale,
                                         bool dot)
{
    if (dot)
        return vfmaq_f32(sum, q, h);
    float32x4_t d = vfmsq_f32(q, scale, h);
    return vfmaq_f32(sum, d, d);
}

KITHI_KERNEL_INLINE float half_one(const float *q, const uint16_t *row, float scale, uint32_t dim, bool dot)
{
    float32x4_t a = vdupq_n_f32(0.0f), b = a, c = a, d = a, s = vdupq_n_f32(scale);
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
        b = add_half(b, load_tail(q + i, dim - i), load_half_tail(row + i, dim - i), s, dot);
    float sum = vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)));
    return dot ? 1.0f - sum * scale : sum;
}

KITHI_KERNEL_INLINE void half_four(const float *q, const uint16_t *const rows[4], const float scales[4],
                                   uint32_t dim, float out[4], bool dot)
{
    const uint16_t *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
    float32x4_t s0 = vdupq_n_f32(scales[0]), s1 = vdupq_n_f32(scales[1]);
    float32x4_t s2 = vdupq_n_f32(scales[2]), s3 = vdupq_n_f32(scales[3]);
    float32x4_t a0 = vdupq_n_f32(0.0f), a1 = a0, a2 = a0, a3 = a0;
    uint32_t i = 0;
    for (; dim - i >= LANES; i += LANES) {
        float32x4_t x = load(q + i);
        a0 = add_half(a0, x, load_half(r0 + i), s0, dot);
        a1 = add_half(a1, x, load_half(r1 + i), s1, dot);
        a2 = add_half(a2, x, load_half(r2 + i), s2, dot);
        a3 = add_half(a3, x, load_half(r3 + i), s3, dot);
    }
    if (i < dim) {
        uint32_t left = dim - i;
        float32x4_t x = load_tail(q + i, left);
        a0 = add_half(a0, x, load_half_tail(r0 + i, left), s0, dot);
        a1 = add_half(a1, x, load_half_tail(r1 + i, left), s1, dot);
        a2 = add_half(a2, x, load_half_tail(r2 + i, left), s2, dot);
        a3 = add_half(a3, x, load_half_tail(r3 + i, left), s3, dot);
    }
    float32x4_t sum = sums_of(a0, a1, a2, a3);
    vst1q_f32(out, dot ? vsubq_f32(vdupq_n_f32(1.0f), vmulq_f32(sum, vld1q_f32(scales))) : sum);
}

KITHI_KERNEL_INLINE float half_pair(const uint16_t *a, float a_scale, const uint16_t *b, float b_scale,
                                    uint32_t dim, bool dot)
{
    float32x4_t x_scale = vdupq_n_f32(dot ? 1.0f : a_scale), y_scale = vdupq_n_f32(b_scale);
    float32x4_t s = vdupq_n_f32(0.0f), t = s;
    uint32_t i = 0;
    for (; dim - i >= 2 * LANES; i += 2 * LANES) {
        s = add_half(s, vmulq_f32(x_scale, load_half(a + i)), load_half(b + i), y_scale, dot);
        t = add_half(t, vmulq_f32(x_scale, load_half(a + i + LANES)), load_half(b + i + LANES), y_scale, dot);
    }
    if (dim - i >= LANES) {
        s = add_half(s, vmulq_f32(x_scale, load_half(a + i)), load_half(b + i), y_scale, dot);
        i += LANES;
    }
    if (i < dim) {
        float32x4_t x = load_half_tail(a + i, dim - i), y = load_half_tail(b + i, dim - i);
        t = add_half(t, vmulq_f32(x_scale, x), y, y_scale, dot);
    }
    float sum = vaddvq_f32(vaddq_f32(s, t));
    return dot ? 1.0f - sum * a_scale * b_scale : sum;
}

enum { BYTES = 16 }; /* bytes a step */

/* 16 bytes of a code, or the last of them and zeros. */
KITHI_KERNEL_INLINE uint8x16_t load_bytes(const uint8_t *p)
{
    return vld1q_u8(p);
}

KITHI_KERNEL_INLINE uint8x16_t load_bytes_tail(const uint8_t *p, uint32_t left)
{
    uint64_t v[2];
    kithi_load_upto_16(p, left, v);
    return vcombine_u8(vcreate_u8(v[0]), vcreate_u8(v[1]));
}

#endif
