/*
 * io_uring.c - the loop on io_uring: one ring for sockets, timers and the log.
 *
 * The ring is set up for one issuing thread and deferred task work where the kernel has
 * them (6.1), because completions are then processed when the loop asks and never in the
 * middle of something else. No SQPOLL: it would burn a processor for a daemon that is
 * mostly idle.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/base/io_priv.h"
#include "server/base/needs.h"
#include "shm/base/assert.h"

#define DISPATCH_MAX 256u

/* What the kernel is told of once: two buffers and a file for each of so many logs. Others do without. */
#define REGISTERED_PIECES 64u

/* user_data of what is not an op. */
#define TAG_IGNORE 0u
#define TAG_WAKE   1u

/* op->phase: a read or send on a non-blocking socket waits for readiness; a write on a file
 * system without RWF_DSYNC is followed by a sync. */
enum { PHASE_PLAIN, PHASE_READY, PHASE_UNSYNCED, PHASE_SYNC };

_Static_assert(sizeof(((struct kithi_io_op *)0)->u.time) == sizeof(struct __kernel_timespec),
               "the kernel reads the op's time");

/* Memory that is registered; len 0: none. */
struct piece {
    const uint8_t *buf;
    size_t len;
};

struct uring {
    struct kithi_io base;
    struct io_uring ring;
    struct piece pieces[REGISTERED_PIECES]; /* by the kernel's index */
    bool has_pieces;                        /* the kernel takes such */
    struct kithi_io_list flying;            /* ops the kernel has */
    struct kithi_io_worker calls;
    int wake_fd;
    bool armed;          /* the kernel has a read of it */
    uint64_t wake_count; /* where the kernel puts the eventfd's value */
    _Atomic bool woken;
};

static struct io_uring_sqe *get_sqe(struct uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    while (!sqe) {
        int r = io_uring_submit(&u->ring);
        /* The completion queue is full or memory is short: let completions through and try again. */
        if (r < 0)
            io_uring_submit_and_get_events(&u->ring);
        sqe = io_uring_get_sqe(&u->ring);
    }
    return sqe;
}

static void arm_wake(struct uring *u)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    io_uring_prep_read(sqe, u->wake_fd, &u->wake_count, sizeof u->wake_count, 0);
    io_uring_sqe_set_data64(sqe, TAG_WAKE);
    u->armed = true;
}

/* ---- what is registered ---- */

static int piece_of(const struct uring *u, const uint8_t *buf, size_t len)
{
    for (unsigned i = 0; u->has_pieces && i < REGISTERED_PIECES; i++) {
        const struct piece *p = &u->pieces[i];
        if (p->len > 0 && buf >= p->buf && buf < p->buf + p->len && len <= (size_t)(p->buf + p->len - buf))
            return (int)i;
    }
    return -1;
}

static void register_memory(struct kithi_io *io, const void *buf, size_t len)
{
    struct uring *u = (struct uring *)io;
    const struct iovec v = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };
    for (unsigned i = 0; u->has_pieces && i < REGISTERED_PIECES; i++) {
        if (u->pieces[i].len > 0)
            continue;
        /* -ENOMEM: more than the process may lock. It may be allowed another time, so ask again with the next one. */
        if (io_uring_register_buffers_update_tag(&u->ring, i, &v, NULL, 1) == 1)
            u->pieces[i] = (struct piece){ .buf = buf, .len = len };
        return;
    }
}

static void unregister_memory(struct kithi_io *io, const void *buf)
{
    struct uring *u = (struct uring *)io;
    const struct iovec none = { 0 };
    for (unsigned i = 0; u->has_pieces && i < REGISTERED_PIECES; i++) {
        if (u->pieces[i].len == 0 || u->pieces[i].buf != buf)
            continue;
        /* The entry is forgotten here in any case; the pages stay the kernel's until the ring ends if it refuses. */
        (void)io_uring_register_buffers_update_tag(&u->ring, i, &none, NULL, 1);
        u->pieces[i] = (struct piece){ 0 };
    }
}

/* A write, or the sync behind one. */
static void prepare_write(const struct uring *u, const struct kithi_io_op *op, struct io_uring_sqe *sqe)
{
    const uint8_t *buf = (const uint8_t *)op->u.out + op->pos;
    const unsigned len = (unsigned)(op->len - op->pos);
    const int piece = piece_of(u, buf, len);
    if (op->phase == PHASE_SYNC)
        io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
    else if (piece >= 0)
        io_uring_prep_write_fixed(sqe, op->fd, buf, len, op->off + op->pos, piece);
    else
        io_uring_prep_write(sqe, op->fd, buf, len, op->off + op->pos);
    if (op->phase != PHASE_SYNC)
        sqe->rw_flags = op->phase == PHASE_UNSYNCED || !op->durable ? 0 : RWF_DSYNC;
}

