/*
 * test_stream.c - bytes that go through TLS come out the same, in whatever pieces they are taken; and how both kinds of stream end.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cmocka.h>

#include "server/gateway/stream.h"
#include "tests/support/tmp.h"

#define MANY (3u << 20)

static struct test_dir dir;
static char pem[600], key[600];
static unsigned char bytes[MANY], got[MANY];

/* A certificate that signs itself, for servers and clients. names: so many common names. */
static void make(const char *name, unsigned names, const char *end)
{
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    assert_true(pair && x);
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, pair);
    for (unsigned i = 0; i < names; i++) {
        X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, (const unsigned char *)name,
                                   -1, -1, 0);
    }
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "O", MBSTRING_UTF8, (const unsigned char *)"Kith",
                               -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_sign(x, pair, EVP_sha256());
    snprintf(pem, sizeof pem, "%s/%s.pem", dir.path, end);
    snprintf(key, sizeof key, "%s/%s.key", dir.path, end);
    FILE *f = fopen(pem, "w");
    assert_true(f && PEM_write_X509(f, x) == 1);
    fclose(f);
    f = fopen(key, "w");
    assert_true(f && PEM_write_PrivateKey(f, pair, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(f);
    chmod(key, 0600);
    X509_free(x);
    EVP_PKEY_free(pair);
}

/* A stream and its peer: plain, or a client of TLS that OpenSSL is. */
struct pair {
    struct kithi_stream stream;
    struct kithi_tls *tls;
    SSL_CTX *context;
    SSL *client;
    int fd;
};

static const char *offer = "\x02h2\x08http/1.1";

static void open_pair(struct pair *p, bool tls, bool certified)
{
    int fds[2], small = 4096;
    *p = (struct pair){ .fd = -1 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    p->fd = fds[1];
    if (!tls) {
        kithi_stream_plain(&p->stream, fds[0]);
        return;
    }
    const struct kithi_tls_files files = { .certificate = pem,
                                           .key = key,
                                           .client_ca = certified ? pem : NULL };
    struct kithi_errmsg err = { .text = "" };
    assert_int_equal(kithi_tls_load(&files, KITHI_ALPN_HTTP1 | KITHI_ALPN_H2, &p->tls, &err), 0);
    assert_int_equal(kithi_tls_knows_clients(p->tls), certified);
    assert_int_equal(kithi_stream_tls(&p->stream, fds[0], p->tls), 0);
    p->context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(p->context, SSL_MODE_ENABLE_PARTIAL_WRITE);
    if (certified) {
        SSL_CTX_use_certificate_file(p->context, pem, SSL_FILETYPE_PEM);
        SSL_CTX_use_PrivateKey_file(p->context, key, SSL_FILETYPE_PEM);
    }
    SSL_CTX_set_alpn_protos(p->context, (const unsigned char *)offer, (unsigned)strlen(offer));
    p->client = SSL_new(p->context);
    SSL_set_fd(p->client, p->fd);
    SSL_set_connect_state(p->client);
    for (int server = -EAGAIN, client = 0; server == -EAGAIN || client != 1;) {
        client = SSL_do_handshake(p->client);
        assert_false(server == 0 && kithi_stream_wants(&p->stream));
        server = kithi_stream_handshake(&p->stream);
        assert_true(server == 0 || server == -EAGAIN);
        if (server == -EAGAIN) {
            assert_int_equal(kithi_stream_wants(&p->stream), EPOLLIN);
        }
    }
}

static void close_pair(struct pair *p)
{
    kithi_stream_close(&p->stream);
    kithi_stream_close(&p->stream);
    kithi_tls_free(p->tls);
    SSL_free(p->client);
    SSL_CTX_free(p->context);
    close(p->fd);
}

static ssize_t client_read(struct pair *p, void *out, size_t size)
{
    if (!p->client) {
        return recv(p->fd, out, size, 0);
    }
    return SSL_read(p->client, out, (int)size);
}

static ssize_t client_write(struct pair *p, const void *from, size_t size)
{
    return p->client ? SSL_write(p->client, from, (int)size) : send(p->fd, from, size, MSG_NOSIGNAL);
}

static void fill(void)
{
    for (size_t i = 0; i < MANY; i++) {
        bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    }
    memset(got, 0, sizeof got);
}

/* Parts from two places, a moved copy of what could not be written, a peer that takes little at a time. */
static void send_all(struct pair *p)
{
    size_t sent = 0, read = 0, head = 1000;
    unsigned full = 0;
    unsigned char *moved = malloc(MANY);
    assert_non_null(moved);
    while (read < MANY) {
        if (sent < MANY) {
            memcpy(moved, bytes + sent, MANY - sent > 20000 ? 20000 : MANY - sent);
            struct iovec parts[2];
            size_t count = 0;
            if (sent < head) {
                parts[count++] = (struct iovec){ .iov_base = bytes + sent, .iov_len = head - sent };
                parts[count++] = (struct iovec){ .iov_base = bytes + head, .iov_len = MANY - head };
            } else {
                size_t n = MANY - sent > 20000 ? 20000 : MANY - sent;
                parts[count++] = (struct iovec){ .iov_base = full % 2 ? moved : bytes + sent, .iov_len = n };
            }
            ssize_t n = kithi_stream_write(&p->stream, parts, count);
            assert_true(n > 0 || n == -EAGAIN);
            if (n == -EAGAIN) {
                full++;
                assert_true(!p->client || kithi_stream_wants(&p->stream) == EPOLLOUT);
            }
            sent += n > 0 ? (size_t)n : 0;
        }
        ssize_t n = client_read(p, got + read, MANY - read > 3000 ? 3000 : MANY - read);
        read += n > 0 ? (size_t)n : 0;
    }
    free(moved);
    assert_true(full > 10);
    assert_memory_equal(bytes, got, MANY);
}

static void receive_all(struct pair *p)
{
    size_t sent = 0, read = 0;
    bool pending = false;
    while (read < MANY) {
        if (sent < MANY) {
            ssize_t n = client_write(p, bytes + sent, MANY - sent > 16000 ? 16000 : MANY - sent);
            sent += n > 0 ? (size_t)n : 0;
        }
        ssize_t n = kithi_stream_read(&p->stream, got + read, MANY - read > 777 ? 777 : MANY - read);
        assert_true(n > 0 || n == -EAGAIN);
        assert_true(n > 0 || !kithi_stream_pending(&p->stream));
        pending = pending || kithi_stream_pending(&p->stream);
        read += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(pending, p->client != NULL);
    assert_memory_equal(bytes, got, MANY);
}

static void bytes_are_the_same_in_whatever_pieces(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        struct pair p;
        open_pair(&p, tls, false);
        fill();
        send_all(&p);
        fill();
        receive_all(&p);
        close_pair(&p);
    }
}

static void an_end_is_told_and_reading_goes_on(void **state)
{
    (void)state;
    char text[8];
    for (int tls = 0; tls < 2; tls++) {
        struct pair p;
        open_pair(&p, tls, false);
        assert_int_equal(kithi_stream_read(&p.stream, text, sizeof text), -EAGAIN);
        assert_int_equal(kithi_stream_finish(&p.stream), 0);
        assert_int_equal(kithi_stream_finish(&p.stream), 0);
        assert_int_equal(client_read(&p, text, sizeof text), 0);
        if (tls) {
            assert_int_equal(SSL_get_error(p.client, 0), SSL_ERROR_ZERO_RETURN);
        }
        assert_int_equal(client_write(&p, "more", 4), 4);
        assert_int_equal(kithi_stream_read(&p.stream, text, sizeof text), 4);
        assert_memory_equal(text, "more", 4);
        if (tls) {
            SSL_shutdown(p.client);
        }
        shutdown(p.fd, SHUT_WR);
        assert_int_equal(kithi_stream_read(&p.stream, text, sizeof text), 0);
        close_pair(&p);
    }
}

static void a_peer_that_says_nothing_of_its_end_has_gone(void **state)
{
    (void)state;
    char text[8];
    struct pair p;
    open_pair(&p, true, false);
    shutdown(p.fd, SHUT_WR);
    assert_int_equal(kithi_stream_read(&p.stream, text, sizeof text), -ECONNRESET);
    close_pair(&p);
    /* What was cut ends without close_notify. */
    open_pair(&p, true, false);
    p.stream.broken = true;
    kithi_stream_close(&p.stream);
    int n = (int)client_read(&p, text, sizeof text);
    assert_true(n <= 0 && SSL_get_error(p.client, n) != SSL_ERROR_ZERO_RETURN);
    close_pair(&p);
}

static void a_handshake_that_fails_says_why(void **state)
{
    (void)state;
    struct pair p;
    open_pair(&p, true, false);
    struct kithi_stream bad;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(kithi_stream_tls(&bad, fds[0], p.tls), 0);
    assert_int_equal(kithi_stream_handshake(&bad), -EAGAIN);
    assert_int_equal(send(fds[1], "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    assert_int_equal(kithi_stream_handshake(&bad), -EPROTO);
    assert_non_null(strstr(bad.why, "http request"));
    kithi_stream_close(&bad);
    close(fds[1]);
    close_pair(&p);
}

static void h2_is_for_those_who_want_nothing_else(void **state)
{
    (void)state;
    const struct {
        const char *offer;
        enum kithi_alpn chosen;
    } list[] = { { "\x02h2", KITHI_ALPN_H2 },
                 { "\x08grpc-exp\x02h2", KITHI_ALPN_H2 },
                 { "\x02h2\x08http/1.1", KITHI_ALPN_HTTP1 },
                 { "\x08http/1.1", KITHI_ALPN_HTTP1 } };
    for (unsigned i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct pair p;
        offer = list[i].offer;
        open_pair(&p, true, false);
        assert_int_equal(kithi_stream_protocol(&p.stream), list[i].chosen);
        close_pair(&p);
    }
}

static void names_are_single_and_plain(void **state)
{
    (void)state;
    const struct {
        const char *name;
        unsigned times;
        bool good;
    } list[] = { { "reader.example.org", 1, true },
                 { "reader", 2, false },
                 { "reader", 0, false },
                 { "two words", 1, false },
                 { "fran\xc3\xa7ois", 1, false } };
    for (unsigned i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct pair p;
        char name[KITHI_TLS_NAME_MAX + 1];
        make(list[i].name, list[i].times, "client");
        open_pair(&p, true, true);
        assert_int_equal(kithi_stream_peer(&p.stream, name), list[i].good);
        if (list[i].good) {
            assert_string_equal(name, list[i].name);
        }
        close_pair(&p);
    }
    struct pair p;
    char name[KITHI_TLS_NAME_MAX + 1];
    open_pair(&p, true, false); /* nobody asked for one */
    assert_false(kithi_stream_peer(&p.stream, name));
    close_pair(&p);
    open_pair(&p, false, false);
    assert_false(kithi_stream_peer(&p.stream, name) || kithi_stream_pending(&p.stream));
    assert_int_equal(kithi_stream_handshake(&p.stream), 0);
    assert_int_equal(kithi_stream_protocol(&p.stream), KITHI_ALPN_HTTP1);
    close_pair(&p);
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    test_dir_make(&dir);
    make("localhost", 1, "server");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_dir_remove(&dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_same_in_whatever_pieces),
        cmocka_unit_test(an_end_is_told_and_reading_goes_on),
        cmocka_unit_test(a_peer_that_says_nothing_of_its_end_has_gone),
        cmocka_unit_test(a_handshake_that_fails_says_why),
        cmocka_unit_test(h2_is_for_those_who_want_nothing_else),
        cmocka_unit_test(names_are_single_and_plain),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
