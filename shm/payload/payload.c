/*
 * payload.c - see payload.h: the check, and reading that trusts nothing.
 */
#include "shm/payload/payload.h"

#include <math.h>
#include <string.h>

#include "shm/base/bytes.h"
#include "shm/base/error.h"
#include "shm/base/utf8.h"
#include "shm/sync/slotbytes.h"

/* ---- keys ---- */

const char *kithi_payload_key_wrong(const char *key, size_t len)
{
    if (len == 0)
        return "a key is empty";
    if (len > KITHI_PAYLOAD_KEY_MAX)
        return "a key is longer than 255 bytes";
    if (memchr(key, '.', len))
        return "a key has a dot, which stands between the keys of a path";
    if (memchr(key, '\0', len))
        return "a key has a NUL";
    return kithi_utf8_valid(key, len) ? NULL : "a key is not valid UTF-8";
}

const char *kithi_payload_path_wrong(const char *path, size_t len)
{
    for (uint32_t depth = 1;; depth++) {
        const char *dot = memchr(path, '.', len);
        size_t part = dot ? (size_t)(dot - path) : len;
        const char *why = kithi_payload_key_wrong(path, part);
        if (why)
            return why;
        if (!dot)
            return NULL;
        if (depth == KITHI_PAYLOAD_DEPTH_MAX)
            return "a path has more than 16 keys";
        path += part + 1;
        len -= part + 1;
    }
}

const char *kithi_payload_type_name(enum kithi_payload_type type)
{
    switch (type) {
    case KITHI_PAYLOAD_NULL: return "null";
    case KITHI_PAYLOAD_BOOL: return "a boolean";
    case KITHI_PAYLOAD_INT32:
    case KITHI_PAYLOAD_INT64: return "an integer";
    case KITHI_PAYLOAD_DOUBLE: return "a number";
    case KITHI_PAYLOAD_STRING: return "a string";
    case KITHI_PAYLOAD_OBJECT: return "an object";
    case KITHI_PAYLOAD_STRINGS: return "an array of strings";
    case KITHI_PAYLOAD_INTS8:
    case KITHI_PAYLOAD_INTS16:
    case KITHI_PAYLOAD_INTS32:
    case KITHI_PAYLOAD_INTS64: return "an array of integers";
    }
    return "nothing";
}

/* ---- reading ---- */

static uint32_t width_of(uint32_t type)
{
    return 1u << (type - KITHI_PAYLOAD_INTS8);
}

/* n bytes at off, when the payload has them. */
static bool load(const struct kithi_payload *p, uint32_t off, void *to, uint32_t n)
{
    if (off > p->len || n > p->len - off)
        return false;
    kithi_slot_load(to, p->bytes + off, n);
    return true;
}

/* Bytes that n items of so many bytes take fit behind off. */
static bool has_room(const struct kithi_payload *p, uint32_t off, uint32_t n, uint32_t each)
{
    return off <= p->len && (uint64_t)n * each <= p->len - off;
}

/* The members of the object at off. */
static bool load_count(const struct kithi_payload *p, uint32_t off, uint32_t *out)
{
    uint16_t count;
    if (!load(p, off, &count, sizeof count) || !has_room(p, off + 2, count, KITHI_PAYLOAD_ENTRY))
        return false;
    *out = count;
    return true;
}

/* An entry as it stands in an object; private once loaded. */
struct entry {
    uint16_t key_off;
    uint8_t key_len;
    uint8_t type;
    uint32_t word;
};
_Static_assert(sizeof(struct entry) == KITHI_PAYLOAD_ENTRY, "an entry is format");

