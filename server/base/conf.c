/*
 * conf.c - the reader of the TOML subset that conf.h describes. One pass; values go to a
 * private copy first and to the caller's variables once everything was right.
 */
#include "server/base/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES (1u << 20)

struct parser {
    const char *path;
    const char *p, *end;
    unsigned line;
    struct kithi_errmsg *err;
};

struct value {
    bool given;
    bool boolean;
    int64_t integer;
    char *string; /* malloc'd, NUL-terminated */
    size_t len;
};

static int fail_at(struct parser *ps, const char *fmt, ...) KITHI_PRINTF(2, 3);

static int fail_at(struct parser *ps, const char *fmt, ...)
{
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return kithi_error_set(ps->err, KITHI_E_FORMAT, "%s:%u: %s", ps->path, ps->line, what);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '-';
}

static void skip_blanks(struct parser *ps)
{
    while (ps->p < ps->end && (*ps->p == ' ' || *ps->p == '\t'))
        ps->p++;
}

/* TOML allows no control characters but tab, in comments as in strings. */
static bool is_control(char c)
{
    return ((unsigned char)c < ' ' && c != '\t') || c == 0x7f;
}

static bool at_line_end(const struct parser *ps)
{
    return ps->p == ps->end || *ps->p == '\n' || (*ps->p == '\r' && ps->p + 1 < ps->end && ps->p[1] == '\n');
}

/* Blanks, a comment, the end of the line. */
static int end_line(struct parser *ps)
{
    skip_blanks(ps);
    if (ps->p < ps->end && *ps->p == '#') {
        while (!at_line_end(ps)) {
            if (is_control(*ps->p))
                return fail_at(ps, "control character 0x%02x in a comment", (unsigned char)*ps->p);
            ps->p++;
        }
    }
    if (!at_line_end(ps))
        return fail_at(ps, "unexpected '%c' after the value", *ps->p);
    if (ps->p < ps->end)
        ps->p += *ps->p == '\r' ? 2 : 1;
    ps->line++;
    return 0;
}

/* Well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_utf8(const uint8_t *p, const uint8_t *end)
{
    while (p < end) {
        uint8_t c = *p++;
        if (c < 0x80)
            continue;
        int more = c >= 0xc2 && c <= 0xdf ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
        if (more == 0 || end - p < more)
            return false;
        if ((c == 0xe0 && *p < 0xa0) || (c == 0xed && *p > 0x9f) || (c == 0xf0 && *p < 0x90) ||
            (c == 0xf4 && *p > 0x8f))
            return false;
        for (; more > 0; more--)
            if ((*p++ & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((0xf00u >> n & 0xf0u) | c);
    return n;
}

/* The escape behind a backslash, into out. */
static int parse_escape(struct parser *ps, char *out, size_t *len)
{
    static const char plain[] = "btnfr\"\\", means[] = "\b\t\n\f\r\"\\";
    if (at_line_end(ps))
        return fail_at(ps, "the string does not end on its line");
    char c = *ps->p++;
    const char *at = c ? strchr(plain, c) : NULL;
    if (at) {
        out[(*len)++] = means[at - plain];
        return 0;
    }
    int digits = c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0)
        return fail_at(ps, "no such escape in a string: \\%c", c);
    uint32_t code = 0;
    for (int i = 0; i < digits; i++, ps->p++) {
        char d = ps->p < ps->end ? *ps->p : '\0';
        uint32_t v = is_digit(d)                          ? (uint32_t)(d - '0')
                     : (d | 32) >= 'a' && (d | 32) <= 'f' ? (uint32_t)((d | 32) - 'a') + 10
                                                          : 16;
        if (v == 16)
            return fail_at(ps, "\\%c needs %d hexadecimal digits", c, digits);
        code = code << 4 | v;
    }
    if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return fail_at(ps, "\\%c does not name a character", c);
    *len += put_utf8(out + *len, code);
    return 0;
}

