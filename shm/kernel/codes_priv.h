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
#include "shm/kernel/once_priv.h"
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

/*
 * The ends of sq8 distances. The elements of a side are offset + scale * u[i]; of a query, base + step * words[i].
 * Its moments are the sums of scale * u[i] and of its square. With d = the difference of the offsets,
 *
 *   l2      = sum (d + scale_a a[i] - scale_b b[i])^2
 *           = moment2_a + moment2_b + d (dim d + 2 (moment1_a - moment1_b)) - 2 scale_a scale_b sum a[i] b[i]
 *   product = dim offset_a offset_b + offset_a moment1_b + offset_b moment1_a + scale_a scale_b sum a[i] b[i]
 *
 * No term of l2 is larger than what the sides spread over or are apart: far from the origin it is as accurate as
 * near it. Between equal codes the terms cancel exactly, and either side may be a or b.
 */
struct side {
    double offset, scale, moment1, moment2;
};

/* Of four distances. Compilers do not find the vector code by themselves. */
typedef double quad __attribute__((vector_size(32)));
typedef float quad_float __attribute__((vector_size(16)));
typedef int32_t quad_int __attribute__((vector_size(16)));

struct sides {
    quad offset, scale, moment1, moment2;
};

/* The formulas for a side and for sides: every distance is computed in the same order. */
#define SQ8_L2(a, b, dim, both)                                                                              \
    ((a).moment2 + (b).moment2 +                                                                             \
     ((a).offset - (b).offset) * ((dim) * ((a).offset - (b).offset) + 2.0 * ((a).moment1 - (b).moment1)) -   \
     2.0 * (a).scale * (b).scale * (both))
#define SQ8_PRODUCT(a, b, dim, both)                                                                         \
    ((dim) * ((a).offset * (b).offset) + ((a).offset * (b).moment1 + (b).offset * (a).moment1) +             \
     (a).scale * (b).scale * (both))

KITHI_KERNEL_INLINE struct side side_of_query(const struct kithi_query *q)
{
    return (struct side){ q->base, q->step, q->moment1, q->moment2 };
}

/* The sums as signed numbers, which CPUs convert faster: honest ones are below 2^31. */
KITHI_KERNEL_INLINE struct side side_of(struct kithi_code_head head)
{
    double scale = (double)head.scale;
    double sum = (double)(int32_t)head.sum, squares = (double)(int32_t)head.squares;
    return (struct side){ (double)head.offset, scale, scale * sum, scale * scale * squares };
}

KITHI_KERNEL_INLINE quad_int head_words(const unsigned char *code)
{
    struct kithi_code_head head = head_of(code);
    quad_int words;
    memcpy(&words, &head, sizeof words);
    return words;
}

/* Lane by lane, because gcc 12 converts floats at once only so; no function, because a quad has no ABI everywhere. */
#define QUAD_OF(v) ((quad){ (double)(v)[0], (double)(v)[1], (double)(v)[2], (double)(v)[3] })

/* The same of four codes; heads are four rows, and become four columns. */
KITHI_KERNEL_INLINE void sides_of(const unsigned char *const codes[4], struct sides *out)
{
    quad_int a = head_words(codes[0]), b = head_words(codes[1]);
    quad_int c = head_words(codes[2]), d = head_words(codes[3]);
    quad_int floats_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    quad_int floats_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    quad_int sums_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    quad_int sums_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    quad_float scales = (quad_float)__builtin_shufflevector(floats_ab, floats_cd, 0, 1, 4, 5);
    quad_float offsets = (quad_float)__builtin_shufflevector(floats_ab, floats_cd, 2, 3, 6, 7);
    quad squares = __builtin_convertvector(__builtin_shufflevector(sums_ab, sums_cd, 0, 1, 4, 5), quad);
    quad sum = __builtin_convertvector(__builtin_shufflevector(sums_ab, sums_cd, 2, 3, 6, 7), quad);
    out->offset = QUAD_OF(offsets);
    out->scale = QUAD_OF(scales);
    out->moment1 = out->scale * sum;
    out->moment2 = out->scale * out->scale * squares;
}

/* A NaN stays one. */
KITHI_KERNEL_INLINE float sq8_finish(double result, bool dot)
{
    float f = (float)result;
    return !dot && f < 0.0f ? 0.0f : f;
}

/* both: sum a[i] b[i] */
KITHI_KERNEL_INLINE float sq8_between(struct side a, struct side b, double dim, double both, bool dot)
{
    return sq8_finish(dot ? 1.0 - SQ8_PRODUCT(a, b, dim, both) : SQ8_L2(a, b, dim, both), dot);
}

KITHI_KERNEL_INLINE float sq8_one(const struct kithi_query *q, const unsigned char *code, bool dot)
{
    int64_t both = byte_one(q, bytes_of(code));
    return sq8_between(side_of_query(q), side_of(head_of(code)), (double)q->dim, (double)both, dot);
}

KITHI_KERNEL_INLINE void sq8_four(const struct kithi_query *q, const unsigned char *const codes[4],
                                  float out[4], bool dot)
{
    const uint8_t *const u[4] = { bytes_of(codes[0]), bytes_of(codes[1]), bytes_of(codes[2]),
                                  bytes_of(codes[3]) };
    struct side a = side_of_query(q);
    struct sides b;
    int64_t sums[4];
    byte_four(q, u, sums);
    sides_of(codes, &b);
    double dim = (double)q->dim;
    quad both = QUAD_OF(sums);
    quad result = dot ? 1.0 - SQ8_PRODUCT(a, b, dim, both) : SQ8_L2(a, b, dim, both);
    for (int r = 0; r < 4; r++)
        out[r] = sq8_finish(result[r], dot);
}

KITHI_KERNEL_INLINE float sq8_pair(const unsigned char *a, const unsigned char *b, uint32_t dim, bool dot)
{
    struct kithi_code_head x = head_of(a), y = head_of(b);
    int64_t both = byte_pair(bytes_of(a), bytes_of(b), dim, x.sum);
    return sq8_between(side_of(x), side_of(y), (double)dim, (double)both, dot);
}

static void sq8_decode(const unsigned char *code, uint32_t dim, float *out)
{
    struct kithi_code_head h = head_of(code);
    const unsigned char *bytes = bytes_of(code);
    for (uint32_t i = 0; i < dim; i++)
        out[i] = h.offset + h.scale * (float)bytes[i];
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
        .decode = sq8_decode,                                                                                \
        .rotate = kithi_bits_rotate_##bits,                                                                  \
        .table = kithi_bits_table_##bits,                                                                    \
        .measure = kithi_bits_measure_##bits,                                                                \
        .range = range_of,                                                                                   \
        .normalise = normalise,                                                                              \
        .words = make_words,                                                                                 \
    }

#endif
