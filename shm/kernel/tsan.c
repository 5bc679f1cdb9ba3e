/*
 * tsan.c - distances for ThreadSanitizer builds: rows are read by relaxed atomics.
 *
 * A reader may compute over a row that the writer is reusing; its birth check drops the
 * result (PROTOCOL.md, [P2 birth]). The other sets read such a row plainly, as opaque code.
 * Here every read of a row is an atomic one, so that whatever ThreadSanitizer still
 * reports is a real race. The writer compares rows with rows, so that the query is read in
 * the same way.
 */
#include <string.h>

#include "shm/kernel/bits_priv.h"
#include "shm/kernel/distance_priv.h"
#include "shm/kernel/half_priv.h"
#include "shm/kernel/query.h"

#if KITHI_TSAN

enum { LANES = 8 };

static float load(const float *p)
{
    /* Relaxed: the caller's birth check orders the whole row, not this word. */
    union {
        uint32_t bits;
        float value;
    } word = { atomic_load_explicit((const _Atomic uint32_t *)(const void *)p, memory_order_relaxed) };
    return word.value;
}

KITHI_KERNEL_INLINE float term(float q, float r, bool dot)
{
    return dot ? q * r : (q - r) * (q - r);
}

KITHI_KERNEL_INLINE float finish(const float s[LANES], bool dot)
{
    float sum = ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
    return dot ? 1.0f - sum : sum;
}

KITHI_KERNEL_INLINE float one(const float *query, const float *row, uint32_t dim, bool dot)
{
    float s[LANES] = { 0 };
    for (uint32_t i = 0; i < dim; i++)
        s[i % LANES] += term(load(query + i), load(row + i), dot);
    return finish(s, dot);
}

KITHI_KERNEL_INLINE void four(const float *query, const float *const rows[4], uint32_t dim, float out[4],
                              bool dot)
{
    for (uint32_t r = 0; r < 4; r++)
        out[r] = one(query, rows[r], dim, dot);
}

static float load_half(const uint16_t *p)
{
    return kithi_half_to_float(
        atomic_load_explicit((const _Atomic uint16_t *)(const void *)p, memory_order_relaxed)); /* as above */
}

static uint32_t load_byte(const uint8_t *p)
{
    return atomic_load_explicit((const _Atomic uint8_t *)(const void *)p,
                                memory_order_relaxed); /* as above */
}

static struct kithi_code_head head_of(const unsigned char *code)
{
    const _Atomic uint32_t *words = (const _Atomic uint32_t *)(const void *)code;
    uint32_t copy[sizeof(struct kithi_code_head) / sizeof(uint32_t)];
    for (size_t i = 0; i < sizeof copy / sizeof copy[0]; i++)
        copy[i] = atomic_load_explicit(&words[i], memory_order_relaxed); /* as above */
    struct kithi_code_head head;
    memcpy(&head, copy, sizeof head);
    return head;
}

KITHI_KERNEL_INLINE float half_one(const float *query, const uint16_t *row, float scale, uint32_t dim,
                                   bool dot)
{
    float s[LANES] = { 0 };
    for (uint32_t i = 0; i < dim; i++)
        s[i % LANES] += term(query[i], scale * load_half(row + i), dot);
    return finish(s, dot);
}

KITHI_KERNEL_INLINE void half_four(const float *query, const uint16_t *const rows[4], const float scales[4],
                                   uint32_t dim, float out[4], bool dot)
{
    for (uint32_t r = 0; r < 4; r++)
        out[r] = half_one(query, rows[r], scales[r], dim, dot);
}

KITHI_KERNEL_INLINE float half_pair(const uint16_t *a, float a_scale, const uint16_t *b, float b_scale,
                                    uint32_t dim, bool dot)
{
    float s[LANES] = { 0 };
    for (uint32_t i = 0; i < dim; i++)
        s[i % LANES] += term(a_scale * load_half(a + i), b_scale * load_half(b + i), dot);
    return finish(s, dot);
}

KITHI_KERNEL_INLINE int64_t byte_one(const struct kithi_query *q, const uint8_t *u)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < q->dim; i++)
        sum += q->words[i] * (int32_t)load_byte(u + i);
    return sum;
}

KITHI_KERNEL_INLINE void byte_four(const struct kithi_query *q, const uint8_t *const u[4], int64_t out[4])
{
    for (uint32_t r = 0; r < 4; r++)
        out[r] = byte_one(q, u[r]);
}

KITHI_KERNEL_INLINE int64_t byte_pair(const uint8_t *a, const uint8_t *b, uint32_t dim, uint32_t a_sum)
{
    (void)a_sum;
    uint32_t sum = 0; /* at most 4096 * 255^2 */
    for (uint32_t i = 0; i < dim; i++)
        sum += load_byte(a + i) * load_byte(b + i);
    return sum;
}

#include "shm/kernel/codes_priv.h"

KITHI_KERNEL_SET(tsan, tsan);

#endif
