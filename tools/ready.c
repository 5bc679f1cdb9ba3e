/*
 * ready.c - see ready.h.
 */
#include "tools/ready.h"

#include <stdio.h>
#include <string.h>

#include "client/src/json.h"
#include "tools/out.h"

/* A string for people: without control characters, and cut off where there is no room for more. */
static void take_text(struct kithi_json *j, char *out, size_t size)
{
    char text[sizeof((struct kithi_ready_state *)0)->reason];
    size_t len = 0;
    if (kithi_json_string(j, text, sizeof text, &len) < 0)
        return;
    len = len < size ? len : size - 1;
    for (size_t i = 0; i < len; i++)
        out[i] = (unsigned char)text[i] < 0x20 ? ' ' : text[i];
    out[len] = '\0';
}

static double take_number(struct kithi_json *j)
{
    double v = 0;
    return kithi_json_double(j, &v) == 0 && v > 0 ? v : 0;
}

bool kithi_ready_next(const char **at, struct kithi_ready_state *out)
{
    struct kithi_json j;
    const char *p = strstr(*at, "{\"name\":");
    memset(out, 0, sizeof *out);
    if (p == NULL)
        return false;
    kithi_json_init(&j);
    kithi_json_begin(&j, p, strlen(p));
    if (kithi_json_object(&j) == 0)
        while (kithi_json_member(&j) == 1) {
            if (kithi_json_key_is(&j, "name"))
                take_text(&j, out->name, sizeof out->name);
            else if (kithi_json_key_is(&j, "state"))
                take_text(&j, out->state, sizeof out->state);
            else if (kithi_json_key_is(&j, "reason"))
                take_text(&j, out->reason, sizeof out->reason);
            else if (kithi_json_key_is(&j, "unit"))
                take_text(&j, out->unit, sizeof out->unit);
            else if (kithi_json_key_is(&j, "done"))
                out->done = (unsigned long long)take_number(&j);
            else if (kithi_json_key_is(&j, "total"))
                out->total = (unsigned long long)take_number(&j);
            else if (kithi_json_key_is(&j, "percent"))
                out->percent = (unsigned)take_number(&j);
            else
                kithi_json_skip(&j);
        }
    out->counts = out->unit[0] != '\0';
    bool good = j.code == 0 && out->name[0] != '\0' && out->state[0] != '\0';
    *at = j.at;
    kithi_json_fini(&j);
    return good;
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
