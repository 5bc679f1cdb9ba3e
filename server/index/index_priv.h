/*
 * index_priv.h - the writer's private state, shared by the files of this folder.
 *
 * Everything here can be rebuilt from the segment (adopt.c and census.c do). Fields belong to the owner
 * thread unless they say otherwise; workers touch the segment, their own worker entry, and the
 * locks.
 */
#ifndef KITHI_INDEX_PRIV_H
#define KITHI_INDEX_PRIV_H

#include <pthread.h>

#include "server/index/index.h"
#include "shm/graph/reach.h"
#include "shm/graph/scratch.h"
#include "shm/graph/view.h"
#include "shm/kernel/bits.h"
#include "shm/layout/ledger.h"
#include "shm/layout/notes.h"

/* Neighbours that a new slot chooses at level 0, where rows have 2m places: the rest is left for those
 * that will choose it. With m the recall at the smallest ef is 0.003 lower (bench_core), with 2m
 * insertion is slower and nothing is gained. */
#define CHOSEN_AT_BASE(m) ((m) + (m) / 2)
#define LOCK_MAX          8192u /* row locks; slots share them by number */
#define NO_SLOT           UINT32_MAX

/* Long steps look so often whether they are told to stop: every few milliseconds. */
#define KITHI_STOP_STEPS 65536u

/* In step `at` of a long one: told to stop? Relaxed: nothing is read because of it. */
static inline bool kithi_stop_seen(const _Atomic bool *stop, uint32_t at)
{
    return at % KITHI_STOP_STEPS == 0 && stop && atomic_load_explicit(stop, memory_order_relaxed);
}

/* A growing array of numbers, used as a stack. */
struct stack {
    uint32_t *items;
    uint32_t count, capacity;
};

/* A queue of dead or resting slots, oldest first. */
struct waiting {
    uint32_t slot;
    uint64_t since_ms;
};
struct queue {
    struct waiting *items; /* ring */
    uint32_t head, count, capacity;
};

/* One staged insertion. */
struct insertion {
    const char *id; /* into the request */
    const float *vector;
    uint64_t hash;
    uint64_t blob;    /* reference for a long id, or 0 */
    uint32_t payload; /* of its first version, filled as it was staged; 0: none */
    uint32_t upper;   /* first upper row + 1, or 0; the chain is already linked */
    uint32_t slot;
    uint32_t place; /* of its entry in the id table */
    uint32_t prev;  /* slot + 1 of the published version before, or 0 */
    uint16_t id_len;
    uint8_t level;
    bool superseded; /* a later op of the group replaces or deletes it */
};

/* What a group has done to an id so far. */
struct touched {
    uint64_t hash;
    const char *id;
    uint32_t id_len;
    uint32_t insertion; /* index, or NO_SLOT: deleted, unless it keeps */
    bool keeps; /* neither inserted nor deleted: the payload was changed, or nothing was found to change */
    uint32_t change;  /* index of a change of the payload alone, or NO_SLOT */
    uint32_t payload; /* reference of the version that it leaves; 0: none */
};

/* A payload that changes without its vector. */
struct payload_change {
    uint32_t slot;
    uint32_t ref;  /* 0: a later op of the group made it needless */
    uint32_t prev; /* the version that it replaces, or 0 */
};

/* Versions that were replaced, the oldest first. */
struct old_payload {
    uint32_t ref;
    uint64_t replaced; /* epoch */
    uint64_t since_ms;
    uint32_t era; /* [P19 postings] */
};
struct old_payloads {
    struct old_payload *items; /* ring */
    uint32_t head, count, capacity;
};

struct kithi_group {
    uint64_t began_epoch; /* visible when it was sealed: its insertions choose nobody who had died by then */
    uint32_t noted;       /* entries of the notes that are its own */
    struct insertion *insertions;
    uint32_t insertion_count, insertion_capacity;
    struct stack deaths; /* published slots that die with the group */
    struct payload_change *changes;
    uint32_t change_count, change_capacity;
    struct touched *touched;
    uint32_t touched_count, touched_capacity;
    uint32_t *overlay; /* open addressing over touched: index + 1 */
    uint32_t overlay_mask;
    uint32_t new_ids; /* id-table places that publishing may take */
    /* Which places those are: a set (place + 1, open addressing) and its members. */
    uint32_t *claims, claims_mask;
    struct stack claimed;
};

