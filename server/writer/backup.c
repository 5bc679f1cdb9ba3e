/*
 * backup.c - see backup.h.
 */
#include "server/writer/backup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/base/pread.h"
#include "server/checkpoint/backup.h"
#include "server/checkpoint/read.h"
#include "server/wal/files.h"
#include "server/wal/format.h"
#include "server/wal/scan.h"
#include "server/writer/collection.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"

#define PIECE_BYTES (1u << 20) /* of the log; of a checkpoint: its chunks, which are about as large */
/* Of the groups in a back-up. Those that they have in the log are nobody's concern but the log's (WAL.md, "Numbers"). */
#define FILE_NUMBER 1u

/* The group that is being sent: pieces end where they end. */
struct under_way {
    uint64_t epoch;   /* its, or that of the next one */
    uint64_t off;     /* where it begins, in its file */
    uint64_t left;    /* bytes of it that were not read yet; 0: the next one begins */
    uint32_t crc, of; /* what its header says, and that of what was read */
};

/* Groups that follow each other in one file of the log. */
struct extent {
    int fd;
    uint64_t off, len;
    char file[KITHI_WAL_NAME_SIZE];
};

struct kithi_backup {
    struct kithi_daemon *daemon;
    struct kithi_io_op op;
    struct kithi_errmsg err;

    /* Until it is open. */
    struct kithi_collection *collection;
    struct kithi_request *begun;

    bool open, counted;  /* counted: among the daemon's backups */
    bool damaged_before; /* the log is, in a file that it needs, and not where it needs it */
    struct kithi_backup_header header;
    struct kithi_checkpoint checkpoint;
    struct extent *extents;
    uint32_t extent_count, extent_room;

    /* Where it is: header, checkpoint's header, its chunks, its table, extents. */
    uint64_t next;
    uint32_t extent;
    uint64_t extent_done;
    struct under_way group;
    struct kithi_request *queue; /* the oldest first */
    unsigned char *piece;
    size_t piece_len, piece_room;
};

struct kithi_backup *kithi_backup_new(struct kithi_daemon *d)
{
    struct kithi_backup *b = calloc(1, sizeof *b);
    if (b) {
        b->daemon = d;
        b->op.arg = b;
        b->checkpoint.fd = -1;
    }
    return b;
}

void kithi_backup_free(struct kithi_backup *b)
{
    if (!b) {
        return;
    }
    b->daemon->backups -= b->counted;
    kithi_checkpoint_close(&b->checkpoint);
    for (uint32_t i = 0; i < b->extent_count; i++) {
        if (i == 0 || b->extents[i].fd != b->extents[i - 1].fd) {
            close(b->extents[i].fd);
        }
    }
    free(b->extents);
    free(b->piece);
    free(b);
}

/* ---- the beginning ---- */

static int take_extent(void *arg, const struct kithi_wal_group *g)
{
    struct kithi_backup *b = arg;
    struct extent *last = b->extent_count ? &b->extents[b->extent_count - 1] : NULL;
    bool same = last && strcmp(last->file, g->file) == 0;
    b->header.log_bytes += g->size;
    if (same && last->off + last->len == g->off) {
        last->len += g->size;
    } else {
        if (b->extent_count == b->extent_room) {
            uint32_t room = b->extent_room ? 2 * b->extent_room : 8;
            struct extent *more = realloc(b->extents, room * sizeof *more);
            if (!more) {
                return kithi_error_set(&b->err, -ENOMEM, "no memory for a back-up");
            }
            b->extents = more;
            b->extent_room = room;
            last = same ? &b->extents[b->extent_count - 1] : NULL;
        }
        uint64_t size;
        struct extent e = { .off = g->off, .len = g->size };
        e.fd = same ? last->fd : kithi_wal_file_open(b->collection->wal_dir, g->file, &size);
        if (e.fd < 0) {
            return kithi_error_set(&b->err, e.fd, "%s/%s: the log file cannot be opened: %s",
                                   b->collection->wal_dir, g->file, kithi_error_text(e.fd));
        }
        memcpy(e.file, g->file, strlen(g->file) + 1);
        b->extents[b->extent_count++] = e;
    }
    return g->epoch >= b->header.last_epoch; /* what comes after it is being written */
}

