/*
 * bench_warm.c - how soon a collection takes writes again when its segment is still there, and whether that grows with the
 * collection: a quarter of the set and all of it, each with a kithd of its own, in turns.
 *
 * Clean: kithd is stopped by SIGTERM and has left before the clock runs. Killed: kithd is killed while a process upserts as fast as
 * it can. The clock runs from before kithd is forked and executed until a write of this process is acknowledged. A reader
 * process searches through all of it with the segment it has had from the beginning; its p99 around the restarts of the
 * killed kithd (from the kill until half a second after the acknowledgement) stands beside that of before, with kithd idle.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/common/histogram.h"
#include "bench/common/machine.h"

#define SIZES      2u
#define PATIENCE_S 600.0
#define BATCH      20u
#define LOAD_MS    500 /* of writing before a kill */
#define IDLE_MS    500 /* of reading before that */
#define AFTER_MS   500 /* of reading after the acknowledgement */

enum window { WINDOW_NONE, WINDOW_IDLE, WINDOW_RESTART, WINDOW_COUNT };

/* What a size's processes share. */
struct shared {
    _Atomic uint32_t window; /* in which searches count */
    _Atomic bool writing, write_ended;
    struct bench_histogram latency[WINDOW_COUNT]; /* of the reader alone */
    uint64_t errors;
};

struct size {
    struct bench_set set;
    struct bench_daemon daemon;
    struct shared *shared;
    pid_t reader, writer;
    double *clean, *killed;
};

struct warm {
    struct bench_options opts;
    struct size sizes[SIZES];
};

static double seconds_since(uint64_t begin)
{
    return (double)(bench_now_ns() - begin) / 1e9;
}

static kith *attach(const struct warm *w, const struct size *s)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = s->daemon.run_dir;
    kith *k;
    int rc = kith_open(w->opts.configs[0].name, &opts, &k);
    if (rc < 0)
        bench_die("%s: %s", w->opts.configs[0].name, kith_strerror(rc));
    return k;
}

/* ---- processes ---- */

static _Noreturn void read_on(const struct warm *w, struct size *s)
{
    kith *k = attach(w, s);
    kith_results *r = kith_results_new();
    for (uint32_t q = 0;; q = (q + 1) % s->set.query_count) {
        uint64_t begin = bench_now_ns();
        int n = kith_search(k, bench_set_query(&s->set, q), s->set.dim, w->opts.k, NULL, r);
        s->shared->errors += n < (int)w->opts.k;
        bench_histogram_add(&s->shared->latency[atomic_load(&s->shared->window)], bench_now_ns() - begin);
        if (atomic_load(&s->shared->window) == WINDOW_NONE)
            poll(NULL, 0, 1);
    }
}

/* Upsert while told to; whatever ends a batch with an error ends the writing. */
static _Noreturn void write_on(const struct warm *w, struct size *s)
{
    uint64_t x = 88172645463325252u;
    for (;;) {
        while (!atomic_load(&s->shared->writing))
            poll(NULL, 0, 1);
        kith *k = attach(w, s);
        for (int rc = 0; rc >= 0 && atomic_load(&s->shared->writing);) {
            char id[16];
            kith_batch *batch = kith_batch_new(k);
            for (unsigned i = 0; i < BATCH && rc >= 0; i++) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                uint32_t row = (uint32_t)(x % s->set.base_count);
                snprintf(id, sizeof(id), "%u", row);
                rc = kith_batch_upsert(batch, id, bench_set_base(&s->set, row), s->set.dim);
            }
            if (rc >= 0)
                rc = kith_batch_commit(batch, NULL);
            kith_batch_free(batch);
        }
        kith_close(k);
        atomic_store(&s->shared->writing, false);
        atomic_store(&s->shared->write_ended, true);
    }
}

static pid_t start_process(const struct warm *w, struct size *s,
                           void (*run)(const struct warm *, struct size *))
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        bench_die("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(w, s);
    }
    return pid;
}

/* ---- restarts ---- */

static double until_acked(const struct warm *w, struct size *s)
{
    kith *k = attach(w, s);
    int rc;
    uint64_t begin = bench_now_ns();
    bench_daemon_again(&s->daemon);
    while ((rc = kith_upsert(k, "0", bench_set_base(&s->set, 0), s->set.dim, NULL)) < 0) {
        if (seconds_since(begin) > PATIENCE_S)
            bench_die("a write: %s", kith_strerror(rc));
        poll(NULL, 0, 1);
    }
    double t = seconds_since(begin);
    kith_close(k);
    return t;
}

static double after_a_stop(const struct warm *w, struct size *s)
{
    bench_daemon_leave(&s->daemon);
    return until_acked(w, s);
}

static double after_a_kill(const struct warm *w, struct size *s)
{
    atomic_store(&s->shared->window, WINDOW_IDLE);
    poll(NULL, 0, IDLE_MS);
    atomic_store(&s->shared->window, WINDOW_NONE);
    atomic_store(&s->shared->write_ended, false);
    atomic_store(&s->shared->writing, true);
    poll(NULL, 0, LOAD_MS);
    if (atomic_load(&s->shared->write_ended))
        bench_die("the writer has ended before kithd was killed");
    atomic_store(&s->shared->window, WINDOW_RESTART);
    bench_daemon_kill(&s->daemon);
    atomic_store(&s->shared->writing, false);
    double t = until_acked(w, s);
    poll(NULL, 0, AFTER_MS);
    atomic_store(&s->shared->window, WINDOW_NONE);
    while (!atomic_load(&s->shared->write_ended))
        poll(NULL, 0, 1);
    return t;
}

