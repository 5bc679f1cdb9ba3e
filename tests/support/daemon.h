/*
 * daemon.h - a kithd that a test starts, kills and starts again. The program is named by
 * KITH_TEST_KITHD in the environment (CMake sets it).
 */
#ifndef KITHI_TEST_DAEMON_H
#define KITHI_TEST_DAEMON_H

#include <stdbool.h>
#include <sys/types.h>

#include "tests/support/tmp.h"

struct test_daemon {
    struct test_dir data;       /* unless given: made by test_daemon_init */
    struct test_dir run;        /* the same, on a tmpfs */
    char log[TEST_PATH_SIZE];   /* of all its lives, appended */
    char sock[TEST_PATH_SIZE];  /* where it listens */
    char fault[TEST_PATH_SIZE]; /* KITH_FAULT of the next start (server/base/fault.h); "" none */
    const char *option, *value; /* of its command line, besides the directories; NULL: none */
    char hold[TEST_PATH_SIZE];  /* KITH_HOLD, the same */
    unsigned ready_s;           /* patience of test_daemon_start(); 0: 60 */
    pid_t pid;                  /* 0: not running */
};

/* Make data and run directories; starts nothing. */
void test_daemon_init(struct test_daemon *d);
/* Kill it if it runs, remove the directories. */
void test_daemon_fini(struct test_daemon *d);

/*
 * Start it and wait until it answers on its socket and serves all collections. Returns 0, or -1 when it exited or did not answer within
 * ready_s; its log is printed then.
 */
int test_daemon_start(struct test_daemon *d);
/* Start it without waiting. */
void test_daemon_spawn(struct test_daemon *d);
/* Wait until it answers; as test_daemon_start. */
int test_daemon_wait_ready(struct test_daemon *d);
/* True when it answers now, and serves all its collections. */
bool test_daemon_answers(const struct test_daemon *d);
/* True when it answers now, whatever it serves. */
bool test_daemon_listens(const struct test_daemon *d);

/* kill -9, and wait until it is gone. */
void test_daemon_kill(struct test_daemon *d);
/* SIGTERM; returns its exit status, or -1 when it did not exit within 30 s or died of a signal. */
int test_daemon_stop(struct test_daemon *d);
/* True when the process is there and no zombie. Collects its status otherwise, in *out_status. */
bool test_daemon_alive(struct test_daemon *d, int *out_status);

/* Print the end of its log on stderr. */
void test_daemon_show_log(const struct test_daemon *d);
/* Does its log hold this text? */
bool test_daemon_logged(const struct test_daemon *d, const char *text);

/* The path of a collection's segment; static buffer. */
const char *test_daemon_segment(const struct test_daemon *d, const char *collection);

#endif
