/*
 * failing.c - see failing.h. The linker leads a call of X to __wrap_X, and __real_X to the system's.
 */
#include "tests/support/failing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define ENDS    (-1) /* a read that finds the end of the file */
#define NOTHING 0
#define BLOCK   4096u

/* Name, its error, another one, can it be interrupted. */
#define CALL_LIST(X)                                                                                         \
    X(access, EIO, EACCES, false)                                                                            \
    X(aligned_alloc, ENOMEM, NOTHING, false)                                                                 \
    X(calloc, ENOMEM, NOTHING, false)                                                                        \
    X(fallocate, ENOSPC, EOPNOTSUPP, true)                                                                   \
    X(fdatasync, EIO, ENOSPC, false)                                                                         \
    X(flock, ENOLCK, EWOULDBLOCK, false)                                                                     \
    X(fstat, EIO, NOTHING, false)                                                                            \
    X(fsync, EIO, ENOSPC, false)                                                                             \
    X(ftruncate, EIO, EFBIG, false)                                                                          \
    X(getrandom, ENOSYS, NOTHING, false)                                                                     \
    X(link, ENOSPC, EIO, false)                                                                              \
    X(lseek, EIO, EINVAL, false)                                                                             \
    X(lstat, EIO, EACCES, false)                                                                             \
    X(malloc, ENOMEM, NOTHING, false)                                                                        \
    X(mkdir, ENOSPC, EACCES, false)                                                                          \
    X(mmap, ENOMEM, NOTHING, false)                                                                          \
    X(open, EMFILE, EINVAL, false)                                                                           \
    X(opendir, EMFILE, EACCES, false)                                                                        \
    X(posix_memalign, ENOMEM, NOTHING, false)                                                                \
    X(pread, EIO, ENDS, true)                                                                                \
    X(pwrite, ENOSPC, EIO, true)                                                                             \
    X(pthread_create, EAGAIN, NOTHING, false)                                                                \
    X(pwritev2, EIO, EOPNOTSUPP, true)                                                                       \
    X(readdir, EIO, NOTHING, false)                                                                          \
    X(realloc, ENOMEM, NOTHING, false)                                                                       \
    X(realpath, EIO, ENOMEM, false)                                                                          \
    X(rename, EIO, ENOSPC, false)                                                                            \
    X(renameat2, EIO, EINVAL, false)                                                                         \
    X(rmdir, EIO, EBUSY, false)                                                                              \
    X(stat, EIO, EACCES, false)                                                                              \
    X(strdup, ENOMEM, NOTHING, false)                                                                        \
    X(strndup, ENOMEM, NOTHING, false)                                                                       \
    X(unlink, EIO, EACCES, false)

#define CALL_ENUM(name, error, other, interrupted) CALL_##name,
enum call { CALL_LIST(CALL_ENUM) CALL_COUNT };

static const struct {
    const char *name;
    int error, other;
    bool interrupted;
} calls[] = {
#define CALL_ROW(name, error, other, interrupted) { #name, error, other, interrupted },
    CALL_LIST(CALL_ROW)
};

/* Of the thread that has begun; others go through. */
static _Thread_local struct {
    bool on;
    uint64_t left; /* calls until one fails; 0: it has */
    enum test_way way;
    enum call call; /* that has failed */
    int error;
    uint64_t k;
} f;

#define HALF (-2) /* of what was asked for is done */

static _Thread_local void (*opened)(void);

void test_failing_on_open(void (*fn)(void))
{
    opened = fn;
}

void test_failing_begin(uint64_t k, enum test_way way)
{
    f.on = true;
    f.left = f.k = k;
    f.way = way;
    f.error = 0;
}

bool test_failing_end(void)
{
    f.on = false;
    return f.left == 0;
}

const char *test_failing_what(void)
{
    static char text[128];
    snprintf(text, sizeof text, "call %llu, %s: %s", (unsigned long long)f.k,
             f.left ? "none" : calls[f.call].name,
             f.error == ENDS   ? "the end of the file"
             : f.error == HALF ? "half of it"
                               : strerror(f.error));
    return text;
}

/* 0: this call goes through. */
static int fails(enum call call)
{
    if (!f.on)
        return 0;
    if (f.left == 0)
        return f.way == TEST_LASTS && call == f.call ? f.error : 0;
    if ((f.way == TEST_INTERRUPTED && !calls[call].interrupted) || --f.left > 0)
        return 0;
    f.call = call;
    f.error = calls[call].error;
    if (f.way == TEST_FAILS_OTHERWISE && calls[call].other)
        f.error = calls[call].other;
    if (f.way == TEST_INTERRUPTED)
        f.error = f.k % 2 == 0 && call != CALL_fallocate ? HALF : EINTR;
    return f.error;
}

/* ---- calls that return 0 or -1 ---- */

