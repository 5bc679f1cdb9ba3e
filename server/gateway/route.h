/*
 * route.h - which call a method and a path are, and what the call needs: one table.
 *
 * Pure: nothing here knows of sockets or collections. Segments of a path are percent-decoded one by one, so that an id may hold
 * a slash, as %2F.
 */
#ifndef KITHI_GATEWAY_ROUTE_H
#define KITHI_GATEWAY_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "server/gateway/http.h"
#include "shm/base/id.h"

/* Who carries a call out. Each has its threads and its queue (lanes.h), so that none waits for another kind. */
enum kithi_lane {
    KITHI_LANE_HERE,   /* the thread of the sockets, at once */
    KITHI_LANE_SEARCH, /* reads of the mapped segment */
    KITHI_LANE_WIDE,   /* those that take long */
    KITHI_LANE_WRITE,  /* wait for kithd's answer */
    KITHI_LANE_ADMIN,  /* the same, for minutes */
    KITHI_LANE_WATCH,  /* health, statistics, metrics: answer while everything else is busy */
    KITHI_LANE_COUNT,
};
const char *kithi_lane_name(enum kithi_lane lane);

enum kithi_access {
    KITHI_ACCESS_OPEN,  /* for everybody */
    KITHI_ACCESS_SOME,  /* for a key of any collection */
    KITHI_ACCESS_READ,  /* of this collection */
    KITHI_ACCESS_WRITE, /* of this collection */
    KITHI_ACCESS_ALL,   /* reading all collections */
};

enum kithi_body {
    KITHI_BODY_NONE,
    KITHI_BODY_MAY,    /* JSON, or nothing */
    KITHI_BODY_JSON,   /* JSON */
    KITHI_BODY_FLOATS, /* JSON, or one vector as application/octet-stream */
};

enum kithi_rest_id {
    KITHI_REST_LIVEZ,
    KITHI_REST_READYZ,
    KITHI_REST_HEALTH,
    KITHI_REST_METRICS,
    KITHI_REST_OPENAPI,
    KITHI_REST_PAGE,
    KITHI_REST_LIST,
    KITHI_REST_CREATE,
    KITHI_REST_DESCRIBE,
    KITHI_REST_ALTER,
    KITHI_REST_DROP,
    KITHI_REST_STATS,
    KITHI_REST_SEARCH,
    KITHI_REST_SEARCH_BATCH,
    KITHI_REST_UPSERT,
    KITHI_REST_DELETE,
    KITHI_REST_SCROLL,
    KITHI_REST_COUNT,
    KITHI_REST_FACET,
    KITHI_REST_GET_VECTOR,
    KITHI_REST_DELETE_VECTOR,
    KITHI_REST_PAYLOAD,
    KITHI_REST_CHECKPOINT,
    KITHI_REST_IDS, /* how many; and what is no call */
};

struct kithi_route {
    enum kithi_rest_id call;
    enum kithi_http_method method;
    const char *pattern; /* {c} and {id} stand for segments */
    const char *name;    /* in metrics */
    enum kithi_lane lane;
    enum kithi_access access;
    enum kithi_body body;
    bool writes; /* may change something: how it ended matters when nobody answers */
};

struct kithi_target {
    const struct kithi_route *route; /* NULL: there is none */
    bool path_known;                 /* the path is there, with other methods */
    char allow[40];                  /* these: "GET, PUT" */
    const char *why;                 /* of a path that is no path: a sentence, constant */
    char collection[KITHI_NAME_MAX + 1];
    char id[KITHI_ID_MAX + 1];
    size_t id_len;
};

/* Find the route. True when the path could be read; then route, or path_known, or neither. HEAD is where GET is. */
bool kithi_route_find(enum kithi_http_method method, struct kithi_part path, struct kithi_target *out);

const struct kithi_route *kithi_route_of(enum kithi_rest_id call);

/*
 * Percent-decode into out (size bytes, a NUL is added). The length, or -1: a % without two hexadecimal digits, a NUL, no UTF-8, or
 * too long. plus: '+' is a blank, as in queries.
 */
long kithi_percent_decode(struct kithi_part text, bool plus, char *out, size_t size);

#endif
