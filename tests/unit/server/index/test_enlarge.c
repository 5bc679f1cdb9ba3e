/*
 * test_enlarge.c - an index that goes on in a larger segment is the same index: bytes, content, what is under way, and what a
 * successor finds.
 */
#include "server/index/enlarge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/index/image.h"
#include "server/index/restore.h"
#include "shm/graph/view.h"
#include "shm/layout/ledger.h"
#include "shm/layout/notes.h"
#include "tests/support/codes.h"
#include "tests/support/index.h"
#include "tests/support/model.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

enum { DIM = 12, IDS = 700, SLOTS = 1100, OPS_MAX = 40 };

static struct test_rand r;
static struct test_model *model;

struct staged {
    uint32_t n;
    uint32_t ids[OPS_MAX];
    uint64_t versions[OPS_MAX]; /* 0: deleted */
    float vectors[OPS_MAX][DIM];
    char texts[OPS_MAX][TEST_ID_SIZE];
};

/* Random changes, mostly upserts, some of ids that are there. What group_add() said. */
static int stage(struct test_solo *t, struct staged *s)
{
    struct kithi_op ops[OPS_MAX];
    struct kithi_group_result result;
    struct kithi_errmsg err;
    s->n = 1 + test_rand_below(&r, OPS_MAX);
    for (uint32_t i = 0; i < s->n; i++) {
        s->ids[i] = test_rand_below(&r, IDS);
        s->versions[i] = test_rand_below(&r, 4) ? test_model_version_new(model) : 0;
        test_model_id_format(s->ids[i], s->texts[i]);
        test_model_vector(model, s->ids[i], s->versions[i], s->vectors[i]);
        ops[i] = s->versions[i] ? test_upsert(s->texts[i], s->vectors[i], DIM) : test_delete(s->texts[i]);
    }
    return kithi_group_add(t->ix, ops, s->n, &result, &err);
}

static void publish(struct test_solo *t, const struct staged *s)
{
    uint64_t epoch = kithi_index_epoch(t->ix) + 1;
    kithi_group_publish(t->ix, epoch, t->now_ms);
    for (uint32_t i = 0; i < s->n; i++)
        test_model_note(model, s->ids[i], epoch, s->versions[i]);
    test_model_complete(model, epoch);
}

/* A group; false: there was no room for it. */
static bool change(struct test_solo *t)
{
    static struct staged s;
    int rc = stage(t, &s);
    if (rc == KITHI_E_FULL)
        return false;
    assert_int_equal(rc, 0);
    test_solo_jobs(t);
    publish(t, &s);
    return true;
}

static void begin(struct test_solo *t, uint32_t metric)
{
    struct kithi_geometry g = test_geometry(DIM, metric, SLOTS);
    test_solo_open(t, &g);
    model = test_model_new(test_rand_u64(&r), IDS, DIM, metric == KITHI_METRIC_COSINE);
    model->kept = kithi_geometry_kept(&g);
}

static void assert_content(const struct test_solo *t, uint64_t epoch)
{
    uint64_t live = 0;
    for (uint32_t id = 0; id < IDS; id++) {
        char text[TEST_ID_SIZE];
        float have[DIM], want[DIM];
        uint64_t version;
        test_model_id_format(id, text);
        assert_true(test_model_at(model, id, epoch, &version));
        int rc = test_solo_get(t, text, have);
        if (rc != (version ? 0 : KITHI_E_NOT_FOUND))
            fail_msg("epoch %llu: id %s gives %d at version %llu", (unsigned long long)epoch, text, rc,
                     (unsigned long long)version);
        if (!version)
            continue;
        live++;
        test_model_kept(model, id, version, want);
        for (unsigned i = 0; i < DIM; i++)
            assert_true(fabsf(have[i] - want[i]) <= 1e-5f);
    }
    assert_int_equal(kithi_index_live(t->ix), live);
    assert_int_equal(atomic_load(&test_solo_header(t)->live), live);
    assert_int_equal(kithi_index_epoch(t->ix), epoch);
}

/* ---- growing, by hand ---- */

struct larger {
    struct kithi_index *next;
    struct kithi_enlarge *e;
    struct kithi_geometry geometry;
    char path[2 * TEST_PATH_SIZE + 16];
};

