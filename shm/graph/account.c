/*
 * account.c - see account.h.
 *
 * Each part of a region is carved from what the parts before it have left, so that no word can make the sum wrong.
 */
#include "shm/graph/account.h"

#include "shm/base/bytes.h"
#include "shm/layout/ids.h"
#include "shm/layout/notes.h"
#include "shm/layout/postings.h"

/* Relaxed: for people, each by itself. */
static uint64_t word(const _Atomic uint64_t *w)
{
    return atomic_load_explicit(w, memory_order_relaxed);
}

static uint32_t half_word(const _Atomic uint32_t *w)
{
    return atomic_load_explicit(w, memory_order_relaxed);
}

static uint64_t carve(uint64_t *left, uint64_t want)
{
    uint64_t is = want < *left ? want : *left;
    *left -= is;
    return is;
}

/* Things of one kind, by the state of who holds them. */
struct counts {
    uint64_t live, dead, resting, pending, free;
};

/* live, dead, resting and free of used things; the others are pending. */
static struct counts count(uint64_t used, uint64_t live, uint64_t dead, uint64_t resting, uint64_t free)
{
    struct counts c;
    c.live = carve(&used, live);
    c.dead = carve(&used, dead);
    c.resting = carve(&used, resting);
    c.free = carve(&used, free);
    c.pending = used;
    return c;
}

/* What the things take: numerator bytes for each denominator of them, rounded so that the sum is that of all. */
static void spread(struct kithi_share *s, const struct counts *c, uint64_t numerator, uint64_t denominator)
{
    uint64_t left = s->taken, n = 0, before = 0, to;
    const uint64_t counts[] = { c->live, c->dead, c->resting, c->pending, c->free };
    uint64_t *const bytes[] = { &s->live, &s->dead, &s->resting, &s->pending, &s->free };
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        n += counts[i]; /* each is below 2^32, and so are bytes of a thing */
        to = n * numerator / denominator;
        *bytes[i] = carve(&left, to - before);
        before = to;
    }
    s->slack = left;
}

/* A place leads to a living vector, or is a tombstone or leads to somebody dead, or is empty. */
static void ids(struct kithi_share *s, const struct kithi_header *h, unsigned area)
{
    uint64_t table = word(&h->id_table), left = s->taken;
    if (kithi_ids_area(table) != area || kithi_ids_log2(table) > 40 || table == 0) {
        s->free = left; /* the next rebuild fills it */
        return;
    }
    uint64_t places = UINT64_C(1) << kithi_ids_log2(table), filled = word(&h->tally_ids);
    filled = filled < places ? filled : places;
    uint64_t live = word(&h->live) < filled ? word(&h->live) : filled;
    s->live = carve(&left, live * sizeof(uint64_t));
    s->dead = carve(&left, (filled - live) * sizeof(uint64_t));
    s->free = carve(&left, (places - filled) * sizeof(uint64_t));
    s->slack = left;
}

/* Upper rows or blobs of a class: in_use of them, of those that the next owner is told were used. */
static struct counts held(const struct kithi_ledger *l, const _Atomic uint32_t *by_state, uint64_t in_use,
                          uint64_t used)
{
    uint64_t live = in_use, dead = 0, resting = 0;
    if (half_word(&l->magic) == KITHI_LEDGER_MAGIC) {
        live = half_word(&by_state[KITHI_HELD_LIVE]);
        dead = half_word(&by_state[KITHI_HELD_DEAD]);
        resting = half_word(&by_state[KITHI_HELD_RESTING]);
    }
    used = used > in_use ? used : in_use;
    used = used < UINT32_MAX ? used : UINT32_MAX;
    return count(used, live, dead, resting, used > in_use ? used - in_use : 0);
}

/* Memory beyond what is taken. */
static uint64_t ahead(const struct kithi_ledger *l, unsigned region, const struct kithi_share *s,
                      uint64_t page)
{
    uint64_t end = kithi_round_up(s->taken, page), bytes = end - s->taken;
    if (half_word(&l->magic) != KITHI_LEDGER_MAGIC)
        return bytes;
    uint64_t range = word(&l->ahead[region]), from = kithi_ahead_from(range), to = kithi_ahead_to(range);
    from = from > end ? from : end;
    to = to < s->reserved ? to : s->reserved;
    return to > from ? bytes + to - from : bytes;
}

static void add(struct kithi_share *sum, const struct kithi_share *s)
{
    sum->reserved += s->reserved;
    sum->taken += s->taken;
    sum->live += s->live;
    sum->dead += s->dead;
    sum->resting += s->resting;
    sum->pending += s->pending;
    sum->free += s->free;
    sum->slack += s->slack;
    sum->ahead += s->ahead;
}

void kithi_account_read(const struct kithi_map *map, uint64_t page, struct kithi_account *out)
{
    const struct kithi_layout *layout = &map->layout;
    const struct kithi_header *h = kithi_map_header(map);
    const struct kithi_ledger *l = (const struct kithi_ledger *)(const void *)(map->base + KITHI_LEDGER_OFF);
    const struct kithi_notes *n = (const struct kithi_notes *)(const void *)(map->base + KITHI_NOTES_OFF);
    uint64_t slots = word(&h->slots_used);
    slots = slots < map->geometry.slot_max ? slots : map->geometry.slot_max;
    const struct counts c =
        count(slots, word(&h->live), word(&h->tally_dead), word(&h->tally_resting), word(&h->tally_free));
    *out = (struct kithi_account){ 0 };
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        struct kithi_share *s = &out->regions[r];
        s->reserved = layout->size[r];
        s->taken = word(&h->taken[r]);
        s->taken = s->taken < s->reserved ? s->taken : s->reserved;
        switch (r) {
        case KITHI_REGION_HEADER: s->live = s->taken; break;
        case KITHI_REGION_DOUBT: spread(s, &c, 1, 8); break;
        case KITHI_REGION_UPPER: {
            struct counts rows = held(l, l->upper, word(&h->tally_upper), half_word(&n->upper_used));
            spread(s, &rows, layout->unit[r], 1);
            break;
        }
        case KITHI_REGION_IDS0:
        case KITHI_REGION_IDS1: ids(s, h, r - KITHI_REGION_IDS0); break;
        case KITHI_REGION_BLOB0:
        case KITHI_REGION_BLOB1:
        case KITHI_REGION_BLOB2:
        case KITHI_REGION_BLOB3:
        case KITHI_REGION_BLOB4:
        case KITHI_REGION_BLOB5:
        case KITHI_REGION_BLOB6:
        case KITHI_REGION_BLOB7: {
            unsigned class = kithi_region_blob_class(r);
            struct counts blobs =
                held(l, l->blob[class], word(&h->tally_blob[class]), half_word(&n->blob_used[class]));
            spread(s, &blobs, layout->unit[r], 1);
            break;
        }
        case KITHI_REGION_DICT: s->live = s->taken; break;
        case KITHI_REGION_POSTINGS: {
            uint64_t used = word(&h->tally_cells), resting = word(&h->tally_cells_resting);
            uint64_t unused = word(&h->tally_cells_free), left = s->taken;
            s->free = carve(&left, unused * KITHI_POSTINGS_CELL);
            s->resting = carve(&left, resting * KITHI_POSTINGS_CELL);
            s->live =
                carve(&left, (used > unused + resting ? used - unused - resting : 0) * KITHI_POSTINGS_CELL);
            s->slack = left;
            break;
        }
        default: spread(s, &c, layout->unit[r], 1); break;
        }
        s->ahead = ahead(l, r, s, page);
        add(&out->all, s);
    }
}
