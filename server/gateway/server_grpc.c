/*
 * server_grpc.c - connections that speak HTTP/2, and the calls of gRPC on them: from frames (grpc/h2.c) to lanes and back.
 *
 * Each call has a time by which its phase ends, as connections of HTTP/1 have, and beside it the grpc-timeout of its client:
 *
 *   RECEIVE --message--> RUN --answer--> SEND --> (gone)
 *      | receive_ms       | its lane's    | send_ms
 *      v 408, and of a stream idle_ms between its messages
 *
 * A connection that does not take what it is sent is not read from, and is closed after send_ms.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/gateway/grpc/reflection.h"
#include "server/gateway/grpc/rpc.h"
#include "server/gateway/grpc/status.h"
#include "server/gateway/metrics.h"
#include "server/gateway/server_priv.h"

#define CALLS_OF_CONNECTION 128u
#define CALLS_MIN           1024u /* of all connections, or four times the requests that may run */
#define ROUNDS              16u   /* of reading, so that others have their turn */
#define NOTICE_NS           UINT64_C(100000000) /* between the two steps of an end */

enum phase { RECEIVE, RUN, SEND };
enum { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 };

struct call {
    struct kithi_server *server;
    struct conn *conn;
    struct kithi_h2_call *h2;
    const struct kithi_rpc *rpc;
    enum phase phase;
    uint64_t phase_ns;    /* when it ends */
    uint64_t deadline_ns; /* of its client; 0: none */
    uint64_t began_ns;
    struct kithi_request *request; /* with the key and the id; the first message comes into it */
    struct kithi_job *job;         /* while RUN */
    uint64_t messages, points;     /* applied, of a stream of upserts */
    uint64_t in, out;              /* bytes of messages */
    bool ended;                    /* its client sends no more messages */
    bool watching;
    bool logged;
};

static void count(_Atomic uint64_t *word, uint64_t n)
{
    atomic_fetch_add_explicit(word, n, memory_order_relaxed);
}

static void touch(struct kithi_server *s, struct conn *c)
{
    if (!c->touched) {
        c->touched = true;
        c->next_touched = s->touched;
        s->touched = c;
    }
}

/* A line and a count for a call that is over. */
static void note(struct kithi_server *s, const struct conn *c, const struct call *call, const char *id,
                 int code, const char *why)
{
    const struct kithi_rpc *rpc = call ? call->rpc : NULL;
    uint64_t us = call ? (kithi_gateway_now_ns() - call->began_ns) / 1000 : 0;
    const struct kithi_key *key = call && call->request ? call->request->key : NULL;
    kithi_metrics_rpc(s->gateway->metrics, rpc ? rpc->id : KITHI_RPC_IDS, code, us);
    if (s->options.access_log) {
        kithi_log(KITHI_LOG_INFO, "request",
                  "id=%s peer=%s key=%s method=GRPC path=%s route=%s status=%s code=%s in=%" PRIu64
                  " out=%" PRIu64 " us=%" PRIu64,
                  id, c->peer, key ? key->name : "-", rpc ? rpc->path : "-",
                  rpc ? kithi_route_of(rpc->route)->name : "-", kithi_grpc_code_name((unsigned)code), why,
                  call ? call->in : 0, call ? call->out : 0, us);
    }
}

static void enter(struct call *call, enum phase phase, uint64_t ms)
{
    call->phase = phase;
    call->phase_ns = kithi_gateway_now_ns() + ms * 1000000u;
}

/* The last word to the client. refusal NULL or none: OK. */
static void finish(struct call *call, const struct kithi_refusal *refusal)
{
    struct kithi_server *s = call->server;
    bool refused = refusal && refusal->status;
    if (call->logged) {
        return;
    }
    call->logged = true;
    note(s, call->conn, call, call->h2->request_id,
         refused ? (int)kithi_grpc_code_of(refusal) : KITHI_GRPC_OK, refused ? refusal->code : "-");
    kithi_h2_finish(call->h2, refusal, kithi_route_of(call->rpc->route)->writes);
    enter(call, SEND, s->options.send_ms);
    touch(s, call->conn);
}

