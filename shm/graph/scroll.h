/*
 * scroll.h - all ids in the order of their keyed hash, page by page.
 *
 * The order is that of the id table, but not the table's own: it is the same in every generation and at every size of the
 * table, and an id keeps its place in it whatever is written. So a scroll needs no state but the place that it has come to, and
 * PROTOCOL.md says why each id that is there all the time comes exactly once.
 *
 *     struct kithi_scroll_params p = { .limit = 100 };
 *     do
 *         rc = kithi_scroll(map, &p, &scratch, &page);    page: ids, slots and births
 *     while (rc >= 0 && (p.from = scratch.next, scratch.more));
 */
#ifndef KITHI_GRAPH_SCROLL_H
#define KITHI_GRAPH_SCROLL_H

#include "shm/graph/match.h"
#include "shm/graph/results.h"
#include "shm/graph/view.h"

#define KITHI_SCROLL_MAX 65536u /* ids of a page */

/*
 * A place in the order: two keyed hashes of an id. The first orders the table; the second, which nobody ever needs by chance, tells
 * ids apart whose first is the same.
 */
struct kithi_place {
    uint64_t hash, tie;
};

struct kithi_scroll_params {
    struct kithi_moment at;            /* all zeros: now */
    struct kithi_place from;           /* the first that may come; zeros: the beginning */
    uint32_t limit;                    /* 1..KITHI_SCROLL_MAX */
    struct kithi_condition *condition; /* that ids fulfil; NULL: none */
    float *vectors;                    /* limit x dim floats, filled as given beside the ids; NULL: without */
};

struct kithi_scroll_item;

struct kithi_scroll_scratch {
    struct kithi_scroll_item *items;
    uint32_t count, capacity;
    struct kithi_place next; /* where the next page begins */
    bool more;               /* there is one */
};

void kithi_scroll_init(struct kithi_scroll_scratch *s);
void kithi_scroll_fini(struct kithi_scroll_scratch *s);

struct kithi_place kithi_scroll_place(const uint8_t key[16], const char *id, size_t id_len);

/*
 * The next page: up to limit ids that are visible at one epoch, in order, into out (distances are NaN). A page may be
 * shorter, even empty, though there is more, so that it takes no longer than a few hundred thousand places and versions take;
 * each goes on farther. Returns the number of ids, KITHI_E_MOVED, KITHI_E_STALE, KITHI_E_EPOCH, KITHI_E_FILTER, -ENOMEM. Wait-free.
 */
int kithi_scroll(const struct kithi_map *map, const struct kithi_scroll_params *params,
                 struct kithi_scroll_scratch *s, struct kithi_results *out);

#endif
