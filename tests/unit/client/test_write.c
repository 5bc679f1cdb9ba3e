/*
 * test_write.c - writing through a handle, against a daemon that a thread of the test plays: it says what the test
 * wants, when it wants, and hangs up where it hurts.
 */
#include <kith/kith.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/src/admin_priv.h"
#include "shm/base/compiler.h"
#include "shm/base/error.h"
#include "shm/wire/frame.h"
#include "shm/wire/op.h"
#include "tests/support/index.h"
#include "tests/support/tmp.h"

enum { DIM = 4, CONNS = 16 };

/* What the played daemon does with requests after HELLO and OPEN. */
enum manner {
    MANNER_ANSWER,  /* epoch by counting; deletes find "there" only */
    MANNER_REFUSE,  /* KITH_E_FULL at item 1, with a sentence */
    MANNER_HANG_UP, /* read the request, close */
    MANNER_DEAF,    /* close as soon as the header is there */
    MANNER_GARBAGE, /* answer with bytes that are no frame */
    MANNER_REVERSE, /* gather requests until told, then answer the last first */
    MANNER_VERSION, /* refuse the greeting */
    MANNER_OTHER,   /* the name belongs to another uid */
    MANNER_SILENT,  /* greet, and say nothing after it */
    MANNER_MUTE,    /* not even greet */
    MANNER_HANG,    /* greet, and become mute with the first request */
    MANNER_STALL,   /* begin a back-up or a restore, and become mute with the first piece */
    MANNER_FULL,    /* read nothing of writes, and of pieces of a restore, until told */
    MANNER_GOODBYE, /* say why without reading the request, close */
};

struct played {
    struct test_dir run;
    struct test_index index;
    char sock[TEST_PATH_SIZE], segment[TEST_PATH_SIZE];
    pthread_t thread;
    _Atomic int manner;
    _Atomic int gathered; /* requests held back */
    _Atomic bool let_go;  /* answer them */
    _Atomic int unread;   /* the connection that MANNER_FULL reads nothing from; 0: none */
    _Atomic int connections, greetings, writes, ops;
    _Atomic uint64_t epoch;
    int listener, stop[2];
};

static bool read_full(int fd, void *to, size_t len)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = recv(fd, (char *)to + got, len - got, 0);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

static void reply(int fd, uint64_t tag, struct kithi_reply head, const void *text, size_t len, uint32_t count)
{
    unsigned char buf[2048] = { 0 };
    size_t body = sizeof head + (len + 7) / 8 * 8;
    struct kithi_frame f = { .magic = KITHI_FRAME_MAGIC,
                             .len = (uint32_t)body,
                             .type = KITHI_FRAME_REPLY,
                             .count = count,
                             .tag = tag };
    head.text_len = (uint32_t)len;
    memcpy(buf, &f, sizeof f);
    memcpy(buf + sizeof f, &head, sizeof head);
    memcpy(buf + sizeof f + sizeof head, text, len);
    /* In two pieces, so that the other side sees half an answer now and then. */
    size_t half = 30;
    if (send(fd, buf, half, MSG_NOSIGNAL) > 0)
        (void)send(fd, buf + half, sizeof f + body - half, MSG_NOSIGNAL);
}

static void refuse(int fd, uint64_t tag, int status, const char *text)
{
    struct kithi_reply head = { .status = status, .item = 1 };
    reply(fd, tag, head, text, strlen(text), 0);
}

