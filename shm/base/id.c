/*
 * id.c - the rules for ids and collection names, see id.h.
 */
#include "shm/base/id.h"

static bool continues(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

/*
 * Bytes of the UTF-8 character at p (left > 0), or 0 when there is none or it is NUL. The
 * second byte decides about overlong forms (E0, F0), surrogates (ED) and the end of
 * Unicode (F4), so its range depends on the first.
 */
static size_t character(const unsigned char *p, size_t left)
{
    unsigned char c = p[0], low = 0x80, high = 0xbf;
    if (c < 0x80)
        return c != 0;
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
        if (!continues(p[i]))
            return 0;
    }
    return len;
}

bool kithi_id_valid(const char *id, size_t len)
{
    const unsigned char *p = (const unsigned char *)id;
    if (len == 0 || len > KITHI_ID_MAX)
        return false;
    for (size_t at = 0, step; at < len; at += step) {
        step = character(p + at, len - at);
        if (step == 0)
            return false;
    }
    return true;
}

/* Not isalnum(): that depends on the locale of the host program. */
static bool letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool kithi_name_valid(const char *name, size_t len)
{
    if (len == 0 || len > KITHI_NAME_MAX || !letter_or_digit(name[0]))
        return false;
    for (size_t i = 1; i < len; i++) {
        if (!letter_or_digit(name[i]) && name[i] != '_' && name[i] != '-')
            return false;
    }
    return true;
}
