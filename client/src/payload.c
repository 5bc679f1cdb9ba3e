/*
 * payload.c - see payload.h.
 *
 * A text is read into a tree first: members are stored by their keys, and an entry has to know how many there are. The memory of
 * the tree is bounded by what a payload may take, so that a text without end is refused where it has become too long.
 */
#include "client/src/payload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/decimal.h"
#include "shm/base/sink.h"
#include "shm/payload/build.h"

/* A member takes nine bytes at least, an element of an array one, a byte of text one. */
#define NODES_MAX (KITHI_PAYLOAD_MAX / (KITHI_PAYLOAD_ENTRY + 1))

static const char too_large[] = "a payload is larger than 64 KiB";

struct node {
    const char *key;
    uint32_t key_len;
    enum kithi_payload_type type; /* INTS8 and STRINGS for arrays */
    int64_t integer;              /* of INT64 and BOOL */
    double number;
    const char *text;   /* of STRING */
    uint32_t count;     /* bytes of text, elements, members */
    uint32_t first;     /* element */
    struct node *child; /* the last member; each leads to the one before it */
    struct node *before;
};

struct kithi_payload_reader {
    uint32_t node_count, integer_count, string_count, text_len;
    struct node nodes[NODES_MAX];
    struct node *order[NODES_MAX]; /* of the objects that are being written */
    int64_t integers[KITHI_PAYLOAD_MAX];
    struct kithi_payload_text strings[KITHI_PAYLOAD_MAX / 2];
    char text[KITHI_PAYLOAD_MAX];
};

struct kithi_payload_reader *kithi_payload_reader_new(void)
{
    return malloc(sizeof(struct kithi_payload_reader));
}

void kithi_payload_reader_free(struct kithi_payload_reader *r)
{
    free(r);
}

/* ---- reading ---- */

static int read_text(struct kithi_payload_reader *r, struct kithi_json *j, const char **out, size_t *out_len)
{
    const char *begin = j->at;
    int rc = kithi_json_string(j, NULL, 0, out_len);
    if (rc < 0)
        return rc;
    j->at = begin; /* the string is good: once more, for its bytes */
    if (*out_len > KITHI_PAYLOAD_MAX - r->text_len)
        return kithi_json_fail(j, too_large);
    *out = r->text + r->text_len;
    r->text_len += (uint32_t)*out_len;
    return kithi_json_string(j, r->text + r->text_len - *out_len, *out_len, out_len);
}

static int read_integer(struct kithi_payload_reader *r, struct kithi_json *j)
{
    double number;
    const char *begin = j->at;
    if (r->integer_count == KITHI_PAYLOAD_MAX)
        return kithi_json_fail(j, too_large);
    int rc = kithi_json_number(j, &r->integers[r->integer_count], &number);
    if (rc == 0) {
        j->at = begin;
        return kithi_json_fail(j, "an array holds strings or integers, and this is another number");
    }
    r->integer_count += rc == 1;
    return rc < 0 ? rc : 0;
}

static int read_string(struct kithi_payload_reader *r, struct kithi_json *j)
{
    if (r->string_count == KITHI_PAYLOAD_MAX / 2)
        return kithi_json_fail(j, too_large);
    struct kithi_payload_text *to = &r->strings[r->string_count];
    int rc = read_text(r, j, &to->text, &to->len);
    r->string_count += rc == 0;
    return rc;
}

static int read_array(struct kithi_payload_reader *r, struct kithi_json *j, struct node *n)
{
    int rc = kithi_json_array(j);
    enum kithi_json_kind kind = KITHI_JSON_NUMBER;
    n->type = KITHI_PAYLOAD_INTS8;
    n->first = r->integer_count;
    while (rc >= 0 && (rc = kithi_json_element(j)) == 1) {
        enum kithi_json_kind next = kithi_json_peek(j);
        if (next != KITHI_JSON_NUMBER && next != KITHI_JSON_STRING)
            return kithi_json_fail(j, next == KITHI_JSON_NONE ? "expected a value"
                                                              : "an array holds strings or integers only");
        if (n->count == 0 && next == KITHI_JSON_STRING) {
            kind = next;
            n->type = KITHI_PAYLOAD_STRINGS;
            n->first = r->string_count;
        }
        if (next != kind)
            return kithi_json_fail(j, "an array holds either strings or integers, not both");
        rc = kind == KITHI_JSON_STRING ? read_string(r, j) : read_integer(r, j);
        n->count++;
    }
    return rc;
}

static int read_object(struct kithi_payload_reader *r, struct kithi_json *j, struct node *n, uint32_t depth);

