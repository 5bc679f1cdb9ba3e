/*
 * rest_read.c - single vectors, pages and counts.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/rest.h"

#define PAGE          100u
#define PAGE_MAX      1000u
#define PAGE_PAYLOADS 256u /* libkith copies payloads at once: 64 KiB each at most */

enum kithi_next kithi_rest_get_vector(struct kithi_request *r)
{
    struct kith_fetch_opts opts = KITH_FETCH_OPTS_INIT;
    struct kithi_rest_moment moment = { 0 };
    struct kithi_handle *handle;
    bool vector = true, payload = true;
    uint64_t epoch = 0;
    if (!kithi_rest_query_bool(r, "with_vector", &vector) ||
        !kithi_rest_query_bool(r, "with_payload", &payload) ||
        !kithi_rest_query_u64(r, "min_epoch", INT64_MAX, &moment.min_epoch) ||
        !kithi_rest_query_u64(r, "timeline", UINT64_MAX, &moment.timeline) || !kithi_rest_query_end(r) ||
        !kithi_rest_open(r, false, &handle)) {
        return KITHI_DONE;
    }
    enum kithi_next next = kithi_rest_await(r, handle, &moment, 0);
    if (next == KITHI_AWAIT || r->refusal.status) {
        kithi_handles_give(r->gateway->handles, handle, false);
        return next;
    }
    kith_results *hit = kith_results_new();
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    opts.vector = vector;
    opts.payloads = payload;
    int rc = hit ? kith_fetch(handle->index, r->target.id, &opts, hit) : -ENOMEM;
    if (rc == 0) {
        epoch = kith_results_info(hit, &info) == 0 ? info.epoch : 0;
        kithi_text_str(&r->answer, "{\"id\":");
        kithi_text_json(&r->answer, r->target.id, r->target.id_len);
        if (vector) {
            kithi_text_str(&r->answer, ",\"vector\":");
            kithi_rest_put_vector(&r->answer, kith_results_vector(hit, 0), kith_dim(handle->index));
        }
        if (payload) {
            const char *text = kith_results_payload(hit, 0);
            kithi_text_str(&r->answer, ",\"metadata\":");
            kithi_text_str(&r->answer, text ? text : "null");
        }
        kithi_rest_put_epoch(r, handle->index, epoch);
        kithi_text_str(&r->answer, "}\n");
    }
    kith_results_free(hit);
    return kithi_rest_end(r, handle, rc, NULL, NULL);
}

