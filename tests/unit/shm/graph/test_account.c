/*
 * test_account.c - every byte of a segment is accounted for: what the header's words say is what the records say, region by region, and
 * what the file system says of the file; also amid groups, sweeps and starts. Arbitrary words make no sum wrong.
 */
#include "shm/graph/account.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shm/graph/view.h"
#include "shm/layout/notes.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM      24u
#define COUNT    900u
#define GROUP    30u
#define TURNS    12u
#define LEN_LAST 500u

static struct test_rand r;

static uint64_t page(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Every class of blobs, and none. */
static void name(uint32_t i, char id[512])
{
    static const uint32_t lens[] = { 8, 40, 100, 200, LEN_LAST };
    uint32_t len = lens[i % (sizeof lens / sizeof *lens)];
    memset(id, 'x', len);
    snprintf(id, 9, "%08u", i);
    if (len > 8)
        id[8] = '-';
    id[len] = '\0';
}

static void stage(struct test_solo *t, uint32_t from, uint32_t n, bool deletes)
{
    static char ids[GROUP][512];
    static float v[GROUP][DIM];
    struct kithi_op ops[GROUP];
    struct kithi_group_result result;
    struct kithi_errmsg err;
    for (uint32_t i = 0; i < n; i++) {
        name(from + i, ids[i]);
        test_rand_floats(&r, v[i], DIM);
        ops[i] = deletes ? test_delete(ids[i]) : test_upsert(ids[i], v[i], DIM);
        if (!deletes && (from + i) % 10 == 0) { /* the larger classes are of payloads alone */
            static const uint32_t lens[] = { 900, 3000, 10000, 40000 };
            static unsigned char payload[40000];
            ops[i].flags = KITHI_OP_PAYLOAD;
            ops[i].payload = payload;
            ops[i].payload_len = lens[(from + i) / 10 % 4];
        }
    }
    if (kithi_group_add(t->ix, ops, n, &result, &err) < 0)
        fail_msg("%s", err.text);
}

static void commit(struct test_solo *t, uint32_t from, uint32_t n, bool deletes)
{
    for (uint32_t i = 0; i < n; i += GROUP) {
        stage(t, from + i, n - i < GROUP ? n - i : GROUP, deletes);
        test_solo_jobs(t);
        test_solo_publish(t);
    }
}

/* ---- what the records say ---- */

enum state { LIVE, GONE, PENDING, FREE, STATES };

static enum state state_of(const struct kithi_record *rec)
{
    if (!rec->linked)
        return FREE; /* or taken by the open group and not filled yet, which records do not tell */
    if (rec->birth == 0)
        return rec->death ? GONE : PENDING;
    return rec->death ? GONE : LIVE;
}

static enum state owned_by(const struct kithi_view *v, uint32_t owner)
{
    return owner == 0 ? FREE : state_of(kithi_view_record(v, owner - 1));
}

static void expect(const struct kithi_share *s, unsigned region, const uint64_t counts[STATES], uint64_t unit)
{
    const uint64_t is[STATES] = { s->live, s->dead + s->resting, s->pending, s->free };
    static const char *const names[STATES] = { "live", "dead or resting", "pending", "free" };
    uint64_t used = 0;
    for (unsigned i = 0; i < STATES; i++) {
        if (is[i] != counts[i] * unit)
            fail_msg("%s, %s: %" PRIu64 " bytes, not %" PRIu64 " of %" PRIu64, kithi_region_name(region),
                     names[i], is[i], counts[i], unit);
        used += counts[i] * unit;
    }
    assert_int_equal(s->slack, s->taken - used);
}

/* taken_by_group: slots of the open group, if its jobs have not run. */
static void check(const struct test_solo *t, uint32_t taken_by_group)
{
    struct kithi_account a;
    struct kithi_view v;
    kithi_account_read(test_solo_map(t), page(), &a);
    kithi_view_begin(test_solo_map(t), &v);
    const struct kithi_layout *l = &test_solo_map(t)->layout;
    uint64_t slots[STATES] = { 0 }, uppers[STATES] = { 0 }, sum = 0;
    for (uint32_t i = 0; i < v.slots_used; i++)
        slots[state_of(kithi_view_record(&v, i))]++;
    slots[FREE] -= taken_by_group;
    slots[PENDING] += taken_by_group;
    static const unsigned by_slot[] = { KITHI_REGION_RECORDS, KITHI_REGION_ROWS, KITHI_REGION_VECTORS,
                                        KITHI_REGION_CODES };
    for (unsigned i = 0; i < sizeof by_slot / sizeof *by_slot; i++)
        if (l->size[by_slot[i]])
            expect(&a.regions[by_slot[i]], by_slot[i], slots, l->unit[by_slot[i]]);
    if (!taken_by_group) {
        uint64_t used = a.regions[KITHI_REGION_UPPER].taken - a.regions[KITHI_REGION_UPPER].slack;
        for (uint32_t i = 0; i < used / l->upper_stride; i++)
            uppers[owned_by(&v, kithi_view_upper(&v, i)->owner)]++;
        expect(&a.regions[KITHI_REGION_UPPER], KITHI_REGION_UPPER, uppers, l->upper_stride);
        for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++) {
            const struct kithi_share *s = &a.regions[kithi_blob_region(c)];
            uint64_t blobs[STATES] = { 0 };
            for (uint32_t i = 0; i < (s->taken - s->slack) / l->blob_stride[c]; i++) {
                uint32_t capacity;
                blobs[owned_by(&v, kithi_view_blob(&v, kithi_blob_ref(c, i), &capacity)->owner)]++;
            }
            expect(s, kithi_blob_region(c), blobs, l->blob_stride[c]);
        }
    }
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++) {
        const struct kithi_share *s = &a.regions[i];
        assert_int_equal(s->live + s->dead + s->resting + s->pending + s->free + s->slack, s->taken);
        sum += s->taken + s->ahead;
    }
    assert_int_equal(a.all.live + a.all.dead + a.all.resting + a.all.pending + a.all.free + a.all.slack,
                     a.all.taken);
    assert_int_equal(sum, a.all.taken + a.all.ahead);
    assert_int_equal(sum, test_file_blocks(t->path));
}

