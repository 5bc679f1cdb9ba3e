/*
 * scalar.c - distances in plain C: the set for CPUs without a better one, and the reference for the others.
 *
 * Sums in lanes: independent chains hide the latency of the additions, a compiler may
 * put them into one register, and rounding errors grow with dim / LANES.
 */
#include "shm/kernel/bits_priv.h"
#include "shm/kernel/distance_priv.h"
#include "shm/kernel/half_priv.h"
#include "shm/kernel/query.h"

#if !KITHI_TSAN

enum { LANES = 8 };

KITHI_KERNEL_INLINE float term(float q, float r, bool dot)
{
    return dot ? q * r : (q - r) * (q - r);
}

KITHI_KERNEL_INLINE float finish(const float s[LANES], bool dot)
{
    float sum = ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
    return dot ? 1.0f - sum : sum;
}

KITHI_KERNEL_INLINE float one(const float *query, const float *row, uint32_t dim, bool dot)
{
    float s[LANES] = { 0 };
    uint32_t i = 0;
    for (; dim - i >= LANES; i += LANES) {
        for (uint32_t j = 0; j < LANES; j++)
            s[j] += term(query[i + j], row[i + j], dot);
    }
    for (uint32_t j = 0; i < dim; i++, j++)
        s[j] += term(query[i], row[i], dot);
    return finish(s, dot);
}

KITHI_KERNEL_INLINE void four(const float *query, const float *const rows[4], uint32_t dim, float out[4],
                              bool dot)
{
    float s[4][LANES] = { { 0 } };
    uint32_t i = 0;
    for (; dim - i >= LANES; i += LANES) {
        for (uint32_t r = 0; r < 4; r++) {
            for (uint32_t j = 0; j < LANES; j++)
                s[r][j] += term(query[i + j], rows[r][i + j], dot);
        }
    }
    for (uint32_t j = 0; i < dim; i++, j++) {
        for (uint32_t r = 0; r < 4; r++)
            s[r][j] += term(query[i], rows[r][i], dot);
    }
    for (uint32_t r = 0; r < 4; r++)
        out[r] = finish(s[r], dot);
}

KITHI_KERNEL_INLINE float half_one(const float *query, const uint16_t *row, float scale, uint32_t dim,
                                   bool dot)
{
    float s[LANES] = { 0 };
    uint32_t i = 0;
    for (; dim - i >= LANES; i += LANES) {
        for (uint32_t j = 0; j < LANES; j++)
            s[j] += term(query[i + j], scale * kithi_half_to_float(row[i + j]), dot);
    }
    for (uint32_t j = 0; i < dim; i++, j++)
        s[j] += term(query[i], scale * kithi_half_to_float(row[i]), dot);
    return finish(s, dot);
}

KITHI_KERNEL_INLINE void half_four(const float *query, const uint16_t *const rows[4], const float scales[4],
                                   uint32_t dim, float out[4], bool dot)
{
    for (uint32_t r = 0; r < 4; r++)
        out[r] = half_one(query, rows[r], scales[r], dim, dot);
}

KITHI_KERNEL_INLINE float half_pair(const uint16_t *a, float a_scale, const uint16_t *b, float b_scale,
                                    uint32_t dim, bool dot)
{
    float s[LANES] = { 0 };
    for (uint32_t i = 0; i < dim; i++)
        s[i % LANES] += term(a_scale * kithi_half_to_float(a[i]), b_scale * kithi_half_to_float(b[i]), dot);
    return finish(s, dot);
}

/* 4096 / LANES * 255 * 16383 < 2^31: a lane does not overflow; unsigned, because hostile words may. */
KITHI_KERNEL_INLINE int64_t byte_one(const struct kithi_query *q, const uint8_t *u)
{
    const int16_t *words = q->words;
    uint32_t s[LANES] = { 0 }, i = 0, dim = q->dim;
    for (; dim - i >= LANES; i += LANES) {
        for (uint32_t j = 0; j < LANES; j++)
            s[j] += (uint32_t)(words[i + j] * u[i + j]);
    }
    for (uint32_t j = 0; i < dim; i++, j++)
        s[j] += (uint32_t)(words[i] * u[i]);
    int64_t sum = 0;
    for (uint32_t j = 0; j < LANES; j++)
        sum += (int32_t)s[j];
    return sum;
}

KITHI_KERNEL_INLINE void byte_four(const struct kithi_query *q, const uint8_t *const u[4], int64_t out[4])
{
    for (uint32_t r = 0; r < 4; r++)
        out[r] = byte_one(q, u[r]);
}

KITHI_KERNEL_INLINE int64_t byte_pair(const uint8_t *a, const uint8_t *b, uint32_t dim, uint32_t a_sum)
{
    (void)a_sum;
    uint32_t sum = 0; /* at most 4096 * 255^2 */
    for (uint32_t i = 0; i < dim; i++)
        sum += (uint32_t)(a[i] * b[i]);
    return sum;
}

#include "shm/kernel/codes_priv.h"

KITHI_KERNEL_SET(scalar, scalar);

#endif
