/*
 * assert.h - what to do when our own logic is wrong.
 *
 * KITHI_ASSERT stays in release builds of daemon and tools; it is for facts that only
 * our own code can break. It never looks at bytes from a file, the segment or a socket:
 * those are checked and lead to an error. Code in libkith uses KITHI_DEBUG_ASSERT only,
 * because the host process is not ours to abort.
 */
#ifndef KITHI_BASE_ASSERT_H
#define KITHI_BASE_ASSERT_H

#include <stdio.h>
#include <stdlib.h>

#define KITHI_ASSERT(x)                                                                                      \
    do {                                                                                                     \
        if (__builtin_expect(!(x), 0)) {                                                                     \
            fprintf(stderr, "%s:%d: assertion failed: %s\n", __FILE__, __LINE__, #x);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#ifdef NDEBUG
#define KITHI_DEBUG_ASSERT(x) ((void)sizeof(x))
#else
#define KITHI_DEBUG_ASSERT(x) KITHI_ASSERT(x)
#endif

#endif
