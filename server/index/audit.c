/*
 * audit.c - living slots that no link leads to: they are found by a walk of the whole graph, and linked anew.
 *
 * Pruning a row and unlinking the dead take links from rows of others, and choose what stays by distances: that the last
 * link to somebody goes is rare, and nothing prevents it. Such a slot has links of its own, so that linking it once
 * more brings it back, and with it all that only it leads to. It gets a place in the row of a neighbour of its own that was reached, where the row is
 * full that of a link that is covered by others, or of the longest one, but never of one by which the walk came somewhere first: so what was reached
 * stays so, and one pass is enough. Where none of its neighbours was reached it is linked as an insertion does it.
 *
 * Jobs change links only, under row locks, beside insertions. They choose no slot with a death, and no slot is swept
 * while one runs (sweep.c), so no link to a slot of a sweep's batch appears behind the sweep's back.
 */
#include <errno.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/graph/walk.h"

/* Of one piece: a millisecond or two. */
#define STEP_SLOTS  2048u
#define JUDGE_SLOTS 16384u
#define MEND_SLOTS  4u
#define WAYS        2u  /* into one that is linked anew: one may be pruned away as the last one was */
#define DRAWS       16u /* for a sample, until one is visible */

uint64_t kithi_audit_mark(const struct kithi_index *ix)
{
    /* Relaxed: the owner stores it. */
    return ix->epoch + atomic_load_explicit(&ix->header->emptied, memory_order_relaxed);
}

int kithi_audit_begin(struct kithi_index *ix)
{
    struct audit *a = &ix->audit;
    KITHI_ASSERT(!a->walk.queue && !ix->sweep.running && !kithi_index_census_due(ix));
    int status = kithi_reach_begin(&a->walk, &ix->map);
    if (status == 0)
        status = kithi_reach_keep_ways(&a->walk);
    if (status < 0)
        kithi_reach_end(&a->walk);
    return status;
}

bool kithi_audit_is_begun(const struct kithi_index *ix)
{
    return ix->audit.walk.queue != NULL;
}

void kithi_audit_open(struct kithi_index *ix)
{
    KITHI_ASSERT(!ix->audit.open);
    ix->audit.open = true;
}

void kithi_audit_close(struct kithi_index *ix)
{
    ix->audit.open = false;
}

bool kithi_audit_found(const struct kithi_index *ix, struct kithi_audit_found *out)
{
    const struct audit *a = &ix->audit;
    *out = (struct kithi_audit_found){ .missed = a->missed.count, .relinked = a->relinked };
    return a->over;
}

void kithi_audit_end(struct kithi_index *ix)
{
    struct audit *a = &ix->audit;
    kithi_reach_end(&a->walk);
    free(a->missed.items);
    *a = (struct audit){ .open = false };
}

/* ---- linking anew ---- */

/* Does a slot that the walk has reached lead to this one? Links back are to its own neighbours. */
static bool has_way_in(const struct kithi_reach *walk, const struct kithi_view *v, uint32_t slot)
{
    const kithi_link *own = kithi_view_row(v, slot);
    for (uint32_t i = 0; i < v->link_count0; i++) {
        uint32_t other = atomic_load_explicit(&own[i], memory_order_relaxed) - 1;
        if (other >= walk->view.slots_used || !kithi_reach_has(walk, other))
            continue;
        const kithi_link *row = kithi_view_row(v, other);
        for (uint32_t j = 0; j < v->link_count0; j++)
            if (atomic_load_explicit(&row[j], memory_order_relaxed) == slot + 1)
                return true;
    }
    return false;
}

/*
 * The living slot nearest to this one that a walk of level 0 from the entry point finds, or NO_SLOT. An insertion comes down
 * from upper levels, which may lead right into an island, and finds nobody else there.
 */
static uint32_t nearest_from_entry(const struct kithi_index *ix, const struct kithi_view *v, struct worker *w,
                                   uint32_t slot)
{
    struct kithi_scratch *s = &w->scratch;
    uint64_t entry = atomic_load_explicit(&ix->header->entry, memory_order_acquire);
    uint32_t from = kithi_entry_link(entry) - 1, count;
    kithi_view_decode_vector(v, slot, w->vector);
    if (from >= v->slot_limit || kithi_walk_query(v, s, w->vector) < 0 ||
        kithi_walk_begin(v, s, v->map->geometry.ef_construction, 0, KITHI_EYES_WRITER) < 0 ||
        kithi_walk_seed(v, s, from) < 0 || kithi_walk(v, s, 0, NULL) < 0)
        return NO_SLOT;
    const struct kithi_beam_entry *e = kithi_walk_found(s, &count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = e[i].slot & KITHI_BEAM_SLOT;
        if (!(e[i].slot & KITHI_BEAM_GHOST) && other != slot && kithi_slot_eligible(v, other))
            return other;
    }
    return NO_SLOT;
}

