/*
 * facet.c - the values of a field, for programs.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/condition_priv.h"
#include "client/src/opts_priv.h"
#include "client/src/snapshot_priv.h"
#include "shm/graph/facet.h"

#define LIMIT_DEFAULT 100u

struct kith_facet {
    struct kithi_facet found;
    uint32_t limit;
};

static int count(kith *index, struct kithi_call *c, const char *field, const struct kith_facet_opts *o,
                 struct kithi_facet *out)
{
    const struct kithi_moment moment = kithi_moment_of(&o->at);
    struct kithi_condition *condition = NULL;
    struct kithi_errmsg err;
    if (!c->payload)
        c->payload = malloc(2 * (size_t)KITHI_PAYLOAD_MAX);
    int rc = c->payload ? 0 : -ENOMEM;
    if (rc == 0 && o->filter)
        rc = kithi_condition_of(c, o->filter, &err, &condition);
    if (rc == KITHI_E_FILTER)
        return kithi_report(o->error, &err, rc);
    if (rc < 0)
        return rc;
    do
        rc = kithi_facet_count(kithi_call_map(c), &moment, field, strlen(field), c->payload, condition,
                               o->deadline_ns, out);
    while (kithi_call_again(index, c, &rc));
    return condition ? kithi_condition_end(condition, rc, false, o->error, NULL) : rc;
}

int kith_facet_of(kith *index, const char *field, const struct kith_facet_opts *opts, kith_facet **out)
{
    struct kith_facet_opts o = KITH_FACET_OPTS_INIT;
    struct kithi_call *c;
    if (!index || !field || !out)
        return -EINVAL;
    if (opts && kithi_opts_in(&o, opts, sizeof o, offsetof(struct kith_facet_opts, deadline_ns)) < 0)
        return -EINVAL;
    if (o.reserved)
        return -EINVAL;
    if (o.limit > KITHI_FACET_VALUES)
        return KITHI_E_PARAMETER;
    if (kithi_payload_path_wrong(field, strlen(field)))
        return KITHI_E_PAYLOAD;
    kith_facet *f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    kithi_facet_init(&f->found, KITHI_FACET_VALUES);
    f->limit = o.limit ? o.limit : LIMIT_DEFAULT;
    int rc = kithi_call_begin(index, &c);
    if (rc == 0) {
        rc = count(index, c, field, &o, &f->found);
        kithi_call_end(index, c);
    }
    if (rc < 0)
        kith_facet_free(f);
    else
        *out = f;
    return rc;
}

uint32_t kith_facet_count(const kith_facet *f)
{
    if (!f)
        return 0;
    return f->found.count < f->limit ? f->found.count : f->limit;
}

int kith_facet_value(const kith_facet *f, uint32_t i, struct kith_filter_value *out, uint64_t *out_count)
{
    if (!f || !out || !out_count || i >= kith_facet_count(f))
        return -EINVAL;
    const struct kithi_facet_entry *e = &f->found.entries[i];
    *out = (struct kith_filter_value){ 0 };
    if (e->type == KITHI_PAYLOAD_STRING) {
        out->type = KITH_FILTER_STRING;
        out->string = f->found.text + e->off;
    } else if (e->type == KITHI_PAYLOAD_DOUBLE) {
        out->type = KITH_FILTER_DOUBLE;
        out->number = e->number;
    } else {
        out->type = e->type == KITHI_PAYLOAD_BOOL ? KITH_FILTER_BOOL : KITH_FILTER_INTEGER;
        out->integer = e->integer;
    }
    *out_count = e->count;
    return 0;
}

int kith_facet_info(const kith_facet *f, struct kith_facet_info *out)
{
    if (!f || !out)
        return -EINVAL;
    const struct kith_facet_info info = {
        .struct_size = sizeof info,
        .epoch = f->found.epoch,
        .vectors = f->found.vectors,
        .with = f->found.with,
        .distinct = f->found.count,
        .other = f->found.other,
    };
    return kithi_opts_out(out, &info, sizeof info, sizeof info);
}

void kith_facet_free(kith_facet *f)
{
    if (!f)
        return;
    kithi_facet_fini(&f->found);
    free(f);
}
