/*
 * crash_fail.c - the k-th system call of kithd fails, or its k-th allocation: what then?
 *
 *   crash_fail [--scenarios NAME,...] [--range FIRST:COUNT] [--share N] [--tally FILE]
 *   crash_fail --only SCENARIO:IO:CLASS:MODE:WAY:K
 *
 * A library stands before kithd's others and lets calls fail (fail/fail.h). For each scenario, with io_uring and without, k
 * is 1, 2, ... until one is not reached any more. Each call fails in every way that it has (an error, another one, a
 * short transfer) once, then with that call failing from then on, then with everything failing from then on.
 *
 *   fresh       start-up in empty directories
 *   adopt       start-up with a segment to adopt
 *   cold        start-up with a checkpoint and a log and no segment
 *   recover     start-up after a kill, with what it leaves behind at its worst moments
 *   load        create, upserts, deletes, growth, the change to another log file, drop
 *   checkpoint  two checkpoints with writes between them
 *   stop        SIGTERM, with the last checkpoint
 *
 * kithd must not die of a signal or hang. Either it goes on, and then a later write succeeds, nothing is kept open, and what
 * readers see is right; or it leaves with a status and a line of its log that has the error's words and
 * says what failed. After a start without failures all that was acknowledged is there, nothing half, nothing that was refused,
 * verify is clean and no file is left over.
 *
 *   --range FIRST:COUNT  these k only
 *   --share N            every N-th k; 1: all of them
 *   --tally FILE         a line a k is appended; what stands in it is done, and the sum is over all of it
 *
 * Without options: what was found so far, and some k of each scenario for a while, chosen by KITH_SEED; with KITH_TEST_LONG=1 all of them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/fail/fail.h"
#include "tests/crash/fail/ledger.h"
#include "tests/crash/fail/place.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"

#define READY_MS     120000u
#define EXIT_MS      120000u
#define SCRIPT_MS    120000u /* what a client waits for that talks to a kithd that fails */
#define LEAK_MS      5000u
#define GO_ON_TRIES  12u
#define GO_ON_NAP_MS 250u
#define SHORT_MS     8000u /* of the short form, beyond one k for each */
#define PATH_SIZE    (2 * TEST_PATH_SIZE)
#define LOG_SIZE     (256u << 10)

enum scenario { FRESH, ADOPT, COLD, RECOVER, LOAD, CHECKPOINT, STOP, SCENARIO_COUNT };
enum io_kind { IO_URING, IO_THREADS, IO_KIND_COUNT };
enum template { NOTHING, KILLED, STOPPED, TEMPLATE_COUNT };

static const char *const scenario_names[] = { "fresh", "adopt",      "cold", "recover",
                                              "load",  "checkpoint", "stop" };
static const char *const io_names[] = { "uring", "threads" };
static const char *const class_names[] = { "system", "memory" };
static const char *const mode_names[] = { "once", "same", "all" };

struct point { /* what is tried */
    enum scenario scenario;
    enum io_kind io;
    enum fail_class what;
    enum fail_mode mode;
    uint32_t way;
    uint64_t at;
    const char *only, *only_path; /* NULL: of all calls, else of those with this name and path */
};

struct figures {
    uint64_t points, runs, left, went_on, bad;
};

struct world {
    struct test_daemon d;
    char data[PATH_SIZE], run[PATH_SIZE], control_path[PATH_SIZE];
    struct fail_control *control;
    struct test_dir templates;
    struct ledger base, *ledger;
    off_t log_from;
    unsigned fds[SCENARIO_COUNT][IO_KIND_COUNT]; /* that a run without failures has open at its end */
    bool show;                                   /* what kithd says while things fail */
    char log[LOG_SIZE];
};

static struct world world;

static bool is_start(enum scenario s)
{
    return s <= RECOVER;
}

static void point_name(const struct point *p, char out[128])
{
    snprintf(out, 128, "%s:%s:%s:%s:%u:%" PRIu64, scenario_names[p->scenario], io_names[p->io],
             class_names[p->what], mode_names[p->mode], p->way, p->at);
}

/* ---- the daemon ---- */

