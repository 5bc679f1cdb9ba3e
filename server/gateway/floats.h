/*
 * floats.h - the vectors of a JSON body, read in one pass, and the body without them.
 *
 * Numbers as text are most of such a body, and a general reader takes fifty times as long for them as this one. Where a member named
 * "vector", so many levels deep as the call has its vectors, is an array of numbers, they become floats here and the body that is left has
 * [N] in its place, N counting from 0. What is left is for the strict reader (body.h), which finds whatever else may be wrong; this one
 * refuses what it reads itself: numbers that JSON does not have, nesting deeper than 64, and, at that level, names that
 * are written with escapes, so that nothing else can pass for [N].
 *
 * Pure; threads: any.
 */
#ifndef KITHI_GATEWAY_FLOATS_H
#define KITHI_GATEWAY_FLOATS_H

#include <stddef.h>
#include <stdint.h>

#include "server/gateway/text.h"

#define KITHI_JSON_DEPTH 64u

/* A vector of the body, in values. */
struct kithi_vector {
    size_t first, len;
};

struct kithi_floats {
    float *values;
    size_t count, capacity;
    struct kithi_vector *vectors;
    size_t vector_count, vector_capacity;
    struct kithi_budget *budget; /* what values and vectors take; NULL: none */

    const char *why; /* of a refusal: a sentence, constant */
    size_t at;       /* and where, in bytes of the body */
};

void kithi_floats_init(struct kithi_floats *f, struct kithi_budget *budget);
void kithi_floats_fini(struct kithi_floats *f);

/* The body text, text[len] is 0; depth: the levels around "vector", 1 in {"vector": ...}, 3 in {"points": [{"vector": ...}]}. out gets the body without vectors; its failures are the caller's to look at. 0, -EINVAL with why and at, -ENOMEM,
 * or -EDQUOT. */
int kithi_floats_lift(struct kithi_floats *f, const char *text, size_t len, unsigned depth,
                      struct kithi_text *out);

/* Base64 (RFC 4648, with padding) of little-endian float32. The number of floats, -EINVAL, -ENOMEM or -EDQUOT. */
long kithi_floats_base64(struct kithi_floats *f, const char *text, size_t len);

/* The same of the bytes themselves. */
long kithi_floats_bytes(struct kithi_floats *f, const void *bytes, size_t len);

#endif
