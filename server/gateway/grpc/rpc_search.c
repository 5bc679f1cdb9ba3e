/*
 * rpc_search.c - Search and BatchSearch: what a message says of a search, and its answer as one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/grpc/rpc.h"
#include "server/gateway/search.h"

enum { VECTOR = 2, FILTER = 5, FIELDS = 16 };

struct message {
    struct kithi_part collection, vector_bytes, like, expression;
    size_t floats, filters, fields;
    int32_t top_k, ef, payload;
    struct kithi_wire_double recall, threshold;
    bool exact, with_vector;
    uint64_t deadline_ms, min_epoch, timeline;
};

#define AT(member) offsetof(struct message, member)
static const struct kithi_wire_member members[] = {
    { 1, KITHI_WIRE_STRING, AT(collection), "collection" },
    { VECTOR, KITHI_WIRE_FLOATS, AT(floats), "vector" },
    { 3, KITHI_WIRE_INT32, AT(top_k), "top_k" },
    { 4, KITHI_WIRE_INT32, AT(ef), "ef_search" },
    { FILTER, KITHI_WIRE_LIST, AT(filters), "filter" },
    { 6, KITHI_WIRE_OCTETS, AT(vector_bytes), "vector_bytes" },
    { 7, KITHI_WIRE_STRING, AT(like), "like" },
    { 8, KITHI_WIRE_STRING, AT(expression), "filter_expression" },
    { 9, KITHI_WIRE_DOUBLE, AT(recall), "target_recall" },
    { 10, KITHI_WIRE_BOOL, AT(exact), "exact" },
    { 11, KITHI_WIRE_UINT64, AT(deadline_ms), "deadline_ms" },
    { 12, KITHI_WIRE_UINT64, AT(min_epoch), "min_epoch" },
    { 13, KITHI_WIRE_UINT64, AT(timeline), "timeline" },
    { 14, KITHI_WIRE_BOOL, AT(with_vector), "with_vector" },
    { 15, KITHI_WIRE_INT32, AT(payload), "payload" },
    { FIELDS, KITHI_WIRE_LIST, AT(fields), "payload_fields" },
    { 17, KITHI_WIRE_DOUBLE, AT(threshold), "score_threshold" },
};
#define MEMBERS (unsigned)(sizeof members / sizeof members[0])

/* A search as it was read, with what it holds. */
struct read {
    struct kithi_search q;
    size_t first; /* of its vector among the floats of the request */
    char *like, *names[64];
};

static void free_read(struct read *s)
{
    for (uint32_t i = 0; i < s->q.fields.count; i++) {
        free(s->names[i]);
    }
    free(s->like);
    free(s->q.filter);
}

static bool read_vector(const struct message *m, struct kithi_part bytes, const char *where,
                        struct kithi_floats *floats, struct read *s, struct kithi_refusal *refusal)
{
    char place[128];
    unsigned given = (m->floats > 0) + (m->vector_bytes.len > 0) + (m->like.len > 0);
    kithi_body_place(place, sizeof place, where, m->vector_bytes.len ? "vector_bytes" : "vector");
    if (given != 1) {
        return kithi_refuse(refusal, 422, "value", place,
                            "a search has one of vector, vector_bytes, and like with an id") == 0;
    }
    s->first = floats->count;
    long n = m->floats             ? kithi_wire_floats(bytes, VECTOR, floats)
             : m->vector_bytes.len ? kithi_floats_bytes(floats, m->vector_bytes.at, m->vector_bytes.len)
                                   : 0;
    if (n == -EINVAL) {
        return kithi_refuse(refusal, 422, "dimension", place, "%s is not of whole float32", place) == 0;
    }
    if (n < 0) {
        return kithi_body_starved(refusal) == 0;
    }
    s->q.len = (size_t)n;
    s->like = m->like.len ? kithi_rpc_string(m->like, refusal) : NULL;
    s->q.like = s->like;
    return !refusal->status;
}

static bool read_fields(const struct message *m, struct kithi_part bytes, const char *where, struct read *s,
                        struct kithi_refusal *refusal)
{
    struct kithi_wire_field field;
    if (m->fields > 64) {
        char place[128];
        kithi_body_place(place, sizeof place, where, "payload_fields");
        return kithi_refuse(refusal, 422, "value", place, "%s has at most 64 paths of fields", place) == 0;
    }
    while (kithi_wire_each(&bytes, FIELDS, &field)) {
        char *name =
            memchr(field.bytes.at, 0, field.bytes.len) ? strdup("") : kithi_rpc_string(field.bytes, refusal);
        if (!name) {
            return kithi_body_starved(refusal) == 0;
        }
        s->names[s->q.fields.count] = name;
        s->q.fields.names[s->q.fields.count++] = name;
    }
    return true;
}

