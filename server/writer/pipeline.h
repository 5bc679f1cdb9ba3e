/*
 * pipeline.h - how the writes of one collection become durable and visible: the commit pipeline.
 *
 *   arrive -> wait -> stage (check, reserve, allot) -+-> log, sync ------------+-> publish -> answer
 *                                                    +-> insertion by workers -+
 *
 * A few groups are under way at once, each at its own place on this way, so that neither the disk nor the workers wait for
 * the other; they are published in their order. Once so many are, the next one gathers; so the slower the disk, the larger the
 * groups.
 *
 * A group of which nobody asked for durability does not wait for the log: it is published when it is inserted, while the log
 * writes as fast as it can, several groups in one write. It gets no further ahead once the log has
 * not answered for lag_ms (kithd's configuration): from then on groups wait as durable ones do. A request that asked for nothing is
 * answered once its group is handed to the log, before it is inserted.
 *
 * A write that changes nothing, because of what a group under way has done, is answered with that group. Writes
 * of one connection are taken in the order in which they came; connections take turns. A refused write
 * (bad id, no room, ...) is answered at once and leaves no trace.
 *
 * A crash at any point leaves a segment that adoption puts right: a group in the log is replayed, a group
 * that did not get there is undone, whatever the workers had linked by then.
 */
#ifndef KITHI_WRITER_PIPELINE_H
#define KITHI_WRITER_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "server/base/pool.h"
#include "server/index/index.h"
#include "server/writer/request.h"

#define KITHI_SYNC_BUCKETS 24u

/* How long the log may be behind before groups wait for it. */
#define KITHI_LAG_MS_DEFAULT 200u
/* Groups handed to the log and not durable. */
#define KITHI_UNLOGGED_MAX 1024u

/* The writes of one connection that are not staged, in their order. */
struct kithi_backlog {
    struct kithi_request *first, *last;
    struct kithi_backlog *next; /* in the line of the collection that `first` is for */
};

/* A group: first being staged, then under way. */
struct kithi_commit {
    struct kithi_collection *collection;
    struct kithi_request *first, *last;
    uint64_t ops, bytes;
    bool durable; /* it is published once it is durable */
    uint64_t epoch;
    uint64_t began_us;
    struct kithi_group *group;
    struct kithi_work insertion;
    bool inserting;
};

struct kithi_pipeline {
    struct kithi_backlog *line, *line_last; /* connections whose next write is for this collection */
    bool stalled;                           /* no room for the next write; a sweep may make some */
    bool crowded;                           /* the same, before groups under way were published */
    bool held;                              /* nothing begins: the index is about to be replaced */
    bool calm, closed;                      /* the segment is about to be: no sweep begins; no group either */
    uint64_t full_us;                       /* since when a write waits for room; 0: none does */

    /* A ring: from `oldest` on those that are under way, then the one that is staged. */
    struct kithi_commit commits[KITHI_GROUPS_SEALED + 1];
    uint32_t oldest, under_way;
    bool log_waits;    /* one is staged; the log takes it once it has room, or its next file is made */
    struct iovec *iov; /* of the one that is staged */
    size_t iov_count, iov_capacity;
    double insertion_us; /* wall time of one insertion, all workers together, smoothed; 0: not known */

    struct kithi_request *published, *published_last; /* and not answered, in the order of their epochs */

    /* The log. */
    uint32_t unlogged; /* groups that it was handed and has not written */
    uint64_t
        handed_us[KITHI_UNLOGGED_MAX]; /* when: a ring, of which the last `unlogged` before handed_at count */
    uint32_t handed_at;
    int log_status;                 /* why it failed; 0: it is good */
    struct kithi_request *unsynced; /* requests that are answered when their epoch is durable */

    bool sweeping;
    uint64_t sweep_at_ms; /* KITHI_NEVER: only after the next publish */
    struct kithi_work sweep;
    uint64_t sweep_began_us,
        sweep_us; /* for stats: of the one that runs, and what those before took, what went first included */

    bool paging; /* asking for huge pages */
    int refusal; /* why not all are there, as was logged; 0: they are, or nothing was logged */
    struct kithi_work pages;

    uint64_t seq;         /* writes that have arrived */
    uint32_t outstanding; /* of them not answered */
    uint32_t flush_count;
    struct kithi_request *flushes;

    /* For stats. */
    uint64_t requests, refused, groups, ops, bytes;
    uint64_t sync_us_last, sync_us_max, sync_us_sum;
    uint64_t sync_us[KITHI_SYNC_BUCKETS]; /* [i]: syncs that took below 2^i us */
};

struct kithi_collection;

void kithi_pipeline_init(struct kithi_pipeline *p, struct kithi_collection *c);
void kithi_pipeline_fini(struct kithi_pipeline *p);

/* A write whose ops are decoded joins its connection's backlog. */
void kithi_pipeline_write(struct kithi_collection *c, struct kithi_backlog *b, struct kithi_request *r);
/* A flush is answered once everything that arrived before it is. */
void kithi_pipeline_flush(struct kithi_collection *c, struct kithi_request *r);

/* Begin what can begin: a group, a sweep. Returns when it wants to be called again, in ms of the clock. */
uint64_t kithi_pipeline_turn(struct kithi_collection *c, uint64_t now_ms);

/* Begin nothing from now on (on), or go on. True when nothing is under way, and nothing will be before going on. */
bool kithi_pipeline_hold(struct kithi_collection *c, bool on);
/* Begin no sweep and nothing about pages, and let groups be short ones; or go on. */
void kithi_pipeline_calm(struct kithi_collection *c, bool on);
/* Begin no group, or go on. */
void kithi_pipeline_close(struct kithi_collection *c, bool on);
/* Nobody inserts for a group up to epoch any more. */
bool kithi_pipeline_ended(const struct kithi_collection *c, uint64_t epoch);
/* There may be more room than there was: what waits for some is looked at again. */
void kithi_pipeline_room(struct kithi_collection *c);
/* Changes in groups that are under way. */
uint64_t kithi_pipeline_ops_under_way(const struct kithi_collection *c);
/* The collection has another index: what was known of the one before is forgotten. */
void kithi_pipeline_anew(struct kithi_pipeline *p);

/* Nothing waits and nothing is under way. */
bool kithi_pipeline_idle(const struct kithi_collection *c);

/* The daemon's own view as JSON, relayout, recall and readers being values in it; bytes written, without NUL, or -ENOSPC. */
int kithi_pipeline_stats(const struct kithi_collection *c, const char *relayout, const char *recall,
                         const char *readers, char *out, size_t size);

#endif