/* The groups that were committed while the checkpoint was copied. */
static int find_groups(struct kithi_backup *b)
{
    struct kithi_wal_report report;
    struct kithi_wal_damage damage = { .file = "" };
    struct kithi_wal_scan_opts opts = { .dir = b->collection->wal_dir,
                                        .after_epoch = b->header.epoch,
                                        .known_durable_epoch = b->header.last_epoch,
                                        .fn = take_extent,
                                        .arg = b,
                                        .damage = &damage };
    memcpy(opts.uid, b->header.uid, sizeof opts.uid);
    if (b->header.last_epoch == b->header.epoch) {
        return 0;
    }
    int status = kithi_wal_scan(&opts, &report, &b->err);
    /* A file is read from its beginning: another checkpoint would not help. */
    b->damaged_before = status == KITHI_E_LOG_DAMAGED && damage.file[0] && damage.expected <= b->header.epoch;
    if (b->damaged_before) {
        return kithi_error_set(&b->err, status,
                               "the log file %s of %s is damaged at byte %" PRIu64
                               " (%.120s), before what a back-up needs of it: back-ups can be made "
                               "while nobody writes, and once the log is in its next file",
                               damage.file, b->header.name, damage.off, damage.what);
    }
    return status == 1 ? 0 : status == 0 ? -EIO : status;
}

static int open_call(void *arg)
{
    struct kithi_backup *b = arg;
    char name[KITHI_CHECKPOINT_NAME_SIZE], path[KITHI_PATH_MAX];
    kithi_checkpoint_name(name, b->header.epoch);
    int status = kithi_path(path, &b->err, "%s/%s", b->collection->data_dir, name);
    if (!status) {
        status = kithi_checkpoint_open(path, b->header.uid, &b->checkpoint, &b->err);
        if (status) {
            b->checkpoint.fd = -1;
            return status;
        }
    }
    b->header.last_epoch = b->checkpoint.end_epoch;
    b->group.epoch = b->header.epoch + 1;
    b->header.checkpoint_bytes = b->checkpoint.plan.file_size;
    b->piece_room = b->checkpoint.plan.chunk_max > PIECE_BYTES ? b->checkpoint.plan.chunk_max : PIECE_BYTES;
    if (b->piece_room < b->checkpoint.plan.table_size) {
        b->piece_room = (size_t)b->checkpoint.plan.table_size;
    }
    if (!status && b->piece_room > KITHI_FRAME_MAX - 4096) {
        return kithi_error_set(&b->err, KITHI_E_TOO_LARGE, "%s has pieces of %zu bytes", path, b->piece_room);
    }
    void *piece = NULL;
    if (!status && posix_memalign(&piece, KITHI_BACKUP_BLOCK, b->piece_room) != 0) {
        return kithi_error_set(&b->err, -ENOMEM, "no memory for a back-up");
    }
    b->piece = piece;
    return status ? status : find_groups(b);
}

/* What is read is not what was written: another checkpoint takes the place of this one and its groups, also with nothing changed. */
static void distrust(struct kithi_backup *b, int status)
{
    struct kithi_collection *c = kithi_daemon_find_uid(b->daemon, b->header.uid);
    char why[sizeof b->err.text];
    if ((status != KITHI_E_CORRUPT && status != KITHI_E_LOG_DAMAGED && status != -ENOENT && status != -EIO) ||
        b->damaged_before) {
        return;
    }
    if (c) {
        kithi_checkpointer_distrust(c, b->header.epoch);
    }
    memcpy(why, b->err.text, sizeof why);
    kithi_error_set(&b->err, status, "%.300s; try again: another checkpoint takes its place", why);
}

static void pump(struct kithi_backup *b);

