/*
 * relayout.h - how a collection gets another layout while it is read and written: `auto` chooses one by measurement,
 * the segment is copied into it, and the copy takes the segment's place. Prefetch distances are measured here, too.
 *
 *   REST --enough vectors, and no choice yet--> MEASURE --choice--> BEGIN --> COPY --> switch --> REST
 *     |                                                               ^
 *     +--------the choice was made, the segment is not of it----------+
 *     +--------enough vectors, not yet in this life, and a pause--> PREFETCH --> REST
 *
 * From MEASURE to the switch no group and no sweep begins; writes wait in their line, readers notice nothing.
 * What measures and copies runs on the pool, what syncs on a helper thread. The choice is in collection.conf
 * before the copy begins. A crash leaves a choice without a copy, an unfinished segment.next, or half a switch,
 * and the next start deals with each: it adopts the segment as it is, and the copy is made again.
 * Without room for a copy the collection stays as it is until it has twice the vectors, or until the next start.
 */
#ifndef KITHI_WRITER_RELAYOUT_H
#define KITHI_WRITER_RELAYOUT_H

#include <stdatomic.h>

#include "server/index/copy.h"
#include "server/index/prefetch.h"
#include "server/index/trial.h"
#include "server/writer/daemon.h"
#include "server/writer/settings.h"

/* Vectors that have to be there before anything is measured: fewer are searched quickly in any layout. */
#define KITHI_RELAYOUT_MIN 1024u

enum kithi_relayout_step {
    RELAYOUT_REST,
    RELAYOUT_MEASURE,  /* pool: a trial */
    RELAYOUT_BEGIN,    /* helper: the choice is written, segment.next is begun */
    RELAYOUT_COPY,     /* pool: insertions into it */
    RELAYOUT_PREFETCH, /* pool: one job; groups and sweeps go on beside it */
};

struct kithi_relayout {
    enum kithi_relayout_step step;
    bool busy;               /* the pool or the helper has it */
    _Atomic bool cancelled;  /* whoever has it shall come to an end */
    uint64_t prefetch_due;   /* vectors with which it is measured for the segment at hand, */
    uint64_t prefetch_by_ms; /* and when at the latest, if so many are there */
    uint64_t not_below;      /* vectors: the last attempt failed with half of them */
    uint64_t began_ms;
    struct kithi_trial *trial;
    struct kithi_index *next;
    struct kithi_copy *copy;
    struct kithi_prefetch prefetch;
    struct kithi_settings settings; /* that the helper writes */
    struct kithi_work work;
    struct kithi_io_op op;
    int status; /* of what was done elsewhere */
    struct kithi_errmsg err;
};

struct kithi_collection;

void kithi_relayout_init(struct kithi_relayout *r, struct kithi_collection *c);
/* Drop what is unfinished. The pool has ended. */
void kithi_relayout_fini(struct kithi_relayout *r);

/* Go on, or begin when it is time to, before the pipeline's turn. Completions bring the next turn. */
void kithi_relayout_turn(struct kithi_collection *c, uint64_t now_ms);

/* Nothing is under way. A collection that is dropped, or whose daemon stops, gets there by turns. */
bool kithi_relayout_idle(const struct kithi_relayout *r);

#endif
