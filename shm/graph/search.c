/*
 * search.c - a search around the walk: snapshot, descent, walk, exact distances, check, marks.
 *
 * Owns the order in which a search looks at shared words, which is the reader's half of PROTOCOL.md. Loops end by
 * counts that this process holds.
 */
#include "shm/graph/search.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "shm/base/error.h"
#include "shm/base/id.h"
#include "shm/graph/hop.h"

/* How a walk has ended, when the snapshot has to be taken anew, or better were. */
enum { WALK_ENDED = 0, WALK_ON = 1, WALK_AGAIN = 2, WALK_SHORT = 3 };

/* What take_hit() says besides how many it took. */
enum { HIT_AGAIN = 2 };

/* Walks begun again because rows were emptied under them; the next answer is as good as a walk among
 * dead slots gets. A long search beside a busy writer would else never end. */
#define EMPTIED_MAX 2u
/* Records and vectors asked for ahead of the one that is scored. */
#define SCORE_AHEAD 8u
#define SCORE_LINES 4u
/* How much more than so far the order of codes may be off, and how many tell how far that is. */
#define SCORE_SLACK 1.5f
#define SCORE_MIN   4u
#define SCORE_SHARE 8u /* of ef */
/* A pass over all records in place of a walk that has found too few: no more records than so many times those that it met. */
#define SCAN_SHARE 16u
/* Where nothing else is left, no more than these, however few it met: writers leave ten thousand dead slots in a grace period, and a walk
 * that is cut off at its first step met nobody. A pass over so many records takes about a millisecond. */
#define SCAN_LAST 65536u

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* the vDSO answers; no system call */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/*
 * Copy slot out when it is visible, of one piece, and fulfils the condition (NULL: none): id, and the exact distance computed
 * inside the birth window. Returns 1, 0 when it does not count, HIT_AGAIN when its payload cannot be told, -ENOMEM or KITHI_E_FILTER.
 */
static int take_hit(const struct kithi_view *v, struct kithi_scratch *s, uint32_t slot,
                    struct kithi_condition *condition, struct kithi_results *out)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    uint64_t birth;
    char id[KITHI_ID_MAX + 1];
    if (!kithi_view_visible(v, r, &birth))
        return 0;
    if (condition) {
        int match = kithi_match(v, slot, birth, condition);
        if (match != KITHI_MATCH_YES)
            return match == KITHI_MATCH_AGAIN ? HIT_AGAIN : match;
    }
    size_t id_len = kithi_view_id(v, slot, id);
    float d = kithi_walk_exact(v, s, slot);
    if (!kithi_birth_same(r, birth) || id_len == 0)
        return 0;
    int rc = kithi_results_add(out, d, slot, birth, id, id_len);
    return rc < 0 ? rc : 1;
}

/*
 * Codes rank nearly right: how many of the first found are scored for k hits at most. More with a wider beam, for
 * vectors that codes tell badly apart: where they tell them well, scoring ends before (end_walk()).
 */
static uint32_t score_count(const struct kithi_view *v, const struct kithi_search_params *p)
{
    return v->kept == v->walked ? p->k : p->k + p->k / 4 + p->ef / SCORE_SHARE + 2;
}

/* Take a snapshot and go down to level 0, to *out_slot. */
static int go_down(const struct kithi_map *map, struct kithi_view *v, struct kithi_scratch *s,
                   const float *query, const struct kithi_search_params *p, uint32_t *out_slot)
{
    int rc = kithi_view_begin_at(map, &p->at, v);
    if (rc < 0)
        return rc;
    if (KITHI_UNLIKELY(kithi_view_lost(v, true)))
        return KITHI_E_STALE;
    s->stood_on_dead = false;
    s->left_out = p->left_out;
    s->heirs = p->left_out ? p->heirs : NULL;
    rc = kithi_walk_query(v, s, query);
    if (rc == 0)
        rc = kithi_walk_begin(v, s, p->ef, 0, v->past ? KITHI_EYES_PAST : KITHI_EYES_READER);
    if (rc < 0)
        return rc;
    /* Under a condition anything that was found may be asked. */
    if (s->near_max > score_count(v, p) && !p->condition)
        s->near_max = score_count(v, p);
    if (s->far_from < p->k)
        s->far_from = p->k < s->ef ? p->k : s->ef; /* all that are asked for are near */
    /* Acquire: the entry point's rows were filled before the word was stored. */
    uint64_t entry = atomic_load_explicit(&v->header->entry, memory_order_acquire);
    uint32_t link = kithi_entry_link(entry), level = kithi_entry_level(entry);
    if (link == 0)
        return WALK_ENDED; /* an empty graph */
    if (link > v->slot_limit)
        return WALK_AGAIN; /* it grew after this view began */
    if (level > KITHI_LEVEL_MAX)
        level = KITHI_LEVEL_MAX;
    *out_slot = link - 1;
    kithi_walk_descend(v, s, level, 0, out_slot);
    return WALK_ON;
}

