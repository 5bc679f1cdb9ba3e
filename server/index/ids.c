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
/*
 * A large table is filled beside the present one by and by, from 11/20 on: for each new id so many places are emptied, and then
 * so many of the present ones gone through, which is done with before 3/5 are filled. A small one is made at once, in a millisecond.
 */
#define BUILD_NUM    11u
#define BUILD_DEN    20u
#define BUILD_LOG2   15u
#define BUILD_EMPTY  512u
#define BUILD_PLACES 32u
#define BUILD_MIN    64u /* new ids that a step is made for at least */

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

/* Into a table that nobody looks into yet. */
static void store_entry(struct kithi_index *ix, _Atomic uint64_t *place, uint64_t entry)
{
    atomic_store_explicit(place, entry, memory_order_relaxed);
    kithi_stored(ix, place, sizeof *place);
}

/* An entry for an id that it has not; false when a probe would be too long. */
static bool add_entry(struct kithi_index *ix, const struct table *to, uint64_t hash, uint64_t entry)
{
    uint64_t at = kithi_ids_home(hash, to->log2);
    for (uint32_t n = 0; atomic_load_explicit(&to->places[at], memory_order_relaxed);
         at = (at + 1) & (to->capacity - 1))
        if (++n > KITHI_IDS_PROBE_MAX / 2)
            return false;
    store_entry(ix, &to->places[at], entry);
    return true;
}

/* Copy entries of places [from_at, end) that lead somewhere; false when a probe would be too long. */
static bool refill(struct kithi_index *ix, const struct table *from, uint64_t from_at, uint64_t end,
                   const struct table *to, uint32_t *filled)
{
    char id[KITHI_ID_MAX];
    for (uint64_t i = from_at; i < end; i++) {
        uint64_t entry = atomic_load_explicit(&from->places[i], memory_order_relaxed);
        uint32_t link = kithi_ids_link(entry);
        if (entry == 0 || link == KITHI_IDS_TOMBSTONE || link - 1u >= ix->slots_used)
            continue;
        size_t len = kithi_view_id(&ix->view, link - 1, id);
        if (len == 0)
            continue;
        if (!add_entry(ix, to, kithi_ids_hash(ix, id, len), entry))
            return false;
        ++*filled;
        KITHI_FAULT_CRASH("crash-in-rebuild");
    }
    return true;
}

/* Places [from, end), that other tables have used. */
static void empty_places(struct kithi_index *ix, const struct table *t, uint64_t from, uint64_t end)
{
    for (uint64_t i = from; i < end; i++)
        atomic_store_explicit(&t->places[i], 0, memory_order_relaxed);
    if (from < end)
        kithi_stored(ix, &t->places[from], (end - from) * sizeof *t->places);
}

static bool roomy(uint64_t filled, uint64_t capacity)
{
    return filled * FILL_DEN <= capacity * FILL_NUM;
}

/* Half full at most after a rebuild for so many ids, so that rebuilds are rare. */
static unsigned log2_for(const struct kithi_index *ix, uint64_t ids)
{
    unsigned log2 = KITHI_IDS_CAPACITY_MIN_LOG2;
    while ((UINT64_C(1) << log2) < ix->map.layout.id_capacity_max && 2 * ids > (UINT64_C(1) << log2))
        log2++;
    return log2;
}

/* Entries that lead somewhere are at most as many as slots in use; tombstones go. */
static uint64_t live_ids(const struct kithi_index *ix)
{
    uint64_t live = ix->slots_used - ix->slots_free.count;
    return live < ix->ids_filled ? live : ix->ids_filled;
}

/* The table that was filled takes the place of the present one. */
static void switch_to(struct kithi_index *ix, uint64_t word, uint32_t filled)
{
    /* [P7 id table] release: the table is whole before the word leads to it. Other half: kithi_lookup(). */
    atomic_store_explicit(&ix->header->id_table, word, memory_order_release);
    ix->ids_filled = filled; /* no more than before: the note of that stands until now */
    ix->ids_build = (struct ids_build){ .word = 0 };
    kithi_note_ids(ix, 0);
    kithi_census_table_anew(ix);
}

