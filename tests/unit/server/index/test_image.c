/*
 * test_image.c - an image that is taken while the index changes, restored and replayed, is the index: at the epoch of
 * the image, and at every later one.
 */
#include "server/index/image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/index/restore.h"
#include "shm/graph/view.h"
#include "tests/support/codes.h"
#include "tests/support/model.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

enum { DIM = 20, IDS = 900, SLOTS = 6000, OPS_MAX = 40, GROUPS_MAX = 4000 };

/* One committed group, to be replayed. */
struct group {
    uint64_t epoch;
    uint32_t n;
    uint32_t ids[OPS_MAX];
    uint64_t versions[OPS_MAX]; /* 0: deleted */
};

static struct test_rand r;
static struct test_model *model;
static struct group *groups;
static uint32_t group_count;

static void apply(struct test_solo *t, const struct group *g)
{
    static float vectors[OPS_MAX][DIM];
    static char ids[OPS_MAX][TEST_ID_SIZE];
    struct kithi_op ops[OPS_MAX];
    for (uint32_t i = 0; i < g->n; i++) {
        test_model_id_format(g->ids[i], ids[i]);
        test_model_vector(model, g->ids[i], g->versions[i], vectors[i]);
        ops[i] = g->versions[i] ? test_upsert(ids[i], vectors[i], DIM) : test_delete(ids[i]);
    }
    assert_int_equal(test_solo_commit(t, ops, g->n), 0);
}

/* A group of random changes: mostly upserts, some of ids that are there. */
static void change(struct test_solo *t)
{
    assert_true(group_count < GROUPS_MAX);
    struct group *g = &groups[group_count++];
    g->n = 1 + test_rand_below(&r, OPS_MAX);
    g->epoch = kithi_index_epoch(t->ix) + 1;
    for (uint32_t i = 0; i < g->n; i++) {
        g->ids[i] = test_rand_below(&r, IDS);
        g->versions[i] = test_rand_below(&r, 4) ? test_model_version_new(model) : 0;
    }
    apply(t, g);
    assert_int_equal(kithi_index_epoch(t->ix), g->epoch);
    for (uint32_t i = 0; i < g->n; i++)
        test_model_note(model, g->ids[i], g->epoch, g->versions[i]);
    test_model_complete(model, g->epoch);
}

/* Time passes: the dead are unlinked, rest, and are reused. */
static void pass_time(struct test_solo *t)
{
    (void)test_solo_sweep(t, test_rand_below(&r, 300));
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

/* The smallest pieces that an image may be copied in: pages that hold whole items. */
static uint32_t piece_of(const struct kithi_layout *l, unsigned region)
{
    uint32_t bytes = 4096;
    while (bytes % l->unit[region])
        bytes += 4096;
    return bytes;
}

struct held {
    struct kithi_image_shape shape;
    unsigned char *bytes[KITHI_REGION_COUNT];
};

/* Copy one region in pieces, in an order of its own; busy: while the index changes. */
static void copy_region(struct test_solo *t, struct kithi_image *image, struct held *held, unsigned region,
                        bool busy)
{
    uint64_t bytes = held->shape.regions[region].bytes;
    uint32_t piece = piece_of(&test_solo_map(t)->layout, region);
    uint32_t count = (uint32_t)((bytes + piece - 1) / piece), first = count ? test_rand_below(&r, count) : 0;
    assert_int_equal(held->shape.regions[region].chunk % piece, 0);
    held->bytes[region] = aligned_alloc(64, (size_t)count * piece + 64);
    assert_non_null(held->bytes[region]);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t off = (uint64_t)((first + i) % count) * piece;
        uint32_t len = bytes - off < piece ? (uint32_t)(bytes - off) : piece;
        assert_int_equal(kithi_image_copy(image, region, off, len, held->bytes[region] + off), 0);
        if (busy && (i == 0 || test_rand_below(&r, 3) == 0))
            change(t);
        if (busy)
            pass_time(t);
    }
}

static void take(struct test_solo *t, struct held *held, bool busy)
{
    struct kithi_image *image;
    struct kithi_errmsg err;
    memset(held, 0, sizeof *held);
    assert_int_equal(kithi_image_begin(t->ix, &image, &err), 0);
    held->shape = *kithi_image_shape(image);
    assert_int_equal(held->shape.epoch, kithi_index_epoch(t->ix));
    copy_region(t, image, held, KITHI_REGION_RECORDS, busy);
    for (unsigned region = KITHI_REGION_COUNT; region-- > 0;)
        if (region != KITHI_REGION_RECORDS)
            copy_region(t, image, held, region, busy);
    kithi_image_end(image);
    assert_int_equal(kithi_image_held(t->ix), 0);
}

