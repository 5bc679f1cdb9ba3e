/*
 * salvage.h - what there is of a log that kithd refuses, and how the readable part of it becomes a log again.
 *
 * Owns: judging one file by itself; finding the longest beginning that can be replayed; copying it into a
 * directory of its own; putting that in the log's place. Leaves to the caller that no kithd is at work in the
 * data directory, and to scan.c the last word on the copy: what it does not read whole never takes the
 * place of anything. Nothing of the damaged log is changed or removed. Bytes are not trusted.
 *
 *   <collection>/wal                  damaged
 *   <collection>/wal.salvaging-<n>    1. the copy is being made
 *   <collection>/wal.salvaged-<n>     2. it is complete, synced, and was read whole
 *   <collection>/wal.damaged-<n>      3. what `wal` was; there is no `wal` now, and kithd refuses to start
 *   <collection>/wal                  4. what `wal.salvaged-<n>` was
 *
 * A crash leaves one of these lines. Up to 2 the log is what it was, and a later salvage takes another n; from
 * 3 a later one goes on to 4.
 */
#ifndef KITHI_WAL_SALVAGE_H
#define KITHI_WAL_SALVAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/wal/format.h"
#include "server/wal/scan.h"
#include "shm/base/error.h"

#define KITHI_WAL_DIR       "wal"
#define KITHI_WAL_SALVAGING "wal.salvaging-"
#define KITHI_WAL_SALVAGED  "wal.salvaged-"
#define KITHI_WAL_DAMAGED   "wal.damaged-"

/* One file by itself. */
struct kithi_wal_look {
    uint64_t size;                       /* of the file */
    enum kithi_wal_verdict verdict;      /* of its header; BAD, too, when the file is too short for one */
    struct kithi_wal_file_header header; /* filled for OK, NEWER and FOREIGN, else zeros */
};

/* Returns 0 or -errno with err filled. */
int kithi_wal_look(const char *dir, const char *name, const uint8_t uid[16], struct kithi_wal_look *out,
                   struct kithi_errmsg *err);

/*
 * Is somebody writing the log: a kithd, or the kernel for one that was killed? The lock on the last file
 * says so. Only that file is tried, and for an instant: a start that meets the trial waits for it.
 */
bool kithi_wal_in_use(const char *dir);

struct kithi_wal_kept; /* a file of the copy */

/* The beginning of a log that can be replayed, and where and why it ends. */
struct kithi_wal_plan {
    uint64_t first_epoch; /* that the log begins with */
    uint64_t last_epoch;  /* of the last readable group; first_epoch - 1 when there is none */
    uint64_t groups, ops;
    uint64_t bytes;      /* that the copy takes on disk, what is preallocated included */
    uint64_t lost_epoch; /* highest epoch that something behind the end speaks of; up to last_epoch: none */
    char end_file[KITHI_WAL_NAME_SIZE];
    uint64_t end_off;
    char end_reason[160];
    struct kithi_wal_kept *files;
    uint32_t file_count;
    uint32_t rebuilt; /* files whose header is bad and follows from their name and their groups */
};

/*
 * Find the readable beginning of the log in dir. accept, called for every group that checks, returns 0, or
 * anything else when it cannot read the ops: the log ends before that group then. Reads all of the log.
 * Returns 0, -errno, KITHI_E_VERSION (a later version is at home here), with err filled. Fini in any case.
 */
int kithi_wal_plan(const char *dir, const uint8_t uid[16], kithi_wal_group_fn *accept, void *arg,
                   struct kithi_wal_plan *out, struct kithi_errmsg *err);

/*
 * The same for a log that is to go on from a checkpoint of epoch: it begins with the group after that, wherever in the log this
 * stands, and damage before it is of no concern. Without that group it is a log that is begun and empty (last_epoch is
 * epoch then).
 */
int kithi_wal_plan_after(const char *dir, const uint8_t uid[16], uint64_t epoch, kithi_wal_group_fn *accept,
                         void *arg, struct kithi_wal_plan *out, struct kithi_errmsg *err);
void kithi_wal_plan_fini(struct kithi_wal_plan *plan);

/* Is there anything that a start could go on from? */
bool kithi_wal_plan_useful(const struct kithi_wal_plan *plan);

/*
 * Copy what was planned into collection/wal.salvaging-<n>, sync it, read it as a start would, and name it
 * wal.salvaged-<n>. Waits for the end of a killed kithd's writes first. On failure the copy is removed.
 */
int kithi_wal_salvage_copy(const char *collection, const uint8_t uid[16], const struct kithi_wal_plan *plan,
                           uint32_t n, struct kithi_errmsg *err);

/* Put wal.salvaged-<n> in the place of wal, which becomes wal.damaged-<n>; goes on where an earlier one ended. */
int kithi_wal_salvage_swap(const char *collection, uint32_t n, struct kithi_errmsg *err);

/* A number that no directory of the collection has yet: one more than the highest. */
int kithi_wal_salvage_number(const char *collection, uint32_t *out_n, struct kithi_errmsg *err);

/* The number of a swap that was interrupted at 3; 0: there is none. */
uint32_t kithi_wal_salvage_interrupted(const char *collection);

#endif
