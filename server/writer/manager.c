/*
 * manager.c - see manager.h.
 */
#include "server/writer/manager.h"

#include <stdlib.h>

#include "server/base/notify.h"
#include "server/writer/collection.h"
#include "server/writer/daemon.h"
#include "server/writer/start.h"

#define EXTEND_MS 60000u /* by which a start or a stop may last longer, from each sign of life */

void kithi_manager_init(struct kithi_manager *m)
{
    *m = (struct kithi_manager){ .told = getenv("NOTIFY_SOCKET") != NULL,
                                 .left = SIZE_MAX,
                                 .watchdog_ms = kithi_notify_watchdog_ms() };
}

static size_t served(const struct kithi_daemon *d)
{
    size_t n = 0;
    for (const struct kithi_collection *c = d->collections; c; c = c->next) {
        n += !c->condemned;
    }
    return n;
}

void kithi_manager_ready(struct kithi_daemon *d)
{
    size_t n = served(d);
    kithi_notify("READY=1\nSTATUS=serving; %zu collection%s at the start", n, n == 1 ? "" : "s");
    d->manager.left = 0;
    d->manager.next_ms = 0; /* the watchdog counts from now on */
}

static void tell_progress(struct kithi_daemon *d)
{
    size_t left = kithi_start_count(d), n = served(d);
    if (left && left != d->manager.left) {
        kithi_notify("STATUS=starting; %zu of %zu collections are served", n, n + left);
        d->manager.left = left;
    }
}

uint64_t kithi_manager_turn(struct kithi_daemon *d, uint64_t now_ms)
{
    struct kithi_manager *m = &d->manager;
    if (!m->told) {
        return KITHI_NEVER;
    }
    if (d->stopping && !m->stopping) {
        m->stopping = true;
        m->next_ms = 0;
        kithi_notify("STOPPING=1\nSTATUS=finishing what was accepted");
    } else if (d->start && !d->stopping) {
        tell_progress(d);
    }
    bool limited = d->start || d->stopping;
    if (!limited && !m->watchdog_ms) {
        return KITHI_NEVER;
    }
    /* Three times as often as has to be: a turn that is late by as much as it may take is no reason to be killed. */
    uint64_t every_ms = m->watchdog_ms && m->watchdog_ms < EXTEND_MS ? m->watchdog_ms / 3 : EXTEND_MS / 3;
    if (now_ms >= m->next_ms) {
        if (limited) {
            kithi_notify("WATCHDOG=1\nEXTEND_TIMEOUT_USEC=%u", EXTEND_MS * 1000u);
        } else {
            kithi_notify("WATCHDOG=1");
        }
        m->next_ms = now_ms + (every_ms ? every_ms : 1);
    }
    return m->next_ms;
}
