/*
 * frozen.h - the bytes that a writer would leave behind if it died now: of its segment and of its log.
 *
 * Three things are kept apart: the files of the running writer, which are only read; a private image of them; and
 * copies, files of their own, for the judge to adopt and write to.
 */
#ifndef KITHI_TEST_STEP_FROZEN_H
#define KITHI_TEST_STEP_FROZEN_H

#include "shm/layout/geometry.h"
#include "shm/layout/header.h"
#include "tests/crash/step/disk.h"
#include "tests/crash/step/step.h"

struct step_bytes {
    const unsigned char *live; /* a read-only mapping */
    unsigned char *image;
    unsigned char *copy; /* a mapping of the copy's file */
    int fd;              /* of that */
    size_t len;
};

struct step_frozen {
    struct kithi_layout layout;
    struct step_bytes segment, log;
    struct step_disk disk;              /* where there are checkpoints: instead of log */
    uint64_t taken[KITHI_REGION_COUNT]; /* of the image */
    int64_t untaken; /* step_untaken_bytes() of the running writer's segment when `taken` changed last */
    struct step_place live, copy;
    const struct test_dir *dir;
};

/* Copies are made in dir. */
void step_frozen_init(struct step_frozen *f, const struct kithi_geometry *g, const struct test_dir *dir);
void step_frozen_fini(struct step_frozen *f);

/* Follow these files from now on; the first look finds that everything has changed. */
void step_frozen_follow(struct step_frozen *f, const struct step_place *live);

/*
 * Compare what the writer has with the image, and bring that up to date: true when anything had changed.
 *
 * This is what decides whether a stop is a state of its own, and it is exact: what recovery and readers go by is the
 * content of the segment up to `taken` (beyond are holes, that nobody touches), the words of `taken` themselves, which
 * stand in the header, and the content of the log file; where there are checkpoints, of all files of the data directory, and
 * their names. All of it is compared, whatever the instruction was. Two stops
 * without a difference are one state, and need one verdict.
 */
bool step_frozen_look(struct step_frozen *f);

/* Make the copies equal to the image, whatever was done to them. */
void step_frozen_thaw(struct step_frozen *f);

/* Write the image into new files: a segment and a log directory named after number. */
void step_frozen_save(const struct step_frozen *f, unsigned number, struct step_place *out);

/*
 * Bytes of memory that a segment's file has beyond what it says is taken: somebody touched a hole. Negative: it says that
 * more is taken than is there.
 */
int64_t step_untaken_bytes(const struct step_frozen *f, const char *segment);

#endif
