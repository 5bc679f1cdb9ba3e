/*
 * build.c - see build.h.
 */
#include "shm/payload/build.h"

#include <string.h>

#include "shm/base/bytes.h"
#include "shm/base/error.h"

/* Offsets and counts have sixteen bits. */
#define WORD_MAX 0xffffu

/* Room for n bytes; NULL: there is none. */
static unsigned char *room(struct kithi_payload_build *b, size_t n)
{
    if (b->full || n > KITHI_PAYLOAD_MAX - b->len) {
        b->full = true;
        return NULL;
    }
    unsigned char *at = b->bytes + b->len;
    b->len += (uint32_t)n;
    return at;
}

static void append(struct kithi_payload_build *b, const void *bytes, size_t n)
{
    unsigned char *at = room(b, n);
    if (at && n > 0)
        memcpy(at, bytes, n);
}

/* Type and word of member i. */
static void set(struct kithi_payload_build *b, uint32_t object, uint32_t i, enum kithi_payload_type type,
                uint32_t word)
{
    if (b->full)
        return;
    unsigned char *entry = b->bytes + object + 2 + i * KITHI_PAYLOAD_ENTRY;
    entry[3] = (unsigned char)type;
    kithi_put32(entry + 4, word);
}

/* ... of a value that begins here. */
static void set_here(struct kithi_payload_build *b, uint32_t object, uint32_t i, enum kithi_payload_type type,
                     size_t count)
{
    if (b->len > WORD_MAX || count > WORD_MAX)
        b->full = true;
    set(b, object, i, type, b->len | (uint32_t)count << 16);
}

void kithi_payload_begin(struct kithi_payload_build *b, unsigned char bytes[KITHI_PAYLOAD_MAX])
{
    *b = (struct kithi_payload_build){ .bytes = bytes, .len = KITHI_PAYLOAD_HEAD };
    kithi_put16(bytes, KITHI_PAYLOAD_VERSION);
}

int kithi_payload_end(const struct kithi_payload_build *b)
{
    return b->full ? KITHI_E_PAYLOAD : (int)b->len;
}

uint32_t kithi_payload_put_object(struct kithi_payload_build *b, uint32_t count)
{
    uint32_t object = b->len;
    unsigned char *at = room(b, 2 + (size_t)count * KITHI_PAYLOAD_ENTRY);
    if (at) {
        kithi_put16(at, (uint16_t)count);
        memset(at + 2, 0, (size_t)count * KITHI_PAYLOAD_ENTRY);
    }
    return object;
}

void kithi_payload_put_key(struct kithi_payload_build *b, uint32_t object, uint32_t i, const char *key,
                           size_t len)
{
    if (b->len > WORD_MAX)
        b->full = true;
    if (b->full)
        return;
    unsigned char *entry = b->bytes + object + 2 + i * KITHI_PAYLOAD_ENTRY;
    kithi_put16(entry, (uint16_t)b->len);
    entry[2] = (unsigned char)len;
    append(b, key, len);
}

void kithi_payload_put_null(struct kithi_payload_build *b, uint32_t object, uint32_t i)
{
    set(b, object, i, KITHI_PAYLOAD_NULL, 0);
}

void kithi_payload_put_bool(struct kithi_payload_build *b, uint32_t object, uint32_t i, bool truth)
{
    set(b, object, i, KITHI_PAYLOAD_BOOL, truth);
}

void kithi_payload_put_int(struct kithi_payload_build *b, uint32_t object, uint32_t i, int64_t v)
{
    if (v == (int32_t)v) {
        set(b, object, i, KITHI_PAYLOAD_INT32, (uint32_t)v);
        return;
    }
    set_here(b, object, i, KITHI_PAYLOAD_INT64, 0);
    append(b, &v, sizeof v);
}

void kithi_payload_put_double(struct kithi_payload_build *b, uint32_t object, uint32_t i, double v)
{
    set_here(b, object, i, KITHI_PAYLOAD_DOUBLE, 0);
    append(b, &v, sizeof v);
}

void kithi_payload_put_string(struct kithi_payload_build *b, uint32_t object, uint32_t i, const char *text,
                              size_t len)
{
    set_here(b, object, i, KITHI_PAYLOAD_STRING, len);
    append(b, text, len);
}

