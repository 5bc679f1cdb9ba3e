/*
 * rand.h - random numbers for tests: seeded, printed, repeatable.
 *
 * A test begins with test_rand_init(), which prints the seed; KITH_SEED=<number> in the
 * environment runs it again with the same one.
 */
#ifndef KITH_TESTS_RAND_H
#define KITH_TESTS_RAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_rand {
    uint64_t state;
};

/* Seed from KITH_SEED, or from the clock and the process id; prints the seed to stderr. */
void test_rand_init(struct test_rand *r);

/* Seed with a number, for generators that need one of their own (a thread, a child). Prints nothing. */
void test_rand_seed(struct test_rand *r, uint64_t seed);

uint64_t test_rand_u64(struct test_rand *r);

/* 0..n-1; n > 0. */
uint32_t test_rand_below(struct test_rand *r, uint32_t n);

/* Evenly in [-1, 1). */
float test_rand_float(struct test_rand *r);

void test_rand_floats(struct test_rand *r, float *out, size_t n);

/* The seed of this process: KITH_SEED or drawn once, printed once. For tests that derive several generators. */
uint64_t test_seed(void);

/* KITH_TEST_LONG is set: run the long form. */
bool test_long(void);

#endif
