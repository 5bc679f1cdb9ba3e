/*
 * growth.c - see growth.h.
 *
 * Completions only note that they came; turns decide what comes next, so that a step is left in one place.
 */
#include "server/writer/growth.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/base/log.h"
#include "server/writer/collection.h"

/* It begins when so large a share of the slots is left, and with a few thousand, which are written in a moment, but no more than half. */
#define LEAD_SHARE 8u
#define LEAD_MIN   8192u
/* The same of upper rows, of which there are more than are used on average. */
#define UPPER_SHARE 16u
/* And of the blobs of a class. */
#define BLOB_SHARE 16u
/* The next ceiling: so many times the present one, and this at least, since it costs addresses only. */
#define FACTOR      2u
#define CEILING_MIN 1024u
/* A piece is a block of 2 MiB, a millisecond or so, and then a rest of so many times that; without rests it is more of them. */
#define PAUSE       3u
#define BLOCKS_FAST 4u /* for each worker */
/* After a failure, and twice that after the next; while old segments give back their memory. */
#define AGAIN_MS      1000u
#define AGAIN_MAX_MS  60000u
#define AGAIN_SOON_MS 50u

static const struct kithi_geometry *present(const struct kithi_collection *c)
{
    return &kithi_index_map(c->index)->geometry;
}

static uint32_t lead(uint32_t slot_max)
{
    uint32_t n = slot_max / LEAD_SHARE;
    n = n > LEAD_MIN ? n : LEAD_MIN;
    return n < slot_max / 2 ? n : slot_max / 2;
}

/* ---- is it time? ---- */

static uint32_t ceiling_for(const struct kithi_collection *c, uint64_t needed)
{
    uint64_t now = present(c)->slot_max, to = c->settings.geometry.slot_max;
    if (to <= now) {
        to = now * FACTOR;
    }
    to = to > CEILING_MIN ? to : CEILING_MIN;
    while (to < KITHI_SLOT_MAX_LIMIT && to < needed + lead((uint32_t)to)) {
        to *= FACTOR;
    }
    return to < KITHI_SLOT_MAX_LIMIT ? (uint32_t)to : KITHI_SLOT_MAX_LIMIT;
}

/* Where the configuration has a higher ceiling, somebody has asked for it, or an earlier life did not come to that. */
static bool is_asked(const struct kithi_collection *c)
{
    return c->settings.geometry.slot_max > present(c)->slot_max;
}

static bool may_grow(const struct kithi_collection *c)
{
    return (!c->settings.fixed || is_asked(c)) && present(c)->slot_max < KITHI_SLOT_MAX_LIMIT;
}

/* Is it time for more ids or payloads of a class, and has the next ceiling more of them? */
static bool is_short_of_blobs(const struct kithi_growth *g, const struct kithi_index_room *room)
{
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++) {
        uint32_t few = room->blob_max[c] / BLOB_SHARE;
        if (room->blobs[c] >= few || room->blobs[c] >= g->blobs_first[c]) {
            continue;
        }
        uint64_t to = kithi_geometry_slots_for(c, (uint64_t)room->blob_max[c] + few);
        if (to && to <= (uint64_t)room->slot_max * FACTOR) {
            return true;
        }
    }
    return false;
}

/* And more is used than when this segment was first looked at: one that was made just as large as it has to be may stay so. */
static bool is_short(struct kithi_collection *c)
{
    struct kithi_growth *g = &c->growth;
    struct kithi_index_room room;
    kithi_index_room(c->index, &room);
    uint64_t generation = kithi_index_map(c->index)->generation, left = (uint64_t)room.slots + room.soon;
    if (g->generation != generation) {
        g->generation = generation;
        g->left_first = left;
        memcpy(g->blobs_first, room.blobs, sizeof g->blobs_first);
    }
    return (left < g->left_first &&
            (left < lead(room.slot_max) || room.uppers < room.upper_max / UPPER_SHARE)) ||
           is_short_of_blobs(g, &room);
}

static bool is_due(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_growth *g = &c->growth;
    return now_ms >= g->again_ms && may_grow(c) && (g->needed || is_asked(c) || is_short(c));
}

bool kithi_growth_comes_first(struct kithi_collection *c, bool roomy, uint64_t now_ms)
{
    struct kithi_growth *g = &c->growth;
    struct kithi_index_room room;
    if (!kithi_growth_idle(g) || is_due(c, now_ms)) {
        return true;
    }
    kithi_index_room(c->index, &room);
    if (!roomy || now_ms < g->again_ms || !may_grow(c) ||
        (uint64_t)room.slots + room.soon >= kithi_index_live(c->index)) {
        return false;
    }
    g->needed = room.slot_max;
    c->daemon->again = true;
    return true;
}