struct candidate {
    float distance;
    uint32_t slot;
};

/* Private to a worker while it runs a job. */
struct worker {
    struct kithi_index *ix; /* whose it is */
    struct kithi_scratch scratch;
    struct candidate *candidates; /* ef_construction + a row's worth */
    struct candidate *chosen;
    float *vector;       /* copy of the vector at hand, aligned */
    unsigned char *code; /* a code of it */
    /* With neighbour codes: the rotated ends of a link, what was made of them, and the links of an insertion. */
    float *near_end, *far_end;
    struct kithi_bits_edge edge, *edges;
};

struct sweep {
    bool running;
    bool hurried;     /* the next one is due without patience */
    uint64_t *doomed; /* bitmap by slot */
    uint32_t doomed_words;
    uint32_t slots; /* slots that the pass covers */
    struct stack slots_doomed;
    uint64_t since_ms;      /* when the first of them died */
    struct kithi_view view; /* of its own: the owner renews ix->view while jobs run */
    kithi_give_way_fn *give_way;
    void *give_way_arg;
    _Atomic uint64_t handed_on, torn; /* of all jobs; for stats, as repaired */
    uint64_t repaired;
};

/* The next id table, while it is filled beside the present one (ids.c). */
struct ids_build {
    uint64_t word;   /* what the header will say; 0: there is none */
    uint64_t zeroed; /* its places below are empty or filled; the others hold what an older table had */
    uint64_t at;     /* places of the present one below are in it */
    uint32_t filled;
};

#define PAGES_BATCH 8u /* blocks of one round */

struct pages {
    uint64_t asked[KITHI_REGION_COUNT]; /* bytes of each region that this pass has been through */
    uint64_t got;                       /* bytes of them that are huge */
    uint32_t count;                     /* blocks of the round under way, ... */
    uint64_t blocks[PAGES_BATCH];       /* ... their offsets */
    _Atomic uint32_t granted, refused;  /* and what became of them */
    /* Of each region: bytes up to which blocks were asked to be filled ahead of use, bytes up to which they were, and what
     * was taken at first sight: who has not grown since is not about to. */
    uint64_t ahead[KITHI_REGION_COUNT], filled[KITHI_REGION_COUNT], taken_first[KITHI_REGION_COUNT];
    uint64_t filled_from[KITHI_REGION_COUNT]; /* where those begin that were filled without a gap */
    uint32_t ahead_count;                     /* blocks of the round under way */
    uint64_t ahead_blocks[PAGES_BATCH];
    uint8_t ahead_region[PAGES_BATCH];
    bool ahead_done[PAGES_BATCH]; /* its job's, until all have ended */
    _Atomic bool ahead_refused;
    uint64_t ahead_again_ms; /* not before then */
    _Atomic uint32_t refused_in_a_row;
    _Atomic int refusal; /* -errno of the last one */
    bool incomplete;     /* some block of this pass was refused: there will be another pass, ... */
    uint64_t again_ms;   /* ... then */
    uint32_t delay_ms;   /* how long that is from the next refusal on */
};

enum census_step { CENSUS_OVER, CENSUS_SLOTS, CENSUS_UPPERS, CENSUS_BLOBS, CENSUS_PLACES, CENSUS_JOIN };

struct census {
    enum census_step step;
    bool ends_known;      /* notes told where what was used ends; nothing beyond is looked at */
    bool places_known;    /* the id table was made anew meanwhile, and counted */
    uint64_t epoch, live; /* of the beginning */
    uint64_t live_seen;
    uint32_t slot, slot_end; /* the next one, and where they ended at the beginning */
    uint32_t upper, upper_end, upper_last;
    unsigned class;
    uint32_t blob, blob_end[KITHI_BLOB_CLASS_COUNT], blob_last[KITHI_BLOB_CLASS_COUNT];
    uint64_t place;
    uint32_t filled;
    uint8_t *uppers, *blobs[KITHI_BLOB_CLASS_COUNT]; /* [i]: held by a slot */
    struct queue dead;                               /* before the epoch */
};

/* A pass; of a worker while a job runs. */
struct audit {
    bool open; /* a job runs */
    bool over;
    struct kithi_reach walk; /* under way while it has a queue */
    uint32_t judged;         /* slots below were asked whether the walk missed them */
    struct stack missed;
    uint32_t mended; /* of missed, those that were seen to */
    uint32_t relinked;
};