void kithi_payload_put_ints(struct kithi_payload_build *b, uint32_t object, uint32_t i, const int64_t *v,
                            size_t count)
{
    uint32_t shift = 0;
    for (size_t n = 0; n < count; n++) {
        uint32_t needs = v[n] == (int8_t)v[n] ? 0 : v[n] == (int16_t)v[n] ? 1 : v[n] == (int32_t)v[n] ? 2 : 3;
        shift = needs > shift ? needs : shift;
    }
    set_here(b, object, i, (enum kithi_payload_type)(KITHI_PAYLOAD_INTS8 + shift), count);
    unsigned char *at = room(b, count << shift);
    for (size_t n = 0; at && n < count; n++)
        memcpy(at + (n << shift), &v[n], (size_t)1 << shift); /* little-endian: the low bytes come first */
}

void kithi_payload_put_strings(struct kithi_payload_build *b, uint32_t object, uint32_t i,
                               const struct kithi_payload_text *v, size_t count)
{
    if (count == 0) {
        set_here(b, object, i, KITHI_PAYLOAD_INTS8, 0);
        return;
    }
    set_here(b, object, i, KITHI_PAYLOAD_STRINGS, count);
    unsigned char *ends = room(b, 2 * count);
    size_t end = 0;
    for (size_t n = 0; ends && n < count && !b->full; n++) {
        append(b, v[n].text, v[n].len);
        end += v[n].len;
        kithi_put16(ends + 2 * n, (uint16_t)end);
    }
}

uint32_t kithi_payload_put_inner(struct kithi_payload_build *b, uint32_t object, uint32_t i, uint32_t count)
{
    set_here(b, object, i, KITHI_PAYLOAD_OBJECT, 0);
    return kithi_payload_put_object(b, count);
}

static void put_inner_copy(struct kithi_payload_build *b, uint32_t object, uint32_t i,
                           const struct kithi_payload *from, const struct kithi_value *v)
{
    uint32_t at = kithi_payload_put_inner(b, object, i, v->len);
    char key[KITHI_PAYLOAD_KEY_MAX];
    uint32_t key_len;
    struct kithi_value member;
    for (uint32_t n = 0; n < v->len && !b->full; n++) {
        if (!kithi_payload_member(from, v, n, key, &key_len, &member))
            return; /* it was not checked */
        kithi_payload_put_key(b, at, n, key, key_len);
        kithi_payload_put_value(b, at, n, from, &member);
    }
}

void kithi_payload_put_value(struct kithi_payload_build *b, uint32_t object, uint32_t i,
                             const struct kithi_payload *from, const struct kithi_value *v)
{
    const unsigned char *at = from->bytes + v->off;
    switch (v->type) {
    case KITHI_PAYLOAD_NULL: kithi_payload_put_null(b, object, i); break;
    case KITHI_PAYLOAD_BOOL: kithi_payload_put_bool(b, object, i, v->integer != 0); break;
    case KITHI_PAYLOAD_INT32:
    case KITHI_PAYLOAD_INT64: kithi_payload_put_int(b, object, i, v->integer); break;
    case KITHI_PAYLOAD_DOUBLE: kithi_payload_put_double(b, object, i, v->number); break;
    case KITHI_PAYLOAD_STRING: kithi_payload_put_string(b, object, i, (const char *)at, v->len); break;
    case KITHI_PAYLOAD_OBJECT: put_inner_copy(b, object, i, from, v); break;
    case KITHI_PAYLOAD_STRINGS:
        set_here(b, object, i, v->type, v->len);
        append(b, at, 2 * (size_t)v->len + kithi_get16(at + 2 * (size_t)(v->len - 1)));
        break;
    case KITHI_PAYLOAD_INTS8:
    case KITHI_PAYLOAD_INTS16:
    case KITHI_PAYLOAD_INTS32:
    case KITHI_PAYLOAD_INTS64:
        set_here(b, object, i, v->type, v->len);
        append(b, at, (size_t)v->len << (v->type - KITHI_PAYLOAD_INTS8));
        break;
    }
}
