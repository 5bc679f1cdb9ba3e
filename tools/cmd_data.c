/*
 * cmd_data.c - put, get, delete: single vectors.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/args.h"
#include "tools/fields.h"
#include "tools/out.h"
#include "tools/query.h"

int kithi_cmd_put(struct kithi_tool *t, int argc, char **argv)
{
    const char *text = NULL, *durability = NULL, *payload = NULL;
    const struct kithi_arg args[] = {
        { "--vector", KITHI_ARG_STRING, &text, 0, 0 },
        { "--durability", KITHI_ARG_STRING, &durability, 0, 0 },
        { "--payload", KITHI_ARG_STRING, &payload, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 2)
        return kithi_tool_usage(t, "give a name and an id");
    if (text == NULL)
        return kithi_tool_usage(t, "--vector is missing");
    bool none = payload != NULL && strcmp(payload, "null") == 0;
    struct kith_error error = { 0 };
    if (payload != NULL && !none &&
        kith_payload_check(KITH_PAYLOAD_REPLACE, payload, &error) == KITH_E_PAYLOAD)
        return kithi_tool_usage(t, "--payload: %s", error.text);

    const char *id = argv[2];
    kith *index = NULL;
    float *vector = NULL;
    kith_batch *batch = NULL;
    struct kith_commit commit;
    memset(&commit, 0, sizeof commit);
    commit.struct_size = sizeof commit;

    status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK)
        return status;
    status = kithi_tool_durability(t, durability, index);
    if (status == KITHI_TOOL_OK)
        status = kithi_query_parse(t, text, kith_dim(index), &vector);
    if (status != KITHI_TOOL_OK)
        goto out;
    /* A batch of one, because its answer carries the daemon's own words. */
    batch = kith_batch_new(index);
    int rc = batch == NULL ? -ENOMEM
             : payload == NULL
                 ? kith_batch_upsert(batch, id, vector, kith_dim(index))
                 : kith_batch_upsert_payload(batch, id, vector, kith_dim(index), none ? NULL : payload);
    if (rc >= 0)
        rc = kith_batch_commit(batch, &commit);
    if (rc < 0) {
        status = kithi_tool_fail(t, "id \"%.64s\": %s", id,
                                 commit.error.text[0] != '\0' ? commit.error.text : kith_strerror(rc));
        goto out;
    }
    kithi_tool_committed(t, "put ", id, "", &commit);
out:
    kith_batch_free(batch);
    free(vector);
    kith_close(index);
    return status;
}

