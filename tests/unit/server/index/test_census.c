/*
 * test_census.c - what the owner notes for the next one, what is made of notes that lie, and the look at every record that an
 * adoption leaves for later. That whatever instruction was the last leaves good notes is shown by test_adopt.c and crash_step.
 */
#include "server/index/index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM 4u

static struct kithi_geometry geometry(uint32_t slots)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, slots);
    g.ef_construction = 16;
    g.m = 4;
    return g;
}

static void vector_of(uint32_t i, float out[DIM])
{
    for (uint32_t d = 0; d < DIM; d++)
        out[d] = (float)((i * 2654435761u >> (5 * d)) % 1000);
}

/* Every fourth id lies in a blob. */
static void name_of(uint32_t i, char out[64])
{
    snprintf(out, 64, i % 4 ? "id-%u" : "an-id-that-is-longer-than-a-record-has-room-for-%u", i);
}

/* Upsert, or delete, ids from first on, in groups of so many. */
static void change(struct test_solo *t, uint32_t first, uint32_t count, uint32_t in_group, bool deletion)
{
    struct kithi_op *ops = calloc(in_group, sizeof *ops);
    float(*vectors)[DIM] = calloc(in_group, sizeof *vectors);
    char(*names)[64] = calloc(in_group, sizeof *names);
    assert_true(ops && vectors && names);
    for (uint32_t at = 0; at < count; at += in_group) {
        uint32_t n = count - at < in_group ? count - at : in_group;
        for (uint32_t i = 0; i < n; i++) {
            name_of(first + at + i, names[i]);
            vector_of(first + at + i, vectors[i]);
            ops[i] = deletion ? test_delete(names[i]) : test_upsert(names[i], vectors[i], DIM);
        }
        assert_int_equal(test_solo_commit(t, ops, n), 0);
    }
    free(ops);
    free(vectors);
    free(names);
}

static void assert_there(const struct test_solo *t, uint32_t first, uint32_t count, bool there)
{
    char name[64];
    for (uint32_t i = first; i < first + count; i++) {
        name_of(i, name);
        assert_int_equal(test_solo_get(t, name, NULL), there ? 0 : KITHI_E_NOT_FOUND);
    }
}

static struct kithi_notes *notes(const struct test_solo *t)
{
    return kithi_header_notes(test_solo_header(t));
}

static void adopt_only(struct test_solo *t)
{
    struct kithi_errmsg err = { 0 };
    if (test_solo_adopt_only(t, &err) < 0)
        fail_msg("%s", err.text);
}

static void finish(struct test_solo *t)
{
    struct kithi_errmsg err = { 0 };
    assert_int_equal(test_solo_census(t, &err), 0);
    assert_false(kithi_index_census_due(t->ix));
}

/* Adopt with notes; the places of the id table were counted right, nothing was lost. */
static void assert_nothing_leaks(struct test_solo *t)
{
    const struct kithi_header *h = test_solo_header(t);
    uint64_t filled = 0, uppers = 0, blobs = 0, held = 0;
    struct kithi_view v;
    test_solo_settle(t);
    assert_int_equal(h->tally_free + h->live, h->slots_used);
    for (uint64_t i = 0; i < kithi_ids_capacity(t->ix); i++)
        filled += kithi_ids_is_filled(t->ix, i);
    assert_int_equal(t->ix->ids_filled, filled);
    kithi_view_begin(test_solo_map(t), &v);
    for (uint32_t slot = 0; slot < v.slots_used; slot++) {
        uint32_t meta = kithi_view_record(&v, slot)->meta;
        if (!kithi_view_record(&v, slot)->linked)
            continue;
        uppers += kithi_meta_level(meta);
        blobs += kithi_meta_id_len(meta) > KITHI_ID_INLINE;
    }
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        held += h->tally_blob[c];
    assert_int_equal(h->tally_upper, uppers);
    assert_int_equal(held, blobs);
    assert_true(test_solo_clean(t));
}

