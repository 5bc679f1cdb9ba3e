/*
 * test_doctor.c - kith doctor as a process: beside a kithd that runs, is stopped, is gone, is none; for readers that may
 * little; under a seccomp filter; on a full tmpfs; in a container that shows nothing. It never hangs and changes nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <kith/kith.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/src/json.h"
#include "tests/support/daemon.h"
#include "tests/support/tree.h"

#define NOBODY     65534
#define PATIENCE_S 60 /* of the test, on a busy machine; the doctor itself waits four seconds at most */
#define PROMPT_MS  20000
#define FOUND_MAX  32
#define TEXT_MAX   1024

static const char *const CHECKS[] = {
    "run-dir",         "run-dir-rights", "run-dir-space", "data-dir",    "data-dir-rights", "data-dir-space",
    "data-dir-direct", "daemon",         "collections",   "memory",      "cgroup",          "huge-pages",
    "io-uring",        "memlock",        "open-files",    "ipc-removal",
};
#define CHECK_COUNT (sizeof CHECKS / sizeof *CHECKS)

static struct test_daemon daemon_;
static struct test_dir tree, files;
static char run_path[TEST_PATH_SIZE + 8], data_path[TEST_PATH_SIZE + 8];

/* How a doctor is run. */
struct how {
    const char *run;    /* NULL: the daemon's */
    const char *data;   /* NULL: not given */
    const char *root;   /* KITH_DOCTOR_ROOT; NULL: none */
    const char *option; /* "--quiet", say; NULL: none */
    int filter_errno;   /* what io_uring_setup gets by a seccomp filter; 0: no filter */
    bool nobody;        /* by a user that may nothing */
    bool plain;         /* not as JSON */
    bool silent;        /* whoever listens there gives no answer */
};

struct found {
    char check[32], state[16], text[TEXT_MAX], fix[TEXT_MAX]; /* fix "": null */
};

struct report {
    int status; /* exit status; 128 + signal */
    size_t count;
    struct found items[FOUND_MAX];
    char out[FOUND_MAX * TEXT_MAX], err[TEXT_MAX];
};

static struct report report_;

static void read_whole(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    for (ssize_t n; fd >= 0 && (n = read(fd, out + len, size - 1 - len)) > 0;)
        len += (size_t)n;
    out[len] = '\0';
    close(fd);
}

/* io_uring_setup fails with error from now on, as under a container's filter. */
static void forbid_io_uring(int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof code / sizeof *code, .filter = code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(125);
}

static void run_child(const struct how *h, int out, int err)
{
    const char *argv[12] = { getenv("KITH_TEST_KITH"), "--run", h->run != NULL ? h->run : run_path };
    size_t n = 3;
    if (!h->plain)
        argv[n++] = "--json";
    argv[n++] = "doctor";
    if (h->data != NULL) {
        argv[n++] = "--data";
        argv[n++] = h->data;
    }
    if (h->option != NULL)
        argv[n++] = h->option;
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    unsetenv("KITH_DOCTOR_ROOT");
    if (h->root != NULL)
        setenv("KITH_DOCTOR_ROOT", h->root, 1);
    /* The program may lie where nobody may go: it is opened before. */
    int program = open(argv[0], O_RDONLY);
    if (h->nobody && (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0))
        _exit(124);
    if (h->filter_errno != 0)
        forbid_io_uring(h->filter_errno);
    alarm(PATIENCE_S); /* a doctor that hangs fails the test */
    fexecve(program, (char *const *)(uintptr_t)argv, environ);
    _exit(126);
}

