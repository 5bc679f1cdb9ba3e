/*
 * restore.h - an index made of an image (image.h), at the image's epoch, for the groups after it to be replayed on.
 *
 *     kithi_restore_begin(path, ..., shape, &restore, &err)   owner
 *     kithi_restore_need(restore, ...), then read a chunk to kithi_restore_place()       workers, any order
 *     kithi_restore_end(restore, &ix, &err)                   owner
 *
 * What was visible at the epoch is live again. Everything else that finders may lead to is dead, for sweeps to unlink; the
 * id table, free lists and the entry point are made anew. Nobody reads the segment meanwhile.
 */
#ifndef KITHI_INDEX_RESTORE_H
#define KITHI_INDEX_RESTORE_H

#include "server/index/image.h"

struct kithi_restore;

/*
 * Make a segment at path as kithi_index_create() does. The shape's counts are checked, its regions must be those of
 * kithi_image_regions(). 0, KITHI_E_NO_SPACE, KITHI_E_CORRUPT, or what creating says; then nothing is left behind.
 */
int kithi_restore_begin(const char *path, const struct kithi_index_identity *id, uint64_t generation,
                        const struct kithi_index_tuning *tuning, const struct kithi_image_shape *shape,
                        struct kithi_restore **out, struct kithi_errmsg *err);

/*
 * Take memory for len bytes at off of a region, where nobody has yet: block by block, in huge pages where the kernel gives
 * them. Thread-safe; who needs a block that another is at waits for it. 0, KITHI_E_NO_SPACE, -errno.
 */
int kithi_restore_need(struct kithi_restore *restore, unsigned region, uint64_t off, uint64_t len,
                       struct kithi_errmsg *err);

/* Where the bytes at off of a region belong; there is room for as many as a multiple of 4096 rounds the region up to. */
void *kithi_restore_place(const struct kithi_restore *restore, unsigned region, uint64_t off);

/*
 * All bytes are in their places, and memory was taken for all of them. The index is *out, and restore is gone. KITHI_E_CORRUPT when the image makes no sense,
 * -ENOMEM, KITHI_E_NO_SPACE, -ECANCELED soon after *stop (stop may be NULL) has become true: then it is gone, too, and the file
 * at path is left for the caller to remove.
 */
int kithi_restore_end(struct kithi_restore *restore, const _Atomic bool *stop, struct kithi_index **out,
                      struct kithi_errmsg *err);

/* Give up. The file at path is the caller's to remove. Accepts NULL. */
void kithi_restore_abort(struct kithi_restore *restore);

#endif