/* One request of fd; false when the connection is to be closed. held: tags of MANNER_REVERSE. */
static bool serve(struct played *p, int fd, uint64_t *held)
{
    struct kithi_frame f;
    int manner = atomic_load(&p->manner);
    if (manner == MANNER_FULL && recv(fd, &f, sizeof f, MSG_PEEK) == sizeof f &&
        (f.type == KITHI_FRAME_RESTORE_DATA || f.type == KITHI_FRAME_WRITE)) {
        atomic_store(&p->greetings, 0);
        atomic_store(&p->unread, fd);
        return true;
    }
    if (!read_full(fd, &f, sizeof f) || f.magic != KITHI_FRAME_MAGIC || f.len > KITHI_FRAME_MAX || f.len % 8)
        return false;
    bool greeting = f.type == KITHI_FRAME_HELLO || f.type == KITHI_FRAME_OPEN;
    if (manner == MANNER_DEAF && !greeting)
        return false;
    if (manner == MANNER_GOODBYE && !greeting) {
        refuse(fd, 0, KITHI_E_SHUTDOWN, "the daemon is stopping");
        return false;
    }
    bool begins = f.type == KITHI_FRAME_BACKUP || f.type == KITHI_FRAME_RESTORE;
    if ((manner == MANNER_HANG && !greeting) || (manner == MANNER_STALL && !greeting && !begins))
        atomic_store(&p->manner, manner = MANNER_MUTE);
    atomic_fetch_add(&p->greetings, f.type == KITHI_FRAME_HELLO);
    unsigned char *body = calloc(1, f.len + 1u);
    bool go_on = body && read_full(fd, body, f.len);
    struct kithi_reply head = { .item = UINT32_MAX };
    if (!go_on || manner == MANNER_MUTE || (manner == MANNER_SILENT && !greeting))
        goto out;
    if (f.type == KITHI_FRAME_HELLO) {
        if (manner == MANNER_VERSION)
            refuse(fd, f.tag, KITHI_E_VERSION, "speaks version 9");
        else
            reply(fd, f.tag, head, "", 0, 0);
    } else if (f.type == KITHI_FRAME_OPEN) {
        struct kithi_opened o = {
            .dim = DIM, .quantization = KITHI_QUANTIZATION_AUTO, .keep = KITHI_KEEP_NONE, .undecided = 1
        };
        memcpy(o.uid, test_index_map(&p->index)->uid, sizeof o.uid);
        o.uid[0] ^= manner == MANNER_OTHER;
        reply(fd, f.tag, head, &o, sizeof o, 0);
    } else if (f.type == KITHI_FRAME_LIST) {
        reply(fd, f.tag, head, "zeta\nalpha\nmid", 14, 3);
    } else if (f.type == KITHI_FRAME_CREATE) {
        struct kithi_create c;
        memcpy(&c, body, sizeof c);
        bool right = c.dim == 7 && c.m == 16 && c.ef_construction == 200 && c.name_len == 3 &&
                     f.len == sizeof c + 8 && memcmp(body + sizeof c, "new\0\0\0\0", 8) == 0;
        if (right)
            reply(fd, f.tag, head, "", 0, 0);
        else
            refuse(fd, f.tag, KITHI_E_EXISTS, "there is a collection of this name");
    } else if (f.type == KITHI_FRAME_BACKUP && manner == MANNER_STALL) {
        struct kithi_backup_begun begun = { .bytes = 1000 };
        reply(fd, f.tag, head, &begun, sizeof begun, 0);
    } else if (f.type == KITHI_FRAME_DROP) {
        refuse(fd, f.tag, KITHI_E_NO_COLLECTION, "there is no collection of this name");
    } else if (manner == MANNER_HANG_UP) {
        go_on = false;
    } else if (manner == MANNER_REFUSE) {
        refuse(fd, f.tag, KITHI_E_FULL, "the collection c is full: 7 of 7 slots");
    } else if (manner == MANNER_GARBAGE) {
        (void)send(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
    } else if (manner == MANNER_REVERSE) {
        held[atomic_fetch_add(&p->gathered, 1)] = f.tag;
    } else {
        if (f.type == KITHI_FRAME_WRITE)
            atomic_fetch_add(&p->writes, 1);
        size_t at = 16;
        for (uint32_t i = 0; i < f.count; i++) {
            struct kithi_op op;
            int64_t n = kithi_op_decode(body + at, f.len - at, &op);
            if (n < 0)
                test_die("op %u is no op", i);
            head.found += op.type == KITHI_OP_DELETE && op.id_len == 5 && memcmp(op.id, "there", 5) == 0;
            at += (size_t)n;
            atomic_fetch_add(&p->ops, 1);
        }
        head.epoch = atomic_fetch_add(&p->epoch, 1) + 1;
        reply(fd, f.tag, head, "", 0, 0);
    }
out:
    free(body);
    return go_on;
}

static void *play(void *arg)
{
    struct played *p = arg;
    struct pollfd fds[CONNS + 2] = { { .fd = p->stop[0], .events = POLLIN },
                                     { .fd = p->listener, .events = POLLIN } };
    uint64_t held[4096];
    int n = 2, answerer = -1;
    for (;;) {
        poll(fds, (nfds_t)n, 1);
        if (fds[0].revents)
            break;
        if (atomic_load(&p->let_go)) {
            /* None is held back any more before the test has an answer, or it would take these for its next ones. */
            for (int i = atomic_exchange(&p->gathered, 0); i > 0; i--) {
                struct kithi_reply head = { .item = UINT32_MAX, .epoch = (uint64_t)i };
                reply(answerer, held[i - 1], head, "", 0, 0);
            }
            atomic_store(&p->let_go, false);
        }
        if (fds[1].revents && n < CONNS + 2) {
            fds[n++] = (struct pollfd){ .fd = accept(p->listener, NULL, NULL), .events = POLLIN };
            atomic_fetch_add(&p->connections, 1);
        }
        for (int i = 2; i < n; i++) {
            if (!fds[i].revents || fds[i].fd == atomic_load(&p->unread))
                continue;
            answerer = fds[i].fd;
            if (!serve(p, fds[i].fd, held)) {
                close(fds[i].fd);
                fds[i--] = fds[--n];
            }
        }
    }
    for (int i = 2; i < n; i++)
        close(fds[i].fd);
    return NULL;
}

static void daemon_start(struct played *p)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    strncpy(addr.sun_path, p->sock, sizeof addr.sun_path - 1);
    unlink(p->sock);
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(p->listener >= 0 && pipe(p->stop) == 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(p->listener, CONNS), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, play, p), 0);
}

/* As kill -9 does: connections end, the socket file stays. */
static void daemon_stop(struct played *p)
{
    assert_int_equal(write(p->stop[1], "x", 1), 1);
    pthread_join(p->thread, NULL);
    close(p->listener);
    close(p->stop[0]);
    close(p->stop[1]);
}

static kith *begin(struct played *p, enum manner manner)
{
    char folder[TEST_PATH_SIZE];
    struct kithi_geometry g = {
        .dim = DIM, .metric = KITH_METRIC_COSINE, .m = 4, .ef_construction = 20, .slot_max = 64
    };
    kith *index;
    memset(p, 0, sizeof *p);
    test_dir_make_shm(&p->run);
    snprintf(folder, sizeof folder, "%s/c", p->run.path);
    snprintf(p->sock, sizeof p->sock, "%s/kithd.sock", p->run.path);
    snprintf(p->segment, sizeof p->segment, "%s/c/segment", p->run.path);
    assert_int_equal(mkdir(folder, 0750), 0);
    test_index_create(&p->index, p->segment, &g, 1, 50, 50);
    atomic_store(&p->manner, (int)manner);
    daemon_start(p);
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    o.run_dir = p->run.path;
    assert_int_equal(kith_open("c", &o, &index), 0);
    return index;
}

static void end(struct played *p, kith *index)
{
    kith_close(index);
    daemon_stop(p);
    test_index_close(&p->index);
    test_dir_remove(&p->run);
}

static const float one[DIM] = { 1, 2, 3, 4 };

static void writes_return_the_epoch(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_ANSWER);
    uint64_t epoch = 0;
    assert_int_equal(kith_upsert(index, "a", one, DIM, &epoch), 0);
    assert_int_equal(epoch, 1);
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), 0);
    assert_int_equal(kith_delete(index, "there", &epoch), 0);
    assert_int_equal(epoch, 3);
    assert_int_equal(kith_delete(index, "elsewhere", NULL), KITH_E_NOT_FOUND);
    assert_int_equal(kith_flush(index, &epoch), 0);
    assert_int_equal(epoch, 5);
    assert_int_equal(p.connections, 1);
    struct kith_stats s = KITH_STATS_INIT;
    assert_int_equal(kith_stats(index, &s), 0);
    assert_int_equal(s.daemon_alive, 1);
    assert_int_equal(s.quantization, KITH_QUANTIZATION_NONE);
    assert_int_equal(s.quantization_wanted, KITH_QUANTIZATION_AUTO);
    assert_int_equal(s.keep, KITH_KEEP_F32);
    assert_int_equal(s.keep_wanted, KITH_KEEP_NONE);
    assert_int_equal(s.undecided, 1);
    end(&p, index);
}

