/*
 * parse.c - an expression to a filter: one pass, one token ahead. See filter.h for the language.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/decimal.h"
#include "shm/base/escape.h"
#include "shm/base/utf8.h"
#include "shm/filter/build.h"

/* Digits of a number that is read; more of them change nothing that a double tells. */
#define NUMBER_MAX 400u
/* What is shown of an expression, on both sides of the place. */
#define SHOWN 30

enum token {
    TOKEN_END,
    TOKEN_NAME,   /* a field by its bare name, or a word */
    TOKEN_STRING, /* in quotes; unescaped in `value` */
    TOKEN_INTEGER,
    TOKEN_NUMBER,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_COMMA,
    TOKEN_DOT,
    TOKEN_COMPARE, /* op */
};

struct parser {
    const char *begin, *at, *end;
    struct kithi_filter_build *b;
    uint32_t depth;
    char *value; /* of a string, or a field; as long as the text at most */
    size_t value_len;

    enum token token;         /* that comes next */
    const char *first, *last; /* where it stands */
    enum kithi_filter_op op;
    int64_t integer;
    double number;

    const char *why; /* what is wrong; NULL while all is well */
    const char *where;
};

static int fail(struct parser *p, const char *where, const char *why)
{
    if (!p->why) {
        p->why = why;
        p->where = where;
    }
    return -1;
}

/* ---- tokens ---- */

/* Not isalpha(): that depends on the locale of the host program. Bytes of other alphabets are letters. */
static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The escape at *at (a backslash) to out; returns its bytes, 0 when it is none, and moves *at behind it. */
static size_t escape(const char **at, const char *end, char *out)
{
    static const char names[] = "\"'\\/bfnrt", values[] = "\"'\\/\b\f\n\r\t";
    const char *p = *at + 1;
    const char *name = p < end && *p ? strchr(names, *p) : NULL;
    if (name) {
        *at = p + 1;
        out[0] = values[name - names];
        return 1;
    }
    int n = kithi_escape_unicode(at, end, out);
    return n > 0 ? (size_t)n : 0;
}

static int take_string(struct parser *p)
{
    char quote = *p->at;
    const char *at = p->at + 1;
    p->value_len = 0;
    while (at < p->end && *at != quote) {
        const char *here = at;
        if (*at == '\\') {
            size_t n = escape(&at, p->end, p->value + p->value_len);
            if (n == 0)
                return fail(
                    p, here,
                    "not an escape: there are \\\" \\' \\\\ \\/ \\b \\f \\n \\r \\t and \\u with four hexadecimal digits");
            p->value_len += n;
            continue;
        }
        size_t n = kithi_utf8_step((const unsigned char *)at, (size_t)(p->end - at));
        if (n == 0)
            return fail(p, here, "not valid UTF-8");
        memcpy(p->value + p->value_len, at, n);
        p->value_len += n;
        at += n;
    }
    if (at == p->end)
        return fail(p, p->at, "a string that does not end");
    p->at = at + 1;
    p->token = TOKEN_STRING;
    return 0;
}

