/*
 * h2.c - see h2.h.
 */
#include "server/gateway/grpc/h2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <nghttp2/nghttp2.h>

#include "server/gateway/grpc/status.h"

#define CALL_WINDOW       (1 << 20) /* bytes of a call that may be under way */
#define CONNECTION_WINDOW (16 << 20)
#define HEADERS_MAX       16384u /* bytes of a call's headers, as HTTP/2 counts them */
#define OUTPUT            65536u
#define ANSWERS_AHEAD     65536u /* bytes of answers of a call that wait for its client, before it is read on */
/* An allowance: so many at once, and so many more a second. Clients that cancel every call stay below the first, keepalives below the second. */
#define RESETS_BURST  500u
#define RESETS_RATE   100u
#define NOTHING_BURST 2000u
#define NOTHING_RATE  500u

/* Headers that somebody goes by, each with a NUL. What is longer than its place was too long. */
struct kithi_h2_heads {
    size_t bytes; /* of all headers */
    bool origin, too_long;
    char method[8], path[128], host[256], content_type[64], encoding[32], timeout[16];
    char authorization[160], api_key[144], fetch_site[32], request_id[72];
};

struct allowance {
    uint32_t left;
    uint64_t filled_ns;
};

struct kithi_h2 {
    nghttp2_session *session;
    const struct kithi_h2_host *host;
    void *arg;
    struct kithi_h2_limits limits;
    struct kithi_h2_call *first;
    unsigned count;
    uint64_t now_ns, frame_ns;
    struct allowance resets, nothings;
    bool flooded, dead, stalled, freeing;
};

static void feed(struct kithi_h2_call *call, const char *at, size_t len);
static void settle(struct kithi_h2_call *call);

/* ---- bounds -------------------------------------------------------------------------- */

static bool spend(struct kithi_h2 *h2, struct allowance *a, uint32_t burst, uint32_t rate)
{
    if (a->filled_ns == 0) {
        *a = (struct allowance){ burst, h2->now_ns };
    }
    uint64_t more = (h2->now_ns - a->filled_ns) / (1000000000u / rate);
    if (more) {
        a->left = more > burst - a->left ? burst : a->left + (uint32_t)more;
        a->filled_ns = h2->now_ns;
    }
    if (a->left) {
        a->left--;
        return true;
    }
    if (!h2->flooded) {
        h2->flooded = true;
        nghttp2_session_terminate_session(h2->session, NGHTTP2_ENHANCE_YOUR_CALM);
    }
    return false;
}

/* ---- calls --------------------------------------------------------------------------- */

static struct kithi_h2_call *call_of(struct kithi_h2 *h2, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h2->session, id);
}

static struct kithi_h2_call *new_call(struct kithi_h2 *h2, int32_t id)
{
    struct kithi_h2_call *call = calloc(1, sizeof *call);
    struct kithi_h2_heads *heads = calloc(1, sizeof *heads);
    if (!call || !heads) {
        free(call);
        free(heads);
        return NULL;
    }
    call->h2 = h2;
    call->id = id;
    call->heads = heads;
    kithi_text_init(&call->body, h2->limits.message_max, h2->limits.bodies);
    kithi_text_init(&call->held, CALL_WINDOW + 65536u, h2->limits.bodies);
    kithi_text_init(&call->out, SIZE_MAX / 4, NULL);
    call->next = h2->first;
    if (h2->first) {
        h2->first->previous = call;
    }
    h2->first = call;
    h2->count++;
    return call;
}

static void free_call(struct kithi_h2_call *call)
{
    struct kithi_h2 *h2 = call->h2;
    if (call->owed_gone) {
        h2->host->gone(h2->arg, call);
    }
    *(call->previous ? &call->previous->next : &h2->first) = call->next;
    if (call->next) {
        call->next->previous = call->previous;
    }
    h2->count--;
    free(call->heads);
    free(call->message);
    kithi_text_fini(&call->body);
    kithi_text_fini(&call->held);
    kithi_text_fini(&call->out);
    free(call);
}

