/*
 * cmd_facet.c - facet: the values of a field and how many vectors have each.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shm/base/decimal.h"
#include "shm/graph/facet.h"
#include "tools/args.h"
#include "tools/out.h"

/* A value as it stands in a filter: a JSON value. */
static void print_value(const struct kith_filter_value *v)
{
    char text[KITHI_DECIMAL_MAX + 1];
    if (v->type == KITH_FILTER_STRING)
        kithi_out_quote(stdout, v->string);
    else if (v->type == KITH_FILTER_BOOL)
        fputs(v->integer ? "true" : "false", stdout);
    else if (v->type == KITH_FILTER_INTEGER)
        printf("%" PRId64, v->integer);
    else if (kithi_decimal_write(text, v->number) > 0)
        fputs(text, stdout);
}

static void print_json(const kith_facet *f, const char *field, const struct kith_facet_info *info)
{
    struct kith_filter_value v;
    uint64_t n;
    printf("{\"epoch\":%" PRIu64 ",\"field\":", info->epoch);
    kithi_out_quote(stdout, field);
    printf(",\"vectors\":%" PRIu64 ",\"with\":%" PRIu64 ",\"distinct\":%" PRIu64 ",\"other\":%" PRIu64
           ",\"values\":[",
           info->vectors, info->with, info->distinct, info->other);
    for (uint32_t i = 0; kith_facet_value(f, i, &v, &n) == 0; i++) {
        fputs(i > 0 ? ",{\"value\":" : "{\"value\":", stdout);
        print_value(&v);
        printf(",\"count\":%" PRIu64 "}", n);
    }
    puts("]}");
}

static void print_lines(const kith_facet *f)
{
    struct kith_filter_value v;
    uint64_t n;
    for (uint32_t i = 0; kith_facet_value(f, i, &v, &n) == 0; i++) {
        printf("%10" PRIu64 "  ", n);
        print_value(&v);
        putchar('\n');
    }
}

/* What the list does not say. */
static void tell(const struct kithi_tool *t, const kith_facet *f, const char *field,
                 const struct kith_facet_info *info)
{
    if (t->json)
        return;
    fflush(stdout);
    if (info->with == 0)
        fprintf(stderr, "kith facet: none of %" PRIu64 " vectors has a value in %s\n", info->vectors, field);
    else if (info->distinct > kith_facet_count(f))
        fprintf(stderr, "kith facet: %" PRIu64 " more values: --limit lists up to %u\n",
                info->distinct - kith_facet_count(f), KITHI_FACET_VALUES);
    if (info->other > 0)
        fprintf(stderr,
                "kith facet: there are more than %" PRIu64
                " different values: those that are listed are counted rightly, "
                "%" PRIu64 " occurrences of others are not; a --filter leaves fewer\n",
                info->distinct, info->other);
}

int kithi_cmd_facet(struct kithi_tool *t, int argc, char **argv)
{
    uint64_t at = 0;
    struct kith_error error = { 0 };
    struct kith_facet_opts opts = KITH_FACET_OPTS_INIT;
    struct kith_facet_info info = KITH_FACET_INFO_INIT;
    const struct kithi_arg args[] = {
        { "--filter", KITHI_ARG_STRING, &opts.filter, 0, 0 },
        { "--limit", KITHI_ARG_NUMBER, &opts.limit, 1, KITHI_FACET_VALUES },
        { "--at", KITHI_ARG_EPOCH, &at, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 2)
        return kithi_tool_usage(t, "give one name and one field");
    const char *why = kithi_payload_path_wrong(argv[2], strlen(argv[2]));
    if (why != NULL)
        return kithi_tool_usage(t, "field \"%.64s\": %s", argv[2], why);
    status = kithi_tool_filter(t, opts.filter);
    if (status != KITHI_TOOL_OK)
        return status;
    kith *index = NULL;
    kith_facet *f = NULL;
    status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK)
        return status;
    opts.at = kithi_tool_snapshot(index, at);
    opts.error = &error;
    int rc = kith_facet_of(index, argv[2], &opts, &f);
    if (rc == 0)
        rc = kith_facet_info(f, &info);
    if (rc != 0) {
        status = kithi_tool_fail_filter(t, argv[1], rc, &error);
    } else if (t->json) {
        print_json(f, argv[2], &info);
    } else {
        print_lines(f);
        tell(t, f, argv[2], &info);
    }
    kith_facet_free(f);
    kith_close(index);
    return status;
}
