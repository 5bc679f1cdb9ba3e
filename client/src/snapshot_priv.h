/*
 * snapshot_priv.h - the caller's snapshot, as shm/graph takes it.
 */
#ifndef KITHI_CLIENT_SNAPSHOT_PRIV_H
#define KITHI_CLIENT_SNAPSHOT_PRIV_H

#include "client/src/handle_priv.h"
#include "shm/graph/view.h"

/* at may be NULL: now. */
static inline struct kithi_moment kithi_moment_of(const struct kith_snapshot *at)
{
    return at ? (struct kithi_moment){ .epoch = at->epoch, .timeline = at->timeline }
              : (struct kithi_moment){ 0 };
}

#endif
