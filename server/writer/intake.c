/*
 * intake.c - the socket: sessions, frames in, replies out. See intake.h and shm/wire/frame.h.
 *
 * A session reads into a small buffer; the body of a frame that does not fit there is read straight
 * into its request. Replies gather in one buffer while the other one is being sent. Reading pauses
 * while a client has too much unanswered or unread, or the daemon too much queued, so memory is bounded by
 * what clients are, not by what they do. Nobody waits for a client: whoever does not read keeps
 * its own replies back and nothing else.
 *
 *   OPEN --bytes that are no frame--> REFUSED --reply sent--> DRAIN --end, or enough--> CLOSED
 *     |                                                                                  ^
 *     +--peer finished, and all it asked for is answered; or the connection broke -------+
 */
#include "server/writer/intake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/base/needs.h"
#include "server/writer/admin.h"
#include "server/writer/backup.h"
#include "server/writer/collection.h"
#include "server/writer/merge.h"
#include "server/writer/revive.h"
#include "server/writer/start.h"
#include "shm/base/assert.h"
#include "shm/base/bytes.h"

#define INPUT_SIZE        16384u      /* read at once when no large body is awaited */
#define SMALL_BODY_MAX    4096u       /* of requests that are not writes */
#define PENDING_MAX       128u        /* requests of a session without an answer on its way */
#define SESSION_BYTES_MAX (32u << 20) /* of bodies queued by one session */
#define DAEMON_BYTES_SOFT (64u << 20) /* above: only sessions with nothing queued go on */
#define DAEMON_BYTES_HARD (256u << 20)
#define HELLO_MS          10000u /* a peer that has not said hello by then is let go */
#define OWN_PLACES        8u     /* of the clients' places: kept for kithd's own user and root */
#define LEAVING_MAX       32u    /* peers without a place that get a reply; more are let go without one */
#define HALF_FRAME_MS                                                                                        \
    60000u /* a peer that stops in the middle of a frame, or a back-up, is let go after this */
#define DRAIN_MS        5000u /* how long a refused peer may take to read its last reply, and then to stop */
#define DRAIN_BYTES     (64u << 20)
#define LOOK_MS         1000u /* how often deadlines of sessions are looked at */
#define ACCEPT_RETRY_MS 200u
#define LISTEN_BACKLOG  256

enum session_state {
    SESSION_OPEN,
    SESSION_REFUSED, /* a last reply is on its way */
    SESSION_DRAIN,   /* what still comes is thrown away, so that the peer gets to read the reply */
    SESSION_CLOSED,  /* the descriptor is gone; freed once nothing refers to it */
};

struct output {
    unsigned char *bytes;
    size_t len, capacity;
    unsigned replies;
};

struct kithi_session {
    struct kithi_session *next, *prev;  /* in the daemon's list */
    struct kithi_session *next_touched; /* in the list of those that the next turn looks at */
    bool touched;
    struct kithi_daemon *daemon;
    struct kithi_backlog backlog;
    enum session_state state;
    int fd;
    uid_t uid;
    struct kithi_rights rights;
    bool greeted;
    bool no_place;  /* refused because too many are connected */
    bool peer_done; /* end of input */
    bool paused;    /* input may hold whole frames that nobody looked at */

    struct kithi_io_op recv_op, send_op;
    unsigned char input[INPUT_SIZE];
    size_t input_len;
    struct kithi_request *partial; /* its body is being read */
    size_t partial_have;
    size_t skip; /* bytes of a refused body still to throw away */
    size_t drained;
    uint64_t deadline_ms; /* of a half frame or the draining; KITHI_NEVER */

    struct kithi_backup *backup; /* that it reads; NULL */
    struct kithi_revive *revive; /* that it sends the back-up of; NULL */

    unsigned pending;    /* accepted requests whose reply has not been sent */
    unsigned unanswered; /* of them without a reply yet */
    size_t queued_bytes;
    struct output out[2];
    unsigned filling; /* which output gathers; the other one is being sent */
};

static void session_read(struct kithi_session *s);

/* Something about this session has changed: the next turn looks at it. */
static void session_touch(struct kithi_session *s)
{
    if (!s->touched) {
        s->touched = true;
        s->next_touched = s->daemon->touched;
        s->daemon->touched = s;
    }
}

/* ---- replies ---- */

static int output_reserve(struct output *o, size_t more)
{
    if (o->len + more <= o->capacity) {
        return 0;
    }
    size_t capacity = o->capacity ? o->capacity : 4096;
    while (capacity < o->len + more) {
        capacity *= 2;
    }
    unsigned char *bytes = realloc(o->bytes, capacity);
    if (!bytes) {
        return -ENOMEM;
    }
    o->bytes = bytes;
    o->capacity = capacity;
    return 0;
}

static void session_close(struct kithi_session *s)
{
    if (s->state == SESSION_CLOSED) {
        return;
    }
    s->state = SESSION_CLOSED;
    session_touch(s);
    kithi_io_close(s->daemon->io, s->fd);
    s->fd = -1;
    s->daemon->session_count--;
    s->deadline_ms = KITHI_NEVER;
    s->pending = s->unanswered; /* replies that nobody will read */
    s->out[0].len = s->out[1].len = 0;
}

