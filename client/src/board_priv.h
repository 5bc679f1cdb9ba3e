/*
 * board_priv.h - where a handle counts its searches for kithd and kith top: a board (shm/layout/board.h).
 *
 * A handle has a board when the directory for them is there and may be written, its tmpfs has room, and the caller did not
 * say no; else none, silently: nothing but statistics depends on it.
 *
 * Counting is a few relaxed additions to memory: no system call, no lock. The mapping cannot be hurt by others: the file
 * belongs to this process's user and nobody may write it, its owner not without a chmod first, so nobody but that user and
 * root, who can stop the process in any case, can cut it off under the mapping. Its memory was taken before.
 *
 * The lock (flock) that says "this reader lives" belongs to the mapping, not to a descriptor: it goes when the last
 * process that has the mapping ends, execs or unmaps it. A forked child has the mapping, and counts on its parent's board.
 */
#ifndef KITHI_CLIENT_BOARD_PRIV_H
#define KITHI_CLIENT_BOARD_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/graph/results.h"
#include "shm/layout/board.h"

struct kithi_board {
    unsigned char *base; /* NULL: there is no board */
    size_t len;
    uint32_t lane_count;
    bool timed;
    char *path;
    uint64_t dev, ino;
    uint32_t pid; /* who opened it */
};

/* segment: path of the collection's segment. Never fails; there may be no board. */
void kithi_board_open(struct kithi_board *b, const char *segment, const uint8_t uid[16]);

/* What was counted stays for kithd to see; a board on which nothing was counted is removed. Accepts a zeroed one. */
void kithi_board_close(struct kithi_board *b);

/* The lane of call slot number n; NULL without a board. */
static inline struct kithi_board_lane *kithi_board_lane(const struct kithi_board *b, uint32_t n)
{
    if (!b->base)
        return NULL;
    return (struct kithi_board_lane *)(void *)(b->base + kithi_board_size(n % b->lane_count));
}

/*
 * One search of so many is timed, of those that come one by one: two looks at the clock, and a line of the histogram, cost
 * the quickest ones more than 1 % otherwise.
 */
#define KITHI_BOARD_TIMED_EACH 4u
#define KITHI_BOARD_NOT_TIMED  UINT64_MAX

/* A search has ended well: what it did, what time it took (or KITHI_BOARD_NOT_TIMED), and the epoch that is visible now. */
void kithi_board_count(struct kithi_board_lane *lane, const struct kithi_search_stats *stats, uint64_t ns,
                       uint64_t epoch_now);

#endif
