/*
 * filter.c - filters for programs: made of text or without, and used by their text.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/handle_priv.h"
#include "client/src/payload.h"
#include "shm/filter/build.h"

struct kith_filter {
    struct kithi_filter *compiled;
    char text[]; /* as kithi_filter_print() has it, and a NUL */
};

_Static_assert((int)KITH_FILTER_EQ == (int)KITHI_FILTER_EQ && (int)KITH_FILTER_GE == (int)KITHI_FILTER_GE,
               "kith.h and filter.h disagree");

/* Takes compiled. */
static int wrap(struct kithi_filter *compiled, kith_filter **out, struct kith_error *error)
{
    size_t len = kithi_filter_print(compiled, NULL, 0);
    struct kithi_errmsg err;
    kith_filter *f = NULL;
    int rc = 0;
    if (len > KITHI_FILTER_TEXT_MAX)
        rc = kithi_error_set(&err, KITHI_E_FILTER, "filter: its text has %zu bytes, and may have %u", len,
                             KITHI_FILTER_TEXT_MAX);
    else if (!(f = malloc(sizeof *f + len + 1)))
        rc = kithi_error_set(&err, -ENOMEM, "out of memory");
    if (rc < 0) {
        kithi_filter_free(compiled);
        return kithi_report(error, &err, rc);
    }
    f->compiled = compiled;
    kithi_filter_print(compiled, f->text, len);
    f->text[len] = '\0';
    *out = f;
    return 0;
}

/* What was put together is a filter, or it is told why it is none. */
static int end(struct kithi_filter_build *b, kith_filter **out, struct kith_error *error)
{
    struct kithi_filter *compiled;
    struct kithi_errmsg err;
    const char *why = NULL;
    int rc = kithi_filter_end(b, &compiled, &why);
    if (rc == 0)
        return wrap(compiled, out, error);
    kithi_error_set(&err, rc, rc == KITHI_E_FILTER ? "filter: %s" : "%s", why ? why : "out of memory");
    return kithi_report(error, &err, rc);
}

static int begin(struct kithi_filter_build **out, struct kith_error *error)
{
    struct kithi_errmsg err;
    *out = kithi_filter_begin();
    return *out ? 0 : kithi_report(error, &err, kithi_error_set(&err, -ENOMEM, "out of memory"));
}

int kith_filter_parse(const char *text, kith_filter **out, struct kith_error *error)
{
    struct kithi_filter *compiled;
    struct kithi_errmsg err;
    if (!text || !out)
        return -EINVAL;
    int rc = kithi_filter_parse(text, strlen(text), &compiled, &err);
    return rc < 0 ? kithi_report(error, &err, rc) : wrap(compiled, out, error);
}

/* False: it is none. */
static bool add_value(struct kithi_filter_build *b, const struct kith_filter_value *v)
{
    switch (v->type) {
    case KITH_FILTER_STRING:
        if (!v->string)
            return false;
        kithi_filter_add_string(b, v->string, strlen(v->string));
        return true;
    case KITH_FILTER_INTEGER: kithi_filter_add_integer(b, v->integer); return true;
    case KITH_FILTER_DOUBLE: kithi_filter_add_number(b, v->number); return true;
    case KITH_FILTER_BOOL: kithi_filter_add_bool(b, v->integer != 0); return true;
    }
    return false;
}

/* A condition on a field, with n values. */
static int condition(const char *field, enum kithi_filter_op op, const struct kith_filter_value *values,
                     size_t n, kith_filter **out, struct kith_error *error)
{
    struct kithi_filter_build *b;
    if (!field || !out || (!values && n > 0))
        return -EINVAL;
    int rc = begin(&b, error);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n && !b->wrong; i++) {
        if (!add_value(b, &values[i])) {
            free(b);
            return -EINVAL;
        }
    }
    kithi_filter_add(b, op, field, strlen(field));
    return end(b, out, error);
}

