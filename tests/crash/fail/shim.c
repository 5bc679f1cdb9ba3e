/*
 * shim.c - a library that stands before kithd's others (LD_PRELOAD) and lets the calls fail that fail.h's page names.
 *
 * jemalloc and liburing are shared libraries, so that their symbols are found here first, and glibc's own allocations
 * (opendir, fopen, pthread_create) come here, too. What jemalloc asks of the kernel within an allocation is not counted.
 * liburing enters the kernel without libc: its exported functions are replaced, and a completion is changed in the
 * ring before the loop sees it. What was carried out is then told as failed, which disks do.
 *
 * Left out are calls that cannot fail for a good descriptor (close, munmap, clocks), those on stderr, and reads and
 * writes of descriptors that are no files.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "server/base/io_priv.h"
#include "tests/crash/fail/fail.h"

#define TINY_LOG_REFUSED (64 << 20) /* the size of a file of the log */
#define WAYS_MAX         5u

/* Lasting: a broken disk, a full one, no descriptors or memory left. A call that is repeated at once is not among them. */
#define LASTS  true
#define PASSES false

/* clang-format off */
#define CALL_LIST(X)                                                    \
    X(open,          LASTS,  EMFILE, EIO, EACCES)                       \
    X(openat,        LASTS,  EMFILE, ENOSPC)                            \
    X(opendir,       LASTS,  EMFILE, EIO)                               \
    X(readdir,       LASTS,  EIO)                                       \
    X(fopen,         LASTS,  EMFILE, EACCES)                            \
    X(read,          LASTS,  EIO, EINTR, FAIL_SHORT)                    \
    X(pread,         LASTS,  EIO, EINTR, FAIL_SHORT)                    \
    X(write,         LASTS,  ENOSPC, EIO, EINTR, FAIL_SHORT)            \
    X(pwrite,        LASTS,  EIO, ENOSPC, FAIL_SHORT)                   \
    X(pwritev2,      LASTS,  EIO, ENOSPC, EOPNOTSUPP, EINTR, FAIL_SHORT) \
    X(fsync,         LASTS,  EIO, ENOSPC)                               \
    X(fdatasync,     LASTS,  EIO, ENOSPC)                               \
    X(fallocate,     LASTS,  ENOSPC, EINTR, EIO, EOPNOTSUPP)            \
    X(ftruncate,     LASTS,  EIO, EFBIG)                                \
    X(rename,        LASTS,  EIO, ENOSPC)                               \
    X(renameat2,     LASTS,  EIO, ENOSPC, EINVAL)                       \
    X(link,          LASTS,  ENOSPC, EIO)                               \
    X(unlink,        LASTS,  EIO, EACCES)                               \
    X(rmdir,         LASTS,  EIO, EBUSY)                                \
    X(mkdir,         LASTS,  ENOSPC, EACCES)                            \
    X(stat,          LASTS,  EIO, EACCES)                               \
    X(lstat,         LASTS,  EIO)                                       \
    X(fstat,         LASTS,  EIO)                                       \
    X(fstatfs,       LASTS,  EIO)                                       \
    X(fstatvfs,      LASTS,  EIO)                                       \
    X(access,        LASTS,  EIO, EACCES)                               \
    X(faccessat,     LASTS,  EIO, EROFS)                                \
    X(chmod,         LASTS,  EPERM)                                     \
    X(chown,         LASTS,  EPERM)                                     \
    X(fchmod,        LASTS,  EPERM, EROFS)                              \
    X(fchown,        LASTS,  EPERM)                                     \
    X(flock,         LASTS,  ENOLCK, EINTR)                             \
    X(realpath,      LASTS,  EIO, ENOMEM)                               \
    X(lseek,         LASTS,  EIO, EINVAL)                               \
    X(mmap,          LASTS,  ENOMEM)                                    \
    X(madvise,       LASTS,  ENOMEM, EAGAIN, EINVAL)                    \
    X(posix_fadvise, LASTS,  EINVAL)                                    \
    X(memfd_create,  LASTS,  EMFILE, ENOMEM)                            \
    X(socket,        LASTS,  EMFILE, ENOBUFS)                           \
    X(bind,          LASTS,  ENOSPC, EADDRINUSE)                        \
    X(listen,        LASTS,  EADDRINUSE)                                \
    X(getsockopt,    LASTS,  ENOBUFS)                                   \
    X(eventfd,       LASTS,  EMFILE)                                    \
    X(signalfd,      LASTS,  EMFILE)                                    \
    X(epoll_create1, LASTS,  EMFILE, ENOMEM)                            \
    X(epoll_ctl,     PASSES, ENOMEM, ENOSPC)                            \
    X(epoll_wait,    PASSES, EINTR)                                     \
    X(poll,          PASSES, ENOMEM, EINTR)                             \
    X(accept4,       PASSES, EMFILE, ECONNABORTED, ENOMEM, EINTR)       \
    X(recv,          PASSES, ECONNRESET, EINTR, FAIL_SHORT)             \
    X(send,          PASSES, EPIPE, EINTR, FAIL_SHORT)                  \
    X(pthread_create, LASTS, EAGAIN)                                    \
    X(getrandom,     LASTS,  ENOSYS, EINTR)                             \
    X(getrlimit,     LASTS,  EPERM)                                     \
    X(setrlimit,     LASTS,  EPERM)                                     \
    X(sched_getaffinity, LASTS, EINVAL)                                 \
    X(nanosleep,     PASSES, EINTR)                                     \
    X(io_uring_queue_init_params, LASTS, EPERM, ENOMEM, EMFILE)         \
    X(io_uring_get_probe_ring, LASTS, ENOMEM)                           \
    X(io_uring_submit, PASSES, EINTR, EAGAIN, EBUSY)                    \
    X(io_uring_submit_and_wait, PASSES, EINTR, EAGAIN, EBUSY)           \
    X(io_uring_submit_and_get_events, PASSES, EINTR, EAGAIN, EBUSY)     \
    X(io_uring_submit_and_wait_timeout, PASSES, EINTR, EAGAIN, EBUSY)   \
    X(__io_uring_get_cqe, PASSES, EINTR, EAGAIN)                        \
    X(completed_accept, PASSES, EMFILE, ECONNABORTED, ENOMEM)           \
    X(completed_recv, PASSES, ECONNRESET)                               \
    X(completed_send, PASSES, EPIPE)                                    \
    X(completed_poll, PASSES, ENOMEM, EINTR)                            \
    X(completed_write, LASTS, EIO, ENOSPC, FAIL_SHORT, EAGAIN, EINTR)   \
    X(malloc,        LASTS,  ENOMEM)                                    \
    X(calloc,        LASTS,  ENOMEM)                                    \
    X(realloc,       LASTS,  ENOMEM)                                    \
    X(posix_memalign, LASTS, ENOMEM)                                    \
    X(aligned_alloc, LASTS,  ENOMEM)
