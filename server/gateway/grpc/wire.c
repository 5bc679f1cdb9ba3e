/*
 * wire.c - see wire.h.
 */
#include "server/gateway/grpc/wire.h"

#include <errno.h>
#include <string.h>

#include "server/gateway/body.h"
#include "shm/base/utf8.h"

#define LEN_BYTES 5u /* of a length up to 32 bits */

static bool varint(struct kithi_part *rest, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 10 && i < rest->len; i++) {
        unsigned char byte = (unsigned char)rest->at[i];
        if (i == 9 && byte > 1) {
            return false; /* more than 64 bits */
        }
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            rest->at += i + 1;
            rest->len -= i + 1;
            *out = value;
            return true;
        }
    }
    return false;
}

static bool fixed(struct kithi_part *rest, unsigned bytes, uint64_t *out)
{
    *out = 0;
    if (rest->len < bytes) {
        return false;
    }
    for (unsigned i = 0; i < bytes; i++) {
        *out |= (uint64_t)(unsigned char)rest->at[i] << (8 * i);
    }
    rest->at += bytes;
    rest->len -= bytes;
    return true;
}

int kithi_wire_next(struct kithi_part *rest, struct kithi_wire_field *out)
{
    uint64_t tag, len;
    if (rest->len == 0) {
        return 0;
    }
    if (!varint(rest, &tag) || tag > UINT32_MAX || tag >> 3 == 0) {
        return -1;
    }
    *out =
        (struct kithi_wire_field){ .number = (uint32_t)(tag >> 3), .type = (enum kithi_wire_type)(tag & 7) };
    switch (out->type) {
    case KITHI_WIRE_VARINT: return varint(rest, &out->value) ? 1 : -1;
    case KITHI_WIRE_FIXED64: return fixed(rest, 8, &out->value) ? 1 : -1;
    case KITHI_WIRE_FIXED32: return fixed(rest, 4, &out->value) ? 1 : -1;
    case KITHI_WIRE_BYTES:
        if (!varint(rest, &len) || len > rest->len) {
            return -1;
        }
        out->bytes = (struct kithi_part){ rest->at, (size_t)len };
        rest->at += len;
        rest->len -= (size_t)len;
        return 1;
    default: return -1;
    }
}

bool kithi_wire_each(struct kithi_part *rest, uint32_t number, struct kithi_wire_field *out)
{
    while (kithi_wire_next(rest, out) == 1) {
        if (out->number == number) {
            return true;
        }
    }
    return false;
}

static bool refuse(struct kithi_refusal *refusal, const char *where, const char *name, const char *what)
{
    char place[128];
    kithi_body_place(place, sizeof place, where, name);
    kithi_refuse(refusal, 400, "protobuf", place, "%s %s", place[0] ? place : "the message", what);
    return false;
}

/* The type on the wire that a kind has; FLOATS also come one by one. */
static enum kithi_wire_type type_of(enum kithi_wire_kind kind)
{
    switch (kind) {
    case KITHI_WIRE_BOOL:
    case KITHI_WIRE_INT32:
    case KITHI_WIRE_UINT64: return KITHI_WIRE_VARINT;
    case KITHI_WIRE_DOUBLE: return KITHI_WIRE_FIXED64;
    default: return KITHI_WIRE_BYTES;
    }
}

static bool take(const struct kithi_wire_member *m, const struct kithi_wire_field *field, const char *where,
                 void *at, struct kithi_refusal *refusal)
{
    bool single = m->kind == KITHI_WIRE_FLOATS && field->type == KITHI_WIRE_FIXED32;
    if (field->type != type_of(m->kind) && !single) {
        return refuse(refusal, where, m->name,
                      "is not of the type that vectordb.proto gives it: its wire type is another");
    }
    switch (m->kind) {
    case KITHI_WIRE_STRING:
        if (!kithi_utf8_valid(field->bytes.at, field->bytes.len) ||
            memchr(field->bytes.at, 0, field->bytes.len)) {
            return refuse(refusal, where, m->name, "is not UTF-8 without NUL");
        }
        *(struct kithi_part *)at = field->bytes;
        break;
    case KITHI_WIRE_OCTETS: *(struct kithi_part *)at = field->bytes; break;
    case KITHI_WIRE_BOOL: *(bool *)at = field->value != 0; break;
    case KITHI_WIRE_INT32: *(int32_t *)at = (int32_t)(uint32_t)field->value; break;
    case KITHI_WIRE_UINT64: *(uint64_t *)at = field->value; break;
    case KITHI_WIRE_DOUBLE: {
        struct kithi_wire_double *d = at;
        d->given = true;
        memcpy(&d->value, &field->value, sizeof d->value);
        break;
    }
    case KITHI_WIRE_FLOATS:
        if (!single && field->bytes.len % sizeof(float)) {
            return refuse(refusal, where, m->name, "is not of whole float");
        }
        *(size_t *)at += single ? 1 : field->bytes.len / sizeof(float);
        break;
    case KITHI_WIRE_LIST: ++*(size_t *)at; break;
    }
    return true;
}

