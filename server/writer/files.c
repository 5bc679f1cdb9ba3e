/*
 * files.c - file-system operations that last. See files.h.
 */
#include "server/writer/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int kithi_path(char out[KITHI_PATH_MAX], struct kithi_errmsg *err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(out, KITHI_PATH_MAX, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= KITHI_PATH_MAX) {
        int status =
            kithi_error_set(err, -ENAMETOOLONG, "a path that begins with %.80s is longer than %u bytes", out,
                            KITHI_PATH_MAX - 1);
        out[0] = 0;
        return status;
    }
    return 0;
}

static int failed(struct kithi_errmsg *err, const char *what, const char *path)
{
    int e = errno;
    return kithi_error_set(err, -e, "cannot %s %s: %s", what, path, strerror(e));
}

int kithi_dir_sync(const char *path, struct kithi_errmsg *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return failed(err, "open", path);
    }
    int status = fsync(fd) ? failed(err, "sync", path) : 0;
    close(fd);
    return status;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

int kithi_file_replace(const char *dir, const char *name, const void *data, size_t len, mode_t mode,
                       struct kithi_errmsg *err)
{
    char to[KITHI_PATH_MAX], from[KITHI_PATH_MAX];
    int fd = -1;
    int status = kithi_path(to, err, "%s/%s", dir, name);
    if (!status) {
        status = kithi_path(from, err, "%s/%s.new", dir, name);
    }
    if (status) {
        return status;
    }
    fd = open(from, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) {
        return failed(err, "create", from);
    }
    if (write_all(fd, data, len)) {
        status = failed(err, "write", from);
    } else if (fsync(fd)) {
        status = failed(err, "sync", from);
    } else if (rename(from, to)) {
        status = failed(err, "rename into place", from);
    }
    close(fd);
    if (status) {
        unlink(from);
        return status;
    }
    return kithi_dir_sync(dir, err);
}

/* Not recursive over user input of any depth: our trees are three levels deep, and paths are bounded. */
int kithi_tree_remove(const char *path, struct kithi_errmsg *err)
{
    struct stat st;
    if (lstat(path, &st)) {
        return errno == ENOENT ? 0 : failed(err, "look at", path);
    }
    if (!S_ISDIR(st.st_mode)) {
        return unlink(path) && errno != ENOENT ? failed(err, "remove", path) : 0;
    }
    char **names = NULL;
    size_t n = 0;
    int status = kithi_dir_list(path, &names, &n, err);
    for (size_t i = 0; i < n && !status; i++) {
        char inner[KITHI_PATH_MAX];
        status = kithi_path(inner, err, "%s/%s", path, names[i]);
        if (!status) {
            status = kithi_tree_remove(inner, err);
        }
    }
    kithi_dir_list_free(names, n);
    if (!status && rmdir(path) && errno != ENOENT) {
        status = failed(err, "remove", path);
    }
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int kithi_dir_list(const char *path, char ***out_names, size_t *out_n, struct kithi_errmsg *err)
{
    char **names = NULL;
    size_t n = 0, capacity = 0;
    int status = 0;
    DIR *dir = opendir(path);
    if (!dir) {
        return failed(err, "list", path);
    }
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            status = errno ? failed(err, "list", path) : 0;
            break;
        }
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) {
            continue;
        }
        if (n == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            char **more = realloc(names, capacity * sizeof *names);
            if (!more) {
                status = kithi_error_set(err, -ENOMEM, "no memory to list %s", path);
                break;
            }
            names = more;
        }
        names[n] = strdup(entry->d_name);
        if (!names[n]) {
            status = kithi_error_set(err, -ENOMEM, "no memory to list %s", path);
            break;
        }
        n++;
    }
    closedir(dir);
    if (status) {
        kithi_dir_list_free(names, n);
        return status;
    }
    if (n) {
        qsort(names, n, sizeof *names, by_name);
    }
    *out_names = names;
    *out_n = n;
    return 0;
}

void kithi_dir_list_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(names[i]);
    }
    free(names);
}
