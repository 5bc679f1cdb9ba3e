/*
 * wait.c - sleeping until an epoch is visible, or durable.
 *
 * [P1 commit] The writer stores the epoch, then bumps `wake`, then wakes its waiters. A waiter
 * loads `wake`, then the epoch, and sleeps only while `wake` is still what it loaded: a commit in
 * between makes the kernel refuse the sleep. [P12 durable] is the same with the durable epoch. The futex is in a mapping that this side cannot write.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client/src/handle_priv.h"

/* The longest sleep while the segment is marked moved and its successor is not there: nobody
 * bumps the old segment's `wake` when it comes. */
#define MOVED_SLEEP_NS UINT64_C(20000000)
/* Otherwise. Nobody bumps the `wake` of a file that was removed, either: look whether it is still the one. */
#define SLICE_NS UINT64_C(100000000)

/* Sleep while *w is seen, at most ns. Waking early is no harm. */
static void sleep_on(const _Atomic uint32_t *w, uint32_t seen, uint64_t ns)
{
    struct timespec t = { .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
    syscall(SYS_futex, w, FUTEX_WAIT, seen, &t, NULL, 0);
}

/* [P12 durable] acquire: who sees that it is durable sees it, too. Other half: kithi_index_set_durable(). Groups that are durable
 * before they are visible have their durable epoch stored first: that counts with the visible one. */
static uint64_t durable(const struct kithi_header *h)
{
    uint64_t durable_epoch = atomic_load_explicit(&h->durable_epoch, memory_order_acquire);
    uint64_t epoch = atomic_load_explicit(&h->epoch, memory_order_acquire);
    return durable_epoch < epoch ? durable_epoch : epoch;
}

uint64_t kithi_handle_durable(struct kith *index, uint64_t *out_epoch)
{
    struct kithi_call *c;
    uint64_t durable_epoch = 0;
    *out_epoch = 0;
    if (kithi_call_begin(index, &c) == 0) {
        durable_epoch = durable(kithi_call_header(c));
        /* [P1 commit] acquire: who sees this epoch sees what was committed with it. Loaded second: never the lower one of both. */
        *out_epoch = atomic_load_explicit(&kithi_call_header(c)->epoch, memory_order_acquire);
        kithi_call_end(index, c);
    }
    return durable_epoch;
}

static int wait_for(kith *index, uint64_t epoch, bool on_disk, int timeout_ms)
{
    if (!index)
        return -EINVAL;
    uint64_t end = timeout_ms < 0 ? UINT64_MAX : kithi_now_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        struct kithi_call *c;
        int rc = kithi_call_begin(index, &c);
        if (rc < 0)
            return rc;
        const struct kithi_header *h = kithi_call_header(c);
        uint32_t seen = atomic_load_explicit(&h->wake, memory_order_acquire);
        if ((on_disk ? durable(h) : atomic_load_explicit(&h->epoch, memory_order_acquire)) >= epoch) {
            kithi_call_end(index, c);
            return 0;
        }
        uint64_t now = kithi_now_ns();
        if (now < end) {
            /* `moved` and `dropped` are stored before the bump that goes with them, too. */
            bool moved = atomic_load_explicit(&h->moved, memory_order_acquire);
            bool dropped = atomic_load_explicit(&h->dropped, memory_order_acquire);
            uint64_t slice = moved ? MOVED_SLEEP_NS : SLICE_NS;
            if (!dropped)
                sleep_on(&h->wake, seen, end - now < slice ? end - now : slice);
        }
        bool quiet = atomic_load_explicit(&h->wake, memory_order_relaxed) == seen;
        bool changed = quiet && kithi_call_recheck(index, c);
        kithi_call_end(index, c);
        if (now >= end && !changed)
            return KITHI_E_TIMEOUT;
    }
}

int kith_wait_epoch(kith *index, uint64_t epoch, int timeout_ms)
{
    return wait_for(index, epoch, false, timeout_ms);
}

int kith_wait_durable(kith *index, uint64_t epoch, int timeout_ms)
{
    return wait_for(index, epoch, true, timeout_ms);
}
