#include "shm/base/escape.h"

#include <stdint.h>

enum { ESCAPE_LEN = 6 }; /* \uXXXX */

/* The number in the escape at p, -1 when there is none. */
static int32_t number(const char *p, const char *end)
{
    int32_t v = 0;
    if (end - p < ESCAPE_LEN || p[0] != '\\' || p[1] != 'u')
        return -1;
    for (int i = 2; i < ESCAPE_LEN; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

static int put(char *out, int32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((len == 2 ? 0xc0 : len == 3 ? 0xe0 : 0xf0) | c);
    return len;
}

int kithi_escape_unicode(const char **at, const char *end, char out[4])
{
    const char *p = *at;
    int32_t c = number(p, end);
    if (c < 0)
        return 0;
    p += ESCAPE_LEN;
    if (c >= 0xd800 && c < 0xe000) {
        int32_t low = c < 0xdc00 ? number(p, end) : -1;
        if (low < 0xdc00 || low >= 0xe000)
            return -1;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        p += ESCAPE_LEN;
    }
    *at = p;
    return put(out, c);
}
