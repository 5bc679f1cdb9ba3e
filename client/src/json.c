/*
 * json.c - see json.h.
 *
 * Numbers: the digits go into an integer w and a decimal exponent e. When |e| <= 22, w * 10^e is
 * computed in double with an error below two units in the last place (w is rounded once, 10^|e| is
 * exact, the product or quotient is rounded once). Rounding that to float is rounding the true value
 * to float, except when a border between two floats is that near: then, and for larger exponents,
 * the C library decides, in the "C" locale whatever the host program has set.
 */
#include "client/src/json.h"

#include <errno.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/decimal.h"
#include "shm/base/error.h"
#include "shm/base/escape.h"
#include "shm/base/sink.h"
#include "shm/base/utf8.h"

/* Digits that a 64-bit integer holds whatever they are. */
#define DIGITS_MAX 19
/* No float or double needs more digits than this to be told from its neighbours' border. */
#define DIGITS_KEPT 800
/* An exponent that no text has digits enough to make up for, and that can be added to. */
#define WRITTEN_LIMIT INT64_C(100000000000000000)
/* Beyond, every number of DIGITS_KEPT digits is 0 or too large. */
#define EXPONENT_LIMIT 1000000u

static const double powers[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
#define POWER_MAX 22

/* ---- plumbing ---- */

void kithi_json_init(struct kithi_json *j)
{
    memset(j, 0, sizeof *j);
}

void kithi_json_fini(struct kithi_json *j)
{
    free(j->keys);
    kithi_json_init(j);
}

void kithi_json_begin(struct kithi_json *j, const char *text, size_t len)
{
    j->begin = j->at = text;
    j->end = text + len;
    j->error = NULL;
    j->error_off = 0;
    j->code = 0;
    j->depth = 0;
    j->fresh = false;
    j->key_count = 0;
}

static int fail_at(struct kithi_json *j, int code, const char *at, const char *text)
{
    if (!j->code) {
        j->code = code;
        j->error = text;
        j->error_off = (size_t)(at - j->begin);
    }
    return j->code;
}

int kithi_json_fail(struct kithi_json *j, const char *text)
{
    return fail_at(j, KITHI_E_FORMAT, j->at, text);
}

int kithi_json_fail_key(struct kithi_json *j, const char *text)
{
    return fail_at(j, KITHI_E_FORMAT, j->key_count ? j->keys[j->key_count - 1].at - 1 : j->at, text);
}

static void skip_space(struct kithi_json *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\r' || *j->at == '\t'))
        j->at++;
}

static bool is_digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

enum kithi_json_kind kithi_json_peek(struct kithi_json *j)
{
    skip_space(j);
    if (j->code || j->at == j->end)
        return KITHI_JSON_NONE;
    switch (*j->at) {
    case 'n': return KITHI_JSON_NULL;
    case 't':
    case 'f': return KITHI_JSON_BOOL;
    case '"': return KITHI_JSON_STRING;
    case '[': return KITHI_JSON_ARRAY;
    case '{': return KITHI_JSON_OBJECT;
    default: return *j->at == '-' || is_digit(j->at, j->end) ? KITHI_JSON_NUMBER : KITHI_JSON_NONE;
    }
}

/* The next value begins with c, or it is an error that says what was expected. */
static int expect(struct kithi_json *j, char c, const char *text)
{
    skip_space(j);
    if (j->code)
        return j->code;
    if (j->at == j->end)
        return kithi_json_fail(j, "the text ends too early");
    if (*j->at != c)
        return kithi_json_fail(j, text);
    return 0;
}

static int word(struct kithi_json *j, const char *text)
{
    size_t len = strlen(text);
    if (j->code)
        return j->code;
    if ((size_t)(j->end - j->at) < len || memcmp(j->at, text, len) != 0)
        return kithi_json_fail(j, "expected a value");
    j->at += len;
    return 0;
}

/* ---- strings ---- */

/*
 * One character of a string at *p, unescaped into out (4 bytes); returns its length and moves *p on,
 * or 0 with *why set. p is before end.
 */
static size_t character(const char **p, const char *end, char out[4], const char **why)
{
    const char *at = *p;
    if (*at != '\\') {
        size_t len = kithi_utf8_step((const unsigned char *)at, (size_t)(end - at));
        if ((unsigned char)*at < 0x20) {
            *why = "a control character in a string must be escaped";
            return 0;
        }
        if (len == 0)
            *why = "a string is not valid UTF-8";
        memcpy(out, at, len);
        *p = at + len;
        return len;
    }
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = at + 1 < end && at[1] ? strchr(names, at[1]) : NULL;
    if (name) {
        out[0] = values[name - names];
        *p = at + 2;
        return 1;
    }
    int n = kithi_escape_unicode(&at, end, out);
    if (n <= 0) {
        *why = n == 0 ? "not an escape sequence of JSON" : "half of a surrogate pair";
        return 0;
    }
    *p = at;
    return (size_t)n;
}

/* Read the string that comes next; out may be NULL. *out_raw, when not NULL, is how it stands in the text. */
static int read_string(struct kithi_json *j, char *out, size_t cap, size_t *out_len,
                       struct kithi_json_key *out_raw)
{
    if (expect(j, '"', "expected a string") < 0)
        return j->code;
    const char *p = j->at + 1, *first = p;
    size_t len = 0;
    for (;;) {
        if (p == j->end)
            return fail_at(j, KITHI_E_FORMAT, j->at, "a string that does not end");
        if (*p == '"')
            break;
        char c[4];
        const char *why = NULL, *here = p;
        size_t n = character(&p, j->end, c, &why);
        if (n == 0)
            return fail_at(j, KITHI_E_FORMAT, here, why);
        if (out) {
            if (n > cap - len)
                return fail_at(j, KITHI_E_FORMAT, j->at, "a string is too long");
            memcpy(out + len, c, n);
        }
        len += n;
    }
    if (out_len)
        *out_len = len;
    if (out_raw)
        *out_raw = (struct kithi_json_key){ .at = first, .len = (size_t)(p - first) };
    j->at = p + 1;
    return 0;
}

int kithi_json_string(struct kithi_json *j, char *out, size_t cap, size_t *out_len)
{
    return read_string(j, out, cap, out_len, NULL);
}

/* ---- objects and arrays ---- */

/* Orders keys by what they say, escaped or not. Both are valid strings. */
static int compare_keys(const void *a, const void *b)
{
    const struct kithi_json_key *x = a, *y = b;
    const char *p = x->at, *p_end = p + x->len, *q = y->at, *q_end = q + y->len, *why;
    char c[4], d[4];
    while (p < p_end && q < q_end) {
        size_t m = character(&p, p_end, c, &why), n = character(&q, q_end, d, &why);
        int order = memcmp(c, d, m < n ? m : n);
        if (order || m != n)
            return order ? order : m < n ? -1 : 1;
    }
    return (p < p_end) - (q < q_end);
}

/* Sorting at the end of the object instead of comparing each with all: a text of a megabyte of keys takes
 * a moment and not an hour. */
static int check_keys(struct kithi_json *j, size_t first)
{
    size_t n = j->key_count - first;
    if (n == 0)
        return 0;
    struct kithi_json_key *keys = j->keys + first;
    qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 1; i < n; i++) {
        if (compare_keys(&keys[i - 1], &keys[i]) == 0)
            return fail_at(j, KITHI_E_FORMAT, keys[i - 1].at > keys[i].at ? keys[i - 1].at : keys[i].at,
                           "a key occurs twice in one object");
    }
    j->key_count = first;
    return 0;
}

