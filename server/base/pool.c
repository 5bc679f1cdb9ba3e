/*
 * pool.c - worker threads that run numbered jobs. See pool.h.
 *
 * Works with jobs left stand in a ring; a worker takes the next job of the work at the front and
 * turns the ring by one. A job (inserting a vector, looking through a stretch of rows) takes tens of
 * microseconds at least, so one mutex around ring and counters is never what is waited for.
 *
 * Works that stand behind have a ring of their own. An account says what time they are short of: jobs of the first ring add to it, by the
 * share of the second, while that has something to do, and its own jobs take from it. A worker goes to the second ring when the
 * first is empty or the account is not. It is closed whenever one of the rings has nothing to do, and never holds more than
 * ACCOUNT_NS either way, so that nobody waits for what went before.
 */
#include "server/base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/base/assert.h"

#define ACCOUNT_NS INT64_C(10000000)

enum ring { RING_FIRST, RING_BEHIND, RING_COUNT };

struct worker {
    struct kithi_pool *pool;
    pthread_t thread;
    unsigned number;
    int64_t since_ns; /* of its job that is not in the account yet */
};

struct kithi_pool {
    struct kithi_io *io;
    pthread_mutex_t lock; /* of everything below but threads and workers */
    pthread_cond_t todo;
    pthread_cond_t ended;                /* a work that somebody waits for */
    struct kithi_work *turn[RING_COUNT]; /* rings of works with jobs left; whose turn it is */
    _Atomic bool waiting;                /* the first ring is not empty; stored under the lock */
    unsigned behind;                     /* works that stand behind and are not done */
    uint32_t percent;                    /* their share: that of the last one */
    int64_t account_ns;                  /* what they are short of */
    struct kithi_work *finished;         /* chain, by next */
    bool ending;
    unsigned threads;
    struct worker workers[];
};

static enum ring ring_of(const struct kithi_work *work)
{
    return work->behind ? RING_BEHIND : RING_FIRST;
}

static void ring_add(struct kithi_pool *pool, struct kithi_work *work)
{
    struct kithi_work **turn = &pool->turn[ring_of(work)];
    if (!*turn) {
        work->next = work->prev = work;
        *turn = work;
    } else {
        work->next = *turn; /* just before the front: last in turn */
        work->prev = (*turn)->prev;
        work->prev->next = work;
        work->next->prev = work;
    }
    if (work->behind) {
        pool->behind++;
        pool->percent = work->behind;
    }
    /* Relaxed: whoever reads it asks again under the lock, or a little later. */
    atomic_store_explicit(&pool->waiting, pool->turn[RING_FIRST] != NULL, memory_order_relaxed);
}

