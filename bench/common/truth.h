/*
 * truth.h - the exact neighbours of the queries of a set, computed by all CPUs.
 */
#ifndef KITH_BENCH_TRUTH_H
#define KITH_BENCH_TRUTH_H

#include "bench/common/set.h"

/* Allocate and fill set->truth: truth_k row numbers of each query, nearest first, ties by row number. */
void bench_truth(struct bench_set *set);

/* What bench_truth() ranks by: smaller is nearer. Of one metric and query these can be compared. */
float bench_distance(const struct bench_set *set, const float *query, const float *row);

#endif
