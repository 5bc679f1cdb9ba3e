/*
 * tls.c - see tls.h.
 */
#include "server/gateway/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/gateway/tls_priv.h"

/* Bytes of a file: a key of RSA with 16384 bits has 13 KB, a bundle of all public roots 220 KB. */
#define FILE_MAX (1u << 20)
/* Bytes of a client's certificates: a chain of four with long names has 8 KB. */
#define CHAIN_MAX (32 * 1024)
#define DEPTH_MAX 4

const char *kithi_tls_reason(char *out, size_t size)
{
    unsigned long code = ERR_get_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    snprintf(out, size, "%s", reason ? reason : "");
    ERR_clear_error();
    return out;
}

static int wrong(struct kithi_errmsg *err, const char *path, const char *what)
{
    char reason[128];
    kithi_tls_reason(reason, sizeof reason);
    return kithi_error_set(err, KITHI_E_FORMAT, "%s: %s%s%s", path, what, reason[0] ? ": " : "", reason);
}

/* The whole file. secret: nobody but owner and group may have access. 0 or -errno; *out is to be freed, and wiped when secret. */
static int slurp(const char *path, bool secret, char **out, size_t *out_len, struct kithi_errmsg *err)
{
    struct stat st;
    char *text = NULL;
    size_t len = 0;
    ssize_t n = 0;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = kithi_error_set(err, -errno, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = kithi_error_set(err, -EINVAL, "%s: it is no file", path);
        goto out;
    }
    if (secret && st.st_mode & S_IRWXO) {
        rc = kithi_error_set(err, -EACCES,
                             "%s: others may use the private key; chmod 0640 it, or 0600, and let "
                             "kith-gateway's user own it or be of its group",
                             path);
        goto out;
    }
    text = malloc(FILE_MAX + 1);
    while (text && len <= FILE_MAX && (n = read(fd, text + len, FILE_MAX + 1 - len)) > 0) {
        len += (size_t)n;
    }
    if (!text || n < 0) {
        rc = kithi_error_set(err, text ? -errno : -ENOMEM, "%s: it cannot be read: %s", path,
                             strerror(text ? errno : ENOMEM));
    } else if (len > FILE_MAX) {
        rc = kithi_error_set(err, KITHI_E_FORMAT, "%s: it is larger than 1 MiB", path);
    } else {
        *out = text;
        *out_len = len;
        text = NULL;
    }
out:
    if (text) {
        OPENSSL_cleanse(text, len);
        free(text);
    }
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

/* Certificates of a file, in their order; NULL with err. */
static STACK_OF(X509) * certificates(const char *path, struct kithi_errmsg *err)
{
    char *text = NULL;
    size_t len = 0;
    if (slurp(path, false, &text, &len, err) < 0) {
        return NULL;
    }
    BIO *bio = BIO_new_mem_buf(text, (int)len);
    STACK_OF(X509) *list = sk_X509_new_null();
    X509 *one;
    while (bio && list && (one = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        if (!sk_X509_push(list, one)) {
            X509_free(one);
            break;
        }
    }
    BIO_free(bio);
    free(text);
    unsigned long last = ERR_peek_last_error();
    if (!list || sk_X509_num(list) == 0) {
        ERR_clear_error();
        wrong(err, path, "there is no certificate in it; it is one or more in PEM");
    } else if (ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE) {
        ERR_clear_error(); /* the end of the file */
        return list;
    } else {
        wrong(err, path, "a certificate in it is damaged");
    }
    sk_X509_pop_free(list, X509_free);
    return NULL;
}

/* OpenSSL would ask at the terminal. */
static int no_passphrase(char *buffer, int size, int writing, void *arg)
{
    (void)buffer, (void)size, (void)writing;
    *(bool *)arg = true;
    return -1;
}

static int load_key(SSL_CTX *context, const char *path, struct kithi_errmsg *err)
{
    char *text = NULL;
    size_t len = 0;
    bool locked = false;
    int rc = slurp(path, true, &text, &len, err);
    if (rc < 0) {
        return rc;
    }
    BIO *bio = BIO_new_mem_buf(text, (int)len);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &locked) : NULL;
    if (locked) {
        ERR_clear_error();
        rc = wrong(err, path,
                   "the private key has a passphrase; give it without one (openssl pkey -in ... -out ...)");
    } else if (!key) {
        ERR_clear_error();
        rc = wrong(err, path, "there is no private key in it that can be read; it is one in PEM");
    } else if (SSL_CTX_use_PrivateKey(context, key) != 1) {
        rc = wrong(err, path, "the private key does not belong to the certificate, or is too weak");
    }
    EVP_PKEY_free(key);
    BIO_free(bio);
    OPENSSL_cleanse(text, len);
    free(text);
    return rc;
}

static int64_t seconds(const ASN1_TIME *at)
{
    struct tm tm;
    return ASN1_TIME_to_tm(at, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static int load_certificate(struct kithi_tls *t, const char *path, struct kithi_errmsg *err)
{
    STACK_OF(X509) *list = certificates(path, err);
    int rc = 0;
    if (!list) {
        return err && err->code ? err->code : -EINVAL;
    }
    X509 *own = sk_X509_value(list, 0);
    t->not_before = seconds(X509_get0_notBefore(own));
    t->not_after = seconds(X509_get0_notAfter(own));
    if (SSL_CTX_use_certificate(t->context, own) != 1) {
        rc = wrong(err, path, "the certificate cannot be used");
    }
    for (int i = 1; rc == 0 && i < sk_X509_num(list); i++) {
        if (SSL_CTX_add1_chain_cert(t->context, sk_X509_value(list, i)) != 1) {
            rc = wrong(err, path, "a certificate of the chain cannot be used");
        }
    }
    sk_X509_pop_free(list, X509_free);
    return rc;
}

static int load_client_ca(struct kithi_tls *t, const char *path, struct kithi_errmsg *err)
{
    STACK_OF(X509) *list = certificates(path, err);
    X509_STORE *store = SSL_CTX_get_cert_store(t->context);
    int rc = 0;
    if (!list) {
        return err && err->code ? err->code : -EINVAL;
    }
    for (int i = 0; rc == 0 && i < sk_X509_num(list); i++) {
        if (X509_STORE_add_cert(store, sk_X509_value(list, i)) != 1 ||
            SSL_CTX_add_client_CA(t->context, sk_X509_value(list, i)) != 1) {
            rc = wrong(err, path, "a certificate in it cannot be used");
        }
    }
    sk_X509_pop_free(list, X509_free);
    SSL_CTX_set_verify(t->context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_verify_depth(t->context, DEPTH_MAX);
    SSL_CTX_set_max_cert_list(t->context, CHAIN_MAX);
    t->knows_clients = true;
    return rc;
}

/* The client's list has a byte of length before each name. One that names only what is not offered is told so, and not served. */
static int choose(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *list,
                  unsigned len, void *arg)
{
    const struct {
        unsigned bit;
        const char *name;
    } ours[] = { { KITHI_ALPN_HTTP1, "http/1.1" }, { KITHI_ALPN_H2, "h2" } };
    unsigned offered = (unsigned)(uintptr_t)arg;
    (void)ssl;
    for (unsigned i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        size_t want = strlen(ours[i].name);
        for (unsigned at = 0; offered & ours[i].bit && at < len; at += 1u + list[at]) {
            if (list[at] == want && at + 1 + want <= len && !memcmp(list + at + 1, ours[i].name, want)) {
                *out = list + at + 1;
                *out_len = list[at];
                return SSL_TLSEXT_ERR_OK;
            }
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* What is the same for all. True when OpenSSL takes it. */
static bool set_up(SSL_CTX *context, unsigned alpn)
{
    static const unsigned char id[] = "kith-gateway";
    SSL_CTX_set_security_level(context, 2); /* 112 bits: RSA from 2048, no SHA-1 */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    /* Of one record a call, so that a client which sends none but those that carry nothing holds nobody up; writes go on where
     * they were from the same bytes at another place; what rests keeps no buffers; and of whom clients may be is not what we are of. */
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_alpn_select_cb(context, choose, (void *)(uintptr_t)alpn);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1 &&
           SSL_CTX_set_num_tickets(context, 0) == 1 && SSL_CTX_set_max_early_data(context, 0) == 1 &&
           SSL_CTX_set_session_id_context(context, id, sizeof id - 1) == 1;
}

int kithi_tls_load(const struct kithi_tls_files *files, unsigned alpn, struct kithi_tls **out,
                   struct kithi_errmsg *err)
{
    struct kithi_errmsg own = { .text = "" };
    struct kithi_tls *t = calloc(1, sizeof *t);
    int rc = 0;
    err = err ? err : &own;
    ERR_clear_error();
    if (t) {
        t->context = SSL_CTX_new(TLS_server_method());
        t->alpn = alpn;
    }
    if (!t || !t->context) {
        rc = kithi_error_set(err, -ENOMEM, "there is no memory for TLS");
    } else if (!set_up(t->context, alpn)) {
        rc = wrong(err, "TLS", "OpenSSL, as it is configured here, does not take what kith-gateway wants");
    }
    rc = rc < 0 ? rc : load_certificate(t, files->certificate, err);
    rc = rc < 0 ? rc : load_key(t->context, files->key, err);
    rc = rc < 0 || !files->client_ca ? rc : load_client_ca(t, files->client_ca, err);
    ERR_clear_error();
    if (rc < 0) {
        kithi_tls_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void kithi_tls_free(struct kithi_tls *t)
{
    if (t) {
        SSL_CTX_free(t->context);
        free(t);
    }
}

int64_t kithi_tls_not_before(const struct kithi_tls *t)
{
    return t->not_before;
}

int64_t kithi_tls_not_after(const struct kithi_tls *t)
{
    return t->not_after;
}

bool kithi_tls_knows_clients(const struct kithi_tls *t)
{
    return t->knows_clients;
}
