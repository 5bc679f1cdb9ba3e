/*
 * scroll.c - a page of ids out of the id table.
 *
 * An id whose home is h lies at h or behind it: no farther than the next empty place, and never KITHI_IDS_PROBE_MAX places
 * away. So whoever has read from place a to place b has met every id whose home is a or above and below some place that
 * follows from b, the settled ones. What was met is put into order, and of the settled ones a page is made. The table ends
 * where it begins: ids of the last homes may lie at the first places, and belong to the end all the same.
 */
#include "shm/graph/scroll.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/error.h"
#include "shm/base/hash.h"
#include "shm/base/id.h"
#include "shm/graph/lookup.h"
#include "shm/graph/search.h"

/* What a page costs at most, once it has come farther: places of the table, one nanosecond or so each while they are empty; ... */
#define PLACES_MAX 262144u
/* ... of those with an entry, which leads to a record, so many for each id that is asked for, and as many as these. */
#define ENTRIES_EACH 4u
#define ENTRIES_MIN  8192u
/* Versions that are gone back in all, also before it has come farther. */
#define VERSIONS_MAX KITHI_VERSIONS_PAST
/* Vectors asked for ahead of the one that is copied. */
#define AHEAD 4u

struct kithi_scroll_item {
    struct kithi_place place;
    struct kithi_hit hit; /* the id lies in the results */
};

/* A page that is being read. */
struct page {
    const struct kithi_scroll_params *params;
    struct kithi_view view;
    struct kithi_ids_table table;
    struct kithi_scroll_scratch *scratch;
    struct kithi_results *out;
    uint64_t settled; /* ids whose home is below are all met, from the first home on */
    uint32_t left;    /* versions */
    bool exhausted;   /* there were not enough of these */
};

void kithi_scroll_init(struct kithi_scroll_scratch *s)
{
    memset(s, 0, sizeof *s);
}

void kithi_scroll_fini(struct kithi_scroll_scratch *s)
{
    if (!s)
        return;
    free(s->items);
    kithi_scroll_init(s);
}

struct kithi_place kithi_scroll_place(const uint8_t key[16], const char *id, size_t id_len)
{
    /* The second hash has the key with other bits in it: a hash of its own. */
    uint8_t other[16];
    for (unsigned i = 0; i < sizeof other; i++)
        other[i] = key[i] ^ 0x5c;
    return (struct kithi_place){ kithi_hash(key, id, id_len), kithi_hash(other, id, id_len) };
}

static int compare(const struct kithi_place *a, const struct kithi_place *b)
{
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    return a->tie < b->tie ? -1 : a->tie > b->tie;
}

static int compare_items(const void *a, const void *b)
{
    return compare(&((const struct kithi_scroll_item *)a)->place,
                   &((const struct kithi_scroll_item *)b)->place);
}

/* The place behind p; false: p is the last. */
static bool place_behind(const struct kithi_place *p, struct kithi_place *out)
{
    *out = (struct kithi_place){ p->hash + (p->tie == UINT64_MAX), p->tie + 1 };
    return out->hash != 0 || out->tie != 0;
}

/* Note what was met. 0 or -ENOMEM. */
static int add(struct page *p, const struct kithi_place *place, const struct kithi_found *found,
               const char *id, size_t id_len)
{
    struct kithi_scroll_scratch *s = p->scratch;
    if (s->count == s->capacity) {
        uint32_t capacity = s->capacity ? s->capacity * 2 : 64;
        struct kithi_scroll_item *items = realloc(s->items, capacity * sizeof *items);
        if (!items)
            return -ENOMEM;
        s->items = items;
        s->capacity = capacity;
    }
    int rc = kithi_results_add(p->out, NAN, found->slot, found->birth, id, id_len);
    if (rc == 0)
        s->items[s->count++] = (struct kithi_scroll_item){ *place, p->out->hits[p->out->count - 1] };
    return rc;
}

enum { LOOK_ON = 0, LOOK_AGAIN = 1 };