struct kithi_enlarge;
struct postings;
/* Changes that a copy has still to get (journal.c). */
struct journal_block;
struct journal {
    bool on;
    bool lost; /* some are missing: memory was short */
    struct journal_block *first, *at,
        *last;             /* what was taken may still be pointed to; the next one is in `at` */
    uint32_t read;         /* bytes of `at` that were taken */
    uint64_t noted, taken; /* changes in all */
    uint64_t bytes;        /* of memory that they take now */
};

struct kithi_index {
    struct kithi_map map;
    struct kithi_header *header;
    int fd;
    struct kithi_index_tuning tuning;
    /* The owner's: limits as of the last reservation. Jobs begin views of their own. */
    struct kithi_view view;

    uint64_t taken[KITHI_REGION_COUNT];
    uint32_t slots_used;
    struct stack slots_free;
    uint32_t upper_used; /* upper rows below were used at least once */
    struct stack upper_free;
    uint32_t blob_used[KITHI_BLOB_CLASS_COUNT];
    struct stack blob_free[KITHI_BLOB_CLASS_COUNT];
    uint32_t ids_filled; /* places of the id table that are not empty */
    struct ids_build ids_build;
    /* Upper rows and blobs by the state of their slot, for the ledger. */
    int32_t held_upper[KITHI_HELD_COUNT], held_blob[KITHI_BLOB_CLASS_COUNT][KITHI_HELD_COUNT];

    uint64_t epoch, live, random;
    struct queue dead, resting;
    struct old_payloads old_payloads;
    struct postings *postings;
    int64_t payloads, payload_bytes; /* of live slots, for people */
    uint32_t
        slots_wanted; /* the ceiling that the last request needs for its ids and payloads; 0: this one, or none is high enough */
    bool imaged; /* an image is being taken: what died after image_epoch is not freed */
    uint64_t image_epoch;
    /* A ring: from `oldest` on those that are sealed, then the open one, to which requests are staged. */
    struct kithi_group groups[KITHI_GROUPS_SEALED + 1];
    uint32_t oldest, sealed;
    uint32_t noted; /* slots of all groups that are noted, or KITHI_NOTES_OVERFLOW */
    struct sweep sweep;
    struct census census;
    struct audit audit;
    struct journal journal;
    struct pages pages;
    uint8_t *levels;        /* drawn for the request at hand, ... */
    uint32_t *places;       /* ... and claimed for it; */
    uint8_t *missing;       /* a bit for each of its ops that found nothing to delete or to change */
    uint32_t *payload_lens; /* bytes of the payload that each of its ops leaves, ... */
    uint32_t *same_ids;     /* ... and a table of ops by their ids: index + 1 */
    uint32_t same_ids_mask;
    uint32_t levels_capacity;

    pthread_mutex_t entry_lock;
    pthread_mutex_t *locks; /* of rows, level 0 and above; one at a time is held */
    uint32_t lock_count;    /* a power of two; a small collection has no use for as many as a large one */
    struct worker *workers;
    _Atomic(struct kithi_enlarge *) enlarge; /* it is copied into a larger segment: stores are told */
};

/* ---- enlarge.c ---- */

void kithi_enlarge_note(struct kithi_enlarge *e, const void *p, size_t len);

/* [P16 copied] len bytes of the segment at p have been stored to, of whichever region but the header's. Called behind the stores, by
 * whoever made them. */
static inline void kithi_stored(struct kithi_index *ix, const void *p, size_t len)
{
    /* Acquire: what it finds is set up. */
    struct kithi_enlarge *e = atomic_load_explicit(&ix->enlarge, memory_order_acquire);
    if (e)
        kithi_enlarge_note(e, p, len);
}

/* ---- space.c: memory of the segment ---- */

