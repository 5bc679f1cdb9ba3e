/*
 * test_huge_pages.c - kithd asks for huge pages beside its work: what is written is soon on them, a refusal
 * is logged once and asked again, and neither writes nor readers notice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <kith/kith.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/daemon.h"
#include "tests/support/rand.h"

#define NAME    "large"
#define DIM     4096u
#define VECTORS 600u /* 9.4 MiB: four blocks of 2 MiB, and a part of one */
#define BATCH   50u
#define WAIT_MS 30000u

static struct test_daemon daemon_;

static kith *begin(const char *fault)
{
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    kith *k = NULL;
    memset(&daemon_, 0, sizeof daemon_);
    test_daemon_init(&daemon_);
    snprintf(daemon_.fault, sizeof daemon_.fault, "%s", fault);
    assert_int_equal(test_daemon_start(&daemon_), 0);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.m = 4;
    create.ef_construction = 10;
    create.run_dir = open.run_dir = test_path(&daemon_.run, "run");
    assert_int_equal(kith_create(NAME, &create), 0);
    assert_int_equal(kith_open(NAME, &open, &k), 0);
    return k;
}

static void end(kith *k)
{
    kith_close(k);
    test_daemon_fini(&daemon_);
}

static void vector_of(uint32_t i, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, i + 1);
    test_rand_floats(&r, out, DIM);
}

static void write_all(kith *k)
{
    static float v[DIM];
    kith_batch *b = kith_batch_new(k);
    char id[16];
    assert_non_null(b);
    for (uint32_t i = 0; i < VECTORS; i++) {
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, v);
        assert_int_equal(kith_batch_upsert(b, id, v, DIM), 0);
        if ((i + 1) % BATCH == 0) {
            assert_int_equal(kith_batch_commit(b, NULL), 0);
            kith_batch_clear(b);
        }
    }
    kith_batch_free(b);
}

static struct kith_stats stats_of(kith *k)
{
    struct kith_stats s = KITH_STATS_INIT;
    assert_int_equal(kith_stats(k, &s), 0);
    return s;
}

/* Wait until all that could be on huge pages is, or until kithd says why not (unless that is expected). */
static bool all_huge(kith *k, bool refusals_expected)
{
    uint64_t until = test_now_ms() + WAIT_MS;
    struct kith_stats s = stats_of(k);
    for (; s.huge_bytes < s.huge_wanted_bytes || !s.huge_wanted_bytes; s = stats_of(k)) {
        if (test_now_ms() > until || (!refusals_expected && test_daemon_logged(&daemon_, "event=huge-pages")))
            break;
        test_nap();
    }
    assert_true(s.huge_wanted_bytes >= 4 * (UINT64_C(2) << 20) && s.huge_wanted_bytes <= s.bytes_taken);
    assert_true(s.huge_bytes <= s.huge_wanted_bytes);
    if (s.huge_bytes == s.huge_wanted_bytes)
        return true;
    print_message("skipped: the kernel gives no huge pages here\n");
    return false;
}

static void expect_contents(kith *k)
{
    static float v[DIM], out[DIM];
    char id[16];
    for (uint32_t i = 0; i < VECTORS; i += 7) {
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, v);
        assert_int_equal(kith_get(k, id, out, DIM, NULL), 0);
        assert_memory_equal(v, out, sizeof v);
    }
}

static void what_is_written_is_soon_on_huge_pages(void **state)
{
    (void)state;
    kith *k = begin("");
    write_all(k);
    bool got = all_huge(k, false);
    expect_contents(k);
    /* The next daemon knows, or asks anew. */
    test_daemon_kill(&daemon_);
    assert_int_equal(test_daemon_start(&daemon_), 0);
    if (got)
        assert_true(all_huge(k, false));
    expect_contents(k);
    assert_int_equal(test_daemon_stop(&daemon_), 0);
    end(k);
    if (!got)
        skip();
}

static void a_refusal_is_logged_once_and_asked_again(void **state)
{
    (void)state;
    kith *k = begin("collapse-refused:1,collapse-refused:2,collapse-refused:3");
    write_all(k);
    expect_contents(k);
    uint64_t until = test_now_ms() + WAIT_MS;
    while (!test_daemon_logged(&daemon_, "event=huge-pages") && test_now_ms() < until)
        test_nap();
    assert_true(test_daemon_logged(&daemon_, "event=huge-pages name=" NAME));
    bool got = all_huge(k, true);
    while (got && !test_daemon_logged(&daemon_, "all there") && test_now_ms() < until)
        test_nap();
    assert_true(!got || test_daemon_logged(&daemon_, "all there"));
    expect_contents(k);
    assert_int_equal(test_daemon_stop(&daemon_), 0);
    end(k);
    if (!got)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_soon_on_huge_pages),
        cmocka_unit_test(a_refusal_is_logged_once_and_asked_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