static int enlarge_begin(struct test_solo *t, struct larger *l, struct kithi_errmsg *err)
{
    static uint64_t generation = 1;
    struct kithi_index_identity id = t->identity;
    id.geometry.slot_max = 2 * test_solo_map(t)->geometry.slot_max;
    l->geometry = id.geometry;
    snprintf(l->path, sizeof l->path, "%s.next", t->path);
    assert_int_equal(kithi_index_create(l->path, &id, ++generation, &t->tuning, &l->next, err), 0);
    assert_int_equal(kithi_enlarge_new(&test_solo_map(t)->geometry, l->next, &l->e, err), 0);
    return kithi_enlarge_begin(l->e, t->ix, err);
}

/* One piece, if anything is to be copied. */
static bool piece(const struct larger *l, uint32_t most)
{
    struct kithi_errmsg err;
    uint32_t n = kithi_enlarge_collect(l->e, most);
    for (uint32_t i = 0; i < n; i++)
        kithi_enlarge_job(l->e, i);
    assert_int_equal(kithi_enlarge_collected(l->e, &err), 0);
    return n > 0;
}

static void assert_same_region(const struct kithi_map *a, const struct kithi_map *b, unsigned region,
                               uint64_t items)
{
    uint64_t bytes = items * a->layout.unit[region];
    assert_int_equal(a->layout.unit[region], b->layout.unit[region]);
    assert_true(bytes <= a->layout.size[region]);
    if (bytes && memcmp(a->base + a->layout.off[region], b->base + b->layout.off[region], bytes) != 0)
        fail_msg("region %s differs", kithi_region_name(region));
}

/* What was copied is what there is: nothing has changed since. */
static void assert_same(const struct kithi_map *a, const struct kithi_map *b)
{
    const struct kithi_header *x = kithi_map_header(a), *y = kithi_map_header(b);
    const struct kithi_notes *notes = kithi_header_notes((struct kithi_header *)(uintptr_t)x);
    uint32_t slots = (uint32_t)atomic_load(&x->slots_used);
    uint64_t table = atomic_load(&x->id_table);
    assert_same_region(a, b, KITHI_REGION_RECORDS, slots);
    assert_same_region(a, b, KITHI_REGION_ROWS, slots);
    if (a->layout.size[KITHI_REGION_VECTORS])
        assert_same_region(a, b, KITHI_REGION_VECTORS, slots);
    if (a->layout.size[KITHI_REGION_CODES])
        assert_same_region(a, b, KITHI_REGION_CODES, slots);
    assert_same_region(a, b, KITHI_REGION_DOUBT, (slots + 63) / 64);
    assert_same_region(a, b, KITHI_REGION_UPPER, atomic_load(&notes->upper_used));
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        assert_same_region(a, b, kithi_blob_region(c), atomic_load(&notes->blob_used[c]));
    assert_same_region(a, b, KITHI_REGION_IDS0 + kithi_ids_area(table), UINT64_C(1) << kithi_ids_log2(table));
    assert_memory_equal((const char *)x + 256, (const char *)y + 256,
                        336 - 256); /* publication, marks, but `moved` */
    assert_memory_equal((const char *)x + 344, (const char *)y + 344, 368 - 344); /* postings are made anew */
    assert_memory_equal((const char *)x + 376, (const char *)y + 376, 448 - 376);
    assert_memory_equal((const char *)x + 608, (const char *)y + 608, 728 - 608);
    size_t ahead =
        KITHI_LEDGER_OFF + offsetof(struct kithi_ledger, ahead); /* of the file, not of what it holds */
    size_t behind = ahead + sizeof(((struct kithi_ledger *)0)->ahead);
    assert_memory_equal((const char *)x + 1016, (const char *)y + 1016, ahead - 1016);
    assert_memory_equal((const char *)x + behind, (const char *)y + behind, KITHI_HEADER_SIZE - behind);
    for (unsigned region = 1; region < KITHI_REGION_COUNT; region++)
        if (region != KITHI_REGION_IDS0 && region != KITHI_REGION_IDS1)
            assert_true(atomic_load(&y->taken[region]) >= atomic_load(&x->taken[region]));
    assert_true(y->generation > x->generation && y->slot_max > x->slot_max);
}

/* The switch, as server/writer does it, with the old segment left to the caller in l->next. */
static void enlarge_end(struct test_solo *t, struct larger *l)
{
    struct kithi_errmsg err;
    int rc = kithi_enlarge_finish(l->e, &err);
    if (rc < 0)
        fail_msg("%s", err.text);
    assert_int_equal(rename(l->path, t->path), 0);
    kithi_enlarge_swap(l->e);
    kithi_enlarge_end(l->e);
    assert_int_equal(test_solo_map(t)->geometry.slot_max, l->geometry.slot_max);
    assert_same(kithi_index_map(l->next), test_solo_map(t));
    kithi_index_mark_moved(l->next);
    t->identity.geometry = l->geometry;
}

