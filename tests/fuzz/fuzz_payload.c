/*
 * fuzz_payload.c - payloads of any bytes and of any text: never beyond them, always to an end; what the check takes can be
 * written, read again as the same bytes, and changed.
 *
 * The first byte says which: text, bytes, or a merge of two payloads, of which the second begins in the middle.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/payload.h"
#include "shm/payload/change.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned char one[KITHI_PAYLOAD_MAX], two[KITHI_PAYLOAD_MAX];

static void must(int truth)
{
    if (!truth)
        abort();
}

static void round_trip(const struct kithi_payload *p)
{
    size_t len = kithi_payload_to_json(p, NULL, 0);
    char *text = malloc(len);
    must(text != NULL && kithi_payload_to_json(p, text, len) == len);
    must(kithi_payload_from_json(text, len, two, NULL) == (int)p->len && memcmp(two, p->bytes, p->len) == 0);
    free(text);
}

static void read_unchecked(const struct kithi_payload *p)
{
    struct kithi_value root, v, w;
    char key[KITHI_PAYLOAD_KEY_MAX];
    uint32_t len;
    kithi_payload_find(p, "a.b.c", 5, &v);
    kithi_payload_find(p, "a", 1, &v);
    if (!kithi_payload_root(p, &root))
        return;
    for (uint32_t i = 0; i < root.len; i++) {
        if (!kithi_payload_member(p, &root, i, key, &len, &v))
            continue;
        for (uint32_t n = 0; kithi_payload_is_array(v.type) && n < v.len && n < 100; n++) {
            if (kithi_payload_element(p, &v, n, &w) && w.type == KITHI_PAYLOAD_STRING)
                must(w.off <= p->len && w.len <= p->len - w.off);
        }
        if (v.type == KITHI_PAYLOAD_STRING)
            must(v.off <= p->len && v.len <= p->len - v.off);
    }
}

static void change(const struct kithi_payload *base, const struct kithi_payload *patch)
{
    static const struct kithi_payload_field fields[] = { { "a", 1 }, { "b.c", 3 }, { "a.b", 3 } };
    int n = kithi_payload_merge(base, patch, one);
    must(n < 0 || kithi_payload_check(one, (size_t)n, NULL) == 0);
    n = kithi_payload_delete(base, fields, 3, one);
    must(n > 0 && kithi_payload_check(one, (size_t)n, NULL) == 0);
    n = kithi_payload_pick(base, fields, 3, one);
    must(n > 0 && kithi_payload_check(one, (size_t)n, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t what = data[0];
    data++;
    size--;
    if (what % 3 == 0) {
        struct kithi_errmsg err;
        int n = kithi_payload_from_json((const char *)data, size, one, &err);
        must(n >= (int)KITHI_PAYLOAD_EMPTY || err.code == n);
        if (n > 0) {
            struct kithi_payload p = { .bytes = one, .len = (uint32_t)n };
            must(kithi_payload_check(one, (size_t)n, NULL) == 0);
            round_trip(&p);
        }
        return 0;
    }
    size_t half = what % 3 == 1 ? size : size / 2;
    if (half > KITHI_PAYLOAD_MAX)
        return 0;
    struct kithi_payload p = { .bytes = data, .len = (uint32_t)half };
    read_unchecked(&p);
    if (kithi_payload_check(data, half, NULL) < 0)
        return 0;
    round_trip(&p);
    change(&p, &p);
    if (what % 3 == 2 && kithi_payload_check(data + half, size - half, NULL) == 0) {
        struct kithi_payload q = { .bytes = data + half, .len = (uint32_t)(size - half) };
        change(&p, &q);
        change(&q, &p);
    }
    return 0;
}
