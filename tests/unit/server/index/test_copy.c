/*
 * test_copy.c - a copy in another layout shows what the original shows, at the same epoch, and goes on from there.
 */
#include "server/index/copy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "server/index/sampler.h"
#include "shm/graph/lookup.h"
#include "shm/graph/view.h"
#include "tests/support/codes.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM   24u
#define COUNT 3000u /* more than one part */
#define BATCH 500u

static struct test_rand r;
static float vectors[COUNT][DIM];

/* Every seventh id does not fit into a record. */
static void name(uint32_t i, char out[80])
{
    snprintf(out, 80, i % 7 ? "v%u" : "an id that is longer than what a record holds, and a number: %u", i);
}

static bool is_gone(uint32_t i)
{
    return i % 10 == 3;
}

/* COUNT vectors; some were replaced, some deleted, and nothing was swept. */
static void fill(struct test_solo *t, uint32_t metric)
{
    static char ids[BATCH][80];
    struct kithi_op ops[BATCH];
    struct kithi_geometry g = test_geometry(DIM, metric, 4 * COUNT);
    test_solo_open(t, &g);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t first = 0; first < COUNT; first += BATCH) {
            for (uint32_t i = 0; i < BATCH; i++) {
                name(first + i, ids[i]);
                test_rand_floats(&r, vectors[first + i], DIM);
                ops[i] = test_upsert(ids[i], vectors[first + i], DIM);
            }
            /* In the second round a tenth only, whose vectors the model has anew. */
            assert_int_equal(test_solo_commit(t, ops, round ? BATCH / 10 : BATCH), 0);
            if (round)
                for (uint32_t i = BATCH / 10; i < BATCH; i++)
                    assert_int_equal(test_solo_get(t, ids[i], vectors[first + i]), 0);
        }
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        char id[80];
        name(i, id);
        if (is_gone(i))
            assert_int_equal(test_solo_delete(t, id), 0);
    }
}

/* A stage of the copy, and its jobs. True once nothing is left. */
static bool step(struct test_solo *t, struct kithi_copy *copy, bool last)
{
    struct kithi_errmsg err;
    struct kithi_copy_state s;
    int jobs = kithi_copy_stage(copy, ++t->now_ms * 1000, last, &err);
    if (jobs < 0)
        fail_msg("%s", err.text);
    for (int i = 0; i < jobs; i++)
        kithi_copy_job(copy, 0, (uint32_t)i);
    kithi_copy_state(copy, &s);
    return s.whole && s.noted == s.taken;
}

/* The copy takes the place of the solo's index, which shows the same. */
static void take_place(struct test_solo *t, struct kithi_copy *copy, struct kithi_index *next)
{
    struct kithi_errmsg err;
    assert_int_equal(kithi_copy_finish(copy, t->now_ms, &err), 0);
    const struct kithi_header *from = kithi_map_header(kithi_index_map(t->ix));
    const struct kithi_header *to = kithi_map_header(kithi_index_map(next));
    uint64_t epoch = atomic_load(&from->epoch);
    assert_int_equal(atomic_load(&to->epoch), epoch);
    assert_int_equal(kithi_index_epoch(next), epoch);
    assert_int_equal(atomic_load(&to->durable_epoch), atomic_load(&from->durable_epoch));
    assert_int_equal(atomic_load(&to->timeline), atomic_load(&from->timeline));
    assert_int_equal(atomic_load(&to->unlinked), epoch);
    assert_int_equal(atomic_load(&to->reused), epoch);
    assert_int_equal(atomic_load(&to->live), kithi_index_live(t->ix));
    kithi_copy_end(copy);
    kithi_index_close(t->ix);
    kithi_index_tune(next, t->tuning.grace_ms, t->tuning.rest_ms);
    t->ix = next;
    assert_true(test_solo_clean(t));
}

/* The next segment of a solo, in that layout. */
static struct kithi_index *next_of(struct test_solo *t, uint32_t quantization, uint32_t keep)
{
    struct kithi_errmsg err;
    struct kithi_index *next;
    static uint32_t number;
    snprintf(t->path, sizeof t->path, "%s/segment.%u", t->dir.path, number++);
    kithi_geometry_want(&t->identity.geometry, quantization, keep);
    assert_int_equal(kithi_index_create(t->path, &t->identity, 2, &t->tuning, &next, &err), 0);
    assert_int_equal(kithi_map_header(kithi_index_map(next))->quantization, quantization);
    return next;
}

