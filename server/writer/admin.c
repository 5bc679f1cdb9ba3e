/*
 * admin.c - requests about collections. See admin.h.
 *
 * Creates and drops are done one after the other, in the order in which they came. What touches the disk
 * runs on a helper thread, so that other collections go on meanwhile; the list of collections is changed by
 * the loop only.
 *
 *   CREATE  check --helper: files, index, log--> in the list, answered
 *   DROP    take no more requests --pipeline idle--> helper: rename --> out of the list, helper: remove --> answered
 *   RESTORE (its last step only, revive.h) helper: rename, switch --> in the list, answered
 */
#include "server/writer/admin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/log.h"
#include "server/writer/collection.h"
#include "server/writer/revive.h"
#include "server/writer/start.h"
#include "shm/base/bytes.h"

enum admin_step {
    ADMIN_WAITING,  /* for its turn, and a drop for its pipeline */
    ADMIN_MAKING,   /* create: on the helper */
    ADMIN_BURYING,  /* drop: on the helper */
    ADMIN_REMOVING, /* drop: on the helper */
};

struct kithi_admin {
    struct kithi_admin *next;
    struct kithi_daemon *daemon;
    struct kithi_request *request;
    struct kithi_revive *revive; /* a restore: it answers for itself */
    struct kithi_collection *collection;
    enum admin_step step;
    bool gone; /* drop: the collection's files have moved */
    struct kithi_io_op op;
    struct kithi_errmsg err;
    struct kithi_settings settings;
    char buried[KITHI_PATH_MAX];
};

static void answer_text(struct kithi_request *r, uint32_t count, const void *text, size_t len)
{
    struct kithi_answer a = { .item = KITHI_NO_ITEM, .count = count, .text = text, .text_len = len };
    kithi_request_answer(r, &a);
}

int kithi_admin_name(const unsigned char *p, size_t len, size_t name_len, char out[KITHI_NAME_MAX + 1],
                     struct kithi_errmsg *err)
{
    bool padded = name_len <= len && kithi_round_up(name_len, 8) == len;
    for (size_t i = name_len; padded && i < len; i++) {
        padded = p[i] == 0;
    }
    if (!padded) {
        return kithi_error_set(err, KITHI_E_PROTOCOL,
                               "the name in the request is not padded as it should be");
    }
    if (!kithi_name_valid((const char *)p, name_len)) {
        char shown[80];
        size_t n = name_len < sizeof shown ? name_len : sizeof shown;
        for (size_t i = 0; i < n; i++) {
            shown[i] = p[i] >= ' ' && p[i] <= '~' ? (char)p[i] : '?';
        }
        return kithi_error_set(
            err, KITHI_E_NAME,
            "\"%.*s\" is not a collection name: 1 to %u characters of A-Z a-z 0-9 _ -, the first "
            "one a letter or digit",
            (int)n, shown, KITHI_NAME_MAX);
    }
    memcpy(out, p, name_len);
    out[name_len] = 0;
    return 0;
}

/* ---- the queue ---- */

static struct kithi_admin *append(struct kithi_daemon *d)
{
    struct kithi_admin *a = calloc(1, sizeof *a), **at = &d->admin;
    if (a) {
        a->daemon = d;
        while (*at) {
            at = &(*at)->next;
        }
        *at = a;
        d->again = true;
    }
    return a;
}

static struct kithi_admin *enqueue(struct kithi_daemon *d, struct kithi_request *r)
{
    struct kithi_admin *a = append(d);
    if (!a) {
        struct kithi_errmsg err;
        kithi_error_set(&err, -ENOMEM, "no memory for another request");
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return NULL;
    }
    a->request = r;
    return a;
}

/* The first one is done, well or (status) not. */
static void finish(struct kithi_daemon *d, int status)
{
    struct kithi_admin *a = d->admin;
    d->admin = a->next;
    d->again = true;
    if (status) {
        kithi_request_refuse(a->request, KITHI_NO_ITEM, &a->err);
    } else {
        answer_text(a->request, 0, NULL, 0);
    }
    free(a);
}

/* ---- create ---- */

static int make(void *arg)
{
    struct kithi_admin *a = arg;
    return kithi_collection_make(a->collection, &a->err);
}

