/*
 * set.c - reads .fvecs and .ivecs, or makes vectors up where there is no data.
 *
 * Real sets decide; generated ones keep the programs usable on a machine without data, and every
 * table says which it was.
 */
#include "bench/common/set.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kith/kith.h>

#include "bench/common/clock.h"
#include "bench/common/truth.h"

#define GENERATED_BASE  20000u
#define GENERATED_QUERY 1000u
#define GENERATED_DIM   128u
#define GENERATED_SHARE 100u /* vectors to a cluster */
#define GENERATED_TRUTH 100u
#define NOISE           0.4f /* of added rows, in standard deviations of the set's elements */

/* Rows of a 4-byte int dimension and that many 4-byte elements; all of one dimension. */
static void *read_vecs(const char *dir, const char *file, uint32_t *out_rows, uint32_t *out_dim)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", dir, file);
    FILE *f = fopen(path, "rb");
    if (!f)
        bench_die("%s: %s (tools/dev/bench.sh unpacks the sets of $KITH_BENCH_DATA)", path, strerror(errno));
    if (fseek(f, 0, SEEK_END) != 0)
        bench_die("%s: %s", path, strerror(errno));
    long size = ftell(f);
    rewind(f);
    int32_t dim = 0;
    if (fread(&dim, sizeof(dim), 1, f) != 1 || dim < 1 || dim > 65536)
        bench_die("%s: does not begin with a dimension", path);
    size_t row = sizeof(int32_t) * ((size_t)dim + 1);
    if (size <= 0 || (size_t)size % row != 0)
        bench_die("%s: %ld bytes are not whole rows of dimension %d", path, size, dim);
    size_t rows = (size_t)size / row;
    char *data = bench_alloc(rows * (row - sizeof(int32_t)));
    rewind(f);
    for (size_t i = 0; i < rows; i++) {
        int32_t d;
        if (fread(&d, sizeof(d), 1, f) != 1 || d != dim ||
            fread(data + i * (row - sizeof(d)), row - sizeof(d), 1, f) != 1)
            bench_die("%s: row %zu is not a row of dimension %d", path, i, dim);
    }
    fclose(f);
    *out_rows = (uint32_t)rows;
    *out_dim = (uint32_t)dim;
    return data;
}

static uint32_t read_metric(const char *dir)
{
    char path[4096];
    char word[16] = "l2";
    snprintf(path, sizeof(path), "%s/metric", dir);
    FILE *f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%15s", word) != 1)
            bench_die("%s: empty; it holds l2, cosine or ip", path);
        fclose(f);
    }
    if (strcmp(word, "l2") == 0)
        return KITH_METRIC_L2;
    if (strcmp(word, "cosine") == 0)
        return KITH_METRIC_COSINE;
    if (strcmp(word, "ip") == 0)
        return KITH_METRIC_IP;
    bench_die("%s: holds \"%s\", not l2, cosine or ip", path, word);
}

static void read_set(const char *name, const char *queries, struct bench_set *s)
{
    const char *root = getenv("KITH_BENCH_DATA");
    if (!root || !*root)
        bench_die("set %s: KITH_BENCH_DATA names no folder (use \"generated\" without data)", name);
    char dir[2048];
    snprintf(dir, sizeof(dir), "%s/%s", root, name);
    char query_file[256];
    char truth_file[256];
    snprintf(query_file, sizeof(query_file), "query%s%s.fvecs", queries ? "_" : "", queries ? queries : "");
    snprintf(truth_file, sizeof(truth_file), "gt%s%s.ivecs", queries ? "_" : "", queries ? queries : "");
    uint32_t query_dim;
    uint32_t truth_count;
    s->base = read_vecs(dir, "base.fvecs", &s->base_count, &s->dim);
    s->query = read_vecs(dir, query_file, &s->query_count, &query_dim);
    s->truth = read_vecs(dir, truth_file, &truth_count, &s->truth_k);
    if (query_dim != s->dim || truth_count != s->query_count)
        bench_die("%s: base, queries and truth do not belong together", dir);
    s->metric = read_metric(dir);
    snprintf(s->name, sizeof(s->name), "%s%s%s", name, queries ? ", " : "", queries ? queries : "");
}