/* ---- the next table, by and by ---- */

/*
 * From the beginning to the switch each change of an entry that the next table has already is made in both. Entries that lead
 * somewhere keep their places in the present one, so that what is below `at` is there.
 */

static bool build_begin(struct kithi_index *ix, const struct table *now)
{
    uint64_t word = atomic_load_explicit(&ix->header->id_table, memory_order_relaxed);
    unsigned log2 = log2_for(ix, live_ids(ix) + now->capacity / 16);
    if (log2 < BUILD_LOG2 || (UINT64_C(1) << log2) > ix->map.layout.id_capacity_max ||
        kithi_index_census_due(ix))
        return false;
    ix->ids_build = (struct ids_build){ .word = kithi_ids_word(1 - kithi_ids_area(word), log2,
                                                               kithi_ids_rebuilds(word) + 1) };
    /* [P7 id table] release: a reader that still uses this area from two tables ago, and sees a place being refilled, sees that
     * the word has changed since. */
    atomic_thread_fence(memory_order_release);
    return true;
}

/* A step for so many new ids; false when it comes to nothing, and the next one begins anew. */
static bool build_go_on(struct kithi_index *ix, const struct table *now, uint64_t ids)
{
    struct ids_build *b = &ix->ids_build;
    struct table to = table_of(ix, b->word);
    ids = ids > BUILD_MIN ? ids : BUILD_MIN;
    if (b->zeroed < to.capacity) {
        uint64_t end = b->zeroed + ids * BUILD_EMPTY;
        end = end < to.capacity ? end : to.capacity;
        if (kithi_space_reserve(ix, KITHI_REGION_IDS0 + kithi_ids_area(b->word), end, NULL) < 0) {
            b->word = 0; /* it is said when it has to be made at once */
            return false;
        }
        empty_places(ix, &to, b->zeroed, end);
        b->zeroed = end;
        return true;
    }
    uint64_t end = b->at + ids * BUILD_PLACES;
    end = end < now->capacity ? end : now->capacity;
    bool good = refill(ix, now, b->at, end, &to, &b->filled);
    b->at = end;
    if (!good)
        b->word = 0;
    return good;
}

uint64_t kithi_ids_places(const struct kithi_index *ix, unsigned area)
{
    uint64_t word = atomic_load_explicit(&ix->header->id_table, memory_order_relaxed);
    if (area == kithi_ids_area(word))
        return UINT64_C(1) << kithi_ids_log2(word);
    return ix->ids_build.word ? ix->ids_build.zeroed : 0;
}

/* Has the next table what stands at this place of the present one? */
static bool is_built(const struct kithi_index *ix, uint64_t place)
{
    return ix->ids_build.word && place < ix->ids_build.at;
}

/* Lead the id of slot there in the next table as well. */
static void build_put(struct kithi_index *ix, uint64_t hash, uint32_t slot)
{
    struct table to = table_of(ix, ix->ids_build.word);
    uint64_t at = kithi_ids_home(hash, to.log2);
    char id[KITHI_ID_MAX];
    size_t len = kithi_view_id(&ix->view, slot, id);
    for (uint32_t n = 0; n < KITHI_IDS_PROBE_MAX / 2; n++, at = (at + 1) & (to.capacity - 1)) {
        uint64_t entry = atomic_load_explicit(&to.places[at], memory_order_relaxed);
        uint32_t link = kithi_ids_link(entry);
        bool mine = entry && link != KITHI_IDS_TOMBSTONE && kithi_ids_tag_matches(entry, hash) &&
                    slot_has_id(ix, link - 1, id, len);
        if (entry && !mine)
            continue;
        ix->ids_build.filled += entry == 0;
        store_entry(ix, &to.places[at], kithi_ids_entry(hash, slot + 1));
        return;
    }
    ix->ids_build.word = 0; /* the next one will be larger, or made at once */
}

