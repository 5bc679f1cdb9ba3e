/*
 * checkpointer.c - see checkpointer.h.
 */
#include "server/writer/checkpointer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/wal/append.h"
#include "server/wal/files.h"
#include "server/writer/backup.h"
#include "server/writer/collection.h"
#include "shm/base/checksum.h"

/* After a failure, and between two that nobody asked for. */
#define AGAIN_MS 60000u
/* Writes wait when so large a share of the slots in use is dead or rests for the image's sake, and more than a few. */
#define HELD_SHARE 4u
#define HELD_MIN   4096u
/* Of the log that makes one due, so much more may be written while it is copied. */
#define LOG_SHARE 8u
/* Who has written so lately will again: a client that waits for each answer leaves gaps. */
#define QUIET_MS 50u
#define HOLD_NS  2000000 /* between two looks whether a test holds it still */

static void pump(struct kithi_collection *c);

/* ---- being asked ---- */

static void answer_all(struct kithi_collection *c, int status)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    struct kithi_request *list = k->waiting;
    k->waiting = NULL;
    while (list) {
        struct kithi_request *r = list;
        list = r->next;
        if (status) {
            kithi_request_refuse(r, KITHI_NO_ITEM, &k->err);
        } else if (r->seq <= k->last_epoch && r->backup) {
            kithi_backup_open(c, r);
        } else if (r->seq <= k->last_epoch) {
            struct kithi_answer a = { .item = KITHI_NO_ITEM, .epoch = k->last_epoch };
            kithi_request_answer(r, &a);
        } else { /* it came while an earlier one was being written */
            r->next = k->waiting;
            k->waiting = r;
        }
    }
}

void kithi_checkpointer_request(struct kithi_collection *c, struct kithi_request *r)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    r->seq = kithi_index_epoch(c->index);
    r->next = k->waiting;
    k->waiting = r;
    if (k->step == CHECKPOINTER_REST && k->last_epoch == r->seq && r->seq > 0 && !k->distrusted &&
        !k->outdated) {
        answer_all(c, 0); /* nothing has changed since */
    }
    c->daemon->again = true;
}

void kithi_checkpointer_outdate(struct kithi_collection *c)
{
    c->checkpointer.outdated = kithi_index_epoch(c->index) > 0;
    c->daemon->again = true;
}

void kithi_checkpointer_distrust(struct kithi_collection *c, uint64_t epoch)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    k->distrusted |= k->last_epoch == epoch;
}

/* ---- buffers ---- */

static void copy_job(void *arg, unsigned worker, uint32_t i)
{
    struct kithi_checkpoint_buffer *b = arg;
    struct kithi_checkpointer *k = &b->collection->checkpointer;
    struct kithi_checkpoint_chunk chunk = kithi_checkpoint_chunk_at(&k->header, &k->plan, b->chunk);
    (void)worker;
    (void)i;
    b->status = kithi_image_copy(k->image, chunk.region, chunk.off, chunk.len, b->bytes);
    memset(b->bytes + chunk.len, 0, chunk.size - chunk.len);
    k->sums[b->chunk] = kithi_crc32c(0, b->bytes, chunk.size);
}

static void give_up(struct kithi_checkpointer *k, int status, const char *what)
{
    if (!k->status) {
        k->status =
            kithi_error_set(&k->err, status, "%s %s failed: %s", what, k->path, kithi_error_text(status));
    }
}

static void copy_done(struct kithi_work *work)
{
    struct kithi_checkpoint_buffer *b = work->arg;
    struct kithi_checkpointer *k = &b->collection->checkpointer;
    struct kithi_checkpoint_chunk chunk = kithi_checkpoint_chunk_at(&k->header, &k->plan, b->chunk);
    KITHI_FAULT_CRASH("crash-in-checkpoint");
    k->records_left -= chunk.region == KITHI_REGION_RECORDS;
    if (b->status) {
        give_up(k, b->status, "copying the collection to");
        b->busy = false;
        k->flying--;
        pump(b->collection);
        return;
    }
    kithi_io_write(b->collection->daemon->io, &b->op, k->fd, b->bytes, chunk.size, chunk.file_off);
    pump(b->collection); /* records may have been waited for */
}

