/*
 * backup.c - back-ups: from the daemon to a file of this process, and from a file to the daemon. What is in them is the
 * daemon's business; here they are bytes, and an answer that says when there are no more.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/src/admin_priv.h"
#include "client/src/handle_priv.h"
#include "client/src/opts_priv.h"
#include "client/src/rundir_priv.h"
#include "shm/base/id.h"

/* Pieces asked for, or sent, ahead of their answers: so many MiB are under way, and neither side waits for the other. */
#define AHEAD 3u

/* A connection, and where there are others like it. */
struct line {
    struct kithi_conn conn;
    const char *run_dir;
};

/* ---- opening words ---- */

static int take_opts(struct kith_backup_opts *o, const struct kith_backup_opts *opts,
                     struct kith_backup_info *out)
{
    struct kith_backup_info none = KITH_BACKUP_INFO_INIT;
    *o = (struct kith_backup_opts)KITH_BACKUP_OPTS_INIT;
    if ((opts && kithi_opts_in(o, opts, sizeof *o, sizeof *o) < 0) || o->reserved)
        return -EINVAL;
    /* Before anything is done, so that a bad struct never hides what was. */
    return out ? kithi_opts_out(out, &none, sizeof none, sizeof none) : 0;
}

static int tell(const struct kith_backup_opts *o, uint64_t done, uint64_t total, struct kithi_errmsg *err)
{
    if (!o->progress || o->progress(o->arg, done, total) == 0)
        return 0;
    return kithi_error_set(err, -ECANCELED, "the caller ended it");
}

/* What an answer says, with the daemon's words. */
static int status_of(const struct kithi_answer *answer, struct kithi_errmsg *err)
{
    int status = answer->head.status;
    if (status >= 0)
        return 0;
    status = status == KITHI_E_NO_COLLECTION ? KITHI_E_REPLACED : status;
    if (answer->head.text_len == 0)
        return kithi_error_set(err, status, "%s", kithi_error_text(status));
    return kithi_error_set(err, status, "%.*s", (int)answer->head.text_len, answer->text);
}

/* when: what was under way, and what is known of it. */
static int lost(int rc, const char *when, struct kithi_errmsg *err)
{
    if (kithi_conn_is_gone(rc) || rc == KITHI_E_UNKNOWN_OUTCOME || rc == KITHI_E_NO_DAEMON)
        return kithi_error_set(err, KITHI_E_NO_DAEMON, "the daemon went away %s", when);
    if (rc == -EAGAIN)
        return kithi_error_set(err, KITHI_E_TIMEOUT,
                               "the daemon gives no sign of life for %u ms, %s: it is stopped, or hangs",
                               kithi_admin_answer_ms, when);
    return kithi_error_set(err, rc, "the daemon's answer cannot be had: %s", kithi_error_text(rc));
}

/* Not even a greeting: nothing was asked. */
static int not_greeted(const char *run_dir, struct kithi_errmsg *err)
{
    return kithi_error_set(
        err, KITHI_E_TIMEOUT,
        "the daemon of %.200s has not answered for %u ms: it is stopped, or hangs; nothing "
        "was asked of it",
        run_dir, kithi_admin_hello_ms);
}

/* A checkpoint takes as long as the disk, and so do loading and verifying: from here on the daemon is given up when it gives no sign of life. */
static void be_patient(struct line *line)
{
    kithi_conn_patience(&line->conn, kithi_admin_answer_ms / 2);
}

static int ask(struct line *line, uint16_t type, const struct iovec *body, int n, struct kithi_answer *answer,
               const char *when, struct kithi_errmsg *err)
{
    int rc = kithi_conn_call_slow(&line->conn, type, body, n, answer);
    return rc < 0 ? lost(rc, when, err) : status_of(answer, err);
}

/* In the middle of a request no other can be made on its connection. Does the daemon greet on another one? */
static bool lives(const struct line *line)
{
    struct kithi_conn other;
    struct kithi_errmsg ignored;
    bool greets = kithi_conn_open(&other, line->run_dir, kithi_admin_answer_ms / 2, &ignored) == 0;
    kithi_conn_close(&other);
    return greets;
}

/* One request of a stream: sent, its answer taken by a later receive. */
static int send_ahead(struct line *line, uint16_t type, const void *body, size_t len,
                      struct kithi_errmsg *err)
{
    struct kithi_frame frame = kithi_conn_frame(&line->conn, type, 0, len);
    struct iovec pieces[2] = { { .iov_base = &frame, .iov_len = sizeof frame },
                               { .iov_base = (void *)(uintptr_t)body, .iov_len = len } },
                 *iov = pieces;
    int n = len ? 2 : 1, rc;
    size_t sent = 0;
    do
        rc = kithi_conn_send(&line->conn, &iov, &n, true, &sent);
    while (rc == -EAGAIN && lives(line));
    return rc == 1 || kithi_conn_is_gone(rc) ? 0 : lost(rc, "in the middle of the back-up", err);
}