#define PLAIN(name, params, args)                                                                            \
    int __real_##name params;                                                                                \
    int __wrap_##name params;                                                                                \
    int __wrap_##name params                                                                                 \
    {                                                                                                        \
        int error = fails(CALL_##name);                                                                      \
        if (error == 0)                                                                                      \
            return __real_##name args;                                                                       \
        errno = error;                                                                                       \
        return -1;                                                                                           \
    }

PLAIN(access, (const char *path, int mode), (path, mode))
PLAIN(fallocate, (int fd, int mode, off_t off, off_t len), (fd, mode, off, len))
PLAIN(fdatasync, (int fd), (fd))
PLAIN(flock, (int fd, int operation), (fd, operation))
PLAIN(fstat, (int fd, struct stat *st), (fd, st))
PLAIN(fsync, (int fd), (fd))
PLAIN(ftruncate, (int fd, off_t len), (fd, len))
PLAIN(link, (const char *from, const char *to), (from, to))
PLAIN(lstat, (const char *path, struct stat *st), (path, st))
PLAIN(mkdir, (const char *path, mode_t mode), (path, mode))
PLAIN(rename, (const char *from, const char *to), (from, to))
PLAIN(renameat2, (int from_dir, const char *from, int to_dir, const char *to, unsigned flags),
      (from_dir, from, to_dir, to, flags))
PLAIN(rmdir, (const char *path), (path))
PLAIN(stat, (const char *path, struct stat *st), (path, st))
PLAIN(unlink, (const char *path), (path))

/* ---- calls that return a pointer ---- */

#define POINTER(type, name, params, args, failure)                                                           \
    type *__real_##name params;                                                                              \
    type *__wrap_##name params;                                                                              \
    type *__wrap_##name params                                                                               \
    {                                                                                                        \
        int error = fails(CALL_##name);                                                                      \
        if (error == 0)                                                                                      \
            return __real_##name args;                                                                       \
        errno = error;                                                                                       \
        return failure;                                                                                      \
    }

POINTER(void, aligned_alloc, (size_t unit, size_t size), (unit, size), NULL)
POINTER(void, calloc, (size_t n, size_t size), (n, size), NULL)
POINTER(void, malloc, (size_t size), (size), NULL)
POINTER(void, mmap, (void *at, size_t len, int prot, int flags, int fd, off_t off),
        (at, len, prot, flags, fd, off), MAP_FAILED)
POINTER(DIR, opendir, (const char *path), (path), NULL)
POINTER(struct dirent, readdir, (DIR * d), (d), NULL)
POINTER(void, realloc, (void *p, size_t size), (p, size), NULL)
POINTER(char, realpath, (const char *path, char *out), (path, out), NULL)
POINTER(char, strdup, (const char *text), (text), NULL)
POINTER(char, strndup, (const char *text, size_t len), (text, len), NULL)

int __real_posix_memalign(void **out, size_t unit, size_t size);
int __wrap_posix_memalign(void **out, size_t unit, size_t size);

int __wrap_posix_memalign(void **out, size_t unit, size_t size)
{
    int error = fails(CALL_posix_memalign);
    return error ? error : __real_posix_memalign(out, unit, size);
}

typedef void *thread_fn(void *arg);
int __real_pthread_create(pthread_t *out, const pthread_attr_t *attr, thread_fn *fn, void *arg);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, thread_fn *fn, void *arg);

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, thread_fn *fn, void *arg)
{
    int error = fails(CALL_pthread_create);
    return error ? error : __real_pthread_create(out, attr, fn, arg);
}

/* ---- the others ---- */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

int __wrap_open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    errno = fails(CALL_open);
    int fd = errno ? -1 : __real_open(path, flags, mode);
    if (fd >= 0 && opened)
        opened();
    return fd;
}

off_t __real_lseek(int fd, off_t off, int whence);
off_t __wrap_lseek(int fd, off_t off, int whence);

off_t __wrap_lseek(int fd, off_t off, int whence)
{
    errno = fails(CALL_lseek);
    return errno ? -1 : __real_lseek(fd, off, whence);
}

ssize_t __real_getrandom(void *to, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *to, size_t len, unsigned flags);

ssize_t __wrap_getrandom(void *to, size_t len, unsigned flags)
{
    errno = fails(CALL_getrandom);
    return errno ? -1 : __real_getrandom(to, len, flags);
}

/* What is left to transfer of len bytes; 0: nothing, *out is what the call returns. */
static size_t transfer(enum call call, size_t len, ssize_t *out)
{
    int error = fails(call);
    if (error == HALF && call == CALL_pread && len > 1)
        return len / 2;
    if (error == HALF && len >= 2 * BLOCK) /* whole blocks: less is no progress for direct I/O */
        return len / 2 / BLOCK * BLOCK;
    if (error == 0 || error == HALF)
        return len;
    *out = error == ENDS ? 0 : -1;
    if (error != ENDS)
        errno = error;
    return 0;
}

ssize_t __real_pread(int fd, void *to, size_t len, off_t off);
ssize_t __wrap_pread(int fd, void *to, size_t len, off_t off);

ssize_t __wrap_pread(int fd, void *to, size_t len, off_t off)
{
    ssize_t n = 0;
    size_t left = transfer(CALL_pread, len, &n);
    return left ? __real_pread(fd, to, left, off) : n;
}

ssize_t __real_pwrite(int fd, const void *from, size_t len, off_t off);
ssize_t __wrap_pwrite(int fd, const void *from, size_t len, off_t off);

ssize_t __wrap_pwrite(int fd, const void *from, size_t len, off_t off)
{
    ssize_t n = 0;
    size_t left = transfer(CALL_pwrite, len, &n);
    return left ? __real_pwrite(fd, from, left, off) : n;
}

ssize_t __real_pwritev2(int fd, const struct iovec *v, int n_v, off_t off, int flags);
ssize_t __wrap_pwritev2(int fd, const struct iovec *v, int n_v, off_t off, int flags);

/* One piece, as whoever is tested here writes. */
ssize_t __wrap_pwritev2(int fd, const struct iovec *v, int n_v, off_t off, int flags)
{
    ssize_t n = 0;
    struct iovec part = v[0];
    if (n_v != 1)
        return __real_pwritev2(fd, v, n_v, off, flags);
    part.iov_len = transfer(CALL_pwritev2, v[0].iov_len, &n);
    return part.iov_len ? __real_pwritev2(fd, &part, 1, off, flags) : n;
}
