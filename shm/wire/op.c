/*
 * op.c - encoding and decoding of one change. See op.h for the picture.
 */
#include "shm/wire/op.h"

#include <stdbool.h>
#include <string.h>

#include "shm/base/bytes.h"
#include "shm/base/error.h"
#include "shm/base/id.h"
#include "shm/kernel/distance.h"
#include "shm/layout/geometry.h"

static size_t floats_off(size_t id_len)
{
    return KITHI_OP_HEADER + kithi_round_up(id_len, 4);
}

const char *kithi_op_name(uint8_t type)
{
    switch (type) {
    case KITHI_OP_UPSERT: return "upsert";
    case KITHI_OP_DELETE: return "delete";
    case KITHI_OP_SET: return "set-payload";
    case KITHI_OP_MERGE: return "merge-payload";
    case KITHI_OP_REMOVE: return "remove-keys";
    case KITHI_OP_DELETE_IF: return "delete-if";
    default: return NULL;
    }
}

size_t kithi_op_size_with(size_t id_len, uint32_t dim, uint32_t payload_len)
{
    return kithi_round_up(floats_off(id_len) + (size_t)dim * sizeof(float) + payload_len, 8);
}

size_t kithi_op_size(size_t id_len, uint32_t dim)
{
    return kithi_op_size_with(id_len, dim, 0);
}

size_t kithi_op_put(void *out, const struct kithi_op *op)
{
    unsigned char *p = out;
    size_t len = kithi_op_size_with(op->id_len, op->dim, op->payload_len), at = floats_off(op->id_len);
    kithi_put32(p, (uint32_t)len);
    p[4] = op->type;
    p[5] = op->flags;
    kithi_put16(p + 6, op->id_len);
    kithi_put32(p + 8, op->dim);
    kithi_put32(p + 12, op->payload_len);
    memcpy(p + KITHI_OP_HEADER, op->id, op->id_len);
    memset(p + KITHI_OP_HEADER + op->id_len, 0, at - KITHI_OP_HEADER - op->id_len);
    if (op->dim)
        memcpy(p + at, op->vector, (size_t)op->dim * sizeof(float));
    at += (size_t)op->dim * sizeof(float);
    if (op->payload_len)
        memcpy(p + at, op->payload, op->payload_len);
    at += op->payload_len;
    memset(p + at, 0, len - at);
    return len;
}

size_t kithi_op_encode(void *out, const char *id, size_t id_len, const float *vector, uint32_t dim)
{
    struct kithi_op op = { .type = vector ? KITHI_OP_UPSERT : KITHI_OP_DELETE,
                           .id_len = (uint16_t)id_len,
                           .dim = vector ? dim : 0,
                           .id = id,
                           .vector = vector };
    return kithi_op_put(out, &op);
}

size_t kithi_op_encode_nothing(void *out)
{
    unsigned char *p = out;
    memset(p, 0, KITHI_OP_HEADER);
    kithi_put32(p, KITHI_OP_HEADER);
    p[4] = KITHI_OP_NOTHING;
    p[5] = KITHI_OP_SKIPPABLE;
    return KITHI_OP_HEADER;
}

int64_t kithi_op_decode(const void *buf, size_t len, struct kithi_op *out)
{
    const unsigned char *p = buf;
    if (len < KITHI_OP_HEADER)
        return KITHI_E_PROTOCOL;
    uint32_t op_len = kithi_get32(p);
    if (op_len < KITHI_OP_HEADER || op_len > len || op_len % 8)
        return KITHI_E_PROTOCOL;

    struct kithi_op op = {
        .type = p[4], .flags = p[5], .id_len = kithi_get16(p + 6), .dim = kithi_get32(p + 8)
    };
    bool known = kithi_op_is_known(op.type);
    if (!known && (op.flags & KITHI_OP_SKIPPABLE)) {
        *out = op;
        return op_len;
    }
    op.payload_len = kithi_get32(p + 12);
    if (!known || (op.flags & ~(op.type == KITHI_OP_UPSERT ? KITHI_OP_PAYLOAD : 0u)))
        return KITHI_E_PROTOCOL;
    if (op.id_len > KITHI_ID_MAX || op.dim > KITHI_DIM_MAX || op.payload_len > KITHI_PAYLOAD_BYTES)
        return KITHI_E_PROTOCOL;
    if ((op.type != KITHI_OP_UPSERT) != (op.dim == 0))
        return KITHI_E_PROTOCOL;
    /* Merging nothing and removing nothing are no changes, and a condition has a text. */
    bool has = op.type == KITHI_OP_SET || (op.flags & KITHI_OP_PAYLOAD), must = kithi_op_is_made(op.type);
    if (op.payload_len ? !has && !must : must)
        return KITHI_E_PROTOCOL;
    if (op_len != kithi_op_size_with(op.id_len, op.dim, op.payload_len))
        return KITHI_E_PROTOCOL;
    op.id = (const char *)p + KITHI_OP_HEADER;
    op.vector = op.dim ? (const float *)(const void *)(p + floats_off(op.id_len)) : NULL;
    if (op.payload_len)
        op.payload = p + floats_off(op.id_len) + (size_t)op.dim * sizeof(float);
    *out = op;
    return op_len;
}
