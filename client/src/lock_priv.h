/*
 * lock_priv.h - a lock that survives a fork, for the rare paths of a handle: writing and
 * attaching again. Searches take none.
 *
 * A child inherits memory as some other thread of its parent left it, maybe in the middle of
 * a critical section, and that thread does not exist in the child. So the word holds the
 * process that owns the lock, and a child takes over what only its parent can have held. What
 * the lock protects is therefore kept usable at every store.
 */
#ifndef KITHI_CLIENT_LOCK_PRIV_H
#define KITHI_CLIENT_LOCK_PRIV_H

#include "shm/base/compiler.h"

struct kithi_lock {
    _Atomic uint32_t word; /* 0: free; else the owner's process, with bit 31 when somebody waits */
};

void kithi_lock(struct kithi_lock *l);
/* False when another thread of this process has it. */
bool kithi_lock_try(struct kithi_lock *l);
void kithi_unlock(struct kithi_lock *l);

#endif
