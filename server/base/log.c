/*
 * log.c - formats one event as one line. The format string is walked here and not handed
 * to printf as a whole, because only so the end of a value is known, and a value that could
 * pass for more than one field is quoted.
 */
#include "server/base/log.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES  4096u
#define VALUE_MAX_BYTES 3072u

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static _Atomic int current_level = KITHI_LOG_INFO;
static _Atomic int out_fd = STDERR_FILENO;

/* A string that grows up to its size and remembers whether something was cut. */
struct text {
    char *bytes;
    size_t len, size;
    bool cut;
};

static void add(struct text *t, const char *bytes, size_t len)
{
    size_t room = t->size - t->len;
    if (len > room) {
        len = room;
        t->cut = true;
    }
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
}

static void add_quoted(struct text *t, const char *s, size_t len)
{
    bool plain = len > 0;
    for (size_t i = 0; i < len && plain; i++) {
        unsigned char c = (unsigned char)s[i];
        plain = c > ' ' && c != 0x7f && c != '"' && c != '\\' && c != '=';
    }
    if (plain) {
        add(t, s, len);
        return;
    }
    add(t, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        char escape[8];
        if (c == '"' || c == '\\')
            snprintf(escape, sizeof escape, "\\%c", c);
        else if (c == '\n')
            snprintf(escape, sizeof escape, "\\n");
        else if (c < ' ' || c == 0x7f)
            snprintf(escape, sizeof escape, "\\x%02x", c);
        else
            snprintf(escape, sizeof escape, "%c", c);
        add(t, escape, strlen(escape));
    }
    add(t, "\"", 1);
}

/* The arguments, in a struct so that a pointer to it can be passed on (a va_list may be an array). */
struct args {
    va_list list;
};

enum length {
    LENGTH_NONE,
    LENGTH_CHAR,
    LENGTH_SHORT,
    LENGTH_LONG,
    LENGTH_LLONG,
    LENGTH_SIZE,
    LENGTH_MAX,
    LENGTH_DIFF
};

static enum length parse_length(const char **p)
{
    const char *s = *p;
    enum length length = LENGTH_NONE;
    switch (*s) {
    case 'h': length = s[1] == 'h' ? LENGTH_CHAR : LENGTH_SHORT; break;
    case 'l': length = s[1] == 'l' ? LENGTH_LLONG : LENGTH_LONG; break;
    case 'z': length = LENGTH_SIZE; break;
    case 'j': length = LENGTH_MAX; break;
    case 't': length = LENGTH_DIFF; break;
    default: return length;
    }
    *p = s + (length == LENGTH_CHAR || length == LENGTH_LLONG ? 2 : 1);
    return length;
}

static intmax_t signed_arg(struct args *a, enum length length)
{
    switch (length) {
    case LENGTH_CHAR: return (signed char)va_arg(a->list, int);
    case LENGTH_SHORT: return (short)va_arg(a->list, int);
    case LENGTH_LONG: return va_arg(a->list, long);
    case LENGTH_LLONG: return va_arg(a->list, long long);
    case LENGTH_SIZE: return va_arg(a->list, ssize_t);
    case LENGTH_MAX: return va_arg(a->list, intmax_t);
    case LENGTH_DIFF: return va_arg(a->list, ptrdiff_t);
    default: return va_arg(a->list, int);
    }
}

static uintmax_t unsigned_arg(struct args *a, enum length length)
{
    switch (length) {
    case LENGTH_CHAR: return (unsigned char)va_arg(a->list, unsigned);
    case LENGTH_SHORT: return (unsigned short)va_arg(a->list, unsigned);
    case LENGTH_LONG: return va_arg(a->list, unsigned long);
    case LENGTH_LLONG: return va_arg(a->list, unsigned long long);
    case LENGTH_SIZE: return va_arg(a->list, size_t);
    case LENGTH_MAX: return va_arg(a->list, uintmax_t);
    case LENGTH_DIFF: return (uintmax_t)va_arg(a->list, ptrdiff_t);
    default: return va_arg(a->list, unsigned);
    }
}

