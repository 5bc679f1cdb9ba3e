/*
 * checkpointer.h - checkpoints of one collection: when one is due, how it is written, and what may go once it is there.
 *
 *   REST --due--> CREATE --> COPY --> SETTLE --> FINISH --> REST
 *    ^    image   helper     pool:    the log    helper:
 *    |    begins  the file   copies   comes to   table, sync, rename, sync; older checkpoints and the log before them go
 *    |                       loop:    the epoch
 *    |                       writes   of the end
 *    +------------- whatever fails: the file goes, and it is tried again later ------------+
 *
 * Groups go on meanwhile. Copies of chunks are jobs on the pool, one for each buffer, and take turns with insertions;
 * written buffers are several in flight. While anybody writes to any collection the copy gives way (pace.h); else it goes
 * as fast as the disk does. Slots that die while the image is taken are not reused before its end: with
 * more of them than a share of the slots, writes wait (pipeline.c).
 *
 * A checkpoint has its name when it is durable. Then the two newest stay, and the log from the older one on; with one
 * checkpoint alone, the whole log. A crash leaves checkpoint.new, which the next start removes.
 */
#ifndef KITHI_WRITER_CHECKPOINTER_H
#define KITHI_WRITER_CHECKPOINTER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/io.h"
#include "server/base/pool.h"
#include "server/checkpoint/read.h"
#include "server/index/image.h"
#include "server/writer/files.h"
#include "server/writer/pace.h"
#include "server/writer/request.h"

#define KITHI_CHECKPOINT_BUFFERS 4u

/* A checkpoint is due with so many bytes of log after the last one, and with a share of the image's size if that is more, so
 * that a large collection is not written over and over; and with any change after so long. */
#define KITHI_CHECKPOINT_WAL_DEFAULT   (256u << 20)
#define KITHI_CHECKPOINT_WAL_SHARE     4u
#define KITHI_CHECKPOINT_AGE_S_DEFAULT 3600u

enum kithi_checkpointer_step {
    CHECKPOINTER_REST,
    CHECKPOINTER_CREATE,
    CHECKPOINTER_COPY,
    CHECKPOINTER_SETTLE,
    CHECKPOINTER_FINISH,
};

struct kithi_collection;

struct kithi_checkpoint_buffer {
    struct kithi_collection *collection;
    bool busy;
    uint32_t chunk;
    int status;           /* of copying it */
    unsigned char *bytes; /* chunk_max, aligned */
    struct kithi_work work;
    struct kithi_io_op op;
};

struct kithi_checkpointer {
    bool recycles; /* the log files that the one under way makes needless are written over later */
    enum kithi_checkpointer_step step;

    /* The one being written. */
    struct kithi_image *image; /* NULL once all of it is copied */
    struct kithi_checkpoint_header header;
    struct kithi_checkpoint_plan plan;
    uint32_t *sums;
    uint64_t generation; /* of the segment that it is of */
    uint64_t end_epoch;  /* visible when all was copied */
    struct kithi_checkpoint_buffer buffers[KITHI_CHECKPOINT_BUFFERS];
    uint32_t next;         /* chunks below are handed out */
    uint32_t records_left; /* chunks of records that are not copied */
    uint32_t flying;       /* buffers that are busy */
    struct kithi_pace pace;
    uint64_t writes_seen; /* by all collections, and when that or a write that waits was seen last */
    uint64_t written_ms;
    uint64_t pump_ms; /* the next chunk is due then; KITHI_NEVER: when something ends */
    int fd;
    struct kithi_io_op op;
    int status; /* why it is given up */
    struct kithi_errmsg err;
    uint64_t began_ms;
    uint64_t log_bytes_then;
    char path[KITHI_PATH_MAX], name[KITHI_CHECKPOINT_NAME_SIZE];

    /* What is there. */
    uint64_t last_epoch, older_epoch; /* of the two newest; 0: none */
    uint64_t last_ms;                 /* clock when the last was begun, or the collection opened */
    uint64_t log_bytes;   /* of the log at that time, counted from its opening; before it: less than 0 */
    uint64_t image_bytes; /* of the last one */

    bool slowing;                  /* writes wait for its end, as was logged */
    bool last_failed;              /* the one on the way out */
    uint64_t again_ms;             /* none before then, as the last one failed */
    struct kithi_request *waiting; /* requests for one; their seq is the epoch that it has to hold */
    unsigned giving; /* back-ups that open the last one: none is written, and so none removed, meanwhile */
    bool distrusted; /* the last one was found damaged: it is written again when somebody asks */
    bool outdated;   /* the last one is of a segment before: a start would have to lay it out anew */

    /* For stats. */
    uint64_t count, failures, took_ms;
    int64_t last_time; /* when the last one became durable, in seconds of CLOCK_REALTIME; 0: there is none */
};

void kithi_checkpointer_init(struct kithi_checkpointer *k, struct kithi_collection *c);
/* The pool has ended. Drops what is unfinished. */
void kithi_checkpointer_fini(struct kithi_checkpointer *k);

/* What a start has found: epochs of the two newest good ones, 0 for none. How much log there is after them is looked up. */
void kithi_checkpointer_found(struct kithi_collection *c, uint64_t last_epoch, uint64_t older_epoch);

/* Go on, or begin one that is due. Returns when it wants to be called again, in ms of the clock. */
uint64_t kithi_checkpointer_turn(struct kithi_collection *c, uint64_t now_ms);

/* A request for a checkpoint of what is visible now: answered, or its back-up opened, when it is durable, or why it could
 * not be. */
void kithi_checkpointer_request(struct kithi_collection *c, struct kithi_request *r);

/* The checkpoint of epoch was found damaged: if it is the newest, the next request gets another one. */
void kithi_checkpointer_distrust(struct kithi_collection *c, uint64_t epoch);

/* The collection has another segment: the next checkpoint is due, though nothing has changed. */
void kithi_checkpointer_outdate(struct kithi_collection *c);

/* Nothing is under way, and on the way out nothing is left to be written. */
bool kithi_checkpointer_idle(const struct kithi_collection *c);

/* Have so many slots died since the image began that writes have to wait for its end? */
bool kithi_checkpointer_is_full(const struct kithi_collection *c);

#endif
