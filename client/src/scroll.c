/*
 * scroll.c - pages of ids, and the text that stands for the place between two of them.
 *
 *     0         16        32        48
 *     +---------+---------+---------+
 *     | hash    | tie     | check   |    hexadecimal digits; the first place of the next page, and a keyed hash
 *     +---------+---------+---------+    of that and the collection's uid
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/condition_priv.h"
#include "client/src/opts_priv.h"
#include "client/src/payloads_priv.h"
#include "client/src/results_priv.h"
#include "client/src/snapshot_priv.h"
#include "shm/base/hash.h"
#include "shm/graph/scroll.h"

#define LIMIT_DEFAULT 1000u
#define VECTORS_MAX   (64u << 20) /* bytes of vectors in a page */
#define PAYLOADS_MAX  (64u << 20) /* the same of payloads, if all were as large as may be */
#define DIGITS        16u         /* of a number in a cursor */

_Static_assert(3 * DIGITS + 1 == sizeof((struct kith_results *)0)->cursor, "a cursor is three numbers");

/* What tells a cursor of this collection from other texts. */
static uint64_t check_of(const struct kithi_map *m, const struct kithi_place *place)
{
    unsigned char bytes[8 + sizeof m->uid + sizeof *place] = "scroll 1";
    memcpy(bytes + 8, m->uid, sizeof m->uid);
    memcpy(bytes + 8 + sizeof m->uid, place, sizeof *place);
    return kithi_hash(m->hash_key, bytes, sizeof bytes);
}

static void write_cursor(const struct kithi_map *m, const struct kithi_place *place, char *out)
{
    snprintf(out, 3 * DIGITS + 1, "%016" PRIx64 "%016" PRIx64 "%016" PRIx64, place->hash, place->tie,
             check_of(m, place));
}

/* Cursors are written in small letters, and read as they are written. False: the text is not one of this collection. */
static bool read_cursor(const struct kithi_map *m, const char *text, struct kithi_place *out)
{
    uint64_t numbers[3] = { 0 };
    for (unsigned i = 0; i < 3 * DIGITS; i++) {
        static const char HEX[] = "0123456789abcdef";
        const char *digit = text[i] ? strchr(HEX, text[i]) : NULL;
        if (!digit)
            return false;
        numbers[i / DIGITS] = numbers[i / DIGITS] << 4 | (uint64_t)(digit - HEX);
    }
    *out = (struct kithi_place){ numbers[0], numbers[1] };
    return text[3 * DIGITS] == '\0' && numbers[2] == check_of(m, out);
}

int kith_scroll(kith *index, const char *cursor, const struct kith_scroll_opts *opts, kith_results *out)
{
    struct kith_scroll_opts o = KITH_SCROLL_OPTS_INIT;
    struct kithi_call *c = NULL;
    if (!index || !out ||
        (opts && kithi_opts_in(&o, opts, sizeof o, offsetof(struct kith_scroll_opts, filter)) < 0) ||
        o.vectors > 1)
        return -EINVAL;
    char from[3 * DIGITS + 2]; /* cursor may be out's own; one that is longer is none */
    if (cursor) {
        size_t len = strnlen(cursor, sizeof from - 1);
        memcpy(from, cursor, len);
        from[len] = '\0';
    }
    struct kithi_fields fields;
    kithi_results_forget_page(out);
    kithi_results_clear(&out->found);
    int rc = kithi_fields_of(o.payloads, o.field_count, o.fields, &fields);
    if (rc < 0)
        return rc;
    if (o.limit > KITHI_SCROLL_MAX)
        return KITHI_E_PARAMETER;
    const uint32_t dim = index->geometry.dim;
    struct kithi_scroll_params p = { .at = kithi_moment_of(&o.at),
                                     .limit = o.limit ? o.limit : LIMIT_DEFAULT };
    if (fields.wanted && p.limit > PAYLOADS_MAX / KITHI_PAYLOAD_MAX)
        p.limit = PAYLOADS_MAX / KITHI_PAYLOAD_MAX;
    if (o.vectors) {
        uint32_t most = VECTORS_MAX / (dim * (uint32_t)sizeof(float));
        p.limit = p.limit < most ? p.limit : most;
        rc = kithi_results_room(out, (size_t)p.limit * dim);
        p.vectors = out->vectors;
    }
    if (rc == 0)
        rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    /* The key is the collection's, in whatever generation. */
    if (cursor && !read_cursor(kithi_call_map(c), from, &p.from)) {
        rc = KITHI_E_CURSOR;
    } else {
        uint32_t tries = 0;
        struct kithi_errmsg err;
        if (o.filter)
            rc = kithi_condition_of(c, o.filter, &err, &p.condition);
        if (rc == KITHI_E_FILTER)
            kithi_report(o.error, &err, rc);
        if (rc < 0)
            goto out;
        do {
            rc = kithi_scroll(kithi_call_map(c), &p, &out->scroll, &out->found);
            rc = kithi_payloads_or(rc, c, &fields, &tries, out);
        } while (rc == -EAGAIN || kithi_call_again(index, c, &rc));
        if (p.condition)
            rc = kithi_condition_end(p.condition, rc, false, o.error, out);
    }
    if (rc >= 0) {
        out->generation_changed = c->changed;
        out->ef = 0;
        out->ef_basis = KITH_EF_GIVEN;
        out->vector_dim = o.vectors ? dim : 0;
        if (out->scroll.more)
            write_cursor(kithi_call_map(c), &out->scroll.next, out->cursor);
    }
out:
    kithi_call_end(index, c);
    if (rc < 0)
        kithi_results_clear(&out->found);
    return rc;
}
