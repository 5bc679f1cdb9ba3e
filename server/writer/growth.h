/*
 * growth.h - a collection does not stop at its ceiling: before it is full, it is copied into a larger segment, which takes the place of
 * the one before, while writes and searches go on.
 *
 *   REST --room is short--> MAKE --> SETTLE --> COPY --little is left--> CLOSE --> switch --> REST
 *    ^                      helper   until the  pool:   (it goes on       nothing begins; when nothing runs
 *    |                               jobs that  pieces   meanwhile)       any more, the rest is copied
 *    |                               ran end
 *    +-- whatever fails: LEAVE, until the jobs that ran then end; segment.next goes, and it is tried again later
 *
 * Between MAKE and CLOSE writes are as fast as the copy leaves them processors: it works a quarter of the time of one of them, and
 * without rests once half of the room is used, or while nobody writes. In CLOSE no group begins, for as long as the last one takes, which is small
 * by then. A write that needs room which is not there waits for the larger segment.
 *
 * The new ceiling stands in collection.conf before the segment exists. A crash leaves an unfinished segment.next, or half a switch, and
 * the next start adopts whichever segment has the name; where that is the smaller one, it grows then.
 */
#ifndef KITHI_WRITER_GROWTH_H
#define KITHI_WRITER_GROWTH_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/io.h"
#include "server/base/pool.h"
#include "server/index/enlarge.h"
#include "server/writer/old.h"
#include "server/writer/settings.h"

enum kithi_growth_step {
    GROWTH_REST,
    GROWTH_MAKE,
    GROWTH_SETTLE,
    GROWTH_COPY,
    GROWTH_CLOSE,
    GROWTH_LEAVE, /* given up: until the jobs that ran then have ended */
};

struct kithi_collection;

struct kithi_growth {
    enum kithi_growth_step step;
    bool busy;       /* the helper or the pool has it */
    uint64_t needed; /* slots that a write waits for, those in use included; 0: none waits */
    struct kithi_index *next;
    struct kithi_enlarge *enlarge;
    struct kithi_old *old;
    struct kithi_settings settings;         /* that the helper writes */
    struct kithi_geometry before, geometry; /* of the present segment and of the larger one */
    uint32_t room;                          /* slots below the ceiling when it began */
    bool hurries; /* it failed for want of memory that old segments hold, which is given back */
    uint64_t generation,
        left_first; /* of the segment, and slots that were left of it when it was first looked at */
    uint32_t blobs_first[KITHI_BLOB_CLASS_COUNT]; /* the same of blobs of each class */
    uint64_t settled_epoch;                       /* SETTLE: groups up to it had begun */
    uint64_t piece_us;                            /* when the one at hand began */
    uint64_t pump_ms;                             /* the next piece is due then */
    uint64_t began_us, closed_us;
    uint64_t again_ms; /* none before then: the last one failed, ... */
    uint32_t delay_ms; /* ... so long after the one before */
    struct kithi_work work;
    struct kithi_io_op op;
    int status;
    struct kithi_errmsg err; /* of the last one that failed */

    /* For stats: of all in this life, and of the last one. */
    uint64_t count, failures;
    uint32_t from, to;
    uint64_t copied, copy_ms, hold_us;
    uint64_t hold_us_max; /* of all */
    uint64_t wait_us_max; /* the longest that a write waited for room or for a switch */
};

void kithi_growth_init(struct kithi_growth *g, struct kithi_collection *c);
/* Drop what is unfinished. The pool has ended. */
void kithi_growth_fini(struct kithi_growth *g);

/* Go on, or begin when room is short, before the pipeline's turn. Returns when it wants to be called again, in ms of the clock. */
uint64_t kithi_growth_turn(struct kithi_collection *c, uint64_t now_ms);

/* Nothing is under way. A collection that is dropped, or whose daemon stops, gets there by turns. */
bool kithi_growth_idle(const struct kithi_growth *g);

/*
 * A write that was refused for want of room, and brings so many vectors: true where room will come by growth, which is then
 * under way or about to be. Else err says why it will not.
 */
bool kithi_growth_want(struct kithi_collection *c, uint64_t vectors, uint64_t now_ms,
                       struct kithi_errmsg *err);

/*
 * Is growth under way, or due; or, with roomy, should it be before something that takes long, since there is less room than there are
 * vectors? Then it is about to begin.
 */
bool kithi_growth_comes_first(struct kithi_collection *c, bool roomy, uint64_t now_ms);
/* The configuration has a higher ceiling: begin at once, whatever has failed before. */
void kithi_growth_ask(struct kithi_collection *c);

/*
 * All of it at once, for whoever has the collection for himself and is no worker: a start that replays. 0, and there is room for so
 * many vectors more; else the collection is as before.
 */
int kithi_growth_now(struct kithi_collection *c, uint64_t vectors, struct kithi_errmsg *err);

/* A write, or all of them, had to wait so long for room or for a switch. */
void kithi_growth_waited(struct kithi_growth *g, uint64_t us);

/* A JSON object; bytes written, without NUL, or -ENOSPC. */
#define KITHI_GROWTH_JSON_SIZE 384u
int kithi_growth_stats(const struct kithi_collection *c, char *out, size_t size);

#endif