static void open_done(struct kithi_io_op *op, int status)
{
    struct kithi_backup *b = op->arg;
    struct kithi_collection *c = b->collection;
    struct kithi_request *r = b->begun;
    b->collection = NULL;
    b->begun = NULL;
    c->checkpointer.giving--;
    b->daemon->again = true;
    if (status) {
        distrust(b, status);
        kithi_log(KITHI_LOG_WARN, "backup-failed", "name=%s status=%s msg=%s", c->settings.name,
                  kithi_error_name(status), b->err.text);
        kithi_request_refuse(r, KITHI_NO_ITEM, &b->err);
        pump(b); /* a client may have asked for pieces already */
        return;
    }
    b->open = true;
    struct kithi_backup_begun begun = { .bytes = kithi_backup_size(&b->header),
                                        .live = b->checkpoint.header.live };
    struct kithi_answer a = {
        .item = KITHI_NO_ITEM, .epoch = b->header.last_epoch, .text = &begun, .text_len = sizeof begun
    };
    kithi_log(KITHI_LOG_INFO, "backup",
              "name=%s epoch=%" PRIu64 " bytes=%" PRIu64 " of_them_log=%" PRIu64
              " msg=is being read by a client",
              c->settings.name, b->header.last_epoch, begun.bytes, b->header.log_bytes);
    kithi_request_answer(r, &a);
    pump(b);
}

void kithi_backup_open(struct kithi_collection *c, struct kithi_request *r)
{
    struct kithi_backup *b = r->backup;
    const struct kithi_settings *s = &c->settings;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    b->header = (struct kithi_backup_header){
        .epoch = c->checkpointer.last_epoch,
        .created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
        .wanted = s->wanted,
        .keep = s->keep,
        .chosen = s->chosen,
        .quantization = s->chosen ? s->geometry.quantization : 0,
        .code_bits = s->chosen ? s->geometry.code_bits : 0,
        .fixed = s->fixed,
    };
    memcpy(b->header.uid, s->uid, sizeof b->header.uid);
    memcpy(b->header.name, s->name, strlen(s->name) + 1);
    memcpy(b->header.index, s->index, strlen(s->index) + 1);
    b->collection = c;
    b->begun = r;
    c->checkpointer.giving++;
    if (!b->counted) {
        b->counted = true;
        b->daemon->backups++;
    }
    b->op.done = open_done;
    kithi_io_call(b->daemon->io, &b->op, open_call);
}

/* ---- pieces ---- */

static int damaged(struct kithi_backup *b, const struct extent *e, const char *what)
{
    return kithi_error_set(&b->err, KITHI_E_LOG_DAMAGED,
                           "the log file %s of %s is damaged: group %" PRIu64 " at byte %" PRIu64
                           " was good when this back-up began, and %s: look after the disk",
                           e->file, b->header.name, b->group.epoch, b->group.off, what);
}

/*
 * Compare the groups of b->piece, or the parts of them that it has, with their checksums: they were, when the back-up began, and what
 * lies on a disk changes. off: of the piece, in the file. Their headers get another file number.
 */
static int check_groups(struct kithi_backup *b, const struct extent *e, uint64_t off, size_t len)
{
    struct under_way *g = &b->group;
    for (size_t at = 0, part, head; at < len; at += part) {
        unsigned char *p = b->piece + at;
        head = 0;
        if (g->left == 0) {
            struct kithi_wal_group_header h;
            g->off = off + at;
            /* Groups are multiples of a block long, and so are pieces: a header is in one piece. */
            if (kithi_wal_group_header_decode(p, b->header.uid, kithi_get64(p + 24), &h) != KITHI_WAL_OK ||
                h.epoch != g->epoch) {
                return damaged(b, e, "its header is not the same any more");
            }
            g->left = kithi_wal_group_size(h.len);
            if (g->left > e->off + e->len - g->off) {
                return damaged(b, e, "is longer now");
            }
            g->crc = h.crc;
            g->of = 0;
            h.number = FILE_NUMBER;
            kithi_wal_group_header_encode(p, &h);
            head = KITHI_WAL_GROUP_HEADER;
        }
        part = g->left < len - at ? (size_t)g->left : len - at;
        g->of = kithi_crc32c(g->of, p + head, part - head);
        g->left -= part;
        if (g->left == 0) {
            if (g->of != g->crc) {
                return damaged(b, e, "does not match its checksum any more");
            }
            g->epoch++;
        }
    }
    return 0;
}

