/*
 * enlarge.c - copying what changes meanwhile. See enlarge.h.
 *
 * The live segment is looked at in blocks of 2 MiB, each of one region, and in grains of 256 bytes. A store is told behind
 * itself: the bit of its grain, then the flag of its block. Whoever copies a block takes the flag back, then bits, then copies what
 * they stand for; a store that comes too late for the copy finds its bit gone and sets it again ([P16 copied]).
 */
#include "server/index/enlarge.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/base/bytes.h"
#include "shm/layout/ledger.h"
#include "shm/layout/postings.h"
#include "shm/sync/slotbytes.h"

#define BLOCK       KITHI_REGION_ALIGN
#define GRAIN       256u
#define WORD_GRAINS 64u
#define WORD_BYTES  (WORD_GRAINS * GRAIN)
#define BLOCK_WORDS (BLOCK / WORD_BYTES)
/* What is left when a pass over all blocks had no more than this to copy again: one or two milliseconds' worth. */
#define NEAR_BYTES (4u << 20)
#define PASSES_MAX 12u
/* Of the header: publication words, marks and finders; then tallies, curve and notes. Between them stands what is taken. */
#define HEADER_FROM  256u
#define HEADER_TAKEN ((uint32_t)offsetof(struct kithi_header, taken))
#define HEADER_REST  ((uint32_t)offsetof(struct kithi_header, tally_dead))

_Static_assert(BLOCK % WORD_BYTES == 0, "a block is whole words of bits");
_Static_assert(4096 % GRAIN == 0, "memory is taken in whole grains");

enum { CLEAN, DIRTY, WHOLE }; /* WHOLE: nothing of the block was copied yet */

struct kithi_enlarge {
    struct kithi_index *ix, *next; /* ix: from the beginning on */
    struct kithi_layout layout;    /* of the live segment, */
    const unsigned char *base;     /* and where it is mapped */
    uint32_t block_count;          /* of it */
    _Atomic uint8_t *flags;        /* of each block */
    _Atomic uint64_t *bits;        /* of each grain */
    uint32_t *have;   /* bytes of each block that next has memory for; of whoever copies the block */
    uint8_t *regions; /* of each block */
    uint64_t want[KITHI_REGION_COUNT];  /* bytes that next shall have memory for, of each region */
    uint64_t first[KITHI_REGION_COUNT]; /* bytes that were in use at the beginning */

    uint32_t at;         /* the pass goes on there */
    uint32_t passes;     /* that are over */
    uint64_t pass_bytes; /* what was copied when the one under way began */
    bool near;
    bool swapped;
    uint32_t list_count, list_capacity;
    uint32_t *list;            /* blocks at hand */
    _Atomic uint64_t copied;   /* bytes */
    _Atomic int status;        /* of the first job that failed */
    _Atomic uint64_t short_of; /* bytes that it could not have */
};

/* ---- being told of stores ---- */

void kithi_enlarge_note(struct kithi_enlarge *e, const void *p, size_t len)
{
    size_t off = (size_t)((const unsigned char *)p - e->base), last = (off + len - 1) / GRAIN;
    for (size_t grain = off / GRAIN; grain <= last; grain++) {
        _Atomic uint8_t *flag = &e->flags[grain / (WORD_GRAINS * BLOCK_WORDS)];
        /* [P16 copied] The store stands before the bit, also where that is set already, since it may be on its way out. And one
         * order of all (seq_cst): whoever took bits before this one was set has taken the flag back before, and that is seen here.
         * Other half: copy_block(). */
        atomic_fetch_or_explicit(&e->bits[grain / WORD_GRAINS], UINT64_C(1) << (grain % WORD_GRAINS),
                                 memory_order_seq_cst);
        if (atomic_load_explicit(flag, memory_order_seq_cst) == CLEAN)
            atomic_store_explicit(flag, DIRTY, memory_order_release);
    }
}

/* ---- beginning and end ---- */

