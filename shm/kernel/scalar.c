/*
 * scalar.c - distances in plain C: the set for CPUs without a better one.
 *
 * Sums in lanes: independent chains hide the latency of the additions, a compiler may
 * put them into one register, and rounding errors grow with dim / LANES.
 */
#include "shm/kernel/distance_priv.h"

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

const struct kithi_kernel kithi_kernel_scalar = { "scalar", l2, ip, l2_4, ip_4 };

#endif
