/*
 * match.c - see match.h.
 */
#include "shm/graph/match.h"

#include "shm/base/error.h"
#include "shm/graph/payload.h"
#include "shm/graph/search.h"

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
