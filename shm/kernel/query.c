/*
 * query.c - a query's memory and its forms.
 *
 * Built without contraction of products and sums, as codec.c is.
 */
#include "shm/kernel/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/kernel/bits.h"
#include "shm/kernel/half_priv.h"

enum { LANES = 16, WORD_MAX = 16383 };

/* The arrays of a query, to write. */
struct arrays {
    float *values;
    int16_t *words;
    int8_t *high, *low;
    float *rotated;
    uint8_t *table;
    size_t size;
};

static void *take(unsigned char *memory, size_t *used, size_t bytes)
{
    void *p = memory ? memory + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return p;
}

static struct arrays place(unsigned char *memory, uint32_t dim, uint32_t width)
{
    struct arrays a = { 0 };
    size_t padded = ((size_t)dim + 63) / 64 * 64;
    a.values = take(memory, &a.size, dim * sizeof *a.values);
    a.words = take(memory, &a.size, padded * sizeof *a.words);
    a.high = take(memory, &a.size, padded);
    a.low = take(memory, &a.size, padded);
    a.rotated = take(memory, &a.size, width * sizeof *a.rotated);
    a.table = take(memory, &a.size, (size_t)width * 4);
    return a;
}

int kithi_query_reserve(struct kithi_query *q, uint32_t dim, uint32_t width)
{
    if (q->memory && q->dim == dim && q->width_room == width)
        return 0;
    size_t size = place(NULL, dim, width).size;
    if (size > q->memory_size) {
        unsigned char *memory = aligned_alloc(64, size);
        if (!memory)
            return -ENOMEM;
        free(q->memory);
        *q = (struct kithi_query){ .memory = memory, .memory_size = size };
    }
    memset(q->memory, 0, size); /* the padding stays zero from here on */
    struct arrays a = place(q->memory, dim, width);
    *q = (struct kithi_query){
        .dim = dim,
        .values = a.values,
        .words = a.words,
        .high = a.high,
        .low = a.low,
        .rotated = width ? a.rotated : NULL,
        .table = width ? a.table : NULL,
        .width_room = width,
        .memory = q->memory,
        .memory_size = q->memory_size,
    };
    return 0;
}

static float largest_magnitude(const float *v, uint32_t dim)
{
    int32_t max[LANES] = { 0 }, bits[LANES]; /* magnitudes compare like their bits */
    uint32_t i = 0;
    for (; dim - i >= LANES; i += LANES) {
        memcpy(bits, v + i, sizeof bits);
        for (uint32_t j = 0; j < LANES; j++) {
            bits[j] &= 0x7fffffff;
            max[j] = bits[j] > max[j] ? bits[j] : max[j];
        }
    }
    for (; i < dim; i++) {
        memcpy(bits, v + i, sizeof bits[0]);
        bits[0] &= 0x7fffffff;
        max[0] = bits[0] > max[0] ? bits[0] : max[0];
    }
    for (uint32_t j = 1; j < LANES; j++)
        max[0] = max[j] > max[0] ? max[j] : max[0];
    return kithi_bits_float((uint32_t)max[0]);
}

/* x rounded to the nearest integer, by its bits: a conversion would be undefined for what does not fit. */
static int16_t nearest(float x)
{
    return (int16_t)(kithi_float_bits(x + 0x1.8p23f) - kithi_float_bits(0x1.8p23f));
}

static void make_words(struct kithi_query *q, const struct arrays *a)
{
    uint32_t dim = q->dim;
    float step = largest_magnitude(a->values, dim) / (float)WORD_MAX;
    /* A smaller step has no finite inverse. Elements below 2^-112 then lose bits, which no distance shows. */
    if (step > 0 && step < 0x1p-126f)
        step = 0x1p-126f;
    float inverse = step > 0 ? 1.0f / step : 0.0f;
    for (uint32_t i = 0; i < dim; i++)
        a->words[i] = nearest(a->values[i] * inverse);

    int32_t high_sum = 0, low_sum = 0;
    int64_t squares = 0;
    for (uint32_t start = 0; start < dim; start += LANES) { /* through the padding, which stays zero */
        uint32_t block = 0;                                 /* 16 * 2^28 at most */
        for (uint32_t j = start; j < start + LANES; j++) {
            int32_t w = a->words[j], high = w >> 7, low = w & 127;
            a->high[j] = (int8_t)high;
            a->low[j] = (int8_t)low;
            high_sum += high;
            low_sum += low;
            block += (uint32_t)(w * w);
        }
        squares += block;
    }
    q->step = step;
    q->high_sum = high_sum;
    q->low_sum = low_sum;
    q->sum = (double)step * (double)(128 * (int64_t)high_sum + low_sum);
    q->norm2 = (double)step * (double)step * (double)squares;
}

void kithi_query_prepare(struct kithi_query *q, const float *v, enum kithi_codec codec, uint32_t width)
{
    struct arrays a = place(q->memory, q->dim, q->width_room);
    if (v)
        memcpy(a.values, v, q->dim * sizeof *v);
    if (codec == KITHI_CODEC_SQ8)
        make_words(q, &a);
    q->width = width;
    if (width) {
        memcpy(a.rotated, a.values, q->dim * sizeof *a.rotated);
        memset(a.rotated + q->dim, 0, (width - q->dim) * sizeof *a.rotated);
        kithi_bits_rotate(a.rotated, width);
        kithi_bits_table(a.rotated, width, a.table, &q->table_scale, &q->table_base);
    }
}

float *kithi_query_values(struct kithi_query *q)
{
    return place(q->memory, q->dim, q->width_room).values;
}

void kithi_query_fini(struct kithi_query *q)
{
    if (!q)
        return;
    free(q->memory);
    *q = (struct kithi_query){ 0 };
}
