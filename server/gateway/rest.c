/*
 * rest.c - see rest.h.
 */
#include "server/gateway/rest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool kithi_rest_open(struct kithi_request *r, bool alone, struct kithi_handle **out)
{
    struct kith_error error;
    int rc = kithi_handles_take(r->gateway->handles, r->target.collection, alone, out, &error);
    if (rc < 0) {
        kithi_refuse_kith(&r->refusal, rc, NULL, rc == KITH_E_NO_COLLECTION ? NULL : error.text);
    }
    return rc == 0;
}

enum kithi_next kithi_rest_end(struct kithi_request *r, struct kithi_handle *handle, int rc,
                               const char *where, const char *text)
{
    kithi_handles_give(r->gateway->handles, handle, rc == KITH_E_REPLACED);
    if (rc == KITH_E_REPLACED && !r->anew && !r->refusal.status) {
        r->anew = true;
        kithi_text_cut(&r->answer, 0);
        return KITHI_AGAIN;
    }
    if (rc < 0 && !r->refusal.status) {
        kithi_refuse_kith(&r->refusal, rc, where, text);
        /* Who has asked kithd for something and waited in vain, or lost it in a way that nobody has foreseen, does not know. Nor
         * does who has asked a kithd that stops for another layout: it may stand in the configuration, and the next start does it. */
        bool put_off = rc == KITH_E_SHUTDOWN && r->route->call == KITHI_REST_ALTER;
        if (r->route->writes && (rc == KITH_E_TIMEOUT || put_off || r->refusal.status == 500)) {
            r->refusal.code = "outcome_unknown";
            r->refusal.outcome = KITHI_OUTCOME_UNKNOWN;
        }
    }
    return KITHI_DONE;
}

bool kithi_rest_query_end(struct kithi_request *r)
{
    const char *name = kithi_query_unknown(&r->query);
    if (name) {
        kithi_refuse(&r->refusal, 400, "query", name, "this call knows no parameter %s", name);
    }
    return !r->refusal.status;
}

bool kithi_rest_query_bool(struct kithi_request *r, const char *name, bool *out)
{
    const char *value = kithi_query_get(&r->query, name);
    if (value && strcmp(value, "true") != 0 && strcmp(value, "false") != 0) {
        return kithi_refuse(&r->refusal, 400, "query", name, "the parameter %s is true or false", name) == 0;
    }
    *out = value ? !strcmp(value, "true") : *out;
    return true;
}

bool kithi_rest_query_u64(struct kithi_request *r, const char *name, uint64_t max, uint64_t *out)
{
    const char *value = kithi_query_get(&r->query, name);
    if (!value) {
        return true;
    }
    char *end;
    errno = 0;
    unsigned long long n = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno || n > max) {
        return kithi_refuse(&r->refusal, 400, "query", name, "the parameter %s is an integer up to %" PRIu64,
                            name, max) == 0;
    }
    *out = n;
    return true;
}

static const char *const waits[] = { "durable", "applied", "none" }; /* enum kith_durability */

const char *kithi_rest_wait_name(enum kith_durability durability)
{
    return waits[durability];
}

bool kithi_rest_query_wait(struct kithi_request *r, enum kith_durability *out)
{
    const char *value = kithi_query_get(&r->query, "wait");
    for (unsigned i = 0; value && i < 3; i++) {
        if (!strcmp(value, waits[i])) {
            *out = (enum kith_durability)i;
            return true;
        }
    }
    return !value || kithi_refuse(&r->refusal, 400, "query", "wait",
                                  "the parameter wait is none, applied or durable") == 0;
}

bool kithi_rest_wait(struct kithi_body_object *o, enum kith_durability *out)
{
    uint32_t n = *out;
    bool good = kithi_body_choice(o, "wait", waits, 3, &n);
    *out = (enum kith_durability)n;
    return good;
}

json_t *kithi_rest_body(struct kithi_request *r)
{
    json_t *value = r->body.len || r->route->body != KITHI_BODY_MAY
                        ? kithi_body_parse(r->body.at, r->body.len, &r->refusal)
                        : json_object();
    if (!value) {
        kithi_body_starved(&r->refusal); /* unless it is refused already */
    }
    return value;
}

/* field = value, of one member of an object. */
static int equals(const char *field, json_t *value, kith_filter **out, struct kith_error *error)
{
    struct kith_filter_value v = { .type = KITH_FILTER_STRING };
    switch (json_typeof(value)) {
    case JSON_STRING: v.string = json_string_value(value); break;
    case JSON_INTEGER:
        v = (struct kith_filter_value){ .type = KITH_FILTER_INTEGER, .integer = json_integer_value(value) };
        break;
    case JSON_REAL:
        v = (struct kith_filter_value){ .type = KITH_FILTER_DOUBLE, .number = json_real_value(value) };
        break;
    case JSON_TRUE: v = (struct kith_filter_value){ .type = KITH_FILTER_BOOL, .integer = 1 }; break;
    case JSON_FALSE: v = (struct kith_filter_value){ .type = KITH_FILTER_BOOL }; break;
    default: return -EINVAL;
    }
    return kith_filter_compare(field, KITH_FILTER_EQ, &v, out, error);
}

