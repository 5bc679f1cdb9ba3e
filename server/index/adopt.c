/*
 * adopt.c - taking over a segment whose last owner died at some instruction.
 *
 * Readers go on meanwhile, at the epoch that the header shows. Whatever the dead owner had begun
 * beyond that epoch is taken back: first id entries lead to the earlier version again, then
 * deaths beyond the epoch become 0 and births beyond it become 0. Each step is harmless to a
 * reader and leaves a segment that can be adopted again. Slots that were linked but never
 * born become ABORTED and wait for a sweep like dead ones; dead and resting ones cannot be told
 * apart and all wait for a sweep. Free lists are what the records do not hold.
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
    for (uint32_t n = 0; n <= ix->slots_used; n++) {
        const struct kithi_record *r = kithi_view_record(&ix->view, slot);
        uint32_t prev = atomic_load_explicit(&r->prev, memory_order_relaxed);
        if (prev - 1u >= ix->slots_used)
            return 0;
        slot = prev - 1;
        r = kithi_view_record(&ix->view, slot);
        if (!is_linked(r) || kithi_view_id(&ix->view, slot, other) != len || memcmp(id, other, len) != 0)
            return 0;
        if (birth_of(r) != 0 && birth_of(r) <= ix->epoch)
            return prev;
    }
    return 0;
}

static void undo_open_group(struct kithi_index *ix)
{
    uint64_t live = 0;
    for (uint32_t slot = 0; slot < ix->slots_used; slot++) {
        const struct kithi_record *r = kithi_view_record(&ix->view, slot);
        if (birth_of(r) > ix->epoch)
            kithi_ids_redirect(ix, slot, earlier_version(ix, slot));
        live +=
            is_linked(r) &&
            kithi_visible_at(birth_of(r), atomic_load_explicit(&r->death, memory_order_relaxed), ix->epoch);
    }
    /* The dead owner may have counted its group already. That is put right while the group can still be seen to be half
     * there: afterwards nothing would say that the count is not that of the epoch. */
    atomic_store_explicit(&ix->header->live, live, memory_order_relaxed);
    /* Release: no entry leads to an unborn slot once its birth is gone, and no count includes it. */
    atomic_thread_fence(memory_order_release);
    for (uint32_t slot = 0; slot < ix->slots_used; slot++) {
        struct kithi_record *r = kithi_view_record(&ix->view, slot);
        if (atomic_load_explicit(&r->death, memory_order_relaxed) > ix->epoch && birth_of(r) <= ix->epoch)
            atomic_store_explicit(&r->death, 0, memory_order_relaxed);
        if (birth_of(r) > ix->epoch)
            atomic_store_explicit(&r->birth, 0, memory_order_release);
    }
}

/* Note the upper rows of slot as held; false when the chain makes no sense. */
static bool hold_uppers(struct kithi_index *ix, uint32_t slot, uint8_t *held)
{
    const struct kithi_record *r = kithi_view_record(&ix->view, slot);
    uint32_t ref = atomic_load_explicit(&r->upper, memory_order_relaxed);
    unsigned level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
    if (level > KITHI_LEVEL_MAX)
        return false;
    for (unsigned at = 0; at < level; at++) {
        if (ref == 0 || ref > ix->view.upper_limit || held[ref - 1])
            return false;
        const struct kithi_upper *u = kithi_view_upper(&ix->view, ref - 1);
        if (atomic_load_explicit(&u->owner, memory_order_relaxed) != slot + 1)
            return false;
        held[ref - 1] = 1;
        if (ref > ix->upper_used)
            ix->upper_used = ref;
        ref = atomic_load_explicit(&u->up, memory_order_relaxed);
    }
    return ref == 0;
}

static bool hold_blob(struct kithi_index *ix, uint32_t slot, uint8_t **held)
{
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
    if (held[class][number])
        return false;
    held[class][number] = 1;
    if (number + 1 > ix->blob_used[class])
        ix->blob_used[class] = number + 1;
    return true;
}

