/*
 * server.c - see server.h.
 */
#include "server/gateway/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/gateway/lanes.h"
#include "server/gateway/metrics.h"
#include "server/gateway/server_priv.h"

#define IN_SIZE        (KITHI_HTTP_HEAD_MAX + 1)
#define EVENTS         64
#define TICK_MS        50
#define HALF_CLOSED_NS UINT64_C(1000000000)
#define PARKED_MS      5 /* how often an epoch is looked for that requests wait for */
#define LINGER_MS      2000u
/* Steps of handshakes in one turn of the loop, a millisecond each at most (a signature of RSA): what is being served waits no longer for those
 * that knock. The others have their turn in the next one. */
#define HANDSHAKES_A_TURN 8u
#define FAILURES_A_SECOND 10u /* lines of the log about handshakes */

/* ---- small things -------------------------------------------------------------------- */

static void count(_Atomic uint64_t *word, uint64_t n)
{
    atomic_fetch_add_explicit(word, n, memory_order_relaxed);
}

static void unlink_conn(struct kithi_server *s, struct conn *c)
{
    *(c->previous ? &c->previous->next : &s->first) = c->next;
    *(c->next ? &c->next->previous : &s->last) = c->previous;
}

static void link_conn(struct kithi_server *s, struct conn *c)
{
    c->previous = s->last;
    c->next = NULL;
    *(s->last ? &s->last->next : &s->first) = c;
    s->last = c;
}

void kithi_peer_enter(struct kithi_server *s, struct conn *c, enum state state, uint64_t ms)
{
    s->shaking += (state == SHAKING) - (c->state == SHAKING);
    c->state = state;
    c->deadline_ns = kithi_gateway_now_ns() + ms * 1000000u;
    unlink_conn(s, c);
    link_conn(s, c);
}

void kithi_peer_watch(struct kithi_server *s, struct conn *c, uint32_t interest)
{
    uint32_t wants = kithi_stream_wants(&c->stream);
    if (wants && interest & (EPOLLIN | EPOLLOUT)) { /* TLS reads in order to write, or the other way round */
        interest = (interest & ~(uint32_t)(EPOLLIN | EPOLLOUT)) | wants;
    }
    if (c->half_closed) {
        interest &= ~(uint32_t)EPOLLRDHUP; /* it would be told again and again */
    }
    if (interest != c->interest) {
        struct epoll_event event = { .events = interest, .data.ptr = c };
        epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->stream.fd, &event);
        c->interest = interest;
    }
}

void kithi_server_request_free(struct kithi_request *r)
{
    if (r) {
        kithi_text_fini(&r->body);
        kithi_text_fini(&r->answer);
        kithi_keyring_drop(r->keyring);
        free(r);
    }
}

ssize_t kithi_peer_receive(struct conn *c, void *to, size_t size)
{
    return kithi_stream_read(&c->stream, to, size);
}

ssize_t kithi_peer_send(struct conn *c, const void *bytes, size_t len)
{
    const struct iovec part = { .iov_base = (void *)bytes, .iov_len = len };
    return kithi_stream_write(&c->stream, &part, 1);
}

void kithi_server_release(struct kithi_job *job)
{
    kithi_server_request_free(job->request);
    free(job);
}

/* One line for a request that is over. c: its connection; code: of a refusal, or "-". */
static void log_request(const struct kithi_server *s, const struct conn *c, const struct kithi_request *r,
                        int status, const char *code, size_t out, uint64_t us)
{
    if (s->options.access_log) {
        kithi_log(KITHI_LOG_INFO, "request",
                  "id=%s peer=%s key=%s method=%s path=%s route=%s status=%d code=%s in=%" PRIu64
                  " out=%zu us=%" PRIu64,
                  r->id, c->peer, r->key ? r->key->name : "-", kithi_http_method_name(r->method), c->path,
                  r->route ? r->route->name : "-", status, code, c->received, out, us);
    }
}

void kithi_peer_close(struct kithi_server *s, struct conn *c)
{
    if (c->h2) {
        kithi_grpc_free(s, c);
    }
    if (c->job) {
        struct kithi_job *job = c->job;
        /* A write may be done all the same: it has its line, and its count, although nobody is answered. Before the job is dropped, as
         * it may go with that; a thread that is at it changes nothing of what is looked at here. */
        uint64_t now = kithi_gateway_now_ns(), us = (now - job->request->began_ns) / 1000;
        bool stopped = s->drain_ns && now >= s->drain_ns;
        log_request(s, c, job->request, STATUS_GONE, stopped ? "stopping" : "peer_gone", 0, us);
        kithi_metrics_answer(s->gateway->metrics, job->request->route, STATUS_GONE, us);
        count(&s->gateway->metrics->bytes_in, c->received);
        job->owner = NULL;
        kithi_lanes_drop(s->lanes, job); /* one that has ended comes yet, without an owner */
        s->running--;
        c->request = NULL;
        kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_PEER_GONE);
    }
    unlink_conn(s, c);
    s->count--;
    s->shaking -= c->state == SHAKING;
    /* What was not sent whole does not end like what was. */
    c->stream.broken = c->stream.broken || c->state == SENDING;
    count(&s->gateway->metrics->connections, UINT64_MAX);
    kithi_stream_close(&c->stream);
    kithi_server_request_free(c->request);
    kithi_text_fini(&c->out);
    free(c->in);
    free(c);
}

/* ---- answers ------------------------------------------------------------------------- */

static void make_id(struct kithi_server *s, char out[KITHI_REQUEST_ID_MAX + 1])
{
    /* Unlike each other, and those of another start; nothing rests on their being secret. */
    snprintf(out, KITHI_REQUEST_ID_MAX + 1, "%012" PRIx64 "-%06" PRIx64, s->id_seed & 0xffffffffffff,
             ++s->id_count);
}

