/*
 * batch.c - gathering changes that become visible together: ops, encoded as they will be sent; and which of them met their id.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/handle_priv.h"
#include "client/src/payload_op.h"
#include "shm/base/id.h"
#include "shm/wire/op.h"

#define CAPACITY_MIN 4096u
/* What a frame has room for beside the collection's uid. */
#define BYTES_MAX (KITHI_FRAME_MAX - 16u)

kith_batch *kith_batch_new(kith *index)
{
    kith_batch *b = index ? calloc(1, sizeof *b) : NULL;
    if (b) {
        b->index = index;
        b->durability = (enum kith_durability)atomic_load_explicit(&index->durability, memory_order_relaxed);
    }
    return b;
}

int kith_batch_set_durability(kith_batch *b, enum kith_durability durability)
{
    if (!b || (unsigned)durability > KITH_DURABILITY_NONE)
        return -EINVAL;
    b->durability = durability;
    return 0;
}

void kith_batch_free(kith_batch *b)
{
    if (!b)
        return;
    free(b->ops);
    free(b->payload);
    kithi_items_fini(&b->items);
    free(b);
}

void kith_batch_clear(kith_batch *b)
{
    b->len = 0;
    b->count = 0;
    b->items.count = 0;
}

uint32_t kith_batch_count(const kith_batch *b)
{
    return b->count;
}

size_t kith_batch_bytes(const kith_batch *b)
{
    return b->len;
}

/* Everything of the op is there but its id. */
static int add(kith_batch *b, const char *id, struct kithi_op *op)
{
    size_t id_len = strnlen(id, KITHI_ID_MAX + 1);
    if (!kithi_id_valid(id, id_len))
        return KITHI_E_ID;
    op->id = id;
    op->id_len = (uint16_t)id_len;
    size_t need = b->len + kithi_op_size_with(id_len, op->dim, op->payload_len);
    if (need > BYTES_MAX)
        return KITHI_E_TOO_LARGE;
    if (need > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : CAPACITY_MIN;
        while (capacity < need)
            capacity *= 2;
        unsigned char *ops = realloc(b->ops, capacity);
        if (!ops)
            return -ENOMEM;
        b->ops = ops;
        b->capacity = capacity;
    }
    b->len += kithi_op_put(b->ops + b->len, op);
    b->count++;
    b->items.count = 0;
    return 0;
}

int kithi_items_note(struct kithi_items *items, uint32_t count, const struct kithi_answer *answer)
{
    size_t head = sizeof(struct kithi_written), len = (count + 7) / 8;
    items->count = 0;
    items->all = answer->head.text_len < head + len;
    if (!items->all && items->capacity < len) {
        unsigned char *p = realloc(items->missing, len);
        if (!p)
            return -ENOMEM;
        items->missing = p;
        items->capacity = len;
    }
    if (!items->all)
        memcpy(items->missing, answer->text + head, len);
    items->count = count;
    return 0;
}

int kithi_items_found(const struct kithi_items *items, uint32_t item)
{
    if (item >= items->count)
        return -EINVAL;
    return items->all || !(items->missing[item / 8] >> item % 8 & 1);
}

void kithi_items_fini(struct kithi_items *items)
{
    free(items->missing);
    memset(items, 0, sizeof *items);
}

int kith_batch_found(const kith_batch *b, uint32_t item)
{
    return b ? kithi_items_found(&b->items, item) : -EINVAL;
}

int kith_batch_upsert(kith_batch *b, const char *id, const float *vector, size_t len)
{
    if (!b || !id)
        return -EINVAL;
    int rc = kithi_vector_check(b->index, vector, len);
    struct kithi_op op = { .type = KITHI_OP_UPSERT, .dim = (uint32_t)len, .vector = vector };
    return rc < 0 ? rc : add(b, id, &op);
}

/* Room for the bytes of a payload. */
static unsigned char *payload_room(kith_batch *b)
{
    if (!b->payload)
        b->payload = malloc(KITHI_PAYLOAD_MAX);
    return b->payload;
}

int kith_batch_upsert_payload(kith_batch *b, const char *id, const float *vector, size_t len,
                              const char *payload)
{
    struct kithi_op op = { 0 };
    if (!b || !id)
        return -EINVAL;
    int rc = kithi_vector_check(b->index, vector, len);
    if (rc == 0)
        rc = payload_room(b) ? kithi_payload_op(KITH_PAYLOAD_REPLACE, payload, b->payload, &op, NULL)
                             : -ENOMEM;
    op.type = KITHI_OP_UPSERT;
    op.flags = KITHI_OP_PAYLOAD;
    op.dim = (uint32_t)len;
    op.vector = vector;
    return rc < 0 ? rc : add(b, id, &op);
}

int kith_batch_set_payload(kith_batch *b, const char *id, enum kith_payload_change how, const char *text)
{
    struct kithi_op op = { 0 };
    if (!b || !id)
        return -EINVAL;
    int rc = payload_room(b) ? kithi_payload_op(how, text, b->payload, &op, NULL) : -ENOMEM;
    return rc < 0 ? rc : add(b, id, &op);
}

int kithi_batch_delete_if(kith_batch *b, const char *id, const char *filter)
{
    struct kithi_op op = { .type = KITHI_OP_DELETE_IF,
                           .payload = filter,
                           .payload_len = (uint32_t)strlen(filter) };
    return add(b, id, &op);
}

int kith_batch_delete(kith_batch *b, const char *id)
{
    if (!b || !id)
        return -EINVAL;
    struct kithi_op op = { .type = KITHI_OP_DELETE };
    return add(b, id, &op);
}
