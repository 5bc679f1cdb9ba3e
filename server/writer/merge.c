/*
 * merge.c - see merge.h. A merge stands on what its id has then: by an earlier op of the same write or, where there is none, by all that is
 * staged before the write.
 */
#include "server/writer/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/assert.h"
#include "shm/base/bytes.h"
#include "shm/base/hash.h"
#include "shm/filter/filter.h"
#include "shm/payload/change.h"
#include "shm/wire/op.h"

#define NOBODY UINT32_MAX

/* What an id has behind an op. */
struct state {
    bool there;
    const unsigned char *bytes; /* NULL: at off of what is made */
    size_t off;
    uint32_t len;
};

struct make {
    struct kithi_index *ix;
    const struct kithi_request *r;
    struct kithi_merged *out;
    size_t capacity;
    struct state *states; /* of each op */
    uint32_t *table;      /* of ops by their ids: index + 1, open addressing */
    uint32_t mask;
    struct kithi_filter *filter; /* of the last condition, and the op that has its text */
    const struct kithi_op *asked;
    unsigned char base[KITHI_PAYLOAD_MAX], result[KITHI_PAYLOAD_MAX];
};

static bool same_condition(const struct kithi_op *a, const struct kithi_op *b)
{
    return a && a->type == KITHI_OP_DELETE_IF && a->payload_len == b->payload_len &&
           memcmp(a->payload, b->payload, b->payload_len) == 0;
}

int kithi_merge_check(const struct kithi_op *op, const struct kithi_op *before, struct kithi_errmsg *err)
{
    const char *why = NULL;
    const unsigned char *p = op->payload;
    if (!op->payload_len) {
        return 0;
    }
    if (op->type == KITHI_OP_DELETE_IF) {
        struct kithi_filter *f = NULL;
        int rc = same_condition(before, op) ? 0 : kithi_filter_parse(op->payload, op->payload_len, &f, err);
        kithi_filter_free(f);
        return rc == -ENOMEM ? kithi_error_set(err, rc, "no memory for a condition") : rc;
    }
    if (op->type != KITHI_OP_REMOVE) {
        return kithi_payload_check(p, op->payload_len, &why) == 0
                   ? 0
                   : kithi_error_set(err, KITHI_E_PAYLOAD, "the payload makes no sense: %s", why);
    }
    for (uint32_t at = 0, count = 0; at < op->payload_len; count++) {
        uint32_t left = op->payload_len - at, len = left < 2 ? 0 : kithi_get16(p + at);
        if (left < 2 || len > left - 2) {
            return kithi_error_set(err, KITHI_E_PAYLOAD, "the list of fields to remove is cut off");
        }
        why = kithi_payload_path_wrong((const char *)p + at + 2, len);
        if (why) {
            return kithi_error_set(err, KITHI_E_PAYLOAD, "a field to remove: %s", why);
        }
        if (count == KITHI_PAYLOAD_FIELDS_MAX) {
            return kithi_error_set(err, KITHI_E_PAYLOAD, "more than %u fields to remove in one change",
                                   KITHI_PAYLOAD_FIELDS_MAX);
        }
        at += 2 + len;
    }
    return 0;
}

void kithi_merge_free(struct kithi_merged *m)
{
    if (m) {
        free(m->ops);
        free(m->bytes);
        free(m);
    }
}

static uint32_t op_before(struct make *k, uint32_t i)
{
    /* Keyed as the id table is, so that nobody who chooses ids can choose collisions. */
    const uint8_t *key = kithi_index_map(k->ix)->hash_key;
    const struct kithi_op *op = &k->r->ops[i];
    uint32_t at = (uint32_t)kithi_hash(key, op->id, op->id_len) & k->mask, before = NOBODY;
    for (; k->table[at]; at = (at + 1) & k->mask) {
        const struct kithi_op *o = &k->r->ops[k->table[at] - 1];
        if (o->id_len == op->id_len && memcmp(o->id, op->id, op->id_len) == 0) {
            before = k->table[at] - 1;
            break;
        }
    }
    k->table[at] = i + 1;
    return before;
}

