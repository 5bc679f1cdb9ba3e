/*
 * rest_write.c - upserts, deletes and changes of payloads: what a body says of them, and their answers as JSON.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/rest.h"
#include "server/gateway/write.h"

/* ,"epoch":...,"timeline":...,"durable_epoch":...,"wait":... */
static void put_commit(struct kithi_request *r, struct kithi_handle *handle, const struct kith_commit *done,
                       enum kith_durability wait)
{
    kithi_rest_put_epoch(r, handle->index, done->epoch);
    kithi_text_printf(&r->answer, ",\"durable_epoch\":%" PRIu64 ",\"wait\":\"%s\"", done->durable_epoch,
                      kithi_rest_wait_name(wait));
}

/* Add a point to the batch; text is for its metadata, and has it afterwards. */
static int add_point(kith_batch *batch, const char *id, const float *vector, size_t len, json_t *metadata,
                     struct kithi_text *text)
{
    kithi_text_cut(text, 0);
    if (!metadata) {
        return kith_batch_upsert(batch, id, vector, len); /* the payload, if it has one, stays */
    }
    if (json_is_null(metadata)) {
        return kith_batch_upsert_payload(batch, id, vector, len, NULL);
    }
    kithi_body_write(metadata, text);
    return text->failed ? -ENOMEM : kith_batch_upsert_payload(batch, id, vector, len, text->at);
}

/*
 * Several vectors as octets, N of them (?points=N) and nothing behind:
 *
 *   N times: length of the id in bytes (u16, little-endian), the id
 *   N rows:  as many float32 (little-endian) as the collection has dimensions, in the order of the ids
 *
 * so that a program writes its ids after each other, and then its matrix as it has it.
 */

/* Where the rows of such a body begin; 0: refused. */
static size_t ids_end(struct kithi_request *r, uint64_t n)
{
    size_t at = 0;
    for (uint64_t i = 0; i < n; i++) {
        char where[48];
        snprintf(where, sizeof where, "points[%" PRIu64 "].id", i);
        if (r->body.len - at < 2) {
            return kithi_refuse(&r->refusal, 422, "octets", where,
                                "the body ends before the length of this id"),
                   0;
        }
        size_t len = (unsigned char)r->body.at[at] | (size_t)(unsigned char)r->body.at[at + 1] << 8;
        at += 2;
        if (len == 0 || len > KITHI_ID_MAX) {
            return kithi_refuse(&r->refusal, 422, "id", where, "an id has 1 to %u bytes, not %zu",
                                KITHI_ID_MAX, len),
                   0;
        }
        if (r->body.len - at < len) {
            return kithi_refuse(&r->refusal, 422, "octets", where, "the body ends in the middle of this id"),
                   0;
        }
        if (memchr(r->body.at + at, 0, len)) {
            return kithi_refuse(&r->refusal, 422, "id", where, "the id has a NUL in it"), 0;
        }
        at += len;
    }
    return at;
}

static enum kithi_next upsert_rows(struct kithi_request *r, uint64_t n, enum kith_durability wait)
{
    struct kith_commit done = KITH_COMMIT_INIT;
    struct kithi_handle *handle;
    struct kithi_floats floats;
    kith_batch *batch = NULL;
    size_t rows = ids_end(r, n), at = 0;
    if (rows == 0 || !kithi_rest_open(r, true, &handle)) {
        return KITHI_DONE;
    }
    const uint32_t dim = kith_dim(handle->index);
    const size_t row = (size_t)dim * sizeof(float);
    int rc = 0;
    kithi_floats_init(&floats, &r->gateway->bodies);
    if (r->body.len - rows != n * row) {
        kithi_refuse(&r->refusal, 422, "octets", NULL,
                     "behind %" PRIu64 " ids there are %zu bytes, and rows of %u float32 take %" PRIu64, n,
                     r->body.len - rows, dim, n * row);
        rc = -EINVAL;
    } else if (kithi_floats_bytes(&floats, r->body.at + rows, r->body.len - rows) < 0) {
        kithi_body_starved(&r->refusal);
        rc = -ENOMEM;
    } else if (!(batch = kith_batch_new(handle->index))) {
        rc = -ENOMEM;
    }
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        char id[KITHI_ID_MAX + 1], where[48];
        size_t len = (unsigned char)r->body.at[at] | (size_t)(unsigned char)r->body.at[at + 1] << 8;
        memcpy(id, r->body.at + at + 2, len);
        id[len] = 0;
        at += 2 + len;
        rc = kith_batch_upsert(batch, id, floats.values + i * dim, dim);
        if (rc < 0) {
            snprintf(where, sizeof where, "points[%" PRIu64 "]", i);
            kithi_write_refuse_point(r, rc, where, handle->index, dim, "");
        }
    }
    rc = rc < 0 ? rc : kithi_write_commit(batch, wait, &done);
    if (rc >= 0) {
        kithi_text_printf(&r->answer, "{\"upserted\":%" PRIu64, n);
        put_commit(r, handle, &done, wait);
        kithi_text_str(&r->answer, "}\n");
    }
    kith_batch_free(batch);
    kithi_floats_fini(&floats);
    return kithi_write_end(r, handle, rc, &done, "points");
}

