/*
 * test_failing.c - taking over a segment, counting it, copying it out and making it anew, without memory, room or descriptors: each
 * ends with an error that says why, leaves what was there as it was, and succeeds when it is tried again.
 */
#include "server/index/index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/index/ahead.h"
#include "server/index/image.h"
#include "server/index/index_priv.h"
#include "server/index/restore.h"
#include "tests/support/failing.h"
#include "tests/support/solo.h"

#define DIM   4u
#define IDS   150u
#define CALLS 20000u /* more than any of these takes */

static struct kithi_errmsg err;

static void name_of(uint32_t i, char out[64])
{
    snprintf(out, 64, i % 4 ? "id-%u" : "an-id-that-is-longer-than-a-record-has-room-for-%u", i);
}

static void change(struct test_solo *t, uint32_t i, bool gone)
{
    char name[64];
    float v[DIM] = { (float)i, (float)(i * 7 % 31), (float)(i * 11 % 17), 1 };
    name_of(i, name);
    assert_int_equal(gone ? test_solo_delete(t, name) : test_solo_put(t, name, v), 0);
}

/* Living, dead and resting slots, upper rows, long ids. */
static void begin(struct test_solo *t)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 2000);
    g.m = 4;
    g.ef_construction = 16;
    test_solo_open(t, &g);
    for (uint32_t i = 0; i < 2 * IDS; i++) {
        change(t, i % IDS, false);
        if (i == IDS)
            test_solo_sweep(t, 1000);
    }
    for (uint32_t i = 0; i < IDS / 3; i++)
        change(t, i, true);
}

static void assert_content(const struct test_solo *t)
{
    assert_int_equal(kithi_index_epoch(t->ix), 2 * IDS + IDS / 3);
    assert_int_equal(kithi_index_live(t->ix), IDS - IDS / 3);
    for (uint32_t i = 0; i < IDS; i++) {
        char name[64];
        name_of(i, name);
        assert_int_equal(test_solo_get(t, name, NULL), i < IDS / 3 ? KITHI_E_NOT_FOUND : 0);
    }
    assert_true(test_solo_clean(t));
}

static void assert_told(int rc, enum test_way way)
{
    if (rc == 0 || way == TEST_INTERRUPTED)
        assert_int_equal(rc, 0);
    else if (err.code != rc || !err.text[0])
        fail_msg("%s: status %d, told as %d: %s", test_failing_what(), rc, err.code, err.text);
}

/* All that is not alive becomes free: nothing was lost on the way. */
static void assert_nothing_leaks(struct test_solo *t)
{
    const struct kithi_header *h = test_solo_header(t);
    test_solo_settle(t);
    assert_int_equal(h->tally_free + h->live, h->slots_used);
    assert_true(test_solo_clean(t));
}

static void an_adoption_that_fails_can_be_tried_again(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t);
    test_solo_leave(&t);
    for (unsigned forgotten = 0; forgotten < 2; forgotten++)
        for (enum test_way way = 0; way < TEST_WAYS; way++) {
            bool met = true;
            unsigned failures = 0;
            for (uint64_t k = 1; met && k < CALLS; k++) {
                if (forgotten)
                    test_solo_forget_notes(&t);
                err = (struct kithi_errmsg){ 0 };
                test_failing_begin(k, way);
                int rc = test_solo_adopt_only(&t, &err);
                met = test_failing_end();
                assert_told(rc, way);
                assert_int_equal(rc == 0, t.ix != NULL);
                failures += rc != 0;
                if (rc == 0) {
                    assert_int_equal(kithi_index_census_due(t.ix), !forgotten);
                    assert_int_equal(test_solo_census(&t, &err), 0);
                    assert_content(&t);
                }
                test_solo_leave(&t);
            }
            assert_false(met);
            assert_true(way == TEST_INTERRUPTED || failures > 5);
        }
    assert_int_equal(test_solo_adopt(&t, &err), 0);
    assert_content(&t);
    assert_nothing_leaks(&t);
    test_solo_close(&t);
}

/* The daemon comes again later: what was found is kept, and what could not be noted is looked at once more. */
static void a_census_without_memory_goes_on_where_it_was(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t);
    bool met = true;
    unsigned failures = 0;
    for (uint64_t k = 1; met && k < CALLS; k++) {
        int64_t miscounted;
        test_solo_leave(&t);
        assert_int_equal(test_solo_adopt_only(&t, &err), 0);
        test_failing_begin(k, TEST_FAILS);
        int rc = kithi_index_census(t.ix, UINT32_MAX, &miscounted, &err);
        met = test_failing_end();
        if (met) {
            failures++;
            assert_int_equal(rc, -ENOMEM);
            assert_string_equal(err.text, "the daemon is out of memory");
            assert_true(kithi_index_census_due(t.ix));
            assert_content(&t);
            assert_int_equal(kithi_index_census(t.ix, UINT32_MAX, &miscounted, &err), 0);
        }
        assert_int_equal(miscounted, 0);
        assert_content(&t);
    }
    assert_true(failures > 1);
    assert_nothing_leaks(&t);
    test_solo_close(&t);
}

