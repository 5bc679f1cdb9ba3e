/*
 * payloads_priv.h - payloads beside hits: which of their fields are asked for, and copying them out.
 */
#ifndef KITHI_CLIENT_PAYLOADS_PRIV_H
#define KITHI_CLIENT_PAYLOADS_PRIV_H

#include <errno.h>

#include "client/src/handle_priv.h"
#include "client/src/results_priv.h"
#include "shm/graph/search.h"
#include "shm/payload/change.h"

/* What is asked for. */
struct kithi_fields {
    bool wanted;
    uint32_t count; /* 0: all */
    struct kithi_payload_field fields[KITHI_PAYLOAD_FIELDS_MAX];
};

/* By an options struct's members. 0, -EINVAL, KITH_E_PARAMETER (too many), KITH_E_PAYLOAD (a path that is none). Paths stay the caller's. */
int kithi_fields_of(uint32_t payloads, uint32_t count, const char *const *paths, struct kithi_fields *out);

/*
 * The payloads of the hits that out->found has of the call's segment, as the epoch of its stats saw them. 0; -EAGAIN: what the hits were found
 * with has been overtaken, they are to be found again; KITH_E_CORRUPT, -ENOMEM. Does nothing where none are wanted.
 */
int kithi_payloads_take(struct kithi_call *c, const struct kithi_fields *fields, kith_results *out);

/*
 * For the loops that find: after hits were found with rc, which is an error or their number, take payloads for them. Returns rc, or the error; -EAGAIN
 * so often that *tries, 0 at first, allows it, then KITH_E_STALE.
 */
static inline int kithi_payloads_or(int rc, struct kithi_call *c, const struct kithi_fields *fields,
                                    uint32_t *tries, kith_results *out)
{
    int taken = rc < 0 ? 0 : kithi_payloads_take(c, fields, out);
    if (taken == -EAGAIN && (*tries)++ >= KITHI_RESTART_MAX)
        return KITHI_E_STALE;
    return taken < 0 ? taken : rc;
}

#endif