/* Vectors as octets: one, whose id stands in the query, or several; and what they wait for. */
static enum kithi_next upsert_octets(struct kithi_request *r)
{
    enum kith_durability wait = KITH_DURABILITY_DURABLE;
    struct kith_commit done = KITH_COMMIT_INIT;
    struct kithi_handle *handle;
    struct kithi_floats floats;
    kith_batch *batch = NULL;
    uint64_t points = UINT64_MAX;
    const char *id = kithi_query_get(&r->query, "id");
    if (!kithi_rest_query_u64(r, "points", UINT32_MAX, &points) || !kithi_rest_query_wait(r, &wait) ||
        !kithi_rest_query_end(r)) {
        return KITHI_DONE;
    }
    if (!id == (points == UINT64_MAX) || (id && !*id)) {
        kithi_refuse(
            &r->refusal, 400, "query", "id",
            "a vector as octets has its id in the query, ?id=...; several of them have ?points=N there, "
            "and their ids in the body");
        return KITHI_DONE;
    }
    if (!id && (points == 0 || points > r->gateway->points_max)) {
        kithi_refuse(&r->refusal, 422, "value", "points", "points is a number from 1 to %u",
                     r->gateway->points_max);
        return KITHI_DONE;
    }
    if (!id) {
        return upsert_rows(r, points, wait);
    }
    kithi_floats_init(&floats, &r->gateway->bodies);
    long n = kithi_floats_bytes(&floats, r->body.at, r->body.len);
    if (n < 0) {
        kithi_floats_fini(&floats);
        if (n == -EINVAL) {
            kithi_refuse(&r->refusal, 422, "dimension", NULL, "the body is not of whole float32");
        } else {
            kithi_body_starved(&r->refusal);
        }
        return KITHI_DONE;
    }
    if (!kithi_rest_open(r, true, &handle)) {
        kithi_floats_fini(&floats);
        return KITHI_DONE;
    }
    batch = kith_batch_new(handle->index);
    int rc = batch ? kith_batch_upsert(batch, id, floats.values, (size_t)n) : -ENOMEM;
    if (rc < 0) {
        kithi_write_refuse_point(r, rc, "", handle->index, (size_t)n, "");
    } else {
        rc = kithi_write_commit(batch, wait, &done);
    }
    if (rc >= 0) {
        kithi_text_str(&r->answer, "{\"upserted\":1");
        put_commit(r, handle, &done, wait);
        kithi_text_str(&r->answer, "}\n");
    }
    kith_batch_free(batch);
    kithi_floats_fini(&floats);
    return kithi_write_end(r, handle, rc, &done, NULL);
}

/* The points of a body into the batch. False: refused. */
static bool read_points(struct kithi_request *r, json_t *points, struct kithi_floats *floats, kith *index,
                        kith_batch *batch, struct kithi_text *text)
{
    size_t n = json_array_size(points);
    if (!json_is_array(points) || n == 0 || n > r->gateway->points_max) {
        return kithi_refuse(&r->refusal, 422, "value", "points", "points is an array of 1 to %u points",
                            r->gateway->points_max) == 0;
    }
    for (size_t i = 0; i < n; i++) {
        struct kithi_body_object o;
        const char *id = NULL;
        const float *vector;
        size_t len = 0;
        char where[48], place[64];
        snprintf(where, sizeof where, "points[%zu]", i);
        if (!kithi_body_object(&o, json_array_get(points, i), where, &r->refusal) ||
            !kithi_body_string(&o, "id", &id) || !kithi_rest_vector(&o, floats, &vector, &len)) {
            return false;
        }
        json_t *metadata = kithi_body_raw(&o, "metadata");
        if (!kithi_body_end(&o)) {
            return false;
        }
        if (!id || !vector) {
            kithi_body_place(place, sizeof place, where, id ? "vector" : "id");
            return kithi_refuse(&r->refusal, 422, "value", place,
                                "a point has an id, which is a string, and a vector") == 0;
        }
        if (metadata && !json_is_object(metadata) && !json_is_null(metadata)) {
            kithi_body_place(place, sizeof place, where, "metadata");
            return kithi_refuse(&r->refusal, 422, "payload", place, "%s is not an object, nor null", place) ==
                   0;
        }
        int rc = strlen(id) == 0 ? KITH_E_ID : add_point(batch, id, vector, len, metadata, text);
        if (rc < 0) {
            kithi_write_refuse_point(r, rc, where, index, len, text->at);
            return false;
        }
    }
    return true;
}