/* clang-format on */

#define CALL_ENUM(name, lasts, ...) CALL_##name,
enum call { CALL_LIST(CALL_ENUM) CALL_COUNT };

static const struct {
    const char *name;
    bool lasts;
    int ways[WAYS_MAX]; /* 0: none */
} calls[] = {
#define CALL_ROW(name, lasts, ...) { #name, lasts, { __VA_ARGS__ } },
    CALL_LIST(CALL_ROW)
};

static struct fail_control *control;
/* Of this thread: inside an allocation, or inside the shim. Initial-exec, for the general model may allocate. */
static __thread unsigned depth __attribute__((tls_model("initial-exec")));

/* ---- which call fails ---- */

static void path_of(int fd, const char *path, char out[FAIL_PATH_SIZE])
{
    int saved = errno;
    out[0] = 0;
    if (path) {
        snprintf(out, FAIL_PATH_SIZE, "%s", path);
    } else if (fd >= 0) {
        char link[40];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, out, FAIL_PATH_SIZE - 1);
        out[n > 0 ? n : 0] = 0;
    }
    errno = saved;
}

static void note(enum call c, int error, int fd, const char *path, void *caller)
{
    struct fail_control *ctl = control;
    Dl_info where = { 0 };
    int saved = errno;
    ctl->call = c;
    ctl->error = error;
    for (ctl->ways = 0; ctl->ways < WAYS_MAX && calls[c].ways[ctl->ways];)
        ctl->ways++;
    snprintf(ctl->name, sizeof ctl->name, "%s", calls[c].name);
    path_of(fd, path, ctl->path);
    if (dladdr(caller, &where) && where.dli_fname) {
        const char *slash = strrchr(where.dli_fname, '/');
        snprintf(ctl->object, sizeof ctl->object, "%s", slash ? slash + 1 : where.dli_fname);
        ctl->caller = (uint64_t)((char *)caller - (char *)where.dli_fbase);
    }
    errno = saved;
}