static int parse_string(struct parser *ps, struct value *v)
{
    char quote = *ps->p++;
    if (ps->end - ps->p >= 2 && ps->p[0] == quote && ps->p[1] == quote)
        return fail_at(ps, "multi-line strings are not supported");
    v->string = malloc((size_t)(ps->end - ps->p) + 1); /* an escape is never shorter than what it means */
    if (!v->string)
        return kithi_error_set(ps->err, -ENOMEM, "%s: out of memory", ps->path);
    while (!at_line_end(ps) && *ps->p != quote) {
        char c = *ps->p++;
        int r = 0;
        if (is_control(c))
            r = fail_at(ps, "control character 0x%02x in a string", (unsigned char)c);
        else if (c == '\\' && quote == '"')
            r = parse_escape(ps, v->string, &v->len);
        else
            v->string[v->len++] = c;
        if (r < 0)
            return r;
    }
    if (at_line_end(ps))
        return fail_at(ps, "the string does not end on its line");
    ps->p++;
    v->string[v->len] = '\0';
    return 0;
}

static int parse_integer(struct parser *ps, const char *key, struct value *v)
{
    bool negative = *ps->p == '-';
    bool sign = negative || *ps->p == '+';
    ps->p += sign;
    unsigned base = 10;
    if (ps->end - ps->p >= 2 && ps->p[0] == '0') {
        base = ps->p[1] == 'x' ? 16 : ps->p[1] == 'o' ? 8 : ps->p[1] == 'b' ? 2 : 10;
        if (base == 10 && (is_digit(ps->p[1]) || ps->p[1] == '_'))
            return fail_at(ps, "%s: a number does not begin with 0", key);
        if (base != 10 && sign)
            return fail_at(ps, "%s: a number with a prefix has no sign", key);
        if (base != 10)
            ps->p += 2;
    }
    const uint64_t max = negative ? (uint64_t)1 << 63 : INT64_MAX;
    uint64_t n = 0;
    bool digit = false; /* the character before was one */
    for (; ps->p < ps->end; ps->p++) {
        char c = *ps->p;
        if (c == '_') {
            if (!digit)
                break;
            digit = false;
            continue;
        }
        unsigned d = is_digit(c)                          ? (unsigned)(c - '0')
                     : (c | 32) >= 'a' && (c | 32) <= 'f' ? (unsigned)((c | 32) - 'a') + 10
                                                          : 99;
        if (d >= base)
            break;
        if (n > (max - d) / base)
            return fail_at(ps, "%s: the number is too large", key);
        n = n * base + d;
        digit = true;
    }
    if (!digit || (ps->p < ps->end && strchr(" \t#\r\n", *ps->p) == NULL))
        return fail_at(ps, "%s: not an integer", key);
    v->integer = negative ? (int64_t)(0 - n) : (int64_t)n;
    return 0;
}

static int parse_boolean(struct parser *ps, const char *key, struct value *v)
{
    const char *start = ps->p;
    while (ps->p < ps->end && is_key_char(*ps->p))
        ps->p++;
    size_t len = (size_t)(ps->p - start);
    v->boolean = len == 4 && memcmp(start, "true", 4) == 0;
    if (!v->boolean && !(len == 5 && memcmp(start, "false", 5) == 0))
        return fail_at(ps, "%s: not true or false", key);
    return 0;
}

static int parse_value(struct parser *ps, const struct kithi_conf_key *key, struct value *v)
{
    char c = ps->p < ps->end ? *ps->p : '\n';
    int r;
    switch (key->type) {
    case KITHI_CONF_STRING:
        if (c != '"' && c != '\'')
            return fail_at(ps, "%s: a string in quotes is wanted", key->name);
        r = parse_string(ps, v);
        if (r == 0 && (v->len == 0 || v->len >= key->size))
            r = fail_at(ps, "%s: the string must have 1 to %zu bytes", key->name, key->size - 1);
        return r;
    case KITHI_CONF_INTEGER:
        if (!is_digit(c) && c != '-' && c != '+')
            return fail_at(ps, "%s: a whole number is wanted", key->name);
        r = parse_integer(ps, key->name, v);
        if (r == 0 && (v->integer < key->min || v->integer > key->max))
            r = fail_at(ps, "%s: must be %lld to %lld", key->name, (long long)key->min, (long long)key->max);
        return r;
    default: return parse_boolean(ps, key->name, v);
    }
}

