/*
 * read.c - see read.h.
 */
#include "server/checkpoint/read.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/base/checksum.h"

#define EPOCH_DIGITS 20u

void kithi_checkpoint_name(char out[KITHI_CHECKPOINT_NAME_SIZE], uint64_t epoch)
{
    snprintf(out, KITHI_CHECKPOINT_NAME_SIZE, KITHI_CHECKPOINT_PREFIX "%020" PRIu64, epoch);
}

static bool parse_name(const char *name, uint64_t *out_epoch)
{
    const size_t prefix = sizeof KITHI_CHECKPOINT_PREFIX - 1;
    uint64_t n = 0;
    if (strncmp(name, KITHI_CHECKPOINT_PREFIX, prefix) != 0 || strlen(name) != prefix + EPOCH_DIGITS)
        return false;
    for (const char *p = name + prefix; *p; p++) {
        unsigned d = (unsigned)(*p - '0');
        if (d > 9 || n > (UINT64_MAX - d) / 10)
            return false;
        n = n * 10 + d;
    }
    *out_epoch = n;
    return true;
}

static int newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

int64_t kithi_checkpoint_list(const char *dir, uint64_t **out, struct kithi_errmsg *err)
{
    uint64_t *epochs = NULL, epoch;
    size_t n = 0, room = 0;
    DIR *d = opendir(dir);
    if (!d)
        return kithi_error_set(err, -errno, "%s cannot be read: %s", dir, kithi_error_text(-errno));
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(d);
        if (!entry)
            break;
        if (!parse_name(entry->d_name, &epoch))
            continue;
        if (n == room) {
            room = room ? 2 * room : 8;
            uint64_t *more = realloc(epochs, room * sizeof *more);
            if (!more)
                break;
            epochs = more;
        }
        epochs[n++] = epoch;
    }
    int rc = errno ? -errno : 0;
    closedir(d);
    if (rc < 0) {
        free(epochs);
        return kithi_error_set(err, rc, "%s cannot be read: %s", dir, kithi_error_text(rc));
    }
    if (n > 1)
        qsort(epochs, n, sizeof *epochs, newest_first);
    *out = epochs;
    return (int64_t)n;
}

/* All of len bytes at off: 0, -errno, or KITHI_E_CORRUPT where the file ends. */
static int read_whole(int fd, void *to, size_t len, uint64_t off)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = pread(fd, (char *)to + at, len - at, (off_t)(off + at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : KITHI_E_CORRUPT;
        at += (size_t)n;
    }
    return 0;
}

/* O_DIRECT where the file system takes it: what is read is read once, and caches have better use. */
static int open_file(const char *path)
{
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int fd = open(path, flags | O_DIRECT);
    return fd >= 0 || errno != EINVAL ? fd : open(path, flags);
}

static int judge(struct kithi_checkpoint *c, const uint8_t uid[16], const void *head,
                 struct kithi_errmsg *err)
{
    switch (kithi_checkpoint_header_decode(head, uid, &c->header)) {
    case KITHI_CHECKPOINT_OK: break;
    case KITHI_CHECKPOINT_BAD:
        return kithi_error_set(err, KITHI_E_CORRUPT,
                               "%s is damaged: bytes %" PRIu64 " to %" PRIu64
                               ", the header of a checkpoint, do not match their checksum",
                               c->path, c->shown_off, c->shown_off + KITHI_CHECKPOINT_BLOCK);
    case KITHI_CHECKPOINT_NEWER:
        return kithi_error_set(err, KITHI_E_VERSION, "%s was written by another version of kithd", c->path);
    case KITHI_CHECKPOINT_FOREIGN:
        return kithi_error_set(err, KITHI_E_REPLACED, "%s belongs to another collection", c->path);
    }
    return 0;
}

