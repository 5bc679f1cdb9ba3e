/*
 * relayout.h - how a collection gets another segment, the next generation, while it is read and written: because
 * somebody asks for another layout or a fresh one (kith alter, kith optimize), or because `auto` chooses one by
 * measurement. The copy is made beside the live segment, and takes its place. Prefetch distances are measured here, too.
 *
 *   REST --asked for, `auto` has no choice yet--> MEASURE --choice--> BEGIN --> COPY --> switch --> CLOSE --> REST
 *     |                                                                ^         |
 *     +--asked for, or the segment is not of the layout of its settings+         +--failed--> UNDO --> CLOSE
 *     +--enough vectors, not yet in this life, and a pause--> PREFETCH --> REST
 *
 * Groups, sweeps, checkpoints, audits and measurements of recall go on until the copy has all but a few of the changes
 * (copy.h). Then none of those is begun any more that would take long (closing); once those under way have ended the pipeline is held,
 * the last changes are copied, and the next generation is put in place: the only time for which writes wait, some
 * milliseconds. A checkpoint that is being copied is waited for before, not in it. So that the copy comes to its end, writes are slowed:
 *
 *   - during the first pass over all vectors: where FREE_TIMES as many changes come as vectors are copied, or where those that
 *     are left take more memory than the copy has asked for (copy.h); of a small collection as afterwards:
 *   - afterwards so that one change comes for two that are copied, and no more than a few milliseconds' worth at a time.
 *     What is left is halved, then, by the time that it takes to copy all that was left.
 *
 * The pool lets the copy take turns with the groups under way, so that it gets half of the workers or less while there are
 * any, and all of them otherwise.
 *
 * What measures and copies runs on the pool, what syncs, and what unmaps a large segment, on a helper thread. Settings are in
 * collection.conf before the copy begins; when it fails that somebody asked for, those before are written again. A crash leaves the old
 * settings with the old segment, or the new ones with the old segment, an unfinished segment.next or half a switch; the
 * next start adopts the segment as it is, and the copy is made (again) once it is served. Without room for a copy that nobody asked for
 * the collection stays as it is until it has twice the vectors, or until the next start.
 */
#ifndef KITHI_WRITER_RELAYOUT_H
#define KITHI_WRITER_RELAYOUT_H

#include <stdatomic.h>

#include "server/index/copy.h"
#include "server/index/prefetch.h"
#include "server/index/trial.h"
#include "server/writer/daemon.h"
#include "server/writer/request.h"
#include "server/writer/settings.h"

/* Vectors that have to be there before anything is measured: fewer are searched quickly in any layout. */
#define KITHI_RELAYOUT_MIN 1024u
/* Bytes of kithi_relayout_json() at most. */
#define KITHI_RELAYOUT_JSON_SIZE 512u

enum kithi_relayout_step {
    RELAYOUT_REST,
    RELAYOUT_MEASURE,  /* pool: a trial */
    RELAYOUT_BEGIN,    /* helper: settings are written, segment.next is begun */
    RELAYOUT_COPY,     /* pool: insertions into it */
    RELAYOUT_UNDO,     /* helper: the settings before are written again */
    RELAYOUT_CLOSE,    /* helper: an index that is not needed any more is unmapped */
    RELAYOUT_GROW,     /* all that is asked for is a higher ceiling, which growth.h sees to */
    RELAYOUT_PREFETCH, /* pool: one job; groups and sweeps go on beside it */
};

struct kithi_relayout {
    enum kithi_relayout_step step;
    bool busy;               /* the pool or the helper has it */
    _Atomic bool cancelled;  /* whoever has it shall come to an end */
    uint64_t prefetch_due;   /* vectors with which it is measured for the segment at hand, */
    uint64_t prefetch_by_ms; /* and when at the latest, if so many are there */
    uint64_t not_below;      /* vectors: the last attempt that nobody asked for failed with half of them */

    /* Who asked for it, and for what; NULL: nobody. */
    struct kithi_request *asked;
    struct kithi_settings wanted;
    bool anew;                    /* build, even in the layout that it has */
    struct kithi_settings before; /* as long as it is asked for */

    uint64_t began_ms, told_ms;
    const char *why; /* of the one under way, for people */
    struct kithi_trial *trial;
    struct kithi_index *next;
    struct kithi_copy *copy;
    struct kithi_index *spent; /* to be closed */
    bool spent_next;           /* it is segment.next, to be removed */
    bool gives_way;            /* the live segment is about to be full, and has to be a larger one first */
    bool once_more;            /* as it had to be: `before` is of the first time */
    uint64_t grow_failures;    /* of growth.h when it was asked */
    uint64_t bytes_before;     /* the same of memory */
    bool closing;   /* nothing is begun any more that would keep the pipeline from standing still */
    bool slowing;   /* writes wait for the copy, as was logged */
    bool following; /* the first pass is over; then: */
    uint64_t follow_noted,
        follow_taken; /* changes of the pipeline and of the copy since which writes are slowed */
    uint64_t held_us; /* the pipeline is held since then; 0: it is not */
    struct kithi_prefetch prefetch;
    struct kithi_settings settings; /* that the helper writes */
    struct kithi_settings stand;    /* that it has found, when that failed ... */
    bool looked;                    /* ... and it could read them */
    struct kithi_work work;
    struct kithi_io_op op;
    int status; /* of what was done elsewhere */
    struct kithi_errmsg err, undo_err;

    /* For stats. */
    uint64_t count, failures, took_ms, took_held_us;
};

struct kithi_collection;

void kithi_relayout_init(struct kithi_relayout *r, struct kithi_collection *c);
/* Drop what is unfinished. The pool has ended. */
void kithi_relayout_fini(struct kithi_relayout *r);

/* Go on, or begin when it is time to, before the pipeline's turn. Returns when it wants to be called again, in ms of the clock;
 * completions bring turns, too. */
uint64_t kithi_relayout_turn(struct kithi_collection *c, uint64_t now_ms);

/* A request for another layout, or a fresh segment (struct kithi_alter): answered when the switch is done, or why it could not
 * be, or at once, when nothing is to be done, or cannot be. */
void kithi_relayout_request(struct kithi_collection *c, struct kithi_request *r);

/* Nothing is under way that a larger segment would be in the way of. */
bool kithi_relayout_lets_grow(const struct kithi_relayout *r);
/* The live segment is about to be full: what is under way is begun anew once that is a larger one. */
void kithi_relayout_give_way(struct kithi_collection *c);

/* Nothing is under way. A collection that is dropped, or whose daemon stops, gets there by turns. */
bool kithi_relayout_idle(const struct kithi_relayout *r);

/* The end is near: a sweep, a checkpoint, an audit, a round of huge pages is not to begin. */
bool kithi_relayout_is_closing(const struct kithi_relayout *r);

/* Changes that a group may hold which begins now; 0: writes wait for the copy. */
uint64_t kithi_relayout_room(const struct kithi_collection *c);

/* What is under way, and what was, as one JSON value; bytes written, without NUL. */
int kithi_relayout_json(const struct kithi_collection *c, char out[KITHI_RELAYOUT_JSON_SIZE]);

#endif
