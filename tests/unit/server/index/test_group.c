/*
 * test_group.c - staging a group: whole or not at all, the last word counts, and after that nothing fails.
 */
#include "server/index/index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/base/id.h"
#include "tests/support/codes.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

static void begin(struct test_solo *t, uint32_t metric, uint32_t slot_max)
{
    struct kithi_geometry g = test_geometry(2, metric, slot_max);
    test_solo_open(t, &g);
}

static float get(const struct test_solo *t, const char *id)
{
    float v[2];
    int rc = test_solo_get(t, id, v);
    return rc < 0 ? (float)rc : v[0];
}

#define ABSENT ((float)KITHI_E_NOT_FOUND)

static void end(struct test_solo *t)
{
    assert_true(test_solo_clean(t));
    test_solo_settle(t);
    assert_true(test_solo_clean(t));
    test_solo_close(t);
}

/* ---- what is refused ---- */

static void assert_refused(struct test_solo *t, const struct kithi_op *ops, uint32_t n, int code,
                           uint32_t item)
{
    struct kithi_group_result result;
    struct kithi_errmsg err = { 0 };
    uint32_t jobs = kithi_group_job_count(kithi_group_open(t->ix));
    assert_int_equal(kithi_group_add(t->ix, ops, n, &result, &err), code);
    assert_int_equal(err.code, code);
    assert_true(strlen(err.text) > 10);
    assert_int_equal(result.failed_item, item);
    assert_int_equal(kithi_group_job_count(kithi_group_open(t->ix)), jobs);
}

static void a_request_with_one_bad_item_is_refused_whole_and_the_item_is_named(void **state)
{
    (void)state;
    struct test_solo t;
    float good[2] = { 3, 4 }, nan[2] = { 0, NAN }, inf[2] = { INFINITY, 0 }, zero[2] = { 0, -0.0f };
    char longest[KITHI_ID_MAX + 2];
    memset(longest, 'x', sizeof longest - 1);
    longest[KITHI_ID_MAX + 1] = '\0';
    begin(&t, KITHI_METRIC_COSINE, 100);
    struct kithi_op ops[3] = { test_upsert("a", good, 2), test_upsert("b", good, 2), test_delete("c") };
    struct kithi_op with[] = {
        test_upsert("", good, 2),    test_upsert(longest, good, 2), test_upsert("\xc3", good, 2),
        test_upsert("x", good, 3),   test_upsert("x", good, 1),     test_upsert("x", nan, 2),
        test_upsert("x", inf, 2),    test_upsert("x", zero, 2),     test_delete(""),
        test_delete("\xed\xa0\x80"),
    };
    static const int codes[] = { KITHI_E_ID,         KITHI_E_ID,          KITHI_E_ID,
                                 KITHI_E_DIMENSION,  KITHI_E_DIMENSION,   KITHI_E_NOT_FINITE,
                                 KITHI_E_NOT_FINITE, KITHI_E_ZERO_VECTOR, KITHI_E_ID,
                                 KITHI_E_ID };
    for (size_t i = 0; i < sizeof with / sizeof *with; i++) {
        uint32_t at = (uint32_t)i % 3;
        struct kithi_op bad[3] = { ops[0], ops[1], ops[2] };
        bad[at] = with[i];
        assert_refused(&t, bad, 3, codes[i], at);
    }
    assert_int_equal(test_solo_commit(&t, ops, 3), 0);
    assert_int_equal(kithi_index_live(t.ix), 2);
    end(&t);
}

static void a_zero_vector_is_a_vector_under_l2_and_ip(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct test_solo t;
        float zero[2] = { 0, 0 };
        begin(&t, i ? KITHI_METRIC_IP : KITHI_METRIC_L2, 100);
        assert_int_equal(test_solo_put(&t, "a", zero), 0);
        assert_int_equal(test_solo_search(&t, zero, 1, 1, false), 1);
        end(&t);
    }
}

static void more_vectors_than_the_collection_takes_are_full(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_op ops[11];
    char names[11][8];
    float v[2] = { 1, 2 };
    begin(&t, KITHI_METRIC_L2, 10);
    for (unsigned i = 0; i < 11; i++) {
        snprintf(names[i], sizeof names[i], "%u", i);
        ops[i] = test_upsert(names[i], v, 2);
    }
    assert_refused(&t, ops, 11, KITHI_E_FULL, UINT32_MAX);
    assert_int_equal(test_solo_commit(&t, ops, 10), 0);
    assert_refused(&t, ops + 10, 1, KITHI_E_FULL, UINT32_MAX);
    assert_refused(&t, ops, 1, KITHI_E_FULL, UINT32_MAX); /* a new version needs a slot, too */
    assert_int_equal(test_solo_delete(&t, "3"), 0);
    assert_refused(&t, ops + 10, 1, KITHI_E_FULL, UINT32_MAX); /* it rests */
    test_solo_settle(&t);
    assert_int_equal(test_solo_commit(&t, ops + 10, 1), 0);
    assert_int_equal(kithi_index_live(t.ix), 10);
    assert_true(get(&t, "10") == 1 && get(&t, "3") == ABSENT);
    end(&t);
}

