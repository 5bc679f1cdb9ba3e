/*
 * test_recall.c - are answers good? Recall@10 against exact truth, with a floor.
 *
 * Real sets are read from KITH_BENCH_DATA=DIR (folders with unpack.py beside them);
 * without them, or without python3, only generated vectors are judged and the test says so. The short
 * form takes the smallest set, KITH_TEST_LONG=1 all of them. A hit counts when its distance is at most that of the tenth
 * true neighbour.
 *
 * Each set is judged with every quantization: by how wide a search has to be, and by the graph that was built on codes,
 * which a walk of the test's own searches by exact distances, beside the one that was built on the vectors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/graph/search.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

#define K           10u
#define EF_MAX      100u  /* by which plain vectors reach the floor, */
#define EF_CODES    1000u /* and codes */
#define EF_GRAPH    100u
#define GRAPH_SLOP  0.005 /* that a graph which was built on codes may be behind */
#define FLOOR       0.99
#define GROUP       1000u
#define QUERY_MAX   1000u
#define WORKERS     2u
#define SLACK       1e-6  /* relative, and absolute for distances near 0 */
#define TURNED      0.97  /* floor at EF_MAX once every vector has been written anew */
#define TURNED_IP   0.90  /* inner product keeps fewer short ways when its neighbours go */
#define HNSWLIB_OOD 0.93  /* recall@10 of hnswlib on query_ood at ef 500 */
#define OOD_SLOP    0.002 /* of a wider search, which may walk elsewhere */
#define SYNTH_N     6000u
#define SYNTH_DIM   64u
#define SYNTH_Q     300u
#define SYNTH_SPOT  60u

static const struct config {
    uint32_t quantization, code_bits;
    const char *name;
} configs[] = {
    { KITHI_QUANTIZATION_NONE, 0, "none" },    { KITHI_QUANTIZATION_F16, 0, "f16" },
    { KITHI_QUANTIZATION_SQ8, 0, "sq8" },      { KITHI_QUANTIZATION_BITS, 1, "bits, 1" },
    { KITHI_QUANTIZATION_BITS, 2, "bits, 2" },
};
#define CONFIGS (sizeof configs / sizeof configs[0])

struct set {
    const char *name;
    uint32_t metric, dim, base_count, query_count;
    bool is_hard; /* plain vectors, too, may take EF_CODES */
    float *base, *query;
    double *limit; /* distance of the k-th true neighbour of each query */
};

static void *allocate(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        test_die("out of memory");
    return p;
}

