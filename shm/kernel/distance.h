/*
 * distance.h - distances between float32 vectors, by the best instructions this CPU has.
 *
 * Knows floats and nothing of segments. The set is picked once, on first use: the best one
 * that CPU and operating system support. The environment variable KITH_KERNEL (scalar,
 * avx2, avx512, neon) overrides the pick, for tests; a name that this build or this CPU
 * does not have is ignored and the best set is used. No kernel reads past the last element
 * of a row.
 *
 * Distances: l2 = sum (a-b)^2; ip = 1 - sum a*b. Cosine is ip over normalised vectors. Sums
 * are float, in 8 to 64 partial sums: sets, and the one-row and four-row versions of one set,
 * may differ in the last bits.
 * Bytes of a shared segment may change under a kernel: any result is acceptable then, the
 * caller's birth check (PROTOCOL.md, [P2 birth]) drops it. Builds for ThreadSanitizer use a
 * kernel that loads rows by relaxed atomics.
 */
#ifndef KITHI_KERNEL_DISTANCE_H
#define KITHI_KERNEL_DISTANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KITHI_DIM_MAX 4096u

enum kithi_metric { /* the numbers are format */
                    KITHI_METRIC_L2 = 1,
                    KITHI_METRIC_COSINE = 2,
                    KITHI_METRIC_IP = 3,
};

/* One distance. query and row: dim floats, 4-byte aligned; they may alias. */
typedef float kithi_dist_fn(const float *query, const float *row, uint32_t dim);

/* Four rows against one query: four independent miss streams, the query loaded once. */
typedef void kithi_dist4_fn(const float *query, const float *const rows[4], uint32_t dim, float out[4]);

struct kithi_kernel {
    const char *name; /* "scalar", "avx2", "avx512", "neon", "tsan" */
    kithi_dist_fn *l2;
    kithi_dist_fn *ip; /* 1 - dot */
    kithi_dist4_fn *l2_4;
    kithi_dist4_fn *ip_4;
};

/* The set for this CPU (or for KITH_KERNEL); never NULL, constant for the process. Thread-safe. */
const struct kithi_kernel *kithi_kernel_pick(void);

/* A set by name, or NULL when this build or this CPU does not have it. For tests and benches. */
const struct kithi_kernel *kithi_kernel_named(const char *name);

/* True when all of n floats are finite. */
bool kithi_floats_finite(const float *v, size_t n);

/*
 * Scale src to unit length into dst (may alias) and return the old length, or 0 when src
 * has no direction: all zero, or so small or large that its length is 0 or infinite in
 * double precision, which no vector of finite floats is unless it is all zero. A length
 * above FLT_MAX is returned as FLT_MAX. Sums in double. dst is written only on success.
 */
float kithi_normalise(float *dst, const float *src, uint32_t dim);

#endif
