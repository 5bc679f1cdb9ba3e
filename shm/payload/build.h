/*
 * build.h - putting a payload together, front to back, in memory of one's own.
 *
 *     kithi_payload_begin(&b, bytes);
 *     at = kithi_payload_put_object(&b, 2);
 *     kithi_payload_put_key(&b, at, 0, "a", 1);  kithi_payload_put_int(&b, at, 0, 5);
 *     kithi_payload_put_key(&b, at, 1, "b", 1);  kithi_payload_put_string(&b, at, 1, "x", 1);
 *     len = kithi_payload_end(&b);
 *
 * Members come by the bytes of their keys, each key with its value right behind it: what payload.h asks for. Whoever calls
 * sees to that, and to keys that are keys. What has no room is remembered, and told at the end.
 */
#ifndef KITHI_PAYLOAD_BUILD_H
#define KITHI_PAYLOAD_BUILD_H

#include "shm/payload/payload.h"

struct kithi_payload_build {
    unsigned char *bytes; /* KITHI_PAYLOAD_MAX of them */
    uint32_t len;
    bool full; /* something had no room */
};

/* Of the strings of an array: text of each, one after the other. */
struct kithi_payload_text {
    const char *text;
    size_t len;
};

void kithi_payload_begin(struct kithi_payload_build *b, unsigned char bytes[KITHI_PAYLOAD_MAX]);
/* Bytes of the payload, or KITHI_E_PAYLOAD: there is no room for it. */
int kithi_payload_end(const struct kithi_payload_build *b);

/* An object of count members begins here: the first at the beginning, others as values. Returns what names it below. */
uint32_t kithi_payload_put_object(struct kithi_payload_build *b, uint32_t count);

/* The key of member i of the object, then its value. */
void kithi_payload_put_key(struct kithi_payload_build *b, uint32_t object, uint32_t i, const char *key,
                           size_t len);
void kithi_payload_put_null(struct kithi_payload_build *b, uint32_t object, uint32_t i);
void kithi_payload_put_bool(struct kithi_payload_build *b, uint32_t object, uint32_t i, bool truth);
void kithi_payload_put_int(struct kithi_payload_build *b, uint32_t object, uint32_t i, int64_t v);
void kithi_payload_put_double(struct kithi_payload_build *b, uint32_t object, uint32_t i, double v);
void kithi_payload_put_string(struct kithi_payload_build *b, uint32_t object, uint32_t i, const char *text,
                              size_t len);
void kithi_payload_put_ints(struct kithi_payload_build *b, uint32_t object, uint32_t i, const int64_t *v,
                            size_t count);
void kithi_payload_put_strings(struct kithi_payload_build *b, uint32_t object, uint32_t i,
                               const struct kithi_payload_text *v, size_t count);
/* An object as a value; returns what names it. */
uint32_t kithi_payload_put_inner(struct kithi_payload_build *b, uint32_t object, uint32_t i, uint32_t count);
/* What another payload, which was checked, has there: an array or an object with all it holds, or anything else. */
void kithi_payload_put_value(struct kithi_payload_build *b, uint32_t object, uint32_t i,
                             const struct kithi_payload *from, const struct kithi_value *v);

#endif
