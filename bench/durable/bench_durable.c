/*
 * bench_durable.c - what durability costs those who do not need it at the moment, and how fast it brings back.
 *
 * Three comparisons, each in rounds of short phases that take turns, with kithd at rest before each:
 *
 *   one reader, kithd alive and idle                  and kithd killed with -9
 *   one reader beside a writer at full speed          and while one checkpoint is written after the other
 *   a writer at full speed, alone                     and the replay of what it wrote, after a checkpoint was loaded
 *
 * The first is done twice: as it is, and with a loop of the lowest priority on kithd's CPU. A virtual machine gives a busy CPU
 * less while the one beside it sleeps, and without kithd that one sleeps even longer; with the loop it never does, and
 * what is left is kithd's doing.
 *
 * The first two pin the reader to a CPU of its own, kithd and the writer to another one; the third leaves both to the
 * scheduler, as a start has both. Checkpoints that kithd takes by itself would fall into some phases and not into others: one
 * is taken before each phase in which somebody writes, so that none is due in it.
 *
 * With --cpu-time, for machines that others use: searches by the reader's CPU time, and the third comparison by
 * kithd's: what it used while it took the changes, and what a start uses for them, another start without them subtracted.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/daemon.h"
#include "bench/common/machine.h"
#include "bench/common/traffic.h"

#define POLICY_LOG_BYTES (256.0 * 1024 * 1024) /* kithd's defaults: a checkpoint after so much log, */
#define POLICY_SHARE     4.0                   /* and after this part of its size if that is more */

enum { ALIVE, DEAD, ALIVE_AWAKE, DEAD_AWAKE, PLAIN, BESIDE, LIVE, REPLAY, PHASES };
enum { QPS, P99, WRITES, COLUMNS };

static const char *const names[PHASES] = {
    [ALIVE] = "one reader, kithd idle",
    [DEAD] = "one reader, kithd killed",
    [ALIVE_AWAKE] = "one reader, kithd idle, its CPU awake",
    [DEAD_AWAKE] = "one reader, kithd killed, its CPU awake",
    [PLAIN] = "one reader, one writer",
    [BESIDE] = "one reader, one writer, checkpoints",
    [LIVE] = "one writer alone",
    [REPLAY] = "replay of what it wrote",
};

struct run {
    struct bench_daemon daemon;
    struct bench_set set;
    struct bench_options opts;
    const struct bench_config *config;
    double *v[PHASES][COLUMNS]; /* by round */
    double *load_s, *load_bytes, *checkpoints;
    uint64_t errors;
};

static void note(struct run *r, unsigned phase, unsigned round, const struct bench_traffic *t)
{
    const struct bench_histogram *h = r->opts.cpu_time ? &t->cpu : &t->latency;
    double seconds = r->opts.cpu_time ? (double)t->cpu.sum / 1e9 : t->seconds;
    r->v[phase][QPS][round] = h->count ? (double)h->count / seconds : 0;
    r->v[phase][P99][round] = h->count ? (double)bench_histogram_at(h, 0.99) / 1e3 : 0;
    r->v[phase][WRITES][round] = (double)t->writes / t->seconds;
    r->errors += t->errors;
}

static void traffic(struct run *r, unsigned phase, unsigned round, unsigned readers, bool writer,
                    bool checkpoints, bool pinned)
{
    static struct bench_traffic t;
    const struct bench_phase p = { .name = names[phase],
                                   .readers = readers,
                                   .writer = writer,
                                   .pinned = pinned,
                                   .checkpoints = checkpoints,
                                   .seconds = r->opts.seconds };
    bench_traffic_run(&p, &r->daemon, &r->set, &r->opts, r->config, &t);
    note(r, phase, round, &t);
    if (checkpoints)
        r->checkpoints[round] = (double)t.checkpoints;
}

static void back(struct run *r, bool pinned)
{
    bench_daemon_again(&r->daemon);
    bench_daemon_await(&r->daemon);
    if (pinned)
        bench_daemon_pin(&r->daemon, r->opts.daemon_cpu);
    bench_daemon_settle(&r->daemon);
}