/* ---- out ----------------------------------------------------------------------------- */

#define HEADER(name_, value_, len_)                                                                          \
    (nghttp2_nv)                                                                                             \
    {                                                                                                        \
        (uint8_t *)(uintptr_t)(name_), (uint8_t *)(uintptr_t)(value_), sizeof(name_) - 1, (len_),            \
            NGHTTP2_NV_FLAG_NONE                                                                             \
    }

/* The headers behind all messages. Returns how many. */
static size_t trailers(const struct kithi_h2_call *call, char code[4], char *message, nghttp2_nv *out)
{
    size_t n = 0;
    snprintf(code, 4, "%d", call->code);
    out[n++] = HEADER("grpc-status", code, strlen(code));
    if (call->message && *call->message) {
        size_t len = kithi_grpc_message(call->message, message);
        out[n++] = HEADER("grpc-message", message, len);
    }
    if (call->kith_code) {
        out[n++] = HEADER("kith-code", call->kith_code, strlen(call->kith_code));
    }
    if (call->outcome) {
        out[n++] = HEADER("kith-outcome", call->outcome, strlen(call->outcome));
    }
    return n;
}

static ssize_t read_out(nghttp2_session *session, int32_t id, uint8_t *to, size_t length, uint32_t *flags,
                        nghttp2_data_source *source, void *arg)
{
    struct kithi_h2_call *call = source->ptr;
    size_t n = call->out.len - call->sent;
    (void)arg;
    n = n < length ? n : length;
    memcpy(to, call->out.at + call->sent, n);
    call->sent += n;
    if (call->stalled && call->out.len - call->sent < ANSWERS_AHEAD) {
        call->h2->stalled = true; /* somebody may go on */
    }
    if (call->sent < call->out.len) {
        return (ssize_t)n;
    }
    kithi_text_fini(&call->out);
    call->sent = 0;
    if (call->finished) {
        nghttp2_nv list[4];
        char code[4], message[KITHI_GRPC_MESSAGE_MAX];
        size_t count = trailers(call, code, message, list);
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        return nghttp2_submit_trailer(session, id, list, count) ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
                                                                : (ssize_t)n;
    }
    return n ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
}

/* The first headers; without a source they are the last, too. */
static void begin_out(struct kithi_h2_call *call, bool alone)
{
    nghttp2_nv list[10];
    char code[4], message[KITHI_GRPC_MESSAGE_MAX];
    size_t n = 0;
    nghttp2_data_provider source = { .source = { .ptr = call }, .read_callback = read_out };
    list[n++] = HEADER(":status", "200", 3);
    list[n++] = HEADER("content-type", "application/grpc", 16);
    list[n++] = HEADER("grpc-accept-encoding", "identity", 8);
    if (call->request_id[0]) {
        list[n++] = HEADER("x-request-id", call->request_id, strlen(call->request_id));
    }
    if (alone) {
        n += trailers(call, code, message, list + n);
    }
    call->begun_out = true;
    nghttp2_submit_response(call->h2->session, call->id, list, n, alone ? NULL : &source);
}

bool kithi_h2_answer(struct kithi_h2_call *call, struct kithi_text *answer)
{
    size_t len = answer->len - KITHI_H2_PREFIX;
    if (call->finished || answer->failed || len > UINT32_MAX) {
        return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        answer->at[1 + i] = (char)(len >> (8 * (3 - i)));
    }
    answer->at[0] = 0;
    if (call->out.len == 0) {
        kithi_text_fini(&call->out);
        call->out = *answer; /* with the budget that it is in */
        call->sent = 0;
        kithi_text_init(answer, answer->max, answer->budget);
    } else {
        kithi_text_put(&call->out, answer->at, answer->len);
        kithi_text_cut(answer, 0);
        if (call->out.failed) {
            return false;
        }
    }
    if (call->begun_out) {
        nghttp2_session_resume_data(call->h2->session, call->id);
    } else {
        begin_out(call, false); /* nothing is read before the next output */
    }
    return true;
}

