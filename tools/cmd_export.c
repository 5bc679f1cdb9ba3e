/*
 * cmd_export.c - export: every vector of one snapshot into a file.
 *
 * Written to FILE.partial and renamed at the end, so that FILE is complete whenever it is there. The
 * other formats have no room for ids: .fvecs and .npy get a file of ids beside, one a line.
 *
 * Payloads are copied before the first line is written, to a file that has no name any more. A version that was replaced is there for about
 * half a second only, which is enough to copy many of them and not to write the vectors of as many; vectors whose payloads are changed stay.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/src/payload.h"
#include "shm/graph/payload.h"
#include "shm/graph/scan.h"
#include "tools/args.h"
#include "tools/out.h"
#include "tools/vectors.h"

#define RESTART_MAX     8u   /* snapshots that were overtaken while being written */
#define VIEWS_MAX       4u   /* in a row that had no memory for the newest version */
#define NPY_HEADER_SIZE 128u /* a multiple of 64, with room for the largest numbers */

enum kind { KIND_JSONL, KIND_FVECS, KIND_NPY };

/* Before each payload in the file of them; the last has the slot NO_SLOT. */
struct copied {
    uint32_t slot, len;
};
#define NO_SLOT UINT32_MAX

struct export
{
    struct kithi_tool *t;
    enum kind kind;
    const char *path;
    char *ids_path; /* NULL: the format carries ids */
    char *partial, *ids_partial;
    FILE *f, *ids;
    float *vector;
    FILE *payloads;         /* copies of the snapshot's, in the order of slots; NULL: not wanted */
    struct copied copied;   /* the next one there */
    unsigned char *payload; /* of an item, and its text */
    char *text;
    size_t text_capacity;
    uint64_t count;
    uint64_t at; /* epoch that was asked for; 0: now */
    uint64_t epoch;
    const char *decoded; /* codec that the values come from; NULL: they are those that were put */
};

static int fail_write(const struct export *e, const char *path)
{
    int code = errno;
    return kithi_tool_fail(e->t, "%s: cannot be written: %s", path, strerror(code));
}

/* NumPy wants the header's length to make the data begin at a multiple of 64. */
static int write_npy_header(FILE *f, uint64_t rows, uint32_t dim)
{
    char header[NPY_HEADER_SIZE];
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)(NPY_HEADER_SIZE - 10);
    header[9] = 0;
    int len = snprintf(header + 10, sizeof header - 10,
                       "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64 ", %u), }", rows, dim);
    header[10 + len] = ' ';
    header[sizeof header - 1] = '\n';
    return fwrite(header, sizeof header, 1, f) == 1 ? 0 : -1;
}

static enum kithi_payload_seen read_payload(const struct export *e, const struct kithi_scan *scan,
                                            const struct kithi_item *item, uint32_t *out_len)
{
    enum kithi_payload_seen seen = KITHI_PAYLOAD_AGAIN;
    for (uint32_t i = 0; i < VIEWS_MAX && seen == KITHI_PAYLOAD_AGAIN; i++) {
        /* Versions since then may lie in memory that the segment did not have when the scan began, and lead to the one of its epoch. */
        struct kithi_view v;
        kithi_view_begin(scan->view.map, &v);
        v.epoch = scan->view.epoch;
        seen = kithi_view_payload(&v, item->slot, item->birth, e->payload, out_len);
    }
    return seen;
}

