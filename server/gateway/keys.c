/*
 * keys.c - see keys.h.
 */
#include "server/gateway/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/base/id.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next word of a line; len 0: there is none. */
static struct kithi_part word(struct kithi_part *line)
{
    while (line->len && is_blank(line->at[0])) {
        line->at++;
        line->len--;
    }
    struct kithi_part out = { line->at, 0 };
    while (line->len && !is_blank(line->at[0])) {
        line->at++;
        line->len--;
        out.len++;
    }
    return out;
}

static bool same(struct kithi_part part, const char *text)
{
    return strlen(text) == part.len && !memcmp(part.at, text, part.len);
}

/* "a,b" as ",a,b,"; NULL with errno EINVAL or ENOMEM. */
static char *collections(struct kithi_part part)
{
    char *out = malloc(part.len + 3);
    errno = ENOMEM;
    if (!out) {
        return NULL;
    }
    if (same(part, "*")) {
        memcpy(out, "*", 2);
        return out;
    }
    out[0] = ',';
    memcpy(out + 1, part.at, part.len);
    memcpy(out + 1 + part.len, ",", 2);
    for (const char *name = out + 1; *name;) {
        const char *comma = strchr(name, ',');
        if (!kithi_name_valid(name, (size_t)(comma - name))) {
            free(out);
            errno = EINVAL;
            return NULL;
        }
        name = comma + 1;
    }
    return out;
}

/* One line. NULL, or what is wrong with it. */
static const char *entry(struct kithi_keys *keys, struct kithi_part line)
{
    struct kithi_part name = word(&line), rights = word(&line), names = word(&line), key = word(&line);
    struct kithi_key *k = &keys->list[keys->count];
    static const char cert[] = "cert:";
    if (name.len == 0 || name.len > KITHI_KEY_NAME_MAX) {
        return "a line has a name of 1 to 32 bytes, read or write, collections or *, and a key";
    }
    if (!same(rights, "read") && !same(rights, "write")) {
        return "the second word is neither read nor write";
    }
    bool certificate = key.len > sizeof cert - 1 && !memcmp(key.at, cert, sizeof cert - 1);
    if (certificate) {
        key.at += sizeof cert - 1;
        key.len -= sizeof cert - 1;
    }
    if (certificate && key.len > KITHI_KEY_CERT_MAX) {
        return "the fourth word, the common name of a certificate, has more than 64 characters";
    }
    if (!certificate && (key.len < KITHI_KEY_MIN || key.len > KITHI_KEY_MAX)) {
        return "the fourth word, the key, is not of 16 to 128 characters";
    }
    for (size_t i = 0; i < key.len; i++) {
        if (key.at[i] <= 0x20 || key.at[i] >= 0x7f) {
            return "the key has a character that is not printable ASCII";
        }
    }
    if (word(&line).len) {
        return "there is a fifth word";
    }
    *k = (struct kithi_key){ .writes = same(rights, "write"), .certificate = certificate };
    memcpy(k->name, name.at, name.len);
    memcpy(k->key, key.at, key.len);
    for (size_t i = 0; i < keys->count; i++) {
        if (!strcmp(keys->list[i].name, k->name) ||
            (keys->list[i].certificate == certificate && !memcmp(keys->list[i].key, k->key, sizeof k->key))) {
            return "its name or its key is there twice";
        }
    }
    k->collections = collections(names);
    if (!k->collections) {
        return errno == EINVAL
                   ? "the third word is neither * nor names of collections with commas between them"
                   : "there is no memory";
    }
    keys->count++;
    return NULL;
}

int kithi_keys_parse(const char *path, const char *text, size_t len, struct kithi_keys *out,
                     struct kithi_errmsg *err)
{
    size_t lines = 1;
    for (size_t i = 0; i < len; i++) {
        lines += text[i] == '\n';
    }
    struct kithi_keys keys = { calloc(lines, sizeof *keys.list), 0 };
    if (!keys.list) {
        return kithi_error_set(err, -ENOMEM, "%s: there is no memory", path);
    }
    size_t number = 0;
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        struct kithi_part line = { text + at, end ? (size_t)(end - text) - at : len - at };
        at += line.len + 1;
        number++;
        struct kithi_part peek = line, first = word(&peek);
        if (first.len == 0 || first.at[0] == '#') {
            continue;
        }
        const char *wrong = entry(&keys, line);
        if (wrong) {
            kithi_keys_fini(&keys);
            return kithi_error_set(err, KITHI_E_FORMAT, "%s:%zu: %s", path, number, wrong);
        }
    }
    if (keys.count == 0) {
        kithi_keys_fini(&keys);
        return kithi_error_set(err, KITHI_E_FORMAT, "%s: there is no key in it", path);
    }
    *out = keys;
    return 0;
}

