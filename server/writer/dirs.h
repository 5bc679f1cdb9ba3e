/*
 * dirs.h - the two directories that a kithd owns: run (shared memory) and data (disk).
 *
 * A directory is used when it is a real directory, ours, writable, and not writable for others,
 * and when no other daemon holds its lock. The lock is on a file of its own that no I/O ring ever
 * sees: after SIGKILL a ring can keep the files it used open for a while.
 */
#ifndef KITHI_WRITER_DIRS_H
#define KITHI_WRITER_DIRS_H

#include <stdbool.h>
#include <sys/types.h>

#include "server/writer/files.h"
#include "shm/base/error.h"

#define KITHI_LOCK_NAME   "kithd.lock"
#define KITHI_SOCKET_NAME "kithd.sock"
#define KITHI_NO_GROUP    ((gid_t)-1)

struct kithi_dir {
    char path[KITHI_PATH_MAX];
    int lock_fd; /* -1: not held */
    bool tmpfs;
};

/* Where the run directory is: option, else $KITH_RUN, else /dev/shm/kith, else /run/kith. */
int kithi_dir_find_run(const char *option, char out[KITHI_PATH_MAX], struct kithi_errmsg *err);

/*
 * Make the directory if it is missing (its parent must exist) with the given mode, check and lock
 * it. group, when not KITHI_NO_GROUP, becomes its group, and the mode is set too. Returns 0,
 * KITHI_E_RUN_DIR (cannot be used; err says why and what to do), KITHI_E_BUSY, -errno.
 */
int kithi_dir_claim(struct kithi_dir *dir, const char *what, const char *path, mode_t mode, gid_t group,
                    struct kithi_errmsg *err);

/* Let go of the lock; the directory stays. Accepts NULL and a half-claimed one. */
void kithi_dir_release(struct kithi_dir *dir);

/* A directory inside a claimed one, made if missing, checked the same way but not locked. */
int kithi_dir_inside(const char *path, mode_t mode, gid_t group, struct kithi_errmsg *err);

#endif
