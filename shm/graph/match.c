/*
 * match.c - see match.h.
 */
#include "shm/graph/match.h"

#include "shm/base/error.h"
#include "shm/graph/payload.h"
#include "shm/graph/search.h"

/* Slots of a sample. A share of one in a hundred is then known to within a half of it, and takes 0.1 ms to learn. */
#define SAMPLE_COUNT 512u
/* ... which is taken anew after so many commits, and when the slots have become so many eighths more. */
#define SAMPLE_GROUPS 1024u
/*
 * What one place of a walk's breadth costs, in payloads that a scan looks at: a row or ten codes and a look at what was found, against a record and a
 * blob that were asked for ahead. bench_filter has 22 (384-d, bits), 28 (768-d, bits) and 33 (384-d, none), where a payload is 45 to 55 ns.
 */
#define WALK_COST 26.0
/* The same of comparing a vector that a scan found to match: 160 to 230 ns there. */
#define MATCH_COST 4.0
/* The k-th match lies within this part of what a walk has found, unless ef is nearer to k: the far end of a beam has gaps. */
#define RANK_PART 4u
/* Payloads asked for ahead of the one that is looked at. */
#define MATCH_AHEAD 8u
/* Times that a payload which was refilled meanwhile is looked for again, before another view is. */
#define AGAIN_MAX 4u

int kithi_match(const struct kithi_view *v, uint32_t slot, uint64_t birth, struct kithi_condition *c)
{
    struct kithi_payload p = { .bytes = c->payload };
    enum kithi_payload_seen seen = KITHI_PAYLOAD_AGAIN;
    for (uint32_t tries = 0; seen == KITHI_PAYLOAD_AGAIN; tries++) {
        if (tries == AGAIN_MAX)
            return KITHI_MATCH_AGAIN;
        seen = kithi_view_payload(v, slot, birth, c->payload, &p.len);
    }
    if (seen == KITHI_PAYLOAD_NONE)
        p.len = 0;
    int rc = kithi_filter_eval(c->filter, &p, &c->look);
    if (KITHI_UNLIKELY(kithi_filter_unseen(c->filter, &c->look)))
        kithi_filter_see(c->filter, &p, &c->look);
    c->evaluated++;
    c->matched += rc == 1;
    return rc;
}

int kithi_match_narrow(const struct kithi_view *v, struct kithi_condition *c)
{
    int rc = kithi_candidates_find(v, c->filter, &c->candidates);
    c->look.seen |= c->candidates.fields; /* also where nobody is asked who has them */
    return rc < 0 ? rc : 0;
}

void kithi_match_prefetch(const struct kithi_view *v, uint32_t slot)
{
    struct kithi_payload_blob b;
    /* Relaxed: a hint of what will be read. */
    uint32_t ref = atomic_load_explicit(&kithi_view_record(v, slot)->payload, memory_order_relaxed);
    if (ref && kithi_view_payload_blob(v, ref, &b))
        KITHI_PREFETCH(b.blob);
}

/* ---- the sample ---- */

static bool is_fresh(const struct kithi_view *v, const struct kithi_condition *c)
{
    return c->sampled && v->epoch >= c->sample_epoch && v->epoch - c->sample_epoch < SAMPLE_GROUPS &&
           v->slots_used <= c->sample_used + c->sample_used / 8;
}

/* A slot of the sample counts when it is visible and of one piece; types that do not go together match nothing. */
static void sample_slot(const struct kithi_view *v, struct kithi_condition *c, uint32_t slot)
{
    uint64_t birth;
    if (!kithi_view_visible(v, kithi_view_record(v, slot), &birth))
        return;
    int rc = kithi_match(v, slot, birth, c);
    c->sampled += rc != KITHI_MATCH_AGAIN;
    c->sample_matched += rc == KITHI_MATCH_YES;
    c->look.holds = (enum kithi_payload_type)0;
}

static void sample(const struct kithi_view *v, struct kithi_condition *c)
{
    c->sampled = c->sample_matched = 0;
    c->sample_epoch = v->epoch;
    c->sample_used = v->slots_used;
    uint32_t count = v->slots_used < SAMPLE_COUNT ? v->slots_used : SAMPLE_COUNT;
    for (uint32_t i = 0; i < count; i++) {
        /* One of each stretch of slots, at a place in it that has nothing to do with any order of them. */
        uint64_t low = (uint64_t)v->slots_used * i / count, high = (uint64_t)v->slots_used * (i + 1) / count;
        uint64_t mixed = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
        sample_slot(v, c, (uint32_t)(low + (mixed >> 32) % (high - low)));
    }
    c->evaluated = c->matched = 0;
}

