/*
 * rand.c - splitmix64 behind the test generators. See rand.h.
 */
#include "tests/support/rand.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void test_rand_init(struct test_rand *r)
{
    const char *given = getenv("KITH_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = (uint64_t)now.tv_sec << 32 ^ (uint64_t)now.tv_nsec ^ (uint64_t)getpid() << 20;
    if (given && *given) {
        seed = strtoull(given, NULL, 0);
    }
    fprintf(stderr, "KITH_SEED=%" PRIu64 "\n", seed);
    test_rand_seed(r, seed);
}

void test_rand_seed(struct test_rand *r, uint64_t seed)
{
    r->state = seed;
}

uint64_t test_rand_u64(struct test_rand *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t test_rand_below(struct test_rand *r, uint32_t n)
{
    return (uint32_t)((test_rand_u64(r) >> 32) * n >> 32);
}

float test_rand_float(struct test_rand *r)
{
    /* 24 bits, so that every value is exact and 1 is not among them. */
    return (float)(test_rand_u64(r) >> 40) / 8388608.0f - 1.0f;
}

void test_rand_floats(struct test_rand *r, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = test_rand_float(r);
    }
}

uint64_t test_seed(void)
{
    static bool known;
    static struct test_rand r;
    if (!known) {
        test_rand_init(&r);
        known = true;
    }
    return r.state;
}

bool test_long(void)
{
    const char *s = getenv("KITH_TEST_LONG");
    return s && *s && *s != '0';
}
