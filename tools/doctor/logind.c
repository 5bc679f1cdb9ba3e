/*
 * logind.c - see logind_priv.h.
 *
 * With RemoveIPC=yes, which is the default where a distribution does not change it, logind removes what a user owns below
 * /dev/shm when his last session ends, a run directory that kithd is using included. Users of the system are spared (uid up
 * to SYS_UID_MAX), and those that linger, whose sessions never end for logind.
 *
 * Configuration: the first logind.conf of the directories below, then all *.conf of their logind.conf.d in the order of
 * their names; of two with one name that of the directory named first counts.
 */
#include "tools/doctor/logind_priv.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/doctor/sysfile_priv.h"

#define DROP_INS_MAX        256u
#define SYS_UID_MAX_DEFAULT 999u

static const char *const DIRS[] = { "/etc/systemd", "/run/systemd", "/usr/local/lib/systemd",
                                    "/usr/lib/systemd" };
#define DIR_COUNT (sizeof DIRS / sizeof *DIRS)

static int parse_boolean(const char *text, size_t len)
{
    static const char *const YES[] = { "1", "yes", "y", "true", "t", "on" };
    static const char *const NO[] = { "0", "no", "n", "false", "f", "off" };
    for (size_t i = 0; i < sizeof YES / sizeof *YES; i++) {
        if (strlen(YES[i]) == len && strncasecmp(text, YES[i], len) == 0)
            return 1;
        if (strlen(NO[i]) == len && strncasecmp(text, NO[i], len) == 0)
            return 0;
    }
    return -1;
}

int kithi_logind_parse(const char *text)
{
    static const char KEY[] = "RemoveIPC", BLANK[] = " \t\r";
    bool login = false;
    int value = -1;
    for (const char *line = text, *next; *line != '\0'; line = next) {
        next = line + strcspn(line, "\n");
        const char *end = next;
        next += *next == '\n';
        while (end > line && strchr(BLANK, end[-1]) != NULL)
            end--;
        while (line < end && strchr(BLANK, *line) != NULL)
            line++;
        if (line == end || *line == '#' || *line == ';')
            continue;
        if (*line == '[') {
            login = end - line == 7 && strncmp(line, "[Login]", 7) == 0;
            continue;
        }
        if (!login || strncmp(line, KEY, strlen(KEY)) != 0)
            continue;
        line += strlen(KEY);
        while (line < end && strchr(BLANK, *line) != NULL)
            line++;
        if (line == end || *line++ != '=')
            continue;
        while (line < end && strchr(BLANK, *line) != NULL)
            line++;
        int said = parse_boolean(line, (size_t)(end - line));
        value = said >= 0 ? said : value;
    }
    return value;
}

static bool take_file(const struct kithi_doctor *d, const char *path, struct kithi_logind *out)
{
    char *text;
    if (kithi_sysfile_read(d->root, path, &text) != 0)
        return false;
    int said = kithi_logind_parse(text);
    free(text);
    if (said >= 0) {
        out->remove_ipc = said == 1;
        snprintf(out->where, sizeof out->where, "%s", path);
    }
    return true;
}

struct drop_in {
    char name[256];
    unsigned dir;
};

static int by_name(const void *a, const void *b)
{
    const struct drop_in *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : (int)x->dir - (int)y->dir;
}

static void take_drop_ins(const struct kithi_doctor *d, struct kithi_logind *out)
{
    struct drop_in *found = calloc(DROP_INS_MAX, sizeof *found);
    size_t n = 0;
    char path[4096];
    for (unsigned i = 0; found != NULL && i < DIR_COUNT; i++) {
        snprintf(path, sizeof path, "%s%s/logind.conf.d", d->root, DIRS[i]);
        DIR *dir = opendir(path);
        if (dir == NULL)
            continue;
        for (struct dirent *e; n < DROP_INS_MAX && (e = readdir(dir)) != NULL;) {
            size_t len = strlen(e->d_name);
            if (e->d_name[0] == '.' || len < 5 || strcmp(e->d_name + len - 5, ".conf") != 0)
                continue;
            memcpy(found[n].name, e->d_name, len + 1);
            found[n++].dir = i;
        }
        closedir(dir);
    }
    if (n > 1)
        qsort(found, n, sizeof *found, by_name);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && strcmp(found[i].name, found[i - 1].name) == 0)
            continue; /* hidden by the one before, even if that is empty or a link to /dev/null */
        snprintf(path, sizeof path, "%s/logind.conf.d/%s", DIRS[found[i].dir], found[i].name);
        take_file(d, path, out);
    }
    free(found);
}

