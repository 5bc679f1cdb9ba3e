/*
 * recover.c - a start's work on one collection. See recover.h.
 *
 *   .creating-*  -> removed: it was never answered
 *   .dropped-*   -> removed, with its files in the run directory
 *   <name>/      -> segment.next of a predecessor is cleared away, and segment.old after its grace, then
 *
 *      adoptable segment?  --yes--> replay the log after its epoch, in place
 *            |                      (readers that are attached notice nothing)
 *            no
 *            v
 *      build segment.next from the newest checkpoint and the log after it, or the whole log
 *            |
 *            v
 *      nothing to replace?  --yes--> switch: readers find it --> open the log for writing --> the loop's list: writes
 *            |
 *            no
 *            v
 *      open the log for writing --> switch: readers move over by themselves --> the loop's list: writes
 *
 * Groups of the log are gathered into larger ones for replay, so that all workers have something to do, and while they insert
 * one the next is read and staged; what readers of an adopted segment see are states that existed, only fewer of them.
 *
 * Readers need not wait until the log is open again, which takes several syncs: writes do. All groups are durable but those of
 * the last writes, as the ones behind them say (WAL.md, R9); these may have come from pages that never reached the disk. Where
 * nothing else proves that they are durable they are kept back until opening the log has written them anew (W5), and applied
 * then, so that no epoch is visible, in a segment that readers have or find, before it is durable. Where the new segment
 * replaces one, its readers have seen these last groups, and search the old segment meanwhile: the switch then comes when
 * the log is open.
 */
#include "server/writer/recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/checkpoint/read.h"
#include "server/index/ahead.h"
#include "server/wal/files.h"
#include "server/wal/salvage.h"
#include "server/writer/census.h"
#include "server/writer/load.h"

#define CHUNK_OPS   3072u /* two of them find room in the owner's notes */
#define CHUNK_BYTES (8u << 20)
#define PROGRESS_MS 1000u
#define HOLD_MS     20u /* between two looks at what a test holds */

struct boundary { /* where a group of the log ends in a chunk */
    uint64_t epoch;
    uint32_t ops_end;
    size_t end;
};

/* Groups that workers have while the next is read and staged. */
#define FLIGHTS 2u

struct flight { /* one of them */
    struct kithi_index *index;
    struct kithi_group *group;
    struct kithi_work insertions;
    unsigned char *bytes;  /* that its changes point to */
    uint64_t first, epoch; /* of the log's groups that it is made of */
};

struct replay {
    struct kithi_collection *c;
    struct kithi_errmsg *err;
    unsigned char *bytes; /* ops of the groups that are gathered; they do not move while there are any */
    size_t len, capacity;
    struct kithi_op *ops;
    uint32_t op_count, op_capacity;
    struct boundary *groups;
    uint32_t group_count, group_capacity;
    struct flight flights[FLIGHTS];
    uint32_t oldest, flying;
    struct kithi_work sweep, pages; /* n is 0: none runs */
    bool adopted;                   /* the segment is the one that was there: it may have more than the log */

    uint64_t proven;     /* groups up to this epoch are durable for sure */
    uint64_t from, goal; /* epochs: replayed after it, and known to be in the log */
    uint64_t began_ms, told_ms, ops_done, groups_done;
};

/* ---- being told, and telling ---- */

void kithi_recover_hold(const struct kithi_collection *c, const char *point)
{
    while (KITHI_FAULT_HELD(point, c->settings.name) && !kithi_collection_pause(c, HOLD_MS)) {
    }
}

void kithi_recover_tell(const struct kithi_collection *c, enum kithi_recover_step step, uint64_t done,
                        uint64_t total)
{
    struct kithi_recover_progress *p = c->progress;
    if (p) {
        /* Relaxed: each is a figure for people. */
        atomic_store_explicit(&p->step, (uint32_t)step, memory_order_relaxed);
        atomic_store_explicit(&p->done, done, memory_order_relaxed);
        atomic_store_explicit(&p->total, total, memory_order_relaxed);
    }
}

/* ---- what workers do meanwhile ---- */

static struct kithi_pool *pool_of(const struct replay *r)
{
    return r->c->daemon->pool;
}

static void insertion_job(void *arg, unsigned worker, uint32_t i)
{
    const struct flight *f = arg;
    kithi_group_job(f->index, f->group, worker, i);
}

static void sweep_job(void *arg, unsigned worker, uint32_t i)
{
    kithi_sweep_job(arg, worker, i);
}

static void pages_job(void *arg, unsigned worker, uint32_t i)
{
    (void)worker;
    kithi_pages_job(arg, i);
}

/* Works of one job or more; n is 0 while there is none. */
static void start(struct replay *r, struct kithi_work *work)
{
    if (work->n) {
        kithi_pool_start(pool_of(r), work);
    }
}

static void wait_for(struct replay *r, const struct kithi_work *work)
{
    if (work->n) {
        kithi_pool_wait(pool_of(r), work);
    }
}

static bool has_ended(struct replay *r, const struct kithi_work *work)
{
    return !work->n || kithi_pool_has_ended(pool_of(r), work);
}

static void sweep_finish(struct replay *r)
{
    wait_for(r, &r->sweep);
    if (r->sweep.n) {
        kithi_sweep_end(r->c->index, kithi_now_ms());
        r->sweep.n = 0;
    }
}

