/*
 * build.c - see build.h.
 */
#include "shm/filter/build.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/utf8.h"
#include "shm/filter/order_priv.h"

static const char too_long[] = "a filter is too long: too many conditions, values, fields or bytes of text";

struct kithi_filter_build *kithi_filter_begin(void)
{
    struct kithi_filter_build *b = malloc(sizeof *b);
    if (b) {
        b->node_count = b->literal_count = b->field_count = b->text_len = 0;
        b->wrong = NULL;
    }
    return b;
}

static void fail(struct kithi_filter_build *b, const char *why)
{
    if (!b->wrong)
        b->wrong = why;
}

static bool has_room(struct kithi_filter_build *b, uint32_t used, size_t more, size_t all)
{
    if (b->wrong)
        return false;
    if (more > all - used)
        fail(b, too_long);
    return !b->wrong;
}

/* ---- literals ---- */

/* Literals before those of the condition that is being made. */
static uint32_t first_literal(const struct kithi_filter_build *b)
{
    return b->node_count ? b->nodes[b->node_count - 1].first + b->nodes[b->node_count - 1].count : 0;
}

static void add_literal(struct kithi_filter_build *b, const struct kithi_filter_literal *l)
{
    if (has_room(b, b->literal_count, 1, KITHI_FILTER_LITERAL_MAX))
        b->literals[b->literal_count++] = *l;
}

static uint32_t add_text(struct kithi_filter_build *b, const char *text, size_t len)
{
    uint32_t off = b->text_len;
    if (has_room(b, off, len, KITHI_FILTER_TEXT_MAX)) {
        memcpy(b->text + off, text, len);
        b->text_len += (uint32_t)len;
    }
    return off;
}

void kithi_filter_add_string(struct kithi_filter_build *b, const char *text, size_t len)
{
    if (!kithi_utf8_valid(text, len))
        fail(b, "a string is not valid UTF-8");
    uint32_t off = add_text(b, text, len);
    add_literal(
        b, &(struct kithi_filter_literal){ .type = KITHI_PAYLOAD_STRING, .off = off, .len = (uint32_t)len });
}

void kithi_filter_add_integer(struct kithi_filter_build *b, int64_t v)
{
    add_literal(b, &(struct kithi_filter_literal){ .type = KITHI_PAYLOAD_INT64, .integer = v });
}

void kithi_filter_add_number(struct kithi_filter_build *b, double v)
{
    if (!isfinite(v))
        fail(b, "a number is not finite");
    add_literal(b, &(struct kithi_filter_literal){ .type = KITHI_PAYLOAD_DOUBLE, .number = v });
}

void kithi_filter_add_bool(struct kithi_filter_build *b, bool v)
{
    add_literal(b, &(struct kithi_filter_literal){ .type = KITHI_PAYLOAD_BOOL, .integer = v });
}

static enum kithi_filter_kind kind_of(enum kithi_payload_type type)
{
    return type == KITHI_PAYLOAD_STRING ? KITHI_FILTER_STRING
           : type == KITHI_PAYLOAD_BOOL ? KITHI_FILTER_BOOL
                                        : KITHI_FILTER_NUMBER;
}

/* Of one kind. */
static int order_literals(const struct kithi_filter_literal *a, const struct kithi_filter_literal *b,
                          const char *text)
{
    if (a->type == KITHI_PAYLOAD_STRING) {
        int order = memcmp(text + a->off, text + b->off, a->len < b->len ? a->len : b->len);
        return order ? order : (a->len > b->len) - (a->len < b->len);
    }
    if (a->type == KITHI_PAYLOAD_DOUBLE)
        return b->type == KITHI_PAYLOAD_DOUBLE ? kithi_order_doubles(a->number, b->number)
                                               : -kithi_order_mixed(b->integer, a->number);
    return b->type == KITHI_PAYLOAD_DOUBLE ? kithi_order_mixed(a->integer, b->number)
                                           : kithi_order_integers(a->integer, b->integer);
}

static int by_order(const void *a, const void *b, void *text)
{
    return order_literals(a, b, text);
}

/* The literals from first on, rising and none twice. */
static void sort_literals(struct kithi_filter_build *b, uint32_t first)
{
    uint32_t count = b->literal_count - first, kept = 0;
    struct kithi_filter_literal *l = b->literals + first;
    qsort_r(l, count, sizeof *l, by_order, b->text);
    for (uint32_t i = 0; i < count; i++) {
        if (kept == 0 || order_literals(&l[kept - 1], &l[i], b->text) != 0)
            l[kept++] = l[i];
    }
    b->literal_count = first + kept;
}

