/*
 * notes.h - what the next owner of a segment would otherwise have to look for: 60 KiB of the header's region.
 *
 *   4096 +-------------------------------------------------+
 *        | who keeps them, and as of which publication     |
 *        | ends of what was used, so that adoption need    |
 *        | not look for them                               |
 *   4160 +-------------------------------------------------+
 *        | slots of groups under way, in the order in which|
 *        | they were staged                                |
 *  65536 +-------------------------------------------------+
 *
 * The owner stores them, the next owner reads them, readers have no use for them. A slot that a group takes, and one
 * whose death it will be, is noted before a byte of its record changes ([P14 notes]). So what stands in records beyond the
 * epoch is of noted slots, or of any slot where more were to be noted than there is room for.
 *
 * A daemon that knows nothing of notes leaves them as they are, but bumps `wake` when it adopts a segment: notes whose
 * copy of `wake` is another count as none.
 */
#ifndef KITHI_LAYOUT_NOTES_H
#define KITHI_LAYOUT_NOTES_H

#include "shm/layout/header.h"

#define KITHI_NOTES_MAGIC    0x4e65746fu /* somebody keeps them; 0: nobody does */
#define KITHI_NOTES_OFF      4096u
#define KITHI_NOTES_MAX      15328u
#define KITHI_NOTES_OVERFLOW UINT32_MAX /* for count: more than there is room for */

struct kithi_notes {
    _Atomic uint32_t magic;      /*  0..3  KITHI_NOTES_MAGIC, stored last */
    _Atomic uint32_t wake;       /*  4..7  header.wake, right behind it */
    _Atomic uint64_t epoch;      /*  8..15 visible when the last group ended, */
    _Atomic uint64_t live;       /* 16..23 with so many vectors */
    _Atomic uint32_t count;      /* 24..27 [P14 notes] of the slots below; 0: no group is open */
    _Atomic uint32_t upper_used; /* 28..31 upper rows from here on were never used */
    _Atomic uint32_t blob_used[KITHI_BLOB_CLASS_COUNT]; /* 32..63 the same of blobs, by class */
    _Atomic uint32_t ids_filled; /* 64..67 so many places of the id table are not empty, at most */
    _Atomic uint32_t condemned;  /* 68..71 1: a record made no sense; not to be adopted */
    uint8_t reserved[56];        /* 72..127 zero */
    _Atomic uint32_t slots[KITHI_NOTES_MAX];
};
_Static_assert(offsetof(struct kithi_notes, slots) == 128, "format");
_Static_assert(KITHI_NOTES_OFF + sizeof(struct kithi_notes) == KITHI_HEADER_SIZE,
               "they end with the header's region");
_Static_assert(KITHI_BLOB_CLASS_COUNT == 8, "format");

/* Of a mapped header: its whole region is. */
static inline struct kithi_notes *kithi_header_notes(struct kithi_header *h)
{
    return (struct kithi_notes *)(void *)((unsigned char *)h + KITHI_NOTES_OFF);
}

#endif