/* A copy into next, of which nothing is copied yet. */
static struct kithi_copy *copy_into(struct test_solo *t, struct kithi_index *next)
{
    struct kithi_errmsg err;
    struct kithi_copy *copy;
    assert_int_equal(kithi_copy_begin(t->ix, &copy, &err), 0);
    assert_int_equal(kithi_copy_fill(copy, next, &err), 0);
    return copy;
}

/* Why a copy into next does not come to its end, which is closed. */
static int why_not(struct test_solo *t, struct kithi_index *next, struct kithi_errmsg *err)
{
    struct kithi_copy *copy = copy_into(t, next);
    int rc;
    while ((rc = kithi_copy_stage(copy, t->now_ms * 1000, false, err)) > 0)
        for (int i = 0; i < rc; i++)
            kithi_copy_job(copy, 0, (uint32_t)i);
    kithi_copy_end(copy);
    kithi_index_close(next);
    return rc;
}

/* The same solo with the copy in its index's place. */
static void relay(struct test_solo *t, uint32_t quantization, uint32_t keep)
{
    struct kithi_index *next = next_of(t, quantization, keep);
    struct kithi_copy *copy = copy_into(t, next);
    int steps = 0;
    while (!step(t, copy, false))
        steps++;
    assert_true(kithi_index_live(t->ix) == 0 || steps > 1);
    take_place(t, copy, next);
}

static void assert_all_there(struct test_solo *t, float tolerance)
{
    uint32_t found = 0, live = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        char id[80];
        float v[DIM];
        name(i, id);
        int rc = test_solo_get(t, id, v);
        assert_int_equal(rc, is_gone(i) ? KITHI_E_NOT_FOUND : 0);
        if (is_gone(i))
            continue;
        live++;
        for (uint32_t j = 0; j < DIM; j++)
            if (fabsf(v[j] - vectors[i][j]) > tolerance)
                fail_msg("%s: element %u is %g and was %g", id, j, v[j], vectors[i][j]);
        if (i % 20)
            continue;
        assert_int_equal(test_solo_search(t, vectors[i], 5, 64, false), 5);
        found += strcmp(test_solo_hit(t, 0), id) == 0;
    }
    assert_int_equal(kithi_index_live(t->ix), live);
    assert_true(found * 100 >= (live / 18) * 95);
}

static void a_copy_shows_what_the_original_shows_in_every_layout(void **state)
{
    (void)state;
    static const struct {
        uint32_t metric, quantization, keep;
        float tolerance;
    } cases[] = {
        { KITHI_METRIC_L2, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32, 0 },
        { KITHI_METRIC_COSINE, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32, 2e-6f },
        { KITHI_METRIC_IP, KITHI_QUANTIZATION_F16, KITHI_KEEP_NONE, 1e-3f },
        { KITHI_METRIC_COSINE, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F16, 2e-3f },
        { KITHI_METRIC_L2, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32, 0 },
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct test_solo t;
        fill(&t, cases[i].metric);
        relay(&t, cases[i].quantization, cases[i].keep);
        assert_all_there(&t, cases[i].tolerance);
        test_solo_close(&t);
    }
}

static void a_copy_takes_groups_and_sweeps_and_is_adopted_as_any_segment_is(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    fill(&t, KITHI_METRIC_L2);
    relay(&t, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32);
    uint64_t epoch = kithi_index_epoch(t.ix);
    for (uint32_t i = 0; i < 200; i++) {
        char id[80];
        uint32_t which = 10 * i;
        name(which, id);
        test_rand_floats(&r, vectors[which], DIM);
        assert_int_equal(test_solo_put(&t, id, vectors[which]), 0);
    }
    assert_int_equal(kithi_index_epoch(t.ix), epoch + 200);
    test_solo_settle(&t);
    assert_true(test_solo_clean(&t));
    assert_all_there(&t, 0);
    test_solo_leave(&t);
    assert_int_equal(test_solo_adopt(&t, &err), 0);
    assert_true(test_solo_clean(&t));
    assert_all_there(&t, 0);
    test_solo_close(&t);
}