/* Take memory until region holds count items. 0 or KITHI_E_NO_SPACE. */
int kithi_space_reserve(struct kithi_index *ix, unsigned region, uint64_t count, struct kithi_errmsg *err);
/* Whether there is room for so many bytes at once; KITHI_E_NO_SPACE says what lacks. */
int kithi_space_ask(const struct kithi_index *ix, uint64_t bytes, struct kithi_errmsg *err);
/* Memory for len bytes of the segment at off, which nobody accounts for yet. 0 or -errno. Any thread. */
int kithi_space_fill(const struct kithi_index *ix, uint64_t off, uint64_t len);
/* Bytes that a region takes at once when it has so many. */
uint64_t kithi_space_step(uint64_t taken);
/* Whether the file system and the cgroup have room for many steps of every region. */
bool kithi_space_is_plenty(const struct kithi_index *ix);
/* Whether the cgroup's limit leaves room for so many bytes. */
bool kithi_space_in_limit(uint64_t bytes);

/* ---- pages.c ---- */

/* How many of a region's bytes from taken on, up to an end, have memory already because they were filled ahead. */
uint64_t kithi_pages_filled(const struct kithi_index *ix, unsigned region, uint64_t taken, uint64_t end);

/* Write down what is filled ahead of a region's taken bytes. */
void kithi_pages_note(struct kithi_index *ix, unsigned region);
/* Of an adopted segment: take over what the last owner wrote down, and give back what it did not come to write down. */
void kithi_pages_adopt(struct kithi_index *ix);

/* Memory for a whole block of the segment, by a huge page where the kernel gives one. 0 or -errno. Any thread. */
int kithi_pages_fill(const struct kithi_index *ix, uint64_t off);

/* ---- alloc.c: slots, upper rows, blobs ---- */

int kithi_stack_push(struct stack *s, uint32_t v);
int kithi_stack_reserve(struct stack *s, uint32_t count); /* room for count more */
int kithi_queue_reserve(struct queue *q, uint32_t count);
int kithi_queue_push(struct queue *q, uint32_t slot, uint64_t since_ms);
struct waiting kithi_queue_pop(struct queue *q);

struct demand { /* of one request */
    uint32_t slots, uppers, ids, deaths, changes;
    uint32_t blobs[KITHI_BLOB_CLASS_COUNT];
};
/* Make sure that all of demand can be allotted without failing, on top of what the group holds. */
int kithi_alloc_reserve(struct kithi_index *ix, const struct demand *d, struct kithi_errmsg *err);
uint32_t kithi_alloc_slot(struct kithi_index *ix);
uint32_t kithi_alloc_upper(struct kithi_index *ix, uint32_t owner,
                           unsigned rows); /* chain; first + 1, or 0 */
uint32_t kithi_alloc_upper_available(const struct kithi_index *ix);
uint64_t kithi_alloc_blob(struct kithi_index *ix, unsigned class);
/* Give back a slot, its blob (or 0) and its upper rows (first + 1, or 0), which nothing leads to. */
void kithi_alloc_return(struct kithi_index *ix, uint32_t slot, uint64_t blob, uint32_t upper);
/* Free a slot whose rest is over, with everything it holds. [P4 reused] */
void kithi_alloc_free(struct kithi_index *ix, uint32_t slot);
void kithi_doubt_set(struct kithi_index *ix, uint32_t slot);
void kithi_doubt_clear(struct kithi_index *ix, uint32_t slot);
/* What slot holds is counted from one state to another; KITHI_HELD_COUNT: in none. */
void kithi_held_moves(struct kithi_index *ix, uint32_t slot, enum kithi_held from, enum kithi_held to);
void kithi_alloc_tallies(struct kithi_index *ix);
/* A living slot's payload is another version, and the one before rests; then that is free. Of them, 0: there is none. */
void kithi_held_payload(struct kithi_index *ix, uint32_t slot, uint32_t before, uint32_t after);
void kithi_held_forgotten(struct kithi_index *ix, uint32_t ref);
/* Keep the ledger from now on. */
void kithi_ledger_begin(struct kithi_index *ix);

/* ---- payload.c: the writer's half of [P18 payload] ---- */

/* Reference of the version that id has once all that is staged is published; 0: there is none, or no such id. */
uint32_t kithi_payload_newest(const struct kithi_index *ix, uint64_t hash, const char *id, uint32_t id_len);
/* Its bytes, in the segment. Returns their count; 0: there are none. */
uint32_t kithi_payload_bytes(const struct kithi_index *ix, uint32_t ref, const unsigned char **out);
/* The class that takes so many bytes. */
unsigned kithi_payload_size_class(const struct kithi_index *ix, uint32_t len);
/* Fill a blob, which was reserved, with a version for slot; nothing leads to it yet. */
uint32_t kithi_payload_stage(struct kithi_index *ix, uint32_t slot, uint32_t prev, const void *bytes,
                             uint32_t len);
