/*
 * codec.c - vectors into codes and back.
 *
 * Built without contraction of products and sums (shm/CMakeLists.txt): the same vector gives the same bytes on
 * every CPU, so that checkpoints and replays can be compared. Compilers turn the inner loops into vector code.
 */
#include "shm/kernel/codec.h"

#include <float.h>
#include <string.h>

#include "shm/kernel/distance.h"
#include "shm/kernel/half_priv.h"

enum { HEAD = sizeof(struct kithi_code_head) };

/* 32752, the largest half below 2^15: what FLT_MAX becomes must not be rounded up to what no float holds. */
enum { HALF_MAX = 0x77ff };

uint32_t kithi_code_size(enum kithi_codec codec, uint32_t dim)
{
    switch (codec) {
    case KITHI_CODEC_F16: return HEAD + dim * 2;
    case KITHI_CODEC_SQ8: return HEAD + dim;
    default: return dim * 4;
    }
}

/* The power of two that v is divided by: 1 for ordinary vectors, so that they are stored plainly. */
static float half_scale(const float *v, uint32_t dim)
{
    uint32_t largest = 0; /* magnitudes compare like their bits */
    for (uint32_t i = 0; i < dim; i++) {
        uint32_t bits = kithi_float_bits(v[i]) & 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    float max = kithi_bits_float(largest);
    if (largest == 0 || (max >= 0.25f && max <= 32752.0f))
        return 1.0f;
    /* The largest lands in [2^14, 2^15), or lower when the scale would not be a normal float. */
    int32_t biased = (int32_t)(largest >> 23) - 14;
    return kithi_bits_float((uint32_t)(biased > 1 ? biased : 1) << 23);
}

static void to_floats(const uint16_t *restrict halves, uint32_t n, float *restrict out)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = kithi_half_to_float(halves[i]);
}

static void encode_f16(const float *restrict v, uint32_t dim, unsigned char *restrict out)
{
    float scale = half_scale(v, dim), inverse = 1.0f / scale; /* both powers of two: exact */
    uint16_t *halves = (uint16_t *)(void *)(out + HEAD);
    for (uint32_t i = 0; i < dim; i++) {
        uint16_t half = kithi_half_from_float(v[i] * inverse), magnitude = half & 0x7fff;
        halves[i] = (uint16_t)((half & 0x8000) | (magnitude < HALF_MAX ? magnitude : HALF_MAX));
    }
    struct kithi_code_head head = { .scale = scale };
    memcpy(out, &head, sizeof head);
}

/* The nearest integer of a small x, by its low bits: a conversion would be undefined for what does not fit. */
static uint8_t nearest(double x)
{
    double shifted = x + 0x1.8p52;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (uint8_t)bits;
}

static void encode_sq8(const float *restrict v, uint32_t dim, unsigned char *restrict out)
{
    /* In double: the range of finite floats may be twice FLT_MAX, or a fraction of a denormal a step. */
    float low, high;
    kithi_floats_range(v, dim, &low, &high);
    double range = (double)high - (double)low, base = (double)low;
    float scale = (float)(range / 255.0);
    if ((double)scale * 255.0 < range) /* rounded down: the next float, so that the largest gets 255 */
        scale = kithi_bits_float(kithi_float_bits(scale) + 1);
    double inverse = range > 0 ? 1.0 / (double)scale : 0.0;

    uint8_t *u = out + HEAD;
    for (uint32_t i = 0; i < dim; i++)
        u[i] = nearest(((double)v[i] - base) * inverse);

    uint32_t sum = 0, squares = 0; /* at most 4096 * 255^2 < 2^32: exact */
    for (uint32_t i = 0; i < dim; i++) {
        sum += u[i];
        squares += (uint32_t)u[i] * u[i];
    }
    struct kithi_code_head head = { scale, low, squares, sum };
    memcpy(out, &head, sizeof head);
}

void kithi_code_encode(enum kithi_codec codec, const float *v, uint32_t dim, void *out)
{
    switch (codec) {
    case KITHI_CODEC_F16: encode_f16(v, dim, out); break;
    case KITHI_CODEC_SQ8: encode_sq8(v, dim, out); break;
    default: memcpy(out, v, (size_t)dim * sizeof(float)); break;
    }
}

void kithi_code_decode(enum kithi_codec codec, const void *code, uint32_t dim, float *out)
{
    if (codec != KITHI_CODEC_F16 && codec != KITHI_CODEC_SQ8) {
        memcpy(out, code, (size_t)dim * sizeof(float));
        return;
    }
    struct kithi_code_head head;
    memcpy(&head, code, sizeof head);
    const unsigned char *elements = (const unsigned char *)code + HEAD;
    if (codec == KITHI_CODEC_F16) {
        to_floats((const uint16_t *)(const void *)elements, dim, out);
        for (uint32_t i = 0; i < dim; i++)
            out[i] *= head.scale;
    } else {
        /* In double: scale * 255 may exceed FLT_MAX where the sum does not, or the sum by the rounding of scale. */
        for (uint32_t i = 0; i < dim; i++) {
            double x = (double)head.offset + (double)head.scale * (double)elements[i];
            out[i] = (float)(x > (double)FLT_MAX ? (double)FLT_MAX : x);
        }
    }
}