static int begin_walk(const struct kithi_map *map, struct kithi_view *v, struct kithi_scratch *s,
                      const float *query, const struct kithi_search_params *p)
{
    uint32_t slot;
    int rc = go_down(map, v, s, query, p, &slot);
    if (rc == WALK_ON && kithi_walk_seed(v, s, slot) < 0)
        return -ENOMEM;
    return rc;
}

static void prefetch_score(const struct kithi_view *v, uint32_t slot, const struct kithi_condition *condition)
{
    const unsigned char *vector = kithi_view_vector(v, slot);
    KITHI_PREFETCH(kithi_view_record(v, slot));
    if (condition)
        return; /* most are asked for their payload first */
    for (uint32_t i = 0; i < SCORE_LINES && i * KITHI_CACHE_LINE < v->vector_stride; i++)
        KITHI_PREFETCH(vector + (size_t)i * KITHI_CACHE_LINE);
}

static float farthest(const struct kithi_results *r)
{
    float d = r->hits[0].distance;
    for (uint32_t i = 1; i < r->count; i++)
        d = r->hits[i].distance > d ? r->hits[i].distance : d;
    return d;
}

/*
 * Score what the walk has found and copy the best out. After the first k only those are scored that may still be among
 * the k nearest: their codes are hardly farther than the k-th, by what codes were off for the first k.
 */
static int end_walk(const struct kithi_view *v, struct kithi_scratch *s, const struct kithi_search_params *p,
                    struct kithi_results *out)
{
    uint32_t n, want = score_count(v, p);
    const struct kithi_beam_entry *found = kithi_walk_found(s, &n);
    for (uint32_t i = 0; i < SCORE_AHEAD && i < n; i++)
        prefetch_score(v, found[i].slot & KITHI_BEAM_SLOT, p->condition);
    bool newborn = false;
    float off = 0, limit = INFINITY;
    uint32_t enough = p->k > SCORE_MIN ? p->k : SCORE_MIN;
    for (uint32_t i = 0; i < n && out->count < want && found[i].distance <= limit; i++) {
        if (i + SCORE_AHEAD < n)
            prefetch_score(v, found[i + SCORE_AHEAD].slot & KITHI_BEAM_SLOT, p->condition);
        if (p->condition && i + SCORE_AHEAD / 2 < n)
            kithi_match_prefetch(v, found[i + SCORE_AHEAD / 2].slot & KITHI_BEAM_SLOT);
        if (found[i].slot & KITHI_BEAM_GHOST)
            continue;
        uint32_t slot = found[i].slot & KITHI_BEAM_SLOT;
        int rc = take_hit(v, s, slot, p->condition, out);
        if (rc < 0)
            return rc;
        if (rc == HIT_AGAIN)
            return WALK_AGAIN;
        if (rc == 1) {
            if (p->condition && out->count == p->k)
                p->condition->rank = i + 1;
            float is_off = fabsf(out->hits[out->count - 1].distance - found[i].distance);
            off = is_off > off ? is_off : off;
            if (out->count == enough)
                limit = farthest(out) + SCORE_SLACK * off;
        }
        newborn |= rc == 0 && kithi_birth_begin(kithi_view_record(v, slot)) > v->epoch;
    }
    /* A group that was published meanwhile takes places in ef from those that this snapshot sees. */
    return newborn && out->count < p->k ? WALK_SHORT : WALK_ENDED;
}