/* The place in a full row that is missed least: of a dead one, else of the farthest that another link covers, else of
 * the farthest. By walk (may be NULL) somebody may have been reached by one of them alone, which stays. */
static uint32_t least_needed(const struct row *r, const struct kithi_kernel *k,
                             const struct kithi_reach *walk)
{
    const struct kithi_view *v = r->view;
    uint32_t covered = NO_SLOT, farthest = NO_SLOT;
    float covered_at = 0, farthest_at = 0, nearest = FLT_MAX;
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        float d = link - 1u < v->slot_limit ? kithi_pair(v, k, r->slot, link - 1) : FLT_MAX;
        nearest = d < nearest ? d : nearest;
    }
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        if (link - 1u >= v->slot_limit)
            continue; /* newer than this view */
        if (walk ? link - 1 >= walk->view.slots_used || kithi_reach_is_way(walk, r->slot, link - 1)
                 : !kithi_has_other_way(v, link - 1, r->slot))
            continue;
        if (!kithi_slot_eligible(v, link - 1))
            return i;
        float d = kithi_pair(v, k, r->slot, link - 1);
        bool is_covered = false;
        for (uint32_t j = 0; j < r->count && !is_covered; j++) {
            uint32_t other = atomic_load_explicit(&r->links[j], memory_order_relaxed);
            if (j == i || other - 1u >= v->slot_limit || !kithi_slot_eligible(v, other - 1))
                continue;
            /* Of many that are equal each covers the others. */
            float between = kithi_pair(v, k, link - 1, other - 1);
            is_covered = between < d || (d <= nearest && between <= d);
        }
        if (is_covered && (covered == NO_SLOT || d > covered_at)) {
            covered = i;
            covered_at = d;
        }
        if (farthest == NO_SLOT || d > farthest_at) {
            farthest = i;
            farthest_at = d;
        }
    }
    return covered != NO_SLOT ? covered : farthest;
}

/* Lead the row of other to slot, if need be in the place of another link; false when none can be spared. */
static bool force(struct kithi_index *ix, const struct kithi_view *v, struct worker *w, uint32_t other,
                  uint32_t slot, const struct kithi_reach *walk)
{
    struct row r;
    if (other == NO_SLOT || !kithi_row_open(v, other, 0, &r))
        return false;
    pthread_mutex_lock(kithi_row_lock(ix, other));
    bool done = kithi_row_add(&r, w, slot, NULL, false);
    if (!done) {
        uint32_t place = least_needed(&r, w->scratch.kernel, walk);
        done = place != NO_SLOT;
        if (done)
            kithi_row_put(&r, w, place, slot, NULL, false);
    }
    pthread_mutex_unlock(kithi_row_lock(ix, other));
    return done;
}

bool kithi_way_in(struct kithi_index *ix, const struct kithi_view *v, struct worker *w, uint32_t other,
                  uint32_t slot)
{
    return force(ix, v, w, other, slot, NULL);
}

/* Lead some of the neighbours of slot that were reached to it; returns the first, or NO_SLOT. */
static uint32_t mend_by_neighbours(struct kithi_index *ix, const struct kithi_view *v, struct worker *w,
                                   uint32_t slot)
{
    const struct kithi_reach *walk = &ix->audit.walk;
    const kithi_link *own = kithi_view_row(v, slot);
    uint32_t first = NO_SLOT, count = 0;
    for (uint32_t i = 0; i < v->link_count0 && count < WAYS; i++) {
        uint32_t other = atomic_load_explicit(&own[i], memory_order_relaxed) - 1;
        if (other >= walk->view.slots_used || !kithi_reach_has(walk, other) ||
            !kithi_slot_eligible(v, other) || !force(ix, v, w, other, slot, walk))
            continue;
        first = first == NO_SLOT ? other : first;
        count++;
    }
    return first;
}