static void refuse(struct call *call, int status, const char *code, const char *why)
{
    struct kithi_refusal refusal = { .status = 0 };
    kithi_refuse(&refusal, status, code, NULL, "%s", why);
    finish(call, &refusal);
}

/* A message with one number, the first field: a health status. False: there is no memory. */
static bool send_status(struct call *call, uint64_t status)
{
    static const char prefix[KITHI_H2_PREFIX] = { 0 };
    struct kithi_text text;
    kithi_text_init(&text, 64, NULL);
    kithi_text_put(&text, prefix, sizeof prefix);
    kithi_wire_put_uint(&text, 1, status);
    bool good = kithi_h2_answer(call->h2, &text);
    kithi_text_fini(&text);
    touch(call->server, call->conn);
    return good;
}

/* An ack that applies nothing and tells why no more come: of a pace. */
static void send_pace(struct call *call, unsigned pace)
{
    static const char prefix[KITHI_H2_PREFIX] = { 0 };
    struct kithi_text text;
    kithi_text_init(&text, 64, NULL);
    kithi_text_put(&text, prefix, sizeof prefix);
    kithi_wire_put_uint(&text, 1, call->messages);
    kithi_wire_put_uint(&text, 2, call->points);
    kithi_wire_put_uint(&text, 6, pace);
    kithi_h2_answer(call->h2, &text);
    kithi_text_fini(&text);
}

/* A stream of upserts ends before its client has ended it: with what was applied until then. */
static void end_stream(struct call *call, const struct kithi_refusal *why)
{
    struct kithi_refusal refusal = *why;
    int code = (int)kithi_grpc_code_of(why);
    snprintf(refusal.message, sizeof refusal.message,
             "%" PRIu64 " messages of the stream are applied; then: %.500s", call->messages, why->message);
    if (code == KITHI_GRPC_RESOURCE_EXHAUSTED || call->server->drain_ns) {
        send_pace(call, call->server->drain_ns ? 3 : 2);
    }
    finish(call, &refusal);
}

static void end_of_service(struct call *call)
{
    struct kithi_refusal refusal = { .status = 0 };
    kithi_refuse(&refusal, 503, "stopping", NULL, "kith-gateway is stopping");
    if (call->rpc->kind == KITHI_RPC_UPSERTS) {
        end_stream(call, &refusal);
    } else {
        finish(call, &refusal);
    }
}

/* The request of a call is done: its answer, or refusal, to the client. The request stays. */
static void deliver(struct call *call)
{
    struct kithi_request *r = call->request;
    struct kithi_server *s = call->server;
    bool stream = call->rpc->kind != KITHI_RPC_UNARY;
    touch(s, call->conn);
    if (call->logged) {
        return; /* it was refused meanwhile for what came behind the message */
    }
    enter(call, stream ? RECEIVE : SEND, stream ? s->options.idle_ms : s->options.send_ms);
    if (r->refusal.status) {
        if (call->rpc->kind == KITHI_RPC_UPSERTS) {
            end_stream(call, &r->refusal);
        } else {
            finish(call, &r->refusal);
        }
        return;
    }
    call->out += r->answer.len - KITHI_H2_PREFIX;
    if (!kithi_h2_answer(call->h2, &r->answer)) {
        bool writes = r->route->writes;
        kithi_refuse(&r->refusal, 503, writes ? "outcome_unknown" : "out_of_memory", NULL,
                     "there is no memory for the answer");
        r->refusal.outcome = writes ? KITHI_OUTCOME_UNKNOWN : KITHI_OUTCOME_NOTHING;
        finish(call, &r->refusal);
        return;
    }
    if (!stream) {
        finish(call, NULL);
        return;
    }
    if (call->rpc->kind == KITHI_RPC_UPSERTS) {
        call->messages++;
        call->points = r->stream_points;
        if (s->drain_ns) {
            end_of_service(call);
            return;
        }
    }
    /* Last, as the next message may come of it. */
    kithi_h2_ready(call->h2);
}