static void nothing_is_copied_from_nothing_but_the_epoch(void **state)
{
    (void)state;
    struct test_solo t;
    float v[DIM] = { 1 };
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 100);
    test_solo_open(&t, &g);
    relay(&t, KITHI_QUANTIZATION_SQ8, KITHI_KEEP_F32); /* of epoch 0 */
    assert_int_equal(test_solo_put(&t, "a", v), 0);
    assert_int_equal(test_solo_delete(&t, "a"), 0);
    relay(&t, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32);
    assert_int_equal(kithi_index_epoch(t.ix), 2);
    assert_int_equal(test_solo_search(&t, v, 5, 64, false), 0);
    assert_int_equal(test_solo_put(&t, "b", v), 0);
    assert_int_equal(test_solo_search(&t, v, 5, 64, false), 1);
    test_solo_close(&t);
}

static double length_of(const float *v)
{
    double sum = 0;
    for (uint32_t i = 0; i < DIM; i++)
        sum += (double)v[i] * v[i];
    return sqrt(sum);
}

/* No copy of such a vector is refused, and it does not drift from copy to copy. */
static void lengths_that_a_float_just_holds_stay_from_copy_to_copy(void **state)
{
    (void)state;
    enum { LONG = 80, COPIES = 5 };
    static float before[LONG][DIM];
    for (unsigned l = 0; l < TEST_ROUNDING_LAYOUTS; l++) {
        struct test_solo t;
        struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_COSINE, 4 * LONG);
        char id[80];
        uint32_t longer = 0;
        kithi_geometry_want(&g, test_rounding_layouts[l][0], test_rounding_layouts[l][1]);
        test_solo_open(&t, &g);
        for (uint32_t i = 0; i < LONG; i++) {
            float v[DIM];
            test_rand_floats(&r, v, DIM);
            /* Half of them as long as may be, half of them as short. */
            double scale = (i % 2 ? 0.999999 * (double)FLT_MAX : 1e-30) / length_of(v);
            for (uint32_t j = 0; j < DIM; j++)
                v[j] = (float)(v[j] * scale);
            name(i, id);
            assert_int_equal(test_solo_put(&t, id, v), 0);
            assert_int_equal(test_solo_get(&t, id, v), 0);
            longer += length_of(v) > (double)FLT_MAX;
        }
        assert_true(longer > 0); /* else this is no test */
        relay(&t, test_rounding_layouts[l][0], test_rounding_layouts[l][1]);
        for (uint32_t i = 0; i < LONG; i++) {
            name(i, id);
            assert_int_equal(test_solo_get(&t, id, before[i]), 0);
            double ratio = length_of(before[i]) / (i % 2 ? (double)FLT_MAX : 1e-30);
            assert_true(ratio > 0.98 && ratio < 1.02);
        }
        for (uint32_t copy = 0; copy < COPIES; copy++)
            relay(&t, test_rounding_layouts[l][0], test_rounding_layouts[l][1]);
        for (uint32_t i = 0; i < LONG; i++) {
            float v[DIM];
            double was = length_of(before[i]);
            name(i, id);
            assert_int_equal(test_solo_get(&t, id, v), 0);
            for (uint32_t j = 0; j < DIM; j++)
                if (fabs((double)v[j] - (double)before[i][j]) > 1e-5 * was)
                    fail_msg("layout %u: %s: element %u is %g and was %g, length %.9g after %.9g", l, id, j,
                             v[j], before[i][j], length_of(v), was);
        }
        test_solo_close(&t);
    }
}

static void a_vector_that_cannot_be_copied_is_named(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err = { 0 };
    struct kithi_found found;
    struct kithi_view view;
    float v[DIM] = { 1 };
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 100);
    kithi_geometry_want(&g, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32);
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "whole", v), 0);
    assert_int_equal(test_solo_put(&t, "broken", v), 0);
    assert_int_equal(kithi_lookup(test_solo_map(&t), "broken", 6, NULL, &found), 0);
    kithi_view_begin(test_solo_map(&t), &view);
    memset((void *)(uintptr_t)kithi_view_vector(&view, found.slot), 0xff, sizeof v);
    struct kithi_index *next = next_of(&t, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32);
    assert_int_equal(why_not(&t, next, &err), KITHI_E_NOT_FINITE);
    assert_non_null(strstr(err.text, "\"broken\""));
    test_solo_close(&t);
}