struct kithi_request *kithi_server_request(struct kithi_server *s)
{
    struct kithi_request *r = calloc(1, sizeof *r);
    if (r) {
        r->gateway = s->gateway;
        kithi_text_init(&r->body, (size_t)s->options.body_max, &s->gateway->bodies);
        kithi_text_init(&r->answer, s->gateway->answer_max, &s->gateway->answers);
        make_id(s, r->id);
        r->began_ns = kithi_gateway_now_ns();
    }
    return r;
}

static void write_refusal(struct kithi_request *r)
{
    const struct kithi_refusal *why = &r->refusal;
    kithi_text_fini(&r->answer);
    kithi_text_init(&r->answer, 8192, NULL); /* small, and owed whatever the budget says */
    kithi_text_str(&r->answer, "{\"error\":{\"code\":");
    kithi_text_json(&r->answer, why->code, strlen(why->code));
    kithi_text_str(&r->answer, ",\"message\":");
    kithi_text_json(&r->answer, why->message, strlen(why->message));
    if (why->where[0]) {
        kithi_text_str(&r->answer, ",\"where\":");
        kithi_text_json(&r->answer, why->where, strlen(why->where));
    }
    if (r->route && r->route->writes) {
        kithi_text_printf(&r->answer, ",\"outcome\":\"%s\"", kithi_outcome_name(why->outcome));
    }
    kithi_text_str(&r->answer, "},\"request_id\":");
    kithi_text_json(&r->answer, r->id, strlen(r->id));
    kithi_text_str(&r->answer, "}\n");
    r->status = why->status;
    r->type = NULL;
}

static const char *date(struct kithi_server *s)
{
    time_t now = time(NULL);
    struct tm tm;
    if (now != s->date_of && gmtime_r(&now, &tm)) {
        strftime(s->date, sizeof s->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_of = now;
    }
    return s->date;
}

static void send_more(struct kithi_server *s, struct conn *c);

/* The request of c is answered, or refused: begin to send. */
static void answer(struct kithi_server *s, struct conn *c)
{
    struct kithi_request *r = c->request;
    if (r->refusal.status) {
        write_refusal(r);
    }
    uint64_t us = (kithi_gateway_now_ns() - r->began_ns) / 1000;
    c->status = r->status ? r->status : 200;
    c->keep_alive = c->keep_alive && !s->drain_ns && c->body_over;
    kithi_text_init(&c->out, 4096, NULL);
    kithi_text_printf(&c->out,
                      "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                      "X-Request-Id: %s\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
                      c->status, kithi_http_reason(c->status), date(s),
                      r->type ? r->type : "application/json", r->answer.len, r->id);
    if (!c->keep_alive || c->old) {
        kithi_text_printf(&c->out, "Connection: %s\r\n", c->keep_alive ? "keep-alive" : "close");
    }
    if (r->refusal.retry_s) {
        kithi_text_printf(&c->out, "Retry-After: %u\r\n", r->refusal.retry_s);
    }
    if (c->status == 401) {
        kithi_text_str(&c->out, "WWW-Authenticate: Bearer\r\n");
    }
    if (c->status == 405) {
        kithi_text_printf(&c->out, "Allow: %s\r\n", r->target.allow);
    }
    if (r->searched && !r->refusal.status) {
        kithi_text_printf(&c->out,
                          "X-Search-Latency-Ms: %.3f\r\nServer-Timing: search;dur=%.3f, total;dur=%.3f\r\n",
                          (double)r->search_us / 1e3, (double)r->search_us / 1e3, (double)us / 1e3);
    }
    if (r->policy && !r->refusal.status) {
        kithi_text_printf(&c->out, "Content-Security-Policy: %s\r\nReferrer-Policy: no-referrer\r\n",
                          r->policy);
    }
    kithi_text_str(&c->out, "\r\n");
    c->sent = 0;
    kithi_metrics_answer(s->gateway->metrics, r->route, c->status, us);
    log_request(s, c, r, c->status, r->refusal.status ? r->refusal.code : "-", r->answer.len, us);
    count(&s->gateway->metrics->bytes_in, c->received);
    c->received = 0;
    if (c->out.failed ||
        r->answer.failed) { /* no memory for a head, or for a refusal: half of one says nothing */
        kithi_peer_close(s, c);
        return;
    }
    kithi_peer_enter(s, c, SENDING, s->options.send_ms);
    kithi_peer_watch(s, c, EPOLLOUT);
    send_more(s, c);
}

/* Refuse what c is about, whether it is whole or not. */
static void refuse(struct kithi_server *s, struct conn *c, int status, const char *code, const char *why)
{
    if (!c->request && !(c->request = kithi_server_request(s))) {
        kithi_peer_close(s, c);
        return;
    }
    c->request->refusal.status = 0;
    kithi_refuse(&c->request->refusal, status, code, NULL, "%s", why);
    answer(s, c);
}

static void read_more(struct kithi_server *s, struct conn *c);

/* Tell the client that no more comes, at once or when there is room for that, and go on reading what it sends. */
static void finish(struct kithi_server *s, struct conn *c)
{
    bool later = kithi_stream_finish(&c->stream) == -EAGAIN;
    kithi_peer_watch(s, c, later ? EPOLLOUT : EPOLLIN | EPOLLRDHUP);
}

/* The answer has been sent: the next request, or the end. */
static void next_request(struct kithi_server *s, struct conn *c)
{
    /* A stop does not wait for what may follow on a connection that rests; what has come already is told of it. */
    bool keep = c->keep_alive && !(s->drain_ns && c->in_len == 0);
    kithi_server_request_free(c->request);
    c->request = NULL;
    kithi_text_fini(&c->out);
    if (!keep) {
        c->in_len = 0;
        kithi_peer_enter(s, c, LINGERING, LINGER_MS);
        finish(s, c);
        return;
    }
    c->head_done = c->body_over = c->chunked = c->head_only = false;
    c->scanned = 0;
    c->path[0] = 0;
    c->chunks = (struct kithi_http_chunks){ 0 };
    if (c->in_len == 0) {
        free(c->in); /* a connection that rests takes no memory for requests */
        c->in = NULL;
        kithi_peer_enter(s, c, IDLE, s->options.idle_ms);
    } else {
        kithi_peer_enter(s, c, READING, s->options.receive_ms);
        s->pipelined = true;
    }
    s->pipelined = s->pipelined || kithi_stream_pending(&c->stream);
    kithi_peer_watch(s, c, EPOLLIN | EPOLLRDHUP);
}

static void send_more(struct kithi_server *s, struct conn *c)
{
    const struct kithi_text *body = &c->request->answer;
    size_t all = c->out.len + (c->head_only ? 0 : body->len);
    while (c->sent < all) {
        struct iovec iov[2];
        size_t parts = 0;
        if (c->sent < c->out.len) {
            iov[parts++] = (struct iovec){ .iov_base = c->out.at + c->sent, .iov_len = c->out.len - c->sent };
        }
        size_t at = c->sent > c->out.len ? c->sent - c->out.len : 0;
        if (!c->head_only && body->len > at) {
            iov[parts++] = (struct iovec){ .iov_base = body->at + at, .iov_len = body->len - at };
        }
        ssize_t n = kithi_stream_write(&c->stream, iov, parts);
        if (n == -EAGAIN) {
            kithi_peer_watch(s, c, EPOLLOUT);
            return;
        }
        if (n < 0) {
            kithi_peer_close(s, c);
            return;
        }
        c->sent += (size_t)n;
        count(&s->gateway->metrics->bytes_out, (uint64_t)n);
    }
    next_request(s, c);
}

/* A new connection has something to say. */
static uint64_t first_ms(const struct kithi_server *s)
{
    return s->options.receive_ms < s->options.idle_ms ? s->options.receive_ms : s->options.idle_ms;
}

/* ---- requests ------------------------------------------------------------------------ */

bool kithi_server_submit(struct kithi_server *s, struct kithi_job *job)
{
    struct kithi_request *r = job->request;
    if (s->drain_ns) {
        return kithi_refuse(&r->refusal, 503, "stopping", NULL, "kith-gateway is stopping") == 0;
    }
    if (s->running >= s->options.requests) {
        kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_TOO_MANY);
        return kithi_refuse(&r->refusal, 429, "too_many_requests", NULL,
                            "as many requests as `requests` allows are being carried out; try again") == 0;
    }
    if (!kithi_lanes_submit(s->lanes, job)) {
        bool held = r->lane == KITHI_LANE_WRITE || r->lane == KITHI_LANE_ADMIN;
        return kithi_refuse(
                   &r->refusal, 503, "busy", NULL, "%s",
                   held ? "every thread for such calls is held by one that kithd has not answered yet; "
                          "nothing was done"
                        : "every thread for such calls is still at one that was given up; try again") == 0;
    }
    s->running++;
    return true;
}