static int enter(struct kithi_json *j, bool object)
{
    if (expect(j, object ? '{' : '[', object ? "expected an object" : "expected an array") < 0)
        return j->code;
    if (j->depth == KITHI_JSON_DEPTH_MAX)
        return kithi_json_fail(j, "nested too deeply");
    j->levels[j->depth].object = object;
    j->levels[j->depth].first_key = j->key_count;
    j->depth++;
    j->fresh = true;
    j->at++;
    return 0;
}

int kithi_json_object(struct kithi_json *j)
{
    return enter(j, true);
}

int kithi_json_array(struct kithi_json *j)
{
    return enter(j, false);
}

/* 1: a member or element follows; 0: the innermost one is left behind. */
static int advance(struct kithi_json *j, bool object)
{
    skip_space(j);
    if (j->code)
        return j->code;
    if (j->depth == 0 || j->levels[j->depth - 1].object != object)
        return kithi_json_fail(j, object ? "not inside an object" : "not inside an array");
    if (j->at == j->end)
        return kithi_json_fail(j, "the text ends too early");
    bool first = j->fresh;
    j->fresh = false;
    if (*j->at == (object ? '}' : ']')) {
        j->at++;
        j->depth--;
        return object ? check_keys(j, j->levels[j->depth].first_key) : 0;
    }
    if (!first) {
        if (*j->at != ',')
            return kithi_json_fail(j, object ? "expected ',' or '}'" : "expected ',' or ']'");
        j->at++;
    }
    return 1;
}

