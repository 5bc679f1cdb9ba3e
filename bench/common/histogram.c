/*
 * histogram.c - merging histograms and reading them.
 */
#include "bench/common/histogram.h"

void bench_histogram_merge(struct bench_histogram *dst, const struct bench_histogram *src)
{
    for (uint32_t i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++)
        dst->bucket[i] += src->bucket[i];
    dst->count += src->count;
    dst->sum += src->sum;
    if (src->max > dst->max)
        dst->max = src->max;
}

uint64_t bench_histogram_at(const struct bench_histogram *h, double share)
{
    uint64_t wanted = (uint64_t)((double)h->count * share);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen > wanted) {
            uint64_t upper = i;
            if (i >= BENCH_HISTOGRAM_SUB) {
                uint32_t shift = i / BENCH_HISTOGRAM_SUB - 1;
                upper = ((uint64_t)(BENCH_HISTOGRAM_SUB + i % BENCH_HISTOGRAM_SUB + 1) << shift) - 1;
            }
            return upper < h->max ? upper : h->max;
        }
    }
    return h->max;
}
