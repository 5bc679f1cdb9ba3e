/*
 * payload.c - what belongs to an id beside its vector: staging a new version, publishing it, and forgetting the one before. The
 * writer's half of [P18 payload].
 *
 * A version is filled as it is staged, in a blob that nobody leads to. The record of a slot leads to its newest version, that to
 * the one before. A group that changes the payload alone notes the slot ([P14 notes]), so that the next owner finds a version
 * beyond the epoch and takes it back. What was replaced rests for as long as a dead slot takes to be swept and to rest; nothing needs
 * unlinking, since whoever follows an old reference sees by birth and owner that the blob is somebody else's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/graph/payload.h"
#include "shm/sync/slotbytes.h"

/* ---- what an id has now, for whoever stages ---- */

/* Reference of slot's newest published version. */
static uint32_t published(const struct kithi_index *ix, uint32_t slot)
{
    return atomic_load_explicit(&kithi_view_record(&ix->view, slot)->payload, memory_order_relaxed);
}

uint32_t kithi_payload_newest(const struct kithi_index *ix, uint64_t hash, const char *id, uint32_t id_len)
{
    for (uint32_t number = ix->sealed + 1; number-- > 0;) {
        const struct touched *t = kithi_group_touched(kithi_group_at(ix, number), hash, id, id_len);
        if (t && (!t->keeps || t->change != NO_SLOT))
            return t->payload;
    }
    uint32_t entry = kithi_ids_find(ix, hash, id, id_len);
    if (!entry || atomic_load_explicit(&kithi_view_record(&ix->view, entry - 1)->death, memory_order_relaxed))
        return 0;
    return published(ix, entry - 1);
}

uint32_t kithi_payload_bytes(const struct kithi_index *ix, uint32_t ref, const unsigned char **out)
{
    struct kithi_payload_blob b;
    if (!kithi_view_payload_blob(&ix->view, ref, &b))
        return 0;
    /* What the segment says of a length is looked at again, like all that another process may have written. */
    uint32_t len = atomic_load_explicit(&b.blob->len, memory_order_relaxed);
    *out = b.bytes;
    return len <= b.capacity ? len : 0;
}

bool kithi_payload_current(const struct kithi_index *ix, const char *id, uint32_t id_len,
                           const unsigned char **out, uint32_t *out_len)
{
    uint64_t hash = kithi_ids_hash(ix, id, id_len);
    *out_len = 0;
    for (uint32_t number = ix->sealed + 1; number-- > 0;) {
        const struct touched *t = kithi_group_touched(kithi_group_at(ix, number), hash, id, id_len);
        if (t && !t->keeps && t->insertion == NO_SLOT)
            return false; /* deleted */
        if (t && (!t->keeps || t->change != NO_SLOT)) {
            *out_len = kithi_payload_bytes(ix, t->payload, out);
            return true;
        }
    }
    uint32_t entry = kithi_ids_find(ix, hash, id, id_len);
    if (!entry || atomic_load_explicit(&kithi_view_record(&ix->view, entry - 1)->death, memory_order_relaxed))
        return false;
    *out_len = kithi_payload_bytes(ix, published(ix, entry - 1), out);
    return true;
}

/* ---- one version ---- */

unsigned kithi_payload_size_class(const struct kithi_index *ix, uint32_t len)
{
    return kithi_blob_class(&ix->map.layout, sizeof(struct kithi_payload_head) + len);
}

uint32_t kithi_payload_stage(struct kithi_index *ix, uint32_t slot, uint32_t prev, const void *bytes,
                             uint32_t len)
{
    unsigned class = kithi_payload_size_class(ix, len);
    uint64_t blob = kithi_alloc_blob(ix, class);
    uint32_t ref = kithi_payload_ref(class, (uint32_t)blob - 1);
    struct kithi_payload_blob b;
    bool there = kithi_view_payload_blob(&ix->view, ref, &b);
    KITHI_ASSERT(there && len <= b.capacity);
    /* [P18 payload] release fence: the blob's birth was made 0 when it was allotted, if not before. Whoever sees one of the stores below, and then an
     * acquire fence, sees 0 or a later birth. Other half: kithi_view_payload(). */
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&b.blob->owner, slot + 1, memory_order_relaxed);
    atomic_store_explicit(&b.blob->len, len, memory_order_relaxed);
    atomic_store_explicit(&b.head->prev, prev, memory_order_relaxed);
    if (len)
        kithi_slot_store(b.bytes, bytes, len);
    kithi_stored(ix, b.blob, sizeof *b.blob + sizeof *b.head + len);
    return ref;
}

void kithi_payload_return(struct kithi_index *ix, uint32_t ref)
{
    struct kithi_payload_blob b;
    if (!kithi_view_payload_blob(&ix->view, ref, &b))
        return;
    struct stack *s = &ix->blob_free[kithi_payload_class(ref)];
    /* [P18 payload] release: what was read of it before is of its old birth, and who looks again sees that it is over. */
    atomic_store_explicit(&b.blob->birth, 0, memory_order_release);
    atomic_store_explicit(&b.blob->owner, 0, memory_order_relaxed);
    kithi_stored(ix, b.blob, sizeof *b.blob);
    s->items[s->count++] = kithi_payload_number(ref); /* room was reserved when it was allotted */
}