/* Begin to let dead slots become free, if any are due. Returns when the next may be, in ms from now; UINT32_MAX: never. */
static uint32_t sweep_begin(struct replay *r)
{
    uint32_t wait_ms = UINT32_MAX;
    r->sweep = (struct kithi_work){ .fn = sweep_job, .arg = r->c->index };
    r->sweep.n = kithi_sweep_begin(r->c->index, kithi_now_ms(), &wait_ms);
    start(r, &r->sweep);
    return r->sweep.n ? 0 : wait_ms;
}

static uint32_t sweep(struct replay *r)
{
    sweep_finish(r);
    uint32_t wait_ms = sweep_begin(r);
    sweep_finish(r);
    return wait_ms;
}

static void pages_finish(struct replay *r)
{
    wait_for(r, &r->pages);
    if (r->pages.n) {
        kithi_pages_end(r->c->index, kithi_now_ms());
        r->pages.n = 0;
    }
}

static void pages_begin(struct replay *r)
{
    uint32_t wait_ms;
    r->pages = (struct kithi_work){ .fn = pages_job, .arg = r->c->index };
    r->pages.n = kithi_pages_begin(r->c->index, kithi_now_ms(), &wait_ms);
    start(r, &r->pages);
}

/* Sweeps and huge pages, beside the insertions of groups and beyond the end of one. */
static void go_on(struct replay *r)
{
    if (has_ended(r, &r->sweep)) {
        sweep_finish(r);
        sweep_begin(r);
    }
    if (has_ended(r, &r->pages)) {
        pages_finish(r);
        pages_begin(r);
    }
}

/* ---- applying a chunk ---- */

/* Publish the oldest group that workers have. */
static void land(struct replay *r)
{
    struct flight *f = &r->flights[r->oldest];
    wait_for(r, &f->insertions);
    kithi_group_merged(r->c->index, f->first, f->epoch);
    kithi_group_publish(r->c->index, f->epoch, kithi_now_ms());
    free(f->bytes);
    f->bytes = NULL;
    r->oldest = (r->oldest + 1) % FLIGHTS;
    r->flying--;
}

static void land_all(struct replay *r)
{
    while (r->flying) {
        land(r);
    }
}

/* Nothing is under way any more: whoever goes on with the index finds it as a start leaves it. */
static void settle(struct replay *r)
{
    land_all(r);
    sweep_finish(r);
    pages_finish(r);
}

/* Have groups [from, to) of the chunk applied as one; they are visible once they have landed. */
static int apply_groups(struct replay *r, uint32_t from, uint32_t to)
{
    struct kithi_index *ix = r->c->index;
    struct kithi_group_result result;
    uint32_t first = from ? r->groups[from - 1].ops_end : 0, end = r->groups[to - 1].ops_end;
    if (r->flying == FLIGHTS) {
        land(r);
    }
    /* Beyond that a start after this one would have to look at every record. */
    while (r->flying && kithi_group_room(ix) < end - first) {
        land(r);
    }
    int status = kithi_group_add(ix, r->ops + first, end - first, &result, r->err);
    if (status) {
        return status;
    }
    struct flight *f = &r->flights[(r->oldest + r->flying) % FLIGHTS];
    *f = (struct flight){ .index = ix, .first = r->groups[from].epoch, .epoch = r->groups[to - 1].epoch };
    f->group = kithi_group_seal(ix);
    f->insertions =
        (struct kithi_work){ .fn = insertion_job, .arg = f, .n = kithi_group_job_count(f->group) };
    start(r, &f->insertions);
    r->flying++;
    go_on(r);
    return 0;
}

static bool is_room(int status)
{
    return status == KITHI_E_FULL || status == KITHI_E_NO_SPACE;
}

/* Apply one group, waiting for dead slots to become free as its first time did. */
static int apply_group_patiently(struct replay *r, uint32_t i)
{
    uint32_t wait_ms = 0, first = i ? r->groups[i - 1].ops_end : 0;
    bool grown = false;
    for (;;) {
        int status = apply_groups(r, i, i + 1);
        /* All that could become free is free: the ceiling was higher when it was written. */
        if (status == KITHI_E_FULL && wait_ms == UINT32_MAX && !grown && !r->c->settings.fixed) {
            grown = true;
            settle(r); /* pages are asked for of the segment that it has now */
            status = kithi_growth_now(r->c, r->groups[i].ops_end - first, r->err);
            if (!status) {
                continue;
            }
        }
        if (!is_room(status) || wait_ms == UINT32_MAX) {
            return status; /* done, or there is nothing else to be tried */
        }
        land_all(r);
        kithi_sweep_hurry(r->c->index);
        wait_ms = sweep(r);
        if (kithi_collection_pause(r->c, wait_ms == UINT32_MAX ? 0 : wait_ms < 1000 ? wait_ms : 1000)) {
            return kithi_error_set(r->err, -ECANCELED, "told to stop");
        }
    }
}

static void tell_progress(struct replay *r)
{
    uint64_t now_ms = kithi_now_ms(), epoch = kithi_index_epoch(r->c->index);
    kithi_recover_tell(r->c, RECOVER_REPLAYING, epoch - r->from,
                       (r->goal > epoch ? r->goal : epoch) - r->from);
    if (now_ms - r->told_ms < PROGRESS_MS) {
        return;
    }
    r->told_ms = now_ms;
    kithi_log(KITHI_LOG_INFO, "replay",
              "name=%s epoch=%" PRIu64 " of_at_least=%" PRIu64 " groups=%" PRIu64 " changes=%" PRIu64
              " per_second=%" PRIu64,
              r->c->settings.name, epoch, r->goal, r->groups_done, r->ops_done,
              r->ops_done * 1000 / (now_ms - r->began_ms + 1));
}

