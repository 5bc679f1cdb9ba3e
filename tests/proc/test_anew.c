/*
 * test_anew.c - a segment that makes no sense, found by the look at every record beside everything else: kithd builds it anew by
 * itself, readers search on and move over, writers are told to try again, other collections notice nothing, and nothing that
 * was acknowledged is missing. kithd is held at places of its work by files (KITH_HOLD, server/base/fault.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <kith/kith.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/graph/view.h"
#include "shm/layout/notes.h"
#include "shm/map/map.h"
#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"

#define DIM    8u
#define FIRST  1200u /* vectors that are there before anything happens */
#define WAIT_S 60u

/* What the processes of a test tell each other. */
struct shared {
    _Atomic bool stop, starts;       /* starts: the daemon need not be there yet */
    _Atomic uint32_t acked, refused; /* of the collection that is damaged: ids 0..acked-1 are there */
    _Atomic uint32_t others;         /* acknowledged writes to the other one */
    _Atomic uint32_t moves;          /* of the reader, to another generation */
    _Atomic uint64_t searches;
};

static struct test_daemon d;
static char run[TEST_PATH_SIZE + 8];
static struct shared *shared;
static struct test_child reader, writer, other_writer;

static int set_up(void **state)
{
    (void)state;
    test_daemon_init(&d);
    snprintf(run, sizeof run, "%s/run", d.run.path);
    snprintf(d.hold, sizeof d.hold, "%.240s/hold", d.data.path);
    shared = test_shared(sizeof *shared);
    return mkdir(d.hold, 0700);
}

static int tear_down(void **state)
{
    (void)state;
    test_daemon_fini(&d);
    return 0;
}

/* ---- collections ---- */

static void vector_of(uint32_t i, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, i + 1);
    test_rand_floats(&r, out, DIM);
}

static void create(const char *name)
{
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    opts.dim = DIM;
    opts.metric = KITH_METRIC_L2;
    opts.max_vectors = 200000;
    opts.run_dir = run;
    assert_int_equal(kith_create(name, &opts), 0);
}

static kith *attach(const char *name)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *k = NULL;
    opts.run_dir = run;
    int rc = kith_open(name, &opts, &k);
    if (rc < 0)
        test_die("open %s: %s", name, kith_strerror(rc));
    return k;
}

static int put(kith *k, uint32_t i)
{
    char id[16];
    float v[DIM];
    snprintf(id, sizeof id, "%u", i);
    vector_of(i, v);
    return kith_upsert(k, id, v, DIM, NULL);
}

static void fill(kith *k, uint32_t first, uint32_t n)
{
    kith_batch *b = kith_batch_new(k);
    for (uint32_t i = first; i < first + n;) {
        kith_batch_clear(b);
        for (uint32_t j = 0; j < 100 && i < first + n; i++, j++) {
            char id[16];
            float v[DIM];
            snprintf(id, sizeof id, "%u", i);
            vector_of(i, v);
            assert_int_equal(kith_batch_upsert(b, id, v, DIM), 0);
        }
        assert_int_equal(kith_batch_commit(b, NULL), 0);
    }
    kith_batch_free(b);
}

static uint64_t generation_of(kith *k)
{
    struct kith_stats s = KITH_STATS_INIT;
    return kith_stats(k, &s) < 0 ? 0 : s.generation;
}

/* All of the ids below n, and no others, each with its vector. */
static void expect_all(const char *name, uint32_t n)
{
    kith *k = attach(name);
    uint64_t count = 0;
    assert_int_equal(kith_count(k, &count), 0);
    assert_int_equal(count, n);
    for (uint32_t i = 0; i < n; i++) {
        char id[16];
        float want[DIM], have[DIM];
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, want);
        if (kith_get(k, id, have, DIM, NULL) < 0)
            fail_msg("%s is not there", id);
        assert_memory_equal(have, want, sizeof want);
    }
    kith_close(k);
    char command[3 * TEST_PATH_SIZE];
    snprintf(command, sizeof command, "'%s' --run '%s' verify %s >&2", getenv("KITH_TEST_KITH"), run, name);
    int status = system(command);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- the daemon ---- */

