/*
 * test_counters.c - readers in processes of their own are counted by kithd: while they live, when they are killed, and
 * when it is.
 */
#include <kith/kith.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/layout/board.h"
#include "tests/support/boards.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"

#define DIM     4u
#define WAIT_MS 60000u

enum { READERS = 3 };

struct shared {
    char run[TEST_PATH_SIZE + 8];
    _Atomic uint32_t wanted[READERS];   /* searches that the reader shall have made */
    _Atomic uint32_t searched[READERS]; /* ... and has */
    _Atomic uint32_t leave;
};

struct role {
    struct shared *shared;
    uint32_t number;
};

static int reader_role(void *arg)
{
    const struct role *role = arg;
    struct shared *s = role->shared;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    float query[DIM] = { 0 };
    kith *k = NULL;
    opts.run_dir = s->run;
    if (kith_open("c", &opts, &k) != 0)
        return 1;
    kith_results *results = kith_results_new();
    for (uint32_t n = 0; !atomic_load(&s->leave);) {
        if (n == atomic_load(&s->wanted[role->number])) {
            test_nap();
            continue;
        }
        if (kith_search(k, query, DIM, 1, NULL, results) != 1)
            return 2;
        atomic_store(&s->searched[role->number], ++n);
    }
    kith_results_free(results);
    kith_close(k);
    return 0;
}

/* A number of the readers' part of kithd's statistics. */
static uint64_t told(kith *k, const char *member)
{
    char *text = NULL, key[64];
    int rc = kith_daemon_stats(k, &text);
    if (rc != 0)
        fail_msg("no statistics: %s", kith_strerror(rc));
    snprintf(key, sizeof key, "\"%s\":", member);
    const char *readers = strstr(text, "\"readers\":{"), *at = readers ? strstr(readers, key) : NULL;
    if (!at)
        fail_msg("%s is not in %s", member, text);
    uint64_t n = strtoull(at + strlen(key), NULL, 10);
    free(text);
    return n;
}

static void expect_told(kith *k, const char *member, uint64_t n)
{
    uint64_t end = test_now_ms() + WAIT_MS, got;
    while ((got = told(k, member)) != n && test_now_ms() < end)
        test_nap();
    if (got != n)
        fail_msg("%s is %llu, not %llu", member, (unsigned long long)got, (unsigned long long)n);
}

static void search(struct shared *s, uint32_t reader, uint32_t n)
{
    uint64_t end = test_now_ms() + WAIT_MS;
    atomic_fetch_add(&s->wanted[reader], n);
    while (atomic_load(&s->searched[reader]) != atomic_load(&s->wanted[reader])) {
        if (test_now_ms() > end)
            fail_msg("reader %u does not search", reader);
        test_nap();
    }
}

/* A daemon with a collection "c" of one vector, and a handle that is not counted. */
static kith *begin(struct test_daemon *d, struct shared *s)
{
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    float v[DIM] = { 1 };
    kith *k = NULL;
    snprintf(s->run, sizeof s->run, "%s/run", d->run.path);
    assert_int_equal(test_daemon_start(d), 0);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = s->run;
    assert_int_equal(kith_create("c", &create), 0);
    opts.run_dir = s->run;
    opts.counters = KITH_COUNTERS_OFF;
    assert_int_equal(kith_open("c", &opts, &k), 0);
    assert_int_equal(kith_upsert(k, "one", v, DIM, NULL), 0);
    return k;
}

