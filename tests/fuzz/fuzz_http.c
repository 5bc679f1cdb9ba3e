/*
 * fuzz_http.c - whatever a client sends to kith-gateway: never read beyond, never in two ways, always to an end.
 *
 * The input is what arrives on a connection. It is given to the reader of heads at once and byte by byte, which must agree; then
 * its path, query, chunks, vectors and JSON go the way that those of a request go.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/gateway/body.h"
#include "server/gateway/floats.h"
#include "server/gateway/http.h"
#include "server/gateway/keys.h"
#include "server/gateway/query.h"
#include "server/gateway/route.h"
#include "server/gateway/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool truth)
{
    if (!truth) {
        abort();
    }
}

/* The same end and the same refusal, however the bytes come. */
static long end_of(const char *text, size_t len)
{
    struct kithi_http_head whole = { .status = 0 }, piecewise = { .status = 0 };
    size_t scanned = 0;
    long end = kithi_http_end(text, len, &scanned, &whole), now = 0;
    scanned = 0;
    for (size_t n = 1; n <= len && now == 0; n++) {
        now = kithi_http_end(text, n, &scanned, &piecewise);
    }
    /* A line of 20,000 bytes is refused before its odd end comes. */
    must(len > KITHI_HTTP_TARGET_MAX || (now == end && whole.status == piecewise.status));
    must(end < 0 ? whole.status >= 400 && whole.why : (size_t)end <= len);
    return end;
}

static bool within(struct kithi_part part, const char *text, size_t len)
{
    return !part.at || (part.at >= text && part.at + part.len <= text + len);
}

static void chunks(const char *text, size_t len)
{
    struct kithi_http_chunks whole = { 0 }, bytes = { 0 };
    struct kithi_part part;
    size_t at = 0, used, a = 0, b = 0;
    int rc = 0, other = 0;
    while (at < len && rc == 0) {
        rc = kithi_http_chunk(&whole, text + at, len - at, &used, &part);
        must(used > 0 && within(part, text, len));
        at += used;
        a += part.len;
    }
    for (size_t i = 0; i < len && other == 0; i++) {
        other = kithi_http_chunk(&bytes, text + i, 1, &used, &part);
        b += part.len;
    }
    must(rc == other && a == b);
}

/* The typed members that calls ask for, of any object. */
static void members(json_t *value)
{
    static const char *const names[] = { "durable", "applied", "none" };
    struct kithi_refusal refusal = { 0 };
    struct kithi_body_object o;
    uint32_t n = 1;
    bool truth;
    double number;
    const char *text = NULL;
    if (!kithi_body_object(&o, value, "", &refusal)) {
        must(refusal.status == 422);
        return;
    }
    (void)(kithi_body_u32(&o, "top_k", 1, 100, &n) && kithi_body_bool(&o, "exact", &truth) &&
           kithi_body_number(&o, "target_recall", &number) && kithi_body_string(&o, "like", &text) &&
           kithi_body_choice(&o, "wait", names, 3, &n) && kithi_body_end(&o));
    must(n <= 100 && (refusal.status == 0 || refusal.status == 422));
}

/* No array at that level passes for a lifted vector unless it is one. */
static void bodies(const char *text, size_t len)
{
    for (unsigned depth = 1; depth <= 3; depth += 2) {
        struct kithi_floats floats;
        struct kithi_text rest;
        struct kithi_refusal refusal = { 0 };
        kithi_floats_init(&floats, NULL);
        kithi_text_init(&rest, len * 2 + 64, NULL);
        int rc = kithi_floats_lift(&floats, text, len, depth, &rest);
        must(rc == 0 || (rc == -EINVAL && floats.why && floats.at <= len));
        json_t *value = rc == 0 && !rest.failed ? kithi_body_parse(rest.at, rest.len, &refusal) : NULL;
        json_t *vector = depth == 1 ? json_object_get(value, "vector") : NULL;
        if (json_is_array(vector) && json_is_integer(json_array_get(vector, 0))) {
            must(json_array_size(vector) == 1 &&
                 (uint64_t)json_integer_value(json_array_get(vector, 0)) < floats.vector_count);
        }
        if (value) {
            members(value);
        }
        json_decref(value);
        kithi_text_fini(&rest);
        kithi_floats_fini(&floats);
    }
}

static void head_of(const char *text, size_t len)
{
    static struct kithi_query query;
    struct kithi_http_head head;
    struct kithi_target target;
    struct kithi_part key;
    const char *why = NULL;
    if (kithi_http_head(text, len, &head) < 0) {
        must(head.status >= 400 && head.status < 600 && head.why &&
             strcmp(kithi_http_reason(head.status), "Unknown") != 0);
        return;
    }
    must(within(head.path, text, len) && within(head.query, text, len) && within(head.host, text, len));
    must(!(head.chunked && head.has_length));
    if (kithi_route_find(head.method, head.path, &target) && target.route) {
        must(strlen(target.collection) <= KITHI_NAME_MAX && strlen(target.id) == target.id_len);
    }
    must(kithi_query_parse(head.query, &query, &why) == 0 || why);
    kithi_keys_presented(&head, &key);
    kithi_keys_stranger(&head, true, true);
    kithi_keys_stranger(&head, false, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    must(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    long end = end_of(text, size);
    if (end > 0) {
        head_of(text, (size_t)end);
    }
    const char *body = end > 0 ? text + end : text;
    size_t len = size - (size_t)(body - text);
    chunks(body, len);
    bodies(body, len);
    free(text);
    return 0;
}