static int restore_until(const struct test_solo *t, const struct held *held, const char *name,
                         const _Atomic bool *stop, struct test_solo *out)
{
    struct kithi_restore *restore;
    struct kithi_errmsg err;
    *out = *t;
    kithi_scratch_init(&out->scratch);
    kithi_results_init(&out->results);
    out->ix = NULL;
    snprintf(out->path, sizeof out->path, "%s/%s", t->dir.path, name);
    int rc = kithi_restore_begin(out->path, &t->identity, 2, &t->tuning, &held->shape, &restore, &err);
    if (rc < 0)
        return rc;
    for (unsigned region = 0; region < KITHI_REGION_COUNT; region++) {
        uint64_t bytes = held->shape.regions[region].bytes;
        if (bytes == 0)
            continue;
        assert_int_equal(kithi_restore_need(restore, region, bytes / 2, bytes - bytes / 2, &err), 0);
        assert_int_equal(kithi_restore_need(restore, region, 0, bytes, &err), 0);
        memcpy(kithi_restore_place(restore, region, 0), held->bytes[region], bytes);
    }
    rc = kithi_restore_end(restore, stop, &out->ix, &err);
    if (rc < 0)
        print_message("restore: %s\n", err.text);
    return rc;
}

static int restore(const struct test_solo *t, const struct held *held, const char *name,
                   struct test_solo *out)
{
    return restore_until(t, held, name, NULL, out);
}

static void held_free(struct held *held)
{
    for (unsigned region = 0; region < KITHI_REGION_COUNT; region++)
        free(held->bytes[region]);
}

static void restored_free(struct test_solo *t)
{
    kithi_index_close(t->ix);
    kithi_scratch_fini(&t->scratch);
    kithi_results_fini(&t->results);
}

static void begin(struct test_solo *t, uint32_t metric)
{
    struct kithi_geometry g = test_geometry(DIM, metric, SLOTS);
    test_solo_open(t, &g);
    model = test_model_new(test_rand_u64(&r), IDS, DIM, metric == KITHI_METRIC_COSINE);
    model->kept = kithi_geometry_kept(&g);
    group_count = 0;
    for (unsigned i = 0; i < 120; i++) {
        change(t);
        pass_time(t);
    }
}

/* How many of the living are found by a walk to themselves. */
static double found_share(struct test_solo *t, uint64_t epoch)
{
    uint32_t found = 0, live = 0;
    for (uint32_t id = 0; id < IDS; id++) {
        float v[DIM];
        uint64_t version;
        char text[TEST_ID_SIZE];
        assert_true(test_model_at(model, id, epoch, &version));
        if (!version)
            continue;
        test_model_vector(model, id, version, v);
        test_model_id_format(id, text);
        int n = test_solo_search(t, v, 3, 64, false);
        live++;
        for (int i = 0; i < n; i++)
            found += strcmp(test_solo_hit(t, (uint32_t)i), text) == 0;
    }
    return (double)found / live;
}

static void an_image_of_a_busy_index_becomes_that_index(void **state)
{
    (void)state;
    for (unsigned round = 0; round < (test_long() ? 40 : 4); round++) {
        struct test_solo t, copy;
        struct held held;
        begin(&t, round % 2 ? KITHI_METRIC_COSINE : KITHI_METRIC_L2);
        uint32_t before = group_count;
        take(&t, &held, true);
        assert_true(group_count >= before + 4); /* once for each region at least */
        assert_int_equal(restore(&t, &held, "restored", &copy), 0);
        assert_true(test_solo_clean(&copy));
        assert_content(&copy, held.shape.epoch);
        /* Whatever the epoch at which the replay stops. */
        for (uint32_t i = before; i < group_count; i++) {
            assert_int_equal(groups[i].epoch, kithi_index_epoch(copy.ix) + 1);
            apply(&copy, &groups[i]);
            if (test_rand_below(&r, 4) == 0)
                (void)test_solo_sweep(&copy, test_rand_below(&r, 500));
            if (test_rand_below(&r, 8) == 0) {
                assert_true(test_solo_clean(&copy));
                assert_content(&copy, groups[i].epoch);
            }
        }
        uint64_t epoch = kithi_index_epoch(t.ix);
        assert_content(&copy, epoch);
        test_solo_settle(&copy);
        assert_true(test_solo_clean(&copy));
        assert_content(&copy, epoch);
        assert_true(found_share(&copy, epoch) >= found_share(&t, epoch) - 0.01);
        restored_free(&copy);
        held_free(&held);
        test_solo_close(&t);
    }
}

