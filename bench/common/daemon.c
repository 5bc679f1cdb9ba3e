/*
 * daemon.c - a kithd of the benchmark's own.
 */
#include "bench/common/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <kith/kith.h>

#include "bench/common/clock.h"

#define START_WAIT_MS  10000
#define AWAIT_MS       600000
#define SETTLE_STEP_MS 200
#define SETTLE_STEPS   150
#define KEEPER_END     'e'
#define KEEPER_START   's'
#define KEEPER_LEAVE   'l'
#define IDLE_SHARE     0.02 /* of a CPU: the daemon's own clock ticks */
/* As `kith load` does it. */
#define LOAD_DEPTH 8u
#define LOAD_BATCH 256u
#define LOAD_BYTES (1u << 20)

static void daemon_path(char *out, size_t size)
{
    const char *chosen = getenv("KITHD");
    if (chosen && *chosen) {
        snprintf(out, size, "%s", chosen);
        return;
    }
    ssize_t n = readlink("/proc/self/exe", out, size - sizeof("kithd"));
    if (n < 0)
        bench_die("/proc/self/exe: %s", strerror(errno));
    out[n] = 0;
    strcpy(strrchr(out, '/') + 1, "kithd");
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static _Noreturn void run_daemon(const struct bench_daemon *d, unsigned threads)
{
    char path[4096];
    char count[16];
    daemon_path(path, sizeof(path));
    snprintf(count, sizeof(count), "%u", threads);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char log[300];
    snprintf(log, sizeof(log), "%s/kithd.log", d->data_dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0)
        dup2(fd, STDERR_FILENO);
    char data[300];
    snprintf(data, sizeof(data), "%s/data", d->data_dir);
    char config[300];
    snprintf(config, sizeof(config), "%s/kithd.conf", d->data_dir);
    execl(path, "kithd", "--data", data, "--run", d->run_dir, "--threads", count, "--config", config,
          (char *)NULL);
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    _exit(127);
}

static pid_t spawn(const struct bench_daemon *d, unsigned threads)
{
    pid_t pid = fork();
    if (pid == 0)
        run_daemon(d, threads);
    return pid;
}

/* A clean stop writes checkpoints, which nobody will read: it is not part of what is measured. */
static void end(pid_t pid)
{
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

/*
 * Until the benchmark ends (leash), ends kithd and starts it again as it is told; then leaves nothing behind. Answers with
 * the process's number, 0 for none.
 */
static _Noreturn void keep(const struct bench_daemon *d, int leash, unsigned threads)
{
    setsid(); /* Ctrl-C is for the benchmark; the keeper notices its end */
    pid_t pid = spawn(d, threads);
    char command = 0;
    do {
        if (command == KEEPER_END) {
            end(pid);
            pid = 0;
        } else if (command == KEEPER_LEAVE) {
            kill(pid, SIGTERM);
            waitpid(pid, NULL, 0);
            pid = 0;
        } else if (command == KEEPER_START) {
            pid = spawn(d, threads);
        }
        (void)!write(leash, &pid, sizeof(pid));
    } while (read(leash, &command, 1) == 1);
    end(pid);
    remove_tree(d->run_dir);
    remove_tree(d->data_dir);
    _exit(0);
}

static void show_log(const struct bench_daemon *d)
{
    char path[300];
    char line[512];
    snprintf(path, sizeof(path), "%s/kithd.log", d->data_dir);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f))
        fputs(line, stderr);
    if (f)
        fclose(f);
}

static void hear(struct bench_daemon *d)
{
    if (read(d->leash, &d->pid, sizeof(d->pid)) != sizeof(d->pid) || d->pid < 0)
        bench_die("kithd cannot be started");
}

static void tell(struct bench_daemon *d, char command)
{
    if (write(d->leash, &command, 1) != 1)
        bench_die("the keeper of kithd has ended");
    hear(d);
}

