/*
 * rest_metrics.c - GET /metrics: what the gateway counts of itself (metrics.c), and what is known of kithd and its collections.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/gateway/metrics.h"
#include "server/gateway/rest.h"

/* What is known of one collection, gathered before anything is written: a metric's lines stand together. */
struct seen {
    const char *name;
    struct kith_stats stats; /* with daemon; else only epoch and live_count */
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

/* ---- from the segment ---------------------------------------------------------------- */

static void header_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    static const struct {
        const char *name, *help;
        size_t offset;
        bool asked; /* known only when kithd was asked */
    } figures[] = {
        { "kith_vectors", "Vectors that are visible.", offsetof(struct kith_stats, live_count), false },
        { "kith_vectors_max", "Places that the collection may have.", offsetof(struct kith_stats, slot_max),
          true },
        { "kith_slots", "Places that were ever used.", offsetof(struct kith_stats, slot_count), true },
        { "kith_epoch", "The last visible commit group.", offsetof(struct kith_stats, epoch), false },
        { "kith_generation", "How often the segment was made anew.", offsetof(struct kith_stats, generation),
          true },
        { "kith_payloads", "Vectors that have a payload.", offsetof(struct kith_stats, payload_count), true },
        { "kith_payload_bytes", "Payloads, as they are kept.", offsetof(struct kith_stats, payload_bytes),
          true },
        { "kith_huge_page_bytes", "Memory that huge pages back.", offsetof(struct kith_stats, huge_bytes),
          true },
        { "kith_huge_page_wanted_bytes", "Memory that they could back.",
          offsetof(struct kith_stats, huge_wanted_bytes), true },
    };
    for (unsigned f = 0; f < sizeof figures / sizeof figures[0]; f++) {
        head(out, figures[f].name, "gauge", figures[f].help);
        for (int i = 0; i < n; i++) {
            if (list[i].name && (list[i].daemon || !figures[f].asked)) {
                uint64_t value;
                memcpy(&value, (const char *)&list[i].stats + figures[f].offset, sizeof value);
                kithi_text_printf(out, "%s{collection=\"%s\"} %" PRIu64 "\n", figures[f].name, list[i].name,
                                  value);
            }
        }
    }
}

static void memory_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    head(out, "kith_segment_bytes", "gauge",
         "Memory of a collection's files: the segment, the next one while it is built, the one before.");
    for (int i = 0; i < n; i++) {
        if (list[i].name) {
            kithi_text_printf(out,
                              "kith_segment_bytes{collection=\"%s\",generation=\"current\"} %" PRIu64 "\n"
                              "kith_segment_bytes{collection=\"%s\",generation=\"next\"} %" PRIu64 "\n"
                              "kith_segment_bytes{collection=\"%s\",generation=\"old\"} %" PRIu64 "\n",
                              list[i].name, list[i].memory.file_bytes, list[i].name,
                              list[i].memory.next_bytes, list[i].name, list[i].memory.old_bytes);
        }
    }
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

/* Between two points of the curve; beyond its end what the last one has. False: the curve says nothing of this ef. */
static bool recall_at(const struct kith_recall *curve, uint32_t ef, struct kith_recall_point *out)
{
    uint32_t n = curve->point_count < KITH_RECALL_POINTS ? curve->point_count : KITH_RECALL_POINTS, i = 0;
    while (i < n && curve->points[i].ef < ef) {
        i++;
    }
    if (n == 0 || (i == 0 && curve->points[0].ef > ef)) {
        return false;
    }
    *out = curve->points[i < n ? i : n - 1];
    if (i > 0 && i < n) {
        const struct kith_recall_point *a = &curve->points[i - 1];
        float share = (float)(ef - a->ef) / (float)(out->ef - a->ef);
        out->recall = a->recall + (out->recall - a->recall) * share;
        out->low = a->low + (out->low - a->low) * share;
        out->high = a->high + (out->high - a->high) * share;
    }
    return true;
}

