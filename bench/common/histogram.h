/*
 * histogram.h - latencies by log-linear buckets: 32 to a power of two, so within 3 %.
 *
 * A plain array without pointers, so that it can lie in memory that processes share.
 */
#ifndef KITH_BENCH_HISTOGRAM_H
#define KITH_BENCH_HISTOGRAM_H

#include <stdint.h>

#define BENCH_HISTOGRAM_SUB     32u
#define BENCH_HISTOGRAM_BUCKETS (60u * BENCH_HISTOGRAM_SUB)

struct bench_histogram {
    uint64_t count;
    uint64_t max;
    uint64_t sum;
    uint64_t bucket[BENCH_HISTOGRAM_BUCKETS];
};

static inline void bench_histogram_add(struct bench_histogram *h, uint64_t v)
{
    uint32_t i = (uint32_t)v;
    if (v >= BENCH_HISTOGRAM_SUB) {
        uint32_t top = 63u - (uint32_t)__builtin_clzll(v);
        i = (top - 4) * BENCH_HISTOGRAM_SUB + ((uint32_t)(v >> (top - 5)) & (BENCH_HISTOGRAM_SUB - 1));
    }
    h->bucket[i]++;
    h->count++;
    h->sum += v;
    if (v > h->max)
        h->max = v;
}

/* Add what src counted to dst. */
void bench_histogram_merge(struct bench_histogram *dst, const struct bench_histogram *src);

/* The value that a share of all (0.5, 0.99, ...) does not exceed, to the upper end of its bucket. */
uint64_t bench_histogram_at(const struct bench_histogram *h, double share);

#endif