/* ---- conditions ---- */

/* The number of a field, which is added when it is a new one. */
static uint16_t field_of(struct kithi_filter_build *b, const char *path, size_t len)
{
    for (uint32_t i = 0; i < b->field_count; i++) {
        if (b->fields[i].len == len && memcmp(b->text + b->fields[i].off, path, len) == 0)
            return (uint16_t)i;
    }
    const char *why = kithi_payload_path_wrong(path, len);
    if (why)
        fail(b, why);
    uint32_t off = add_text(b, path, len);
    if (has_room(b, b->field_count, 1, KITHI_FILTER_FIELD_MAX))
        b->fields[b->field_count++] = (struct kithi_filter_field){ .off = off, .len = (uint32_t)len };
    return (uint16_t)(b->field_count - 1);
}

/* What is wrong with an operation on these literals; NULL: nothing. */
static const char *check_literals(const struct kithi_filter_build *b, enum kithi_filter_op op, uint32_t first)
{
    uint32_t count = b->literal_count - first;
    enum kithi_filter_kind kind = count ? kind_of(b->literals[first].type) : KITHI_FILTER_NONE;
    bool list = op == KITHI_FILTER_IN || op == KITHI_FILTER_NOT_IN;
    if (op == KITHI_FILTER_EXISTS ? count != 0 : list ? count == 0 : count != 1)
        return "a condition has the wrong number of values";
    for (uint32_t i = first; i < b->literal_count; i++) {
        if (kind_of(b->literals[i].type) != kind)
            return "values of a list are of different types";
    }
    if (op == KITHI_FILTER_PREFIX && kind != KITHI_FILTER_STRING)
        return "a prefix is a string";
    if (op >= KITHI_FILTER_LT && op <= KITHI_FILTER_GE && kind == KITHI_FILTER_BOOL)
        return "true and false have no order";
    return NULL;
}

void kithi_filter_add(struct kithi_filter_build *b, enum kithi_filter_op op, const char *path,
                      size_t path_len)
{
    uint32_t first = first_literal(b);
    const char *why = b->wrong ? b->wrong : check_literals(b, op, first);
    if (why)
        fail(b, why);
    if (op < KITHI_FILTER_EQ || op > KITHI_FILTER_EXISTS)
        fail(b, "not a condition");
    uint16_t field = b->wrong ? 0 : field_of(b, path, path_len);
    if (!has_room(b, b->node_count, 1, KITHI_FILTER_NODE_MAX))
        return;
    if (op == KITHI_FILTER_IN || op == KITHI_FILTER_NOT_IN) {
        sort_literals(b, first);
        if (b->literal_count - first == 1)
            op = op == KITHI_FILTER_IN ? KITHI_FILTER_EQ : KITHI_FILTER_NE;
    }
    struct kithi_filter_node *n = &b->nodes[b->node_count++];
    *n = (struct kithi_filter_node){
        .op = (uint8_t)op,
        .kind = (uint8_t)(op == KITHI_FILTER_EXISTS ? KITHI_FILTER_NONE : kind_of(b->literals[first].type)),
        .field = field,
        .first = first,
        .count = b->literal_count - first,
        .behind = b->node_count,
    };
}

void kithi_filter_add_filter(struct kithi_filter_build *b, const struct kithi_filter *f)
{
    uint32_t at = b->node_count;
    for (uint32_t i = 0; i < f->node_count && !b->wrong; i++) {
        const struct kithi_filter_node *n = &f->nodes[i];
        uint32_t first = b->literal_count;
        for (uint32_t k = n->first; k < n->first + n->count; k++) {
            struct kithi_filter_literal l = f->literals[k];
            if (l.type == KITHI_PAYLOAD_STRING)
                l.off = add_text(b, f->text + l.off, l.len);
            add_literal(b, &l);
        }
        const struct kithi_filter_field *from = &f->fields[n->field];
        uint16_t field = n->op >= KITHI_FILTER_EQ ? field_of(b, f->text + from->off, from->len) : 0;
        if (!has_room(b, b->node_count, 1, KITHI_FILTER_NODE_MAX))
            return;
        b->nodes[b->node_count++] = (struct kithi_filter_node){ .op = n->op,
                                                                .kind = n->kind,
                                                                .field = field,
                                                                .first = first,
                                                                .count = n->count,
                                                                .behind = at + n->behind };
    }
}

/* ---- joining ---- */

