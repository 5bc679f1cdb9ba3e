/*
 * request.c - which code is which call.
 */
#include "server/gateway/request.h"

#include <errno.h>
#include <time.h>

static kithi_call_fn *const calls[KITHI_REST_IDS] = {
    [KITHI_REST_LIVEZ] = kithi_rest_livez,
    [KITHI_REST_READYZ] = kithi_rest_readyz,
    [KITHI_REST_HEALTH] = kithi_rest_health,
    [KITHI_REST_METRICS] = kithi_rest_metrics,
    [KITHI_REST_OPENAPI] = kithi_rest_openapi,
    [KITHI_REST_PAGE] = kithi_rest_page,
    [KITHI_REST_LIST] = kithi_rest_list,
    [KITHI_REST_CREATE] = kithi_rest_create,
    [KITHI_REST_DESCRIBE] = kithi_rest_describe,
    [KITHI_REST_ALTER] = kithi_rest_alter,
    [KITHI_REST_DROP] = kithi_rest_drop,
    [KITHI_REST_STATS] = kithi_rest_stats,
    [KITHI_REST_SEARCH] = kithi_rest_search,
    [KITHI_REST_SEARCH_BATCH] = kithi_rest_search_batch,
    [KITHI_REST_UPSERT] = kithi_rest_upsert,
    [KITHI_REST_DELETE] = kithi_rest_delete,
    [KITHI_REST_SCROLL] = kithi_rest_scroll,
    [KITHI_REST_COUNT] = kithi_rest_count,
    [KITHI_REST_FACET] = kithi_rest_facet,
    [KITHI_REST_GET_VECTOR] = kithi_rest_get_vector,
    [KITHI_REST_DELETE_VECTOR] = kithi_rest_delete_vector,
    [KITHI_REST_PAYLOAD] = kithi_rest_payload,
    [KITHI_REST_CHECKPOINT] = kithi_rest_checkpoint,
};

kithi_call_fn *kithi_request_call(const struct kithi_route *route)
{
    return calls[route->call];
}

/* The call was carried out, and its answer could not be written down. */
static void refuse_lost(struct kithi_request *r)
{
    if (r->route->writes) { /* an answer of one is written after kithd has committed it */
        kithi_refuse(&r->refusal, 503, "outcome_unknown", NULL,
                     "there is no memory for the answer; it may have been applied");
        r->refusal.outcome = KITHI_OUTCOME_UNKNOWN;
        return;
    }
    switch (r->answer.failed) {
    case -EFBIG:
        kithi_refuse(&r->refusal, 422, "answer_too_large", NULL,
                     "the answer would be larger than the %zu MiB of answer_mib; ask for less at a time",
                     r->gateway->answer_max >> 20);
        break;
    case -EDQUOT:
        kithi_refuse(&r->refusal, 503, "busy", NULL,
                     "all answers under way together would be larger than answers_mib; try again");
        break;
    default:
        kithi_refuse(&r->refusal, 503, "out_of_memory", NULL, "there is no memory for the answer");
        break;
    }
}

enum kithi_next kithi_request_run(struct kithi_request *r)
{
    enum kithi_next next;
    do {
        next = r->call(r);
    } while (next == KITHI_AGAIN);
    if (next == KITHI_DONE && !r->refusal.status && r->answer.failed) {
        refuse_lost(r);
    }
    return next;
}

uint64_t kithi_gateway_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
