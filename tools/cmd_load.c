/*
 * cmd_load.c - load: a file of vectors into a collection, in pipelined batches.
 *
 * Batches are acknowledged in any order and each is applied whole or not at all. When something is
 * wrong in the file, what was read before it is still sent and waited for. When the daemon refuses a batch, later ones
 * are under way already and may be taken. The message says how much of the file is in the collection, and from
 * where on something is missing. Loading the same file again does no harm: a vector of an id that is there is replaced.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tools/args.h"
#include "tools/out.h"
#include "tools/vectors.h"

#define PIPE_DEPTH    8u         /* batches under way: enough to keep log and index busy */
#define BATCH_VECTORS 256u       /* large enough that a group is worth a sync, small enough for progress */
#define BATCH_BYTES   (1u << 20) /* with many dimensions fewer vectors fill it */
#define STALL_MS      120000     /* an answer that takes longer than this is not coming */

/* Where the vectors of a batch came from, until it is answered. */
struct origin {
    uint64_t row[BATCH_VECTORS];
    uint64_t line[BATCH_VECTORS];
    uint32_t count;
    bool busy;
};

struct load {
    struct kithi_tool *t;
    const char *path, *payload_path;
    kith *index;
    kith_pipe *pipe;
    kith_batch *batch;
    struct origin origins[PIPE_DEPTH]; /* token of a batch = its number here */
    struct origin *filling;
    uint64_t read;                      /* vectors read */
    uint64_t loaded;                    /* vectors acknowledged */
    uint64_t epoch;                     /* highest acknowledged */
    uint64_t missing_row, missing_line; /* the first vector read and not acknowledged; row UINT64_MAX: none */
    bool lost;       /* the connection is gone: batches under way have an unknown outcome */
    bool refused;    /* the daemon did not take a batch: it is not asked for more */
    char error[640]; /* the first; "" none */
};

static void set_error(struct load *l, const char *fmt, ...) KITHI_PRINTF(2, 3);
static void set_error(struct load *l, const char *fmt, ...)
{
    va_list ap;
    if (l->error[0] != '\0')
        return;
    va_start(ap, fmt);
    vsnprintf(l->error, sizeof l->error, fmt, ap);
    va_end(ap);
}

static void note_missing(struct load *l, const struct origin *o)
{
    if (o->count == 0 || o->row[0] >= l->missing_row)
        return;
    l->missing_row = o->row[0];
    l->missing_line = o->line[0];
}

static void take_answer(struct load *l)
{
    uint64_t token = 0;
    int status = 0;
    struct kith_commit commit;
    memset(&commit, 0, sizeof commit);
    commit.struct_size = sizeof commit;
    int rc = kith_pipe_next(l->pipe, STALL_MS, &token, &status, &commit);
    if (rc <= 0) {
        set_error(l, "%s", rc == 0 ? "the daemon did not answer for two minutes" : kith_strerror(rc));
        l->lost = true;
        return;
    }
    struct origin *o = &l->origins[token % PIPE_DEPTH];
    o->busy = false;
    if (status == 0) {
        l->loaded += o->count;
        if (commit.epoch > l->epoch)
            l->epoch = commit.epoch;
        return;
    }
    l->refused = true;
    note_missing(l, o);
    const char *text = commit.error.text[0] != '\0' ? commit.error.text : kith_strerror(status);
    char where[KITHI_WHERE_SIZE];
    uint32_t item = commit.failed_item < o->count ? commit.failed_item : 0;
    kithi_vectors_where(where, l->path, o->row[item], o->line[item]);
    if (commit.failed_item < o->count)
        set_error(l, "%s: %s", where, text);
    else
        set_error(l, "%s: the batch that begins there was refused: %s", where, text);
}

/* The batch at hand is on its way; a place for the next one is found. */
static void submit(struct load *l)
{
    if (l->filling->count == 0 || l->lost || l->refused)
        return;
    uint64_t token = (uint64_t)(l->filling - l->origins);
    l->filling->busy = true;
    int rc = kith_pipe_submit(l->pipe, l->batch, token);
    kith_batch_clear(l->batch);
    if (rc != 0) { /* answers to earlier batches may still come */
        set_error(l, "%s", kith_strerror(rc));
        l->refused = true;
        return;
    }
    for (;;) {
        for (size_t i = 0; i < PIPE_DEPTH; i++) {
            if (l->origins[i].busy)
                continue;
            l->filling = &l->origins[i];
            l->filling->count = 0;
            return;
        }
        take_answer(l);
        if (l->lost)
            return;
    }
}