static void recall_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    static const char *const targets[] = { "0.90", "0.95", "0.99" };
    static const struct {
        const char *name, *help;
        size_t offset;
    } figures[] = {
        { "kith_default_ef_recall", "Recall at 10 with ef 100, by the sampled curve.",
          offsetof(struct kith_recall_point, recall) },
        { "kith_default_ef_recall_low", "Where its 95 % interval begins.",
          offsetof(struct kith_recall_point, low) },
        { "kith_default_ef_recall_high", "Where its 95 % interval ends.",
          offsetof(struct kith_recall_point, high) },
    };
    head(out, "kith_sampled_recall", "gauge",
         "Recall at 10 that sampled vectors found with the ef for a target, as kithd measures it.");
    for (int i = 0; i < n; i++) {
        for (unsigned t = 0; list[i].name && list[i].recall.kept_samples && t < 3; t++) {
            kithi_text_printf(out, "kith_sampled_recall{collection=\"%s\",target=\"%s\"} %.4f\n",
                              list[i].name, targets[t], (double)list[i].recall.kept[t]);
        }
    }
    for (unsigned f = 0; f < sizeof figures / sizeof figures[0]; f++) {
        head(out, figures[f].name, "gauge", figures[f].help);
        for (int i = 0; i < n; i++) {
            struct kith_recall_point point;
            if (list[i].name && recall_at(&list[i].recall, 100, &point)) {
                float value;
                memcpy(&value, (const char *)&point + figures[f].offset, sizeof value);
                kithi_text_printf(out, "%s{collection=\"%s\"} %.4f\n", figures[f].name, list[i].name,
                                  (double)value);
            }
        }
    }
    head(out, "kith_recall_samples", "gauge", "Vectors that the curve of recall rests on.");
    for (int i = 0; i < n; i++) {
        if (list[i].name) {
            kithi_text_printf(out, "kith_recall_samples{collection=\"%s\"} %" PRIu64 "\n", list[i].name,
                              list[i].recall.samples);
        }
    }
}

/* ---- from kithd ---------------------------------------------------------------------- */

/* A member, or one of a member that is an object: "readers.alive". NULL without. */
static json_t *member(json_t *object, const char *path)
{
    const char *dot = strchr(path, '.');
    char first[32];
    if (!dot) {
        return json_object_get(object, path);
    }
    snprintf(first, sizeof first, "%.*s", (int)(dot - path), path);
    return json_object_get(json_object_get(object, first), dot + 1);
}

/* True and false are 1 and 0. */
static bool number(json_t *value, double *out)
{
    *out = json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
    return json_is_boolean(value) || json_is_number(value);
}

static void age_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    head(out, "kith_checkpoint_age_seconds", "gauge", "Since the last checkpoint was finished.");
    for (int i = 0; i < n; i++) {
        json_int_t at = list[i].name ? json_integer_value(member(list[i].daemon, "checkpoint_time")) : 0;
        if (at > 0) {
            kithi_text_printf(out, "kith_checkpoint_age_seconds{collection=\"%s\"} %lld\n", list[i].name,
                              (long long)(time(NULL) - (time_t)at));
        }
    }
}

/* Element i of the array counts those that took less than 2^i microseconds, and not less than half of it. */
static void flush_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    const char *name = "kith_wal_flush_seconds";
    head(out, name, "histogram", "How long it took to make a commit group durable.");
    for (int i = 0; i < n; i++) {
        json_t *counts = list[i].name ? member(list[i].daemon, "sync_us_below_pow2") : NULL;
        size_t buckets = json_array_size(counts);
        uint64_t count = 0;
        for (size_t b = 0; b < buckets; b++) {
            count += (uint64_t)json_integer_value(json_array_get(counts, b));
            if (b >= 5 &&
                b + 1 < buckets) { /* the last has what is longer, too; below 32 us nothing is told apart */
                kithi_text_printf(out, "%s_bucket{collection=\"%s\",le=\"%g\"} %" PRIu64 "\n", name,
                                  list[i].name, (double)(UINT64_C(1) << b) / 1e6, count);
            }
        }
        if (buckets) {
            kithi_text_printf(
                out, "%s_bucket{collection=\"%s\",le=\"+Inf\"} %" PRIu64 "\n%s_sum{collection=\"%s\"} %.6f\n",
                name, list[i].name, count, name, list[i].name,
                json_number_value(member(list[i].daemon, "sync_us_sum")) / 1e6);
            kithi_text_printf(out, "%s_count{collection=\"%s\"} %" PRIu64 "\n", name, list[i].name, count);
        }
    }
}

