/*
 * slotbytes.h - moving the bytes of a slot (vector, long id, payload) that a reader may be reading.
 *
 * Such bytes may change under the copy; the birth check ([P2 birth]) decides afterwards
 * whether the copy counts. Ordinary builds move them plainly: the copy is private and is used
 * only after the check. Builds for ThreadSanitizer move them by relaxed atomics, which says
 * the same thing to the tool.
 */
#ifndef KITHI_SYNC_SLOTBYTES_H
#define KITHI_SYNC_SLOTBYTES_H

#include <string.h>

#include "shm/base/compiler.h"

/* len bytes out of a slot. */
static inline void kithi_slot_load(void *dst, const void *src, size_t len)
{
#if KITHI_TSAN
    unsigned char *d = dst;
    const _Atomic unsigned char *s = src;
    for (size_t i = 0; i < len; i++)
        d[i] = atomic_load_explicit(&s[i], memory_order_relaxed);
#else
    memcpy(dst, src, len);
#endif
}

/* As memcmp(): len bytes of our own against those of a slot. */
static inline int kithi_slot_compare(const void *own, const void *src, size_t len)
{
#if KITHI_TSAN
    const unsigned char *o = own;
    const _Atomic unsigned char *s = src;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = atomic_load_explicit(&s[i], memory_order_relaxed);
        if (o[i] != c)
            return o[i] < c ? -1 : 1;
    }
    return 0;
#else
    return memcmp(own, src, len);
#endif
}

/* len bytes into a slot whose birth is 0. */
static inline void kithi_slot_store(void *dst, const void *src, size_t len)
{
#if KITHI_TSAN
    _Atomic unsigned char *d = dst;
    const unsigned char *s = src;
    for (size_t i = 0; i < len; i++)
        atomic_store_explicit(&d[i], s[i], memory_order_relaxed);
#else
    memcpy(dst, src, len);
#endif
}

#endif
