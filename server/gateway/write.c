/*
 * write.c - see write.h.
 */
#include "server/gateway/write.h"

#include <inttypes.h>
#include <stdio.h>

#include "server/gateway/body.h"

int kithi_write_commit(kith_batch *batch, enum kith_durability wait, struct kith_commit *done)
{
    int rc = kith_batch_set_durability(batch, wait);
    return rc < 0 ? rc : kith_batch_commit(batch, done);
}

enum kithi_next kithi_write_end(struct kithi_request *r, struct kithi_handle *handle, int rc,
                                const struct kith_commit *done, const char *list)
{
    char where[48] = "";
    if (rc < 0 && list && done->failed_item != UINT32_MAX && done->error.text[0]) {
        snprintf(where, sizeof where, "%s[%u]", list, done->failed_item);
    }
    return kithi_rest_end(r, handle, rc, where, rc < 0 ? done->error.text : NULL);
}

void kithi_write_refuse_point(struct kithi_request *r, int rc, const char *where, kith *index, size_t len,
                              const char *payload)
{
    char place[128];
    struct kith_error error = { 0 };
    const char *name = rc == KITH_E_ID          ? "id"
                       : rc == KITH_E_PAYLOAD   ? "metadata"
                       : rc == KITH_E_TOO_LARGE ? ""
                                                : "vector";
    kithi_body_place(place, sizeof place, where, name);
    if (rc == KITH_E_DIMENSION) {
        snprintf(error.text, sizeof error.text, "the vector has %zu dimensions, the collection %u", len,
                 kith_dim(index));
    } else if (rc == KITH_E_PAYLOAD) {
        kith_payload_check(KITH_PAYLOAD_REPLACE, payload, &error);
    } else if (rc == KITH_E_TOO_LARGE) {
        snprintf(
            error.text, sizeof error.text,
            "the points from here on are more than the 32 MiB that become visible together; send smaller batches");
    }
    kithi_refuse_kith(&r->refusal, rc, place, error.text);
}

int kithi_write_delete_filter(struct kithi_request *r, kith *index, const char *filter, uint64_t *out_count,
                              struct kith_commit *done)
{
    *out_count = 0;
    int rc = kith_delete_filter(index, filter, out_count, &done->epoch, &done->error);
    if (rc < 0 && *out_count > 0) {
        kithi_refuse_kith(&r->refusal, rc, rc == KITH_E_FILTER ? "filter" : NULL, NULL);
        snprintf(r->refusal.message, sizeof r->refusal.message,
                 "%" PRIu64 " were deleted up to epoch %" PRIu64 ", and stay so; then: %s", *out_count,
                 done->epoch, done->error.text[0] ? done->error.text : kith_strerror(rc));
        r->refusal.outcome =
            r->refusal.outcome == KITHI_OUTCOME_UNKNOWN ? KITHI_OUTCOME_UNKNOWN : KITHI_OUTCOME_PARTIAL;
    }
    return rc;
}
