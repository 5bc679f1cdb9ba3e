/*
 * index.h - drive kithi_index without a daemon: groups through a pool of worker threads, sweeps beside
 * them, epochs by counting. For race, fuzz, golden and recall tests.
 */
#ifndef KITHI_TEST_INDEX_H
#define KITHI_TEST_INDEX_H

#include <pthread.h>

#include "server/index/index.h"

struct test_index {
    struct kithi_index *ix;
    unsigned worker_count;
    pthread_t *threads;
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    uint32_t group_jobs, sweep_jobs, next, running; /* under lock */
    bool quit;
    bool sweeping;
    uint64_t sweep_count; /* for people */
};

/* Make a segment at path, which must not exist, and the workers. Ends the program on failure. */
void test_index_create(struct test_index *t, const char *path, const struct kithi_geometry *g,
                       unsigned worker_count, uint32_t grace_ms, uint32_t rest_ms);
/* Adopt the one at path, with uid and hash key as above. */
void test_index_adopt(struct test_index *t, const char *path, const struct kithi_geometry *g,
                      unsigned worker_count, uint32_t grace_ms, uint32_t rest_ms);
void test_index_close(struct test_index *t);

const struct kithi_map *test_index_map(const struct test_index *t);

/*
 * One request in a group of its own, published as the next epoch, with a sweep beside it when one is due. 0 or the
 * error of kithi_group_add. Between the two halves the caller may note what will be visible.
 */
int test_index_stage(struct test_index *t, const struct kithi_op *ops, uint32_t n, struct kithi_errmsg *err);
uint64_t test_index_publish(struct test_index *t);
/* Both. */
int test_index_commit(struct test_index *t, const struct kithi_op *ops, uint32_t n, struct kithi_errmsg *err);

/* Go on with sweeps until nothing is dead or resting, at most timeout_ms. */
bool test_index_settle(struct test_index *t, uint64_t timeout_ms);

/* Verify, print violations; true when there are none. */
bool test_verify_clean(const struct kithi_map *map);
/* The same for a segment by path, attached read-only; a moved segment counts as clean. */
bool test_verify_path(const char *path);

#endif