/* Nodes from `from` on move by one place, and with them what they say about places. */
static void move_nodes(struct kithi_filter_build *b, uint32_t from, int by)
{
    memmove(&b->nodes[(int)from + by], &b->nodes[from], (b->node_count - from) * sizeof *b->nodes);
    b->node_count = (uint32_t)((int)b->node_count + by);
    for (uint32_t i = (uint32_t)((int)from + by); i < b->node_count; i++)
        b->nodes[i].behind = (uint32_t)((int)b->nodes[i].behind + by);
}

void kithi_filter_join(struct kithi_filter_build *b, enum kithi_filter_op op, uint32_t mark)
{
    if (b->wrong || b->node_count == mark) {
        fail(b, "nothing to join");
        return;
    }
    bool one = b->nodes[mark].behind == b->node_count;
    if (op == KITHI_FILTER_NOT && one && b->nodes[mark].op == KITHI_FILTER_NOT) {
        move_nodes(b, mark + 1, -1); /* not not */
        return;
    }
    if (op != KITHI_FILTER_NOT && one)
        return;
    /* What is joined in the same way is one with this. */
    for (uint32_t i = mark; op != KITHI_FILTER_NOT && i < b->node_count;) {
        if (b->nodes[i].op == op)
            move_nodes(b, i + 1, -1);
        else
            i = b->nodes[i].behind;
    }
    if (!has_room(b, b->node_count, 1, KITHI_FILTER_NODE_MAX))
        return;
    uint32_t literal = mark ? b->nodes[mark - 1].first + b->nodes[mark - 1].count : 0;
    move_nodes(b, mark, 1);
    b->nodes[mark] =
        (struct kithi_filter_node){ .op = (uint8_t)op, .first = literal, .behind = b->node_count };
}

/* Levels of what is inside each other. The evaluation goes down as deep. */
static bool is_deep(const struct kithi_filter_build *b)
{
    uint32_t behind[KITHI_FILTER_DEPTH_MAX], depth = 0;
    for (uint32_t i = 0; i < b->node_count; i++) {
        while (depth > 0 && behind[depth - 1] <= i)
            depth--;
        if (depth == KITHI_FILTER_DEPTH_MAX)
            return true;
        behind[depth++] = b->nodes[i].behind;
    }
    return false;
}

static struct kithi_filter *pack(const struct kithi_filter_build *b)
{
    size_t nodes = b->node_count * sizeof *b->nodes, literals = b->literal_count * sizeof *b->literals;
    size_t fields = b->field_count * sizeof *b->fields;
    struct kithi_filter *f = malloc(sizeof *f + literals + nodes + fields + b->text_len);
    if (!f)
        return NULL;
    unsigned char *at = (unsigned char *)(f + 1);
    *f = (struct kithi_filter){ .node_count = b->node_count,
                                .literal_count = b->literal_count,
                                .field_count = b->field_count,
                                .text_len = b->text_len };
    f->literals = memcpy(at, b->literals, literals);
    f->nodes = memcpy(at + literals, b->nodes, nodes);
    f->fields = memcpy(at + literals + nodes, b->fields, fields);
    f->text = memcpy(at + literals + nodes + fields, b->text, b->text_len);
    return f;
}

int kithi_filter_end(struct kithi_filter_build *b, struct kithi_filter **out, const char **out_why)
{
    int rc = 0;
    if (b->node_count == 0 || b->nodes[0].behind != b->node_count)
        fail(b, "a filter has no condition");
    if (!b->wrong && is_deep(b))
        fail(b, "a filter is nested too deeply");
    if (out_why)
        *out_why = b->wrong;
    struct kithi_filter *f = NULL;
    if (b->wrong)
        rc = KITHI_E_FILTER;
    else if (!(f = pack(b)))
        rc = -ENOMEM;
    else
        *out = f;
    free(b);
    return rc;
}

void kithi_filter_free(struct kithi_filter *f)
{
    free(f);
}

bool kithi_filter_same(const struct kithi_filter *a, const struct kithi_filter *b)
{
    /* Both are printed from the same form by the same code, and one form has one text. */
    size_t len = kithi_filter_print(a, NULL, 0);
    if (kithi_filter_print(b, NULL, 0) != len)
        return false;
    char *one = malloc(2 * len + 1);
    if (!one)
        return false;
    kithi_filter_print(a, one, len);
    kithi_filter_print(b, one + len, len);
    bool same = memcmp(one, one + len, len) == 0;
    free(one);
    return same;
}
