/*
 * rpc_read.c - Get, Count, Scroll and Facet.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/grpc/rpc.h"

#define PAGE          100u
#define PAGE_MAX      1000u
#define PAGE_PAYLOADS 256u   /* libkith copies payloads at once: 64 KiB each at most */
#define VALUES_MAX    65536u /* that kith_facet_of() tells apart */

/* What these calls ask for; each has some of it, with numbers of its own. */
struct message {
    struct kithi_part collection, id, cursor, field, expression;
    size_t filters;
    int32_t payload;
    bool with_vector;
    uint64_t limit;
    struct kithi_rest_moment moment;
};
#define AT(member) offsetof(struct message, member)

/* Open the collection and wait for the epoch. KITHI_DONE with *out: go on. */
static enum kithi_next open_at(struct kithi_request *r, const struct message *m, struct kithi_handle **out)
{
    *out = NULL;
    if (!kithi_rest_open(r, false, out)) {
        return KITHI_DONE;
    }
    enum kithi_next next = kithi_rest_await(r, *out, &m->moment, 0);
    if (next == KITHI_AWAIT || r->refusal.status) {
        kithi_handles_give(r->gateway->handles, *out, false);
        *out = NULL;
    }
    return next;
}

/* epoch and timeline */
static void put_epoch(struct kithi_request *r, kith *index, uint32_t number, uint64_t epoch)
{
    kithi_wire_put_uint(&r->answer, number, epoch);
    kithi_wire_put_uint(&r->answer, number + 1, kith_timeline(index));
}

/* A hit as a VectorPoint. */
static void put_point(struct kithi_request *r, kith *index, const struct message *m, const kith_results *hits,
                      uint32_t i)
{
    size_t point = kithi_wire_open(&r->answer, 1);
    kithi_wire_put_bytes(&r->answer, 1, kith_results_id(hits, i), kith_results_id_len(hits, i));
    if (m->with_vector) {
        kithi_wire_put_floats(&r->answer, 2, kith_results_vector(hits, i), kith_dim(index));
    }
    kithi_rpc_put_payload(&r->answer, m->payload, 3, 5, kith_results_payload(hits, i));
    kithi_wire_close(&r->answer, point);
}

enum kithi_next kithi_rpc_get(struct kithi_request *r)
{
    static const struct kithi_wire_member members[] = {
        { 1, KITHI_WIRE_STRING, AT(collection), "collection" },
        { 2, KITHI_WIRE_STRING, AT(id), "id" },
        { 3, KITHI_WIRE_BOOL, AT(with_vector), "with_vector" },
        { 4, KITHI_WIRE_INT32, AT(payload), "payload" },
        { 5, KITHI_WIRE_UINT64, AT(moment.min_epoch), "min_epoch" },
        { 6, KITHI_WIRE_UINT64, AT(moment.timeline), "timeline" },
    };
    struct kith_fetch_opts opts = KITH_FETCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    struct message m = { .limit = 0 };
    struct kithi_handle *handle;
    if (!kithi_rpc_read(r, members, 6, &m) || !kithi_rpc_collection(r, m.collection) ||
        !kithi_rpc_choice(&r->refusal, "", "payload", m.payload, KITHI_FORMS) ||
        !kithi_rpc_id(m.id, "id", r->target.id, &r->refusal)) {
        return KITHI_DONE;
    }
    enum kithi_next next = open_at(r, &m, &handle);
    if (!handle) {
        return next;
    }
    kith_results *hit = kith_results_new();
    opts.vector = m.with_vector;
    opts.payloads = m.payload != KITHI_FORM_NONE;
    int rc = hit ? kith_fetch(handle->index, r->target.id, &opts, hit) : -ENOMEM;
    if (rc == 0) {
        put_point(r, handle->index, &m, hit, 0);
        put_epoch(r, handle->index, 2, kith_results_info(hit, &info) == 0 ? info.epoch : 0);
    }
    kith_results_free(hit);
    return kithi_rest_end(r, handle, rc, NULL, NULL);
}

