/*
 * revive.c - see revive.h.
 */
#include "server/writer/revive.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/base/pread.h"
#include "server/checkpoint/backup.h"
#include "server/checkpoint/read.h"
#include "server/wal/files.h"
#include "server/wal/format.h"
#include "server/writer/admin.h"
#include "server/writer/collection.h"
#include "server/writer/load.h"
#include "server/writer/recover.h"
#include "server/writer/start.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/graph/verify.h"

enum revive_step {
    REVIVE_PREPARING, /* the helper makes directories and files */
    REVIVE_RECEIVING,
    REVIVE_FAILED,  /* err says why; what is left is to be removed */
    REVIVE_WORKING, /* the thread */
    REVIVE_PLACING, /* admin's turn */
    REVIVE_REMOVING,
};

struct kithi_revive {
    struct kithi_revive *next; /* in the daemon's list, from RESTORE_END on */
    struct kithi_daemon *daemon;
    enum revive_step step;
    bool listed;
    struct kithi_io_op op;
    struct kithi_errmsg err;

    char name[KITHI_NAME_MAX + 1];
    uint8_t uid[16];
    struct kithi_backup_header header;
    char made[64]; /* .creating-<uid>, in both directories */
    char data_dir[KITHI_PATH_MAX], run_dir[KITHI_PATH_MAX];
    char checkpoint[KITHI_PATH_MAX], log[KITHI_PATH_MAX];

    int checkpoint_fd, log_fd;   /* while bytes come */
    struct kithi_request *asked; /* RESTORE, later RESTORE_END */
    struct kithi_request *queue; /* RESTORE_DATA, the oldest first */
    uint64_t received;           /* bytes that are written, the header's not counted */
    size_t part_done;            /* ... of the oldest request */
    size_t part_len;             /* that are being written */

    /* The thread's, while it works. */
    struct kithi_collection *collection;
    pthread_t thread;
    int event_fd;
    int status;
    _Atomic bool cancelled;
};

/* ---- ends ---- */

static void close_files(struct kithi_revive *v)
{
    if (v->daemon->io) {
        kithi_io_close(v->daemon->io, v->checkpoint_fd);
        kithi_io_close(v->daemon->io, v->log_fd);
    }
    v->checkpoint_fd = v->log_fd = -1;
}

static void forget(struct kithi_revive *v)
{
    struct kithi_revive **at = &v->daemon->revives;
    while (v->listed && *at && *at != v) {
        at = &(*at)->next;
    }
    if (v->listed && *at) {
        *at = v->next;
    }
    v->daemon->again = true;
    free(v);
}

static int remove_call(void *arg)
{
    struct kithi_revive *v = arg;
    struct kithi_errmsg ignored;
    if (kithi_tree_remove(v->run_dir, &ignored) || kithi_tree_remove(v->data_dir, &ignored)) {
        kithi_log(KITHI_LOG_WARN, "restore-left-files", "name=%s msg=%s; the next start removes what is left",
                  v->name, ignored.text);
    }
    return 0;
}

static void remove_done(struct kithi_io_op *op, int status)
{
    struct kithi_revive *v = op->arg;
    (void)status;
    if (v->asked) {
        kithi_request_refuse(v->asked, KITHI_NO_ITEM, &v->err);
    }
    forget(v);
}

/* It has failed for good, or nobody asks any more. */
static void give_up(struct kithi_revive *v)
{
    if (!v->listed) {
        v->listed = true;
        v->next = v->daemon->revives;
        v->daemon->revives = v;
    }
    kithi_collection_free(v->collection);
    v->collection = NULL;
    v->step = REVIVE_REMOVING;
    v->op.done = remove_done;
    kithi_io_call(v->daemon->io, &v->op, remove_call);
}

static void refuse_all(struct kithi_revive *v)
{
    while (v->queue) {
        struct kithi_request *r = v->queue;
        v->queue = r->next;
        kithi_request_refuse(r, KITHI_NO_ITEM, &v->err);
    }
}

static void fail(struct kithi_revive *v, const char *what)
{
    kithi_log(KITHI_LOG_WARN, "restore-failed", "name=%s status=%s msg=%s%s", v->name,
              kithi_error_name(v->err.code), what, v->err.text);
    v->step = REVIVE_FAILED;
    close_files(v);
    refuse_all(v);
}

