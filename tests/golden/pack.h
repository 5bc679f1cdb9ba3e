/*
 * pack.h - sparse files as small ones, for the checkout: only the runs of bytes that are not zero are kept.
 *
 *     8 bytes "KITHPACK", u64 size of the file, then u64 offset, u64 length, bytes for each run; little-endian
 */
#ifndef KITHI_TEST_PACK_H
#define KITHI_TEST_PACK_H

/* 0 or -errno. Holes of the file stay holes in the copy. */
int test_pack(const char *file, const char *packed);
int test_unpack(const char *packed, const char *file);

#endif
