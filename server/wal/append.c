/*
 * append.c - writes groups, begins files, and fails for good.
 *
 * Owns the order of writes that WAL.md's reading rules rely on: one write at a time, with the groups that
 * gathered while the one before it was on its way; a file gets its name when its header is durable, and its
 * first group when the name is. Nothing here decides what a group holds.
 */
#include "server/wal/append.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/wal/files.h"
#include "server/wal/format.h"
#include "shm/base/assert.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/wire/op.h"

#define BUFFER_MIN  (256u << 10)
#define BUFFER_KEEP (8u << 20) /* a larger buffer is given back once its groups are durable */
#define FILE_LEAST  (1u << 20) /* a start on a disk that is nearly full makes do with this */

/* A file that has no name yet. */
struct fresh {
    int fd; /* -1: none */
    bool direct;
    uint64_t size;
};

/* The next file, made ahead on the helper thread. Lives by itself, because its log may be
 * closed while the thread is at it. */
struct spare {
    struct kithi_io_op op;
    struct kithi_io *io;
    struct kithi_wal *wal; /* NULL: closed meanwhile */
    bool running;          /* the thread has `file` */
    uint64_t size;
    struct fresh file;
    char path[KITHI_WAL_PATH_SIZE];
};

/* A group that was taken. */
struct group {
    size_t off; /* of its header in the batch */
    struct kithi_wal_group_header header;
    kithi_wal_done *done;
    void *arg;
};

/* Groups that go to the disk by one write. */
struct batch {
    uint8_t *bytes; /* aligned to KITHI_WAL_BLOCK; each group its header, ops, padding */
    size_t room;    /* bytes allocated */
    size_t size;    /* bytes to write */
    struct group *groups;
    unsigned count, group_room;
    bool rotate; /* begins a file */
};

struct kithi_wal {
    struct kithi_io *io;
    char dir[KITHI_WAL_PATH_SIZE];
    uint8_t uid[16];
    uint64_t timeline;
    uint64_t file_size;

    /* The file being written. */
    int fd;
    bool direct;
    char name[KITHI_WAL_NAME_SIZE];
    uint64_t number;
    uint64_t off;  /* where the next write goes */
    uint64_t end;  /* bytes preallocated */
    uint64_t used; /* off, counting the groups that wait */

    struct batch batches[2];
    unsigned first;       /* batches[first] is being written, in the other one groups gather */
    struct group *ended;  /* room for the groups whose done is being called; swapped with a batch's */
    unsigned ended_room;  /* groups that fit there */
    unsigned ending;      /* of them, those that were not called yet */
    uint64_t taken_epoch; /* of the last group taken */

    struct kithi_io_op write_op;
    struct kithi_io_op rotate_op;
    struct fresh next;   /* taken from the spare; becomes the file */
    uint64_t next_epoch; /* its first */
    struct kithi_errmsg rotate_err;
    struct spare *spare;
    bool spare_refused; /* making one ahead failed: the next one is made when it is needed */

    bool failed;
    struct kithi_errmsg failure;
    struct kithi_wal_stats stats;
};

static void start(struct kithi_wal *wal);

/* ---- files ---- */

static void fresh_drop(struct kithi_io *io, struct fresh *file, const char *path)
{
    if (file->fd < 0)
        return;
    kithi_io_file_close(io, file->fd); /* no op has used it; a start or a create is on a thread of its own */
    kithi_io_file_unlink(io, path);
    file->fd = -1;
}

static int fresh_make(struct kithi_io *io, const char *path, uint64_t size, struct fresh *out)
{
    struct fresh file = { .size = size };
    file.fd = kithi_io_file_create(io, path, true, &file.direct);
    int r = file.fd < 0 ? file.fd : kithi_io_file_allocate(io, file.fd, size);
    if (r == 0)
        r = kithi_io_file_sync(io, file.fd);
    if (r < 0) {
        fresh_drop(io, &file, path);
        return r;
    }
    *out = file;
    return 0;
}

