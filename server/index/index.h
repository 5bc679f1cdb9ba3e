/*
 * index.h - the writer's side of one segment: commit groups, insertion, sweeps.
 *
 * Owns the writable mapping and everything that can be rebuilt from it: free lists, dead list,
 * locks. Knows nothing of the log: whoever drives it (server/writer) sees to it that a group is
 * durable before it is published.
 *
 * Threads. One thread, the owner, calls everything; only kithi_group_job and kithi_sweep_job run
 * on other threads, several at a time, each with its own worker number. A group goes
 *
 *     kithi_group_add ...  (owner, any number of requests, each whole or not at all)
 *     kithi_group_seal     (owner; what is added from now on is another group's)
 *     kithi_group_job 0..n-1 (workers, any order, in parallel)
 *     kithi_group_publish  (owner, after every job has ended and the group is durable; kithi_group_publish_ahead:
 *                           before it is)
 *
 * and is then empty again. Several may be under way; they are published in the order in which they were sealed. Who has one
 * at a time need not seal it. A sweep may run beside groups. Memory that ops point to must live until publish.
 */
#ifndef KITHI_INDEX_INDEX_H
#define KITHI_INDEX_INDEX_H

#include "shm/base/error.h"
#include "shm/map/map.h"
#include "shm/wire/op.h"

struct kithi_index;
struct kithi_group;

/* Groups that may be sealed and not published. */
#define KITHI_GROUPS_SEALED 4u

struct kithi_index_identity {
    uint8_t uid[16];
    uint8_t hash_key[16];
    struct kithi_geometry geometry;
};

struct kithi_index_tuning {
    unsigned worker_count; /* workers that may run jobs: numbers 0..worker_count-1 */
    uint32_t grace_ms;     /* a dead slot stays linked so long at least; 0: 100 */
    uint32_t rest_ms;      /* an unlinked slot rests so long before reuse; 0: 400 */
    bool small_pages;      /* never ask for huge pages */
};

/*
 * Make an empty segment at path (which must not exist; mode 0640), of the given generation. The
 * file is complete and ready when this returns. KITHI_E_NO_SPACE when the file system cannot take
 * it; then nothing is left behind. path NULL: a private one without a name, gone once it is closed.
 */
int kithi_index_create(const char *path, const struct kithi_index_identity *id, uint64_t generation,
                       const struct kithi_index_tuning *tuning, struct kithi_index **out,
                       struct kithi_errmsg *err);

/*
 * Adopt the segment at path, whatever instruction its last owner died at. Checks identity and
 * what it relies on; undoes the open group. What takes a look at every record is left to
 * kithi_index_census(), where the last owner's notes permit it. KITHI_E_NO_COLLECTION (no
 * file), KITHI_E_REPLACED (another uid or geometry), KITHI_E_VERSION, KITHI_E_CORRUPT,
 * KITHI_E_NOT_SEGMENT: not adoptable, the caller builds a new one beside it. -ECANCELED once *stop is true (stop may be NULL): as if
 * the caller had died meanwhile.
 */
int kithi_index_adopt(const char *path, const struct kithi_index_identity *id,
                      const struct kithi_index_tuning *tuning, const _Atomic bool *stop,
                      struct kithi_index **out, struct kithi_errmsg *err);

/*
 * Go on with what an adoption has left: look at so many slots more. 1 while there is more to look at, 0 once it is over.
 * Until then groups are committed as ever, but take new room only, so that KITHI_E_FULL and KITHI_E_NO_SPACE need not be the
 * last word; no sweep begins, and no image may be begun. *out_miscounted is, with the last piece, how many vectors more than
 * the header said there are, which was put right. KITHI_E_CORRUPT: a record makes no sense, the segment is condemned, and
 * the next adoption will refuse it; -ENOMEM: try again later. UINT32_MAX: all of it.
 */
