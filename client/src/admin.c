/*
 * admin.c - collections as a whole: create, drop, list.
 */
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/src/admin_priv.h"
#include "client/src/handle_priv.h"
#include "client/src/opts_priv.h"
#include "client/src/rundir_priv.h"
#include "shm/base/id.h"

/* A daemon that says nothing for so long does not answer a probe. */
#define PROBE_PATIENCE_MS 1000u

uint32_t kithi_admin_hello_ms = 5000;
uint32_t kithi_admin_answer_ms = 30000;

/*
 * One request on a connection of its own. 0 with the answer's text still valid in conn, or the error. what says of a
 * change what is unknown when no answer comes; NULL: nothing is to be changed.
 */
static int ask_within(uint32_t hello_ms, const char *run_dir, uint16_t type, const struct iovec *body, int n,
                      const char *what, struct kithi_conn *conn, struct kithi_answer *answer,
                      struct kithi_errmsg *err)
{
    run_dir = kithi_run_dir(run_dir);
    int rc = kithi_run_dir_check(run_dir, err);
    if (rc == 0)
        rc = kithi_conn_open(conn, run_dir, hello_ms, err);
    if (rc == -EAGAIN)
        return kithi_error_set(
            err, KITHI_E_TIMEOUT,
            "the daemon of %.200s has not answered for %u ms: it is stopped, or hangs; nothing was "
            "asked of it",
            run_dir, hello_ms);
    if (rc < 0)
        return rc;
    /* The question is no more work than the hello was; a change waits for others, and for the disk. */
    if (what)
        kithi_conn_patience(conn, kithi_admin_answer_ms);
    rc = kithi_conn_call(conn, type, 0, body, n, answer);
    if (rc == -EAGAIN && what)
        return kithi_error_set(
            err, KITHI_E_TIMEOUT,
            "the daemon of %.150s has not answered for %u ms: it is stopped, or hangs. Whether it "
            "%s is unknown; kith list tells once it answers again",
            run_dir, kithi_admin_answer_ms, what);
    if (rc == -EAGAIN)
        return kithi_error_set(err, KITHI_E_TIMEOUT,
                               "the daemon of %.200s has not answered for %u ms: it is stopped, or hangs",
                               run_dir, hello_ms);
    if (rc < 0)
        return kithi_error_set(err, rc, "%s", kithi_error_text(rc));
    if (answer->head.status >= 0)
        return 0;
    rc = answer->head.status;
    if (answer->head.text_len == 0)
        return kithi_error_set(err, rc, "%s", kithi_error_text(rc));
    return kithi_error_set(err, rc, "%.*s", (int)answer->head.text_len, answer->text);
}

static int ask(const char *run_dir, uint16_t type, const struct iovec *body, int n, const char *what,
               struct kithi_conn *conn, struct kithi_answer *answer, struct kithi_errmsg *err)
{
    return ask_within(kithi_admin_hello_ms, run_dir, type, body, n, what, conn, answer, err);
}

/* The name as frames carry it: zero-padded to a multiple of 8. */
static int pad_name(const char *name, uint64_t padded[], struct iovec *out, struct kithi_errmsg *err)
{
    size_t len = strnlen(name, KITHI_NAME_MAX + 1);
    if (!kithi_name_valid(name, len))
        return kithi_error_set(err, KITHI_E_NAME, "'%.80s' is %s", name, kithi_error_text(KITHI_E_NAME));
    memset(padded, 0, KITHI_NAME_MAX + 8);
    memcpy(padded, name, len);
    *out = (struct iovec){ .iov_base = padded, .iov_len = (len + 7) / 8 * 8 };
    return 0;
}

int kithi_index_part(const char *text, unsigned char out[KITHI_DECLARED_TEXT_MAX + 1], struct iovec *part,
                     uint16_t *out_len, struct kithi_errmsg *err)
{
    struct kithi_declared d;
    int rc = kithi_declared_read(text, &d, err);
    if (rc < 0)
        return rc;
    memset(out, 0, KITHI_DECLARED_TEXT_MAX + 1);
    kithi_declared_print(&d, (char *)out);
    *out_len = (uint16_t)strlen((char *)out);
    *part = (struct iovec){ .iov_base = out, .iov_len = ((size_t)*out_len + 7) / 8 * 8 };
    return 0;
}

