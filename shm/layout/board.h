/*
 * board.h - a reader's counters: a small file of its own beside the segment, which the reader maps and counts in, and
 * which kithd reads with pread, as hostile input. See FORMAT.md, "Boards of readers", and [P13 board].
 *
 *   <run directory>/<collection>/readers/<000 .. 511>
 *
 *       0 +----------------------------------------------+
 *         | header: written once, the magic last         |
 *    4096 +----------------------------------------------+
 *         | lane 0: counts, then a histogram of latency  |
 *    8192 +----------------------------------------------+
 *         | lane 1 ...                                   |
 *         +----------------------------------------------+  4096 (1 + lane_count)
 *
 * Lanes hold the same things; threads are spread over them so that they do not wait for each other's cache lines.
 * Whoever reads a board adds them up.
 */
#ifndef KITHI_LAYOUT_BOARD_H
#define KITHI_LAYOUT_BOARD_H

#include <stddef.h>

#include "shm/base/compiler.h"

#define KITHI_BOARD_DIR      "readers"
#define KITHI_BOARD_MAGIC    UINT64_C(0x0144524148544b89) /* reads wrong when byte-swapped */
#define KITHI_BOARD_VERSION  1u
#define KITHI_BOARD_PAGE     4096u
#define KITHI_BOARD_LANE_MAX 16u
#define KITHI_BOARD_SLOTS    512u /* names in the directory: nobody looks at any other */
#define KITHI_BOARD_NAME     4u   /* bytes of a name, NUL included */

/* A dead reader's board waits for kithd for so long, at most. */
#define KITHI_BOARD_LOOK_MS 10000u

/*
 * The histogram is log-linear over units of 8 ns: 16 buckets of one unit, then 16 for each doubling, so that a bucket is
 * at most 1/16 of its value wide; the last one takes everything from 33 s on.
 */
#define KITHI_BOARD_UNIT_BITS 3u
#define KITHI_BOARD_SUB_BITS  4u
#define KITHI_BOARD_BUCKETS   464u

struct kithi_board_header {
    _Atomic uint64_t magic; /*  0..7   [P13 board] stored last, after the lock was taken */
    uint32_t version;       /*  8..11  KITHI_BOARD_VERSION */
    uint32_t lane_count;    /* 12..15  1..KITHI_BOARD_LANE_MAX */
    uint8_t uid[16];        /* 16..31  of the collection */
    uint64_t opened_ns;     /* 32..39  CLOCK_REALTIME */
    uint32_t pid;           /* 40..43  as the reader's own namespace calls it: for people */
    uint32_t timed;         /* 44..47  1: latencies are measured */
    char program[16];       /* 48..63  what the reader calls itself, NUL-padded: for people */
    uint8_t reserved[4032]; /* 64..4095 zero */
};
_Static_assert(offsetof(struct kithi_board_header, uid) == 16, "format");
_Static_assert(offsetof(struct kithi_board_header, opened_ns) == 32, "format");
_Static_assert(offsetof(struct kithi_board_header, program) == 48, "format");
_Static_assert(sizeof(struct kithi_board_header) == KITHI_BOARD_PAGE, "header size is format");

struct kithi_board_lane {
    _Atomic uint64_t searches;   /*  0..7   that gave an answer */
    _Atomic uint64_t failures;   /*  8..15  that ended with an error which is not the caller's */
    _Atomic uint64_t expansions; /* 16..23  rows read */
    _Atomic uint64_t restarts;   /* 24..31  snapshots begun again */
    _Atomic uint64_t lag; /* 32..39  groups that became visible while a search ran, all searches together */
    _Atomic uint64_t lag_max;                      /* 40..47  the most of them in one search */
    _Atomic uint64_t epoch;                        /* 48..55  that a search saw last */
    uint8_t reserved[328];                         /* 56..383 zero */
    _Atomic uint64_t latency[KITHI_BOARD_BUCKETS]; /* 384..4095 timed searches, by how long they took */
};
_Static_assert(offsetof(struct kithi_board_lane, epoch) == 48, "the counts share one cache line");
_Static_assert(offsetof(struct kithi_board_lane, latency) == 384, "format");
_Static_assert(sizeof(struct kithi_board_lane) == KITHI_BOARD_PAGE, "lane size is format");

/* Bytes of a board. */
static inline size_t kithi_board_size(uint32_t lane_count)
{
    return (size_t)KITHI_BOARD_PAGE * (1u + lane_count);
}

static inline void kithi_board_name(uint32_t slot, char out[KITHI_BOARD_NAME])
{
    out[0] = (char)('0' + slot / 100 % 10);
    out[1] = (char)('0' + slot / 10 % 10);
    out[2] = (char)('0' + slot % 10);
    out[3] = '\0';
}

/* The bucket of a duration. */
static inline uint32_t kithi_board_bucket(uint64_t ns)
{
    const uint32_t sub = 1u << KITHI_BOARD_SUB_BITS;
    uint64_t t = ns >> KITHI_BOARD_UNIT_BITS;
    if (t < sub)
        return (uint32_t)t;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(t) - KITHI_BOARD_SUB_BITS;
    uint32_t at = (shift + 1u) * sub + ((uint32_t)(t >> shift) & (sub - 1u));
    return at < KITHI_BOARD_BUCKETS ? at : KITHI_BOARD_BUCKETS - 1u;
}

/* The shortest duration of a bucket; of KITHI_BOARD_BUCKETS: where the last but one would end. */
static inline uint64_t kithi_board_bucket_ns(uint32_t bucket)
{
    const uint32_t sub = 1u << KITHI_BOARD_SUB_BITS;
    uint64_t t = bucket;
    if (bucket >= sub)
        t = (uint64_t)(sub + bucket % sub) << (bucket / sub - 1u);
    return t << KITHI_BOARD_UNIT_BITS;
}

#endif
