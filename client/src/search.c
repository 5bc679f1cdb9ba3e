/*
 * search.c - the searches: check what the caller gave, run shm/graph in a call slot.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/condition_priv.h"
#include "client/src/opts_priv.h"
#include "client/src/payloads_priv.h"
#include "client/src/results_priv.h"
#include "client/src/snapshot_priv.h"
#include "shm/base/id.h"
#include "shm/graph/lookup.h"
#include "shm/graph/recall.h"
#include "shm/graph/search.h"

int kithi_vector_check(const struct kith *index, const float *v, size_t len)
{
    if (!v)
        return -EINVAL;
    if (len != index->geometry.dim)
        return KITHI_E_DIMENSION;
    if (!kithi_floats_finite(v, len))
        return KITHI_E_NOT_FINITE;
    if (index->geometry.metric != KITHI_METRIC_COSINE)
        return 0;
    /* No finite vector but zero has a length of 0, and -0.0 is zero, too. */
    for (size_t i = 0; i < len; i++) {
        if (v[i] != 0.0f)
            return 0;
    }
    return KITHI_E_ZERO_VECTOR;
}

/* What the caller asks of a search. */
struct asked {
    struct kithi_search_params params;
    double target;    /* recall that ef is still to be chosen for; 0: it is given */
    uint32_t ef_most; /* with a target */
    uint32_t basis;   /* enum kith_ef_basis */
    struct kithi_fields fields;
    const char *filter; /* NULL: none */
    struct kith_error *error;
    bool strict;
};

static int ask(const struct kith_search_opts *opts, uint32_t k, struct asked *out)
{
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;
    if (opts && kithi_opts_in(&o, opts, sizeof o, offsetof(struct kith_search_opts, fields)) < 0)
        return -EINVAL;
    if (o.exact > 1 || o.strict > 1 || o.reserved)
        return -EINVAL;
    int rc = kithi_fields_of(o.payloads, o.field_count, o.fields, &out->fields);
    if (rc < 0)
        return rc;
    if (k < 1 || k > KITHI_K_MAX)
        return KITHI_E_K;
    if (o.target_recall != 0 && !(o.target_recall > 0 && o.target_recall < 1)) /* a NaN is neither */
        return KITHI_E_RECALL;
    out->ef_most = o.ef ? o.ef : KITHI_EF_MAX;
    if (o.ef == 0)
        o.ef = k > KITHI_EF_DEFAULT ? k : KITHI_EF_DEFAULT;
    if (o.ef < k || o.ef > KITHI_EF_MAX)
        return KITHI_E_EF;
    out->params = (struct kithi_search_params){
        .k = k, .ef = o.ef, .exact = o.exact, .deadline_ns = o.deadline_ns, .at = kithi_moment_of(&o.at)
    };
    out->target = o.exact ? 0 : o.target_recall;
    out->basis = KITH_EF_GIVEN;
    out->filter = o.filter;
    out->error = o.error;
    out->strict = o.strict;
    return 0;
}

/* The condition that was asked for, if any. 0, KITH_E_FILTER or -ENOMEM. */
static int condition(struct asked *a, struct kithi_call *c)
{
    struct kithi_errmsg err;
    if (!a->filter)
        return 0;
    int rc = kithi_condition_of(c, a->filter, &err, &a->params.condition);
    return rc == KITHI_E_FILTER ? kithi_report(a->error, &err, rc) : rc;
}

/*
 * Choose ef where a recall was asked for, by the curve of the segment that the call has begun with: a move to another
 * one amid the call, which is rare, leaves it at that.
 */
static void choose(struct asked *a, const struct kithi_call *c)
{
    enum kithi_recall_basis basis;
    if (a->target == 0)
        return;
    a->params.ef = kithi_recall_ef(kithi_call_map(c), a->params.k, a->target, &basis);
    a->basis = basis;
    if (a->params.ef > a->ef_most) {
        a->params.ef = a->ef_most;
        a->basis = KITH_EF_LIMIT;
    }
}
_Static_assert((int)KITH_EF_CURVE == (int)KITHI_RECALL_CURVE &&
                   (int)KITH_EF_BEYOND == (int)KITHI_RECALL_BEYOND &&
                   (int)KITH_EF_BLIND == (int)KITHI_RECALL_BLIND,
               "kith.h and recall.h disagree");

/* A search ended as rc says, and took ns. */
static void count(const struct kithi_call *c, int rc, const struct kithi_search_stats *stats, uint64_t ns)
{
    if (!c->board_lane)
        return;
    /* Relaxed: figures for people, each right by itself. */
    if (KITHI_UNLIKELY(rc < 0))
        atomic_fetch_add_explicit(&c->board_lane->failures, 1, memory_order_relaxed);
    else
        kithi_board_count(c->board_lane, stats, ns,
                          atomic_load_explicit(&kithi_call_header(c)->epoch, memory_order_relaxed));
}

