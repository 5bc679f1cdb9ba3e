/*
 * test_client_life.c - a handle through the lives of a real daemon: it comes, writes, is killed, comes back, builds the
 * segment anew, drops the collection. Reads never fail meanwhile, writes say the truth.
 */
#include <kith/kith.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/layout/header.h"
#include "tests/support/codes.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"

enum { DIM = 16 };

static void fill(float *v, float x)
{
    for (int i = 0; i < DIM; i++)
        v[i] = x;
}

/* Static buffer, that others use, too: for immediate use. */
static const char *run_dir(const struct test_daemon *d)
{
    return test_path(&d->run, "run");
}

static kith *begin(struct test_daemon *d, uint32_t metric)
{
    struct kith_error err = { 0 };
    kith *index = NULL;
    test_daemon_init(d);
    assert_int_equal(test_daemon_start(d), 0);
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = DIM;
    create.metric = metric;
    create.quantization = test_quantization();
    create.keep = test_keep();
    create.run_dir = run_dir(d);
    create.error = &err;
    if (kith_create("c", &create) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(kith_create("c", &create), KITH_E_EXISTS);
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run_dir(d);
    opts.error = &err;
    if (kith_open("c", &opts, &index) < 0)
        fail_msg("%s", err.text);
    return index;
}

static void end(struct test_daemon *d, kith *index)
{
    kith_close(index);
    assert_true(test_verify_path(test_daemon_segment(d, "c")));
    assert_int_equal(test_daemon_stop(d), 0);
    test_daemon_fini(d);
}

static int put(kith *index, int number, float x, uint64_t *out_epoch)
{
    char id[16];
    float v[DIM];
    snprintf(id, sizeof id, "%d", number);
    fill(v, x);
    return kith_upsert(index, id, v, DIM, out_epoch);
}

static int nearest(kith *index, kith_results *r, float x)
{
    float q[DIM];
    fill(q, x);
    int rc = kith_search(index, q, DIM, 1, NULL, r);
    return rc == 1 ? atoi(kith_results_id(r, 0)) : rc < 0 ? rc : -1;
}

static void a_write_is_visible_when_it_returns(void **state)
{
    (void)state;
    struct test_daemon d;
    float v[DIM];
    uint64_t epoch = 0, seen = 0, count = 77;
    kith *index = begin(&d, KITH_METRIC_COSINE);
    kith_results *r = kith_results_new();
    fill(v, 1.0f);
    assert_int_equal(kith_search(index, v, DIM, 5, NULL, r), 0);
    assert_int_equal(kith_count(index, &count), 0);
    assert_int_equal(count, 0);
    for (int i = 0; i < 50; i++) {
        uint64_t before = epoch;
        v[0] = (float)i;
        assert_int_equal(kith_upsert(index, "same", v, DIM, &epoch), 0);
        assert_true(epoch > before);
        float back[DIM];
        assert_int_equal(kith_get(index, "same", back, DIM, &seen), 0);
        assert_true(seen >= epoch && back[0] > (float)i - 0.001f && back[0] < (float)i + 0.001f);
        assert_int_equal(kith_search(index, v, DIM, 5, NULL, r), 1);
        assert_string_equal(kith_results_id(r, 0), "same");
    }
    assert_int_equal(kith_delete(index, "other", NULL), KITH_E_NOT_FOUND);
    assert_int_equal(kith_delete(index, "same", &epoch), 0);
    assert_int_equal(kith_exists(index, "same"), 0);
    assert_int_equal(kith_flush(index, &seen), 0);
    assert_true(seen >= epoch);
    struct kith_stats s = KITH_STATS_INIT;
    assert_int_equal(kith_stats(index, &s), 0);
    assert_int_equal(s.live_count, 0);
    assert_int_equal(s.daemon_alive, 1);
    char *json = NULL;
    assert_int_equal(kith_daemon_stats(index, &json), 0);
    assert_non_null(strstr(json, "\"live\":0"));
    free(json);
    kith_results_free(r);
    end(&d, index);
}

static void the_last_of_the_same_id_in_a_batch_wins(void **state)
{
    (void)state;
    struct test_daemon d;
    float v[DIM];
    kith *index = begin(&d, KITH_METRIC_L2);
    kith_batch *b = kith_batch_new(index);
    struct kith_commit c = KITH_COMMIT_INIT;
    for (int i = 0; i < 10; i++) {
        fill(v, (float)i);
        assert_int_equal(kith_batch_upsert(b, "twice", v, DIM), 0);
    }
    fill(v, 5.0f);
    assert_int_equal(kith_batch_upsert(b, "gone", v, DIM), 0);
    assert_int_equal(kith_batch_delete(b, "gone"), 0);
    assert_int_equal(kith_batch_delete(b, "back"), 0);
    assert_int_equal(kith_batch_upsert(b, "back", v, DIM), 0);
    assert_int_equal(kith_batch_commit(b, &c), 0);
    assert_int_equal(kith_get(index, "twice", v, DIM, NULL), 0);
    assert_true(v[0] == 9.0f);
    assert_int_equal(kith_exists(index, "gone"), 0);
    assert_int_equal(kith_exists(index, "back"), 1);
    uint64_t count;
    assert_int_equal(kith_count(index, &count), 0);
    assert_int_equal(count, 2);
    kith_batch_free(b);
    end(&d, index);
}

/* What is there of the ids of a batch to delete; 0 to 19, of which the even ones are. */
static void assert_found(int found, int item, bool is_delete, bool is_there)
{
    if (found != (!is_delete || is_there))
        fail_msg("item %d: %d", item, found);
}

static void a_batch_says_which_of_its_deletes_found_nothing(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    struct test_daemon d;
    float v[DIM] = { 1 };
    kith *index = begin(&d, KITH_METRIC_L2);
    kith_batch *b = kith_batch_new(index);
    kith_pipe *pipe;
    struct kith_commit c = KITH_COMMIT_INIT;
    char id[16];
    assert_int_equal(kith_pipe_open(index, 4, &pipe), 0);
    assert_int_equal(kith_batch_found(b, 0), -EINVAL);
    assert_int_equal(kith_pipe_found(pipe, 0), -EINVAL);
    for (int round = 0; round < 6; round++) { /* each durability, as a batch and through a pipe */
        for (int i = 0; i < COUNT; i += 2)
            assert_int_equal(put(index, i, (float)i, NULL), 0);
        kith_batch_clear(b);
        assert_int_equal(kith_batch_set_durability(b, (enum kith_durability)(round / 2)), 0);
        for (int i = 0; i < COUNT; i++) {
            snprintf(id, sizeof id, "%d", i);
            assert_int_equal(kith_batch_delete(b, id), 0);
            assert_int_equal(kith_batch_upsert(b, "other", v, DIM), 0);
        }
        assert_int_equal(kith_batch_delete(b, "0"), 0);     /* it is gone by then */
        assert_int_equal(kith_batch_delete(b, "other"), 0); /* which came with this batch */
        assert_int_equal(kith_batch_delete(b, "other"), 0);
        assert_int_equal(kith_batch_found(b, 0), -EINVAL);
        if (round % 2) {
            uint64_t token;
            int status;
            assert_int_equal(kith_pipe_submit(pipe, b, 1), 0);
            assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, &c), 1);
            assert_int_equal(status, 0);
        } else {
            assert_int_equal(kith_batch_commit(b, &c), 0);
        }
        assert_int_equal(c.found, COUNT / 2 + 1);
        for (int i = 0; i < 2 * COUNT + 3; i++) {
            bool is_there = i < 2 * COUNT ? i / 2 % 2 == 0 : i == 2 * COUNT + 1;
            bool is_delete = i >= 2 * COUNT || i % 2 == 0;
            int found = round % 2 ? kith_pipe_found(pipe, (uint32_t)i) : kith_batch_found(b, (uint32_t)i);
            assert_found(found, i, is_delete, is_there);
        }
        assert_int_equal(kith_batch_found(b, 2 * COUNT + 3), -EINVAL);
        assert_int_equal(kith_flush(index, NULL), 0);
    }
    /* A write that changes nothing says so of each. */
    for (int durability = 0; durability < 3; durability++) {
        kith_batch_clear(b);
        assert_int_equal(kith_batch_found(b, 0), -EINVAL);
        assert_int_equal(kith_batch_set_durability(b, (enum kith_durability)durability), 0);
        for (int i = 0; i < 9; i++)
            assert_int_equal(kith_batch_delete(b, "nobody"), 0);
        assert_int_equal(kith_batch_commit(b, &c), 0);
        assert_int_equal(c.found, 0);
        assert_true(durability == 0 ? c.lag_ms == 0 && c.durable_epoch == c.epoch : c.lag_ms > 0);
        for (uint32_t i = 0; i < 9; i++)
            assert_int_equal(kith_batch_found(b, i), 0);
    }
    kith_pipe_close(pipe);
    kith_batch_free(b);
    end(&d, index);
}

