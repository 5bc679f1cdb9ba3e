/*
 * test_groups.c - several groups under way at once: each sees those before it as if they were published, and what is visible is
 * always the end of one of them.
 */
#include "server/index/index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/id.h"
#include "shm/layout/notes.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM    2u
#define IDS    300u
#define OPS    24u /* of one group, at most */
#define ABSENT 0u

/* What a group is made of, which its jobs read, and what is there once it is published. */
struct staged {
    const struct kithi_group *group; /* sealed */
    uint32_t op_count, jobs_done;
    char ids[OPS][KITHI_ID_MAX + 1];
    float vectors[OPS][DIM];
    uint32_t after[IDS]; /* version of each id, or ABSENT */
};

struct world {
    struct test_solo t;
    struct test_rand r;
    struct staged places[KITHI_GROUPS_SEALED + 1];  /* which groups point into */
    struct staged *staged[KITHI_GROUPS_SEALED + 1]; /* of them the oldest first, then the open one */
    uint32_t sealed;
    uint32_t visible[IDS];
    uint32_t next_version;
    unsigned full, published, adopted, swept;
};

static void id_of(uint32_t i, char out[KITHI_ID_MAX + 1])
{
    snprintf(out, KITHI_ID_MAX + 1, i % 5 ? "%u" : "an id that has no room in a record %u", i);
}

static const uint32_t *before_open(const struct world *w)
{
    return w->sealed ? w->staged[w->sealed - 1]->after : w->visible;
}

static void open_begin(struct world *w)
{
    struct staged *s = w->staged[w->sealed];
    s->op_count = s->jobs_done = 0;
    memcpy(s->after, before_open(w), sizeof s->after);
}

static uint32_t count(const uint32_t *versions)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < IDS; i++)
        n += versions[i] != ABSENT;
    return n;
}

static void add(struct world *w)
{
    struct staged *s = w->staged[w->sealed];
    struct kithi_op ops[4];
    struct kithi_group_result result;
    struct kithi_errmsg err;
    uint32_t n = 1 + test_rand_below(&w->r, 4), after[IDS], found = 0;
    if (s->op_count + n > OPS)
        return;
    memcpy(after, s->after, sizeof after);
    for (uint32_t i = 0; i < n; i++) {
        /* Mostly the same few, so that groups meet. */
        uint32_t id = test_rand_below(&w->r, test_rand_below(&w->r, 3) ? 8 : IDS);
        char *name = s->ids[s->op_count + i];
        float *v = s->vectors[s->op_count + i];
        id_of(id, name);
        if (test_rand_below(&w->r, 3)) {
            after[id] = w->next_version++;
            v[0] = (float)after[id];
            v[1] = (float)test_rand_below(&w->r, 100);
            ops[i] = test_upsert(name, v, DIM);
        } else {
            found += after[id] != ABSENT;
            after[id] = ABSENT;
            ops[i] = test_delete(name);
        }
    }
    int rc = kithi_group_add(w->t.ix, ops, n, &result, &err);
    if (rc == KITHI_E_FULL) {
        w->full++;
        return;
    }
    assert_int_equal(rc, 0);
    assert_int_equal(result.found, found);
    s->op_count += n;
    memcpy(s->after, after, sizeof after);
}

static void seal(struct world *w)
{
    if (w->sealed == KITHI_GROUPS_SEALED)
        return;
    w->staged[w->sealed]->group = kithi_group_seal(w->t.ix);
    w->sealed++;
    assert_int_equal(kithi_groups_sealed(w->t.ix), w->sealed);
    open_begin(w);
}

static bool insert_one(struct world *w, struct staged *s)
{
    if (s->jobs_done == kithi_group_job_count(s->group))
        return false;
    kithi_group_job(w->t.ix, s->group, 0, s->jobs_done++);
    return true;
}

static void assert_visible(const struct world *w)
{
    for (uint32_t i = 0; i < IDS; i++) {
        char name[KITHI_ID_MAX + 1];
        float v[DIM] = { 0 };
        id_of(i, name);
        int rc = test_solo_get(&w->t, name, v);
        if (w->visible[i] == ABSENT)
            assert_int_equal(rc, KITHI_E_NOT_FOUND);
        else
            assert_int_equal(rc, 0);
        assert_int_equal((uint32_t)v[0], w->visible[i]);
    }
    assert_int_equal(kithi_index_live(w->t.ix), count(w->visible));
}

static void publish(struct world *w)
{
    struct staged *s = w->staged[0];
    if (w->sealed == 0)
        return;
    while (insert_one(w, s))
        continue;
    test_solo_publish(&w->t);
    w->published++;
    memcpy(w->visible, s->after, sizeof w->visible);
    memmove(&w->staged[0], &w->staged[1], KITHI_GROUPS_SEALED * sizeof *w->staged);
    w->staged[KITHI_GROUPS_SEALED] = s;
    w->sealed--;
}

static void open_abort(struct world *w)
{
    kithi_group_abort(w->t.ix);
    open_begin(w);
}

/* The owner dies. What was not published is gone, whatever had been done of it. */
static void die(struct world *w)
{
    struct kithi_errmsg err;
    test_solo_leave(&w->t);
    if (test_rand_below(&w->r, 3) == 0)
        test_solo_forget_notes(&w->t);
    if (test_solo_adopt(&w->t, &err) < 0)
        fail_msg("%s", err.text);
    w->adopted++;
    w->sealed = 0;
    open_begin(w);
}

