/*
 * test_handle.c - reading through a handle: opening, searching, threads, forks, moving to the next
 * generation. The writer is kithi_index in this process; no daemon runs.
 */
#include <kith/kith.h>

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/src/condition_priv.h"
#include "server/index/sampler.h"
#include "shm/base/compiler.h"
#include "shm/graph/search.h"
#include "tests/support/index.h"
#include "tests/support/payload.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

enum { DIM = 8, COUNT = 300 };

/* A run directory with a collection "c" of COUNT vectors: id i has i + 1 in every place, so that the nearest
 * to a query of all x is known. */
struct world {
    struct test_dir run;
    char folder[TEST_PATH_SIZE], segment[TEST_PATH_SIZE], beside[TEST_PATH_SIZE];
    struct test_index *index;
};

static void fill(float *v, float x)
{
    for (int i = 0; i < DIM; i++)
        v[i] = x;
}

static void put(struct test_index *t, int number, float x)
{
    char id[16];
    float v[DIM];
    struct kithi_errmsg err;
    fill(v, x);
    struct kithi_op op = { .type = KITHI_OP_UPSERT, .id = id, .dim = DIM, .vector = v };
    op.id_len = (uint16_t)snprintf(id, sizeof id, "%d", number);
    if (test_index_commit(t, &op, 1, &err) < 0)
        test_die("%s", err.text);
}

static struct test_index *make_coded(const char *path, uint32_t dim, uint32_t metric, uint32_t quantization,
                                     int count, float step)
{
    struct kithi_geometry g = {
        .dim = dim, .metric = metric, .m = 8, .ef_construction = 50, .slot_max = 4096
    };
    kithi_geometry_want(&g, quantization, KITHI_KEEP_F32);
    struct test_index *t = malloc(sizeof *t); /* stays where it is: its workers know its address */
    if (!t)
        test_die("out of memory");
    test_index_create(t, path, &g, 1, 50, 50);
    for (int i = 0; i < count; i++)
        put(t, i, step * (float)(i + 1));
    return t;
}

static struct test_index *make_segment(const char *path, uint32_t dim, uint32_t metric, int count, float step)
{
    return make_coded(path, dim, metric, KITHI_QUANTIZATION_NONE, count, step);
}

static void segment_close(struct test_index *t)
{
    test_index_close(t);
    free(t);
}

static void world_make(struct world *w, uint32_t metric)
{
    test_dir_make_shm(&w->run);
    snprintf(w->folder, sizeof w->folder, "%s/c", w->run.path);
    snprintf(w->segment, sizeof w->segment, "%s/c/segment", w->run.path);
    snprintf(w->beside, sizeof w->beside, "%s/c/segment.new", w->run.path);
    assert_int_equal(mkdir(w->folder, 0750), 0);
    w->index = make_segment(w->segment, DIM, metric, COUNT, 1.0f);
}

static void world_remove(struct world *w)
{
    segment_close(w->index);
    test_dir_remove(&w->run);
}

static int open_in(const struct world *w, kith **out)
{
    struct kith_error err = { 0 };
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    o.run_dir = w->run.path;
    o.error = &err;
    int rc = kith_open("c", &o, out);
    if (rc < 0)
        fprintf(stderr, "%s\n", err.text);
    return rc;
}

/* The id nearest to x in every place, as a number; -1 when there is none. */
static int nearest(kith *index, kith_results *r, float x)
{
    float q[DIM];
    fill(q, x);
    int rc = kith_search(index, q, DIM, 1, NULL, r);
    return rc == 1 ? atoi(kith_results_id(r, 0)) : rc < 0 ? rc : -1;
}

static void a_collection_opens_by_name_and_by_path(void **state)
{
    (void)state;
    struct world w;
    kith *index = NULL;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    assert_int_equal(kith_dim(index), DIM);
    assert_int_equal(kith_metric_of(index), KITH_METRIC_L2);
    assert_string_equal(kith_name(index), "c");
    assert_int_equal(kith_epoch(index), COUNT);
    kith_close(index);

    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    o.prefault = 1;
    assert_int_equal(kith_open(w.segment, &o, &index), 0);
    assert_string_equal(kith_name(index), "c");
    kith_results *r = kith_results_new();
    assert_int_equal(nearest(index, r, 42.2f), 41);
    kith_results_free(r);
    kith_close(index);

    assert_int_equal(setenv("KITH_RUN", w.run.path, 1), 0);
    assert_int_equal(kith_open("c", NULL, &index), 0);
    kith_close(index);
    unsetenv("KITH_RUN");
    kith_close(NULL);
    world_remove(&w);
}

/* Open and expect code, and that the sentence names what is wrong. */
static void refused(const char *name, const char *run_dir, int code, const char *word)
{
    struct kith_error err = { 0 };
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    kith *index = NULL;
    o.run_dir = run_dir;
    o.error = &err;
    int rc = kith_open(name, &o, &index);
    if (rc != code || err.code != code || !strstr(err.text, word))
        fail_msg("%s in %s: %s (%s), not %s with '%s'", name, run_dir, kith_errname(rc), err.text,
                 kith_errname(code), word);
    assert_null(index);
}

/* What an exact search under a filter looks at, which must find 7 all the same. */
static uint64_t looks_of(kith *index, kith_results *r, uint32_t *out_indexed)
{
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    float q[DIM];
    uint64_t count = 0;
    fill(q, 8);
    o.exact = 1;
    o.filter = "n < 20 and odd = true";
    assert_int_equal(kith_search(index, q, DIM, 3, &o, r), 3);
    assert_string_equal(kith_results_id(r, 0), "7");
    assert_int_equal(kith_count_filter(index, o.filter, NULL, &count, NULL), 0);
    assert_int_equal(count, 10);
    assert_int_equal(kith_results_info(r, &info), 0);
    *out_indexed = info.indexed;
    return info.evaluated_count;
}

