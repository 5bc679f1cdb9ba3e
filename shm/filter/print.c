/*
 * print.c - a filter as an expression: with the words of filter.h, single blanks, and parentheses only where they are needed.
 */
#include <string.h>

#include "shm/base/decimal.h"
#include "shm/filter/filter.h"

/* What fits is written; what does not is counted. */
struct sink {
    const struct kithi_filter *f;
    char *out;
    size_t cap, len;
};

static void put(struct sink *s, const char *text, size_t n)
{
    if (s->len < s->cap) {
        size_t room = s->cap - s->len;
        memcpy(s->out + s->len, text, n < room ? n : room);
    }
    s->len += n;
}

static void put_word(struct sink *s, const char *word)
{
    put(s, word, strlen(word));
}

static void put_quoted(struct sink *s, const char *text, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    put(s, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            put(s, c == '"' ? "\\\"" : "\\\\", 2);
        else if (c == '\n' || c == '\t' || c == '\r')
            put_word(s, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
        else if (c < 0x20 || c == 0x7f)
            put(s, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
        else
            put(s, text + i, 1);
    }
    put(s, "\"", 1);
}

static void put_integer(struct sink *s, int64_t v)
{
    char digits[24], *at = digits + sizeof digits;
    uint64_t left = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do
        *--at = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    if (v < 0)
        *--at = '-';
    put(s, at, (size_t)(digits + sizeof digits - at));
}

static bool is_word(const char *key, size_t len)
{
    static const char *const words[] = {
        "and", "or", "not", "in", "true", "false", "null", "exists", "prefix"
    };
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
        size_t i = 0;
        while (i < len && words[w][i] && (key[i] | 0x20) == words[w][i])
            i++;
        if (i == len && !words[w][i])
            return true;
    }
    return false;
}

/* A key that needs no quotes. */
static bool is_bare(const char *key, size_t len)
{
    if (key[0] == '-' || (key[0] >= '0' && key[0] <= '9') || is_word(key, len))
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = key[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
              c == '-'))
            return false;
    }
    return true;
}

static void put_field(struct sink *s, const struct kithi_filter_field *field)
{
    const char *key = s->f->text + field->off, *end = key + field->len;
    for (;;) {
        const char *dot = memchr(key, '.', (size_t)(end - key));
        size_t len = (size_t)((dot ? dot : end) - key);
        if (is_bare(key, len))
            put(s, key, len);
        else
            put_quoted(s, key, len);
        if (!dot)
            return;
        put(s, ".", 1);
        key = dot + 1;
    }
}

static void put_literal(struct sink *s, const struct kithi_filter_literal *l)
{
    char number[KITHI_DECIMAL_MAX];
    if (l->type == KITHI_PAYLOAD_STRING)
        put_quoted(s, s->f->text + l->off, l->len);
    else if (l->type == KITHI_PAYLOAD_DOUBLE)
        put(s, number, kithi_decimal_write(number, l->number));
    else if (l->type == KITHI_PAYLOAD_BOOL)
        put_word(s, l->integer ? "true" : "false");
    else
        put_integer(s, l->integer);
}

static void put_condition(struct sink *s, const struct kithi_filter_node *n)
{
    static const char *const signs[] = {
        [KITHI_FILTER_EQ] = " = ",   [KITHI_FILTER_NE] = " != ",          [KITHI_FILTER_LT] = " < ",
        [KITHI_FILTER_LE] = " <= ",  [KITHI_FILTER_GT] = " > ",           [KITHI_FILTER_GE] = " >= ",
        [KITHI_FILTER_IN] = " in (", [KITHI_FILTER_NOT_IN] = " not in (", [KITHI_FILTER_PREFIX] = ", ",
        [KITHI_FILTER_EXISTS] = ")"
    };
    const struct kithi_filter_literal *l = s->f->literals + n->first;
    if (n->op == KITHI_FILTER_PREFIX || n->op == KITHI_FILTER_EXISTS)
        put_word(s, n->op == KITHI_FILTER_PREFIX ? "prefix(" : "exists(");
    put_field(s, &s->f->fields[n->field]);
    put_word(s, signs[n->op]);
    for (uint32_t i = 0; i < n->count; i++) {
        put(s, ", ", i > 0 ? 2 : 0);
        put_literal(s, &l[i]);
    }
    if (n->op == KITHI_FILTER_IN || n->op == KITHI_FILTER_NOT_IN || n->op == KITHI_FILTER_PREFIX)
        put(s, ")", 1);
}

/* The node at `at`, inside of one of operation `outer` (0: of none). */
static void put_node(struct sink *s, uint32_t at, uint32_t outer)
{
    const struct kithi_filter_node *n = &s->f->nodes[at];
    if (n->op >= KITHI_FILTER_EQ) {
        put_condition(s, n);
        return;
    }
    bool inside =
        n->op != KITHI_FILTER_NOT && (outer == KITHI_FILTER_NOT || (n->op == KITHI_FILTER_OR && outer));
    put(s, "(", inside);
    for (uint32_t child = at + 1; child < n->behind; child = s->f->nodes[child].behind) {
        if (n->op == KITHI_FILTER_NOT)
            put_word(s, "not ");
        else if (child > at + 1)
            put_word(s, n->op == KITHI_FILTER_AND ? " and " : " or ");
        put_node(s, child, n->op);
    }
    put(s, ")", inside);
}

size_t kithi_filter_print(const struct kithi_filter *f, char *out, size_t cap)
{
    struct sink s = { .f = f, .out = out, .cap = cap };
    put_node(&s, 0, 0);
    return s.len;
}
