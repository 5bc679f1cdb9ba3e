/*
 * io_threads.c - the loop without io_uring: epoll for what can be polled, one thread for
 * the log's writes, one for calls.
 *
 * A descriptor is registered once, edge-triggered, for everything. An op is tried as soon
 * as it is submitted and again at every edge; because the registration comes before the
 * first try, no edge is missed. Results wait in `ready` until kithi_io_run() dispatches
 * them, so that done is never called from a submitting call.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/base/io_priv.h"
#include "shm/base/assert.h"

#define EVENTS_MAX 128

/* What waits on a descriptor: one op for each direction. */
struct slot {
    struct kithi_io_op *in;  /* accept, recv or poll */
    struct kithi_io_op *out; /* send */
    bool registered;
    bool closing; /* close once the worker has left it */
};

struct threads {
    struct kithi_io base;
    int epoll_fd;
    int wake_fd;
    _Atomic bool woken;
    struct slot *slots; /* by descriptor */
    size_t slot_count;
    struct kithi_io_list ready;  /* with results, to be dispatched */
    struct kithi_io_list timers; /* by op->off, the deadline in ns */
    struct kithi_io_worker writes, calls;
};

/* op->phase */
enum { PHASE_WAITING, PHASE_FINISHED };

static void finish(struct threads *t, struct kithi_io_op *op, int result)
{
    op->phase = PHASE_FINISHED;
    op->result = result;
    kithi_io_list_push(&t->ready, op);
}

/* The slot of a descriptor that may be beyond the table yet; NULL when memory is short. */
static struct slot *slot_of(struct threads *t, int fd)
{
    size_t i = (size_t)fd;
    if (i >= t->slot_count) {
        size_t count = t->slot_count ? t->slot_count : 64;
        while (count <= i)
            count *= 2;
        struct slot *slots = realloc(t->slots, count * sizeof *slots);
        if (!slots)
            return NULL;
        memset(slots + t->slot_count, 0, (count - t->slot_count) * sizeof *slots);
        t->slots = slots;
        t->slot_count = count;
    }
    return &t->slots[i];
}

/* One attempt; -EAGAIN when the op has to wait for the next edge. */
static int attempt(struct kithi_io_op *op)
{
    for (;;) {
        ssize_t r;
        switch (op->type) {
        case KITHI_IO_ACCEPT: r = accept4(op->fd, NULL, NULL, SOCK_CLOEXEC); break;
        case KITHI_IO_RECV: r = recv(op->fd, op->u.in, op->len, MSG_DONTWAIT); break;
        case KITHI_IO_SEND:
            r = send(op->fd, (const char *)op->u.out + op->pos, op->len - op->pos,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
            break;
        default: {
            struct pollfd p = { .fd = op->fd, .events = POLLIN | POLLRDHUP };
            r = poll(&p, 1, 0);
            if (r == 0)
                return -EAGAIN;
            if (r > 0)
                r = p.revents;
        }
        }
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (op->type != KITHI_IO_SEND)
            return (int)r;
        op->pos += (uint64_t)r;
        if (op->pos >= op->len)
            return (int)op->len;
    }
}

static void try_op(struct threads *t, struct kithi_io_op **place)
{
    struct kithi_io_op *op = *place;
    if (!op)
        return;
    int r = attempt(op);
    if (r == -EAGAIN)
        return;
    *place = NULL;
    finish(t, op, r);
}

static void submit_socket(struct threads *t, struct kithi_io_op *op)
{
    struct slot *slot = op->fd >= 0 ? slot_of(t, op->fd) : NULL;
    if (!slot) {
        finish(t, op, op->fd >= 0 ? -ENOMEM : -EBADF);
        return;
    }
    struct kithi_io_op **place = op->type == KITHI_IO_SEND ? &slot->out : &slot->in;
    KITHI_ASSERT(!*place); /* io.h: one op a direction */
    if (op->type == KITHI_IO_ACCEPT) {
        int flags = fcntl(op->fd, F_GETFL);
        if (flags < 0 || (!(flags & O_NONBLOCK) && fcntl(op->fd, F_SETFL, flags | O_NONBLOCK) != 0)) {
            finish(t, op, -errno);
            return;
        }
    }
    if (!slot->registered) {
        struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = op->fd };
        if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, op->fd, &ev) != 0) {
            finish(t, op, -errno);
            return;
        }
        slot->registered = true;
    }
    *place = op;
    try_op(t, place);
}

