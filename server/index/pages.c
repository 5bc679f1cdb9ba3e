/*
 * pages.c - huge pages behind the segment, block by block, once all of a block is taken.
 *
 * A search reads rows and vectors all over the segment; through pages of 4 KiB most reads miss the TLB, too.
 * The kernel is asked for each block of 2 MiB by itself, at the writer's mapping; readers' mappings follow by
 * themselves, since the page belongs to the file and lies on a boundary in every mapping (kithi_map_file()).
 * Small pages that a reader has mapped are unmapped meanwhile and found again at the next touch: it may
 * wait, it never sees other bytes.
 *
 * A block is asked for when it is taken to its end: the kernel fills holes of what it collapses, which
 * would be memory that nobody accounts for. That of an adopted segment is asked for after the start. It is all a favour: where
 * the kernel refuses (no free huge page, too old, not permitted), everything works, and it is asked again later.
 *
 * Small pages that are in use already are copied, and looked for again by whoever used them: of building
 * fashion-mnist, that took an eighth of the CPU time. So while a large region grows, the blocks of its next step are
 * filled before they are taken, by a page that is cleared once; at most a step of each region, where there is plenty of room.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/bytes.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define BLOCK KITHI_REGION_ALIGN
/* After so many refusals without a success between them the rest of a pass is not tried. */
#define REFUSALS_MAX 3u
/* The next pass is then due after a delay that doubles until a pass is complete. */
#define DELAY_MS_MIN   1000u
#define DELAY_MS_MAX   600000u
#define AHEAD_AGAIN_MS 10000u

/* What searches read. Long ids are left out: one is read for a hit, not for a neighbour. */
static bool is_searched(unsigned region)
{
    switch (region) {
    case KITHI_REGION_RECORDS:
    case KITHI_REGION_ROWS:
    case KITHI_REGION_VECTORS:
    case KITHI_REGION_DOUBT:
    case KITHI_REGION_UPPER:
    case KITHI_REGION_IDS0:
    case KITHI_REGION_IDS1:
    case KITHI_REGION_CODES: return true;
    default: return false;
    }
}

/* Bytes of whole blocks that a region has memory for. */
static uint64_t wanted_of(const struct kithi_index *ix, unsigned region)
{
    return is_searched(region) ? ix->taken[region] / BLOCK * BLOCK : 0;
}

static void set_tally(_Atomic uint64_t *tally, uint64_t value)
{
    /* Relaxed: for people; nothing relies on it. Readers have its line, so it is left alone when it can be. */
    if (atomic_load_explicit(tally, memory_order_relaxed) != value)
        atomic_store_explicit(tally, value, memory_order_relaxed);
}

static bool is_inserting(const struct kithi_index *ix)
{
    for (uint32_t i = 0; i <= ix->sealed; i++)
        if (kithi_group_at(ix, i)->insertion_count)
            return true;
    return false;
}

/* Kept vectors that the walk does not read are touched for hits only: they wait until nothing is inserted. */
static bool can_wait(const struct kithi_index *ix, unsigned region)
{
    const struct kithi_geometry *g = &ix->map.geometry;
    return region == KITHI_REGION_VECTORS && kithi_geometry_kept(g) != kithi_geometry_walked(g) &&
           is_inserting(ix);
}

/* Nothing is filled ahead for a while; what was not filled is asked for once it is taken. */
static void ahead_refuse(struct kithi_index *ix, uint64_t now_ms)
{
    struct pages *p = &ix->pages;
    p->ahead_count = 0;
    p->ahead_again_ms = now_ms + AHEAD_AGAIN_MS;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        p->ahead[r] = p->filled[r];
}

uint64_t kithi_pages_filled(const struct kithi_index *ix, unsigned region, uint64_t from, uint64_t to)
{
    uint64_t begin = kithi_round_up(from, 4096), end = ix->pages.filled[region];
    begin = begin > ix->pages.filled_from[region] ? begin : ix->pages.filled_from[region];
    end = end < to ? end : to;
    return end > begin ? end - begin : 0;
}

