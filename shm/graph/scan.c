/*
 * scan.c - a pass over the records of one snapshot.
 */
#include "shm/graph/scan.h"

#include "shm/base/error.h"
#include "shm/graph/lookup.h"

void kithi_scan_begin(const struct kithi_map *map, struct kithi_scan *out)
{
    kithi_view_begin(map, &out->view);
    out->next = 0;
}

int kithi_scan_next(struct kithi_scan *scan, struct kithi_item *item, float *vector)
{
    const struct kithi_view *v = &scan->view;
    while (scan->next < v->slots_used) {
        uint32_t slot = scan->next++;
        const struct kithi_record *r = kithi_view_record(v, slot);
        uint64_t birth;
        if (!kithi_view_visible(v, r, &birth))
            continue;
        size_t len = kithi_view_id(v, slot, item->id);
        if (vector)
            kithi_view_vector_given(v, slot, vector);
        if (!kithi_birth_same(r, birth) || len == 0)
            continue;
        item->slot = slot;
        item->id_len = (uint32_t)len;
        item->birth = birth;
        item->id[len] = '\0';
        return 1;
    }
    if (kithi_view_moved(v))
        return KITHI_E_MOVED;
    return kithi_view_reused(v) ? KITHI_E_STALE : 0;
}