/* The request for the next message of a stream: whose it is stays. False: there is no memory. */
static bool renew(struct call *call)
{
    struct kithi_request *r = kithi_server_request(call->server), *before = call->request;
    if (!r) {
        return false;
    }
    r->route = before->route;
    r->key = before->key;
    r->keyring = kithi_keyring_hold(before->keyring);
    memcpy(r->id, before->id, sizeof r->id);
    call->request = r;
    kithi_server_request_free(before);
    return true;
}

/* ---- what connections tell (grpc/h2.h) ----------------------------------------------- */

static bool room(void *arg)
{
    struct conn *c = arg;
    struct kithi_server *s = c->server;
    uint32_t max = s->options.requests > CALLS_MIN / 4 ? s->options.requests * 4 : CALLS_MIN;
    return s->calls < max;
}

static void begin(void *arg, struct kithi_h2_call *h2, const struct kithi_h2_head *head)
{
    struct conn *c = arg;
    struct kithi_server *s = c->server;
    struct call *call = calloc(1, sizeof *call);
    struct kithi_request *r = call ? kithi_server_request(s) : NULL;
    struct kithi_refusal refusal = { .status = 0 };
    if (!r) {
        free(call);
        kithi_refuse(&refusal, 503, "out_of_memory", NULL, "there is no memory for the call");
        kithi_h2_finish(h2, &refusal, false);
        note(s, c, NULL, "-", KITHI_GRPC_RESOURCE_EXHAUSTED, "out_of_memory");
        return;
    }
    kithi_server_request_id(r, head->http.request_id);
    snprintf(h2->request_id, sizeof h2->request_id, "%s", r->id);
    *call = (struct call){ .server = s, .conn = c, .h2 = h2, .request = r, .began_ns = r->began_ns };
    call->rpc = kithi_rpc_find(head->http.path);
    if (!call->rpc) {
        kithi_refuse(&refusal, 404, "unimplemented", NULL,
                     "there is no such method; reflection has those that there are");
        note(s, c, call, r->id, KITHI_GRPC_UNIMPLEMENTED, "unimplemented");
        kithi_h2_finish(h2, &refusal, false);
        kithi_server_request_free(r);
        free(call);
        return;
    }
    h2->data = call;
    h2->single = call->rpc->kind == KITHI_RPC_UNARY || call->rpc->kind == KITHI_RPC_WATCHES;
    r->route = kithi_route_of(call->rpc->route);
    call->deadline_ns = head->timeout_ns ? call->began_ns + head->timeout_ns : 0;
    s->calls++;
    if (c->state != CALLING) {
        kithi_peer_enter(s, c, CALLING, s->options.idle_ms);
    }
    enter(call, RECEIVE, s->options.receive_ms);
    if (!kithi_server_known(s, c, r, &head->http)) {
        finish(call, &r->refusal);
    } else if (s->drain_ns && r->route->lane != KITHI_LANE_HERE) {
        end_of_service(call);
    }
}

/* Watch: what the service is now, and again when that changes. */
static void watch(struct call *call)
{
    static const struct kithi_wire_member members[] = { { 1, KITHI_WIRE_STRING, 0, "service" } };
    struct kithi_part service = { NULL, 0 };
    struct kithi_refusal refusal = { .status = 0 };
    if (!kithi_wire_read(kithi_rpc_message(call->request), members, 1, "", &service, &refusal)) {
        finish(call, &refusal);
        return;
    }
    bool known = !service.len || kithi_reflection_is_service(service);
    call->watching = known;
    call->phase_ns = UINT64_MAX;
    if (!send_status(call, !known ? SERVICE_UNKNOWN : call->server->drain_ns ? NOT_SERVING : SERVING)) {
        refuse(call, 503, "out_of_memory", "there is no memory for the answer");
    }
}