static bool decode(const struct kithi_payload *p, const struct entry *e, struct kithi_value *out)
{
    *out = (struct kithi_value){ .off = e->word & 0xffff, .len = e->word >> 16 };
    switch (e->type) {
    case KITHI_PAYLOAD_NULL: out->type = KITHI_PAYLOAD_NULL; return true;
    case KITHI_PAYLOAD_BOOL:
        out->type = KITHI_PAYLOAD_BOOL;
        out->integer = e->word != 0;
        return true;
    case KITHI_PAYLOAD_INT32:
        out->type = KITHI_PAYLOAD_INT64;
        out->integer = (int32_t)e->word;
        return true;
    case KITHI_PAYLOAD_INT64:
        out->type = KITHI_PAYLOAD_INT64;
        return load(p, out->off, &out->integer, sizeof out->integer);
    case KITHI_PAYLOAD_DOUBLE:
        out->type = KITHI_PAYLOAD_DOUBLE;
        return load(p, out->off, &out->number, sizeof out->number);
    case KITHI_PAYLOAD_STRING: out->type = KITHI_PAYLOAD_STRING; return has_room(p, out->off, out->len, 1);
    case KITHI_PAYLOAD_OBJECT: out->type = KITHI_PAYLOAD_OBJECT; return load_count(p, out->off, &out->len);
    case KITHI_PAYLOAD_STRINGS: out->type = KITHI_PAYLOAD_STRINGS; return has_room(p, out->off, out->len, 2);
    case KITHI_PAYLOAD_INTS8:
    case KITHI_PAYLOAD_INTS16:
    case KITHI_PAYLOAD_INTS32:
    case KITHI_PAYLOAD_INTS64:
        out->type = (enum kithi_payload_type)e->type;
        return has_room(p, out->off, out->len, width_of(e->type));
    default: return false;
    }
}

bool kithi_payload_root(const struct kithi_payload *p, struct kithi_value *out)
{
    uint16_t version;
    *out = (struct kithi_value){ .type = KITHI_PAYLOAD_OBJECT, .off = KITHI_PAYLOAD_HEAD };
    return load(p, 0, &version, sizeof version) && version == KITHI_PAYLOAD_VERSION &&
           load_count(p, KITHI_PAYLOAD_HEAD, &out->len);
}

/* Entry i of an object whose entries are inside the payload. */
static void load_entry(const struct kithi_payload *p, const struct kithi_value *object, uint32_t i,
                       struct entry *out)
{
    kithi_slot_load(out, p->bytes + object->off + 2 + i * KITHI_PAYLOAD_ENTRY, sizeof *out);
}

/* Orders key against that of e; *out_sense false: that is not inside the payload. */
static int compare(const struct kithi_payload *p, const struct entry *e, const char *key, size_t len,
                   bool *out_sense)
{
    *out_sense = has_room(p, e->key_off, e->key_len, 1);
    if (!*out_sense)
        return 0;
    size_t both = len < e->key_len ? len : e->key_len;
    int order = kithi_slot_compare(key, p->bytes + e->key_off, both);
    return order ? order : (len > e->key_len) - (len < e->key_len);
}