/* ---- what a group means ---- */

static void the_last_write_of_an_id_in_a_group_wins(void **state)
{
    (void)state;
    struct test_solo t;
    float one[2] = { 1, 0 }, two[2] = { 2, 0 }, three[2] = { 3, 0 };
    begin(&t, KITHI_METRIC_L2, 100);
    struct kithi_op ops[3] = { test_upsert("a", one, 2), test_upsert("a", two, 2),
                               test_upsert("a", three, 2) };
    assert_int_equal(test_solo_commit(&t, ops, 3), 0);
    assert_true(get(&t, "a") == 3);
    assert_int_equal(kithi_index_live(t.ix), 1);
    assert_int_equal(test_solo_search(&t, one, 10, 10, false), 1);
    /* A code has its three to a rounding of the last bit. */
    float slop = test_codes_kept() == KITHI_CODEC_F32 ? 0 : 1e-5f;
    assert_true(fabsf(t.results.hits[0].distance - 4) <= slop);
    assert_int_equal(test_solo_search(&t, one, 10, 10, true), 1);
    end(&t);
}

/* Every sequence of up to four writes (w) and deletes (d) of one id, there before or not, cut into
 * requests of one group everywhere. */
static void writes_and_deletes_of_one_id_in_a_group_end_as_they_would_one_by_one(void **state)
{
    (void)state;
    struct test_solo t;
    float v[5][2];
    uint64_t live = 0;
    char id[64];
    begin(&t, KITHI_METRIC_L2, 2000);
    for (unsigned i = 0; i < 5; i++) {
        v[i][0] = (float)i;
        v[i][1] = 1;
    }
    for (unsigned there = 0; there < 2; there++)
        for (unsigned len = 1; len <= 4; len++)
            for (unsigned what = 0; what < 1u << len; what++)
                for (unsigned cut = 0; cut <= len; cut++) {
                    struct kithi_op ops[4];
                    struct kithi_group_result result;
                    struct kithi_errmsg err;
                    snprintf(id, sizeof id, "%s%u-%u-%u-%u", what % 3 ? "" : "an id that lies in a blob ",
                             there, len, what, cut);
                    if (there)
                        assert_int_equal(test_solo_put(&t, id, v[0]), 0);
                    bool now = there;
                    uint32_t expect[2] = { 0, 0 };
                    float value = 0;
                    for (unsigned i = 0; i < len; i++) {
                        if (what >> i & 1) {
                            ops[i] = test_upsert(id, v[i + 1], 2);
                            value = v[i + 1][0];
                            now = true;
                        } else {
                            ops[i] = test_delete(id);
                            expect[i >= cut] += now;
                            now = false;
                        }
                    }
                    assert_int_equal(kithi_group_add(t.ix, ops, cut, &result, &err), 0);
                    assert_int_equal(result.found, expect[0]);
                    assert_int_equal(kithi_group_add(t.ix, ops + cut, len - cut, &result, &err), 0);
                    assert_int_equal(result.found, expect[1]);
                    test_solo_jobs(&t);
                    assert_true(get(&t, id) == (there ? 0 : ABSENT));
                    test_solo_publish(&t);
                    assert_true(get(&t, id) == (now ? value : ABSENT));
                    live += now;
                    assert_int_equal(kithi_index_live(t.ix), live);
                }
    assert_int_equal(test_solo_header(&t)->live, live);
    end(&t);
}

static void deletes_count_what_they_found(void **state)
{
    (void)state;
    struct test_solo t;
    float v[2] = { 1, 2 };
    struct kithi_group_result result;
    struct kithi_errmsg err;
    begin(&t, KITHI_METRIC_L2, 100);
    assert_int_equal(test_solo_put(&t, "a", v), 0);
    assert_int_equal(test_solo_put(&t, "b", v), 0);
    struct kithi_op ops[4] = { test_delete("a"), test_delete("a"), test_delete("c"), test_delete("b") };
    assert_int_equal(kithi_group_add(t.ix, ops, 4, &result, &err), 0);
    assert_int_equal(result.found, 2);
    assert_int_equal(kithi_group_job_count(kithi_group_open(t.ix)), 0);
    test_solo_publish(&t);
    assert_int_equal(kithi_index_live(t.ix), 0);
    assert_int_equal(kithi_group_add(t.ix, ops, 4, &result, &err), 0);
    assert_int_equal(result.found, 0);
    test_solo_publish(&t);
    assert_int_equal(kithi_index_live(t.ix), 0);
    end(&t);
}

