/*
 * restore.c - an index made of an image. See restore.h.
 *
 * An image's checksums say that its bytes are those that were written, not that they are good: whatever adoption does
 * not take for granted is checked here as well, and a start falls back to an older image or to the log.
 */
#include "server/index/restore.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/index/index_priv.h"
#include "shm/base/bytes.h"

#define BLOCK KITHI_REGION_ALIGN

enum block { BLOCK_NONE, BLOCK_TAKING, BLOCK_TAKEN };

struct kithi_restore {
    struct kithi_index *ix;
    struct kithi_image_shape shape;
    uint64_t want[KITHI_REGION_COUNT];           /* bytes that a region is to have memory for */
    _Atomic uint8_t *blocks[KITHI_REGION_COUNT]; /* enum block, of each region's blocks */
};

void kithi_restore_abort(struct kithi_restore *r)
{
    if (!r)
        return;
    kithi_index_close(r->ix);
    for (unsigned region = 0; region < KITHI_REGION_COUNT; region++)
        free((void *)(uintptr_t)r->blocks[region]);
    free(r);
}

/* What a new segment has taken of a block is taken again, which changes nothing. */
static int list_blocks(struct kithi_restore *r, struct kithi_errmsg *err)
{
    const struct kithi_index *ix = r->ix;
    uint64_t bytes = 0;
    for (unsigned region = 0; region < KITHI_REGION_COUNT; region++) {
        r->want[region] = kithi_round_up(r->shape.regions[region].bytes, 4096);
        if (r->want[region] > ix->taken[region])
            bytes += r->want[region] - ix->taken[region];
        r->blocks[region] = calloc(r->want[region] / BLOCK + 1, sizeof *r->blocks[region]);
        if (!r->blocks[region])
            return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    }
    return kithi_space_ask(ix, bytes, err);
}

int kithi_restore_begin(const char *path, const struct kithi_index_identity *id, uint64_t generation,
                        const struct kithi_index_tuning *tuning, const struct kithi_image_shape *shape,
                        struct kithi_restore **out, struct kithi_errmsg *err)
{
    struct kithi_restore *r = calloc(1, sizeof *r);
    struct kithi_image_shape same = *shape;
    if (!r)
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    r->shape = *shape;
    int rc = kithi_index_create(path, id, generation, tuning, &r->ix, err);
    if (rc < 0) {
        free(r);
        return rc;
    }
    rc = kithi_image_regions(&id->geometry, &r->ix->map.layout, &same, err);
    for (unsigned i = 0; i < KITHI_REGION_COUNT && rc == 0; i++)
        /* An image of before has no chunks of regions that there were not. */
        if (same.regions[i].bytes != shape->regions[i].bytes ||
            (same.regions[i].bytes && same.regions[i].chunk != shape->regions[i].chunk))
            rc = kithi_error_set(err, KITHI_E_CORRUPT, "%u slots take other bytes of %s than the image holds",
                                 shape->slots, kithi_region_name(i));
    if (rc == 0)
        rc = list_blocks(r, err);
    if (rc < 0) {
        kithi_restore_abort(r);
        unlink(path);
        return rc;
    }
    *out = r;
    return 0;
}

static int take_block(const struct kithi_restore *r, unsigned region, uint64_t block)
{
    uint64_t off = r->ix->map.layout.off[region] + block * BLOCK, left = r->want[region] - block * BLOCK;
    return left >= BLOCK ? kithi_pages_fill(r->ix, off) : kithi_space_fill(r->ix, off, left);
}

int kithi_restore_need(struct kithi_restore *r, unsigned region, uint64_t off, uint64_t len,
                       struct kithi_errmsg *err)
{
    for (uint64_t block = off / BLOCK; block * BLOCK < off + len; block++) {
        _Atomic uint8_t *state = &r->blocks[region][block];
        uint8_t none = BLOCK_NONE;
        if (atomic_compare_exchange_strong(state, &none, BLOCK_TAKING)) {
            int rc = take_block(r, region, block);
            /* Given back when it failed, or whoever waits would wait for ever: it fails for him as well. */
            atomic_store(state, rc == 0 ? BLOCK_TAKEN : BLOCK_NONE);
            if (rc < 0)
                return kithi_error_set(err, rc == -ENOSPC || rc == -ENOMEM ? KITHI_E_NO_SPACE : rc,
                                       "cannot take memory for %s: %s", kithi_region_name(region),
                                       kithi_error_text(rc));
        } else if (none != BLOCK_TAKEN) {
            sched_yield();
            block--; /* look again */
        }
    }
    return 0;
}

void *kithi_restore_place(const struct kithi_restore *r, unsigned region, uint64_t off)
{
    return r->ix->map.base + r->ix->map.layout.off[region] + off;
}

