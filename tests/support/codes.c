/*
 * codes.c - quantizations by name, and what becomes of a vector.
 */
#include "tests/support/codes.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/tmp.h"

const uint32_t test_rounding_layouts[TEST_ROUNDING_LAYOUTS][2] = {
    { KITHI_QUANTIZATION_SQ8, KITHI_KEEP_NONE },
    { KITHI_QUANTIZATION_F16, KITHI_KEEP_NONE },
    { KITHI_QUANTIZATION_BITS, KITHI_KEEP_NONE },
    { KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F16 },
};

/* The number of the name in an environment variable; 0 is that of one that is not set. */
static uint32_t number(const char *variable, const char *(*name_of)(uint32_t), uint32_t count)
{
    const char *name = getenv(variable);
    if (!name || !*name)
        return 0;
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(name, name_of(i)) == 0)
            return i;
    test_die("%s is \"%s\", which is nothing that a segment has", variable, name);
}

uint32_t test_quantization(void)
{
    return number("KITH_TEST_QUANTIZATION", kithi_quantization_name, KITHI_QUANTIZATION_AUTO);
}

uint32_t test_keep(void)
{
    return number("KITH_TEST_KEEP", kithi_keep_name, KITHI_KEEP_NONE + 1);
}

void test_codes_give(struct kithi_geometry *g)
{
    kithi_geometry_want(g, test_quantization(), test_keep());
}

enum kithi_codec test_codes_kept(void)
{
    struct kithi_geometry g = { .quantization = test_quantization(), .keep = test_keep() };
    return kithi_geometry_kept(&g);
}

void test_codes_decoded(enum kithi_codec kept, bool cosine, float *v, uint32_t dim)
{
    uint32_t code[KITHI_DIM_MAX]; /* of at most two bytes an element, and a head */
    float norm = 1;
    if (kept == KITHI_CODEC_F32)
        return;
    if (cosine)
        norm = kithi_normalise(v, v, dim);
    kithi_code_encode(kept, v, dim, code);
    kithi_code_decode(kept, code, dim, v);
    for (uint32_t i = 0; i < dim; i++)
        v[i] *= norm;
}
