/*
 * alloc.c - who holds which slot, upper row and blob. Free lists are private and rebuilt at
 * adoption; the segment itself only says what is held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/assert.h"

int kithi_stack_reserve(struct stack *s, uint32_t count)
{
    if (s->capacity - s->count >= count)
        return 0;
    uint32_t capacity = s->capacity ? s->capacity : 64;
    while (capacity - s->count < count)
        capacity *= 2;
    uint32_t *items = realloc(s->items, (size_t)capacity * sizeof *items);
    if (!items)
        return -ENOMEM;
    s->items = items;
    s->capacity = capacity;
    return 0;
}

int kithi_stack_push(struct stack *s, uint32_t v)
{
    int rc = kithi_stack_reserve(s, 1);
    if (rc < 0)
        return rc;
    s->items[s->count++] = v;
    return 0;
}

static uint32_t stack_pop(struct stack *s)
{
    KITHI_ASSERT(s->count > 0);
    return s->items[--s->count];
}

int kithi_queue_reserve(struct queue *q, uint32_t count)
{
    if (q->capacity - q->count >= count)
        return 0;
    uint32_t capacity = q->capacity ? q->capacity : 64;
    while (capacity - q->count < count)
        capacity *= 2;
    struct waiting *items = malloc((size_t)capacity * sizeof *items);
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

int kithi_queue_push(struct queue *q, uint32_t slot, uint64_t since_ms)
{
    int rc = kithi_queue_reserve(q, 1);
    if (rc < 0)
        return rc;
    q->items[(q->head + q->count++) % q->capacity] = (struct waiting){ slot, since_ms };
    return 0;
}

struct waiting kithi_queue_pop(struct queue *q)
{
    KITHI_ASSERT(q->count > 0);
    struct waiting w = q->items[q->head];
    q->head = (q->head + 1) % q->capacity;
    q->count--;
    return w;
}

static _Atomic uint64_t *doubt_word(struct kithi_index *ix, uint32_t slot)
{
    return (_Atomic uint64_t *)(void *)ix->view.doubt + slot / 64;
}

/* [P8 doubt] Only the owner stores these words, so load and store need not be one step. */
void kithi_doubt_set(struct kithi_index *ix, uint32_t slot)
{
    _Atomic uint64_t *w = doubt_word(ix, slot);
    uint64_t old = atomic_load_explicit(w, memory_order_relaxed);
    atomic_store_explicit(w, old | UINT64_C(1) << (slot % 64), memory_order_relaxed);
    kithi_stored(ix, w, sizeof *w);
}

void kithi_doubt_clear(struct kithi_index *ix, uint32_t slot)
{
    _Atomic uint64_t *w = doubt_word(ix, slot);
    uint64_t old = atomic_load_explicit(w, memory_order_relaxed);
    atomic_store_explicit(w, old & ~(UINT64_C(1) << (slot % 64)), memory_order_relaxed);
    kithi_stored(ix, w, sizeof *w);
}

uint32_t kithi_alloc_upper_available(const struct kithi_index *ix)
{
    return ix->upper_free.count + (ix->map.layout.upper_max - ix->upper_used);
}

static uint64_t beyond(uint32_t used, uint32_t free_count, uint32_t want)
{
    return (uint64_t)used + (want > free_count ? want - free_count : 0);
}

/* Places of the id table that the groups under way may fill. */
static uint32_t new_ids(const struct kithi_index *ix)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i <= ix->sealed; i++)
        n += kithi_group_at(ix, i)->new_ids;
    return n;
}

/* Full, as by slots, where a higher ceiling has more of the class. */
static int reserve_blobs(struct kithi_index *ix, unsigned class, uint64_t count, struct kithi_errmsg *err)
{
    const struct kithi_layout *l = &ix->map.layout;
    if (count > l->blob_max[class]) {
        ix->slots_wanted = kithi_geometry_slots_for(class, count);
        return kithi_error_set(
            err, ix->slots_wanted ? KITHI_E_FULL : KITHI_E_NO_SPACE,
            "the collection has room for %u ids and payloads that take up to %u bytes (by its --max-vectors), and %u are "
            "needed; %u payloads were replaced and will be free in a moment",
            l->blob_max[class], l->blob_stride[class], (uint32_t)(count < UINT32_MAX ? count : UINT32_MAX),
            ix->old_payloads.count);
    }
    return kithi_space_reserve(ix, kithi_blob_region(class), count, err);
}

