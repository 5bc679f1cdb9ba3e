/*
 * load.c - see load.h.
 *
 * Workers take memory for the segment and read chunks into it, which the disk then fills by itself; a chunk is compared with its checksum
 * while it is in their caches.
 */
#include "server/writer/load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/checkpoint/read.h"
#include "server/index/restore.h"
#include "server/writer/recover.h"

#define PROGRESS_MS    1000u
#define CHUNKS_PER_JOB 8u

struct load {
    struct kithi_collection *c;
    struct kithi_checkpoint checkpoint;
    struct kithi_restore *restore;
    _Atomic uint64_t bytes; /* read so far */
    _Atomic int status;     /* of the first chunk that could not be had; its words are in err */
    bool begun; /* the configuration says that it is loaded: what fails before is not the checkpoint */
    struct kithi_errmsg err;
    uint64_t began_ms;
    _Atomic uint64_t told_ms;
};

static void tell_progress(struct load *l, uint64_t bytes)
{
    uint64_t now_ms = kithi_now_ms(), told_ms = atomic_load(&l->told_ms);
    if (now_ms - told_ms < PROGRESS_MS || !atomic_compare_exchange_strong(&l->told_ms, &told_ms, now_ms))
        return;
    kithi_log(KITHI_LOG_INFO, "load", "name=%s bytes=%" PRIu64 " of=%" PRIu64 " mib_per_second=%" PRIu64,
              l->c->settings.name, bytes, l->checkpoint.plan.table_off,
              (bytes >> 20) * 1000 / (now_ms - l->began_ms + 1));
}

static int read_chunk(struct load *l, uint32_t i, struct kithi_errmsg *err)
{
    struct kithi_checkpoint_chunk chunk =
        kithi_checkpoint_chunk_at(&l->checkpoint.header, &l->checkpoint.plan, i);
    int status = kithi_restore_need(l->restore, chunk.region, chunk.off, chunk.size, err);
    if (!status)
        status = kithi_checkpoint_read(&l->checkpoint, i,
                                       kithi_restore_place(l->restore, chunk.region, chunk.off), err);
    if (!status) {
        uint64_t bytes = atomic_fetch_add(&l->bytes, chunk.size) + chunk.size;
        kithi_recover_tell(l->c, RECOVER_LOADING, bytes, l->checkpoint.plan.table_off);
        tell_progress(l, bytes);
    }
    return status;
}

/* Some chunks in a row: workers then seldom need the same block, and one takes memory while another waits for the disk. */
static void read_job(void *arg, unsigned worker, uint32_t i)
{
    struct load *l = arg;
    struct kithi_errmsg err;
    (void)worker;
    for (uint32_t at = i * CHUNKS_PER_JOB;
         at < (i + 1) * CHUNKS_PER_JOB && at < l->checkpoint.plan.chunk_count; at++) {
        int none = 0;
        bool skip =
            atomic_load(&l->status) || kithi_collection_pause(l->c, 0); /* as fill() asks afterwards */
        int status = skip ? 0 : read_chunk(l, at, &err);
        if (status && atomic_compare_exchange_strong(&l->status, &none, status))
            l->err = err; /* the first one only: read once all jobs have ended */
    }
}

static void shape_of(const struct kithi_checkpoint_header *h, struct kithi_image_shape *out)
{
    *out = (struct kithi_image_shape){
        .epoch = h->epoch, .timeline = h->timeline, .live = h->live, .slots = h->slots, .uppers = h->uppers
    };
    memcpy(out->blobs, h->blobs, sizeof out->blobs);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        out->regions[r].bytes = h->regions[r].bytes;
        out->regions[r].chunk = h->regions[r].chunk;
    }
}

/* It is of this collection, and of a layout that it may have had: another one may have been chosen, or asked for, since. */
static int check_geometry(const struct load *l, struct kithi_errmsg *err)
{
    return kithi_settings_may_lay(&l->c->settings, &l->checkpoint.header.geometry)
               ? 0
               : kithi_error_set(err, KITHI_E_CORRUPT, "%s does not fit its collection's configuration",
                                 l->checkpoint.path);
}

static int fill(struct load *l, struct kithi_errmsg *err)
{
    struct kithi_collection *c = l->c;
    struct kithi_daemon *d = c->daemon;
    struct kithi_settings settings = c->settings;
    struct kithi_image_shape shape;
    struct kithi_index_identity id = { .geometry = l->checkpoint.header.geometry };
    memcpy(id.uid, settings.uid, sizeof id.uid);
    memcpy(id.hash_key, settings.hash_key, sizeof id.hash_key);
    /* The log after it may be of a time with another ceiling, below which items keep their numbers. */
    if (id.geometry.slot_max < kithi_settings_highest(&settings))
        id.geometry.slot_max = kithi_settings_highest(&settings);
    shape_of(&l->checkpoint.header, &shape);
    int status = kithi_collection_next(c, &settings, err);
    if (status)
        return status;
    c->settings.generation = settings.generation;
    l->begun = true;
    status =
        kithi_restore_begin(c->segment_next, &id, settings.generation, &d->tuning, &shape, &l->restore, err);
    if (status)
        return status;
    kithi_pool_run_wide(d->pool, read_job, l,
                        (l->checkpoint.plan.chunk_count + CHUNKS_PER_JOB - 1) / CHUNKS_PER_JOB);
    status = atomic_load(&l->status);
    if (status)
        *err = l->err;
    kithi_recover_hold(c, "load");
    if (!status && kithi_collection_pause(c, 0))
        status = kithi_error_set(err, -ECANCELED, "told to stop");
    if (status) {
        kithi_restore_abort(l->restore);
        return status;
    }
    status = kithi_restore_end(l->restore, kithi_collection_stop(c), &c->index, err);
    if (!status)
        status = kithi_index_declare(c->index, c->settings.index, err);
    return status ? status : kithi_collection_share(c, c->segment_next, err);
}

