/*
 * relayout.c - the steps of a new layout. See relayout.h.
 *
 * Completions only note that they came; turns decide what comes next, so that a step is left in one place.
 */
#include "server/writer/relayout.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/writer/collection.h"

static const struct kithi_geometry *present(const struct kithi_collection *c)
{
    return &kithi_index_map(c->index)->geometry;
}

static bool same_layout(const struct kithi_geometry *a, const struct kithi_geometry *b)
{
    return !memcmp(a, b, sizeof *a);
}

/* ---- what runs elsewhere ---- */

static void work_job(void *arg, unsigned worker, uint32_t i)
{
    struct kithi_collection *c = arg;
    struct kithi_relayout *r = &c->relayout;
    switch (r->step) {
    case RELAYOUT_MEASURE: kithi_trial_job(r->trial, worker, i); break;
    case RELAYOUT_COPY: kithi_group_job(r->next, kithi_group_open(r->next), worker, i); break;
    case RELAYOUT_PREFETCH:
        r->status = kithi_prefetch_measure(c->segment, &r->cancelled, &r->prefetch, &r->err);
        break;
    default: break;
    }
}

static void work_done(struct kithi_work *work)
{
    struct kithi_collection *c = work->arg;
    c->relayout.busy = false;
}

static void submit(struct kithi_collection *c, enum kithi_relayout_step step, uint32_t jobs)
{
    struct kithi_relayout *r = &c->relayout;
    r->step = step;
    r->busy = true;
    r->work.n = jobs;
    kithi_pool_submit(c->daemon->pool, &r->work);
}

/* The choice first, so that a start from the log alone uses it. */
static int begin_call(void *arg)
{
    struct kithi_collection *c = arg;
    struct kithi_relayout *r = &c->relayout;
    if (same_layout(&r->settings.geometry, present(c))) {
        return kithi_settings_write(c->data_dir, &r->settings, &r->err);
    }
    return kithi_collection_build(c, &r->settings, &r->next, &r->err);
}

static void begin_done(struct kithi_io_op *op, int status)
{
    struct kithi_collection *c = op->arg;
    c->relayout.busy = false;
    c->relayout.status = status;
}

/* ---- ends ---- */

static void release(struct kithi_relayout *r)
{
    kithi_trial_free(r->trial);
    kithi_copy_end(r->copy);
    kithi_index_close(r->next);
    r->trial = NULL;
    r->copy = NULL;
    r->next = NULL;
}

static void rest(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    if (r->next) {
        unlink(c->segment_next);
    }
    release(r);
    r->step = RELAYOUT_REST;
    kithi_pipeline_hold(c, false);
    c->daemon->again = true;
}

/* The collection stays as it is, for now. */
static void give_up(struct kithi_collection *c, int status)
{
    struct kithi_relayout *r = &c->relayout;
    uint64_t live = kithi_index_live(c->index);
    r->not_below = live ? 2 * live : 1; /* an empty one, too, waits for something to change */
    kithi_log(KITHI_LOG_WARN, "relayout-failed",
              "name=%s status=%s live=%" PRIu64 " again_at=%" PRIu64 " msg=%s; the collection stays as it is",
              c->settings.name, kithi_error_name(status), live, r->not_below, r->err.text);
    rest(c);
}

/* ---- auto ---- */