static void a_pipe_fills_a_collection(void **state)
{
    (void)state;
    enum { BATCHES = 60, SIZE = 50 };
    struct test_daemon d;
    uint64_t token, last = 0;
    int status;
    kith *index = begin(&d, KITH_METRIC_L2);
    kith_pipe *pipe;
    kith_batch *b = kith_batch_new(index);
    struct kith_commit c = KITH_COMMIT_INIT;
    assert_int_equal(kith_pipe_open(index, 8, &pipe), 0);
    for (int i = 0; i < BATCHES;) {
        kith_batch_clear(b);
        for (int j = 0; j < SIZE; j++) {
            char id[16];
            float v[DIM];
            fill(v, (float)(i * SIZE + j));
            snprintf(id, sizeof id, "%d", i * SIZE + j);
            assert_int_equal(kith_batch_upsert(b, id, v, DIM), 0);
        }
        int rc = kith_pipe_submit(pipe, b, (uint64_t)i);
        if (rc == -EAGAIN) {
            assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, &c), 1);
            assert_int_equal(status, 0);
        } else {
            assert_int_equal(rc, 0);
            i++;
        }
    }
    while (kith_pipe_pending(pipe) > 0) {
        assert_int_equal(kith_pipe_next(pipe, 30000, &token, &status, &c), 1);
        assert_int_equal(status, 0);
        last = c.epoch > last ? c.epoch : last;
    }
    kith_pipe_close(pipe);
    assert_int_equal(kith_wait_epoch(index, last, 0), 0);
    uint64_t count;
    assert_int_equal(kith_count(index, &count), 0);
    assert_int_equal(count, BATCHES * SIZE);
    kith_results *r = kith_results_new();
    for (int i = 0; i < BATCHES * SIZE; i += 97)
        assert_int_equal(nearest(index, r, (float)i + 0.2f), i);
    kith_results_free(r);
    kith_batch_free(b);
    end(&d, index);
}

