/*
 * wrap.c - what the linker puts in the place of some of the daemon's functions. See sim.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "server/base/io_sim.h"
#include "server/base/pread.h"
#include "server/checkpoint/read.h"
#include "server/writer/files.h"
#include "server/writer/marker.h"
#include "tests/crash/sim/sim.h"

#define CLOCK_STEP_US 23u

struct sim_world *sim_world;

/* ---- the clock ---- */

uint64_t __wrap_kithi_now_us(void);
uint64_t __wrap_kithi_now_ms(void);

uint64_t __wrap_kithi_now_us(void)
{
    return sim_world->now_us += CLOCK_STEP_US;
}

uint64_t __wrap_kithi_now_ms(void)
{
    return __wrap_kithi_now_us() / 1000;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);

int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    (void)clock;
    uint64_t us = sim_world ? __wrap_kithi_now_us() : 0;
    *out = (struct timespec){ .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 };
    return 0;
}

/* Whoever sleeps lets the clock go on. */
int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
    (void)left;
    sim_world->now_us += (uint64_t)time->tv_sec * 1000000 + (uint64_t)time->tv_nsec / 1000;
    return 0;
}

/* What is left to chance elsewhere follows from the seed as well. */
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags)
{
    (void)flags;
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)buf)[i] = (unsigned char)test_rand_u64(&sim_world->r);
    return (ssize_t)len;
}

/* How much memory the machine has left does not, and to ask takes longer than many a life. */
uint64_t __wrap_kithi_cgroup_left(const char *root);

uint64_t __wrap_kithi_cgroup_left(const char *root)
{
    (void)root;
    return UINT64_MAX;
}

/* ---- the loop ---- */

int __wrap_kithi_io_open(enum kithi_io_kind kind, struct kithi_io **out_io, struct kithi_errmsg *err);
void __wrap_kithi_io_free(struct kithi_io *io);

int __wrap_kithi_io_open(enum kithi_io_kind kind, struct kithi_io **out_io, struct kithi_errmsg *err)
{
    (void)kind;
    (void)err;
    *out_io = sim_world->io;
    return 0;
}

/* It is the disk, too, which outlives its daemon. */
void __wrap_kithi_io_free(struct kithi_io *io)
{
    (void)io;
}

void __real_kithi_io_free(struct kithi_io *io);

void sim_io_free(struct kithi_io *io)
{
    __real_kithi_io_free(io);
}

/* ---- workers: a job is done when the loop is woken for it, any one of those there are ---- */

struct kithi_pool {
    struct kithi_io *io;
    struct kithi_work *works;   /* by next */
    struct kithi_work *started; /* that somebody waits for, by next */
    unsigned threads;
};

int __wrap_kithi_pool_open(struct kithi_io *io, unsigned threads, struct kithi_pool **out_pool,
                           struct kithi_errmsg *err);
unsigned __wrap_kithi_pool_threads(const struct kithi_pool *pool);
void __wrap_kithi_pool_submit(struct kithi_pool *pool, struct kithi_work *work);
void __wrap_kithi_pool_give_way(struct kithi_pool *pool, unsigned worker);
void __wrap_kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n);
void __wrap_kithi_pool_start(struct kithi_pool *pool, struct kithi_work *work);
void __wrap_kithi_pool_wait(struct kithi_pool *pool, const struct kithi_work *work);
bool __wrap_kithi_pool_has_ended(struct kithi_pool *pool, const struct kithi_work *work);
void __wrap_kithi_pool_run_wide(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n);
void __wrap_kithi_pool_free(struct kithi_pool *pool);

/* Does the next job of any of the works; returns the work if that was its last. */
static struct kithi_work *any_job(const struct kithi_pool *pool, struct kithi_work **at)
{
    uint32_t count = 0;
    for (const struct kithi_work *work = *at; work; work = work->next)
        count++;
    if (count == 0)
        return NULL;
    for (uint32_t skip = test_rand_below(&sim_world->r, count); skip > 0; skip--)
        at = &(*at)->next;
    struct kithi_work *work = *at;
    work->fn(work->arg, test_rand_below(&sim_world->r, pool->threads), work->next_job++);
    if (work->next_job < work->n)
        return NULL;
    *at = work->next;
    work->ended = work->n;
    return work;
}

static void do_job(void *arg)
{
    struct kithi_pool *pool = arg;
    struct kithi_work *work = any_job(pool, &pool->works);
    if (work)
        work->done(work);
    if (pool->works)
        kithi_io_wake(pool->io);
}

