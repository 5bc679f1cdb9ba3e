/*
 * refusal.c - see refusal.h.
 */
#include "server/gateway/refusal.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <kith/kith.h>

int kithi_refuse(struct kithi_refusal *r, int status, const char *code, const char *where, const char *fmt,
                 ...)
{
    if (r->status) {
        return -1;
    }
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->message, sizeof r->message, fmt, args);
    va_end(args);
    r->status = status;
    r->code = code;
    r->retry_s = status == 429 || status == 503 ? 1 : 0;
    snprintf(r->where, sizeof r->where, "%s", where ? where : "");
    return -1;
}

static const struct {
    int rc, status;
    const char *code;
} list[] = {
    { KITH_E_NO_COLLECTION, 404, "no_collection" },
    { KITH_E_REPLACED, 404, "no_collection" },
    { KITH_E_NOT_FOUND, 404, "not_found" },
    { KITH_E_EXISTS, 409, "exists" },
    { KITH_E_STALE, 409, "stale" },
    { KITH_E_EPOCH, 409, "epoch_not_visible" },
    { -EBUSY, 409, "busy" },
    { KITH_E_BUSY, 409, "busy" },
    { KITH_E_NAME, 422, "name" },
    { KITH_E_ID, 422, "id" },
    { KITH_E_DIMENSION, 422, "dimension" },
    { KITH_E_NOT_FINITE, 422, "not_finite" },
    { KITH_E_ZERO_VECTOR, 422, "zero_vector" },
    { KITH_E_K, 422, "top_k" },
    { KITH_E_EF, 422, "ef_search" },
    { KITH_E_RECALL, 422, "target_recall" },
    { KITH_E_FILTER, 422, "filter" },
    { KITH_E_PAYLOAD, 422, "payload" },
    { KITH_E_CURSOR, 422, "cursor" },
    { KITH_E_PARAMETER, 422, "parameter" },
    { KITH_E_UNSUPPORTED, 422, "unsupported" },
    { -EINVAL, 422, "parameter" },
    { KITH_E_TOO_LARGE, 413, "too_large" },
    { KITH_E_DENIED, 403, "denied_by_kithd" },
    { -EACCES, 403, "denied_by_system" },
    { KITH_E_FULL, 507, "full" },
    { KITH_E_NO_SPACE, 507, "no_space" },
    { -ENOSPC, 507, "no_space" },
    { KITH_E_NO_DAEMON, 503, "no_daemon" },
    { KITH_E_STARTING, 503, "starting" },
    { KITH_E_SHUTDOWN, 503, "no_daemon" },
    { KITH_E_LOG_DAMAGED, 503, "log_damaged" },
    { KITH_E_RUN_DIR, 503, "run_dir" },
    { KITH_E_UNKNOWN_OUTCOME, 503, "outcome_unknown" },
    { KITH_E_LOG_FAILED, 503, "outcome_unknown" },
    { KITH_E_PROTOCOL, 503, "outcome_unknown" },
    { KITH_E_TIMEOUT, 504, "timeout" },
    { -EUSERS, 503, "busy" },
    { -EMFILE, 503, "busy" },
    { -ENFILE, 503, "busy" },
    { -ENOMEM, 503, "out_of_memory" },
};

int kithi_refuse_kith(struct kithi_refusal *r, int rc, const char *where, const char *text)
{
    int status = 500;
    const char *code = "internal";
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (list[i].rc == rc) {
            status = list[i].status;
            code = list[i].code;
        }
    }
    if (r->status) {
        return -1;
    }
    kithi_refuse(r, status, code, where, "%s", text && *text ? text : kith_strerror(rc));
    if (rc == KITH_E_UNKNOWN_OUTCOME || rc == KITH_E_LOG_FAILED || rc == KITH_E_PROTOCOL) {
        r->outcome = KITHI_OUTCOME_UNKNOWN;
    }
    return -1;
}

const char *kithi_outcome_name(enum kithi_outcome outcome)
{
    static const char *const names[] = { "nothing_done", "unknown", "partial" };
    return names[outcome];
}
