/*
 * scan.h - read a write-ahead log: verify it, deliver its groups in order, say where it ends.
 *
 * Owns the judgement about a bad group: a tail torn by a crash is cut off, damage to what
 * was once durable is refused (WAL.md has the rules). Changes nothing on disk; kithd's
 * recovery and `kith` tools read with this. Needs the memory of one group at a time.
 */
#ifndef KITHI_WAL_SCAN_H
#define KITHI_WAL_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/error.h"

#define KITHI_WAL_NAME_SIZE 32u /* a file's name inside the directory, NUL included */

/* One group, valid and in order. Everything points into the scanner's memory until fn returns. */
struct kithi_wal_group {
    uint64_t epoch;
    const void *ops; /* shm/wire/op.h, back to back, 8-byte aligned; not decoded by the scanner */
    size_t len;      /* bytes of ops */
    uint32_t n_ops;
    uint64_t timeline;
    uint64_t durable_epoch; /* highest epoch known durable when the group was written */
    uint32_t crc;           /* of ops and padding; it was found right */
    const char *file;       /* name inside the directory */
    uint64_t off;           /* of the group header in the file */
    uint64_t size;          /* bytes in the file, header and padding included */
};

/* Return 0 to go on; anything else ends the scan, which returns it. */
typedef int kithi_wal_group_fn(void *arg, const struct kithi_wal_group *group);

/* Why a log is refused with KITHI_E_LOG_DAMAGED, for programs; the message says the same to people. */
struct kithi_wal_damage {
    char file[KITHI_WAL_NAME_SIZE]; /* "": it is not in a file, but a file or the end is missing */
    uint64_t off;
    uint64_t expected; /* the epoch that was to come next; 0: unknown */
    char what[200];
};

struct kithi_wal_scan_opts {
    const char *dir;
    uint8_t uid[16];
    uint64_t after_epoch; /* deliver groups above it; files that end before it are not read through */
    uint64_t
        known_durable_epoch; /* of a segment or checkpoint; a log that ends below it is damaged. 0: unknown */
    kithi_wal_group_fn *fn;  /* may be NULL */
    void *arg;
    struct kithi_wal_damage *damage; /* filled when KITHI_E_LOG_DAMAGED is returned; may be NULL */
};

/* What was found. Zeroed means an empty log: what a new collection passes to kithi_wal_open(). */
struct kithi_wal_report {
    uint64_t first_epoch; /* of the oldest file; 0 when there is none */
    uint64_t last_epoch;  /* of the last valid group; 0 when there is none */
    uint64_t last_number; /* highest file number seen */
    uint64_t groups;      /* delivered */
    uint64_t bytes;       /* of ops delivered */
    uint32_t files;

    /* The last groups, which none behind them knows to be durable: tail_epoch to last_epoch, which kithi_wal_open() writes
     * anew. tail_size 0: none. */
    char tail_file[KITHI_WAL_NAME_SIZE];
    uint64_t tail_epoch;
    uint64_t tail_off;
    uint64_t tail_size;
    /* The first of them is in another file, for it is damaged in this one; the others are all of this one. lead_size 0: it is not. */
    char lead_file[KITHI_WAL_NAME_SIZE];
    uint64_t lead_off;
    uint64_t lead_size;

    /* A group that a start had written anew and that is damaged there: it was read from where it stood before. With several the
     * last one. spoilt_file "": none. */
    char spoilt_file[KITHI_WAL_NAME_SIZE];
    uint64_t spoilt_off, spoilt_end;
    uint64_t spoilt_epoch;
    char spoilt_reason[128];

    /* A torn group that was cut off at the end of the log, and the rest of its write. torn_file "" : none. */
    char torn_file[KITHI_WAL_NAME_SIZE];
    uint64_t torn_off; /* first byte that is not used */
    uint64_t torn_end; /* end of the bytes that are not zero */
    char torn_reason[128];

    /* A last file without a valid header: the daemon was killed as it made it. "" : none. */
    char ignored_file[KITHI_WAL_NAME_SIZE];
    char ignored_reason[128];
};

/*
 * Read the log in opts->dir. Returns 0 with *out_report filled; what fn returned; -errno;
 * KITHI_E_LOG_DAMAGED (also: missing files, another collection's files) or KITHI_E_VERSION
 * with a message that says file, offset, what was expected and what to do. A missing or
 * empty directory is an empty log when after_epoch and known_durable_epoch are 0.
 */
int kithi_wal_scan(const struct kithi_wal_scan_opts *opts, struct kithi_wal_report *out_report,
                   struct kithi_errmsg *err);

#endif