int kithi_json_element(struct kithi_json *j)
{
    return advance(j, false);
}

int kithi_json_member(struct kithi_json *j)
{
    int rc = advance(j, true);
    if (rc != 1)
        return rc;
    if (j->key_count == j->key_capacity) {
        size_t capacity = j->key_capacity ? j->key_capacity * 2 : 16;
        struct kithi_json_key *keys = realloc(j->keys, capacity * sizeof *keys);
        if (!keys)
            return fail_at(j, -ENOMEM, j->at, "out of memory");
        j->keys = keys;
        j->key_capacity = capacity;
    }
    if (read_string(j, NULL, 0, NULL, &j->keys[j->key_count]) < 0)
        return j->code;
    j->key_count++;
    if (expect(j, ':', "expected ':'") < 0)
        return j->code;
    j->at++;
    return 1;
}

bool kithi_json_key_is(const struct kithi_json *j, const char *name)
{
    if (j->code || j->key_count == 0)
        return false;
    const struct kithi_json_key *k = &j->keys[j->key_count - 1];
    const char *p = k->at, *end = p + k->len, *why;
    size_t len = strlen(name), at = 0;
    while (p < end) {
        char c[4];
        size_t n = character(&p, end, c, &why);
        if (n > len - at || memcmp(name + at, c, n) != 0)
            return false;
        at += n;
    }
    return at == len;
}

bool kithi_json_key(const struct kithi_json *j, char *out, size_t cap, size_t *out_len)
{
    if (j->code || j->key_count == 0)
        return false;
    const struct kithi_json_key *k = &j->keys[j->key_count - 1];
    const char *p = k->at, *end = p + k->len, *why;
    size_t at = 0;
    while (p < end) {
        char c[4];
        size_t n = character(&p, end, c, &why);
        if (n > cap - at)
            return false;
        memcpy(out + at, c, n);
        at += n;
    }
    *out_len = at;
    return true;
}

int kithi_json_skip(struct kithi_json *j)
{
    uint32_t outside = j->depth;
    double number;
    bool truth;
    do {
        int rc = 0;
        switch (kithi_json_peek(j)) {
        case KITHI_JSON_NULL: rc = kithi_json_null(j); break;
        case KITHI_JSON_BOOL: rc = kithi_json_bool(j, &truth); break;
        case KITHI_JSON_NUMBER: rc = kithi_json_double(j, &number); break;
        case KITHI_JSON_STRING: rc = read_string(j, NULL, 0, NULL, NULL); break;
        case KITHI_JSON_ARRAY: rc = kithi_json_array(j); break;
        case KITHI_JSON_OBJECT: rc = kithi_json_object(j); break;
        case KITHI_JSON_NONE:
            rc = kithi_json_fail(j, j->at == j->end ? "the text ends too early" : "expected a value");
            break;
        }
        if (rc < 0)
            return rc;
        /* To the next value inside, leaving what ends here. */
        while (j->depth > outside) {
            rc = j->levels[j->depth - 1].object ? kithi_json_member(j) : kithi_json_element(j);
            if (rc < 0)
                return rc;
            if (rc == 1)
                break;
        }
    } while (j->depth > outside);
    return 0;
}

/* ---- numbers ---- */

/* A number as it stands in the text: (-1)^negative * digits * 10^exponent. */
struct decimal {
    const char *first, *end; /* mantissa, with its point */
    uint64_t w;              /* its first DIGITS_MAX significant digits */
    int64_t exponent;        /* that belongs to w */
    int64_t written;         /* exponent after the 'e' */
    bool negative;
};

/* Eight characters at once: all of them digits? Then *w takes them. The first is the lowest byte, since
 * Kith runs on little-endian machines. */