void kithi_h2_finish(struct kithi_h2_call *call, const struct kithi_refusal *refusal, bool writes)
{
    if (call->finished) {
        return;
    }
    call->finished = true;
    call->busy = false;
    if (refusal && refusal->status) {
        char sentence[sizeof refusal->where + sizeof refusal->message + 3];
        bool place = refusal->where[0] && !strstr(refusal->message, refusal->where);
        snprintf(sentence, sizeof sentence, "%s%s%s", place ? refusal->where : "", place ? ": " : "",
                 refusal->message);
        call->code = (int)kithi_grpc_code_of(refusal);
        call->message = strdup(sentence); /* without memory there is the code alone */
        call->kith_code = refusal->code;
        call->outcome = writes ? kithi_outcome_name(refusal->outcome) : NULL;
    }
    kithi_text_fini(&call->body);
    kithi_text_fini(&call->held);
    if (call->begun_out) {
        nghttp2_session_resume_data(call->h2->session, call->id);
    } else {
        begin_out(call, call->out.len == 0);
    }
}

void kithi_h2_reset(struct kithi_h2_call *call)
{
    call->finished = true;
    nghttp2_submit_rst_stream(call->h2->session, NGHTTP2_FLAG_NONE, call->id, NGHTTP2_CANCEL);
}

/* ---- in ------------------------------------------------------------------------------ */

static void refuse(struct kithi_h2_call *call, int status, const char *code, const char *why)
{
    struct kithi_refusal refusal = { .status = 0 };
    kithi_refuse(&refusal, status, code, NULL, "%s", why);
    if (!call->finished) {
        kithi_h2_finish(call, &refusal, false);
        call->h2->host->refused(call->h2->arg, call, &refusal);
    }
}

/* Bytes of the call have been dealt with: its client may send as many more. */
static void consumed(struct kithi_h2_call *call, size_t len)
{
    nghttp2_session_consume_stream(call->h2->session, call->id, len);
}

static bool prefix(struct kithi_h2_call *call, const char **at, size_t *len)
{
    while (call->prefix_len < KITHI_H2_PREFIX && *len) {
        call->prefix[call->prefix_len++] = (unsigned char)*(*at)++;
        --*len;
    }
    if (call->prefix_len < KITHI_H2_PREFIX) {
        return false;
    }
    const unsigned char *p = call->prefix;
    call->body_left = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | (size_t)p[4];
    if (p[0]) {
        refuse(call, 400, p[0] == 1 ? "compressed" : "frame",
               "the message is said to be compressed, and no grpc-encoding says how");
        return false;
    }
    if (call->single && call->messages) {
        refuse(call, 400, "frame", "this call takes one message, and a second has come");
        return false;
    }
    if (call->body_left > call->h2->limits.message_max) {
        refuse(call, 413, "too_large", "the message is larger than body_mib; send less at a time");
        return false;
    }
    return true;
}

/* Go on with bytes of a call; what comes behind a message that its owner is at is held. */
static void feed(struct kithi_h2_call *call, const char *at, size_t len)
{
    call->feeding = true;
    while (!call->finished && len) {
        size_t before = len;
        if (call->busy || call->stalled) {
            kithi_text_put(&call->held, at, len);
            if (call->held.failed) {
                refuse(call, 503, "busy", "there is no memory for more bodies now (bodies_mib); try again");
            }
            break;
        }
        bool whole = call->prefix_len == KITHI_H2_PREFIX || prefix(call, &at, &len);
        if (whole) {
            size_t n = len < call->body_left ? len : call->body_left;
            kithi_text_put(&call->body, at, n);
            call->body_left -= n;
            at += n;
            len -= n;
            if (call->body.failed) {
                refuse(call, 503, "busy", "there is no memory for more bodies now (bodies_mib); try again");
            }
        }
        consumed(call, before - len);
        if (whole && call->body_left == 0 && !call->finished) {
            call->prefix_len = 0;
            call->messages++;
            if (!call->single) {
                call->busy = true;
                call->stalled = call->out.len - call->sent >= ANSWERS_AHEAD;
                if (!call->stalled) {
                    call->h2->host->message(call->h2->arg, call);
                }
            }
        }
    }
    if (call->finished) {
        consumed(call, len);
    }
    call->feeding = false;
}

