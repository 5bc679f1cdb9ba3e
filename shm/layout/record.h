/*
 * record.h - what a slot is: 64 bytes, one cache line, every word a relaxed atomic.
 *
 *   FREE --fill (worker)--> FILLED, LINKED --commit: birth = E+1--> LIVE --commit: death = E+1--> DEAD
 *     ^                        |  a crash here: invisible, adoption          a crash here: still   |
 *     |                        |  makes it ABORTED, a sweep unlinks it       served, swept later   |
 *     +-- rest is over: birth = 0, linked = 0 <-- RESTING <-- swept: no finder leads here <--------+
 *
 * birth, death and linked alone tell the state:
 *   linked 0                   FREE or being filled: nothing leads here; birth is 0
 *   linked 1, birth 0, death 0 FILLED: finders may lead here, no reader sees it
 *   linked 1, birth 0, death>0 ABORTED: filled for a group that was never committed
 *   linked 1, birth > 0        LIVE while death is 0, then DEAD, then RESTING
 */
#ifndef KITHI_LAYOUT_RECORD_H
#define KITHI_LAYOUT_RECORD_H

#include <stddef.h>

#include "shm/base/compiler.h"

#define KITHI_ID_INLINE 24u /* bytes; longer ids lie in a blob */

struct kithi_record {
    _Atomic uint64_t birth;   /*  0..7  [P2 birth] epoch of its group; 0: being filled */
    _Atomic uint64_t death;   /*  8..15 epoch from which it is gone; 0: alive */
    _Atomic uint32_t linked;  /* 16..19 1 from before the first finder until the end of its rest */
    _Atomic uint32_t prev;    /* 20..23 slot + 1 of the version before; a hint, checked by id */
    _Atomic uint32_t upper;   /* 24..27 first upper row + 1; 0: level 0 only */
    _Atomic uint32_t payload; /* 28..31 [P18 payload] reference to its newest version (blob.h); 0: none yet */
    _Atomic uint32_t norm;    /* 32..35 bits of the float length before normalisation (cosine) */
    _Atomic uint32_t meta;    /* 36..39 level << 16 | id length in bytes */
    _Atomic uint64_t id[3];   /* 40..63 id, zero-padded; or id[0] = blob reference (blob.h) */
};
_Static_assert(sizeof(struct kithi_record) == 64, "record size is format");
_Static_assert(offsetof(struct kithi_record, id) == 40, "record layout is format");

static inline uint32_t kithi_meta_pack(uint32_t level, uint32_t id_len)
{
    return level << 16 | id_len;
}
static inline uint32_t kithi_meta_level(uint32_t meta)
{
    return meta >> 16;
}
static inline uint32_t kithi_meta_id_len(uint32_t meta)
{
    return meta & 0xffffu;
}

/* [P1 commit] A slot counts at epoch e when it was born by then and had not died by then. */
static inline bool kithi_visible_at(uint64_t birth, uint64_t death, uint64_t e)
{
    return birth != 0 && birth <= e && (death == 0 || e < death);
}

#endif
