/*
 * secrets.h - what is read from files that their owner changes while the gateway runs: API keys, and what TLS is spoken with.
 *
 * At SIGHUP they are read again. Keys, and certificate with all that belongs to it, are each taken as a whole or not at all: what is bad is
 * refused with a line in the log, and what was there goes on. Requests and connections that have begun keep what they began with.
 *
 * Threads: all of it is the socket thread's, but that a ring of keys may be dropped by any.
 */
#ifndef KITHI_GATEWAY_SECRETS_H
#define KITHI_GATEWAY_SECRETS_H

#include "server/gateway/keys.h"
#include "server/gateway/tls.h"
#include "shm/base/error.h"

/* The keys of one reading of the file, kept by those who hold it. */
struct kithi_keyring;
const struct kithi_keys *kithi_keyring_keys(const struct kithi_keyring *ring);
/* Accept NULL. */
struct kithi_keyring *kithi_keyring_hold(struct kithi_keyring *ring);
void kithi_keyring_drop(struct kithi_keyring *ring);

struct kithi_secrets {
    const char *keys_path;            /* NULL: everybody may do everything */
    struct kithi_tls_files tls_files; /* certificate NULL: no TLS */
    unsigned alpn;                    /* enum kithi_alpn */
    struct kithi_keyring *keyring;    /* NULL without keys_path */
    struct kithi_tls *tls;            /* NULL without a certificate */
};

/* Read what the paths name. 0; or -errno or KITHI_E_FORMAT with err, and nothing is read. */
int kithi_secrets_load(struct kithi_secrets *s, struct kithi_errmsg *err);
/* The same again; logs how it went. How many were refused: 0 to 2. */
unsigned kithi_secrets_reload(struct kithi_secrets *s);
void kithi_secrets_fini(struct kithi_secrets *s);

#endif
