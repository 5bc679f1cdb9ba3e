/*
 * body.c - see body.h.
 */
#include "server/gateway/body.h"

#include <errno.h>
#include <inttypes.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/floats.h"
#include "shm/base/assert.h"

/* jansson's memory, with what it takes of the budget before it; the allocator is one for the process. */
struct block {
    alignas(max_align_t) size_t counted;
};

static struct kithi_budget *bound;
static _Thread_local bool free_of_charge; /* what this thread takes now does not count */

static void *take(size_t size)
{
    size_t all = size + sizeof(struct block);
    size_t counted = free_of_charge ? 0 : all;
    if (all < size || (counted && !kithi_budget_take(bound, counted))) {
        return NULL;
    }
    struct block *block = malloc(all);
    if (!block) {
        kithi_budget_give(bound, counted);
        return NULL;
    }
    block->counted = counted;
    return block + 1;
}

static void give(void *at)
{
    if (at) {
        struct block *block = (struct block *)at - 1;
        kithi_budget_give(bound, block->counted);
        free(block);
    }
}

void kithi_body_bound(struct kithi_budget *budget)
{
    bound = budget;
    json_set_alloc_funcs(take, give);
}

int kithi_body_starved(struct kithi_refusal *refusal)
{
    return kithi_refuse(
        refusal, 503, "busy", NULL,
        "there is no memory for more bodies now (bodies_mib); send smaller ones, or try again");
}

/* Out of memory is all that jansson fails of without a word. */
static bool is_starved(const json_error_t *error)
{
    return !error->text[0] || json_error_code(error) == json_error_out_of_memory;
}

/* Where a bracket opens a level too many; len: nowhere. jansson's own limit is 2048, and whoever reads a value behind it recurses. */
static size_t too_deep(const char *text, size_t len)
{
    unsigned level = 0;
    bool string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (string) {
            i += c == '\\';
            string = c != '"';
        } else if (c == '[' || c == '{') {
            if (++level > KITHI_JSON_DEPTH) {
                return i;
            }
        } else if (c == ']' || c == '}') {
            level -= level > 0; /* one too many is found by the reader */
        } else {
            string = c == '"';
        }
    }
    return len;
}

json_t *kithi_body_parse(const char *text, size_t len, struct kithi_refusal *refusal)
{
    json_error_t error;
    char where[64];
    size_t deep = too_deep(text, len);
    if (deep < len) {
        snprintf(where, sizeof where, "byte %zu", deep);
        kithi_refuse(refusal, 400, "json", where,
                     "the body is not JSON that can be read: it is nested deeper than %u", KITHI_JSON_DEPTH);
        return NULL;
    }
    json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!value && is_starved(&error)) {
        kithi_body_starved(refusal);
    } else if (!value) {
        snprintf(where, sizeof where, "line %d, column %d", error.line, error.column);
        kithi_refuse(refusal, 400, "json", where, "the body is not JSON: %s", error.text);
    }
    return value;
}

json_t *kithi_body_scalar(const char *name, const char *value, struct kithi_refusal *refusal)
{
    json_error_t error;
    json_t *scalar = json_loads(value, JSON_DECODE_ANY, &error);
    if (!scalar && is_starved(&error)) {
        kithi_body_starved(refusal);
    } else if (!json_is_number(scalar) && !json_is_boolean(scalar)) {
        kithi_refuse(refusal, 400, "query", name, "the parameter %s is no number, and neither true nor false",
                     name);
        json_decref(scalar);
        scalar = NULL;
    }
    return scalar;
}

json_t *kithi_body_own(const char *text)
{
    free_of_charge = true;
    json_t *value = json_loads(text, 0, NULL);
    free_of_charge = false;
    return value;
}

static int append(const char *text, size_t len, void *out)
{
    kithi_text_put(out, text, len);
    return 0;
}

void kithi_body_write(json_t *value, struct kithi_text *out)
{
    if (json_dump_callback(value, append, out, JSON_COMPACT) < 0) {
        out->failed = out->failed ? out->failed : -ENOMEM;
    }
}

