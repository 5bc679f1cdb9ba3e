/*
 * body.h - members of a JSON body, each of its type and within its range, or a refusal that names its place.
 *
 * A body is an object. Its members are asked for by name, and whoever has asked for all that there are says so at last
 * (kithi_body_end), so that one that is spelt wrong is refused and not passed over. A member that is null counts as not there, but where that
 * has a meaning of its own.
 */
#ifndef KITHI_GATEWAY_BODY_H
#define KITHI_GATEWAY_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "server/gateway/budget.h"
#include "server/gateway/refusal.h"
#include "server/gateway/text.h"

/*
 * From now on what is parsed counts in this budget, which outlives it: a body of brackets takes forty times its length as values. To be called
 * once, before other threads are there. Without it there is no bound.
 */
void kithi_body_bound(struct kithi_budget *budget);

/* Parse a text strictly: no key twice, no NUL, valid UTF-8, nothing behind, no more than KITHI_JSON_DEPTH levels. NULL: refused with 400, or
 * 503 when the budget is used up. */
json_t *kithi_body_parse(const char *text, size_t len, struct kithi_refusal *refusal);

/* The parameter name of a query, whose value is a number, true or false. NULL: refused with 400, or 503 when the budget is used up. */
json_t *kithi_body_scalar(const char *name, const char *value, struct kithi_refusal *refusal);

/* What kithd says of itself. It does not count in the budget: health and metrics are asked for when bodies have used that up, too. NULL: it
 * is no JSON, or there is no memory at all. */
json_t *kithi_body_own(const char *text);

/* Refuse with 503, as bodies have used up their budget. Returns -1. */
int kithi_body_starved(struct kithi_refusal *refusal);

#define KITHI_BODY_MEMBERS 24u /* that a call asks for, at most */

/* An object that is being read. */
struct kithi_body_object {
    json_t *object;
    const char *where; /* "" at the top, else as "points[3]" */
    struct kithi_refusal *refusal;
    const char *asked[KITHI_BODY_MEMBERS]; /* names, constants */
    unsigned asked_count;
};

/* False, and refused, when value is no object. */
bool kithi_body_object(struct kithi_body_object *o, json_t *value, const char *where,
                       struct kithi_refusal *refusal);

/* The member, or NULL: it is not there, or null. */
json_t *kithi_body_any(struct kithi_body_object *o, const char *name);
/* The member, also null; NULL: it is not there. */
json_t *kithi_body_raw(struct kithi_body_object *o, const char *name);

/* Each stores to out when the member is there, and returns true unless it is refused. */
bool kithi_body_u64(struct kithi_body_object *o, const char *name, uint64_t min, uint64_t max, uint64_t *out);
bool kithi_body_u32(struct kithi_body_object *o, const char *name, uint32_t min, uint32_t max, uint32_t *out);
bool kithi_body_bool(struct kithi_body_object *o, const char *name, bool *out);
bool kithi_body_number(struct kithi_body_object *o, const char *name, double *out);
bool kithi_body_string(struct kithi_body_object *o, const char *name, const char **out);
/* One of n names; out gets its number. */
bool kithi_body_choice(struct kithi_body_object *o, const char *name, const char *const *names, unsigned n,
                       uint32_t *out);

/* True when there is no member that nobody asked for. */
bool kithi_body_end(struct kithi_body_object *o);

/* Write a value as JSON text. out may fail. */
void kithi_body_write(json_t *value, struct kithi_text *out);

/* "points[3]" and "vector" -> "points[3].vector" */
void kithi_body_place(char *out, size_t size, const char *where, const char *name);

#endif
