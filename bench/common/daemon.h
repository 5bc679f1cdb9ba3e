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

#define BENCH_COLLECTION "bench"

struct bench_daemon {
    char run_dir[256];  /* on /dev/shm */
    char data_dir[256]; /* below $TMPDIR or /tmp: a disk, where that is one */
    pid_t keeper;
    int leash; /* closing it ends the daemon */
};

/* Start kithd with so many insertion threads and wait until it answers. */
void bench_daemon_start(struct bench_daemon *d, unsigned threads);
void bench_daemon_stop(struct bench_daemon *d);

/* Create BENCH_COLLECTION for the set; the ceiling leaves room for extra vectors. */
void bench_daemon_create(const struct bench_daemon *d, const struct bench_set *set,
                         const struct bench_options *o);

/*
 * Load all rows, the row number as id, as fast as the daemon takes them. Returns the seconds from
 * the first byte to the last answer.
 */
double bench_daemon_load(const struct bench_daemon *d, const struct bench_set *set);

#endif