static void readers_are_counted_dead_ones_give_their_place_back(void **state)
{
    (void)state;
    struct test_daemon d;
    struct shared *s = test_shared(sizeof *s);
    struct test_child children[READERS];
    struct role roles[READERS];
    struct test_boards boards;
    char dir[TEST_PATH_SIZE + 32];
    test_daemon_init(&d);
    kith *k = begin(&d, s);
    snprintf(dir, sizeof dir, "%s/c/" KITHI_BOARD_DIR, s->run);
    expect_told(k, "alive", 0);
    for (uint32_t i = 0; i < 2; i++) {
        roles[i] = (struct role){ .shared = s, .number = i };
        test_child_start(&children[i], "reader", reader_role, &roles[i]);
        search(s, i, 100 + i);
    }
    /* What was searched before somebody asks is in the answer. */
    assert_int_equal(told(k, "searches"), 201);
    assert_int_equal(told(k, "alive"), 2);
    assert_int_equal(told(k, "failures"), 0);
    assert_true(told(k, "expansions") >= 201);

    /* One is killed: its counts stay, its file goes. */
    assert_int_equal(kill(children[0].pid, SIGKILL), 0);
    assert_int_equal(test_child_wait(&children[0], WAIT_MS), -1);
    assert_int_equal(told(k, "alive"), 1);
    assert_int_equal(told(k, "gone"), 1);
    assert_int_equal(told(k, "searches"), 201);
    test_boards_read(dir, &boards);
    assert_int_equal(boards.files, 1);

    /* The daemon is killed and comes back: the living reader went on counting, and is found again. */
    test_daemon_kill(&d);
    search(s, 1, 50);
    assert_int_equal(test_daemon_start(&d), 0);
    assert_int_equal(told(k, "alive"), 1);
    assert_int_equal(told(k, "gone"), 0);
    assert_int_equal(told(k, "searches"), 151);
    search(s, 1, 50);
    assert_int_equal(told(k, "searches"), 201);

    /* Another dies while there is no daemon; the next one finds what it left. */
    roles[2] = (struct role){ .shared = s, .number = 2 };
    test_child_start(&children[2], "reader", reader_role, &roles[2]);
    search(s, 2, 7);
    assert_int_equal(told(k, "alive"), 2);
    test_daemon_kill(&d);
    assert_int_equal(kill(children[2].pid, SIGKILL), 0);
    assert_int_equal(test_child_wait(&children[2], WAIT_MS), -1);
    assert_int_equal(test_daemon_start(&d), 0);
    assert_int_equal(told(k, "alive"), 1);
    assert_int_equal(told(k, "gone"), 1);
    assert_int_equal(told(k, "searches"), 208);

    /* Without being asked, kithd looks by itself. */
    atomic_store(&s->leave, 1);
    assert_int_equal(test_child_wait(&children[1], WAIT_MS), 0);
    test_boards_read(dir, &boards);
    uint64_t end = test_now_ms() + WAIT_MS;
    while (boards.files && test_now_ms() < end) {
        test_nap();
        test_boards_read(dir, &boards);
    }
    assert_int_equal(boards.files, 0);
    assert_int_equal(told(k, "searches"), 208);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

static void a_drop_takes_the_boards_of_living_readers_along(void **state)
{
    (void)state;
    struct test_daemon d;
    struct stat st;
    struct shared *s = test_shared(sizeof *s);
    float query[DIM] = { 0 };
    char dir[TEST_PATH_SIZE + 32];
    kith *reader = NULL;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    test_daemon_init(&d);
    kith *k = begin(&d, s);
    kith_results *results = kith_results_new();
    opts.run_dir = s->run;
    assert_int_equal(kith_open("c", &opts, &reader), 0);
    assert_int_equal(kith_search(reader, query, DIM, 1, NULL, results), 1);
    snprintf(dir, sizeof dir, "%s/c", s->run);
    assert_int_equal(kith_drop("c", s->run, NULL), 0);
    assert_int_equal(lstat(dir, &st), -1);
    assert_int_equal(kith_search(reader, query, DIM, 1, NULL, results), KITH_E_REPLACED);
    kith_close(reader);
    /* One that was made anew is another's: its boards are not touched by handles of the one before. */
    kith_close(k);
    k = NULL;
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = s->run;
    assert_int_equal(kith_create("c", &create), 0);
    assert_int_equal(kith_open("c", &opts, &k), 0);
    assert_int_equal(told(k, "alive"), 1);
    assert_int_equal(told(k, "searches"), 0);
    kith_close(k);
    kith_results_free(results);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

static void kithd_may_be_told_not_to_count(void **state)
{
    (void)state;
    struct test_daemon d;
    struct stat st;
    struct shared *s = test_shared(sizeof *s);
    char dir[TEST_PATH_SIZE + 32], *text = NULL;
    test_daemon_init(&d);
    kith *k = begin(&d, s);
    snprintf(dir, sizeof dir, "%s/c/" KITHI_BOARD_DIR, s->run);
    assert_int_equal(lstat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700); /* nobody but kithd's own user without a read group */
    assert_int_equal(test_daemon_stop(&d), 0);
    d.option = "--counters";
    d.value = "no";
    assert_int_equal(test_daemon_start(&d), 0);
    assert_int_equal(lstat(dir, &st), -1);
    assert_int_equal(kith_daemon_stats(k, &text), 0);
    assert_non_null(strstr(text, "\"readers\":null"));
    free(text);
    assert_int_equal(test_daemon_stop(&d), 0);
    char group[16];
    snprintf(group, sizeof group, "%u", (unsigned)getegid());
    d.option = "--read-group";
    d.value = group;
    assert_int_equal(test_daemon_start(&d), 0);
    assert_int_equal(lstat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 01770);
    assert_int_equal(st.st_gid, getegid());
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_are_counted_dead_ones_give_their_place_back),
        cmocka_unit_test(a_drop_takes_the_boards_of_living_readers_along),
        cmocka_unit_test(kithd_may_be_told_not_to_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
