/*
 * io_sim.c - the simulated disk of io_sim.h.
 *
 * A file is what reads return, which lies in the real directory as it changes, and an image of what survives. A write
 * goes to the first and, until it is synced, to the list of writes that the disk may or may not have taken. A write that
 * failed stays in that list for good: no later sync brings it to the disk, as after a failed sync on Linux the pages count
 * as clean. Names work alike, directory by directory.
 */
#include "server/base/io_sim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/io_priv.h"
#include "shm/base/assert.h"

#define SECTOR    512u
#define BLOCK     4096u
#define NAME_SIZE 160u
#define DIR_SIZE  4096u
#define FIRST_FD  (1 << 20) /* unlike any real descriptor */

struct image {
    uint8_t *bytes;
    size_t size;
};

/* A write the disk may have taken, wholly, in part, or not. */
struct dirty {
    struct dirty *next;
    bool lost; /* its sync failed: it is in the cache only */
    uint64_t off;
    size_t len;
    uint8_t bytes[];
};

struct sim_file {
    int fd;           /* of the real file; -1: nobody of this life has it open */
    size_t seen_size; /* of that */
    struct image disk;
    struct dirty *dirty;
};

struct entry {
    char name[NAME_SIZE]; /* from the simulator's directory on; "": free */
    int file;
};

/* Names that are there. */
struct names {
    struct entry *entries;
    size_t count;
};

/* One change of a directory, until a sync. */
struct change {
    char from[NAME_SIZE], to[NAME_SIZE]; /* create: to; unlink: from; rename: both */
    int file;
};

/* Durable bytes that were damaged, as they were before. */
struct harm {
    int file;
    uint64_t off;
    size_t len;
    uint8_t *other; /* what the disk does not hold now: the bytes before, or while it is hidden those after */
};

struct sim {
    struct kithi_io base;
    char dir[DIR_SIZE];
    uint64_t rand;
    uint64_t ops, fail_at, power_at;
    int fail_error;
    bool fail_forever;
    bool dead;  /* nothing of this life reaches files any more */
    bool holds; /* durable writes stay in flight */
    bool misdirects;
    bool crashing; /* what was not durable is being lost: whatever a file has now is */
    struct sim_file *files;
    size_t file_count;
    struct names seen, disk;
    struct change *changes;
    size_t change_count;
    struct harm *harms; /* the oldest first */
    size_t harm_count;
    struct kithi_io_list pending;
    bool woken;
};

/* How an operation ends. */
enum outcome {
    OUTCOME_DONE,
    OUTCOME_FAILED, /* it has no effect, or part of one */
    OUTCOME_CUT,    /* the end came meanwhile: it has happened, and nobody hears of it */
    OUTCOME_NONE,   /* the end came before */
};

