/*
 * metrics.h - what the gateway counts of itself, and the text of it for Prometheus (format 0.0.4).
 *
 * Counting is a few relaxed additions, in any thread; figures of one scrape may be of a moment before another's.
 */
#ifndef KITHI_GATEWAY_METRICS_H
#define KITHI_GATEWAY_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "server/gateway/grpc/rpc.h"
#include "server/gateway/route.h"
#include "server/gateway/text.h"

#define KITHI_METRICS_STATUSES 32u /* that a route is answered with, at most; what is beyond counts as 0 */
#define KITHI_METRICS_BOUNDS   16u
#define KITHI_METRICS_PLANS    5u

enum kithi_metrics_event {
    KITHI_EVENT_SLOW_SENDER,      /* a request was not whole in time: 408 */
    KITHI_EVENT_SLOW_RECEIVER,    /* an answer was not taken in time */
    KITHI_EVENT_GIVEN_UP,         /* a request was not carried out in time */
    KITHI_EVENT_PEER_GONE,        /* the client went away before its answer */
    KITHI_EVENT_TOO_MANY,         /* 429 */
    KITHI_EVENT_CROWDED,          /* a connection was turned away, or an idle one closed for it */
    KITHI_EVENT_HANDSHAKE_FAILED, /* of TLS: it failed, or was not done in time */
    KITHI_EVENT_RELOAD_REFUSED,   /* new keys, or a new certificate, were bad */
    KITHI_EVENT_COUNT,
};

/* Of one route; the last is for what is no route. */
struct kithi_metrics_route {
    struct {
        _Atomic int status; /* 0: free */
        _Atomic uint64_t count;
    } statuses[KITHI_METRICS_STATUSES];
    _Atomic uint64_t buckets[KITHI_METRICS_BOUNDS + 1], sum_us;
};

struct kithi_lanes;

struct kithi_metrics {
    struct kithi_metrics_route routes[KITHI_REST_IDS + 1];
    struct kithi_metrics_route rpcs[KITHI_RPC_IDS + 1]; /* statuses: codes of gRPC, and 1 */
    _Atomic uint64_t events[KITHI_EVENT_COUNT];
    _Atomic uint64_t plans[KITHI_METRICS_PLANS]; /* enum kith_plan, of searches under a filter */
    _Atomic uint64_t bytes_in, bytes_out, accepted;
    _Atomic uint64_t connections;      /* now */
    _Atomic uint64_t handshakes;       /* of TLS that were done */
    _Atomic uint64_t certificate_ends; /* seconds since 1970; 0: there is none */
    struct kithi_lanes *lanes;
};

/* route NULL: none. */
void kithi_metrics_answer(struct kithi_metrics *m, const struct kithi_route *route, int status, uint64_t us);
/* A call of gRPC has ended; KITHI_RPC_IDS: none that there is. code: enum kithi_grpc_code. */
void kithi_metrics_rpc(struct kithi_metrics *m, enum kithi_rpc_id id, int code, uint64_t us);
void kithi_metrics_event(struct kithi_metrics *m, enum kithi_metrics_event event);

struct kithi_gateway;
/* What the gateway counts. */
void kithi_metrics_write(const struct kithi_gateway *gateway, struct kithi_text *out);

#endif