/* Is it one of those that are counted? */
static bool is_meant(const struct fail_control *ctl, enum call c, int fd, const char *path)
{
    char name[FAIL_PATH_SIZE];
    if (!ctl->only[0])
        return true;
    if (strcmp(calls[c].name, ctl->only) != 0)
        return false;
    path_of(fd, path, name);
    return strstr(name, ctl->only_path) != NULL;
}

/* 0: let it through. Else FAIL_SHORT or an errno. */
static int decide(enum call c, int fd, const char *path, void *caller)
{
    struct fail_control *ctl = control;
    unsigned class = c >= CALL_malloc ? FAIL_MEMORY : FAIL_SYSTEM;
    if (!ctl || depth || !(atomic_load(&ctl->armed) & 1u << class) || !is_meant(ctl, c, fd, path))
        return 0;
    uint64_t n = atomic_fetch_add(&ctl->count[class], 1) + 1;
    if (class != ctl->what || ctl->at == 0 || n < ctl->at)
        return 0;
    depth++;
    int error = 0;
    if (n == ctl->at) {
        error = ctl->way < WAYS_MAX ? calls[c].ways[ctl->way] : 0;
        note(c, error, fd, path, caller);
        atomic_fetch_add(&ctl->failed, 1);
    } else if (atomic_load(&ctl->failed) && calls[c].lasts &&
               (ctl->mode == FAIL_ALL || (ctl->mode == FAIL_SAME && ctl->call == c))) {
        error = calls[c].ways[0];
        atomic_fetch_add(&ctl->failed, 1);
    }
    if (error > 0 && error < 256)
        atomic_fetch_or(&ctl->errors[error / 64], (uint64_t)1 << error % 64);
    depth--;
    return error;
}

/* The next definition of a symbol. */
static void *next(const char *name)
{
    depth++;
    void *p = dlsym(RTLD_NEXT, name);
    depth--;
    if (!p)
        abort();
    return p;
}