static void bad_writes_never_leave(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_ANSWER);
    float v[DIM] = { 0 };
    char id[600];
    memset(id, 'x', sizeof id);
    id[512] = '\0';
    assert_int_equal(kith_upsert(index, "a", v, DIM, NULL), KITH_E_ZERO_VECTOR);
    assert_int_equal(kith_upsert(index, "a", one, DIM - 1, NULL), KITH_E_DIMENSION);
    assert_int_equal(kith_upsert(index, "", one, DIM, NULL), KITH_E_ID);
    assert_int_equal(kith_upsert(index, id, one, DIM, NULL), KITH_E_ID);
    assert_int_equal(kith_upsert(index, "\xc3(", one, DIM, NULL), KITH_E_ID);
    assert_int_equal(kith_upsert(index, "a", NULL, DIM, NULL), -EINVAL);
    assert_int_equal(kith_upsert(index, NULL, one, DIM, NULL), -EINVAL);
    v[2] = -1.0f / 0.0f;
    assert_int_equal(kith_upsert(index, "a", v, DIM, NULL), KITH_E_NOT_FINITE);
    assert_int_equal(kith_delete(index, "", NULL), KITH_E_ID);
    kith_batch *b = kith_batch_new(index);
    assert_int_equal(kith_batch_upsert(b, "a", v, DIM), KITH_E_NOT_FINITE);
    assert_int_equal(kith_batch_upsert(b, id, one, DIM), KITH_E_ID);
    assert_int_equal(kith_batch_delete(b, ""), KITH_E_ID);
    assert_int_equal(kith_batch_count(b), 0);
    assert_int_equal(kith_batch_commit(b, NULL), 0);
    kith_batch_free(b);
    assert_int_equal(p.connections, 0);
    end(&p, index);
}

static void a_batch_is_one_request(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_ANSWER);
    kith_batch *b = kith_batch_new(index);
    for (int i = 0; i < 1000; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        assert_int_equal(kith_batch_upsert(b, id, one, DIM), 0);
    }
    assert_int_equal(kith_batch_delete(b, "there"), 0);
    assert_int_equal(kith_batch_delete(b, "elsewhere"), 0);
    assert_int_equal(kith_batch_count(b), 1002);
    assert_true(kith_batch_bytes(b) > 1000 * DIM * sizeof(float));
    struct kith_commit c = KITH_COMMIT_INIT;
    assert_int_equal(kith_batch_commit(b, &c), 0);
    assert_int_equal(c.epoch, 1);
    assert_int_equal(c.found, 1);
    assert_int_equal(c.failed_item, UINT32_MAX);
    assert_int_equal(c.error.code, 0);
    assert_int_equal(p.writes, 1);
    assert_int_equal(p.ops, 1002);
    c.struct_size = 3;
    assert_int_equal(kith_batch_commit(b, &c), -EINVAL);
    assert_int_equal(p.writes, 1);
    kith_batch_clear(b);
    assert_int_equal(kith_batch_count(b) + kith_batch_bytes(b), 0);
    assert_int_equal(kith_batch_delete(b, "there"), 0);
    assert_int_equal(kith_batch_commit(b, NULL), 0);
    assert_int_equal(p.ops, 1003);
    kith_batch_free(b);
    kith_batch_free(NULL);
    assert_null(kith_batch_new(NULL));
    end(&p, index);
}

static void a_batch_ends_where_a_frame_does(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_ANSWER);
    kith_batch *b = kith_batch_new(index);
    char id[512];
    memset(id, 'x', 511);
    id[511] = '\0';
    int rc;
    while ((rc = kith_batch_upsert(b, id, one, DIM)) == 0) {
    }
    assert_int_equal(rc, KITH_E_TOO_LARGE);
    assert_true(kith_batch_bytes(b) <= 32u << 20 && kith_batch_bytes(b) > (32u << 20) - 1024);
    struct kith_commit c = KITH_COMMIT_INIT;
    assert_int_equal(kith_batch_commit(b, &c), 0);
    assert_int_equal(p.ops, kith_batch_count(b));
    kith_batch_free(b);
    end(&p, index);
}

static void a_refusal_carries_its_reason(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_REFUSE);
    uint64_t epoch = 77;
    assert_int_equal(kith_upsert(index, "a", one, DIM, &epoch), KITH_E_FULL);
    assert_int_equal(epoch, 77);
    kith_batch *b = kith_batch_new(index);
    assert_int_equal(kith_batch_upsert(b, "a", one, DIM), 0);
    struct kith_commit c = KITH_COMMIT_INIT;
    assert_int_equal(kith_batch_commit(b, &c), KITH_E_FULL);
    assert_int_equal(c.failed_item, 1);
    assert_int_equal(c.error.code, KITH_E_FULL);
    assert_string_equal(c.error.text, "the collection c is full: 7 of 7 slots");
    kith_batch_free(b);
    end(&p, index);
}

static void a_restarted_daemon_is_found_again(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_ANSWER);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), 0);
        daemon_stop(&p);
        if (i % 2) {
            assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), KITH_E_NO_DAEMON);
            assert_int_equal(kith_exists(index, "a"), 0); /* reads go on */
        }
        daemon_start(&p);
    }
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), 0);
    assert_int_equal(p.writes, 21); /* none was done twice */
    end(&p, index);
}

