/*
 * io_sim.c - the simulated disk of io_sim.h.
 *
 * A file is two images: `seen`, what reads would return, and `disk`, what survives. A write
 * goes to `seen` and, until it is synced, to the list of writes that the disk may or may not
 * have taken. A write that failed stays in that list for good: no later sync brings it to the
 * disk, as after a failed sync on Linux the pages count as clean. Names work alike, except
 * that they are lost from the end only, as a journal does it.
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
#define FILE_MAX  64u
#define NAME_SIZE 64u
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
    struct image seen, disk;
    struct dirty *dirty;
};

struct entry {
    char name[NAME_SIZE];
    int file; /* index; -1: free */
};

/* One change of a directory, until a sync. */
struct change {
    char from[NAME_SIZE], to[NAME_SIZE]; /* create: to; unlink: from; rename: both */
    int file;
};

struct names {
    struct entry entries[FILE_MAX];
};

struct sim {
    struct kithi_io base;
    char dir[4096];
    uint64_t rand;
    uint64_t ops, fail_at;
    int fail_error;
    bool fail_forever;
    struct sim_file *files;
    size_t file_count;
    struct names seen, disk;
    struct names exported; /* what the real directory holds */
    struct change *changes;
    size_t change_count;
    struct kithi_io_list pending;
    bool woken;
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

static int fault(struct sim *s)
{
    s->ops++;
    bool hit = s->fail_at != 0 && (s->ops == s->fail_at || (s->fail_forever && s->ops > s->fail_at));
    return hit ? -s->fail_error : 0;
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
static void dirty_overlay(struct sim_file *file, const uint8_t *bytes, size_t len, uint64_t off)
{
    for (struct dirty *d = file->dirty; d; d = d->next) {
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

/* ---- names ---- */

static struct entry *entry_find(struct names *names, const char *name)
{
    for (size_t i = 0; i < FILE_MAX; i++)
        if (names->entries[i].name[0] && strcmp(names->entries[i].name, name) == 0)
            return &names->entries[i];
    return NULL;
}

static void entry_put(struct names *names, const char *name, int file)
{
    struct entry *e = entry_find(names, name);
    for (size_t i = 0; !e && i < FILE_MAX; i++)
        if (!names->entries[i].name[0])
            e = &names->entries[i];
    KITHI_ASSERT(e);
    snprintf(e->name, sizeof e->name, "%s", name);
    e->file = file;
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

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static struct sim_file *file_of(struct sim *s, int fd)
{
    size_t i = (size_t)(fd - FIRST_FD);
    return fd >= FIRST_FD && i < s->file_count ? &s->files[i] : NULL;
}

/* ---- file operations ---- */

static int sim_create(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct)
{
    struct sim *s = (struct sim *)io;
    int r = fault(s);
    if (r < 0)
        return r;
    s->files = checked(realloc(s->files, (s->file_count + 1) * sizeof *s->files));
    s->files[s->file_count] = (struct sim_file){ 0 };
    change_add(s, "", base_name(path), (int)s->file_count);
    *out_direct = want_direct;
    return FIRST_FD + (int)s->file_count++;
}

static int sim_allocate(struct kithi_io *io, int fd, uint64_t len)
{
    struct sim *s = (struct sim *)io;
    struct sim_file *file = file_of(s, fd);
    int r = fault(s);
    if (r < 0 || !file)
        return r < 0 ? r : -EBADF;
    image_resize(&file->seen, (size_t)len);
    return 0;
}

static int write_to(struct sim *s, int fd, const void *buf, size_t len, uint64_t off, bool durable)
{
    struct sim_file *file = file_of(s, fd);
    int r = fault(s);
    if (!file)
        return -EBADF;
    if (r < 0) { /* nobody knows how far it came */
        size_t part = (size_t)(draw(s) % (len / SECTOR + 1)) * SECTOR;
        image_put(&file->seen, buf, part, off);
        dirty_add(file, buf, part, off, true);
        return r;
    }
    image_put(&file->seen, buf, len, off);
    if (!durable) {
        dirty_add(file, buf, len, off, false);
        return (int)len;
    }
    image_put(&file->disk, buf, len, off);
    dirty_overlay(file, buf, len, off);
    return (int)len;
}

static int sim_write(struct kithi_io *io, int fd, const void *buf, size_t len, uint64_t off)
{
    return write_to((struct sim *)io, fd, buf, len, off, true);
}

static int sim_sync(struct kithi_io *io, int fd)
{
    struct sim *s = (struct sim *)io;
    struct sim_file *file = file_of(s, fd);
    int r = fault(s);
    if (!file)
        return -EBADF;
    for (struct dirty *d = file->dirty; d; d = d->next) {
        if (r < 0)
            d->lost = true;
        else if (!d->lost)
            image_put(&file->disk, d->bytes, d->len, d->off);
    }
    if (r == 0)
        image_resize(&file->disk, file->seen.size);
    return r;
}

static int sim_rename(struct kithi_io *io, const char *from, const char *to)
{
    struct sim *s = (struct sim *)io;
    int r = fault(s);
    const struct entry *e = entry_find(&s->seen, base_name(from));
    if (r < 0 || !e)
        return r < 0 ? r : -ENOENT;
    change_add(s, base_name(from), base_name(to), e->file);
    return 0;
}

static int sim_unlink(struct kithi_io *io, const char *path)
{
    struct sim *s = (struct sim *)io;
    int r = fault(s);
    if (r < 0 || !entry_find(&s->seen, base_name(path)))
        return r < 0 ? r : -ENOENT;
    change_add(s, base_name(path), "", -1);
    return 0;
}

static int sim_dir_sync(struct kithi_io *io, const char *dir)
{
    struct sim *s = (struct sim *)io;
    (void)dir;
    int r = fault(s);
    if (r < 0)
        return r;
    s->disk = s->seen;
    s->change_count = 0;
    return 0;
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

/* One op, any of those in flight. */
static int sim_run(struct kithi_io *io, int timeout_ms)
{
    struct sim *s = (struct sim *)io;
    (void)timeout_ms;
    if (s->woken && io->wake_fn) {
        s->woken = false;
        io->wake_fn(io->wake_arg);
        return 1;
    }
    size_t count = 0;
    for (const struct kithi_io_op *op = s->pending.first; op; op = op->next)
        count++;
    if (count == 0)
        return 0;
    struct kithi_io_op *op = s->pending.first;
    for (uint64_t skip = draw(s) % count; skip > 0; skip--)
        op = op->next;
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

/* ---- the end of a run ---- */

static void file_fini(struct sim_file *file)
{
    dirty_drop(file);
    free(file->seen.bytes);
    free(file->disk.bytes);
}

/* Parts of unsynced writes reach the disk, in any order, with a probability of the crash's own. */
static void file_tear(struct sim *s, struct sim_file *file)
{
    uint64_t odds = draw(s) % 5; /* of 4: none, ..., all */
    if (draw(s) % 2 == 0)
        image_resize(&file->disk, file->seen.size);
    for (struct dirty *d = file->dirty; d; d = d->next) {
        bool prefix = draw(s) % 4 == 0; /* torn like a tape instead */
        size_t keep = (size_t)(draw(s) % (d->len / SECTOR + 1));
        for (size_t i = 0; i * SECTOR < d->len; i++) {
            size_t n = d->len - i * SECTOR < SECTOR ? d->len - i * SECTOR : SECTOR;
            if (prefix ? i < keep : draw(s) % 4 < odds)
                image_put(&file->disk, d->bytes + i * SECTOR, n, d->off + i * SECTOR);
        }
    }
    free(file->seen.bytes);
    file->seen = (struct image){ 0 };
    image_resize(&file->seen, file->disk.size);
    if (file->disk.size)
        memcpy(file->seen.bytes, file->disk.bytes, file->disk.size);
    dirty_drop(file);
}

/* Writes in flight may have been carried out in part. */
static void drop_pending(struct sim *s)
{
    for (const struct kithi_io_op *op = s->pending.first; op; op = op->next) {
        struct sim_file *file = op->type == KITHI_IO_WRITE ? file_of(s, op->fd) : NULL;
        if (!file || draw(s) % 3 == 0)
            continue;
        image_put(&file->seen, op->u.out, op->len, op->off);
        dirty_add(file, op->u.out, op->len, op->off, false);
    }
}

static void cancel_pending(struct sim *s)
{
    struct kithi_io_op *op;
    while ((op = kithi_io_list_pop(&s->pending)) != NULL)
        kithi_io_complete(op, -ECANCELED);
}

static int write_file(const char *path, const struct image *image)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    int r = fd < 0 ? -errno : 0;
    for (size_t pos = 0; r == 0 && pos < image->size;) {
        ssize_t n = write(fd, image->bytes + pos, image->size - pos);
        if (n < 0)
            r = -errno;
        else
            pos += (size_t)n;
    }
    if (fd >= 0)
        close(fd);
    return r;
}

/* The real directory gets what `seen` holds, and nothing else. */
static int export(struct sim *s)
{
    char path[sizeof s->dir + NAME_SIZE + 1];
    int r = 0;
    for (size_t i = 0; i < FILE_MAX; i++) {
        if (!s->exported.entries[i].name[0])
            continue;
        snprintf(path, sizeof path, "%s/%s", s->dir, s->exported.entries[i].name);
        unlink(path);
    }
    for (size_t i = 0; i < FILE_MAX && r == 0; i++) {
        const struct entry *e = &s->seen.entries[i];
        if (!e->name[0])
            continue;
        snprintf(path, sizeof path, "%s/%s", s->dir, e->name);
        r = write_file(path, &s->files[e->file].seen);
    }
    s->exported = s->seen;
    return r;
}

int kithi_sim_crash(struct kithi_io *io)
{
    struct sim *s = (struct sim *)io;
    drop_pending(s);
    for (size_t i = 0; i < s->file_count; i++)
        file_tear(s, &s->files[i]);
    size_t kept = s->change_count ? (size_t)(draw(s) % (s->change_count + 1)) : 0;
    for (size_t i = 0; i < kept; i++)
        change_apply(&s->disk, &s->changes[i]);
    s->change_count = 0;
    s->seen = s->disk;
    int r = export(s);
    cancel_pending(s);
    return r;
}

int kithi_sim_stop(struct kithi_io *io)
{
    struct sim *s = (struct sim *)io;
    drop_pending(s);
    int r = export(s);
    cancel_pending(s);
    return r;
}

static void sim_free(struct kithi_io *io)
{
    struct sim *s = (struct sim *)io;
    struct kithi_io_op *op;
    while ((op = kithi_io_list_pop(&s->pending)) != NULL)
        if (op->type == KITHI_IO_CALL)
            kithi_io_complete(op, perform(s, op));
    for (size_t i = 0; i < s->file_count; i++)
        file_fini(&s->files[i]);
    free(s->files);
    free(s->changes);
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
    .file_allocate = sim_allocate,
    .file_write = sim_write,
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

uint64_t kithi_sim_ops(const struct kithi_io *io)
{
    return ((const struct sim *)io)->ops;
}
