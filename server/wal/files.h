/*
 * files.h - the log's directory: names of files, and what is there.
 *
 * A log file is <epoch of its first group, 20 digits>.wal, so that names sort as epochs do.
 * The file that is made ahead is KITHI_WAL_SPARE, the one that an opening log prepares KITHI_WAL_NEW, and
 * those that the log does not need any more and that wait to become its next ones KITHI_WAL_RECYCLED and a
 * number from 1; none of them is ever read as a part of the log.
 */
#ifndef KITHI_WAL_FILES_H
#define KITHI_WAL_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "server/wal/scan.h"
#include "shm/base/error.h"

#define KITHI_WAL_SPARE     "spare"
#define KITHI_WAL_NEW       "new"
#define KITHI_WAL_RECYCLED  "recycled-"
#define KITHI_WAL_KEPT_MAX  2u /* of recycled-<n> */
#define KITHI_WAL_PATH_SIZE 4096u

struct kithi_wal_file {
    char name[KITHI_WAL_NAME_SIZE];
    uint64_t first_epoch; /* as the name says */
};

/* All log files of dir by rising epoch; *out is malloc'd. Other names are passed over. Returns
 * their number or -errno; a directory that is missing holds none. */
int64_t kithi_wal_files_list(const char *dir, struct kithi_wal_file **out, struct kithi_errmsg *err);

void kithi_wal_file_name(char out[KITHI_WAL_NAME_SIZE], uint64_t first_epoch);

/* dir/name; -ENAMETOOLONG. */
int kithi_wal_path(char out[KITHI_WAL_PATH_SIZE], const char *dir, const char *name);

/* Open a log file for reading. Only regular files: -EINVAL for anything else. */
int kithi_wal_file_open(const char *dir, const char *name, uint64_t *out_size);

#endif