static void a_lost_answer_is_an_unknown_outcome(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_HANG_UP);
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), KITH_E_UNKNOWN_OUTCOME);
    assert_int_equal(kith_flush(index, NULL), KITH_E_UNKNOWN_OUTCOME);
    kith_batch *b = kith_batch_new(index);
    assert_int_equal(kith_batch_upsert(b, "a", one, DIM), 0);
    struct kith_commit c = KITH_COMMIT_INIT;
    assert_int_equal(kith_batch_commit(b, &c), KITH_E_UNKNOWN_OUTCOME);
    assert_int_equal(c.error.code, KITH_E_UNKNOWN_OUTCOME);
    assert_true(strlen(c.error.text) > 10);
    atomic_store(&p.manner, MANNER_ANSWER);
    assert_int_equal(kith_batch_commit(b, &c), 0);
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), 0);
    kith_batch_free(b);
    end(&p, index);
}

/* The request is larger than the socket's buffer, so that it cannot have left whole. */
static void half_a_request_was_not_carried_out(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_DEAF);
    kith_batch *b = kith_batch_new(index);
    char id[16];
    for (int i = 0; i < 100000; i++) {
        snprintf(id, sizeof id, "%d", i);
        assert_int_equal(kith_batch_upsert(b, id, one, DIM), 0);
    }
    assert_int_equal(kith_batch_commit(b, NULL), KITH_E_NO_DAEMON);
    /* Nor was a small one that the daemon did not read to its end. */
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), KITH_E_NO_DAEMON);
    atomic_store(&p.manner, MANNER_GOODBYE);
    struct kith_commit c = KITH_COMMIT_INIT;
    assert_int_equal(kith_batch_commit(b, &c), KITH_E_SHUTDOWN);
    assert_string_equal(c.error.text, "the daemon is stopping");
    atomic_store(&p.manner, MANNER_ANSWER);
    assert_int_equal(kith_batch_commit(b, &c), 0);
    assert_int_equal(p.ops, 100000);
    kith_batch_free(b);
    end(&p, index);
}

static void other_daemons_are_refused(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_VERSION);
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), KITH_E_VERSION);
    atomic_store(&p.manner, MANNER_OTHER);
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), KITH_E_REPLACED);
    atomic_store(&p.manner, MANNER_GARBAGE);
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), KITH_E_PROTOCOL);
    atomic_store(&p.manner, MANNER_ANSWER);
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), 0);
    end(&p, index);
}

static void a_segment_elsewhere_has_no_daemon(void **state)
{
    (void)state;
    struct played p;
    char path[2 * TEST_PATH_SIZE];
    kith *index = begin(&p, MANNER_ANSWER), *copy;
    assert_int_equal(kith_open(p.segment, NULL, &copy), 0);
    assert_int_equal(kith_upsert(copy, "a", one, DIM, NULL), 0); /* two directories up */
    kith_close(copy);
    snprintf(path, sizeof path, "%s/c/backup", p.run.path);
    assert_int_equal(link(p.segment, path), 0);
    assert_int_equal(kith_open(path, NULL, &copy), 0);
    assert_string_equal(kith_name(copy), path);
    assert_int_equal(kith_upsert(copy, "a", one, DIM, NULL), KITH_E_RUN_DIR);
    kith_close(copy);
    end(&p, index);
}

static void a_child_writes_over_its_own_socket(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_ANSWER);
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int rc = kith_upsert(index, "b", one, DIM, NULL);
        kith_close(index);
        _exit(rc == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(p.connections, 2);
    assert_int_equal(kith_upsert(index, "a", one, DIM, NULL), 0);
    assert_int_equal(p.connections, 2);
    end(&p, index);
}

struct hammer {
    kith *index;
    _Atomic bool *stop;
    _Atomic int error;
    _Atomic int done;
};

static void *hammer(void *arg)
{
    struct hammer *h = arg;
    while (!atomic_load(h->stop)) {
        int rc = kith_upsert(h->index, "a", one, DIM, NULL);
        if (rc < 0)
            atomic_store(&h->error, rc);
        atomic_fetch_add(&h->done, 1);
    }
    return NULL;
}

/* Each fork finds the lock of the connection in another state, most often taken. */
static void threads_take_turns_and_forks_do_not_hang(void **state)
{
    (void)state;
    enum { THREADS = 3, FORKS = 30 };
    struct played p;
    pthread_t threads[THREADS];
    _Atomic bool stop = false;
    kith *index = begin(&p, MANNER_ANSWER);
    struct hammer h = { .index = index, .stop = &stop };
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &h), 0);
    for (int i = 0; i < FORKS; i++) {
        while (atomic_load(&h.done) < i * 20)
            test_nap();
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            int rc = kith_upsert(index, "b", one, DIM, NULL);
            _exit(rc == 0 ? 0 : 1);
        }
        int status = -1;
        uint64_t until = test_now_ms() + 30000;
        while (waitpid(pid, &status, WNOHANG) == 0) {
            assert_true(test_now_ms() < until);
            test_nap();
        }
        assert_int_equal(status, 0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(h.error, 0);
    assert_int_equal(p.writes, h.done + FORKS);
    end(&p, index);
}

static kith_batch *one_op(kith *index)
{
    kith_batch *b = kith_batch_new(index);
    assert_int_equal(kith_batch_upsert(b, "a", one, DIM), 0);
    return b;
}