static void message(void *arg, struct kithi_h2_call *h2)
{
    struct call *call = h2->data;
    struct kithi_server *s = call->server;
    (void)arg;
    if (call->request->call && !renew(call)) {
        refuse(call, 503, "out_of_memory", "there is no memory for the request");
        return;
    }
    struct kithi_request *r = call->request;
    kithi_text_fini(&r->body);
    r->body = h2->body;
    kithi_text_init(&h2->body, r->body.max, r->body.budget);
    call->in += r->body.len;
    r->call = call->rpc->call;
    r->lane = r->route->lane;
    r->began_ns = kithi_gateway_now_ns();
    r->stream_messages = call->messages;
    r->stream_points = call->points;
    if (call->rpc->kind == KITHI_RPC_WATCHES) {
        watch(call);
        return;
    }
    uint64_t ms = r->lane == KITHI_LANE_ADMIN ? s->options.admin_ms : s->options.request_ms;
    r->deadline_ns = r->began_ns + ms * 1000000u;
    if (call->deadline_ns && call->deadline_ns < r->deadline_ns) {
        r->deadline_ns = call->deadline_ns;
    }
    if (r->route->writes || r->lane == KITHI_LANE_HERE || r->lane == KITHI_LANE_WATCH) {
        kithi_text_init(&r->answer, s->gateway->answer_max, NULL); /* small, and owed, as in server.c */
    }
    if (r->lane == KITHI_LANE_HERE) {
        kithi_request_run(r);
        deliver(call);
        return;
    }
    struct kithi_job *job = calloc(1, sizeof *job);
    if (!job) {
        refuse(call, 503, "out_of_memory", "there is no memory for the request");
        return;
    }
    *job = (struct kithi_job){ .request = r, .owner = call, .is_call = true };
    if (!kithi_server_submit(s, job)) {
        free(job);
        deliver(call);
        return;
    }
    call->job = job;
    call->phase = RUN;
    call->phase_ns = r->deadline_ns;
}

static void ended(void *arg, struct kithi_h2_call *h2)
{
    struct call *call = h2->data;
    (void)arg;
    call->ended = true;
    if (!call->watching) {
        finish(call, NULL);
    }
}

/* Refused by h2.c, with or without a call here. */
static void refused(void *arg, struct kithi_h2_call *h2, const struct kithi_refusal *why)
{
    struct conn *c = arg;
    struct kithi_server *s = c->server;
    struct call *call = h2->data;
    if (!call || !call->logged) {
        note(s, c, call, call ? h2->request_id : "-", (int)kithi_grpc_code_of(why), why->code);
    }
    if (call) {
        call->logged = true;
        enter(call, SEND, s->options.send_ms);
    }
}

/* Nobody waits for the request any more. */
static void drop(struct call *call)
{
    struct kithi_server *s = call->server;
    call->job->owner = NULL;
    call->request = NULL;                  /* it goes with the job */
    kithi_lanes_drop(s->lanes, call->job); /* one that has ended comes yet, without an owner */
    call->job = NULL;
    s->running--;
}

static void gone(void *arg, struct kithi_h2_call *h2)
{
    struct call *call = h2->data;
    (void)arg;
    if (!call) {
        return;
    }
    struct kithi_server *s = call->server;
    if (!call->logged) {
        bool stopped = s->drain_ns && kithi_gateway_now_ns() >= s->drain_ns;
        note(s, call->conn, call, h2->request_id, KITHI_GRPC_CANCELLED, stopped ? "stopping" : "peer_gone");
        kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_PEER_GONE);
    }
    if (call->job) {
        drop(call);
    }
    kithi_server_request_free(call->request);
    s->calls--;
    h2->data = NULL;
    free(call);
}

static const struct kithi_h2_host host = { room, begin, message, ended, refused, gone };

/* ---- connections --------------------------------------------------------------------- */

void kithi_grpc_free(struct kithi_server *s, struct conn *c)
{
    struct conn **at = &s->touched;
    while (c->touched && *at != c) {
        at = &(*at)->next_touched;
    }
    if (c->touched) {
        *at = c->next_touched;
        c->touched = false;
    }
    kithi_h2_free(c->h2);
    c->h2 = NULL;
}

