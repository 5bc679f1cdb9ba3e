/*
 * map.c - attach and detach. Checks everything once that is relied on later.
 */
#include "shm/map/map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The header's words are read by pread first: no page of the mapping is touched before the
 * file is known to be long enough. */
static int read_header(int fd, struct kithi_header *h, struct kithi_errmsg *err)
{
    size_t got = 0, len = sizeof *h;
    while (got < len) {
        ssize_t n = pread(fd, (unsigned char *)h + got, len - got, (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return kithi_error_set(err, -errno, "cannot read the segment: %s", kithi_error_text(-errno));
        if (n == 0)
            return kithi_error_set(err, KITHI_E_NOT_SEGMENT,
                                   "not a kith segment: the file has only %zu bytes", got);
        got += (size_t)n;
    }
    return 0;
}

static int check_header(const struct kithi_header *h, const struct stat *st, struct kithi_map *m,
                        struct kithi_errmsg *err)
{
    if (h->version != KITHI_FORMAT_VERSION)
        return kithi_error_set(err, KITHI_E_VERSION,
                               "segment has format version %u, this program reads version %u; "
                               "use the kith that belongs to the daemon",
                               h->version, KITHI_FORMAT_VERSION);
    if (h->incompat_flags)
        return kithi_error_set(err, KITHI_E_VERSION,
                               "segment uses features (incompatible flags 0x%llx) that this "
                               "program does not know; use a newer kith",
                               (unsigned long long)h->incompat_flags);
    if (h->header_size != KITHI_HEADER_SIZE)
        return kithi_error_set(err, KITHI_E_CORRUPT, "segment says its header has %u bytes, not %u",
                               h->header_size, KITHI_HEADER_SIZE);
    m->geometry = (struct kithi_geometry){ .dim = h->dim,
                                           .metric = h->metric,
                                           .m = h->m,
                                           .ef_construction = h->ef_construction,
                                           .quantization = h->quantization,
                                           .keep = h->keep,
                                           .code_bits = h->code_bits,
                                           .slot_max = h->slot_max };
    struct kithi_errmsg why;
    if (kithi_geometry_check(&m->geometry, &why) < 0)
        return kithi_error_set(err, KITHI_E_CORRUPT, "segment header is damaged: %.300s", why.text);
    kithi_geometry_layout(&m->geometry, &m->layout);
    if (h->layout_sum != m->layout.sum)
        return kithi_error_set(err, KITHI_E_CORRUPT, "segment layout sum is %016llx, computed %016llx",
                               (unsigned long long)h->layout_sum, (unsigned long long)m->layout.sum);
    if ((uint64_t)st->st_size < m->layout.total)
        return kithi_error_set(err, KITHI_E_CORRUPT, "segment has %llu bytes, its layout needs %llu",
                               (unsigned long long)st->st_size, (unsigned long long)m->layout.total);
    memcpy(m->uid, h->uid, sizeof m->uid);
    memcpy(m->hash_key, h->hash_key, sizeof m->hash_key);
    m->generation = h->generation;
    m->len = m->layout.total;
    return 0;
}

int kithi_map_file(int fd, size_t len, bool writable, unsigned char **out)
{
    /* Room for the mapping wherever the next boundary is; the file then takes the place of the part that
     * begins there, and what is left on both sides goes back. */
    size_t room = len + KITHI_REGION_ALIGN;
    void *at = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    unsigned char *begin = at;
    size_t before = (0 - (uintptr_t)begin) % KITHI_REGION_ALIGN;
    unsigned char *base = begin + before;
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    if (mmap(base, len, prot, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) == MAP_FAILED) {
        int rc = -errno;
        munmap(begin, room);
        return rc;
    }
    if (before)
        munmap(begin, before);
    munmap(base + len, KITHI_REGION_ALIGN - before);
    /* A core dump of the host program need not hold the collection. */
    (void)madvise(base, len, MADV_DONTDUMP);
    *out = base;
    return 0;
}

int kithi_map_attach(int fd, bool writable, struct kithi_map *out, struct kithi_errmsg *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return kithi_error_set(err, -errno, "cannot stat the segment: %s", kithi_error_text(-errno));
    if (!S_ISREG(st.st_mode))
        return kithi_error_set(err, KITHI_E_NOT_SEGMENT, "not a kith segment: not a regular file");

    struct kithi_header h;
    int rc = read_header(fd, &h, err);
    if (rc < 0)
        return rc;

    /* [P0 ready] the writer stores the magic last, and pread came after it: what stands behind it is
     * complete when it is there. */
    uint64_t magic = atomic_load_explicit(&h.magic, memory_order_acquire);
    if (magic != KITHI_SEGMENT_MAGIC) {
        if (magic == 0)
            return kithi_error_set(err, KITHI_E_NOT_SEGMENT, "the segment is still being built; try again");
        return kithi_error_set(err, KITHI_E_NOT_SEGMENT, "not a kith segment: it begins with %016llx",
                               (unsigned long long)magic);
    }
    /* The first read may have raced with the builder: read again now that the magic stands. */
    rc = read_header(fd, &h, err);
    if (rc < 0)
        return rc;

    struct kithi_map m;
    memset(&m, 0, sizeof m);
    m.dev = (uint64_t)st.st_dev;
    m.ino = (uint64_t)st.st_ino;
    rc = check_header(&h, &st, &m, err);
    if (rc < 0)
        return rc;

    rc = kithi_map_file(fd, m.len, writable, &m.base);
    if (rc < 0)
        return kithi_error_set(
            err, rc, "cannot map %zu bytes of address space: %s%s", m.len, kithi_error_text(rc),
            rc == -ENOMEM ? "; raise the limit on virtual memory (ulimit -v), or create the "
                            "collection with a smaller --max-vectors"
                          : "");
    *out = m;
    return 0;
}

int kithi_map_attach_path(const char *path, bool writable, struct kithi_map *out, struct kithi_errmsg *err)
{
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        int rc = -errno;
        if (rc == -ENOENT || rc == -ENOTDIR)
            return kithi_error_set(err, KITHI_E_NO_COLLECTION, "there is no segment %s", path);
        if (rc == -ELOOP)
            return kithi_error_set(err, rc, "%s is a symbolic link; a segment is never one", path);
        return kithi_error_set(err, rc, "cannot open %s: %s", path, kithi_error_text(rc));
    }
    int rc = kithi_map_attach(fd, writable, out, err);
    close(fd);
    return rc;
}

void kithi_map_detach(struct kithi_map *map)
{
    if (!map || !map->base)
        return;
    munmap(map->base, map->len);
    map->base = NULL;
}

void kithi_map_prefault(const struct kithi_map *map)
{
    const struct kithi_header *h = kithi_map_header(map);
    uint64_t used = atomic_load_explicit(&h->slots_used, memory_order_acquire);
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        uint64_t end = atomic_load_explicit(&h->taken[r], memory_order_acquire); /* [P5 taken] */
        if (end > map->layout.size[r])
            end = map->layout.size[r];
        /* Memory that is taken ahead of use holds nothing yet. */
        bool by_slot = r == KITHI_REGION_RECORDS || r == KITHI_REGION_ROWS || r == KITHI_REGION_VECTORS;
        if (by_slot && used < end / map->layout.unit[r])
            end = used * map->layout.unit[r];
        const volatile unsigned char *p = map->base + map->layout.off[r];
        for (uint64_t at = 0; at < end; at += 4096)
            (void)p[at];
    }
}
