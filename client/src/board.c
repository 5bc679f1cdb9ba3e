/*
 * board.c - see board_priv.h.
 *
 * Taking a place, and what keeps others from taking it for a dead reader's:
 *
 *     open(NNN, O_CREAT | O_EXCL, 0600) --> flock --> memory, map, header --> fchmod 0444 --> magic --> still linked?
 *              | taken: next name            | somebody looks at it:                                     | no: next
 *              v                             v next name                                                 v name
 *
 * A file whose lock is free belongs to a dead reader. kithd adds what it counted to its sums and removes it, every
 * KITHI_BOARD_LOOK_MS at most. Where all names are taken, as in the long absence of kithd, a reader
 * removes dead ones of its own user.
 */
#include "client/src/board_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "client/src/handle_priv.h"
#include "client/src/rundir_priv.h"
#include "shm/base/reserve.h"

/* statfs(2): f_flags has it, by the kernel's interface; the C library's name for it is in sys/statvfs.h. */
#define MOUNT_READ_ONLY 1

/* A clock that takes longer makes system calls, which searches do not. The vDSO's takes 15 to 50 ns. */
#define CLOCK_NS_MAX UINT64_C(150)
#define CLOCK_TRIES  8u

/* Inodes that stay free: kithd needs some for what it builds. */
#define INODES_LEFT 16u

/* Pages are not larger, but huge ones. */
#define BLOCK_MAX (64u << 10)

/* CPUs that share a lane. Two threads that add to one cache line at the same time cost each other some 100 ns. */
#define CPUS_A_LANE 4u

static uint32_t lanes_wanted(void)
{
    cpu_set_t set;
    uint32_t cpus = sched_getaffinity(0, sizeof set, &set) < 0 ? CPU_SETSIZE : (uint32_t)CPU_COUNT(&set);
    uint32_t lanes = (cpus + CPUS_A_LANE - 1) / CPUS_A_LANE;
    return lanes < 1 ? 1 : lanes > KITHI_BOARD_LANE_MAX ? KITHI_BOARD_LANE_MAX : lanes;
}

static bool clock_is_cheap(void)
{
    uint64_t least = UINT64_MAX, before = kithi_now_ns();
    for (uint32_t i = 0; i < CLOCK_TRIES; i++) {
        uint64_t now = kithi_now_ns();
        least = now - before < least ? now - before : least;
        before = now;
    }
    return least <= CLOCK_NS_MAX;
}

/*
 * May there be a board? On a tmpfs only: pages of a disk's file would be written back, and a search that stores to such
 * a page waits for that. kithd's reserve stays free.
 */
static bool has_room(int dir, size_t len)
{
    struct statfs fs;
    if (fstatfs(dir, &fs) < 0 || fs.f_type != TMPFS_MAGIC || (fs.f_flags & MOUNT_READ_ONLY))
        return false;
    uint64_t unit = (uint64_t)fs.f_bsize, all = (uint64_t)fs.f_blocks * unit;
    bool inodes = fs.f_files == 0 || fs.f_ffree > INODES_LEFT;
    /* A tmpfs without a limit tells 0 blocks. */
    return inodes && (all == 0 || (uint64_t)fs.f_bavail * unit >= kithi_reserve_bytes(all) + len);
}

/* On a tmpfs that is mounted with huge=always each board takes a huge page, and is not worth that. */
static bool is_huge(const struct stat *st, size_t len)
{
    return (uint64_t)st->st_blocks * 512 > len + BLOCK_MAX;
}

/* The board's bytes, but for its magic. */
static void fill(struct kithi_board *b, const uint8_t uid[16])
{
    struct kithi_board_header *h = (struct kithi_board_header *)(void *)b->base;
    struct timespec t;
    char program[16] = ""; /* as the kernel has it: 15 bytes and a NUL */
    clock_gettime(CLOCK_REALTIME, &t);
    if (prctl(PR_GET_NAME, program) < 0)
        program[0] = '\0';
    h->version = KITHI_BOARD_VERSION;
    h->lane_count = b->lane_count;
    memcpy(h->uid, uid, sizeof h->uid);
    h->opened_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    h->pid = b->pid;
    h->timed = b->timed;
    memcpy(h->program, program, sizeof h->program);
}

/*
 * Make a board of the new file fd and map it. False: not this one, and *out_again whether another name may do.
 */
static bool make(struct kithi_board *b, int dir, const char *name, int fd, const uint8_t uid[16],
                 bool *out_again)
{
    struct stat st;
    void *p = MAP_FAILED;
    *out_again = true;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return false; /* whoever looks at it takes it for a dead one, and removes it */
    *out_again = false;
    /* Memory first: a hole could turn out to have none. */
    if (fallocate(fd, 0, 0, (off_t)b->len) < 0)
        goto bad;
    p = mmap(NULL, b->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED)
        goto bad;
    b->base = p;
    fill(b, uid);
    /* From now on not even its owner opens it for writing by mistake. */
    if (fchmod(fd, 0444) < 0 || fstat(fd, &st) < 0 || is_huge(&st, b->len))
        goto bad;
    if (st.st_nlink == 0) { /* somebody looked before it was locked */
        *out_again = true;
        goto bad;
    }
    madvise(p, b->len, MADV_DONTDUMP);
    b->dev = st.st_dev;
    b->ino = st.st_ino;
    struct kithi_board_header *h = (struct kithi_board_header *)(void *)b->base;
    /* [P13 board] release: the header is whole for whoever sees the magic. */
    atomic_store_explicit(&h->magic, KITHI_BOARD_MAGIC, memory_order_release);
    return true;
bad:
    if (p != MAP_FAILED)
        munmap(p, b->len);
    b->base = NULL;
    if (!*out_again)
        unlinkat(dir, name, 0);
    return false;
}

