/*
 * query.h - one query in every form that stored codes are compared with. Private to a search.
 *
 * Prepared once a search; its memory is kept from one to the next. A query belongs to one thread at a time.
 */
#ifndef KITHI_KERNEL_QUERY_H
#define KITHI_KERNEL_QUERY_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/kernel/codec.h"

struct kithi_query {
    uint32_t dim;
    const float *values; /* dim floats, 64-byte aligned: a copy; normalised under cosine by the caller */

    /* For sq8: values[i] ~ base + step * words[i], words[i] = 128 * high[i] + low[i], |words[i]| <= 16383,
     * 0 <= low[i] < 128. The base is the middle between the least and the largest value, so that words are fine
     * however far from the origin the query is. Each array is padded with zeros to a multiple of 64 elements.
     * The sums are those of the words, not of values: a distance is then the one to a point very near to the
     * query, and rounding of words does not make it negative. */
    const int16_t *words;
    const int8_t *high, *low;
    double base, step;       /* floats */
    double moment1, moment2; /* sums of step * words[i], and of its square */
    int32_t high_sum;        /* of high: for kernels whose products take signed bytes on both sides */

    /* For bits (bits.h): width signs estimated from look-ups of four at a time. */
    uint32_t width;       /* 0: not prepared */
    const float *rotated; /* width floats */
    const uint8_t *table; /* width / 4 tables of 16 bytes */
    float table_scale, table_base;

    uint32_t width_room;   /* what width may be */
    unsigned char *memory; /* all of the arrays */
    uint64_t memory_size;
};

/*
 * Room for queries of dim floats, and of width bits (0: none, else at least dim). 0 or -ENOMEM, and q is as before.
 * A zeroed struct is empty. Nothing is prepared afterwards unless both sizes are what they were.
 */
int kithi_query_reserve(struct kithi_query *q, uint32_t dim, uint32_t width);

/*
 * Take v (dim finite floats; may be NULL: what stands in kithi_query_values() already) and prepare it for the
 * codec, and for bits when width is not 0: it is then the reserved one. Allocates nothing.
 */
void kithi_query_prepare(struct kithi_query *q, const float *v, enum kithi_codec codec, uint32_t width);

/* Where the floats go, for callers that write them in place. */
float *kithi_query_values(struct kithi_query *q);

void kithi_query_fini(struct kithi_query *q);

#endif