/* Bytes of a region that are in use; 0: it is not copied. */
static uint64_t used_of(const struct kithi_index *ix, unsigned region)
{
    const struct kithi_layout *l = &ix->map.layout;
    switch (region) {
    case KITHI_REGION_RECORDS:
    case KITHI_REGION_ROWS: return (uint64_t)ix->slots_used * l->unit[region];
    case KITHI_REGION_VECTORS:
    case KITHI_REGION_CODES: return l->size[region] ? (uint64_t)ix->slots_used * l->unit[region] : 0;
    case KITHI_REGION_DOUBT: return (uint64_t)(ix->slots_used + 63) / 64 * l->unit[region];
    case KITHI_REGION_UPPER: return (uint64_t)ix->upper_used * l->unit[region];
    case KITHI_REGION_IDS0:
    case KITHI_REGION_IDS1: return kithi_ids_places(ix, region - KITHI_REGION_IDS0) * l->unit[region];
    case KITHI_REGION_BLOB0:
    case KITHI_REGION_BLOB1:
    case KITHI_REGION_BLOB2:
    case KITHI_REGION_BLOB3:
    case KITHI_REGION_BLOB4:
    case KITHI_REGION_BLOB5:
    case KITHI_REGION_BLOB6:
    case KITHI_REGION_BLOB7:
        return (uint64_t)ix->blob_used[kithi_region_blob_class(region)] * l->unit[region];
    default: return 0;
    }
}

/* What a group has reserved it must find in the other segment as well; of the id table, of which one area is in use, that one. */
static void renew_wants(struct kithi_enlarge *e)
{
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++) {
        bool ids = r == KITHI_REGION_IDS0 || r == KITHI_REGION_IDS1;
        if (r == KITHI_REGION_DICT || r == KITHI_REGION_POSTINGS)
            continue; /* they are made anew there */
        e->want[r] = kithi_round_up(ids ? used_of(e->ix, r) : e->ix->taken[r], 4096);
    }
}

static uint32_t first_block(const struct kithi_enlarge *e, unsigned region)
{
    return (uint32_t)(e->layout.off[region] / BLOCK);
}

static uint32_t blocks_of(uint64_t bytes)
{
    return (uint32_t)((bytes + BLOCK - 1) / BLOCK);
}

uint64_t kithi_enlarge_bytes(const struct kithi_enlarge *e)
{
    uint64_t bytes = 0;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        bytes += used_of(e->ix, r);
    return bytes;
}

uint64_t kithi_enlarge_copied(const struct kithi_enlarge *e)
{
    return atomic_load_explicit(&e->copied, memory_order_relaxed); /* a figure */
}

bool kithi_enlarge_is_near(const struct kithi_enlarge *e)
{
    return e->near;
}

bool kithi_enlarge_stop(struct kithi_enlarge *e)
{
    if (!e || !e->ix || e->swapped)
        return false;
    atomic_store_explicit(&e->ix->enlarge, NULL, memory_order_relaxed); /* who finds it still may use it */
    return true;
}

void kithi_enlarge_end(struct kithi_enlarge *e)
{
    if (!e)
        return;
    (void)kithi_enlarge_stop(e);
    free((void *)(uintptr_t)e->flags);
    free((void *)(uintptr_t)e->bits);
    free(e->have);
    free(e->regions);
    free(e->list);
    free(e);
}

static bool only_the_ceiling_differs(const struct kithi_geometry *a, const struct kithi_geometry *b)
{
    struct kithi_geometry same = *a;
    same.slot_max = b->slot_max;
    return a->slot_max < b->slot_max && memcmp(&same, b, sizeof same) == 0;
}

int kithi_enlarge_new(const struct kithi_geometry *from, struct kithi_index *next, struct kithi_enlarge **out,
                      struct kithi_errmsg *err)
{
    KITHI_ASSERT(only_the_ceiling_differs(from, &next->map.geometry) && next->slots_used == 0);
    struct kithi_enlarge *e = calloc(1, sizeof *e);
    if (e) {
        kithi_geometry_layout(from, &e->layout);
        e->next = next;
        e->block_count = (uint32_t)(e->layout.total / BLOCK);
        e->flags = calloc((size_t)e->block_count + 1, sizeof *e->flags);
        e->bits = calloc(((size_t)e->block_count + 1) * BLOCK_WORDS, sizeof *e->bits);
        e->have = calloc((size_t)e->block_count + 1, sizeof *e->have);
        e->regions = calloc((size_t)e->block_count + 1, sizeof *e->regions);
    }
    if (!e || !e->flags || !e->bits || !e->have || !e->regions) {
        kithi_enlarge_end(e);
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    }
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++)
        memset(e->regions + first_block(e, r), (int)r, blocks_of(e->layout.size[r]));
    *out = e;
    return 0;
}

