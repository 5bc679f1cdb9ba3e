/*
 * id.c - the rules for ids and collection names, see id.h.
 */
#include "shm/base/id.h"

#include <string.h>

#include "shm/base/utf8.h"

bool kithi_id_valid(const char *id, size_t len)
{
    return len > 0 && len <= KITHI_ID_MAX && kithi_utf8_valid(id, len) && !memchr(id, '\0', len);
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
