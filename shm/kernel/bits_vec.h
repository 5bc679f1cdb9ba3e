/*
 * bits_vec.h - rotation, tables and the measures of a link, written once over vectors of LANES floats.
 *
 * Included by the file of each kernel set, which says LANES (4, 8 or 16) before, and gives afterwards the
 * function that C has no words for. Additions and their order do not depend on LANES, and a product that is
 * added in a rotation is one with +1 or -1 (exact, fused or not): all sets rotate to the same floats.
 */
#ifndef KITHI_KERNEL_BITS_VEC_H
#define KITHI_KERNEL_BITS_VEC_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "shm/kernel/bits_priv.h"

typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef float loose_vec __attribute__((vector_size(4 * LANES), may_alias, aligned(4)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), may_alias));
typedef uint8_t bytes __attribute__((vector_size(4 * LANES), may_alias));

static uint32_t negatives(vec v); /* bit i: v[i] has its sign bit set */

/* F(i, h) for i = 0 .. LANES - 1; for every byte of a vector. */
#define EACH_4(F, i, h)  F((i), h), F((i) + 1, h), F((i) + 2, h), F((i) + 3, h)
#define EACH_8(F, i, h)  EACH_4(F, i, h), EACH_4(F, (i) + 4, h)
#define EACH_16(F, i, h) EACH_8(F, i, h), EACH_8(F, (i) + 8, h)
#define EACH_32(F, i, h) EACH_16(F, i, h), EACH_16(F, (i) + 16, h)
#define EACH_64(F, i, h) EACH_32(F, i, h), EACH_32(F, (i) + 32, h)
#if LANES == 16
#define EACH_LANE(F, h) EACH_16(F, 0, h)
#define EACH_BYTE(F, h) EACH_64(F, 0, h)
#elif LANES == 8
#define EACH_LANE(F, h) EACH_8(F, 0, h)
#define EACH_BYTE(F, h) EACH_32(F, 0, h)
#else
#define EACH_LANE(F, h) EACH_4(F, 0, h)
#define EACH_BYTE(F, h) EACH_16(F, 0, h)
#endif

#define PARTNER(i, h)   ((i) ^ (h))
#define SIGN(i, h)      ((i) & (h) ? -1.0f : 1.0f)
#define TO_TOP(i, h)    (31 - (i) - (h))
#define FOURTH(i, k)    (((i) & ~3) + (k))
#define LOW_BYTE(i, by) (((i) & ~15) + 4 * ((i) / (by) % 4) + LOWEST)
#define SIGNS(h)        ((vec){ EACH_LANE(SIGN, h) })                            /* -1 in lanes i & h */
#define SWAPPED(v, h)   __builtin_shufflevector((v), (v), EACH_LANE(PARTNER, h)) /* lane i ^ h in lane i */
#define OF_FOUR(v, k)                                                                                        \
    __builtin_shufflevector((v), (v), EACH_LANE(FOURTH, k)) /* lane k of four, in all four */

/* In byte n of every 16 the lowest byte of lane n / by % 4 of these four. */
#define LOWEST           (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 3 : 0)
#define LOW_BYTES(v, by) __builtin_shufflevector((bytes)(v), (bytes)(v), EACH_BYTE(LOW_BYTE, by))

#define SIGN_BIT 0x80000000u

enum {
    RUN = 64, /* elements that are transformed in registers, with one word of signs */
    RUN_VECS = RUN / LANES,
    ROUNDS = 3,     /* of signs and transforms */
    LOOK_ZERO = 127 /* the look that stands for 0 */
};

KITHI_KERNEL_INLINE vec load(const float *p)
{
    return *(const vec *)(const void *)p;
}

KITHI_KERNEL_INLINE vec load_loose(const float *p)
{
    return *(const loose_vec *)(const void *)p;
}

KITHI_KERNEL_INLINE void store(float *p, vec v)
{
    *(vec *)(void *)p = v;
}

KITHI_KERNEL_INLINE vec magnitudes(vec v)
{
    return (vec)((uvec)v & 0x7fffffffu);
}

/* The same sum in every lane. */
KITHI_KERNEL_INLINE vec total(vec v)
{
    v += SWAPPED(v, 1);
    v += SWAPPED(v, 2);
#if LANES > 4
    v += SWAPPED(v, 4);
#endif
#if LANES > 8
    v += SWAPPED(v, 8);
#endif
    return v;
}

/* ---- rotation ---- */

