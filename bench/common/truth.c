/*
 * truth.c - the exact neighbours of the queries, by brute force.
 *
 * A thread takes a chunk of queries, which stay in its L1 cache, past the whole base in blocks that stay in
 * L2: memory is read once a chunk, not once a query.
 */
#include "bench/common/truth.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <kith/kith.h>

#include "bench/common/clock.h"

#define CHUNK      32u
#define BLOCK      128u
#define LANES      16u /* sums side by side, so that the compiler can keep them in vectors */
#define THREAD_MAX 64u

struct near {
    float distance;
    int32_t row;
};

struct work {
    struct bench_set *set;
    float *scale; /* 1 / length of every base vector under cosine, else NULL */
    atomic_size_t next;
};

static float dot(const float *a, const float *b, size_t dim)
{
    float lane[LANES] = { 0 };
    float sum = 0;
    size_t d = 0;
    for (; d + LANES <= dim; d += LANES) {
        for (size_t i = 0; i < LANES; i++)
            lane[i] += a[d + i] * b[d + i];
    }
    for (; d < dim; d++)
        sum += a[d] * b[d];
    for (size_t i = 0; i < LANES; i++)
        sum += lane[i];
    return sum;
}

static float square(const float *a, const float *b, size_t dim)
{
    float lane[LANES] = { 0 };
    float sum = 0;
    size_t d = 0;
    for (; d + LANES <= dim; d += LANES) {
        for (size_t i = 0; i < LANES; i++)
            lane[i] += (a[d + i] - b[d + i]) * (a[d + i] - b[d + i]);
    }
    for (; d < dim; d++)
        sum += (a[d] - b[d]) * (a[d] - b[d]);
    for (size_t i = 0; i < LANES; i++)
        sum += lane[i];
    return sum;
}

float bench_distance(const struct bench_set *set, const float *query, const float *row)
{
    if (set->metric == KITH_METRIC_L2)
        return square(query, row, set->dim);
    float product = dot(query, row, set->dim);
    return set->metric == KITH_METRIC_COSINE ? -product / sqrtf(dot(row, row, set->dim)) : -product;
}

/* Up to k nearest so far, sorted; rows come in rising order, so that an equal one goes behind. */
static void offer(struct near *best, uint32_t *count, uint32_t k, float distance, int32_t row)
{
    if (*count == k && !(distance < best[k - 1].distance))
        return;
    uint32_t at = *count < k ? (*count)++ : k - 1;
    for (; at > 0 && best[at - 1].distance > distance; at--)
        best[at] = best[at - 1];
    best[at] = (struct near){ distance, row };
}

static void chunk_truth(struct work *w, size_t first, size_t n, struct near *best)
{
    struct bench_set *s = w->set;
    uint32_t count[CHUNK] = { 0 };
    for (size_t block = 0; block < s->base_count; block += BLOCK) {
        size_t end = block + BLOCK < s->base_count ? block + BLOCK : s->base_count;
        for (size_t q = 0; q < n; q++) {
            const float *query = bench_set_query(s, first + q);
            for (size_t i = block; i < end; i++) {
                const float *row = bench_set_base(s, i);
                float distance = s->metric == KITH_METRIC_L2
                                     ? square(query, row, s->dim)
                                     : -dot(query, row, s->dim) * (w->scale ? w->scale[i] : 1);
                offer(best + q * s->truth_k, &count[q], s->truth_k, distance, (int32_t)i);
            }
        }
    }
    for (size_t i = 0; i < n * s->truth_k; i++)
        s->truth[first * s->truth_k + i] = best[i].row;
}

static void *run(void *arg)
{
    struct work *w = arg;
    struct bench_set *s = w->set;
    struct near *best = bench_alloc(sizeof(*best) * CHUNK * s->truth_k);
    for (size_t first; (first = atomic_fetch_add(&w->next, CHUNK)) < s->query_count;)
        chunk_truth(w, first, s->query_count - first < CHUNK ? s->query_count - first : CHUNK, best);
    free(best);
    return NULL;
}

void bench_truth(struct bench_set *set)
{
    struct work w = { .set = set };
    pthread_t threads[THREAD_MAX];
    unsigned n = bench_cpu_count() < THREAD_MAX ? bench_cpu_count() : THREAD_MAX;
    if (set->truth_k > set->base_count)
        set->truth_k = set->base_count;
    set->truth = bench_alloc(sizeof(int32_t) * set->query_count * set->truth_k);
    if (set->metric == KITH_METRIC_COSINE) {
        w.scale = bench_alloc(sizeof(float) * set->base_count);
        for (size_t i = 0; i < set->base_count; i++) {
            const float *row = bench_set_base(set, i);
            w.scale[i] = 1 / sqrtf(dot(row, row, set->dim));
        }
    }
    for (unsigned i = 1; i < n; i++) {
        if (pthread_create(&threads[i], NULL, run, &w) != 0)
            bench_die("cannot start a thread");
    }
    run(&w);
    for (unsigned i = 1; i < n; i++)
        pthread_join(threads[i], NULL);
    free(w.scale);
}
