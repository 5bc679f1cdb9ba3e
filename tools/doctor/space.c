/*
 * space.c - see space_priv.h.
 */
#include "tools/doctor/space_priv.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "server/base/needs.h"
#include "tools/out.h"

#define MIB (UINT64_C(1) << 20)

/* Of log files that fit on the disk: below, a warning. At the rate at which a log can be written, that is a minute. */
#define LOG_FILES_FEW 16u

/* The highest directory above dir that is on the same file system; dir has no links. */
static void find_point(const char *dir, char point[4096])
{
    struct stat st, up;
    snprintf(point, 4096, "%s", dir);
    if (stat(dir, &st) < 0)
        return;
    for (char *slash; (slash = strrchr(point, '/')) != NULL && point[1] != '\0';) {
        char last = slash == point ? slash[1] : slash[0];
        char *cut = slash == point ? slash + 1 : slash;
        *cut = '\0';
        if (stat(point, &up) < 0 || up.st_dev != st.st_dev) {
            *cut = last;
            return;
        }
    }
}

int kithi_space_of(const char *dir, struct kithi_space *out)
{
    struct statvfs v;
    struct statfs s;
    memset(out, 0, sizeof *out);
    if (statvfs(dir, &v) < 0 || statfs(dir, &s) < 0)
        return -errno;
    char *real = realpath(dir, NULL);
    find_point(real != NULL ? real : dir, out->point);
    free(real);
    out->size = (uint64_t)v.f_blocks * v.f_frsize;
    out->left = (uint64_t)v.f_bavail * v.f_frsize;
    out->inodes = v.f_files;
    out->inodes_left = v.f_favail;
    out->tmpfs = s.f_type == TMPFS_MAGIC;
    out->read_only = (v.f_flag & ST_RDONLY) != 0;
    return 0;
}

/* As mount and containers take it: whole GiB, or MiB of less than 8 GiB. */
static uint64_t round_size(uint64_t bytes, char *unit)
{
    bool giga = bytes >= 8 * 1024 * MIB;
    uint64_t of = giga ? 1024 * MIB : MIB;
    *unit = giga ? 'g' : 'm';
    return (bytes + of - 1) / of;
}

void kithi_space_fix_tmpfs(const struct kithi_doctor *d, const struct kithi_space *s, uint64_t bytes,
                           struct kithi_finding *f)
{
    char unit;
    unsigned long long n = round_size(bytes, &unit);
    char *point = kithi_quote(s->point);
    if (d->container == KITHI_CONTAINER_POD)
        kithi_finding_fix(f, "emptyDir: { medium: Memory, sizeLimit: %llu%s }", n, unit == 'g' ? "Gi" : "Mi");
    else if (d->container == KITHI_CONTAINER_PLAIN && strcmp(s->point, "/dev/shm") == 0)
        kithi_finding_fix(f, "--shm-size=%llu%c", n, unit);
    else if (d->container == KITHI_CONTAINER_PLAIN)
        kithi_finding_fix(f, "--tmpfs %s:size=%llu%c", point, n, unit);
    else
        kithi_finding_fix(f, "mount -o remount,size=%llu%c %s", n, unit, point);
    free(point);
}

