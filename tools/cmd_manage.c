/*
 * cmd_manage.c - create, drop, list, stats, count, checkpoint, restore: collections as a whole.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/json.h"
#include "shm/postings/declared.h"
#include "tools/args.h"
#include "tools/memory.h"
#include "tools/out.h"
#include "tools/ready.h"

int kithi_cmd_create(struct kithi_tool *t, int argc, char **argv)
{
    uint32_t dim = 0, m = KITHI_M_DEFAULT, ef = KITHI_EF_CONSTRUCTION_DEFAULT, max = KITHI_SLOT_MAX_DEFAULT;
    const char *metric = NULL, *quantization = "auto", *keep = "f32", *fields = "auto";
    bool fixed = false;
    const struct kithi_arg args[] = {
        { "--dim", KITHI_ARG_NUMBER, &dim, 1, KITHI_DIM_MAX },
        { "--metric", KITHI_ARG_STRING, &metric, 0, 0 },
        { "--m", KITHI_ARG_NUMBER, &m, KITHI_M_MIN, KITHI_M_MAX },
        { "--ef-construction", KITHI_ARG_NUMBER, &ef, 1, KITHI_EF_CONSTRUCTION_MAX },
        { "--quantization", KITHI_ARG_STRING, &quantization, 0, 0 },
        { "--keep", KITHI_ARG_STRING, &keep, 0, 0 },
        { "--max-vectors", KITHI_ARG_NUMBER, &max, 1, KITHI_SLOT_MAX_LIMIT },
        { "--fixed", KITHI_ARG_FLAG, &fixed, 0, 0 },
        { "--index", KITHI_ARG_STRING, &fields, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    if (dim == 0)
        return kithi_tool_usage(t, "--dim is missing: how many dimensions have the vectors?");
    if (metric == NULL)
        return kithi_tool_usage(t, "--metric is missing: l2, cosine or ip");
    if (kithi_tool_metric(metric) == 0)
        return kithi_tool_usage(t, "--metric is l2, cosine or ip, not \"%s\"", metric);
    struct kith_error error = { 0 };
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    if (!kithi_tool_quantization(quantization, &opts.quantization))
        return kithi_tool_usage(t, "--quantization is none, f16, sq8, bits or auto, not \"%s\"",
                                quantization);
    if (!kithi_tool_keep(keep, &opts.keep))
        return kithi_tool_usage(t, "--keep is f32, f16 or none, not \"%s\"", keep);
    if (opts.quantization == KITH_QUANTIZATION_NONE && opts.keep != KITH_KEEP_F32)
        return kithi_tool_usage(
            t, "--keep %s needs codes: use --quantization f16, sq8, bits or auto, or --keep f32", keep);
    status = kithi_tool_index(t, fields);
    if (status != KITHI_TOOL_OK)
        return status;
    opts.index = strcmp(fields, "auto") != 0 ? fields : NULL;
    opts.dim = dim;
    opts.metric = kithi_tool_metric(metric);
    opts.m = m;
    opts.ef_construction = ef;
    opts.max_vectors = max;
    opts.fixed = fixed;
    opts.run_dir = t->run_dir;
    opts.error = &error;
    int rc = kith_create(argv[1], &opts);
    if (rc != 0)
        return kithi_tool_fail_with(t, argv[1], rc, error.text);

    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, argv[1]);
        kithi_object_count(&o, "dim", NULL, dim);
        kithi_object_text(&o, "metric", NULL, metric);
        kithi_object_count(&o, "m", NULL, m);
        kithi_object_count(&o, "ef_construction", NULL, ef);
        kithi_object_text(&o, "quantization", NULL, quantization);
        kithi_object_text(&o, "keep", NULL, keep);
        kithi_object_count(&o, "max_vectors", NULL, max);
        kithi_object_bool(&o, "fixed", NULL, fixed);
        kithi_object_text(&o, "index", NULL, fields);
        kithi_object_end(&o);
    } else {
        printf("created %s: %u dimensions, %s, m %u, ef-construction %u, quantization %s, keep %s%s%s\n",
               argv[1], dim, metric, m, ef, quantization, keep, opts.index ? ", index " : "",
               opts.index ? fields : "");
    }
    return KITHI_TOOL_OK;
}

int kithi_cmd_drop(struct kithi_tool *t, int argc, char **argv)
{
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, NULL, 0, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");

    struct kith_error error = { 0 };
    int rc = kith_drop(argv[1], t->run_dir, &error);
    if (rc != 0)
        return kithi_tool_fail_with(t, argv[1], rc, error.text);
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, argv[1]);
        kithi_object_bool(&o, "dropped", NULL, true);
        kithi_object_end(&o);
    } else {
        printf("dropped %s\n", argv[1]);
    }
    return KITHI_TOOL_OK;
}

/* What the daemon says of a collection, in the answer of kith_readiness(). json may be NULL. */
static bool find_state(const char *json, const char *name, struct kithi_ready_state *out)
{
    while (json != NULL && kithi_ready_next(&json, out))
        if (strcmp(out->name, name) == 0)
            return true;
    return false;
}

