/*
 * map.h - a segment mapped into this process, its identity checked.
 *
 * Owns the mapping and the private copies of everything that attach checked; after attach
 * nobody reads geometry or layout from shared memory again. The writer maps the same way,
 * only writable.
 */
#ifndef KITHI_MAP_MAP_H
#define KITHI_MAP_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/error.h"
#include "shm/layout/geometry.h"
#include "shm/layout/header.h"

struct kithi_map {
    unsigned char *base; /* NULL: not mapped. Readers treat it as const: their mapping is PROT_READ */
    size_t len;          /* bytes mapped: layout.total */
    struct kithi_geometry geometry;
    struct kithi_layout layout;
    uint8_t uid[16];
    uint8_t hash_key[16];
    uint64_t generation;
    uint64_t dev, ino; /* of the file: tells one generation's file from the next */
    _Atomic bool stay; /* go on searching a moved segment: its successor is not in place yet */
    /* Cache lines to ask for ahead where that is tried out; 0: as many as the header says. */
    uint32_t prefetch_row, prefetch_code;
};

/*
 * Map len bytes of fd, shared, at an address that is a multiple of KITHI_REGION_ALIGN, as len must be: only
 * there can a huge page of the file be mapped as one. Core dumps leave the mapping out. Returns 0 or -errno.
 */
int kithi_map_file(int fd, size_t len, bool writable, unsigned char **out);

/*
 * Map the segment behind fd (which may be closed afterwards). Checks, in this order: a regular
 * file; [P0 ready] magic; version and flags; geometry; layout sum; file size. Returns 0,
 * KITHI_E_NOT_SEGMENT, KITHI_E_VERSION, KITHI_E_CORRUPT, or -errno; err says what differs. A file
 * that is still being built is KITHI_E_NOT_SEGMENT. Never touches a page before it is known to exist.
 */
int kithi_map_attach(int fd, bool writable, struct kithi_map *out, struct kithi_errmsg *err);

/* The same by path, opened O_NOFOLLOW. KITHI_E_NO_COLLECTION when there is no such file. */
int kithi_map_attach_path(const char *path, bool writable, struct kithi_map *out, struct kithi_errmsg *err);

/* Unmap. Accepts NULL and unmapped. */
void kithi_map_detach(struct kithi_map *map);

/* Touch every page that is taken, so that later reads do not fault. */
void kithi_map_prefault(const struct kithi_map *map);

static inline struct kithi_header *kithi_map_header(const struct kithi_map *map)
{
    return (struct kithi_header *)(void *)map->base;
}

#endif
