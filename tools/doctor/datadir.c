/*
 * datadir.c - the data directory: where it is, whose it is, how much room its disk has, whether that takes O_DIRECT.
 *
 * It may be shut to everybody but kithd (0700), or in another container: then much stays unknown, which is no fault.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/doctor/dir_priv.h"
#include "tools/doctor/space_priv.h"

#define WHAT "data directory"

/* How to come to know it. */
static void not_known(const struct kithi_doctor *d, struct kithi_finding *f)
{
    kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN,
                      d->asked.status != 0 || d->collections.count == 0
                          ? "where the data directory is, kithd tells with its collections; name it by --data"
                          : "kithd does not tell an absolute path of its data directory; name it by --data");
}

/* What kithd told may be a path that it alone can see, and any may be shut to this user. */
static bool is_visible(const struct kithi_doctor *d, struct kithi_finding *f)
{
    struct stat st;
    if (d->data == NULL) {
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN, "the data directory is not known");
        return false;
    }
    if (stat(d->data, &st) == 0 || (!d->data_asked && errno != EACCES))
        return true;
    kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN, "the data directory %s cannot be seen from here: %s", d->data,
                      strerror(errno));
    return false;
}

void kithi_check_data_dir(const struct kithi_doctor *d, struct kithi_finding *f)
{
    const char *rule = d->data_asked ? "kithd says so" : "from --data";
    if (d->data == NULL)
        not_known(d, f);
    else if (is_visible(d, f) && kithi_dir_there(d, WHAT, d->data, rule, f))
        kithi_finding_set(f, KITHI_DOCTOR_OK, "the data directory is %s (%s)", d->data, rule);
}

void kithi_check_data_rights(const struct kithi_doctor *d, struct kithi_finding *f)
{
    struct stat st;
    if (is_visible(d, f))
        kithi_dir_owned(d, WHAT, d->data, f, &st);
}

void kithi_check_data_space(const struct kithi_doctor *d, struct kithi_finding *f)
{
    struct kithi_space s;
    if (!is_visible(d, f))
        return;
    int rc = kithi_space_of(d->data, &s);
    if (rc != 0)
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN, "the room of the data directory cannot be looked at: %s",
                          strerror(-rc));
    else
        kithi_space_judge_data(d, &s, f);
}

/* Can a file be opened with O_DIRECT? 1, 0, or -errno when that cannot be told. Nothing waits: it is a regular file, or left
 * alone. */
static int opens_direct(int dir, const char *name)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    int fd = openat(dir, name, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == EINVAL ? 0 : -errno;
    close(fd);
    return 1;
}

/* The first file of the directory, or of a collection in it, that tells. As opens_direct(). */
static int takes_direct(const char *data)
{
    int rc = -ENOENT, fd = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        return -ENOMEM;
    }
    for (struct dirent *e; rc < 0 && (e = readdir(dir)) != NULL;) {
        char conf[sizeof e->d_name + 32];
        int one = opens_direct(fd, e->d_name);
        if (one == -EINVAL && e->d_name[0] != '.') {
            snprintf(conf, sizeof conf, "%s/collection.conf", e->d_name);
            one = opens_direct(fd, conf);
        }
        if (one >= 0 || one == -EACCES)
            rc = one;
    }
    closedir(dir);
    return rc;
}

void kithi_check_data_direct(const struct kithi_doctor *d, struct kithi_finding *f)
{
    static const char CANNOT[] = "%s: the log goes through the page cache, which is slower and takes memory";
    static const char FIX[] = "findmnt -t ext4,xfs,btrfs -o TARGET,AVAIL";
    if (d->asked.direct != KITHI_YES_UNKNOWN) {
        bool yes = d->asked.direct == KITHI_YES;
        if (yes)
            kithi_finding_set(f, KITHI_DOCTOR_OK, "kithd writes its log with O_DIRECT");
        else {
            kithi_finding_set(f, KITHI_DOCTOR_WARN, CANNOT, "kithd does without O_DIRECT");
            kithi_finding_fix(f, FIX);
        }
        return;
    }
    if (!is_visible(d, f))
        return;
    int rc = takes_direct(d->data);
    if (rc == 1) {
        kithi_finding_set(f, KITHI_DOCTOR_OK, "files of the data directory can be opened with O_DIRECT");
    } else if (rc == 0) {
        kithi_finding_set(f, KITHI_DOCTOR_WARN, CANNOT,
                          "the file system of the data directory takes no O_DIRECT");
        kithi_finding_fix(f, FIX);
    } else {
        kithi_finding_set(f, KITHI_DOCTOR_UNKNOWN,
                          "whether the data directory takes O_DIRECT is tried on a file that is there: %s",
                          rc == -ENOENT ? "there is none" : strerror(-rc));
    }
}
