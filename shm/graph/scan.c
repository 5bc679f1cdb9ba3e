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

int kithi_scan_begin_at(const struct kithi_map *map, const struct kithi_moment *at, struct kithi_scan *out)
{
    out->next = 0;
    int rc = kithi_view_begin_at(map, at, &out->view);
    return rc == 0 && kithi_view_lost(&out->view, false) ? KITHI_E_STALE : rc;
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

int kithi_scan_count(const struct kithi_map *map, const struct kithi_moment *at, uint64_t *out_count)
{
    struct kithi_scan scan;
    uint64_t count = 0, birth;
    int rc = kithi_scan_begin_at(map, at, &scan);
    if (rc < 0)
        return rc;
    const struct kithi_view *v = &scan.view;
    for (uint32_t slot = 0; slot < v->slots_used; slot++) {
        const struct kithi_record *r = kithi_view_record(v, slot);
        count += kithi_view_visible(v, r, &birth) && kithi_birth_same(r, birth);
    }
    if (kithi_view_moved(v))
        return KITHI_E_MOVED;
    if (kithi_view_reused(v))
        return KITHI_E_STALE;
    *out_count = count;
    return 0;
}