/* What may go on, goes on: a message that waited for answers to be fetched, bytes that were held, the end. */
static void settle(struct kithi_h2_call *call)
{
    if (call->feeding || call->finished) {
        return;
    }
    if (call->stalled && call->out.len - call->sent < ANSWERS_AHEAD) {
        call->stalled = false;
        call->feeding = true;
        call->h2->host->message(call->h2->arg, call);
        call->feeding = false;
    }
    while (!call->busy && !call->finished && call->held.len) {
        struct kithi_text held = call->held;
        kithi_text_init(&call->held, held.max, held.budget);
        feed(call, held.at, held.len);
        kithi_text_fini(&held);
    }
    if (call->finished || call->busy || call->held.len || !call->remote_ended || call->told_ended) {
        return;
    }
    call->told_ended = true;
    if (call->prefix_len) {
        refuse(call, 400, "frame", "the call has ended in the middle of a message");
    } else if (call->single && call->messages == 1) {
        call->busy = true;
        call->h2->host->message(call->h2->arg, call);
    } else if (call->single) {
        refuse(call, 400, "frame", "this call takes a message, and none has come");
    } else {
        call->h2->host->ended(call->h2->arg, call);
    }
}

void kithi_h2_ready(struct kithi_h2_call *call)
{
    call->busy = false;
    kithi_text_fini(&call->body);
    settle(call);
}

static struct kithi_part part(const char *text)
{
    return (struct kithi_part){ *text ? text : NULL, strlen(text) };
}

/* The headers of a call are whole. */
static void begin(struct kithi_h2_call *call)
{
    struct kithi_h2 *h2 = call->h2;
    struct kithi_h2_heads *heads = call->heads;
    struct kithi_h2_head head = { .timeout_ns = 0 };
    call->heads = NULL;
    if (strncasecmp(heads->content_type, "application/grpc", 16) != 0) {
        /* No client of gRPC: what HTTP says of it. */
        nghttp2_nv list[] = { HEADER(":status", "415", 3), HEADER("grpc-accept-encoding", "identity", 8) };
        call->finished = call->begun_out = true;
        nghttp2_submit_response(h2->session, call->id, list, 2, NULL);
        goto out;
    }
    head.http = (struct kithi_http_head){ .method = strcmp(heads->method, "POST") ? KITHI_HTTP_OTHER
                                                                                  : KITHI_HTTP_POST,
                                          .path = part(heads->path),
                                          .host = part(heads->host),
                                          .authorization = part(heads->authorization),
                                          .api_key = part(heads->api_key),
                                          .origin = part(heads->origin ? "?" : ""),
                                          .fetch_site = part(heads->fetch_site),
                                          .request_id = part(heads->request_id) };
    if (heads->bytes > HEADERS_MAX) {
        refuse(call, 431, "headers", "the headers of the call are more than 16 KiB");
    } else if (heads->too_long) {
        refuse(call, 431, "headers", "a header of the call is too long for what it is");
    } else if (head.http.method != KITHI_HTTP_POST) {
        refuse(call, 400, "method", "calls of gRPC are POST");
    } else if (heads->encoding[0] && strcmp(heads->encoding, "identity") != 0) {
        refuse(call, 400, "unimplemented", "messages are not compressed here: grpc-encoding is identity");
    } else if (heads->timeout[0] && !kithi_grpc_timeout(part(heads->timeout), &head.timeout_ns)) {
        refuse(call, 400, "timeout", "grpc-timeout is not 1 to 8 digits and one of H, M, S, m, u, n");
    } else {
        if (heads->timeout[0] && head.timeout_ns == 0) {
            head.timeout_ns = 1;
        }
        call->owed_gone = true;
        h2->host->begin(h2->arg, call, &head);
    }
out:
    free(heads);
}