int kithi_keys_read(const char *path, struct kithi_keys *out, struct kithi_errmsg *err)
{
    struct stat st;
    char *text = NULL;
    ssize_t n = 0;
    size_t len = 0;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = kithi_error_set(err, -errno, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_mode & S_IRWXO) {
        rc = kithi_error_set(err, -EACCES, "%s: others may use it; chmod 0640 it", path);
        goto out;
    }
    text = malloc(KITHI_KEYS_FILE_MAX + 1);
    while (text && len <= KITHI_KEYS_FILE_MAX &&
           (n = read(fd, text + len, KITHI_KEYS_FILE_MAX + 1 - len)) > 0) {
        len += (size_t)n;
    }
    if (!text || n < 0) {
        rc = kithi_error_set(err, text ? -errno : -ENOMEM, "%s: it cannot be read", path);
    } else if (len > KITHI_KEYS_FILE_MAX) {
        rc = kithi_error_set(err, KITHI_E_FORMAT, "%s: it is larger than 1 MiB", path);
    } else {
        rc = kithi_keys_parse(path, text, len, out, err);
    }
out:
    free(text);
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

void kithi_keys_fini(struct kithi_keys *k)
{
    for (size_t i = 0; i < k->count; i++) {
        free(k->list[i].collections);
    }
    free(k->list);
    *k = (struct kithi_keys){ NULL, 0 };
}

bool kithi_keys_presented(const struct kithi_http_head *head, struct kithi_part *out)
{
    static const char scheme[] = "Bearer ";
    *out = head->api_key;
    if (!head->authorization.at) {
        return true;
    }
    struct kithi_part bearer = head->authorization;
    if (bearer.len < sizeof scheme - 1 || strncasecmp(bearer.at, scheme, sizeof scheme - 1) != 0) {
        return false;
    }
    bearer.at += sizeof scheme - 1;
    bearer.len -= sizeof scheme - 1;
    if (out->at && (out->len != bearer.len || memcmp(out->at, bearer.at, bearer.len) != 0)) {
        return false;
    }
    *out = bearer;
    return true;
}

const struct kithi_key *kithi_keys_find(const struct kithi_keys *keys, struct kithi_part presented)
{
    char padded[KITHI_KEY_MAX] = { 0 };
    const struct kithi_key *found = NULL;
    if (!presented.at || presented.len > sizeof padded || memchr(presented.at, 0, presented.len)) {
        return NULL;
    }
    memcpy(padded, presented.at, presented.len);
    for (size_t i = 0; i < keys->count; i++) {
        /* volatile: all bytes are looked at, whatever the compiler knows. */
        volatile unsigned char differ = 0;
        for (size_t k = 0; k < sizeof padded; k++) {
            differ = (unsigned char)(differ | (padded[k] ^ keys->list[i].key[k]));
        }
        found = differ == 0 && !keys->list[i].certificate ? &keys->list[i] : found;
    }
    return found;
}

const struct kithi_key *kithi_keys_certified(const struct kithi_keys *keys, const char *name)
{
    for (size_t i = 0; i < keys->count; i++) {
        if (keys->list[i].certificate && !strcmp(keys->list[i].key, name)) {
            return &keys->list[i];
        }
    }
    return NULL;
}

bool kithi_key_allows(const struct kithi_key *key, const char *collection, bool write)
{
    if (write && !key->writes) {
        return false;
    }
    if (!strcmp(key->collections, "*")) {
        return true;
    }
    char name[KITHI_NAME_MAX + 3];
    if (!collection || !kithi_name_valid(collection, strlen(collection))) {
        return false;
    }
    snprintf(name, sizeof name, ",%s,", collection);
    return strstr(key->collections, name) != NULL;
}

/* localhost, 127.*, [::1], with or without a port. */
static bool names_loopback(struct kithi_part host)
{
    if (host.len >= 5 && !memcmp(host.at, "[::1]", 5)) {
        return host.len == 5 || host.at[5] == ':';
    }
    const char *colon = memchr(host.at, ':', host.len);
    host.len = colon ? (size_t)(colon - host.at) : host.len;
    if (kithi_part_is(host, "localhost")) {
        return true;
    }
    /* Digits and dots alone, or 127.example.org would do. */
    if (host.len < 5 || memcmp(host.at, "127.", 4) != 0) {
        return false;
    }
    for (size_t i = 4; i < host.len; i++) {
        if (host.at[i] != '.' && (host.at[i] < '0' || host.at[i] > '9')) {
            return false;
        }
    }
    return true;
}

/* Is the origin, http://example.org:8080, the very host that the request is for? */
static bool is_own(struct kithi_part origin, struct kithi_part host)
{
    static const char *const schemes[] = { "http://", "https://" };
    for (unsigned i = 0; i < 2; i++) {
        size_t len = strlen(schemes[i]);
        if (host.len && origin.len == len + host.len && !memcmp(origin.at, schemes[i], len) &&
            !strncasecmp(origin.at + len, host.at, host.len)) {
            return true;
        }
    }
    return false;
}

const char *kithi_keys_stranger(const struct kithi_http_head *head, bool loopback, bool writes)
{
    if (head->origin.at && (writes || !is_own(head->origin, head->host))) {
        return "it comes from a page in a browser (Origin), and there are no API keys; start kith-gateway with --keys";
    }
    if (head->fetch_site.at && !kithi_part_is(head->fetch_site, "none") &&
        !kithi_part_is(head->fetch_site, "same-origin")) {
        return "it comes from another site's page in a browser (Sec-Fetch-Site), and there are no API keys; start "
               "kith-gateway with --keys";
    }
    if (loopback && head->host.at && !names_loopback(head->host)) {
        return "its Host is not localhost, 127.* or [::1], and there are no API keys; start kith-gateway with --keys";
    }
    return NULL;
}