#define REAL(name)                                                                                           \
    static __typeof__(&name) real;                                                                           \
    if (!real)                                                                                               \
    *(void **)&real = next(#name)

#define CALLER __builtin_return_address(0)

/* A whole function: fails with -1 and errno. */
#define PLAIN(type, name, fd, path, params, args)                                                            \
    type name params                                                                                         \
    {                                                                                                        \
        REAL(name);                                                                                          \
        int error = decide(CALL_##name, fd, path, CALLER);                                                   \
        if (error) {                                                                                         \
            errno = error;                                                                                   \
            return -1;                                                                                       \
        }                                                                                                    \
        return real args;                                                                                    \
    }

/* ---- files ---- */

static bool is_file(int fd)
{
    struct stat st;
    depth++;
    bool file = fd > 2 && fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
    depth--;
    return file;
}

/* How much a short transfer moves; all of it where the descriptor takes no less. */
static size_t shorter(int fd, size_t len)
{
    size_t half = len / 2 >= 4096 ? len / 2 & ~(size_t)4095 : len / 2;
    int flags = fcntl(fd, F_GETFL);
    return half == 0 || (flags >= 0 && flags & O_DIRECT && half < 4096) ? len : half;
}

#define TRANSFER(type, name, params, fd, len, ...)                                                           \
    type name params                                                                                         \
    {                                                                                                        \
        REAL(name);                                                                                          \
        int error = is_file(fd) ? decide(CALL_##name, fd, NULL, CALLER) : 0;                                 \
        if (error > 0) {                                                                                     \
            errno = error;                                                                                   \
            return -1;                                                                                       \
        }                                                                                                    \
        if (error == FAIL_SHORT)                                                                             \
            (len) = shorter(fd, len);                                                                        \
        return real(__VA_ARGS__);                                                                            \
    }

TRANSFER(ssize_t, read, (int fd, void *buf, size_t len), fd, len, fd, buf, len)
TRANSFER(ssize_t, write, (int fd, const void *buf, size_t len), fd, len, fd, buf, len)
TRANSFER(ssize_t, pread, (int fd, void *buf, size_t len, off_t off), fd, len, fd, buf, len, off)
TRANSFER(ssize_t, pwrite, (int fd, const void *buf, size_t len, off_t off), fd, len, fd, buf, len, off)

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
    REAL(pwritev2);
    int error = decide(CALL_pwritev2, fd, NULL, CALLER);
    if (error > 0) {
        errno = error;
        return -1;
    }
    if (error == FAIL_SHORT && n == 1) {
        struct iovec less = { iov->iov_base, shorter(fd, iov->iov_len) };
        return real(fd, &less, 1, off, flags);
    }
    return real(fd, iov, n, off, flags);
}

static mode_t mode_of(int flags, va_list ap)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    int error = decide(CALL_open, -1, path, CALLER);
    if (error) {
        errno = error;
        return -1;
    }
    return real(path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
    REAL(openat);
    va_list ap;
    va_start(ap, flags);
    mode_t mode = mode_of(flags, ap);
    va_end(ap);
    int error = decide(CALL_openat, dir, NULL, CALLER);
    if (error) {
        errno = error;
        return -1;
    }
    return real(dir, path, flags, mode);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
    REAL(fallocate);
    int error = decide(CALL_fallocate, fd, NULL, CALLER);
    if (!error && control && atomic_load(&control->tiny_log) && off == 0 && len == TINY_LOG_REFUSED)
        error = ENOSPC;
    if (error) {
        errno = error;
        return -1;
    }
    return real(fd, mode, off, len);
}

int posix_fadvise(int fd, off_t off, off_t len, int advice)
{
    REAL(posix_fadvise);
    int error = decide(CALL_posix_fadvise, fd, NULL, CALLER);
    return error ? error : real(fd, off, len, advice);
}

DIR *opendir(const char *path)
{
    REAL(opendir);
    int error = decide(CALL_opendir, -1, path, CALLER);
    if (error) {
        errno = error;
        return NULL;
    }
    return real(path);
}

struct dirent *readdir(DIR *dir)
{
    REAL(readdir);
    int error = decide(CALL_readdir, dirfd(dir), NULL, CALLER);
    if (error) {
        errno = error;
        return NULL;
    }
    return real(dir);
}

FILE *fopen(const char *path, const char *mode)
{
    REAL(fopen);
    int error = decide(CALL_fopen, -1, path, CALLER);
    if (error) {
        errno = error;
        return NULL;
    }
    return real(path, mode);
}

char *realpath(const char *path, char *resolved)
{
    REAL(realpath);
    int error = decide(CALL_realpath, -1, path, CALLER);
    if (error) {
        errno = error;
        return NULL;
    }
    return real(path, resolved);
}

PLAIN(int, fsync, fd, NULL, (int fd), (fd))
PLAIN(int, fdatasync, fd, NULL, (int fd), (fd))
PLAIN(int, ftruncate, fd, NULL, (int fd, off_t len), (fd, len))
PLAIN(int, rename, -1, from, (const char *from, const char *to), (from, to))
PLAIN(int, renameat2, -1, from, (int a, const char *from, int b, const char *to, unsigned flags),
      (a, from, b, to, flags))
PLAIN(int, link, -1, from, (const char *from, const char *to), (from, to))
PLAIN(int, unlink, -1, path, (const char *path), (path))
PLAIN(int, rmdir, -1, path, (const char *path), (path))
PLAIN(int, mkdir, -1, path, (const char *path, mode_t mode), (path, mode))
PLAIN(int, stat, -1, path, (const char *path, struct stat *st), (path, st))
PLAIN(int, lstat, -1, path, (const char *path, struct stat *st), (path, st))
PLAIN(int, fstat, fd, NULL, (int fd, struct stat *st), (fd, st))
PLAIN(int, fstatfs, fd, NULL, (int fd, struct statfs *st), (fd, st))
PLAIN(int, fstatvfs, fd, NULL, (int fd, struct statvfs *st), (fd, st))
PLAIN(int, access, -1, path, (const char *path, int mode), (path, mode))
PLAIN(int, faccessat, -1, path, (int dir, const char *path, int mode, int flags), (dir, path, mode, flags))
PLAIN(int, chmod, -1, path, (const char *path, mode_t mode), (path, mode))
PLAIN(int, chown, -1, path, (const char *path, uid_t uid, gid_t gid), (path, uid, gid))
PLAIN(int, fchmod, fd, NULL, (int fd, mode_t mode), (fd, mode))
PLAIN(int, fchown, fd, NULL, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
PLAIN(int, flock, fd, NULL, (int fd, int how), (fd, how))
PLAIN(off_t, lseek, fd, NULL, (int fd, off_t off, int whence), (fd, off, whence))

/* ---- memory that is no allocation ---- */

void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
    REAL(mmap);
    int error = decide(CALL_mmap, fd, NULL, CALLER);
    if (error) {
        errno = error;
        return MAP_FAILED;
    }
    return real(at, len, prot, flags, fd, off);
}

PLAIN(int, madvise, -1, NULL, (void *at, size_t len, int advice), (at, len, advice))
PLAIN(int, memfd_create, -1, NULL, (const char *name, unsigned flags), (name, flags))

/* ---- sockets, waiting, the rest ---- */

PLAIN(int, socket, -1, NULL, (int domain, int type, int protocol), (domain, type, protocol))
PLAIN(int, bind, fd, NULL, (int fd, const struct sockaddr *to, socklen_t len), (fd, to, len))
PLAIN(int, listen, fd, NULL, (int fd, int backlog), (fd, backlog))
PLAIN(int, getsockopt, fd, NULL, (int fd, int level, int name, void *value, socklen_t *len),
      (fd, level, name, value, len))
PLAIN(int, eventfd, -1, NULL, (unsigned value, int flags), (value, flags))
PLAIN(int, signalfd, -1, NULL, (int fd, const sigset_t *set, int flags), (fd, set, flags))
PLAIN(int, epoll_create1, -1, NULL, (int flags), (flags))
PLAIN(int, epoll_ctl, fd, NULL, (int ep, int op, int fd, struct epoll_event *ev), (ep, op, fd, ev))
PLAIN(int, epoll_wait, -1, NULL, (int ep, struct epoll_event *ev, int n, int ms), (ep, ev, n, ms))
PLAIN(int, poll, -1, NULL, (struct pollfd * p, nfds_t n, int ms), (p, n, ms))
PLAIN(int, accept4, fd, NULL, (int fd, struct sockaddr *from, socklen_t *len, int flags),
      (fd, from, len, flags))
PLAIN(ssize_t, getrandom, -1, NULL, (void *buf, size_t len, unsigned flags), (buf, len, flags))
PLAIN(int, getrlimit, -1, NULL, (__rlimit_resource_t which, struct rlimit *l), (which, l))
PLAIN(int, setrlimit, -1, NULL, (__rlimit_resource_t which, const struct rlimit *l), (which, l))
PLAIN(int, sched_getaffinity, -1, NULL, (pid_t pid, size_t size, cpu_set_t *set), (pid, size, set))
PLAIN(int, nanosleep, -1, NULL, (const struct timespec *t, struct timespec *left), (t, left))

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
    REAL(recv);
    int error = decide(CALL_recv, fd, NULL, CALLER);
    if (error > 0) {
        errno = error;
        return -1;
    }
    return real(fd, buf, error == FAIL_SHORT && len > 1 ? len / 2 : len, flags);
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
    REAL(send);
    int error = decide(CALL_send, fd, NULL, CALLER);
    if (error > 0) {
        errno = error;
        return -1;
    }
    return real(fd, buf, error == FAIL_SHORT && len > 1 ? len / 2 : len, flags);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    REAL(pthread_create);
    int error = decide(CALL_pthread_create, -1, NULL, CALLER);
    return error ? error : real(thread, attr, fn, arg);
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    static _Atomic long reads;
    REAL(clock_gettime);
    int r = real(clock, out);
    if (clock == CLOCK_REALTIME && control && atomic_load(&control->backwards))
        out->tv_sec -= 3600 * atomic_fetch_add(&reads, 1);
    return r;
}

/* ---- io_uring ---- */

static enum call completed_call(const struct kithi_io_op *op)
{
    switch (op->type) {
    case KITHI_IO_ACCEPT: return CALL_completed_accept;
    case KITHI_IO_RECV: return CALL_completed_recv;
    case KITHI_IO_SEND: return CALL_completed_send;
    case KITHI_IO_POLL: return CALL_completed_poll;
    case KITHI_IO_WRITE: return CALL_completed_write;
    default: return CALL_COUNT;
    }
}

/* Completions that have not been looked at yet. kithd has one ring. */
static void look_at_completions(struct io_uring *ring, void *caller)
{
    static unsigned seen;
    unsigned end = io_uring_smp_load_acquire(ring->cq.ktail), head = *ring->cq.khead;
    if ((int)(seen - head) < 0)
        seen = head;
    for (; seen != end; seen++) {
        struct io_uring_cqe *cqe = &ring->cq.cqes[seen & ring->cq.ring_mask];
        if (cqe->user_data < 4096 || cqe->res < 0) /* the bell, and cancellations; what failed by itself */
            continue;
        const struct kithi_io_op *op = (const struct kithi_io_op *)(uintptr_t)cqe->user_data;
        enum call c = completed_call(op);
        int error = c == CALL_COUNT ? 0 : decide(c, op->fd, NULL, caller);
        if (error > 0 && c == CALL_completed_accept)
            close(cqe->res);
        if (error > 0)
            cqe->res = -error;
        else if (error == FAIL_SHORT && cqe->res > 4096)
            cqe->res = cqe->res / 2 & ~4095;
    }
}

#define RING(name, params, ...)                                                                              \
    int name params                                                                                          \
    {                                                                                                        \
        REAL(name);                                                                                          \
        int error = decide(CALL_##name, -1, NULL, CALLER);                                                   \
        if (error)                                                                                           \
            return -error;                                                                                   \
        int r = real(__VA_ARGS__);                                                                           \
        look_at_completions(ring, CALLER);                                                                   \
        return r;                                                                                            \
    }

RING(io_uring_submit, (struct io_uring * ring), ring)
RING(io_uring_submit_and_wait, (struct io_uring * ring, unsigned n), ring, n)
RING(io_uring_submit_and_get_events, (struct io_uring * ring), ring)
RING(io_uring_submit_and_wait_timeout,
     (struct io_uring * ring, struct io_uring_cqe **cqe, unsigned n, struct __kernel_timespec *ts,
      sigset_t *set),
     ring, cqe, n, ts, set)

int __io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit, unsigned n,
                       sigset_t *set)
{
    REAL(__io_uring_get_cqe);
    int error = decide(CALL___io_uring_get_cqe, -1, NULL, CALLER);
    return error ? -error : real(ring, cqe, submit, n, set);
}

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
    REAL(io_uring_queue_init_params);
    int error = decide(CALL_io_uring_queue_init_params, -1, NULL, CALLER);
    return error ? -error : real(entries, ring, p);
}

