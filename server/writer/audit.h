/*
 * audit.h - whether the graph of a collection leads to all of its vectors, looked at in the background.
 *
 * While somebody writes: one vector drawn by chance for so many changes is looked for, and linked anew when it is not found.
 * When nothing has been written for a while the whole graph is walked, in pieces of a millisecond or two with pauses of some times that, so
 * that readers have the processors; what no link leads to is counted and linked anew, and it is walked again until nothing was
 * missed, or linking does not help. Then it rests: until the next commit or sweep an idle daemon stays idle.
 *
 * Pieces are jobs on the pool, one at a time (server/index/audit.c).
 */
#ifndef KITHI_WRITER_AUDIT_H
#define KITHI_WRITER_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/pool.h"

struct kithi_collection;

struct kithi_audit {
    bool busy; /* a job is under way */
    bool sampling;
    struct kithi_work work;
    int sample; /* what the last one said */
    uint64_t random;
    uint64_t ops_sampled; /* changes of the pipeline when the last sample was drawn */
    uint64_t mark;        /* kithi_audit_mark() as seen last, and since when */
    uint64_t since_ms;
    uint64_t done_mark; /* nothing is left to be looked at until the mark is another one */
    uint64_t began_us;  /* of the job */
    uint64_t next_ms;   /* the next piece not before */
    unsigned rounds;    /* passes that have mended something at this mark */

    /* For stats. */
    uint64_t passes;      /* that nothing changed under */
    uint64_t epoch;       /* of the last */
    uint64_t unreachable; /* what the last one has missed, and linking did not help */
    uint64_t found;       /* in all, those that a pass has missed */
    uint64_t relinked;    /* in all, by passes and samples */
    uint64_t samples, samples_missed;
};

void kithi_audit_init(struct kithi_audit *a, struct kithi_collection *c);

/* The index is about to be another one: nothing is known of that. No job runs. */
void kithi_audit_anew(struct kithi_collection *c);

/* Begin a job, if one is due. Returns when it wants to be called again, in ms of the clock. */
uint64_t kithi_audit_turn(struct kithi_collection *c, uint64_t now_ms);

#endif