static struct kithi_account account_of(const struct test_solo *t)
{
    struct kithi_account a;
    kithi_account_read(test_solo_map(t), page(), &a);
    return a;
}

static void begin(struct test_solo *t)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 4 * COUNT);
    test_solo_open(t, &g);
}

/* ---- tests ---- */

static void every_state_is_accounted_for_as_the_records_say(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t);
    check(&t, 0);
    commit(&t, 0, COUNT, false);
    check(&t, 0);
    assert_true(account_of(&t).regions[KITHI_REGION_UPPER].live > 0);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        assert_true(account_of(&t).regions[kithi_blob_region(c)].live > 0);

    commit(&t, 0, 150, true);    /* deleted */
    commit(&t, 300, 120, false); /* replaced */
    check(&t, 0);
    struct kithi_account dead = account_of(&t);
    assert_true(dead.regions[KITHI_REGION_BLOB3].dead > 0 && dead.regions[KITHI_REGION_UPPER].dead > 0);
    assert_int_equal(dead.all.resting, 0);

    while (test_solo_sweep(&t, 150) == 0) {
    }
    check(&t, 0);
    struct kithi_account resting = account_of(&t);
    assert_int_equal(resting.regions[KITHI_REGION_BLOB3].resting, dead.regions[KITHI_REGION_BLOB3].dead);
    assert_int_equal(resting.regions[KITHI_REGION_UPPER].resting, dead.regions[KITHI_REGION_UPPER].dead);
    commit(&t, 450, 60, false); /* some dead ones beside them */
    check(&t, 0);

    test_solo_settle(&t);
    check(&t, 0);
    struct kithi_account freed = account_of(&t);
    assert_int_equal(freed.all.resting, 0);
    assert_true(freed.regions[KITHI_REGION_BLOB3].free > 0 && freed.regions[KITHI_REGION_RECORDS].free > 0);

    stage(&t, COUNT, GROUP, false);
    check(&t, GROUP);
    test_solo_jobs(&t);
    check(&t, 0);
    test_solo_publish(&t);
    check(&t, 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void a_start_knows_it_again(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    begin(&t);
    commit(&t, 0, COUNT, false);
    commit(&t, 0, 90, true);
    test_solo_settle(&t);
    commit(&t, 90, 60, true);
    for (unsigned notes = 0; notes < 2; notes++) {
        struct kithi_account before = account_of(&t), after;
        test_solo_leave(&t);
        if (!notes)
            test_solo_forget_notes(&t);
        assert_int_equal(test_solo_adopt_only(&t, &err), 0);
        if (notes) { /* what is not looked at yet is pending, and the sums hold */
            after = account_of(&t);
            assert_true(after.all.pending > 0);
            assert_int_equal(after.all.taken + after.all.ahead, test_file_blocks(t.path));
            commit(&t, 200, 60, true); /* some die before they are looked at */
        }
        assert_int_equal(test_solo_census(&t, &err), 0);
        check(&t, 0);
        after = account_of(&t);
        if (!notes)
            assert_memory_equal(&before, &after, sizeof after);
    }
    test_solo_settle(&t);
    check(&t, 0);
    test_solo_close(&t);
}

/* Killed after it took memory and before it said so. */
static void memory_that_nobody_accounts_for_goes_back_at_a_start(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_errmsg err;
    begin(&t);
    commit(&t, 0, COUNT, false);
    struct kithi_layout l = test_solo_map(&t)->layout;
    struct kithi_account a = account_of(&t);
    test_solo_leave(&t);
    int fd = open(t.path, O_RDWR | O_CLOEXEC);
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++)
        if (l.size[i] > a.regions[i].taken + (64u << 10))
            assert_int_equal(fallocate(fd, 0, (off_t)(l.off[i] + a.regions[i].taken), 64u << 10), 0);
    close(fd);
    assert_true(test_file_blocks(t.path) > a.all.taken + a.all.ahead);
    assert_int_equal(test_solo_adopt(&t, &err), 0);
    check(&t, 0);
    commit(&t, 0, 300, false);
    check(&t, 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

/*
 * All of it deleted and written anew, with other long ids each time. Upper rows are as many as levels are drawn: one turn
 * may need a step more of them than those before. The id table is rebuilt into its other area when tombstones fill it, with at most four places for each slot
 * that was ever used.
 */
static void turnovers_take_no_more_memory_than_the_first(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_account first = { 0 };
    begin(&t);
    commit(&t, 0, COUNT, false);
    for (uint32_t turn = 1; turn <= TURNS; turn++) {
        for (uint32_t i = 0; i < COUNT; i += 90) {
            commit(&t, (turn - 1) * COUNT + i, 90, true);
            commit(&t, turn * COUNT + i, 90, false);
            test_solo_sweep(&t, 700);
        }
        test_solo_settle(&t);
        check(&t, 0);
        struct kithi_account a = account_of(&t);
        if (turn == 1) {
            first = a;
            for (unsigned area = 0; area < 2; area++)
                first.regions[KITHI_REGION_IDS0 + area].taken =
                    4 * sizeof(uint64_t) * test_solo_header(&t)->slots_used;
        }
        for (unsigned i = 0; i < KITHI_REGION_COUNT; i++) {
            uint64_t more = i == KITHI_REGION_UPPER ? 16u << 10 : 0, taken = a.regions[i].taken;
            if (taken > first.regions[i].taken + more)
                fail_msg("turn %u: %s took %" PRIu64 " bytes, %" PRIu64 " at most after the first", turn,
                         kithi_region_name(i), taken, first.regions[i].taken);
        }
        assert_int_equal(test_solo_header(&t)->live, COUNT);
    }
    test_solo_close(&t);
}

static void arbitrary_words_make_no_sum_wrong(void **state)
{
    (void)state;
    static alignas(64) unsigned char header[KITHI_HEADER_SIZE];
    struct kithi_map map = { .base = header };
    for (uint32_t round = 0; round < 4000; round++) {
        struct kithi_account a;
        map.geometry =
            test_geometry(1 + test_rand_below(&r, 64), KITHI_METRIC_L2, 1 + test_rand_below(&r, 100000));
        kithi_geometry_layout(&map.geometry, &map.layout);
        for (size_t at = 0; at < KITHI_NOTES_OFF + 64; at += 8) {
            uint64_t word = test_rand_u64(&r);
            word = round % 2 ? word : word % (2 * (uint64_t)map.geometry.slot_max);
            memcpy(header + at, &word, sizeof word);
        }
        if (round % 4 < 3)
            kithi_header_ledger(kithi_map_header(&map))->magic = KITHI_LEDGER_MAGIC;
        kithi_account_read(&map, page(), &a);
        for (unsigned i = 0; i < KITHI_REGION_COUNT; i++) {
            const struct kithi_share *s = &a.regions[i];
            assert_int_equal(s->live + s->dead + s->resting + s->pending + s->free + s->slack, s->taken);
            assert_true(s->taken <= s->reserved && s->ahead <= s->reserved + page());
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_is_accounted_for_as_the_records_say),
        cmocka_unit_test(a_start_knows_it_again),
        cmocka_unit_test(memory_that_nobody_accounts_for_goes_back_at_a_start),
        cmocka_unit_test(turnovers_take_no_more_memory_than_the_first),
        cmocka_unit_test(arbitrary_words_make_no_sum_wrong),
    };
    test_rand_init(&r);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