/* 64 signs that belong to a place in the rotation: the same in every process (splitmix64). */
KITHI_KERNEL_INLINE uint64_t signs_of(uint32_t round, uint32_t run)
{
    uint64_t z = (((uint64_t)round << 32) + run + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

KITHI_KERNEL_INLINE void add_subtract(vec *a, vec *b)
{
    vec sum = *a + *b;
    *b = *a - *b;
    *a = sum;
}

/* Hadamard transforms of the 2, 4 or 8 elements that stand in the same lane. */
KITHI_KERNEL_INLINE void across2(vec v[2])
{
    add_subtract(&v[0], &v[1]);
}

KITHI_KERNEL_INLINE void across4(vec v[4])
{
    across2(v);
    across2(v + 2);
    add_subtract(&v[0], &v[2]);
    add_subtract(&v[1], &v[3]);
}

KITHI_KERNEL_INLINE void across8(vec v[8])
{
    across4(v);
    across4(v + 4);
    for (int i = 0; i < 4; i++)
        add_subtract(&v[i], &v[i + 4]);
}

/* Of the lanes of one vector. */
KITHI_KERNEL_INLINE vec within(vec v)
{
    v = v * SIGNS(1) + SWAPPED(v, 1);
    v = v * SIGNS(2) + SWAPPED(v, 2);
#if LANES > 4
    v = v * SIGNS(4) + SWAPPED(v, 4);
#endif
#if LANES > 8
    v = v * SIGNS(8) + SWAPPED(v, 8);
#endif
    return v;
}

/* Scale 64 elements, turn those whose bit is set, and transform them. */
KITHI_KERNEL_INLINE void transform_run(float *p, float scale, uint64_t bits)
{
    vec v[RUN_VECS];
    for (int k = 0; k < RUN_VECS; k++) {
        uvec word = (uvec){ 0 } + (uint32_t)(k * LANES < 32 ? bits : bits >> 32);
        uvec turn = word << (k * LANES % 32 ? (uvec){ EACH_LANE(TO_TOP, k * LANES % 32) }
                                            : (uvec){ EACH_LANE(TO_TOP, 0) });
        v[k] = within((vec)((uvec)(load(p + k * LANES) * scale) ^ (turn & SIGN_BIT)));
    }
#if LANES == 16
    across4(v);
#elif LANES == 8
    across8(v);
#else
    across8(v);
    across8(v + 8);
    for (int i = 0; i < 8; i++)
        add_subtract(&v[i], &v[i + 8]);
#endif
    for (int k = 0; k < RUN_VECS; k++)
        store(p + k * LANES, v[k]);
}

/* n blocks of step elements that are transformed already become one, all along count elements. */
KITHI_KERNEL_INLINE void combine(float *p, uint32_t count, uint32_t step, int n)
{
    for (uint32_t i = 0; i < count; i += (uint32_t)n * step) {
        for (uint32_t j = i; j < i + step; j += LANES) {
            vec v[8];
            for (int k = 0; k < n; k++)
                v[k] = load(p + j + (uint32_t)k * step);
            if (n == 8)
                across8(v);
            else if (n == 4)
                across4(v);
            else
                across2(v);
            for (int k = 0; k < n; k++)
                store(p + j + (uint32_t)k * step, v[k]);
        }
    }
}

/* Signs and a Hadamard transform of count (a power of two >= 64) elements. */
KITHI_KERNEL_INLINE void transform(float *p, uint32_t count, float scale, uint32_t round)
{
    for (uint32_t i = 0; i < count; i += RUN)
        transform_run(p + i, scale, signs_of(round, i / RUN));
    uint32_t step = RUN;
    for (; step * 8 <= count; step *= 8)
        combine(p, count, step, 8);
    if (step * 4 == count)
        combine(p, count, step, 4);
    else if (step * 2 == count)
        combine(p, count, step, 2);
}

KITHI_KERNEL_INLINE void mix_halves(float *v, uint32_t width)
{
    const float scale = 0.70710678f;
    for (uint32_t i = 0; i < width / 2; i += LANES) {
        vec a = load(v + i), b = load(v + width / 2 + i);
        store(v + i, (a + b) * scale);
        store(v + width / 2 + i, (a - b) * scale);
    }
}

/*
 * A transform is of a power of two elements: the first so many, then the last so many, then the first again. The
 * first two touch every element, so that from there on not even a vector of one element has a large one left, and
 * halves are mixed after the second and the third.
 */
KITHI_KERNEL_INLINE void rotate(float *v, uint32_t width)
{
    uint32_t count = RUN;
    while (count * 2 <= width)
        count *= 2;
    float scale = 1.0f / sqrtf((float)count);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        transform(v + (round % 2 ? width - count : 0), count, scale, round);
        if (width != count && round > 0)
            mix_halves(v, width);
    }
}

/* ---- tables ---- */

/* Of every group of four lanes its sum, in all four. */
KITHI_KERNEL_INLINE vec sums_of_four(vec v)
{
    v += SWAPPED(v, 1);
    return v + SWAPPED(v, 2);
}

KITHI_KERNEL_INLINE vec larger(vec a, vec b)
{
    ivec which = a > b;
    return (vec)(((ivec)a & which) | ((ivec)b & ~which));
}

/*
 * Bytes of the tables for LANES elements, a group of four after the other. Look n of a group is the sum of its
 * elements v[i], negative where bit i of n is 0: the sum of one of four values that elements 0 and 1 decide and one
 * of four that 2 and 3 do. Both are rounded by an addition that leaves the integer in the low bits; the looks
 * are the sums of their low bytes, which do not overflow in the end, whatever the parts do.
 */
KITHI_KERNEL_INLINE void table_of(vec v, uint8_t *to)
{
    const float round = 0x1.8p23f;
    vec low = (OF_FOUR(v, 0) * -SIGNS(1) + OF_FOUR(v, 1) * -SIGNS(2)) + round;
    vec high = (OF_FOUR(v, 2) * -SIGNS(1) + OF_FOUR(v, 3) * -SIGNS(2)) + (round + LOOK_ZERO);
    *(bytes *)(void *)to = LOW_BYTES(low, 1) + LOW_BYTES(high, 4);
}

KITHI_KERNEL_INLINE void make_table(const float *rotated, uint32_t width, uint8_t *table, float *out_scale,
                                    float *out_base)
{
    vec all = { 0 }, most = { 0 }, most2 = { 0 }; /* two chains of comparisons, or they take the time */
    for (uint32_t i = 0; i < width; i += 2 * LANES) {
        vec a = magnitudes(load(rotated + i)), b = magnitudes(load(rotated + i + LANES));
        all += a + b;
        most = larger(sums_of_four(a), most);
        most2 = larger(sums_of_four(b), most2);
    }
    most = larger(most, most2);
    float reach = 0;
    for (int i = 0; i < LANES; i += 4)
        reach = most[i] > reach ? most[i] : reach;

    /* LOOK_ZERO - 1: each of the two parts of a look may be rounded up. */
    float steps = (LOOK_ZERO - 1) / reach;
    if (!(steps > 0 && steps <= FLT_MAX && total(all)[0] <= FLT_MAX))
        steps = 0; /* nothing to tell apart, or not in this arithmetic */
    *out_scale = steps > 0 ? 1 / steps : 0;
    *out_base = *out_scale * -(float)(width / 4 * LOOK_ZERO);
    for (uint32_t i = 0; i < width; i += LANES)
        table_of(load(rotated + i) * steps, table + 4 * i);
}

/* ---- the measures of a link ---- */

KITHI_KERNEL_INLINE void measure(const float *centre, const float *neighbour, uint32_t width, uint64_t *code,
                                 struct kithi_bits_sums *out)
{
    vec length1 = { 0 }, length2 = { 0 }, centre_signs = { 0 }, centre_along = { 0 };
    for (uint32_t i = 0; i < width; i += RUN) {
        uint64_t turned = 0;
        for (uint32_t k = 0; k < RUN; k += LANES) {
            vec c = load_loose(centre + i + k), r = load_loose(neighbour + i + k) - c;
            turned |= (uint64_t)negatives(r) << k;
            length1 += magnitudes(r);
            length2 += r * r;
            centre_signs += (vec)((uvec)c ^ ((uvec)r & SIGN_BIT));
            centre_along += c * r;
        }
        code[i / RUN] = ~turned;
    }
    out->length1 = total(length1)[0];
    out->length2 = total(length2)[0];
    out->centre_signs = total(centre_signs)[0];
    out->centre_along = total(centre_along)[0];
}

/* The functions of a set that are this file alone. */
#define KITHI_BITS_VEC_SET(name)                                                                             \
    void kithi_bits_rotate_##name(float *v, uint32_t width)                                                  \
    {                                                                                                        \
        rotate(v, width);                                                                                    \
    }                                                                                                        \
    void kithi_bits_table_##name(const float *rotated, uint32_t width, uint8_t *table, float *out_scale,     \
                                 float *out_base)                                                            \
    {                                                                                                        \
        make_table(rotated, width, table, out_scale, out_base);                                              \
    }                                                                                                        \
    void kithi_bits_measure_##name(const float *centre, const float *neighbour, uint32_t width,              \
                                   uint64_t *code, struct kithi_bits_sums *out)                              \
    {                                                                                                        \
        measure(centre, neighbour, width, code, out);                                                        \
    }                                                                                                        \
    _Static_assert(1, "swallows the semicolon")

#endif
