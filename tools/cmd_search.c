/*
 * cmd_search.c - search: neighbours of a typed vector, of a stored one, or of every row of a file.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/graph/search.h"
#include "tools/args.h"
#include "tools/fields.h"
#include "tools/out.h"
#include "tools/query.h"
#include "tools/vectors.h"

/* How a search under a filter was answered, as kith(1) lists. */
static void print_plan(const struct kith_search_info *info, const char *notice)
{
    printf(",\"plan\":\"%s\",\"plan_reason\":\"%s\",\"evaluated\":%" PRIu64 ",\"matched\":%" PRIu64
           ",\"indexed\":%s,\"share\":",
           kithi_tool_plan(info->plan), kithi_tool_plan_reason(info->plan_reason), info->evaluated_count,
           info->matched_count, info->indexed ? "true" : "false");
    kithi_out_float(stdout, (float)info->share);
    if (notice != NULL) {
        fputs(",\"notice\":", stdout);
        kithi_out_quote(stdout, notice);
    }
}

/*
 * {"query":i,"hits":[{"id":...,"distance":...}]}; with a recall that was asked for, "ef" and "ef_basis" before the hits, and with a
 * filter what print_plan() prints.
 */
static void print_json(uint64_t query, const kith_results *r, const struct kith_search_opts *opts)
{
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    printf("{\"query\":%" PRIu64, query);
    if (opts->target_recall != 0 && kith_results_info(r, &info) == 0)
        printf(",\"ef\":%u,\"ef_basis\":\"%s\"", info.ef, kithi_tool_basis(info.ef_basis));
    if (opts->filter != NULL && kith_results_info(r, &info) == 0)
        print_plan(&info, kith_results_notice(r));
    fputs(",\"hits\":[", stdout);
    for (uint32_t i = 0; i < kith_results_count(r); i++) {
        fputs(i > 0 ? ",{\"id\":" : "{\"id\":", stdout);
        kithi_out_quote(stdout, kith_results_id(r, i));
        fputs(",\"distance\":", stdout);
        kithi_out_float(stdout, kith_results_distance(r, i));
        if (opts->payloads)
            printf(",\"payload\":%s",
                   kith_results_payload(r, i) != NULL ? kith_results_payload(r, i) : "null");
        putchar('}');
    }
    puts("]}");
}

static void print_table(const kith_results *r, const struct kith_search_opts *opts)
{
    struct kithi_table table;
    if (kith_results_count(r) == 0) {
        puts("no hits");
        return;
    }
    kithi_table_begin(&table, opts->payloads ? "rrll" : "rrl");
    kithi_table_cell(&table, "#");
    kithi_table_cell(&table, "DISTANCE");
    kithi_table_cell(&table, "ID");
    if (opts->payloads)
        kithi_table_cell(&table, "PAYLOAD");
    for (uint32_t i = 0; i < kith_results_count(r); i++) {
        kithi_table_cell(&table, "%u", i + 1);
        kithi_table_cell(&table, "%.6f", (double)kith_results_distance(r, i));
        kithi_table_cell(&table, "%s", kith_results_id(r, i));
        if (opts->payloads)
            kithi_table_cell(&table, "%s",
                             kith_results_payload(r, i) != NULL ? kith_results_payload(r, i) : "null");
    }
    kithi_table_end(&table);
}

/* A recall was asked for that nobody promises: say so, once. */
static void tell_basis(const struct kithi_tool *t, const kith_results *r, const struct kith_search_opts *opts)
{
    static bool told;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    if (told || t->json || opts->target_recall == 0 || opts->exact || kith_results_info(r, &info) != 0 ||
        info.ef_basis == KITH_EF_CURVE)
        return;
    told = true;
    fprintf(stderr, "kith search: ef %u was taken: %s\n", info.ef,
            info.ef_basis == KITH_EF_LIMIT ? "--ef permits no more for this --recall"
            : info.ef_basis == KITH_EF_BEYOND
                ? "this --recall is beyond what kithd has measured (kith stats)"
                : "the recall of this collection is not measured yet (kith stats)");
}

/* Something about the filter is worth knowing: say so, once. */
static void tell_notice(const struct kithi_tool *t, const kith_results *r)
{
    static bool told;
    if (told || t->json || kith_results_notice(r) == NULL)
        return;
    told = true;
    fprintf(stderr, "kith search: ");
    kithi_out_plain(stderr, kith_results_notice(r));
    fputc('\n', stderr);
}