/* The member of an object by its key. Halving: at most as many steps as its count has bits. */
static bool find_member(const struct kithi_payload *p, const struct kithi_value *object, const char *key,
                        size_t len, struct kithi_value *out)
{
    uint32_t low = 0, high = object->len;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct entry e;
        bool sense;
        load_entry(p, object, middle, &e);
        int order = compare(p, &e, key, len, &sense);
        if (!sense)
            return false;
        if (order == 0)
            return decode(p, &e, out);
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

bool kithi_payload_find(const struct kithi_payload *p, const char *path, size_t path_len,
                        struct kithi_value *out)
{
    struct kithi_value at;
    if (!kithi_payload_root(p, &at))
        return false;
    for (;;) {
        const char *dot = memchr(path, '.', path_len);
        size_t len = dot ? (size_t)(dot - path) : path_len;
        struct kithi_value next;
        if (at.type != KITHI_PAYLOAD_OBJECT || !find_member(p, &at, path, len, &next))
            return false;
        if (!dot) {
            *out = next;
            return true;
        }
        at = next;
        path += len + 1;
        path_len -= len + 1;
    }
}

bool kithi_payload_member(const struct kithi_payload *p, const struct kithi_value *object, uint32_t i,
                          char out_key[KITHI_PAYLOAD_KEY_MAX], uint32_t *out_key_len, struct kithi_value *out)
{
    struct entry e;
    if (object->type != KITHI_PAYLOAD_OBJECT || i >= object->len)
        return false;
    load_entry(p, object, i, &e);
    if (out_key) {
        *out_key_len = e.key_len;
        if (!load(p, e.key_off, out_key, e.key_len))
            return false;
    }
    return decode(p, &e, out);
}

static bool load_integer(const struct kithi_payload *p, uint32_t off, uint32_t width, int64_t *out)
{
    int8_t v8;
    int16_t v16;
    int32_t v32;
    bool there;
    switch (width) {
    case 1:
        there = load(p, off, &v8, 1);
        *out = there ? v8 : 0;
        return there;
    case 2:
        there = load(p, off, &v16, 2);
        *out = there ? v16 : 0;
        return there;
    case 4:
        there = load(p, off, &v32, 4);
        *out = there ? v32 : 0;
        return there;
    default: return load(p, off, out, 8);
    }
}

bool kithi_payload_element(const struct kithi_payload *p, const struct kithi_value *array, uint32_t i,
                           struct kithi_value *out)
{
    if (i >= array->len)
        return false;
    if (kithi_payload_is_ints(array->type)) {
        uint32_t width = width_of(array->type);
        *out = (struct kithi_value){ .type = KITHI_PAYLOAD_INT64 };
        return load_integer(p, array->off + i * width, width, &out->integer);
    }
    uint16_t begin = 0, end;
    if (array->type != KITHI_PAYLOAD_STRINGS || (i > 0 && !load(p, array->off + 2 * (i - 1), &begin, 2)) ||
        !load(p, array->off + 2 * i, &end, 2) || end < begin)
        return false;
    *out = (struct kithi_value){ .type = KITHI_PAYLOAD_STRING,
                                 .off = array->off + 2 * array->len + begin,
                                 .len = (uint32_t)end - begin };
    return has_room(p, out->off, out->len, 1);
}

/* ---- the check ---- */

struct check {
    struct kithi_payload p;
    uint32_t at; /* everything before it is known to be right */
    const char *why;
};

static bool wrong(struct check *c, const char *why)
{
    if (!c->why)
        c->why = why;
    return false;
}

/* What comes next takes n bytes, of text when it says so. */
static bool take(struct check *c, uint32_t n, bool text)
{
    if (!has_room(&c->p, c->at, n, 1))
        return wrong(c, "a payload ends too early");
    if (text && !kithi_utf8_valid(c->p.bytes + c->at, n))
        return wrong(c, "a string is not valid UTF-8");
    c->at += n;
    return true;
}

static bool check_strings(struct check *c, uint32_t count)
{
    uint32_t ends = c->at, begin = 0;
    if (count == 0)
        return wrong(c, "an empty array is one of integers");
    if (!take(c, 2 * count, false))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t end = kithi_get16(c->p.bytes + ends + 2 * i);
        if (end < begin)
            return wrong(c, "a string ends before it begins");
        if (!take(c, end - begin, true))
            return false;
        begin = end;
    }
    return true;
}

/* Bytes of an integer in an array. */
static uint32_t width_for(int64_t v)
{
    return v == (int8_t)v ? 1 : v == (int16_t)v ? 2 : v == (int32_t)v ? 4 : 8;
}

static bool check_integers(struct check *c, uint32_t type, uint32_t count)
{
    uint32_t off = c->at, width = width_of(type), widest = 1;
    if (!has_room(&c->p, off, count, width))
        return wrong(c, "a payload ends too early");
    c->at += count * width;
    for (uint32_t i = 0; i < count; i++) {
        int64_t v = 0;
        load_integer(&c->p, off + i * width, width, &v);
        widest = width_for(v) > widest ? width_for(v) : widest;
    }
    return widest == width || wrong(c, "integers of an array are wider than the largest needs");
}

static bool check_object(struct check *c, uint32_t depth);