/* Its vector is at first of the floats; where they lie is known when all are in. s is to be freed in any case. */
static bool read_search(struct kithi_request *r, struct kithi_part bytes, const struct message *m,
                        const char *where, struct kithi_floats *floats, struct read *s)
{
    const struct kithi_gateway *g = r->gateway;
    s->q.k = KITHI_SEARCH_TOP_K;
    s->q.recall = m->recall.value;
    s->q.exact = m->exact;
    s->q.with_vector = m->with_vector;
    s->q.has_threshold = m->threshold.given;
    s->q.threshold = m->threshold.value;
    s->q.form = m->payload;
    s->q.fields.payload = m->payload != KITHI_FORM_NONE;
    s->q.deadline_ms = m->deadline_ms;
    s->q.moment = (struct kithi_rest_moment){ .min_epoch = m->min_epoch, .timeline = m->timeline };
    /* Negative numbers are large ones here, and beyond any limit. */
    return kithi_rpc_range(&r->refusal, where, "top_k", (uint64_t)(int64_t)m->top_k, 1, g->top_k_max,
                           &s->q.k) &&
           kithi_rpc_range(&r->refusal, where, "ef_search", (uint64_t)(int64_t)m->ef, 1, g->ef_max,
                           &s->q.ef) &&
           kithi_rpc_range(&r->refusal, where, "deadline_ms", m->deadline_ms, 1, 3600000, &(uint32_t){ 0 }) &&
           kithi_rpc_choice(&r->refusal, where, "payload", m->payload, KITHI_FORMS) &&
           kithi_rpc_filter(&r->refusal, where, m->expression, bytes, FILTER, m->filters, &s->q.filter) &&
           read_fields(m, bytes, where, s, &r->refusal) &&
           read_vector(m, bytes, where, floats, s, &r->refusal);
}

static void write_begin(struct kithi_text *out)
{
    (void)out;
}

static void write_hit(struct kithi_text *out, const struct kithi_search *q,
                      const struct kithi_search_hit *hit)
{
    size_t result = kithi_wire_open(out, 1);
    kithi_wire_put_bytes(out, 1, hit->id, hit->id_len);
    kithi_wire_put_float(out, 2, hit->score);
    kithi_rpc_put_payload(out, q->form, 3, 4, hit->payload);
    if (hit->vector) {
        kithi_wire_put_floats(out, 5, hit->vector, hit->dim);
    }
    kithi_wire_close(out, result);
}

static void write_end(struct kithi_text *out, const struct kithi_search_summary *summary)
{
    kithi_wire_put_uint(out, 2, summary->us);
    kithi_wire_put_uint(out, 3, summary->epoch);
    kithi_wire_put_uint(out, 4, summary->timeline);
    kithi_wire_put_uint(out, 5, summary->partial);
    kithi_wire_put_string(out, 6, summary->notice ? summary->notice : "");
}

static const struct kithi_search_writer protobuf = { write_begin, write_hit, write_end };

/* To the lane for those that take long, open the collection, wait for the epoch. KITHI_DONE, and *out: go on. */
static enum kithi_next prepare(struct kithi_request *r, bool wide, const struct kithi_rest_moment *moment,
                               uint64_t deadline_ms, struct kithi_handle **out)
{
    if (wide && r->lane != KITHI_LANE_WIDE) {
        r->lane = KITHI_LANE_WIDE;
        return KITHI_MOVE;
    }
    if (!kithi_rest_open(r, false, out)) {
        return KITHI_DONE;
    }
    r->await = moment->min_epoch;
    r->await_until_ns = kithi_search_until(r, deadline_ms);
    r->search_us = 0;
    return kithi_rest_await(r, *out, moment, r->await_until_ns);
}

enum kithi_next kithi_rpc_search(struct kithi_request *r)
{
    struct message m = { .top_k = 0 };
    struct read s = { .first = 0 };
    struct kithi_floats floats;
    struct kithi_handle *handle = NULL;
    struct kith_error error = { 0 };
    kith_results *hits = NULL;
    char text[96] = "", place[128] = "";
    enum kithi_next next = kithi_search_waiting(r);
    if (next == KITHI_AWAIT || r->refusal.status) {
        return next;
    }
    kithi_floats_init(&floats, &r->gateway->bodies);
    if (!kithi_rpc_read(r, members, MEMBERS, &m) || !kithi_rpc_collection(r, m.collection) ||
        !read_search(r, kithi_rpc_message(r), &m, "", &floats, &s)) {
        goto out;
    }
    s.q.vector = s.q.len ? floats.values + s.first : NULL;
    next = prepare(r, kithi_search_is_wide(&s.q), &s.q.moment, s.q.deadline_ms, &handle);
    if (next != KITHI_DONE || r->refusal.status) {
        goto out;
    }
    hits = kith_results_new();
    int rc =
        hits ? kithi_search_run(r, handle->index, &s.q, r->await_until_ns, hits, &protobuf, &error) : -ENOMEM;
    kithi_search_place(rc, "", place, sizeof place);
    next =
        kithi_rest_end(r, handle, rc, place,
                       rc < 0 ? kithi_search_text(rc, handle->index, &s.q, &error, text, sizeof text) : NULL);
    handle = NULL;
out:
    kithi_handles_give(r->gateway->handles, handle, false);
    kith_results_free(hits);
    free_read(&s);
    kithi_floats_fini(&floats);
    return next;
}