static void list_coming(const struct kithi_tool *t, const struct kithi_ready_state *state,
                        struct kithi_table *table)
{
    char text[80];
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, state->name);
        kithi_object_text(&o, "state", NULL, state->state);
        if (state->reason[0] != '\0')
            kithi_object_text(&o, "reason", NULL, state->reason);
        kithi_object_end(&o);
        return;
    }
    kithi_table_cell(table, "%s", state->name);
    for (size_t i = 0; i < 6; i++)
        kithi_table_cell(table, "-");
    kithi_table_cell(table, "%s", kithi_ready_text(state, text, sizeof text));
}

/* One line of the list. A collection that cannot be opened is told of on stderr and skipped, unless it is still coming
 * back; state is NULL when no daemon says anything of it. */
static int list_one(const struct kithi_tool *t, const char *name, const struct kithi_ready_state *state,
                    bool with_states, struct kithi_table *table)
{
    kith *index = NULL;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = t->run_dir;
    bool coming = state != NULL && strcmp(state->state, "served") != 0;
    if (coming && kith_open(name, &opts, &index) != 0) {
        list_coming(t, state, table);
        return KITHI_TOOL_OK;
    }
    int status = index ? KITHI_TOOL_OK : kithi_tool_open(t, name, &index);
    if (status != KITHI_TOOL_OK)
        return status;
    struct kith_stats s = KITH_STATS_INIT;
    int rc = kith_stats(index, &s);
    kith_close(index);
    if (rc != 0)
        return kithi_tool_fail_with(t, name, rc, "");

    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, name);
        kithi_object_count(&o, "count", NULL, s.live_count);
        kithi_object_count(&o, "dim", NULL, s.dim);
        kithi_object_text(&o, "metric", NULL, kithi_metric_name(s.metric));
        kithi_object_text(&o, "quantization", NULL, kithi_quantization_name(s.quantization));
        kithi_object_text(&o, "keep", NULL, kithi_keep_name(s.keep));
        kithi_object_bytes(&o, "bytes_taken", NULL, s.bytes_taken);
        kithi_object_count(&o, "epoch", NULL, s.epoch);
        kithi_object_text(&o, "state", NULL, state != NULL ? state->state : NULL);
        kithi_object_end(&o);
        return KITHI_TOOL_OK;
    }
    char text[KITHI_OUT_TEXT_SIZE], words[80];
    kithi_table_cell(table, "%s", name);
    kithi_table_cell(table, "%s", kithi_out_count(text, s.live_count));
    kithi_table_cell(table, "%u", s.dim);
    kithi_table_cell(table, "%s", kithi_metric_name(s.metric));
    kithi_table_cell(table, "%s", kithi_quantization_name(s.quantization));
    kithi_table_cell(table, "%s", kithi_keep_name(s.keep));
    kithi_table_cell(table, "%s", kithi_out_bytes(text, s.bytes_taken));
    if (with_states)
        kithi_table_cell(table, "%s", state != NULL ? kithi_ready_text(state, words, sizeof words) : "");
    return KITHI_TOOL_OK;
}

static void list_heading(struct kithi_table *table, bool with_states)
{
    static const char *const HEADING[] = { "NAME",  "VECTORS", "DIM",    "METRIC",
                                           "CODES", "KEPT",    "MEMORY", "STATE" };
    for (size_t i = 0; i < (with_states ? 8u : 7u); i++)
        kithi_table_cell(table, "%s", HEADING[i]);
}