static void an_image_of_an_index_at_rest_needs_nothing_more(void **state)
{
    (void)state;
    struct test_solo t, copy;
    struct held held;
    begin(&t, KITHI_METRIC_L2);
    test_solo_settle(&t);
    take(&t, &held, false);
    assert_int_equal(restore(&t, &held, "restored", &copy), 0);
    assert_content(&copy, kithi_index_epoch(t.ix));
    /* No link was left out, and nobody is dead. */
    assert_int_equal(atomic_load(&test_solo_header(&copy)->tally_dead), 0);
    assert_int_equal(atomic_load(&test_solo_header(&copy)->tally_free),
                     atomic_load(&test_solo_header(&t)->tally_free));
    struct kithi_view a, b;
    kithi_view_begin(test_solo_map(&t), &a);
    kithi_view_begin(test_solo_map(&copy), &b);
    for (uint32_t slot = 0; slot < a.slots_used; slot++)
        if (atomic_load(&kithi_view_record(&a, slot)->linked))
            assert_memory_equal(kithi_view_row(&a, slot), kithi_view_row(&b, slot), a.row_stride);
    assert_true(found_share(&copy, kithi_index_epoch(t.ix)) >=
                found_share(&t, kithi_index_epoch(t.ix)) - 0.005);
    restored_free(&copy);
    held_free(&held);
    test_solo_close(&t);
}

static void making_an_index_can_be_told_to_stop(void **state)
{
    (void)state;
    struct test_solo t, copy;
    struct held held;
    _Atomic bool stop = true;
    begin(&t, KITHI_METRIC_L2);
    take(&t, &held, false);
    assert_int_equal(restore_until(&t, &held, "stopped", &stop, &copy), -ECANCELED);
    assert_null(copy.ix);
    atomic_store(&stop, false);
    assert_int_equal(restore_until(&t, &held, "restored", &stop, &copy), 0);
    assert_content(&copy, kithi_index_epoch(t.ix));
    restored_free(&copy);
    held_free(&held);
    test_solo_close(&t);
}

/* [P11 image] What an image is of stays as it is until the image ends, and is freed afterwards. */
static void slots_of_an_image_are_not_reused(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_image *image;
    struct kithi_errmsg err;
    begin(&t, KITHI_METRIC_L2);
    test_solo_settle(&t);
    assert_int_equal(kithi_image_begin(t.ix, &image, &err), 0);
    for (unsigned i = 0; i < 20; i++)
        change(&t);
    for (unsigned i = 0; i < 20; i++)
        (void)test_solo_sweep(&t, 1000);
    uint32_t held = kithi_image_held(t.ix);
    assert_true(held > 50);
    assert_int_equal(atomic_load(&test_solo_header(&t)->tally_resting), held);
    kithi_image_end(image);
    (void)test_solo_sweep(&t, 1000);
    assert_int_equal(atomic_load(&test_solo_header(&t)->tally_resting), 0);
    test_solo_close(&t);
}

static void an_empty_index_has_an_image(void **state)
{
    (void)state;
    struct test_solo t, copy;
    struct held held;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, SLOTS);
    test_solo_open(&t, &g);
    take(&t, &held, false);
    assert_int_equal(restore(&t, &held, "restored", &copy), 0);
    assert_true(test_solo_clean(&copy));
    assert_int_equal(kithi_index_live(copy.ix), 0);
    float v[DIM] = { 1 };
    assert_int_equal(test_solo_put(&copy, "first", v), 0);
    assert_int_equal(test_solo_search(&copy, v, 3, 10, false), 1);
    restored_free(&copy);
    held_free(&held);
    test_solo_close(&t);
}

