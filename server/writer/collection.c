/*
 * collection.c - files of one collection: made, replaced, removed. See collection.h.
 */
#include "server/writer/collection.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/base/pread.h"

#define PAUSE_STEP_MS 20u /* how long being told to stop may go unnoticed */

int kithi_collection_at(struct kithi_collection *c, const char *name, struct kithi_errmsg *err)
{
    const struct kithi_daemon *d = c->daemon;
    int status = kithi_path(c->data_dir, err, "%s/%s", d->data.path, name);
    if (!status) {
        status = kithi_path(c->wal_dir, err, "%s/wal", c->data_dir);
    }
    if (!status) {
        status = kithi_path(c->run_dir, err, "%s/%s", d->run.path, name);
    }
    if (!status) {
        status = kithi_path(c->segment, err, "%s/segment", c->run_dir);
    }
    if (!status) {
        status = kithi_path(c->segment_next, err, "%s.next", c->segment);
    }
    if (!status) {
        status = kithi_path(c->segment_old, err, "%s.old", c->segment);
    }
    return status;
}

int kithi_collection_new(struct kithi_daemon *d, const struct kithi_settings *s,
                         struct kithi_collection **out, struct kithi_errmsg *err)
{
    struct kithi_collection *c = calloc(1, sizeof *c);
    if (!c) {
        return kithi_error_set(err, -ENOMEM, "no memory for another collection");
    }
    c->daemon = d;
    c->settings = *s;
    c->old_until_ms = KITHI_NEVER;
    kithi_pipeline_init(&c->pipeline, c);
    kithi_relayout_init(&c->relayout, c);
    kithi_growth_init(&c->growth, c);
    kithi_checkpointer_init(&c->checkpointer, c);
    kithi_audit_init(&c->audit, c);
    kithi_marker_init(&c->marker, c);
    kithi_boards_init(&c->boards, c);
    kithi_sampling_init(&c->sampling, c);
    int status = kithi_collection_at(c, s->name, err);
    if (status) {
        kithi_collection_free(c);
        return status;
    }
    *out = c;
    return 0;
}

void kithi_collection_free(struct kithi_collection *c)
{
    /* A helper that is still at it means that the loop has failed: the process ends. */
    if (!c || c->relayout.op.busy || c->growth.op.busy || c->checkpointer.op.busy || c->checkpointer.giving ||
        c->marker.op.busy || !kithi_old_idle(c) || !kithi_sampling_idle(&c->sampling)) {
        return;
    }
    kithi_boards_fini(&c->boards);
    kithi_sampling_fini(&c->sampling);
    kithi_checkpointer_fini(&c->checkpointer);
    kithi_relayout_fini(&c->relayout);
    kithi_growth_fini(&c->growth);
    kithi_old_fini(c); /* after the image of one */
    kithi_wal_close(c->wal);
    kithi_index_close(c->index);
    kithi_pipeline_fini(&c->pipeline);
    free(c);
}

bool kithi_collection_idle(const struct kithi_collection *c)
{
    return kithi_pipeline_idle(c) && kithi_relayout_idle(&c->relayout) && kithi_growth_idle(&c->growth) &&
           kithi_checkpointer_idle(c) && kithi_old_idle(c) && !c->audit.busy &&
           c->marker.state != MARKER_MAKING && kithi_boards_idle(&c->boards) &&
           kithi_sampling_idle(&c->sampling);
}

const _Atomic bool *kithi_collection_stop(const struct kithi_collection *c)
{
    return c->apart ? c->apart : &c->daemon->stopping;
}

bool kithi_collection_pause(const struct kithi_collection *c, uint32_t ms)
{
    const _Atomic bool *end = kithi_collection_stop(c);
    while (ms && !*end) {
        uint32_t step = ms < PAUSE_STEP_MS ? ms : PAUSE_STEP_MS;
        nanosleep(&(struct timespec){ .tv_nsec = (long)step * 1000000 }, NULL);
        ms -= step;
    }
    return *end;
}

