/*
 * secrets.c - see secrets.h.
 */
#include "server/gateway/secrets.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "server/base/log.h"

struct kithi_keyring {
    atomic_uint holders;
    struct kithi_keys keys;
};

const struct kithi_keys *kithi_keyring_keys(const struct kithi_keyring *ring)
{
    return &ring->keys;
}

struct kithi_keyring *kithi_keyring_hold(struct kithi_keyring *ring)
{
    if (ring) {
        /* Whoever holds one more holds one already. */
        atomic_fetch_add_explicit(&ring->holders, 1, memory_order_relaxed);
    }
    return ring;
}

void kithi_keyring_drop(struct kithi_keyring *ring)
{
    /* Both ways: what others did with the keys comes before the last one frees them. */
    if (ring && atomic_fetch_sub_explicit(&ring->holders, 1, memory_order_acq_rel) == 1) {
        kithi_keys_fini(&ring->keys);
        free(ring);
    }
}

static int read_keys(const char *path, struct kithi_keyring **out, struct kithi_errmsg *err)
{
    struct kithi_keyring *ring = calloc(1, sizeof *ring);
    int rc = ring ? kithi_keys_read(path, &ring->keys, err)
                  : kithi_error_set(err, -ENOMEM, "%s: there is no memory", path);
    if (rc < 0) {
        free(ring);
        return rc;
    }
    atomic_init(&ring->holders, 1);
    *out = ring;
    return 0;
}

int kithi_secrets_load(struct kithi_secrets *s, struct kithi_errmsg *err)
{
    int rc = s->keys_path ? read_keys(s->keys_path, &s->keyring, err) : 0;
    if (rc == 0 && s->tls_files.certificate) {
        rc = kithi_tls_load(&s->tls_files, s->alpn, &s->tls, err);
    }
    if (rc < 0) {
        kithi_secrets_fini(s);
    } else if (s->tls &&
               (time(NULL) > kithi_tls_not_after(s->tls) || time(NULL) < kithi_tls_not_before(s->tls))) {
        /* Not refused: what else is served needs no certificate. */
        kithi_log(KITHI_LOG_WARN, "certificate-not-valid",
                  "file=%s not_before=%" PRId64 " not_after=%" PRId64 " msg=clients will not take it",
                  s->tls_files.certificate, kithi_tls_not_before(s->tls), kithi_tls_not_after(s->tls));
    }
    return rc;
}

static bool reload_keys(struct kithi_secrets *s)
{
    struct kithi_errmsg err = { .text = "" };
    struct kithi_keyring *ring = NULL;
    if (read_keys(s->keys_path, &ring, &err) < 0) {
        kithi_log(KITHI_LOG_ERROR, "keys-kept", "msg=the keys from before stay in use: %s", err.text);
        return false;
    }
    kithi_keyring_drop(s->keyring);
    s->keyring = ring;
    kithi_log(KITHI_LOG_INFO, "keys-reloaded", "keys=%zu", ring->keys.count);
    return true;
}

static bool reload_tls(struct kithi_secrets *s)
{
    struct kithi_errmsg err = { .text = "" };
    struct kithi_tls *tls = NULL;
    int rc = kithi_tls_load(&s->tls_files, s->alpn, &tls, &err);
    int64_t now = time(NULL);
    if (rc == 0 && (now > kithi_tls_not_after(tls) || now < kithi_tls_not_before(tls))) {
        rc = kithi_error_set(&err, KITHI_E_FORMAT, "%s: the certificate is %s", s->tls_files.certificate,
                             now > kithi_tls_not_after(tls) ? "over" : "not valid yet");
    }
    if (rc < 0) {
        kithi_tls_free(tls);
        kithi_log(KITHI_LOG_ERROR, "certificate-kept", "msg=the certificate from before stays in use: %s",
                  err.text);
        return false;
    }
    kithi_tls_free(s->tls);
    s->tls = tls;
    kithi_log(KITHI_LOG_INFO, "certificate-reloaded", "not_after=%" PRId64, kithi_tls_not_after(tls));
    return true;
}

unsigned kithi_secrets_reload(struct kithi_secrets *s)
{
    unsigned refused = 0;
    if (!s->keys_path && !s->tls) {
        kithi_log(KITHI_LOG_INFO, "nothing-to-reload", "msg=there are neither keys nor a certificate");
    }
    if (s->keys_path) {
        refused += !reload_keys(s);
    }
    if (s->tls) {
        refused += !reload_tls(s);
    }
    return refused;
}

void kithi_secrets_fini(struct kithi_secrets *s)
{
    kithi_keyring_drop(s->keyring);
    kithi_tls_free(s->tls);
    s->keyring = NULL;
    s->tls = NULL;
}