/* The request is whole. */
static void begin(struct kithi_server *s, struct conn *c)
{
    struct kithi_request *r = c->request;
    enum kithi_body body = r->route->body;
    c->body_over = true;
    if (r->body.len == 0 && (body == KITHI_BODY_JSON || body == KITHI_BODY_FLOATS)) {
        refuse(s, c, 400, "body_missing", "this call takes a body, and there is none");
        return;
    }
    uint64_t ms = r->route->lane == KITHI_LANE_ADMIN ? s->options.admin_ms : s->options.request_ms;
    r->began_ns = kithi_gateway_now_ns();
    r->deadline_ns = r->began_ns + ms * 1000000u;
    r->lane = r->route->lane;
    r->call = kithi_request_call(r->route);
    if (r->route->writes || r->lane == KITHI_LANE_HERE || r->lane == KITHI_LANE_WATCH) {
        /* Small, and owed also when large answers that nobody fetches have used up the budget: a write is done by then. */
        kithi_text_init(&r->answer, s->gateway->answer_max, NULL);
    }
    if (r->lane == KITHI_LANE_HERE) {
        kithi_request_run(r);
        answer(s, c);
        return;
    }
    struct kithi_job *job = calloc(1, sizeof *job);
    if (!job) {
        refuse(s, c, 503, "out_of_memory", "there is no memory for the request");
        return;
    }
    job->request = r;
    job->owner = c;
    if (!kithi_server_submit(s, job)) {
        free(job);
        answer(s, c);
        return;
    }
    c->job = job;
    kithi_peer_enter(s, c, RUNNING, ms);
    kithi_peer_watch(s, c, EPOLLRDHUP);
}

/* Read what is in c->in as body. False: the connection is no longer reading. */
static bool take_body(struct kithi_server *s, struct conn *c)
{
    struct kithi_request *r = c->request;
    size_t at = 0;
    if (!c->chunked) {
        at = c->in_len < c->body_left ? c->in_len : (size_t)c->body_left;
        kithi_text_put(&r->body, c->in, at);
        c->body_left -= at;
        c->body_over = c->body_left == 0;
    }
    while (c->chunked && at < c->in_len && !c->body_over) {
        struct kithi_part part;
        size_t used;
        int rc = kithi_http_chunk(&c->chunks, c->in + at, c->in_len - at, &used, &part);
        if (rc < 0) {
            refuse(s, c, 400, "chunks",
                   "the body is not in chunks: sizes in hexadecimal, without extensions, and no trailers");
            return false;
        }
        kithi_text_put(&r->body, part.at, part.len);
        at += used;
        c->body_over = rc == 1;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    if (r->body.failed) {
        int failed = r->body.failed;
        c->body_over = false;
        refuse(s, c, failed == -EFBIG ? 413 : 503, failed == -EFBIG ? "too_large" : "busy",
               failed == -EFBIG ? "the body is larger than body_mib; send less at a time"
                                : "there is no memory for more bodies now (bodies_mib); try again");
        return false;
    }
    if (c->body_over) {
        begin(s, c);
        return false;
    }
    return true;
}

void kithi_server_request_id(struct kithi_request *r, struct kithi_part given)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    char id[KITHI_REQUEST_ID_MAX + 1] = "";
    if (given.len == 0 || given.len > KITHI_REQUEST_ID_MAX) {
        return;
    }
    memcpy(id, given.at, given.len);
    id[given.len] = 0;
    if (strspn(id, allowed) == given.len) {
        memcpy(r->id, id, sizeof id);
    }
}