int kithi_cmd_list(struct kithi_tool *t, int argc, char **argv)
{
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, NULL, 0, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 0)
        return kithi_tool_usage(t, "list takes no arguments");

    struct kith_error error = { 0 };
    char *names = NULL, *json = NULL;
    /* Asked for before the names: what became whole in between is in the states, and one that is new is served. */
    bool with_states = kith_readiness(NULL, t->run_dir, &json, NULL) > 0;
    int n = kith_list(t->run_dir, &names, &error);
    if (n < 0) {
        free(json);
        return kithi_tool_fail(t, "%s", error.text[0] != '\0' ? error.text : kith_strerror(n));
    }

    struct kithi_table table;
    kithi_table_begin(&table, with_states ? "lrrlllrl" : "lrrlllr");
    if (n > 0 && !t->json)
        list_heading(&table, with_states);
    const char *name = names;
    for (int i = 0; i < n; i++, name += strlen(name) + 1) {
        struct kithi_ready_state state;
        bool known = find_state(json, name, &state);
        if (!known && json != NULL) { /* created since */
            snprintf(state.state, sizeof state.state, "served");
            known = true;
        }
        int one = list_one(t, name, known ? &state : NULL, with_states, &table);
        if (one != KITHI_TOOL_OK)
            status = one;
    }
    kithi_table_end(&table);
    if (n == 0 && !t->json)
        printf("no collections\n");
    free(names);
    free(json);
    return status;
}

/* Huge pages: how much of the memory has them and, where little has, what to do for more. */
static void print_huge(struct kithi_object *o, const struct kith_stats *s)
{
    char got[KITHI_OUT_TEXT_SIZE], wanted[KITHI_OUT_TEXT_SIZE], text[3 * KITHI_OUT_TEXT_SIZE];
    if (o->json) {
        kithi_object_bytes(o, "huge_bytes", NULL, s->huge_bytes);
        kithi_object_bytes(o, "huge_wanted_bytes", NULL, s->huge_wanted_bytes);
        return;
    }
    snprintf(text, sizeof text, "%s of %s", kithi_out_bytes(got, s->huge_bytes),
             kithi_out_bytes(wanted, s->huge_wanted_bytes));
    kithi_object_text(o, "", "huge pages",
                      s->huge_wanted_bytes ? text : "nothing is large enough for one yet");
    if (s->huge_bytes < s->huge_wanted_bytes / 2)
        kithi_object_text(
            o, "", "",
            "for more: Linux 6.1 or newer, free memory, kithd without --huge-pages no; on an older "
            "Linux mount the run directory's tmpfs with huge=advise (see HUGE PAGES in kithd(8))");
}

/* What vectors are stored as, and what that means for those who read them. */
static void put_codes(struct kithi_object *o, const struct kith_stats *s)
{
    char text[160];
    const char *name = kithi_quantization_name(s->quantization), *keep = kithi_keep_name(s->keep);
    const char *decoded = kithi_tool_decoded(s->quantization, s->keep);
    if (o->json) {
        kithi_object_text(o, "quantization", NULL, name);
        kithi_object_text(o, "quantization_wanted", NULL, kithi_quantization_name(s->quantization_wanted));
        kithi_object_text(o, "keep", NULL, keep);
        kithi_object_text(o, "keep_wanted", NULL, kithi_keep_name(s->keep_wanted));
        kithi_object_bool(o, "undecided", NULL, s->undecided != 0);
        kithi_object_count(o, "code_bits", NULL, s->code_bits);
        kithi_object_bool(o, "decoded", NULL, decoded != NULL);
        return;
    }
    snprintf(text, sizeof text, "%s%s", name,
             s->undecided == 1 ? " (auto has still to choose)"
             : s->undecided
                 ? " (another was chosen, or asked for; kithd's log says what, and what the copy waits for)"
             : s->quantization_wanted == KITH_QUANTIZATION_AUTO ? " (chosen by auto)"
                                                                : "");
    kithi_object_text(o, "", "quantization", text);
    if (decoded != NULL)
        snprintf(text, sizeof text, "%s: get, export and exact search work on values decoded from %s codes",
                 keep, decoded);
    else
        snprintf(text, sizeof text, "%s%s", keep, s->keep != s->keep_wanted ? " until auto has chosen" : "");
    kithi_object_text(o, "", "kept vectors", text);
}