static void reads_go_on_without_the_daemon_and_writes_come_back(void **state)
{
    (void)state;
    enum { COUNT = 200, LIVES = 4 };
    struct test_daemon d;
    kith *index = begin(&d, KITH_METRIC_L2);
    kith_results *r = kith_results_new();
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(put(index, i, (float)i, NULL), 0);
    for (int life = 0; life < LIVES; life++) {
        uint64_t epoch = kith_epoch(index);
        test_daemon_kill(&d);
        for (int i = 0; i < COUNT; i++)
            assert_int_equal(nearest(index, r, (float)i), i);
        /* The kernel may keep a killed daemon's socket for a while, and take requests that nobody reads. */
        uint64_t until = test_now_ms() + 30000;
        int rc;
        while ((rc = put(index, 0, 0.0f, NULL)) == KITH_E_UNKNOWN_OUTCOME)
            assert_true(test_now_ms() < until);
        assert_int_equal(rc, KITH_E_NO_DAEMON);
        assert_int_equal(kith_flush(index, NULL), KITH_E_NO_DAEMON);
        struct kith_stats s = KITH_STATS_INIT;
        assert_int_equal(kith_stats(index, &s), 0);
        assert_int_equal(s.daemon_alive, 0);
        char *json = NULL;
        assert_int_equal(kith_daemon_stats(index, &json), KITH_E_NO_DAEMON);
        assert_null(json);
        char *names;
        assert_int_equal(kith_list(run_dir(&d), &names, NULL), 1);
        assert_string_equal(names, "c");
        free(names);
        assert_int_equal(test_daemon_start(&d), 0);
        assert_true(kith_epoch(index) >= epoch);
        assert_int_equal(put(index, 0, 0.0f, &epoch), 0);
        assert_int_equal(kith_epoch(index), epoch);
    }
    kith_results_free(r);
    end(&d, index);
}

struct reader {
    kith *index;
    _Atomic bool stop;
    _Atomic int error;
    _Atomic uint64_t done, moves;
};

static void *read_on(void *arg)
{
    struct reader *s = arg;
    kith_results *r = kith_results_new();
    for (int i = 0; !atomic_load(&s->stop); i = (i + 1) % 200) {
        int got = nearest(s->index, r, (float)i);
        if (got != i)
            atomic_store(&s->error, got < 0 ? got : -1);
        struct kith_search_info info = KITH_SEARCH_INFO_INIT;
        kith_results_info(r, &info);
        atomic_fetch_add(&s->moves, info.generation_changed);
        atomic_fetch_add(&s->done, 1);
    }
    kith_results_free(r);
    return NULL;
}

