/*
 * rest_search.c - search and search/batch.
 *
 * Scores: l2: the squared distance, smaller is nearer; cosine: the cosine; ip: the dot product; of both larger is nearer. A
 * score_threshold keeps what is at least as near.
 */
#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/floats.h"
#include "server/gateway/metrics.h"
#include "server/gateway/rest.h"

#define WIDE 2000u /* ef or top_k above this take too long to be beside others */
/* Hits with payloads that libkith copies at once: 64 KiB each at most. More come one by one, so that the ceiling of an answer holds. */
#define AT_ONCE      256u
#define BATCH_BESIDE 64u /* searches of a batch that are no more than a wide one */

struct search {
    const float *vector;
    size_t len;
    const char *like; /* an id, instead of a vector */
    uint32_t k, ef;
    double recall, threshold;
    bool exact, with_vector, has_threshold;
    char *filter;
    struct kithi_rest_fields fields;
    uint64_t deadline_ms;
    struct kithi_rest_moment moment;
};

static bool is_wide(const struct search *q)
{
    return q->k > WIDE || q->ef > WIDE || q->exact;
}

/* What a search says beside its vector. */
static bool members(struct kithi_request *r, struct kithi_body_object *o, struct search *q)
{
    const struct kithi_gateway *g = r->gateway;
    q->k = 10;
    q->fields.payload = true;
    json_t *threshold = json_object_get(o->object, "score_threshold");
    q->has_threshold = threshold && !json_is_null(threshold);
    return kithi_body_u32(o, "top_k", 1, g->top_k_max, &q->k) &&
           kithi_body_u32(o, "ef_search", 1, g->ef_max, &q->ef) &&
           kithi_body_number(o, "target_recall", &q->recall) && kithi_body_bool(o, "exact", &q->exact) &&
           kithi_rest_filter(o, &q->filter) && kithi_rest_fields(o, &q->fields) &&
           kithi_body_bool(o, "with_vector", &q->with_vector) &&
           kithi_body_number(o, "score_threshold", &q->threshold) &&
           kithi_body_u64(o, "deadline_ms", 1, 3600000, &q->deadline_ms) &&
           kithi_rest_moment(o, &q->moment) && kithi_body_string(o, "like", &q->like) && kithi_body_end(o);
}

static float score_of(enum kith_metric metric, float distance)
{
    return metric == KITH_METRIC_L2 ? distance : 1.0f - distance;
}

/* Is the score one that is asked for? As floats: an answer has the fewest digits that read back as one, so that a score of it as the
 * threshold keeps its own hit. */
static bool is_near(const struct search *q, enum kith_metric metric, float score)
{
    double bounded = q->threshold > (double)FLT_MAX    ? (double)FLT_MAX
                     : q->threshold < -(double)FLT_MAX ? -(double)FLT_MAX
                                                       : q->threshold;
    float threshold = (float)bounded;
    return !q->has_threshold || (metric == KITH_METRIC_L2 ? score <= threshold : score >= threshold);
}

/* The payload and vector of one hit, by itself. */
static int put_fetched(struct kithi_request *r, kith *index, const struct search *q,
                       const struct kith_snapshot *at, const char *id, kith_results *one)
{
    struct kith_fetch_opts opts = KITH_FETCH_OPTS_INIT;
    opts.vector = q->with_vector;
    opts.payloads = q->fields.payload;
    opts.field_count = q->fields.count;
    opts.fields = q->fields.count ? q->fields.names : NULL;
    opts.at = *at;
    int rc = kith_fetch(index, id, &opts, one);
    if (rc == KITH_E_NOT_FOUND) {
        rc = KITH_E_STALE; /* it was there at that moment */
    }
    if (rc == 0 && q->fields.payload) {
        const char *payload = kith_results_payload(one, 0);
        kithi_text_str(&r->answer, ",\"metadata\":");
        kithi_text_str(&r->answer, payload ? payload : "null");
    }
    if (rc == 0 && q->with_vector) {
        kithi_text_str(&r->answer, ",\"vector\":");
        kithi_rest_put_vector(r, kith_results_vector(one, 0), kith_dim(index));
    }
    return rc;
}

