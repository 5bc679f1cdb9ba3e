/*
 * sampling.h - when recall is measured, and how much of the machine that may take (server/index/sampler.h).
 *
 *   REST --results are due--> WAITS --its turn--> RUNS --a job's worth--> DONE --curve published--> REST
 *     ^                         |                   |
 *     +-------------------------+-------------------+--- drop, new layout, stop: cancelled
 *
 * One thread of the lowest priority measures for all collections in turns, a job of some batches each, and sleeps in
 * between: its share of one CPU is that of the configuration, and a tenth of it while the collection is written to. A new
 * segment is due one result for each place of the window (a pass), the changes of a fourth of the vectors as many. A collection without
 * commits rests after its pass; a start that finds the curve of such a pass in the segment leaves it at that.
 *
 * A crash leaves the curve as it was. Turns belong to the loop's thread, the sampler to the thread from WAITS to DONE.
 */
#ifndef KITHI_WRITER_SAMPLING_H
#define KITHI_WRITER_SAMPLING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/index/sampler.h"

/* Percent of one CPU. */
#define KITHI_RECALL_SHARE_DEFAULT 20u
#define KITHI_RECALL_SHARE_MAX     100u
/* Bytes of kithi_sampling_json() at most. */
#define KITHI_SAMPLING_JSON_SIZE 256u

enum kithi_sampling_state { SAMPLING_REST, SAMPLING_WAITS, SAMPLING_RUNS, SAMPLING_DONE };

struct kithi_sampling {
    /* Between the loop and the thread. */
    enum kithi_sampling_state state; /* under the thread's lock, and so is what a job leaves */
    struct kithi_sampling *next;     /* in its line */
    const char *segment;
    struct kithi_sampling_thread *thread;
    _Atomic bool cancelled;
    _Atomic uint32_t share; /* thousandths of a CPU */
    uint64_t age;           /* of what is measured */
    int status;             /* results that the job has added, or why it has ended */
    uint64_t cpu_ns;        /* that jobs have taken */
    struct kithi_errmsg err;
    struct kithi_sampler *sampler; /* NULL until it is needed */

    /* The loop's. */
    uint64_t generation;  /* of the segment that results are of; 0: none yet */
    uint64_t ops;         /* changes that were seen */
    uint64_t busy_by_ms;  /* it counts as written to until then */
    uint64_t again_at_ms; /* after a failure */
    uint64_t taken;       /* results of this life */
    double due;           /* results to measure */
    bool published;       /* the curve in the segment is this life's */
};

struct kithi_collection;
struct kithi_daemon;

void kithi_sampling_init(struct kithi_sampling *s, struct kithi_collection *c);
/* It is idle, or the thread has ended. */
void kithi_sampling_fini(struct kithi_sampling *s);

/* Publish what was measured, have more measured if it is due. Returns when it wants to be called again, in ms of the clock. */
uint64_t kithi_sampling_turn(struct kithi_collection *c, uint64_t now_ms);

/* Nobody measures. A collection that is dropped, or whose daemon stops, gets there by turns. */
bool kithi_sampling_idle(const struct kithi_sampling *s);

/* End the thread, if there is one. */
void kithi_sampling_stop(struct kithi_daemon *d);

/* The figures as one JSON value; bytes written, without NUL. */
int kithi_sampling_json(const struct kithi_collection *c, char out[KITHI_SAMPLING_JSON_SIZE]);

#endif
