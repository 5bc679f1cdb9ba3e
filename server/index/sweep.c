/*
 * sweep.c - from dead to free: one pass over all rows unlinks a batch of dead slots.
 *
 * A pass costs some 20 ns a slot, most of it reading rows in order, and unlinks thousands of
 * dead slots at once; keeping lists of in-neighbours instead would cost memory for every link
 * and two random writes for every change of one. After the pass no finder leads to the batch:
 * no row (checked one by one), no id entry, not the entry point. Insertions that run beside it
 * cannot bring a link back: they choose no dead slot, and slots of the batch died before those
 * insertions began.
 *
 * Jobs run on workers, under row locks; the batch itself does not change while they run.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/graph/search.h"

#define SLOTS_PER_JOB 4096u
/* A pass is due when this share of the slots is dead, ... */
#define DUE_SHARE 64u
#define DUE_MIN 64u
/* ... or when the oldest has waited so long that passes take at most about 1 % of the time. */
#define DUE_MS 250u
#define SLOTS_PER_MS 500u
/* Candidates of a lost link that are compared with the links that stay. */
#define REPAIR_TRIES 4u

static bool is_doomed(const struct sweep *s, uint32_t slot)
{
    return slot < s->slots && (s->doomed[slot / 64] >> (slot % 64) & 1);
}

static void free_rested(struct kithi_index *ix, uint64_t now_ms)
{
    while (ix->resting.count) {
        const struct waiting *w = &ix->resting.items[ix->resting.head];
        if (now_ms - w->since_ms < ix->tuning.rest_ms) break;
        kithi_alloc_free(ix, kithi_queue_pop(&ix->resting).slot);
    }
}

static uint64_t patience_ms(const struct kithi_index *ix)
{
    uint64_t ms = ix->slots_used / SLOTS_PER_MS;
    return ms > DUE_MS ? ms : DUE_MS;
}

/* Dead slots whose grace is over, or 0 when a pass would not pay yet. */
static uint32_t due_count(const struct kithi_index *ix, uint64_t now_ms)
{
    /* The queue is in order of time: the boundary is found by halving. */
    uint32_t n = 0, end = ix->dead.count;
    while (n < end) {
        uint32_t mid = n + (end - n) / 2;
        if (now_ms - ix->dead.items[(ix->dead.head + mid) % ix->dead.capacity].since_ms >= ix->tuning.grace_ms)
            n = mid + 1;
        else
            end = mid;
    }
    if (n == 0) return 0;
    uint64_t age = now_ms - ix->dead.items[ix->dead.head].since_ms;
    bool crowded = n >= DUE_MIN && n >= ix->slots_used / DUE_SHARE;
    bool cramped = ix->slots_free.count + (ix->map.geometry.slot_max - ix->slots_used) < n;
    return crowded || cramped || age >= patience_ms(ix) ? n : 0;
}

static void wait_until(uint32_t *out, uint64_t due_ms, uint64_t now_ms)
{
    uint64_t ms = due_ms > now_ms ? due_ms - now_ms : 1;
    if (ms < *out) *out = (uint32_t)ms;
}

