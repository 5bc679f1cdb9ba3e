/*
 * pipeline.c - from waiting writes to visible ones. See pipeline.h.
 */
#include "server/writer/pipeline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/fault.h"
#include "server/base/jsontext.h"
#include "server/base/log.h"
#include "server/writer/collection.h"
#include "server/writer/merge.h"
#include "shm/base/assert.h"
#include "shm/base/id.h"

/* A group stops growing at these; a single request may be larger. Large enough that a sync is shared by
 * many, small enough that nobody waits long behind somebody else's bulk load: what the workers are expected to
 * take GROUP_US for, by the time that insertions took before. */
#define GROUP_OPS_MIN 64u
#define GROUP_OPS_MAX 4096u
#define GROUP_BYTES   (4u << 20)
#define GROUP_US      50000.0
/* The same, and how many of them are under way, when the next thing is that all of them have to end. */
#define CALM_US     5000.0
#define CALM_GROUPS 2u
/* And at half of the requests that are not answered, if they are more than so many: the other half goes on its way while this one is
 * on the disk, and is answered while its clients send the next. */
#define GROUP_REQUESTS_MIN 16u

/*
 * Repair stands behind insertions, with so many percent of the time that they take, and with as much once it is behind with a larger part
 * of the collection: where as much is deleted as is inserted, that keeps up.
 */
#define SWEEP_PERCENT        50u
#define SWEEP_PERCENT_BEHIND 100u
#define SWEEP_BEHIND_SHARE   32u

#define ROOM_WAIT_MS 5000u /* how long a write waits for dead slots to become free */

#define WRITE_PREFIX 16u /* bytes of uid before the ops */

#define PATH_JSON_SIZE KITHI_JSON_TEXT_SIZE(KITHI_ID_MAX)

/* The i-th group under way, the oldest first; the one that is staged comes behind them. */
static struct kithi_commit *commit_at(struct kithi_pipeline *p, uint32_t i)
{
    return &p->commits[(p->oldest + i) % (KITHI_GROUPS_SEALED + 1)];
}

static void commit_push(struct kithi_commit *k, struct kithi_request *r)
{
    r->next = NULL;
    if (k->first) {
        k->last->next = r;
    } else {
        k->first = r;
    }
    k->last = r;
}

static void line_push(struct kithi_collection *c, struct kithi_backlog *b)
{
    struct kithi_pipeline *p = &c->pipeline;
    b->next = NULL;
    if (p->line) {
        p->line_last->next = b;
    } else {
        p->line = b;
    }
    p->line_last = b;
    c->daemon->again = true;
}

/* Take the first write of the connection whose turn it is; its next one joins the line it is for. */
static struct kithi_request *line_take(struct kithi_pipeline *p)
{
    struct kithi_backlog *b = p->line;
    struct kithi_request *r = b->first;
    p->line = b->next;
    b->first = r->next;
    r->next = NULL;
    if (b->first) {
        line_push(b->first->collection, b);
    }
    return r;
}

/* ---- answering ---- */

/* What a write, or a flush, is answered with; w, for a part of it, is the caller's. */
static struct kithi_answer answer_of(const struct kithi_collection *c, const struct kithi_request *r,
                                     uint64_t epoch, struct kithi_written *w)
{
    struct kithi_answer a = { .item = KITHI_NO_ITEM, .epoch = epoch, .found = r->found };
    bool is_ahead = r->durability != KITHI_DURABILITY_DURABLE;
    *w = (struct kithi_written){ .durable_epoch = is_ahead ? kithi_index_durable_epoch(c->index) : epoch,
                                 .lag_ms = is_ahead ? c->daemon->lag_ms : 0 };
    if (r->written && r->found < r->frame.count - r->upserts) {
        *r->written = *w;
        a.text = r->written;
        a.text_len = sizeof *w + (r->frame.count + 7) / 8;
    } else if (is_ahead) {
        a.text = w;
        a.text_len = sizeof *w;
    }
    return a;
}

/* Answer a request that has nothing to wait for but that an epoch, which is visible, is durable. */
static void answer_durable(struct kithi_collection *c, struct kithi_request *r, uint64_t epoch)
{
    struct kithi_pipeline *p = &c->pipeline;
    struct kithi_written w;
    struct kithi_answer a = answer_of(c, r, epoch, &w);
    if (c->daemon->failing) {
        struct kithi_errmsg err;
        kithi_error_set(&err, KITHI_E_LOG_FAILED,
                        "a write-ahead log failed; what came before may not be durable");
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
    } else if (kithi_index_durable_epoch(c->index) < a.epoch) {
        r->epoch = a.epoch;
        r->next = p->unsynced;
        p->unsynced = r;
    } else {
        kithi_request_answer(r, &a);
    }
}

