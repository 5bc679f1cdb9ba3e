/*
 * daemon.h - what one kithd process is: its directories, loop, workers, collections and sessions.
 *
 * Everything here belongs to the loop's thread. Pool workers see an index and its jobs only; helper
 * threads (kithi_io_call) make and remove collections that are not in the list, and the threads of a start (start.h) bring
 * such collections back. These read what is constant once the daemon is set up, and `stopping`.
 */
#ifndef KITHI_WRITER_DAEMON_H
#define KITHI_WRITER_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/io.h"
#include "server/base/needs.h"
#include "server/base/pool.h"
#include "server/index/index.h"
#include "server/writer/dirs.h"
#include "server/writer/manager.h"
#include "server/writer/rights.h"

#define KITHI_NEVER UINT64_MAX

struct kithi_collection;
struct kithi_session;
struct kithi_admin;
struct kithi_revive;
struct kithi_sampling_thread;
struct kithi_start;
struct kithi_refused;

struct kithi_options {
    char data[KITHI_PATH_MAX];
    char run[KITHI_PATH_MAX]; /* "": choose */
    char read_group[64];      /* "": none */
    char write_group[64];
    int64_t threads;            /* 0: the CPUs this process may use */
    int64_t clients;            /* 0: KITHI_CLIENTS_DEFAULT, and no more than descriptors allow */
    int64_t grace_ms;           /* 0: the index's default */
    int64_t rest_ms;            /* 0: the index's default */
    bool small_pages;           /* do not ask for huge ones */
    bool no_counters;           /* no boards for readers to count on */
    int64_t checkpoint_wal_mib; /* 0: KITHI_CHECKPOINT_WAL_DEFAULT */
    int64_t checkpoint_age_s;   /* 0: KITHI_CHECKPOINT_AGE_S_DEFAULT */
    int64_t checkpoint_mib_s;   /* 0: KITHI_PACE_RATE_DEFAULT */
    int64_t lag_ms;             /* 0: KITHI_LAG_MS_DEFAULT (pipeline.h) */
    int64_t recall_share;       /* 0: KITHI_RECALL_SHARE_DEFAULT (sampling.h) */
    bool no_recall;             /* do not measure recall */
};

#define KITHI_CLIENTS_DEFAULT KITHI_NEED_CLIENTS
#define KITHI_THREADS_MAX     256

struct kithi_daemon {
    struct kithi_dir run, data;
    char data_real
        [KITHI_PATH_MAX]; /* the data directory for other processes: absolute, without links; "" unknown */
    struct kithi_rights_policy policy;
    struct kithi_index_tuning tuning;
    uint64_t checkpoint_log_bytes, checkpoint_age_ms; /* checkpointer.h */
    uint64_t checkpoint_rate;                         /* pace.h; 0: the default */
    uint32_t lag_ms;                                  /* pipeline.h */
    uint32_t recall_share;                            /* percent; 0: recall is not measured (sampling.h) */
    uint64_t started_ms;
    bool no_counters; /* boards.h */
    struct kithi_io *io;
    struct kithi_pool *pool;
    struct kithi_collection *collections; /* sorted by name */

    /* intake.c */
    struct kithi_session *sessions;
    struct kithi_session *touched; /* those that the next turn looks at */
    unsigned session_count, session_max;
    int listen_fd; /* -1: not listening */
    struct kithi_io_op accept_op;
    uint64_t accept_at_ms; /* accept again then, after it failed; KITHI_NEVER */
    size_t queued_bytes;   /* bodies of accepted requests that are not answered */
    bool room_made;        /* some request was answered since paused sessions were looked at */
    uint64_t look_at_ms;   /* when deadlines of sessions are looked at next */
    bool again;            /* a turn gave work to another one: take turns again before waiting */

    struct kithi_admin *admin; /* creates and drops, oldest first; the first one is being done */
    unsigned
        backups; /* being given: they read files of logs that may be removed, and must not be written over */
    struct kithi_sampling_thread *sampling; /* measures recall; NULL until there is something to measure */
    struct kithi_revive *revives; /* restores that have all of their back-up, or are being removed */

    struct kithi_start *start;   /* collections that are coming back; NULL once all of them are served */
    void (*on_ready)(void *arg); /* called when they are, for tests; may be NULL */
    void *ready_arg;
    struct kithi_refused *refused; /* collections that cannot be brought back, sorted by name (refused.h) */
    struct kithi_errmsg start_err; /* why the start failed; code 0: it did not */

    int signal_fd;
    struct kithi_io_op signal_op;
    uint64_t signal_at_ms; /* wait for signals again then, after that failed; KITHI_NEVER */
    _Atomic bool stopping; /* SIGTERM, or failing: nothing new is read; threads of a start look at it, too */
    bool failing;          /* a log failed: what waits is refused */
    uint64_t stop_by_ms;   /* when to stop waiting for clients that do not read; KITHI_NEVER before */
    int exit_status;

    struct kithi_manager manager;
};

/* Set up everything but collections and socket. On failure: fini. */
int kithi_daemon_init(struct kithi_daemon *d, const struct kithi_options *options, struct kithi_errmsg *err);
/* Release everything in reverse. Accepts a half-built one. */
void kithi_daemon_fini(struct kithi_daemon *d);

/* Serve until told to stop; the process's exit status. Does not return when the loop itself fails. */
int kithi_daemon_run(struct kithi_daemon *d);

/* A log has failed: refuse what waits, answer what is under way, and leave with status 1. */
void kithi_daemon_fail(struct kithi_daemon *d);

/* One that is served: not a condemned one, which is about to come back (start.h). */
struct kithi_collection *kithi_daemon_find(const struct kithi_daemon *d, const char *name);
struct kithi_collection *kithi_daemon_find_uid(const struct kithi_daemon *d, const uint8_t uid[16]);
void kithi_daemon_add(struct kithi_daemon *d, struct kithi_collection *c);
void kithi_daemon_remove(struct kithi_daemon *d, struct kithi_collection *c);

uint64_t kithi_now_ms(void);
uint64_t kithi_now_us(void);

#endif