/* Header, name, directory: afterwards the file is the log's last and holds no group. */
static int fresh_name(struct kithi_wal *wal, const struct fresh *file, const char *from, uint64_t number,
                      uint64_t first_epoch, char out_name[KITHI_WAL_NAME_SIZE])
{
    struct kithi_wal_file_header h = {
        .number = number, .first_epoch = first_epoch, .timeline = wal->timeline, .size = file->size
    };
    char to[KITHI_WAL_PATH_SIZE];
    void *block = NULL;
    memcpy(h.uid, wal->uid, sizeof h.uid);
    kithi_wal_file_name(out_name, first_epoch);
    int r = kithi_wal_path(to, wal->dir, out_name);
    if (r < 0)
        return r;
    r = -posix_memalign(&block, KITHI_WAL_BLOCK, KITHI_WAL_BLOCK);
    if (r < 0)
        return r;
    kithi_wal_file_header_encode(block, &h);
    r = kithi_io_file_write(wal->io, file->fd, block, KITHI_WAL_BLOCK, 0);
    free(block);
    if (r >= 0)
        r = kithi_io_file_rename(wal->io, from, to);
    if (r >= 0)
        r = kithi_io_dir_sync(wal->io, wal->dir);
    return r;
}

static void adopt(struct kithi_wal *wal, const struct fresh *file, uint64_t number, const char *name)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (!file->direct && !atomic_flag_test_and_set(&told))
        kithi_log(KITHI_LOG_INFO, "wal-buffered",
                  "dir=%s msg=the file system takes no O_DIRECT; the log is written "
                  "through the page cache",
                  wal->dir);
    wal->fd = file->fd;
    wal->direct = file->direct;
    wal->end = file->size;
    wal->number = number;
    memcpy(wal->name, name, sizeof wal->name);
    wal->stats.files++;
}

/* ---- the next file ---- */

static int spare_call(void *arg)
{
    struct spare *spare = arg;
    return fresh_make(spare->io, spare->path, spare->size, &spare->file);
}

static void spare_done(struct kithi_io_op *op, int result)
{
    struct spare *spare = op->arg;
    struct kithi_wal *wal = spare->wal;
    spare->running = false;
    if (result < 0)
        spare->file.fd = -1;
    if (!wal || result < 0) {
        fresh_drop(spare->io, &spare->file, spare->path);
        free(spare);
        if (wal) {
            wal->spare = NULL;
            wal->spare_refused = true;
        }
    }
}

/* Begun when the file is half full, so that a collection with little in it takes one file's space only. */
static void spare_begin(struct kithi_wal *wal)
{
    struct spare *spare = calloc(1, sizeof *spare);
    if (!spare || kithi_wal_path(spare->path, wal->dir, KITHI_WAL_SPARE) < 0) {
        free(spare);
        wal->spare_refused = true;
        return;
    }
    spare->io = wal->io;
    spare->wal = wal;
    spare->running = true;
    spare->size = wal->file_size;
    spare->file.fd = -1;
    spare->op.done = spare_done;
    spare->op.arg = spare;
    wal->spare = spare;
    kithi_io_call(wal->io, &spare->op, spare_call);
}

/* Make the spare here and now, blocking. */
static int spare_make(struct kithi_wal *wal, uint64_t size)
{
    if (wal->spare) {
        fresh_drop(wal->io, &wal->spare->file, wal->spare->path);
    } else {
        wal->spare = calloc(1, sizeof *wal->spare);
        if (!wal->spare)
            return -ENOMEM;
        wal->spare->io = wal->io;
        wal->spare->wal = wal;
        kithi_wal_path(wal->spare->path, wal->dir, KITHI_WAL_SPARE); /* it fitted when the log was opened */
    }
    wal->spare->size = size > wal->file_size ? size : wal->file_size;
    int r = fresh_make(wal->io, wal->spare->path, wal->spare->size, &wal->spare->file);
    if (r < 0) {
        free(wal->spare);
        wal->spare = NULL;
    }
    return r;
}