/* *out_other: what failed is not the checkpoint. */
static int load_one(struct kithi_collection *c, uint64_t epoch, uint64_t *out_end_epoch, bool *out_other,
                    struct kithi_errmsg *err)
{
    struct load l = { .c = c, .began_ms = kithi_now_ms(), .told_ms = kithi_now_ms() };
    char path[KITHI_PATH_MAX], name[KITHI_CHECKPOINT_NAME_SIZE];
    *out_other = false;
    kithi_checkpoint_name(name, epoch);
    int status = kithi_path(path, err, "%s/%s", c->data_dir, name);
    if (!status)
        status = kithi_checkpoint_open(path, c->settings.uid, &l.checkpoint, err);
    /* It got its name when its epoch had long been durable: that much is known of one that cannot be read, too. */
    *out_end_epoch = status == KITHI_E_REPLACED ? 0 : epoch;
    if (status)
        return status;
    *out_end_epoch = l.checkpoint.end_epoch;
    if (l.checkpoint.header.epoch != epoch)
        status = kithi_error_set(err, KITHI_E_CORRUPT, "%s is of epoch %" PRIu64 ": it was renamed", path,
                                 l.checkpoint.header.epoch);
    if (!status)
        status = check_geometry(&l, err);
    if (!status) {
        status = fill(&l, err);
        *out_other = !l.begun;
    }
    uint64_t bytes = l.checkpoint.plan.file_size;
    kithi_checkpoint_close(&l.checkpoint);
    if (status) {
        kithi_index_close(c->index);
        c->index = NULL;
        unlink(c->segment_next);
        return status;
    }
    kithi_log(KITHI_LOG_INFO, "loaded",
              "name=%s epoch=%" PRIu64 " live=%" PRIu64 " bytes=%" PRIu64 " ms=%" PRIu64, c->settings.name,
              epoch, kithi_index_live(c->index), bytes, kithi_now_ms() - l.began_ms);
    return 0;
}

int kithi_load_one(struct kithi_collection *c, uint64_t epoch, uint64_t *out_end_epoch,
                   struct kithi_errmsg *err)
{
    bool other;
    return load_one(c, epoch, out_end_epoch, &other, err);
}

/* Damage, or somebody else's: an older one may do. Lack of room or memory would be the same with every one. */
static bool may_older_do(int status)
{
    return status == KITHI_E_CORRUPT || status == KITHI_E_VERSION || status == KITHI_E_REPLACED ||
           status == -EIO || status == -ENOENT || status == -EACCES || status == -EINVAL || status == -ELOOP;
}

int kithi_load_checkpoint(struct kithi_collection *c, uint64_t *out_end_epoch, struct kithi_errmsg *err)
{
    uint64_t *epochs = NULL, end_epoch = 0;
    int64_t n = kithi_checkpoint_list(c->data_dir, &epochs, err);
    int result = n < 0 ? (int)n : 0;
    *out_end_epoch = 0;
    for (int64_t i = 0; i < n && result == 0; i++) {
        bool other;
        int status = load_one(c, epochs[i], &end_epoch, &other, err);
        if (*out_end_epoch < end_epoch)
            *out_end_epoch = end_epoch;
        if (status == 0) {
            result = 1;
            kithi_checkpointer_found(c, epochs[i], i + 1 < n ? epochs[i + 1] : 0);
        } else if (!other && may_older_do(status)) {
            kithi_log(KITHI_LOG_WARN, "checkpoint-refused", "name=%s status=%s msg=%s; %s", c->settings.name,
                      kithi_error_name(status), err->text,
                      i + 1 < n ? "the one before it is taken" : "only the log is left");
            kithi_checkpointer_found(c, 0, 0);
        } else {
            result = status;
        }
    }
    free(epochs);
    return result;
}

void kithi_load_look(struct kithi_collection *c)
{
    uint64_t *epochs = NULL, good[2] = { 0, 0 };
    unsigned good_count = 0;
    struct kithi_errmsg err;
    struct kithi_checkpoint checkpoint;
    char path[KITHI_PATH_MAX], name[KITHI_CHECKPOINT_NAME_SIZE];
    if (!kithi_path(path, NULL, "%s/%s", c->data_dir, KITHI_CHECKPOINT_NEW))
        (void)kithi_io_file_unlink(c->daemon->io, path);
    int64_t n = kithi_checkpoint_list(c->data_dir, &epochs, NULL);
    for (int64_t i = 0; i < n && good_count < 2; i++) {
        kithi_checkpoint_name(name, epochs[i]);
        int status = kithi_path(path, &err, "%s/%s", c->data_dir, name);
        if (!status)
            status = kithi_checkpoint_open(path, c->settings.uid, &checkpoint, &err);
        if (status) {
            kithi_log(KITHI_LOG_WARN, "checkpoint-refused", "name=%s status=%s msg=%s", c->settings.name,
                      kithi_error_name(status), err.text);
            continue;
        }
        kithi_checkpoint_close(&checkpoint);
        good[good_count++] = epochs[i];
    }
    free(epochs);
    kithi_checkpointer_found(c, good[0], good[1]);
}