static void threads_submit(struct kithi_io *io, struct kithi_io_op *op)
{
    struct threads *t = (struct threads *)io;
    struct kithi_io_op *before;
    switch (op->type) {
    case KITHI_IO_CALL: kithi_io_worker_submit(&t->calls, op); break;
    case KITHI_IO_WRITE: kithi_io_worker_submit(&t->writes, op); break;
    case KITHI_IO_TIMER:
        for (before = t->timers.first; before && before->off <= op->off; before = before->next)
            ;
        kithi_io_list_insert(&t->timers, op, before);
        break;
    default: submit_socket(t, op);
    }
}

static void threads_cancel(struct kithi_io *io, struct kithi_io_op *op)
{
    struct threads *t = (struct threads *)io;
    if (op->phase == PHASE_FINISHED)
        return; /* it has its result */
    if (op->type == KITHI_IO_TIMER)
        kithi_io_list_remove(&t->timers, op);
    else if (op->type == KITHI_IO_SEND)
        t->slots[op->fd].out = NULL;
    else
        t->slots[op->fd].in = NULL;
    op->cancelled = true;
    finish(t, op, -ECANCELED);
}

static void threads_close(struct kithi_io *io, int fd)
{
    struct threads *t = (struct threads *)io;
    struct slot *slot = slot_of(t, fd);
    if (slot) {
        if (slot->in)
            threads_cancel(io, slot->in);
        if (slot->out)
            threads_cancel(io, slot->out);
        if (slot->registered)
            epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        slot->registered = false;
        /* The writer thread knows the file by its number, which must stay taken until it is done. */
        if (kithi_io_worker_uses(&t->writes, fd)) {
            slot->closing = true;
            return;
        }
    }
    close(fd);
}

static void ring_bell(struct kithi_io *io)
{
    struct threads *t = (struct threads *)io;
    uint64_t one = 1;
    /* It fails only when the counter is about to overflow: then the loop is awake anyway. */
    ssize_t r = write(t->wake_fd, &one, sizeof one);
    (void)r;
}

static void threads_wake(struct kithi_io *io)
{
    struct threads *t = (struct threads *)io;
    /* release: what the caller stored before is visible to the callback. */
    if (!atomic_exchange_explicit(&t->woken, true, memory_order_acq_rel))
        ring_bell(io);
}

static void take_finished(struct threads *t)
{
    struct kithi_io_op *op;
    while ((op = kithi_io_worker_take(&t->writes)) != NULL) {
        struct slot *slot = (size_t)op->fd < t->slot_count ? &t->slots[op->fd] : NULL;
        if (slot && slot->closing && !kithi_io_worker_uses(&t->writes, op->fd)) {
            slot->closing = false;
            close(op->fd);
        }
        kithi_io_list_push(&t->ready, op);
    }
    while ((op = kithi_io_worker_take(&t->calls)) != NULL)
        kithi_io_list_push(&t->ready, op);
}

/* How long epoll may sleep: until the caller's limit, the first timer, not at all with results at hand. */
static int sleep_ms(const struct threads *t, int timeout_ms, uint64_t end)
{
    if (t->ready.first || timeout_ms == 0)
        return 0;
    uint64_t until = timeout_ms > 0 ? end : UINT64_MAX;
    if (t->timers.first && t->timers.first->off < until)
        until = t->timers.first->off;
    if (until == UINT64_MAX)
        return -1;
    uint64_t now = kithi_io_now_ns();
    uint64_t ms = until > now ? (until - now + 999999u) / 1000000u : 0;
    return ms > 3600000u ? 3600000 : (int)ms;
}

