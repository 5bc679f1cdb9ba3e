/*
 * churn.h - what the two halves of bench_churn share: turnovers (bench_churn.c) and the sliding window (window.c).
 */
#ifndef KITH_BENCH_CHURN_H
#define KITH_BENCH_CHURN_H

#include <stdio.h>

#include "bench/common/daemon.h"

/* What is promised, and checked by both. */
#define BENCH_CHURN_RECALL_LOST 0.005 /* of recall, at most */
#define BENCH_CHURN_GROWTH      1.02  /* of memory, at most */

/* A line that is drawn over again; where stderr is no terminal, nothing. */
void bench_churn_progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A line of a list of verdicts; returns good. */
bool bench_churn_verdict(const char *what, bool good, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Insert and delete at a fixed rate for opts->seconds. json may be NULL. Returns whether nothing drifts. */
bool bench_churn_window(const struct bench_daemon *d, const struct bench_set *set,
                        const struct bench_options *opts, const struct bench_config *config, FILE *json);

#endif
