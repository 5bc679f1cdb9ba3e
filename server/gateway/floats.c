/*
 * floats.c - see floats.h.
 */
#include "server/gateway/floats.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void kithi_floats_init(struct kithi_floats *f, struct kithi_budget *budget)
{
    *f = (struct kithi_floats){ .budget = budget };
}

void kithi_floats_fini(struct kithi_floats *f)
{
    if (f->budget) {
        kithi_budget_give(f->budget,
                          f->capacity * sizeof *f->values + f->vector_capacity * sizeof *f->vectors);
    }
    free(f->values);
    free(f->vectors);
    kithi_floats_init(f, f->budget);
}

/* A block that holds needed items of size bytes. 0, -ENOMEM, -EDQUOT. */
static int grow(struct kithi_budget *budget, void **block, size_t *capacity, size_t needed, size_t size)
{
    size_t more = *capacity ? *capacity * 2 : 256;
    more = more < needed ? needed : more;
    if (budget && !kithi_budget_take(budget, (more - *capacity) * size)) {
        return -EDQUOT;
    }
    void *at = realloc(*block, more * size);
    if (!at) {
        if (budget) {
            kithi_budget_give(budget, (more - *capacity) * size);
        }
        return -ENOMEM;
    }
    *block = at;
    *capacity = more;
    return 0;
}

static int room(struct kithi_floats *f, size_t more)
{
    void *block = f->values;
    int rc = f->count + more <= f->capacity
                 ? 0
                 : grow(f->budget, &block, &f->capacity, f->count + more, sizeof *f->values);
    f->values = block;
    return rc;
}

