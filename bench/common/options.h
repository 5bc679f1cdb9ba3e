/*
 * options.h - the command line that the benchmarks share.
 *
 *   bench_x [OPTIONS] [SET]
 *
 * Each program prints its own list of what it heeds; an option it does not heed changes nothing.
 */
#ifndef KITH_BENCH_OPTIONS_H
#define KITH_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define BENCH_EF_MAX 32
#define BENCH_K_MAX  100u /* true neighbours that the sets come with */

struct bench_options {
    const char *set; /* a set of $KITH_BENCH_DATA, or "generated" */
    uint32_t k;
    uint32_t m;
    uint32_t ef_construction;
    uint32_t ef[BENCH_EF_MAX]; /* rising */
    uint32_t ef_count;
    unsigned rounds;
    unsigned threads; /* of a build */
    unsigned readers;
    double seconds;
    int cpu;                /* of the timed reader; -1: the last one */
    bool peer;              /* compare with hnswlib where it is built in */
    bool cpu_time;          /* divide by CPU time, not by time: for machines that others use */
    const char *peer_index; /* file to keep the peer's index in between runs; NULL: none */
    bool child;             /* of bench_attach: this process is the one to measure */
};

/* Parse or exit: 0 after --help, 2 after a wrong option. purpose is the first line of --help. */
void bench_options_parse(int argc, char **argv, const char *purpose, struct bench_options *out);

#endif