static bool check_value(struct check *c, const struct entry *e, uint32_t depth)
{
    uint32_t off = e->word & 0xffff, len = e->word >> 16;
    if (e->type >= KITHI_PAYLOAD_INT64 && off != c->at)
        return wrong(c, "a value is not where it belongs");
    if ((e->type == KITHI_PAYLOAD_INT64 || e->type == KITHI_PAYLOAD_DOUBLE ||
         e->type == KITHI_PAYLOAD_OBJECT) &&
        len != 0)
        return wrong(c, "an entry has bits that mean nothing");
    switch (e->type) {
    case KITHI_PAYLOAD_NULL: return e->word == 0 || wrong(c, "an entry has bits that mean nothing");
    case KITHI_PAYLOAD_BOOL: return e->word <= 1 || wrong(c, "a boolean is neither true nor false");
    case KITHI_PAYLOAD_INT32: return true;
    case KITHI_PAYLOAD_INT64: {
        int64_t v = 0;
        if (!take(c, sizeof v, false))
            return false;
        load_integer(&c->p, off, sizeof v, &v);
        return v != (int32_t)v || wrong(c, "an integer is wider than it needs to be");
    }
    case KITHI_PAYLOAD_DOUBLE: {
        double v;
        if (!take(c, sizeof v, false))
            return false;
        memcpy(&v, c->p.bytes + off, sizeof v);
        return isfinite(v) || wrong(c, "a number is not finite");
    }
    case KITHI_PAYLOAD_STRING: return take(c, len, true);
    case KITHI_PAYLOAD_OBJECT: return check_object(c, depth + 1);
    case KITHI_PAYLOAD_STRINGS: return check_strings(c, len);
    case KITHI_PAYLOAD_INTS8:
    case KITHI_PAYLOAD_INTS16:
    case KITHI_PAYLOAD_INTS32:
    case KITHI_PAYLOAD_INTS64: return check_integers(c, e->type, len);
    default: return wrong(c, "a value of a type that does not exist");
    }
}

static bool check_object(struct check *c, uint32_t depth)
{
    struct kithi_value object = { .type = KITHI_PAYLOAD_OBJECT, .off = c->at };
    if (depth > KITHI_PAYLOAD_DEPTH_MAX)
        return wrong(c, "objects are nested too deeply");
    if (!load_count(&c->p, c->at, &object.len))
        return wrong(c, "a payload ends too early");
    c->at += 2 + object.len * KITHI_PAYLOAD_ENTRY;
    const char *last = NULL;
    uint32_t last_len = 0;
    for (uint32_t i = 0; i < object.len; i++) {
        struct entry e;
        bool sense;
        load_entry(&c->p, &object, i, &e);
        if (e.key_off != c->at)
            return wrong(c, "a key is not where it belongs");
        const char *key = (const char *)c->p.bytes + c->at;
        if (!take(c, e.key_len, false))
            return false;
        const char *why = kithi_payload_key_wrong(key, e.key_len);
        if (why)
            return wrong(c, why);
        if (last && compare(&c->p, &e, last, last_len, &sense) >= 0)
            return wrong(c, "keys are out of order");
        if (!check_value(c, &e, depth))
            return false;
        last = key;
        last_len = e.key_len;
    }
    return true;
}

int kithi_payload_check(const void *bytes, size_t len, const char **out_why)
{
    struct check c = { .p = { .bytes = bytes, .len = (uint32_t)len }, .at = KITHI_PAYLOAD_HEAD };
    if (len > KITHI_PAYLOAD_MAX)
        wrong(&c, "a payload is larger than 64 KiB");
    else if (len < KITHI_PAYLOAD_EMPTY)
        wrong(&c, "a payload ends too early");
    else if (kithi_get16(bytes) != KITHI_PAYLOAD_VERSION)
        wrong(&c, "a payload of another version");
    else if (check_object(&c, 1) && c.at != len)
        wrong(&c, "something follows the payload");
    if (out_why)
        *out_why = c.why;
    return c.why ? KITHI_E_PAYLOAD : 0;
}