static int read_value(struct kithi_payload_reader *r, struct kithi_json *j, struct node *n, uint32_t depth)
{
    size_t len = 0;
    bool truth = false;
    int rc;
    switch (kithi_json_peek(j)) {
    case KITHI_JSON_NULL: n->type = KITHI_PAYLOAD_NULL; return kithi_json_null(j);
    case KITHI_JSON_BOOL:
        n->type = KITHI_PAYLOAD_BOOL;
        rc = kithi_json_bool(j, &truth);
        n->integer = truth;
        return rc;
    case KITHI_JSON_NUMBER:
        rc = kithi_json_number(j, &n->integer, &n->number);
        n->type = rc == 1 ? KITHI_PAYLOAD_INT64 : KITHI_PAYLOAD_DOUBLE;
        return rc < 0 ? rc : 0;
    case KITHI_JSON_STRING:
        n->type = KITHI_PAYLOAD_STRING;
        rc = read_text(r, j, &n->text, &len);
        n->count = (uint32_t)len;
        return rc;
    case KITHI_JSON_ARRAY: return read_array(r, j, n);
    case KITHI_JSON_OBJECT: return read_object(r, j, n, depth + 1);
    case KITHI_JSON_NONE: break;
    }
    return kithi_json_fail(j, j->at == j->end ? "the text ends too early" : "expected a value");
}

/* The key of the member that was reached. */
static int read_key(struct kithi_payload_reader *r, struct kithi_json *j, struct node *n)
{
    char key[KITHI_PAYLOAD_KEY_MAX];
    size_t len;
    if (!kithi_json_key(j, key, sizeof key, &len))
        return kithi_json_fail_key(j, "a key is longer than 255 bytes");
    const char *why = kithi_payload_key_wrong(key, len);
    if (!why && len > KITHI_PAYLOAD_MAX - r->text_len)
        why = too_large;
    if (why)
        return kithi_json_fail_key(j, why);
    n->key = memcpy(r->text + r->text_len, key, len);
    n->key_len = (uint32_t)len;
    r->text_len += (uint32_t)len;
    return 0;
}

static int read_object(struct kithi_payload_reader *r, struct kithi_json *j, struct node *n, uint32_t depth)
{
    n->type = KITHI_PAYLOAD_OBJECT;
    if (depth > KITHI_PAYLOAD_DEPTH_MAX)
        return kithi_json_fail(j, "objects are nested more than 16 levels deep");
    int rc = kithi_json_object(j);
    while (rc >= 0 && (rc = kithi_json_member(j)) == 1) {
        if (r->node_count == NODES_MAX)
            return kithi_json_fail_key(j, too_large);
        struct node *child = &r->nodes[r->node_count++];
        *child = (struct node){ .before = n->child };
        n->child = child;
        n->count++;
        rc = read_key(r, j, child);
        if (rc == 0)
            rc = read_value(r, j, child, depth);
    }
    return rc;
}

/* ---- writing bytes ---- */

