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

/* Keys. Of numbers: they rise where the numbers do; numbers that are not a double may share one with their neighbours. */
uint64_t kithi_term_string(const uint8_t hash_key[16], const void *bytes, size_t len);
uint64_t kithi_term_integer(int64_t v);
uint64_t kithi_term_number(double v);

#endif
