/*
 * bench_mixed.c - what a writer at full speed does to the latency of reader processes.
 *
 * Three phases of the same length: one reader alone, all readers alone, all readers beside the
 * writer. The writer replaces random rows by their own vectors, so that slots turn over and the
 * true neighbours stay what they are: recall after the last phase is comparable with that before.
 */
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
#include "bench/common/daemon.h"
#include "bench/common/histogram.h"

#define EF          100u
#define BATCH       100u
#define DEPTH       8u
#define PROCESS_MAX 65u

/* What a child process has counted, in memory that it shares with its parent. */
struct tally {
    struct bench_histogram latency;
    struct bench_histogram cpu; /* CPU time of the same searches: without other programs' time slices */
    uint64_t errors;
    int last_error; /* negative: of the library; else hits of a search that found fewer than k */
    uint64_t writes;
};

struct phase {
    const char *name;
    unsigned readers;
    bool writer;
    double seconds;
};

static struct shared {
    atomic_bool stop;
    atomic_uint ready;
    struct tally tally[PROCESS_MAX];
} * shared;

static kith *open_collection(const struct bench_daemon *d)
{
    kith *index;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = d->run_dir;
    opts.prefault = 1;
    int rc = kith_open(BENCH_COLLECTION, &opts, &index);
    if (rc < 0)
        bench_die("open: %s", kith_strerror(rc));
    return index;
}

