/*
 * io_priv.h - what the kinds of loop share: the table behind io.h, lists of ops, and the
 * helper thread that does what blocks.
 */
#ifndef KITHI_SERVER_IO_PRIV_H
#define KITHI_SERVER_IO_PRIV_H

#include <pthread.h>

#include "server/base/io.h"

enum kithi_io_op_type {
    KITHI_IO_ACCEPT = 1,
    KITHI_IO_RECV,
    KITHI_IO_SEND,
    KITHI_IO_POLL,
    KITHI_IO_TIMER,
    KITHI_IO_WRITE,
    KITHI_IO_CALL,
};

/* A list of ops, linked through themselves. Zeroed is empty. */
struct kithi_io_list {
    struct kithi_io_op *first, *last;
};

void kithi_io_list_push(struct kithi_io_list *list, struct kithi_io_op *op);
void kithi_io_list_insert(struct kithi_io_list *list, struct kithi_io_op *op, struct kithi_io_op *before);
void kithi_io_list_remove(struct kithi_io_list *list, struct kithi_io_op *op);
struct kithi_io_op *kithi_io_list_pop(struct kithi_io_list *list);

struct kithi_io_vtable {
    const char *name;
    int (*run)(struct kithi_io *io, int timeout_ms);
    void (*wake)(struct kithi_io *io);
    void (*submit)(struct kithi_io *io, struct kithi_io_op *op); /* type and operands are filled in */
    void (*cancel)(struct kithi_io *io,
                   struct kithi_io_op *op); /* only ops in flight that can be cancelled */
    void (*close)(struct kithi_io *io, int fd);
    void (*free)(struct kithi_io *io);

    /* NULL: there is no such thing. */
    void (*register_memory)(struct kithi_io *io, const void *buf, size_t len);
    void (*unregister_memory)(struct kithi_io *io, const void *buf);

    /* The log's files; see io.h. */
    int (*file_create)(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct);
    int (*file_open)(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct,
                     uint64_t *out_size);
    int (*file_read)(struct kithi_io *io, int fd, void *buf, size_t len, uint64_t off);
    int (*file_allocate)(struct kithi_io *io, int fd, uint64_t len);
    int (*file_zero)(struct kithi_io *io, int fd, uint64_t off, uint64_t len);
    int (*file_size)(struct kithi_io *io, const char *path, uint64_t *out_size);
    int (*file_write)(struct kithi_io *io, int fd, const void *buf, size_t len, uint64_t off);
    void (*file_close)(struct kithi_io *io, int fd);
    int (*file_sync)(struct kithi_io *io, int fd);
    int (*file_rename)(struct kithi_io *io, const char *from, const char *to);
    int (*file_unlink)(struct kithi_io *io, const char *path);
    int (*dir_sync)(struct kithi_io *io, const char *dir);
};

/* The beginning of every kind's own struct. */
struct kithi_io {
    const struct kithi_io_vtable *vt;
    char reason[160];
    kithi_io_wake_fn *wake_fn;
    void *wake_arg;
};

/* Mark an op as done with and call its owner. The owner may free it: op is not touched afterwards. */
static inline void kithi_io_complete(struct kithi_io_op *op, int result)
{
    op->busy = false;
    op->done(op, result);
}

/* How far a write of len bytes got after n more: after a short one a multiple of 4096, as O_DIRECT asks. */
static inline uint64_t kithi_io_advance(uint64_t pos, uint64_t n, uint64_t len)
{
    pos += n;
    return pos < len ? pos & ~(uint64_t)4095 : len;
}

/* The real file system, for all kinds but the simulator. */
int kithi_io_real_create(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct);
int kithi_io_real_open(struct kithi_io *io, const char *path, bool want_direct, bool *out_direct,
                       uint64_t *out_size);
int kithi_io_real_read(struct kithi_io *io, int fd, void *buf, size_t len, uint64_t off);
int kithi_io_real_allocate(struct kithi_io *io, int fd, uint64_t len);
int kithi_io_real_zero(struct kithi_io *io, int fd, uint64_t off, uint64_t len);
int kithi_io_real_size(struct kithi_io *io, const char *path, uint64_t *out_size);
int kithi_io_real_write(struct kithi_io *io, int fd, const void *buf, size_t len, uint64_t off);
void kithi_io_real_close(struct kithi_io *io, int fd);
int kithi_io_real_sync(struct kithi_io *io, int fd);
int kithi_io_real_rename(struct kithi_io *io, const char *from, const char *to);
int kithi_io_real_unlink(struct kithi_io *io, const char *path);
int kithi_io_real_dir_sync(struct kithi_io *io, const char *dir);

/*
 * A thread that runs ops of type CALL and WRITE one after the other. Results are kept in op->result until the loop takes
 * them. It is started with its loop, where that can be refused; a log that cannot change to its next file for want of a
 * thread would have failed.
 */
struct kithi_io_worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct kithi_io_list queue, finished;
    const struct kithi_io_op *running;
    bool started, stop;
    void (*notify)(struct kithi_io *io); /* called on the thread when an op has finished */
    struct kithi_io *io;
};

void kithi_io_worker_init(struct kithi_io_worker *worker, struct kithi_io *io,
                          void (*notify)(struct kithi_io *));

/* 0 or -errno. */
int kithi_io_worker_start(struct kithi_io_worker *worker);

void kithi_io_worker_submit(struct kithi_io_worker *worker, struct kithi_io_op *op);

/* One finished op, its result in op->result, or NULL. */
struct kithi_io_op *kithi_io_worker_take(struct kithi_io_worker *worker);

/* True while an op on fd waits or runs. */
bool kithi_io_worker_uses(struct kithi_io_worker *worker, int fd);

/* Finish what is queued and end the thread. Ops stay in `finished`. */
void kithi_io_worker_stop(struct kithi_io_worker *worker);
void kithi_io_worker_fini(struct kithi_io_worker *worker);

/* Monotonic nanoseconds. */
uint64_t kithi_io_now_ns(void);

/* The kinds. Each returns 0 or -errno with a reason of at most size bytes. */
int kithi_io_uring_open(struct kithi_io **out_io, char *reason, size_t size);
int kithi_io_threads_open(struct kithi_io **out_io, char *reason, size_t size);

#endif