/* ---- what holds ---- */

static void an_index_that_changes_goes_on_in_a_larger_segment(void **state)
{
    (void)state;
    for (unsigned round = 0; round < (test_long() ? 60 : 6); round++) {
        struct test_solo t;
        begin(&t, round % 2 ? KITHI_METRIC_COSINE : KITHI_METRIC_L2);
        for (unsigned grown = 0; grown < 3; grown++) {
            static struct staged open;
            struct larger l;
            struct kithi_errmsg err;
            /* Dead, resting and free slots in all proportions; the id table is made anew in between. */
            for (unsigned i = 0; i < 60; i++) {
                (void)change(&t);
                (void)test_solo_sweep(&t, test_rand_below(&r, 300));
            }
            assert_int_equal(enlarge_begin(&t, &l, &err), 0);
            for (unsigned i = 0, n = 5 + test_rand_below(&r, 60); i < n; i++) {
                if (test_rand_below(&r, 3))
                    (void)piece(&l, 1 + test_rand_below(&r, 4));
                if (test_rand_below(&r, 2))
                    (void)change(&t);
                if (test_rand_below(&r, 2))
                    (void)test_solo_sweep(&t, test_rand_below(&r, 300));
            }
            for (unsigned i = 0; i < 100 && !kithi_enlarge_is_near(l.e); i++)
                (void)piece(&l, 100);
            assert_true(kithi_enlarge_is_near(l.e));
            assert_true(kithi_enlarge_copied(l.e) >= kithi_enlarge_bytes(l.e) / 2);
            /* A group is under way: inserted, and not visible. */
            bool sealed = stage(&t, &open) == 0;
            if (sealed) {
                struct kithi_group *g = kithi_group_seal(t.ix);
                for (uint32_t i = 0; i < kithi_group_job_count(g); i++)
                    kithi_group_job(t.ix, g, 0, i);
            }
            enlarge_end(&t, &l);
            if (sealed)
                publish(&t, &open);
            kithi_index_close(l.next);
            assert_content(&t, kithi_index_epoch(t.ix));
            assert_true(test_solo_clean(&t));
            /* There is room again. */
            for (unsigned i = 0; i < 10; i++)
                assert_true(change(&t));
            assert_content(&t, kithi_index_epoch(t.ix));
        }
        test_solo_settle(&t);
        assert_true(test_solo_clean(&t));
        assert_content(&t, kithi_index_epoch(t.ix));
        test_solo_close(&t);
    }
}

/* Whoever adopts the larger segment finds what its owner would have gone on with: a group that is under way is taken back. */
static void a_successor_finds_the_larger_segment_whole(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        static struct staged open;
        struct test_solo t;
        struct larger l;
        struct kithi_errmsg err;
        begin(&t, KITHI_METRIC_L2);
        for (unsigned i = 0; i < 60; i++) {
            (void)change(&t);
            (void)test_solo_sweep(&t, test_rand_below(&r, 300));
        }
        assert_int_equal(enlarge_begin(&t, &l, &err), 0);
        (void)piece(&l, 100);
        uint64_t epoch = kithi_index_epoch(t.ix);
        if (stage(&t, &open) == 0) {
            struct kithi_group *g = kithi_group_seal(t.ix);
            for (uint32_t i = 0; i < kithi_group_job_count(g); i++)
                kithi_group_job(t.ix, g, 0, i);
        }
        enlarge_end(&t, &l);
        kithi_index_close(l.next);
        test_solo_leave(&t);
        if (round % 2)
            test_solo_forget_notes(&t);
        if (test_solo_adopt(&t, &err) != 0)
            fail_msg("%s", err.text);
        assert_content(&t, epoch);
        assert_true(test_solo_clean(&t));
        for (unsigned i = 0; i < 20; i++)
            assert_true(change(&t));
        test_solo_settle(&t);
        assert_true(test_solo_clean(&t));
        assert_content(&t, kithi_index_epoch(t.ix));
        test_solo_close(&t);
    }
}

