/*
 * rpc_admin.c - collections, health, and reflection.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/grpc/reflection.h"
#include "server/gateway/grpc/rpc.h"
#include "server/gateway/keys.h"

struct create {
    struct kithi_part collection;
    uint64_t dim, m, ef_construction, max_vectors;
    int32_t metric, quantization, keep;
    bool fixed;
};
#define AT(member) offsetof(struct create, member)

enum kithi_next kithi_rpc_create(struct kithi_request *r)
{
    static const struct kithi_wire_member members[] = {
        { 1, KITHI_WIRE_STRING, AT(collection), "collection" },
        { 2, KITHI_WIRE_UINT64, AT(dim), "dim" },
        { 3, KITHI_WIRE_INT32, AT(metric), "metric" },
        { 4, KITHI_WIRE_UINT64, AT(m), "m" },
        { 5, KITHI_WIRE_UINT64, AT(ef_construction), "ef_construction" },
        { 6, KITHI_WIRE_INT32, AT(quantization), "quantization" },
        { 7, KITHI_WIRE_INT32, AT(keep), "keep" },
        { 8, KITHI_WIRE_UINT64, AT(max_vectors), "max_vectors" },
        { 9, KITHI_WIRE_BOOL, AT(fixed), "fixed" },
    };
    /* By Quantization of vectordb.proto, whose default is auto. */
    static const enum kith_quantization quantizations[] = { KITH_QUANTIZATION_AUTO, KITH_QUANTIZATION_NONE,
                                                            KITH_QUANTIZATION_F16, KITH_QUANTIZATION_SQ8,
                                                            KITH_QUANTIZATION_BITS };
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    struct kith_error error = { 0 };
    struct create c = { .dim = 0 };
    if (!kithi_rpc_read(r, members, 9, &c) || !kithi_rpc_collection(r, c.collection) ||
        !kithi_rpc_range(&r->refusal, "", "dim", c.dim, 1, 4096, &opts.dim) ||
        !kithi_rpc_range(&r->refusal, "", "m", c.m, 2, 64, &opts.m) ||
        !kithi_rpc_range(&r->refusal, "", "ef_construction", c.ef_construction, 1, 65536,
                         &opts.ef_construction) ||
        !kithi_rpc_range(&r->refusal, "", "max_vectors", c.max_vectors, 1, UINT32_MAX, &opts.max_vectors) ||
        !kithi_rpc_choice(&r->refusal, "", "metric", c.metric, KITH_METRIC_IP + 1) ||
        !kithi_rpc_choice(&r->refusal, "", "quantization", c.quantization, 5) ||
        !kithi_rpc_choice(&r->refusal, "", "keep", c.keep, KITH_KEEP_NONE + 1)) {
        return KITHI_DONE;
    }
    if (opts.dim == 0 || c.metric == 0) {
        kithi_refuse(&r->refusal, 422, "value", opts.dim ? "metric" : "dim",
                     "a collection has dim, 1 to 4096, and a metric");
        return KITHI_DONE;
    }
    opts.metric = (uint32_t)c.metric;
    opts.quantization = quantizations[c.quantization];
    opts.keep = (uint32_t)c.keep;
    opts.fixed = c.fixed;
    opts.run_dir = r->gateway->run_dir;
    opts.error = &error;
    int rc = kith_create(r->target.collection, &opts);
    return kithi_rest_end(r, NULL, rc, NULL, error.text);
}

static const struct kithi_wire_member name_alone[] = { { 1, KITHI_WIRE_STRING, 0, "collection" } };

enum kithi_next kithi_rpc_drop(struct kithi_request *r)
{
    struct kithi_part name = { NULL, 0 };
    struct kith_error error = { 0 };
    if (!kithi_rpc_read(r, name_alone, 1, &name) || !kithi_rpc_collection(r, name)) {
        return KITHI_DONE;
    }
    int rc = kith_drop(r->target.collection, r->gateway->run_dir, &error);
    return kithi_rest_end(r, NULL, rc, NULL, error.text);
}

enum kithi_next kithi_rpc_list(struct kithi_request *r)
{
    struct kith_error error = { 0 };
    char *names = NULL;
    if (!kithi_rpc_read(r, NULL, 0, NULL)) {
        return KITHI_DONE;
    }
    int n = kith_list(r->gateway->run_dir, &names, &error);
    if (n < 0) {
        kithi_refuse_kith(&r->refusal, n, NULL, error.text);
        return KITHI_DONE;
    }
    for (const char *name = names; n > 0; n--, name += strlen(name) + 1) {
        if (!r->key || kithi_key_allows(r->key, name, false)) {
            kithi_wire_put_string(&r->answer, 1, name);
        }
    }
    free(names);
    return KITHI_DONE;
}

enum kithi_next kithi_rpc_stats(struct kithi_request *r)
{
    struct kithi_part name = { NULL, 0 };
    struct kith_stats s = KITH_STATS_INIT;
    struct kithi_handle *handle;
    if (!kithi_rpc_read(r, name_alone, 1, &name) || !kithi_rpc_collection(r, name) ||
        !kithi_rest_open(r, false, &handle)) {
        return KITHI_DONE;
    }
    int rc = kith_stats(handle->index, &s);
    if (rc == 0) {
        const uint64_t values[] = { s.dim,        s.metric,   s.live_count,    s.payload_count,
                                    s.epoch,      s.timeline, s.durable_epoch, s.bytes_taken,
                                    s.dead_count, s.slot_max, s.daemon_alive };
        for (uint32_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            kithi_wire_put_uint(&r->answer, i + 1, values[i]);
        }
    }
    return kithi_rest_end(r, handle, rc, NULL, NULL);
}

enum kithi_next kithi_rpc_check(struct kithi_request *r)
{
    static const struct kithi_wire_member members[] = { { 1, KITHI_WIRE_STRING, 0, "service" } };
    struct kithi_part service = { NULL, 0 };
    if (!kithi_rpc_read(r, members, 1, &service)) {
        return KITHI_DONE;
    }
    if (service.len && !kithi_reflection_is_service(service)) {
        kithi_refuse(&r->refusal, 404, "service", "service", "there is no such service");
        return KITHI_DONE;
    }
    bool draining =
        atomic_load_explicit(&r->gateway->draining, memory_order_relaxed); /* a word, nothing more */
    kithi_wire_put_uint(&r->answer, 1, draining ? 2 : 1);                  /* NOT_SERVING, SERVING */
    return KITHI_DONE;
}

enum kithi_next kithi_rpc_reflect(struct kithi_request *r)
{
    if (kithi_rpc_read(r, NULL, 0, NULL)) {
        kithi_reflection_answer(kithi_rpc_message(r), &r->answer, &r->refusal);
    }
    return KITHI_DONE;
}
