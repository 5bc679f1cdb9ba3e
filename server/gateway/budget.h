/*
 * budget.h - memory that many requests share: so many bytes at a time, and whoever comes too late is told so.
 *
 * Threads: take and give from any.
 */
#ifndef KITHI_GATEWAY_BUDGET_H
#define KITHI_GATEWAY_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct kithi_budget {
    _Atomic size_t used;
    size_t max;
};

/* False, and nothing taken, when the sum would be more than max. Relaxed: a count, which orders nothing else. */
static inline bool kithi_budget_take(struct kithi_budget *b, size_t bytes)
{
    size_t used = atomic_fetch_add_explicit(&b->used, bytes, memory_order_relaxed);
    if (bytes <= b->max && used <= b->max - bytes) {
        return true;
    }
    atomic_fetch_sub_explicit(&b->used, bytes, memory_order_relaxed);
    return false;
}

static inline void kithi_budget_give(struct kithi_budget *b, size_t bytes)
{
    atomic_fetch_sub_explicit(&b->used, bytes, memory_order_relaxed);
}

static inline size_t kithi_budget_used(const struct kithi_budget *b)
{
    return atomic_load_explicit(&b->used, memory_order_relaxed);
}

#endif
