/*
 * relayout.c - the steps of a next generation. See relayout.h.
 *
 * Completions only note that they came; turns decide what comes next, so that a step is left in one place.
 */
#include "server/writer/relayout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/writer/collection.h"
#include "shm/base/bytes.h"

/* During the first pass so many changes may come for each vector that is copied, and so many besides. */
#define FREE_TIMES 4u
#define FREE_MIN   65536u
/* A collection of so few slots is copied before writes go on as they like: each that comes meanwhile is done twice, and they would soon be many
 * times what was to be copied. (16,640 vectors were there when `auto` had copied 1,536.) */
#define SMALL 8192u
/* So few changes are copied while writes wait: what takes the workers LAST_US. */
#define LAST_US  8000.0
#define LAST_MIN 32u
#define LAST_MAX 1024u
/* Between two lines of the log that say how far it is. */
#define TELL_MS 10000u
/* A copy that waits for slots to become free in its own segment. */
#define WAIT_MS 1u
#define HOLD_MS 5u /* between two looks at what a test holds */

static const struct kithi_geometry *present(const struct kithi_collection *c)
{
    return &kithi_index_map(c->index)->geometry;
}

/* A larger ceiling alone is for growth.h. */
static bool same_layout(const struct kithi_geometry *wanted, const struct kithi_geometry *have)
{
    struct kithi_geometry same = *wanted;
    if (same.slot_max > have->slot_max) {
        same.slot_max = have->slot_max;
    }
    return !memcmp(&same, have, sizeof same);
}

/* ---- what runs elsewhere ---- */

