/*
 * test_adopt.c - whatever instruction the owner died at, the next one finds the collection as of the last epoch.
 *
 * The owner is a child that dies at a named point (server/base/fault.h) on its n-th passage, in the middle of a
 * workload that depends on a seed only. The parent repeats the workload on paper, so it knows what every epoch
 * holds; it adopts what the child left, compares, goes on where the child was, and dies and adopts again.
 */
#include "server/index/index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/id.h"
#include "shm/graph/search.h"
#include "shm/graph/verify.h"
#include "tests/support/codes.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM    4u
#define IDS    60u
#define GROUPS 60u
#define OPS    12u

/* What every id holds: the first number of its vector, 0 when it is not there. */
struct paper {
    float value[IDS];
};

static struct kithi_geometry geometry(void)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 4000);
    g.ef_construction = 24;
    g.m = 5; /* many upper rows */
    return g;
}

/* Every third id lies in a blob. */
static void name_of(uint32_t i, char out[KITHI_ID_MAX + 1])
{
    size_t len = i % 3 ? 4 : 30 + 7 * i;
    memset(out, '-', len);
    out[len] = '\0';
    out[0] = (char)('0' + i / 10);
    out[1] = (char)('0' + i % 10);
}

/* The requests of group e; the same for everybody. */
static uint32_t requests(uint64_t seed, uint64_t e, uint32_t ids[OPS], float values[OPS])
{
    struct test_rand r;
    test_rand_seed(&r, seed + e * 0x10001);
    uint32_t n = 1 + test_rand_below(&r, OPS);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = test_rand_below(&r, test_rand_below(&r, 3) ? IDS : 5);
        values[i] = test_rand_below(&r, 4) ? 1 + (float)e + 0.01f * (float)i : 0;
    }
    return n;
}

static void on_paper(uint64_t seed, uint64_t epoch, struct paper *out)
{
    uint32_t ids[OPS];
    float values[OPS];
    memset(out, 0, sizeof *out);
    for (uint64_t e = 1; e <= epoch; e++) {
        uint32_t n = requests(seed, e, ids, values);
        for (uint32_t i = 0; i < n; i++)
            out->value[ids[i]] = values[i];
    }
}

/* The vector of an id that holds value. */
static void vector_of(uint32_t id, float value, float out[DIM])
{
    for (uint32_t i = 0; i < DIM; i++)
        out[i] = i ? (float)(id % 7) : value;
}

static void run_group(struct test_solo *t, uint64_t seed, uint64_t e)
{
    uint32_t ids[OPS];
    float values[OPS];
    struct kithi_op ops[OPS];
    static char names[OPS][KITHI_ID_MAX + 1];
    static float v[OPS][DIM];
    uint32_t n = requests(seed, e, ids, values);
    for (uint32_t i = 0; i < n; i++) {
        name_of(ids[i], names[i]);
        vector_of(ids[i], values[i], v[i]);
        ops[i] = values[i] != 0 ? test_upsert(names[i], v[i], DIM) : test_delete(names[i]);
    }
    if (test_solo_commit(t, ops, n) < 0)
        test_die("group %llu was refused", (unsigned long long)e);
    test_solo_sweep(t, 150);
}

static bool holds(const struct test_solo *t, uint64_t seed)
{
    struct paper paper;
    char id[KITHI_ID_MAX + 1];
    uint64_t epoch = kithi_index_epoch(t->ix), live = 0;
    on_paper(seed, epoch, &paper);
    for (uint32_t i = 0; i < IDS; i++) {
        float v[DIM], kept[DIM];
        name_of(i, id);
        vector_of(i, paper.value[i], kept);
        test_codes_decoded(test_codes_kept(), false, kept, DIM);
        int rc = test_solo_get(t, id, v);
        live += paper.value[i] != 0;
        if (rc == (paper.value[i] != 0 ? 0 : KITHI_E_NOT_FOUND) && (rc < 0 || memcmp(v, kept, sizeof v) == 0))
            continue;
        fprintf(stderr, "epoch %llu: id %u is %s %g, expected %g\n", (unsigned long long)epoch, i,
                rc ? kithi_error_name(rc) : "", rc ? 0 : (double)v[0], (double)kept[0]);
        return false;
    }
    return kithi_index_live(t->ix) == live && atomic_load(&test_solo_header(t)->live) == live;
}

/* All vectors are hits by the records, and nearly all by the graph: short rows that were cut in the
 * middle of a change may miss one. */
