/*
 * adopt.c - taking over a segment whose last owner died at some instruction.
 *
 * Readers go on meanwhile, at the epoch that the header shows. Whatever the dead owner had begun
 * beyond that epoch is taken back: first id entries lead to the earlier version again, then
 * deaths beyond the epoch become 0, payloads beyond it are those of before, and births beyond it become 0. Each step is harmless to a
 * reader and leaves a segment that can be adopted again. Slots that were linked but never
 * born become ABORTED and wait for a sweep like dead ones; dead and resting ones cannot be told
 * apart and all wait for a sweep.
 *
 * The last owner has noted which slots that may concern (notes.h), so it takes as long as its groups under way are large. Who
 * is dead and what is free is found out behind, while the collection is served (census.c). Without notes all of it is
 * done at once, from the records alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"

static uint64_t birth_of(const struct kithi_record *r)
{
    return atomic_load_explicit(&r->birth, memory_order_relaxed);
}

static bool is_linked(const struct kithi_record *r)
{
    return atomic_load_explicit(&r->linked, memory_order_relaxed) != 0;
}

/* The version of slot's id that the epoch sees or saw last: slot + 1, or 0. */
static uint32_t earlier_version(const struct kithi_index *ix, uint32_t slot)
{
    char id[KITHI_ID_INLINE + 512], other[KITHI_ID_INLINE + 512];
    size_t len = kithi_view_id(&ix->view, slot, id);
    for (uint32_t n = 0, first = slot; n <= ix->slots_used; n++) {
        const struct kithi_record *r = kithi_view_record(&ix->view, slot);
        uint32_t prev = atomic_load_explicit(&r->prev, memory_order_relaxed);
        if (prev - 1u >= ix->slots_used)
            return 0;
        slot = prev - 1;
        if (slot == first) /* what was rewritten and swept meanwhile is used again */
            return 0;
        r = kithi_view_record(&ix->view, slot);
        if (!is_linked(r) || kithi_view_id(&ix->view, slot, other) != len || memcmp(id, other, len) != 0)
            return 0;
        if (birth_of(r) != 0 && birth_of(r) <= ix->epoch)
            return prev;
    }
    return 0;
}

/* [P14 notes] What the groups under way have, or will have, touched: noted slots, or any. */
static uint32_t touched_count(const struct kithi_index *ix)
{
    return ix->noted == KITHI_NOTES_OVERFLOW ? ix->slots_used : ix->noted;
}

static uint32_t touched_slot(const struct kithi_index *ix, uint32_t i)
{
    return ix->noted == KITHI_NOTES_OVERFLOW ? i : kithi_noted_slot(ix, i);
}

static void take_back(struct kithi_index *ix, uint32_t slot)
{
    struct kithi_record *r = kithi_view_record(&ix->view, slot);
    if (atomic_load_explicit(&r->death, memory_order_relaxed) > ix->epoch && birth_of(r) <= ix->epoch &&
        birth_of(r) != 0)
        atomic_store_explicit(&r->death, 0, memory_order_relaxed);
    if (birth_of(r) != 0 && birth_of(r) <= ix->epoch)
        kithi_payload_take_back(ix, slot);
    if (birth_of(r) > ix->epoch)
        atomic_store_explicit(&r->birth, 0, memory_order_release);
    /* ABORTED: a death without a birth keeps insertions from choosing it; one that the epoch has seen need not be waited
     * for. */
    uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
    if (is_linked(r) && birth_of(r) == 0 && (death == 0 || death > ix->epoch)) {
        kithi_doubt_set(ix, slot);
        atomic_store_explicit(&r->death, ix->epoch ? ix->epoch : 1, memory_order_relaxed);
    }
}

static uint64_t count_live(const struct kithi_index *ix)
{
    uint64_t live = 0;
    for (uint32_t slot = 0; slot < ix->slots_used; slot++) {
        const struct kithi_record *r = kithi_view_record(&ix->view, slot);
        live +=
            is_linked(r) &&
            kithi_visible_at(birth_of(r), atomic_load_explicit(&r->death, memory_order_relaxed), ix->epoch);
    }
    return live;
}

static void undo_open_group(struct kithi_index *ix)
{
    uint32_t n = touched_count(ix);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = touched_slot(ix, i);
        if (birth_of(kithi_view_record(&ix->view, slot)) > ix->epoch)
            kithi_ids_redirect(ix, slot, earlier_version(ix, slot));
    }
    /* The dead owner may have counted its group already. That is put right while the group can still be seen to be half
     * there: without notes, nothing would say afterwards that the count is not that of the epoch. */
    atomic_store_explicit(&ix->header->live, ix->live, memory_order_relaxed);
    /* Release: no entry leads to an unborn slot once its birth is gone, and no count includes it. */
    atomic_thread_fence(memory_order_release);
    for (uint32_t i = 0; i < n; i++)
        take_back(ix, touched_slot(ix, i));
}