/* How many of the gathered groups are durable for sure. */
static uint32_t proven_count(const struct replay *r)
{
    uint32_t n = r->group_count;
    while (n && r->groups[n - 1].epoch > r->proven) {
        n--;
    }
    return n;
}

/* What is behind the first n groups of the chunk goes to bytes, and is the chunk from now on. */
static void move_chunk(struct replay *r, unsigned char *bytes, size_t capacity, uint32_t n)
{
    uint32_t ops = n ? r->groups[n - 1].ops_end : 0;
    size_t from = n ? r->groups[n - 1].end : 0, len = r->len - from;
    if (len) {
        memcpy(bytes, r->bytes + from, len);
    }
    if (n && r->flying) {
        r->flights[(r->oldest + r->flying - 1) % FLIGHTS].bytes = r->bytes; /* the last that point to it */
    } else {
        free(r->bytes);
    }
    r->group_count -= n;
    for (uint32_t i = 0; i < r->group_count; i++) {
        r->groups[i] = r->groups[i + n];
        r->groups[i].ops_end -= ops;
        r->groups[i].end -= from;
    }
    r->op_count = 0;
    for (size_t at = 0; at < len;) { /* decoded before, so there is nothing to refuse */
        struct kithi_op op;
        at += (size_t)kithi_op_decode(bytes + at, len - at, &op);
        if (kithi_op_is_known(op.type)) {
            r->ops[r->op_count++] = op;
        }
    }
    r->bytes = bytes;
    r->capacity = capacity;
    r->len = len;
}

/* Workers have the first n groups of the chunk, or had them: what is left of it, at most what two writes hold, begins one with room for
 * more bytes. */
static int begin_chunk(struct replay *r, uint32_t n, size_t more)
{
    size_t want = r->len - (n ? r->groups[n - 1].end : 0) + more;
    size_t capacity = want > CHUNK_BYTES ? want : CHUNK_BYTES;
    unsigned char *bytes = malloc(capacity);
    if (!bytes) {
        return kithi_error_set(r->err, -ENOMEM, "no memory for groups of %zu bytes", want);
    }
    move_chunk(r, bytes, capacity, n);
    return 0;
}

/* Apply the first n groups of the chunk. What is left of it waits for another call. */
static int apply_chunk(struct replay *r, uint32_t n)
{
    int status = 0;
    if (n == 0) {
        return 0;
    }
    if (r->c->daemon->stopping) {
        return kithi_error_set(r->err, -ECANCELED, "told to stop");
    }
    if (r->groups_done) {
        /* It takes its time anyway, and dead slots are wanted back. */
        status = kithi_census_finish(r->c, r->err);
    }
    if (!status) {
        status = apply_groups(r, 0, n);
    }
    if (is_room(status) && kithi_index_census_due(r->c->index)) {
        status = kithi_census_finish(r->c, r->err); /* what is free was not known yet */
        if (!status) {
            status = apply_groups(r, 0, n);
        }
    }
    if (is_room(status)) {
        /* Together they need more room than one after the other. */
        status = 0;
        for (uint32_t i = 0; i < n && !status; i++) {
            status = apply_group_patiently(r, i);
        }
    }
    if (status) {
        if (r->err && status != -ECANCELED) {
            char why[sizeof r->err->text];
            memcpy(why, r->err->text, sizeof why);
            kithi_error_set(
                r->err, status,
                "collection \"%s\": cannot apply epochs %" PRIu64 " to %" PRIu64 " of its log: %.200s",
                r->c->settings.name, kithi_index_epoch(r->c->index) + 1, r->groups[n - 1].epoch, why);
        }
        return status;
    }
    r->ops_done += r->groups[n - 1].ops_end;
    r->groups_done += n;
    status = begin_chunk(r, n, 0);
    if (status) {
        return status;
    }
    tell_progress(r);
    return kithi_collection_pause(r->c, 0) ? kithi_error_set(r->err, -ECANCELED, "told to stop") : 0;
}

/* ---- gathering ---- */

static int grow(void **items, uint32_t *capacity, uint64_t want, size_t size)
{
    if (want <= *capacity) {
        return 0;
    }
    if (want > UINT32_MAX / 2) {
        return -ENOMEM;
    }
    uint32_t more = *capacity ? *capacity : 1024;
    while (more < want) {
        more *= 2;
    }
    void *p = realloc(*items, more * size);
    if (!p) {
        return -ENOMEM;
    }
    *items = p;
    *capacity = more;
    return 0;
}

/* Apply what is durable for sure, and make room for more bytes behind the rest. */
static int make_room(struct replay *r, size_t more)
{
    int status = apply_chunk(r, proven_count(r));
    if (status || r->len + more <= r->capacity) {
        return status;
    }
    return begin_chunk(r, 0, more);
}

