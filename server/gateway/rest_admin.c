/*
 * rest_admin.c - collections: which there are, made, changed, removed, and checkpoints of them.
 *
 * The calls of libkith below wait for a kithd that is at work for as long as it is; a request is given up after admin_ms, and its
 * answer says then that the outcome is unknown (server.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/keys.h"
#include "server/gateway/rest.h"

static const char *const metrics[] = { "l2", "cosine", "ip" }; /* enum kith_metric - 1 */
static const char *const quantizations[] = { "none", "f16", "sq8", "bits",
                                             "auto" };       /* enum kith_quantization */
static const char *const keeps[] = { "f32", "f16", "none" }; /* enum kith_keep */

static const char *name_of(const char *const *names, unsigned n, uint32_t number)
{
    return number < n ? names[number] : "unknown";
}

enum kithi_next kithi_rest_list(struct kithi_request *r)
{
    struct kith_error error = { 0 };
    char *names = NULL;
    bool first = true;
    if (!kithi_rest_query_end(r)) {
        return KITHI_DONE;
    }
    int n = kith_list(r->gateway->run_dir, &names, &error);
    if (n < 0) {
        kithi_refuse_kith(&r->refusal, n, NULL, error.text);
        return KITHI_DONE;
    }
    kithi_text_str(&r->answer, "{\"collections\":[");
    for (const char *name = names; n > 0; n--, name += strlen(name) + 1) {
        if (r->key && !kithi_key_allows(r->key, name, false)) {
            continue;
        }
        kithi_text_str(&r->answer, first ? "" : ",");
        kithi_text_json(&r->answer, name, strlen(name));
        first = false;
    }
    kithi_text_str(&r->answer, "]}\n");
    free(names);
    return KITHI_DONE;
}

enum kithi_next kithi_rest_create(struct kithi_request *r)
{
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    struct kith_error error = { 0 };
    struct kithi_body_object o;
    uint32_t metric = UINT32_MAX;
    bool fixed = false;
    json_t *body = kithi_rest_query_end(r) ? kithi_rest_body(r) : NULL;
    opts.quantization = KITH_QUANTIZATION_AUTO;
    if (!body || !kithi_body_object(&o, body, "", &r->refusal) ||
        !kithi_body_u32(&o, "dim", 1, 4096, &opts.dim) ||
        !kithi_body_choice(&o, "metric", metrics, 3, &metric) || !kithi_body_u32(&o, "m", 2, 64, &opts.m) ||
        !kithi_body_u32(&o, "ef_construction", 1, 65536, &opts.ef_construction) ||
        !kithi_body_choice(&o, "quantization", quantizations, 5, &opts.quantization) ||
        !kithi_body_choice(&o, "keep", keeps, 3, &opts.keep) ||
        !kithi_body_u32(&o, "max_vectors", 1, UINT32_MAX, &opts.max_vectors) ||
        !kithi_body_bool(&o, "fixed", &fixed) || !kithi_body_string(&o, "index", &opts.index) ||
        !kithi_body_end(&o)) {
        goto out;
    }
    if (opts.dim == 0 || metric == UINT32_MAX) {
        kithi_refuse(&r->refusal, 422, "value", opts.dim ? "metric" : "dim",
                     "a collection has dim, 1 to 4096, and metric, one of l2, cosine, ip");
        goto out;
    }
    opts.metric = metric + 1;
    opts.fixed = fixed;
    opts.run_dir = r->gateway->run_dir;
    opts.error = &error;
    int rc = kith_create(r->target.collection, &opts);
    if (rc == 0) {
        r->status = 201;
        kithi_text_printf(&r->answer, "{\"created\":\"%s\"}\n", r->target.collection);
    }
    kithi_rest_end(r, NULL, rc, NULL, error.text);
out:
    json_decref(body);
    return KITHI_DONE;
}

/* Which fields of payloads have postings; null while that cannot be told. */
static void put_index(struct kithi_request *r, kith *index, const struct kith_stats *s)
{
    char text[2048];
    int n = kith_index_text(index, text, sizeof text);
    kithi_text_str(&r->answer, ",\"index\":");
    if (n < 0) {
        kithi_text_str(&r->answer, "null");
    } else {
        kithi_text_json(&r->answer, text, strlen(text));
    }
    kithi_text_printf(
        &r->answer,
        ",\"index_fields\":%u,\"index_given_up\":%u,\"index_misfits\":%" PRIu64 ",\"index_whole\":%s",
        s->index_fields, s->index_given_up, s->index_misfits, s->index_whole ? "true" : "false");
}