int kith_filter_compare(const char *field, enum kith_filter_op op, const struct kith_filter_value *value,
                        kith_filter **out, struct kith_error *error)
{
    if (op < KITH_FILTER_EQ || op > KITH_FILTER_GE || !value)
        return -EINVAL;
    return condition(field, (enum kithi_filter_op)op, value, 1, out, error);
}

int kith_filter_in(const char *field, const struct kith_filter_value *values, size_t n, kith_filter **out,
                   struct kith_error *error)
{
    return condition(field, KITHI_FILTER_IN, values, n, out, error);
}

int kith_filter_exists(const char *field, kith_filter **out, struct kith_error *error)
{
    return condition(field, KITHI_FILTER_EXISTS, NULL, 0, out, error);
}

int kith_filter_prefix(const char *field, const char *prefix, kith_filter **out, struct kith_error *error)
{
    const struct kith_filter_value v = { .type = KITH_FILTER_STRING, .string = prefix };
    return condition(field, KITHI_FILTER_PREFIX, &v, 1, out, error);
}

static int join(const kith_filter *const *filters, size_t n, enum kithi_filter_op op, kith_filter **out,
                struct kith_error *error)
{
    struct kithi_filter_build *b;
    if (!out || (!filters && n > 0))
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (!filters[i])
            return -EINVAL;
    }
    int rc = begin(&b, error);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n && !b->wrong; i++)
        kithi_filter_add_filter(b, filters[i]->compiled);
    if (n > 0)
        kithi_filter_join(b, op, 0);
    return end(b, out, error);
}

int kith_filter_all(const kith_filter *const *filters, size_t n, kith_filter **out, struct kith_error *error)
{
    return join(filters, n, KITHI_FILTER_AND, out, error);
}

int kith_filter_any(const kith_filter *const *filters, size_t n, kith_filter **out, struct kith_error *error)
{
    return join(filters, n, KITHI_FILTER_OR, out, error);
}

int kith_filter_not(const kith_filter *filter, kith_filter **out, struct kith_error *error)
{
    return join(&filter, 1, KITHI_FILTER_NOT, out, error);
}

int kith_filter_equals(const char *const *fields, const char *const *strings, size_t n, kith_filter **out,
                       struct kith_error *error)
{
    struct kithi_filter_build *b;
    if (!out || ((!fields || !strings) && n > 0))
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (!fields[i] || !strings[i])
            return -EINVAL;
    }
    int rc = begin(&b, error);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n && !b->wrong; i++) {
        kithi_filter_add_string(b, strings[i], strlen(strings[i]));
        kithi_filter_add(b, KITHI_FILTER_EQ, fields[i], strlen(fields[i]));
    }
    if (n > 0)
        kithi_filter_join(b, KITHI_FILTER_AND, 0);
    return end(b, out, error);
}

const char *kith_filter_text(const kith_filter *f)
{
    return f ? f->text : NULL;
}

int kith_filter_test(const kith_filter *f, const char *payload, struct kith_error *error)
{
    struct kithi_filter_look look = { 0 };
    struct kithi_errmsg err;
    if (!f)
        return -EINVAL;
    struct kithi_payload p = { .bytes = NULL };
    unsigned char *bytes = payload ? malloc(KITHI_PAYLOAD_MAX) : NULL;
    int rc = payload && !bytes ? kithi_error_set(&err, -ENOMEM, "out of memory") : 0;
    if (bytes)
        rc = kithi_payload_from_json(payload, strlen(payload), bytes, &err);
    if (rc >= 0) {
        p = (struct kithi_payload){ .bytes = bytes, .len = (uint32_t)rc };
        rc = kithi_filter_eval(f->compiled, &p, &look);
        if (rc < 0)
            kithi_filter_mixed(f->compiled, &look, &err);
    }
    free(bytes);
    return rc < 0 ? kithi_report(error, &err, rc) : rc;
}

void kith_filter_free(kith_filter *f)
{
    if (!f)
        return;
    kithi_filter_free(f->compiled);
    free(f);
}
