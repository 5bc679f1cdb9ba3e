/*
 * served.c - a daemon inside the test's process. See served.h.
 */
#include "tests/unit/server/writer/served.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/writer/intake.h"
#include "server/writer/start.h"

void served_init(struct served *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    memset(s, 0, sizeof *s);
    sem_init(&s->started, 0, 0);
    test_dir_make(&s->data);
    test_dir_make_shm(&s->run);
    snprintf(s->options.data, sizeof s->options.data, "%s", s->data.path);
    snprintf(s->options.run, sizeof s->options.run, "%s", s->run.path);
    s->options.threads = 2;
    s->options.grace_ms = 5;
    s->options.rest_ms = 5;
}

/* All collections are served. */
static void ready(void *arg)
{
    struct served *s = arg;
    if (!s->ready) {
        s->ready = true;
        s->start_status = 0;
        sem_post(&s->started);
    }
}

/* A loop belongs to the thread that opened it, so all of the daemon's life is here. */
static void *serve(void *arg)
{
    struct served *s = arg;
    int status = kithi_daemon_init(&s->daemon, &s->options, &s->err);
    bool begun = !status;
    s->ready = false;
    if (!status) {
        s->daemon.on_ready = ready;
        s->daemon.ready_arg = s;
        status = kithi_start_begin(&s->daemon, &s->err);
    }
    if (!status) {
        status = kithi_intake_open(&s->daemon, &s->err);
    }
    if (!status) {
        status = kithi_start_go(&s->daemon, &s->err);
    }
    if (!status && s->unready) {
        ready(s);
    }
    if (!status) {
        s->exit_status = kithi_daemon_run(&s->daemon);
        s->err = s->daemon.start_err;
        status = s->err.code;
    }
    if (begun) {
        kithi_daemon_fini(&s->daemon);
    }
    if (!s->ready) {
        s->start_status = status;
        sem_post(&s->started);
    }
    return NULL;
}

int served_start(struct served *s, struct kithi_errmsg *err)
{
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    sem_wait(&s->started);
    if (s->start_status) {
        pthread_join(s->thread, NULL);
        if (err) {
            *err = s->err;
        }
    }
    return s->start_status;
}

int served_stop(struct served *s)
{
    kill(getpid(), SIGTERM); /* blocked in every thread; the loop reads it */
    return served_wait(s);
}

int served_wait(struct served *s)
{
    pthread_join(s->thread, NULL);
    return s->exit_status;
}

void served_fini(struct served *s)
{
    test_dir_remove(&s->data);
    test_dir_remove(&s->run);
    sem_destroy(&s->started);
}
