/*
 * cmd_alter.c - optimize, alter: a collection gets another segment, in its layout or in another one.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tools/args.h"
#include "tools/out.h"

/* "sift: 1,000,000 vectors laid out anew ...". */
static void print_info(const struct kithi_tool *t, const char *name, bool indexed,
                       const struct kith_alter_info *info)
{
    static const char *const DONE[] = { "nothing", "settings", "copied" };
    const char *done = info->done < sizeof DONE / sizeof *DONE ? DONE[info->done] : "?";
    char count[KITHI_OUT_TEXT_SIZE], before[KITHI_OUT_TEXT_SIZE], after[KITHI_OUT_TEXT_SIZE];
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, name);
        kithi_object_text(&o, "done", NULL, done);
        kithi_object_count(&o, "live", NULL, info->live_count);
        kithi_object_count(&o, "epoch", NULL, info->epoch);
        kithi_object_count(&o, "generation", NULL, info->generation);
        kithi_object_bytes(&o, "bytes_before", NULL, info->bytes_before);
        kithi_object_bytes(&o, "bytes_after", NULL, info->bytes_after);
        kithi_object_count(&o, "ms", NULL, info->took_ms);
        kithi_object_count(&o, "held_us", NULL, info->held_us);
        kithi_object_end(&o);
        return;
    }
    switch (info->done) {
    case KITH_ALTER_NOTHING: printf("%s is laid out so already: nothing was done\n", name); break;
    case KITH_ALTER_SETTINGS:
        printf(indexed
                   ? "%s: the fields that have postings are noted; they are made now, and filters look at "
                     "payloads until then\n"
                   : "%s is laid out so already; that it shall stay so is noted now\n",
               name);
        break;
    default:
        printf("%s: %s vectors laid out anew in %.1f s; writes waited for %.1f ms at the end\n"
               "memory taken: %s before, %s now; the former is given back in some seconds\n",
               name, kithi_out_count(count, info->live_count), (double)info->took_ms / 1000,
               (double)info->held_us / 1000, kithi_out_bytes(before, info->bytes_before),
               kithi_out_bytes(after, info->bytes_after));
    }
}

int kithi_cmd_optimize(struct kithi_tool *t, int argc, char **argv)
{
    kith *index = NULL;
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, NULL, 0, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK)
        return status;
    struct kith_error error = { 0 };
    struct kith_alter_info info = KITH_ALTER_INFO_INIT;
    int rc = kith_optimize(index, &info, &error);
    kith_close(index);
    if (rc != 0)
        return kithi_tool_fail_with(t, argv[1], rc, error.text);
    print_info(t, argv[1], false, &info);
    return KITHI_TOOL_OK;
}

int kithi_cmd_alter(struct kithi_tool *t, int argc, char **argv)
{
    kith *index = NULL;
    const char *quantization = NULL, *keep = NULL, *dim = NULL, *metric = NULL, *fields = NULL;
    struct kith_error error = { 0 };
    struct kith_alter_info info = KITH_ALTER_INFO_INIT;
    struct kith_alter_opts opts = KITH_ALTER_OPTS_INIT;
    const struct kithi_arg args[] = {
        { "--m", KITHI_ARG_NUMBER, &opts.m, KITHI_M_MIN, KITHI_M_MAX },
        { "--ef-construction", KITHI_ARG_NUMBER, &opts.ef_construction, 1, KITHI_EF_CONSTRUCTION_MAX },
        { "--quantization", KITHI_ARG_STRING, &quantization, 0, 0 },
        { "--keep", KITHI_ARG_STRING, &keep, 0, 0 },
        { "--max-vectors", KITHI_ARG_NUMBER, &opts.max_vectors, 1, KITHI_SLOT_MAX_LIMIT },
        { "--index", KITHI_ARG_STRING, &fields, 0, 0 },
        { "--dim", KITHI_ARG_STRING, &dim, 0, 0 },
        { "--metric", KITHI_ARG_STRING, &metric, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 1)
        return kithi_tool_usage(t, "give one name");
    if (dim != NULL || metric != NULL)
        return kithi_tool_usage(
            t, "%s of a collection is for ever; create another one, and load it from an export",
            dim != NULL ? "the dimension" : "the metric");
    if (quantization != NULL && !kithi_tool_quantization(quantization, &opts.quantization))
        return kithi_tool_usage(t, "--quantization is none, f16, sq8, bits or auto, not \"%s\"",
                                quantization);
    if (keep != NULL && !kithi_tool_keep(keep, &opts.keep))
        return kithi_tool_usage(t, "--keep is f32, f16 or none, not \"%s\"", keep);
    if (quantization == NULL && keep == NULL && opts.m == 0 && opts.ef_construction == 0 &&
        opts.max_vectors == 0 && fields == NULL)
        return kithi_tool_usage(t,
                                "say what shall be another: --quantization, --keep, --m, --ef-construction, "
                                "--max-vectors or --index");
    status = kithi_tool_index(t, fields);
    if (status != KITHI_TOOL_OK)
        return status;
    opts.index = fields;
    status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK)
        return status;
    opts.error = &error;
    int rc = kith_alter(index, &opts, &info);
    kith_close(index);
    if (rc != 0)
        return kithi_tool_fail_with(t, argv[1], rc, error.text);
    print_info(t, argv[1], fields != NULL, &info);
    return KITHI_TOOL_OK;
}
