/*
 * image.h - an index as it was at one epoch, copied out while it goes on changing.
 *
 *     kithi_image_begin(ix, &image, &err)               owner; slots that die from now on are not reused
 *     kithi_image_copy(image, KITHI_REGION_RECORDS, ...)  workers, any order: all chunks of the records first,
 *     kithi_image_copy(image, other region, ...)          then all others
 *     kithi_image_end(image)                            owner
 *
 * An image is a fuzzy copy: what a slot holds that was visible at the epoch is exact, since such a slot is neither
 * refilled nor freed before the end; its links and whatever else a chunk holds are of the moment in which they were
 * copied. Whatever is not of the epoch is told from what is by birth and death alone (restore.h does that), so
 * that replaying the groups after the epoch gives the index of any later one. Until that is done with all groups that
 * were published before the end, slots that died meanwhile may have lost the links that lead to them.
 */
#ifndef KITHI_INDEX_IMAGE_H
#define KITHI_INDEX_IMAGE_H

#include "server/index/index.h"

struct kithi_image_region {
    uint64_t bytes; /* in use; the chunks together, the last one cut off here. 0: not in an image */
    uint32_t chunk; /* bytes: whole items, and a multiple of 4096 */
};

/* How much of everything there is. */
struct kithi_image_shape {
    uint64_t epoch, timeline;
    uint64_t live; /* vectors visible at the epoch */
    uint32_t slots, uppers;
    uint32_t blobs[KITHI_BLOB_CLASS_COUNT];
    struct kithi_image_region regions[KITHI_REGION_COUNT];
};

/* The regions of a shape with these counts, for a layout; 0 or KITHI_E_CORRUPT when it has no room for so many. */
int kithi_image_regions(const struct kithi_geometry *g, const struct kithi_layout *l,
                        struct kithi_image_shape *shape, struct kithi_errmsg *err);

struct kithi_image;

/* One image of an index at a time. 0 or -ENOMEM. */
int kithi_image_begin(struct kithi_index *ix, struct kithi_image **out, struct kithi_errmsg *err);
const struct kithi_image_shape *kithi_image_shape(const struct kithi_image *image);

/*
 * Copy len bytes at off, a whole chunk or the rest of a region, to `to`. Thread-safe. Runs beside groups and sweeps. 0, or
 * KITHI_E_CORRUPT: the segment is damaged, and an image of it would say of a vector that it has no payload. It is worth nothing then.
 */
int kithi_image_copy(struct kithi_image *image, unsigned region, uint64_t off, uint32_t len, void *to);

/* Slots may be reused again. Accepts NULL. No copy runs. */
void kithi_image_end(struct kithi_image *image);

/* Dead slots, and payloads that were replaced, that wait for the end of an image of ix; 0 without one. */
uint32_t kithi_image_held(const struct kithi_index *ix);

#endif
