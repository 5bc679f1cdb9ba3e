/*
 * read.h - an existing checkpoint: opened, judged, read chunk by chunk; and the checkpoints of a directory.
 *
 * Changes nothing on disk. Reading is thread-safe.
 */
#ifndef KITHI_CHECKPOINT_READ_H
#define KITHI_CHECKPOINT_READ_H

#include "server/checkpoint/format.h"
#include "shm/base/error.h"

#define KITHI_CHECKPOINT_PREFIX    "checkpoint-"
#define KITHI_CHECKPOINT_NEW       "checkpoint.new" /* being written; never read */
#define KITHI_CHECKPOINT_NAME_SIZE 40u

/* "checkpoint-" and the epoch in 20 digits, so that names sort as epochs do. */
void kithi_checkpoint_name(char out[KITHI_CHECKPOINT_NAME_SIZE], uint64_t epoch);

/* Epochs of the checkpoints in dir, as their names say, the newest first; *out is malloc'd. Their number or -errno. */
int64_t kithi_checkpoint_list(const char *dir, uint64_t **out, struct kithi_errmsg *err);

struct kithi_checkpoint {
    struct kithi_checkpoint_header header;
    struct kithi_checkpoint_plan plan;
    const uint32_t *sums;
    uint64_t end_epoch; /* visible, and so durable, when the copy ended */
    int fd;
    void *table;
    uint64_t shown_off; /* added to what messages say of bytes: where it begins in a larger whole */
    char path[4096];    /* in messages */
};

/*
 * Open and judge header and table. uid NULL: of any collection. 0; -errno; KITHI_E_CORRUPT (damaged, or cut off);
 * KITHI_E_VERSION; KITHI_E_REPLACED (another collection's). *out is to be closed after 0 only.
 */
int kithi_checkpoint_open(const char *path, const uint8_t uid[16], struct kithi_checkpoint *out,
                          struct kithi_errmsg *err);

/* The same for one that people know as something else: shown, from byte shown_off of it on. */
int kithi_checkpoint_open_as(const char *path, const char *shown, uint64_t shown_off, const uint8_t uid[16],
                             struct kithi_checkpoint *out, struct kithi_errmsg *err);

/*
 * Read chunk i to `to`, which has room for its padding and is 4096-byte aligned, and compare it with its checksum. 0, -errno or
 * KITHI_E_CORRUPT.
 */
int kithi_checkpoint_read(const struct kithi_checkpoint *c, uint32_t i, void *to, struct kithi_errmsg *err);

void kithi_checkpoint_close(struct kithi_checkpoint *c);

#endif
