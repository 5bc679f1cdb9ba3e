/*
 * fresh.c - see fresh.h.
 */
#include "server/wal/fresh.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/needs.h"
#include "server/wal/files.h"
#include "server/wal/format.h"

void kithi_wal_fresh_drop(struct kithi_io *io, struct kithi_wal_fresh *file, const char *path)
{
    if (file->fd < 0)
        return;
    kithi_io_file_close(io, file->fd); /* no op has used it; a start or a create is on a thread of its own */
    kithi_io_file_unlink(io, path);
    file->fd = -1;
}

int kithi_wal_fresh_make(struct kithi_io *io, const char *path, uint64_t size, struct kithi_wal_fresh *out)
{
    struct kithi_wal_fresh file = { .size = size };
    file.fd = kithi_io_file_create(io, path, true, &file.direct);
    int r = file.fd < 0 ? file.fd : kithi_io_file_allocate(io, file.fd, size);
    if (r == 0)
        r = kithi_io_file_sync(io, file.fd);
    if (r < 0) {
        kithi_wal_fresh_drop(io, &file, path);
        return r;
    }
    *out = file;
    return 0;
}

int kithi_wal_fresh_seal(struct kithi_io *io, const struct kithi_wal_fresh *file, const uint8_t uid[16])
{
    struct kithi_wal_file_header h = { .size = file->size };
    void *block = NULL;
    memcpy(h.uid, uid, sizeof h.uid);
    int r = -posix_memalign(&block, KITHI_WAL_BLOCK, KITHI_WAL_BLOCK);
    if (r == 0)
        r = kithi_io_file_sync(io, file->fd); /* the zeros first */
    if (r == 0) {
        kithi_wal_file_header_encode(block, &h);
        r = kithi_io_file_write(io, file->fd, block, KITHI_WAL_BLOCK, 0);
    }
    free(block);
    return r < 0 ? r : 0;
}

/* The file at path, if it is one to be taken; -ENOENT when not. */
static int open_kept(struct kithi_io *io, const char *path, const uint8_t uid[16], uint64_t number,
                     uint64_t least, struct kithi_wal_fresh *out)
{
    struct kithi_wal_fresh file = { .fd = -1 };
    struct kithi_wal_file_header h;
    void *block = NULL;
    int r = -posix_memalign(&block, KITHI_WAL_BLOCK, KITHI_WAL_BLOCK);
    if (r < 0)
        return r;
    file.fd = kithi_io_file_open(io, path, true, &file.direct, &file.size);
    r = file.fd < 0 ? file.fd : kithi_io_file_read(io, file.fd, block, KITHI_WAL_BLOCK, 0);
    bool good = r == (int)KITHI_WAL_BLOCK && kithi_wal_file_header_decode(block, uid, &h) == KITHI_WAL_OK &&
                h.number < number && file.size == h.size && file.size % KITHI_WAL_BLOCK == 0 &&
                file.size >= least && file.size / 2 <= least;
    free(block);
    if (!good) {
        kithi_io_file_close(io, file.fd);
        return -ENOENT;
    }
    file.recycled = h.number > 0;
    *out = file;
    return 0;
}

/* What is kept, in the order in which it is taken. */
static void kept_name(char out[KITHI_WAL_NAME_SIZE], unsigned i)
{
    if (i == 0)
        snprintf(out, KITHI_WAL_NAME_SIZE, KITHI_WAL_SPARE);
    else
        snprintf(out, KITHI_WAL_NAME_SIZE, KITHI_WAL_RECYCLED "%u", i);
}

int kithi_wal_fresh_take(struct kithi_io *io, const char *dir, const char *name, const uint8_t uid[16],
                         uint64_t number, uint64_t least, struct kithi_wal_fresh *out)
{
    char from[KITHI_WAL_PATH_SIZE], to[KITHI_WAL_PATH_SIZE], kept[KITHI_WAL_NAME_SIZE];
    int r = kithi_wal_path(to, dir, name);
    for (unsigned i = strcmp(name, KITHI_WAL_SPARE) == 0; i <= KITHI_WAL_KEPT_MAX && r == 0; i++) {
        kept_name(kept, i);
        r = kithi_wal_path(from, dir, kept);
        /* Nobody else can take it once it has this name. */
        if (r == 0)
            r = kithi_io_file_rename(io, from, to);
        /*
         * Lasting, before anything in the file changes: it may have had a name in the log until a moment ago,
         * and must never come back under that with another content.
         */
        if (r == 0)
            r = kithi_io_dir_sync(io, dir);
        if (r == 0) {
            r = open_kept(io, to, uid, number, least, out);
            if (r == 0)
                return 0;
            kithi_io_file_unlink(io, to);
        }
        if (r == -ENOENT)
            r = 0;
    }
    return r < 0 ? r : -ENOENT;
}

int kithi_wal_fresh_keep(struct kithi_io *io, const char *dir, const char *name)
{
    char from[KITHI_WAL_PATH_SIZE], to[KITHI_WAL_PATH_SIZE], kept[KITHI_WAL_NAME_SIZE];
    uint64_t size, there;
    int r = kithi_wal_path(from, dir, name);
    if (r == 0)
        r = kithi_io_file_size(io, from, &size);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    for (unsigned i = 1; i <= KITHI_WAL_KEPT_MAX && size <= KITHI_NEED_LOG_FILE; i++) {
        kept_name(kept, i);
        if (kithi_wal_path(to, dir, kept) == 0 && kithi_io_file_size(io, to, &there) == -ENOENT)
            return kithi_io_file_rename(io, from, to);
    }
    return kithi_io_file_unlink(io, from);
}