/* Every visible vector: the best k of a pass over the records. */
static int search_exact(const struct kithi_map *map, struct kithi_view *v, struct kithi_scratch *s,
                        const float *query, const struct kithi_search_params *p, struct kithi_results *out)
{
    int rc = kithi_view_begin_at(map, &p->at, v);
    if (rc < 0)
        return rc;
    if (KITHI_UNLIKELY(kithi_view_lost(v, false)))
        return KITHI_E_STALE;
    s->stood_on_dead = false;
    out->stats.scanned = true;
    s->left_out = 0; /* no walk: the pass leaves it out itself */
    rc = kithi_walk_query(v, s, query);
    if (rc == 0)
        rc = kithi_walk_begin(v, s, p->k, 0, KITHI_EYES_READER);
    if (rc < 0)
        return rc;
    for (uint32_t slot = 0; slot < v->slots_used; slot++) {
        if (slot % 1024 == 0) {
            if (kithi_view_moved(v))
                return KITHI_E_MOVED;
            if (p->deadline_ns && now_ns() >= p->deadline_ns) {
                out->stats.deadline_hit = true;
                break;
            }
        }
        const struct kithi_record *r = kithi_view_record(v, slot);
        uint64_t birth;
        if (p->condition && slot + SCORE_AHEAD < v->slots_used)
            kithi_match_prefetch(v, slot + SCORE_AHEAD);
        if (slot + 1 == p->left_out || !kithi_view_visible(v, r, &birth))
            continue;
        if (p->condition) {
            rc = kithi_match(v, slot, birth, p->condition);
            if (rc < 0)
                return rc;
            if (rc == KITHI_MATCH_AGAIN)
                return WALK_AGAIN;
            if (rc == KITHI_MATCH_NO)
                continue;
        }
        float d = kithi_walk_exact(v, s, slot);
        s->distance_count++;
        if (kithi_birth_same(r, birth))
            kithi_near_insert(s, d, slot);
    }
    for (uint32_t i = 0; i < s->near_count; i++) {
        rc = take_hit(v, s, s->near[i].slot, NULL, out); /* a visible version's payload is the same still */
        if (rc < 0)
            return rc;
    }
    return WALK_ENDED;
}

/* A walk of breadth c->ef, and what it has found that fulfils the condition. */
static int walk_matching(const struct kithi_map *map, struct kithi_view *v, struct kithi_scratch *s,
                         const float *query, const struct kithi_search_params *p, struct kithi_results *out)
{
    struct kithi_search_params wide = *p;
    wide.ef = p->condition->ef;
    int rc = begin_walk(map, v, s, query, &wide);
    /*
     * To the end of its beam: as the planner goes by what it has found, a walk that came down in the wrong one of two regions, and stays there, would be
     * believed. In 6,000 vectors of 16 dimensions in 6 clusters, under one-bit codes, it lost all neighbours of about one query in a thousand.
     */
    s->patience = wide.ef;
    if (rc == WALK_ON)
        rc = kithi_walk(v, s, p->deadline_ns, &out->stats.deadline_hit);
    return rc == WALK_ENDED ? end_walk(v, s, p, out) : rc;
}

_Static_assert((int)KITHI_HOP_ENDED == (int)WALK_ENDED && (int)KITHI_HOP_ON == (int)WALK_ON &&
                   (int)KITHI_HOP_AGAIN == (int)WALK_AGAIN,
               "hops end as walks do");

/* Hops of breadth c->ef, which give up when they have looked at more than looks_max payloads: then *out_dear. */
static int hop_matching(const struct kithi_map *map, struct kithi_view *v, struct kithi_scratch *s,
                        const float *query, const struct kithi_search_params *p, uint64_t looks_max,
                        bool *out_dear, struct kithi_results *out)
{
    struct kithi_condition *c = p->condition;
    struct kithi_search_params narrow = *p;
    uint32_t slot;
    narrow.ef = c->ef;
    narrow.condition = NULL; /* all that hops find was asked */
    looks_max = looks_max < UINT64_MAX - c->evaluated ? c->evaluated + looks_max : UINT64_MAX;
    int rc = go_down(map, v, s, query, &narrow, &slot);
    if (rc == WALK_ON)
        rc = kithi_hop_begin(v, s, c, slot);
    while (rc == WALK_ON && !*out_dear && !out->stats.deadline_hit) {
        rc = kithi_hop_step(v, s, c);
        *out_dear = rc == WALK_ON && c->evaluated > looks_max;
        out->stats.deadline_hit = rc == WALK_ON && p->deadline_ns && now_ns() >= p->deadline_ns;
    }
    if (rc < 0 || rc == WALK_AGAIN || (*out_dear && !out->stats.deadline_hit))
        return rc;
    narrow.ef = p->ef;
    return end_walk(v, s, &narrow, out);
}