/* Give back a version that nothing leads to, or that has rested. ref may be 0. */
void kithi_payload_return(struct kithi_index *ix, uint32_t ref);
/* Room for so many changes more in the open group, and for what they replace. */
int kithi_payload_reserve(struct kithi_index *ix, uint32_t changes);
/* [P1 commit] Before the births of a group: versions are born, and those that change alone take their places. */
void kithi_payload_births(struct kithi_index *ix, const struct kithi_group *g, uint64_t epoch);
/* Behind its epoch: what was replaced begins its rest. */
void kithi_payload_replaced(struct kithi_index *ix, const struct kithi_group *g, uint64_t epoch,
                            uint64_t now_ms);
/* Free what has rested, as much as a turn of postings allows. Milliseconds until there is more to free; 0: there is more now; UINT32_MAX: there is
 * nothing. */
uint32_t kithi_payload_forget(struct kithi_index *ix, uint64_t now_ms);
/* Of a slot whose group never became visible, or changed it when the owner died: back to what the epoch sees. */
void kithi_payload_take_back(struct kithi_index *ix, uint32_t slot);
void kithi_payload_fini(struct kithi_index *ix);

/* ---- postings.c: the writer's half of [P19 postings] ---- */

int kithi_postings_init(struct kithi_index *ix); /* 0 or -ENOMEM */
void kithi_postings_fini(struct kithi_index *ix);
/*
 * Forget all postings, of whoever made them; readers do without from here on. kithi_postings_rebuild() makes them anew of the payloads, or, where
 * there are no slots yet, they are whole at once.
 */
void kithi_postings_restart(struct kithi_index *ix);
/*
 * Terms that lead to slots in vain, since versions were replaced faster than they could be looked at, are got rid of: as many as a turn allows. True:
 * there is more to do now.
 */
bool kithi_postings_clean(struct kithi_index *ix, uint64_t now_ms);
/* Whether there are none. */
bool kithi_postings_is_clean(const struct kithi_index *ix);
/* When kithi_postings_clean() makes all of them anew, as there were more than can be remembered; UINT64_MAX: it need not. */
uint64_t kithi_postings_anew_at(const struct kithi_index *ix);
/* Look at so many slots more, or as many as a turn allows. True: there are more to look at. */
bool kithi_postings_rebuild(struct kithi_index *ix, uint32_t slots);
/* [P1 commit] Before the births of a group: its slots are found by the payloads that it gives them. Cannot fail: a field for which there is no
 * memory is given up. */
void kithi_postings_group(struct kithi_index *ix, const struct kithi_group *g);
/*
 * What is looked at between two groups is looked at in turns, so that no write waits for long: work counts terms, and more where a term
 * has many slots. A turn ends when it has worked so much, which is a millisecond or two; one payload more may be what it ends with.
 */
#define KITHI_POSTINGS_TURN 16384u
void kithi_postings_turn(struct kithi_index *ix); /* begins */
uint64_t kithi_postings_work(const struct kithi_index *ix);
bool kithi_postings_has_worked(const struct kithi_index *ix); /* ends */
/* An era ends, if it is time for that and somebody waits for it: what rests may go. */
void kithi_postings_tick(struct kithi_index *ix, uint64_t now_ms);
/* What was gone when an era, or a time, was the present one has rested. */
uint32_t kithi_postings_era_now(const struct kithi_index *ix);
bool kithi_postings_rested(const struct kithi_index *ix, uint32_t era);
bool kithi_postings_rested_ms(const struct kithi_index *ix, uint64_t since_ms);
/* Whether anything waits for the end of an era. */
bool kithi_postings_resting(const struct kithi_index *ix);
/* Milliseconds until the next era. */
uint32_t kithi_postings_wait(const struct kithi_index *ix, uint64_t now_ms);
/* A version that was replaced, and has rested, is about to go; its slot is not found by it any more, unless by a later version. */
void kithi_postings_forget(struct kithi_index *ix, uint32_t ref);
/* A slot that has rested is about to go. */
void kithi_postings_free(struct kithi_index *ix, uint32_t slot);
void kithi_postings_tallies(const struct kithi_index *ix);

/* ---- ids.c: the writer's half of [P7 id table] ---- */