static void a_group_is_noted_from_its_staging_to_its_end(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry(1000);
    struct kithi_group_result result;
    struct kithi_errmsg err;
    float v[DIM] = { 1 };
    test_solo_open(&t, &g);
    change(&t, 0, 100, 20, false);
    assert_int_equal(notes(&t)->count, 0);
    assert_int_equal(notes(&t)->live, 100);
    assert_int_equal(notes(&t)->epoch, 5);
    struct kithi_op ops[] = { test_upsert("id-1", v, DIM), test_delete("id-2"), test_upsert("new", v, DIM),
                              test_delete("new"), test_delete("nobody") };
    assert_int_equal(kithi_group_add(t.ix, ops, 5, &result, &err), 0);
    assert_int_equal(notes(&t)->count, 4); /* two deaths, two new slots */
    kithi_group_abort(t.ix);
    assert_int_equal(notes(&t)->count, 0);
    assert_int_equal(test_solo_commit(&t, ops, 5), 0);
    assert_int_equal(notes(&t)->count, 0);
    assert_int_equal(notes(&t)->live, 99);
    assert_int_equal(notes(&t)->epoch, 6);
    assert_int_equal(notes(&t)->wake, test_solo_header(&t)->wake);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* ---- notes that are not to be believed ---- */

static void notes_that_make_no_sense_are_not_used(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry(1000);
    struct kithi_notes good;
    test_solo_open(&t, &g);
    change(&t, 0, 200, 20, false);
    change(&t, 50, 100, 20, false);
    change(&t, 0, 30, 20, true);
    for (unsigned i = 0; i < 12; i++) {
        struct kithi_notes *n = notes(&t);
        struct kithi_header *h = test_solo_header(&t);
        memcpy(&good, n, sizeof good);
        switch (i) {
        case 0: n->magic = 7; break;
        case 1: n->wake++; break;
        case 2: h->wake++; break; /* a daemon that keeps no notes has adopted it */
        case 3: n->count = KITHI_NOTES_MAX + 1; break;
        case 4:
            n->slots[3] = (uint32_t)h->slots_used;
            n->count = 4;
            break;
        case 5: n->epoch = h->epoch + 1; break;
        case 6: n->live = h->slots_used + 1; break;
        case 7: n->live = UINT64_MAX; break;
        case 8: n->upper_used = UINT32_MAX; break;
        case 9: n->blob_used[1] = UINT32_MAX; break;
        case 10: memset(n, 0xff, offsetof(struct kithi_notes, reserved)); break;
        default: memset(n, 0, sizeof *n); break;
        }
        test_solo_leave(&t);
        adopt_only(&t);
        if (kithi_index_census_due(t.ix))
            fail_msg("the notes of case %u were used", i);
        assert_int_equal(kithi_index_live(t.ix), 170);
        assert_true(test_solo_clean(&t));
        test_solo_leave(&t);
        adopt_only(&t); /* from here on there are notes again */
        assert_true(kithi_index_census_due(t.ix));
        finish(&t);
    }
    assert_there(&t, 0, 30, false);
    assert_there(&t, 30, 170, true);
    assert_nothing_leaks(&t);
    test_solo_close(&t);
}

/* Notes that were lost, of a group with births, deaths and slots without either. */
static void a_group_that_was_not_noted_is_found_by_the_census(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct test_solo t;
        struct kithi_geometry g = geometry(1000);
        struct kithi_group_result result;
        struct kithi_errmsg err = { 0 };
        float v[DIM] = { 1 };
        test_solo_open(&t, &g);
        change(&t, 0, 100, 20, false);
        struct kithi_op ops[] = { test_upsert("new", v, DIM), test_delete("id-1") };
        assert_int_equal(kithi_group_add(t.ix, ops, 2, &result, &err), 0);
        struct kithi_record *born = kithi_view_record(&t.ix->view, notes(&t)->slots[0]);
        struct kithi_record *dead = kithi_view_record(&t.ix->view, notes(&t)->slots[1]);
        if (i < 2)
            test_solo_jobs(&t);
        if (i == 1)
            born->birth = test_solo_header(&t)->epoch + 1;
        if (i == 2) {
            kithi_doubt_set(t.ix, notes(&t)->slots[1]);
            dead->death = test_solo_header(&t)->epoch + 1;
        }
        assert_true(test_solo_clean(&t));
        notes(&t)->count = 0;
        assert_false(test_solo_clean(&t));
        test_solo_leave(&t);
        adopt_only(&t);
        assert_int_equal(test_solo_census(&t, &err), KITHI_E_CORRUPT);
        assert_non_null(strstr(err.text, "not noted"));
        test_solo_close(&t);
    }
}