static void checkpoint(const struct run *r)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    struct kith_error error = { 0 };
    kith *k;
    opts.run_dir = r->daemon.run_dir;
    int rc = kith_open(r->config->name, &opts, &k);
    if (rc == 0)
        rc = kith_checkpoint(k, NULL, &error);
    if (rc < 0)
        bench_die("checkpoint: %s", error.text[0] ? error.text : kith_strerror(rc));
    kith_close(k);
    bench_daemon_settle(&r->daemon);
}

/* A process that keeps a CPU from sleeping and gives way to everybody. */
static pid_t keep_awake(int cpu)
{
    const struct sched_param param = { 0 };
    cpu_set_t set;
    pid_t pid = fork();
    if (pid < 0)
        bench_die("fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || sched_setaffinity(0, sizeof set, &set) != 0 ||
        sched_setscheduler(0, SCHED_IDLE, &param) != 0)
        _exit(1);
    for (;;)
        __asm__ volatile("");
}

static void let_sleep(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
        bench_die("the loop on kithd's CPU could not be started");
}

static void one_reader(struct run *r, unsigned phase, unsigned phase_awake, unsigned round)
{
    traffic(r, phase, round, 1, false, false, true);
    pid_t pid = keep_awake(r->opts.daemon_cpu);
    traffic(r, phase_awake, round, 1, false, false, true);
    let_sleep(pid);
}

static void readers_without_a_daemon(struct run *r, unsigned round)
{
    bool dead_first = round % 2;
    if (!dead_first)
        one_reader(r, ALIVE, ALIVE_AWAKE, round);
    bench_daemon_kill(&r->daemon);
    one_reader(r, DEAD, DEAD_AWAKE, round);
    back(r, true);
    if (dead_first)
        one_reader(r, ALIVE, ALIVE_AWAKE, round);
}

static void writing_beside_checkpoints(struct run *r, unsigned round)
{
    for (unsigned i = 0; i < 2; i++) {
        bool with = i == round % 2;
        checkpoint(r);
        traffic(r, with ? BESIDE : PLAIN, round, 1, true, with, true);
        bench_daemon_settle(&r->daemon);
    }
}

static void lose_segment(const struct run *r)
{
    char path[400];
    snprintf(path, sizeof(path), "%s/%s/segment", r->daemon.run_dir, r->config->name);
    if (unlink(path) != 0)
        bench_die("%s: %s", path, strerror(errno));
}

/* CPU seconds of kithd until all is served. */
static double cold_start(struct run *r)
{
    bench_daemon_kill(&r->daemon);
    lose_segment(r);
    bench_daemon_again(&r->daemon);
    bench_daemon_await(&r->daemon);
    double s = bench_daemon_cpu(&r->daemon);
    bench_daemon_settle(&r->daemon);
    return s;
}

static void replay(struct run *r, unsigned round)
{
    const char *name = r->config->name;
    checkpoint(r);
    double before = bench_daemon_cpu(&r->daemon);
    traffic(r, LIVE, round, 0, true, false, false);
    bench_daemon_settle(&r->daemon); /* the dead are swept: a replay does that, too */
    double live_s = bench_daemon_cpu(&r->daemon) - before;
    double replay_s = cold_start(r);
    double changes = bench_daemon_logged(&r->daemon, "replayed", name, "changes"),
           ms = bench_daemon_logged(&r->daemon, "replayed", name, "ms");
    r->v[REPLAY][QPS][round] = r->v[REPLAY][P99][round] = 0;
    r->v[REPLAY][WRITES][round] = changes / (ms > 0 ? ms : 1) * 1e3;
    if (r->opts.cpu_time) {
        checkpoint(r);
        replay_s -= cold_start(r);
        r->v[LIVE][WRITES][round] = changes / live_s;
        r->v[REPLAY][WRITES][round] = changes / replay_s;
    }
    r->load_s[round] = bench_daemon_logged(&r->daemon, "loaded", name, "ms") / 1e3;
    r->load_bytes[round] = bench_daemon_logged(&r->daemon, "loaded", name, "bytes");
}