/* A start that finds a segment it cannot adopt builds the next generation from the log; readers move over by themselves. */
static void readers_move_to_a_rebuilt_segment(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    struct test_daemon d;
    struct reader s = { 0 };
    pthread_t thread;
    kith *index = begin(&d, KITH_METRIC_L2);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(put(index, i, (float)i, NULL), 0);
    uint64_t epoch = kith_epoch(index);
    s.index = index;
    assert_int_equal(pthread_create(&thread, NULL, read_on, &s), 0);
    for (int life = 0; life < 3; life++) {
        test_daemon_kill(&d);
        int fd = open(test_daemon_segment(&d, "c"), O_WRONLY);
        uint64_t damaged = 42;
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, &damaged, sizeof damaged, offsetof(struct kithi_header, layout_sum)),
                         sizeof damaged);
        close(fd);
        assert_int_equal(test_daemon_start(&d), 0);
        uint64_t until = test_now_ms() + 30000;
        while (atomic_load(&s.moves) < (uint64_t)life + 1) {
            assert_true(test_now_ms() < until);
            test_nap();
        }
        assert_true(kith_epoch(index) >= epoch);
        assert_int_equal(put(index, 7, 7.0f, &epoch), 0);
    }
    atomic_store(&s.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(s.error, 0);
    end(&d, index);
}

/* A removed file is never marked as moved: writes and waits find out by themselves that the name leads elsewhere. */
static void handles_leave_a_removed_segment(void **state)
{
    (void)state;
    enum { COUNT = 50 };
    struct test_daemon d;
    uint64_t epoch = 0, token;
    int status;
    kith *writer = begin(&d, KITH_METRIC_L2), *waiter = NULL, *piper = NULL;
    kith_results *r = kith_results_new();
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run_dir(&d);
    assert_int_equal(kith_open("c", &opts, &waiter), 0);
    assert_int_equal(kith_open("c", &opts, &piper), 0);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(put(writer, i, (float)i, NULL), 0);
    for (int life = 0; life < 2; life++) {
        int at = 1000 + life;
        assert_int_equal(unlink(test_daemon_segment(&d, "c")), 0);
        test_daemon_kill(&d);
        assert_int_equal(nearest(writer, r, 7.0f), 7);
        assert_int_equal(test_daemon_start(&d), 0);

        assert_int_equal(put(writer, at, (float)at, &epoch), 0);
        assert_true(kith_epoch(writer) >= epoch);
        assert_int_equal(nearest(writer, r, (float)at), at);
        assert_int_equal(kith_wait_epoch(waiter, epoch, life == 0 ? 30000 : 0), 0);
        assert_int_equal(nearest(waiter, r, (float)at), at);

        kith_pipe *pipe;
        kith_batch *b = kith_batch_new(piper);
        struct kith_commit c = KITH_COMMIT_INIT;
        float v[DIM];
        fill(v, 5000.0f);
        assert_int_equal(kith_pipe_open(piper, 1, &pipe), 0);
        assert_int_equal(kith_batch_upsert(b, "5000", v, DIM), 0);
        assert_int_equal(kith_pipe_submit(pipe, b, 0), 0);
        assert_int_equal(kith_pipe_next(pipe, 30000, &token, &status, &c), 1);
        assert_int_equal(status, 0);
        assert_true(kith_epoch(piper) >= c.epoch);
        assert_int_equal(nearest(piper, r, 5000.0f), 5000);
        kith_pipe_close(pipe);
        kith_batch_free(b);
    }
    assert_int_equal(kith_wait_epoch(waiter, kith_epoch(waiter) + 1, 10), KITH_E_TIMEOUT);
    kith_results_free(r);
    kith_close(piper);
    kith_close(waiter);
    end(&d, writer);
}

