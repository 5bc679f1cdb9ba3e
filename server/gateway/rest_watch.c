/*
 * rest_watch.c - health and statistics.
 *
 * Searches need no daemon, and so /readyz and /health are good while collections can be searched: `writable` says whether kithd is
 * there. /livez says that this process answers, and asks nobody.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/rest.h"

enum kithi_next kithi_rest_livez(struct kithi_request *r)
{
    if (kithi_rest_query_end(r)) {
        kithi_text_str(&r->answer, "{\"status\":\"ok\"}\n");
    }
    return KITHI_DONE;
}

/*
 * kithd's word of itself; *out_daemon NULL without, else to be freed by json_decref(). *out_writable: it answers, and no collection is still
 * coming back after a start. 0, or why collections cannot even be searched.
 */
static int readiness(struct kithi_request *r, json_t **out_daemon, bool *out_writable,
                     struct kith_error *error)
{
    char *json = NULL, *names = NULL;
    int rc = kith_readiness(NULL, r->gateway->run_dir, &json, error);
    *out_daemon = rc >= 0 && json ? kithi_body_own(json) : NULL;
    *out_writable = *out_daemon && json_integer_value(json_object_get(*out_daemon, "coming")) == 0;
    free(json);
    if (rc != KITH_E_NO_DAEMON) {
        return rc == KITH_E_RUN_DIR ? rc : 0;
    }
    rc = kith_list(r->gateway->run_dir, &names, error); /* without a daemon: by the run directory */
    free(names);
    return rc < 0 ? rc : 0;
}

static enum kithi_next health(struct kithi_request *r, bool whole)
{
    struct kith_error error = { 0 };
    json_t *daemon = NULL;
    bool writable = false;
    if (!kithi_rest_query_end(r)) {
        return KITHI_DONE;
    }
    int rc = readiness(r, &daemon, &writable, &error);
    bool draining = atomic_load_explicit(&r->gateway->draining, memory_order_relaxed);
    r->status = rc < 0 || draining ? 503 : 200;
    kithi_text_printf(&r->answer, "{\"status\":\"%s\",\"searchable\":%s,\"writable\":%s",
                      rc < 0     ? "unavailable"
                      : draining ? "stopping"
                      : writable ? "ok"
                                 : "read_only",
                      rc < 0 ? "false" : "true", rc == 0 && writable ? "true" : "false");
    if (rc < 0) {
        const char *why = error.text[0] ? error.text : kith_strerror(rc);
        kithi_text_str(&r->answer, ",\"message\":");
        kithi_text_json(&r->answer, why, strlen(why));
    }
    if (whole) {
        /* Numbers alone: names of collections are for those who hold a key. */
        kithi_text_printf(&r->answer, ",\"version\":\"%s\"", r->gateway->version);
        if (daemon) {
            kithi_text_printf(&r->answer,
                              ",\"collections\":{\"served\":%lld,\"coming\":%lld,\"refused\":%lld}",
                              (long long)json_integer_value(json_object_get(daemon, "served")),
                              (long long)json_integer_value(json_object_get(daemon, "coming")),
                              (long long)json_integer_value(json_object_get(daemon, "refused")));
        }
    }
    kithi_text_str(&r->answer, "}\n");
    json_decref(daemon);
    return KITHI_DONE;
}

enum kithi_next kithi_rest_readyz(struct kithi_request *r)
{
    return health(r, false);
}

enum kithi_next kithi_rest_health(struct kithi_request *r)
{
    return health(r, true);
}

static void put_memory(struct kithi_request *r, const struct kith_memory *m)
{
    kithi_text_printf(&r->answer,
                      ",\"memory\":{\"file_bytes\":%" PRIu64 ",\"next_bytes\":%" PRIu64
                      ",\"old_bytes\":%" PRIu64 ",\"regions\":[",
                      m->file_bytes, m->next_bytes, m->old_bytes);
    for (unsigned i = 0, n = 0; i < KITH_MEMORY_REGIONS; i++) {
        const struct kith_memory_region *g = &m->regions[i];
        if (!g->name[0]) {
            continue;
        }
        kithi_text_printf(&r->answer,
                          "%s{\"name\":\"%s\",\"taken\":%" PRIu64 ",\"live\":%" PRIu64 ",\"dead\":%" PRIu64
                          ",\"resting\":%" PRIu64 ",\"pending\":%" PRIu64 ",\"free\":%" PRIu64
                          ",\"slack\":%" PRIu64 ",\"ahead\":%" PRIu64 "}",
                          n++ ? "," : "", g->name, g->taken, g->live, g->dead, g->resting, g->pending,
                          g->free, g->slack, g->ahead);
    }
    kithi_text_str(&r->answer, "]}");
}

enum kithi_next kithi_rest_stats(struct kithi_request *r)
{
    struct kith_stats s = KITH_STATS_INIT;
    struct kith_memory m = KITH_MEMORY_INIT;
    struct kith_recall curve = KITH_RECALL_INIT;
    struct kithi_handle *handle;
    char *json = NULL;
    if (!kithi_rest_query_end(r) || !kithi_rest_open(r, false, &handle)) {
        return KITHI_DONE;
    }
    int rc = kith_stats(handle->index, &s);
    rc = rc < 0 ? rc : kith_memory(handle->index, &m);
    rc = rc < 0 ? rc : kith_recall_curve(handle->index, &curve);
    if (rc >= 0) {
        kithi_text_printf(&r->answer,
                          "{\"name\":\"%s\",\"live\":%" PRIu64 ",\"dead\":%" PRIu64 ",\"resting\":%" PRIu64
                          ",\"free\":%" PRIu64 ",\"slots\":%" PRIu64 ",\"slot_max\":%" PRIu64
                          ",\"payloads\":%" PRIu64 ",\"payload_bytes\":%" PRIu64 ",\"generation\":%" PRIu64
                          ",\"levels\":%u,\"durable_epoch\":%" PRIu64 ",\"writable\":%s",
                          r->target.collection, s.live_count, s.dead_count, s.resting_count, s.free_count,
                          s.slot_count, s.slot_max, s.payload_count, s.payload_bytes, s.generation,
                          s.level_max, s.durable_epoch, s.daemon_alive ? "true" : "false");
        kithi_rest_put_epoch(r, handle->index, s.epoch);
        put_memory(r, &m);
        kithi_text_printf(&r->answer, ",\"recall\":{\"k\":%u,\"samples\":%" PRIu64 ",\"points\":[", curve.k,
                          curve.samples);
        for (uint32_t i = 0; i < curve.point_count && i < KITH_RECALL_POINTS; i++) {
            const struct kith_recall_point *p = &curve.points[i];
            kithi_text_printf(&r->answer, "%s{\"ef\":%u,\"recall\":%.4f,\"low\":%.4f,\"high\":%.4f}",
                              i ? "," : "", p->ef, (double)p->recall, (double)p->low, (double)p->high);
        }
        kithi_text_str(&r->answer, "]},\"daemon\":");
        /* Without kithd there is nothing here, and everything above. */
        kithi_text_str(&r->answer,
                       s.daemon_alive && kith_daemon_stats(handle->index, &json) == 0 ? json : "null");
        kithi_text_str(&r->answer, "}\n");
        free(json);
    }
    return kithi_rest_end(r, handle, rc, NULL, NULL);
}