int kithi_segment_peek(const char *path, struct kithi_segment_peek *out, struct kithi_errmsg *err)
{
    struct kithi_header h;
    int fd = KITHI_FAULT("peek-eio") ? (errno = EIO, -1)
                                     : open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    int64_t n = fd < 0 ? -errno : kithi_pread(fd, &h, sizeof h, 0);
    int number = n < 0 ? (int)-n : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (number == ENOENT || number == ENOTDIR) {
        return kithi_error_set(err, -ENOENT, "there is no segment %s", path);
    }
    if (number && number != ELOOP && number != ENXIO && number != EISDIR && number != ESPIPE) {
        return kithi_error_set(err, -number, "cannot look at the segment %s: %s", path, strerror(number));
    }
    /* Relaxed: a private copy. */
    if (n != (int64_t)sizeof h ||
        atomic_load_explicit(&h.magic, memory_order_relaxed) != KITHI_SEGMENT_MAGIC) {
        return kithi_error_set(err, KITHI_E_NOT_SEGMENT, "%s is no segment", path);
    }
    memcpy(out->uid, h.uid, sizeof out->uid);
    out->generation = h.generation;
    out->geometry = (struct kithi_geometry){ .dim = h.dim,
                                             .metric = h.metric,
                                             .m = h.m,
                                             .ef_construction = h.ef_construction,
                                             .quantization = h.quantization,
                                             .keep = h.keep,
                                             .code_bits = h.code_bits,
                                             .slot_max = h.slot_max };
    return 0;
}

bool kithi_segment_is_of(const char *path, const uint8_t uid[16])
{
    struct kithi_segment_peek peek;
    return !kithi_segment_peek(path, &peek, NULL) && !memcmp(peek.uid, uid, sizeof peek.uid);
}

/* There is one, there is none, or nobody knows: 1, 0, or the error. */
static int look_for(const char *path, struct kithi_segment_peek *out, struct kithi_errmsg *err)
{
    int status = kithi_segment_peek(path, out, err);
    return status == -ENOENT || status == KITHI_E_NOT_SEGMENT ? 0 : status ? status : 1;
}

static int make_dir(const char *path, mode_t mode, struct kithi_errmsg *err)
{
    if (mkdir(path, mode)) {
        int e = errno;
        return kithi_error_set(err, -e, "cannot make the directory %s: %s", path, strerror(e));
    }
    return 0;
}

int kithi_collection_rename(const char *from, const char *to, struct kithi_errmsg *err)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE)) {
        int e = errno;
        if (e == EINVAL && access(to, F_OK) && !rename(from, to)) {
            return 0; /* a file system without RENAME_NOREPLACE; we hold the lock, so nobody is faster */
        }
        return kithi_error_set(err, -e, "cannot rename %s to %s: %s", from, to, strerror(e));
    }
    return 0;
}

/*
 * A drop that left files; 0 also when there is none that the segment under our name belongs to. One that cannot be looked at
 * may be such a segment, whose readers are still to be told, and must not be taken for nothing.
 */
static int finish_drop(struct kithi_collection *c, struct kithi_errmsg *err)
{
    struct kithi_segment_peek peek;
    char buried[KITHI_PATH_MAX], uid[33];
    int there = look_for(c->segment, &peek, err);
    if (there <= 0) {
        return there;
    }
    kithi_uid_text(peek.uid, uid);
    int status = kithi_path(buried, err, "%s/%s%s", c->daemon->data.path, KITHI_DROPPED_PREFIX, uid);
    if (!status && access(buried, F_OK)) {
        int e = errno;
        return e == ENOENT ? 0 : kithi_error_set(err, -e, "cannot look at %s: %s", buried, strerror(e));
    }
    return status ? status : kithi_collection_remove(c->daemon, buried, err);
}

int kithi_collection_clear_run(struct kithi_collection *c, struct kithi_errmsg *err)
{
    char aside[KITHI_PATH_MAX];
    int status = finish_drop(c, err);
    if (status || access(c->run_dir, F_OK)) {
        return status;
    }
    /* An unfinished create leaves no more than an unfinished segment. */
    unlink(c->segment_next);
    if (access(c->segment, F_OK) && !kithi_boards_remove(c->run_dir, err) && !rmdir(c->run_dir)) {
        return 0;
    }
    status = kithi_path(aside, err, "%s/%s%s-%" PRIu64, c->daemon->run.path, KITHI_ASIDE_PREFIX,
                        c->settings.name, kithi_now_us());
    if (!status) {
        status = kithi_collection_rename(c->run_dir, aside, err);
    }
    if (!status) {
        kithi_log(KITHI_LOG_WARN, "set-aside",
                  "from=%s to=%s msg=belongs to no collection of this data directory; "
                  "remove it when nobody needs it",
                  c->run_dir, aside);
    }
    return status;
}