static void a_pipe_matches_answers_that_come_out_of_order(void **state)
{
    (void)state;
    enum { DEPTH = 8 };
    struct played p;
    kith *index = begin(&p, MANNER_REVERSE);
    kith_pipe *pipe = NULL;
    uint64_t token;
    int status;
    assert_int_equal(kith_pipe_open(index, 0, &pipe), KITH_E_PARAMETER);
    assert_int_equal(kith_pipe_open(index, 4097, &pipe), KITH_E_PARAMETER);
    assert_int_equal(kith_pipe_open(index, DEPTH, &pipe), 0);
    kith_batch *b = one_op(index), *none = kith_batch_new(index);
    assert_int_equal(kith_pipe_submit(pipe, none, 1), -EINVAL);
    assert_int_equal(kith_pipe_next(pipe, 1000, &token, &status, NULL), 0); /* nothing is pending */
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < DEPTH; i++)
            assert_int_equal(kith_pipe_submit(pipe, b, 100 + i), 0);
        assert_int_equal(kith_pipe_submit(pipe, b, 1), -EAGAIN);
        assert_int_equal(kith_pipe_pending(pipe), DEPTH);
        assert_int_equal(kith_pipe_next(pipe, 5, &token, &status, NULL), 0); /* not yet */
        while (atomic_load(&p.gathered) < DEPTH)
            test_nap();
        atomic_store(&p.let_go, true);
        for (uint64_t i = DEPTH; i > 0; i--) {
            struct kith_commit c = KITH_COMMIT_INIT;
            assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, &c), 1);
            assert_int_equal(status, 0);
            assert_int_equal(token, 100 + i - 1);
            assert_int_equal(c.epoch, i);
        }
        assert_int_equal(kith_pipe_pending(pipe), 0);
    }
    kith_batch_free(b);
    kith_batch_free(none);
    kith_pipe_close(pipe);
    kith_pipe_close(NULL);
    end(&p, index);
}

/* Fill the pipe's places, and have all of that answered before the first answer is taken. */
static void fill_and_answer(struct played *p, kith_pipe *pipe, kith_batch *b, int depth)
{
    for (int i = 0; i < depth; i++)
        assert_int_equal(kith_pipe_submit(pipe, b, 0), 0);
    while (atomic_load(&p->gathered) < depth)
        test_nap();
    atomic_store(&p->let_go, true);
    while (atomic_load(&p->let_go))
        test_nap();
}

/* What was sent before this is with the daemon after it. */
static void round_trip(kith *index)
{
    for (int i = 0; i < 2; i++) {
        kith_pipe *other;
        assert_int_equal(kith_pipe_open(index, 1, &other), 0);
        kith_pipe_close(other);
    }
}

static void batches_gather_while_answers_are_taken(void **state)
{
    (void)state;
    enum { DEPTH = 8 };
    struct played p;
    kith *index = begin(&p, MANNER_REVERSE);
    kith_pipe *pipe;
    kith_batch *b = one_op(index);
    uint64_t token, sum = 0;
    int status;
    assert_int_equal(kith_pipe_open(index, DEPTH, &pipe), 0);
    fill_and_answer(&p, pipe, b, DEPTH);
    for (uint64_t i = 1; i < DEPTH; i++) {
        assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
        assert_int_equal(kith_pipe_submit(pipe, b, i), 0);
    }
    round_trip(index);
    assert_int_equal(atomic_load(&p.gathered), 0);
    /* The last of the answers: all leave, and the next one does not wait for anything. */
    assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
    while (atomic_load(&p.gathered) < DEPTH - 1)
        test_nap();
    assert_int_equal(kith_pipe_submit(pipe, b, DEPTH), 0);
    while (atomic_load(&p.gathered) < DEPTH)
        test_nap();
    atomic_store(&p.let_go, true);
    while (kith_pipe_pending(pipe)) {
        assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
        assert_int_equal(status, 0);
        sum += token;
    }
    assert_int_equal(sum, DEPTH * (DEPTH + 1) / 2);

    /* What gathered leaves when the pipe is closed, too. */
    fill_and_answer(&p, pipe, b, DEPTH);
    assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
    assert_int_equal(kith_pipe_submit(pipe, b, 1), 0);
    round_trip(index);
    assert_int_equal(atomic_load(&p.gathered), 0);
    kith_pipe_close(pipe);
    while (atomic_load(&p.gathered) < 1)
        test_nap();
    kith_batch_free(b);
    end(&p, index);
}

static void large_batches_do_not_gather(void **state)
{
    (void)state;
    enum { DEPTH = 4, OPS = 2000 }; /* more than 64 KiB */
    struct played p;
    kith *index = begin(&p, MANNER_REVERSE);
    kith_pipe *pipe;
    kith_batch *b = one_op(index), *large = kith_batch_new(index);
    uint64_t token;
    int status;
    for (int i = 0; i < OPS; i++)
        assert_int_equal(kith_batch_upsert(large, "a", one, DIM), 0);
    assert_int_equal(kith_pipe_open(index, DEPTH, &pipe), 0);
    fill_and_answer(&p, pipe, b, DEPTH);
    assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
    assert_int_equal(kith_pipe_submit(pipe, b, 1), 0);
    assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
    assert_int_equal(kith_pipe_submit(pipe, large, 2), 0); /* and takes the one before along */
    while (atomic_load(&p.gathered) < 2)
        test_nap();
    kith_pipe_close(pipe);
    kith_batch_free(b);
    kith_batch_free(large);
    end(&p, index);
}

static void a_pipe_takes_answers_while_its_socket_is_full(void **state)
{
    (void)state;
    enum { DEPTH = 512, BATCHES = 3000 };
    struct played p;
    kith *index = begin(&p, MANNER_ANSWER);
    kith_pipe *pipe;
    kith_batch *b = kith_batch_new(index);
    uint64_t token, seen = 0;
    int status, answers = 0;
    for (int i = 0; i < 40; i++)
        assert_int_equal(kith_batch_upsert(b, "a", one, DIM), 0);
    assert_int_equal(kith_pipe_open(index, DEPTH, &pipe), 0);
    for (uint64_t i = 0; i < BATCHES; i++) {
        int rc;
        while ((rc = kith_pipe_submit(pipe, b, i)) == -EAGAIN) {
            assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
            assert_int_equal(status, 0);
            seen += token;
            answers++;
        }
        assert_int_equal(rc, 0);
    }
    while (kith_pipe_pending(pipe)) {
        assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
        assert_int_equal(status, 0);
        seen += token;
        answers++;
    }
    assert_int_equal(answers, BATCHES);
    assert_int_equal(seen, (uint64_t)BATCHES * (BATCHES - 1) / 2);
    kith_pipe_close(pipe);
    kith_batch_free(b);
    end(&p, index);
}