static void another_process_waits_for_an_epoch(void **state)
{
    (void)state;
    struct test_daemon d;
    kith *index = begin(&d, KITH_METRIC_L2);
    uint64_t epoch = kith_epoch(index);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int rc = kith_wait_epoch(index, epoch + 3, 30000);
        float v[DIM];
        if (rc == 0 && kith_get(index, "2", v, DIM, NULL) == 0 && put(index, 99, 1.0f, NULL) == 0)
            _exit(0);
        _exit(1);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(put(index, i, 1.0f, NULL), 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(kith_exists(index, "99"), 1);
    end(&d, index);
}

static void a_dropped_collection_is_gone_for_every_handle(void **state)
{
    (void)state;
    struct test_daemon d;
    struct kith_error err = { 0 };
    kith *index = begin(&d, KITH_METRIC_L2), *again = NULL;
    kith_results *r = kith_results_new();
    assert_int_equal(put(index, 1, 1.0f, NULL), 0);
    assert_int_equal(nearest(index, r, 1.0f), 1);
    assert_int_equal(kith_drop("nope", run_dir(&d), &err), KITH_E_NO_COLLECTION);
    assert_int_equal(kith_drop("c", run_dir(&d), &err), 0);
    assert_int_equal(nearest(index, r, 1.0f), KITH_E_REPLACED);
    assert_int_equal(kith_wait_epoch(index, 1000, 1000), KITH_E_REPLACED);
    assert_int_equal(put(index, 1, 1.0f, NULL), KITH_E_REPLACED);

    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.quantization = test_quantization();
    create.keep = test_keep();
    create.run_dir = run_dir(&d);
    assert_int_equal(kith_create("c", &create), 0);
    assert_int_equal(nearest(index, r, 1.0f), KITH_E_REPLACED);
    assert_int_equal(put(index, 1, 1.0f, NULL), KITH_E_REPLACED);
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run_dir(&d);
    assert_int_equal(kith_open("c", &opts, &again), 0);
    assert_int_equal(nearest(again, r, 1.0f), -1);
    kith_close(index);
    kith_results_free(r);
    end(&d, again);
}

static void a_stopped_daemon_is_told_of_and_does_nothing_that_was_given_up(void **state)
{
    (void)state;
    struct test_daemon d;
    struct kith_error err = { 0 };
    kith *index = begin(&d, KITH_METRIC_L2);
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    char *names = NULL;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = run_dir(&d);
    create.error = &err;
    assert_int_equal(kill(d.pid, SIGSTOP), 0);
    assert_int_equal(kith_list(run_dir(&d), &names, &err), KITH_E_TIMEOUT);
    assert_non_null(strstr(err.text, "not answered"));
    assert_int_equal(kith_create("late", &create), KITH_E_TIMEOUT);
    assert_non_null(strstr(err.text, "nothing was asked"));
    assert_int_equal(kith_drop("c", run_dir(&d), &err), KITH_E_TIMEOUT);
    assert_non_null(strstr(err.text, "nothing was asked"));
    assert_int_equal(kith_checkpoint(index, NULL, &err), KITH_E_TIMEOUT);
    assert_non_null(strstr(err.text, "nothing was asked"));
    assert_int_equal(kill(d.pid, SIGCONT), 0);
    assert_int_equal(kith_list(run_dir(&d), &names, &err), 1);
    assert_string_equal(names, "c");
    free(names);
    assert_int_equal(kith_checkpoint(index, NULL, &err), 0);
    end(&d, index);
}

static void a_batch_beyond_the_ceiling_is_refused_whole(void **state)
{
    (void)state;
    struct test_daemon d;
    struct kith_error err = { 0 };
    kith *index = begin(&d, KITH_METRIC_L2), *small = NULL;
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.quantization = test_quantization();
    create.keep = test_keep();
    create.max_vectors = 10;
    create.fixed = 1;
    create.run_dir = run_dir(&d);
    create.error = &err;
    if (kith_create("small", &create) < 0)
        fail_msg("%s", err.text);
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run_dir(&d);
    assert_int_equal(kith_open("small", &opts, &small), 0);
    kith_batch *b = kith_batch_new(small);
    float v[DIM];
    fill(v, 1.0f);
    for (int i = 0; i < 11; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        assert_int_equal(kith_batch_upsert(b, id, v, DIM), 0);
    }
    struct kith_commit c = KITH_COMMIT_INIT;
    uint64_t count;
    assert_int_equal(kith_batch_commit(b, &c), KITH_E_FULL);
    assert_true(strlen(c.error.text) > 10);
    assert_int_equal(kith_count(small, &count), 0);
    assert_int_equal(count, 0);
    char *names;
    assert_int_equal(kith_list(run_dir(&d), &names, &err), 2);
    assert_memory_equal(names, "c\0small\0", 8);
    free(names);
    kith_batch_free(b);
    kith_close(small);
    end(&d, index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_is_visible_when_it_returns),
        cmocka_unit_test(the_last_of_the_same_id_in_a_batch_wins),
        cmocka_unit_test(a_batch_says_which_of_its_deletes_found_nothing),
        cmocka_unit_test(a_pipe_fills_a_collection),
        cmocka_unit_test(reads_go_on_without_the_daemon_and_writes_come_back),
        cmocka_unit_test(readers_move_to_a_rebuilt_segment),
        cmocka_unit_test(handles_leave_a_removed_segment),
        cmocka_unit_test(another_process_waits_for_an_epoch),
        cmocka_unit_test(a_dropped_collection_is_gone_for_every_handle),
        cmocka_unit_test(a_stopped_daemon_is_told_of_and_does_nothing_that_was_given_up),
        cmocka_unit_test(a_batch_beyond_the_ceiling_is_refused_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
