/*
 * content.c - see content.h.
 */
#include "bench/churn/content.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/clock.h"
#include "bench/common/truth.h"

#define LIVE_SHARE 0.8
/* Two sums of the same products in another order. */
#define SAME 1e-6f

struct bench_near {
    float distance;
    uint32_t place;
};

static uint32_t below(uint64_t *random, uint32_t n)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*random >> 33) % n);
}

static void swap(uint32_t *a, uint32_t *b)
{
    uint32_t other = *a;
    *a = *b;
    *b = other;
}

static void shuffle(uint32_t *rows, uint32_t n, uint64_t *random)
{
    for (uint32_t i = n; i > 1; i--)
        swap(&rows[i - 1], &rows[below(random, i)]);
}

void bench_content_shuffle(uint32_t *rows, uint32_t n)
{
    uint64_t random = 2;
    shuffle(rows, n, &random);
}

void bench_content_init(struct bench_content *c, const struct bench_set *set, bool clusters)
{
    *c = (struct bench_content){ .set = set, .clusters = clusters, .random = 1 };
    c->live_count = (uint32_t)(LIVE_SHARE * set->base_count);
    c->pool_count = set->base_count - c->live_count;
    c->live = bench_alloc(sizeof(*c->live) * set->base_count);
    c->pool = c->live + c->live_count;
    c->near = bench_alloc(sizeof(*c->near) * set->base_count);
    for (uint32_t i = 0; i < set->base_count; i++)
        c->live[i] = i;
    shuffle(c->live, set->base_count, &c->random);
}

void bench_content_fini(struct bench_content *c)
{
    free(c->live);
    free(c->near);
}

/* Put the n nearest first, in no order. */
static void part(struct bench_near *v, uint32_t count, uint32_t n)
{
    uint32_t from = 0, to = count;
    while (to - from > 1) {
        float pivot = v[from + (to - from - 1) / 2].distance; /* never the last: both parts have members */
        uint32_t i = from, j = to - 1;
        for (;;) {
            while (v[i].distance < pivot)
                i++;
            while (v[j].distance > pivot)
                j--;
            if (i >= j)
                break;
            struct bench_near other = v[i];
            v[i++] = v[j];
            v[j--] = other;
        }
        /* Up to j nobody is farther than the pivot, from j + 1 on nobody is nearer. */
        if (n <= j + 1)
            to = j + 1;
        else
            from = j + 1;
        if (n == from || n == to)
            break;
    }
}

static int by_place(const void *a, const void *b)
{
    const struct bench_near *x = a, *y = b;
    return (x->place > y->place) - (x->place < y->place);
}

/* Bring the rows to be exchanged to the front. */
static void choose(struct bench_content *c, uint32_t *rows, uint32_t count, uint32_t n)
{
    if (!c->clusters) {
        for (uint32_t i = 0; i < n; i++)
            swap(&rows[i], &rows[i + below(&c->random, count - i)]);
        return;
    }
    const float *centre = bench_set_base(c->set, below(&c->random, c->set->base_count));
    for (uint32_t i = 0; i < count; i++)
        c->near[i] =
            (struct bench_near){ bench_distance(c->set, centre, bench_set_base(c->set, rows[i])), i };
    part(c->near, count, n);
    /* In rising order, a place that is still to be brought to the front is never behind one that was. */
    qsort(c->near, n, sizeof(*c->near), by_place);
    for (uint32_t i = 0; i < n; i++)
        swap(&rows[i], &rows[c->near[i].place]);
}

void bench_content_step(struct bench_content *c, uint32_t n, uint32_t *gone, uint32_t *come)
{
    choose(c, c->live, c->live_count, n);
    choose(c, c->pool, c->pool_count, n);
    memcpy(gone, c->live, sizeof(*gone) * n);
    memcpy(come, c->pool, sizeof(*come) * n);
    memcpy(c->live, come, sizeof(*come) * n);
    memcpy(c->pool, gone, sizeof(*gone) * n);
}

void bench_content_now(const struct bench_content *c, uint32_t query_max, uint32_t k, struct bench_set *out)
{
    const struct bench_set *s = c->set;
    size_t row = sizeof(float) * s->dim;
    *out = *s;
    out->base_count = c->live_count;
    out->query_count = s->query_count < query_max ? s->query_count : query_max;
    out->truth_k = k;
    out->base = bench_alloc(row * out->base_count);
    out->query = bench_alloc(row * out->query_count);
    memcpy(out->query, s->query, row * out->query_count);
    for (size_t i = 0; i < c->live_count; i++)
        memcpy(out->base + i * s->dim, bench_set_base(s, c->live[i]), row);
    bench_truth(out);
}

double bench_content_recall(const struct bench_content *c, const struct bench_set *now,
                            const struct bench_engine *e, uint32_t k, uint32_t ef)
{
    uint32_t rows[BENCH_K_MAX];
    uint64_t hits = 0;
    for (size_t q = 0; q < now->query_count; q++) {
        const float *query = bench_set_query(now, q);
        int32_t last = now->truth[q * now->truth_k + now->truth_k - 1];
        float limit = bench_distance(now, query, bench_set_base(now, (size_t)last));
        limit += SAME * (limit < 0 ? -limit : limit);
        e->search(e->ctx, query, k, ef);
        uint32_t n = e->rows(e->ctx, rows, k);
        for (uint32_t i = 0; i < n; i++)
            hits += bench_distance(c->set, query, bench_set_base(c->set, rows[i])) <= limit;
    }
    return (double)hits / ((double)now->query_count * k);
}
