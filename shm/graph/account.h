/*
 * account.h - what the memory of a segment is used for: every byte of it, by region and by what it holds.
 *
 * From words of the header alone: nothing is scanned, however large the collection, and no daemon is asked. The owner stores those words
 * one after the other, so while it is at work one may be of a moment before the others; the sums hold
 * all the same, whatever the words say.
 */
#ifndef KITHI_GRAPH_ACCOUNT_H
#define KITHI_GRAPH_ACCOUNT_H

#include "shm/layout/ledger.h"
#include "shm/map/map.h"

/*
 * Bytes of a region. taken = live + dead + resting + pending + free + slack, and the file has memory for taken + ahead,
 * which is what its blocks come to.
 *
 *   live     of vectors that the last commit shows
 *   dead     of vectors that were replaced or deleted, and that links still lead to
 *   resting  of those that nothing leads to any more, which slow readers may still look at
 *   pending  of groups under way; after a start also what has not been looked at yet
 *   free     used before, and to be used again before anything new
 *   slack    taken ahead of use, never used
 *   ahead    filled before it is taken, and the rest of a last page
 */
struct kithi_share {
    uint64_t reserved; /* address space */
    uint64_t taken;
    uint64_t live, dead, resting, pending, free, slack;
    uint64_t ahead;
};

struct kithi_account {
    struct kithi_share regions[KITHI_REGION_COUNT];
    struct kithi_share all; /* the sum of them */
};

/* page: bytes of a page of the file system that the segment is on, a power of two. */
void kithi_account_read(const struct kithi_map *map, uint64_t page, struct kithi_account *out);

#endif
