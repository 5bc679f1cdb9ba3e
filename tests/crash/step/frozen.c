/*
 * frozen.c - see frozen.h.
 */
#include "tests/crash/step/frozen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/base/bytes.h"

#define PAGE 4096u

static void *map_bytes(size_t len, int prot, int flags, int fd)
{
    void *p = mmap(NULL, len, prot, flags | MAP_NORESERVE, fd, 0);
    if (p == MAP_FAILED)
        test_die("cannot map %zu bytes: %s", len, strerror(errno));
    return p;
}

static void bytes_init(struct step_bytes *b, size_t len)
{
    memset(b, 0, sizeof *b);
    b->len = len;
    b->fd = -1;
    b->image = map_bytes(len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int make_file(const char *path, size_t len)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0 || ftruncate(fd, (off_t)len) < 0)
        test_die("%s: %s", path, strerror(errno));
    return fd;
}

/* The copy of a file; it is empty. */
static void bytes_copy_to(struct step_bytes *b, const char *path)
{
    if (b->copy) {
        munmap(b->copy, b->len);
        close(b->fd);
    }
    b->fd = make_file(path, b->len);
    b->copy = map_bytes(b->len, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd);
}

static void bytes_follow(struct step_bytes *b, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        test_die("%s: %s", path, strerror(errno));
    if ((size_t)st.st_size != b->len)
        test_die("%s has %lld bytes, not %zu", path, (long long)st.st_size, b->len);
    if (b->live)
        munmap((void *)(uintptr_t)b->live, b->len);
    b->live = map_bytes(b->len, PROT_READ, MAP_SHARED, fd);
    close(fd);
}

static void bytes_fini(struct step_bytes *b)
{
    munmap(b->image, b->len);
    if (b->live)
        munmap((void *)(uintptr_t)b->live, b->len);
    if (b->copy) {
        munmap(b->copy, b->len);
        close(b->fd);
    }
}

/* Bring to up to date with from, page by page; whether there was a difference. */
static bool renew(unsigned char *to, const unsigned char *from, size_t len)
{
    if (memcmp(to, from, len) == 0)
        return false;
    for (size_t at = 0; at < len; at += PAGE) {
        size_t n = len - at < PAGE ? len - at : PAGE;
        if (memcmp(to + at, from + at, n) != 0)
            memcpy(to + at, from + at, n);
    }
    return true;
}

static const struct kithi_header *header_of(const unsigned char *base)
{
    return (const struct kithi_header *)(const void *)base;
}

/* Where the pages of a region end that have so many bytes. */
static uint64_t pages(uint64_t bytes)
{
    return kithi_round_up(bytes, PAGE);
}

static void path_of(const struct step_frozen *f, const char *name, char out[2 * TEST_PATH_SIZE])
{
    snprintf(out, 2 * TEST_PATH_SIZE, "%s/%s", f->dir->path, name);
}

static void log_path(const struct step_place *p, char out[3 * TEST_PATH_SIZE])
{
    snprintf(out, 3 * TEST_PATH_SIZE, "%s/%s", p->log_dir, p->log_name);
}

void step_frozen_init(struct step_frozen *f, const struct kithi_geometry *g, const struct test_dir *dir)
{
    memset(f, 0, sizeof *f);
    f->dir = dir;
    kithi_geometry_layout(g, &f->layout);
    bytes_init(&f->segment, f->layout.total);
    bytes_init(&f->log, STEP_LOG_SIZE);
    path_of(f, "copy", f->copy.segment);
    path_of(f, "copy-log", f->copy.log_dir);
    if (mkdir(f->copy.log_dir, 0755) < 0)
        test_die("%s: %s", f->copy.log_dir, strerror(errno));
    bytes_copy_to(&f->segment, f->copy.segment);
    path_of(f, "copy-data", f->copy.data_dir);
    step_disk_init(&f->disk, f->copy.data_dir);
    f->copy.data_dir[0] = '\0';
}

void step_frozen_fini(struct step_frozen *f)
{
    bytes_fini(&f->segment);
    bytes_fini(&f->log);
    step_disk_fini(&f->disk);
}

static void follow_log(struct step_frozen *f, const struct step_place *live)
{
    char path[3 * TEST_PATH_SIZE];
    log_path(live, path);
    bytes_follow(&f->log, path);
    path_of(f, "copy-log", f->copy.log_dir);
    if (strcmp(f->copy.log_name, live->log_name) != 0) {
        /* A log is known by its name: its copy has the same one, and is the only one. */
        log_path(&f->copy, path);
        if (f->copy.log_name[0])
            unlink(path);
        memcpy(f->copy.log_name, live->log_name, sizeof f->copy.log_name);
        log_path(&f->copy, path);
        bytes_copy_to(&f->log, path);
    }
}

