/*
 * rest_metrics.c - GET /metrics: what the gateway counts of itself (metrics.c), and what is known of kithd and its collections.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/gateway/metrics.h"
#include "server/gateway/rest.h"

/* What is known of one collection, gathered before anything is written: a metric's lines stand together. */
struct seen {
    const char *name;
    struct kith_stats stats;
    struct kith_memory memory;
    struct kith_recall recall;
    json_t *daemon; /* NULL: kithd does not answer */
};

static void look(struct kithi_request *r, struct seen *s, bool ask)
{
    struct kithi_handle *handle;
    struct kith_error error;
    char *json = NULL;
    if (kithi_handles_take(r->gateway->handles, s->name, false, &handle, &error) < 0) {
        s->name = NULL; /* dropped meanwhile */
        return;
    }
    s->stats = (struct kith_stats)KITH_STATS_INIT;
    s->memory = (struct kith_memory)KITH_MEMORY_INIT;
    s->recall = (struct kith_recall)KITH_RECALL_INIT;
    int rc = kith_memory(handle->index, &s->memory);
    rc = rc < 0 ? rc : kith_recall_curve(handle->index, &s->recall);
    if (rc >= 0 && ask) {
        rc = kith_stats(handle->index, &s->stats);
        s->daemon = rc == 0 && kith_daemon_stats(handle->index, &json) == 0 ? kithi_body_own(json) : NULL;
        free(json);
    }
    if (rc < 0) {
        s->name = NULL;
    } else if (!ask) {
        s->stats.epoch = kith_epoch(handle->index);
        s->stats.live_count = s->memory.live_count;
    }
    kithi_handles_give(r->gateway->handles, handle, rc == KITH_E_REPLACED);
}

static void head(struct kithi_text *out, const char *name, const char *type, const char *help)
{
    kithi_text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void of_header(struct kithi_text *out, const struct seen *list, int n, const char *name,
                      const char *help, size_t offset)
{
    head(out, name, "gauge", help);
    for (int i = 0; i < n; i++) {
        if (list[i].name) {
            uint64_t value;
            memcpy(&value, (const char *)&list[i].stats + offset, sizeof value);
            kithi_text_printf(out, "%s{collection=\"%s\"} %" PRIu64 "\n", name, list[i].name, value);
        }
    }
}

static void of_daemon(struct kithi_text *out, const struct seen *list, int n, const char *name,
                      const char *type, const char *help, const char *member, double scale)
{
    head(out, name, type, help);
    for (int i = 0; i < n; i++) {
        json_t *value = list[i].name ? json_object_get(list[i].daemon, member) : NULL;
        if (json_is_number(value)) {
            kithi_text_printf(out, "%s{collection=\"%s\"} %.17g\n", name, list[i].name,
                              json_number_value(value) * scale);
        }
    }
}

static void memory_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    head(out, "kith_memory_bytes", "gauge", "Memory of a collection's segment, by region and use.");
    for (int i = 0; i < n; i++) {
        for (unsigned g = 0; list[i].name && g < KITH_MEMORY_REGIONS; g++) {
            const struct kith_memory_region *m = &list[i].memory.regions[g];
            const struct {
                const char *use;
                uint64_t bytes;
            } uses[] = { { "live", m->live },       { "dead", m->dead }, { "resting", m->resting },
                         { "pending", m->pending }, { "free", m->free }, { "slack", m->slack },
                         { "ahead", m->ahead } };
            for (unsigned u = 0; m->name[0] && u < sizeof uses / sizeof uses[0]; u++) {
                kithi_text_printf(
                    out, "kith_memory_bytes{collection=\"%s\",region=\"%s\",use=\"%s\"} %" PRIu64 "\n",
                    list[i].name, m->name, uses[u].use, uses[u].bytes);
            }
        }
    }
}

static void recall_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    static const char *const targets[] = { "0.90", "0.95", "0.99" };
    head(out, "kith_sampled_recall", "gauge",
         "Recall at 10 that sampled vectors found with the ef for a target, as kithd measures it.");
    for (int i = 0; i < n; i++) {
        for (unsigned t = 0; list[i].name && list[i].recall.kept_samples && t < 3; t++) {
            kithi_text_printf(out, "kith_sampled_recall{collection=\"%s\",target=\"%s\"} %.4f\n",
                              list[i].name, targets[t], (double)list[i].recall.kept[t]);
        }
    }
}

