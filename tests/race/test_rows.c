/*
 * test_rows.c - rows whose links and neighbour codes change all the time under readers, on one mapping: what a reader
 * takes from a row in the middle of a change is a wrong estimate at worst. Every hit is somebody who is there, none comes twice,
 * and the distance is that of the vector that the id names, however the walk came to it.
 *
 * The writer leads places to other slots as insertions do (server/index/row.c), thousands of times a second and
 * without any reason, so that readers meet old links with new codes and blocks that are half written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"
#include "shm/graph/search.h"
#include "tests/support/codes.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

enum { N = 400, DIM = 40, READERS = 3, K = 10, EF = 64, RUN_MS = 1500 };

/* Of K hits a search: a row that leads to random others still leads everywhere. */
static const double EXPECT_HITS = 0.99;

struct shared {
    const struct kithi_map *map;
    enum kithi_codec kept;
    float given[N][DIM];
    _Atomic bool stop;
    _Atomic uint64_t searches, hits;
    _Atomic int wrong; /* 1 + the rule that was broken */
};

static const char *const rules[] = { "a search failed", "an unknown id", "an id twice", "out of order",
                                     "a distance that is not that of the id's vector" };

/* From query to the vector of id as it is kept, in double precision. */
static double distance(const struct shared *s, const float *query, uint32_t id)
{
    uint32_t metric = s->map->geometry.metric;
    bool cosine = metric == KITHI_METRIC_COSINE;
    double sum = 0, dot = 0, qq = 0, gg = 0;
    float v[DIM];
    memcpy(v, s->given[id], sizeof v);
    test_codes_decoded(s->kept, cosine, v, DIM);
    for (uint32_t i = 0; i < DIM; i++) {
        double q = (double)query[i], x = (double)v[i], g = (double)s->given[id][i];
        sum += (q - x) * (q - x);
        dot += q * x;
        qq += q * q;
        gg += g * g;
    }
    return metric == KITHI_METRIC_L2 ? sum : 1 - (cosine ? dot / sqrt(qq * gg) : dot);
}

static int judge(const struct shared *s, const float *query, const struct kithi_results *r, int n)
{
    bool seen[N] = { false };
    if (n < 0 || n > K)
        return 1;
    for (int i = 0; i < n; i++) {
        uint32_t id = (uint32_t)strtoul(r->ids + r->hits[i].id_off, NULL, 10);
        if (id >= N)
            return 2;
        if (seen[id])
            return 3;
        seen[id] = true;
        if (i && r->hits[i].distance < r->hits[i - 1].distance)
            return 4;
        if (!(fabs((double)r->hits[i].distance - distance(s, query, id)) <= 1e-4 * DIM))
            return 5;
    }
    return 0;
}

static void *read_on(void *arg)
{
    struct shared *s = arg;
    const struct kithi_search_params p = { .k = K, .ef = EF };
    struct kithi_scratch scratch;
    struct kithi_results results;
    struct test_rand r;
    test_rand_seed(&r, test_seed() + (uint64_t)(uintptr_t)pthread_self());
    kithi_scratch_init(&scratch);
    kithi_results_init(&results);
    while (!atomic_load(&s->stop)) {
        float query[DIM];
        test_rand_floats(&r, query, DIM);
        int n = kithi_search(s->map, &scratch, query, &p, &results), wrong = judge(s, query, &results, n);
        if (wrong) {
            atomic_store(&s->wrong, wrong);
            break;
        }
        atomic_fetch_add(&s->searches, 1);
        atomic_fetch_add(&s->hits, (uint64_t)n);
    }
    kithi_results_fini(&results);
    kithi_scratch_fini(&scratch);
    return NULL;
}

/* Lead a random place of a random row to somebody whom it does not name yet. */
static bool change_a_row(struct kithi_index *ix, const struct kithi_view *v, struct test_rand *r)
{
    struct row row;
    uint32_t slot = test_rand_below(r, N), other = test_rand_below(r, N);
    if (other == slot || !kithi_row_open(v, slot, 0, &row))
        return false;
    for (uint32_t i = 0; i < row.count; i++)
        if (atomic_load_explicit(&row.links[i], memory_order_relaxed) == other + 1)
            return false;
    kithi_row_put(&row, &ix->workers[0], test_rand_below(r, row.count), other, NULL, false);
    return true;
}

static void run(uint32_t metric, uint32_t quantization, uint32_t keep)
{
    static struct shared s;
    struct test_solo t;
    struct test_rand r;
    struct kithi_view v;
    pthread_t readers[READERS];
    struct kithi_geometry g = {
        .dim = DIM, .metric = metric, .m = 16, .ef_construction = 60, .slot_max = 2 * N
    };
    memset(&s, 0, sizeof s);
    kithi_geometry_want(&g, quantization, keep);
    s.kept = kithi_geometry_kept(&g);
    test_rand_seed(&r, test_seed() + metric);
    test_solo_open(&t, &g);
    s.map = test_solo_map(&t);
    for (uint32_t i = 0; i < N; i++) {
        char id[16];
        snprintf(id, sizeof id, "%u", i);
        test_rand_floats(&r, s.given[i], DIM);
        assert_int_equal(test_solo_put(&t, id, s.given[i]), 0);
    }
    kithi_view_begin(s.map, &v);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_on, &s), 0);
    uint64_t changes = 0;
    for (uint64_t end = test_now_ms() + RUN_MS; test_now_ms() < end && !atomic_load(&s.wrong);)
        for (unsigned i = 0; i < 64; i++)
            changes += change_a_row(t.ix, &v, &r);
    atomic_store(&s.stop, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    uint64_t searches = atomic_load(&s.searches), hits = atomic_load(&s.hits);
    print_message("%s, %s, keep %s: %" PRIu64 " changes of rows, %" PRIu64 " searches, %.2f hits each\n",
                  kithi_metric_name(metric), kithi_quantization_name(quantization), kithi_keep_name(g.keep),
                  changes, searches, (double)hits / (double)(searches ? searches : 1));
    if (atomic_load(&s.wrong))
        fail_msg("%s", rules[atomic_load(&s.wrong) - 1]);
    assert_true(changes > 0 && searches > 0);
    assert_true((double)hits >= EXPECT_HITS * (double)(searches * K));
    assert_true(test_solo_clean(&t)); /* each link ended up with its own code */
    test_solo_close(&t);
}

static void hits_are_true_while_neighbour_codes_change_l2(void **state)
{
    (void)state;
    run(KITHI_METRIC_L2, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32);
}

static void hits_are_true_while_neighbour_codes_change_cosine(void **state)
{
    (void)state;
    run(KITHI_METRIC_COSINE, KITHI_QUANTIZATION_BITS, KITHI_KEEP_NONE);
}

static void hits_are_true_while_neighbour_codes_change_ip(void **state)
{
    (void)state;
    run(KITHI_METRIC_IP, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F16);
}

static void hits_are_true_while_plain_links_change(void **state)
{
    (void)state;
    run(KITHI_METRIC_L2, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hits_are_true_while_neighbour_codes_change_l2),
        cmocka_unit_test(hits_are_true_while_neighbour_codes_change_cosine),
        cmocka_unit_test(hits_are_true_while_neighbour_codes_change_ip),
        cmocka_unit_test(hits_are_true_while_plain_links_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