int kithi_alloc_reserve(struct kithi_index *ix, const struct demand *d, struct kithi_errmsg *err)
{
    uint64_t slots = beyond(ix->slots_used, ix->slots_free.count, d->slots);
    ix->slots_wanted = 0;
    if (slots > ix->map.geometry.slot_max) {
        uint32_t waiting = ix->dead.count + ix->resting.count + ix->sweep.slots_doomed.count;
        return kithi_error_set(
            err, KITHI_E_FULL,
            "the collection is full: of its %u slots (--max-vectors) %u are free and %u are needed; %u hold "
            "replaced or deleted vectors and will be free in a moment",
            ix->map.geometry.slot_max, ix->map.geometry.slot_max - ix->slots_used + ix->slots_free.count,
            d->slots, waiting);
    }
    int rc = 0;
    if (rc == 0)
        rc = kithi_space_reserve(ix, KITHI_REGION_RECORDS, slots, err);
    if (rc == 0)
        rc = kithi_space_reserve(ix, KITHI_REGION_ROWS, slots, err);
    if (rc == 0 && ix->map.layout.size[KITHI_REGION_VECTORS])
        rc = kithi_space_reserve(ix, KITHI_REGION_VECTORS, slots, err);
    if (rc == 0 && ix->map.layout.size[KITHI_REGION_CODES])
        rc = kithi_space_reserve(ix, KITHI_REGION_CODES, slots, err);
    if (rc == 0)
        rc = kithi_space_reserve(ix, KITHI_REGION_DOUBT, (slots + 63) / 64, err);
    if (rc == 0)
        rc = kithi_space_reserve(ix, KITHI_REGION_UPPER,
                                 beyond(ix->upper_used, ix->upper_free.count, d->uppers), err);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT && rc == 0; c++)
        rc = reserve_blobs(ix, c, beyond(ix->blob_used[c], ix->blob_free[c].count, d->blobs[c]), err);
    if (rc == 0)
        rc = kithi_ids_reserve(ix, new_ids(ix) + d->ids, d->ids, err);
    if (rc < 0)
        return rc;

    /* Private lists take, without failing, everything that is in use now or with the groups under way. */
    uint32_t in_use = (uint32_t)slots - ix->slots_free.count + d->slots;
    rc = kithi_stack_reserve(&ix->slots_free, in_use);
    if (rc == 0)
        rc = kithi_stack_reserve(&ix->upper_free, ix->upper_used - ix->upper_free.count + d->uppers);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT && rc == 0; c++)
        rc = kithi_stack_reserve(&ix->blob_free[c], ix->blob_used[c] - ix->blob_free[c].count + d->blobs[c]);
    if (rc == 0)
        rc = kithi_stack_reserve(&kithi_group_open(ix)->deaths, d->deaths);
    uint32_t dying = kithi_groups_dying(ix) + d->deaths + d->slots;
    if (rc == 0)
        rc = kithi_queue_reserve(&ix->dead, dying);
    if (rc == 0)
        rc = kithi_queue_reserve(&ix->resting, ix->dead.count + ix->sweep.slots_doomed.count + dying);
    if (rc == 0)
        rc = kithi_stack_reserve(&ix->sweep.slots_doomed, ix->dead.count + dying);
    if (rc < 0)
        return kithi_error_set(err, rc, "the daemon is out of memory");
    kithi_view_begin(&ix->map, &ix->view);
    return 0;
}

void kithi_index_room(const struct kithi_index *ix, struct kithi_index_room *out)
{
    uint32_t slot_max = ix->map.geometry.slot_max;
    *out =
        (struct kithi_index_room){ .slot_max = slot_max,
                                   .slots = slot_max - ix->slots_used + ix->slots_free.count,
                                   .soon = ix->dead.count + ix->sweep.slots_doomed.count + ix->resting.count,
                                   .uppers = kithi_alloc_upper_available(ix),
                                   .upper_max = ix->map.layout.upper_max,
                                   .payloads_soon = ix->old_payloads.count,
                                   .slots_wanted = ix->slots_wanted };
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++) {
        const int32_t *held = ix->held_blob[c];
        int64_t soon =
            (int64_t)held[KITHI_HELD_DEAD] + held[KITHI_HELD_RESTING]; /* below 0 during a census */
        uint32_t used = ix->blob_used[c] - ix->blob_free[c].count;
        soon = soon < 0 ? 0 : soon < used ? soon : used;
        out->blob_max[c] = ix->map.layout.blob_max[c];
        out->blobs[c] = out->blob_max[c] - used + (uint32_t)soon;
    }
}

uint32_t kithi_alloc_slot(struct kithi_index *ix)
{
    if (ix->slots_free.count)
        return stack_pop(&ix->slots_free);
    uint32_t slot = ix->slots_used++;
    kithi_doubt_set(ix, slot);
    /* Release: the doubt bit of a new slot is set before a scan covers it. */
    atomic_store_explicit(&ix->header->slots_used, ix->slots_used, memory_order_release);
    return slot;
}