/* Older kernels know no empty places: then nothing is registered. */
static void registration_init(struct uring *u)
{
    u->has_pieces = io_uring_register_buffers_sparse(&u->ring, REGISTERED_PIECES) == 0;
}

/* ---- operations ---- */

static void issue(struct uring *u, struct kithi_io_op *op)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    if (op->phase == PHASE_READY) {
        io_uring_prep_poll_add(sqe, op->fd, op->type == KITHI_IO_SEND ? POLLOUT : POLLIN);
    } else {
        switch (op->type) {
        case KITHI_IO_ACCEPT: io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC); break;
        case KITHI_IO_RECV: io_uring_prep_recv(sqe, op->fd, op->u.in, op->len, 0); break;
        case KITHI_IO_SEND:
            io_uring_prep_send(sqe, op->fd, (const char *)op->u.out + op->pos, op->len - op->pos,
                               MSG_NOSIGNAL);
            break;
        case KITHI_IO_POLL: io_uring_prep_poll_add(sqe, op->fd, POLLIN | POLLRDHUP); break;
        case KITHI_IO_TIMER:
            io_uring_prep_timeout(sqe, (struct __kernel_timespec *)(void *)&op->u.time, 0, 0);
            break;
        case KITHI_IO_WRITE: prepare_write(u, op, sqe); break;
        default: KITHI_ASSERT(op->type < KITHI_IO_CALL);
        }
    }
    io_uring_sqe_set_data(sqe, op);
}

static void uring_submit(struct kithi_io *io, struct kithi_io_op *op)
{
    struct uring *u = (struct uring *)io;
    if (op->type == KITHI_IO_CALL) {
        kithi_io_worker_submit(&u->calls, op);
        return;
    }
    kithi_io_list_push(&u->flying, op);
    issue(u, op);
    /* A commit waits for it: it does not wait for what else there is to do before the loop is entered again. */
    if (op->type == KITHI_IO_WRITE && op->durable)
        io_uring_submit(&u->ring);
}

/* Takes one completion of op; true when the op as a whole is done, with *result its result. */
static bool advance(struct kithi_io_op *op, int *result)
{
    int r = *result;
    if (op->cancelled) {
        /* What arrived before the cancel did is delivered; an op half way is not continued. */
        bool sized = op->type == KITHI_IO_SEND || op->type == KITHI_IO_WRITE;
        bool whole = op->phase == PHASE_PLAIN && r >= 0 && (!sized || op->pos + (uint64_t)r >= op->len);
        if (op->type == KITHI_IO_TIMER && r == -ETIME)
            *result = 0;
        else if (whole && sized)
            *result = (int)op->len;
        else if (!whole)
            *result = r < 0 && r != -EAGAIN && r != -EINTR ? r : -ECANCELED;
        return true;
    }
    if (op->phase == PHASE_READY) {
        if (r < 0)
            return true;
        op->phase = PHASE_PLAIN;
        return false;
    }
    if (r == -EINTR)
        return false;
    switch (op->type) {
    case KITHI_IO_TIMER: *result = r == -ETIME ? 0 : r; return true;
    case KITHI_IO_ACCEPT:
    case KITHI_IO_RECV:
        if (r != -EAGAIN)
            return true;
        op->phase = PHASE_READY;
        return false;
    case KITHI_IO_SEND:
        if (r == -EAGAIN) {
            op->phase = PHASE_READY;
            return false;
        }
        if (r < 0)
            return true;
        op->pos += (uint64_t)r;
        *result = (int)op->len;
        return op->pos >= op->len;
    case KITHI_IO_WRITE:
        if (op->phase == PHASE_SYNC) {
            *result = r < 0 ? r : (int)op->len;
            return true;
        }
        if (r == -EAGAIN)
            return false;
        if (r == -EOPNOTSUPP && op->phase == PHASE_PLAIN && op->durable) {
            op->phase = PHASE_UNSYNCED;
            return false;
        }
        if (r < 0)
            return true;
        uint64_t next = kithi_io_advance(op->pos, (uint64_t)r, op->len);
        if (next <= op->pos) {
            *result = -EIO;
            return true;
        }
        op->pos = next;
        if (op->pos < op->len)
            return false;
        if (op->phase == PHASE_UNSYNCED) {
            op->phase = PHASE_SYNC;
            return false;
        }
        *result = (int)op->len;
        return true;
    default: return true;
    }
}