int __wrap_kithi_pool_open(struct kithi_io *io, unsigned threads, struct kithi_pool **out_pool,
                           struct kithi_errmsg *err)
{
    struct kithi_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return kithi_error_set(err, -ENOMEM, "out of memory");
    pool->io = io;
    pool->threads = threads;
    kithi_io_on_wake(io, do_job, pool);
    *out_pool = pool;
    return 0;
}

unsigned __wrap_kithi_pool_threads(const struct kithi_pool *pool)
{
    return pool->threads;
}

void __wrap_kithi_pool_submit(struct kithi_pool *pool, struct kithi_work *work)
{
    work->next_job = 0;
    work->next = pool->works;
    pool->works = work;
    kithi_io_wake(pool->io);
}

/* Which job is next is drawn anyway. */
void __wrap_kithi_pool_give_way(struct kithi_pool *pool, unsigned worker)
{
    (void)pool;
    (void)worker;
}

/* Somebody waits for these, as if the others stood still meanwhile. */
void __wrap_kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        fn(arg, test_rand_below(&sim_world->r, pool->threads), i);
}

/* These, too, but others that are waited for go on between their jobs. */
void __wrap_kithi_pool_start(struct kithi_pool *pool, struct kithi_work *work)
{
    work->next_job = work->ended = 0;
    work->next = pool->started;
    pool->started = work;
}

void __wrap_kithi_pool_wait(struct kithi_pool *pool, const struct kithi_work *work)
{
    while (work->ended < work->n)
        (void)any_job(pool, &pool->started);
}

bool __wrap_kithi_pool_has_ended(struct kithi_pool *pool, const struct kithi_work *work)
{
    if (test_rand_below(&sim_world->r, 2))
        (void)any_job(pool, &pool->started);
    return work->ended == work->n;
}

void __wrap_kithi_pool_run_wide(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n)
{
    __wrap_kithi_pool_run(pool, fn, arg, n);
}

void __wrap_kithi_pool_free(struct kithi_pool *pool)
{
    if (pool)
        kithi_io_on_wake(pool->io, NULL, NULL);
    free(pool);
}

/* ---- the log: short files, and a disk that settles ---- */

int __real_kithi_wal_open(struct kithi_io *io, const struct kithi_wal_open_opts *opts,
                          struct kithi_wal **out_wal, struct kithi_errmsg *err);
int __wrap_kithi_wal_open(struct kithi_io *io, const struct kithi_wal_open_opts *opts,
                          struct kithi_wal **out_wal, struct kithi_errmsg *err);
int __real_kithi_wal_settle(const char *dir, uint32_t wait_ms, const _Atomic bool *stop,
                            struct kithi_errmsg *err);
int __wrap_kithi_wal_settle(const char *dir, uint32_t wait_ms, const _Atomic bool *stop,
                            struct kithi_errmsg *err);

int __wrap_kithi_wal_open(struct kithi_io *io, const struct kithi_wal_open_opts *opts,
                          struct kithi_wal **out_wal, struct kithi_errmsg *err)
{
    struct kithi_wal_open_opts smaller = *opts;
    smaller.file_size = sim_world->file_size;
    return __real_kithi_wal_open(io, &smaller, out_wal, err);
}

int __wrap_kithi_wal_settle(const char *dir, uint32_t wait_ms, const _Atomic bool *stop,
                            struct kithi_errmsg *err)
{
    int r = __real_kithi_wal_settle(dir, wait_ms, stop, err);
    if (r == 0)
        r = kithi_sim_settle(sim_world->io, dir);
    return r < 0 ? kithi_error_set(err, r, "%s: cannot be synced: %s", dir, kithi_error_text(r)) : 0;
}

/* ---- configuration and marker: as files.c does it, on the simulated disk ---- */

int __wrap_kithi_file_replace(const char *dir, const char *name, const void *data, size_t len, mode_t mode,
                              struct kithi_errmsg *err);
int __real_kithi_dir_sync(const char *path, struct kithi_errmsg *err);
int __wrap_kithi_dir_sync(const char *path, struct kithi_errmsg *err);
int __real_unlink(const char *path);
int __wrap_unlink(const char *path);

static bool is_in_data(const char *path)
{
    const char *data = sim_world ? sim_world->data.path : "";
    return *data && strncmp(path, data, strlen(data)) == 0;
}

