/*
 * ledger.c - see ledger.h.
 */
#include "tests/crash/fail/ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/graph/scan.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"

#define UNKNOWN_MAX 12u /* of which all combinations are tried */
#define VERSION_MAX 1000u
#define SCAN_MS     30000u

const char *const ledger_names[LEDGER_COLLECTIONS] = { "main", "side" };

struct content {
    bool there;
    uint32_t version[LEDGER_IDS]; /* 0: not there */
};

/* ---- the client ---- */

/* It says itself what it is, so that what is read needs no search among versions. */
static void vector_of(uint32_t id, uint32_t version, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, (uint64_t)id << 32 | version);
    test_rand_floats(&r, out, LEDGER_DIM);
    out[0] = (float)id;
    out[1] = (float)version;
}

void ledger_client_init(struct ledger_client *c, struct ledger *ledger, const char *run, const char *data)
{
    memset(c, 0, sizeof *c);
    c->ledger = ledger;
    snprintf(c->run, sizeof c->run, "%s", run);
    snprintf(c->data, sizeof c->data, "%s", data);
}

static void let_go(struct ledger_client *c, enum ledger_collection which)
{
    kith_close(c->handles[which]);
    c->handles[which] = NULL;
}

void ledger_client_fini(struct ledger_client *c)
{
    for (unsigned i = 0; i < LEDGER_COLLECTIONS; i++)
        let_go(c, i);
}

static int have_handle(struct ledger_client *c, enum ledger_collection which, struct kith_error *error)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = c->run;
    opts.error = error;
    return c->handles[which] ? 0 : kith_open(ledger_names[which], &opts, &c->handles[which]);
}

static struct ledger_op *note(struct ledger_client *c, const struct ledger_op *op)
{
    uint32_t n = atomic_load(&c->ledger->count);
    if (n == LEDGER_OPS)
        test_die("the ledger is full");
    struct ledger_op *to = &c->ledger->ops[n];
    to->kind = op->kind;
    to->collection = op->collection;
    to->first = op->first;
    to->count = op->count;
    to->version = op->version;
    to->code = 0;
    to->text[0] = 0;
    atomic_store(&to->outcome, LEDGER_UNKNOWN);
    atomic_store(&c->ledger->count, n + 1);
    return to;
}

/* Answers after which nobody knows. Of a log that has failed: what was written last may be on the disk. */
static bool is_unknown(int code)
{
    return code == KITH_E_UNKNOWN_OUTCOME || code == KITH_E_LOG_FAILED || code == KITH_E_TIMEOUT;
}

static int settle(struct ledger_client *c, struct ledger_op *op, int code, const struct kith_error *error)
{
    const char *text = error->code == code && error->text[0] ? error->text : kith_strerror(code);
    op->code = code;
    if (code < 0)
        snprintf(op->text, sizeof op->text, "%.*s", (int)sizeof op->text - 1, text);
    if (code < 0 && !text[0])
        snprintf(c->ledger->bad, sizeof c->ledger->bad, "error %d comes without a sentence", code);
    atomic_store(&op->outcome, code == 0 ? LEDGER_DONE : is_unknown(code) ? LEDGER_UNKNOWN : LEDGER_REFUSED);
    return code;
}

int ledger_create(struct ledger_client *c, enum ledger_collection which)
{
    struct kith_error error = { 0 };
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    struct ledger_op *op = note(c, &(struct ledger_op){ .kind = LEDGER_CREATE, .collection = which });
    opts.dim = LEDGER_DIM;
    opts.metric = KITH_METRIC_L2;
    opts.m = 4;
    opts.ef_construction = 8;
    opts.max_vectors = 8192;
    opts.run_dir = c->run;
    opts.error = &error;
    return settle(c, op, kith_create(ledger_names[which], &opts), &error);
}

int ledger_drop(struct ledger_client *c, enum ledger_collection which)
{
    struct kith_error error = { 0 };
    struct ledger_op *op = note(c, &(struct ledger_op){ .kind = LEDGER_DROP, .collection = which });
    let_go(c, which);
    return settle(c, op, kith_drop(ledger_names[which], c->run, &error), &error);
}