/* ---- images ---- */

struct held {
    struct kithi_image_shape shape;
    unsigned char *bytes[KITHI_REGION_COUNT];
};

static int take(struct test_solo *t, struct held *held)
{
    struct kithi_image *image = NULL;
    int rc = kithi_image_begin(t->ix, &image, &err);
    if (rc < 0) {
        assert_null(image);
        return rc;
    }
    held->shape = *kithi_image_shape(image);
    for (unsigned pass = 0; pass < 2; pass++) /* records first */
        for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
            uint64_t bytes = held->shape.regions[r].bytes;
            if ((r == KITHI_REGION_RECORDS) != (pass == 0))
                continue;
            held->bytes[r] = aligned_alloc(64, (bytes / 4096 + 2) * 4096);
            assert_non_null(held->bytes[r]);
            kithi_image_copy(image, r, 0, (uint32_t)bytes, held->bytes[r]);
        }
    kithi_image_end(image);
    return 0;
}

static void held_free(struct held *held)
{
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++)
        free(held->bytes[r]);
}

static void an_image_without_memory_is_not_begun(void **state)
{
    (void)state;
    struct test_solo t;
    struct held held = { 0 };
    begin(&t);
    for (uint64_t k = 1; k <= 2; k++) {
        test_failing_begin(k, TEST_FAILS);
        int rc = take(&t, &held);
        assert_true(test_failing_end());
        assert_int_equal(rc, -ENOMEM);
        assert_string_equal(err.text, "the daemon is out of memory");
        assert_int_equal(kithi_image_held(t.ix), 0); /* nobody waits for one */
    }
    kithi_image_end(NULL);
    assert_int_equal(take(&t, &held), 0);
    assert_content(&t);
    assert_nothing_leaks(&t);
    held_free(&held);
    test_solo_close(&t);
}

static int restore(const struct test_solo *t, const struct held *held, struct kithi_index **out)
{
    struct kithi_restore *r = NULL;
    int rc = kithi_restore_begin(t->path, &t->identity, 2, &t->tuning, &held->shape, &r, &err);
    if (rc < 0) {
        assert_null(r);
        assert_int_not_equal(access(t->path, F_OK), 0); /* half a segment is removed */
        return rc;
    }
    for (unsigned region = 0; region < KITHI_REGION_COUNT && rc == 0; region++) {
        uint64_t bytes = held->shape.regions[region].bytes;
        if (bytes == 0)
            continue;
        rc = kithi_restore_need(r, region, 0, bytes, &err);
        if (rc == 0)
            memcpy(kithi_restore_place(r, region, 0), held->bytes[region], bytes);
    }
    if (rc == 0)
        return kithi_restore_end(r, NULL, out, &err);
    kithi_restore_abort(r);
    return rc;
}

static void restoring_fails_with_a_reason_and_can_be_tried_again(void **state)
{
    (void)state;
    struct test_solo t, copy;
    struct held held = { 0 };
    begin(&t);
    assert_int_equal(take(&t, &held), 0);
    copy = t;
    snprintf(copy.path, sizeof copy.path, "%s/copy", t.dir.path);
    unsigned failures = 0;
    for (enum test_way way = 0; way < TEST_WAYS; way++) {
        bool met = true;
        for (uint64_t k = 1; met && k < CALLS; k++) {
            copy.ix = NULL;
            err = (struct kithi_errmsg){ 0 };
            test_failing_begin(k, way);
            int rc = restore(&copy, &held, &copy.ix);
            met = test_failing_end();
            assert_told(rc, way);
            failures += rc != 0;
            if (rc == 0)
                assert_content(&copy);
            assert_int_equal(rc == 0, copy.ix != NULL);
            kithi_index_close(copy.ix);
            unlink(copy.path);
        }
        assert_false(met);
    }
    assert_true(failures > 20);
    kithi_restore_abort(NULL);
    held_free(&held);
    test_solo_close(&t);
}

/* ---- beside each other ---- */

struct refill {
    struct kithi_record *record;
    _Atomic bool stop;
};

/* As a writer does that uses a slot again, without a pause ([P2 birth]). */
static void *refill_on(void *arg)
{
    struct refill *f = arg;
    struct kithi_record *r = f->record;
    for (uint64_t birth = 1000; !atomic_load(&f->stop); birth++) {
        atomic_store_explicit(&r->birth, 0, memory_order_relaxed);
        atomic_thread_fence(memory_order_release);
        for (unsigned i = 0; i < 3; i++)
            atomic_store_explicit(&r->id[i], birth, memory_order_relaxed);
        atomic_store_explicit(&r->birth, birth, memory_order_release);
    }
    return NULL;
}

