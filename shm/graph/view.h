/*
 * view.h - one look at a mapped segment: limits and epoch, loaded once, then private.
 *
 * The only place where a slot number becomes a pointer. A view is begun for each search and
 * lives on the stack; its limits say how far memory is taken ([P5 taken]), and whoever holds
 * a number from shared memory compares it with them before it asks for a pointer. Growth that
 * happens after the view began is not seen by it.
 */
#ifndef KITHI_GRAPH_VIEW_H
#define KITHI_GRAPH_VIEW_H

#include "shm/layout/blob.h"
#include "shm/layout/ids.h"
#include "shm/layout/record.h"
#include "shm/layout/row.h"
#include "shm/map/map.h"

/* A moment in the life of a collection: an epoch, and the timeline on which it has its meaning. All zeros: now. */
struct kithi_moment {
    uint64_t epoch;
    uint64_t timeline;
};

/* Epoch 0 of a timeline is the moment at which there was nothing yet. */
static inline bool kithi_moment_is_now(const struct kithi_moment *at)
{
    return at->epoch == 0 && at->timeline == 0;
}

struct kithi_view {
    const struct kithi_map *map;
    const struct kithi_header *header;
    uint64_t epoch;       /* [P1 commit] the snapshot */
    bool pinned;          /* it is of the moment that somebody asked for: another one will not do */
    bool past;            /* ... and later groups were visible when the view began */
    uint64_t emptied;     /* [P9 emptied] as of the beginning */
    uint64_t postings;    /* [P19 postings] as of the beginning */
    uint32_t cell_limit;  /* cells of postings that have memory, ... */
    uint32_t field_limit; /* ... and fields that have postings */
    uint32_t slot_limit;  /* slots whose record, row, vector and doubt bit have memory */
    uint32_t slots_used;  /* slots that were ever used, <= slot_limit */
    uint32_t upper_limit; /* upper rows that have memory */
    uint32_t link_count0; /* places of a level-0 row: 2m */
    uint32_t link_count;  /* places of an upper row: m */
    uint32_t row_stride, row_blocks, upper_stride; /* bytes */
    uint32_t vector_stride, code_stride;           /* bytes */
    uint32_t bits_width;                           /* signs of a neighbour code in a row; 0: rows have none */
    uint32_t bits_stride;                          /* bytes of a block of them */
    uint32_t prefetch_row, prefetch_code;          /* cache lines to ask for ahead */
    enum kithi_codec kept, walked;
    uint32_t blob_limit[KITHI_BLOB_CLASS_COUNT];
    unsigned char *records; /* region bases, by value of the copied layout */
    unsigned char *rows;
    unsigned char *vectors;
    unsigned char *codes; /* the vectors, when the walk reads those */
    unsigned char *doubt;
    unsigned char *upper;
};

/* Begin: load epoch and limits. Wait-free. */
void kithi_view_begin(const struct kithi_map *map, struct kithi_view *out);

/*
 * The same at a moment. 0, or why this segment cannot show it: KITHI_E_STALE (of another timeline, or one that a replay went
 * past), KITHI_E_EPOCH (not visible yet). What has been unlinked or reused since is for the marks to say, as ever at the end; kithi_view_lost() says
 * it before any work is done in vain.
 */
int kithi_view_begin_at(const struct kithi_map *map, const struct kithi_moment *at, struct kithi_view *out);

/* slot < slot_limit, checked by the caller. */
static inline struct kithi_record *kithi_view_record(const struct kithi_view *v, uint32_t slot)
{
    return (struct kithi_record *)(void *)(v->records + (size_t)slot * sizeof(struct kithi_record));
}

static inline kithi_link *kithi_view_row(const struct kithi_view *v, uint32_t slot)
{
    return (kithi_link *)(void *)(v->rows + (size_t)slot * v->row_stride);
}

/* The kept vector, as v->kept says. */
static inline unsigned char *kithi_view_vector(const struct kithi_view *v, uint32_t slot)
{
    return v->vectors + (size_t)slot * v->vector_stride;
}

/* What the walk reads of it, as v->walked says. */
static inline unsigned char *kithi_view_code(const struct kithi_view *v, uint32_t slot)
{
    return v->codes + (size_t)slot * v->code_stride;
}