/* Which fields of payloads have postings, and what is not as it was asked for. */
static void put_index(struct kithi_object *o, kith *index, const struct kith_stats *s)
{
    char fields[KITHI_DECLARED_TEXT_MAX + 1], text[160];
    if (kith_index_text(index, fields, sizeof fields) < 0)
        fields[0] = '\0';
    kithi_object_text(o, "index", "index", fields);
    if (o->json) {
        kithi_object_count(o, "index_fields", NULL, s->index_fields);
        kithi_object_count(o, "index_given_up", NULL, s->index_given_up);
        kithi_object_count(o, "index_misfits", NULL, s->index_misfits);
        kithi_object_bool(o, "index_whole", NULL, s->index_whole != 0);
        return;
    }
    if (!s->index_whole)
        kithi_object_text(o, "", "", "being made of the payloads, which filters look at until then");
    if (s->index_given_up) {
        snprintf(
            text, sizeof text,
            "%u fields given up, as memory was short (kith inspect names them); kith alter --index tries again",
            s->index_given_up);
        kithi_object_text(o, "", "", text);
    }
    if (s->index_misfits) {
        snprintf(text, sizeof text,
                 "%" PRIu64 " values are of another type than declared (kith inspect has the fields)",
                 s->index_misfits);
        kithi_object_text(o, "", "", text);
    }
}

/* Is it served, or still on its way back after a start of the daemon? */
static void put_state(struct kithi_object *o, const struct kithi_tool *t, kith *index,
                      const struct kith_stats *s)
{
    struct kithi_ready_state state;
    char *json = NULL, text[80];
    bool known = s->daemon_alive && strchr(kith_name(index), '/') == NULL &&
                 kith_readiness(kith_name(index), t->run_dir, &json, NULL) >= 0 &&
                 find_state(json, kith_name(index), &state);
    if (o->json)
        kithi_object_text(o, "state", NULL, known ? state.state : NULL);
    else if (known && state.reason[0] != '\0')
        kithi_object_text(o, "", "not served", state.reason);
    else if (known && strcmp(state.state, "served") != 0)
        kithi_object_text(o, "", "start of kithd", kithi_ready_text(&state, text, sizeof text));
    if (o->json && known && state.reason[0] != '\0')
        kithi_object_text(o, "reason", NULL, state.reason);
    free(json);
}

/* The building of another segment, where there is one under way: how far it is, in words. */
static void put_relayout(struct kithi_object *o, const char *json)
{
    char state[16] = "", why[16] = "", text[160];
    double slots = 0, slots_left = 0, changes = 0;
    struct kithi_json j;
    size_t len;
    kithi_json_init(&j);
    kithi_json_begin(&j, json, strlen(json));
    kithi_json_object(&j);
    while (kithi_json_member(&j) == 1) {
        if (!kithi_json_key_is(&j, "relayout") || kithi_json_peek(&j) != KITHI_JSON_OBJECT) {
            kithi_json_skip(&j);
            continue;
        }
        kithi_json_object(&j);
        while (kithi_json_member(&j) == 1) {
            if (kithi_json_key_is(&j, "state"))
                kithi_json_string(&j, state, sizeof state - 1, &len);
            else if (kithi_json_key_is(&j, "why"))
                kithi_json_string(&j, why, sizeof why - 1, &len);
            else if (kithi_json_key_is(&j, "slots"))
                kithi_json_double(&j, &slots);
            else if (kithi_json_key_is(&j, "slots_left"))
                kithi_json_double(&j, &slots_left);
            else if (kithi_json_key_is(&j, "changes_left"))
                kithi_json_double(&j, &changes);
            else
                kithi_json_skip(&j);
        }
    }
    if (kithi_json_finish(&j) == 0 && why[0] != '\0') {
        snprintf(text, sizeof text, "%s (%s), %.0f %% of the slots done, %.0f changes to follow", state, why,
                 slots > 0 ? 100 * (slots - slots_left) / slots : 0.0, changes);
        kithi_object_text(o, "", "another segment", text);
    }
    kithi_json_fini(&j);
}

