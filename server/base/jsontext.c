/*
 * jsontext.c - see jsontext.h.
 */
#include "server/base/jsontext.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "shm/base/id.h"

size_t kithi_json_text(char *out, const char *text)
{
    size_t at = 0;
    const bool is_utf8 = kithi_id_valid(text, strlen(text));
    out[at++] = '"';
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20) {
            at += (size_t)snprintf(out + at, 7, "\\u%04x", (unsigned)*p);
            continue;
        }
        if (*p == '"' || *p == '\\')
            out[at++] = '\\';
        out[at++] = *p < 0x80 || is_utf8 ? (char)*p : '?';
    }
    out[at++] = '"';
    out[at] = '\0';
    return at;
}
