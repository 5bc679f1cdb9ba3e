/*
 * test_top.c - kith top against a real kithd: as JSON, as text, and on a terminal, which it leaves as it was found.
 */
#include <kith/kith.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"

#define DIM     4u
#define WAIT_MS 60000u

static struct test_daemon daemon_;
static char run_path[TEST_PATH_SIZE + 8];

static kith *create(const char *name)
{
    struct kith_create_opts create_opts = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    float v[DIM] = { 1 };
    kith *k = NULL;
    create_opts.dim = DIM;
    create_opts.metric = KITH_METRIC_L2;
    create_opts.run_dir = run_path;
    assert_int_equal(kith_create(name, &create_opts), 0);
    opts.run_dir = run_path;
    opts.counters = KITH_COUNTERS_OFF;
    assert_int_equal(kith_open(name, &opts, &k), 0);
    assert_int_equal(kith_upsert(k, "one", v, DIM, NULL), 0);
    return k;
}

static char text[1 << 16]; /* what the last one printed, on stdout or stderr */

/* Run kith --run RUN ARGS...; its exit status. */
static int top(const char *first, ...)
{
    const char *argv[16] = { getenv("KITH_TEST_KITH"), "--run", run_path };
    size_t n = 3, len = 0;
    va_list ap;
    va_start(ap, first);
    for (const char *arg = first; arg != NULL && n < 15; arg = va_arg(ap, const char *))
        argv[n++] = arg;
    va_end(ap);
    int fds[2], status;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        dup2(fds[1], STDERR_FILENO);
        alarm(60);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(126);
    }
    close(fds[1]);
    for (ssize_t got; (got = read(fds[0], text + len, sizeof text - 1 - len)) > 0;)
        len += (size_t)got;
    text[len] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void expect(int status, int wanted, const char *says)
{
    if (status != wanted || !strstr(text, says))
        fail_msg("status %d, not %d, or \"%s\" is not in: %s", status, wanted, says, text);
}

static double member(const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *at = strstr(text, key);
    if (!at)
        fail_msg("%s is not in %s", name, text);
    return strtod(at + strlen(key), NULL);
}

/* ---- a reader ---- */

static int reader_role(void *arg)
{
    _Atomic uint32_t *leave = arg;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    float query[DIM] = { 0 };
    kith *k = NULL;
    opts.run_dir = run_path;
    if (kith_open("c", &opts, &k) != 0)
        return 1;
    kith_results *results = kith_results_new();
    while (!atomic_load(leave)) {
        if (kith_search(k, query, DIM, 1, NULL, results) != 1)
            return 2;
        test_nap();
    }
    kith_results_free(results);
    kith_close(k);
    return 0;
}

