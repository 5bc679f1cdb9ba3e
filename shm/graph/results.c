/*
 * results.c - growing and ordering hits.
 */
#include "shm/graph/results.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void kithi_results_init(struct kithi_results *r)
{
    memset(r, 0, sizeof *r);
}

void kithi_results_fini(struct kithi_results *r)
{
    if (!r)
        return;
    free(r->hits);
    free(r->ids);
    kithi_results_init(r);
}

void kithi_results_clear(struct kithi_results *r)
{
    r->count = 0;
    r->ids_len = 0;
}

int kithi_results_add(struct kithi_results *r, float distance, uint32_t slot, uint64_t birth, const char *id,
                      size_t id_len)
{
    if (r->count == r->capacity) {
        uint32_t capacity = r->capacity ? r->capacity * 2 : 16;
        struct kithi_hit *hits = realloc(r->hits, capacity * sizeof *hits);
        if (!hits)
            return -ENOMEM;
        r->hits = hits;
        r->capacity = capacity;
    }
    if (r->ids_capacity - r->ids_len < id_len + 1) {
        size_t capacity = r->ids_capacity ? r->ids_capacity * 2 : 1024;
        while (capacity - r->ids_len < id_len + 1)
            capacity *= 2;
        char *ids = realloc(r->ids, capacity);
        if (!ids)
            return -ENOMEM;
        r->ids = ids;
        r->ids_capacity = capacity;
    }
    memcpy(r->ids + r->ids_len, id, id_len);
    r->ids[r->ids_len + id_len] = '\0';
    r->hits[r->count++] = (struct kithi_hit){
        .distance = distance, .slot = slot, .birth = birth, .id_off = r->ids_len, .id_len = (uint32_t)id_len
    };
    r->ids_len += id_len + 1;
    return 0;
}

static bool is_farther(const struct kithi_hit *a, const struct kithi_hit *b)
{
    return a->distance > b->distance || (a->distance == b->distance && a->slot > b->slot);
}

/* Shell's sort: next to nothing for hits that are in order, no memory, and no quadratic time when
 * vectors were changed under the search. */
void kithi_results_sort(struct kithi_results *r)
{
    static const uint32_t gaps[] = { 29524, 9841, 3280, 1093, 364, 121, 40, 13, 4, 1 };
    for (unsigned g = 0; g < sizeof gaps / sizeof *gaps; g++) {
        for (uint32_t gap = gaps[g], i = gap; i < r->count; i++) {
            struct kithi_hit h = r->hits[i];
            uint32_t j = i;
            for (; j >= gap && is_farther(&r->hits[j - gap], &h); j -= gap)
                r->hits[j] = r->hits[j - gap];
            r->hits[j] = h;
        }
    }
}