bool kithi_server_known(struct kithi_server *s, const struct conn *c, struct kithi_request *r,
                        const struct kithi_http_head *head)
{
    struct kithi_part presented;
    if (!s->secrets->keyring) {
        const char *why = kithi_keys_stranger(head, c->loopback, r->route->writes);
        return !why || kithi_refuse(&r->refusal, 403, "stranger", NULL, "%s", why) == 0;
    }
    if (r->route->access == KITHI_ACCESS_OPEN) {
        return true;
    }
    r->keyring = kithi_keyring_hold(s->secrets->keyring);
    const struct kithi_keys *keys = kithi_keyring_keys(r->keyring);
    bool good = kithi_keys_presented(head, &presented), none = good && !presented.at;
    /* A key goes before the certificate: a proxy has one of these, and passes on keys of its clients. */
    r->key = none   ? kithi_keys_certified(keys, c->certificate)
             : good ? kithi_keys_find(keys, presented)
                    : NULL;
    return r->key ||
           kithi_refuse(
               &r->refusal, 401, "key", NULL, "%s",
               !none ? "the API key is not one of those that there are"
               : c->certificate[0]
                   ? "this call wants an API key, as Authorization: Bearer KEY or X-API-Key: KEY, as the "
                     "common name of the certificate has no line in the file of keys (cert:NAME)"
                   : "this call wants an API key, as Authorization: Bearer KEY or X-API-Key: KEY") == 0;
}

/* May whoever sent this head do that? True, or the request is refused. */
static bool allowed(struct kithi_server *s, const struct conn *c, struct kithi_request *r,
                    const struct kithi_http_head *head)
{
    enum kithi_access access = r->route->access;
    if (r->route->call == KITHI_REST_PAGE) {
        return true; /* the same bytes for everybody, and a link on any page may lead there; what it asks for is judged then */
    }
    if (!kithi_server_known(s, c, r, head)) {
        return false;
    }
    bool enough = !r->key || access == KITHI_ACCESS_SOME ||
                  kithi_key_allows(r->key, access == KITHI_ACCESS_ALL ? NULL : r->target.collection,
                                   access == KITHI_ACCESS_WRITE);
    return enough ||
           kithi_refuse(&r->refusal, 403, "rights", NULL, "the key %s does not allow that%s", r->key->name,
                        access == KITHI_ACCESS_ALL ? "; it takes one for all collections" : "") == 0;
}

/* What the head says of the body fits the call? */
static bool body_fits(struct kithi_server *s, struct kithi_request *r, const struct kithi_http_head *head)
{
    bool any = head->chunked || (head->has_length && head->length > 0);
    enum kithi_body body = r->route->body;
    struct kithi_part media = kithi_http_media(head->content_type);
    if (any && body == KITHI_BODY_NONE) {
        kithi_refuse(&r->refusal, 400, "body", NULL, "this call takes no body");
    } else if (!any && (body == KITHI_BODY_JSON || body == KITHI_BODY_FLOATS)) {
        kithi_refuse(&r->refusal, 400, "body_missing", NULL, "this call takes a body, and there is none");
    } else if (any && head->has_length && head->length > s->options.body_max) {
        kithi_refuse(&r->refusal, 413, "too_large", NULL,
                     "the body is larger than the %" PRIu64 " MiB of body_mib; send less at a time",
                     s->options.body_max >> 20);
    } else if (any && body == KITHI_BODY_FLOATS && kithi_part_is(media, "application/octet-stream")) {
        r->floats = true;
    } else if (any && !kithi_part_is(media, "application/json")) {
        kithi_refuse(&r->refusal, 415, "content_type", NULL,
                     "the body of this call is %sapplication/json, said by Content-Type",
                     body == KITHI_BODY_FLOATS ? "application/octet-stream or " : "");
    }
    return r->refusal.status == 0;
}

