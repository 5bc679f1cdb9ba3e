/*
 * results.c - making, reading and freeing results.
 */
#include "client/src/results_priv.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/opts_priv.h"

kith_results *kith_results_new(void)
{
    kith_results *r = calloc(1, sizeof *r);
    if (r)
        kithi_results_init(&r->found);
    if (r)
        kithi_scroll_init(&r->scroll);
    return r;
}

void kith_results_free(kith_results *r)
{
    if (!r)
        return;
    kithi_results_fini(&r->found);
    kithi_scroll_fini(&r->scroll);
    free(r->vectors);
    free(r->payloads);
    free(r->payload_at);
    free(r);
}

int kithi_results_room(kith_results *r, size_t floats)
{
    if (floats <= r->vectors_capacity)
        return 0;
    float *p = realloc(r->vectors, floats * sizeof *p);
    if (!p)
        return -ENOMEM;
    r->vectors = p;
    r->vectors_capacity = floats;
    return 0;
}

uint32_t kith_results_count(const kith_results *r)
{
    return r->found.count;
}

const char *kith_results_id(const kith_results *r, uint32_t i)
{
    return i < r->found.count ? r->found.ids + r->found.hits[i].id_off : NULL;
}

size_t kith_results_id_len(const kith_results *r, uint32_t i)
{
    return i < r->found.count ? r->found.hits[i].id_len : 0;
}

float kith_results_distance(const kith_results *r, uint32_t i)
{
    return i < r->found.count ? r->found.hits[i].distance : NAN;
}

uint32_t kith_results_distances(const kith_results *r, float *out, uint32_t n)
{
    uint32_t count = r->found.count < n ? r->found.count : n;
    for (uint32_t i = 0; i < count; i++)
        out[i] = r->found.hits[i].distance;
    return count;
}

size_t kith_results_ids(const kith_results *r, char *out, size_t size)
{
    size_t len = 0, at = 0;
    for (uint32_t i = 0; i < r->found.count; i++)
        len += (size_t)r->found.hits[i].id_len + 1;
    if (len > size)
        return len;
    for (uint32_t i = 0; i < r->found.count; i++) {
        size_t piece = (size_t)r->found.hits[i].id_len + 1;
        memcpy(out + at, r->found.ids + r->found.hits[i].id_off, piece);
        at += piece;
    }
    return len;
}

const float *kith_results_vector(const kith_results *r, uint32_t i)
{
    return r->vector_dim && i < r->found.count ? r->vectors + (size_t)i * r->vector_dim : NULL;
}

const char *kith_results_payload(const kith_results *r, uint32_t i)
{
    return r->has_payloads && i < r->found.count && r->payload_at[i] ? r->payloads + r->payload_at[i] - 1
                                                                     : NULL;
}

const char *kith_results_notice(const kith_results *r)
{
    return r->notice[0] ? r->notice : NULL;
}

const char *kith_results_cursor(const kith_results *r)
{
    return r->cursor[0] ? r->cursor : NULL;
}

int kith_results_info(const kith_results *r, struct kith_search_info *out)
{
    if (!r || !out)
        return -EINVAL;
    const struct kithi_search_stats *s = &r->found.stats;
    struct kith_search_info info = {
        .epoch = s->epoch,
        .distance_count = s->distance_count,
        .expansion_count = s->expansion_count,
        .restart_count = s->restart_count,
        .deadline_hit = s->deadline_hit,
        .generation_changed = r->generation_changed,
        .indexed = r->indexed,
        .estimate_count = s->estimate_count,
        .ef = r->ef,
        .ef_basis = r->ef_basis,
        .plan = r->plan,
        .plan_reason = r->plan_reason,
        .evaluated_count = r->evaluated,
        .matched_count = r->matched,
        .share = r->share,
    };
    return kithi_opts_out(out, &info, sizeof info, offsetof(struct kith_search_info, estimate_count));
}
