/*
 * processes.h - starting, waiting for and ending the processes of the demonstration, and its
 * temporary directories. Whatever way the parent ends, nothing of it stays.
 */
#ifndef KITHI_DEMO_PROCESSES_H
#define KITHI_DEMO_PROCESSES_H

#include <stdbool.h>
#include <sys/types.h>

/* SIGINT, SIGTERM and SIGHUP end the demonstration with everything cleaned up. */
void demo_processes_begin(void);

/* A new directory below parent, removed at the end; malloc'ed path or NULL with errno. */
char *demo_directory(const char *parent);

struct demo_spawn {
    const char *const *argv; /* argv[0] is a path, or a name that is looked up in PATH */
    int in, out;             /* descriptors for stdin and stdout; -1: as the parent's */
    const char *log;         /* stderr goes to the end of this file; NULL: as the parent's */
};

/* Returns the process id or -errno. The child dies with the parent. */
pid_t demo_spawn(const struct demo_spawn *s);

/* Exit status of a child, 128 + the signal that ended it, or -1 when the demonstration is interrupted. */
int demo_wait(pid_t pid);

/* Start and wait. */
int demo_run(const struct demo_spawn *s);

/* SIGKILL and wait. */
void demo_kill(pid_t pid);

bool demo_interrupted(void);

/* Kill what still runs and remove the directories. */
void demo_processes_end(void);

#endif