static void giving_up_leaves_the_index_as_it_is(void **state)
{
    (void)state;
    struct test_solo t;
    struct larger l;
    struct kithi_errmsg err;
    begin(&t, KITHI_METRIC_L2);
    for (unsigned i = 0; i < 30; i++)
        (void)change(&t);
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(enlarge_begin(&t, &l, &err), 0);
        for (unsigned i = 0; i < round * 3; i++) {
            (void)piece(&l, 2);
            (void)change(&t);
        }
        kithi_enlarge_end(l.e);
        kithi_index_close(l.next);
        assert_int_equal(unlink(l.path), 0);
        (void)change(&t);
        (void)test_solo_sweep(&t, 300);
    }
    assert_int_equal(test_solo_map(&t)->geometry.slot_max, SLOTS);
    test_solo_settle(&t);
    assert_content(&t, kithi_index_epoch(t.ix));
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void an_empty_index_grows(void **state)
{
    (void)state;
    struct test_solo t;
    struct larger l;
    struct kithi_errmsg err;
    float v[DIM] = { 1 };
    begin(&t, KITHI_METRIC_L2);
    assert_int_equal(enlarge_begin(&t, &l, &err), 0);
    enlarge_end(&t, &l);
    kithi_index_close(l.next);
    assert_true(test_solo_clean(&t));
    assert_int_equal(test_solo_put(&t, "first", v), 0);
    assert_int_equal(test_solo_search(&t, v, 3, 10, false), 1);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* [P11 image] An image goes on with the segment of which it is taken; nothing is held back for it in the larger one. */
static void an_image_outlives_its_segment(void **state)
{
    (void)state;
    struct test_solo t, copy;
    struct larger l;
    struct kithi_errmsg err;
    struct kithi_image *image;
    struct kithi_restore *restore;
    begin(&t, KITHI_METRIC_L2);
    for (unsigned i = 0; i < 60; i++) {
        (void)change(&t);
        (void)test_solo_sweep(&t, test_rand_below(&r, 300));
    }
    assert_int_equal(kithi_image_begin(t.ix, &image, &err), 0);
    const struct kithi_image_shape *s = kithi_image_shape(image);
    unsigned char *records = malloc(s->regions[KITHI_REGION_RECORDS].bytes);
    assert_non_null(records);
    kithi_image_copy(image, KITHI_REGION_RECORDS, 0, (uint32_t)s->regions[KITHI_REGION_RECORDS].bytes,
                     records);
    assert_int_equal(enlarge_begin(&t, &l, &err), 0);
    (void)piece(&l, 100);
    for (unsigned i = 0; i < 5; i++)
        (void)change(&t);
    enlarge_end(&t, &l);
    assert_int_equal(kithi_image_held(t.ix), 0);
    for (unsigned i = 0; i < 40; i++) {
        assert_true(change(&t));
        (void)test_solo_sweep(&t, 1000);
    }
    /* Into a segment of the larger ceiling, as a start does. */
    copy = t;
    kithi_scratch_init(&copy.scratch);
    kithi_results_init(&copy.results);
    snprintf(copy.path, sizeof copy.path, "%s/restored", t.dir.path);
    assert_int_equal(kithi_restore_begin(copy.path, &t.identity, 2, &t.tuning, s, &restore, &err), 0);
    for (unsigned region = 0; region < KITHI_REGION_COUNT; region++) {
        uint64_t bytes = s->regions[region].bytes;
        if (!bytes)
            continue;
        assert_int_equal(kithi_restore_need(restore, region, 0, bytes, &err), 0);
        if (region == KITHI_REGION_RECORDS)
            memcpy(kithi_restore_place(restore, region, 0), records, bytes);
        else
            kithi_image_copy(image, region, 0, (uint32_t)bytes, kithi_restore_place(restore, region, 0));
    }
    uint64_t epoch = s->epoch;
    kithi_image_end(image);
    kithi_index_close(l.next);
    assert_int_equal(kithi_restore_end(restore, NULL, &copy.ix, &err), 0);
    assert_true(test_solo_clean(&copy));
    assert_content(&copy, epoch);
    kithi_index_close(copy.ix);
    kithi_scratch_fini(&copy.scratch);
    kithi_results_fini(&copy.results);
    free(records);
    assert_content(&t, kithi_index_epoch(t.ix));
    test_solo_close(&t);
}

/* ---- beside workers ---- */

struct copier {
    pthread_t thread;
    struct kithi_enlarge *e;
    uint32_t n;
};

static void *copier_main(void *arg)
{
    const struct copier *c = arg;
    for (uint32_t i = 0; i < c->n; i++)
        kithi_enlarge_job(c->e, i);
    return NULL;
}

/* [P16 copied] Copies run beside insertions and sweeps of several threads; the bytes are compared at the end. */
static void copies_beside_workers_miss_no_store(void **state)
{
    (void)state;
    enum { GROUP = 200, LIVE = 20000 };
    struct test_dir dir;
    struct test_index t;
    struct kithi_errmsg err;
    char path[TEST_PATH_SIZE], other[TEST_PATH_SIZE], ids[GROUP][TEST_ID_SIZE];
    static float vectors[GROUP][DIM];
    struct kithi_op ops[GROUP];
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 1u << 16);
    test_dir_make_shm(&dir);
    snprintf(path, sizeof path, "%s", test_path(&dir, "segment"));
    test_index_create(&t, path, &g, 3, 1, 1);
    for (unsigned round = 0; round < (test_long() ? 30 : 2); round++) {
        struct kithi_index_identity id;
        struct kithi_index_tuning tuning = { .worker_count = 3, .grace_ms = 1, .rest_ms = 1 };
        const struct kithi_map *map = test_index_map(&t);
        struct kithi_index *next;
        struct copier c;
        memcpy(id.uid, map->uid, sizeof id.uid);
        memcpy(id.hash_key, map->hash_key, sizeof id.hash_key);
        id.geometry = map->geometry;
        id.geometry.slot_max *= 2;
        snprintf(other, sizeof other, "%s", test_path(&dir, "next"));
        assert_int_equal(kithi_index_create(other, &id, round + 2, &tuning, &next, &err), 0);
        assert_int_equal(kithi_enlarge_new(&map->geometry, next, &c.e, &err), 0);
        for (unsigned part = 0; part < 40; part++) {
            if (part == 8)
                assert_int_equal(kithi_enlarge_begin(c.e, t.ix, &err), 0);
            c.n = part < 8 ? 0 : kithi_enlarge_collect(c.e, 100);
            assert_int_equal(pthread_create(&c.thread, NULL, copier_main, &c), 0);
            for (uint32_t i = 0; i < GROUP; i++) {
                snprintf(ids[i], sizeof ids[i], "%s%u",
                         i % 7 ? "" : "an id that is longer than a record has room for ",
                         test_rand_below(&r, LIVE));
                test_rand_floats(&r, vectors[i], DIM);
                ops[i] = test_upsert(ids[i], vectors[i], DIM);
            }
            assert_int_equal(test_index_commit(&t, ops, GROUP, &err), 0);
            assert_int_equal(pthread_join(c.thread, NULL), 0);
            assert_int_equal(kithi_enlarge_collected(c.e, &err), 0);
        }
        assert_true(test_index_settle(&t, 60000));
        if (kithi_enlarge_finish(c.e, &err) < 0)
            fail_msg("%s", err.text);
        kithi_enlarge_swap(c.e);
        kithi_enlarge_end(c.e);
        assert_same(kithi_index_map(next), test_index_map(&t));
        assert_int_equal(rename(other, path), 0);
        kithi_index_close(next);
        assert_true(test_verify_clean(test_index_map(&t)));
    }
    test_index_close(&t);
    test_dir_remove(&dir);
}