static void ring_remove(struct kithi_pool *pool, struct kithi_work *work)
{
    struct kithi_work **turn = &pool->turn[ring_of(work)];
    if (work->next == work) {
        *turn = NULL;
    } else {
        work->prev->next = work->next;
        work->next->prev = work->prev;
        if (*turn == work) {
            *turn = work->next;
        }
    }
    atomic_store_explicit(&pool->waiting, pool->turn[RING_FIRST] != NULL, memory_order_relaxed);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Under the lock: what the worker has done since the last time, for a work. */
static void book(struct kithi_pool *pool, struct worker *self, bool behind)
{
    int64_t now = now_ns(), spent = now - self->since_ns;
    self->since_ns = now;
    if (!pool->behind || (behind && !pool->turn[RING_FIRST])) {
        pool->account_ns = 0;
        return;
    }
    pool->account_ns += behind ? -spent : spent * pool->percent / 100;
    if (pool->account_ns > ACCOUNT_NS) {
        pool->account_ns = ACCOUNT_NS;
    } else if (pool->account_ns < -ACCOUNT_NS) {
        pool->account_ns = -ACCOUNT_NS;
    }
}

/* Under the lock, which is let go while the job runs: the next job of a work. */
static void run_next(struct kithi_pool *pool, struct worker *self, struct kithi_work *work)
{
    uint32_t i = work->next_job++;
    bool behind = work->behind != 0;
    pool->turn[ring_of(work)] = work->next;
    if (work->next_job == work->n) {
        ring_remove(pool, work);
    }
    pthread_mutex_unlock(&pool->lock);

    self->since_ns = now_ns();
    work->fn(work->arg, self->number, i);

    pthread_mutex_lock(&pool->lock);
    book(pool, self, behind);
    if (++work->ended < work->n) {
        return;
    }
    pool->behind -= behind;
    if (work->done) {
        work->next = pool->finished;
        pool->finished = work;
        kithi_io_wake(pool->io);
    } else {
        pthread_cond_broadcast(&pool->ended);
    }
}

/* Under the lock: whose turn it is. */
static struct kithi_work *whose_turn(const struct kithi_pool *pool)
{
    struct kithi_work *first = pool->turn[RING_FIRST], *behind = pool->turn[RING_BEHIND];
    return !first || (behind && pool->account_ns > 0) ? behind : first;
}

static void *worker_main(void *arg)
{
    struct worker *self = arg;
    struct kithi_pool *pool = self->pool;
    pthread_mutex_lock(&pool->lock);
    while (!pool->ending) {
        struct kithi_work *work = whose_turn(pool);
        if (work) {
            run_next(pool, self, work);
        } else {
            pthread_cond_wait(&pool->todo, &pool->lock);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

void kithi_pool_give_way(struct kithi_pool *pool, unsigned worker)
{
    struct worker *self = &pool->workers[worker];
    /* Relaxed: to miss one for now does no harm. */
    if (!atomic_load_explicit(&pool->waiting, memory_order_relaxed)) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    book(pool, self, true);
    while (pool->turn[RING_FIRST] && pool->account_ns <= 0 && !pool->ending) {
        run_next(pool, self, pool->turn[RING_FIRST]);
    }
    pthread_mutex_unlock(&pool->lock);
    self->since_ns = now_ns();
}

static void on_wake(void *arg)
{
    struct kithi_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    struct kithi_work *work = pool->finished;
    pool->finished = NULL;
    pthread_mutex_unlock(&pool->lock);
    while (work) {
        struct kithi_work *next = work->next;
        work->done(work);
        work = next;
    }
}

int kithi_pool_open(struct kithi_io *io, unsigned threads, struct kithi_pool **out_pool,
                    struct kithi_errmsg *err)
{
    KITHI_ASSERT(threads > 0);
    struct kithi_pool *pool = calloc(1, sizeof *pool + threads * sizeof pool->workers[0]);
    if (!pool) {
        return kithi_error_set(err, -ENOMEM, "no memory for %u worker threads", threads);
    }
    pool->io = io;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->todo, NULL);
    pthread_cond_init(&pool->ended, NULL);
    kithi_io_on_wake(io, on_wake, pool);
    for (unsigned i = 0; i < threads; i++) {
        struct worker *w = &pool->workers[i];
        w->pool = pool;
        w->number = i;
        int status = pthread_create(&w->thread, NULL, worker_main, w);
        if (status) {
            kithi_pool_free(pool);
            return kithi_error_set(err, -status,
                                   "cannot start worker thread %u of %u: %s; try fewer with --threads", i + 1,
                                   threads, strerror(status));
        }
        pool->threads++;
    }
    *out_pool = pool;
    return 0;
}

unsigned kithi_pool_threads(const struct kithi_pool *pool)
{
    return pool->threads;
}

/* Under the lock. */
static void add(struct kithi_pool *pool, struct kithi_work *work)
{
    work->next_job = 0;
    work->ended = 0;
    ring_add(pool, work);
    if (work->n == 1) {
        pthread_cond_signal(&pool->todo);
    } else {
        pthread_cond_broadcast(&pool->todo);
    }
}

void kithi_pool_submit(struct kithi_pool *pool, struct kithi_work *work)
{
    KITHI_ASSERT(work->n > 0 && work->done);
    pthread_mutex_lock(&pool->lock);
    add(pool, work);
    pthread_mutex_unlock(&pool->lock);
}

void kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n)
{
    struct kithi_work work = { .fn = fn, .arg = arg, .n = n };
    if (n) {
        kithi_pool_start(pool, &work);
        kithi_pool_wait(pool, &work);
    }
}

void kithi_pool_start(struct kithi_pool *pool, struct kithi_work *work)
{
    KITHI_ASSERT(work->n > 0 && !work->done);
    pthread_mutex_lock(&pool->lock);
    add(pool, work);
    pthread_mutex_unlock(&pool->lock);
}

void kithi_pool_wait(struct kithi_pool *pool, const struct kithi_work *work)
{
    pthread_mutex_lock(&pool->lock);
    while (work->ended < work->n) {
        pthread_cond_wait(&pool->ended, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
}

bool kithi_pool_has_ended(struct kithi_pool *pool, const struct kithi_work *work)
{
    pthread_mutex_lock(&pool->lock);
    bool ended = work->ended == work->n;
    pthread_mutex_unlock(&pool->lock);
    return ended;
}

/* Jobs that workers and other threads take. */
struct wide {
    kithi_pool_fn *fn;
    void *arg;
    uint32_t n;
    _Atomic uint32_t next;
};

struct helper {
    struct wide *wide;
    pthread_t thread;
    unsigned number;
};

static bool wide_take(struct wide *wide, unsigned number)
{
    uint32_t i = atomic_fetch_add(&wide->next, 1);
    if (i < wide->n) {
        wide->fn(wide->arg, number, i);
    }
    return i < wide->n;
}

/* As many of these as there are jobs, so that other works get their turns; those that come too late find nothing. */
static void wide_job(void *arg, unsigned worker, uint32_t i)
{
    (void)i;
    (void)wide_take(arg, worker);
}

static void *helper_main(void *arg)
{
    const struct helper *self = arg;
    while (wide_take(self->wide, self->number)) {
    }
    return NULL;
}

void kithi_pool_run_wide(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n)
{
    struct wide wide = { .fn = fn, .arg = arg, .n = n };
    unsigned wanted = n < pool->threads ? n : pool->threads, count = 0;
    struct helper *helpers = calloc(wanted + 1, sizeof *helpers);
    for (; helpers && count < wanted; count++) {
        struct helper *h = &helpers[count];
        h->wide = &wide;
        h->number = pool->threads + count;
        if (pthread_create(&h->thread, NULL, helper_main, h)) {
            break;
        }
    }
    kithi_pool_run(pool, wide_job, &wide, n);
    for (unsigned i = 0; i < count; i++) {
        pthread_join(helpers[i].thread, NULL);
    }
    free(helpers);
}

void kithi_pool_free(struct kithi_pool *pool)
{
    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    pthread_cond_broadcast(&pool->todo);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->threads; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    kithi_io_on_wake(pool->io, NULL, NULL);
    pthread_cond_destroy(&pool->todo);
    pthread_cond_destroy(&pool->ended);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
