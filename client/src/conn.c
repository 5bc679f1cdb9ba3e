/*
 * conn.c - see conn_priv.h.
 */
#include "client/src/conn_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/src/rundir_priv.h"

#define IN_CAPACITY_MIN 4096u

bool kithi_conn_is_gone(int code)
{
    return code == -EPIPE || code == -ECONNRESET;
}

void kithi_conn_init(struct kithi_conn *c)
{
    memset(c, 0, sizeof *c);
    c->fd = -1;
}

void kithi_conn_close(struct kithi_conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->in);
    kithi_conn_init(c);
}

/* Bytes of the frame that begins at in_start, or 0 while its header is not all there. */
static int64_t frame_size(const struct kithi_conn *c)
{
    struct kithi_frame f;
    if (c->in_end - c->in_start < sizeof f)
        return 0;
    memcpy(&f, c->in + c->in_start, sizeof f);
    if (f.magic != KITHI_FRAME_MAGIC || f.type != KITHI_FRAME_REPLY || f.len > KITHI_FRAME_MAX ||
        f.len < sizeof(struct kithi_reply))
        return KITHI_E_PROTOCOL;
    return (int64_t)sizeof f + f.len;
}

/* Room behind in_end for the rest of a frame of size bytes, or for something when size is 0. */
static int make_room(struct kithi_conn *c, size_t size)
{
    if (c->in_start == c->in_end)
        c->in_start = c->in_end = 0;
    size_t need = size > IN_CAPACITY_MIN ? size : IN_CAPACITY_MIN;
    if (c->in_capacity - c->in_start >= need)
        return 0;
    if (c->in_start) {
        memmove(c->in, c->in + c->in_start, c->in_end - c->in_start);
        c->in_end -= c->in_start;
        c->in_start = 0;
    }
    if (c->in_capacity >= need)
        return 0;
    unsigned char *grown = realloc(c->in, need);
    if (!grown)
        return -ENOMEM;
    c->in = grown;
    c->in_capacity = need;
    return 0;
}

