/*
 * conn_priv.h - one connection to kithd: frames out, answers in. Knows frames (shm/wire/frame.h)
 * and nothing of collections. Never raises SIGPIPE; goes on after EINTR. One thread at a time.
 */
#ifndef KITHI_CLIENT_CONN_PRIV_H
#define KITHI_CLIENT_CONN_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "shm/base/error.h"
#include "shm/wire/frame.h"

struct kithi_conn {
    int fd;            /* -1: not connected */
    pid_t pid;         /* who connected: a forked child has no business on this socket */
    uint64_t tag;      /* of the last request */
    uint64_t knock;    /* of the request for a sign of life that is not answered yet; 0: none */
    unsigned char *in; /* bytes received: in_start..in_end are not yet taken */
    size_t in_start, in_end, in_capacity;
};

struct kithi_answer {
    struct kithi_reply head;
    uint64_t tag;
    uint32_t count;
    const char *text; /* head.text_len bytes; in the connection's buffer, until the next receive */
};

/* Is this what send and receive return for a peer that is gone? */
bool kithi_conn_is_gone(int code);

/* Not connected; needs no closing. */
void kithi_conn_init(struct kithi_conn *c);

/*
 * Connect to the daemon of run_dir and agree on the version; patience_ms bounds this and every
 * later wait for the daemon, 0 does not (a log on a busy disk takes its time). 0,
 * KITH_E_NO_DAEMON, KITH_E_DENIED, KITH_E_VERSION, KITH_E_RUN_DIR, -errno.
 */
int kithi_conn_open(struct kithi_conn *c, const char *run_dir, uint32_t patience_ms,
                    struct kithi_errmsg *err);

/* Another bound on every later wait for the daemon; 0: none. */
void kithi_conn_patience(struct kithi_conn *c, uint32_t patience_ms);

/* Accepts a connection that is not open. Leaves the peer's view of a parent's socket alone. */
void kithi_conn_close(struct kithi_conn *c);

static inline bool kithi_conn_is_open(const struct kithi_conn *c)
{
    return c->fd >= 0;
}

/*
 * One request and its answer. body: n pieces, n <= KITHI_CONN_PIECES, together a multiple of 8.
 * Returns 0 with *out filled, whatever the daemon's status is; KITH_E_TOO_LARGE; or, with the
 * connection closed, KITH_E_NO_DAEMON when the request did not leave whole, so that it cannot have been carried out,
 * KITH_E_UNKNOWN_OUTCOME when it did and no answer came, KITH_E_PROTOCOL, -errno.
 */
#define KITHI_CONN_PIECES 4
int kithi_conn_call(struct kithi_conn *c, uint16_t type, uint32_t count, const struct iovec *body, int n,
                    struct kithi_answer *out);

/*
 * The same for what may rightly take longer than anybody's patience. When that is over the daemon is asked for a sign of life,
 * and again each time it has given one; -EAGAIN, with the connection closed, when it has not within the same time once more.
 */
int kithi_conn_call_slow(struct kithi_conn *c, uint16_t type, const struct iovec *body, int n,
                         struct kithi_answer *out);

/* The same for a write. */
int kithi_conn_write(struct kithi_conn *c, enum kithi_durability durability, uint32_t count,
                     const struct iovec *body, int n, struct kithi_answer *out);

/* The header of the next request of len body bytes; its tag is c->tag afterwards. */
struct kithi_frame kithi_conn_frame(struct kithi_conn *c, uint16_t type, uint32_t count, size_t len);

/*
 * Send what *iov (*n pieces) holds and drop from it what was taken. Returns 1 when all is sent,
 * 0 when the socket is full (only with wait false), or -errno. *sent grows by the bytes that left.
 */
int kithi_conn_send(struct kithi_conn *c, struct iovec **iov, int *n, bool wait, size_t *sent);

/*
 * The next answer, whatever time the daemon takes for it: as kithi_conn_receive() with wait, with signs of life as of
 * kithi_conn_call_slow(); the connection stays open. -EAGAIN: there was none.
 */
int kithi_conn_receive_slow(struct kithi_conn *c, struct kithi_answer *out);

/* The next answer: 1; 0 when none is there (only with wait false); -EPIPE at the end of the stream,
 * -ECONNRESET when the peer closed without having read all that was sent, KITH_E_PROTOCOL for bytes that are
 * no answer, -errno. */
int kithi_conn_receive(struct kithi_conn *c, bool wait, struct kithi_answer *out);

#endif