/* Where the whole blocks of a region's next step end: regions that grow by less than a block have none. */
static uint64_t step_end(const struct kithi_index *ix, unsigned region)
{
    uint64_t taken = ix->taken[region], end = taken + kithi_space_step(taken);
    bool by_steps = is_searched(region) && region != KITHI_REGION_IDS0 && region != KITHI_REGION_IDS1;
    if (!by_steps || kithi_space_step(taken) < BLOCK)
        return 0;
    return (end < ix->map.layout.size[region] ? end : ix->map.layout.size[region]) / BLOCK * BLOCK;
}

/* The blocks of the next steps that are not filled, of regions that have grown, while there are insertions and room for
 * many more. */
static void collect_ahead(struct kithi_index *ix, uint64_t now_ms)
{
    struct pages *p = &ix->pages;
    p->ahead_count = 0;
    if (!is_inserting(ix) || now_ms < p->ahead_again_ms)
        return;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        uint64_t begin = kithi_round_up(ix->taken[r], BLOCK), end = step_end(ix, r);
        if (p->taken_first[r] == 0)
            p->taken_first[r] = ix->taken[r];
        if (ix->taken[r] == p->taken_first[r])
            continue;
        if (p->ahead[r] < begin)
            p->ahead[r] = begin;
        while (p->ahead[r] < end && p->ahead_count < PAGES_BATCH) {
            p->ahead_region[p->ahead_count] = (uint8_t)r;
            p->ahead_done[p->ahead_count] = false;
            p->ahead_blocks[p->ahead_count++] = ix->map.layout.off[r] + p->ahead[r];
            p->ahead[r] += BLOCK;
        }
    }
    if (p->ahead_count && !kithi_space_is_plenty(ix))
        ahead_refuse(ix, now_ms);
}

/* The blocks of the next round. */
static uint32_t collect(struct kithi_index *ix)
{
    struct pages *p = &ix->pages;
    p->count = 0;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        if (can_wait(ix, r))
            continue;
        uint64_t end = wanted_of(ix, r);
        while (p->asked[r] < end && p->count < PAGES_BATCH) {
            p->blocks[p->count++] = ix->map.layout.off[r] + p->asked[r];
            p->asked[r] += BLOCK;
        }
    }
    return p->count;
}

static void refuse(struct pages *p, int refusal, uint64_t now_ms)
{
    atomic_store_explicit(&p->refusal, refusal, memory_order_relaxed);
    if (p->incomplete)
        return;
    p->incomplete = true;
    p->delay_ms = p->delay_ms ? p->delay_ms * 2 : DELAY_MS_MIN;
    if (p->delay_ms > DELAY_MS_MAX)
        p->delay_ms = DELAY_MS_MAX;
    p->again_ms = now_ms + p->delay_ms;
}

/* The next pass asks for everything once more: for a block that is huge that costs a microsecond. */
static void start_over(struct pages *p)
{
    p->incomplete = false;
    p->got = 0;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        p->asked[r] = 0;
    atomic_store_explicit(&p->refused_in_a_row, 0, memory_order_relaxed);
}