static void mend(struct kithi_index *ix, unsigned worker, uint32_t slot)
{
    struct audit *a = &ix->audit;
    struct worker *w = &ix->workers[worker];
    struct kithi_view v;
    if (kithi_reach_has(&a->walk, slot) || !kithi_reach_misses(&a->walk, slot))
        return; /* one that was seen to leads to it, or it has died */
    kithi_view_begin(&ix->map, &v);
    uint32_t by = mend_by_neighbours(ix, &v, w, slot);
    if (by == NO_SLOT) {
        kithi_relink(ix, worker, slot, &(struct look){ .ef = ix->map.geometry.ef_construction });
        kithi_view_begin(&ix->map, &v);
        if (!has_way_in(&a->walk, &v, slot)) {
            by = nearest_from_entry(ix, &v, w, slot);
            if (!force(ix, &v, w, by, slot, &a->walk))
                return; /* another one of its island may be luckier */
        }
    }
    a->relinked++;
    kithi_reach_add(&a->walk, slot, by == NO_SLOT ? 0 : by + 1);
    while (kithi_reach_step(&a->walk, STEP_SLOTS))
        continue;
}

void kithi_audit_job(struct kithi_index *ix, unsigned worker)
{
    struct audit *a = &ix->audit;
    uint32_t end = a->walk.view.slots_used;
    if (a->judged == 0 && kithi_reach_step(&a->walk, STEP_SLOTS))
        return;
    if (a->judged < end) {
        uint32_t to = end - a->judged > JUDGE_SLOTS ? a->judged + JUDGE_SLOTS : end;
        for (; a->judged < to; a->judged++)
            if (kithi_reach_misses(&a->walk, a->judged))
                (void)kithi_stack_push(&a->missed, a->judged); /* without memory the next pass finds it */
        return;
    }
    for (unsigned i = 0; i < MEND_SLOTS && a->mended < a->missed.count; i++)
        mend(ix, worker, a->missed.items[a->mended++]);
    a->over = a->mended == a->missed.count;
}

/* ---- samples ---- */

static uint32_t draw(const struct kithi_view *v, uint64_t random)
{
    for (unsigned i = 0; i < DRAWS && v->slots_used; i++) {
        uint64_t birth;
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint32_t slot = (uint32_t)((random >> 32) % v->slots_used);
        const struct kithi_record *r = kithi_view_record(v, slot);
        if (kithi_view_visible(v, r, &birth) && kithi_slot_eligible(v, slot))
            return slot;
    }
    return NO_SLOT;
}

/* Look for slot from the entry point down: 1 found, 0 not, but *out_nearest, -1 it says nothing. */
static int look_for(struct kithi_index *ix, const struct kithi_view *v, struct worker *w, uint32_t slot,
                    uint32_t *out_nearest)
{
    struct kithi_scratch *s = &w->scratch;
    uint64_t entry = atomic_load_explicit(&ix->header->entry, memory_order_acquire);
    uint32_t from = kithi_entry_link(entry) - 1, count, n = 0, ef = v->map->geometry.ef_construction;
    *out_nearest = NO_SLOT;
    if (from >= v->slot_limit || kithi_entry_level(entry) > KITHI_LEVEL_MAX)
        return -1;
    kithi_view_decode_vector(v, slot, w->vector);
    if (kithi_walk_query(v, s, w->vector) < 0 || kithi_walk_begin(v, s, 1, 0, KITHI_EYES_WRITER) < 0)
        return -1;
    kithi_walk_descend(v, s, kithi_entry_level(entry), 0, &from);
    if (kithi_walk_begin(v, s, ef, 0, KITHI_EYES_WRITER) < 0 || kithi_walk_seed(v, s, from) < 0 ||
        kithi_walk(v, s, 0, NULL) < 0)
        return -1;
    const struct kithi_beam_entry *e = kithi_walk_found(s, &count);
    float own = kithi_walk_distance(v, s, slot), worst = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = e[i].slot & KITHI_BEAM_SLOT;
        if (other == slot)
            return 1;
        if (e[i].slot & KITHI_BEAM_GHOST)
            continue;
        if (*out_nearest == NO_SLOT && kithi_slot_eligible(v, other))
            *out_nearest = other;
        n++;
        worst = e[i].distance;
    }
    return n >= ef && worst <= own ? -1 : 0; /* a crowd of equals */
}

int kithi_audit_sample_job(struct kithi_index *ix, unsigned worker, uint64_t random)
{
    struct worker *w = &ix->workers[worker];
    struct kithi_view v;
    uint32_t nearest;
    kithi_view_begin(&ix->map, &v);
    uint32_t slot = draw(&v, random);
    int found = slot == NO_SLOT ? -1 : look_for(ix, &v, w, slot, &nearest);
    if (found)
        return found;
    kithi_relink(ix, worker, slot, &(struct look){ .ef = ix->map.geometry.ef_construction });
    if (look_for(ix, &v, w, slot, &nearest) == 0)
        (void)force(ix, &v, w, nearest, slot, NULL);
    return 0;
}