/* Each reference that a record may have, led to where it must not: the census finds it, and so does an adoption without notes. */
static void references_that_make_no_sense_are_found(void **state)
{
    (void)state;
    enum { WAYS = 13 };
    for (unsigned i = 0; i < WAYS; i++) {
        struct test_solo t;
        struct kithi_geometry g = geometry(1000);
        struct kithi_errmsg err = { 0 };
        test_solo_open(&t, &g);
        change(&t, 0, 200, 20, false);
        struct kithi_view v;
        kithi_view_begin(test_solo_map(&t), &v);
        struct kithi_record *tall[2] = { 0 }, *wide[2] = { 0 };
        for (uint32_t slot = 0; slot < v.slots_used; slot++) {
            struct kithi_record *r = kithi_view_record(&v, slot);
            uint32_t meta = atomic_load(&r->meta);
            if (kithi_meta_level(meta) > 0 && kithi_meta_id_len(meta) <= KITHI_ID_INLINE)
                tall[tall[0] != NULL] = r;
            if (kithi_meta_level(meta) == 0 && kithi_meta_id_len(meta) > KITHI_ID_INLINE)
                wide[wide[0] != NULL] = r;
        }
        assert_true(tall[1] && wide[1]);
        struct kithi_upper *upper = kithi_view_upper(&v, tall[0]->upper - 1);
        uint32_t capacity, level = kithi_meta_level(tall[0]->meta);
        struct kithi_blob *blob = kithi_view_blob(&v, wide[0]->id[0], &capacity);
        assert_non_null(blob);
        switch (i) {
        case 0: tall[0]->meta = kithi_meta_pack(KITHI_LEVEL_MAX + 1, 4); break;
        case 1: tall[0]->upper = 0; break;
        case 2: tall[0]->upper = notes(&t)->upper_used + 1; break;
        case 3: tall[0]->upper = tall[1]->upper; break; /* another's */
        case 4: upper->owner = 0; break;
        case 5: upper->up = tall[0]->upper; break; /* in a circle, or behind its top */
        case 6: tall[0]->meta = kithi_meta_pack(level + 1, 4); break;
        case 7: wide[0]->meta = kithi_meta_pack(0, 0); break;
        case 8: wide[0]->meta = kithi_meta_pack(0, 512); break;
        case 9: wide[0]->id[0] = 0; break;
        case 10: wide[0]->id[0] = wide[1]->id[0]; break;
        case 11: blob->owner = 0; break;
        default: wide[0]->meta = kithi_meta_pack(0, capacity + 1); break;
        }
        test_solo_leave(&t);
        if (i == 4) { /* without notes all that has memory is looked at, and by nobody beside it */
            test_solo_forget_notes(&t);
            assert_int_equal(test_solo_adopt_only(&t, &err), KITHI_E_CORRUPT);
            t.ix = NULL;
        } else {
            adopt_only(&t);
            if (test_solo_census(&t, &err) != KITHI_E_CORRUPT)
                fail_msg("case %u was not found", i);
        }
        assert_non_null(strstr(err.text, "refers to upper rows or a blob that are not its own"));
        test_solo_close(&t);
    }
}