/* Pairs of nanoseconds and a count, of searches that took that or up to a sixteenth more: each goes where all of it belongs, and the sum is
 * that of their middles. */
static void search_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    static const double bounds_us[] = {
        10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 1e6
    };
    const char *name = "kith_search_seconds";
    head(out, name, "histogram",
         "Searches of all programs, those that readers time (one in four); the sum is exact to 1/32.");
    for (int i = 0; i < n; i++) {
        json_t *pairs = list[i].name ? member(list[i].daemon, "readers.latency_ns") : NULL;
        size_t at = 0, all = json_array_size(pairs);
        uint64_t count = 0;
        double sum_ns = 0;
        if (!pairs) {
            continue;
        }
        for (unsigned b = 0; b <= sizeof bounds_us / sizeof bounds_us[0]; b++) {
            bool last = b == sizeof bounds_us / sizeof bounds_us[0];
            for (; at < all; at++) { /* they rise */
                json_t *pair = json_array_get(pairs, at);
                double from_ns = json_number_value(json_array_get(pair, 0));
                uint64_t times = (uint64_t)json_integer_value(json_array_get(pair, 1));
                if (!last && from_ns * 17 / 16 > bounds_us[b] * 1e3) {
                    break;
                }
                count += times;
                sum_ns += from_ns * 33 / 32 * (double)times;
            }
            if (!last) {
                kithi_text_printf(out, "%s_bucket{collection=\"%s\",le=\"%g\"} %" PRIu64 "\n", name,
                                  list[i].name, bounds_us[b] / 1e6, count);
            }
        }
        kithi_text_printf(out,
                          "%s_bucket{collection=\"%s\",le=\"+Inf\"} %" PRIu64
                          "\n%s_sum{collection=\"%s\"} %.9f\n%s_count{collection=\"%s\"} %" PRIu64 "\n",
                          name, list[i].name, count, name, list[i].name, sum_ns / 1e9, name, list[i].name,
                          count);
    }
}