void kithi_space_judge_run(const struct kithi_doctor *d, const struct kithi_space *s, struct kithi_finding *f)
{
    char size[KITHI_OUT_TEXT_SIZE], left[KITHI_OUT_TEXT_SIZE], reserve_text[KITHI_OUT_TEXT_SIZE];
    uint64_t reserve = kithi_need_reserve(s->size);
    kithi_out_bytes(size, s->size);
    kithi_out_bytes(left, s->left);
    kithi_out_bytes(reserve_text, reserve);
    if (!s->tmpfs) {
        char *run = kithi_quote(d->opts.run_dir);
        kithi_finding_set(
            f, KITHI_DOCTOR_WARN,
            "the run directory is not on a tmpfs: the kernel writes segments to the disk of %s, "
            "which wears it out and makes writers wait (%s, %s free)",
            s->point, size, left);
        kithi_finding_fix(f, "mount -t tmpfs -o size=50%%,mode=0750 tmpfs %s", run);
        free(run);
        return;
    }
    if (s->size == 0) {
        kithi_finding_set(
            f, KITHI_DOCTOR_WARN,
            "the tmpfs at %s has no size: what ends its growth is the OOM killer, where a full tmpfs "
            "would be a clean answer to the writer",
            s->point);
        kithi_space_fix_tmpfs(d, s, 4096 * MIB, f);
        return;
    }
    if (s->left < reserve)
        kithi_finding_set(f, KITHI_DOCTOR_BAD,
                          "the tmpfs at %s is full: %s of %s free, and kithd leaves %s free for readers and "
                          "others; it refuses writes that need memory",
                          s->point, left, size, reserve_text);
    else if (s->inodes > 0 && s->inodes_left == 0)
        kithi_finding_set(f, KITHI_DOCTOR_BAD,
                          "the tmpfs at %s has no inodes left (of %llu): no segment can be made", s->point,
                          (unsigned long long)s->inodes);
    else if (s->left < s->size / 10 || s->left < reserve + KITHI_NEED_STEP)
        kithi_finding_set(f, KITHI_DOCTOR_WARN,
                          "the tmpfs at %s is nearly full: %s of %s free, of which kithd leaves %s", s->point,
                          left, size, reserve_text);
    else
        kithi_finding_set(f, KITHI_DOCTOR_OK, "the tmpfs at %s has %s of %s free, of which kithd leaves %s",
                          s->point, left, size, reserve_text);
    if (f->state == KITHI_DOCTOR_OK)
        return;
    if (s->left >= reserve && s->inodes > 0 && s->inodes_left == 0) {
        char *point = kithi_quote(s->point);
        kithi_finding_fix(f, "mount -o remount,nr_inodes=%llu %s", (unsigned long long)s->inodes * 2, point);
        free(point);
        return;
    }
    uint64_t more = s->size * 2;
    kithi_space_fix_tmpfs(d, s, more < 256 * MIB ? 256 * MIB : more, f);
}

void kithi_space_judge_data(const struct kithi_doctor *d, const struct kithi_space *s,
                            struct kithi_finding *f)
{
    char size[KITHI_OUT_TEXT_SIZE], left[KITHI_OUT_TEXT_SIZE], need[KITHI_OUT_TEXT_SIZE];
    char *data = kithi_quote(d->data);
    kithi_out_bytes(size, s->size);
    kithi_out_bytes(left, s->left);
    kithi_out_bytes(need, KITHI_NEED_LOG_FILE);
    if (s->tmpfs) {
        kithi_finding_set(
            f, KITHI_DOCTOR_WARN,
            "the data directory is on a tmpfs (%s): nothing in it outlives a reboot, and it takes "
            "memory (%s of %s free)",
            s->point, left, size);
        kithi_finding_fix(f, "kithd --data /var/lib/kith");
    } else if (s->left < KITHI_NEED_LOG_FILE || (s->inodes > 0 && s->inodes_left == 0)) {
        kithi_finding_set(
            f, KITHI_DOCTOR_BAD,
            "the disk of the data directory (%s) is full: %s of %s and %llu inodes free, and the next "
            "file of a log takes %s",
            s->point, left, size, (unsigned long long)s->inodes_left, need);
    } else if (s->left < (uint64_t)KITHI_NEED_LOG_FILE * LOG_FILES_FEW) {
        kithi_finding_set(
            f, KITHI_DOCTOR_WARN,
            "the disk of the data directory (%s) is nearly full: %s of %s free, and each file of a "
            "log takes %s",
            s->point, left, size, need);
    } else {
        kithi_finding_set(f, KITHI_DOCTOR_OK, "the disk of the data directory (%s) has %s of %s free",
                          s->point, left, size);
    }
    if (f->state != KITHI_DOCTOR_OK &&
        f->fix == NULL) /* which collection takes it, with its log and checkpoints */
        kithi_finding_fix(f, "du -sm %s/* | sort -n", data);
    free(data);
}
