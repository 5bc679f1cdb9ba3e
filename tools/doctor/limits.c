/*
 * limits.c - resource limits: locked memory and open files, of kithd where it can be seen, else of this process.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/needs.h"
#include "tools/doctor/doctor_priv.h"
#include "tools/doctor/sysfile_priv.h"
#include "tools/out.h"

#define CAP_IPC_LOCK_BIT 14

/* The limits of a line; false, and unknown, when they cannot be read. */
static bool limits_of(const struct kithi_doctor *d, const char *name, uint64_t *soft, uint64_t *hard,
                      struct kithi_finding *f)
{
    char path[64], *text;
    snprintf(path, sizeof path, "%s/limits", d->proc);
    int rc = kithi_sysfile_read(d->root, path, &text);
    bool found = rc == 0 && kithi_sysfile_limit(text, name, soft, hard);
    if (rc != 0)
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN, "%s cannot be read: %s", path, strerror(-rc));
    else if (!found)
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN, "%s has no line \"%s\"", path, name);
    free(text);
    return found;
}

/* Bytes that the kernel charges for kithd's ring: the two rings in one piece, and the entries, each a power of two of
 * pages. A completion takes 16 bytes, an entry 64 and 4 for its index; the head of the rings is less than 1 KiB. */
static uint64_t ring_bytes(void)
{
    const uint64_t pieces[] = { 1024 + 16u * KITHI_NEED_RING_COMPLETIONS + 4u * KITHI_NEED_RING_ENTRIES,
                                64u * KITHI_NEED_RING_ENTRIES };
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        uint64_t power = 4096;
        while (power < pieces[i])
            power *= 2;
        sum += power;
    }
    return sum;
}

/* May the process lock as much as it likes? */
static bool may_lock(const struct kithi_doctor *d)
{
    char path[64], *text;
    snprintf(path, sizeof path, "%s/status", d->proc);
    if (kithi_sysfile_read(d->root, path, &text) != 0)
        return false;
    const char *at = strstr(text, "CapEff:");
    unsigned long long caps = at != NULL ? strtoull(at + strlen("CapEff:"), NULL, 16) : 0;
    free(text);
    return (caps >> CAP_IPC_LOCK_BIT & 1) != 0;
}

void kithi_check_memlock(const struct kithi_doctor *d, struct kithi_finding *f)
{
    uint64_t soft, hard;
    char limit[KITHI_OUT_TEXT_SIZE], need[KITHI_OUT_TEXT_SIZE];
    if (!limits_of(d, "Max locked memory", &soft, &hard, f))
        return;
    snprintf(limit, sizeof limit, "unlimited");
    if (soft != UINT64_MAX)
        kithi_out_bytes(limit, soft);
    kithi_out_bytes(need, ring_bytes());
    if (d->major == 0)
        kithi_finding_set(
            f, soft >= ring_bytes() ? KITHI_DOCTOR_OK : KITHI_DOCTOR_UNKNOWN,
            "%s may lock %s; whether the ring of %s is charged, which it is before Linux 5.12, is not known: "
            "/proc/sys/kernel/osrelease cannot be read",
            kithi_doctor_whose(d), limit, need);
    else if (kithi_doctor_kernel_is(d, 5, 12))
        kithi_finding_set(
            f, KITHI_DOCTOR_OK,
            "%s may lock %s; Linux %u.%u does not charge the ring of %s to that (before 5.12 it did)",
            kithi_doctor_whose(d), limit, d->major, d->minor, need);
    else if (soft >= ring_bytes() || may_lock(d))
        kithi_finding_set(f, KITHI_DOCTOR_OK, "%s may lock %s%s; Linux %u.%u charges the ring of %s to that",
                          kithi_doctor_whose(d), limit, soft >= ring_bytes() ? "" : ", and has CAP_IPC_LOCK",
                          d->major, d->minor, need);
    else {
        kithi_finding_set(
            f, KITHI_DOCTOR_WARN,
            "%s may lock %s, and Linux %u.%u charges the ring of %s to that: kithd does without io_uring",
            kithi_doctor_whose(d), limit, d->major, d->minor, need);
        kithi_finding_fix(f, "LimitMEMLOCK=8M");
    }
}

void kithi_check_open_files(const struct kithi_doctor *d, struct kithi_finding *f)
{
    uint64_t soft, hard;
    /* kithd raises the soft limit to the hard one when it starts. */
    if (!limits_of(d, "Max open files", &soft, &hard, f))
        return;
    uint64_t own = KITHI_NEED_DESCRIPTORS + KITHI_NEED_DESCRIPTORS_EACH * (uint64_t)d->collections.count;
    uint64_t need = own + KITHI_NEED_CLIENTS;
    unsigned long long clients = hard > own ? hard - own : 0;
    char limit[KITHI_OUT_TEXT_SIZE];
    snprintf(limit, sizeof limit, "unlimited");
    if (hard != UINT64_MAX)
        kithi_out_count(limit, hard);
    if (hard >= need) {
        kithi_finding_set(
            f, KITHI_DOCTOR_OK, "%s may open %s files; %llu are enough for %u clients and %zu collections",
            kithi_doctor_whose(d), limit, (unsigned long long)need, KITHI_NEED_CLIENTS, d->collections.count);
        return;
    }
    kithi_finding_set(f, clients > 0 ? KITHI_DOCTOR_WARN : KITHI_DOCTOR_BAD,
                      "%s may open %s files, which with %zu collections leaves kithd %llu clients of %u",
                      kithi_doctor_whose(d), limit, d->collections.count, clients, KITHI_NEED_CLIENTS);
    if (d->container == KITHI_CONTAINER_NONE)
        kithi_finding_fix(f, "LimitNOFILE=%llu", (unsigned long long)need);
    else
        kithi_finding_fix(f, "--ulimit nofile=%llu", (unsigned long long)need);
}
