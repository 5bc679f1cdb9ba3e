/*
 * child.c - forked roles.
 */
#include "tests/support/child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/tmp.h"

void *test_shared(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        test_die("cannot map %zu bytes: %s", size, strerror(errno));
    return p;
}

void test_child_start(struct test_child *c, const char *name, test_role_fn *role, void *arg)
{
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "%s", name);
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        test_die("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        int rc = role(arg);
        fflush(NULL);
        _exit(rc);
    }
    c->pid = pid;
}

bool test_child_running(const struct test_child *c)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (c->pid == 0)
        return false;
    return waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

int test_child_wait(struct test_child *c, uint64_t timeout_ms)
{
    if (c->pid == 0)
        return -1;
    uint64_t end = test_now_ms() + timeout_ms;
    bool late = false;
    while (test_child_running(c)) {
        if (test_now_ms() > end) {
            late = true;
            kill(c->pid, SIGKILL);
            break;
        }
        test_nap();
    }
    int status = 0;
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR) {
    }
    c->pid = 0;
    if (late)
        fprintf(stderr, "%s: still running after %llu ms, killed\n", c->name, (unsigned long long)timeout_ms);
    else if (WIFSIGNALED(status))
        fprintf(stderr, "%s: died of signal %d (%s)\n", c->name, WTERMSIG(status),
                strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0)
        fprintf(stderr, "%s: exit status %d\n", c->name, WEXITSTATUS(status));
    return !late && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
