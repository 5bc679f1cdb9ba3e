/*
 * payload.h - payloads for tests: out of JSON, and random ones.
 */
#ifndef KITH_TESTS_PAYLOAD_H
#define KITH_TESTS_PAYLOAD_H

#include "shm/payload/payload.h"
#include "tests/support/rand.h"

/* The payload that text says, on the heap in a copy of exactly its size; dies of a text that is none. */
struct kithi_payload test_payload(const char *text);
void test_payload_free(struct kithi_payload *p);

/* What a payload says, on the heap, NUL-terminated. */
char *test_payload_text(const struct kithi_payload *p);

/* A random object, as JSON, NUL-terminated: keys are few, so that two of them have some in common. depth 0: no object inside. */
void test_payload_random(struct test_rand *r, uint32_t depth, char *out, size_t cap);

#endif
