/*
 * explain.c - what a search under a filter would do.
 */
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "client/src/condition_priv.h"
#include "client/src/opts_priv.h"
#include "shm/graph/search.h"
#include "shm/postings/postings.h"

/* What postings there are of the fields of a filter. */
static void look_at_fields(const struct kithi_view *v, const struct kithi_filter *f,
                           struct kith_explanation *out)
{
    out->fields = f->field_count;
    for (uint32_t i = 0; i < f->field_count; i++) {
        enum kithi_path_state state = kithi_postings_path(v, f->text + f->fields[i].off, f->fields[i].len);
        out->fields_unknown += state == KITHI_PATH_UNKNOWN;
        out->fields_given_up += state == KITHI_PATH_GIVEN_UP;
    }
}

/* By a sample of its own, so that the answer is of now. What the filter has learned stays. */
static int explain(const struct kithi_map *map, const struct kithi_condition *known, uint32_t k, uint32_t ef,
                   struct kith_explanation *out)
{
    struct kithi_condition c = { .filter = known->filter, .payload = known->payload };
    struct kithi_view v;
    struct kithi_estimate e;
    struct kithi_costs costs;
    enum kithi_plan_reason reason;
    kithi_view_begin(map, &v);
    kithi_estimate(&v, &c, &e);
    kithi_plan_costs(&v, &e, k, ef, &costs);
    enum kithi_plan plan = kithi_plan_cheapest(&costs, &reason);
    *out = (struct kith_explanation){
        .struct_size = sizeof *out,
        .epoch = v.epoch,
        .vectors = e.of,
        .matches = e.matches,
        .low = e.low,
        .high = e.high,
        .exact = e.exact,
        .plan = (uint32_t)plan,
        .plan_reason = (uint32_t)reason,
        .walk_ef = isinf(costs.walk) ? 0 : costs.walk_ef,
        .hops_ef = isinf(costs.hops) ? 0 : costs.hops_ef,
        .walk_cost = costs.walk,
        .hops_cost = costs.hops,
        .scan_cost = costs.scan,
        .indexed = e.indexed,
        .looks = e.looks,
    };
    look_at_fields(&v, c.filter, out);
    return kithi_view_moved(&v) ? KITHI_E_MOVED : 0;
}

int kith_explain(kith *index, const char *filter, uint32_t k, uint32_t ef, struct kith_explanation *out,
                 struct kith_error *error)
{
    struct kith_explanation found;
    struct kithi_condition *condition;
    struct kithi_errmsg err;
    struct kithi_call *c;
    if (!index || !filter || !out)
        return -EINVAL;
    if (k < 1 || k > KITHI_K_MAX)
        return KITHI_E_K;
    if (ef == 0)
        ef = k > KITHI_EF_DEFAULT ? k : KITHI_EF_DEFAULT;
    if (ef < k || ef > KITHI_EF_MAX)
        return KITHI_E_EF;
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    rc = kithi_condition_of(c, filter, &err, &condition);
    if (rc == KITHI_E_FILTER)
        kithi_report(error, &err, rc);
    while (rc == 0) {
        rc = explain(kithi_call_map(c), condition, k, ef, &found);
        if (!kithi_call_again(index, c, &rc))
            break;
        rc = 0;
    }
    kithi_call_end(index, c);
    return rc < 0 ? rc : kithi_opts_out(out, &found, sizeof found, offsetof(struct kith_explanation, fields));
}
