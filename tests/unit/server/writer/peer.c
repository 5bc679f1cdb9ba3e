/*
 * peer.c - a client that can say anything. See peer.h.
 */
#include "tests/unit/server/writer/peer.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/base/bytes.h"
#include "shm/wire/op.h"

#define PATIENCE_MS 90000

void peer_connect(struct peer *p, const char *run_dir)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s/kithd.sock", run_dir);
    memset(p, 0, sizeof *p);
    p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(p->fd >= 0);
    assert_int_equal(connect(p->fd, (struct sockaddr *)&address, sizeof address), 0);
}

void peer_open(struct peer *p, const char *run_dir)
{
    uint32_t hello[2] = { KITHI_WIRE_VERSION, 0 };
    peer_connect(p, run_dir);
    assert_int_equal(peer_call(p, KITHI_FRAME_HELLO, hello, sizeof hello, 0, NULL), 0);
}

void peer_close(struct peer *p)
{
    close(p->fd);
    p->fd = -1;
}

void peer_send(struct peer *p, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len) {
        ssize_t n = send(p->fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return; /* the daemon has closed; its last reply says why */
        }
        at += n;
        len -= (size_t)n;
    }
}

void peer_send_frame(struct peer *p, unsigned type, const void *body, size_t len, uint32_t count)
{
    struct kithi_frame f = { .magic = KITHI_FRAME_MAGIC,
                             .len = (uint32_t)len,
                             .type = (uint16_t)type,
                             .count = count,
                             .tag = ++p->tag };
    peer_send(p, &f, sizeof f);
    peer_send(p, body, len);
}

static bool receive(struct peer *p, void *out, size_t len)
{
    char *at = out;
    while (len) {
        struct pollfd wait = { .fd = p->fd, .events = POLLIN };
        assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
        ssize_t n = recv(p->fd, at, len, 0);
        if (n <= 0) {
            return false;
        }
        at += n;
        len -= (size_t)n;
    }
    return true;
}

bool peer_reply(struct peer *p, struct peer_reply *out)
{
    static struct peer_reply unwanted;
    struct peer_reply *r = out ? out : &unwanted;
    memset(r, 0, sizeof *r);
    if (!receive(p, &r->frame, sizeof r->frame)) {
        return false;
    }
    assert_int_equal(r->frame.magic, KITHI_FRAME_MAGIC);
    assert_int_equal(r->frame.type, KITHI_FRAME_REPLY);
    assert_true(r->frame.len >= sizeof r->reply && r->frame.len <= sizeof r->reply + PEER_TEXT_SIZE);
    assert_true(receive(p, &r->reply, sizeof r->reply));
    assert_int_equal(kithi_round_up(r->reply.text_len, 8), r->frame.len - sizeof r->reply);
    return receive(p, r->text, r->frame.len - sizeof r->reply);
}

int peer_call(struct peer *p, unsigned type, const void *body, size_t len, uint32_t count,
              struct peer_reply *out)
{
    static struct peer_reply unwanted;
    struct peer_reply *r = out ? out : &unwanted;
    peer_send_frame(p, type, body, len, count);
    assert_true(peer_reply(p, r));
    assert_int_equal(r->frame.tag, p->tag);
    return r->reply.status;
}

int peer_create(struct peer *p, const char *name, uint32_t dim, uint32_t slot_max, struct peer_reply *out)
{
    unsigned char body[sizeof(struct kithi_create) + 128] = { 0 };
    struct kithi_create c = { .dim = dim,
                              .metric = 1,
                              .slot_max = slot_max ? slot_max : PEER_SLOT_MAX,
                              .name_len = (uint16_t)strlen(name) };
    memcpy(body, &c, sizeof c);
    memcpy(body + sizeof c, name, strlen(name));
    return peer_call(p, KITHI_FRAME_CREATE, body, sizeof c + kithi_round_up(strlen(name), 8), 0, out);
}

static int call_name(struct peer *p, unsigned type, const char *name, struct peer_reply *out)
{
    char body[128] = { 0 };
    memcpy(body, name, strlen(name));
    return peer_call(p, type, body, kithi_round_up(strlen(name), 8), 0, out);
}

int peer_drop(struct peer *p, const char *name, struct peer_reply *out)
{
    return call_name(p, KITHI_FRAME_DROP, name, out);
}

int peer_use(struct peer *p, const char *name, struct peer_reply *out)
{
    struct peer_reply reply;
    int status = call_name(p, KITHI_FRAME_OPEN, name, &reply);
    if (!status) {
        assert_int_equal(reply.reply.text_len, sizeof(struct kithi_opened));
        memcpy(p->uid, reply.text, sizeof p->uid);
    }
    if (out) {
        *out = reply;
    }
    return status;
}

void peer_send_write(struct peer *p, const char *prefix, unsigned first, unsigned n, uint32_t dim,
                     float value)
{
    float vector[256];
    char id[128];
    assert_true(dim <= 256);
    for (unsigned i = 0; i < dim; i++) {
        vector[i] = value;
    }
    size_t len = sizeof p->uid;
    unsigned char *body = malloc(len + (size_t)n * kithi_op_size(sizeof id, dim));
    assert_non_null(body);
    memcpy(body, p->uid, sizeof p->uid);
    for (unsigned i = 0; i < n; i++) {
        int id_len = snprintf(id, sizeof id, "%s%u", prefix, first + i);
        len += kithi_op_encode(body + len, id, (size_t)id_len, dim ? vector : NULL, dim);
    }
    peer_send_frame(p, KITHI_FRAME_WRITE, body, len, n);
    free(body);
}

int peer_write(struct peer *p, const char *prefix, unsigned first, unsigned n, uint32_t dim, float value,
               struct peer_reply *out)
{
    static struct peer_reply unwanted;
    struct peer_reply *r = out ? out : &unwanted;
    peer_send_write(p, prefix, first, n, dim, value);
    assert_true(peer_reply(p, r));
    assert_int_equal(r->frame.tag, p->tag);
    return r->reply.status;
}

uint64_t peer_stat(struct peer *p, const char *key)
{
    struct peer_reply r;
    char quoted[64];
    assert_int_equal(peer_call(p, KITHI_FRAME_STATS, p->uid, sizeof p->uid, 0, &r), 0);
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(r.text, quoted);
    assert_non_null(at);
    return strtoull(at + strlen(quoted), NULL, 10);
}