/* See to a file for a group that does not fit into this one, before it is taken: a disk that is full
 * refuses a group, and must not fail the log. */
static int spare_ensure(struct kithi_wal *wal, uint64_t size)
{
    if (wal->spare && wal->spare->running)
        return -EBUSY;
    return wal->spare && wal->spare->size >= size ? 0 : spare_make(wal, size);
}

/* ---- ending ---- */

static struct batch *writing(struct kithi_wal *wal)
{
    return &wal->batches[wal->first];
}

static struct batch *gathering(struct kithi_wal *wal)
{
    return &wal->batches[1 - wal->first];
}

/* Empty a batch; its groups stand in wal->ended until ended_tell(). */
static void batch_end(struct kithi_wal *wal, struct batch *b)
{
    struct group *groups = wal->ended;
    unsigned room = wal->ended_room;
    wal->ended = b->groups;
    wal->ended_room = b->group_room;
    wal->ending = b->count;
    b->groups = groups;
    b->group_room = room;
    b->count = 0;
    b->size = 0;
    b->rotate = false;
    if (b->room > BUFFER_KEEP) {
        free(b->bytes);
        b->bytes = NULL;
        b->room = 0;
    }
}

/* In the order of epochs. The owner may append meanwhile, and close the log when the last one is called. */
static void ended_tell(struct kithi_wal *wal, int status)
{
    const struct group *g = wal->ended;
    for (unsigned left = wal->ending; left > 0; left--, g++) {
        wal->ending = left - 1;
        g->done(g->arg, status);
    }
}

static void fail(struct kithi_wal *wal, const char *what, int error)
{
    wal->failed = true;
    kithi_error_set(&wal->failure, KITHI_E_LOG_FAILED,
                    "%s/%s: %s at byte %" PRIu64 " failed: %s (%s); nothing after epoch %" PRIu64
                    " is acknowledged: mend the disk, then start kithd again",
                    wal->dir, wal->name, what, wal->off, kithi_error_text(error), kithi_error_name(error),
                    wal->stats.last_epoch);
    bool more = gathering(wal)->count > 0;
    batch_end(wal, writing(wal));
    ended_tell(wal, KITHI_E_LOG_FAILED);
    if (more) {
        batch_end(wal, gathering(wal));
        ended_tell(wal, KITHI_E_LOG_FAILED);
    }
}

/* ---- writing ---- */

static void write_done(struct kithi_io_op *op, int result)
{
    struct kithi_wal *wal = op->arg;
    struct batch *b = writing(wal);
    if (result != (int)b->size) {
        fail(wal, "writing the log", result < 0 ? result : -EIO);
        return;
    }
    wal->off += b->size;
    wal->stats.writes++;
    wal->stats.groups += b->count;
    for (unsigned i = 0; i < b->count; i++)
        wal->stats.bytes += b->groups[i].header.len;
    wal->stats.last_epoch = b->groups[b->count - 1].header.epoch;
    batch_end(wal, b);
    /* The next write goes out before anything else. */
    wal->first = 1 - wal->first;
    if (writing(wal)->count > 0)
        start(wal);
    ended_tell(wal, 0);
}

static int rotate_call(void *arg)
{
    struct kithi_wal *wal = arg;
    char path[KITHI_WAL_PATH_SIZE], name[KITHI_WAL_NAME_SIZE];
    int r = kithi_wal_path(path, wal->dir, KITHI_WAL_SPARE);
    return r < 0 ? r : fresh_name(wal, &wal->next, path, wal->number + 1, wal->next_epoch, name);
}

static void rotate_done(struct kithi_io_op *op, int result)
{
    struct kithi_wal *wal = op->arg;
    if (result < 0) {
        fail(wal, "beginning the next log file", result);
        return;
    }
    char name[KITHI_WAL_NAME_SIZE];
    kithi_wal_file_name(name, wal->next_epoch);
    kithi_io_close(wal->io, wal->fd);
    adopt(wal, &wal->next, wal->number + 1, name);
    wal->next.fd = -1;
    wal->off = KITHI_WAL_BLOCK;
    writing(wal)->rotate = false;
    start(wal);
}

