/*
 * ledger.h - what the memory of a segment holds, as far as counting it would take a look at every record; 384 bytes of the
 * header's region, behind the recall curves.
 *
 *   1984 +--------------------------------------------------+
 *        | does anybody keep it                             |
 *   1992 +--------------------------------------------------+
 *        | upper rows and blobs, by the state of their slot |
 *   2104 +--------------------------------------------------+
 *        | memory ahead of taken[], by region               |
 *   2264 +--------------------------------------------------+
 *
 * The owner stores it, for people: nothing relies on it, and a reader clamps what it finds (shm/graph/account.h). Until it was
 * defined these bytes were reserved and zero, which says that nobody keeps it.
 */
#ifndef KITHI_LAYOUT_LEDGER_H
#define KITHI_LAYOUT_LEDGER_H

#include "shm/layout/header.h"

#define KITHI_LEDGER_OFF   1984u
#define KITHI_LEDGER_MAGIC 0x4c656467u /* somebody keeps it */

/* States of a slot, by which what it holds is counted. What is in use and in none of them belongs to groups under way. */
enum kithi_held { /* the numbers are format */
                  KITHI_HELD_LIVE = 0,
                  KITHI_HELD_DEAD = 1, /* and still linked */
                  KITHI_HELD_RESTING = 2,
                  KITHI_HELD_COUNT = 3,
};

struct kithi_ledger {
    _Atomic uint32_t magic;                   /*   0..3   KITHI_LEDGER_MAGIC; 0: nobody keeps it */
    uint32_t reserved0;                       /*   4..7   0 */
    _Atomic uint32_t upper[KITHI_HELD_COUNT]; /*   8..19  rows */
    _Atomic uint32_t blob[KITHI_BLOB_CLASS_COUNT][KITHI_HELD_COUNT]; /*  20..115 blobs of each class */
    uint32_t reserved1;                                              /* 116..119 0 */
    /* Blocks of 2 MiB of each region that were filled before they were taken: from the first (bits 0..31) up to, without it,
     * the last (32..63). Those below taken[] count there. */
    _Atomic uint64_t ahead[KITHI_REGION_COUNT]; /* 120..279 */
    uint8_t reserved2[104];                     /* 280..383 zero */
};
_Static_assert(sizeof(struct kithi_ledger) == 384, "format");
_Static_assert(offsetof(struct kithi_ledger, ahead) == 120, "format");

static inline uint64_t kithi_ahead_pack(uint32_t from, uint32_t to)
{
    return from | (uint64_t)to << 32;
}
static inline uint64_t kithi_ahead_from(uint64_t word) /* bytes */
{
    return (word & UINT32_MAX) * KITHI_REGION_ALIGN;
}
static inline uint64_t kithi_ahead_to(uint64_t word) /* bytes */
{
    return (word >> 32) * KITHI_REGION_ALIGN;
}

/* Of a mapped header: its whole region is. */
static inline struct kithi_ledger *kithi_header_ledger(struct kithi_header *h)
{
    return (struct kithi_ledger *)(void *)((unsigned char *)h + KITHI_LEDGER_OFF);
}

#endif