/* Bytes of the log. */
static int read_log(struct kithi_backup *b)
{
    const struct extent *e = &b->extents[b->extent];
    uint64_t left = e->len - b->extent_done, off = e->off + b->extent_done;
    size_t len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    int64_t got = kithi_pread(e->fd, b->piece, len, off);
    if (got != (int64_t)len) {
        int status = got < 0 ? (int)got : KITHI_E_CORRUPT;
        return kithi_error_set(&b->err, status,
                               "the log file %s of %s cannot be read at byte %" PRIu64 ": %s", e->file,
                               b->header.name, off, got < 0 ? kithi_error_text(status) : "it was cut off");
    }
    int status = check_groups(b, e, off, len);
    if (status) {
        return status;
    }
    b->piece_len = len;
    b->extent_done += len;
    if (b->extent_done == e->len) {
        b->extent++;
        b->extent_done = 0;
    }
    return 0;
}

static int piece_call(void *arg)
{
    struct kithi_backup *b = arg;
    const struct kithi_checkpoint *k = &b->checkpoint;
    uint64_t at = b->next;
    int status = 0;
    b->piece_len = 0;
    if (at < 2) {
        if (at == 0) {
            kithi_backup_header_encode(b->piece, &b->header);
        } else {
            kithi_checkpoint_header_encode(b->piece, &k->header);
        }
        b->piece_len = KITHI_BACKUP_BLOCK;
    } else if (at - 2 < k->plan.chunk_count) {
        uint32_t i = (uint32_t)(at - 2);
        status = kithi_checkpoint_read(k, i, b->piece, &b->err);
        b->piece_len = kithi_checkpoint_chunk_at(&k->header, &k->plan, i).size;
    } else if (at - 2 == k->plan.chunk_count) {
        memcpy(b->piece, k->table, k->plan.table_size);
        b->piece_len = (size_t)k->plan.table_size;
    } else if (b->extent < b->extent_count) {
        status = read_log(b);
    }
    b->next++;
    return status;
}

static void piece_done(struct kithi_io_op *op, int status)
{
    struct kithi_backup *b = op->arg;
    struct kithi_request *r = b->queue;
    b->queue = r->next;
    if (status) {
        b->open = false; /* a client that goes on would get a file with a hole in it */
        distrust(b, status);
        kithi_log(KITHI_LOG_WARN, "backup-failed", "name=%s status=%s msg=%s", b->header.name,
                  kithi_error_name(status), b->err.text);
        kithi_request_refuse(r, KITHI_NO_ITEM, &b->err);
    } else {
        struct kithi_answer a = {
            .item = KITHI_NO_ITEM, .epoch = b->header.last_epoch, .text = b->piece, .text_len = b->piece_len
        };
        kithi_request_answer(r, &a);
    }
    pump(b);
}

static void pump(struct kithi_backup *b)
{
    struct kithi_errmsg err;
    while (b->queue && !b->op.busy) {
        struct kithi_request *r = b->queue;
        if (b->open) {
            b->op.done = piece_done;
            kithi_io_call(b->daemon->io, &b->op, piece_call);
            return;
        }
        b->queue = r->next;
        kithi_error_set(&err, KITHI_E_PROTOCOL, "no back-up has begun on this connection, or it has failed");
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
    }
}

void kithi_backup_next(struct kithi_backup *b, struct kithi_request *r)
{
    struct kithi_request **at = &b->queue;
    while (*at) {
        at = &(*at)->next;
    }
    r->next = NULL;
    *at = r;
    pump(b);
}
