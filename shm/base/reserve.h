/*
 * reserve.h - what both sides leave free of the run directory's file system: others need room in it, and
 * even a read of a hole takes a page.
 */
#ifndef KITHI_BASE_RESERVE_H
#define KITHI_BASE_RESERVE_H

#include <stdint.h>

/* Bytes to leave free of a file system of fs_bytes. */
static inline uint64_t kithi_reserve_bytes(uint64_t fs_bytes)
{
    const uint64_t least = 64u << 10, most = 16u << 20;
    uint64_t reserve = fs_bytes / 64;
    return reserve < least ? least : reserve > most ? most : reserve;
}

#endif
