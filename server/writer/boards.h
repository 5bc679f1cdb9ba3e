/*
 * boards.h - what the readers of a collection count on boards of their own (shm/layout/board.h, [P13 board]).
 *
 * Makes the directory for them, looks at the boards now and then and whenever somebody asks for statistics, and removes
 * those of dead readers, whose counts stay in the sums. What stands on a board is hostile input: a liar spoils figures
 * for people, nothing else. Boards are read, never mapped.
 *
 * A look is a job of the pool, so that nobody waits for it. Requests for statistics wait for one that began after they
 * came, a moment at most: if the pool has no worker for it, they get the figures of the last.
 */
#ifndef KITHI_WRITER_BOARDS_H
#define KITHI_WRITER_BOARDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "server/base/pool.h"
#include "server/writer/request.h"
#include "server/writer/rights.h"
#include "shm/layout/board.h"

/* Readers that statistics name one by one. */
#define KITHI_BOARDS_LISTED 32u
/* Bytes of kithi_boards_json() at most. */
#define KITHI_BOARDS_JSON_SIZE 32768u

struct kithi_board_counts {
    uint64_t searches, failures, expansions, restarts, lag;
    uint64_t lag_max;
    uint64_t latency[KITHI_BOARD_BUCKETS];
};

/* A living reader. */
struct kithi_board_reader {
    uint32_t slot;
    uint32_t uid; /* the file's owner: the one thing here that the reader cannot make up */
    uint32_t pid;
    bool timed;
    char program[16]; /* NUL-terminated, printable */
    uint64_t opened_ns, epoch;
    uint64_t searches, failures, expansions, restarts, lag, lag_max;
    uint64_t p50_ns, p99_ns; /* since it was opened */
};

/* What one look found. */
struct kithi_boards_view {
    uint32_t alive;   /* readers */
    uint32_t strange; /* names that are taken by what is no board */
    uint32_t untimed; /* readers that do not measure latency */
    struct kithi_board_counts living;
    uint32_t listed;
    struct kithi_board_reader list[KITHI_BOARDS_LISTED];
};

struct kithi_boards {
    int dir_fd; /* -1: there are no boards */
    uint8_t uid[16];

    /* The pool's during a look. */
    struct kithi_boards_view next;
    struct kithi_board_counts next_gone; /* of readers that died since the last look */
    uint32_t next_gone_count;
    bool empty; /* the last look found no name taken, and the directory was as `changed` says */
    struct timespec changed;

    /* The loop's. */
    struct kithi_boards_view view;
    struct kithi_board_counts gone; /* of dead readers */
    uint64_t gone_count;
    uint64_t looked_ms;  /* the clock at the end of the last look; 0: none */
    uint64_t look_at_ms; /* when the next is due by itself */
    bool looking;
    struct kithi_work work;
    struct kithi_request *waiting; /* for a look that has to begin yet */
    struct kithi_request *served;  /* for the one that is under way */
    uint64_t answer_by_ms;         /* of those that wait; KITHI_NEVER: nobody does */
};

/* Of readers that are gone: what outlives the object, when the collection gets another one. */
struct kithi_boards_sums {
    struct kithi_board_counts counts;
    uint64_t readers;
};

struct kithi_collection;

void kithi_boards_init(struct kithi_boards *b, struct kithi_collection *c);
/* The pool has ended. */
void kithi_boards_fini(struct kithi_boards *b);

/*
 * Make the directory run_dir/readers, or give it its owner and mode again: for kithd's own user alone, or for the read
 * group, too. on false: remove it. Never fails: without it there are no boards, which is logged. May run on a helper thread.
 */
void kithi_boards_open(struct kithi_boards *b, const char *run_dir, const uint8_t uid[16],
                       const struct kithi_rights_policy *policy, bool on);

/*
 * Remove run_dir/readers, in which others may have put anything: what cannot be removed is set aside beside run_dir.
 * Blocks. 0 or -errno.
 */
int kithi_boards_remove(const char *run_dir, struct kithi_errmsg *err);

/* A request for statistics: answered, by kithi_admin_stats_answer(), after a look. */
void kithi_boards_request(struct kithi_collection *c, struct kithi_request *r);
/* Begin a look that is due, answer who waits. Returns when it wants to be called again, in ms of the clock. */
uint64_t kithi_boards_turn(struct kithi_collection *c, uint64_t now_ms);
/* No look is under way, and nobody waits. */
bool kithi_boards_idle(const struct kithi_boards *b);

/* Hand the sums on, from an object with no look under way to one that has not looked yet. */
void kithi_boards_leave(const struct kithi_boards *b, struct kithi_boards_sums *out);
void kithi_boards_inherit(struct kithi_boards *b, const struct kithi_boards_sums *sums);

/* One look, into next and next_gone; then taken over. Blocks. For tests and the above. */
void kithi_boards_look(struct kithi_boards *b);
void kithi_boards_take(struct kithi_boards *b, uint64_t now_ms);

/* The figures as one JSON value, null without boards; bytes written, without NUL. out has KITHI_BOARDS_JSON_SIZE. */
int kithi_boards_json(const struct kithi_boards *b, uint64_t now_ms, char out[KITHI_BOARDS_JSON_SIZE]);

#endif
