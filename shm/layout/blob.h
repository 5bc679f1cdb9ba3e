/*
 * blob.h - bytes that do not fit into a record, today ids longer than 24 bytes.
 *
 * Blobs are kept in size classes, each in a region of its own, so that their heads have
 * fixed places: a stale reference leads to a head or to nothing, never into user bytes.
 * A blob of a slot's id is reused only after the slot's birth was set to 0, so the birth
 * check of the slot covers it ([P2 birth]).
 */
#ifndef KITHI_LAYOUT_BLOB_H
#define KITHI_LAYOUT_BLOB_H

#include "shm/base/compiler.h"
#include "shm/layout/geometry.h"

struct kithi_blob {
    _Atomic uint64_t birth; /*  0..7  reserved: payload versions are born like slots; 0 for ids */
    _Atomic uint32_t owner; /*  8..11 slot + 1; 0: free */
    _Atomic uint32_t len;   /* 12..15 bytes that follow */
    unsigned char bytes[];  /* 16..   */
};
_Static_assert(sizeof(struct kithi_blob) == 16, "blob head is format");

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