/* A whole head of len bytes is in c->in. False: the connection is no longer reading. */
static bool take_head(struct kithi_server *s, struct conn *c, size_t len)
{
    struct kithi_http_head head;
    struct kithi_request *r = c->request = kithi_server_request(s);
    const char *why = NULL;
    c->keep_alive = false;
    c->head_only = false;
    if (!r) {
        kithi_peer_close(s, c);
        return false;
    }
    if (kithi_http_head(c->in, len, &head) < 0) {
        refuse(s, c, head.status, "http", head.why);
        return false;
    }
    size_t shown = head.path.len < sizeof c->path - 1 ? head.path.len : sizeof c->path - 1;
    memcpy(c->path, head.path.at, shown);
    c->path[shown] = 0;
    c->head_only = head.method == KITHI_HTTP_HEAD;
    c->keep_alive = head.keep_alive;
    c->old = head.old;
    c->chunked = head.chunked;
    c->body_left = head.has_length ? head.length : 0;
    c->body_over = !c->chunked && c->body_left == 0;
    r->method = head.method;
    kithi_server_request_id(r, head.request_id);

    if (!kithi_route_find(head.method, head.path, &r->target)) {
        kithi_refuse(&r->refusal, 400, "path", NULL, "%s", r->target.why);
    } else if (!r->target.path_known) {
        kithi_refuse(&r->refusal, 404, "path", NULL,
                     "there is no such path; GET /openapi.json has those that there are");
    } else if (!r->target.route) {
        kithi_refuse(&r->refusal, 405, "method", NULL, "this path takes %s", r->target.allow);
    } else {
        r->route = r->target.route;
        if (allowed(s, c, r, &head) && kithi_query_parse(head.query, &r->query, &why) < 0) {
            kithi_refuse(&r->refusal, 400, "query", NULL, "%s", why);
        }
        if (!r->refusal.status) {
            body_fits(s, r, &head);
        }
    }
    bool expects = head.expects && !c->body_over;
    memmove(c->in, c->in + len, c->in_len - len);
    c->in_len -= len;
    c->head_done = true;
    if (r->refusal.status) {
        answer(s, c);
        return false;
    }
    if (expects && c->in_len == 0) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        /* The answer before has left, so that there is room for 25 bytes; where not, the client goes on by itself. */
        const struct iovec part = { .iov_base = (void *)go_on, .iov_len = sizeof go_on - 1 };
        ssize_t n = kithi_stream_write(&c->stream, &part, 1);
        /* TLS has begun a record that cannot be taken back. */
        if ((n >= 0 && n < (ssize_t)part.iov_len) || (n < 0 && c->stream.ssl)) {
            kithi_peer_close(s, c);
            return false;
        }
    }
    if (c->body_over) {
        begin(s, c);
        return false;
    }
    return true;
}

/* Go through what has come. False: the connection is no longer reading, and may be gone. */
static bool take(struct kithi_server *s, struct conn *c)
{
    struct kithi_http_head head = { .status = 0 };
    if (c->in_len == 0) {
        return true;
    }
    if (c->state == IDLE) {
        kithi_peer_enter(s, c, READING, s->options.receive_ms);
    }
    if (!c->head_done && c->front != FRONT_HTTP) {
        size_t n = c->in_len < KITHI_H2_PREFACE_LEN ? c->in_len : KITHI_H2_PREFACE_LEN;
        if (!memcmp(c->in, KITHI_H2_PREFACE, n)) {
            if (n == KITHI_H2_PREFACE_LEN) {
                kithi_grpc_begin(s, c);
                return false;
            }
            return true; /* it may become one; receive_ms are for that, too */
        }
        if (c->front == FRONT_GRPC) {
            c->keep_alive = c->head_only = false;
            refuse(s, c, 400, "http", "this port is for gRPC, which begins with the preface of HTTP/2");
            return false;
        }
    }
    if (!c->head_done) {
        long len = kithi_http_end(c->in, c->in_len, &c->scanned, &head);
        if (len < 0) {
            c->keep_alive = c->head_only = false;
            refuse(s, c, head.status, "http", head.why);
            return false;
        }
        if (len == 0) {
            return true;
        }
        if (!take_head(s, c, (size_t)len)) {
            return false;
        }
    }
    return take_body(s, c);
}

static void read_more(struct kithi_server *s, struct conn *c)
{
    if (!c->in && !(c->in = malloc(IN_SIZE))) {
        kithi_peer_close(s, c);
        return;
    }
    /* A pipelined request may be here already, and goes before what the socket says: that its client has no more to send, perhaps. */
    if (c->state == READING && c->in_len && !c->head_done && c->scanned == 0 && !take(s, c)) {
        return;
    }
    /* Some rounds at most, so that others have their turn. */
    for (unsigned round = 0; round < 16; round++) {
        enum state before = c->state;
        ssize_t n = kithi_peer_receive(c, c->in + c->in_len, IN_SIZE - c->in_len);
        if (n == -EAGAIN) {
            if (c->state == IDLE) { /* TLS had something to say to itself */
                free(c->in);
                c->in = NULL;
            }
            kithi_peer_watch(s, c, EPOLLIN | EPOLLRDHUP);
            return;
        }
        if (n <= 0) {
            kithi_peer_close(s, c);
            return;
        }
        if (before == LINGERING) {
            c->in_len = 0;
            continue;
        }
        c->in_len += (size_t)n;
        c->received += (uint64_t)n;
        if (!take(s, c)) {
            return;
        }
    }
    s->pipelined = s->pipelined || kithi_stream_pending(&c->stream);
}

/* ---- handshakes ---------------------------------------------------------------------- */

/* A line for a handshake that came to nothing, but not for each of thousands. */
static void log_failure(struct kithi_server *s, const struct conn *c, const char *why)
{
    uint64_t second = kithi_gateway_now_ns() / 1000000000u;
    if (second != s->failures_second) {
        if (s->failures > FAILURES_A_SECOND) {
            kithi_log(KITHI_LOG_INFO, "handshakes-failed", "more=%" PRIu64, s->failures - FAILURES_A_SECOND);
        }
        s->failures_second = second;
        s->failures = 0;
    }
    if (s->failures++ < FAILURES_A_SECOND) {
        kithi_log(KITHI_LOG_INFO, "handshake-failed", "peer=%s msg=%s", c->peer, why);
    }
}

static void shake(struct kithi_server *s, struct conn *c)
{
    if (s->shaken++ >= HANDSHAKES_A_TURN) {
        return; /* epoll tells of it again */
    }
    int rc = kithi_stream_handshake(&c->stream);
    if (rc == -EAGAIN) {
        kithi_peer_watch(s, c, EPOLLIN);
        return;
    }
    if (rc < 0) {
        kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_HANDSHAKE_FAILED);
        log_failure(s, c, c->stream.why);
        kithi_peer_close(s, c);
        return;
    }
    if (!kithi_stream_peer(&c->stream, c->certificate)) {
        c->certificate[0] = 0;
    }
    if (s->options.grpc != KITHI_GRPC_OFF && kithi_stream_protocol(&c->stream) == KITHI_ALPN_H2) {
        c->front = FRONT_GRPC;
    }
    count(&s->gateway->metrics->handshakes, 1);
    kithi_peer_enter(s, c, IDLE, first_ms(s));
    kithi_peer_watch(
        s, c,
        EPOLLIN | EPOLLRDHUP); /* TLS reads no further than it has to: what came behind is on the socket */
}