/* The log has come further, or has failed. */
static void answer_synced(struct kithi_collection *c)
{
    struct kithi_request *list = c->pipeline.unsynced;
    uint64_t durable_epoch = kithi_index_durable_epoch(c->index);
    c->pipeline.unsynced = NULL;
    while (list) {
        struct kithi_request *r = list;
        struct kithi_written w;
        struct kithi_answer a = answer_of(c, r, r->epoch, &w);
        list = r->next;
        if (r->epoch <= durable_epoch) {
            kithi_request_answer(r, &a);
        } else if (c->daemon->failing) {
            answer_durable(c, r, r->epoch); /* which refuses it */
        } else {
            r->next = c->pipeline.unsynced;
            c->pipeline.unsynced = r;
        }
    }
}

/* A write was answered: flushes that came after it wait for one less. */
static void settle(struct kithi_collection *c, uint64_t seq)
{
    struct kithi_pipeline *p = &c->pipeline;
    p->outstanding--;
    for (struct kithi_request **at = &p->flushes; *at;) {
        struct kithi_request *f = *at;
        if (seq < f->seq && --f->waits_for == 0) {
            *at = f->next;
            p->flush_count--;
            answer_durable(c, f, kithi_index_epoch(c->index));
        } else {
            at = &f->next;
        }
    }
}

static void reply(const struct kithi_collection *c, struct kithi_request *r, uint64_t epoch)
{
    struct kithi_written w;
    struct kithi_answer a = answer_of(c, r, epoch, &w);
    kithi_request_reply(r, &a);
    r->answered = true;
}

static void answer(struct kithi_collection *c, struct kithi_request *r, uint64_t epoch)
{
    uint64_t seq = r->seq;
    if (!r->answered) {
        reply(c, r, epoch);
    }
    kithi_request_free(r);
    settle(c, seq);
}

static void refuse(struct kithi_collection *c, struct kithi_request *r, uint32_t item,
                   const struct kithi_errmsg *err)
{
    uint64_t seq = r->seq;
    c->pipeline.refused++;
    if (r->answered) {
        kithi_request_free(r); /* it asked for no promise */
    } else {
        kithi_request_refuse(r, item, err);
    }
    settle(c, seq);
}

/* A write that changes nothing says what it found; where it asked for durability, that has to be durable. */
static void answer_unchanged(struct kithi_collection *c, struct kithi_request *r, uint64_t epoch)
{
    uint64_t seq = r->seq;
    if (r->durability == KITHI_DURABILITY_DURABLE) {
        answer_durable(c, r, epoch);
        settle(c, seq);
    } else {
        answer(c, r, epoch);
    }
}

static void commit_refuse(struct kithi_collection *c, struct kithi_commit *k, const struct kithi_errmsg *err)
{
    while (k->first) {
        struct kithi_request *r = k->first;
        k->first = r->next;
        refuse(c, r, KITHI_NO_ITEM, err);
    }
}

/* ---- groups under way ---- */

/* Answer the groups that are published. */
static void answer_published(struct kithi_collection *c)
{
    struct kithi_pipeline *p = &c->pipeline;
    if (p->published && (p->held || c->dropping)) {
        c->daemon->again = true; /* somebody waits for the pipeline's end, and has had his turn */
    }
    while (p->published) {
        struct kithi_request *r = p->published;
        p->published = r->next;
        if (r->unchanged) {
            answer_unchanged(c, r, r->epoch);
        } else {
            answer(c, r, r->epoch);
        }
    }
}

static void publish(struct kithi_collection *c, struct kithi_commit *k)
{
    struct kithi_pipeline *p = &c->pipeline;
    KITHI_FAULT_CRASH("crash-before-publish");
    if (k->durable) {
        kithi_group_publish(c->index, k->epoch, kithi_now_ms());
    } else {
        kithi_group_publish_ahead(c->index, k->epoch, kithi_now_ms());
        kithi_index_set_durable(c->index, kithi_wal_durable_epoch(c->wal)); /* the log may have been faster */
    }
    KITHI_FAULT_CRASH("crash-after-publish");
    p->groups++;
    p->ops += k->ops;
    p->bytes += k->bytes;
    p->sweep_at_ms = 0;
    p->stalled = p->crowded = false;
    for (struct kithi_request *r = k->first; r; r = r->next) {
        r->epoch = k->epoch;
    }
    /* Answered by the turn, behind what it begins: the disk and the workers may have nothing to do meanwhile. */
    if (p->published) {
        p->published_last->next = k->first;
    } else {
        p->published = k->first;
    }
    p->published_last = k->last;
    k->first = k->last = NULL;
}

/* The log or workers have come further: groups that both are done with, or workers alone with one that does not wait for the
 * log, are over, in their order. */
static void advance(struct kithi_collection *c)
{
    struct kithi_pipeline *p = &c->pipeline;
    struct kithi_errmsg err;
    while (p->under_way) {
        struct kithi_commit *k = commit_at(p, 0);
        bool logged = p->log_status || kithi_wal_durable_epoch(c->wal) >= k->epoch;
        if (k->inserting || (k->durable && !logged)) {
            return;
        }
        p->oldest = (p->oldest + 1) % (KITHI_GROUPS_SEALED + 1);
        p->under_way--;
        c->daemon->again = true;
        if (!p->log_status) {
            publish(c, k);
            continue;
        }
        /* Not published, and never will be by this process: whether the bytes are on the disk is for the
         * next start to find out. */
        const struct kithi_errmsg *why = kithi_wal_failure(c->wal);
        kithi_error_set(&err, KITHI_E_LOG_FAILED,
                        "writing the log failed (%.200s); it is unknown whether this write is durable",
                        why ? why->text : kithi_error_text(p->log_status));
        commit_refuse(c, k, &err);
    }
    answer_synced(c);
}

