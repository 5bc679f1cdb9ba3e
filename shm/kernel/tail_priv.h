/*
 * tail_priv.h - the last bytes of a code, for instruction sets without masked byte loads.
 */
#ifndef KITHI_KERNEL_TAIL_PRIV_H
#define KITHI_KERNEL_TAIL_PRIV_H

#include <stdint.h>
#include <string.h>

/* The n <= 8 bytes at p, then zeros, without touching a byte beyond: two loads that may overlap. */
static inline uint64_t kithi_load_upto_8(const unsigned char *p, uint32_t n)
{
    uint64_t whole;
    uint32_t first, last;
    if (n >= 8) {
        memcpy(&whole, p, 8);
        return whole;
    }
    if (n >= 4) {
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        return first | (uint64_t)last << (8 * (n - 4));
    }
    if (n == 0)
        return 0;
    /* 1, 2 or 3: the middle one is the first or the last. */
    return p[0] | (uint64_t)p[n / 2] << (8 * (n / 2)) | (uint64_t)p[n - 1] << (8 * (n - 1));
}

/* The same for n <= 16, in two halves. */
static inline void kithi_load_upto_16(const void *p, uint32_t n, uint64_t out[2])
{
    const unsigned char *bytes = p;
    out[0] = kithi_load_upto_8(bytes, n);
    out[1] = n > 8 ? kithi_load_upto_8(bytes + 8, n - 8) : 0;
}

#endif
