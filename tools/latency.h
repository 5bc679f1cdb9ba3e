/*
 * latency.h - a histogram of durations: log-linear, each bucket 1/128 of its value wide, so that
 * percentiles are right to 1 % from nanoseconds to centuries in 58 KiB. Plain memory, zeroed = empty.
 */
#ifndef KITHI_TOOLS_LATENCY_H
#define KITHI_TOOLS_LATENCY_H

#include <stdint.h>

#define KITHI_LATENCY_BITS    7u
#define KITHI_LATENCY_BUCKETS ((64u - KITHI_LATENCY_BITS + 1u) << KITHI_LATENCY_BITS)

struct kithi_latency {
    uint64_t count;
    uint64_t bucket[KITHI_LATENCY_BUCKETS];
};

void kithi_latency_add(struct kithi_latency *l, uint64_t ns);

/* Put what other holds into l, too. */
void kithi_latency_merge(struct kithi_latency *l, const struct kithi_latency *other);

/* The duration in microseconds that the fraction part (0..1) of all stays below; 0 when empty. */
double kithi_latency_us(const struct kithi_latency *l, double part);

#endif
