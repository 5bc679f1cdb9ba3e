/*
 * rundir.c - see rundir_priv.h.
 *
 * Whoever may write to a mapped file may truncate it, which is a SIGBUS for its readers. So a
 * reader stays away from a directory in which anybody could have put the file.
 */
#include "client/src/rundir_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const defaults[] = { "/dev/shm/kith", "/run/kith" };

int kithi_path_join(const char *dir, const char *a, const char *b, char **out)
{
    size_t size = strlen(dir) + strlen(a) + (b ? strlen(b) : 0) + 3;
    char *path = malloc(size);
    if (!path)
        return -ENOMEM;
    snprintf(path, size, "%s/%s%s%s", dir, a, b ? "/" : "", b ? b : "");
    *out = path;
    return 0;
}

const char *kithi_run_dir(const char *given)
{
    if (given && *given)
        return given;
    const char *env = secure_getenv("KITH_RUN");
    if (env && *env)
        return env;
    struct stat st;
    if (lstat(defaults[0], &st) < 0 && lstat(defaults[1], &st) == 0)
        return defaults[1];
    return defaults[0];
}

int kithi_run_dir_check(const char *dir, struct kithi_errmsg *err)
{
    struct stat st;
    if (lstat(dir, &st) < 0) {
        if (errno == ENOENT)
            return kithi_error_set(
                err, KITHI_E_RUN_DIR,
                "there is no run directory %s; start kithd, or name the directory by --run or "
                "KITH_RUN",
                dir);
        return kithi_error_set(err, KITHI_E_RUN_DIR, "cannot use the run directory %s: %s", dir,
                               kithi_error_text(-errno));
    }
    if (S_ISLNK(st.st_mode)) {
        if (st.st_uid != 0 && st.st_uid != geteuid())
            return kithi_error_set(
                err, KITHI_E_RUN_DIR,
                "the run directory %s is a symbolic link of user %u; name the directory itself", dir,
                (unsigned)st.st_uid);
        if (stat(dir, &st) < 0)
            return kithi_error_set(err, KITHI_E_RUN_DIR,
                                   "the run directory %s is a link that leads nowhere: %s", dir,
                                   kithi_error_text(-errno));
    }
    if (!S_ISDIR(st.st_mode))
        return kithi_error_set(err, KITHI_E_RUN_DIR, "the run directory %s is not a directory", dir);
    if (st.st_mode & S_IWOTH)
        return kithi_error_set(
            err, KITHI_E_RUN_DIR,
            "everybody may write to the run directory %s; its owner must take that away (chmod o-w)", dir);
    return 0;
}
