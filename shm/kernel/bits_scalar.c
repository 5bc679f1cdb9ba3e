/*
 * bits_scalar.c - estimates in plain C, and the vector parts with the 4 lanes that compilers find everywhere.
 */
#include "shm/kernel/bits_priv.h"

#if !KITHI_TSAN

#define LANES 4
#include "shm/kernel/bits_vec.h"

static uint32_t negatives(vec v)
{
    uvec bits = (uvec)v >> 31;
    return bits[0] | bits[1] << 1 | bits[2] << 2 | bits[3] << 3;
}

KITHI_BITS_VEC_SET(scalar);

uint32_t kithi_bits_estimate_scalar(const struct kithi_query *q, const unsigned char *block, float distance,
                                    float limit, const unsigned char *ahead, float est[KITHI_BITS_PLACES])
{
    (void)ahead; /* nothing here is faster than memory */
    uint32_t sums[KITHI_BITS_PLACES] = { 0 };
    const unsigned char *code = block + KITHI_BITS_CODES;
    const uint8_t *table = q->table;
    for (uint32_t p = 0; p < q->width / 4; p++, code += 16, table += 16) {
        for (uint32_t j = 0; j < KITHI_BITS_HALF; j++) {
            sums[j] += table[code[j] & 15];
            sums[j + KITHI_BITS_HALF] += table[code[j] >> 4];
        }
    }
    const float *f1 = (const float *)(const void *)(block + KITHI_BITS_F1);
    const float *f2 = (const float *)(const void *)(block + KITHI_BITS_F2);
    uint32_t below = 0;
    for (uint32_t j = 0; j < KITHI_BITS_PLACES; j++) {
        est[j] = distance + f1[j] + f2[j] * (q->table_scale * (float)sums[j] + q->table_base);
        below |= (uint32_t)(est[j] < limit) << j;
    }
    return below;
}

#endif
