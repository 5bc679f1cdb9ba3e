/*
 * test_idle.c - what kithd does by itself comes to an end: once it has audited the graph and measured recall it takes next to no
 * CPU time, until a commit wakes both; and beside writes both keep to their pace, which is counted in changes.
 */
#include <kith/kith.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/support/daemon.h"
#include "tests/support/rand.h"

#define DIM   16u
#define COUNT 800u
#define GROUP 100u
/* Recall is measured at the lowest priority of all. */
#define WAIT_MS 400000u

/* A window of so long, in which the process may take so much CPU time: 1 %. One of those that are looked at has to be so calm. */
#define WINDOW_NS UINT64_C(1000000000)
#define CALM_NS   UINT64_C(10000000)

/* As server/writer/audit.c and sampling.c have them. */
#define SAMPLE_OPS  512u
#define PASS        (COUNT / 2) /* half of the vectors, where these are few */
#define RENEW       4u
#define BATCH       8u
#define BUSY_WRITES 8000u

#define RESTING "\"state\":\"resting\""

static struct test_rand r;

static kith *begin(struct test_daemon *d, char *run, size_t size)
{
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *k = NULL;
    test_daemon_init(d);
    snprintf(run, size, "%s/run", d->run.path);
    assert_int_equal(test_daemon_start(d), 0);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = run;
    assert_int_equal(kith_create("c", &create), 0);
    opts.run_dir = run;
    assert_int_equal(kith_open("c", &opts, &k), 0);
    return k;
}

static void end(struct test_daemon *d, kith *k)
{
    kith_close(k);
    assert_int_equal(test_daemon_stop(d), 0);
    test_daemon_fini(d);
}

static void put(kith *k, uint32_t from, uint32_t to)
{
    for (uint32_t first = from; first < to; first += GROUP) {
        kith_batch *b = kith_batch_new(k);
        for (uint32_t i = first; i < first + GROUP && i < to; i++) {
            char id[16];
            float v[DIM];
            snprintf(id, sizeof id, "%u", i % COUNT);
            test_rand_floats(&r, v, DIM);
            assert_int_equal(kith_batch_upsert(b, id, v, DIM), 0);
        }
        assert_int_equal(kith_batch_commit(b, NULL), 0);
        kith_batch_free(b);
    }
}

/* What kithd says of itself. */
struct said {
    uint64_t audits, audit_epoch, epoch, samples, taken, dead, resting;
    bool at_rest;
};

static uint64_t number(const char *json, const char *key)
{
    char name[40];
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *at = strstr(json, name);
    if (!at)
        fail_msg("no %s in %s", key, json);
    return strtoull(at + strlen(name), NULL, 10);
}

static struct said ask(kith *k)
{
    char *json = NULL;
    int rc = kith_daemon_stats(k, &json);
    if (rc != 0)
        fail_msg("no statistics: %s", kith_strerror(rc));
    struct said s = { .audits = number(json, "audits"),
                      .audit_epoch = number(json, "audit_epoch"),
                      .epoch = number(json, "epoch"),
                      .samples = number(json, "samples"),
                      .taken = number(json, "taken"),
                      .dead = number(json, "dead"),
                      .resting = number(json, "resting") };
    const char *recall = strstr(json, "\"recall\":{"); /* others have a state, too */
    const char *state = recall ? strstr(recall, "\"state\":\"") : NULL;
    if (!state)
        fail_msg("no state of the recall in %s", json);
    s.at_rest = strstr(json, "\"audit_rests\":true") && !strncmp(state, RESTING, sizeof RESTING - 1) &&
                strstr(json, "\"checkpoint_running\":false") && s.dead == 0 && s.resting == 0;
    free(json);
    return s;
}

static struct said await_rest(kith *k, const struct test_daemon *d)
{
    uint64_t until = test_now_ms() + WAIT_MS;
    struct said s = ask(k);
    while (!s.at_rest) {
        if (test_now_ms() > until) {
            test_daemon_show_log(d);
            fail_msg("it does not come to rest");
        }
        test_nap();
        s = ask(k);
    }
    assert_int_equal(s.audit_epoch, s.epoch);
    return s;
}

static uint64_t cpu_ns(const struct test_daemon *d)
{
    clockid_t id;
    struct timespec t;
    assert_int_equal(clock_getcpuclockid(d->pid, &id), 0);
    assert_int_equal(clock_gettime(id, &t), 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Nobody asks it for anything meanwhile: until there is a window in which it takes next to nothing. */
static void await_calm(const struct test_daemon *d)
{
    uint64_t until = test_now_ms() + WAIT_MS, least = UINT64_MAX;
    while (least > CALM_NS) {
        if (test_now_ms() > until) {
            test_daemon_show_log(d);
            fail_msg("%llu us of CPU in the calmest of many windows of %llu us",
                     (unsigned long long)least / 1000, (unsigned long long)WINDOW_NS / 1000);
        }
        uint64_t before = cpu_ns(d), began = test_now_ns();
        while (test_now_ns() < began + WINDOW_NS)
            test_nap();
        uint64_t took = cpu_ns(d) - before;
        least = took < least ? took : least;
    }
    print_message("%.2f ms of CPU in a second\n", (double)least / 1e6);
}

static void a_daemon_at_rest_takes_next_to_no_cpu_until_a_commit(void **state)
{
    (void)state;
    struct test_daemon d;
    char run[TEST_PATH_SIZE + 8];
    kith *k = begin(&d, run, sizeof run);
    await_calm(&d); /* with nothing to look after */
    put(k, 0, COUNT);
    struct said first = await_rest(k, &d);
    assert_true(first.audits >= 1 && first.taken >= PASS - BATCH);
    await_calm(&d);
    struct said later = ask(k);
    assert_true(later.at_rest);
    assert_int_equal(later.audits, first.audits);
    assert_int_equal(later.samples, first.samples);
    assert_int_equal(later.taken, first.taken);

    /* A tenth of it is another: both wake, and rest again. */
    put(k, 0, COUNT / 10);
    later = await_rest(k, &d);
    assert_true(later.audits > first.audits);
    assert_true(later.taken > first.taken);
    await_calm(&d);
    first = later;
    later = ask(k);
    assert_int_equal(later.audits, first.audits);
    assert_int_equal(later.taken, first.taken);
    end(&d, k);
}

static void beside_writes_both_keep_to_a_pace_that_is_counted(void **state)
{
    (void)state;
    struct test_daemon d;
    char run[TEST_PATH_SIZE + 8];
    kith *k = begin(&d, run, sizeof run);
    put(k, 0, COUNT);
    struct said before = await_rest(k, &d);
    put(k, COUNT, COUNT + BUSY_WRITES);
    struct said after = await_rest(k, &d);
    uint64_t samples = after.samples - before.samples, taken = after.taken - before.taken;
    print_message("%llu vectors looked for and %llu measured with for %u changes\n",
                  (unsigned long long)samples, (unsigned long long)taken, BUSY_WRITES);
    /* One for so many changes, and one that was due before. */
    assert_true(samples <= BUSY_WRITES / SAMPLE_OPS + 1);
    /* No more than the changes are worth, and never more than a pass is due, which is what is left at their end. */
    assert_true(taken <= (uint64_t)BUSY_WRITES * RENEW * PASS / COUNT + BATCH);
    assert_true(taken > 0);
    end(&d, k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_daemon_at_rest_takes_next_to_no_cpu_until_a_commit),
        cmocka_unit_test(beside_writes_both_keep_to_a_pace_that_is_counted),
    };
    test_rand_init(&r);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
