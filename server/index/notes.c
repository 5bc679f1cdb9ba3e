/*
 * notes.c - what the owner writes down for the one who comes after it. See shm/layout/notes.h.
 *
 * A note is a promise about records: what is beyond the epoch is noted. It is made before the record changes, and withdrawn
 * after the epoch has caught up, or after everything was taken back. Where the promise cannot be kept (groups that are too
 * large), that is noted. Groups stand behind each other, the oldest first.
 */
#include "server/index/index_priv.h"

static struct kithi_notes *notes_of(const struct kithi_index *ix)
{
    return kithi_header_notes(ix->header);
}

void kithi_note_slot(struct kithi_index *ix, uint32_t slot)
{
    struct kithi_notes *n = notes_of(ix);
    if (ix->noted == KITHI_NOTES_OVERFLOW)
        return;
    if (ix->noted == KITHI_NOTES_MAX) {
        ix->noted = KITHI_NOTES_OVERFLOW;
    } else {
        atomic_store_explicit(&n->slots[ix->noted], slot, memory_order_relaxed);
        ix->noted++;
        kithi_group_open(ix)->noted++;
    }
    /* [P14 notes] release: the slot stands before the count includes it. What is stored in its record comes behind a
     * release of its own: fill() begins with a fence, births and deaths are released. Other half: kithi_notes_usable(). */
    atomic_store_explicit(&n->count, ix->noted, memory_order_release);
}

void kithi_note_ends(struct kithi_index *ix)
{
    struct kithi_notes *n = notes_of(ix);
    /* Relaxed: a record leads to an upper row or a blob by a later release, and nothing else does. */
    atomic_store_explicit(&n->upper_used, ix->upper_used, memory_order_relaxed);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        atomic_store_explicit(&n->blob_used[c], ix->blob_used[c], memory_order_relaxed);
}

void kithi_note_ids(struct kithi_index *ix, uint32_t more)
{
    /* Relaxed: places are filled by later releases, or not yet by the table that the header names. */
    atomic_store_explicit(&notes_of(ix)->ids_filled, ix->ids_filled + more, memory_order_relaxed);
}

void kithi_note_wake(struct kithi_index *ix, uint32_t wake)
{
    struct kithi_notes *n = notes_of(ix);
    if (atomic_load_explicit(&n->magic, memory_order_relaxed) == KITHI_NOTES_MAGIC)
        atomic_store_explicit(&n->wake, wake, memory_order_relaxed);
}

/* Note a group that is under way while it is noted that not all are; false when there is no room for it. */
static bool note_again(struct kithi_index *ix, struct kithi_group *g, uint32_t at)
{
    struct kithi_notes *n = notes_of(ix);
    g->noted = g->deaths.count + g->insertion_count + g->change_count;
    if (g->noted > KITHI_NOTES_MAX - at)
        return false;
    for (uint32_t i = 0; i < g->deaths.count; i++)
        atomic_store_explicit(&n->slots[at++], g->deaths.items[i], memory_order_relaxed);
    for (uint32_t i = 0; i < g->insertion_count; i++)
        atomic_store_explicit(&n->slots[at++], g->insertions[i].slot, memory_order_relaxed);
    for (uint32_t i = 0; i < g->change_count; i++)
        atomic_store_explicit(&n->slots[at++], g->changes[i].slot, memory_order_relaxed);
    return true;
}

/* The slots of all groups but g, the oldest, again; returns their count. */
static uint32_t note_others(struct kithi_index *ix, const struct kithi_group *g)
{
    struct kithi_notes *n = notes_of(ix);
    uint32_t count = 0;
    if (ix->noted != KITHI_NOTES_OVERFLOW) {
        /* Each takes a place nearer to the front only after whoever stands there has one, or is done with. */
        for (uint32_t i = g->noted; i < ix->noted; i++) {
            uint32_t slot = atomic_load_explicit(&n->slots[i], memory_order_relaxed);
            atomic_store_explicit(&n->slots[count++], slot, memory_order_release);
        }
        return count;
    }
    for (uint32_t i = 0; i <= ix->sealed; i++) {
        struct kithi_group *other = kithi_group_at(ix, i);
        if (other == g)
            continue;
        if (!note_again(ix, other, count))
            return KITHI_NOTES_OVERFLOW;
        count += other->noted;
    }
    return count;
}

