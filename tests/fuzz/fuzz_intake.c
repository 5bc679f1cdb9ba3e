/*
 * fuzz_intake.c - hostile bytes on kithd's socket: a session of the daemon itself, in this thread, whatever frames they are. Nothing
 * crashes or hangs, every reply is a frame, a session ends with its input, and a collection is clean whatever was asked.
 *
 * The daemon is that of kithd.c from kithi_daemon_init() to the turns of its loop; the loop below hands it the input instead
 * of what a socket has, in pieces, and jobs, helpers and writes are done at once. It has a collection "docs"; what an input
 * makes of its collections is there for the next, until the daemon begins anew after LIFE inputs.
 *
 *   byte 0   flags: 1 the rest is the stream as it is; else it begins with HELLO and is a list of
 *              type (0: ALTER) + 12 * flags, count, length of the body / 8, body; 128 of the second: the uid of "docs" comes before it
 *   byte 1   the size of the pieces
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include "server/base/io_priv.h"
#include "server/base/log.h"
#include "server/wal/append.h"
#include "server/writer/admin.h"
#include "server/writer/census.h"
#include "server/writer/collection.h"
#include "server/writer/intake.h"
#include "shm/base/bytes.h"
#include "shm/graph/verify.h"
#include "tests/crash/start_here.h"
#include "tests/support/tmp.h"

#define LIFE        400u
#define DIM         4u
#define SLOT_MAX    256u
#define STREAM_MAX  (96u << 10)
#define LOG_FILE    (64u << 10)
#define UID_SIZE    16u
#define LATER_MS    40000u
#define TURNS_MAX   4000u
#define TYPES       12u /* of frames */
#define COLLECTIONS 12u /* more of them, and the daemon begins anew */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kithi_daemon daemon_here;
static struct test_dir data_dir, run_dir;
static uint32_t age;
static uint64_t now_us = 1000000;
static uint8_t docs_uid[UID_SIZE];
static unsigned char stream[STREAM_MAX];

/* What the session gets, and has got. */
static struct {
    int fd; /* to be accepted; -1: none */
    size_t len, at, piece;
    size_t reply_have; /* bytes of the reply that is coming in */
    struct kithi_frame reply;
    uint64_t replies;
} peer = { .fd = -1 };

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "a promise is broken: %s\n", what);
        abort();
    }
}

/* ---- the loop ---- */

struct loop {
    struct kithi_io io; /* first */
    struct kithi_io_list ops;
    struct kithi_work *works, **works_end;
};

/* Replies are frames, one after the other, however they are cut. */
static void take_reply(const unsigned char *bytes, size_t len)
{
    while (len) {
        size_t head = sizeof peer.reply, n;
        if (peer.reply_have < head) {
            n = head - peer.reply_have < len ? head - peer.reply_have : len;
            memcpy((char *)&peer.reply + peer.reply_have, bytes, n);
        } else {
            size_t left = head + peer.reply.len - peer.reply_have;
            n = left < len ? left : len;
        }
        peer.reply_have += n;
        bytes += n;
        len -= n;
        if (peer.reply_have == head) {
            check(peer.reply.magic == KITHI_FRAME_MAGIC && peer.reply.type == KITHI_FRAME_REPLY,
                  "a reply is a frame");
            check(peer.reply.len >= sizeof(struct kithi_reply) && peer.reply.len % 8 == 0 &&
                      peer.reply.len <= KITHI_FRAME_MAX,
                  "a reply has a body");
        }
        if (peer.reply_have >= head && peer.reply_have == head + peer.reply.len) {
            peer.reply_have = 0;
            peer.replies++;
        }
    }
}

static int receive(struct kithi_io_op *op)
{
    size_t n = peer.len - peer.at < op->len ? peer.len - peer.at : (size_t)op->len;
    n = n < peer.piece ? n : peer.piece;
    memcpy(op->u.in, stream + peer.at, n);
    peer.at += n;
    return (int)n;
}

/* Whether it is done now; timers and polls never are. */
static bool perform(struct loop *l, struct kithi_io_op *op, int *out)
{
    if (op->cancelled) {
        *out = -ECANCELED;
        return true;
    }
    switch (op->type) {
    case KITHI_IO_WRITE: *out = kithi_io_real_write(&l->io, op->fd, op->u.out, op->len, op->off); return true;
    case KITHI_IO_CALL: *out = op->u.call(op->arg); return true;
    case KITHI_IO_RECV: *out = receive(op); return true;
    case KITHI_IO_SEND:
        take_reply(op->u.out, op->len);
        *out = (int)op->len;
        return true;
    case KITHI_IO_ACCEPT:
        *out = peer.fd;
        peer.fd = -1;
        return *out >= 0;
    default: return false;
    }
}