int kithi_enlarge_begin(struct kithi_enlarge *e, struct kithi_index *ix, struct kithi_errmsg *err)
{
    KITHI_ASSERT(ix->map.layout.sum == e->layout.sum && !kithi_index_census_due(ix));
    KITHI_ASSERT(!atomic_load_explicit(&ix->enlarge, memory_order_relaxed));
    e->ix = ix;
    e->base = ix->map.base;
    renew_wants(e);
    uint64_t bytes = 0;
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++)
        bytes += e->want[r] > e->next->taken[r] ? e->want[r] - e->next->taken[r] : 0;
    int rc = KITHI_FAULT("enlarge-no-space")
                 ? kithi_error_set(err, KITHI_E_NO_SPACE, "no room for a larger segment: a test wants it so")
                 : kithi_space_ask(e->next, bytes, err);
    if (rc < 0)
        return rc;
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++) {
        e->first[r] = used_of(ix, r);
        for (uint32_t b = 0; b < blocks_of(e->first[r]); b++)
            atomic_store_explicit(&e->flags[first_block(e, r) + b], WHOLE, memory_order_relaxed);
    }
    /* Release: whoever finds it finds it set up. Jobs that run already need not find it: they end before anything is copied. */
    atomic_store_explicit(&ix->enlarge, e, memory_order_release);
    return 0;
}

/* ---- copying ---- */

/* Bytes of a block that next shall have memory for. */
static uint32_t need_of(const struct kithi_enlarge *e, uint32_t block)
{
    unsigned r = e->regions[block];
    uint64_t from = (uint64_t)(block - first_block(e, r)) * BLOCK;
    uint64_t left = e->want[r] > from ? e->want[r] - from : 0;
    return left < BLOCK ? (uint32_t)left : BLOCK;
}

static bool is_due(const struct kithi_enlarge *e, uint32_t block)
{
    return atomic_load_explicit(&e->flags[block], memory_order_relaxed) != CLEAN ||
           need_of(e, block) > e->have[block];
}

static bool push(struct kithi_enlarge *e, uint32_t block)
{
    if (e->list_count == e->list_capacity) {
        uint32_t capacity = e->list_capacity ? 2 * e->list_capacity : 64;
        uint32_t *list = realloc(e->list, capacity * sizeof *list);
        if (!list)
            return false;
        e->list = list;
        e->list_capacity = capacity;
    }
    e->list[e->list_count++] = block;
    return true;
}

static void end_pass(struct kithi_enlarge *e)
{
    uint64_t copied = kithi_enlarge_copied(e);
    e->at = 0;
    e->passes++;
    /* The first one had all of it to copy. */
    e->near = e->passes > 1 && (copied - e->pass_bytes <= NEAR_BYTES || e->passes >= PASSES_MAX);
    e->pass_bytes = copied;
}

uint32_t kithi_enlarge_collect(struct kithi_enlarge *e, uint32_t most)
{
    e->list_count = 0;
    renew_wants(e);
    for (unsigned again = 0; again < 2 && e->list_count == 0; again++) {
        while (e->at < e->block_count && e->list_count < most) {
            unsigned r = e->regions[e->at];
            uint32_t end = first_block(e, r) + blocks_of(e->layout.size[r]);
            /* Beyond what is taken nothing is stored; a region may have address space for very much more. The area of the id table
             * that is not in use is not wanted. */
            if (r == KITHI_REGION_HEADER || e->at >= first_block(e, r) + blocks_of(e->want[r])) {
                e->at = r == KITHI_REGION_HEADER ? e->at + 1 : end;
                continue;
            }
            if (is_due(e, e->at) && !push(e, e->at))
                return e->list_count; /* what is there will do for now */
            e->at++;
        }
        if (e->at == e->block_count)
            end_pass(e);
    }
    return e->list_count;
}

/* Memory of next for a block, as far as it is wanted. */
static int take_block(struct kithi_enlarge *e, uint32_t block, uint64_t to)
{
    uint32_t need = need_of(e, block), have = e->have[block];
    if (need <= have)
        return 0;
    int rc = need == BLOCK && have == 0 ? kithi_pages_fill(e->next, to)
                                        : kithi_space_fill(e->next, to + have, need - have);
    if (rc < 0)
        atomic_store_explicit(&e->short_of, need - have, memory_order_relaxed);
    else
        e->have[block] = need;
    return rc;
}