struct io_uring_probe *io_uring_get_probe_ring(struct io_uring *ring)
{
    REAL(io_uring_get_probe_ring);
    return decide(CALL_io_uring_get_probe_ring, -1, NULL, CALLER) ? NULL : real(ring);
}

/* ---- allocations ---- */

/* Before the real functions are known dlsym() may want some itself; never given back. */
static _Alignas(64) unsigned char early[64 << 10];
static size_t early_used;

static void *early_take(size_t size)
{
    size_t at = early_used;
    early_used += (size + 63) & ~(size_t)63;
    return early_used <= sizeof early ? early + at : NULL;
}

static bool is_early(const void *p)
{
    return (uintptr_t)p >= (uintptr_t)early && (uintptr_t)p < (uintptr_t)early + sizeof early;
}

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void (*free)(void *);
} heap;

/* False while they are being looked for. */
static bool have_heap(void)
{
    static bool looking;
    if (heap.free)
        return true;
    if (looking)
        return false;
    looking = true;
    *(void **)&heap.malloc = next("malloc");
    *(void **)&heap.calloc = next("calloc");
    *(void **)&heap.realloc = next("realloc");
    *(void **)&heap.posix_memalign = next("posix_memalign");
    *(void **)&heap.aligned_alloc = next("aligned_alloc");
    *(void **)&heap.free = next("free");
    return true;
}