static bool take_eight(const char *p, uint64_t *w)
{
    const uint64_t high = UINT64_C(0xf0f0f0f0f0f0f0f0), zeros = UINT64_C(0x3030303030303030);
    const uint64_t pairs = UINT64_C(0x000000ff000000ff);
    uint64_t v;
    memcpy(&v, p, sizeof v);
    if ((v & high) != zeros || ((v + UINT64_C(0x0606060606060606)) & high) != zeros)
        return false;
    v -= zeros;
    v = v * 10 + (v >> 8); /* 1st and 2nd in byte 0, 3rd and 4th in byte 2, ... */
    v = ((v & pairs) * (100 + (UINT64_C(1000000) << 32)) +
         ((v >> 16) & pairs) * (1 + (UINT64_C(10000) << 32))) >>
        32;
    *w = *w * 100000000 + v;
    return true;
}

/* Past the digits at p, each taken by *w, which may overflow. */
static const char *take_digits(const char *p, const char *end, uint64_t *w)
{
    while (end - p >= 8 && take_eight(p, w))
        p += 8;
    for (; is_digit(p, end); p++)
        *w = *w * 10 + (uint64_t)(*p - '0');
    return p;
}

/* The first DIGITS_MAX significant digits of a longer mantissa, and the exponent that goes with them. */
static void take_first(struct decimal *d)
{
    int digits = 0;
    bool fraction = false;
    d->w = 0;
    d->exponent = 0;
    for (const char *p = d->first; p < d->end; p++) {
        if (*p == '.') {
            fraction = true;
        } else if (digits < DIGITS_MAX) {
            d->w = d->w * 10 + (uint64_t)(*p - '0');
            digits += d->w != 0;
            d->exponent -= fraction;
        } else {
            d->exponent += !fraction;
        }
    }
}

/* Check the grammar and gather the digits. Returns NULL on success, else what is wrong; *p moves on. */
static const char *scan_number(const char **p, const char *end, struct decimal *out)
{
    const char *at = *p, *point = NULL;

    out->negative = at < end && *at == '-';
    at += out->negative;
    out->first = at;
    if (!is_digit(at, end))
        return "expected a number";
    if (*at == '0' && is_digit(at + 1, end))
        return "a number must not begin with 0";
    out->w = 0;
    at = take_digits(at, end, &out->w);
    if (at < end && *at == '.') {
        point = ++at;
        if (!is_digit(at, end))
            return "a digit must follow the point";
        at = take_digits(at, end, &out->w);
    }
    out->end = at;
    out->exponent = point ? point - at : 0;
    if (at - out->first - (point != NULL) > DIGITS_MAX)
        take_first(out);
    out->written = 0;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        bool minus = at < end && *at == '-';
        at += at < end && (*at == '-' || *at == '+');
        if (!is_digit(at, end))
            return "an exponent has no digits";
        for (; is_digit(at, end); at++) {
            if (out->written < WRITTEN_LIMIT)
                out->written = out->written * 10 + (*at - '0');
        }
        if (minus)
            out->written = -out->written;
    }
    out->exponent += out->written;
    *p = at;
    return NULL;
}

/*
 * The number written anew, without a point, for the C library: at most DIGITS_KEPT digits, the last one
 * raised when what is cut off was not zero, so that it lies on the same side of every border.
 */
static void canonical(const struct decimal *d, char *out)
{
    int64_t exponent = d->written, digits = 0;
    bool cut = false, fraction = false;
    char *at = out;
    if (d->negative)
        *at++ = '-';
    for (const char *p = d->first; p < d->end; p++) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        if (digits < DIGITS_KEPT) {
            if (digits > 0 || *p != '0') {
                *at++ = *p;
                digits++;
            }
            exponent -= fraction;
        } else {
            cut = cut || *p != '0';
            exponent += !fraction;
        }
    }
    if (digits == 0)
        *at++ = '0';
    else if (cut && at[-1] == '0')
        at[-1] = '1';
    *at++ = 'e';
    if (exponent < 0)
        *at++ = '-';
    uint64_t left = (uint64_t)(exponent < 0 ? -exponent : exponent);
    if (left > EXPONENT_LIMIT)
        left = EXPONENT_LIMIT;
    char reversed[8];
    int n = 0;
    do
        reversed[n++] = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    while (n > 0)
        *at++ = reversed[--n];
    *at = '\0';
}