int __wrap_kithi_file_replace(const char *dir, const char *name, const void *data, size_t len, mode_t mode,
                              struct kithi_errmsg *err)
{
    struct kithi_io *io = sim_world->io;
    char to[KITHI_PATH_MAX], from[KITHI_PATH_MAX];
    bool direct;
    (void)mode;
    snprintf(to, sizeof to, "%s/%s", dir, name);
    snprintf(from, sizeof from, "%s/%s.new", dir, name);
    sim_world->disk_unlinks = true;
    int fd = kithi_io_file_create(io, from, false, &direct), r = fd < 0 ? fd : 0;
    if (r >= 0 && len)
        r = kithi_io_file_write(io, fd, data, len, 0);
    if (r >= 0)
        r = kithi_io_file_sync(io, fd);
    if (r >= 0)
        r = kithi_io_file_rename(io, from, to);
    if (r < 0)
        (void)kithi_io_file_unlink(io, from);
    sim_world->disk_unlinks = false;
    if (r < 0) {
        return kithi_error_set(err, r, "cannot write %s: %s", to, kithi_error_text(r));
    }
    return __wrap_kithi_dir_sync(dir, err);
}

int __wrap_kithi_dir_sync(const char *path, struct kithi_errmsg *err)
{
    if (!is_in_data(path))
        return __real_kithi_dir_sync(path, err);
    int r = kithi_io_dir_sync(sim_world->io, path);
    return r < 0 ? kithi_error_set(err, r, "cannot sync %s: %s", path, kithi_error_text(r)) : 0;
}

/* The simulator itself comes by here, too, when it removes what lies in the real directory. */
int __wrap_unlink(const char *path)
{
    struct sim_world *w = sim_world;
    const char *name = strrchr(path, '/');
    bool simulated = is_in_data(path) && !w->disk_unlinks && name &&
                     (strncmp(name + 1, KITHI_MARKER_NAME, strlen(KITHI_MARKER_NAME)) == 0 ||
                      strncmp(name + 1, KITHI_SETTINGS_NAME, strlen(KITHI_SETTINGS_NAME)) == 0);
    if (!simulated)
        return __real_unlink(path);
    w->disk_unlinks = true;
    int r = kithi_io_file_unlink(w->io, path);
    w->disk_unlinks = false;
    if (r < 0)
        errno = -r;
    return r < 0 ? -1 : 0;
}

/* ---- reading ---- */

static bool read_fails(void)
{
    return sim_world->read_fail && --sim_world->read_fail == 0;
}

int64_t __real_kithi_pread(int fd, void *buf, size_t len, uint64_t off);
int64_t __wrap_kithi_pread(int fd, void *buf, size_t len, uint64_t off);
int __real_kithi_checkpoint_read(const struct kithi_checkpoint *c, uint32_t i, void *to,
                                 struct kithi_errmsg *err);
int __wrap_kithi_checkpoint_read(const struct kithi_checkpoint *c, uint32_t i, void *to,
                                 struct kithi_errmsg *err);

int64_t __wrap_kithi_pread(int fd, void *buf, size_t len, uint64_t off)
{
    return read_fails() ? -EIO : __real_kithi_pread(fd, buf, len, off);
}

int __wrap_kithi_checkpoint_read(const struct kithi_checkpoint *c, uint32_t i, void *to,
                                 struct kithi_errmsg *err)
{
    return read_fails() ? kithi_error_set(err, -EIO, "%s cannot be read: %s", c->path, kithi_error_text(-EIO))
                        : __real_kithi_checkpoint_read(c, i, to, err);
}

/* ---- replies ---- */

void __wrap_kithi_request_reply(struct kithi_request *r, const struct kithi_answer *a);
void __wrap_kithi_request_answer(struct kithi_request *r, const struct kithi_answer *a);
void __wrap_kithi_request_refuse(struct kithi_request *r, uint32_t item, const struct kithi_errmsg *err);
void __real_kithi_request_free(struct kithi_request *r);
void __wrap_kithi_request_free(struct kithi_request *r);

#define NUMBER(x) ((unsigned long long)(x))

/* An answer says that what it says is durable is: nobody may take that back. */
static void promise_durable(struct sim_world *w, const struct sim_words *now, uint64_t epoch,
                            const char *what)
{
    if (epoch > now->durable_epoch)
        sim_wrong(w, "%s answers with epoch %llu, %llu is durable", what, NUMBER(epoch),
                  NUMBER(now->durable_epoch));
    if (epoch > w->seen.durable_epoch)
        w->seen.durable_epoch = epoch;
}