uint32_t kithi_alloc_upper(struct kithi_index *ix, uint32_t owner, unsigned rows)
{
    uint32_t up = 0;
    for (unsigned n = 0; n < rows; n++) { /* from the top down, so that each leads to the one above */
        uint32_t number;
        if (ix->upper_free.count) {
            number = stack_pop(&ix->upper_free);
        } else {
            number = ix->upper_used++;
            kithi_note_ends(ix);
        }
        struct kithi_upper *u = kithi_view_upper(&ix->view, number);
        for (uint32_t i = 0; i < ix->view.link_count; i++)
            atomic_store_explicit(&u->links[i], 0, memory_order_relaxed);
        atomic_store_explicit(&u->owner, owner + 1, memory_order_relaxed);
        atomic_store_explicit(&u->up, up, memory_order_release);
        kithi_stored(ix, u, ix->view.upper_stride);
        up = number + 1;
    }
    return up;
}

uint64_t kithi_alloc_blob(struct kithi_index *ix, unsigned class)
{
    uint32_t number;
    if (ix->blob_free[class].count) {
        number = stack_pop(&ix->blob_free[class]);
    } else {
        number = ix->blob_used[class]++;
        kithi_note_ends(ix);
    }
    /*
     * [P18 payload] It is filled behind a release fence, and under no birth. One that was freed has none; one that rested when an
     * owner died, and lies beyond all that the census found held, has kept its own, for want of notes that would say that it was
     * ever used. Other half: kithi_view_payload().
     */
    uint64_t ref = kithi_blob_ref(class, number);
    uint32_t capacity;
    struct kithi_blob *b = kithi_view_blob(&ix->view, ref, &capacity);
    KITHI_ASSERT(b);
    atomic_store_explicit(&b->birth, 0, memory_order_relaxed);
    return ref; /* whoever fills it tells of the store */
}

/* Room on the private lists was reserved when the things were allotted. */
void kithi_alloc_return(struct kithi_index *ix, uint32_t slot, uint64_t blob, uint32_t upper)
{
    uint32_t capacity;
    struct kithi_blob *b = blob ? kithi_view_blob(&ix->view, blob, &capacity) : NULL;
    if (b) {
        struct stack *s = &ix->blob_free[blob >> 56];
        atomic_store_explicit(&b->owner, 0, memory_order_relaxed);
        kithi_stored(ix, b, sizeof *b);
        s->items[s->count++] = (uint32_t)blob - 1;
    }
    while (upper) {
        struct kithi_upper *u = kithi_view_upper(&ix->view, upper - 1);
        ix->upper_free.items[ix->upper_free.count++] = upper - 1;
        upper = atomic_load_explicit(&u->up, memory_order_relaxed);
        atomic_store_explicit(&u->owner, 0, memory_order_relaxed);
        kithi_stored(ix, u, sizeof *u);
    }
    ix->slots_free.items[ix->slots_free.count++] = slot;
}

/* Negative ones: of a group that was published before the census came to what it replaced. */
static void held_add(struct kithi_index *ix, enum kithi_held state, uint32_t uppers, unsigned class,
                     int32_t by)
{
    if (state == KITHI_HELD_COUNT)
        return;
    ix->held_upper[state] += by * (int32_t)uppers;
    if (class < KITHI_BLOB_CLASS_COUNT)
        ix->held_blob[class][state] += by;
}

/* The payload that a reference leads to, for the ledger; of the living also what people want to know. */
static void held_payload_add(struct kithi_index *ix, enum kithi_held state, uint32_t ref, int32_t by)
{
    const unsigned char *bytes;
    if (state == KITHI_HELD_COUNT || !ref || kithi_payload_class(ref) >= KITHI_BLOB_CLASS_COUNT)
        return;
    ix->held_blob[kithi_payload_class(ref)][state] += by;
    if (state != KITHI_HELD_LIVE)
        return;
    int64_t len = kithi_payload_bytes(ix, ref, &bytes);
    ix->payloads += by * (len > 0);
    ix->payload_bytes += by * len;
}

void kithi_held_moves(struct kithi_index *ix, uint32_t slot, enum kithi_held from, enum kithi_held to)
{
    const struct kithi_record *r = kithi_view_record(&ix->view, slot);
    uint32_t meta = atomic_load_explicit(&r->meta, memory_order_relaxed), uppers = 0;
    unsigned class = KITHI_BLOB_CLASS_COUNT;
    if (atomic_load_explicit(&r->upper, memory_order_relaxed))
        uppers = kithi_meta_level(meta); /* a chain has one for each level */
    if (kithi_meta_id_len(meta) > KITHI_ID_INLINE)
        class = (unsigned)(atomic_load_explicit(&r->id[0], memory_order_relaxed) >> 56);
    held_add(ix, from, uppers, class, -1);
    held_add(ix, to, uppers, class, 1);
    uint32_t payload = atomic_load_explicit(&r->payload, memory_order_relaxed);
    held_payload_add(ix, from, payload, -1);
    held_payload_add(ix, to, payload, 1);
}