/* Neighbour codes of a row: block number i has those of links 32i to 32i + 31. */
static inline unsigned char *kithi_view_block(const struct kithi_view *v, uint32_t slot, uint32_t i)
{
    return v->rows + (size_t)slot * v->row_stride + v->row_blocks + (size_t)i * v->bits_stride;
}

/* The elements of a kept vector or a code, decoded into out (dim floats). Inside the caller's birth window. */
void kithi_view_decode_vector(const struct kithi_view *v, uint32_t slot, float *out);
void kithi_view_decode_code(const struct kithi_view *v, uint32_t slot, float *out);

/* number < upper_limit, checked by the caller. */
static inline struct kithi_upper *kithi_view_upper(const struct kithi_view *v, uint32_t number)
{
    return (struct kithi_upper *)(void *)(v->upper + (size_t)number * v->upper_stride);
}

/* [P8 doubt] false: the slot is plainly alive; true: ask its record. slot < slot_limit. */
static inline bool kithi_view_doubt(const struct kithi_view *v, uint32_t slot)
{
    const _Atomic uint64_t *word = (const _Atomic uint64_t *)(const void *)v->doubt + slot / 64;
    return atomic_load_explicit(word, memory_order_relaxed) >> (slot % 64) & 1;
}

/* Links of slot at level, or NULL when it has none there or a bounds check fails. slot < slot_limit. */
kithi_link *kithi_view_links(const struct kithi_view *v, uint32_t slot, unsigned level, uint32_t *out_count);

/* Head of the blob that ref names, or NULL when ref leads nowhere. */
struct kithi_blob *kithi_view_blob(const struct kithi_view *v, uint64_t ref, uint32_t *out_capacity);

/*
 * Copy the id of slot into out (KITHI_ID_MAX bytes); returns its length, or 0 when the bytes make
 * no sense. Inside the caller's birth window ([P2 birth]).
 */
size_t kithi_view_id(const struct kithi_view *v, uint32_t slot, char *out);

/* [P2 birth] first half: load birth; everything read afterwards belongs to it if it is still the same. */
static inline uint64_t kithi_birth_begin(const struct kithi_record *r)
{
    return atomic_load_explicit(&r->birth, memory_order_acquire);
}

/* [P2 birth] second half: true when what was read since kithi_birth_begin() is of one piece. */
static inline bool kithi_birth_same(const struct kithi_record *r, uint64_t birth)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&r->birth, memory_order_relaxed) == birth;
}

/*
 * Visible at the view's epoch? *out_birth is for kithi_birth_same(). The answer itself stands only
 * once that has said true.
 */
static inline bool kithi_view_visible(const struct kithi_view *v, const struct kithi_record *r,
                                      uint64_t *out_birth)
{
    uint64_t birth = kithi_birth_begin(r);
    *out_birth = birth;
    return kithi_visible_at(birth, atomic_load_explicit(&r->death, memory_order_relaxed), v->epoch);
}

/* [P3 unlinked] May finders have stopped leading to something this view should see? */
static inline bool kithi_view_unlinked(const struct kithi_view *v)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&v->header->unlinked, memory_order_relaxed) > v->epoch;
}

/* [P4 reused] May a slot that this view should see have been refilled? */
static inline bool kithi_view_reused(const struct kithi_view *v)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&v->header->reused, memory_order_relaxed) > v->epoch;
}

/* Of a moment that finders (or, without them, records) cannot show any more: no other view of it will help. */
static inline bool kithi_view_lost(const struct kithi_view *v, bool needs_finders)
{
    return v->pinned && (needs_finders ? kithi_view_unlinked(v) : kithi_view_reused(v));
}

/*
 * [P9 emptied] Were rows of dead slots emptied since this view began? A walk that stood on a dead slot may
 * then have ended for want of links, though nothing that it should see was unlinked.
 */
static inline bool kithi_view_emptied(const struct kithi_view *v)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&v->header->emptied, memory_order_relaxed) != v->emptied;
}

/* [P6 moved] true: attach by name again. Relaxed for stay: a search that misses it tries once more. */
static inline bool kithi_view_moved(const struct kithi_view *v)
{
    return atomic_load_explicit(&v->header->moved, memory_order_acquire) != 0 &&
           !atomic_load_explicit(&v->map->stay, memory_order_relaxed);
}

#endif