static void rates_of_readers_and_writing_are_shown(void **state)
{
    (void)state;
    _Atomic uint32_t *leave = test_shared(sizeof *leave);
    struct test_child child;
    float v[DIM] = { 2 };
    kith *k = create("c");
    test_child_start(&child, "reader", reader_role, leave);
    uint64_t end = test_now_ms() + WAIT_MS;
    do { /* until the reader is at it */
        assert_int_equal(kith_upsert(k, "two", v, DIM, NULL), 0);
        expect(top("--json", "top", "c", "--interval", "0.2", (char *)NULL), 0, "\"name\":\"c\"");
    } while (!(member("searches_per_s") > 0) && test_now_ms() < end);
    assert_true(member("alive") == 1);
    assert_true(member("searches_per_s") > 0);
    assert_true(member("p50_us") > 0);
    assert_true(member("expansions_per_search") >= 1);
    assert_true(member("groups") >= 2);
    assert_true(member("flush_max_us") > 0);
    assert_true(member("uid") == geteuid());
    assert_int_equal(strstr(text, "\"daemon\":true") != NULL, 1);
    assert_int_equal(text[strlen(text) - 1], '\n');
    assert_null(memchr(text, '\n', strlen(text) - 1)); /* one object, one line */

    /* Three, if three are asked for. */
    expect(top("--json", "top", "--interval", "0.1", "--count", "3", (char *)NULL), 0, "\"name\":\"c\"");
    uint32_t lines = 0;
    for (const char *p = text; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    assert_int_equal(lines, 3);

    /* Text for people, one frame when it is not a terminal. */
    expect(top("top", "--interval", "0.2", (char *)NULL), 0, "SEARCHES/s");
    expect(0, 0, "CHECKPOINT");
    expect(0, 0, "FLUSH p99");
    expect(0, 0, "test"); /* the reader's program */
    assert_null(strchr(text, '\x1b'));

    atomic_store(leave, 1);
    assert_int_equal(test_child_wait(&child, WAIT_MS), 0);
    kith_close(k);
    assert_int_equal(kith_drop("c", run_path, NULL), 0);
}

static void without_a_daemon_it_says_what_the_segments_say(void **state)
{
    (void)state;
    kith *k = create("alone");
    test_daemon_kill(&daemon_);
    expect(top("top", "--interval", "0.1", (char *)NULL), 0, "kithd does not answer");
    expect(0, 0, "alone");
    expect(top("--json", "top", "alone", "--interval", "0.1", (char *)NULL), 0,
           "\"daemon\":false,\"problem\":null,\"epoch\":1,\"live\":1,");
    expect(0, 0, "\"groups_per_s\":null");
    expect(0, 0, "\"readers\":null}");
    assert_int_equal(test_daemon_start(&daemon_), 0);
    /* A daemon that is there and says nothing. */
    assert_int_equal(kill(daemon_.pid, SIGSTOP), 0);
    expect(top("top", "alone", "--interval", "0.1", (char *)NULL), 0, "kithd does not answer");
    assert_int_equal(kill(daemon_.pid, SIGCONT), 0);
    kith_close(k);
    assert_int_equal(kith_drop("alone", run_path, NULL), 0);
}

static void what_is_not_there_and_what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    expect(top("top", "nosuch", (char *)NULL), 1, "there is no collection 'nosuch'");
    expect(top("top", "--interval", "0", (char *)NULL), 2, "0.1 seconds at least");
    expect(top("top", "--interval", "nan", (char *)NULL), 2, "takes a number");
    expect(top("top", "--count", "x", (char *)NULL), 2, "takes a whole number");
    expect(top("top", "--interval", "0.1", (char *)NULL), 0, "no collections");
    expect(top("--json", "top", "--interval", "0.1", (char *)NULL), 0, "\"collections\":[]}");
    kith *k = create("c");
    expect(top("top", "c", "c", (char *)NULL), 2, "c is given twice");
    kith_close(k);
    assert_int_equal(kith_drop("c", run_path, NULL), 0);
}

/* ---- on a terminal ---- */

struct view {
    int fd; /* the terminal's other side */
    pid_t pid;
    struct termios before;
    char text[1 << 18];
    size_t len, seen;
};

static void view_open(struct view *v, unsigned short rows)
{
    struct winsize size = { .ws_row = rows, .ws_col = 120 };
    v->len = v->seen = 0;
    v->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (v->fd < 0 || grantpt(v->fd) != 0 || unlockpt(v->fd) != 0) {
        print_message("skipped: no terminals here: %s\n", strerror(errno));
        skip();
    }
    const char *name = ptsname(v->fd);
    int keep = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(keep >= 0);
    assert_int_equal(ioctl(v->fd, TIOCSWINSZ, &size), 0);
    assert_int_equal(tcgetattr(v->fd, &v->before), 0);
    v->pid = fork();
    assert_true(v->pid >= 0);
    if (v->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setsid();
        int tty = open(name, O_RDWR | O_CLOEXEC);
        ioctl(tty, TIOCSCTTY, 0);
        for (int i = 0; i < 3; i++)
            dup2(tty, i);
        setenv("TERM", "xterm", 1);
        execl(getenv("KITH_TEST_KITH"), "kith", "--run", run_path, "top", "--interval", "0.1", (char *)NULL);
        _exit(126);
    }
    close(keep);
}