static void log_failed(struct kithi_collection *c, int status)
{
    struct kithi_pipeline *p = &c->pipeline;
    const struct kithi_errmsg *why = kithi_wal_failure(c->wal);
    uint64_t visible = kithi_index_epoch(c->index), durable = kithi_index_durable_epoch(c->index);
    if (p->log_status) {
        return; /* told */
    }
    p->log_status = status;
    kithi_log(KITHI_LOG_ERROR, "log-failed",
              "name=%s epoch=%" PRIu64 " ahead=%" PRIu64 " msg=%s; kithd leaves, readers go on",
              c->settings.name, durable + 1, visible > durable ? visible - durable : 0,
              why ? why->text : kithi_error_text(status));
    kithi_daemon_fail(c->daemon);
    answer_synced(c);
}

/* Groups are done in the order in which they were handed over. */
static void log_done(void *arg, int status)
{
    struct kithi_collection *c = arg;
    struct kithi_pipeline *p = &c->pipeline;
    uint64_t handed_us = p->handed_us[(p->handed_at + KITHI_UNLOGGED_MAX - p->unlogged) % KITHI_UNLOGGED_MAX];
    uint64_t us = kithi_now_us() - handed_us;
    unsigned bucket = 0;
    while (bucket + 1 < KITHI_SYNC_BUCKETS && us >> bucket) {
        bucket++;
    }
    p->sync_us[bucket]++;
    p->sync_us_last = us;
    p->sync_us_sum += us;
    p->sync_us_max = us > p->sync_us_max ? us : p->sync_us_max;
    p->unlogged--;
    status = KITHI_FAULT("wal-write-eio") ? KITHI_E_LOG_FAILED : status;
    KITHI_FAULT_CRASH("crash-after-log");
    if (status) {
        log_failed(c, status);
    } else {
        struct kithi_wal_stats wal;
        kithi_wal_stats(c->wal, &wal);
        kithi_index_set_durable(c->index, wal.last_epoch);
        answer_synced(c);
    }
    if (!p->unlogged) {
        p->sweep_at_ms = 0; /* what died with the last one may go now */
    }
    advance(c);
}

static void insertion_job(void *arg, unsigned worker, uint32_t i)
{
    const struct kithi_commit *k = arg;
    kithi_group_job(k->collection->index, k->group, worker, i);
}

static void insertion_done(struct kithi_work *work)
{
    struct kithi_commit *k = work->arg;
    struct kithi_pipeline *p = &k->collection->pipeline;
    double us = (double)(kithi_now_us() - k->began_us) / work->n;
    p->insertion_us = p->insertion_us > 0 ? 0.75 * p->insertion_us + 0.25 * us : us;
    k->inserting = false;
    KITHI_FAULT_CRASH("crash-after-insertion");
    advance(k->collection);
}

static int iov_push(struct kithi_pipeline *p, void *data, size_t len)
{
    if (p->iov_count == p->iov_capacity) {
        size_t capacity = p->iov_capacity ? 2 * p->iov_capacity : 64;
        struct iovec *more = realloc(p->iov, capacity * sizeof *more);
        if (!more) {
            return -ENOMEM;
        }
        p->iov = more;
        p->iov_capacity = capacity;
    }
    p->iov[p->iov_count++] = (struct iovec){ .iov_base = data, .iov_len = len };
    return 0;
}

/* Whether dead slots, or replaced payloads, that become free by themselves may make room for a refused write. */
static bool room_may_come(const struct kithi_collection *c, const struct kithi_request *r)
{
    struct kithi_index_room room;
    kithi_index_room(c->index, &room);
    return (room.soon || room.payloads_soon) && r->upserts <= (uint64_t)room.soon + room.slots;
}

/* A write has room, having waited for some or not. */
static void room_found(struct kithi_collection *c)
{
    struct kithi_pipeline *p = &c->pipeline;
    if (p->full_us) {
        kithi_growth_waited(&c->growth, kithi_now_us() - p->full_us);
    }
    p->full_us = 0;
}