static void write_done(struct kithi_io_op *op, int result)
{
    struct kithi_checkpoint_buffer *b = op->arg;
    struct kithi_checkpointer *k = &b->collection->checkpointer;
    if (KITHI_FAULT("checkpoint-write-enospc")) {
        result = -ENOSPC;
    }
    if (result < 0) {
        give_up(k, result, "writing");
    }
    b->busy = false;
    k->flying--;
    pump(b->collection);
}

/* ---- the helper's part ---- */

static int create_call(void *arg)
{
    struct kithi_collection *c = arg;
    struct kithi_checkpointer *k = &c->checkpointer;
    struct kithi_io *io = c->daemon->io;
    void *head = NULL;
    bool direct;
    while (KITHI_FAULT_HELD("checkpoint", c->settings.name)) {
        nanosleep(&(struct timespec){ .tv_nsec = HOLD_NS }, NULL);
    }
    k->fd = kithi_io_file_create(io, k->path, true, &direct);
    int r = k->fd < 0 ? k->fd : kithi_io_file_allocate(io, k->fd, k->plan.file_size);
    if (r >= 0) {
        r = -posix_memalign(&head, KITHI_CHECKPOINT_BLOCK, KITHI_CHECKPOINT_BLOCK);
    }
    if (r >= 0) {
        kithi_checkpoint_header_encode(head, &k->header);
        r = kithi_io_file_write(io, k->fd, head, KITHI_CHECKPOINT_BLOCK, 0);
    }
    free(head);
    return r < 0 ? r : 0;
}

/* Checkpoints beyond the two newest. What cannot be removed is there at the next one still. */
static void remove_older(struct kithi_collection *c, uint64_t keep)
{
    uint64_t *epochs = NULL;
    char name[KITHI_CHECKPOINT_NAME_SIZE], path[KITHI_PATH_MAX];
    int64_t n = kithi_checkpoint_list(c->data_dir, &epochs, NULL);
    for (int64_t i = 0; i < n; i++) {
        kithi_checkpoint_name(name, epochs[i]);
        if (epochs[i] < keep && !kithi_path(path, NULL, "%s/%s", c->data_dir, name)) {
            (void)kithi_io_file_unlink(c->daemon->io, path);
        }
    }
    free(epochs);
}

/* Table, sync, name; afterwards it is one that a start relies on. */
static int complete(struct kithi_collection *c)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    struct kithi_io *io = c->daemon->io;
    char path[KITHI_PATH_MAX];
    void *table = NULL;
    int r = kithi_path(path, NULL, "%s/%s", c->data_dir, k->name);
    if (r == 0) {
        r = -posix_memalign(&table, KITHI_CHECKPOINT_BLOCK, k->plan.table_size);
    }
    if (r == 0) {
        kithi_checkpoint_table_encode(table, &k->header, &k->plan, k->sums, k->end_epoch);
        r = kithi_io_file_write(io, k->fd, table, k->plan.table_size, k->plan.table_off);
    }
    free(table);
    if (r >= 0) {
        r = KITHI_FAULT("checkpoint-sync-eio") ? -EIO : kithi_io_file_sync(io, k->fd);
    }
    KITHI_FAULT_CRASH("crash-before-checkpoint-named");
    if (r >= 0) {
        r = kithi_io_file_rename(io, k->path, path);
    }
    KITHI_FAULT_CRASH("crash-after-checkpoint-named");
    return r >= 0 ? kithi_io_dir_sync(io, c->data_dir) : r;
}

static int finish_call(void *arg)
{
    struct kithi_collection *c = arg;
    struct kithi_checkpointer *k = &c->checkpointer;
    int r = k->status ? k->status : complete(c);
    if (r < 0) {
        (void)kithi_io_file_unlink(c->daemon->io, k->path);
        return r;
    }
    /* The one that was the newest before is the older one now. */
    if (k->last_epoch && k->last_epoch < k->header.epoch) {
        remove_older(c, k->last_epoch);
        kithi_wal_trim(c->daemon->io, c->wal_dir, k->last_epoch, k->recycles);
    }
    KITHI_FAULT_CRASH("crash-after-trim");
    return 0;
}

/* ---- steps ---- */