static void a_copy_without_room_is_refused_and_leaves_the_original_alone(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err = { 0 };
    struct kithi_index *next;
    fill(&t, KITHI_METRIC_L2);
    struct kithi_index_identity small = t.identity;
    small.geometry.slot_max = 10;
    assert_int_equal(kithi_index_create(NULL, &small, 2, &t.tuning, &next, &err), 0);
    assert_int_equal(why_not(&t, next, &err), KITHI_E_FULL);
    assert_true(strlen(err.text) > 10);
    assert_all_there(&t, 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* ---- a copy of what changes ---- */

#define IDS   600u
#define ROOM  (IDS + 200u) /* slots of either index: less than the versions that come and go */
#define GROUP 24u

/* Payloads that change alone, each copied as it comes: more of them than the copy has blobs, none of which a death would free. */
static void a_copy_beside_changes_of_payloads_alone_forgets_what_it_has_replaced(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_copy *copy;
    struct kithi_errmsg err;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 10);
    float v[DIM] = { 1 };
    char text[16];
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "a", v), 0);
    struct kithi_index *next = next_of(&t, g.quantization, g.keep);
    uint32_t room = kithi_index_map(next)->layout.blob_max[0];
    assert_int_equal(kithi_copy_begin(t.ix, &copy, &err), 0);
    assert_int_equal(kithi_copy_fill(copy, next, &err), 0);
    struct kithi_op set = { .type = KITHI_OP_SET, .id = "a", .id_len = 1, .payload = text };
    for (uint32_t i = 0; i < 2 * room + 100; i++) {
        set.payload_len = (uint32_t)snprintf(text, sizeof text, "{\"n\":%u}", i);
        assert_int_equal(test_solo_commit(&t, &set, 1), 0);
        step(&t, copy, false);
        if (i % 1000 == 0)
            (void)test_solo_sweep(&t, 1000); /* of the original */
    }
    while (!step(&t, copy, false)) {
    }
    assert_true(kithi_map_header(kithi_index_map(next))->tally_versions < room / 2);
    take_place(&t, copy, next);
    const unsigned char *bytes;
    uint32_t len;
    assert_true(kithi_payload_current(t.ix, "a", 1, &bytes, &len));
    assert_int_equal(len, set.payload_len);
    assert_memory_equal(bytes, text, len);
    test_solo_close(&t);
}

/* What an id holds: the number of its version, 0: it is not there. */
static uint32_t versions[IDS];
static uint32_t next_version;

static void version_of(uint32_t id, uint32_t version, float *out)
{
    struct test_rand own;
    test_rand_seed(&own, (uint64_t)version << 32 | id);
    test_rand_floats(&own, out, DIM);
}

/* A group of some changes: the same id now and then twice in a row, deleted, and written again. */
static void change_some(struct test_solo *t)
{
    static char ids[GROUP][80];
    static float values[GROUP][DIM];
    struct kithi_op ops[GROUP];
    uint32_t n = 1 + test_rand_below(&r, GROUP), at = test_rand_below(&r, test_rand_below(&r, 2) ? IDS : 20);
    uint32_t after[GROUP], which[GROUP];
    for (uint32_t i = 0; i < n; i++) {
        which[i] = (at + i / (1 + test_rand_below(&r, 2))) % IDS;
        name(which[i], ids[i]);
        bool gone = test_rand_below(&r, 5) == 0;
        after[i] = gone ? 0 : ++next_version;
        version_of(which[i], after[i], values[i]);
        ops[i] = gone ? test_delete(ids[i]) : test_upsert(ids[i], values[i], DIM);
    }
    int rc = test_solo_commit(t, ops, n);
    if (rc == KITHI_E_FULL) { /* of what dies some is swept */
        test_solo_settle(t);
        return;
    }
    assert_int_equal(rc, 0);
    for (uint32_t i = 0; i < n; i++)
        versions[which[i]] = after[i];
}

/* A solo that so many groups went into. */
static void open_changed(struct test_solo *t, uint32_t groups)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, ROOM);
    memset(versions, 0, sizeof versions);
    next_version = 0;
    test_solo_open(t, &g);
    for (uint32_t i = 0; i < groups; i++)
        change_some(t);
}