static void make_done(struct kithi_io_op *op, int status)
{
    struct kithi_admin *a = op->arg;
    const struct kithi_settings *s = &a->settings;
    const struct kithi_geometry *g = &s->geometry;
    if (status) {
        kithi_log(KITHI_LOG_WARN, "create-refused", "name=%s status=%s msg=%s", s->name,
                  kithi_error_name(status), a->err.text);
        kithi_collection_free(a->collection);
    } else {
        kithi_daemon_add(a->daemon, a->collection);
        kithi_log(
            KITHI_LOG_INFO, "collection-created",
            "name=%s dim=%u metric=%s m=%u ef_construction=%u quantization=%s keep=%s slot_max=%u index=%s",
            s->name, g->dim, kithi_metric_name(g->metric), g->m, g->ef_construction,
            kithi_quantization_name(s->wanted), kithi_keep_name(s->keep), g->slot_max,
            s->index[0] ? s->index : "auto");
    }
    finish(a->daemon, status);
}

static void create_begin(struct kithi_admin *a)
{
    struct kithi_daemon *d = a->daemon;
    int status = kithi_start_find(d, a->settings.name, &a->err);
    if (status && status != KITHI_E_STARTING) {
        char why[sizeof a->err.text];
        memcpy(why, a->err.text, sizeof why);
        status = kithi_error_set(&a->err, KITHI_E_EXISTS, "a collection \"%s\" exists; %.300s",
                                 a->settings.name, why);
    } else if (status) {
        status = kithi_error_set(
            &a->err, KITHI_E_EXISTS,
            "a collection \"%s\" exists, which kithd is still bringing back; take another name",
            a->settings.name);
    } else if (kithi_daemon_find(d, a->settings.name)) {
        status = kithi_error_set(&a->err, KITHI_E_EXISTS,
                                 "a collection \"%s\" exists; drop it first, or take another "
                                 "name",
                                 a->settings.name);
    } else {
        status = kithi_collection_new(d, &a->settings, &a->collection, &a->err);
    }
    if (status) {
        finish(d, status);
        return;
    }
    a->step = ADMIN_MAKING;
    a->op.done = make_done;
    a->op.arg = a;
    kithi_io_call(d->io, &a->op, make);
}

void kithi_admin_create(struct kithi_daemon *d, struct kithi_request *r)
{
    struct kithi_errmsg err;
    struct kithi_create c;
    struct kithi_settings settings;
    char name[KITHI_NAME_MAX + 1];
    memcpy(&c, r->body, sizeof c); /* the frame's length was checked */
    size_t rest = r->frame.len - sizeof c, name_size = kithi_round_up(c.name_len, 8);
    size_t index_size = kithi_round_up(c.index_len, 8);
    const unsigned char *index = r->body + sizeof c + name_size;
    bool whole = name_size + index_size == rest || !index_size;
    int status = whole ? kithi_admin_name(r->body + sizeof c, rest - index_size, c.name_len, name, &err)
                       : kithi_error_set(&err, KITHI_E_PROTOCOL, "the request is not as long as its parts");
    struct kithi_geometry g = { .dim = c.dim,
                                .metric = c.metric,
                                .m = c.m ? c.m : KITHI_M_DEFAULT,
                                .ef_construction =
                                    c.ef_construction ? c.ef_construction : KITHI_EF_CONSTRUCTION_DEFAULT,
                                .quantization = c.quantization,
                                .keep = c.keep,
                                .slot_max = c.slot_max & ~KITHI_CREATE_FIXED };
    g.slot_max = g.slot_max ? g.slot_max : KITHI_SLOT_MAX_DEFAULT;
    if (!status) {
        status = kithi_settings_new(&settings, name, &g, &err);
        settings.fixed = (c.slot_max & KITHI_CREATE_FIXED) != 0;
    }
    if (!status && c.index_len) {
        status = kithi_settings_index(&settings, index, c.index_len, &err);
    }
    if (status) {
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return;
    }
    struct kithi_admin *a = enqueue(d, r);
    if (a) {
        a->settings = settings;
    }
}

/* ---- drop ---- */

static int bury(void *arg)
{
    struct kithi_admin *a = arg;
    return kithi_collection_bury(a->collection, &a->gone, &a->err);
}

static int remove_rest(void *arg)
{
    struct kithi_admin *a = arg;
    return kithi_collection_remove(a->daemon, a->buried, &a->err);
}

static void remove_done(struct kithi_io_op *op, int status)
{
    struct kithi_admin *a = op->arg;
    if (status) {
        /* It does not exist any more, which is what was asked for. */
        kithi_log(KITHI_LOG_WARN, "drop-left-files", "name=%s msg=%s; the next start removes what is left",
                  a->settings.name, a->err.text);
    }
    kithi_log(KITHI_LOG_INFO, "collection-dropped", "name=%s", a->settings.name);
    finish(a->daemon, 0);
}