static int parse_line(struct parser *ps, const struct kithi_conf_key *keys, size_t n, struct value *values)
{
    skip_blanks(ps);
    if (at_line_end(ps) || *ps->p == '#')
        return end_line(ps);
    const char *name = ps->p;
    while (ps->p < ps->end && is_key_char(*ps->p))
        ps->p++;
    size_t len = (size_t)(ps->p - name);
    if (len == 0)
        return fail_at(ps, *name == '[' ? "tables are not supported; a line is: key = value"
                                        : "a line is: key = value");
    skip_blanks(ps);
    if (ps->p == ps->end || *ps->p != '=')
        return fail_at(ps, "'=' is missing behind \"%.*s\"", (int)(len < 64 ? len : 64), name);
    ps->p++;
    skip_blanks(ps);
    for (size_t i = 0; i < n; i++) {
        if (strlen(keys[i].name) != len || memcmp(keys[i].name, name, len) != 0)
            continue;
        if (values[i].given)
            return fail_at(ps, "%s is given twice", keys[i].name);
        int r = parse_value(ps, &keys[i], &values[i]);
        values[i].given = true;
        return r < 0 ? r : end_line(ps);
    }
    return fail_at(ps, "unknown key \"%.*s\"", (int)(len < 64 ? len : 64), name);
}

static void store(const struct kithi_conf_key *key, const struct value *v)
{
    switch (key->type) {
    case KITHI_CONF_STRING: memcpy(key->out, v->string, v->len + 1); break;
    case KITHI_CONF_INTEGER: *(int64_t *)key->out = v->integer; break;
    case KITHI_CONF_BOOLEAN: *(bool *)key->out = v->boolean; break;
    }
    if (key->given)
        *key->given = true;
}

int kithi_conf_parse(const char *path, const char *text, size_t len, const struct kithi_conf_key *keys,
                     size_t n, struct kithi_errmsg *err)
{
    struct parser ps = { .path = path, .p = text, .end = text + len, .line = 1, .err = err };
    struct value *values = calloc(n ? n : 1, sizeof *values);
    if (!values)
        return kithi_error_set(err, -ENOMEM, "%s: out of memory", path);
    int r = 0;
    if (memchr(text, '\0', len) || !is_utf8((const uint8_t *)text, (const uint8_t *)text + len))
        r = kithi_error_set(err, KITHI_E_FORMAT, "%s: not a text file in UTF-8", path);
    while (r == 0 && ps.p < ps.end)
        r = parse_line(&ps, keys, n, values);
    for (size_t i = 0; i < n && r == 0; i++)
        if (keys[i].required && !values[i].given)
            r = kithi_error_set(err, KITHI_E_FORMAT, "%s: the key \"%s\" is missing", path, keys[i].name);
    for (size_t i = 0; i < n; i++) {
        if (r == 0 && values[i].given)
            store(&keys[i], &values[i]);
        free(values[i].string);
    }
    free(values);
    return r;
}

int kithi_conf_read(const char *path, const struct kithi_conf_key *keys, size_t n, struct kithi_errmsg *err)
{
    int r = 0;
    char *text = NULL;
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        r = -errno;
        kithi_error_set(err, r, "%s: %s", path, kithi_error_text(r));
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > (off_t)FILE_MAX_BYTES) {
        r = kithi_error_set(err, KITHI_E_FORMAT, "%s: not a regular file of at most 1 MiB", path);
        goto out;
    }
    text = malloc((size_t)st.st_size + 1);
    if (!text) {
        r = kithi_error_set(err, -ENOMEM, "%s: out of memory", path);
        goto out;
    }
    while (len < (size_t)st.st_size) {
        ssize_t got = read(fd, text + len, (size_t)st.st_size - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            r = -errno;
            kithi_error_set(err, r, "%s: %s", path, kithi_error_text(r));
            goto out;
        }
        if (got == 0)
            break;
        len += (size_t)got;
    }
    r = kithi_conf_parse(path, text, len, keys, n, err);

out:
    free(text);
    if (fd >= 0)
        close(fd);
    return r;
}