_Static_assert((int)KITH_QUANTIZATION_AUTO == (int)KITHI_QUANTIZATION_AUTO &&
                   (int)KITH_QUANTIZATION_BITS == (int)KITHI_QUANTIZATION_BITS &&
                   (int)KITH_QUANTIZATION_SQ8 == (int)KITHI_QUANTIZATION_SQ8 &&
                   (int)KITH_QUANTIZATION_F16 == (int)KITHI_QUANTIZATION_F16 &&
                   (int)KITH_KEEP_F16 == (int)KITHI_KEEP_F16 && (int)KITH_KEEP_NONE == (int)KITHI_KEEP_NONE,
               "the public numbers are those of the format");

int kith_create(const char *name, const struct kith_create_opts *opts)
{
    struct kith_create_opts o;
    struct kithi_errmsg err = { 0 };
    struct kithi_answer answer;
    struct kithi_conn conn;
    uint64_t padded[(KITHI_NAME_MAX + 8) / 8];
    unsigned char text[KITHI_DECLARED_TEXT_MAX + 1];
    struct iovec body[3];
    int parts = 2;

    if (!name || !opts || kithi_opts_in(&o, opts, sizeof o, offsetof(struct kith_create_opts, keep)) < 0 ||
        o.fixed > 1)
        return -EINVAL;
    struct kithi_geometry g = {
        .dim = o.dim,
        .metric = o.metric,
        .m = o.m ? o.m : KITHI_M_DEFAULT,
        .ef_construction = o.ef_construction ? o.ef_construction : KITHI_EF_CONSTRUCTION_DEFAULT,
        .slot_max = o.max_vectors ? o.max_vectors : KITHI_SLOT_MAX_DEFAULT,
    };
    struct kithi_create create = {
        .dim = g.dim,
        .metric = g.metric,
        .m = g.m,
        .ef_construction = g.ef_construction,
        .quantization = o.quantization,
        .slot_max = g.slot_max | (o.fixed ? KITHI_CREATE_FIXED : 0),
        .keep = o.keep,
    };
    kithi_geometry_want(&g, o.quantization, o.keep);
    kithi_conn_init(&conn);
    int rc = pad_name(name, padded, &body[1], &err);
    if (rc == 0 && o.index) {
        rc = kithi_index_part(o.index, text, &body[2], &create.index_len, &err);
        parts = 3;
    }
    if (rc == 0)
        rc = kithi_geometry_check(&g, &err);
    if (rc == 0) {
        create.name_len = (uint16_t)strlen(name);
        body[0] = (struct iovec){ .iov_base = &create, .iov_len = sizeof create };
        rc = ask(o.run_dir, KITHI_FRAME_CREATE, body, parts, "made the collection", &conn, &answer, &err);
        if (rc == KITHI_E_PROTOCOL && o.index)
            rc = kithi_error_set(&err, KITHI_E_UNSUPPORTED,
                                 "this kithd is older and knows no index: create the collection without one");
    }
    kithi_conn_close(&conn);
    return kithi_report(o.error, &err, rc);
}

int kith_drop(const char *name, const char *run_dir, struct kith_error *error)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_answer answer;
    struct kithi_conn conn;
    uint64_t padded[(KITHI_NAME_MAX + 8) / 8];
    struct iovec body;

    if (!name)
        return -EINVAL;
    kithi_conn_init(&conn);
    int rc = pad_name(name, padded, &body, &err);
    if (rc == 0)
        rc = ask(run_dir, KITHI_FRAME_DROP, &body, 1, "removed the collection", &conn, &answer, &err);
    kithi_conn_close(&conn);
    return kithi_report(error, &err, rc);
}

/* Names gathered for kith_list: NUL-terminated, one after the other. */
struct names {
    char *text;
    size_t len, capacity;
    int count;
};

