/*
 * recall.h - from a recall that is asked for to the ef that gives it, by the curve that the daemon publishes (curve.h).
 */
#ifndef KITHI_GRAPH_RECALL_H
#define KITHI_GRAPH_RECALL_H

#include "shm/layout/curve.h"
#include "shm/map/map.h"

/* What an ef that was chosen for a recall rests on. */
enum kithi_recall_basis {
    KITHI_RECALL_CURVE = 1,  /* the curve reaches that recall */
    KITHI_RECALL_BEYOND = 2, /* it does not: twice the widest that was measured */
    KITHI_RECALL_BLIND = 3,  /* there is no curve: wide enough for what is usual */
};

struct kithi_recall_point {
    uint32_t ef;
    double recall, half; /* with a confidence of 95 % recall - half to recall + half */
};

/* A private copy of a curve, every number in its range. */
struct kithi_recall_curve {
    uint32_t k, samples;
    uint32_t count; /* 0: there is none */
    uint64_t epoch, since;
    struct kithi_recall_point points[KITHI_CURVE_POINTS]; /* ef rises, recall does not fall */
    double kept[KITHI_CURVE_TARGETS];                     /* what kithi_recall_targets[] came to */
    uint32_t kept_samples;                                /* by so many; 0: that is not known */
};

/* Recalls whose keeping is looked at. */
extern const double kithi_recall_targets[KITHI_CURVE_TARGETS];

/* Copy the curve of that number, below KITHI_CURVE_COUNT. Bytes that make no sense end the curve before them. */
void kithi_recall_read(const struct kithi_map *map, unsigned number, struct kithi_recall_curve *out);

/*
 * The ef, k to KITHI_EF_MAX, with which searches for k (1 to KITHI_K_MAX) find the share target (above 0, below 1) of the
 * true neighbours.
 *
 * A curve is of its k neighbours, and between its points the logarithm of what is missed is linear in that of ef. A fourth of the confidence
 * interval's width, which is about one standard error, is held back, to the nearest whole ef. Between two k that were measured the logarithm of ef is linear in that of k; more
 * than the most that were take as many times the ef, and 5/4 k at least; where nothing else was measured, fewer
 * take the same.
 */
uint32_t kithi_recall_ef(const struct kithi_map *map, uint32_t k, double target,
                         enum kithi_recall_basis *out);
/* The same by curves that were read: the first, and one on k's side of its neighbours (NULL, or one without points: there is none). */
uint32_t kithi_recall_choose(const struct kithi_recall_curve *c, const struct kithi_recall_curve *other,
                             uint32_t k, double target, enum kithi_recall_basis *out);
/* The number of that other one. */
unsigned kithi_recall_side(uint32_t k);

#endif