/* The disk of the data directory is full: how much is missing is what counts. */
static int say_no_room(const struct kithi_revive *v, int status, struct kithi_errmsg *err)
{
    if (status != -ENOSPC && status != -EDQUOT) {
        return status;
    }
    return kithi_error_set(err, status,
                           "no room in the data directory %.200s for a back-up of %" PRIu64
                           " MiB and its log; make room there",
                           v->daemon->data.path, (kithi_backup_size(&v->header) >> 20) + 1);
}

/* ---- receiving ---- */

static int make_dir(const char *path, struct kithi_errmsg *err)
{
    return mkdir(path, 0700)
               ? kithi_error_set(err, -errno, "cannot make the directory %s: %s", path, strerror(errno))
               : 0;
}

static int make_file(struct kithi_revive *v, const char *path, uint64_t size, int *out_fd)
{
    bool direct;
    *out_fd = kithi_io_file_create(v->daemon->io, path, false, &direct);
    int status = *out_fd < 0 ? *out_fd : kithi_io_file_allocate(v->daemon->io, *out_fd, size);
    status = KITHI_FAULT("restore-allocate-enospc") ? -ENOSPC : status;
    return status < 0 ? kithi_error_set(&v->err, status, "cannot make %s: %s", path, kithi_error_text(status))
                      : 0;
}

/* What a disk without room for it all has given is for others, who may need it now: the client is told first, and may stay. */
static void unmake_files(struct kithi_revive *v)
{
    struct kithi_errmsg ignored; /* what stays goes when the client has left, or with the next start */
    kithi_io_file_close(v->daemon->io, v->checkpoint_fd);
    kithi_io_file_close(v->daemon->io, v->log_fd);
    v->checkpoint_fd = v->log_fd = -1;
    kithi_tree_remove(v->data_dir, &ignored);
}

static int prepare_call(void *arg)
{
    struct kithi_revive *v = arg;
    char wal[KITHI_PATH_MAX], name[KITHI_WAL_NAME_SIZE], checkpoint[KITHI_CHECKPOINT_NAME_SIZE];
    kithi_checkpoint_name(checkpoint, v->header.epoch);
    kithi_wal_file_name(name, v->header.epoch + 1);
    int status = kithi_path(v->checkpoint, &v->err, "%s/%s", v->data_dir, checkpoint);
    if (!status) {
        status = kithi_path(wal, &v->err, "%s/wal", v->data_dir);
    }
    if (!status) {
        status = kithi_path(v->log, &v->err, "%s/%s", wal, name);
    }
    if (!status) {
        status = make_dir(v->data_dir, &v->err);
    }
    if (!status) {
        status = make_dir(wal, &v->err);
    }
    if (!status) {
        status = make_file(v, v->checkpoint, v->header.checkpoint_bytes, &v->checkpoint_fd);
    }
    if (!status && v->header.log_bytes) {
        status = make_file(v, v->log, KITHI_WAL_BLOCK + v->header.log_bytes, &v->log_fd);
    }
    KITHI_FAULT_CRASH("crash-in-restore-begun");
    if (status) {
        unmake_files(v);
    }
    return say_no_room(v, status, &v->err);
}

static void prepare_done(struct kithi_io_op *op, int status)
{
    struct kithi_revive *v = op->arg;
    struct kithi_request *r = v->asked;
    v->asked = NULL;
    if (status) {
        fail(v, "");
        kithi_request_refuse(r, KITHI_NO_ITEM, &v->err);
        return;
    }
    struct kithi_answer a = { .item = KITHI_NO_ITEM };
    v->step = REVIVE_RECEIVING;
    kithi_log(KITHI_LOG_INFO, "restore-begins", "name=%s bytes=%" PRIu64 " of=%s epoch=%" PRIu64, v->name,
              kithi_backup_size(&v->header), v->header.name, v->header.last_epoch);
    kithi_request_answer(r, &a);
}