static int put_hits(struct kithi_request *r, kith *index, const struct search *q,
                    const struct kith_snapshot *at, const kith_results *hits, bool fetch)
{
    enum kith_metric metric = kith_metric_of(index);
    kith_results *one = fetch ? kith_results_new() : NULL;
    int rc = fetch && !one ? -ENOMEM : 0;
    bool first = true;
    kithi_text_str(&r->answer, "\"results\":[");
    for (uint32_t i = 0; i < kith_results_count(hits) && rc == 0 && !r->answer.failed; i++) {
        float score = score_of(metric, kith_results_distance(hits, i));
        if (!is_near(q, metric, score)) {
            break; /* hits come nearest first */
        }
        kithi_text_str(&r->answer, first ? "{\"id\":" : ",{\"id\":");
        kithi_text_json(&r->answer, kith_results_id(hits, i), kith_results_id_len(hits, i));
        kithi_text_str(&r->answer, ",\"score\":");
        kithi_text_float(&r->answer, score);
        if (fetch) {
            rc = put_fetched(r, index, q, at, kith_results_id(hits, i), one);
        } else if (q->fields.payload) {
            const char *payload = kith_results_payload(hits, i);
            kithi_text_str(&r->answer, ",\"metadata\":");
            kithi_text_str(&r->answer, payload ? payload : "null");
        }
        kithi_text_str(&r->answer, "}");
        first = false;
    }
    kithi_text_str(&r->answer, "]");
    kith_results_free(one);
    return rc;
}

static void refuse_late(struct kithi_request *r)
{
    kithi_refuse(&r->refusal, 504, "timeout", NULL,
                 "it was not done in time; ask for less, or for an approximate answer");
}

/* One search and its answer, without the braces, or a refusal. until_ns: 0, or when to stop with what there is. The request's own deadline
 * stops it, too: its client has had its answer then, and the thread is wanted. */
static int run(struct kithi_request *r, kith *index, const struct search *q, uint64_t until_ns,
               kith_results *hits, struct kith_error *error)
{
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    bool fetch = q->with_vector || (q->fields.payload && q->k > AT_ONCE);
    size_t begin = r->answer.len;
    opts.ef = q->ef;
    opts.exact = q->exact;
    bool partial = until_ns && until_ns <= r->deadline_ns;
    opts.deadline_ns = partial ? until_ns : r->deadline_ns;
    opts.target_recall = q->recall;
    opts.payloads = q->fields.payload && !fetch;
    opts.field_count = opts.payloads ? q->fields.count : 0;
    opts.fields = opts.field_count ? q->fields.names : NULL;
    opts.filter = q->filter;
    opts.error = error;
    int rc = KITH_E_STALE;
    for (unsigned round = 0; rc == KITH_E_STALE && round < 4; round++) {
        kithi_text_cut(&r->answer, begin);
        rc = fetch ? kith_snapshot(index, &opts.at) : 0;
        if (rc < 0) {
            return rc;
        }
        uint64_t began = kithi_gateway_now_ns();
        rc = q->like ? kith_search_id(index, q->like, q->k, &opts, hits)
                     : kith_search(index, q->vector, q->len, q->k, &opts, hits);
        uint64_t us = (kithi_gateway_now_ns() - began) / 1000;
        r->search_us += us;
        if (rc < 0) {
            continue;
        }
        kith_results_info(hits, &info);
        rc = put_hits(r, index, q, &opts.at, hits, fetch);
        kithi_text_printf(&r->answer, ",\"latency_us\":%" PRIu64, us);
    }
    if (rc < 0) {
        return rc;
    }
    if (info.deadline_hit && !partial) {
        refuse_late(r);
        return 0;
    }
    kithi_rest_put_epoch(r, index, info.epoch);
    if (info.deadline_hit) {
        kithi_text_str(&r->answer, ",\"partial\":true");
    }
    if (q->filter) {
        const char *notice = kith_results_notice(hits);
        if (info.plan < KITHI_METRICS_PLANS) {
            atomic_fetch_add_explicit(&r->gateway->metrics->plans[info.plan], 1, memory_order_relaxed);
        }
        if (notice) {
            kithi_text_str(&r->answer, ",\"notice\":");
            kithi_text_json(&r->answer, notice, strlen(notice));
        }
    }
    r->searched = true;
    return 0;
}