/* The sockets of this process that lead to the daemon have room for little. */
static void narrow(const struct played *p)
{
    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_un addr = { .sun_family = AF_UNSPEC };
        socklen_t len = sizeof addr;
        const int size = 1;
        if (getpeername(fd, (struct sockaddr *)&addr, &len) == 0 && addr.sun_family == AF_UNIX &&
            strncmp(addr.sun_path, p->sock, sizeof addr.sun_path) == 0)
            setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
}

/* Submissions that were gathered and do not fit into the socket go out by kith_pipe_next, which waits no longer for that than for answers. */
static void a_wait_for_a_pipe_is_bounded_though_its_socket_is_full(void **state)
{
    (void)state;
    enum { DEPTH = 64, BYTES = 60000 };
    struct played p;
    kith *index = begin(&p, MANNER_REVERSE);
    kith_pipe *pipe;
    kith_batch *b = one_op(index), *large = kith_batch_new(index);
    uint64_t token;
    int status, gathered = 0;
    while (kith_batch_bytes(large) < 5000)
        assert_int_equal(kith_batch_upsert(large, "a", one, DIM), 0);
    assert_int_equal(kith_pipe_open(index, DEPTH, &pipe), 0);
    narrow(&p);
    assert_int_equal(kith_pipe_submit(pipe, b, 1), 0);
    assert_int_equal(kith_pipe_submit(pipe, b, 2), 0);
    while (atomic_load(&p.gathered) < 2)
        test_nap();
    atomic_store(&p.manner, MANNER_FULL);
    atomic_store(&p.let_go, true);
    while (atomic_load(&p.let_go))
        test_nap();
    assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
    for (size_t n = 0; n + kith_batch_bytes(large) < BYTES; n += kith_batch_bytes(large), gathered++)
        assert_int_equal(kith_pipe_submit(pipe, large, 3), 0);
    assert_true(gathered > 5);
    assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
    while (atomic_load(&p.unread) == 0)
        test_nap();
    for (int i = 0; i < 3; i++) {
        uint64_t before_ms = test_now_ms();
        assert_int_equal(kith_pipe_next(pipe, 30, &token, &status, NULL), 0);
        assert_true(test_now_ms() - before_ms >= 29);
        assert_int_equal(kith_pipe_pending(pipe), gathered);
        assert_int_equal(kith_pipe_next(pipe, 0, &token, &status, NULL), 0);
    }
    atomic_store(&p.manner, MANNER_ANSWER);
    atomic_store(&p.unread, 0);
    for (int i = 0; i < gathered; i++) {
        assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, NULL), 1);
        assert_int_equal(status, 0);
    }
    assert_int_equal(kith_pipe_pending(pipe), 0);
    kith_pipe_close(pipe);
    kith_batch_free(large);
    kith_batch_free(b);
    end(&p, index);
}