static void an_empty_group_moves_the_epoch_and_wakes(void **state)
{
    (void)state;
    struct test_solo t;
    begin(&t, KITHI_METRIC_L2, 100);
    struct kithi_header *h = test_solo_header(&t);
    uint32_t wake = h->wake;
    kithi_group_publish(t.ix, 77, 1);
    assert_int_equal(h->epoch, 77);
    assert_int_equal(h->durable_epoch, 77);
    assert_int_equal(kithi_index_epoch(t.ix), 77);
    assert_int_equal(kithi_index_durable_epoch(t.ix), 77);
    assert_int_not_equal(h->wake, wake);
    end(&t);
}

static void an_aborted_group_leaves_everything_as_it_was(void **state)
{
    (void)state;
    struct test_solo t;
    float one[2] = { 1, 0 }, two[2] = { 2, 0 };
    char longest[KITHI_ID_MAX + 1];
    struct kithi_group_result result;
    struct kithi_errmsg err;
    memset(longest, 'y', KITHI_ID_MAX);
    longest[KITHI_ID_MAX] = '\0';
    begin(&t, KITHI_METRIC_L2, 40);
    assert_int_equal(test_solo_put(&t, "a", one), 0);
    struct kithi_op ops[20];
    char names[20][8];
    for (unsigned i = 0; i < 20; i++) {
        snprintf(names[i], sizeof names[i], "%u", i);
        ops[i] = test_upsert(i ? names[i] : longest, two, 2);
    }
    ops[1] = test_delete("a");
    ops[2] = test_upsert("a", two, 2);
    ops[3] = ops[2];
    for (unsigned round = 0; round < 100; round++) { /* nothing leaks: there is room for two rounds only */
        assert_int_equal(kithi_group_add(t.ix, ops, 20, &result, &err), 0);
        assert_int_equal(result.found, 1);
        kithi_group_abort(t.ix);
        assert_int_equal(kithi_group_job_count(kithi_group_open(t.ix)), 0);
    }
    assert_true(get(&t, "a") == 1);
    assert_true(test_solo_clean(&t));
    assert_int_equal(test_solo_commit(&t, ops, 20), 0);
    assert_true(get(&t, "a") == 2 && get(&t, longest) == 2);
    kithi_group_abort(t.ix); /* nothing is staged */
    end(&t);
}

/* ---- space ---- */

static void one_id_rewritten_uses_the_same_memory_again(void **state)
{
    (void)state;
    struct test_solo t;
    float v[2] = { 0, 1 };
    char id[100];
    memset(id, 'z', 99);
    id[99] = '\0';
    begin(&t, KITHI_METRIC_L2, 100);
    uint64_t slots = 0, blocks = 0;
    for (unsigned i = 0; i < 3000; i++) {
        v[0] = (float)i;
        assert_int_equal(test_solo_put(&t, id, v), 0);
        test_solo_sweep(&t, 50);
        if (i == 1000) {
            slots = test_solo_header(&t)->slots_used;
            blocks = test_file_blocks(t.path);
        }
    }
    assert_int_equal(test_solo_header(&t)->slots_used, slots);
    assert_int_equal(test_file_blocks(t.path), blocks);
    test_codes_decoded(test_codes_kept(), false, v, 2);
    assert_true(get(&t, id) == v[0]);
    assert_int_equal(test_solo_search(&t, v, 10, 10, false), 1);
    test_solo_settle(&t);
    assert_int_equal(test_solo_header(&t)->tally_blob[2] + test_solo_header(&t)->tally_blob[1], 1);
    assert_int_equal(test_solo_header(&t)->tally_free, slots - 1);
    end(&t);
}

