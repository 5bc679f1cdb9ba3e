/*
 * reach.h - which slots does the graph lead to? A walk of all of level 0 from the entry point, through the dead as
 * searches go through them.
 *
 * A vector that it does not come to is found by get and by exact search; a search that walks the graph misses it, but for one that
 * comes down on it from an upper level.
 *
 * Beside a writer a walk may miss what was always reachable: a link that was taken away before its row was read
 * may have got its place in a row that was read before. So a slot counts as unreachable when several walks, one after the
 * other, have missed it. In a segment that rests one would do.
 */
#ifndef KITHI_GRAPH_REACH_H
#define KITHI_GRAPH_REACH_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/graph/view.h"

/* A walk under way. */
struct kithi_reach {
    struct kithi_view view; /* of its beginning */
    uint64_t *reached;      /* bitmap by slot */
    uint32_t *queue;        /* of slots that were reached, in this order */
    uint32_t head, tail;    /* those from head on are to be expanded */
    bool above;             /* by links of upper levels, too */
    uint32_t *by;           /* by slot: who led there first, as slot + 1 (0: nobody); NULL: it is not kept */
};

/* Begin at the entry point. 0 or -ENOMEM; then nothing is held. Needs 4 bytes and a bit a slot. */
int kithi_reach_begin(struct kithi_reach *r, const struct kithi_map *map);
/*
 * Right after that: keep by which link each slot was reached first. With these links alone everything that was reached is, so any other
 * may go. 0, or -ENOMEM, with nothing changed. 4 bytes a slot.
 */
int kithi_reach_keep_ways(struct kithi_reach *r);
/* Is the link from one slot to another (both < view.slots_used) such a one? */
static inline bool kithi_reach_is_way(const struct kithi_reach *r, uint32_t from, uint32_t to)
{
    return r->by && r->by[to] == from + 1;
}
/* Expand so many slots. false: all are. */
bool kithi_reach_step(struct kithi_reach *r, uint32_t slots);
/* Once all are: go on by the links of upper levels. Steps follow. */
void kithi_reach_go_above(struct kithi_reach *r);
/* slot (< view.slots_used) is led to after all, by another one (as slot + 1; 0: it does not matter). Steps follow. */
void kithi_reach_add(struct kithi_reach *r, uint32_t slot, uint32_t by);
/* Was slot (< view.slots_used) reached? */
static inline bool kithi_reach_has(const struct kithi_reach *r, uint32_t slot)
{
    return r->reached[slot / 64] >> (slot % 64) & 1;
}
/* Is slot (< view.slots_used) visible at the view's epoch, alive still, and was not reached? */
bool kithi_reach_misses(const struct kithi_reach *r, uint32_t slot);
/* All zeros is fine. */
void kithi_reach_end(struct kithi_reach *r);

struct kithi_reach_report {
    uint64_t epoch;             /* of the last walk */
    uint64_t live_count;        /* visible at it */
    uint64_t unreachable_count; /* of them, missed by every walk */
    uint64_t above_count;       /* of those, reached when links of upper levels are followed, too */
};

/* Called for each of them, in the order of slots; above: as above_count. */
typedef void kithi_reach_fn(void *arg, const struct kithi_view *v, uint32_t slot, bool above);

/*
 * Walk, and where something was missed again, as often as it takes to be sure, over up to patience_ms (0: no writer runs; once more
 * without waiting). fn may be NULL. 0, KITHI_E_MOVED, -ENOMEM, or -ECANCELED soon after *stop (may be NULL) has become true.
 */
int kithi_reach_prove(const struct kithi_map *map, uint32_t patience_ms, const _Atomic bool *stop,
                      kithi_reach_fn *fn, void *arg, struct kithi_reach_report *out);

#endif