/* The same of kithi_ids_redirect(). */
static void build_redirect(struct kithi_index *ix, uint64_t hash, uint32_t slot, uint32_t link)
{
    struct table to = table_of(ix, ix->ids_build.word);
    uint64_t at = kithi_ids_home(hash, to.log2);
    for (uint32_t n = 0; n < KITHI_IDS_PROBE_MAX; n++, at = (at + 1) & (to.capacity - 1)) {
        uint64_t entry = atomic_load_explicit(&to.places[at], memory_order_relaxed);
        if (entry == 0)
            return;
        if (entry != kithi_ids_entry(hash, slot + 1))
            continue;
        store_entry(ix, &to.places[at], kithi_ids_entry(hash, link ? link : KITHI_IDS_TOMBSTONE));
        return;
    }
}

/* Go on with the next table for so many new ids, or, where there is no more time, until it is whole. */
static void build(struct kithi_index *ix, uint64_t ids, bool hurry)
{
    struct ids_build *b = &ix->ids_build;
    struct table now = table_now(ix);
    do {
        if (!build_go_on(ix, &now, ids))
            return;
    } while (hurry && b->at < now.capacity);
    if (b->at < now.capacity)
        return;
    struct table to = table_of(ix, b->word);
    if (claim_anew(ix, &to)) {
        switch_to(ix, b->word, b->filled);
    } else {
        b->word = 0;
        (void)claim_anew(ix, &now); /* they had room here */
    }
}

/* All of it, now. */
static int rebuild(struct kithi_index *ix, uint32_t more, struct kithi_errmsg *err)
{
    struct table now = table_now(ix);
    uint64_t word = atomic_load_explicit(&ix->header->id_table, memory_order_relaxed);
    ix->ids_build.word = 0; /* it would be in the same area */
    for (unsigned log2 = log2_for(ix, live_ids(ix) + more);; log2++) {
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
        uint32_t filled = 0;
        empty_places(ix, &to, 0, to.capacity);
        if (!refill(ix, &now, 0, now.capacity, &to, &filled) || !claim_anew(ix, &to))
            continue;
        switch_to(ix, next, filled);
        return 0;
    }
}

int kithi_ids_reserve(struct kithi_index *ix, uint32_t more, uint32_t fresh, struct kithi_errmsg *err)
{
    struct table now = table_now(ix);
    uint64_t filled = (uint64_t)ix->ids_filled + more;
    bool due = now.log2 + 1 >= BUILD_LOG2 && filled * BUILD_DEN > now.capacity * BUILD_NUM;
    if (ix->ids_build.word || (due && build_begin(ix, &now)))
        build(ix, fresh, !roomy(filled, now.capacity));
    now = table_now(ix);
    return roomy((uint64_t)ix->ids_filled + more, now.capacity) ? 0 : rebuild(ix, more, err);
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
        kithi_stored(ix, place, sizeof *place);
        ix->ids_filled++;
        kithi_census_place_filled(ix, g->claimed.items[i]);
    }
}

void kithi_ids_put(struct kithi_index *ix, uint32_t place, uint64_t hash, uint32_t slot)
{
    struct table t = table_now(ix);
    /* [P7 id table] release: the version it leads to is born before. Other half: kithi_lookup(). */
    atomic_store_explicit(&t.places[place], kithi_ids_entry(hash, slot + 1), memory_order_release);
    kithi_stored(ix, &t.places[place], sizeof t.places[place]);
    if (is_built(ix, place))
        build_put(ix, hash, slot);
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
        kithi_stored(ix, &t.places[at], sizeof t.places[at]);
        if (is_built(ix, at))
            build_redirect(ix, hash, slot, link);
        return;
    }
}

int kithi_ids_fill(struct kithi_index *ix, const _Atomic bool *stop, struct kithi_errmsg *err)
{
    char id[KITHI_ID_MAX];
    int rc = kithi_ids_reserve(ix, (uint32_t)ix->live, 0, err);
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
