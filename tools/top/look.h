/*
 * look.h - one look at a collection: what its segment's header says, and what kithd says, readers' counts included.
 *
 * Numbers of kithd are kept as doubles, as JSON has them; all of them are exact up to 2^53.
 */
#ifndef KITHI_TOOLS_TOP_LOOK_H
#define KITHI_TOOLS_TOP_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/layout/board.h"
#include "tools/tool.h"

#define KITHI_TOP_SYNC_BUCKETS 64u
#define KITHI_TOP_READERS      32u

struct kithi_top_reader {
    double slot, uid, pid, opened, epoch, searches, failures, expansions, lag, lag_max, p50_ns, p99_ns;
    char program[64];
};

struct kithi_top_look {
    uint64_t taken_ns; /* CLOCK_MONOTONIC */

    bool attached; /* of the segment's header: */
    uint64_t epoch, live, dead, resting, free, bytes, generation, sweeps;

    bool starting; /* kithd is there, and is bringing the collection back */
    bool daemon;   /* of kithd: */
    double up_ms, durable_epoch, waiting, requests, refused, groups, ops, op_bytes, sync_us_max, workers;
    double sync[KITHI_TOP_SYNC_BUCKETS]; /* [i]: syncs that took below 2^i us */
    double checkpoint_epoch, checkpoint_time, checkpoints, checkpoint_failures, checkpoint_log_bytes;
    bool checkpoint_running, sweeping;
    double repair_waiting, repair_running, repair_oldest_ms, repaired;
    char version[32], io[16];

    bool counted; /* of readers, as kithd adds them up: */
    double alive, gone, strange, untimed, searches, failures, expansions, restarts, lag, lag_max;
    double latency[KITHI_BOARD_BUCKETS];
    uint32_t reader_count;
    struct kithi_top_reader readers[KITHI_TOP_READERS];
};

/* Take what kithd says of a collection, JSON of len bytes, into out. 0, or KITH_E_PROTOCOL when it is not that. */
int kithi_top_parse(const char *json, size_t len, struct kithi_top_look *out);

/* A collection that is looked at again and again. */
struct kithi_top_collection {
    char *name;
    char *path; /* of its segment */
    kith *index;
    struct kithi_map map;
    struct kithi_top_look before, now;
    uint32_t looks;
    bool listed;       /* still in the list of all */
    char problem[404]; /* why there is less to see than there could be; "" nothing */
};

/* 0 or -ENOMEM. */
int kithi_top_collection_init(struct kithi_top_collection *c, const struct kithi_tool *t, const char *name);
void kithi_top_collection_fini(struct kithi_top_collection *c);

/*
 * Look again; now becomes before. ask: ask kithd, too. Returns false when it was asked and is there but does not answer,
 * so that the caller does not wait for it once more.
 */
bool kithi_top_look(struct kithi_top_collection *c, const struct kithi_tool *t, bool ask);

#endif