uint64_t kithi_ids_hash(const struct kithi_index *ix, const char *id, size_t len);
/* Slot + 1 that the entry of id leads to (its newest published version, dead or alive), or 0. */
uint32_t kithi_ids_find(const struct kithi_index *ix, uint64_t hash, const char *id, size_t len);
/* Make room for more new ids, fresh of which nobody has asked for yet; may rebuild into the other area, or go on with
 * that. 0 or KITHI_E_NO_SPACE. */
int kithi_ids_reserve(struct kithi_index *ix, uint32_t more, uint32_t fresh, struct kithi_errmsg *err);
/*
 * Claim for the open group the place that the entry of id will have when it is published: that of the version before,
 * published or not, or a free one within the longest probe. UINT32_MAX when there is none, which only ids chosen for their
 * hashes bring about. Room in the set of claims was reserved.
 */
uint32_t kithi_ids_claim(struct kithi_index *ix, uint64_t hash, const char *id, uint32_t len);
int kithi_ids_claims_reserve(struct kithi_group *g, uint32_t more);
/* Take back the claims after the first count, the last first. */
void kithi_ids_claims_rewind(struct kithi_group *g, uint32_t count);
/*
 * Before anything is put: no claimed place stays empty, since others of the group, and of later ones, lie behind it, and
 * what claimed it may have been taken back by a later change of the same id.
 */
void kithi_ids_claims_bury(struct kithi_index *ix, const struct kithi_group *g);
/* Lead the id whose place was claimed to slot. Cannot fail. */
void kithi_ids_put(struct kithi_index *ix, uint32_t place, uint64_t hash, uint32_t slot);
/* If the entry of slot's id leads to slot: lead it to link (slot + 1) or, with 0, bury it. */
void kithi_ids_redirect(struct kithi_index *ix, uint32_t slot, uint32_t link);
/* Lead the id of each living slot to it, in a table that is empty. KITHI_E_CORRUPT when two have the same id, -ECANCELED (stop may
 * be NULL), or what reserving says. */
int kithi_ids_fill(struct kithi_index *ix, const _Atomic bool *stop, struct kithi_errmsg *err);
/* KITHI_E_CORRUPT when the header's word makes no sense. */
int kithi_ids_check(const struct kithi_index *ix, struct kithi_errmsg *err);
uint64_t kithi_ids_capacity(const struct kithi_index *ix);
/* Places of an area that are in use: of the table, or of the one that will be. */
uint64_t kithi_ids_places(const struct kithi_index *ix, unsigned area);
bool kithi_ids_is_filled(const struct kithi_index *ix, uint64_t place);

/* ---- select.c: choosing neighbours ---- */

/*
 * The selection heuristic: walk the candidates (sorted, nearest first) and keep those that are
 * nearer to the centre than to any kept one, at most max. Returns how many stand in out.
 */
uint32_t kithi_select(const struct kithi_view *v, const struct kithi_kernel *k, const struct candidate *c,
                      uint32_t n, uint32_t max, struct candidate *out);
/* Add the nearest of the candidates that were not chosen until there are max; returns how many stand in chosen. */
uint32_t kithi_select_more(const struct candidate *c, uint32_t n, struct candidate *chosen, uint32_t count,
                           uint32_t max);
void kithi_candidates_sort(struct candidate *c, uint32_t n);
/*
 * Put those of the same distance, in what is sorted, in an order that is another one for each centre. In the same order for all, all
 * rows of a thousand equal vectors would name the same few of them, and nobody the others.
 */
void kithi_candidates_mix(struct candidate *c, uint32_t n, uint32_t centre);

/* ---- row.c: the writer's half of rows ---- */

/* A row that is looked at or changed; changed under its lock only. */
struct row {
    const struct kithi_view *view;
    uint32_t slot; /* whose row */
    bool coded;    /* it holds neighbour codes */
    kithi_link *links;
    uint32_t count;
};
/* false when the slot has no row at level. */
bool kithi_row_open(const struct kithi_view *v, uint32_t slot, unsigned level, struct row *out);
/* Lead place to slot. edge: between the two, as seen from the other end if back; NULL: it is made here. */
void kithi_row_put(struct row *r, struct worker *w, uint32_t place, uint32_t slot,
                   const struct kithi_bits_edge *edge, bool back);
