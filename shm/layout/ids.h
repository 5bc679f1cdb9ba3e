/*
 * ids.h - the id table: from the hash of an id to a slot. Open addressing, linear probing,
 * ordered by the top bits of the keyed hash, so that table order is hash order.
 *
 * The table lives in one of two areas; a rebuild (growth, or too many tombstones) fills the
 * other one and switches by one store of the header word [P7 id table]:
 *
 *     63      56 55      48 47                 0
 *    +----------+----------+--------------------+
 *    | area 0/1 | log2 cap | number of rebuilds |      0: no table yet
 *    +----------+----------+--------------------+
 *
 * An entry is one word: hash bits 0..31 in the upper half as a tag, slot + 1 in the lower; 0 is
 * an empty place, which ends a probe; slot + 1 = UINT32_MAX is a tombstone. Entries are hints:
 * whoever follows one compares the id in the record.
 */
#ifndef KITHI_LAYOUT_IDS_H
#define KITHI_LAYOUT_IDS_H

#include "shm/base/compiler.h"

#define KITHI_IDS_CAPACITY_MIN_LOG2 9u
#define KITHI_IDS_CAPACITY_MIN      (1u << KITHI_IDS_CAPACITY_MIN_LOG2)
/* No probe is longer. At most 60 % full, a run of keyed hashes of this length does not happen;
 * the writer rebuilds before it would, and readers stop there whatever the bytes say. */
#define KITHI_IDS_PROBE_MAX 2048u
#define KITHI_IDS_TOMBSTONE UINT32_MAX

static inline uint64_t kithi_ids_word(unsigned area, unsigned log2, uint64_t rebuilds)
{
    return (uint64_t)area << 56 | (uint64_t)log2 << 48 | (rebuilds & UINT64_C(0xffffffffffff));
}
static inline unsigned kithi_ids_area(uint64_t word)
{
    return (unsigned)(word >> 56);
}
static inline unsigned kithi_ids_log2(uint64_t word)
{
    return (unsigned)(word >> 48) & 0xff;
}
static inline uint64_t kithi_ids_rebuilds(uint64_t word)
{
    return word & UINT64_C(0xffffffffffff);
}

static inline uint64_t kithi_ids_entry(uint64_t hash, uint32_t link)
{
    return hash << 32 | link;
}
static inline uint32_t kithi_ids_link(uint64_t entry)
{
    return (uint32_t)entry;
}
static inline bool kithi_ids_tag_matches(uint64_t entry, uint64_t hash)
{
    return (uint32_t)(entry >> 32) == (uint32_t)hash;
}
static inline uint64_t kithi_ids_home(uint64_t hash, unsigned log2)
{
    return hash >> (64 - log2);
}

#endif