/* Write the batch whose turn it is, or first begin the file that it goes to. */
static void start(struct kithi_wal *wal)
{
    struct batch *b = writing(wal);
    if (b->rotate) {
        wal->next = wal->spare->file; /* spare_ensure() saw to it */
        wal->next_epoch = b->groups[0].header.epoch;
        free(wal->spare);
        wal->spare = NULL;
        wal->spare_refused = false;
        kithi_io_call(wal->io, &wal->rotate_op, rotate_call);
        return;
    }
    for (unsigned i = 0; i < b->count; i++) {
        struct group *g = &b->groups[i];
        g->header.number = wal->number;
        g->header.durable_epoch =
            wal->stats.last_epoch; /* of every group of a write: that of its first, less one */
        kithi_wal_group_header_encode(b->bytes + g->off, &g->header);
    }
    if (KITHI_FAULT("wal-stalls"))
        return; /* a disk that does not answer any more */
    kithi_io_write_durable(wal->io, &wal->write_op, wal->fd, b->bytes, b->size, wal->off);
}

/* Room for one more group, and size bytes in all; what is there stays. */
static int batch_reserve(struct batch *b, size_t size)
{
    if (b->count == b->group_room) {
        unsigned room = b->group_room ? 2 * b->group_room : 16;
        struct group *groups = realloc(b->groups, room * sizeof *groups);
        if (!groups)
            return -ENOMEM;
        b->groups = groups;
        b->group_room = room;
    }
    if (size <= b->room)
        return 0;
    size_t room = b->room ? b->room : BUFFER_MIN;
    while (room < size)
        room *= 2;
    void *bytes = NULL;
    if (posix_memalign(&bytes, KITHI_WAL_BLOCK, room) != 0)
        return -ENOMEM;
    if (b->size > 0)
        memcpy(bytes, b->bytes, b->size);
    free(b->bytes);
    b->bytes = bytes;
    b->room = room;
    return 0;
}

int kithi_wal_append(struct kithi_wal *wal, uint64_t epoch, const struct iovec *iov, size_t n_iov,
                     uint32_t n_ops, kithi_wal_done *done, void *arg)
{
    if (wal->failed)
        return KITHI_E_LOG_FAILED;
    size_t len = 0;
    for (size_t i = 0; i < n_iov; i++)
        len += iov[i].iov_len;
    KITHI_ASSERT(epoch == wal->taken_epoch + 1 && n_ops > 0 && n_ops <= len / KITHI_OP_HEADER &&
                 len <= KITHI_WAL_GROUP_MAX && len % 8 == 0);

    const bool idle = writing(wal)->count == 0;
    struct batch *b = idle ? writing(wal) : gathering(wal);
    const size_t size = (size_t)kithi_wal_group_size(len);
    if (b->count > 0 && (b->count >= KITHI_WAL_WRITE_GROUPS || b->size + size > KITHI_WAL_WRITE_BYTES))
        return -EBUSY;
    const bool rotate = wal->used + size > wal->end;
    /* A write goes to one file, and only the next one is made ahead. */
    if (rotate && (b->count > 0 || writing(wal)->rotate))
        return -EBUSY;
    int r = batch_reserve(b, b->size + size);
    if (r < 0)
        return r;
    if (rotate) {
        r = spare_ensure(wal, KITHI_WAL_BLOCK + size);
        if (r < 0)
            return r;
        wal->used = KITHI_WAL_BLOCK;
        wal->end = wal->spare->size; /* of the file that the following groups go to */
        b->rotate = true;
    }

    struct group *g = &b->groups[b->count++];
    uint8_t *const ops = b->bytes + b->size + KITHI_WAL_GROUP_HEADER, *p = ops;
    for (size_t i = 0; i < n_iov; i++) {
        memcpy(p, iov[i].iov_base, iov[i].iov_len);
        p += iov[i].iov_len;
    }
    memset(p, 0, size - KITHI_WAL_GROUP_HEADER - len);
    *g = (struct group){
        .off = b->size,
        .done = done,
        .arg = arg,
        .header = {
            .epoch = epoch,
            .timeline = wal->timeline,
            .len = (uint32_t)len,
            .n_ops = n_ops,
            .crc = kithi_crc32c(0, ops, size - KITHI_WAL_GROUP_HEADER),
        },
    };
    memcpy(g->header.uid, wal->uid, sizeof wal->uid);
    b->size += size;
    wal->taken_epoch = epoch;
    wal->used += size;
    if (idle)
        start(wal);
    if (!wal->spare && !wal->spare_refused && !writing(wal)->rotate && wal->used > wal->end / 2)
        spare_begin(wal);
    return 0;
}