/* Slots that a ceiling has to be good for when so many vectors are to come, or ids and payloads for which there are too few. */
static uint64_t needs(const struct kithi_index_room *room, uint64_t vectors)
{
    uint64_t slots = (uint64_t)room->slot_max - room->slots + vectors;
    return slots > room->slots_wanted ? slots : room->slots_wanted;
}

void kithi_growth_ask(struct kithi_collection *c)
{
    c->growth.again_ms = 0;
    c->daemon->again = true;
}

bool kithi_growth_want(struct kithi_collection *c, uint64_t vectors, uint64_t now_ms,
                       struct kithi_errmsg *err)
{
    struct kithi_growth *g = &c->growth;
    struct kithi_index_room room;
    char why[sizeof err->text];
    kithi_index_room(c->index, &room);
    if (!may_grow(c)) {
        memcpy(why, err->text, sizeof why);
        kithi_error_set(err, KITHI_E_FULL, "%.280s%s", why,
                        c->settings.fixed
                            ? "; it was created with --fixed, and does not grow: create a larger collection"
                            : "; a segment cannot hold more");
        return false;
    }
    if (g->step == GROWTH_REST && now_ms < g->again_ms && !g->hurries) {
        memcpy(why, err->text, sizeof why);
        if (room.slots_wanted) {
            kithi_error_set(err, KITHI_E_FULL, "%.250s; it could not grow: %.200s", why, g->err.text);
            return false;
        }
        kithi_error_set(
            err, KITHI_E_FULL,
            "the collection is full: of its %u slots %u are free, and it could not grow to make room for %" PRIu64
            " more: %.200s",
            room.slot_max, room.slots, vectors, g->err.text);
        return false;
    }
    uint64_t needed = needs(&room, vectors);
    if (needed > g->needed) {
        g->needed = needed;
        c->daemon->again = true; /* once: what it waits for may take longer than a turn */
    }
    return true;
}

/* ---- ends ---- */

static void release(struct kithi_collection *c)
{
    struct kithi_growth *g = &c->growth;
    kithi_enlarge_end(g->enlarge);
    g->enlarge = NULL;
    if (g->next) {
        unlink(c->segment_next);
        kithi_old_discard(c, g->old, g->next);
        g->old = NULL;
        g->next = NULL;
    }
    free(g->old);
    g->old = NULL;
}

static bool is_calm(const struct kithi_collection *c)
{
    return !c->pipeline.sweeping && !c->pipeline.paging && !c->audit.busy;
}

/* Nobody tells of stores any more, if anybody did. */
static void leave(struct kithi_collection *c)
{
    struct kithi_growth *g = &c->growth;
    if (!g->settled_epoch || (is_calm(c) && kithi_pipeline_ended(c, g->settled_epoch))) {
        release(c);
        g->step = GROWTH_REST;
        kithi_pipeline_calm(c, false);
        kithi_pipeline_room(c);
    }
}

static void rest(struct kithi_collection *c)
{
    struct kithi_growth *g = &c->growth;
    g->needed = 0;
    g->step = GROWTH_LEAVE;
    g->settled_epoch = 0;
    if (kithi_enlarge_stop(g->enlarge)) {
        g->settled_epoch = kithi_index_epoch(c->index) + c->pipeline.under_way;
        kithi_pipeline_calm(c, true);
    }
    kithi_pipeline_close(c, false);
    leave(c);
}

/* The collection stays as it is, for now. */
static void give_up(struct kithi_collection *c, int status, uint64_t now_ms)
{
    struct kithi_growth *g = &c->growth;
    g->hurries = status == KITHI_E_NO_SPACE && kithi_old_hurry(c);
    if (g->hurries) {
        g->again_ms = now_ms + AGAIN_SOON_MS;
    } else {
        g->delay_ms = g->delay_ms ? 2 * g->delay_ms : AGAIN_MS;
        g->delay_ms = g->delay_ms < AGAIN_MAX_MS ? g->delay_ms : AGAIN_MAX_MS;
        g->again_ms = now_ms + g->delay_ms;
        g->failures++;
        kithi_log(
            KITHI_LOG_WARN, "growth-failed",
            "name=%s from=%u to=%u status=%s again_ms=%u msg=%s; writes go on until the collection is full",
            c->settings.name, g->before.slot_max, g->geometry.slot_max, kithi_error_name(status), g->delay_ms,
            g->err.text);
    }
    rest(c);
}

/* ---- the larger segment ---- */

