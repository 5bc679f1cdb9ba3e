/*
 * rpc_write.c - Upsert, UpsertStream and Delete.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/grpc/rpc.h"
#include "server/gateway/write.h"

#define PACE_FROM_MS 100u /* durability that lags so far behind is told to the client of a stream */

enum { POINTS = 2, POINT_VECTOR = 2, POINT_METADATA = 3, DELETE_IDS = 2, DELETE_FILTER = 4, WAITS = 3 };

struct upsert {
    struct kithi_part collection;
    size_t points;
    int32_t wait; /* enum kith_durability */
};

static const struct kithi_wire_member upsert_members[] = {
    { 1, KITHI_WIRE_STRING, offsetof(struct upsert, collection), "collection" },
    { POINTS, KITHI_WIRE_LIST, offsetof(struct upsert, points), "points" },
    { 3, KITHI_WIRE_INT32, offsetof(struct upsert, wait), "wait" },
};

struct point {
    struct kithi_part id, bytes, json;
    size_t floats, metadata;
};

static const struct kithi_wire_member point_members[] = {
    { 1, KITHI_WIRE_STRING, offsetof(struct point, id), "id" },
    { POINT_VECTOR, KITHI_WIRE_FLOATS, offsetof(struct point, floats), "vector" },
    { POINT_METADATA, KITHI_WIRE_LIST, offsetof(struct point, metadata), "metadata" },
    { 4, KITHI_WIRE_OCTETS, offsetof(struct point, bytes), "vector_bytes" },
    { 5, KITHI_WIRE_STRING, offsetof(struct point, json), "payload_json" },
};

/* What a point is made of, used for one after the other. */
struct scratch {
    struct kithi_floats floats;
    struct kithi_text payload;
};

/* One point into the batch. False: refused. */
static bool add_point(struct kithi_request *r, struct kithi_part bytes, const char *where, kith *index,
                      kith_batch *batch, struct scratch *s)
{
    struct point p = { .floats = 0 };
    char id[KITHI_ID_MAX + 1], place[64];
    if (!kithi_wire_read(bytes, point_members, 5, where, &p, &r->refusal)) {
        return false;
    }
    kithi_body_place(place, sizeof place, where, "id");
    if (!kithi_rpc_id(p.id, place, id, &r->refusal)) {
        return false;
    }
    if ((p.floats > 0) == (p.bytes.len > 0)) {
        kithi_body_place(place, sizeof place, where, "vector");
        return kithi_refuse(&r->refusal, 422, "value", place, "a point has one of vector and vector_bytes") ==
               0;
    }
    if (p.metadata && p.json.len) {
        kithi_body_place(place, sizeof place, where, "metadata");
        return kithi_refuse(&r->refusal, 422, "payload", place,
                            "a point has one of metadata and payload_json") == 0;
    }
    s->floats.count = s->floats.vector_count = 0;
    long n = p.floats ? kithi_wire_floats(bytes, POINT_VECTOR, &s->floats)
                      : kithi_floats_bytes(&s->floats, p.bytes.at, p.bytes.len);
    if (n == -EINVAL) {
        kithi_body_place(place, sizeof place, where, "vector_bytes");
        return kithi_refuse(&r->refusal, 422, "dimension", place, "%s is not of whole float32", place) == 0;
    }
    kithi_text_cut(&s->payload, 0);
    if (p.metadata) {
        kithi_body_place(place, sizeof place, where, "metadata");
        if (!kithi_rpc_metadata(bytes, POINT_METADATA, place, &s->payload, &r->refusal)) {
            return false;
        }
    } else {
        kithi_text_put(&s->payload, p.json.at, p.json.len);
    }
    if (n < 0 || s->payload.failed) {
        return kithi_body_starved(&r->refusal) == 0;
    }
    bool none = s->payload.len == 4 && !memcmp(s->payload.at, "null", 4);
    int rc =
        s->payload.len == 0
            ? kith_batch_upsert(batch, id, s->floats.values, (size_t)n) /* the payload stays */
            : kith_batch_upsert_payload(batch, id, s->floats.values, (size_t)n, none ? NULL : s->payload.at);
    if (rc < 0) {
        kithi_write_refuse_point(r, rc, where, index, (size_t)n, s->payload.at);
    }
    return rc == 0;
}

/* *handle is given back. put writes the answer of what is done. */
static enum kithi_next upsert(struct kithi_request *r,
                              void (*put)(struct kithi_request *r, kith *index, size_t points,
                                          const struct kith_commit *done))
{
    struct upsert u = { .points = 0 };
    struct kith_commit done = KITH_COMMIT_INIT;
    struct kithi_handle *handle = NULL;
    struct kithi_wire_field field;
    struct scratch s;
    kith_batch *batch = NULL;
    enum kithi_next next = KITHI_DONE;
    kithi_floats_init(&s.floats, &r->gateway->bodies);
    kithi_text_init(&s.payload, r->body.len * 4 + 64, &r->gateway->bodies);
    if (!kithi_rpc_read(r, upsert_members, 3, &u) || !kithi_rpc_collection(r, u.collection) ||
        !kithi_rpc_choice(&r->refusal, "", "wait", u.wait, WAITS)) {
        goto out;
    }
    if (u.points == 0 || u.points > r->gateway->points_max) {
        kithi_refuse(&r->refusal, 422, "value", "points", "points are 1 to %u", r->gateway->points_max);
        goto out;
    }
    if (!kithi_rest_open(r, true, &handle)) {
        goto out;
    }
    batch = kith_batch_new(handle->index);
    int rc = batch ? 0 : -ENOMEM;
    struct kithi_part rest = kithi_rpc_message(r);
    for (size_t i = 0; rc == 0 && kithi_wire_each(&rest, POINTS, &field); i++) {
        char where[48];
        snprintf(where, sizeof where, "points[%zu]", i);
        if (!add_point(r, field.bytes, where, handle->index, batch, &s)) {
            goto out;
        }
    }
    if (rc == 0) {
        rc = kithi_write_commit(batch, (enum kith_durability)u.wait, &done);
    }
    if (rc >= 0) {
        put(r, handle->index, u.points, &done);
    }
    kith_batch_free(batch); /* before the handle that it belongs to may be closed */
    batch = NULL;
    next = kithi_write_end(r, handle, rc, &done, "points");
    handle = NULL;
out:
    kith_batch_free(batch);
    kithi_handles_give(r->gateway->handles, handle, false);
    kithi_text_fini(&s.payload);
    kithi_floats_fini(&s.floats);
    return next;
}

