/*
 * scratch.h - private memory of one search at a time: the beam, the visited set, buffers.
 *
 * Sized by the work (ef and the nodes met), never by the collection: a search with ef 100
 * uses about 100 KiB whether the collection holds ten thousand or ten million vectors. It
 * grows when a search needs more and is kept, so the steady state allocates nothing.
 */
#ifndef KITHI_GRAPH_SCRATCH_H
#define KITHI_GRAPH_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/kernel/distance.h"
#include "shm/kernel/query.h"

#define KITHI_BEAM_EXPANDED (1u << 31) /* flags beside the slot number, which is below 2^28 */
#define KITHI_BEAM_GHOST    (1u << 30) /* walked through, takes no place in ef */
#define KITHI_BEAM_SLOT     (KITHI_BEAM_GHOST - 1u)

struct kithi_beam_entry {
    float distance;
    uint32_t slot; /* with flags */
};

/*
 * Whom rows would lead to in place of a slot that is left out, which a walk finds out as it meets them. For one that is left out
 * and any number of searches; count is 0 before the first.
 */
#define KITHI_HEIRS_MAX 128u
struct kithi_heirs {
    uint32_t count;
    struct {
        uint32_t owner, heir; /* slots; heir UINT32_MAX: nobody */
    } known[KITHI_HEIRS_MAX];
};

struct kithi_scratch {
    struct kithi_beam_entry *beam; /* sorted, nearest first */
    uint32_t beam_count, beam_capacity;
    uint32_t live_count;  /* entries that are no ghosts */
    uint32_t ghost_count; /* ghosts that were expanded */

    uint32_t *visited;      /* set, open addressing; slot + 1; 0 is empty */
    uint32_t *visited_list; /* the same slots + 1 in order of arrival, to rehash from */
    uint32_t visited_mask, visited_count, visited_capacity;

    struct kithi_query query;

    /* The walk at hand (walk.h). */
    uint32_t ef, level, eyes, at; /* at: no entry of the beam before it waits for its expansion */
    uint32_t left_out;            /* slot + 1 that an empty visited set holds; 0: none */
    struct kithi_heirs *heirs;    /* of it; NULL: rows lack the link */
    bool near_used;               /* expanded nodes are kept in near, and the beam is in order of estimates */
    struct kithi_beam_entry *near; /* sorted, nearest first */
    uint32_t near_count, near_max, near_capacity;
    float error2;                  /* sum of squares of how far estimates were off, of steps expansions */
    uint32_t steps;                /* expansions by neighbour codes */
    uint32_t error_count;          /* of hops: how many estimates error2 is of */
    uint32_t far_from;             /* places of the beam from here on are not near */
    uint32_t calm_count, patience; /* expansions in a row that led nobody near, and how many are enough */
    uint32_t judge_at,
        judge_count; /* the beam's first judge_count wait to be compared by codes, before the end */

    float estimates[32]; /* of found, from neighbour codes */
    uint32_t *found;     /* neighbours of the row at hand that were not visited before */
    const struct kithi_kernel *kernel;
    uint64_t distance_count, expansion_count;
    bool stood_on_dead; /* the walk went through a slot that takes no place, or may not; reset by who cares */
};

/* An empty scratch; memory comes with its first use. */
void kithi_scratch_init(struct kithi_scratch *s);
void kithi_scratch_fini(struct kithi_scratch *s);

/* Make room for a walk of breadth ef, and clear; near keeps ef entries unless near_max is lowered. 0 or -ENOMEM. */
int kithi_scratch_prepare(struct kithi_scratch *s, uint32_t ef);

/* Double the visited set; 0 or -ENOMEM. */
int kithi_scratch_grow_visited(struct kithi_scratch *s);

/* Empty the visited set, but for what is left out: no walk meets it. */
void kithi_visited_clear(struct kithi_scratch *s);

static inline uint32_t kithi_visited_home(uint32_t link, uint32_t mask)
{
    return (uint32_t)((uint64_t)(link * 2654435769u) * ((uint64_t)mask + 1) >> 32);
}

/* Half full: time to grow. */
static inline bool kithi_visited_full(const struct kithi_scratch *s)
{
    return s->visited_count > s->visited_mask / 2;
}

/* Add slot to the set; false when it was there. The set is not full. */
static inline bool kithi_visited_add(struct kithi_scratch *s, uint32_t slot)
{
    uint32_t link = slot + 1, at = kithi_visited_home(link, s->visited_mask);
    while (s->visited[at]) {
        if (s->visited[at] == link)
            return false;
        at = (at + 1) & s->visited_mask;
    }
    s->visited[at] = link;
    s->visited_list[s->visited_count++] = link;
    return true;
}

static inline bool kithi_visited_has(const struct kithi_scratch *s, uint32_t slot)
{
    uint32_t link = slot + 1, at = kithi_visited_home(link, s->visited_mask);
    while (s->visited[at] && s->visited[at] != link)
        at = (at + 1) & s->visited_mask;
    return s->visited[at] != 0;
}

#endif