static void bury_done(struct kithi_io_op *op, int status)
{
    struct kithi_admin *a = op->arg;
    struct kithi_collection *c = a->collection;
    if (status) {
        kithi_log(KITHI_LOG_ERROR, "drop-failed", "name=%s msg=%s%s", a->settings.name, a->err.text,
                  a->gone ? "; kithd leaves: whether the drop lasts is unknown, the next start finds out"
                          : "");
        if (a->gone) {
            char why[sizeof a->err.text];
            memcpy(why, a->err.text, sizeof why);
            status =
                kithi_error_set(&a->err, KITHI_E_UNKNOWN_OUTCOME,
                                "%.280s; whether the drop lasts is unknown: kithd leaves, its next start "
                                "finds out",
                                why);
            kithi_daemon_fail(a->daemon); /* it stays `dropping`: its log must not grow any more */
        } else {
            c->dropping = false;
        }
        finish(a->daemon, status);
        return;
    }
    kithi_daemon_remove(a->daemon, c);
    kithi_collection_free(c);
    a->collection = NULL;
    a->step = ADMIN_REMOVING;
    a->op.done = remove_done;
    kithi_io_call(a->daemon->io, &a->op, remove_rest);
}

static void drop_begin(struct kithi_admin *a)
{
    struct kithi_daemon *d = a->daemon;
    struct kithi_collection *c = kithi_daemon_find(d, a->settings.name);
    if (!c) {
        int status = kithi_start_find(d, a->settings.name, &a->err);
        if (!status) {
            status = kithi_error_set(&a->err, KITHI_E_NO_COLLECTION, "there is no collection \"%s\"",
                                     a->settings.name);
        }
        finish(d, status);
        return;
    }
    c->dropping = true;
    if (!kithi_collection_idle(c)) {
        return; /* a later turn finds it idle: nothing new is taken */
    }
    a->settings = c->settings;
    int status = kithi_collection_buried_path(c, a->buried, &a->err);
    if (status) {
        c->dropping = false;
        finish(d, status);
        return;
    }
    a->collection = c;
    a->step = ADMIN_BURYING;
    a->op.done = bury_done;
    a->op.arg = a;
    kithi_io_call(d->io, &a->op, bury);
}

void kithi_admin_drop(struct kithi_daemon *d, struct kithi_request *r)
{
    struct kithi_errmsg err;
    char name[KITHI_NAME_MAX + 1];
    if (kithi_admin_name(r->body, r->frame.len, strnlen((const char *)r->body, r->frame.len), name, &err)) {
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return;
    }
    struct kithi_admin *a = enqueue(d, r);
    if (a) {
        memcpy(a->settings.name, name, sizeof name);
    }
}

/* ---- restore ---- */

bool kithi_admin_place(struct kithi_daemon *d, struct kithi_revive *v)
{
    struct kithi_admin *a = append(d);
    if (a) {
        a->revive = v;
    }
    return a != NULL;
}

void kithi_admin_placed(struct kithi_daemon *d)
{
    struct kithi_admin *a = d->admin;
    d->admin = a->next;
    d->again = true;
    free(a);
}

void kithi_admin_turn(struct kithi_daemon *d)
{
    struct kithi_admin *a = d->admin;
    if (!a || a->step != ADMIN_WAITING) {
        return;
    }
    if (a->revive) {
        a->step = ADMIN_MAKING;
        kithi_revive_place(a->revive);
    } else if (d->failing) {
        kithi_error_set(&a->err, KITHI_E_SHUTDOWN,
                        "the daemon is stopping because a log failed; nothing was done");
        finish(d, KITHI_E_SHUTDOWN);
    } else if (a->request->frame.type == KITHI_FRAME_CREATE) {
        create_begin(a);
    } else {
        drop_begin(a);
    }
}

/* ---- questions ---- */