/* A curve as one JSON object. */
static void put_curve_json(FILE *f, const struct kith_recall *r)
{
    fprintf(f, "{\"k\":%u,\"samples\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"since\":%" PRIu64 ",\"points\":[",
            r->k, r->samples, r->epoch, r->since);
    for (uint32_t i = 0; i < r->point_count; i++)
        fprintf(f, "%s{\"ef\":%u,\"recall\":%.4f,\"low\":%.4f,\"high\":%.4f}", i ? "," : "", r->points[i].ef,
                (double)r->points[i].recall, (double)r->points[i].low, (double)r->points[i].high);
    fputs("],\"kept\":", f);
    if (r->kept_samples == 0)
        fputs("null}", f);
    else
        fprintf(f, "{\"samples\":%u,\"0.90\":%.4f,\"0.95\":%.4f,\"0.99\":%.4f}}", r->kept_samples,
                (double)r->kept[0], (double)r->kept[1], (double)r->kept[2]);
}

/* The curve as lines: what it rests on, the ef of some recalls, and how well it is kept. */
static void put_curve(struct kithi_object *o, const struct kith_recall *r)
{
    static const double TARGETS[] = { 0.90, 0.95, 0.99, 0.999 };
    const int n = (int)r->point_count;
    char text[160], count[KITHI_OUT_TEXT_SIZE];
    snprintf(text, sizeof text, "of %u neighbour%s, by %s of its vectors, epochs %" PRIu64 " to %" PRIu64,
             r->k, r->k == 1 ? "" : "s", kithi_out_count(count, r->samples), r->since, r->epoch);
    kithi_object_text(o, "", "recall", text);
    int shown = -1;
    for (size_t t = 0; t < sizeof TARGETS / sizeof *TARGETS; t++) {
        int i = 0;
        while (i < n && (double)r->points[i].recall < TARGETS[t])
            i++;
        if (i == n || i == shown)
            continue;
        shown = i;
        snprintf(text, sizeof text, "%.4f (%.4f to %.4f) with ef %u", (double)r->points[i].recall,
                 (double)r->points[i].low, (double)r->points[i].high, r->points[i].ef);
        kithi_object_text(o, "", "", text);
    }
    if (shown < 0) {
        snprintf(text, sizeof text, "%.4f with ef %u, the widest that was measured",
                 (double)r->points[n - 1].recall, r->points[n - 1].ef);
        kithi_object_text(o, "", "", text);
    }
    if (r->kept_samples != 0) {
        snprintf(text, sizeof text,
                 "asked for 0.90, 0.95, 0.99: %.4f, %.4f, %.4f by %s that it did not rest on",
                 (double)r->kept[0], (double)r->kept[1], (double)r->kept[2],
                 kithi_out_count(count, r->kept_samples));
        kithi_object_text(o, "", "", text);
    }
}

static void put_curves_json(struct kithi_object *o, const char *key, const struct kith_recall *r, size_t n,
                            bool list)
{
    char *text = NULL;
    size_t len = 0, put = 0;
    bool whole = false;
    FILE *f = open_memstream(&text, &len);
    if (f != NULL) {
        fputs(list ? "[" : "", f);
        for (size_t i = 0; i < n; i++) {
            if (r[i].point_count == 0)
                continue;
            fputs(put++ > 0 ? "," : "", f);
            put_curve_json(f, &r[i]);
        }
        fputs(list ? "]" : "", f);
        whole = fclose(f) == 0;
    }
    kithi_object_json(o, key, whole && (list || put > 0) ? text : NULL);
    free(text);
}

/* What searches find with which ef, as kithd has measured. */
static void put_recall(struct kithi_object *o, kith *index)
{
    static const uint32_t KS[] = { 10, 1, 100 };
    enum { COUNT = sizeof KS / sizeof *KS };
    struct kith_recall r[COUNT];
    int first = 0;
    for (size_t i = 0; i < COUNT; i++) {
        r[i] = (struct kith_recall)KITH_RECALL_INIT;
        int n = kith_recall_curve_of(index, KS[i], &r[i]);
        first = i == 0 ? n : first;
    }
    if (o->json) {
        put_curves_json(o, "recall", &r[0], 1, false);
        put_curves_json(o, "recall_k", &r[1], COUNT - 1, true);
        return;
    }
    if (first <= 0)
        kithi_object_text(o, "", "recall", first < 0 ? kith_strerror(first) : "not measured yet");
    for (size_t i = 0; i < COUNT; i++)
        if (r[i].point_count > 0)
            put_curve(o, &r[i]);
}