enum kithi_next kithi_rest_describe(struct kithi_request *r)
{
    struct kith_stats s = KITH_STATS_INIT;
    struct kithi_handle *handle;
    if (!kithi_rest_query_end(r) || !kithi_rest_open(r, false, &handle)) {
        return KITHI_DONE;
    }
    int rc = kith_stats(handle->index, &s);
    if (rc == 0) {
        kithi_text_printf(
            &r->answer,
            "{\"name\":\"%s\",\"dim\":%u,\"metric\":\"%s\",\"m\":%u,\"ef_construction\":%u,"
            "\"quantization\":\"%s\",\"quantization_wanted\":\"%s\",\"keep\":\"%s\",\"max_vectors\":%" PRIu64
            ",\"count\":%" PRIu64 ",\"payloads\":%" PRIu64 ",\"writable\":%s",
            r->target.collection, s.dim, name_of(metrics, 3, s.metric - 1), s.m, s.ef_construction,
            name_of(quantizations, 5, s.quantization), name_of(quantizations, 5, s.quantization_wanted),
            name_of(keeps, 3, s.keep), s.slot_max, s.live_count, s.payload_count,
            s.daemon_alive ? "true" : "false");
        put_index(r, handle->index, &s);
        kithi_rest_put_epoch(r, handle->index, s.epoch);
        kithi_text_str(&r->answer, "}\n");
    }
    return kithi_rest_end(r, handle, rc, NULL, NULL);
}

enum kithi_next kithi_rest_alter(struct kithi_request *r)
{
    static const char *const done[] = { "nothing", "settings", "copied" }; /* enum kith_alter_done */
    struct kith_alter_opts opts = KITH_ALTER_OPTS_INIT;
    struct kith_alter_info info = KITH_ALTER_INFO_INIT;
    struct kith_error error = { 0 };
    struct kithi_body_object o;
    struct kithi_handle *handle;
    enum kithi_next next = KITHI_DONE;
    json_t *body = kithi_rest_query_end(r) ? kithi_rest_body(r) : NULL;
    if (!body || !kithi_body_object(&o, body, "", &r->refusal) || !kithi_body_u32(&o, "m", 2, 64, &opts.m) ||
        !kithi_body_u32(&o, "ef_construction", 1, 65536, &opts.ef_construction) ||
        !kithi_body_choice(&o, "quantization", quantizations, 5, &opts.quantization) ||
        !kithi_body_choice(&o, "keep", keeps, 3, &opts.keep) ||
        !kithi_body_u32(&o, "max_vectors", 1, UINT32_MAX, &opts.max_vectors) ||
        !kithi_body_string(&o, "index", &opts.index) || !kithi_body_end(&o)) {
        goto out;
    }
    if (json_object_size(body) == 0) {
        kithi_refuse(
            &r->refusal, 422, "value", NULL,
            "there is nothing to change: m, ef_construction, quantization, keep, max_vectors or index");
        goto out;
    }
    opts.error = &error;
    if (!kithi_rest_open(r, false, &handle)) {
        goto out;
    }
    int rc = kith_alter(handle->index, &opts, &info);
    if (rc >= 0) {
        kithi_text_printf(&r->answer,
                          "{\"done\":\"%s\",\"count\":%" PRIu64 ",\"generation\":%" PRIu64
                          ",\"bytes_before\":%" PRIu64 ",\"bytes_after\":%" PRIu64 ",\"took_ms\":%" PRIu64
                          ",\"held_us\":%" PRIu64,
                          name_of(done, 3, info.done), info.live_count, info.generation, info.bytes_before,
                          info.bytes_after, info.took_ms, info.held_us);
        kithi_rest_put_epoch(r, handle->index, info.epoch);
        kithi_text_str(&r->answer, "}\n");
    }
    next = kithi_rest_end(r, handle, rc, NULL, error.text);
out:
    json_decref(body);
    return next;
}

enum kithi_next kithi_rest_drop(struct kithi_request *r)
{
    struct kith_error error = { 0 };
    if (!kithi_rest_query_end(r)) {
        return KITHI_DONE;
    }
    int rc = kith_drop(r->target.collection, r->gateway->run_dir, &error);
    if (rc == 0) {
        kithi_text_printf(&r->answer, "{\"dropped\":\"%s\"}\n", r->target.collection);
    }
    return kithi_rest_end(r, NULL, rc, NULL, error.text);
}

enum kithi_next kithi_rest_checkpoint(struct kithi_request *r)
{
    struct kith_error error = { 0 };
    struct kithi_body_object o;
    struct kithi_handle *handle;
    uint64_t epoch = 0;
    json_t *body = kithi_rest_query_end(r) ? kithi_rest_body(r) : NULL;
    bool good = body && kithi_body_object(&o, body, "", &r->refusal) && kithi_body_end(&o);
    json_decref(body);
    if (!good || !kithi_rest_open(r, false, &handle)) {
        return KITHI_DONE;
    }
    int rc = kith_checkpoint(handle->index, &epoch, &error);
    if (rc == 0) {
        kithi_text_printf(&r->answer, "{\"checkpoint\":%" PRIu64, epoch);
        kithi_rest_put_epoch(r, handle->index, kith_epoch(handle->index));
        kithi_text_str(&r->answer, "}\n");
    }
    return kithi_rest_end(r, handle, rc, NULL, error.text);
}
