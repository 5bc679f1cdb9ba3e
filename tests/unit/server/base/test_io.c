/*
 * test_io.c - both kinds of loop keep the promises of io.h. Every claim runs on each.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/base/io.h"
#include "tests/support/tmp.h"

#define DEADLINE_MS 20000

struct seen {
    struct kithi_io_op op;
    int calls;
    int result;
};

static void on_done(struct kithi_io_op *op, int result)
{
    struct seen *s = op->arg;
    s->calls++;
    s->result = result;
}

static void prepare(struct seen *s)
{
    *s = (struct seen){ .op = { .done = on_done } };
    s->op.arg = s;
}

static int await(struct kithi_io *io, const struct seen *s)
{
    uint64_t end = test_now_ms() + DEADLINE_MS;
    while (s->calls == 0 && test_now_ms() < end)
        assert_true(kithi_io_run(io, 100) >= 0);
    assert_int_equal(s->calls, 1);
    return s->result;
}

static struct kithi_io *loop(void **state)
{
    return *state;
}

static int setup(void **state, enum kithi_io_kind kind)
{
    struct kithi_io *io = NULL;
    struct kithi_errmsg err;
    unsetenv("KITH_IO");
    int r = kithi_io_open(kind, &io, &err);
    *state = r == 0 ? io : NULL;
    if (r < 0 && kind == KITHI_IO_URING)
        fprintf(stderr, "skipped: %s\n", err.text);
    return r < 0 && kind != KITHI_IO_URING;
}

static int setup_uring(void **state)
{
    return setup(state, KITHI_IO_URING);
}

static int setup_threads(void **state)
{
    return setup(state, KITHI_IO_THREADS);
}

static int teardown(void **state)
{
    kithi_io_free(*state);
    return 0;
}

/* ---- sockets ---- */

static int listen_at(const struct test_dir *dir, struct sockaddr_un *addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
    snprintf(addr->sun_path, sizeof addr->sun_path, "%.90s/sock", dir->path);
    assert_int_equal(bind(fd, (struct sockaddr *)addr, sizeof *addr), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void accept_recv_and_send_move_bytes(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    struct test_dir dir;
    struct sockaddr_un addr;
    struct seen a, r, s;
    char buf[16] = "";
    test_dir_make(&dir);
    int lfd = listen_at(&dir, &addr);
    prepare(&a);
    kithi_io_accept(io, &a.op, lfd);
    assert_int_equal(kithi_io_run(io, 0), 0);
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&addr, sizeof addr), 0);
    int fd = await(io, &a);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);

    prepare(&r);
    kithi_io_recv(io, &r.op, fd, buf, sizeof buf);
    assert_int_equal(kithi_io_run(io, 0), 0);
    assert_int_equal(send(client, "hello", 5, 0), 5);
    assert_int_equal(await(io, &r), 5);
    assert_memory_equal(buf, "hello", 5);

    prepare(&s);
    kithi_io_send(io, &s.op, fd, "back", 4);
    assert_int_equal(await(io, &s), 4);
    assert_int_equal(recv(client, buf, sizeof buf, 0), 4);

    close(client);
    prepare(&r);
    kithi_io_recv(io, &r.op, fd, buf, sizeof buf);
    assert_int_equal(await(io, &r), 0);
    prepare(&s); /* no SIGPIPE */
    kithi_io_send(io, &s.op, fd, "gone", 4);
    assert_int_equal(await(io, &s), -EPIPE);
    kithi_io_close(io, fd);
    kithi_io_close(io, lfd);
    test_dir_remove(&dir);
}

static void done_is_never_called_from_a_submitting_call(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    int pair[2];
    struct seen r, t;
    char buf[4];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(send(pair[1], "abc", 3, 0), 3);
    prepare(&r);
    prepare(&t);
    kithi_io_recv(io, &r.op, pair[0], buf, sizeof buf);
    kithi_io_timer(io, &t.op, 0);
    assert_int_equal(r.calls, 0);
    assert_int_equal(t.calls, 0);
    assert_int_equal(await(io, &r), 3);
    assert_int_equal(await(io, &t), 0);
    kithi_io_close(io, pair[0]);
    close(pair[1]);
}