#define ALLOCATION(name, type, ...)                                                                          \
    if (decide(CALL_##name, -1, NULL, CALLER)) {                                                             \
        errno = ENOMEM;                                                                                      \
        return NULL;                                                                                         \
    }                                                                                                        \
    depth++;                                                                                                 \
    type got = heap.name(__VA_ARGS__);                                                                       \
    depth--;                                                                                                 \
    return got

void *malloc(size_t size)
{
    if (!have_heap())
        return early_take(size);
    ALLOCATION(malloc, void *, size);
}

void *calloc(size_t n, size_t size)
{
    if (!have_heap())
        return early_take(n * size);
    ALLOCATION(calloc, void *, n, size);
}

void *realloc(void *p, size_t size)
{
    if (is_early(p)) {
        void *to = malloc(size);
        size_t left = (size_t)(early + sizeof early - (unsigned char *)p);
        if (to)
            memcpy(to, p, size < left ? size : left);
        return to;
    }
    if (!have_heap())
        return early_take(size);
    ALLOCATION(realloc, void *, p, size);
}

void *aligned_alloc(size_t align, size_t size)
{
    have_heap();
    ALLOCATION(aligned_alloc, void *, align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
    have_heap();
    if (decide(CALL_posix_memalign, -1, NULL, CALLER))
        return ENOMEM;
    depth++;
    int r = heap.posix_memalign(out, align, size);
    depth--;
    return r;
}

void free(void *p)
{
    if (!p || is_early(p) || !have_heap())
        return;
    depth++;
    heap.free(p);
    depth--;
}

/* ---- set-up ---- */

static void __attribute__((constructor)) set_up(void)
{
    const char *path = getenv(FAIL_ENVIRONMENT);
    depth++;
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *p = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        control = p == MAP_FAILED ? NULL : p;
        close(fd);
    }
    depth--;
}

/* kithd's own beginning: what the loader and the libraries did before main() is not its to answer for. */
int getopt_long(int argc, char *const *argv, const char *shorts, const struct option *longs, int *index)
{
    REAL(getopt_long);
    if (control && atomic_load(&control->begin))
        atomic_store(&control->armed, atomic_exchange(&control->begin, 0));
    return real(argc, argv, shorts, longs, index);
}