void kithi_revive_begin(struct kithi_daemon *d, struct kithi_revive **slot, struct kithi_request *r)
{
    const struct kithi_restore *asked = (const void *)r->body; /* the frame's length was checked */
    struct kithi_errmsg err;
    char uid[33];
    struct kithi_revive *v = calloc(1, sizeof *v);
    int status = v ? 0 : kithi_error_set(&err, -ENOMEM, "no memory for a restore");
    if (!status) {
        v->daemon = d;
        v->op.arg = v;
        v->checkpoint_fd = v->log_fd = v->event_fd = -1;
        status = kithi_admin_name(r->body + sizeof *asked, r->frame.len - sizeof *asked, asked->name_len,
                                  v->name, &err);
    }
    if (!status && asked->reserved) {
        status = kithi_error_set(&err, KITHI_E_PROTOCOL,
                                 "the reserved word of a restore is %08x and not zero", asked->reserved);
    }
    if (!status) {
        status = kithi_backup_header_decode(asked->head, asked->size, &v->header, &err);
    }
    struct kithi_errmsg coming;
    if (!status && kithi_start_find(d, v->name, &coming)) {
        status = kithi_error_set(&err, KITHI_E_EXISTS, "%s; restore under another name", coming.text);
    }
    if (!status && kithi_daemon_find(d, v->name)) {
        status = kithi_error_set(&err, KITHI_E_EXISTS,
                                 "a collection \"%s\" exists; drop it first, or restore under another name",
                                 v->name);
    }
    if (!status && getrandom(v->uid, sizeof v->uid, 0) != (ssize_t)sizeof v->uid) {
        status = kithi_error_set(&err, -EIO, "the system gives no random numbers");
    }
    if (!status) {
        kithi_uid_text(v->uid, uid);
        snprintf(v->made, sizeof v->made, KITHI_CREATING_PREFIX "%s", uid);
        status = kithi_path(v->data_dir, &err, "%s/%s", d->data.path, v->made);
    }
    if (!status) {
        status = kithi_path(v->run_dir, &err, "%s/%s", d->run.path, v->made);
    }
    if (status) {
        free(v);
        kithi_request_refuse(r, KITHI_NO_ITEM, &err);
        return;
    }
    *slot = v;
    v->asked = r;
    v->step = REVIVE_PREPARING;
    v->op.done = prepare_done;
    kithi_io_call(d->io, &v->op, prepare_call);
}

static void work_begin(struct kithi_revive *v);

/* Write what came, and see to the end. */
static void advance(struct kithi_revive *v);

static void write_done(struct kithi_io_op *op, int result)
{
    struct kithi_revive *v = op->arg;
    struct kithi_request *r = v->queue;
    if (KITHI_FAULT("restore-write-enospc")) {
        result = -ENOSPC;
    }
    if (result < 0) {
        kithi_error_set(&v->err, result, "what was sent cannot be written to %s: %s", v->data_dir,
                        kithi_error_text(result));
        say_no_room(v, result, &v->err);
        fail(v, "");
        if (v->asked) {
            give_up(v);
        }
        return;
    }
    KITHI_FAULT_CRASH("crash-in-restore-receiving");
    v->received += v->part_len;
    v->part_done += v->part_len;
    if (v->part_done == r->frame.len) {
        struct kithi_answer a = { .item = KITHI_NO_ITEM };
        v->queue = r->next;
        v->part_done = 0;
        kithi_request_answer(r, &a);
    }
    advance(v);
}

static void advance(struct kithi_revive *v)
{
    if (v->op.busy || v->step != REVIVE_RECEIVING) {
        return;
    }
    if (!v->queue) {
        if (v->asked) {
            work_begin(v);
        }
        return;
    }
    const struct kithi_request *r = v->queue;
    uint64_t at = v->received, all = v->header.checkpoint_bytes;
    size_t left = r->frame.len - v->part_done;
    bool of_log = at >= all;
    uint64_t room = of_log ? all + v->header.log_bytes - at : all - at;
    if (room == 0) {
        kithi_error_set(&v->err, KITHI_E_PROTOCOL, "more bytes were sent than the back-up has");
        fail(v, "");
        if (v->asked) {
            give_up(v);
        }
        return;
    }
    v->part_len = left < room ? left : (size_t)room;
    v->op.done = write_done;
    kithi_io_write(v->daemon->io, &v->op, of_log ? v->log_fd : v->checkpoint_fd, r->body + v->part_done,
                   v->part_len, of_log ? KITHI_WAL_BLOCK + at - all : at);
}