/* Empty place. */
void kithi_row_clear(struct row *r, struct worker *w, uint32_t place);
/* Add slot to a row that has a free place, or that names it already; false when the row is full. */
bool kithi_row_add(struct row *r, struct worker *w, uint32_t slot, const struct kithi_bits_edge *edge,
                   bool back);
/* The code of slot, decoded and rotated: bits_width floats, 64-byte aligned. */
void kithi_rotated(const struct kithi_view *v, uint32_t slot, float *out);
/* Distance between two slots by their codes; a NaN becomes the largest float. */
float kithi_pair(const struct kithi_view *v, const struct kithi_kernel *k, uint32_t a, uint32_t b);
/* Ask for the code of slot, ahead of that: its first lines, those behind them follow by themselves. */
void kithi_code_ask(const struct kithi_view *v, uint32_t slot);

/* ---- insert.c ---- */

/* Linked and not dead: may be chosen as a neighbour. */
bool kithi_slot_eligible(const struct kithi_view *v, uint32_t slot);
pthread_mutex_t *kithi_row_lock(struct kithi_index *ix, uint32_t slot);
/* How neighbours are looked for. */
struct look {
    uint32_t ef; /* breadth of its searches */
    const uint32_t
        *ways; /* where that of level 0 begins, besides where the levels above lead to; dead ones do */
    uint32_t way_count;
};
/* Look for neighbours of a living slot once more and link both ways; with ef_construction, as if it were inserted now. */
void kithi_relink(struct kithi_index *ix, unsigned worker, uint32_t slot, const struct look *look);
/* [P3 unlinked] Raise the mark to death before a finder of something that died then goes. */
void kithi_mark_unlinked(struct kithi_index *ix, uint64_t death);
/* Lead the entry point to a visible slot of the highest level, or nowhere, and return it. Under entry_lock. */
uint64_t kithi_entry_replace(struct kithi_index *ix);

/*
 * Whether links that may be somebody's last one are kept as slots are inserted and swept. Under the inner product vectors of little length are near to
 * nobody, and all look to the same few: kept for them, the rows of these few have no room for those that are (2 dimensions: 340 of 400
 * neighbours found instead of all). There the audit alone looks after them.
 */
bool kithi_keeps_ways(const struct kithi_view *v);
/*
 * Does the row of one of slot's own neighbours, other than of not_by, lead to slot? Most links have one that leads back, so that one or two rows are
 * looked at. False may be wrong: somebody else may lead there.
 */
bool kithi_has_other_way(const struct kithi_view *v, uint32_t slot, uint32_t not_by);

/* ---- audit.c ---- */

/* Lead other to slot at level 0, if need be in the place of a link that can be spared; false: none can. */
bool kithi_way_in(struct kithi_index *ix, const struct kithi_view *v, struct worker *w, uint32_t other,
                  uint32_t slot);

/* ---- sweep.c ---- */

/* Forget everything, as when the segment is closed. */
void kithi_sweep_fini(struct kithi_index *ix);

/* ---- notes.c: [P14 notes], what the next owner need not look for ---- */

/* The open group takes slot, or will be its death: noted before anything of its record changes. */
void kithi_note_slot(struct kithi_index *ix, uint32_t slot);
/* upper_used or blob_used have risen: noted before anything leads there. */
void kithi_note_ends(struct kithi_index *ix);
/* More places of the id table are about to be filled, at most so many; or the table is another one. */
void kithi_note_ids(struct kithi_index *ix, uint32_t more);
void kithi_note_wake(struct kithi_index *ix, uint32_t wake);
/* Nothing in the records is beyond the epoch but what the other groups have touched. */
void kithi_notes_end_group(struct kithi_index *ix, struct kithi_group *g);
/* The open group has touched nothing. */
void kithi_notes_abort_group(struct kithi_index *ix);
void kithi_notes_correct_live(struct kithi_index *ix, uint64_t live);
/* Keep notes from now on, with no group open. */
void kithi_notes_begin(struct kithi_index *ix);
void kithi_notes_condemn(struct kithi_index *ix);
bool kithi_notes_condemned(const struct kithi_index *ix);
/* Whether the last owner's notes can be used; if so they are taken over into ix: noted, live, ends, ids_filled. */
bool kithi_notes_usable(struct kithi_index *ix);
uint32_t kithi_noted_slot(const struct kithi_index *ix, uint32_t i);