static void release(struct kithi_checkpointer *k)
{
    kithi_image_end(k->image);
    k->image = NULL;
    free(k->sums);
    k->sums = NULL;
    for (unsigned i = 0; i < KITHI_CHECKPOINT_BUFFERS; i++) {
        free(k->buffers[i].bytes);
        k->buffers[i].bytes = NULL;
    }
}

static void rest(struct kithi_collection *c, int status)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    uint64_t now_ms = kithi_now_ms();
    kithi_io_close(c->daemon->io, k->fd);
    k->fd = -1;
    release(k);
    k->step = CHECKPOINTER_REST;
    k->slowing = false;
    c->daemon->again = true;
    if (status) {
        k->failures++;
        k->again_ms = now_ms + AGAIN_MS;
        k->last_failed = c->daemon->stopping;
        if (status == -ENOSPC || status == -EDQUOT) {
            kithi_error_set(&k->err, status,
                            "no room for a checkpoint of %" PRIu64
                            " KiB in %.200s; the log is kept instead, make room",
                            k->plan.file_size >> 10, c->data_dir);
        }
        kithi_log(status == -ECANCELED ? KITHI_LOG_INFO : KITHI_LOG_WARN, "checkpoint-failed",
                  "name=%s epoch=%" PRIu64 " status=%s msg=%s", c->settings.name, k->header.epoch,
                  kithi_error_name(status), k->err.text);
        answer_all(c, status);
        return;
    }
    k->distrusted = false;
    k->outdated &= k->generation != kithi_index_map(c->index)->generation;
    if (k->last_epoch != k->header.epoch) { /* else it took the damaged one's place */
        k->older_epoch = k->last_epoch;
    }
    k->last_epoch = k->header.epoch;
    k->last_ms = k->began_ms;
    k->last_time = (int64_t)time(NULL);
    k->log_bytes = k->log_bytes_then;
    k->image_bytes = k->plan.file_size;
    k->count++;
    k->took_ms = now_ms - k->began_ms;
    kithi_log(KITHI_LOG_INFO, "checkpoint",
              "name=%s epoch=%" PRIu64 " live=%" PRIu64 " bytes=%" PRIu64 " ms=%" PRIu64, c->settings.name,
              k->last_epoch, k->header.live, k->image_bytes, k->took_ms);
    answer_all(c, 0);
}

static void finish_done(struct kithi_io_op *op, int status)
{
    struct kithi_collection *c = op->arg;
    struct kithi_checkpointer *k = &c->checkpointer;
    if (status && !k->status) {
        give_up(k, status, "completing");
    }
    rest(c, status);
}

/* A start refuses a log that ends before the epoch that the checkpoint names: so that epoch has to be durable first, which it is
 * but for writes that did not ask for it. */
static void settle(struct kithi_collection *c)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    if (!k->status && c->daemon->failing) {
        k->status = kithi_error_set(&k->err, -ECANCELED, "kithd leaves: a log has failed");
    }
    if (!k->status && kithi_index_durable_epoch(c->index) < k->end_epoch) {
        return; /* the log's completion brings the next turn */
    }
    k->recycles = c->daemon->backups == 0; /* none begins before this has ended */
    k->step = CHECKPOINTER_FINISH;
    k->op.done = finish_done;
    kithi_io_call(c->daemon->io, &k->op, finish_call);
    c->daemon->again = true;
}

static void finish(struct kithi_collection *c)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    /* All of it is copied: slots may be reused, while the disk is at it. */
    kithi_image_end(k->image);
    k->image = NULL;
    k->end_epoch = kithi_index_epoch(c->index);
    k->slowing = false;
    k->step = CHECKPOINTER_SETTLE;
    settle(c);
}

/* Does anybody write, to whichever collection? All of them share workers and disk. */
static bool is_written(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    uint64_t writes = 0;
    bool waits = false;
    for (const struct kithi_collection *o = c->daemon->collections; o; o = o->next) {
        writes += o->pipeline.requests;
        waits |= o->pipeline.outstanding > 0;
    }
    if (waits || writes != k->writes_seen) {
        k->writes_seen = writes;
        k->written_ms = now_ms;
    }
    return now_ms < k->written_ms + QUIET_MS;
}

