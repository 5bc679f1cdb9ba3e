/*
 * h2.h - connections of HTTP/2 and the calls of gRPC on them: bytes in, heads and messages out; messages and statuses in, bytes out.
 *
 * HTTP/2 itself is nghttp2's. Here are the frames of gRPC around messages, what calls begin and end with, and bounds:
 *
 *   call:  begin() --message()--> busy --kithi_h2_ready()--> message() ... --ended()--> kithi_h2_finish() --sent--> gone()
 *
 * A message that comes while the call is busy is held, and its bytes are not given back to the window of the call, so that the client
 * stops; nor is the next one handed out while answers that nobody fetches pile up. Frames that cost work and carry nothing (resets,
 * pings, settings, priorities, empty data) have an allowance by time; a connection that is beyond it is ended with ENHANCE_YOUR_CALM.
 *
 * No sockets, no clocks, no threads here: the owner feeds bytes, says what time it is, and sends what there is to be sent.
 */
#ifndef KITHI_GATEWAY_GRPC_H2_H
#define KITHI_GATEWAY_GRPC_H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/gateway/budget.h"
#include "server/gateway/http.h"
#include "server/gateway/refusal.h"
#include "server/gateway/text.h"

#define KITHI_H2_PREFACE     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define KITHI_H2_PREFACE_LEN 24u
#define KITHI_H2_PREFIX      5u /* bytes before a message: compressed or not, and its length */

struct kithi_h2;

/* What a call began with; parts are valid during begin(). */
struct kithi_h2_head {
    struct kithi_http_head http; /* path, host, authorization, api_key, origin, fetch_site, request_id */
    uint64_t timeout_ns;         /* 0: none */
};

struct kithi_h2_call {
    /* Of the owner: */
    void *data;
    bool single; /* set by begin(): one message, and message() when nothing more can come */

    struct kithi_text body; /* in message(): it, to be taken or left */
    unsigned messages;      /* that have come */

    /* Of h2.c: */
    struct kithi_h2 *h2;
    struct kithi_h2_call *previous, *next;
    int32_t id;
    struct kithi_h2_heads *heads; /* while they come */
    unsigned char prefix[KITHI_H2_PREFIX];
    unsigned prefix_len;
    size_t body_left;
    struct kithi_text held, out;
    size_t sent;
    bool busy, feeding, stalled, remote_ended, told_ended, begun_out, finished, owed_gone;
    int code;
    char request_id[72], *message;
    const char *kith_code, *outcome;
};

struct kithi_h2_host {
    /* Is there room for another call? It is refused in a way that has clients try again. */
    bool (*room)(void *arg);
    /* May finish the call; so may message() and ended(). */
    void (*begin)(void *arg, struct kithi_h2_call *call, const struct kithi_h2_head *head);
    void (*message)(void *arg, struct kithi_h2_call *call);
    /* No message comes any more, and none is with the owner. */
    void (*ended)(void *arg, struct kithi_h2_call *call);
    /* The call was refused here, with this, and is finished; perhaps without begin(), and then without gone(). */
    void (*refused)(void *arg, struct kithi_h2_call *call, const struct kithi_refusal *why);
    /* The call is over, answered or not: the last word of it. */
    void (*gone)(void *arg, struct kithi_h2_call *call);
};

struct kithi_h2_limits {
    size_t message_max; /* bytes */
    uint32_t calls;     /* of a connection, at a time */
    struct kithi_budget *bodies;
};

/* 0 or -ENOMEM. host lives as long. */
int kithi_h2_new(const struct kithi_h2_host *host, void *arg, const struct kithi_h2_limits *limits,
                 struct kithi_h2 **out);
/* Calls that are left are gone. Accepts NULL. */
void kithi_h2_free(struct kithi_h2 *h2);

/* Bytes that came, the preface among them. False: nothing of this connection is to be read any more; send what there is and close it. */
bool kithi_h2_receive(struct kithi_h2 *h2, const void *bytes, size_t len, uint64_t now_ns);
/* Append what is to be sent, some 64 KiB at a time. False: as above. */
bool kithi_h2_output(struct kithi_h2 *h2, struct kithi_text *out);
/* Nothing is to be read or sent any more. */
bool kithi_h2_over(struct kithi_h2 *h2);
bool kithi_h2_flooded(const struct kithi_h2 *h2);
/* Since when a frame is not whole; 0: none is under way. */
uint64_t kithi_h2_stuck_since(const struct kithi_h2 *h2);
struct kithi_h2_call *kithi_h2_calls(struct kithi_h2 *h2); /* chained by next */
unsigned kithi_h2_call_count(const struct kithi_h2 *h2);

/* An end in two steps, a moment apart: the client is told; then calls that were not seen by then are its to repeat elsewhere. */
void kithi_h2_notice(struct kithi_h2 *h2);
void kithi_h2_goaway(struct kithi_h2 *h2);

/* The message that was handed out is done with: the next one may come. */
void kithi_h2_ready(struct kithi_h2_call *call);
/* Send a message. answer has KITHI_H2_PREFIX bytes of room in front; it is taken, and empty afterwards. False: there is no memory. */
bool kithi_h2_answer(struct kithi_h2_call *call, struct kithi_text *answer);
/* The last word: no refusal is OK. After what was sent before. */
void kithi_h2_finish(struct kithi_h2_call *call, const struct kithi_refusal *refusal, bool writes);
/* At once, with what there is unsent left away. gone() follows, with the next output. */
void kithi_h2_reset(struct kithi_h2_call *call);

#endif
