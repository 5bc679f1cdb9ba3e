/*
 * salvage.c - see salvage.h. The walk follows the reading rules of WAL.md (R1 to R3) as far as they hold, and
 * where scan.c would refuse the whole log, the walk says: up to here. It is more patient in one place: a file
 * header that is bad follows from the file's name and its first group, if that group checks. A log that goes on
 * from a checkpoint may begin in the middle of a file: that group becomes the first of a file of its own.
 */
#include "server/wal/salvage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/pread.h"
#include "server/wal/append.h"
#include "server/wal/files.h"
#include "shm/base/bytes.h"

#define COPY_BYTES    (1u << 20)
#define EMPTY_BYTES   (1u << 20)       /* of a file without groups; the next start begins one of its own */
#define NO_FILE_AFTER (UINT64_MAX - 1) /* so that an epoch that is counted up to it does not wrap */

struct kithi_wal_kept {
    char name[KITHI_WAL_NAME_SIZE]; /* as the copy has it, and the header */
    struct kithi_wal_file_header header;
    char source[KITHI_WAL_NAME_SIZE]; /* the file that its groups are in; "": it has none */
    uint64_t start, end; /* of the groups that are kept, in that file; zeros follow in the copy */
};

/* ---- one file ---- */

static int cannot(struct kithi_errmsg *err, int status, const char *what, const char *dir, const char *name)
{
    return kithi_error_set(err, status, "%s/%s: cannot %s: %s", dir, name, what, kithi_error_text(status));
}

int kithi_wal_look(const char *dir, const char *name, const uint8_t uid[16], struct kithi_wal_look *out,
                   struct kithi_errmsg *err)
{
    struct kithi_wal_look look = { .verdict = KITHI_WAL_BAD };
    uint8_t block[KITHI_WAL_BLOCK];
    int fd = kithi_wal_file_open(dir, name, &look.size);
    if (fd < 0)
        return cannot(err, fd, "open the log file", dir, name);
    int64_t got = kithi_pread(fd, block, sizeof block, 0);
    close(fd);
    if (got < 0)
        return cannot(err, (int)got, "read the log file", dir, name);
    if (got == (int64_t)sizeof block)
        look.verdict = kithi_wal_file_header_decode(block, uid, &look.header);
    *out = look;
    return 0;
}

bool kithi_wal_in_use(const char *dir)
{
    struct kithi_wal_file *files = NULL;
    uint64_t size;
    int64_t n = kithi_wal_files_list(dir, &files, NULL);
    int fd = n > 0 ? kithi_wal_file_open(dir, files[n - 1].name, &size) : -1;
    bool locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    free(files);
    return locked;
}

/* ---- the walk ---- */

struct walk {
    const char *dir;
    const uint8_t *uid;
    kithi_wal_group_fn *accept;
    void *arg;
    struct kithi_wal_plan *plan;
    struct kithi_errmsg *err;
    struct kithi_wal_file *files;
    int64_t n;

    const char *name; /* of the file being read */
    int fd;
    uint64_t size;
    uint64_t recycled; /* its number, if it has space of other files in it; else 0 */
    uint8_t *buf;
    size_t room;

    uint64_t last_number;
    uint32_t last_crc, last_len;
    bool ended;
};

static int end_here(struct walk *w, const char *name, uint64_t off, const char *fmt, ...) KITHI_PRINTF(4, 5);

/* The readable part ends here. Returns 0: that is a result. */
static int end_here(struct walk *w, const char *name, uint64_t off, const char *fmt, ...)
{
    struct kithi_wal_plan *plan = w->plan;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(plan->end_reason, sizeof plan->end_reason, fmt, ap);
    va_end(ap);
    snprintf(plan->end_file, sizeof plan->end_file, "%s", name);
    plan->end_off = off;
    w->ended = true;
    return 0;
}

static int reserve(struct walk *w, size_t size)
{
    if (size <= w->room)
        return 0;
    free(w->buf);
    w->room = 0;
    w->buf = malloc(size); /* at most one group: its length was checked */
    if (!w->buf)
        return kithi_error_set(w->err, -ENOMEM, "no memory for a log group of %zu bytes", size);
    w->room = size;
    return 0;
}