/* May the next chunk be handed out? Else pump_ms says when to ask again. */
static bool is_next_due(struct kithi_collection *c)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    struct kithi_checkpoint_chunk chunk = kithi_checkpoint_chunk_at(&k->header, &k->plan, k->next);
    struct kithi_wal_stats wal;
    uint64_t now_ms = kithi_now_ms();
    /* A write that waits for room waits for the slots that are kept for the image. */
    if (!is_written(c, now_ms) || c->pipeline.stalled || c->daemon->stopping) {
        return true;
    }
    kithi_wal_stats(c->wal, &wal);
    if (chunk.file_off <= kithi_pace_allows(&k->pace, now_ms, kithi_image_held(c->index), wal.bytes)) {
        return true;
    }
    uint64_t line_ms = kithi_pace_when(&k->pace, chunk.file_off), quiet_ms = k->written_ms + QUIET_MS;
    k->pump_ms = line_ms < quiet_ms ? line_ms : quiet_ms;
    return false;
}

/* Hand chunks to buffers that are free; see to the end. */
static void pump(struct kithi_collection *c)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    uint32_t records_end = k->plan.first[KITHI_REGION_RECORDS + 1];
    k->pump_ms = KITHI_NEVER;
    if (!k->status && (c->dropping || c->daemon->failing)) {
        k->status = kithi_error_set(&k->err, -ECANCELED, "%s",
                                    c->dropping ? "the collection is being dropped"
                                                : "kithd leaves: a log has failed");
    }
    for (unsigned i = 0; i < KITHI_CHECKPOINT_BUFFERS; i++) {
        struct kithi_checkpoint_buffer *b = &k->buffers[i];
        if (k->status || k->next == k->plan.chunk_count) {
            break;
        }
        /* Links are judged by all records. */
        if (b->busy || (k->next >= records_end && k->records_left)) {
            continue;
        }
        if (!is_next_due(c)) {
            break;
        }
        b->busy = true;
        b->chunk = k->next++;
        k->flying++;
        kithi_pool_submit(c->daemon->pool, &b->work);
    }
    if (k->flying == 0 && (k->status || k->next == k->plan.chunk_count)) {
        finish(c);
    }
}

static void create_done(struct kithi_io_op *op, int status)
{
    struct kithi_collection *c = op->arg;
    struct kithi_checkpointer *k = &c->checkpointer;
    if (status) {
        give_up(k, status, "creating");
    }
    k->step = CHECKPOINTER_COPY;
    k->pace.began_ms = kithi_now_ms();
    pump(c);
}

static int prepare(struct kithi_collection *c)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    const struct kithi_map *map = kithi_index_map(c->index);
    struct timespec now;
    int status = kithi_path(k->path, &k->err, "%s/%s", c->data_dir, KITHI_CHECKPOINT_NEW);
    if (!status) {
        status = kithi_image_begin(c->index, &k->image, &k->err);
    }
    if (status) {
        return status;
    }
    const struct kithi_image_shape *s = kithi_image_shape(k->image);
    k->generation = map->generation;
    clock_gettime(CLOCK_REALTIME, &now);
    k->header = (struct kithi_checkpoint_header){
        .epoch = s->epoch,
        .timeline = s->timeline,
        .live = s->live,
        .created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
        .layout_sum = map->layout.sum,
        .geometry = map->geometry,
        .segment_version = KITHI_FORMAT_VERSION,
        .slots = s->slots,
        .uppers = s->uppers,
    };
    memcpy(k->header.uid, c->settings.uid, sizeof k->header.uid);
    memcpy(k->header.blobs, s->blobs, sizeof k->header.blobs);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        k->header.regions[r].bytes = s->regions[r].bytes;
        k->header.regions[r].chunk = s->regions[r].chunk;
    }
    kithi_checkpoint_name(k->name, s->epoch);
    bool good = kithi_checkpoint_plan(&k->header, &k->plan);
    k->sums = good ? calloc((size_t)k->plan.chunk_count + 1, sizeof *k->sums) : NULL;
    good = good && k->sums;
    for (unsigned i = 0; i < KITHI_CHECKPOINT_BUFFERS && good; i++) {
        void *bytes = NULL;
        good = posix_memalign(&bytes, KITHI_CHECKPOINT_BLOCK,
                              (size_t)k->plan.chunk_max + KITHI_CHECKPOINT_BLOCK) == 0;
        k->buffers[i].bytes = bytes;
    }
    return good ? 0 : kithi_error_set(&k->err, -ENOMEM, "no memory for a checkpoint");
}