static int compare(const void *a, const void *b)
{
    const struct node *x = *(struct node *const *)a, *y = *(struct node *const *)b;
    int order = memcmp(x->key, y->key, x->key_len < y->key_len ? x->key_len : y->key_len);
    return order ? order : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

static void put_members(const struct kithi_payload_reader *r, struct kithi_payload_build *b, uint32_t at,
                        const struct node *object, struct node **order)
{
    uint32_t count = 0;
    for (struct node *n = object->child; n; n = n->before)
        order[count++] = n;
    qsort(order, count, sizeof *order, compare);
    for (uint32_t i = 0; i < count && !b->full; i++) {
        const struct node *n = order[i];
        kithi_payload_put_key(b, at, i, n->key, n->key_len);
        switch (n->type) {
        case KITHI_PAYLOAD_NULL: kithi_payload_put_null(b, at, i); break;
        case KITHI_PAYLOAD_BOOL: kithi_payload_put_bool(b, at, i, n->integer != 0); break;
        case KITHI_PAYLOAD_INT64: kithi_payload_put_int(b, at, i, n->integer); break;
        case KITHI_PAYLOAD_DOUBLE: kithi_payload_put_double(b, at, i, n->number); break;
        case KITHI_PAYLOAD_STRING: kithi_payload_put_string(b, at, i, n->text, n->count); break;
        case KITHI_PAYLOAD_STRINGS:
            kithi_payload_put_strings(b, at, i, r->strings + n->first, n->count);
            break;
        case KITHI_PAYLOAD_OBJECT:
            put_members(r, b, kithi_payload_put_inner(b, at, i, n->count), n, order + count);
            break;
        default: kithi_payload_put_ints(b, at, i, r->integers + n->first, n->count); break;
        }
    }
}

int kithi_payload_read(struct kithi_payload_reader *r, struct kithi_json *j,
                       unsigned char out[KITHI_PAYLOAD_MAX])
{
    struct node root = { .type = KITHI_PAYLOAD_OBJECT };
    struct kithi_payload_build b;
    r->node_count = r->integer_count = r->string_count = r->text_len = 0;
    if (!j->code && kithi_json_peek(j) != KITHI_JSON_OBJECT)
        return kithi_json_fail(j, "a payload is an object");
    const char *begin = j->at;
    int rc = read_object(r, j, &root, 1);
    if (rc < 0)
        return rc;
    kithi_payload_begin(&b, out);
    put_members(r, &b, kithi_payload_put_object(&b, root.count), &root, r->order);
    rc = kithi_payload_end(&b);
    if (rc < 0) {
        j->at = begin;
        return kithi_json_fail(j, too_large);
    }
    return rc;
}

int kithi_payload_from_json(const char *text, size_t len, unsigned char out[KITHI_PAYLOAD_MAX],
                            struct kithi_errmsg *err)
{
    struct kithi_json j;
    struct kithi_payload_reader *r = kithi_payload_reader_new();
    if (!r)
        return kithi_error_set(err, -ENOMEM, "out of memory");
    kithi_json_init(&j);
    kithi_json_begin(&j, text, len);
    int n = kithi_payload_read(r, &j, out);
    int rc = kithi_json_finish(&j);
    if (rc == -ENOMEM)
        kithi_error_set(err, rc, "out of memory");
    else if (rc < 0)
        rc = kithi_error_set(err, KITHI_E_PAYLOAD, "payload: %s, at byte %zu", j.error, j.error_off + 1);
    kithi_json_fini(&j);
    kithi_payload_reader_free(r);
    return rc < 0 ? rc : n;
}

/* ---- writing text ---- */

static void put_text(struct kithi_sink *s, const char *text, size_t len)
{
    size_t room = s->len < s->cap ? s->cap - s->len : 0;
    s->len += kithi_json_write_string(room ? s->out + s->len : NULL, room, text, len);
}

static void put_object(struct kithi_sink *s, const struct kithi_payload *p, const struct kithi_value *object);

static void put_value(struct kithi_sink *s, const struct kithi_payload *p, const struct kithi_value *v)
{
    char number[KITHI_DECIMAL_MAX];
    struct kithi_value element;
    switch (v->type) {
    case KITHI_PAYLOAD_NULL: kithi_sink_put(s, "null", 4); return;
    case KITHI_PAYLOAD_BOOL: kithi_sink_put(s, v->integer ? "true" : "false", v->integer ? 4 : 5); return;
    case KITHI_PAYLOAD_INT32:
    case KITHI_PAYLOAD_INT64: kithi_sink_put_integer(s, v->integer); return;
    case KITHI_PAYLOAD_DOUBLE: kithi_sink_put(s, number, kithi_decimal_write(number, v->number)); return;
    case KITHI_PAYLOAD_STRING: put_text(s, (const char *)p->bytes + v->off, v->len); return;
    case KITHI_PAYLOAD_OBJECT: put_object(s, p, v); return;
    case KITHI_PAYLOAD_STRINGS:
    case KITHI_PAYLOAD_INTS8:
    case KITHI_PAYLOAD_INTS16:
    case KITHI_PAYLOAD_INTS32:
    case KITHI_PAYLOAD_INTS64: break;
    }
    kithi_sink_put(s, "[", 1);
    for (uint32_t i = 0; kithi_payload_element(p, v, i, &element); i++) {
        kithi_sink_put(s, ",", i > 0);
        put_value(s, p, &element);
    }
    kithi_sink_put(s, "]", 1);
}

static void put_object(struct kithi_sink *s, const struct kithi_payload *p, const struct kithi_value *object)
{
    char key[KITHI_PAYLOAD_KEY_MAX];
    uint32_t key_len;
    struct kithi_value v;
    kithi_sink_put(s, "{", 1);
    for (uint32_t i = 0; kithi_payload_member(p, object, i, key, &key_len, &v); i++) {
        kithi_sink_put(s, ",", i > 0);
        put_text(s, key, key_len);
        kithi_sink_put(s, ":", 1);
        put_value(s, p, &v);
    }
    kithi_sink_put(s, "}", 1);
}

size_t kithi_payload_to_json(const struct kithi_payload *p, char *out, size_t cap)
{
    struct kithi_sink s = { .out = out, .cap = cap };
    struct kithi_value root;
    if (kithi_payload_root(p, &root))
        put_object(&s, p, &root);
    return s.len;
}