/* Where in the body libkith's error is at home. */
static void place_of(int rc, const char *where, const struct search *q, char *out, size_t size)
{
    const char *name = rc == KITH_E_DIMENSION || rc == KITH_E_NOT_FINITE || rc == KITH_E_ZERO_VECTOR
                           ? "vector"
                       : rc == KITH_E_NOT_FOUND || rc == KITH_E_ID ? "like"
                       : rc == KITH_E_K                            ? "top_k"
                       : rc == KITH_E_EF                           ? "ef_search"
                       : rc == KITH_E_RECALL                       ? "target_recall"
                       : rc == KITH_E_FILTER                       ? "filter"
                                                                   : "";
    (void)q;
    kithi_body_place(out, size, where, name);
    if (!*name) {
        out[0] = 0;
    }
}

static const char *text_of(int rc, kith *index, const struct search *q, const struct kith_error *error,
                           char *out, size_t size)
{
    if (rc != KITH_E_DIMENSION) {
        return error->text;
    }
    snprintf(out, size, "the vector has %zu dimensions, the collection %u", q->len, kith_dim(index));
    return out;
}

/* The parameters of a query as a body has them: scalars, and filter, like and timeline as strings. */
static json_t *body_of_query(struct kithi_request *r)
{
    static const struct {
        const char *name;
        bool string;
    } list[] = { { "top_k", false },           { "ef_search", false }, { "target_recall", false },
                 { "exact", false },           { "filter", true },     { "with_payload", false },
                 { "with_vector", false },     { "timeline", true },   { "deadline_ms", false },
                 { "score_threshold", false }, { "min_epoch", false } };
    json_t *object = json_object();
    for (unsigned i = 0; object && i < sizeof list / sizeof list[0]; i++) {
        const char *value = kithi_query_get(&r->query, list[i].name);
        if (!value) {
            continue;
        }
        json_t *member = list[i].string ? json_string(value) /* it is UTF-8 (query.c) */
                                        : kithi_body_scalar(list[i].name, value, &r->refusal);
        /* Takes a member that is NULL for a failure, too. One that is lost would be another search: without its filter. */
        if (json_object_set_new(object, list[i].name, member) < 0) {
            kithi_body_starved(&r->refusal); /* unless the parameter is refused for what it is */
            break;
        }
    }
    if (!object) {
        kithi_body_starved(&r->refusal);
    } else if (r->refusal.status || !kithi_rest_query_end(r)) {
        json_decref(object);
        object = NULL;
    }
    return object;
}

/* The first look of one that waits: without reading its body again. KITHI_DONE: go on. */
static enum kithi_next still_waiting(struct kithi_request *r)
{
    struct kithi_rest_moment moment = { .min_epoch = r->await };
    struct kithi_handle *handle;
    if (!r->await) {
        return KITHI_DONE;
    }
    if (!kithi_rest_open(r, false, &handle)) {
        return KITHI_DONE;
    }
    enum kithi_next next = kithi_rest_await(r, handle, &moment, r->await_until_ns);
    kithi_handles_give(r->gateway->handles, handle, false);
    return next;
}

static uint64_t until(const struct kithi_request *r, uint64_t deadline_ms)
{
    return deadline_ms ? r->began_ns + deadline_ms * 1000000u : 0;
}