/* Send what there is. The connection may be closed. */
static void flush(struct kithi_server *s, struct conn *c)
{
    bool good = true;
    for (;;) {
        if (c->sent == c->out.len) {
            kithi_text_cut(&c->out, 0);
            c->sent = 0;
            good = kithi_h2_output(c->h2, &c->out);
        }
        if (c->sent == c->out.len) {
            break;
        }
        ssize_t n = kithi_peer_send(c, c->out.at + c->sent, c->out.len - c->sent);
        if (n == -EAGAIN) {
            c->blocked_ns = c->blocked_ns ? c->blocked_ns : kithi_gateway_now_ns();
            kithi_peer_watch(s, c, EPOLLOUT); /* and no reading: what it asks for would pile up */
            return;
        }
        if (n < 0) {
            kithi_peer_close(s, c);
            return;
        }
        c->blocked_ns = 0;
        c->sent += (size_t)n;
        count(&s->gateway->metrics->bytes_out, (uint64_t)n);
    }
    if (!good || kithi_h2_over(c->h2) || kithi_h2_flooded(c->h2) ||
        (c->told && kithi_h2_call_count(c->h2) == 0)) {
        kithi_peer_close(s, c);
        return;
    }
    if (kithi_h2_call_count(c->h2) == 0 && c->state != IDLE) {
        kithi_text_fini(&c->out);
        kithi_peer_enter(s, c, IDLE, s->options.idle_ms);
    }
    s->pipelined = s->pipelined || kithi_stream_pending(&c->stream);
    kithi_peer_watch(s, c, EPOLLIN);
}

void kithi_grpc_flush(struct kithi_server *s)
{
    while (s->touched) {
        struct conn *c = s->touched;
        s->touched = c->next_touched;
        c->touched = false;
        flush(s, c);
    }
}

/* Bytes of it. They are dealt with even when they are its last, so that what it is told can still be sent. */
static void receive(struct kithi_server *s, struct conn *c, const void *bytes, size_t len)
{
    count(&s->gateway->metrics->bytes_in, len);
    kithi_h2_receive(c->h2, bytes, len, kithi_gateway_now_ns());
    touch(s, c);
}

void kithi_grpc_begin(struct kithi_server *s, struct conn *c)
{
    const struct kithi_h2_limits limits = { .message_max = (size_t)s->options.body_max,
                                            .calls = CALLS_OF_CONNECTION,
                                            .bodies = &s->gateway->bodies };
    char *first = c->in;
    size_t len = c->in_len;
    if (kithi_h2_new(&host, c, &limits, &c->h2) < 0) {
        kithi_peer_close(s, c);
        return;
    }
    c->server = s;
    c->in = NULL;
    c->in_len = 0;
    kithi_text_init(&c->out, SIZE_MAX / 4, NULL);
    c->sent = 0;
    kithi_peer_enter(s, c, IDLE, s->options.idle_ms);
    receive(s, c, first, len);
    free(first);
    if (s->drain_ns) {
        kithi_grpc_drain(s, c);
    }
}

/* Read and deal with what is there. The connection may be closed. */
static void read_some(struct kithi_server *s, struct conn *c)
{
    char bytes[16384];
    for (unsigned round = 0; round < ROUNDS && !kithi_h2_flooded(c->h2); round++) {
        ssize_t n = kithi_peer_receive(c, bytes, sizeof bytes);
        if (n == -EAGAIN) {
            break;
        }
        if (n <= 0) { /* nobody is there for answers: HTTP/2 knows no half of a connection */
            kithi_peer_close(s, c);
            return;
        }
        receive(s, c, bytes, (size_t)n);
        if (n < (ssize_t)sizeof bytes && !kithi_stream_pending(&c->stream)) {
            break;
        }
    }
    s->pipelined = s->pipelined || kithi_stream_pending(&c->stream);
    touch(s, c);
}

void kithi_grpc_handle(struct kithi_server *s, struct conn *c, uint32_t events)
{
    if (events & (EPOLLERR | EPOLLHUP)) {
        kithi_peer_close(s, c);
    } else if (events & EPOLLIN || (events & EPOLLOUT && kithi_stream_wants(&c->stream) && !c->blocked_ns)) {
        read_some(s, c); /* TLS may have to write in order to read */
    } else {
        touch(s, c);
    }
}

