/*
 * io.h - one thread's loop of completions, and the file operations of the log behind the
 * same seam.
 *
 * Three kinds: `uring` (io_uring), `threads` (epoll for sockets, a thread for files; for
 * containers that forbid io_uring) and `sim` (io_sim.h, tests). All promise the same:
 *
 * Life cycle:  kithi_io_open -> submit ... kithi_io_run ... -> kithi_io_free
 * Threads:     one thread opens, submits and runs. From other threads only kithi_io_wake()
 *              and the kithi_io_file_*() calls.
 * Memory:      an op belongs to the caller, who sets done and arg and leaves op and buffer
 *              alone until done has been called. Nothing is allocated for an op.
 * Completion:  done is called from kithi_io_run() only, never inside a submitting call,
 *              exactly once for a submission. Inside done the op may be submitted again or
 *              freed, and any call but kithi_io_run() and kithi_io_free() may be made.
 * Errors:      travel as the result of done (-errno); submitting cannot fail.
 * Signals:     block them, make a signalfd and kithi_io_poll() it. SIGPIPE is never raised.
 */
#ifndef KITHI_SERVER_IO_H
#define KITHI_SERVER_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "shm/base/error.h"

struct kithi_io;
struct kithi_io_op;

/* result: what the operation returned, or -errno; -ECANCELED after a cancel or close. */
typedef void kithi_io_done(struct kithi_io_op *op, int result);
typedef void kithi_io_wake_fn(void *arg);
typedef int kithi_io_call_fn(void *arg);

struct kithi_io_op {
    kithi_io_done *done; /* the caller's */
    void *arg;           /* the caller's */
    /* The caller's: done of a write is called, too, when the loop ends before it. May be set while it is in flight. */
    bool told_end;

    /* The rest is the loop's while the op is in flight. */
    uint8_t type;
    uint8_t phase;
    bool busy; /* submitted and not yet completed */
    bool cancelled;
    bool durable; /* of a write */
    int fd;
    int result;
    uint64_t len; /* bytes to move in all */
    uint64_t pos; /* bytes moved so far */
    uint64_t off; /* place in the file */
    union {
        void *in;
        const void *out;
        kithi_io_call_fn *call;
        struct {
            int64_t sec; /* laid out as the kernel's timespec */
            long long nsec;
        } time;
    } u;
    struct kithi_io_op *next, *prev; /* the list it is in */
};

enum kithi_io_kind {
    KITHI_IO_AUTO,    /* io_uring if the kernel permits it, else threads */
    KITHI_IO_URING,   /* io_uring or an error */
    KITHI_IO_THREADS, /* epoll and threads */
};

/*
 * Make a loop for the calling thread. KITH_IO=uring|threads in the environment overrides
 * the kind. Returns 0, or -errno with err filled.
 */
int kithi_io_open(enum kithi_io_kind kind, struct kithi_io **out_io, struct kithi_errmsg *err);

/*
 * Ends the loop. Calls (kithi_io_call) end first, their done being called, and so is that of writes with told_end; other ops still
 * in flight are dropped without done, so nothing they point at is freed before this returns. NULL is fine.
 */
void kithi_io_free(struct kithi_io *io);

/* "uring", "threads", "sim". */
const char *kithi_io_name(const struct kithi_io *io);

/* Why this kind: "asked for", "io_uring_setup: Operation not permitted", ... for the log. */
const char *kithi_io_reason(const struct kithi_io *io);

/*
 * Wait for completions and dispatch them: at least one, unless timeout_ms passes first
 * (0: only what is ready, -1: no limit) or a wake callback ran. Returns the number of
 * callbacks dispatched, or -errno.
 */
int kithi_io_run(struct kithi_io *io, int timeout_ms);

/* Call fn in the loop, from kithi_io_run(), after kithi_io_wake(); several wakes may become one call. */
void kithi_io_on_wake(struct kithi_io *io, kithi_io_wake_fn *fn, void *arg);

/* Thread-safe, and safe in a signal handler. What was stored before it is seen by the wake callback. */
void kithi_io_wake(struct kithi_io *io);

/* Result: a connected, close-on-exec descriptor. */
void kithi_io_accept(struct kithi_io *io, struct kithi_io_op *op, int listen_fd);

/* Result: 1..len bytes, or 0 when the peer has finished. One recv, accept or poll at a time for an fd. */
void kithi_io_recv(struct kithi_io *io, struct kithi_io_op *op, int fd, void *buf, size_t len);

/* Sends all of it: result is len or -errno. One send at a time for an fd. */
void kithi_io_send(struct kithi_io *io, struct kithi_io_op *op, int fd, const void *buf, size_t len);