int kithi_collection_share(const struct kithi_collection *c, const char *path, struct kithi_errmsg *err)
{
    gid_t group = c->daemon->policy.read_group;
    if (group != KITHI_NO_GROUP && chown(path, (uid_t)-1, group)) {
        int e = errno;
        return kithi_error_set(err, -e, "cannot give %s to the read group: %s", path, strerror(e));
    }
    return 0;
}

int kithi_collection_next(struct kithi_collection *c, struct kithi_settings *s, struct kithi_errmsg *err)
{
    struct kithi_segment_peek old;
    int there = look_for(c->segment, &old, err);
    if (there < 0) {
        return there;
    }
    /* Else the next one could not take its place, as would turn out when all is copied. */
    int status = c->old_left ? kithi_collection_unlink_old(c, err) : 0;
    if (status) {
        return status;
    }
    if (there && old.generation > s->generation && old.generation < INT64_MAX) {
        s->generation = old.generation;
    }
    s->generation++;
    /* Lasting before the file exists, so that no generation is used twice. */
    status = kithi_settings_write(c->data_dir, s, err);
    if (!status && unlink(c->segment_next) && errno != ENOENT) {
        status = kithi_error_set(err, -errno, "cannot remove %s: %s", c->segment_next, strerror(errno));
    }
    return status;
}

int kithi_collection_build(struct kithi_collection *c, struct kithi_settings *s,
                           const struct kithi_geometry *g, struct kithi_index **out, struct kithi_errmsg *err)
{
    struct kithi_index *ix = NULL;
    struct kithi_index_identity id = { .geometry = *g };
    memcpy(id.uid, s->uid, sizeof id.uid);
    memcpy(id.hash_key, s->hash_key, sizeof id.hash_key);
    int status = kithi_collection_next(c, s, err);
    if (!status) {
        status = kithi_index_create(c->segment_next, &id, s->generation, &c->daemon->tuning, &ix, err);
    }
    if (!status) {
        kithi_index_set_timeline(ix, s->timeline);
        status = kithi_index_declare(ix, s->index, err);
    }
    if (!status) {
        status = kithi_collection_share(c, c->segment_next, err);
    }
    if (status) {
        kithi_index_close(ix);
        unlink(c->segment_next);
    } else {
        *out = ix;
    }
    return status;
}

int kithi_collection_unlink_old(struct kithi_collection *c, struct kithi_errmsg *err)
{
    int e = KITHI_FAULT("old-unlink-eio") ? EIO : unlink(c->segment_old) ? errno : 0;
    c->old_left = e != 0 && e != ENOENT;
    if (!c->old_left) {
        return 0;
    }
    kithi_log(KITHI_LOG_WARN, "old-segment",
              "path=%s msg=cannot be removed: %s; the next generation waits for that", c->segment_old,
              strerror(e));
    return kithi_error_set(
        err, -e,
        "cannot remove %s, the segment before: %s; remove it, so that another one can take its place",
        c->segment_old, strerror(e));
}

void kithi_collection_end_old(struct kithi_collection *c)
{
    kithi_segment_retire(c->segment_old);
    kithi_collection_unlink_old(c, NULL);
    c->old_until_ms = KITHI_NEVER;
    c->old_kept = NULL;
}

