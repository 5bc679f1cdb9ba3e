/*
 * payload.h - a JSON object as bytes: what socket, log, checkpoint and segment hold of it, and reading in it.
 *
 *     0 +---------------------------+
 *       | u16 version (1)           |   little-endian; offsets are from the beginning of the payload, nothing is aligned
 *     2 | object                    |
 *       +---------------------------+   65536 bytes at most
 *
 *     object: u16 count, then count entries, by the bytes of their keys, then what they lead to, in the same order: each
 *             key, and behind it its value unless the entry holds it
 *     entry:  u16 key_off   u8 key_len   u8 type   u32 word
 *
 *     type       word                            behind the key
 *     1 null     0
 *     2 bool     0 or 1
 *     3 int32    the integer
 *     4 int64    u16 off, 0                      i64, beyond the range of int32
 *     5 double   u16 off, 0                      f64, finite
 *     6 string   u16 off, u16 bytes              UTF-8
 *     7 object   u16 off, 0                      object, as above
 *     8 strings  u16 off, u16 count              count u16: where each ends, from the first byte behind them; then the bytes
 *     9-12 ints  u16 off, u16 count              count integers of 1, 2, 4, 8 bytes: as few as hold the largest; an empty array is 9
 *
 * Whatever has an offset lies right behind what is before it, so one object has one form, equal objects have equal bytes,
 * and kithi_payload_check() is one pass. Keys are 1 to 255 bytes of UTF-8 without dots and NUL, so a dotted path names one field.
 *
 * kithi_payload_find() and what follows it read bytes that nobody has checked and that may change meanwhile, as those of a
 * segment do: every place is checked as it is used, every loop has a bound, and what comes out is used after the caller's birth
 * check. What writes a payload, or makes text of it (change.h, client/src/payload.h), wants bytes that kithi_payload_check() has passed, in
 * memory of its own.
 */
#ifndef KITHI_PAYLOAD_PAYLOAD_H
#define KITHI_PAYLOAD_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KITHI_PAYLOAD_VERSION   1u
#define KITHI_PAYLOAD_MAX       65536u
#define KITHI_PAYLOAD_KEY_MAX   255u
#define KITHI_PAYLOAD_DEPTH_MAX 16u /* objects inside each other, the payload itself among them */
#define KITHI_PAYLOAD_HEAD      2u
#define KITHI_PAYLOAD_EMPTY     4u /* bytes of {} */
#define KITHI_PAYLOAD_ENTRY     8u

enum kithi_payload_type {
    KITHI_PAYLOAD_NULL = 1,
    KITHI_PAYLOAD_BOOL = 2,
    KITHI_PAYLOAD_INT32 = 3,
    KITHI_PAYLOAD_INT64 = 4,
    KITHI_PAYLOAD_DOUBLE = 5,
    KITHI_PAYLOAD_STRING = 6,
    KITHI_PAYLOAD_OBJECT = 7,
    KITHI_PAYLOAD_STRINGS = 8,
    KITHI_PAYLOAD_INTS8 = 9,
    KITHI_PAYLOAD_INTS16 = 10,
    KITHI_PAYLOAD_INTS32 = 11,
    KITHI_PAYLOAD_INTS64 = 12,
};

/* Bytes that may belong to a slot. */
struct kithi_payload {
    const unsigned char *bytes;
    uint32_t len; /* at most KITHI_PAYLOAD_MAX */
};

/* A value as it was found. */
struct kithi_value {
    enum kithi_payload_type type; /* INT64 for either integer */
    int64_t integer;              /* of BOOL (0 or 1) and INT64 */
    double number;                /* of DOUBLE */
    uint32_t off; /* of STRING, OBJECT and arrays: where it begins; it is inside the payload */
    uint32_t len; /* bytes of a STRING, elements of an array, members of an OBJECT */
};

/*
 * Is it a payload, whole and in its one form? 0 or KITHI_E_PAYLOAD; *out_why (may be NULL) then says what is wrong. The bytes
 * do not change meanwhile.
 */
int kithi_payload_check(const void *bytes, size_t len, const char **out_why);

/* The field at a dotted path. False: there is none, or the bytes make no sense. */
bool kithi_payload_find(const struct kithi_payload *p, const char *path, size_t path_len,
                        struct kithi_value *out);

/* The payload itself, as a value of type OBJECT. */
bool kithi_payload_root(const struct kithi_payload *p, struct kithi_value *out);

/* Member i of an object. Its key, *out_key_len bytes, is copied out; out_key may be NULL. */
bool kithi_payload_member(const struct kithi_payload *p, const struct kithi_value *object, uint32_t i,
                          char out_key[KITHI_PAYLOAD_KEY_MAX], uint32_t *out_key_len,
                          struct kithi_value *out);

/* Element i of an array, as a value of type INT64 or STRING. */
bool kithi_payload_element(const struct kithi_payload *p, const struct kithi_value *array, uint32_t i,
                           struct kithi_value *out);

static inline bool kithi_payload_is_ints(enum kithi_payload_type type)
{
    return type >= KITHI_PAYLOAD_INTS8 && type <= KITHI_PAYLOAD_INTS64;
}

static inline bool kithi_payload_is_array(enum kithi_payload_type type)
{
    return type == KITHI_PAYLOAD_STRINGS || kithi_payload_is_ints(type);
}

/* What a value is, for people: "a string", "an array of integers". Never NULL. */
const char *kithi_payload_type_name(enum kithi_payload_type type);

/* A key by itself: 1 to 255 bytes of UTF-8, no dot, no NUL? NULL, or what is wrong. */
const char *kithi_payload_key_wrong(const char *key, size_t len);

/* A dotted path: keys with dots between them, as many as there may be levels? NULL, or what is wrong. */
const char *kithi_payload_path_wrong(const char *path, size_t len);

#endif
