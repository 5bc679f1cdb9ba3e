/*
 * filter.h - conditions on payloads: one language, one parser, one form that is evaluated.
 *
 *     lang = "AAA" and chars >= 40 and not (tags in ("x", "y") or prefix(title, "The "))
 *
 *     filter     = all { "or" all }                  all       = one { "and" one }
 *     one        = "not" one | "(" filter ")" | condition
 *     condition  = field ("=" | "!=" | "<" | "<=" | ">" | ">=") value
 *                | field ["not"] "in" "(" value { "," value } ")"
 *                | "exists" "(" field ")" | "prefix" "(" field "," string ")"
 *     field      = name { "." name }                 name: letters, digits, _ and -, not a digit first; any key in "quotes"
 *     value      = string | number | "true" | "false"   string: in "quotes" or 'quotes', with the escapes of JSON and \'
 *
 * Words of the language may be written in capitals. == and <> are = and !=.
 *
 * What is true
 *   - A condition on a field that a payload does not have, or that is null there, is false, != and not in among them; only
 *     `not` makes something true of it. exists(field) asks for that; an object exists, too.
 *   - An array is every one of its elements: a condition is true when it is true of one (= says that the array contains the value);
 *     != and not in are true when they are true of all.
 *   - Integers and doubles are numbers, compared exactly, whatever their sizes. Strings are ordered by their bytes.
 *   - Types do not mix: a string and a number are not compared. When a payload that is looked at holds a field as another type than
 *     the filter compares it with, the evaluation ends with that, and so does the search. `and` and `or` look at what is right of
 *     them only where it matters, from left to right: kind = "x" and size > 3 asks only those of kind x for a size.
 *
 * A compiled filter is one block of memory, never changed, to be used by any number of threads. It is bounded (below), and
 * so is the time of an evaluation: nodes times the elements of an array.
 */
#ifndef KITHI_FILTER_FILTER_H
#define KITHI_FILTER_FILTER_H

#include "shm/base/error.h"
#include "shm/payload/payload.h"

#define KITHI_FILTER_TEXT_MAX                                                                                \
    32768u /* bytes of an expression, and of all strings and field names of a filter */
#define KITHI_FILTER_NODE_MAX    1024u
#define KITHI_FILTER_LITERAL_MAX 4096u
#define KITHI_FILTER_FIELD_MAX   64u
#define KITHI_FILTER_DEPTH_MAX   64u

enum kithi_filter_op {
    KITHI_FILTER_AND = 1,
    KITHI_FILTER_OR = 2,
    KITHI_FILTER_NOT = 3,
    KITHI_FILTER_EQ = 4,
    KITHI_FILTER_NE = 5,
    KITHI_FILTER_LT = 6,
    KITHI_FILTER_LE = 7,
    KITHI_FILTER_GT = 8,
    KITHI_FILTER_GE = 9,
    KITHI_FILTER_IN = 10,
    KITHI_FILTER_NOT_IN = 11,
    KITHI_FILTER_PREFIX = 12,
    KITHI_FILTER_EXISTS = 13,
};

/* What is compared with what: kinds do not mix. */
enum kithi_filter_kind {
    KITHI_FILTER_NONE = 0, /* exists() */
    KITHI_FILTER_STRING = 1,
    KITHI_FILTER_NUMBER = 2,
    KITHI_FILTER_BOOL = 3,
};

struct kithi_filter_literal {
    enum kithi_payload_type type; /* STRING, INT64, DOUBLE or BOOL */
    uint32_t off, len;            /* of a STRING, in the text of the filter */
    int64_t integer;              /* of INT64 and BOOL */
    double number;
};

/* Conditions and what joins them, each before what it is made of. */
struct kithi_filter_node {
    uint8_t op;      /* enum kithi_filter_op */
    uint8_t kind;    /* enum kithi_filter_kind of the literals */
    uint16_t field;  /* of a condition */
    uint32_t first;  /* literal */
    uint32_t count;  /* of them */
    uint32_t behind; /* the node that follows this one and all it is made of */
};

struct kithi_filter_field {
    uint32_t off, len; /* a dotted path, in the text of the filter */
};

struct kithi_filter {
    uint32_t node_count, literal_count, field_count, text_len;
    const struct kithi_filter_node *nodes;
    const struct kithi_filter_literal *literals; /* of a list: rising, none twice */
    const struct kithi_filter_field *fields;
    const char *text;
};

/* What evaluations came by. Zero before the first. */
struct kithi_filter_look {
    uint64_t seen;  /* a bit for each field that a payload had */
    uint64_t count; /* payloads that were evaluated */
    /* The first types that did not go together: */
    uint32_t field;
    enum kithi_payload_type holds;  /* 0: all did */
    enum kithi_filter_kind against; /* what the filter compares it with */
};

/*
 * Compile an expression. 0; KITHI_E_FILTER with a text of err (may be NULL) that says what is wrong and shows where, over
 * three lines; -ENOMEM. *out is freed with kithi_filter_free().
 */
int kithi_filter_parse(const char *text, size_t len, struct kithi_filter **out, struct kithi_errmsg *err);

/* Accepts NULL. */
void kithi_filter_free(struct kithi_filter *f);

/*
 * Is it true of a payload? p NULL or without bytes: of one that has no fields. 1, 0, or KITHI_E_FILTER when types do not go
 * together, which look then has. The payload's bytes may be anybody's, and change meanwhile; what comes out is then to be
 * dropped. look may not be NULL.
 */
int kithi_filter_eval(const struct kithi_filter *f, const struct kithi_payload *p,
                      struct kithi_filter_look *look);

/* Which fields p has, besides those already seen. For samples, and for evaluations that looked at some fields only. */
void kithi_filter_see(const struct kithi_filter *f, const struct kithi_payload *p,
                      struct kithi_filter_look *look);

/* Fields of the filter that nothing had: a bit for each. */
static inline uint64_t kithi_filter_unseen(const struct kithi_filter *f, const struct kithi_filter_look *look)
{
    uint64_t all = f->field_count == 64 ? UINT64_MAX : (UINT64_C(1) << f->field_count) - 1;
    return all & ~look->seen;
}

/* Fill err with what did not go together, and return KITHI_E_FILTER. */
int kithi_filter_mixed(const struct kithi_filter *f, const struct kithi_filter_look *look,
                       struct kithi_errmsg *err);

/*
 * The filter as an expression, always the same for the same conditions: it parses to an equal filter. Writes at most cap bytes and
 * no NUL; returns the length of the whole.
 */
size_t kithi_filter_print(const struct kithi_filter *f, char *out, size_t cap);

/* The same bytes, so the same conditions in the same order. */
bool kithi_filter_same(const struct kithi_filter *a, const struct kithi_filter *b);

#endif