static void hold(const char *point, const char *name)
{
    char path[3 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s-%s", d.hold, point, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void let_go(const char *point, const char *name)
{
    char path[3 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s-%s", d.hold, point, name);
    assert_int_equal(unlink(path), 0);
}

static bool says(const char *name, const char *text)
{
    char *json = NULL;
    bool found = kith_readiness(name, run, &json, NULL) >= 0 && strstr(json, text) != NULL;
    free(json);
    return found;
}

/* Wait for what the daemon says of a collection. */
static void wait_until(const char *name, const char *text)
{
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S; !says(name, text); test_nap())
        if (test_now_ms() > end || !test_daemon_alive(&d, NULL)) {
            test_daemon_show_log(&d);
            fail_msg("%s never was %s", name, text);
        }
}

static void wait_logged(const char *text)
{
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S; !test_daemon_logged(&d, text); test_nap())
        if (test_now_ms() > end) {
            test_daemon_show_log(&d);
            fail_msg("kithd never said %s", text);
        }
}

static int exit_status(void)
{
    int status = 0;
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S; test_daemon_alive(&d, &status); test_nap())
        if (test_now_ms() > end) {
            test_daemon_show_log(&d);
            fail_msg("kithd does not leave");
        }
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

#define SERVED "\"state\":\"served\""

/* ---- damage ---- */

static struct kithi_map map_of(const char *path)
{
    struct kithi_map map;
    struct kithi_errmsg err;
    if (kithi_map_attach_path(path, true, &map, &err) < 0)
        test_die("%s", err.text);
    return map;
}

/* The upper rows of a living vector lead on where they should end: readers and insertions never look there, the census does. */
static void damage(const char *path)
{
    struct kithi_map map = map_of(path);
    struct kithi_view v;
    uint32_t slot = 0;
    kithi_view_begin(&map, &v);
    const struct kithi_record *r = kithi_view_record(&v, 0);
    while (slot < v.slots_used && !(r->birth && !r->death && r->upper))
        r = kithi_view_record(&v, ++slot);
    assert_true(slot < v.slots_used);
    struct kithi_upper *u = kithi_view_upper(&v, r->upper - 1);
    while (u->up)
        u = kithi_view_upper(&v, u->up - 1);
    u->up = r->upper;
    kithi_map_detach(&map);
}

/* As if nobody had found anything. */
static void acquit(const char *path)
{
    struct kithi_map map = map_of(path);
    atomic_store(&kithi_header_notes(kithi_map_header(&map))->condemned, 0);
    kithi_map_detach(&map);
}

/* ---- processes ---- */

/* The walk nearly always finds a vector that it is asked for, the comparison with all of them always. */
static int search_for(kith *k, const char *id, const float *v, kith_results *found)
{
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    for (; opts.exact < 2; opts.exact++) {
        int rc = kith_search(k, v, DIM, 1, &opts, found);
        if (rc < 0)
            return rc;
        kith_results_info(found, &info);
        atomic_fetch_add(&shared->moves, info.generation_changed);
        if (rc == 1 && strcmp(kith_results_id(found, 0), id) == 0)
            return 0;
    }
    return KITH_E_NOT_FOUND;
}

static int search_on(void *arg)
{
    kith *k = attach("bad");
    kith_results *found = kith_results_new();
    struct test_rand r;
    (void)arg;
    test_rand_seed(&r, 7);
    while (!atomic_load(&shared->stop)) {
        uint32_t i = test_rand_below(&r, atomic_load(&shared->acked));
        char id[16];
        float v[DIM], have[DIM];
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, v);
        int rc = search_for(k, id, v, found);
        if (rc < 0) {
            fprintf(stderr, "search for %s: %s\n", id, kith_strerror(rc));
            return 1;
        }
        rc = kith_get(k, id, have, DIM, NULL);
        if (rc < 0 || memcmp(v, have, sizeof v) != 0) {
            fprintf(stderr, "get %s: %s\n", id, kith_strerror(rc));
            return 1;
        }
        atomic_fetch_add(&shared->searches, 1);
    }
    kith_results_free(found);
    kith_close(k);
    return 0;
}

/* Of a write before the daemon is there; the kernel may keep a killed one's socket for a while, and take what nobody reads. */
static bool is_early(int rc)
{
    return (rc == KITH_E_STARTING || rc == KITH_E_NO_DAEMON || rc == KITH_E_UNKNOWN_OUTCOME) &&
           atomic_load(&shared->starts);
}

/* One id after the other; what is refused is sent again. */
static int write_on(void *arg)
{
    kith *k = attach("bad");
    (void)arg;
    while (!atomic_load(&shared->stop)) {
        int rc = put(k, atomic_load(&shared->acked));
        if (rc == 0) {
            atomic_fetch_add(&shared->acked, 1);
        } else if (rc == KITH_E_STARTING || is_early(rc)) {
            atomic_fetch_add(&shared->refused, 1);
            test_nap();
        } else {
            fprintf(stderr, "write: %s\n", kith_strerror(rc));
            return 1;
        }
    }
    kith_close(k);
    return 0;
}