#define BIG (4u << 20)

static void *drain(void *arg)
{
    int fd = *(int *)arg;
    char *buf = malloc(BIG);
    size_t got = 0;
    while (got < BIG) {
        ssize_t n = recv(fd, buf + got, BIG - got, 0);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    for (size_t i = 0; i < got; i++)
        if (buf[i] != (char)(i * 7))
            got = 0;
    free(buf);
    return (void *)(uintptr_t)got;
}

static void send_completes_with_everything_sent(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    for (int flags = 0; flags <= SOCK_NONBLOCK; flags += SOCK_NONBLOCK) {
        int pair[2];
        struct seen s;
        pthread_t thread;
        void *got;
        char *buf = malloc(BIG);
        for (size_t i = 0; i < BIG; i++)
            buf[i] = (char)(i * 7);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        if (flags)
            assert_int_equal(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
        prepare(&s);
        kithi_io_send(io, &s.op, pair[0], buf, BIG);
        kithi_io_run(io, 0);
        assert_int_equal(pthread_create(&thread, NULL, drain, &pair[1]), 0);
        assert_int_equal(await(io, &s), BIG);
        pthread_join(thread, &got);
        assert_int_equal((uintptr_t)got, BIG);
        kithi_io_close(io, pair[0]);
        close(pair[1]);
        free(buf);
    }
}

static void closing_ends_what_is_in_flight(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    struct test_dir dir;
    struct sockaddr_un addr;
    struct seen a, r, s;
    int pair[2], other[2];
    char buf[4], *big = calloc(1, BIG);
    test_dir_make(&dir);
    int lfd = listen_at(&dir, &addr);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    prepare(&a);
    prepare(&r);
    prepare(&s);
    kithi_io_accept(io, &a.op, lfd);
    kithi_io_recv(io, &r.op, pair[0], buf, sizeof buf);
    kithi_io_send(io, &s.op, pair[0], big, BIG); /* nobody reads */
    kithi_io_run(io, 0);
    kithi_io_close(io, pair[0]);
    kithi_io_close(io, lfd);
    assert_int_equal(r.calls + a.calls + s.calls, 0);
    /* The same numbers, another file: nothing of the old ops may reach it. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
    assert_true(await(io, &r) < 0);
    assert_true(await(io, &a) < 0);
    assert_true(await(io, &s) < 0);
    assert_int_equal(send(other[0], "x", 1, 0), 1);
    assert_int_equal(recv(other[1], buf, sizeof buf, 0), 1);
    assert_int_equal(recv(other[0], buf, sizeof buf, MSG_DONTWAIT), -1);
    close(other[0]);
    close(other[1]);
    close(pair[1]);
    free(big);
    test_dir_remove(&dir);
}

static void cancel_ends_timers_and_receives(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    int pair[2];
    char buf[4];
    struct seen t, r;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    prepare(&t);
    prepare(&r);
    kithi_io_timer(io, &t.op, 3600000);
    kithi_io_recv(io, &r.op, pair[0], buf, sizeof buf);
    kithi_io_run(io, 0);
    kithi_io_cancel(io, &t.op);
    kithi_io_cancel(io, &t.op);
    kithi_io_cancel(io, &r.op);
    assert_int_equal(await(io, &t), -ECANCELED);
    assert_int_equal(await(io, &r), -ECANCELED);
    kithi_io_cancel(io, &r.op); /* not in flight: nothing happens */
    prepare(&r);
    kithi_io_recv(io, &r.op, pair[0], buf, sizeof buf); /* the descriptor is still good */
    assert_int_equal(send(pair[1], "ab", 2, 0), 2);
    assert_int_equal(await(io, &r), 2);
    kithi_io_close(io, pair[0]);
    close(pair[1]);
}

/* ---- time, signals, wakes ---- */

static void timers_end_in_their_order_and_not_early(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    struct seen late, soon;
    uint64_t start = test_now_ms();
    prepare(&late);
    prepare(&soon);
    kithi_io_timer(io, &late.op, 60);
    kithi_io_timer(io, &soon.op, 15);
    assert_int_equal(await(io, &soon), 0);
    assert_true(test_now_ms() - start >= 14);
    assert_int_equal(late.calls, 0);
    assert_int_equal(await(io, &late), 0);
    assert_true(test_now_ms() - start >= 59);
}

static void run_returns_when_its_time_has_passed(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    uint64_t start = test_now_ms();
    assert_int_equal(kithi_io_run(io, 20), 0);
    assert_true(test_now_ms() - start >= 19);
    assert_int_equal(kithi_io_run(io, 0), 0);
}

static void poll_sees_a_signal(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    sigset_t set, before;
    struct seen p;
    struct signalfd_siginfo info;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, &before);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    for (int i = 0; i < 2; i++) {
        prepare(&p);
        kithi_io_poll(io, &p.op, fd);
        assert_int_equal(kithi_io_run(io, 0), 0);
        kill(getpid(), SIGUSR1);
        assert_true(await(io, &p) & POLLIN);
        assert_int_equal(read(fd, &info, sizeof info), sizeof info);
    }
    kithi_io_close(io, fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

struct waker {
    struct kithi_io *io;
    _Atomic int stored;
    int heard, value;
};

static void on_wake(void *arg)
{
    struct waker *w = arg;
    w->heard++;
    w->value = atomic_load(&w->stored);
}

static void *wake_often(void *arg)
{
    struct waker *w = arg;
    for (int i = 1; i <= 20000; i++) {
        atomic_store(&w->stored, i);
        kithi_io_wake(w->io);
    }
    return NULL;
}

static void the_last_wake_is_never_lost(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    struct waker w = { .io = io };
    pthread_t thread;
    kithi_io_on_wake(io, on_wake, &w);
    assert_int_equal(pthread_create(&thread, NULL, wake_often, &w), 0);
    uint64_t end = test_now_ms() + DEADLINE_MS;
    while (w.value != 20000 && test_now_ms() < end)
        assert_true(kithi_io_run(io, 1000) >= 0);
    assert_int_equal(w.value, 20000);
    pthread_join(thread, NULL);
    kithi_io_on_wake(io, NULL, NULL);
    while (kithi_io_run(io, 0) > 0)
        ;
}

static int add_one(void *arg)
{
    (void)arg;
    return 42;
}

static void a_call_runs_and_returns_its_value(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    struct seen c[3];
    for (int i = 0; i < 3; i++) {
        prepare(&c[i]);
        kithi_io_call(io, &c[i].op, add_one);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(await(io, &c[i]), 42);
}

static void freeing_the_loop_ends_calls_and_drops_the_rest(void **state)
{
    if (!loop(state))
        skip();
    struct kithi_io *io = NULL;
    struct seen c, r, t;
    int pair[2];
    char buf[4];
    assert_int_equal(
        kithi_io_open(strcmp(kithi_io_name(loop(state)), "uring") == 0 ? KITHI_IO_URING : KITHI_IO_THREADS,
                      &io, NULL),
        0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    prepare(&c);
    prepare(&r);
    prepare(&t);
    kithi_io_call(io, &c.op, add_one);
    kithi_io_recv(io, &r.op, pair[0], buf, sizeof buf);
    kithi_io_timer(io, &t.op, 3600000);
    kithi_io_free(io);
    assert_int_equal(c.calls, 1);
    assert_int_equal(r.calls + t.calls, 0);
    close(pair[0]);
    close(pair[1]);
}

/* ---- files ---- */

/* Several at once, which a sync makes last. */
static void writes_in_flight_together_are_all_there(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    enum { WRITES = 6 };
    struct test_dir dir;
    struct seen w[WRITES];
    bool direct;
    void *buf;
    const size_t len = 256u << 10;
    test_dir_make(&dir);
    assert_int_equal(posix_memalign(&buf, 4096, WRITES * len), 0);
    for (size_t i = 0; i < WRITES * len; i++)
        ((char *)buf)[i] = (char)(i * 31 + i / len);
    int fd = kithi_io_file_create(io, test_path(&dir, "image"), true, &direct);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < WRITES; i++) {
        prepare(&w[i]);
        kithi_io_write(io, &w[i].op, fd, (char *)buf + i * len, len, (WRITES - 1 - i) * len);
    }
    for (unsigned i = 0; i < WRITES; i++)
        assert_int_equal(await(io, &w[i]), len);
    assert_int_equal(kithi_io_file_sync(io, fd), 0);
    int in = open(test_path(&dir, "image"), O_RDONLY);
    char *have = malloc(len);
    assert_non_null(have);
    for (unsigned i = 0; i < WRITES; i++) {
        assert_int_equal(pread(in, have, len, (off_t)((WRITES - 1 - i) * len)), len);
        assert_memory_equal(have, (char *)buf + i * len, len);
    }
    /* A descriptor that nothing can be written to says so. */
    prepare(&w[0]);
    kithi_io_write(io, &w[0].op, in, buf, len, 0);
    assert_int_equal(await(io, &w[0]), -EBADF);
    kithi_io_close(io, in);
    kithi_io_close(io, fd);
    free(have);
    free(buf);
    test_dir_remove(&dir);
}

static void write_durable_puts_all_bytes_where_they_belong(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    struct test_dir dir;
    struct seen w;
    bool direct;
    void *buf;
    const size_t len = 3u << 20;
    test_dir_make(&dir);
    const char *path = test_path(&dir, "log");
    for (int want = 0; want < 2; want++) {
        assert_int_equal(posix_memalign(&buf, 4096, len), 0);
        for (size_t i = 0; i < len; i++)
            ((char *)buf)[i] = (char)(i * 13 + 1);
        int fd = kithi_io_file_create(io, path, want != 0, &direct);
        assert_true(fd >= 0);
        assert_int_equal(kithi_io_file_allocate(io, fd, len + 8192), 0);
        assert_int_equal(kithi_io_file_sync(io, fd), 0);
        prepare(&w);
        kithi_io_write_durable(io, &w.op, fd, buf, len, 4096);
        assert_int_equal(await(io, &w), len);
        memset(buf, 0, len);
        int in = open(path, O_RDONLY);
        assert_int_equal(pread(in, buf, len, 4096), len);
        for (size_t i = 0; i < len; i++)
            assert_int_equal(((char *)buf)[i], (char)(i * 13 + 1));
        struct stat st;
        assert_int_equal(fstat(in, &st), 0);
        assert_int_equal(st.st_size, len + 8192);
        close(in);
        kithi_io_close(io, fd);
        free(buf);
    }
    assert_int_equal(kithi_io_file_rename(io, path, test_path(&dir, "other")), 0);
    assert_int_equal(kithi_io_dir_sync(io, dir.path), 0);
    assert_int_equal(kithi_io_file_unlink(io, path), -ENOENT);
    assert_int_equal(kithi_io_file_unlink(io, test_path(&dir, "other")), 0);
    test_dir_remove(&dir);
}

/* Write of [from, from + len) of buf to the same place of the file, and read back. */
static void write_and_check(struct kithi_io *io, int fd, const char *path, const char *buf, size_t from,
                            size_t len)
{
    struct seen w;
    char *have = malloc(len);
    prepare(&w);
    kithi_io_write_durable(io, &w.op, fd, buf + from, len, from);
    assert_int_equal(await(io, &w), len);
    int in = open(path, O_RDONLY);
    assert_int_equal(pread(in, have, len, (off_t)from), len);
    assert_memory_equal(have, buf + from, len);
    close(in);
    free(have);
}

/* Whatever the loop was told of before: bytes come from where they are now. */
static void what_is_registered_is_written_like_the_rest(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    enum { FILES = 40, LEN = 1u << 17 }; /* more than are registered at once */
    struct test_dir dir;
    bool direct;
    char *buf[2];
    test_dir_make(&dir);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(posix_memalign((void **)&buf[i], 4096, LEN), 0);
        for (unsigned j = 0; j < LEN; j++)
            buf[i][j] = (char)(j * 7 + j / 4096 + (unsigned)i);
    }
    kithi_io_register_memory(io, buf[0], LEN / 2);
    const char *first = test_path(&dir, "first"), *second = test_path(&dir, "second");
    int fd = kithi_io_file_create(io, first, true, &direct);
    write_and_check(io, fd, first, buf[0], 0, LEN / 2);
    write_and_check(io, fd, first, buf[0], 8192, 4096);
    write_and_check(io, fd, first, buf[0], LEN / 2 - 4096, 8192); /* half of it is not registered */
    write_and_check(io, fd, first, buf[1], 4096, 4096);
    /* Another file under the same number, other bytes at the same place. */
    kithi_io_close(io, fd);
    kithi_io_unregister_memory(io, buf[0]);
    kithi_io_unregister_memory(io, buf[0]);
    memset(buf[0], 0x77, LEN);
    int again = kithi_io_file_create(io, second, true, &direct);
    assert_int_equal(again, fd);
    write_and_check(io, again, second, buf[0], 0, 4096);
    kithi_io_register_memory(io, buf[1], LEN);
    write_and_check(io, again, second, buf[1], 4096, 8192);
    write_and_check(io, again, second, buf[0], 4096, 4096);
    /* The lock goes with the descriptor. */
    int other = open(second, O_RDONLY);
    assert_int_equal(flock(other, LOCK_EX | LOCK_NB), -1);
    kithi_io_close(io, again);
    uint64_t end = test_now_ms() + DEADLINE_MS;
    while (flock(other, LOCK_EX | LOCK_NB) != 0 && test_now_ms() < end)
        kithi_io_run(io, 10);
    assert_int_equal(flock(other, LOCK_EX | LOCK_NB), 0);
    close(other);
    /* More than the kernel is told of. */
    int fds[FILES];
    char name[16];
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%d", i);
        fds[i] = kithi_io_file_create(io, test_path(&dir, name), true, &direct);
        kithi_io_register_memory(io, buf[0] + 2048 * i, 2048);
    }
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%d", i);
        write_and_check(io, fds[i], test_path(&dir, name), buf[i & 1], 0, 8192);
        kithi_io_close(io, fds[i]);
        kithi_io_unregister_memory(io, buf[0] + 2048 * i);
    }
    kithi_io_unregister_memory(io, buf[1]);
    free(buf[0]);
    free(buf[1]);
    test_dir_remove(&dir);
}

static void a_file_that_is_there_is_opened_with_its_content(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    struct test_dir dir;
    bool direct;
    uint64_t size = 0;
    char *buf;
    test_dir_make(&dir);
    const char *path = test_path(&dir, "log"), *fifo = test_path(&dir, "fifo");
    assert_int_equal(posix_memalign((void **)&buf, 4096, 16384), 0);
    memset(buf, 0x5a, 16384);
    assert_int_equal(kithi_io_file_size(io, path, &size), -ENOENT);
    assert_int_equal(kithi_io_file_open(io, path, true, &direct, &size), -ENOENT);
    int fd = kithi_io_file_create(io, path, true, &direct);
    assert_int_equal(kithi_io_file_write(io, fd, buf, 16384, 0), 16384);
    assert_int_equal(kithi_io_file_open(io, path, true, &direct, &size), -EWOULDBLOCK); /* locked */
    kithi_io_close(io, fd);
    assert_int_equal(kithi_io_file_size(io, path, &size), 0);
    assert_int_equal(size, 16384);
    size = 0;
    fd = kithi_io_file_open(io, path, true, &direct, &size);
    assert_true(fd >= 0);
    assert_int_equal(size, 16384);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(kithi_io_file_zero(io, fd, 4096, 8192), 0);
    assert_int_equal(kithi_io_file_sync(io, fd), 0);
    memset(buf, 1, 16384);
    assert_int_equal(kithi_io_file_read(io, fd, buf, 16384, 0), 16384);
    for (int i = 0; i < 16384; i++)
        assert_int_equal(buf[i], i >= 4096 && i < 12288 ? 0 : 0x5a);
    assert_int_equal(kithi_io_file_read(io, fd, buf, 8192, 12288), 4096);
    kithi_io_close(io, fd);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(kithi_io_file_open(io, fifo, false, &direct, &size), -EINVAL);
    free(buf);
    test_dir_remove(&dir);
}

static void a_failing_write_says_why(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    struct seen w;
    int fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        skip();
    prepare(&w);
    kithi_io_write_durable(io, &w.op, fd, "12345678", 8, 0);
    assert_int_equal(await(io, &w), -ENOSPC);
    kithi_io_close(io, fd);
}

static void a_created_file_is_locked_until_it_is_closed(void **state)
{
    struct kithi_io *io = loop(state);
    if (!io)
        skip();
    struct test_dir dir;
    struct seen w;
    bool direct;
    void *buf;
    test_dir_make(&dir);
    const char *path = test_path(&dir, "log");
    assert_int_equal(posix_memalign(&buf, 4096, 4096), 0);
    memset(buf, 1, 4096);
    int fd = kithi_io_file_create(io, path, true, &direct);
    int other = open(path, O_RDONLY);
    assert_int_equal(flock(other, LOCK_EX | LOCK_NB), -1);
    prepare(&w);
    kithi_io_write_durable(io, &w.op, fd, buf, 4096, 0);
    kithi_io_close(io, fd); /* the write ends by itself */
    int r = await(io, &w);
    assert_true(r == 4096 || r == -ECANCELED);
    uint64_t end = test_now_ms() + DEADLINE_MS;
    while (flock(other, LOCK_EX | LOCK_NB) != 0 && test_now_ms() < end)
        kithi_io_run(io, 10);
    assert_int_equal(flock(other, LOCK_EX | LOCK_NB), 0);
    close(other);
    free(buf);
    test_dir_remove(&dir);
}

/* ---- choosing ---- */

static void the_environment_chooses_the_kind(void **state)
{
    (void)state;
    struct kithi_io *io = NULL;
    struct kithi_errmsg err;
    setenv("KITH_IO", "threads", 1);
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, &err), 0);
    assert_string_equal(kithi_io_name(io), "threads");
    assert_string_equal(kithi_io_reason(io), "KITH_IO=threads");
    kithi_io_free(io);
    setenv("KITH_IO", "magic", 1);
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, &err), -EINVAL);
    assert_non_null(strstr(err.text, "magic"));
    unsetenv("KITH_IO");
    assert_int_equal(kithi_io_open(KITHI_IO_AUTO, &io, &err), 0);
    kithi_io_free(io);
    kithi_io_free(NULL);
}

