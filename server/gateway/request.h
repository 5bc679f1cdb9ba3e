/*
 * request.h - one request that was read whole, and what becomes of it: what the calls (rest_*.c) work on.
 *
 * Life: the thread of the sockets makes it, a thread of its lane carries it out, the former sends the answer and frees it. It belongs
 * to one of them at a time; who has it is decided under the lock of the lanes (lanes.c).
 */
#ifndef KITHI_GATEWAY_REQUEST_H
#define KITHI_GATEWAY_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/gateway/budget.h"
#include "server/gateway/query.h"
#include "server/gateway/refusal.h"
#include "server/gateway/route.h"
#include "server/gateway/text.h"

#define KITHI_REQUEST_ID_MAX 64u

struct kithi_handles;
struct kithi_key;
struct kithi_keyring;
struct kithi_metrics;

/* What all requests share, and what never changes while they do. */
struct kithi_gateway {
    const char *run_dir; /* NULL: as libkith chooses */
    struct kithi_handles *handles;
    struct kithi_metrics *metrics;
    struct kithi_budget bodies, answers;
    size_t answer_max;   /* bytes of one answer */
    uint32_t top_k_max;  /* of a search */
    uint32_t ef_max;     /* of a search */
    uint32_t batch_max;  /* searches of a batch */
    uint32_t points_max; /* points of an upsert, ids of a delete */
    const char *version;
    atomic_bool draining; /* no new requests: the process is about to end */
};

/* What a call says of a request. */
enum kithi_next {
    KITHI_DONE,  /* there is an answer, or a refusal */
    KITHI_MOVE,  /* request->lane shall carry it out, from its beginning */
    KITHI_AWAIT, /* again, once the epoch request->await is visible in the collection */
    KITHI_AGAIN, /* again, at once */
};

struct kithi_request;
/* A call: what carries a request out. */
typedef enum kithi_next kithi_call_fn(struct kithi_request *r);

struct kithi_request {
    struct kithi_gateway *gateway;
    const struct kithi_route *route;
    kithi_call_fn *call;
    enum kithi_http_method method;
    enum kithi_lane lane;
    struct kithi_target target; /* collection and id */
    struct kithi_query query;
    struct kithi_text body;
    bool floats;                   /* the body is one vector as octets */
    const struct kithi_key *key;   /* NULL: there are none */
    struct kithi_keyring *keyring; /* which key is of, and held by the request; NULL: none */
    char id[KITHI_REQUEST_ID_MAX + 1];

    uint64_t began_ns;       /* CLOCK_MONOTONIC, when it was whole */
    uint64_t deadline_ns;    /* when it is given up */
    uint64_t await;          /* an epoch that it waits for; 0: none */
    uint64_t await_until_ns; /* and until when; 0: until deadline_ns */
    bool anew;               /* it was begun again, as its collection had been replaced */

    struct kithi_refusal refusal;
    int status;         /* of an answer; 0: 200 */
    const char *type;   /* of an answer; NULL: application/json */
    const char *policy; /* Content-Security-Policy of an answer that is a page; NULL: none */
    struct kithi_text answer;
    uint64_t search_us; /* of a search, for the headers */
    bool searched;
    uint64_t stream_messages, stream_points; /* of a stream of upserts: applied before this one */
};

/* The calls of a route. */
kithi_call_fn kithi_rest_livez, kithi_rest_readyz, kithi_rest_health, kithi_rest_metrics, kithi_rest_openapi,
    kithi_rest_page, kithi_rest_list, kithi_rest_create, kithi_rest_describe, kithi_rest_alter,
    kithi_rest_drop, kithi_rest_stats, kithi_rest_search, kithi_rest_search_batch, kithi_rest_upsert,
    kithi_rest_delete, kithi_rest_scroll, kithi_rest_count, kithi_rest_facet, kithi_rest_get_vector,
    kithi_rest_delete_vector, kithi_rest_payload, kithi_rest_checkpoint;

kithi_call_fn *kithi_request_call(const struct kithi_route *route);

/* Carry it out, in the thread of its lane. Not KITHI_AGAIN. */
enum kithi_next kithi_request_run(struct kithi_request *r);

uint64_t kithi_gateway_now_ns(void);

#endif
