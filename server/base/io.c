/*
 * io.c - the part of the loop that does not depend on its kind: choosing one, filling ops,
 * the real file system, and the helper thread. io_uring.c and io_threads.c are the kinds.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "server/base/io_priv.h"
#include "server/base/pread.h"
#include "shm/base/assert.h"

#define DIRECT_UNIT 4096u
#define ZERO_BYTES  (256u << 10)

/* ---- choosing ---- */

int kithi_io_open(enum kithi_io_kind kind, struct kithi_io **out_io, struct kithi_errmsg *err)
{
    struct kithi_io *io = NULL;
    char reason[160] = "asked for";
    const char *forced = getenv("KITH_IO");
    if (forced && *forced) {
        if (strcmp(forced, "uring") == 0)
            kind = KITHI_IO_URING;
        else if (strcmp(forced, "threads") == 0)
            kind = KITHI_IO_THREADS;
        else
            return kithi_error_set(err, -EINVAL, "KITH_IO is \"%s\": it must be uring or threads", forced);
        snprintf(reason, sizeof reason, "KITH_IO=%s", forced);
    }

    int r = -ENOSYS;
    if (kind != KITHI_IO_THREADS) {
        char why[120] = "";
        r = kithi_io_uring_open(&io, why, sizeof why);
        if (r < 0 && kind == KITHI_IO_URING)
            return kithi_error_set(err, r, "io_uring cannot be used: %s", why);
        if (r < 0)
            snprintf(reason, sizeof reason, "io_uring cannot be used: %s", why);
        else if (kind == KITHI_IO_AUTO)
            snprintf(reason, sizeof reason, "io_uring is permitted");
    }
    if (r < 0) {
        char why[120] = "";
        r = kithi_io_threads_open(&io, why, sizeof why);
        if (r < 0)
            return kithi_error_set(err, r, "the event loop cannot be made: %s", why);
    }
    memcpy(io->reason, reason, sizeof reason);
    *out_io = io;
    return 0;
}

void kithi_io_free(struct kithi_io *io)
{
    if (io)
        io->vt->free(io);
}

const char *kithi_io_name(const struct kithi_io *io)
{
    return io->vt->name;
}

const char *kithi_io_reason(const struct kithi_io *io)
{
    return io->reason;
}

int kithi_io_run(struct kithi_io *io, int timeout_ms)
{
    return io->vt->run(io, timeout_ms);
}

void kithi_io_on_wake(struct kithi_io *io, kithi_io_wake_fn *fn, void *arg)
{
    io->wake_fn = fn;
    io->wake_arg = arg;
}

void kithi_io_wake(struct kithi_io *io)
{
    io->vt->wake(io);
}

/* ---- ops ---- */

static void submit(struct kithi_io *io, struct kithi_io_op *op, uint8_t type, int fd, size_t len,
                   uint64_t off)
{
    KITHI_ASSERT(!op->busy);
    op->type = type;
    op->phase = 0;
    op->busy = true;
    op->cancelled = false;
    op->fd = fd;
    op->result = 0;
    op->len = len;
    op->pos = 0;
    op->off = off;
    op->next = op->prev = NULL;
    io->vt->submit(io, op);
}

void kithi_io_accept(struct kithi_io *io, struct kithi_io_op *op, int listen_fd)
{
    submit(io, op, KITHI_IO_ACCEPT, listen_fd, 0, 0);
}

void kithi_io_recv(struct kithi_io *io, struct kithi_io_op *op, int fd, void *buf, size_t len)
{
    op->u.in = buf;
    submit(io, op, KITHI_IO_RECV, fd, len, 0);
}

void kithi_io_send(struct kithi_io *io, struct kithi_io_op *op, int fd, const void *buf, size_t len)
{
    op->u.out = buf;
    submit(io, op, KITHI_IO_SEND, fd, len, 0);
}

void kithi_io_poll(struct kithi_io *io, struct kithi_io_op *op, int fd)
{
    submit(io, op, KITHI_IO_POLL, fd, 0, 0);
}

void kithi_io_timer(struct kithi_io *io, struct kithi_io_op *op, uint64_t ms)
{
    op->u.time.sec = (int64_t)(ms / 1000);
    op->u.time.nsec = (long long)(ms % 1000) * 1000000;
    submit(io, op, KITHI_IO_TIMER, -1, 0, kithi_io_now_ns() + ms * 1000000u);
}