/* Stage the write at the head of the line to k. Returns false when staging has to pause for it. */
static bool stage_next(struct kithi_collection *c, struct kithi_commit *k, uint64_t now_ms)
{
    struct kithi_pipeline *p = &c->pipeline;
    struct kithi_request *r = p->line->first;
    struct kithi_errmsg err = { .text = "" };
    struct kithi_group_result result = { .failed_item = KITHI_NO_ITEM };

    if (c->dropping || c->condemned || c->daemon->failing) {
        line_take(p);
        if (c->dropping) {
            kithi_error_set(&err, KITHI_E_NO_COLLECTION, "collection \"%s\" is being dropped",
                            c->settings.name);
        } else if (!c->daemon->failing) {
            kithi_error_set(
                &err, KITHI_E_STARTING,
                "the segment of \"%s\" makes no sense and is built anew; nothing of this write was "
                "done, try again",
                c->settings.name);
        } else {
            kithi_error_set(&err, KITHI_E_LOG_FAILED,
                            "the write-ahead log failed; nothing of this write was done");
        }
        refuse(c, r, KITHI_NO_ITEM, &err);
        return true;
    }
    if (r->frame.count == 0) {
        line_take(p);
        answer_unchanged(c, r, kithi_index_epoch(c->index));
        return true;
    }
    size_t iov_count = p->iov_count, len = r->frame.len - WRITE_PREFIX;
    void *bytes = r->body + WRITE_PREFIX;
    const struct kithi_op *ops = r->ops;
    int status = r->merges ? kithi_merge_make(c->index, r, &result.failed_item, &err) : 0;
    if (!status && r->merges) {
        ops = r->merged->ops;
        bytes = r->merged->bytes;
        len = r->merged->len;
    }
    if (!status && iov_push(p, bytes, len)) {
        status = kithi_error_set(&err, -ENOMEM, "no memory for another request");
    }
    if (status) {
        /* said */
    } else if (r->upserts < r->frame.count && !r->written &&
               !(r->written = malloc(sizeof *r->written + (r->frame.count + 7) / 8))) {
        status = kithi_error_set(&err, -ENOMEM, "no memory for another request");
    } else {
        status = kithi_group_add(c->index, ops, r->frame.count, &result, &err);
    }
    if (status == KITHI_E_FULL || status == KITHI_E_NO_SPACE) {
        p->iov_count = iov_count;
        p->full_us = p->full_us ? p->full_us : kithi_now_us();
        /* Not one whose id has no place near its hash. */
        bool grows = status == KITHI_E_FULL && result.failed_item == KITHI_NO_ITEM &&
                     kithi_growth_want(c, r->upserts, now_ms, &err);
        if (k->first || p->under_way) {
            p->crowded = true; /* publish these first, then look again */
            return false;
        }
        if (kithi_index_census_due(c->index)) {
            p->stalled = true; /* what is free is not known yet; the next turn looks again */
            return false;
        }
        if (grows) {
            p->stalled = true; /* until there is a larger segment, or why there is none */
            r->refuse_ms = KITHI_NEVER;
            return false;
        }
        r->refuse_ms = r->refuse_ms == KITHI_NEVER ? 0 : r->refuse_ms;
        bool hope = room_may_come(c, r);
        if (hope && (!r->refuse_ms || kithi_image_held(c->index))) {
            r->refuse_ms =
                now_ms + ROOM_WAIT_MS; /* from the end of an image on: until then nothing becomes free */
            p->sweep_at_ms = 0;
        }
        if (hope && now_ms < r->refuse_ms) {
            kithi_sweep_hurry(c->index);
            p->stalled = true;
            return false;
        }
    }
    line_take(p);
    room_found(c);
    if (status) {
        p->iov_count = iov_count;
        if (!err.text[0]) {
            kithi_error_set(&err, status, "%s", kithi_error_text(status));
        }
        refuse(c, r, result.failed_item, &err);
        return true;
    }
    r->found = result.found;
    if (r->written) {
        memcpy(r->written + 1, result.missing, (r->frame.count + 7) / 8);
    }
    if (!r->upserts && !r->found) {
        p->iov_count = iov_count; /* changes nothing: nothing to log */
    } else {
        k->ops += r->frame.count;
        k->bytes += len;
    }
    /* Where one asks for it all wait: epochs become visible in their order. */
    k->durable |= r->durability == KITHI_DURABILITY_DURABLE || !kithi_marker_want(c, now_ms);
    commit_push(k, r);
    return true;
}

static uint64_t group_ops_limit(const struct kithi_pipeline *p)
{
    double us = p->calm ? CALM_US : GROUP_US;
    double n = p->insertion_us > 0 ? us / p->insertion_us : GROUP_OPS_MAX;
    return n < GROUP_OPS_MIN ? GROUP_OPS_MIN : n < GROUP_OPS_MAX ? (uint64_t)n : GROUP_OPS_MAX;
}

/* The log has not answered for so long that nothing may get further ahead of it. */
static bool log_lags(const struct kithi_collection *c, uint64_t now_us)
{
    const struct kithi_pipeline *p = &c->pipeline;
    uint32_t oldest = (p->handed_at + KITHI_UNLOGGED_MAX - p->unlogged) % KITHI_UNLOGGED_MAX;
    return p->unlogged && now_us - p->handed_us[oldest] > c->daemon->lag_ms * UINT64_C(1000);
}

