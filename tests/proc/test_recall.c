/*
 * test_recall.c - a live kithd measures recall: the curve appears, serves searches that ask for a recall, follows changes, and
 * nothing is measured once there is nothing new, also after a restart.
 */
#include <kith/kith.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"

#define DIM     16u
#define COUNT   2400u
#define WAIT_MS 300000u /* it is done at the lowest priority of all */

static struct test_rand r;

static void put(kith *k, uint32_t from, uint32_t to, float shift)
{
    kith_batch *b = kith_batch_new(k);
    for (uint32_t i = from; i < to; i++) {
        char id[16];
        float v[DIM];
        snprintf(id, sizeof id, "%u", i);
        test_rand_floats(&r, v, DIM);
        v[0] += shift;
        assert_int_equal(kith_batch_upsert(b, id, v, DIM), 0);
    }
    struct kith_commit commit = { .struct_size = sizeof commit };
    assert_int_equal(kith_batch_commit(b, &commit), 0);
    kith_batch_free(b);
}

/* Is text in what kithd says of its measuring? And the number behind "taken". */
static bool said(kith *k, const char *text, uint64_t *out_taken)
{
    char *json = NULL;
    int rc = kith_daemon_stats(k, &json);
    if (rc != 0)
        fail_msg("no statistics: %s", kith_strerror(rc));
    const char *recall = strstr(json, "\"recall\":{"), *taken = recall ? strstr(recall, "\"taken\":") : NULL;
    if (!taken)
        fail_msg("no recall in %s", json);
    char part[256];
    snprintf(part, sizeof part, "%.*s", (int)(strchr(recall, '}') - recall), recall);
    *out_taken = strtoull(taken + strlen("\"taken\":"), NULL, 10);
    bool is = strstr(part, text) != NULL;
    free(json);
    return is;
}

static uint64_t wait_for_rest(kith *k, const struct test_daemon *d)
{
    uint64_t end = test_now_ms() + WAIT_MS, taken;
    while (!said(k, "\"state\":\"resting\"", &taken)) {
        if (test_now_ms() > end) {
            test_daemon_show_log(d);
            fail_msg("it measures for ever: %llu results", (unsigned long long)taken);
        }
        test_nap();
    }
    return taken;
}

static struct kith_recall curve_of(kith *k)
{
    struct kith_recall c = KITH_RECALL_INIT;
    int n = kith_recall_curve(k, &c);
    if (n < 0)
        fail_msg("%s", kith_strerror(n));
    return c;
}

static kith *open_c(const char *run)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *k = NULL;
    opts.run_dir = run;
    assert_int_equal(kith_open("c", &opts, &k), 0);
    return k;
}

static kith *begin(struct test_daemon *d, char *run, size_t size)
{
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    snprintf(run, size, "%s/run", d->run.path);
    assert_int_equal(test_daemon_start(d), 0);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = run;
    assert_int_equal(kith_create("c", &create), 0);
    return open_c(run);
}

static struct kith_search_info search(kith *k, double target)
{
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    struct kith_search_opts o = KITH_SEARCH_OPTS_INIT;
    float q[DIM];
    kith_results *hits = kith_results_new();
    o.target_recall = target;
    test_rand_floats(&r, q, DIM);
    assert_int_equal(kith_search(k, q, DIM, 10, &o, hits), 10);
    assert_int_equal(kith_results_info(hits, &info), 0);
    kith_results_free(hits);
    return info;
}

/* kith's exit status; the beginning of what it printed, on both outputs. */
static int run_kith(const char *run, const char *args, char *out, size_t size)
{
    char command[1024];
    snprintf(command, sizeof command, "%s --run %s %s 2>&1", getenv("KITH_TEST_KITH"), run, args);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, size - 1, f);
    out[n] = '\0';
    char rest[512];
    while (fread(rest, 1, sizeof rest, f) > 0)
        continue;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is not in: %s", part, text);
}

