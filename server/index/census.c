/*
 * census.c - every slot is looked at once: who lives, who is dead, what is free. Free lists and the queue of the dead are
 * what records do not say, and an adopted segment is served before they are there.
 *
 *   begin --> slots, in pieces --> upper rows --> blobs --> places of the id table --> lists are joined: over
 *               |
 *               +-- a record makes no sense --> the segment is condemned, and the census goes no further
 *
 * Pieces run in the owner's thread, between whatever else it does; workers may insert meanwhile. What they take lies beyond
 * the ends of the beginning, or was found free: so nobody else changes a record that is still to be looked at, with two
 * exceptions, both in the owner's thread. Somebody may die with a new group: publishing queues him, so the census does not;
 * his death is after its epoch. And his doubt bit is set then. No sweep begins, and so nobody is freed.
 *
 * Where notes of the ends are missing (notes.h) everything that has memory is looked at, with nobody else at work.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"
#include "shm/graph/payload.h"

#define WORD_ITEMS 8u /* upper rows, blobs or places that are looked at in the time of a slot */

static void release(struct census *s)
{
    free(s->uppers);
    s->uppers = NULL;
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++) {
        free(s->blobs[c]);
        s->blobs[c] = NULL;
    }
    free(s->dead.items);
    s->dead = (struct queue){ 0 };
}

void kithi_census_fini(struct kithi_index *ix)
{
    release(&ix->census);
}

int kithi_census_begin(struct kithi_index *ix, bool ends_known)
{
    struct census *s = &ix->census;
    *s = (struct census){
        .step = CENSUS_SLOTS, .ends_known = ends_known, .epoch = ix->epoch, .live = ix->live
    };
    s->slot_end = ix->slots_used;
    s->upper_end = ends_known ? ix->upper_used : ix->view.upper_limit;
    s->uppers = calloc((size_t)s->upper_end + 1, 1);
    bool good = s->uppers != NULL;
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++) {
        s->blob_end[c] = ends_known ? ix->blob_used[c] : ix->view.blob_limit[c];
        s->blobs[c] = calloc((size_t)s->blob_end[c] + 1, 1);
        good = good && s->blobs[c];
    }
    if (!good) {
        release(s);
        s->step = CENSUS_OVER;
    }
    return good ? 0 : -ENOMEM;
}

/* ---- slots ---- */

/* Note the upper rows of slot as held; false when the chain makes no sense. */
static bool hold_uppers(struct kithi_index *ix, uint32_t slot)
{
    struct census *s = &ix->census;
    const struct kithi_record *r = kithi_view_record(&ix->view, slot);
    uint32_t ref = atomic_load_explicit(&r->upper, memory_order_relaxed);
    unsigned level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
    if (level > KITHI_LEVEL_MAX)
        return false;
    for (unsigned at = 0; at < level; at++) {
        if (ref == 0 || ref > s->upper_end || s->uppers[ref - 1])
            return false;
        const struct kithi_upper *u = kithi_view_upper(&ix->view, ref - 1);
        if (atomic_load_explicit(&u->owner, memory_order_relaxed) != slot + 1)
            return false;
        s->uppers[ref - 1] = 1;
        if (ref > s->upper_last)
            s->upper_last = ref;
        ref = atomic_load_explicit(&u->up, memory_order_relaxed);
    }
    return ref == 0;
}

static bool hold_blob(struct kithi_index *ix, uint32_t slot)
{
    struct census *s = &ix->census;
    const struct kithi_record *r = kithi_view_record(&ix->view, slot);
    uint32_t len = kithi_meta_id_len(atomic_load_explicit(&r->meta, memory_order_relaxed)), capacity;
    if (len == 0 || len > 511)
        return false;
    if (len <= KITHI_ID_INLINE)
        return true;
    uint64_t ref = atomic_load_explicit(&r->id[0], memory_order_relaxed);
    const struct kithi_blob *b = kithi_view_blob(&ix->view, ref, &capacity);
    if (!b || len > capacity || atomic_load_explicit(&b->owner, memory_order_relaxed) != slot + 1)
        return false;
    unsigned class = (unsigned)(ref >> 56);
    uint32_t number = (uint32_t)(ref & UINT32_MAX) - 1;
    if (number >= s->blob_end[class])
        return false;
    s->blobs[class][number] = 1; /* nobody else can hold it: it has one owner */
    if (number + 1 > s->blob_last[class])
        s->blob_last[class] = number + 1;
    return true;
}