/* What the memory is used for. */
static void put_memory(struct kithi_object *o, const struct kith_memory *m)
{
    char *text = NULL, sum[160], part[4][KITHI_OUT_TEXT_SIZE];
    size_t len = 0;
    if (!o->json) {
        snprintf(sum, sizeof sum, "%s live, %s dead or resting, %s free, %s never used",
                 kithi_out_bytes(part[0], m->all.live + m->all.pending),
                 kithi_out_bytes(part[1], m->all.dead + m->all.resting),
                 kithi_out_bytes(part[2], m->all.free), kithi_out_bytes(part[3], m->all.slack));
        kithi_object_text(o, "", "of that", sum);
        kithi_object_bytes(o, "", "in the file", m->file_bytes);
        if (m->next_bytes != 0)
            kithi_object_bytes(o, "", "in segment.next", m->next_bytes);
        if (m->old_bytes != 0)
            kithi_object_bytes(o, "", "in segment.old", m->old_bytes);
        return;
    }
    FILE *f = open_memstream(&text, &len);
    if (f == NULL) {
        kithi_object_json(o, "memory", NULL);
        return;
    }
    fprintf(f, "{\"file\":%" PRIu64 ",\"next\":%" PRIu64 ",\"old\":%" PRIu64 ",", m->file_bytes,
            m->next_bytes, m->old_bytes);
    kithi_memory_members(f, &m->all);
    fputs(",\"regions\":[", f);
    for (size_t i = 0, n = 0; i < KITH_MEMORY_REGIONS; i++) {
        if (m->regions[i].name[0] == '\0')
            continue;
        fprintf(f, "%s{\"region\":\"%s\",", n++ > 0 ? "," : "", m->regions[i].name);
        kithi_memory_members(f, &m->regions[i]);
        fputc('}', f);
    }
    fputs("]}", f);
    kithi_object_json(o, "memory", fclose(f) == 0 ? text : NULL);
    free(text);
}

/*
 * What a probe asks: exit status 0 once kithd serves the collection, or all of them; or (alive) as soon as it answers,
 * whatever it still has before it: who ends a kithd that is loading has it begin again.
 */
static int print_ready(struct kithi_tool *t, const char *name, bool alive)
{
    struct kith_error error = { 0 };
    struct kithi_ready_state state;
    char *json = NULL, text[80];
    int missing = kith_readiness(name, t->run_dir, &json, &error);
    if (missing < 0)
        return name != NULL
                   ? kithi_tool_fail_with(t, name, missing, error.text)
                   : kithi_tool_fail(t, "%s", error.text[0] != '\0' ? error.text : kith_strerror(missing));
    if (t->json) {
        puts(json);
    } else if (missing == 0) {
        puts("ready");
    } else {
        printf("%d not served yet\n", missing);
        for (const char *at = json; kithi_ready_next(&at, &state);)
            if (strcmp(state.state, "served") != 0)
                printf("%s: %s%s%s\n", state.name, kithi_ready_text(&state, text, sizeof text),
                       state.reason[0] != '\0' ? ": " : "", state.reason);
    }
    free(json);
    return missing == 0 || alive ? KITHI_TOOL_OK : KITHI_TOOL_FAILED;
}