static void log_trial(const struct kithi_collection *c)
{
    const struct kithi_trial *t = c->relayout.trial;
    uint32_t n = kithi_trial_count(t), choice = kithi_trial_choice(t);
    const struct kithi_trial_result *plain = kithi_trial_result(t, 0), *best = plain;
    double target = kithi_trial_target(t);
    for (uint32_t i = 0; i < n; i++) {
        const struct kithi_trial_result *l = kithi_trial_result(t, i);
        best = l->quantization == choice ? l : best;
        kithi_log(KITHI_LOG_INFO, "layout-measured",
                  "name=%s layout=%s reached=%s ef=%u recall=%.4f search_us=%.2f insert_us=%.1f cost_us=%.2f",
                  c->settings.name, kithi_quantization_name(l->quantization), l->reached ? "yes" : "no",
                  l->ef, l->recall, l->search_us, l->insert_us, l->cost_us);
    }
    if (best == plain || !plain->reached) {
        kithi_log(
            KITHI_LOG_INFO, "layout-chosen",
            "name=%s layout=%s msg=auto chose %s: about %.1f us a search at recall %.2f of a large collection",
            c->settings.name, kithi_quantization_name(choice), kithi_quantization_name(choice),
            best->search_us, target);
    } else {
        kithi_log(
            KITHI_LOG_INFO, "layout-chosen",
            "name=%s layout=%s msg=auto chose %s: once it is large about %.1f x %s at recall %.2f, insertions %.1f x",
            c->settings.name, kithi_quantization_name(choice), kithi_quantization_name(choice),
            plain->search_us / best->search_us, kithi_quantization_name(plain->quantization), target,
            plain->insert_us / best->insert_us);
    }
}

/* Write what r->settings says and begin the segment it asks for. */
static void begin(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    r->step = RELAYOUT_BEGIN;
    r->busy = true;
    kithi_io_call(c->daemon->io, &r->op, begin_call);
}

static void measure_next(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    int jobs = kithi_trial_stage(r->trial, &r->err);
    if (jobs > 0) {
        submit(c, RELAYOUT_MEASURE, (uint32_t)jobs);
    } else if (jobs < 0) {
        give_up(c, jobs);
    } else {
        log_trial(c);
        r->settings = c->settings;
        kithi_settings_choose(&r->settings, kithi_trial_choice(r->trial));
        release(r);
        begin(c);
    }
}

static void measure_begin(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    int status =
        kithi_trial_new(c->index, c->settings.keep, kithi_pool_threads(c->daemon->pool), &r->trial, &r->err);
    if (status) {
        give_up(c, status);
    } else {
        measure_next(c);
    }
}

/* ---- the copy ---- */

static void take_place(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_relayout *r = &c->relayout;
    KITHI_FAULT_CRASH("crash-after-copy");
    int status = kithi_collection_switch(c, &r->err);
    if (status) {
        give_up(c, status);
        return;
    }
    KITHI_FAULT_CRASH("crash-after-switch");
    struct kithi_geometry before = *present(c);
    kithi_copy_end(r->copy);
    r->copy = NULL;
    kithi_index_mark_moved(c->index); /* where the switch could not: somebody has removed the file */
    kithi_index_close(c->index);
    c->index = r->next;
    r->next = NULL;
    r->not_below = 0;
    r->prefetch_due = 0;
    kithi_pipeline_anew(&c->pipeline);
    kithi_log(KITHI_LOG_INFO, "relayout",
              "name=%s from=%s to=%s keep=%s generation=%" PRIu64 " epoch=%" PRIu64 " live=%" PRIu64
              " ms=%" PRIu64,
              c->settings.name, kithi_quantization_name(before.quantization),
              kithi_quantization_name(present(c)->quantization), kithi_keep_name(present(c)->keep),
              c->settings.generation, kithi_index_epoch(c->index), kithi_index_live(c->index),
              now_ms - r->began_ms);
    rest(c);
}

static void copy_next(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_relayout *r = &c->relayout;
    int jobs = kithi_copy_stage(r->copy, now_ms, &r->err);
    if (jobs > 0) {
        submit(c, RELAYOUT_COPY, (uint32_t)jobs);
    } else if (jobs < 0) {
        give_up(c, jobs);
    } else {
        take_place(c, now_ms);
    }
}

/* The helper has ended, and what it wrote stands, even when there was no room for the segment. */
static void copy_begin(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_relayout *r = &c->relayout;
    int status = r->status;
    KITHI_FAULT_CRASH("crash-after-choice");
    if (!status && r->next) {
        status = kithi_copy_begin(c->index, r->next, &r->copy, &r->err);
    }
    if (status) {
        give_up(c, status);
    } else if (r->next) {
        copy_next(c, now_ms);
    } else {
        rest(c); /* it has that layout already */
    }
}

/* ---- prefetch distances ---- */

