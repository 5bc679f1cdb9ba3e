/*
 * ahead.c - see ahead.h.
 *
 * An upsert lasts if its version is alive, a deletion if the id's newest version is dead; both are still there, because a
 * slot that died after the last durable epoch is not unlinked (sweep.c).
 */
#include "server/index/ahead.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"
#include "shm/base/id.h"
#include "shm/graph/payload.h"

#define NO_MEMORY "no memory for what the segment has and the log has not"

enum change_kind { CHANGE_BIRTH, CHANGE_PAYLOAD, CHANGE_DEATH };

struct change {
    uint64_t epoch;
    uint32_t slot;
    enum change_kind kind;
};

struct changes {
    struct change *items;
    uint32_t count, capacity;
};

static int push(struct changes *c, uint64_t epoch, uint32_t slot, enum change_kind kind)
{
    if (c->count == c->capacity) {
        uint32_t capacity = c->capacity ? 2 * c->capacity : 256;
        struct change *items = realloc(c->items, capacity * sizeof *items);
        if (!items)
            return -ENOMEM;
        c->items = items;
        c->capacity = capacity;
    }
    c->items[c->count++] = (struct change){ epoch, slot, kind };
    return 0;
}

/* Is the dead version in slot the last one of its id? */
static bool is_last(struct kithi_index *ix, uint32_t slot)
{
    char id[KITHI_ID_MAX + 1];
    size_t len = kithi_view_id(&ix->view, slot, id);
    return len > 0 && kithi_ids_find(ix, kithi_ids_hash(ix, id, len), id, len) == slot + 1;
}

/* Epoch of the newest version of slot's payload; 0: there is none. */
static uint64_t payload_birth(const struct kithi_index *ix, uint32_t slot)
{
    struct kithi_payload_blob b;
    uint32_t ref = atomic_load_explicit(&kithi_view_record(&ix->view, slot)->payload, memory_order_relaxed);
    return kithi_view_payload_blob(&ix->view, ref, &b)
               ? atomic_load_explicit(&b.blob->birth, memory_order_relaxed)
               : 0;
}

static int gather(struct kithi_index *ix, uint64_t after_epoch, struct changes *out)
{
    int rc = 0;
    for (uint32_t slot = 0; slot < ix->slots_used && rc == 0; slot++) {
        const struct kithi_record *r = kithi_view_record(&ix->view, slot);
        uint64_t birth = atomic_load_explicit(&r->birth, memory_order_relaxed);
        uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
        if (birth == 0 || birth > ix->epoch || death > ix->epoch)
            continue;
        uint64_t changed = death == 0 ? payload_birth(ix, slot) : 0;
        if (death == 0 && birth > after_epoch)
            rc = push(out, birth, slot, CHANGE_BIRTH);
        if (rc == 0 && changed > birth && changed > after_epoch)
            rc = push(out, changed, slot, CHANGE_PAYLOAD);
        if (rc < 0 || death == 0)
            continue;
        if (death > after_epoch && is_last(ix, slot))
            rc = push(out, death, slot, CHANGE_DEATH);
    }
    return rc;
}

static int by_epoch(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* The op that makes a change again. Of a payload that has changed since its vector's birth the last version is left: the vector comes without. */
static void op_of(struct kithi_index *ix, const struct change *c, char *id, const float *vector,
                  struct kithi_op *out)
{
    static const uint8_t types[] = {
        [CHANGE_BIRTH] = KITHI_OP_UPSERT, [CHANGE_PAYLOAD] = KITHI_OP_SET, [CHANGE_DEATH] = KITHI_OP_DELETE
    };
    const unsigned char *payload = NULL;
    *out = (struct kithi_op){ .type = types[c->kind],
                              .id = id,
                              .id_len = (uint16_t)kithi_view_id(&ix->view, c->slot, id) };
    if (c->kind == CHANGE_BIRTH) {
        out->flags = KITHI_OP_PAYLOAD;
        out->dim = ix->map.geometry.dim;
        out->vector = vector;
    }
    if (c->kind != CHANGE_DEATH && payload_birth(ix, c->slot) == c->epoch)
        out->payload_len = kithi_payload_bytes(
            ix, atomic_load_explicit(&kithi_view_record(&ix->view, c->slot)->payload, memory_order_relaxed),
            &payload);
    out->payload = payload;
}

/* The ops of n changes of one epoch; none: one that changes nothing. No log gets what no start could apply. */
static int encode(struct kithi_index *ix, const struct change *c, uint32_t n, float *vector,
                  struct kithi_ahead_group *out, struct kithi_errmsg *err)
{
    struct kithi_errmsg why;
    char id[KITHI_ID_MAX + 1];
    struct kithi_op op;
    size_t size = KITHI_OP_HEADER;
    for (uint32_t i = 0; i < n; i++) {
        op_of(ix, &c[i], id, vector, &op);
        size += kithi_op_size_with(op.id_len, op.dim, op.payload_len);
    }
    unsigned char *ops = malloc(size);
    if (!ops)
        return kithi_error_set(err, -ENOMEM, NO_MEMORY);
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        op_of(ix, &c[i], id, vector, &op);
        if (op.dim && kithi_group_vector_again(ix, c[i].slot, vector, &why) < 0) {
            free(ops);
            return kithi_error_set(err, KITHI_E_CORRUPT, "%s, in the vector that the segment has of \"%.*s\"",
                                   why.text, (int)op.id_len, id);
        }
        at += kithi_op_put(ops + at, &op);
    }
    if (n == 0)
        at = kithi_op_encode_nothing(ops);
    *out = (struct kithi_ahead_group){ .ops = ops, .len = at, .op_count = n ? n : 1 };
    return 0;
}

int kithi_ahead_collect(struct kithi_index *ix, uint64_t after_epoch, struct kithi_ahead *out,
                        struct kithi_errmsg *err)
{
    struct changes changes = { 0 };
    struct kithi_ahead a = { .first_epoch = after_epoch + 1 };
    uint64_t n = ix->epoch - after_epoch;
    float *vector = malloc((ix->map.geometry.dim + 1u) * sizeof *vector);
    a.groups = n <= UINT32_MAX ? calloc(n, sizeof *a.groups) : NULL;
    int rc = vector && a.groups ? gather(ix, after_epoch, &changes) : -ENOMEM;
    if (rc < 0)
        kithi_error_set(err, rc, NO_MEMORY);
    if (rc == 0 && changes.count)
        qsort(changes.items, changes.count, sizeof *changes.items, by_epoch);
    for (uint32_t at = 0; rc == 0 && a.group_count < n;) {
        uint32_t end = at;
        while (end < changes.count && changes.items[end].epoch == a.first_epoch + a.group_count)
            end++;
        /* Groups whose changes are all gone again have none, and there may be no other. */
        const struct change *first = changes.items ? changes.items + at : NULL;
        rc = encode(ix, first, end - at, vector, &a.groups[a.group_count], err);
        a.group_count += rc == 0;
        at = end;
    }
    free(vector);
    free(changes.items);
    if (rc < 0) {
        kithi_ahead_fini(&a);
        return rc;
    }
    *out = a;
    return 0;
}

void kithi_ahead_fini(struct kithi_ahead *a)
{
    for (uint32_t i = 0; i < a->group_count; i++)
        free(a->groups[i].ops);
    free(a->groups);
    *a = (struct kithi_ahead){ 0 };
}