/* A blob that stands beyond the end that was noted; and one that two records hold. */
static void blobs_beyond_the_noted_end_or_of_two_are_found(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct test_solo t;
        struct kithi_geometry g = geometry(1000);
        struct kithi_errmsg err = { 0 };
        test_solo_open(&t, &g);
        change(&t, 0, 40, 20, false);
        unsigned class = 0;
        while (!notes(&t)->blob_used[class])
            class ++;
        assert_true(notes(&t)->blob_used[class] > 2);
        notes(&t)->blob_used[class] -= 1 + i;
        test_solo_leave(&t);
        adopt_only(&t);
        assert_int_equal(test_solo_census(&t, &err), KITHI_E_CORRUPT);
        test_solo_close(&t);
    }
}

/* Versions of one id that lead to each other, none of them visible: who looks for the earlier one comes to an end. */
static void versions_in_a_circle_are_taken_back(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry(1000);
    struct kithi_group_result result;
    struct kithi_errmsg err = { 0 };
    float v[DIM] = { 1 };
    test_solo_open(&t, &g);
    change(&t, 0, 50, 10, false);
    for (unsigned i = 0; i < 2; i++) {
        struct kithi_op ops[] = { test_upsert("id-1", v, DIM), test_upsert("id-2", v, DIM) };
        assert_int_equal(kithi_group_add(t.ix, ops, 2, &result, &err), 0);
        test_solo_jobs(&t);
        struct kithi_record *a = NULL, *b = NULL;
        uint32_t first = 0, second = 0;
        for (uint32_t n = 0; n < notes(&t)->count; n++) {
            struct kithi_record *r = kithi_view_record(&t.ix->view, notes(&t)->slots[n]);
            if (r->birth)
                continue;
            if (!a) {
                a = r;
                first = notes(&t)->slots[n];
            } else {
                b = r;
                second = notes(&t)->slots[n];
            }
        }
        assert_true(a && b);
        a->birth = b->birth = test_solo_header(&t)->epoch + 1;
        if (i == 0) { /* both are of the same id */
            for (unsigned w = 0; w < 3; w++)
                b->id[w] = a->id[w];
            a->prev = second + 1;
            b->prev = first + 1;
        } else { /* to a slot that is of another id, and to one that is not there */
            a->prev = second + 1;
            b->prev = UINT32_MAX;
        }
        test_solo_leave(&t);
        adopt_only(&t);
        assert_int_equal(kithi_index_live(t.ix), 50);
        assert_int_equal(kithi_index_epoch(t.ix), 5);
        finish(&t);
        assert_there(&t, 3, 47, true);
    }
    test_solo_close(&t);
}

/* Bytes by chance, in the fields that are believed: whatever comes of it is an adoption, or a segment that is refused or condemned. */
static void arbitrary_notes_do_no_harm(void **state)
{
    (void)state;
    struct kithi_geometry g = geometry(400);
    struct test_rand r;
    test_rand_seed(&r, test_seed());
    unsigned condemned = 0;
    for (unsigned round = 0; round < 60; round++) {
        struct test_solo t;
        struct kithi_errmsg err = { 0 };
        test_solo_open(&t, &g);
        change(&t, 0, 60, 20, false);
        change(&t, 0, 10, 20, true);
        struct kithi_notes *n = notes(&t);
        for (unsigned i = 0; i < 3; i++) {
            switch (test_rand_below(&r, 6)) {
            case 0: n->count = test_rand_below(&r, 30); break;
            case 1: n->live = test_rand_below(&r, 80); break;
            case 2: n->upper_used = test_rand_below(&r, 20); break;
            case 3: n->blob_used[test_rand_below(&r, 4)] = test_rand_below(&r, 20); break;
            case 4: n->ids_filled = test_rand_below(&r, 3000); break;
            default: n->slots[test_rand_below(&r, 30)] = test_rand_below(&r, 100); break;
            }
        }
        test_solo_leave(&t);
        adopt_only(&t);
        int64_t miscounted;
        change(&t, 100, 20, 5, false);
        int rc = kithi_index_census(t.ix, UINT32_MAX, &miscounted, &err);
        assert_true(rc == 0 || rc == KITHI_E_CORRUPT);
        condemned += rc == KITHI_E_CORRUPT;
        if (rc == 0) { /* then it is right */
            assert_int_equal(kithi_index_live(t.ix), 70);
            assert_there(&t, 0, 10, false);
            assert_there(&t, 10, 50, true);
            assert_there(&t, 100, 20, true);
            assert_nothing_leaks(&t);
        }
        test_solo_close(&t);
    }
    assert_true(condemned > 0); /* ends that lie before what is held */
}