/* Hand what is staged to the log, and let the workers begin. */
static void commit_log(struct kithi_collection *c)
{
    struct kithi_pipeline *p = &c->pipeline;
    struct kithi_commit *k = commit_at(p, p->under_way);
    struct kithi_errmsg err;
    k->epoch = kithi_index_epoch(c->index) + p->under_way + 1;
    k->began_us = kithi_now_us();
    int status = p->unlogged == KITHI_UNLOGGED_MAX ? -EBUSY
                                                   : kithi_wal_append(c->wal, k->epoch, p->iov, p->iov_count,
                                                                      (uint32_t)k->ops, log_done, c);
    p->log_waits = status == -EBUSY;
    if (p->log_waits) {
        return; /* the completion of what it waits for brings the next turn */
    }
    if (status) {
        kithi_group_abort(c->index);
        kithi_log(KITHI_LOG_ERROR, "log-refused", "name=%s epoch=%" PRIu64 " msg=%s", c->settings.name,
                  k->epoch, kithi_error_text(status));
        kithi_error_set(&err, status, "the log of \"%s\" cannot take this write: %s%s%s", c->settings.name,
                        kithi_error_text(status), status == -ENOSPC ? "; make room on the disk of " : "",
                        status == -ENOSPC ? c->daemon->data.path : "");
        if (status == KITHI_E_LOG_FAILED) {
            kithi_daemon_fail(c->daemon);
        }
        commit_refuse(c, k, &err);
        c->daemon->again = true;
        return;
    }
    KITHI_FAULT_CRASH("crash-after-append");
    k->durable |= log_lags(c, k->began_us);
    k->group = kithi_group_seal(c->index);
    p->under_way++;
    p->handed_us[p->handed_at] = k->began_us;
    p->handed_at = (p->handed_at + 1) % KITHI_UNLOGGED_MAX;
    p->unlogged++;
    k->insertion.n = kithi_group_job_count(k->group);
    if (k->insertion.n) {
        k->inserting = true;
        kithi_pool_submit(c->daemon->pool, &k->insertion);
    }
    for (struct kithi_request *r = k->first; r; r = r->next) {
        if (r->durability == KITHI_DURABILITY_NONE && !r->unchanged) {
            reply(c, r, k->epoch);
        }
    }
    advance(c); /* one without insertions that does not wait for the log */
}

/* Nothing of what was staged changes anything. Where a group under way may be why, it is answered with the last of them. */
static void commit_unchanged(struct kithi_collection *c, struct kithi_commit *k)
{
    struct kithi_pipeline *p = &c->pipeline;
    kithi_group_abort(c->index);
    while (k->first) {
        struct kithi_request *r = k->first;
        k->first = r->next;
        if (p->under_way) {
            r->unchanged = true;
            commit_push(commit_at(p, p->under_way - 1), r);
        } else {
            answer_unchanged(c, r, kithi_index_epoch(c->index));
        }
    }
}

static bool may_begin(const struct kithi_pipeline *p)
{
    /* Those that a write waits for may have been refused instead of published. */
    bool crowded = p->crowded && p->under_way;
    uint32_t most = p->calm ? CALM_GROUPS : KITHI_GROUPS_SEALED;
    return p->line && !p->log_waits && p->under_way < most && !p->stalled && !crowded && !p->held &&
           !p->closed;
}

/* Stage what waits, and hand it on; false when nothing could be. */
static bool commit_begin(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_pipeline *p = &c->pipeline;
    struct kithi_commit *k = commit_at(p, p->under_way);
    uint64_t ops_limit = group_ops_limit(p), copy_room = kithi_relayout_room(c);
    bool taken = false;
    ops_limit = ops_limit < copy_room ? ops_limit : copy_room;
    if (p->under_way) {
        /* Beyond that a start would have to look at every record. */
        uint32_t room = kithi_group_room(c->index);
        if (room < GROUP_OPS_MIN) {
            return false;
        }
        ops_limit = ops_limit < room ? ops_limit : room;
    }
    k->first = k->last = NULL;
    k->ops = k->bytes = 0;
    k->durable = false;
    p->iov_count = 0;
    p->crowded = false;
    uint32_t half = (p->outstanding + 1) / 2, left = half > GROUP_REQUESTS_MIN ? half : GROUP_REQUESTS_MIN;
    while (p->line && left > 0 && k->ops < ops_limit && k->bytes < GROUP_BYTES && stage_next(c, k, now_ms)) {
        taken = true;
        left--;
    }
    if (k->first && p->iov_count) {
        commit_log(c);
    } else if (k->first) {
        commit_unchanged(c, k);
    }
    return taken;
}

/* ---- sweeps ---- */

static void sweep_job(void *arg, unsigned worker, uint32_t i)
{
    struct kithi_collection *c = arg;
    kithi_sweep_job(c->index, worker, i);
}

/* An insertion that came meanwhile goes first. */
static void sweep_give_way(void *arg, unsigned worker)
{
    kithi_pool_give_way(arg, worker);
}