bool kithi_wire_read(struct kithi_part message, const struct kithi_wire_member *members, unsigned count,
                     const char *where, void *out, struct kithi_refusal *refusal)
{
    struct kithi_wire_field field;
    int rc;
    while ((rc = kithi_wire_next(&message, &field)) == 1) {
        for (unsigned i = 0; i < count; i++) {
            if (members[i].number == field.number &&
                !take(&members[i], &field, where, (char *)out + members[i].offset, refusal)) {
                return false;
            }
        }
    }
    return rc == 0 ||
           refuse(refusal, where, "", "is no protocol buffer: it ends in the middle of a field, or has none");
}

long kithi_wire_floats(struct kithi_part message, uint32_t number, struct kithi_floats *out)
{
    struct kithi_wire_field field;
    long n = 0;
    while (kithi_wire_each(&message, number, &field)) {
        char four[4] = { (char)field.value, (char)(field.value >> 8), (char)(field.value >> 16),
                         (char)(field.value >> 24) };
        bool single = field.type == KITHI_WIRE_FIXED32;
        long more = kithi_floats_bytes(out, single ? four : field.bytes.at, single ? 4 : field.bytes.len);
        if (more < 0) {
            return more;
        }
        n += more;
    }
    return n;
}

void kithi_wire_put_varint(struct kithi_text *out, uint64_t value)
{
    char bytes[10];
    size_t n = 0;
    while (value >= 0x80) {
        bytes[n++] = (char)(value | 0x80);
        value >>= 7;
    }
    bytes[n++] = (char)value;
    kithi_text_put(out, bytes, n);
}

static void put_tag(struct kithi_text *out, uint32_t number, enum kithi_wire_type type)
{
    kithi_wire_put_varint(out, (uint64_t)number << 3 | (uint64_t)type);
}

void kithi_wire_put_uint_always(struct kithi_text *out, uint32_t number, uint64_t value)
{
    put_tag(out, number, KITHI_WIRE_VARINT);
    kithi_wire_put_varint(out, value);
}

void kithi_wire_put_uint(struct kithi_text *out, uint32_t number, uint64_t value)
{
    if (value) {
        kithi_wire_put_uint_always(out, number, value);
    }
}

void kithi_wire_put_item(struct kithi_text *out, uint32_t number, const void *bytes, size_t len)
{
    put_tag(out, number, KITHI_WIRE_BYTES);
    kithi_wire_put_varint(out, len);
    kithi_text_put(out, bytes, len);
}

void kithi_wire_put_bytes(struct kithi_text *out, uint32_t number, const void *bytes, size_t len)
{
    if (len) {
        kithi_wire_put_item(out, number, bytes, len);
    }
}

void kithi_wire_put_string(struct kithi_text *out, uint32_t number, const char *text)
{
    kithi_wire_put_bytes(out, number, text, strlen(text));
}

static void put_bits(struct kithi_text *out, uint64_t bits, unsigned n)
{
    char bytes[8];
    for (unsigned i = 0; i < n; i++) {
        bytes[i] = (char)(bits >> (8 * i));
    }
    kithi_text_put(out, bytes, n);
}

void kithi_wire_put_float(struct kithi_text *out, uint32_t number, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (bits) {
        put_tag(out, number, KITHI_WIRE_FIXED32);
        put_bits(out, bits, 4);
    }
}

void kithi_wire_put_double(struct kithi_text *out, uint32_t number, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_tag(out, number, KITHI_WIRE_FIXED64);
    put_bits(out, bits, 8);
}

void kithi_wire_put_floats(struct kithi_text *out, uint32_t number, const float *values, size_t n)
{
    if (n == 0) {
        return;
    }
    put_tag(out, number, KITHI_WIRE_BYTES);
    kithi_wire_put_varint(out, n * sizeof *values);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    kithi_text_put(out, values, n * sizeof *values);
#else
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        put_bits(out, bits, 4);
    }
#endif
}

size_t kithi_wire_open(struct kithi_text *out, uint32_t number)
{
    static const char later[LEN_BYTES] = { 0 };
    put_tag(out, number, KITHI_WIRE_BYTES);
    kithi_text_put(out, later, sizeof later);
    return out->len;
}

void kithi_wire_close(struct kithi_text *out, size_t opened)
{
    if (out->failed) {
        return;
    }
    /* The length in as few bytes as it takes: what follows moves up to it. */
    char *begin = out->at + opened - LEN_BYTES;
    size_t len = out->len - opened, n = 0, rest = len;
    do {
        begin[n++] = (char)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
        rest >>= 7;
    } while (rest);
    memmove(begin + n, out->at + opened, len);
    kithi_text_cut(out, opened - LEN_BYTES + n + len);
}