static int write_range(struct ledger_client *c, const struct ledger_op *want)
{
    float vector[LEDGER_DIM];
    char id[16];
    struct kith_commit commit = KITH_COMMIT_INIT;
    struct kith_error error = { 0 };
    struct ledger_op *op = note(c, want);
    int rc = have_handle(c, want->collection, &error);
    if (rc < 0)
        return settle(c, op, rc, &error);
    kith_batch *b = kith_batch_new(c->handles[want->collection]);
    if (!b)
        test_die("out of memory");
    for (uint32_t i = want->first; i < want->first + want->count && rc == 0; i++) {
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, want->version, vector);
        rc = want->version ? kith_batch_upsert(b, id, vector, LEDGER_DIM) : kith_batch_delete(b, id);
    }
    if (rc == 0)
        rc = kith_batch_commit(b, &commit);
    kith_batch_free(b);
    if (rc == KITH_E_REPLACED)
        let_go(c, want->collection);
    return settle(c, op, rc, &commit.error);
}

int ledger_put(struct ledger_client *c, enum ledger_collection which, uint32_t first, uint32_t count,
               uint32_t version)
{
    return write_range(
        c,
        &(struct ledger_op){
            .kind = LEDGER_WRITE, .collection = which, .first = first, .count = count, .version = version });
}

int ledger_delete(struct ledger_client *c, enum ledger_collection which, uint32_t first, uint32_t count)
{
    return ledger_put(c, which, first, count, 0);
}

int ledger_checkpoint(struct ledger_client *c, enum ledger_collection which)
{
    struct kith_error error = { 0 };
    uint64_t epoch = 0;
    int rc = have_handle(c, which, &error);
    if (rc == 0)
        rc = kith_checkpoint(c->handles[which], &epoch, &error);
    if (rc == 0) {
        char path[3 * TEST_PATH_SIZE];
        snprintf(path, sizeof path, "%s/%s/checkpoint-%020" PRIu64, c->data, ledger_names[which], epoch);
        if (access(path, F_OK) != 0)
            snprintf(c->ledger->bad, sizeof c->ledger->bad, "%.300s was acknowledged and is not there", path);
    }
    return rc;
}

/* ---- what there is ---- */

static bool read_segment(const char *path, struct content *out)
{
    struct kithi_map map;
    struct kithi_errmsg err;
    struct kithi_scan scan;
    struct kithi_item item;
    float vector[LEDGER_DIM], want[LEDGER_DIM];
    bool ok = true;
    int rc;
    if (kithi_map_attach_path(path, false, &map, &err) < 0) {
        fprintf(stderr, "  %s\n", err.text);
        return false;
    }
    uint64_t end = test_now_ms() + SCAN_MS;
    do {
        memset(out->version, 0, sizeof out->version);
        kithi_scan_begin(&map, &scan);
        while ((rc = kithi_scan_next(&scan, &item, vector)) == 1) {
            char *after;
            unsigned long id = strtoul(item.id, &after, 10);
            uint32_t version = vector[1] >= 1 && vector[1] < VERSION_MAX ? (uint32_t)vector[1] : 0;
            vector_of((uint32_t)id, version, want);
            if (*after || id >= LEDGER_IDS || out->version[id] || version == 0 ||
                memcmp(vector, want, sizeof vector) != 0) {
                fprintf(stderr, "  %s: id \"%s\" is unknown, there twice, or not what was written\n", path,
                        item.id);
                ok = false;
                continue;
            }
            out->version[id] = version;
        }
    } while (rc == KITHI_E_STALE && ok && test_now_ms() < end);
    if (rc < 0) {
        fprintf(stderr, "  %s: scan: %s\n", path, kithi_error_text(rc));
        ok = false;
    }
    ok &= test_verify_clean(&map);
    kithi_map_detach(&map);
    return ok;
}

/* A drop may leave the file, and tells its readers. */
static bool is_served(const char *segment)
{
    struct kithi_map map;
    if (kithi_map_attach_path(segment, false, &map, NULL) < 0)
        return access(segment, F_OK) == 0;
    bool served = atomic_load(&kithi_map_header(&map)->moved) == 0;
    kithi_map_detach(&map);
    return served;
}

