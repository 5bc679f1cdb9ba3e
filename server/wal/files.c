/*
 * files.c - see files.h; and the wait for a predecessor's last write.
 */
#include "server/wal/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/wal/append.h"

#define EPOCH_DIGITS 20u

void kithi_wal_file_name(char out[KITHI_WAL_NAME_SIZE], uint64_t first_epoch)
{
    snprintf(out, KITHI_WAL_NAME_SIZE, "%020" PRIu64 ".wal", first_epoch);
}

int kithi_wal_path(char out[KITHI_WAL_PATH_SIZE], const char *dir, const char *name)
{
    int n = snprintf(out, KITHI_WAL_PATH_SIZE, "%s/%s", dir, name);
    return n < 0 || n >= (int)KITHI_WAL_PATH_SIZE ? -ENAMETOOLONG : 0;
}

static bool parse_name(const char *name, uint64_t *out_epoch)
{
    if (strlen(name) != EPOCH_DIGITS + 4 || strcmp(name + EPOCH_DIGITS, ".wal") != 0)
        return false;
    uint64_t n = 0;
    for (size_t i = 0; i < EPOCH_DIGITS; i++) {
        unsigned d = (unsigned)(name[i] - '0');
        if (d > 9 || n > (UINT64_MAX - d) / 10)
            return false;
        n = n * 10 + d;
    }
    *out_epoch = n;
    return true;
}

static int by_epoch(const void *a, const void *b)
{
    uint64_t x = ((const struct kithi_wal_file *)a)->first_epoch,
             y = ((const struct kithi_wal_file *)b)->first_epoch;
    return (x > y) - (x < y);
}

int64_t kithi_wal_files_list(const char *dir, struct kithi_wal_file **out, struct kithi_errmsg *err)
{
    struct kithi_wal_file *files = NULL;
    size_t n = 0, room = 0;
    DIR *d = opendir(dir);
    if (!d && errno == ENOENT) {
        *out = NULL;
        return 0;
    }
    if (!d)
        goto fail;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(d);
        if (!entry && errno != 0)
            goto fail;
        if (!entry)
            break;
        uint64_t epoch;
        if (!parse_name(entry->d_name, &epoch))
            continue;
        if (n == room) {
            room = room ? room * 2 : 16;
            struct kithi_wal_file *more = realloc(files, room * sizeof *more);
            if (!more)
                goto fail;
            files = more;
        }
        memcpy(files[n].name, entry->d_name, EPOCH_DIGITS + 5);
        files[n++].first_epoch = epoch;
    }
    closedir(d);
    if (n > 1)
        qsort(files, n, sizeof *files, by_epoch);
    *out = files;
    return (int64_t)n;

fail:;
    int r = errno ? -errno : -EIO;
    if (d)
        closedir(d);
    free(files);
    return kithi_error_set(err, r, "%s: the log's directory cannot be read: %s", dir, kithi_error_text(r));
}

int kithi_wal_file_open(const char *dir, const char *name, uint64_t *out_size)
{
    char path[KITHI_WAL_PATH_SIZE];
    int r = kithi_wal_path(path, dir, name);
    if (r < 0)
        return r;
    /* O_NONBLOCK: a FIFO put in the way must not hang the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct stat st;
    if (fstat(fd, &st) != 0)
        r = -errno;
    else if (!S_ISREG(st.st_mode))
        r = -EINVAL;
    if (r < 0) {
        close(fd);
        return r;
    }
    *out_size = (uint64_t)st.st_size;
    return fd;
}

/* The lock is polled, as flock() knows no deadline; the ring of a killed process lets go after
 * about a tenth of a second. */
static int wait_unlocked(int fd, uint32_t *wait_ms, const _Atomic bool *stop)
{
    const struct timespec pause = { .tv_nsec = 10 * 1000000 };
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (stop && *stop)
            return -ECANCELED;
        if (*wait_ms < 10)
            return KITHI_E_BUSY;
        *wait_ms -= 10;
        nanosleep(&pause, NULL);
    }
    return 0;
}

int kithi_wal_settle(const char *dir, uint32_t wait_ms, const _Atomic bool *stop, struct kithi_errmsg *err)
{
    struct kithi_wal_file *files = NULL;
    int64_t n = kithi_wal_files_list(dir, &files, err);
    int r = n < 0 ? (int)n : 0;
    uint32_t left = wait_ms;
    for (int64_t i = 0; i < n && r == 0; i++) {
        uint64_t size;
        int fd = kithi_wal_file_open(dir, files[i].name, &size);
        r = fd < 0 ? fd : wait_unlocked(fd, &left, stop);
        if (r == 0 && fsync(fd) != 0)
            r = -errno;
        if (fd >= 0)
            close(fd);
        if (r == KITHI_E_BUSY)
            kithi_error_set(
                err, r,
                "%s/%s is still locked after %u ms: another kithd writes it, or the kernel has not "
                "ended the writes of one that was killed; stop the other one, or start again later",
                dir, files[i].name, wait_ms);
        else if (r == -ECANCELED)
            kithi_error_set(err, r, "told to stop");
        else if (r < 0)
            kithi_error_set(err, r, "%s/%s: cannot be opened, locked and synced: %s", dir, files[i].name,
                            kithi_error_text(r));
    }
    free(files);
    if (n > 0 && r == 0) {
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) != 0) {
            r = -errno;
            kithi_error_set(err, r, "%s: the log's directory cannot be synced: %s", dir, kithi_error_text(r));
        }
        if (fd >= 0)
            close(fd);
    }
    return r;
}