static void the_curve_appears_rests_and_follows_changes(void **state)
{
    (void)state;
    struct test_daemon d;
    char run[TEST_PATH_SIZE + 8], text[8192];
    uint64_t taken, later;
    test_daemon_init(&d);
    kith *k = begin(&d, run, sizeof run);

    /* Too few to measure. */
    put(k, 0, 100, 0);
    assert_int_equal(curve_of(k).point_count, 0);
    assert_int_equal(search(k, 0.95).ef_basis, KITH_EF_BLIND);
    assert_int_equal(run_kith(run, "search c --like 1 --recall 0.95", text, sizeof text), 0);
    expect(text, "not measured yet");
    assert_int_equal(run_kith(run, "--json stats c", text, sizeof text), 0);
    expect(text, "\"recall\":null");

    for (uint32_t i = 100; i < COUNT; i += 100)
        put(k, i, i + 100, 0);
    taken = wait_for_rest(k, &d);
    assert_true(taken >= 900);
    struct kith_recall c = curve_of(k);
    assert_true(c.point_count > 3 && c.samples >= 900 && c.k == 10);
    assert_true((double)c.points[c.point_count - 1].recall > 0.98);
    for (uint32_t i = 0; i < c.point_count; i++)
        assert_true(c.points[i].low <= c.points[i].recall && c.points[i].recall <= c.points[i].high);
    struct kith_search_info wide = search(k, 0.99), narrow = search(k, 0.9);
    assert_int_equal(wide.ef_basis, KITH_EF_CURVE);
    assert_int_equal(narrow.ef_basis, KITH_EF_CURVE);
    assert_true(narrow.ef < wide.ef);

    /* The commands. */
    assert_int_equal(run_kith(run, "--json search c --like 1 --recall 0.95", text, sizeof text), 0);
    expect(text, "\"ef_basis\":\"curve\"");
    assert_int_equal(run_kith(run, "search c --like 1 --recall 0.99 --ef 10", text, sizeof text), 0);
    expect(text, "--ef permits no more");
    assert_int_equal(run_kith(run, "search c --like 1 --recall 1", text, sizeof text), 2);
    expect(text, "--exact finds all of them");
    assert_int_equal(run_kith(run, "search c --like 1 --recall 95", text, sizeof text), 2);
    expect(text, "from 0 to 1");
    assert_int_equal(run_kith(run, "bench c --queries q --truth t --recall 0.9,1", text, sizeof text), 2);
    expect(text, "between 0 and 1");
    assert_int_equal(run_kith(run, "--json stats c", text, sizeof text), 0);
    expect(text, "\"recall\":{\"k\":10,\"samples\":");
    assert_int_equal(run_kith(run, "stats c", text, sizeof text), 0);
    expect(text, "of its vectors, epochs");
    assert_int_equal(run_kith(run, "--json inspect c", text, sizeof text), 0);
    expect(text, "\"curve\":{\"k\":10");
    assert_int_equal(run_kith(run, "verify c", text, sizeof text), 0);

    /* Nothing new: nothing is measured. Statistics are asked for until the clock of the daemon has moved on. */
    uint64_t end = test_now_ms() + 1500;
    while (test_now_ms() < end)
        assert_true(said(k, "\"state\":\"resting\"", &later));
    assert_int_equal(wait_for_rest(k, &d), taken);

    /* Everything is another: so is the curve, and nothing of before is in it. */
    struct kith_recall before = curve_of(k);
    for (uint32_t i = 0; i < COUNT; i += 100)
        put(k, i, i + 100, 3.0f);
    later = wait_for_rest(k, &d);
    assert_true(later > taken);
    c = curve_of(k);
    assert_true(c.epoch > before.epoch && c.since > before.epoch);
    kith_close(k);

    /* A little change is worth a batch at most. */
    k = open_c(run);
    put(k, 0, 1, 0);
    assert_true(wait_for_rest(k, &d) <= later + 8);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

static void a_restart_of_what_was_measured_measures_nothing(void **state)
{
    (void)state;
    struct test_daemon d;
    char run[TEST_PATH_SIZE + 8];
    test_daemon_init(&d);
    kith *k = begin(&d, run, sizeof run);
    /* One group, so that all of it is measured as of one epoch. */
    put(k, 0, 600, 0);
    assert_true(wait_for_rest(k, &d) >= 290);
    struct kith_recall before = curve_of(k);
    assert_true(before.point_count > 0);
    test_daemon_kill(&d);
    assert_int_equal(search(k, 0.9).ef_basis, KITH_EF_CURVE); /* readers go on by it */
    assert_int_equal(test_daemon_start(&d), 0);
    assert_int_equal(wait_for_rest(k, &d), 0);
    struct kith_recall after = curve_of(k);
    assert_int_equal(after.samples, before.samples);
    assert_int_equal(after.epoch, before.epoch);
    /* Dropped while it measures. */
    put(k, 0, 600, 1);
    assert_int_equal(kith_drop("c", run, NULL), 0);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

static void it_can_be_switched_off(void **state)
{
    (void)state;
    struct test_daemon d;
    char run[TEST_PATH_SIZE + 8], conf[TEST_PATH_SIZE + 32];
    uint64_t taken;
    test_daemon_init(&d);
    snprintf(conf, sizeof conf, "%s/kithd.conf", d.run.path);
    FILE *f = fopen(conf, "w");
    assert_non_null(f);
    fputs("recall_share = 0\n", f);
    fclose(f);
    d.option = "--config";
    d.value = conf;
    kith *k = begin(&d, run, sizeof run);
    put(k, 0, 600, 0);
    assert_true(said(k, "\"state\":\"off\"", &taken));
    assert_int_equal(taken, 0);
    assert_int_equal(curve_of(k).point_count, 0);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_curve_appears_rests_and_follows_changes),
        cmocka_unit_test(a_restart_of_what_was_measured_measures_nothing),
        cmocka_unit_test(it_can_be_switched_off),
    };
    test_rand_init(&r);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
