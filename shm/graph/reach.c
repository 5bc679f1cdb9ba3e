/*
 * reach.c - see reach.h.
 *
 * Trusts nothing: a link is compared with the limits of the view, and each slot joins the queue once.
 */
#include "shm/graph/reach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/base/error.h"

#define WALKS         4u   /* that have to miss a slot */
#define WALKS_AT_REST 2u   /* where no writer runs */
#define STOP_SLOTS    256u /* between two looks whether to stop */

static void arrive(struct kithi_reach *r, uint32_t link, uint32_t by)
{
    if (link == 0 || link > r->view.slots_used || kithi_reach_has(r, link - 1))
        return;
    r->reached[(link - 1) / 64] |= UINT64_C(1) << ((link - 1) % 64);
    r->queue[r->tail++] = link - 1;
    if (r->by)
        r->by[link - 1] = by;
}

int kithi_reach_begin(struct kithi_reach *r, const struct kithi_map *map)
{
    memset(r, 0, sizeof *r);
    kithi_view_begin(map, &r->view);
    r->reached = calloc((size_t)r->view.slots_used / 64 + 1, sizeof *r->reached);
    r->queue = malloc(((size_t)r->view.slots_used + 1) * sizeof *r->queue);
    if (!r->reached || !r->queue) {
        kithi_reach_end(r);
        return -ENOMEM;
    }
    arrive(r, kithi_entry_link(atomic_load_explicit(&r->view.header->entry, memory_order_acquire)), 0);
    return 0;
}

int kithi_reach_keep_ways(struct kithi_reach *r)
{
    r->by = calloc((size_t)r->view.slots_used + 1, sizeof *r->by);
    return r->by ? 0 : -ENOMEM;
}

static void expand(struct kithi_reach *r, uint32_t slot, unsigned level)
{
    uint32_t count;
    const kithi_link *links = kithi_view_links(&r->view, slot, level, &count);
    for (uint32_t i = 0; links && i < count; i++)
        arrive(r, atomic_load_explicit(&links[i], memory_order_acquire), slot + 1);
}

bool kithi_reach_step(struct kithi_reach *r, uint32_t slots)
{
    for (; slots && r->head < r->tail; slots--) {
        uint32_t slot = r->queue[r->head++];
        const struct kithi_record *record = kithi_view_record(&r->view, slot);
        unsigned level = kithi_meta_level(atomic_load_explicit(&record->meta, memory_order_relaxed));
        expand(r, slot, 0);
        for (unsigned at = 1; r->above && at <= level && at <= KITHI_LEVEL_MAX; at++)
            expand(r, slot, at);
    }
    return r->head < r->tail;
}

void kithi_reach_go_above(struct kithi_reach *r)
{
    r->above = true;
    r->head = 0;
}

void kithi_reach_add(struct kithi_reach *r, uint32_t slot, uint32_t by)
{
    arrive(r, slot + 1, by);
}

bool kithi_reach_misses(const struct kithi_reach *r, uint32_t slot)
{
    const struct kithi_record *record = kithi_view_record(&r->view, slot);
    uint64_t birth;
    /* One that has died since may have been unlinked rightly. */
    return !kithi_reach_has(r, slot) && kithi_view_visible(&r->view, record, &birth) &&
           atomic_load_explicit(&record->death, memory_order_relaxed) == 0 && kithi_birth_same(record, birth);
}

void kithi_reach_end(struct kithi_reach *r)
{
    free(r->reached);
    free(r->queue);
    free(r->by);
    r->reached = NULL;
    r->queue = NULL;
    r->by = NULL;
}

/* ---- several walks ---- */

static bool is_stopped(const _Atomic bool *stop)
{
    return stop && atomic_load_explicit(stop, memory_order_relaxed);
}

static void pause_ms(uint64_t ms)
{
    struct timespec t = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };
    nanosleep(&t, NULL); /* one that is cut short makes the next walk an earlier one */
}

static int walk(struct kithi_reach *r, const _Atomic bool *stop)
{
    while (kithi_reach_step(r, STOP_SLOTS))
        if (is_stopped(stop))
            return -ECANCELED;
    return 0;
}

/* Slots that this walk and all before it have missed stay in the bitmap (slots wide); those born since began are none of them. */
static void strike(const struct kithi_reach *r, uint64_t epoch, uint32_t slots, uint64_t *missed,
                   struct kithi_reach_report *out)
{
    uint64_t birth;
    out->epoch = r->view.epoch;
    out->live_count = out->unreachable_count = 0;
    for (uint32_t slot = 0; slot < r->view.slots_used; slot++) {
        const struct kithi_record *record = kithi_view_record(&r->view, slot);
        out->live_count += kithi_view_visible(&r->view, record, &birth);
        if (slot >= slots)
            continue;
        uint64_t bit = UINT64_C(1) << (slot % 64);
        if (!(missed[slot / 64] & bit))
            continue;
        if (birth <= epoch && kithi_reach_misses(r, slot))
            out->unreachable_count++;
        else
            missed[slot / 64] &= ~bit;
    }
}

static int tell(struct kithi_reach *r, uint32_t slots, const uint64_t *missed, const _Atomic bool *stop,
                kithi_reach_fn *fn, void *arg, struct kithi_reach_report *out)
{
    kithi_reach_go_above(r);
    int rc = walk(r, stop);
    for (uint32_t slot = 0; slot < slots && slot < r->view.slots_used && rc == 0; slot++) {
        if (!(missed[slot / 64] >> (slot % 64) & 1))
            continue;
        bool above = kithi_reach_has(r, slot);
        out->above_count += above;
        if (fn)
            fn(arg, &r->view, slot, above);
    }
    return rc;
}

int kithi_reach_prove(const struct kithi_map *map, uint32_t patience_ms, const _Atomic bool *stop,
                      kithi_reach_fn *fn, void *arg, struct kithi_reach_report *out)
{
    struct kithi_reach_report report = { .epoch = 0 };
    struct kithi_reach r;
    uint64_t *missed = NULL, epoch = 0;
    uint32_t slots = 0;
    int rc = kithi_reach_begin(&r, map);
    if (rc < 0)
        return rc;
    epoch = r.view.epoch;
    slots = r.view.slots_used;
    missed = malloc(((size_t)slots / 64 + 1) * sizeof *missed);
    if (!missed) {
        rc = -ENOMEM;
        goto out;
    }
    memset(missed, 0xff, ((size_t)slots / 64 + 1) * sizeof *missed);
    for (unsigned i = 0;; i++) {
        rc = walk(&r, stop);
        if (rc < 0)
            goto out;
        strike(&r, epoch, slots, missed, &report);
        if (report.unreachable_count == 0 || i + 1 == (patience_ms ? WALKS : WALKS_AT_REST))
            break;
        kithi_reach_end(&r);
        pause_ms(patience_ms >> 2 * (WALKS - 1 - i));
        rc = kithi_reach_begin(&r, map);
        if (rc < 0)
            goto out;
    }
    if (report.unreachable_count)
        rc = tell(&r, slots, missed, stop, fn, arg, &report);
    if (rc == 0 && kithi_view_moved(&r.view))
        rc = KITHI_E_MOVED;
    if (rc == 0)
        *out = report;
out:
    kithi_reach_end(&r);
    free(missed);
    return rc;
}