static void set_out(struct kithi_collection *c)
{
    struct kithi_growth *g = &c->growth;
    struct kithi_index_room room;
    kithi_index_room(c->index, &room);
    g->began_us = kithi_now_us();
    g->room = room.slots;
    g->before = g->geometry = *present(c);
    g->geometry.slot_max = ceiling_for(c, g->needed);
    g->settings = c->settings;
    if (g->settings.geometry.slot_max < g->geometry.slot_max) {
        g->settings.geometry.slot_max = g->geometry.slot_max;
    }
}

/* After the configuration was written: a segment at path of that generation. */
static int make_segment(struct kithi_collection *c, const char *path)
{
    struct kithi_growth *g = &c->growth;
    struct kithi_index_identity id = { .geometry = g->geometry };
    memcpy(id.uid, g->settings.uid, sizeof id.uid);
    memcpy(id.hash_key, g->settings.hash_key, sizeof id.hash_key);
    int status = kithi_index_create(path, &id, g->settings.generation, &c->daemon->tuning, &g->next, &g->err);
    if (!status) {
        status = kithi_collection_share(c, path, &g->err);
    }
    if (!status) {
        status = kithi_enlarge_new(&g->before, g->next, &g->enlarge, &g->err);
    }
    return status;
}

static int make_call(void *arg)
{
    struct kithi_collection *c = arg;
    struct kithi_growth *g = &c->growth;
    int status = kithi_collection_next(c, &g->settings, &g->err);
    KITHI_FAULT_CRASH("crash-in-growth-named");
    if (!status) {
        status = make_segment(c, c->segment_next);
    }
    KITHI_FAULT_CRASH("crash-in-growth-made");
    return status;
}

static void make_done(struct kithi_io_op *op, int status)
{
    struct kithi_collection *c = op->arg;
    c->growth.busy = false;
    c->growth.status = status;
}

static void begin(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_growth *g = &c->growth;
    set_out(c);
    g->old = kithi_old_new(c);
    if (!g->old) {
        kithi_error_set(&g->err, -ENOMEM, "the daemon is out of memory");
        give_up(c, -ENOMEM, now_ms);
        return;
    }
    g->step = GROWTH_MAKE;
    g->busy = true;
    kithi_io_call(c->daemon->io, &g->op, make_call);
}

/* ---- the copy ---- */

static void copy_job(void *arg, unsigned worker, uint32_t i)
{
    struct kithi_collection *c = arg;
    (void)worker;
    kithi_enlarge_job(c->growth.enlarge, i);
}

static void copy_done(struct kithi_work *work)
{
    struct kithi_collection *c = work->arg;
    struct kithi_growth *g = &c->growth;
    g->busy = false;
    g->status = kithi_enlarge_collected(g->enlarge, &g->err);
    g->pump_ms = kithi_now_ms() + 1 + (kithi_now_us() - g->piece_us) * PAUSE / 1000;
    c->daemon->again = true;
}

/* Jobs that began before stores were told have ended. */
static void settle(struct kithi_collection *c)
{
    struct kithi_growth *g = &c->growth;
    if (is_calm(c) && kithi_pipeline_ended(c, g->settled_epoch)) {
        kithi_pipeline_calm(c, false);
        g->step = GROWTH_COPY;
        g->pump_ms = 0;
    }
}

static void made(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_growth *g = &c->growth;
    if (!g->status || g->settings.generation != c->settings.generation) {
        c->settings = g->settings;
    }
    if (!g->status) {
        g->status = kithi_enlarge_begin(g->enlarge, c->index, &g->err);
    }
    if (g->status) {
        give_up(c, g->status, now_ms);
        return;
    }
    g->settled_epoch = kithi_index_epoch(c->index) + c->pipeline.under_way;
    g->step = GROWTH_SETTLE;
    kithi_pipeline_calm(c, true);
    settle(c);
}

/* Is there no time for rests, or nobody who would have anything of them? */
static bool is_hasty(const struct kithi_collection *c)
{
    struct kithi_index_room room;
    kithi_index_room(c->index, &room);
    return c->growth.needed || room.slots <= c->growth.room / 2 || !c->pipeline.outstanding;
}

static void copy_next(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_growth *g = &c->growth;
    bool hasty = is_hasty(c);
    if (g->status) {
        give_up(c, g->status, now_ms);
        return;
    }
    if (kithi_enlarge_is_near(g->enlarge)) {
        kithi_pipeline_calm(c, true);
        if (is_calm(c)) {
            g->step = GROWTH_CLOSE;
            g->closed_us = kithi_now_us();
            kithi_pipeline_close(c, true);
            return;
        }
    }
    if (!hasty && now_ms < g->pump_ms) {
        return;
    }
    g->work.n =
        kithi_enlarge_collect(g->enlarge, hasty ? BLOCKS_FAST * kithi_pool_threads(c->daemon->pool) : 1);
    if (g->work.n) {
        g->busy = true;
        g->piece_us = kithi_now_us();
        kithi_pool_submit(c->daemon->pool, &g->work);
    } else {
        g->pump_ms = now_ms + 1; /* a pass over nothing is one, too */
    }
}