/* Bitmaps of one handle have one budget: what has no room in it goes without, and room comes back. */
static void bitmaps_beyond_the_budget_are_done_without(void **state)
{
    (void)state;
    const uint64_t before = kithi_bitmap_bytes;
    struct world w;
    kith *index = NULL;
    kith_results *r = kith_results_new();
    uint32_t indexed;
    world_make(&w, KITH_METRIC_L2);
    for (int i = 0; i < COUNT; i++) {
        char id[16], json[40];
        struct kithi_errmsg err;
        snprintf(id, sizeof id, "%d", i);
        snprintf(json, sizeof json, "{\"n\":%d,\"odd\":%s}", i, i % 2 ? "true" : "false");
        struct kithi_payload p = test_payload(json);
        struct kithi_op op = { .type = KITHI_OP_SET,
                               .id = id,
                               .id_len = (uint16_t)strlen(id),
                               .payload = p.bytes,
                               .payload_len = p.len };
        assert_int_equal(test_index_commit(w.index, &op, 1, &err), 0);
        test_payload_free(&p);
    }
    const uint64_t level = (COUNT / 64 + 1) * 8;
    assert_int_equal(open_in(&w, &index), 0);
    assert_int_equal(looks_of(index, r, &indexed), 10);
    assert_int_equal(indexed, 1);
    assert_int_equal(before - atomic_load(&index->bitmaps.left), 2 * level);
    /* Other filters have the same bitmaps, one after the other. */
    for (int i = 0; i < 20; i++) {
        char text[60];
        uint64_t count;
        snprintf(text, sizeof text, "n >= %d and odd = false", 10 * i);
        assert_int_equal(kith_count_filter(index, text, NULL, &count, NULL), 0);
        assert_int_equal(count, (COUNT - 10 * i) / 2);
        assert_int_equal(before - atomic_load(&index->bitmaps.left), 2 * level);
    }
    kith_close(index);
    /* Room for no bitmap, one, two of them; and for two that are not kept between calls. */
    static const uint64_t looks[] = { COUNT, 20, 10 };
    for (uint64_t levels = 0; levels < 3; levels++) {
        kithi_bitmap_bytes = levels * level;
        assert_int_equal(open_in(&w, &index), 0);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(looks_of(index, r, &indexed), looks[levels]);
            assert_int_equal(indexed, levels > 0);
            assert_int_equal(atomic_load(&index->bitmaps.left), kithi_bitmap_bytes);
        }
        kith_close(index);
    }
    kithi_bitmap_bytes = before;
    kith_results_free(r);
    world_remove(&w);
}

