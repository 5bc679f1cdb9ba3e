/*
 * floats.c - what is done once to a vector before it is compared: check it, measure it, scale it.
 *
 * The check runs on every CPU; compilers turn its fixed inner loops into vector code. The rest is in once_priv.h.
 */
#include <string.h>

#include "shm/kernel/distance.h"

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

void kithi_floats_range(const float *v, uint32_t n, float *out_low, float *out_high)
{
    kithi_kernel_pick()->range(v, n, out_low, out_high);
}

float kithi_normalise(float *dst, const float *src, uint32_t dim)
{
    return kithi_kernel_pick()->normalise(dst, src, dim);
}