void kithi_held_payload(struct kithi_index *ix, uint32_t slot, uint32_t before, uint32_t after)
{
    held_payload_add(ix, KITHI_HELD_RESTING, before, 1);
    if (kithi_census_awaits(ix, slot))
        return; /* which counts what the slot has then */
    held_payload_add(ix, KITHI_HELD_LIVE, before, -1);
    held_payload_add(ix, KITHI_HELD_LIVE, after, 1);
}

void kithi_held_forgotten(struct kithi_index *ix, uint32_t ref)
{
    held_payload_add(ix, KITHI_HELD_RESTING, ref, -1);
}

void kithi_alloc_free(struct kithi_index *ix, uint32_t slot)
{
    struct kithi_record *r = kithi_view_record(&ix->view, slot);
    kithi_held_moves(ix, slot, KITHI_HELD_RESTING, KITHI_HELD_COUNT);
    kithi_postings_free(ix, slot);

    /* [P4 reused] the mark first, then birth = 0 by a release store: whoever sees the slot or what
     * it held being refilled sees the mark. Other half: kithi_view_reused(). */
    uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
    bool born = atomic_load_explicit(&r->birth, memory_order_relaxed) != 0; /* else no reader ever saw it */
    if (born && death > atomic_load_explicit(&ix->header->reused, memory_order_relaxed))
        atomic_store_explicit(&ix->header->reused, death, memory_order_relaxed);
    atomic_store_explicit(&r->birth, 0, memory_order_release);
    KITHI_FAULT_CRASH("crash-while-freeing");
    /* From here on the slot is free, whatever it still refers to: adoption after a crash goes by
     * `linked`, and takes what no linked slot holds as free. */
    atomic_store_explicit(&r->linked, 0, memory_order_release);
    KITHI_FAULT_CRASH("crash-after-freeing");

    uint32_t id_len = kithi_meta_id_len(atomic_load_explicit(&r->meta, memory_order_relaxed));
    uint64_t blob = atomic_load_explicit(&r->id[0], memory_order_relaxed);
    uint32_t upper = atomic_load_explicit(&r->upper, memory_order_relaxed);
    uint32_t payload = atomic_load_explicit(&r->payload, memory_order_relaxed);
    atomic_store_explicit(&r->upper, 0, memory_order_relaxed);
    atomic_store_explicit(&r->payload, 0, memory_order_relaxed);
    kithi_stored(ix, r, sizeof *r);
    kithi_payload_return(ix, payload);
    kithi_alloc_return(ix, slot, id_len > KITHI_ID_INLINE ? blob : 0, upper);
}

static void store_held(_Atomic uint32_t *to, const int32_t *held)
{
    for (unsigned i = 0; i < KITHI_HELD_COUNT; i++)
        atomic_store_explicit(&to[i], held[i] > 0 ? (uint32_t)held[i] : 0, memory_order_relaxed);
}

void kithi_ledger_begin(struct kithi_index *ix)
{
    struct kithi_ledger *l = kithi_header_ledger(ix->header);
    kithi_alloc_tallies(ix);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        kithi_pages_note(ix, r);
    atomic_store_explicit(&l->magic, KITHI_LEDGER_MAGIC, memory_order_release);
}

void kithi_alloc_tallies(struct kithi_index *ix)
{
    struct kithi_header *h = ix->header;
    /* Relaxed: for people; nothing relies on them. */
    atomic_store_explicit(&h->tally_dead, ix->dead.count + ix->sweep.slots_doomed.count,
                          memory_order_relaxed);
    atomic_store_explicit(&h->tally_resting, ix->resting.count, memory_order_relaxed);
    atomic_store_explicit(&h->tally_free, ix->slots_free.count, memory_order_relaxed);
    atomic_store_explicit(&h->tally_upper, ix->upper_used - ix->upper_free.count, memory_order_relaxed);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        atomic_store_explicit(&h->tally_blob[c], ix->blob_used[c] - ix->blob_free[c].count,
                              memory_order_relaxed);
    atomic_store_explicit(&h->tally_ids, ix->ids_filled, memory_order_relaxed);
    atomic_store_explicit(&h->tally_payloads, ix->payloads > 0 ? (uint64_t)ix->payloads : 0,
                          memory_order_relaxed);
    atomic_store_explicit(&h->tally_payload_bytes, ix->payload_bytes > 0 ? (uint64_t)ix->payload_bytes : 0,
                          memory_order_relaxed);
    atomic_store_explicit(&h->tally_versions, ix->old_payloads.count, memory_order_relaxed);
    kithi_postings_tallies(ix);
    store_held(kithi_header_ledger(h)->upper, ix->held_upper);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        store_held(kithi_header_ledger(h)->blob[c], ix->held_blob[c]);
}