static void open_size(struct warm *w, struct size *s, const struct bench_set *from, uint32_t count)
{
    bench_set_resize(from, count, from->query_count < 1000 ? from->query_count : 1000, &s->set);
    s->shared = mmap(NULL, sizeof(*s->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s->shared == MAP_FAILED)
        bench_die("mmap: %s", strerror(errno));
    s->clean = bench_alloc(sizeof(double) * w->opts.rounds);
    s->killed = bench_alloc(sizeof(double) * w->opts.rounds);
    bench_daemon_start(&s->daemon, w->opts.threads);
    bench_daemon_create(&s->daemon, &s->set, &w->opts, &w->opts.configs[0]);
    bench_daemon_load(&s->daemon, &s->set, &w->opts.configs[0]);
    bench_daemon_settle(&s->daemon);
    s->reader = start_process(w, s, read_on);
    s->writer = start_process(w, s, write_on);
}

static void end_processes(const struct size *s)
{
    kill(s->reader, SIGKILL);
    kill(s->writer, SIGKILL);
    waitpid(s->reader, NULL, 0);
    waitpid(s->writer, NULL, 0);
}

static void close_size(struct size *s)
{
    bench_daemon_stop(&s->daemon);
    bench_set_close(&s->set);
    free(s->clean);
    free(s->killed);
    munmap(s->shared, sizeof(*s->shared));
}

/* ---- what came out ---- */

static void print_size(const struct size *s, unsigned rounds)
{
    const struct bench_histogram *idle = &s->shared->latency[WINDOW_IDLE],
                                 *restart = &s->shared->latency[WINDOW_RESTART];
    double clean = bench_median(s->clean, rounds), killed = bench_median(s->killed, rounds); /* they sort */
    printf("| %u | %.0f (%.0f - %.0f) | %.0f (%.0f - %.0f) | %.0f | %.0f | %.2f | %llu |\n",
           s->set.base_count, clean * 1e3, s->clean[0] * 1e3, s->clean[rounds - 1] * 1e3, killed * 1e3,
           s->killed[0] * 1e3, s->killed[rounds - 1] * 1e3, (double)bench_histogram_at(idle, 0.99) / 1e3,
           (double)bench_histogram_at(restart, 0.99) / 1e3, (double)restart->max / 1e6,
           (unsigned long long)s->shared->errors);
}

static void write_json(const struct warm *w)
{
    char machine[512];
    FILE *f = fopen(w->opts.json, "w");
    if (!f)
        bench_die("%s: %s", w->opts.json, strerror(errno));
    bench_machine(machine, sizeof(machine));
    fprintf(f, "[");
    for (unsigned i = 0; i < SIZES; i++) {
        const struct size *s = &w->sizes[i];
        fprintf(
            f,
            "%s{\"set\": \"%s\", \"quantization\": \"%s\", \"vectors\": %u, \"clean_s\": %.6f, \"killed_s\": %.6f, "
            "\"p99_idle_us\": %.1f, \"p99_restart_us\": %.1f, \"reader_errors\": %llu, \"rounds\": %u, "
            "\"machine\": \"%s\"}",
            i ? ",\n " : "", s->set.name, w->opts.configs[0].name, s->set.base_count,
            bench_median(s->clean, w->opts.rounds), bench_median(s->killed, w->opts.rounds),
            (double)bench_histogram_at(&s->shared->latency[WINDOW_IDLE], 0.99) / 1e3,
            (double)bench_histogram_at(&s->shared->latency[WINDOW_RESTART], 0.99) / 1e3,
            (unsigned long long)s->shared->errors, w->opts.rounds, machine);
    }
    fprintf(f, "]\n");
    if (fclose(f) != 0)
        bench_die("%s: %s", w->opts.json, strerror(errno));
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto", "", 9, 0 };
    static struct warm w;
    struct bench_set set;
    bench_options_parse(argc, argv, "bench_warm [OPTIONS] [SET]: restarts with the segment in place",
                        &defaults, &w.opts);
    bench_set_open(&w.opts, &set);
    for (unsigned i = 0; i < SIZES; i++)
        open_size(&w, &w.sizes[i], &set, i ? set.base_count : set.base_count / 4);
    for (unsigned round = 0; round < w.opts.rounds; round++) {
        for (unsigned i = 0; i < SIZES; i++) {
            w.sizes[i].clean[round] = after_a_stop(&w, &w.sizes[i]);
            w.sizes[i].killed[round] = after_a_kill(&w, &w.sizes[i]);
        }
    }
    printf("\n%s: %u-d, quantization %s; medians of %u rounds in turns, lowest and highest\n\n", set.name,
           set.dim, w.opts.configs[0].name, w.opts.rounds);
    printf(
        "| vectors | from exec to the first ack, after a clean stop, ms | after kill -9 under load, ms | a reader's "
        "p99, kithd idle, us | p99 around the restarts, us | slowest there, ms | reader errors |\n"
        "|---:|---:|---:|---:|---:|---:|---:|\n");
    for (unsigned i = 0; i < SIZES; i++)
        print_size(&w.sizes[i], w.opts.rounds);
    if (w.opts.json)
        write_json(&w);
    /* Whoever was forked later holds the leashes of those before. */
    for (unsigned i = 0; i < SIZES; i++)
        end_processes(&w.sizes[i]);
    for (unsigned i = SIZES; i-- > 0;)
        close_size(&w.sizes[i]);
    bench_set_close(&set);
    return 0;
}