/* ---- the loop ------------------------------------------------------------------------ */

static void take_ended(struct kithi_server *s)
{
    for (struct kithi_job *job = kithi_lanes_ended(s->lanes), *next; job; job = next) {
        next = job->next;
        struct conn *c = job->owner;
        if (!c) { /* its client went away when it had just ended */
            kithi_server_release(job);
            continue;
        }
        if (job->is_call) {
            kithi_grpc_ended(s, job);
            continue;
        }
        c->job = NULL;
        free(job);
        s->running--;
        answer(s, c);
    }
}

void kithi_server_refuse_dropped(struct kithi_request *owed, enum kithi_drop drop)
{
    if (drop == KITHI_DROP_AWAITING) {
        kithi_refuse(&owed->refusal, 504, "epoch_not_visible", "min_epoch",
                     "the epoch that it waits for has not become visible in time");
    } else if (drop == KITHI_DROP_UNBEGUN) {
        kithi_refuse(&owed->refusal, 503, "busy", NULL,
                     "it was not begun in time, as others take long; nothing was done");
    } else if (owed->route->writes) {
        kithi_refuse(&owed->refusal, 504, "outcome_unknown", NULL,
                     "kithd has not answered in time; it may have been applied, or may be yet");
        owed->refusal.outcome = KITHI_OUTCOME_UNKNOWN;
    } else {
        kithi_refuse(&owed->refusal, 504, "timeout", NULL,
                     "it was not done in time; ask for less, or for an approximate answer");
    }
}

/* A request was not carried out in time. */
static void give_up(struct kithi_server *s, struct conn *c)
{
    struct kithi_job *job = c->job;
    struct kithi_request *r = job->request, *owed;
    /* The job keeps its request, which a thread may be at; the answer is another one's. */
    owed = kithi_server_request(s);
    if (!owed) {
        kithi_peer_close(s, c);
        return;
    }
    owed->route = r->route;
    owed->method = r->method;
    owed->key = r->key;
    owed->keyring = kithi_keyring_hold(r->keyring);
    owed->began_ns = r->began_ns;
    memcpy(owed->id, r->id, sizeof owed->id);
    enum kithi_drop drop = kithi_lanes_drop(s->lanes, job);
    if (drop == KITHI_DROP_ENDED) {
        kithi_server_request_free(owed); /* it has just ended: its answer comes with this turn of the loop */
        return;
    }
    kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_GIVEN_UP);
    c->job = NULL;
    c->request = owed;
    s->running--;
    kithi_server_refuse_dropped(owed, drop);
    answer(s, c);
}

static void look_at_deadlines(struct kithi_server *s)
{
    uint64_t now = kithi_gateway_now_ns();
    for (struct conn *c = s->first, *next; c; c = next) {
        next = c->next;
        if (c->h2) {
            kithi_grpc_look(s, c, now);
            continue;
        }
        /* Nobody is there to hear of the epoch, perhaps: a client that only says that it has no more to send is answered within
         * a moment, in which its request may be queued like one that waits. */
        if (c->state == RUNNING && c->half_closed && now > c->job->request->began_ns + HALF_CLOSED_NS &&
            kithi_lanes_parked(s->lanes, c->job)) {
            kithi_peer_close(s, c);
            continue;
        }
        if (now < c->deadline_ns) {
            continue;
        }
        switch (c->state) {
        case SHAKING:
            kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_HANDSHAKE_FAILED);
            log_failure(s, c, "it was not done within handshake_ms");
            kithi_peer_close(s, c);
            break;
        case READING:
            kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_SLOW_SENDER);
            c->body_over = false;
            refuse(s, c, 408, "too_slow", "the request was not whole within receive_ms");
            break;
        case RUNNING: give_up(s, c); break;
        case SENDING:
            kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_SLOW_RECEIVER);
            kithi_peer_close(s, c);
            break;
        default: kithi_peer_close(s, c); break;
        }
    }
}

/* Room for one more connection: an idle one, the longest, is closed for it. */
static bool make_room(struct kithi_server *s)
{
    if (s->count < s->options.connections) {
        return true;
    }
    kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_CROWDED);
    for (struct conn *c = s->first; c; c = c->next) {
        if (c->state == IDLE || c->state == LINGERING) {
            kithi_peer_close(s, c);
            return true;
        }
    }
    return false;
}