/* A conversion, p behind its %. Appends the value; returns what follows the conversion. */
static const char *convert(struct text *value, const char *p, struct args *a)
{
    char spec[32] = "%", out[512];
    size_t n = 1;
    int width = 0, precision = -1, len = 0;
    while (*p && strchr("-+ #0", *p)) {
        if (n < 8)
            spec[n++] = *p;
        p++;
    }
    if (*p == '*') {
        width = va_arg(a->list, int);
        p++;
    }
    while (isdigit((unsigned char)*p))
        width = width < 400 ? width * 10 + (*p++ - '0') : (p++, width);
    if (*p == '.') {
        p++;
        precision = 0;
        if (*p == '*') {
            precision = va_arg(a->list, int);
            p++;
        }
        while (isdigit((unsigned char)*p))
            precision = precision < 100000 ? precision * 10 + (*p++ - '0') : (p++, precision);
    }
    enum length length = parse_length(&p);
    char type = *p ? *p++ : '%';

    if (type == 's') { /* strings may be longer than any buffer here: width is not worth a copy */
        const char *s = va_arg(a->list, const char *);
        s = s ? s : "(null)";
        add(value, s, precision >= 0 ? strnlen(s, (size_t)precision) : strlen(s));
        return p;
    }
    if (type == '%') {
        add(value, "%", 1);
        return p;
    }
    if (width > 400 || width < -400)
        width = 400;
    if (precision > 100)
        precision = 100;
    memcpy(spec + n, "*.*", 3);
    n += 3;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    switch (type) {
    case 'd':
    case 'i':
        snprintf(spec + n, sizeof spec - n, "j%c", type);
        len = snprintf(out, sizeof out, spec, width, precision, signed_arg(a, length));
        break;
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        snprintf(spec + n, sizeof spec - n, "j%c", type);
        len = snprintf(out, sizeof out, spec, width, precision, unsigned_arg(a, length));
        break;
    case 'c': len = snprintf(out, sizeof out, "%c", va_arg(a->list, int)); break;
    case 'p': len = snprintf(out, sizeof out, "%p", va_arg(a->list, void *)); break;
    default: /* e f g, and what printf would not know either */
        snprintf(spec + n, sizeof spec - n, "%c", type);
        len = snprintf(out, sizeof out, spec, width, precision, va_arg(a->list, double));
    }
#pragma GCC diagnostic pop
    if (len > 0)
        add(value, out, (size_t)len < sizeof out ? (size_t)len : sizeof out - 1);
    return p;
}

/* One field, p at its key. Returns what follows it. */
static const char *add_field(struct text *line, const char *p, struct args *a)
{
    char bytes[VALUE_MAX_BYTES];
    struct text value = { .bytes = bytes, .size = sizeof bytes };
    const char *equals = strchr(p, '=');
    if (!equals)
        return p + strlen(p);
    bool to_end = (size_t)(equals - p) == 3 && memcmp(p, "msg", 3) == 0;
    add(line, " ", 1);
    add(line, p, (size_t)(equals - p) + 1);
    p = equals + 1;
    while (*p && (to_end || *p != ' ')) {
        if (*p == '%') {
            p = convert(&value, p + 1, a);
        } else {
            add(&value, p, 1);
            p++;
        }
    }
    line->cut |= value.cut;
    add_quoted(line, value.bytes, value.len);
    return p;
}

void kithi_log(enum kithi_log_level level, const char *event, const char *fields, ...)
{
    if (!kithi_log_enabled(level))
        return;
    int saved = errno;
    char bytes[LINE_MAX_BYTES];
    struct text line = { .bytes = bytes, .size = sizeof bytes - 5 }; /* room for "...", quote, newline */

    struct timespec now;
    struct tm tm;
    char head[128];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(head, sizeof head, "ts=%Y-%m-%dT%H:%M:%S", &tm);
    int m = snprintf(head + n, sizeof head - n, ".%06ldZ level=%s event=%.64s", now.tv_nsec / 1000,
                     level_names[level], event);
    if (m > 0)
        add(&line, head, n + (size_t)m < sizeof head ? n + (size_t)m : sizeof head - 1);

    struct args a;
    va_start(a.list, fields);
    for (const char *p = fields; *p;) {
        if (*p == ' ')
            p++;
        else
            p = add_field(&line, p, &a);
    }
    va_end(a.list);

    if (line.cut) {
        memcpy(line.bytes + line.len, "...", 3);
        line.len += 3;
    }
    line.bytes[line.len++] = '\n';
    ssize_t r;
    do {
        r = write(atomic_load_explicit(&out_fd, memory_order_relaxed), line.bytes, line.len);
    } while (r < 0 && errno == EINTR);
    errno = saved;
}

/* Level and descriptor: relaxed, because nothing else is read because of them. */
void kithi_log_set_level(enum kithi_log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

bool kithi_log_enabled(enum kithi_log_level level)
{
    return (int)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

int kithi_log_level_parse(const char *name, enum kithi_log_level *out_level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out_level = (enum kithi_log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

void kithi_log_set_fd(int fd)
{
    atomic_store_explicit(&out_fd, fd, memory_order_relaxed);
}