/* What pays in caches is not what pays in memory: measured again when there are so many times the vectors. */
#define PREFETCH_AGAIN 8u
/* And not before there are so many; in a moment without writes, or when none has come for so long. */
#define PREFETCH_MIN     4096u
#define PREFETCH_WAIT_MS 60000u

static void prefetch_end(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    const struct kithi_prefetch *p = &r->prefetch;
    r->step = RELAYOUT_REST;
    if (r->status) {
        kithi_log(KITHI_LOG_DEBUG, "prefetch-unknown", "name=%s status=%s msg=%s", c->settings.name,
                  kithi_error_name(r->status), r->err.text);
        return;
    }
    kithi_prefetch_publish(c->index, p);
    kithi_log(KITHI_LOG_INFO, "prefetch", "name=%s row=%u code=%u search_us=%.2f before_us=%.2f",
              c->settings.name, p->row, p->code, p->after_us, p->before_us);
}

/* ---- turns ---- */

static bool is_due(const struct kithi_collection *c)
{
    uint64_t live = kithi_index_live(c->index);
    if (live < c->relayout.not_below) {
        return false;
    }
    return c->settings.chosen ? !same_layout(&c->settings.geometry, present(c)) : live >= KITHI_RELAYOUT_MIN;
}

static void look(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_relayout *r = &c->relayout;
    if (!is_due(c)) {
        kithi_pipeline_hold(c, false);
        uint64_t live = kithi_index_live(c->index);
        uint64_t due = r->prefetch_due > PREFETCH_MIN ? r->prefetch_due : PREFETCH_MIN;
        if (live < due) {
            r->prefetch_by_ms = now_ms + PREFETCH_WAIT_MS;
        } else if (kithi_pipeline_idle(c) || now_ms >= r->prefetch_by_ms) {
            r->prefetch_due = live * PREFETCH_AGAIN;
            submit(c, RELAYOUT_PREFETCH, 1);
        }
        return;
    }
    if (c->old_until_ms != KITHI_NEVER) {
        return; /* one old segment at a time; its end brings the next turn */
    }
    if (c->checkpointer.step != CHECKPOINTER_REST) {
        return; /* an image is taken of this segment; its end brings the next turn */
    }
    if (!kithi_pipeline_hold(c, true) || c->audit.busy) {
        return; /* what is under way ends first */
    }
    r->began_ms = now_ms;
    if (c->settings.chosen) {
        r->settings = c->settings;
        begin(c);
    } else {
        measure_begin(c);
    }
}

void kithi_relayout_turn(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_relayout *r = &c->relayout;
    bool leaving = c->dropping || c->daemon->failing || c->daemon->stopping;
    if (leaving && r->busy) {
        atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
        if (r->trial) {
            kithi_trial_cancel(r->trial);
        }
    }
    if (r->busy) {
        return;
    }
    if (r->step == RELAYOUT_BEGIN && (!r->status || r->settings.generation != c->settings.generation)) {
        c->settings = r->settings;
    }
    if (leaving) {
        if (!kithi_relayout_idle(r)) {
            rest(c);
        }
        kithi_pipeline_hold(c, false);
        return;
    }
    atomic_store_explicit(&r->cancelled, false, memory_order_relaxed);
    switch (r->step) {
    case RELAYOUT_MEASURE: measure_next(c); break;
    case RELAYOUT_BEGIN: copy_begin(c, now_ms); break;
    case RELAYOUT_COPY: copy_next(c, now_ms); break;
    case RELAYOUT_PREFETCH: prefetch_end(c); break;
    case RELAYOUT_REST: break;
    }
    if (r->step == RELAYOUT_REST) {
        look(c, now_ms);
    }
}

bool kithi_relayout_idle(const struct kithi_relayout *r)
{
    return !r->busy && r->step == RELAYOUT_REST;
}

void kithi_relayout_init(struct kithi_relayout *r, struct kithi_collection *c)
{
    r->work = (struct kithi_work){ .fn = work_job, .done = work_done, .arg = c };
    r->op.done = begin_done;
    r->op.arg = c;
}

void kithi_relayout_fini(struct kithi_relayout *r)
{
    release(r);
}
