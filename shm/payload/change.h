/*
 * change.h - a payload out of others: merged, without a field, with some fields only. What goes in was checked
 * (kithi_payload_check()); what comes out would pass.
 */
#ifndef KITHI_PAYLOAD_CHANGE_H
#define KITHI_PAYLOAD_CHANGE_H

#include "shm/payload/payload.h"

#define KITHI_PAYLOAD_FIELDS_MAX 64u

/*
 * A JSON merge patch (RFC 7396): members of the patch take the place of those of base, null takes them away, and objects are
 * merged member by member. Returns the bytes in out, or KITHI_E_PAYLOAD: it would be larger than a payload may be. base and patch
 * are not out.
 */
int kithi_payload_merge(const struct kithi_payload *base, const struct kithi_payload *patch,
                        unsigned char out[KITHI_PAYLOAD_MAX]);

/* A field that is asked for, or is to go: a dotted path. */
struct kithi_payload_field {
    const char *path;
    size_t len;
};

/*
 * base without those fields, in one pass; objects that hold nothing then stay, and fields that are not there stay so. count is at most
 * KITHI_PAYLOAD_FIELDS_MAX. Returns the bytes in out: as many as base's only where there is no such field.
 */
int kithi_payload_delete(const struct kithi_payload *base, const struct kithi_payload_field *fields,
                         uint32_t count, unsigned char out[KITHI_PAYLOAD_MAX]);

/* Those fields of base and nothing else, each where it was. count is at most KITHI_PAYLOAD_FIELDS_MAX. Returns the bytes in out. */
int kithi_payload_pick(const struct kithi_payload *base, const struct kithi_payload_field *fields,
                       uint32_t count, unsigned char out[KITHI_PAYLOAD_MAX]);

#endif
