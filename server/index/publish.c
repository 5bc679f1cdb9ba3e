/*
 * publish.c - making a group visible: the only stores of publication words.
 *
 * The order is the contract (PROTOCOL.md, [P1 commit]): payloads, births, id entries, deaths,
 * then the epoch. A crash between any two of them leaves a segment that shows the old epoch
 * whole, and adoption takes the rest back.
 */
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/assert.h"

void kithi_publish_wake(struct kithi_index *ix)
{
    /* Release: whoever wakes sees what it was woken for. */
    uint32_t wake = atomic_fetch_add_explicit(&ix->header->wake, 1, memory_order_release) + 1;
    kithi_note_wake(ix, wake);
    (void)syscall(SYS_futex, &ix->header->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void births(struct kithi_index *ix, const struct kithi_group *g, uint64_t epoch)
{
    for (uint32_t i = 0; i < g->insertion_count; i++) {
        struct kithi_record *r = kithi_view_record(&ix->view, g->insertions[i].slot);
        /* A version that its own group replaces is born dead: visible at no epoch. */
        if (g->insertions[i].superseded) {
            atomic_store_explicit(&r->death, epoch, memory_order_relaxed);
            ix->live--;
        }
        ix->live++;
        /* [P2 birth] release: the slot is filled. Other half: kithi_birth_begin(). */
        atomic_store_explicit(&r->birth, epoch, memory_order_release);
        kithi_stored(ix, r, sizeof *r);
    }
}

void kithi_publish_group(struct kithi_index *ix, uint64_t epoch, uint64_t durable_epoch, uint64_t now_ms)
{
    struct kithi_group *g = kithi_group_at(ix, 0);
    struct kithi_header *h = ix->header;

    kithi_postings_group(ix, g);
    KITHI_FAULT_CRASH("crash-after-postings");
    /* Insertions of later groups that look for another entry point see this one whole or not at all. */
    pthread_mutex_lock(&ix->entry_lock);
    kithi_payload_births(ix, g, epoch);
    births(ix, g, epoch);
    KITHI_FAULT_CRASH("crash-after-births");
    kithi_ids_claims_bury(ix, g);
    for (uint32_t i = 0; i < g->insertion_count; i++) {
        const struct insertion *in = &g->insertions[i];
        if (!in->superseded)
            kithi_ids_put(ix, in->place, in->hash, in->slot);
    }
    KITHI_FAULT_CRASH("crash-after-ids");
    for (uint32_t i = 0; i < g->deaths.count; i++) {
        uint32_t slot = g->deaths.items[i];
        struct kithi_record *r = kithi_view_record(&ix->view, slot);
        kithi_doubt_set(ix, slot);
        atomic_store_explicit(&r->death, epoch, memory_order_release);
        kithi_stored(ix, r, sizeof *r);
        ix->live--;
    }
    KITHI_FAULT_CRASH("crash-after-deaths");

    /* Relaxed: ordered by the release below, and each stands for itself. */
    atomic_store_explicit(&h->live, ix->live, memory_order_relaxed);
    atomic_store_explicit(&h->durable_epoch, durable_epoch, memory_order_relaxed);
    KITHI_FAULT_CRASH("crash-before-epoch");
    /* [P1 commit] release: births, id entries and deaths of the group are stored before the epoch
     * that shows them. Other half: kithi_view_begin(). */
    atomic_store_explicit(&h->epoch, epoch, memory_order_release);
    ix->epoch = epoch;
    pthread_mutex_unlock(&ix->entry_lock);
    kithi_publish_wake(ix);
    KITHI_FAULT_CRASH("crash-after-epoch");

    /* [P8 doubt] only now: a search at an older epoch that misses the bit drops the slot by its birth. */
    for (uint32_t i = 0; i < g->insertion_count; i++) {
        uint32_t slot = g->insertions[i].slot;
        bool dead = g->insertions[i].superseded;
        kithi_held_moves(ix, slot, KITHI_HELD_COUNT, dead ? KITHI_HELD_DEAD : KITHI_HELD_LIVE);
        if (dead)
            kithi_queue_push(&ix->dead, slot, now_ms); /* room was reserved */
        else
            kithi_doubt_clear(ix, slot);
    }
    for (uint32_t i = 0; i < g->deaths.count; i++) {
        kithi_held_moves(ix, g->deaths.items[i], KITHI_HELD_LIVE, KITHI_HELD_DEAD);
        kithi_queue_push(&ix->dead, g->deaths.items[i], now_ms);
    }

    kithi_payload_replaced(ix, g, epoch, now_ms);

    kithi_notes_end_group(ix, g);
    kithi_journal_group(ix, g, epoch);
    kithi_group_clear(g);
    if (ix->sealed) {
        ix->sealed--;
        ix->oldest = (ix->oldest + 1) % (KITHI_GROUPS_SEALED + 1);
    }
    KITHI_FAULT_CRASH("crash-after-notes");
    atomic_fetch_add_explicit(&h->tally_commits, 1, memory_order_relaxed);
    kithi_alloc_tallies(ix);
}

void kithi_group_merged(struct kithi_index *ix, uint64_t first, uint64_t epoch)
{
    struct kithi_header *h = ix->header;
    KITHI_ASSERT(first > ix->epoch && first <= epoch);
    if (first == epoch)
        return;
    /* [P17 merged] relaxed: the epoch that shows the group is released after them. What lies between two of these is given up, too. */
    if (atomic_load_explicit(&h->merged_to, memory_order_relaxed) == 0)
        atomic_store_explicit(&h->merged_from, first, memory_order_relaxed);
    atomic_store_explicit(&h->merged_to, epoch, memory_order_relaxed);
}

void kithi_group_publish(struct kithi_index *ix, uint64_t epoch, uint64_t now_ms)
{
    KITHI_ASSERT(epoch > ix->epoch);
    kithi_publish_group(ix, epoch, epoch, now_ms);
}

void kithi_group_publish_ahead(struct kithi_index *ix, uint64_t epoch, uint64_t now_ms)
{
    KITHI_ASSERT(epoch > ix->epoch);
    kithi_publish_group(ix, epoch, kithi_index_durable_epoch(ix), now_ms);
}

void kithi_index_set_durable(struct kithi_index *ix, uint64_t epoch)
{
    uint64_t durable = epoch < ix->epoch ? epoch : ix->epoch;
    if (durable <= kithi_index_durable_epoch(ix))
        return;
    /* [P12 durable] release: whoever sees it sees the epochs up to it. Other half: kith_wait_durable(). */
    atomic_store_explicit(&ix->header->durable_epoch, durable, memory_order_release);
    kithi_publish_wake(ix);
}
