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
#include "shm/kernel/distance.h"

enum { WORD_MAX = 16383 };

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

static void make_words(struct kithi_query *q, const struct arrays *a)
{
    uint32_t dim = q->dim;
    float least, largest;
    kithi_floats_range(a->values, dim, &least, &largest);
    float base = (float)(((double)least + (double)largest) / 2);
    /* Not half the range: the base is rounded, and may be next to either end. */
    float below = base - least, above = largest - base;
    float step = (below > above ? below : above) / (float)WORD_MAX;
    /* A smaller step has no finite inverse. Elements within 2^-112 then lose bits, which no distance shows. */
    if (step > 0 && step < 0x1p-126f)
        step = 0x1p-126f;
    float inverse = step > 0 ? 1.0f / step : 0.0f;
    struct kithi_word_sums sums;
    kithi_kernel_pick()->words(a->values, dim, base, inverse,
                               &(struct kithi_words){ a->words, a->high, a->low, &sums });
    q->base = (double)base;
    q->step = (double)step;
    q->high_sum = sums.h;
    double sum = 128.0 * (double)sums.h + (double)sums.l;
    double squares = 16384.0 * (double)sums.hh + 256.0 * (double)sums.hl + (double)sums.ll;
    q->moment1 = (double)step * sum;
    q->moment2 = (double)step * (double)step * squares;
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
