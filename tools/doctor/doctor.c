/*
 * doctor.c - the table of checks, the facts that they share, and findings. See doctor.h.
 *
 * KITH_DOCTOR_ROOT, for tests: a directory that stands before every path of /proc, /sys, /etc and the other files of
 * the system that are read, so that a made-up tree decides what is found. Run and data directory stay what they are.
 */
#include "tools/doctor/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/assert.h"
#include "tools/doctor/doctor_priv.h"
#include "tools/doctor/sysfile_priv.h"

/* In the order in which they are made: first where things are, then whether there is room, then whether it is quick. */
static const struct {
    const char *name;
    kithi_check_fn *check;
} CHECKS[] = {
    { "run-dir", kithi_check_run_dir },
    { "run-dir-rights", kithi_check_run_rights },
    { "run-dir-space", kithi_check_run_space },
    { "data-dir", kithi_check_data_dir },
    { "data-dir-rights", kithi_check_data_rights },
    { "data-dir-space", kithi_check_data_space },
    { "data-dir-direct", kithi_check_data_direct },
    { "daemon", kithi_check_daemon },
    { "collections", kithi_check_collections },
    { "memory", kithi_check_memory },
    { "cgroup", kithi_check_cgroup },
    { "huge-pages", kithi_check_huge_pages },
    { "io-uring", kithi_check_io_uring },
    { "memlock", kithi_check_memlock },
    { "open-files", kithi_check_open_files },
    { "ipc-removal", kithi_check_ipc },
};

const char *kithi_doctor_state_name(enum kithi_doctor_state state)
{
    static const char *const NAMES[KITHI_DOCTOR_STATE_COUNT] = { "ok", "warn", "bad", "unknown" };
    return NAMES[state];
}

/* ---- findings -------------------------------------------------------------------------- */

static void KITHI_PRINTF(2, 0) set_text(char **text, const char *fmt, va_list ap)
{
    char *new = NULL;
    KITHI_ASSERT(vasprintf(&new, fmt, ap) >= 0); /* a sentence */
    free(*text);
    *text = new;
}

void kithi_finding_set(struct kithi_finding *f, enum kithi_doctor_state state, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    f->state = state;
    set_text(&f->text, fmt, ap);
    va_end(ap);
    free(f->fix);
    f->fix = NULL;
}

void kithi_finding_add(struct kithi_finding *f, const char *fmt, ...)
{
    char *more = NULL, *all = NULL;
    va_list ap;
    va_start(ap, fmt);
    set_text(&more, fmt, ap);
    va_end(ap);
    KITHI_ASSERT(asprintf(&all, "%s%s", f->text, more) >= 0);
    free(more);
    free(f->text);
    f->text = all;
}

void kithi_finding_fix(struct kithi_finding *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_text(&f->fix, fmt, ap);
    va_end(ap);
}

void kithi_finding_free(struct kithi_finding *f)
{
    free(f->text);
    free(f->fix);
    memset(f, 0, sizeof *f);
}

char *kithi_quote(const char *text)
{
    static const char PLAIN[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+=,";
    char *out = malloc(4 * strlen(text) + 3), *at = out; /* a ' takes four */
    KITHI_ASSERT(out != NULL);
    if (*text != '\0' && strspn(text, PLAIN) == strlen(text))
        return strcpy(out, text);
    *at++ = '\'';
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            at = stpcpy(at, "'\\''");
        else
            *at++ = *text;
    }
    strcpy(at, "'");
    return out;
}

char *kithi_kithd_command(const struct kithi_doctor *d)
{
    char *run = kithi_quote(d->opts.run_dir), *data = kithi_quote(d->data ? d->data : "/var/lib/kith"), *out;
    KITHI_ASSERT(asprintf(&out, "kithd --data %s --run %s", data, run) >= 0);
    free(data);
    free(run);
    return out;
}

/* ---- shared facts ---------------------------------------------------------------------- */

bool kithi_doctor_kernel_is(const struct kithi_doctor *d, unsigned major, unsigned minor)
{
    return d->major > major || (d->major == major && d->minor >= minor);
}

const char *kithi_doctor_whose(const struct kithi_doctor *d)
{
    return d->proc_kithd ? "kithd" : "this process";
}

void kithi_doctor_look(struct kithi_doctor *d)
{
    char *text = NULL, path[64];
    d->major = d->minor = 0;
    if (kithi_sysfile_read(d->root, "/proc/sys/kernel/osrelease", &text) == 0 &&
        sscanf(text, "%u.%u", &d->major, &d->minor) != 2)
        d->major = d->minor = 0;
    free(text);

    bool pod = kithi_sysfile_exists(d->root, "/run/secrets/kubernetes.io") ||
               kithi_sysfile_exists(d->root, "/var/run/secrets/kubernetes.io");
    bool plain =
        kithi_sysfile_exists(d->root, "/.dockerenv") || kithi_sysfile_exists(d->root, "/run/.containerenv");
    d->container = pod ? KITHI_CONTAINER_POD : plain ? KITHI_CONTAINER_PLAIN : KITHI_CONTAINER_NONE;

    /* The kernel gives the number that kithd has here, or 0; where /proc is that of other processes, the name differs. */
    strcpy(d->proc, "/proc/self");
    d->proc_kithd = false;
    if (!d->asked.connected || d->asked.pid <= 0)
        return;
    snprintf(path, sizeof path, "/proc/%d/comm", (int)d->asked.pid);
    text = NULL;
    if (kithi_sysfile_read(d->root, path, &text) == 0 && strcmp(text, "kithd\n") == 0) {
        snprintf(d->proc, sizeof d->proc, "/proc/%d", (int)d->asked.pid);
        d->proc_kithd = true;
    }
    free(text);
}

void kithi_doctor_run(const struct kithi_doctor_opts *opts, kithi_doctor_sink *sink, void *arg)
{
    const char *root = secure_getenv("KITH_DOCTOR_ROOT");
    struct kithi_doctor d = { .opts = *opts, .root = root ? root : "", .data = opts->data_dir };
    kithi_asked_ask(&d.asked, opts->run_dir, &d.collections);
    d.look_status = kithi_seen_look(&d.collections, opts->run_dir);
    if (d.data == NULL && d.asked.data[0] != '\0') {
        d.data = d.asked.data;
        d.data_asked = true;
    }
    kithi_doctor_look(&d);
    for (size_t i = 0; i < sizeof CHECKS / sizeof *CHECKS; i++) {
        struct kithi_finding f = { 0 };
        CHECKS[i].check(&d, &f);
        f.check = CHECKS[i].name;
        sink(arg, &f);
        kithi_finding_free(&f);
    }
    free(d.collections.items);
}