static void accept_some(struct kithi_server *s, const struct listener *l)
{
    static const char full[] =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        "Content-Length: 69\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        "{\"error\":{\"code\":\"busy\",\"message\":\"there are too many connections\"}}\n";
    for (unsigned i = 0; i < 64; i++) {
        struct sockaddr_storage address;
        socklen_t size = sizeof address;
        int fd = accept4(l->fd, (struct sockaddr *)&address, &size, SOCK_CLOEXEC | SOCK_NONBLOCK), one = 1;
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) { /* or epoll would tell of it without a pause */
                nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
            }
            return;
        }
        if (l->tls && s->shaking >= s->options.handshakes) {
            kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_CROWDED);
            close(fd);
            continue;
        }
        struct conn *c = make_room(s) ? calloc(1, sizeof *c) : NULL;
        if (!c || (l->tls && kithi_stream_tls(&c->stream, fd, s->secrets->tls) < 0)) {
            if (!l->tls) { /* it would be garbage to who speaks TLS, and a handshake is what there is no room for */
                (void)!send(fd, full, sizeof full - 1, MSG_NOSIGNAL);
            }
            close(fd);
            free(c);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!l->tls) {
            kithi_stream_plain(&c->stream, fd);
        }
        c->state = IDLE;
        c->front = l->front;
        c->loopback = l->loopback;
        c->interest = l->tls ? EPOLLIN : EPOLLIN | EPOLLRDHUP;
        if (getnameinfo((struct sockaddr *)&address, size, c->peer, sizeof c->peer, NULL, 0,
                        NI_NUMERICHOST)) {
            strcpy(c->peer, "unknown");
        }
        struct epoll_event event = { .events = c->interest, .data.ptr = c };
        if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
            kithi_stream_close(&c->stream);
            free(c);
            continue;
        }
        link_conn(s, c);
        s->count++;
        count(&s->gateway->metrics->connections, 1);
        count(&s->gateway->metrics->accepted, 1);
        kithi_peer_enter(s, c, l->tls ? SHAKING : IDLE, l->tls ? s->options.handshake_ms : first_ms(s));
    }
}

/* Told to stop: nothing new, and what is under way to its end. */
static void begin_drain(struct kithi_server *s)
{
    s->drain_ns = kithi_gateway_now_ns() + s->options.drain_ms * UINT64_C(1000000);
    atomic_store_explicit(&s->gateway->draining, true,
                          memory_order_relaxed); /* a word for /readyz, nothing more */
    epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->signals, NULL);
    for (unsigned i = 0; i < LISTENERS; i++) {
        if (s->listeners[i].fd >= 0) {
            epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->listeners[i].fd, NULL);
            close(s->listeners[i].fd);
            s->listeners[i].fd = -1;
        }
    }
    for (struct conn *c = s->first, *next; c; c = next) {
        next = c->next;
        if (c->h2) {
            kithi_grpc_drain(s, c);
        } else if (c->state == IDLE || c->state == SHAKING) {
            kithi_peer_close(s, c);
        } else if (c->state == READING) {
            c->body_over = false;
            refuse(s, c, 503, "stopping", "kith-gateway is stopping");
        }
    }
    kithi_log(KITHI_LOG_INFO, "stopping", "connections=%u running=%u", s->count, s->running);
}

static void tell_certificate(struct kithi_server *s)
{
    if (s->secrets->tls) {
        atomic_store_explicit(&s->gateway->metrics->certificate_ends,
                              (uint64_t)kithi_tls_not_after(s->secrets->tls),
                              memory_order_relaxed); /* a figure, nothing more */
    }
}

static void take_signals(struct kithi_server *s)
{
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info && !s->drain_ns) {
        if (info.ssi_signo != SIGHUP) {
            begin_drain(s);
            continue;
        }
        for (unsigned refused = kithi_secrets_reload(s->secrets); refused; refused--) {
            kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_RELOAD_REFUSED);
        }
        tell_certificate(s);
    }
}

static void handle(struct kithi_server *s, struct conn *c, uint32_t events)
{
    if (c->h2) {
        kithi_grpc_handle(s, c, events);
        return;
    }
    if (events & EPOLLRDHUP) {
        c->half_closed = true;
    }
    if (events & (EPOLLERR | EPOLLHUP) && (c->state == RUNNING || c->state >= SENDING)) {
        kithi_peer_close(s, c);
        return;
    }
    switch (c->state) {
    case SHAKING: shake(s, c); break;
    case SENDING:
        if (events & (EPOLLIN | EPOLLOUT)) {
            send_more(s, c);
        }
        break;
    case LINGERING:
        if (!c->stream.finished) {
            finish(s, c);
        } else {
            read_more(s, c);
        }
        break;
    case RUNNING: kithi_peer_watch(s, c, 0); break;
    default: read_more(s, c); break;
    }
}

/* Requests that came with the one before are in memory, and what TLS has read is, where epoll does not see them. */
static void take_pipelined(struct kithi_server *s)
{
    if (!s->pipelined) {
        return;
    }
    s->pipelined = false;
    for (struct conn *c = s->first, *next; c; c = next) {
        next = c->next;
        if (c->h2) {
            kithi_grpc_more(s, c);
            continue;
        }
        if (c->state != READING && c->state != IDLE) {
            continue;
        }
        if (kithi_stream_pending(&c->stream)) {
            read_more(s, c);
        } else if (c->in_len && c->scanned == 0 && !c->head_done) {
            take(s, c);
        }
    }
}

/* Does an event that says so come from a connection, and from nothing that the server itself has? */
static bool is_conn(const struct kithi_server *s, const void *what)
{
    for (unsigned l = 0; l < LISTENERS; l++) {
        if (what == &s->listeners[l]) {
            return false;
        }
    }
    return what != &s->lanes && what != &s->signals;
}

int kithi_server_run(struct kithi_server *s)
{
    struct epoll_event events[EVENTS];
    uint64_t looked_ns = 0;
    unsigned parked = 0;
    while (!s->drain_ns || (s->count && kithi_gateway_now_ns() < s->drain_ns)) {
        int n = epoll_wait(s->epoll, events, EVENTS, s->pipelined ? 0 : parked ? PARKED_MS : TICK_MS);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        bool accepting[LISTENERS] = { false }, ended = false, told = false;
        s->shaken = 0;
        for (int i = 0; i < n; i++) {
            const void *what = events[i].data.ptr;
            for (unsigned l = 0; l < LISTENERS; l++) {
                accepting[l] = accepting[l] || what == &s->listeners[l];
            }
            ended = ended || what == &s->lanes;
            told = told || what == &s->signals;
        }
        /* A connection that is closed here is not met again in this turn: each has one event, and only its own closes it. What may close others
         * comes afterwards. */
        for (int i = 0; i < n; i++) {
            void *what = events[i].data.ptr;
            if (is_conn(s, what)) {
                handle(s, what, events[i].events);
            }
        }
        if (ended) {
            take_ended(s);
        }
        take_pipelined(s);
        for (unsigned l = 0; l < LISTENERS; l++) {
            if (accepting[l] && s->listeners[l].fd >= 0) {
                accept_some(s, &s->listeners[l]);
            }
        }
        if (told && !s->drain_ns) {
            take_signals(s);
        }
        uint64_t now = kithi_gateway_now_ns();
        if (parked || now - looked_ns >= TICK_MS * UINT64_C(1000000)) {
            looked_ns = now;
            look_at_deadlines(s);
            parked = kithi_lanes_unpark(s->lanes);
        }
        kithi_grpc_flush(s);
    }
    return 0;
}