static void parse_line(const char *line, size_t len, struct found *f)
{
    struct kithi_json j;
    unsigned keys = 0;
    memset(f, 0, sizeof *f);
    kithi_json_init(&j);
    kithi_json_begin(&j, line, len);
    if (kithi_json_object(&j) == 0)
        while (kithi_json_member(&j) == 1) {
            size_t n = 0;
            keys++;
            if (kithi_json_key_is(&j, "check"))
                kithi_json_string(&j, f->check, sizeof f->check - 1, &n);
            else if (kithi_json_key_is(&j, "state"))
                kithi_json_string(&j, f->state, sizeof f->state - 1, &n);
            else if (kithi_json_key_is(&j, "text"))
                kithi_json_string(&j, f->text, sizeof f->text - 1, &n);
            else if (kithi_json_key_is(&j, "fix") && kithi_json_peek(&j) == KITHI_JSON_STRING)
                kithi_json_string(&j, f->fix, sizeof f->fix - 1, &n);
            else
                kithi_json_skip(&j);
        }
    if (kithi_json_finish(&j) != 0 || keys != 4)
        fail_msg("not an object of four keys (%s): %.*s", j.error != NULL ? j.error : "keys", (int)len, line);
    kithi_json_fini(&j);
}

static struct report *run_once(struct how h)
{
    struct report *r = &report_;
    char out[TEST_PATH_SIZE + 8], err[TEST_PATH_SIZE + 8];
    memset(r, 0, sizeof *r);
    snprintf(out, sizeof out, "%s/stdout", files.path);
    snprintf(err, sizeof err, "%s/stderr", files.path);
    int o = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
        e = open(err, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    pid_t pid = fork();
    if (o < 0 || e < 0 || pid < 0)
        test_die("%s", strerror(errno));
    if (pid == 0)
        run_child(&h, o, e);
    close(o);
    close(e);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    r->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    read_whole(out, r->out, sizeof r->out);
    read_whole(err, r->err, sizeof r->err);
    if (h.plain)
        return r;
    for (const char *line = r->out, *end; *line != '\0' && r->count < FOUND_MAX; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        parse_line(line, (size_t)(end - line), &r->items[r->count++]);
    }
    return r;
}

/* A kithd that has no processor for a second seems stopped, as it should: then the doctor comes again. */
static struct report *run_doctor(struct how h)
{
    uint64_t until = test_now_ms() + 1000u * PATIENCE_S;
    struct report *r;
    do
        r = run_once(h);
    while (!h.silent &&
           (strstr(r->out, "answer within a second") != NULL || strstr(r->out, "in time (") != NULL) &&
           test_now_ms() < until);
    return r;
}

#define DOCTOR(...) run_doctor((struct how){ __VA_ARGS__ })

static const struct found *get(const struct report *r, const char *check)
{
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->items[i].check, check) == 0)
            return &r->items[i];
    fail_msg("no check %s in: %s%s", check, r->out, r->err);
    return NULL;
}

/* words NULL: any; fix NULL: none. */
static void expect(const struct report *r, const char *check, const char *state, const char *words,
                   const char *fix)
{
    const struct found *f = get(r, check);
    if (strcmp(f->state, state) != 0 || (words != NULL && strstr(f->text, words) == NULL) ||
        strcmp(f->fix, fix != NULL ? fix : "") != 0)
        fail_msg("%s is %s: %s; fix: %s\nwanted %s: %s; fix: %s", check, f->state, f->text, f->fix, state,
                 words != NULL ? words : "", fix != NULL ? fix : "");
}

/* All checks, in order; every warning and fault with a fix; the exit status by them. */
static void expect_whole(const struct report *r)
{
    bool bad = false;
    assert_int_equal(r->count, CHECK_COUNT);
    for (size_t i = 0; i < CHECK_COUNT; i++) {
        const struct found *f = &r->items[i];
        assert_string_equal(f->check, CHECKS[i]);
        assert_true(f->text[0] != '\0');
        bool wants = strcmp(f->state, "warn") == 0 || strcmp(f->state, "bad") == 0;
        bool known = wants || strcmp(f->state, "ok") == 0 || strcmp(f->state, "unknown") == 0;
        if (!known || wants != (f->fix[0] != '\0'))
            fail_msg("%s is %s, with fix \"%s\": %s", f->check, f->state, f->fix, f->text);
        bad = bad || strcmp(f->state, "bad") == 0;
    }
    assert_int_equal(r->status, bad ? 1 : 0);
    assert_true(bad == (strstr(r->err, "of 16 checks are bad") != NULL));
}

