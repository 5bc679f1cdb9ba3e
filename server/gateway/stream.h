/*
 * stream.h - the bytes of a connection, as they are or through TLS: nothing here waits, and nothing above sees the difference.
 *
 *   kithi_stream_plain() ----------------------------------> open --kithi_stream_finish()--> finished
 *   kithi_stream_tls() --kithi_stream_handshake()--> 0 -------^
 *                          \--> -EAGAIN: again when epoll says kithi_stream_wants()
 *
 * What holds for whoever has a loop:
 *   - After each call look at kithi_stream_wants(): TLS may have to write in order to read, and the other way round.
 *   - Bytes may be here that no socket tells of: as long as kithi_stream_pending(), a read gives some at once.
 *   - A write that said -EAGAIN goes on with the same bytes: those at the front that were not taken, wherever they are by now, and more
 *     behind them, or the same end. (TLS has made a record of them.)
 *   - SIGPIPE is ignored in the process.
 *
 * Threads: one at a time.
 */
#ifndef KITHI_GATEWAY_STREAM_H
#define KITHI_GATEWAY_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "server/gateway/tls.h"

struct kithi_stream {
    int fd;           /* -1: none; closed with the stream */
    void *ssl;        /* OpenSSL's; NULL: as they are */
    uint32_t wants;   /* epoll events beyond what the caller waits for anyway */
    bool established; /* no handshake is due */
    bool broken;      /* TLS has failed: nothing is sent any more */
    bool finished;
    char why[96]; /* of a handshake that failed */
};

void kithi_stream_plain(struct kithi_stream *s, int fd);
/* As a server. 0 or -ENOMEM, and fd is still the caller's. */
int kithi_stream_tls(struct kithi_stream *s, int fd, struct kithi_tls *tls);

/* Go on with the handshake. 0: it is done, or there is none; -EAGAIN; -EPROTO: it failed, s->why says how; -ECONNRESET: the peer went away. */
int kithi_stream_handshake(struct kithi_stream *s);
/* What was agreed on; KITHI_ALPN_HTTP1 when nothing was. */
enum kithi_alpn kithi_stream_protocol(const struct kithi_stream *s);
/*
 * The common name in the subject of the peer's certificate, which was verified: 1 to KITHI_TLS_NAME_MAX printable characters of ASCII without
 * blanks. False: no certificate, no such name, or more than one.
 */
bool kithi_stream_peer(const struct kithi_stream *s, char out[KITHI_TLS_NAME_MAX + 1]);

/* Bytes that were read; 0: the peer sends no more; -EAGAIN; -errno. */
ssize_t kithi_stream_read(struct kithi_stream *s, void *out, size_t size);
/* Bytes of the parts that were taken, from the first on, at least one; -EAGAIN; -errno. At least one part has bytes. */
ssize_t kithi_stream_write(struct kithi_stream *s, const struct iovec *parts, size_t count);
/* A read gives bytes without any from the socket? */
bool kithi_stream_pending(const struct kithi_stream *s);
/* EPOLLIN or EPOLLOUT when the last call could not go on without: to be waited for in place of what one would wait for; 0: nothing special. */
uint32_t kithi_stream_wants(const struct kithi_stream *s);

/* Tell the peer that no more comes (close_notify, and the end of the TCP stream); reading goes on. 0, or -EAGAIN: again, when it can be written. */
int kithi_stream_finish(struct kithi_stream *s);
/* Close; a peer that was not told by kithi_stream_finish() is, if there is room for it. Accepts one that is closed. */
void kithi_stream_close(struct kithi_stream *s);

#endif