static int receive(struct line *line, struct kithi_answer *answer, struct kithi_errmsg *err)
{
    int rc = kithi_conn_receive_slow(&line->conn, answer);
    return rc < 0 ? lost(rc, "in the middle of the back-up", err) : status_of(answer, err);
}

/* ---- the file that is written ---- */

struct target {
    const char *path;
    char *partial, *dir; /* <path>.new, and where it is */
    int fd;
};

static int file_failed(struct kithi_errmsg *err, const char *what, const char *path)
{
    int e = errno;
    return kithi_error_set(err, -e, "cannot %s %s: %s", what, path, kithi_error_text(-e));
}

static bool is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static int refuse_present(const char *path, bool replace, struct kithi_errmsg *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : file_failed(err, "look at", path);
    if (!S_ISREG(st.st_mode))
        return kithi_error_set(err, -EEXIST, "%s is there and not a file; a back-up never replaces such",
                               path);
    return replace
               ? 0
               : kithi_error_set(err, -EEXIST, "%s exists; back-ups replace nothing unless told to", path);
}

static int target_open(struct target *t, const char *path, bool replace, struct kithi_errmsg *err)
{
    *t = (struct target){ .path = path, .fd = -1 };
    int rc = refuse_present(path, replace, err);
    if (rc < 0)
        return rc;
    const char *slash = strrchr(path, '/');
    t->dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!t->dir || asprintf(&t->partial, "%s.new", path) < 0) {
        t->partial = NULL;
        return kithi_error_set(err, -ENOMEM, "out of memory");
    }
    /* Nobody else's: held by a lock, so that two do not write one file, and what a crash left is used again. */
    t->fd = open(t->partial, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (t->fd < 0)
        return file_failed(err, "make", t->partial);
    struct stat st, named;
    if (flock(t->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        close(t->fd);
        t->fd = -1;
        return kithi_error_set(err, -EBUSY, "another back-up is being written to %s", t->partial);
    }
    if (fstat(t->fd, &st) < 0 || !S_ISREG(st.st_mode) || lstat(t->partial, &named) < 0 ||
        named.st_ino != st.st_ino || named.st_dev != st.st_dev) {
        close(t->fd);
        t->fd = -1;
        return kithi_error_set(err, -EBUSY, "%s is not a file of this back-up's own; remove it", t->partial);
    }
    return ftruncate(t->fd, 0) < 0 || fchmod(t->fd, 0600) < 0 ? file_failed(err, "empty", t->partial) : 0;
}

static int target_write(const struct target *t, const void *bytes, size_t len, struct kithi_errmsg *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(t->fd, (const char *)bytes + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n < 0 ? errno : ENOSPC;
            return errno == ENOSPC || errno == EDQUOT
                       ? kithi_error_set(err, -errno, "no room for the back-up at %s; nothing is left of it",
                                         t->path)
                       : file_failed(err, "write", t->partial);
        }
        done += (size_t)n;
    }
    return 0;
}

/* Content, name, and the name's own directory, in this order. */
static int target_name(struct target *t, bool replace, struct kithi_errmsg *err)
{
    if (fsync(t->fd) < 0)
        return file_failed(err, "sync", t->partial);
    int rc = refuse_present(t->path, replace, err); /* somebody may have been faster */
    if (rc < 0)
        return rc;
    if (rename(t->partial, t->path) < 0)
        return file_failed(err, "rename into place", t->partial);
    free(t->partial);
    t->partial = NULL;
    int dir = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = dir < 0 || fsync(dir) < 0 ? file_failed(err, "sync the directory of", t->path) : 0;
    if (dir >= 0)
        close(dir);
    return rc;
}

static void target_close(struct target *t)
{
    if (t->partial && t->fd >= 0 && is_there(t->partial))
        unlink(t->partial);
    if (t->fd >= 0)
        close(t->fd);
    free(t->partial);
    free(t->dir);
}

/* ---- back-up ---- */

