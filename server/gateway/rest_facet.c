/*
 * rest_facet.c - the values of a field, and how many vectors have each.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/rest.h"
#include "shm/base/decimal.h"

#define VALUES_MAX 65536u /* that kith_facet_of() tells apart */

/* The member "field", which a call cannot do without. False: refused. */
static bool field_of(struct kithi_body_object *o, const char **out)
{
    kith_filter *there = NULL;
    struct kith_error error = { 0 };
    *out = NULL;
    if (!kithi_body_string(o, "field", out)) {
        return false;
    }
    if (!*out) {
        return kithi_refuse(o->refusal, 422, "value", "field",
                            "the path of a field is missing, as \"author.name\"") == 0;
    }
    /* A condition on it is refused for what kith_facet_of() refuses it for, and says why: "filter: a key is empty". */
    int rc = kith_filter_exists(*out, &there, &error);
    const char *why = strncmp(error.text, "filter: ", 8) == 0 ? error.text + 8 : error.text;
    kith_filter_free(there);
    if (rc == KITH_E_FILTER) {
        return kithi_refuse(o->refusal, 422, "payload", "field", "field is no path: %s", why) == 0;
    }
    return rc == 0 || kithi_refuse_kith(o->refusal, rc, "field", error.text) == 0;
}

/* As it stands in a payload. */
static void put_value(struct kithi_text *out, const struct kith_filter_value *v)
{
    char digits[KITHI_DECIMAL_MAX];
    switch (v->type) {
    case KITH_FILTER_STRING: kithi_text_json(out, v->string, strlen(v->string)); break;
    case KITH_FILTER_BOOL: kithi_text_str(out, v->integer ? "true" : "false"); break;
    case KITH_FILTER_INTEGER: kithi_text_printf(out, "%" PRId64, v->integer); break;
    case KITH_FILTER_DOUBLE: kithi_text_put(out, digits, kithi_decimal_write(digits, v->number)); break;
    }
}

static int put_facet(struct kithi_request *r, kith *index, const char *field, const kith_facet *f)
{
    struct kith_facet_info info = KITH_FACET_INFO_INIT;
    struct kith_filter_value v;
    uint64_t count;
    int rc = kith_facet_info(f, &info);
    kithi_text_str(&r->answer, "{\"field\":");
    kithi_text_json(&r->answer, field, strlen(field));
    kithi_text_str(&r->answer, ",\"values\":[");
    for (uint32_t i = 0; i < kith_facet_count(f) && rc == 0 && !r->answer.failed; i++) {
        rc = kith_facet_value(f, i, &v, &count);
        kithi_text_str(&r->answer, i ? ",{\"value\":" : "{\"value\":");
        put_value(&r->answer, &v);
        kithi_text_printf(&r->answer, ",\"count\":%" PRIu64 "}", count);
    }
    kithi_text_printf(&r->answer,
                      "],\"vectors\":%" PRIu64 ",\"with\":%" PRIu64 ",\"distinct\":%" PRIu64
                      ",\"other\":%" PRIu64,
                      info.vectors, info.with, info.distinct, info.other);
    kithi_rest_put_epoch(r, index, info.epoch);
    kithi_text_str(&r->answer, "}\n");
    return rc;
}

enum kithi_next kithi_rest_facet(struct kithi_request *r)
{
    struct kith_facet_opts opts = KITH_FACET_OPTS_INIT;
    struct kithi_rest_moment moment;
    struct kithi_body_object o;
    struct kithi_handle *handle;
    struct kith_error error = { 0 };
    const char *field = NULL;
    char *filter = NULL;
    kith_facet *found = NULL;
    enum kithi_next next = KITHI_DONE;
    json_t *body = kithi_rest_query_end(r) ? kithi_rest_body(r) : NULL;
    if (!body || !kithi_body_object(&o, body, "", &r->refusal) || !field_of(&o, &field) ||
        !kithi_body_u32(&o, "limit", 1, VALUES_MAX, &opts.limit) || !kithi_rest_filter(&o, &filter) ||
        !kithi_rest_moment(&o, &moment) || !kithi_body_end(&o) || !kithi_rest_open(r, false, &handle)) {
        goto out;
    }
    next = kithi_rest_await(r, handle, &moment, 0);
    if (next == KITHI_AWAIT || r->refusal.status) {
        kithi_handles_give(r->gateway->handles, handle, false);
        goto out;
    }
    opts.filter = filter;
    opts.error = &error;
    opts.deadline_ns = r->deadline_ns;
    int rc = kith_facet_of(handle->index, field, &opts, &found);
    rc = rc < 0 ? rc : put_facet(r, handle->index, field, found);
    next = kithi_rest_end(r, handle, rc, rc == KITH_E_FILTER ? "filter" : NULL,
                          rc == KITH_E_FILTER ? error.text : NULL);
out:
    kith_facet_free(found);
    free(filter);
    json_decref(body);
    return next;
}
