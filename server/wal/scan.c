/*
 * scan.c - reads a log in order and judges its end. The rules, each with its reason, are in
 * WAL.md; the functions below name the rule they carry out.
 */
#include "server/wal/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/pread.h"
#include "server/wal/files.h"
#include "server/wal/format.h"
#include "shm/base/bytes.h"

#define WINDOW_BYTES (1u << 20)

#define REMEDY                                                                                               \
    "kith wal --salvage shows and keeps what is readable, a back-up of the data directory brings back the rest"

/* Groups of a file that none behind them knows to be durable; at least the last one. */
struct unproven {
    uint64_t epoch, off;
};
struct tail {
    struct unproven *items;
    size_t from, end, capacity;
    uint64_t durable; /* the highest epoch that one of the file says is */
};

struct scan {
    const struct kithi_wal_scan_opts *opts;
    struct kithi_wal_report *report;
    struct kithi_errmsg *err;
    struct kithi_wal_file *files;
    int64_t n;

    /* The file being read, and a window of it. */
    const char *name;
    int fd;
    uint64_t size;
    uint8_t *window;
    size_t window_size; /* allocated */
    uint64_t window_off;
    size_t window_len;

    uint64_t last_epoch; /* of the last valid group */
    struct tail tail;
    uint64_t last_number;  /* of the last file */
    uint64_t proven_epoch; /* highest epoch that something says was durable */
    uint32_t last_crc, last_len;
    char last_file[KITHI_WAL_NAME_SIZE]; /* where it is */
    uint64_t last_off;
    bool spoilt;                               /* the file being read begins with a damaged copy of it */
    char last_place[KITHI_WAL_NAME_SIZE + 32]; /* where the next group was expected */
};

/* The same for the caller's program. */
static void note_damage(struct scan *s, const char *name, uint64_t off, const char *what)
{
    struct kithi_wal_damage *d = s->opts->damage;
    if (!d)
        return;
    snprintf(d->file, sizeof d->file, "%s", name);
    snprintf(d->what, sizeof d->what, "%s", what);
    d->off = off;
    d->expected = s->last_epoch ? s->last_epoch + 1 : s->n > 0 ? s->files[0].first_epoch : 0;
}

static int damaged(struct scan *s, const char *name, uint64_t off, const char *fmt, ...) KITHI_PRINTF(4, 5);

