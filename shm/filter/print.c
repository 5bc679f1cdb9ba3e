/*
 * print.c - a filter as an expression: with the words of filter.h, single blanks, and parentheses only where they are needed.
 */
#include <string.h>

#include "shm/base/decimal.h"
#include "shm/base/sink.h"
#include "shm/filter/filter.h"

struct printer {
    struct kithi_sink to;
    const struct kithi_filter *f;
};

static void put(struct printer *p, const char *text, size_t n)
{
    kithi_sink_put(&p->to, text, n);
}

static void put_word(struct printer *p, const char *word)
{
    put(p, word, strlen(word));
}

static void put_quoted(struct printer *p, const char *text, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    put(p, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            put(p, c == '"' ? "\\\"" : "\\\\", 2);
        else if (c == '\n' || c == '\t' || c == '\r')
            put_word(p, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
        else if (c < 0x20 || c == 0x7f)
            put(p, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
        else
            put(p, text + i, 1);
    }
    put(p, "\"", 1);
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

static void put_field(struct printer *p, const struct kithi_filter_field *field)
{
    const char *key = p->f->text + field->off, *end = key + field->len;
    for (;;) {
        const char *dot = memchr(key, '.', (size_t)(end - key));
        size_t len = (size_t)((dot ? dot : end) - key);
        if (is_bare(key, len))
            put(p, key, len);
        else
            put_quoted(p, key, len);
        if (!dot)
            return;
        put(p, ".", 1);
        key = dot + 1;
    }
}

static void put_literal(struct printer *p, const struct kithi_filter_literal *l)
{
    char number[KITHI_DECIMAL_MAX];
    if (l->type == KITHI_PAYLOAD_STRING)
        put_quoted(p, p->f->text + l->off, l->len);
    else if (l->type == KITHI_PAYLOAD_DOUBLE)
        put(p, number, kithi_decimal_write(number, l->number));
    else if (l->type == KITHI_PAYLOAD_BOOL)
        put_word(p, l->integer ? "true" : "false");
    else
        kithi_sink_put_integer(&p->to, l->integer);
}

static void put_condition(struct printer *p, const struct kithi_filter_node *n)
{
    static const char *const signs[] = {
        [KITHI_FILTER_EQ] = " = ",   [KITHI_FILTER_NE] = " != ",          [KITHI_FILTER_LT] = " < ",
        [KITHI_FILTER_LE] = " <= ",  [KITHI_FILTER_GT] = " > ",           [KITHI_FILTER_GE] = " >= ",
        [KITHI_FILTER_IN] = " in (", [KITHI_FILTER_NOT_IN] = " not in (", [KITHI_FILTER_PREFIX] = ", ",
        [KITHI_FILTER_EXISTS] = ")"
    };
    const struct kithi_filter_literal *l = p->f->literals + n->first;
    if (n->op == KITHI_FILTER_PREFIX || n->op == KITHI_FILTER_EXISTS)
        put_word(p, n->op == KITHI_FILTER_PREFIX ? "prefix(" : "exists(");
    put_field(p, &p->f->fields[n->field]);
    put_word(p, signs[n->op]);
    for (uint32_t i = 0; i < n->count; i++) {
        put(p, ", ", i > 0 ? 2 : 0);
        put_literal(p, &l[i]);
    }
    if (n->op == KITHI_FILTER_IN || n->op == KITHI_FILTER_NOT_IN || n->op == KITHI_FILTER_PREFIX)
        put(p, ")", 1);
}

/* The node at `at`, inside of one of operation `outer` (0: of none). */
static void put_node(struct printer *p, uint32_t at, uint32_t outer)
{
    const struct kithi_filter_node *n = &p->f->nodes[at];
    if (n->op >= KITHI_FILTER_EQ) {
        put_condition(p, n);
        return;
    }
    bool inside =
        n->op != KITHI_FILTER_NOT && (outer == KITHI_FILTER_NOT || (n->op == KITHI_FILTER_OR && outer));
    put(p, "(", inside);
    for (uint32_t child = at + 1; child < n->behind; child = p->f->nodes[child].behind) {
        if (n->op == KITHI_FILTER_NOT)
            put_word(p, "not ");
        else if (child > at + 1)
            put_word(p, n->op == KITHI_FILTER_AND ? " and " : " or ");
        put_node(p, child, n->op);
    }
    put(p, ")", inside);
}

size_t kithi_filter_print(const struct kithi_filter *f, char *out, size_t cap)
{
    struct printer p = { .to = { .out = out, .cap = cap }, .f = f };
    put_node(&p, 0, 0);
    return p.to.len;
}