double kithi_condition_share(const struct kithi_condition *c)
{
    return (c->sample_matched + 0.5) / (c->sampled + 1.0);
}

/* ---- the plan ---- */

/* How many times as wide as the rank of the k-th match a walk is. */
static uint32_t part_of(uint32_t k, uint32_t ef)
{
    uint32_t part = ef / k;
    return part > RANK_PART ? RANK_PART : part;
}

static bool is_dear(const struct kithi_view *v, const struct kithi_condition *c, double ef)
{
    double scan = v->slots_used * (1 + MATCH_COST * kithi_condition_share(c));
    return ef >= v->slots_used || (ef * WALK_COST >= scan && !c->only_walks);
}

uint32_t kithi_plan_first(const struct kithi_view *v, struct kithi_condition *c, uint32_t k, uint32_t ef)
{
    if (!is_fresh(v, c))
        sample(v, c);
    double want = (double)k * part_of(k, ef) / kithi_condition_share(c);
    if (want < ef)
        want = ef;
    bool dear = is_dear(v, c, want);
    c->plan = dear ? KITHI_PLAN_SCAN : KITHI_PLAN_WALK;
    c->reason = dear ? KITHI_PLAN_FEW : KITHI_PLAN_MANY;
    return dear ? 0 : (uint32_t)want;
}

uint32_t kithi_plan_next(const struct kithi_view *v, struct kithi_condition *c, uint32_t k, uint32_t ef,
                         uint32_t count)
{
    double want = 2.0 * c->ef, needs = (double)c->rank * part_of(k, ef);
    if (count >= k && needs <= c->ef)
        return 0;
    if (count < k)
        want *= 2;
    if (want < needs)
        want = needs;
    if (!is_dear(v, c, want))
        return (uint32_t)want;
    c->plan = KITHI_PLAN_WALK_SCAN;
    c->reason = KITHI_PLAN_SHORT;
    return UINT32_MAX;
}

/* ---- counting ---- */

/* One pass. As kithi_match_count(), or KITHI_MATCH_AGAIN. */
static int count_once(const struct kithi_map *map, const struct kithi_moment *at, struct kithi_condition *c,
                      uint64_t *out_count)
{
    struct kithi_view v;
    uint64_t count = 0;
    int rc = kithi_view_begin_at(map, at, &v);
    if (rc < 0)
        return rc;
    rc = kithi_match_narrow(&v, c);
    if (rc < 0)
        return rc;
    const struct kithi_candidates *may = &c->candidates;
    uint32_t ahead = kithi_candidates_next(may, 0), due = MATCH_AHEAD;
    for (uint32_t slot = ahead; slot != UINT32_MAX; slot = kithi_candidates_next(may, slot + 1)) {
        for (due++; due > 0 && ahead != UINT32_MAX; due--, ahead = kithi_candidates_next(may, ahead + 1))
            kithi_match_prefetch(&v, ahead);
        uint64_t birth;
        rc = KITHI_MATCH_NO;
        if (kithi_view_visible(&v, kithi_view_record(&v, slot), &birth))
            rc = kithi_match(&v, slot, birth, c);
        if (rc < 0 || rc == KITHI_MATCH_AGAIN)
            break;
        count += rc == KITHI_MATCH_YES;
    }
    if (kithi_view_moved(&v))
        return KITHI_E_MOVED;
    if (kithi_view_reused(&v))
        return v.pinned ? KITHI_E_STALE : KITHI_MATCH_AGAIN;
    *out_count = count;
    return rc < 0 || rc == KITHI_MATCH_AGAIN ? rc : 0;
}

int kithi_match_count(const struct kithi_map *map, const struct kithi_moment *at, struct kithi_condition *c,
                      uint64_t *out_count)
{
    int rc = KITHI_MATCH_AGAIN;
    for (uint32_t attempt = 0; rc == KITHI_MATCH_AGAIN && attempt < KITHI_RESTART_MAX; attempt++) {
        c->evaluated = c->matched = 0;
        rc = count_once(map, at, c, out_count);
    }
    return rc == KITHI_MATCH_AGAIN ? KITHI_E_STALE : rc;
}