/* ---- the switch ---- */

static void tell(const struct kithi_collection *c)
{
    const struct kithi_growth *g = &c->growth;
    kithi_log(KITHI_LOG_INFO, "growth",
              "name=%s from=%u to=%u generation=%" PRIu64 " epoch=%" PRIu64 " live=%" PRIu64
              " copied_bytes=%" PRIu64 " copy_ms=%" PRIu64 " hold_us=%" PRIu64,
              c->settings.name, g->from, g->to, c->settings.generation, kithi_index_epoch(c->index),
              kithi_index_live(c->index), g->copied, g->copy_ms, g->hold_us);
}

static void account(struct kithi_growth *g, uint64_t closed_us)
{
    uint64_t now_us = kithi_now_us();
    g->count++;
    g->from = g->before.slot_max;
    g->to = g->geometry.slot_max;
    g->copied = kithi_enlarge_copied(g->enlarge);
    g->copy_ms = (now_us - g->began_us) / 1000;
    g->hold_us = now_us - closed_us;
    g->hold_us_max = g->hold_us > g->hold_us_max ? g->hold_us : g->hold_us_max;
    g->delay_ms = 0;
    g->hurries = false;
}

/* The index has gone on into the larger segment, and next is the one before, whose readers have been told. */
static void swap(struct kithi_collection *c)
{
    struct kithi_growth *g = &c->growth;
    kithi_enlarge_swap(g->enlarge);
    kithi_index_mark_moved(g->next); /* where the switch could not: somebody has removed the file */
}

static void take_place(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_growth *g = &c->growth;
    int status = kithi_enlarge_finish(g->enlarge, &g->err);
    KITHI_FAULT_CRASH("crash-after-enlarge");
    if (!status) {
        status = kithi_collection_switch(c, &g->err);
    }
    if (status) {
        give_up(c, status, now_ms);
        return;
    }
    KITHI_FAULT_CRASH("crash-after-growth-switch");
    swap(c);
    kithi_old_keep(c, g->old, g->next);
    g->old = NULL;
    g->next = NULL;
    account(g, g->closed_us);
    tell(c);
    if (c->pipeline.line) {
        kithi_growth_waited(g, g->hold_us);
    }
    rest(c);
    KITHI_FAULT_CRASH("crash-after-growth");
}

static void close_up(struct kithi_collection *c, uint64_t now_ms)
{
    if (is_calm(c) && kithi_pipeline_ended(c, UINT64_MAX)) {
        take_place(c, now_ms);
    }
}

void kithi_growth_waited(struct kithi_growth *g, uint64_t us)
{
    g->wait_us_max = us > g->wait_us_max ? us : g->wait_us_max;
}

/* ---- turns ---- */

uint64_t kithi_growth_turn(struct kithi_collection *c, uint64_t now_ms)
{
    struct kithi_growth *g = &c->growth;
    const struct kithi_pipeline *p = &c->pipeline;
    bool waits = p->stalled || p->crowded;
    bool leaving = c->dropping || c->condemned || c->daemon->failing || (c->daemon->stopping && !waits);
    if (g->busy) {
        return KITHI_NEVER;
    }
    if (leaving) {
        if (g->step == GROWTH_MAKE && g->settings.generation != c->settings.generation) {
            c->settings = g->settings;
        }
        if (g->step == GROWTH_LEAVE) {
            leave(c);
        } else if (g->step != GROWTH_REST) {
            rest(c);
        }
        g->needed = 0;
        return KITHI_NEVER;
    }
    switch (g->step) {
    case GROWTH_MAKE: made(c, now_ms); break;
    case GROWTH_SETTLE: settle(c); break;
    case GROWTH_CLOSE: close_up(c, now_ms); break;
    case GROWTH_LEAVE: leave(c); break;
    default: break;
    }
    if (g->step == GROWTH_COPY && !g->busy) {
        copy_next(c, now_ms);
    }
    if (g->step == GROWTH_CLOSE) {
        close_up(c, now_ms); /* nothing may be under way at all */
    }
    if (g->step == GROWTH_REST && is_due(c, now_ms)) {
        /* Whoever lays the segment out anew comes first, or has to wait. */
        if (kithi_relayout_lets_grow(&c->relayout) && !p->held) {
            begin(c, now_ms);
        } else if (g->needed || is_short(c)) {
            kithi_relayout_give_way(c);
        }
        return KITHI_NEVER;
    }
    if (g->step == GROWTH_COPY && !g->busy) {
        return g->pump_ms;
    }
    bool later = g->step == GROWTH_REST && g->again_ms > now_ms && may_grow(c) && (g->needed || is_short(c));
    return later ? g->again_ms : KITHI_NEVER;
}