static void work_job(void *arg, unsigned worker, uint32_t i)
{
    struct kithi_collection *c = arg;
    struct kithi_relayout *r = &c->relayout;
    switch (r->step) {
    case RELAYOUT_MEASURE: kithi_trial_job(r->trial, worker, i); break;
    case RELAYOUT_COPY: kithi_copy_job(r->copy, worker, i); break;
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

/* Something failed that writes settings: which of them stand now? */
static int look_at_settings(struct kithi_collection *c, int status)
{
    struct kithi_relayout *r = &c->relayout;
    struct kithi_errmsg why;
    r->looked = status && !kithi_settings_read(c->data_dir, &r->stand, &why);
    return status;
}

/* Settings first, so that a start from the log alone uses them. */
static int begin_call(void *arg)
{
    struct kithi_collection *c = arg;
    struct kithi_relayout *r = &c->relayout;
    KITHI_FAULT_CRASH("crash-before-choice");
    if (!r->anew && same_layout(&r->settings.geometry, present(c))) {
        return look_at_settings(c, kithi_settings_write(c->data_dir, &r->settings, &r->err));
    }
    return look_at_settings(
        c, kithi_collection_build(c, &r->settings, &r->settings.geometry, &r->next, &r->err));
}

static int undo_call(void *arg)
{
    struct kithi_collection *c = arg;
    return look_at_settings(c,
                            kithi_settings_write(c->data_dir, &c->relayout.settings, &c->relayout.undo_err));
}

static int close_call(void *arg)
{
    struct kithi_collection *c = arg;
    struct kithi_relayout *r = &c->relayout;
    if (r->spent_next) {
        unlink(c->segment_next);
    }
    kithi_index_close(r->spent);
    return 0;
}

static void call_done(struct kithi_io_op *op, int status)
{
    struct kithi_collection *c = op->arg;
    c->relayout.busy = false;
    c->relayout.status = status;
}

static void call(struct kithi_collection *c, enum kithi_relayout_step step, kithi_io_call_fn *fn)
{
    struct kithi_relayout *r = &c->relayout;
    r->step = step;
    r->busy = true;
    kithi_io_call(c->daemon->io, &r->op, fn);
}

/* ---- answers ---- */

static uint64_t bytes_taken(const struct kithi_index *ix)
{
    const struct kithi_header *h = kithi_map_header(kithi_index_map(ix));
    uint64_t sum = 0;
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++) {
        sum += atomic_load_explicit(&h->taken[i], memory_order_relaxed); /* this thread stored it */
    }
    return sum;
}

/* What was done; with nothing copied bytes_before is 0. */
static void answer(const struct kithi_collection *c, struct kithi_request *q, uint32_t done,
                   uint64_t bytes_before)
{
    const struct kithi_relayout *r = &c->relayout;
    struct kithi_altered a = { .generation = kithi_index_map(c->index)->generation,
                               .live = kithi_index_live(c->index),
                               .bytes_before = bytes_before,
                               .bytes_after = bytes_taken(c->index),
                               .done = done };
    if (done == KITHI_ALTER_COPIED) {
        a.took_ms = r->took_ms;
        a.held_us = r->took_held_us;
    } else {
        a.bytes_before = a.bytes_after;
    }
    struct kithi_answer reply = {
        .item = KITHI_NO_ITEM, .epoch = kithi_index_epoch(c->index), .text = &a, .text_len = sizeof a
    };
    kithi_request_answer(q, &reply);
}

static void answer_asked(struct kithi_collection *c, uint32_t done, uint64_t bytes_before)
{
    struct kithi_request *q = c->relayout.asked;
    c->relayout.asked = NULL;
    if (q) {
        answer(c, q, done, bytes_before);
    }
}

static void refuse_asked(struct kithi_collection *c, const struct kithi_errmsg *err)
{
    struct kithi_request *q = c->relayout.asked;
    c->relayout.asked = NULL;
    if (q) {
        kithi_request_refuse(q, KITHI_NO_ITEM, err);
    }
}

/* ---- ends ---- */

/* The segment's postings are those that the settings want: where they were others, they are made anew between groups from here on. */
static void declare(struct kithi_collection *c)
{
    (void)kithi_index_declare(c->index, c->settings.index, NULL); /* it was read when it was asked for */
    c->pipeline.sweep_at_ms = 0;
}

static void rest(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    declare(c);
    r->step = RELAYOUT_REST;
    r->anew = r->closing = r->slowing = r->following = false;
    r->held_us = 0;
    kithi_pipeline_hold(c, false);
    c->daemon->again = true;
}

/* Nothing is copied any more. What is left of it is unmapped by the helper, since that may take long. */
static void leave_copy(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    kithi_trial_free(r->trial);
    kithi_copy_end(r->copy);
    r->trial = NULL;
    r->copy = NULL;
    if (r->next) {
        r->spent = r->next;
        r->spent_next = true;
        r->next = NULL;
    }
    rest(c);
    if (r->spent) {
        call(c, RELAYOUT_CLOSE, close_call);
    }
}

static void closed(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    r->spent = NULL;
    r->spent_next = false;
    r->step = RELAYOUT_REST;
    c->daemon->again = true;
}

/* The collection stays as it is; if somebody has asked for something else, its settings, too. */
static void give_up(struct kithi_collection *c, int status)
{
    struct kithi_relayout *r = &c->relayout;
    uint64_t live = kithi_index_live(c->index);
    r->failures++;
    r->err.code = status;
    if (!r->asked) {
        r->not_below = live ? 2 * live : 1; /* an empty one, too, waits for something to change */
    }
    kithi_log(KITHI_LOG_WARN, "relayout-failed",
              "name=%s why=%s status=%s live=%" PRIu64 " again_at=%" PRIu64
              " msg=%s; the collection stays as it is",
              c->settings.name, r->why, kithi_error_name(status), live, r->not_below, r->err.text);
    kithi_pipeline_hold(c, false);
    if (r->asked && !kithi_settings_same(&c->settings, &r->before)) {
        r->settings = r->before;
        r->settings.generation = c->settings.generation;
        call(c, RELAYOUT_UNDO, undo_call);
    } else {
        refuse_asked(c, &r->err);
        leave_copy(c);
    }
}

static void undone(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    if (r->status && !kithi_settings_same(&c->settings, &r->before)) {
        kithi_log(
            KITHI_LOG_ERROR, "alter-not-undone",
            "name=%s msg=%s; the configuration still asks for the layout that could not be had, and the next "
            "start tries again",
            c->settings.name, r->undo_err.text);
        r->not_below = UINT64_MAX;
    }
    refuse_asked(c, &r->err);
    leave_copy(c);
}

/* Dropped, or the daemon leaves. */
static void leave(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    struct kithi_errmsg err;
    if (c->dropping) {
        kithi_error_set(&err, KITHI_E_NO_COLLECTION, "collection \"%s\" is being dropped", c->settings.name);
    } else if (c->condemned && !c->daemon->stopping) {
        kithi_error_set(&err, KITHI_E_STARTING,
                        "the segment of \"%s\" makes no sense and is built anew; nothing was done, try again",
                        c->settings.name);
    } else {
        bool begun = r->step == RELAYOUT_BEGIN || r->step == RELAYOUT_COPY || r->step == RELAYOUT_UNDO;
        bool stands = r->asked && begun && !kithi_settings_same(&c->settings, &r->before);
        kithi_error_set(&err, KITHI_E_SHUTDOWN, "the daemon is stopping; %s",
                        stands ? "what was asked for stands in the configuration, and its next start does it"
                               : "the collection stays as it is");
    }
    refuse_asked(c, &err);
    if (kithi_relayout_idle(r)) {
        kithi_pipeline_hold(c, false);
    } else {
        leave_copy(c);
    }
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

/* Write what r->settings says and begin the segment it asks for, if there is room for it: what goes on being written must not find
 * the memory taken by a copy that then fails all the same. */
static void begin(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    bool copies = r->anew || !same_layout(&r->settings.geometry, present(c));
    int status = copies ? kithi_copy_ask(c->index, &r->settings.geometry, &r->err) : 0;
    if (status) {
        give_up(c, status);
    } else {
        call(c, RELAYOUT_BEGIN, begin_call);
    }
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
        kithi_settings_choose(&r->settings, kithi_trial_choice(r->trial));
        kithi_trial_free(r->trial);
        r->trial = NULL;
        begin(c);
    }
}

static void measure_begin(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    int status =
        kithi_trial_new(c->index, r->settings.keep, kithi_pool_threads(c->daemon->pool), &r->trial, &r->err);
    if (status) {
        give_up(c, status);
    } else {
        measure_next(c);
    }
}

/* ---- the copy ---- */

/* Changes that may be left when the pipeline is held. */
static uint64_t last_few(const struct kithi_copy_state *s)
{
    double n = s->insertion_us > 0 ? LAST_US / s->insertion_us : LAST_MAX;
    return n < LAST_MIN ? LAST_MIN : n < LAST_MAX ? (uint64_t)n : LAST_MAX;
}

/* Changes since the copy began, those under way among them. */
static uint64_t changes(const struct kithi_collection *c, const struct kithi_copy_state *s)
{
    return s->noted + kithi_pipeline_ops_under_way(c);
}

/* Writes get room anew: as few changes are left as may be. */
static void follow(struct kithi_collection *c, const struct kithi_copy_state *s)
{
    struct kithi_relayout *r = &c->relayout;
    r->following = true;
    r->follow_noted = changes(c, s);
    r->follow_taken = s->taken;
}

uint64_t kithi_relayout_room(const struct kithi_collection *c)
{
    const struct kithi_relayout *r = &c->relayout;
    struct kithi_copy_state s;
    if (r->step != RELAYOUT_COPY || !r->copy) {
        return UINT64_MAX;
    }
    kithi_copy_state(r->copy, &s);
    uint64_t have = changes(c, &s);
    uint64_t most = s.slots <= SMALL ? last_few(&s) + s.copied / 2 : FREE_MIN + FREE_TIMES * s.copied;
    if (s.crowded) {
        most = 0;
    }
    if (r->following) {
        have = have > r->follow_noted ? have - r->follow_noted
                                      : 0; /* what changed nothing is under way no more */
        most = last_few(&s) + (s.taken - r->follow_taken) / 2;
    }
    return have < most ? most - have : 0;
}

static void tell(struct kithi_collection *c, const struct kithi_copy_state *s, uint64_t now_ms)
{
    struct kithi_relayout *r = &c->relayout;
    if (now_ms - r->told_ms >= TELL_MS) {
        r->told_ms = now_ms;
        kithi_log(KITHI_LOG_INFO, "relayout-goes-on",
                  "name=%s why=%s copied=%" PRIu64 " slots_left=%u of=%u changes_left=%" PRIu64,
                  c->settings.name, r->why, s->copied, s->slots_left, s->slots, s->noted - s->taken);
    }
    if (!r->slowing && kithi_relayout_room(c) == 0) {
        r->slowing = true;
        kithi_log(KITHI_LOG_INFO, "relayout-slows",
                  "name=%s changes_left=%" PRIu64
                  " msg=writes come faster than they are copied, and are slowed",
                  c->settings.name, s->noted - s->taken);
    }
}

/* Whatever keeps the pipeline from standing still, but for groups; of all of these none begins any more. */
static bool is_calm(const struct kithi_collection *c)
{
    return !c->pipeline.sweeping && !c->pipeline.paging && !c->audit.busy;
}

/* Is it time for the end, and has the pipeline come to stand still for it? */
static bool hold(struct kithi_collection *c, uint64_t now_us)
{
    struct kithi_relayout *r = &c->relayout;
    struct kithi_copy_state s;
    kithi_copy_state(r->copy, &s);
    if (s.slots_left) {
        return false;
    }
    bool few = changes(c, &s) - s.taken <= last_few(&s);
    if (!r->following || (few && !r->held_us)) {
        follow(c, &s);
    }
    if (few && !r->closing && !c->checkpointer.image) {
        r->closing = true;
    }
    if (few && r->closing && !r->held_us && is_calm(c)) {
        r->held_us = now_us;
    }
    return r->held_us && kithi_pipeline_hold(c, true);
}

static void take_place(struct kithi_collection *c, uint64_t now_us)
{
    struct kithi_relayout *r = &c->relayout;
    KITHI_FAULT_CRASH("crash-after-copy");
    int status = kithi_copy_finish(r->copy, now_us / 1000, &r->err);
    if (!status) {
        status = kithi_collection_switch(c, &r->err);
    }
    if (status) {
        give_up(c, status);
        return;
    }
    KITHI_FAULT_CRASH("crash-after-switch");
    struct kithi_geometry before = *present(c);
    uint64_t bytes_before = bytes_taken(c->index);
    kithi_copy_end(r->copy);
    r->copy = NULL;
    kithi_index_mark_moved(c->index); /* where the switch could not: somebody has removed the file */
    kithi_audit_anew(c);
    r->spent = c->index;
    c->index = r->next;
    r->next = NULL;
    kithi_index_tune(c->index, c->daemon->tuning.grace_ms, c->daemon->tuning.rest_ms);
    r->not_below = 0;
    r->prefetch_due = 0;
    r->count++;
    kithi_pipeline_anew(&c->pipeline);
    kithi_checkpointer_outdate(c);
    uint64_t end_us = kithi_now_us();
    r->took_ms = end_us / 1000 - r->began_ms;
    r->took_held_us = end_us - r->held_us;
    kithi_log(KITHI_LOG_INFO, "relayout",
              "name=%s why=%s from=%s to=%s keep=%s m=%u ef_construction=%u slot_max=%u generation=%" PRIu64
              " epoch=%" PRIu64 " live=%" PRIu64 " bytes_before=%" PRIu64 " bytes=%" PRIu64 " ms=%" PRIu64
              " held_us=%" PRIu64,
              c->settings.name, r->why, kithi_quantization_name(before.quantization),
              kithi_quantization_name(present(c)->quantization), kithi_keep_name(present(c)->keep),
              present(c)->m, present(c)->ef_construction, present(c)->slot_max, c->settings.generation,
              kithi_index_epoch(c->index), kithi_index_live(c->index), bytes_before, bytes_taken(c->index),
              r->took_ms, r->took_held_us);
    answer_asked(c, KITHI_ALTER_COPIED, bytes_before);
    leave_copy(c);
}

/* Returns when it wants to be called again. */
static uint64_t copy_next(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    struct kithi_copy_state s;
    uint64_t now_us = kithi_now_us();
    if (KITHI_FAULT_HELD("copy", c->settings.name)) {
        return now_us / 1000 + HOLD_MS;
    }
    bool still = hold(c, now_us);
    int jobs = kithi_copy_stage(r->copy, now_us, r->held_us != 0, &r->err);
    if (jobs < 0) {
        give_up(c, jobs);
        return KITHI_NEVER;
    }
    kithi_copy_state(r->copy, &s);
    tell(c, &s, now_us / 1000);
    if (jobs > 0) {
        submit(c, RELAYOUT_COPY, (uint32_t)jobs);
    } else if (!s.whole) {
        return now_us / 1000 + WAIT_MS;
    } else if (s.noted != s.taken) {
        return now_us / 1000;
    } else if (still) {
        take_place(c, now_us);
    }
    return KITHI_NEVER; /* what is published or ends next brings the next turn */
}

/* The helper has ended. */
static void copy_begin(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    int status = r->status;
    KITHI_FAULT_CRASH("crash-after-choice");
    if (!status && r->next) {
        status = kithi_copy_begin(c->index, &r->copy, &r->err);
    }
    if (!status && r->next) {
        status = kithi_copy_fill(r->copy, r->next, &r->err);
    }
    if (status) {
        give_up(c, status);
    } else if (r->next) {
        r->step = RELAYOUT_COPY;
        c->daemon->again = true;
    } else if (r->settings.geometry.slot_max > present(c)->slot_max) {
        r->grow_failures = c->growth.failures;
        r->bytes_before = bytes_taken(c->index);
        r->step = RELAYOUT_GROW;
        kithi_growth_ask(c);
    } else { /* it has that layout already */
        declare(c);
        answer_asked(c, KITHI_ALTER_SETTINGS, 0);
        rest(c);
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

/* ---- being asked ---- */

static const char *state_name(const struct kithi_relayout *r)
{
    switch (r->step) {
    case RELAYOUT_MEASURE: return "measuring";
    case RELAYOUT_BEGIN: return "beginning";
    case RELAYOUT_COPY: return r->closing ? "switching" : r->following ? "following" : "copying";
    case RELAYOUT_GROW: return "growing";
    case RELAYOUT_UNDO:
    case RELAYOUT_CLOSE: return "ending";
    case RELAYOUT_REST:
    case RELAYOUT_PREFETCH: break;
    }
    return r->asked ? "waiting" : "resting";
}

static bool is_building(const struct kithi_relayout *r)
{
    return r->asked ||
           (r->step != RELAYOUT_REST && r->step != RELAYOUT_PREFETCH && r->step != RELAYOUT_CLOSE);
}

static int refuse_second(const struct kithi_collection *c, struct kithi_errmsg *err)
{
    const struct kithi_relayout *r = &c->relayout;
    struct kithi_copy_state s = { .slots = 0 };
    if (r->copy) {
        kithi_copy_state(r->copy, &s);
    }
    unsigned done = s.slots ? (unsigned)(100 * (uint64_t)(s.slots - s.slots_left) / s.slots) : 0;
    return kithi_error_set(
        err, -EBUSY,
        "another segment of \"%s\" is being built already (%s, %s, %u %% of the slots done): "
        "wait for its end, which kith stats shows",
        c->settings.name, r->why, state_name(r), done);
}

/* 1: to be done; 0: nothing is. */
static int judge(struct kithi_collection *c, const struct kithi_alter *a, const void *index,
                 struct kithi_settings *out, struct kithi_errmsg *err)
{
    uint64_t live = kithi_index_live(c->index);
    *out = c->settings;
    if (is_building(&c->relayout)) {
        return refuse_second(c, err);
    }
    int status = kithi_settings_alter(out, a, err);
    if (!status && a->index_len) {
        status = kithi_settings_index(out, index, a->index_len, err);
    }
    if (status) {
        return status;
    }
    if (out->geometry.slot_max < live) {
        return kithi_error_set(err, KITHI_E_PARAMETER,
                               "max-vectors is %u, and \"%s\" has %" PRIu64
                               " vectors: ask for at least as many, or delete some first",
                               out->geometry.slot_max, c->settings.name, live);
    }
    if (!a->anew && kithi_settings_same(out, &c->settings)) {
        return 0;
    }
    bool copies = a->anew || !out->chosen || !same_layout(&out->geometry, present(c));
    status = copies ? kithi_copy_ask(c->index, &out->geometry, err) : 0;
    return status ? status : 1;
}

void kithi_relayout_request(struct kithi_collection *c, struct kithi_request *q)
{
    struct kithi_relayout *r = &c->relayout;
    struct kithi_errmsg err;
    struct kithi_settings wanted;
    struct kithi_alter a;
    memcpy(&a, q->body, sizeof a); /* the frame is that long at least */
    int status = q->frame.len == sizeof a + kithi_round_up(a.index_len, 8)
                     ? judge(c, &a, q->body + sizeof a, &wanted, &err)
                     : kithi_error_set(&err, KITHI_E_PROTOCOL, "the request is not as long as its parts");
    if (status < 0) {
        kithi_request_refuse(q, KITHI_NO_ITEM, &err);
    } else if (status == 0) {
        answer(c, q, KITHI_ALTER_NOTHING, 0);
    } else {
        r->asked = q;
        r->wanted = wanted;
        r->anew = a.anew != 0;
        r->why = a.anew ? "optimize" : "alter";
        c->daemon->again = true;
    }
}

int kithi_relayout_json(const struct kithi_collection *c, char out[KITHI_RELAYOUT_JSON_SIZE])
{
    const struct kithi_relayout *r = &c->relayout;
    struct kithi_copy_state s = { .slots = 0 };
    if (r->copy) {
        kithi_copy_state(r->copy, &s);
    }
    return snprintf(out, KITHI_RELAYOUT_JSON_SIZE,
                    "{\"state\":\"%s\",\"why\":\"%s\",\"copied\":%" PRIu64 ",\"slots_left\":%u,\"slots\":%u"
                    ",\"changes_left\":%" PRIu64 ",\"count\":%" PRIu64 ",\"failures\":%" PRIu64
                    ",\"ms\":%" PRIu64 ",\"held_us\":%" PRIu64 "}",
                    state_name(r), is_building(r) && r->why ? r->why : "", s.copied, s.slots_left, s.slots,
                    s.noted - s.taken, r->count, r->failures, r->took_ms, r->took_held_us);
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

static void look_at_prefetch(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_relayout *r = &c->relayout;
    uint64_t live = kithi_index_live(c->index);
    uint64_t due = r->prefetch_due > PREFETCH_MIN ? r->prefetch_due : PREFETCH_MIN;
    if (live < due) {
        r->prefetch_by_ms = now_ms + PREFETCH_WAIT_MS;
    } else if (kithi_pipeline_idle(c) || now_ms >= r->prefetch_by_ms) {
        r->prefetch_due = live * PREFETCH_AGAIN;
        submit(c, RELAYOUT_PREFETCH, 1);
    }
}

/* The live segment is larger by now, or could not be. */
static void grow_next(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    const struct kithi_growth *g = &c->growth;
    if (present(c)->slot_max >= r->settings.geometry.slot_max) {
        r->took_ms = kithi_now_ms() - r->began_ms;
        r->took_held_us = g->hold_us;
        answer_asked(c, KITHI_ALTER_COPIED, r->bytes_before);
        rest(c);
    } else if (g->failures != r->grow_failures) {
        r->err = g->err;
        give_up(c, g->status);
    }
}

/* Begin anew, after the live segment has become a larger one. Not in the last moment, which is over sooner. */
static void give_way(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    r->gives_way = false;
    if ((r->step == RELAYOUT_COPY && !r->held_us) || r->step == RELAYOUT_MEASURE) {
        kithi_log(KITHI_LOG_INFO, "relayout-gives-way",
                  "name=%s why=%s msg=the collection is almost full, and grows first", c->settings.name,
                  r->why);
        r->once_more = r->asked != NULL;
        leave_copy(c);
    }
}

static void look(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_relayout *r = &c->relayout;
    if (!r->asked && !is_due(c)) {
        look_at_prefetch(c, now_ms);
        return;
    }
    bool lowers = r->asked && r->wanted.geometry.slot_max < present(c)->slot_max;
    if (kithi_growth_comes_first(c, !lowers, now_ms)) {
        return; /* its end brings the next turn */
    }
    r->began_ms = r->told_ms = now_ms;
    r->settings = c->settings;
    if (!r->asked || !r->once_more) {
        r->before = c->settings;
    }
    r->once_more = false;
    if (r->asked) {
        r->settings = r->wanted;
        r->settings.generation = c->settings.generation;
        if (!lowers && r->settings.geometry.slot_max < c->settings.geometry.slot_max) {
            r->settings.geometry.slot_max = c->settings.geometry.slot_max; /* it has grown since */
        }
    } else {
        r->anew = false;
        r->why = c->settings.chosen ? "settings" : "auto";
    }
    kithi_log(KITHI_LOG_INFO, "relayout-begins", "name=%s why=%s live=%" PRIu64, c->settings.name, r->why,
              kithi_index_live(c->index));
    if (!r->settings.chosen && kithi_index_live(c->index) >= KITHI_RELAYOUT_MIN) {
        measure_begin(c);
    } else {
        begin(c);
    }
}

/* Those that stand in the configuration: what the helper wrote, even when there was no room for the segment; after what failed what it has
 * found there. No generation is used twice, whether it stands there or not. */
static void take_settings(struct kithi_collection *c)
{
    struct kithi_relayout *r = &c->relayout;
    uint64_t generation = c->settings.generation;
    if (!r->status) {
        c->settings = r->settings;
    } else if (r->looked) {
        c->settings = r->stand;
    }
    if (r->settings.generation > generation) {
        generation = r->settings.generation;
    }
    if (c->settings.generation < generation) {
        c->settings.generation = generation;
    }
}

uint64_t kithi_relayout_turn(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_relayout *r = &c->relayout;
    bool leaving = c->dropping || c->condemned || c->daemon->failing || c->daemon->stopping;
    uint64_t again_ms = KITHI_NEVER;
    if (leaving && r->busy) {
        atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
        if (r->trial) {
            kithi_trial_cancel(r->trial);
        }
    }
    if (r->busy) {
        return KITHI_NEVER;
    }
    if (r->step == RELAYOUT_BEGIN || r->step == RELAYOUT_UNDO) {
        take_settings(c);
    }
    if (r->step == RELAYOUT_CLOSE) {
        closed(c);
    }
    if (leaving) {
        leave(c);
        return KITHI_NEVER;
    }
    atomic_store_explicit(&r->cancelled, false, memory_order_relaxed);
    if (r->gives_way) {
        give_way(c);
    }
    if (r->busy) {
        return KITHI_NEVER;
    }
    switch (r->step) {
    case RELAYOUT_MEASURE: measure_next(c); break;
    case RELAYOUT_BEGIN: copy_begin(c); break;
    case RELAYOUT_COPY: again_ms = copy_next(c); break;
    case RELAYOUT_UNDO: undone(c); break;
    case RELAYOUT_PREFETCH: prefetch_end(c); break;
    case RELAYOUT_GROW: grow_next(c); break;
    case RELAYOUT_CLOSE:
    case RELAYOUT_REST: break;
    }
    if (r->step == RELAYOUT_REST && !r->busy) {
        look(c, now_ms);
    }
    return again_ms;
}

bool kithi_relayout_lets_grow(const struct kithi_relayout *r)
{
    return r->step == RELAYOUT_REST || r->step == RELAYOUT_PREFETCH || r->step == RELAYOUT_GROW;
}

void kithi_relayout_give_way(struct kithi_collection *c)
{
    c->relayout.gives_way = true;
}

bool kithi_relayout_idle(const struct kithi_relayout *r)
{
    return !r->busy && r->step == RELAYOUT_REST && !r->asked;
}

bool kithi_relayout_is_closing(const struct kithi_relayout *r)
{
    return r->closing;
}

void kithi_relayout_init(struct kithi_relayout *r, struct kithi_collection *c)
{
    r->work = (struct kithi_work){ .fn = work_job, .done = work_done, .arg = c };
    r->op.done = call_done;
    r->op.arg = c;
    r->why = "";
}

void kithi_relayout_fini(struct kithi_relayout *r)
{
    kithi_trial_free(r->trial);
    kithi_copy_end(r->copy);
    kithi_index_close(r->next);
    kithi_index_close(r->spent);
}