#ifdef KITH_FAULT_POINTS
static void no_room_is_said_before_anything_is_copied(void **state)
{
    (void)state;
    struct test_solo t;
    struct larger l;
    struct kithi_errmsg err;
    begin(&t, KITHI_METRIC_L2);
    for (unsigned i = 0; i < 10; i++)
        (void)change(&t);
    setenv("KITH_FAULT", "enlarge-no-space", 1);
    assert_int_equal(enlarge_begin(&t, &l, &err), KITHI_E_NO_SPACE);
    unsetenv("KITH_FAULT");
    kithi_enlarge_end(l.e);
    kithi_index_close(l.next);
    assert_int_equal(unlink(l.path), 0);
    assert_true(change(&t));
    assert_content(&t, kithi_index_epoch(t.ix));
    test_solo_close(&t);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_that_changes_goes_on_in_a_larger_segment),
        cmocka_unit_test(a_successor_finds_the_larger_segment_whole),
        cmocka_unit_test(giving_up_leaves_the_index_as_it_is),
        cmocka_unit_test(an_empty_index_grows),
        cmocka_unit_test(an_image_outlives_its_segment),
        cmocka_unit_test(copies_beside_workers_miss_no_store),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(no_room_is_said_before_anything_is_copied),
#endif
    };
    test_rand_init(&r);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
