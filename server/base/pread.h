/*
 * pread.h - reading a piece of a file whole, for whoever reads the data directory.
 */
#ifndef KITHI_SERVER_PREAD_H
#define KITHI_SERVER_PREAD_H

#include <stddef.h>
#include <stdint.h>

/* Read len bytes at off; returns the bytes read, fewer at the end of the file, or -errno. */
int64_t kithi_pread(int fd, void *buf, size_t len, uint64_t off);

#endif