/* Remove boards of dead readers of this user. True when there was one. */
static bool reclaim(int dir)
{
    bool any = false;
    for (uint32_t slot = 0; slot < KITHI_BOARD_SLOTS; slot++) {
        char name[KITHI_BOARD_NAME];
        struct stat st;
        kithi_board_name(slot, name);
        if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) ||
            st.st_uid != geteuid())
            continue;
        int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        /* Under the lock, so that it stays dead. */
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 && unlinkat(dir, name, 0) == 0)
            any = true;
        close(fd);
    }
    return any;
}

/* One pass over all names, from a random one on. Returns false when all are taken. */
static bool take_name(struct kithi_board *b, int dir, const char *dir_path, const uint8_t uid[16])
{
    uint64_t random = (kithi_now_ns() ^ (uint64_t)b->pid << 32) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t first = (uint32_t)(random >> 40);
    for (uint32_t i = 0; i < KITHI_BOARD_SLOTS; i++) {
        char name[KITHI_BOARD_NAME];
        bool again;
        kithi_board_name((first + i) % KITHI_BOARD_SLOTS, name);
        int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST)
            continue;
        if (fd < 0)
            return true;
        bool made = make(b, dir, name, fd, uid, &again);
        close(fd); /* the mapping keeps the lock */
        if (made && kithi_path_join(dir_path, name, NULL, &b->path) < 0)
            b->path = NULL; /* it is not removed at the end, then */
        if (made || !again)
            return true;
    }
    return false;
}

void kithi_board_open(struct kithi_board *b, const char *segment, const uint8_t uid[16])
{
    *b = (struct kithi_board){ .lane_count = lanes_wanted(), .pid = (uint32_t)getpid() };
    b->len = kithi_board_size(b->lane_count);
    const char *slash = strrchr(segment, '/');
    char *parent = slash ? strndup(segment, (size_t)(slash - segment)) : strdup("."), *path = NULL;
    int dir = -1;
    if (!parent || kithi_path_join(parent, KITHI_BOARD_DIR, NULL, &path) < 0)
        goto out;
    dir = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0 || !has_room(dir, b->len))
        goto out;
    b->timed = clock_is_cheap();
    if (!take_name(b, dir, path, uid) && reclaim(dir))
        take_name(b, dir, path, uid);
out:
    if (dir >= 0)
        close(dir);
    free(path);
    free(parent);
}

static bool is_unused(const struct kithi_board *b)
{
    for (uint32_t i = 0; i < b->lane_count; i++) {
        const struct kithi_board_lane *lane = kithi_board_lane(b, i);
        /* Relaxed: no call of this process is left, and a child's is not waited for. */
        if (atomic_load_explicit(&lane->searches, memory_order_relaxed) ||
            atomic_load_explicit(&lane->failures, memory_order_relaxed))
            return false;
    }
    return true;
}

void kithi_board_close(struct kithi_board *b)
{
    struct stat st;
    if (!b->base)
        return;
    /* A child leaves its parent's board alone; and the name may be somebody else's, in a directory made anew. */
    if (b->path && b->pid == (uint32_t)getpid() && is_unused(b) && lstat(b->path, &st) == 0 &&
        st.st_dev == b->dev && st.st_ino == b->ino)
        unlink(b->path);
    munmap(b->base, b->len);
    free(b->path);
    *b = (struct kithi_board){ 0 };
}

void kithi_board_count(struct kithi_board_lane *lane, const struct kithi_search_stats *stats, uint64_t ns,
                       uint64_t epoch_now)
{
    /* Relaxed, all of them: each is a figure for people, right by itself. Additions are atomic, because threads and forked
     * children share lanes. */
    atomic_fetch_add_explicit(&lane->searches, 1, memory_order_relaxed);
    if (stats->expansion_count)
        atomic_fetch_add_explicit(&lane->expansions, stats->expansion_count, memory_order_relaxed);
    if (ns != KITHI_BOARD_NOT_TIMED)
        atomic_fetch_add_explicit(&lane->latency[kithi_board_bucket(ns)], 1, memory_order_relaxed);
    if (KITHI_UNLIKELY(stats->restart_count))
        atomic_fetch_add_explicit(&lane->restarts, stats->restart_count, memory_order_relaxed);
    atomic_store_explicit(&lane->epoch, stats->epoch, memory_order_relaxed);
    if (KITHI_LIKELY(epoch_now <= stats->epoch))
        return;
    uint64_t lag = epoch_now - stats->epoch,
             most = atomic_load_explicit(&lane->lag_max, memory_order_relaxed);
    atomic_fetch_add_explicit(&lane->lag, lag, memory_order_relaxed);
    /* Bounded, as everything in a reader: a maximum that a neighbour keeps from being stored is lost. */
    for (uint32_t i = 0; lag > most && i < 4; i++)
        if (atomic_compare_exchange_weak_explicit(&lane->lag_max, &most, lag, memory_order_relaxed,
                                                  memory_order_relaxed))
            break;
}
