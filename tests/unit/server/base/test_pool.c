/*
 * test_pool.c - does the pool run every job once, and report each work once, in the loop's thread?
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/base/pool.h"

#define THREADS     3u
#define WORKS       4u
#define JOBS        500u
#define REPEATS     20u
#define DEADLINE_MS 20000

struct book {
    struct kithi_work work;
    struct kithi_pool *pool;
    pthread_t loop;
    _Atomic unsigned runs[JOBS];
    _Atomic unsigned in_worker[THREADS]; /* jobs that are in this worker now */
    unsigned done, repeats;
};

static void job(void *arg, unsigned worker, uint32_t i)
{
    struct book *b = arg;
    assert_in_range(worker, 0, THREADS - 1);
    assert_int_equal(atomic_fetch_add(&b->in_worker[worker], 1), 0);
    atomic_fetch_add(&b->runs[i], 1);
    atomic_fetch_sub(&b->in_worker[worker], 1);
}

static void done(struct kithi_work *work)
{
    struct book *b = work->arg;
    assert_true(pthread_equal(pthread_self(), b->loop));
    if (++b->done < b->repeats) {
        kithi_pool_submit(b->pool, work);
    }
}

static void every_job_of_every_work_runs_once(void **state)
{
    (void)state;
    struct kithi_io *io;
    struct kithi_pool *pool;
    static struct book books[WORKS];
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, NULL), 0);
    assert_int_equal(kithi_pool_open(io, THREADS, &pool, NULL), 0);
    assert_int_equal(kithi_pool_threads(pool), THREADS);
    for (unsigned w = 0; w < WORKS; w++) {
        struct book *b = &books[w];
        b->pool = pool;
        b->loop = pthread_self();
        b->repeats = w ? REPEATS : 1;
        b->work = (struct kithi_work){ .fn = job, .done = done, .arg = b, .n = w == 1 ? 1 : JOBS - w };
        kithi_pool_submit(pool, &b->work);
    }
    for (unsigned w = 0; w < WORKS; w++) {
        while (books[w].done < books[w].repeats) {
            assert_true(kithi_io_run(io, DEADLINE_MS) >= 0);
        }
    }
    for (unsigned w = 0; w < WORKS; w++) {
        assert_int_equal(books[w].done, books[w].repeats);
        for (unsigned i = 0; i < JOBS; i++) {
            assert_int_equal(books[w].runs[i], i < books[w].work.n ? books[w].repeats : 0);
        }
    }
    kithi_pool_free(pool);
    kithi_io_free(io);
}

struct waiter {
    struct kithi_pool *pool;
    pthread_t thread;
    unsigned n;
    unsigned
        runs[JOBS]; /* plain: what jobs stored is seen by whoever waited, or learnt that they have ended */
};

static void plain_job(void *arg, unsigned worker, uint32_t i)
{
    struct waiter *w = arg;
    (void)worker;
    w->runs[i]++;
}

static void *wait_for_jobs(void *arg)
{
    struct waiter *w = arg;
    for (unsigned r = 0; r < REPEATS; r++) {
        struct kithi_work work = { .fn = plain_job, .arg = w, .n = w->n };
        if (r % 2 && w->n) {
            kithi_pool_start(w->pool, &work);
            if (!kithi_pool_has_ended(w->pool, &work)) {
                kithi_pool_wait(w->pool, &work);
            }
            assert_true(kithi_pool_has_ended(w->pool, &work));
        } else {
            kithi_pool_run(w->pool, plain_job, w, w->n);
        }
        for (unsigned i = 0; i < JOBS; i++) {
            assert_int_equal(w->runs[i], i < w->n ? r + 1 : 0);
        }
    }
    return NULL;
}

/* Beside works of the loop, which are reported there as ever. */
static void other_threads_wait_for_jobs_of_their_own(void **state)
{
    (void)state;
    struct kithi_io *io;
    struct kithi_pool *pool;
    static struct waiter waiters[WORKS];
    static struct book b;
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, NULL), 0);
    assert_int_equal(kithi_pool_open(io, THREADS, &pool, NULL), 0);
    b = (struct book){ .pool = pool, .loop = pthread_self(), .repeats = REPEATS };
    b.work = (struct kithi_work){ .fn = job, .done = done, .arg = &b, .n = JOBS };
    kithi_pool_submit(pool, &b.work);
    for (unsigned w = 0; w < WORKS; w++) {
        waiters[w].pool = pool;
        waiters[w].n = w == 0 ? 0 : w == 1 ? 1 : JOBS - w;
        assert_int_equal(pthread_create(&waiters[w].thread, NULL, wait_for_jobs, &waiters[w]), 0);
    }
    while (b.done < b.repeats) {
        assert_true(kithi_io_run(io, DEADLINE_MS) >= 0);
    }
    for (unsigned w = 0; w < WORKS; w++) {
        pthread_join(waiters[w].thread, NULL);
    }
    kithi_pool_free(pool);
    kithi_io_free(io);
}

