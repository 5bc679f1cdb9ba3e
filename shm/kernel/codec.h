/*
 * codec.h - the forms in which one vector is stored, and what they cost.
 *
 *   f32   dim floats
 *   f16   head, then dim half floats:  v[i] ~ scale * h[i]; scale is a power of two, chosen so that the
 *         largest element neither overflows nor drowns the others in subnormals
 *   sq8   head, then dim bytes:        v[i] ~ offset + scale * u[i]
 *
 * Scale and offset are fitted to each vector by itself. Nothing is trained, so nothing is out of date when the
 * data drifts, and no value is clamped because others were smaller. A stored code is immutable for the life
 * of its slot's birth; bytes that change under a kernel give any result ([P2 birth]).
 */
#ifndef KITHI_KERNEL_CODEC_H
#define KITHI_KERNEL_CODEC_H

#include <stdint.h>

enum kithi_codec { /* the numbers are format */
                   KITHI_CODEC_F32 = 0,
                   KITHI_CODEC_F16 = 1,
                   KITHI_CODEC_SQ8 = 2,
                   KITHI_CODEC_COUNT = 3,
};

/* Before the elements of f16 and sq8. The sums are exact, and of the bytes: a rounded square length would make
 * the distances of vectors far from the origin useless. */
struct kithi_code_head {
    float scale;      /*  0..3  */
    float offset;     /*  4..7  0 for f16 */
    uint32_t squares; /*  8..11 sum of u[i]^2, at most 4096 * 255^2; 0 for f16 */
    uint32_t sum;     /* 12..15 sum of u[i]; 0 for f16 */
};
_Static_assert(sizeof(struct kithi_code_head) == 16, "code head is format");

/* Bytes of a code of dim elements, without padding. */
uint32_t kithi_code_size(enum kithi_codec codec, uint32_t dim);

/*
 * Encode dim finite floats into out: kithi_code_size() bytes, 4-byte aligned, not overlapping v. Deterministic on
 * every CPU. Errors, of finite floats: none for f32; for f16 2^-11 of an element, and 2^-25 scale where that is
 * more; for sq8 half of scale, which is 1/255 of the range of the elements. out is private: a slot takes it by
 * kithi_slot_store().
 */
void kithi_code_encode(enum kithi_codec codec, const float *v, uint32_t dim, void *out);

/* Decode into out (dim floats). code, 4-byte aligned, need not be honest: any bytes give some floats. It is private:
 * it leaves a slot by kithi_slot_load(). */
void kithi_code_decode(enum kithi_codec codec, const void *code, uint32_t dim, float *out);

#endif