static int damaged(struct scan *s, const char *name, uint64_t off, const char *fmt, ...)
{
    char what[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    note_damage(s, name, off, what);
    return kithi_error_set(s->err, KITHI_E_LOG_DAMAGED, "%s/%s at byte %" PRIu64 ": %s; " REMEDY,
                           s->opts->dir, name, off, what);
}

/* size bytes of the file at off in memory; fewer than size remain: *out_len says how many. */
static int window_get(struct scan *s, uint64_t off, size_t size, const uint8_t **out, size_t *out_len)
{
    uint64_t left = off < s->size ? s->size - off : 0;
    size_t want = size < left ? size : (size_t)left;
    if (want == 0) { /* at the end; of an empty file there is no window at all */
        *out = s->window;
        *out_len = 0;
        return 0;
    }
    if (off < s->window_off || off + want > s->window_off + s->window_len) {
        size_t fill = want > WINDOW_BYTES ? want : left < WINDOW_BYTES ? (size_t)left : WINDOW_BYTES;
        if (fill > s->window_size) {
            free(s->window);
            s->window_len = s->window_size = 0;
            s->window = malloc(fill);
            if (!s->window)
                return kithi_error_set(s->err, -ENOMEM, "out of memory for a log group of %zu bytes", fill);
            s->window_size = fill;
        }
        int64_t got = kithi_pread(s->fd, s->window, fill, off);
        if (got < 0) {
            s->window_len = 0;
            return kithi_error_set(s->err, (int)got, "%s/%s at byte %" PRIu64 ": reading the log failed: %s",
                                   s->opts->dir, s->name, off, kithi_error_text((int)got));
        }
        s->window_off = off;
        s->window_len = (size_t)got;
        want = want < (size_t)got ? want : (size_t)got;
    }
    *out = s->window + (off - s->window_off);
    *out_len = want;
    return 0;
}

static void file_close(struct scan *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->window_len = 0;
}

static int file_open(struct scan *s, const struct kithi_wal_file *file)
{
    file_close(s);
    s->name = file->name;
    s->fd = kithi_wal_file_open(s->opts->dir, file->name, &s->size);
    if (s->fd < 0)
        return kithi_error_set(s->err, s->fd, "%s/%s: the log file cannot be opened: %s", s->opts->dir,
                               file->name, kithi_error_text(s->fd));
    posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return 0;
}

static int newer(struct scan *s, uint64_t off)
{
    return kithi_error_set(s->err, KITHI_E_VERSION,
                           "%s/%s at byte %" PRIu64 ": written by a later version of kithd; start that one",
                           s->opts->dir, s->name, off);
}

static int foreign(struct scan *s, uint64_t off, const uint8_t found[16])
{
    char a[33], b[33];
    for (int i = 0; i < 16; i++) {
        snprintf(a + 2 * i, 3, "%02x", found[i]);
        snprintf(b + 2 * i, 3, "%02x", s->opts->uid[i]);
    }
    return damaged(s, s->name, off, "belongs to another collection (uid %s, expected %s)", a, b);
}

/* What lies behind the place where the log seems to end. */
struct rest {
    uint64_t data_end; /* end of the last block that is not zero; the start when there is none */
    bool later;        /* a group of this file was found that was written when `expected` was durable */
    uint64_t later_off, later_epoch;
    uint64_t
        beside; /* highest epoch above `expected` of a group that proves nothing: it was on its way beside it */
    uint64_t own_end; /* end of the last group with an epoch above `expected` */
};

/*
 * The next block from off on that is not in a hole, and in *out_end where a hole begins behind it; the file's size when there is
 * none. Space that is allocated and was never written counts as data once its zeros were read into the page cache,
 * ahead of what was asked for, too: so these pages are let go first, or looking for holes would fill them.
 */
static uint64_t next_data(struct scan *s, uint64_t off, uint64_t *out_end)
{
    posix_fadvise(s->fd, (off_t)off, 0, POSIX_FADV_DONTNEED);
    off_t data = lseek(s->fd, (off_t)off, SEEK_DATA), hole = -1;
    if (data < 0 && errno == ENXIO)
        return s->size;
    if (data > (off_t)off)
        off = (uint64_t)data & ~(uint64_t)(KITHI_WAL_BLOCK - 1);
    if (data >= 0)
        hole = lseek(s->fd, data, SEEK_HOLE);
    *out_end = hole > (off_t)off ? (uint64_t)hole : s->size; /* a file system that does not say has none */
    return off;
}

/*
 * Rule 5: look at every block from off to `to` for a group that was written after the one that is missing
 * was durable, as it says itself: of the groups that were on their way together any may be there and any missing. number 0:
 * of any file. Holes are skipped, so that the preallocated part of a file costs nothing.
 */
static int search_rest(struct scan *s, uint64_t off, uint64_t to, uint64_t number, uint64_t expected,
                       struct rest *rest)
{
    static const uint8_t zeros[KITHI_WAL_BLOCK];
    uint64_t data_end = off; /* what lies before it was asked for holes */
    while (off < to && !rest->later) {
        if (off >= data_end) {
            off = next_data(s, off, &data_end);
            continue;
        }
        const uint8_t *p = NULL;
        size_t len = 0;
        struct kithi_wal_group_header h;
        int r = window_get(s, off, KITHI_WAL_BLOCK, &p, &len);
        if (r < 0)
            return r;
        if (len == 0)
            break;
        if (memcmp(p, zeros, len) != 0)
            rest->data_end = off + len;
        if (len >= KITHI_WAL_GROUP_HEADER) {
            enum kithi_wal_verdict v = kithi_wal_group_header_decode(p, s->opts->uid, number, &h);
            bool ours = v == KITHI_WAL_OK || (v == KITHI_WAL_STALE && number == 0);
            if (ours && h.epoch > expected)
                rest->own_end = off + kithi_wal_group_size(h.len);
            if (ours && h.epoch > expected && h.durable_epoch >= expected) {
                rest->later = true;
                rest->later_off = off;
                rest->later_epoch = h.epoch;
            } else if (ours && h.epoch > expected && h.epoch > rest->beside) {
                rest->beside = h.epoch;
            }
        }
        off += KITHI_WAL_BLOCK;
    }
    return 0;
}

/* Rule 4: the last file has no valid header. It is one that was being made, unless groups are in it. */
static int judge_headless(struct scan *s, const struct kithi_wal_file *file, const char *why)
{
    struct rest rest = { 0 };
    /* Groups of lower epochs are those of the file that it was before. */
    int r = search_rest(s, 0, s->size, 0, file->first_epoch ? file->first_epoch - 1 : 0, &rest);
    if (r < 0)
        return r;
    if (rest.later)
        return damaged(s, file->name, 0,
                       "the file header is bad (%s), and group %" PRIu64 " stands behind it at byte "
                       "%" PRIu64,
                       why, rest.later_epoch, rest.later_off);
    memcpy(s->report->ignored_file, file->name, sizeof file->name);
    snprintf(s->report->ignored_reason, sizeof s->report->ignored_reason, "%s", why);
    /* A file is begun only once the group before its first one is durable. */
    if (file->first_epoch > 0 && file->first_epoch - 1 > s->proven_epoch)
        s->proven_epoch = file->first_epoch - 1;
    return 0;
}

/* Opens a file and reads its header. Returns 1 when it is good, 0 when it is a last file to be ignored. */
static int file_begin(struct scan *s, int64_t i, struct kithi_wal_file_header *h)
{
    const struct kithi_wal_file *file = &s->files[i];
    const uint8_t *p;
    size_t len;
    int r = file_open(s, file);
    if (r == 0)
        r = window_get(s, 0, KITHI_WAL_BLOCK, &p, &len);
    if (r < 0)
        return r;
    if (len < KITHI_WAL_BLOCK)
        return damaged(s, file->name, s->size,
                       "the file has been cut off: it has %" PRIu64 " bytes, and a header alone has %u",
                       s->size, KITHI_WAL_BLOCK);
    const char *why = NULL;
    switch (kithi_wal_file_header_decode(p, s->opts->uid, h)) {
    case KITHI_WAL_EMPTY: why = "it is all zeros"; break;
    case KITHI_WAL_NEWER: return newer(s, 0);
    case KITHI_WAL_FOREIGN: return foreign(s, 0, h->uid);
    case KITHI_WAL_OK: break;
    default: why = "its checksum is wrong";
    }
    if (why && i + 1 == s->n)
        return judge_headless(s, file, why);
    if (why)
        return damaged(s, file->name, 0, "the file header is bad: %s", why);
    if (h->first_epoch != file->first_epoch || h->first_epoch == 0)
        return damaged(s, file->name, 0, "the file was made for epoch %" PRIu64 ", its name says another",
                       h->first_epoch);
    if (s->size < h->size)
        return damaged(s, file->name, s->size,
                       "the file has been cut off: it has %" PRIu64 " bytes, and was made with %" PRIu64,
                       s->size, h->size);
    return 1;
}

static int tail_push(struct scan *s, uint64_t epoch, uint64_t off)
{
    struct tail *t = &s->tail;
    if (t->end == t->capacity && t->from > t->end / 2) {
        memmove(t->items, t->items + t->from, (t->end - t->from) * sizeof *t->items);
        t->end -= t->from;
        t->from = 0;
    } else if (t->end == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 64;
        struct unproven *items = realloc(t->items, capacity * sizeof *items);
        if (!items)
            return kithi_error_set(s->err, -ENOMEM, "out of memory for the end of the log");
        t->items = items;
        t->capacity = capacity;
    }
    t->items[t->end++] = (struct unproven){ epoch, off };
    return 0;
}

static int remember(struct scan *s, const struct kithi_wal_group_header *h, uint64_t off, bool first)
{
    struct kithi_wal_report *report = s->report;
    struct tail *t = &s->tail;
    if (first) {
        t->from = t->end = t->durable = 0;
        report->lead_size = 0;
    }
    if (first && s->spoilt) {
        memcpy(report->lead_file, s->last_file, sizeof report->lead_file);
        report->lead_off = s->last_off;
        report->lead_size = kithi_wal_group_size(s->last_len);
        report->tail_epoch = s->last_epoch;
    }
    s->last_epoch = h->epoch;
    s->last_crc = h->crc;
    s->last_len = h->len;
    s->last_off = off;
    memcpy(s->last_file, s->name, strlen(s->name) + 1);
    if (h->durable_epoch > s->proven_epoch)
        s->proven_epoch = h->durable_epoch;
    if (h->durable_epoch > t->durable)
        t->durable = h->durable_epoch;
    int r = tail_push(s, h->epoch, off);
    if (r < 0)
        return r;
    /* A file with a damaged group is written anew as a whole, so that it does not stay: one day the file before it is not needed any
     * more. */
    while (!s->spoilt && t->from + 1 < t->end && t->items[t->from].epoch <= t->durable)
        t->from++;
    if (!s->spoilt)
        report->tail_epoch = t->items[t->from].epoch;
    memcpy(report->tail_file, s->name, strlen(s->name) + 1);
    report->tail_off = t->items[t->from].off;
    report->tail_size = off + kithi_wal_group_size(h->len) - report->tail_off;
    return 0;
}

static int deliver(struct scan *s, const struct kithi_wal_group_header *h, const uint8_t *p, uint64_t off)
{
    const struct kithi_wal_group group = {
        .epoch = h->epoch,
        .ops = p + KITHI_WAL_GROUP_HEADER,
        .len = h->len,
        .n_ops = h->n_ops,
        .timeline = h->timeline,
        .durable_epoch = h->durable_epoch,
        .crc = h->crc,
        .file = s->name,
        .off = off,
        .size = kithi_wal_group_size(h->len),
    };
    s->report->groups++;
    s->report->bytes += h->len;
    return s->opts->fn ? s->opts->fn(s->opts->arg, &group) : 0;
}

/* What ended a file: where, the group that was expected there, and why it is not one. */
struct end {
    uint64_t off;
    uint64_t expected;    /* its epoch */
    uint64_t search_from; /* the next place where a group may begin */
    uint64_t own_end;     /* end of the bytes there that are surely of this file; off when there are none */
    const char *why;      /* NULL: zeros, or the end of the file */
};

/* Rule 2a: a file begins with a damaged copy of the last group. Returns where the one after it stands. */
static uint64_t pass_over(struct scan *s, uint64_t off, const char *why)
{
    struct kithi_wal_report *report = s->report;
    const uint64_t next = off + kithi_wal_group_size(s->last_len);
    s->spoilt = true;
    memcpy(report->spoilt_file, s->name, strlen(s->name) + 1);
    report->spoilt_off = off;
    report->spoilt_end = next;
    report->spoilt_epoch = s->last_epoch;
    snprintf(report->spoilt_reason, sizeof report->spoilt_reason, "%s", why);
    return next;
}

/* Rules 1 to 3: the groups of one file, in order, up to the first that is not one, or up to `until`. */
static int read_groups(struct scan *s, const struct kithi_wal_file_header *file, uint64_t until,
                       struct end *end)
{
    const uint64_t number = file->number, first = file->first_epoch;
    uint64_t off = KITHI_WAL_BLOCK, expected = first;
    s->spoilt = false;
    for (;; expected++) {
        const uint8_t *p;
        size_t len;
        struct kithi_wal_group_header h;
        const bool duplicate = expected == first && first == s->last_epoch;
        *end = (struct end){
            .off = off, .expected = expected, .search_from = off + KITHI_WAL_BLOCK, .own_end = off
        };
        if (expected > until)
            return 0;
        int r = window_get(s, off, KITHI_WAL_BLOCK, &p, &len);
        if (r < 0 || len == 0)
            return r;
        if (len < KITHI_WAL_GROUP_HEADER) {
            end->why = "the file ends inside a group header";
            return 0;
        }
        enum kithi_wal_verdict verdict = kithi_wal_group_header_decode(p, s->opts->uid, number, &h);
        /* Old bytes in a recycled file are whatever clients once sent, and may look like anything but a group of its number. */
        if (file->recycled && (verdict == KITHI_WAL_NEWER || verdict == KITHI_WAL_FOREIGN) &&
            kithi_get64(p + 24) != number)
            verdict = KITHI_WAL_STALE;
        if (duplicate &&
            (verdict == KITHI_WAL_EMPTY || verdict == KITHI_WAL_STALE || verdict == KITHI_WAL_BAD)) {
            off = pass_over(s, off,
                            verdict == KITHI_WAL_EMPTY ? "the group header is zeros"
                                                       : "the group header is damaged");
            continue;
        }
        switch (verdict) {
        case KITHI_WAL_OK: break;
        case KITHI_WAL_NEWER: return newer(s, off);
        case KITHI_WAL_FOREIGN: return foreign(s, off, h.uid);
        case KITHI_WAL_EMPTY: return 0;
        case KITHI_WAL_STALE: end->why = "the group belongs to another file"; return 0;
        default:
            end->why = "the group header is torn or has a wrong checksum";
            end->own_end = off + KITHI_WAL_BLOCK;
            return 0;
        }
        if (h.epoch != expected)
            return damaged(s, s->name, off, "group %" PRIu64 " stands where group %" PRIu64 " was expected",
                           h.epoch, expected);
        if (duplicate && (h.crc != s->last_crc || h.len != s->last_len))
            return damaged(s, s->name, off, "group %" PRIu64 " differs from the one in the file before it",
                           h.epoch);
        size_t size = (size_t)kithi_wal_group_size(h.len);
        r = window_get(s, off, size, &p, &len);
        if (r < 0)
            return r;
        end->search_from = end->own_end = off + size;
        if (len < size) {
            end->why = "the file ends inside the group";
            return 0;
        }
        if (kithi_wal_group_decode(p, size, s->opts->uid, number, &h) != KITHI_WAL_OK) {
            end->why = "the group's content has a wrong checksum";
            if (!duplicate)
                return 0;
            off = pass_over(s, off, end->why);
            continue;
        }
        r = remember(s, &h, off, expected == first || (s->spoilt && expected == first + 1));
        if (r < 0)
            return r;
        if (!duplicate && h.epoch > s->opts->after_epoch) {
            r = deliver(s, &h, p, off);
            if (r != 0)
                return r;
        }
        off += size;
    }
}

/*
 * Rules 5 and 6: the end of the last file is torn, clean or damaged. What was on its way together with the missing group began
 * no later than there, so that the next write begins within the length of the longest: no further has to be looked.
 * The first write of a file may have any length.
 */
static int judge_end(struct scan *s, const struct kithi_wal_file_header *file, const struct end *end)
{
    struct rest rest = { .data_end = end->off };
    uint64_t to = s->size;
    int r = 0;
    if (file->write_max > 0 && end->off > KITHI_WAL_BLOCK && file->write_max < s->size - end->off)
        to = end->off + kithi_round_up(file->write_max, KITHI_WAL_BLOCK) + KITHI_WAL_BLOCK;
    to = to < s->size ? to : s->size;
    if (!file->recycled) /* how far the torn bytes reach */
        r = search_rest(s, end->off, to, 0, UINT64_MAX, &rest);
    if (r == 0)
        r = search_rest(s, end->search_from, to, file->number, end->expected, &rest);
    if (r < 0)
        return r;
    if (file->recycled) {
        /* Behind the end stands what the file held before: only what is surely of now is a torn write. */
        rest.data_end = rest.own_end > end->own_end ? rest.own_end : end->own_end;
        rest.data_end = rest.data_end < s->size ? rest.data_end : s->size;
    }
    const char *why = end->why ? end->why : "the group header is zeros";
    if (rest.later)
        return damaged(s, s->name, end->off,
                       "group %" PRIu64 " was expected and is damaged (%s), though group %" PRIu64
                       " at byte %" PRIu64 " proves that it was durable",
                       end->expected, why, rest.later_epoch, rest.later_off);
    if (rest.data_end > end->off) {
        memcpy(s->report->torn_file, s->name, strlen(s->name) + 1);
        s->report->torn_off = end->off;
        s->report->torn_end = rest.data_end;
        if (rest.beside > 0)
            snprintf(s->report->torn_reason, sizeof s->report->torn_reason,
                     "%s; group %" PRIu64 " behind it was on its way beside it", why, rest.beside);
        else
            snprintf(s->report->torn_reason, sizeof s->report->torn_reason, "%s", why);
    }
    return 0;
}

static int scan_file(struct scan *s, int64_t i)
{
    struct kithi_wal_file_header h;
    const struct kithi_wal_file *file = &s->files[i], *next = i + 1 < s->n ? file + 1 : NULL;
    struct end end = { 0 };
    int r = file_begin(s, i, &h);
    if (r < 0)
        return r;
    if (r == 0)
        return damaged(s, file->name, 0,
                       "the file header is bad, though another file without one follows it");
    if (h.number <= s->last_number)
        return damaged(
            s, file->name, 0,
            "its number is not above that of the file before it: files of two histories are mixed");
    /* What a file was made behind was durable before. */
    if (h.first_epoch - 1 > s->proven_epoch)
        s->proven_epoch = h.first_epoch - 1;
    if (s->last_epoch != 0 && h.first_epoch != s->last_epoch && h.first_epoch != s->last_epoch + 1)
        return damaged(s, file->name, 0,
                       "the file begins with epoch %" PRIu64 ", but the log before it ends with %" PRIu64,
                       h.first_epoch, s->last_epoch);
    s->last_number = h.number;
    s->report->files++;
    /* Behind the first epoch of the next file this one has nothing to say: a start-up cut it there. */
    r = read_groups(s, &h, next ? next->first_epoch : UINT64_MAX - 1, &end);
    if (r != 0)
        return r;
    snprintf(s->last_place, sizeof s->last_place, "%s at byte %" PRIu64, file->name, end.off);
    if (!next)
        return judge_end(s, &h, &end);
    if (end.expected < next->first_epoch)
        return damaged(s, file->name, end.off,
                       "group %" PRIu64 " was expected (%s), and the next file begins with %" PRIu64,
                       end.expected, end.why ? end.why : "the file ends here", next->first_epoch);
    return 0;
}

/* Is the first group of file i good? If it is not, the file before it may have it (rule 2a). Errors are for those who read the file. */
static bool begins_well(struct scan *s, int64_t i)
{
    struct kithi_wal_file_header file;
    struct kithi_wal_group_header h;
    const uint8_t *p = NULL;
    size_t len = 0, size;
    struct kithi_errmsg *err = s->err;
    s->err = NULL;
    bool known =
        file_begin(s, i, &file) == 1 && window_get(s, KITHI_WAL_BLOCK, KITHI_WAL_BLOCK, &p, &len) == 0;
    bool good = known && len == KITHI_WAL_BLOCK &&
                kithi_wal_group_header_decode(p, s->opts->uid, file.number, &h) == KITHI_WAL_OK;
    if (good) {
        size = (size_t)kithi_wal_group_size(h.len);
        known = window_get(s, KITHI_WAL_BLOCK, size, &p, &len) == 0;
        good = known && len == size &&
               kithi_wal_group_decode(p, size, s->opts->uid, file.number, &h) == KITHI_WAL_OK;
    }
    s->err = err;
    return good || !known;
}

/* Rule 7: what is needed and missing. */
static int judge_whole(struct scan *s)
{
    const struct kithi_wal_scan_opts *o = s->opts;
    uint64_t proven = s->proven_epoch > o->known_durable_epoch ? s->proven_epoch : o->known_durable_epoch;
    char what[200];
    if (s->report->files == 0 && (proven > 0 || o->after_epoch > 0)) {
        snprintf(what, sizeof what, "no log file is there, but epoch %" PRIu64 " was durable",
                 proven > o->after_epoch ? proven : o->after_epoch);
    } else if (proven > s->last_epoch) {
        snprintf(what, sizeof what,
                 "the log ends with epoch %" PRIu64 " (%s), but epoch %" PRIu64 " was durable", s->last_epoch,
                 s->last_place, proven);
    } else {
        return 0;
    }
    note_damage(s, "", 0, what);
    /* Only the segment or the checkpoint knows of more: nothing in the log is to be mended. */
    bool ahead = proven > s->proven_epoch && proven > s->last_epoch;
    return kithi_error_set(
        s->err, KITHI_E_LOG_DAMAGED, "%s: %s%s", o->dir, what,
        ahead
            ? ", as the segment or the newest checkpoint says; put the log back that "
              "belongs to it, or move the segment away to fall back to checkpoint and log; kith wal --salvage "
              "goes on from what is whole of both"
            : "; " REMEDY);
}

int kithi_wal_scan(const struct kithi_wal_scan_opts *opts, struct kithi_wal_report *out_report,
                   struct kithi_errmsg *err)
{
    struct kithi_wal_report report = { 0 };
    struct scan s = { .opts = opts, .report = &report, .err = err, .fd = -1 };
    int r = 0;
    s.n = kithi_wal_files_list(opts->dir, &s.files, err);
    if (s.n < 0)
        return (int)s.n;

    /* A last file that was being made says nothing about groups: the one before it is the last. */
    if (s.n > 0) {
        struct kithi_wal_file_header h;
        r = file_begin(&s, s.n - 1, &h);
        if (r < 0)
            goto out;
        s.n -= r == 0;
        r = 0;
    }
    if (s.n > 0)
        report.first_epoch = s.files[0].first_epoch;

    /* Files that end before after_epoch are passed over, the last two excepted: they hold the tail. */
    int64_t first = 0;
    while (first + 2 < s.n && opts->after_epoch < UINT64_MAX &&
           s.files[first + 1].first_epoch <= opts->after_epoch + 1)
        first++;
    if (first > 0 && !begins_well(&s, first))
        first--;
    if (s.n > 0 && s.files[first].first_epoch > 1 && s.files[first].first_epoch - 1 > opts->after_epoch) {
        r = damaged(&s, s.files[first].name, 0,
                    "the log begins with epoch %" PRIu64 ", but %" PRIu64 " is needed: files are missing",
                    s.files[first].first_epoch, opts->after_epoch + 1);
        goto out;
    }
    report.files = (uint32_t)first;
    for (int64_t i = first; i < s.n && r == 0; i++)
        r = scan_file(&s, i);
    if (r == 0 && s.last_epoch == 0 &&
        s.n > 0) /* begun and empty: what is before its first epoch is elsewhere */
        s.last_epoch = s.files[first].first_epoch - 1;
    if (r == 0)
        r = judge_whole(&s);
    if (r != 0)
        goto out;
    report.last_epoch = s.last_epoch;
    report.last_number = s.last_number;
    *out_report = report;

out:
    file_close(&s);
    free(s.tail.items);
    free(s.window);
    free(s.files);
    return r;
}