static void expect_no(const struct report *r, const char *state)
{
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->items[i].state, state) == 0)
            fail_msg("%s is %s: %s", r->items[i].check, state, r->items[i].text);
}

/* A machine on which nothing is wrong. */
static void write_good_machine(void)
{
    test_tree_write(&tree, "/proc/sys/kernel/osrelease", "6.1.0-13-amd64\n");
    test_tree_write(&tree, "/proc/meminfo",
                    "MemTotal: 1125899906842624 kB\nMemAvailable: 1125899906842624 kB\n");
    test_tree_write(&tree, "/proc/self/cgroup", "0::/\n");
    test_tree_write(&tree, "/proc/self/limits",
                    "Max open files  1024  524288  files\n"
                    "Max locked memory  8388608  8388608  bytes\n");
    test_tree_write(&tree, "/sys/fs/cgroup/cgroup.controllers", "memory\n");
    test_tree_write(&tree, "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    test_tree_write(&tree, "/sys/kernel/mm/transparent_hugepage/shmem_enabled", "always [never]\n");
    test_tree_write(&tree, "/etc/passwd", "root:x:0:0::/:\nnobody:x:65534:65534::/:\n");
    test_tree_write(&tree, "/etc/group", "root:x:0:\nnogroup:x:65534:\nsearch:x:4711:\n");
}

static void make_collection(const char *name)
{
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = 2;
    create.metric = KITH_METRIC_L2;
    create.run_dir = run_path;
    assert_int_equal(kith_create(name, &create), 0);
}

static int set_up(void **state)
{
    (void)state;
    if (getenv("KITH_TEST_KITH") == NULL)
        test_die("KITH_TEST_KITH does not name the program; run this test through ctest, or set it");
    test_dir_make(&tree);
    test_dir_make(&files);
    test_daemon_init(&daemon_);
    snprintf(run_path, sizeof run_path, "%s/run", daemon_.run.path);
    snprintf(data_path, sizeof data_path, "%s/data", daemon_.data.path);
    write_good_machine();
    if (test_daemon_start(&daemon_) != 0)
        return -1;
    make_collection("docs");
    return 0;
}

/* A test that failed may have left it dead or stopped. */
static int daemon_runs(void **state)
{
    (void)state;
    if (test_daemon_alive(&daemon_, NULL)) {
        kill(daemon_.pid, SIGCONT);
        return 0;
    }
    return test_daemon_start(&daemon_);
}

static int tear_down(void **state)
{
    (void)state;
    int status = test_daemon_stop(&daemon_);
    test_daemon_fini(&daemon_);
    test_dir_remove(&files);
    test_dir_remove(&tree);
    return status;
}

static void a_good_machine_has_nothing_bad(void **state)
{
    (void)state;
    struct report *r = DOCTOR(.root = tree.path);
    char words[64];
    expect_whole(r);
    expect_no(r, "bad");
    expect_no(r, "unknown");
    expect(r, "run-dir", "ok", run_path, NULL);
    expect(r, "data-dir", "ok", "kithd says so", NULL);
    snprintf(words, sizeof words, "process %d, and is version %s, as this tool", (int)daemon_.pid,
             kith_version());
    expect(r, "daemon", "ok", words, NULL);
    expect(r, "collections", "ok", "1 collection can be searched, and kithd serves all", NULL);
    expect(r, "memory", "ok", NULL, NULL);
    expect(r, "memlock", "ok", "does not charge", NULL);
    expect(r, "open-files", "ok", "1096 are enough", NULL);
}

static void the_real_machine_is_looked_at_whole(void **state)
{
    (void)state;
    expect_whole(DOCTOR(.data = data_path));
    expect(&report_, "data-dir", "ok", "from --data", NULL);
    expect(&report_, "open-files", get(&report_, "open-files")->state, "kithd may open",
           get(&report_, "open-files")->fix);
}

static void quiet_prints_what_is_not_fine(void **state)
{
    (void)state;
    struct report *r = DOCTOR(.root = tree.path, .option = "--quiet");
    expect_no(r, "ok");
    assert_true(r->count < CHECK_COUNT);
    test_tree_write(&tree, "/proc/self/limits",
                    "Max open files  1024  80  files\n"
                    "Max locked memory  8388608  8388608  bytes\n");
    r = DOCTOR(.root = tree.path, .option = "--quiet");
    expect(r, "open-files", "warn", "leaves kithd 8 clients", "LimitNOFILE=1096");
    assert_int_equal(r->status, 0); /* a warning is no failure */
    r = DOCTOR(.root = tree.path, .plain = true, .option = "--quiet");
    assert_non_null(strstr(r->out, "warn     open-files       this process may open 80 files"));
    assert_non_null(strstr(r->out, "\n                          fix: LimitNOFILE=1096\n"));
    assert_null(strstr(r->out, "run-dir "));
    write_good_machine();
}

static void a_system_that_shows_nothing_is_unknown_and_not_bad(void **state)
{
    (void)state;
    static const char *const UNKNOWN[] = { "memory", "cgroup", "huge-pages", "memlock", "open-files" };
    struct test_dir empty;
    test_dir_make(&empty);
    struct report *r = DOCTOR(.root = empty.path);
    expect_whole(r);
    expect_no(r, "bad");
    for (size_t i = 0; i < sizeof UNKNOWN / sizeof *UNKNOWN; i++)
        expect(r, UNKNOWN[i], "unknown", "No such file", NULL);
    test_dir_remove(&empty);
}

/* Names and times of everything below dir, as text. */
static void picture(const char *dir, char *out, size_t size)
{
    char command[2 * TEST_PATH_SIZE];
    snprintf(command, sizeof command, "find '%s' -printf '%%p %%m %%u %%g %%s %%T@ %%C@\\n' | LC_ALL=C sort",
             dir);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    size_t len = fread(out, 1, size - 1, p);
    out[len] = '\0';
    assert_int_equal(pclose(p), 0);
    assert_true(len > 0 && len < size - 1);
}

static void nothing_is_changed(void **state)
{
    (void)state;
    static char before[2][16384], after[2][16384];
    /* A daemon goes on with its files: it has to be gone. */
    test_daemon_kill(&daemon_);
    picture(daemon_.run.path, before[0], sizeof before[0]);
    picture(data_path, before[1], sizeof before[1]);
    expect_whole(DOCTOR(.data = data_path));
    picture(daemon_.run.path, after[0], sizeof after[0]);
    picture(data_path, after[1], sizeof after[1]);
    assert_string_equal(before[0], after[0]);
    assert_string_equal(before[1], after[1]);
    assert_int_equal(test_daemon_start(&daemon_), 0);
}

static void a_killed_daemon_is_bad_and_segments_are_not(void **state)
{
    (void)state;
    char fix[4 * TEST_PATH_SIZE];
    test_daemon_kill(&daemon_);
    struct report *r = DOCTOR(.root = tree.path, .data = data_path);
    expect_whole(r);
    snprintf(fix, sizeof fix, "kithd --data %s --run %s", data_path, run_path);
    expect(r, "daemon", "bad", "no kithd answers", fix);
    expect(r, "collections", "ok", "1 collection can be searched; without kithd", NULL);
    expect(r, "data-dir-direct", get(r, "data-dir-direct")->state, "O_DIRECT",
           get(r, "data-dir-direct")->fix);
    assert_string_not_equal(get(r, "data-dir-direct")->state, "unknown"); /* there are files to try */
    r = DOCTOR(.root = tree.path);
    expect(r, "data-dir", "unknown", "name it by --data", NULL);
    assert_int_equal(test_daemon_start(&daemon_), 0);
}

static void a_stopped_daemon_is_found_within_seconds(void **state)
{
    (void)state;
    char fix[64];
    assert_true(daemon_.pid > 0); /* 0 is the test itself */
    assert_int_equal(kill(daemon_.pid, SIGSTOP), 0);
    assert_int_equal(waitpid(daemon_.pid, NULL, WUNTRACED), daemon_.pid);
    uint64_t begin = test_now_ms();
    struct report *r = DOCTOR(.silent = true);
    uint64_t took = test_now_ms() - begin;
    kill(daemon_.pid, SIGCONT);
    expect_whole(r);
    snprintf(fix, sizeof fix, "kill -CONT %d", (int)daemon_.pid);
    expect(r, "daemon", "bad", "is stopped", fix);
    expect(r, "collections", "ok", NULL, NULL); /* readers go on */
    assert_true(took < PROMPT_MS);
}

/* Listens in a run directory and does what a daemon would not. */
static pid_t fake_daemon(const char *run, const char *says, bool full)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    snprintf(to.sun_path, sizeof to.sun_path, "%.90s/kithd.sock", run);
    unlink(to.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&to, sizeof to) == 0 && listen(fd, full ? 0 : 8) == 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(4 * PATIENCE_S);
        while (!full) {
            int peer = accept(fd, NULL, NULL);
            if (*says == '\0')
                continue;      /* silence, and the descriptor stays open */
            char greeting[64]; /* left unread it would be a reset, and what is said be lost */
            if (read(peer, greeting, sizeof greeting) < 0 || write(peer, says, strlen(says)) < 0)
                _exit(1);
            close(peer);
        }
        for (;;)
            pause();
    }
    if (full) /* fill the queue of those that wait to be accepted */
        for (unsigned i = 0; i < 8; i++) {
            int c = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
            if (connect(c, (struct sockaddr *)&to, sizeof to) < 0)
                break;
        }
    close(fd);
    return pid;
}