static void opening_says_what_is_wrong_and_where(void **state)
{
    (void)state;
    struct world w;
    char path[2 * TEST_PATH_SIZE];
    world_make(&w, KITH_METRIC_L2);

    refused("nope", w.run.path, KITH_E_NO_COLLECTION, "nope");
    refused("-x", w.run.path, KITH_E_NAME, "-x");
    refused("", w.run.path, KITH_E_NAME, "");
    refused("a.b", w.run.path, KITH_E_NAME, "a.b");
    snprintf(path, sizeof path, "%s/missing", w.run.path);
    refused("c", path, KITH_E_RUN_DIR, path);
    snprintf(path, sizeof path, "%s/missing/segment", w.run.path);
    refused(path, NULL, KITH_E_NO_COLLECTION, path);
    refused("c", w.segment, KITH_E_RUN_DIR, "not a directory");

    snprintf(path, sizeof path, "%s/text", w.run.path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("hello", f);
    fclose(f);
    refused(path, NULL, KITH_E_NOT_SEGMENT, "not a kith segment");
    refused(w.folder, NULL, KITH_E_NOT_SEGMENT, "not a kith segment");
    snprintf(path, sizeof path, "%s/link", w.run.path);
    assert_int_equal(symlink(w.segment, path), 0);
    refused(path, NULL, -ELOOP, "symbolic link");

    assert_int_equal(chmod(w.run.path, 0777), 0);
    refused("c", w.run.path, KITH_E_RUN_DIR, "everybody");
    assert_int_equal(chmod(w.run.path, 0755), 0);

    snprintf(path, sizeof path, "%s-link", w.run.path);
    assert_int_equal(symlink(w.run.path, path), 0);
    kith *index;
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    o.run_dir = path;
    assert_int_equal(kith_open("c", &o, &index), 0); /* our own link, or root's */
    kith_close(index);
    if (geteuid() == 0) {
        assert_int_equal(lchown(path, 12345, 12345), 0);
        refused("c", path, KITH_E_RUN_DIR, "12345");
    }
    assert_int_equal(unlink(path), 0);

    assert_int_equal(kith_open(NULL, NULL, &index), -EINVAL);
    assert_int_equal(kith_open("c", NULL, NULL), -EINVAL);
    world_remove(&w);
}

static void hits_come_nearest_first_with_their_distances(void **state)
{
    (void)state;
    struct world w;
    kith *index;
    float q[DIM];
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    kith_results *r = kith_results_new();
    assert_non_null(r);

    fill(q, 100.25f);
    assert_int_equal(kith_search(index, q, DIM, 4, NULL, r), 4);
    assert_int_equal(kith_results_count(r), 4);
    static const char *const ids[] = { "99", "100", "98", "101" };
    for (uint32_t i = 0; i < 4; i++) {
        assert_string_equal(kith_results_id(r, i), ids[i]);
        assert_int_equal(kith_results_id_len(r, i), strlen(ids[i]));
        float d = (float)(atoi(ids[i]) + 1) - 100.25f;
        assert_true(kith_results_distance(r, i) == d * d * DIM);
    }
    assert_null(kith_results_id(r, 4));
    assert_int_equal(kith_results_id_len(r, 4), 0);
    assert_true(isnan(kith_results_distance(r, 4)));
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    assert_int_equal(kith_results_info(r, &info), 0);
    assert_int_equal(info.epoch, COUNT);
    assert_true(info.distance_count > 0 && info.expansion_count > 0);
    assert_int_equal(info.deadline_hit + info.generation_changed + info.restart_count, 0);

    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;
    o.exact = 1;
    assert_int_equal(kith_search(index, q, DIM, 65536, NULL, r), COUNT);
    assert_int_equal(kith_search(index, q, DIM, COUNT + 1, &o, r), COUNT);
    assert_string_equal(kith_results_id(r, COUNT - 1), "299");
    o.exact = 0;
    o.deadline_ns = 1;
    assert_true(kith_search(index, q, DIM, 10, &o, r) >= 0);
    kith_results_free(r);
    kith_results_free(NULL);
    kith_close(index);
    world_remove(&w);
}

/* The work of a search, as its results tell it. */
static struct kith_search_info info_of(const kith_results *r)
{
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    assert_int_equal(kith_results_info(r, &info), 0);
    return info;
}

/* m is 8, so that a row has 16 places at level 0; the graph is walked down to it without estimates. */
static void estimates_are_counted_where_rows_hold_codes(void **state)
{
    (void)state;
    enum { PLACES = 16, EF = 40, QUERIES = 20 };
    static float q[QUERIES][DIM];
    struct world w;
    kith *index;
    kith_results *r = kith_results_new(), *turns[QUERIES];
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT, exact = KITH_SEARCH_OPTS_INIT;
    o.ef = EF;
    exact.exact = 1;
    for (int i = 0; i < QUERIES; i++) {
        fill(q[i], 10.3f * (float)(i + 1));
        turns[i] = kith_results_new();
    }
    for (uint32_t z = KITHI_QUANTIZATION_NONE; z <= KITHI_QUANTIZATION_BITS; z++) {
        world_make(&w, KITH_METRIC_L2);
        segment_close(w.index);
        assert_int_equal(unlink(w.segment), 0);
        w.index = make_coded(w.segment, DIM, KITHI_METRIC_L2, z, COUNT, 1.0f);
        assert_int_equal(open_in(&w, &index), 0);
        assert_int_equal(kith_search_batch(index, q[0], DIM, QUERIES, 5, &o, turns, NULL), 0);
        for (int i = 0; i < QUERIES; i++) {
            assert_int_equal(kith_search(index, q[i], DIM, 5, &o, r), 5);
            struct kith_search_info one = info_of(r), turn = info_of(turns[i]);
            assert_int_equal(one.estimate_count, turn.estimate_count);
            assert_int_equal(one.distance_count, turn.distance_count);
            if (z == KITHI_QUANTIZATION_BITS) {
                assert_int_equal(one.estimate_count % PLACES, 0);
                assert_true(one.estimate_count / PLACES > 0);
                assert_true(one.estimate_count / PLACES <= one.expansion_count);
            } else {
                assert_int_equal(one.estimate_count, 0);
            }
        }
        assert_int_equal(kith_search(index, q[0], DIM, 5, &exact, r), 5);
        assert_int_equal(info_of(r).estimate_count, 0);

        /* A program from before the count. */
        struct kith_search_info old = KITH_SEARCH_INFO_INIT;
        old.struct_size = offsetof(struct kith_search_info, estimate_count);
        old.estimate_count = 77;
        assert_int_equal(kith_results_info(turns[0], &old), 0);
        assert_int_equal(old.distance_count, info_of(turns[0]).distance_count);
        assert_int_equal(old.estimate_count, 77);
        kith_close(index);
        world_remove(&w);
    }
    for (int i = 0; i < QUERIES; i++)
        kith_results_free(turns[i]);
    kith_results_free(r);
}

static void bad_queries_are_refused_before_they_search(void **state)
{
    (void)state;
    struct world w;
    kith *index;
    float q[DIM];
    world_make(&w, KITH_METRIC_COSINE);
    assert_int_equal(open_in(&w, &index), 0);
    kith_results *r = kith_results_new();
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;

    fill(q, 1.0f);
    assert_int_equal(kith_search(index, q, DIM, 5, NULL, r), 5);
    assert_int_equal(kith_search(index, q, DIM - 1, 5, NULL, r), KITH_E_DIMENSION);
    assert_int_equal(kith_results_count(r), 0);
    assert_int_equal(kith_search(index, q, DIM + 1, 5, NULL, r), KITH_E_DIMENSION);
    assert_int_equal(kith_search(index, q, DIM, 0, NULL, r), KITH_E_K);
    assert_int_equal(kith_search(index, q, DIM, 65537, NULL, r), KITH_E_K);
    o.ef = 4;
    assert_int_equal(kith_search(index, q, DIM, 5, &o, r), KITH_E_EF);
    o.ef = 1048577;
    assert_int_equal(kith_search(index, q, DIM, 5, &o, r), KITH_E_EF);
    o.ef = 5;
    assert_int_equal(kith_search(index, q, DIM, 5, &o, r), 5);
    o.payloads = 2;
    assert_int_equal(kith_search(index, q, DIM, 5, &o, r), -EINVAL);
    assert_int_equal(kith_search(index, NULL, DIM, 5, NULL, r), -EINVAL);
    assert_int_equal(kith_search(NULL, q, DIM, 5, NULL, r), -EINVAL);
    assert_int_equal(kith_search(index, q, DIM, 5, NULL, NULL), -EINVAL);
    q[DIM - 1] = NAN;
    assert_int_equal(kith_search(index, q, DIM, 5, NULL, r), KITH_E_NOT_FINITE);
    q[DIM - 1] = -INFINITY;
    assert_int_equal(kith_search(index, q, DIM, 5, NULL, r), KITH_E_NOT_FINITE);
    fill(q, -0.0f);
    assert_int_equal(kith_search(index, q, DIM, 5, NULL, r), KITH_E_ZERO_VECTOR);
    q[0] = 1e-45f;
    assert_int_equal(kith_search(index, q, DIM, 5, NULL, r), 5);
    assert_int_equal(kith_get(index, "", NULL, 0, NULL), KITH_E_ID);
    assert_int_equal(kith_get(index, "\xff", NULL, 0, NULL), KITH_E_ID);
    assert_int_equal(kith_get(index, "1", q, DIM - 1, NULL), KITH_E_DIMENSION);
    char id[600];
    memset(id, 'x', sizeof id);
    id[511] = '\0';
    assert_int_equal(kith_exists(index, id), 0);
    id[511] = 'x';
    id[512] = '\0';
    assert_int_equal(kith_exists(index, id), KITH_E_ID);
    kith_results_free(r);
    kith_close(index);
    world_remove(&w);
}

static struct kith_search_info after(kith *index, const float *q, uint32_t k, double target, uint32_t ef,
                                     kith_results *r)
{
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;
    o.target_recall = target;
    o.ef = ef;
    assert_int_equal(kith_search(index, q, DIM, k, &o, r), k);
    return info_of(r);
}

static void ef_is_chosen_for_the_recall_that_is_asked_for(void **state)
{
    (void)state;
    struct world w;
    kith *index;
    float q[DIM];
    struct kith_recall curve = KITH_RECALL_INIT;
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    kith_results *r = kith_results_new();
    fill(q, 1.0f);

    struct kith_search_info i = after(index, q, 5, 0, 0, r);
    assert_int_equal(i.ef, 100);
    assert_int_equal(i.ef_basis, KITH_EF_GIVEN);
    assert_int_equal(kith_recall_curve(index, &curve), 0);
    assert_int_equal(curve.point_count, 0);
    i = after(index, q, 5, 0.95, 0, r);
    assert_int_equal(i.ef, 200);
    assert_int_equal(i.ef_basis, KITH_EF_BLIND);

    struct kithi_recall_curve c = { .k = 10, .samples = 99, .count = 2, .epoch = 3, .since = 2 };
    c.points[0] = (struct kithi_recall_point){ .ef = 10, .recall = 0.9, .half = 0.2 };
    c.points[1] = (struct kithi_recall_point){ .ef = 30, .recall = 0.98, .half = 0.01 };
    kithi_curve_publish(w.index->ix, 0, &c);
    assert_int_equal(kith_recall_curve(index, &curve), 2);
    assert_int_equal(curve.samples, 99);
    assert_int_equal(curve.epoch, 3);
    assert_int_equal(curve.since, 2);
    assert_int_equal(curve.points[1].ef, 30);
    assert_float_equal(curve.points[0].low, 0.7f, 1e-5f);
    assert_float_equal(curve.points[0].high, 1.0f, 1e-5f);
    /* Fewer and more neighbours than those. */
    assert_int_equal(curve.k, 10);
    assert_int_equal(curve.kept_samples, 0);
    assert_int_equal(kith_recall_curve_of(index, 1, &curve), 0);
    c.k = 1;
    c.kept_samples = 7;
    c.kept[1] = 0.955;
    kithi_curve_publish(w.index->ix, 1, &c);
    assert_int_equal(kith_recall_curve_of(index, 1, &curve), 2);
    assert_int_equal(curve.k, 1);
    assert_int_equal(curve.kept_samples, 7);
    assert_float_equal(curve.kept[1], 0.955f, 1e-5f);
    assert_int_equal(kith_recall_curve_of(index, 100, &curve), 0);
    assert_int_equal(kith_recall_curve_of(index, 7, &curve), 0);
    i = after(index, q, 5, 0.94, 0, r);
    assert_int_equal(i.ef, 19);
    assert_int_equal(i.ef_basis, KITH_EF_CURVE);
    i = after(index, q, 5, 0.99, 0, r);
    assert_int_equal(i.ef, 60);
    assert_int_equal(i.ef_basis, KITH_EF_BEYOND);
    /* With ef besides: no more than that. */
    i = after(index, q, 5, 0.94, 15, r);
    assert_int_equal(i.ef, 15);
    assert_int_equal(i.ef_basis, KITH_EF_LIMIT);
    i = after(index, q, 5, 0.94, 25, r);
    assert_int_equal(i.ef, 19);
    assert_int_equal(i.ef_basis, KITH_EF_CURVE);

    /* All that search take part. */
    float two[2][DIM];
    kith_results *out[2] = { kith_results_new(), kith_results_new() };
    memcpy(two[0], q, sizeof q);
    memcpy(two[1], q, sizeof q);
    o.target_recall = 0.94;
    assert_int_equal(kith_search_batch(index, two[0], DIM, 2, 5, &o, out, NULL), 0);
    assert_int_equal(info_of(out[1]).ef, 19);
    assert_int_equal(info_of(out[1]).ef_basis, KITH_EF_CURVE);
    assert_int_equal(kith_search_id(index, "1", 5, &o, r), 5);
    assert_int_equal(info_of(r).ef, 19);
    o.exact = 1;
    assert_int_equal(kith_search(index, q, DIM, 5, &o, r), 5);
    assert_int_equal(info_of(r).ef, 0);
    assert_int_equal(info_of(r).ef_basis, KITH_EF_GIVEN);
    o.exact = 0;

    const double bad[] = { 1, 1.5, -0.5, NAN, INFINITY, 95 };
    for (unsigned b = 0; b < sizeof bad / sizeof bad[0]; b++) {
        o.target_recall = bad[b];
        assert_int_equal(kith_search(index, q, DIM, 5, &o, r), KITH_E_RECALL);
        assert_int_equal(kith_results_count(r), 0);
        assert_int_equal(kith_search_batch(index, two[0], DIM, 2, 5, &o, out, NULL), KITH_E_RECALL);
        assert_int_equal(kith_search_id(index, "1", 5, &o, r), KITH_E_RECALL);
    }
    o.target_recall = 0.9;
    o.ef = 4; /* a limit that leaves no room for k */
    assert_int_equal(kith_search(index, q, DIM, 5, &o, r), KITH_E_EF);
    curve.struct_size = 16;
    assert_int_equal(kith_recall_curve(index, &curve), -EINVAL);
    assert_int_equal(kith_recall_curve(index, NULL), -EINVAL);

    /* A program from before there was a target. */
    struct kith_search_info old = KITH_SEARCH_INFO_INIT;
    old.struct_size = offsetof(struct kith_search_info, ef);
    old.ef = 77;
    assert_int_equal(kith_results_info(out[0], &old), 0);
    assert_int_equal(old.ef, 77);
    kith_results_free(out[0]);
    kith_results_free(out[1]);
    kith_results_free(r);
    kith_close(index);
    world_remove(&w);
}

/* A struct as a program of another release would pass it: of size bytes, with a byte set at tail. */
static void option_structs_of_other_releases_are_understood(void **state)
{
    (void)state;
    struct world w;
    kith *index;
    float q[DIM];
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    kith_results *r = kith_results_new();
    fill(q, 1.0f);

    struct {
        struct kith_search_opts known;
        char later[16];
    } o = { .known = KITH_SEARCH_OPTS_INIT };
    o.known.struct_size = sizeof o;
    assert_int_equal(kith_search(index, q, DIM, 5, &o.known, r), 5);
    o.later[15] = 1;
    assert_int_equal(kith_search(index, q, DIM, 5, &o.known, r), -EINVAL);
    o.known.struct_size = offsetof(struct kith_search_opts, fields); /* of a program from before payloads */
    assert_int_equal(kith_search(index, q, DIM, 5, &o.known, r), 5);
    o.known.struct_size--;
    assert_int_equal(kith_search(index, q, DIM, 5, &o.known, r), -EINVAL);
    o.known.struct_size = 0;
    assert_int_equal(kith_search(index, q, DIM, 5, &o.known, r), -EINVAL);

    struct {
        struct kith_scroll_opts known;
        char later[16];
    } page = { .known = KITH_SCROLL_OPTS_INIT };
    page.known.limit = 5;
    page.known.struct_size = sizeof page;
    assert_int_equal(kith_scroll(index, NULL, &page.known, r), 5);
    page.later[15] = 1;
    assert_int_equal(kith_scroll(index, NULL, &page.known, r), -EINVAL);
    page.known.filter = "="; /* not of the struct of a program from before payloads, which had 48 bytes */
    page.known.struct_size = 48;
    assert_int_equal(kith_scroll(index, NULL, &page.known, r), 5);
    page.known.struct_size--;
    assert_int_equal(kith_scroll(index, NULL, &page.known, r), -EINVAL);

    struct {
        struct kith_stats known;
        char later[16];
    } s = { .known = KITH_STATS_INIT };
    s.known.struct_size = sizeof s;
    assert_int_equal(kith_stats(index, &s.known), 0);
    assert_int_equal(s.known.struct_size, sizeof s);
    assert_int_equal(s.known.live_count, COUNT);
    assert_int_equal(s.later[0], 0);
    s.known.struct_size = offsetof(struct kith_stats, quantization); /* of a program from before codes */
    s.known.quantization = s.known.keep = 77;
    assert_int_equal(kith_stats(index, &s.known), 0);
    assert_int_equal(s.known.quantization, 77);
    assert_int_equal(s.known.keep, 77);
    s.known.struct_size = 8;
    assert_int_equal(kith_stats(index, &s.known), -EINVAL);

    struct kith_open_opts open_opts = KITH_OPEN_OPTS_INIT;
    kith *none = NULL;
    open_opts.struct_size = 1;
    assert_int_equal(kith_open("c", &open_opts, &none), -EINVAL);
    struct kith_search_info info = { 0 };
    assert_int_equal(kith_results_info(r, &info), -EINVAL);
    kith_results_free(r);
    kith_close(index);
    world_remove(&w);
}

static void vectors_come_back_as_they_were_given(void **state)
{
    (void)state;
    for (uint32_t metric = KITH_METRIC_L2; metric <= KITH_METRIC_IP; metric++) {
        struct world w;
        kith *index;
        float v[DIM];
        uint64_t epoch = 0, count = 0;
        world_make(&w, metric);
        assert_int_equal(open_in(&w, &index), 0);
        assert_int_equal(kith_get(index, "6", v, DIM, &epoch), 0);
        for (int i = 0; i < DIM; i++)
            assert_true(fabsf(v[i] - 7.0f) <= 7.0f * 1e-6f);
        assert_int_equal(epoch, COUNT);
        assert_int_equal(kith_get(index, "nobody", v, DIM, NULL), KITH_E_NOT_FOUND);
        assert_int_equal(kith_exists(index, "6"), 1);
        assert_int_equal(kith_exists(index, "nobody"), 0);
        assert_int_equal(kith_count(index, &count), 0);
        assert_int_equal(count, COUNT);
        struct kith_stats s = KITH_STATS_INIT;
        assert_int_equal(kith_stats(index, &s), 0);
        assert_int_equal(s.dim, DIM);
        assert_int_equal(s.metric, metric);
        assert_int_equal(s.m, 8);
        assert_int_equal(s.slot_max, 4096);
        assert_int_equal(s.epoch, COUNT);
        assert_int_equal(s.daemon_alive, 0);
        assert_int_equal(s.quantization, KITH_QUANTIZATION_NONE);
        assert_int_equal(s.quantization_wanted, KITH_QUANTIZATION_NONE); /* nobody to ask */
        assert_int_equal(s.undecided, 0);
        assert_int_equal(s.code_bits, 0);
        assert_true(s.bytes_taken > 0 && s.bytes_taken < s.bytes_reserved);
        kith_close(index);
        world_remove(&w);
    }
}

static void search_by_id_leaves_itself_out(void **state)
{
    (void)state;
    struct world w;
    kith *index;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    kith_results *r = kith_results_new();
    assert_int_equal(kith_search_id(index, "50", 2, NULL, r), 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(strcmp(kith_results_id(r, i), "49") == 0 || strcmp(kith_results_id(r, i), "51") == 0);
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;
    o.ef = 2;
    assert_int_equal(kith_search_id(index, "50", 2, &o, r), 2);
    assert_int_equal(kith_search_id(index, "50", 65536, NULL, r), COUNT - 1);
    assert_int_equal(kith_search_id(index, "nobody", 2, NULL, r), KITH_E_NOT_FOUND);
    assert_int_equal(kith_results_count(r), 0);
    assert_int_equal(kith_search_id(index, "50", 0, NULL, r), KITH_E_K);
    assert_int_equal(kith_search_id(index, NULL, 2, NULL, r), -EINVAL);
    kith_results_free(r);
    kith_close(index);
    world_remove(&w);
}

static void a_batch_of_searches_names_the_one_that_failed(void **state)
{
    (void)state;
    enum { N = 5 };
    struct world w;
    kith *index;
    float q[N * DIM];
    kith_results *r[N];
    size_t failed = 77;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    for (int i = 0; i < N; i++) {
        fill(q + i * DIM, (float)(10 * i) + 1.1f);
        r[i] = kith_results_new();
    }
    assert_int_equal(kith_search_batch(index, q, DIM, N, 3, NULL, r, &failed), 0);
    assert_int_equal(failed, 77);
    for (int i = 0; i < N; i++)
        assert_int_equal(atoi(kith_results_id(r[i], 0)), 10 * i);
    q[3 * DIM + 2] = NAN;
    assert_int_equal(kith_search_batch(index, q, DIM, N, 1, NULL, r, &failed), KITH_E_NOT_FINITE);
    assert_int_equal(failed, 3);
    assert_int_equal(kith_results_count(r[2]), 1);
    assert_int_equal(kith_results_count(r[3]), 0);
    assert_int_equal(kith_results_count(r[4]), 3); /* as it was */
    assert_int_equal(kith_search_batch(index, NULL, DIM, 0, 1, NULL, r, NULL), 0);
    for (int i = 0; i < N; i++)
        kith_results_free(r[i]);
    kith_close(index);
    world_remove(&w);
}

/* Sanitizers make system calls of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif

/* In a child whose every system call but exit is a death. */
static int search_without_system_calls(kith *index)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = { .len = sizeof rules / sizeof rules[0], .filter = rules };
    kith_results *r = kith_results_new();
    float v[DIM];
    for (int i = 0; i < COUNT; i++)
        if (nearest(index, r, (float)i + 1) != i || kith_search_id(index, "5", 10, NULL, r) != 10)
            return 1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return 77;
    size_t used = mallinfo2().uordblks;
    for (int i = 0; i < COUNT; i++)
        if (nearest(index, r, (float)i + 1) != i || kith_search_id(index, "5", 10, NULL, r) != 10 ||
            kith_get(index, "5", v, DIM, NULL) != 0 || kith_epoch(index) != COUNT)
            return 2;
    return mallinfo2().uordblks == used ? 0 : 3;
}

static void a_steady_search_makes_no_system_call(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    struct world w;
    kith *index;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(search_without_system_calls(index));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    kith_close(index);
    world_remove(&w);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* no seccomp here */
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- threads, forks, generations ---- */

struct searcher {
    kith *index;
    pthread_t thread;
    _Atomic bool *stop;
    _Atomic int error;
    _Atomic uint64_t done, moves;
};

/* Until told to stop: every answer must be one of the generations' (id x is at x + 1, or at 2x + 2). */
static void *search_on(void *arg)
{
    struct searcher *s = arg;
    kith_results *r = kith_results_new();
    for (int i = 0; !atomic_load(s->stop); i = (i + 7) % 140) {
        int got = nearest(s->index, r, (float)(2 * i + 2));
        struct kith_search_info info = KITH_SEARCH_INFO_INIT;
        kith_results_info(r, &info);
        if (got != 2 * i + 1 && got != i)
            atomic_store(&s->error, got < 0 ? got : -1);
        atomic_fetch_add(&s->moves, info.generation_changed);
        atomic_fetch_add(&s->done, 1);
    }
    kith_results_free(r);
    return NULL;
}

static void start(struct searcher *s, int n, kith *index, _Atomic bool *stop)
{
    for (int i = 0; i < n; i++) {
        memset(&s[i], 0, sizeof s[i]);
        s[i].index = index;
        s[i].stop = stop;
        assert_int_equal(pthread_create(&s[i].thread, NULL, search_on, &s[i]), 0);
    }
}

/* Every thread does some more searches. */
static void let_them_search(struct searcher *s, int n)
{
    for (int i = 0; i < n; i++) {
        uint64_t from = atomic_load(&s[i].done), end = test_now_ms() + 30000;
        while (atomic_load(&s[i].done) < from + 20) {
            assert_true(test_now_ms() < end);
            test_nap();
        }
    }
}

static int segments_mapped(const char *folder)
{
    char line[1024];
    int n = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, folder) != NULL;
    fclose(f);
    return n;
}

/* Put a new generation in place, as the writer does. */
static void switch_generation(struct world *w, float step)
{
    struct test_index *next = make_segment(w->beside, DIM, KITH_METRIC_L2, COUNT, step);
    kithi_index_mark_moved(w->index->ix);
    assert_int_equal(rename(w->beside, w->segment), 0);
    segment_close(w->index);
    w->index = next;
}

static void threads_share_a_handle_across_generations(void **state)
{
    (void)state;
    enum { THREADS = 4, SWITCHES = 6 };
    struct world w;
    struct searcher s[THREADS];
    _Atomic bool stop = false;
    kith *index;
    world_make(&w, KITH_METRIC_L2);
    int before = segments_mapped(w.folder); /* the writer's */
    assert_int_equal(open_in(&w, &index), 0);
    start(s, THREADS, index, &stop);
    for (int i = 0; i < SWITCHES; i++) {
        let_them_search(s, THREADS);
        switch_generation(&w, i % 2 ? 1.0f : 2.0f);
    }
    let_them_search(s, THREADS);
    atomic_store(&stop, true);
    uint64_t moves = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(s[i].thread, NULL);
        assert_int_equal(s[i].error, 0);
        moves += s[i].moves;
    }
    assert_true(moves >= SWITCHES);
    /* The last call to end on an old generation unmapped it. */
    assert_int_equal(segments_mapped(w.folder), before + 1);
    kith_close(index);
    assert_int_equal(segments_mapped(w.folder), before);
    world_remove(&w);
}

