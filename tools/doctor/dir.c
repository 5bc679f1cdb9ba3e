/*
 * dir.c - see dir_priv.h. What kithd demands is written in server/writer/dirs.c.
 */
#include "tools/doctor/dir_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/base/assert.h"
#include "tools/doctor/sysfile_priv.h"

/* The directory that path is in; malloc'ed. */
static char *parent_of(const char *path)
{
    char *up = strdup(path);
    KITHI_ASSERT(up != NULL);
    for (size_t len = strlen(up); len > 1 && up[len - 1] == '/'; len--)
        up[len - 1] = '\0';
    char *slash = strrchr(up, '/');
    if (slash == NULL)
        return strcpy(up, *up != '\0' ? "." : "");
    slash[slash == up] = '\0';
    return up;
}

/* The first directory above path that may not be entered; malloc'ed. */
static char *shut_above(const char *path)
{
    char *up = strdup(path);
    KITHI_ASSERT(up != NULL);
    for (char *slash = up; (slash = strchr(slash + 1, '/')) != NULL;) {
        *slash = '\0';
        if (faccessat(AT_FDCWD, up, X_OK, AT_EACCESS) < 0)
            return up;
        *slash = '/';
    }
    return up;
}

static void not_there(const struct kithi_doctor *d, const char *what, const char *path, const char *rule,
                      struct kithi_finding *f)
{
    struct stat st;
    char *parent = parent_of(path);
    if (stat(parent, &st) == 0) {
        char *command = kithi_kithd_command(d);
        kithi_finding_set(f, KITHI_DOCTOR_BAD, "there is no %s %s (%s); kithd makes it when it starts", what,
                          path, rule);
        kithi_finding_fix(f, "%s", command);
        free(command);
    } else { /* which kithd does not make */
        char *quoted = kithi_quote(parent);
        kithi_finding_set(f, KITHI_DOCTOR_BAD,
                          "there is no %s %s (%s), and no directory %s for kithd to make it in", what, path,
                          rule, parent);
        kithi_finding_fix(f, "mkdir -p %s", quoted);
        free(quoted);
    }
    free(parent);
}

bool kithi_dir_there(const struct kithi_doctor *d, const char *what, const char *path, const char *rule,
                     struct kithi_finding *f)
{
    struct stat st;
    if (lstat(path, &st) < 0 && errno == EACCES) {
        char *shut = shut_above(path), *quoted = kithi_quote(shut);
        kithi_finding_set(f, KITHI_DOCTOR_BAD, "the %s %s (%s) cannot be reached: user %u may not enter %s",
                          what, path, rule, (unsigned)geteuid(), shut);
        kithi_finding_fix(f, "chmod a+x %s", quoted);
        free(quoted);
        free(shut);
        return false;
    }
    if (lstat(path, &st) < 0 && errno == ENOENT) {
        not_there(d, what, path, rule, f);
        return false;
    }
    if (lstat(path, &st) < 0) {
        kithi_finding_set(f, KITHI_DOCTOR_BAD, "the %s %s (%s) cannot be looked at: %s", what, path, rule,
                          strerror(errno));
        return false;
    }
    char *quoted = kithi_quote(path), *real = realpath(path, NULL);
    if (S_ISLNK(st.st_mode)) {
        char *target = kithi_quote(real != NULL ? real : path);
        kithi_finding_set(
            f, real == NULL || !d->asked.connected ? KITHI_DOCTOR_BAD : KITHI_DOCTOR_WARN,
            "the %s %s (%s) is a symbolic link%s%s; kithd does not start on one, which somebody else "
            "may turn elsewhere",
            what, path, rule, real != NULL ? " to " : " that leads nowhere", real != NULL ? real : "");
        if (real != NULL)
            kithi_finding_fix(f, "%s%s", path == d->data ? "kithd --data " : "export KITH_RUN=", target);
        else
            kithi_finding_fix(f, "rm %s", quoted);
        free(target);
    } else if (!S_ISDIR(st.st_mode)) {
        kithi_finding_set(f, KITHI_DOCTOR_BAD, "the %s %s (%s) is not a directory", what, path, rule);
        kithi_finding_fix(f, "mv %s %s.aside", quoted, quoted);
    }
    free(real);
    free(quoted);
    return f->text == NULL;
}

bool kithi_dir_owned(const struct kithi_doctor *d, const char *what, const char *path,
                     struct kithi_finding *f, struct stat *out)
{
    char user[KITHI_NAME_TEXT_SIZE], group[KITHI_NAME_TEXT_SIZE], daemon[KITHI_NAME_TEXT_SIZE];
    if (stat(path, out) < 0) {
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN, "owner and mode of the %s %s cannot be looked at: %s",
                          what, path, strerror(errno));
        return false;
    }
    unsigned mode = (unsigned)out->st_mode & 07777;
    char *quoted = kithi_quote(path);
    kithi_sysfile_user(d->root, out->st_uid, user);
    kithi_sysfile_group(d->root, out->st_gid, group);
    kithi_sysfile_user(d->root, d->asked.uid, daemon);
    kithi_finding_set(f, KITHI_DOCTOR_OK, "the %s belongs to user %s and group %s, mode %04o", what, user,
                      group, mode);
    /* Where a daemon runs it has taken the directory, whatever was done to it since. */
    if (d->asked.connected && d->asked.uid != out->st_uid) {
        kithi_finding_set(f, KITHI_DOCTOR_BAD,
                          "the %s belongs to user %s, and kithd runs as user %s: it will not start again",
                          what, user, daemon);
        kithi_finding_fix(f, "chown %s %s", daemon, quoted);
    } else if (mode & (S_IWGRP | S_IWOTH)) {
        kithi_finding_set(
            f, KITHI_DOCTOR_BAD, "the %s (mode %04o) can be written by others than its owner %s: %s", what,
            mode, user,
            mode & S_IWOTH ? "kithd does not start, and readers refuse a run directory like that"
                           : "kithd does not start");
        kithi_finding_fix(f, "chmod go-w %s", quoted);
    } else if (!d->asked.connected) {
        kithi_finding_add(f, "; kithd has to run as user %s", user);
    }
    free(quoted);
    return f->state != KITHI_DOCTOR_BAD;
}