/* All payloads of the snapshot that is to be scanned, to the file of them. *out_rc is 0, or why the scan has to begin again. */
static int copy_payloads(struct export *e, const struct kithi_scan *scan, int *out_rc)
{
    struct kithi_scan s = *scan;
    struct kithi_item item;
    struct copied c = { 0 };
    rewind(e->payloads);
    while ((*out_rc = kithi_scan_next(&s, &item, NULL)) == 1) {
        enum kithi_payload_seen seen = read_payload(e, &s, &item, &c.len);
        if (seen == KITHI_PAYLOAD_AGAIN) {
            *out_rc = KITHI_E_STALE;
            break;
        }
        c.slot = item.slot;
        if (seen == KITHI_PAYLOAD_FOUND &&
            (fwrite(&c, sizeof c, 1, e->payloads) != 1 || fwrite(e->payload, 1, c.len, e->payloads) != c.len))
            return fail_write(e, e->partial);
    }
    c = (struct copied){ .slot = NO_SLOT };
    if (fwrite(&c, sizeof c, 1, e->payloads) != 1 || fflush(e->payloads) != 0)
        return fail_write(e, e->partial);
    rewind(e->payloads);
    return fread(&e->copied, sizeof e->copied, 1, e->payloads) == 1 ? KITHI_TOOL_OK
                                                                    : fail_write(e, e->partial);
}

/* The text of the payload that was copied of a slot, in e->text; NULL for none. Slots come in their order. */
static int payload_of(struct export *e, uint32_t slot, const char **out)
{
    struct kithi_payload p = { .bytes = e->payload };
    *out = NULL;
    while (e->copied.slot <= slot && e->copied.slot != NO_SLOT) {
        bool is_it = e->copied.slot == slot;
        p.len = e->copied.len;
        if (fread(e->payload, 1, p.len, e->payloads) != p.len ||
            fread(&e->copied, sizeof e->copied, 1, e->payloads) != 1)
            return -EIO;
        if (is_it)
            break;
        p.len = 0; /* its slot was reused since */
    }
    if (!p.len)
        return 0;
    if (kithi_payload_check(p.bytes, p.len, NULL) < 0)
        return KITHI_E_CORRUPT;
    size_t len = kithi_payload_to_json(&p, e->text, e->text_capacity);
    if (len >= e->text_capacity) {
        char *text = realloc(e->text, len + 1);
        if (text == NULL)
            return -ENOMEM;
        e->text = text;
        e->text_capacity = len + 1;
        kithi_payload_to_json(&p, e->text, e->text_capacity);
    }
    e->text[len] = '\0';
    *out = e->text;
    return 0;
}

static int write_item(struct export *e, const struct kithi_item *item, const char *payload, uint32_t dim)
{
    switch (e->kind) {
    case KIND_JSONL:
        fputs("{\"id\":", e->f);
        kithi_out_quote(e->f, item->id);
        fputs(",\"vector\":", e->f);
        kithi_out_vector(e->f, e->vector, dim);
        if (payload != NULL)
            fprintf(e->f, ",\"payload\":%s", payload);
        fputs("}\n", e->f);
        break;
    case KIND_FVECS: fwrite(&dim, sizeof dim, 1, e->f); /* fall through */
    case KIND_NPY:
        fwrite(e->vector, sizeof(float), dim, e->f);
        if (strchr(item->id, '\n') != NULL)
            return kithi_tool_fail(
                e->t, "id \"%.64s\" holds a line break, which a file of ids cannot; export to .jsonl",
                item->id);
        fprintf(e->ids, "%s\n", item->id);
    }
    if (ferror(e->f))
        return fail_write(e, e->partial);
    if (e->ids != NULL && ferror(e->ids))
        return fail_write(e, e->ids_partial);
    return KITHI_TOOL_OK;
}