static void put_commit(struct kithi_request *r, kith *index, size_t count, const struct kith_commit *done)
{
    kithi_wire_put_uint(&r->answer, 1, count);
    kithi_wire_put_uint(&r->answer, 2, done->epoch);
    kithi_wire_put_uint(&r->answer, 3, kith_timeline(index));
    kithi_wire_put_uint(&r->answer, 4, done->durable_epoch);
}

static void put_ack(struct kithi_request *r, kith *index, size_t count, const struct kith_commit *done)
{
    bool slow = done->lag_ms >= PACE_FROM_MS;
    kithi_wire_put_uint(&r->answer, 1, r->stream_messages + 1);
    kithi_wire_put_uint(&r->answer, 2, r->stream_points + count);
    kithi_wire_put_uint(&r->answer, 3, done->epoch);
    kithi_wire_put_uint(&r->answer, 4, kith_timeline(index));
    kithi_wire_put_uint(&r->answer, 5, done->durable_epoch);
    kithi_wire_put_uint(&r->answer, 6, slow);
    kithi_wire_put_uint(&r->answer, 7, !slow ? 0 : done->lag_ms > 1000 ? 1000 : done->lag_ms);
    r->stream_points += count;
}

enum kithi_next kithi_rpc_upsert(struct kithi_request *r)
{
    return upsert(r, put_commit);
}

enum kithi_next kithi_rpc_upsert_stream(struct kithi_request *r)
{
    return upsert(r, put_ack);
}

struct delete
{
    struct kithi_part collection, expression;
    size_t ids, filters;
    int32_t wait;
};

static const struct kithi_wire_member delete_members[] = {
    { 1, KITHI_WIRE_STRING, offsetof(struct delete, collection), "collection" },
    { DELETE_IDS, KITHI_WIRE_LIST, offsetof(struct delete, ids), "ids" },
    { 3, KITHI_WIRE_STRING, offsetof(struct delete, expression), "filter_expression" },
    { DELETE_FILTER, KITHI_WIRE_LIST, offsetof(struct delete, filters), "filter" },
    { 5, KITHI_WIRE_INT32, offsetof(struct delete, wait), "wait" },
};

static int delete_ids(struct kithi_request *r, kith *index, enum kith_durability wait,
                      struct kith_commit *done)
{
    struct kithi_part rest = kithi_rpc_message(r);
    struct kithi_wire_field field;
    kith_batch *batch = kith_batch_new(index);
    int rc = batch ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && kithi_wire_each(&rest, DELETE_IDS, &field); i++) {
        char id[KITHI_ID_MAX + 1], where[48];
        snprintf(where, sizeof where, "ids[%zu]", i);
        rc = kithi_rpc_id(field.bytes, where, id, &r->refusal) ? kith_batch_delete(batch, id) : KITH_E_ID;
        if (rc < 0) {
            kithi_refuse_kith(&r->refusal, rc, where, NULL);
        }
    }
    if (rc == 0) {
        rc = kithi_write_commit(batch, wait, done);
    }
    kith_batch_free(batch);
    return rc;
}

enum kithi_next kithi_rpc_delete(struct kithi_request *r)
{
    struct delete d = { .ids = 0 };
    struct kith_commit done = KITH_COMMIT_INIT;
    struct kithi_handle *handle = NULL;
    char *filter = NULL;
    uint64_t count = 0;
    int rc;
    if (!kithi_rpc_read(r, delete_members, 5, &d) || !kithi_rpc_collection(r, d.collection) ||
        !kithi_rpc_choice(&r->refusal, "", "wait", d.wait, WAITS) ||
        !kithi_rpc_filter(&r->refusal, "", d.expression, kithi_rpc_message(r), DELETE_FILTER, d.filters,
                          &filter)) {
        return KITHI_DONE;
    }
    if (!d.ids == !filter || d.ids > r->gateway->points_max) {
        kithi_refuse(&r->refusal, 422, "value", "ids", "there are either ids, 1 to %u, or a filter",
                     r->gateway->points_max);
    } else if (filter && d.wait != KITH_DURABILITY_DURABLE) {
        kithi_refuse(&r->refusal, 422, "value", "wait", "a delete by filter waits until it is durable");
    }
    if (r->refusal.status || !kithi_rest_open(r, true, &handle)) {
        free(filter);
        return KITHI_DONE;
    }
    if (filter) {
        rc = kithi_write_delete_filter(r, handle->index, filter, &count, &done);
    } else {
        rc = delete_ids(r, handle->index, (enum kith_durability)d.wait, &done);
        count = done.found;
    }
    free(filter);
    if (rc >= 0) {
        put_commit(r, handle->index, count, &done);
    }
    return kithi_rest_end(r, handle, rc, rc == KITH_E_FILTER ? "filter" : NULL,
                          rc < 0 ? done.error.text : NULL);
}