uint32_t kithi_pages_begin(struct kithi_index *ix, uint64_t now_ms, uint32_t *out_wait_ms)
{
    struct pages *p = &ix->pages;
    uint64_t wanted = 0;
    *out_wait_ms = UINT32_MAX;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        wanted += wanted_of(ix, r);
    set_tally(&ix->header->tally_huge_wanted, wanted);
    if (ix->tuning.small_pages)
        return 0;
    if (p->incomplete && now_ms >= p->again_ms)
        start_over(p);
    bool tired = atomic_load_explicit(&p->refused_in_a_row, memory_order_relaxed) >= REFUSALS_MAX;
    p->count = p->ahead_count = 0;
    if (!tired) {
        collect_ahead(ix, now_ms);
        collect(ix);
    }
    if (p->count + p->ahead_count > 0) {
        /* A block is copied: for a moment it takes its memory twice. */
        if (p->count == 0 || kithi_space_in_limit((uint64_t)p->count * BLOCK))
            return p->count + p->ahead_count;
        atomic_store_explicit(&p->refused_in_a_row, REFUSALS_MAX, memory_order_relaxed);
        refuse(p, -ENOMEM, now_ms);
        ahead_refuse(ix, now_ms); /* its blocks are not filled either, and do not count as if they were */
    }
    if (p->incomplete)
        *out_wait_ms = (uint32_t)(p->again_ms - now_ms);
    return 0;
}

static int collapse(const struct kithi_index *ix, uint64_t off)
{
    if (KITHI_FAULT("collapse-refused"))
        return -ENOMEM;
    /* Kernels that do not collapse at once may do it by and by where they see this. */
    (void)madvise(ix->map.base + off, BLOCK, MADV_HUGEPAGE);
    return madvise(ix->map.base + off, BLOCK, MADV_COLLAPSE) < 0 ? -errno : 0;
}

/* The kernel collapses what has a page, and fills the holes around it: cleared once, in one go. */
static int fill_huge(const struct kithi_index *ix, uint64_t off)
{
    int rc = kithi_space_fill(ix, off, 4096);
    return rc < 0 ? rc : collapse(ix, off);
}

int kithi_pages_fill(const struct kithi_index *ix, uint64_t off)
{
    if (!ix->tuning.small_pages)
        (void)fill_huge(ix, off);
    /* Advice is not a promise, and some emulators and sandboxes take it and do nothing; a full block is soon seen. */
    return kithi_space_fill(ix, off, BLOCK);
}

static void fill_ahead(struct kithi_index *ix, uint32_t i)
{
    struct pages *p = &ix->pages;
    uint64_t off = p->ahead_blocks[i];
    if (atomic_load_explicit(&p->ahead_refused, memory_order_relaxed))
        return;
    /* What is written down as filled has memory, also where a huge page was promised and not given. */
    p->ahead_done[i] = fill_huge(ix, off) == 0 && kithi_space_fill(ix, off, BLOCK) == 0;
    if (!p->ahead_done[i]) /* told when the block's turn comes */
        atomic_store_explicit(&p->ahead_refused, true, memory_order_relaxed);
}

/* Memory of a region between two places that is not taken goes back. The owner: nobody takes it meanwhile. */
static void give_back(const struct kithi_index *ix, unsigned region, uint64_t from, uint64_t to)
{
    uint64_t end = kithi_round_up(ix->map.layout.size[region], 4096), begin;
    begin = kithi_round_up(ix->taken[region], 4096);
    begin = begin > from ? begin : from;
    end = end < to ? end : to;
    if (begin < end)
        (void)fallocate(ix->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)(ix->map.layout.off[region] + begin), (off_t)(end - begin));
}

void kithi_pages_note(struct kithi_index *ix, unsigned region)
{
    const struct pages *p = &ix->pages;
    uint64_t word = 0;
    if (p->filled[region])
        word = kithi_ahead_pack((uint32_t)(p->filled_from[region] / BLOCK),
                                (uint32_t)(p->filled[region] / BLOCK));
    /* Relaxed: for people, and for the next owner, who gives back what lies beyond. */
    atomic_store_explicit(&kithi_header_ledger(ix->header)->ahead[region], word, memory_order_relaxed);
}

