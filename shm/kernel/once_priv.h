/*
 * once_priv.h - what is done once to a vector before it is compared with many: its range, its length, its words.
 *
 * Plain loops, compiled into every kernel set with the instructions of that set. Integers, and sums of which
 * the order is written out: all sets give the same results.
 */
#ifndef KITHI_KERNEL_ONCE_PRIV_H
#define KITHI_KERNEL_ONCE_PRIV_H

#include <float.h>
#include <math.h>

#include "shm/kernel/distance_priv.h"
#include "shm/kernel/half_priv.h"

/* Floats as integers of the same order, and back: a compiler makes no vector code of least and largest floats. */
KITHI_KERNEL_INLINE int32_t ordered(uint32_t bits)
{
    uint32_t negative = 0 - (bits >> 31);
    return (int32_t)(bits ^ (negative >> 1));
}

static void range_of(const float *v, uint32_t n, float *out_low, float *out_high)
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

KITHI_KERNEL_INLINE double square(float x)
{
    return (double)x * (double)x; /* exact */
}

static float normalise(float *dst, const float *src, uint32_t dim)
{
    enum { SUMS = 16 };
    /* Squares of floats lie between 2^-298 and 2^256: far inside the range of double. */
    double s[SUMS] = { 0 };
    uint32_t i = 0, whole = dim / SUMS * SUMS;
    for (; i < whole; i += SUMS) {
        for (uint32_t j = 0; j < SUMS; j++)
            s[j] += square(src[i + j]);
    }
    for (; i < dim; i++)
        s[i % SUMS] += square(src[i]);
    for (uint32_t half = SUMS / 2; half; half /= 2) {
        for (uint32_t j = 0; j < half; j++)
            s[j] += s[j + half];
    }
    double len = sqrt(s[0]);
    if (!(len > 0.0 && len < (double)INFINITY))
        return 0.0f;

    double scale = 1.0 / len;
    for (i = 0; i < dim; i++)
        dst[i] = (float)((double)src[i] * scale);
    return len < (double)FLT_MAX ? (float)len : FLT_MAX;
}

/* x rounded to the nearest integer, by its bits: a conversion would be undefined for what does not fit. */
KITHI_KERNEL_INLINE int16_t nearest_word(float x)
{
    return (int16_t)(kithi_float_bits(x + 0x1.8p23f) - kithi_float_bits(0x1.8p23f));
}

static void make_words(const float *restrict v, uint32_t dim, float base, float inverse,
                       const struct kithi_words *out)
{
    int16_t *restrict words = out->words;
    int8_t *restrict high = out->high, *restrict low = out->low;
    for (uint32_t i = 0; i < dim; i++)
        words[i] = nearest_word((v[i] - base) * inverse);
    for (uint32_t i = 0; i < dim; i++) {
        high[i] = (int8_t)(words[i] >> 7);
        low[i] = (int8_t)(words[i] & 127);
    }
    /* With w = 128 h + l, every sum of products of h and l fits into 32 bits: 4096 * 128^2. Unsigned, because
     * words made of a NaN are larger. */
    uint32_t h_sum = 0, l_sum = 0, hh = 0, hl = 0, ll = 0;
    for (uint32_t i = 0; i < dim; i++) {
        int16_t h = (int16_t)(words[i] >> 7), l = words[i] & 127;
        h_sum += (uint32_t)h;
        l_sum += (uint32_t)l;
        hh += (uint32_t)(h * h);
        hl += (uint32_t)(h * l);
        ll += (uint32_t)(l * l);
    }
    *out->sums = (struct kithi_word_sums){ (int32_t)h_sum, (int32_t)hl, l_sum, hh, ll };
}

#endif
