/*
 * handle_priv.h - what an open collection is, and how calls share it.
 *
 * A handle has one current generation: a mapped segment. Calls run in call slots, each with
 * scratch memory of its own; a slot names the generation that its call uses, and a generation
 * that was replaced is unmapped once no slot names it (hazard pointers). In the steady state a
 * call costs one compare-and-exchange on a slot that only its own thread uses: no lock, no
 * allocation, no system call.
 *
 *     claim a slot: hazard NULL -> current --reload current: same?--> search --> hazard = NULL
 *                                             | no: name the new one, look again
 *
 * Slots are only ever added. A forked child inherits the slots of its parent's other threads
 * as taken, and adds new ones.
 */
#ifndef KITHI_CLIENT_HANDLE_PRIV_H
#define KITHI_CLIENT_HANDLE_PRIV_H

#include <kith/kith.h>

#include <stddef.h>

#include "client/src/board_priv.h"
#include "client/src/conn_priv.h"
#include "client/src/lock_priv.h"
#include "shm/graph/results.h"
#include "shm/graph/scratch.h"
#include "shm/map/map.h"
#include "shm/postings/postings.h"

struct kithi_generation {
    struct kithi_map map;
    struct kithi_generation *next; /* the retired one before it; under attach_lock */
    _Atomic uint64_t look_ns;      /* while map.stay: when to look for the successor again */
};

/* Searches of a batch that are under way at a time: enough that one's memory arrives while the others compute,
 * few enough that what they hold stays in the first-level cache. */
#define KITHI_LANES 4u

/* One call that is running, or could be. A cache line is not shared with another slot. */
struct kithi_call {
    alignas(KITHI_CACHE_LINE) _Atomic(struct kithi_generation *) hazard; /* NULL: free */
    uint32_t board_turn;                 /* searches, for the choice of those that are timed */
    struct kithi_call *next;             /* constant once the slot is in the list */
    struct kithi_board_lane *board_lane; /* where its searches are counted; NULL: nowhere. Constant */
    struct kithi_generation *at;         /* what the hazard names; for the owner alone */
    struct kithi_scratch scratch;
    struct kithi_scratch *lanes; /* KITHI_LANES for searches in turns; NULL until a batch needs them */
    struct kithi_conditions *conditions; /* filters that it knows; NULL until a call needs one */
    struct kithi_bitmap_budget *bitmaps; /* the handle's. Constant */
    float *vector;                       /* dim floats; NULL until a call needs them */
    unsigned char *payload;              /* room for two; NULL likewise */
    uint32_t attempts;                   /* how often this call attached again */
    bool changed;                        /* ... and found a newer generation */
};

struct kith {
    _Atomic(struct kithi_generation *) current;
    _Atomic(struct kithi_call *) calls;
    _Atomic(struct kithi_generation *) retired; /* replaced, maybe still in use */
    _Atomic bool replaced; /* another collection has the name: nothing helps but to open again */
    struct kithi_lock attach_lock;
    _Atomic uint32_t call_count;        /* slots that were added, to spread them over lanes */
    struct kithi_board board;           /* constant once the handle is open */
    struct kithi_bitmap_budget bitmaps; /* of all slots */

    uint64_t number; /* of the handle, never used twice in a process */
    char *name;
    char *segment; /* path */
    char *run_dir; /* NULL: opened by a path that tells nothing about it */
    uint8_t uid[16];
    struct kithi_geometry geometry; /* dim and metric bind the handle */

    _Atomic uint32_t durability;  /* enum kith_durability of later writes; relaxed: it stands for itself */
    struct kithi_lock write_lock; /* conn and write_buf */
    struct kithi_conn conn;
    unsigned char *write_buf;   /* one encoded op */
    unsigned char *payload_buf; /* its payload before that; NULL until there is one */
};

/* Fill the caller's error (may be NULL) when code is one; returns code. */
int kithi_report(struct kith_error *out, const struct kithi_errmsg *err, int code);

/*
 * Begin a call: a slot, protecting a generation that is current and not known to have moved.
 * 0, KITH_E_REPLACED or -ENOMEM. Every successful begin is followed by one kithi_call_end().
 */
int kithi_call_begin(struct kith *index, struct kithi_call **out);

/*
 * After a call's work ended with rc: true when the segment has moved under it and the work is
 * to be done again. May put another code into *rc. Bounded.
 */
bool kithi_call_again(struct kith *index, struct kithi_call *c, int *rc);

void kithi_call_end(struct kith *index, struct kithi_call *c);

/*
 * The call waits for something that the mapped segment does not show: does its name lead to another file by now? True:
 * the call has moved over to that. Makes system calls; not for searches.
 */
bool kithi_call_recheck(struct kith *index, struct kithi_call *c);

/* An answer of the daemon said that epoch is visible: see to it that it is visible through this handle. */
void kithi_handle_expect(struct kith *index, uint64_t epoch);

/* The last epoch that the segment says is durable, and in *out_epoch the visible one, no lower; 0 and 0 when it is gone. */
uint64_t kithi_handle_durable(struct kith *index, uint64_t *out_epoch);

/* Free slots and generations. For kith_close alone. */
void kithi_calls_fini(struct kith *index);

static inline const struct kithi_map *kithi_call_map(const struct kithi_call *c)
{
    return &c->at->map;
}

static inline const struct kithi_header *kithi_call_header(const struct kithi_call *c)
{
    return kithi_map_header(&c->at->map);
}

/*
 * Is v a vector that the collection takes? 0, KITH_E_DIMENSION, KITH_E_NOT_FINITE, KITH_E_ZERO_VECTOR,
 * -EINVAL when it is NULL.
 */
int kithi_vector_check(const struct kith *index, const float *v, size_t len);

/* Connect, and check that the daemon's collection of this name is the handle's. out (may be NULL): what it is. */
int kithi_handle_connect(struct kith *index, struct kithi_conn *conn, uint32_t patience_ms,
                         struct kithi_opened *out);

/* Bytes of struct kith_commit in its first version. */
#define KITHI_COMMIT_FIRST offsetof(struct kith_commit, durable_epoch)

/* Hand an answer to the caller (out may be NULL); returns its status. */
int kithi_commit_fill(struct kith_commit *out, int rc, const struct kithi_answer *answer);

/* Which items of a batch were there (frame.h). */
struct kithi_items {
    uint32_t count;         /* 0: nothing is known */
    bool all;               /* every delete found its id */
    unsigned char *missing; /* a bit for each of them, unless all; room for capacity bytes */
    size_t capacity;
};

/* What the good answer to a write of count items says of them. 0 or -ENOMEM, with nothing known. */
int kithi_items_note(struct kithi_items *items, uint32_t count, const struct kithi_answer *answer);
/* 1, 0 or -EINVAL. */
int kithi_items_found(const struct kithi_items *items, uint32_t item);
void kithi_items_fini(struct kithi_items *items);

/* Add the deletion of id if its payload fulfils a filter, which was parsed before, when its turn comes. As kith_batch_delete(). */
int kithi_batch_delete_if(kith_batch *b, const char *id, const char *filter);

struct kith_batch {
    struct kith *index;
    unsigned char *ops; /* as op.h encodes them */
    size_t len, capacity;
    uint32_t count;
    enum kith_durability durability;
    struct kithi_items items; /* of the last commit */
    unsigned char *payload;   /* room for one; NULL until it is needed */
};

/* CLOCK_MONOTONIC in nanoseconds. The vDSO answers. */
uint64_t kithi_now_ns(void);

#endif