static int take_wake(struct uring *u)
{
    int n = 0;
    struct kithi_io_op *op;
    while ((op = kithi_io_worker_take(&u->calls)) != NULL) {
        kithi_io_complete(op, op->result);
        n++;
    }
    /* acquire: what was stored before kithi_io_wake() is visible to the callback. */
    if (atomic_exchange_explicit(&u->woken, false, memory_order_acq_rel) && u->base.wake_fn) {
        u->base.wake_fn(u->base.wake_arg);
        n++;
    }
    return n;
}

/* Completions are copied out before any callback runs, because callbacks submit and may so move the rings. */
static int dispatch(struct uring *u)
{
    struct {
        uint64_t data;
        int result;
    } batch[DISPATCH_MAX];
    unsigned head, count = 0;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(&u->ring, head, cqe)
    {
        if (count == DISPATCH_MAX)
            break;
        batch[count].data = cqe->user_data;
        batch[count++].result = cqe->res;
    }
    io_uring_cq_advance(&u->ring, count);

    int n = 0;
    for (unsigned i = 0; i < count; i++) {
        int result = batch[i].result;
        if (batch[i].data == TAG_IGNORE)
            continue;
        if (batch[i].data == TAG_WAKE) {
            arm_wake(u);
            n += take_wake(u);
            continue;
        }
        struct kithi_io_op *op = (struct kithi_io_op *)(uintptr_t)batch[i].data;
        if (!advance(op, &result)) {
            issue(u, op);
            continue;
        }
        kithi_io_list_remove(&u->flying, op);
        kithi_io_complete(op, result);
        n++;
    }
    return n;
}

static int uring_run(struct kithi_io *io, int timeout_ms)
{
    struct uring *u = (struct uring *)io;
    uint64_t end = kithi_io_now_ns() + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000000u : 0);
    for (;;) {
        int r;
        if (io_uring_cq_ready(&u->ring) > 0 || timeout_ms == 0) {
            r = io_uring_submit_and_get_events(&u->ring);
        } else if (timeout_ms < 0) {
            r = io_uring_submit_and_wait(&u->ring, 1);
        } else {
            uint64_t now = kithi_io_now_ns(), left = now < end ? end - now : 0;
            struct __kernel_timespec ts = { .tv_sec = (int64_t)(left / 1000000000u),
                                            .tv_nsec = (long long)(left % 1000000000u) };
            struct io_uring_cqe *cqe;
            r = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
        }
        if (r < 0 && r != -ETIME && r != -EINTR && r != -EAGAIN && r != -EBUSY)
            return r;
        int n = dispatch(u);
        if (n > 0)
            return n;
        if (timeout_ms == 0 || (timeout_ms > 0 && kithi_io_now_ns() >= end))
            return 0;
    }
}

static void ring_bell(struct kithi_io *io)
{
    struct uring *u = (struct uring *)io;
    uint64_t one = 1;
    /* It fails only when the counter is about to overflow: then the loop is awake anyway. */
    ssize_t r = write(u->wake_fd, &one, sizeof one);
    (void)r;
}

static void uring_wake(struct kithi_io *io)
{
    struct uring *u = (struct uring *)io;
    /* release: see take_wake(). A bell already rung has not been heard yet, one is enough. */
    if (!atomic_exchange_explicit(&u->woken, true, memory_order_acq_rel))
        ring_bell(io);
}

static void cancel_op(struct uring *u, struct kithi_io_op *op)
{
    op->cancelled = true;
    struct io_uring_sqe *sqe = get_sqe(u);
    io_uring_prep_cancel(sqe, op, 0);
    io_uring_sqe_set_data64(sqe, TAG_IGNORE);
}

static void uring_cancel(struct kithi_io *io, struct kithi_io_op *op)
{
    cancel_op((struct uring *)io, op);
}

static void submit_all(struct uring *u)
{
    while (io_uring_sq_ready(&u->ring) > 0)
        if (io_uring_submit(&u->ring) < 0)
            io_uring_submit_and_get_events(&u->ring);
}

/* Entries not yet submitted name the descriptor by number. They go to the kernel first, so that they
 * cannot meet another file under the same number; what is in flight keeps its file by itself. */
static void uring_close(struct kithi_io *io, int fd)
{
    struct uring *u = (struct uring *)io;
    for (struct kithi_io_op *op = u->flying.first; op; op = op->next) {
        if (op->fd != fd || op->cancelled)
            continue;
        if (op->type == KITHI_IO_WRITE)
            op->cancelled = true; /* ends by itself and is not continued */
        else
            cancel_op(u, op);
    }
    submit_all(u);
    close(fd);
}

