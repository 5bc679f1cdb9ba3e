/*
 * bits_avx512.c - estimates with AVX-512 (F, BW, DQ, VL): 64 bytes of a block are four groups of four signs.
 */
#include "shm/kernel/bits_priv.h"

#if defined(__x86_64__) && !KITHI_TSAN

#include "shm/kernel/bits_avx512_priv.h"

KITHI_BITS_VEC_SET(avx512);

/* Looks of 16 neighbours, 16-bit sums: of the odd ones, and of the even ones plus 256 times the odd ones. */
struct sums {
    __m512i both, odd;
};

KITHI_KERNEL_INLINE void add_looks(struct sums *s, __m512i table, __m512i index)
{
    __m512i looks = _mm512_shuffle_epi8(table, index);
    s->both = _mm512_add_epi16(s->both, looks);
    s->odd = _mm512_add_epi16(s->odd, _mm512_srli_epi16(looks, 8));
}

/* 8 neighbours a quarter, 16 bits each: the four quarters added. */
KITHI_KERNEL_INLINE __m256i add_quarters(__m512i v)
{
    __m512i s = _mm512_add_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(v)),
                                 _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(v, 1)));
    return _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
}

/* The 32-bit sums of 16 neighbours in order. */
KITHI_KERNEL_INLINE __m512i widen(const struct sums *s)
{
    __m512i even = _mm512_sub_epi16(s->both, _mm512_slli_epi16(s->odd, 8));
    __m256i first = add_quarters(_mm512_unpacklo_epi16(even, s->odd));
    __m256i last = add_quarters(_mm512_unpackhi_epi16(even, s->odd));
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), last, 1);
}

uint32_t kithi_bits_estimate_avx512(const struct kithi_query *q, const unsigned char *block, float distance,
                                    float limit, const unsigned char *ahead, float est[KITHI_BITS_PLACES])
{
    const __m512i half = _mm512_set1_epi8(15), zero = _mm512_setzero_si512();
    const unsigned char *code = block + KITHI_BITS_CODES;
    const uint8_t *table = q->table;
    __m512i sums[2] = { zero, zero };
    for (uint32_t left = q->width / 16; left > 0;) {
        struct sums low = { zero, zero }, high = { zero, zero };
        uint32_t n = left < 256 ? left : 256; /* 256 * 255 < 2^16 */
        left -= n;
        for (; n > 0; n--, code += 64, table += 64, ahead += KITHI_CACHE_LINE) {
            KITHI_PREFETCH(ahead);
            __m512i c = _mm512_load_si512(code), t = _mm512_load_si512(table);
            add_looks(&low, t, _mm512_and_si512(c, half));
            add_looks(&high, t, _mm512_and_si512(_mm512_srli_epi16(c, 4), half));
        }
        sums[0] = _mm512_add_epi32(sums[0], widen(&low));
        sums[1] = _mm512_add_epi32(sums[1], widen(&high));
    }
    return estimates_of(sums, q, block, distance, limit, est);
}

#endif