int kithi_cmd_stats(struct kithi_tool *t, int argc, char **argv)
{
    kith *index = NULL;
    bool ready = false, alive = false;
    int count = 0;
    const struct kithi_arg args[] = { { "--ready", KITHI_ARG_FLAG, &ready, 0, 0 },
                                      { "--alive", KITHI_ARG_FLAG, &alive, 0, 0 } };
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (alive && (ready || count > 0))
        return kithi_tool_usage(t, "--alive asks for kithd itself: it takes no name, and not --ready");
    if (alive)
        return print_ready(t, NULL, true);
    if (ready && count <= 1)
        return print_ready(t, count == 1 ? argv[1] : NULL, false);
    if (count != 1)
        return kithi_tool_usage(t, ready ? "give one name, or none for all collections" : "give one name");
    status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK)
        return status;
    struct kith_stats s = KITH_STATS_INIT;
    struct kith_memory m = KITH_MEMORY_INIT;
    int rc = kith_stats(index, &s);
    if (rc == 0)
        rc = kith_memory(index, &m);
    if (rc == 0) {
        struct kithi_object o;
        kithi_object_begin(&o, t->json);
        kithi_object_text(&o, "name", "name", kith_name(index));
        kithi_object_count(&o, "live", "vectors", s.live_count);
        kithi_object_count(&o, "dim", "dimensions", s.dim);
        kithi_object_text(&o, "metric", "metric", kithi_metric_name(s.metric));
        kithi_object_count(&o, "m", "m", s.m);
        kithi_object_count(&o, "ef_construction", "ef-construction", s.ef_construction);
        put_codes(&o, &s);
        kithi_object_count(&o, "level_max", "top level", s.level_max);
        kithi_object_count(&o, "epoch", "epoch", s.epoch);
        kithi_object_count(&o, "durable_epoch", "durable epoch", s.durable_epoch);
        kithi_object_count(&o, "generation", "generation", s.generation);
        kithi_object_count(&o, "dead", "dead, still linked", s.dead_count);
        kithi_object_count(&o, "resting", "resting", s.resting_count);
        kithi_object_count(&o, "free", "free for reuse", s.free_count);
        kithi_object_count(&o, "slots", "slots ever used", s.slot_count);
        kithi_object_count(&o, "slots_max", "slots at most", s.slot_max);
        kithi_object_count(&o, "payloads", "payloads", s.payload_count);
        kithi_object_bytes(&o, "payload_bytes", "bytes in them", s.payload_bytes);
        put_index(&o, index, &s);
        kithi_object_bytes(&o, "bytes_taken", "memory taken", s.bytes_taken);
        put_memory(&o, &m);
        kithi_object_bytes(&o, "bytes_per_vector", "a vector",
                           s.live_count ? s.bytes_taken / s.live_count : 0);
        kithi_object_bytes(&o, "bytes_reserved", "address space", s.bytes_reserved);
        print_huge(&o, &s);
        put_recall(&o, index);
        kithi_object_bool(&o, "daemon", "daemon answers", s.daemon_alive != 0);
        put_state(&o, t, index, &s);
        char *text = NULL;
        bool told = s.daemon_alive && kith_daemon_stats(index, &text) == 0;
        if (t->json)
            kithi_object_json(&o, "daemon_stats", told ? text : NULL);
        else if (told)
            put_relayout(&o, text);
        free(text);
        kithi_object_end(&o);
        if (!t->json) {
            putchar('\n');
            kithi_memory_table(m.regions, KITH_MEMORY_REGIONS, &m.all);
        }
    } else {
        status = kithi_tool_fail_with(t, argv[1], rc, "");
    }
    kith_close(index);
    return status;
}

int kithi_cmd_count(struct kithi_tool *t, int argc, char **argv)
{
    kith *index = NULL;
    uint64_t n = 0, epoch = 0;
    const char *filter = NULL;
    struct kith_error error = { 0 };
    const struct kithi_arg args[] = { { "--at", KITHI_ARG_EPOCH, &epoch, 0, 0 },
                                      { "--filter", KITHI_ARG_STRING, &filter, 0, 0 } };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    status = kithi_tool_filter(t, filter);
    if (status == KITHI_TOOL_OK)
        status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK)
        return status;
    const struct kith_snapshot at = kithi_tool_snapshot(index, epoch);
    int rc =
        filter == NULL ? kith_count_at(index, &at, &n) : kith_count_filter(index, filter, &at, &n, &error);
    if (rc != 0)
        status = kithi_tool_fail_filter(t, argv[1], rc, &error);
    else if (t->json)
        printf("{\"count\":%llu}\n", (unsigned long long)n);
    else
        printf("%llu\n", (unsigned long long)n);
    kith_close(index);
    return status;
}

