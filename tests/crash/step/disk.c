/*
 * disk.c - see disk.h.
 */
#include "tests/crash/step/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE (2 * TEST_PATH_SIZE + STEP_DISK_NAME)

struct seen {
    char name[STEP_DISK_NAME];
    ino_t inode;
    size_t len;
};

static void path_of(char out[PATH_SIZE], const char *dir, const char *name)
{
    snprintf(out, PATH_SIZE, "%s/%s", dir, name);
}

static void list(const char *dir, const char *prefix, struct seen *out, unsigned *count)
{
    char path[PATH_SIZE];
    struct stat st;
    path_of(path, dir, prefix);
    DIR *d = opendir(path);
    if (!d)
        test_die("%s: %s", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(d));) {
        size_t len = strlen(entry->d_name), at = strlen(prefix);
        if (at + len >= STEP_DISK_NAME || *count == STEP_DISK_FILES)
            test_die("%s holds too much", path);
        struct seen *s = &out[*count];
        memcpy(s->name, prefix, at);
        memcpy(s->name + at, entry->d_name, len + 1);
        if (fstatat(dirfd(d), entry->d_name, &st, 0) < 0)
            test_die("%s: %s", entry->d_name, strerror(errno));
        if (!S_ISREG(st.st_mode))
            continue;
        s->inode = st.st_ino;
        s->len = (size_t)st.st_size;
        ++*count;
    }
    closedir(d);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct seen *)a)->name, ((const struct seen *)b)->name);
}

static void forget(struct step_disk *d)
{
    for (unsigned i = 0; i < d->count; i++) {
        if (d->files[i].live)
            munmap((void *)(uintptr_t)d->files[i].live, d->files[i].len);
        free(d->files[i].image);
    }
    d->count = 0;
}

static void take_up(struct step_disk *d, const struct seen *seen, unsigned count)
{
    char path[PATH_SIZE];
    forget(d);
    for (unsigned i = 0; i < count; i++) {
        struct step_disk_file *f = &d->files[i];
        *f = (struct step_disk_file){ .inode = seen[i].inode, .len = seen[i].len };
        memcpy(f->name, seen[i].name, sizeof f->name);
        f->image = malloc(f->len ? f->len : 1);
        if (!f->image)
            test_die("out of memory");
        if (f->len) {
            path_of(path, d->live, f->name);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            void *map = fd < 0 ? MAP_FAILED : mmap(NULL, f->len, PROT_READ, MAP_SHARED, fd, 0);
            if (map == MAP_FAILED)
                test_die("%s: %s", path, strerror(errno));
            close(fd);
            f->live = map;
            memcpy(f->image, f->live, f->len);
        }
    }
    d->count = count;
}

bool step_disk_look(struct step_disk *d)
{
    struct seen seen[STEP_DISK_FILES];
    unsigned count = 0;
    bool changed = false;
    list(d->live, "", seen, &count);
    list(d->live, "wal/", seen, &count);
    qsort(seen, count, sizeof *seen, by_name);
    bool same = count == d->count;
    for (unsigned i = 0; i < count && same; i++)
        same = strcmp(seen[i].name, d->files[i].name) == 0 && seen[i].inode == d->files[i].inode &&
               seen[i].len == d->files[i].len;
    if (!same) {
        take_up(d, seen, count);
        return true;
    }
    for (unsigned i = 0; i < count; i++) {
        struct step_disk_file *f = &d->files[i];
        if (f->len && memcmp(f->image, f->live, f->len) != 0) {
            memcpy(f->image, f->live, f->len);
            changed = true;
        }
    }
    return changed;
}

void step_disk_follow(struct step_disk *d, const char *dir)
{
    forget(d);
    snprintf(d->live, sizeof d->live, "%s", dir);
}

static void clear(const char *dir, const char *prefix)
{
    struct seen seen[STEP_DISK_FILES];
    char path[PATH_SIZE];
    unsigned count = 0;
    list(dir, prefix, seen, &count);
    for (unsigned i = 0; i < count; i++) {
        path_of(path, dir, seen[i].name);
        unlink(path);
    }
}

void step_disk_thaw(const struct step_disk *d)
{
    char path[PATH_SIZE];
    clear(d->copy, "");
    clear(d->copy, "wal/");
    for (unsigned i = 0; i < d->count; i++) {
        const struct step_disk_file *f = &d->files[i];
        path_of(path, d->copy, f->name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
        if (fd < 0 || pwrite(fd, f->image, f->len, 0) != (ssize_t)f->len)
            test_die("%s: %s", path, strerror(errno));
        close(fd);
    }
}

void step_disk_init(struct step_disk *d, const char *copy)
{
    char wal[PATH_SIZE];
    memset(d, 0, sizeof *d);
    snprintf(d->copy, sizeof d->copy, "%s", copy);
    path_of(wal, copy, "wal");
    if (mkdir(copy, 0755) < 0 || mkdir(wal, 0755) < 0)
        test_die("%s: %s", wal, strerror(errno));
}

void step_disk_fini(struct step_disk *d)
{
    forget(d);
}
