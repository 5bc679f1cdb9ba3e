/*
 * census.c - see census.h.
 */
#include "server/writer/census.h"

#include <errno.h>
#include <inttypes.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/writer/collection.h"

/* Slots of a turn: a tenth of a millisecond or so, for which a write may have to wait. */
#define SLOTS_PER_TURN 2048u
/* For want of memory it is tried again so much later. */
#define AGAIN_MS 500u
#define HOLD_MS  20u /* between two looks at what a test holds */

static int look(struct kithi_collection *c, uint32_t slots, struct kithi_errmsg *err)
{
    int64_t miscounted = 0;
    int status = kithi_index_census(c->index, slots, &miscounted, err);
    if (miscounted) {
        kithi_log(KITHI_LOG_WARN, "miscounted",
                  "name=%s live=%" PRIu64 " off_by=%" PRId64
                  " msg=the segment's count of vectors was wrong; it "
                  "was put right",
                  c->settings.name, kithi_index_live(c->index), miscounted);
    }
    return status;
}

static void condemn(struct kithi_collection *c, const struct kithi_errmsg *why)
{
    struct kithi_daemon *d = c->daemon;
    bool leave = c->anew && !d->stopping;
    c->condemned = true;
    d->again = true;
    kithi_log(KITHI_LOG_ERROR, "segment-condemned",
              "name=%s path=%s msg=%s; %s: no write is lost, and readers go on", c->settings.name, c->segment,
              why->text,
              leave ? "it was built anew once already, so kithd leaves, and the next start builds it again"
              : d->stopping
                  ? "the next start builds it anew from checkpoint and log"
                  : "it is built anew from checkpoint and log, writes are refused until it is back");
    if (leave) {
        d->stopping = true;
        d->exit_status = 1;
    }
}

bool kithi_census_turn(struct kithi_collection *c, uint64_t now_ms, uint64_t *out_ms)
{
    struct kithi_errmsg err = { .text = "" };
    *out_ms = KITHI_NEVER;
    if (c->condemned) {
        return true;
    }
    if (!kithi_index_census_due(c->index) || c->dropping || c->daemon->failing) {
        return false;
    }
    if (KITHI_FAULT_HELD("census", c->settings.name)) {
        *out_ms = now_ms + HOLD_MS;
        return true;
    }
    *out_ms = now_ms;
    if (now_ms < c->census_again_ms) {
        *out_ms = c->census_again_ms;
        return true;
    }
    int status = KITHI_FAULT("census-enomem") ? -ENOMEM : look(c, SLOTS_PER_TURN, &err);
    if (status == -ENOMEM) {
        *out_ms = c->census_again_ms = now_ms + AGAIN_MS;
        return true;
    }
    if (status < 0) {
        condemn(c, &err);
        *out_ms = KITHI_NEVER;
        return true;
    }
    if (status == 0) {
        kithi_log(KITHI_LOG_DEBUG, "census", "name=%s live=%" PRIu64, c->settings.name,
                  kithi_index_live(c->index));
        c->pipeline.sweep_at_ms = 0;
    }
    return status != 0;
}

int kithi_census_finish(struct kithi_collection *c, struct kithi_errmsg *err)
{
    int status = look(c, UINT32_MAX, err);
    c->condemned |= status == KITHI_E_CORRUPT;
    return status;
}
