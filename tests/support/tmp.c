/*
 * tmp.c - temporary directories, mounts, clocks.
 */
#include "tests/support/tmp.h"

#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DIR_MAX 32u

void test_die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

/* Directories that are there, so that a test that fails in the middle leaves none, either. */
static struct test_dir made[DIR_MAX];
static pid_t made_by;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_all(const struct test_dir *d)
{
    if (d->mounted)
        umount2(d->path, MNT_DETACH);
    nftw(d->path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static void at_exit(void)
{
    for (unsigned i = 0; i < DIR_MAX && getpid() == made_by; i++)
        if (made[i].path[0])
            remove_all(&made[i]);
}

static void remember(const struct test_dir *d)
{
    if (!made_by) {
        made_by = getpid();
        atexit(at_exit);
    }
    struct test_dir *to = NULL;
    for (unsigned i = DIR_MAX; i-- > 0;)
        if (!made[i].path[0])
            to = &made[i];
    for (unsigned i = 0; i < DIR_MAX; i++)
        if (strcmp(made[i].path, d->path) == 0)
            to = &made[i];
    if (to)
        *to = *d;
}

static void make_below(struct test_dir *d, const char *parent)
{
    memset(d, 0, sizeof *d);
    if ((size_t)snprintf(d->path, sizeof d->path, "%s/kith-test-XXXXXX", parent) >= sizeof d->path ||
        !mkdtemp(d->path))
        test_die("cannot make a directory below %s: %s", parent, strerror(errno));
    remember(d);
}

void test_dir_make(struct test_dir *d)
{
    const char *parent = getenv("TMPDIR");
    make_below(d, parent && *parent ? parent : "/tmp");
}

void test_dir_make_shm(struct test_dir *d)
{
    if (access("/dev/shm", W_OK) == 0)
        make_below(d, "/dev/shm");
    else
        test_dir_make(d);
}

bool test_dir_mount(struct test_dir *d, uint64_t bytes)
{
    test_dir_make(d);
    char options[64];
    snprintf(options, sizeof options, "size=%llu,mode=0755", (unsigned long long)bytes);
    if (mount("tmpfs", d->path, "tmpfs", MS_NOSUID | MS_NODEV, options) < 0) {
        fprintf(stderr, "skipped: mounting a tmpfs is not permitted here (%s)\n", strerror(errno));
        return false;
    }
    d->mounted = true;
    remember(d);
    return true;
}

bool test_dir_bind_read_only(const struct test_dir *d, struct test_dir *out)
{
    test_dir_make(out);
    if (mount(d->path, out->path, NULL, MS_BIND, NULL) < 0) {
        fprintf(stderr, "skipped: a bind mount is not permitted here (%s)\n", strerror(errno));
        return false;
    }
    out->mounted = true;
    remember(out);
    if (mount(NULL, out->path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0) {
        fprintf(stderr, "skipped: a read-only remount is not permitted here (%s)\n", strerror(errno));
        return false;
    }
    return true;
}

void test_dir_remove(struct test_dir *d)
{
    if (!d->path[0])
        return;
    remove_all(d);
    for (unsigned i = 0; i < DIR_MAX; i++)
        if (strcmp(made[i].path, d->path) == 0)
            made[i].path[0] = '\0';
    memset(d, 0, sizeof *d);
}

const char *test_path(const struct test_dir *d, const char *name)
{
    static char paths[4][2 * TEST_PATH_SIZE];
    static unsigned next;
    char *p = paths[next++ % 4];
    snprintf(p, sizeof paths[0], "%s/%s", d->path, name);
    return p;
}

uint64_t test_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t test_now_ms(void)
{
    return test_now_ns() / 1000000u;
}

void test_nap(void)
{
    struct timespec t = { .tv_sec = 0, .tv_nsec = 1000000 };
    nanosleep(&t, NULL);
}

uint64_t test_file_blocks(const char *path)
{
    struct stat st;
    return stat(path, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512u;
}
