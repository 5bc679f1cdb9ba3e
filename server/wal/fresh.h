/*
 * fresh.h - a file that is to become the log's next one and has no name in the log yet.
 *
 * Owns: making one, zeroed or not; taking one of those that an earlier part of the log has left; keeping
 * those that the log does not need any more. Knows nothing of groups.
 *
 * What is kept for later, spare and recycled-<n>, begins with a file header whose number is at least that of
 * every group in it, or 0 where there is none. A file without such a header is not taken: it was being
 * made, or being given a new header, when a daemon ended. Everything blocks; any thread.
 */
#ifndef KITHI_WAL_FRESH_H
#define KITHI_WAL_FRESH_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/io.h"

struct kithi_wal_fresh {
    int fd; /* -1: none */
    bool direct;
    bool recycled; /* groups of lower numbers are in it */
    uint64_t size;
};

/* Make a file of that size, on stable storage, as path. Space that was not written yet costs a journal's commit at
 * each write that reaches it: kithi_io_file_zero() and kithi_wal_fresh_seal() save that. */
int kithi_wal_fresh_make(struct kithi_io *io, const char *path, uint64_t size, struct kithi_wal_fresh *out);

/* A header says from now on that this is a file to be taken, and what was written to it is durable. */
int kithi_wal_fresh_seal(struct kithi_io *io, const struct kithi_wal_fresh *file, const uint8_t uid[16]);

/*
 * Take a file that was kept in dir, of least bytes and not many more, whose groups all have numbers below `number`,
 * as dir/name. Others that are met are removed. -ENOENT: there is none.
 */
int kithi_wal_fresh_take(struct kithi_io *io, const char *dir, const char *name, const uint8_t uid[16],
                         uint64_t number, uint64_t least, struct kithi_wal_fresh *out);

/* Close and remove it. Nothing happens when there is none. */
void kithi_wal_fresh_drop(struct kithi_io *io, struct kithi_wal_fresh *file, const char *path);

/* Keep dir/name, a file that the log does not need any more, or remove it when enough are kept. 0 or -errno: it is
 * still there. */
int kithi_wal_fresh_keep(struct kithi_io *io, const char *dir, const char *name);

#endif
