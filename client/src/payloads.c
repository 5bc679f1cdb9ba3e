/*
 * payloads.c - see payloads_priv.h. Bytes are copied out of the segment as of one version, looked at as a whole, and written as text.
 */
#include "client/src/payloads_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/payload.h"
#include "shm/graph/payload.h"

#define TEXT_MIN 4096u

int kithi_fields_of(uint32_t payloads, uint32_t count, const char *const *paths, struct kithi_fields *out)
{
    out->wanted = payloads != 0;
    out->count = 0;
    if (payloads > 1 || (count && (!paths || !payloads)))
        return -EINVAL;
    if (count > KITHI_PAYLOAD_FIELDS_MAX)
        return KITHI_E_PARAMETER;
    for (uint32_t i = 0; i < count; i++) {
        if (!paths[i])
            return -EINVAL;
        out->fields[i] = (struct kithi_payload_field){ .path = paths[i], .len = strlen(paths[i]) };
        if (kithi_payload_path_wrong(paths[i], out->fields[i].len))
            return KITHI_E_PAYLOAD;
    }
    out->count = count;
    return 0;
}

static int make_room(kith_results *r, uint32_t count)
{
    if (count <= r->payload_at_capacity)
        return 0;
    size_t *p = realloc(r->payload_at, count * sizeof *p);
    if (!p)
        return -ENOMEM;
    r->payload_at = p;
    r->payload_at_capacity = count;
    return 0;
}

/* The text of a payload behind those that are there. */
static int put_text(kith_results *r, const struct kithi_payload *p)
{
    for (;;) {
        size_t left = r->payloads_capacity - r->payloads_len, len = 0;
        if (left > 1) {
            len = kithi_payload_to_json(p, r->payloads + r->payloads_len, left - 1);
            if (len <= left - 1) {
                r->payloads_len += len;
                r->payloads[r->payloads_len++] = '\0';
                return 0;
            }
        }
        size_t capacity = r->payloads_capacity ? 2 * r->payloads_capacity : TEXT_MIN;
        while (capacity - r->payloads_len < len + 1)
            capacity *= 2;
        char *text = realloc(r->payloads, capacity);
        if (!text)
            return -ENOMEM;
        r->payloads = text;
        r->payloads_capacity = capacity;
    }
}

static int take_one(struct kithi_call *c, const struct kithi_view *v, const struct kithi_fields *fields,
                    const struct kithi_hit *h, kith_results *out)
{
    uint32_t len;
    switch (kithi_view_payload(v, h->slot, h->birth, c->payload, &len)) {
    case KITHI_PAYLOAD_AGAIN: return -EAGAIN;
    case KITHI_PAYLOAD_NONE: return 0;
    case KITHI_PAYLOAD_FOUND: break;
    }
    struct kithi_payload p = { .bytes = c->payload, .len = len };
    if (kithi_payload_check(p.bytes, p.len, NULL) < 0)
        return KITHI_E_CORRUPT;
    if (fields->count) {
        unsigned char *picked = c->payload + KITHI_PAYLOAD_MAX;
        int n = kithi_payload_pick(&p, fields->fields, fields->count, picked);
        if (n < 0)
            return n;
        p = (struct kithi_payload){ .bytes = picked, .len = (uint32_t)n };
    }
    size_t at = out->payloads_len + 1;
    int rc = put_text(out, &p);
    if (rc == 0)
        out->payload_at[h - out->found.hits] = at;
    return rc;
}

int kithi_payloads_take(struct kithi_call *c, const struct kithi_fields *fields, kith_results *out)
{
    struct kithi_view v;
    out->has_payloads = false;
    if (!fields->wanted)
        return 0;
    out->payloads_len = 0;
    if (!c->payload)
        c->payload = malloc(2 * (size_t)KITHI_PAYLOAD_MAX);
    if (!c->payload || make_room(out, out->found.count) < 0)
        return -ENOMEM;
    kithi_view_begin(kithi_call_map(c), &v);
    v.epoch = out->found.stats.epoch;
    for (uint32_t i = 0; i < out->found.count; i++) {
        out->payload_at[i] = 0;
        int rc = take_one(c, &v, fields, &out->found.hits[i], out);
        if (rc < 0)
            return rc;
    }
    out->has_payloads = true;
    return 0;
}
