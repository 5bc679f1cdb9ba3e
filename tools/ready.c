/*
 * ready.c - see ready.h.
 */
#include "tools/ready.h"

#include <stdio.h>
#include <string.h>

#include "tools/out.h"

/* A JSON string that follows key, without its escapes; what is not ASCII stays. Returns where it ends; p when there is none. */
static const char *take_string(const char *p, const char *key, char *out, size_t size)
{
    size_t len = strlen(key), n = 0;
    unsigned code;
    if (strncmp(p, key, len) != 0)
        return p;
    for (p += len; *p != '\0' && *p != '"'; p++) {
        char c = *p;
        if (c == '\\' && p[1] != '\0') {
            c = *++p;
            if (c == 'u' && sscanf(p + 1, "%4x", &code) == 1 && strlen(p) > 4) {
                c = code < 0x80 ? (char)code : '?';
                p += 4;
            }
        }
        if (n + 1 < size)
            out[n++] = (unsigned char)c < 0x20 ? ' ' : c; /* it is printed */
    }
    out[n] = '\0';
    return *p == '"' ? p + 1 : p;
}

bool kithi_ready_next(const char **at, struct kithi_ready_state *out)
{
    int len = 0, more = 0;
    const char *p = strstr(*at, "{\"name\":\"");
    memset(out, 0, sizeof *out);
    if (p == NULL ||
        sscanf(p, "{\"name\":\"%64[^\"]\",\"state\":\"%15[^\"]\"%n", out->name, out->state, &len) < 2 ||
        len == 0)
        return false;
    p += len;
    out->counts = sscanf(p, ",\"unit\":\"%7[^\"]\",\"done\":%llu,\"total\":%llu,\"percent\":%u%n", out->unit,
                         &out->done, &out->total, &out->percent, &more) == 4;
    char status[40];
    p = take_string(p + more, ",\"status\":\"", status, sizeof status);
    *at = take_string(p, ",\"reason\":\"", out->reason, sizeof out->reason);
    return true;
}

const char *kithi_ready_text(const struct kithi_ready_state *s, char *buf, size_t size)
{
    char total[KITHI_OUT_TEXT_SIZE];
    bool bytes = strcmp(s->unit, "bytes") == 0;
    if (s->counts)
        snprintf(buf, size, "%s, %u %% of %s%s%s", s->state, s->percent, bytes ? "" : "at least ",
                 bytes ? kithi_out_bytes(total, s->total) : kithi_out_count(total, s->total),
                 bytes ? "" : " groups");
    else
        snprintf(buf, size, "%s", s->state);
    return buf;
}