enum kithi_next kithi_rpc_count(struct kithi_request *r)
{
    static const struct kithi_wire_member members[] = {
        { 1, KITHI_WIRE_STRING, AT(collection), "collection" },
        { 2, KITHI_WIRE_STRING, AT(expression), "filter_expression" },
        { 3, KITHI_WIRE_LIST, AT(filters), "filter" },
        { 4, KITHI_WIRE_UINT64, AT(moment.min_epoch), "min_epoch" },
        { 5, KITHI_WIRE_UINT64, AT(moment.timeline), "timeline" },
    };
    struct kith_snapshot at = KITH_SNAPSHOT_INIT;
    struct kith_error error = { 0 };
    struct message m = { .limit = 0 };
    struct kithi_handle *handle;
    char *filter = NULL;
    uint64_t count = 0;
    if (!kithi_rpc_read(r, members, 5, &m) || !kithi_rpc_collection(r, m.collection) ||
        !kithi_rpc_filter(&r->refusal, "", m.expression, kithi_rpc_message(r), 3, m.filters, &filter)) {
        return KITHI_DONE;
    }
    if (filter && r->lane != KITHI_LANE_WIDE) { /* every payload is looked at */
        free(filter);
        r->lane = KITHI_LANE_WIDE;
        return KITHI_MOVE;
    }
    enum kithi_next next = open_at(r, &m, &handle);
    if (handle) {
        int rc = kith_snapshot(handle->index,
                               &at); /* an epoch that the count, which is of now, is not older than */
        if (rc == 0) {
            struct kith_count_opts opts = KITH_COUNT_OPTS_INIT;
            opts.filter = filter;
            opts.deadline_ns = r->deadline_ns;
            opts.error = &error;
            rc = filter ? kith_count_with(handle->index, &opts, &count) : kith_count(handle->index, &count);
        }
        kithi_wire_put_uint(&r->answer, 1, count);
        put_epoch(r, handle->index, 2, at.epoch);
        next = kithi_rest_end(r, handle, rc, rc == KITH_E_FILTER ? "filter" : NULL, error.text);
    }
    free(filter);
    return next;
}

enum kithi_next kithi_rpc_scroll(struct kithi_request *r)
{
    static const struct kithi_wire_member members[] = {
        { 1, KITHI_WIRE_STRING, AT(collection), "collection" },
        { 2, KITHI_WIRE_UINT64, AT(limit), "limit" },
        { 3, KITHI_WIRE_STRING, AT(cursor), "cursor" },
        { 4, KITHI_WIRE_BOOL, AT(with_vector), "with_vector" },
        { 5, KITHI_WIRE_INT32, AT(payload), "payload" },
        { 6, KITHI_WIRE_STRING, AT(expression), "filter_expression" },
        { 7, KITHI_WIRE_LIST, AT(filters), "filter" },
        { 8, KITHI_WIRE_UINT64, AT(moment.min_epoch), "min_epoch" },
        { 9, KITHI_WIRE_UINT64, AT(moment.timeline), "timeline" },
    };
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    struct kith_error error = { 0 };
    struct message m = { .limit = 0 };
    struct kithi_handle *handle;
    char *filter = NULL, *cursor = NULL;
    opts.limit = PAGE;
    if (!kithi_rpc_read(r, members, 9, &m) || !kithi_rpc_collection(r, m.collection) ||
        !kithi_rpc_range(&r->refusal, "", "limit", m.limit, 1, PAGE_MAX, &opts.limit) ||
        !kithi_rpc_choice(&r->refusal, "", "payload", m.payload, KITHI_FORMS) ||
        !kithi_rpc_filter(&r->refusal, "", m.expression, kithi_rpc_message(r), 7, m.filters, &filter)) {
        return KITHI_DONE;
    }
    cursor = m.cursor.len ? kithi_rpc_string(m.cursor, &r->refusal) : NULL;
    enum kithi_next next = open_at(r, &m, &handle);
    if (handle) {
        opts.payloads = m.payload != KITHI_FORM_NONE;
        opts.limit = opts.payloads && opts.limit > PAGE_PAYLOADS ? PAGE_PAYLOADS : opts.limit;
        opts.vectors = m.with_vector;
        opts.filter = filter;
        opts.error = &error;
        kith_results *page = kith_results_new();
        int rc = page ? kith_scroll(handle->index, cursor, &opts, page) : -ENOMEM;
        for (uint32_t i = 0; rc >= 0 && i < kith_results_count(page) && !r->answer.failed; i++) {
            put_point(r, handle->index, &m, page, i);
        }
        if (rc >= 0) {
            const char *then = kith_results_cursor(page);
            kith_results_info(page, &info);
            kithi_wire_put_string(&r->answer, 2, then ? then : "");
            put_epoch(r, handle->index, 3, info.epoch);
        }
        kith_results_free(page);
        next = kithi_rest_end(r, handle, rc,
                              rc == KITH_E_CURSOR   ? "cursor"
                              : rc == KITH_E_FILTER ? "filter"
                                                    : NULL,
                              rc == KITH_E_FILTER ? error.text : NULL);
    }
    free(cursor);
    free(filter);
    return next;
}