void kithi_io_write_durable(struct kithi_io *io, struct kithi_io_op *op, int fd, const void *buf, size_t len,
                            uint64_t off)
{
    op->u.out = buf;
    op->durable = true;
    submit(io, op, KITHI_IO_WRITE, fd, len, off);
}

void kithi_io_write(struct kithi_io *io, struct kithi_io_op *op, int fd, const void *buf, size_t len,
                    uint64_t off)
{
    op->u.out = buf;
    op->durable = false;
    submit(io, op, KITHI_IO_WRITE, fd, len, off);
}

void kithi_io_call(struct kithi_io *io, struct kithi_io_op *op, kithi_io_call_fn *fn)
{
    op->u.call = fn;
    submit(io, op, KITHI_IO_CALL, -1, 0, 0);
}

void kithi_io_cancel(struct kithi_io *io, struct kithi_io_op *op)
{
    if (op->busy && !op->cancelled && op->type != KITHI_IO_WRITE && op->type != KITHI_IO_CALL)
        io->vt->cancel(io, op);
}

void kithi_io_close(struct kithi_io *io, int fd)
{
    if (fd >= 0)
        io->vt->close(io, fd);
}

void kithi_io_register_memory(struct kithi_io *io, const void *buf, size_t len)
{
    if (io->vt->register_memory)
        io->vt->register_memory(io, buf, len);
}

void kithi_io_unregister_memory(struct kithi_io *io, const void *buf)
{
    if (io->vt->unregister_memory)
        io->vt->unregister_memory(io, buf);
}

uint64_t kithi_io_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- lists ---- */

void kithi_io_list_insert(struct kithi_io_list *list, struct kithi_io_op *op, struct kithi_io_op *before)
{
    op->next = before;
    op->prev = before ? before->prev : list->last;
    *(op->prev ? &op->prev->next : &list->first) = op;
    *(before ? &before->prev : &list->last) = op;
}

void kithi_io_list_push(struct kithi_io_list *list, struct kithi_io_op *op)
{
    kithi_io_list_insert(list, op, NULL);
}

void kithi_io_list_remove(struct kithi_io_list *list, struct kithi_io_op *op)
{
    *(op->prev ? &op->prev->next : &list->first) = op->next;
    *(op->next ? &op->next->prev : &list->last) = op->prev;
    op->next = op->prev = NULL;
}

struct kithi_io_op *kithi_io_list_pop(struct kithi_io_list *list)
{
    struct kithi_io_op *op = list->first;
    if (op)
        kithi_io_list_remove(list, op);
    return op;
}

/* ---- files ---- */

int kithi_io_file_create(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct)
{
    return io->vt->file_create(io, path, want_direct, out_direct);
}

int kithi_io_file_open(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct,
                       uint64_t *out_size)
{
    return io->vt->file_open(io, path, want_direct, out_direct, out_size);
}

int kithi_io_file_read(struct kithi_io *io, int fd, void *buf, size_t len, uint64_t off)
{
    return io->vt->file_read(io, fd, buf, len, off);
}

int kithi_io_file_zero(struct kithi_io *io, int fd, uint64_t off, uint64_t len)
{
    return io->vt->file_zero(io, fd, off, len);
}

int kithi_io_file_size(struct kithi_io *io, const char *path, uint64_t *out_size)
{
    return io->vt->file_size(io, path, out_size);
}

int kithi_io_file_allocate(struct kithi_io *io, int fd, uint64_t len)
{
    return io->vt->file_allocate(io, fd, len);
}

int kithi_io_file_write(struct kithi_io *io, int fd, const void *buf, size_t len, uint64_t off)
{
    return io->vt->file_write(io, fd, buf, len, off);
}

void kithi_io_file_close(struct kithi_io *io, int fd)
{
    if (fd >= 0)
        io->vt->file_close(io, fd);
}

int kithi_io_file_sync(struct kithi_io *io, int fd)
{
    return io->vt->file_sync(io, fd);
}

int kithi_io_file_rename(struct kithi_io *io, const char *from, const char *to)
{
    return io->vt->file_rename(io, from, to);
}

