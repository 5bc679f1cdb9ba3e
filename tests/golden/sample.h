/*
 * sample.h - what the golden collection holds: a function of numbers, so that the test needs no other file.
 *
 * Ids 0..SAMPLE_COUNT-1, each written twice, the second time with SAMPLE_FINAL; every seventh deleted at last. Never
 * change this: the golden files were made with it.
 */
#ifndef KITHI_TEST_SAMPLE_H
#define KITHI_TEST_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define SAMPLE_NAME  "golden"
#define SAMPLE_COUNT 150u
#define SAMPLE_DIM   12u
#define SAMPLE_FIRST 1u
#define SAMPLE_FINAL 2u
#define SAMPLE_EPOCH 7u /* that the golden collection ends with */

/* Every fifth id is too long for a record. */
static inline void sample_id(uint32_t n, char out[80])
{
    snprintf(out, 80,
             n % 5 == 4 ? "an id that does not fit into a record of this format, number %u" : "id-%u", n);
}

static inline bool sample_is_there(uint32_t n)
{
    return n % 7 != 3;
}

static inline void sample_vector(uint32_t n, uint32_t version, float out[SAMPLE_DIM])
{
    uint32_t x = n * 2654435761u + version * 40503u + 1u;
    for (uint32_t i = 0; i < SAMPLE_DIM; i++) {
        x = x * 1664525u + 1013904223u;
        out[i] = (float)((int32_t)(x >> 8 & 0xffff) - 32768) / 4096.0f;
    }
}

/* From format version 3 on, every third has a payload, "" for none; written with the vector, and changed alone where n is even. */
static inline void sample_payload(uint32_t n, uint32_t version, char *out, size_t size)
{
    static const unsigned fills[] = { 1, 60, 200, 500, 900, 10, 30, 90 };
    *out = '\0';
    if (n % 3 == 0)
        snprintf(out, size, "{\"fill\":\"%0*u\",\"n\":%u,\"version\":%u}",
                 n == 63   ? 3000
                 : n == 66 ? 9000
                 : n == 69 ? 20000
                           : (int)fills[n / 3 % 8],
                 n, n, version);
}

#endif
