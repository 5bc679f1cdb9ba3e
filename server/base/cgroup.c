/*
 * cgroup.c - see cgroup.h.
 */
#include "server/base/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PATH_SIZE 4096u

/* What differs between the two versions of the interface. */
struct version {
    const char *controller; /* of its line in /proc/self/cgroup */
    const char *mount, *max, *now, *idle;
};

static const struct version VERSIONS[] = {
    { "", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file" },
    { "memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
      "total_inactive_file" },
};

/* The number in a file, or UINT64_MAX ("max", or no such file). */
static uint64_t number_in(const char *dir, const char *file)
{
    char path[2 * PATH_SIZE + 64];
    unsigned long long v = UINT64_MAX;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *f = fopen(path, "re");
    if (!f)
        return UINT64_MAX;
    if (fscanf(f, "%llu", &v) != 1)
        v = UINT64_MAX;
    fclose(f);
    return v;
}

/* The value of key in memory.stat, or 0. */
static uint64_t stat_in(const char *dir, const char *key)
{
    char path[2 * PATH_SIZE + 64], line[256], name[64];
    unsigned long long v, found = 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %llu", name, &v) == 2 && strcmp(name, key) == 0)
            found = v;
    if (f)
        fclose(f);
    return found;
}

/* Is controller among the comma-separated ones of a line? The unified hierarchy's line has none. */
static bool names(const char *list, size_t len, const char *controller)
{
    size_t want = strlen(controller);
    if (want == 0 || len == 0)
        return want == len;
    for (const char *p = list, *end = list + len; p < end;) {
        size_t n = strcspn(p, ",:");
        if (n == want && strncmp(p, controller, n) == 0)
            return true;
        p += n + 1;
    }
    return false;
}

/* The process's own group, "/..." ; "/" when it is not told. Lines are number:controllers:path. */
static void own_group(const char *root, const struct version *v, char out[PATH_SIZE])
{
    char path[PATH_SIZE], line[PATH_SIZE];
    snprintf(out, PATH_SIZE, "/");
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group || !names(list + 1, (size_t)(group - list - 1), v->controller))
            continue;
        group[strcspn(group, "\n")] = '\0';
        /* Outside of a namespace's root the way there is not mounted. */
        if (group[1] == '/' && !strstr(group, "/.."))
            snprintf(out, PATH_SIZE, "%s", group + 1);
        break;
    }
    if (f)
        fclose(f);
}

static uint64_t room_at(const char *dir, const struct version *v)
{
    uint64_t max = number_in(dir, v->max), now = number_in(dir, v->now), idle;
    if (max == UINT64_MAX || now == UINT64_MAX)
        return UINT64_MAX;
    idle = stat_in(dir, v->idle);
    now -= idle < now ? idle : now;
    return now < max ? max - now : 0;
}

uint64_t kithi_cgroup_left(const char *root)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < sizeof VERSIONS / sizeof *VERSIONS; i++) {
        char group[PATH_SIZE], dir[2 * PATH_SIZE];
        own_group(root, &VERSIONS[i], group);
        for (;;) {
            char *slash = strrchr(group, '/');
            snprintf(dir, sizeof dir, "%.1000s%s%s", root, VERSIONS[i].mount,
                     strcmp(group, "/") ? group : "");
            if (strlen(dir) < PATH_SIZE) {
                uint64_t room = room_at(dir, &VERSIONS[i]);
                least = room < least ? room : least;
            }
            if (!slash || strcmp(group, "/") == 0)
                break;
            slash[slash == group] = '\0'; /* the last but the root's own slash */
        }
    }
    return least;
}
