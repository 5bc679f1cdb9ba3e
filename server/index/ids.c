/*
 * ids.c - the writer's half of the id table. See shm/layout/ids.h for the form.
 *
 * Only the owner stores here. An entry changes by one store, so a reader finds the old version
 * or the new one; a rebuild fills the area that no reader uses and switches by one store.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/hash.h"
#include "shm/base/id.h"

/* Rebuild before more than 3/5 of the places are filled. */
#define FILL_NUM 3u
#define FILL_DEN 5u

struct table {
    _Atomic uint64_t *places;
    uint64_t capacity;
    unsigned log2;
};

static struct table table_of(const struct kithi_index *ix, uint64_t word)
{
    unsigned log2 = kithi_ids_log2(word);
    return (struct table){
        .places = (_Atomic uint64_t *)(void *)(ix->map.base +
                                               ix->map.layout.off[KITHI_REGION_IDS0 + kithi_ids_area(word)]),
        .capacity = UINT64_C(1) << log2,
        .log2 = log2,
    };
}

static struct table table_now(const struct kithi_index *ix)
{
    return table_of(ix, atomic_load_explicit(&ix->header->id_table, memory_order_relaxed));
}

uint64_t kithi_ids_hash(const struct kithi_index *ix, const char *id, size_t len)
{
    return kithi_hash(ix->map.hash_key, id, len);
}

static bool slot_has_id(const struct kithi_index *ix, uint32_t slot, const char *id, size_t len)
{
    char have[KITHI_ID_MAX];
    return slot < ix->slots_used && kithi_view_id(&ix->view, slot, have) == len && memcmp(have, id, len) == 0;
}

/* ---- claims: what the groups under way will put, and where ---- */

static uint32_t claim_home(const struct kithi_group *g, uint32_t place)
{
    return (place * 2654435769u) >> 7 & g->claims_mask;
}

static bool has_claimed(const struct kithi_group *g, uint32_t place)
{
    if (!g->claims)
        return false;
    for (uint32_t at = claim_home(g, place); g->claims[at]; at = (at + 1) & g->claims_mask)
        if (g->claims[at] == place + 1)
            return true;
    return false;
}

static bool is_claimed(const struct kithi_index *ix, uint32_t place)
{
    for (uint32_t i = 0; i <= ix->sealed; i++)
        if (has_claimed(kithi_group_at(ix, i), place))
            return true;
    return false;
}

static void add_claim(struct kithi_group *g, uint32_t place)
{
    uint32_t at = claim_home(g, place);
    while (g->claims[at])
        at = (at + 1) & g->claims_mask;
    g->claims[at] = place + 1;
    g->claimed.items[g->claimed.count++] = place;
}

void kithi_ids_claims_rewind(struct kithi_group *g, uint32_t count)
{
    /* The last comes first: whoever it had to go round still stands, so the way to it is whole. */
    for (uint32_t i = g->claimed.count; i-- > count;) {
        uint32_t at = claim_home(g, g->claimed.items[i]);
        while (g->claims[at] != g->claimed.items[i] + 1)
            at = (at + 1) & g->claims_mask;
        g->claims[at] = 0;
    }
    g->claimed.count = count;
}

int kithi_ids_claims_reserve(struct kithi_group *g, uint32_t more)
{
    int rc = kithi_stack_reserve(&g->claimed, more);
    uint32_t room = g->claims ? g->claims_mask + 1 : 0, want = room ? room : 64;
    while (want < 2 * (g->claimed.count + more))
        want *= 2;
    if (rc < 0 || want == room)
        return rc;
    uint32_t *p = calloc(want, sizeof *p);
    if (!p)
        return -ENOMEM;
    free(g->claims);
    g->claims = p;
    g->claims_mask = want - 1;
    uint32_t count = g->claimed.count;
    g->claimed.count = 0;
    for (uint32_t i = 0; i < count; i++)
        add_claim(g, g->claimed.items[i]);
    return 0;
}

/* Place of the entry of id, or of the first one that may take it: empty or a tombstone, and not claimed. */
static uint64_t probe(const struct kithi_index *ix, const struct table *t, uint64_t hash, const char *id,
                      size_t len, bool *out_found)
{
    uint64_t at = kithi_ids_home(hash, t->log2), usable = UINT64_MAX;
    *out_found = false;
    for (uint32_t n = 0; n < KITHI_IDS_PROBE_MAX && n < t->capacity; n++, at = (at + 1) & (t->capacity - 1)) {
        uint64_t entry = atomic_load_explicit(&t->places[at], memory_order_relaxed);
        uint32_t link = kithi_ids_link(entry);
        if (entry == 0 || link == KITHI_IDS_TOMBSTONE) {
            if (usable == UINT64_MAX && !is_claimed(ix, (uint32_t)at))
                usable = at;
            if (entry == 0 && usable != UINT64_MAX)
                return usable;
        } else if (kithi_ids_tag_matches(entry, hash) && slot_has_id(ix, link - 1, id, len)) {
            *out_found = true;
            return at;
        }
    }
    return usable;
}