static int write_elsewhere(void *arg)
{
    kith *k = attach("good");
    (void)arg;
    while (!atomic_load(&shared->stop)) {
        int rc = put(k, atomic_load(&shared->others));
        bool early = is_early(rc);
        if (rc < 0 && !early) {
            fprintf(stderr, "write elsewhere: %s\n", kith_strerror(rc));
            return 1;
        }
        if (early)
            test_nap();
        else
            atomic_fetch_add(&shared->others, 1);
    }
    kith_close(k);
    return 0;
}

static void go(void)
{
    test_child_start(&reader, "reader", search_on, NULL);
    test_child_start(&writer, "writer", write_on, NULL);
    test_child_start(&other_writer, "writer elsewhere", write_elsewhere, NULL);
}

static void halt(void)
{
    atomic_store(&shared->stop, true);
    assert_int_equal(test_child_wait(&reader, 1000 * WAIT_S), 0);
    assert_int_equal(test_child_wait(&writer, 1000 * WAIT_S), 0);
    assert_int_equal(test_child_wait(&other_writer, 1000 * WAIT_S), 0);
}

static void wait_for(const _Atomic uint32_t *count, uint32_t least)
{
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S; atomic_load(count) < least; test_nap())
        if (test_now_ms() > end || !test_child_running(&reader) || !test_child_running(&writer) ||
            !test_child_running(&other_writer)) {
            test_daemon_show_log(&d);
            halt();
            fail_msg("somebody does not go on");
        }
}

static void wait_more(const _Atomic uint32_t *count, uint32_t more)
{
    wait_for(count, atomic_load(count) + more);
}

static void wait_searches(uint64_t more)
{
    uint64_t from = atomic_load(&shared->searches);
    for (uint64_t end = test_now_ms() + 1000 * WAIT_S; atomic_load(&shared->searches) < from + more;
         test_nap())
        if (test_now_ms() > end || !test_child_running(&reader)) {
            test_daemon_show_log(&d);
            fail_msg("searches do not go on");
        }
}

/* "bad" with a checkpoint and log after it, "good"; the daemon was killed and is there again, and has looked at no record yet. */
static void begin(void)
{
    assert_int_equal(test_daemon_start(&d), 0);
    create("bad");
    create("good");
    kith *k = attach("bad");
    fill(k, 0, FIRST / 2);
    assert_int_equal(kith_checkpoint(k, NULL, NULL), 0);
    fill(k, FIRST / 2, FIRST / 2);
    kith_close(k);
    atomic_store(&shared->acked, FIRST);
    test_daemon_kill(&d);
    hold("census", "bad");
    assert_int_equal(test_daemon_start(&d), 0);
}

/* ---- tests ---- */

static void readers_move_over_and_writers_try_again(void **state)
{
    (void)state;
    struct kith_error error = { 0 };
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    begin();
    pid_t pid = d.pid;
    kith *k = attach("bad");
    uint64_t before = generation_of(k);
    go();
    wait_more(&shared->acked, 50);
    damage(test_daemon_segment(&d, "bad"));
    wait_more(&shared->acked, 50); /* it is served until that is found */
    hold("replay", "bad");
    let_go("census", "bad");
    wait_until("bad", "replaying");

    /* Away, and nobody else is. */
    wait_more(&shared->refused, 5);
    wait_more(&shared->others, 5);
    wait_searches(50);
    assert_int_equal(atomic_load(&shared->moves), 0);
    assert_int_equal(generation_of(k), before);
    assert_int_equal(kith_readiness("good", run, NULL, NULL), 0);
    assert_int_equal(kith_readiness(NULL, run, NULL, NULL), 1);
    assert_int_equal(put(k, 0), KITH_E_STARTING);
    assert_int_equal(kith_flush(k, NULL), KITH_E_STARTING);
    assert_int_equal(kith_checkpoint(k, NULL, NULL), KITH_E_STARTING);
    assert_int_equal(kith_drop("bad", run, &error), KITH_E_STARTING);
    opts.dim = DIM;
    opts.metric = KITH_METRIC_L2;
    opts.run_dir = run;
    assert_int_equal(kith_create("bad", &opts), KITH_E_EXISTS);
    char *names = NULL;
    assert_int_equal(kith_list(run, &names, NULL), 2);
    free(names);
    create("new");
    assert_int_equal(kith_drop("new", run, NULL), 0);

    let_go("replay", "bad");
    wait_until("bad", SERVED);
    wait_more(&shared->acked, 50);
    wait_for(&shared->moves, 1);
    wait_searches(50);
    halt();
    assert_int_equal(atomic_load(&shared->moves), 1);
    assert_true(generation_of(k) > before);
    assert_true(test_daemon_alive(&d, NULL) && d.pid == pid);
    expect_all("bad", atomic_load(&shared->acked));
    expect_all("good", atomic_load(&shared->others));
    assert_true(test_daemon_logged(&d, "event=segment-condemned name=bad"));
    assert_true(test_daemon_logged(&d, "event=collection-away name=bad"));
    assert_true(test_daemon_logged(&d, "event=not-adopted name=bad status=KITH_E_CORRUPT"));
    assert_true(test_daemon_logged(&d, "event=collection-ready name=bad"));
    assert_false(test_daemon_logged(&d, "event=segment-condemned name=good"));
    assert_false(test_daemon_logged(&d, "event=collection-refused"));
    assert_int_equal(kith_checkpoint(k, NULL, NULL), 0);
    kith_close(k);
    fprintf(stderr, "%u acknowledged, %u refused, %u elsewhere, %llu searches\n", atomic_load(&shared->acked),
            atomic_load(&shared->refused), atomic_load(&shared->others),
            (unsigned long long)atomic_load(&shared->searches));

    /* The other life is an ordinary one. */
    assert_int_equal(test_daemon_stop(&d), 0);
    assert_int_equal(test_daemon_start(&d), 0);
    expect_all("bad", atomic_load(&shared->acked));
}

