/*
 * tls_priv.h - OpenSSL's objects, for stream.c alone.
 */
#ifndef KITHI_GATEWAY_TLS_PRIV_H
#define KITHI_GATEWAY_TLS_PRIV_H

#include <openssl/ssl.h>

#include "server/gateway/tls.h"

struct kithi_tls {
    SSL_CTX *context; /* counted by OpenSSL: each connection holds it, too */
    unsigned alpn;
    bool knows_clients;
    int64_t not_before, not_after;
};

/* The oldest error of this thread's queue as a few words, which is emptied; "" when there is none. */
const char *kithi_tls_reason(char *out, size_t size);

#endif
