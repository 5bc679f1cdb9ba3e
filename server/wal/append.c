/*
 * append.c - writes groups, begins files, and fails for good.
 *
 * Owns the order of writes that WAL.md's reading rules rely on: two writes under way at most, each with the groups that
 * gathered while those before it were; a file gets its name when its header is durable, and its
 * first group when the name is. Nothing here decides what a group holds.
 */
#include "server/wal/append.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/base/pread.h"
#include "server/wal/files.h"
#include "server/wal/format.h"
#include "server/wal/fresh.h"
#include "shm/base/assert.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/wire/op.h"

#define BUFFER_MIN    (256u << 10)
#define BUFFER_KEEP   (8u << 20) /* a larger buffer is given back once its groups are durable */
#define REGISTER_MOST (1u << 20) /* of a buffer: locked memory is scarce, and a large write does not notice */
#define ZERO_PIECE    (1u << 20) /* zeroed by one call of the helper thread, which others wait for */
#define FILE_LEAST    (1u << 20) /* a start on a disk that is nearly full makes do with this */
/* In recycled space zeros go ahead of writes that are this small: so many bytes, and a share of a small file. */
#define ZEROS_SMALL (32u << 10)
#define ZEROS_AHEAD (256u << 10)
#define ZEROS_SHARE 8u

/* How far the next file has got. The loop's thread moves on from one to the next, the helper carries it out. */
enum spare_step {
    SPARE_TAKE, /* one that was kept, or a new one */
    SPARE_ZERO, /* the next piece */
    SPARE_SEAL,
    SPARE_READY,
};

/* The next file, made ahead on the helper thread. Lives by itself, because its log may be
 * closed while the thread is at it. */
struct spare {
    struct kithi_io_op op;
    struct kithi_io *io;
    struct kithi_wal *wal; /* NULL: closed meanwhile */
    enum spare_step step;
    bool running; /* the thread has `file` */
    bool hurry;   /* a group waits for it: what is not zeroed yet stays so */
    bool kept;    /* on the disk it can be told from a file that is being made: it may stay there */
    uint64_t size, zeroed;
    uint64_t number; /* of the file that is written now */
    uint8_t uid[16];
    struct kithi_wal_fresh file;
    char dir[KITHI_WAL_PATH_SIZE];
    char path[KITHI_WAL_PATH_SIZE];
};

/* Zeros on their way ahead of the groups. Live by themselves, for the same reason. */
struct zeros {
    struct kithi_io_op op;
    struct kithi_wal *wal; /* NULL: closed meanwhile */
    bool running;
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
    bool rotate;     /* begins a file */
    bool registered; /* the loop knows the bytes */
    struct kithi_wal *wal;
    struct kithi_io_op op;
    uint64_t off;     /* where it goes */
    size_t write_len; /* size, and the zeros behind it */
    bool done;
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
    bool recycled;
    uint64_t size;
    char name[KITHI_WAL_NAME_SIZE];
    uint64_t number;
    uint64_t off;  /* where the next write goes */
    uint64_t end;  /* size, or that of the next file when a group that waits begins it */
    uint64_t used; /* off, counting the groups that wait */
    /* Of a recycled file. Zeros reach from the end of what was written up to there; the file's own size where it is new. */
    uint64_t zeroed;
    struct zeros *zeros; /* more of them */

    /* A ring: from `first` on those under way, behind them the one in which groups gather. */
    struct batch batches[KITHI_WAL_WRITES + 1];
    unsigned first, writing;
    bool alone;           /* nothing goes out beside the one under way */
    struct group *ended;  /* room for the groups whose done is being called; swapped with a batch's */
    unsigned ended_room;  /* groups that fit there */
    unsigned ending;      /* of them, those that were not called yet */
    uint64_t taken_epoch; /* of the last group taken */

    struct kithi_io_op rotate_op;
    struct kithi_wal_fresh next; /* taken from the spare; becomes the file */
    uint64_t next_epoch;         /* its first */
    uint64_t next_number;
    struct kithi_errmsg rotate_err;
    struct spare *spare;
    bool spare_refused; /* making one ahead failed: the next one is made when it is needed */

    bool failed;
    struct kithi_errmsg failure;
    struct kithi_wal_stats stats;
};