/* Are searches of this call timed? */
static bool is_timed(const struct kith *index, const struct kithi_call *c)
{
    return c->board_lane && index->board.timed;
}

/* For kith_results_info(). */
static void note(kith_results *out, const struct kithi_call *c, const struct asked *a)
{
    out->generation_changed = c->changed;
    out->ef = a->params.exact ? 0 : a->params.ef;
    out->ef_basis = a->basis;
    const struct kithi_condition *condition = a->params.condition;
    if (!condition)
        return;
    out->ef = condition->plan == KITHI_PLAN_SCAN ? 0 : condition->ef;
    out->plan = condition->plan;
    out->plan_reason = condition->reason;
    out->indexed = condition->indexed;
    out->evaluated = condition->evaluated;
    out->matched = condition->matched;
    out->share = condition->share;
}
_Static_assert((int)KITH_PLAN_WALK_SCAN == (int)KITHI_PLAN_WALK_SCAN &&
                   (int)KITH_PLAN_HOPS == (int)KITHI_PLAN_HOPS &&
                   (int)KITH_PLAN_SHORT == (int)KITHI_PLAN_SHORT &&
                   (int)KITH_PLAN_KNOWN == (int)KITHI_PLAN_KNOWN,
               "kith.h and plan.h disagree");

static int search_in(struct kith *index, struct kithi_call *c, const float *query, const struct asked *a,
                     kith_results *out)
{
    bool timed = is_timed(index, c) && c->board_turn++ % KITHI_BOARD_TIMED_EACH == 0;
    uint64_t began_ns = timed ? kithi_now_ns() : 0;
    uint32_t tries = 0;
    int rc;
    do {
        rc = kithi_search(kithi_call_map(c), &c->scratch, query, &a->params, &out->found);
        rc = kithi_payloads_or(rc, c, &a->fields, &tries, out);
    } while (rc == -EAGAIN || kithi_call_again(index, c, &rc));
    if (a->params.condition)
        rc = kithi_condition_end(a->params.condition, rc, a->strict, a->error, out);
    note(out, c, a);
    count(c, rc, &out->found.stats, timed ? kithi_now_ns() - began_ns : KITHI_BOARD_NOT_TIMED);
    return rc;
}

/* Queries of a batch that are handed down at a time: their places lie on the stack. */
#define CHUNK_MAX 64u
/* Wider searches go one by one: each lane keeps the memory of its widest. */
#define LANE_EF_MAX 4096u

/*
 * Up to CHUNK_MAX searches, in turns where they may be. Returns 0 or the first error, *out_failed being the number of
 * its query.
 */
static int search_chunk(struct kith *index, struct kithi_call *c, const float *queries, uint32_t n,
                        const struct asked *a, kith_results *const *out, uint32_t *out_failed)
{
    const struct kithi_search_params *params = &a->params;
    struct kithi_results *found[CHUNK_MAX];
    int counts[CHUNK_MAX], rc = 0, bad = 0;
    const uint32_t dim = index->geometry.dim;
    uint32_t good = 0;
    for (; good < n; good++) {
        bad = out[good] ? kithi_vector_check(index, queries + (size_t)good * dim, dim) : -EINVAL;
        if (bad < 0)
            break;
        kithi_results_forget_page(out[good]);
        found[good] = &out[good]->found;
    }
    /* Without lanes, or where a search looks at the clock, one after the other. */
    bool turns =
        !params->exact && !params->deadline_ns && !params->condition && good > 1 && params->ef <= LANE_EF_MAX;
    if (turns && !c->lanes)
        c->lanes = calloc(KITHI_LANES, sizeof *c->lanes);
    turns = turns && c->lanes;
    uint64_t each_ns = KITHI_BOARD_NOT_TIMED; /* of searches in turns: its share of the time that all took */
    if (turns) {
        uint64_t began_ns = is_timed(index, c) ? kithi_now_ns() : 0;
        const struct kithi_batch b = {
            .queries = queries, .count = good, .params = params, .results = found, .counts = counts
        };
        kithi_search_batch(kithi_call_map(c), c->lanes, KITHI_LANES, &b);
        if (is_timed(index, c))
            each_ns = (kithi_now_ns() - began_ns) / good;
    }
    uint32_t i = 0;
    for (; i < good; i++) {
        rc = turns ? counts[i] : KITHI_E_MOVED;
        if (rc >= 0 && kithi_payloads_take(c, &a->fields, out[i]) < 0)
            rc = KITHI_E_STALE;
        if (rc == KITHI_E_MOVED || rc == KITHI_E_STALE ||
            rc == KITHI_E_EPOCH) /* by itself, on the generation that is there by now */
            rc = search_in(index, c, queries + (size_t)i * dim, a, out[i]);
        else
            count(c, rc, &out[i]->found.stats, each_ns);
        note(out[i], c, a);
        if (rc < 0)
            break;
    }
    *out_failed = i;
    return rc < 0 ? rc : bad;
}