/* size bytes at off into w->buf. Returns 1, 0 when the file ends before, or an error. */
static int get(struct walk *w, uint64_t off, size_t size)
{
    if (off > w->size || size > w->size - off)
        return 0;
    int r = reserve(w, size);
    if (r < 0)
        return r;
    int64_t got = kithi_pread(w->fd, w->buf, size, off);
    if (got < 0)
        return cannot(w->err, (int)got, "read the log file", w->dir, w->name);
    return got == (int64_t)size;
}

static int newer(struct walk *w)
{
    return kithi_error_set(
        w->err, KITHI_E_VERSION,
        "%s/%s: written by a later version of kithd; salvage it with the kith of that version", w->dir,
        w->name);
}

/* The group at off, whatever its number when number is 0. Returns its verdict, or an error; EMPTY: the file ends. */
static int group_at(struct walk *w, uint64_t off, uint64_t number, struct kithi_wal_group_header *h)
{
    int r = get(w, off, KITHI_WAL_GROUP_HEADER);
    if (r <= 0)
        return r < 0 ? r : KITHI_WAL_EMPTY;
    uint64_t own = number ? number : kithi_get64(w->buf + 24);
    enum kithi_wal_verdict v = kithi_wal_group_header_decode(w->buf, w->uid, own, h);
    /* Old bytes in a recycled file are whatever clients once sent. */
    if (w->recycled && (v == KITHI_WAL_NEWER || v == KITHI_WAL_FOREIGN) &&
        kithi_get64(w->buf + 24) != w->recycled)
        return KITHI_WAL_STALE;
    if (v != KITHI_WAL_OK)
        return (int)v;
    size_t size = (size_t)kithi_wal_group_size(h->len);
    r = get(w, off, size);
    if (r <= 0)
        return r < 0 ? r : KITHI_WAL_BAD;
    return (int)kithi_wal_group_decode(w->buf, size, w->uid, own, h);
}

static const char *group_reason(int verdict)
{
    switch (verdict) {
    case KITHI_WAL_EMPTY: return "there is no group: zeros, or the end of the file";
    case KITHI_WAL_STALE: return "the group belongs to another file";
    case KITHI_WAL_FOREIGN: return "the group belongs to another collection";
    default: return "the group is torn or has a wrong checksum";
    }
}

static int group_take(struct walk *w, const struct kithi_wal_group_header *h, uint64_t off)
{
    const struct kithi_wal_group g = {
        .epoch = h->epoch,
        .ops = w->buf + KITHI_WAL_GROUP_HEADER,
        .len = h->len,
        .n_ops = h->n_ops,
        .timeline = h->timeline,
        .durable_epoch = h->durable_epoch,
        .crc = h->crc,
        .file = w->name,
        .off = off,
        .size = kithi_wal_group_size(h->len),
    };
    return w->accept ? w->accept(w->arg, &g) : 0;
}

/* Groups of a file up to `until`, the first epoch of the file after it. kept->end moves along. */
static int walk_groups(struct walk *w, struct kithi_wal_kept *kept, uint64_t until)
{
    struct kithi_wal_plan *plan = w->plan;
    const uint64_t first = kept->header.first_epoch;
    for (uint64_t expected = first; expected <= until; expected++) {
        struct kithi_wal_group_header h = { 0 };
        const uint64_t off = kept->end;
        const bool again = expected == first && plan->groups > 0 && first == plan->last_epoch;
        int v = group_at(w, off, kept->header.number, &h);
        if (v < 0)
            return v;
        if (v == KITHI_WAL_NEWER)
            return newer(w);
        if (v == KITHI_WAL_OK && h.epoch == expected && h.durable_epoch < expected) {
            if (again && (h.crc != w->last_crc || h.len != w->last_len))
                return end_here(w, w->name, off, "group %" PRIu64 " differs from the one in the file before",
                                expected);
            if (!again && group_take(w, &h, off) != 0)
                return end_here(w, w->name, off,
                                "group %" PRIu64 " checks, but holds no changes that this version can read",
                                expected);
            kept->end = off + kithi_wal_group_size(h.len);
            w->last_crc = h.crc;
            w->last_len = h.len;
            plan->last_epoch = expected;
            plan->groups += !again;
            plan->ops += again ? 0 : h.n_ops;
            continue;
        }
        /* A damaged group that the file before it has (rule 2a): the copy of this file begins behind it. */
        const bool differs = v == KITHI_WAL_BAD && h.epoch && (h.crc != w->last_crc || h.len != w->last_len);
        if (again && !differs && (v == KITHI_WAL_EMPTY || v == KITHI_WAL_STALE || v == KITHI_WAL_BAD)) {
            kept->start = kept->end = off + kithi_wal_group_size(w->last_len);
            kept->header.first_epoch = expected + 1;
            kithi_wal_file_name(kept->name, expected + 1);
            continue;
        }
        /* The file after this one begins where this one was left: nothing is missing. */
        if (until != NO_FILE_AFTER && expected == until)
            return 0;
        if (v == KITHI_WAL_OK && h.epoch != expected)
            return end_here(w, w->name, off, "group %" PRIu64 " stands where %" PRIu64 " was expected",
                            h.epoch, expected);
        if (v == KITHI_WAL_OK)
            return end_here(w, w->name, off, "group %" PRIu64 " says that a later one was durable", expected);
        return end_here(w, w->name, off, "group %" PRIu64 " was expected: %s", expected, group_reason(v));
    }
    return 0;
}

