/*
 * search.c - see search.h.
 */
#include "server/gateway/search.h"

#include <errno.h>
#include <float.h>
#include <stdio.h>

#include "server/gateway/metrics.h"

#define WIDE 2000u /* ef or top_k above this take too long to be beside others */
/* Hits with payloads that libkith copies at once: 64 KiB each at most. More come one by one, so that the ceiling of an answer holds. */
#define AT_ONCE 256u

bool kithi_search_is_wide(const struct kithi_search *q)
{
    return q->k > WIDE || q->ef > WIDE || q->exact;
}

static float score_of(enum kith_metric metric, float distance)
{
    return metric == KITH_METRIC_L2 ? distance : 1.0f - distance;
}

/* Is the score one that is asked for? As floats: an answer has the fewest digits that read back as one, so that a score of it as the
 * threshold keeps its own hit. */
static bool is_near(const struct kithi_search *q, enum kith_metric metric, float score)
{
    double bounded = q->threshold > (double)FLT_MAX    ? (double)FLT_MAX
                     : q->threshold < -(double)FLT_MAX ? -(double)FLT_MAX
                                                       : q->threshold;
    float threshold = (float)bounded;
    return !q->has_threshold || (metric == KITH_METRIC_L2 ? score <= threshold : score >= threshold);
}

/* The payload and vector of one hit, by itself. */
static int fetch_one(kith *index, const struct kithi_search *q, const struct kith_snapshot *at,
                     kith_results *one, struct kithi_search_hit *hit)
{
    struct kith_fetch_opts opts = KITH_FETCH_OPTS_INIT;
    opts.vector = q->with_vector;
    opts.payloads = q->fields.payload;
    opts.field_count = q->fields.count;
    opts.fields = q->fields.count ? q->fields.names : NULL;
    opts.at = *at;
    int rc = kith_fetch(index, hit->id, &opts, one);
    if (rc == KITH_E_NOT_FOUND) {
        return KITH_E_STALE; /* it was there at that moment */
    }
    hit->payload = rc == 0 && q->fields.payload ? kith_results_payload(one, 0) : NULL;
    hit->vector = rc == 0 && q->with_vector ? kith_results_vector(one, 0) : NULL;
    return rc;
}

static int put_hits(struct kithi_request *r, kith *index, const struct kithi_search *q,
                    const struct kith_snapshot *at, const kith_results *hits, bool fetch,
                    const struct kithi_search_writer *writer)
{
    enum kith_metric metric = kith_metric_of(index);
    kith_results *one = fetch ? kith_results_new() : NULL;
    int rc = fetch && !one ? -ENOMEM : 0;
    writer->begin(&r->answer);
    for (uint32_t i = 0; i < kith_results_count(hits) && rc == 0 && !r->answer.failed; i++) {
        struct kithi_search_hit hit = { .number = i,
                                        .id = kith_results_id(hits, i),
                                        .id_len = kith_results_id_len(hits, i),
                                        .score = score_of(metric, kith_results_distance(hits, i)),
                                        .dim = kith_dim(index) };
        if (!is_near(q, metric, hit.score)) {
            break; /* hits come nearest first */
        }
        if (fetch) {
            rc = fetch_one(index, q, at, one, &hit);
        } else if (q->fields.payload) {
            hit.payload = kith_results_payload(hits, i);
        }
        if (rc == 0) {
            writer->hit(&r->answer, q, &hit);
        }
    }
    kith_results_free(one);
    return rc;
}

void kithi_search_refuse_late(struct kithi_request *r)
{
    kithi_refuse(&r->refusal, 504, "timeout", NULL,
                 "it was not done in time; ask for less, or for an approximate answer");
}