/* Median of v, or of the ratios v / to of the rounds; *out_min and *out_max may be NULL. */
static double median(const struct run *r, const double *v, const double *to, double *out_min, double *out_max)
{
    unsigned n = r->opts.rounds;
    double *copy = bench_alloc(sizeof(double) * n);
    for (unsigned i = 0; i < n; i++)
        copy[i] = to ? v[i] / to[i] : v[i];
    double m = bench_median(copy, n);
    if (out_min)
        *out_min = copy[0];
    if (out_max)
        *out_max = copy[n - 1];
    free(copy);
    return m;
}

static double print_ratio(const struct run *r, const char *what, const char *wanted, unsigned phase,
                          unsigned to, unsigned column)
{
    double min;
    double max;
    double m = median(r, r->v[phase][column], r->v[to][column], &min, &max);
    printf("| %s | %.2f | %.2f - %.2f | %s |\n", what, m, min, max, wanted);
    return m;
}

struct ratios {
    double dead, dead_awake, writes, p99, replay, bound_s;
};

/* What the policy bounds: the newest checkpoint is loaded, and the log that did not yet make a new one due is replayed. */
static double bound(const struct run *r)
{
    double image = median(r, r->load_bytes, NULL, NULL, NULL),
           load_s = median(r, r->load_s, NULL, NULL, NULL);
    double changes_s = median(r, r->v[REPLAY][WRITES], NULL, NULL, NULL);
    double log = image / POLICY_SHARE > POLICY_LOG_BYTES ? image / POLICY_SHARE : POLICY_LOG_BYTES;
    double change =
        16 + 8 +
        4.0 * r->set.dim; /* header, a short id, the vector; what the log adds to a group counts little */
    double replay_s = log / change / changes_s;
    printf(
        "\nA cold start of this collection: %.0f MiB of checkpoint in %.2f s, and at most %.0f MiB of log, %.0f "
        "changes, in %.1f s.\n",
        image / (1 << 20), load_s, log / (1 << 20), log / change, replay_s);
    return load_s + replay_s;
}

static void print(const struct run *r, struct ratios *out)
{
    printf("| phase | searches/s | p99 us | changes/s |\n|---|---:|---:|---:|\n");
    for (unsigned p = 0; p < PHASES; p++) {
        printf("| %s |", names[p]);
        for (unsigned c = 0; c < COLUMNS; c++) {
            double m = median(r, r->v[p][c], NULL, NULL, NULL);
            if (m > 0)
                printf(" %.0f |", m);
            else
                printf(" |");
        }
        printf("\n");
    }
    printf("\n| in the same run | ratio | lowest and highest round | wanted |\n|---|---:|---:|---:|\n");
    out->dead = print_ratio(r, "searches/s, kithd killed to idle", "0.98", DEAD, ALIVE, QPS);
    out->dead_awake =
        print_ratio(r, "the same, its CPU kept awake in both", "0.98", DEAD_AWAKE, ALIVE_AWAKE, QPS);
    out->writes = print_ratio(r, "changes/s, with checkpoints to without", "0.70", BESIDE, PLAIN, WRITES);
    out->p99 =
        print_ratio(r, "p99 of the reader, with checkpoints to without", "at most 1.50", BESIDE, PLAIN, P99);
    out->replay = print_ratio(r, "changes/s, replay to writing", "0.90", REPLAY, LIVE, WRITES);
    printf("\n%.0f checkpoints in a phase.\n", median(r, r->checkpoints, NULL, NULL, NULL));
    out->bound_s = bound(r);
    fflush(stdout);
}

