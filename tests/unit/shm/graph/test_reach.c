/*
 * test_reach.c - what no link leads to is counted and named; nothing else is, whatever was written meanwhile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "shm/graph/reach.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

#define DIM         8u
#define COUNT       1500u
#define GROUP       50u
#define PATIENCE_MS 1000u

struct fixture {
    struct test_dir dir;
    struct test_index index;
    struct test_rand r;
};

struct named {
    uint32_t count, slot; /* the last */
    bool above;
};

static void note(void *arg, const struct kithi_view *v, uint32_t slot, bool above)
{
    struct named *n = arg;
    assert_true(slot < v->slots_used);
    n->count++;
    n->slot = slot;
    n->above = above;
}

/* Ids first..first+n-1 (modulo COUNT), new vectors. */
static void put(struct fixture *f, uint32_t first, uint32_t n)
{
    char ids[GROUP][16];
    float vectors[GROUP][DIM];
    struct kithi_op ops[GROUP];
    struct kithi_errmsg err;
    assert_true(n <= GROUP);
    for (uint32_t i = 0; i < n; i++) {
        test_rand_floats(&f->r, vectors[i], DIM);
        ops[i] = (struct kithi_op){ .type = KITHI_OP_UPSERT,
                                    .id_len = (uint16_t)snprintf(ids[i], 16, "%u", (first + i) % COUNT),
                                    .dim = DIM,
                                    .id = ids[i],
                                    .vector = vectors[i] };
    }
    assert_int_equal(test_index_commit(&f->index, ops, n, &err), 0);
}

static void set_up(struct fixture *f, uint32_t grace_ms)
{
    struct kithi_geometry g = {
        .dim = DIM, .metric = KITHI_METRIC_L2, .m = 16, .ef_construction = 100, .slot_max = 1 << 16
    };
    test_rand_seed(&f->r, test_seed());
    test_dir_make_shm(&f->dir);
    test_index_create(&f->index, test_path(&f->dir, "segment"), &g, 2, grace_ms, 1);
    for (uint32_t i = 0; i < COUNT; i += GROUP)
        put(f, i, GROUP);
}

static void tear_down(struct fixture *f)
{
    test_index_close(&f->index);
    test_dir_remove(&f->dir);
}

static struct kithi_reach_report prove(struct fixture *f, struct named *named)
{
    struct kithi_reach_report report;
    memset(named, 0, sizeof *named);
    assert_int_equal(kithi_reach_prove(test_index_map(&f->index), 0, NULL, note, named, &report), 0);
    assert_int_equal(report.unreachable_count, named->count);
    return report;
}

/* Take away all links to slot, at levels from..to. */
static void cut(struct fixture *f, uint32_t slot, unsigned from, unsigned to)
{
    struct kithi_view v;
    kithi_view_begin(test_index_map(&f->index), &v);
    for (uint32_t i = 0; i < v.slots_used; i++) {
        for (unsigned level = from; level <= to && level <= kithi_meta_level(kithi_view_record(&v, i)->meta);
             level++) {
            uint32_t count;
            kithi_link *links = kithi_view_links(&v, i, level, &count);
            for (uint32_t j = 0; links && j < count; j++)
                if (links[j] == slot + 1)
                    links[j] = 0;
        }
    }
}

/* A living slot of this level, not the entry point. */
static uint32_t living(struct fixture *f, uint32_t level)
{
    struct kithi_view v;
    kithi_view_begin(test_index_map(&f->index), &v);
    for (uint32_t slot = 0; slot < v.slots_used; slot++) {
        const struct kithi_record *r = kithi_view_record(&v, slot);
        if (r->birth && !r->death && kithi_meta_level(r->meta) == level &&
            kithi_entry_link(v.header->entry) != slot + 1)
            return slot;
    }
    fail_msg("no slot of level %u", level);
    return 0;
}

static void what_nothing_leads_to_is_counted_and_named(void **state)
{
    (void)state;
    struct fixture f;
    struct named named;
    set_up(&f, 1000000);
    struct kithi_reach_report report = prove(&f, &named);
    assert_int_equal(report.unreachable_count, 0);
    assert_int_equal(report.live_count, COUNT);
    assert_int_equal(report.epoch, COUNT / GROUP);

    uint32_t low = living(&f, 0), high = living(&f, 1);
    cut(&f, low, 0, 0);
    report = prove(&f, &named);
    assert_int_equal(report.unreachable_count, 1);
    assert_int_equal(report.above_count, 0);
    assert_int_equal(named.slot, low);
    assert_false(named.above);

    cut(&f, high, 0, 0);
    report = prove(&f, &named);
    assert_int_equal(report.unreachable_count, 2);
    assert_int_equal(report.above_count, 1); /* level 1 still leads to it */
    cut(&f, high, 1, 1);
    report = prove(&f, &named);
    assert_int_equal(report.unreachable_count, 2);
    assert_int_equal(report.above_count, 0);
    tear_down(&f);
}