static bool answers_within(const struct bench_daemon *d, unsigned wait_ms)
{
    struct kith_error error = { 0 };
    char socket[300];
    snprintf(socket, sizeof(socket), "%s/kithd.sock", d->run_dir);
    for (unsigned waited = 0; waited < wait_ms; waited += 20) {
        char *names = NULL;
        int rc = access(socket, F_OK) == 0 ? kith_list(d->run_dir, &names, &error) : KITH_E_NO_DAEMON;
        free(names);
        if (rc >= 0)
            return true;
        poll(NULL, 0, 20);
    }
    return false;
}

void bench_daemon_await(const struct bench_daemon *d)
{
    uint64_t end_ns = bench_now_ns() + AWAIT_MS * UINT64_C(1000000);
    while (kith_readiness(NULL, d->run_dir, NULL, NULL) != 0) {
        if (bench_now_ns() > end_ns) {
            show_log(d);
            bench_die("kithd does not come back in %s", d->run_dir);
        }
        poll(NULL, 0, 1);
    }
}

double bench_daemon_logged(const struct bench_daemon *d, const char *event, const char *collection,
                           const char *key)
{
    char path[300];
    char line[4096];
    char what[128];
    char who[128];
    char field[64];
    double found = NAN;
    snprintf(path, sizeof(path), "%s/kithd.log", d->data_dir);
    snprintf(what, sizeof(what), " event=%s ", event);
    snprintf(who, sizeof(who), " name=%s ", collection);
    snprintf(field, sizeof(field), " %s=", key);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f)) {
        const char *at = strstr(line, what) && strstr(line, who) ? strstr(line, field) : NULL;
        if (at)
            found = strtod(at + strlen(field), NULL);
    }
    if (f)
        fclose(f);
    return found;
}

double bench_daemon_cpu(const struct bench_daemon *d)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(d->pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        bench_die("kithd has ended");
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void configure(const struct bench_daemon *d, const char *text)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/kithd.conf", d->data_dir);
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0)
        bench_die("%s: %s", path, strerror(errno));
}

void bench_daemon_start(struct bench_daemon *d, unsigned threads)
{
    bench_daemon_start_with(d, threads, "");
}

void bench_daemon_start_with(struct bench_daemon *d, unsigned threads, const char *config)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(d->run_dir, sizeof(d->run_dir), "/dev/shm/kith-bench-XXXXXX");
    snprintf(d->data_dir, sizeof(d->data_dir), "%s/kith-bench-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(d->run_dir))
        bench_die("%s: %s", d->run_dir, strerror(errno));
    if (!mkdtemp(d->data_dir))
        bench_die("%s: %s", d->data_dir, strerror(errno));
    char data[300];
    snprintf(data, sizeof(data), "%s/data", d->data_dir);
    if (mkdir(data, 0700) != 0)
        bench_die("%s: %s", data, strerror(errno));
    configure(d, config);
    int leash[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, leash) != 0)
        bench_die("socketpair: %s", strerror(errno));
    fflush(NULL);
    d->keeper = fork();
    if (d->keeper == 0) {
        close(leash[1]);
        keep(d, leash[0], threads);
    }
    close(leash[0]);
    d->leash = leash[1];
    if (d->keeper < 0)
        bench_die("fork: %s", strerror(errno));
    hear(d);
    if (!answers_within(d, START_WAIT_MS)) {
        show_log(d);
        bench_die("kithd does not answer in %s", d->run_dir);
    }
}

void bench_daemon_kill(struct bench_daemon *d)
{
    tell(d, KEEPER_END);
}

void bench_daemon_leave(struct bench_daemon *d)
{
    tell(d, KEEPER_LEAVE);
}

void bench_daemon_again(struct bench_daemon *d)
{
    tell(d, KEEPER_START);
}

void bench_daemon_stop(struct bench_daemon *d)
{
    close(d->leash);
    waitpid(d->keeper, NULL, 0);
}

void bench_daemon_pin(const struct bench_daemon *d, int cpu)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)d->pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        bench_die("%s: %s", path, strerror(errno));
    for (struct dirent *e; (e = readdir(tasks));) {
        if (e->d_name[0] != '.')
            bench_pin_task((pid_t)strtol(e->d_name, NULL, 10), cpu);
    }
    closedir(tasks);
}

