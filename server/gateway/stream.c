/*
 * stream.c - see stream.h.
 */
#include "server/gateway/stream.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/gateway/tls_priv.h"

#define RECORD_MAX 16384u /* bytes of a record of TLS */

void kithi_stream_plain(struct kithi_stream *s, int fd)
{
    *s = (struct kithi_stream){ .fd = fd, .established = true };
}

int kithi_stream_tls(struct kithi_stream *s, int fd, struct kithi_tls *tls)
{
    SSL *ssl = SSL_new(tls->context);
    if (!ssl || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        ERR_clear_error();
        return -ENOMEM;
    }
    SSL_set_accept_state(ssl);
    *s = (struct kithi_stream){ .fd = fd, .ssl = ssl, .wants = EPOLLIN };
    return 0;
}

/* What a call of OpenSSL that returned rc came to: 0: the end; -EAGAIN with s->wants; -errno, and s is broken but after a reset. */
static int outcome(struct kithi_stream *s, int rc)
{
    int saved = errno;
    switch (SSL_get_error(s->ssl, rc)) {
    case SSL_ERROR_WANT_READ: s->wants = EPOLLIN; return -EAGAIN;
    case SSL_ERROR_WANT_WRITE: s->wants = EPOLLOUT; return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL: s->broken = true; return saved ? -saved : -ECONNRESET;
    default: s->broken = true; break;
    }
    /* What is asked for carries its own length, so that a stream which just ends is no forgery, only a client that went away. */
    return ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING ? -ECONNRESET : -EPROTO;
}

int kithi_stream_handshake(struct kithi_stream *s)
{
    if (s->established) {
        return 0;
    }
    ERR_clear_error();
    errno = 0;
    int rc = SSL_do_handshake(s->ssl);
    if (rc == 1) {
        s->established = true;
        s->wants = 0;
        return 0;
    }
    rc = outcome(s, rc);
    if (rc == -EAGAIN) {
        return rc;
    }
    long verified = SSL_get_verify_result(s->ssl);
    char reason[sizeof s->why];
    kithi_tls_reason(reason, sizeof reason);
    if (rc == -EPROTO && verified != X509_V_OK) {
        snprintf(s->why, sizeof s->why, "%s", X509_verify_cert_error_string(verified));
    } else {
        snprintf(s->why, sizeof s->why, "%s", reason[0] && rc == -EPROTO ? reason : "the peer went away");
    }
    return rc == -EPROTO ? rc : -ECONNRESET;
}

enum kithi_alpn kithi_stream_protocol(const struct kithi_stream *s)
{
    const unsigned char *name = NULL;
    unsigned len = 0;
    if (s->ssl) {
        SSL_get0_alpn_selected(s->ssl, &name, &len);
    }
    return len == 2 && !memcmp(name, "h2", 2) ? KITHI_ALPN_H2 : KITHI_ALPN_HTTP1;
}

bool kithi_stream_peer(const struct kithi_stream *s, char out[KITHI_TLS_NAME_MAX + 1])
{
    X509 *certificate = s->ssl ? SSL_get0_peer_certificate(s->ssl) : NULL;
    if (!certificate || SSL_get_verify_result(s->ssl) != X509_V_OK) {
        return false;
    }
    X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0) {
        return false;
    }
    unsigned char *text = NULL;
    int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    bool good = len > 0 && len <= (int)KITHI_TLS_NAME_MAX;
    for (int i = 0; good && i < len; i++) {
        good = text[i] > 0x20 && text[i] < 0x7f;
    }
    if (good) {
        memcpy(out, text, (size_t)len);
        out[len] = 0;
    }
    OPENSSL_free(text);
    ERR_clear_error();
    return good;
}

ssize_t kithi_stream_read(struct kithi_stream *s, void *out, size_t size)
{
    ssize_t n;
    s->wants = 0;
    if (!s->ssl) {
        do {
            n = recv(s->fd, out, size, 0);
        } while (n < 0 && errno == EINTR);
        return n >= 0 ? n : errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
    ERR_clear_error();
    errno = 0;
    int rc = SSL_read(s->ssl, out, size < RECORD_MAX ? (int)size : (int)RECORD_MAX);
    return rc > 0 ? rc : outcome(s, rc);
}

/* Through TLS each record costs 22 bytes, a pass of its own and often a segment: small parts go in one. The same parts make the same record. */
static int write_record(struct kithi_stream *s, const struct iovec *parts, size_t count)
{
    unsigned char record[RECORD_MAX];
    size_t len = 0;
    while (count > 1 && parts->iov_len == 0) {
        parts++;
        count--;
    }
    if (count == 1 || parts->iov_len >= sizeof record) {
        len = parts->iov_len < sizeof record ? parts->iov_len : sizeof record;
        return SSL_write(s->ssl, parts->iov_base, (int)len);
    }
    for (size_t i = 0; i < count && len < sizeof record; i++) {
        size_t n = parts[i].iov_len < sizeof record - len ? parts[i].iov_len : sizeof record - len;
        memcpy(record + len, parts[i].iov_base, n);
        len += n;
    }
    return SSL_write(s->ssl, record, (int)len);
}

ssize_t kithi_stream_write(struct kithi_stream *s, const struct iovec *parts, size_t count)
{
    s->wants = 0;
    if (!s->ssl) {
        struct msghdr message = { .msg_iov = (struct iovec *)parts, .msg_iovlen = count };
        ssize_t n;
        do {
            n = sendmsg(s->fd, &message, MSG_NOSIGNAL);
        } while (n < 0 && errno == EINTR);
        return n >= 0 ? n : errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
    ERR_clear_error();
    errno = 0;
    int rc = write_record(s, parts, count);
    if (rc > 0) {
        return rc;
    }
    rc = outcome(s, rc);
    return rc ? rc : -EPIPE;
}

bool kithi_stream_pending(const struct kithi_stream *s)
{
    return s->ssl && s->established && SSL_pending(s->ssl) > 0;
}

uint32_t kithi_stream_wants(const struct kithi_stream *s)
{
    return s->wants;
}

int kithi_stream_finish(struct kithi_stream *s)
{
    if (s->finished) {
        return 0;
    }
    if (s->ssl && s->established && !s->broken) {
        ERR_clear_error();
        int rc = SSL_shutdown(s->ssl); /* 0: it is sent, and the peer's has not come */
        if (rc < 0 && outcome(s, rc) == -EAGAIN && s->wants == EPOLLOUT) {
            return -EAGAIN;
        }
        s->wants = 0;
    }
    s->finished = true;
    shutdown(s->fd, SHUT_WR);
    return 0;
}

void kithi_stream_close(struct kithi_stream *s)
{
    if (s->fd < 0) {
        return;
    }
    if (s->ssl) {
        kithi_stream_finish(s);
        SSL_free(s->ssl);
        ERR_clear_error();
        s->ssl = NULL;
    }
    close(s->fd);
    s->fd = -1;
}