static void start(struct kithi_wal *wal);

static _Alignas(KITHI_WAL_BLOCK) uint8_t zero_bytes[ZEROS_AHEAD]; /* and they stay zeros */

/* ---- files ---- */

/* Where the kernel gives no random bytes: out of those that it gave the process when it began, which nobody else sees. */
static uint32_t step_without_random(void)
{
    uint64_t z[2] = { 0 };
    struct timespec now = { 0 };
    const void *given = (const void *)(uintptr_t)getauxval(AT_RANDOM); /* 16 bytes */
    if (given)
        memcpy(z, given, sizeof z);
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t x = z[0] ^ ((uint64_t)now.tv_sec << 30) ^ (uint64_t)now.tv_nsec;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ z[1] ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(x >> 32);
}

/*
 * The number of the file after the one that has `number`; 0: of the first. It is one that nobody can foresee: clients choose bytes
 * of groups, and none of these must pass for a group of the file that they are in, or get into later (WAL.md, "Numbers").
 */
static uint64_t number_after(uint64_t number)
{
    uint32_t step;
    if (getrandom(&step, sizeof step, 0) != (ssize_t)sizeof step)
        step = step_without_random();
    return number + 1 + step;
}

/* Header, name, directory: afterwards the file is the log's last and holds no group but those that were put into it
 * before. */
static int fresh_name(struct kithi_wal *wal, const struct kithi_wal_fresh *file, const char *from,
                      uint64_t number, uint64_t first_epoch, uint64_t write_max, bool empty,
                      char out_name[KITHI_WAL_NAME_SIZE])
{
    struct kithi_wal_file_header h = { .number = number,
                                       .first_epoch = first_epoch,
                                       .timeline = wal->timeline,
                                       .size = file->size,
                                       .write_max = write_max,
                                       .recycled = file->recycled };
    char to[KITHI_WAL_PATH_SIZE];
    uint8_t *blocks = NULL;
    memcpy(h.uid, wal->uid, sizeof h.uid);
    kithi_wal_file_name(out_name, first_epoch);
    int r = kithi_wal_path(to, wal->dir, out_name);
    if (r < 0)
        return r;
    r = -posix_memalign((void **)&blocks, KITHI_WAL_BLOCK, 2 * KITHI_WAL_BLOCK);
    if (r < 0)
        return r;
    kithi_wal_file_header_encode(blocks, &h);
    memset(blocks + KITHI_WAL_BLOCK, 0, KITHI_WAL_BLOCK);
    r = kithi_io_file_write(wal->io, file->fd, blocks, empty ? 2 * KITHI_WAL_BLOCK : KITHI_WAL_BLOCK, 0);
    free(blocks);
    if (r >= 0)
        r = kithi_io_file_rename(wal->io, from, to);
    if (r >= 0)
        r = kithi_io_dir_sync(wal->io, wal->dir);
    return r;
}

static void adopt(struct kithi_wal *wal, const struct kithi_wal_fresh *file, uint64_t number,
                  const char *name)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (!file->direct && !atomic_flag_test_and_set(&told))
        kithi_log(KITHI_LOG_INFO, "wal-buffered",
                  "dir=%s msg=the file system takes no O_DIRECT; the log is written "
                  "through the page cache",
                  wal->dir);
    wal->fd = file->fd;
    wal->direct = file->direct;
    wal->recycled = file->recycled;
    wal->size = file->size;
    /* At least: fresh_name() and more_write() see to it. */
    wal->zeroed = file->recycled ? 2 * KITHI_WAL_BLOCK : file->size;
    wal->number = number;
    memcpy(wal->name, name, sizeof wal->name);
    wal->stats.files++;
    wal->stats.recycled += file->recycled;
}

/* ---- the next file ---- */

static int spare_call(void *arg)
{
    struct spare *spare = arg;
    uint64_t left = spare->size - spare->zeroed;
    int r;
    switch (spare->step) {
    case SPARE_TAKE:
        r = kithi_wal_fresh_take(spare->io, spare->dir, KITHI_WAL_SPARE, spare->uid, spare->number + 1,
                                 spare->size, &spare->file);
        spare->kept = r == 0;
        return r == -ENOENT ? kithi_wal_fresh_make(spare->io, spare->path, spare->size, &spare->file) : r;
    case SPARE_ZERO:
        return kithi_io_file_zero(spare->io, spare->file.fd, spare->zeroed,
                                  left < ZERO_PIECE ? left : ZERO_PIECE);
    default: return kithi_wal_fresh_seal(spare->io, &spare->file, spare->uid);
    }
}