void kithi_revive_data(struct kithi_revive *v, struct kithi_request *r)
{
    struct kithi_request **at = &v->queue;
    if (v->step == REVIVE_PREPARING) {
        struct kithi_errmsg early;
        kithi_error_set(&early, KITHI_E_PROTOCOL, "bytes of a back-up before its restore was answered");
        kithi_request_refuse(r, KITHI_NO_ITEM, &early);
        return;
    }
    if (v->step == REVIVE_FAILED) {
        kithi_request_refuse(r, KITHI_NO_ITEM, &v->err);
        return;
    }
    while (*at) {
        at = &(*at)->next;
    }
    r->next = NULL;
    *at = r;
    advance(v);
}

void kithi_revive_abandon(struct kithi_revive *v)
{
    if (!v) {
        return;
    }
    close_files(v);
    if (!v->daemon->io) {
        remove_call(v);
        free(v);
        return;
    }
    if (v->step != REVIVE_FAILED) {
        kithi_log(KITHI_LOG_INFO, "restore-abandoned", "name=%s msg=the client has left", v->name);
    }
    give_up(v);
}

/* ---- the thread: checking, and making it ours ---- */

static int stopped(const struct kithi_revive *v, struct kithi_errmsg *err)
{
    return atomic_load(&v->cancelled)
               ? kithi_error_set(err, KITHI_E_SHUTDOWN, "the daemon is stopping; nothing was restored")
               : 0;
}

static int write_at(int fd, const void *bytes, size_t len, uint64_t off)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(fd, (const char *)bytes + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        done += (size_t)n;
    }
    return 0;
}