static int loop_run(struct kithi_io *io, int timeout_ms)
{
    struct loop *l = (struct loop *)io;
    struct kithi_work *work = l->works;
    (void)timeout_ms;
    if (work) {
        l->works = work->next;
        if (!l->works)
            l->works_end = &l->works;
        for (uint32_t i = 0; i < work->n; i++)
            work->fn(work->arg, 0, i);
        work->done(work);
        return 1;
    }
    for (struct kithi_io_op *op = l->ops.first; op; op = op->next) {
        int result;
        if (perform(l, op, &result)) {
            kithi_io_list_remove(&l->ops, op);
            kithi_io_complete(op, result);
            return 1;
        }
    }
    return 0;
}

static void loop_submit(struct kithi_io *io, struct kithi_io_op *op)
{
    kithi_io_list_push(&((struct loop *)io)->ops, op);
}

static void loop_wake(struct kithi_io *io)
{
    (void)io;
}

static void loop_cancel(struct kithi_io *io, struct kithi_io_op *op)
{
    (void)io;
    op->cancelled = true;
}

static void loop_close(struct kithi_io *io, int fd)
{
    struct loop *l = (struct loop *)io;
    for (struct kithi_io_op *op = l->ops.first; op; op = op->next)
        if (op->fd == fd && op->type != KITHI_IO_CALL && op->type != KITHI_IO_WRITE)
            op->cancelled = true;
    close(fd);
}

static void loop_free(struct kithi_io *io)
{
    free(io);
}

static const struct kithi_io_vtable loop_vtable = {
    .name = "fuzz",
    .run = loop_run,
    .wake = loop_wake,
    .submit = loop_submit,
    .cancel = loop_cancel,
    .close = loop_close,
    .free = loop_free,
    .file_create = kithi_io_real_create,
    .file_open = kithi_io_real_open,
    .file_read = kithi_io_real_read,
    .file_allocate = kithi_io_real_allocate,
    .file_zero = kithi_io_real_zero,
    .file_size = kithi_io_real_size,
    .file_write = kithi_io_real_write,
    .file_close = kithi_io_real_close,
    .file_sync = kithi_io_real_sync,
    .file_rename = kithi_io_real_rename,
    .file_unlink = kithi_io_real_unlink,
    .dir_sync = kithi_io_real_dir_sync,
};

/* ---- what the linker puts in the place of the daemon's own ---- */

int __wrap_kithi_io_open(enum kithi_io_kind kind, struct kithi_io **out_io, struct kithi_errmsg *err);
int __wrap_kithi_pool_open(struct kithi_io *io, unsigned threads, struct kithi_pool **out_pool,
                           struct kithi_errmsg *err);
unsigned __wrap_kithi_pool_threads(const struct kithi_pool *pool);
void __wrap_kithi_pool_submit(struct kithi_pool *pool, struct kithi_work *work);
void __wrap_kithi_pool_give_way(struct kithi_pool *pool, unsigned worker);
void __wrap_kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n);
void __wrap_kithi_pool_free(struct kithi_pool *pool);
uint64_t __wrap_kithi_now_us(void);
uint64_t __wrap_kithi_now_ms(void);
uint64_t __wrap_kithi_cgroup_left(const char *root);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);
int __real_kithi_wal_open(struct kithi_io *io, const struct kithi_wal_open_opts *opts,
                          struct kithi_wal **out_wal, struct kithi_errmsg *err);
int __wrap_kithi_wal_open(struct kithi_io *io, const struct kithi_wal_open_opts *opts,
                          struct kithi_wal **out_wal, struct kithi_errmsg *err);

int __wrap_kithi_io_open(enum kithi_io_kind kind, struct kithi_io **out_io, struct kithi_errmsg *err)
{
    struct loop *l = calloc(1, sizeof *l);
    (void)kind;
    if (!l)
        return kithi_error_set(err, -ENOMEM, "out of memory");
    l->io.vt = &loop_vtable;
    l->works_end = &l->works;
    *out_io = &l->io;
    return 0;
}