static void session_reply(struct kithi_session *s, uint64_t tag, const struct kithi_answer *a)
{
    session_touch(s);
    if (s->state == SESSION_CLOSED) {
        return;
    }
    struct output *o = &s->out[s->filling];
    size_t body = sizeof(struct kithi_reply) + kithi_round_up(a->text_len, 8);
    if (output_reserve(o, sizeof(struct kithi_frame) + body)) {
        kithi_log(KITHI_LOG_ERROR, "reply-lost", "uid=%u msg=no memory for a reply of %zu bytes",
                  (unsigned)s->uid, body);
        session_close(s); /* the peer learns that its outcome is unknown */
        return;
    }
    struct kithi_frame frame = { .magic = KITHI_FRAME_MAGIC,
                                 .len = (uint32_t)body,
                                 .type = KITHI_FRAME_REPLY,
                                 .count = a->count,
                                 .tag = tag };
    struct kithi_reply reply = { .status = a->status,
                                 .item = a->item,
                                 .epoch = a->epoch,
                                 .found = a->found,
                                 .text_len = (uint32_t)a->text_len };
    memcpy(o->bytes + o->len, &frame, sizeof frame);
    memcpy(o->bytes + o->len + sizeof frame, &reply, sizeof reply);
    unsigned char *text = o->bytes + o->len + sizeof frame + sizeof reply;
    if (a->text_len) {
        memcpy(text, a->text, a->text_len);
    }
    memset(text + a->text_len, 0, body - sizeof reply - a->text_len);
    o->len += sizeof frame + body;
    o->replies++;
}

void kithi_request_reply(struct kithi_request *r, const struct kithi_answer *a)
{
    struct kithi_session *s = r->session;
    r->session = NULL; /* it may go before the request does */
    s->unanswered--;
    s->queued_bytes -= r->frame.len;
    s->daemon->queued_bytes -= r->frame.len;
    s->daemon->room_made = true;
    if (s->state == SESSION_CLOSED) {
        s->pending--;
    }
    session_reply(s, r->frame.tag, a);
}

void kithi_request_free(struct kithi_request *r)
{
    kithi_merge_free(r->merged);
    free(r->ops);
    free(r->written);
    free(r->body);
    free(r);
}

void kithi_request_answer(struct kithi_request *r, const struct kithi_answer *a)
{
    kithi_request_reply(r, a);
    kithi_request_free(r);
}

void kithi_request_refuse(struct kithi_request *r, uint32_t item, const struct kithi_errmsg *err)
{
    KITHI_ASSERT(err->code < 0); /* 0 would be an acknowledgement */
    struct kithi_answer a = {
        .status = err->code, .item = item, .text = err->text, .text_len = strlen(err->text)
    };
    kithi_request_answer(r, &a);
}

/* A last reply has been queued. */
static void session_end(struct kithi_session *s)
{
    if (s->state == SESSION_OPEN) {
        s->state = SESSION_REFUSED;
        s->deadline_ms = kithi_now_ms() + DRAIN_MS;
    }
}

/* The stream makes no sense (any more): one last reply, then the end. */
static void session_refuse(struct kithi_session *s, uint64_t tag, const struct kithi_errmsg *err)
{
    struct kithi_answer a = {
        .status = err->code, .item = KITHI_NO_ITEM, .text = err->text, .text_len = strlen(err->text)
    };
    kithi_log(KITHI_LOG_WARN, "client-refused", "uid=%u status=%s msg=%s", (unsigned)s->uid,
              kithi_error_name(err->code), err->text);
    s->pending++; /* so that it is taken off again when the reply was sent */
    session_reply(s, tag, &a);
    session_end(s);
}

/* ---- requests ---- */

/* What makes these bytes no change; they were not decoded. */
static void op_fault(const unsigned char *p, size_t left, char *out, size_t size)
{
    uint32_t len = left < KITHI_OP_HEADER ? 0 : kithi_get32(p);
    if (left < KITHI_OP_HEADER) {
        snprintf(out, size, "%zu bytes are left, and its header takes %u", left, KITHI_OP_HEADER);
    } else if (len < KITHI_OP_HEADER || len % 8 || len > left) {
        snprintf(out, size, "length %u is not a multiple of 8 from %u to the %zu bytes that are left", len,
                 KITHI_OP_HEADER, left);
    } else if (!kithi_op_is_known(p[4])) {
        snprintf(out, size, "type %u is unknown", p[4]);
    } else if (p[5] & ~(p[4] == KITHI_OP_UPSERT ? KITHI_OP_PAYLOAD : 0u)) {
        snprintf(out, size, "flags %02x are unknown", p[5]);
    } else if ((p[4] != KITHI_OP_UPSERT) != (kithi_get32(p + 8) == 0)) {
        snprintf(out, size, "type %u with %u dimensions: an upsert has some, all others none", p[4],
                 kithi_get32(p + 8));
    } else if ((p[4] == KITHI_OP_DELETE || (p[4] == KITHI_OP_UPSERT && !p[5])) && kithi_get32(p + 12)) {
        snprintf(out, size, "type %u, flags %02x, with a payload of %u bytes: it can have none", p[4], p[5],
                 kithi_get32(p + 12));
    } else if (kithi_op_is_made(p[4]) && !kithi_get32(p + 12)) {
        snprintf(out, size, "type %u without a payload", p[4]);
    } else {
        snprintf(
            out, size,
            "length %u is not that of an id of %u bytes, %u dimensions and a payload of %u bytes, which is %zu",
            len, kithi_get16(p + 6), kithi_get32(p + 8), kithi_get32(p + 12),
            kithi_op_size_with(kithi_get16(p + 6), kithi_get32(p + 8), kithi_get32(p + 12)));
    }
}