/* An image that was summed rightly and makes no sense: a start goes on with an older one. */
static void an_image_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    struct test_solo t, copy;
    struct held held;
    begin(&t, KITHI_METRIC_L2);
    test_solo_settle(&t);
    take(&t, &held, false);
    struct kithi_record *records = (struct kithi_record *)(void *)held.bytes[KITHI_REGION_RECORDS];
    uint32_t some = 0;
    while (!atomic_load(&records[some].linked))
        some++;
    uint32_t other = some + 1;
    while (!atomic_load(&records[other].linked))
        other++;
    struct kithi_record kept = records[some];
    char name[32];
    for (unsigned i = 0; i < 5; i++) {
        switch (i) {
        case 0: atomic_store(&records[some].meta, kithi_meta_pack(0, 0)); break;
        case 1: atomic_store(&records[some].upper, held.shape.uppers + 7); break;
        case 2: atomic_store(&records[some].linked, 0); break;
        case 3: /* its id is that of another */
            atomic_store(&records[some].meta, atomic_load(&records[other].meta) & 0xffff);
            atomic_store(&records[some].upper, 0);
            for (unsigned j = 0; j < 3; j++)
                atomic_store(&records[some].id[j], atomic_load(&records[other].id[j]));
            break;
        default: held.shape.live++; break;
        }
        snprintf(name, sizeof name, "bad-%u", i);
        assert_int_equal(restore(&t, &held, name, &copy), KITHI_E_CORRUPT);
        memcpy(&records[some], &kept, sizeof kept);
    }
    held.shape.live--;
    held.shape.regions[KITHI_REGION_ROWS].bytes += 4096;
    assert_int_equal(restore(&t, &held, "bad-bytes", &copy), KITHI_E_CORRUPT);
    held.shape.regions[KITHI_REGION_ROWS].bytes -= 4096;
    held.shape.slots = SLOTS + 1;
    assert_int_equal(restore(&t, &held, "bad-slots", &copy), KITHI_E_CORRUPT);
    held_free(&held);
    test_solo_close(&t);
}

/* Ceilings that the geometry sets, each by itself; and rows so long that a chunk of whole pages is longer than usual. */
static void an_image_that_is_larger_than_its_geometry_is_refused(void **state)
{
    (void)state;
    struct kithi_errmsg err;
    struct kithi_geometry g = {
        .dim = 40, .metric = KITHI_METRIC_L2, .m = 8, .ef_construction = 40, .slot_max = 1000
    };
    struct kithi_layout l;
    kithi_geometry_want(&g, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32);
    assert_int_equal(kithi_geometry_check(&g, &err), 0);
    kithi_geometry_layout(&g, &l);
    assert_true(l.size[KITHI_REGION_CODES] > 0);
    struct kithi_image_shape most = { .live = 1000, .slots = 1000, .uppers = l.upper_max };
    memcpy(most.blobs, l.blob_max, sizeof most.blobs);
    for (unsigned i = 0; i < 4 + KITHI_BLOB_CLASS_COUNT; i++) {
        struct kithi_image_shape s = most;
        s.live += i == 1;
        s.slots += i == 2;
        s.uppers += i == 3;
        if (i > 3)
            s.blobs[i - 4]++;
        assert_int_equal(kithi_image_regions(&g, &l, &s, &err), i ? KITHI_E_CORRUPT : 0);
        if (i)
            assert_non_null(strstr(err.text, "more than the collection has room for"));
    }
    g.dim = 4096;
    g.m = 64;
    kithi_geometry_want(&g, KITHI_QUANTIZATION_BITS, KITHI_KEEP_NONE);
    assert_int_equal(kithi_geometry_check(&g, &err), 0);
    kithi_geometry_layout(&g, &l);
    struct kithi_image_shape s = { .live = 1, .slots = 10 };
    assert_int_equal(kithi_image_regions(&g, &l, &s, &err), 0);
    const uint32_t chunk = s.regions[KITHI_REGION_ROWS].chunk;
    assert_true(chunk > 1u << 20 && chunk % 4096 == 0 && chunk % l.unit[KITHI_REGION_ROWS] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_of_a_busy_index_becomes_that_index),
        cmocka_unit_test(an_image_of_an_index_at_rest_needs_nothing_more),
        cmocka_unit_test(making_an_index_can_be_told_to_stop),
        cmocka_unit_test(slots_of_an_image_are_not_reused),
        cmocka_unit_test(an_empty_index_has_an_image),
        cmocka_unit_test(an_image_that_makes_no_sense_is_refused),
        cmocka_unit_test(an_image_that_is_larger_than_its_geometry_is_refused),
    };
    test_rand_init(&r);
    groups = calloc(GROUPS_MAX, sizeof *groups);
    return groups ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