static void follow_disk(struct step_frozen *f, const struct step_place *live)
{
    step_disk_follow(&f->disk, live->data_dir);
    memcpy(f->copy.data_dir, f->disk.copy, sizeof f->copy.data_dir);
    path_of(f, "copy-data/wal", f->copy.log_dir);
}

void step_frozen_follow(struct step_frozen *f, const struct step_place *live)
{
    f->live = *live;
    bytes_follow(&f->segment, live->segment);
    f->copy.data_dir[0] = '\0';
    if (live->data_dir[0])
        follow_disk(f, live);
    else
        follow_log(f, live);
    /* Another file may have less than the one before: begin with nothing. */
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        if (f->taken[r])
            memset(f->segment.image + f->layout.off[r], 0, pages(f->taken[r]));
    memset(f->taken, 0, sizeof f->taken);
}

bool step_frozen_look(struct step_frozen *f)
{
    bool changed = renew(f->segment.image, f->segment.live, KITHI_HEADER_SIZE), grown = false;
    const struct kithi_header *h = header_of(f->segment.image);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        grown |= f->taken[r] != atomic_load_explicit(&h->taken[r], memory_order_relaxed);
    /* Before anything is read: on tmpfs that gives memory to what has none. */
    if (grown)
        f->untaken = step_untaken_bytes(f, f->live.segment);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        uint64_t taken = atomic_load_explicit(&h->taken[r], memory_order_relaxed);
        if (taken > f->layout.size[r])
            test_die("region %s has more taken than there is", kithi_region_name(r));
        f->taken[r] = taken;
        if (r != KITHI_REGION_HEADER && taken)
            changed |= renew(f->segment.image + f->layout.off[r], f->segment.live + f->layout.off[r], taken);
    }
    if (f->live.data_dir[0])
        changed |= step_disk_look(&f->disk);
    else
        changed |= renew(f->log.image, f->log.live, f->log.len);
    return changed;
}

static void take(int fd, uint64_t off, uint64_t len)
{
    if (len && fallocate(fd, 0, (off_t)off, (off_t)len) < 0)
        test_die("no room for a copy of a segment: %s", strerror(errno));
}

void step_frozen_thaw(struct step_frozen *f)
{
    const struct kithi_header *h = header_of(f->segment.copy);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        uint64_t had = pages(atomic_load_explicit(&h->taken[r], memory_order_relaxed)),
                 off = f->layout.off[r];
        uint64_t has = pages(f->taken[r]);
        if (had > has && fallocate(f->segment.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   (off_t)(off + has), (off_t)(had - has)) < 0)
            test_die("cannot punch a hole: %s", strerror(errno));
        if (has > had)
            take(f->segment.fd, off + had, has - had);
    }
    /* The header last: it says what the copy has. */
    for (unsigned r = KITHI_REGION_COUNT; r-- > 0;)
        renew(f->segment.copy + f->layout.off[r], f->segment.image + f->layout.off[r], f->taken[r]);
    if (f->live.data_dir[0])
        step_disk_thaw(&f->disk);
    else
        renew(f->log.copy, f->log.image, f->log.len);
}

static void write_at(int fd, const unsigned char *bytes, uint64_t off, uint64_t len)
{
    if (len && pwrite(fd, bytes + off, len, (off_t)off) != (ssize_t)len)
        test_die("cannot write a copy: %s", strerror(errno));
}

void step_frozen_save(const struct step_frozen *f, unsigned number, struct step_place *out)
{
    char name[64], path[3 * TEST_PATH_SIZE];
    *out = f->copy;
    snprintf(name, sizeof name, "crash-%u", number);
    path_of(f, name, out->segment);
    snprintf(name, sizeof name, "crash-%u-log", number);
    path_of(f, name, out->log_dir);
    if (mkdir(out->log_dir, 0755) < 0)
        test_die("%s: %s", out->log_dir, strerror(errno));
    int fd = make_file(out->segment, f->segment.len);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        take(fd, f->layout.off[r], pages(f->taken[r]));
        write_at(fd, f->segment.image, f->layout.off[r], f->taken[r]);
    }
    close(fd);
    log_path(out, path);
    fd = make_file(path, f->log.len);
    write_at(fd, f->log.image, 0, f->log.len);
    close(fd);
}

int64_t step_untaken_bytes(const struct step_frozen *f, const char *segment)
{
    struct kithi_header h;
    struct stat st;
    uint64_t taken = 0;
    int fd = open(segment, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || pread(fd, &h, sizeof h, 0) != (ssize_t)sizeof h)
        test_die("%s: %s", segment, strerror(errno));
    close(fd);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        if (f->layout.size[r])
            taken += pages(atomic_load_explicit(&h.taken[r], memory_order_relaxed));
    return (int64_t)st.st_blocks * 512 - (int64_t)taken;
}