/* What is copied from here on is at least as new as the stores that the bits stand for. */
static uint64_t take_bits(struct kithi_enlarge *e, size_t word)
{
    return atomic_load_explicit(&e->bits[word], memory_order_seq_cst)
               ? atomic_exchange_explicit(&e->bits[word], 0, memory_order_seq_cst)
               : 0;
}

static uint64_t below(uint64_t grains)
{
    return grains >= WORD_GRAINS ? UINT64_MAX : (UINT64_C(1) << grains) - 1;
}

/* Grains [from, to) of a block. Whoever stores there now will say so. */
static void copy_run(struct kithi_enlarge *e, const unsigned char *from, unsigned char *to, uint32_t first,
                     uint32_t end)
{
    size_t off = (size_t)first * GRAIN, len = (size_t)(end - first) * GRAIN;
    kithi_slot_load(to + off, from + off, len);
    atomic_fetch_add_explicit(&e->copied, len, memory_order_relaxed);
}

static void copy_block(struct kithi_enlarge *e, uint32_t block, unsigned char *to)
{
    unsigned r = e->regions[block];
    uint64_t at = (uint64_t)(block - first_block(e, r)) * BLOCK;
    const unsigned char *from = e->base + (uint64_t)block * BLOCK;
    uint32_t room = e->have[block] / GRAIN, whole = 0, run = UINT32_MAX;
    bool more = false;
    /* [P16 copied] The flag first, then the bits: a bit that is set behind our back brings its flag again (seq_cst). Other half:
     * kithi_enlarge_note(). */
    if (atomic_exchange_explicit(&e->flags[block], CLEAN, memory_order_seq_cst) == WHOLE) {
        uint64_t bytes = e->first[r] > at ? e->first[r] - at : 0;
        whole = (uint32_t)(kithi_round_up(bytes < BLOCK ? bytes : BLOCK, GRAIN) / GRAIN);
    }
    for (uint32_t i = 0; i < BLOCK_WORDS; i++) {
        uint32_t first = i * WORD_GRAINS;
        uint64_t word = take_bits(e, (size_t)block * BLOCK_WORDS + i);
        word |= below(whole > first ? whole - first : 0);
        uint64_t can = below(room > first ? room - first : 0);
        if (word & ~can) {
            /* Of what has no memory here yet: another time. */
            atomic_fetch_or_explicit(&e->bits[(size_t)block * BLOCK_WORDS + i], word & ~can,
                                     memory_order_release);
            more = true;
        }
        word &= can;
        for (uint32_t grain = 0; grain < WORD_GRAINS; grain++) {
            if (word == UINT64_MAX && run != UINT32_MAX)
                break; /* the run goes on */
            if (word == 0 && run == UINT32_MAX)
                break;
            bool set = word >> grain & 1;
            if (set && run == UINT32_MAX) {
                run = first + grain;
            } else if (!set && run != UINT32_MAX) {
                copy_run(e, from, to, run, first + grain);
                run = UINT32_MAX;
            }
        }
    }
    if (run != UINT32_MAX)
        copy_run(e, from, to, run, BLOCK / GRAIN);
    if (more)
        atomic_store_explicit(&e->flags[block], DIRTY, memory_order_release);
}

static int copy_one(struct kithi_enlarge *e, uint32_t block)
{
    unsigned r = e->regions[block];
    uint64_t to = e->next->map.layout.off[r] + (uint64_t)(block - first_block(e, r)) * BLOCK;
    int rc = take_block(e, block, to);
    if (rc == 0)
        copy_block(e, block, e->next->map.base + to);
    return rc;
}

void kithi_enlarge_job(struct kithi_enlarge *e, uint32_t i)
{
    int none = 0, rc = atomic_load(&e->status) ? 0 : copy_one(e, e->list[i]);
    if (rc < 0)
        (void)atomic_compare_exchange_strong(&e->status, &none, rc);
    KITHI_FAULT_CRASH("crash-in-enlarge");
}