/* Find the ops in the body of a write. 0, or a refusal that leaves the connection as it is. */
static int decode_ops(struct kithi_request *r, uint32_t *out_item, struct kithi_errmsg *err)
{
    size_t at = 16, len = r->frame.len;
    uint32_t n = r->frame.count;
    *out_item = KITHI_NO_ITEM;
    if (len < at || n > (len - at) / KITHI_OP_HEADER) {
        return kithi_error_set(err, KITHI_E_PROTOCOL, "a write of %zu bytes cannot hold %u changes", len, n);
    }
    r->ops = n ? malloc(n * sizeof *r->ops) : NULL;
    if (n && !r->ops) {
        return kithi_error_set(err, -ENOMEM, "no memory for %u changes", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        *out_item = i;
        struct kithi_op *op = &r->ops[i];
        int64_t step = kithi_op_decode(r->body + at, len - at, op);
        if (step < 0) {
            if (len - at >= KITHI_OP_HEADER && kithi_get16(r->body + at + 6) > KITHI_ID_MAX) {
                return kithi_error_set(err, KITHI_E_ID, "item %u: an id of %u bytes; 1 to %u are allowed", i,
                                       kithi_get16(r->body + at + 6), KITHI_ID_MAX);
            }
            if (len - at >= KITHI_OP_HEADER && kithi_get32(r->body + at + 8) > KITHI_DIM_MAX) {
                return kithi_error_set(err, KITHI_E_DIMENSION,
                                       "item %u: %u dimensions; at most %u are allowed", i,
                                       kithi_get32(r->body + at + 8), KITHI_DIM_MAX);
            }
            if (len - at >= KITHI_OP_HEADER && kithi_get32(r->body + at + 12) > KITHI_PAYLOAD_BYTES) {
                return kithi_error_set(err, KITHI_E_PARAMETER,
                                       "item %u: a payload of %u bytes; at most %u are allowed", i,
                                       kithi_get32(r->body + at + 12), KITHI_PAYLOAD_BYTES);
            }
            char fault[200];
            op_fault(r->body + at, len - at, fault, sizeof fault);
            return kithi_error_set(err, KITHI_E_PROTOCOL,
                                   "item %u, %zu bytes into the write, is not a change: %s", i, at, fault);
        }
        if (!kithi_op_is_known(op->type)) {
            return kithi_error_set(err, KITHI_E_UNSUPPORTED,
                                   "item %u is a change of type %u, which this kithd does "
                                   "not know",
                                   i, op->type);
        }
        struct kithi_errmsg why;
        int rc = kithi_merge_check(op, i ? op - 1 : NULL, &why);
        if (rc < 0) {
            return kithi_error_set(err, rc, "item %u: %.200s", i, why.text);
        }
        r->upserts += op->type == KITHI_OP_UPSERT;
        r->merges += kithi_op_is_made(op->type);
        at += (size_t)step;
    }
    *out_item = KITHI_NO_ITEM;
    if (at != len) {
        return kithi_error_set(err, KITHI_E_PROTOCOL, "a write of %u changes has %zu bytes too many", n,
                               len - at);
    }
    return 0;
}

static void begin_backup(struct kithi_session *s, struct kithi_collection *c, struct kithi_request *r)
{
    struct kithi_errmsg err;
    int status = s->backup ? kithi_error_set(&err, KITHI_E_PROTOCOL, "a connection is for one back-up") : 0;
    if (!status) {
        s->backup = r->backup = kithi_backup_new(s->daemon);
        status = s->backup ? 0 : kithi_error_set(&err, -ENOMEM, "no memory for a back-up");
    }
    if (status) {
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
    } else {
        kithi_checkpointer_request(c, r);
    }
}

/* A request that belongs to the back-up which the connection reads or sends. */
static void dispatch_transfer(struct kithi_session *s, struct kithi_request *r)
{
    struct kithi_errmsg err;
    bool reads = r->frame.type == KITHI_FRAME_BACKUP_NEXT, begins = r->frame.type == KITHI_FRAME_RESTORE;
    if (s->daemon->stopping) {
        kithi_error_set(&err, KITHI_E_SHUTDOWN, "the daemon is stopping; %s",
                        reads ? "the back-up was not sent to its end" : "nothing was restored");
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
    } else if (begins && !s->revive) {
        kithi_revive_begin(s->daemon, &s->revive, r);
    } else if (reads ? !s->backup : begins || !s->revive) {
        kithi_error_set(&err, KITHI_E_PROTOCOL, "%s",
                        begins  ? "a connection is for one restore"
                        : reads ? "no back-up has begun on this connection"
                                : "no restore has begun on this connection");
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
    } else if (reads) {
        kithi_backup_next(s->backup, r);
    } else if (r->frame.type == KITHI_FRAME_RESTORE_DATA) {
        kithi_revive_data(s->revive, r);
    } else if (kithi_revive_end(s->revive, r)) {
        s->revive = NULL;
    }
}

static void dispatch_uid(struct kithi_session *s, struct kithi_request *r)
{
    struct kithi_errmsg err;
    struct kithi_collection *c = r->frame.len >= 16 ? kithi_daemon_find_uid(s->daemon, r->body) : NULL;
    uint32_t item = KITHI_NO_ITEM;
    if (!c && r->frame.len >= 16 && kithi_start_find_uid(s->daemon, r->body, &err)) {
        kithi_request_refuse(r, item, &err);
    } else if (!c) {
        kithi_error_set(&err, KITHI_E_NO_COLLECTION,
                        "this collection is not here any more: it was dropped; open it again by name");
        kithi_request_refuse(r, item, &err);
    } else if (r->frame.type == KITHI_FRAME_FLUSH) {
        kithi_pipeline_flush(c, r);
    } else if (r->frame.type == KITHI_FRAME_CHECKPOINT) {
        kithi_checkpointer_request(c, r);
    } else if (r->frame.type == KITHI_FRAME_ALTER) {
        kithi_relayout_request(c, r);
    } else if (r->frame.type == KITHI_FRAME_BACKUP) {
        begin_backup(s, c, r);
    } else if (decode_ops(r, &item, &err)) {
        kithi_request_refuse(r, item, &err);
    } else {
        r->durability = (uint8_t)r->frame.flags;
        kithi_pipeline_write(c, &s->backlog, r);
    }
}

static void hello(struct kithi_session *s, struct kithi_request *r)
{
    struct kithi_errmsg err;
    struct kithi_answer a = { .item = KITHI_NO_ITEM };
    uint32_t version = r->frame.len >= 8 ? kithi_get32(r->body) : 0;
    if (version == KITHI_WIRE_VERSION) {
        s->greeted = true;
        kithi_request_answer(r, &a);
        return;
    }
    kithi_error_set(
        &err, KITHI_E_VERSION,
        "the client speaks version %u of the protocol, this kithd version %u; use the library that "
        "belongs to it",
        version, KITHI_WIRE_VERSION);
    kithi_request_refuse(r, KITHI_NO_ITEM, &err);
    session_end(s);
}

static void dispatch(struct kithi_session *s, struct kithi_request *r)
{
    struct kithi_daemon *d = s->daemon;
    s->pending++;
    s->unanswered++;
    s->queued_bytes += r->frame.len;
    d->queued_bytes += r->frame.len;
    switch (r->frame.type) {
    case KITHI_FRAME_HELLO: hello(s, r); break;
    case KITHI_FRAME_CREATE: kithi_admin_create(d, r); break;
    case KITHI_FRAME_DROP: kithi_admin_drop(d, r); break;
    case KITHI_FRAME_LIST: kithi_admin_list(d, r); break;
    case KITHI_FRAME_OPEN: kithi_admin_open(d, r); break;
    case KITHI_FRAME_STATS: kithi_admin_stats(d, r); break;
    case KITHI_FRAME_BACKUP_NEXT:
    case KITHI_FRAME_RESTORE:
    case KITHI_FRAME_RESTORE_DATA:
    case KITHI_FRAME_RESTORE_END: dispatch_transfer(s, r); break;
    default: dispatch_uid(s, r); break;
    }
}

static const char *type_text(uint16_t type)
{
    switch (type) {
    case KITHI_FRAME_HELLO: return "hello";
    case KITHI_FRAME_CREATE: return "create";
    case KITHI_FRAME_DROP: return "drop";
    case KITHI_FRAME_LIST: return "list";
    case KITHI_FRAME_OPEN: return "open";
    case KITHI_FRAME_WRITE: return "write";
    case KITHI_FRAME_FLUSH: return "flush";
    case KITHI_FRAME_STATS: return "stats";
    case KITHI_FRAME_CHECKPOINT: return "checkpoint";
    case KITHI_FRAME_ALTER: return "alter";
    case KITHI_FRAME_BACKUP:
    case KITHI_FRAME_BACKUP_NEXT: return "back-up";
    case KITHI_FRAME_RESTORE:
    case KITHI_FRAME_RESTORE_DATA:
    case KITHI_FRAME_RESTORE_END: return "restore";
    default: return NULL;
    }
}

/* Bytes of a frame's body that a request of this type may and must have; counts are checked with them. */
static bool length_fits(const struct kithi_frame *f)
{
    switch (f->type) {
    case KITHI_FRAME_HELLO: return f->len == 8;
    case KITHI_FRAME_LIST: return f->len == 0 || (f->len >= 8 && f->len <= SMALL_BODY_MAX);
    case KITHI_FRAME_BACKUP_NEXT:
    case KITHI_FRAME_RESTORE_END: return f->len == 0;
    case KITHI_FRAME_FLUSH:
    case KITHI_FRAME_CHECKPOINT:
    case KITHI_FRAME_BACKUP:
    case KITHI_FRAME_STATS: return f->len == 16;
    case KITHI_FRAME_WRITE: return f->len >= 16;
    case KITHI_FRAME_ALTER: return f->len >= sizeof(struct kithi_alter) && f->len <= SMALL_BODY_MAX;
    case KITHI_FRAME_CREATE: return f->len >= sizeof(struct kithi_create) && f->len <= SMALL_BODY_MAX;
    case KITHI_FRAME_RESTORE:
        return f->len >= sizeof(struct kithi_restore) &&
               f->len <= sizeof(struct kithi_restore) + KITHI_NAME_MAX + 8;
    case KITHI_FRAME_RESTORE_DATA: return f->len > 0 && f->len <= KITHI_RESTORE_PIECE_MAX;
    default: return f->len <= SMALL_BODY_MAX;
    }
}

/* Judge a frame's header. 0, or why the connection has to end. */
static int frame_check(const struct kithi_session *s, const struct kithi_frame *f, struct kithi_errmsg *err)
{
    if (f->magic != KITHI_FRAME_MAGIC) {
        return kithi_error_set(err, KITHI_E_PROTOCOL, "the bytes %08x are not the beginning of a request",
                               f->magic);
    }
    const char *type = type_text(f->type);
    if (!type) {
        return kithi_error_set(err, KITHI_E_PROTOCOL, "type %u is not a request that this kithd knows",
                               f->type);
    }
    if (f->type == KITHI_FRAME_WRITE ? f->flags > KITHI_DURABILITY_NONE : f->flags != 0) {
        return kithi_error_set(err, KITHI_E_PROTOCOL,
                               "a %s request with flags %04x, which this kithd does not know", type,
                               f->flags);
    }
    if (f->len > KITHI_FRAME_MAX) {
        return kithi_error_set(err, KITHI_E_TOO_LARGE,
                               "a %s request of %u bytes; at most %u are allowed, send smaller "
                               "batches",
                               type, f->len, KITHI_FRAME_MAX);
    }
    if (f->len % 8 || !length_fits(f) || (f->type != KITHI_FRAME_WRITE && f->count)) {
        return kithi_error_set(err, KITHI_E_PROTOCOL, "a %s request cannot have %u bytes and %u items", type,
                               f->len, f->count);
    }
    if (!s->greeted && f->type != KITHI_FRAME_HELLO) {
        return kithi_error_set(err, KITHI_E_PROTOCOL,
                               "a connection begins with a hello, not with a %s request", type);
    }
    return 0;
}

static bool needs_write(uint16_t type)
{
    return type == KITHI_FRAME_WRITE || type == KITHI_FRAME_FLUSH || type == KITHI_FRAME_CREATE ||
           type == KITHI_FRAME_DROP || type == KITHI_FRAME_CHECKPOINT || type == KITHI_FRAME_BACKUP ||
           type == KITHI_FRAME_ALTER || type == KITHI_FRAME_BACKUP_NEXT || type == KITHI_FRAME_RESTORE ||
           type == KITHI_FRAME_RESTORE_DATA || type == KITHI_FRAME_RESTORE_END;
}

/* A frame's header has come: make room for its body, or refuse. Returns false when the session is over. */
static bool frame_begin(struct kithi_session *s, const struct kithi_frame *f)
{
    struct kithi_errmsg err;
    if (frame_check(s, f, &err)) {
        session_refuse(s, f->magic == KITHI_FRAME_MAGIC ? f->tag : 0, &err);
        return false;
    }
    bool write = needs_write(f->type);
    struct kithi_request *r = NULL;
    if (f->type != KITHI_FRAME_HELLO && !(write ? s->rights.write : s->rights.read)) {
        kithi_rights_denied(&s->daemon->policy, write, type_text(f->type), &err);
    } else {
        r = calloc(1, sizeof *r);
        if (r) {
            r->body = malloc(f->len ? f->len : 1);
        }
        if (r && r->body) {
            r->frame = *f;
            r->session = s;
            s->partial = r;
            s->partial_have = 0;
            return true;
        }
        free(r);
        kithi_error_set(&err, -ENOMEM, "no memory for a %s request of %u bytes", type_text(f->type), f->len);
    }
    struct kithi_answer a = {
        .status = err.code, .item = KITHI_NO_ITEM, .text = err.text, .text_len = strlen(err.text)
    };
    s->skip = f->len;
    s->pending++;
    session_reply(s, f->tag, &a);
    return s->state == SESSION_OPEN;
}

/* One more request may be answered: enough for one that is answered at once. */
static bool may_answer(const struct kithi_session *s)
{
    unsigned pending_max = s->backup ? KITHI_BACKUP_AHEAD : PENDING_MAX;
    return s->state == SESSION_OPEN && !s->daemon->stopping && s->pending < pending_max;
}

static bool may_read(const struct kithi_session *s)
{
    const struct kithi_daemon *d = s->daemon;
    return may_answer(s) && s->queued_bytes < SESSION_BYTES_MAX && d->queued_bytes < DAEMON_BYTES_HARD &&
           (d->queued_bytes < DAEMON_BYTES_SOFT || !s->queued_bytes);
}

/* A stop keeps waiting whoever asked for what takes long, and does not let one end who is in the middle of a back-up. */
static bool is_kept(const struct kithi_session *s)
{
    return s->state == SESSION_OPEN && s->greeted && (s->unanswered || s->backup || s->revive);
}

/* These get signs of life, and hear that the back-up is over (dispatch_transfer()). Nothing else is begun any more. */
static bool is_heard(uint16_t type)
{
    return type == KITHI_FRAME_HELLO || type == KITHI_FRAME_BACKUP_NEXT || type == KITHI_FRAME_RESTORE_DATA ||
           type == KITHI_FRAME_RESTORE_END;
}

static bool may_hear(const struct kithi_session *s, const unsigned char *input, size_t len)
{
    struct kithi_frame f;
    if (!is_kept(s) || s->pending >= PENDING_MAX || len < sizeof f) {
        return is_kept(s) && s->pending < PENDING_MAX;
    }
    memcpy(&f, input, sizeof f);
    return f.magic == KITHI_FRAME_MAGIC && is_heard(f.type);
}

/* While too much is queued for more of that, who asks for something small, be it for a sign of life, still gets it; what it is
 * the header says. */
static bool may_look(const struct kithi_session *s, const unsigned char *input, size_t len)
{
    struct kithi_frame f;
    if (s->daemon->stopping) {
        return may_hear(s, input, len);
    }
    if (!may_answer(s) || len < sizeof f) {
        return may_answer(s);
    }
    memcpy(&f, input, sizeof f);
    return f.magic == KITHI_FRAME_MAGIC && f.type != KITHI_FRAME_WRITE && f.type != KITHI_FRAME_RESTORE_DATA;
}

/* Take as many whole frames out of the input as may be accepted now. */
static void session_parse(struct kithi_session *s)
{
    size_t at = 0;
    s->paused = false;
    while (s->state == SESSION_OPEN) {
        size_t left = s->input_len - at;
        if (s->skip) {
            size_t n = left < s->skip ? left : s->skip;
            s->skip -= n;
            at += n;
            if (s->skip) {
                break;
            }
            continue;
        }
        if (s->partial) {
            struct kithi_request *r = s->partial;
            size_t want = r->frame.len - s->partial_have, n = left < want ? left : want;
            memcpy(r->body + s->partial_have, s->input + at, n);
            s->partial_have += n;
            at += n;
            if (n < want) {
                break;
            }
            s->partial = NULL;
            dispatch(s, r);
            continue;
        }
        if (!may_read(s) && !may_look(s, s->input + at, left)) {
            s->paused = true;
            break;
        }
        struct kithi_frame f;
        if (left < sizeof f) {
            break;
        }
        memcpy(&f, s->input + at, sizeof f);
        at += sizeof f;
        if (!frame_begin(s, &f)) {
            break;
        }
    }
    memmove(s->input, s->input + at, s->input_len - at);
    s->input_len -= at;
    bool half = s->state == SESSION_OPEN && !s->paused && (s->input_len || s->partial || s->skip);
    if (s->state == SESSION_OPEN && s->greeted) {
        s->deadline_ms = half || s->backup || s->revive ? kithi_now_ms() + HALF_FRAME_MS : KITHI_NEVER;
    }
}

static void recv_done(struct kithi_io_op *op, int result)
{
    struct kithi_session *s = op->arg;
    session_touch(s);
    if (s->state == SESSION_CLOSED) {
        return;
    }
    if (result < 0) {
        if (result != -ECANCELED) {
            session_close(s);
        }
        return;
    }
    if (s->state == SESSION_DRAIN || s->state == SESSION_REFUSED) {
        s->peer_done |= result == 0;
        s->drained += (size_t)result;
        if (s->drained > DRAIN_BYTES) {
            s->peer_done = true;
        }
        session_read(s);
        return;
    }
    if (result == 0) {
        s->peer_done = true;
        if (s->input_len || s->partial || s->skip) {
            kithi_log(KITHI_LOG_DEBUG, "client-cut-short", "uid=%u msg=the connection ended inside a request",
                      (unsigned)s->uid);
        }
        return;
    }
    if (s->partial) {
        s->partial_have += (size_t)result;
    } else {
        s->input_len += (size_t)result;
    }
    session_parse(s);
    session_read(s);
}

/* Ask for more bytes if they may come now. */
static void session_read(struct kithi_session *s)
{
    if (s->recv_op.busy || s->peer_done || s->state == SESSION_CLOSED) {
        return;
    }
    s->recv_op.done = recv_done;
    s->recv_op.arg = s;
    if (s->state == SESSION_DRAIN || s->state == SESSION_REFUSED) {
        kithi_io_recv(s->daemon->io, &s->recv_op, s->fd, s->input, sizeof s->input);
    } else if (s->paused ||
               (s->daemon->stopping && (!is_kept(s) || (s->partial && !is_heard(s->partial->frame.type))))) {
        return;
    } else if (s->partial) {
        kithi_io_recv(s->daemon->io, &s->recv_op, s->fd, s->partial->body + s->partial_have,
                      s->partial->frame.len - s->partial_have);
    } else {
        kithi_io_recv(s->daemon->io, &s->recv_op, s->fd, s->input + s->input_len,
                      sizeof s->input - s->input_len);
    }
}

static void send_done(struct kithi_io_op *op, int result)
{
    struct kithi_session *s = op->arg;
    struct output *sent = &s->out[!s->filling];
    session_touch(s);
    if (s->state == SESSION_CLOSED) {
        return;
    }
    if (result < 0) {
        session_close(s);
        return;
    }
    s->pending -= sent->replies;
    sent->len = 0;
    sent->replies = 0;
    s->daemon->room_made = true;
}

static void session_send(struct kithi_session *s)
{
    if (s->state == SESSION_CLOSED || s->send_op.busy || !s->out[s->filling].len) {
        return;
    }
    struct output *o = &s->out[s->filling];
    s->filling = !s->filling;
    s->send_op.done = send_done;
    s->send_op.arg = s;
    kithi_io_send(s->daemon->io, &s->send_op, s->fd, o->bytes, o->len);
}

static bool session_sent(const struct kithi_session *s)
{
    return s->state == SESSION_CLOSED || (!s->send_op.busy && !s->out[s->filling].len);
}

static void session_free(struct kithi_session *s)
{
    if (s->next) {
        s->next->prev = s->prev;
    }
    if (s->prev) {
        s->prev->next = s->next;
    } else {
        s->daemon->sessions = s->next;
    }
    if (s->partial) {
        free(s->partial->body);
        free(s->partial);
    }
    kithi_backup_free(s->backup);
    kithi_revive_abandon(s->revive);
    free(s->out[0].bytes);
    free(s->out[1].bytes);
    free(s);
}

/* Move a session on. Returns false when it is gone. */
static bool session_turn(struct kithi_session *s, uint64_t now_ms)
{
    session_send(s);
    if (s->state == SESSION_OPEN) {
        if (s->paused && (may_read(s) || may_look(s, s->input, s->input_len))) {
            session_parse(s);
            session_send(s);
        }
        session_read(s);
        if (s->peer_done && !s->paused && !s->pending) {
            session_close(s);
        } else if (now_ms >= s->deadline_ms && (s->backup || s->revive) && s->unanswered) {
            s->deadline_ms = now_ms + HALF_FRAME_MS; /* it is our turn: a checkpoint may take long */
        } else if (now_ms >= s->deadline_ms) {
            kithi_log(KITHI_LOG_WARN, "client-stalled", "uid=%u msg=%s for %u s; the connection is closed",
                      (unsigned)s->uid,
                      s->backup || s->revive ? "no byte in the middle of a back-up"
                      : s->greeted           ? "no byte in the middle of a request"
                                             : "no hello",
                      (s->greeted ? HALF_FRAME_MS : HELLO_MS) / 1000);
            session_close(s);
        }
    }
    if (s->state == SESSION_REFUSED) {
        session_read(s);
        if (!s->pending && session_sent(s)) {
            shutdown(s->fd, SHUT_WR);
            s->state = SESSION_DRAIN;
            s->deadline_ms = now_ms + DRAIN_MS;
        }
    }
    bool late = now_ms >= s->deadline_ms;
    if ((s->state == SESSION_REFUSED && late) || (s->state == SESSION_DRAIN && (late || s->peer_done))) {
        session_close(s);
    }
    if (s->state == SESSION_CLOSED && !s->unanswered && !s->recv_op.busy && !s->send_op.busy) {
        return false;
    }
    return true;
}

/* ---- accepting ---- */

static void accept_next(struct kithi_daemon *d);

/*
 * Is there a place for this session, which is in the list already? Strangers, users other than kithd's own and root,
 * get no more than half of the places each and leave a few, so that no member of a group can shut out all others.
 * 0 or -EUSERS.
 */
static int find_place(struct kithi_daemon *d, const struct kithi_session *s, struct kithi_errmsg *err)
{
    unsigned places = d->session_max, all = 0, strangers = 0, same = 0;
    unsigned own = places / 2 < OWN_PLACES ? places / 2 : OWN_PLACES, each = (places + 1) / 2;
    for (const struct kithi_session *i = d->sessions; i; i = i->next) {
        bool holds = i->fd >= 0 && !i->no_place;
        all += holds;
        strangers += holds && !kithi_rights_own(&d->policy, i->uid);
        same += holds && i->uid == s->uid;
    }
    bool stranger = !kithi_rights_own(&d->policy, s->uid);
    if (stranger && same > each) {
        return kithi_error_set(err, -EUSERS,
                               "user %u has %u connections, as many as one user may have of this kithd's %u; "
                               "close some, or let its owner raise clients in its configuration",
                               (unsigned)s->uid, same - 1, places);
    }
    if (stranger && strangers > places - own) {
        return kithi_error_set(err, -EUSERS,
                               "other users than kithd's own have %u connections, as many as this kithd lets "
                               "them have; close some, or let its owner raise clients in its configuration",
                               strangers - 1);
    }
    if (all > places) {
        return kithi_error_set(err, -EUSERS,
                               "this kithd serves at most %u clients at a time; close some, or raise clients "
                               "in its configuration and its limit of open files",
                               places);
    }
    return 0;
}

static bool many_leave(const struct kithi_daemon *d)
{
    unsigned n = 0;
    for (const struct kithi_session *i = d->sessions; i; i = i->next) {
        n += i->fd >= 0 && i->no_place;
    }
    return n > LEAVING_MAX;
}

static void session_open(struct kithi_daemon *d, int fd)
{
    struct kithi_session *s = calloc(1, sizeof *s);
    struct kithi_errmsg err;
    if (!s) {
        kithi_log(KITHI_LOG_ERROR, "client-refused", "msg=no memory for another client");
        kithi_io_close(d->io, fd);
        return;
    }
    s->daemon = d;
    s->fd = fd;
    s->deadline_ms = kithi_now_ms() + HELLO_MS;
    s->next = d->sessions;
    if (s->next) {
        s->next->prev = s;
    }
    d->sessions = s;
    d->session_count++;
    int status = kithi_rights_of_peer(&d->policy, fd, &s->rights, &s->uid);
    if (status) {
        kithi_error_set(&err, status, "the kernel does not say who you are: %s", strerror(-status));
        session_refuse(s, 0, &err);
    } else if (find_place(d, s, &err)) {
        s->no_place = true;
        session_refuse(s, 0, &err);
        if (many_leave(d)) {
            session_close(s);
        }
    }
    session_touch(s);
}

static void accept_done(struct kithi_io_op *op, int result)
{
    struct kithi_daemon *d = op->arg;
    if (result >= 0) {
        session_open(d, result);
    } else if (result != -ECANCELED && result != -ECONNABORTED && result != -EINTR) {
        kithi_log(KITHI_LOG_ERROR, "accept-failed", "msg=cannot take a connection: %s; trying again",
                  kithi_error_text(result));
        d->accept_at_ms = kithi_now_ms() + ACCEPT_RETRY_MS;
        return;
    }
    accept_next(d);
}

static void accept_next(struct kithi_daemon *d)
{
    if (d->stopping || d->listen_fd < 0 || d->accept_op.busy) {
        return;
    }
    d->accept_at_ms = KITHI_NEVER;
    d->accept_op.done = accept_done;
    d->accept_op.arg = d;
    kithi_io_accept(d->io, &d->accept_op, d->listen_fd);
}

/* ---- public ---- */

static unsigned client_limit(const struct kithi_daemon *d, unsigned wanted)
{
    rlim_t slack = KITHI_NEED_DESCRIPTORS + KITHI_NEED_DESCRIPTORS_EACH * kithi_start_count(d);
    for (const struct kithi_collection *c = d->collections; c; c = c->next) {
        slack += KITHI_NEED_DESCRIPTORS_EACH;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) {
        return wanted;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit)) {
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    rlim_t room = limit.rlim_cur > slack ? limit.rlim_cur - slack : 1;
    if (room < wanted) {
        kithi_log(KITHI_LOG_WARN, "clients-limited",
                  "clients=%u wanted=%u msg=the limit of open files (ulimit -n) is %llu", (unsigned)room,
                  wanted, (unsigned long long)limit.rlim_cur);
        return (unsigned)room;
    }
    return wanted;
}

int kithi_intake_open(struct kithi_daemon *d, struct kithi_errmsg *err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char path[KITHI_PATH_MAX];
    int status = kithi_path(path, err, "%s/%s", d->run.path, KITHI_SOCKET_NAME);
    if (status) {
        return status;
    }
    if (strlen(path) >= sizeof address.sun_path) {
        return kithi_error_set(
            err, KITHI_E_RUN_DIR,
            "the socket's path %.120s... has %zu bytes, a socket's may have %zu; use a run directory "
            "with a shorter path",
            path, strlen(path), sizeof address.sun_path - 1);
    }
    memcpy(address.sun_path, path, strlen(path));
    d->session_max = client_limit(d, d->session_max);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return kithi_error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
    }
    /* What is there is a predecessor's: we hold the lock of the directory. Until listen() clients get
     * "connection refused", as before. */
    unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || chmod(path, 0666) ||
        listen(fd, LISTEN_BACKLOG)) {
        int e = errno;
        close(fd);
        return kithi_error_set(err, -e, "cannot listen on %s: %s", path, strerror(e));
    }
    d->listen_fd = fd;
    accept_next(d);
    return 0;
}