/* Under a condition: as plan.h says. */
static int search_matching(const struct kithi_map *map, struct kithi_view *v, struct kithi_scratch *s,
                           const float *query, const struct kithi_search_params *p, struct kithi_results *out)
{
    struct kithi_condition *c = p->condition;
    struct kithi_step step = { .plan = KITHI_PLAN_SCAN };
    int rc = kithi_view_begin_at(map, &p->at, v);
    if (rc < 0)
        return rc;
    out->stats.scanned = false;
    c->ef = 0;
    if (p->exact) {
        c->plan = KITHI_PLAN_SCAN;
        c->reason = KITHI_PLAN_GIVEN;
        c->share = 0;
    } else {
        step = kithi_plan_first(v, c, p->k, p->ef);
    }
    while (step.plan == KITHI_PLAN_WALK || step.plan == KITHI_PLAN_HOPS) {
        bool dear = false;
        c->ef = step.ef;
        c->rank = 0;
        kithi_results_clear(out);
        rc = step.plan == KITHI_PLAN_WALK ? walk_matching(map, v, s, query, p, out)
                                          : hop_matching(map, v, s, query, p, step.looks_max, &dear, out);
        if (rc < 0 || rc == WALK_AGAIN || out->stats.deadline_hit)
            return rc;
        step = kithi_plan_next(v, c, p->k, p->ef, out->count, dear);
    }
    if (step.plan == KITHI_PLAN_NONE)
        return WALK_ENDED;
    kithi_results_clear(out);
    return search_exact(map, v, s, query, p, out);
}

/*
 * A walk came to fewer than were asked for. May there be more, and is comparing with all of them cheap beside that walk, or the last
 * resort?
 *
 * Rows of the dead get no links to who comes after them, so where a small collection is rewritten faster than it is swept, a walk
 * that comes down among the dead, or among the few living that they lead to, may find no way to the others: 240 vectors, each of them
 * rewritten several times within a grace period, and searches that found none of them, or eight, until the next sweep.
 */
static bool may_be_cut_off(const struct kithi_view *v, const struct kithi_scratch *s,
                           const struct kithi_search_params *p, uint32_t attempt, int rc,
                           const struct kithi_results *out)
{
    /* Relaxed: of about this epoch; too many cost a pass, too few none. */
    uint64_t live = atomic_load_explicit(&v->header->live, memory_order_relaxed);
    if (out->count >= live && rc == WALK_ENDED)
        return false;
    if (v->slots_used <= SCAN_LAST && (rc == WALK_ENDED || attempt == KITHI_RESTART_MAX))
        return true;
    if (rc == WALK_ENDED && !s->stood_on_dead)
        return false;
    return v->slots_used <= SCAN_SHARE * (s->visited_count + p->ef);
}

/*
 * A walk has ended as rc (WALK_*) says: make an answer of it. At a moment in the past the ways to what it should find may
 * have gone to those who came later: rows drop links to the dead when the living need their places, and raise no mark. Too
 * few hits show it, and then all vectors are compared.
 */
static int finish(const struct kithi_map *map, struct kithi_view *v, struct kithi_scratch *s,
                  const float *query, const struct kithi_search_params *p, uint32_t attempt, int rc,
                  struct kithi_results *out)
{
    if (rc == WALK_ENDED)
        rc = end_walk(v, s, p, out);
    if ((rc != WALK_ENDED && rc != WALK_SHORT) || out->count >= p->k || out->stats.deadline_hit)
        return rc;
    if (v->past || may_be_cut_off(v, s, p, attempt, rc, out)) {
        kithi_results_clear(out);
        rc = search_exact(map, v, s, query, p, out);
    }
    return rc;
}

/*
 * An attempt has ended as rc (WALK_*) says: is its answer good? Returns hits, KITHI_E_MOVED, or WALK_RETRY.
 */
#define WALK_RETRY INT32_MAX
static int judge(const struct kithi_view *v, struct kithi_scratch *s, const struct kithi_search_params *p,
                 uint32_t attempt, int rc, struct kithi_results *out)
{
    out->stats.epoch = v->epoch;
    out->stats.distance_count = s->distance_count;
    out->stats.expansion_count = s->expansion_count;
    /* Each expansion by neighbour codes estimates a whole row. The next attempt begins its steps at 0. */
    out->stats.estimate_count += (uint64_t)s->steps * v->link_count0;
    out->stats.restart_count = attempt;
    /* The marks come last: what they say covers everything that was read before. A scan of
     * records needs no finder, so only refilled slots can have escaped it. */
    if (kithi_view_moved(v))
        return KITHI_E_MOVED;
    bool again = rc == WALK_AGAIN ||
                 (rc == WALK_SHORT && attempt < KITHI_RESTART_MAX && !out->stats.deadline_hit) ||
                 (s->stood_on_dead && attempt < EMPTIED_MAX && kithi_view_emptied(v));
    bool lost = out->stats.scanned ? kithi_view_reused(v) : kithi_view_unlinked(v);
    if (!again && !lost) {
        kithi_results_sort(out);
        if (out->count > p->k)
            out->count = p->k;
        return (int)out->count;
    }
    out->stats.deadline_hit = out->stats.scanned = false;
    kithi_results_clear(out);
    if (lost && v->pinned)
        return KITHI_E_STALE; /* and stays so */
    return attempt < KITHI_RESTART_MAX ? WALK_RETRY : KITHI_E_STALE;
}

