/*
 * bits_tsan.c - estimates for ThreadSanitizer builds: blocks are read by relaxed atomics, as rows are in tsan.c.
 */
#include "shm/kernel/bits_priv.h"

#if KITHI_TSAN

#define LANES 4
#include "shm/kernel/bits_vec.h"

static uint32_t negatives(vec v)
{
    uvec bits = (uvec)v >> 31;
    return bits[0] | bits[1] << 1 | bits[2] << 2 | bits[3] << 3;
}

KITHI_BITS_VEC_SET(tsan);

/* Relaxed: any mixture of old and new bytes is allowed (bits.h), nothing depends on their order. */
static uint8_t load_byte(const unsigned char *p)
{
    return atomic_load_explicit((const _Atomic uint8_t *)p, memory_order_relaxed);
}

static float load_factor(const unsigned char *p)
{
    union {
        uint32_t bits;
        float value;
    } word = { atomic_load_explicit((const _Atomic uint32_t *)(const void *)p, memory_order_relaxed) };
    return word.value;
}

uint32_t kithi_bits_estimate_tsan(const struct kithi_query *q, const unsigned char *block, float distance,
                                  float limit, const unsigned char *ahead, float est[KITHI_BITS_PLACES])
{
    (void)ahead; /* nothing here is faster than memory */
    uint32_t sums[KITHI_BITS_PLACES] = { 0 };
    const unsigned char *code = block + KITHI_BITS_CODES;
    const uint8_t *table = q->table;
    for (uint32_t p = 0; p < q->width / 4; p++, code += 16, table += 16) {
        for (uint32_t j = 0; j < KITHI_BITS_HALF; j++) {
            uint8_t both = load_byte(code + j);
            sums[j] += table[both & 15];
            sums[j + KITHI_BITS_HALF] += table[both >> 4];
        }
    }
    uint32_t below = 0;
    for (uint32_t j = 0; j < KITHI_BITS_PLACES; j++) {
        float f1 = load_factor(block + KITHI_BITS_F1 + 4 * j),
              f2 = load_factor(block + KITHI_BITS_F2 + 4 * j);
        est[j] = distance + f1 + f2 * (q->table_scale * (float)sums[j] + q->table_base);
        below |= (uint32_t)(est[j] < limit) << j;
    }
    return below;
}

#endif