int kithi_collection_switch(struct kithi_collection *c, struct kithi_errmsg *err)
{
    struct kithi_errmsg why;
    kithi_old_unname(c);
    if (c->old_left) {
        int status = kithi_collection_unlink_old(c, err);
        if (status) {
            return status;
        }
    }
    bool had_one = !link(c->segment, c->segment_old);
    if (!had_one && errno != ENOENT) {
        int e = errno;
        return kithi_error_set(err, -e, "cannot link %s to %s: %s", c->segment, c->segment_old, strerror(e));
    }
    KITHI_FAULT_CRASH("crash-in-switch-linked");
    /* The new file is in its place before `moved` is stored, so that whoever sees it finds the new
     * generation at once. A crash in between leaves segment.old, which the next start marks. */
    if (rename(c->segment_next, c->segment)) {
        int e = errno;
        if (had_one) {
            unlink(c->segment_old); /* it is still the segment */
        }
        return kithi_error_set(err, -e, "cannot rename %s to %s: %s", c->segment_next, c->segment,
                               strerror(e));
    }
    KITHI_FAULT_CRASH("crash-in-switch-renamed");
    if (had_one) {
        int status = kithi_segment_mark_moved(c->segment_old, false);
        if (status) {
            kithi_error_set(&why, status, "%s", kithi_error_text(status));
            kithi_log(KITHI_LOG_WARN, "old-segment",
                      "path=%s msg=its readers cannot be told to move over: %s", c->segment_old, why.text);
        }
        c->old_until_ms = kithi_now_ms() + (KITHI_FAULT("old-grace-short") ? 200 : KITHI_OLD_GRACE_MS);
    }
    return 0;
}

/* *out_renamed: it stands under its name. */
static int make_in(struct kithi_collection *c, const char *creating, bool *out_renamed,
                   struct kithi_errmsg *err)
{
    char final_dir[KITHI_PATH_MAX], wal[KITHI_PATH_MAX];
    memcpy(final_dir, c->data_dir, sizeof final_dir);
    int status = kithi_path(wal, err, "%s/wal", creating);
    if (!status) {
        status = make_dir(creating, 0700, err);
    }
    if (!status) {
        status = make_dir(wal, 0700, err);
    }
    if (!status) {
        status = kithi_collection_clear_run(c, err);
    }
    if (!status) {
        status = kithi_dir_inside(c->run_dir, 0750, c->daemon->policy.read_group, err);
    }
    if (!status) {
        kithi_boards_open(&c->boards, c->run_dir, c->settings.uid, &c->daemon->policy,
                          !c->daemon->no_counters);
        memcpy(c->data_dir, creating, sizeof c->data_dir);
        status = kithi_collection_build(c, &c->settings, &c->settings.geometry, &c->index,
                                        err); /* writes the settings, too */
        memcpy(c->data_dir, final_dir, sizeof c->data_dir);
    }
    KITHI_FAULT_CRASH("crash-in-create-built");
    /* The log is begun before the collection has its name, so that one without log files has lost them. */
    if (!status) {
        struct kithi_wal_report empty = { 0 };
        struct kithi_wal_open_opts opts = { .dir = wal, .timeline = c->settings.timeline, .report = &empty };
        memcpy(opts.uid, c->settings.uid, sizeof opts.uid);
        status = kithi_wal_open(c->daemon->io, &opts, &c->wal, err);
    }
    if (!status && kithi_wal_moved(c->wal, c->wal_dir)) {
        status = kithi_error_set(err, -ENAMETOOLONG, "%s: the path is too long", c->wal_dir);
    }
    if (!status) {
        status = kithi_collection_rename(creating, c->data_dir, err);
        *out_renamed = !status;
    }
    KITHI_FAULT_CRASH("crash-in-create-renamed");
    if (!status) {
        status = kithi_dir_sync(c->daemon->data.path, err);
    }
    if (!status) {
        status = kithi_collection_switch(c, err);
    }
    return status;
}

