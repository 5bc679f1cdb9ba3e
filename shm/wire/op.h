/*
 * op.h - one change to a collection, as bytes. The client encodes it, the daemon logs the
 * same bytes and recovery replays them: one form for socket and WAL.
 *
 *    0 +---------------------------+
 *      | u32 len: whole op, 8-byte |   little-endian; len counts header, id, pad and floats
 *    4 | u8 type | u8 flags | u16 id_len
 *    8 | u32 dim (0 for delete)    |
 *   12 | u32 reserved, zero        |   later: length of the payload behind the floats
 *   16 | id bytes, zero-padded to 4|
 *      | dim floats                |
 *      | zero pad to 8             |
 *      +---------------------------+
 *
 * A decoder skips ops of a type it does not know only when OP_SKIPPABLE is set.
 */
#ifndef KITHI_WIRE_OP_H
#define KITHI_WIRE_OP_H

#include <stddef.h>
#include <stdint.h>

#define KITHI_OP_HEADER 16u

enum kithi_op_type {
    KITHI_OP_UPSERT = 1,
    KITHI_OP_DELETE = 2,
    KITHI_OP_NOTHING = 3, /* always skippable: a group in the log has one op at least */
};

#define KITHI_OP_SKIPPABLE 0x80u /* flags: an unknown type with this bit is ignored */

struct kithi_op {
    uint8_t type; /* enum kithi_op_type */
    uint8_t flags;
    uint16_t id_len;     /* bytes, 1..511 */
    uint32_t dim;        /* 0 for delete */
    const char *id;      /* into the buffer, not NUL-terminated */
    const float *vector; /* into the buffer, 4-byte aligned when the buffer is; NULL for delete */
};

/* Bytes that an op takes. */
size_t kithi_op_size(size_t id_len, uint32_t dim);

/* Write an op at out (kithi_op_size bytes, 8-byte aligned); returns the bytes written. vector NULL: delete. */
size_t kithi_op_encode(void *out, const char *id, size_t id_len, const float *vector, uint32_t dim);

/* Write an op that changes nothing at out (KITHI_OP_HEADER bytes); returns the bytes written. */
size_t kithi_op_encode_nothing(void *out);

/*
 * Read the op at buf. Returns its length (a multiple of 8), or KITHI_E_PROTOCOL when the
 * bytes are not an op that fits into len. Checks structure only: lengths, known type, zero
 * reserved fields; id and floats are checked by whoever applies it. buf is 8-byte aligned.
 */
int64_t kithi_op_decode(const void *buf, size_t len, struct kithi_op *out);

#endif
