/*
 * cgroup.c - see cgroup_priv.h.
 *
 * A process may be below several limits. In a container its own group is usually the root of what is mounted at
 * /sys/fs/cgroup; /proc/PID/cgroup then says "/", or names a path of the host that is not there: so the path is gone up to
 * the root, and what is missing is passed over.
 *
 * Pages of a tmpfs count for the group whose process touched them first. Over the limit fallocate does not fail, it ends in
 * an OOM kill. kithd therefore looks before it takes memory, at the same limits (server/base/cgroup.c).
 */
#include "tools/doctor/cgroup_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/needs.h"
#include "tools/doctor/sysfile_priv.h"
#include "tools/out.h"

#define MIB (UINT64_C(1) << 20)
/* Version 1 writes "no limit" as the largest multiple of a page. */
#define NO_LIMIT (UINT64_C(1) << 62)
#define OWN_SIZE 4000u
#define DIR_SIZE sizeof(((struct kithi_cgroup *)0)->dir)

struct hierarchy {
    unsigned version;
    const char *base, *max, *used, *stat, *idle, *shmem;
};

static const struct hierarchy V2 = {
    2, "/sys/fs/cgroup", "memory.max", "memory.current", "memory.stat", "inactive_file", "shmem"
};
static const struct hierarchy V1 = { 1,
                                     "/sys/fs/cgroup/memory",
                                     "memory.limit_in_bytes",
                                     "memory.usage_in_bytes",
                                     "memory.stat",
                                     "total_inactive_file",
                                     "total_shmem" };

static void path_of(char out[DIR_SIZE + 64], const char *dir, const char *name)
{
    snprintf(out, DIR_SIZE + 64, "%s/%s", dir, name);
}

static int number_of(const struct kithi_doctor *d, const char *dir, const char *name, uint64_t *out)
{
    char path[DIR_SIZE + 64];
    path_of(path, dir, name);
    return kithi_sysfile_number(d->root, path, out);
}

uint64_t kithi_cgroup_room(const struct kithi_cgroup *c)
{
    uint64_t used = c->used - (c->idle < c->used ? c->idle : c->used);
    return c->max > used ? c->max - used : 0;
}

/* Take the limit of one group if it is the first to come. */
static void look_at(const struct kithi_doctor *d, const struct hierarchy *h, const char *dir,
                    struct kithi_cgroup *out)
{
    struct kithi_cgroup c = { .limited = true, .version = h->version };
    char path[DIR_SIZE + 64], *stat;
    if (number_of(d, dir, h->max, &c.max) != 0 || c.max >= NO_LIMIT ||
        number_of(d, dir, h->used, &c.used) != 0)
        return;
    path_of(path, dir, h->stat);
    if (kithi_sysfile_read(d->root, path, &stat) == 0) {
        kithi_sysfile_value(stat, h->idle, &c.idle);
        kithi_sysfile_value(stat, h->shmem, &c.shmem);
        free(stat);
    }
    if (out->limited && kithi_cgroup_room(out) <= kithi_cgroup_room(&c))
        return;
    snprintf(c.dir, sizeof c.dir, "%s", dir);
    *out = c;
}

/* The path of the process's group: "0::/path" of version 2, "4:cpu,memory:/path" of version 1. "": not there. */
static void own_path(const char *text, const struct hierarchy *h, char out[OWN_SIZE])
{
    *out = '\0';
    for (const char *line = text, *next; *line != '\0'; line = next) {
        next = line + strcspn(line, "\n");
        size_t len = (size_t)(next - line);
        next += *next == '\n';
        const char *list = memchr(line, ':', len);
        const char *path = list != NULL ? memchr(list + 1, ':', len - (size_t)(list + 1 - line)) : NULL;
        if (path == NULL)
            continue;
        list++;
        bool found = h->version == 2 ? line[0] == '0' && list == path : false;
        for (const char *at = list; h->version == 1 && at < path && !found;) {
            size_t n = strcspn(at, ",:");
            found = n == strlen("memory") && strncmp(at, "memory", n) == 0;
            at += n + 1;
        }
        if (found) {
            snprintf(out, OWN_SIZE, "%.*s", (int)(len - (size_t)(path + 1 - line)), path + 1);
            return;
        }
    }
}

