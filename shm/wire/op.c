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

static size_t floats_off(size_t id_len)
{
    return KITHI_OP_HEADER + kithi_round_up(id_len, 4);
}

size_t kithi_op_size(size_t id_len, uint32_t dim)
{
    return kithi_round_up(floats_off(id_len) + (size_t)dim * sizeof(float), 8);
}

size_t kithi_op_encode(void *out, const char *id, size_t id_len, const float *vector, uint32_t dim)
{
    unsigned char *p = out;
    if (!vector)
        dim = 0;
    size_t len = kithi_op_size(id_len, dim), at = floats_off(id_len);
    kithi_put32(p, (uint32_t)len);
    p[4] = vector ? KITHI_OP_UPSERT : KITHI_OP_DELETE;
    p[5] = 0;
    kithi_put16(p + 6, (uint16_t)id_len);
    kithi_put32(p + 8, dim);
    kithi_put32(p + 12, 0);
    memcpy(p + KITHI_OP_HEADER, id, id_len);
    memset(p + KITHI_OP_HEADER + id_len, 0, at - KITHI_OP_HEADER - id_len);
    if (vector)
        memcpy(p + at, vector, (size_t)dim * sizeof(float));
    size_t end = at + (size_t)dim * sizeof(float);
    memset(p + end, 0, len - end);
    return len;
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
    bool known = op.type == KITHI_OP_UPSERT || op.type == KITHI_OP_DELETE;
    if (!known && (op.flags & KITHI_OP_SKIPPABLE)) {
        *out = op;
        return op_len;
    }
    if (!known || op.flags || kithi_get32(p + 12))
        return KITHI_E_PROTOCOL;
    if (op.id_len > KITHI_ID_MAX || op.dim > KITHI_DIM_MAX)
        return KITHI_E_PROTOCOL;
    if ((op.type == KITHI_OP_DELETE) != (op.dim == 0))
        return KITHI_E_PROTOCOL;
    if (op_len != kithi_op_size(op.id_len, op.dim))
        return KITHI_E_PROTOCOL;
    op.id = (const char *)p + KITHI_OP_HEADER;
    op.vector = op.dim ? (const float *)(const void *)(p + floats_off(op.id_len)) : NULL;
    *out = op;
    return op_len;
}
