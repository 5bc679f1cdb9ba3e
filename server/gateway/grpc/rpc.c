/*
 * rpc.c - see rpc.h.
 */
#include "server/gateway/grpc/rpc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/grpc/h2.h"
#include "server/gateway/keys.h"

#define VECTORS    "/vectordb.VectorSearch/"
#define FILTER_MAX 64u /* fields of a map */

/* clang-format off */
static const struct kithi_rpc list[KITHI_RPC_IDS] = {
    { KITHI_RPC_UPSERT, VECTORS "Upsert", "Upsert", KITHI_REST_UPSERT, KITHI_RPC_UNARY, kithi_rpc_upsert },
    { KITHI_RPC_SEARCH, VECTORS "Search", "Search", KITHI_REST_SEARCH, KITHI_RPC_UNARY, kithi_rpc_search },
    { KITHI_RPC_DELETE, VECTORS "Delete", "Delete", KITHI_REST_DELETE, KITHI_RPC_UNARY, kithi_rpc_delete },
    { KITHI_RPC_BATCH_SEARCH, VECTORS "BatchSearch", "BatchSearch", KITHI_REST_SEARCH_BATCH, KITHI_RPC_UNARY, kithi_rpc_batch_search },
    { KITHI_RPC_UPSERT_STREAM, VECTORS "UpsertStream", "UpsertStream", KITHI_REST_UPSERT, KITHI_RPC_UPSERTS, kithi_rpc_upsert_stream },
    { KITHI_RPC_GET, VECTORS "Get", "Get", KITHI_REST_GET_VECTOR, KITHI_RPC_UNARY, kithi_rpc_get },
    { KITHI_RPC_COUNT_, VECTORS "Count", "Count", KITHI_REST_COUNT, KITHI_RPC_UNARY, kithi_rpc_count },
    { KITHI_RPC_SCROLL, VECTORS "Scroll", "Scroll", KITHI_REST_SCROLL, KITHI_RPC_UNARY, kithi_rpc_scroll },
    { KITHI_RPC_FACET, VECTORS "Facet", "Facet", KITHI_REST_FACET, KITHI_RPC_UNARY, kithi_rpc_facet },
    { KITHI_RPC_CREATE, VECTORS "CreateCollection", "CreateCollection", KITHI_REST_CREATE, KITHI_RPC_UNARY, kithi_rpc_create },
    { KITHI_RPC_DROP, VECTORS "DropCollection", "DropCollection", KITHI_REST_DROP, KITHI_RPC_UNARY, kithi_rpc_drop },
    { KITHI_RPC_LIST, VECTORS "ListCollections", "ListCollections", KITHI_REST_LIST, KITHI_RPC_UNARY, kithi_rpc_list },
    { KITHI_RPC_STATS, VECTORS "Stats", "Stats", KITHI_REST_STATS, KITHI_RPC_UNARY, kithi_rpc_stats },
    { KITHI_RPC_CHECK, "/grpc.health.v1.Health/Check", "Check", KITHI_REST_LIVEZ, KITHI_RPC_UNARY, kithi_rpc_check },
    { KITHI_RPC_WATCH, "/grpc.health.v1.Health/Watch", "Watch", KITHI_REST_LIVEZ, KITHI_RPC_WATCHES, NULL },
    { KITHI_RPC_REFLECTION, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "Reflection", KITHI_REST_OPENAPI, KITHI_RPC_ASKS, kithi_rpc_reflect },
    { KITHI_RPC_REFLECTION_ALPHA, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "ReflectionAlpha", KITHI_REST_OPENAPI, KITHI_RPC_ASKS, kithi_rpc_reflect },
};
/* clang-format on */

const struct kithi_rpc *kithi_rpc_find(struct kithi_part path)
{
    for (unsigned i = 0; i < KITHI_RPC_IDS; i++) {
        if (path.at && strlen(list[i].path) == path.len && !memcmp(list[i].path, path.at, path.len)) {
            return &list[i];
        }
    }
    return NULL;
}

const struct kithi_rpc *kithi_rpc_of(enum kithi_rpc_id id)
{
    return id < KITHI_RPC_IDS ? &list[id] : NULL;
}

struct kithi_part kithi_rpc_message(const struct kithi_request *r)
{
    return (struct kithi_part){ r->body.at, r->body.len };
}

bool kithi_rpc_read(struct kithi_request *r, const struct kithi_wire_member *members, unsigned count,
                    void *out)
{
    static const char prefix[KITHI_H2_PREFIX] = { 0 };
    kithi_text_cut(&r->answer, 0);
    kithi_text_put(&r->answer, prefix, sizeof prefix);
    return kithi_wire_read(kithi_rpc_message(r), members, count, "", out, &r->refusal);
}