/* Nothing is held: found as soon as it is served, under fire. */
static void damage_that_a_dead_daemon_left_is_found_under_fire(void **state)
{
    (void)state;
    begin();
    let_go("census", "bad");
    for (unsigned round = 0; round < (test_long() ? 40 : 4); round++) {
        test_daemon_kill(&d);
        damage(test_daemon_segment(&d, "bad"));
        assert_int_equal(truncate(d.log, 0), 0);
        atomic_store(&shared->stop, false);
        atomic_store(&shared->starts, true);
        go();
        wait_more(&shared->refused, 1);
        test_daemon_spawn(&d);
        pid_t pid = d.pid;
        wait_logged("event=segment-condemned name=bad");
        assert_int_equal(test_daemon_wait_ready(&d), 0);
        atomic_store(&shared->starts, false);
        wait_more(&shared->acked, 20);
        wait_more(&shared->others, 20);
        halt();
        assert_true(test_daemon_alive(&d, NULL) && d.pid == pid);
        expect_all("bad", atomic_load(&shared->acked));
        expect_all("good", atomic_load(&shared->others));
    }
}

static void an_end_at_any_point_of_it_loses_nothing(void **state)
{
    (void)state;
    static const char *const points[] = { "adopt", "load", "replay", "open" };
    static const char *const states[] = { "adopting", "loading", "replaying", "opening" };
    begin();
    kith *k = attach("bad");
    uint32_t n = FIRST;
    for (unsigned i = 0; i < 8; i++) {
        bool killed = i % 2;
        assert_int_equal(put(k, n), 0);
        n++;
        damage(test_daemon_segment(&d, "bad"));
        hold(points[i / 2], "bad");
        let_go("census", "bad");
        wait_until("bad", states[i / 2]);
        if (killed)
            test_daemon_kill(&d);
        else
            assert_int_equal(test_daemon_stop(&d), 0);
        let_go(points[i / 2], "bad");
        assert_int_equal(test_daemon_start(&d), 0); /* builds it */
        expect_all("bad", n);
        test_daemon_kill(&d);
        hold("census", "bad");
        assert_int_equal(test_daemon_start(&d), 0);
    }
    kith_close(k);
}

static void writes_that_did_not_ask_to_be_durable_are_there_on_the_same_timeline(void **state)
{
    (void)state;
    begin();
    kith *k = attach("bad");
    uint64_t timeline = kith_timeline(k);
    assert_int_equal(kith_set_durability(k, KITH_DURABILITY_APPLIED), 0);
    for (uint32_t i = FIRST; i < FIRST + 100; i++)
        assert_int_equal(put(k, i), 0);
    damage(test_daemon_segment(&d, "bad"));
    let_go("census", "bad");
    wait_logged("event=segment-condemned name=bad");
    wait_until("bad", SERVED);
    expect_all("bad", FIRST + 100);
    assert_int_equal(put(k, 0), 0); /* which sees to it that the handle has moved over */
    assert_true(kith_timeline(k) == timeline);
    assert_false(test_daemon_logged(&d, "event=timeline"));
    kith_close(k);
}

