/*
 * replace.c - sending readers from one generation's file to the next, by path: the old segment may be
 * one that could not be adopted, so only its header is touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/index/index_priv.h"

#define RETIRE_BYTES (32u << 20) /* given back in one go: a few milliseconds */

void kithi_index_mark_moved(struct kithi_index *ix)
{
    /* [P6 moved] release: the next generation is in place. Other half: kithi_view_moved(). */
    atomic_store_explicit(&ix->header->moved, 1, memory_order_release);
    kithi_publish_wake(ix);
}

/* Map the header of the segment behind fd. 1: *out is it; 0: the file is no segment, so no reader has it. */
static int map_header(int fd, struct kithi_header **out, uint64_t *out_size)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size < (off_t)KITHI_HEADER_SIZE)
        return 0;
    void *base = mmap(NULL, KITHI_HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    *out = base;
    *out_size = (uint64_t)st.st_size;
    return 1;
}

static int open_segment(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int kithi_segment_mark_moved(const char *path, bool dropped)
{
    struct kithi_index ix = { .fd = open_segment(path) };
    uint64_t size = 0;
    if (ix.fd < 0)
        return ix.fd;
    int rc = map_header(ix.fd, &ix.header, &size);
    if (rc > 0) {
        if (dropped)
            atomic_store_explicit(&ix.header->dropped, 1, memory_order_relaxed);
        kithi_index_mark_moved(&ix);
        munmap(ix.header, KITHI_HEADER_SIZE);
    }
    close(ix.fd);
    return rc < 0 ? rc : 0;
}

/* Whatever a search that slept through the grace period still finds here, these send it away. */
static void mark_all(struct kithi_header *h)
{
    atomic_store_explicit(&h->unlinked, KITHI_MARK_ALL, memory_order_relaxed);
    atomic_store_explicit(&h->reused, KITHI_MARK_ALL, memory_order_relaxed);
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++)
        atomic_store_explicit(&h->taken[r], 0, memory_order_relaxed);
    /* Release fence: a search that meets a page without its bytes meets the marks. */
    atomic_thread_fence(memory_order_release);
}

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int retire(struct kithi_header *h, int fd, uint64_t size, uint64_t *at, uint32_t ms)
{
    uint64_t began_ms = clock_ms();
    if (*at < KITHI_HEADER_SIZE) {
        mark_all(h);
        *at = KITHI_HEADER_SIZE;
    }
    while (*at < size) {
        uint64_t len = size - *at < RETIRE_BYTES ? size - *at : RETIRE_BYTES;
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)*at, (off_t)len) < 0)
            return -errno;
        *at += len;
        if (*at < size && clock_ms() - began_ms >= ms)
            return 1;
    }
    return 0;
}

int kithi_index_retire(struct kithi_index *ix, uint64_t *at, uint32_t ms)
{
    return retire(ix->header, ix->fd, ix->map.len, at, ms);
}

int kithi_segment_retire_fd(int fd, uint64_t *at, uint32_t ms)
{
    struct kithi_header *h = NULL;
    uint64_t size = 0;
    int rc = map_header(fd, &h, &size);
    if (rc <= 0)
        return rc;
    rc = retire(h, fd, size, at, ms);
    munmap(h, KITHI_HEADER_SIZE);
    return rc;
}

int kithi_segment_retire(const char *path)
{
    uint64_t at = 0;
    int fd = open_segment(path);
    if (fd < 0)
        return fd;
    int rc = kithi_segment_retire_fd(fd, &at, UINT32_MAX);
    close(fd);
    return rc;
}
