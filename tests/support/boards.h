/*
 * boards.h - what readers have counted on their boards (shm/layout/board.h), read from the files.
 */
#ifndef KITHI_TEST_BOARDS_H
#define KITHI_TEST_BOARDS_H

#include <stdbool.h>
#include <stdint.h>

struct test_boards {
    uint32_t files; /* whole boards */
    uint32_t alive; /* of them: whose lock is held */
    uint64_t searches, failures, expansions, restarts, lag, lag_max, epoch;
    uint64_t timed;   /* searches in histograms */
    uint64_t untimed; /* searches on boards whose readers found the clock too slow, as under an emulator */
};

/* Add up the boards in dir, a collection's directory of readers. */
void test_boards_read(const char *dir, struct test_boards *out);

#endif
