/*
 * pool.h - worker threads that run numbered jobs, several works at a time.
 *
 * A work is n jobs of one function. Workers take jobs from the works in turn, so that a long
 * work delays a short one by no more than its share; when the last job of a work has ended, the
 * work's done is called in the loop's thread, from kithi_io_run().
 *
 * A work that nobody waits for stands behind the others: while these have jobs left it gets a share of the workers' time, and its long
 * jobs let them go first in between (kithi_pool_give_way).
 *
 * Threads: one thread, the loop's, opens, submits and frees. The pool owns the loop's wake
 *          callback (kithi_io_on_wake). Other threads, none of them a worker, may have jobs done for
 *          themselves and wait for them (kithi_pool_run, kithi_pool_start, kithi_pool_run_wide).
 * Memory:  a work belongs to the caller, who leaves it alone from submit until done; inside done
 *          it may be submitted again or freed. Nothing is allocated for a work.
 */
#ifndef KITHI_SERVER_POOL_H
#define KITHI_SERVER_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/io.h"
#include "shm/base/error.h"

struct kithi_pool;
struct kithi_work;

/* Job i of a work; worker is 0..threads-1 and belongs to this thread alone. */
typedef void kithi_pool_fn(void *arg, unsigned worker, uint32_t i);
typedef void kithi_pool_done(struct kithi_work *work);

struct kithi_work {
    kithi_pool_fn *fn;     /* the caller's */
    kithi_pool_done *done; /* the caller's; NULL: somebody waits (kithi_pool_start) */
    void *arg;             /* the caller's */
    uint32_t n;            /* jobs, 1 or more; the caller's */
    uint32_t
        behind; /* the caller's; not 0: it stands behind the others, with so many percent of the time that they take */

    /* The rest is the pool's until done. */
    uint32_t next_job;
    uint32_t ended;
    struct kithi_work *next, *prev;
};

/* Start threads (1 or more). Returns 0 or -errno with err filled. */
int kithi_pool_open(struct kithi_io *io, unsigned threads, struct kithi_pool **out_pool,
                    struct kithi_errmsg *err);

unsigned kithi_pool_threads(const struct kithi_pool *pool);

/* Queue a work; never calls done itself. */
void kithi_pool_submit(struct kithi_pool *pool, struct kithi_work *work);

/*
 * In a job of a work that stands behind, by its worker, every millisecond or more often, and while it holds nothing that jobs of others
 * may want: does such jobs, those that are waiting and have not had their share of the time.
 */
void kithi_pool_give_way(struct kithi_pool *pool, unsigned worker);

/*
 * Have n jobs done, in turn with all other works, and return when the last one has ended; what they stored is seen then.
 * Blocks: for threads that are neither the loop's nor workers. They have returned before the pool is freed.
 */
void kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n);

/* The same in two steps, of which the first returns at once: a work of one job or more, without done, is begun and waited for. */
void kithi_pool_start(struct kithi_pool *pool, struct kithi_work *work);
void kithi_pool_wait(struct kithi_pool *pool, const struct kithi_work *work);
/* Whether a work that was started has ended: waiting would take no time. */
bool kithi_pool_has_ended(struct kithi_pool *pool, const struct kithi_work *work);

/*
 * The same for jobs that mostly wait for a disk: besides the workers as many threads again do them, started for that and gone when
 * it returns, so that the disk has something to do while all processors are busy. worker is 0..2*threads-1, and of no use
 * for what belongs to a worker. With no more threads to be had the workers do it alone.
 */
void kithi_pool_run_wide(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n);

/* Ends the threads once the jobs they are in have ended. Works that are not done are dropped without
 * done. To be called before kithi_io_free(). NULL is fine. */
void kithi_pool_free(struct kithi_pool *pool);

#endif