void kithi_intake_stop(struct kithi_daemon *d)
{
    if (d->listen_fd >= 0) {
        char path[KITHI_PATH_MAX];
        if (!kithi_path(path, NULL, "%s/%s", d->run.path, KITHI_SOCKET_NAME)) {
            unlink(path);
        }
        kithi_io_close(d->io, d->listen_fd);
        d->listen_fd = -1;
    }
    for (struct kithi_session *s = d->sessions; s; s = s->next) {
        if (s->state == SESSION_OPEN && s->recv_op.busy) {
            kithi_io_cancel(d->io, &s->recv_op);
        }
    }
}

uint64_t kithi_intake_turn(struct kithi_daemon *d, uint64_t now_ms)
{
    if (d->accept_at_ms <= now_ms) {
        accept_next(d);
    }
    /* All sessions are looked at only when a deadline may have passed, or one that paused may go on. */
    if (d->room_made || now_ms >= d->look_at_ms) {
        d->room_made = false;
        d->look_at_ms = now_ms + LOOK_MS;
        for (struct kithi_session *s = d->sessions; s; s = s->next) {
            if (s->paused || now_ms >= s->deadline_ms) {
                session_touch(s);
            }
        }
    }
    while (d->touched) {
        struct kithi_session *s = d->touched;
        d->touched = s->next_touched;
        s->touched = false;
        if (!session_turn(s, now_ms) && !s->touched) {
            session_free(s); /* otherwise its turn comes again below */
        }
    }
    uint64_t again_ms = d->sessions ? d->look_at_ms : KITHI_NEVER;
    return d->accept_at_ms < again_ms ? d->accept_at_ms : again_ms;
}

bool kithi_intake_drained(const struct kithi_daemon *d)
{
    for (const struct kithi_session *s = d->sessions; s; s = s->next) {
        if (s->unanswered || !session_sent(s)) {
            return false;
        }
    }
    return true;
}

void kithi_intake_fini(struct kithi_daemon *d)
{
    while (d->sessions) {
        struct kithi_session *s = d->sessions;
        if (s->fd >= 0) {
            close(s->fd);
        }
        session_free(s);
    }
}