void kithi_grpc_more(struct kithi_server *s, struct conn *c)
{
    if (kithi_stream_pending(&c->stream) && !c->blocked_ns) { /* flush() comes back to one that is blocked */
        read_some(s, c);
    }
}

void kithi_grpc_ended(struct kithi_server *s, struct kithi_job *job)
{
    struct call *call = job->owner;
    s->running--;
    free(job);
    call->job = NULL;
    deliver(call);
}

/* A request of a call was not carried out in time. */
static void give_up(struct call *call)
{
    struct kithi_server *s = call->server;
    struct kithi_request *r = call->request, *owed = kithi_server_request(s);
    if (!owed) {
        kithi_h2_reset(call->h2);
        touch(s, call->conn);
        return;
    }
    owed->route = r->route;
    owed->key = r->key;
    owed->keyring = kithi_keyring_hold(r->keyring);
    enum kithi_drop dropped = kithi_lanes_drop(s->lanes, call->job);
    if (dropped == KITHI_DROP_ENDED) {
        kithi_server_request_free(
            owed); /* it has just ended: its answer comes with the next turn of the loop */
        return;
    }
    kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_GIVEN_UP);
    call->job = NULL;
    call->request = owed;
    s->running--;
    kithi_server_refuse_dropped(owed, dropped);
    deliver(call);
}

static void look_at_call(struct call *call, uint64_t now)
{
    struct kithi_server *s = call->server;
    bool late = call->deadline_ns && now >= call->deadline_ns;
    if (call->phase == RUN) {
        if (now >= call->phase_ns) {
            give_up(call);
        }
    } else if (call->phase == SEND) {
        if (now >= call->phase_ns) {
            kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_SLOW_RECEIVER);
            kithi_h2_reset(call->h2);
            touch(s, call->conn);
        }
    } else if (late) {
        refuse(call, 504, "timeout", "its grpc-timeout is over");
    } else if (now >= call->phase_ns) {
        kithi_metrics_event(s->gateway->metrics, KITHI_EVENT_SLOW_SENDER);
        refuse(call, 408, "too_slow",
               call->rpc->kind == KITHI_RPC_UNARY ? "the message was not whole within receive_ms"
                                                  : "the next message was not whole within idle_ms");
    }
}

void kithi_grpc_look(struct kithi_server *s, struct conn *c, uint64_t now_ns)
{
    uint64_t stuck = kithi_h2_stuck_since(c->h2);
    bool blocked = c->blocked_ns && now_ns >= c->blocked_ns + s->options.send_ms * UINT64_C(1000000);
    bool slow = stuck && now_ns >= stuck + s->options.receive_ms * UINT64_C(1000000);
    if (blocked || slow) {
        kithi_metrics_event(s->gateway->metrics,
                            blocked ? KITHI_EVENT_SLOW_RECEIVER : KITHI_EVENT_SLOW_SENDER);
        kithi_peer_close(s, c);
        return;
    }
    for (struct kithi_h2_call *h2 = kithi_h2_calls(c->h2), *next; h2; h2 = next) {
        next = h2->next;
        if (h2->data) {
            look_at_call(h2->data, now_ns);
        }
    }
    bool idle = c->state == IDLE && now_ns >= c->deadline_ns;
    if (c->noticed_ns ? !c->told && now_ns >= c->noticed_ns + NOTICE_NS : idle) {
        c->noticed_ns = c->noticed_ns ? c->noticed_ns : now_ns;
        c->told = true;
        kithi_h2_goaway(c->h2);
        touch(s, c);
    }
}

void kithi_grpc_drain(struct kithi_server *s, struct conn *c)
{
    c->noticed_ns = kithi_gateway_now_ns();
    kithi_h2_notice(c->h2);
    for (struct kithi_h2_call *h2 = kithi_h2_calls(c->h2), *next; h2; h2 = next) {
        struct call *call = h2->data;
        next = h2->next;
        if (!call || call->logged || call->job) {
            continue; /* what is under way goes on to its end */
        }
        if (call->watching) {
            send_status(call, NOT_SERVING);
        }
        end_of_service(call);
    }
    touch(s, c);
}
