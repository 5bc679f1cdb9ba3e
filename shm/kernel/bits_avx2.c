/*
 * bits_avx2.c - estimates with AVX2: 32 bytes of a block are two groups of four signs, one in each half of a register.
 */
#include "shm/kernel/bits_priv.h"

#if defined(__x86_64__) && !KITHI_TSAN

#define LANES 8
#include "shm/kernel/bits_vec.h"

#include <immintrin.h>

static uint32_t negatives(vec v)
{
    return (uint32_t)_mm256_movemask_ps((__m256)v);
}

KITHI_BITS_VEC_SET(avx2);

/* Looks of 16 neighbours, 16-bit sums: of the odd ones, and of the even ones plus 256 times the odd ones. */
struct sums {
    __m256i both, odd;
};

KITHI_KERNEL_INLINE void add_looks(struct sums *s, __m256i table, __m256i index)
{
    __m256i looks = _mm256_shuffle_epi8(table, index);
    s->both = _mm256_add_epi16(s->both, looks);
    s->odd = _mm256_add_epi16(s->odd, _mm256_srli_epi16(looks, 8));
}

/* The 16-bit sums of 16 neighbours in order, the two halves of the registers still apart, added to 32-bit ones. */
KITHI_KERNEL_INLINE void spill(const struct sums *s, __m256i sums[2])
{
    __m256i even = _mm256_sub_epi16(s->both, _mm256_slli_epi16(s->odd, 8));
    __m256i first = _mm256_unpacklo_epi16(even, s->odd), last = _mm256_unpackhi_epi16(even, s->odd);
    sums[0] = _mm256_add_epi32(sums[0],
                               _mm256_add_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(first)),
                                                _mm256_cvtepu16_epi32(_mm256_extracti128_si256(first, 1))));
    sums[1] =
        _mm256_add_epi32(sums[1], _mm256_add_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(last)),
                                                   _mm256_cvtepu16_epi32(_mm256_extracti128_si256(last, 1))));
}

uint32_t kithi_bits_estimate_avx2(const struct kithi_query *q, const unsigned char *block, float distance,
                                  float limit, const unsigned char *ahead, float est[KITHI_BITS_PLACES])
{
    const __m256i half = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    const __m256i *code = (const __m256i *)(const void *)(block + KITHI_BITS_CODES);
    const __m256i *table = (const __m256i *)(const void *)q->table;
    __m256i sums[4] = { zero, zero, zero, zero };
    for (uint32_t left = q->width / 8; left > 0;) {
        struct sums low = { zero, zero }, high = { zero, zero };
        uint32_t n = left < 256 ? left : 256; /* 256 * 255 < 2^16 */
        left -= n;
        for (; n > 0; n--, code++, table++, ahead += KITHI_CACHE_LINE / 2) {
            KITHI_PREFETCH(ahead);
            __m256i c = _mm256_load_si256(code), t = _mm256_load_si256(table);
            add_looks(&low, t, _mm256_and_si256(c, half));
            add_looks(&high, t, _mm256_and_si256(_mm256_srli_epi16(c, 4), half));
        }
        spill(&low, sums);
        spill(&high, sums + 2);
    }
    const float *f1 = (const float *)(const void *)(block + KITHI_BITS_F1);
    const float *f2 = (const float *)(const void *)(block + KITHI_BITS_F2);
    __m256 scale = _mm256_set1_ps(q->table_scale), base = _mm256_set1_ps(q->table_base);
    uint32_t below = 0;
    for (int i = 0; i < 4; i++) {
        __m256 product = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sums[i]), base);
        __m256 start = _mm256_add_ps(_mm256_set1_ps(distance), _mm256_load_ps(f1 + 8 * i));
        __m256 e = _mm256_fmadd_ps(_mm256_load_ps(f2 + 8 * i), product, start);
        _mm256_storeu_ps(est + 8 * i, e);
        __m256 less = _mm256_cmp_ps(e, _mm256_set1_ps(limit), _CMP_LT_OQ);
        below |= (uint32_t)_mm256_movemask_ps(less) << 8 * i;
    }
    return below;
}

#endif