bool kithi_wal_busy(const struct kithi_wal *wal)
{
    return wal->batches[0].count > 0 || wal->batches[1].count > 0 || wal->ending > 0;
}

uint64_t kithi_wal_durable_epoch(const struct kithi_wal *wal)
{
    return wal->stats.last_epoch;
}

const struct kithi_errmsg *kithi_wal_failure(const struct kithi_wal *wal)
{
    return wal->failed ? &wal->failure : NULL;
}

void kithi_wal_stats(const struct kithi_wal *wal, struct kithi_wal_stats *out_stats)
{
    *out_stats = wal->stats;
    out_stats->direct = wal->direct;
    out_stats->file_off = wal->off;
    memcpy(out_stats->file, wal->name, sizeof wal->name);
}

/* ---- opening and closing ---- */

/* The groups of the last write, read again into an aligned buffer, for a file of the next number. */
static int tail_read(struct kithi_wal *wal, const struct kithi_wal_report *report, struct batch *b,
                     struct kithi_errmsg *err)
{
    const size_t size = (size_t)report->tail_size;
    uint64_t file_size;
    int r = batch_reserve(b, size);
    int fd = r < 0 ? r : kithi_wal_file_open(wal->dir, report->tail_file, &file_size);
    int64_t got = fd < 0 ? fd : kithi_wal_pread(fd, b->bytes, size, report->tail_off);
    if (fd >= 0)
        close(fd);
    if (got < 0)
        return kithi_error_set(err, (int)got, "%s/%s: the last group cannot be read again: %s", wal->dir,
                               report->tail_file, kithi_error_text((int)got));
    uint64_t number = got >= 32 ? kithi_get64(b->bytes + 24) : 0, epoch = report->tail_epoch;
    bool good = (size_t)got == size;
    for (size_t off = 0; good && off < size; epoch++) {
        struct kithi_wal_group_header h;
        good = kithi_wal_group_decode(b->bytes + off, size - off, wal->uid, number, &h) == KITHI_WAL_OK &&
               h.epoch == epoch;
        if (!good)
            break;
        h.number = report->last_number + 1;
        kithi_wal_group_header_encode(b->bytes + off, &h);
        off += (size_t)kithi_wal_group_size(h.len);
    }
    if (!good || epoch != report->last_epoch + 1)
        return kithi_error_set(err, KITHI_E_LOG_DAMAGED,
                               "%s/%s at byte %" PRIu64 ": the last group changed after it was checked",
                               wal->dir, report->tail_file, report->tail_off);
    return 0;
}

/* What a crash left: a spare, and files behind the last valid group, in which none is. */
static int remove_leftovers(struct kithi_wal *wal, uint64_t first_epoch, struct kithi_errmsg *err)
{
    struct kithi_wal_file *files = NULL;
    char path[KITHI_WAL_PATH_SIZE];
    int64_t n = kithi_wal_files_list(wal->dir, &files, err);
    if (n < 0)
        return (int)n;
    int r = kithi_wal_path(path, wal->dir, KITHI_WAL_SPARE);
    if (r == 0)
        r = kithi_io_file_unlink(wal->io, path);
    if (r == -ENOENT)
        r = 0;
    for (int64_t i = 0; i < n && r == 0; i++) {
        if (files[i].first_epoch <= first_epoch)
            continue;
        r = kithi_wal_path(path, wal->dir, files[i].name);
        if (r == 0)
            r = kithi_io_file_unlink(wal->io, path);
    }
    /* Before the new file appears: it must never stand beside them. */
    if (r == 0)
        r = kithi_io_dir_sync(wal->io, wal->dir);
    free(files);
    if (r < 0)
        kithi_error_set(err, r, "%s: what an earlier run left cannot be removed: %s", wal->dir,
                        kithi_error_text(r));
    return r;
}