int kithi_conn_receive(struct kithi_conn *c, bool wait, struct kithi_answer *out)
{
    for (;;) {
        int64_t size = frame_size(c);
        if (size < 0)
            return (int)size;
        if (size > 0 && c->in_end - c->in_start >= (size_t)size) {
            const unsigned char *p = c->in + c->in_start;
            struct kithi_frame f;
            memcpy(&f, p, sizeof f);
            memcpy(&out->head, p + sizeof f, sizeof out->head);
            out->tag = f.tag;
            out->count = f.count;
            out->text = (const char *)p + sizeof f + sizeof out->head;
            c->in_start += (size_t)size;
            return out->head.text_len <= f.len - sizeof out->head ? 1 : KITHI_E_PROTOCOL;
        }
        int rc = make_room(c, (size_t)size);
        if (rc < 0)
            return rc;
        ssize_t n = recv(c->fd, c->in + c->in_end, c->in_capacity - c->in_end, wait ? 0 : MSG_DONTWAIT);
        if (n == 0)
            return -EPIPE;
        if (n > 0)
            c->in_end += (size_t)n;
        else if (!wait && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        else if (errno != EINTR)
            return -errno;
    }
}

int kithi_conn_send(struct kithi_conn *c, struct iovec **iov, int *n, bool wait, size_t *sent)
{
    while (*n > 0) {
        if ((*iov)->iov_len == 0) {
            ++*iov;
            --*n;
            continue;
        }
        struct msghdr msg = { .msg_iov = *iov, .msg_iovlen = (size_t)*n };
        ssize_t out = sendmsg(c->fd, &msg, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
        if (out < 0) {
            if (errno == EINTR)
                continue;
            if (!wait && (errno == EAGAIN || errno == EWOULDBLOCK))
                return 0;
            return -errno;
        }
        *sent += (size_t)out;
        for (size_t left = (size_t)out; left > 0;) {
            size_t step = left < (*iov)->iov_len ? left : (*iov)->iov_len;
            (*iov)->iov_base = (unsigned char *)(*iov)->iov_base + step;
            (*iov)->iov_len -= step;
            left -= step;
            if ((*iov)->iov_len == 0) {
                ++*iov;
                --*n;
            }
        }
    }
    return 1;
}

struct kithi_frame kithi_conn_frame(struct kithi_conn *c, uint16_t type, uint32_t count, size_t len)
{
    return (struct kithi_frame){
        .magic = KITHI_FRAME_MAGIC, .len = (uint32_t)len, .type = type, .count = count, .tag = ++c->tag
    };
}

/* Ask for a sign of life, as one word that a daemon answers at once, whatever else it is at. Its tag is c->tag. */
static int knock(struct kithi_conn *c)
{
    uint32_t hello[2] = { KITHI_WIRE_VERSION, 0 };
    struct kithi_frame frame = kithi_conn_frame(c, KITHI_FRAME_HELLO, 0, sizeof hello);
    struct iovec pieces[2] = { { .iov_base = &frame, .iov_len = sizeof frame },
                               { .iov_base = hello, .iov_len = sizeof hello } },
                 *iov = pieces;
    int n = 2;
    size_t sent = 0;
    int rc = kithi_conn_send(c, &iov, &n, true, &sent);
    return rc < 0 ? rc : 0;
}

int kithi_conn_receive_slow(struct kithi_conn *c, struct kithi_answer *out)
{
    for (;;) {
        int rc = kithi_conn_receive(c, true, out);
        if (rc == -EAGAIN && !c->knock) {
            rc = knock(c);
            if (rc < 0)
                return rc;
            c->knock = c->tag;
        } else if (rc == 1 && c->knock && out->tag == c->knock) {
            c->knock = 0;
        } else {
            return rc;
        }
    }
}

/* The answer to tag, or one that ends the connection: 1. slow: as kithi_conn_call_slow(). */
static int await(struct kithi_conn *c, uint64_t tag, bool slow, struct kithi_answer *out)
{
    for (;;) {
        int rc = slow ? kithi_conn_receive_slow(c, out) : kithi_conn_receive(c, true, out);
        if (rc != 1 || out->tag == tag || out->tag == 0)
            return rc;
    }
}

static int call(struct kithi_conn *c, uint16_t type, uint16_t flags, uint32_t count, const struct iovec *body,
                int n, bool slow, struct kithi_answer *out)
{
    struct iovec pieces[KITHI_CONN_PIECES + 1], *iov = pieces;
    size_t len = 0, sent = 0;
    for (int i = 0; i < n; i++) {
        pieces[i + 1] = body[i];
        len += body[i].iov_len;
    }
    if (len > KITHI_FRAME_MAX)
        return KITHI_E_TOO_LARGE;
    struct kithi_frame frame = kithi_conn_frame(c, type, count, len);
    frame.flags = flags;
    pieces[0] = (struct iovec){ .iov_base = &frame, .iov_len = sizeof frame };
    int piece_count = n + 1;
    int rc = kithi_conn_send(c, &iov, &piece_count, true, &sent);
    bool left_whole = rc == 1;
    if (!left_whole && !kithi_conn_is_gone(rc))
        goto lost;
    /* A daemon that closes on us may have said why; that is still to be read. */
    rc = await(c, frame.tag, slow, out);
    if (rc == 1 && (out->tag == frame.tag || out->head.status < 0))
        return 0;
    if (rc == 1)
        rc = KITHI_E_PROTOCOL;
lost:
    kithi_conn_close(c);
    /* A daemon acts on whole frames. A reset says that it closed before it had read all of this one. */
    if (kithi_conn_is_gone(rc))
        rc = left_whole && rc != -ECONNRESET ? KITHI_E_UNKNOWN_OUTCOME : KITHI_E_NO_DAEMON;
    return rc;
}

int kithi_conn_call(struct kithi_conn *c, uint16_t type, uint32_t count, const struct iovec *body, int n,
                    struct kithi_answer *out)
{
    return call(c, type, 0, count, body, n, false, out);
}

int kithi_conn_call_slow(struct kithi_conn *c, uint16_t type, const struct iovec *body, int n,
                         struct kithi_answer *out)
{
    return call(c, type, 0, 0, body, n, true, out);
}

int kithi_conn_write(struct kithi_conn *c, enum kithi_durability durability, uint32_t count,
                     const struct iovec *body, int n, struct kithi_answer *out)
{
    return call(c, KITHI_FRAME_WRITE, (uint16_t)durability, count, body, n, false, out);
}

static void set_patience(int fd, uint32_t patience_ms)
{
    struct timeval t = { .tv_sec = patience_ms / 1000, .tv_usec = patience_ms % 1000 * 1000 };
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

void kithi_conn_patience(struct kithi_conn *c, uint32_t patience_ms)
{
    set_patience(c->fd, patience_ms);
}

static int connect_to(const char *path, uint32_t patience_ms, int *out_fd, struct kithi_errmsg *err)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    size_t len = strlen(path);
    if (len >= sizeof addr.sun_path)
        return kithi_error_set(
            err, KITHI_E_RUN_DIR,
            "the socket path %.120s... has %zu bytes and a socket's may have %zu; use a shorter "
            "run directory",
            path, len, sizeof addr.sun_path - 1);
    memcpy(addr.sun_path, path, len + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return kithi_error_set(err, -errno, "cannot make a socket: %s", kithi_error_text(-errno));
    if (patience_ms)
        set_patience(fd, patience_ms); /* of connecting, too */
    int rc;
    do
        rc = connect(fd, (const struct sockaddr *)&addr, sizeof addr) < 0 ? -errno : 0;
    while (rc == -EINTR);
    if (rc == 0) {
        *out_fd = fd;
        return 0;
    }
    close(fd);
    if (rc == -ENOENT || rc == -ECONNREFUSED || rc == -ENOTDIR)
        return kithi_error_set(err, KITHI_E_NO_DAEMON, "no daemon answers at %s; start kithd", path);
    if (rc == -EACCES || rc == -EPERM)
        return kithi_error_set(err, KITHI_E_DENIED,
                               "your user may not connect to %s; it must be in a group that kithd admits",
                               path);
    return kithi_error_set(err, rc, "cannot connect to %s: %s", path, kithi_error_text(rc));
}

int kithi_conn_open(struct kithi_conn *c, const char *run_dir, uint32_t patience_ms, struct kithi_errmsg *err)
{
    char *path = NULL;
    int rc = kithi_path_join(run_dir, "kithd.sock", NULL, &path);
    if (rc < 0)
        return kithi_error_set(err, rc, "out of memory");
    kithi_conn_init(c);
    rc = connect_to(path, patience_ms, &c->fd, err);
    if (rc < 0)
        goto out;
    c->pid = getpid();

    uint32_t hello[2] = { KITHI_WIRE_VERSION, 0 };
    struct iovec body = { .iov_base = hello, .iov_len = sizeof hello };
    struct kithi_answer answer;
    rc = kithi_conn_call(c, KITHI_FRAME_HELLO, 0, &body, 1, &answer);
    if (rc == KITHI_E_UNKNOWN_OUTCOME || rc == KITHI_E_NO_DAEMON)
        rc = kithi_error_set(err, KITHI_E_NO_DAEMON, "the daemon at %s closed the connection at once", path);
    else if (rc < 0)
        kithi_error_set(err, rc, "no greeting from the daemon at %s: %s", path, kithi_error_text(rc));
    else if (answer.head.status < 0)
        rc = kithi_error_set(err, answer.head.status, "%.*s", (int)answer.head.text_len, answer.text);
    if (rc < 0)
        kithi_conn_close(c);
out:
    free(path);
    return rc;
}