static int search_file(const struct kithi_tool *t, kith *index, const char *path, uint32_t k,
                       const struct kith_search_opts *opts, kith_results *results)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_vectors *vectors = NULL;
    struct kithi_vector v;
    char where[KITHI_WHERE_SIZE];
    if (kithi_vectors_open(path, kith_dim(index), &vectors, &err) != 0)
        return kithi_tool_fail(t, "%s", err.text);
    int status = KITHI_TOOL_OK;
    int rc;
    while ((rc = kithi_vectors_next(vectors, &v, &err)) == 1) {
        int hits = kith_search(index, v.values, kith_dim(index), k, opts, results);
        if (hits == KITH_E_FILTER) {
            status = kithi_tool_fail_filter(t, path, hits, opts->error);
            break;
        }
        if (hits < 0) {
            kithi_vectors_where(where, path, v.row, v.line);
            status = kithi_tool_fail(t, "%s: %s", where, kith_strerror(hits));
            break;
        }
        tell_basis(t, results, opts);
        tell_notice(t, results);
        if (t->json) {
            print_json(v.row, results, opts);
        } else {
            printf("%squery %" PRIu64 "\n", v.row > 0 ? "\n" : "", v.row);
            print_table(results, opts);
        }
    }
    if (rc < 0)
        status = kithi_tool_fail(t, "%s", err.text);
    kithi_vectors_close(vectors);
    return status;
}

int kithi_cmd_search(struct kithi_tool *t, int argc, char **argv)
{
    const char *text = NULL, *like = NULL, *file = NULL, *fields_text = NULL, *filter = NULL;
    uint32_t k = 10;
    bool exact = false, payload = false, strict = false;
    struct kith_error error = { 0 };
    struct kithi_field_list fields;
    double recall = NAN;
    uint64_t at = 0;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    const struct kithi_arg args[] = {
        { "--vector", KITHI_ARG_STRING, &text, 0, 0 },
        { "--like", KITHI_ARG_STRING, &like, 0, 0 },
        { "--queries", KITHI_ARG_STRING, &file, 0, 0 },
        { "-k", KITHI_ARG_NUMBER, &k, 1, KITHI_K_MAX },
        { "--ef", KITHI_ARG_NUMBER, &opts.ef, 1, KITHI_EF_MAX },
        { "--recall", KITHI_ARG_REAL, &recall, 0, 1 },
        { "--exact", KITHI_ARG_FLAG, &exact, 0, 0 },
        { "--at", KITHI_ARG_EPOCH, &at, 0, 0 },
        { "--payload", KITHI_ARG_FLAG, &payload, 0, 0 },
        { "--fields", KITHI_ARG_STRING, &fields_text, 0, 0 },
        { "--filter", KITHI_ARG_STRING, &filter, 0, 0 },
        { "--strict", KITHI_ARG_FLAG, &strict, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    if ((text != NULL) + (like != NULL) + (file != NULL) != 1)
        return kithi_tool_usage(t, "give one of --vector, --like and --queries");
    if (opts.ef != 0 && opts.ef < k)
        return kithi_tool_usage(t, "--ef %u is below -k %u: no room for k hits", opts.ef, k);
    if (recall == 0 || recall == 1)
        return kithi_tool_usage(t, "--recall lies between 0 and 1, as 0.95 does%s",
                                recall == 1 ? "; --exact finds all of them" : "");
    if (strict && filter == NULL)
        return kithi_tool_usage(t, "--strict goes with --filter");
    status = kithi_tool_filter(t, filter);
    if (status != KITHI_TOOL_OK)
        return status;
    status = kithi_fields_parse(t, fields_text, &fields);
    if (status != KITHI_TOOL_OK)
        return status;
    opts.payloads = payload || fields.count > 0;
    opts.field_count = fields.count;
    opts.fields = fields.paths;
    opts.exact = exact;
    opts.filter = filter;
    opts.strict = strict;
    opts.error = &error;
    opts.target_recall = isnan(recall) ? 0 : recall;

    kith *index = NULL;
    float *vector = NULL;
    kith_results *results = NULL;
    t->searches = true;
    status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK)
        goto out;
    opts.at = kithi_tool_snapshot(index, at);
    results = kith_results_new();
    if (results == NULL) {
        status = kithi_tool_fail(t, "out of memory");
        goto out;
    }
    if (file != NULL) {
        status = search_file(t, index, file, k, &opts, results);
        goto out;
    }
    int rc;
    if (like != NULL) {
        rc = kith_search_id(index, like, k, &opts, results);
    } else {
        status = kithi_query_parse(t, text, kith_dim(index), &vector);
        if (status != KITHI_TOOL_OK)
            goto out;
        rc = kith_search(index, vector, kith_dim(index), k, &opts, results);
    }
    if (rc == KITH_E_FILTER) {
        status = kithi_tool_fail_filter(t, argv[1], rc, &error);
        goto out;
    }
    if (rc < 0) {
        status = kithi_tool_fail(t, "%s%.64s%s%s", like != NULL ? "id \"" : "", like != NULL ? like : "",
                                 like != NULL ? "\": " : "", kith_strerror(rc));
        goto out;
    }
    tell_basis(t, results, &opts);
    tell_notice(t, results);
    if (t->json)
        print_json(0, results, &opts);
    else
        print_table(results, &opts);
out:
    kith_results_free(results);
    kithi_fields_free(&fields);
    free(vector);
    kith_close(index);
    return status;
}