static int search_in_child(kith *index)
{
    kith_results *r = kith_results_new();
    for (int i = 0; i < 100; i++) {
        int got = nearest(index, r, (float)(2 * i + 2));
        if (got != 2 * i + 1 && got != i)
            return 1;
    }
    kith_results_free(r);
    kith_close(index);
    return 0;
}

/* The parent's threads are inside searches, and now and then inside a move, when it forks. */
static void a_child_of_a_threaded_parent_goes_on_searching(void **state)
{
    (void)state;
    enum { THREADS = 3, FORKS = 40 };
    struct world w;
    struct searcher s[THREADS];
    _Atomic bool stop = false;
    kith *index;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    start(s, THREADS, index, &stop);
    for (int i = 0; i < FORKS; i++) {
        if (i % 8 == 7)
            switch_generation(&w, i % 16 == 7 ? 2.0f : 1.0f);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            _exit(search_in_child(index));
        int status = -1;
        uint64_t end = test_now_ms() + 30000;
        while (waitpid(pid, &status, WNOHANG) == 0) {
            assert_true(test_now_ms() < end);
            test_nap();
        }
        assert_int_equal(status, 0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(s[i].thread, NULL);
        assert_int_equal(s[i].error, 0);
    }
    kith_close(index);
    world_remove(&w);
}

/* A writer that died between its mark and its rename. */
static void a_half_done_switch_keeps_the_old_generation(void **state)
{
    (void)state;
    struct world w;
    kith *index;
    float v[DIM];
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    kith_results *r = kith_results_new();
    kithi_index_mark_moved(w.index->ix);
    for (int i = 0; i < 100; i++)
        assert_int_equal(nearest(index, r, (float)(i + 1)), i);
    assert_int_equal(kith_get(index, "9", v, DIM, NULL), 0);
    assert_int_equal(kith_wait_epoch(index, COUNT, 0), 0);
    assert_int_equal(kith_wait_epoch(index, COUNT + 1, 50), KITH_E_TIMEOUT);

    struct test_index *next = make_segment(w.beside, DIM, KITH_METRIC_L2, COUNT, 2.0f);
    assert_int_equal(rename(w.beside, w.segment), 0);
    uint64_t end = test_now_ms() + 10000;
    while (nearest(index, r, 10.0f) != 4) {
        assert_true(test_now_ms() < end);
        test_nap();
    }
    kith_results_free(r);
    kith_close(index);
    segment_close(next);
    world_remove(&w);
}

static void a_moved_segment_without_a_file_is_searched_on(void **state)
{
    (void)state;
    struct world w;
    kith *index;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    kith_results *r = kith_results_new();
    kithi_index_mark_moved(w.index->ix);
    assert_int_equal(unlink(w.segment), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(nearest(index, r, (float)(i + 1)), i);
    /* Until its marks say that it is used up. */
    struct kithi_header *h = kithi_map_header(test_index_map(w.index));
    atomic_store(&h->unlinked, KITHI_MARK_ALL);
    atomic_store(&h->reused, KITHI_MARK_ALL);
    assert_int_equal(nearest(index, r, 1.0f), KITH_E_NO_COLLECTION);
    kith_results_free(r);
    kith_close(index);
    world_remove(&w);
}

static void another_collection_of_the_name_is_never_searched(void **state)
{
    (void)state;
    struct world w;
    kith *index;
    uint64_t count;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    kith_results *r = kith_results_new();
    struct test_index *other = make_segment(w.beside, DIM + 1, KITH_METRIC_L2, 0, 0.0f);
    assert_int_equal(rename(w.beside, w.segment), 0);
    assert_int_equal(nearest(index, r, 3.0f), 2); /* nobody told us yet */
    kithi_index_mark_moved(w.index->ix);
    assert_int_equal(nearest(index, r, 3.0f), KITH_E_REPLACED);
    assert_int_equal(kith_count(index, &count), KITH_E_REPLACED);
    assert_int_equal(kith_wait_epoch(index, COUNT + 1, 1000), KITH_E_REPLACED);
    assert_int_equal(kith_epoch(index), 0);
    kith_results_free(r);
    kith_close(index);
    segment_close(other);
    world_remove(&w);
}

static void a_dropped_collection_says_so(void **state)
{
    (void)state;
    struct world w;
    kith *index;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    kith_results *r = kith_results_new();
    assert_int_equal(kithi_segment_mark_moved(w.segment, true), 0);
    assert_int_equal(nearest(index, r, 1.0f), KITH_E_REPLACED);
    assert_int_equal(kith_exists(index, "1"), KITH_E_REPLACED);
    kith_results_free(r);
    kith_close(index);
    world_remove(&w);
}

static void *commit_later(void *arg)
{
    struct world *w = arg;
    for (int i = 0; i < 50; i++)
        test_nap();
    put(w->index, 0, 1.0f);
    return NULL;
}

static void a_wait_ends_with_the_epoch_or_the_time(void **state)
{
    (void)state;
    struct world w;
    pthread_t thread;
    kith *index;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    assert_int_equal(kith_wait_epoch(index, 0, 0), 0);
    assert_int_equal(kith_wait_epoch(index, COUNT, -1), 0);
    uint64_t from = test_now_ms();
    assert_int_equal(kith_wait_epoch(index, COUNT + 1, 60), KITH_E_TIMEOUT);
    assert_true(test_now_ms() - from >= 60);
    assert_int_equal(pthread_create(&thread, NULL, commit_later, &w), 0);
    assert_int_equal(kith_wait_epoch(index, COUNT + 1, -1), 0);
    assert_int_equal(kith_epoch(index), COUNT + 1);
    pthread_join(thread, NULL);
    kith_close(index);
    world_remove(&w);
}

static void *appear_later(void *arg)
{
    struct world *w = arg;
    for (int i = 0; i < 30; i++)
        test_nap();
    if (rename(w->beside, w->segment) < 0)
        test_die("cannot rename");
    return NULL;
}

static void opening_waits_for_a_collection_to_appear(void **state)
{
    (void)state;
    struct world w;
    pthread_t thread;
    kith *index = NULL;
    struct kith_error err = { 0 };
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    world_make(&w, KITH_METRIC_L2);
    o.run_dir = w.run.path;
    o.error = &err;
    o.attach_wait_ms = 30;
    assert_int_equal(rename(w.segment, w.beside), 0);
    assert_int_equal(kith_open("c", &o, &index), KITH_E_TIMEOUT);
    assert_non_null(strstr(err.text, "the segment of collection 'c' is missing"));
    o.attach_wait_ms = 30000;
    assert_int_equal(pthread_create(&thread, NULL, appear_later, &w), 0);
    assert_int_equal(kith_open("c", &o, &index), 0);
    pthread_join(thread, NULL);
    kith_close(index);
    world_remove(&w);
}

static void memory_is_accounted_for_by_region_and_by_file(void **state)
{
    (void)state;
    struct world w;
    struct kith_memory m = KITH_MEMORY_INIT;
    char path[TEST_PATH_SIZE + 8], bytes[8192] = { 1 };
    kith *index;
    world_make(&w, KITH_METRIC_L2);
    assert_int_equal(open_in(&w, &index), 0);
    assert_int_equal(kith_memory(index, &m), 0);
    assert_int_equal(m.live_count, COUNT);
    assert_int_equal(m.file_bytes, test_file_blocks(w.segment));
    assert_int_equal(m.file_bytes, m.all.taken + m.all.ahead);
    assert_true(m.next_bytes == 0 && m.old_bytes == 0);
    struct kith_memory_region sum = KITH_MEMORY_REGION_NONE;
    for (int i = 0; i < KITH_MEMORY_REGIONS; i++) {
        const struct kith_memory_region *r = &m.regions[i];
        assert_int_equal(r->taken, r->live + r->dead + r->resting + r->pending + r->free + r->slack);
        if (r->name[0] == '\0')
            assert_int_equal(r->taken, 0);
        sum.taken += r->taken;
        sum.live += r->live;
        sum.ahead += r->ahead;
    }
    assert_int_equal(sum.taken, m.all.taken);
    assert_int_equal(sum.live, m.all.live);
    assert_int_equal(sum.ahead, m.all.ahead);
    assert_string_equal(m.regions[1].name, "records");
    assert_int_equal(m.regions[1].live, 64 * COUNT);

    /* Other generations. */
    static const char *const suffixes[] = { "next", "old" };
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s.%s", w.segment, suffixes[i]);
        FILE *f = fopen(path, "wb");
        assert_true(f && fwrite(bytes, 1, sizeof bytes, f) == sizeof bytes && fclose(f) == 0);
        assert_int_equal(kith_memory(index, &m), 0);
        assert_int_equal(i ? m.old_bytes : m.next_bytes, test_file_blocks(path));
        assert_true(test_file_blocks(path) >= sizeof bytes);
    }

    /* A program of a later release, and none of an earlier one. */
    assert_int_equal(kith_memory(NULL, &m), -EINVAL);
    assert_int_equal(kith_memory(index, NULL), -EINVAL);
    m.struct_size = 8;
    assert_int_equal(kith_memory(index, &m), -EINVAL);
    kith_close(index);
    world_remove(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_collection_opens_by_name_and_by_path),
        cmocka_unit_test(bitmaps_beyond_the_budget_are_done_without),
        cmocka_unit_test(opening_says_what_is_wrong_and_where),
        cmocka_unit_test(hits_come_nearest_first_with_their_distances),
        cmocka_unit_test(estimates_are_counted_where_rows_hold_codes),
        cmocka_unit_test(bad_queries_are_refused_before_they_search),
        cmocka_unit_test(ef_is_chosen_for_the_recall_that_is_asked_for),
        cmocka_unit_test(option_structs_of_other_releases_are_understood),
        cmocka_unit_test(vectors_come_back_as_they_were_given),
        cmocka_unit_test(search_by_id_leaves_itself_out),
        cmocka_unit_test(a_batch_of_searches_names_the_one_that_failed),
        cmocka_unit_test(a_steady_search_makes_no_system_call),
        cmocka_unit_test(threads_share_a_handle_across_generations),
        cmocka_unit_test(a_child_of_a_threaded_parent_goes_on_searching),
        cmocka_unit_test(a_half_done_switch_keeps_the_old_generation),
        cmocka_unit_test(a_moved_segment_without_a_file_is_searched_on),
        cmocka_unit_test(another_collection_of_the_name_is_never_searched),
        cmocka_unit_test(a_dropped_collection_says_so),
        cmocka_unit_test(a_wait_ends_with_the_epoch_or_the_time),
        cmocka_unit_test(opening_waits_for_a_collection_to_appear),
        cmocka_unit_test(memory_is_accounted_for_by_region_and_by_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
