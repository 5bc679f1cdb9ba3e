/*
 * daemon.c - starting, asking and killing kithd.
 */
#include "tests/support/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/wire/frame.h"

#define READY_S     60u
#define STOP_MS     30000u
#define LOG_SHOWN   16384
#define ANSWER_MS   2000
#define EXIT_NO_RUN 126

void test_daemon_init(struct test_daemon *d)
{
    memset(d, 0, sizeof *d);
    test_dir_make(&d->data);
    test_dir_make_shm(&d->run);
    /* As an administrator would: the daemon's own directories below what the test owns. */
    char path[TEST_PATH_SIZE + 8];
    snprintf(path, sizeof path, "%s/data", d->data.path);
    mkdir(path, 0750);
    snprintf(path, sizeof path, "%s/run", d->run.path);
    mkdir(path, 0750);
    snprintf(d->log, sizeof d->log, "%.240s/kithd.log", d->data.path);
    snprintf(d->sock, sizeof d->sock, "%.230s/run/kithd.sock", d->run.path);
}

void test_daemon_fini(struct test_daemon *d)
{
    test_daemon_kill(d);
    test_dir_remove(&d->run);
    test_dir_remove(&d->data);
}

void test_daemon_spawn(struct test_daemon *d)
{
    const char *program = getenv("KITH_TEST_KITHD");
    if (!program || !*program)
        test_die("KITH_TEST_KITHD does not name the daemon; run this test through ctest, or set it");
    char run[TEST_PATH_SIZE + 8], data[TEST_PATH_SIZE + 8];
    snprintf(run, sizeof run, "%s/run", d->run.path);
    snprintf(data, sizeof data, "%s/data", d->data.path);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        test_die("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(EXIT_NO_RUN);
        int fd = open(d->log, O_WRONLY | O_CREAT | O_APPEND, 0600), null = open("/dev/null", O_RDONLY);
        if (fd < 0 || null < 0)
            _exit(EXIT_NO_RUN);
        if (d->fault[0])
            setenv("KITH_FAULT", d->fault, 1);
        if (d->hold[0])
            setenv("KITH_HOLD", d->hold, 1);
        dup2(null, 0);
        dup2(fd, 1);
        dup2(fd, 2);
        execl(program, "kithd", "--data", data, "--run", run, d->option, d->value, (char *)NULL);
        _exit(EXIT_NO_RUN);
    }
    d->pid = pid;
}

bool test_daemon_alive(struct test_daemon *d, int *out_status)
{
    int status = 0;
    if (d->pid == 0)
        return false;
    pid_t got = waitpid(d->pid, &status, WNOHANG);
    if (got == 0)
        return true;
    d->pid = 0;
    if (out_status)
        *out_status = status;
    return false;
}

/* Read exactly len bytes within the time that one answer may take. */
static bool receive(int fd, void *buf, size_t len)
{
    uint64_t end = test_now_ms() + ANSWER_MS;
    size_t got = 0;
    while (got < len) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        uint64_t now = test_now_ms();
        if (now >= end || poll(&p, 1, (int)(end - now)) <= 0)
            return false;
        ssize_t n = recv(fd, (char *)buf + got, len - got, 0);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

/* Greet, then ask whether all collections are served. The daemon says no while some are coming back. */
static bool ask(int fd, const void *request, size_t len, struct kithi_reply *out)
{
    struct {
        struct kithi_frame head;
        struct kithi_reply reply;
    } answer;
    char rest[4096];
    if (send(fd, request, len, MSG_NOSIGNAL) != (ssize_t)len || !receive(fd, &answer, sizeof answer) ||
        answer.head.type != KITHI_FRAME_REPLY || answer.head.len < sizeof answer.reply)
        return false;
    for (size_t left = answer.head.len - sizeof answer.reply; left;) {
        size_t n = left < sizeof rest ? left : sizeof rest;
        if (!receive(fd, rest, n))
            return false;
        left -= n;
    }
    *out = answer.reply;
    return answer.reply.status == 0;
}

static bool answers(const struct test_daemon *d, bool all_served)
{
    bool ok = false;
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    if (strlen(d->sock) >= sizeof to.sun_path)
        return false;
    memcpy(to.sun_path, d->sock, strlen(d->sock) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    if (connect(fd, (const struct sockaddr *)&to, sizeof to) == 0) {
        struct {
            struct kithi_frame head;
            uint32_t version, zero;
        } hello = { .head = { .magic = KITHI_FRAME_MAGIC, .len = 8, .type = KITHI_FRAME_HELLO, .tag = 7 },
                    .version = KITHI_WIRE_VERSION };
        struct {
            struct kithi_frame head;
            uint32_t form, name_len;
        } list = { .head = { .magic = KITHI_FRAME_MAGIC, .len = 8, .type = KITHI_FRAME_LIST, .tag = 8 },
                   .form = KITHI_LIST_STATES };
        struct kithi_reply reply;
        ok = ask(fd, &hello, sizeof hello, &reply);
        if (ok && all_served)
            ok = ask(fd, &list, sizeof list, &reply) && reply.found == 0;
    }
    close(fd);
    return ok;
}

bool test_daemon_answers(const struct test_daemon *d)
{
    return answers(d, true);
}

bool test_daemon_listens(const struct test_daemon *d)
{
    return answers(d, false);
}

int test_daemon_wait_ready(struct test_daemon *d)
{
    unsigned ready_s = d->ready_s ? d->ready_s : READY_S;
    uint64_t end = test_now_ms() + 1000u * (uint64_t)ready_s;
    int status = 0;
    while (!test_daemon_answers(d)) {
        if (!test_daemon_alive(d, &status)) {
            fprintf(stderr, "kithd exited (status 0x%x) before it answered\n", (unsigned)status);
            test_daemon_show_log(d);
            return -1;
        }
        if (test_now_ms() > end) {
            fprintf(stderr, "kithd does not answer after %u s\n", ready_s);
            test_daemon_show_log(d);
            return -1;
        }
        test_nap();
    }
    return 0;
}

int test_daemon_start(struct test_daemon *d)
{
    test_daemon_spawn(d);
    return test_daemon_wait_ready(d);
}

void test_daemon_kill(struct test_daemon *d)
{
    if (d->pid == 0)
        return;
    kill(d->pid, SIGKILL);
    while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    d->pid = 0;
}

int test_daemon_stop(struct test_daemon *d)
{
    int status = 0;
    if (d->pid == 0)
        return -1;
    kill(d->pid, SIGTERM);
    uint64_t end = test_now_ms() + STOP_MS;
    while (test_daemon_alive(d, &status)) {
        if (test_now_ms() > end) {
            test_daemon_kill(d);
            return -1;
        }
        test_nap();
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void test_daemon_show_log(const struct test_daemon *d)
{
    static char text[LOG_SHOWN + 1];
    int fd = open(d->log, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    off_t end = lseek(fd, 0, SEEK_END);
    ssize_t n = pread(fd, text, LOG_SHOWN, end > LOG_SHOWN ? end - LOG_SHOWN : 0);
    close(fd);
    if (n > 0)
        fprintf(stderr, "---- log of kithd ----\n%.*s---- end ----\n", (int)n, text);
}

bool test_daemon_logged(const struct test_daemon *d, const char *text)
{
    FILE *f = fopen(d->log, "re");
    if (!f)
        return false;
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    while (!found && getline(&line, &size, f) > 0)
        found = strstr(line, text) != NULL;
    free(line);
    fclose(f);
    return found;
}

const char *test_daemon_segment(const struct test_daemon *d, const char *collection)
{
    static char path[2 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s/run/%s/segment", d->run.path, collection);
    return path;
}