/* Other people's identity gives way to ours: uid and timeline, in the header and in the table. */
static int claim_checkpoint(struct kithi_revive *v, const struct kithi_checkpoint *k, uint64_t timeline,
                            struct kithi_errmsg *err)
{
    struct kithi_checkpoint_header h = k->header;
    unsigned char *head = malloc(KITHI_CHECKPOINT_BLOCK), *table = malloc(k->plan.table_size);
    int fd = open(v->checkpoint, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    int status = head && table ? fd < 0 ? -errno : 0 : -ENOMEM;
    if (!status) {
        memcpy(h.uid, v->uid, sizeof h.uid);
        h.timeline = timeline;
        kithi_checkpoint_header_encode(head, &h);
        kithi_checkpoint_table_encode(table, &h, &k->plan, k->sums, k->end_epoch);
        status = write_at(fd, head, KITHI_CHECKPOINT_BLOCK, 0);
    }
    if (!status) {
        status = write_at(fd, table, k->plan.table_size, k->plan.table_off);
    }
    if (!status && fsync(fd)) {
        status = -errno;
    }
    if (fd >= 0) {
        close(fd);
    }
    free(head);
    free(table);
    return status ? kithi_error_set(err, status, "%s cannot be written: %s", v->checkpoint,
                                    kithi_error_text(status))
                  : 0;
}

static int check_chunks(struct kithi_revive *v, const struct kithi_checkpoint *k, struct kithi_errmsg *err)
{
    void *chunk = NULL;
    int status =
        posix_memalign(&chunk, KITHI_CHECKPOINT_BLOCK, (size_t)k->plan.chunk_max + KITHI_CHECKPOINT_BLOCK)
            ? kithi_error_set(err, -ENOMEM, "no memory for a restore")
            : 0;
    for (uint32_t i = 0; i < k->plan.chunk_count && !status; i++) {
        status = kithi_checkpoint_read(k, i, chunk, err);
        if (!status) {
            status = stopped(v, err);
        }
    }
    free(chunk);
    return status;
}

/* The settings that the collection had, under its new identity. */
static int settle(const struct kithi_revive *v, const struct kithi_geometry *image,
                  struct kithi_settings *out, struct kithi_errmsg *err)
{
    const struct kithi_backup_header *h = &v->header;
    struct kithi_geometry asked = *image;
    asked.quantization = h->wanted;
    asked.keep = h->keep;
    int status = kithi_settings_new(out, v->name, &asked, err);
    if (!status) {
        status = kithi_settings_index(out, h->index, strlen(h->index), err);
    }
    if (status) {
        return status;
    }
    memcpy(out->uid, v->uid, sizeof out->uid);
    out->fixed = h->fixed;
    if (h->chosen && h->wanted == KITHI_QUANTIZATION_AUTO) {
        kithi_settings_choose(out, h->quantization);
    }
    if (out->geometry.code_bits) {
        out->geometry.code_bits = h->code_bits;
    }
    status = kithi_geometry_check(&out->geometry, err);
    /* Another layout may have been chosen, or asked for, and the copy not have been made yet: it is made of what is brought back. */
    if (!status && !kithi_settings_may_lay(out, image)) {
        status = kithi_error_set(err, KITHI_E_CORRUPT,
                                 "the back-up checks, but its checkpoint has a layout that cannot be");
    }
    return status;
}

static int take_checkpoint(struct kithi_revive *v, struct kithi_settings *s, struct kithi_errmsg *err)
{
    struct kithi_checkpoint k;
    const struct kithi_backup_header *h = &v->header;
    int status = kithi_checkpoint_open_as(v->checkpoint, "the back-up", KITHI_BACKUP_BLOCK, h->uid, &k, err);
    if (status == KITHI_E_REPLACED) {
        return kithi_error_set(
            err, KITHI_E_CORRUPT,
            "the back-up checks, but its checkpoint is of another collection than its header says");
    }
    if (status) {
        return status;
    }
    if (k.header.epoch != h->epoch || k.end_epoch != h->last_epoch) {
        status = kithi_error_set(err, KITHI_E_CORRUPT,
                                 "the back-up checks, but its checkpoint is of epochs %" PRIu64 " to %" PRIu64
                                 ", and its header says %" PRIu64 " to %" PRIu64,
                                 k.header.epoch, k.end_epoch, h->epoch, h->last_epoch);
    }
    if (!status) {
        status = check_chunks(v, &k, err);
    }
    if (!status) {
        status = settle(v, &k.header.geometry, s, err);
    }
    if (!status) {
        status = claim_checkpoint(v, &k, s->timeline, err);
    }
    kithi_checkpoint_close(&k);
    return status;
}

/* One group after the other: judged, and made this collection's. */
static int claim_groups(struct kithi_revive *v, int fd, uint64_t timeline, struct kithi_errmsg *err)
{
    const struct kithi_backup_header *b = &v->header;
    const uint64_t size = KITHI_WAL_BLOCK + b->log_bytes, shown = KITHI_BACKUP_BLOCK + b->checkpoint_bytes;
    uint64_t off = KITHI_WAL_BLOCK;
    size_t room = 1u << 20;
    unsigned char *buf = malloc(room);
    int status = buf ? 0 : -ENOMEM;
    for (uint64_t epoch = b->epoch + 1; epoch <= b->last_epoch && !status; epoch++) {
        struct kithi_wal_group_header h = { 0 };
        uint64_t left = size - off, whole;
        bool good = left >= KITHI_WAL_BLOCK &&
                    kithi_pread(fd, buf, KITHI_WAL_GROUP_HEADER, off) == KITHI_WAL_GROUP_HEADER;
        uint64_t number = good ? kithi_get64(buf + 24) : 0;
        enum kithi_wal_verdict verdict =
            good ? kithi_wal_group_header_decode(buf, b->uid, number, &h) : KITHI_WAL_BAD;
        whole = verdict == KITHI_WAL_OK ? kithi_wal_group_size(h.len) : 0;
        if (whole > room && whole <= left) {
            free(buf);
            room = (size_t)whole;
            buf = malloc(room);
            if (!buf) {
                status = -ENOMEM;
                break;
            }
        }
        if (verdict == KITHI_WAL_OK && whole <= left &&
            kithi_pread(fd, buf, (size_t)whole, off) == (int64_t)whole) {
            verdict = kithi_wal_group_decode(buf, (size_t)whole, b->uid, number, &h);
        } else if (verdict == KITHI_WAL_OK) {
            verdict = KITHI_WAL_BAD;
        }
        if (verdict == KITHI_WAL_NEWER) {
            status = kithi_error_set(
                err, KITHI_E_VERSION,
                "the back-up was written by a later version of kithd: its log has another format; "
                "restore it with that one");
        } else if (verdict != KITHI_WAL_OK || h.epoch != epoch) {
            status = kithi_error_set(err, KITHI_E_CORRUPT,
                                     "the back-up is damaged: at byte %" PRIu64
                                     " there is no group of epoch %" PRIu64 " that matches its checksums",
                                     shown + off - KITHI_WAL_BLOCK, epoch);
        } else {
            memcpy(h.uid, v->uid, sizeof h.uid);
            h.number = 1;
            h.timeline = timeline;
            h.durable_epoch = epoch - 1;
            kithi_wal_group_header_encode(buf, &h);
            status = write_at(fd, buf, KITHI_WAL_GROUP_HEADER, off);
            off += whole;
        }
        if (!status) {
            status = stopped(v, err);
        }
    }
    free(buf);
    if (!status && off != size) {
        status = kithi_error_set(err, KITHI_E_CORRUPT,
                                 "the back-up is damaged: bytes %" PRIu64 " to %" PRIu64
                                 " are behind the last group of its log",
                                 shown + off - KITHI_WAL_BLOCK, shown + size - KITHI_WAL_BLOCK);
    }
    return status;
}

static int take_log(struct kithi_revive *v, uint64_t timeline, struct kithi_errmsg *err)
{
    unsigned char head[KITHI_WAL_BLOCK];
    if (v->header.log_bytes == 0) {
        return 0;
    }
    kithi_error_set(err, 0, "%s", "");
    int fd = open(v->log, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int status = fd < 0 ? -errno : claim_groups(v, fd, timeline, err);
    if (!status) {
        struct kithi_wal_file_header h = { .number = 1,
                                           .first_epoch = v->header.epoch + 1,
                                           .timeline = timeline,
                                           .size = KITHI_WAL_BLOCK + v->header.log_bytes };
        memcpy(h.uid, v->uid, sizeof h.uid);
        kithi_wal_file_header_encode(head, &h);
        status = write_at(fd, head, sizeof head, 0);
    }
    if (!status && fsync(fd)) {
        status = -errno;
    }
    if (fd >= 0) {
        close(fd);
    }
    return status && !err->text[0]
               ? kithi_error_set(err, status, "%s cannot be written: %s", v->log, kithi_error_text(status))
               : status;
}

/* ---- the thread: from files to an index ---- */

static int begin_log(struct kithi_collection *c, uint64_t epoch, struct kithi_errmsg *err)
{
    struct kithi_wal_report none = { .last_epoch = epoch };
    struct kithi_wal_open_opts opts = { .dir = c->wal_dir,
                                        .timeline = c->settings.timeline,
                                        .report = &none };
    memcpy(opts.uid, c->settings.uid, sizeof opts.uid);
    return kithi_wal_open(c->daemon->io, &opts, &c->wal, err);
}

static void note_violation(void *arg, const char *rule, const char *text)
{
    struct kithi_errmsg *err = arg;
    if (!err->text[0]) {
        kithi_error_set(err, KITHI_E_CORRUPT,
                        "the back-up checks, but what it makes is no whole index (%s: %.200s)", rule, text);
    }
}

/* Checksums say that bytes are those that were written; whoever wrote them may have been anybody. */
static int check_index(const struct kithi_collection *c, struct kithi_errmsg *err)
{
    struct kithi_verify_report report;
    kithi_error_set(err, 0, "%s", "");
    kithi_recover_hold(c, "verify");
    int status = kithi_verify_until(kithi_index_map(c->index), 0, kithi_collection_stop(c), note_violation,
                                    err, &report);
    if (status) {
        return kithi_error_set(err, status, "what was restored cannot be checked: %s",
                               kithi_error_text(status));
    }
    return report.violation_count ? KITHI_E_CORRUPT : 0;
}

static int build(struct kithi_revive *v, const struct kithi_settings *s, struct kithi_errmsg *err)
{
    uint64_t end_epoch = 0;
    struct kithi_daemon *d = v->daemon;
    int status = kithi_collection_new(d, s, &v->collection, err);
    struct kithi_collection *c = v->collection;
    if (!status) {
        c->apart = &v->cancelled;
        status = kithi_collection_at(c, v->made, err);
    }
    if (!status) {
        status = kithi_dir_inside(c->run_dir, 0750, d->policy.read_group, err);
    }
    if (!status) {
        status = kithi_load_one(c, v->header.epoch, &end_epoch, err);
    }
    KITHI_FAULT_CRASH("crash-in-restore-loaded");
    if (!status && v->header.log_bytes == 0) {
        status = begin_log(c, v->header.epoch, err);
    } else if (!status) {
        kithi_index_tune(c->index, 1, 1); /* nobody reads it yet, whom dead slots would have to wait for */
        status = kithi_recover_log(c, end_epoch, err);
        kithi_index_tune(c->index, d->tuning.grace_ms, d->tuning.rest_ms);
    }
    if (!status) {
        status = check_index(c, err);
    }
    if (!status) {
        status = kithi_dir_sync(c->wal_dir, err);
    }
    return status ? status : kithi_dir_sync(c->data_dir, err);
}

static void *work(void *arg)
{
    struct kithi_revive *v = arg;
    struct kithi_settings settings;
    const uint64_t one = 1;
    int status = take_checkpoint(v, &settings, &v->err);
    if (!status) {
        status = take_log(v, settings.timeline, &v->err);
    }
    KITHI_FAULT_CRASH("crash-in-restore-checked");
    if (!status) {
        status = build(v, &settings, &v->err);
    }
    if (status == -ECANCELED) {
        atomic_store(&v->cancelled, true);
        status = stopped(v, &v->err);
    }
    v->status = say_no_room(v, status, &v->err);
    while (write(v->event_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
    return NULL;
}

static void work_done(struct kithi_io_op *op, int result)
{
    struct kithi_revive *v = op->arg;
    (void)result;
    pthread_join(v->thread, NULL);
    kithi_io_close(v->daemon->io, v->event_fd);
    v->event_fd = -1;
    if (v->status) {
        fail(v, "");
        give_up(v);
        return;
    }
    v->step = REVIVE_PLACING;
    if (!kithi_admin_place(v->daemon, v)) {
        kithi_error_set(&v->err, -ENOMEM, "no memory for another request");
        fail(v, "");
        give_up(v);
    }
}

static void work_begin(struct kithi_revive *v)
{
    struct kithi_daemon *d = v->daemon;
    int status = 0;
    if (v->received != v->header.checkpoint_bytes + v->header.log_bytes) {
        status = kithi_error_set(&v->err, KITHI_E_TRUNCATED,
                                 "of the back-up's %" PRIu64 " bytes %" PRIu64
                                 " were sent: the file was cut off meanwhile",
                                 kithi_backup_size(&v->header), KITHI_BACKUP_BLOCK + v->received);
    } else if (d->stopping) {
        status = kithi_error_set(&v->err, KITHI_E_SHUTDOWN, "the daemon is stopping; nothing was restored");
    }
    close_files(v);
    if (!status) {
        v->event_fd = eventfd(0, EFD_CLOEXEC);
        status = v->event_fd < 0 ? -errno : 0;
        if (!status) {
            status = -pthread_create(&v->thread, NULL, work, v);
        }
        if (status) {
            kithi_error_set(&v->err, status, "no thread for a restore: %s", kithi_error_text(status));
        }
    }
    if (status) {
        if (v->event_fd >= 0) {
            close(v->event_fd);
        }
        fail(v, "");
        give_up(v);
        return;
    }
    v->step = REVIVE_WORKING;
    v->op.done = work_done;
    kithi_io_poll(d->io, &v->op, v->event_fd);
}

bool kithi_revive_end(struct kithi_revive *v, struct kithi_request *r)
{
    if (v->step == REVIVE_PREPARING) {
        struct kithi_errmsg early;
        kithi_error_set(&early, KITHI_E_PROTOCOL, "the end of a back-up before its restore was answered");
        kithi_request_refuse(r, KITHI_NO_ITEM, &early);
        return false;
    }
    v->listed = true;
    v->next = v->daemon->revives;
    v->daemon->revives = v;
    v->asked = r;
    if (v->step == REVIVE_FAILED) {
        give_up(v);
    } else {
        advance(v);
    }
    return true;
}

void kithi_revive_stop(struct kithi_daemon *d)
{
    for (struct kithi_revive *v = d->revives; v; v = v->next) {
        atomic_store(&v->cancelled, true);
    }
}

void kithi_revive_fini(struct kithi_daemon *d)
{
    while (d->revives) {
        struct kithi_revive *v = d->revives;
        d->revives = v->next;
        if (v->step == REVIVE_WORKING) {
            atomic_store(&v->cancelled, true);
            pthread_join(v->thread, NULL);
            close(v->event_fd);
        }
        kithi_collection_free(v->collection);
        free(v);
    }
}

/* ---- its place ---- */

/* On failure nothing exists under the name, or d->failing has to end it all. */
static int place_call(void *arg)
{
    struct kithi_revive *v = arg;
    struct kithi_collection *c = v->collection;
    struct kithi_errmsg ignored;
    bool run_moved = false, moved = false, gone = false;
    int status = kithi_collection_at(c, v->name, &v->err);
    if (!status) {
        status = kithi_collection_clear_run(c, &v->err);
    }
    if (!status) {
        status = kithi_collection_rename(v->run_dir, c->run_dir, &v->err);
        run_moved = !status;
    }
    if (!status) {
        kithi_boards_open(&c->boards, c->run_dir, c->settings.uid, &v->daemon->policy,
                          !v->daemon->no_counters);
    }
    KITHI_FAULT_CRASH("crash-in-restore-run-renamed");
    if (!status && kithi_wal_moved(c->wal, c->wal_dir)) {
        status = kithi_error_set(&v->err, -ENAMETOOLONG, "%s: the path is too long", c->wal_dir);
    }
    if (!status) {
        status = kithi_collection_rename(v->data_dir, c->data_dir, &v->err);
        moved = !status;
    }
    KITHI_FAULT_CRASH("crash-in-restore-renamed");
    if (!status) {
        status = kithi_dir_sync(v->daemon->data.path, &v->err);
    }
    KITHI_FAULT_CRASH("crash-in-restore-synced");
    if (!status) {
        kithi_checkpointer_found(c, v->header.epoch, 0);
        status = kithi_collection_switch(c, &v->err);
    }
    if (!status) {
        return 0;
    }
    if (moved && kithi_collection_bury(c, &gone, &ignored) && !gone) {
        /* The next start brings it back: its files stay, and whoever asked is told that nobody knows. */
        char why[sizeof v->err.text];
        memcpy(why, v->err.text, sizeof why);
        kithi_log(KITHI_LOG_ERROR, "restore-not-undone", "name=%s msg=%s", v->name, ignored.text);
        return kithi_error_set(&v->err, KITHI_E_UNKNOWN_OUTCOME,
                               "%.250s; whether the collection is there after the next start is unknown",
                               why);
    }
    if (gone) {
        if (!kithi_collection_buried_path(c, v->data_dir, &ignored)) {
            kithi_collection_remove(v->daemon, v->data_dir, &ignored);
        }
    }
    if (run_moved) {
        memcpy(v->run_dir, c->run_dir, sizeof v->run_dir);
    }
    return status;
}

static void place_done(struct kithi_io_op *op, int status)
{
    struct kithi_revive *v = op->arg;
    struct kithi_collection *c = v->collection;
    struct kithi_daemon *d = v->daemon;
    kithi_admin_placed(d);
    if (status == KITHI_E_UNKNOWN_OUTCOME) {
        kithi_daemon_fail(d); /* under that name nothing else may begin before a start has looked */
        kithi_request_refuse(v->asked, KITHI_NO_ITEM, &v->err);
        kithi_collection_free(c);
        forget(v);
        return;
    }
    if (status) {
        fail(v, "");
        give_up(v);
        return;
    }
    v->collection = NULL;
    c->apart = NULL;
    kithi_daemon_add(d, c);
    struct kithi_restored restored = { .live = kithi_index_live(c->index), .timeline = c->settings.timeline };
    struct kithi_answer a = { .item = KITHI_NO_ITEM,
                              .epoch = kithi_index_epoch(c->index),
                              .text = &restored,
                              .text_len = sizeof restored };
    kithi_log(KITHI_LOG_INFO, "collection-restored", "name=%s of=%s epoch=%" PRIu64 " live=%" PRIu64, v->name,
              v->header.name, a.epoch, restored.live);
    kithi_request_answer(v->asked, &a);
    forget(v);
}

void kithi_revive_place(struct kithi_revive *v)
{
    struct kithi_daemon *d = v->daemon;
    int status = 0;
    struct kithi_errmsg coming;
    if (kithi_daemon_find(d, v->name) || kithi_start_find(d, v->name, &coming)) {
        status =
            kithi_error_set(&v->err, KITHI_E_EXISTS,
                            "a collection \"%s\" was created meanwhile; restore under another name", v->name);
    } else if (d->failing) {
        status = kithi_error_set(&v->err, KITHI_E_SHUTDOWN,
                                 "the daemon is stopping because a log failed; nothing was restored");
    }
    if (status) {
        kithi_admin_placed(d);
        fail(v, "");
        give_up(v);
        return;
    }
    v->op.done = place_done;
    kithi_io_call(d->io, &v->op, place_call);
}
