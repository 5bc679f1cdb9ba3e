/*
 * payload.c - from a slot to the version of its payload that an epoch sees. See payload.h.
 */
#include "shm/graph/payload.h"

#include "shm/sync/slotbytes.h"

/* Versions between the newest one and the one that an epoch sees: a slow reader meets those of the time that versions rest, at most; one
 * that was stopped may meet any number, and a loop. */
#define VERSIONS_MAX 65536u

bool kithi_view_payload_blob(const struct kithi_view *v, uint32_t ref, struct kithi_payload_blob *out)
{
    uint32_t capacity;
    if (kithi_payload_number(ref) == UINT32_MAX)
        return false;
    struct kithi_blob *b =
        kithi_view_blob(v, kithi_blob_ref(kithi_payload_class(ref), kithi_payload_number(ref)), &capacity);
    if (!b)
        return false;
    capacity -= (uint32_t)sizeof *out->head;
    *out = (struct kithi_payload_blob){
        .blob = b,
        .head = (struct kithi_payload_head *)(void *)b->bytes,
        .bytes = b->bytes + sizeof *out->head,
        .capacity = capacity < KITHI_PAYLOAD_BYTES ? capacity : KITHI_PAYLOAD_BYTES,
    };
    return true;
}

/* Find the first of `most` versions from ref on that the epoch sees. AGAIN, NONE, or FOUND: *out with its birth, still to be confirmed. */
static enum kithi_payload_seen find(const struct kithi_view *v, uint32_t slot, uint32_t ref, uint64_t epoch,
                                    uint32_t most, struct kithi_payload_blob *out, uint64_t *out_birth,
                                    uint32_t *out_ref)
{
    uint64_t newer = UINT64_MAX;
    for (uint32_t n = 0; ref && n < most; n++) {
        /* One beyond the view's memory is of a later group; another view gets past it. */
        if (!kithi_view_payload_blob(v, ref, out))
            return KITHI_PAYLOAD_AGAIN;
        /* [P18 payload] acquire: the version is filled before its birth. Other half: give_birth(). */
        uint64_t birth = atomic_load_explicit(&out->blob->birth, memory_order_acquire);
        uint32_t owner = atomic_load_explicit(&out->blob->owner, memory_order_relaxed);
        uint32_t prev = atomic_load_explicit(&out->head->prev, memory_order_relaxed);
        /* Refilled: for nobody yet, for another slot, or for this one, and then it is younger than what led here. */
        if (birth == 0 || birth >= newer || owner != slot + 1)
            return KITHI_PAYLOAD_AGAIN;
        if (birth <= epoch) {
            *out_birth = birth;
            *out_ref = ref;
            return KITHI_PAYLOAD_FOUND;
        }
        /* Else owner and prev may be those of the next version in this blob. */
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&out->blob->birth, memory_order_relaxed) != birth)
            return KITHI_PAYLOAD_AGAIN;
        newer = birth;
        ref = prev;
    }
    return ref ? KITHI_PAYLOAD_AGAIN : KITHI_PAYLOAD_NONE;
}

enum kithi_payload_seen kithi_view_payload(const struct kithi_view *v, uint32_t slot, uint64_t birth,
                                           void *out, uint32_t *out_len)
{
    if (slot >= v->slot_limit)
        return KITHI_PAYLOAD_AGAIN;
    const struct kithi_record *r = kithi_view_record(v, slot);
    struct kithi_payload_blob b;
    uint64_t born = 0;
    uint32_t ref;
    /* [P18 payload] acquire: the version is born before the record leads to it. Every version up to the view's epoch was stored before
     * the epoch, so this is the one that it sees or a later one. Other half: kithi_payload_births(). */
    ref = atomic_load_explicit(&r->payload, memory_order_acquire);
    enum kithi_payload_seen seen = find(v, slot, ref, v->epoch, VERSIONS_MAX, &b, &born, &ref);
    uint32_t len = 0;
    if (seen == KITHI_PAYLOAD_FOUND) {
        len = atomic_load_explicit(&b.blob->len, memory_order_relaxed);
        if (len > b.capacity)
            return KITHI_PAYLOAD_AGAIN;
        kithi_slot_load(out, b.bytes, len);
        /* [P18 payload] fence: as in P2, and for the same reason. */
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&b.blob->birth, memory_order_relaxed) != born)
            return KITHI_PAYLOAD_AGAIN;
    }
    /* [P2 birth] The slot is still the one whose payload was asked for. */
    if (seen == KITHI_PAYLOAD_AGAIN || !kithi_birth_same(r, birth))
        return KITHI_PAYLOAD_AGAIN;
    *out_len = len;
    return len ? KITHI_PAYLOAD_FOUND : KITHI_PAYLOAD_NONE;
}

bool kithi_view_payload_ref(const struct kithi_view *v, uint32_t slot, uint64_t epoch, uint32_t *out_ref)
{
    struct kithi_payload_blob b;
    uint64_t born;
    uint32_t ref = atomic_load_explicit(&kithi_view_record(v, slot)->payload, memory_order_acquire);
    /* All that were replaced meanwhile may stand before it. Births fall from one to the next, so it ends. */
    enum kithi_payload_seen seen = find(v, slot, ref, epoch, UINT32_MAX, &b, &born, &ref);
    *out_ref = seen == KITHI_PAYLOAD_FOUND ? ref : 0;
    return seen != KITHI_PAYLOAD_AGAIN;
}
