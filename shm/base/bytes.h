/*
 * bytes.h - little-endian words in byte buffers, for the WAL and the socket.
 *
 * The segment is in host order and does not use these. Callers check lengths first.
 */
#ifndef KITHI_BASE_BYTES_H
#define KITHI_BASE_BYTES_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Kith runs on little-endian machines"
#endif

static inline void kithi_put16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}
static inline void kithi_put32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}
static inline void kithi_put64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline uint16_t kithi_get16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t kithi_get32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t kithi_get64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* v rounded up to a multiple of unit (a power of two). */
static inline uint64_t kithi_round_up(uint64_t v, uint64_t unit)
{
    return (v + unit - 1) & ~(unit - 1);
}

#endif