void bench_daemon_settle(const struct bench_daemon *d)
{
    clockid_t clock;
    struct timespec t;
    double before = -1;
    if (clock_getcpuclockid(d->pid, &clock) != 0)
        bench_die("kithd has ended");
    for (unsigned i = 0; i < SETTLE_STEPS && clock_gettime(clock, &t) == 0; i++) {
        double ms = (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
        if (before >= 0 && ms - before < IDLE_SHARE * SETTLE_STEP_MS)
            return;
        before = ms;
        poll(NULL, 0, SETTLE_STEP_MS);
    }
}

void bench_daemon_create(const struct bench_daemon *d, const struct bench_set *set,
                         const struct bench_options *o, const struct bench_config *config)
{
    struct kith_error error = { 0 };
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    opts.dim = set->dim;
    opts.metric = set->metric;
    opts.m = o->m;
    opts.ef_construction = o->ef_construction;
    opts.quantization = config->quantization;
    opts.keep = config->keep;
    opts.run_dir = d->run_dir;
    opts.error = &error;
    int rc = kith_create(config->name, &opts);
    if (rc < 0)
        bench_die("create %s: %s", config->name, error.text[0] ? error.text : kith_strerror(rc));
}

void bench_daemon_drop(const struct bench_daemon *d, const struct bench_config *config)
{
    struct kith_error error = { 0 };
    int rc = kith_drop(config->name, d->run_dir, &error);
    if (rc < 0)
        bench_die("drop %s: %s", config->name, error.text[0] ? error.text : kith_strerror(rc));
}

/* Take one answer, waiting for it; false when none is outstanding. */
static bool take_answer(kith_pipe *pipe)
{
    uint64_t token;
    int status;
    struct kith_commit commit = { .struct_size = sizeof(commit) };
    int rc = kith_pipe_next(pipe, -1, &token, &status, &commit);
    if (rc < 0)
        bench_die("load: %s", kith_strerror(rc));
    if (rc > 0 && status < 0)
        bench_die("batch %llu: %s", (unsigned long long)token, commit.error.text);
    return rc > 0;
}

double bench_daemon_load(const struct bench_daemon *d, const struct bench_set *set,
                         const struct bench_config *config)
{
    kith *index;
    kith_pipe *pipe;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = d->run_dir;
    int rc = kith_open(config->name, &opts, &index);
    if (rc == 0)
        rc = kith_pipe_open(index, LOAD_DEPTH, &pipe);
    if (rc < 0)
        bench_die("load: %s", kith_strerror(rc));
    kith_batch *batch = kith_batch_new(index);
    if (!batch)
        bench_die("out of memory");

    uint32_t fit = (uint32_t)(LOAD_BYTES / (set->dim * sizeof(float)));
    uint32_t batch_max = fit < LOAD_BATCH ? fit : LOAD_BATCH;
    uint64_t begin = bench_now_ns();
    for (uint32_t i = 0; i < set->base_count;) {
        kith_batch_clear(batch);
        for (uint32_t j = 0; j < batch_max && i < set->base_count; i++, j++) {
            char id[16];
            snprintf(id, sizeof(id), "%u", i);
            rc = kith_batch_upsert(batch, id, bench_set_base(set, i), set->dim);
            if (rc < 0)
                bench_die("row %u: %s", i, kith_strerror(rc));
        }
        while (kith_pipe_pending(pipe) >= LOAD_DEPTH)
            take_answer(pipe);
        rc = kith_pipe_submit(pipe, batch, i);
        if (rc < 0)
            bench_die("load: %s", kith_strerror(rc));
    }
    while (kith_pipe_pending(pipe) > 0 && take_answer(pipe)) {
    }
    double seconds = (double)(bench_now_ns() - begin) / 1e9;

    kith_batch_free(batch);
    kith_pipe_close(pipe);
    kith_close(index);
    return seconds;
}