/* Groups of opts->more are written together as far as they fit in so many bytes. */
#define MORE_BYTES (8u << 20)

/* Encode opts->more[i] at p, whole, as it is written. */
static void more_encode(const struct kithi_wal *wal, const struct kithi_wal_open_opts *opts, uint32_t i,
                        uint8_t *p)
{
    const struct kithi_wal_content *c = &opts->more[i];
    KITHI_ASSERT(c->n_ops > 0 && c->len > 0 && c->len <= KITHI_WAL_GROUP_MAX && c->len % 8 == 0);
    size_t size = (size_t)kithi_wal_group_size(c->len);
    memcpy(p + KITHI_WAL_GROUP_HEADER, c->ops, c->len);
    memset(p + KITHI_WAL_GROUP_HEADER + c->len, 0, size - KITHI_WAL_GROUP_HEADER - c->len);
    struct kithi_wal_group_header h = {
        .number = opts->report->last_number + 1,
        .epoch = opts->report->last_epoch + 1 + i,
        .durable_epoch =
            opts->report->last_epoch + i, /* the file has its name once all of them are durable */
        .timeline = wal->timeline,
        .len = (uint32_t)c->len,
        .n_ops = c->n_ops,
        .crc = kithi_crc32c(0, p + KITHI_WAL_GROUP_HEADER, size - KITHI_WAL_GROUP_HEADER),
    };
    memcpy(h.uid, wal->uid, sizeof h.uid);
    kithi_wal_group_header_encode(p, &h);
}

/* Write opts->more to file, from off on; b lends its buffer. */
static int more_write(struct kithi_wal *wal, const struct kithi_wal_open_opts *opts, int fd, uint64_t off,
                      struct batch *b)
{
    int r = 0;
    for (uint32_t i = 0, end; i < opts->more_count && r >= 0; i = end) {
        size_t size = 0, at = 0;
        for (end = i; end < opts->more_count; end++) {
            size_t next = (size_t)kithi_wal_group_size(opts->more[end].len);
            if (end > i && size + next > MORE_BYTES)
                break;
            size += next;
        }
        r = batch_reserve(b, size);
        for (uint32_t k = i; k < end && r >= 0; k++) {
            more_encode(wal, opts, k, b->bytes + at);
            at += (size_t)kithi_wal_group_size(opts->more[k].len);
        }
        if (r >= 0)
            r = kithi_io_file_write(wal->io, fd, b->bytes, size, off);
        off += size;
    }
    return r;
}

static void batches_free(struct kithi_wal *wal)
{
    for (int i = 0; i < 2; i++) {
        free(wal->batches[i].bytes);
        free(wal->batches[i].groups);
    }
    free(wal->ended);
}

int kithi_wal_open(struct kithi_io *io, const struct kithi_wal_open_opts *opts, struct kithi_wal **out_wal,
                   struct kithi_errmsg *err)
{
    const struct kithi_wal_report *report = opts->report;
    const bool tail = report->tail_size > 0;
    const uint64_t first_epoch = tail ? report->tail_epoch : report->last_epoch + 1;
    struct fresh file = { .fd = -1 };
    char path[KITHI_WAL_PATH_SIZE], name[KITHI_WAL_NAME_SIZE];
    struct kithi_wal *wal = calloc(1, sizeof *wal);
    if (!wal)
        return kithi_error_set(err, -ENOMEM, "%s: out of memory", opts->dir);
    wal->io = io;
    wal->fd = wal->next.fd = -1;
    wal->timeline = opts->timeline;
    wal->file_size =
        kithi_round_up(opts->file_size ? opts->file_size : KITHI_WAL_FILE_SIZE_DEFAULT, KITHI_WAL_BLOCK);
    memcpy(wal->uid, opts->uid, sizeof wal->uid);
    wal->write_op = (struct kithi_io_op){ .done = write_done, .arg = wal };
    wal->rotate_op = (struct kithi_io_op){ .done = rotate_done, .arg = wal };
    snprintf(wal->dir, sizeof wal->dir, "%s", opts->dir);