enum kithi_next kithi_rest_search(struct kithi_request *r)
{
    struct kithi_body_object o;
    struct kithi_floats floats;
    struct search q = { 0 };
    struct kithi_handle *handle = NULL;
    struct kith_error error = { 0 };
    kith_results *hits = NULL;
    json_t *body = NULL;
    char text[96] = "", place[128] = "";
    int rc = 0;
    enum kithi_next next = still_waiting(r);
    if (next == KITHI_AWAIT || r->refusal.status) {
        return next;
    }
    kithi_floats_init(&floats, &r->gateway->bodies);
    if (r->floats) {
        long n = kithi_floats_bytes(&floats, r->body.at, r->body.len);
        if (n == -EINVAL) {
            kithi_refuse(&r->refusal, 422, "dimension", NULL, "the body is not of whole float32");
        } else if (n < 0) {
            kithi_body_starved(&r->refusal);
        }
        body = r->refusal.status ? NULL : body_of_query(r);
    } else if (kithi_rest_query_end(r)) {
        body = kithi_rest_lifted(r, &floats, 1);
    }
    if (!body || !kithi_body_object(&o, body, "", &r->refusal)) {
        goto out;
    }
    if (r->floats) {
        q.vector = floats.values;
        q.len = floats.vectors[0].len;
    } else if (!kithi_rest_vector(&o, &floats, &q.vector, &q.len)) {
        goto out;
    }
    if (!members(r, &o, &q)) {
        goto out;
    }
    if (!q.vector == !q.like) {
        kithi_refuse(&r->refusal, 422, "value", "vector", "a search has a vector, or like with an id");
        goto out;
    }
    if (r->lane != KITHI_LANE_WIDE && is_wide(&q)) {
        r->lane = KITHI_LANE_WIDE;
        next = KITHI_MOVE;
        goto out;
    }
    if (!kithi_rest_open(r, false, &handle)) {
        goto out;
    }
    r->await = q.moment.min_epoch;
    r->await_until_ns = until(r, q.deadline_ms);
    next = kithi_rest_await(r, handle, &q.moment, r->await_until_ns);
    if (next == KITHI_AWAIT || r->refusal.status) {
        goto out;
    }
    hits = kith_results_new();
    r->search_us = 0;
    kithi_text_cut(&r->answer, 0);
    kithi_text_str(&r->answer, "{");
    rc = hits ? run(r, handle->index, &q, until(r, q.deadline_ms), hits, &error) : -ENOMEM;
    kithi_text_str(&r->answer, "}\n");
    place_of(rc, "", &q, place, sizeof place);
    next = kithi_rest_end(r, handle, rc, place,
                          rc < 0 ? text_of(rc, handle->index, &q, &error, text, sizeof text) : NULL);
    handle = NULL;
out:
    if (handle) {
        kithi_handles_give(r->gateway->handles, handle, false);
    }
    kith_results_free(hits);
    free(q.filter);
    kithi_floats_fini(&floats);
    json_decref(body);
    return next;
}

/* All searches of a batch are read, and refused, before one is carried out. */
static struct search *read_batch(struct kithi_request *r, json_t *searches, struct kithi_floats *floats,
                                 size_t *out_n)
{
    size_t n = json_array_size(searches);
    struct search *list = NULL;
    *out_n = 0;
    if (!json_is_array(searches) || n == 0 || n > r->gateway->batch_max) {
        kithi_refuse(&r->refusal, 422, "value", "searches", "searches is an array of 1 to %u searches",
                     r->gateway->batch_max);
        return NULL;
    }
    list = calloc(n, sizeof *list);
    if (!list) {
        kithi_refuse_kith(&r->refusal, -ENOMEM, NULL, NULL);
        return NULL;
    }
    *out_n = n;
    size_t *firsts = calloc(n, sizeof *firsts);
    for (size_t i = 0; i < n && firsts && !r->refusal.status; i++) {
        struct kithi_body_object o;
        char where[48], place[64];
        snprintf(where, sizeof where, "searches[%zu]", i);
        if (!kithi_body_object(&o, json_array_get(searches, i), where, &r->refusal) ||
            !kithi_rest_vector(&o, floats, &list[i].vector, &list[i].len)) {
            break;
        }
        firsts[i] = list[i].vector ? (size_t)(list[i].vector - floats->values) : SIZE_MAX;
        if (members(r, &o, &list[i]) && !list[i].vector == !list[i].like) {
            kithi_body_place(place, sizeof place, where, "vector");
            kithi_refuse(&r->refusal, 422, "value", place, "a search has a vector, or like with an id");
        } else if (!r->refusal.status &&
                   (list[i].deadline_ms || list[i].moment.min_epoch || list[i].moment.timeline)) {
            kithi_refuse(&r->refusal, 422, "value", where,
                         "deadline_ms, min_epoch and timeline of a batch stand beside searches");
        }
    }
    for (size_t i = 0; firsts && i < n; i++) { /* base64 may have moved them */
        list[i].vector = list[i].vector && firsts[i] != SIZE_MAX ? floats->values + firsts[i] : NULL;
    }
    if (!firsts) {
        kithi_refuse_kith(&r->refusal, -ENOMEM, NULL, NULL);
    }
    free(firsts);
    return list;
}

