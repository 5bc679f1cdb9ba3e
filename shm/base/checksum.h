/*
 * checksum.h - CRC-32C (Castagnoli), by CPU instruction where there is one.
 */
#ifndef KITHI_BASE_CHECKSUM_H
#define KITHI_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C of len bytes, continuing from crc (0 to begin). Thread-safe. */
uint32_t kithi_crc32c(uint32_t crc, const void *data, size_t len);

/* The same by table; the reference that tests compare with. */
uint32_t kithi_crc32c_table(uint32_t crc, const void *data, size_t len);

#endif