static int note_vector(struct kithi_floats *f, size_t first)
{
    void *block = f->vectors;
    int rc = f->vector_count < f->vector_capacity
                 ? 0
                 : grow(f->budget, &block, &f->vector_capacity, f->vector_count + 1, sizeof *f->vectors);
    f->vectors = block;
    if (rc == 0) {
        f->vectors[f->vector_count++] = (struct kithi_vector){ first, f->count - first };
    }
    return rc;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const double powers[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };

/*
 * The number at p, as JSON writes one; the end, or NULL. A double of at most 53 bits times or by a power of ten up to 22 is
 * rounded once; rounding it again to a float is wrong only where it lies in the middle of two floats, which strtof decides.
 */
static const char *number(const char *p, float *out)
{
    const char *begin = p;
    uint64_t digits = 0;
    int count = 0, scale = 0, exponent = 0;
    bool negative = *p == '-';
    p += negative;
    if (!is_digit(*p) || (*p == '0' && is_digit(p[1]))) {
        return NULL;
    }
    for (; is_digit(*p); p++) {
        digits = count < 19 ? digits * 10 + (uint64_t)(*p - '0') : digits;
        count += count > 0 || *p != '0';
    }
    if (*p == '.') {
        if (!is_digit(*++p)) {
            return NULL;
        }
        for (; is_digit(*p); p++) {
            digits = count < 19 ? digits * 10 + (uint64_t)(*p - '0') : digits;
            count += count > 0 || *p != '0';
            scale++;
        }
    }
    if (*p == 'e' || *p == 'E') {
        p++;
        bool below = *p == '-';
        p += *p == '-' || *p == '+';
        if (!is_digit(*p)) {
            return NULL;
        }
        for (; is_digit(*p); p++) {
            exponent = exponent < 10000 ? exponent * 10 + (*p - '0') : exponent;
        }
        exponent = below ? -exponent : exponent;
    }
    int power = exponent - scale;
    if (count <= 19 && digits < (UINT64_C(1) << 53) && power >= -22 && power <= 22) {
        double v = power < 0 ? (double)digits / powers[-power] : (double)digits * powers[power];
        uint64_t bits;
        memcpy(&bits, &v, sizeof bits);
        bool middle = (bits & ((UINT64_C(1) << 29) - 1)) == UINT64_C(1) << 28;
        if (!middle && (v == 0 || (v >= 0x1p-126 && v < 0x1p127))) {
            *out = negative ? -(float)v : (float)v;
            return p;
        }
    }
    *out = strtof(begin, NULL);
    return p;
}

static int refuse(struct kithi_floats *f, const char *why, const char *text, const char *at)
{
    f->why = why;
    f->at = (size_t)(at - text);
    return -EINVAL;
}

/* The array at p, if it is one of numbers alone: *end is behind it. Otherwise *end is p, and nothing was taken. */
static int vector(struct kithi_floats *f, const char *text, const char *p, const char **end)
{
    const char *at = p + 1;
    size_t first = f->count;
    *end = p;
    while (is_space(*at)) {
        at++;
    }
    if (*at != ']' && *at != '-' && !is_digit(*at)) {
        return 0; /* for the other reader to say what is wrong with it */
    }
    while (*at != ']') {
        int rc = room(f, 1);
        const char *next = rc == 0 ? number(at, &f->values[f->count]) : NULL;
        if (rc < 0) {
            return rc;
        }
        if (!next) {
            return refuse(f, "there is no number where a vector goes on", text, at);
        }
        if (!isfinite(f->values[f->count])) {
            return refuse(f, "a number is larger than a float can be", text, at);
        }
        f->count++;
        for (at = next; is_space(*at); at++) {
        }
        if (*at == ',') {
            for (at++; is_space(*at); at++) {
            }
            if (*at == ']') {
                return refuse(f, "a vector ends in a comma", text, at);
            }
        } else if (*at != ']') {
            return refuse(f, "a vector is cut off, or holds more than numbers with commas between them", text,
                          at);
        }
    }
    *end = at + 1;
    return note_vector(f, first);
}

/* Behind the string that begins at p; text[len] is 0, where one that is cut off ends. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++) {
        p += *p == '\\' && p + 1 < end;
    }
    return p < end ? p + 1 : end;
}

int kithi_floats_lift(struct kithi_floats *f, const char *text, size_t len, unsigned depth,
                      struct kithi_text *out)
{
    static const char name[] = "\"vector\"";
    const char *end = text + len, *done = text;
    unsigned level = 0;
    for (const char *p = text; p < end;) {
        if (*p == '[' || *p == '{') {
            if (++level > KITHI_JSON_DEPTH) {
                return refuse(f, "it is nested deeper than 64", text, p);
            }
        } else if (*p == ']' || *p == '}') {
            level -= level > 0;
        }
        if (*p != '"') {
            p++;
            continue;
        }
        const char *key = p;
        p = skip_string(p, end);
        const char *value = p;
        while (is_space(*value)) {
            value++;
        }
        if (level != depth || *value != ':') {
            continue;
        }
        if (memchr(key, '\\', (size_t)(p - key))) {
            return refuse(f, "a name that this call knows is written without escapes", text, key);
        }
        if ((size_t)(p - key) != sizeof name - 1 || memcmp(key, name, sizeof name - 1) != 0) {
            continue;
        }
        for (value++; is_space(*value); value++) {
        }
        if (*value != '[') {
            continue;
        }
        const char *behind;
        int rc = vector(f, text, value, &behind);
        if (rc < 0) {
            return rc;
        }
        p = value;
        if (behind != value) {
            kithi_text_put(out, done, (size_t)(value - done));
            kithi_text_printf(out, "[%zu]", f->vector_count - 1);
            p = done = behind;
        }
    }
    kithi_text_put(out, done, (size_t)(end - done));
    return 0;
}

long kithi_floats_bytes(struct kithi_floats *f, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    if (len % 4) {
        return -EINVAL;
    }
    int rc = room(f, len / 4);
    size_t first = f->count;
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < len; i += 4) {
        uint32_t word =
            (uint32_t)p[i] | (uint32_t)p[i + 1] << 8 | (uint32_t)p[i + 2] << 16 | (uint32_t)p[i + 3] << 24;
        memcpy(&f->values[f->count++], &word, 4);
    }
    rc = note_vector(f, first);
    return rc < 0 ? rc : (long)(len / 4);
}

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : is_digit(c)          ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

long kithi_floats_base64(struct kithi_floats *f, const char *text, size_t len)
{
    size_t padding = len && text[len - 1] == '=' ? 1u + (len > 1 && text[len - 2] == '=') : 0;
    if (len % 4) {
        return -EINVAL;
    }
    size_t n = len / 4 * 3 - padding, filled = 0;
    unsigned char *bytes = malloc(n + 3);
    if (!bytes) {
        return -ENOMEM;
    }
    long rc = 0;
    for (size_t i = 0; i < len && rc == 0; i += 4) {
        uint32_t word = 0;
        for (size_t k = 0; k < 4; k++) {
            int value = i + k < len - padding ? base64_value(text[i + k]) : 0;
            rc = value < 0 ? -EINVAL : rc;
            word = word << 6 | (uint32_t)(value & 63);
        }
        bytes[filled++] = (unsigned char)(word >> 16);
        bytes[filled++] = (unsigned char)(word >> 8);
        bytes[filled++] = (unsigned char)word;
    }
    rc = rc < 0 ? rc : kithi_floats_bytes(f, bytes, n);
    free(bytes);
    return rc;
}