static uint64_t log_limit(const struct kithi_collection *c)
{
    uint64_t limit = c->daemon->checkpoint_log_bytes,
             share = c->checkpointer.image_bytes / KITHI_CHECKPOINT_WAL_SHARE;
    return limit > share ? limit : share;
}

/* With more slots than that kept for an image writes wait. */
static uint64_t held_limit(const struct kithi_collection *c)
{
    uint64_t share = kithi_index_live(c->index) / HELD_SHARE;
    return share > HELD_MIN ? share : HELD_MIN;
}

static void begin(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    struct kithi_wal_stats wal;
    kithi_wal_stats(c->wal, &wal);
    k->began_ms = now_ms;
    k->log_bytes_then = wal.bytes;
    k->next = k->flying = 0;
    k->status = 0;
    int status = prepare(c);
    if (status) {
        rest(c, status);
        return;
    }
    k->records_left = k->plan.first[KITHI_REGION_RECORDS + 1] - k->plan.first[KITHI_REGION_RECORDS];
    k->pace = (struct kithi_pace){ .bytes = k->plan.file_size,
                                   .rate = c->daemon->checkpoint_rate ? c->daemon->checkpoint_rate
                                                                      : KITHI_PACE_RATE_DEFAULT,
                                   .began_ms = now_ms,
                                   .held_first = kithi_image_held(c->index),
                                   .held_most = held_limit(c),
                                   .log_first = wal.bytes,
                                   .log_room = log_limit(c) / LOG_SHARE };
    kithi_log(KITHI_LOG_DEBUG, "checkpoint-begins", "name=%s epoch=%" PRIu64 " bytes=%" PRIu64,
              c->settings.name, k->header.epoch, k->plan.file_size);
    k->step = CHECKPOINTER_CREATE;
    k->op.done = create_done;
    kithi_io_call(c->daemon->io, &k->op, create_call);
}

/* ---- turns ---- */

static bool is_changed(const struct kithi_collection *c)
{
    return kithi_index_epoch(c->index) != c->checkpointer.last_epoch || c->checkpointer.outdated;
}

/* On the way out, once nothing is written any more: what the next cold start would have to replay. */
static bool is_last_due(const struct kithi_collection *c)
{
    return c->daemon->stopping && !c->daemon->failing && !c->dropping && !c->condemned && is_changed(c) &&
           !c->checkpointer.last_failed && !kithi_index_census_due(c->index);
}

/* Is one due by itself? Else *out_ms says when it may be. */
static bool is_due(const struct kithi_collection *c, uint64_t now_ms, uint64_t *out_ms)
{
    const struct kithi_checkpointer *k = &c->checkpointer;
    struct kithi_wal_stats wal;
    if (c->daemon->stopping || !is_changed(c)) {
        return false;
    }
    kithi_wal_stats(c->wal, &wal);
    uint64_t by_ms = k->last_ms + c->daemon->checkpoint_age_ms;
    if (now_ms < k->again_ms) {
        *out_ms = k->again_ms;
        return false;
    }
    *out_ms = by_ms;
    return now_ms >= by_ms || k->outdated || wal.bytes - k->log_bytes >= log_limit(c);
}