/* Read on until says comes, after all that was waited for before. */
static void view_await(struct view *v, const char *says)
{
    uint64_t end = test_now_ms() + WAIT_MS;
    for (;;) {
        v->text[v->len] = '\0';
        const char *at = strstr(v->text + v->seen, says);
        if (at) {
            v->seen = (size_t)(at - v->text) + strlen(says);
            return;
        }
        struct pollfd p = { .fd = v->fd, .events = POLLIN };
        if (test_now_ms() > end || v->len + 4096 > sizeof v->text)
            fail_msg("\"%s\" does not come: %s", says, v->text + v->seen);
        if (poll(&p, 1, 100) <= 0)
            continue;
        ssize_t n = read(v->fd, v->text + v->len, 4095);
        if (n <= 0)
            fail_msg("\"%s\" does not come before the end: %s", says, v->text + v->seen);
        v->len += (size_t)n;
        if (v->seen > sizeof v->text / 2) { /* what was looked through is not needed any more */
            memmove(v->text, v->text + v->seen, v->len - v->seen);
            v->len -= v->seen;
            v->seen = 0;
        }
    }
}

/* It ends by itself now, and the terminal is as it was. Its status as of waitpid. */
static int view_end(struct view *v)
{
    struct termios after;
    int status;
    view_await(v, "\x1b[?25h\x1b[?1049l");
    uint64_t end = test_now_ms() + WAIT_MS;
    while (waitpid(v->pid, &status, WNOHANG) == 0) {
        if (test_now_ms() > end) {
            kill(v->pid, SIGKILL);
            fail_msg("it does not end");
        }
        test_nap();
    }
    assert_int_equal(tcgetattr(v->fd, &after), 0);
    assert_int_equal(after.c_lflag, v->before.c_lflag);
    assert_int_equal(after.c_iflag, v->before.c_iflag);
    close(v->fd);
    return status;
}

static void a_terminal_is_drawn_on_and_left_as_it_was(void **state)
{
    (void)state;
    static struct view v;
    struct termios now;
    kith *k = create("c");

    /* q */
    view_open(&v, 40);
    view_await(&v, "\x1b[?1049h\x1b[?25l");
    view_await(&v, "kith top");
    view_await(&v, "SEARCHES/s");
    view_await(&v, "\x1b[Hkith top"); /* the next frame, over the first */
    assert_int_equal(tcgetattr(v.fd, &now), 0);
    assert_int_equal(now.c_lflag & (ICANON | ECHO), 0);
    /* A smaller window shows what fits; a higher one all of it. */
    struct winsize size = { .ws_row = 8, .ws_col = 40 };
    assert_int_equal(ioctl(v.fd, TIOCSWINSZ, &size), 0);
    view_await(&v, "more lines");
    size.ws_row = 50;
    size.ws_col = 120;
    assert_int_equal(ioctl(v.fd, TIOCSWINSZ, &size), 0);
    view_await(&v, "UPKEEP");
    /* Collections come and go. */
    kith *other = create("newcomer");
    view_await(&v, "newcomer");
    kith_close(other);
    assert_int_equal(kith_drop("newcomer", run_path, NULL), 0);
    assert_int_equal(kith_drop("c", run_path, NULL), 0);
    view_await(&v, "no collections");
    kith_close(k);
    k = create("c");
    view_await(&v, "SEARCHES/s");
    assert_int_equal(write(v.fd, "q", 1), 1);
    int status = view_end(&v);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    /* Ctrl-C */
    view_open(&v, 40);
    view_await(&v, "SEARCHES/s");
    assert_int_equal(write(v.fd, "\x03", 1), 1);
    status = view_end(&v);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    /* SIGTERM, to the one who waits for the program, is what it died of. */
    view_open(&v, 40);
    view_await(&v, "SEARCHES/s");
    assert_int_equal(kill(v.pid, SIGTERM), 0);
    status = view_end(&v);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);

    /* The daemon dies meanwhile, and comes back. */
    view_open(&v, 40);
    view_await(&v, "SEARCHES/s");
    test_daemon_kill(&daemon_);
    view_await(&v, "kithd does not answer");
    assert_int_equal(test_daemon_start(&daemon_), 0);
    view_await(&v, "SEARCHES/s");
    assert_int_equal(write(v.fd, "q", 1), 1);
    view_end(&v);
    kith_close(k);
    assert_int_equal(kith_drop("c", run_path, NULL), 0);
}

