/*
 * replace.c - sending readers from one generation's file to the next, by path: the old segment may be
 * one that could not be adopted, so only its header is touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/index/index_priv.h"

void kithi_index_mark_moved(struct kithi_index *ix)
{
    /* [P6 moved] release: the next generation is in place. Other half: kithi_view_moved(). */
    atomic_store_explicit(&ix->header->moved, 1, memory_order_release);
    kithi_publish_wake(ix);
}

/* Map the header of the segment at path. 1: *out is it; 0: the file is no segment, so no reader has it. */
static int map_header(const char *path, int *out_fd, struct kithi_header **out, uint64_t *out_size)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc = 0;
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0) {
        rc = -errno;
        goto fail;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < (off_t)KITHI_HEADER_SIZE)
        goto fail;
    void *base = mmap(NULL, KITHI_HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        rc = -errno;
        goto fail;
    }
    *out_fd = fd;
    *out = base;
    *out_size = (uint64_t)st.st_size;
    return 1;
fail:
    close(fd);
    return rc;
}

int kithi_segment_mark_moved(const char *path, bool dropped)
{
    struct kithi_index ix = { .fd = -1 };
    uint64_t size = 0;
    int rc = map_header(path, &ix.fd, &ix.header, &size);
    if (rc <= 0)
        return rc;
    if (dropped)
        atomic_store_explicit(&ix.header->dropped, 1, memory_order_relaxed);
    kithi_index_mark_moved(&ix);
    munmap(ix.header, KITHI_HEADER_SIZE);
    close(ix.fd);
    return 0;
}

int kithi_segment_retire(const char *path)
{
    struct kithi_header *h = NULL;
    uint64_t size = 0;
    int fd = -1, rc = map_header(path, &fd, &h, &size);
    if (rc <= 0)
        return rc;
    /* Whatever a search that slept through the grace period still finds here, these send it away. */
    atomic_store_explicit(&h->unlinked, KITHI_MARK_ALL, memory_order_relaxed);
    atomic_store_explicit(&h->reused, KITHI_MARK_ALL, memory_order_relaxed);
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++)
        atomic_store_explicit(&h->taken[r], 0, memory_order_relaxed);
    /* Release fence: a search that meets a page without its bytes meets the marks. */
    atomic_thread_fence(memory_order_release);
    rc = 0;
    if (size > KITHI_HEADER_SIZE && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                              KITHI_HEADER_SIZE, (off_t)(size - KITHI_HEADER_SIZE)) < 0)
        rc = -errno;
    munmap(h, KITHI_HEADER_SIZE);
    close(fd);
    return rc;
}
