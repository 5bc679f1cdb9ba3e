/*
 * model.c - histories of ids, and judging what readers saw.
 */
#include "tests/support/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/child.h"
#include "tests/support/codes.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

#define DIM_MAX 1024u
/* Relative to the sizes of the numbers that are summed, not of their difference. */
#define TOLERANCE 1e-4

struct test_model *test_model_new(uint64_t seed, uint32_t id_count, uint32_t dim, bool cosine)
{
    if (dim > DIM_MAX)
        test_die("the model takes at most %u dimensions", DIM_MAX);
    struct test_model *m = test_shared(sizeof *m + id_count * sizeof m->ids[0]);
    m->seed = seed;
    m->id_count = id_count;
    m->dim = dim;
    m->cosine = cosine;
    m->kept = test_codes_kept();
    atomic_init(&m->next_version, 1);
    return m;
}

void test_model_vector(const struct test_model *m, uint32_t id, uint64_t version, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, m->seed ^ (version * UINT64_C(0xd1342543de82ef95) + id));
    test_rand_floats(&r, out, m->dim);
}

void test_model_kept(const struct test_model *m, uint32_t id, uint64_t version, float *out)
{
    test_model_vector(m, id, version, out);
    test_codes_decoded((enum kithi_codec)m->kept, m->cosine, out, m->dim);
}

void test_model_note(struct test_model *m, uint32_t id, uint64_t epoch, uint64_t version)
{
    struct test_history *h = &m->ids[id];
    uint64_t n = atomic_load_explicit(&h->count, memory_order_relaxed);
    struct test_change *c = &h->change[n % TEST_HISTORY];
    /* Readers look at entries below the count, at the last TEST_HISTORY - 2 of them: whoever reads the one that is
     * replaced here sees by the count that it has been lapped. */
    atomic_store_explicit(&c->version, version, memory_order_seq_cst);
    atomic_store_explicit(&c->epoch, epoch, memory_order_seq_cst);
    atomic_store_explicit(&h->count, n + 1, memory_order_seq_cst);
}

void test_model_complete(struct test_model *m, uint64_t epoch)
{
    atomic_store_explicit(&m->complete, epoch, memory_order_release);
}

uint64_t test_model_version_new(struct test_model *m)
{
    return atomic_fetch_add_explicit(&m->next_version, 1, memory_order_relaxed);
}

bool test_model_at(const struct test_model *m, uint32_t id, uint64_t epoch, uint64_t *out_version)
{
    const struct test_history *h = &m->ids[id];
    uint64_t count = atomic_load_explicit(&h->count, memory_order_seq_cst);
    uint64_t oldest = count > TEST_HISTORY - 2 ? count - (TEST_HISTORY - 2) : 0, version = 0;
    bool found = count <= TEST_HISTORY - 2; /* before its first change it was not there */
    for (uint64_t i = oldest; i < count; i++) {
        const struct test_change *c = &h->change[i % TEST_HISTORY];
        uint64_t at = atomic_load_explicit(&c->epoch, memory_order_seq_cst);
        if (at > epoch)
            break;
        version = atomic_load_explicit(&c->version, memory_order_seq_cst);
        found = true;
    }
    /* Entries that were overwritten under our eyes lie before those we looked at, unless it lapped us. */
    uint64_t now = atomic_load_explicit(&h->count, memory_order_seq_cst);
    if (!found || now - oldest >= TEST_HISTORY)
        return false;
    *out_version = version;
    return true;
}

uint64_t test_model_now(const struct test_model *m, uint32_t id)
{
    const struct test_history *h = &m->ids[id];
    uint64_t n = atomic_load_explicit(&h->count, memory_order_relaxed);
    return n ? atomic_load_explicit(&h->change[(n - 1) % TEST_HISTORY].version, memory_order_relaxed) : 0;
}

uint32_t test_model_count(const struct test_model *m)
{
    uint32_t n = 0;
    for (uint32_t id = 0; id < m->id_count; id++)
        n += test_model_now(m, id) != 0;
    return n;
}