static void figure_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    static const struct {
        const char *name, *type, *help, *member;
        double scale;
    } figures[] = {
        { "kith_durable_epoch", "gauge", "The last commit group on stable storage.", "durable_epoch", 1 },
        { "kith_dead_vectors", "gauge", "Replaced or deleted, and still linked.", "dead", 1 },
        { "kith_resting_slots", "gauge", "Unlinked, and not yet free.", "resting", 1 },
        { "kith_free_slots", "gauge", "Places that are used again before new ones are.", "free", 1 },
        { "kith_repair_waiting", "gauge", "Dead vectors that repair has before it.", "repair_waiting", 1 },
        { "kith_repair_running", "gauge", "Dead vectors that are being unlinked.", "repair_running", 1 },
        { "kith_repair_oldest_seconds", "gauge", "How long the oldest of both has been dead.",
          "repair_oldest_ms", 1e-3 },
        { "kith_repaired_total", "counter", "Dead vectors unlinked.", "repaired", 1 },
        { "kith_repair_seconds_total", "counter", "Time of the passes that did.", "repair_ms", 1e-3 },
        { "kith_unreachable_vectors", "gauge", "Vectors that the last walk of the whole graph has missed.",
          "unreachable", 1 },
        { "kith_audits_total", "counter", "Walks of the whole graph.", "audits", 1 },
        { "kith_relinked_total", "counter", "Unreachable vectors that were linked anew.", "relinked", 1 },
        { "kith_audit_samples_total", "counter", "Vectors drawn by chance and looked for.", "samples", 1 },
        { "kith_audit_samples_missed_total", "counter", "Those of them that were not found.",
          "samples_missed", 1 },
        { "kith_writes_waiting", "gauge", "Writes that were accepted and are not answered.", "waiting", 1 },
        { "kith_writes_total", "counter", "Writes accepted.", "requests", 1 },
        { "kith_writes_refused_total", "counter", "Writes refused.", "refused", 1 },
        { "kith_commit_groups_total", "counter", "Commit groups.", "groups", 1 },
        { "kith_changes_total", "counter", "Changes in them.", "ops", 1 },
        { "kith_change_bytes_total", "counter", "Bytes of these.", "op_bytes", 1 },
        { "kith_group_size", "gauge", "Changes in a group, on the average since the start.", "ops_per_group",
          1 },
        { "kith_wal_bytes_total", "counter", "Bytes of changes logged.", "wal_bytes", 1 },
        { "kith_wal_groups_total", "counter", "Groups logged.", "wal_groups", 1 },
        { "kith_wal_flushes_total", "counter", "Writes of the log, each with one flush.", "wal_writes", 1 },
        { "kith_wal_files_total", "counter", "Files of the log begun.", "wal_files", 1 },
        { "kith_wal_unlogged_groups", "gauge", "Groups that the log has not made durable.", "unlogged_groups",
          1 },
        { "kith_wal_flush_max_seconds", "gauge", "The longest flush since the start.", "sync_us_max", 1e-6 },
        { "kith_checkpoints_total", "counter", "Checkpoints written.", "checkpoints", 1 },
        { "kith_checkpoint_failures_total", "counter", "Checkpoints that failed.", "checkpoint_failures", 1 },
        { "kith_checkpoint_running", "gauge", "1: one is being written.", "checkpoint_running", 1 },
        { "kith_checkpoint_epoch", "gauge", "The epoch of the last one.", "checkpoint_epoch", 1 },
        { "kith_checkpoint_bytes", "gauge", "Size of the last one.", "checkpoint_bytes", 1 },
        { "kith_checkpoint_seconds", "gauge", "How long the last one took.", "checkpoint_ms", 1e-3 },
        { "kith_checkpoint_log_bytes", "gauge", "Bytes of changes logged since it.", "checkpoint_log_bytes",
          1 },
        { "kith_growths_total", "counter", "Times that the segment grew.", "growth.count", 1 },
        { "kith_growth_failures_total", "counter", "Times that it could not.", "growth.failures", 1 },
        { "kith_growth_running", "gauge", "1: it is growing.", "growth.running", 1 },
        { "kith_relayouts_total", "counter", "Times that it was made anew in another layout or order.",
          "relayout.count", 1 },
        { "kith_relayout_failures_total", "counter", "Times that this failed.", "relayout.failures", 1 },
        { "kith_recall_measured_total", "counter", "Vectors that recall was measured with.", "recall.taken",
          1 },
        { "kith_recall_cpu_seconds_total", "counter", "CPU time of that.", "recall.cpu_ms", 1e-3 },
        { "kith_readers", "gauge", "Handles of programs that are open and count.", "readers.alive", 1 },
        { "kith_searches_total", "counter", "Searches of all programs.", "readers.searches", 1 },
        { "kith_search_failures_total", "counter", "Those that failed and not by their caller's fault.",
          "readers.failures", 1 },
        { "kith_search_restarts_total", "counter", "Snapshots that were begun again.", "readers.restarts",
          1 },
        { "kith_search_expansions_total", "counter", "Rows of the graph read by them.", "readers.expansions",
          1 },
    };
    for (unsigned f = 0; f < sizeof figures / sizeof figures[0]; f++) {
        head(out, figures[f].name, figures[f].type, figures[f].help);
        for (int i = 0; i < n; i++) {
            double value;
            if (list[i].name && number(member(list[i].daemon, figures[f].member), &value)) {
                kithi_text_printf(out, "%s{collection=\"%s\"} %.15g\n", figures[f].name, list[i].name,
                                  value * figures[f].scale);
            }
        }
    }
}

