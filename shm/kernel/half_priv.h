/*
 * half_priv.h - half floats by their bits (IEEE 754 binary16), for code that runs on every CPU.
 *
 * Integers and one exact product or rounded sum: the result does not depend on whether the host process
 * flushes denormals, and is that of the conversion instructions.
 */
#ifndef KITHI_KERNEL_HALF_PRIV_H
#define KITHI_KERNEL_HALF_PRIV_H

#include <stdint.h>
#include <string.h>

static inline uint32_t kithi_float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float kithi_bits_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Exact. A NaN stays one. */
static inline float kithi_half_to_float(uint16_t half)
{
    uint32_t sign = (half & 0x8000u) << 16, rest = half & 0x7fffu;
    uint32_t subnormal = kithi_float_bits((float)(int32_t)rest * 0x1p-24f);
    uint32_t normal = (rest << 13) + (112u << 23) + (rest >= 0x7c00u ? 112u << 23 : 0u);
    return kithi_bits_float(sign | (rest < 0x0400u ? subnormal : normal));
}

/* Rounds to nearest, ties to even; 65520 and above become infinity. */
static inline uint16_t kithi_half_from_float(float f)
{
    uint32_t bits = kithi_float_bits(f), sign = (bits >> 16) & 0x8000u;
    int32_t rest = (int32_t)(bits & 0x7fffffffu); /* signed, and without jumps: for vector code */
    /* Floats from 0.5 to 1 are 2^-24 apart, as subnormal halves are: the addition rounds. */
    float tiny = kithi_bits_float((uint32_t)rest) + 0.5f;
    int32_t subnormal = (int32_t)kithi_float_bits(tiny) - 0x3f000000;
    int32_t normal = (rest - (112 << 23) + 0x0fff + ((rest >> 13) & 1)) >> 13;
    int32_t half = rest < 0x38800000 ? subnormal : normal;
    half = rest >= 0x477ff000 ? 0x7c00 : half;
    half = rest > 0x7f800000 ? 0x7e00 : half;
    return (uint16_t)(sign | (uint32_t)half);
}

#endif