/* One snapshot from its beginning. *out_rc is 0, or why the scan has to begin again. */
static int write_snapshot(struct export *e, const struct kithi_map *map, int *out_rc)
{
    struct kithi_scan scan;
    struct kithi_item item;
    const uint32_t dim = map->geometry.dim;
    rewind(e->f);
    if (e->ids != NULL)
        rewind(e->ids);
    if (e->kind == KIND_NPY && write_npy_header(e->f, 0, dim) != 0)
        return fail_write(e, e->partial);

    struct kithi_progress progress;
    kithi_progress_begin(&progress, "vectors");
    int status = KITHI_TOOL_OK;
    struct kithi_moment at = { 0 };
    if (e->at)
        at = (struct kithi_moment){ .epoch = e->at,
                                    .timeline = atomic_load_explicit(&kithi_map_header(map)->timeline,
                                                                     memory_order_relaxed) };
    int rc = kithi_scan_begin_at(map, &at, &scan);
    e->count = 0;
    e->epoch = scan.view.epoch;
    e->decoded = kithi_tool_decoded(map->geometry.quantization, map->geometry.keep);
    if (rc == 0 && e->payloads != NULL)
        status = copy_payloads(e, &scan, &rc);
    while (rc >= 0 && status == KITHI_TOOL_OK && (rc = kithi_scan_next(&scan, &item, e->vector)) == 1) {
        const char *payload = NULL;
        if (e->payloads != NULL && (rc = payload_of(e, item.slot, &payload)) < 0)
            break;
        status = write_item(e, &item, payload, dim);
        if (status != KITHI_TOOL_OK)
            break;
        e->count++;
        kithi_progress_update(&progress, e->count, (double)scan.next / ((double)scan.view.slots_used + 1));
    }
    kithi_progress_end(&progress);
    *out_rc = status == KITHI_TOOL_OK ? rc : 0;
    if (status != KITHI_TOOL_OK || rc != 0)
        return status;

    /* What an overtaken attempt wrote beyond this one goes away. */
    if (fflush(e->f) != 0 || ftruncate(fileno(e->f), ftello(e->f)) != 0)
        return fail_write(e, e->partial);
    if (e->ids != NULL && (fflush(e->ids) != 0 || ftruncate(fileno(e->ids), ftello(e->ids)) != 0))
        return fail_write(e, e->ids_partial);
    if (e->kind == KIND_NPY) {
        rewind(e->f);
        if (write_npy_header(e->f, e->count, dim) != 0)
            return fail_write(e, e->partial);
    }
    return KITHI_TOOL_OK;
}

static int write_all(struct export *e, const char *name)
{
    int rc = 0;
    for (unsigned attempt = 0; attempt <= RESTART_MAX; attempt++) {
        struct kithi_map map = { 0 };
        int status = kithi_tool_attach(e->t, name, &map);
        if (status != KITHI_TOOL_OK)
            return status;
        e->vector = realloc(e->vector, map.geometry.dim * sizeof(float));
        if (e->payload == NULL)
            e->payload = malloc(KITHI_PAYLOAD_MAX);
        status = e->vector == NULL || e->payload == NULL ? kithi_tool_fail(e->t, "out of memory")
                                                         : write_snapshot(e, &map, &rc);
        kithi_map_detach(&map);
        if (status != KITHI_TOOL_OK || rc == 0)
            return status;
        if ((rc != KITHI_E_STALE || e->at) && rc != KITHI_E_MOVED)
            break;
    }
    return kithi_tool_fail_with(e->t, name, rc, "");
}

/* Beside the file that is written, where there is room for that. */
static int open_payloads(struct export *e)
{
    char *path = NULL;
    if (asprintf(&path, "%s.payloads", e->partial) < 0)
        return kithi_tool_fail(e->t, "out of memory");
    e->payloads = fopen(path, "w+be");
    int status = e->payloads == NULL ? fail_write(e, path) : KITHI_TOOL_OK;
    if (e->payloads != NULL)
        unlink(path);
    free(path);
    return status;
}

/* Close, sync and rename one of the two files. */
static int finish(const struct export *e, FILE **f, const char *partial, const char *path)
{
    int rc = fflush(*f) == 0 && fsync(fileno(*f)) == 0 ? 0 : -1;
    if (fclose(*f) != 0)
        rc = -1;
    *f = NULL;
    if (rc != 0 || rename(partial, path) != 0)
        return fail_write(e, path);
    return KITHI_TOOL_OK;
}

/* "dir/x.fvecs" -> "dir/x.ids" */
static char *ids_path_of(const char *path)
{
    char *out = NULL;
    int stem = (int)(strrchr(path, '.') - path);
    return asprintf(&out, "%.*s.ids", stem, path) < 0 ? NULL : out;
}

