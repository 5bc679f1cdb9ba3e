/*
 * bits_avx512_priv.h - what estimates with AVX-512 (F, BW, DQ, VL) have in common: all but the sums of looks.
 *
 * Included by the file of a set where others include bits_vec.h.
 */
#ifndef KITHI_KERNEL_BITS_AVX512_PRIV_H
#define KITHI_KERNEL_BITS_AVX512_PRIV_H

#include <immintrin.h>

#define LANES 16
#include "shm/kernel/bits_vec.h"

static uint32_t negatives(vec v)
{
    return _mm512_movepi32_mask((__m512i)v);
}

/* From the sums of looks, 16 places a register in order, to estimates and the mask of those below the limit. */
KITHI_KERNEL_INLINE uint32_t estimates_of(const __m512i sums[2], const struct kithi_query *q,
                                          const unsigned char *block, float distance, float limit,
                                          float est[KITHI_BITS_PLACES])
{
    __m512 scale = _mm512_set1_ps(q->table_scale), base = _mm512_set1_ps(q->table_base);
    uint32_t below = 0;
    for (int i = 0; i < 2; i++) {
        __m512 product = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sums[i]), base);
        __m512 f1 = _mm512_load_ps(block + KITHI_BITS_F1 + 64 * i);
        __m512 f2 = _mm512_load_ps(block + KITHI_BITS_F2 + 64 * i);
        __m512 e = _mm512_fmadd_ps(f2, product, _mm512_add_ps(_mm512_set1_ps(distance), f1));
        _mm512_storeu_ps(est + 16 * i, e);
        below |= (uint32_t)_mm512_cmp_ps_mask(e, _mm512_set1_ps(limit), _CMP_LT_OQ) << 16 * i;
    }
    return below;
}

#endif
