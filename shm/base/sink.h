/*
 * sink.h - text into as much room as there is: what fits is written, what does not is counted, and no NUL is added. So a
 * writer of text can be asked for the size first.
 */
#ifndef KITHI_BASE_SINK_H
#define KITHI_BASE_SINK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct kithi_sink {
    char *out; /* may be NULL where cap is 0 */
    size_t cap, len;
};

static inline void kithi_sink_put(struct kithi_sink *s, const char *text, size_t n)
{
    if (s->len < s->cap) {
        size_t room = s->cap - s->len;
        memcpy(s->out + s->len, text, n < room ? n : room);
    }
    s->len += n;
}

/* In decimal. */
static inline void kithi_sink_put_integer(struct kithi_sink *s, int64_t v)
{
    char digits[24], *at = digits + sizeof digits;
    uint64_t left = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do
        *--at = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    if (v < 0)
        *--at = '-';
    kithi_sink_put(s, at, (size_t)(digits + sizeof digits - at));
}

#endif
