/*
 * solo.h - an index that one thread drives by hand, with a clock that stands still between calls: for tests
 * that want to stop between any two steps. Jobs run in the calling thread, as worker 0.
 */
#ifndef KITHI_TEST_SOLO_H
#define KITHI_TEST_SOLO_H

#include "server/index/index.h"
#include "shm/graph/results.h"
#include "shm/graph/scratch.h"
#include "tests/support/tmp.h"

struct test_solo {
    struct kithi_index *ix;
    struct kithi_index_identity identity;
    struct kithi_index_tuning tuning;
    struct test_dir dir;
    char path[2 * TEST_PATH_SIZE];
    uint64_t now_ms;
    struct kithi_scratch scratch;
    struct kithi_results results; /* of the last search */
};

/* Geometry with the test's usual rest, and the codes that the environment asks for (codes.h). */
struct kithi_geometry test_geometry(uint32_t dim, uint32_t metric, uint32_t slot_max);

/* A segment in a directory of its own on tmpfs. Ends the program on failure. */
void test_solo_open(struct test_solo *t, const struct kithi_geometry *g);
/* The same in dir, which is removed at the end. */
void test_solo_open_in(struct test_solo *t, const struct kithi_geometry *g, const struct test_dir *dir);
/* Close and remove everything. Accepts what was closed by test_solo_leave(). */
void test_solo_close(struct test_solo *t);
/* Close the index and keep the segment; take it over again. */
void test_solo_leave(struct test_solo *t);
int test_solo_adopt(struct test_solo *t, struct kithi_errmsg *err);
/* The two halves of that: what an adoption does at once, and the look at every record. */
int test_solo_adopt_only(struct test_solo *t, struct kithi_errmsg *err);
int test_solo_census(struct test_solo *t, struct kithi_errmsg *err);
/* As if nobody had kept notes (shm/layout/notes.h); the segment is closed. */
void test_solo_forget_notes(const struct test_solo *t);

const struct kithi_map *test_solo_map(const struct test_solo *t);
struct kithi_header *test_solo_header(const struct test_solo *t);

struct kithi_op test_upsert(const char *id, const float *vector, uint32_t dim);
struct kithi_op test_delete(const char *id);

/* Insert what is staged; make it visible. */
void test_solo_jobs(struct test_solo *t);
void test_solo_publish(struct test_solo *t);
/* A group of its own. Returns what kithi_group_add() did. */
int test_solo_commit(struct test_solo *t, const struct kithi_op *ops, uint32_t n);
int test_solo_put(struct test_solo *t, const char *id, const float *vector);
int test_solo_delete(struct test_solo *t, const char *id);

/* Let ms pass and do one round of sweeping; returns the jobs that the sweep had. */
uint32_t test_solo_sweep(struct test_solo *t, uint32_t ms);
/* Sweep until nothing is dead or resting. */
void test_solo_settle(struct test_solo *t);

/* Hits are in t->results; ids by test_solo_hit(). */
int test_solo_search(struct test_solo *t, const float *query, uint32_t k, uint32_t ef, bool exact);
const char *test_solo_hit(const struct test_solo *t, uint32_t i);
int test_solo_get(const struct test_solo *t, const char *id, float *vector);

/* Verify without waiting; prints violations. */
bool test_solo_clean(const struct test_solo *t);

#endif