int kithi_index_census(struct kithi_index *ix, uint32_t slots, int64_t *out_miscounted,
                       struct kithi_errmsg *err);
/* Whether there is anything left to do. */
bool kithi_index_census_due(const struct kithi_index *ix);

/* Other times for dead slots from now on, as in kithi_index_tuning: while nobody reads the segment, short ones. */
void kithi_index_tune(struct kithi_index *ix, uint32_t grace_ms, uint32_t rest_ms);

/* Unmap. The segment stays as it is. Accepts NULL. */
void kithi_index_close(struct kithi_index *ix);

const struct kithi_map *kithi_index_map(const struct kithi_index *ix);
/* Is path a name of its file? */
bool kithi_index_is_at(const struct kithi_index *ix, const char *path);
uint64_t kithi_index_epoch(const struct kithi_index *ix);
uint64_t kithi_index_durable_epoch(const struct kithi_index *ix);
/* The collection's timeline: the segment's header says it to readers. */
void kithi_index_set_timeline(struct kithi_index *ix, uint64_t timeline);
uint64_t kithi_index_live(const struct kithi_index *ix);

/* What is left below the ceilings of the segment. */
struct kithi_index_room {
    uint32_t slot_max;
    uint32_t slots;             /* free, or never used */
    uint32_t soon;              /* dead: they come free by themselves */
    uint32_t uppers, upper_max; /* the same of upper rows */
    uint32_t payloads_soon; /* versions of payloads that were replaced: their blobs come free by themselves */
    uint32_t slots_wanted;  /* the ceiling that the last request, refused for want of blobs, needs; else 0 */
    /* Blobs of each class: all, and those of them that are free, were never used, or come free by themselves. */
    uint32_t blob_max[KITHI_BLOB_CLASS_COUNT], blobs[KITHI_BLOB_CLASS_COUNT];
};
void kithi_index_room(const struct kithi_index *ix, struct kithi_index_room *out);

/*
 * Which fields of payloads have postings (shm/postings/declared.h): as it is until then, auto, every one. Another text than before has all postings made
 * anew, between groups; readers look at payloads until then. 0, or KITHI_E_PARAMETER: then it is as it was.
 */
int kithi_index_declare(struct kithi_index *ix, const char *text, struct kithi_errmsg *err);

/* ---- commit groups ---- */

struct kithi_group_result {
    uint32_t failed_item; /* on error: which op, or UINT32_MAX */
    uint32_t found;       /* deletes and changes of a payload that found their id */
    const uint8_t *
        missing; /* bit i % 8 of byte i / 8: op i is one that did not. The index's own, until the next request is staged */
};

/*
 * Stage n ops of one request to the open group: check each (id, dimension, finite, not zero under cosine), reserve
 * everything that applying them can need, allot slots. All or nothing: on error (KITHI_E_ID,
 * KITHI_E_DIMENSION, KITHI_E_NOT_FINITE, KITHI_E_ZERO_VECTOR, KITHI_E_FULL, KITHI_E_NO_SPACE,
 * -ENOMEM) the group is as before. The same id again, in this request or an earlier one of the
 * group: the last wins. Ops are UPSERT, DELETE and SET; NOTHING is one that did not find its id. It is staged behind the groups that are sealed, as if they were published. Not to be called once
 * jobs of the open group have begun.
 */
int kithi_group_add(struct kithi_index *ix, const struct kithi_op *ops, uint32_t n,
                    struct kithi_group_result *out, struct kithi_errmsg *err);

/*
 * What payload an id has once everything that is staged is published: *out_len bytes at *out, in the segment, until the next call of anything
 * here; 0: none. false: there is no such id. kithi_group_add() takes no ops that merge: whoever has some makes KITHI_OP_SET of them by this.
 */
bool kithi_payload_current(const struct kithi_index *ix, const char *id, uint32_t id_len,
                           const unsigned char **out, uint32_t *out_len);