static void age_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    head(out, "kith_checkpoint_age_seconds", "gauge", "Since the last checkpoint was finished.");
    for (int i = 0; i < n; i++) {
        json_int_t at =
            list[i].name ? json_integer_value(json_object_get(list[i].daemon, "checkpoint_time")) : 0;
        if (at > 0) {
            kithi_text_printf(out, "kith_checkpoint_age_seconds{collection=\"%s\"} %lld\n", list[i].name,
                              (long long)(time(NULL) - (time_t)at));
        }
    }
}

static void daemon_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    of_header(out, list, n, "kith_vectors", "Vectors that are visible.",
              offsetof(struct kith_stats, live_count));
    of_header(out, list, n, "kith_epoch", "The last visible commit group.",
              offsetof(struct kith_stats, epoch));
    memory_metrics(out, list, n);
    recall_metrics(out, list, n);
    age_metrics(out, list, n);
    static const struct {
        const char *name, *type, *help, *member;
        double scale;
    } figures[] = {
        { "kith_durable_epoch", "gauge", "The last commit group on stable storage.", "durable_epoch", 1 },
        { "kith_dead_vectors", "gauge", "Replaced or deleted, and still linked.", "dead", 1 },
        { "kith_resting_slots", "gauge", "Unlinked, and not yet free.", "resting", 1 },
        { "kith_repair_waiting", "gauge", "Dead vectors that repair has before it.", "repair_waiting", 1 },
        { "kith_repair_oldest_seconds", "gauge", "How long the oldest of them has been dead.",
          "repair_oldest_ms", 1e-3 },
        { "kith_unreachable_vectors", "gauge", "Vectors that the last walk of the whole graph has missed.",
          "unreachable", 1 },
        { "kith_writes_waiting", "gauge", "Writes that were accepted and are not answered.", "waiting", 1 },
        { "kith_writes_total", "counter", "Writes accepted.", "requests", 1 },
        { "kith_writes_refused_total", "counter", "Writes refused.", "refused", 1 },
        { "kith_commit_groups_total", "counter", "Commit groups.", "groups", 1 },
        { "kith_changes_total", "counter", "Changes in them.", "ops", 1 },
        { "kith_group_size", "gauge", "Changes in a group, on the average.", "ops_per_group", 1 },
        { "kith_wal_bytes_total", "counter", "Bytes of changes logged.", "wal_bytes", 1 },
        { "kith_wal_flushes_total", "counter", "Writes of the log, each with one flush.", "wal_writes", 1 },
        { "kith_wal_unlogged_groups", "gauge", "Groups that the log has not made durable.", "unlogged_groups",
          1 },
        { "kith_wal_flush_seconds", "gauge", "How long the last flush took.", "sync_us_last", 1e-6 },
        { "kith_checkpoints_total", "counter", "Checkpoints written.", "checkpoints", 1 },
        { "kith_checkpoint_failures_total", "counter", "Checkpoints that failed.", "checkpoint_failures", 1 },
        { "kith_checkpoint_bytes", "gauge", "Size of the last one.", "checkpoint_bytes", 1 },
        { "kith_checkpoint_log_bytes", "gauge", "Bytes of changes logged since it.", "checkpoint_log_bytes",
          1 },
        { "kith_clients", "gauge", "Open connections of kithd.", "clients", 1 },
    };
    for (unsigned i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        of_daemon(out, list, n, figures[i].name, figures[i].type, figures[i].help, figures[i].member,
                  figures[i].scale);
    }
}

enum kithi_next kithi_rest_metrics(struct kithi_request *r)
{
    struct kith_error error = { 0 };
    char *json = NULL, *names = NULL;
    bool writable = false;
    if (!kithi_rest_query_end(r)) {
        return KITHI_DONE;
    }
    r->type = "text/plain; version=0.0.4; charset=utf-8";
    kithi_metrics_write(r->gateway, &r->answer);
    int rc = kith_readiness(NULL, r->gateway->run_dir, &json, &error);
    free(json);
    writable = rc >= 0;
    head(&r->answer, "kith_up", "gauge", "1: kithd answers.");
    kithi_text_printf(&r->answer, "kith_up %d\n", writable);
    /* A kithd that hangs would be waited for once for each collection: then there are the figures of the gateway alone. */
    int n = rc == KITH_E_TIMEOUT ? 0 : kith_list(r->gateway->run_dir, &names, &error);
    struct seen *list = n > 0 ? calloc((size_t)n, sizeof *list) : NULL;
    const char *name = names;
    for (int i = 0; list && i < n; i++, name += strlen(name) + 1) {
        list[i].name = name;
        look(r, &list[i], writable);
    }
    if (list) {
        daemon_metrics(&r->answer, list, n);
    }
    for (int i = 0; list && i < n; i++) {
        json_decref(list[i].daemon);
    }
    free(list);
    free(names);
    return KITHI_DONE;
}