static int take_group(void *arg, const struct kithi_wal_group *g)
{
    struct replay *r = arg;
    if (r->proven < g->durable_epoch) {
        r->proven = g->durable_epoch;
    }
    if (r->len + g->len > r->capacity || (r->group_count && (uint64_t)r->op_count + g->n_ops > CHUNK_OPS)) {
        int status = make_room(r, g->len);
        if (status) {
            return status;
        }
    }
    if (grow((void **)&r->ops, &r->op_capacity, (uint64_t)r->op_count + g->n_ops, sizeof *r->ops) ||
        grow((void **)&r->groups, &r->group_capacity, (uint64_t)r->group_count + 1, sizeof *r->groups)) {
        return kithi_error_set(r->err, -ENOMEM, "no memory to replay the log");
    }
    memcpy(r->bytes + r->len, g->ops, g->len);
    uint32_t n = 0;
    for (size_t at = 0; at < g->len;) {
        struct kithi_op op;
        int64_t step = kithi_op_decode(r->bytes + r->len + at, g->len - at, &op);
        if (step < 0 || ++n > g->n_ops) {
            return kithi_error_set(
                r->err, KITHI_E_LOG_DAMAGED,
                "%s/%s: the group of epoch %" PRIu64 " at offset %" PRIu64 " checks, but %zu bytes "
                "into it there is no change that this kithd can read; it was written by another "
                "version",
                r->c->wal_dir, g->file, g->epoch, g->off, at);
        }
        if (kithi_op_is_known(op.type)) {
            r->ops[r->op_count++] = op;
        }
        at += (size_t)step;
    }
    r->len += g->len;
    r->groups[r->group_count++] =
        (struct boundary){ .epoch = g->epoch, .ops_end = r->op_count, .end = r->len };
    return 0;
}

/* A log is refused: is it damaged only where the newest checkpoint makes it needless? Then that is worth knowing. */
static void tell_covered(const struct kithi_collection *c, uint64_t end_epoch)
{
    struct kithi_checkpoint checkpoint;
    struct kithi_wal_plan plan;
    struct kithi_errmsg ignored;
    char path[KITHI_PATH_MAX], name[KITHI_CHECKPOINT_NAME_SIZE];
    uint64_t epoch = c->checkpointer.last_epoch;
    kithi_checkpoint_name(name, epoch);
    if (kithi_path(path, NULL, "%s/%s", c->data_dir, name) ||
        kithi_checkpoint_open(path, c->settings.uid, &checkpoint, &ignored)) {
        return;
    }
    int status = kithi_wal_plan_after(c->wal_dir, c->settings.uid, epoch, NULL, NULL, &plan, &ignored);
    uint64_t known = kithi_index_durable_epoch(c->index);
    known = checkpoint.end_epoch > known ? checkpoint.end_epoch : known;
    known = end_epoch > known ? end_epoch : known; /* of a newer one that is damaged */
    known = plan.lost_epoch > known ? plan.lost_epoch : known;
    if (!status && plan.last_epoch >= known) {
        kithi_log(
            KITHI_LOG_ERROR, "log-damage-covered",
            "name=%s checkpoint=%" PRIu64 " epoch=%" PRIu64
            " msg=the damage is in a part of the log that this checkpoint makes needless; if the checkpoint is "
            "whole, nothing is lost by: kith wal %s --data %s --salvage --yes",
            c->settings.name, epoch, plan.last_epoch, c->settings.name, c->daemon->data.path);
    }
    kithi_wal_plan_fini(&plan);
    kithi_checkpoint_close(&checkpoint);
}

/* After a failure, too: what workers have is waited for, and not published. */
static void replay_fini(struct replay *r)
{
    for (uint32_t i = 0; i < r->flying; i++) {
        struct flight *f = &r->flights[(r->oldest + i) % FLIGHTS];
        wait_for(r, &f->insertions);
        free(f->bytes);
    }
    wait_for(r, &r->sweep);
    wait_for(r, &r->pages);
    free(r->bytes);
    free(r->ops);
    free(r->groups);
}

/* An epoch that the log has, without reading through it. */
static uint64_t epoch_in_log(const struct kithi_collection *c)
{
    struct kithi_wal_file *files = NULL;
    int64_t n = kithi_wal_files_list(c->wal_dir, &files, NULL);
    uint64_t epoch = n > 0 ? files[n - 1].first_epoch - 1 : 0;
    free(files);
    return epoch;
}

/* Did what was found go as far as the log does, and is there a log at all? */
static int check_end(const struct replay *r, const struct kithi_wal_report *report, struct kithi_errmsg *err)
{
    const struct kithi_collection *c = r->c;
    uint64_t end = r->group_count ? r->groups[r->group_count - 1].epoch : kithi_index_epoch(c->index);
    if (!report->files) {
        return kithi_error_set(err, KITHI_E_LOG_DAMAGED,
                               "%s %s, though a collection has a log before it has its name; restore the log "
                               "from a copy, or move %s away to drop the collection",
                               c->wal_dir,
                               access(c->wal_dir, F_OK)  ? "is missing"
                               : report->ignored_file[0] ? "holds no log file with a header"
                                                         : "holds no log file",
                               c->data_dir);
    }
    /* The scan has delivered all that is after the index's epoch, and refused a log that ends before one that is durable: so does
     * what is loaded from a checkpoint say of all it has. Only a segment may have more. What comes from a disk is no reason to trust
     * in that, and none to die of. */
    return report->last_epoch == end || (r->adopted && report->last_epoch < end)
               ? 0
               : kithi_error_set(err, KITHI_E_LOG_DAMAGED,
                                 "%s ends with epoch %" PRIu64 ", and what was made of %s with epoch %" PRIu64
                                 "; move %s away to fall back to checkpoint and log",
                                 c->wal_dir, report->last_epoch,
                                 r->adopted ? "the segment and it" : "a checkpoint and it", end, c->segment);
}

/*
 * Replay the log after the index's epoch, which has to go on to end_epoch at least. The last groups stay in the
 * chunk when nothing says that they are durable.
 */
