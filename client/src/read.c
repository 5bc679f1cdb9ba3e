/*
 * read.c - one vector by its id, now or at a snapshot, and how many there are at one.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "client/src/condition_priv.h"
#include "client/src/opts_priv.h"
#include "client/src/payloads_priv.h"
#include "client/src/results_priv.h"
#include "client/src/snapshot_priv.h"
#include "shm/base/id.h"
#include "shm/graph/lookup.h"
#include "shm/graph/scan.h"

static int get(kith *index, const struct kith_snapshot *at, const char *id, float *out, size_t len,
               uint64_t *out_epoch)
{
    struct kithi_found found;
    struct kithi_call *c;
    const struct kithi_moment moment = kithi_moment_of(at);

    if (!index || !id || (!out && len > 0))
        return -EINVAL;
    size_t id_len = strnlen(id, KITHI_ID_MAX + 1);
    if (!kithi_id_valid(id, id_len))
        return KITHI_E_ID;
    if (out && len != index->geometry.dim)
        return KITHI_E_DIMENSION;
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    do
        rc = kithi_lookup_at(kithi_call_map(c), &moment, id, id_len, out, &found);
    while (kithi_call_again(index, c, &rc));
    kithi_call_end(index, c);
    if (rc == 0 && out_epoch)
        *out_epoch = found.epoch;
    return rc;
}

int kith_fetch(kith *index, const char *id, const struct kith_fetch_opts *opts, kith_results *out)
{
    struct kith_fetch_opts o = KITH_FETCH_OPTS_INIT;
    struct kithi_fields fields;
    struct kithi_found found;
    struct kithi_call *c;
    uint32_t tries = 0;
    if (!index || !id || !out || (opts && kithi_opts_in(&o, opts, sizeof o, sizeof o) < 0) || o.vector > 1 ||
        o.reserved)
        return -EINVAL;
    const struct kithi_moment moment = kithi_moment_of(&o.at);
    const uint32_t dim = index->geometry.dim;
    size_t id_len = strnlen(id, KITHI_ID_MAX + 1);
    kithi_results_forget_page(out);
    kithi_results_clear(&out->found);
    int rc = kithi_id_valid(id, id_len) ? kithi_fields_of(o.payloads, o.field_count, o.fields, &fields)
                                        : KITHI_E_ID;
    if (rc == 0 && o.vector)
        rc = kithi_results_room(out, dim);
    if (rc == 0)
        rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    do {
        kithi_results_clear(&out->found);
        rc = kithi_lookup_at(kithi_call_map(c), &moment, id, id_len, o.vector ? out->vectors : NULL, &found);
        if (rc == 0)
            rc = kithi_results_add(&out->found, NAN, found.slot, found.birth, id, id_len);
        if (rc == 0) {
            memset(&out->found.stats, 0, sizeof out->found.stats);
            out->found.stats.epoch = found.epoch;
        }
        rc = kithi_payloads_or(rc, c, &fields, &tries, out);
    } while (rc == -EAGAIN || kithi_call_again(index, c, &rc));
    out->generation_changed = c->changed;
    out->ef = 0;
    out->ef_basis = KITH_EF_GIVEN;
    kithi_call_end(index, c);
    if (rc == 0)
        out->vector_dim = o.vector ? dim : 0;
    else
        kithi_results_clear(&out->found);
    return rc;
}

int kith_get(kith *index, const char *id, float *out, size_t len, uint64_t *out_epoch)
{
    return get(index, NULL, id, out, len, out_epoch);
}

int kith_get_at(kith *index, const struct kith_snapshot *at, const char *id, float *out, size_t len)
{
    return get(index, at, id, out, len, NULL);
}

int kith_exists_at(kith *index, const struct kith_snapshot *at, const char *id)
{
    int rc = get(index, at, id, NULL, 0, NULL);
    return rc == 0 ? 1 : rc == KITHI_E_NOT_FOUND ? 0 : rc;
}

int kith_exists(kith *index, const char *id)
{
    return kith_exists_at(index, NULL, id);
}

int kith_count_at(kith *index, const struct kith_snapshot *at, uint64_t *out_count)
{
    struct kithi_call *c;
    const struct kithi_moment moment = kithi_moment_of(at);
    if (kithi_moment_is_now(&moment))
        return kith_count(index, out_count);
    if (!index || !out_count)
        return -EINVAL;
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    do
        rc = kithi_scan_count(kithi_call_map(c), &moment, out_count);
    while (kithi_call_again(index, c, &rc));
    kithi_call_end(index, c);
    return rc;
}

int kith_count_with(kith *index, const struct kith_count_opts *opts, uint64_t *out_count)
{
    struct kith_count_opts o = KITH_COUNT_OPTS_INIT;
    struct kithi_call *c;
    struct kithi_condition *condition;
    struct kithi_errmsg err;
    if (!index || !opts || !out_count || kithi_opts_in(&o, opts, sizeof o, sizeof o) < 0)
        return -EINVAL;
    if (!o.filter)
        return kith_count_at(index, &o.at, out_count);
    const struct kithi_moment moment = kithi_moment_of(&o.at);
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    rc = kithi_condition_of(c, o.filter, &err, &condition);
    if (rc == KITHI_E_FILTER) {
        kithi_report(o.error, &err, rc);
    } else if (rc == 0) {
        do
            rc = kithi_match_count(kithi_call_map(c), &moment, condition, o.deadline_ns, out_count);
        while (kithi_call_again(index, c, &rc));
        rc = kithi_condition_end(condition, rc, false, o.error, NULL);
    }
    kithi_call_end(index, c);
    return rc;
}

int kith_count_filter(kith *index, const char *filter, const struct kith_snapshot *at, uint64_t *out_count,
                      struct kith_error *error)
{
    struct kith_count_opts o = KITH_COUNT_OPTS_INIT;
    if (!filter)
        return -EINVAL;
    o.filter = filter;
    o.at = at ? *at : o.at;
    o.error = error;
    return kith_count_with(index, &o, out_count);
}
