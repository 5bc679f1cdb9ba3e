/*
 * batch.c - gathering changes that become visible together: ops, encoded as they will be sent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/handle_priv.h"
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
    free(b);
}

void kith_batch_clear(kith_batch *b)
{
    b->len = 0;
    b->count = 0;
}

uint32_t kith_batch_count(const kith_batch *b)
{
    return b->count;
}

size_t kith_batch_bytes(const kith_batch *b)
{
    return b->len;
}

static int add(kith_batch *b, const char *id, const float *vector, uint32_t dim)
{
    size_t id_len = strnlen(id, KITHI_ID_MAX + 1);
    if (!kithi_id_valid(id, id_len))
        return KITHI_E_ID;
    size_t need = b->len + kithi_op_size(id_len, dim);
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
    b->len += kithi_op_encode(b->ops + b->len, id, id_len, vector, dim);
    b->count++;
    return 0;
}

int kith_batch_upsert(kith_batch *b, const char *id, const float *vector, size_t len)
{
    if (!b || !id)
        return -EINVAL;
    int rc = kithi_vector_check(b->index, vector, len);
    return rc < 0 ? rc : add(b, id, vector, (uint32_t)len);
}

int kith_batch_delete(kith_batch *b, const char *id)
{
    if (!b || !id)
        return -EINVAL;
    return add(b, id, NULL, 0);
}
