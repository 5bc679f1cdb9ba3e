/*
 * traffic.c - reader processes and a writer process.
 */
#include "bench/common/traffic.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <kith/kith.h>

#include "bench/common/clock.h"

#define DEPTH       8u
#define PROCESS_MAX 66u

/* What a child process has counted, in memory that it shares with its parent. */
struct tally {
    struct bench_histogram latency;
    struct bench_histogram cpu;
    uint64_t errors;
    int last_error; /* negative: of the library; else hits of a search that found fewer than k */
    uint64_t writes;
    uint64_t checkpoints;
};

struct shared {
    atomic_bool stop;
    atomic_uint ready;
    struct tally tally[PROCESS_MAX];
};

/* What all processes of a phase know. */
struct job {
    const struct bench_phase *phase;
    const struct bench_daemon *daemon;
    const struct bench_set *set;
    const struct bench_options *opts;
    const char *collection;
    struct shared *shared;
};

static kith *open_collection(const struct job *j)
{
    kith *index;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = j->daemon->run_dir;
    opts.prefault = 1;
    int rc = kith_open(j->collection, &opts, &index);
    if (rc < 0)
        bench_die("open: %s", kith_strerror(rc));
    return index;
}

static void read_at_full_speed(const struct job *j, unsigned number, struct tally *t)
{
    const struct bench_set *set = j->set;
    uint32_t k = j->opts->k;
    if (j->phase->pinned)
        bench_pin(number % 2 ? j->opts->daemon_cpu : j->opts->cpu);
    kith *index = open_collection(j);
    kith_results *results = kith_results_new();
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = BENCH_TRAFFIC_EF > k ? BENCH_TRAFFIC_EF : k;
    atomic_fetch_add(&j->shared->ready, 1);
    for (size_t q = (size_t)number * 97; !atomic_load_explicit(&j->shared->stop, memory_order_relaxed); q++) {
        uint64_t begin = bench_now_ns();
        uint64_t cpu_begin = bench_cpu_ns();
        int rc = kith_search(index, bench_set_query(set, q % set->query_count), set->dim, k, &opts, results);
        bench_histogram_add(&t->cpu, bench_cpu_ns() - cpu_begin);
        bench_histogram_add(&t->latency, bench_now_ns() - begin);
        if (rc != (int)k) {
            t->errors++;
            t->last_error = rc;
        }
    }
    kith_results_free(results);
    kith_close(index);
}

static void take_answer(kith_pipe *pipe, struct tally *t)
{
    uint64_t token;
    int status;
    int rc = kith_pipe_next(pipe, -1, &token, &status, NULL);
    if (rc < 0)
        bench_die("writer: %s", kith_strerror(rc));
    if (rc > 0 && status < 0) {
        t->errors++;
        t->last_error = status;
    } else if (rc > 0) {
        t->writes += BENCH_TRAFFIC_BATCH;
    }
}

static void write_at_full_speed(const struct job *j, struct tally *t)
{
    const struct bench_set *set = j->set;
    if (j->phase->pinned)
        bench_pin(j->opts->daemon_cpu);
    kith *index = open_collection(j);
    kith_pipe *pipe;
    int rc = kith_pipe_open(index, DEPTH, &pipe);
    if (rc < 0)
        bench_die("writer: %s", kith_strerror(rc));
    kith_batch *batch = kith_batch_new(index);
    uint64_t state = 1;
    atomic_fetch_add(&j->shared->ready, 1);
    while (!atomic_load_explicit(&j->shared->stop, memory_order_relaxed)) {
        kith_batch_clear(batch);
        for (unsigned i = 0; i < BENCH_TRAFFIC_BATCH; i++) {
            state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
            uint32_t row = (uint32_t)((state >> 33) % set->base_count);
            char id[16];
            snprintf(id, sizeof(id), "%u", row);
            rc = kith_batch_upsert(batch, id, bench_set_base(set, row), set->dim);
            if (rc < 0)
                bench_die("writer: %s", kith_strerror(rc));
        }
        while (kith_pipe_pending(pipe) >= DEPTH)
            take_answer(pipe, t);
        rc = kith_pipe_submit(pipe, batch, 0);
        if (rc < 0)
            bench_die("writer: %s", kith_strerror(rc));
    }
    while (kith_pipe_pending(pipe) > 0)
        take_answer(pipe, t);
    kith_batch_free(batch);
    kith_pipe_close(pipe);
    kith_close(index);
}

static void ask_for_checkpoints(const struct job *j, struct tally *t)
{
    if (j->phase->pinned)
        bench_pin(j->opts->daemon_cpu);
    kith *index = open_collection(j);
    uint64_t last = 0, epoch = 0;
    atomic_fetch_add(&j->shared->ready, 1);
    while (!atomic_load_explicit(&j->shared->stop, memory_order_relaxed)) {
        int rc = kith_checkpoint(index, &epoch, NULL);
        if (rc < 0) {
            t->errors++;
            t->last_error = rc;
            break;
        }
        t->checkpoints += epoch != last; /* with nothing changed since the last, that is the answer */
        last = epoch;
    }
    kith_close(index);
}

static void sleep_seconds(double seconds)
{
    struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

static void start(const struct job *j, unsigned n)
{
    fflush(NULL);
    for (unsigned i = 0; i < n; i++) {
        pid_t pid = fork();
        if (pid < 0)
            bench_die("fork: %s", strerror(errno));
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (i < j->phase->readers)
                read_at_full_speed(j, i, &j->shared->tally[i]);
            else if (i == j->phase->readers && j->phase->writer)
                write_at_full_speed(j, &j->shared->tally[i]);
            else
                ask_for_checkpoints(j, &j->shared->tally[i]);
            _exit(0);
        }
    }
    while (atomic_load(&j->shared->ready) < n) {
        int status;
        sleep_seconds(0.01);
        if (waitpid(-1, &status, WNOHANG) > 0)
            bench_die("a process of phase \"%s\" failed (status %d)", j->phase->name, status);
    }
}

void bench_traffic_run(const struct bench_phase *p, const struct bench_daemon *d, const struct bench_set *set,
                       const struct bench_options *o, const struct bench_config *config,
                       struct bench_traffic *out)
{
    unsigned n = p->readers + (p->writer ? 1 : 0) + (p->checkpoints ? 1 : 0);
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        bench_die("mmap: %s", strerror(errno));
    struct job job = { p, d, set, o, config->name, shared };
    start(&job, n);
    uint64_t begin = bench_now_ns();
    sleep_seconds(p->seconds);
    atomic_store(&shared->stop, true);
    memset(out, 0, sizeof(*out));
    out->seconds = (double)(bench_now_ns() - begin) / 1e9;
    for (unsigned i = 0; i < n; i++) {
        int status;
        if (wait(&status) > 0 && status != 0)
            bench_die("a process of phase \"%s\" failed (status %d)", p->name, status);
    }
    for (unsigned i = 0; i < n; i++) {
        const struct tally *t = &shared->tally[i];
        bench_histogram_merge(&out->latency, &t->latency);
        bench_histogram_merge(&out->cpu, &t->cpu);
        out->errors += t->errors;
        out->writes += t->writes;
        out->checkpoints += t->checkpoints;
        if (t->errors)
            fprintf(stderr, "bench: process %u of phase \"%s\": %llu errors, the last: %s (%d)\n", i, p->name,
                    (unsigned long long)t->errors,
                    t->last_error < 0 ? kith_strerror(t->last_error) : "fewer than k hits", t->last_error);
    }
    munmap(shared, sizeof(*shared));
}