void kithi_logind_look(const struct kithi_doctor *d, struct kithi_logind *out)
{
    char path[64], *text;
    memset(out, 0, sizeof *out);
    out->remove_ipc = true;
    out->running = kithi_sysfile_exists(d->root, "/run/systemd/seats");
    for (unsigned i = 0; i < DIR_COUNT; i++) {
        snprintf(path, sizeof path, "%s/logind.conf", DIRS[i]);
        if (take_file(d, path, out))
            break;
    }
    take_drop_ins(d, out);
    out->sys_uid_max = SYS_UID_MAX_DEFAULT;
    if (kithi_sysfile_read(d->root, "/etc/login.defs", &text) == 0) {
        kithi_sysfile_value(text, "SYS_UID_MAX", &out->sys_uid_max);
        free(text);
    }
}

void kithi_logind_judge(const struct kithi_doctor *d, const struct kithi_logind *l, const char *run_real,
                        uid_t owner, struct kithi_finding *f)
{
    static const char SHM[] = "/dev/shm/";
    char user[KITHI_NAME_TEXT_SIZE], linger[128];
    const char *where = l->where[0] != '\0' ? l->where : "no file says otherwise";
    bool named = kithi_sysfile_user(d->root, owner, user);
    snprintf(linger, sizeof linger, "/var/lib/systemd/linger/%s", user);
    if (strncmp(run_real, SHM, strlen(SHM)) != 0) {
        kithi_finding_set(f, KITHI_DOCTOR_OK,
                          "the run directory is not below /dev/shm, where logind removes files");
    } else if (!l->running) {
        kithi_finding_set(f, KITHI_DOCTOR_OK, "no logind runs here that would remove files from /dev/shm");
    } else if (!l->remove_ipc) {
        kithi_finding_set(f, KITHI_DOCTOR_OK, "logind leaves files in /dev/shm alone (RemoveIPC=no, %s)",
                          where);
    } else if (owner <= l->sys_uid_max) {
        kithi_finding_set(
            f, KITHI_DOCTOR_OK,
            "logind removes files of users from /dev/shm (RemoveIPC=yes, %s), not those of the system's user "
            "%s (%u, up to %llu)",
            where, user, (unsigned)owner, (unsigned long long)l->sys_uid_max);
    } else if (named && kithi_sysfile_exists(d->root, linger)) {
        kithi_finding_set(
            f, KITHI_DOCTOR_OK,
            "logind removes files of users from /dev/shm (RemoveIPC=yes, %s), not those of user %s, who "
            "lingers",
            where, user);
    } else {
        kithi_finding_set(
            f, KITHI_DOCTOR_BAD,
            "when user %s (%u, above %llu) logs out, logind removes his files from /dev/shm, segments and "
            "socket of a running kithd, too (RemoveIPC=yes, %s)",
            user, (unsigned)owner, (unsigned long long)l->sys_uid_max, where);
        kithi_finding_fix(f, "loginctl enable-linger %s", user);
    }
}

void kithi_check_ipc(const struct kithi_doctor *d, struct kithi_finding *f)
{
    struct kithi_logind l;
    struct stat st;
    char *real = realpath(d->opts.run_dir, NULL);
    /* A directory that is still to be made will belong to whoever starts kithd. */
    uid_t owner = stat(d->opts.run_dir, &st) == 0 ? st.st_uid : geteuid();
    kithi_logind_look(d, &l);
    kithi_logind_judge(d, &l, real != NULL ? real : d->opts.run_dir, owner, f);
    free(real);
}
