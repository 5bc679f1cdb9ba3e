/*
 * cmd_payload.c - payload: what belongs to an id beside its vector, shown or changed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/args.h"
#include "tools/fields.h"
#include "tools/out.h"

/* a,b.c as kith_set_payload() takes it; NULL: out of memory. */
static char *list_of(const struct kithi_field_list *fields)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (f == NULL)
        return NULL;
    for (uint32_t i = 0; i < fields->count; i++) {
        fputc(i ? ',' : '[', f);
        kithi_out_quote(f, fields->paths[i]);
    }
    fputc(']', f);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static int show(struct kithi_tool *t, kith *index, const char *id, const struct kithi_field_list *fields,
                uint64_t epoch)
{
    struct kith_fetch_opts opts = KITH_FETCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    kith_results *r = kith_results_new();
    int status = KITHI_TOOL_OK;
    opts.payloads = 1;
    opts.field_count = fields->count;
    opts.fields = fields->paths;
    opts.at = kithi_tool_snapshot(index, epoch);
    int rc = r == NULL ? -ENOMEM : kith_fetch(index, id, &opts, r);
    if (rc < 0) {
        status = kithi_tool_fail(t, "id \"%.64s\": %s", id, kith_strerror(rc));
    } else if (t->json) {
        kith_results_info(r, &info);
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "id", NULL, id);
        kithi_object_json(&o, "payload", kith_results_payload(r, 0));
        kithi_object_count(&o, "epoch", NULL, info.epoch);
        kithi_object_end(&o);
    } else {
        const char *payload = kith_results_payload(r, 0);
        kithi_out_plain(stdout, payload != NULL ? payload : "null");
        putchar('\n');
    }
    kith_results_free(r);
    return status;
}

static int change(struct kithi_tool *t, kith *index, const char *id, enum kith_payload_change how,
                  const char *text)
{
    struct kith_error error = { 0 };
    struct kith_commit commit = KITH_COMMIT_INIT;
    int rc = text != NULL ? kith_payload_check(how, text, &error) : 0;
    if (rc == KITH_E_PAYLOAD)
        return kithi_tool_usage(t, "%s", error.text);
    /* A batch of one, because its answer carries the daemon's own words. */
    kith_batch *batch = rc < 0 ? NULL : kith_batch_new(index);
    if (rc == 0)
        rc = batch == NULL ? -ENOMEM : kith_batch_set_payload(batch, id, how, text);
    if (rc == 0)
        rc = kith_batch_commit(batch, &commit);
    if (rc == 0 && commit.found == 0)
        rc = KITH_E_NOT_FOUND;
    kith_batch_free(batch);
    if (rc < 0)
        return kithi_tool_fail(t, "id \"%.64s\": %s", id,
                               commit.error.text[0] != '\0' ? commit.error.text : kith_strerror(rc));
    kithi_tool_committed(t, "payload of ", id, " changed", &commit);
    return KITHI_TOOL_OK;
}

int kithi_cmd_payload(struct kithi_tool *t, int argc, char **argv)
{
    const char *set = NULL, *merge = NULL, *removed = NULL, *fields_text = NULL, *durability = NULL;
    uint64_t epoch = 0;
    struct kithi_field_list fields = { .text = NULL };
    const struct kithi_arg args[] = {
        { "--set", KITHI_ARG_STRING, &set, 0, 0 },
        { "--merge", KITHI_ARG_STRING, &merge, 0, 0 },
        { "--remove", KITHI_ARG_STRING, &removed, 0, 0 },
        { "--fields", KITHI_ARG_STRING, &fields_text, 0, 0 },
        { "--at", KITHI_ARG_EPOCH, &epoch, 0, 0 },
        { "--durability", KITHI_ARG_STRING, &durability, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 2)
        return kithi_tool_usage(t, "give a name and an id");
    int changes = (set != NULL) + (merge != NULL) + (removed != NULL);
    if (changes > 1)
        return kithi_tool_usage(t, "give one of --set, --merge and --remove");
    if (changes && (fields_text != NULL || epoch))
        return kithi_tool_usage(t, "--fields and --at are for showing a payload");
    if (!changes && durability != NULL)
        return kithi_tool_usage(t, "--durability is for changing a payload");
    status = kithi_fields_parse(t, changes ? removed : fields_text, &fields);
    if (status != KITHI_TOOL_OK)
        return status;

    kith *index = NULL;
    char *list = NULL;
    status = kithi_tool_open(t, argv[1], &index);
    if (status == KITHI_TOOL_OK)
        status = kithi_tool_durability(t, durability, index);
    if (status != KITHI_TOOL_OK)
        goto out;
    if (!changes) {
        status = show(t, index, argv[2], &fields, epoch);
    } else if (merge != NULL) {
        status = change(t, index, argv[2], KITH_PAYLOAD_MERGE, merge);
    } else if (removed != NULL) {
        list = list_of(&fields);
        status = list == NULL ? kithi_tool_fail(t, "out of memory")
                              : change(t, index, argv[2], KITH_PAYLOAD_REMOVE, list);
    } else {
        status = change(t, index, argv[2], KITH_PAYLOAD_REPLACE, strcmp(set, "null") == 0 ? NULL : set);
    }
out:
    free(list);
    kithi_fields_free(&fields);
    kith_close(index);
    return status;
}
