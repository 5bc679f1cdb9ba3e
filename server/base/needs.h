/*
 * needs.h - what kithd needs of the machine, in figures.
 *
 * They stand together because kith doctor compares them with what is there, and is to tell of the same figures as
 * kithd goes by.
 */
#ifndef KITHI_SERVER_NEEDS_H
#define KITHI_SERVER_NEEDS_H

#include <stdint.h>

#include "shm/base/reserve.h"

/* Of the run directory's file system so much is left free. */
static inline uint64_t kithi_need_reserve(uint64_t fs_bytes)
{
    return kithi_reserve_bytes(fs_bytes);
}

#define KITHI_NEED_STEP (16u << 20) /* bytes that a region of a segment takes at once, at most */

/* The io_uring. More completions than these in flight are kept by the kernel (NODROP). */
#define KITHI_NEED_RING_ENTRIES     256u
#define KITHI_NEED_RING_COMPLETIONS 4096u

/* Descriptors: of clients, by default; of directories, the loop and collections to come; of a collection: segment,
 * log, the next file of the log. */
#define KITHI_NEED_CLIENTS          1024u
#define KITHI_NEED_DESCRIPTORS      64u
#define KITHI_NEED_DESCRIPTORS_EACH 8u

#define KITHI_NEED_LOG_FILE (64u << 20) /* bytes preallocated for a file of the log */

#endif