/* 'R', 'S', 'T' and so on, of /proc. */
static char state_of(pid_t pid)
{
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return '-';
    size_t n = fread(line, 1, sizeof line - 1, f);
    line[n] = '\0';
    fclose(f);
    const char *at = strrchr(line, ')');
    return at && at[1] == ' ' ? at[2] : '-';
}

#define QUIET_MS 600u /* many frames */

/* What there is was read, and nothing comes any more. */
static void view_await_silence(struct view *v)
{
    uint64_t end = test_now_ms() + WAIT_MS, last = test_now_ms();
    while (test_now_ms() < last + QUIET_MS) {
        struct pollfd p = { .fd = v->fd, .events = POLLIN };
        if (test_now_ms() > end)
            fail_msg("it goes on drawing");
        if (poll(&p, 1, 50) <= 0)
            continue;
        if (v->len + 4096 > sizeof v->text)
            v->len = v->seen = 0;
        ssize_t n = read(v->fd, v->text + v->len, 4095);
        assert_true(n > 0);
        v->len += (size_t)n;
        v->text[v->len] = '\0';
        last = test_now_ms();
    }
}

/* Bytes that it has written so far. */
static uint64_t written_by(pid_t pid)
{
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/io", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f) {
        print_message("skipped: there is no %s\n", path);
        skip();
    }
    size_t n = fread(line, 1, sizeof line - 1, f);
    line[n] = '\0';
    fclose(f);
    const char *at = strstr(line, "wchar: ");
    assert_non_null(at);
    return strtoull(at + 7, NULL, 10);
}

/* It has a frame to write and gets no further with it. */
static void await_stuck(pid_t pid)
{
    uint64_t end = test_now_ms() + WAIT_MS, last = test_now_ms(), before = written_by(pid);
    while (test_now_ms() < last + QUIET_MS) {
        uint64_t now = written_by(pid);
        if (now != before)
            last = test_now_ms();
        before = now;
        if (test_now_ms() > end)
            fail_msg("it goes on writing");
        test_nap();
    }
}

static void a_terminal_that_takes_no_output_does_not_keep_it(void **state)
{
    (void)state;
    static struct view v;
    static const int signals[] = { SIGTERM, SIGINT };
    kith *k = create("c");
    for (int full = 0; full < 2; full++)
        for (unsigned i = 0; i < 2; i++) {
            view_open(&v, 40);
            view_await(&v, "SEARCHES/s");
            if (!full) /* Ctrl-S */
                assert_int_equal(write(v.fd, "\x13", 1), 1);
            await_stuck(v.pid); /* or as soon as nobody reads it */
            assert_int_equal(kill(v.pid, signals[i]), 0);
            int status = view_end(&v);
            if (signals[i] == SIGINT)
                assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            else
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
        }
    kith_close(k);
    assert_int_equal(kith_drop("c", run_path, NULL), 0);
}

/* A shell with job control, as far as it is needed: one job, to which it gives the terminal, or takes it away. */
struct shell {
    struct view v; /* v.pid is the shell */
    int tell;
    _Atomic pid_t *job;
    _Atomic int *status; /* of the job, once it has ended; -1 */
    _Atomic uint32_t *heard;
    uint32_t told;
};