static bool read_all(const char *run, const char *data, struct content out[LEDGER_COLLECTIONS])
{
    bool ok = true;
    memset(out, 0, LEDGER_COLLECTIONS * sizeof *out);
    for (unsigned i = 0; i < LEDGER_COLLECTIONS; i++) {
        char segment[2 * TEST_PATH_SIZE], conf[2 * TEST_PATH_SIZE];
        snprintf(segment, sizeof segment, "%s/%s/segment", run, ledger_names[i]);
        snprintf(conf, sizeof conf, "%s/%s/collection.conf", data ? data : run, ledger_names[i]);
        out[i].there = data ? access(conf, F_OK) == 0 : is_served(segment);
        if (out[i].there)
            ok &= read_segment(segment, &out[i]);
        else if (data && access(segment, F_OK) == 0) {
            fprintf(stderr, "  %s is there, its collection is not\n", segment);
            ok = false;
        }
    }
    return ok;
}

/* ---- what there may be ---- */

/* False when this cannot have happened. */
static bool apply(struct content *all, const struct ledger_op *op)
{
    struct content *c = &all[op->collection];
    switch (op->kind) {
    case LEDGER_CREATE:
        if (c->there)
            return false;
        memset(c, 0, sizeof *c);
        c->there = true;
        return true;
    case LEDGER_DROP:
        if (!c->there)
            return false;
        memset(c, 0, sizeof *c);
        return true;
    default:
        if (!c->there)
            return false;
        for (uint32_t i = op->first; i < op->first + op->count; i++)
            c->version[i] = op->version;
        return true;
    }
}

static bool follows(const struct ledger *ledger, uint32_t chosen, const struct content *actual)
{
    static struct content all[LEDGER_COLLECTIONS];
    uint32_t unknown = 0;
    memset(all, 0, sizeof all);
    for (uint32_t i = 0; i < atomic_load(&ledger->count); i++) {
        const struct ledger_op *op = &ledger->ops[i];
        int outcome = atomic_load(&op->outcome);
        bool happened = outcome == LEDGER_DONE || (outcome == LEDGER_UNKNOWN && chosen >> unknown & 1);
        unknown += outcome == LEDGER_UNKNOWN;
        if (happened && !apply(all, op))
            return false;
    }
    for (unsigned i = 0; i < LEDGER_COLLECTIONS; i++)
        if (all[i].there != actual[i].there ||
            memcmp(all[i].version, actual[i].version, sizeof all[i].version) != 0)
            return false;
    return true;
}

static void show(const struct ledger *ledger, const struct content *actual)
{
    static const char *const kinds[] = { "create", "drop", "write" };
    static const char *const outcomes[] = { "unknown", "done", "refused" };
    for (uint32_t i = 0; i < atomic_load(&ledger->count); i++) {
        const struct ledger_op *op = &ledger->ops[i];
        fprintf(stderr, "  %-7s %s %s", outcomes[atomic_load(&op->outcome)], kinds[op->kind],
                ledger_names[op->collection]);
        if (op->kind == LEDGER_WRITE)
            fprintf(stderr, " %u..%u version %u", op->first, op->first + op->count - 1, op->version);
        fprintf(stderr, "%s%s\n", op->code ? ": " : "", op->text);
    }
    for (unsigned i = 0; i < LEDGER_COLLECTIONS; i++) {
        fprintf(stderr, "  %s is %s:", ledger_names[i], actual[i].there ? "there" : "not there");
        for (uint32_t id = 0, from = 0; id < LEDGER_IDS; id++)
            if (id + 1 == LEDGER_IDS || actual[i].version[id] != actual[i].version[id + 1]) {
                if (actual[i].version[id])
                    fprintf(stderr, " %u..%u version %u", from, id, actual[i].version[id]);
                from = id + 1;
            }
        fprintf(stderr, "\n");
    }
}

bool ledger_holds(struct ledger *ledger, const char *run, const char *data)
{
    static struct content actual[LEDGER_COLLECTIONS];
    uint32_t unknown = 0;
    bool ok = read_all(run, data, actual);
    for (uint32_t i = 0; i < atomic_load(&ledger->count); i++)
        unknown += atomic_load(&ledger->ops[i].outcome) == LEDGER_UNKNOWN;
    if (unknown > UNKNOWN_MAX) {
        fprintf(stderr, "  %u requests have an unknown outcome\n", unknown);
        return false;
    }
    bool found = false;
    for (uint32_t chosen = 0; chosen < 1u << unknown && !found; chosen++)
        found = follows(ledger, chosen, actual);
    if (!found) {
        fprintf(stderr, "  what is there does not follow from what was answered:\n");
        show(ledger, actual);
    }
    return ok && found;
}