/* The header of file i, as it is or as it must have been. Ends the walk when neither is known. */
static int walk_header(struct walk *w, int64_t i, struct kithi_wal_file_header *out)
{
    const struct kithi_wal_file *file = &w->files[i];
    struct kithi_wal_look look;
    struct kithi_wal_group_header g;
    int r = kithi_wal_look(w->dir, file->name, w->uid, &look, w->err);
    w->recycled = 0;
    if (r < 0)
        return r;
    switch (look.verdict) {
    case KITHI_WAL_OK:
        *out = look.header;
        w->recycled = out->recycled ? out->number : 0;
        break;
    case KITHI_WAL_NEWER: return newer(w);
    case KITHI_WAL_FOREIGN: return end_here(w, w->name, 0, "the file belongs to another collection");
    default:
        r = group_at(w, KITHI_WAL_BLOCK, 0, &g);
        if (r < 0)
            return r;
        if (r != KITHI_WAL_OK || g.epoch != file->first_epoch)
            return end_here(w, w->name, 0, "the file header is bad, and so is what follows it");
        *out = (struct kithi_wal_file_header){ .number = g.number,
                                               .first_epoch = file->first_epoch,
                                               .timeline = g.timeline,
                                               .write_max = KITHI_WAL_WRITES * KITHI_WAL_WRITE_BYTES };
        memcpy(out->uid, w->uid, sizeof out->uid);
        w->plan->rebuilt++;
    }
    out->recycled = false; /* the copy is not: zeros stand behind its groups */
    /* The copy is no longer than the file is now: a size that was damaged or made up would fill the disk. */
    if (out->size > w->size || out->size == 0)
        out->size = kithi_round_up(w->size, KITHI_WAL_BLOCK);
    if (out->first_epoch != file->first_epoch || out->first_epoch == 0)
        return end_here(w, w->name, 0, "the file was made for epoch %" PRIu64 ", its name says another",
                        out->first_epoch);
    if (out->number <= w->last_number)
        return end_here(w, w->name, 0, "file number %" PRIu64 " follows %" PRIu64, out->number,
                        w->last_number);
    return 0;
}

static int walk_file(struct walk *w, int64_t i)
{
    struct kithi_wal_plan *plan = w->plan;
    const struct kithi_wal_file *file = &w->files[i];
    const uint64_t until = i + 1 < w->n ? file[1].first_epoch : NO_FILE_AFTER;
    struct kithi_wal_kept kept = { .start = KITHI_WAL_BLOCK, .end = KITHI_WAL_BLOCK };
    const uint64_t groups = plan->groups, last = plan->last_epoch;
    const uint32_t rebuilt = plan->rebuilt;
    memcpy(kept.name, file->name, sizeof kept.name);
    memcpy(kept.source, file->name, sizeof kept.source);
    int r = walk_header(w, i, &kept.header);
    if (r < 0 || w->ended)
        return r;
    if (i == 0)
        plan->last_epoch = kept.header.first_epoch - 1;
    else if (kept.header.first_epoch != last + 1 && (groups == 0 || kept.header.first_epoch != last))
        return end_here(w, w->name, 0,
                        "the file begins with epoch %" PRIu64 ", the log before it ends with %" PRIu64,
                        kept.header.first_epoch, last);
    r = walk_groups(w, &kept, until);
    if (r < 0)
        return r;
    /* A file without groups that comes first tells where the log begins; another one tells nothing. */
    if (i > 0 && kept.end == kept.start) {
        plan->rebuilt = rebuilt;
        return 0;
    }
    kept.header.size = kept.header.size > kept.end ? kept.header.size : kept.end;
    plan->bytes += kept.header.size;
    w->last_number = kept.header.number;
    plan->files[plan->file_count++] = kept;
    return 0;
}

