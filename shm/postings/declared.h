/*
 * declared.h - which fields of payloads a collection has postings of, and what their values are: as a text, and read.
 *
 *     auto                           every field that a payload has, values of any type: up to 64 of them
 *     none                           no field
 *     lang:keyword, "my key".chars:integer      these fields, and no other
 *
 *     keyword   strings              = != in, exists; < <= > >= and prefix by the first five bytes
 *     integer   whole numbers        = != in, < <= > >=, exists
 *     number    numbers of any kind, likewise; `float` is another word for it
 *     bool      true and false       = != in, exists; `boolean` is another word for it
 *
 * An array has the type of its elements. A value of another type than its field was declared with is kept, and not found by what it is: all
 * such payloads of a field are one set, which every condition on it looks at. So what comes out of a filter does not depend on the declaration.
 */
#ifndef KITHI_POSTINGS_DECLARED_H
#define KITHI_POSTINGS_DECLARED_H

#include "shm/base/error.h"
#include "shm/layout/postings.h"

/* Bytes of a text, so that it fits everywhere where one is kept: a request, a configuration, the header of a back-up. */
#define KITHI_DECLARED_TEXT_MAX 2047u

struct kithi_declared_field {
    uint32_t path_len;
    enum kithi_declared_type type; /* not ANY */
    char path[KITHI_POSTINGS_PATH];
};

struct kithi_declared {
    bool automatic; /* nothing was declared: count is 0 */
    uint32_t count; /* 0, where something was: there are no postings */
    struct kithi_declared_field fields[KITHI_POSTINGS_FIELDS];
};

/*
 * Read a text; an empty one is auto. 0, or KITHI_E_PARAMETER with what is wrong with it. Whatever stands around the items and the colons in spaces is
 * passed over.
 */
int kithi_declared_read(const char *text, struct kithi_declared *out, struct kithi_errmsg *err);

/* The text of it, always the same for the same fields in the same order; false: it would be longer than KITHI_DECLARED_TEXT_MAX. */
bool kithi_declared_print(const struct kithi_declared *d, char out[KITHI_DECLARED_TEXT_MAX + 1]);

/* "keyword", "integer", "number", "bool", or "any". */
const char *kithi_declared_type_name(uint32_t type);

#endif