static int replay_log(struct replay *r, uint64_t end_epoch, struct kithi_wal_report *report,
                      struct kithi_errmsg *err)
{
    struct kithi_collection *c = r->c;
    r->from = kithi_index_epoch(c->index);
    struct kithi_wal_scan_opts opts = { .dir = c->wal_dir,
                                        .after_epoch = r->from,
                                        .known_durable_epoch = kithi_index_durable_epoch(c->index),
                                        .fn = take_group,
                                        .arg = r };
    memcpy(opts.uid, c->settings.uid, sizeof opts.uid);
    if (opts.known_durable_epoch < end_epoch) {
        opts.known_durable_epoch = end_epoch;
    }
    r->proven = opts.known_durable_epoch;
    r->goal = epoch_in_log(c);
    if (r->goal < opts.known_durable_epoch) {
        r->goal = opts.known_durable_epoch;
    }
    tell_progress(r);
    kithi_recover_hold(c, "replay");
    int status = kithi_wal_scan(&opts, report, err);
    if (!status) {
        status = apply_chunk(r, proven_count(r));
    }
    if (!status) {
        settle(r);
    }
    if (status == KITHI_E_LOG_DAMAGED) {
        tell_covered(c, end_epoch);
    }
    return status ? status : check_end(r, report, err);
}

/* Open the log behind report; what an adopted segment has and the log has not is written first. */
static int open_behind(const struct replay *r, const struct kithi_wal_report *report,
                       struct kithi_errmsg *err)
{
    struct kithi_collection *c = r->c;
    struct kithi_wal_open_opts opts = { .dir = c->wal_dir,
                                        .timeline = c->settings.timeline,
                                        .report = report };
    struct kithi_ahead ahead = { 0 };
    uint64_t epoch = kithi_index_epoch(c->index);
    int status = 0;
    if (r->adopted && report->last_epoch < epoch) {
        /* No less than what was durable, or the scan had refused it. */
        status = kithi_ahead_collect(c->index, report->last_epoch, &ahead, err);
        if (status) {
            return status;
        }
        kithi_log(KITHI_LOG_INFO, "log-completed",
                  "name=%s from=%" PRIu64 " to=%" PRIu64
                  " msg=the segment was ahead of the log, by writes that did "
                  "not ask to be durable; they are written to it now",
                  c->settings.name, report->last_epoch + 1, epoch);
    }
    struct kithi_wal_content *more = calloc(ahead.group_count + 1u, sizeof *more);
    for (uint32_t i = 0; more && i < ahead.group_count; i++) {
        more[i] = (struct kithi_wal_content){ .ops = ahead.groups[i].ops,
                                              .len = ahead.groups[i].len,
                                              .n_ops = ahead.groups[i].op_count };
    }
    opts.more = more;
    opts.more_count = ahead.group_count;
    memcpy(opts.uid, c->settings.uid, sizeof opts.uid);
    KITHI_FAULT_CRASH("crash-before-log-opened");
    status = more ? kithi_wal_open(c->daemon->io, &opts, &c->wal, err)
                  : kithi_error_set(err, -ENOMEM, "no memory to open the log");
    free(more);
    kithi_ahead_fini(&ahead);
    if (!status) {
        KITHI_FAULT_CRASH("crash-after-log-opened");
        kithi_index_set_durable(c->index, epoch);
    }
    return status;
}

/* Open the log for writing, and apply what was kept back until its end is durable for sure. */
static int open_log(struct replay *r, struct kithi_wal_report *report, struct kithi_errmsg *err)
{
    struct kithi_collection *c = r->c;
    kithi_recover_tell(c, RECOVER_OPENING, 0, 0);
    kithi_recover_hold(c, "open");
    if (report->torn_file[0]) {
        kithi_log(KITHI_LOG_WARN, "log-cut",
                  "name=%s file=%s/%s from=%" PRIu64 " to=%" PRIu64 " msg=what was being written "
                  "was torn by a crash; no write of it was acknowledged as durable: %s",
                  c->settings.name, c->wal_dir, report->torn_file, report->torn_off, report->torn_end,
                  report->torn_reason);
    }
    if (report->spoilt_file[0]) {
        kithi_log(
            KITHI_LOG_WARN, "log-spoilt",
            "name=%s file=%s/%s from=%" PRIu64 " to=%" PRIu64 " epoch=%" PRIu64
            " msg=what an earlier start wrote anew is damaged there (%s); nothing is lost, for the file before it "
            "has it, too; look after the disk",
            c->settings.name, c->wal_dir, report->spoilt_file, report->spoilt_off, report->spoilt_end,
            report->spoilt_epoch, report->spoilt_reason);
    }
    if (report->ignored_file[0]) {
        kithi_log(KITHI_LOG_WARN, "log-ignored", "name=%s file=%s/%s msg=%s", c->settings.name, c->wal_dir,
                  report->ignored_file, report->ignored_reason);
    }
    int status = open_behind(r, report, err);
    if (!status) {
        status = apply_chunk(r, r->group_count);
    }
    if (!status) {
        settle(r);
        kithi_log(KITHI_LOG_INFO, "replayed",
                  "name=%s from=%" PRIu64 " to=%" PRIu64 " groups=%" PRIu64 " changes=%" PRIu64
                  " ms=%" PRIu64,
                  c->settings.name, r->from, report->last_epoch, r->groups_done, r->ops_done,
                  kithi_now_ms() - r->began_ms);
    }
    return status;
}

int kithi_recover_log(struct kithi_collection *c, uint64_t end_epoch, struct kithi_errmsg *err)
{
    struct kithi_wal_report report = { 0 };
    struct replay r = { .c = c, .err = err, .began_ms = kithi_now_ms(), .told_ms = kithi_now_ms() };
    int status = replay_log(&r, end_epoch, &report, err);
    if (!status) {
        status = open_log(&r, &report, err);
    }
    replay_fini(&r);
    return status;
}