static void uring_free(struct kithi_io *io)
{
    struct uring *u = (struct uring *)io;
    kithi_io_worker_stop(&u->calls);
    struct kithi_io_op *op;
    while ((op = kithi_io_worker_take(&u->calls)) != NULL)
        kithi_io_complete(op, op->result);
    kithi_io_worker_fini(&u->calls);

    /* The kernel ends a ring's requests at its leisure, and until then it reads and writes the
     * buffers: so wait for them. Writes end by themselves, the rest is cancelled. */
    for (op = u->flying.first; op; op = op->next)
        if (op->type != KITHI_IO_WRITE && !op->cancelled)
            cancel_op(u, op);
    for (op = u->flying.first; op; op = op->next)
        op->cancelled = true;
    /* So does the read of the bell, which points into this struct. */
    struct io_uring_sqe *sqe = get_sqe(u);
    io_uring_prep_cancel64(sqe, TAG_WAKE, 0);
    io_uring_sqe_set_data64(sqe, TAG_IGNORE);
    while (u->flying.first || u->armed) {
        struct io_uring_cqe *cqe;
        submit_all(u);
        int r = io_uring_wait_cqe(&u->ring, &cqe);
        if (r == -EINTR || r == -EAGAIN)
            continue;
        KITHI_ASSERT(r == 0);
        if (cqe->user_data == TAG_WAKE) {
            u->armed = false;
        } else if (cqe->user_data != TAG_IGNORE) {
            op = (struct kithi_io_op *)(uintptr_t)cqe->user_data;
            kithi_io_list_remove(&u->flying, op);
            op->busy = false;
            if (op->type == KITHI_IO_ACCEPT && cqe->res >= 0)
                close(cqe->res);
            if (op->type == KITHI_IO_WRITE && op->told_end)
                kithi_io_complete(op, -ECANCELED);
        }
        io_uring_cqe_seen(&u->ring, cqe);
    }
    io_uring_queue_exit(&u->ring);
    close(u->wake_fd);
    free(u);
}

static const struct kithi_io_vtable uring_vtable = {
    .name = "uring",
    .run = uring_run,
    .wake = uring_wake,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .close = uring_close,
    .free = uring_free,
    .register_memory = register_memory,
    .unregister_memory = unregister_memory,
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

static int ring_init(struct io_uring *ring)
{
    /* The best first; older kernels refuse flags they do not know with EINVAL. */
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_COOP_TASKRUN,
        0,
    };
    int r = -EINVAL;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0] && r == -EINVAL; i++) {
        struct io_uring_params p = { .flags = flags[i] | IORING_SETUP_CQSIZE,
                                     .cq_entries = KITHI_NEED_RING_COMPLETIONS };
        r = io_uring_queue_init_params(KITHI_NEED_RING_ENTRIES, ring, &p);
    }
    return r;
}

static bool has_all_ops(struct io_uring *ring)
{
    static const int needed[] = { IORING_OP_ACCEPT,   IORING_OP_RECV,         IORING_OP_SEND,
                                  IORING_OP_POLL_ADD, IORING_OP_TIMEOUT,      IORING_OP_WRITE,
                                  IORING_OP_FSYNC,    IORING_OP_ASYNC_CANCEL, IORING_OP_READ };
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool all = probe != NULL;
    for (size_t i = 0; all && i < sizeof needed / sizeof needed[0]; i++)
        all = io_uring_opcode_supported(probe, needed[i]);
    io_uring_free_probe(probe);
    return all;
}

int kithi_io_uring_open(struct kithi_io **out_io, char *reason, size_t size)
{
    struct uring *u = calloc(1, sizeof *u);
    if (!u) {
        snprintf(reason, size, "out of memory");
        return -ENOMEM;
    }
    u->base.vt = &uring_vtable;
    u->wake_fd = -1;
    int r = ring_init(&u->ring);
    if (r < 0) {
        snprintf(reason, size, "io_uring_setup: %s", strerror(-r));
        free(u);
        return r;
    }
    if (!has_all_ops(&u->ring) || !(u->ring.features & IORING_FEAT_NODROP)) {
        snprintf(reason, size, "this kernel's io_uring lacks operations");
        r = -ENOSYS;
        goto fail;
    }
    u->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (u->wake_fd < 0) {
        r = -errno;
        snprintf(reason, size, "eventfd: %s", strerror(-r));
        goto fail;
    }
    registration_init(u);
    kithi_io_worker_init(&u->calls, &u->base, ring_bell);
    r = kithi_io_worker_start(&u->calls);
    if (r < 0) {
        snprintf(reason, size, "its helper thread cannot be started: %s", strerror(-r));
        kithi_io_worker_fini(&u->calls);
        close(u->wake_fd);
        goto fail;
    }
    arm_wake(u);
    *out_io = &u->base;
    return 0;

fail:
    io_uring_queue_exit(&u->ring);
    free(u);
    return r;
}
