/*
 * terms.h - what a payload is found by: a path, a kind and a key for each of its values.
 *
 * The writer makes postings of them, filters ask for them, and kith verify compares the two.
 */
#ifndef KITHI_POSTINGS_TERMS_H
#define KITHI_POSTINGS_TERMS_H

#include "shm/layout/postings.h"
#include "shm/payload/payload.h"

/* Elements of an array that have a term each; a longer array has the one that says so. */
#define KITHI_TERMS_ELEMENTS 64u

struct kithi_term {
    const char *path; /* of the caller's payload, until the function returns */
    uint32_t path_len;
    enum kithi_term_kind kind;
    enum kithi_payload_type
        type; /* of the value, or of the element; of an array that has no elements, or too many, its own */
    uint64_t key;
};

/* False: no more of them. */
typedef bool kithi_term_fn(void *arg, const struct kithi_term *t);

/*
 * Each term of a payload, those of an array perhaps more than once. null has none; an object has one, and so do its members. Bytes that
 * kithi_payload_check() would not pass have some terms or none, and no more than a payload can have.
 */
void kithi_terms_each(const struct kithi_payload *p, const uint8_t hash_key[16], kithi_term_fn *fn,
                      void *arg);

/* What the term of a field is that was declared with a type: what it was, or the one of all misfits. */
void kithi_term_fit(struct kithi_term *t, enum kithi_declared_type type);

/*
 * Keys. Of numbers: they rise where the numbers do; numbers that are not a double may share one with their neighbours. Of strings: the first
 * five bytes, then their number, or, of those that have more, a hash that is above these. So keys never fall where strings rise but among those that have
 * more and begin alike, and a string of up to five bytes has its key for itself.
 */
#define KITHI_TERM_HEAD 5u /* bytes */
uint64_t kithi_term_string(const uint8_t hash_key[16], const void *bytes, size_t len);
/* The lowest and the highest key that a longer string with the same head may have. */
uint64_t kithi_term_string_low(const void *bytes, size_t len);
uint64_t kithi_term_string_high(const void *bytes, size_t len);
/* The highest of those that begin with these bytes. */
uint64_t kithi_term_prefix_high(const void *bytes, size_t len);
uint64_t kithi_term_integer(int64_t v);
uint64_t kithi_term_number(double v);

#endif