int kithi_cmd_export(struct kithi_tool *t, int argc, char **argv)
{
    struct export e = { .t = t };
    const struct kithi_arg args[] = { { "--at", KITHI_ARG_EPOCH, &e.at, 0, 0 } };
    int count = 0;
    int status = kithi_args_parse(t, argc, argv, args, sizeof args / sizeof *args, &count);
    if (status != KITHI_TOOL_OK)
        return status;
    if (count != 2)
        return kithi_tool_usage(t, "give a name and a file");
    e.path = argv[2];
    if (kithi_has_suffix(e.path, ".jsonl"))
        e.kind = KIND_JSONL;
    else if (kithi_has_suffix(e.path, ".fvecs"))
        e.kind = KIND_FVECS;
    else if (kithi_has_suffix(e.path, ".npy"))
        e.kind = KIND_NPY;
    else
        return kithi_tool_usage(t, "%s: vectors are written to .jsonl, .fvecs and .npy files", e.path);

    bool whole = asprintf(&e.partial, "%s.partial", e.path) >= 0;
    if (whole && e.kind != KIND_JSONL) {
        e.ids_path = ids_path_of(e.path);
        whole = e.ids_path != NULL && asprintf(&e.ids_partial, "%s.partial", e.ids_path) >= 0;
    }
    if (!whole) {
        status = kithi_tool_fail(t, "out of memory");
        goto out;
    }
    /* The collection first: a wrong name leaves no file behind. */
    struct kithi_map map = { 0 };
    status = kithi_tool_attach(t, argv[1], &map);
    if (status != KITHI_TOOL_OK)
        goto out;
    kithi_map_detach(&map);

    e.f = fopen(e.partial, "wbe");
    if (e.f == NULL) {
        status = fail_write(&e, e.partial);
        goto out;
    }
    if (e.ids_path != NULL && (e.ids = fopen(e.ids_partial, "wbe")) == NULL) {
        status = fail_write(&e, e.ids_partial);
        goto out;
    }
    status = e.kind == KIND_JSONL ? open_payloads(&e) : KITHI_TOOL_OK;
    if (status == KITHI_TOOL_OK)
        status = write_all(&e, argv[1]);
    if (status == KITHI_TOOL_OK && e.ids != NULL)
        status = finish(&e, &e.ids, e.ids_partial, e.ids_path);
    if (status == KITHI_TOOL_OK)
        status = finish(&e, &e.f, e.partial, e.path);
    if (status != KITHI_TOOL_OK) {
        unlink(e.partial);
        if (e.ids_partial != NULL)
            unlink(e.ids_partial);
        goto out;
    }
    if (t->json) {
        struct kithi_object o;
        kithi_object_begin(&o, true);
        kithi_object_text(&o, "name", NULL, argv[1]);
        kithi_object_text(&o, "file", NULL, e.path);
        kithi_object_text(&o, "ids_file", NULL, e.ids_path);
        kithi_object_count(&o, "exported", NULL, e.count);
        kithi_object_count(&o, "epoch", NULL, e.epoch);
        kithi_object_bool(&o, "decoded", NULL, e.decoded != NULL);
        kithi_object_end(&o);
    } else {
        char text[KITHI_OUT_TEXT_SIZE];
        kithi_tool_tell_decoded(t, e.decoded);
        printf("exported %s vectors of epoch %" PRIu64 " to %s%s%s\n", kithi_out_count(text, e.count),
               e.epoch, e.path, e.ids_path != NULL ? ", ids to " : "", e.ids_path != NULL ? e.ids_path : "");
    }
out:
    if (e.f != NULL)
        fclose(e.f);
    if (e.ids != NULL)
        fclose(e.ids);
    if (e.payloads != NULL)
        fclose(e.payloads);
    free(e.vector);
    free(e.payload);
    free(e.text);
    free(e.partial);
    free(e.ids_path);
    free(e.ids_partial);
    return status;
}
