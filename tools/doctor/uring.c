/*
 * uring.c - see uring_priv.h.
 *
 * Whether a ring can be made is found out by making one, since only the kernel knows all that forbids it; the settings are
 * read to say which of them it was. What counts in the end is what kithd got: it says so itself, and may run under other
 * rules than this process.
 */
#include "tools/doctor/uring_priv.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/base/needs.h"
#include "tools/doctor/sysfile_priv.h"

#define DISABLED "/proc/sys/kernel/io_uring_disabled"
#define GROUP    "/proc/sys/kernel/io_uring_group"

static const char COST[] =
    "kithd then waits by poll and writes its log in a thread: searches cost the same, a commit takes "
    "two switches of threads more";

void kithi_uring_try(struct kithi_uring *u)
{
    struct io_uring_params p = { .flags = IORING_SETUP_CQSIZE, .cq_entries = KITHI_NEED_RING_COMPLETIONS };
    /* A probe has an array of operations behind it, as many as the caller has room for. */
    alignas(struct io_uring_probe) unsigned char
        probe[sizeof(struct io_uring_probe) + IORING_OP_LAST * sizeof(struct io_uring_probe_op)] = { 0 };
    u->complete = false;
    u->status = 0;
    long fd = syscall(SYS_io_uring_setup, KITHI_NEED_RING_ENTRIES, &p);
    if (fd < 0) {
        u->status = -errno;
        return;
    }
    /* The kernel that can be asked what its rings can do (5.6) has all the operations that kithd asks for. */
    u->complete = (p.features & IORING_FEAT_NODROP) &&
                  syscall(SYS_io_uring_register, fd, IORING_REGISTER_PROBE, probe, IORING_OP_LAST) == 0;
    close((int)fd);
}

void kithi_uring_look(const struct kithi_doctor *d, struct kithi_uring *u)
{
    uint64_t n = 0;
    char *text;
    u->setting = kithi_sysfile_number(d->root, DISABLED, &n) == 0 ? (int64_t)n : -1;
    u->group = kithi_sysfile_number(d->root, GROUP, &n) == 0 ? (int64_t)n : -1;
    u->filtered = false;
    if (kithi_sysfile_read(d->root, "/proc/self/status", &text) == 0) {
        u->filtered = kithi_sysfile_value(text, "Seccomp", &n) && n == 2;
        free(text);
    }
}

/* A line for the filter that forbids it. */
static void fix_filter(const struct kithi_doctor *d, struct kithi_finding *f)
{
    if (d->container == KITHI_CONTAINER_NONE)
        kithi_finding_fix(f, "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register");
    else
        kithi_finding_fix(
            f, "{ \"names\": [\"io_uring_setup\", \"io_uring_enter\", \"io_uring_register\"], \"action\": "
               "\"SCMP_ACT_ALLOW\" }");
}

/* Why a ring could not be made, and what to do. */
static void judge_refusal(const struct kithi_doctor *d, const struct kithi_uring *u, struct kithi_finding *f)
{
    char *command = kithi_kithd_command(d);
    if (u->status == -EPERM && u->setting == 2) {
        kithi_finding_set(f, KITHI_DOCTOR_WARN,
                          "io_uring is forbidden to all by kernel.io_uring_disabled = 2; %s", COST);
        kithi_finding_fix(f, "sysctl -w kernel.io_uring_disabled=0");
    } else if (u->status == -EPERM && u->setting == 1) {
        kithi_finding_set(f, KITHI_DOCTOR_WARN,
                          "io_uring is forbidden by kernel.io_uring_disabled = 1 to those that are not in "
                          "kernel.io_uring_group, which is %lld; %s",
                          (long long)u->group, COST);
        if (u->group < 0)
            kithi_finding_fix(f, "sysctl -w kernel.io_uring_group=%u", (unsigned)getegid());
        else
            kithi_finding_fix(f, "setpriv --regid %lld --clear-groups %s", (long long)u->group, command);
    } else if ((u->status == -EPERM || u->status == -ENOSYS || u->status == -EACCES) && u->filtered) {
        kithi_finding_set(f, KITHI_DOCTOR_WARN, "io_uring is forbidden by a seccomp filter (%s); %s",
                          strerror(-u->status), COST);
        fix_filter(d, f);
    } else if (u->status == -ENOSYS) {
        kithi_finding_set(f, KITHI_DOCTOR_WARN, "this kernel (%u.%u) has no io_uring; %s", d->major, d->minor,
                          COST);
        kithi_finding_fix(f, "CONFIG_IO_URING=y");
    } else if (u->status == -ENOMEM) {
        kithi_finding_set(f, KITHI_DOCTOR_WARN,
                          "a ring of kithd's size does not fit into the memory that may be locked; %s", COST);
        kithi_finding_fix(f, "LimitMEMLOCK=8M");
    } else {
        kithi_finding_set(f, KITHI_DOCTOR_WARN,
                          "io_uring is refused (%s), by a security module or the container's rules; %s",
                          strerror(-u->status), COST);
        kithi_finding_fix(f, "KITH_IO=threads %s", command);
    }
    free(command);
}

void kithi_uring_judge(const struct kithi_doctor *d, const struct kithi_uring *u, struct kithi_finding *f)
{
    if (strcmp(d->asked.io, "uring") == 0) {
        kithi_finding_set(f, KITHI_DOCTOR_OK, "kithd uses io_uring");
        return;
    }
    bool threads = strcmp(d->asked.io, "threads") == 0;
    if (u->status != 0) {
        judge_refusal(d, u, f);
    } else if (!u->complete) {
        kithi_finding_set(f, KITHI_DOCTOR_WARN,
                          "the io_uring of this kernel (%u.%u) lacks what kithd needs of it (5.6 "
                          "has all); %s",
                          d->major, d->minor, COST);
        kithi_finding_fix(f, "apt-get install linux-image-$(dpkg --print-architecture)");
    } else if (threads) {
        char *command = kithi_kithd_command(d);
        kithi_finding_set(
            f, KITHI_DOCTOR_WARN,
            "kithd does without io_uring, though user %u is permitted to use it: it was started with "
            "KITH_IO=threads, or its container forbids it (event=start in its log says why); %s",
            (unsigned)geteuid(), COST);
        kithi_finding_fix(f, "KITH_IO=uring %s", command);
        free(command);
    } else {
        kithi_finding_set(f, KITHI_DOCTOR_OK,
                          "io_uring is permitted to user %u; what kithd uses is not known",
                          (unsigned)geteuid());
    }
}

void kithi_check_io_uring(const struct kithi_doctor *d, struct kithi_finding *f)
{
    struct kithi_uring u;
    kithi_uring_try(&u);
    kithi_uring_look(d, &u);
    kithi_uring_judge(d, &u, f);
}
