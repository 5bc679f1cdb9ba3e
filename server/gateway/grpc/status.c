/*
 * status.c - see status.h.
 */
#include "server/gateway/grpc/status.h"

#include <string.h>

const char *kithi_grpc_code_name(unsigned code)
{
    static const char *const names[KITHI_GRPC_CODES] = {
        "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED"
    };
    return code < KITHI_GRPC_CODES ? names[code] : "UNKNOWN";
}

enum kithi_grpc_code kithi_grpc_code_of(const struct kithi_refusal *refusal)
{
    /* By its code where the status says too little, else by the status. */
    static const struct {
        const char *code;
        enum kithi_grpc_code grpc;
    } codes[] = {
        { "unimplemented", KITHI_GRPC_UNIMPLEMENTED },
        { "compressed", KITHI_GRPC_INTERNAL },
        { "exists", KITHI_GRPC_ALREADY_EXISTS },
        { "answer_too_large", KITHI_GRPC_RESOURCE_EXHAUSTED },
        { "out_of_memory", KITHI_GRPC_RESOURCE_EXHAUSTED },
        { "busy", KITHI_GRPC_RESOURCE_EXHAUSTED },
    };
    static const struct {
        int status;
        enum kithi_grpc_code grpc;
    } statuses[] = {
        { 0, KITHI_GRPC_OK },
        { 400, KITHI_GRPC_INVALID_ARGUMENT },
        { 401, KITHI_GRPC_UNAUTHENTICATED },
        { 403, KITHI_GRPC_PERMISSION_DENIED },
        { 404, KITHI_GRPC_NOT_FOUND },
        { 408, KITHI_GRPC_DEADLINE_EXCEEDED },
        { 409, KITHI_GRPC_FAILED_PRECONDITION },
        { 413, KITHI_GRPC_RESOURCE_EXHAUSTED },
        { 422, KITHI_GRPC_INVALID_ARGUMENT },
        { 429, KITHI_GRPC_RESOURCE_EXHAUSTED },
        { 431, KITHI_GRPC_RESOURCE_EXHAUSTED },
        { 499, KITHI_GRPC_CANCELLED },
        { 503, KITHI_GRPC_UNAVAILABLE },
        { 504, KITHI_GRPC_DEADLINE_EXCEEDED },
        { 507, KITHI_GRPC_RESOURCE_EXHAUSTED },
    };
    if (refusal->status == 409 && !strcmp(refusal->code, "busy")) {
        return KITHI_GRPC_ABORTED; /* another change of the collection is under way */
    }
    if (refusal->status == 503 && refusal->outcome != KITHI_OUTCOME_NOTHING) {
        return KITHI_GRPC_UNKNOWN;
    }
    for (unsigned i = 0; refusal->status && i < sizeof codes / sizeof codes[0]; i++) {
        if (!strcmp(codes[i].code, refusal->code)) {
            return codes[i].grpc;
        }
    }
    for (unsigned i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        if (statuses[i].status == refusal->status) {
            return statuses[i].grpc;
        }
    }
    return KITHI_GRPC_INTERNAL;
}

size_t kithi_grpc_message(const char *text, char *out)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p && n + 3 < KITHI_GRPC_MESSAGE_MAX; p++) {
        if (*p >= 0x20 && *p < 0x7f && *p != '%') {
            out[n++] = (char)*p;
        } else {
            out[n++] = '%';
            out[n++] = hex[*p >> 4];
            out[n++] = hex[*p & 15];
        }
    }
    return n;
}

bool kithi_grpc_timeout(struct kithi_part text, uint64_t *out_ns)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = { { 'n', 1 },           { 'u', 1000 },         { 'm', 1000000 },
                  { 'S', 1000000000u }, { 'M', 60000000000u }, { 'H', 3600000000000u } };
    uint64_t value = 0;
    if (text.len < 2 || text.len > 9) { /* 1 to 8 digits and a unit */
        return false;
    }
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(text.at[i] - '0');
    }
    for (unsigned i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (units[i].unit == text.at[text.len - 1]) {
            *out_ns = value > UINT64_MAX / 2 / units[i].ns ? UINT64_MAX / 2 : value * units[i].ns;
            return true;
        }
    }
    return false;
}