bool kithi_census_awaits(const struct kithi_index *ix, uint32_t slot)
{
    const struct census *s = &ix->census;
    return s->step == CENSUS_SLOTS && slot >= s->slot && slot < s->slot_end;
}

/* The newest version of its payload; those before it are nobody's, or rest. */
static bool hold_payload(struct kithi_index *ix, uint32_t slot)
{
    struct census *s = &ix->census;
    const struct kithi_record *r = kithi_view_record(&ix->view, slot);
    uint32_t ref = atomic_load_explicit(&r->payload, memory_order_relaxed);
    struct kithi_payload_blob b;
    if (!ref)
        return true;
    if (!kithi_view_payload_blob(&ix->view, ref, &b) ||
        atomic_load_explicit(&b.blob->owner, memory_order_relaxed) != slot + 1 ||
        atomic_load_explicit(&b.blob->len, memory_order_relaxed) > b.capacity)
        return false;
    uint64_t birth = atomic_load_explicit(&b.blob->birth, memory_order_relaxed);
    if (atomic_load_explicit(&r->birth, memory_order_relaxed) && (birth == 0 || birth > ix->epoch))
        return false;
    unsigned class = kithi_payload_class(ref);
    uint32_t number = kithi_payload_number(ref);
    if (number >= s->blob_end[class]) /* of a group since */
        return s->ends_known && number < ix->blob_used[class];
    if (s->blobs[class][number])
        return false;
    s->blobs[class][number] = 1;
    if (number + 1 > s->blob_last[class])
        s->blob_last[class] = number + 1;
    return true;
}

/* What was replaced by groups since rests, and is not free. */
static void hold_old_payloads(struct kithi_index *ix)
{
    struct census *s = &ix->census;
    const struct old_payloads *q = &ix->old_payloads;
    for (uint32_t i = 0; i < q->count; i++) {
        uint32_t ref = q->items[(q->head + i) % q->capacity].ref;
        if (kithi_payload_number(ref) < s->blob_end[kithi_payload_class(ref)])
            s->blobs[kithi_payload_class(ref)][kithi_payload_number(ref)] = 1;
    }
}

static int look_at_slot(struct kithi_index *ix, uint32_t slot, struct kithi_errmsg *err)
{
    struct census *s = &ix->census;
    struct kithi_record *r = kithi_view_record(&ix->view, slot);
    uint64_t birth = atomic_load_explicit(&r->birth, memory_order_relaxed);
    uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
    int rc;
    if (!atomic_load_explicit(&r->linked, memory_order_relaxed)) {
        /* Free, or being filled when its owner died, or being freed: nothing leads here. */
        rc = kithi_stack_push(&ix->slots_free, slot);
        if (rc < 0)
            return rc;
        if (birth)
            atomic_store_explicit(&r->birth, 0, memory_order_release);
        atomic_store_explicit(&r->upper, 0, memory_order_relaxed);
        kithi_doubt_set(ix, slot);
        return 0;
    }
    rc = kithi_queue_reserve(&s->dead, 1);
    if (rc < 0)
        return rc;
    if (!hold_uppers(ix, slot) || !hold_blob(ix, slot))
        return kithi_error_set(err, KITHI_E_CORRUPT,
                               "slot %u refers to upper rows or a blob that are not its own", slot);
    if (!hold_payload(ix, slot))
        return kithi_error_set(err, KITHI_E_CORRUPT, "slot %u refers to a payload that is not its own", slot);
    if (s->ends_known && (birth > s->epoch || (birth ? death > ix->epoch : death == 0)))
        return kithi_error_set(err, KITHI_E_CORRUPT,
                               "slot %u is of a group that was never committed, and was not noted", slot);
    s->live_seen += kithi_visible_at(birth, death, s->epoch);
    bool lived = birth && (death == 0 || death > s->epoch);
    kithi_held_moves(ix, slot, KITHI_HELD_COUNT, lived ? KITHI_HELD_LIVE : KITHI_HELD_DEAD);
    if (birth && death == 0) {
        kithi_doubt_clear(ix, slot);
        return 0;
    }
    kithi_doubt_set(ix, slot);
    if (birth && death > s->epoch)
        return 0; /* of a group since: publishing has queued it, and counts what it holds as a dead one's */
    /* ABORTED: a death without a birth keeps insertions from choosing it. */
    if (death == 0)
        atomic_store_explicit(&r->death, s->epoch ? s->epoch : 1, memory_order_relaxed);
    return kithi_queue_push(&s->dead, slot, 0);
}