/* Result: the poll(2) events once fd is readable or hung up (a signalfd, an eventfd, a peer that left). */
void kithi_io_poll(struct kithi_io *io, struct kithi_io_op *op, int fd);

/* Result: 0 after ms milliseconds (monotonic clock). */
void kithi_io_timer(struct kithi_io *io, struct kithi_io_op *op, uint64_t ms);

/*
 * A hint: many writes will come out of this memory, so that it pays to have the kernel look at it once and not at each. Where
 * that is not to be had (no io_uring, an old kernel, a limit on locked memory) nothing happens. Memory is told of again
 * before it is freed or another hint covers a part of it, when no write of it is in flight.
 *
 * There is no such hint for files: the ring of a killed process lets go of registered files late, and with them of their locks,
 * for which the next start would have to wait (42 ms from exec to ready instead of 15, medians of 24 starts after kill -9).
 */
void kithi_io_register_memory(struct kithi_io *io, const void *buf, size_t len);
void kithi_io_unregister_memory(struct kithi_io *io, const void *buf);

/*
 * Write len bytes at off, however many short writes that takes, and make them durable.
 * Result: len once they are on stable storage, or -errno, after which the content of
 * [off, off+len) is unknown. fd is one of kithi_io_file_create().
 */
void kithi_io_write_durable(struct kithi_io *io, struct kithi_io_op *op, int fd, const void *buf, size_t len,
                            uint64_t off);

/* Write len bytes at off, however many short writes that takes. Result: len, or -errno. They are durable after
 * kithi_io_file_sync(). With O_DIRECT as above; several writes on a descriptor may be in flight. */
void kithi_io_write(struct kithi_io *io, struct kithi_io_op *op, int fd, const void *buf, size_t len,
                    uint64_t off);

/* Run fn(op->arg) on a helper thread. Result: what fn returned. For what blocks and has no op of its own. */
void kithi_io_call(struct kithi_io *io, struct kithi_io_op *op, kithi_io_call_fn *fn);

/* Ask an op to end early: it completes with -ECANCELED, or with its result when that came first. An op that
 * is not in flight is left alone. Writes and calls are not cancelled: they end by themselves. */
void kithi_io_cancel(struct kithi_io *io, struct kithi_io_op *op);

/* Close fd. Ops in flight on it complete with -ECANCELED, an error, or their result. -1 is fine. The only
 * way to close a descriptor that an op has used: the loop may remember it. */
void kithi_io_close(struct kithi_io *io, int fd);

/*
 * File operations of the log. They block, and may be called from any thread. 0 or a descriptor on success,
 * -errno otherwise.
 */

/*
 * Make an empty file for reading and writing, replacing one of that name, and lock it
 * (flock: the lock lives as long as any write on the descriptor may be in flight).
 * With want_direct O_DIRECT is tried; *out_direct says whether the file system took it, in
 * which case buffers, lengths and offsets of writes are multiples of 4096.
 */
int kithi_io_file_create(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct);

/* Open a file that is there, for reading and writing, and lock it as above; its content stays. *out_size: bytes. */
int kithi_io_file_open(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct,
                       uint64_t *out_size);

/* Read len bytes at off, under O_DIRECT as above. Returns the bytes read, fewer at the end of the file. */
int kithi_io_file_read(struct kithi_io *io, int fd, void *buf, size_t len, uint64_t off);

/* Allocate the first len bytes of a file and set its size; what was not written reads as zeros. */
int kithi_io_file_allocate(struct kithi_io *io, int fd, uint64_t len);

/* Write and make durable, blocking. */
int kithi_io_file_write(struct kithi_io *io, int fd, const void *buf, size_t len, uint64_t off);

/* Close a descriptor that no op has used: the loop knows nothing of it. -1 is fine. */
void kithi_io_file_close(struct kithi_io *io, int fd);

/* Write zeros. They are durable after kithi_io_file_sync(). off and len are multiples of 4096. */
int kithi_io_file_zero(struct kithi_io *io, int fd, uint64_t off, uint64_t len);

/* Content and size reach stable storage. */
int kithi_io_file_sync(struct kithi_io *io, int fd);

/* Size of a file, not following a link; -ENOENT when there is none of that name. */
int kithi_io_file_size(struct kithi_io *io, const char *path, uint64_t *out_size);

/* rename(2) and unlink(2); lasting after kithi_io_dir_sync(). */
int kithi_io_file_rename(struct kithi_io *io, const char *from, const char *to);
int kithi_io_file_unlink(struct kithi_io *io, const char *path);
int kithi_io_dir_sync(struct kithi_io *io, const char *dir);

#endif
