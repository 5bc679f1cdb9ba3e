/*
 * wire.h - the wire format of protocol buffers: fields one after the other out of a message, and into one.
 *
 * Nothing is allocated and nothing is copied: parts point into the message, and what repeats is gone through where it lies. So a
 * message of a million empty points costs what its bytes cost, a NUL in a string is seen, and a refusal names the place of what is wrong.
 *
 * Pure; threads: any.
 */
#ifndef KITHI_GATEWAY_GRPC_WIRE_H
#define KITHI_GATEWAY_GRPC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/gateway/floats.h"
#include "server/gateway/http.h"
#include "server/gateway/refusal.h"
#include "server/gateway/text.h"

enum kithi_wire_type {
    KITHI_WIRE_VARINT = 0,
    KITHI_WIRE_FIXED64 = 1,
    KITHI_WIRE_BYTES = 2,
    KITHI_WIRE_FIXED32 = 5
};

struct kithi_wire_field {
    uint32_t number;
    enum kithi_wire_type type;
    uint64_t value;          /* of VARINT, and the bits of FIXED64 and FIXED32 */
    struct kithi_part bytes; /* of BYTES; at is never NULL there */
};

/* Take the next field off the front of rest. 1; 0: there is none; -1: this is no message (groups are none, either). */
int kithi_wire_next(struct kithi_part *rest, struct kithi_wire_field *out);

/*
 * The next field with this number off the front of rest, of a message that kithi_wire_read() has found good: to go through what repeats.
 * False: there is none.
 */
bool kithi_wire_each(struct kithi_part *rest, uint32_t number, struct kithi_wire_field *out);

/* What a field is read as, and the type that it has at its offset. */
enum kithi_wire_kind {
    KITHI_WIRE_STRING, /* struct kithi_part; UTF-8 without a NUL */
    KITHI_WIRE_OCTETS, /* struct kithi_part */
    KITHI_WIRE_BOOL,   /* bool */
    KITHI_WIRE_INT32,  /* int32_t; also of enums */
    KITHI_WIRE_UINT64, /* uint64_t */
    KITHI_WIRE_DOUBLE, /* struct kithi_wire_double */
    KITHI_WIRE_FLOATS, /* size_t: how many float there are, packed or one by one */
    KITHI_WIRE_LIST,   /* size_t: how many messages or strings there are */
};

struct kithi_wire_double {
    bool given;
    double value;
};

struct kithi_wire_member {
    uint32_t number;
    enum kithi_wire_kind kind;
    size_t offset;
    const char *name;
};

/*
 * Read a message into out, which is zeros before. A member that comes twice has its last value; numbers that are not in the list are
 * passed over, as newer clients may have them. False: refused, with where (as "points[3]"; "" at the top) as the place.
 */
bool kithi_wire_read(struct kithi_part message, const struct kithi_wire_member *members, unsigned count,
                     const char *where, void *out, struct kithi_refusal *refusal);

/* Append the floats of that field, in their order. Their number, -ENOMEM or -EDQUOT. */
long kithi_wire_floats(struct kithi_part message, uint32_t number, struct kithi_floats *out);

/* Writing. What has its default value is left out, as proto3 has it; out may fail. */
void kithi_wire_put_varint(struct kithi_text *out, uint64_t value);
void kithi_wire_put_uint(struct kithi_text *out, uint32_t number, uint64_t value);
void kithi_wire_put_bytes(struct kithi_text *out, uint32_t number, const void *bytes, size_t len);
void kithi_wire_put_string(struct kithi_text *out, uint32_t number, const char *text);
void kithi_wire_put_float(struct kithi_text *out, uint32_t number, float value);
/* Also when it is 0: for members of a oneof. */
void kithi_wire_put_double(struct kithi_text *out, uint32_t number, double value);
void kithi_wire_put_uint_always(struct kithi_text *out, uint32_t number, uint64_t value);
/* Packed. */
void kithi_wire_put_floats(struct kithi_text *out, uint32_t number, const float *values, size_t n);
/* Also when it is empty: for what repeats. */
void kithi_wire_put_item(struct kithi_text *out, uint32_t number, const void *bytes, size_t len);

/* A message within: open, put its members, close with what open returned. */
size_t kithi_wire_open(struct kithi_text *out, uint32_t number);
void kithi_wire_close(struct kithi_text *out, size_t opened);

#endif