/* ---- what nghttp2 tells -------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct kithi_h2 *h2 = arg;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        return 0;
    }
    struct kithi_h2_call *call =
        h2->count < h2->limits.calls && h2->host->room(h2->arg) ? new_call(h2, frame->hd.stream_id) : NULL;
    if (!call) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
        return 0;
    }
    return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t len, uint8_t flags, void *arg)
{
    struct kithi_h2_call *call = call_of(arg, frame->hd.stream_id);
    struct kithi_h2_heads *h = call ? call->heads : NULL;
    (void)session;
    (void)flags;
    if (!h) {
        return 0;
    }
    const struct {
        const char *name;
        char *at;
        size_t size;
    } list[] = { { ":method", h->method, sizeof h->method },
                 { ":path", h->path, sizeof h->path },
                 { ":authority", h->host, sizeof h->host },
                 { "host", h->host, sizeof h->host },
                 { "content-type", h->content_type, sizeof h->content_type },
                 { "grpc-encoding", h->encoding, sizeof h->encoding },
                 { "grpc-timeout", h->timeout, sizeof h->timeout },
                 { "authorization", h->authorization, sizeof h->authorization },
                 { "x-api-key", h->api_key, sizeof h->api_key },
                 { "sec-fetch-site", h->fetch_site, sizeof h->fetch_site },
                 { "x-request-id", h->request_id, sizeof h->request_id } };
    h->bytes += name_len + len + 32;
    if (name_len == 6 && !memcmp(name, "origin", 6)) {
        h->origin = true;
    }
    for (unsigned i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (strlen(list[i].name) != name_len || memcmp(list[i].name, name, name_len) != 0) {
            continue;
        }
        if (len >= list[i].size || list[i].at[0]) { /* or it is there twice: then nobody knows which counts */
            h->too_long = true;
        } else {
            memcpy(list[i].at, value, len);
        }
    }
    return 0;
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
    struct kithi_h2 *h2 = arg;
    (void)session;
    (void)hd;
    h2->frame_ns = h2->frame_ns ? h2->frame_ns : h2->now_ns;
    return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct kithi_h2 *h2 = arg;
    struct kithi_h2_call *call = frame->hd.stream_id ? call_of(h2, frame->hd.stream_id) : NULL;
    bool ends = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    bool empty = frame->hd.type == NGHTTP2_DATA && frame->hd.length == 0 && !ends;
    (void)session;
    h2->frame_ns = 0;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        spend(h2, &h2->resets, RESETS_BURST, RESETS_RATE);
    } else if (empty || frame->hd.type == NGHTTP2_PING || frame->hd.type == NGHTTP2_SETTINGS ||
               frame->hd.type == NGHTTP2_PRIORITY || (!call && frame->hd.type == NGHTTP2_HEADERS)) {
        spend(h2, &h2->nothings, NOTHING_BURST, NOTHING_RATE);
    }
    if (!call || h2->flooded) {
        return 0;
    }
    if (frame->hd.type == NGHTTP2_HEADERS && call->heads) {
        begin(call);
    }
    if (ends && (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)) {
        call->remote_ended = true;
        settle(call);
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *arg)
{
    struct kithi_h2 *h2 = arg;
    (void)session;
    (void)frame;
    (void)error;
    h2->frame_ns = 0;
    spend(h2, &h2->nothings, NOTHING_BURST, NOTHING_RATE);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                   void *arg)
{
    struct kithi_h2_call *call = call_of(arg, id);
    (void)flags;
    nghttp2_session_consume_connection(session, len);
    if (call) {
        feed(call, (const char *)data, len);
        settle(call);
    } else {
        nghttp2_session_consume_stream(session, id, len);
    }
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    (void)arg;
    /* The status is out, and the client has not ended its side, or does not want to: it need not go on. Only now, as a reset before would have
     * the client throw the status away. */
    if (frame->hd.type == NGHTTP2_HEADERS && frame->hd.flags & NGHTTP2_FLAG_END_STREAM &&
        nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    }
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *arg)
{
    struct kithi_h2_call *call = call_of(arg, id);
    (void)error;
    if (call) {
        nghttp2_session_set_stream_user_data(session, id, NULL);
        free_call(call);
    }
    return 0;
}