static void write_json(const struct run *r, const struct ratios *q)
{
    char machine[512];
    bench_machine(machine, sizeof(machine));
    FILE *f = fopen(r->opts.json, "w");
    if (!f)
        bench_die("%s: %s", r->opts.json, strerror(errno));
    fprintf(
        f,
        "[{\"set\": \"%s\", \"quantization\": \"%s\", \"vectors\": %u, \"dead_qps_ratio\": %.4f, \"dead_awake_qps_ratio\": %.4f, "
        "\"checkpoint_writes_ratio\": %.4f, \"checkpoint_p99_ratio\": %.4f, \"replay_ratio\": %.4f, "
        "\"writes_per_second\": %.6g, \"replay_per_second\": %.6g, \"bound_s\": %.6g, \"rounds\": %u, "
        "\"machine\": \"%s\"}]\n",
        r->set.name, r->config->name, r->set.base_count, q->dead, q->dead_awake, q->writes, q->p99, q->replay,
        median(r, r->v[LIVE][WRITES], NULL, NULL, NULL), median(r, r->v[REPLAY][WRITES], NULL, NULL, NULL),
        q->bound_s, r->opts.rounds, machine);
    if (fclose(f) != 0)
        bench_die("%s: %s", r->opts.json, strerror(errno));
}

int main(int argc, char **argv)
{
    const struct bench_defaults defaults = { "auto", "", 7, 5 };
    static struct run r;
    struct ratios ratios;
    bench_options_parse(
        argc, argv,
        "bench_durable [OPTIONS] [SET]: readers without a daemon, writing beside checkpoints, "
        "replay to writing",
        &defaults, &r.opts);
    r.config = &r.opts.configs[0];
    if (r.opts.cpu == r.opts.daemon_cpu)
        bench_die("reader and kithd need a CPU each");
    for (unsigned p = 0; p < PHASES; p++) {
        for (unsigned c = 0; c < COLUMNS; c++)
            r.v[p][c] = bench_alloc(sizeof(double) * r.opts.rounds);
    }
    r.load_s = bench_alloc(sizeof(double) * r.opts.rounds);
    r.load_bytes = bench_alloc(sizeof(double) * r.opts.rounds);
    r.checkpoints = bench_alloc(sizeof(double) * r.opts.rounds);
    bench_set_open(&r.opts, &r.set);
    bench_daemon_start(&r.daemon, r.opts.threads);
    bench_daemon_create(&r.daemon, &r.set, &r.opts, r.config);
    bench_daemon_load(&r.daemon, &r.set, r.config);
    bench_daemon_settle(&r.daemon);
    for (unsigned i = 0; i < r.opts.rounds; i++) {
        bench_daemon_pin(&r.daemon, r.opts.daemon_cpu);
        readers_without_a_daemon(&r, i);
        writing_beside_checkpoints(&r, i);
        bench_daemon_kill(&r.daemon); /* to be free of the one CPU */
        back(&r, false);
        replay(&r, i);
    }
    printf(
        "\n%s: %u x %u, quantization %s, k = %u, ef = %u; reader on CPU %d, kithd and writer on CPU %d, the last two phases on "
        "all; medians of %u rounds in turns, phases of %.0f s%s\n\n",
        r.set.name, r.set.base_count, r.set.dim, r.config->name, r.opts.k,
        BENCH_TRAFFIC_EF > r.opts.k ? BENCH_TRAFFIC_EF : r.opts.k, r.opts.cpu, r.opts.daemon_cpu,
        r.opts.rounds, r.opts.seconds,
        r.opts.cpu_time ? "; searches, writing alone and replay by CPU time" : "");
    print(&r, &ratios);
    if (r.opts.json)
        write_json(&r, &ratios);
    for (unsigned p = 0; p < PHASES; p++) {
        for (unsigned c = 0; c < COLUMNS; c++)
            free(r.v[p][c]);
    }
    free(r.load_s);
    free(r.load_bytes);
    free(r.checkpoints);
    bench_set_close(&r.set);
    bench_daemon_stop(&r.daemon);
    return r.errors ? 1 : 0;
}