int kithi_search_run(struct kithi_request *r, kith *index, const struct kithi_search *q, uint64_t until_ns,
                     kith_results *hits, const struct kithi_search_writer *writer, struct kith_error *error)
{
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    struct kithi_search_summary summary = { .us = 0 };
    bool fetch = q->with_vector || (q->fields.payload && q->k > AT_ONCE);
    size_t begin = r->answer.len;
    opts.ef = q->ef;
    opts.exact = q->exact;
    bool partial = until_ns && until_ns <= r->deadline_ns;
    opts.deadline_ns = partial ? until_ns : r->deadline_ns;
    opts.target_recall = q->recall;
    opts.payloads = q->fields.payload && !fetch;
    opts.field_count = opts.payloads ? q->fields.count : 0;
    opts.fields = opts.field_count ? q->fields.names : NULL;
    opts.filter = q->filter;
    opts.error = error;
    int rc = KITH_E_STALE;
    for (unsigned round = 0; rc == KITH_E_STALE && round < 4; round++) {
        kithi_text_cut(&r->answer, begin);
        rc = fetch ? kith_snapshot(index, &opts.at) : 0;
        if (rc < 0) {
            return rc;
        }
        uint64_t began = kithi_gateway_now_ns();
        rc = q->like ? kith_search_id(index, q->like, q->k, &opts, hits)
                     : kith_search(index, q->vector, q->len, q->k, &opts, hits);
        summary.us = (kithi_gateway_now_ns() - began) / 1000;
        r->search_us += summary.us;
        if (rc < 0) {
            continue;
        }
        kith_results_info(hits, &info);
        rc = put_hits(r, index, q, &opts.at, hits, fetch, writer);
    }
    if (rc < 0) {
        return rc;
    }
    if (info.deadline_hit && !partial) {
        kithi_search_refuse_late(r);
        return 0;
    }
    if (q->filter && info.plan < KITHI_METRICS_PLANS) {
        atomic_fetch_add_explicit(&r->gateway->metrics->plans[info.plan], 1, memory_order_relaxed);
    }
    summary.epoch = info.epoch;
    summary.timeline = kith_timeline(index);
    summary.partial = info.deadline_hit;
    summary.notice = q->filter ? kith_results_notice(hits) : NULL;
    writer->end(&r->answer, &summary);
    r->searched = true;
    return 0;
}

enum kithi_next kithi_search_waiting(struct kithi_request *r)
{
    struct kithi_rest_moment moment = { .min_epoch = r->await };
    struct kithi_handle *handle;
    if (!r->await) {
        return KITHI_DONE;
    }
    if (!kithi_rest_open(r, false, &handle)) {
        return KITHI_DONE;
    }
    enum kithi_next next = kithi_rest_await(r, handle, &moment, r->await_until_ns);
    kithi_handles_give(r->gateway->handles, handle, false);
    return next;
}

uint64_t kithi_search_until(const struct kithi_request *r, uint64_t deadline_ms)
{
    return deadline_ms ? r->began_ns + deadline_ms * 1000000u : 0;
}

void kithi_search_place(int rc, const char *where, char *out, size_t size)
{
    const char *name = rc == KITH_E_DIMENSION || rc == KITH_E_NOT_FINITE || rc == KITH_E_ZERO_VECTOR
                           ? "vector"
                       : rc == KITH_E_NOT_FOUND || rc == KITH_E_ID ? "like"
                       : rc == KITH_E_K                            ? "top_k"
                       : rc == KITH_E_EF                           ? "ef_search"
                       : rc == KITH_E_RECALL                       ? "target_recall"
                       : rc == KITH_E_FILTER                       ? "filter"
                                                                   : "";
    kithi_body_place(out, size, where, name);
    if (!*name) {
        out[0] = 0;
    }
}

const char *kithi_search_text(int rc, kith *index, const struct kithi_search *q,
                              const struct kith_error *error, char *out, size_t size)
{
    if (rc != KITH_E_DIMENSION) {
        return error->text;
    }
    snprintf(out, size, "the vector has %zu dimensions, the collection %u", q->len, kith_dim(index));
    return out;
}