/* Begin in the middle of file i, with the group of epoch, if it stands there. */
static int walk_from(struct walk *w, int64_t i, uint64_t epoch)
{
    struct kithi_wal_plan *plan = w->plan;
    struct kithi_wal_kept kept = { .start = 0 };
    struct kithi_wal_group_header h;
    struct kithi_wal_look look;
    const uint64_t until = i + 1 < w->n ? w->files[i + 1].first_epoch : NO_FILE_AFTER;
    int r = kithi_wal_look(w->dir, w->name, w->uid, &look, w->err);
    if (r < 0 || look.verdict == KITHI_WAL_NEWER)
        return r < 0 ? r : newer(w);
    if (look.verdict == KITHI_WAL_FOREIGN)
        return end_here(w, w->name, 0, "the file belongs to another collection");
    w->recycled = look.verdict == KITHI_WAL_OK && look.header.recycled ? look.header.number : 0;
    for (uint64_t off = KITHI_WAL_BLOCK; off < w->size && kept.start == 0; off += KITHI_WAL_BLOCK) {
        off_t data = lseek(w->fd, (off_t)off, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        if (data > (off_t)off)
            off = (uint64_t)data & ~(uint64_t)(KITHI_WAL_BLOCK - 1);
        int v = group_at(w, off, 0, &h);
        if (v < 0)
            return v;
        /* What looks like one elsewhere may stand in a damaged group, or in an old one: clients choose these bytes. */
        const bool own = (v == KITHI_WAL_OK || v == KITHI_WAL_NEWER) && look.verdict == KITHI_WAL_OK &&
                         kithi_get64(w->buf + 24) == look.header.number;
        if (v == KITHI_WAL_NEWER && (own || off == KITHI_WAL_BLOCK))
            return newer(w);
        if (v == KITHI_WAL_OK && look.verdict == KITHI_WAL_OK && !own)
            continue; /* left from a file that was here before */
        if (v == KITHI_WAL_OK && h.epoch == epoch)
            kept.start = off;
        else if (v == KITHI_WAL_OK)
            off += kithi_wal_group_size(h.len) - KITHI_WAL_BLOCK; /* what it holds is no header */
    }
    if (kept.start == 0)
        return end_here(w, w->name, KITHI_WAL_BLOCK, "group %" PRIu64 " is nowhere in it", epoch);
    kept.end = kept.start;
    kept.header =
        (struct kithi_wal_file_header){ .number = h.number, .first_epoch = epoch, .timeline = h.timeline };
    memcpy(kept.header.uid, w->uid, sizeof kept.header.uid);
    memcpy(kept.source, w->name, strlen(w->name) + 1);
    kithi_wal_file_name(kept.name, epoch);
    r = walk_groups(w, &kept, until);
    if (r < 0)
        return r;
    /* As long as the file was, and no longer: damage may have made it any length. */
    kept.header.size = kithi_round_up(w->size, KITHI_WAL_BLOCK);
    plan->bytes += kept.header.size;
    w->last_number = kept.header.number;
    plan->files[plan->file_count++] = kept;
    return 0;
}

/* A log that is begun behind epoch, and has no group. */
static void begin_empty(struct walk *w, uint64_t epoch)
{
    struct kithi_wal_kept kept = { .start = KITHI_WAL_BLOCK, .end = KITHI_WAL_BLOCK };
    kept.header =
        (struct kithi_wal_file_header){ .number = 1, .first_epoch = epoch + 1, .size = EMPTY_BYTES };
    memcpy(kept.header.uid, w->uid, sizeof kept.header.uid);
    kithi_wal_file_name(kept.name, epoch + 1);
    w->plan->bytes += kept.header.size;
    w->plan->files[w->plan->file_count++] = kept;
}

/* ---- what is lost ---- */

static void speaks_of(struct walk *w, uint64_t epoch)
{
    if (epoch > w->plan->lost_epoch)
        w->plan->lost_epoch = epoch;
}

/*
 * Headers of our groups in the open file from off on. Those of another number are old ones of a recycled file, or bytes that a client
 * chose, and nothing is lost of them.
 */
static int look_behind(struct walk *w, uint64_t off)
{
    struct kithi_wal_look look;
    int looked = kithi_wal_look(w->dir, w->name, w->uid, &look, w->err);
    if (looked < 0)
        return looked;
    while (off < w->size) {
        off_t data = lseek(w->fd, (off_t)off, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return 0;
        if (data > (off_t)off)
            off = (uint64_t)data & ~(uint64_t)(KITHI_WAL_BLOCK - 1);
        size_t want = w->size - off < COPY_BYTES ? (size_t)(w->size - off) : COPY_BYTES;
        int r = reserve(w, want);
        if (r < 0)
            return r;
        int64_t got = kithi_pread(w->fd, w->buf, want, off);
        if (got < 0)
            return cannot(w->err, (int)got, "read the log file", w->dir, w->name);
        for (int64_t at = 0; at + (int64_t)KITHI_WAL_GROUP_HEADER <= got; at += KITHI_WAL_BLOCK) {
            struct kithi_wal_group_header h;
            const uint8_t *p = w->buf + at;
            uint64_t number = look.verdict == KITHI_WAL_OK ? look.header.number : kithi_get64(p + 24);
            if (kithi_wal_group_header_decode(p, w->uid, number, &h) == KITHI_WAL_OK)
                speaks_of(w, h.epoch);
        }
        if (got == 0)
            return 0;
        off += (uint64_t)got & ~(uint64_t)(KITHI_WAL_BLOCK - 1);
        if (got < (int64_t)KITHI_WAL_BLOCK)
            return 0;
    }
    return 0;
}

static int file_open(struct walk *w, int64_t i)
{
    if (w->fd >= 0)
        close(w->fd);
    w->name = w->files[i].name;
    w->fd = kithi_wal_file_open(w->dir, w->name, &w->size);
    if (w->fd < 0)
        return cannot(w->err, w->fd, "open the log file", w->dir, w->name);
    posix_fadvise(w->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return 0;
}

static int find_lost(struct walk *w, int64_t i)
{
    int r = look_behind(w, w->plan->end_off & ~(uint64_t)(KITHI_WAL_BLOCK - 1));
    while (r == 0 && ++i < w->n) {
        /* A file is begun only when the group before its first one is durable. */
        speaks_of(w, w->files[i].first_epoch ? w->files[i].first_epoch - 1 : 0);
        r = file_open(w, i);
        if (r == 0)
            r = look_behind(w, 0);
    }
    return r;
}

static int plan_open(struct walk *w, struct kithi_wal_plan *out)
{
    memset(out, 0, sizeof *out);
    w->plan = out;
    w->fd = -1;
    w->n = kithi_wal_files_list(w->dir, &w->files, w->err);
    if (w->n < 0)
        return (int)w->n;
    if (w->n == 0)
        end_here(w, "", 0, "there is no log file");
    out->files = calloc((size_t)w->n + 1, sizeof *out->files);
    return out->files ? 0
                      : kithi_error_set(w->err, -ENOMEM, "no memory for a log of %" PRId64 " files", w->n);
}

static void plan_close(struct walk *w)
{
    if (w->fd >= 0)
        close(w->fd);
    free(w->buf);
    free(w->files);
}

/* Files from i on, as far as they can be read. Returns 0 or an error; *out_i is where it ended. */
static int walk_files(struct walk *w, int64_t i, int64_t *out_i)
{
    int r = 0;
    for (; i < w->n && r == 0 && !w->ended; i += r == 0 && !w->ended) {
        r = file_open(w, i);
        if (r == 0)
            r = walk_file(w, i);
    }
    *out_i = i;
    return r;
}

int kithi_wal_plan(const char *dir, const uint8_t uid[16], kithi_wal_group_fn *accept, void *arg,
                   struct kithi_wal_plan *out, struct kithi_errmsg *err)
{
    struct walk w = { .dir = dir, .uid = uid, .accept = accept, .arg = arg, .err = err };
    int64_t i;
    int r = plan_open(&w, out);
    if (r == 0 && w.n > 0) {
        out->first_epoch = w.files[0].first_epoch;
        out->last_epoch = out->first_epoch ? out->first_epoch - 1 : 0;
    }
    if (r == 0)
        r = walk_files(&w, 0, &i);
    if (r == 0 && w.n > 0 && w.ended)
        r = find_lost(&w, i);
    plan_close(&w);
    return r;
}

int kithi_wal_plan_after(const char *dir, const uint8_t uid[16], uint64_t epoch, kithi_wal_group_fn *accept,
                         void *arg, struct kithi_wal_plan *out, struct kithi_errmsg *err)
{
    struct walk w = { .dir = dir, .uid = uid, .accept = accept, .arg = arg, .err = err };
    int r = plan_open(&w, out);
    out->first_epoch = epoch + 1;
    out->last_epoch = epoch;
    int64_t i = 0;
    while (i + 1 < w.n && w.files[i + 1].first_epoch <= epoch + 1)
        i++;
    if (r == 0 && w.n > 0 && w.files[i].first_epoch > epoch + 1)
        end_here(&w, w.files[i].name, 0, "the log begins with epoch %" PRIu64 " only",
                 w.files[i].first_epoch);
    if (r == 0 && w.n > 0)
        r = file_open(&w, i);
    if (r == 0 && w.n > 0 && !w.ended)
        r = walk_from(&w, i, epoch + 1);
    if (r == 0 && w.ended && i > 0 && out->file_count == 0 && w.files[i].first_epoch == epoch + 1) {
        /* Rule 2a: a start has written it anew, and there it is damaged. */
        w.ended = false;
        r = file_open(&w, --i);
        if (r == 0)
            r = walk_from(&w, i, epoch + 1);
    }
    /* What is lost is behind the end, or anywhere when there is no beginning. */
    if (r == 0 && w.n > 0 && !w.ended)
        r = walk_files(&w, i + 1, &i);
    if (r == 0 && w.n > 0 && w.ended)
        r = find_lost(&w, i);
    if (r == 0 && out->file_count == 0)
        begin_empty(&w, epoch);
    plan_close(&w);
    return r;
}

void kithi_wal_plan_fini(struct kithi_wal_plan *plan)
{
    free(plan->files);
    plan->files = NULL;
    plan->file_count = 0;
}

bool kithi_wal_plan_useful(const struct kithi_wal_plan *plan)
{
    /* A log that begins later goes on from what a checkpoint holds, groups or not. */
    return plan->file_count > 0 && (plan->groups > 0 || plan->first_epoch > 1);
}

/* ---- the copy ---- */

static int put(int fd, const uint8_t *p, size_t len, uint64_t off)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return 0;
}

/* With its space, as a start would: what is written into a recycled file later must have its place. */
static int allocate(int fd, uint64_t size)
{
    int r;
    do {
        r = fallocate(fd, 0, 0, (off_t)size);
    } while (r != 0 && errno == EINTR);
    if (r != 0 && errno == EOPNOTSUPP)
        r = ftruncate(fd, (off_t)size);
    return r != 0 ? -errno : 0;
}

static int copy_file(const char *from_dir, const char *to_dir, const struct kithi_wal_kept *kept,
                     struct kithi_errmsg *err)
{
    char path[KITHI_WAL_PATH_SIZE];
    uint64_t size;
    uint8_t *buf = malloc(COPY_BYTES);
    int to = -1, r = kithi_wal_path(path, to_dir, kept->name);
    const bool any = kept->source[0] != '\0';
    int from = r < 0 ? r : any ? kithi_wal_file_open(from_dir, kept->source, &size) : -1;
    if ((from < 0 && any) || r < 0 || !buf) {
        r = cannot(err,
                   r < 0             ? r
                   : from < 0 && any ? from
                                     : -ENOMEM,
                   "read the log file", from_dir, kept->source);
        goto out;
    }
    to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
    r = to < 0 ? -errno : allocate(to, kept->header.size);
    if (r == 0) {
        kithi_wal_file_header_encode(buf, &kept->header);
        r = put(to, buf, KITHI_WAL_BLOCK, 0);
    }
    for (uint64_t off = kept->start; r == 0 && off < kept->end;) {
        size_t want = kept->end - off < COPY_BYTES ? (size_t)(kept->end - off) : COPY_BYTES;
        int64_t got = kithi_pread(from, buf, want, off);
        if (got != (int64_t)want) {
            r = cannot(err, got < 0 ? (int)got : -EIO, "read the log file again", from_dir, kept->source);
            goto out;
        }
        r = KITHI_FAULT("salvage-write-enospc") ? -ENOSPC
                                                : put(to, buf, want, off - kept->start + KITHI_WAL_BLOCK);
        off += want;
    }
    if (r == 0 && fsync(to) != 0)
        r = -errno;
    if (r < 0)
        cannot(err, r, "write the copy", to_dir, kept->name);
out:
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    free(buf);
    return r;
}

static int dir_sync(const char *dir, struct kithi_errmsg *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 || fsync(fd) != 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return r < 0 ? kithi_error_set(err, r, "%s: the directory cannot be synced: %s", dir, kithi_error_text(r))
                 : 0;
}

/* What this very run has made; never more than that. */
static void remove_copy(const char *dir, const struct kithi_wal_plan *plan)
{
    char path[KITHI_WAL_PATH_SIZE];
    for (uint32_t i = 0; i < plan->file_count; i++)
        if (kithi_wal_path(path, dir, plan->files[i].name) == 0)
            unlink(path);
    rmdir(dir);
}

/* Read the copy with the eyes of a start. */
static int check_copy(const char *dir, const uint8_t uid[16], const struct kithi_wal_plan *plan,
                      struct kithi_errmsg *err)
{
    struct kithi_wal_report report = { 0 };
    struct kithi_wal_scan_opts o = { .dir = dir, .after_epoch = plan->first_epoch - 1 };
    memcpy(o.uid, uid, sizeof o.uid);
    int r = kithi_wal_scan(&o, &report, err);
    if (r == 0 && (report.last_epoch != plan->last_epoch || report.groups != plan->groups ||
                   report.torn_file[0] || report.ignored_file[0]))
        r = kithi_error_set(err, KITHI_E_LOG_DAMAGED,
                            "%s: the copy reads as epochs up to %" PRIu64 ", and %" PRIu64 " were to be kept",
                            dir, report.last_epoch, plan->last_epoch);
    return r;
}

static int numbered(char out[KITHI_WAL_PATH_SIZE], const char *collection, const char *prefix, uint32_t n,
                    struct kithi_errmsg *err)
{
    char name[64];
    snprintf(name, sizeof name, "%s%u", prefix, n);
    return kithi_wal_path(out, collection, name) < 0
               ? kithi_error_set(err, -ENAMETOOLONG, "%s: the path is too long", collection)
               : 0;
}

static int move(const char *from, const char *to, struct kithi_errmsg *err)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    int e = errno;
    /* A file system without RENAME_NOREPLACE; the data directory is locked, so nobody is faster. */
    if (e == EINVAL && access(to, F_OK) != 0 && rename(from, to) == 0)
        return 0;
    return kithi_error_set(err, -e, "cannot rename %s to %s: %s", from, to, strerror(e));
}

int kithi_wal_salvage_copy(const char *collection, const uint8_t uid[16], const struct kithi_wal_plan *plan,
                           uint32_t n, struct kithi_errmsg *err)
{
    char wal[KITHI_WAL_PATH_SIZE], copy[KITHI_WAL_PATH_SIZE], done[KITHI_WAL_PATH_SIZE];
    int r = kithi_wal_path(wal, collection, KITHI_WAL_DIR);
    if (r < 0)
        return kithi_error_set(err, r, "%s: the path is too long", collection);
    r = numbered(copy, collection, KITHI_WAL_SALVAGING, n, err);
    if (r == 0)
        r = numbered(done, collection, KITHI_WAL_SALVAGED, n, err);
    if (r == 0)
        r = kithi_wal_settle(wal, KITHI_WAL_SETTLE_MS, NULL, err);
    if (r == 0 && mkdir(copy, 0700) != 0)
        r = kithi_error_set(err, -errno, "cannot make the directory %s: %s", copy, strerror(errno));
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < plan->file_count && r == 0; i++) {
        r = copy_file(wal, copy, &plan->files[i], err);
        KITHI_FAULT_CRASH("crash-in-salvage-copied");
    }
    if (r == 0)
        r = dir_sync(copy, err);
    if (r == 0)
        r = check_copy(copy, uid, plan, err);
    if (r == 0)
        r = move(copy, done, err);
    if (r < 0)
        remove_copy(copy, plan);
    KITHI_FAULT_CRASH("crash-in-salvage-complete");
    return r < 0 ? r : dir_sync(collection, err);
}