static void freeing_drops_what_waits(void **state)
{
    (void)state;
    struct kithi_io *io;
    struct kithi_pool *pool;
    static struct book b;
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, NULL), 0);
    assert_int_equal(kithi_pool_open(io, THREADS, &pool, NULL), 0);
    b.work = (struct kithi_work){ .fn = job, .done = done, .arg = &b, .n = JOBS };
    kithi_pool_submit(pool, &b.work);
    kithi_pool_free(pool);
    assert_int_equal(b.done, 0);
    kithi_pool_free(NULL);
    kithi_io_free(io);
}

struct wide_book {
    _Atomic unsigned runs[JOBS];
    _Atomic unsigned in_worker[2 * THREADS];
    _Atomic unsigned inside;
};

/* The first jobs wait until more of them are under way than there are workers. */
static void wide_job(void *arg, unsigned worker, uint32_t i)
{
    struct wide_book *b = arg;
    assert_in_range(worker, 0, 2 * THREADS - 1);
    assert_int_equal(atomic_fetch_add(&b->in_worker[worker], 1), 0);
    atomic_fetch_add(&b->runs[i], 1);
    atomic_fetch_add(&b->inside, 1);
    while (i < 2 * THREADS && atomic_load(&b->inside) < 2 * THREADS) {
        sched_yield();
    }
    atomic_fetch_sub(&b->in_worker[worker], 1);
}

static void *run_wide(void *arg)
{
    static struct wide_book book;
    kithi_pool_run_wide(arg, wide_job, &book, 0); /* nothing to do */
    kithi_pool_run_wide(arg, wide_job, &book, JOBS);
    for (unsigned i = 0; i < JOBS; i++) {
        assert_int_equal(atomic_load(&book.runs[i]), 1);
    }
    return NULL;
}

static void jobs_that_wait_get_more_threads(void **state)
{
    (void)state;
    struct kithi_io *io;
    struct kithi_pool *pool;
    pthread_t thread;
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, NULL), 0);
    assert_int_equal(kithi_pool_open(io, THREADS, &pool, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_wide, pool), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    kithi_pool_free(pool);
    kithi_io_free(io);
}

/* ---- works that stand behind ---- */

struct row {
    struct kithi_pool *pool;
    struct kithi_work behind, first;
    _Atomic bool begun, submitted;
    _Atomic unsigned first_runs, behind_runs;
    unsigned first_before; /* jobs of the others that had run when the first one behind had given way */
    unsigned first_done, behind_done;
    bool again; /* the others never end */
};

static void job_that_goes_first(void *arg, unsigned worker, uint32_t i)
{
    struct row *r = arg;
    (void)worker;
    (void)i;
    atomic_fetch_add(&r->first_runs, 1);
}

static void job_that_gives_way(void *arg, unsigned worker, uint32_t i)
{
    struct row *r = arg;
    if (i == 0) {
        atomic_store(&r->begun, true);
        while (!atomic_load(&r->submitted)) {
            sched_yield();
        }
    }
    kithi_pool_give_way(r->pool, worker);
    if (i == 0) {
        r->first_before = atomic_load(&r->first_runs);
    }
    atomic_fetch_add(&r->behind_runs, 1);
}

static void first_is_done(struct kithi_work *work)
{
    struct row *r = work->arg;
    r->first_done++;
    if (r->again) {
        kithi_pool_submit(r->pool, work);
    }
}

static void behind_is_done(struct kithi_work *work)
{
    struct row *r = work->arg;
    r->behind_done++;
    r->again = false;
}

/* Job 0 of what stands behind is under way when the others come. */
static void row_run(struct row *r, unsigned threads, uint32_t behind, uint32_t first)
{
    struct kithi_io *io;
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, NULL), 0);
    assert_int_equal(kithi_pool_open(io, threads, &r->pool, NULL), 0);
    r->behind = (struct kithi_work){
        .fn = job_that_gives_way, .done = behind_is_done, .arg = r, .n = behind, .behind = 50
    };
    r->first = (struct kithi_work){ .fn = job_that_goes_first, .done = first_is_done, .arg = r, .n = first };
    kithi_pool_submit(r->pool, &r->behind);
    while (!atomic_load(&r->begun)) {
        sched_yield();
    }
    kithi_pool_submit(r->pool, &r->first);
    atomic_store(&r->submitted, true);
    while (r->behind_done == 0 || r->first_done == 0) {
        assert_true(kithi_io_run(io, DEADLINE_MS) >= 0);
    }
    assert_int_equal(atomic_load(&r->behind_runs), behind);
    kithi_pool_free(r->pool);
    kithi_io_free(io);
}

static void a_long_job_behind_lets_what_comes_go_first(void **state)
{
    (void)state;
    struct row r = { .again = false };
    row_run(&r, 1, 1, 1);
    assert_int_equal(r.first_before, 1);
    assert_int_equal(r.first_runs, 1);
}

static void what_stands_behind_comes_to_an_end_beside_work_without_end(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= THREADS; threads++) {
        struct row r = { .again = true };
        row_run(&r, threads, JOBS, 3);
        assert_true(r.first_done >= 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_of_every_work_runs_once),
        cmocka_unit_test(a_long_job_behind_lets_what_comes_go_first),
        cmocka_unit_test(what_stands_behind_comes_to_an_end_beside_work_without_end),
        cmocka_unit_test(other_threads_wait_for_jobs_of_their_own),
        cmocka_unit_test(jobs_that_wait_get_more_threads),
        cmocka_unit_test(freeing_drops_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
