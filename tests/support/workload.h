/*
 * workload.h - a collection under fire: writers and readers in processes of their own, a daemon that may die at any
 * moment, and an exact account of what was acknowledged.
 *
 * Every id belongs to one writer, so that its history is one sequence. A writer notes a batch in shared memory before
 * it sends it and again when it is acknowledged. After a crash what the collection holds must be, for each
 * writer, the acknowledged batches and then some number of the unacknowledged ones in the order in which they were
 * sent, each whole. Readers only have to see versions that were ever sent, and never an error.
 *
 * Life cycle: workload_init -> workload_load -> { workload_go -> (the daemon dies) -> workload_halted ->
 *             (the daemon is back) -> workload_check } ... -> workload_finish
 */
#ifndef KITHI_TEST_WORKLOAD_H
#define KITHI_TEST_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"

#define WORKLOAD_NAME    "fire"
#define WORKLOAD_WRITERS 3u
#define WORKLOAD_READERS 4u

struct workload_shared;

struct workload {
    struct test_daemon *daemon;
    struct workload_shared *shared;
    struct test_child writers[WORKLOAD_WRITERS];
    struct test_child readers[WORKLOAD_READERS];
    uint32_t stops, reader_kills;
    uint32_t *actual; /* version of each id as the segment has it */
    uint32_t id_count, dim;
};

struct workload_tally {
    uint64_t acked_batches, acked_items, searches, gets, moves;
    uint32_t stops, reader_kills; /* of workload_disturb() */
    uint32_t pending, applied; /* of the last check: unacknowledged batches, and how many of them are there */
    uint32_t live;
};

/* Start the processes, at rest. The daemon need not run. */
void workload_init(struct workload *w, struct test_daemon *daemon, uint64_t seed, uint32_t id_count,
                   uint32_t dim);
/* Create the collection and write every id once. Ends the program on failure. */
void workload_load(struct workload *w);
/* Writers write and readers read from now on. */
void workload_go(struct workload *w);
/*
 * Let them work for ms, while signals come at random: the daemon or a reader is stopped for a while, a reader is killed and another
 * one begins in its place. Nothing of it may show but in time.
 */
void workload_disturb(struct workload *w, struct test_rand *r, uint32_t ms);
/* Ask the writers to rest although the daemon lives; then workload_halted(). */
void workload_rest(struct workload *w);
/* Wait until all writers rest because the daemon is gone. False after timeout_ms, or when one failed. */
bool workload_halted(struct workload *w, uint64_t timeout_ms);
/*
 * Compare what the segment holds with the account, settle what was open, verify the segment. The daemon runs,
 * the writers rest. False after messages that say what is wrong.
 */
bool workload_check(struct workload *w, struct workload_tally *out);
/* Stop all processes; false when one of them saw an error. */
bool workload_finish(struct workload *w, struct workload_tally *out);

#endif