uint32_t kithi_sweep_begin(struct kithi_index *ix, uint64_t now_ms, uint32_t *out_wait_ms)
{
    struct sweep *s = &ix->sweep;
    KITHI_ASSERT(!s->running);
    free_rested(ix, now_ms);

    uint32_t wait = UINT32_MAX, n = due_count(ix, now_ms);
    if (ix->resting.count)
        wait_until(&wait, ix->resting.items[ix->resting.head].since_ms + ix->tuning.rest_ms, now_ms);
    if (ix->dead.count && n == 0)
        wait_until(&wait, ix->dead.items[ix->dead.head].since_ms + patience_ms(ix), now_ms);
    *out_wait_ms = wait;
    kithi_alloc_tallies(ix);
    if (n == 0) return 0;

    uint32_t words = (ix->slots_used + 63) / 64;
    if (s->doomed_words < words) {
        uint64_t *p = realloc(s->doomed, words * sizeof *p);
        if (!p) return 0; /* tried again when the wait is over */
        s->doomed = p;
        s->doomed_words = words;
    }
    memset(s->doomed, 0, words * sizeof *s->doomed);
    s->slots = ix->slots_used;
    s->slots_doomed.count = 0;
    uint64_t mark = atomic_load_explicit(&ix->header->unlinked, memory_order_relaxed);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = kithi_queue_pop(&ix->dead).slot;
        /* An aborted slot was never born: no reader can miss it. */
        const struct kithi_record *r = kithi_view_record(&ix->view, slot);
        uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
        if (atomic_load_explicit(&r->birth, memory_order_relaxed) != 0 && death > mark) mark = death;
        s->doomed[slot / 64] |= UINT64_C(1) << (slot % 64);
        s->slots_doomed.items[s->slots_doomed.count++] = slot; /* room was reserved */
    }
    /* [P3 unlinked] the mark stands before the first finder goes: each job fences after it. Other
     * half: kithi_view_unlinked(). */
    atomic_store_explicit(&ix->header->unlinked, mark, memory_order_release);
    kithi_view_begin(&ix->map, &s->view);
    atomic_store_explicit(&s->best, 0, memory_order_relaxed);
    s->running = true;
    return (s->slots + SLOTS_PER_JOB - 1) / SLOTS_PER_JOB;
}

static bool row_has(const kithi_link *links, uint32_t count, uint32_t slot)
{
    for (uint32_t i = 0; i < count; i++)
        if (atomic_load_explicit(&links[i], memory_order_relaxed) == slot + 1) return true;
    return false;
}

/*
 * A living neighbour of lost, at level, to stand in for it in the row of centre: the nearest that
 * is not nearer to a neighbour that stays than to centre. NO_SLOT when there is none.
 */
static uint32_t stand_in(struct kithi_index *ix, struct worker *w, uint32_t centre, uint32_t lost, unsigned level,
                         const kithi_link *links, uint32_t count)
{
    const struct sweep *s = &ix->sweep;
    const struct kithi_view *v = &s->view;
    const struct kithi_kernel *k = w->scratch.kernel;
    const float *from = kithi_view_vector(v, centre);
    uint32_t places, n = 0;
    const kithi_link *theirs = kithi_view_links(v, lost, level, &places);
    if (!theirs) return NO_SLOT;
    for (uint32_t i = 0; i < places; i++) {
        uint32_t link = atomic_load_explicit(&theirs[i], memory_order_relaxed);
        if (link - 1u >= v->slot_limit || link - 1 == centre || is_doomed(s, link - 1)) continue;
        if (!kithi_slot_eligible(v, link - 1) || row_has(links, count, link - 1)) continue;
        w->candidates[n++] = (struct candidate){kithi_view_distance(v, k, from, link - 1), link - 1};
    }
    kithi_candidates_sort(w->candidates, n);
    for (uint32_t i = 0; i < n && i < REPAIR_TRIES; i++) {
        const float *row = kithi_view_vector(v, w->candidates[i].slot);
        bool covered = false;
        for (uint32_t j = 0; j < count && !covered; j++) {
            uint32_t link = atomic_load_explicit(&links[j], memory_order_relaxed);
            if (link - 1u >= v->slot_limit || is_doomed(s, link - 1)) continue;
            covered = kithi_view_distance(v, k, row, link - 1) < w->candidates[i].distance;
        }
        if (!covered) return w->candidates[i].slot;
    }
    return NO_SLOT;
}

static void sweep_row(struct kithi_index *ix, struct worker *w, uint32_t slot, unsigned level, bool repair)
{
    const struct sweep *s = &ix->sweep;
    uint32_t count;
    kithi_link *links = kithi_view_links(&s->view, slot, level, &count);
    if (!links) return;
    bool any = false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
        any |= link && is_doomed(s, link - 1);
    }
    if (!any) return;
    pthread_mutex_lock(kithi_row_lock(ix, slot));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
        if (!link || !is_doomed(s, link - 1)) continue;
        uint32_t other = repair ? stand_in(ix, w, slot, link - 1, level, links, count) : NO_SLOT;
        /* One store takes the dead link away and puts the new one in its place. */
        atomic_store_explicit(&links[i], other == NO_SLOT ? 0 : other + 1, memory_order_release);
    }
    pthread_mutex_unlock(kithi_row_lock(ix, slot));
}