void kithi_notes_end_group(struct kithi_index *ix, struct kithi_group *g)
{
    struct kithi_notes *n = notes_of(ix);
    atomic_store_explicit(&n->live, ix->live, memory_order_relaxed);
    atomic_store_explicit(&n->ids_filled, ix->ids_filled, memory_order_relaxed);
    /* Release: while this is not the header's epoch, the count of vectors is the header's. */
    atomic_store_explicit(&n->epoch, ix->epoch, memory_order_release);
    /* [P14 notes] release: nothing of g is beyond the epoch any more, and the others are noted. */
    ix->noted = note_others(ix, g);
    g->noted = 0;
    atomic_store_explicit(&n->count, ix->noted, memory_order_release);
}

void kithi_notes_abort_group(struct kithi_index *ix)
{
    struct kithi_group *g = kithi_group_open(ix);
    if (ix->noted != KITHI_NOTES_OVERFLOW)
        ix->noted -= g->noted;
    else if (ix->sealed == 0)
        ix->noted = 0;
    g->noted = 0;
    /* [P14 notes] release: as at the end of a group. */
    atomic_store_explicit(&notes_of(ix)->count, ix->noted, memory_order_release);
}

void kithi_notes_correct_live(struct kithi_index *ix, uint64_t live)
{
    atomic_store_explicit(&notes_of(ix)->live, live, memory_order_relaxed);
}

void kithi_notes_begin(struct kithi_index *ix)
{
    struct kithi_notes *n = notes_of(ix);
    atomic_store_explicit(&n->magic, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&n->condemned, 0, memory_order_relaxed);
    atomic_store_explicit(&n->wake, atomic_load_explicit(&ix->header->wake, memory_order_relaxed),
                          memory_order_relaxed);
    kithi_note_ends(ix);
    kithi_notes_end_group(ix, kithi_group_open(ix));
    /* Release: they are whole before they count. */
    atomic_store_explicit(&n->magic, KITHI_NOTES_MAGIC, memory_order_release);
}

void kithi_notes_condemn(struct kithi_index *ix)
{
    /* Release: nothing; but it is not to be moved anywhere. */
    atomic_store_explicit(&notes_of(ix)->condemned, 1, memory_order_release);
}

bool kithi_notes_condemned(const struct kithi_index *ix)
{
    const struct kithi_notes *n = notes_of(ix);
    return atomic_load_explicit(&n->magic, memory_order_acquire) == KITHI_NOTES_MAGIC &&
           atomic_load_explicit(&n->condemned, memory_order_relaxed) != 0;
}

/* Nobody stores them meanwhile: whoever kept them is dead. */
bool kithi_notes_usable(struct kithi_index *ix)
{
    const struct kithi_notes *n = notes_of(ix);
    const struct kithi_header *h = ix->header;
    if (atomic_load_explicit(&n->magic, memory_order_acquire) != KITHI_NOTES_MAGIC ||
        atomic_load_explicit(&n->wake, memory_order_relaxed) !=
            atomic_load_explicit(&h->wake, memory_order_relaxed))
        return false;
    /* [P14 notes] acquire: the slots stand behind the count. */
    uint32_t count = atomic_load_explicit(&n->count, memory_order_acquire);
    uint32_t uppers = atomic_load_explicit(&n->upper_used, memory_order_relaxed);
    uint64_t epoch = atomic_load_explicit(&n->epoch, memory_order_relaxed), live;
    if (epoch > ix->epoch || uppers > ix->view.upper_limit ||
        (count > KITHI_NOTES_MAX && count != KITHI_NOTES_OVERFLOW))
        return false;
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        if (atomic_load_explicit(&n->blob_used[c], memory_order_relaxed) > ix->view.blob_limit[c])
            return false;
    for (uint32_t i = 0; count != KITHI_NOTES_OVERFLOW && i < count; i++)
        if (atomic_load_explicit(&n->slots[i], memory_order_relaxed) >= ix->slots_used)
            return false;
    /* The header's count may be that of the group that was being published already. */
    live = epoch == ix->epoch ? atomic_load_explicit(&n->live, memory_order_relaxed)
                              : atomic_load_explicit(&h->live, memory_order_relaxed);
    if (live > ix->slots_used)
        return false;
    ix->noted = kithi_group_open(ix)->noted = count; /* of the last owner's groups: they end as one */
    ix->live = live;
    ix->upper_used = uppers;
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        ix->blob_used[c] = atomic_load_explicit(&n->blob_used[c], memory_order_relaxed);
    uint64_t places = kithi_ids_capacity(ix);
    ix->ids_filled = atomic_load_explicit(&n->ids_filled, memory_order_relaxed);
    if (ix->ids_filled > places)
        ix->ids_filled = (uint32_t)places;
    return true;
}

uint32_t kithi_noted_slot(const struct kithi_index *ix, uint32_t i)
{
    return atomic_load_explicit(&notes_of(ix)->slots[i], memory_order_relaxed);
}