    struct batch *b = &wal->batches[0];
    int r = kithi_wal_path(path, opts->dir, KITHI_WAL_NEW);
    if (r < 0) {
        kithi_error_set(err, r, "%s: the path is too long", opts->dir);
        goto out;
    }
    if (tail)
        r = tail_read(wal, report, b, err);
    if (r == 0)
        r = remove_leftovers(wal, first_epoch, err);
    if (r < 0)
        goto out;

    uint64_t size = KITHI_WAL_BLOCK + report->tail_size, off = size;
    for (uint32_t i = 0; i < opts->more_count; i++)
        size += kithi_wal_group_size(opts->more[i].len);
    r = fresh_make(io, path, size > wal->file_size ? size : wal->file_size, &file);
    if (r == -ENOSPC || r == -EDQUOT)
        r = fresh_make(io, path, size > FILE_LEAST ? size : FILE_LEAST, &file);
    /* Anew, because after a failed sync a page may read well and not be on the disk. */
    if (r == 0 && tail)
        r = kithi_io_file_write(io, file.fd, b->bytes, (size_t)report->tail_size, KITHI_WAL_BLOCK);
    if (r >= 0)
        r = more_write(wal, opts, file.fd, off, b);
    if (r >= 0)
        r = fresh_name(wal, &file, path, report->last_number + 1, first_epoch, name);
    if (r < 0) {
        kithi_error_set(err, r, "%s: a new log file cannot be made: %s", opts->dir, kithi_error_text(r));
        goto out;
    }
    adopt(wal, &file, report->last_number + 1, name);
    file.fd = -1;
    wal->off = wal->used = size;
    wal->taken_epoch = wal->stats.last_epoch = report->last_epoch + opts->more_count;
    *out_wal = wal;
    wal = NULL;
    r = 0;

out:
    fresh_drop(io, &file, path);
    if (wal)
        batches_free(wal);
    free(wal);
    return r;
}

void kithi_wal_trim(struct kithi_io *io, const char *dir, uint64_t epoch)
{
    struct kithi_wal_file *files = NULL;
    char path[KITHI_WAL_PATH_SIZE];
    int64_t n = kithi_wal_files_list(dir, &files, NULL);
    /* The oldest first; in whatever order they are gone after a crash, a scan passes over those that are left. */
    for (int64_t i = 0; i + 2 < n && files[i + 1].first_epoch <= epoch + 1; i++)
        if (kithi_wal_path(path, dir, files[i].name) == 0)
            (void)kithi_io_file_unlink(io, path);
    free(files);
}

int kithi_wal_moved(struct kithi_wal *wal, const char *dir)
{
    KITHI_ASSERT(!kithi_wal_busy(wal) && !wal->spare);
    int n = snprintf(wal->dir, sizeof wal->dir, "%s", dir);
    return n < 0 || n >= (int)sizeof wal->dir ? -ENAMETOOLONG : 0;
}

void kithi_wal_close(struct kithi_wal *wal)
{
    if (!wal)
        return;
    KITHI_ASSERT(!kithi_wal_busy(wal));
    if (wal->spare && wal->spare->running) {
        wal->spare->wal = NULL; /* spare_done() removes it */
    } else if (wal->spare) {
        fresh_drop(wal->io, &wal->spare->file, wal->spare->path);
        free(wal->spare);
    }
    kithi_io_close(wal->io, wal->next.fd);
    kithi_io_close(wal->io, wal->fd);
    batches_free(wal);
    free(wal);
}