/* Take back everything that was staged to the open group, as if it had never been added; before any of its jobs has begun. */
void kithi_group_abort(struct kithi_index *ix);

/* The group that requests are staged to. */
struct kithi_group *kithi_group_open(struct kithi_index *ix);

/* Close the open group, and open another one. At most KITHI_GROUPS_SEALED are sealed at a time. Nobody takes it back any more:
 * it is published, or nothing ever is again in this index. */
struct kithi_group *kithi_group_seal(struct kithi_index *ix);

/* Groups that are sealed and not published. */
uint32_t kithi_groups_sealed(const struct kithi_index *ix);

/* Changes that the open group has room for until the owner's notes ([P14 notes]) overflow, those of the sealed groups counted. */
uint32_t kithi_group_room(const struct kithi_index *ix);

/* Insertions staged in a group. */
uint32_t kithi_group_job_count(const struct kithi_group *g);

/* Fill and link insertion i. Cannot fail. */
void kithi_group_job(struct kithi_index *ix, const struct kithi_group *g, unsigned worker, uint32_t i);

/*
 * [P1 commit] Make the oldest group visible as epoch (> the current one), which is durable; wakes
 * waiters. That is the open one when none is sealed. An empty group only moves the epoch. now_ms is a monotonic clock.
 */
void kithi_group_publish(struct kithi_index *ix, uint64_t epoch, uint64_t now_ms);
/* [P17 merged] Before that: what is published next stands for the groups of all epochs from first to epoch, which nobody will see one by
 * one. */
void kithi_group_merged(struct kithi_index *ix, uint64_t first, uint64_t epoch);
/* The same for a group that is not durable yet: none of its writers asked for that. */
void kithi_group_publish_ahead(struct kithi_index *ix, uint64_t epoch, uint64_t now_ms);
/* [P12 durable] Every group up to epoch is durable; what lies beyond the visible ones is left to their publishing. Wakes
 * waiters. */
void kithi_index_set_durable(struct kithi_index *ix, uint64_t epoch);

/* ---- sweeps: unlinking dead slots, resting, freeing ---- */

/*
 * Look after dead and resting slots: frees what has rested, and when a sweep is due begins one
 * and returns its number of jobs (0: nothing to do now). Milliseconds until it wants to be
 * called again in *out_wait_ms (UINT32_MAX: only after the next publish). Call with no sweep
 * running.
 */
uint32_t kithi_sweep_begin(struct kithi_index *ix, uint64_t now_ms, uint32_t *out_wait_ms);
/* Somebody waits for room: the next sweep is due as soon as any grace is over. */
void kithi_sweep_hurry(struct kithi_index *ix);
/* Called by jobs again and again, while they hold no lock, so that other jobs of the same worker can be done first. NULL: nothing is. */
typedef void kithi_give_way_fn(void *arg, unsigned worker);
void kithi_sweep_give_way(struct kithi_index *ix, kithi_give_way_fn *fn, void *arg);
void kithi_sweep_job(struct kithi_index *ix, unsigned worker, uint32_t i);
/* All jobs have ended: what was unlinked begins its rest. */
void kithi_sweep_end(struct kithi_index *ix, uint64_t now_ms);

/* What is still to be repaired, and what was. */
struct kithi_sweep_state {
    uint32_t waiting; /* dead, and not being unlinked: their grace is not over, or a pass would not pay yet */
    uint32_t running; /* being unlinked */
    uint32_t resting; /* unlinked, and not free */
    uint64_t oldest_ms; /* since the first of those that are waiting or running died; 0: there are none */
    uint64_t repaired;  /* slots unlinked since the index was opened */
    uint64_t handed_on; /* links that were replaced by one to a neighbour of the dead */
    uint64_t torn;      /* living slots that were linked anew: they had lost much, or were drawn */
};
void kithi_sweep_state(const struct kithi_index *ix, uint64_t now_ms, struct kithi_sweep_state *out);

