/*
 * step.h - a writer that is stopped after every instruction: what its processes share.
 *
 *     writer (traced)                    tracer                                     reader (runs freely)
 *     step_begin(INSERT)  --SIGSTOP-->   note the state, judge it                   searches the running
 *       one instruction   <--------->    did a byte of segment or log change?         segment all the time
 *       one instruction   <--------->      yes: judge a copy of both, then go on
 *     step_end()          --stepping=0   let it run to the next step_begin()
 *
 * The writer drives server/index and the log as server/writer does: a group is staged, appended to the log, inserted while
 * it is being written, and published once it is durable; jobs run in the same thread, in order. What it writes is a
 * function of the seed. What should be visible at each epoch is noted in a model (support/model.h) before the group begins.
 */
#ifndef KITHI_TEST_STEP_H
#define KITHI_TEST_STEP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "server/index/index.h"
#include "server/writer/collection.h"
#include "shm/base/bytes.h"
#include "shm/payload/payload.h"
#include "tests/support/model.h"
#include "tests/support/tmp.h"

/* What is stepped through. */
enum step_operation {
    STEP_INSERT,     /* new ids: filling, linking, the log's write beside it */
    STEP_UPSERT,     /* ids that are there; one twice, one deleted again in its group */
    STEP_DELETE,     /* a group of deletions, from staging to its end */
    STEP_GROWTH,     /* a group for which regions grow, or the id table is rebuilt */
    STEP_REUSE,      /* sweeps, resting, freeing, and groups that refill what is free, also beside a sweep */
    STEP_COMMIT,     /* publishing a group */
    STEP_ADOPT,      /* taking over what a stop in the middle of one of the others left */
    STEP_CHECKPOINT, /* writing one, beside groups and sweeps, until what it makes needless has gone */
    STEP_OPERATION_COUNT,
};
extern const char *const step_operation_names[STEP_OPERATION_COUNT];

#define STEP_ID_COUNT 640u /* the last four belong to the judge */
#define STEP_ID_WAVES 64u  /* ids from here on are there for a moment, to fill the id table */
#define STEP_LOG_SIZE (256u << 10)

/* Codes, metric and dimension are a function of the seed: 27 seeds in a row have every kind there is. */
#define STEP_KINDS 27u
struct step_world {
    uint64_t seed;
    struct kithi_index_identity identity;
    struct kithi_index_tuning tuning;
    char name[64]; /* "sq8-none cosine 40-d" */
};
void step_world_init(struct step_world *w, uint64_t seed);

/* Where a segment and its log are. */
struct step_place {
    char segment[2 * TEST_PATH_SIZE];
    char log_dir[2 * TEST_PATH_SIZE];
    char log_name[64]; /* of the one file in it, ... */
    char data_dir
        [2 * TEST_PATH_SIZE]; /* ... or, with checkpoints, what log_dir lies in; "": there is none (disk.h) */
};

/* In memory of all processes. The writer stores, but for `watching` and what the reader counts. */
struct step_shared {
    _Atomic uint32_t stepping; /* set by the tracer when it begins, cleared by the writer at the end */
    uint32_t operation;
    struct step_place place;
    uint64_t epoch_before;    /* visible as the phase begins, ... */
    uint64_t epoch_after;     /* ... and what may become visible in it, or after it by way of the log */
    _Atomic uint64_t durable; /* the log has said so */
    _Atomic uint64_t acked;   /* published */
    bool finished;            /* the writer has nothing more to do */

    _Atomic uint32_t watching; /* a number for each phase; 0: the reader shall rest, ... */
    _Atomic bool done;         /* ... or end */
    _Atomic uint32_t watched;  /* what the reader last took up, once it has searched there */
    _Atomic uint64_t searches, reader_errors;
    char reader_text[256];
};

/* What the tracer saves of a stop, for STEP_ADOPT. */
struct step_crash {
    struct step_place place;
    uint64_t epoch_before, epoch_after, durable, acked;
    char where[160];
};

/* ---- writer.c ---- */

/*
 * A payload is told by its stamp, which a model of its own has of each id: {"fill": a string, "n": stamp % 5}, of several classes of blobs, so that
 * postings have values of one slot each and values that slots share. 0: there is none.
 */
#define STEP_PAYLOAD_MAX 700u
static inline uint32_t step_payload(uint64_t stamp, unsigned char *out)
{
    static const uint32_t lens[] = { 20, 90, 200, 600 };
    uint32_t len = lens[stamp % 4] + (uint32_t)(stamp % 13);
    const uint32_t fill = KITHI_PAYLOAD_HEAD + 2 + 2 * KITHI_PAYLOAD_ENTRY, text = fill + 4;
    kithi_put16(out, KITHI_PAYLOAD_VERSION);
    kithi_put16(out + 2, 2);
    kithi_put16(out + 4, (uint16_t)fill);
    out[6] = 4;
    out[7] = KITHI_PAYLOAD_STRING;
    kithi_put32(out + 8, text | len << 16);
    kithi_put16(out + 12, (uint16_t)(text + len));
    out[14] = 1;
    out[15] = KITHI_PAYLOAD_INT32;
    kithi_put32(out + 16, (uint32_t)(stamp % 5));
    memcpy(out + fill, "fill", 4);
    memset(out + text, 'a' + (int)(stamp % 26), len);
    out[text + len] = 'n';
    return text + len + 1;
}

struct step_writer_args {
    const struct step_world *world;
    struct step_shared *shared;
    struct test_model *model, *payloads;
    const struct test_dir *dir;
    const struct step_crash *crash; /* to be adopted; NULL: the whole script */
};
/* A role (support/child.h) that lets itself be traced. */
int step_writer(void *args);

/* ---- reader.c ---- */

struct step_reader_args {
    struct step_shared *shared;
    const struct test_model *model, *payloads;
    const struct step_world *world;
};
/* A role that attaches what is worked on, once per phase, and searches until it is told to rest. */
int step_reader(void *args);

/* ---- cold.c ---- */

/* What checkpointer and loader take for the collection <dir>/<name>, with a loop of its own; its segments are below <dir>/run. */
struct kithi_collection *step_collection(const struct step_world *world, const struct test_dir *dir,
                                         const char *name);
/* Index and log of it are closed, too. NULL is fine. */
void step_collection_free(struct kithi_collection *c);
/* As `kith checkpoint` does; the next turn begins it. A failure ends the process. */
void step_ask_for_checkpoint(struct kithi_collection *c);

/* ---- here.c ---- */

/*
 * A loop that does everything in the calling thread, in kithi_io_run(), on real files. The jobs of its pool, too (the linker
 * leads kithi_pool_submit() here).
 */
struct kithi_io *step_io_here(void);
struct kithi_pool *step_pool_here(struct kithi_io *io);
/* Do one thing of what was submitted, the oldest; false: there is nothing. */
bool step_io_one(struct kithi_io *io);

#endif
