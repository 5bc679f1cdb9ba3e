/*
 * mount.c - see mount_priv.h.
 *
 * A line of mountinfo: id, parent, major:minor, root, mount point, options, optional fields, "-", type, source, options of
 * the file system. Blanks in a path are written as \040.
 */
#include "tools/doctor/mount_priv.h"

#include <stdio.h>
#include <string.h>

#define FIELDS_BEFORE_POINT 4u

/* The field at *at into out, \ooo undone; *at goes to the next field. false when it was cut. */
static bool take_field(const char **at, const char *end, char *out, size_t size)
{
    size_t n = 0;
    bool fits = true;
    for (const char *p = *at; (*at = p) < end && *p != ' ';) {
        char c = *p;
        if (c == '\\' && end - p >= 4) {
            c = (char)((p[1] - '0') * 64 + (p[2] - '0') * 8 + (p[3] - '0'));
            p += 4;
        } else {
            p++;
        }
        fits = fits && n + 1 < size;
        if (fits)
            out[n++] = c;
    }
    out[n] = '\0';
    *at += *at < end;
    return fits;
}

static bool is_above(const char *point, const char *path)
{
    size_t len = strlen(point);
    if (strcmp(point, "/") == 0)
        return true;
    return strncmp(point, path, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static bool take_line(const char *line, const char *end, struct kithi_mount *m)
{
    char skipped[4096];
    for (unsigned i = 0; i < FIELDS_BEFORE_POINT; i++)
        take_field(&line, end, skipped, sizeof skipped);
    if (!take_field(&line, end, m->point, sizeof m->point))
        return false;
    do {
        if (line == end)
            return false;
        take_field(&line, end, skipped, sizeof skipped);
    } while (strcmp(skipped, "-") != 0);
    if (!take_field(&line, end, m->type, sizeof m->type))
        return false;
    take_field(&line, end, skipped, sizeof skipped);
    take_field(&line, end, m->options, sizeof m->options); /* an overlay's are longer than anybody looks at */
    return true;
}

bool kithi_mount_find(const char *mountinfo, const char *path, struct kithi_mount *out)
{
    size_t best = 0;
    struct kithi_mount m;
    for (const char *line = mountinfo, *end; *line != '\0'; line = end + (*end == '\n')) {
        end = line + strcspn(line, "\n");
        if (!take_line(line, end, &m) || !is_above(m.point, path) || strlen(m.point) < best)
            continue;
        best = strlen(m.point);
        *out = m;
    }
    return best > 0;
}

bool kithi_mount_option(const struct kithi_mount *m, const char *name, char *out, unsigned size)
{
    size_t len = strlen(name);
    for (const char *at = m->options; *at != '\0'; at += strcspn(at, ","), at += *at == ',') {
        size_t value = strcspn(at, ",");
        if (value <= len || strncmp(at, name, len) != 0 || at[len] != '=' || value - len > size)
            continue;
        memcpy(out, at + len + 1, value - len - 1);
        out[value - len - 1] = '\0';
        return true;
    }
    return false;
}