/* ---- connections --------------------------------------------------------------------- */

static int make_session(struct kithi_h2 *h2)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, h2->limits.calls },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, CALL_WINDOW },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADERS_MAX },
    };
    if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option)) {
        nghttp2_session_callbacks_del(callbacks);
        return -ENOMEM;
    }
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    int rc = nghttp2_session_server_new2(&h2->session, callbacks, h2, option);
    if (rc == 0) {
        rc = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings,
                                     sizeof settings / sizeof settings[0]);
    }
    if (rc == 0) {
        rc = nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
    }
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    return rc ? -ENOMEM : 0;
}

int kithi_h2_new(const struct kithi_h2_host *host, void *arg, const struct kithi_h2_limits *limits,
                 struct kithi_h2 **out)
{
    struct kithi_h2 *h2 = calloc(1, sizeof *h2);
    if (!h2) {
        return -ENOMEM;
    }
    h2->host = host;
    h2->arg = arg;
    h2->limits = *limits;
    int rc = make_session(h2);
    if (rc < 0) {
        kithi_h2_free(h2);
        return rc;
    }
    *out = h2;
    return 0;
}

void kithi_h2_free(struct kithi_h2 *h2)
{
    if (!h2) {
        return;
    }
    while (h2->first) {
        free_call(h2->first);
    }
    nghttp2_session_del(h2->session);
    free(h2);
}

bool kithi_h2_receive(struct kithi_h2 *h2, const void *bytes, size_t len, uint64_t now_ns)
{
    const uint8_t *at = bytes;
    h2->now_ns = now_ns;
    while (len && !h2->flooded && !h2->dead) {
        ssize_t n = nghttp2_session_mem_recv(h2->session, at, len);
        if (n < 0) { /* not even HTTP/2, or no memory */
            h2->dead = true;
            break;
        }
        at += n;
        len -= (size_t)n;
    }
    return !h2->flooded && !h2->dead;
}

bool kithi_h2_output(struct kithi_h2 *h2, struct kithi_text *out)
{
    while (out->len < OUTPUT && !h2->dead) {
        const uint8_t *at;
        ssize_t n = nghttp2_session_mem_send(h2->session, &at);
        if (n < 0) {
            h2->dead = true;
        } else if (n > 0) {
            kithi_text_put(out, at, (size_t)n);
        } else if (h2->stalled) {
            h2->stalled = false;
            for (struct kithi_h2_call *call = h2->first, *next; call; call = next) {
                next = call->next;
                settle(call);
            }
        } else {
            break;
        }
    }
    return !h2->dead && !out->failed;
}

bool kithi_h2_over(struct kithi_h2 *h2)
{
    return h2->dead || (!nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session));
}

bool kithi_h2_flooded(const struct kithi_h2 *h2)
{
    return h2->flooded;
}

uint64_t kithi_h2_stuck_since(const struct kithi_h2 *h2)
{
    return h2->frame_ns;
}

struct kithi_h2_call *kithi_h2_calls(struct kithi_h2 *h2)
{
    return h2->first;
}

unsigned kithi_h2_call_count(const struct kithi_h2 *h2)
{
    return h2->count;
}

void kithi_h2_notice(struct kithi_h2 *h2)
{
    nghttp2_submit_shutdown_notice(h2->session);
}

void kithi_h2_goaway(struct kithi_h2 *h2)
{
    nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(h2->session), NGHTTP2_NO_ERROR, NULL, 0);
}