int __wrap_kithi_pool_open(struct kithi_io *io, unsigned threads, struct kithi_pool **out_pool,
                           struct kithi_errmsg *err)
{
    (void)threads;
    (void)err;
    *out_pool = (struct kithi_pool *)(void *)io;
    return 0;
}

unsigned __wrap_kithi_pool_threads(const struct kithi_pool *pool)
{
    (void)pool;
    return 1;
}

void __wrap_kithi_pool_submit(struct kithi_pool *pool, struct kithi_work *work)
{
    struct loop *l = (struct loop *)(void *)pool;
    work->next = NULL;
    *l->works_end = work;
    l->works_end = &work->next;
}

void __wrap_kithi_pool_give_way(struct kithi_pool *pool, unsigned worker)
{
    (void)pool;
    (void)worker;
}

void __wrap_kithi_pool_run(struct kithi_pool *pool, kithi_pool_fn *fn, void *arg, uint32_t n)
{
    (void)pool;
    for (uint32_t i = 0; i < n; i++)
        fn(arg, 0, i);
}

void __wrap_kithi_pool_free(struct kithi_pool *pool)
{
    (void)pool;
}

uint64_t __wrap_kithi_now_us(void)
{
    return now_us += 7;
}

uint64_t __wrap_kithi_now_ms(void)
{
    return __wrap_kithi_now_us() / 1000;
}

uint64_t __wrap_kithi_cgroup_left(const char *root)
{
    (void)root;
    return UINT64_MAX;
}

/* Identities are the same in each daemon, so that an input can name "docs". */
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags)
{
    static uint32_t calls;
    (void)flags;
    if (age == 0)
        calls = 0;
    memset(buf, (int)(++calls & 0x7f), len);
    return (ssize_t)len;
}

int __wrap_kithi_wal_open(struct kithi_io *io, const struct kithi_wal_open_opts *opts,
                          struct kithi_wal **out_wal, struct kithi_errmsg *err)
{
    struct kithi_wal_open_opts smaller = *opts;
    smaller.file_size = LOG_FILE;
    return __real_kithi_wal_open(io, &smaller, out_wal, err);
}

/* ---- the daemon ---- */

/* As kithi_daemon_run() does between two waits. */
static void turn(struct kithi_daemon *d)
{
    do {
        uint64_t now_ms = kithi_now_ms();
        d->again = false;
        kithi_admin_turn(d);
        for (struct kithi_collection *c = d->collections; c; c = c->next) {
            kithi_old_turn(c, now_ms);
            uint64_t census_ms;
            bool census = kithi_census_turn(c, now_ms, &census_ms);
            if (!census) {
                kithi_relayout_turn(c, now_ms);
                kithi_growth_turn(c, now_ms);
            }
            kithi_pipeline_turn(c, now_ms);
            if (!census)
                kithi_checkpointer_turn(c, now_ms);
            kithi_boards_turn(c, now_ms);
        }
        kithi_intake_turn(d, now_ms);
    } while (d->again);
}

static bool is_idle(const struct kithi_daemon *d)
{
    bool idle = !d->admin && !d->sessions;
    for (const struct kithi_collection *c = d->collections; c && idle; c = c->next)
        idle = kithi_collection_idle(c);
    return idle;
}

/* Until nothing is left to be done; where it waits for a time, that comes. */
static void run(struct kithi_daemon *d)
{
    for (uint32_t waits = 0, turns = 0; turns < 1000 * TURNS_MAX; turns++) {
        turn(d);
        if (kithi_io_run(d->io, 0) > 0)
            continue;
        if (is_idle(d))
            return;
        check(++waits < TURNS_MAX, "whatever is asked comes to an end");
        now_us += 1000u * (waits < 100 ? 50 : LATER_MS);
    }
    check(false, "whatever is asked comes to an end");
}

static void end_daemon(void)
{
    if (data_dir.path[0]) {
        kithi_daemon_fini(&daemon_here);
        test_dir_remove(&data_dir);
        test_dir_remove(&run_dir);
        data_dir.path[0] = '\0';
    }
}

