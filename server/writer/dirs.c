/*
 * dirs.c - finding, checking and locking the run and data directories. See dirs.h.
 */
#include "server/writer/dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char default_parent[] = "/dev/shm";
static const char default_run[] = "/dev/shm/kith";
static const char fallback_run[] = "/run/kith";

int kithi_dir_find_run(const char *option, char out[KITHI_PATH_MAX], struct kithi_errmsg *err)
{
    const char *path = option ? option : getenv("KITH_RUN");
    if (!path || !*path) {
        struct stat st;
        bool usable = !stat(default_run, &st) || !access(default_parent, W_OK | X_OK);
        path = usable ? default_run : fallback_run;
    }
    return kithi_path(out, err, "%s", path);
}

static int not_owned(const char *what, const char *path, const struct stat *st, int code,
                     struct kithi_errmsg *err)
{
    return kithi_error_set(err, code,
                           "the %s directory %s belongs to user %u, kithd runs as user %u; "
                           "change its owner or use another directory",
                           what, path, (unsigned)st->st_uid, (unsigned)geteuid());
}

/* Open and check a directory; its descriptor, or a negative code. */
static int open_checked(const char *what, const char *path, mode_t mode, gid_t group, int code,
                        struct kithi_errmsg *err)
{
    struct stat st;
    int status = 0;
    bool made = !mkdir(path, mode);
    if (!made && errno != EEXIST) {
        int e = errno;
        return kithi_error_set(err, code, "cannot make the %s directory %s: %s%s", what, path, strerror(e),
                               e == ENOENT ? "; its parent is not made for you" : "");
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        int e = errno;
        bool there = !lstat(path, &st);
        if (there && S_ISLNK(st.st_mode)) {
            return kithi_error_set(
                err, code,
                "the %s directory %s is a symbolic link, which somebody else may turn elsewhere; "
                "name the directory itself",
                what, path);
        }
        if (there && e == EACCES && st.st_uid != geteuid()) {
            return not_owned(what, path, &st, code, err);
        }
        if (e == ENOTDIR) {
            return kithi_error_set(err, code, "the %s directory %s is not a directory", what, path);
        }
        return kithi_error_set(err, code, "cannot open the %s directory %s: %s", what, path, strerror(e));
    }
    if (fstat(fd, &st)) {
        status = kithi_error_set(err, -errno, "cannot look at the %s directory %s: %s", what, path,
                                 strerror(errno));
        goto out;
    }
    if (st.st_uid != geteuid()) {
        status = not_owned(what, path, &st, code, err);
        goto out;
    }
    if (!made && (st.st_mode & (S_IWGRP | S_IWOTH))) {
        status = kithi_error_set(err, code,
                                 "the %s directory %s (mode %04o) can be written by others; "
                                 "take that away with chmod go-w",
                                 what, path, (unsigned)(st.st_mode & 07777));
        goto out;
    }
    if (group != KITHI_NO_GROUP && st.st_gid != group && fchown(fd, (uid_t)-1, group)) {
        status = kithi_error_set(err, code, "cannot give the %s directory %s to group %u: %s", what, path,
                                 (unsigned)group, strerror(errno));
        goto out;
    }
    /* A new directory got its mode through the umask. */
    bool set_mode = made || group != KITHI_NO_GROUP;
    if (set_mode && (st.st_mode & 07777) != mode && fchmod(fd, mode)) {
        status = kithi_error_set(err, code, "cannot set the mode of the %s directory %s: %s", what, path,
                                 strerror(errno));
        goto out;
    }
    if (faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS)) {
        int e = errno;
        status =
            kithi_error_set(err, code, "the %s directory %s cannot be written: %s", what, path, strerror(e));
    }
out:
    if (status) {
        close(fd);
        return status;
    }
    return fd;
}

static void strip_slashes(char *path)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') {
        path[--len] = 0;
    }
}

int kithi_dir_claim(struct kithi_dir *dir, const char *what, const char *path, mode_t mode, gid_t group,
                    struct kithi_errmsg *err)
{
    dir->lock_fd = -1;
    if (!*path) {
        return kithi_error_set(err, KITHI_E_RUN_DIR, "the name of the %s directory is empty", what);
    }
    int status = kithi_path(dir->path, err, "%s", path);
    if (status) {
        return status;
    }
    strip_slashes(dir->path);
    int fd = open_checked(what, dir->path, mode, group, KITHI_E_RUN_DIR, err);
    if (fd < 0) {
        return fd;
    }
    struct statfs fs;
    dir->tmpfs = !fstatfs(fd, &fs) && fs.f_type == TMPFS_MAGIC;

    dir->lock_fd = openat(fd, KITHI_LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (dir->lock_fd < 0) {
        int e = errno;
        status = kithi_error_set(err, KITHI_E_RUN_DIR, "cannot make %s/%s in the %s directory: %s", dir->path,
                                 KITHI_LOCK_NAME, what, strerror(e));
    } else if (flock(dir->lock_fd, LOCK_EX | LOCK_NB)) {
        int e = errno;
        status = e == EWOULDBLOCK ? kithi_error_set(err, KITHI_E_BUSY,
                                                    "another kithd owns the %s directory %s; stop it, or use "
                                                    "another directory",
                                                    what, dir->path)
                                  : kithi_error_set(err, -e, "cannot lock %s/%s: %s", dir->path,
                                                    KITHI_LOCK_NAME, strerror(e));
    }
    close(fd);
    if (status) {
        kithi_dir_release(dir);
    }
    return status;
}

void kithi_dir_release(struct kithi_dir *dir)
{
    if (dir && dir->lock_fd >= 0) {
        close(dir->lock_fd);
        dir->lock_fd = -1;
    }
}

int kithi_dir_inside(const char *path, mode_t mode, gid_t group, struct kithi_errmsg *err)
{
    int fd = open_checked("collection's", path, mode, group, KITHI_E_RUN_DIR, err);
    if (fd < 0) {
        return fd;
    }
    close(fd);
    return 0;
}
