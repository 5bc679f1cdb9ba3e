/*
 * terms.c - see terms.h.
 */
#include "shm/postings/terms.h"

#include <string.h>

#include "shm/base/hash.h"

/* Members of all objects of a payload: an entry takes 8 bytes of 65536, and a key one more. */
#define MEMBERS_MAX (KITHI_PAYLOAD_MAX / KITHI_PAYLOAD_ENTRY)

struct walk {
    const struct kithi_payload *p;
    const uint8_t *hash_key;
    kithi_term_fn *fn;
    void *arg;
    uint32_t members; /* that were met, ... */
    uint32_t bytes;   /* ... and bytes of strings: a payload has no more than it has room for */
    char path[KITHI_PAYLOAD_DEPTH_MAX * (KITHI_PAYLOAD_KEY_MAX + 1)];
};

#define TAIL_BITS 24u
#define TAIL_MAX  ((UINT64_C(1) << TAIL_BITS) - 1)
#define TAIL_LONG (KITHI_TERM_HEAD + 1) /* the lowest tail of a string that is longer than its head */

/* The first bytes, as the top ones of a key; behind the end of a shorter string stands fill. */
static uint64_t head_of(const unsigned char *bytes, size_t len, unsigned char fill)
{
    uint64_t head = 0;
    for (size_t i = 0; i < KITHI_TERM_HEAD; i++)
        head = head << 8 | (i < len ? bytes[i] : fill);
    return head << TAIL_BITS;
}

uint64_t kithi_term_string(const uint8_t hash_key[16], const void *bytes, size_t len)
{
    if (len <= KITHI_TERM_HEAD)
        return head_of(bytes, len, 0) | len;
    return head_of(bytes, len, 0) |
           (TAIL_LONG + kithi_hash(hash_key, bytes, len) % (TAIL_MAX + 1 - TAIL_LONG));
}

uint64_t kithi_term_string_low(const void *bytes, size_t len)
{
    return head_of(bytes, len, 0) | TAIL_LONG;
}

uint64_t kithi_term_string_high(const void *bytes, size_t len)
{
    return head_of(bytes, len, 0) | TAIL_MAX;
}

uint64_t kithi_term_prefix_high(const void *bytes, size_t len)
{
    return head_of(bytes, len, 0xff) | TAIL_MAX;
}

void kithi_term_fit(struct kithi_term *t, enum kithi_declared_type type)
{
    bool string = t->type == KITHI_PAYLOAD_STRING || t->type == KITHI_PAYLOAD_STRINGS;
    bool integer =
        t->type == KITHI_PAYLOAD_INT32 || t->type == KITHI_PAYLOAD_INT64 || kithi_payload_is_ints(t->type);
    bool fits = t->kind == KITHI_TERM_OTHER && kithi_payload_is_array(t->type); /* an empty one */
    switch (type) {
    case KITHI_DECLARED_KEYWORD: fits |= string; break;
    case KITHI_DECLARED_INTEGER: fits |= integer; break;
    case KITHI_DECLARED_NUMBER: fits |= integer || t->type == KITHI_PAYLOAD_DOUBLE; break;
    case KITHI_DECLARED_BOOL: fits |= t->type == KITHI_PAYLOAD_BOOL; break;
    default: fits = true; break;
    }
    if (!fits) {
        t->kind = KITHI_TERM_MISFIT;
        t->key = 0;
    }
}

uint64_t kithi_term_number(double v)
{
    uint64_t bits;
    v = v == 0 ? 0 : v; /* there are two zeros, and they are equal */
    memcpy(&bits, &v, sizeof bits);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

uint64_t kithi_term_integer(int64_t v)
{
    return kithi_term_number((double)v); /* rounding keeps the order, if not the difference */
}

static bool tell(struct walk *w, uint32_t path_len, enum kithi_payload_type type, enum kithi_term_kind kind,
                 uint64_t key)
{
    const struct kithi_term t = {
        .path = w->path, .path_len = path_len, .kind = kind, .type = type, .key = key
    };
    return w->fn(w->arg, &t);
}

static bool tell_value(struct walk *w, uint32_t path_len, const struct kithi_value *v)
{
    switch (v->type) {
    case KITHI_PAYLOAD_NULL: return true;
    case KITHI_PAYLOAD_BOOL: return tell(w, path_len, v->type, KITHI_TERM_BOOL, (uint64_t)v->integer);
    case KITHI_PAYLOAD_INT32:
    case KITHI_PAYLOAD_INT64:
        return tell(w, path_len, v->type, KITHI_TERM_NUMBER, kithi_term_integer(v->integer));
    case KITHI_PAYLOAD_DOUBLE:
        return tell(w, path_len, v->type, KITHI_TERM_NUMBER, kithi_term_number(v->number));
    case KITHI_PAYLOAD_STRING:
        w->bytes += v->len;
        return w->bytes <= KITHI_PAYLOAD_MAX &&
               tell(w, path_len, v->type, KITHI_TERM_STRING,
                    kithi_term_string(w->hash_key, w->p->bytes + v->off, v->len));
    default: return tell(w, path_len, v->type, KITHI_TERM_OTHER, 0);
    }
}

static bool tell_array(struct walk *w, uint32_t path_len, const struct kithi_value *array)
{
    struct kithi_value element;
    if (array->len == 0)
        return tell(w, path_len, array->type, KITHI_TERM_OTHER, 0);
    if (array->len > KITHI_TERMS_ELEMENTS)
        return tell(w, path_len, array->type, KITHI_TERM_MANY, 0);
    for (uint32_t i = 0; i < array->len; i++)
        if (kithi_payload_element(w->p, array, i, &element) && !tell_value(w, path_len, &element))
            return false;
    return true;
}

/* depth: objects around its members. Bytes that nobody checked may lead back: both bounds end that. */
static bool tell_object(struct walk *w, uint32_t path_len, const struct kithi_value *object, uint32_t depth)
{
    for (uint32_t i = 0; i < object->len && w->members < MEMBERS_MAX; i++, w->members++) {
        struct kithi_value v;
        uint32_t key_len = 0, len = path_len ? path_len + 1 : 0;
        if (path_len)
            w->path[path_len] = '.';
        if (!kithi_payload_member(w->p, object, i, w->path + len, &key_len, &v))
            continue;
        len += key_len;
        bool more = kithi_payload_is_array(v.type) ? tell_array(w, len, &v) : tell_value(w, len, &v);
        if (more && v.type == KITHI_PAYLOAD_OBJECT && depth < KITHI_PAYLOAD_DEPTH_MAX)
            more = tell_object(w, len, &v, depth + 1);
        if (!more)
            return false;
    }
    return true;
}

void kithi_terms_each(const struct kithi_payload *p, const uint8_t hash_key[16], kithi_term_fn *fn, void *arg)
{
    struct walk w = { .p = p, .hash_key = hash_key, .fn = fn, .arg = arg };
    struct kithi_value root;
    if (p->len && kithi_payload_root(p, &root))
        (void)tell_object(&w, 0, &root, 1);
}