static void read_at_full_speed(const struct bench_daemon *d, const struct bench_set *set,
                               const struct bench_options *o, unsigned number, struct tally *t)
{
    kith *index = open_collection(d);
    kith_results *results = kith_results_new();
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = EF > o->k ? EF : o->k;
    atomic_fetch_add(&shared->ready, 1);
    for (size_t q = (size_t)number * 97; !atomic_load_explicit(&shared->stop, memory_order_relaxed); q++) {
        uint64_t begin = bench_now_ns();
        uint64_t cpu_begin = bench_cpu_ns();
        int rc =
            kith_search(index, bench_set_query(set, q % set->query_count), set->dim, o->k, &opts, results);
        bench_histogram_add(&t->cpu, bench_cpu_ns() - cpu_begin);
        bench_histogram_add(&t->latency, bench_now_ns() - begin);
        if (rc != (int)o->k) {
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
        t->writes += BATCH;
    }
}

static void write_at_full_speed(const struct bench_daemon *d, const struct bench_set *set, struct tally *t)
{
    kith *index = open_collection(d);
    kith_pipe *pipe;
    int rc = kith_pipe_open(index, DEPTH, &pipe);
    if (rc < 0)
        bench_die("writer: %s", kith_strerror(rc));
    kith_batch *batch = kith_batch_new(index);
    uint64_t state = 1;
    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
        kith_batch_clear(batch);
        for (unsigned i = 0; i < BATCH; i++) {
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

static double recall(const struct bench_daemon *d, const struct bench_set *set, const struct bench_options *o)
{
    kith *index = open_collection(d);
    kith_results *results = kith_results_new();
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = EF > o->k ? EF : o->k;
    uint64_t hits = 0;
    for (size_t q = 0; q < set->query_count; q++) {
        uint32_t rows[BENCH_K_MAX];
        int n = kith_search(index, bench_set_query(set, q), set->dim, o->k, &opts, results);
        if (n < 0)
            bench_die("search: %s", kith_strerror(n));
        for (int i = 0; i < n; i++)
            rows[i] = (uint32_t)strtoul(kith_results_id(results, (uint32_t)i), NULL, 10);
        hits += bench_set_hits(set, q, rows, (uint32_t)n, o->k);
    }
    kith_results_free(results);
    kith_close(index);
    return (double)hits / ((double)set->query_count * o->k);
}

static void sleep_seconds(double seconds)
{
    struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

/* Returns errors of readers and writer. */
static uint64_t run_phase(const struct phase *p, const struct bench_daemon *d, const struct bench_set *set,
                          const struct bench_options *o)
{
    unsigned n = p->readers + (p->writer ? 1 : 0);
    memset(shared, 0, sizeof(*shared));
    fflush(NULL);
    for (unsigned i = 0; i < n; i++) {
        pid_t pid = fork();
        if (pid < 0)
            bench_die("fork: %s", strerror(errno));
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (i < p->readers)
                read_at_full_speed(d, set, o, i, &shared->tally[i]);
            else
                write_at_full_speed(d, set, &shared->tally[i]);
            _exit(0);
        }
    }
    while (atomic_load(&shared->ready) < n)
        sleep_seconds(0.01);
    uint64_t begin = bench_now_ns();
    sleep_seconds(p->seconds);
    atomic_store(&shared->stop, true);
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    for (unsigned i = 0; i < n; i++) {
        int status;
        if (wait(&status) > 0 && status != 0)
            bench_die("a process of phase \"%s\" failed (status %d)", p->name, status);
    }

    struct tally *all = bench_alloc(sizeof(*all));
    memset(all, 0, sizeof(*all));
    uint64_t errors = 0;
    for (unsigned i = 0; i < n; i++) {
        bench_histogram_merge(&all->latency, &shared->tally[i].latency);
        bench_histogram_merge(&all->cpu, &shared->tally[i].cpu);
        errors += shared->tally[i].errors;
        int last = shared->tally[i].last_error;
        if (shared->tally[i].errors)
            fprintf(stderr, "bench: process %u of phase \"%s\": %llu errors, the last: %s (%d)\n", i, p->name,
                    (unsigned long long)shared->tally[i].errors,
                    last < 0 ? kith_strerror(last) : "fewer than k hits", last);
    }
    printf("| %s | %.0f | %.0f | %.0f | %.0f | %.1f | %.0f | %.0f | %.0f | %llu |\n", p->name,
           (double)all->latency.count / seconds, (double)bench_histogram_at(&all->latency, 0.5) / 1e3,
           (double)bench_histogram_at(&all->latency, 0.99) / 1e3,
           (double)bench_histogram_at(&all->latency, 0.999) / 1e3, (double)all->latency.max / 1e6,
           (double)bench_histogram_at(&all->cpu, 0.5) / 1e3,
           (double)bench_histogram_at(&all->cpu, 0.99) / 1e3,
           p->writer ? (double)shared->tally[p->readers].writes / seconds : 0.0, (unsigned long long)errors);
    fflush(stdout);
    free(all);
    return errors;
}

int main(int argc, char **argv)
{
    struct bench_options opts;
    bench_options_parse(argc, argv,
                        "bench_mixed [OPTIONS] [SET]: reader processes beside a writer at full speed", &opts);
    struct bench_daemon daemon;
    bench_daemon_start(&daemon, opts.threads);
    struct bench_set set;
    bench_set_open(opts.set, &set);
    bench_daemon_create(&daemon, &set, &opts);
    bench_daemon_load(&daemon, &set);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        bench_die("mmap: %s", strerror(errno));

    double before = recall(&daemon, &set, &opts);
    printf(
        "\n%s: %u x %u, k = %u, ef = %u, %u reader processes, kithd with %u insertion threads, %u CPUs; the "
        "writer replaces random vectors, %u a batch\n\n",
        set.name, set.base_count, set.dim, opts.k, EF > opts.k ? EF : opts.k, opts.readers, opts.threads,
        bench_cpu_count(), BATCH);
    printf(
        "| phase | searches/s | p50 us | p99 us | p99.9 us | max ms | CPU p50 us | CPU p99 us | writes/s | errors |\n");
    printf("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    const struct phase phases[] = {
        { "one reader, undisturbed", 1, false, opts.seconds / 4 },
        { "all readers, undisturbed", opts.readers, false, opts.seconds / 2 },
        { "one reader, one writer", 1, true, opts.seconds / 2 },
        { "all readers, one writer", opts.readers, true, opts.seconds },
    };
    uint64_t errors = 0;
    for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++)
        errors += run_phase(&phases[i], &daemon, &set, &opts);
    printf("\nRecall@%u before %.4f, after %.4f.\n", opts.k, before, recall(&daemon, &set, &opts));

    munmap(shared, sizeof(*shared));
    bench_set_close(&set);
    bench_daemon_stop(&daemon);
    return errors ? 1 : 0;
}