static double distance(const struct set *s, const float *a, const float *b)
{
    double sum = 0, dot = 0, aa = 0, bb = 0;
    for (uint32_t i = 0; i < s->dim; i++) {
        double x = (double)a[i], y = (double)b[i];
        sum += (x - y) * (x - y);
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    return s->metric == KITHI_METRIC_L2   ? sum
           : s->metric == KITHI_METRIC_IP ? 1 - dot
                                          : 1 - dot / sqrt(aa * bb);
}

/* Rows of an .fvecs or .ivecs file: for each a count, then so many 4-byte words. */
static void *read_vecs(const char *path, uint32_t row_max, uint32_t *out_dim, uint32_t *out_rows)
{
    FILE *f = fopen(path, "rbe");
    if (!f)
        test_die("%s: %s", path, strerror(errno));
    uint32_t dim = 0, rows = 0, capacity = 0;
    unsigned char *all = NULL;
    while (rows < row_max && fread(out_dim, sizeof *out_dim, 1, f) == 1) {
        if (dim && *out_dim != dim)
            test_die("%s: row %u has %u words, not %u", path, rows, *out_dim, dim);
        dim = *out_dim;
        if (rows == capacity) {
            capacity = capacity ? capacity * 2 : 1024;
            all = realloc(all, (size_t)capacity * dim * 4);
            if (!all)
                test_die("out of memory");
        }
        if (fread(all + (size_t)rows * dim * 4, 4, dim, f) != dim)
            test_die("%s ends in row %u", path, rows);
        rows++;
    }
    fclose(f);
    *out_dim = dim;
    *out_rows = rows;
    return all;
}

/* Unpack a real set into memory; false where there is none. */
static bool load(struct set *s, const char *data, const char *query_file, const char *truth_file)
{
    struct test_dir dir;
    char path[1024], command[4096];
    snprintf(path, sizeof path, "%s/unpack.py", data);
    if (access(path, R_OK) < 0)
        return false;
    test_dir_make(&dir);
    snprintf(command, sizeof command, "python3 '%s' '%s/%s' '%s' >/dev/null", path, data, s->name, dir.path);
    int status = system(command); /* NOLINT: the paths are the caller's own */
    if (status != 0) {
        fprintf(stderr, "%s is not unpacked (status 0x%x)\n", s->name, (unsigned)status);
        test_dir_remove(&dir);
        return false;
    }
    uint32_t dim, truth_dim, truth_count;
    s->base = read_vecs(test_path(&dir, "base.fvecs"), UINT32_MAX, &s->dim, &s->base_count);
    s->query = read_vecs(test_path(&dir, query_file), QUERY_MAX, &dim, &s->query_count);
    uint32_t *truth = read_vecs(test_path(&dir, truth_file), QUERY_MAX, &truth_dim, &truth_count);
    test_dir_remove(&dir);
    if (dim != s->dim || truth_count != s->query_count || truth_dim < K)
        test_die("%s: base, queries and truth do not belong together", s->name);
    s->limit = allocate(s->query_count, sizeof *s->limit);
    for (uint32_t q = 0; q < s->query_count; q++) {
        uint32_t row = truth[(size_t)q * truth_dim + K - 1];
        if (row >= s->base_count)
            test_die("%s: the truth names row %u of %u", s->name, row, s->base_count);
        s->limit[q] = distance(s, s->query + (size_t)q * dim, s->base + (size_t)row * dim);
    }
    free(truth);
    return true;
}

/* Clustered vectors, and their truth by comparing with all. */
static void generate(struct set *s, struct test_rand *r)
{
    s->dim = SYNTH_DIM;
    s->base_count = SYNTH_N;
    s->query_count = SYNTH_Q;
    s->base = allocate((size_t)SYNTH_N * SYNTH_DIM, sizeof *s->base);
    s->query = allocate((size_t)SYNTH_Q * SYNTH_DIM, sizeof *s->query);
    s->limit = allocate(SYNTH_Q, sizeof *s->limit);
    float *spots = allocate((size_t)SYNTH_SPOT * SYNTH_DIM, sizeof *spots);
    test_rand_floats(r, spots, (size_t)SYNTH_SPOT * SYNTH_DIM);
    for (uint32_t i = 0; i < SYNTH_N + SYNTH_Q; i++) {
        float *v =
            i < SYNTH_N ? s->base + (size_t)i * SYNTH_DIM : s->query + (size_t)(i - SYNTH_N) * SYNTH_DIM;
        const float *spot = spots + (size_t)test_rand_below(r, SYNTH_SPOT) * SYNTH_DIM;
        for (uint32_t d = 0; d < SYNTH_DIM; d++)
            v[d] = spot[d] + 0.8f * test_rand_float(r);
    }
    for (uint32_t q = 0; q < SYNTH_Q; q++) {
        double best[K + 1];
        uint32_t n = 0;
        for (uint32_t i = 0; i < SYNTH_N; i++) {
            double d = distance(s, s->query + (size_t)q * SYNTH_DIM, s->base + (size_t)i * SYNTH_DIM);
            uint32_t at = n < K ? n++ : K;
            while (at > 0 && best[at - 1] > d) {
                best[at] = best[at - 1];
                at--;
            }
            best[at] = d;
        }
        s->limit[q] = best[K - 1];
    }
    free(spots);
}

static void write_all(struct test_index *t, const struct set *s)
{
    static char ids[GROUP][16];
    static struct kithi_op ops[GROUP];
    struct kithi_errmsg err;
    for (uint32_t i = 0; i < s->base_count;) {
        uint32_t n = 0;
        for (; n < GROUP && i < s->base_count; n++, i++) {
            ops[n] = (struct kithi_op){ .type = KITHI_OP_UPSERT,
                                        .id_len = (uint16_t)snprintf(ids[n], sizeof ids[n], "%u", i),
                                        .dim = s->dim,
                                        .id = ids[n],
                                        .vector = s->base + (size_t)i * s->dim };
        }
        if (test_index_commit(t, ops, n, &err) < 0)
            fail_msg("%s", err.text);
    }
}

static double recall(const struct kithi_map *map, const struct set *s, uint32_t ef)
{
    struct kithi_scratch scratch;
    struct kithi_results results;
    uint64_t good = 0;
    kithi_scratch_init(&scratch);
    kithi_results_init(&results);
    for (uint32_t q = 0; q < s->query_count; q++) {
        struct kithi_search_params p = { .k = K, .ef = ef };
        int n = kithi_search(map, &scratch, s->query + (size_t)q * s->dim, &p, &results);
        assert_true(n >= 0 && n <= (int)K);
        double limit = s->limit[q] + SLACK * fabs(s->limit[q]) + SLACK;
        for (int i = 0; i < n; i++)
            good += (double)results.hits[i].distance <= limit;
    }
    kithi_results_fini(&results);
    kithi_scratch_fini(&scratch);
    return (double)good / ((double)s->query_count * K);
}

/* ---- the graph alone ---- */

struct near {
    double distance;
    uint32_t slot;
    bool expanded;
};

struct walker {
    struct kithi_view view;
    const struct set *set;
    uint32_t *met; /* of each slot: the number of the last walk that met it */
    uint32_t walk, count, ef;
    struct near beam[EF_GRAPH + 1];
};

static double exact(const struct walker *w, const float *query, uint32_t slot)
{
    return distance(w->set, query, (const float *)(const void *)kithi_view_vector(&w->view, slot));
}

static void meet(struct walker *w, const float *query, uint32_t slot)
{
    if (w->met[slot] == w->walk)
        return;
    w->met[slot] = w->walk;
    double d = exact(w, query, slot);
    if (w->count == w->ef && d >= w->beam[w->count - 1].distance)
        return;
    uint32_t at = w->count < w->ef ? w->count++ : w->count - 1;
    for (; at > 0 && w->beam[at - 1].distance > d; at--)
        w->beam[at] = w->beam[at - 1];
    w->beam[at] = (struct near){ .distance = d, .slot = slot };
}

/* Down from the entry point to the nearest of each level, then a beam of ef on the lowest. */
static void walk(struct walker *w, const float *query)
{
    uint64_t entry = atomic_load(&w->view.header->entry);
    uint32_t slot = kithi_entry_link(entry) - 1, places;
    const kithi_link *links;
    w->walk++;
    w->count = 0;
    for (uint32_t level = kithi_entry_level(entry); level > 0; level--)
        for (bool nearer = true; nearer;) {
            double best = exact(w, query, slot);
            nearer = false;
            links = kithi_view_links(&w->view, slot, level, &places);
            for (uint32_t i = 0; links && i < places; i++)
                if (links[i] && exact(w, query, links[i] - 1) < best) {
                    slot = links[i] - 1;
                    best = exact(w, query, slot);
                    nearer = true;
                }
        }
    meet(w, query, slot);
    for (uint32_t at = 0; at < w->count;) {
        if (w->beam[at].expanded) {
            at++;
            continue;
        }
        w->beam[at].expanded = true;
        links = kithi_view_links(&w->view, w->beam[at].slot, 0, &places);
        for (uint32_t i = 0; i < places; i++)
            if (links[i])
                meet(w, query, links[i] - 1);
        at = 0;
    }
}

/* Recall@10 of a walk by exact distances; the collection keeps floats, and nobody writes. */
static double graph_recall(const struct kithi_map *map, const struct set *s)
{
    static struct walker w;
    uint64_t good = 0;
    w = (struct walker){ .set = s, .ef = EF_GRAPH };
    kithi_view_begin(map, &w.view);
    w.met = allocate(w.view.slot_limit, sizeof *w.met);
    for (uint32_t q = 0; q < s->query_count; q++) {
        walk(&w, s->query + (size_t)q * s->dim);
        for (uint32_t i = 0; i < K && i < w.count; i++)
            good += w.beam[i].distance <= s->limit[q] + SLACK * fabs(s->limit[q]) + SLACK;
    }
    free(w.met);
    return (double)good / ((double)s->query_count * K);
}

/* ---- judging ---- */

static void make(struct test_index *t, struct test_dir *dir, const struct set *s, const struct config *c)
{
    struct kithi_geometry g = {
        .dim = s->dim, .metric = s->metric, .m = 16, .ef_construction = 200, .slot_max = 4 * s->base_count
    };
    kithi_geometry_want(&g, c->quantization, KITHI_KEEP_F32);
    g.code_bits = c->code_bits;
    test_dir_make_shm(dir);
    test_index_create(t, test_path(dir, "segment"), &g, WORKERS, 1, 1);
    uint64_t begun = test_now_ms();
    write_all(t, s);
    fprintf(stderr, "%s, %s: %u x %u built in %.1f s\n", s->name, c->name, s->base_count, s->dim,
            (double)(test_now_ms() - begun) / 1000);
}

/* The least ef that reaches the floor; fails when there is none up to ef_max. */
static uint32_t reach(const struct kithi_map *map, const struct set *s, const struct config *c,
                      uint32_t ef_max)
{
    double best = 0;
    for (uint32_t ef = K; ef <= ef_max; ef += ef < 100 ? 10 : ef / 2) {
        best = recall(map, s, ef);
        if (best >= FLOOR) {
            fprintf(stderr, "%s, %s: ef %u recall@10 %.4f\n", s->name, c->name, ef, best);
            return ef;
        }
    }
    fail_msg("%s, %s: recall@10 is %.4f at ef %u, the floor is %.2f", s->name, c->name, best, ef_max, FLOOR);
    return 0;
}

/* Once every vector has been written anew. */
static void judge_turned(struct test_index *t, const struct set *s, const struct config *c, uint32_t ef)
{
    write_all(t, s);
    assert_true(test_index_settle(t, 60000));
    double turned = recall(test_index_map(t), s, ef),
           floor = s->metric == KITHI_METRIC_IP ? TURNED_IP : TURNED;
    fprintf(stderr, "%s, %s: every vector written anew: ef %u recall@10 %.4f\n", s->name, c->name, ef,
            turned);
    assert_true(test_verify_clean(test_index_map(t)));
    if (turned < floor)
        fail_msg("%s, %s: recall@10 is %.4f after one turnover, the floor is %.2f", s->name, c->name, turned,
                 floor);
}

static void judge(const struct set *s)
{
    double plain = 0;
    for (unsigned i = 0; i < CONFIGS; i++) {
        const struct config *c = &configs[i];
        struct test_dir dir;
        struct test_index t;
        make(&t, &dir, s, c);
        assert_true(test_verify_clean(test_index_map(&t)));
        uint32_t ef = reach(test_index_map(&t), s, c, i || s->is_hard ? EF_CODES : EF_MAX);
        double graph = graph_recall(test_index_map(&t), s);
        fprintf(stderr, "%s, %s: the graph has %.4f at ef %u\n", s->name, c->name, graph, EF_GRAPH);
        if (i == 0)
            plain = graph;
        if (graph < plain - GRAPH_SLOP)
            fail_msg("%s, %s: the graph has recall@10 %.4f, the one built on vectors %.4f", s->name, c->name,
                     graph, plain);
        if (s->base_count <= 20000 && (i == 0 || i == CONFIGS - 1))
            judge_turned(&t, s, c, ef < EF_MAX ? EF_MAX : ef);
        test_index_close(&t);
        test_dir_remove(&dir);
    }
}

static void fini(struct set *s)
{
    free(s->base);
    free(s->query);
    free(s->limit);
}

static void recall_at_10_reaches_99_percent_on_real_sets(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t metric;
        bool is_hard;
    } sets[] = { { "glove-twitter-25", KITHI_METRIC_COSINE, false },
                 { "mlnotes-bge-micro", KITHI_METRIC_COSINE, false },
                 { "labse-572-languages", KITHI_METRIC_COSINE, true },
                 { "fashion-mnist", KITHI_METRIC_L2, false } };
    const char *data = getenv("KITH_BENCH_DATA");
    if (!data || !*data)
        data = ".";
    uint32_t judged = 0;
    for (unsigned i = 0; i < (test_long() ? sizeof sets / sizeof sets[0] : 1); i++) {
        struct set s = { .name = sets[i].name, .metric = sets[i].metric, .is_hard = sets[i].is_hard };
        if (!load(&s, data, "query.fvecs", "gt.ivecs"))
            continue;
        judge(&s);
        fini(&s);
        judged++;
    }
    if (!judged) {
        fprintf(stderr, "skipped: no real set in %s (KITH_BENCH_DATA=DIR names the directory)\n", data);
        skip();
    }
}