#ifdef KITH_FAULT_POINTS
/* Held at a step of its start, by a file. */
static void a_collection_that_is_coming_back_is_told_with_how_far_it_is(void **state)
{
    (void)state;
    static const char *const STEPS[] = { "load", "adopt" };
    char held[3 * TEST_PATH_SIZE], fix[2 * TEST_PATH_SIZE];
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    const float v[2] = { 1, 2 };
    kith *k = NULL;
    opts.run_dir = run_path;
    make_collection("second");
    assert_int_equal(kith_open("second", &opts, &k), 0);
    assert_int_equal(kith_upsert(k, "one", v, 2, NULL), 0);
    assert_int_equal(kith_checkpoint(k, NULL, NULL), 0);
    kith_close(k);
    snprintf(fix, sizeof fix, "kith --run %s stats --ready", run_path);
    snprintf(daemon_.hold, sizeof daemon_.hold, "%.240s/hold", daemon_.data.path);
    assert_int_equal(mkdir(daemon_.hold, 0700), 0);
    for (size_t i = 0; i < sizeof STEPS / sizeof *STEPS; i++) {
        const bool without = strcmp(STEPS[i], "load") == 0; /* there is no segment */
        uint64_t until = test_now_ms() + 1000u * PATIENCE_S;
        test_daemon_kill(&daemon_);
        if (without)
            assert_int_equal(unlink(test_daemon_segment(&daemon_, "second")), 0);
        snprintf(held, sizeof held, "%s/%s-second", daemon_.hold, STEPS[i]);
        int fd = open(held, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        close(fd);
        test_daemon_spawn(&daemon_);
        /* The other one is served by then. */
        while (kith_readiness("docs", run_path, NULL, NULL) != 0 ||
               kith_readiness("second", run_path, NULL, NULL) != 1) {
            assert_true(test_now_ms() < until && test_daemon_alive(&daemon_, NULL));
            test_nap();
        }
        struct report *r;
        do { /* until it has come to the step */
            r = DOCTOR(.root = tree.path);
            assert_true(test_now_ms() < until);
        } while (strstr(get(r, "collections")->text, without ? "loading" : "adopting") == NULL);
        expect_whole(r);
        expect(r, "daemon", "ok", NULL, NULL);
        expect(r, "collections", "warn",
               without ? "still bringing 1 of 2 collections back (second: loading, "
                       : "still bringing 1 of 2 collections back (second: adopting)",
               fix);
        if (without)
            expect(r, "collections", "warn", " % of ", fix);
        assert_int_equal(r->status, 0);
        assert_int_equal(unlink(held), 0);
        while (kith_readiness(NULL, run_path, NULL, NULL) != 0) {
            assert_true(test_now_ms() < until);
            test_nap();
        }
        expect(DOCTOR(.root = tree.path), "collections", "ok",
               "2 collections can be searched, and kithd serves", NULL);
    }
    daemon_.hold[0] = '\0';
    assert_int_equal(kith_drop("second", run_path, NULL), 0);
    test_daemon_kill(&daemon_);
    assert_int_equal(test_daemon_start(&daemon_), 0);
}
#endif

static void what_listens_there_and_is_no_kithd_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *says;
        bool full;
        const char *words;
    } CASES[] = {
        { "", false, "does not answer within a second" },
        { "", true, "does not answer within a second" },
        { "HTTP/1.0 400 Bad Request\r\n\r\n", false, "gives no good answer" },
        { "x", false, "no kithd answers" },
    };
    struct test_dir run;
    test_dir_make_shm(&run);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        pid_t pid = fake_daemon(run.path, CASES[i].says, CASES[i].full);
        uint64_t begin = test_now_ms();
        struct report *r = DOCTOR(.run = run.path, .root = tree.path, .silent = true);
        assert_true(test_now_ms() - begin < PROMPT_MS);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        expect_whole(r);
        expect(r, "daemon", "bad", CASES[i].words, get(r, "daemon")->fix);
        /* Whoever took the connection and was gone at once is nobody whose user counts. */
        if (strcmp(CASES[i].words, "no kithd answers") == 0)
            expect(r, "run-dir-rights", "ok", "kithd has to run as user", NULL);
    }
    test_dir_remove(&run);
}

