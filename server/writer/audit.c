/*
 * audit.c - see audit.h.
 */
#include "server/writer/audit.h"

#include <inttypes.h>

#include "server/base/log.h"
#include "server/writer/collection.h"

/* Nothing was written for so long: a pass begins. */
#define QUIET_MS 1000u
/* Between two pieces: so many times what the last one took. */
#define PAUSE 3u
/* A sample for so many changes: it costs about as much as the insertion of one. */
#define SAMPLE_OPS 512u
/* Passes, one after the other, that have linked something anew. What they did not help stays counted. */
#define ROUNDS_MAX 4u
/* After memory was short. */
#define AGAIN_MS 60000u

static void run_job(void *arg, unsigned worker, uint32_t i)
{
    struct kithi_collection *c = arg;
    struct kithi_audit *a = &c->audit;
    (void)i;
    if (a->sampling) {
        a->sample = kithi_audit_sample_job(c->index, worker, a->random);
    } else {
        kithi_audit_job(c->index, worker);
    }
}

static void end_sample(struct kithi_audit *a)
{
    a->samples += a->sample >= 0;
    a->samples_missed += a->sample == 0;
    a->relinked += a->sample == 0;
}

/* The pass is over, and nothing has changed since it began but what it did itself. */
static void end_pass(struct kithi_collection *c, const struct kithi_audit_found *found)
{
    struct kithi_audit *a = &c->audit;
    a->passes++;
    a->epoch = kithi_index_epoch(c->index);
    a->found += found->missed;
    a->relinked += found->relinked;
    a->unreachable = found->missed;
    if (found->missed) {
        kithi_log(KITHI_LOG_INFO, "unreachable",
                  "name=%s epoch=%" PRIu64
                  " vectors=%u relinked=%u msg=vectors that no link led to were linked anew",
                  c->settings.name, a->epoch, found->missed, found->relinked);
    }
    if (found->missed && a->rounds < ROUNDS_MAX) {
        a->rounds++; /* whether it helped the next one says */
    } else {
        a->rounds = 0;
        a->done_mark = a->mark;
    }
}

static void job_done(struct kithi_work *work)
{
    struct kithi_collection *c = work->arg;
    struct kithi_audit *a = &c->audit;
    struct kithi_audit_found found;
    a->busy = false;
    kithi_audit_close(c->index);
    c->daemon->again = true;
    if (a->sampling) {
        end_sample(a);
        return;
    }
    uint64_t us = kithi_now_us() - a->began_us;
    a->next_ms = kithi_now_ms() + 1 + us * PAUSE / 1000;
    if (!kithi_audit_found(c->index, &found)) {
        return;
    }
    kithi_audit_end(c->index);
    if (kithi_audit_mark(c->index) == a->mark) {
        end_pass(c, &found);
    } else {
        a->relinked += found.relinked;
    }
}

static void submit(struct kithi_collection *c, bool sampling)
{
    struct kithi_audit *a = &c->audit;
    a->busy = true;
    a->sampling = sampling;
    a->began_us = kithi_now_us();
    a->random = a->random * UINT64_C(6364136223846793005) + a->began_us;
    kithi_audit_open(c->index);
    kithi_pool_submit(c->daemon->pool, &a->work);
}

void kithi_audit_init(struct kithi_audit *a, struct kithi_collection *c)
{
    a->work = (struct kithi_work){ .fn = run_job, .done = job_done, .arg = c, .n = 1 };
    a->done_mark = UINT64_MAX;
}

void kithi_audit_anew(struct kithi_collection *c)
{
    struct kithi_audit *a = &c->audit;
    kithi_audit_end(c->index);
    a->mark = a->done_mark = UINT64_MAX;
    a->unreachable = 0;
    a->rounds = 0;
}

uint64_t kithi_audit_turn(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_audit *a = &c->audit;
    const struct kithi_pipeline *p = &c->pipeline;
    if (a->busy) {
        return KITHI_NEVER; /* its end brings the next turn */
    }
    bool leaving = c->dropping || c->condemned || c->daemon->stopping || c->daemon->failing;
    uint64_t mark = kithi_audit_mark(c->index);
    if (p->held || kithi_relayout_is_closing(&c->relayout)) {
        return KITHI_NEVER; /* the end of that brings the next turn */
    }
    if (leaving || kithi_index_census_due(c->index)) {
        kithi_audit_end(c->index);
        return KITHI_NEVER;
    }
    if (p->calm) {
        return KITHI_NEVER; /* the end of that brings the next turn */
    }
    if (mark != a->mark) {
        a->mark = mark;
        a->since_ms = now_ms;
        a->rounds = 0;
        kithi_audit_end(c->index);
    }
    if (p->ops >= a->ops_sampled + SAMPLE_OPS && kithi_index_live(c->index)) {
        a->ops_sampled = p->ops;
        submit(c, true);
        return KITHI_NEVER;
    }
    if (mark == a->done_mark || p->outstanding || p->sweeping || p->unlogged) {
        return KITHI_NEVER; /* what is under way brings the next turn */
    }
    uint64_t due_ms = a->since_ms + QUIET_MS > a->next_ms ? a->since_ms + QUIET_MS : a->next_ms;
    if (now_ms < due_ms) {
        return due_ms;
    }
    if (!kithi_audit_is_begun(c->index) && kithi_audit_begin(c->index)) {
        a->next_ms = now_ms + AGAIN_MS;
        return a->next_ms;
    }
    submit(c, false);
    return KITHI_NEVER;
}