/* Pieces until there is none: into the file. */
static int take_pieces(struct line *line, const struct target *t, const struct kith_backup_opts *o,
                       uint64_t total, struct kithi_errmsg *err)
{
    struct kithi_answer answer;
    uint64_t done = 0;
    int rc = 0;
    for (unsigned i = 0; i < AHEAD && rc == 0; i++)
        rc = send_ahead(line, KITHI_FRAME_BACKUP_NEXT, NULL, 0, err);
    while (rc == 0) {
        rc = receive(line, &answer, err);
        if (rc < 0)
            break;
        size_t len = answer.head.text_len;
        if (len > total - done || (len == 0 && done < total))
            return kithi_error_set(err, KITHI_E_PROTOCOL,
                                   "the daemon sent %" PRIu64
                                   " bytes of a back-up that it said to have %" PRIu64,
                                   done + len, total);
        if (len == 0)
            return 0;
        rc = target_write(t, answer.text, len, err);
        done += len;
        if (rc == 0)
            rc = tell(o, done, total, err);
        if (rc == 0)
            rc = send_ahead(line, KITHI_FRAME_BACKUP_NEXT, NULL, 0, err);
    }
    return rc;
}

int kith_backup(kith *index, const char *path, const struct kith_backup_opts *opts,
                struct kith_backup_info *out)
{
    struct kith_backup_opts o;
    struct kithi_errmsg err = { 0 };
    struct kithi_answer answer;
    struct line line;
    struct target t;
    struct kithi_backup_begun begun = { 0 };
    struct kith_backup_info info = KITH_BACKUP_INFO_INIT;

    if (!index || !path || !*path || take_opts(&o, opts, out) < 0 || o.replace > 1 || o.run_dir)
        return -EINVAL;
    line.run_dir = index->run_dir;
    kithi_conn_init(&line.conn);
    int rc = target_open(&t, path, o.replace, &err);
    if (rc == 0) {
        rc = kithi_handle_connect(index, &line.conn, kithi_admin_hello_ms, NULL);
        if (rc == -EAGAIN)
            rc = not_greeted(line.run_dir, &err);
        else if (rc < 0)
            kithi_error_set(&err, rc, "%s", kithi_error_text(rc));
    }
    if (rc == 0) {
        struct iovec body = { .iov_base = index->uid, .iov_len = sizeof index->uid };
        be_patient(&line);
        rc = ask(&line, KITHI_FRAME_BACKUP, &body, 1, &answer, "while it wrote a checkpoint", &err);
    }
    if (rc == 0 && answer.head.text_len < sizeof begun)
        rc = kithi_error_set(&err, KITHI_E_PROTOCOL, "the daemon's answer makes no sense");
    if (rc == 0) {
        memcpy(&begun, answer.text, sizeof begun);
        info.epoch = answer.head.epoch;
        info.bytes = begun.bytes;
        info.live_count = begun.live;
        rc = tell(&o, 0, begun.bytes, &err);
    }
    if (rc == 0)
        rc = take_pieces(&line, &t, &o, begun.bytes, &err);
    if (rc == 0)
        rc = target_name(&t, o.replace, &err);
    kithi_conn_close(&line.conn);
    target_close(&t);
    if (rc == 0 && out)
        kithi_opts_out(out, &info, sizeof info, sizeof info);
    return kithi_report(o.error, &err, rc);
}

/* ---- restore ---- */

/* len bytes at off, or fewer where the file ends; -1: errno says why. */
static ssize_t read_at(int fd, void *to, size_t len, uint64_t off)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (char *)to + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int source_open(const char *path, uint64_t *out_size, struct kithi_errmsg *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return file_failed(err, "open", path);
    int rc = fstat(fd, &st) < 0 ? file_failed(err, "look at", path)
             : S_ISREG(st.st_mode)
                 ? 0
                 : kithi_error_set(err, KITHI_E_FORMAT, "%s is not a file, and so no back-up", path);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    *out_size = (uint64_t)st.st_size;
    return fd;
}

/* Everything behind the first bytes, as pieces; their answers are all taken on return. */
static int send_pieces(struct line *line, int fd, const char *path, uint64_t size,
                       const struct kith_backup_opts *o, struct kithi_errmsg *err)
{
    struct kithi_answer answer;
    unsigned char *piece = malloc(KITHI_RESTORE_PIECE_MAX);
    uint64_t off = KITHI_RESTORE_HEAD;
    unsigned unanswered = 0;
    int rc = piece ? 0 : kithi_error_set(err, -ENOMEM, "out of memory");
    while (rc == 0 && (off < size || unanswered > 0)) {
        if (off < size && unanswered < AHEAD) {
            size_t len =
                size - off < KITHI_RESTORE_PIECE_MAX ? (size_t)(size - off) : KITHI_RESTORE_PIECE_MAX;
            ssize_t got = read_at(fd, piece, len, off);
            if (got < 0)
                rc = file_failed(err, "read", path);
            else if ((size_t)got < len)
                rc = kithi_error_set(err, KITHI_E_TRUNCATED, "%s got shorter while it was read", path);
            else
                rc = send_ahead(line, KITHI_FRAME_RESTORE_DATA, piece, len, err);
            off += len;
            unanswered++;
        } else {
            rc = receive(line, &answer, err);
            unanswered--;
            if (rc == 0)
                rc = tell(o, off, size, err);
        }
    }
    free(piece);
    return rc;
}

