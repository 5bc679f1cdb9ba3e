/*
 * served.h - a daemon inside the test's process, its loop in a thread of its own.
 */
#ifndef KITHI_TEST_WRITER_SERVED_H
#define KITHI_TEST_WRITER_SERVED_H

#include <pthread.h>
#include <semaphore.h>

#include "server/writer/daemon.h"
#include "tests/support/tmp.h"

struct served {
    struct test_dir data, run;
    struct kithi_options options;
    struct kithi_daemon daemon;
    pthread_t thread;
    bool unready;  /* served_start() waits for the socket only, not for the collections */
    bool ready;    /* the thread's own: started was posted */
    sem_t started; /* or failed to */
    int start_status;
    struct kithi_errmsg err;
    int exit_status;
};

/* Directories only. */
void served_init(struct served *s);
/* Recover and serve. 0, or why it did not come to that. */
int served_start(struct served *s, struct kithi_errmsg *err);
/* Stop as SIGTERM does; the exit status. */
int served_stop(struct served *s);
/* Wait until it has left by itself; the exit status. */
int served_wait(struct served *s);
/* Remove the directories. */
void served_fini(struct served *s);

#endif