bool kithi_rpc_collection(struct kithi_request *r, struct kithi_part name)
{
    enum kithi_access access = r->route->access;
    if (!name.at || !kithi_name_valid(name.at, name.len)) {
        return kithi_refuse(&r->refusal, 422, "name", "collection",
                            "collection is no name: [A-Za-z0-9][A-Za-z0-9_-]{0,63}") == 0;
    }
    memcpy(r->target.collection, name.at, name.len);
    r->target.collection[name.len] = 0;
    return !r->key || kithi_key_allows(r->key, r->target.collection, access == KITHI_ACCESS_WRITE) ||
           kithi_refuse(&r->refusal, 403, "rights", NULL, "the key %s does not allow that", r->key->name) ==
               0;
}

char *kithi_rpc_string(struct kithi_part text, struct kithi_refusal *refusal)
{
    char *out = text.at ? strndup(text.at, text.len) : strdup("");
    if (!out) {
        kithi_body_starved(refusal);
    }
    return out;
}

bool kithi_rpc_id(struct kithi_part id, const char *where, char *out, struct kithi_refusal *refusal)
{
    if (!id.at || !kithi_id_valid(id.at, id.len)) {
        return kithi_refuse(refusal, 422, "id", where, "%s is no id: 1 to 511 bytes of UTF-8 without NUL",
                            where) == 0;
    }
    memcpy(out, id.at, id.len);
    out[id.len] = 0;
    return true;
}

bool kithi_rpc_range(struct kithi_refusal *refusal, const char *where, const char *name, uint64_t value,
                     uint32_t min, uint32_t max, uint32_t *out)
{
    char place[128];
    if (value == 0) {
        return true;
    }
    kithi_body_place(place, sizeof place, where, name);
    if (value < min || value > max) {
        return kithi_refuse(refusal, 422, "value", place, "%s is from %" PRIu32 " to %" PRIu32, place, min,
                            max) == 0;
    }
    *out = (uint32_t)value;
    return true;
}

bool kithi_rpc_choice(struct kithi_refusal *refusal, const char *where, const char *name, int32_t value,
                      int32_t n)
{
    char place[128];
    kithi_body_place(place, sizeof place, where, name);
    return (value >= 0 && value < n) ||
           kithi_refuse(refusal, 422, "value", place, "%s is none of the values that vectordb.proto has",
                        place) == 0;
}

/* ---- maps ---------------------------------------------------------------------------- */

struct entry {
    struct kithi_part key, value;
};

static bool read_entry(struct kithi_part bytes, const char *where, struct entry *out,
                       struct kithi_refusal *refusal)
{
    static const struct kithi_wire_member members[] = {
        { 1, KITHI_WIRE_STRING, offsetof(struct entry, key), "key" },
        { 2, KITHI_WIRE_STRING, offsetof(struct entry, value), "value" },
    };
    *out = (struct entry){ { NULL, 0 }, { NULL, 0 } };
    if (!kithi_wire_read(bytes, members, 2, where, out, refusal)) {
        return false;
    }
    out->key.at = out->key.at ? out->key.at : "";
    out->value.at = out->value.at ? out->value.at : "";
    return true;
}

bool kithi_rpc_metadata(struct kithi_part message, uint32_t number, const char *where, struct kithi_text *out,
                        struct kithi_refusal *refusal)
{
    struct kithi_wire_field field;
    struct entry e;
    kithi_text_put(out, "{", 1);
    for (bool first = true; kithi_wire_each(&message, number, &field); first = false) {
        if (!read_entry(field.bytes, where, &e, refusal)) {
            return false;
        }
        kithi_text_str(out, first ? "" : ",");
        kithi_text_json(out, e.key.at, e.key.len);
        kithi_text_put(out, ":", 1);
        kithi_text_json(out, e.value.at, e.value.len);
    }
    kithi_text_put(out, "}", 1);
    if (out->failed) {
        kithi_body_starved(refusal);
    }
    return !refusal->status;
}

/* The map as conditions; n of them at most FILTER_MAX. */
static bool map_filter(struct kithi_refusal *refusal, const char *place, struct kithi_part message,
                       uint32_t number, kith_filter **out)
{
    char *keys[FILTER_MAX] = { NULL }, *values[FILTER_MAX] = { NULL };
    struct kith_error error = { 0 };
    struct kithi_wire_field field;
    struct entry e;
    size_t n = 0;
    while (kithi_wire_each(&message, number, &field) && read_entry(field.bytes, place, &e, refusal)) {
        keys[n] = kithi_rpc_string(e.key, refusal);
        values[n] = kithi_rpc_string(e.value, refusal);
        n++;
    }
    if (!refusal->status) {
        int rc = kith_filter_equals((const char *const *)keys, (const char *const *)values, n, out, &error);
        if (rc < 0) {
            kithi_refuse_kith(refusal, rc, place, error.text);
        }
    }
    while (n > 0) {
        n--;
        free(keys[n]);
        free(values[n]);
    }
    return !refusal->status;
}