static bool all_are_reached(struct test_solo *t)
{
    float q[DIM] = { 1 };
    int live = (int)kithi_index_live(t->ix);
    return test_solo_search(t, q, 1000, 1000, true) == live &&
           10 * test_solo_search(t, q, 1000, 1000, false) >= 9 * live;
}

/* The child: groups from the epoch on, until it dies. Its exit status is 0 when it did not. */
static bool run_until_death(struct test_solo *t, uint64_t seed, const char *fault, uint64_t groups)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct kithi_errmsg err;
        setenv("KITH_FAULT", fault, 1);
        if (test_solo_adopt(t, &err) < 0)
            test_die("%s", err.text);
        for (uint64_t i = 0; i < groups; i++)
            run_group(t, seed, kithi_index_epoch(t->ix) + 1);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return false;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return true;
}

static void print_violation(void *arg, const char *rule, const char *text)
{
    (void)arg;
    fprintf(stderr, "verify: %s: %s\n", rule, text);
}

/* As readers see it while nobody owns it. */
static void assert_clean_without_owner(const struct test_solo *t)
{
    struct kithi_map map;
    struct kithi_errmsg err;
    struct kithi_verify_report report;
    assert_int_equal(kithi_map_attach_path(t->path, false, &map, &err), 0);
    assert_int_equal(kithi_verify_within(&map, 0, print_violation, NULL, &report), 0);
    assert_int_equal(report.violation_count, 0);
    kithi_map_detach(&map);
}

static void adopt(struct test_solo *t)
{
    struct kithi_errmsg err = { 0 };
    if (test_solo_adopt(t, &err) < 0)
        fail_msg("%s", err.text);
}

/*
 * Adopt in one of three ways, by turns: with a census at once; with a few groups committed between its pieces; without
 * notes, all at once.
 */
