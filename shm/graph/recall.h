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

/* A private copy of the curve, every number in its range. */
struct kithi_recall_curve {
    uint32_t k, samples;
    uint32_t count; /* 0: there is none */
    uint64_t epoch, since;
    struct kithi_recall_point points[KITHI_CURVE_POINTS]; /* ef rises, recall does not fall */
};

/* Copy it. Bytes that make no sense end the curve before them. */
void kithi_recall_read(const struct kithi_map *map, struct kithi_recall_curve *out);

/*
 * The ef, k to KITHI_EF_MAX, with which searches for k (1 to KITHI_K_MAX) find the share target (above 0, below 1) of the
 * true neighbours. What the curve says is of curve.k neighbours: more take as many times the ef, and 5/4 k at least; fewer take the same. It is
 * linear between two points.
 */
uint32_t kithi_recall_ef(const struct kithi_map *map, uint32_t k, double target,
                         enum kithi_recall_basis *out);
/* The same by a curve that was read. */
uint32_t kithi_recall_choose(const struct kithi_recall_curve *c, uint32_t k, double target,
                             enum kithi_recall_basis *out);

#endif
