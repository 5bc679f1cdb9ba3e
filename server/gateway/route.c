/*
 * route.c - see route.h.
 */
#include "server/gateway/route.h"

#include <stdio.h>
#include <string.h>

#include "shm/base/utf8.h"

/* clang-format off */
static const struct kithi_route routes[] = {
    { KITHI_REST_LIVEZ, KITHI_HTTP_GET, "/livez", "livez", KITHI_LANE_HERE, KITHI_ACCESS_OPEN, KITHI_BODY_NONE, false },
    { KITHI_REST_READYZ, KITHI_HTTP_GET, "/readyz", "readyz", KITHI_LANE_WATCH, KITHI_ACCESS_OPEN, KITHI_BODY_NONE, false },
    { KITHI_REST_HEALTH, KITHI_HTTP_GET, "/health", "health", KITHI_LANE_WATCH, KITHI_ACCESS_OPEN, KITHI_BODY_NONE, false },
    { KITHI_REST_METRICS, KITHI_HTTP_GET, "/metrics", "metrics", KITHI_LANE_WATCH, KITHI_ACCESS_ALL, KITHI_BODY_NONE, false },
    { KITHI_REST_OPENAPI, KITHI_HTTP_GET, "/openapi.json", "openapi", KITHI_LANE_HERE, KITHI_ACCESS_OPEN, KITHI_BODY_NONE, false },
    { KITHI_REST_PAGE, KITHI_HTTP_GET, "/", "page", KITHI_LANE_HERE, KITHI_ACCESS_OPEN, KITHI_BODY_NONE, false },
    { KITHI_REST_LIST, KITHI_HTTP_GET, "/collections", "list", KITHI_LANE_WATCH, KITHI_ACCESS_SOME, KITHI_BODY_NONE, false },
    { KITHI_REST_CREATE, KITHI_HTTP_PUT, "/collections/{c}", "create", KITHI_LANE_ADMIN, KITHI_ACCESS_WRITE, KITHI_BODY_JSON, true },
    { KITHI_REST_DESCRIBE, KITHI_HTTP_GET, "/collections/{c}", "describe", KITHI_LANE_WATCH, KITHI_ACCESS_READ, KITHI_BODY_NONE, false },
    { KITHI_REST_ALTER, KITHI_HTTP_PATCH, "/collections/{c}", "alter", KITHI_LANE_ADMIN, KITHI_ACCESS_WRITE, KITHI_BODY_JSON, true },
    { KITHI_REST_DROP, KITHI_HTTP_DELETE, "/collections/{c}", "drop", KITHI_LANE_ADMIN, KITHI_ACCESS_WRITE, KITHI_BODY_NONE, true },
    { KITHI_REST_STATS, KITHI_HTTP_GET, "/collections/{c}/stats", "stats", KITHI_LANE_WATCH, KITHI_ACCESS_READ, KITHI_BODY_NONE, false },
    { KITHI_REST_SEARCH, KITHI_HTTP_POST, "/collections/{c}/search", "search", KITHI_LANE_SEARCH, KITHI_ACCESS_READ, KITHI_BODY_FLOATS, false },
    { KITHI_REST_SEARCH_BATCH, KITHI_HTTP_POST, "/collections/{c}/search/batch", "search_batch", KITHI_LANE_SEARCH, KITHI_ACCESS_READ, KITHI_BODY_JSON, false },
    { KITHI_REST_UPSERT, KITHI_HTTP_POST, "/collections/{c}/upsert", "upsert", KITHI_LANE_WRITE, KITHI_ACCESS_WRITE, KITHI_BODY_FLOATS, true },
    { KITHI_REST_DELETE, KITHI_HTTP_POST, "/collections/{c}/delete", "delete", KITHI_LANE_WRITE, KITHI_ACCESS_WRITE, KITHI_BODY_JSON, true },
    { KITHI_REST_SCROLL, KITHI_HTTP_POST, "/collections/{c}/scroll", "scroll", KITHI_LANE_SEARCH, KITHI_ACCESS_READ, KITHI_BODY_MAY, false },
    { KITHI_REST_COUNT, KITHI_HTTP_POST, "/collections/{c}/count", "count", KITHI_LANE_SEARCH, KITHI_ACCESS_READ, KITHI_BODY_MAY, false },
    { KITHI_REST_FACET, KITHI_HTTP_POST, "/collections/{c}/facet", "facet", KITHI_LANE_WIDE, KITHI_ACCESS_READ, KITHI_BODY_JSON, false },
    { KITHI_REST_GET_VECTOR, KITHI_HTTP_GET, "/collections/{c}/vectors/{id}", "get_vector", KITHI_LANE_SEARCH, KITHI_ACCESS_READ, KITHI_BODY_NONE, false },
    { KITHI_REST_DELETE_VECTOR, KITHI_HTTP_DELETE, "/collections/{c}/vectors/{id}", "delete_vector", KITHI_LANE_WRITE, KITHI_ACCESS_WRITE, KITHI_BODY_NONE, true },
    { KITHI_REST_PAYLOAD, KITHI_HTTP_PATCH, "/collections/{c}/vectors/{id}/payload", "payload", KITHI_LANE_WRITE, KITHI_ACCESS_WRITE, KITHI_BODY_JSON, true },
    { KITHI_REST_CHECKPOINT, KITHI_HTTP_POST, "/collections/{c}/checkpoints", "checkpoint", KITHI_LANE_ADMIN, KITHI_ACCESS_WRITE, KITHI_BODY_MAY, true },
};
/* clang-format on */
_Static_assert(sizeof routes / sizeof routes[0] == KITHI_REST_IDS, "a route for each call");