/* ---- opening ------------------------------------------------------------------------- */

bool kithi_server_is_loopback(const char *address)
{
    return !strncmp(address, "127.", 4) || !strcmp(address, "::1") || !strcmp(address, "localhost");
}

static int listen_on(struct listener *l, const char *listen_address, uint16_t number,
                     struct kithi_errmsg *err)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_PASSIVE | AI_NUMERICSERV | AI_NUMERICHOST },
                    *list = NULL;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    char port[8];
    int one = 1;
    snprintf(port, sizeof port, "%u", number);
    l->loopback = kithi_server_is_loopback(listen_address);
    const char *address = strcmp(listen_address, "localhost") ? listen_address : "127.0.0.1";
    int rc = getaddrinfo(address, port, &hints, &list);
    if (rc) {
        return kithi_error_set(err, -EADDRNOTAVAIL, "%s is no address to listen on: %s", listen_address,
                               gai_strerror(rc));
    }
    l->fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0 || setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(l->fd, list->ai_addr, list->ai_addrlen) < 0 || listen(l->fd, 1024) < 0 ||
        getsockname(l->fd, (struct sockaddr *)&bound, &size) < 0) {
        rc = kithi_error_set(err, -errno, "cannot listen on %s port %s: %s", listen_address, port,
                             strerror(errno));
        freeaddrinfo(list);
        return rc;
    }
    freeaddrinfo(list);
    l->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                : ((struct sockaddr_in *)&bound)->sin_port);
    return 0;
}

static int add(struct kithi_server *s, int fd, void *what)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = what };
    return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int kithi_server_open(const struct kithi_server_options *options, struct kithi_gateway *gateway,
                      struct kithi_lanes *lanes, int signals, struct kithi_server **out,
                      struct kithi_errmsg *err)
{
    struct kithi_server *s = calloc(1, sizeof *s);
    if (!s) {
        return kithi_error_set(err, -ENOMEM, "there is no memory");
    }
    *s = (struct kithi_server){ .options = *options,
                                .gateway = gateway,
                                .lanes = lanes,
                                .epoll = -1,
                                .secrets = options->secrets,
                                .listeners = { [LISTENER_HTTP] = { .fd = -1 },
                                               [LISTENER_GRPC] = { .fd = -1, .front = FRONT_GRPC },
                                               [LISTENER_TLS] = { .fd = -1, .tls = true } },
                                .signals = signals };
    int rc = 0;
    if (getrandom(&s->id_seed, sizeof s->id_seed, 0) != sizeof s->id_seed) {
        s->id_seed = (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
    }
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0) {
        rc = kithi_error_set(err, -errno, "epoll: %s", strerror(errno));
    }
    s->listeners[LISTENER_HTTP].front = options->grpc == KITHI_GRPC_SAME ? FRONT_BOTH : FRONT_HTTP;
    if (rc == 0) {
        rc = listen_on(&s->listeners[LISTENER_HTTP], options->listen, options->port, err);
    }
    if (rc == 0 && options->grpc == KITHI_GRPC_OWN) {
        rc = listen_on(&s->listeners[LISTENER_GRPC], options->listen, options->grpc_port, err);
    }
    if (rc == 0 && s->secrets->tls) {
        rc = listen_on(&s->listeners[LISTENER_TLS], options->tls_listen, options->tls_port, err);
        tell_certificate(s);
    }
    for (unsigned i = 0; rc == 0 && i < LISTENERS; i++) {
        rc = s->listeners[i].fd >= 0 ? add(s, s->listeners[i].fd, &s->listeners[i]) : 0;
        if (rc < 0) {
            kithi_error_set(err, rc, "epoll: %s", strerror(-rc));
        }
    }
    if (rc == 0 &&
        ((rc = add(s, signals, &s->signals)) < 0 || (rc = add(s, kithi_lanes_fd(lanes), &s->lanes)) < 0)) {
        kithi_error_set(err, rc, "epoll: %s", strerror(-rc));
    }
    if (rc < 0) {
        kithi_server_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

uint16_t kithi_server_port(const struct kithi_server *s)
{
    return s->listeners[0].port;
}

uint16_t kithi_server_grpc_port(const struct kithi_server *s)
{
    const struct listener *http = &s->listeners[LISTENER_HTTP], *grpc = &s->listeners[LISTENER_GRPC];
    return http->front == FRONT_BOTH ? http->port : grpc->fd >= 0 ? grpc->port : 0;
}

uint16_t kithi_server_tls_port(const struct kithi_server *s)
{
    const struct listener *tls = &s->listeners[LISTENER_TLS];
    return tls->fd >= 0 ? tls->port : 0;
}

void kithi_server_close(struct kithi_server *s)
{
    if (!s) {
        return;
    }
    while (s->first) {
        kithi_peer_close(s, s->first);
    }
    for (unsigned i = 0; i < LISTENERS; i++) {
        if (s->listeners[i].fd >= 0) {
            close(s->listeners[i].fd);
        }
    }
    if (s->epoll >= 0) {
        close(s->epoll);
    }
    free(s);
}
