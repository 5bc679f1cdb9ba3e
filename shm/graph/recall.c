/*
 * recall.c - see recall.h.
 */
#include "shm/graph/recall.h"

#include <math.h>

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
/* Of half a confidence interval, which is two standard errors: what the measured recall may be above the real one. */
#define HELD_BACK 0.5
/* Ef is a whole number, and the next one may be worth 0.03 of recall where searches are narrow: it is rounded down by this much at most. */
#define ROUNDED_OFF 0.004
/* Of what may be missed: below it a curve tells nothing apart. */
#define MISSED_LEAST (1.0 / KITHI_CURVE_UNIT)
/* Halvings between two points: to a thousandth of the way. */
#define HALVINGS 10u

const double kithi_recall_targets[KITHI_CURVE_TARGETS] = { 0.90, 0.95, 0.99 };

void kithi_recall_read(const struct kithi_map *map, unsigned number, struct kithi_recall_curve *out)
{
    const struct kithi_curve *c =
        (const struct kithi_curve *)(const void *)(map->base + KITHI_CURVE_OFF) + number;
    out->count = out->k = 0;
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
    out->kept_samples = atomic_load_explicit(&c->kept_samples, memory_order_relaxed);
    for (unsigned i = 0; i < KITHI_CURVE_TARGETS; i++) {
        uint32_t kept = atomic_load_explicit(&c->kept[i], memory_order_relaxed);
        out->kept[i] = (double)(kept < KITHI_CURVE_UNIT ? kept : KITHI_CURVE_UNIT) / KITHI_CURVE_UNIT;
    }
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

/* Where y comes to at, on a line from (x0, y0) to (x1, y1) of the logarithms; all are above 0. */
static double on_line(double x0, double y0, double x1, double y1, double at)
{
    /* By halving, which takes square roots only: they are one instruction, logarithms a library. */
    bool falls = y1 < y0;
    for (unsigned i = 0; i < HALVINGS; i++) {
        double x = sqrt(x0 * x1), y = sqrt(y0 * y1);
        bool beyond = falls ? y <= at : y >= at;
        x0 = beyond ? x0 : x;
        y0 = beyond ? y0 : y;
        x1 = beyond ? x : x1;
        y1 = beyond ? y : y1;
    }
    return x1;
}

/* What is missed at a point, with what is held back for chance. */
static double missed(const struct kithi_recall_point *p, double held_back)
{
    double m = 1 - p->recall + held_back * p->half;
    return m > MISSED_LEAST ? m : MISSED_LEAST;
}

/* The first ef with which n points reach target; 0: none does. */
static double reach(const struct kithi_recall_point *p, uint32_t n, double target, double held_back)
{
    double before = 0, want = 1 - target;
    for (uint32_t i = 0; i < n; i++) {
        double m = missed(&p[i], held_back);
        if (i > 0 && m > before)
            m = before; /* chance, like a recall that falls */
        if (m <= want)
            return i == 0 ? p[i].ef : on_line(p[i - 1].ef, before, p[i].ef, m, want);
        before = m;
    }
    return 0;
}

/* The ef by a curve that has points. */
static double by_curve(const struct kithi_recall_curve *c, double target, double held_back,
                       enum kithi_recall_basis *basis)
{
    double ef = reach(c->points, c->count, target, held_back);
    if (ef > 0)
        return ef;
    *basis = KITHI_RECALL_BEYOND;
    return (double)BEYOND_TIMES * c->points[c->count - 1].ef;
}

/* For more neighbours than were measured. */
static double for_more(double ef, uint32_t of_k, uint32_t k)
{
    ef = ef * k / of_k;
    return ef < LEAST_ROOM * k ? LEAST_ROOM * k : ef;
}

static bool is_on_side(const struct kithi_recall_curve *c, const struct kithi_recall_curve *other, uint32_t k)
{
    return other && other->count && (k < c->k ? other->k < c->k : k > c->k && other->k > c->k);
}

static double by_curves(const struct kithi_recall_curve *c, const struct kithi_recall_curve *other,
                        uint32_t k, double target, double held_back, enum kithi_recall_basis *basis)
{
    *basis = KITHI_RECALL_CURVE;
    if (!is_on_side(c, other, k)) {
        double ef = by_curve(c, target, held_back, basis);
        return k > c->k ? for_more(ef, c->k, k) : ef;
    }
    double ef = by_curve(other, target, held_back, basis);
    if (k < c->k ? k > other->k : k < other->k)
        return on_line(ef, other->k, by_curve(c, target, held_back, basis), c->k, k);
    return k > other->k && k > c->k ? for_more(ef, other->k, k) : ef;
}

static double without_curve(uint32_t k, double target)
{
    double ef = reach(blind, BLIND_COUNT, target, 0);
    if (ef == 0)
        ef = BEYOND_TIMES * blind[BLIND_COUNT - 1].ef;
    return k > BLIND_K ? for_more(ef, BLIND_K, k) : ef;
}

/* Up, but not for what millionths were rounded by. */
static uint32_t whole(double ef)
{
    uint32_t below = ef < KITHI_EF_MAX ? (uint32_t)ef : KITHI_EF_MAX;
    return below + ROUNDING < ef && below < KITHI_EF_MAX ? below + 1 : below;
}

uint32_t kithi_recall_choose(const struct kithi_recall_curve *c, const struct kithi_recall_curve *other,
                             uint32_t k, double target, enum kithi_recall_basis *out)
{
    uint32_t ef;
    if (c->count == 0) {
        *out = KITHI_RECALL_BLIND;
        ef = whole(without_curve(k, target));
    } else {
        /* To the nearest whole one of what is surely enough, but up from what is measured as enough. */
        enum kithi_recall_basis plain;
        uint32_t least = whole(by_curves(c, other, k, target - ROUNDED_OFF, 0, &plain));
        uint32_t sure = whole(by_curves(c, other, k, target, HELD_BACK, out) - 0.5);
        ef = sure > least ? sure : least;
    }
    return ef < k ? k : ef;
}

unsigned kithi_recall_side(uint32_t k)
{
    return k < KITHI_CURVE_K ? 1 : 2;
}

uint32_t kithi_recall_ef(const struct kithi_map *map, uint32_t k, double target, enum kithi_recall_basis *out)
{
    struct kithi_recall_curve c, other = { .count = 0 };
    kithi_recall_read(map, 0, &c);
    if (k != c.k || c.count == 0)
        kithi_recall_read(map, kithi_recall_side(k), &other);
    return kithi_recall_choose(&c, &other, k, target, out);
}
