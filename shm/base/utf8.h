/*
 * utf8.h - what counts as UTF-8: no overlong forms, no surrogates, nothing beyond Unicode.
 */
#ifndef KITHI_BASE_UTF8_H
#define KITHI_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Bytes of the character at p (left > 0), or 0 when there is none. NUL is a character. The second byte decides about
 * overlong forms (E0, F0), surrogates (ED) and the end of Unicode (F4), so its range depends on the first.
 */
static inline size_t kithi_utf8_step(const unsigned char *p, size_t left)
{
    unsigned char c = p[0], low = 0x80, high = 0xbf;
    if (c < 0x80)
        return 1;
    size_t len = c >= 0xc2 && c <= 0xdf ? 2 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (len == 0 || len > left)
        return 0;
    if (c == 0xe0)
        low = 0xa0;
    if (c == 0xed)
        high = 0x9f;
    if (c == 0xf0)
        low = 0x90;
    if (c == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

static inline bool kithi_utf8_valid(const void *text, size_t len)
{
    const unsigned char *p = text;
    for (size_t at = 0, step; at < len; at += step) {
        step = kithi_utf8_step(p + at, len - at);
        if (step == 0)
            return false;
    }
    return true;
}

#endif