/* Give a record the state that it has at the epoch. True when it is one of the dead. */
static bool settle_record(struct kithi_record *r, uint64_t epoch)
{
    /* Relaxed: nobody else sees this segment. */
    uint64_t birth = atomic_load_explicit(&r->birth, memory_order_relaxed);
    uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
    if (!atomic_load_explicit(&r->linked, memory_order_relaxed)) {
        memset(r, 0, sizeof *r);
    } else if (kithi_visible_at(birth, death, epoch)) {
        atomic_store_explicit(&r->death, 0, memory_order_relaxed);
    } else {
        /* ABORTED (record.h), with nothing of its own: what it held may be another's by now. */
        memset(r, 0, sizeof *r);
        atomic_store_explicit(&r->linked, 1, memory_order_relaxed);
        atomic_store_explicit(&r->death, epoch ? epoch : 1, memory_order_relaxed);
        atomic_store_explicit(&r->meta, kithi_meta_pack(0, 1), memory_order_relaxed);
        return true;
    }
    return false;
}

static uint32_t level_of(const struct kithi_view *v, uint32_t slot)
{
    return kithi_meta_level(atomic_load_explicit(&kithi_view_record(v, slot)->meta, memory_order_relaxed));
}

/* The dead have lost their upper rows: nothing leads to them up there. */
static void clear_upper_links(const struct kithi_index *ix, const _Atomic bool *stop)
{
    const struct kithi_view *v = &ix->view;
    for (uint32_t slot = 0; slot < ix->slots_used && !kithi_stop_seen(stop, slot); slot++) {
        for (uint32_t at = level_of(v, slot); at > 0; at--) {
            uint32_t count;
            kithi_link *links = kithi_view_links(v, slot, at, &count);
            for (uint32_t i = 0; links && i < count; i++) {
                uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
                if (link && (link > ix->slots_used || level_of(v, link - 1) < at))
                    atomic_store_explicit(&links[i], 0, memory_order_relaxed);
            }
        }
    }
}

static void settle_header(struct kithi_index *ix, const struct kithi_image_shape *s)
{
    struct kithi_header *h = ix->header;
    atomic_store_explicit(&h->slots_used, s->slots, memory_order_relaxed);
    atomic_store_explicit(&h->epoch, s->epoch, memory_order_relaxed);
    atomic_store_explicit(&h->durable_epoch, s->epoch, memory_order_relaxed);
    atomic_store_explicit(&h->timeline, s->timeline, memory_order_relaxed);
    /* What died before was not copied. */
    atomic_store_explicit(&h->unlinked, s->epoch, memory_order_relaxed);
    atomic_store_explicit(&h->reused, s->epoch, memory_order_relaxed);
}

/* Where it was told to stop a step is left early, and the last check says so. */
static int settle(struct kithi_restore *r, const _Atomic bool *stop, struct kithi_errmsg *err)
{
    struct kithi_index *ix = r->ix;
    for (unsigned region = 0; region < KITHI_REGION_COUNT; region++) {
        uint64_t taken = r->want[region];
        if (taken <= ix->taken[region])
            continue;
        if (taken > ix->map.layout.size[region])
            taken = ix->map.layout.size[region];
        ix->taken[region] = taken;
        atomic_store_explicit(&ix->header->taken[region], taken, memory_order_relaxed);
    }
    settle_header(ix, &r->shape);
    ix->epoch = r->shape.epoch;
    ix->slots_used = r->shape.slots;
    kithi_postings_restart(ix);
    struct demand none = { 0 };
    int rc = kithi_alloc_reserve(ix, &none, err); /* the doubt bits, and the view of it all */
    if (rc < 0)
        return rc;
    bool any_dead = false;
    for (uint32_t slot = 0; slot < ix->slots_used && !kithi_stop_seen(stop, slot); slot++)
        any_dead |= settle_record(kithi_view_record(&ix->view, slot), ix->epoch);
    rc = kithi_private_rebuild(ix, stop, err);
    if (rc == 0 && any_dead)
        clear_upper_links(ix, stop);
    if (rc == 0 && ix->live != r->shape.live)
        rc = kithi_error_set(err, KITHI_E_CORRUPT, "%llu vectors are there, the image had %llu",
                             (unsigned long long)ix->live, (unsigned long long)r->shape.live);
    if (rc == 0)
        rc = kithi_ids_fill(ix, stop, err);
    if (rc == 0)
        rc = kithi_alloc_reserve(ix, &none, err);
    return rc == 0 && kithi_stop_seen(stop, 0) ? kithi_error_set(err, -ECANCELED, "told to stop") : rc;
}

int kithi_restore_end(struct kithi_restore *r, const _Atomic bool *stop, struct kithi_index **out,
                      struct kithi_errmsg *err)
{
    int rc = settle(r, stop, err);
    if (rc < 0) {
        kithi_restore_abort(r);
        return rc;
    }
    struct kithi_index *ix = r->ix;
    atomic_store_explicit(&ix->header->live, ix->live, memory_order_relaxed);
    pthread_mutex_lock(&ix->entry_lock);
    kithi_entry_replace(ix);
    pthread_mutex_unlock(&ix->entry_lock);
    kithi_ledger_begin(ix);
    kithi_notes_begin(ix);
    r->ix = NULL;
    kithi_restore_abort(r);
    *out = ix;
    return 0;
}