/* What follows a step that was done. */
static enum spare_step spare_next(struct spare *spare)
{
    switch (spare->step) {
    case SPARE_TAKE:
        if (spare->kept)
            return SPARE_READY;
        break;
    case SPARE_ZERO: spare->zeroed += ZERO_PIECE; break;
    default: spare->kept = true; return SPARE_READY;
    }
    return spare->hurry || spare->zeroed >= spare->size ? SPARE_SEAL : SPARE_ZERO;
}

/* The log does without it. A file that the next start can use stays; and so does any file where the log was closed meanwhile: its
 * directory may have another name by now, and another log may be in one of this name. The next start takes it, or removes it. */
static void spare_free(struct spare *spare)
{
    if ((spare->kept || !spare->wal) && spare->file.fd >= 0) {
        kithi_io_file_close(spare->io, spare->file.fd);
        spare->file.fd = -1;
    }
    kithi_wal_fresh_drop(spare->io, &spare->file, spare->path);
    free(spare);
}

static void spare_done(struct kithi_io_op *op, int result)
{
    struct spare *spare = op->arg;
    struct kithi_wal *wal = spare->wal;
    if (result >= 0)
        spare->step = spare_next(spare);
    spare->running = false;
    if (wal && result >= 0 && spare->step != SPARE_READY) {
        spare->running = true;
        kithi_io_call(spare->io, &spare->op, spare_call);
    } else if (!wal || result < 0) {
        if (wal) {
            wal->spare = NULL;
            wal->spare_refused = true;
        }
        spare_free(spare);
    }
}

static struct spare *spare_new(struct kithi_wal *wal, uint64_t size)
{
    struct spare *spare = calloc(1, sizeof *spare);
    if (!spare)
        return NULL;
    spare->io = wal->io;
    spare->wal = wal;
    spare->size = size;
    spare->number = wal->number;
    spare->file.fd = -1;
    spare->op = (struct kithi_io_op){ .done = spare_done, .arg = spare };
    memcpy(spare->uid, wal->uid, sizeof spare->uid);
    memcpy(spare->dir, wal->dir, sizeof spare->dir);
    kithi_wal_path(spare->path, wal->dir, KITHI_WAL_SPARE); /* it fitted when the log was opened */
    return spare;
}

/* Begun when the file is half full, so that a collection with little in it takes one file's space only. */
static void spare_begin(struct kithi_wal *wal)
{
    wal->spare = spare_new(wal, wal->file_size);
    if (!wal->spare) {
        wal->spare_refused = true;
        return;
    }
    wal->spare->running = true;
    kithi_io_call(wal->io, &wal->spare->op, spare_call);
}

/* Make the spare here and now, blocking. */
static int spare_make(struct kithi_wal *wal, uint64_t size)
{
    if (wal->spare) {
        spare_free(wal->spare);
        wal->spare = NULL;
    }
    struct spare *spare = spare_new(wal, size > wal->file_size ? size : wal->file_size);
    if (!spare)
        return -ENOMEM;
    int r = kithi_wal_fresh_make(wal->io, spare->path, spare->size, &spare->file);
    spare->step = SPARE_READY;
    if (r < 0) {
        free(spare);
        return r;
    }
    wal->spare = spare;
    return 0;
}

/* See to a file for a group that does not fit into this one, before it is taken: a disk that is full
 * refuses a group, and must not fail the log. */
static int spare_ensure(struct kithi_wal *wal, uint64_t size)
{
    struct spare *spare = wal->spare;
    if (spare && spare->running) {
        spare->hurry = true;
        return -EBUSY;
    }
    return spare && spare->file.size >= size ? 0 : spare_make(wal, size);
}

/* ---- ending ---- */

/* The i-th write under way; behind them the one whose groups gather. */
static struct batch *batch_at(const struct kithi_wal *wal, unsigned i)
{
    return (struct batch *)&wal->batches[(wal->first + i) % (KITHI_WAL_WRITES + 1)];
}