static void forget(struct kithi_scratch *s, struct kithi_results *out)
{
    memset(&out->stats, 0, sizeof out->stats);
    kithi_results_clear(out);
    s->distance_count = s->expansion_count = 0;
}

int kithi_search(const struct kithi_map *map, struct kithi_scratch *s, const float *query,
                 const struct kithi_search_params *params, struct kithi_results *out)
{
    struct kithi_view v;
    forget(s, out);
    if (params->condition)
        params->condition->evaluated = params->condition->matched = 0;
    for (uint32_t attempt = 0;; attempt++) {
        int rc;
        if (params->condition) {
            rc = search_matching(map, &v, s, query, params, out);
        } else if (params->exact) {
            rc = search_exact(map, &v, s, query, params, out);
        } else {
            rc = begin_walk(map, &v, s, query, params);
            if (rc == WALK_ON)
                rc = kithi_walk(&v, s, params->deadline_ns, &out->stats.deadline_hit);
            rc = finish(map, &v, s, query, params, attempt, rc, out);
        }
        if (rc >= 0)
            rc = judge(&v, s, params, attempt, rc, out);
        if (rc != WALK_RETRY)
            return rc;
    }
}

/* A search of a batch that is under way. */
struct lane {
    struct kithi_view view;
    struct kithi_scratch *scratch;
    uint32_t item; /* of the batch */
    uint32_t attempt;
    int rc; /* WALK_ON while it walks */
};

/* Begin the lane's item, or begin it again. */
static void lane_begin(const struct kithi_map *map, struct lane *l, const struct kithi_batch *b)
{
    l->rc =
        begin_walk(map, &l->view, l->scratch, b->queries + (size_t)l->item * map->geometry.dim, b->params);
}

/* The walk of the lane's item has ended; false: it begins again. */
static bool lane_end(const struct kithi_map *map, struct lane *l, const struct kithi_batch *b)
{
    struct kithi_results *out = b->results[l->item];
    const float *query = b->queries + (size_t)l->item * map->geometry.dim;
    int rc = finish(map, &l->view, l->scratch, query, b->params, l->attempt, l->rc, out);
    if (rc >= 0)
        rc = judge(&l->view, l->scratch, b->params, l->attempt, rc, out);
    if (rc == WALK_RETRY) {
        l->attempt++;
        lane_begin(map, l, b);
        return false;
    }
    b->counts[l->item] = rc;
    return true;
}

void kithi_search_batch(const struct kithi_map *map, struct kithi_scratch *scratches, uint32_t lane_count,
                        const struct kithi_batch *batch)
{
    struct lane lanes[KITHI_LANES_MAX];
    uint32_t begun = 0, active = 0;
    for (; active < lane_count && active < KITHI_LANES_MAX && begun < batch->count; active++) {
        lanes[active] = (struct lane){ .scratch = &scratches[active], .item = begun++ };
        forget(lanes[active].scratch, batch->results[lanes[active].item]);
        lane_begin(map, &lanes[active], batch);
    }
    /* Each step asks for the memory of the lane's next one and leaves; the others' steps pass the time. */
    for (uint32_t i = 0; active > 0; i = i + 1 < active ? i + 1 : 0) {
        struct lane *l = &lanes[i];
        if (l->rc == WALK_ON)
            l->rc = kithi_walk_step(&l->view, l->scratch);
        if (l->rc == WALK_ON || !lane_end(map, l, batch))
            continue;
        if (begun < batch->count) {
            *l = (struct lane){ .scratch = l->scratch, .item = begun++ };
            forget(l->scratch, batch->results[l->item]);
            lane_begin(map, l, batch);
        } else {
            *l = lanes[--active];
        }
    }
}
