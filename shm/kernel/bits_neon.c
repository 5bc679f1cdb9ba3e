/*
 * bits_neon.c - estimates with NEON: 16 bytes of a block are one group of four signs.
 */
#include "shm/kernel/bits_priv.h"

#if defined(__aarch64__) && !KITHI_TSAN

#define LANES 4
#include "shm/kernel/bits_vec.h"

#include <arm_neon.h>

static uint32_t negatives(vec v)
{
    static const int32_t places[4] = { 0, 1, 2, 3 };
    uint32x4_t bits = vshrq_n_u32(vreinterpretq_u32_f32((float32x4_t)v), 31);
    return vaddvq_u32(vshlq_u32(bits, vld1q_s32(places)));
}

KITHI_BITS_VEC_SET(neon);

/* Looks of 16 neighbours, in 16-bit sums in order. */
struct sums {
    uint16x8_t first, last;
};

KITHI_KERNEL_INLINE void add_looks(struct sums *s, uint8x16_t table, uint8x16_t index)
{
    uint8x16_t looks = vqtbl1q_u8(table, index);
    s->first = vaddw_u8(s->first, vget_low_u8(looks));
    s->last = vaddw_high_u8(s->last, looks);
}

KITHI_KERNEL_INLINE void spill(const struct sums *s, uint32x4_t sums[4])
{
    sums[0] = vaddw_u16(sums[0], vget_low_u16(s->first));
    sums[1] = vaddw_high_u16(sums[1], s->first);
    sums[2] = vaddw_u16(sums[2], vget_low_u16(s->last));
    sums[3] = vaddw_high_u16(sums[3], s->last);
}

uint32_t kithi_bits_estimate_neon(const struct kithi_query *q, const unsigned char *block, float distance,
                                  float limit, const unsigned char *ahead, float est[KITHI_BITS_PLACES])
{
    static const int32_t places[4] = { 0, 1, 2, 3 };
    const uint16x8_t zero = vdupq_n_u16(0);
    const unsigned char *code = block + KITHI_BITS_CODES;
    const uint8_t *table = q->table;
    uint32x4_t sums[8] = { { 0 } };
    for (uint32_t left = q->width / 4; left > 0;) {
        struct sums low = { zero, zero }, high = { zero, zero };
        uint32_t n = left < 256 ? left : 256; /* 256 * 255 < 2^16 */
        left -= n;
        for (; n > 0; n--, code += 16, table += 16, ahead += 16) {
            KITHI_PREFETCH(ahead);
            uint8x16_t c = vld1q_u8(code), t = vld1q_u8(table);
            add_looks(&low, t, vandq_u8(c, vdupq_n_u8(15)));
            add_looks(&high, t, vshrq_n_u8(c, 4));
        }
        spill(&low, sums);
        spill(&high, sums + 4);
    }
    float32x4_t scale = vdupq_n_f32(q->table_scale), base = vdupq_n_f32(q->table_base);
    const float *f1 = (const float *)(const void *)(block + KITHI_BITS_F1);
    const float *f2 = (const float *)(const void *)(block + KITHI_BITS_F2);
    uint32_t below = 0;
    for (uint32_t i = 0; i < 8; i++) {
        float32x4_t product = vfmaq_f32(base, scale, vcvtq_f32_u32(sums[i]));
        float32x4_t start = vaddq_f32(vdupq_n_f32(distance), vld1q_f32(f1 + 4 * i));
        float32x4_t e = vfmaq_f32(start, vld1q_f32(f2 + 4 * i), product);
        vst1q_f32(est + 4 * i, e);
        uint32x4_t less = vshrq_n_u32(vcltq_f32(e, vdupq_n_f32(limit)), 31);
        below |= vaddvq_u32(vshlq_u32(less, vld1q_s32(places))) << 4 * i;
    }
    return below;
}

#endif