static void use_up(const struct test_dir *dir, uint64_t keep)
{
    int fd = open(test_path(dir, "ballast"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    uint64_t size = 16u << 20;
    while (size >= 4096) {
        struct stat st;
        assert_int_equal(fstat(fd, &st), 0);
        if (posix_fallocate(fd, st.st_size, (off_t)size) != 0)
            size /= 2;
    }
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(ftruncate(fd, st.st_size > (off_t)keep ? st.st_size - (off_t)keep : 0), 0);
    close(fd);
}

/* Once kithi_group_add() has said yes, nothing touches memory that was not taken. On a full tmpfs a
 * store into a hole would be the end of this process. */
static void what_was_staged_is_applied_on_a_full_file_system_and_no_more_is_staged(void **state)
{
    (void)state;
    struct test_dir dir;
    if (!test_dir_mount(&dir, 8u << 20)) {
        test_dir_remove(&dir);
        skip();
    }
    struct test_solo t;
    struct test_rand r;
    struct kithi_geometry g = test_geometry(32, KITHI_METRIC_L2, 1u << 16);
    struct kithi_op ops[50];
    static float v[50][32];
    static char names[50][320];
    struct kithi_group_result result;
    struct kithi_errmsg err;
    unsigned written = 0;
    int rc;
    test_rand_init(&r);
    test_solo_open_in(&t, &g, &dir);
    for (;;) {
        test_rand_floats(&r, v[0], 50 * 32);
        for (unsigned i = 0; i < 50; i++) {
            int len = snprintf(names[i], sizeof names[i], "%u-", written + i);
            memset(names[i] + len, 'w', written % 7 * 40);
            names[i][len + (int)(written % 7) * 40] = '\0';
            ops[i] = test_upsert(names[i], v[i], 32);
        }
        rc = kithi_group_add(t.ix, ops, 50, &result, &err);
        if (rc < 0)
            break;
        use_up(&dir, 0); /* not a page is left */
        test_solo_jobs(&t);
        test_solo_publish(&t);
        assert_int_equal(unlink(test_path(&dir, "ballast")), 0);
        written += 50;
    }
    assert_int_equal(rc, KITHI_E_NO_SPACE);
    assert_true(strstr(err.text, "KiB") != NULL);
    assert_int_equal(kithi_index_live(t.ix), written);
    assert_true(written >= 1000);
    use_up(&dir, 0);
    assert_true(test_solo_clean(&t));
    assert_int_equal(test_solo_search(&t, v[0], 10, 100, false), 10);

    /* Deleting needs no room, and makes room. */
    for (unsigned i = 0; i < 400; i++) {
        char id[320];
        int len = snprintf(id, sizeof id, "%u-", i);
        unsigned fill = i / 50 * 50 % 7 * 40;
        memset(id + len, 'w', fill);
        id[len + (int)fill] = '\0';
        assert_int_equal(test_solo_delete(&t, id), 0);
    }
    assert_int_equal(kithi_index_live(t.ix), written - 400);
    test_solo_settle(&t);
    assert_true(test_solo_clean(&t));
    for (unsigned i = 0; i < 50; i++)
        ops[i] = test_upsert(names[i], v[i], 32);
    assert_int_equal(test_solo_commit(&t, ops, 50), 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void a_file_system_without_room_for_a_segment_keeps_nothing_of_it(void **state)
{
    (void)state;
    struct test_dir dir;
    if (!test_dir_mount(&dir, 128u << 10)) {
        test_dir_remove(&dir);
        skip();
    }
    struct kithi_index_identity id = { .geometry = test_geometry(32, KITHI_METRIC_L2, 1u << 16) };
    struct kithi_index_tuning tuning = { .worker_count = 1 };
    struct kithi_index *ix;
    struct kithi_errmsg err;
    const char *path = test_path(&dir, "segment");
    assert_int_equal(kithi_index_create(path, &id, 1, &tuning, &ix, &err), KITHI_E_NO_SPACE);
    assert_int_equal(access(path, F_OK), -1);
    test_dir_remove(&dir);
}

static void creating_over_a_file_that_exists_is_refused_and_leaves_it(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_index *ix;
    struct kithi_errmsg err;
    float v[2] = { 1, 2 };
    struct stat st;
    begin(&t, KITHI_METRIC_L2, 100);
    assert_int_equal(test_solo_put(&t, "a", v), 0);
    assert_int_equal(kithi_index_create(t.path, &t.identity, 2, &t.tuning, &ix, &err), -EEXIST);
    assert_int_equal(stat(t.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_true(get(&t, "a") == 1);
    end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_with_one_bad_item_is_refused_whole_and_the_item_is_named),
        cmocka_unit_test(a_zero_vector_is_a_vector_under_l2_and_ip),
        cmocka_unit_test(more_vectors_than_the_collection_takes_are_full),
        cmocka_unit_test(the_last_write_of_an_id_in_a_group_wins),
        cmocka_unit_test(writes_and_deletes_of_one_id_in_a_group_end_as_they_would_one_by_one),
        cmocka_unit_test(deletes_count_what_they_found),
        cmocka_unit_test(an_empty_group_moves_the_epoch_and_wakes),
        cmocka_unit_test(an_aborted_group_leaves_everything_as_it_was),
        cmocka_unit_test(one_id_rewritten_uses_the_same_memory_again),
        cmocka_unit_test(what_was_staged_is_applied_on_a_full_file_system_and_no_more_is_staged),
        cmocka_unit_test(a_file_system_without_room_for_a_segment_keeps_nothing_of_it),
        cmocka_unit_test(creating_over_a_file_that_exists_is_refused_and_leaves_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