static void sweep_done(struct kithi_work *work)
{
    struct kithi_collection *c = work->arg;
    struct kithi_pipeline *p = &c->pipeline;
    KITHI_FAULT_CRASH("crash-in-sweep");
    kithi_sweep_end(c->index, kithi_now_ms());
    p->sweep_us += kithi_now_us() - p->sweep_began_us;
    p->sweeping = false;
    p->sweep_at_ms = 0;
}

static void sweep_begin(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_pipeline *p = &c->pipeline;
    struct kithi_sweep_state s;
    uint32_t wait_ms = UINT32_MAX;
    kithi_sweep_give_way(c->index, sweep_give_way, c->daemon->pool);
    p->sweep.n = kithi_sweep_begin(c->index, now_ms, &wait_ms);
    p->sweep_at_ms = wait_ms == UINT32_MAX ? KITHI_NEVER : now_ms + (wait_ms ? wait_ms : 1);
    bool stalled = p->stalled; /* somebody waits for room */
    p->stalled = false;
    if (p->sweep.n) {
        kithi_sweep_state(c->index, now_ms, &s);
        bool far_behind =
            s.waiting + s.running + s.resting > kithi_index_live(c->index) / SWEEP_BEHIND_SHARE || stalled;
        p->sweep.behind = far_behind ? SWEEP_PERCENT_BEHIND : SWEEP_PERCENT;
        p->sweep_began_us = kithi_now_us();
        p->sweeping = true;
        kithi_pool_submit(c->daemon->pool, &p->sweep);
    }
}

/* ---- huge pages ---- */

static void pages_job(void *arg, unsigned worker, uint32_t i)
{
    struct kithi_collection *c = arg;
    (void)worker;
    kithi_pages_job(c->index, i);
}

/* One line when they begin to be refused, one when all are there after that. */
static void pages_log(struct kithi_collection *c)
{
    struct kithi_pipeline *p = &c->pipeline;
    struct kithi_pages_state s;
    kithi_pages_state(c->index, &s);
    if (!s.refusal == !p->refusal) {
        return;
    }
    p->refusal = s.refusal;
    kithi_log(KITHI_LOG_INFO, "huge-pages",
              "name=%s huge_bytes=%" PRIu64 " wanted_bytes=%" PRIu64 " msg=%s%s%s", c->settings.name,
              s.huge_bytes, s.wanted_bytes,
              s.refusal ? "the kernel gives no more of them now: " : "all there",
              s.refusal ? kithi_error_text(s.refusal) : "",
              s.refusal ? "; searches are a little slower without, see kithd(8)" : "");
}

static void pages_done(struct kithi_work *work)
{
    struct kithi_collection *c = work->arg;
    kithi_pages_end(c->index, kithi_now_ms());
    c->pipeline.paging = false;
}

/* Returns when to be called again. */
static uint64_t pages_begin(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_pipeline *p = &c->pipeline;
    uint32_t wait_ms = UINT32_MAX;
    p->pages.n = kithi_pages_begin(c->index, now_ms, &wait_ms);
    pages_log(c);
    if (p->pages.n) {
        p->paging = true;
        kithi_pool_submit(c->daemon->pool, &p->pages);
    }
    return wait_ms == UINT32_MAX ? KITHI_NEVER : now_ms + wait_ms;
}

/* ---- public ---- */

void kithi_pipeline_init(struct kithi_pipeline *p, struct kithi_collection *c)
{
    for (uint32_t i = 0; i < KITHI_GROUPS_SEALED + 1; i++) {
        struct kithi_commit *k = &p->commits[i];
        k->collection = c;
        k->insertion = (struct kithi_work){ .fn = insertion_job, .done = insertion_done, .arg = k };
    }
    p->sweep = (struct kithi_work){ .fn = sweep_job, .done = sweep_done, .arg = c };
    p->pages = (struct kithi_work){ .fn = pages_job, .done = pages_done, .arg = c };
    p->sweep_at_ms = 0;
}

void kithi_pipeline_fini(struct kithi_pipeline *p)
{
    free(p->iov);
}

void kithi_pipeline_write(struct kithi_collection *c, struct kithi_backlog *b, struct kithi_request *r)
{
    struct kithi_pipeline *p = &c->pipeline;
    r->collection = c;
    r->seq = p->seq++;
    r->next = NULL;
    p->requests++;
    p->outstanding++;
    c->daemon->again = true;
    if (b->first) {
        b->last->next = r;
    } else {
        b->first = r;
        line_push(c, b);
    }
    b->last = r;
}

void kithi_pipeline_flush(struct kithi_collection *c, struct kithi_request *r)
{
    struct kithi_pipeline *p = &c->pipeline;
    if (!p->outstanding) {
        answer_durable(c, r, kithi_index_epoch(c->index));
        return;
    }
    r->seq = p->seq;
    r->waits_for = p->outstanding;
    r->next = p->flushes;
    p->flushes = r;
    p->flush_count++;
}

