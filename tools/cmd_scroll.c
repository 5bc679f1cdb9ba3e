/*
 * cmd_scroll.c - scroll: ids in the collection's own order, all of them or so many, from the beginning or from a cursor.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/graph/scroll.h"
#include "tools/args.h"
#include "tools/fields.h"
#include "tools/out.h"

#define PAGE 1000u

static void print_page(const struct kithi_tool *t, const kith_results *r, uint32_t dim, bool payloads)
{
    for (uint32_t i = 0; i < kith_results_count(r); i++) {
        const float *vector = kith_results_vector(r, i);
        if (t->json) {
            fputs("{\"id\":", stdout);
            kithi_out_quote(stdout, kith_results_id(r, i));
        } else {
            kithi_out_plain(stdout, kith_results_id(r, i));
        }
        if (vector != NULL) {
            fputs(t->json ? ",\"vector\":" : "\t", stdout);
            kithi_out_vector(stdout, vector, dim);
        }
        if (payloads) {
            const char *text = kith_results_payload(r, i) != NULL ? kith_results_payload(r, i) : "null";
            fputs(t->json ? ",\"payload\":" : "\t", stdout);
            if (t->json)
                fputs(text, stdout);
            else
                kithi_out_plain(stdout, text);
        }
        puts(t->json ? "}" : "");
    }
}

/* Say how to go on, or that this was all. cursor NULL: it was. */
static void print_end(const struct kithi_tool *t, uint64_t count, uint64_t epoch, const char *cursor)
{
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "cursor", NULL, cursor);
        kithi_object_count(&o, "count", NULL, count);
        kithi_object_count(&o, "epoch", NULL, epoch);
        kithi_object_end(&o);
    } else if (cursor != NULL) {
        fflush(stdout);
        fprintf(stderr, "kith %s: there are more: --cursor %s\n", t->command, cursor);
    }
}

int kithi_cmd_scroll(struct kithi_tool *t, int argc, char **argv)
{
    const char *cursor = NULL;
    uint32_t limit = 0;
    uint64_t at = 0;
    bool vectors = false, payload = false;
    const char *fields_text = NULL, *filter = NULL;
    struct kithi_field_list fields;
    const struct kithi_arg args[] = {
        { "--limit", KITHI_ARG_NUMBER, &limit, 1, UINT32_MAX },
        { "--cursor", KITHI_ARG_STRING, &cursor, 0, 0 },
        { "--vectors", KITHI_ARG_FLAG, &vectors, 0, 0 },
        { "--payload", KITHI_ARG_FLAG, &payload, 0, 0 },
        { "--fields", KITHI_ARG_STRING, &fields_text, 0, 0 },
        { "--filter", KITHI_ARG_STRING, &filter, 0, 0 },
        { "--at", KITHI_ARG_EPOCH, &at, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    status = kithi_tool_filter(t, filter);
    if (status != KITHI_TOOL_OK)
        return status;
    status = kithi_fields_parse(t, fields_text, &fields);
    if (status != KITHI_TOOL_OK)
        return status;

    kith *index = NULL;
    char *next = NULL;
    uint64_t printed = 0, epoch = 0;
    status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK) {
        kithi_fields_free(&fields);
        return status;
    }
    kith_results *page = kith_results_new();
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    struct kith_error error = { 0 };
    opts.vectors = vectors;
    opts.filter = filter;
    opts.error = &error;
    opts.payloads = payload || fields.count > 0;
    opts.field_count = fields.count;
    opts.fields = fields.paths;
    opts.at = kithi_tool_snapshot(index, at);
    bool more = true;
    if (page == NULL)
        status = kithi_tool_fail(t, "out of memory");
    while (status == KITHI_TOOL_OK && more && !ferror(stdout)) {
        struct kith_search_info info = KITH_SEARCH_INFO_INIT;
        opts.limit = limit == 0 || limit - printed > PAGE ? PAGE : (uint32_t)(limit - printed);
        int rc = kith_scroll(index, cursor, &opts, page);
        if (rc < 0) {
            status = kithi_tool_fail_filter(t, argv[1], rc, &error);
            break;
        }
        print_page(t, page, kith_dim(index), opts.payloads);
        printed += (uint64_t)rc;
        kith_results_info(page, &info);
        epoch = info.epoch;
        free(next);
        next = NULL;
        cursor = kith_results_cursor(page);
        if (cursor != NULL && (cursor = next = strdup(cursor)) == NULL)
            status = kithi_tool_fail(t, "out of memory");
        more = cursor != NULL && (limit == 0 || printed < limit);
    }
    if (status == KITHI_TOOL_OK)
        print_end(t, printed, epoch, cursor);
    free(next);
    kith_results_free(page);
    kithi_fields_free(&fields);
    kith_close(index);
    return status;
}