int kithi_io_file_unlink(struct kithi_io *io, const char *path)
{
    return io->vt->file_unlink(io, path);
}

int kithi_io_dir_sync(struct kithi_io *io, const char *dir)
{
    return io->vt->dir_sync(io, dir);
}

/* Some file systems take O_DIRECT at open and refuse it at the first write; for a file with content a read tells. */
static bool direct_works(int fd, bool empty)
{
    void *block = NULL;
    if (posix_memalign(&block, DIRECT_UNIT, DIRECT_UNIT) != 0)
        return false;
    memset(block, 0, DIRECT_UNIT);
    bool works = empty ? pwrite(fd, block, DIRECT_UNIT, 0) == (ssize_t)DIRECT_UNIT
                       : pread(fd, block, DIRECT_UNIT, 0) >= 0;
    free(block);
    return works;
}

int kithi_io_real_create(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct)
{
    (void)io;
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    *out_direct = false;
    if (unlink(path) != 0 && errno != ENOENT)
        return -errno;
    int fd = -1;
    if (want_direct) {
        fd = open(path, flags | O_DIRECT, 0640);
        if (fd >= 0 && direct_works(fd, true))
            *out_direct = true;
        else if (fd >= 0 && fcntl(fd, F_SETFL, 0) != 0)
            goto fail;
        else if (fd < 0 && errno == EINVAL) /* some create the file before they refuse the flag */
            unlink(path);
    }
    if (fd < 0)
        fd = open(path, flags, 0640);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0)
        goto fail;
    return fd;

fail:;
    int r = -errno;
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    return r;
}

int kithi_io_real_open(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct,
                       uint64_t *out_size)
{
    (void)io;
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK; /* a FIFO put in the way must not hang */
    struct stat st;
    bool direct = want_direct;
    int fd = open(path, flags | (direct ? O_DIRECT : 0));
    if (fd < 0 && direct && errno == EINVAL) {
        direct = false;
        fd = open(path, flags);
    }
    if (fd < 0)
        return -errno;
    int r = fstat(fd, &st) != 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
    if (r == 0 && direct && !direct_works(fd, false))
        direct = false;
    /* Non-blocking is for the opening alone: a ring would give up where it is to wait. */
    if (r == 0 && fcntl(fd, F_SETFL, direct ? O_DIRECT : 0) != 0)
        r = -errno;
    if (r == 0 && flock(fd, LOCK_EX | LOCK_NB) != 0)
        r = -errno;
    if (r < 0) {
        close(fd);
        return r;
    }
    *out_direct = direct;
    *out_size = (uint64_t)st.st_size;
    return fd;
}

int kithi_io_real_read(struct kithi_io *io, int fd, void *buf, size_t len, uint64_t off)
{
    (void)io;
    return (int)kithi_pread(fd, buf, len, off);
}

int kithi_io_real_size(struct kithi_io *io, const char *path, uint64_t *out_size)
{
    (void)io;
    struct stat st;
    if (lstat(path, &st) != 0)
        return -errno;
    *out_size = (uint64_t)st.st_size;
    return 0;
}

int kithi_io_real_allocate(struct kithi_io *io, int fd, uint64_t len)
{
    (void)io;
    int r;
    do {
        r = fallocate(fd, 0, 0, (off_t)len);
    } while (r != 0 && errno == EINTR);
    if (r != 0 && errno == EOPNOTSUPP) /* no preallocation here: size alone, space as it is written */
        r = ftruncate(fd, (off_t)len);
    return r != 0 ? -errno : 0;
}

