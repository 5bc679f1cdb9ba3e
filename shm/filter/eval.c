/*
 * eval.c - is a filter true of a payload? Reads bytes that nobody has checked, see shm/payload/payload.h.
 */
#include <string.h>

#include "shm/filter/filter.h"
#include "shm/filter/order_priv.h"
#include "shm/sync/slotbytes.h"

/* Of a condition and of what is made of them. MIXED: types do not go together. */
enum { FALSE = 0, TRUE = 1, MIXED = KITHI_E_FILTER };

struct eval {
    const struct kithi_filter *f;
    const struct kithi_payload *p;
    struct kithi_filter_look *look;
};

/* A value of the payload against a literal of its kind: as memcmp(). */
static int order(const struct eval *e, const struct kithi_value *v, const struct kithi_filter_literal *l)
{
    if (v->type == KITHI_PAYLOAD_STRING) {
        uint32_t both = v->len < l->len ? v->len : l->len;
        int o = -kithi_slot_compare(e->f->text + l->off, e->p->bytes + v->off, both);
        return o ? o : (v->len > l->len) - (v->len < l->len);
    }
    if (v->type == KITHI_PAYLOAD_DOUBLE)
        return l->type == KITHI_PAYLOAD_DOUBLE ? kithi_order_doubles(v->number, l->number)
                                               : -kithi_order_mixed(l->integer, v->number);
    return l->type == KITHI_PAYLOAD_DOUBLE ? kithi_order_mixed(v->integer, l->number)
                                           : kithi_order_integers(v->integer, l->integer);
}

/* Is v among the literals, which rise? */
static bool is_among(const struct eval *e, const struct kithi_value *v, const struct kithi_filter_node *n)
{
    uint32_t low = n->first, high = n->first + n->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int o = order(e, v, &e->f->literals[middle]);
        if (o == 0)
            return true;
        if (o < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

static bool has_prefix(const struct eval *e, const struct kithi_value *v,
                       const struct kithi_filter_literal *l)
{
    return v->len >= l->len && kithi_slot_compare(e->f->text + l->off, e->p->bytes + v->off, l->len) == 0;
}

/* A condition on one value, which is of its kind. != and not in are asked as = and in. */
static bool holds(const struct eval *e, const struct kithi_value *v, const struct kithi_filter_node *n)
{
    const struct kithi_filter_literal *l = &e->f->literals[n->first];
    switch (n->op) {
    case KITHI_FILTER_EQ:
    case KITHI_FILTER_NE:
        if (v->type == KITHI_PAYLOAD_STRING && v->len != l->len)
            return false;
        return order(e, v, l) == 0;
    case KITHI_FILTER_LT: return order(e, v, l) < 0;
    case KITHI_FILTER_LE: return order(e, v, l) <= 0;
    case KITHI_FILTER_GT: return order(e, v, l) > 0;
    case KITHI_FILTER_GE: return order(e, v, l) >= 0;
    case KITHI_FILTER_IN:
    case KITHI_FILTER_NOT_IN: return is_among(e, v, n);
    case KITHI_FILTER_PREFIX: return has_prefix(e, v, l);
    default: return false;
    }
}

static enum kithi_filter_kind kind_of(enum kithi_payload_type type)
{
    switch (type) {
    case KITHI_PAYLOAD_BOOL: return KITHI_FILTER_BOOL;
    case KITHI_PAYLOAD_STRING:
    case KITHI_PAYLOAD_STRINGS: return KITHI_FILTER_STRING;
    case KITHI_PAYLOAD_NULL:
    case KITHI_PAYLOAD_OBJECT: return KITHI_FILTER_NONE;
    default: return KITHI_FILTER_NUMBER;
    }
}

static int mixed(const struct eval *e, const struct kithi_filter_node *n, const struct kithi_value *v)
{
    if (!e->look->holds) {
        e->look->field = n->field;
        e->look->holds = v->type;
        e->look->against = (enum kithi_filter_kind)n->kind;
    }
    return MIXED;
}

static int condition(const struct eval *e, const struct kithi_filter_node *n)
{
    const struct kithi_filter_field *field = &e->f->fields[n->field];
    struct kithi_value v, element;
    if (!e->p || !kithi_payload_find(e->p, e->f->text + field->off, field->len, &v))
        return FALSE;
    e->look->seen |= UINT64_C(1) << n->field;
    if (v.type == KITHI_PAYLOAD_NULL)
        return FALSE;
    if (n->op == KITHI_FILTER_EXISTS)
        return TRUE;
    bool not = n->op == KITHI_FILTER_NE || n->op == KITHI_FILTER_NOT_IN;
    bool array = kithi_payload_is_array(v.type);
    if (array && v.len == 0)
        return not ; /* of no type */
    if (kind_of(v.type) != n->kind)
        return mixed(e, n, &v);
    bool one = !array && holds(e, &v, n);
    for (uint32_t i = 0; array && !one && i < v.len; i++)
        one = kithi_payload_element(e->p, &v, i, &element) && holds(e, &element, n);
    return one != not ;
}

/* The node at *at; *at moves behind it. Goes down as deep as the filter, which its making has bounded. */
static int node(const struct eval *e, uint32_t *at)
{
    const struct kithi_filter_node *n = &e->f->nodes[*at];
    const uint32_t behind = n->behind;
    int rc = n->op == KITHI_FILTER_OR ? FALSE : TRUE;
    if (n->op >= KITHI_FILTER_EQ) {
        *at = behind;
        return condition(e, n);
    }
    for (++*at; *at < behind;) {
        rc = node(e, at);
        if (rc < 0)
            break;
        if (n->op == KITHI_FILTER_NOT)
            rc = !rc;
        else if ((rc == TRUE) == (n->op == KITHI_FILTER_OR))
            break; /* what is right of it does not matter */
    }
    *at = behind;
    return rc;
}

int kithi_filter_eval(const struct kithi_filter *f, const struct kithi_payload *p,
                      struct kithi_filter_look *look)
{
    const struct eval e = { .f = f, .p = p && p->len ? p : NULL, .look = look };
    uint32_t at = 0;
    look->count++;
    return node(&e, &at);
}

void kithi_filter_see(const struct kithi_filter *f, const struct kithi_payload *p,
                      struct kithi_filter_look *look)
{
    struct kithi_value v;
    if (!p || !p->len)
        return;
    for (uint64_t left = kithi_filter_unseen(f, look); left; left &= left - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(left);
        if (kithi_payload_find(p, f->text + f->fields[i].off, f->fields[i].len, &v))
            look->seen |= UINT64_C(1) << i;
    }
}

int kithi_filter_mixed(const struct kithi_filter *f, const struct kithi_filter_look *look,
                       struct kithi_errmsg *err)
{
    static const char *const kinds[] = { "nothing", "a string", "a number", "a boolean" };
    const struct kithi_filter_field *field = &f->fields[look->field];
    return kithi_error_set(err, KITHI_E_FILTER,
                           "filter: field \"%.*s\" holds %s in a payload, and the filter compares it with %s",
                           (int)(field->len < 128 ? field->len : 128), f->text + field->off,
                           kithi_payload_type_name(look->holds), kinds[look->against]);
}