static void a_count_that_is_wrong_is_put_right(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry(1000);
    struct kithi_group_result result;
    struct kithi_errmsg err = { 0 };
    float v[DIM] = { 1 };
    int64_t miscounted;
    test_solo_open(&t, &g);
    change(&t, 0, 200, 50, false);
    notes(&t)->live = 190;
    test_solo_header(&t)->live = 190;
    test_solo_leave(&t);
    adopt_only(&t);
    assert_int_equal(kithi_index_live(t.ix), 190);
    change(&t, 200, 5, 5, false); /* beside it */
    change(&t, 0, 3, 3, true);
    assert_int_equal(kithi_index_live(t.ix), 192);
    struct kithi_op op = test_upsert("open", v, DIM);
    assert_int_equal(kithi_group_add(t.ix, &op, 1, &result, &err), 0);
    assert_int_equal(kithi_index_census(t.ix, UINT32_MAX, &miscounted, &err), 0);
    assert_int_equal(miscounted, 10);
    assert_int_equal(test_solo_header(&t)->live, 202);
    test_solo_leave(&t); /* with a group that was staged, and counted by nobody */
    adopt_only(&t);
    assert_int_equal(kithi_index_live(t.ix), 202);
    finish(&t);
    assert_nothing_leaks(&t);
    test_solo_close(&t);
}

/* ---- more than there is room for ---- */

#ifdef KITH_FAULT_POINTS
static void die_in_a_large_group(const struct test_solo *t, const char *point, uint32_t count, bool deletion)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct test_solo mine = *t;
        setenv("KITH_FAULT", point, 1);
        adopt_only(&mine);
        change(&mine, 0, count, count, deletion);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_group_larger_than_the_notes_is_undone_by_a_look_at_every_record(void **state)
{
    (void)state;
    const uint32_t count = KITHI_NOTES_MAX + 500;
    struct test_solo t;
    struct kithi_geometry g = geometry(2 * count + 2000);
    test_solo_open(&t, &g);
    change(&t, 0, count, 4000, false);
    test_solo_leave(&t);
    const char *const points[] = { "crash-after-deaths:1", "crash-before-epoch:1" };
    for (unsigned i = 0; i < 2; i++) {
        die_in_a_large_group(&t, points[i], count, true);
        adopt_only(&t);
        assert_true(kithi_index_census_due(t.ix)); /* ends and count were noted all the same */
        assert_int_equal(notes(&t)->count, 0);
        assert_int_equal(kithi_index_live(t.ix), count);
        assert_int_equal(test_solo_header(&t)->live, count);
        assert_there(&t, count - 600, 600, true); /* the last ones were not noted */
        assert_true(test_solo_clean(&t));
        test_solo_leave(&t);
    }
    die_in_a_large_group(&t, "crash-after-epoch:1", count, true);
    adopt_only(&t);
    assert_int_equal(kithi_index_live(t.ix), 0);
    finish(&t);
    assert_nothing_leaks(&t);
    test_solo_close(&t);
}
#endif

/* ---- beside the census ---- */