static void a_pipe_tells_refusals_from_a_lost_connection(void **state)
{
    (void)state;
    struct played p;
    kith *index = begin(&p, MANNER_REFUSE);
    kith_pipe *pipe;
    kith_batch *b = one_op(index);
    struct kith_commit c = KITH_COMMIT_INIT;
    uint64_t token;
    int status;
    assert_int_equal(kith_pipe_open(index, 4, &pipe), 0);
    assert_int_equal(kith_pipe_submit(pipe, b, 5), 0);
    assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, &c), 1);
    assert_int_equal(token, 5);
    assert_int_equal(status, KITH_E_FULL);
    assert_int_equal(c.failed_item, 1);

    atomic_store(&p.manner, MANNER_HANG_UP);
    assert_int_equal(kith_pipe_submit(pipe, b, 6), 0);
    assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, &c), KITH_E_UNKNOWN_OUTCOME);
    assert_int_equal(kith_pipe_next(pipe, -1, &token, &status, &c), KITH_E_UNKNOWN_OUTCOME);
    assert_int_equal(kith_pipe_pending(pipe), 1);
    assert_int_equal(kith_pipe_submit(pipe, b, 7), KITH_E_NO_DAEMON);
    kith_pipe_close(pipe);

    atomic_store(&p.manner, MANNER_ANSWER);
    assert_int_equal(kith_pipe_open(index, 4, &pipe), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(kith_pipe_submit(pipe, b, 1) == -EBADF ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    kith_pipe_close(pipe);
    daemon_stop(&p);
    assert_int_equal(kith_pipe_open(index, 4, &pipe), KITH_E_NO_DAEMON);
    daemon_start(&p);
    kith_batch_free(b);
    end(&p, index);
}

/* ---- collections ---- */

static void collections_are_listed_in_order_with_and_without_a_daemon(void **state)
{
    (void)state;
    struct played p;
    char *names, path[2 * TEST_PATH_SIZE];
    struct kith_error err = { 0 };
    kith *index = begin(&p, MANNER_ANSWER);
    assert_int_equal(kith_list(p.run.path, &names, NULL), 3);
    assert_memory_equal(names, "alpha\0mid\0zeta\0", 15);
    free(names);
    daemon_stop(&p);
    assert_int_equal(kith_list(p.run.path, &names, NULL), 1);
    assert_string_equal(names, "c");
    free(names);
    snprintf(path, sizeof path, "%s/nowhere", p.run.path);
    assert_int_equal(kith_list(path, &names, &err), KITH_E_RUN_DIR);
    assert_non_null(strstr(err.text, path));
    daemon_start(&p);
    end(&p, index);
}

static void a_daemon_that_does_not_answer_is_not_waited_for_without_end(void **state)
{
    (void)state;
    struct played p;
    const uint32_t hello_ms = kithi_admin_hello_ms, answer_ms = kithi_admin_answer_ms;
    kith *index = begin(&p, MANNER_MUTE);
    struct kith_create_opts o = KITH_CREATE_OPTS_INIT;
    struct kith_error err = { 0 };
    char *names = NULL;
    o.run_dir = p.run.path;
    o.error = &err;
    o.dim = 7;
    o.metric = KITH_METRIC_IP;
    kithi_admin_hello_ms = 50;
    for (unsigned silent = 0; silent < 2; silent++) {
        assert_int_equal(kith_list(p.run.path, &names, &err), KITH_E_TIMEOUT);
        assert_null(names);
        assert_non_null(strstr(err.text, "not answered"));
        assert_null(strstr(err.text, "unknown"));
        err = (struct kith_error){ 0 };
        assert_int_equal(kith_create("new", &o), KITH_E_TIMEOUT);
        assert_int_equal(err.code, KITH_E_TIMEOUT);
        assert_non_null(
            strstr(err.text, silent ? "Whether it made the collection is unknown" : "nothing was asked"));
        assert_int_equal(kith_drop("new", p.run.path, &err), KITH_E_TIMEOUT);
        assert_non_null(
            strstr(err.text, silent ? "Whether it removed the collection is unknown" : "nothing was asked"));
        atomic_store(&p.manner, MANNER_SILENT);
        kithi_admin_hello_ms = 500;
        kithi_admin_answer_ms = 50;
    }
    kithi_admin_hello_ms = hello_ms;
    kithi_admin_answer_ms = answer_ms;
    atomic_store(&p.manner, MANNER_ANSWER);
    assert_int_equal(kith_list(p.run.path, &names, NULL), 3);
    free(names);
    end(&p, index);
}

/* Answers what was held back once the daemon was asked for some signs of life. */
static void *let_go_late(void *arg)
{
    struct played *p = arg;
    while (atomic_load(&p->gathered) < 1 || atomic_load(&p->greetings) < 3)
        test_nap();
    atomic_store(&p->let_go, true);
    return NULL;
}

static void a_checkpoint_is_waited_for_as_long_as_the_daemon_lives(void **state)
{
    (void)state;
    struct played p;
    const uint32_t hello_ms = kithi_admin_hello_ms, answer_ms = kithi_admin_answer_ms;
    kith *index = begin(&p, MANNER_MUTE);
    struct kith_error err = { 0 };
    pthread_t thread;
    uint64_t epoch = 0;
    kithi_admin_hello_ms = 50;
    assert_int_equal(kith_checkpoint(index, &epoch, &err), KITH_E_TIMEOUT);
    assert_int_equal(err.code, KITH_E_TIMEOUT);
    assert_non_null(strstr(err.text, "nothing was asked of it"));
    assert_int_equal(kith_checkpoint(index, NULL, NULL), KITH_E_TIMEOUT);

    kithi_admin_hello_ms = hello_ms;
    kithi_admin_answer_ms = 100;
    atomic_store(&p.manner, MANNER_HANG);
    assert_int_equal(kith_checkpoint(index, &epoch, &err), KITH_E_TIMEOUT);
    assert_non_null(strstr(err.text, "no sign of life for 100 ms"));
    assert_non_null(strstr(err.text, "unknown"));
    assert_int_equal(epoch, 0);

    /* Several times its patience, which is short: but the daemon lives. */
    kithi_admin_answer_ms = 2000;
    atomic_store(&p.greetings, 0);
    atomic_store(&p.manner, MANNER_REVERSE);
    assert_int_equal(pthread_create(&thread, NULL, let_go_late, &p), 0);
    assert_int_equal(kith_checkpoint(index, &epoch, &err), 0);
    pthread_join(thread, NULL);
    assert_int_equal(epoch, 1);
    kithi_admin_answer_ms = answer_ms;

    atomic_store(&p.manner, MANNER_REFUSE);
    assert_int_equal(kith_checkpoint(index, &epoch, &err), KITH_E_FULL);
    assert_string_equal(err.text, "the collection c is full: 7 of 7 slots");
    atomic_store(&p.manner, MANNER_HANG_UP);
    assert_int_equal(kith_checkpoint(index, &epoch, &err), KITH_E_UNKNOWN_OUTCOME);
    atomic_store(&p.manner, MANNER_OTHER);
    assert_int_equal(kith_checkpoint(index, &epoch, &err), KITH_E_REPLACED);
    daemon_stop(&p);
    assert_int_equal(kith_checkpoint(index, &epoch, &err), KITH_E_NO_DAEMON);
    daemon_start(&p);
    end(&p, index);
}

/* In the middle of a request that is not taken the daemon is asked on other connections. */
static void *read_on_late(void *arg)
{
    struct played *p = arg;
    while (atomic_load(&p->unread) == 0 || atomic_load(&p->greetings) < 3)
        test_nap();
    atomic_store(&p->manner, MANNER_ANSWER);
    atomic_store(&p->unread, 0);
    return NULL;
}

static void a_backup_and_a_restore_are_waited_for_as_long_as_the_daemon_lives(void **state)
{
    enum { MIB = 1 << 20 };
    (void)state;
    struct played p;
    const uint32_t hello_ms = kithi_admin_hello_ms, answer_ms = kithi_admin_answer_ms;
    kith *index = begin(&p, MANNER_MUTE);
    struct kith_error err = { 0 };
    struct kith_backup_opts to = KITH_BACKUP_OPTS_INIT, from = KITH_BACKUP_OPTS_INIT;
    char path[2 * TEST_PATH_SIZE], file[2 * TEST_PATH_SIZE];
    pthread_t thread;
    snprintf(path, sizeof path, "%s/backup", p.run.path);
    snprintf(file, sizeof file, "%s/file", p.run.path);
    FILE *f = fopen(file, "w");
    assert_true(f && ftruncate(fileno(f), 6 * MIB) == 0 && fclose(f) == 0);
    from.run_dir = p.run.path;
    to.error = from.error = &err;

    kithi_admin_hello_ms = 50;
    assert_int_equal(kith_backup(index, path, &to, NULL), KITH_E_TIMEOUT);
    assert_non_null(strstr(err.text, "nothing was asked of it"));
    assert_int_equal(kith_restore("new", file, &from, NULL), KITH_E_TIMEOUT);
    assert_non_null(strstr(err.text, "nothing was asked of it"));
    kithi_admin_hello_ms = hello_ms;
    kithi_admin_answer_ms = 100;
    for (unsigned i = 0; i < 2; i++) { /* at the beginning; in the middle */
        atomic_store(&p.manner, i ? MANNER_STALL : MANNER_HANG);
        assert_int_equal(kith_backup(index, path, &to, NULL), KITH_E_TIMEOUT);
        assert_non_null(strstr(err.text, "no sign of life for 100 ms"));
        assert_non_null(strstr(err.text, i ? "in the middle" : "while it wrote a checkpoint"));
        atomic_store(&p.manner, i ? MANNER_STALL : MANNER_HANG);
        assert_int_equal(kith_restore("new", file, &from, NULL), KITH_E_TIMEOUT);
        assert_non_null(strstr(err.text, "no sign of life for 100 ms"));
        assert_non_null(strstr(err.text, i ? "in the middle" : "before anything was sent"));
    }
    assert_int_not_equal(access(path, F_OK), 0);

    /* Several times its patience, which is short: but the daemon lives. What it answers in the end makes no sense here. */
    kithi_admin_answer_ms = 2000;
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&p.greetings, 0);
        atomic_store(&p.manner, i ? MANNER_FULL : MANNER_REVERSE);
        assert_int_equal(pthread_create(&thread, NULL, i ? read_on_late : let_go_late, &p), 0);
        int rc = i ? kith_restore("new", file, &from, NULL) : kith_backup(index, path, &to, NULL);
        pthread_join(thread, NULL);
        assert_int_equal(rc, KITH_E_PROTOCOL);
        assert_non_null(strstr(err.text, "makes no sense"));
    }
    kithi_admin_answer_ms = answer_ms;
    end(&p, index);
}

