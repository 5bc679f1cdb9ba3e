/*
 * latency.c - see latency.h.
 *
 *   duration 1 xxxxxxx yyyyy (binary): the place of the leading 1 picks the group of buckets, the 7 bits
 *   behind it the bucket; durations below 128 ns have a bucket each
 */
#include "tools/latency.h"

#include <math.h>

#define SUB (1u << KITHI_LATENCY_BITS)

void kithi_latency_add(struct kithi_latency *l, uint64_t ns)
{
    unsigned at = (unsigned)ns;
    if (ns >= SUB) {
        unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - KITHI_LATENCY_BITS;
        at = (shift + 1u) * SUB + ((unsigned)(ns >> shift) & (SUB - 1u));
    }
    l->bucket[at]++;
    l->count++;
}

void kithi_latency_merge(struct kithi_latency *l, const struct kithi_latency *other)
{
    l->count += other->count;
    for (unsigned i = 0; i < KITHI_LATENCY_BUCKETS; i++)
        l->bucket[i] += other->bucket[i];
}

/* The middle of a bucket in nanoseconds. */
static double middle(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    return ((double)(SUB + bucket % SUB) + 0.5) * ldexp(1, (int)(bucket / SUB) - 1);
}

double kithi_latency_us(const struct kithi_latency *l, double part)
{
    uint64_t rank = (uint64_t)ceil((double)l->count * part), seen = 0;
    for (unsigned i = 0; i < KITHI_LATENCY_BUCKETS; i++) {
        seen += l->bucket[i];
        if (seen > 0 && seen >= rank)
            return middle(i) / 1000;
    }
    return 0;
}