/* Room for sign, digits, 'e', sign, exponent, NUL. */
#define CANONICAL_MAX (DIGITS_KEPT + 16)

/* The "C" locale; glibc gives out a constant for it, which is not to be freed. */
static locale_t c_locale(void)
{
    return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

static double to_double(const struct decimal *d)
{
    if (d->w == 0)
        return d->negative ? -0.0 : 0.0;
    /* Exact integer, exact power: one rounding. */
    if (d->w <= UINT64_C(1) << 53 && d->exponent >= -POWER_MAX && d->exponent <= POWER_MAX) {
        double v = (double)d->w;
        v = d->exponent < 0 ? v / powers[-d->exponent] : v * powers[d->exponent];
        return d->negative ? -v : v;
    }
    char text[CANONICAL_MAX];
    canonical(d, text);
    return kithi_decimal_read(text);
}

static float to_float(const struct decimal *d)
{
    if (d->w == 0)
        return d->negative ? -0.0f : 0.0f;
    if (d->exponent >= -POWER_MAX && d->exponent <= POWER_MAX) {
        double v = (double)d->w;
        v = d->exponent < 0 ? v / powers[-d->exponent] : v * powers[d->exponent];
        uint64_t bits;
        memcpy(&bits, &v, sizeof bits);
        /* The 29 bits that a float does not have, against half of their range. The numbers that come here
         * lie in float's normal range: 1e-22 at least, and larger than FLT_MAX only by the test below. */
        int64_t off = (int64_t)(bits & 0x1fffffff) - 0x10000000;
        if ((off > 4 || off < -4) && v < (double)FLT_MAX)
            return (float)(d->negative ? -v : v);
    }
    char text[CANONICAL_MAX];
    canonical(d, text);
    return strtof_l(text, NULL, c_locale());
}

static int read_number(struct kithi_json *j, struct decimal *out)
{
    skip_space(j);
    if (j->code)
        return j->code;
    const char *why = scan_number(&j->at, j->end, out);
    return why ? kithi_json_fail(j, why) : 0;
}

int kithi_json_double(struct kithi_json *j, double *out)
{
    struct decimal d;
    const char *at = j->at;
    if (read_number(j, &d) < 0)
        return j->code;
    double v = to_double(&d);
    if (!isfinite(v))
        return fail_at(j, KITHI_E_FORMAT, at, "a number is too large");
    *out = v;
    return 0;
}

/* The digits between first and end as an integer with a sign; false: it has more than 64 bits. */
static bool to_integer(const struct decimal *d, int64_t *out)
{
    uint64_t v = 0, limit = (uint64_t)INT64_MAX + d->negative;
    for (const char *p = d->first; p < d->end; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (v > (limit - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *out = d->negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

int kithi_json_number(struct kithi_json *j, int64_t *out_integer, double *out_number)
{
    struct decimal d;
    skip_space(j);
    const char *at = j->at;
    if (read_number(j, &d) < 0)
        return j->code;
    if (d.end == j->at && !memchr(d.first, '.', (size_t)(d.end - d.first))) {
        if (!to_integer(&d, out_integer))
            return fail_at(j, KITHI_E_FORMAT, at, "an integer has more than 64 bits");
        return 1;
    }
    double v = to_double(&d);
    if (!isfinite(v))
        return fail_at(j, KITHI_E_FORMAT, at, "a number is too large");
    *out_number = v;
    return 0;
}

int kithi_json_float(struct kithi_json *j, float *out)
{
    struct decimal d;
    if (read_number(j, &d) < 0)
        return j->code;
    float v = to_float(&d);
    if (!isfinite(v))
        return fail_at(j, KITHI_E_FORMAT, d.first, "a number is too large for a float");
    *out = v;
    return 0;
}

int kithi_json_floats(struct kithi_json *j, float *out, size_t cap, size_t *out_n)
{
    size_t n = 0;
    int rc = kithi_json_array(j);
    while (rc >= 0 && (rc = kithi_json_element(j)) == 1) {
        float v = 0.0f;
        rc = kithi_json_float(j, &v);
        if (rc == 0 && n == cap)
            rc = kithi_json_fail(j, "more numbers than fit");
        if (rc == 0)
            out[n++] = v;
    }
    if (rc == 0)
        *out_n = n;
    return rc;
}

int kithi_json_bool(struct kithi_json *j, bool *out)
{
    if (kithi_json_peek(j) != KITHI_JSON_BOOL)
        return kithi_json_fail(j, "expected true or false");
    bool v = *j->at == 't';
    if (word(j, v ? "true" : "false") < 0)
        return j->code;
    *out = v;
    return 0;
}

int kithi_json_null(struct kithi_json *j)
{
    skip_space(j);
    return word(j, "null");
}

int kithi_json_finish(struct kithi_json *j)
{
    skip_space(j);
    if (j->code)
        return j->code;
    if (j->depth > 0)
        return kithi_json_fail(j, "the text ends too early");
    if (j->at < j->end)
        return kithi_json_fail(j, "something follows the value");
    return 0;
}

/* ---- writing ---- */

/* v (finite, positive) = w * 10^*exponent, w with nine digits; off by one at most in the last. */
static uint64_t nine_digits(float v, int *exponent)
{
    double scaled = (double)v;
    uint64_t bits;
    memcpy(&bits, &scaled, sizeof bits);
    /* log10(2) times the binary exponent, rounded down: at most one off. */
    int binary = (int)(bits >> 52) - 1023;
    int e = (binary * 1233 - (binary < 0 ? 4095 : 0)) / 4096 - 8;
    /* Powers beyond the table are multiplied up; a few units in the 16th digit do not matter in the ninth. */
    for (int left = e < 0 ? -e : e; left > 0; left -= POWER_MAX) {
        double power = powers[left < POWER_MAX ? left : POWER_MAX];
        scaled = e < 0 ? scaled * power : scaled / power;
    }
    for (; scaled >= 999999999.5; e++)
        scaled /= 10;
    for (; scaled < 99999999.5; e--)
        scaled *= 10;
    *exponent = e;
    return (uint64_t)(scaled + 0.5);
}

static bool reads_back(uint64_t w, int exponent, float v)
{
    char digits[24];
    char *at = digits + sizeof digits, *end = at;
    uint64_t left = w;
    do
        *--at = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    struct decimal d = { .first = at, .end = end, .w = w, .exponent = exponent, .written = exponent };
    return to_float(&d) == v;
}

size_t kithi_json_write_float(char out[KITHI_JSON_FLOAT_MAX], float v)
{
    if (!isfinite(v)) {
        memcpy(out, "null", 5);
        return 4;
    }
    char *at = out;
    if (signbit(v))
        *at++ = '-';
    v = fabsf(v);
    if (v == 0.0f) {
        *at++ = '0';
        *at = '\0';
        return (size_t)(at - out);
    }

    /* Nine digits tell any float; most need fewer. */
    int e;
    uint64_t nine = nine_digits(v, &e), w = nine, unit = 1000;
    int best = e;
    for (int digits = 6; digits <= 9; digits++, unit /= 10) {
        w = (nine + unit / 2) / unit;
        best = e + 9 - digits;
        if (reads_back(w, best, v))
            break;
    }
    while (w % 10 == 0) {
        w /= 10;
        best++;
    }

    char digits[24];
    int n = 0;
    for (uint64_t left = w; left > 0; left /= 10)
        digits[n++] = (char)('0' + left % 10); /* last digit first */
    at = kithi_decimal_put(at, digits, n, n + best);
    *at = '\0';
    return (size_t)(at - out);
}

size_t kithi_json_write_string(char *out, size_t cap, const char *text, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    struct kithi_sink s = { .out = out, .cap = cap };
    const char *end = text + len;
    kithi_sink_put(&s, "\"", 1);
    for (const char *p = text; p < end;) {
        size_t n = kithi_utf8_step((const unsigned char *)p, (size_t)(end - p));
        unsigned char c = (unsigned char)*p;
        if (n == 0)
            kithi_sink_put(&s, "\xef\xbf\xbd", 3);
        else if (c == '"' || c == '\\')
            kithi_sink_put(&s, c == '"' ? "\\\"" : "\\\\", 2);
        else if (c == '\n' || c == '\t' || c == '\r')
            kithi_sink_put(&s, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r", 2);
        else if (c < 0x20 || c == 0x7f)
            kithi_sink_put(&s, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
        else
            kithi_sink_put(&s, p, n);
        p += n ? n : 1;
    }
    kithi_sink_put(&s, "\"", 1);
    return s.len;
}