static void give_birth(struct kithi_index *ix, uint32_t ref, uint64_t epoch)
{
    struct kithi_payload_blob b;
    if (!kithi_view_payload_blob(&ix->view, ref, &b))
        return;
    /* [P18 payload] release: it is filled, and leads to the version before. Other half: kithi_view_payload(). */
    atomic_store_explicit(&b.blob->birth, epoch, memory_order_release);
    kithi_stored(ix, b.blob, sizeof *b.blob);
}

/* ---- groups ---- */

int kithi_payload_reserve(struct kithi_index *ix, uint32_t changes)
{
    struct kithi_group *g = kithi_group_open(ix);
    uint32_t under_way = changes;
    if (g->change_capacity - g->change_count < changes) {
        uint32_t capacity = (g->change_count + changes) * 2;
        struct payload_change *p = realloc(g->changes, capacity * sizeof *p);
        if (!p)
            return -ENOMEM;
        g->changes = p;
        g->change_capacity = capacity;
    }
    for (uint32_t i = 0; i <= ix->sealed; i++)
        under_way += kithi_group_at(ix, i)->change_count;
    struct old_payloads *q = &ix->old_payloads;
    if (q->capacity - q->count >= under_way)
        return 0;
    uint32_t capacity = q->capacity ? q->capacity : 64;
    while (capacity - q->count < under_way)
        capacity *= 2;
    struct old_payload *items = malloc((size_t)capacity * sizeof *items);
    if (!items)
        return -ENOMEM;
    for (uint32_t i = 0; i < q->count; i++)
        items[i] = q->items[(q->head + i) % q->capacity];
    free(q->items);
    q->items = items;
    q->head = 0;
    q->capacity = capacity;
    return 0;
}

void kithi_payload_births(struct kithi_index *ix, const struct kithi_group *g, uint64_t epoch)
{
    for (uint32_t i = 0; i < g->insertion_count; i++)
        give_birth(ix, g->insertions[i].payload, epoch);
    KITHI_FAULT_CRASH("crash-after-payload-births");
    for (uint32_t i = 0; i < g->change_count; i++) {
        const struct payload_change *c = &g->changes[i];
        if (!c->ref)
            continue;
        struct kithi_record *r = kithi_view_record(&ix->view, c->slot);
        give_birth(ix, c->ref, epoch);
        /* [P18 payload] release: the version is born before anything leads to it. One store replaces the one before. Other half:
         * kithi_view_payload(). */
        atomic_store_explicit(&r->payload, c->ref, memory_order_release);
        kithi_stored(ix, r, sizeof *r);
        KITHI_FAULT_CRASH("crash-after-payload");
    }
}

void kithi_payload_replaced(struct kithi_index *ix, const struct kithi_group *g, uint64_t epoch,
                            uint64_t now_ms)
{
    struct old_payloads *q = &ix->old_payloads;
    for (uint32_t i = 0; i < g->change_count; i++) {
        const struct payload_change *c = &g->changes[i];
        if (!c->ref)
            continue;
        kithi_held_payload(ix, c->slot, c->prev, c->ref);
        if (!c->prev)
            continue;
        q->items[(q->head + q->count++) % q->capacity] = (struct old_payload){
            .ref = c->prev, .replaced = epoch, .since_ms = now_ms, .era = kithi_postings_era_now(ix)
        }; /* room was reserved */
    }
}

uint32_t kithi_payload_forget(struct kithi_index *ix, uint64_t now_ms)
{
    struct old_payloads *q = &ix->old_payloads;
    const uint64_t rest_ms = (uint64_t)ix->tuning.grace_ms + ix->tuning.rest_ms;
    kithi_postings_turn(ix);
    while (q->count) {
        const struct old_payload *old = &q->items[q->head];
        uint64_t age = now_ms - old->since_ms;
        if (age < rest_ms)
            return (uint32_t)(rest_ms - age);
        /* [P11 image] What was replaced after the epoch of an image is part of it. */
        if (ix->imaged && old->replaced > ix->image_epoch)
            return 1;
        /* [P19 postings] Nor before whoever may see it has come to an end, or will find out. */
        if (!kithi_postings_rested(ix, old->era))
            return kithi_postings_wait(ix, now_ms);
        if (kithi_postings_has_worked(ix))
            return 0;
        uint32_t ref = old->ref;
        q->head = (q->head + 1) % q->capacity;
        q->count--;
        kithi_held_forgotten(ix, ref);
        kithi_postings_forget(ix, ref);
        kithi_payload_return(ix, ref);
    }
    return UINT32_MAX;
}

void kithi_payload_fini(struct kithi_index *ix)
{
    free(ix->old_payloads.items);
    ix->old_payloads = (struct old_payloads){ 0 };
}

/* ---- adoption ---- */

void kithi_payload_take_back(struct kithi_index *ix, uint32_t slot)
{
    struct kithi_record *r = kithi_view_record(&ix->view, slot);
    struct kithi_payload_blob b;
    uint32_t ref = published(ix, slot);
    uint64_t newer = UINT64_MAX;
    while (ref && kithi_view_payload_blob(&ix->view, ref, &b) &&
           atomic_load_explicit(&b.blob->owner, memory_order_relaxed) == slot + 1) {
        uint64_t birth = atomic_load_explicit(&b.blob->birth, memory_order_relaxed);
        if (birth <= ix->epoch || birth >= newer)
            break;
        newer = birth;
        ref = atomic_load_explicit(&b.head->prev, memory_order_relaxed);
    }
    /* Release: as when it was published. Readers at the epoch, or before, go past what is beyond it either way. */
    if (ref != published(ix, slot))
        atomic_store_explicit(&r->payload, ref, memory_order_release);
}