static void a_record_that_is_refilled_while_it_is_copied_is_one_version_or_none(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_image *image = NULL;
    struct refill f = { .record = NULL };
    pthread_t thread;
    unsigned whole = 0, none = 0;
    begin(&t);
    const uint32_t slot = 5;
    f.record = kithi_view_record(&t.ix->view, slot);
    struct kithi_record kept = *f.record;
    atomic_store(&f.record->linked, 1);
    atomic_store(&f.record->birth, 999);
    for (unsigned i = 0; i < 3; i++)
        atomic_store(&f.record->id[i], 999);
    assert_int_equal(kithi_image_begin(t.ix, &image, &err), 0);
    assert_int_equal(pthread_create(&thread, NULL, refill_on, &f), 0);
    for (uint64_t end = test_now_ms() + 5000; test_now_ms() < end && (whole < 1000 || none < 1);) {
        for (unsigned i = 0; i < 10000; i++) {
            struct kithi_record copy;
            kithi_image_copy(image, KITHI_REGION_RECORDS, slot * sizeof copy, sizeof copy, &copy);
            if (!copy.linked) {
                none++;
            } else if (copy.birth) {
                assert_true(copy.id[0] == copy.birth && copy.id[1] == copy.birth && copy.id[2] == copy.birth);
                whole++;
            }
        }
    }
    atomic_store(&f.stop, true);
    pthread_join(thread, NULL);
    assert_true(whole > 0);
    kithi_image_end(image);
    *f.record = kept;
    test_solo_close(&t);
}

struct taker {
    struct kithi_restore *restore;
    uint64_t bytes;
    pthread_barrier_t *barrier;
    int status;
};

static void *take_memory(void *arg)
{
    struct taker *t = arg;
    struct kithi_errmsg why;
    pthread_barrier_wait(t->barrier);
    t->status = kithi_restore_need(t->restore, KITHI_REGION_VECTORS, 0, t->bytes, &why);
    return NULL;
}

/* Whoever comes while another one takes a block waits until it is there. */
static void workers_that_need_the_same_memory_all_have_it_when_they_go_on(void **state)
{
    (void)state;
    struct kithi_geometry g = test_geometry(1024, KITHI_METRIC_L2, 4000);
    struct kithi_index_identity id = { .geometry = g };
    struct kithi_index_tuning tuning = { .worker_count = 1 };
    struct test_dir dir;
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, 3);
    test_dir_make_shm(&dir);
    for (unsigned round = 0; round < 10; round++) {
        struct kithi_image_shape shape = { .epoch = 1, .slots = 3000 };
        struct kithi_layout l;
        struct kithi_restore *r = NULL;
        struct taker takers[3];
        pthread_t threads[3];
        kithi_geometry_layout(&g, &l);
        assert_int_equal(kithi_image_regions(&g, &l, &shape, &err), 0);
        const char *path = test_path(&dir, "segment");
        if (kithi_restore_begin(path, &id, 1, &tuning, &shape, &r, &err) < 0)
            fail_msg("%s", err.text);
        const uint64_t bytes = shape.regions[KITHI_REGION_VECTORS].bytes;
        for (unsigned i = 0; i < 3; i++) {
            takers[i] = (struct taker){ r, bytes, &barrier, 77 };
            assert_int_equal(pthread_create(&threads[i], NULL, take_memory, &takers[i]), 0);
        }
        for (unsigned i = 0; i < 3; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(takers[i].status, 0);
        }
        if (bytes)
            assert_true(test_file_blocks(path) >= bytes);
        kithi_restore_abort(r);
        unlink(path);
    }
    pthread_barrier_destroy(&barrier);
    test_dir_remove(&dir);
}

/* ---- what the log lacks ---- */

static void what_the_log_lacks_is_collected_whole_or_not_at_all(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_ahead ahead = { 0 };
    begin(&t);
    uint64_t epoch = kithi_index_epoch(t.ix), after = epoch - 80;
    /* More changes than the list of them begins with. */
    for (uint64_t from = 0; from <= after; from += after) {
        bool met = true;
        for (uint64_t k = 1; met && k < CALLS; k++) {
            test_failing_begin(k, TEST_FAILS);
            int rc = kithi_ahead_collect(t.ix, from, &ahead, &err);
            met = test_failing_end();
            assert_int_equal(rc, met ? -ENOMEM : 0);
            if (met) {
                assert_non_null(strstr(err.text, "no memory for what the segment has and the log has not"));
                assert_null(ahead.groups);
            }
        }
        assert_false(met);
        assert_int_equal(ahead.first_epoch, from + 1);
        assert_int_equal(ahead.group_count, epoch - from);
        kithi_ahead_fini(&ahead);
        assert_null(ahead.groups);
    }
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_adoption_that_fails_can_be_tried_again),
        cmocka_unit_test(a_census_without_memory_goes_on_where_it_was),
        cmocka_unit_test(an_image_without_memory_is_not_begun),
        cmocka_unit_test(restoring_fails_with_a_reason_and_can_be_tried_again),
        cmocka_unit_test(a_record_that_is_refilled_while_it_is_copied_is_one_version_or_none),
        cmocka_unit_test(workers_that_need_the_same_memory_all_have_it_when_they_go_on),
        cmocka_unit_test(what_the_log_lacks_is_collected_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
