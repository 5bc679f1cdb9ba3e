/*
 * plan.c - see plan.h. The numbers of the cost model are those of bench_filter, see bench/README.md.
 */
#include "shm/graph/plan.h"

#include <math.h>

#include "shm/graph/match.h"

/*
 * What one place of a walk's breadth costs, in payloads that a scan looks at: a row or ten codes and a look at what was found, against a record and a
 * blob that were asked for ahead.
 */
#define WALK_COST 22.0
/* The same of comparing a vector that a scan found to match: 160 to 230 ns there. */
#define MATCH_COST 4.0
/* ... and of a slot that postings leave out: its bit is cleared, and looked at. */
#define NARROW_COST 0.001
/*
 * A walk is so many times as wide as the k-th match is expected to be far down in what it finds, and as ef; it was wide enough when it was so many times, as
 * ranks scatter by a third for k of 10. The far end of a beam has gaps.
 */
#define RANK_PART   6u
#define RANK_ENOUGH 4u
#define WALK_EF     3u
/* One that had to be so many times as wide has met a condition that has to do with the vectors. */
#define RANK_OFF 2u
/* Hops are so many halves as wide as ef: matches on the far side of what lies between are harder to find than neighbours. */
#define HOPS_HALVES 5u
/* What a place of them costs: a row and codes; and payloads, and rows of those that do not match, the more the fewer matches stand beside matches. */
#define HOP_COST        20.0
#define HOP_BESIDE_COST 20.0
/* Where so few match that hops go over most of them, they go along their border, too. */
#define HOP_BORDER 2.0
/* As much of the scan's cost may hops take, by the payloads that they look at, each of which goes with so much else. */
#define HOP_LOOK_COST 8.0
/* Searches that do without what was in vain, before it is tried again. */
#define LESSON 15u

/* How many times as wide as the rank of the k-th match a walk is. */
static uint32_t part_of(uint32_t k, uint32_t ef, uint32_t most)
{
    return ef / k > most ? most : ef / k;
}

void kithi_plan_costs(const struct kithi_view *v, const struct kithi_estimate *e, uint32_t k, uint32_t ef,
                      struct kithi_costs *out)
{
    double used = v->slots_used, walk = (double)k * part_of(k, ef, RANK_PART) / e->share;
    double hops = (double)ef * HOPS_HALVES / 2;
    if (walk < (double)ef * WALK_EF)
        walk = (double)ef * WALK_EF;
    double narrow = 1 + HOP_BORDER * hops / (double)(e->matches ? e->matches : 1);
    *out = (struct kithi_costs){
        .walk = walk < used ? walk * WALK_COST : INFINITY,
        .hops = hops < used ? hops * narrow * (HOP_COST + HOP_BESIDE_COST / e->density) : INFINITY,
        .scan = (double)e->looks + used * (MATCH_COST * e->share + (e->indexed ? NARROW_COST : 0)),
        .walk_ef = walk < used ? (uint32_t)walk : 0,
        .hops_ef = hops < used ? (uint32_t)hops : 0,
    };
}

enum kithi_plan kithi_plan_cheapest(const struct kithi_costs *costs, enum kithi_plan_reason *out_reason)
{
    if (costs->walk < costs->scan && costs->walk <= costs->hops) {
        *out_reason = KITHI_PLAN_MANY;
        return KITHI_PLAN_WALK;
    }
    if (costs->hops < costs->scan) {
        *out_reason = KITHI_PLAN_SOME;
        return KITHI_PLAN_HOPS;
    }
    *out_reason = KITHI_PLAN_FEW;
    return KITHI_PLAN_SCAN;
}

static struct kithi_step step_of(const struct kithi_costs *costs, enum kithi_plan plan)
{
    struct kithi_step s = { .plan = plan };
    if (plan == KITHI_PLAN_WALK)
        s.ef = costs->walk_ef;
    if (plan == KITHI_PLAN_HOPS) {
        s.ef = costs->hops_ef;
        s.looks_max = (uint64_t)(costs->scan / HOP_LOOK_COST) + 1;
    }
    return s;
}

struct kithi_step kithi_plan_first(const struct kithi_view *v, struct kithi_condition *c, uint32_t k,
                                   uint32_t ef)
{
    struct kithi_estimate e;
    struct kithi_costs costs;
    if (kithi_estimate(v, c, &e))
        c->lessons = (struct kithi_lessons){ 0 };
    c->share = e.share;
    c->indexed = e.indexed;
    kithi_plan_costs(v, &e, k, ef, &costs);
    enum kithi_plan plan = kithi_plan_cheapest(&costs, &c->reason);
    if (c->only) {
        c->plan = c->only;
        struct kithi_step s = step_of(&costs, c->only);
        s.looks_max = UINT64_MAX;
        s.ef = s.ef ? s.ef : v->slots_used;
        return s;
    }
    if (plan == KITHI_PLAN_WALK && c->lessons.no_walk > 0) {
        c->lessons.no_walk--;
        plan = costs.hops < costs.scan ? KITHI_PLAN_HOPS : KITHI_PLAN_SCAN;
        c->reason = KITHI_PLAN_KNOWN;
    }
    if (plan == KITHI_PLAN_HOPS && c->lessons.no_hops > 0) {
        c->lessons.no_hops--;
        plan = KITHI_PLAN_SCAN;
        c->reason = KITHI_PLAN_KNOWN;
    }
    c->plan = plan;
    return step_of(&costs, plan);
}

/* Those of one plan alone, for measurements: wider and wider. */
static struct kithi_step next_only(const struct kithi_view *v, const struct kithi_condition *c, bool enough)
{
    struct kithi_step s = { .plan = enough || c->ef >= v->slots_used ? KITHI_PLAN_NONE : c->only };
    s.ef = 2 * c->ef;
    s.looks_max = UINT64_MAX;
    return s;
}

struct kithi_step kithi_plan_next(const struct kithi_view *v, struct kithi_condition *c, uint32_t k,
                                  uint32_t ef, uint32_t count, bool was_dear)
{
    bool enough = count >= k && !was_dear;
    bool walked = c->plan == KITHI_PLAN_WALK;
    uint32_t needs = walked ? c->rank * part_of(k, ef, RANK_ENOUGH) : 0;
    enough = enough && needs <= c->ef;
    if (c->only)
        return next_only(v, c, enough);
    if (enough)
        return (struct kithi_step){ 0 };
    struct kithi_estimate e;
    struct kithi_costs costs;
    kithi_estimate(v, c, &e);
    kithi_plan_costs(v, &e, k, ef, &costs);
    if (walked && count >= k) { /* how wide it has to be is known now */
        costs.walk_ef = needs;
        costs.walk = needs < v->slots_used ? needs * WALK_COST : INFINITY;
    } else {
        costs.walk = INFINITY;
    }
    if (walked && (count < k || needs > RANK_OFF * c->ef))
        c->lessons.no_walk = LESSON;
    if (!walked)
        c->lessons.no_hops = LESSON;
    if (!walked || c->lessons.no_hops > 0)
        costs.hops = INFINITY;
    c->plan = kithi_plan_cheapest(&costs, &c->reason);
    c->reason = KITHI_PLAN_SHORT;
    struct kithi_step step = step_of(&costs, c->plan);
    if (c->plan == KITHI_PLAN_SCAN)
        c->plan = KITHI_PLAN_WALK_SCAN;
    return step;
}