/* ---- the segment ---- */

/* Is there a file, and which? 1, 0, or the error. */
static int look_at(const char *path, struct stat *out, struct kithi_errmsg *err)
{
    if (!(KITHI_FAULT("switch-look-eio") ? (errno = EIO, -1) : lstat(path, out))) {
        return 1;
    }
    int e = errno;
    return e == ENOENT ? 0 : kithi_error_set(err, -e, "cannot look at %s: %s", path, strerror(e));
}

/* What a predecessor left of a switch. */
static int clear_switch(struct kithi_collection *c, struct kithi_errmsg *err)
{
    struct stat now, old;
    if (!unlink(c->segment_next)) {
        kithi_log(KITHI_LOG_INFO, "unfinished-segment", "path=%s msg=removed", c->segment_next);
    }
    int there = look_at(c->segment_old, &old, err);
    if (there <= 0) {
        return there;
    }
    /* The same file under both names: it was not replaced yet, and is still the one. To take it for replaced, because nobody could look,
     * would tell its readers to move over to nothing. */
    there = look_at(c->segment, &now, err);
    if (there < 0) {
        return there;
    }
    bool replaced = !there || now.st_ino != old.st_ino || now.st_dev != old.st_dev;
    if (replaced) {
        kithi_segment_mark_moved(c->segment_old, false);
        c->old_until_ms = kithi_now_ms() + KITHI_OLD_GRACE_MS;
    } else {
        kithi_collection_unlink_old(c, NULL);
    }
    kithi_log(KITHI_LOG_INFO, "old-segment", "path=%s msg=%s", c->segment_old,
              replaced ? "its readers were told to move over" : "the switch is undone");
    return 0;
}

/* Files that were being written: a configuration, of which the one before counts, and a marker. */
static void clear_unfinished(const struct kithi_collection *c)
{
    static const char *const names[] = { KITHI_SETTINGS_NAME, KITHI_MARKER_NAME };
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[KITHI_PATH_MAX];
        if (!kithi_path(path, NULL, "%s/%s.new", c->data_dir, names[i])) {
            unlink(path);
        }
    }
}

static int set_segment_aside(struct kithi_collection *c, const struct kithi_segment_peek *peek,
                             struct kithi_errmsg *err)
{
    char aside[KITHI_PATH_MAX], uid[33];
    kithi_uid_text(peek->uid, uid);
    int status = kithi_path(aside, err, "%s.aside-%s", c->segment, uid);
    if (!status && rename(c->segment, aside)) {
        int e = errno;
        status = kithi_error_set(err, -e, "cannot rename %s to %s: %s", c->segment, aside, strerror(e));
    }
    if (!status) {
        /* Whoever still reads it looks by name, and learns that another collection has taken it. */
        kithi_segment_mark_moved(aside, false);
        kithi_log(KITHI_LOG_WARN, "set-aside",
                  "from=%s to=%s msg=it belongs to another collection of this name; remove "
                  "it when nobody needs it",
                  c->segment, aside);
    }
    return status;
}

/* Adopt the segment that is there. 1: adopted; 0: there is none that can be; negative: stop. */
static int adopt(struct kithi_collection *c, struct kithi_errmsg *err)
{
    struct kithi_index_identity id = { .geometry = c->settings.geometry };
    struct kithi_segment_peek peek = { .generation = 0 };
    memcpy(id.uid, c->settings.uid, sizeof id.uid);
    memcpy(id.hash_key, c->settings.hash_key, sizeof id.hash_key);
    /* What cannot be looked at is not adopted either, and says why. */
    if (!kithi_segment_peek(c->segment, &peek, NULL) && memcmp(peek.uid, id.uid, sizeof id.uid)) {
        return set_segment_aside(c, &peek, err);
    }
    struct stat st;
    if (!lstat(c->segment, &st) && !S_ISREG(st.st_mode)) {
        return kithi_error_set(
            err, KITHI_E_NOT_SEGMENT,
            "%s is %s and not a file; remove it, and the segment is built anew from the log", c->segment,
            S_ISLNK(st.st_mode) ? "a symbolic link" : "something else");
    }
    /* Another layout was chosen, or asked for, or a larger one was to be made, and it was not: that is done once the collection is
     * served again. */
    if (kithi_settings_may_lay(&c->settings, &peek.geometry)) {
        id.geometry = peek.geometry;
    }
    int status =
        kithi_index_adopt(c->segment, &id, &c->daemon->tuning, kithi_collection_stop(c), &c->index, err);
    switch (status) {
    case 0:
        (void)kithi_index_declare(c->index, c->settings.index, err); /* it was read with the settings */
        kithi_log(KITHI_LOG_INFO, "adopted", "name=%s epoch=%" PRIu64 " live=%" PRIu64, c->settings.name,
                  kithi_index_epoch(c->index), kithi_index_live(c->index));
        return 1;
    case KITHI_E_NO_COLLECTION: return 0;
    case KITHI_E_REPLACED:
    case KITHI_E_VERSION:
    case KITHI_E_CORRUPT:
    case KITHI_E_NOT_SEGMENT:
    case KITHI_E_MOVED: /* its readers wait for a successor */
        kithi_log(KITHI_LOG_WARN, "not-adopted", "name=%s status=%s msg=%s; it is built anew from the log",
                  c->settings.name, kithi_error_name(status), err->text);
        return 0;
    default: return status;
    }
}