static void assert_versions(struct test_solo *t)
{
    uint32_t live = 0;
    for (uint32_t i = 0; i < IDS; i++) {
        char id[80];
        float have[DIM], want[DIM];
        name(i, id);
        int rc = test_solo_get(t, id, have);
        assert_int_equal(rc, versions[i] ? 0 : KITHI_E_NOT_FOUND);
        if (!versions[i])
            continue;
        live++;
        version_of(i, versions[i], want);
        if (memcmp(have, want, sizeof want) != 0)
            fail_msg("%s is not of its version %u", id, versions[i]);
    }
    assert_int_equal(kithi_index_live(t->ix), live);
    float query[DIM];
    test_rand_floats(&r, query, DIM);
    assert_int_equal(test_solo_search(t, query, IDS, IDS, true), live); /* each once, then */
    if (live)
        assert_int_equal(test_solo_search(t, query, live < 20 ? live : 20, 200, false),
                         live < 20 ? live : 20);
}

/* A search that saw an epoch of the segment before is told that it cannot be seen any more. */
static void assert_old_epochs_are_gone(const struct test_solo *t)
{
    struct kithi_view v;
    kithi_view_begin(test_solo_map(t), &v);
    assert_false(kithi_view_unlinked(&v) || kithi_view_reused(&v));
    assert_true(v.epoch > 0);
    v.epoch--;
    assert_true(kithi_view_unlinked(&v) && kithi_view_reused(&v));
}

static void groups_between_any_two_stages_are_in_the_copy(void **state)
{
    (void)state;
    static const uint32_t quantizations[] = { KITHI_QUANTIZATION_NONE, KITHI_QUANTIZATION_BITS };
    for (uint32_t round = 0; round < (test_long() ? 200u : 8u); round++) {
        struct test_solo t;
        struct kithi_errmsg err;
        struct kithi_copy *copy;
        struct kithi_copy_state s;
        uint32_t left = test_rand_below(&r, 400), at_once = 1 + test_rand_below(&r, 8);
        uint32_t groups = 0, behind = 0;
        open_changed(&t, test_rand_below(&r, 80));
        struct kithi_index *next = next_of(&t, quantizations[round % 2], KITHI_KEEP_F32);
        assert_int_equal(kithi_copy_begin(t.ix, &copy, &err), 0);
        for (uint32_t i = test_rand_below(&r, 3); i > 0; i--)
            change_some(&t);
        assert_int_equal(kithi_copy_fill(copy, next, &err), 0);
        for (bool done = false; !done || left > 0;) {
            for (uint32_t i = test_rand_below(&r, at_once + 1); i > 0 && left > 0; i--, left--, groups++)
                change_some(&t);
            if (test_rand_below(&r, 3) == 0)
                test_solo_sweep(&t, 1 + test_rand_below(&r, 600)); /* slots are free, and filled again */
            done = step(&t, copy, left == 0 && test_rand_below(&r, 2));
            kithi_copy_state(copy, &s);
            behind = s.noted - s.taken > behind ? (uint32_t)(s.noted - s.taken) : behind;
        }
        take_place(&t, copy, next);
        assert_versions(&t);
        if (kithi_index_epoch(t.ix))
            assert_old_epochs_are_gone(&t);
        for (uint32_t i = 0; i < 20; i++)
            change_some(&t);
        test_solo_settle(&t);
        assert_true(test_solo_clean(&t));
        assert_versions(&t);
        test_solo_leave(&t);
        assert_int_equal(test_solo_adopt(&t, &err), 0);
        assert_versions(&t);
        test_solo_close(&t);
        if (round == 0)
            fprintf(stderr, "%u groups beside the copy, up to %u changes behind\n", groups, behind);
    }
}

/* Where what changes takes more memory than there is for it, some of it is copied before the first pass is over. */
static void changes_are_copied_amid_the_first_pass_where_notes_take_too_much(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_copy_state s;
    uint32_t amid = 0, crowded = 0;
    open_changed(&t, 100);
    struct kithi_index *next = next_of(&t, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32);
    struct kithi_copy *copy = copy_into(&t, next);
    change_some(&t);
    kithi_copy_state(copy, &s);
    assert_false(s.crowded); /* there are tens of MiB */
    kithi_copy_tune(copy, 0);
    for (uint32_t left = 60; left > 0 || s.slots_left || s.noted != s.taken; left -= left > 0) {
        if (left > 0)
            change_some(&t);
        test_solo_settle(&t);
        kithi_copy_state(copy, &s);
        crowded += s.crowded;
        step(&t, copy, false);
        kithi_copy_state(copy, &s);
        amid += s.taken > 0 && s.slots_left > 0;
    }
    assert_true(crowded > 0 && amid > 0);
    while (!step(&t, copy, true))
        continue;
    take_place(&t, copy, next);
    assert_versions(&t);
    test_solo_close(&t);
}

