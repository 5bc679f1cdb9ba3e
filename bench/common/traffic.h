/*
 * traffic.h - reader processes, alone or beside a writer at full speed, or beside that and checkpoints.
 *
 * The writer replaces random rows by their own vectors, so that slots turn over, the collection keeps its
 * size and the true neighbours stay what they are: recall can be compared before and after.
 */
#ifndef KITH_BENCH_TRAFFIC_H
#define KITH_BENCH_TRAFFIC_H

#include "bench/common/daemon.h"
#include "bench/common/histogram.h"

#define BENCH_TRAFFIC_EF    100u /* or k, where that is more */
#define BENCH_TRAFFIC_BATCH 100u /* vectors that the writer sends at a time */

struct bench_phase {
    const char *name;
    unsigned readers;
    bool writer;
    bool pinned;      /* readers on opts->cpu and opts->daemon_cpu by turns, the writer on the latter */
    bool checkpoints; /* a process asks for one checkpoint after the other */
    double seconds;
};

struct bench_traffic {
    struct bench_histogram latency; /* of all readers */
    struct bench_histogram cpu;     /* CPU time of the same searches: without other programs' time slices */
    double seconds;
    uint64_t writes;
    uint64_t checkpoints; /* that have ended */
    uint64_t errors; /* failed writes, failed searches, searches with fewer than k hits; each kind is shown */
};

/* Run one phase. */
void bench_traffic_run(const struct bench_phase *p, const struct bench_daemon *d, const struct bench_set *set,
                       const struct bench_options *o, const struct bench_config *config,
                       struct bench_traffic *out);

#endif
