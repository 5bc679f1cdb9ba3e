/*
 * floats.c - what is done once to a vector before it is compared: check it, measure it, scale it.
 *
 * Runs on every CPU. Compilers turn the fixed inner loops into vector code.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "shm/kernel/distance.h"
#include "shm/kernel/half_priv.h"

/* Adding one to the exponent carries into the sign bit when the exponent is all ones, which
 * is what NaN and infinity have in common. Cheap in any vector instruction set. */
static uint32_t carry(uint32_t bits)
{
    return (bits & 0x7f800000u) + 0x00800000u;
}

bool kithi_floats_finite(const float *v, size_t n)
{
    enum { BLOCK = 16 };
    uint32_t seen[BLOCK] = { 0 }, bits[BLOCK];
    size_t i = 0;
    for (; n - i >= BLOCK; i += BLOCK) {
        memcpy(bits, v + i, sizeof bits);
        for (size_t j = 0; j < BLOCK; j++)
            seen[j] |= carry(bits[j]);
    }
    for (; i < n; i++) {
        memcpy(bits, v + i, sizeof bits[0]);
        seen[0] |= carry(bits[0]);
    }
    uint32_t all = 0;
    for (size_t j = 0; j < BLOCK; j++)
        all |= seen[j];
    return all >> 31 == 0;
}

/* Floats as integers of the same order, and back: a compiler makes no vector code of least and largest floats. */
static int32_t ordered(uint32_t bits)
{
    return (int32_t)(bits ^ (bits >> 31 ? 0x7fffffffu : 0));
}

void kithi_floats_range(const float *v, uint32_t n, float *out_low, float *out_high)
{
    int32_t low = INT32_MAX, high = INT32_MIN;
    for (uint32_t i = 0; i < n; i++) {
        int32_t x = ordered(kithi_float_bits(v[i]));
        low = x < low ? x : low;
        high = x > high ? x : high;
    }
    *out_low = kithi_bits_float((uint32_t)ordered((uint32_t)low));
    *out_high = kithi_bits_float((uint32_t)ordered((uint32_t)high));
}

static double square(float x)
{
    return (double)x * (double)x;
}

float kithi_normalise(float *dst, const float *src, uint32_t dim)
{
    /* Squares of floats lie between 2^-298 and 2^256: far inside the range of double. */
    double a = 0, b = 0, c = 0, d = 0;
    uint32_t i = 0;
    for (; dim - i >= 4; i += 4) {
        a += square(src[i]);
        b += square(src[i + 1]);
        c += square(src[i + 2]);
        d += square(src[i + 3]);
    }
    for (; i < dim; i++)
        a += square(src[i]);
    double len = sqrt((a + b) + (c + d));
    if (!(len > 0.0 && len < (double)INFINITY))
        return 0.0f;

    double scale = 1.0 / len;
    for (i = 0; i < dim; i++)
        dst[i] = (float)((double)src[i] * scale);
    return len < (double)FLT_MAX ? (float)len : FLT_MAX;
}
