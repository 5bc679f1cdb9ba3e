/*
 * daemon.h - a kithd of the benchmark's own, in folders of its own, and a way to fill it.
 *
 * The daemon is the one beside the benchmark program, or $KITHD. A keeper process holds it: when
 * the benchmark ends, however it ends, the keeper stops the daemon and removes the folders.
 */
#ifndef KITH_BENCH_DAEMON_H
#define KITH_BENCH_DAEMON_H

#include <stdint.h>
#include <sys/types.h>

#include "bench/common/options.h"
#include "bench/common/set.h"

struct bench_daemon {
    char run_dir[256];  /* on /dev/shm */
    char data_dir[256]; /* below $TMPDIR or /tmp: a disk, where that is one */
    pid_t keeper;
    pid_t pid; /* of kithd itself */
    int leash; /* closing it ends the daemon */
};

/* Start kithd with so many insertion threads and wait until it answers. */
void bench_daemon_start(struct bench_daemon *d, unsigned threads);
/* The same with lines of kithd's configuration file. */
void bench_daemon_start_with(struct bench_daemon *d, unsigned threads, const char *config);
void bench_daemon_stop(struct bench_daemon *d);

/* kill -9, or SIGTERM, and wait until it is gone; start it again, without waiting for an answer. */
void bench_daemon_kill(struct bench_daemon *d);
void bench_daemon_leave(struct bench_daemon *d);
void bench_daemon_again(struct bench_daemon *d);

/* Wait until it serves all its collections. */
void bench_daemon_await(const struct bench_daemon *d);
/*
 * The number behind "key=" in the last line of its log that has this event and name=collection; NaN when there is none.
 */
double bench_daemon_logged(const struct bench_daemon *d, const char *event, const char *collection,
                           const char *key);

/* CPU time that it has used since it was started, in seconds. */
double bench_daemon_cpu(const struct bench_daemon *d);

/* Keep all threads of kithd on one CPU from now on. */
void bench_daemon_pin(const struct bench_daemon *d, int cpu);
/* Wait until it has nothing to do, half a minute at most. */
void bench_daemon_settle(const struct bench_daemon *d);

/* Create a collection for the set, named as the configuration. */
void bench_daemon_create(const struct bench_daemon *d, const struct bench_set *set,
                         const struct bench_options *o, const struct bench_config *config);
void bench_daemon_drop(const struct bench_daemon *d, const struct bench_config *config);

/*
 * Load all rows into it, the row number as id, as fast as the daemon takes them. Returns the seconds from
 * the first byte to the last answer.
 */
double bench_daemon_load(const struct bench_daemon *d, const struct bench_set *set,
                         const struct bench_config *config);

#endif