/* The next segment was made by somebody else, of what was there when the notes began. */
static void changes_follow_what_somebody_else_has_copied(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    struct kithi_copy *copy;
    open_changed(&t, 100);
    struct kithi_index *next = next_of(&t, KITHI_QUANTIZATION_NONE, KITHI_KEEP_F32);
    struct kithi_copy *first = copy_into(&t, next);
    while (!step(&t, first, true))
        continue;
    kithi_copy_end(first);
    assert_int_equal(kithi_copy_begin(t.ix, &copy, &err), 0);
    for (uint32_t i = 0; i < 100; i++)
        change_some(&t);
    assert_int_equal(kithi_copy_follow(copy, next, &err), 0);
    while (!step(&t, copy, false))
        continue;
    take_place(&t, copy, next);
    assert_versions(&t);
    test_solo_close(&t);
}

static void a_recall_curve_is_carried_over_to_the_same_layout_only(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_recall_curve curve = {
        .k = 10, .count = 1, .samples = 300, .epoch = 7, .since = 3, .points = { { 40, 0.9, 0.01 } }
    };
    struct kithi_recall_curve after;
    fill(&t, KITHI_METRIC_L2);
    for (unsigned number = 0; number < 2; number++)
        kithi_curve_publish(t.ix, number, &curve);
    uint32_t quantization = t.identity.geometry.quantization, keep = t.identity.geometry.keep;
    t.identity.geometry.slot_max += 100;
    relay(&t, quantization, keep);
    for (unsigned number = 0; number < KITHI_CURVE_COUNT; number++) {
        kithi_recall_read(test_solo_map(&t), number, &after);
        assert_int_equal(after.count, number < 2);
        if (number < 2)
            assert_true(after.samples == 300 && after.epoch == 7);
    }
    relay(&t, quantization == KITHI_QUANTIZATION_SQ8 ? KITHI_QUANTIZATION_BITS : KITHI_QUANTIZATION_SQ8,
          KITHI_KEEP_F32);
    kithi_recall_read(test_solo_map(&t), 0, &after);
    assert_int_equal(after.count, 0);
    test_solo_close(&t);
}

static void what_a_copy_needs_is_told_and_about_right(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err = { 0 };
    fill(&t, KITHI_METRIC_L2);
    relay(&t, KITHI_QUANTIZATION_BITS, KITHI_KEEP_F32);
    uint64_t need = kithi_copy_need(t.ix, &test_solo_map(&t)->geometry), taken = 0;
    const struct kithi_header *h = test_solo_header(&t);
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++)
        taken += atomic_load(&h->taken[i]);
    assert_in_range(taken, need / 2, need);
    assert_int_equal(kithi_copy_ask(t.ix, &test_solo_map(&t)->geometry, &err), 0);
    struct kithi_geometry large = test_solo_map(&t)->geometry;
    assert_true(kithi_copy_need(t.ix, &large) < (UINT64_C(1) << 30));
    test_solo_close(&t);
}

int main(void)
{
    test_rand_init(&r);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_shows_what_the_original_shows_in_every_layout),
        cmocka_unit_test(a_copy_takes_groups_and_sweeps_and_is_adopted_as_any_segment_is),
        cmocka_unit_test(nothing_is_copied_from_nothing_but_the_epoch),
        cmocka_unit_test(a_copy_beside_changes_of_payloads_alone_forgets_what_it_has_replaced),
        cmocka_unit_test(groups_between_any_two_stages_are_in_the_copy),
        cmocka_unit_test(changes_are_copied_amid_the_first_pass_where_notes_take_too_much),
        cmocka_unit_test(changes_follow_what_somebody_else_has_copied),
        cmocka_unit_test(a_recall_curve_is_carried_over_to_the_same_layout_only),
        cmocka_unit_test(what_a_copy_needs_is_told_and_about_right),
        cmocka_unit_test(lengths_that_a_float_just_holds_stay_from_copy_to_copy),
        cmocka_unit_test(a_vector_that_cannot_be_copied_is_named),
        cmocka_unit_test(a_copy_without_room_is_refused_and_leaves_the_original_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