bool kithi_rpc_filter(struct kithi_refusal *refusal, const char *where, struct kithi_part expression,
                      struct kithi_part message, uint32_t number, size_t count, char **out)
{
    kith_filter *parts[2] = { NULL, NULL }, *all = NULL;
    struct kith_error error = { 0 };
    char place[128], *text = NULL;
    size_t n = 0;
    int rc = 0;
    *out = NULL;
    if (count > FILTER_MAX) {
        kithi_body_place(place, sizeof place, where, "filter");
        return kithi_refuse(refusal, 422, "filter", place, "a filter as a map has at most 64 fields") == 0;
    }
    if (expression.len) {
        kithi_body_place(place, sizeof place, where, "filter_expression");
        text = kithi_rpc_string(expression, refusal);
        rc = text ? kith_filter_parse(text, &parts[n], &error) : 0;
        n += text && rc == 0;
    }
    if (rc == 0 && count && !refusal->status) {
        kithi_body_place(place, sizeof place, where, "filter");
        n += map_filter(refusal, place, message, number, &parts[n]);
    }
    if (rc == 0 && n && !refusal->status) {
        const char *made = NULL;
        if (n == 2) {
            rc = kith_filter_all((const kith_filter *const *)parts, 2, &all, &error);
            made = rc == 0 ? kith_filter_text(all) : NULL;
        } else {
            made = text ? text : kith_filter_text(parts[0]);
        }
        *out = made ? strdup(made) : NULL;
        if (rc == 0 && !*out) {
            kithi_body_starved(refusal);
        }
    }
    if (rc < 0) {
        kithi_refuse_kith(refusal, rc, place, error.text);
    }
    kith_filter_free(all);
    kith_filter_free(parts[0]);
    kith_filter_free(parts[1]);
    free(text);
    return !refusal->status;
}

/* ---- payloads ------------------------------------------------------------------------ */

/* One past the string that begins at p, quotes included. Payloads are as libkith writes them; the end of the text ends everything. */
static const char *string_end(const char *p)
{
    for (p++; *p && *p != '"'; p++) {
        p += *p == '\\' && p[1];
    }
    return *p ? p + 1 : p;
}

static const char *value_end(const char *p)
{
    unsigned depth = 0;
    if (*p == '"') {
        return string_end(p);
    }
    for (; *p && (depth || (*p != ',' && *p != '}')); p++) {
        if (*p == '"') {
            p = string_end(p) - 1;
        }
        depth += *p == '{' || *p == '[';
        depth -= depth && (*p == '}' || *p == ']');
    }
    return p;
}

static unsigned hex4(const char *p)
{
    char digits[5] = "";
    memcpy(digits, p, strnlen(p, 4));
    return (unsigned)strtoul(digits, NULL, 16);
}

static void put_utf8(struct kithi_text *out, unsigned c)
{
    char bytes[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (size_t i = n; i-- > 1; c >>= 6) {
        bytes[i] = (char)(0x80 | (c & 0x3f));
    }
    bytes[0] = (char)(n == 1 ? c : lead[n] | c);
    kithi_text_put(out, bytes, n);
}

/* The string from p to end, with quotes, as a field. */
static void put_unescaped(struct kithi_text *out, uint32_t number, const char *p, const char *end)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    size_t field = kithi_wire_open(out, number);
    for (p++; p + 1 < end;) {
        const char *stop = memchr(p, '\\', (size_t)(end - 1 - p));
        stop = stop ? stop : end - 1;
        kithi_text_put(out, p, (size_t)(stop - p));
        p = stop;
        if (p + 1 >= end) {
            break;
        }
        const char *known = strchr(from, p[1]);
        if (p[1] == 'u' && end - p > 6) {
            unsigned c = hex4(p + 2);
            p += 6;
            if (c >= 0xd800 && c < 0xdc00 && end - p > 6 && p[0] == '\\' && p[1] == 'u') {
                c = 0x10000 + ((c - 0xd800) << 10) + ((hex4(p + 2) - 0xdc00) & 0x3ff);
                p += 6;
            }
            put_utf8(out, c);
        } else {
            kithi_text_put(out, known && p[1] ? to + (known - from) : "?", 1);
            p += 2;
        }
    }
    kithi_wire_close(out, field);
}

static void put_map(struct kithi_text *out, uint32_t number, const char *p)
{
    for (p++; *p == '"';) {
        const char *key_end = string_end(p), *value = *key_end == ':' ? key_end + 1 : key_end;
        const char *end = value_end(value);
        size_t entry = kithi_wire_open(out, number);
        put_unescaped(out, 1, p, key_end);
        if (*value == '"') {
            put_unescaped(out, 2, value, end);
        } else {
            kithi_wire_put_bytes(out, 2, value, (size_t)(end - value));
        }
        kithi_wire_close(out, entry);
        p = *end == ',' ? end + 1 : end;
    }
}

void kithi_rpc_put_payload(struct kithi_text *out, int form, uint32_t metadata, uint32_t json,
                           const char *payload)
{
    if (payload && form == KITHI_FORM_METADATA) {
        put_map(out, metadata, payload);
    } else if (payload && form == KITHI_FORM_JSON) {
        kithi_wire_put_string(out, json, payload);
    }
}
