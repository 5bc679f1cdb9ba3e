/*
 * select.c - which candidates become neighbours: near, but not all in one direction.
 */
#include <stdlib.h>

#include "server/index/index_priv.h"

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
    for (uint32_t i = 0; i < n && kept < max; i++)
        if (!covered(v, k, &c[i], out, kept))
            out[kept++] = c[i];
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
