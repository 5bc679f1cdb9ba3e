/*
 * scratch.c - memory of a walk, grown when needed and kept.
 */
#include "shm/graph/scratch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/layout/geometry.h"

void kithi_scratch_init(struct kithi_scratch *s)
{
    memset(s, 0, sizeof *s);
}

void kithi_scratch_fini(struct kithi_scratch *s)
{
    if (!s)
        return;
    free(s->beam);
    free(s->visited);
    free(s->visited_list);
    kithi_query_fini(&s->query);
    free(s->near);
    free(s->found);
    kithi_scratch_init(s);
}

/* Nodes met per place of the beam: about 20 on real data at m = 16, so that a set of 32 places
 * each seldom has to grow, and clearing it costs little beside the walk. */
#define VISITED_PER_EF 32u
#define VISITED_MIN    2048u

/* Room for a set of want places (a power of two); the list survives, the set need not. */
static int reserve_visited(struct kithi_scratch *s, uint32_t want)
{
    if (s->visited_capacity >= want)
        return 0;
    /* A row's worth of slots may be added after the set was found half full. */
    uint32_t *list = realloc(s->visited_list, ((size_t)want / 2 + 2u * KITHI_M_MAX + 2) * sizeof *list);
    if (!list)
        return -ENOMEM;
    s->visited_list = list;
    uint32_t *set = malloc((size_t)want * sizeof *set);
    if (!set)
        return -ENOMEM;
    free(s->visited);
    s->visited = set;
    s->visited_capacity = want;
    return 0;
}

int kithi_scratch_prepare(struct kithi_scratch *s, uint32_t ef)
{
    if (!s->kernel)
        s->kernel = kithi_kernel_pick();
    if (!s->found) {
        s->found = malloc(2u * KITHI_M_MAX * sizeof *s->found);
        if (!s->found)
            return -ENOMEM;
    }
    /* As many ghosts as living ones: more of them than that are a crowd (beam_thin in search.c). */
    uint32_t beam = 2 * ef + 64;
    if (s->beam_capacity < beam) {
        struct kithi_beam_entry *p = malloc((size_t)beam * sizeof *p);
        if (!p)
            return -ENOMEM;
        free(s->beam);
        s->beam = p;
        s->beam_capacity = beam;
    }
    if (s->near_capacity < ef) {
        struct kithi_beam_entry *p = malloc((size_t)ef * sizeof *p);
        if (!p)
            return -ENOMEM;
        free(s->near);
        s->near = p;
        s->near_capacity = ef;
    }
    uint32_t want = VISITED_MIN;
    while (want < (uint64_t)ef * VISITED_PER_EF && want < (1u << 30))
        want *= 2;
    int rc = reserve_visited(s, want);
    if (rc < 0)
        return rc;
    /* Only the part that this search starts with is used and cleared, so that one wide search does
     * not make the narrow ones after it pay. */
    s->visited_mask = want - 1;
    kithi_visited_clear(s);
    s->beam_count = s->live_count = s->ghost_count = 0;
    s->near_count = s->at = s->steps = s->error_count = s->calm_count = 0;
    s->error2 = 0;
    s->near_max = ef;
    return 0;
}

void kithi_visited_clear(struct kithi_scratch *s)
{
    s->visited_count = 0;
    memset(s->visited, 0, ((size_t)s->visited_mask + 1) * sizeof *s->visited);
    if (KITHI_UNLIKELY(s->left_out))
        kithi_visited_add(s, s->left_out - 1);
}

int kithi_scratch_grow_visited(struct kithi_scratch *s)
{
    uint32_t want = (s->visited_mask + 1) * 2;
    if (want == 0)
        return -ENOMEM;
    int rc = reserve_visited(s, want);
    if (rc < 0)
        return rc;
    memset(s->visited, 0, (size_t)want * sizeof *s->visited);
    s->visited_mask = want - 1;
    for (uint32_t i = 0; i < s->visited_count; i++) {
        uint32_t at = kithi_visited_home(s->visited_list[i], s->visited_mask);
        while (s->visited[at])
            at = (at + 1) & s->visited_mask;
        s->visited[at] = s->visited_list[i];
    }
    return 0;
}
