/*
 * lock.c - see lock_priv.h.
 *
 *   FREE --take--> HELD (process) --a second thread comes--> HELD + WAITED --unlock wakes one--> FREE
 *                    |
 *                    +-- in a forked child, the process is another one: taken over at once
 */
#include "client/src/lock_priv.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAITED (UINT32_C(1) << 31) /* process ids are below 2^22 */

/* One attempt, leaving `bits` in the word on success; otherwise what was there. */
static bool take(struct kithi_lock *l, uint32_t bits, uint32_t *out_seen)
{
    uint32_t self = bits & ~WAITED, seen = 0;
    for (;;) {
        if (atomic_compare_exchange_weak_explicit(&l->word, &seen, bits, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
        if (seen != 0 && (seen & ~WAITED) == self)
            break;
    }
    *out_seen = seen;
    return false;
}

bool kithi_lock_try(struct kithi_lock *l)
{
    uint32_t seen;
    return take(l, (uint32_t)getpid(), &seen);
}

void kithi_lock(struct kithi_lock *l)
{
    uint32_t self = (uint32_t)getpid(), bits = self, seen;
    while (!take(l, bits, &seen)) {
        /* Once it has slept, a thread cannot know whether others do: it takes the lock as waited for. */
        bits = self | WAITED;
        if (seen != bits && !atomic_compare_exchange_strong_explicit(
                                &l->word, &seen, bits, memory_order_relaxed, memory_order_relaxed))
            continue;
        syscall(SYS_futex, &l->word, FUTEX_WAIT_PRIVATE, bits, NULL, NULL, 0);
    }
}

void kithi_unlock(struct kithi_lock *l)
{
    if (atomic_exchange_explicit(&l->word, 0, memory_order_release) & WAITED)
        syscall(SYS_futex, &l->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