static uint64_t random_u64(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static float random_gauss(uint64_t *state)
{
    double u = ((double)(random_u64(state) >> 11) + 1) / 9007199254740993.0;
    double v = (double)(random_u64(state) >> 11) / 9007199254740992.0;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static float *generate(uint64_t *state, const float *centres, uint32_t clusters, uint32_t rows)
{
    float *v = bench_alloc(sizeof(float) * rows * GENERATED_DIM);
    for (size_t i = 0; i < rows; i++) {
        const float *centre = centres + random_u64(state) % clusters * GENERATED_DIM;
        for (size_t d = 0; d < GENERATED_DIM; d++)
            v[i * GENERATED_DIM + d] = centre[d] + 0.5f * random_gauss(state);
    }
    return v;
}

static void generate_set(uint32_t base_count, uint32_t query_count, struct bench_set *s)
{
    uint64_t state = 1;
    uint32_t clusters = base_count < GENERATED_SHARE ? 1 : base_count / GENERATED_SHARE;
    float *centres = bench_alloc(sizeof(float) * clusters * GENERATED_DIM);
    for (size_t i = 0; i < (size_t)clusters * GENERATED_DIM; i++)
        centres[i] = random_gauss(&state);
    *s = (struct bench_set){
        .metric = KITH_METRIC_L2,
        .dim = GENERATED_DIM,
        .base_count = base_count,
        .query_count = query_count,
        .truth_k = GENERATED_TRUTH,
    };
    s->base = generate(&state, centres, clusters, s->base_count);
    s->query = generate(&state, centres, clusters, s->query_count);
    free(centres);
    bench_truth(s);
    snprintf(s->name, sizeof(s->name), "generated");
}

void bench_set_open(const struct bench_options *opts, struct bench_set *out)
{
    memset(out, 0, sizeof(*out));
    if (strcmp(opts->set, "generated") == 0)
        generate_set(GENERATED_BASE, GENERATED_QUERY, out);
    else
        read_set(opts->set, opts->queries, out);
}

/* The standard deviation of the elements of the first rows. */
static float spread(const struct bench_set *s)
{
    size_t n = (size_t)(s->base_count < 10000 ? s->base_count : 10000) * s->dim;
    double sum = 0;
    double squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)s->base[i];
        squares += (double)s->base[i] * (double)s->base[i];
    }
    double mean = sum / (double)n;
    return (float)sqrt(squares / (double)n - mean * mean);
}

void bench_set_resize(const struct bench_set *from, uint32_t base_count, uint32_t query_max,
                      struct bench_set *out)
{
    uint32_t queries = from->query_count < query_max ? from->query_count : query_max;
    if (strcmp(from->name, "generated") == 0) {
        generate_set(base_count, queries, out);
        return;
    }
    *out = *from;
    out->base_count = base_count;
    out->query_count = queries;
    size_t row = sizeof(float) * from->dim;
    out->base = bench_alloc(row * base_count);
    out->query = bench_alloc(row * queries);
    memcpy(out->query, from->query, row * queries);
    memcpy(out->base, from->base, row * (base_count < from->base_count ? base_count : from->base_count));
    uint64_t state = 2;
    float noise = NOISE * spread(from);
    for (size_t i = from->base_count; i < base_count; i++) {
        const float *source = bench_set_base(from, random_u64(&state) % from->base_count);
        for (size_t d = 0; d < from->dim; d++)
            out->base[i * from->dim + d] = source[d] + noise * random_gauss(&state);
    }
    bench_truth(out);
}

void bench_set_close(struct bench_set *set)
{
    free(set->base);
    free(set->query);
    free(set->truth);
    memset(set, 0, sizeof(*set));
}

uint32_t bench_set_hits(const struct bench_set *s, size_t q, const uint32_t *rows, uint32_t n, uint32_t k)
{
    const int32_t *truth = s->truth + q * s->truth_k;
    uint32_t hits = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < k && j < s->truth_k; j++) {
            if (truth[j] == (int32_t)rows[i]) {
                hits++;
                break;
            }
        }
    }
    return hits;
}
