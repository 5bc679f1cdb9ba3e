/*
 * board.h - what the processes of the demonstration tell each other: one shared file, mapped by all.
 *
 * Has nothing to do with how Kith works: readers know of the daemon and of each other only what the
 * segment says. Over the board the parent says which part of the show it is, and readers and
 * writer count.
 *
 *   PHASE_WARM --> PHASE_WRITING --> PHASE_KILLED --> PHASE_BACK --> PHASE_STOP
 *   readers        the writer        the daemon       the daemon     everybody
 *   warm up        writes, too       is dead          is back        leaves
 */
#ifndef KITHI_DEMO_BOARD_H
#define KITHI_DEMO_BOARD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/latency.h"

#define DEMO_DIM     256u
#define DEMO_K       10u
#define DEMO_READERS 4u
#define DEMO_QUERIES 512u
#define DEMO_NAME    "packages"

enum demo_phase { PHASE_WARM, PHASE_WRITING, PHASE_KILLED, PHASE_BACK, PHASE_STOP, PHASE_COUNT };

struct demo_reader {
    _Atomic uint32_t ready;  /* it searches */
    _Atomic uint64_t errors; /* searches that failed */
    _Atomic int error;       /* of the first that failed */
    _Atomic uint64_t searches[PHASE_COUNT];
    struct kithi_latency latency[PHASE_COUNT];
    uint64_t private_bytes; /* memory that opening and searching added to the process */
    uint64_t table_bytes;   /* page tables that it added */
    uint64_t shared_bytes;  /* of the segment that it maps and shares with all others */
};

struct demo_writer {
    _Atomic uint32_t busy;   /* row + 1 whose write is not acknowledged yet; 0: none */
    _Atomic uint32_t paused; /* it waits for the phase to change, and has taken every answer there is */
    _Atomic uint64_t acked;
    _Atomic uint64_t failed; /* writes that got an error instead of an answer */
    _Atomic int error;       /* of the first that failed */
};

struct demo_board {
    _Atomic uint32_t phase;
    uint32_t row_count;
    struct demo_reader readers[DEMO_READERS];
    struct demo_writer writer;
    float queries[DEMO_QUERIES][DEMO_DIM];
    _Atomic uint32_t version[]; /* of each row: the last write of it that was acknowledged; 0: as loaded */
};

/* The input, mapped: vectors as in OUT.fvecs, and the lines of OUT.ids. */
struct demo_input {
    const unsigned char *rows;
    size_t rows_len;
    char *text;
    char **ids;
    uint32_t count;
};

/* Make the board of row_count rows, or map it (row_count 0). NULL on failure, with errno. */
struct demo_board *demo_board_map(const char *path, uint32_t row_count);

/* Read STEM.fvecs and STEM.ids; 0 or -errno. */
int demo_input_open(const char *stem, struct demo_input *out);
void demo_input_close(struct demo_input *in);

/* Lines of a file into one block; *out_lines and *out_text are malloc'ed. Returns their number or -errno. */
long demo_read_lines(const char *path, char **out_text, char ***out_lines);

/* The vector of row as its version is: 0 as in the input, others near it, each different. DEMO_DIM floats. */
void demo_vector(const struct demo_input *in, uint32_t row, uint32_t version, float *out);

#endif