static void offer_entry(struct sweep *s, uint32_t slot, uint32_t level)
{
    uint64_t mine = kithi_entry_pack(slot, level), best = atomic_load_explicit(&s->best, memory_order_relaxed);
    while (best == 0 || level > kithi_entry_level(best))
        if (atomic_compare_exchange_weak_explicit(&s->best, &best, mine, memory_order_relaxed, memory_order_relaxed))
            break;
}

void kithi_sweep_job(struct kithi_index *ix, unsigned worker, uint32_t i)
{
    struct sweep *s = &ix->sweep;
    const struct kithi_view *v = &s->view;
    /* [P3 unlinked] release fence between the mark, which the owner stored before it handed out the
     * jobs, and the unlinking below. */
    atomic_thread_fence(memory_order_release);
    uint32_t end = (i + 1) * SLOTS_PER_JOB < s->slots ? (i + 1) * SLOTS_PER_JOB : s->slots;
    for (uint32_t slot = i * SLOTS_PER_JOB; slot < end; slot++) {
        const struct kithi_record *r = kithi_view_record(v, slot);
        if (!atomic_load_explicit(&r->linked, memory_order_acquire)) continue;
        bool alive = !is_doomed(s, slot) && kithi_slot_eligible(v, slot);
        unsigned level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
        if (level > KITHI_LEVEL_MAX) level = KITHI_LEVEL_MAX;
        /* Rows of the dead are cleaned, not repaired: others still walk through them, and they keep
         * their links to the living, which the repair of other rows reads. */
        for (unsigned at = 0; at <= level; at++) sweep_row(ix, &ix->workers[worker], slot, at, alive);
        if (alive) offer_entry(s, slot, level);
    }
}

/* The entry point must not lead into the batch when the jobs have ended. */
static void replace_entry(struct kithi_index *ix)
{
    struct sweep *s = &ix->sweep;
    pthread_mutex_lock(&ix->entry_lock);
    uint64_t entry = atomic_load_explicit(&ix->header->entry, memory_order_relaxed);
    if (entry && is_doomed(s, kithi_entry_link(entry) - 1)) {
        uint64_t best = atomic_load_explicit(&s->best, memory_order_relaxed);
        /* An insertion may have linked its slot after the pass went by: it did so before it asked
         * for the entry lock, so a look under that lock finds it (kithi_group_job). */
        for (uint32_t slot = 0; best == 0 && slot < ix->slots_used; slot++) {
            const struct kithi_record *r = kithi_view_record(&ix->view, slot);
            if (!is_doomed(s, slot) && atomic_load_explicit(&r->linked, memory_order_acquire) &&
                atomic_load_explicit(&r->death, memory_order_relaxed) == 0)
                best = kithi_entry_pack(slot, kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed)));
        }
        atomic_store_explicit(&ix->header->entry, best, memory_order_release);
    }
    pthread_mutex_unlock(&ix->entry_lock);
}

void kithi_sweep_end(struct kithi_index *ix, uint64_t now_ms)
{
    struct sweep *s = &ix->sweep;
    KITHI_ASSERT(s->running);
    replace_entry(ix);
    for (uint32_t i = 0; i < s->slots_doomed.count; i++) {
        uint32_t slot = s->slots_doomed.items[i];
        kithi_ids_redirect(ix, slot, 0);
        kithi_queue_push(&ix->resting, slot, now_ms); /* room was reserved */
    }
    s->slots_doomed.count = 0;
    s->running = false;
    atomic_fetch_add_explicit(&ix->header->tally_sweeps, 1, memory_order_relaxed);
    kithi_alloc_tallies(ix);
}

void kithi_sweep_fini(struct kithi_index *ix)
{
    free(ix->sweep.doomed);
    free(ix->sweep.slots_doomed.items);
    free(ix->dead.items);
    free(ix->resting.items);
}