/*
 * Queries of a language that the base does not have lie away from all of it: what hnswlib gives for them at ef 500 is
 * given at ef 1000. Estimates by neighbour codes err in proportion to the distance between query and node, while
 * the neighbours of such a query differ no more than those of others: they take a search five times as wide.
 */
static void queries_away_from_the_base_are_answered_as_well_as_by_others(void **state)
{
    (void)state;
    static const uint32_t efs[] = { 500, 1000, 2000, 5000 };
    const char *data = getenv("KITH_BENCH_DATA");
    struct set s = { .name = "labse-572-languages", .metric = KITHI_METRIC_COSINE };
    if (!test_long() || !data || !*data || !load(&s, data, "query_ood.fvecs", "gt_ood.ivecs")) {
        fprintf(stderr, "skipped: needs KITH_TEST_LONG=1 and KITH_BENCH_DATA=DIR\n");
        skip();
    }
    for (unsigned i = 0; i < CONFIGS; i++) {
        struct test_dir dir;
        struct test_index t;
        double before = 0;
        uint32_t enough = configs[i].code_bits ? 5000 : 1000;
        make(&t, &dir, &s, &configs[i]);
        for (unsigned j = 0; j < sizeof efs / sizeof efs[0]; j++) {
            double r = recall(test_index_map(&t), &s, efs[j]);
            fprintf(stderr, "%s, %s: ef %u recall@10 %.4f away from the base\n", s.name, configs[i].name,
                    efs[j], r);
            if (r < before - OOD_SLOP || (efs[j] >= enough && r < HNSWLIB_OOD))
                fail_msg("%s: recall@10 is %.4f at ef %u, after %.4f", configs[i].name, r, efs[j], before);
            before = r;
        }
        test_index_close(&t);
        test_dir_remove(&dir);
    }
    fini(&s);
}

static void recall_at_10_reaches_99_percent_on_generated_sets(void **state)
{
    (void)state;
    static const uint32_t metrics[] = { KITHI_METRIC_L2, KITHI_METRIC_COSINE, KITHI_METRIC_IP };
    struct test_rand r;
    test_rand_seed(&r, 20);
    for (unsigned i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "generated-%s", kithi_metric_name(metrics[i]));
        struct set s = { .name = name, .metric = metrics[i] };
        generate(&s, &r);
        judge(&s);
        fini(&s);
    }
}

/* recall.recall [PATTERN]: the tests whose names match. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recall_at_10_reaches_99_percent_on_generated_sets),
        cmocka_unit_test(recall_at_10_reaches_99_percent_on_real_sets),
        cmocka_unit_test(queries_away_from_the_base_are_answered_as_well_as_by_others),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
