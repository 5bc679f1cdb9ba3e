/*
 * plan.h - how to search under a condition: what each way would cost, which is taken first, and which after one that was not enough.
 *
 * Three ways answer rightly:
 *
 *     walk   wide enough for k matches to be well inside of what it finds; payloads are asked at its end
 *     hops   from match to match (hop.h); payloads are asked all along
 *     scan   looks at every payload, and compares the vectors of those that match
 *
 *     walk --too few matches near the query--> hops --too few found, or as dear as a scan--> scan
 *
 * Begun with is the one that costs least by what an estimate says; each step goes on to the right only, so a search ends, and has k
 * hits or all that match. What a condition has learned is kept with it: where hops were in vain, the next searches do without them.
 */
#ifndef KITHI_GRAPH_PLAN_H
#define KITHI_GRAPH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/graph/estimate.h"

/* What answered. The numbers are those of enum kith_plan. */
enum kithi_plan {
    KITHI_PLAN_NONE = 0, /* there was no filter */
    KITHI_PLAN_WALK = 1,
    KITHI_PLAN_SCAN = 2,
    KITHI_PLAN_WALK_SCAN = 3, /* a scan, after walks or hops that were not enough */
    KITHI_PLAN_HOPS = 4,
};

/* Why that. The numbers are those of enum kith_plan_reason. */
enum kithi_plan_reason {
    KITHI_PLAN_GIVEN = 0, /* exact search was asked for, or there was no filter */
    KITHI_PLAN_MANY = 1,  /* so many match that a walk meets them */
    KITHI_PLAN_FEW = 2,   /* so few match that a scan is cheaper than the way to them */
    KITHI_PLAN_SHORT = 3, /* few match near the query: what was cheapest by the estimate was not enough */
    KITHI_PLAN_SOME = 4,  /* a walk would meet few of them, and a scan would look at many others */
    KITHI_PLAN_KNOWN = 5, /* the way that is cheapest by the estimate was in vain a few searches ago */
};

/* What each way costs, in payloads that a scan looks at: some 50 ns each. */
struct kithi_costs {
    double walk, hops, scan;   /* INFINITY: that way cannot answer */
    uint32_t walk_ef, hops_ef; /* how wide they are */
};

/* What searches under a condition have taught. Zero at first. */
struct kithi_lessons {
    uint32_t no_walk, no_hops; /* so many searches do without it */
};

/* How to search: the way, and how far it may go. */
struct kithi_step {
    enum kithi_plan plan; /* WALK, HOPS or SCAN; NONE: what was found is enough */
    uint32_t ef;          /* of WALK and HOPS */
    uint64_t looks_max;   /* of HOPS: payloads that may be looked at, before a scan takes over */
};

struct kithi_view;

/* For k hits at breadth ef. */
void kithi_plan_costs(const struct kithi_view *v, const struct kithi_estimate *e, uint32_t k, uint32_t ef,
                      struct kithi_costs *out);

/* The cheapest by its cost, and why. */
enum kithi_plan kithi_plan_cheapest(const struct kithi_costs *costs, enum kithi_plan_reason *out_reason);

/* How a search for k hits at breadth ef begins. Fills c->plan and c->reason. */
struct kithi_step kithi_plan_first(const struct kithi_view *v, struct kithi_condition *c, uint32_t k,
                                   uint32_t ef);

/*
 * A walk or hops of breadth c->ef have found count matches, at most k; was_dear: hops had looked at as many as they may. How the search goes on.
 */
struct kithi_step kithi_plan_next(const struct kithi_view *v, struct kithi_condition *c, uint32_t k,
                                  uint32_t ef, uint32_t count, bool was_dear);

#endif
