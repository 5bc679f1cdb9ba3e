/*
 * model.h - what a collection should hold at every epoch: the oracle of the concurrency tests.
 *
 * Ids are the numbers 0..id_count-1 in decimal, every fourth with so many leading zeros that it does not fit into a
 * record. Each has a history of (epoch, version) pairs, version 0
 * being its absence; the vector of an id and version is a function of both, so that a distance tells
 * which version was found. The history is a ring: an epoch whose entries were overwritten is unknown.
 *
 * Threads and processes: one writer notes changes; any number of readers ask. The memory may be shared
 * between processes. Epochs are known up to `complete`: the writer notes the changes of an epoch first and raises
 * `complete` afterwards.
 */
#ifndef KITHI_TEST_MODEL_H
#define KITHI_TEST_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/base/compiler.h"

#define TEST_HISTORY 64u /* changes of an id that are remembered */
#define TEST_ID_SIZE 64u

struct test_change {
    _Atomic uint64_t epoch;
    _Atomic uint64_t version; /* 0: deleted */
};

struct test_history {
    _Atomic uint64_t count; /* changes noted; the ring holds the last TEST_HISTORY of them */
    struct test_change change[TEST_HISTORY];
};

struct test_model {
    uint64_t seed;
    uint32_t dim;
    uint32_t id_count;
    uint32_t cosine;
    uint32_t ip;   /* set by the test when distances are inner products; neither of them: l2 */
    uint32_t kept; /* enum kithi_codec in which the collection keeps vectors (codes.h) */
    _Atomic uint64_t complete;
    _Atomic uint64_t next_version;
    struct test_history ids[];
};

/* Made in shared memory, so that forked children see it. */
struct test_model *test_model_new(uint64_t seed, uint32_t id_count, uint32_t dim, bool cosine);

/* The vector of id at version, dim floats. */
void test_model_vector(const struct test_model *m, uint32_t id, uint64_t version, float *out);

/* What the collection has of it, and gives back: distances are to that. */
void test_model_kept(const struct test_model *m, uint32_t id, uint64_t version, float *out);

/* Writer: id changes to version (0: is deleted) at epoch. */
void test_model_note(struct test_model *m, uint32_t id, uint64_t epoch, uint64_t version);
/* Writer: all changes up to epoch were noted. */
void test_model_complete(struct test_model *m, uint64_t epoch);
uint64_t test_model_version_new(struct test_model *m);

/* The version of id at epoch; false when its history does not reach back that far. */
bool test_model_at(const struct test_model *m, uint32_t id, uint64_t epoch, uint64_t *out_version);
/* The newest version; for the writer. */
uint64_t test_model_now(const struct test_model *m, uint32_t id);
/* Ids that are there now; for the writer. */
uint32_t test_model_count(const struct test_model *m);

/* One thing that a search at epoch returned. */
struct test_hit {
    char id[TEST_ID_SIZE];
    double distance;
};

/*
 * Judge the result of a search at an epoch that is complete: every id visible at it, with the distance of the
 * version that was visible, nearest first, none twice. Returns true, or false with what is wrong in out_text.
 */
bool test_model_judge(const struct test_model *m, uint64_t epoch, const float *query,
                      const struct test_hit *hits, uint32_t n, char *out_text, size_t text_size);

/*
 * The same for an exact search: besides, it found the k nearest of all that was visible. True when some history does not
 * reach back that far.
 */
bool test_model_judge_exact(const struct test_model *m, uint64_t epoch, const float *query, uint32_t k,
                            const struct test_hit *hits, uint32_t n, char *out_text, size_t text_size);

/* 123 -> "123"; returns the length. */
size_t test_model_id_format(uint32_t id, char out[TEST_ID_SIZE]);
/* "123" -> 123; UINT32_MAX when it is no id of the model. */
uint32_t test_model_id(const struct test_model *m, const char *id);

#endif