/* ---- audit: does the graph lead to everything? ---- */

/*
 * A pass walks level 0 from the entry point, lists the visible slots that it did not come to, and links these anew, as if they were
 * inserted now; what is reached through one of them is left as it is. It goes in pieces, jobs for one worker, one at a
 * time; groups go on, and no sweep begins while a piece runs. What was missed counts if nothing has changed meanwhile
 * (kithi_audit_mark): a walk under which links move may miss what was always reachable. To link such anew does no harm.
 */

struct kithi_audit_found {
    uint32_t missed;   /* by the walk */
    uint32_t relinked; /* of them, so far */
};

/* Rises with every commit and every sweep. */
uint64_t kithi_audit_mark(const struct kithi_index *ix);
/* Begin a pass, none being under way, no census and no sweep. 0 or -ENOMEM. */
int kithi_audit_begin(struct kithi_index *ix);
bool kithi_audit_is_begun(const struct kithi_index *ix);
/* Before and after each job, which runs in between; no job runs otherwise. */
void kithi_audit_open(struct kithi_index *ix);
void kithi_audit_close(struct kithi_index *ix);
/* A piece of the pass. */
void kithi_audit_job(struct kithi_index *ix, unsigned worker);
/* What the pass has found; true once it is over. Between jobs. */
bool kithi_audit_found(const struct kithi_index *ix, struct kithi_audit_found *out);
/* Forget the pass, over or not. Between jobs. */
void kithi_audit_end(struct kithi_index *ix);

/*
 * Look for one vector, drawn by chance, as an insertion would: 1 it is found, 0 it is not, and was linked anew, -1 none
 * was drawn, or so many are as near that it says nothing. A job like the pieces above, without a pass.
 */
int kithi_audit_sample_job(struct kithi_index *ix, unsigned worker, uint64_t random);

/* ---- huge pages ---- */

/*
 * Find memory that the kernel has not been asked yet to back by huge pages: returns the number of jobs (0:
 * nothing to do now), and in *out_wait_ms when it wants to be called again (UINT32_MAX: only after something
 * was added). Call with no round of these jobs running; commits and sweeps need not wait for them.
 */
uint32_t kithi_pages_begin(struct kithi_index *ix, uint64_t now_ms, uint32_t *out_wait_ms);
/* Ask for block i, or fill one ahead of its use; takes about a millisecond. Jobs may run beside everything, each other included. */
void kithi_pages_job(struct kithi_index *ix, uint32_t i);
/* All jobs have ended. */
void kithi_pages_end(struct kithi_index *ix, uint64_t now_ms);

struct kithi_pages_state {
    uint64_t wanted_bytes; /* in blocks that huge pages can back */
    uint64_t huge_bytes;   /* of them those that have one, as far as the writer knows */
    int refusal;           /* -errno of the last refusal while some are missing, else 0 */
};
void kithi_pages_state(const struct kithi_index *ix, struct kithi_pages_state *out);

/* ---- replacing a segment ---- */

/* [P6 moved] Tell readers of this (old) segment to attach by name again. */
void kithi_index_mark_moved(struct kithi_index *ix);
/* The same for a segment that could not be adopted: only its header is touched, if it is one. */
int kithi_segment_mark_moved(const char *path, bool dropped);
/*
 * Give back the memory of a segment that has moved, after a grace period: readers that are attached
 * and idle keep only its header. Marks are set to all ones first. 0 or -errno.
 */
int kithi_segment_retire(const char *path);
/*
 * The same for one that is open, by whatever name, or none: of an index, or by its descriptor. Goes on from *at, 0 at first, for about
 * so many ms; 1: there is more to do. May run on any thread.
 */
int kithi_index_retire(struct kithi_index *ix, uint64_t *at, uint32_t ms);
int kithi_segment_retire_fd(int fd, uint64_t *at, uint32_t ms);

#endif