void kithi_pages_adopt(struct kithi_index *ix)
{
    const struct kithi_ledger *l = kithi_header_ledger(ix->header);
    struct pages *p = &ix->pages;
    bool kept = atomic_load_explicit(&l->magic, memory_order_acquire) == KITHI_LEDGER_MAGIC;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        uint64_t word = kept ? atomic_load_explicit(&l->ahead[r], memory_order_relaxed) : 0;
        uint64_t from = kithi_ahead_from(word), to = kithi_ahead_to(word);
        if (from >= to || to <= ix->taken[r] || to > ix->map.layout.size[r])
            from = to = 0;
        p->filled_from[r] = from;
        p->filled[r] = p->ahead[r] = to;
        /* It may have died between taking memory and saying so, and then nobody would account for that. */
        give_back(ix, r, 0, to ? from : UINT64_MAX);
        if (to)
            give_back(ix, r, to, UINT64_MAX);
    }
}

/* All jobs of a round have ended: what was filled without a gap counts, and nothing is left of what was not. */
static void end_ahead(struct kithi_index *ix)
{
    struct pages *p = &ix->pages;
    for (uint32_t i = 0; i < p->ahead_count; i++) {
        unsigned r = p->ahead_region[i];
        uint64_t at = p->ahead_blocks[i] - ix->map.layout.off[r];
        if (p->ahead_done[i] && p->filled[r] <= ix->taken[r] && p->filled[r] != at)
            p->filled_from[r] = p->filled[r] = at; /* what was filled before is taken by now */
        if (p->ahead_done[i] && p->filled[r] == at)
            p->filled[r] = at + BLOCK;
        else
            give_back(ix, r, at, at + BLOCK);
        kithi_pages_note(ix, r);
    }
}

void kithi_pages_job(struct kithi_index *ix, uint32_t i)
{
    struct pages *p = &ix->pages;
    if (i < p->ahead_count) {
        fill_ahead(ix, i);
        return;
    }
    i -= p->ahead_count;
    /* Relaxed: figures; whoever runs the jobs sees to it that their end is seen after them. */
    if (atomic_load_explicit(&p->refused_in_a_row, memory_order_relaxed) >= REFUSALS_MAX)
        return;
    int rc = collapse(ix, p->blocks[i]);
    if (rc == 0) {
        atomic_fetch_add_explicit(&p->granted, 1, memory_order_relaxed);
        atomic_store_explicit(&p->refused_in_a_row, 0, memory_order_relaxed);
    } else {
        atomic_store_explicit(&p->refusal, rc, memory_order_relaxed);
        atomic_fetch_add_explicit(&p->refused, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&p->refused_in_a_row, 1, memory_order_relaxed);
    }
}

void kithi_pages_end(struct kithi_index *ix, uint64_t now_ms)
{
    struct pages *p = &ix->pages;
    p->got += (uint64_t)BLOCK * atomic_exchange_explicit(&p->granted, 0, memory_order_relaxed);
    end_ahead(ix);
    if (atomic_exchange_explicit(&p->ahead_refused, false, memory_order_relaxed))
        ahead_refuse(ix, now_ms);
    if (atomic_exchange_explicit(&p->refused, 0, memory_order_relaxed))
        refuse(p, atomic_load_explicit(&p->refusal, memory_order_relaxed), now_ms);

    struct kithi_pages_state s;
    kithi_pages_state(ix, &s);
    bool complete = p->got == s.wanted_bytes;
    if (complete) {
        atomic_store_explicit(&p->refusal, 0, memory_order_relaxed);
        p->delay_ms = 0;
    }
    /* A pass that goes over everything once more begins with nothing, which is no news. */
    if (p->got > s.huge_bytes || complete)
        set_tally(&ix->header->tally_huge, p->got);
}

void kithi_pages_state(const struct kithi_index *ix, struct kithi_pages_state *out)
{
    /* Relaxed: this thread stored them, or saw the end of the jobs that did. */
    out->wanted_bytes = atomic_load_explicit(&ix->header->tally_huge_wanted, memory_order_relaxed);
    out->huge_bytes = atomic_load_explicit(&ix->header->tally_huge, memory_order_relaxed);
    out->refusal = atomic_load_explicit(&ix->pages.refusal, memory_order_relaxed);
}