int kithi_wal_salvage_swap(const char *collection, uint32_t n, struct kithi_errmsg *err)
{
    char wal[KITHI_WAL_PATH_SIZE], damaged[KITHI_WAL_PATH_SIZE], good[KITHI_WAL_PATH_SIZE];
    int r = kithi_wal_path(wal, collection, KITHI_WAL_DIR);
    if (r < 0)
        return kithi_error_set(err, r, "%s: the path is too long", collection);
    r = numbered(damaged, collection, KITHI_WAL_DAMAGED, n, err);
    if (r == 0)
        r = numbered(good, collection, KITHI_WAL_SALVAGED, n, err);
    if (r < 0)
        return r;
    if (access(wal, F_OK) == 0 || errno != ENOENT) {
        r = move(wal, damaged, err);
        /* Lasting before the next one: never is the good one in place and the damaged one nowhere. */
        if (r == 0)
            r = dir_sync(collection, err);
        if (r < 0)
            return r;
    }
    KITHI_FAULT_CRASH("crash-in-salvage-moved");
    r = move(good, wal, err);
    KITHI_FAULT_CRASH("crash-in-salvage-swapped");
    return r < 0 ? r : dir_sync(collection, err);
}

/* ---- numbers ---- */

/* n of "<prefix><n>", 1 and up; 0: name is not of that kind. */
static uint32_t number_of(const char *name, const char *prefix)
{
    size_t len = strlen(prefix);
    uint64_t n = 0;
    if (strncmp(name, prefix, len) != 0)
        return 0;
    for (const char *p = name + len; *p; p++) {
        if (*p < '0' || *p > '9' || n > UINT32_MAX / 16)
            return 0;
        n = n * 10 + (uint64_t)(*p - '0');
    }
    return (uint32_t)n;
}