bool kithi_growth_idle(const struct kithi_growth *g)
{
    return !g->busy && g->step == GROWTH_REST;
}

void kithi_growth_init(struct kithi_growth *g, struct kithi_collection *c)
{
    g->work = (struct kithi_work){ .fn = copy_job, .done = copy_done, .arg = c };
    g->op.done = make_done;
    g->op.arg = c;
}

void kithi_growth_fini(struct kithi_growth *g)
{
    kithi_enlarge_end(g->enlarge);
    kithi_index_close(g->next);
    free(g->old);
    g->enlarge = NULL;
    g->next = NULL;
    g->old = NULL;
}

/* ---- at once ---- */

static int copy_all(struct kithi_collection *c)
{
    struct kithi_growth *g = &c->growth;
    int status = kithi_enlarge_begin(g->enlarge, c->index, &g->err);
    uint32_t n;
    while (!status && (n = kithi_enlarge_collect(g->enlarge, UINT32_MAX)) > 0) {
        kithi_pool_run(c->daemon->pool, copy_job, c, n);
        status = kithi_enlarge_collected(g->enlarge, &g->err);
    }
    return status ? status : kithi_enlarge_finish(g->enlarge, &g->err);
}

int kithi_growth_now(struct kithi_collection *c, uint64_t vectors, struct kithi_errmsg *err)
{
    struct kithi_growth *g = &c->growth;
    struct kithi_index_room room;
    char path[KITHI_PATH_MAX];
    /* While it is built it is segment.next, and no reader has found it. */
    bool in_place = kithi_index_is_at(c->index, c->segment);
    if (!may_grow(c)) {
        return kithi_error_set(err, KITHI_E_FULL, "the collection is full, and does not grow");
    }
    kithi_index_room(c->index, &room);
    g->needed = needs(&room, vectors);
    set_out(c);
    g->old = kithi_old_new(c);
    int status = g->old ? kithi_path(path, &g->err, "%s%s", c->segment_next, in_place ? "" : ".larger")
                        : kithi_error_set(&g->err, -ENOMEM, "the daemon is out of memory");
    if (!status) {
        /* Of one that nobody has found the generation stays. */
        status = in_place ? kithi_collection_next(c, &g->settings, &g->err)
                          : kithi_settings_write(c->data_dir, &g->settings, &g->err);
    }
    if (!status) {
        c->settings = g->settings;
        unlink(path);
        status = make_segment(c, path);
    }
    uint64_t closed_us = kithi_now_us();
    if (!status) {
        status = copy_all(c);
    }
    if (!status) {
        status = in_place                        ? kithi_collection_switch(c, &g->err)
                 : rename(path, c->segment_next) ? kithi_error_set(&g->err, -errno, "cannot rename %s: %s",
                                                                   path, kithi_error_text(-errno))
                                                 : 0;
    }
    if (status) {
        *err = g->err;
        if (g->next) {
            unlink(path);
        }
    } else {
        swap(c);
        account(g, closed_us);
        tell(c);
        if (in_place) {
            kithi_old_keep(c, g->old, g->next);
            g->old = NULL;
            g->next = NULL;
        }
    }
    kithi_growth_fini(g);
    g->needed = 0;
    return status;
}

int kithi_growth_stats(const struct kithi_collection *c, char *out, size_t size)
{
    const struct kithi_growth *g = &c->growth;
    int n = snprintf(out, size,
                     "{\"running\":%s,\"fixed\":%s,\"count\":%" PRIu64 ",\"failures\":%" PRIu64
                     ",\"from\":%u,\"to\":%u,\"copied_bytes\":%" PRIu64 ",\"copy_ms\":%" PRIu64
                     ",\"hold_us\":%" PRIu64 ",\"hold_us_max\":%" PRIu64 ",\"wait_us_max\":%" PRIu64 "}",
                     g->step == GROWTH_REST ? "false" : "true", c->settings.fixed ? "true" : "false",
                     g->count, g->failures, g->from, g->to, g->copied, g->copy_ms, g->hold_us, g->hold_us_max,
                     g->wait_us_max);
    return n < 0 || (size_t)n >= size ? -ENOSPC : n;
}