int kith_search_batch(kith *index, const float *queries, size_t len, size_t n, uint32_t k,
                      const struct kith_search_opts *opts, kith_results *const *out, size_t *out_failed)
{
    struct asked a;
    struct kithi_call *c = NULL;
    size_t i = 0;

    if (!index || !out || (!queries && n > 0))
        return -EINVAL;
    int rc = ask(opts, k, &a);
    if (rc == 0 && n > 0 && len != index->geometry.dim)
        rc = KITHI_E_DIMENSION;
    if (rc == 0)
        rc = kithi_call_begin(index, &c);
    if (rc == 0)
        choose(&a, c);
    if (rc == 0)
        rc = condition(&a, c);
    while (rc == 0 && i < n) {
        uint32_t chunk = n - i < CHUNK_MAX ? (uint32_t)(n - i) : CHUNK_MAX, failed;
        rc = search_chunk(index, c, queries + i * len, chunk, &a, out + i, &failed);
        i += rc < 0 ? failed : chunk;
    }
    if (rc < 0 && i < n && out[i]) {
        kithi_results_forget_page(out[i]);
        kithi_results_clear(&out[i]->found);
    }
    if (c)
        kithi_call_end(index, c);
    if (rc < 0 && out_failed)
        *out_failed = i;
    return rc;
}

int kith_search(kith *index, const float *query, size_t len, uint32_t k, const struct kith_search_opts *opts,
                kith_results *out)
{
    struct asked a;
    struct kithi_call *c;

    if (!index || !out)
        return -EINVAL;
    kithi_results_forget_page(out);
    int rc = ask(opts, k, &a);
    if (rc == 0)
        rc = kithi_vector_check(index, query, len);
    if (rc == 0)
        rc = kithi_call_begin(index, &c);
    if (rc == 0) {
        choose(&a, c);
        rc = condition(&a, c);
        if (rc == 0)
            rc = search_in(index, c, query, &a, out);
        kithi_call_end(index, c);
    }
    if (rc < 0)
        kithi_results_clear(&out->found);
    return rc;
}

/* Take the id that was asked about out of its own neighbours, and what is beyond k. */
static int drop_self(kith_results *results, const char *id, size_t id_len, uint32_t k)
{
    struct kithi_results *r = &results->found;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct kithi_hit *h = &r->hits[i];
        if (h->id_len == id_len && memcmp(r->ids + h->id_off, id, id_len) == 0) {
            memmove(&r->hits[i], &r->hits[i + 1], (r->count - i - 1) * sizeof *r->hits);
            if (results->has_payloads)
                memmove(&results->payload_at[i], &results->payload_at[i + 1],
                        (r->count - i - 1) * sizeof *results->payload_at);
            r->count--;
            break;
        }
    }
    if (r->count > k)
        r->count = k;
    return (int)r->count;
}

int kith_search_id(kith *index, const char *id, uint32_t k, const struct kith_search_opts *opts,
                   kith_results *out)
{
    struct asked a;
    struct kithi_found found;
    struct kithi_call *c = NULL;

    if (!index || !id || !out)
        return -EINVAL;
    kithi_results_forget_page(out);
    size_t id_len = strnlen(id, KITHI_ID_MAX + 1);
    int rc = kithi_id_valid(id, id_len) ? ask(opts, k, &a) : KITHI_E_ID;
    if (rc == 0)
        rc = kithi_call_begin(index, &c);
    if (rc < 0)
        goto out;
    if (!c->vector)
        c->vector = malloc(index->geometry.dim * sizeof *c->vector);
    if (!c->vector) {
        rc = -ENOMEM;
        goto out;
    }
    do
        rc = kithi_lookup_at(kithi_call_map(c), &a.params.at, id, id_len, c->vector, &found);
    while (kithi_call_again(index, c, &rc));
    if (rc == 0)
        rc = kithi_vector_check(index, c->vector, index->geometry.dim) < 0 ? KITHI_E_CORRUPT : 0;
    if (rc < 0)
        goto out;
    /* One more, because the vector itself is among its neighbours. */
    choose(&a, c);
    rc = condition(&a, c);
    if (rc < 0)
        goto out;
    a.params.k++;
    if (a.params.ef < a.params.k)
        a.params.ef = a.params.k;
    rc = search_in(index, c, c->vector, &a, out);
    if (rc > 0)
        rc = drop_self(out, id, id_len, k);
out:
    if (c)
        kithi_call_end(index, c);
    if (rc < 0)
        kithi_results_clear(&out->found);
    return rc;
}
