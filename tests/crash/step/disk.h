/*
 * disk.h - the files of a data directory, checkpoints and the log's, as a writer would leave them if it died now: what frozen.h is
 * for a segment and a log of one file.
 *
 *   <dir>/checkpoint-... checkpoint.new    <dir>/wal/000... spare
 */
#ifndef KITHI_TEST_STEP_DISK_H
#define KITHI_TEST_STEP_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "tests/support/tmp.h"

#define STEP_DISK_FILES 24u
#define STEP_DISK_NAME  64u

struct step_disk_file {
    char name[STEP_DISK_NAME]; /* "wal/..." or that of a checkpoint */
    ino_t inode;
    const unsigned char *live; /* a read-only mapping; NULL: it is empty */
    size_t len;
    unsigned char *image;
};

struct step_disk {
    char live[2 * TEST_PATH_SIZE], copy[2 * TEST_PATH_SIZE];
    struct step_disk_file files[STEP_DISK_FILES];
    unsigned count;
};

/* Copies are made in a directory of this name, which is made. */
void step_disk_init(struct step_disk *d, const char *copy);
void step_disk_fini(struct step_disk *d);

/* Follow the files of dir from now on. */
void step_disk_follow(struct step_disk *d, const char *dir);

/*
 * Bring the images up to date: true when a file has come, gone, got another name or size, or a byte of one has changed. All of it is
 * compared, whatever the instruction was.
 */
bool step_disk_look(struct step_disk *d);

/* Make the copies equal to the images, whatever was done to them, and the only files there. */
void step_disk_thaw(const struct step_disk *d);

#endif