/* One vector of the file. False: stop reading. */
static bool add(struct load *l, const struct kithi_vector *v, const char *id, uint32_t batch_max)
{
    char where[KITHI_WHERE_SIZE];
    kithi_vectors_where(where, l->path, v->row, v->line);
    if (id == NULL) {
        set_error(l, "%s: has no \"id\"", where);
        return false;
    }
    bool none = v->payload != NULL && strcmp(v->payload, "null") == 0;
    int rc = v->payload == NULL ? kith_batch_upsert(l->batch, id, v->values, kith_dim(l->index))
                                : kith_batch_upsert_payload(l->batch, id, v->values, kith_dim(l->index),
                                                            none ? NULL : v->payload);
    if (rc < 0) {
        set_error(l, "%s: %s", where, kith_strerror(rc));
        return false;
    }
    struct origin *o = l->filling;
    o->row[o->count] = v->row;
    o->line[o->count] = v->line;
    o->count++;
    l->read++;
    if (o->count == batch_max || kith_batch_bytes(l->batch) >= BATCH_BYTES)
        submit(l);
    return l->error[0] == '\0';
}

static void read_all(struct load *l, struct kithi_vectors *vectors, struct kithi_ids_file *ids,
                     struct kithi_vectors *payloads)
{
    uint32_t fit = (uint32_t)(BATCH_BYTES / (kith_dim(l->index) * sizeof(float)));
    uint32_t batch_max = fit > BATCH_VECTORS ? BATCH_VECTORS : fit;
    struct kithi_errmsg err = { 0 };
    struct kithi_vector v;
    struct kithi_progress progress;
    kithi_progress_begin(&progress, "vectors");
    int rc;
    while ((rc = kithi_vectors_next(vectors, &v, &err)) == 1) {
        char number[24];
        const char *id = v.id;
        if (ids != NULL) {
            int got = kithi_ids_next(ids, &id, &err);
            if (got < 0)
                set_error(l, "%s", err.text);
            if (got == 0)
                set_error(l, "%s: ends after %" PRIu64 " ids, but %s goes on with row %" PRIu64, ids->path,
                          ids->count, l->path, v.row);
            if (got != 1)
                break;
        } else if (!kithi_vectors_have_ids(vectors)) {
            snprintf(number, sizeof number, "%" PRIu64, v.row);
            id = number;
        }
        if (payloads != NULL) {
            int got = kithi_payloads_next(payloads, &v.payload, &err);
            if (got < 0)
                set_error(l, "%s", err.text);
            if (got == 0)
                set_error(l, "%s: ends after %" PRIu64 " payloads, but %s goes on with row %" PRIu64,
                          l->payload_path, l->read, l->path, v.row);
            if (got != 1)
                break;
        }
        if (!add(l, &v, id, batch_max))
            break;
        kithi_progress_update(&progress, l->read, kithi_vectors_part(vectors));
    }
    if (rc < 0)
        set_error(l, "%s", err.text);
    submit(l);
    while (!l->lost && kith_pipe_pending(l->pipe) > 0)
        take_answer(l);
    for (size_t i = 0; i < PIPE_DEPTH; i++)
        if (l->origins[i].busy)
            note_missing(l, &l->origins[i]);
    if (l->loaded == 0)
        l->epoch = kith_epoch(l->index);
    kithi_progress_end(&progress);

    const char *more;
    if (rc == 0 && ids != NULL && l->error[0] == '\0' && kithi_ids_next(ids, &more, &err) != 0)
        set_error(l, "%s: has more lines than %s has rows (%" PRIu64 "): do they belong together?", ids->path,
                  l->path, l->read);
    if (rc == 0 && payloads != NULL && l->error[0] == '\0' && kithi_payloads_next(payloads, &more, &err) != 0)
        set_error(l, "%s: has more lines than %s has rows (%" PRIu64 "): do they belong together?",
                  l->payload_path, l->path, l->read);
}

static void report(const struct load *l, const char *name, double seconds)
{
    double rate = seconds > 0 ? (double)l->loaded / seconds : 0;
    if (l->t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, name);
        kithi_object_text(&o, "file", NULL, l->path);
        kithi_object_count(&o, "read", NULL, l->read);
        kithi_object_count(&o, "loaded", NULL, l->loaded);
        kithi_object_count(&o, "epoch", NULL, l->epoch);
        kithi_object_real(&o, "seconds", NULL, seconds);
        kithi_object_real(&o, "rate", NULL, rate);
        char row[24];
        snprintf(row, sizeof row, "%" PRIu64, l->missing_row);
        kithi_object_json(&o, "first_missing", l->missing_row != UINT64_MAX ? row : NULL);
        kithi_object_text(&o, "error", NULL, l->error[0] != '\0' ? l->error : NULL);
        kithi_object_end(&o);
    } else if (l->error[0] == '\0') {
        char count[KITHI_OUT_TEXT_SIZE], per[KITHI_OUT_TEXT_SIZE];
        printf("loaded %s vectors in %.1f s (%s/s), epoch %" PRIu64 "\n", kithi_out_count(count, l->loaded),
               seconds, kithi_out_count(per, (uint64_t)rate), l->epoch);
    }
}