/* For the number-th group, whose predecessors have their claims. */
static uint32_t claim_in(struct kithi_index *ix, uint32_t number, const struct table *t, uint64_t hash,
                         const char *id, uint32_t id_len)
{
    struct kithi_group *g = kithi_group_at(ix, number);
    const struct touched *last;
    const struct insertion *before = kithi_group_version(ix, number, hash, id, id_len, &last);
    bool found;
    uint64_t at = before ? before->place : probe(ix, t, hash, id, id_len, &found);
    if (at == UINT64_MAX)
        return UINT32_MAX;
    if (!has_claimed(g, (uint32_t)at))
        add_claim(g, (uint32_t)at);
    return (uint32_t)at;
}

uint32_t kithi_ids_claim(struct kithi_index *ix, uint64_t hash, const char *id, uint32_t len)
{
    struct table t = table_now(ix);
    return claim_in(ix, ix->sealed, &t, hash, id, len);
}

/* The claims of all groups, in a table that will take the place of this one. */
static bool claim_anew(struct kithi_index *ix, const struct table *to)
{
    for (uint32_t n = 0; n <= ix->sealed; n++)
        kithi_ids_claims_rewind(kithi_group_at(ix, n), 0);
    for (uint32_t n = 0; n <= ix->sealed; n++) {
        const struct kithi_group *g = kithi_group_at(ix, n);
        for (uint32_t i = 0; i < g->insertion_count; i++) {
            struct insertion *in = &g->insertions[i];
            if (in->superseded)
                continue;
            in->place = claim_in(ix, n, to, in->hash, in->id, in->id_len);
            if (in->place == UINT32_MAX)
                return false;
        }
    }
    return true;
}

/* ---- looking up, growing, putting ---- */

uint32_t kithi_ids_find(const struct kithi_index *ix, uint64_t hash, const char *id, size_t len)
{
    struct table t = table_now(ix);
    bool found;
    uint64_t at = probe(ix, &t, hash, id, len, &found);
    return found ? kithi_ids_link(atomic_load_explicit(&t.places[at], memory_order_relaxed)) : 0;
}

/* Copy every entry that leads somewhere; false when a probe would be too long. */
static bool refill(struct kithi_index *ix, const struct table *from, const struct table *to,
                   uint32_t *out_filled)
{
    uint32_t filled = 0;
    char id[KITHI_ID_MAX];
    for (uint64_t i = 0; i < to->capacity; i++)
        atomic_store_explicit(&to->places[i], 0, memory_order_relaxed);
    for (uint64_t i = 0; i < from->capacity; i++) {
        uint64_t entry = atomic_load_explicit(&from->places[i], memory_order_relaxed);
        uint32_t link = kithi_ids_link(entry);
        if (entry == 0 || link == KITHI_IDS_TOMBSTONE || link - 1u >= ix->slots_used)
            continue;
        size_t len = kithi_view_id(&ix->view, link - 1, id);
        if (len == 0)
            continue;
        uint64_t at = kithi_ids_home(kithi_ids_hash(ix, id, len), to->log2);
        uint32_t n = 0;
        for (; atomic_load_explicit(&to->places[at], memory_order_relaxed);
             at = (at + 1) & (to->capacity - 1))
            if (++n > KITHI_IDS_PROBE_MAX / 2)
                return false;
        atomic_store_explicit(&to->places[at], entry, memory_order_relaxed);
        filled++;
        KITHI_FAULT_CRASH("crash-in-rebuild");
    }
    *out_filled = filled;
    return true;
}

static bool roomy(uint64_t filled, uint64_t capacity)
{
    return filled * FILL_DEN <= capacity * FILL_NUM;
}

int kithi_ids_reserve(struct kithi_index *ix, uint32_t more, struct kithi_errmsg *err)
{
    struct table now = table_now(ix);
    if (roomy((uint64_t)ix->ids_filled + more, now.capacity))
        return 0;

    /* Entries that lead somewhere are at most as many as slots in use; tombstones go. */
    uint64_t word = atomic_load_explicit(&ix->header->id_table, memory_order_relaxed);
    uint64_t live = ix->slots_used - ix->slots_free.count;
    if (live > ix->ids_filled)
        live = ix->ids_filled;
    unsigned log2 = KITHI_IDS_CAPACITY_MIN_LOG2;
    /* Half full at most after the rebuild, so that rebuilds are rare. */
    while ((UINT64_C(1) << log2) < ix->map.layout.id_capacity_max &&
           2 * (live + more) > (UINT64_C(1) << log2))
        log2++;
    for (;; log2++) {
        unsigned area = 1 - kithi_ids_area(word);
        int rc = 0;
        if ((UINT64_C(1) << log2) > ix->map.layout.id_capacity_max)
            rc = kithi_error_set(err, KITHI_E_FULL, "the id table is at its ceiling of %u places",
                                 ix->map.layout.id_capacity_max);
        else
            rc = kithi_space_reserve(ix, KITHI_REGION_IDS0 + area, UINT64_C(1) << log2, err);
        if (rc < 0) {
            (void)claim_anew(ix, &now); /* they had room here */
            return rc;
        }
        uint64_t next = kithi_ids_word(area, log2, kithi_ids_rebuilds(word) + 1);
        struct table to = table_of(ix, next);
        /* [P7 id table] release: a reader that still uses this area from two tables ago, and sees a
         * place being refilled, sees that the word has changed since. */
        atomic_thread_fence(memory_order_release);
        uint32_t filled;
        if (!refill(ix, &now, &to, &filled) || !claim_anew(ix, &to))
            continue;
        /* [P7 id table] release: the table is whole before the word leads to it. Other half: kithi_lookup(). */
        atomic_store_explicit(&ix->header->id_table, next, memory_order_release);
        ix->ids_filled = filled; /* no more than before: the note of that stands until now */
        kithi_note_ids(ix, 0);
        kithi_census_table_anew(ix);
        return 0;
    }
}