/* What is wrong with the file is told with its name. */
static bool is_of_file(int rc)
{
    return rc == KITHI_E_FORMAT || rc == KITHI_E_CORRUPT || rc == KITHI_E_TRUNCATED || rc == KITHI_E_VERSION;
}

static int restore(struct line *line, const char *name, const char *path, int fd, uint64_t size,
                   const struct kith_backup_opts *o, struct kith_backup_info *info, struct kithi_errmsg *err)
{
    struct kithi_answer answer;
    struct kithi_restored restored;
    struct kithi_restore *begin = calloc(1, sizeof *begin);
    uint64_t padded[(KITHI_NAME_MAX + 8) / 8] = { 0 };
    struct iovec body[2] = { { .iov_base = begin, .iov_len = sizeof *begin }, { .iov_base = padded } };
    if (!begin)
        return kithi_error_set(err, -ENOMEM, "out of memory");
    begin->size = size;
    begin->name_len = (uint32_t)strlen(name);
    memcpy(padded, name, begin->name_len);
    body[1].iov_len = (begin->name_len + 7u) / 8 * 8;
    int rc = read_at(fd, begin->head, sizeof begin->head, 0) < 0 ? file_failed(err, "read", path) : 0;
    if (rc == 0)
        rc = ask(line, KITHI_FRAME_RESTORE, body, 2, &answer, "before anything was sent", err);
    free(begin);
    if (rc == 0)
        rc = send_pieces(line, fd, path, size, o, err);
    if (rc < 0)
        return rc;
    /* From here on it is the daemon's. */
    rc = kithi_conn_call_slow(&line->conn, KITHI_FRAME_RESTORE_END, NULL, 0, &answer);
    if (rc == KITHI_E_UNKNOWN_OUTCOME)
        return kithi_error_set(
            err, rc,
            "the daemon went away before it answered; once it is back, kith list tells whether "
            "\"%s\" was restored",
            name);
    if (rc == -EAGAIN)
        return kithi_error_set(
            err, KITHI_E_TIMEOUT,
            "the daemon gives no sign of life for %u ms: it is stopped, or hangs. Whether \"%s\" will be restored is "
            "unknown; kith list tells once it answers",
            kithi_admin_answer_ms, name);
    if (rc < 0)
        return lost(rc, "in the middle of the back-up", err);
    rc = status_of(&answer, err);
    if (rc == 0 && answer.head.text_len < sizeof restored)
        rc = kithi_error_set(err, KITHI_E_PROTOCOL, "the daemon's answer makes no sense");
    if (rc == 0) {
        memcpy(&restored, answer.text, sizeof restored);
        info->epoch = answer.head.epoch;
        info->live_count = restored.live;
        info->timeline = restored.timeline;
    }
    return rc;
}

int kith_restore(const char *name, const char *path, const struct kith_backup_opts *opts,
                 struct kith_backup_info *out)
{
    struct kith_backup_opts o;
    struct kithi_errmsg err = { 0 };
    struct line line;
    struct kith_backup_info info = KITH_BACKUP_INFO_INIT;
    int fd = -1;

    if (!name || !path || !*path || take_opts(&o, opts, out) < 0 || o.replace)
        return -EINVAL;
    const char *run_dir = kithi_run_dir(o.run_dir);
    line.run_dir = run_dir;
    kithi_conn_init(&line.conn);
    int rc = 0;
    if (!kithi_name_valid(name, strnlen(name, KITHI_NAME_MAX + 1)))
        rc = kithi_error_set(&err, KITHI_E_NAME, "'%.80s' is %s", name, kithi_error_text(KITHI_E_NAME));
    if (rc == 0) {
        fd = source_open(path, &info.bytes, &err);
        rc = fd < 0 ? fd : kithi_run_dir_check(run_dir, &err);
    }
    if (rc == 0)
        rc = kithi_conn_open(&line.conn, run_dir, kithi_admin_hello_ms, &err);
    if (rc == -EAGAIN)
        rc = not_greeted(run_dir, &err);
    if (rc == 0) {
        be_patient(&line);
        rc = restore(&line, name, path, fd, info.bytes, &o, &info, &err);
    }
    if (is_of_file(rc) && kithi_conn_is_open(&line.conn)) {
        char why[sizeof err.text];
        memcpy(why, err.text, sizeof why);
        kithi_error_set(&err, rc, "%.150s: %.240s", path, why);
    }
    kithi_conn_close(&line.conn);
    if (fd >= 0)
        close(fd);
    if (rc == 0 && out)
        kithi_opts_out(out, &info, sizeof info, sizeof info);
    return kithi_report(o.error, &err, rc);
}