static void nothing_is_swept_before_the_census_is_over_and_everything_after(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry(1000);
    struct kithi_errmsg err;
    int64_t miscounted;
    uint32_t wait_ms;
    test_solo_open(&t, &g);
    change(&t, 0, 300, 50, false);
    change(&t, 0, 100, 50, false); /* 100 dead */
    test_solo_leave(&t);
    adopt_only(&t);
    assert_int_equal(kithi_index_census(t.ix, 150, &miscounted, &err), 1);
    t.now_ms += 10000;
    assert_int_equal(kithi_sweep_begin(t.ix, t.now_ms, &wait_ms), 0);
    assert_true(wait_ms > 0 && wait_ms < 100); /* it asks again soon */
    /* Dead in slots that were looked at, in slots that were not, and in slots that are new. */
    change(&t, 100, 10, 10, true);
    change(&t, 250, 10, 10, true);
    change(&t, 0, 10, 10, true);
    change(&t, 500, 10, 10, false);
    change(&t, 500, 5, 5, true);
    finish(&t);
    assert_int_equal(test_solo_header(&t)->tally_dead, 135);
    /* Those that died a moment ago have their grace. */
    assert_true(kithi_sweep_begin(t.ix, t.now_ms + 50, &wait_ms) > 0);
    assert_int_equal(t.ix->sweep.slots_doomed.count, 100);
    kithi_sweep_end(t.ix, t.now_ms + 50);
    assert_int_equal(test_solo_header(&t)->tally_dead, 35);
    test_solo_leave(&t);
    adopt_only(&t);
    finish(&t);
    assert_int_equal(kithi_index_live(t.ix), 275);
    assert_nothing_leaks(&t);
    test_solo_close(&t);
}

static void what_is_free_is_used_again_once_it_was_found(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry(300);
    struct kithi_group_result result;
    struct kithi_errmsg err = { 0 };
    float v[DIM] = { 1 };
    test_solo_open(&t, &g);
    change(&t, 0, 300, 50, false);
    change(&t, 0, 100, 50, true);
    test_solo_settle(&t);
    assert_int_equal(test_solo_header(&t)->tally_free, 100);
    test_solo_leave(&t);
    adopt_only(&t);
    struct kithi_op op = test_upsert("one-more", v, DIM);
    assert_int_equal(kithi_group_add(t.ix, &op, 1, &result, &err),
                     KITHI_E_FULL); /* not known to be free yet */
    finish(&t);
    change(&t, 1000, 100, 50, false);
    assert_int_equal(kithi_index_live(t.ix), 300);
    assert_int_equal(test_solo_header(&t)->slots_used, 300);
    assert_nothing_leaks(&t);
    test_solo_close(&t);
}

static void the_id_table_may_be_made_anew_beside_the_census(void **state)
{
    (void)state;
    for (uint32_t piece = 1; piece < 6000; piece = piece * 3 + 1) {
        struct test_solo t;
        struct kithi_geometry g = geometry(8000);
        struct kithi_errmsg err;
        int64_t miscounted;
        test_solo_open(&t, &g);
        change(&t, 0, 500, 50, false);
        uint64_t word = test_solo_header(&t)->id_table;
        test_solo_leave(&t);
        adopt_only(&t);
        kithi_index_census(t.ix, piece, &miscounted, &err);
        change(&t, 500, 1500, 500, false);
        assert_int_not_equal(test_solo_header(&t)->id_table, word);
        finish(&t);
        change(&t, 2000, 10, 10, false);
        assert_there(&t, 0, 2010, true);
        assert_nothing_leaks(&t);
        test_solo_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_is_noted_from_its_staging_to_its_end),
        cmocka_unit_test(notes_that_make_no_sense_are_not_used),
        cmocka_unit_test(a_group_that_was_not_noted_is_found_by_the_census),
        cmocka_unit_test(references_that_make_no_sense_are_found),
        cmocka_unit_test(blobs_beyond_the_noted_end_or_of_two_are_found),
        cmocka_unit_test(versions_in_a_circle_are_taken_back),
        cmocka_unit_test(arbitrary_notes_do_no_harm),
        cmocka_unit_test(a_count_that_is_wrong_is_put_right),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(a_group_larger_than_the_notes_is_undone_by_a_look_at_every_record),
#endif
        cmocka_unit_test(nothing_is_swept_before_the_census_is_over_and_everything_after),
        cmocka_unit_test(what_is_free_is_used_again_once_it_was_found),
        cmocka_unit_test(the_id_table_may_be_made_anew_beside_the_census),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
