/*
 * change.c - see change.h.
 *
 * An object is written after it is known how many members it will have, so each is gone through twice: counted, and
 * written. Recursion ends with the depth of what goes in, which the check has bounded.
 */
#include "shm/payload/change.h"

#include <string.h>

#include "shm/base/error.h"
#include "shm/payload/build.h"

/* A member of an object, by its number. */
struct member {
    char key[KITHI_PAYLOAD_KEY_MAX];
    uint32_t key_len;
    struct kithi_value value;
};

static bool get(const struct kithi_payload *p, const struct kithi_value *object, uint32_t i,
                struct member *out)
{
    return i < object->len && kithi_payload_member(p, object, i, out->key, &out->key_len, &out->value);
}

static int order_of(const struct member *a, const struct member *b)
{
    uint32_t both = a->key_len < b->key_len ? a->key_len : b->key_len;
    int order = memcmp(a->key, b->key, both);
    return order ? order : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

/* ---- merging ---- */

struct merge {
    const struct kithi_payload *base, *patch;
    struct kithi_payload_build out;
};

/* Two objects gone through side by side. */
struct pair {
    const struct kithi_value *base, *patch; /* base may be an object without members */
    uint32_t at_base, at_patch;
    struct member old, new;
    bool has_old, has_new; /* of the key that was reached */
};

/* On to the next key that one of them has. */
static bool step(const struct merge *m, struct pair *p)
{
    p->has_old = get(m->base, p->base, p->at_base, &p->old);
    p->has_new = get(m->patch, p->patch, p->at_patch, &p->new);
    if (p->has_old && p->has_new) {
        int order = order_of(&p->old, &p->new);
        p->has_old = order <= 0;
        p->has_new = order >= 0;
    }
    p->at_base += p->has_old;
    p->at_patch += p->has_new;
    return p->has_old || p->has_new;
}

static bool stays(const struct pair *p)
{
    return !p->has_new || p->new.value.type != KITHI_PAYLOAD_NULL;
}

static uint32_t merged_count(const struct merge *m, const struct kithi_value *base,
                             const struct kithi_value *patch)
{
    struct pair p = { .base = base, .patch = patch };
    uint32_t count = 0;
    while (step(m, &p))
        count += stays(&p);
    return count;
}

static void put_merged(struct merge *m, uint32_t at, const struct kithi_value *base,
                       const struct kithi_value *patch)
{
    static const struct kithi_value nothing = { .type = KITHI_PAYLOAD_OBJECT };
    struct pair p = { .base = base, .patch = patch };
    uint32_t i = 0;
    while (!m->out.full && step(m, &p)) {
        if (!stays(&p))
            continue;
        const struct member *from = p.has_new ? &p.new : &p.old;
        kithi_payload_put_key(&m->out, at, i, from->key, from->key_len);
        if (p.has_new && p.new.value.type == KITHI_PAYLOAD_OBJECT) {
            const struct kithi_value *inner =
                p.has_old && p.old.value.type == KITHI_PAYLOAD_OBJECT ? &p.old.value : &nothing;
            uint32_t n = merged_count(m, inner, &p.new.value);
            put_merged(m, kithi_payload_put_inner(&m->out, at, i, n), inner, &p.new.value);
        } else {
            kithi_payload_put_value(&m->out, at, i, p.has_new ? m->patch : m->base, &from->value);
        }
        i++;
    }
}

int kithi_payload_merge(const struct kithi_payload *base, const struct kithi_payload *patch,
                        unsigned char out[KITHI_PAYLOAD_MAX])
{
    struct merge m = { .base = base, .patch = patch };
    struct kithi_value old, new;
    if (!kithi_payload_root(base, &old) || !kithi_payload_root(patch, &new))
        return KITHI_E_PAYLOAD;
    kithi_payload_begin(&m.out, out);
    put_merged(&m, kithi_payload_put_object(&m.out, merged_count(&m, &old, &new)), &old, &new);
    return kithi_payload_end(&m.out);
}

/* ---- fields of an object ---- */

/* Which fields lie at or below the member, and what of their paths is left; 0: none; UINT32_MAX: all of it is asked for. */
static uint32_t below(const struct member *m, const struct kithi_payload_field *fields, uint32_t count,
                      struct kithi_payload_field *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        const char *path = fields[i].path;
        size_t len = fields[i].len;
        if (len < m->key_len || memcmp(path, m->key, m->key_len) != 0)
            continue;
        if (len == m->key_len)
            return UINT32_MAX;
        if (path[m->key_len] == '.')
            out[n++] = (struct kithi_payload_field){ path + m->key_len + 1, len - m->key_len - 1 };
    }
    return m->value.type == KITHI_PAYLOAD_OBJECT ? n : 0;
}

/* ---- deleting ---- */