#define ON_BOTH(claim)                                                                                       \
    { #claim " (uring)", claim, setup_uring, teardown, NULL },                                               \
    {                                                                                                        \
#claim " (threads)", claim, setup_threads, teardown, NULL                                            \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(accept_recv_and_send_move_bytes),
        ON_BOTH(done_is_never_called_from_a_submitting_call),
        ON_BOTH(send_completes_with_everything_sent),
        ON_BOTH(closing_ends_what_is_in_flight),
        ON_BOTH(cancel_ends_timers_and_receives),
        ON_BOTH(timers_end_in_their_order_and_not_early),
        ON_BOTH(run_returns_when_its_time_has_passed),
        ON_BOTH(poll_sees_a_signal),
        ON_BOTH(the_last_wake_is_never_lost),
        ON_BOTH(a_call_runs_and_returns_its_value),
        ON_BOTH(freeing_the_loop_ends_calls_and_drops_the_rest),
        ON_BOTH(write_durable_puts_all_bytes_where_they_belong),
        ON_BOTH(writes_in_flight_together_are_all_there),
        ON_BOTH(what_is_registered_is_written_like_the_rest),
        ON_BOTH(a_file_that_is_there_is_opened_with_its_content),
        ON_BOTH(a_failing_write_says_why),
        ON_BOTH(a_created_file_is_locked_until_it_is_closed),
        cmocka_unit_test(the_environment_chooses_the_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