static void spawn(struct world *w, const struct point *p)
{
    struct stat st;
    w->log_from = stat(w->d.log, &st) == 0 ? st.st_size : 0;
    if (p) {
        setenv("LD_PRELOAD", getenv("KITH_TEST_FAIL_SHIM"), 1);
        setenv(FAIL_ENVIRONMENT, w->control_path, 1);
        setenv("KITH_IO", io_names[p->io], 1);
        /* Without io_uring by force where the point is what kithd does when it is not to be had. */
        if (is_start(p->scenario) && p->io == IO_URING)
            unsetenv("KITH_IO");
    }
    test_daemon_spawn(&w->d);
    unsetenv("LD_PRELOAD");
    unsetenv(FAIL_ENVIRONMENT);
    unsetenv("KITH_IO");
}

/* What it has said since it was started. */
static const char *logged(struct world *w)
{
    int fd = open(w->d.log, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : pread(fd, w->log, sizeof w->log - 1, w->log_from);
    if (fd >= 0)
        close(fd);
    w->log[n > 0 ? n : 0] = 0;
    return w->log;
}

enum end { READY, LEFT, HUNG };

/* Until it serves, without asking it anything. */
static enum end wait_ready(struct world *w, int *status)
{
    uint64_t end = test_now_ms() + READY_MS;
    while (!strstr(logged(w), "event=ready")) {
        if (!test_daemon_alive(&w->d, status))
            return LEFT;
        if (test_now_ms() > end)
            return HUNG;
        test_nap();
    }
    return READY;
}

static bool wait_end(struct world *w, int *status, uint64_t ms)
{
    uint64_t end = test_now_ms() + ms;
    while (test_daemon_alive(&w->d, status)) {
        if (test_now_ms() > end)
            return false;
        test_nap();
    }
    return true;
}

/* ---- templates ---- */

static void template_path(const struct world *w, enum template t, const char *what, char out[PATH_SIZE])
{
    snprintf(out, PATH_SIZE, "%.200s/%u-%s", w->templates.path, (unsigned)t, what);
}

static void template_keep(struct world *w, enum template t)
{
    char path[PATH_SIZE];
    template_path(w, t, "data", path);
    mkdir(path, 0700);
    place_copy(w->data, path);
    template_path(w, t, "run", path);
    mkdir(path, 0700);
    place_copy(w->run, path);
}

static void template_lay(struct world *w, const struct point *p)
{
    static const enum template of[] = {
        [FRESH] = NOTHING, [ADOPT] = STOPPED,      [COLD] = KILLED, [RECOVER] = KILLED,
        [LOAD] = STOPPED,  [CHECKPOINT] = STOPPED, [STOP] = STOPPED
    };
    enum template t = of[p->scenario];
    char path[PATH_SIZE];
    place_empty(w->data);
    place_empty(w->run);
    memcpy(w->ledger, &w->base, sizeof w->base);
    if (t == NOTHING) {
        memset(w->ledger, 0, sizeof *w->ledger);
        return;
    }
    template_path(w, t, "data", path);
    place_copy(path, w->data);
    if (p->scenario != COLD) {
        template_path(w, t, "run", path);
        place_copy(path, w->run);
    }
    if (p->scenario == RECOVER)
        place_leave(w->data, w->run);
}

/* One collection, a checkpoint of it, and a log after that. */
static void templates_make(struct world *w)
{
    struct ledger_client c;
    test_dir_make_shm(&w->templates);
    if (test_daemon_start(&w->d) < 0)
        exit(1);
    ledger_client_init(&c, w->ledger, w->run, w->data);
    if (ledger_create(&c, LEDGER_MAIN) || ledger_put(&c, LEDGER_MAIN, 0, 60, 1) ||
        ledger_checkpoint(&c, LEDGER_MAIN) || ledger_put(&c, LEDGER_MAIN, 30, 50, 2) ||
        ledger_delete(&c, LEDGER_MAIN, 70, 5))
        test_die("the first collection cannot be made");
    ledger_client_fini(&c);
    test_daemon_kill(&w->d);
    template_keep(w, KILLED);
    if (test_daemon_start(&w->d) < 0 || test_daemon_stop(&w->d) != 0)
        exit(1);
    template_keep(w, STOPPED);
    memcpy(&w->base, w->ledger, sizeof w->base);
}

/* ---- what the client does ---- */

static void arm(struct world *w)
{
    atomic_store(&w->control->armed, 1u << FAIL_SYSTEM | 1u << FAIL_MEMORY);
}

static bool is_gone(int rc)
{
    return rc == KITH_E_NO_DAEMON || rc == KITH_E_LOG_FAILED;
}

/* The daemon still serves: everything works again, at the latest after a while. */
static bool goes_on(struct ledger_client *c, enum scenario s)
{
    int rc = -1;
    for (unsigned i = 0; i < GO_ON_TRIES && rc < 0 && !is_gone(rc); i++) {
        if (i)
            usleep(1000 * GO_ON_NAP_MS);
        /* Of a fresh start there is no collection yet. */
        rc = s == FRESH && !c->handles[LEDGER_MAIN] ? ledger_create(c, LEDGER_MAIN) : 0;
        if (rc == 0)
            rc = ledger_put(c, LEDGER_MAIN, 690, 5, i + 1);
    }
    for (unsigned i = 0; i < GO_ON_TRIES && rc == 0 && s == CHECKPOINT; i++) {
        rc = ledger_checkpoint(c, LEDGER_MAIN);
        if (rc == 0)
            break;
        usleep(1000 * GO_ON_NAP_MS);
        rc = i + 1 < GO_ON_TRIES ? 0 : rc;
    }
    return rc == 0;
}

static void script_load(struct ledger_client *c)
{
    ledger_create(c, LEDGER_SIDE);
    ledger_put(c, LEDGER_SIDE, 0, 10, 1);
    for (uint32_t i = 0; i < 4; i++) /* more than a log file of 1 MiB */
        ledger_put(c, LEDGER_MAIN, 80 + 140 * i, 140, 1);
    ledger_put(c, LEDGER_MAIN, 0, 1, 3);
    ledger_delete(c, LEDGER_MAIN, 100, 40);
    ledger_put(c, LEDGER_MAIN, 100, 10, 4);
    ledger_drop(c, LEDGER_SIDE);
    ledger_create(c, LEDGER_SIDE);
    ledger_put(c, LEDGER_SIDE, 5, 10, 2);
}

static void script_checkpoint(struct ledger_client *c)
{
    ledger_put(c, LEDGER_MAIN, 200, 20, 1);
    ledger_checkpoint(c, LEDGER_MAIN);
    ledger_delete(c, LEDGER_MAIN, 0, 10);
    ledger_put(c, LEDGER_MAIN, 205, 20, 2);
    ledger_checkpoint(c, LEDGER_MAIN);
}

enum { WENT_ON, STUCK = 3 };

struct script {
    const struct point *p;
    struct world *w;
};

/* In a process of its own, which may hang when kithd does. */
static int script_role(void *arg)
{
    const struct script *s = arg;
    const struct point *p = s->p;
    struct world *w = s->w;
    struct ledger_client c;
    ledger_client_init(&c, w->ledger, w->run, w->data);
    if (!is_start(p->scenario)) {
        ledger_put(&c, LEDGER_MAIN, 680, 2, 1); /* its socket is there before anything fails */
        if (p->scenario == LOAD)
            ledger_put(&c, LEDGER_MAIN, 682, 2, 1);
        atomic_store(&w->control->tiny_log, 0);
        arm(w);
    }
    if (p->scenario == LOAD)
        script_load(&c);
    else if (p->scenario == CHECKPOINT)
        script_checkpoint(&c);
    else if (p->scenario != FRESH && !is_start(p->scenario))
        ledger_put(&c, LEDGER_MAIN, 300, 3, 1);
    bool open_end = p->mode != FAIL_ONCE && atomic_load(&w->control->failed);
    if (!open_end && p->scenario != STOP)
        atomic_store(&w->control->armed, 0);
    bool on = p->scenario == STOP || open_end || goes_on(&c, p->scenario);
    if (open_end && is_start(p->scenario) && p->scenario != FRESH)
        ledger_put(&c, LEDGER_MAIN, 690, 5, 1);
    ledger_client_fini(&c);
    return on ? WENT_ON : STUCK;
}

/* ---- judging ---- */

static bool bad(const struct world *w, const struct point *p, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool bad(const struct world *w, const struct point *p, const char *fmt, ...)
{
    const struct fail_control *c = w->control;
    char name[128];
    va_list ap;
    point_name(p, name);
    fprintf(stderr, "BAD %s: %s%s%s at %s+0x%" PRIx64 " failed (%s): ", name, c->name, c->path[0] ? " " : "",
            c->path, c->object, c->caller, c->error == FAIL_SHORT ? "short" : strerrorname_np(c->error));
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
    return false;
}

/* Does it have the words of something that was made to fail? */
static bool has_words(const struct fail_control *c, const char *line)
{
    if (c->error == FAIL_SHORT)
        return true;
    /* A thread whose block the loader cannot allocate is EAGAIN by the time pthread_create() returns. */
    if (c->what == FAIL_MEMORY && strncmp(c->object, "ld-", 3) == 0 && strstr(line, strerror(EAGAIN)))
        return true;
    for (int e = 1; e < 256; e++) {
        if (!(atomic_load(&c->errors[e / 64]) >> e % 64 & 1))
            continue;
        const char *name = strerrorname_np(e);
        if (strstr(line, strerror(e)) || (name && strstr(line, name)) ||
            (e == ENOMEM && (strstr(line, "no memory") || strstr(line, "out of memory"))) ||
            (e == ENOSPC && (strstr(line, "no room") || strstr(line, "NO_SPACE"))))
            return true;
    }
    return false;
}

/* Does it name the file that could not be used, or its directory, or the collection? */
static bool has_place(const struct fail_control *c, const char *line)
{
    char dir[FAIL_PATH_SIZE];
    if (c->path[0] != '/' || strncmp(c->path, "/proc/", 6) == 0 || strncmp(c->path, "/sys/", 5) == 0)
        return strlen(line) > 60; /* it says more than the error */
    snprintf(dir, sizeof dir, "%s", c->path);
    *strrchr(dir, '/') = 0;
    return strstr(line, dir) != NULL;
}

static bool is_error(const char *line)
{
    return strstr(line, "level=error") || strncmp(line, "kithd: ", 7) == 0;
}

/*
 * A line of an error that has these words; that line or another one names the place. In the other modes what fails last may
 * be elsewhere.
 */
static bool is_explained(struct world *w, const struct point *p)
{
    char *save = NULL;
    bool words = false, place = p->mode != FAIL_ONCE;
    logged(w);
    for (char *line = strtok_r(w->log, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (!is_error(line))
            continue;
        words |= has_words(w->control, line) && strlen(line) > 60;
        place |= has_place(w->control, line) || strstr(line, "name=main ") || strstr(line, "name=side ");
    }
    return words && place;
}

/* The next file of a log is there or is not, by how much was written. */
static bool is_spare(const char *target)
{
    const char *name = strrchr(target, '/');
    return name && strcmp(name, "/spare") == 0;
}

static unsigned count_fds(pid_t pid, bool show)
{
    char path[64], target[PATH_SIZE];
    unsigned n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        ssize_t len = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
        target[len > 0 ? len : 0] = 0;
        n += !is_spare(target);
        if (show)
            fprintf(stderr, "  %s %s\n", e->d_name, target);
    }
    closedir(d);
    return n;
}

/* More descriptors than without a failure, and for long. */
static bool leaks(struct world *w, const struct point *p)
{
    uint64_t end = test_now_ms() + LEAK_MS;
    unsigned limit = w->fds[p->scenario][p->io];
    while (count_fds(w->d.pid, false) > limit) {
        if (test_now_ms() > end) {
            count_fds(w->d.pid, true);
            return true;
        }
        test_nap();
    }
    return false;
}

static bool left_well(struct world *w, const struct point *p, int status, bool asked)
{
    if (WIFSIGNALED(status))
        return bad(w, p, "kithd died of signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) == 0 && !asked)
        return bad(w, p, "kithd left with status 0, though nobody asked");
    if (WEXITSTATUS(status) != 0 && !is_explained(w, p))
        return bad(w, p, "kithd left with status %d and no line says why and where", WEXITSTATUS(status));
    return true;
}

/* After it has gone: a start without failures brings everything back. */
static bool comes_back(struct world *w, const struct point *p)
{
    int status = 0;
    spawn(w, NULL);
    switch (wait_ready(w, &status)) {
    case LEFT: return bad(w, p, "kithd does not start again (status 0x%x)", (unsigned)status);
    case HUNG: return bad(w, p, "kithd does not come up again");
    default: break;
    }
    if (!ledger_holds(w->ledger, w->run, w->data))
        return bad(w, p, "after the next start it is not as acknowledged");
    if (!place_tidy(w->data, w->run))
        return bad(w, p, "the next start leaves files behind");
    return true;
}

/* The part that may fail; *out_left: it went by itself. */
static bool endure(struct world *w, const struct point *p, bool *out_left)
{
    int status = 0;
    struct test_child child;
    struct script script = { p, w };
    spawn(w, p);
    enum end end = wait_ready(w, &status);
    *out_left = end == LEFT;
    if (end == HUNG)
        return bad(w, p, "kithd neither comes up nor leaves");
    if (end == LEFT)
        return left_well(w, p, status, false);
    if (is_start(p->scenario) && (p->mode == FAIL_ONCE || !atomic_load(&w->control->failed)))
        atomic_store(&w->control->armed, 0);

    test_child_start(&child, "client", script_role, &script);
    uint64_t until = test_now_ms() + SCRIPT_MS;
    while (test_child_running(&child) && test_now_ms() < until)
        test_nap();
    bool hung = test_child_running(&child);
    int rc = -1;
    if (hung) {
        kill(child.pid, SIGKILL);
        waitpid(child.pid, NULL, 0);
        if (p->mode == FAIL_ONCE)
            return bad(w, p, "a client waits for its answer in vain");
    } else {
        rc = test_child_wait(&child, 1000);
    }
    if (w->ledger->bad[0])
        return bad(w, p, "%s", w->ledger->bad);
    if (!test_daemon_alive(&w->d, &status)) {
        *out_left = true;
        return left_well(w, p, status, false);
    }
    /* One that is about to leave shuts its socket first. */
    if (p->mode == FAIL_ONCE && rc != WENT_ON) {
        if (!wait_end(w, &status, EXIT_MS))
            return bad(w, p, "kithd lives, and does not go on");
        *out_left = true;
        return left_well(w, p, status, false);
    }
    /* Files of a drop that could not be removed yet, as it says, are there until the next start. */
    bool left_files = strstr(logged(w), "event=drop-left-files") != NULL;
    if (!left_files && !ledger_holds(w->ledger, w->run, NULL))
        return bad(w, p, "what readers see is not as acknowledged");
    unsigned *fds = &w->fds[p->scenario][p->io];
    if (p->at == 0) {
        unsigned now = count_fds(w->d.pid, false);
        *fds = now > *fds ? now : *fds;
    } else if (p->mode == FAIL_ONCE && leaks(w, p)) {
        return bad(w, p, "descriptors stay open");
    }
    kill(w->d.pid, SIGTERM);
    if (!wait_end(w, &status, EXIT_MS))
        return bad(w, p, "kithd does not stop");
    if (!left_well(w, p, status, true))
        return false;
    if (p->mode == FAIL_ONCE && p->scenario != STOP && WEXITSTATUS(status) != 0)
        return bad(w, p, "kithd went on, and stopped with status %d", WEXITSTATUS(status));
    return true;
}

/* One run. False: bad. *out_reached: the call was. */
static bool run(struct world *w, const struct point *p, bool *out_reached, bool *out_left)
{
    struct fail_control *c = w->control;
    template_lay(w, p);
    memset(c, 0, sizeof *c);
    c->what = p->what;
    c->mode = p->mode;
    c->way = p->way;
    c->at = p->at;
    if (p->only) {
        snprintf(c->only, sizeof c->only, "%s", p->only);
        snprintf(c->only_path, sizeof c->only_path, "%s", p->only_path);
    }
    atomic_store(&c->tiny_log, !is_start(p->scenario));
    atomic_store(&c->backwards, p->at == 0); /* of the time of day nothing depends on */
    atomic_store(&c->begin, is_start(p->scenario) ? 1u << FAIL_SYSTEM | 1u << FAIL_MEMORY : 0);
    bool ok = endure(w, p, out_left);
    if (!ok || w->show)
        fprintf(stderr, "---- log ----\n%s---- end ----\n", logged(w));
    test_daemon_kill(&w->d);
    *out_reached = atomic_load(&c->failed) > 0;
    if (ok && !*out_reached && *out_left)
        ok = bad(w, p, "kithd left although nothing failed");
    if (ok && !comes_back(w, p)) {
        ok = false;
        fprintf(stderr, "---- log ----\n%s---- end ----\n", logged(w));
    }
    test_daemon_kill(&w->d);
    return ok;
}

/* ---- all ways of one k ---- */

static void count_run(struct figures *f, bool ok, bool left)
{
    f->runs++;
    f->left += left;
    f->went_on += !left;
    f->bad += !ok;
}

/* False when the scenario ends before. */
static bool try_point(struct world *w, struct point p, struct figures *out, char name[FAIL_NAME_SIZE])
{
    bool reached = false, left = false;
    uint32_t ways = 1;
    memset(out, 0, sizeof *out);
    p.mode = FAIL_ONCE;
    for (p.way = 0; p.way < ways; p.way++) {
        bool ok = run(w, &p, &reached, &left);
        if (!reached && p.way == 0)
            return !ok;
        count_run(out, ok, left);
        if (p.way == 0) {
            ways = w->control->ways;
            snprintf(name, FAIL_NAME_SIZE, "%s", w->control->name);
        }
    }
    p.way = 0;
    /* Of memory, all of it is what is the same. */
    for (p.mode = p.what == FAIL_MEMORY ? FAIL_ALL : FAIL_SAME; p.mode < FAIL_MODE_COUNT; p.mode++) {
        bool ok = run(w, &p, &reached, &left);
        count_run(out, ok, left);
    }
    out->points = 1;
    return true;
}

/* Without failures, but with a clock that goes backwards: how many calls there are, and how many descriptors. */
static bool measure(struct world *w, struct point p, uint64_t out_count[FAIL_CLASS_COUNT])
{
    bool reached, left;
    p.at = 0;
    p.mode = FAIL_ONCE;
    bool ok = run(w, &p, &reached, &left);
    for (unsigned i = 0; i < FAIL_CLASS_COUNT; i++)
        out_count[i] = atomic_load(&w->control->count[i]);
    return ok && !left;
}

/* ---- the tally: a line a k ---- */

struct sums {
    struct figures of[SCENARIO_COUNT][FAIL_CLASS_COUNT];
};

static void add(struct sums *s, const struct point *p, const struct figures *f)
{
    struct figures *to = &s->of[p->scenario][p->what];
    to->points += f->points;
    to->runs += f->runs;
    to->left += f->left;
    to->went_on += f->went_on;
    to->bad += f->bad;
}

static int index_of(const char *name, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

static bool tally_line(const char *line, struct point *p, struct figures *f)
{
    char scenario[16], io[16], what[16], name[FAIL_NAME_SIZE + 1];
    memset(f, 0, sizeof *f);
    if (sscanf(line,
               "%15s %15s %15s %" SCNu64 " %32s points %" SCNu64 " runs %" SCNu64 " left %" SCNu64
               " on %" SCNu64 " bad %" SCNu64,
               scenario, io, what, &p->at, name, &f->points, &f->runs, &f->left, &f->went_on, &f->bad) != 10)
        return false;
    int a = index_of(scenario, scenario_names, SCENARIO_COUNT), b = index_of(io, io_names, IO_KIND_COUNT),
        c = index_of(what, class_names, FAIL_CLASS_COUNT);
    if (a < 0 || b < 0 || c < 0)
        return false;
    p->scenario = (enum scenario)a;
    p->io = (enum io_kind)b;
    p->what = (enum fail_class)c;
    return true;
}

/* Add up what stands in it; whether p is among that. */
static bool tally_read(const char *path, const struct point *p, struct sums *sums)
{
    char line[256];
    struct point one;
    struct figures f;
    bool known = false;
    FILE *file = fopen(path, "r");
    memset(sums, 0, sizeof *sums);
    while (file && fgets(line, sizeof line, file)) {
        if (!tally_line(line, &one, &f))
            test_die("%s: this is not a line of a tally: %s", path, line);
        add(sums, &one, &f);
        known |=
            p && one.scenario == p->scenario && one.io == p->io && one.what == p->what && one.at == p->at;
    }
    if (file)
        fclose(file);
    return known;
}

static void tally_add(const char *path, const struct point *p, const struct figures *f, const char *name)
{
    FILE *file = fopen(path, "a");
    if (!file)
        test_die("%s: %s", path, strerror(errno));
    fprintf(file,
            "%s %s %s %" PRIu64 " %s points %" PRIu64 " runs %" PRIu64 " left %" PRIu64 " on %" PRIu64
            " bad %" PRIu64 "\n",
            scenario_names[p->scenario], io_names[p->io], class_names[p->what], p->at, name, f->points,
            f->runs, f->left, f->went_on, f->bad);
    if (fclose(file) != 0)
        test_die("%s: %s", path, strerror(errno));
}

static uint64_t print_sums(const struct sums *s)
{
    struct figures all = { 0 };
    printf("%-18s %8s %8s %8s %8s %5s\n", "", "calls", "runs", "left", "went on", "bad");
    for (unsigned i = 0; i < SCENARIO_COUNT; i++)
        for (unsigned j = 0; j < FAIL_CLASS_COUNT; j++) {
            const struct figures *f = &s->of[i][j];
            all.points += f->points;
            all.runs += f->runs;
            all.left += f->left;
            all.went_on += f->went_on;
            all.bad += f->bad;
            if (f->runs)
                printf("%-10s %-7s %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %5" PRIu64 "\n",
                       scenario_names[i], class_names[j], f->points, f->runs, f->left, f->went_on, f->bad);
        }
    printf("%-18s %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %5" PRIu64 "\n", "all", all.points,
           all.runs, all.left, all.went_on, all.bad);
    return all.bad;
}

/* ---- the forms ---- */

struct options {
    const char *scenarios, *tally, *only;
    uint64_t first, count, share;
};

static bool is_wanted(const struct options *o, enum scenario s)
{
    const char *name = scenario_names[s];
    const char *at = o->scenarios ? strstr(o->scenarios, name) : name;
    return at != NULL;
}

static void all_points(struct world *w, const struct options *o, struct sums *sums)
{
    struct point p;
    uint64_t counts[FAIL_CLASS_COUNT];
    memset(&p, 0, sizeof p);
    for (p.scenario = 0; p.scenario < SCENARIO_COUNT; p.scenario++) {
        for (p.io = 0; p.io < IO_KIND_COUNT && is_wanted(o, p.scenario); p.io++) {
            if (!measure(w, p, counts))
                exit(1);
            printf("%s, %s: %" PRIu64 " system calls, %" PRIu64 " allocations\n", scenario_names[p.scenario],
                   io_names[p.io], counts[FAIL_SYSTEM], counts[FAIL_MEMORY]);
            fflush(stdout);
            for (p.what = 0; p.what < FAIL_CLASS_COUNT; p.what++) {
                for (p.at = o->first; p.at < o->first + o->count; p.at += o->share) {
                    struct figures f;
                    char name[FAIL_NAME_SIZE] = "-";
                    if (o->tally && tally_read(o->tally, &p, sums))
                        continue;
                    if (!try_point(w, p, &f, name))
                        break;
                    if (o->tally)
                        tally_add(o->tally, &p, &f, name);
                    else
                        add(sums, &p, &f);
                }
            }
        }
    }
    if (o->tally)
        tally_read(o->tally, NULL, sums);
}

/* What was found, each by its call. */
static void found_points(struct world *w, const struct options *o, struct sums *sums)
{
    static const struct point found[] = {
        /* kithd could not be stopped any more. */
        { FRESH, IO_THREADS, FAIL_SYSTEM, FAIL_ONCE, 0, 1, "epoll_ctl", "signalfd" },
        /* It served without the collection, whose segment was set aside. */
        { ADOPT, IO_THREADS, FAIL_SYSTEM, FAIL_ONCE, 0, 1, "lstat", "data/main" },
        /* A create without a helper thread was acknowledged, and there was none; the thread is started at the start now. */
        { FRESH, IO_URING, FAIL_SYSTEM, FAIL_SAME, 0, 1, "pthread_create", "" },
    };
    for (unsigned i = 0; i < sizeof found / sizeof *found; i++) {
        struct figures f = { .points = 1 };
        bool reached, left;
        if (!is_wanted(o, found[i].scenario))
            continue;
        bool ok = run(w, &found[i], &reached, &left);
        count_run(&f, ok && reached, left);
        add(sums, &found[i], &f);
        if (!reached)
            fprintf(stderr, "BAD %s: %s %s is not called any more\n", scenario_names[found[i].scenario],
                    found[i].only, found[i].only_path);
    }
}

/* One of each, then more for as long as there is time. */
static void some_points(struct world *w, const struct options *o, struct sums *sums)
{
    static uint64_t counts[SCENARIO_COUNT][IO_KIND_COUNT][FAIL_CLASS_COUNT];
    struct test_rand r;
    struct point p;
    test_rand_seed(&r, test_seed());
    uint64_t end = 0;
    for (unsigned round = 0; round == 0 || test_now_ms() < end; round++) {
        memset(&p, 0, sizeof p);
        for (p.scenario = 0; p.scenario < SCENARIO_COUNT; p.scenario++)
            for (p.io = 0; p.io < IO_KIND_COUNT && is_wanted(o, p.scenario); p.io++)
                for (p.what = 0; p.what < FAIL_CLASS_COUNT && (round == 0 || test_now_ms() < end); p.what++) {
                    bool reached, left;
                    struct figures f = { .points = 1 };
                    uint64_t *n = counts[p.scenario][p.io];
                    if (round == 0 && p.what == 0 && !measure(w, p, n))
                        exit(1);
                    p.at = 1 + test_rand_u64(&r) % (n[p.what] ? n[p.what] : 1);
                    p.mode = test_rand_below(&r, FAIL_MODE_COUNT + 1) % FAIL_MODE_COUNT;
                    p.way = 0;
                    if (p.mode == FAIL_ONCE && p.what == FAIL_SYSTEM)
                        p.way = test_rand_below(&r, 3);
                    bool ok = run(w, &p, &reached, &left);
                    count_run(&f, ok, left);
                    add(sums, &p, &f);
                }
        if (round == 0) {
            found_points(w, o, sums);
            end = test_now_ms() + SHORT_MS;
        }
    }
}

static bool parse_only(const char *text, struct point *p)
{
    char scenario[16], io[16], what[16], mode[16];
    if (sscanf(text, "%15[^:]:%15[^:]:%15[^:]:%15[^:]:%u:%" SCNu64, scenario, io, what, mode, &p->way,
               &p->at) != 6)
        return false;
    int a = index_of(scenario, scenario_names, SCENARIO_COUNT), b = index_of(io, io_names, IO_KIND_COUNT),
        c = index_of(what, class_names, FAIL_CLASS_COUNT), d = index_of(mode, mode_names, FAIL_MODE_COUNT);
    if (a < 0 || b < 0 || c < 0 || d < 0)
        return false;
    p->scenario = (enum scenario)a;
    p->io = (enum io_kind)b;
    p->what = (enum fail_class)c;
    p->mode = (enum fail_mode)d;
    return true;
}

static int only_point(struct world *w, const char *text)
{
    struct point p = { 0 };
    uint64_t counts[FAIL_CLASS_COUNT];
    bool reached, left;
    if (!parse_only(text, &p) || !measure(w, p, counts))
        return 2;
    w->show = true;
    bool ok = run(w, &p, &reached, &left);
    printf("%s %s: %s\n", w->control->name, w->control->path,
           !ok        ? "bad"
           : !reached ? "not reached"
           : left     ? "kithd left"
                      : "kithd went on");
    return ok ? 0 : 1;
}

static void world_init(struct world *w)
{
    test_daemon_init(&w->d);
    snprintf(w->data, sizeof w->data, "%.240s/data", w->d.data.path);
    snprintf(w->run, sizeof w->run, "%.240s/run", w->d.run.path);
    snprintf(w->control_path, sizeof w->control_path, "%.240s/control", w->d.run.path);
    int fd = open(w->control_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *w->control) < 0)
        test_die("%s: %s", w->control_path, strerror(errno));
    w->control = mmap(NULL, sizeof *w->control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (w->control == MAP_FAILED)
        test_die("mmap: %s", strerror(errno));
    close(fd);
    w->ledger = test_shared(sizeof *w->ledger);
    templates_make(w);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "scenarios", required_argument, NULL, 's' }, { "range", required_argument, NULL, 'r' },
        { "share", required_argument, NULL, 'n' },     { "tally", required_argument, NULL, 't' },
        { "only", required_argument, NULL, 'o' },      { NULL, 0, NULL, 0 }
    };
    struct options o = { .first = 1, .count = UINT32_MAX, .share = 1 };
    struct sums sums = { 0 };
    bool whole = test_long();
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        bool good = true;
        switch (c) {
        case 's': o.scenarios = optarg; break;
        case 'r':
            good = sscanf(optarg, "%" SCNu64 ":%" SCNu64, &o.first, &o.count) == 2 && o.first > 0;
            whole = true;
            break;
        case 'n':
            good = sscanf(optarg, "%" SCNu64, &o.share) == 1 && o.share > 0;
            whole = true;
            break;
        case 't':
            o.tally = optarg;
            whole = true;
            break;
        case 'o': o.only = optarg; break;
        default: good = false;
        }
        if (!good) {
            fprintf(
                stderr,
                "usage: crash_fail [--scenarios NAME,...] [--range FIRST:COUNT] [--share N] [--tally FILE]\n"
                "       crash_fail --only SCENARIO:IO:CLASS:MODE:WAY:K\n");
            return 2;
        }
    }
    if (!getenv("KITH_TEST_FAIL_SHIM"))
        test_die("KITH_TEST_FAIL_SHIM does not name the library; run this test through ctest, or set it");
    world_init(&world);
    int status = 0;
    if (o.only) {
        status = only_point(&world, o.only);
    } else {
        if (whole)
            all_points(&world, &o, &sums);
        else
            some_points(&world, &o, &sums);
        status = print_sums(&sums) ? 1 : 0;
    }
    test_daemon_fini(&world.d);
    test_dir_remove(&world.templates);
    return status;
}
