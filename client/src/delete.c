/*
 * delete.c - deleting by a filter: a scroll of what fulfils it, and a batch for each page of deletes under the condition that it still does: the daemon
 * asks each payload once more when it comes to it, so that one that was changed since the page was read is not deleted for what it was.
 */
#include <errno.h>
#include <string.h>

#include "client/src/handle_priv.h"

#define PAGE 1000u

/* Bytes of a batch, so that one of long filters is no larger than a write may be. */
#define BATCH_BYTES (4u << 20)

static int commit_batch(kith_batch *batch, uint64_t *count, uint64_t *epoch, struct kith_error *error)
{
    struct kith_commit commit = KITH_COMMIT_INIT;
    int rc = kith_batch_count(batch) ? kith_batch_commit(batch, &commit) : 0;
    if (rc < 0 && error)
        *error = commit.error;
    if (rc == 0) {
        *count += commit.found;
        *epoch = commit.found ? commit.epoch : *epoch;
    }
    kith_batch_clear(batch);
    return rc;
}

/* One page. 0 or an error. */
static int delete_page(kith_batch *batch, const kith_results *page, const char *filter, uint64_t *count,
                       uint64_t *epoch, struct kith_error *error)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < kith_results_count(page); i++) {
        rc = kithi_batch_delete_if(batch, kith_results_id(page, i), filter);
        if (rc == 0 && batch->len > BATCH_BYTES)
            rc = commit_batch(batch, count, epoch, error);
    }
    return rc < 0 ? rc : commit_batch(batch, count, epoch, error);
}

int kith_delete_filter(kith *index, const char *filter, uint64_t *out_count, uint64_t *out_epoch,
                       struct kith_error *error)
{
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    uint64_t count = 0, epoch = 0;
    if (!index || !filter)
        return -EINVAL;
    opts.limit = PAGE;
    opts.filter = filter;
    opts.error = error;
    kith_results *page = kith_results_new();
    kith_batch *batch = kith_batch_new(index);
    int rc = page && batch ? 0 : -ENOMEM;
    for (const char *cursor = NULL; rc == 0;) {
        rc = kith_scroll(index, cursor, &opts, page);
        if (rc >= 0)
            rc = delete_page(batch, page, filter, &count, &epoch, error);
        cursor = rc == 0 ? kith_results_cursor(page) : NULL;
        if (!cursor)
            break;
    }
    if (out_count)
        *out_count = count;
    if (out_epoch)
        *out_epoch = epoch;
    kith_batch_free(batch);
    kith_results_free(page);
    return rc;
}