static void make_docs(void)
{
    struct kithi_geometry g = {
        .dim = DIM, .metric = KITHI_METRIC_L2, .m = 4, .ef_construction = 16, .slot_max = SLOT_MAX
    };
    struct kithi_settings settings;
    struct kithi_collection *c = NULL;
    struct kithi_errmsg err;
    kithi_geometry_want(&g, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32);
    if (kithi_settings_new(&settings, "docs", &g, &err) ||
        kithi_collection_new(&daemon_here, &settings, &c, &err) || kithi_collection_make(c, &err))
        test_die("%s", err.text);
    kithi_daemon_add(&daemon_here, c);
    memcpy(docs_uid, settings.uid, sizeof docs_uid);
}

static void begin_daemon(void)
{
    struct kithi_options options = { .threads = 1, .grace_ms = 5, .rest_ms = 5, .small_pages = true };
    struct kithi_errmsg err;
    sigset_t set;
    end_daemon();
    age = 0;
    test_dir_make_shm(&data_dir);
    test_dir_make_shm(&run_dir);
    snprintf(options.data, sizeof options.data, "%s", data_dir.path);
    snprintf(options.run, sizeof options.run, "%s", run_dir.path);
    if (kithi_daemon_init(&daemon_here, &options, &err) || test_start_here(&daemon_here, &err) ||
        kithi_intake_open(&daemon_here, &err))
        test_die("%s", err.text);
    make_docs();
    /* Ours to be ended by. */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- inputs ---- */

static size_t put_frame(size_t at, unsigned type, unsigned flags, uint32_t count, const uint8_t *body,
                        size_t len, bool uid)
{
    size_t all = (uid ? UID_SIZE : 0) + (len + 7) / 8 * 8;
    struct kithi_frame f = { .magic = KITHI_FRAME_MAGIC,
                             .len = (uint32_t)all,
                             .type = (uint16_t)type,
                             .flags = (uint16_t)flags,
                             .count = count,
                             .tag = at };
    if (at + sizeof f + all > STREAM_MAX)
        return at;
    memcpy(stream + at, &f, sizeof f);
    at += sizeof f;
    memset(stream + at, 0, all);
    if (uid)
        memcpy(stream + at, docs_uid, UID_SIZE);
    if (len)
        memcpy(stream + at + (uid ? UID_SIZE : 0), body, len);
    return at + all;
}

static size_t make_stream(const uint8_t *data, size_t size)
{
    static const uint8_t hello[8] = { KITHI_WIRE_VERSION };
    size_t len = put_frame(0, KITHI_FRAME_HELLO, 0, 0, hello, sizeof hello, false);
    while (size >= 3) {
        size_t body = (size_t)data[2] * 8;
        body = body < size - 3 ? body : size - 3;
        unsigned type = data[0] % TYPES;
        len = put_frame(len, type ? type : KITHI_FRAME_ALTER, data[0] / TYPES % 4, data[1] & 0x7f, data + 3,
                        body, data[1] & 0x80);
        data += 3 + body;
        size -= 3 + body;
    }
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kithi_daemon *d = &daemon_here;
    uint32_t collections = 0;
    int pair[2];
    if (size < 2 || size > STREAM_MAX)
        return 0;
    if (!data_dir.path[0]) {
        kithi_log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
        begin_daemon();
    } else if (age >= LIFE) {
        begin_daemon();
    }
    age++;
    if (data[0] & 1) {
        peer.len = size - 2;
        memcpy(stream, data + 2, peer.len);
    } else {
        peer.len = make_stream(data + 2, size - 2);
    }
    peer.at = peer.reply_have = 0;
    peer.piece = data[1] ? data[1] : STREAM_MAX;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        test_die("%s", strerror(errno));
    close(pair[1]); /* that we are at its end is all that is asked of it */
    peer.fd = pair[0];
    run(d);

    check(peer.fd < 0, "a peer is accepted");
    check(peer.reply_have == 0, "replies are whole");
    check(!d->failing && !d->stopping, "nobody's bytes end the daemon");
    check(d->queued_bytes == 0 && d->session_count == 0, "what was taken is given back");
    for (const struct kithi_collection *c = d->collections; c; c = c->next) {
        struct kithi_verify_report report;
        int rc = kithi_verify_within(kithi_index_map(c->index), 0, NULL, NULL, &report);
        check(rc == 0 && report.violation_count == 0, "a collection is clean");
        collections++;
    }
    if (collections > COLLECTIONS || !kithi_daemon_find(d, "docs"))
        age = LIFE;
    return 0;
}

__attribute__((destructor)) static void clean_up(void)
{
    end_daemon();
}