static void look_up(const struct kithi_doctor *d, const struct hierarchy *h, const char *own,
                    struct kithi_cgroup *out)
{
    char dir[DIR_SIZE];
    size_t base = strlen(h->base);
    snprintf(dir, sizeof dir, "%s%s", h->base, strcmp(own, "/") == 0 ? "" : own);
    for (;;) {
        look_at(d, h, dir, out);
        char *slash = strrchr(dir, '/');
        if (slash == NULL || (size_t)(slash - dir) < base)
            break;
        *slash = '\0';
    }
}

int kithi_cgroup_find(const struct kithi_doctor *d, struct kithi_cgroup *out)
{
    char path[64], own[OWN_SIZE], *text = NULL;
    memset(out, 0, sizeof *out);
    snprintf(path, sizeof path, "%s/cgroup", d->proc);
    int rc = kithi_sysfile_read(d->root, path, &text);
    bool v1 = kithi_sysfile_exists(d->root, "/sys/fs/cgroup/memory");
    bool v2 = kithi_sysfile_exists(d->root, "/sys/fs/cgroup/cgroup.controllers") ||
              kithi_sysfile_exists(d->root, "/sys/fs/cgroup/memory.max");
    const struct hierarchy *h = v1 ? &V1 : &V2;
    if (v1 || v2) {
        own_path(text != NULL ? text : "", h, own);
        look_up(d, h, own, out);
        rc = 0;
    } else if (rc == 0) {
        rc = -ENOENT;
    }
    free(text);
    return rc;
}

static void fix_limit(const struct kithi_doctor *d, const struct kithi_cgroup *c, struct kithi_finding *f)
{
    unsigned long long mib = (c->max * 2 + MIB - 1) / MIB;
    const char *unit = strrchr(c->dir, '/') + 1;
    size_t len = strlen(unit);
    char *dir = kithi_quote(c->dir);
    if (d->container == KITHI_CONTAINER_POD)
        kithi_finding_fix(f, "resources: { limits: { memory: %lluMi } }", mib);
    else if (d->container == KITHI_CONTAINER_PLAIN)
        kithi_finding_fix(f, "--memory=%llum --memory-swap=%llum", mib, mib);
    else if ((len > 8 && strcmp(unit + len - 8, ".service") == 0) ||
             (len > 6 && (strcmp(unit + len - 6, ".slice") == 0 || strcmp(unit + len - 6, ".scope") == 0)))
        kithi_finding_fix(f, "systemctl set-property %s %s=%lluM", unit,
                          c->version == 2 ? "MemoryMax" : "MemoryLimit", mib);
    else
        kithi_finding_fix(f, "echo %llu > %s/%s", mib * (unsigned long long)MIB, dir,
                          c->version == 2 ? V2.max : V1.max);
    free(dir);
}

void kithi_check_cgroup(const struct kithi_doctor *d, struct kithi_finding *f)
{
    struct kithi_cgroup c;
    char max[KITHI_OUT_TEXT_SIZE], used[KITHI_OUT_TEXT_SIZE], shmem[KITHI_OUT_TEXT_SIZE],
        left[KITHI_OUT_TEXT_SIZE];
    int rc = kithi_cgroup_find(d, &c);
    if (rc != 0) {
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN,
                          "the cgroup's files are not there (%s/cgroup, /sys/fs/cgroup): %s", d->proc,
                          strerror(-rc));
        return;
    }
    if (!c.limited) {
        kithi_finding_set(f, KITHI_DOCTOR_OK, "no cgroup limits the memory of %s", kithi_doctor_whose(d));
        return;
    }
    uint64_t room = kithi_cgroup_room(&c);
    kithi_out_bytes(max, c.max);
    kithi_out_bytes(used, c.used - (c.idle < c.used ? c.idle : c.used));
    kithi_out_bytes(shmem, c.shmem);
    kithi_out_bytes(left, room);
    kithi_finding_set(
        f, KITHI_DOCTOR_OK,
        "the memory limit of %s is %s (cgroup version %u, %s): %s in use, %s of it pages of a tmpfs, which "
        "count, too; room for %s",
        kithi_doctor_whose(d), max, c.version, c.dir, used, shmem, left);
    if (room < KITHI_NEED_STEP) {
        f->state = KITHI_DOCTOR_BAD;
        kithi_finding_add(f, ", which is less than a segment takes at once");
        fix_limit(d, &c, f);
    } else if (room < c.max / 10) {
        f->state = KITHI_DOCTOR_WARN;
        kithi_finding_add(f, ", less than a tenth of it");
        fix_limit(d, &c, f);
    }
}
