/*
 * scan.h - every visible vector of one snapshot, in slot order. For export, exact truth and counts.
 *
 *     struct kithi_scan scan;
 *     kithi_scan_begin(map, &scan);
 *     while ((rc = kithi_scan_next(&scan, &item, vector)) == 1) ...
 *
 * Needs no finder, so only [P4 reused] can overtake it: kithi_scan_next then returns
 * KITHI_E_STALE and the caller begins again.
 */
#ifndef KITHI_GRAPH_SCAN_H
#define KITHI_GRAPH_SCAN_H

#include "shm/base/id.h"
#include "shm/graph/view.h"

struct kithi_scan {
    struct kithi_view view;
    uint32_t next; /* slot */
};

struct kithi_item {
    uint32_t slot;
    uint32_t id_len;
    uint64_t birth;
    char id[KITHI_ID_MAX + 1]; /* NUL-terminated */
};

void kithi_scan_begin(const struct kithi_map *map, struct kithi_scan *out);
/* The same at a moment: 0, KITHI_E_EPOCH, or KITHI_E_STALE. */
int kithi_scan_begin_at(const struct kithi_map *map, const struct kithi_moment *at, struct kithi_scan *out);

/*
 * The next visible item; vector (dim floats, as given) may be NULL. Returns 1, 0 at the end,
 * KITHI_E_STALE or KITHI_E_MOVED.
 */
int kithi_scan_next(struct kithi_scan *scan, struct kithi_item *item, float *vector);

/* How many vectors a moment shows: 0, KITHI_E_EPOCH, KITHI_E_STALE or KITHI_E_MOVED. Reads every record. */
int kithi_scan_count(const struct kithi_map *map, const struct kithi_moment *at, uint64_t *out_count);

#endif