/* No segment is there that could be adopted, and some writes did not ask to be durable: epochs that were visible may be lost, and
 * their numbers come again with other content. */
static int fork_timeline(struct kithi_collection *c, struct kithi_errmsg *err)
{
    uint64_t before = c->settings.timeline;
    if (c->marker.state != MARKER_THERE) {
        return 0;
    }
    int status = kithi_settings_fork(&c->settings, err);
    if (!status) {
        status = kithi_settings_write(c->data_dir, &c->settings, err);
    }
    if (!status) {
        KITHI_FAULT_CRASH("crash-after-fork");
        kithi_marker_clear(c);
        kithi_log(KITHI_LOG_WARN, "timeline",
                  "name=%s from=%016" PRIx64 " to=%016" PRIx64
                  " msg=writes that did not ask to be durable may be lost",
                  c->settings.name, before, c->settings.timeline);
    }
    return status;
}

/* The segment: adopted, or begun anew as segment.next. */
static int find_segment(struct kithi_collection *c, bool *out_adopted, uint64_t *out_end_epoch,
                        struct kithi_errmsg *err)
{
    int status = kithi_dir_inside(c->run_dir, 0750, c->daemon->policy.read_group, err);
    if (!status) {
        status = kithi_wal_settle(c->wal_dir, KITHI_WAL_SETTLE_MS, kithi_collection_stop(c), err);
    }
    if (status) {
        return status;
    }
    clear_unfinished(c);
    kithi_boards_open(&c->boards, c->run_dir, c->settings.uid, &c->daemon->policy, !c->daemon->no_counters);
    status = clear_switch(c, err);
    if (status) {
        return status;
    }
    kithi_load_look(c);
    status = kithi_marker_look(c, err);
    if (status) {
        return status;
    }
    int adopted = adopt(c, err);
    if (adopted < 0) {
        return adopted;
    }
    if (!adopted && c->old_until_ms != KITHI_NEVER) {
        kithi_collection_end_old(c); /* early: there is no memory for three */
    }
    *out_adopted = adopted;
    status = adopted ? 0 : fork_timeline(c, err);
    if (status) {
        return status;
    }
    uint64_t end_epoch = 0;
    int loaded = adopted ? 0 : kithi_load_checkpoint(c, &end_epoch, err);
    if (loaded < 0) {
        return loaded;
    }
    *out_end_epoch = end_epoch;
    if (adopted) { /* the group may be another one than the last daemon's */
        return kithi_collection_share(c, c->segment, err);
    }
    /* The whole log is replayed into it: as many vectors as there ever might be, whatever the ceiling is by now. */
    struct kithi_geometry g = c->settings.geometry;
    g.slot_max = kithi_settings_highest(&c->settings);
    status = loaded ? 0 : kithi_collection_build(c, &c->settings, &g, &c->index, err);
    if (!status) {
        kithi_index_tune(c->index, 1, 1); /* nobody reads it yet, whom dead slots would have to wait for */
    }
    return status;
}

/*
 * Groups that are kept back are applied when readers can find the segment, and whoever dies from then on has to wait for them. Where
 * those groups need the places of the dead, that would be the wait of a start: before, nobody is waited for.
 */
static int free_the_dead(struct replay *r)
{
    const struct kithi_map *map = kithi_index_map(r->c->index);
    const struct kithi_header *h = kithi_map_header(map);
    /* Relaxed: this thread stored them. */
    uint64_t used = atomic_load_explicit(&h->slots_used, memory_order_relaxed);
    uint64_t free_slots = atomic_load_explicit(&h->tally_free, memory_order_relaxed);
    uint32_t wait_ms = r->op_count > map->geometry.slot_max - used + free_slots ? 0 : UINT32_MAX;
    while (wait_ms != UINT32_MAX) {
        kithi_sweep_hurry(r->c->index);
        wait_ms = sweep(r);
        if (kithi_collection_pause(r->c, wait_ms == UINT32_MAX ? 0 : wait_ms < 1000 ? wait_ms : 1000)) {
            return kithi_error_set(r->err, -ECANCELED, "told to stop");
        }
    }
    return 0;
}

/* Put what was built in the segment's place. */
static int put_in_place(struct kithi_collection *c, bool *switched, struct kithi_errmsg *err)
{
    kithi_index_tune(c->index, c->daemon->tuning.grace_ms, c->daemon->tuning.rest_ms);
    int status = kithi_collection_switch(c, err);
    *switched = !status;
    return status;
}

static int recover_into(struct kithi_collection *c, struct kithi_errmsg *err)
{
    struct kithi_wal_report report = { 0 };
    struct replay r = { .c = c, .err = err, .began_ms = kithi_now_ms(), .told_ms = kithi_now_ms() };
    uint64_t end_epoch = 0;
    bool adopted = false, switched = false;
    kithi_recover_tell(c, RECOVER_ADOPTING, 0, 0);
    kithi_recover_hold(c, "adopt");
    int status = find_segment(c, &adopted, &end_epoch, err);
    if (!status) {
        kithi_index_set_timeline(c->index, c->settings.timeline);
        r.adopted = adopted;
        r.began_ms = r.told_ms = kithi_now_ms();
        status = replay_log(&r, end_epoch, &report, err);
    }
    struct stat st;
    bool replaces = !adopted && !lstat(c->segment, &st);
    if (!status && !adopted && !replaces) {
        status = free_the_dead(&r);
    }
    if (!status && !adopted && !replaces) {
        status = put_in_place(c, &switched, err);
    }
    if (!status) {
        status = open_log(&r, &report, err);
    }
    if (!status && replaces) {
        status = put_in_place(c, &switched, err);
    }
    if (status && !adopted && !switched) {
        unlink(c->segment_next);
    }
    replay_fini(&r);
    return status;
}

