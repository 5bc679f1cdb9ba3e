/*
 * codes_priv.h - what makes a whole kernel set out of the loops of one file.
 *
 * A set's file defines its loops, as functions to be inlined with a constant `dot`, and includes this last:
 *
 *   one, four               floats with floats: the distance
 *   half_one, half_four     floats with scaled half floats: the distance
 *   half_pair               scaled half floats with each other: the distance
 *   byte_one, byte_four     sum words[i] * u[i] (query.h), exactly
 *   byte_pair               sum a[i] * b[i], exactly; given the sum of a[i], too
 *
 * Then KITHI_KERNEL_SET() defines the set. The integers are exact and the rest of an sq8 distance is computed
 * here, in double and without contraction (shm/CMakeLists.txt): all sets give the same sq8 distances.
 */
#ifndef KITHI_KERNEL_CODES_PRIV_H
#define KITHI_KERNEL_CODES_PRIV_H

#include <string.h>

#include "shm/kernel/distance_priv.h"
#include "shm/kernel/query.h"

#if !KITHI_TSAN /* which has its own */
KITHI_KERNEL_INLINE struct kithi_code_head head_of(const unsigned char *code)
{
    struct kithi_code_head head;
    memcpy(&head, code, sizeof head);
    return head;
}
#endif

KITHI_KERNEL_INLINE const uint16_t *halves_of(const unsigned char *code)
{
    return (const uint16_t *)(const void *)(code + sizeof(struct kithi_code_head));
}

KITHI_KERNEL_INLINE const uint8_t *bytes_of(const unsigned char *code)
{
    return code + sizeof(struct kithi_code_head);
}

/* From the squared lengths of both sides and their product. A NaN stays one. */
KITHI_KERNEL_INLINE float from_product(double norm2_a, double norm2_b, double product, bool dot)
{
    if (dot)
        return (float)(1.0 - product);
    float square = (float)(norm2_a + norm2_b - 2.0 * product);
    return square < 0.0f ? 0.0f : square;
}

KITHI_KERNEL_INLINE float sq8_finish(const struct kithi_query *q, struct kithi_code_head head, int64_t sum,
                                     bool dot)
{
    double product = (double)head.offset * q->sum + (double)head.scale * (double)q->step * (double)sum;
    return from_product(q->norm2, (double)head.norm2, product, dot);
}

KITHI_KERNEL_INLINE float sq8_one(const struct kithi_query *q, const unsigned char *code, bool dot)
{
    return sq8_finish(q, head_of(code), byte_one(q, bytes_of(code)), dot);
}

KITHI_KERNEL_INLINE void sq8_four(const struct kithi_query *q, const unsigned char *const codes[4],
                                  float out[4], bool dot)
{
    const uint8_t *const u[4] = { bytes_of(codes[0]), bytes_of(codes[1]), bytes_of(codes[2]),
                                  bytes_of(codes[3]) };
    int64_t sums[4];
    double scale[4], offset[4], norm2[4], sum[4]; /* four of everything: for vector code */
    double q_sum = q->sum, q_step = (double)q->step, q_norm2 = q->norm2;
    byte_four(q, u, sums);
    for (int r = 0; r < 4; r++) {
        struct kithi_code_head head = head_of(codes[r]);
        scale[r] = (double)head.scale;
        offset[r] = (double)head.offset;
        norm2[r] = (double)head.norm2;
        sum[r] = (double)sums[r];
    }
    for (int r = 0; r < 4; r++) {
        double product = offset[r] * q_sum + scale[r] * q_step * sum[r];
        out[r] = from_product(q_norm2, norm2[r], product, dot);
    }
}

KITHI_KERNEL_INLINE float sq8_pair(const unsigned char *a, const unsigned char *b, uint32_t dim, bool dot)
{
    struct kithi_code_head x = head_of(a), y = head_of(b);
    double x_offset = (double)x.offset, x_scale = (double)x.scale, x_sum = (double)x.sum;
    double y_offset = (double)y.offset, y_scale = (double)y.scale, y_sum = (double)y.sum;
    double both = (double)byte_pair(bytes_of(a), bytes_of(b), dim, x.sum);
    double product = (double)dim * (x_offset * y_offset) +
                     (x_offset * (y_scale * y_sum) + y_offset * (x_scale * x_sum)) + x_scale * y_scale * both;
    return from_product((double)x.norm2, (double)y.norm2, product, dot);
}

KITHI_KERNEL_INLINE float f16_one(const struct kithi_query *q, const unsigned char *code, bool dot)
{
    return half_one(q->values, halves_of(code), head_of(code).scale, q->dim, dot);
}