enum kithi_next kithi_rest_upsert(struct kithi_request *r)
{
    enum kith_durability wait = KITH_DURABILITY_DURABLE;
    struct kith_commit done = KITH_COMMIT_INIT;
    struct kithi_handle *handle = NULL;
    struct kithi_body_object o;
    struct kithi_floats floats;
    struct kithi_text text;
    kith_batch *batch = NULL;
    enum kithi_next next = KITHI_DONE;
    if (r->floats) {
        return upsert_octets(r);
    }
    kithi_text_init(&text, r->body.len * 4 + 64, &r->gateway->bodies);
    kithi_floats_init(&floats, &r->gateway->bodies);
    json_t *body = kithi_rest_query_end(r) ? kithi_rest_lifted(r, &floats, 3) : NULL;
    if (!body || !kithi_body_object(&o, body, "", &r->refusal)) {
        goto out;
    }
    json_t *points = kithi_body_any(&o, "points");
    if (!kithi_rest_wait(&o, &wait) || !kithi_body_end(&o) || !kithi_rest_open(r, true, &handle)) {
        goto out;
    }
    batch = kith_batch_new(handle->index);
    int rc = batch ? 0 : -ENOMEM;
    if (rc == 0 && !read_points(r, points, &floats, handle->index, batch, &text)) {
        goto out;
    }
    if (rc == 0) {
        rc = kithi_write_commit(batch, wait, &done);
    }
    if (rc >= 0) {
        kithi_text_printf(&r->answer, "{\"upserted\":%zu", json_array_size(points));
        put_commit(r, handle, &done, wait);
        kithi_text_str(&r->answer, "}\n");
    }
    kith_batch_free(batch); /* before the handle that it belongs to may be closed */
    batch = NULL;
    next = kithi_write_end(r, handle, rc, &done, "points");
    handle = NULL;
out:
    kith_batch_free(batch);
    kithi_handles_give(r->gateway->handles, handle, false);
    kithi_text_fini(&text);
    kithi_floats_fini(&floats);
    json_decref(body);
    return next;
}

/* Delete those of a list. Returns what libkith said. */
static int delete_ids(struct kithi_request *r, json_t *ids, struct kithi_handle *handle,
                      enum kith_durability wait, struct kith_commit *done)
{
    kith_batch *batch = kith_batch_new(handle->index);
    int rc = batch ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < json_array_size(ids); i++) {
        const char *id = json_string_value(json_array_get(ids, i));
        rc = id && *id ? kith_batch_delete(batch, id) : KITH_E_ID;
        if (rc < 0) {
            char where[48];
            snprintf(where, sizeof where, "ids[%zu]", i);
            kithi_refuse_kith(&r->refusal, rc, where, NULL);
        }
    }
    if (rc == 0) {
        rc = kithi_write_commit(batch, wait, done);
    }
    if (rc >= 0) {
        kithi_text_printf(&r->answer, "{\"deleted\":%u", done->found);
        put_commit(r, handle, done, wait);
        kithi_text_str(&r->answer, "}\n");
    }
    kith_batch_free(batch);
    return rc;
}

