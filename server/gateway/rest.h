/*
 * rest.h - what the calls share: opening the collection, going back to the client with what libkith said, members that several bodies have.
 */
#ifndef KITHI_GATEWAY_REST_H
#define KITHI_GATEWAY_REST_H

#include <stdbool.h>
#include <stdint.h>

#include <kith/kith.h>

#include "server/gateway/body.h"
#include "server/gateway/floats.h"
#include "server/gateway/handles.h"
#include "server/gateway/request.h"

/* Open the collection of the request. False: refused. */
bool kithi_rest_open(struct kithi_request *r, bool alone, struct kithi_handle **out);

/*
 * Give the handle back and say what comes next: rc >= 0: there is an answer. A collection that was replaced meanwhile is
 * opened once more, as what has its name now may be meant; otherwise the error is the answer. where, text: as kithi_refuse_kith().
 */
enum kithi_next kithi_rest_end(struct kithi_request *r, struct kithi_handle *handle, int rc,
                               const char *where, const char *text);

/* Refuse parameters of the query that the call has not asked for. True when there are none. */
bool kithi_rest_query_end(struct kithi_request *r);
/* A parameter that is true or false, or a number. False: refused. */
bool kithi_rest_query_bool(struct kithi_request *r, const char *name, bool *out);
bool kithi_rest_query_u64(struct kithi_request *r, const char *name, uint64_t max, uint64_t *out);
/* wait=none|applied|durable */
bool kithi_rest_query_wait(struct kithi_request *r, enum kith_durability *out);

/* The body as an object, parsed; NULL: refused. An absent one that may be is an empty object. To be freed by json_decref(). */
json_t *kithi_rest_body(struct kithi_request *r);

/* The same, its vectors apart; depth: as kithi_floats_lift(). */
json_t *kithi_rest_lifted(struct kithi_request *r, struct kithi_floats *floats, unsigned depth);
/*
 * The member "vector" of such a body, an array of numbers or base64; *out is NULL when there is none, and else valid until the next one
 * is taken. False: refused.
 */
bool kithi_rest_vector(struct kithi_body_object *o, struct kithi_floats *floats, const float **out,
                       size_t *out_len);

/* The member "wait". */
bool kithi_rest_wait(struct kithi_body_object *o, enum kith_durability *out);
const char *kithi_rest_wait_name(enum kith_durability durability);

/* The member "filter": an expression, or an object of fields and what they are equal to. *out is NULL without one, else to be freed. */
bool kithi_rest_filter(struct kithi_body_object *o, char **out);

/* The member "with_payload": a boolean or paths of fields. */
struct kithi_rest_fields {
    bool payload;
    uint32_t count;
    const char *names[64]; /* in the body */
};
bool kithi_rest_fields(struct kithi_body_object *o, struct kithi_rest_fields *out);

/*
 * The members "min_epoch" and "timeline" of a read, which wants to see a write of its own. KITHI_DONE: go on, or refused (look at
 * r->refusal); KITHI_AWAIT: it is not visible yet. until_ns: when it is to be given up; 0: with the request.
 */
struct kithi_rest_moment {
    uint64_t min_epoch, timeline; /* 0: none */
};
bool kithi_rest_moment(struct kithi_body_object *o, struct kithi_rest_moment *out);
enum kithi_next kithi_rest_await(struct kithi_request *r, struct kithi_handle *handle,
                                 const struct kithi_rest_moment *moment, uint64_t until_ns);

/* ,"epoch":E,"timeline":"T" */
void kithi_rest_put_epoch(struct kithi_request *r, kith *index, uint64_t epoch);
/* [1.5,2] */
void kithi_rest_put_vector(struct kithi_text *out, const float *vector, uint32_t dim);

#endif