static void the_dead_lead_on_and_are_not_missed(void **state)
{
    (void)state;
    struct fixture f;
    struct named named;
    set_up(&f, 1000000);
    put(&f, 0, GROUP); /* they stay linked */
    struct kithi_reach_report report = prove(&f, &named);
    assert_int_equal(report.unreachable_count, 0);
    assert_int_equal(report.live_count, COUNT);
    struct kithi_view v;
    kithi_view_begin(test_index_map(&f.index), &v);
    uint32_t dead = 0;
    while (!kithi_view_record(&v, dead)->death)
        dead++;
    cut(&f, dead, 0, 15);
    report = prove(&f, &named);
    assert_int_equal(report.unreachable_count, 0);
    /* A living one that only a dead one leads to is reached. */
    uint32_t slot = living(&f, 0), entry = kithi_entry_link(v.header->entry) - 1;
    cut(&f, slot, 0, 0);
    kithi_view_row(&v, dead)[0] = slot + 1;
    kithi_view_row(&v, entry)[0] = dead + 1;
    report = prove(&f, &named);
    assert_true(named.count == 0 || named.slot != slot); /* the place of the entry's row was another's */
    kithi_view_row(&v, dead)[0] = 0;
    report = prove(&f, &named);
    assert_true(report.unreachable_count > 0);
    tear_down(&f);
}

static void without_an_entry_point_nothing_is_reached(void **state)
{
    (void)state;
    struct fixture f;
    struct named named;
    set_up(&f, 1000000);
    kithi_map_header(test_index_map(&f.index))->entry = 0;
    assert_int_equal(prove(&f, &named).unreachable_count, COUNT);
    /* Nor by one that leads nowhere. */
    kithi_map_header(test_index_map(&f.index))->entry = kithi_entry_pack(UINT32_MAX - 1, 3);
    assert_int_equal(prove(&f, &named).unreachable_count, COUNT);
    tear_down(&f);
}

static void it_can_be_told_to_stop_and_says_who_has_moved(void **state)
{
    (void)state;
    struct fixture f;
    struct kithi_reach_report report = { .epoch = 77 };
    _Atomic bool stop = true;
    set_up(&f, 1000000);
    const struct kithi_map *map = test_index_map(&f.index);
    assert_int_equal(kithi_reach_prove(map, 0, &stop, NULL, NULL, &report), -ECANCELED);
    kithi_map_header(map)->moved = 1;
    assert_int_equal(kithi_reach_prove(map, 0, NULL, NULL, NULL, &report), KITHI_E_MOVED);
    assert_int_equal(report.epoch, 77);
    tear_down(&f);
}

struct walker {
    const struct kithi_map *map;
    _Atomic bool stop;
    uint64_t walks, missed;
};

static void *walk_on(void *arg)
{
    struct walker *w = arg;
    struct kithi_reach_report report;
    while (!atomic_load(&w->stop)) {
        int rc = kithi_reach_prove(w->map, PATIENCE_MS, &w->stop, NULL, NULL, &report);
        if (rc < 0)
            break;
        w->walks++;
        w->missed += report.unreachable_count;
    }
    return NULL;
}

/* Thousands of updates at random, sweeps among them, and a walker beside. */
static void updates_leave_everything_reachable(void **state)
{
    (void)state;
    struct fixture f;
    struct named named;
    pthread_t thread;
    set_up(&f, 1);
    struct walker w = { .map = test_index_map(&f.index) };
    assert_int_equal(pthread_create(&thread, NULL, walk_on, &w), 0);
    for (uint32_t i = 0; i < 8 * COUNT / GROUP; i++)
        put(&f, test_rand_below(&f.r, COUNT), GROUP);
    assert_true(test_index_settle(&f.index, 60000));
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    assert_true(f.index.sweep_count > 0);
    struct kithi_reach_report report = prove(&f, &named);
    assert_int_equal(report.live_count, COUNT);
    assert_int_equal(report.unreachable_count, 0);
    print_message("%lu walks beside, %lu missed\n", (unsigned long)w.walks, (unsigned long)w.missed);
    assert_int_equal(w.missed, 0);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_nothing_leads_to_is_counted_and_named),
        cmocka_unit_test(the_dead_lead_on_and_are_not_missed),
        cmocka_unit_test(without_an_entry_point_nothing_is_reached),
        cmocka_unit_test(it_can_be_told_to_stop_and_says_who_has_moved),
        cmocka_unit_test(updates_leave_everything_reachable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