/* splitmix64 */
static uint64_t draw(struct sim *s)
{
    uint64_t z = (s->rand += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void *checked(void *p)
{
    KITHI_ASSERT(p); /* a test without memory is no test */
    return p;
}

static enum outcome outcome(struct sim *s, int *out_error)
{
    *out_error = -EIO;
    if (s->dead)
        return OUTCOME_NONE;
    s->ops++;
    if (s->power_at && s->ops >= s->power_at) {
        s->dead = true;
        return draw(s) % 2 ? OUTCOME_CUT : OUTCOME_NONE;
    }
    bool hit = s->fail_at != 0 && (s->ops == s->fail_at || (s->fail_forever && s->ops > s->fail_at));
    *out_error = hit ? -s->fail_error : 0;
    return hit ? OUTCOME_FAILED : OUTCOME_DONE;
}

static bool happens(enum outcome o)
{
    return o == OUTCOME_DONE || o == OUTCOME_CUT;
}

/* ---- images ---- */

static void image_resize(struct image *image, size_t size)
{
    if (size <= image->size)
        return;
    image->bytes = checked(realloc(image->bytes, size));
    memset(image->bytes + image->size, 0, size - image->size);
    image->size = size;
}

static void image_put(struct image *image, const void *bytes, size_t len, uint64_t off)
{
    image_resize(image, (size_t)off + len);
    memcpy(image->bytes + off, bytes, len);
}

/* What is written over damaged bytes is there whether the damage is hidden or not. */
static void disk_put(struct sim *s, struct sim_file *file, const uint8_t *bytes, size_t len, uint64_t off)
{
    image_put(&file->disk, bytes, len, off);
    for (size_t i = 0; i < s->harm_count; i++) {
        const struct harm *h = &s->harms[i];
        uint64_t from = h->off > off ? h->off : off;
        uint64_t to = h->off + h->len < off + len ? h->off + h->len : off + len;
        if (h->file == (int)(file - s->files) && from < to)
            memcpy(h->other + (from - h->off), bytes + (from - off), (size_t)(to - from));
    }
}

static void dirty_add(struct sim_file *file, const void *bytes, size_t len, uint64_t off, bool lost)
{
    struct dirty *d = checked(malloc(sizeof *d + len)), **end = &file->dirty;
    *d = (struct dirty){ .lost = lost, .off = off, .len = len };
    memcpy(d->bytes, bytes, len);
    while (*end)
        end = &(*end)->next;
    *end = d;
}

/* Whatever of an older write the disk takes later, these bytes are newer. */
static void dirty_overlay(struct dirty *d, const struct dirty *end, const uint8_t *bytes, size_t len,
                          uint64_t off)
{
    for (; d != end; d = d->next) {
        uint64_t from = d->off > off ? d->off : off;
        uint64_t to = d->off + d->len < off + len ? d->off + d->len : off + len;
        if (from < to)
            memcpy(d->bytes + (from - d->off), bytes + (from - off), (size_t)(to - from));
    }
}

static void dirty_drop(struct sim_file *file)
{
    while (file->dirty) {
        struct dirty *next = file->dirty->next;
        free(file->dirty);
        file->dirty = next;
    }
}

/* Whatever is written and not lost is on the disk. */
static void dirty_flush(struct sim *s, struct sim_file *file)
{
    for (struct dirty **at = &file->dirty; *at;) {
        struct dirty *d = *at;
        if (d->lost) {
            at = &d->next;
            continue;
        }
        disk_put(s, file, d->bytes, d->len, d->off);
        dirty_overlay(file->dirty, d, d->bytes, d->len, d->off);
        *at = d->next;
        free(d);
    }
    image_resize(&file->disk, file->seen_size);
}

/* ---- names ---- */

static struct entry *entry_find(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (names->entries[i].name[0] && strcmp(names->entries[i].name, name) == 0)
            return &names->entries[i];
    return NULL;
}

static void entry_put(struct names *names, const char *name, int file)
{
    struct entry *e = entry_find(names, name);
    for (size_t i = 0; !e && i < names->count; i++)
        if (!names->entries[i].name[0])
            e = &names->entries[i];
    if (!e) {
        names->entries = checked(realloc(names->entries, (names->count + 1) * sizeof *names->entries));
        e = &names->entries[names->count++];
    }
    snprintf(e->name, sizeof e->name, "%s", name);
    e->file = file;
}

static void names_copy(struct names *to, const struct names *from)
{
    to->count = 0;
    for (size_t i = 0; i < from->count; i++)
        if (from->entries[i].name[0])
            entry_put(to, from->entries[i].name, from->entries[i].file);
}

static void change_apply(struct names *names, const struct change *c)
{
    struct entry *from = c->from[0] ? entry_find(names, c->from) : NULL;
    if (from)
        from->name[0] = '\0';
    if (c->to[0])
        entry_put(names, c->to, c->file);
}

static void change_add(struct sim *s, const char *from, const char *to, int file)
{
    struct change c = { .file = file };
    snprintf(c.from, sizeof c.from, "%s", from);
    snprintf(c.to, sizeof c.to, "%s", to);
    s->changes = checked(realloc(s->changes, (s->change_count + 1) * sizeof *s->changes));
    s->changes[s->change_count++] = c;
    change_apply(&s->seen, &c);
}

/* A path as it is called here: from the simulator's directory on. */
static const char *name_of(const struct sim *s, const char *path)
{
    size_t len = strlen(s->dir);
    KITHI_ASSERT(strncmp(path, s->dir, len) == 0 && (path[len] == '/' || path[len] == '\0'));
    KITHI_ASSERT(strlen(path + len) < NAME_SIZE);
    return path[len] ? path + len + 1 : "";
}

static void path_of(const struct sim *s, const char *name, char out[DIR_SIZE + NAME_SIZE])
{
    snprintf(out, DIR_SIZE + NAME_SIZE, "%s/%s", s->dir, name);
}

/* Does the file of this name lie in that directory, and not below? */
static bool is_in(const char *name, const char *dir)
{
    const char *slash = strrchr(name, '/');
    size_t len = slash ? (size_t)(slash - name) : 0;
    return strlen(dir) == len && strncmp(name, dir, len) == 0;
}

static struct sim_file *file_of(struct sim *s, int fd)
{
    size_t i = (size_t)(fd - FIRST_FD);
    return fd >= FIRST_FD && i < s->file_count ? &s->files[i] : NULL;
}

/* ---- the real directory ---- */

static void real_write(int fd, const void *bytes, size_t len, uint64_t off)
{
    KITHI_ASSERT(fd >= 0 && pwrite(fd, bytes, len, (off_t)off) == (ssize_t)len);
}

static int real_open(const struct sim *s, const char *name, int flags)
{
    char path[DIR_SIZE + NAME_SIZE];
    path_of(s, name, path);
    return open(path, flags | O_RDWR | O_CLOEXEC, 0640);
}

static void see_write(struct sim_file *file, const void *bytes, size_t len, uint64_t off)
{
    real_write(file->fd, bytes, len, off);
    if (file->seen_size < off + len)
        file->seen_size = (size_t)off + len;
}

/* ---- file operations ---- */

static int sim_create(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct)
{
    struct sim *s = (struct sim *)io;
    int error;
    enum outcome o = outcome(s, &error);
    if (!happens(o))
        return error;
    unlink(path);
    int fd = real_open(s, name_of(s, path), O_CREAT | O_EXCL);
    if (fd < 0)
        return -errno;
    s->files = checked(realloc(s->files, (s->file_count + 1) * sizeof *s->files));
    s->files[s->file_count] = (struct sim_file){ .fd = fd };
    change_add(s, "", name_of(s, path), (int)s->file_count);
    *out_direct = want_direct;
    s->file_count++;
    return error ? error : FIRST_FD + (int)s->file_count - 1;
}

static int sim_open_file(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct,
                         uint64_t *out_size)
{
    struct sim *s = (struct sim *)io;
    int error;
    enum outcome o = outcome(s, &error);
    const struct entry *e = entry_find(&s->seen, name_of(s, path));
    if (!happens(o) || !e)
        return error ? error : -ENOENT;
    struct sim_file *file = &s->files[e->file];
    if (file->fd < 0)
        file->fd = real_open(s, e->name, 0);
    if (file->fd < 0)
        return -errno;
    *out_direct = want_direct;
    *out_size = file->seen_size;
    return error ? error : FIRST_FD + e->file;
}

static int sim_read(struct kithi_io *io, int fd, void *buf, size_t len, uint64_t off)
{
    struct sim *s = (struct sim *)io;
    const struct sim_file *file = file_of(s, fd);
    int error;
    enum outcome o = outcome(s, &error);
    if (!file)
        return -EBADF;
    return happens(o) && !error ? (int)pread(file->fd, buf, len, (off_t)off) : error;
}

static int sim_size(struct kithi_io *io, const char *path, uint64_t *out_size)
{
    struct sim *s = (struct sim *)io;
    int error;
    enum outcome o = outcome(s, &error);
    const struct entry *e = entry_find(&s->seen, name_of(s, path));
    if (!happens(o) || !e)
        return error ? error : -ENOENT;
    *out_size = s->files[e->file].seen_size;
    return error;
}

static int sim_allocate(struct kithi_io *io, int fd, uint64_t len)
{
    struct sim *s = (struct sim *)io;
    struct sim_file *file = file_of(s, fd);
    int error;
    enum outcome o = outcome(s, &error);
    if (!file)
        return -EBADF;
    if (happens(o) && file->seen_size < len) {
        KITHI_ASSERT(ftruncate(file->fd, (off_t)len) == 0);
        file->seen_size = (size_t)len;
    }
    return error;
}

static int write_to(struct sim *s, int fd, const void *buf, size_t len, uint64_t off, bool durable)
{
    struct sim_file *file = file_of(s, fd);
    int error;
    enum outcome o = outcome(s, &error);
    if (!file)
        return -EBADF;
    if (o == OUTCOME_NONE)
        return error;
    if (o != OUTCOME_DONE) { /* nobody knows how far it came */
        size_t part = (size_t)(draw(s) % (len / SECTOR + 1)) * SECTOR;
        see_write(file, buf, part, off);
        dirty_add(file, buf, part, off, o == OUTCOME_FAILED);
        return error;
    }
    see_write(file, buf, len, off);
    if (!durable) {
        dirty_add(file, buf, len, off, false);
        return (int)len;
    }
    disk_put(s, file, buf, len, off);
    dirty_overlay(file->dirty, NULL, buf, len, off);
    return (int)len;
}

static int sim_write(struct kithi_io *io, int fd, const void *buf, size_t len, uint64_t off)
{
    return write_to((struct sim *)io, fd, buf, len, off, true);
}

static int sim_zero(struct kithi_io *io, int fd, uint64_t off, uint64_t len)
{
    void *zeros = checked(calloc(1, len ? (size_t)len : 1));
    int r = write_to((struct sim *)io, fd, zeros, (size_t)len, off, false);
    free(zeros);
    return r < 0 ? r : 0;
}

static int sim_sync(struct kithi_io *io, int fd)
{
    struct sim *s = (struct sim *)io;
    struct sim_file *file = file_of(s, fd);
    int error;
    enum outcome o = outcome(s, &error);
    if (!file)
        return -EBADF;
    if (happens(o))
        dirty_flush(s, file);
    for (struct dirty *d = file->dirty; d && o == OUTCOME_FAILED; d = d->next)
        d->lost = true;
    return error;
}

static int sim_rename(struct kithi_io *io, const char *from, const char *to)
{
    struct sim *s = (struct sim *)io;
    int error;
    enum outcome o = outcome(s, &error);
    const struct entry *e = entry_find(&s->seen, name_of(s, from));
    if (!happens(o) || !e)
        return error ? error : -ENOENT;
    KITHI_ASSERT(rename(from, to) == 0);
    change_add(s, name_of(s, from), name_of(s, to), e->file);
    return error;
}

static int sim_unlink(struct kithi_io *io, const char *path)
{
    struct sim *s = (struct sim *)io;
    int error;
    enum outcome o = outcome(s, &error);
    if (!happens(o) || !entry_find(&s->seen, name_of(s, path)))
        return error ? error : -ENOENT;
    KITHI_ASSERT(unlink(path) == 0);
    change_add(s, name_of(s, path), "", -1);
    return error;
}

/* What has changed in this directory is so on the disk. */
static void names_flush(struct sim *s, const char *dir)
{
    size_t left = 0;
    for (size_t i = 0; i < s->change_count; i++) {
        const struct change *c = &s->changes[i];
        if (is_in(c->to[0] ? c->to : c->from, dir))
            change_apply(&s->disk, c);
        else
            s->changes[left++] = *c;
    }
    s->change_count = left;
}

static int sim_dir_sync(struct kithi_io *io, const char *dir)
{
    struct sim *s = (struct sim *)io;
    int error;
    if (happens(outcome(s, &error)))
        names_flush(s, name_of(s, dir));
    return error;
}

/* ---- the loop ---- */

static void sim_submit(struct kithi_io *io, struct kithi_io_op *op)
{
    kithi_io_list_push(&((struct sim *)io)->pending, op);
}

static int perform(struct sim *s, struct kithi_io_op *op)
{
    switch (op->type) {
    case KITHI_IO_WRITE: return write_to(s, op->fd, op->u.out, op->len, op->off, op->durable);
    case KITHI_IO_CALL: return op->u.call(op->arg);
    default: return op->cancelled ? -ECANCELED : -ENOSYS;
    }
}

/* The first op from this one on that may come to its end now. */
static struct kithi_io_op *ready_from(const struct sim *s, struct kithi_io_op *op)
{
    while (op && s->holds && op->type == KITHI_IO_WRITE && op->durable)
        op = op->next;
    return op;
}

/* One op, any of those in flight, or who was woken. */
static int sim_run(struct kithi_io *io, int timeout_ms)
{
    struct sim *s = (struct sim *)io;
    struct kithi_io_op *op = ready_from(s, s->pending.first);
    (void)timeout_ms;
    size_t count = 0;
    for (struct kithi_io_op *each = op; each; each = ready_from(s, each->next))
        count++;
    if (s->woken && io->wake_fn && (count == 0 || draw(s) % 2)) {
        s->woken = false;
        io->wake_fn(io->wake_arg);
        return 1;
    }
    if (count == 0)
        return 0;
    for (uint64_t skip = draw(s) % count; skip > 0; skip--)
        op = ready_from(s, op->next);
    kithi_io_list_remove(&s->pending, op);
    kithi_io_complete(op, perform(s, op));
    return 1;
}

static void sim_wake(struct kithi_io *io)
{
    ((struct sim *)io)->woken = true;
}

static void sim_cancel(struct kithi_io *io, struct kithi_io_op *op)
{
    (void)io;
    op->cancelled = true;
}

static void sim_close(struct kithi_io *io, int fd)
{
    (void)io;
    (void)fd;
}

/* ---- damage ---- */

/* The file's name on the disk; NULL: it has none. */
static const char *name_on_disk(const struct sim *s, int file)
{
    for (size_t i = 0; i < s->disk.count; i++)
        if (s->disk.entries[i].name[0] && s->disk.entries[i].file == file)
            return s->disk.entries[i].name;
    return NULL;
}

/* Change durable bytes of a file that has a name. False: they were so before, or are not all durable. */
static bool harm(struct sim *s, int number, const uint8_t *bytes, size_t len, uint64_t off)
{
    struct image *disk = &s->files[number].disk;
    for (const struct dirty *d = s->files[number].dirty; d && !s->crashing; d = d->next)
        if (d->off < off + len && off < d->off + d->len)
            return false;
    if (memcmp(disk->bytes + off, bytes, len) == 0)
        return false;
    struct harm h = { .file = number, .off = off, .len = len, .other = checked(malloc(len)) };
    memcpy(h.other, disk->bytes + off, len);
    s->harms = checked(realloc(s->harms, (s->harm_count + 1) * sizeof *s->harms));
    s->harms[s->harm_count++] = h;
    memcpy(disk->bytes + off, bytes, len);
    return true;
}

/* What reads return of a file is what the disk holds. */
static void show(struct sim *s, int number, uint64_t off, size_t len)
{
    for (size_t i = 0; i < s->seen.count; i++) {
        const struct entry *e = &s->seen.entries[i];
        if (!e->name[0] || e->file != number)
            continue;
        int fd = real_open(s, e->name, 0);
        real_write(fd, s->files[number].disk.bytes + off, len, off);
        close(fd);
    }
}

/* A file that has at least len bytes, and a name with this in it; -1: none. */
static int some_file(struct sim *s, size_t len, const char *with)
{
    size_t n = 0;
    int picked = -1;
    for (size_t i = 0; i < s->disk.count; i++) {
        const struct entry *e = &s->disk.entries[i];
        if (e->name[0] && s->files[e->file].disk.size >= len && (!with || strstr(e->name, with)) &&
            draw(s) % ++n == 0)
            picked = e->file;
    }
    return picked;
}

/* A multiple of unit where len bytes fit into the image; mostly one where something stands. */
static uint64_t some_place(struct sim *s, const struct image *image, size_t unit, size_t len)
{
    uint64_t off = 0;
    for (unsigned tries = 0; tries < 16; tries++) {
        off = draw(s) % ((image->size - len) / unit + 1) * unit;
        for (size_t i = 0; i < len; i++)
            if (image->bytes[off + i])
                return off;
    }
    return off;
}

bool kithi_sim_damage(struct kithi_io *io, const char *with)
{
    struct sim *s = (struct sim *)io;
    const size_t unit = draw(s) % 2 ? SECTOR : BLOCK, len = unit * (1 + draw(s) % 4);
    uint8_t bytes[4 * BLOCK] = { 0 };
    int to = some_file(s, len, with), from = some_file(s, len, NULL);
    if (to < 0)
        return false;
    const struct image *image = &s->files[to].disk;
    uint64_t off = some_place(s, image, unit, len);
    switch (draw(s) % 4) {
    case 0: break; /* it never came there */
    case 1:        /* it belongs elsewhere */
        memcpy(bytes, s->files[from].disk.bytes + some_place(s, &s->files[from].disk, unit, len), len);
        break;
    default: /* a bit of it turned */
        memcpy(bytes, image->bytes + off, len);
        bytes[draw(s) % len] ^= (uint8_t)(1u << draw(s) % 8);
        break;
    }
    if (!harm(s, to, bytes, len, off))
        return false;
    show(s, to, off, len);
    return true;
}

static void swap_harm(struct sim *s, size_t i)
{
    const struct harm *h = &s->harms[i];
    uint8_t *bytes = s->files[h->file].disk.bytes + h->off;
    for (size_t at = 0; at < h->len; at++) {
        uint8_t byte = bytes[at];
        bytes[at] = h->other[at];
        h->other[at] = byte;
    }
    show(s, h->file, h->off, h->len);
}

void kithi_sim_hide_damage(struct kithi_io *io, bool hide)
{
    struct sim *s = (struct sim *)io;
    for (size_t i = 0; i < s->harm_count; i++)
        swap_harm(s, hide ? s->harm_count - 1 - i : i);
}

static void harms_drop(struct sim *s)
{
    for (size_t i = 0; i < s->harm_count; i++)
        free(s->harms[i].other);
    s->harm_count = 0;
}

void kithi_sim_mend(struct kithi_io *io)
{
    kithi_sim_hide_damage(io, true);
    harms_drop((struct sim *)io);
}

bool kithi_sim_is_damaged(const struct kithi_io *io, const char *path, uint64_t off, uint64_t len)
{
    const struct sim *s = (const struct sim *)io;
    const struct entry *e = entry_find(&s->disk, name_of(s, path));
    for (size_t i = 0; e && i < s->harm_count; i++) {
        const struct harm *h = &s->harms[i];
        if (h->file == e->file && h->off < off + len && off < h->off + h->len)
            return true;
    }
    return false;
}

unsigned kithi_sim_damaged(const struct kithi_io *io, const char *with)
{
    const struct sim *s = (const struct sim *)io;
    unsigned count = 0;
    for (size_t i = 0; i < s->harm_count; i++) {
        const char *name = name_on_disk(s, s->harms[i].file);
        bool again = false;
        for (size_t other = 0; other < i; other++)
            again |= s->harms[other].file == s->harms[i].file;
        count += name && !again && (!with || strstr(name, with));
    }
    return count;
}

/* ---- the end of a run ---- */

static void file_fini(struct sim_file *file)
{
    dirty_drop(file);
    if (file->fd >= 0)
        close(file->fd);
    free(file->disk.bytes);
}

/* Parts of unsynced writes reach the disk, in any order, with a probability of the crash's own. */
static void file_tear(struct sim *s, struct sim_file *file)
{
    uint64_t odds = draw(s) % 5; /* of 4: none, ..., all */
    bool turns = draw(s) % 4 == 0;
    if (draw(s) % 2 == 0)
        image_resize(&file->disk, file->seen_size);
    for (const struct dirty *d = file->dirty; d; d = d->next) {
        bool prefix = draw(s) % 4 == 0; /* torn like a tape instead */
        size_t keep = (size_t)(draw(s) % (d->len / SECTOR + 1));
        for (size_t i = 0; i * SECTOR < d->len; i++) {
            size_t n = d->len - i * SECTOR < SECTOR ? d->len - i * SECTOR : SECTOR;
            const size_t at = (size_t)d->off + i * SECTOR;
            if (!(prefix ? i < keep : draw(s) % 4 < odds))
                continue;
            /* A later write has made these bytes durable: nothing is under way here, so no bit can turn. */
            if (at + n <= file->disk.size && memcmp(file->disk.bytes + at, d->bytes + i * SECTOR, n) == 0)
                continue;
            disk_put(s, file, d->bytes + i * SECTOR, n, d->off + i * SECTOR);
            if (turns && draw(s) % 8 == 0)
                file->disk.bytes[d->off + i * SECTOR + draw(s) % n] ^= (uint8_t)(1u << draw(s) % 8);
        }
    }
}

/* One of the writes under way goes to some other place, where something durable may be. */
static void misdirect(struct sim *s)
{
    const struct dirty *picked = NULL;
    size_t n = 0;
    for (size_t i = 0; i < s->file_count; i++)
        for (const struct dirty *d = s->files[i].dirty; d; d = d->next)
            if (d->len >= SECTOR && draw(s) % ++n == 0)
                picked = d;
    int to = picked ? some_file(s, picked->len, NULL) : -1;
    if (to < 0)
        return;
    size_t unit = draw(s) % 2 && picked->len % BLOCK == 0 ? BLOCK : SECTOR;
    uint64_t off = draw(s) % ((s->files[to].disk.size - picked->len) / unit + 1) * unit;
    harm(s, to, picked->bytes, picked->len, off);
}

/* Writes in flight may have been carried out in part. */
static void drop_pending(struct sim *s)
{
    if (s->dead)
        return;
    for (const struct kithi_io_op *op = s->pending.first; op; op = op->next) {
        struct sim_file *file = op->type == KITHI_IO_WRITE ? file_of(s, op->fd) : NULL;
        if (!file || draw(s) % 3 == 0)
            continue;
        see_write(file, op->u.out, op->len, op->off);
        dirty_add(file, op->u.out, op->len, op->off, false);
    }
}

/* Owners get to know that they are gone, and may try to tidy up: in vain. */
static void end_life(struct sim *s)
{
    struct kithi_io_op *op;
    s->dead = true;
    for (size_t i = 0; i < s->file_count; i++) {
        if (s->files[i].fd >= 0)
            close(s->files[i].fd);
        s->files[i].fd = -1;
    }
    while ((op = kithi_io_list_pop(&s->pending)) != NULL)
        kithi_io_complete(op, -ECANCELED);
}

/* The names that the disk has after a power failure: a journal's beginning of the changes, or any of them. */
static void lose_names(struct sim *s)
{
    bool journal = draw(s) % 3 != 0;
    size_t kept = s->change_count ? (size_t)(draw(s) % (s->change_count + 1)) : 0;
    for (size_t i = 0; i < s->change_count; i++) {
        const struct change *c = &s->changes[i];
        /* A name that is not there cannot be renamed: the file would have two. */
        bool there = !c->from[0] || entry_find(&s->disk, c->from);
        if (journal ? i < kept : draw(s) % 2 && there)
            change_apply(&s->disk, c);
    }
    s->change_count = 0;
}

/* The real directory gets what the disk holds, and nothing else. */
static int export(struct sim *s)
{
    char path[DIR_SIZE + NAME_SIZE];
    int r = 0;
    for (size_t i = 0; i < s->seen.count; i++) {
        if (!s->seen.entries[i].name[0])
            continue;
        path_of(s, s->seen.entries[i].name, path);
        unlink(path);
    }
    for (size_t i = 0; i < s->disk.count && r == 0; i++) {
        const struct entry *e = &s->disk.entries[i];
        if (!e->name[0])
            continue;
        struct sim_file *file = &s->files[e->file];
        int fd = real_open(s, e->name, O_CREAT | O_TRUNC);
        r = fd < 0 ? -errno : 0;
        if (fd >= 0 && file->disk.size)
            real_write(fd, file->disk.bytes, file->disk.size, 0);
        if (fd >= 0)
            close(fd);
    }
    names_copy(&s->seen, &s->disk);
    return r;
}

int kithi_sim_crash(struct kithi_io *io)
{
    struct sim *s = (struct sim *)io;
    drop_pending(s);
    for (size_t i = 0; i < s->file_count; i++)
        file_tear(s, &s->files[i]);
    lose_names(s);
    s->crashing = true;
    if (s->misdirects && draw(s) % 4 == 0)
        misdirect(s);
    s->crashing = false;
    for (size_t i = 0; i < s->file_count; i++) {
        dirty_drop(&s->files[i]);
        s->files[i].seen_size = s->files[i].disk.size;
    }
    int r = export(s);
    end_life(s);
    return r;
}

int kithi_sim_stop(struct kithi_io *io)
{
    struct sim *s = (struct sim *)io;
    drop_pending(s);
    end_life(s);
    return 0;
}

void kithi_sim_start(struct kithi_io *io)
{
    struct sim *s = (struct sim *)io;
    s->dead = false;
    s->woken = false;
    s->holds = false;
    s->power_at = s->fail_at = 0;
}

void kithi_sim_hold(struct kithi_io *io, bool on)
{
    ((struct sim *)io)->holds = on;
}

int kithi_sim_settle(struct kithi_io *io, const char *dir)
{
    struct sim *s = (struct sim *)io;
    int error;
    if (!happens(outcome(s, &error)))
        return error;
    for (size_t i = 0; i < s->seen.count; i++)
        if (s->seen.entries[i].name[0] && is_in(s->seen.entries[i].name, name_of(s, dir)))
            dirty_flush(s, &s->files[s->seen.entries[i].file]);
    names_flush(s, name_of(s, dir));
    return error;
}

static void sim_free(struct kithi_io *io)
{
    struct sim *s = (struct sim *)io;
    struct kithi_io_op *op;
    while ((op = kithi_io_list_pop(&s->pending)) != NULL)
        if (op->type == KITHI_IO_CALL)
            kithi_io_complete(op, perform(s, op));
        else if (op->type == KITHI_IO_WRITE && op->told_end)
            kithi_io_complete(op, -ECANCELED);
    for (size_t i = 0; i < s->file_count; i++)
        file_fini(&s->files[i]);
    harms_drop(s);
    free(s->harms);
    free(s->files);
    free(s->changes);
    free(s->seen.entries);
    free(s->disk.entries);
    free(s);
}

static const struct kithi_io_vtable sim_vtable = {
    .name = "sim",
    .run = sim_run,
    .wake = sim_wake,
    .submit = sim_submit,
    .cancel = sim_cancel,
    .close = sim_close,
    .free = sim_free,
    .file_create = sim_create,
    .file_open = sim_open_file,
    .file_read = sim_read,
    .file_allocate = sim_allocate,
    .file_zero = sim_zero,
    .file_size = sim_size,
    .file_write = sim_write,
    .file_close = sim_close,
    .file_sync = sim_sync,
    .file_rename = sim_rename,
    .file_unlink = sim_unlink,
    .dir_sync = sim_dir_sync,
};

int kithi_sim_open(const char *dir, uint64_t seed, struct kithi_io **out_io)
{
    struct sim *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->base.vt = &sim_vtable;
    snprintf(s->base.reason, sizeof s->base.reason, "seed %llu", (unsigned long long)seed);
    snprintf(s->dir, sizeof s->dir, "%s", dir);
    s->rand = seed;
    *out_io = &s->base;
    return 0;
}

void kithi_sim_fail_at(struct kithi_io *io, uint64_t n, int error, bool forever)
{
    struct sim *s = (struct sim *)io;
    s->fail_at = n ? s->ops + n : 0;
    s->fail_error = error;
    s->fail_forever = forever;
}

void kithi_sim_end_at(struct kithi_io *io, uint64_t n)
{
    struct sim *s = (struct sim *)io;
    s->power_at = n ? s->ops + n : 0;
}

bool kithi_sim_ended(const struct kithi_io *io)
{
    return ((const struct sim *)io)->dead;
}

void kithi_sim_misdirect(struct kithi_io *io, bool on)
{
    ((struct sim *)io)->misdirects = on;
}

uint64_t kithi_sim_ops(const struct kithi_io *io)
{
    return ((const struct sim *)io)->ops;
}
