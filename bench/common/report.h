/*
 * report.h - what was measured, as tables, as JSON and as a plot.
 */
#ifndef KITH_BENCH_REPORT_H
#define KITH_BENCH_REPORT_H

#include "bench/common/curve.h"

/*
 * Print the tables of a curve; write opts->json and opts->svg where they are given. Ratios are to hnswlib
 * where it is among the engines, else to the last of them.
 */
void bench_report(const struct bench_set *set, const struct bench_options *opts,
                  const struct bench_engine *engines, const struct bench_curve *c);

#endif
