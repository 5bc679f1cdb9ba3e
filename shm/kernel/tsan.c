/*
 * tsan.c - distances for ThreadSanitizer builds: rows are read by relaxed atomics.
 *
 * A reader may compute over a row that the writer is reusing; its birth check drops the
 * result (PROTOCOL.md, [P2 birth]). The other sets read such a row plainly, as opaque code.
 * Here every read of a row is an atomic one, so that whatever ThreadSanitizer still
 * reports is a real race. The writer compares rows with rows, so that the query is read in
 * the same way.
 */
#include "shm/kernel/distance_priv.h"

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

static float sum(const float *query, const float *row, uint32_t dim, bool dot)
{
    float s[LANES] = { 0 };
    for (uint32_t i = 0; i < dim; i++) {
        float q = load(query + i), r = load(row + i);
        s[i % LANES] += dot ? q * r : (q - r) * (q - r);
    }
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

static float l2(const float *query, const float *row, uint32_t dim)
{
    return sum(query, row, dim, false);
}

static float ip(const float *query, const float *row, uint32_t dim)
{
    return 1.0f - sum(query, row, dim, true);
}

static void l2_4(const float *query, const float *const rows[4], uint32_t dim, float out[4])
{
    for (uint32_t r = 0; r < 4; r++)
        out[r] = l2(query, rows[r], dim);
}

static void ip_4(const float *query, const float *const rows[4], uint32_t dim, float out[4])
{
    for (uint32_t r = 0; r < 4; r++)
        out[r] = ip(query, rows[r], dim);
}

const struct kithi_kernel kithi_kernel_tsan = { "tsan", l2, ip, l2_4, ip_4 };

#endif