/* What op i finds. */
static struct state found(struct make *k, uint32_t i)
{
    const struct kithi_op *op = &k->r->ops[i];
    uint32_t before = op_before(k, i);
    struct state s = { 0 };
    if (before != NOBODY) {
        return k->states[before];
    }
    s.there = kithi_payload_current(k->ix, op->id, op->id_len, &s.bytes, &s.len);
    return s;
}

static int put(struct make *k, const struct kithi_op *op, struct kithi_errmsg *err)
{
    struct kithi_merged *m = k->out;
    size_t size = kithi_op_size_with(op->id_len, op->dim, op->payload_len);
    if (m->len + size > KITHI_FRAME_MAX) {
        return kithi_error_set(
            err, KITHI_E_TOO_LARGE,
            "the payloads that these changes make are more than %u MiB together; send fewer at a "
            "time",
            KITHI_FRAME_MAX >> 20);
    }
    if (m->len + size > k->capacity) {
        size_t capacity = 2 * (m->len + size);
        unsigned char *p = realloc(m->bytes, capacity);
        if (!p) {
            return kithi_error_set(err, -ENOMEM, "no memory for what a write merges");
        }
        m->bytes = p;
        k->capacity = capacity;
    }
    m->len += kithi_op_put(m->bytes + m->len, op);
    return 0;
}

/* The payload that a merge leaves of what was there, in k->result. Returns its bytes, or an error. */
static int merge(struct make *k, const struct kithi_op *op, const struct state *s, struct kithi_errmsg *err)
{
    static const unsigned char empty[KITHI_PAYLOAD_EMPTY] = { KITHI_PAYLOAD_VERSION };
    struct kithi_payload base = { .bytes = k->base, .len = s->len }, patch = { op->payload, op->payload_len };
    const char *why = NULL;
    if (s->len) {
        memcpy(k->base, s->bytes ? s->bytes : k->out->bytes + s->off, s->len);
    } else {
        base = (struct kithi_payload){ .bytes = empty, .len = sizeof empty };
    }
    /* What another process may have written is looked at before it is relied on. */
    if (kithi_payload_check(base.bytes, base.len, &why) < 0) {
        return kithi_error_set(err, KITHI_E_CORRUPT, "the payload of \"%.*s\" makes no sense: %s", op->id_len,
                               op->id, why);
    }
    if (op->type == KITHI_OP_MERGE) {
        int len = kithi_payload_merge(&base, &patch, k->result);
        return len >= 0 ? len
                        : kithi_error_set(err, KITHI_E_PAYLOAD,
                                          "with this the payload of \"%.*s\" would be larger than %u bytes",
                                          op->id_len, op->id, KITHI_PAYLOAD_MAX);
    }
    struct kithi_payload_field fields[KITHI_PAYLOAD_FIELDS_MAX];
    uint32_t count = 0;
    for (uint32_t at = 0; at < patch.len; at += 2u + (uint32_t)fields[count++].len) {
        KITHI_ASSERT(count < KITHI_PAYLOAD_FIELDS_MAX); /* kithi_merge_check() */
        fields[count].path = (const char *)patch.bytes + at + 2;
        fields[count].len = kithi_get16(patch.bytes + at);
    }
    return kithi_payload_delete(&base, fields, count, k->result);
}

/* Does what an id has fulfil the condition of op? 1, 0, or -ENOMEM. Types that do not go together fulfil none. */
static int fulfils(struct make *k, const struct kithi_op *op, const struct state *s)
{
    struct kithi_filter_look look = { 0 };
    struct kithi_payload p = { .bytes = k->base, .len = s->len };
    if (!same_condition(k->asked, op)) {
        kithi_filter_free(k->filter);
        k->filter = NULL;
        k->asked = NULL;
        int rc = kithi_filter_parse(op->payload, op->payload_len, &k->filter, NULL); /* it was checked */
        if (rc < 0) {
            return rc;
        }
        k->asked = op;
    }
    if (s->len) { /* what is made grows, and moves */
        memcpy(k->base, s->bytes ? s->bytes : k->out->bytes + s->off, s->len);
    }
    return s->there && kithi_filter_eval(k->filter, &p, &look) == 1;
}

