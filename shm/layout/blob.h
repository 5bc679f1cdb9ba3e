/*
 * blob.h - bytes that do not fit into a record: ids longer than 24 bytes, and payloads.
 *
 * Blobs are kept in size classes, each in a region of its own, so that their heads have
 * fixed places: a stale reference leads to a head or to nothing, never into user bytes.
 * A blob of a slot's id is reused only after the slot's birth was set to 0, so the birth
 * check of the slot covers it ([P2 birth]).
 *
 * A payload is one version of what belongs to a slot beside its vector. Its blob has a birth of its own, by which its bytes are
 * read as a slot's are, and leads to the version before it, so that an older epoch finds the one that it sees ([P18 payload]):
 *
 *      0 +------------------------------+
 *        | birth | owner | len          |  len: bytes of the payload; 0: there is none from this epoch on
 *     16 +------------------------------+
 *        | prev | 0                     |
 *     24 +------------------------------+
 *        | len bytes                    |
 *        +------------------------------+
 */
#ifndef KITHI_LAYOUT_BLOB_H
#define KITHI_LAYOUT_BLOB_H

#include "shm/base/compiler.h"
#include "shm/layout/geometry.h"

struct kithi_blob {
    _Atomic uint64_t birth; /*  0..7  [P18 payload] epoch of a payload's version; 0: of an id, or nobody's */
    _Atomic uint32_t owner; /*  8..11 slot + 1; 0: free */
    _Atomic uint32_t len;   /* 12..15 bytes that follow */
    unsigned char bytes[];  /* 16..   */
};
_Static_assert(sizeof(struct kithi_blob) == 16, "blob head is format");

/* What stands before the bytes of a payload. */
struct kithi_payload_head {
    _Atomic uint32_t
        prev; /*  0..3  the version before, as in record.payload; a hint, checked by owner and birth */
    uint32_t reserved; /*  4..7  0 */
};
_Static_assert(sizeof(struct kithi_payload_head) == 8, "payload head is format");

/* A payload's reference is one word, so that one store replaces a version: class in the top three bits, number + 1 below. */
static inline uint32_t kithi_payload_ref(unsigned class, uint32_t number)
{
    return (uint32_t)(class << 29 | (number + 1u));
}
static inline unsigned kithi_payload_class(uint32_t ref)
{
    return ref >> 29;
}
static inline uint32_t kithi_payload_number(uint32_t ref) /* UINT32_MAX: of no blob */
{
    return (ref & 0x1fffffffu) - 1u;
}

/* A reference: class in the top byte, number + 1 below; 0 is none. */
static inline uint64_t kithi_blob_ref(unsigned class, uint32_t number)
{
    return (uint64_t) class << 56 | ((uint64_t)number + 1);
}

/* Smallest class that takes len bytes, or KITHI_BLOB_CLASS_COUNT. */
static inline unsigned kithi_blob_class(const struct kithi_layout *l, size_t len)
{
    unsigned c = 0;
    while (c < KITHI_BLOB_CLASS_COUNT && l->blob_stride[c] - sizeof(struct kithi_blob) < len)
        c++;
    return c;
}

#endif