static bool filter_of_object(struct kithi_body_object *o, json_t *object, const char *place, char **out)
{
    kith_filter *parts[64] = { NULL }, *all = NULL;
    struct kith_error error = { 0 };
    size_t n = 0;
    const char *field;
    json_t *value;
    int rc = 0;
    char where[128];
    snprintf(where, sizeof where, "%s", place);
    if (json_object_size(object) == 0 || json_object_size(object) > 64) {
        kithi_refuse(o->refusal, 422, "filter", place, "a filter as an object has 1 to 64 fields");
        return false;
    }
    json_object_foreach(object, field, value)
    {
        rc = equals(field, value, &parts[n], &error);
        if (rc < 0) {
            kithi_body_place(where, sizeof where, place, field);
            break;
        }
        n++;
    }
    if (rc == -EINVAL) {
        kithi_refuse(
            o->refusal, 422, "filter", where,
            "a filter as an object has strings, numbers, true or false; others are written as an expression");
    } else if (rc < 0 || (rc = kith_filter_all((const kith_filter *const *)parts, n, &all, &error)) < 0) {
        kithi_refuse_kith(o->refusal, rc, where, error.text);
    } else {
        *out = strdup(kith_filter_text(all));
        if (!*out) {
            kithi_refuse_kith(o->refusal, -ENOMEM, where, NULL);
        }
    }
    kith_filter_free(all);
    while (n > 0) {
        kith_filter_free(parts[--n]);
    }
    return *out != NULL;
}

bool kithi_rest_filter(struct kithi_body_object *o, char **out)
{
    json_t *value = kithi_body_any(o, "filter");
    struct kith_error error = { 0 };
    kith_filter *parsed = NULL;
    char place[128];
    *out = NULL;
    kithi_body_place(place, sizeof place, o->where, "filter");
    if (!value) {
        return true;
    }
    if (json_is_object(value)) {
        return filter_of_object(o, value, place, out);
    }
    if (!json_is_string(value)) {
        kithi_refuse(
            o->refusal, 422, "filter", place,
            "a filter is an expression as a string, or an object of fields and what they are equal to");
        return false;
    }
    int rc = kith_filter_parse(json_string_value(value), &parsed, &error);
    kith_filter_free(parsed);
    if (rc == 0 && !(*out = strdup(json_string_value(value)))) {
        rc = -ENOMEM;
    }
    return rc == 0 || kithi_refuse_kith(o->refusal, rc, place, error.text) == 0;
}

bool kithi_rest_fields(struct kithi_body_object *o, struct kithi_rest_fields *out)
{
    json_t *value = kithi_body_any(o, "with_payload");
    char place[128];
    kithi_body_place(place, sizeof place, o->where, "with_payload");
    out->count = 0;
    if (!value || json_is_boolean(value)) {
        out->payload = value ? json_is_true(value) : out->payload;
        return true;
    }
    bool good = json_is_array(value) && json_array_size(value) >= 1 && json_array_size(value) <= 64;
    for (size_t i = 0; good && i < json_array_size(value); i++) {
        good = json_is_string(json_array_get(value, i));
        out->names[out->count++] = json_string_value(json_array_get(value, i));
    }
    out->payload = true;
    return good || kithi_refuse(o->refusal, 422, "value", place,
                                "%s is true, false, or 1 to 64 paths of fields", place) == 0;
}

bool kithi_rest_moment(struct kithi_body_object *o, struct kithi_rest_moment *out)
{
    const char *timeline = NULL;
    *out = (struct kithi_rest_moment){ 0 };
    if (!kithi_body_u64(o, "min_epoch", 0, INT64_MAX, &out->min_epoch) ||
        !kithi_body_string(o, "timeline", &timeline)) {
        return false;
    }
    char *end = NULL;
    errno = 0;
    out->timeline = timeline ? strtoull(timeline, &end, 10) : 0;
    if (timeline && (*timeline < '0' || *timeline > '9' || *end || errno)) {
        char place[128];
        kithi_body_place(place, sizeof place, o->where, "timeline");
        return kithi_refuse(o->refusal, 422, "value", place, "%s is none that an answer had", place) == 0;
    }
    return true;
}

