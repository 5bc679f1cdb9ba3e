/*
 * lookup.c - probing the id table and walking back through versions.
 */
#include "shm/graph/lookup.h"

#include <string.h>

#include "shm/base/hash.h"
#include "shm/base/id.h"
#include "shm/graph/search.h"

/* Versions of one id that a single commit can leave behind the newest are few; a chain that is
 * longer means that this snapshot is old, and a new one is begun, if that will do. */
#define VERSIONS_NOW 64u

void kithi_view_vector_given(const struct kithi_view *v, uint32_t slot, float *out)
{
    const struct kithi_geometry *g = &v->map->geometry;
    kithi_view_decode_vector(v, slot, out);
    if (g->metric != KITHI_METRIC_COSINE)
        return;
    uint32_t bits = atomic_load_explicit(&kithi_view_record(v, slot)->norm, memory_order_relaxed);
    float norm;
    memcpy(&norm, &bits, sizeof norm);
    for (uint32_t i = 0; i < g->dim; i++)
        out[i] *= norm;
}

enum kithi_version kithi_version_seen(const struct kithi_view *v, uint32_t slot, const char *id,
                                      size_t id_len, float *vector, uint32_t *left, struct kithi_found *out)
{
    uint64_t newer = UINT64_MAX; /* birth of the version that led here */
    for (unsigned n = 0; *left > 0; n++, --*left) {
        const struct kithi_record *r = kithi_view_record(v, slot);
        char have[KITHI_ID_MAX];
        uint64_t birth = kithi_birth_begin(r);
        uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
        uint32_t prev = atomic_load_explicit(&r->prev, memory_order_relaxed);
        size_t len = kithi_view_id(v, slot, have);
        bool same = len == id_len && memcmp(have, id, len) == 0;
        bool seen = kithi_visible_at(birth, death, v->epoch);
        if (same && seen && vector)
            kithi_view_vector_given(v, slot, vector);
        /* Refilled under our eyes. An entry that led here is out of date: ask again. An earlier version
         * that is gone was not visible at this epoch, or the marks say so at the end. */
        if (birth == 0 || !kithi_birth_same(r, birth))
            return n == 0 ? KITHI_VERSION_AGAIN : KITHI_VERSION_NONE;
        if (!same)
            return KITHI_VERSION_NONE;
        if (birth >= newer) /* the same id again, in a slot that was refilled */
            return KITHI_VERSION_AGAIN;
        if (seen) {
            *out = (struct kithi_found){ .slot = slot, .birth = birth, .epoch = v->epoch };
            return KITHI_VERSION_FOUND;
        }
        if (birth <= v->epoch)
            return KITHI_VERSION_NONE; /* it had died by then, and so had all before it */
        if (prev - 1u >= v->slot_limit)
            return KITHI_VERSION_NONE;
        newer = birth;
        slot = prev - 1;
    }
    return KITHI_VERSION_AGAIN;
}

int kithi_view_ids(const struct kithi_view *v, uint64_t word, struct kithi_ids_table *out)
{
    const struct kithi_map *m = v->map;
    unsigned region = KITHI_REGION_IDS0 + kithi_ids_area(word), log2 = kithi_ids_log2(word);
    if (region > KITHI_REGION_IDS1 || log2 < KITHI_IDS_CAPACITY_MIN_LOG2 || log2 > 31)
        return 0;
    uint64_t capacity = UINT64_C(1) << log2;
    uint64_t taken = atomic_load_explicit(&v->header->taken[region], memory_order_acquire); /* [P5 taken] */
    if (taken > m->layout.size[region])
        taken = m->layout.size[region];
    if (capacity > taken / sizeof(uint64_t))
        return -1;
    *out = (struct kithi_ids_table){
        .places = (const _Atomic uint64_t *)(const void *)(m->base + m->layout.off[region]),
        .capacity = capacity,
        .log2 = log2,
    };
    return 1;
}

static enum kithi_version probe(const struct kithi_view *v, uint64_t word, uint64_t hash, const char *id,
                                size_t id_len, float *vector, uint32_t *left, struct kithi_found *out)
{
    const struct kithi_map *m = v->map;
    struct kithi_ids_table t;
    int is_there = kithi_view_ids(v, word, &t);
    if (is_there <= 0)
        return is_there < 0 ? KITHI_VERSION_AGAIN : KITHI_VERSION_NONE;
    uint64_t at = kithi_ids_home(hash, t.log2);
    for (uint32_t n = 0; n < KITHI_IDS_PROBE_MAX && n < t.capacity; n++, at = (at + 1) & (t.capacity - 1)) {
        /* [P7 id table] acquire: the record behind an entry is filled before the entry is stored. */
        uint64_t entry = atomic_load_explicit(&t.places[at], memory_order_acquire);
        if (entry == 0)
            return KITHI_VERSION_NONE;
        uint32_t link = kithi_ids_link(entry);
        if (!kithi_ids_tag_matches(entry, hash) || link == KITHI_IDS_TOMBSTONE)
            continue;
        if (link - 1u >= v->slot_limit) {
            if (link - 1u < m->geometry.slot_max)
                return KITHI_VERSION_AGAIN; /* grew after this view began */
            continue;
        }
        enum kithi_version o = kithi_version_seen(v, link - 1, id, id_len, vector, left, out);
        if (o != KITHI_VERSION_NONE)
            return o;
    }
    return KITHI_VERSION_NONE;
}

int kithi_lookup_at(const struct kithi_map *map, const struct kithi_moment *moment, const char *id,
                    size_t id_len, float *vector, struct kithi_found *out)
{
    uint64_t hash = kithi_hash(map->hash_key, id, id_len);
    uint32_t past = KITHI_VERSIONS_PAST;
    for (uint32_t attempt = 0; attempt <= KITHI_RESTART_MAX; attempt++) {
        struct kithi_view v;
        uint32_t now = VERSIONS_NOW, *left = kithi_moment_is_now(moment) ? &now : &past;
        int rc = kithi_view_begin_at(map, moment, &v);
        if (rc < 0)
            return rc;
        uint64_t word = atomic_load_explicit(&v.header->id_table, memory_order_acquire);
        enum kithi_version o =
            word ? probe(&v, word, hash, id, id_len, vector, left, out) : KITHI_VERSION_NONE;
        if (kithi_view_moved(&v))
            return KITHI_E_MOVED;
        if (o == KITHI_VERSION_FOUND)
            return 0;
        if (kithi_view_lost(&v, true))
            return KITHI_E_STALE;
        if (o == KITHI_VERSION_AGAIN)
            continue;
        /* "Not there" stands only if no finder was taken away or moved meanwhile. */
        if (kithi_view_unlinked(&v))
            continue;
        if (atomic_load_explicit(&v.header->id_table, memory_order_relaxed) != word)
            continue;
        return KITHI_E_NOT_FOUND;
    }
    return KITHI_E_STALE;
}

int kithi_lookup(const struct kithi_map *map, const char *id, size_t id_len, float *vector,
                 struct kithi_found *out)
{
    static const struct kithi_moment now = { 0 };
    return kithi_lookup_at(map, &now, id, id_len, vector, out);
}