/* ---- census.c: free lists, the dead and the living, from all records ---- */

/*
 * Begin to look at the slots_used slots, which have one of the states of record.h; their doubt bits follow. With
 * ends_known: live, upper_used, blob_used are right, and others may be at work until it is over. 0 or -ENOMEM.
 */
int kithi_census_begin(struct kithi_index *ix, bool ends_known);
/* Is slot still to be looked at? */
bool kithi_census_awaits(const struct kithi_index *ix, uint32_t slot);
/* A place of the id table, empty before, was filled; the table is another one, which was counted. */
void kithi_census_place_filled(struct kithi_index *ix, uint64_t place);
void kithi_census_table_anew(struct kithi_index *ix);
void kithi_census_fini(struct kithi_index *ix);
/* A whole one, at once, with nobody else at work: 0, KITHI_E_CORRUPT, -ENOMEM, or -ECANCELED (stop may be NULL). */
int kithi_private_rebuild(struct kithi_index *ix, const _Atomic bool *stop, struct kithi_errmsg *err);

/* ---- group.c: the groups under way ---- */

/* The i-th of them, the oldest first; the open one is number ix->sealed. */
static inline struct kithi_group *kithi_group_at(const struct kithi_index *ix, uint32_t i)
{
    return (struct kithi_group *)&ix->groups[(ix->oldest + i) % (KITHI_GROUPS_SEALED + 1)];
}

/*
 * What the groups before the number-th make of an id: the insertion of its newest version, or NULL where they have none. *out_last: what
 * the newest of them that touches it does, which may be a deletion; NULL: none does.
 */
const struct insertion *kithi_group_version(const struct kithi_index *ix, uint32_t number, uint64_t hash,
                                            const char *id, uint32_t id_len, const struct touched **out_last);
/*
 * The vector of slot as it was given, to be added once more. Under cosine codes decode to a vector a little longer or shorter than
 * the normalised one: here it is brought to the length that is kept, or a trifle less where a float just holds that. So what was
 * taken is taken again, and no length drifts from copy to copy. What would be nothing in floats stays normalised. Where the
 * slot makes no sense: what kithi_group_add() would say.
 */
int kithi_group_vector_again(const struct kithi_index *ix, uint32_t slot, float *out,
                             struct kithi_errmsg *err);
/* What g has done to an id, or NULL. */
const struct touched *kithi_group_touched(const struct kithi_group *g, uint64_t hash, const char *id,
                                          uint32_t id_len);
/* Slots that may die with the groups under way. */
uint32_t kithi_groups_dying(const struct kithi_index *ix);
/* Forget what is staged; the slots it took are the caller's business. */
void kithi_group_clear(struct kithi_group *g);
void kithi_group_fini(struct kithi_group *g);

/* ---- journal.c: what changes while a copy is made ---- */

struct noted_change {
    const char *id;  /* of a death: whose version died. Valid until kithi_journal_forget_taken() */
    uint32_t id_len; /* 0: a birth */
    uint32_t slot;   /* of a birth, and its epoch: with another one the slot holds something else by now */
    uint64_t birth;
    bool payload; /* nothing but the payload of that slot has changed */
};

/* Note what is published from now on. One copy at a time. */
void kithi_journal_begin(struct kithi_index *ix);
void kithi_journal_end(struct kithi_index *ix);
/* A group becomes visible: its deaths and then its births, if anybody wants to know. */
void kithi_journal_group(struct kithi_index *ix, const struct kithi_group *g, uint64_t epoch);
/* Take the oldest change; false: there is none. */
bool kithi_journal_next(struct kithi_index *ix, struct noted_change *out);
/* Nothing that was taken is needed any more. */
void kithi_journal_forget_taken(struct kithi_index *ix);

/* ---- index.c ---- */

/* Private state for the mapping in ix->map; 0 or -ENOMEM. */
int kithi_index_init(struct kithi_index *ix, const struct kithi_index_tuning *tuning);

/* ---- publish.c: the only writer of publication words ---- */

void kithi_publish_wake(struct kithi_index *ix);
/* kithi_group_publish(), which may be at the present epoch once more as long as nobody reads the segment. */
void kithi_publish_group(struct kithi_index *ix, uint64_t epoch, uint64_t durable_epoch, uint64_t now_ms);

#endif
