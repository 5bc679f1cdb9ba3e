/*
 * lanes.h - the threads that carry requests out: a queue and some threads for each lane, so that none waits for another kind.
 *
 *   QUEUED --a thread takes it--> RUNNING --done--> ENDED --the owner takes it--> (gone)
 *     ^                             |  \--another lane--> QUEUED
 *     |                             +--waits for an epoch--> PARKED --kithi_lanes_unpark()--> QUEUED
 *
 * The owner may give a job up at any time (kithi_lanes_drop). One that nobody has begun goes at once; one that is running goes when its
 * thread comes back with it, which a kithd that hangs may keep for as long as it hangs. All of this is decided under
 * one lock, so that a job that ends and an owner that gives it up never meet.
 *
 * Threads: submit, drop, ended and unpark are the owner's, which is one thread.
 */
#ifndef KITHI_GATEWAY_LANES_H
#define KITHI_GATEWAY_LANES_H

#include <stdbool.h>

#include "server/gateway/request.h"

enum kithi_job_state { KITHI_JOB_QUEUED, KITHI_JOB_RUNNING, KITHI_JOB_PARKED, KITHI_JOB_ENDED };

struct kithi_job {
    struct kithi_request *request;
    void *owner;  /* of the caller */
    bool is_call; /* of the caller: what the owner is */

    /* Of the lanes: */
    struct kithi_job *next;
    enum kithi_job_state state;
    enum kithi_lane lane; /* whose queue or thread has it */
    bool begun;           /* some thread has had it, not only to look at an epoch */
    bool awaits;          /* it was parked last */
    bool dropped;         /* nobody waits for it */
};

struct kithi_lanes;

/* threads: of each lane, 0 for KITHI_LANE_HERE. release frees a job that was dropped, in any thread. 0 or -errno. */
int kithi_lanes_open(const unsigned threads[KITHI_LANE_COUNT], void (*release)(struct kithi_job *),
                     struct kithi_lanes **out);

/*
 * End the threads. Jobs that are left are dropped; waits patience_ms at most for those that are running. True when all threads have
 * ended and everything is freed; false when some are stuck in a call: nothing is freed, and the process had better leave by _exit().
 */
bool kithi_lanes_close(struct kithi_lanes *l, unsigned patience_ms);

/* Readable when a job has ended. */
int kithi_lanes_fd(const struct kithi_lanes *l);

/* To the lane of its request. False: every thread there is stuck with a job that was given up. */
bool kithi_lanes_submit(struct kithi_lanes *l, struct kithi_job *job);

/* The jobs that have ended since, chained by next. */
struct kithi_job *kithi_lanes_ended(struct kithi_lanes *l);

enum kithi_drop {
    KITHI_DROP_ENDED,    /* too late: it has ended, and comes with kithi_lanes_ended() */
    KITHI_DROP_UNBEGUN,  /* it has had no effect, and will have none */
    KITHI_DROP_AWAITING, /* the same; it waited for an epoch */
    KITHI_DROP_BEGUN,    /* it may have had an effect, or have one yet */
};
/* Give a job up; unless it has ended it is released. */
enum kithi_drop kithi_lanes_drop(struct kithi_lanes *l, struct kithi_job *job);

/* Look again whether what parked jobs wait for is there. Returns how many there are. */
unsigned kithi_lanes_unpark(struct kithi_lanes *l);
bool kithi_lanes_parked(struct kithi_lanes *l, const struct kithi_job *job);

struct kithi_lanes_load {
    unsigned queued[KITHI_LANE_COUNT], running[KITHI_LANE_COUNT], stuck[KITHI_LANE_COUNT];
    unsigned awaiting; /* an epoch: parked, or looked at just now */
};
/* For metrics; any thread. */
void kithi_lanes_load(struct kithi_lanes *l, struct kithi_lanes_load *out);

#endif