static int add_name(struct names *n, const char *name, size_t len)
{
    if (!kithi_name_valid(name, len))
        return 0;
    if (n->capacity - n->len < len + 1) {
        size_t capacity = n->capacity ? n->capacity * 2 : 1024;
        char *text = realloc(n->text, capacity);
        if (!text)
            return -ENOMEM;
        n->text = text;
        n->capacity = capacity;
    }
    memcpy(n->text + n->len, name, len);
    n->text[n->len + len] = '\0';
    n->len += len + 1;
    n->count++;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Into *out, sorted, as one block; even an empty list is a block. */
static int hand_over(const struct names *n, char **out)
{
    const char **order = malloc(((size_t)n->count + 1) * sizeof *order);
    char *block = malloc(n->len + 1), *at = block;
    int rc = order && block ? n->count : -ENOMEM;
    if (rc >= 0) {
        const char *name = n->text;
        for (int i = 0; i < n->count; i++, name += strlen(name) + 1)
            order[i] = name;
        if (n->count > 1)
            qsort(order, (size_t)n->count, sizeof *order, by_name);
        for (int i = 0; i < n->count; i++)
            at = stpcpy(at, order[i]) + 1;
        *at = '\0';
        *out = block;
        block = NULL;
    }
    free(block);
    free(order);
    return rc;
}

static int names_from_answer(struct names *n, const struct kithi_answer *answer)
{
    int rc = 0;
    const char *at = answer->text, *end = at + answer->head.text_len;
    while (rc == 0 && at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        rc = add_name(n, at, (size_t)((stop ? stop : end) - at));
        at = stop ? stop + 1 : end;
    }
    return rc;
}

/* Without a daemon: every folder of the run directory that holds a segment. */
static int names_from_dir(struct names *n, const char *run_dir, struct kithi_errmsg *err)
{
    int rc = 0;
    DIR *dir = opendir(run_dir);
    if (!dir)
        return kithi_error_set(err, -errno, "cannot read the run directory %s: %s", run_dir,
                               kithi_error_text(-errno));
    for (struct dirent *e; rc == 0 && (e = readdir(dir));) {
        char *path = NULL;
        struct stat st;
        if (!kithi_name_valid(e->d_name, strlen(e->d_name)))
            continue;
        rc = kithi_path_join(run_dir, e->d_name, "segment", &path);
        if (rc == 0 && lstat(path, &st) == 0 && S_ISREG(st.st_mode))
            rc = add_name(n, e->d_name, strlen(e->d_name));
        free(path);
    }
    closedir(dir);
    return rc < 0 ? kithi_error_set(err, rc, "out of memory") : 0;
}

int kith_list(const char *run_dir, char **out_names, struct kith_error *error)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_answer answer;
    struct kithi_conn conn;
    struct names n = { 0 };

    if (!out_names)
        return -EINVAL;
    kithi_conn_init(&conn);
    int rc = ask(run_dir, KITHI_FRAME_LIST, NULL, 0, NULL, &conn, &answer, &err);
    if (rc == 0)
        rc = names_from_answer(&n, &answer);
    else if (rc == KITHI_E_NO_DAEMON || rc == KITHI_E_UNKNOWN_OUTCOME || rc == KITHI_E_DENIED)
        rc = names_from_dir(&n, kithi_run_dir(run_dir), &err);
    if (rc == 0)
        rc = hand_over(&n, out_names);
    if (rc == -ENOMEM)
        kithi_error_set(&err, rc, "out of memory");
    kithi_conn_close(&conn);
    free(n.text);
    return kithi_report(error, &err, rc);
}

int kith_readiness(const char *name, const char *run_dir, char **out_json, struct kith_error *error)
{
    struct kithi_errmsg err = { 0 };
    struct kithi_answer answer;
    struct kithi_conn conn;
    uint64_t padded[(KITHI_NAME_MAX + 8) / 8];
    uint32_t head[2] = { KITHI_LIST_STATES, name ? (uint32_t)strnlen(name, KITHI_NAME_MAX + 1) : 0 };
    struct iovec body[2] = { { .iov_base = head, .iov_len = sizeof head } };

    kithi_conn_init(&conn);
    int rc = name ? pad_name(name, padded, &body[1], &err) : 0;
    if (rc == 0)
        rc = ask_within(PROBE_PATIENCE_MS, run_dir, KITHI_FRAME_LIST, body, name ? 2 : 1, NULL, &conn,
                        &answer, &err);
    if (rc == KITHI_E_PROTOCOL)
        rc = kithi_error_set(&err, KITHI_E_UNSUPPORTED,
                             "this kithd is older and does not say how far its start is");
    else if (rc == KITHI_E_UNKNOWN_OUTCOME)
        rc = kithi_error_set(&err, KITHI_E_NO_DAEMON, "kithd went away before it answered");
    if (rc == 0 && out_json) {
        *out_json = strndup(answer.text, answer.head.text_len);
        if (!*out_json)
            rc = kithi_error_set(&err, -ENOMEM, "out of memory");
    }
    if (rc == 0)
        rc = answer.head.found > INT32_MAX ? INT32_MAX : (int)answer.head.found;
    kithi_conn_close(&conn);
    return rc < 0 ? kithi_report(error, &err, rc) : rc;
}