/* Words of the header that everything else leans on. */
static int check_header(struct kithi_index *ix, struct kithi_errmsg *err)
{
    struct kithi_header *h = ix->header;
    uint64_t used = atomic_load_explicit(&h->slots_used, memory_order_relaxed);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        ix->taken[r] = atomic_load_explicit(&h->taken[r], memory_order_relaxed);
        if (ix->taken[r] > ix->map.layout.size[r])
            return kithi_error_set(err, KITHI_E_CORRUPT, "region %s has %llu bytes taken of %llu",
                                   kithi_region_name(r), (unsigned long long)ix->taken[r],
                                   (unsigned long long)ix->map.layout.size[r]);
    }
    /* What is beyond goes back to the kernel: this page would. */
    if (ix->taken[KITHI_REGION_HEADER] != ix->map.layout.size[KITHI_REGION_HEADER])
        return kithi_error_set(err, KITHI_E_CORRUPT, "the header has %llu bytes taken of %llu",
                               (unsigned long long)ix->taken[KITHI_REGION_HEADER],
                               (unsigned long long)ix->map.layout.size[KITHI_REGION_HEADER]);
    if (atomic_load_explicit(&h->moved, memory_order_relaxed))
        return kithi_error_set(err, KITHI_E_MOVED, "the segment is marked as moved");
    kithi_view_begin(&ix->map, &ix->view);
    if (used > ix->view.slot_limit)
        return kithi_error_set(err, KITHI_E_CORRUPT, "%llu slots are in use, %u have memory",
                               (unsigned long long)used, ix->view.slot_limit);
    ix->slots_used = (uint32_t)used;
    ix->epoch = ix->view.epoch;
    uint64_t entry = atomic_load_explicit(&h->entry, memory_order_relaxed);
    if (entry && (kithi_entry_link(entry) - 1u >= used || kithi_entry_level(entry) > KITHI_LEVEL_MAX))
        return kithi_error_set(err, KITHI_E_CORRUPT, "the entry point %016llx leads nowhere",
                               (unsigned long long)entry);
    uint64_t unlinked = atomic_load_explicit(&h->unlinked, memory_order_relaxed);
    uint64_t reused = atomic_load_explicit(&h->reused, memory_order_relaxed);
    uint64_t limit = ix->epoch ? ix->epoch : 1;
    if (unlinked > limit || reused > limit)
        return kithi_error_set(err, KITHI_E_CORRUPT, "the marks (%llu, %llu) are beyond epoch %llu",
                               (unsigned long long)unlinked, (unsigned long long)reused,
                               (unsigned long long)ix->epoch);
    if (kithi_notes_condemned(ix))
        return kithi_error_set(err, KITHI_E_CORRUPT, "its last daemon found a record that makes no sense");
    return kithi_ids_check(ix, err);
}

/* Take over what the dead owner noted; false: there is nothing to go by but the records. */
static bool take_notes(struct kithi_index *ix)
{
    if (kithi_notes_usable(ix))
        return true;
    ix->noted = KITHI_NOTES_OVERFLOW;
    ix->live = count_live(ix);
    return false;
}

static int settle(struct kithi_index *ix, const _Atomic bool *stop, struct kithi_errmsg *err)
{
    bool noted = take_notes(ix);
    undo_open_group(ix);
    KITHI_FAULT_CRASH("crash-after-undoing");
    int rc;
    if (noted) {
        kithi_notes_end_group(ix, kithi_group_open(ix));
        rc = kithi_census_begin(ix, true);
        if (rc < 0)
            kithi_error_set(err, rc, "the daemon is out of memory");
    } else {
        ix->live = 0; /* the census counts, too */
        rc = kithi_private_rebuild(ix, stop, err);
    }
    return rc;
}

int kithi_index_adopt(const char *path, const struct kithi_index_identity *id,
                      const struct kithi_index_tuning *tuning, const _Atomic bool *stop,
                      struct kithi_index **out, struct kithi_errmsg *err)
{
    struct kithi_index *ix = calloc(1, sizeof *ix);
    if (!ix)
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    int rc;
    ix->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (ix->fd < 0) {
        rc = errno == ENOENT ? KITHI_E_NO_COLLECTION : -errno;
        kithi_error_set(err, rc, "cannot open %s: %s", path, kithi_error_text(-errno));
        goto fail;
    }
    rc = kithi_map_attach(ix->fd, true, &ix->map, err);
    if (rc < 0)
        goto fail;
    if (memcmp(ix->map.uid, id->uid, sizeof id->uid) != 0 ||
        memcmp(ix->map.hash_key, id->hash_key, sizeof id->hash_key) != 0 ||
        memcmp(&ix->map.geometry, &id->geometry, sizeof id->geometry) != 0) {
        rc = kithi_error_set(err, KITHI_E_REPLACED, "the segment belongs to another collection or geometry");
        goto fail;
    }
    rc = kithi_index_init(ix, tuning);
    if (rc < 0) {
        kithi_error_set(err, rc, "the daemon is out of memory");
        goto fail;
    }
    rc = check_header(ix, err);
    if (rc < 0)
        goto fail;
    kithi_pages_adopt(ix);
    kithi_postings_restart(ix);
    rc = settle(ix, stop, err);
    if (rc < 0)
        goto fail;
    struct demand room = { 0 };
    rc = kithi_alloc_reserve(ix, &room, err);
    if (rc < 0)
        goto fail;
    kithi_ledger_begin(ix);
    if (!kithi_index_census_due(ix))
        kithi_notes_begin(ix);
    kithi_publish_wake(ix);
    *out = ix;
    return 0;

fail:
    kithi_index_close(ix);
    return rc;
}