static void groups_under_way_are_as_if_one_came_after_the_other(void **state)
{
    (void)state;
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 2 * IDS);
    g.m = 4;
    g.ef_construction = 16;
    test_solo_open(&w->t, &g);
    test_rand_init(&w->r);
    w->next_version = 1;
    for (uint32_t i = 0; i < KITHI_GROUPS_SEALED + 1; i++)
        w->staged[i] = &w->places[i];
    open_begin(w);
    for (unsigned step = 0; step < 30000; step++) {
        switch (test_rand_below(&w->r, 16)) {
        case 0:
        case 1: publish(w); break;
        case 2:
        case 3: seal(w); break;
        case 4: w->swept += test_solo_sweep(&w->t, test_rand_below(&w->r, 400)) > 0; break;
        case 5:
            if (w->sealed)
                insert_one(w, w->staged[test_rand_below(&w->r, w->sealed)]);
            break;
        case 6:
            if (test_rand_below(&w->r, 8) == 0)
                open_abort(w);
            break;
        case 7:
            if (test_rand_below(&w->r, 50) == 0)
                die(w);
            break;
        default: add(w); break;
        }
        if (step % 50 == 0)
            assert_visible(w);
        if (step % 1000 == 0)
            assert_true(test_solo_clean(&w->t));
    }
    while (w->sealed)
        publish(w);
    open_abort(w);
    assert_visible(w);
    assert_true(w->published > 1000 && w->adopted > 10 && w->swept > 10);
    test_solo_settle(&w->t);
    const struct kithi_header *h = test_solo_header(&w->t);
    assert_int_equal(h->tally_free + h->live, h->slots_used); /* nothing leaked */
    assert_true(test_solo_clean(&w->t));
    test_solo_close(&w->t);
    free(w);
}

/* ---- the owner's notes ---- */

#define MANY (KITHI_NOTES_MAX / 2 - 100)

static void stage_many(struct test_solo *t, uint32_t from, char (*ids)[16], float (*vectors)[DIM])
{
    struct kithi_group_result result;
    struct kithi_errmsg err;
    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(ids[i], sizeof ids[i], "%u", from + i);
        vectors[i][0] = (float)(from + i);
        vectors[i][1] = (float)(i % 7);
        struct kithi_op op = test_upsert(ids[i], vectors[i], DIM);
        assert_int_equal(kithi_group_add(t->ix, &op, 1, &result, &err), 0);
    }
}

static void groups_too_large_to_be_noted_together_are_noted_again_as_they_get_fewer(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 4 * MANY);
    struct kithi_errmsg err;
    char(*ids)[16] = calloc(3 * MANY, sizeof *ids);
    float(*vectors)[DIM] = calloc(3 * MANY, sizeof *vectors);
    assert_true(ids && vectors);
    g.m = 2;
    g.ef_construction = 4;
    test_solo_open(&t, &g);
    const struct kithi_notes *notes = kithi_header_notes(test_solo_header(&t));
    for (uint32_t n = 0; n < 3; n++) {
        stage_many(&t, n * MANY, ids + n * MANY, vectors + n * MANY);
        const struct kithi_group *sealed = kithi_group_seal(t.ix);
        for (uint32_t i = 0; n == 0 && i < MANY; i++)
            kithi_group_job(t.ix, sealed, 0, i);
        assert_int_equal(notes->count, n < 2 ? (n + 1) * MANY : KITHI_NOTES_OVERFLOW);
    }
    test_solo_publish(&t);
    assert_int_equal(notes->count, 2 * MANY);
    for (uint32_t i = 0; i < 2 * MANY; i++)
        assert_int_equal(notes->slots[i], MANY + i);
    test_solo_leave(&t);
    assert_int_equal(test_solo_adopt(&t, &err), 0);
    assert_int_equal(kithi_index_live(t.ix), MANY);
    assert_true(test_solo_clean(&t));
    test_solo_settle(&t);
    assert_int_equal(test_solo_header(&t)->tally_free, 2 * MANY);
    test_solo_close(&t);
    free(ids);
    free(vectors);
}

/* Insertions that began before a death may choose the slot: it is swept when they are visible. */
static void what_died_beside_insertions_is_swept_behind_them(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 100);
    struct kithi_group_result result;
    struct kithi_errmsg err;
    float v[DIM] = { 1, 2 };
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "a", v), 0);
    struct kithi_op gone = test_delete("a"), other = test_upsert("b", v, DIM);
    assert_int_equal(kithi_group_add(t.ix, &gone, 1, &result, &err), 0);
    assert_int_equal(result.found, 1);
    kithi_group_seal(t.ix);
    assert_int_equal(kithi_group_add(t.ix, &other, 1, &result, &err), 0);
    const struct kithi_group *second = kithi_group_seal(t.ix);
    kithi_group_job(t.ix, second, 0, 0); /* chooses "a" */
    test_solo_publish(&t);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(test_solo_sweep(&t, 1000), 0);
    assert_int_equal(test_solo_header(&t)->tally_dead, 1);
    test_solo_publish(&t);
    test_solo_settle(&t);
    assert_int_equal(test_solo_header(&t)->tally_free, 1);
    assert_int_equal(test_solo_search(&t, v, 1, 10, false), 1);
    assert_string_equal(test_solo_hit(&t, 0), "b");
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_under_way_are_as_if_one_came_after_the_other),
        cmocka_unit_test(groups_too_large_to_be_noted_together_are_noted_again_as_they_get_fewer),
        cmocka_unit_test(what_died_beside_insertions_is_swept_behind_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
