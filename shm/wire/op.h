/*
 * op.h - one change to a collection, as bytes. The client encodes it, the daemon logs the
 * same bytes and recovery replays them: one form for socket and WAL.
 *
 *    0 +---------------------------+
 *      | u32 len: whole op, 8-byte |   little-endian; len counts header, id, pad, floats and payload
 *    4 | u8 type | u8 flags | u16 id_len
 *    8 | u32 dim (0 but for upserts)
 *   12 | u32 bytes of the payload  |
 *   16 | id bytes, zero-padded to 4|
 *      | dim floats                |
 *      | payload bytes             |
 *      | zero pad to 8             |
 *      +---------------------------+
 *
 * An upsert without OP_PAYLOAD leaves the payload as it is and has no bytes of one; with it the payload is what it says, and none
 * at all without bytes. SET says the same of an id that is there, without a vector. MERGE and REMOVE change what is there, by
 * members that are given or by the keys of members: the daemon makes SETs of them, so that no log has any. DELETE_IF deletes an id whose payload
 * fulfils the filter that its own payload is, as a text: the daemon makes a DELETE of it, or a NOTHING, when its turn comes.
 *
 * A decoder skips ops of a type it does not know only when OP_SKIPPABLE is set.
 */
#ifndef KITHI_WIRE_OP_H
#define KITHI_WIRE_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KITHI_OP_HEADER 16u

enum kithi_op_type {
    KITHI_OP_UPSERT = 1,
    KITHI_OP_DELETE = 2,
    KITHI_OP_NOTHING = 3, /* always skippable: a group in the log has one op at least */
    KITHI_OP_SET = 4,     /* the payload of an id */
    KITHI_OP_MERGE = 5,   /* the same: its members take the place of those that are there */
    KITHI_OP_REMOVE = 6,  /* the same: those members go */
    KITHI_OP_DELETE_IF = 7,
};

#define KITHI_OP_SKIPPABLE 0x80u /* flags: an unknown type with this bit is ignored */
#define KITHI_OP_PAYLOAD   0x01u /* flags of an upsert: the payload is to be what it says */

struct kithi_op {
    uint8_t type; /* enum kithi_op_type */
    uint8_t flags;
    uint16_t id_len;      /* bytes, 1..511 */
    uint32_t dim;         /* 0 but for upserts */
    const char *id;       /* into the buffer, not NUL-terminated */
    const float *vector;  /* into the buffer, 4-byte aligned when the buffer is; NULL but for upserts */
    const void *payload;  /* into the buffer, 4-byte aligned likewise; NULL: none */
    uint32_t payload_len; /* bytes, at most KITHI_PAYLOAD_BYTES */
};

/* Does anybody know this type here, and is it more than nothing? */
static inline bool kithi_op_is_known(uint8_t type)
{
    return type == KITHI_OP_UPSERT || type == KITHI_OP_DELETE ||
           (type >= KITHI_OP_SET && type <= KITHI_OP_DELETE_IF);
}
/* Does what becomes of it depend on what is there when its turn comes? */
static inline bool kithi_op_is_made(uint8_t type)
{
    return type >= KITHI_OP_MERGE && type <= KITHI_OP_DELETE_IF;
}
/* Is it about a payload alone? */
static inline bool kithi_op_is_payload(uint8_t type)
{
    return type >= KITHI_OP_SET && type <= KITHI_OP_REMOVE;
}

/* "upsert", "delete", ...; NULL: unknown. */
const char *kithi_op_name(uint8_t type);

/* Bytes that an op without a payload takes, and one with payload_len bytes of one. */
size_t kithi_op_size(size_t id_len, uint32_t dim);
size_t kithi_op_size_with(size_t id_len, uint32_t dim, uint32_t payload_len);

/* Write any known op at out (kithi_op_size_with bytes, 8-byte aligned); returns the bytes written. */
size_t kithi_op_put(void *out, const struct kithi_op *op);

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