struct batch {
    struct kithi_part collection;
    size_t searches;
    uint64_t deadline_ms;
    struct kithi_rest_moment moment;
};

static const struct kithi_wire_member batch_members[] = {
    { 1, KITHI_WIRE_STRING, offsetof(struct batch, collection), "collection" },
    { 2, KITHI_WIRE_LIST, offsetof(struct batch, searches), "searches" },
    { 3, KITHI_WIRE_UINT64, offsetof(struct batch, deadline_ms), "deadline_ms" },
    { 4, KITHI_WIRE_UINT64, offsetof(struct batch, moment.min_epoch), "min_epoch" },
    { 5, KITHI_WIRE_UINT64, offsetof(struct batch, moment.timeline), "timeline" },
};

/* All searches of a batch are read, and refused, before one is carried out. */
static struct read *read_batch(struct kithi_request *r, struct kithi_floats *floats, size_t n, bool *out_wide)
{
    struct kithi_part rest = kithi_rpc_message(r);
    struct kithi_wire_field field;
    if (n == 0 || n > r->gateway->batch_max) {
        kithi_refuse(&r->refusal, 422, "value", "searches", "searches are 1 to %u", r->gateway->batch_max);
        return NULL;
    }
    struct read *list = calloc(n, sizeof *list);
    if (!list) {
        kithi_body_starved(&r->refusal);
        return NULL;
    }
    *out_wide = n > KITHI_SEARCH_BATCH_BESIDE;
    for (size_t i = 0; i < n && kithi_wire_each(&rest, 2, &field); i++) {
        struct message m = { .top_k = 0 };
        char where[48];
        snprintf(where, sizeof where, "searches[%zu]", i);
        if (!kithi_wire_read(field.bytes, members, MEMBERS, where, &m, &r->refusal)) {
            break;
        }
        if (m.collection.len && (m.collection.len != strlen(r->target.collection) ||
                                 memcmp(m.collection.at, r->target.collection, m.collection.len) != 0)) {
            kithi_refuse(&r->refusal, 422, "value", where, "the searches of a batch are of its collection");
        } else if (m.deadline_ms || m.min_epoch || m.timeline) {
            kithi_refuse(&r->refusal, 422, "value", where,
                         "deadline_ms, min_epoch and timeline of a batch stand beside searches");
        } else {
            read_search(r, field.bytes, &m, where, floats, &list[i]);
        }
        if (r->refusal.status) {
            break;
        }
        *out_wide = *out_wide || kithi_search_is_wide(&list[i].q);
    }
    for (size_t i = 0; i < n; i++) {
        list[i].q.vector = list[i].q.len ? floats->values + list[i].first : NULL;
    }
    return list;
}

enum kithi_next kithi_rpc_batch_search(struct kithi_request *r)
{
    struct batch b = { .searches = 0 };
    struct kithi_floats floats;
    struct kithi_handle *handle = NULL;
    struct kith_error error = { 0 };
    struct read *list = NULL;
    kith_results *hits = NULL;
    size_t i = 0;
    bool wide = false;
    char text[96] = "", place[128] = "", where[48] = "";
    enum kithi_next next = kithi_search_waiting(r);
    if (next == KITHI_AWAIT || r->refusal.status) {
        return next;
    }
    kithi_floats_init(&floats, &r->gateway->bodies);
    if (kithi_rpc_read(r, batch_members, 5, &b) && kithi_rpc_collection(r, b.collection) &&
        kithi_rpc_range(&r->refusal, "", "deadline_ms", b.deadline_ms, 1, 3600000, &(uint32_t){ 0 })) {
        list = read_batch(r, &floats, b.searches, &wide);
    }
    if (r->refusal.status) {
        goto out;
    }
    next = prepare(r, wide, &b.moment, b.deadline_ms, &handle);
    if (next != KITHI_DONE || r->refusal.status) {
        goto out;
    }
    hits = kith_results_new();
    int rc = hits ? 0 : -ENOMEM;
    for (i = 0; i < b.searches && rc == 0 && !r->answer.failed && !r->refusal.status; i++) {
        if (kithi_gateway_now_ns() >= r->deadline_ns) {
            kithi_search_refuse_late(r);
            break;
        }
        size_t response = kithi_wire_open(&r->answer, 1);
        rc = kithi_search_run(r, handle->index, &list[i].q, r->await_until_ns, hits, &protobuf, &error);
        kithi_wire_close(&r->answer, response);
        if (rc < 0) {
            snprintf(where, sizeof where, "searches[%zu]", i);
            kithi_search_place(rc, where, place, sizeof place);
            kithi_search_text(rc, handle->index, &list[i].q, &error, text, sizeof text);
        }
    }
    kithi_wire_put_uint(&r->answer, 2, r->search_us);
    next = kithi_rest_end(r, handle, rc, place, *text ? text : error.text);
    handle = NULL;
out:
    kithi_handles_give(r->gateway->handles, handle, false);
    kith_results_free(hits);
    for (i = 0; list && i < b.searches; i++) {
        free_read(&list[i]);
    }
    free(list);
    kithi_floats_fini(&floats);
    return next;
}
