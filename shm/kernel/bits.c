/*
 * bits.c - codes of links: their factors, and the places of a block. What runs over vectors is in bits_vec.h.
 */
#include "shm/kernel/bits.h"

#include <string.h>

#include "shm/kernel/bits_priv.h"

uint32_t kithi_bits_width(uint32_t dim, uint32_t bits_per_element)
{
    return (dim * bits_per_element + 63) / 64 * 64;
}

void kithi_bits_rotate(float *v, uint32_t width)
{
    kithi_kernel_pick()->rotate(v, width);
}

void kithi_bits_table(const float *rotated, uint32_t width, uint8_t *table, float *out_scale, float *out_base)
{
    kithi_kernel_pick()->table(rotated, width, table, out_scale, out_base);
}

void kithi_bits_encode(const float *centre, const float *neighbour, uint32_t width, uint32_t metric,
                       struct kithi_bits_edge *out)
{
    struct kithi_bits_sums s;
    kithi_kernel_pick()->measure(centre, neighbour, width, out->code, &s);
    out->f1 = out->f2 = out->back_f1 = out->back_f2 = 0;
    if (s.length1 == 0) /* the same point: the distance of the one is that of the other */
        return;

    /* Seen from o the signs are turned and r is -r: <x', Ro> = -(<x, Rc> + |r|_1), since <x, r> = |r|_1. */
    float slope = s.length2 / s.length1;
    if (metric == KITHI_METRIC_L2) {
        out->f2 = out->back_f2 = -2 * slope;
        out->f1 = s.length2 + 2 * slope * s.centre_signs;
        out->back_f1 = s.length2 - 2 * slope * (s.centre_signs + s.length1);
    } else {
        out->f2 = out->back_f2 = -slope;
        out->f1 = slope * s.centre_signs - s.centre_along;
        out->back_f1 = -out->f1; /* in full: f2 (<x, Rc> + |r|_1) + <Rc, r> + |r|^2 */
    }
}

/*
 * Readers may look at any moment. Ordinary builds store plainly, byte by byte and factor by factor: a reader
 * that meets old bytes beside new ones gets a wrong estimate for this place, and no address is made from it.
 * Builds for ThreadSanitizer say the same by relaxed atomics.
 */
static uint8_t load_byte(const unsigned char *p)
{
#if KITHI_TSAN
    return atomic_load_explicit((const _Atomic uint8_t *)p, memory_order_relaxed);
#else
    return *p;
#endif
}

static void store_byte(unsigned char *p, uint8_t value)
{
#if KITHI_TSAN
    atomic_store_explicit((_Atomic uint8_t *)p, value, memory_order_relaxed);
#else
    *p = value;
#endif
}

static float load_factor(const unsigned char *p)
{
#if KITHI_TSAN
    union {
        uint32_t bits;
        float value;
    } word = { atomic_load_explicit((const _Atomic uint32_t *)(const void *)p, memory_order_relaxed) };
    return word.value;
#else
    float value;
    memcpy(&value, p, sizeof value);
    return value;
#endif
}

static void store_factor(unsigned char *p, float value)
{
#if KITHI_TSAN
    union {
        float value;
        uint32_t bits;
    } word = { value };
    atomic_store_explicit((_Atomic uint32_t *)(void *)p, word.bits, memory_order_relaxed);
#else
    memcpy(p, &value, sizeof value);
#endif
}

void kithi_bits_put(unsigned char *block, uint32_t width, uint32_t place, const struct kithi_bits_edge *e,
                    bool back)
{
    store_factor(block + KITHI_BITS_F1 + 4 * place, back ? e->back_f1 : e->f1);
    store_factor(block + KITHI_BITS_F2 + 4 * place, back ? e->back_f2 : e->f2);
    unsigned char *code = block + KITHI_BITS_CODES + place % KITHI_BITS_HALF;
    unsigned shift = place < KITHI_BITS_HALF ? 0 : 4;
    unsigned others = 0xf0u >> shift;
    for (uint32_t i = 0; i < width / 64; i++) {
        uint64_t signs = back ? ~e->code[i] : e->code[i];
        for (uint32_t p = 0; p < 16; p++, code += 16, signs >>= 4)
            store_byte(code, (uint8_t)((load_byte(code) & others) | (signs & 15) << shift));
    }
}

void kithi_bits_get(const unsigned char *block, uint32_t width, uint32_t place, uint64_t *code)
{
    const unsigned char *from = block + KITHI_BITS_CODES + place % KITHI_BITS_HALF;
    unsigned shift = place < KITHI_BITS_HALF ? 0 : 4;
    for (uint32_t i = 0; i < width / 64; i++) {
        uint64_t signs = 0;
        for (uint32_t p = 0; p < 16; p++, from += 16)
            signs |= (uint64_t)(load_byte(from) >> shift & 15) << 4 * p;
        code[i] = signs;
    }
}

void kithi_bits_factors(const unsigned char *block, uint32_t place, float *out_f1, float *out_f2)
{
    *out_f1 = load_factor(block + KITHI_BITS_F1 + 4 * place);
    *out_f2 = load_factor(block + KITHI_BITS_F2 + 4 * place);
}
