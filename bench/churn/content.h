/*
 * content.h - what is in a collection while its content is replaced, and what the true neighbours are then.
 *
 * Of the rows of a set four fifths are live and the rest is a pool. A step exchanges some of both, either drawn by chance or
 * those nearest to a vector drawn by chance, of the live ones and of the pool.
 */
#ifndef KITH_BENCH_CONTENT_H
#define KITH_BENCH_CONTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/common/curve.h"
#include "bench/common/set.h"

struct bench_content {
    const struct bench_set *set;
    bool clusters;
    uint64_t random;
    uint32_t *live, *pool; /* row numbers */
    uint32_t live_count, pool_count;
    struct bench_near *near; /* scratch */
};

/* In an order of its own, the same at every run. */
void bench_content_init(struct bench_content *c, const struct bench_set *set, bool clusters);
void bench_content_fini(struct bench_content *c);
/* Exchange n rows: those that go into the pool are in gone, those that come out of it in come. n is at most pool_count. */
void bench_content_step(struct bench_content *c, uint32_t n, uint32_t *gone, uint32_t *come);

/* Any order of these rows, the same at every run, and none that the steps go by. */
void bench_content_shuffle(uint32_t *rows, uint32_t n);

/*
 * The live rows as a set, with a sample of the queries and their exact neighbours among them, computed anew. Row numbers in it are places
 * of live.
 */
void bench_content_now(const struct bench_content *c, uint32_t query_max, uint32_t k, struct bench_set *out);
/* Share of the k true neighbours that an engine finds, which answers with rows of the whole set; as near as the k-th counts. */
double bench_content_recall(const struct bench_content *c, const struct bench_set *now,
                            const struct bench_engine *e, uint32_t k, uint32_t ef);

#endif