static int checkpoint(struct kithi_tool *t, const char *name)
{
    kith *index = NULL;
    int status = kithi_tool_open(t, name, &index);
    if (status != KITHI_TOOL_OK)
        return status;
    struct kith_error error = { 0 };
    uint64_t epoch = 0;
    int rc = kith_checkpoint(index, &epoch, &error);
    kith_close(index);
    if (rc != 0)
        return kithi_tool_fail_with(t, name, rc, error.text);
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, name);
        kithi_object_count(&o, "epoch", NULL, epoch);
        kithi_object_end(&o);
    } else {
        printf("checkpoint of %s: epoch %llu is durable\n", name, (unsigned long long)epoch);
    }
    return KITHI_TOOL_OK;
}

static int show_progress(void *arg, uint64_t done, uint64_t total)
{
    kithi_progress_update(arg, done >> 20, total > 0 ? (double)done / (double)total : -1);
    return 0;
}

static int back_up(struct kithi_tool *t, const char *name, const char *path, bool force)
{
    kith *index = NULL;
    int status = kithi_tool_open(t, name, &index);
    if (status != KITHI_TOOL_OK)
        return status;
    struct kithi_progress progress;
    struct kith_error error = { 0 };
    struct kith_backup_info info = KITH_BACKUP_INFO_INIT;
    struct kith_backup_opts opts = KITH_BACKUP_OPTS_INIT;
    opts.replace = force;
    opts.progress = show_progress;
    opts.arg = &progress;
    opts.error = &error;
    kithi_progress_begin(&progress, "MiB");
    int rc = kith_backup(index, path, &opts, &info);
    kithi_progress_end(&progress);
    kith_close(index);
    if (rc == -EEXIST && !force)
        return kithi_tool_fail(t, "%s%s", error.text, "; --force replaces a file");
    if (rc != 0)
        return kithi_tool_fail_with(t, name, rc, error.text);
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, name);
        kithi_object_text(&o, "file", NULL, path);
        kithi_object_count(&o, "epoch", NULL, info.epoch);
        kithi_object_bytes(&o, "bytes", NULL, info.bytes);
        kithi_object_end(&o);
    } else {
        char text[KITHI_OUT_TEXT_SIZE];
        printf("back-up of %s: epoch %llu, %s in %s\n", name, (unsigned long long)info.epoch,
               kithi_out_bytes(text, info.bytes), path);
    }
    return KITHI_TOOL_OK;
}

int kithi_cmd_checkpoint(struct kithi_tool *t, int argc, char **argv)
{
    const char *to = NULL;
    bool force = false;
    const struct kithi_arg args[] = {
        { "--to", KITHI_ARG_STRING, &to, 0, 0 },
        { "--force", KITHI_ARG_FLAG, &force, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    if (to == NULL && force)
        return kithi_tool_usage(t, "--force is about the file of --to");
    return to == NULL ? checkpoint(t, argv[1]) : back_up(t, argv[1], to, force);
}

int kithi_cmd_restore(struct kithi_tool *t, int argc, char **argv)
{
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, NULL, 0, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 2)
        return kithi_tool_usage(t, "give a name for the collection and the file of a back-up");
    struct kithi_progress progress;
    struct kith_error error = { 0 };
    struct kith_backup_info info = KITH_BACKUP_INFO_INIT;
    struct kith_backup_opts opts = KITH_BACKUP_OPTS_INIT;
    opts.run_dir = t->run_dir;
    opts.progress = show_progress;
    opts.arg = &progress;
    opts.error = &error;
    kithi_progress_begin(&progress, "MiB");
    int rc = kith_restore(argv[1], argv[2], &opts, &info);
    kithi_progress_end(&progress);
    if (rc != 0)
        return kithi_tool_fail(t, "%s", error.text[0] != '\0' ? error.text : kith_strerror(rc));
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, argv[1]);
        kithi_object_text(&o, "file", NULL, argv[2]);
        kithi_object_count(&o, "live", NULL, info.live_count);
        kithi_object_count(&o, "epoch", NULL, info.epoch);
        kithi_object_count(&o, "timeline", NULL, info.timeline);
        kithi_object_end(&o);
    } else {
        char text[KITHI_OUT_TEXT_SIZE];
        printf("restored %s: %s vectors, epoch %llu\n", argv[1], kithi_out_count(text, info.live_count),
               (unsigned long long)info.epoch);
    }
    return KITHI_TOOL_OK;
}