/* ---- what no record holds ---- */

static int look_at_upper(struct kithi_index *ix, uint32_t number)
{
    if (ix->census.uppers[number])
        return 0;
    int rc = kithi_stack_push(&ix->upper_free, number);
    if (rc == 0)
        atomic_store_explicit(&kithi_view_upper(&ix->view, number)->owner, 0, memory_order_relaxed);
    return rc;
}

static int look_at_blob(struct kithi_index *ix, unsigned class, uint32_t number)
{
    uint32_t capacity;
    if (ix->census.blobs[class][number])
        return 0;
    int rc = kithi_stack_push(&ix->blob_free[class], number);
    if (rc < 0)
        return rc;
    struct kithi_blob *b = kithi_view_blob(&ix->view, kithi_blob_ref(class, number), &capacity);
    /* [P18 payload] release: a version that rested when the last owner died; a reader who is at it begins again. */
    if (atomic_load_explicit(&b->birth, memory_order_relaxed))
        atomic_store_explicit(&b->birth, 0, memory_order_release);
    atomic_store_explicit(&b->owner, 0, memory_order_relaxed);
    return 0;
}

/* All slots were seen: what is beyond the last thing held was never used, where no notes say otherwise. */
static void find_ends(struct kithi_index *ix)
{
    struct census *s = &ix->census;
    if (s->ends_known)
        return;
    s->upper_end = ix->upper_used = s->upper_last;
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        s->blob_end[c] = ix->blob_used[c] = s->blob_last[c];
}

/* ---- the end ---- */

/* Those who have died since the beginning come behind the others, who have waited longer. */
static int join(struct kithi_index *ix)
{
    struct census *s = &ix->census;
    uint32_t newer = ix->dead.count, dying = kithi_groups_dying(ix);
    uint32_t all = s->dead.count + newer;
    /* As kithi_alloc_reserve() promises to the groups under way. */
    int rc = kithi_queue_reserve(&s->dead, newer + dying);
    if (rc == 0)
        rc = kithi_queue_reserve(&ix->resting, all + dying);
    if (rc == 0)
        rc = kithi_stack_reserve(&ix->sweep.slots_doomed, all + dying);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < newer; i++) {
        struct waiting w = kithi_queue_pop(&ix->dead);
        kithi_queue_push(&s->dead, w.slot, w.since_ms);
    }
    struct queue empty = ix->dead;
    ix->dead = s->dead;
    s->dead = empty;
    return 0;
}

static void correct_live(struct kithi_index *ix, int64_t *out_miscounted)
{
    struct census *s = &ix->census;
    int64_t off = (int64_t)(s->live_seen - s->live);
    *out_miscounted = s->ends_known ? off : 0;
    if (off == 0)
        return;
    ix->live += (uint64_t)off;
    atomic_store_explicit(&ix->header->live, ix->live, memory_order_relaxed);
    /* A group that is open has not been counted. */
    kithi_notes_correct_live(ix, ix->live);
}

/* ---- pieces ---- */

static int next_slot(struct kithi_index *ix, struct kithi_errmsg *err)
{
    struct census *s = &ix->census;
    if (s->slot < s->slot_end) {
        int rc = look_at_slot(ix, s->slot, err);
        s->slot += rc == 0;
        return rc;
    }
    find_ends(ix);
    hold_old_payloads(ix);
    s->step = CENSUS_UPPERS;
    return 0;
}