static void create_and_drop_say_what_is_wrong(void **state)
{
    (void)state;
    struct played p;
    struct kith_error err = { 0 };
    struct kith_create_opts o = KITH_CREATE_OPTS_INIT;
    char path[300];
    kith *index = begin(&p, MANNER_ANSWER);
    o.run_dir = p.run.path;
    o.error = &err;
    o.dim = 7;
    o.metric = KITH_METRIC_IP;
    assert_int_equal(kith_create("new", &o), 0);
    assert_int_equal(err.code, 0);
    assert_int_equal(kith_create("old", &o), KITH_E_EXISTS);
    assert_string_equal(err.text, "there is a collection of this name");
    assert_int_equal(kith_create("a/b", &o), KITH_E_NAME);
    assert_int_equal(kith_create("new", NULL), -EINVAL);
    o.dim = 4097;
    assert_int_equal(kith_create("new", &o), KITH_E_PARAMETER);
    assert_non_null(strstr(err.text, "4097"));
    o.dim = 7;
    o.metric = 9;
    assert_int_equal(kith_create("new", &o), KITH_E_PARAMETER);
    o.metric = KITH_METRIC_IP;
    o.quantization = 5;
    assert_int_equal(kith_create("new", &o), KITH_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "quantization 5"));
    o.quantization = KITH_QUANTIZATION_AUTO;
    o.keep = 3;
    assert_int_equal(kith_create("new", &o), KITH_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "keep 3"));
    o.quantization = KITH_QUANTIZATION_NONE;
    o.keep = KITH_KEEP_F16;
    assert_int_equal(kith_create("new", &o), KITH_E_PARAMETER);
    assert_non_null(strstr(err.text, "without quantization"));
    o.quantization = KITH_QUANTIZATION_AUTO;
    assert_int_equal(kith_create("new", &o), 0);
    o.fixed = 2;
    assert_int_equal(kith_create("new", &o), -EINVAL);
    o.fixed = 0;
    o.struct_size = offsetof(struct kith_create_opts, keep); /* of a program from before codes */
    o.quantization = KITH_QUANTIZATION_NONE;
    assert_int_equal(kith_create("new", &o), 0);
    assert_int_equal(kith_drop("gone", p.run.path, &err), KITH_E_NO_COLLECTION);
    assert_string_equal(err.text, "there is no collection of this name");
    assert_int_equal(kith_drop("..", p.run.path, &err), KITH_E_NAME);

    snprintf(path, sizeof path, "%s/", p.run.path);
    while (strlen(path) < 120)
        strcat(path, "long");
    assert_int_equal(mkdir(path, 0750), 0);
    assert_int_equal(kith_drop("c", path, &err), KITH_E_RUN_DIR);
    assert_non_null(strstr(err.text, "107"));

    daemon_stop(&p);
    assert_int_equal(kith_drop("c", p.run.path, &err), KITH_E_NO_DAEMON);
    assert_non_null(strstr(err.text, p.sock));
    daemon_start(&p);
    end(&p, index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_return_the_epoch),
        cmocka_unit_test(bad_writes_never_leave),
        cmocka_unit_test(a_batch_is_one_request),
        cmocka_unit_test(a_batch_ends_where_a_frame_does),
        cmocka_unit_test(a_refusal_carries_its_reason),
        cmocka_unit_test(a_restarted_daemon_is_found_again),
        cmocka_unit_test(a_lost_answer_is_an_unknown_outcome),
        cmocka_unit_test(half_a_request_was_not_carried_out),
        cmocka_unit_test(other_daemons_are_refused),
        cmocka_unit_test(a_segment_elsewhere_has_no_daemon),
        cmocka_unit_test(a_child_writes_over_its_own_socket),
        cmocka_unit_test(threads_take_turns_and_forks_do_not_hang),
        cmocka_unit_test(a_pipe_matches_answers_that_come_out_of_order),
        cmocka_unit_test(batches_gather_while_answers_are_taken),
        cmocka_unit_test(large_batches_do_not_gather),
        cmocka_unit_test(a_pipe_takes_answers_while_its_socket_is_full),
        cmocka_unit_test(a_wait_for_a_pipe_is_bounded_though_its_socket_is_full),
        cmocka_unit_test(a_pipe_tells_refusals_from_a_lost_connection),
        cmocka_unit_test(a_daemon_that_does_not_answer_is_not_waited_for_without_end),
        cmocka_unit_test(a_checkpoint_is_waited_for_as_long_as_the_daemon_lives),
        cmocka_unit_test(a_backup_and_a_restore_are_waited_for_as_long_as_the_daemon_lives),
        cmocka_unit_test(collections_are_listed_in_order_with_and_without_a_daemon),
        cmocka_unit_test(create_and_drop_say_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