/* What all collections say of one kithd. */
static void process_metrics(struct kithi_text *out, const struct seen *list, int n)
{
    static const struct {
        const char *name, *help, *member;
        double scale;
    } figures[] = {
        { "kith_clients", "Open connections of kithd.", "clients", 1 },
        { "kith_workers", "Worker threads of kithd.", "workers", 1 },
        { "kith_uptime_seconds", "Since kithd started.", "up_ms", 1e-3 },
    };
    json_t *daemon = NULL;
    for (int i = 0; i < n; i++) {
        daemon = list[i].name && list[i].daemon ? list[i].daemon : daemon;
    }
    const char *version = json_string_value(member(daemon, "version"));
    head(out, "kith_build_info", "gauge", "1; the label is the version of kithd.");
    if (version && strspn(version, "0123456789abcdefghijklmnopqrstuvwxyz.+-~") == strlen(version)) {
        kithi_text_printf(out, "kith_build_info{version=\"%s\"} 1\n", version);
    }
    for (unsigned f = 0; f < sizeof figures / sizeof figures[0]; f++) {
        double value;
        head(out, figures[f].name, "gauge", figures[f].help);
        if (number(member(daemon, figures[f].member), &value)) {
            kithi_text_printf(out, "%s %.15g\n", figures[f].name, value * figures[f].scale);
        }
    }
}

static void collections_metrics(struct kithi_text *out, const json_t *readiness)
{
    static const char *const states[] = { "served", "coming", "refused" };
    head(out, "kith_collections", "gauge",
         "Collections of kithd: served, still coming back after a start, or not to be brought back.");
    for (unsigned i = 0; readiness && i < 3; i++) {
        kithi_text_printf(out, "kith_collections{state=\"%s\"} %lld\n", states[i],
                          (long long)json_integer_value(json_object_get(readiness, states[i])));
    }
}

static void daemon_metrics(struct kithi_request *r)
{
    struct kithi_text *out = &r->answer;
    struct kith_error error = { 0 };
    char *json = NULL, *names = NULL;
    int rc = kith_readiness(NULL, r->gateway->run_dir, &json, &error);
    json_t *readiness = rc >= 0 && json ? kithi_body_own(json) : NULL;
    free(json);
    head(out, "kith_up", "gauge", "1: kithd answers.");
    kithi_text_printf(out, "kith_up %d\n", rc >= 0);
    collections_metrics(out, readiness);
    json_decref(readiness);
    /* A kithd that hangs would be waited for once for each collection: then there are the figures of the gateway alone. */
    int n = rc == KITH_E_TIMEOUT ? 0 : kith_list(r->gateway->run_dir, &names, &error);
    struct seen *list = n > 0 ? calloc((size_t)n, sizeof *list) : NULL;
    const char *name = names;
    for (int i = 0; list && i < n; i++, name += strlen(name) + 1) {
        list[i].name = name;
        look(r, &list[i], rc >= 0);
    }
    if (list) {
        process_metrics(out, list, n);
        header_metrics(out, list, n);
        memory_metrics(out, list, n);
        recall_metrics(out, list, n);
        age_metrics(out, list, n);
        flush_metrics(out, list, n);
        search_metrics(out, list, n);
        figure_metrics(out, list, n);
    }
    for (int i = 0; list && i < n; i++) {
        json_decref(list[i].daemon);
    }
    free(list);
    free(names);
}

enum kithi_next kithi_rest_metrics(struct kithi_request *r)
{
    const char *of = kithi_query_get(&r->query, "of");
    if (of && strcmp(of, "all") != 0 && strcmp(of, "gateway") != 0) {
        kithi_refuse(&r->refusal, 400, "query", "of", "the parameter of is all or gateway");
    }
    if (r->refusal.status || !kithi_rest_query_end(r)) {
        return KITHI_DONE;
    }
    r->type = "text/plain; version=0.0.4; charset=utf-8";
    kithi_metrics_write(r->gateway, &r->answer);
    if (!of || !strcmp(of, "all")) {
        daemon_metrics(r); /* asks kithd once for each collection */
    }
    return KITHI_DONE;
}