static int next_upper(struct kithi_index *ix)
{
    struct census *s = &ix->census;
    for (unsigned i = 0; i < WORD_ITEMS && s->upper < s->upper_end; i++) {
        int rc = look_at_upper(ix, s->upper);
        if (rc < 0)
            return rc;
        s->upper++;
    }
    if (s->upper == s->upper_end)
        s->step = CENSUS_BLOBS;
    return 0;
}

static int next_blob(struct kithi_index *ix)
{
    struct census *s = &ix->census;
    for (unsigned i = 0; i < WORD_ITEMS && s->class < KITHI_BLOB_CLASS_COUNT; i++) {
        if (s->blob == s->blob_end[s->class]) {
            s->blob = 0;
            s->class ++;
            continue;
        }
        int rc = look_at_blob(ix, s->class, s->blob);
        if (rc < 0)
            return rc;
        s->blob++;
    }
    if (s->class == KITHI_BLOB_CLASS_COUNT)
        s->step = CENSUS_PLACES;
    return 0;
}

static void next_places(struct kithi_index *ix)
{
    struct census *s = &ix->census;
    uint64_t capacity = kithi_ids_capacity(ix);
    for (unsigned i = 0; i < WORD_ITEMS && s->place < capacity; i++, s->place++)
        s->filled += kithi_ids_is_filled(ix, s->place);
    if (s->place < capacity)
        return;
    ix->ids_filled = s->filled;
    s->step = CENSUS_JOIN;
}

void kithi_census_place_filled(struct kithi_index *ix, uint64_t place)
{
    struct census *s = &ix->census;
    if (s->step == CENSUS_PLACES && place < s->place)
        s->filled++;
}

void kithi_census_table_anew(struct kithi_index *ix)
{
    struct census *s = &ix->census;
    s->place = s->filled = 0;
    if (s->step == CENSUS_PLACES)
        s->step = CENSUS_JOIN;
    s->places_known = true;
}

bool kithi_index_census_due(const struct kithi_index *ix)
{
    return ix->census.step != CENSUS_OVER;
}

int kithi_index_census(struct kithi_index *ix, uint32_t slots, int64_t *out_miscounted,
                       struct kithi_errmsg *err)
{
    struct census *s = &ix->census;
    int rc = 0;
    *out_miscounted = 0;
    for (uint32_t i = 0; i < slots && s->step != CENSUS_OVER && rc == 0; i++) {
        if (s->step == CENSUS_PLACES && s->places_known)
            s->step = CENSUS_JOIN;
        switch (s->step) {
        case CENSUS_SLOTS: rc = next_slot(ix, err); break;
        case CENSUS_UPPERS: rc = next_upper(ix); break;
        case CENSUS_BLOBS: rc = next_blob(ix); break;
        case CENSUS_PLACES: next_places(ix); break;
        case CENSUS_JOIN:
            rc = join(ix);
            if (rc < 0)
                break;
            correct_live(ix, out_miscounted);
            kithi_note_ids(ix, 0);
            release(s);
            s->step = CENSUS_OVER;
            kithi_alloc_tallies(ix);
            break;
        case CENSUS_OVER: break;
        }
    }
    if (rc == -ENOMEM)
        kithi_error_set(err, rc, "the daemon is out of memory");
    if (rc == KITHI_E_CORRUPT)
        kithi_notes_condemn(ix);
    return rc < 0 ? rc : s->step != CENSUS_OVER;
}

int kithi_private_rebuild(struct kithi_index *ix, const _Atomic bool *stop, struct kithi_errmsg *err)
{
    int64_t ignored;
    int rc = kithi_census_begin(ix, false);
    if (rc < 0)
        return kithi_error_set(err, rc, "the daemon is out of memory");
    do
        rc = kithi_stop_seen(stop, 0) ? kithi_error_set(err, -ECANCELED, "told to stop")
                                      : kithi_index_census(ix, KITHI_STOP_STEPS, &ignored, err);
    while (rc > 0);
    return rc;
}