static int threads_run(struct kithi_io *io, int timeout_ms)
{
    struct threads *t = (struct threads *)io;
    uint64_t end = kithi_io_now_ns() + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000000u : 0);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int n = 0, count = epoll_wait(t->epoll_fd, events, EVENTS_MAX, sleep_ms(t, timeout_ms, end));
        if (count < 0 && errno != EINTR)
            return -errno;
        bool bell = false;
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == t->wake_fd) {
                bell = true;
                continue;
            }
            struct slot *slot = &t->slots[events[i].data.fd];
            try_op(t, &slot->in);
            try_op(t, &slot->out);
        }
        if (bell) {
            uint64_t rung;
            ssize_t r = read(t->wake_fd, &rung, sizeof rung);
            (void)r;
            take_finished(t);
        }
        while (t->timers.first && t->timers.first->off <= kithi_io_now_ns())
            finish(t, kithi_io_list_pop(&t->timers), 0);

        /* acquire: see threads_wake(). */
        if (bell && atomic_exchange_explicit(&t->woken, false, memory_order_acq_rel) && io->wake_fn) {
            io->wake_fn(io->wake_arg);
            n++;
        }
        /* Only what is ready now: a callback that submits what succeeds at once must not starve the rest. */
        struct kithi_io_list batch = t->ready;
        t->ready = (struct kithi_io_list){ 0 };
        struct kithi_io_op *op;
        while ((op = kithi_io_list_pop(&batch)) != NULL) {
            kithi_io_complete(op, op->result);
            n++;
        }
        if (n > 0)
            return n;
        if (timeout_ms == 0 || (timeout_ms > 0 && kithi_io_now_ns() >= end))
            return 0;
    }
}

static void threads_free(struct kithi_io *io)
{
    struct threads *t = (struct threads *)io;
    kithi_io_worker_stop(&t->writes);
    kithi_io_worker_stop(&t->calls);
    take_finished(t);
    struct kithi_io_op *op;
    while ((op = kithi_io_list_pop(&t->ready)) != NULL) {
        if (op->type == KITHI_IO_CALL || (op->type == KITHI_IO_WRITE && op->told_end))
            kithi_io_complete(op, op->result);
        else if (op->type == KITHI_IO_ACCEPT && op->result >= 0)
            close(op->result);
    }
    kithi_io_worker_fini(&t->writes);
    kithi_io_worker_fini(&t->calls);
    if (t->epoll_fd >= 0)
        close(t->epoll_fd);
    if (t->wake_fd >= 0)
        close(t->wake_fd);
    free(t->slots);
    free(t);
}

static const struct kithi_io_vtable threads_vtable = {
    .name = "threads",
    .run = threads_run,
    .wake = threads_wake,
    .submit = threads_submit,
    .cancel = threads_cancel,
    .close = threads_close,
    .free = threads_free,
    .file_create = kithi_io_real_create,
    .file_open = kithi_io_real_open,
    .file_read = kithi_io_real_read,
    .file_allocate = kithi_io_real_allocate,
    .file_zero = kithi_io_real_zero,
    .file_size = kithi_io_real_size,
    .file_write = kithi_io_real_write,
    .file_close = kithi_io_real_close,
    .file_sync = kithi_io_real_sync,
    .file_rename = kithi_io_real_rename,
    .file_unlink = kithi_io_real_unlink,
    .dir_sync = kithi_io_real_dir_sync,
};

int kithi_io_threads_open(struct kithi_io **out_io, char *reason, size_t size)
{
    struct threads *t = calloc(1, sizeof *t);
    if (!t) {
        snprintf(reason, size, "out of memory");
        return -ENOMEM;
    }
    t->base.vt = &threads_vtable;
    kithi_io_worker_init(&t->writes, &t->base, ring_bell);
    kithi_io_worker_init(&t->calls, &t->base, ring_bell);
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = { .events = EPOLLIN, .data.fd = t->wake_fd };
    if (t->epoll_fd < 0 || t->wake_fd < 0 || epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->wake_fd, &ev) != 0) {
        int r = -errno;
        snprintf(reason, size, "epoll or eventfd: %s", strerror(-r));
        threads_free(&t->base);
        return r;
    }
    int r = kithi_io_worker_start(&t->writes);
    if (r == 0)
        r = kithi_io_worker_start(&t->calls);
    if (r < 0) {
        snprintf(reason, size, "its helper threads cannot be started: %s", strerror(-r));
        threads_free(&t->base);
        return r;
    }
    *out_io = &t->base;
    return 0;
}