int kithi_checkpoint_open(const char *path, const uint8_t uid[16], struct kithi_checkpoint *c,
                          struct kithi_errmsg *err)
{
    return kithi_checkpoint_open_as(path, path, 0, uid, c, err);
}

int kithi_checkpoint_open_as(const char *path, const char *shown, uint64_t shown_off, const uint8_t uid[16],
                             struct kithi_checkpoint *c, struct kithi_errmsg *err)
{
    struct stat st;
    void *head = NULL;
    memset(c, 0, sizeof *c);
    snprintf(c->path, sizeof c->path, "%s", shown);
    c->shown_off = shown_off;
    c->fd = open_file(path);
    int rc = c->fd < 0 || fstat(c->fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
    if (rc == 0 && posix_memalign(&head, KITHI_CHECKPOINT_BLOCK, KITHI_CHECKPOINT_BLOCK) != 0)
        rc = -ENOMEM;
    if (rc == 0)
        rc = read_whole(c->fd, head, KITHI_CHECKPOINT_BLOCK, 0);
    if (rc < 0)
        kithi_error_set(err, rc, "%s cannot be read: %s", shown,
                        rc == KITHI_E_CORRUPT ? "it is too short for a header" : kithi_error_text(rc));
    if (rc == 0)
        rc = judge(c, uid, head, err);
    free(head);
    if (rc == 0) {
        kithi_checkpoint_plan(&c->header, &c->plan); /* it was possible */
        if ((uint64_t)st.st_size != c->plan.file_size)
            rc = kithi_error_set(err, KITHI_E_CORRUPT,
                                 "%s has %" PRIu64 " bytes and should have %" PRIu64
                                 ": it was cut off or not copied to its end",
                                 shown, (uint64_t)st.st_size, c->plan.file_size);
    }
    if (rc == 0 && posix_memalign(&c->table, KITHI_CHECKPOINT_BLOCK, c->plan.table_size) != 0)
        rc = kithi_error_set(err, -ENOMEM, "no memory for the checksums of %s", shown);
    if (rc == 0) {
        rc = read_whole(c->fd, c->table, c->plan.table_size, c->plan.table_off);
        if (rc < 0)
            kithi_error_set(err, rc, "%s cannot be read: %s", shown, kithi_error_text(rc));
    }
    if (rc == 0 && !kithi_checkpoint_table_decode(c->table, &c->header, &c->plan, &c->sums, &c->end_epoch))
        rc = kithi_error_set(err, KITHI_E_CORRUPT,
                             "%s is damaged: bytes %" PRIu64 " to %" PRIu64
                             ", the checksums of a checkpoint, do not match their own",
                             shown, shown_off + c->plan.table_off, shown_off + c->plan.file_size);
    if (rc < 0)
        kithi_checkpoint_close(c);
    return rc;
}

int kithi_checkpoint_read(const struct kithi_checkpoint *c, uint32_t i, void *to, struct kithi_errmsg *err)
{
    struct kithi_checkpoint_chunk chunk = kithi_checkpoint_chunk_at(&c->header, &c->plan, i);
    int rc = read_whole(c->fd, to, chunk.size, chunk.file_off);
    if (rc < 0)
        return kithi_error_set(err, rc, "%s cannot be read at byte %" PRIu64 ": %s", c->path,
                               c->shown_off + chunk.file_off,
                               rc == KITHI_E_CORRUPT ? "it ends there" : kithi_error_text(rc));
    if (kithi_crc32c(0, to, chunk.size) != c->sums[i])
        return kithi_error_set(err, KITHI_E_CORRUPT,
                               "%s is damaged: bytes %" PRIu64 " to %" PRIu64
                               " (%s) do not match their checksum",
                               c->path, c->shown_off + chunk.file_off,
                               c->shown_off + chunk.file_off + chunk.size, kithi_region_name(chunk.region));
    return 0;
}

void kithi_checkpoint_close(struct kithi_checkpoint *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    free(c->table);
    c->table = NULL;
}