/* After the message: what is in the collection now. */
static void report_part(const struct load *l)
{
    char where[KITHI_WHERE_SIZE];
    if (l->missing_row == UINT64_MAX) {
        fprintf(stderr, "%" PRIu64 " vectors were loaded; they stay\n", l->loaded);
        return;
    }
    /* All before the first that is missing are in. */
    uint64_t after = l->loaded - l->missing_row;
    kithi_vectors_where(where, l->path, l->missing_row, l->missing_line);
    fprintf(stderr, "%" PRIu64 " vectors were loaded; the first that %s missing is ", l->loaded,
            l->lost ? "may be" : "is");
    kithi_out_plain(stderr, where);
    if (after > 0)
        fprintf(stderr, ", but %" PRIu64 " behind it, under way by then, are in", after);
    if (l->lost)
        fprintf(stderr, "; up to %" PRIu64 " more may have been loaded", l->read - l->loaded);
    fputs("; loading the file again, once the cause is gone, completes it\n", stderr);
}

int kithi_cmd_load(struct kithi_tool *t, int argc, char **argv)
{
    const char *ids_path = NULL, *durability = NULL, *payload_path = NULL;
    const struct kithi_arg args[] = {
        { "--ids", KITHI_ARG_STRING, &ids_path, 0, 0 },
        { "--durability", KITHI_ARG_STRING, &durability, 0, 0 },
        { "--payload", KITHI_ARG_STRING, &payload_path, 0, 0 },
    };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 2)
        return kithi_tool_usage(t, "give a name and a file");

    struct kithi_errmsg err = { 0 };
    struct kithi_vectors *vectors = NULL, *payloads = NULL;
    struct kithi_ids_file ids = { 0 };
    struct load *l = calloc(1, sizeof *l);
    if (l == NULL)
        return kithi_tool_fail(t, "out of memory");
    l->t = t;
    l->path = argv[2];
    l->payload_path = payload_path;
    l->filling = &l->origins[0];
    l->missing_row = UINT64_MAX;

    status = kithi_tool_open(t, argv[1], &l->index);
    if (status == KITHI_TOOL_OK)
        status = kithi_tool_durability(t, durability, l->index);
    if (status != KITHI_TOOL_OK)
        goto out;
    if (kithi_vectors_open(l->path, kith_dim(l->index), &vectors, &err) != 0) {
        status = kithi_tool_fail(t, "%s", err.text);
        goto out;
    }
    if (ids_path != NULL && kithi_vectors_have_ids(vectors)) {
        status = kithi_tool_usage(t, "--ids does not go with a .jsonl file, whose lines carry their ids");
        goto out;
    }
    if (ids_path != NULL && kithi_ids_open(ids_path, &ids, &err) != 0) {
        status = kithi_tool_fail(t, "%s", err.text);
        goto out;
    }
    if (payload_path != NULL && kithi_vectors_have_ids(vectors)) {
        status =
            kithi_tool_usage(t, "--payload does not go with a .jsonl file, whose lines carry their payloads");
        goto out;
    }
    if (payload_path != NULL && kithi_payloads_open(payload_path, &payloads, &err) != 0) {
        status = kithi_tool_fail(t, "%s", err.text);
        goto out;
    }
    l->batch = kith_batch_new(l->index);
    if (l->batch == NULL) {
        status = kithi_tool_fail(t, "out of memory");
        goto out;
    }
    int rc = kith_pipe_open(l->index, PIPE_DEPTH, &l->pipe);
    if (rc != 0) {
        status = kithi_tool_fail_with(t, argv[1], rc, "");
        goto out;
    }

    uint64_t begin = kithi_tool_now_ns();
    read_all(l, vectors, ids_path != NULL ? &ids : NULL, payloads);
    report(l, argv[1], (double)(kithi_tool_now_ns() - begin) / 1e9);
    if (l->error[0] != '\0') {
        status = kithi_tool_fail(t, "%s", l->error);
        report_part(l);
    }
out:
    kith_pipe_close(l->pipe);
    kith_batch_free(l->batch);
    kithi_ids_close(&ids);
    kithi_vectors_close(vectors);
    kithi_vectors_close(payloads);
    kith_close(l->index);
    free(l);
    return status;
}