int kithi_enlarge_collected(struct kithi_enlarge *e, struct kithi_errmsg *err)
{
    int rc = atomic_load(&e->status);
    if (rc == 0)
        return 0;
    return kithi_error_set(err, rc == -ENOSPC || rc == -ENOMEM ? KITHI_E_NO_SPACE : rc,
                           "cannot take %llu KiB for a larger segment, %llu KiB of %llu being copied: %s",
                           (unsigned long long)atomic_load(&e->short_of) >> 10,
                           (unsigned long long)kithi_enlarge_copied(e) >> 10,
                           (unsigned long long)kithi_enlarge_bytes(e) >> 10, kithi_error_text(rc));
}

/* ---- the moment ---- */

/* In builds that are tested: whether some store was not told of. */
static bool is_same(const struct kithi_enlarge *e)
{
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++) {
        uint64_t bytes = used_of(e->ix, r);
        if (bytes &&
            memcmp(e->base + e->layout.off[r], e->next->map.base + e->next->map.layout.off[r], bytes) != 0)
            return false;
    }
    return true;
}

static void copy_header(const struct kithi_enlarge *e)
{
    const unsigned char *from = (const unsigned char *)e->ix->header;
    struct kithi_header *h = e->next->header;
    unsigned char *to = (unsigned char *)h;
    memcpy(to + HEADER_FROM, from + HEADER_FROM, HEADER_TAKEN - HEADER_FROM);
    memcpy(to + HEADER_REST, from + HEADER_REST, KITHI_HEADER_SIZE - HEADER_REST);
    /* [P19 postings] There are none yet. Relaxed, here and below: nobody reads this segment before it has its name. */
    uint64_t postings = atomic_load_explicit(&h->postings, memory_order_relaxed);
    atomic_store_explicit(&h->postings, kithi_postings_pack(kithi_postings_generation(postings), 0, false),
                          memory_order_relaxed);
    atomic_store_explicit(&h->tally_huge, 0, memory_order_relaxed);
    atomic_store_explicit(&h->tally_huge_wanted, 0, memory_order_relaxed);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) /* nothing is filled ahead here */
        atomic_store_explicit(&kithi_header_ledger(h)->ahead[r], 0, memory_order_relaxed);
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++) {
        uint64_t size = e->next->map.layout.size[r], taken = e->want[r] < size ? e->want[r] : size;
        if (taken < e->next->taken[r])
            continue; /* an area of the id table that is not in use: what it was made with */
        e->next->taken[r] = taken;
        atomic_store_explicit(&h->taken[r], taken, memory_order_relaxed);
    }
}

int kithi_enlarge_finish(struct kithi_enlarge *e, struct kithi_errmsg *err)
{
    int rc = 0;
    e->at = 0;
    while (rc == 0 && kithi_enlarge_collect(e, e->block_count))
        for (uint32_t i = 0; i < e->list_count && rc == 0; i++) {
            rc = copy_one(e, e->list[i]);
            if (rc < 0)
                atomic_store(&e->status, rc);
        }
    if (rc < 0)
        return kithi_enlarge_collected(e, err);
    copy_header(e);
    KITHI_DEBUG_ASSERT(is_same(e));
    return 0;
}

void kithi_enlarge_swap(struct kithi_enlarge *e)
{
    struct kithi_index *ix = e->ix, *next = e->next;
    KITHI_ASSERT(!ix->sweep.running && !ix->audit.open);
#define SWAP(type, field)                                                                                    \
    do {                                                                                                     \
        type one = ix->field;                                                                                \
        ix->field = next->field;                                                                             \
        next->field = one;                                                                                   \
    } while (0)
    SWAP(struct kithi_map, map);
    SWAP(struct kithi_header *, header);
    SWAP(int, fd);
    SWAP(pthread_mutex_t *, locks); /* nobody holds any, and a larger collection has use for more */
    SWAP(uint32_t, lock_count);
#undef SWAP
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        ix->taken[r] = next->taken[r];
    atomic_store_explicit(&ix->enlarge, NULL, memory_order_relaxed);
    e->swapped = true;
    ix->imaged = false;
    memset(&ix->pages, 0, sizeof ix->pages); /* of another file, which is asked for anew */
    kithi_audit_end(ix);
    kithi_postings_restart(ix);
    kithi_view_begin(&ix->map, &ix->view);
}
