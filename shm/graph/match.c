/*
 * match.c - see match.h.
 */
#include "shm/graph/match.h"

#include <time.h>

#include "shm/base/error.h"
#include "shm/graph/payload.h"
#include "shm/graph/search.h"

/* Payloads asked for ahead of the one that is looked at; records twice as far. */
#define PASS_AHEAD 8u
/* Times that a payload which was refilled meanwhile is looked for again, before another view is. */
#define AGAIN_MAX   4u
#define LATE_STRIDE 256u

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

void kithi_match_prefetch(const struct kithi_view *v, uint32_t slot)
{
    struct kithi_payload_blob b;
    /* Relaxed: a hint of what will be read. */
    uint32_t ref = atomic_load_explicit(&kithi_view_record(v, slot)->payload, memory_order_relaxed);
    if (ref && kithi_view_payload_blob(v, ref, &b))
        KITHI_PREFETCH(b.blob);
}

static uint32_t next_of(const struct kithi_view *v, const struct kithi_pass *p, uint32_t slot)
{
    if (p->may)
        return kithi_candidates_next(p->may, slot);
    return slot < v->slots_used ? slot : UINT32_MAX;
}

static void ask_record(const struct kithi_view *v, struct kithi_pass *p)
{
    if (p->far == UINT32_MAX)
        return;
    KITHI_PREFETCH(kithi_view_record(v, p->far));
    p->far = next_of(v, p, p->far + 1);
}

static void ask_payload(const struct kithi_view *v, struct kithi_pass *p)
{
    if (p->near == UINT32_MAX)
        return;
    kithi_match_prefetch(v, p->near);
    p->near = next_of(v, p, p->near + 1);
}

int kithi_pass_begin(const struct kithi_view *v, struct kithi_condition *c, bool payloads,
                     struct kithi_pass *out)
{
    *out = (struct kithi_pass){ .slot = UINT32_MAX, .near = UINT32_MAX };
    if (c) {
        int rc = kithi_candidates_find(v, c->filter, &c->candidates);
        c->look.seen |= c->candidates.fields; /* also where nobody is asked who has them */
        if (rc < 0)
            return rc;
        c->indexed = c->candidates.known;
        out->may = &c->candidates;
    }
    out->far = next_of(v, out, 0);
    if (payloads)
        out->near = out->far;
    for (uint32_t i = 0; i < 2 * PASS_AHEAD; i++)
        ask_record(v, out);
    for (uint32_t i = 0; i < PASS_AHEAD; i++)
        ask_payload(v, out);
    return 0;
}

uint32_t kithi_pass_next(const struct kithi_view *v, struct kithi_pass *p)
{
    p->slot = next_of(v, p, p->slot + 1); /* from UINT32_MAX to 0 at first */
    ask_record(v, p);
    ask_payload(v, p);
    return p->slot;
}

bool kithi_pass_late(struct kithi_pass *p)
{
    if (!p->deadline_ns || p->steps++ % LATE_STRIDE != 0)
        return false;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* the vDSO answers; no system call */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec >= p->deadline_ns;
}

/* One pass. As kithi_match_count(), or KITHI_MATCH_AGAIN. */
static int count_once(const struct kithi_map *map, const struct kithi_moment *at, struct kithi_condition *c,
                      uint64_t deadline_ns, uint64_t *out_count)
{
    struct kithi_view v;
    uint64_t count = 0;
    int rc = kithi_view_begin_at(map, at, &v);
    if (rc < 0)
        return rc;
    struct kithi_pass pass;
    rc = kithi_pass_begin(&v, c, true, &pass);
    if (rc < 0)
        return rc;
    pass.deadline_ns = deadline_ns;
    for (uint32_t slot; (slot = kithi_pass_next(&v, &pass)) != UINT32_MAX;) {
        uint64_t birth;
        if (kithi_pass_late(&pass))
            return KITHI_E_TIMEOUT;
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
                      uint64_t deadline_ns, uint64_t *out_count)
{
    int rc = KITHI_MATCH_AGAIN;
    for (uint32_t attempt = 0; rc == KITHI_MATCH_AGAIN && attempt < KITHI_RESTART_MAX; attempt++) {
        c->evaluated = c->matched = 0;
        rc = count_once(map, at, c, deadline_ns, out_count);
    }
    return rc == KITHI_MATCH_AGAIN ? KITHI_E_STALE : rc;
}
