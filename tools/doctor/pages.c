/*
 * pages.c - huge pages: does this kernel give them to segments, and have segments got them?
 *
 * kithd asks for each block by MADV_COLLAPSE (Linux 6.1), which needs no setting: neither "never" of enabled nor of
 * shmem_enabled forbids it, "deny" of the latter does, and so does a process that was told to do without
 * (PR_SET_THP_DISABLE). An older kernel collapses by and by, if the tmpfs is mounted with huge= and enabled allows it.
 * shmem_enabled itself is about System V segments and memfds; of a mounted tmpfs only its mount option, deny and force
 * count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/doctor/mount_priv.h"
#include "tools/doctor/space_priv.h"
#include "tools/doctor/sysfile_priv.h"
#include "tools/out.h"

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define ENABLED       "/sys/kernel/mm/transparent_hugepage/enabled"

/* The chosen word of a setting. 0 or -errno. */
static int setting(const struct kithi_doctor *d, const char *path, char out[32])
{
    char *text;
    int rc = kithi_sysfile_read(d->root, path, &text);
    if (rc != 0)
        return rc;
    if (!kithi_sysfile_chosen(text, out, 32))
        strcpy(out, "?");
    free(text);
    return 0;
}

/* kithd was told to do without. */
static bool is_disabled(const struct kithi_doctor *d)
{
    char path[64], *text;
    uint64_t enabled = 1;
    if (!d->proc_kithd)
        return false;
    snprintf(path, sizeof path, "%s/status", d->proc);
    if (kithi_sysfile_read(d->root, path, &text) != 0)
        return false;
    kithi_sysfile_value(text, "THP_enabled", &enabled);
    free(text);
    return enabled == 0;
}

/* The mount option huge= of the run directory's tmpfs; "never" where there is none. */
static void huge_option(const struct kithi_doctor *d, char out[32])
{
    char *text, *real = realpath(d->opts.run_dir, NULL);
    struct kithi_mount *m = malloc(sizeof *m);
    strcpy(out, "never");
    if (m != NULL && real != NULL && kithi_sysfile_read(d->root, "/proc/self/mountinfo", &text) == 0) {
        if (kithi_mount_find(text, real, m) && strcmp(m->type, "tmpfs") == 0)
            kithi_mount_option(m, "huge", out, 32);
        free(text);
    }
    free(m);
    free(real);
}

/* ", of 10 MiB that could have them 8 MiB do", of all collections. Returns false when too few do. */
static bool add_figures(const struct kithi_doctor *d, struct kithi_finding *f)
{
    char got_text[KITHI_OUT_TEXT_SIZE], wanted_text[KITHI_OUT_TEXT_SIZE];
    uint64_t got = 0, wanted = 0;
    size_t looked_at = 0;
    for (size_t i = 0; i < d->collections.count; i++) {
        const struct kithi_seen *c = &d->collections.items[i];
        looked_at += c->segment && c->status == 0;
        got += c->huge;
        wanted += c->huge_wanted;
    }
    if (looked_at == 0)
        kithi_finding_add(f, "; there is no segment to look at");
    else if (wanted == 0)
        kithi_finding_add(f, "; no segment is large enough for one yet");
    else
        kithi_finding_add(f, "; segments have %s of %s that could have them", kithi_out_bytes(got_text, got),
                          kithi_out_bytes(wanted_text, wanted));
    return got >= wanted / 10 * 9;
}

/* Before Linux 6.1 it takes a mount option and a setting. */
static void judge_old(const struct kithi_doctor *d, const char *enabled, struct kithi_finding *f)
{
    char huge[32];
    struct kithi_space s;
    huge_option(d, huge);
    bool mounted = strcmp(huge, "never") != 0, allowed = strcmp(enabled, "never") != 0;
    kithi_finding_set(
        f, mounted && allowed ? KITHI_DOCTOR_OK : KITHI_DOCTOR_WARN,
        "Linux %u.%u has no MADV_COLLAPSE (6.1 has); the run directory's tmpfs is mounted with huge=%s, and "
        "%s is %s, so the kernel gives huge pages %s",
        d->major, d->minor, huge, ENABLED, enabled, mounted && allowed ? "by and by" : "never");
    if (!mounted && kithi_space_of(d->opts.run_dir, &s) == 0) {
        char *point = kithi_quote(s.point);
        kithi_finding_fix(f, "mount -o remount,huge=advise %s", point);
        free(point);
    } else if (!allowed) {
        kithi_finding_fix(f, "echo madvise > " ENABLED);
    }
}

void kithi_check_huge_pages(const struct kithi_doctor *d, struct kithi_finding *f)
{
    char shmem[32], enabled[32];
    int rc = setting(d, SHMEM_ENABLED, shmem);
    if (rc == 0)
        rc = setting(d, ENABLED, enabled);
    if (rc != 0 || d->major == 0) {
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN,
                          "whether the kernel gives huge pages is in " SHMEM_ENABLED
                          " and /proc/sys/kernel/osrelease: %s",
                          rc != 0 ? strerror(-rc) : "the version cannot be read");
        add_figures(d, f);
        return;
    }
    if (strcmp(shmem, "deny") == 0) {
        kithi_finding_set(f, KITHI_DOCTOR_WARN,
                          SHMEM_ENABLED " is deny: segments get no huge pages, and searches are slower");
        kithi_finding_fix(f, "echo never > " SHMEM_ENABLED);
        return;
    }
    if (is_disabled(d)) {
        kithi_finding_set(
            f, KITHI_DOCTOR_WARN,
            "kithd inherited that it does without huge pages (THP_enabled of %s/status is 0): segments "
            "get none",
            d->proc);
        char *command = kithi_kithd_command(d); /* of process 1, which has not */
        kithi_finding_fix(f, "systemd-run --unit=kithd %s", command);
        free(command);
        return;
    }
    if (!kithi_doctor_kernel_is(d, 6, 1)) {
        judge_old(d, enabled, f);
        return;
    }
    kithi_finding_set(f, KITHI_DOCTOR_OK,
                      "Linux %u.%u gives huge pages when it is asked (MADV_COLLAPSE; shmem_enabled is %s)",
                      d->major, d->minor, shmem);
    if (add_figures(d, f))
        return;
    f->state = KITHI_DOCTOR_WARN;
    kithi_finding_add(
        f,
        ": memory in one piece is short, or kithd was started with --huge-pages no; it asks again by itself");
    kithi_finding_fix(f, "echo 1 > /proc/sys/vm/compact_memory");
}
