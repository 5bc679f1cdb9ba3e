/*
 * compiler.h - the few compiler facts that the rest of the tree needs.
 *
 * Owns: visibility, branch hints, prefetch, and the switch between plain and
 * atomic reads of slot bytes. Leaves words that processes share to <stdatomic.h>.
 */
#ifndef KITHI_BASE_COMPILER_H
#define KITHI_BASE_COMPILER_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KITHI_LIKELY(x)         __builtin_expect(!!(x), 1)
#define KITHI_UNLIKELY(x)       __builtin_expect(!!(x), 0)
#define KITHI_PREFETCH(p)       __builtin_prefetch((p), 0, 3)
#define KITHI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define KITHI_CACHE_LINE        64u

/* ThreadSanitizer does not understand fences, so its builds move slot bytes by
 * relaxed atomics (shm/sync/slotbytes.h) and need no suppressions. */
#if defined(__SANITIZE_THREAD__)
#define KITHI_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KITHI_TSAN 1
#endif
#endif
#ifndef KITHI_TSAN
#define KITHI_TSAN 0
#endif

/* Words that two processes share are lock-free or the protocol does not exist. */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "shared words must be lock-free");
_Static_assert(sizeof(_Atomic uint32_t) == 4 && sizeof(_Atomic uint64_t) == 8,
               "shared words have no padding");

#endif