enum kithi_next kithi_rest_scroll(struct kithi_request *r)
{
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    struct kithi_rest_fields fields = { .payload = false };
    struct kithi_rest_moment moment;
    struct kithi_body_object o;
    struct kithi_handle *handle;
    struct kith_error error = { 0 };
    const char *cursor = NULL;
    char *filter = NULL;
    bool vector = false;
    enum kithi_next next = KITHI_DONE;
    kith_results *page = NULL;
    opts.limit = PAGE;
    json_t *body = kithi_rest_query_end(r) ? kithi_rest_body(r) : NULL;
    if (!body || !kithi_body_object(&o, body, "", &r->refusal) ||
        !kithi_body_u32(&o, "limit", 1, PAGE_MAX, &opts.limit) || !kithi_body_string(&o, "cursor", &cursor) ||
        !kithi_body_bool(&o, "with_vector", &vector) || !kithi_rest_fields(&o, &fields) ||
        !kithi_rest_filter(&o, &filter) || !kithi_rest_moment(&o, &moment) || !kithi_body_end(&o) ||
        !kithi_rest_open(r, false, &handle)) {
        goto out;
    }
    next = kithi_rest_await(r, handle, &moment, 0);
    if (next == KITHI_AWAIT || r->refusal.status) {
        kithi_handles_give(r->gateway->handles, handle, false);
        goto out;
    }
    opts.limit = fields.payload && opts.limit > PAGE_PAYLOADS ? PAGE_PAYLOADS : opts.limit;
    opts.vectors = vector;
    opts.payloads = fields.payload;
    opts.field_count = fields.payload ? fields.count : 0;
    opts.fields = opts.field_count ? fields.names : NULL;
    opts.filter = filter;
    opts.error = &error;
    page = kith_results_new();
    int rc = page ? kith_scroll(handle->index, cursor, &opts, page) : -ENOMEM;
    if (rc >= 0) {
        struct kith_search_info info = KITH_SEARCH_INFO_INIT;
        const char *then = kith_results_cursor(page);
        kith_results_info(page, &info);
        kithi_text_str(&r->answer, "{\"points\":[");
        for (uint32_t i = 0; i < kith_results_count(page) && !r->answer.failed; i++) {
            kithi_text_str(&r->answer, i ? ",{\"id\":" : "{\"id\":");
            kithi_text_json(&r->answer, kith_results_id(page, i), kith_results_id_len(page, i));
            if (vector) {
                kithi_text_str(&r->answer, ",\"vector\":");
                kithi_rest_put_vector(&r->answer, kith_results_vector(page, i), kith_dim(handle->index));
            }
            if (fields.payload) {
                const char *text = kith_results_payload(page, i);
                kithi_text_str(&r->answer, ",\"metadata\":");
                kithi_text_str(&r->answer, text ? text : "null");
            }
            kithi_text_str(&r->answer, "}");
        }
        kithi_text_str(&r->answer, "],\"cursor\":");
        if (then) {
            kithi_text_json(&r->answer, then, strlen(then));
        } else {
            kithi_text_str(&r->answer, "null");
        }
        kithi_rest_put_epoch(r, handle->index, info.epoch);
        kithi_text_str(&r->answer, "}\n");
    }
    next = kithi_rest_end(r, handle, rc,
                          rc == KITH_E_CURSOR   ? "cursor"
                          : rc == KITH_E_FILTER ? "filter"
                                                : NULL,
                          rc == KITH_E_FILTER ? error.text : NULL);
out:
    kith_results_free(page);
    free(filter);
    json_decref(body);
    return next;
}

enum kithi_next kithi_rest_count(struct kithi_request *r)
{
    struct kith_snapshot at = KITH_SNAPSHOT_INIT;
    struct kithi_rest_moment moment;
    struct kithi_body_object o;
    struct kithi_handle *handle;
    struct kith_error error = { 0 };
    char *filter = NULL;
    uint64_t count = 0;
    enum kithi_next next = KITHI_DONE;
    json_t *body = kithi_rest_query_end(r) ? kithi_rest_body(r) : NULL;
    if (!body || !kithi_body_object(&o, body, "", &r->refusal) || !kithi_rest_filter(&o, &filter) ||
        !kithi_rest_moment(&o, &moment) || !kithi_body_end(&o)) {
        goto out;
    }
    if (filter && r->lane != KITHI_LANE_WIDE) { /* every payload is looked at */
        r->lane = KITHI_LANE_WIDE;
        next = KITHI_MOVE;
        goto out;
    }
    if (!kithi_rest_open(r, false, &handle)) {
        goto out;
    }
    next = kithi_rest_await(r, handle, &moment, 0);
    if (next == KITHI_AWAIT || r->refusal.status) {
        kithi_handles_give(r->gateway->handles, handle, false);
        goto out;
    }
    int rc = kith_snapshot(handle->index, &at);
    if (rc ==
        0) { /* of now, as counting at a moment looks at every record; the epoch is one that it is not older than */
        struct kith_count_opts opts = KITH_COUNT_OPTS_INIT;
        opts.filter = filter;
        opts.deadline_ns = r->deadline_ns;
        opts.error = &error;
        rc = filter ? kith_count_with(handle->index, &opts, &count) : kith_count(handle->index, &count);
    }
    if (rc >= 0) {
        kithi_text_printf(&r->answer, "{\"count\":%" PRIu64, count);
        kithi_rest_put_epoch(r, handle->index, at.epoch);
        kithi_text_str(&r->answer, "}\n");
    }
    next = kithi_rest_end(r, handle, rc, rc == KITH_E_FILTER ? "filter" : NULL,
                          rc == KITH_E_FILTER ? error.text : NULL);
out:
    free(filter);
    json_decref(body);
    return next;
}
