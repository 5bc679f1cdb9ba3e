/*
 * select.c - which candidates become neighbours: near, but not all in one direction.
 */
#include <stdlib.h>

#include "server/index/index_priv.h"

#define EQUALS_SHARE 2u /* those that are all as near as the nearest get this part of a row */

static int by_distance(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

void kithi_candidates_sort(struct candidate *c, uint32_t n)
{
    qsort(c, n, sizeof *c, by_distance);
}

static uint32_t mixed(uint32_t centre, uint32_t slot)
{
    uint32_t h = (centre * UINT32_C(0x9e3779b1)) ^ (slot * UINT32_C(0x85ebca6b));
    h = (h ^ (h >> 15)) * UINT32_C(0x2c1b3c6d);
    return h ^ (h >> 13);
}

void kithi_candidates_mix(struct candidate *c, uint32_t n, uint32_t centre)
{
    for (uint32_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && c[to].distance == c[from].distance; to++)
            continue;
        for (uint32_t i = from + 1; i < to; i++) {
            struct candidate moved = c[i];
            uint32_t j = i, key = mixed(centre, moved.slot);
            for (; j > from && mixed(centre, c[j - 1].slot) > key; j--)
                c[j] = c[j - 1];
            c[j] = moved;
        }
    }
}

/* Is c nearer to one of the kept than to the centre? */
static bool covered(const struct kithi_view *v, const struct kithi_kernel *k, const struct candidate *c,
                    const struct candidate *kept, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (kithi_pair(v, k, c->slot, kept[i].slot) < c->distance)
            return true;
    return false;
}

uint32_t kithi_select(const struct kithi_view *v, const struct kithi_kernel *k, const struct candidate *c,
                      uint32_t n, uint32_t max, struct candidate *out)
{
    uint32_t kept = 0;
    if (n <= max && n <= 1) {
        for (uint32_t i = 0; i < n; i++)
            out[i] = c[i];
        return n;
    }
    for (uint32_t i = 0; i < n && kept < max; i++) {
        /* Equals cover nobody, each other included: a crowd of them would leave no place for a way out of it. */
        if (kept >= (max + EQUALS_SHARE - 1) / EQUALS_SHARE && c[i].distance == c[0].distance)
            continue;
        if (!covered(v, k, &c[i], out, kept))
            out[kept++] = c[i];
    }
    return kept;
}

uint32_t kithi_select_more(const struct candidate *c, uint32_t n, struct candidate *chosen, uint32_t count,
                           uint32_t max)
{
    uint32_t next = 0, heuristic = count; /* the chosen are in the order of the candidates */
    for (uint32_t i = 0; i < n && count < max; i++) {
        if (next < heuristic && chosen[next].slot == c[i].slot)
            next++;
        else
            chosen[count++] = c[i];
    }
    return count;
}
