/*
 * recall.c - see recall.h.
 */
#include "shm/graph/recall.h"

#include "shm/graph/search.h"

/* Without a curve: what the sets of bench/README.md need, and as much again. More than it would be with one. */
static const struct kithi_recall_point blind[] = {
    { 64, 0.80, 0 }, { 128, 0.90, 0 }, { 200, 0.95, 0 }, { 400, 0.99, 0 }, { 1000, 0.999, 0 },
};
#define BLIND_COUNT  (sizeof blind / sizeof blind[0])
#define BLIND_K      10u
#define BEYOND_TIMES 2u
#define ROUNDING     0.01
/* With more neighbours than were measured an ef that is hardly wider than they are many misses some: 0.02 of 0.90 with k 100 and ef
 * 108, of mlnotes-bge-micro. */
#define LEAST_ROOM 1.25

void kithi_recall_read(const struct kithi_map *map, struct kithi_recall_curve *out)
{
    const struct kithi_curve *c = (const struct kithi_curve *)(const void *)(map->base + KITHI_CURVE_OFF);
    out->count = 0;
    /* [P15 curve] acquire: the points were stored before. Whether they are of one piece with each other does not matter. */
    if (atomic_load_explicit(&c->magic, memory_order_acquire) != KITHI_CURVE_MAGIC)
        return;
    /* Relaxed: each is of use by itself, and is put into its range here. */
    uint32_t count = atomic_load_explicit(&c->count, memory_order_relaxed), ef = 0;
    out->k = atomic_load_explicit(&c->k, memory_order_relaxed);
    if (out->k < 1 || out->k > KITHI_K_MAX)
        return;
    out->samples = atomic_load_explicit(&c->samples, memory_order_relaxed);
    out->epoch = atomic_load_explicit(&c->epoch, memory_order_relaxed);
    out->since = atomic_load_explicit(&c->since, memory_order_relaxed);
    double least = 0;
    for (uint32_t i = 0; i < count && i < KITHI_CURVE_POINTS; i++) {
        uint64_t word = atomic_load_explicit(&c->points[i], memory_order_relaxed);
        uint32_t recall = kithi_curve_recall(word), half = kithi_curve_half(word);
        if (kithi_curve_ef(word) <= ef || kithi_curve_ef(word) > KITHI_EF_MAX || recall > KITHI_CURVE_UNIT)
            return;
        ef = kithi_curve_ef(word);
        double is = (double)recall / KITHI_CURVE_UNIT;
        least = is > least ? is : least; /* wider is no worse: what looks so is chance */
        half = half < KITHI_CURVE_UNIT ? half : KITHI_CURVE_UNIT;
        out->points[out->count++] = (struct kithi_recall_point){
            .ef = ef,
            .recall = least,
            .half = (double)half / KITHI_CURVE_UNIT,
        };
    }
}

/* The first ef with which n points reach target; 0: none does. */
static double reach(const struct kithi_recall_point *p, uint32_t n, double target)
{
    for (uint32_t i = 0; i < n; i++) {
        if (p[i].recall < target)
            continue;
        if (i == 0)
            return p[i].ef;
        double rise = p[i].recall - p[i - 1].recall; /* not 0, as the one before is below the target */
        return p[i - 1].ef + (p[i].ef - p[i - 1].ef) * ((target - p[i - 1].recall) / rise);
    }
    return 0;
}

uint32_t kithi_recall_choose(const struct kithi_recall_curve *c, uint32_t k, double target,
                             enum kithi_recall_basis *out)
{
    double ef = reach(c->points, c->count, target);
    uint32_t of_k = c->k;
    *out = KITHI_RECALL_CURVE;
    if (c->count == 0) {
        *out = KITHI_RECALL_BLIND;
        of_k = BLIND_K;
        ef = reach(blind, BLIND_COUNT, target);
        if (ef == 0)
            ef = BEYOND_TIMES * blind[BLIND_COUNT - 1].ef;
    } else if (ef == 0) {
        *out = KITHI_RECALL_BEYOND;
        ef = (double)BEYOND_TIMES * c->points[c->count - 1].ef;
    }
    if (k > of_k) {
        ef = ef * k / of_k;
        ef = ef < LEAST_ROOM * k ? LEAST_ROOM * k : ef;
    }
    if (ef < k)
        ef = k;
    if (ef >= KITHI_EF_MAX)
        return KITHI_EF_MAX;
    uint32_t whole = (uint32_t)ef;
    return whole + ROUNDING < ef ? whole + 1 : whole; /* up, but not for what millionths were rounded by */
}

uint32_t kithi_recall_ef(const struct kithi_map *map, uint32_t k, double target, enum kithi_recall_basis *out)
{
    struct kithi_recall_curve c;
    kithi_recall_read(map, &c);
    return kithi_recall_choose(&c, k, target, out);
}