static struct batch *gathering(const struct kithi_wal *wal)
{
    return batch_at(wal, wal->writing);
}

static void bytes_free(struct kithi_io *io, struct batch *b)
{
    if (b->registered)
        kithi_io_unregister_memory(io, b->bytes);
    free(b->bytes);
    b->bytes = NULL;
    b->registered = false;
    b->room = 0;
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
    b->rotate = b->done = false;
    if (b->room > BUFFER_KEEP)
        bytes_free(wal->io, b);
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

static void fail(struct kithi_wal *wal, const char *what, uint64_t off, int error)
{
    if (wal->failed)
        return;
    wal->failed = true;
    kithi_error_set(&wal->failure, KITHI_E_LOG_FAILED,
                    "%s/%s: %s at byte %" PRIu64 " failed: %s (%s); nothing after epoch %" PRIu64
                    " is acknowledged: mend the disk, then start kithd again",
                    wal->dir, wal->name, what, off, kithi_error_text(error), kithi_error_name(error),
                    wal->stats.last_epoch);
}

/* ---- writing ---- */

static void count(struct kithi_wal *wal, const struct batch *b)
{
    wal->stats.file_off = b->off + b->size;
    wal->stats.writes++;
    wal->stats.groups += b->count;
    for (unsigned i = 0; i < b->count; i++)
        wal->stats.bytes += b->groups[i].header.len;
    wal->stats.last_epoch = b->groups[b->count - 1].header.epoch;
}

/* End the writes that are done, in their order; once the log has failed those that come after it fail with it. */
static void writes_end(struct kithi_wal *wal)
{
    for (bool more = true; more;) {
        struct batch *b = batch_at(wal, 0);
        if (wal->writing > 0 ? !b->done : !wal->failed || b->count == 0)
            return;
        if (!wal->failed)
            count(wal, b);
        batch_end(wal, b);
        if (wal->writing > 0) {
            wal->first = (wal->first + 1) % (KITHI_WAL_WRITES + 1);
            wal->writing--;
            wal->alone = false;
        }
        /* The next write goes out before anything else. */
        start(wal);
        /* If there is no more, the log may be closed by the last one it tells. */
        more = wal->writing > 0 || gathering(wal)->count > 0;
        ended_tell(wal, wal->failed ? KITHI_E_LOG_FAILED : 0);
    }
}

static void write_done(struct kithi_io_op *op, int result)
{
    struct batch *b = op->arg;
    b->done = true;
    if (result != (int)b->write_len) /* at once, whatever is before it: nothing is written any more */
        fail(b->wal, "writing the log", b->off, result < 0 ? result : -EIO);
    writes_end(b->wal);
}

static int rotate_call(void *arg)
{
    struct kithi_wal *wal = arg;
    char path[KITHI_WAL_PATH_SIZE], name[KITHI_WAL_NAME_SIZE];
    int r = kithi_wal_path(path, wal->dir, KITHI_WAL_SPARE);
    return r < 0 ? r
                 : fresh_name(wal, &wal->next, path, wal->next_number, wal->next_epoch,
                              KITHI_WAL_WRITES * KITHI_WAL_WRITE_BYTES, true, name);
}

/*
 * Zeros behind a write that ends at off: in recycled space they say, as elsewhere what was never written says it, that the
 * log ends there. The next write goes over them.
 */
static size_t fence(bool recycled, uint64_t off, uint64_t file_size)
{
    return recycled && off < file_size ? KITHI_WAL_BLOCK : 0;
}

/* Whether zeros stand behind a write that ends at off already. */
static bool is_fenced(const struct kithi_wal *wal, uint64_t off)
{
    return off + fence(wal->recycled, off, wal->size) <= wal->zeroed;
}

static void zeros_done(struct kithi_io_op *op, int result)
{
    struct zeros *z = op->arg;
    struct kithi_wal *wal = z->wal;
    z->running = false;
    if (!wal) {
        free(z);
        return;
    }
    if (result != (int)op->len)
        fail(wal, "zeroing the log", wal->zeroed, result < 0 ? result : -EIO);
    else
        wal->zeroed += op->len;
    start(wal);
    writes_end(wal);
}

/* Have zeros ahead of small writes, so that they need not bring them along. */
static void zero_ahead(struct kithi_wal *wal, size_t size)
{
    uint64_t left = wal->size - wal->zeroed, ahead = kithi_round_up(wal->size / ZEROS_SHARE, KITHI_WAL_BLOCK);
    ahead = ahead < ZEROS_AHEAD ? ahead : ZEROS_AHEAD;
    if (!wal->direct || wal->zeros->running || left == 0 || size > ZEROS_SMALL ||
        wal->zeroed > wal->off + ahead / 2)
        return;
    wal->zeros->running = true;
    kithi_io_write_durable(wal->io, &wal->zeros->op, wal->fd, zero_bytes, left < ahead ? left : ahead,
                           wal->zeroed);
}

/* Write what stands in a batch at the end of the file. */
static void batch_write(struct kithi_wal *wal, struct batch *b)
{
    for (unsigned i = 0; i < b->count; i++) {
        struct group *g = &b->groups[i];
        g->header.number = wal->number;
        g->header.durable_epoch = wal->stats.last_epoch; /* the same of all groups of a write */
        kithi_wal_group_header_encode(b->bytes + g->off, &g->header);
    }
    b->off = wal->off;
    b->write_len = b->size;
    wal->off += b->size;
    if (!is_fenced(wal, wal->off)) {
        /* The next one goes over these zeros: not before they are there. */
        wal->alone = true;
        b->write_len += fence(wal->recycled, wal->off, wal->size);
        memset(b->bytes + b->size, 0, b->write_len - b->size);
        wal->zeroed = b->off + b->write_len;
    }
    if (!b->registered && b->room <= REGISTER_MOST) {
        kithi_io_register_memory(wal->io, b->bytes, b->room);
        b->registered = true;
    }
    if (KITHI_FAULT("wal-stalls"))
        return; /* a disk that does not answer any more */
    kithi_io_write_durable(wal->io, &b->op, wal->fd, b->bytes, b->write_len, b->off);
    zero_ahead(wal, b->size);
}

static void rotate_done(struct kithi_io_op *op, int result)
{
    struct kithi_wal *wal = op->arg;
    struct batch *b = batch_at(wal, 0);
    if (result < 0) {
        fail(wal, "beginning the next log file", wal->off, result);
        b->done = true;
        writes_end(wal);
        return;
    }
    char name[KITHI_WAL_NAME_SIZE];
    kithi_wal_file_name(name, wal->next_epoch);
    kithi_io_close(wal->io, wal->fd);
    adopt(wal, &wal->next, wal->next_number, name);
    wal->next.fd = -1;
    wal->off = wal->stats.file_off = KITHI_WAL_BLOCK;
    b->rotate = wal->alone = false;
    batch_write(wal, b);
    start(wal);
}

/* Begin the next file, for the groups of b. */
static void rotate(struct kithi_wal *wal, const struct batch *b)
{
    wal->next = wal->spare->file; /* spare_ensure() saw to it */
    wal->next_epoch = b->groups[0].header.epoch;
    wal->next_number = number_after(wal->number);
    free(wal->spare);
    wal->spare = NULL;
    wal->spare_refused = false;
    wal->alone = true;
    kithi_io_call(wal->io, &wal->rotate_op, rotate_call);
}

/* Write what has gathered, or first begin the file that it goes to, unless it has to wait for what is under way. */
static void start(struct kithi_wal *wal)
{
    struct batch *b = gathering(wal);
    bool idle = wal->writing == 0 && !wal->zeros->running;
    /* Through the page cache an error is told once for each descriptor, to whichever sync asks first: one at a time there. */
    if (!wal->direct && !idle)
        return;
    if (wal->failed || b->count == 0 || wal->writing == KITHI_WAL_WRITES || wal->alone ||
        (!idle && (b->rotate || !is_fenced(wal, wal->off + b->size))))
        return;
    wal->writing++;
    if (b->rotate)
        rotate(wal, b);
    else
        batch_write(wal, b);
}

/* Room for one more group, and for size bytes in all and the fence; what is there stays. */
static int batch_reserve(struct kithi_io *io, struct batch *b, size_t size)
{
    size += KITHI_WAL_BLOCK;
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
    bytes_free(io, b);
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

    struct batch *b = gathering(wal);
    const size_t size = (size_t)kithi_wal_group_size(len);
    if (b->count > 0 && (b->count >= KITHI_WAL_WRITE_GROUPS || b->size + size > KITHI_WAL_WRITE_BYTES))
        return -EBUSY;
    /* A write that is longer than most begins a file: readers know then how far behind a gap the next one may begin. */
    const bool begins =
        wal->used + size > wal->end || (size > KITHI_WAL_WRITE_BYTES && wal->used > KITHI_WAL_BLOCK);
    /* A write goes to one file, and only the next one is made ahead. */
    if (begins && (b->count > 0 || batch_at(wal, 0)->rotate))
        return -EBUSY;
    int r = batch_reserve(wal->io, b, b->size + size);
    if (r < 0)
        return r;
    if (begins) {
        r = spare_ensure(wal, KITHI_WAL_BLOCK + size);
        if (r < 0)
            return r;
        wal->used = KITHI_WAL_BLOCK;
        wal->end = wal->spare->file.size; /* of the file that the following groups go to */
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
    start(wal);
    if (!wal->spare && !wal->spare_refused && !batch_at(wal, 0)->rotate && wal->used > wal->end / 2)
        spare_begin(wal);
    return 0;
}

bool kithi_wal_busy(const struct kithi_wal *wal)
{
    return wal->writing > 0 || gathering(wal)->count > 0 || wal->ending > 0;
}

bool kithi_wal_preparing(const struct kithi_wal *wal)
{
    return wal->spare && wal->spare->running;
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
    memcpy(out_stats->file, wal->name, sizeof wal->name);
}

/* ---- opening and closing ---- */

/* Groups from *epoch on, read again to bytes. */
static int part_read(const struct kithi_wal *wal, const char *name, uint64_t off, size_t size, uint8_t *bytes,
                     uint64_t *epoch, struct kithi_errmsg *err)
{
    uint64_t file_size;
    int fd = kithi_wal_file_open(wal->dir, name, &file_size);
    int64_t got = fd < 0 ? fd : kithi_pread(fd, bytes, size, off);
    if (fd >= 0)
        close(fd);
    if (got < 0)
        return kithi_error_set(err, (int)got, "%s/%s: the last group cannot be read again: %s", wal->dir,
                               name, kithi_error_text((int)got));
    uint64_t number = got >= 32 ? kithi_get64(bytes + 24) : 0;
    bool good = (size_t)got == size;
    for (size_t at = 0; good && at < size; ++*epoch) {
        struct kithi_wal_group_header h;
        good = kithi_wal_group_decode(bytes + at, size - at, wal->uid, number, &h) == KITHI_WAL_OK &&
               h.epoch == *epoch;
        if (good)
            at += (size_t)kithi_wal_group_size(h.len);
    }
    return good ? 0
                : kithi_error_set(err, KITHI_E_LOG_DAMAGED,
                                  "%s/%s at byte %" PRIu64 ": the last group changed after it was checked",
                                  wal->dir, name, off);
}

static size_t tail_bytes(const struct kithi_wal_report *report)
{
    return (size_t)(report->lead_size + report->tail_size);
}

/* The groups that none behind them says were durable, read again into an aligned buffer. */
static int tail_read(struct kithi_wal *wal, const struct kithi_wal_report *report, struct batch *b,
                     struct kithi_errmsg *err)
{
    uint64_t epoch = report->tail_epoch;
    int r = batch_reserve(wal->io, b, tail_bytes(report));
    if (r < 0)
        return kithi_error_set(err, r, "%s: no memory for the last groups", wal->dir);
    if (report->lead_size > 0)
        r = part_read(wal, report->lead_file, report->lead_off, (size_t)report->lead_size, b->bytes, &epoch,
                      err);
    if (r == 0)
        r = part_read(wal, report->tail_file, report->tail_off, (size_t)report->tail_size,
                      b->bytes + report->lead_size, &epoch, err);
    if (r == 0 && epoch != report->last_epoch + 1)
        r = kithi_error_set(err, KITHI_E_LOG_DAMAGED,
                            "%s/%s at byte %" PRIu64 ": the last group changed after it was checked",
                            wal->dir, report->tail_file, report->tail_off);
    return r;
}

/* They were decoded before. */
static void tail_renumber(uint8_t *bytes, size_t size, uint64_t number)
{
    for (size_t off = 0; off < size;) {
        struct kithi_wal_group_header h;
        uint8_t uid[16];
        memcpy(uid, bytes + off + 8, sizeof uid);
        (void)kithi_wal_group_header_decode(bytes + off, uid, kithi_get64(bytes + off + 24), &h);
        h.number = number;
        kithi_wal_group_header_encode(bytes + off, &h);
        off += (size_t)kithi_wal_group_size(h.len);
    }
}

/* What a crash left: files behind the last valid group, in which none is. */
static int remove_leftovers(struct kithi_wal *wal, uint64_t first_epoch, struct kithi_errmsg *err)
{
    struct kithi_wal_file *files = NULL;
    char path[KITHI_WAL_PATH_SIZE];
    int64_t n = kithi_wal_files_list(wal->dir, &files, err);
    if (n < 0)
        return (int)n;
    int r = 0;
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

/* Encode opts->more[i] at p, whole, as it is written. */
static void more_encode(const struct kithi_wal *wal, const struct kithi_wal_open_opts *opts, uint64_t number,
                        uint32_t i, uint8_t *p)
{
    const struct kithi_wal_content *c = &opts->more[i];
    KITHI_ASSERT(c->n_ops > 0 && c->len > 0 && c->len <= KITHI_WAL_GROUP_MAX && c->len % 8 == 0);
    size_t size = (size_t)kithi_wal_group_size(c->len);
    memcpy(p + KITHI_WAL_GROUP_HEADER, c->ops, c->len);
    memset(p + KITHI_WAL_GROUP_HEADER + c->len, 0, size - KITHI_WAL_GROUP_HEADER - c->len);
    struct kithi_wal_group_header h = {
        .number = number,
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

/* Write opts->more to file, from off on, several groups together; b lends its buffer. */
static int more_write(struct kithi_wal *wal, const struct kithi_wal_open_opts *opts,
                      const struct kithi_wal_fresh *file, uint64_t number, uint64_t off, struct batch *b)
{
    int r = 0;
    for (uint32_t i = 0, end; i < opts->more_count && r >= 0; i = end) {
        size_t size = 0, at = 0;
        for (end = i; end < opts->more_count; end++) {
            size_t next = (size_t)kithi_wal_group_size(opts->more[end].len);
            if (end > i && size + next > KITHI_WAL_WRITE_BYTES)
                break;
            size += next;
        }
        r = batch_reserve(wal->io, b, size);
        for (uint32_t k = i; k < end && r >= 0; k++) {
            more_encode(wal, opts, number, k, b->bytes + at);
            at += (size_t)kithi_wal_group_size(opts->more[k].len);
        }
        const size_t zeros = end == opts->more_count ? fence(file->recycled, off + size, file->size) : 0;
        if (r >= 0) {
            memset(b->bytes + size, 0, zeros);
            r = kithi_io_file_write(wal->io, file->fd, b->bytes, size + zeros, off);
        }
        off += size;
    }
    return r;
}

static void batches_free(struct kithi_wal *wal)
{
    for (unsigned i = 0; i < KITHI_WAL_WRITES + 1; i++) {
        bytes_free(wal->io, &wal->batches[i]);
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
    struct kithi_wal_fresh file = { .fd = -1 };
    char path[KITHI_WAL_PATH_SIZE], name[KITHI_WAL_NAME_SIZE];
    struct kithi_wal *wal = calloc(1, sizeof *wal);
    struct zeros *z = calloc(1, sizeof *z);
    if (!wal || !z) {
        free(wal);
        free(z);
        return kithi_error_set(err, -ENOMEM, "%s: out of memory", opts->dir);
    }
    wal->zeros = z;
    *z = (struct zeros){ .op = { .done = zeros_done, .arg = z }, .wal = wal };
    wal->io = io;
    wal->fd = wal->next.fd = -1;
    wal->timeline = opts->timeline;
    wal->file_size =
        kithi_round_up(opts->file_size ? opts->file_size : KITHI_WAL_FILE_SIZE_DEFAULT, KITHI_WAL_BLOCK);
    memcpy(wal->uid, opts->uid, sizeof wal->uid);
    for (unsigned i = 0; i < KITHI_WAL_WRITES + 1; i++) {
        wal->batches[i].wal = wal;
        wal->batches[i].op = (struct kithi_io_op){ .done = write_done, .arg = &wal->batches[i] };
    }
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

    const uint64_t off = KITHI_WAL_BLOCK + tail_bytes(report);
    uint64_t size = off, write_max = KITHI_WAL_WRITES * KITHI_WAL_WRITE_BYTES;
    for (uint32_t i = 0; i < opts->more_count; i++) {
        uint64_t group = kithi_wal_group_size(opts->more[i].len);
        size += group;
        write_max = KITHI_WAL_WRITES * group > write_max ? KITHI_WAL_WRITES * group : write_max;
    }
    const uint64_t least = size > wal->file_size ? size : wal->file_size;
    r = kithi_wal_fresh_take(io, opts->dir, KITHI_WAL_NEW, wal->uid, report->last_number + 1, least, &file);
    if (r == -ENOENT)
        r = kithi_wal_fresh_make(io, path, least, &file);
    if (r == -ENOSPC || r == -EDQUOT)
        r = kithi_wal_fresh_make(io, path, size > FILE_LEAST ? size : FILE_LEAST, &file);
    const uint64_t number = number_after(report->last_number);
    /* Anew, because after a failed sync a page may read well and not be on the disk. */
    if (r == 0 && tail) {
        tail_renumber(b->bytes, tail_bytes(report), number);
        size_t zeros = opts->more_count == 0 ? fence(file.recycled, size, file.size) : 0;
        memset(b->bytes + tail_bytes(report), 0, zeros);
        r = kithi_io_file_write(io, file.fd, b->bytes, tail_bytes(report) + zeros, KITHI_WAL_BLOCK);
    }
    if (r >= 0)
        r = more_write(wal, opts, &file, number, off, b);
    if (r >= 0)
        r = fresh_name(wal, &file, path, number, first_epoch, write_max, size == KITHI_WAL_BLOCK, name);
    if (r < 0) {
        kithi_error_set(err, r, "%s: a new log file cannot be made: %s", opts->dir, kithi_error_text(r));
        goto out;
    }
    adopt(wal, &file, number, name);
    file.fd = -1;
    wal->end = wal->size;
    wal->off = wal->used = wal->stats.file_off = size;
    if (wal->recycled)
        wal->zeroed = size + fence(true, size, wal->size);
    wal->taken_epoch = wal->stats.last_epoch = report->last_epoch + opts->more_count;
    *out_wal = wal;
    wal = NULL;
    r = 0;

out:
    kithi_wal_fresh_drop(io, &file, path);
    if (wal) {
        batches_free(wal);
        free(wal->zeros);
    }
    free(wal);
    return r;
}

void kithi_wal_trim(struct kithi_io *io, const char *dir, uint64_t epoch, bool keep)
{
    struct kithi_wal_file *files = NULL;
    char path[KITHI_WAL_PATH_SIZE];
    int64_t n = kithi_wal_files_list(dir, &files, NULL);
    int r = 0;
    /* The oldest first, and none before those before it are gone for good: a gap would look like a file that is missing. */
    for (int64_t i = 0; i + 2 < n && files[i + 1].first_epoch <= epoch + 1 && r == 0; i++) {
        r = kithi_io_dir_sync(io, dir);
        if (r == 0 && keep)
            r = kithi_wal_fresh_keep(io, dir, files[i].name);
        else if (r == 0)
            r = kithi_wal_path(path, dir, files[i].name);
        if (r == 0 && !keep)
            r = kithi_io_file_unlink(io, path);
    }
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
        wal->spare->wal = NULL; /* spare_done() sees to it */
    } else if (wal->spare) {
        spare_free(wal->spare);
    }
    if (wal->zeros->running) {
        wal->zeros->wal = NULL; /* zeros_done() sees to it */
        wal->zeros->op.told_end = true;
    } else {
        free(wal->zeros);
    }
    kithi_io_close(wal->io, wal->next.fd);
    kithi_io_close(wal->io, wal->fd);
    batches_free(wal);
    free(wal);
}