int kithi_cmd_get(struct kithi_tool *t, int argc, char **argv)
{
    uint64_t epoch = 0;
    bool payload = false;
    const char *fields_text = NULL;
    struct kithi_field_list fields;
    const struct kithi_arg args[] = {
        { "--at", KITHI_ARG_EPOCH, &epoch, 0, 0 },
        { "--payload", KITHI_ARG_FLAG, &payload, 0, 0 },
        { "--fields", KITHI_ARG_STRING, &fields_text, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 2)
        return kithi_tool_usage(t, "give a name and an id");
    status = kithi_fields_parse(t, fields_text, &fields);
    if (status != KITHI_TOOL_OK)
        return status;
    payload |= fields.count > 0;

    kith *index = NULL;
    struct kithi_map map = { 0 };
    status = kithi_tool_attach(t, argv[1], &map); /* what it keeps, without asking the daemon */
    if (status == KITHI_TOOL_OK)
        status = kithi_tool_open(t, argv[1], &index);
    const char *decoded = kithi_tool_decoded(map.geometry.quantization, map.geometry.keep);
    kithi_map_detach(&map);
    if (status != KITHI_TOOL_OK) {
        kithi_fields_free(&fields);
        return status;
    }
    kith_results *found = kith_results_new();
    struct kith_fetch_opts opts = KITH_FETCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    opts.vector = 1;
    opts.payloads = payload;
    opts.field_count = fields.count;
    opts.fields = fields.paths;
    opts.at = kithi_tool_snapshot(index, epoch);
    int rc = found == NULL ? -ENOMEM : kith_fetch(index, argv[2], &opts, found);
    const float *vector = rc == 0 ? kith_results_vector(found, 0) : NULL;
    const char *text = rc == 0 ? kith_results_payload(found, 0) : NULL;
    if (rc == 0)
        kith_results_info(found, &info);
    if (rc < 0) {
        status = kithi_tool_fail(t, "id \"%.64s\": %s", argv[2], kith_strerror(rc));
    } else if (t->json) {
        fputs("{\"id\":", stdout);
        kithi_out_quote(stdout, argv[2]);
        fputs(",\"vector\":", stdout);
        kithi_out_vector(stdout, vector, kith_dim(index));
        if (payload)
            printf(",\"payload\":%s", text != NULL ? text : "null");
        printf(",\"epoch\":%" PRIu64 ",\"decoded\":%s}\n", info.epoch, decoded != NULL ? "true" : "false");
    } else {
        kithi_tool_tell_decoded(t, decoded);
        kithi_out_vector(stdout, vector, kith_dim(index)); /* as put --vector takes it */
        putchar('\n');
        if (payload) {
            kithi_out_plain(stdout, text != NULL ? text : "null");
            putchar('\n');
        }
    }
    kith_results_free(found);
    kithi_fields_free(&fields);
    kith_close(index);
    return status;
}

/* Everything that fulfils a filter. Returns an exit status. */
static int delete_matching(struct kithi_tool *t, const char *name, kith *index, const char *filter)
{
    struct kith_error error = { 0 };
    uint64_t deleted = 0, epoch = 0;
    int rc = kith_delete_filter(index, filter, &deleted, &epoch, &error);
    int status = rc < 0 ? kithi_tool_fail_filter(t, name, rc, &error) : KITHI_TOOL_OK;
    if (rc < 0 && deleted == 0)
        return status;
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_count(&o, "deleted", NULL, deleted);
        kithi_object_count(&o, "epoch", NULL, epoch);
        kithi_object_end(&o);
    } else {
        printf("deleted %" PRIu64 " vectors, epoch %" PRIu64 "\n", deleted, epoch);
    }
    return status;
}

int kithi_cmd_delete(struct kithi_tool *t, int argc, char **argv)
{
    const char *durability = NULL, *filter = NULL;
    const struct kithi_arg args[] = { { "--durability", KITHI_ARG_STRING, &durability, 0, 0 },
                                      { "--filter", KITHI_ARG_STRING, &filter, 0, 0 } };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (filter != NULL && count != 1)
        return kithi_tool_usage(t, "give a name and either ids or --filter");
    if (filter == NULL && count < 2)
        return kithi_tool_usage(t, "give a name and at least one id");
    status = kithi_tool_filter(t, filter);
    if (status != KITHI_TOOL_OK)
        return status;

    kith *index = NULL;
    status = kithi_tool_open(t, argv[1], &index);
    if (status != KITHI_TOOL_OK)
        return status;
    int failed = kithi_tool_durability(t, durability, index);
    if (filter != NULL && failed != KITHI_TOOL_USAGE)
        failed = delete_matching(t, argv[1], index, filter);
    for (int i = 2; i <= count && failed != KITHI_TOOL_USAGE; i++) {
        uint64_t epoch = 0;
        int rc = kith_delete(index, argv[i], &epoch);
        if (rc < 0) {
            failed = kithi_tool_fail(t, "id \"%.64s\": %s", argv[i], kith_strerror(rc));
            if (rc != KITH_E_NOT_FOUND && rc != KITH_E_ID)
                break;
            continue;
        }
        if (t->json) {
            struct kithi_object o;
            kithi_object_begin(&o, true);
            kithi_object_text(&o, "id", NULL, argv[i]);
            kithi_object_count(&o, "epoch", NULL, epoch);
            kithi_object_end(&o);
        } else {
            fputs("deleted ", stdout);
            kithi_out_plain(stdout, argv[i]);
            printf(", epoch %" PRIu64 "\n", epoch);
        }
    }
    kith_close(index);
    return failed;
}