enum kithi_next kithi_rest_await(struct kithi_request *r, struct kithi_handle *handle,
                                 const struct kithi_rest_moment *moment, uint64_t until_ns)
{
    if (moment->timeline) {
        uint64_t timeline = kith_timeline(handle->index);
        if (timeline && timeline != moment->timeline) {
            kithi_refuse(
                &r->refusal, 409, "timeline", "timeline",
                "epochs may have been lost since, or the collection is another one; its timeline is %" PRIu64,
                timeline);
            return KITHI_DONE;
        }
    }
    if (moment->min_epoch == 0 || kith_epoch(handle->index) >= moment->min_epoch) {
        return KITHI_DONE;
    }
    if (until_ns && kithi_gateway_now_ns() >= until_ns) {
        kithi_refuse(&r->refusal, 504, "epoch_not_visible", "min_epoch",
                     "epoch %" PRIu64 " has not become visible within deadline_ms; %" PRIu64 " is",
                     moment->min_epoch, kith_epoch(handle->index));
        return KITHI_DONE;
    }
    return KITHI_AWAIT;
}

void kithi_rest_put_epoch(struct kithi_request *r, kith *index, uint64_t epoch)
{
    /* The timeline as a string: it has 64 bits, and many readers of JSON keep 53 of a number. */
    kithi_text_printf(&r->answer, ",\"epoch\":%" PRIu64 ",\"timeline\":\"%" PRIu64 "\"", epoch,
                      kith_timeline(index));
}

void kithi_rest_put_vector(struct kithi_text *out, const float *vector, uint32_t dim)
{
    kithi_text_put(out, "[", 1);
    for (uint32_t i = 0; i < dim; i++) {
        if (i) {
            kithi_text_put(out, ",", 1);
        }
        kithi_text_float(out, vector[i]);
    }
    kithi_text_put(out, "]", 1);
}

json_t *kithi_rest_lifted(struct kithi_request *r, struct kithi_floats *floats, unsigned depth)
{
    struct kithi_text rest;
    json_t *value = NULL;
    char where[48];
    kithi_text_init(&rest, r->body.len + (r->body.len >> 1) + 64, &r->gateway->bodies);
    int rc = kithi_floats_lift(floats, r->body.at, r->body.len, depth, &rest);
    if (rc == -EINVAL) {
        snprintf(where, sizeof where, "byte %zu", floats->at);
        kithi_refuse(&r->refusal, 400, "json", where, "the body is not JSON that can be read: %s",
                     floats->why);
    } else if (rc < 0 || rest.failed) {
        kithi_body_starved(&r->refusal);
    } else {
        value = kithi_body_parse(rest.at, rest.len, &r->refusal);
    }
    kithi_text_fini(&rest);
    return value;
}

/* What stands for a vector that was lifted: [N]. Nothing else that a body may hold there passes for it (floats.h). */
static bool is_lifted(json_t *value, size_t count, size_t *out)
{
    json_t *number = json_is_array(value) && json_array_size(value) == 1 ? json_array_get(value, 0) : NULL;
    if (!json_is_integer(number) || json_integer_value(number) < 0 ||
        (uint64_t)json_integer_value(number) >= count) {
        return false;
    }
    *out = (size_t)json_integer_value(number);
    return true;
}

bool kithi_rest_vector(struct kithi_body_object *o, struct kithi_floats *floats, const float **out,
                       size_t *out_len)
{
    json_t *value = kithi_body_any(o, "vector");
    char place[128];
    size_t number;
    long n = 0;
    *out = NULL;
    kithi_body_place(place, sizeof place, o->where, "vector");
    if (!value) {
        return true;
    }
    if (is_lifted(value, floats->vector_count, &number)) {
        struct kithi_vector v = floats->vectors[number];
        *out = v.len ? floats->values + v.first : NULL;
        *out_len = v.len;
    } else if (json_is_string(value)) {
        /* Room may move what was there before; callers of batches take vectors only when all are in. */
        n = kithi_floats_base64(floats, json_string_value(value), json_string_length(value));
        if (n >= 0) {
            *out = n ? floats->values + floats->vectors[floats->vector_count - 1].first : NULL;
            *out_len = (size_t)n;
        }
    } else {
        n = -EINVAL;
    }
    if (n < 0 && n != -EINVAL) {
        return kithi_refuse(o->refusal, 503, "busy", place,
                            "there is no memory for more vectors now (bodies_mib); try again") == 0;
    }
    if (n < 0) {
        return kithi_refuse(o->refusal, 422, "value", place,
                            "%s is an array of numbers, or base64 of little-endian float32", place) == 0;
    }
    return *out_len > 0 || kithi_refuse(o->refusal, 422, "dimension", place, "%s is empty", place) == 0;
}