/* What came before it is there. */
static void take_flush(struct sim_world *w, const struct sim_words *now, uint64_t before, uint64_t epoch)
{
    w->figures->flushes++;
    promise_durable(w, now, epoch, "a flush");
    if (epoch > now->epoch)
        sim_wrong(w, "a flush answers with epoch %llu, %llu is visible", NUMBER(epoch), NUMBER(now->epoch));
    /* One that changed nothing may be answered after it, with the same epoch. */
    for (uint64_t i = 0; i < before; i++) {
        struct sim_write *one = &w->writes[i];
        if (one->answer == SIM_UNANSWERED && one->flush_epoch == 0)
            one->flush_epoch = epoch;
        if ((one->answer == SIM_UNANSWERED || one->answer == SIM_ACKED) && one->epoch > epoch)
            sim_wrong(w, "a flush of epoch %llu does not wait for a write of epoch %llu", NUMBER(epoch),
                      NUMBER(one->epoch));
    }
}

static void take_ack(struct sim_world *w, const struct kithi_request *r, const struct sim_words *now,
                     const struct kithi_answer *a)
{
    struct sim_write *one = &w->writes[r->frame.tag];
    w->figures->acked++;
    if (one->epoch && one->epoch != a->epoch)
        sim_wrong(w, "a write of epoch %llu is answered with %llu", NUMBER(one->epoch), NUMBER(a->epoch));
    if (one->flush_epoch && a->epoch > one->flush_epoch)
        sim_wrong(w, "a flush of epoch %llu did not wait for a write of epoch %llu", NUMBER(one->flush_epoch),
                  NUMBER(a->epoch));
    one->epoch = a->epoch; /* its group may not have been seen */
    if (one->durability != KITHI_DURABILITY_NONE && a->epoch > now->epoch)
        sim_wrong(w, "a write is answered with epoch %llu, %llu is visible", NUMBER(a->epoch),
                  NUMBER(now->epoch));
    if (one->durability == KITHI_DURABILITY_DURABLE) {
        promise_durable(w, now, a->epoch, "a durable write");
        return;
    }
    const struct kithi_written *written = a->text;
    /* Behind it a bit for each change, where a delete has found nothing. */
    uint32_t bits = (r->frame.count + 7) / 8;
    if ((a->text_len != sizeof *written && a->text_len != sizeof *written + bits) ||
        written->lag_ms != r->collection->daemon->lag_ms) {
        sim_wrong(w, "a write is not told how far it may be ahead");
        return;
    }
    promise_durable(w, now, written->durable_epoch, "a write");
}

static void take_checkpoint(struct sim_world *w, const struct kithi_request *r, const struct kithi_answer *a)
{
    w->figures->checkpoints += a->status == 0;
    w->figures->checkpoints_failed += a->status != 0;
    if (a->status == 0 && a->epoch < r->seq)
        sim_wrong(w, "a checkpoint of epoch %llu answers for one of %llu", NUMBER(a->epoch), NUMBER(r->seq));
}

void __wrap_kithi_request_reply(struct kithi_request *r, const struct kithi_answer *a)
{
    struct sim_world *w = sim_world;
    struct sim_words now =
        sim_words_of(kithi_map_header(kithi_index_map(w->collection->index))); /* the only one there is */
    if (r->frame.tag == SIM_TAG_CHECKPOINT) {
        take_checkpoint(w, r, a);
    } else if (r->frame.tag & SIM_TAG_FLUSH) {
        if (a->status == 0)
            take_flush(w, &now, r->frame.tag - SIM_TAG_FLUSH, a->epoch);
    } else {
        w->writes[r->frame.tag].answer = a->status == 0                    ? SIM_ACKED
                                         : a->status == KITHI_E_LOG_FAILED ? SIM_UNKNOWN
                                                                           : SIM_REFUSED;
        if (a->status == 0)
            take_ack(w, r, &now, a);
    }
}

void __wrap_kithi_request_free(struct kithi_request *r)
{
    struct sim_world *w = sim_world;
    for (uint32_t i = 0; i < w->outstanding_count; i++)
        if (w->outstanding[i] == r)
            w->outstanding[i] = w->outstanding[--w->outstanding_count];
    __real_kithi_request_free(r);
}

void __wrap_kithi_request_answer(struct kithi_request *r, const struct kithi_answer *a)
{
    __wrap_kithi_request_reply(r, a);
    __wrap_kithi_request_free(r);
}

void __wrap_kithi_request_refuse(struct kithi_request *r, uint32_t item, const struct kithi_errmsg *err)
{
    struct kithi_answer a = { .status = err->code, .item = item };
    __wrap_kithi_request_answer(r, &a);
}