/* How far the start is, of all collections or of the one that is named. */
static void list_states(struct kithi_daemon *d, struct kithi_request *r)
{
    struct kithi_errmsg err;
    struct kithi_answer a = { .item = KITHI_NO_ITEM };
    uint32_t head[2]; /* form, length of the name */
    char name[KITHI_NAME_MAX + 1], *text = NULL;
    memcpy(head, r->body, sizeof head);
    int status = head[0] == KITHI_LIST_STATES
                     ? 0
                     : kithi_error_set(&err, KITHI_E_UNSUPPORTED,
                                       "a list of form %u is not known to this kithd", head[0]);
    if (!status && (head[1] || r->frame.len > sizeof head)) {
        status = kithi_admin_name(r->body + sizeof head, r->frame.len - sizeof head, head[1], name, &err);
    }
    if (!status) {
        status = kithi_start_status(d, head[1] ? name : NULL, &text, &a.found, &err);
    }
    if (status) {
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return;
    }
    a.text = text;
    a.text_len = strlen(text);
    kithi_request_answer(r, &a);
    free(text);
}

void kithi_admin_list(struct kithi_daemon *d, struct kithi_request *r)
{
    size_t len = 0, at = 0, i = 0;
    uint32_t count = 0;
    const char *coming;
    if (r->frame.len) {
        list_states(d, r);
        return;
    }
    while ((coming = kithi_start_next(d, &i)) != NULL) {
        len += strlen(coming) + 1;
    }
    for (const struct kithi_collection *c = d->collections; c; c = c->next) {
        len += strlen(c->settings.name) + 1;
    }
    char *text = malloc(len + 1);
    if (!text) {
        struct kithi_errmsg err;
        kithi_error_set(&err, -ENOMEM, "no memory for the list");
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return;
    }
    for (const struct kithi_collection *c = d->collections; c; c = c->next) {
        if (!c->dropping) {
            size_t n = strlen(c->settings.name);
            memcpy(text + at, c->settings.name, n);
            text[at + n] = '\n';
            at += n + 1;
            count++;
        }
    }
    for (i = 0; (coming = kithi_start_next(d, &i)) != NULL; count++) {
        size_t n = strlen(coming);
        memcpy(text + at, coming, n);
        text[at + n] = '\n';
        at += n + 1;
    }
    answer_text(r, count, text, at);
    free(text);
}

void kithi_admin_open(struct kithi_daemon *d, struct kithi_request *r)
{
    struct kithi_errmsg err;
    char name[KITHI_NAME_MAX + 1];
    int status =
        kithi_admin_name(r->body, r->frame.len, strnlen((const char *)r->body, r->frame.len), name, &err);
    const struct kithi_collection *c = status ? NULL : kithi_daemon_find(d, name);
    if (!status && !c) {
        status = kithi_start_find(d, name, &err);
    }
    if (!status && (!c || c->dropping)) {
        status = kithi_error_set(&err, KITHI_E_NO_COLLECTION, "there is no collection \"%s\"", name);
    }
    if (status) {
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return;
    }
    const struct kithi_settings *s = &c->settings;
    const struct kithi_geometry *g = &s->geometry;
    struct kithi_opened o = { .dim = g->dim,
                              .metric = g->metric,
                              .m = g->m,
                              .ef_construction = g->ef_construction,
                              .quantization = s->wanted,
                              .slot_max = g->slot_max,
                              .keep = s->keep,
                              .layout = g->quantization,
                              .code_bits = g->code_bits,
                              .undecided = !s->chosen };
    memcpy(o.uid, s->uid, sizeof o.uid);
    answer_text(r, 0, &o, sizeof o);
}

void kithi_admin_stats(struct kithi_daemon *d, struct kithi_request *r)
{
    struct kithi_errmsg err;
    struct kithi_collection *c = kithi_daemon_find_uid(d, r->body);
    if (!c && kithi_start_find_uid(d, r->body, &err)) {
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return;
    }
    if (!c) {
        kithi_error_set(&err, KITHI_E_NO_COLLECTION,
                        "this collection is not here any more: it was dropped; open it again by name");
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return;
    }
    kithi_boards_request(c, r);
}

void kithi_admin_stats_answer(const struct kithi_collection *c, struct kithi_request *r)
{
    struct kithi_errmsg err;
    char readers[KITHI_BOARDS_JSON_SIZE], recall[KITHI_SAMPLING_JSON_SIZE],
        relayout[KITHI_RELAYOUT_JSON_SIZE];
    char text[KITHI_BOARDS_JSON_SIZE + 6720]; /* a path in it may take 3 KiB */
    kithi_boards_json(&c->boards, kithi_now_ms(), readers);
    kithi_sampling_json(c, recall);
    kithi_relayout_json(c, relayout);
    int len = kithi_pipeline_stats(c, relayout, recall, readers, text, sizeof text);
    if (len < 0) {
        kithi_error_set(&err, len, "the answer is too long");
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return;
    }
    answer_text(r, 0, text, (size_t)len);
}