int kithi_wal_salvage_number(const char *collection, uint32_t *out_n, struct kithi_errmsg *err)
{
    static const char *const PREFIXES[] = { KITHI_WAL_SALVAGING, KITHI_WAL_SALVAGED, KITHI_WAL_DAMAGED };
    uint32_t highest = 0;
    DIR *d = opendir(collection);
    if (!d)
        return kithi_error_set(err, -errno, "%s cannot be listed: %s", collection, strerror(errno));
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        for (size_t i = 0; i < sizeof PREFIXES / sizeof *PREFIXES; i++) {
            uint32_t n = number_of(e->d_name, PREFIXES[i]);
            highest = n > highest ? n : highest;
        }
    closedir(d);
    *out_n = highest + 1;
    return 0;
}

uint32_t kithi_wal_salvage_interrupted(const char *collection)
{
    char wal[KITHI_WAL_PATH_SIZE], damaged[KITHI_WAL_PATH_SIZE];
    uint32_t found = 0;
    DIR *d = kithi_wal_path(wal, collection, KITHI_WAL_DIR) == 0 ? opendir(collection) : NULL;
    if (!d)
        return 0;
    bool missing = access(wal, F_OK) != 0 && errno == ENOENT;
    for (const struct dirent *e; missing && (e = readdir(d)) != NULL;) {
        uint32_t n = number_of(e->d_name, KITHI_WAL_SALVAGED);
        if (n > found && numbered(damaged, collection, KITHI_WAL_DAMAGED, n, NULL) == 0 &&
            access(damaged, F_OK) == 0)
            found = n;
    }
    closedir(d);
    return found;
}
