/*
 * rest_search.c - search and search/batch: what a body says of a search, and its answer as JSON.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/floats.h"
#include "server/gateway/rest.h"
#include "server/gateway/search.h"

/* What a search says beside its vector. */
static bool members(struct kithi_request *r, struct kithi_body_object *o, struct kithi_search *q)
{
    const struct kithi_gateway *g = r->gateway;
    q->k = KITHI_SEARCH_TOP_K;
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

static void write_begin(struct kithi_text *out)
{
    kithi_text_str(out, "\"results\":[");
}

static void write_hit(struct kithi_text *out, const struct kithi_search *q,
                      const struct kithi_search_hit *hit)
{
    kithi_text_str(out, hit->number ? ",{\"id\":" : "{\"id\":");
    kithi_text_json(out, hit->id, hit->id_len);
    kithi_text_str(out, ",\"score\":");
    kithi_text_float(out, hit->score);
    if (q->fields.payload) {
        kithi_text_str(out, ",\"metadata\":");
        kithi_text_str(out, hit->payload ? hit->payload : "null");
    }
    if (q->with_vector) {
        kithi_text_str(out, ",\"vector\":");
        kithi_rest_put_vector(out, hit->vector, hit->dim);
    }
    kithi_text_str(out, "}");
}

static void write_end(struct kithi_text *out, const struct kithi_search_summary *summary)
{
    kithi_text_printf(
        out, "],\"latency_us\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"timeline\":\"%" PRIu64 "\"%s", summary->us,
        summary->epoch, summary->timeline, summary->partial ? ",\"partial\":true" : "");
    if (summary->notice) {
        kithi_text_str(out, ",\"notice\":");
        kithi_text_json(out, summary->notice, strlen(summary->notice));
    }
}

static const struct kithi_search_writer json = { write_begin, write_hit, write_end };

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

enum kithi_next kithi_rest_search(struct kithi_request *r)
{
    struct kithi_body_object o;
    struct kithi_floats floats;
    struct kithi_search q = { 0 };
    struct kithi_handle *handle = NULL;
    struct kith_error error = { 0 };
    kith_results *hits = NULL;
    json_t *body = NULL;
    char text[96] = "", place[128] = "";
    int rc = 0;
    enum kithi_next next = kithi_search_waiting(r);
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
    if (r->lane != KITHI_LANE_WIDE && kithi_search_is_wide(&q)) {
        r->lane = KITHI_LANE_WIDE;
        next = KITHI_MOVE;
        goto out;
    }
    if (!kithi_rest_open(r, false, &handle)) {
        goto out;
    }
    r->await = q.moment.min_epoch;
    r->await_until_ns = kithi_search_until(r, q.deadline_ms);
    next = kithi_rest_await(r, handle, &q.moment, r->await_until_ns);
    if (next == KITHI_AWAIT || r->refusal.status) {
        goto out;
    }
    hits = kith_results_new();
    r->search_us = 0;
    kithi_text_cut(&r->answer, 0);
    kithi_text_str(&r->answer, "{");
    rc = hits ? kithi_search_run(r, handle->index, &q, kithi_search_until(r, q.deadline_ms), hits, &json,
                                 &error)
              : -ENOMEM;
    kithi_text_str(&r->answer, "}\n");
    kithi_search_place(rc, "", place, sizeof place);
    next =
        kithi_rest_end(r, handle, rc, place,
                       rc < 0 ? kithi_search_text(rc, handle->index, &q, &error, text, sizeof text) : NULL);
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
static struct kithi_search *read_batch(struct kithi_request *r, json_t *searches, struct kithi_floats *floats,
                                       size_t *out_n)
{
    size_t n = json_array_size(searches);
    struct kithi_search *list = NULL;
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
    struct kithi_search *list = NULL;
    kith_results *hits = NULL;
    uint64_t deadline_ms = 0;
    size_t n = 0, i = 0;
    char text[96] = "", place[128] = "", where[48] = "";
    int rc = 0;
    enum kithi_next next = kithi_search_waiting(r);
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
    bool wide = n > KITHI_SEARCH_BATCH_BESIDE;
    for (i = 0; i < n; i++) {
        wide = wide || kithi_search_is_wide(&list[i]);
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
    r->await_until_ns = kithi_search_until(r, deadline_ms);
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
            kithi_search_refuse_late(r);
            break;
        }
        kithi_text_str(&r->answer, i ? ",{" : "{");
        rc = kithi_search_run(r, handle->index, &list[i], kithi_search_until(r, deadline_ms), hits, &json,
                              &error);
        kithi_text_str(&r->answer, "}");
        if (rc < 0) {
            snprintf(where, sizeof where, "searches[%zu]", i);
            kithi_search_place(rc, where, place, sizeof place);
            kithi_search_text(rc, handle->index, &list[i], &error, text, sizeof text);
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