/* Sort every slot into live, dead or free, and see what they hold. */
static int sort_slots(struct kithi_index *ix, uint8_t *uppers, uint8_t **blobs, struct kithi_errmsg *err)
{
    ix->live = 0;
    for (uint32_t slot = 0; slot < ix->slots_used; slot++) {
        struct kithi_record *r = kithi_view_record(&ix->view, slot);
        if (!is_linked(r)) {
            /* Free, or being filled, or being freed: nothing leads here. */
            atomic_store_explicit(&r->birth, 0, memory_order_release);
            atomic_store_explicit(&r->upper, 0, memory_order_relaxed);
            kithi_doubt_set(ix, slot);
            if (kithi_stack_push(&ix->slots_free, slot) < 0)
                return -ENOMEM;
            continue;
        }
        if (!hold_uppers(ix, slot, uppers) || !hold_blob(ix, slot, blobs))
            return kithi_error_set(err, KITHI_E_CORRUPT,
                                   "slot %u refers to upper rows or a blob that are not its own", slot);
        uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
        if (birth_of(r) != 0 && death == 0) {
            kithi_doubt_clear(ix, slot);
            ix->live++;
            continue;
        }
        kithi_doubt_set(ix, slot);
        /* ABORTED: a death without a birth keeps insertions from choosing it. */
        if (death == 0)
            atomic_store_explicit(&r->death, ix->epoch ? ix->epoch : 1, memory_order_relaxed);
        if (kithi_queue_push(&ix->dead, slot, 0) < 0)
            return -ENOMEM;
    }
    for (uint32_t i = 0; i < ix->upper_used; i++) {
        if (uppers[i])
            continue;
        atomic_store_explicit(&kithi_view_upper(&ix->view, i)->owner, 0, memory_order_relaxed);
        if (kithi_stack_push(&ix->upper_free, i) < 0)
            return -ENOMEM;
    }
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++) {
        for (uint32_t i = 0; i < ix->blob_used[c]; i++) {
            if (blobs[c][i])
                continue;
            uint32_t capacity;
            struct kithi_blob *b = kithi_view_blob(&ix->view, kithi_blob_ref(c, i), &capacity);
            atomic_store_explicit(&b->owner, 0, memory_order_relaxed);
            if (kithi_stack_push(&ix->blob_free[c], i) < 0)
                return -ENOMEM;
        }
    }
    return 0;
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
    return kithi_ids_adopt(ix, err);
}

int kithi_private_rebuild(struct kithi_index *ix, struct kithi_errmsg *err)
{
    uint8_t *uppers = calloc((size_t)ix->view.upper_limit + 1, 1), *blobs[KITHI_BLOB_CLASS_COUNT] = { 0 };
    int rc = uppers ? 0 : -ENOMEM;
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT && rc == 0; c++) {
        blobs[c] = calloc((size_t)ix->view.blob_limit[c] + 1, 1);
        if (!blobs[c])
            rc = -ENOMEM;
    }
    if (rc == 0)
        rc = sort_slots(ix, uppers, blobs, err);
    if (rc == -ENOMEM)
        kithi_error_set(err, rc, "the daemon is out of memory");
    free(uppers);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        free(blobs[c]);
    return rc;
}

int kithi_index_adopt(const char *path, const struct kithi_index_identity *id,
                      const struct kithi_index_tuning *tuning, struct kithi_index **out,
                      struct kithi_errmsg *err)
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
    undo_open_group(ix);
    KITHI_FAULT_CRASH("crash-after-undoing");
    rc = kithi_private_rebuild(ix, err);
    if (rc < 0)
        goto fail;
    atomic_store_explicit(&ix->header->live, ix->live, memory_order_relaxed);
    struct demand room = { 0 };
    rc = kithi_alloc_reserve(ix, &room, err);
    if (rc < 0)
        goto fail;
    kithi_alloc_tallies(ix);
    kithi_publish_wake(ix);
    *out = ix;
    return 0;

fail:
    kithi_index_close(ix);
    return rc;
}