static int shell_main(struct shell *s, int hear, const char *tty_name, bool background)
{
    char order;
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setsid();
    int tty = open(tty_name, O_RDWR | O_CLOEXEC);
    ioctl(tty, TIOCSCTTY, 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        while (!background && tcgetpgrp(tty) != getpid())
            test_nap();
        for (int i = 0; i < 3; i++)
            dup2(tty, i);
        setenv("TERM", "xterm", 1);
        execl(getenv("KITH_TEST_KITH"), "kith", "--run", run_path, "top", "--interval", "0.1", (char *)NULL);
        _exit(126);
    }
    sigaction(SIGTTOU, &ignore, NULL);
    setpgid(pid, pid);
    if (!background)
        tcsetpgrp(tty, pid);
    atomic_store(s->job, pid);
    fcntl(hear, F_SETFL, O_NONBLOCK);
    for (;;) {
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid) {
            atomic_store(s->status, status);
            break;
        }
        ssize_t n = read(hear, &order, 1);
        if (n == 1) {
            tcsetpgrp(tty, order == 'f' ? pid : getpgrp());
            atomic_fetch_add(s->heard, 1);
        } else if (n == 0) {
            break;
        }
        test_nap();
    }
    while (read(hear, &order, 1) != 0) /* the terminal is there until the test has looked at it */
        test_nap();
    return 0;
}

static void shell_open(struct shell *s, bool background)
{
    struct winsize size = { .ws_row = 40, .ws_col = 120 };
    struct view *v = &s->v;
    int pipe_[2];
    v->len = v->seen = 0;
    s->told = 0;
    s->job = test_shared(sizeof *s->job);
    s->status = test_shared(sizeof *s->status);
    s->heard = test_shared(sizeof *s->heard);
    atomic_store(s->status, -1);
    v->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (v->fd < 0 || grantpt(v->fd) != 0 || unlockpt(v->fd) != 0) {
        print_message("skipped: no terminals here: %s\n", strerror(errno));
        skip();
    }
    const char *name = ptsname(v->fd);
    int keep = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(keep >= 0);
    assert_int_equal(ioctl(v->fd, TIOCSWINSZ, &size), 0);
    assert_int_equal(tcgetattr(v->fd, &v->before), 0);
    assert_int_equal(pipe2(pipe_, O_CLOEXEC), 0);
    v->pid = fork();
    assert_true(v->pid >= 0);
    if (v->pid == 0) {
        close(pipe_[1]);
        _exit(shell_main(s, pipe_[0], name, background));
    }
    close(keep);
    close(pipe_[0]);
    s->tell = pipe_[1];
    uint64_t end = test_now_ms() + WAIT_MS;
    while (atomic_load(s->job) == 0) {
        assert_true(test_now_ms() < end);
        test_nap();
    }
}

/* 'f': the job gets the terminal; 'b': the shell takes it. */
static void shell_tell(struct shell *s, char order)
{
    uint64_t end = test_now_ms() + WAIT_MS;
    assert_int_equal(write(s->tell, &order, 1), 1);
    s->told++;
    while (atomic_load(s->heard) < s->told) {
        assert_true(test_now_ms() < end);
        test_nap();
    }
}

/* Of the job, which ends by itself. */
static int shell_status(struct shell *s)
{
    uint64_t end = test_now_ms() + WAIT_MS;
    while (atomic_load(s->status) == -1) {
        if (test_now_ms() > end)
            fail_msg("the job does not end; it is %c", state_of(atomic_load(s->job)));
        test_nap();
    }
    return atomic_load(s->status);
}

static void shell_close(struct shell *s)
{
    int status;
    close(s->tell);
    assert_int_equal(waitpid(s->v.pid, &status, 0), s->v.pid);
    close(s->v.fd);
}

static void await_state(pid_t pid, bool stopped)
{
    uint64_t end = test_now_ms() + WAIT_MS;
    while ((state_of(pid) == 'T') != stopped) {
        if (test_now_ms() > end)
            fail_msg("it is %c", state_of(pid));
        test_nap();
    }
}

/* It draws nothing, and is not stopped for it. */
static void expect_at_rest(struct shell *s)
{
    view_await_silence(&s->v);
    assert_int_not_equal(state_of(atomic_load(s->job)), 'T');
}