/* Digits without a point, with a sign; false: more than 64 bits. */
static bool to_integer(const char *at, const char *end, int64_t *out)
{
    bool minus = *at == '-';
    uint64_t v = 0, limit = (uint64_t)INT64_MAX + minus;
    for (at += minus; at < end; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (v > (limit - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *out = minus ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static const char *digits(const char *at, const char *end)
{
    while (at < end && is_digit(*at))
        at++;
    return at;
}

static int take_number(struct parser *p)
{
    const char *at = p->at + (*p->at == '-'), *whole = at;
    bool integer = true;
    at = digits(at, p->end);
    if (at == whole)
        return fail(p, p->at, "a digit must follow the sign");
    if (at < p->end && *at == '.') {
        integer = false;
        const char *point = ++at;
        at = digits(at, p->end);
        if (at == point)
            return fail(p, at, "a digit must follow the point");
    }
    if (at < p->end && (*at == 'e' || *at == 'E')) {
        integer = false;
        at++;
        at += at < p->end && (*at == '+' || *at == '-');
        const char *exponent = at;
        at = digits(at, p->end);
        if (at == exponent)
            return fail(p, at, "an exponent has no digits");
    }
    if (at < p->end && is_letter(*at))
        return fail(p, at, "a number ends here; a string is written in quotes");
    if (integer) {
        if (!to_integer(p->at, at, &p->integer))
            return fail(p, p->at, "an integer has more than 64 bits");
        p->token = TOKEN_INTEGER;
    } else {
        char text[NUMBER_MAX + 1];
        size_t len = (size_t)(at - p->at);
        if (len > NUMBER_MAX)
            return fail(p, p->at, "a number has too many digits");
        memcpy(text, p->at, len);
        text[len] = '\0';
        p->number = kithi_decimal_read(text);
        if (!isfinite(p->number))
            return fail(p, p->at, "a number is too large");
        p->token = TOKEN_NUMBER;
    }
    p->at = at;
    return 0;
}

static int take_name(struct parser *p)
{
    const char *at = p->at;
    while (at < p->end && (is_letter(*at) || is_digit(*at) || *at == '-'))
        at++;
    p->value_len = (size_t)(at - p->at);
    if (!kithi_utf8_valid(p->at, p->value_len))
        return fail(p, p->at, "not valid UTF-8");
    memcpy(p->value, p->at, p->value_len);
    p->at = at;
    p->token = TOKEN_NAME;
    return 0;
}

/* A comparison, one or two characters long. */
static int take_compare(struct parser *p)
{
    static const struct {
        char text[3];
        enum kithi_filter_op op;
    } all[] = { { "==", KITHI_FILTER_EQ }, { "!=", KITHI_FILTER_NE }, { "<>", KITHI_FILTER_NE },
                { "<=", KITHI_FILTER_LE }, { ">=", KITHI_FILTER_GE }, { "=", KITHI_FILTER_EQ },
                { "<", KITHI_FILTER_LT },  { ">", KITHI_FILTER_GT } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        size_t len = strlen(all[i].text);
        if ((size_t)(p->end - p->at) >= len && memcmp(p->at, all[i].text, len) == 0) {
            p->op = all[i].op;
            p->at += len;
            p->token = TOKEN_COMPARE;
            return 0;
        }
    }
    return fail(p, p->at, "nothing of the language begins like this");
}

/* On to the next token. 0, or -1 with what is wrong. */
static int next(struct parser *p)
{
    p->last = p->at;
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r'))
        p->at++;
    p->first = p->at;
    if (p->why)
        return -1;
    if (p->at == p->end) {
        p->token = TOKEN_END;
        return 0;
    }
    char c = *p->at;
    if (c == '"' || c == '\'')
        return take_string(p);
    if (is_digit(c) || c == '-')
        return take_number(p);
    if (is_letter(c))
        return take_name(p);
    if (c != '(' && c != ')' && c != ',' && c != '.')
        return take_compare(p);
    p->token = c == '(' ? TOKEN_OPEN : c == ')' ? TOKEN_CLOSE : c == ',' ? TOKEN_COMMA : TOKEN_DOT;
    p->at++;
    return 0;
}

/* Is the token this word? */
static bool is_word(const struct parser *p, const char *word)
{
    size_t len = strlen(word);
    if (p->token != TOKEN_NAME || p->value_len != len)
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((p->value[i] | 0x20) != word[i])
            return false;
    }
    return true;
}

static int expect(struct parser *p, enum token token, const char *why)
{
    return p->token == token ? next(p) : fail(p, p->first, why);
}

/* ---- conditions ---- */

static bool is_reserved(const struct parser *p)
{
    return is_word(p, "and") || is_word(p, "or") || is_word(p, "not") || is_word(p, "in") ||
           is_word(p, "true") || is_word(p, "false") || is_word(p, "null");
}

/* A path, into out (as long as the text at most), and the token behind it. */
static int field(struct parser *p, char *out, size_t *out_len)
{
    size_t len = 0;
    const char *begin = p->first;
    for (;;) {
        if (p->token == TOKEN_NAME && is_reserved(p))
            return fail(p, p->first,
                        p->first == begin
                            ? "expected a condition; a field of this name is written in \"quotes\""
                            : "a field of this name is written in \"quotes\"");
        if (p->token != TOKEN_NAME && p->token != TOKEN_STRING)
            return fail(p, p->first, p->first == begin ? "expected a field" : "expected the name of a field");
        memcpy(out + len, p->value, p->value_len);
        len += p->value_len;
        if (next(p) < 0)
            return -1;
        if (p->token != TOKEN_DOT)
            break;
        out[len++] = '.';
        if (next(p) < 0)
            return -1;
    }
    const char *why = kithi_payload_path_wrong(out, len);
    if (why)
        return fail(p, begin, why);
    *out_len = len;
    return 0;
}

static int value(struct parser *p)
{
    switch (p->token) {
    case TOKEN_STRING: kithi_filter_add_string(p->b, p->value, p->value_len); break;
    case TOKEN_INTEGER: kithi_filter_add_integer(p->b, p->integer); break;
    case TOKEN_NUMBER: kithi_filter_add_number(p->b, p->number); break;
    case TOKEN_NAME:
        if (is_word(p, "null"))
            return fail(p, p->first, "nothing is equal to null; exists() asks for a field");
        if (!is_word(p, "true") && !is_word(p, "false"))
            return fail(p, p->first, "expected a value; a string is written in quotes");
        kithi_filter_add_bool(p->b, is_word(p, "true"));
        break;
    default: return fail(p, p->first, "expected a value");
    }
    return next(p);
}

static int values(struct parser *p)
{
    if (expect(p, TOKEN_OPEN, "expected '('") < 0)
        return -1;
    for (;;) {
        if (value(p) < 0)
            return -1;
        if (p->token == TOKEN_CLOSE)
            return next(p);
        if (expect(p, TOKEN_COMMA, "expected ',' or ')'") < 0)
            return -1;
    }
}

/* The condition is known: add it, or say of its beginning what is wrong with it. */
static int add(struct parser *p, enum kithi_filter_op op, const char *path, size_t len, const char *begin)
{
    kithi_filter_add(p->b, op, path, len);
    return p->b->wrong ? fail(p, begin, p->b->wrong) : 0;
}

/* exists(...) or prefix(...), of which the name and the parenthesis are there. */
static int function(struct parser *p, char *path)
{
    bool prefix = is_word(p, "prefix");
    const char *begin = p->first;
    size_t len;
    if (next(p) < 0 || next(p) < 0 || field(p, path, &len) < 0)
        return -1;
    if (prefix) {
        if (expect(p, TOKEN_COMMA, "expected ',' and the string that the field begins with") < 0)
            return -1;
        if (p->token != TOKEN_STRING)
            return fail(p, p->first, "expected a string");
        if (value(p) < 0)
            return -1;
    }
    if (expect(p, TOKEN_CLOSE, "expected ')'") < 0)
        return -1;
    return add(p, prefix ? KITHI_FILTER_PREFIX : KITHI_FILTER_EXISTS, path, len, begin);
}

static bool is_function(const struct parser *p)
{
    const char *at = p->at;
    if (!is_word(p, "exists") && !is_word(p, "prefix"))
        return false;
    while (at < p->end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at < p->end && *at == '(';
}

static int condition_in(struct parser *p, char *path)
{
    const char *begin = p->first;
    size_t len;
    if (is_function(p))
        return function(p, path);
    if (field(p, path, &len) < 0)
        return -1;
    if (p->token == TOKEN_COMPARE) {
        enum kithi_filter_op op = p->op;
        if (next(p) < 0 || value(p) < 0)
            return -1;
        return add(p, op, path, len, begin);
    }
    bool not = is_word(p, "not");
    if (not &&next(p) < 0)
        return -1;
    if (!is_word(p, "in"))
        return fail(p, p->first, not ? "expected 'in'" : "expected = != < <= > >= or 'in'");
    if (next(p) < 0 || values(p) < 0)
        return -1;
    return add(p, not ? KITHI_FILTER_NOT_IN : KITHI_FILTER_IN, path, len, begin);
}

static int condition(struct parser *p)
{
    char *path = malloc((size_t)(p->end - p->begin) + 1);
    if (!path)
        return fail(p, p->first, "out of memory");
    int rc = condition_in(p, path);
    free(path);
    return rc;
}

/* ---- what joins them ---- */

static int any(struct parser *p);

static int one(struct parser *p)
{
    uint32_t mark = kithi_filter_mark(p->b);
    bool not = is_word(p, "not"), inside = p->token == TOKEN_OPEN;
    if (!not &&!inside)
        return condition(p);
    const char *begin = p->first;
    if (++p->depth > KITHI_FILTER_DEPTH_MAX)
        return fail(p, begin, "a filter is nested too deeply");
    if (next(p) < 0 || (inside ? any(p) : one(p)) < 0)
        return -1;
    if (inside && expect(p, TOKEN_CLOSE, "expected 'and', 'or' or ')'") < 0)
        return -1;
    p->depth--;
    if (not )
        kithi_filter_join(p->b, KITHI_FILTER_NOT, mark);
    return p->b->wrong ? fail(p, begin, p->b->wrong) : 0;
}

/* What `word` stands between, each of them read by `part`. */
static int joined(struct parser *p, const char *word, enum kithi_filter_op op, int (*part)(struct parser *))
{
    uint32_t mark = kithi_filter_mark(p->b);
    const char *begin = p->first;
    for (;;) {
        if (part(p) < 0)
            return -1;
        if (!is_word(p, word))
            break;
        if (next(p) < 0)
            return -1;
    }
    kithi_filter_join(p->b, op, mark);
    return p->b->wrong ? fail(p, begin, p->b->wrong) : 0;
}

static int all(struct parser *p)
{
    return joined(p, "and", KITHI_FILTER_AND, one);
}

static int any(struct parser *p)
{
    return joined(p, "or", KITHI_FILTER_OR, all);
}

/* ---- errors ---- */

/* Moves at by whole characters, so many of them at most, without leaving begin..end. */
static const char *step_back(const char *at, const char *begin, int count)
{
    for (; count > 0 && at > begin; count--) {
        do
            at--;
        while (at > begin && ((unsigned char)*at & 0xc0) == 0x80);
    }
    return at;
}

static const char *step_on(const char *at, const char *end, int count)
{
    for (; count > 0 && at < end; count--) {
        do
            at++;
        while (at < end && ((unsigned char)*at & 0xc0) == 0x80);
    }
    return at;
}

/* What is wrong, the expression around the place, and a caret under it. */
static int report(const struct parser *p, struct kithi_errmsg *err)
{
    const char *from = step_back(p->where, p->begin, SHOWN), *to = step_on(p->where, p->end, SHOWN);
    char shown[8 * SHOWN + 8], caret[SHOWN + 8];
    size_t len = 0, blanks = 0;
    for (const char *at = from; at < to; at++)
        shown[len++] = (unsigned char)*at < 0x20 || *at == 0x7f ? ' ' : *at;
    shown[len] = '\0';
    for (const char *at = from; at < p->where; at = step_on(at, p->where, 1))
        caret[blanks++] = ' ';
    caret[blanks] = '\0';
    return kithi_error_set(err, KITHI_E_FILTER, "filter: %s\n  %s%s%s\n  %s%s^", p->why,
                           from > p->begin ? "..." : "", shown, to < p->end ? "..." : "",
                           from > p->begin ? "   " : "", caret);
}

static int parse(struct parser *p, struct kithi_filter **out, struct kithi_errmsg *err)
{
    if (next(p) == 0 && p->token == TOKEN_END)
        fail(p, p->at, "there is no condition");
    else if (!p->why && any(p) == 0 && p->token != TOKEN_END)
        fail(p, p->first, "expected 'and', 'or' or the end");
    if (p->why) {
        free(p->b);
        return report(p, err);
    }
    int rc = kithi_filter_end(p->b, out, &p->why);
    p->where = p->begin;
    return rc == KITHI_E_FILTER ? report(p, err) : rc < 0 ? kithi_error_set(err, rc, "out of memory") : 0;
}

int kithi_filter_parse(const char *text, size_t len, struct kithi_filter **out, struct kithi_errmsg *err)
{
    struct parser p = { .begin = text, .at = text, .end = text + len };
    if (len > KITHI_FILTER_TEXT_MAX)
        return kithi_error_set(err, KITHI_E_FILTER, "filter: it has %zu bytes, and may have %u", len,
                               KITHI_FILTER_TEXT_MAX);
    p.b = kithi_filter_begin();
    p.value = malloc(len + 1);
    int rc = p.b && p.value ? parse(&p, out, err) : kithi_error_set(err, -ENOMEM, "out of memory");
    if (!p.value)
        free(p.b);
    free(p.value);
    return rc;
}
