/*
 * rundir.c - the run directory: where it is, whose it is, how much room it has.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/doctor/dir_priv.h"
#include "tools/doctor/space_priv.h"
#include "tools/doctor/sysfile_priv.h"

#define WHAT "run directory"

void kithi_check_run_dir(const struct kithi_doctor *d, struct kithi_finding *f)
{
    const char *run = d->opts.run_dir;
    const size_t room = sizeof((struct sockaddr_un *)0)->sun_path - sizeof "/kithd.sock";
    if (!kithi_dir_there(d, WHAT, run, d->opts.run_rule, f))
        return;
    if (strlen(run) > room) {
        kithi_finding_set(
            f, KITHI_DOCTOR_BAD,
            "the path of the run directory %s (%s) has %zu bytes, and the socket in it leaves room for "
            "%zu",
            run, d->opts.run_rule, strlen(run), room);
        kithi_finding_fix(f, "export KITH_RUN=/dev/shm/kith");
        return;
    }
    kithi_finding_set(f, KITHI_DOCTOR_OK, "the run directory is %s (%s)", run, d->opts.run_rule);
}

/* The caller has to enter the directory to reach segments and socket, and to read it to list collections by himself. */
static void judge_caller(const struct kithi_doctor *d, const struct stat *st, struct kithi_finding *f)
{
    const char *run = d->opts.run_dir;
    char me[KITHI_NAME_TEXT_SIZE], group[KITHI_NAME_TEXT_SIZE], mine[KITHI_NAME_TEXT_SIZE];
    bool enter = faccessat(AT_FDCWD, run, X_OK, AT_EACCESS) == 0;
    bool read = faccessat(AT_FDCWD, run, R_OK, AT_EACCESS) == 0;
    bool write = faccessat(AT_FDCWD, run, W_OK, AT_EACCESS) == 0;
    bool read_only = !write && errno == EROFS;
    kithi_sysfile_user(d->root, geteuid(), me);
    kithi_sysfile_group(d->root, st->st_gid, group);
    kithi_sysfile_group(d->root, getegid(), mine);
    if (enter && read) {
        kithi_finding_add(f, "; user %s may read it%s", me,
                          write       ? " and write to it"
                          : read_only ? ", here it is mounted read-only, which is enough for readers"
                                      : ", which is enough for readers");
        return;
    }
    bool admits = (st->st_mode & S_IXGRP) && (st->st_mode & S_IRGRP);
    kithi_finding_set(f, enter ? KITHI_DOCTOR_WARN : KITHI_DOCTOR_BAD,
                      "user %s may not %s the run directory (group %s, mode %04o): %s", me,
                      enter ? "read" : "enter", group, (unsigned)st->st_mode & 07777,
                      enter ? "collections can be opened, and not be listed without kithd"
                            : "neither segments nor the socket can be reached");
    /* Nobody should become a member of root's group for this. */
    if (admits && st->st_gid != 0) {
        kithi_finding_fix(f, "usermod -aG %s %s", group, me);
    } else {
        char *command = kithi_kithd_command(d);
        kithi_finding_fix(f, "%s --read-group %s", command, mine);
        free(command);
    }
}

void kithi_check_run_rights(const struct kithi_doctor *d, struct kithi_finding *f)
{
    struct stat st;
    if (kithi_dir_owned(d, WHAT, d->opts.run_dir, f, &st))
        judge_caller(d, &st, f);
}

void kithi_check_run_space(const struct kithi_doctor *d, struct kithi_finding *f)
{
    struct kithi_space s;
    int rc = kithi_space_of(d->opts.run_dir, &s);
    if (rc != 0)
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN, "the room of the run directory cannot be looked at: %s",
                          strerror(-rc));
    else
        kithi_space_judge_run(d, &s, f);
}
