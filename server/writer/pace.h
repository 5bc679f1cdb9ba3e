/*
 * pace.h - how much of an image may be copied by now while somebody writes.
 *
 * Copying and insertions want the same processors and the same memory bandwidth, and copying at full speed takes a third of the
 * rate of a writer on one processor. Nobody waits for a checkpoint but who asked for it; so it keeps to a line of so many
 * bytes a second, by which it comes to its end. It goes ahead of the line where waiting would
 * cost more than it spares:
 *
 *   held    slots that have died since the image began. With too many of them writes wait for its end, so all is copied
 *           when half of that room is used.
 *   log     bytes of log since then, which a cold start replays besides those that made the checkpoint due: all is copied
 *           when they are as many as log_room.
 *
 * The processors and the disk decide whether that can be kept; behind the line nothing is held back.
 */
#ifndef KITHI_WRITER_PACE_H
#define KITHI_WRITER_PACE_H

#include <stdint.h>

/* Copied in a second beside writes, an eighth of what processors and disks manage. */
#define KITHI_PACE_RATE_DEFAULT (128u << 20)

struct kithi_pace {
    uint64_t bytes;                 /* of the image */
    uint64_t rate;                  /* of the line, bytes a second; not 0 */
    uint64_t began_ms;              /* of the clock */
    uint64_t held_first, held_most; /* slots held when it began, and when writes would wait */
    uint64_t log_first, log_room;
};

/* Bytes that may be handed out at now_ms, at most all. */
uint64_t kithi_pace_allows(const struct kithi_pace *p, uint64_t now_ms, uint64_t held, uint64_t log_bytes);

/* When the line comes to so many bytes, in ms of the clock. */
uint64_t kithi_pace_when(const struct kithi_pace *p, uint64_t bytes);

#endif