const char *kithi_lane_name(enum kithi_lane lane)
{
    static const char *const names[] = { "here", "search", "wide", "write", "admin", "watch" };
    return lane < KITHI_LANE_COUNT ? names[lane] : "none";
}

const struct kithi_route *kithi_route_of(enum kithi_rest_id call)
{
    return call < KITHI_REST_IDS ? &routes[call] : NULL;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

long kithi_percent_decode(struct kithi_part text, bool plus, char *out, size_t size)
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_digit(text.at[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(text.at[i + 2]) : -1;
            if (low < 0) {
                return -1;
            }
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c == 0 || len + 1 >= size) {
            return -1;
        }
        out[len++] = c;
    }
    out[len] = 0;
    return kithi_utf8_valid(out, len) ? (long)len : -1;
}

/* The next segment: what is between two slashes. False at the end of the path. */
static bool segment(struct kithi_part *path, struct kithi_part *out)
{
    if (path->len == 0 || path->at[0] != '/') {
        return false;
    }
    const char *begin = path->at + 1, *end = path->at + path->len;
    const char *slash = memchr(begin, '/', (size_t)(end - begin));
    *out = (struct kithi_part){ begin, (size_t)((slash ? slash : end) - begin) };
    *path = (struct kithi_part){ begin + out->len, path->len - 1 - out->len };
    return true;
}

static bool matches(const char *pattern, struct kithi_part path, struct kithi_part *out_collection,
                    struct kithi_part *out_id)
{
    struct kithi_part rest = { pattern, strlen(pattern) }, want, have;
    while (segment(&rest, &want)) {
        if (!segment(&path, &have)) {
            return false;
        }
        if (want.at[0] == '{') {
            *(want.at[1] == 'c' ? out_collection : out_id) = have;
        } else if (want.len != have.len || memcmp(want.at, have.at, want.len) != 0) {
            return false;
        }
    }
    return path.len == 0;
}

bool kithi_route_find(enum kithi_http_method method, struct kithi_part path, struct kithi_target *out)
{
    struct kithi_part collection = { NULL, 0 }, id = { NULL, 0 };
    *out = (struct kithi_target){ .route = NULL };
    method = method == KITHI_HTTP_HEAD ? KITHI_HTTP_GET : method;
    for (unsigned i = 0; i < KITHI_REST_IDS; i++) {
        if (!matches(routes[i].pattern, path, &collection, &id)) {
            continue;
        }
        out->path_known = true;
        if (routes[i].method == method) {
            out->route = &routes[i];
        }
        size_t len = strlen(out->allow);
        snprintf(out->allow + len, sizeof out->allow - len, "%s%s", len ? ", " : "",
                 kithi_http_method_name(routes[i].method));
    }
    if (!out->path_known) {
        return true;
    }
    if (collection.at) {
        long len = kithi_percent_decode(collection, false, out->collection, sizeof out->collection);
        if (len < 0 || !kithi_name_valid(out->collection, (size_t)len)) {
            out->why = "the collection in the path is no name: [A-Za-z0-9][A-Za-z0-9_-]{0,63}";
            return false;
        }
    }
    if (id.at) {
        long len = kithi_percent_decode(id, false, out->id, sizeof out->id);
        if (len < 0 || !kithi_id_valid(out->id, (size_t)len)) {
            out->why = "the id in the path is none: 1 to 511 bytes of UTF-8 without NUL, percent-encoded";
            return false;
        }
        out->id_len = (size_t)len;
    }
    return true;
}
