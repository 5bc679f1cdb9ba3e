/*
 * tls.h - what TLS is spoken with: certificate, private key, who may connect, and which protocols are offered (OpenSSL).
 *
 * TLS 1.2 and 1.3, forward secrecy and authenticated encryption only; no renegotiation, no compression, no early data, and no resumption: there
 * is no ticket key and no stored session by which what was recorded could be read later, and a client whose certificate is no longer
 * taken does not come in by a session from before. Clients keep their connections instead.
 *
 * Files are read once, here. To take new ones is to load another one of these; connections that are open go on with theirs.
 *
 * Threads: a loaded one is used by one thread at a time.
 */
#ifndef KITHI_GATEWAY_TLS_H
#define KITHI_GATEWAY_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/base/error.h"

#define KITHI_TLS_NAME_MAX 64u /* characters of a common name, as X.520 has it */

/* Protocols over TLS, by ALPN (RFC 7301), as bits. A client that names none speaks HTTP/1.1. */
enum kithi_alpn { KITHI_ALPN_HTTP1 = 1, KITHI_ALPN_H2 = 2 };

struct kithi_tls_files {
    const char *certificate; /* PEM: the server's, and the ones between it and the root */
    const char *key;         /* PEM, without a passphrase; only its owner and group may have access */
    const char *
        client_ca; /* PEM: a client's certificate is required, and is of one of these; NULL: none is asked for */
};

struct kithi_tls;

/*
 * Load. alpn: enum kithi_alpn, those that are offered; when a client offers both, it is http/1.1: over HTTP/2 there is gRPC alone, whose clients
 * offer nothing else, and browsers and curl, which offer both, come for the rest. 0; -errno or KITHI_E_FORMAT: err says
 * which file, what is wrong and what to do, and never anything of the key.
 */
int kithi_tls_load(const struct kithi_tls_files *files, unsigned alpn, struct kithi_tls **out,
                   struct kithi_errmsg *err);
/* Accepts NULL. Connections that were begun with it go on. */
void kithi_tls_free(struct kithi_tls *t);

/* Seconds since 1970 from and until when the certificate is good, both inclusive. */
int64_t kithi_tls_not_before(const struct kithi_tls *t);
int64_t kithi_tls_not_after(const struct kithi_tls *t);
/* Does it require certificates? */
bool kithi_tls_knows_clients(const struct kithi_tls *t);

#endif