size_t test_model_id_format(uint32_t id, char out[TEST_ID_SIZE])
{
    int width = id % 4 == 3 ? 25 + (int)(id % 37) : 1;
    return (size_t)snprintf(out, TEST_ID_SIZE, "%0*u", width, id);
}

uint32_t test_model_id(const struct test_model *m, const char *id)
{
    char *end;
    if (*id < '0' || *id > '9')
        return UINT32_MAX;
    unsigned long long n = strtoull(id, &end, 10);
    return *end || n >= m->id_count ? UINT32_MAX : (uint32_t)n;
}

/*
 * From the query to what is kept of a version, in double precision; *out_size is what rounding is relative to. Under cosine
 * it is kept at the length of what was given, which decoding may miss by a little.
 */
static double distance(const struct test_model *m, const float *a, uint32_t id, uint64_t version,
                       double *out_size)
{
    float given[DIM_MAX], b[DIM_MAX];
    double sum = 0, dot = 0, aa = 0, bb = 0;
    test_model_vector(m, id, version, given);
    test_model_kept(m, id, version, b);
    for (uint32_t i = 0; i < m->dim; i++) {
        double d = (double)a[i] - (double)b[i];
        sum += d * d;
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)given[i] * (double)given[i];
    }
    *out_size = m->cosine ? 1 : aa + bb;
    if (m->ip) {
        *out_size += 1;
        return 1 - dot;
    }
    return m->cosine ? 1 - dot / sqrt(aa * bb) : sum;
}

bool test_model_judge(const struct test_model *m, uint64_t epoch, const float *query,
                      const struct test_hit *hits, uint32_t n, char *out_text, size_t text_size)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = test_model_id(m, hits[i].id);
        uint64_t version;
        double size;
        if (id == UINT32_MAX) {
            snprintf(out_text, text_size, "hit %u at epoch %" PRIu64 " is \"%s\", which was never written", i,
                     epoch, hits[i].id);
            return false;
        }
        if (i && hits[i].distance < hits[i - 1].distance) {
            snprintf(out_text, text_size, "hits %u and %u at epoch %" PRIu64 " are out of order", i - 1, i,
                     epoch);
            return false;
        }
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(hits[i].id, hits[j].id) == 0) {
                snprintf(out_text, text_size, "id %u is found twice at epoch %" PRIu64, id, epoch);
                return false;
            }
        if (!test_model_at(m, id, epoch, &version))
            continue;
        if (version == 0) {
            snprintf(out_text, text_size, "id %u is found at epoch %" PRIu64 ", when it was not there", id,
                     epoch);
            return false;
        }
        double expected = distance(m, query, id, version, &size);
        if (!(fabs(hits[i].distance - expected) <= TOLERANCE * size)) {
            snprintf(out_text, text_size,
                     "id %u at epoch %" PRIu64 " has distance %.7g, its version %" PRIu64 " has %.7g", id,
                     epoch, hits[i].distance, version, expected);
            return false;
        }
    }
    return true;
}

bool test_model_judge_exact(const struct test_model *m, uint64_t epoch, const float *query, uint32_t k,
                            const struct test_hit *hits, uint32_t n, char *out_text, size_t text_size)
{
    if (!test_model_judge(m, epoch, query, hits, n, out_text, text_size))
        return false;
    uint32_t there = 0, nearer = 0;
    for (uint32_t id = 0; id < m->id_count; id++) {
        uint64_t version;
        double size;
        if (!test_model_at(m, id, epoch, &version))
            return true;
        if (version == 0)
            continue;
        there++;
        double d = distance(m, query, id, version, &size);
        nearer += n == k && d < hits[n - 1].distance - TOLERANCE * size;
    }
    if (n != (there < k ? there : k)) {
        snprintf(out_text, text_size, "%u hits at epoch %" PRIu64 ", when %u vectors were there", n, epoch,
                 there);
        return false;
    }
    if (nearer > k - 1) {
        snprintf(out_text, text_size, "%u vectors were nearer at epoch %" PRIu64 " than the last of %u hits",
                 nearer, epoch, n);
        return false;
    }
    return true;
}