/* All of it; with durable, on stable storage, too. */
static int write_whole(int fd, const void *buf, size_t len, uint64_t off, bool durable)
{
    bool separate = false; /* no RWF_DSYNC here: sync afterwards */
    uint64_t pos = 0;
    while (pos < len) {
        struct iovec v = { .iov_base = (char *)(uintptr_t)buf + pos, .iov_len = len - pos };
        ssize_t n = pwritev2(fd, &v, 1, (off_t)(off + pos), durable && !separate ? RWF_DSYNC : 0);
        if (n < 0 && errno == EOPNOTSUPP && durable && !separate) {
            separate = true;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        uint64_t next = kithi_io_advance(pos, (uint64_t)n, len);
        if (next <= pos)
            return -EIO;
        pos = next;
    }
    if (separate && fdatasync(fd) != 0)
        return -errno;
    return (int)len;
}

int kithi_io_real_write(struct kithi_io *io, int fd, const void *buf, size_t len, uint64_t off)
{
    (void)io;
    return write_whole(fd, buf, len, off, true);
}

void kithi_io_real_close(struct kithi_io *io, int fd)
{
    (void)io;
    close(fd);
}

int kithi_io_real_zero(struct kithi_io *io, int fd, uint64_t off, uint64_t len)
{
    static const _Alignas(DIRECT_UNIT) uint8_t zeros[ZERO_BYTES];
    (void)io;
    for (uint64_t pos = 0; pos < len;) {
        int r = write_whole(fd, zeros, len - pos < ZERO_BYTES ? (size_t)(len - pos) : ZERO_BYTES, off + pos,
                            false);
        if (r < 0)
            return r;
        pos += (uint64_t)r;
    }
    return 0;
}

int kithi_io_real_sync(struct kithi_io *io, int fd)
{
    (void)io;
    return fsync(fd) != 0 ? -errno : 0;
}

int kithi_io_real_rename(struct kithi_io *io, const char *from, const char *to)
{
    (void)io;
    return rename(from, to) != 0 ? -errno : 0;
}

int kithi_io_real_unlink(struct kithi_io *io, const char *path)
{
    (void)io;
    return unlink(path) != 0 ? -errno : 0;
}

int kithi_io_real_dir_sync(struct kithi_io *io, const char *dir)
{
    (void)io;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = fsync(fd) != 0 ? -errno : 0;
    close(fd);
    return r;
}

/* ---- the helper thread ---- */

static void *worker_main(void *arg)
{
    struct kithi_io_worker *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct kithi_io_op *op = kithi_io_list_pop(&w->queue);
        if (!op && w->stop)
            break;
        if (!op) {
            pthread_cond_wait(&w->more, &w->lock);
            continue;
        }
        w->running = op;
        pthread_mutex_unlock(&w->lock);
        op->result = op->type == KITHI_IO_CALL
                         ? op->u.call(op->arg)
                         : write_whole(op->fd, op->u.out, op->len, op->off, op->durable);
        pthread_mutex_lock(&w->lock);
        w->running = NULL;
        kithi_io_list_push(&w->finished, op);
        w->notify(w->io);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

void kithi_io_worker_init(struct kithi_io_worker *worker, struct kithi_io *io,
                          void (*notify)(struct kithi_io *))
{
    memset(worker, 0, sizeof *worker);
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->more, NULL);
    worker->io = io;
    worker->notify = notify;
}

/* Signals belong to the program's own threads: the helper takes none. */
int kithi_io_worker_start(struct kithi_io_worker *worker)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&worker->thread, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    worker->started = r == 0;
    return -r;
}

void kithi_io_worker_submit(struct kithi_io_worker *worker, struct kithi_io_op *op)
{
    pthread_mutex_lock(&worker->lock);
    kithi_io_list_push(&worker->queue, op);
    pthread_cond_signal(&worker->more);
    pthread_mutex_unlock(&worker->lock);
}

struct kithi_io_op *kithi_io_worker_take(struct kithi_io_worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    struct kithi_io_op *op = kithi_io_list_pop(&worker->finished);
    pthread_mutex_unlock(&worker->lock);
    return op;
}

bool kithi_io_worker_uses(struct kithi_io_worker *worker, int fd)
{
    pthread_mutex_lock(&worker->lock);
    bool uses = worker->running && worker->running->fd == fd;
    for (const struct kithi_io_op *op = worker->queue.first; op && !uses; op = op->next)
        uses = op->fd == fd;
    pthread_mutex_unlock(&worker->lock);
    return uses;
}

void kithi_io_worker_stop(struct kithi_io_worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    bool started = worker->started;
    worker->stop = true;
    pthread_cond_signal(&worker->more);
    pthread_mutex_unlock(&worker->lock);
    if (started)
        pthread_join(worker->thread, NULL);
    worker->started = false;
}

void kithi_io_worker_fini(struct kithi_io_worker *worker)
{
    pthread_cond_destroy(&worker->more);
    pthread_mutex_destroy(&worker->lock);
}