static void a_damaged_segment_is_named(void **state)
{
    (void)state;
    char path[3 * TEST_PATH_SIZE], fix[3 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s/broken", run_path);
    assert_int_equal(mkdir(path, 0750), 0);
    snprintf(path, sizeof path, "%s/broken/segment", run_path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    assert_true(fd >= 0 && ftruncate(fd, 65536) == 0);
    close(fd);
    struct report *r = DOCTOR(.root = tree.path);
    expect_whole(r);
    snprintf(fix, sizeof fix, "kith --run %s verify broken", run_path);
    expect(r, "collections", "bad", "1 of 2 collections cannot be searched (broken): ", fix);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/broken", run_path);
    assert_int_equal(rmdir(path), 0);
}

static void a_filter_against_io_uring_is_recognised(void **state)
{
    (void)state;
    /* Without a daemon that says what it uses. */
    struct test_dir run;
    test_dir_make_shm(&run);
    test_tree_write(&tree, "/proc/self/status", "Seccomp:\t2\n");
    struct report *r = DOCTOR(.run = run.path, .root = tree.path, .filter_errno = EPERM);
    expect_whole(r);
    expect(r, "io-uring", "warn", "forbidden by a seccomp filter (Operation not permitted)",
           "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register");
    test_tree_remove(&tree, "/proc/self/status");
    r = DOCTOR(.run = run.path, .root = tree.path, .filter_errno = ENOSYS);
    expect(r, "io-uring", "warn", "this kernel (6.1) has no io_uring", "CONFIG_IO_URING=y");
    r = DOCTOR(.run = run.path, .filter_errno = ENOSYS); /* the real /proc knows of the filter */
    expect(r, "io-uring", "warn", "forbidden by a seccomp filter (Function not implemented)",
           get(r, "io-uring")->fix);
    test_dir_remove(&run);
}

static void change_modes(mode_t run, mode_t collection, mode_t segment)
{
    char path[3 * TEST_PATH_SIZE];
    assert_int_equal(chmod(run_path, run), 0);
    snprintf(path, sizeof path, "%s/docs", run_path);
    assert_int_equal(chmod(path, collection), 0);
    assert_int_equal(chmod(test_daemon_segment(&daemon_, "docs"), segment), 0);
}

static void a_reader_that_may_only_read_is_told_what_he_may(void **state)
{
    (void)state;
    char fix[4 * TEST_PATH_SIZE];
    if (geteuid() != 0) {
        print_message("skipped: needs root to be another user\n");
        skip();
    }
    assert_int_equal(chmod(daemon_.run.path, 0755), 0);
    assert_int_equal(chmod(tree.path, 0755), 0);
    snprintf(fix, sizeof fix, "kithd --data /var/lib/kith --run %s --read-group nogroup", run_path);

    /* Not even the directory. */
    struct report *r = DOCTOR(.root = tree.path, .nobody = true);
    expect_whole(r);
    expect(r, "run-dir", "ok", run_path, NULL);
    expect(r, "run-dir-rights", "bad", "user nobody may not enter the run directory (group root, mode 0750)",
           fix);
    expect(r, "daemon", "warn", "kithd does not admit this user", fix);
    expect(r, "collections", "unknown", "Permission denied", NULL);

    /* A group that admits readers is the one to be in. */
    assert_int_equal(chown(run_path, (uid_t)-1, 4711), 0);
    r = DOCTOR(.root = tree.path, .nobody = true);
    expect(r, "run-dir-rights", "bad", "(group search, mode 0750)", "usermod -aG search nobody");
    assert_int_equal(chown(run_path, (uid_t)-1, 0), 0);

    /* The directory, and not the segments. */
    change_modes(0755, 0755, 0640);
    r = DOCTOR(.root = tree.path, .nobody = true);
    expect_whole(r);
    expect(r, "run-dir-rights", "ok", "user nobody may read it, which is enough for readers", NULL);
    expect(r, "daemon", "warn", "kithd does not admit this user", fix);
    expect(r, "collections", "bad", "1 of 1 collections may not be read by this user (docs)", fix);

    change_modes(0755, 0750, 0644);
    r = DOCTOR(.root = tree.path, .nobody = true);
    expect(r, "collections", "bad", "1 of 1 collections may not be read by this user (docs)", fix);

    /* All that a reader needs. */
    change_modes(0755, 0755, 0644);
    r = DOCTOR(.root = tree.path, .nobody = true);
    expect_whole(r);
    expect_no(r, "bad");
    expect(r, "collections", "ok", "1 collection can be searched", NULL);
    expect(r, "data-dir", "unknown", "name it by --data", NULL); /* it is told to members only */
    r = DOCTOR(.root = tree.path, .nobody = true, .data = data_path);
    expect_whole(r);
    expect(r, "data-dir", "unknown", "cannot be seen from here: Permission denied", NULL);
    change_modes(0750, 0750, 0640);
}

static void a_read_only_mount_is_no_fault(void **state)
{
    (void)state;
    struct test_dir view = { .path = "" };
    char path[TEST_PATH_SIZE + 8];
    if (!test_dir_bind_read_only(&daemon_.run, &view)) {
        test_dir_remove(&view);
        skip();
    }
    snprintf(path, sizeof path, "%s/run", view.path);
    struct report *r = DOCTOR(.run = path, .root = tree.path);
    expect_whole(r);
    expect_no(r, "bad");
    expect(r, "run-dir-rights", "ok", "mounted read-only, which is enough for readers", NULL);
    expect(r, "daemon", "ok", NULL, NULL);
    test_dir_remove(&view);
}

static void a_full_tmpfs_is_bad_before_it_is_quite_full(void **state)
{
    (void)state;
    struct test_dir small;
    char path[TEST_PATH_SIZE + 8], fix[2 * TEST_PATH_SIZE];
    static char block[65536];
    test_dir_make_shm(&small);
    if (!test_dir_mount(&small, 64u << 20)) {
        test_dir_remove(&small);
        skip();
    }
    char *real = realpath(small.path, NULL);
    assert_non_null(real);
    snprintf(fix, sizeof fix, "mount -o remount,size=256m %s", real);
    free(real);
    struct report *r = DOCTOR(.run = small.path, .root = tree.path);
    expect(r, "run-dir-space", "ok", "of 64.0 MiB free, of which kithd leaves 1.0 MiB", NULL);
    snprintf(path, sizeof path, "%s/file", small.path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && fallocate(fd, 0, 0, 50 << 20) == 0);
    r = DOCTOR(.run = small.path, .root = tree.path);
    expect(r, "run-dir-space", "warn", "nearly full: 14.0 MiB of 64.0 MiB", fix);
    assert_int_equal(fallocate(fd, 0, 0, (63 << 20) + 65536), 0);
    while (write(fd, block, sizeof block) > 0 && lseek(fd, 0, SEEK_CUR) < 1 << 20) {
    }
    r = DOCTOR(.run = small.path, .root = tree.path);
    expect(r, "run-dir-space", "bad", "is full", fix);
    assert_int_equal(r->status, 1);
    close(fd);
    unlink(path);
    test_dir_remove(&small);
}

static void words_that_are_none_of_the_commands_are_bad_usage(void **state)
{
    (void)state;
    struct report *r = DOCTOR(.plain = true, .option = "docs");
    assert_int_equal(r->status, 2);
    assert_non_null(strstr(r->err, "doctor takes no arguments"));
    r = DOCTOR(.plain = true, .option = "--data");
    assert_int_equal(r->status, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_good_machine_has_nothing_bad, daemon_runs),
        cmocka_unit_test_setup(the_real_machine_is_looked_at_whole, daemon_runs),
        cmocka_unit_test_setup(quiet_prints_what_is_not_fine, daemon_runs),
        cmocka_unit_test_setup(a_system_that_shows_nothing_is_unknown_and_not_bad, daemon_runs),
        cmocka_unit_test_setup(nothing_is_changed, daemon_runs),
        cmocka_unit_test_setup(a_killed_daemon_is_bad_and_segments_are_not, daemon_runs),
        cmocka_unit_test_setup(a_stopped_daemon_is_found_within_seconds, daemon_runs),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test_setup(a_collection_that_is_coming_back_is_told_with_how_far_it_is, daemon_runs),
#endif
        cmocka_unit_test_setup(what_listens_there_and_is_no_kithd_is_found, daemon_runs),
        cmocka_unit_test_setup(a_damaged_segment_is_named, daemon_runs),
        cmocka_unit_test_setup(a_filter_against_io_uring_is_recognised, daemon_runs),
        cmocka_unit_test_setup(a_reader_that_may_only_read_is_told_what_he_may, daemon_runs),
        cmocka_unit_test_setup(a_read_only_mount_is_no_fault, daemon_runs),
        cmocka_unit_test_setup(a_full_tmpfs_is_bad_before_it_is_quite_full, daemon_runs),
        cmocka_unit_test_setup(words_that_are_none_of_the_commands_are_bad_usage, daemon_runs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