void kithi_ids_claims_bury(struct kithi_index *ix, const struct kithi_group *g)
{
    struct table t = table_now(ix);
    kithi_note_ids(ix, g->claimed.count);
    for (uint32_t i = 0; i < g->claimed.count; i++) {
        _Atomic uint64_t *place = &t.places[g->claimed.items[i]];
        if (atomic_load_explicit(place, memory_order_relaxed) != 0)
            continue;
        /* Release: how full the table is was noted before. */
        atomic_store_explicit(place, kithi_ids_entry(0, KITHI_IDS_TOMBSTONE), memory_order_release);
        ix->ids_filled++;
        kithi_census_place_filled(ix, g->claimed.items[i]);
    }
}

void kithi_ids_put(struct kithi_index *ix, uint32_t place, uint64_t hash, uint32_t slot)
{
    struct table t = table_now(ix);
    /* [P7 id table] release: the version it leads to is born before. Other half: kithi_lookup(). */
    atomic_store_explicit(&t.places[place], kithi_ids_entry(hash, slot + 1), memory_order_release);
}

void kithi_ids_redirect(struct kithi_index *ix, uint32_t slot, uint32_t link)
{
    char id[KITHI_ID_MAX];
    size_t len = kithi_view_id(&ix->view, slot, id);
    if (len == 0)
        return;
    uint64_t hash = kithi_ids_hash(ix, id, len);
    struct table t = table_now(ix);
    uint64_t at = kithi_ids_home(hash, t.log2);
    for (uint32_t n = 0; n < KITHI_IDS_PROBE_MAX && n < t.capacity; n++, at = (at + 1) & (t.capacity - 1)) {
        uint64_t entry = atomic_load_explicit(&t.places[at], memory_order_relaxed);
        if (entry == 0)
            return;
        if (entry != kithi_ids_entry(hash, slot + 1))
            continue;
        atomic_store_explicit(&t.places[at], kithi_ids_entry(hash, link ? link : KITHI_IDS_TOMBSTONE),
                              memory_order_release);
        return;
    }
}

int kithi_ids_fill(struct kithi_index *ix, const _Atomic bool *stop, struct kithi_errmsg *err)
{
    char id[KITHI_ID_MAX];
    int rc = kithi_ids_reserve(ix, (uint32_t)ix->live, err);
    if (rc < 0)
        return rc;
    struct table t = table_now(ix);
    for (uint32_t slot = 0; slot < ix->slots_used; slot++) {
        if (kithi_stop_seen(stop, slot))
            return kithi_error_set(err, -ECANCELED, "told to stop");
        if (!atomic_load_explicit(&kithi_view_record(&ix->view, slot)->birth, memory_order_relaxed))
            continue;
        bool found;
        size_t len = kithi_view_id(&ix->view, slot, id);
        uint64_t hash = kithi_ids_hash(ix, id, len), at = probe(ix, &t, hash, id, len, &found);
        if (len == 0 || found || at == UINT64_MAX)
            return kithi_error_set(err, KITHI_E_CORRUPT, "the id of slot %u %s", slot,
                                   found ? "is that of another slot, too" : "cannot be");
        atomic_store_explicit(&t.places[at], kithi_ids_entry(hash, slot + 1), memory_order_relaxed);
        ix->ids_filled++;
    }
    return 0;
}

int kithi_ids_check(const struct kithi_index *ix, struct kithi_errmsg *err)
{
    uint64_t word = atomic_load_explicit(&ix->header->id_table, memory_order_relaxed);
    unsigned area = kithi_ids_area(word), log2 = kithi_ids_log2(word);
    if (word == 0 || area > 1 || log2 < KITHI_IDS_CAPACITY_MIN_LOG2 || log2 > 30 ||
        (UINT64_C(8) << log2) > ix->taken[KITHI_REGION_IDS0 + area])
        return kithi_error_set(err, KITHI_E_CORRUPT, "the id table word %016llx leads nowhere",
                               (unsigned long long)word);
    return 0;
}

uint64_t kithi_ids_capacity(const struct kithi_index *ix)
{
    return table_now(ix).capacity;
}

bool kithi_ids_is_filled(const struct kithi_index *ix, uint64_t place)
{
    return atomic_load_explicit(&table_now(ix).places[place], memory_order_relaxed) != 0;
}