KITHI_KERNEL_INLINE void f16_four(const struct kithi_query *q, const unsigned char *const codes[4],
                                  float out[4], bool dot)
{
    const uint16_t *const h[4] = { halves_of(codes[0]), halves_of(codes[1]), halves_of(codes[2]),
                                   halves_of(codes[3]) };
    const float scales[4] = { head_of(codes[0]).scale, head_of(codes[1]).scale, head_of(codes[2]).scale,
                              head_of(codes[3]).scale };
    half_four(q->values, h, scales, q->dim, out, dot);
}

KITHI_KERNEL_INLINE float f16_pair(const unsigned char *a, const unsigned char *b, uint32_t dim, bool dot)
{
    return half_pair(halves_of(a), head_of(a).scale, halves_of(b), head_of(b).scale, dim, dot);
}

KITHI_KERNEL_INLINE const float *floats_of(const unsigned char *code)
{
    return (const float *)(const void *)code;
}

KITHI_KERNEL_INLINE float f32_one(const struct kithi_query *q, const unsigned char *code, bool dot)
{
    return one(q->values, floats_of(code), q->dim, dot);
}

KITHI_KERNEL_INLINE void f32_four(const struct kithi_query *q, const unsigned char *const codes[4],
                                  float out[4], bool dot)
{
    const float *const rows[4] = { floats_of(codes[0]), floats_of(codes[1]), floats_of(codes[2]),
                                   floats_of(codes[3]) };
    four(q->values, rows, q->dim, out, dot);
}

KITHI_KERNEL_INLINE float f32_pair(const unsigned char *a, const unsigned char *b, uint32_t dim, bool dot)
{
    return one(floats_of(a), floats_of(b), dim, dot);
}

/* The functions of one codec under one metric, and of floats under one metric. */
#define KITHI_KERNEL_CODEC(codec, metric, dot)                                                               \
    static float codec##_one_##metric(const struct kithi_query *q, const unsigned char *code)                \
    {                                                                                                        \
        return codec##_one(q, code, dot);                                                                    \
    }                                                                                                        \
    static void codec##_four_##metric(const struct kithi_query *q, const unsigned char *const codes[4],      \
                                      float out[4])                                                          \
    {                                                                                                        \
        codec##_four(q, codes, out, dot);                                                                    \
    }                                                                                                        \
    static float codec##_pair_##metric(const unsigned char *a, const unsigned char *b, uint32_t dim)         \
    {                                                                                                        \
        return codec##_pair(a, b, dim, dot);                                                                 \
    }

#define KITHI_KERNEL_FLOATS(metric, dot)                                                                     \
    static float metric(const float *query, const float *row, uint32_t dim)                                  \
    {                                                                                                        \
        return one(query, row, dim, dot);                                                                    \
    }                                                                                                        \
    static void metric##_4(const float *query, const float *const rows[4], uint32_t dim, float out[4])       \
    {                                                                                                        \
        four(query, rows, dim, out, dot);                                                                    \
    }

KITHI_KERNEL_FLOATS(l2, false)
KITHI_KERNEL_FLOATS(ip, true)
KITHI_KERNEL_CODEC(f32, l2, false)
KITHI_KERNEL_CODEC(f32, ip, true)
KITHI_KERNEL_CODEC(f16, l2, false)
KITHI_KERNEL_CODEC(f16, ip, true)
KITHI_KERNEL_CODEC(sq8, l2, false)
KITHI_KERNEL_CODEC(sq8, ip, true)

#define KITHI_KERNEL_OF(codec)                                                                               \
    {                                                                                                        \
        { codec##_one_l2, codec##_four_l2, codec##_pair_l2 },                                                \
        {                                                                                                    \
            codec##_one_ip, codec##_four_ip, codec##_pair_ip                                                 \
        }                                                                                                    \
    }

/* bits: the suffix of the functions of bits_priv.h: avx2, avx512 ... */
#define KITHI_KERNEL_SET(set, bits)                                                                          \
    const struct kithi_kernel kithi_kernel_##set = {                                                         \
        .name = #set,                                                                                        \
        .l2 = l2,                                                                                            \
        .ip = ip,                                                                                            \
        .l2_4 = l2_4,                                                                                        \
        .ip_4 = ip_4,                                                                                        \
        .of = { [KITHI_CODEC_F32] = KITHI_KERNEL_OF(f32),                                                    \
                [KITHI_CODEC_F16] = KITHI_KERNEL_OF(f16),                                                    \
                [KITHI_CODEC_SQ8] = KITHI_KERNEL_OF(sq8) },                                                  \
        .estimate = kithi_bits_estimate_##bits,                                                              \
        .rotate = kithi_bits_rotate_##bits,                                                                  \
        .table = kithi_bits_table_##bits,                                                                    \
        .measure = kithi_bits_measure_##bits,                                                                \
    }

#endif
