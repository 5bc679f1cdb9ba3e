/*
 * append.h - the writing side of a collection's log.
 *
 * Start-up:   kithi_wal_settle -> kithi_wal_scan -> kithi_wal_open -> kithi_wal_append ...
 * Threads:    kithi_wal_settle and kithi_wal_open block and may run on any thread (for a
 *             collection made while the loop runs: by kithi_io_call); the rest belongs to
 *             the loop's thread.
 * Memory:     ops are copied by kithi_wal_append. A collection's log holds two buffers the
 *             size of its largest recent writes.
 * Failure:    after any failed write or sync the log has failed for good: what was in
 *             flight and every later append end with KITHI_E_LOG_FAILED, because nobody
 *             knows any more what is on the disk. The daemon says why and exits.
 */
#ifndef KITHI_WAL_APPEND_H
#define KITHI_WAL_APPEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "server/base/io.h"
#include "server/base/needs.h"
#include "server/wal/scan.h"
#include "shm/base/error.h"

#define KITHI_WAL_GROUP_MAX         (64u << 20) /* bytes of ops in a group */
#define KITHI_WAL_WRITE_BYTES       (8u << 20) /* of groups that go out by one write; one group may be larger */
#define KITHI_WAL_WRITE_GROUPS      1024u
#define KITHI_WAL_WRITES            2u /* under way at once */
#define KITHI_WAL_FILE_SIZE_DEFAULT KITHI_NEED_LOG_FILE
#define KITHI_WAL_SETTLE_MS         10000u

struct kithi_wal;

/* status: 0 when the group is durable, else KITHI_E_LOG_FAILED. */
typedef void kithi_wal_done(void *arg, int status);

/*
 * Wait until no write of a killed predecessor can still be in flight, then sync what is there,
 * so that what a scan reads is what the disk holds. Call before kithi_wal_scan(). A missing
 * directory is fine. Returns 0, KITHI_E_BUSY when a file is still locked after wait_ms, -ECANCELED once *stop (stop may be
 * NULL) is true, -errno.
 */
int kithi_wal_settle(const char *dir, uint32_t wait_ms, const _Atomic bool *stop, struct kithi_errmsg *err);

/* What a group holds: ops of shm/wire/op.h. */
struct kithi_wal_content {
    const void *ops;
    size_t len; /* 1..KITHI_WAL_GROUP_MAX, a multiple of 8 */
    uint32_t n_ops;
};

struct kithi_wal_open_opts {
    const char *dir; /* exists */
    uint8_t uid[16];
    uint64_t timeline;
    uint64_t file_size;                    /* to preallocate; 0: KITHI_WAL_FILE_SIZE_DEFAULT */
    const struct kithi_wal_report *report; /* of the scan just made (zeroed for a new collection) */
    /* Groups that follow report->last_epoch and are known from elsewhere, in the order of their epochs: the new file begins with
     * them, behind the last one that the log has. It has its name once all of them are durable. */
    const struct kithi_wal_content *more;
    uint32_t more_count;
};

/*
 * Begin a new file behind what the scan found, with the groups that were not surely durable written anew as its
 * first ones, and remove what a crash left unfinished. Blocks; file and directory are synced on
 * return. The first epoch to append is report->last_epoch + more_count + 1. Returns 0, -errno, KITHI_E_LOG_DAMAGED.
 */
int kithi_wal_open(struct kithi_io *io, const struct kithi_wal_open_opts *opts, struct kithi_wal **out_wal,
                   struct kithi_errmsg *err);

/*
 * Log a group: n_ops ops of shm/wire/op.h from iov, together 1..KITHI_WAL_GROUP_MAX bytes and a
 * multiple of 8. epoch follows the one before it by 1. iov may go once this returns. While KITHI_WAL_WRITES are on
 * their way groups gather, each for itself, and go out together by the next one, which is one flush for all
 * of them. done is called for each, in the order of epochs, whichever write is done first.
 *
 * Returns 0 when it was taken: done is called later, from kithi_io_run(). Negative when nothing
 * was or will be written, and done is not called: -ENOMEM, -ENOSPC (the log stays good; refuse the
 * requests of the group), -EBUSY (as much has gathered as goes out at once, or the group begins a file, which
 * waits for what gathered before it or for the file: come again after the next kithi_io_run()),
 * KITHI_E_LOG_FAILED. So append first, and begin to change the index after it has returned 0.
 */
int kithi_wal_append(struct kithi_wal *wal, uint64_t epoch, const struct iovec *iov, size_t n_iov,
                     uint32_t n_ops, kithi_wal_done *done, void *arg);

/* True while a group is being written or waits for it, or for its done. */
bool kithi_wal_busy(const struct kithi_wal *wal);

/* True while the next file is being made on a helper thread, in the log's directory. */
bool kithi_wal_preparing(const struct kithi_wal *wal);

/* The highest durable epoch. In done it counts all groups of the write already, those whose done comes next, too. */
uint64_t kithi_wal_durable_epoch(const struct kithi_wal *wal);

/* NULL while the log is good; what failed, in words for the operator, once it is not. */
const struct kithi_errmsg *kithi_wal_failure(const struct kithi_wal *wal);

struct kithi_wal_stats {
    uint64_t groups;     /* durable since open, the rewritten ones not counted */
    uint64_t writes;     /* that they took, each with one flush */
    uint64_t bytes;      /* of ops in them */
    uint64_t last_epoch; /* highest durable epoch */
    uint64_t files;      /* begun since open */
    uint64_t recycled;   /* of them, those that an earlier part of the log had left */
    bool direct;         /* O_DIRECT is in use */
    char file[KITHI_WAL_NAME_SIZE];
    uint64_t file_off; /* where the next group goes */
};

void kithi_wal_stats(const struct kithi_wal *wal, struct kithi_wal_stats *out_stats);

/*
 * Take the files out of the log in dir that hold nothing after epoch: a checkpoint of it is durable. The last two stay, as
 * they hold the tail. With keep some become the log's next ones (fresh.h), the others are removed; without, whoever has one
 * open reads on. Blocks; any thread, also while the log is written to. Files that cannot be removed stay.
 */
void kithi_wal_trim(struct kithi_io *io, const char *dir, uint64_t epoch, bool keep);

/* Its directory was renamed to dir; nothing was appended yet. 0 or -ENAMETOOLONG. */
int kithi_wal_moved(struct kithi_wal *wal, const char *dir);

/* Close a log that is not busy (a program that must leave in the middle of a write just exits).
 * What still runs ahead of the groups, a next file or zeros, ends by itself or with the loop. NULL is fine. */
void kithi_wal_close(struct kithi_wal *wal);

#endif
