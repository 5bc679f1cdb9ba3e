/*
 * processes.c - see processes.h.
 */
#include "tools/demo/processes.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_MAX     16u
#define DIRECTORY_MAX 4u

static pid_t children[CHILD_MAX]; /* 0: free */
static char *directories[DIRECTORY_MAX];
static volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
    interrupted = signal;
}

void demo_processes_begin(void)
{
    struct sigaction action = { 0 };
    action.sa_handler = on_signal; /* no SA_RESTART: waiting ends */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool demo_interrupted(void)
{
    return interrupted != 0;
}

char *demo_directory(const char *parent)
{
    for (size_t i = 0; i < DIRECTORY_MAX; i++) {
        if (directories[i] != NULL)
            continue;
        char *path = NULL;
        if (asprintf(&path, "%s/kith-demo-XXXXXX", parent) < 0)
            return NULL;
        directories[i] = mkdtemp(path);
        if (directories[i] == NULL)
            free(path);
        return directories[i];
    }
    errno = EMFILE;
    return NULL;
}

pid_t demo_spawn(const struct demo_spawn *s)
{
    size_t at = 0;
    while (at < CHILD_MAX && children[at] != 0)
        at++;
    if (at == CHILD_MAX)
        return -EAGAIN;
    fflush(stdout);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid > 0) {
        children[at] = pid;
        return pid;
    }
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it ended before the line above */
        _exit(127);
    if (s->in >= 0)
        dup2(s->in, STDIN_FILENO);
    if (s->out >= 0)
        dup2(s->out, STDOUT_FILENO);
    int log = s->log == NULL ? -1 : open(s->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log >= 0)
        dup2(log, STDERR_FILENO);
    execvp(s->argv[0], (char *const *)(uintptr_t)s->argv); /* which it does not change */
    _exit(127);
}

int demo_wait(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) != pid)
        if (errno != EINTR || interrupted)
            return -1;
    for (size_t i = 0; i < CHILD_MAX; i++)
        if (children[i] == pid)
            children[i] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int demo_run(const struct demo_spawn *s)
{
    pid_t pid = demo_spawn(s);
    return pid < 0 ? 127 : demo_wait(pid);
}

void demo_kill(pid_t pid)
{
    for (size_t i = 0; i < CHILD_MAX; i++) {
        if (pid <= 0 || children[i] != pid)
            continue;
        children[i] = 0;
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    remove(path);
    return 0; /* go on with the rest */
}

void demo_processes_end(void)
{
    for (size_t i = 0; i < CHILD_MAX; i++)
        demo_kill(children[i]);
    for (size_t i = 0; i < DIRECTORY_MAX; i++) {
        if (directories[i] == NULL)
            continue;
        nftw(directories[i], remove_one, 16, FTW_DEPTH | FTW_PHYS);
        free(directories[i]);
        directories[i] = NULL;
    }
}
