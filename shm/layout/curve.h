/*
 * curve.h - how well searches of this collection find: recall by ef, as its daemon measures it, for 10, 1 and 100 neighbours;
 * three times 320 bytes of the header's region, behind the header.
 *
 *   1024 +--------------------------------------------------+
 *        | is there one, of how many queries, as of when    |
 *   1088 +--------------------------------------------------+
 *        | points by rising ef: a word each                 |
 *   1344 +--------------------------------------------------+
 *        | the same of 1 neighbour                          |
 *   1664 +--------------------------------------------------+
 *        | the same of 100 neighbours                       |
 *   1984 +--------------------------------------------------+
 *
 * The owner stores it, readers choose ef by it (shm/graph/recall.h). Every word is of use by itself, so that any mixture of an
 * older and a newer curve is a curve; a reader clamps what it finds and trusts none of it ([P15 curve]). Until it was defined
 * these bytes were reserved and zero, which says that there is none.
 */
#ifndef KITHI_LAYOUT_CURVE_H
#define KITHI_LAYOUT_CURVE_H

#include "shm/layout/header.h"

#define KITHI_CURVE_OFF     1024u
#define KITHI_CURVE_MAGIC   0x43757276u /* there is one */
#define KITHI_CURVE_POINTS  32u
#define KITHI_CURVE_K       10u /* neighbours of curve 0; those of curve 1 are fewer, of curve 2 more */
#define KITHI_CURVE_COUNT   3u
#define KITHI_CURVE_UNIT    1000000u /* recall and half widths are in millionths */
#define KITHI_CURVE_TARGETS 3u       /* recalls whose keeping is looked at */

struct kithi_curve {
    _Atomic uint32_t magic;   /*  0..3  KITHI_CURVE_MAGIC; 0: none. Stored last */
    _Atomic uint32_t k;       /*  4..7  neighbours that were asked for */
    _Atomic uint32_t count;   /*  8..11 points */
    _Atomic uint32_t samples; /* 12..15 queries that it rests on */
    _Atomic uint64_t epoch;   /* 16..23 visible when the newest of them was searched, */
    _Atomic uint64_t since;   /* 24..31 and when the oldest was */
    /* What samples found that the curve of the time did not rest on, with the ef that it gave for a recall of 0.90, 0.95 and
     * 0.99, in millionths, and how many these were; 0: nobody has looked. For people. */
    _Atomic uint32_t kept[KITHI_CURVE_TARGETS]; /* 32..43 */
    _Atomic uint32_t kept_samples;              /* 44..47 */
    uint8_t reserved[16];                       /* 48..63 zero */
    /* ef (bits 0..23), recall (24..43), half the width of its confidence interval (44..63) */
    _Atomic uint64_t points[KITHI_CURVE_POINTS];
};
_Static_assert(offsetof(struct kithi_curve, points) == 64, "format");
_Static_assert(sizeof(struct kithi_curve) == 320, "format");
_Static_assert(KITHI_CURVE_OFF + KITHI_CURVE_COUNT * sizeof(struct kithi_curve) == 1984, "format");
_Static_assert(KITHI_CURVE_OFF == sizeof(struct kithi_header), "it begins where the header ends");

/* Each in its range: ef below 2^24, the others at most KITHI_CURVE_UNIT. */
static inline uint64_t kithi_curve_pack(uint32_t ef, uint32_t recall, uint32_t half)
{
    return ef | (uint64_t)recall << 24 | (uint64_t)half << 44;
}
static inline uint32_t kithi_curve_ef(uint64_t point)
{
    return (uint32_t)point & 0xffffffu;
}
static inline uint32_t kithi_curve_recall(uint64_t point)
{
    return (uint32_t)(point >> 24) & 0xfffffu;
}
static inline uint32_t kithi_curve_half(uint64_t point)
{
    return (uint32_t)(point >> 44);
}

/* Of a mapped header: its whole region is. number < KITHI_CURVE_COUNT. */
static inline struct kithi_curve *kithi_header_curve(struct kithi_header *h, unsigned number)
{
    return (struct kithi_curve *)(void *)((unsigned char *)h + KITHI_CURVE_OFF) + number;
}

#endif