int kithi_collection_make(struct kithi_collection *c, struct kithi_errmsg *err)
{
    char creating[KITHI_PATH_MAX], uid[33], why[sizeof err->text];
    struct kithi_errmsg ignored;
    kithi_uid_text(c->settings.uid, uid);
    int status = kithi_path(creating, err, "%s/%s%s", c->daemon->data.path, KITHI_CREATING_PREFIX, uid);
    if (status) {
        return status;
    }
    bool renamed = false;
    status = make_in(c, creating, &renamed, err);
    if (status == -ENOSPC || status == -EDQUOT) {
        kithi_error_set(err, status,
                        "no room for a new collection in the data directory %.200s: its log begins with a "
                        "file of %u MiB, or 1 MiB at least; make room there",
                        c->daemon->data.path, KITHI_WAL_FILE_SIZE_DEFAULT >> 20);
    }
    if (status) {
        bool gone = false;
        memcpy(why, err->text, sizeof why);
        if (renamed && kithi_collection_bury(c, &gone, &ignored)) {
            kithi_log(KITHI_LOG_ERROR, "create-not-undone", "name=%s msg=%s", c->settings.name, ignored.text);
            if (!gone) {
                status = kithi_error_set(err, KITHI_E_UNKNOWN_OUTCOME,
                                         "the collection was made, and then %.140s; it could not be undone "
                                         "(%.140s): the next start of kithd may bring it",
                                         why, ignored.text);
            }
        }
        if (gone) {
            char buried[KITHI_PATH_MAX];
            if (!kithi_collection_buried_path(c, buried, &ignored)) {
                kithi_collection_remove(c->daemon, buried, &ignored);
            }
        } else if (!renamed) {
            kithi_tree_remove(creating, &ignored);
            if (c->index) {
                unlink(c->segment_next);
            }
            kithi_boards_remove(c->run_dir, &ignored);
            rmdir(c->run_dir); /* if it is ours, it is empty by now */
        }
    }
    return status;
}

int kithi_collection_buried_path(const struct kithi_collection *c, char out[KITHI_PATH_MAX],
                                 struct kithi_errmsg *err)
{
    char uid[33];
    kithi_uid_text(c->settings.uid, uid);
    return kithi_path(out, err, "%s/%s%s", c->daemon->data.path, KITHI_DROPPED_PREFIX, uid);
}

int kithi_collection_bury(struct kithi_collection *c, bool *out_gone, struct kithi_errmsg *err)
{
    char buried[KITHI_PATH_MAX];
    int status = kithi_collection_buried_path(c, buried, err);
    if (!status) {
        status = kithi_collection_rename(c->data_dir, buried, err);
    }
    *out_gone = !status;
    KITHI_FAULT_CRASH("crash-in-drop-renamed");
    if (!status && KITHI_FAULT("drop-sync-eio")) {
        status = kithi_error_set(err, -EIO, "cannot sync %s: a test wants it so", c->daemon->data.path);
    }
    return status ? status : kithi_dir_sync(c->daemon->data.path, err);
}

/* First the part in which others may have put things. */
static int run_dir_remove(const char *run_dir, struct kithi_errmsg *err)
{
    int status = kithi_boards_remove(run_dir, err);
    return status ? status : kithi_tree_remove(run_dir, err);
}

int kithi_collection_remove(struct kithi_daemon *d, const char *buried, struct kithi_errmsg *err)
{
    struct kithi_settings s;
    struct kithi_segment_peek peek;
    char run_dir[KITHI_PATH_MAX], segment[KITHI_PATH_MAX], successor[KITHI_PATH_MAX];
    int status = 0;
    /* The run directory first: as long as the settings can be read, a start knows what to remove there. */
    int read = kithi_settings_read(buried, &s, err);
    /* Those that cannot be read now may be later; only then is it known what is to be removed. */
    if (read < 0 && read > -4096 && read != -ENOENT) {
        return read;
    }
    if (!read) {
        status = kithi_path(run_dir, err, "%s/%s", d->run.path, s.name);
        if (!status) {
            status = kithi_path(segment, err, "%s/segment", run_dir);
        }
        if (!status) {
            status = kithi_path(successor, err, "%s/%s", d->data.path, s.name);
        }
        int there = status ? 0 : look_for(segment, &peek, err);
        if (there < 0) {
            status = there; /* its readers could not be told: later */
        } else if (there && !memcmp(peek.uid, s.uid, sizeof s.uid)) {
            kithi_segment_mark_moved(segment, true);
            KITHI_FAULT_CRASH("crash-in-drop-marked");
            status = KITHI_FAULT("drop-remove-eio")
                         ? kithi_error_set(err, -EIO, "cannot remove %s: a test wants it so", run_dir)
                         : run_dir_remove(run_dir, err);
        } else if (!status && !there && access(successor, F_OK) && errno == ENOENT) {
            status = run_dir_remove(run_dir, err);
        }
    }
    KITHI_FAULT_CRASH("crash-in-drop-unlinked");
    if (!status) {
        status = kithi_tree_remove(buried, err);
    }
    return status ? status : kithi_dir_sync(d->data.path, err);
}