static void adopt_by_turns(struct test_solo *t, uint64_t seed, unsigned turn)
{
    struct kithi_errmsg err = { 0 };
    int64_t miscounted;
    if (turn % 3 == 2)
        test_solo_forget_notes(t);
    if (test_solo_adopt_only(t, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(kithi_index_census_due(t->ix), turn % 3 != 2);
    if (turn % 3 != 1)
        assert_int_equal(test_solo_census(t, &err), 0);
    /* Few groups: without sweeps in between graphs of so few vectors come apart. */
    while (kithi_index_census_due(t->ix)) {
        assert_true(holds(t, seed) && test_solo_clean(t));
        run_group(t, seed, kithi_index_epoch(t->ix) + 1);
        int rc = kithi_index_census(t->ix, 100 + turn % 100, &miscounted, &err);
        assert_true(rc >= 0 && miscounted == 0);
    }
    assert_int_equal(kithi_index_census(t->ix, 1, &miscounted, &err), 0);
}

static void check_point(const char *point, unsigned least)
{
    struct test_solo t;
    struct kithi_geometry g = geometry();
    uint64_t seed = test_seed();
    unsigned deaths = 0;
    char fault[64];
    test_solo_open(&t, &g);
    test_solo_leave(&t);
    for (unsigned n = 1; n < 400; n += 1 + n / 3) {
        snprintf(fault, sizeof fault, "%s:%u", point, n);
        deaths += run_until_death(&t, seed, fault, GROUPS);

        /* A reader that comes while nobody owns the segment. */
        struct kithi_map map;
        struct kithi_errmsg err;
        assert_int_equal(kithi_map_attach_path(t.path, false, &map, &err), 0);
        float q[DIM] = { 0 };
        struct kithi_search_params p = { .k = 100, .ef = 1000, .exact = true };
        int seen = kithi_search(&map, &t.scratch, q, &p, &t.results);
        assert_true(seen >= 0);
        kithi_map_detach(&map);

        if (n % 2)
            test_solo_forget_notes(&t);
        assert_int_equal(test_solo_adopt_only(&t, &err), 0);
        if (!holds(&t, seed) || !test_solo_clean(&t))
            fail_msg("%s, after %u deaths, KITH_SEED=%llu", fault, deaths, (unsigned long long)seed);
        assert_int_equal(seen, kithi_index_live(t.ix));
        assert_true(all_are_reached(&t));
        test_solo_leave(&t);
        adopt_by_turns(&t, seed, n); /* twice changes nothing */
        assert_true(holds(&t, seed) && test_solo_clean(&t));
        run_group(&t, seed, kithi_index_epoch(t.ix) + 1);
        assert_true(holds(&t, seed));
        if (n % 2)
            test_solo_settle(&t);
        assert_true(test_solo_clean(&t));
        test_solo_leave(&t);
    }
    if (deaths < least)
        fail_msg("%s was met %u times only", point, deaths);
    adopt(&t);
    test_solo_settle(&t);
    /* Nothing was lost on the way: what is not alive is free. */
    const struct kithi_header *h = test_solo_header(&t);
    assert_int_equal(h->tally_free + h->live, h->slots_used);
    assert_true(h->slots_used < 600);
    assert_true(holds(&t, seed) && test_solo_clean(&t));
    test_solo_close(&t);
}

static void death_while_filling_leaves_a_free_slot(void **state)
{
    (void)state;
    check_point("crash-while-filling", 8);
}

/* Without notes it looks at every record, which may take a while; told to stop, it leaves what a death at that place would. */
static void an_adoption_without_notes_hears_a_stop(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    struct kithi_errmsg err = { 0 };
    const uint64_t seed = test_seed();
    _Atomic bool stop = true;
    test_solo_open(&t, &g);
    run_group(&t, seed, 1);
    test_solo_leave(&t);
    test_solo_forget_notes(&t);
    assert_int_equal(kithi_index_adopt(t.path, &t.identity, &t.tuning, &stop, &t.ix, &err), -ECANCELED);
    assert_clean_without_owner(&t);
    adopt(&t);
    assert_true(holds(&t, seed) && test_solo_clean(&t));
    test_solo_leave(&t);
    /* With notes there is nothing to wait for. */
    assert_int_equal(kithi_index_adopt(t.path, &t.identity, &t.tuning, &stop, &t.ix, &err), 0);
    test_solo_close(&t);
}

static void death_while_linking_leaves_an_aborted_slot(void **state)
{
    (void)state;
    check_point("crash-while-linking", 8);
}

/* Of a collection's first group, of which nothing became visible: no epoch is before its slots. */
static void aborted_slots_of_the_first_group_are_swept_as_others_are(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    struct kithi_group_result result;
    struct kithi_errmsg err;
    const float v[DIM] = { 1 };
    test_solo_open(&t, &g);
    struct kithi_op op = test_upsert("first", v, DIM);
    assert_int_equal(kithi_group_add(t.ix, &op, 1, &result, &err), 0);
    test_solo_jobs(&t);
    test_solo_leave(&t);
    adopt(&t);
    const struct kithi_header *h = test_solo_header(&t);
    assert_int_equal(h->epoch, 0);
    assert_int_equal(h->tally_dead, 1);
    for (unsigned i = 0; i < 10; i++)
        test_solo_sweep(&t, 1000);
    assert_int_equal(h->tally_free, 1);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void births_beyond_the_epoch_are_taken_back(void **state)
{
    (void)state;
    check_point("crash-after-births", 5);
}

static void id_entries_beyond_the_epoch_are_taken_back(void **state)
{
    (void)state;
    check_point("crash-after-ids", 5);
}

static void deaths_beyond_the_epoch_are_taken_back(void **state)
{
    (void)state;
    check_point("crash-after-deaths", 5);
}

static void a_group_whose_epoch_was_stored_stays(void **state)
{
    (void)state;
    check_point("crash-after-epoch", 5);
}

/* The last store before the epoch is the count of vectors; a death in adoption comes on top of it. */
static void the_count_is_right_while_a_group_that_was_counted_is_taken_back(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    uint64_t seed = test_seed();
    test_solo_open(&t, &g);
    test_solo_leave(&t);
    for (unsigned n = 0; n < 12; n++) {
        assert_true(run_until_death(&t, seed, "crash-before-epoch:3", GROUPS));
        assert_true(run_until_death(&t, seed, "crash-after-undoing", 0));
        assert_clean_without_owner(&t);
    }
    adopt(&t);
    assert_true(holds(&t, seed) && test_solo_clean(&t));
    test_solo_close(&t);
}

static void a_sweep_that_was_cut_short_is_done_again(void **state)
{
    (void)state;
    check_point("crash-while-unlinking", 8);
}

static void a_batch_that_was_partly_buried_is_swept_again(void **state)
{
    (void)state;
    check_point("crash-while-burying", 8);
}

static void death_while_freeing_leaves_a_slot_to_sweep(void **state)
{
    (void)state;
    check_point("crash-while-freeing", 8);
}

static void death_after_freeing_leaves_a_free_slot_whose_rows_and_blob_are_free(void **state)
{
    (void)state;
    check_point("crash-after-freeing", 8);
}

static void a_half_filled_id_table_is_not_used(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    float v[DIM] = { 1 };
    char id[16];
    test_solo_open(&t, &g);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(id, sizeof id, "%u", i);
        assert_int_equal(test_solo_put(&t, id, v), 0);
    }
    uint64_t word = atomic_load(&test_solo_header(&t)->id_table);
    test_solo_leave(&t);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct kithi_errmsg err;
        setenv("KITH_FAULT", "crash-in-rebuild:150", 1);
        if (test_solo_adopt(&t, &err) < 0)
            test_die("%s", err.text);
        for (unsigned i = 300; i < 400; i++) {
            snprintf(id, sizeof id, "%u", i);
            test_solo_put(&t, id, v);
        }
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    adopt(&t);
    assert_int_equal(atomic_load(&test_solo_header(&t)->id_table), word);
    for (unsigned i = 0; i < 400; i++) {
        snprintf(id, sizeof id, "%u", i);
        assert_int_equal(test_solo_get(&t, id, NULL), i < kithi_index_live(t.ix) ? 0 : KITHI_E_NOT_FOUND);
    }
    assert_true(test_solo_clean(&t));
    for (unsigned i = 300; i < 1000; i++) {
        snprintf(id, sizeof id, "%u", i);
        assert_int_equal(test_solo_put(&t, id, v), 0);
    }
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/* ---- states made by storing the words ---- */

static void commit_some(struct test_solo *t, uint64_t seed, uint64_t groups)
{
    for (uint64_t e = 1; e <= groups; e++)
        run_group(t, seed, e);
}

static void doubt_bits_of_the_living_are_cleared_and_of_all_others_set(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    struct kithi_view v;
    test_solo_open(&t, &g);
    commit_some(&t, 7, 20);
    for (unsigned round = 0; round < 2; round++) {
        kithi_view_begin(test_solo_map(&t), &v);
        memset(v.doubt, round ? 0xff : 0, (v.slots_used + 7) / 8);
        test_solo_leave(&t);
        adopt(&t);
        assert_true(test_solo_clean(&t)); /* which looks at every bit */
        assert_true(all_are_reached(&t) && holds(&t, 7));
    }
    kithi_view_begin(test_solo_map(&t), &v);
    uint64_t clear = 0;
    for (uint32_t slot = 0; slot < v.slots_used; slot++)
        clear += !kithi_view_doubt(&v, slot);
    assert_int_equal(clear, kithi_index_live(t.ix));
    test_solo_close(&t);
}

static void dead_and_resting_slots_wait_for_a_sweep_again_and_are_reused_after_it(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    test_solo_open(&t, &g);
    commit_some(&t, 8, 30);
    uint64_t used = test_solo_header(&t)->slots_used, live = kithi_index_live(t.ix);
    test_solo_leave(&t);
    adopt(&t);
    struct kithi_header *h = test_solo_header(&t);
    assert_int_equal(h->tally_resting, 0);
    assert_int_equal(h->tally_dead + h->tally_free + live, used);
    assert_true(h->tally_dead > 0);
    uint64_t mark = h->unlinked;
    test_solo_settle(&t);
    assert_true(h->unlinked >= mark && h->unlinked <= h->epoch);
    assert_int_equal(h->tally_free + live, used);
    assert_true(holds(&t, 8) && test_solo_clean(&t) && all_are_reached(&t));
    test_solo_close(&t);
}

static void an_empty_segment_is_adopted(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    test_solo_open(&t, &g);
    uint32_t wake = test_solo_header(&t)->wake;
    test_solo_leave(&t);
    adopt(&t);
    assert_int_not_equal(test_solo_header(&t)->wake, wake);
    assert_true(test_solo_clean(&t));
    commit_some(&t, 9, 5);
    assert_true(holds(&t, 9) && test_solo_clean(&t));
    test_solo_close(&t);
}

static void assert_not_adoptable(struct test_solo *t, int code, const char *say)
{
    struct kithi_errmsg err = { 0 };
    int rc = test_solo_adopt_only(t, &err);
    if (rc != code || err.code != code || !strstr(err.text, say))
        fail_msg("%s: %s; expected %s, \"%s\"", kithi_error_name(rc), err.text, kithi_error_name(code), say);
    t->ix = NULL;
}

static void poke(const struct test_solo *t, uint64_t off, uint64_t value, size_t len)
{
    int fd = open(t->path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &value, len, (off_t)off), len);
    close(fd);
}

/* Levels are drawn: vectors are added until one has upper rows. */
static uint32_t slot_with_upper(struct test_solo *t)
{
    const float v[DIM] = { 0 };
    char id[16];
    for (unsigned more = 0;; more++) {
        struct kithi_view view;
        kithi_view_begin(test_solo_map(t), &view);
        for (uint32_t slot = 0; slot < view.slots_used; slot++)
            if (kithi_view_record(&view, slot)->linked && kithi_view_record(&view, slot)->upper)
                return slot;
        snprintf(id, sizeof id, "more %u", more);
        assert_int_equal(test_solo_put(t, id, v), 0);
    }
}

static void a_segment_whose_words_make_no_sense_is_refused(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    struct kithi_layout l;
    kithi_geometry_layout(&g, &l);
    test_solo_open(&t, &g);
    commit_some(&t, 10, 10);
    test_solo_leave(&t);
    uint64_t record0 = l.off[KITHI_REGION_RECORDS];
    const struct {
        uint64_t off, value;
        size_t len;
        int code;
        const char *say;
    } bad[] = {
        { offsetof(struct kithi_header, slots_used), 100000, 8, KITHI_E_CORRUPT, "slots are in use" },
        { offsetof(struct kithi_header, slots_used), UINT64_MAX, 8, KITHI_E_CORRUPT, "slots are in use" },
        { offsetof(struct kithi_header, taken) + 8 * KITHI_REGION_ROWS, UINT64_MAX, 8, KITHI_E_CORRUPT,
          "rows" },
        { offsetof(struct kithi_header, taken) + 8 * KITHI_REGION_HEADER, 0, 8, KITHI_E_CORRUPT, "header" },
        { offsetof(struct kithi_header, entry), UINT64_MAX, 8, KITHI_E_CORRUPT, "entry point" },
        { offsetof(struct kithi_header, entry), 3999, 8, KITHI_E_CORRUPT, "entry point" },
        { offsetof(struct kithi_header, id_table), 0, 8, KITHI_E_CORRUPT, "id table" },
        { offsetof(struct kithi_header, id_table), UINT64_C(9) << 56, 8, KITHI_E_CORRUPT, "id table" },
        { offsetof(struct kithi_header, id_table), UINT64_C(30) << 48, 8, KITHI_E_CORRUPT, "id table" },
        { offsetof(struct kithi_header, unlinked), 1000, 8, KITHI_E_CORRUPT, "marks" },
        { offsetof(struct kithi_header, reused), 1000, 8, KITHI_E_CORRUPT, "marks" },
        { offsetof(struct kithi_header, moved), 1, 4, KITHI_E_MOVED, "moved" },
        { offsetof(struct kithi_header, version), 7, 4, KITHI_E_VERSION, "version 7" },
        { offsetof(struct kithi_header, uid), 1, 1, KITHI_E_REPLACED, "another collection" },
        { offsetof(struct kithi_header, hash_key), 1, 1, KITHI_E_REPLACED, "another collection" },
        { offsetof(struct kithi_header, ef_construction), 25, 4, KITHI_E_REPLACED, "another collection" },
        { offsetof(struct kithi_header, magic), 0, 8, KITHI_E_NOT_SEGMENT, "being built" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t good = 0;
        int fd = open(t.path, O_RDONLY | O_CLOEXEC);
        assert_int_equal(pread(fd, &good, bad[i].len, (off_t)bad[i].off), bad[i].len);
        close(fd);
        poke(&t, bad[i].off, bad[i].value, bad[i].len);
        assert_not_adoptable(&t, bad[i].code, bad[i].say);
        poke(&t, bad[i].off, good, bad[i].len);
    }
    adopt(&t); /* it was not touched meanwhile */
    uint32_t slot = slot_with_upper(&t);
    test_solo_leave(&t);
    uint64_t upper = record0 + slot * sizeof(struct kithi_record) + offsetof(struct kithi_record, upper),
             good;
    int fd = open(t.path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, &good, 4, (off_t)upper), 4);
    close(fd);
    test_solo_forget_notes(&t);
    poke(&t, upper, 0xffffff, 4);
    assert_not_adoptable(&t, KITHI_E_CORRUPT, "upper rows or a blob");
    poke(&t, upper, good, 4);
    adopt(&t); /* without notes a start looks for itself, and nothing was condemned */
    test_solo_leave(&t);

    /* With notes it is found by the census, and the segment is adopted no more. */
    struct kithi_errmsg err = { 0 };
    poke(&t, upper, 0xffffff, 4);
    assert_int_equal(test_solo_adopt_only(&t, &err), 0);
    assert_int_equal(test_solo_census(&t, &err), KITHI_E_CORRUPT);
    assert_non_null(strstr(err.text, "upper rows or a blob"));
    assert_int_equal(test_solo_census(&t, &err), KITHI_E_CORRUPT);
    test_solo_leave(&t);
    assert_not_adoptable(&t, KITHI_E_CORRUPT, "last daemon found a record");
    test_solo_close(&t);
}

static void what_is_not_there_or_no_segment_is_not_adopted(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    test_solo_open(&t, &g);
    test_solo_leave(&t);
    assert_int_equal(truncate(t.path, 100), 0);
    assert_not_adoptable(&t, KITHI_E_NOT_SEGMENT, "100 bytes");
    assert_int_equal(kithi_segment_mark_moved(t.path, true), 0); /* leaves alone what is no segment */
    assert_int_equal(unlink(t.path), 0);
    assert_not_adoptable(&t, KITHI_E_NO_COLLECTION, "cannot open");
    assert_int_equal(kithi_segment_mark_moved(t.path, true), -ENOENT);
    test_solo_close(&t);
}

static void a_segment_that_cannot_be_adopted_can_be_marked_as_moved(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_geometry g = geometry();
    struct kithi_map map;
    struct kithi_errmsg err;
    test_solo_open(&t, &g);
    commit_some(&t, 11, 3);
    test_solo_leave(&t);
    assert_int_equal(kithi_map_attach_path(t.path, false, &map, &err), 0);
    poke(&t, offsetof(struct kithi_header, id_table), 0, 8);
    assert_not_adoptable(&t, KITHI_E_CORRUPT, "id table");
    uint32_t wake = kithi_map_header(&map)->wake;
    assert_int_equal(kithi_segment_mark_moved(t.path, false), 0);
    assert_int_equal(kithi_map_header(&map)->moved, 1);
    assert_int_equal(kithi_map_header(&map)->dropped, 0);
    assert_int_not_equal(kithi_map_header(&map)->wake, wake);
    assert_int_equal(kithi_segment_mark_moved(t.path, true), 0);
    assert_int_equal(kithi_map_header(&map)->dropped, 1);
    kithi_map_detach(&map);
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(death_while_filling_leaves_a_free_slot),
        cmocka_unit_test(an_adoption_without_notes_hears_a_stop),
        cmocka_unit_test(death_while_linking_leaves_an_aborted_slot),
        cmocka_unit_test(aborted_slots_of_the_first_group_are_swept_as_others_are),
        cmocka_unit_test(births_beyond_the_epoch_are_taken_back),
        cmocka_unit_test(id_entries_beyond_the_epoch_are_taken_back),
        cmocka_unit_test(deaths_beyond_the_epoch_are_taken_back),
        cmocka_unit_test(a_group_whose_epoch_was_stored_stays),
        cmocka_unit_test(the_count_is_right_while_a_group_that_was_counted_is_taken_back),
        cmocka_unit_test(a_sweep_that_was_cut_short_is_done_again),
        cmocka_unit_test(a_batch_that_was_partly_buried_is_swept_again),
        cmocka_unit_test(death_while_freeing_leaves_a_slot_to_sweep),
        cmocka_unit_test(death_after_freeing_leaves_a_free_slot_whose_rows_and_blob_are_free),
        cmocka_unit_test(a_half_filled_id_table_is_not_used),
#endif
        cmocka_unit_test(doubt_bits_of_the_living_are_cleared_and_of_all_others_set),
        cmocka_unit_test(dead_and_resting_slots_wait_for_a_sweep_again_and_are_reused_after_it),
        cmocka_unit_test(an_empty_segment_is_adopted),
        cmocka_unit_test(a_segment_whose_words_make_no_sense_is_refused),
        cmocka_unit_test(what_is_not_there_or_no_segment_is_not_adopted),
        cmocka_unit_test(a_segment_that_cannot_be_adopted_can_be_marked_as_moved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