static int put_facet(struct kithi_request *r, kith *index, const kith_facet *f)
{
    struct kith_facet_info info = KITH_FACET_INFO_INIT;
    struct kith_filter_value v;
    uint64_t count;
    int rc = kith_facet_info(f, &info);
    for (uint32_t i = 0; i < kith_facet_count(f) && rc == 0 && !r->answer.failed; i++) {
        rc = kith_facet_value(f, i, &v, &count);
        size_t value = kithi_wire_open(&r->answer, 1);
        switch (v.type) {
        case KITH_FILTER_STRING: kithi_wire_put_item(&r->answer, 1, v.string, strlen(v.string)); break;
        case KITH_FILTER_INTEGER: kithi_wire_put_uint_always(&r->answer, 2, (uint64_t)v.integer); break;
        case KITH_FILTER_DOUBLE: kithi_wire_put_double(&r->answer, 3, v.number); break;
        case KITH_FILTER_BOOL: kithi_wire_put_uint_always(&r->answer, 4, v.integer != 0); break;
        }
        kithi_wire_put_uint(&r->answer, 5, count);
        kithi_wire_close(&r->answer, value);
    }
    kithi_wire_put_uint(&r->answer, 2, info.vectors);
    kithi_wire_put_uint(&r->answer, 3, info.with);
    kithi_wire_put_uint(&r->answer, 4, info.distinct);
    kithi_wire_put_uint(&r->answer, 5, info.other);
    put_epoch(r, index, 6, info.epoch);
    return rc;
}

enum kithi_next kithi_rpc_facet(struct kithi_request *r)
{
    static const struct kithi_wire_member members[] = {
        { 1, KITHI_WIRE_STRING, AT(collection), "collection" },
        { 2, KITHI_WIRE_STRING, AT(field), "field" },
        { 3, KITHI_WIRE_UINT64, AT(limit), "limit" },
        { 4, KITHI_WIRE_STRING, AT(expression), "filter_expression" },
        { 5, KITHI_WIRE_LIST, AT(filters), "filter" },
        { 6, KITHI_WIRE_UINT64, AT(moment.min_epoch), "min_epoch" },
        { 7, KITHI_WIRE_UINT64, AT(moment.timeline), "timeline" },
    };
    struct kith_facet_opts opts = KITH_FACET_OPTS_INIT;
    struct kith_error error = { 0 };
    struct message m = { .limit = 0 };
    struct kithi_handle *handle;
    kith_facet *found = NULL;
    char *filter = NULL;
    if (!kithi_rpc_read(r, members, 7, &m) || !kithi_rpc_collection(r, m.collection) ||
        !kithi_rpc_range(&r->refusal, "", "limit", m.limit, 1, VALUES_MAX, &opts.limit) ||
        !kithi_rpc_filter(&r->refusal, "", m.expression, kithi_rpc_message(r), 5, m.filters, &filter)) {
        return KITHI_DONE;
    }
    char *path = kithi_rpc_string(m.field, &r->refusal);
    enum kithi_next next = path ? open_at(r, &m, &handle) : KITHI_DONE;
    if (path && handle) {
        opts.filter = filter;
        opts.error = &error;
        opts.deadline_ns = r->deadline_ns;
        int rc = kith_facet_of(handle->index, path, &opts, &found);
        const char *where = rc == KITH_E_FILTER ? "filter" : rc == KITH_E_PAYLOAD ? "field" : NULL;
        const char *text = rc == KITH_E_FILTER    ? error.text
                           : rc == KITH_E_PAYLOAD ? "field is no path, as \"author.name\" is one"
                                                  : NULL;
        rc = rc < 0 ? rc : put_facet(r, handle->index, found);
        next = kithi_rest_end(r, handle, rc, where, text);
    }
    kith_facet_free(found);
    free(path);
    free(filter);
    return next;
}