void kithi_body_place(char *out, size_t size, const char *where, const char *name)
{
    snprintf(out, size, "%s%s%s", where, *where && *name ? "." : "", name);
}

static bool wrong(struct kithi_body_object *o, const char *name, const char *what)
{
    char place[128];
    kithi_body_place(place, sizeof place, o->where, name);
    kithi_refuse(o->refusal, 422, "value", place, "%s is not %s", *place ? place : "the body", what);
    return false;
}

bool kithi_body_object(struct kithi_body_object *o, json_t *value, const char *where,
                       struct kithi_refusal *refusal)
{
    *o = (struct kithi_body_object){ .object = value, .where = where, .refusal = refusal };
    return json_is_object(value) || wrong(o, "", "an object");
}

json_t *kithi_body_raw(struct kithi_body_object *o, const char *name)
{
    KITHI_ASSERT(o->asked_count < KITHI_BODY_MEMBERS);
    o->asked[o->asked_count++] = name;
    return json_object_get(o->object, name);
}

json_t *kithi_body_any(struct kithi_body_object *o, const char *name)
{
    json_t *value = kithi_body_raw(o, name);
    return json_is_null(value) ? NULL : value;
}

bool kithi_body_u64(struct kithi_body_object *o, const char *name, uint64_t min, uint64_t max, uint64_t *out)
{
    char what[96];
    json_t *value = kithi_body_any(o, name);
    if (!value) {
        return true;
    }
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || (uint64_t)n < min || (uint64_t)n > max) {
        snprintf(what, sizeof what, "an integer from %" PRIu64 " to %" PRIu64, min, max);
        return wrong(o, name, what);
    }
    *out = (uint64_t)n;
    return true;
}

bool kithi_body_u32(struct kithi_body_object *o, const char *name, uint32_t min, uint32_t max, uint32_t *out)
{
    uint64_t wide = *out;
    bool good = kithi_body_u64(o, name, min, max, &wide);
    *out = (uint32_t)wide;
    return good;
}

bool kithi_body_bool(struct kithi_body_object *o, const char *name, bool *out)
{
    json_t *value = kithi_body_any(o, name);
    if (value && !json_is_boolean(value)) {
        return wrong(o, name, "true or false");
    }
    if (value) {
        *out = json_is_true(value);
    }
    return true;
}

bool kithi_body_number(struct kithi_body_object *o, const char *name, double *out)
{
    json_t *value = kithi_body_any(o, name);
    if (value && !json_is_number(value)) {
        return wrong(o, name, "a number");
    }
    if (value) {
        *out = json_number_value(value);
    }
    return true;
}

bool kithi_body_string(struct kithi_body_object *o, const char *name, const char **out)
{
    json_t *value = kithi_body_any(o, name);
    if (value && !json_is_string(value)) {
        return wrong(o, name, "a string");
    }
    if (value) {
        *out = json_string_value(value);
    }
    return true;
}

bool kithi_body_choice(struct kithi_body_object *o, const char *name, const char *const *names, unsigned n,
                       uint32_t *out)
{
    const char *text = NULL;
    char what[128] = "one of";
    if (!kithi_body_string(o, name, &text)) {
        return false;
    }
    for (unsigned i = 0; text && i < n; i++) {
        if (!strcmp(text, names[i])) {
            *out = i;
            return true;
        }
        size_t len = strlen(what);
        snprintf(what + len, sizeof what - len, "%s %s", i ? "," : "", names[i]);
    }
    return !text || wrong(o, name, what);
}

bool kithi_body_end(struct kithi_body_object *o)
{
    const char *name;
    json_t *value;
    json_object_foreach(o->object, name, value)
    {
        unsigned i = 0;
        while (i < o->asked_count && strcmp(o->asked[i], name) != 0) {
            i++;
        }
        if (i == o->asked_count) {
            char place[128];
            kithi_body_place(place, sizeof place, o->where, name);
            kithi_refuse(o->refusal, 422, "unknown_member", place,
                         "this call knows no member %.64s here; GET /openapi.json has those that it does",
                         name);
            return false;
        }
    }
    return true;
}