uint64_t kithi_checkpointer_turn(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    uint64_t again_ms = KITHI_NEVER;
    if (k->step == CHECKPOINTER_SETTLE) {
        settle(c);
        return KITHI_NEVER;
    }
    if (k->step == CHECKPOINTER_COPY) {
        pump(c);
    }
    if (k->step != CHECKPOINTER_REST) {
        if (k->slowing != kithi_checkpointer_is_full(c) && !k->slowing) {
            k->slowing = true;
            kithi_log(
                KITHI_LOG_WARN, "checkpoint-slows",
                "name=%s held=%u msg=writes wait until the checkpoint is copied: too many slots have died since it "
                "began",
                c->settings.name, kithi_image_held(c->index));
        }
        return k->step == CHECKPOINTER_COPY ? k->pump_ms : KITHI_NEVER;
    }
    if (c->dropping || c->condemned || c->daemon->failing) {
        int status = c->condemned && !c->daemon->stopping ? KITHI_E_STARTING : KITHI_E_SHUTDOWN;
        kithi_error_set(
            &k->err, status, "%s",
            c->dropping                  ? "the collection is being dropped"
            : status == KITHI_E_STARTING ? "the segment makes no sense and is built anew; try again"
            : c->condemned ? "the daemon is stopping: the segment makes no sense and has to be built anew"
                           : "the daemon is stopping: a log failed");
        answer_all(c, status);
        return KITHI_NEVER;
    }
    if (kithi_index_census_due(
            c->index)) { /* no image before it is over, of which there may be no end without memory */
        if (c->daemon->stopping && k->waiting) {
            kithi_error_set(&k->err, KITHI_E_SHUTDOWN,
                            "the daemon is stopping, and not done yet with looking at what it took over");
            answer_all(c, KITHI_E_SHUTDOWN);
        }
        return KITHI_NEVER;
    }
    if (kithi_relayout_is_closing(&c->relayout) || c->pipeline.held || k->giving) {
        return KITHI_NEVER; /* its end brings the next turn */
    }
    bool last = is_last_due(c) && kithi_pipeline_idle(c);
    if (k->waiting || last || is_due(c, now_ms, &again_ms)) {
        begin(c, now_ms);
        again_ms = KITHI_NEVER;
    }
    return again_ms;
}

bool kithi_checkpointer_idle(const struct kithi_collection *c)
{
    return c->checkpointer.step == CHECKPOINTER_REST && !c->checkpointer.waiting && !c->checkpointer.giving &&
           !is_last_due(c);
}

bool kithi_checkpointer_is_full(const struct kithi_collection *c)
{
    return kithi_image_held(c->index) > held_limit(c);
}

/* ---- life ---- */

/* Bytes of the files that hold what comes after epoch. */
static uint64_t log_after(const struct kithi_collection *c, uint64_t epoch)
{
    struct kithi_wal_file *files = NULL;
    uint64_t bytes = 0;
    int64_t n = kithi_wal_files_list(c->wal_dir, &files, NULL);
    for (int64_t i = 0; i < n; i++) {
        bool covered = i + 1 < n && files[i + 1].first_epoch <= epoch + 1;
        bytes += covered ? 0 : KITHI_WAL_FILE_SIZE_DEFAULT;
    }
    free(files);
    return bytes;
}

/* When a checkpoint was finished, as its file has it. */
static int64_t time_of(const struct kithi_collection *c, uint64_t epoch)
{
    char path[KITHI_PATH_MAX], name[KITHI_CHECKPOINT_NAME_SIZE];
    struct stat st;
    kithi_checkpoint_name(name, epoch);
    bool known = epoch && !kithi_path(path, NULL, "%s/%s", c->data_dir, name) && !lstat(path, &st);
    return known ? (int64_t)st.st_mtim.tv_sec : 0;
}

void kithi_checkpointer_found(struct kithi_collection *c, uint64_t last_epoch, uint64_t older_epoch)
{
    struct kithi_checkpointer *k = &c->checkpointer;
    k->last_epoch = last_epoch;
    k->older_epoch = older_epoch;
    k->last_ms = kithi_now_ms();
    k->last_time = time_of(c, last_epoch);
    /* One file is what there is at the least. */
    k->log_bytes = (uint64_t)0 - (log_after(c, last_epoch) - KITHI_WAL_FILE_SIZE_DEFAULT);
}

void kithi_checkpointer_init(struct kithi_checkpointer *k, struct kithi_collection *c)
{
    k->fd = -1;
    k->op.arg = c;
    k->last_ms = kithi_now_ms();
    for (unsigned i = 0; i < KITHI_CHECKPOINT_BUFFERS; i++) {
        struct kithi_checkpoint_buffer *b = &k->buffers[i];
        b->collection = c;
        b->work = (struct kithi_work){ .fn = copy_job, .done = copy_done, .arg = b, .n = 1 };
        b->op = (struct kithi_io_op){ .done = write_done, .arg = b };
    }
}

void kithi_checkpointer_fini(struct kithi_checkpointer *k)
{
    release(k);
    if (k->fd >= 0) {
        close(k->fd); /* the loop is gone or about to go */
    }
}