/* Say what to do about a configuration that cannot be read. */
static void settings_lost(const char *dir, int status, struct kithi_errmsg *err)
{
    char why[sizeof err->text];
    memcpy(why, err->text, sizeof why);
    if (status == -ENOENT) {
        snprintf(why, sizeof why, "%.150s/" KITHI_SETTINGS_NAME " is missing", dir);
    }
    kithi_error_set(err, status, "%.180s; restore it from a copy, or move %.100s away to drop the collection",
                    why, dir);
}

int kithi_recover_settings(const struct kithi_daemon *d, const char *name, struct kithi_settings *out,
                           struct kithi_errmsg *err)
{
    char dir[KITHI_PATH_MAX];
    int status = kithi_path(dir, err, "%s/%s", d->data.path, name);
    if (!status) {
        status = kithi_settings_read(dir, out, err);
        if (status) {
            settings_lost(dir, status, err);
        }
    }
    if (!status && strcmp(out->name, name)) {
        status = kithi_error_set(err, KITHI_E_FORMAT,
                                 "%s/%s is for a collection \"%s\"; a collection's directory cannot "
                                 "be renamed",
                                 dir, KITHI_SETTINGS_NAME, out->name);
    }
    return status;
}

int kithi_recover(struct kithi_daemon *d, const struct kithi_settings *settings,
                  struct kithi_recover_progress *progress, struct kithi_collection **out,
                  struct kithi_errmsg *err)
{
    *out = NULL;
    int status = kithi_collection_new(d, settings, out, err);
    if (!status) {
        (*out)->progress = progress;
        status = recover_into(*out, err);
        (*out)->progress = NULL;
    }
    return status;
}

/* ---- the directories ---- */

static bool begins_with(const char *name, const char *prefix)
{
    return !strncmp(name, prefix, strlen(prefix));
}

static int clear_entry(struct kithi_daemon *d, const char *name, struct kithi_errmsg *err)
{
    char path[KITHI_PATH_MAX];
    int status = kithi_path(path, err, "%s/%s", d->data.path, name);
    if (status) {
        return status;
    }
    if (begins_with(name, KITHI_CREATING_PREFIX)) {
        kithi_log(KITHI_LOG_INFO, "create-undone", "path=%s msg=it was never answered", path);
        return kithi_tree_remove(path, err);
    }
    if (begins_with(name, KITHI_DROPPED_PREFIX)) {
        kithi_log(KITHI_LOG_INFO, "drop-finished", "path=%s", path);
        return kithi_collection_remove(d, path, err);
    }
    return 0;
}

/* Segments in the run directory that no collection of ours stands behind. */
static int clear_strangers(struct kithi_daemon *d, struct kithi_errmsg *err)
{
    char **names = NULL, from[KITHI_PATH_MAX], to[KITHI_PATH_MAX], unfinished[KITHI_PATH_MAX];
    size_t n = 0;
    struct stat st;
    int status = kithi_dir_list(d->run.path, &names, &n, err);
    for (size_t i = 0; i < n && !status; i++) {
        if (begins_with(names[i], KITHI_CREATING_PREFIX)) { /* of a restore that was never answered */
            status = kithi_path(from, err, "%s/%s", d->run.path, names[i]);
            status = status ? status : kithi_tree_remove(from, err);
        }
        if (status || !kithi_name_valid(names[i], strlen(names[i]))) {
            continue;
        }
        status = kithi_path(from, err, "%s/%s", d->data.path, names[i]);
        if (status || (lstat(from, &st) ? errno != ENOENT : S_ISDIR(st.st_mode))) {
            continue; /* what cannot be looked at, and what has lost its configuration, may be a collection */
        }
        status = kithi_path(from, err, "%s/%s", d->run.path, names[i]);
        if (!status) {
            status = kithi_path(to, err, "%s/%s%s-%" PRIu64, d->run.path, KITHI_ASIDE_PREFIX, names[i],
                                kithi_now_us());
        }
        if (status || lstat(from, &st) || !S_ISDIR(st.st_mode)) {
            continue;
        }
        /* An unfinished create leaves no more than an unfinished segment, and no reader. */
        if (!kithi_path(unfinished, NULL, "%s/segment.next", from)) {
            unlink(unfinished);
        }
        if (!kithi_path(unfinished, NULL, "%s/" KITHI_BOARD_DIR, from)) {
            rmdir(unfinished);
        }
        if (!rmdir(from)) {
            continue;
        }
        if (rename(from, to)) {
            int e = errno;
            status = kithi_error_set(err, -e, "cannot rename %s to %s: %s", from, to, strerror(e));
            continue;
        }
        kithi_log(KITHI_LOG_WARN, "set-aside",
                  "from=%s to=%s msg=belongs to no collection of this data directory; "
                  "remove it when nobody needs it",
                  from, to);
    }
    kithi_dir_list_free(names, n);
    return status;
}

int kithi_recover_clear(struct kithi_daemon *d, struct kithi_errmsg *err)
{
    char **names = NULL;
    size_t n = 0;
    int status = kithi_dir_list(d->data.path, &names, &n, err);
    for (size_t i = 0; i < n && !status; i++) {
        status = clear_entry(d, names[i], err);
    }
    kithi_dir_list_free(names, n);
    return status ? status : clear_strangers(d, err);
}