/* An op that changes nothing, in the place of one whose condition was not fulfilled. */
static int put_nothing(struct make *k, struct kithi_errmsg *err)
{
    const struct kithi_op nothing = { .type = KITHI_OP_NOTHING, .flags = KITHI_OP_SKIPPABLE, .id = "" };
    return put(k, &nothing, err);
}

static int make_op(struct make *k, uint32_t i, struct kithi_errmsg *err)
{
    struct kithi_op op = k->r->ops[i];
    struct state s = found(k, i), *after = &k->states[i];
    bool given = op.type == KITHI_OP_SET || op.flags & KITHI_OP_PAYLOAD;
    int rc = 0;
    *after = s;
    if (op.type == KITHI_OP_DELETE_IF) {
        rc = fulfils(k, &k->r->ops[i], &s);
        if (rc <= 0) {
            return rc < 0 ? rc : put_nothing(k, err);
        }
        op.type = KITHI_OP_DELETE;
        op.payload = NULL;
        op.payload_len = 0;
    }
    if (op.type == KITHI_OP_MERGE || op.type == KITHI_OP_REMOVE) {
        bool nothing =
            !s.there || (op.type == KITHI_OP_REMOVE && !s.len); /* no payload is left as that, not as {} */
        rc = nothing ? 0 : merge(k, &op, &s, err);
        if (rc < 0) {
            return rc;
        }
        op.type = KITHI_OP_SET; /* of an id that is not there it says that it found none */
        op.payload = k->result;
        op.payload_len = (uint32_t)rc;
        given = true;
    }
    rc = put(k, &op, err);
    if (rc < 0) {
        return rc;
    }
    after->there = op.type != KITHI_OP_DELETE && (op.type == KITHI_OP_UPSERT || s.there);
    if (op.type == KITHI_OP_DELETE || (given && !after->there)) {
        after->len = 0;
    } else if (given) {
        /* Behind id and floats, as kithi_op_put() has put it. */
        size_t size = kithi_op_size_with(op.id_len, op.dim, op.payload_len),
               behind = KITHI_OP_HEADER + kithi_round_up(op.id_len, 4) + (size_t)op.dim * sizeof(float);
        *after = (struct state){ .there = true, .off = k->out->len - size + behind, .len = op.payload_len };
    }
    return 0;
}

/* The ops of what was made. */
static int decode(struct kithi_merged *m, uint32_t n)
{
    m->ops = malloc(n * sizeof *m->ops);
    if (!m->ops) {
        return -ENOMEM;
    }
    for (size_t at = 0, i = 0; at < m->len; i++) {
        int64_t step = kithi_op_decode(m->bytes + at, m->len - at, &m->ops[i]);
        if (step < 0) {
            return (int)step;
        }
        at += (size_t)step;
    }
    return 0;
}

int kithi_merge_make(struct kithi_index *ix, struct kithi_request *r, uint32_t *out_item,
                     struct kithi_errmsg *err)
{
    const uint32_t n = r->frame.count;
    int rc = -ENOMEM;
    kithi_merge_free(r->merged);
    r->merged = calloc(1, sizeof *r->merged);
    struct make *k = calloc(1, sizeof *k);
    if (k) {
        uint32_t places = 64;
        while (places < 2 * n) {
            places *= 2;
        }
        k->ix = ix;
        k->r = r;
        k->out = r->merged;
        k->states = calloc(n, sizeof *k->states);
        k->table = calloc(places, sizeof *k->table);
        k->mask = places - 1;
    }
    if (k && r->merged && k->states && k->table) {
        rc = 0;
        for (uint32_t i = 0; i < n && rc == 0; i++) {
            rc = make_op(k, i, err);
            *out_item = rc < 0 ? i : *out_item;
        }
        if (rc == 0) {
            rc = decode(r->merged, n);
        }
    }
    if (k) {
        kithi_filter_free(k->filter);
        free(k->states);
        free(k->table);
        free(k);
    }
    return rc == -ENOMEM ? kithi_error_set(err, rc, "no memory for what a write merges") : rc;
}
