/*
 * hash.h - the keyed hash that orders the id table (SipHash-1-3, 64 bits).
 *
 * Keyed, so that nobody who chooses ids can choose collisions; the key lives in the
 * collection's configuration, so that the order survives a new generation.
 */
#ifndef KITHI_BASE_HASH_H
#define KITHI_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t kithi_hash(const uint8_t key[16], const void *data, size_t len);

#endif
