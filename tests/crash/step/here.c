/*
 * here.c - io.h without a thread and without a ring: what is submitted is done by the next kithi_io_run(), by the
 * thread that calls it. So whoever steps through that thread steps through the log's writes, too.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "server/base/io_priv.h"
#include "server/base/pool.h"
#include "tests/crash/step/step.h"

struct here {
    struct kithi_io io; /* first */
    struct kithi_io_list queue;
    struct kithi_work *works, **works_end;
};

static bool do_work(struct here *h)
{
    struct kithi_work *work = h->works;
    if (!work)
        return false;
    h->works = work->next;
    if (!h->works)
        h->works_end = &h->works;
    for (uint32_t i = 0; i < work->n; i++)
        work->fn(work->arg, 0, i);
    work->done(work);
    return true;
}

bool step_io_one(struct kithi_io *io)
{
    struct here *h = (struct here *)io;
    if (do_work(h))
        return true;
    struct kithi_io_op *op = kithi_io_list_pop(&h->queue);
    if (!op)
        return false;
    int r = -EOPNOTSUPP;
    if (op->type == KITHI_IO_WRITE)
        r = kithi_io_real_write(io, op->fd, op->u.out, op->len, op->off);
    else if (op->type == KITHI_IO_CALL)
        r = op->u.call(op->arg);
    kithi_io_complete(op, r);
    return true;
}

void __wrap_kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n);

void __wrap_kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n)
{
    (void)pool;
    for (uint32_t i = 0; i < n; i++)
        fn(arg, 0, i);
}

void __wrap_kithi_pool_start(struct kithi_pool *pool, struct kithi_work *work);

void __wrap_kithi_pool_start(struct kithi_pool *pool, struct kithi_work *work)
{
    __wrap_kithi_pool_run(pool, work->fn, work->arg, work->n);
    work->ended = work->n;
}

void __wrap_kithi_pool_wait(struct kithi_pool *pool, const struct kithi_work *work);

void __wrap_kithi_pool_wait(struct kithi_pool *pool, const struct kithi_work *work)
{
    (void)pool;
    (void)work; /* it has ended */
}

bool __wrap_kithi_pool_has_ended(struct kithi_pool *pool, const struct kithi_work *work);

bool __wrap_kithi_pool_has_ended(struct kithi_pool *pool, const struct kithi_work *work)
{
    (void)pool;
    return work->ended == work->n;
}

void __wrap_kithi_pool_run_wide(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n);

void __wrap_kithi_pool_run_wide(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n)
{
    __wrap_kithi_pool_run(pool, fn, arg, n);
}

static int here_run(struct kithi_io *io, int timeout_ms)
{
    int n = 0;
    (void)timeout_ms; /* nothing that is submitted here waits for anybody */
    while (step_io_one(io))
        n++;
    return n;
}

void __wrap_kithi_pool_submit(struct kithi_pool *pool, struct kithi_work *work);

void __wrap_kithi_pool_submit(struct kithi_pool *pool, struct kithi_work *work)
{
    struct here *h = (struct here *)(void *)pool;
    work->next = NULL;
    *h->works_end = work;
    h->works_end = &work->next;
}

static void here_wake(struct kithi_io *io)
{
    (void)io;
}

static void here_submit(struct kithi_io *io, struct kithi_io_op *op)
{
    kithi_io_list_push(&((struct here *)io)->queue, op);
}

static void here_cancel(struct kithi_io *io, struct kithi_io_op *op)
{
    (void)io;
    (void)op; /* durable writes and calls are not cancelled */
}

static void here_close(struct kithi_io *io, int fd)
{
    (void)io;
    if (fd >= 0)
        close(fd);
}

static void here_free(struct kithi_io *io)
{
    free(io);
}

static const struct kithi_io_vtable here_vtable = {
    .name = "here",
    .run = here_run,
    .wake = here_wake,
    .submit = here_submit,
    .cancel = here_cancel,
    .close = here_close,
    .free = here_free,
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

struct kithi_io *step_io_here(void)
{
    struct here *h = calloc(1, sizeof *h);
    if (!h)
        test_die("out of memory");
    h->io.vt = &here_vtable;
    h->works_end = &h->works;
    return &h->io;
}

struct kithi_pool *step_pool_here(struct kithi_io *io)
{
    return (struct kithi_pool *)(void *)io;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out);

/*
 * The kernel's, not the vDSO's: that one begins anew whenever the clock has ticked meanwhile, and with a stop after each of
 * its instructions it always has. It went round 13,000 times, a million instructions, before it had the time.
 */
int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    return (int)syscall(SYS_clock_gettime, clock, out);
}