uint64_t kithi_pipeline_turn(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_pipeline *p = &c->pipeline;
    uint64_t again_ms = KITHI_NEVER;
    bool leaving = c->dropping || c->condemned || c->daemon->failing;
    /* On the way out only a write that waits for room still needs one. */
    bool closing = kithi_relayout_is_closing(&c->relayout) || p->calm;
    bool sweep = !leaving && !p->held && !closing && (!c->daemon->stopping || p->stalled);
    if (!p->sweeping && sweep && now_ms >= p->sweep_at_ms) {
        sweep_begin(c, now_ms);
    }
    if (p->stalled && (leaving || now_ms >= p->line->first->refuse_ms)) {
        p->stalled = false;
    }
    if (p->log_waits) {
        commit_log(c);
    }
    /* A group that only refused or changed nothing leaves room for the next at once. */
    bool slowed = !leaving && kithi_checkpointer_is_full(c); /* until its end, which brings the next turn */
    while (!slowed && may_begin(p) && (leaving || kithi_relayout_room(c)) && commit_begin(c, now_ms)) {
        continue;
    }
    answer_published(c);
    if (p->stalled) {
        again_ms = p->line->first->refuse_ms;
    }
    if (!p->sweeping && sweep && p->sweep_at_ms < again_ms) {
        again_ms = p->sweep_at_ms;
    }
    /* After a group was staged: what it took is asked for while nothing is in it. */
    if (!p->paging && !p->held && !closing && !leaving && !c->daemon->stopping &&
        kithi_growth_idle(&c->growth)) {
        uint64_t pages_at_ms = pages_begin(c, now_ms);
        again_ms = pages_at_ms < again_ms ? pages_at_ms : again_ms;
    }
    return again_ms;
}

/* Nothing is under way but requests that wait for something. */
static bool is_still(const struct kithi_collection *c)
{
    const struct kithi_pipeline *p = &c->pipeline;
    return !p->log_waits && !p->under_way && !p->published && !p->unlogged && !p->sweeping && !p->paging;
}

bool kithi_pipeline_hold(struct kithi_collection *c, bool on)
{
    struct kithi_pipeline *p = &c->pipeline;
    p->held = on; /* a write that waits for room does so in the index that comes */
    return p->held && is_still(c);
}

void kithi_pipeline_calm(struct kithi_collection *c, bool on)
{
    struct kithi_pipeline *p = &c->pipeline;
    c->daemon->again |= p->calm && !on;
    p->calm = on;
}

void kithi_pipeline_close(struct kithi_collection *c, bool on)
{
    struct kithi_pipeline *p = &c->pipeline;
    c->daemon->again |= p->closed && !on;
    p->closed = on;
}

bool kithi_pipeline_ended(const struct kithi_collection *c, uint64_t epoch)
{
    const struct kithi_pipeline *p = &c->pipeline;
    bool ended = true;
    for (uint32_t i = 0; i < p->under_way; i++) {
        const struct kithi_commit *k = &p->commits[(p->oldest + i) % (KITHI_GROUPS_SEALED + 1)];
        ended = ended && (!k->inserting || k->epoch > epoch);
    }
    return ended;
}

void kithi_pipeline_room(struct kithi_collection *c)
{
    struct kithi_pipeline *p = &c->pipeline;
    p->stalled = p->crowded = false;
    p->sweep_at_ms = 0;
    c->daemon->again = true;
}

uint64_t kithi_pipeline_ops_under_way(const struct kithi_collection *c)
{
    const struct kithi_pipeline *p = &c->pipeline;
    uint64_t ops = 0;
    for (uint32_t i = 0; i < p->under_way; i++) {
        ops += p->commits[(p->oldest + i) % (KITHI_GROUPS_SEALED + 1)].ops;
    }
    return ops;
}

void kithi_pipeline_anew(struct kithi_pipeline *p)
{
    p->insertion_us = 0;
    p->sweep_at_ms = 0;
    p->stalled = p->crowded = false;
    p->refusal = 0;
}

bool kithi_pipeline_idle(const struct kithi_collection *c)
{
    const struct kithi_pipeline *p = &c->pipeline;
    return is_still(c) && !p->outstanding && !p->flushes && !p->unsynced;
}

/* A path as a JSON value; null when it is no text, or longer than anybody's is. */
static void path_json(char out[PATH_JSON_SIZE], const char *path)
{
    if (kithi_id_valid(path, strlen(path))) { /* UTF-8 of up to 511 bytes */
        kithi_json_text(out, path);
    } else {
        snprintf(out, PATH_JSON_SIZE, "null");
    }
}

/* Relaxed: a figure for people, which this thread stored. */
static uint64_t tally(const _Atomic uint64_t *w)
{
    return atomic_load_explicit(w, memory_order_relaxed);
}