/* Note what was met, if it fulfils the condition. LOOK_ON, LOOK_AGAIN or an error. */
static int take(struct page *p, const struct kithi_place *place, const struct kithi_found *found,
                const char *id, size_t id_len)
{
    if (p->params->condition) {
        int match = kithi_match(&p->view, found->slot, found->birth, p->params->condition);
        if (match != KITHI_MATCH_YES)
            return match == KITHI_MATCH_AGAIN ? LOOK_AGAIN : match;
    }
    return add(p, place, found, id, id_len);
}

/*
 * What an entry at place `at` leads to, if that is an id that belongs there and not before the page, and the view sees it. `at`
 * counts on behind the table's end, where it begins. LOOK_ON, LOOK_AGAIN or an error.
 */
static int look(struct page *p, uint64_t at, uint64_t entry)
{
    const struct kithi_view *v = &p->view;
    uint32_t link = kithi_ids_link(entry);
    if (link - 1u >= v->slot_limit)
        return link - 1u < v->map->geometry.slot_max ? LOOK_AGAIN
                                                     : LOOK_ON; /* it grew after this view began */
    /* Any version has the id; which one is visible is asked then. */
    const struct kithi_record *r = kithi_view_record(v, link - 1);
    char id[KITHI_ID_MAX];
    uint64_t birth = kithi_birth_begin(r);
    size_t len = kithi_view_id(v, link - 1, id);
    if (birth == 0 || !kithi_birth_same(r, birth))
        return LOOK_AGAIN;
    if (len == 0)
        return LOOK_ON;
    struct kithi_place place = kithi_scroll_place(v->map->hash_key, id, len);
    uint64_t home = kithi_ids_home(place.hash, p->table.log2);
    bool is_here = at < p->table.capacity ? home <= at : home > at - p->table.capacity;
    if (!kithi_ids_tag_matches(entry, place.hash) || !is_here || compare(&place, &p->params->from) < 0)
        return LOOK_ON;
    struct kithi_found found;
    switch (kithi_version_seen(v, link - 1, id, len, NULL, &p->left, &found)) {
    case KITHI_VERSION_NONE: return LOOK_ON;
    case KITHI_VERSION_FOUND: return take(p, &place, &found, id, len);
    default: break;
    }
    p->exhausted = p->left == 0;
    return LOOK_AGAIN;
}

/* Items whose home is settled. */
static uint32_t settled_count(const struct page *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->scratch->count; i++)
        n += kithi_ids_home(p->scratch->items[i].place.hash, p->table.log2) < p->settled;
    return n;
}

/* Read places until enough ids are settled, or it has been enough. LOOK_ON, LOOK_AGAIN or -ENOMEM. */
static int gather(struct page *p)
{
    const uint64_t capacity = p->table.capacity, mask = capacity - 1, limit = p->params->limit;
    const uint64_t first = kithi_ids_home(p->params->from.hash, p->table.log2);
    uint64_t entries = 0, count_at = first + KITHI_IDS_PROBE_MAX;
    p->settled = first;
    for (uint64_t at = first; at < capacity + KITHI_IDS_PROBE_MAX; at++) {
        /* [P7 id table] acquire: the record behind an entry is filled before the entry is stored. */
        uint64_t entry = atomic_load_explicit(&p->table.places[at & mask], memory_order_acquire);
        if (entry != 0 && kithi_ids_link(entry) != KITHI_IDS_TOMBSTONE) {
            int rc = look(p, at, entry);
            if (rc == LOOK_AGAIN && p->exhausted && p->settled > first)
                return LOOK_ON; /* with what is settled before this one */
            if (rc != LOOK_ON)
                return rc;
            entries++;
        }
        if (entry == 0)
            p->settled = at + 1;
        else if (at + 2 >= p->settled + KITHI_IDS_PROBE_MAX)
            p->settled = at + 2 - KITHI_IDS_PROBE_MAX;
        if (p->settled >= capacity)
            break;
        if (p->settled == first)
            continue;
        if (p->scratch->count >= limit && (entry == 0 || at >= count_at)) {
            if (settled_count(p) >= limit)
                return LOOK_ON;
            count_at = at + KITHI_IDS_PROBE_MAX;
        }
        if (at - first >= PLACES_MAX + 2 * limit || entries >= ENTRIES_MIN + ENTRIES_EACH * limit)
            return LOOK_ON;
    }
    p->settled = capacity;
    return LOOK_ON;
}