static void in_the_background_it_rests_and_can_be_ended(void **state)
{
    (void)state;
    static struct shell s;
    struct termios now;
    kith *k = create("c");

    /* Ctrl-Z, bg, fg, as with top(1), but that bg does not stop it. */
    shell_open(&s, false);
    pid_t pid = atomic_load(s.job);
    view_await(&s.v, "\x1b[?1049h\x1b[?25l");
    view_await(&s.v, "SEARCHES/s");
    assert_int_equal(write(s.v.fd, "\x1a", 1), 1);
    view_await(&s.v, "\x1b[?25h\x1b[?1049l");
    await_state(pid, true);
    assert_int_equal(tcgetattr(s.v.fd, &now), 0);
    assert_int_equal(now.c_lflag, s.v.before.c_lflag);
    shell_tell(&s, 'b');
    assert_int_equal(kill(pid, SIGCONT), 0);
    await_state(pid, false);
    expect_at_rest(&s);
    assert_int_equal(tcgetattr(s.v.fd, &now), 0);
    assert_int_equal(now.c_lflag, s.v.before.c_lflag);
    shell_tell(&s, 'f');
    view_await(&s.v, "\x1b[?1049h\x1b[?25l");
    view_await(&s.v, "SEARCHES/s");
    assert_int_equal(tcgetattr(s.v.fd, &now), 0);
    assert_int_equal(now.c_lflag & (ICANON | ECHO), 0);

    /* Stopped by SIGSTOP it cannot leave; it enters anew when it goes on. */
    assert_int_equal(kill(pid, SIGSTOP), 0);
    await_state(pid, true);
    assert_int_equal(tcsetattr(s.v.fd, TCSANOW, &s.v.before), 0); /* what a shell does */
    assert_int_equal(kill(pid, SIGCONT), 0);
    view_await(&s.v, "\x1b[?1049h\x1b[?25l");
    view_await(&s.v, "SEARCHES/s");
    assert_int_equal(tcgetattr(s.v.fd, &now), 0);
    assert_int_equal(now.c_lflag & (ICANON | ECHO), 0);

    /* The shell takes the terminal while it is drawn on, and its settings are left alone then. */
    shell_tell(&s, 'b');
    assert_int_equal(tcsetattr(s.v.fd, TCSANOW, &s.v.before), 0);
    expect_at_rest(&s);
    assert_int_equal(kill(pid, SIGTERM), 0);
    view_await(&s.v, "\x1b[?25h\x1b[?1049l");
    int status = shell_status(&s);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    assert_int_equal(tcgetattr(s.v.fd, &now), 0);
    assert_int_equal(now.c_lflag, s.v.before.c_lflag);
    shell_close(&s);

    /* Begun there. */
    shell_open(&s, true);
    pid = atomic_load(s.job);
    expect_at_rest(&s);
    assert_int_equal(s.v.len, 0);
    shell_tell(&s, 'f');
    view_await(&s.v, "\x1b[?1049h\x1b[?25l");
    view_await(&s.v, "SEARCHES/s");
    assert_int_equal(write(s.v.fd, "q", 1), 1);
    view_await(&s.v, "\x1b[?25h\x1b[?1049l");
    status = shell_status(&s);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(tcgetattr(s.v.fd, &now), 0);
    assert_int_equal(now.c_lflag, s.v.before.c_lflag);
    shell_close(&s);
    kith_close(k);
    assert_int_equal(kith_drop("c", run_path, NULL), 0);
}

static int begin(void **state)
{
    (void)state;
    test_daemon_init(&daemon_);
    snprintf(run_path, sizeof run_path, "%s/run", daemon_.run.path);
    return test_daemon_start(&daemon_);
}

static int end(void **state)
{
    (void)state;
    int status = test_daemon_stop(&daemon_);
    test_daemon_fini(&daemon_);
    return status;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_of_readers_and_writing_are_shown),
        cmocka_unit_test(without_a_daemon_it_says_what_the_segments_say),
        cmocka_unit_test(what_is_not_there_and_what_makes_no_sense_is_refused),
        cmocka_unit_test(a_terminal_is_drawn_on_and_left_as_it_was),
        cmocka_unit_test(a_terminal_that_takes_no_output_does_not_keep_it),
        cmocka_unit_test(in_the_background_it_rests_and_can_be_ended),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