enum kithi_next kithi_rest_delete(struct kithi_request *r)
{
    enum kith_durability wait = KITH_DURABILITY_DURABLE;
    struct kith_commit done = KITH_COMMIT_INIT;
    struct kithi_handle *handle = NULL;
    struct kithi_body_object o;
    char *filter = NULL;
    enum kithi_next next = KITHI_DONE;
    json_t *body = kithi_rest_query_end(r) ? kithi_rest_body(r) : NULL;
    if (!body || !kithi_body_object(&o, body, "", &r->refusal)) {
        goto out;
    }
    json_t *ids = kithi_body_any(&o, "ids");
    if (!kithi_rest_filter(&o, &filter) || !kithi_rest_wait(&o, &wait) || !kithi_body_end(&o)) {
        goto out;
    }
    if (!ids == !filter || (ids && (!json_is_array(ids) || json_array_size(ids) == 0 ||
                                    json_array_size(ids) > r->gateway->points_max))) {
        kithi_refuse(&r->refusal, 422, "value", "ids",
                     "there is either ids, an array of 1 to %u strings, or filter", r->gateway->points_max);
        goto out;
    }
    if (filter && wait != KITH_DURABILITY_DURABLE) {
        kithi_refuse(&r->refusal, 422, "value", "wait", "a delete by filter waits until it is durable");
        goto out;
    }
    if (!kithi_rest_open(r, true, &handle)) {
        goto out;
    }
    int rc;
    if (ids) {
        rc = delete_ids(r, ids, handle, wait, &done);
    } else {
        uint64_t count = 0;
        rc = kithi_write_delete_filter(r, handle->index, filter, &count, &done);
        if (rc == 0) {
            kithi_text_printf(&r->answer, "{\"deleted\":%" PRIu64, count);
            kithi_rest_put_epoch(r, handle->index, done.epoch);
            kithi_text_str(&r->answer, "}\n");
        }
    }
    next =
        kithi_rest_end(r, handle, rc, rc == KITH_E_FILTER ? "filter" : NULL, rc < 0 ? done.error.text : NULL);
    handle = NULL;
out:
    kithi_handles_give(r->gateway->handles, handle, false);
    free(filter);
    json_decref(body);
    return next;
}

/* A batch of one change, which finds its id or is a 404. */
static enum kithi_next commit_one(struct kithi_request *r, struct kithi_handle *handle, kith_batch *batch,
                                  int rc, enum kith_durability wait, const char *member,
                                  struct kith_error *error)
{
    struct kith_commit done = KITH_COMMIT_INIT;
    if (rc < 0) {
        done.error = *error;
    } else {
        rc = kithi_write_commit(batch, wait, &done);
    }
    if (rc >= 0 && done.found == 0) {
        rc = KITH_E_NOT_FOUND;
    }
    if (rc >= 0) {
        kithi_text_printf(&r->answer, "{\"%s\":1", member);
        put_commit(r, handle, &done, wait);
        kithi_text_str(&r->answer, "}\n");
    }
    kith_batch_free(batch);
    return kithi_write_end(r, handle, rc, &done, NULL);
}

enum kithi_next kithi_rest_delete_vector(struct kithi_request *r)
{
    enum kith_durability wait = KITH_DURABILITY_DURABLE;
    struct kith_error error = { 0 };
    struct kithi_handle *handle;
    if (!kithi_rest_query_wait(r, &wait) || !kithi_rest_query_end(r) || !kithi_rest_open(r, true, &handle)) {
        return KITHI_DONE;
    }
    kith_batch *batch = kith_batch_new(handle->index);
    return commit_one(r, handle, batch, batch ? kith_batch_delete(batch, r->target.id) : -ENOMEM, wait,
                      "deleted", &error);
}

enum kithi_next kithi_rest_payload(struct kithi_request *r)
{
    enum kith_durability wait = KITH_DURABILITY_DURABLE;
    enum kith_payload_change how = KITH_PAYLOAD_MERGE;
    struct kith_error error = { 0 };
    struct kithi_handle *handle;
    const char *mode = kithi_query_get(&r->query, "mode");
    if (mode && !strcmp(mode, "replace")) {
        how = KITH_PAYLOAD_REPLACE;
    } else if (mode && !strcmp(mode, "remove")) {
        how = KITH_PAYLOAD_REMOVE;
    } else if (mode && strcmp(mode, "merge") != 0) {
        kithi_refuse(&r->refusal, 400, "query", "mode", "the parameter mode is merge, replace or remove");
        return KITHI_DONE;
    }
    if (!kithi_rest_query_wait(r, &wait) || !kithi_rest_query_end(r)) {
        return KITHI_DONE;
    }
    /* Is it JSON at all? libkith says what else may be wrong, and takes the text as it came. */
    json_t *body = kithi_body_parse(r->body.at, r->body.len, &r->refusal);
    json_decref(body);
    if (!body) {
        return KITHI_DONE;
    }
    if (kith_payload_check(how, r->body.at, &error) < 0) {
        kithi_refuse_kith(&r->refusal, error.code ? error.code : KITH_E_PAYLOAD, NULL, error.text);
        return KITHI_DONE;
    }
    if (!kithi_rest_open(r, true, &handle)) {
        return KITHI_DONE;
    }
    kith_batch *batch = kith_batch_new(handle->index);
    int rc = batch ? kith_batch_set_payload(batch, r->target.id, how, r->body.at) : -ENOMEM;
    return commit_one(r, handle, batch, rc, wait, "changed", &error);
}
