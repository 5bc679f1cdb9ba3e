/*
 * old.c - see old.h.
 */
#include "server/writer/old.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/writer/collection.h"

#define STEP_MS 5u /* the log's helper may be the same thread */

/* 1: once more. */
static int end_call(void *arg)
{
    struct kithi_old *o = arg;
    int status = o->index     ? kithi_index_retire(o->index, &o->given, STEP_MS)
                 : o->fd >= 0 ? kithi_segment_retire_fd(o->fd, &o->given, STEP_MS)
                              : 0;
    if (status > 0) {
        return status;
    }
    /* What could not be given back goes with the last reader. */
    kithi_index_close(o->index);
    o->index = NULL;
    if (o->fd >= 0) {
        close(o->fd);
        o->fd = -1;
    }
    KITHI_FAULT_CRASH("crash-after-retiring");
    return 0;
}

static void end_done(struct kithi_io_op *op, int status)
{
    struct kithi_old *o = op->arg, **at = &o->collection->olds;
    if (status > 0 && !o->collection->daemon->stopping) {
        kithi_io_call(o->collection->daemon->io, op, end_call);
        return;
    }
    while (*at != o) {
        at = &(*at)->next;
    }
    *at = o->next;
    o->collection->daemon->again = true;
    kithi_index_close(o->index);
    if (o->fd >= 0) {
        close(o->fd);
    }
    free(o);
}

struct kithi_old *kithi_old_new(struct kithi_collection *c)
{
    struct kithi_old *o = calloc(1, sizeof *o);
    if (o) {
        o->collection = c;
        o->fd = -1;
        o->op.done = end_done;
        o->op.arg = o;
    }
    return o;
}

static void push(struct kithi_collection *c, struct kithi_old *o, uint64_t until_ms)
{
    o->until_ms = until_ms;
    o->next = c->olds;
    c->olds = o;
}

void kithi_old_keep(struct kithi_collection *c, struct kithi_old *o, struct kithi_index *index)
{
    bool named = c->old_until_ms != KITHI_NEVER;
    o->index = index;
    o->image = c->checkpointer.image;
    c->old_kept = named ? o : NULL;
    push(c, o, named ? c->old_until_ms : kithi_now_ms() + KITHI_OLD_GRACE_MS);
}

void kithi_old_discard(struct kithi_collection *c, struct kithi_old *o, struct kithi_index *index)
{
    o->index = index;
    push(c, o, 0);
    c->daemon->again = true;
}

void kithi_old_unname(struct kithi_collection *c)
{
    if (c->old_until_ms == KITHI_NEVER) {
        return;
    }
    /* One that is kept open has its place already. */
    struct kithi_old *o = c->old_kept ? NULL : kithi_old_new(c);
    if (o) {
        o->fd = open(c->segment_old, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        push(c, o, c->old_until_ms);
    } /* else its readers alone hold it, until they have moved over */
    kithi_collection_unlink_old(c, NULL);
    c->old_until_ms = KITHI_NEVER;
    c->old_kept = NULL;
}

uint64_t kithi_old_turn(struct kithi_collection *c, uint64_t now_ms)
{
    uint64_t again_ms = c->old_until_ms;
    if (c->dropping) {
        return KITHI_NEVER; /* all of it goes; a call that begins now would outlive the collection */
    }
    if (now_ms >= c->old_until_ms) {
        kithi_old_unname(c);
        again_ms = KITHI_NEVER;
    }
    for (struct kithi_old *o = c->olds; o; o = o->next) {
        if (o->op.busy || (o->image && o->image == c->checkpointer.image)) {
            continue; /* the end of that brings the next turn */
        }
        o->image = NULL;
        if (now_ms >= o->until_ms) {
            kithi_io_call(c->daemon->io, &o->op, end_call);
        } else if (o->until_ms < again_ms) {
            again_ms = o->until_ms;
        }
    }
    return again_ms;
}

bool kithi_old_hurry(struct kithi_collection *c)
{
    if (c->old_until_ms != KITHI_NEVER) {
        c->old_until_ms = 0;
        c->daemon->again = true;
    }
    for (struct kithi_old *o = c->olds; o; o = o->next) {
        o->until_ms = 0;
        c->daemon->again |= !o->op.busy;
    }
    return c->old_until_ms != KITHI_NEVER || c->olds;
}

bool kithi_old_idle(const struct kithi_collection *c)
{
    bool idle = true;
    for (const struct kithi_old *o = c->olds; o; o = o->next) {
        idle = idle && !o->op.busy;
    }
    return idle;
}

void kithi_old_fini(struct kithi_collection *c)
{
    while (c->olds) {
        struct kithi_old *o = c->olds;
        c->olds = o->next;
        kithi_index_close(o->index);
        if (o->fd >= 0) {
            close(o->fd);
        }
        free(o);
    }
}