enum kithi_next kithi_rest_search_batch(struct kithi_request *r)
{
    struct kithi_body_object o;
    struct kithi_floats floats;
    struct kithi_handle *handle = NULL;
    struct kithi_rest_moment moment;
    struct kith_error error = { 0 };
    struct search *list = NULL;
    kith_results *hits = NULL;
    uint64_t deadline_ms = 0;
    size_t n = 0, i = 0;
    char text[96] = "", place[128] = "", where[48] = "";
    int rc = 0;
    enum kithi_next next = still_waiting(r);
    if (next == KITHI_AWAIT || r->refusal.status) {
        return next;
    }
    kithi_floats_init(&floats, &r->gateway->bodies);
    json_t *body = kithi_rest_query_end(r) ? kithi_rest_lifted(r, &floats, 3) : NULL;
    if (!body || !kithi_body_object(&o, body, "", &r->refusal)) {
        goto out;
    }
    json_t *searches = kithi_body_any(&o, "searches");
    if (!kithi_body_u64(&o, "deadline_ms", 1, 3600000, &deadline_ms) || !kithi_rest_moment(&o, &moment) ||
        !kithi_body_end(&o)) {
        goto out;
    }
    list = read_batch(r, searches, &floats, &n);
    if (r->refusal.status) {
        goto out;
    }
    bool wide = n > BATCH_BESIDE;
    for (i = 0; i < n; i++) {
        wide = wide || is_wide(&list[i]);
    }
    if (wide && r->lane != KITHI_LANE_WIDE) {
        r->lane = KITHI_LANE_WIDE;
        next = KITHI_MOVE;
        goto out;
    }
    if (!kithi_rest_open(r, false, &handle)) {
        goto out;
    }
    r->await = moment.min_epoch;
    r->await_until_ns = until(r, deadline_ms);
    next = kithi_rest_await(r, handle, &moment, r->await_until_ns);
    if (next == KITHI_AWAIT || r->refusal.status) {
        goto out;
    }
    hits = kith_results_new();
    rc = hits ? 0 : -ENOMEM;
    r->search_us = 0;
    kithi_text_cut(&r->answer, 0);
    kithi_text_str(&r->answer, "{\"responses\":[");
    for (i = 0; i < n && rc == 0 && !r->answer.failed && !r->refusal.status; i++) {
        if (kithi_gateway_now_ns() >= r->deadline_ns) {
            refuse_late(r);
            break;
        }
        kithi_text_str(&r->answer, i ? ",{" : "{");
        rc = run(r, handle->index, &list[i], until(r, deadline_ms), hits, &error);
        kithi_text_str(&r->answer, "}");
        if (rc < 0) {
            snprintf(where, sizeof where, "searches[%zu]", i);
            place_of(rc, where, &list[i], place, sizeof place);
            text_of(rc, handle->index, &list[i], &error, text, sizeof text);
        }
    }
    kithi_text_printf(&r->answer, "],\"latency_us\":%" PRIu64 "}\n", r->search_us);
    next = kithi_rest_end(r, handle, rc, place, *text ? text : error.text);
    handle = NULL;
out:
    if (handle) {
        kithi_handles_give(r->gateway->handles, handle, false);
    }
    kith_results_free(hits);
    for (i = 0; i < n; i++) {
        free(list[i].filter);
    }
    free(list);
    kithi_floats_fini(&floats);
    json_decref(body);
    return next;
}
