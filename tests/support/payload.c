/*
 * payload.c - see payload.h.
 */
#include "tests/support/payload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/payload.h"
#include "tests/support/tmp.h"

struct kithi_payload test_payload(const char *text)
{
    static _Thread_local unsigned char bytes[KITHI_PAYLOAD_MAX];
    struct kithi_errmsg err;
    int n = kithi_payload_from_json(text, strlen(text), bytes, &err);
    if (n < 0)
        test_die("%s: %s", text, err.text);
    unsigned char *copy = malloc((size_t)n);
    if (!copy)
        test_die("out of memory");
    memcpy(copy, bytes, (size_t)n);
    return (struct kithi_payload){ .bytes = copy, .len = (uint32_t)n };
}

void test_payload_free(struct kithi_payload *p)
{
    free((void *)p->bytes);
    p->bytes = NULL;
}

char *test_payload_text(const struct kithi_payload *p)
{
    size_t len = kithi_payload_to_json(p, NULL, 0);
    char *text = malloc(len + 1);
    if (!text)
        test_die("out of memory");
    kithi_payload_to_json(p, text, len);
    text[len] = '\0';
    return text;
}

static size_t put(char *out, size_t cap, size_t at, const char *text)
{
    size_t len = strlen(text);
    if (len >= cap - at)
        test_die("a random payload is too long");
    memcpy(out + at, text, len + 1);
    return at + len;
}

static size_t put_object(struct test_rand *r, uint32_t depth, char *out, size_t cap, size_t at);

static size_t put_value(struct test_rand *r, uint32_t depth, char *out, size_t cap, size_t at)
{
    char text[64];
    uint32_t n = test_rand_below(r, 4);
    switch (test_rand_below(r, depth ? 9 : 7)) {
    case 0: return put(out, cap, at, test_rand_below(r, 2) ? "true" : "false");
    case 1: return put(out, cap, at, "null");
    case 2: snprintf(text, sizeof text, "%d", (int)test_rand_below(r, 20) - 10); break;
    case 3: snprintf(text, sizeof text, "%" PRId64, (int64_t)test_rand_u64(r)); break;
    case 4: snprintf(text, sizeof text, "%.3f", (double)test_rand_float(r) * 10); break;
    case 5: snprintf(text, sizeof text, "\"%c%c\"", 'A' + (int)test_rand_below(r, 3), 'a' + (int)n); break;
    case 6: {
        bool strings = test_rand_below(r, 2);
        at = put(out, cap, at, "[");
        for (uint32_t i = 0; i < n; i++) {
            if (strings)
                snprintf(text, sizeof text, "%s\"%.*s\"", i ? "," : "", (int)test_rand_below(r, 4), "xyz");
            else
                snprintf(text, sizeof text, "%s%" PRId64, i ? "," : "",
                         (int64_t)test_rand_u64(r) >> test_rand_below(r, 64));
            at = put(out, cap, at, text);
        }
        return put(out, cap, at, "]");
    }
    default: return put_object(r, depth - 1, out, cap, at);
    }
    return put(out, cap, at, text);
}

static size_t put_object(struct test_rand *r, uint32_t depth, char *out, size_t cap, size_t at)
{
    static const char *const keys[] = { "a", "b", "ab", "c", "lang", "chars", "\xc3\xa9", "tags" };
    bool first = true;
    at = put(out, cap, at, "{");
    for (uint32_t i = 0; i < 8; i++) {
        char key[32];
        if (test_rand_below(r, 2))
            continue;
        snprintf(key, sizeof key, "%s\"%s\":", first ? "" : ",", keys[i]);
        at = put_value(r, depth, out, cap, put(out, cap, at, key));
        first = false;
    }
    return put(out, cap, at, "}");
}

void test_payload_random(struct test_rand *r, uint32_t depth, char *out, size_t cap)
{
    put_object(r, depth, out, cap, 0);
}