/* An older state of the segment, so that there is much to replay; the census is then due before it is served. */
static void it_comes_back_when_it_is_found_while_the_log_is_replayed(void **state)
{
    (void)state;
    char segment[2 * TEST_PATH_SIZE], older[2 * TEST_PATH_SIZE + 8];
    assert_int_equal(test_daemon_start(&d), 0);
    create("bad");
    create("good");
    kith *k = attach("bad");
    fill(k, 0, FIRST);
    kith_close(k);
    test_daemon_kill(&d);
    snprintf(segment, sizeof segment, "%s", test_daemon_segment(&d, "bad"));
    snprintf(older, sizeof older, "%s.kept", segment);
    assert_int_equal(rename(segment, older), 0);
    assert_int_equal(test_daemon_start(&d), 0);
    k = attach("bad");
    fill(k, FIRST, 500);
    kith_close(k);
    test_daemon_kill(&d);
    assert_int_equal(rename(older, segment), 0);
    damage(segment);
    assert_int_equal(test_daemon_start(&d), 0);
    assert_true(test_daemon_logged(&d, "event=segment-condemned name=bad"));
    assert_false(test_daemon_logged(&d, "event=collection-refused"));
    expect_all("bad", FIRST + 500);
    expect_all("good", 0);
    k = attach("bad");
    assert_int_equal(put(k, FIRST + 500), 0);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0);
}

/* Two at a time, beside one that the start has still to load. */
static void some_come_back_while_the_start_is_not_over(void **state)
{
    (void)state;
    assert_int_equal(test_daemon_start(&d), 0);
    create("bad");
    create("good");
    create("slow");
    static const char *const names[] = { "bad", "good", "slow" };
    for (unsigned i = 0; i < 3; i++) {
        kith *k = attach(names[i]);
        fill(k, 0, FIRST);
        assert_int_equal(kith_checkpoint(k, NULL, NULL), 0);
        kith_close(k);
    }
    test_daemon_kill(&d);
    assert_int_equal(truncate(d.log, 0), 0);
    damage(test_daemon_segment(&d, "bad"));
    damage(test_daemon_segment(&d, "good"));
    assert_int_equal(unlink(test_daemon_segment(&d, "slow")), 0);
    hold("load", "slow");
    hold("open", "good");
    test_daemon_spawn(&d);
    wait_until("good", "opening"); /* adopted, as its log is opened */
    let_go("open", "good");
    wait_logged("event=collection-away name=bad");
    wait_logged("event=collection-away name=good");
    wait_until("bad", SERVED);
    wait_until("good", SERVED);
    wait_until("slow", "loading");
    for (unsigned i = 0; i < 2; i++) {
        kith *k = attach(names[i]);
        assert_int_equal(put(k, FIRST), 0);
        kith_close(k);
        expect_all(names[i], FIRST + 1);
    }
    assert_false(test_daemon_logged(&d, "event=ready"));
    let_go("load", "slow");
    assert_int_equal(test_daemon_wait_ready(&d), 0);
    wait_logged("collections=3 refused=0 clients=");
    expect_all("slow", FIRST);
    assert_int_equal(test_daemon_stop(&d), 0);
}

/* What cannot be, but would go round for ever: somebody takes back what was found. */
static void the_second_time_ends_the_daemon(void **state)
{
    (void)state;
    begin();
    damage(test_daemon_segment(&d, "bad"));
    hold("adopt", "bad");
    let_go("census", "bad");
    wait_until("bad", "adopting");
    acquit(test_daemon_segment(&d, "bad"));
    let_go("adopt", "bad");
    assert_int_equal(exit_status(), 1);
    assert_true(test_daemon_logged(&d, "built anew once already"));
    assert_false(test_daemon_logged(&d, "event=start-failed"));
    assert_int_equal(test_daemon_start(&d), 0);
    expect_all("bad", FIRST);
    expect_all("good", 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(readers_move_over_and_writers_try_again),
        TEST(damage_that_a_dead_daemon_left_is_found_under_fire),
        TEST(an_end_at_any_point_of_it_loses_nothing),
        TEST(writes_that_did_not_ask_to_be_durable_are_there_on_the_same_timeline),
        TEST(it_comes_back_when_it_is_found_while_the_log_is_replayed),
        TEST(some_come_back_while_the_start_is_not_over),
        TEST(the_second_time_ends_the_daemon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
