/*
 * pace.c - see pace.h.
 */
#include "server/writer/pace.h"

#define SECOND_MS 1000u

/* The part of the image that is due when `used` of `room` is. */
static uint64_t part(uint64_t bytes, uint64_t used, uint64_t room)
{
    return used >= room ? bytes : (uint64_t)((double)bytes * ((double)used / (double)room));
}

static uint64_t beyond(uint64_t now, uint64_t first)
{
    return now > first ? now - first : 0;
}

uint64_t kithi_pace_allows(const struct kithi_pace *p, uint64_t now_ms, uint64_t held, uint64_t log_bytes)
{
    uint64_t ms = beyond(now_ms, p->began_ms);
    uint64_t line = ms / SECOND_MS > p->bytes / p->rate ? p->bytes : ms * p->rate / SECOND_MS;
    uint64_t by_held = part(p->bytes, beyond(held, p->held_first), beyond(p->held_most, p->held_first) / 2);
    uint64_t by_log = part(p->bytes, beyond(log_bytes, p->log_first), p->log_room);
    uint64_t most = line > by_held ? line : by_held;
    most = most > by_log ? most : by_log;
    return most < p->bytes ? most : p->bytes;
}

uint64_t kithi_pace_when(const struct kithi_pace *p, uint64_t bytes)
{
    uint64_t seconds = bytes / p->rate, rest = bytes % p->rate;
    return p->began_ms + seconds * SECOND_MS + (rest * SECOND_MS + p->rate - 1) / p->rate;
}
