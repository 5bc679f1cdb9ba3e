/*
 * row.c - writing rows: links one place at a time and, where rows have them, the codes of what they lead to.
 *
 * A place that is used again is emptied first: a reader, or whoever adopts the segment after a crash, finds
 * a link with its own code or no link. What a reader may see for a moment, an old link with a new code, is a wrong
 * estimate of one neighbour and nothing else: distances that answers are made of are computed from the slot itself.
 */
#include "server/index/index_priv.h"
#include "shm/graph/walk.h"

#include <float.h>
#include <string.h>

#include "shm/sync/slotbytes.h"

#define CODE_LINES 4u

float kithi_pair(const struct kithi_view *v, const struct kithi_kernel *k, uint32_t a, uint32_t b)
{
    const struct kithi_geometry *g = &v->map->geometry;
    float d = kithi_kernel_distances(k, v->walked, g->metric)
                  ->pair(kithi_view_code(v, a), kithi_view_code(v, b), g->dim);
    return d == d ? d : FLT_MAX;
}

void kithi_code_ask(const struct kithi_view *v, uint32_t slot)
{
    const unsigned char *code = kithi_view_code(v, slot), *end = code + v->code_stride;
    for (unsigned i = 0; i < CODE_LINES && code < end; i++, code += KITHI_CACHE_LINE)
        KITHI_PREFETCH(code);
}

bool kithi_row_open(const struct kithi_view *v, uint32_t slot, unsigned level, struct row *out)
{
    *out = (struct row){ .view = v, .slot = slot, .coded = level == 0 && v->bits_width };
    out->links = kithi_view_links(v, slot, level, &out->count);
    return out->links != NULL;
}

void kithi_rotated(const struct kithi_view *v, uint32_t slot, float *out)
{
    alignas(64) unsigned char code[sizeof(struct kithi_code_head) + KITHI_DIM_MAX];
    uint32_t dim = v->map->geometry.dim;
    /* [P10 place] acquire fence: slot was found by relaxed loads of links, and another worker may just have filled it. What
     * is made of its code stays in rows, so the filling comes first. Other half: kithi_row_put(). */
    atomic_thread_fence(memory_order_acquire);
    kithi_slot_load(code, kithi_view_code(v, slot), kithi_code_size(KITHI_CODEC_SQ8, dim));
    kithi_kernel_pick()->decode(code, dim, out);
    memset(out + dim, 0, (v->bits_width - dim) * sizeof *out);
    kithi_bits_rotate(out, v->bits_width);
}

void kithi_row_clear(struct row *r, struct worker *w, uint32_t place)
{
    atomic_store_explicit(&r->links[place], 0, memory_order_release);
    kithi_stored(w->ix, &r->links[place], sizeof r->links[place]);
}

void kithi_row_put(struct row *r, struct worker *w, uint32_t place, uint32_t slot,
                   const struct kithi_bits_edge *edge, bool back)
{
    if (r->coded) {
        const struct kithi_view *v = r->view;
        if (!edge) {
            kithi_rotated(v, r->slot, w->near_end);
            kithi_rotated(v, slot, w->far_end);
            kithi_bits_encode(w->near_end, w->far_end, v->bits_width, v->map->geometry.metric, &w->edge);
            edge = &w->edge;
            back = false;
        }
        if (atomic_load_explicit(&r->links[place], memory_order_relaxed))
            atomic_store_explicit(&r->links[place], 0, memory_order_relaxed);
        /* [P10 place] release fence: the code is plain bytes, which nothing else would keep behind the emptying, be it
         * the store above or that of a sweep. A crash between them would leave a link with another's code. */
        atomic_thread_fence(memory_order_release);
        kithi_bits_put(kithi_view_block(v, r->slot, place / KITHI_BITS_PLACES), v->bits_width,
                       place % KITHI_BITS_PLACES, edge, back);
    }
    /* [P10 place] release: the slot is filled, and its code is here, before the link. Other half: kithi_rotated(). */
    atomic_store_explicit(&r->links[place], slot + 1, memory_order_release);
    if (r->coded)
        kithi_stored(w->ix, r->links, r->view->row_stride);
    else
        kithi_stored(w->ix, &r->links[place], sizeof r->links[place]);
}

bool kithi_row_add(struct row *r, struct worker *w, uint32_t slot, const struct kithi_bits_edge *edge,
                   bool back)
{
    uint32_t empty = UINT32_MAX;
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        if (link == slot + 1)
            return true;
        if (link == 0 && empty == UINT32_MAX)
            empty = i;
    }
    if (empty == UINT32_MAX)
        return false;
    kithi_row_put(r, w, empty, slot, edge, back);
    return true;
}
