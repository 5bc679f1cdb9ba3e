/*
 * neon.c - distances with 4 floats a register (NEON, which every aarch64 CPU has).
 *
 * One row: four sums. Four rows: two sums a row, rows read in turn, so that a row out of
 * cache does not hold back the other three. NEON has no masked loads: the last one to
 * three elements are loaded one by one into a zeroed register.
 */
#include "shm/kernel/distance_priv.h"

#if defined(__aarch64__) && !KITHI_TSAN

#include <arm_neon.h>

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
    float32x4_t s01 = vpaddq_f32(vaddq_f32(a0, b0), vaddq_f32(a1, b1));
    float32x4_t s23 = vpaddq_f32(vaddq_f32(a2, b2), vaddq_f32(a3, b3));
    float32x4_t sum = vpaddq_f32(s01, s23);
    vst1q_f32(out, dot ? vsubq_f32(vdupq_n_f32(1.0f), sum) : sum);
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

const struct kithi_kernel kithi_kernel_neon = { "neon", l2, ip, l2_4, ip_4 };

#endif
