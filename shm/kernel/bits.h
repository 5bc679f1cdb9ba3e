/*
 * bits.h - one-bit codes of a node's neighbours, relative to the node; 32 distances at one look.
 *
 * A row of the graph keeps, for each link from a node c to a neighbour o, the signs x of the rotated
 * difference r = R(o - c), and two factors. With d = distance(q, c), known when the row is read,
 *
 *     l2:          |q-o|^2  ~ d + f1 + f2 <x, Rq>,   f2 = -2 |r|^2 / |r|_1,   f1 = |r|^2 - f2 <x, Rc>
 *     ip, cosine:  1-<q,o>  ~ d + f1 + f2 <x, Rq>,   f2 =   -|r|^2 / |r|_1,   f1 = -f2 <x, Rc> - <Rc, r>
 *
 * which is unbiased over random rotations R, with an error of about 0.75 |q-c| |r| / sqrt(width) before the factor 2 of l2
 * (RaBitQ: Gao and Long, SIGMOD 2024; codes of neighbours in rows: SymphonyQG, Gou and others, SIGMOD 2025).
 * <x, Rq> is the sum of width / 4 looks into tables of 16 bytes that are made once a query, so that a whole
 * block is estimated by byte shuffles.
 *
 * A block holds 32 neighbours:
 *
 *     0     float f1[32]
 *     128   float f2[32]
 *     256   codes: 16 bytes for every 4 signs p = 0 .. width/4 - 1; neighbour j has the low half (j < 16) or the
 *           high half (j >= 16) of byte j % 16; bit i of the half is the sign of element 4p + i, 1 = not negative
 *
 * Blocks are written one place at a time by the writer and read whole by readers that do not wait: any mixture
 * of old and new gives a wrong estimate for one neighbour, which costs an expansion or misses one.
 */
#ifndef KITHI_KERNEL_BITS_H
#define KITHI_KERNEL_BITS_H

#include "shm/kernel/distance.h"
#include "shm/kernel/query.h"

#define KITHI_BITS_PLACES    32u
#define KITHI_BITS_WIDTH_MAX 8192u

/* Bits of a code for dim elements, times bits an element (1 or 2): a multiple of 64. */
uint32_t kithi_bits_width(uint32_t dim, uint32_t bits_per_element);

/* Bytes of a block: 256 + 4 * width; a multiple of 64. */
static inline uint32_t kithi_bits_block_size(uint32_t width)
{
    return 256 + 4 * width;
}

/*
 * Rotate v in place: width floats (a multiple of 64), 64-byte aligned, those beyond dim zero. A fixed
 * orthogonal map, the same in every process: sign flips and fast Hadamard transforms. 800
 * elements take 0.3 us with AVX-512 and 0.5 us with AVX2.
 */
void kithi_bits_rotate(float *v, uint32_t width);

/*
 * Make tables for the rotated query (64-byte aligned): <x, Rq> ~ scale * (sum of looks) + base, a look off by 0.4
 * scale on average. table: 4 * width bytes, 64-byte aligned. A query with no direction, or out of the range of this
 * arithmetic, has scale and base 0.
 */
void kithi_bits_table(const float *rotated, uint32_t width, uint8_t *table, float *out_scale,
                      float *out_base);

/* What one link needs, in both directions. */
struct kithi_bits_edge {
    float f1, f2;           /* c's row, about o: with code; all factors are 0 for equal points */
    float back_f1, back_f2; /* o's row, about c: with the signs of code turned */
    uint64_t code[KITHI_BITS_WIDTH_MAX / 64];
};

/* centre = Rc, neighbour = Ro: width floats each. metric: enum kithi_metric. */
void kithi_bits_encode(const float *centre, const float *neighbour, uint32_t width, uint32_t metric,
                       struct kithi_bits_edge *out);

/* Write place (0..31) of a block. back: the other direction. One writer at a time a block. */
void kithi_bits_put(unsigned char *block, uint32_t width, uint32_t place, const struct kithi_bits_edge *e,
                    bool back);

/* The signs at a place, width / 64 words into code, and its factors. */
void kithi_bits_get(const unsigned char *block, uint32_t width, uint32_t place, uint64_t *code);
void kithi_bits_factors(const unsigned char *block, uint32_t place, float *out_f1, float *out_f2);

/*
 * The estimate itself is part of each kernel set (kithi_bits_estimate_fn in distance.h): all places of a block,
 * given the distance of the query to the node that owns it. est[i] is set for all 32; returns a mask of those below
 * limit (a NaN never is). block: 64-byte aligned. While it reads, it asks for the 4 * width bytes at ahead, which is
 * where the caller will probably go next; any address will do.
 */

#endif
