/*
 * manager.h - what kithd tells the service manager that started it (Type=notify of systemd), from the loop.
 *
 *   starting   STATUS, whenever another collection is served; the time for the start is extended while the loop turns
 *   serving    READY=1, once; then WATCHDOG=1, as often as is asked for
 *   stopping   STOPPING=1, once; the time for the stop is extended while the loop turns
 *
 * So a start and a stop, which take as long as checkpoint and log do, need no limit of their own in the unit, and
 * a loop that hangs is noticed in each of these states.
 */
#ifndef KITHI_WRITER_MANAGER_H
#define KITHI_WRITER_MANAGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kithi_daemon;

struct kithi_manager {
    bool told;            /* somebody asked to be told of anything at all */
    bool stopping;        /* STOPPING=1 was sent */
    size_t left;          /* collections that the last STATUS said were missing; SIZE_MAX: none was sent */
    uint64_t watchdog_ms; /* 0: none */
    uint64_t next_ms;     /* when to give the next sign of life */
};

void kithi_manager_init(struct kithi_manager *m);

/* All collections are served. */
void kithi_manager_ready(struct kithi_daemon *d);

/* Returns when the next turn is wanted, in ms of the clock. */
uint64_t kithi_manager_turn(struct kithi_daemon *d, uint64_t now_ms);

#endif
