/*
 * keys.h - who may do what: API keys from a file, and which requests are taken without any.
 *
 *   # name  rights  collections  key
 *   loader  write   docs,notes   kZ8yq0...
 *   site    read    *            n1Bf3s...
 *
 *   site2   read    *            cert:site.example.org
 *
 * A line has four words: a name for the log, read or write (which includes read), the collections with commas between them or * for
 * all, and the key, 16 to 128 characters of printable ASCII, or cert: and the common name in
 * the subject of a client's certificate (which TLS has verified), of 1 to 64 such characters. Names and keys occur once. The file must not be readable by others.
 *
 * A presented key is compared with all keys there are, each in the same time whatever the bytes are.
 *
 * Threads: keys are only read once they are loaded.
 */
#ifndef KITHI_GATEWAY_KEYS_H
#define KITHI_GATEWAY_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "server/gateway/http.h"
#include "shm/base/error.h"

#define KITHI_KEY_MIN       16u
#define KITHI_KEY_MAX       128u
#define KITHI_KEY_NAME_MAX  32u
#define KITHI_KEY_CERT_MAX  64u
#define KITHI_KEYS_FILE_MAX (1u << 20)

struct kithi_key {
    char name[KITHI_KEY_NAME_MAX + 1];
    char key[KITHI_KEY_MAX]; /* zeros behind */
    bool certificate;        /* key is a common name, and nothing that can be presented */
    bool writes;
    char *collections; /* ",docs,notes," or "*" */
};

struct kithi_keys {
    struct kithi_key *list;
    size_t count;
};

/* 0, -errno or KITHI_E_FORMAT; err says file, line and what is wrong, and never the key. */
int kithi_keys_read(const char *path, struct kithi_keys *out, struct kithi_errmsg *err);
/* The same of text that was read. */
int kithi_keys_parse(const char *path, const char *text, size_t len, struct kithi_keys *out,
                     struct kithi_errmsg *err);
void kithi_keys_fini(struct kithi_keys *k);

/* The key that a request presents: of "Authorization: Bearer KEY" or of X-API-Key; at NULL: none. False: both, and not the same, or another scheme. */
bool kithi_keys_presented(const struct kithi_http_head *head, struct kithi_part *out);

/* The entry of a presented key; NULL: there is none. */
const struct kithi_key *kithi_keys_find(const struct kithi_keys *keys, struct kithi_part presented);

/* The entry of a certificate with that common name; NULL: there is none. "" has none. */
const struct kithi_key *kithi_keys_certified(const struct kithi_keys *keys, const char *name);

/* May it? collection NULL: all of them. */
bool kithi_key_allows(const struct kithi_key *key, const char *collection, bool write);

/*
 * Without keys whoever reaches the port may do everything, and that must not be a page in somebody's browser: a request that a
 * browser makes for another site says so (Origin, Sec-Fetch-Site), and one that was led here by a name that was bound to a
 * loopback address has that name as its Host. A page that comes from here itself, which is the status page, names this host as its Origin,
 * and may ask for what writes nothing. NULL, or a sentence why it is refused.
 */
const char *kithi_keys_stranger(const struct kithi_http_head *head, bool loopback, bool writes);

#endif
