/*
 * snapshot.c - a moment to read at: taken here, and said to shm/graph by search.c, read.c and scroll.c. Why it holds nothing and
 * still tells the truth is in PROTOCOL.md, "A moment that is read again".
 */
#include "client/src/snapshot_priv.h"

#include <errno.h>

int kith_snapshot(kith *index, struct kith_snapshot *out)
{
    struct kithi_call *c;
    if (!index || !out)
        return -EINVAL;
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    const struct kithi_header *h = kithi_call_header(c);
    /* [P1 commit] acquire: who sees this epoch sees what was committed with it. The timeline stays while the segment has its name. */
    out->epoch = atomic_load_explicit(&h->epoch, memory_order_acquire);
    out->timeline = atomic_load_explicit(&h->timeline, memory_order_relaxed);
    kithi_call_end(index, c);
    return 0;
}
