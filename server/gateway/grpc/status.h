/*
 * status.h - how a call of gRPC ends: its codes, what they are of a refusal, and the headers with times and sentences.
 *
 * Pure; threads: any.
 */
#ifndef KITHI_GATEWAY_GRPC_STATUS_H
#define KITHI_GATEWAY_GRPC_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/gateway/http.h"
#include "server/gateway/refusal.h"

enum kithi_grpc_code {
    KITHI_GRPC_OK = 0,
    KITHI_GRPC_CANCELLED = 1,
    KITHI_GRPC_UNKNOWN = 2,
    KITHI_GRPC_INVALID_ARGUMENT = 3,
    KITHI_GRPC_DEADLINE_EXCEEDED = 4,
    KITHI_GRPC_NOT_FOUND = 5,
    KITHI_GRPC_ALREADY_EXISTS = 6,
    KITHI_GRPC_PERMISSION_DENIED = 7,
    KITHI_GRPC_RESOURCE_EXHAUSTED = 8,
    KITHI_GRPC_FAILED_PRECONDITION = 9,
    KITHI_GRPC_ABORTED = 10,
    KITHI_GRPC_UNIMPLEMENTED = 12,
    KITHI_GRPC_INTERNAL = 13,
    KITHI_GRPC_UNAVAILABLE = 14,
    KITHI_GRPC_UNAUTHENTICATED = 16,
    KITHI_GRPC_CODES = 17
};

/* "NOT_FOUND" */
const char *kithi_grpc_code_name(unsigned code);

/*
 * The code of a refusal; of none: OK. What may have been done and what was not are told apart: UNAVAILABLE and RESOURCE_EXHAUSTED are of
 * calls that did nothing, an outcome that nobody knows is UNKNOWN, or DEADLINE_EXCEEDED.
 */
enum kithi_grpc_code kithi_grpc_code_of(const struct kithi_refusal *refusal);

#define KITHI_GRPC_MESSAGE_MAX (3 * sizeof(((struct kithi_refusal *)0)->message))
/* A sentence as grpc-message has it, percent-encoded. out has KITHI_GRPC_MESSAGE_MAX bytes. Returns the length. */
size_t kithi_grpc_message(const char *text, char *out);

/* grpc-timeout, "250m", in nanoseconds. False: it is none. */
bool kithi_grpc_timeout(struct kithi_part text, uint64_t *out_ns);

#endif