static uint32_t left_count(const struct kithi_payload *base, const struct kithi_value *object,
                           const struct kithi_payload_field *fields, uint32_t count)
{
    struct kithi_payload_field rest[KITHI_PAYLOAD_FIELDS_MAX];
    struct member m;
    uint32_t all = 0;
    for (uint32_t i = 0; get(base, object, i, &m); i++)
        all += below(&m, fields, count, rest) != UINT32_MAX;
    return all;
}

/* The members of an object, without the fields. */
static void put_without(struct kithi_payload_build *b, uint32_t at, const struct kithi_payload *base,
                        const struct kithi_value *object, const struct kithi_payload_field *fields,
                        uint32_t count)
{
    struct kithi_payload_field rest[KITHI_PAYLOAD_FIELDS_MAX];
    struct member m;
    for (uint32_t i = 0, to = 0; !b->full && get(base, object, i, &m); i++) {
        uint32_t n = below(&m, fields, count, rest);
        if (n == UINT32_MAX)
            continue;
        kithi_payload_put_key(b, at, to, m.key, m.key_len);
        if (n > 0)
            put_without(b, kithi_payload_put_inner(b, at, to, left_count(base, &m.value, rest, n)), base,
                        &m.value, rest, n);
        else
            kithi_payload_put_value(b, at, to, base, &m.value);
        to++;
    }
}

int kithi_payload_delete(const struct kithi_payload *base, const struct kithi_payload_field *fields,
                         uint32_t count, unsigned char out[KITHI_PAYLOAD_MAX])
{
    struct kithi_payload_build b;
    struct kithi_value root;
    if (count > KITHI_PAYLOAD_FIELDS_MAX || !kithi_payload_root(base, &root))
        return KITHI_E_PAYLOAD;
    kithi_payload_begin(&b, out);
    put_without(&b, kithi_payload_put_object(&b, left_count(base, &root, fields, count)), base, &root, fields,
                count);
    return kithi_payload_end(&b);
}

/* ---- picking ---- */

/* Is one of the fields there? */
static bool any_there(const struct kithi_payload *base, const struct kithi_value *object,
                      const struct kithi_payload_field *fields, uint32_t count)
{
    struct kithi_payload_field rest[KITHI_PAYLOAD_FIELDS_MAX];
    struct member m;
    for (uint32_t i = 0; get(base, object, i, &m); i++) {
        uint32_t n = below(&m, fields, count, rest);
        if (n == UINT32_MAX || (n > 0 && any_there(base, &m.value, rest, n)))
            return true;
    }
    return false;
}

static bool picked(const struct kithi_payload *base, const struct member *m,
                   const struct kithi_payload_field *fields, uint32_t count, struct kithi_payload_field *rest,
                   uint32_t *out_n)
{
    *out_n = below(m, fields, count, rest);
    return *out_n == UINT32_MAX || (*out_n > 0 && any_there(base, &m->value, rest, *out_n));
}

static uint32_t picked_count(const struct kithi_payload *base, const struct kithi_value *object,
                             const struct kithi_payload_field *fields, uint32_t count)
{
    struct kithi_payload_field rest[KITHI_PAYLOAD_FIELDS_MAX];
    struct member m;
    uint32_t n, all = 0;
    for (uint32_t i = 0; get(base, object, i, &m); i++)
        all += picked(base, &m, fields, count, rest, &n);
    return all;
}

static void put_picked(struct kithi_payload_build *b, uint32_t at, const struct kithi_payload *base,
                       const struct kithi_value *object, const struct kithi_payload_field *fields,
                       uint32_t count)
{
    struct kithi_payload_field rest[KITHI_PAYLOAD_FIELDS_MAX];
    struct member m;
    uint32_t n, to = 0;
    for (uint32_t i = 0; !b->full && get(base, object, i, &m); i++) {
        if (!picked(base, &m, fields, count, rest, &n))
            continue;
        kithi_payload_put_key(b, at, to, m.key, m.key_len);
        if (n == UINT32_MAX)
            kithi_payload_put_value(b, at, to, base, &m.value);
        else
            put_picked(b, kithi_payload_put_inner(b, at, to, picked_count(base, &m.value, rest, n)), base,
                       &m.value, rest, n);
        to++;
    }
}

int kithi_payload_pick(const struct kithi_payload *base, const struct kithi_payload_field *fields,
                       uint32_t count, unsigned char out[KITHI_PAYLOAD_MAX])
{
    struct kithi_payload_build b;
    struct kithi_value root;
    if (count > KITHI_PAYLOAD_FIELDS_MAX || !kithi_payload_root(base, &root))
        return KITHI_E_PAYLOAD;
    kithi_payload_begin(&b, out);
    put_picked(&b, kithi_payload_put_object(&b, picked_count(base, &root, fields, count)), base, &root,
               fields, count);
    return kithi_payload_end(&b);
}