int kithi_pipeline_stats(const struct kithi_collection *c, const char *relayout, const char *recall,
                         const char *readers, char *out, size_t size)
{
    const struct kithi_pipeline *p = &c->pipeline;
    const struct kithi_daemon *d = c->daemon;
    const struct kithi_checkpointer *k = &c->checkpointer;
    const struct kithi_audit *a = &c->audit;
    const struct kithi_header *h = kithi_map_header(kithi_index_map(c->index));
    struct kithi_sweep_state s;
    struct kithi_wal_stats wal;
    kithi_wal_stats(c->wal, &wal);
    kithi_sweep_state(c->index, kithi_now_ms(), &s);
    char histogram[KITHI_SYNC_BUCKETS * 22 + 1], data_dir[PATH_JSON_SIZE], growth[KITHI_GROWTH_JSON_SIZE];
    size_t at = 0;
    int grown = kithi_growth_stats(c, growth, sizeof growth);
    KITHI_ASSERT(grown > 0);
    path_json(data_dir, d->data_real);
    for (unsigned i = 0; i < KITHI_SYNC_BUCKETS; i++) {
        at += (size_t)snprintf(histogram + at, sizeof histogram - at, "%s%" PRIu64, i ? "," : "",
                               p->sync_us[i]);
    }
    int n = snprintf(
        out, size,
        "{\"name\":\"%s\",\"epoch\":%" PRIu64 ",\"durable_epoch\":%" PRIu64 ",\"live\":%" PRIu64
        ",\"unlogged_groups\":%u,\"lag_ms\":%u,\"waiting\":%u,\"requests\":%" PRIu64 ",\"refused\":%" PRIu64
        ",\"groups\":%" PRIu64 ",\"ops\":%" PRIu64 ",\"op_bytes\":%" PRIu64
        ",\"ops_per_group\":%.1f,\"sync_us_last\":%" PRIu64 ",\"sync_us_max\":%" PRIu64
        ",\"sync_us_sum\":%" PRIu64 ",\"sync_us_below_pow2\":[%s],\"wal_groups\":%" PRIu64
        ",\"wal_writes\":%" PRIu64 ",\"wal_recycled\":%" PRIu64 ",\"wal_bytes\":%" PRIu64
        ",\"wal_files\":%" PRIu64 ",\"wal_direct\":%s,\"wal_file\":\"%s\""
        ",\"wal_file_off\":%" PRIu64 ",\"checkpoint_epoch\":%" PRIu64 ",\"checkpoint_older_epoch\":%" PRIu64
        ",\"checkpoint_running\":%s,\"checkpoints\":%" PRIu64 ",\"checkpoint_failures\":%" PRIu64
        ",\"checkpoint_bytes\":%" PRIu64 ",\"checkpoint_ms\":%" PRIu64 ",\"checkpoint_log_bytes\":%" PRIu64
        ",\"checkpoint_time\":%" PRId64 ",\"sweeping\":%s,\"sweeps\":%" PRIu64 ",\"dead\":%" PRIu64
        ",\"resting\":%" PRIu64 ",\"free\":%" PRIu64
        ",\"repair_waiting\":%u,\"repair_running\":%u,\"repair_oldest_ms\":%" PRIu64 ",\"repaired\":%" PRIu64
        ",\"repair_ms\":%" PRIu64 ",\"repair_links\":%" PRIu64 ",\"repair_anew\":%" PRIu64
        ",\"audits\":%" PRIu64 ",\"audit_epoch\":%" PRIu64 ",\"audit_rests\":%s,\"unreachable\":%" PRIu64
        ",\"unreachable_found\":%" PRIu64 ",\"relinked\":%" PRIu64 ",\"samples\":%" PRIu64
        ",\"samples_missed\":%" PRIu64 ",\"up_ms\":%" PRIu64
        ",\"growth\":%s,\"relayout\":%s,\"io\":\"%s\",\"workers\":%u,\"clients\":%u,\"version\":\"%s\",\"data_dir\":%s,\"recall\":%s,\"readers\":%s}",
        c->settings.name, kithi_index_epoch(c->index), kithi_index_durable_epoch(c->index),
        kithi_index_live(c->index), p->unlogged, d->lag_ms, p->outstanding, p->requests, p->refused,
        p->groups, p->ops, p->bytes, p->groups ? (double)p->ops / (double)p->groups : 0.0, p->sync_us_last,
        p->sync_us_max, p->sync_us_sum, histogram, wal.groups, wal.writes, wal.recycled, wal.bytes, wal.files,
        wal.direct ? "true" : "false", wal.file, wal.file_off, k->last_epoch, k->older_epoch,
        k->step == CHECKPOINTER_REST ? "false" : "true", k->count, k->failures, k->image_bytes, k->took_ms,
        wal.bytes - k->log_bytes, k->last_time, p->sweeping ? "true" : "false", tally(&h->tally_sweeps),
        tally(&h->tally_dead), tally(&h->tally_resting), tally(&h->tally_free), s.waiting, s.running,
        s.oldest_ms, s.repaired, p->sweep_us / 1000, s.handed_on, s.torn, a->passes, a->epoch,
        a->done_mark == kithi_audit_mark(c->index) ? "true" : "false", a->unreachable, a->found, a->relinked,
        a->samples, a->samples_missed, kithi_now_ms() - d->started_ms, growth, relayout, kithi_io_name(d->io),
        kithi_pool_threads(d->pool), d->session_count, KITH_VERSION, data_dir, recall, readers);
    return n < 0 || (size_t)n >= size ? -ENOSPC : n;
}
