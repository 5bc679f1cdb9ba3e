/*
 * space.c - memory of the segment: taking it ahead of use, in small steps while small.
 *
 * fallocate on tmpfs either takes the pages or says no; a store into a hole would be SIGBUS.
 * So nothing is touched before it is taken, and `taken` is published only afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "server/base/cgroup.h"
#include "server/base/needs.h"
#include "server/index/index_priv.h"
#include "shm/base/bytes.h"

#define STEP_MIN (16u << 10)
#define STEP_MAX KITHI_NEED_STEP
#define PLENTY   4u /* steps of every region, without which nothing is filled ahead */

/* Over a cgroup's limit fallocate does not fail, it ends in an OOM kill: so look before. */
bool kithi_space_in_limit(uint64_t bytes)
{
    return bytes <= kithi_cgroup_left("");
}

uint64_t kithi_space_step(uint64_t taken)
{
    uint64_t step = taken / 8;
    return step < STEP_MIN ? STEP_MIN : step > STEP_MAX ? STEP_MAX : step;
}

bool kithi_space_is_plenty(const struct kithi_index *ix)
{
    struct statvfs fs;
    const uint64_t plenty = (uint64_t)STEP_MAX * KITHI_REGION_COUNT * PLENTY;
    return fstatvfs(ix->fd, &fs) == 0 &&
           (fs.f_blocks == 0 || (uint64_t)fs.f_bavail * fs.f_frsize >= plenty) &&
           kithi_space_in_limit(plenty);
}

static int allocate(int fd, uint64_t off, uint64_t len)
{
    int rc;
    do {
        rc = fallocate(fd, 0, (off_t)off, (off_t)len);
    } while (rc < 0 && errno == EINTR); /* it undoes itself when interrupted */
    return rc < 0 ? -errno : 0;
}

/* Bytes that have no memory yet, if a region took so many. */
static uint64_t fresh(const struct kithi_index *ix, unsigned region, uint64_t want)
{
    uint64_t taken = ix->taken[region];
    return want - taken - kithi_pages_filled(ix, region, taken, want);
}

/* Bytes of the file system that are left for others. */
static uint64_t reserve_of(const struct statvfs *fs)
{
    return kithi_need_reserve((uint64_t)fs->f_blocks * fs->f_frsize);
}

int kithi_space_ask(const struct kithi_index *ix, uint64_t bytes, struct kithi_errmsg *err)
{
    struct statvfs fs;
    if (fstatvfs(ix->fd, &fs) == 0 && fs.f_blocks > 0) {
        uint64_t reserve = reserve_of(&fs), free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (free_bytes < bytes + reserve)
            return kithi_error_set(
                err, KITHI_E_NO_SPACE,
                "the run directory's file system has %llu KiB free and %llu KiB are needed for the collection "
                "(%llu KiB are kept in reserve); enlarge the tmpfs",
                (unsigned long long)free_bytes >> 10, (unsigned long long)bytes >> 10,
                (unsigned long long)reserve >> 10);
    }
    if (!kithi_space_in_limit(bytes))
        return kithi_error_set(
            err, KITHI_E_NO_SPACE,
            "the cgroup's memory limit leaves no room for %llu KiB of the collection; raise it",
            (unsigned long long)bytes >> 10);
    return 0;
}

int kithi_space_fill(const struct kithi_index *ix, uint64_t off, uint64_t len)
{
    return allocate(ix->fd, off, len);
}

int kithi_space_reserve(struct kithi_index *ix, unsigned region, uint64_t count, struct kithi_errmsg *err)
{
    const struct kithi_layout *l = &ix->map.layout;
    uint64_t need = count * l->unit[region], taken = ix->taken[region];
    if (need <= taken)
        return 0;
    if (need > l->size[region])
        return kithi_error_set(err, KITHI_E_FULL, "the region of %s is at its ceiling of %llu items",
                               kithi_region_name(region),
                               (unsigned long long)(l->size[region] / l->unit[region]));

    uint64_t step = kithi_space_step(taken);
    uint64_t want = kithi_round_up(need > taken + step ? need : taken + step, 4096);
    uint64_t ceiling = kithi_round_up(l->size[region], 4096);
    if (want > ceiling)
        want = ceiling;
    /* Ending with a block that a huge page can back, where that takes no more memory. */
    uint64_t whole = want / KITHI_REGION_ALIGN * KITHI_REGION_ALIGN;
    if (whole >= need)
        want = whole;

    struct statvfs fs;
    if (fstatvfs(ix->fd, &fs) == 0 && fs.f_blocks > 0) {
        uint64_t reserve = reserve_of(&fs), free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (free_bytes < fresh(ix, region, want) + reserve)
            want = kithi_round_up(need, 4096);
        if (free_bytes < fresh(ix, region, want) + reserve)
            return kithi_error_set(
                err, KITHI_E_NO_SPACE,
                "the run directory's file system has %llu KiB free and %llu KiB are needed for %s "
                "(%llu KiB are kept in reserve); enlarge the tmpfs or delete vectors",
                (unsigned long long)free_bytes >> 10, (unsigned long long)(want - taken) >> 10,
                kithi_region_name(region), (unsigned long long)reserve >> 10);
    }
    if (!kithi_space_in_limit(fresh(ix, region, want)))
        want = kithi_round_up(need, 4096);
    if (!kithi_space_in_limit(fresh(ix, region, want)))
        return kithi_error_set(
            err, KITHI_E_NO_SPACE,
            "the cgroup's memory limit leaves no room for %llu KiB of %s; raise it or delete vectors",
            (unsigned long long)(want - taken) >> 10, kithi_region_name(region));
    int rc = allocate(ix->fd, l->off[region] + taken, want - taken);
    if (rc < 0)
        return kithi_error_set(err, rc == -ENOSPC || rc == -ENOMEM ? KITHI_E_NO_SPACE : rc,
                               "cannot take %llu KiB for %s: %s", (unsigned long long)(want - taken) >> 10,
                               kithi_region_name(region), kithi_error_text(rc));
    if (want > l->size[region])
        want = l->size[region];
    ix->taken[region] = want;
    /* [P5 taken] release: the pages are there before the word says so. Other half: kithi_view_begin(). */
    atomic_store_explicit(&ix->header->taken[region], want, memory_order_release);
    return 0;
}
