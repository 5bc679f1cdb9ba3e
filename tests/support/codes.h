/*
 * codes.h - the codes that a test's collections have, from the environment: KITH_TEST_QUANTIZATION is none, f16, sq8 or
 * bits and KITH_TEST_KEEP is f32, f16 or none, so that one program is a test of each (kith_test_codes() in CMake).
 */
#ifndef KITHI_TEST_CODES_H
#define KITHI_TEST_CODES_H

#include "shm/layout/geometry.h"

/* What the environment says, or nothing special. Ends the program when it is no name of ours. */
uint32_t test_quantization(void);
uint32_t test_keep(void);

/* Both for a geometry of the test's own. */
void test_codes_give(struct kithi_geometry *g);

/* The codec in which such a collection keeps vectors, and by which its answers are scored. */
enum kithi_codec test_codes_kept(void);

/* Layouts that keep other values than the floats that were given: quantization and keep of each. */
#define TEST_ROUNDING_LAYOUTS 4u
extern const uint32_t test_rounding_layouts[TEST_ROUNDING_LAYOUTS][2];

/*
 * Turn v into what comes back of it: the floats that were given where those are kept, else decoded values. dim is
 * at most KITHI_DIM_MAX; cosine: vectors are kept normalised, and come back with their length.
 */
void test_codes_decoded(enum kithi_codec kept, bool cosine, float *v, uint32_t dim);

#endif