/* The vectors of the page's first n. LOOK_ON, or LOOK_AGAIN: one was refilled. */
static int copy_vectors(const struct page *p, uint32_t n)
{
    const struct kithi_view *v = &p->view;
    const struct kithi_hit *hits = p->out->hits;
    for (uint32_t i = 0; p->params->vectors && i < n; i++) {
        if (i + AHEAD < n)
            KITHI_PREFETCH(kithi_view_vector(v, hits[i + AHEAD].slot));
        kithi_view_vector_given(v, hits[i].slot, p->params->vectors + (size_t)i * v->map->geometry.dim);
        if (!kithi_birth_same(kithi_view_record(v, hits[i].slot), hits[i].birth))
            return LOOK_AGAIN;
    }
    return LOOK_ON;
}

/* Make the page of what was gathered, and say where the next one begins. As copy_vectors(). */
static int deal(struct page *p)
{
    struct kithi_scroll_scratch *s = p->scratch;
    uint32_t ready = settled_count(p), n = ready < p->params->limit ? ready : p->params->limit;
    if (s->count)
        qsort(s->items, s->count, sizeof *s->items, compare_items); /* the settled ones come first then */
    for (uint32_t i = 0; i < n; i++)
        p->out->hits[i] = s->items[i].hit;
    p->out->count = n;
    if (n < ready) {
        s->more = place_behind(&s->items[n - 1].place, &s->next);
    } else {
        s->more = p->settled < p->table.capacity;
        s->next = (struct kithi_place){ s->more ? p->settled << (64 - p->table.log2) : 0, 0 };
    }
    return copy_vectors(p, n);
}

int kithi_scroll(const struct kithi_map *map, const struct kithi_scroll_params *params,
                 struct kithi_scroll_scratch *s, struct kithi_results *out)
{
    struct page p = { .params = params, .scratch = s, .out = out };
    memset(&out->stats, 0, sizeof out->stats);
    for (uint32_t attempt = 0; attempt <= KITHI_RESTART_MAX; attempt++) {
        kithi_results_clear(out);
        s->count = 0;
        s->more = p.exhausted = false;
        p.left = VERSIONS_MAX;
        int rc = kithi_view_begin_at(map, &params->at, &p.view);
        if (rc < 0)
            return rc;
        if (kithi_view_lost(&p.view, true))
            return KITHI_E_STALE;
        out->stats.epoch = p.view.epoch;
        out->stats.restart_count = attempt;
        uint64_t word = atomic_load_explicit(&p.view.header->id_table, memory_order_acquire);
        int is_there = kithi_view_ids(&p.view, word, &p.table);
        rc = is_there < 0 ? LOOK_AGAIN : is_there > 0 ? gather(&p) : LOOK_ON;
        if (is_there > 0 && rc == LOOK_ON)
            rc = deal(&p);
        if (rc < 0)
            goto failed;
        if (kithi_view_moved(&p.view)) {
            rc = KITHI_E_MOVED;
            goto failed;
        }
        /* As of a look-up: an id that was not met was not there, if no finder was taken away or moved meanwhile. */
        bool unlinked = kithi_view_unlinked(&p.view);
        bool rebuilt = atomic_load_explicit(&p.view.header->id_table, memory_order_relaxed) != word;
        if (rc == LOOK_ON && !unlinked && !rebuilt)
            return (int)out->count;
        if (unlinked && p.view.pinned)
            break; /* and stays so */
        continue;
    failed:
        kithi_results_clear(out);
        return rc;
    }
    kithi_results_clear(out);
    s->more = false;
    return KITHI_E_STALE;
}
