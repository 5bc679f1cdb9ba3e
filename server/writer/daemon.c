/*
 * daemon.c - set-up, turns and end of the process. See daemon.h.
 *
 * The loop waits for completions; their callbacks move sessions and groups on. After each wait everything
 * gets a turn: pipelines begin what gathered meanwhile, sessions send what was answered.
 */
#include "server/writer/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/writer/admin.h"
#include "server/writer/census.h"
#include "server/writer/collection.h"
#include "server/writer/intake.h"
#include "server/writer/refused.h"
#include "server/writer/revive.h"
#include "server/writer/start.h"

#define LEAVE_MS                                                                                             \
    5000u /* how long answers wait for clients that do not read, once there is nothing else to do */

#define SIGNAL_RETRY_MS 1000u

uint64_t kithi_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

uint64_t kithi_now_ms(void)
{
    return kithi_now_us() / 1000u;
}

/* ---- signals ---- */

static void signal_done(struct kithi_io_op *op, int result)
{
    struct kithi_daemon *d = op->arg;
    struct signalfd_siginfo info;
    if (result < 0) { /* a daemon that nobody can stop any more would be worse than one that is slow to */
        kithi_log(KITHI_LOG_WARN, "signals", "msg=waiting for signals failed: %s; trying again",
                  kithi_error_text(result));
        d->signal_at_ms = kithi_now_ms() + SIGNAL_RETRY_MS;
        return;
    }
    while (read(d->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (d->stopping) {
            kithi_log(KITHI_LOG_WARN, "stop-now",
                      "signal=%u msg=the second signal; what is under way is left to the "
                      "next start",
                      info.ssi_signo);
            KITHI_FAULT_COUNTS();
            _exit(1);
        }
        kithi_log(KITHI_LOG_INFO, "stop", "signal=%u msg=finishing what was accepted", info.ssi_signo);
        d->stopping = true;
    }
    kithi_io_poll(d->io, op, d->signal_fd);
}

static int signals_open(struct kithi_daemon *d, struct kithi_errmsg *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    /* Before any thread is started, so that all of them inherit it. */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return d->signal_fd < 0 ? kithi_error_set(err, -errno, "cannot receive signals: %s", strerror(errno)) : 0;
}

/* ---- set-up ---- */

static unsigned cpu_count(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

static int groups_find(struct kithi_daemon *d, const struct kithi_options *o, struct kithi_errmsg *err)
{
    struct kithi_rights_policy *p = &d->policy;
    *p = (struct kithi_rights_policy){ .owner = geteuid(),
                                       .read_group = KITHI_NO_GROUP,
                                       .write_group = KITHI_NO_GROUP };
    int status = 0;
    if (o->read_group[0]) {
        memcpy(p->read_name, o->read_group, sizeof p->read_name);
        status = kithi_rights_group(o->read_group, &p->read_group, err);
    }
    if (!status && o->write_group[0]) {
        memcpy(p->write_name, o->write_group, sizeof p->write_name);
        status = kithi_rights_group(o->write_group, &p->write_group, err);
    }
    return status;
}

static int one_directory(const char *data, const char *run, struct kithi_errmsg *err)
{
    struct stat a, b;
    bool one = !stat(data, &a) && !stat(run, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    return one ? kithi_error_set(err, KITHI_E_RUN_DIR,
                                 "%s is given as data and as run directory; they must be two, the first on a "
                                 "disk and the second on a tmpfs",
                                 data)
               : 0;
}

int kithi_daemon_init(struct kithi_daemon *d, const struct kithi_options *o, struct kithi_errmsg *err)
{
    char run[KITHI_PATH_MAX];
    memset(d, 0, sizeof *d);
    d->run.lock_fd = d->data.lock_fd = d->listen_fd = d->signal_fd = -1;
    d->accept_at_ms = d->stop_by_ms = d->signal_at_ms = KITHI_NEVER;
    d->started_ms = kithi_now_ms();
    kithi_manager_init(&d->manager);
    d->no_counters = o->no_counters;
    d->session_max = (unsigned)(o->clients ? o->clients : KITHI_CLIENTS_DEFAULT);
    unsigned threads = o->threads ? (unsigned)o->threads : cpu_count();
    threads = threads < KITHI_THREADS_MAX ? threads : KITHI_THREADS_MAX;
    d->tuning = (struct kithi_index_tuning){ .worker_count = threads,
                                             .grace_ms = (uint32_t)o->grace_ms,
                                             .rest_ms = (uint32_t)o->rest_ms,
                                             .small_pages = o->small_pages };
    d->checkpoint_log_bytes =
        o->checkpoint_wal_mib ? (uint64_t)o->checkpoint_wal_mib << 20 : KITHI_CHECKPOINT_WAL_DEFAULT;
    d->checkpoint_age_ms =
        1000 * (o->checkpoint_age_s ? (uint64_t)o->checkpoint_age_s : KITHI_CHECKPOINT_AGE_S_DEFAULT);
    d->checkpoint_rate = (uint64_t)o->checkpoint_mib_s << 20;
    d->lag_ms = o->lag_ms ? (uint32_t)o->lag_ms : KITHI_LAG_MS_DEFAULT;
    d->recall_share = o->no_recall      ? 0
                      : o->recall_share ? (uint32_t)o->recall_share
                                        : KITHI_RECALL_SHARE_DEFAULT;
    int status = groups_find(d, o, err);
    if (!status) {
        status = kithi_dir_find_run(o->run[0] ? o->run : NULL, run, err);
    }
    if (!status) {
        status = kithi_dir_claim(&d->data, "data", o->data, 0700, KITHI_NO_GROUP, err);
    }
    if (!status && !realpath(d->data.path, d->data_real)) {
        d->data_real[0] = 0; /* kith wal has to be told, then */
    }
    if (!status) {
        status = one_directory(d->data.path, run, err);
    }
    if (!status) {
        status = kithi_dir_claim(&d->run, "run", run, 0750, d->policy.read_group, err);
    }
    if (!status) {
        status = signals_open(d, err);
    }
    if (!status) {
        status = kithi_io_open(KITHI_IO_AUTO, &d->io, err);
    }
    if (!status) {
        d->signal_op.done = signal_done;
        d->signal_op.arg = d;
        kithi_io_poll(d->io, &d->signal_op, d->signal_fd);
        status = kithi_pool_open(d->io, threads, &d->pool, err);
    }
    if (status) {
        kithi_daemon_fini(d);
        return status;
    }
    if (d->data.tmpfs) {
        kithi_log(KITHI_LOG_WARN, "data-on-tmpfs",
                  "dir=%s msg=the data directory is in memory; nothing in it outlives a "
                  "reboot",
                  d->data.path);
    }
    if (!d->run.tmpfs) {
        kithi_log(
            KITHI_LOG_WARN, "run-not-tmpfs",
            "dir=%s msg=the run directory is not on a tmpfs: it works, but the kernel writes segments to "
            "its disk, which wears it out and makes writes wait; mount a tmpfs there",
            d->run.path);
    }
    kithi_log(KITHI_LOG_INFO, "start", "data=%s run=%s io=%s why=%s workers=%u", d->data.path, d->run.path,
              kithi_io_name(d->io), kithi_io_reason(d->io), threads);
    return 0;
}

void kithi_daemon_fini(struct kithi_daemon *d)
{
    kithi_sampling_stop(d);
    kithi_start_fini(d);  /* its threads use the pool, */
    kithi_revive_fini(d); /* and so do theirs */
    kithi_pool_free(d->pool);
    while (d->collections) {
        struct kithi_collection *c = d->collections;
        kithi_daemon_remove(d, c);
        kithi_collection_free(c);
    }
    kithi_refused_fini(d);
    kithi_io_free(d->io); /* nothing that an op points at is freed before */
    d->io = NULL;
    kithi_intake_fini(d);
    if (d->signal_fd >= 0) {
        close(d->signal_fd);
    }
    kithi_dir_release(&d->run);
    kithi_dir_release(&d->data);
}

/* ---- collections ---- */

struct kithi_collection *kithi_daemon_find(const struct kithi_daemon *d, const char *name)
{
    struct kithi_collection *c = d->collections;
    while (c && (c->condemned || strcmp(c->settings.name, name))) {
        c = c->next;
    }
    return c;
}

struct kithi_collection *kithi_daemon_find_uid(const struct kithi_daemon *d, const uint8_t uid[16])
{
    struct kithi_collection *c = d->collections;
    while (c && (c->dropping || c->condemned || memcmp(c->settings.uid, uid, sizeof c->settings.uid))) {
        c = c->next;
    }
    return c;
}

void kithi_daemon_add(struct kithi_daemon *d, struct kithi_collection *c)
{
    struct kithi_collection **at = &d->collections;
    while (*at && strcmp((*at)->settings.name, c->settings.name) < 0) {
        at = &(*at)->next;
    }
    c->next = *at;
    *at = c;
}

void kithi_daemon_remove(struct kithi_daemon *d, struct kithi_collection *c)
{
    struct kithi_collection **at = &d->collections;
    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
}

/* ---- serving ---- */

void kithi_daemon_fail(struct kithi_daemon *d)
{
    d->failing = true;
    d->stopping = true;
    d->exit_status = 1;
    d->again = true;
}

static uint64_t collection_turn(struct kithi_collection *c, uint64_t now_ms)
{
    uint64_t census_ms, old_ms = kithi_old_turn(c, now_ms);
    /* Until it is over, only groups are committed; with a condemned segment they come to an end. */
    if (kithi_census_turn(c, now_ms, &census_ms)) {
        if (c->condemned || c->daemon->stopping) {
            kithi_relayout_turn(c, now_ms); /* who has asked for something is told */
        }
        kithi_pipeline_turn(c, now_ms);
        kithi_checkpointer_turn(c, now_ms);
        uint64_t stats_ms = kithi_boards_turn(c, now_ms);
        census_ms = stats_ms < census_ms ? stats_ms : census_ms;
        return census_ms < old_ms ? census_ms : old_ms;
    }
    uint64_t relayout_ms = kithi_relayout_turn(c, now_ms);
    uint64_t growth_ms = kithi_growth_turn(c, now_ms);
    uint64_t again_ms = kithi_pipeline_turn(c, now_ms), checkpoint_ms = kithi_checkpointer_turn(c, now_ms);
    uint64_t boards_ms = kithi_boards_turn(c, now_ms);
    again_ms = checkpoint_ms < again_ms ? checkpoint_ms : again_ms;
    uint64_t audit_ms = kithi_audit_turn(c, now_ms);
    again_ms = boards_ms < again_ms ? boards_ms : again_ms;
    again_ms = audit_ms < again_ms ? audit_ms : again_ms;
    uint64_t sampling_ms = kithi_sampling_turn(c, now_ms);
    again_ms = sampling_ms < again_ms ? sampling_ms : again_ms;
    again_ms = growth_ms < again_ms ? growth_ms : again_ms;
    again_ms = relayout_ms < again_ms ? relayout_ms : again_ms;
    return old_ms < again_ms ? old_ms : again_ms;
}

/* Everybody gets a turn. Returns when the next one is wanted, in ms of the clock. */
static uint64_t turn(struct kithi_daemon *d, uint64_t now_ms)
{
    uint64_t again_ms;
    if (now_ms >= d->signal_at_ms) {
        d->signal_at_ms = KITHI_NEVER;
        kithi_io_poll(d->io, &d->signal_op, d->signal_fd);
    }
    do {
        d->again = false;
        again_ms = KITHI_NEVER;
        kithi_start_turn(d);
        kithi_admin_turn(d);
        for (struct kithi_collection *c = d->collections, *next; c; c = next) {
            next = c->next;
            uint64_t t = collection_turn(c, now_ms);
            again_ms = t < again_ms ? t : again_ms;
            if (c->condemned) {
                kithi_start_anew(d, c); /* which may be the end of it */
            }
        }
        uint64_t t = kithi_intake_turn(d, now_ms);
        again_ms = t < again_ms ? t : again_ms;
    } while (d->again);
    return d->signal_at_ms < again_ms ? d->signal_at_ms : again_ms;
}

static bool work_left(const struct kithi_daemon *d)
{
    bool left = d->admin || d->start || d->revives;
    for (const struct kithi_collection *c = d->collections; c && !left; c = c->next) {
        left = !kithi_collection_idle(c);
    }
    return left;
}

int kithi_daemon_run(struct kithi_daemon *d)
{
    bool stopped = false;
    for (;;) {
        uint64_t now_ms = kithi_now_ms();
        if (d->stopping && !stopped) {
            stopped = true;
            kithi_intake_stop(d);
            kithi_revive_stop(d);
        }
        uint64_t again_ms = turn(d, now_ms), manager_ms = kithi_manager_turn(d, now_ms);
        again_ms = manager_ms < again_ms ? manager_ms : again_ms;
        if (stopped && !work_left(d)) {
            if (d->stop_by_ms == KITHI_NEVER) {
                d->stop_by_ms = now_ms + LEAVE_MS;
            }
            if (kithi_intake_drained(d) || now_ms >= d->stop_by_ms) {
                break;
            }
            again_ms = d->stop_by_ms < again_ms ? d->stop_by_ms : again_ms;
        }
        if (d->stopping && !stopped) {
            continue;
        }
        int timeout = -1;
        if (again_ms != KITHI_NEVER) {
            timeout = again_ms <= now_ms ? 0 : again_ms - now_ms < 60000 ? (int)(again_ms - now_ms) : 60000;
        }
        int status = KITHI_FAULT("loop-eio") ? -EIO : kithi_io_run(d->io, timeout);
        if (status < 0 && status != -EINTR) {
            kithi_log(KITHI_LOG_ERROR, "loop-failed", "msg=waiting for completions failed: %s; kithd leaves",
                      kithi_error_text(status));
            /* At once, as if it were killed: helpers, workers and the kernel are still at what a tidy end would free under
             * them, and without completions nobody knows when they have done with it. Segments, logs and locks are
             * made for an end at any instruction. */
            _exit(1);
        }
    }
    for (struct kithi_collection *c = d->collections; c && !d->failing; c = c->next) {
        kithi_marker_clear(c); /* all of it is idle: what is visible is durable */
    }
    kithi_log(KITHI_LOG_INFO, "stopped", "status=%d", d->exit_status);
    return d->exit_status;
}
