/*
 * files.h - the few file-system operations that kithd needs to last: synced directories, files
 * written whole or not at all, trees removed. Paths are made once, here, and checked for length.
 */
#ifndef KITHI_WRITER_FILES_H
#define KITHI_WRITER_FILES_H

#include <stddef.h>
#include <sys/stat.h>

#include "shm/base/compiler.h"
#include "shm/base/error.h"

#define KITHI_PATH_MAX 4096u

/* A path that fits, or an empty one and -ENAMETOOLONG. */
int kithi_path(char out[KITHI_PATH_MAX], struct kithi_errmsg *err, const char *fmt, ...) KITHI_PRINTF(3, 4);

/* Entries of a directory (its names, renames, unlinks) reach stable storage. */
int kithi_dir_sync(const char *path, struct kithi_errmsg *err);

/* Write a file of that name beside itself, sync it, rename it into place, sync the directory. */
int kithi_file_replace(const char *dir, const char *name, const void *data, size_t len, mode_t mode,
                       struct kithi_errmsg *err);

/* Remove a file or a directory with all that is in it; links are removed, not followed. A missing one is fine. */
int kithi_tree_remove(const char *path, struct kithi_errmsg *err);

/* The names in a directory, sorted, "." and ".." left out: one malloc'ed array (free each, and it). */
int kithi_dir_list(const char *path, char ***out_names, size_t *out_n, struct kithi_errmsg *err);
void kithi_dir_list_free(char **names, size_t n);

#endif
