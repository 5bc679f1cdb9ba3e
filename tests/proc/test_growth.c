/*
 * test_growth.c - a collection that begins with room for sixteen vectors takes all that is written to it, while it is searched: no
 * write and no search fails, and none of them notices but by the time it takes. A daemon that dies on the way loses
 * nothing, and one without room for two segments says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <kith/kith.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/codes.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"

#define NAME     "growing"
#define DIM      16u
#define FIRST    16u /* slots that it begins with */
#define WRITERS  2u
#define BATCH    400u
#define HUGE     3000u /* a batch of more than there is room for, whatever was written before */
#define K        5u
#define PATIENCE 120000u

/* Of all writers. */
static uint32_t count(void)
{
    return test_long() ? 200000 : 24000;
}

struct shared {
    char run[TEST_PATH_SIZE];
    uint32_t up_to;                  /* of each writer */
    _Atomic uint32_t acked[WRITERS]; /* writer w has written ids w, w + WRITERS, ..., so many of them */
    _Atomic uint32_t stop;
    _Atomic uint64_t searches, missed, moves;
    char text[600];
};

struct growing {
    struct test_daemon d;
    struct shared *s;
    kith *k;
};

static void vector_of(uint32_t id, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, id + 1);
    test_rand_floats(&r, out, DIM);
}

static void id_of(uint32_t number, char out[48])
{
    /* Some lie in blobs, of two classes. */
    snprintf(out, 48, "%s%u",
             number % 5 == 0   ? "an id that its record has no room for, "
             : number % 5 == 1 ? "a longer one than 24 bytes, "
                               : "",
             number);
}

static int attach(const char *run, kith **out)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = run;
    return kith_open(NAME, &opts, out);
}

static int create(const struct growing *g, uint32_t slots, struct kith_error *error)
{
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    opts.dim = DIM;
    opts.metric = KITH_METRIC_L2;
    opts.m = 6;
    opts.ef_construction = 30;
    opts.quantization = test_quantization();
    opts.keep = test_keep();
    opts.max_vectors = slots;
    opts.run_dir = g->s->run;
    opts.error = error;
    return kith_create(NAME, &opts);
}

static void start(struct growing *g)
{
    if (test_daemon_start(&g->d) < 0)
        fail_msg("kithd does not start");
}

static void begin(struct growing *g)
{
    struct kith_error error = { 0 };
    memset(g, 0, sizeof *g);
    test_daemon_init(&g->d);
    g->s = test_shared(sizeof *g->s);
    snprintf(g->s->run, sizeof g->s->run, "%s", test_path(&g->d.run, "run"));
    g->s->up_to = count() / WRITERS;
    start(g);
    if (create(g, FIRST, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(attach(g->s->run, &g->k), 0);
}

static void end(struct growing *g)
{
    kith_close(g->k);
    assert_true(test_verify_path(test_daemon_segment(&g->d, NAME)));
    assert_int_equal(test_daemon_stop(&g->d), 0);
    test_daemon_fini(&g->d);
}

static struct kith_stats stats_of(kith *k)
{
    struct kith_stats s = KITH_STATS_INIT;
    assert_int_equal(kith_stats(k, &s), 0);
    return s;
}

/* A number of the daemon's view of its growths. */
static uint64_t growth_stat(kith *k, const char *name)
{
    char *text = NULL, key[64];
    assert_int_equal(kith_daemon_stats(k, &text), 0);
    const char *at = strstr(text, "\"growth\":{");
    snprintf(key, sizeof key, "\"%s\":", name);
    at = at ? strstr(at, key) : NULL;
    if (!at)
        fail_msg("no %s in %s", name, text);
    uint64_t value = strtoull(at + strlen(key), NULL, 10);
    free(text);
    return value;
}

/* ---- who writes and who searches ---- */

static int complain(struct shared *s, const char *what, const char *why)
{
    snprintf(s->text, sizeof s->text, "%s: %s", what, why);
    return 1;
}

/* The next batch of ids of writer w; its status. */
static int write_batch(struct shared *s, kith *k, unsigned w, uint32_t n, struct kith_commit *commit)
{
    kith_batch *b = kith_batch_new(k);
    uint32_t first = atomic_load(&s->acked[w]);
    float v[DIM];
    char id[48];
    int rc = b ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        uint32_t number = (first + i) * WRITERS + w;
        id_of(number, id);
        vector_of(number, v);
        rc = kith_batch_upsert(b, id, v, DIM);
    }
    *commit = (struct kith_commit){ .struct_size = sizeof *commit };
    rc = rc ? rc : kith_batch_commit(b, commit);
    if (rc == 0)
        atomic_store(&s->acked[w], first + n);
    kith_batch_free(b);
    return rc;
}

static int writer(struct shared *s, unsigned w)
{
    struct kith_commit commit;
    struct test_rand r;
    kith *k = NULL;
    int rc = attach(s->run, &k);
    test_rand_seed(&r, test_seed() + w);
    while (rc == 0 && atomic_load(&s->acked[w]) < s->up_to) {
        uint32_t left = s->up_to - atomic_load(&s->acked[w]);
        uint32_t n = test_rand_below(&r, 20) ? 1 + test_rand_below(&r, BATCH) : HUGE;
        rc = write_batch(s, k, w, n < left ? n : left, &commit);
        if (rc < 0)
            return complain(s, "write", commit.error.text);
    }
    kith_close(k);
    return rc < 0 ? complain(s, "attach", kith_strerror(rc)) : 0;
}

static int writer_0(void *arg)
{
    return writer(arg, 0);
}

static int writer_1(void *arg)
{
    return writer(arg, 1);
}

/* Search for what is there, all the time; the searches of one in four are exact. */
static int reader(void *arg)
{
    struct shared *s = arg;
    struct test_rand r;
    kith *k = NULL;
    kith_results *results = kith_results_new();
    uint64_t generation = 0;
    int rc = attach(s->run, &k);
    if (rc < 0 || !results)
        return complain(s, "attach", kith_strerror(rc));
    test_rand_seed(&r, test_seed());
    while (!atomic_load(&s->stop)) {
        unsigned w = test_rand_below(&r, WRITERS);
        uint32_t acked = atomic_load(&s->acked[w]), number;
        if (acked < 2 * K) {
            test_nap();
            continue;
        }
        float v[DIM];
        char id[48];
        number = test_rand_below(&r, acked) * WRITERS + w;
        id_of(number, id);
        vector_of(number, v);
        rc = kith_search(k, v, DIM, K, NULL, results);
        if (rc != (int)K)
            return complain(s, "search", rc < 0 ? kith_strerror(rc) : "too few hits");
        atomic_fetch_add(&s->searches, 1);
        if (strcmp(kith_results_id(results, 0), id) != 0)
            atomic_fetch_add(&s->missed, 1);
        rc = kith_exists(k, id);
        if (rc != 1)
            return complain(s, id, rc < 0 ? kith_strerror(rc) : "is not there");
        struct kith_stats now = stats_of(k);
        if (generation && now.generation < generation)
            return complain(s, "generation", "it went back");
        if (generation && now.generation != generation)
            atomic_fetch_add(&s->moves, 1);
        generation = now.generation;
    }
    kith_results_free(results);
    kith_close(k);
    return 0;
}

static void stop_readers(struct growing *g, struct test_child *c, unsigned n)
{
    atomic_store(&g->s->stop, 1);
    for (unsigned i = 0; i < n; i++)
        if (test_child_wait(&c[i], 30000) != 0) {
            test_daemon_show_log(&g->d);
            fail_msg("a reader failed: %s", g->s->text);
        }
    uint64_t searches = atomic_load(&g->s->searches), missed = atomic_load(&g->s->missed);
    fprintf(stderr, "%llu searches, %llu without the vector itself, %llu moves\n",
            (unsigned long long)searches, (unsigned long long)missed,
            (unsigned long long)atomic_load(&g->s->moves));
    assert_true(searches > 0 && missed * 10 <= searches);
}

static void assert_all_there(struct growing *g)
{
    kith_results *r = kith_results_new();
    uint64_t n = 0, there = 0;
    uint32_t found = 0, asked = 0;
    assert_non_null(r);
    for (unsigned w = 0; w < WRITERS; w++) {
        n += atomic_load(&g->s->acked[w]);
        for (uint32_t i = 0; i < atomic_load(&g->s->acked[w]); i++) {
            uint32_t number = i * WRITERS + w;
            float v[DIM], back[DIM];
            char id[48];
            id_of(number, id);
            vector_of(number, v);
            int rc = kith_get(g->k, id, back, DIM, NULL);
            if (rc < 0)
                fail_msg("%s: %s", id, kith_strerror(rc));
            test_codes_decoded(test_codes_kept(), false, v, DIM);
            for (uint32_t j = 0; j < DIM; j++)
                assert_true(fabsf(v[j] - back[j]) < 1e-5f);
            if (i % 50)
                continue;
            asked++;
            assert_int_equal(kith_search(g->k, v, DIM, K, NULL, r), K);
            found += strcmp(kith_results_id(r, 0), id) == 0;
        }
    }
    assert_int_equal(kith_count(g->k, &there), 0);
    assert_true(there >= n); /* a batch that was not acknowledged may be there */
    assert_true(found * 10 >= asked * 9);
    kith_results_free(r);
}

/* ---- tests ---- */

static void writers_and_readers_never_meet_the_ceiling(void **state)
{
    (void)state;
    struct growing g;
    struct test_child readers[2] = { 0 }, writers[WRITERS] = { 0 };
    test_role_fn *const roles[WRITERS] = { writer_0, writer_1 };
    begin(&g);
    for (unsigned i = 0; i < 2; i++)
        test_child_start(&readers[i], "reader", reader, g.s);
    for (unsigned w = 0; w < WRITERS; w++)
        test_child_start(&writers[w], "writer", roles[w], g.s);
    for (unsigned w = 0; w < WRITERS; w++)
        if (test_child_wait(&writers[w], PATIENCE) != 0) {
            test_daemon_show_log(&g.d);
            fail_msg("a writer failed: %s", g.s->text);
        }
    stop_readers(&g, readers, 2);
    struct kith_stats s = stats_of(g.k);
    assert_int_equal(s.live_count, count());
    assert_true(s.slot_max >= count());
    assert_true(growth_stat(g.k, "count") >= 2);
    assert_true(growth_stat(g.k, "to") == s.slot_max);
    fprintf(stderr,
            "%llu growths; the longest switch held writes up for %llu us, a write waited %llu us at most\n",
            (unsigned long long)growth_stat(g.k, "count"),
            (unsigned long long)growth_stat(g.k, "hold_us_max"),
            (unsigned long long)growth_stat(g.k, "wait_us_max"));
    assert_true(atomic_load(&g.s->moves) >= 1);
    assert_true(test_daemon_logged(&g.d, "event=growth "));
    assert_all_there(&g);
    /* Of both kinds of start. */
    test_daemon_kill(&g.d);
    start(&g);
    assert_all_there(&g);
    test_daemon_kill(&g.d);
    assert_int_equal(unlink(test_daemon_segment(&g.d, NAME)), 0);
    start(&g);
    assert_all_there(&g);
    assert_true(stats_of(g.k).slot_max >= count());
    end(&g);
}

/* What is rewritten all the time finds room in the same way. */
static void rewriting_grows_to_what_it_needs_and_no_further(void **state)
{
    (void)state;
    struct growing g;
    begin(&g);
    uint64_t slots = 0;
    for (unsigned round = 0; round < 300; round++) {
        kith_batch *b = kith_batch_new(g.k);
        struct kith_commit commit = { .struct_size = sizeof commit };
        float v[DIM];
        char id[48];
        for (uint32_t i = 0; i < 100; i++) {
            id_of(i, id);
            vector_of(round * 100 + i, v);
            assert_int_equal(kith_batch_upsert(b, id, v, DIM), 0);
        }
        int rc = kith_batch_commit(b, &commit);
        if (rc < 0)
            fail_msg("%s", commit.error.text);
        kith_batch_free(b);
        if (round == 150)
            slots = stats_of(g.k).slot_max;
    }
    struct kith_stats s = stats_of(g.k);
    assert_int_equal(s.live_count, 100);
    assert_true(s.slot_max <= 4 * slots);
    end(&g);
}

/* Whole batches, as many as there are; the daemon may be killed meanwhile. */
static int write_some(struct growing *g, uint32_t end)
{
    struct kith_commit commit;
    int rc = 0;
    while (rc == 0 && atomic_load(&g->s->acked[0]) < end)
        rc = write_batch(g->s, g->k, 0, BATCH, &commit);
    return rc;
}

static void a_daemon_that_is_killed_at_any_moment_loses_nothing(void **state)
{
    (void)state;
    struct test_rand r;
    struct growing g;
    struct test_child reading = { 0 };
    test_rand_seed(&r, test_seed());
    begin(&g);
    test_child_start(&reading, "reader", reader, g.s);
    for (unsigned i = 0; i < (test_long() ? 40u : 5u); i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            usleep(test_rand_below(&r, 400000));
            kill(g.d.pid, SIGKILL);
            _exit(0);
        }
        (void)test_rand_u64(&r);
        int rc = write_some(&g, UINT32_MAX / 2), status;
        assert_true(rc == KITH_E_UNKNOWN_OUTCOME || rc == KITH_E_NO_DAEMON);
        assert_true(waitpid(pid, &status, 0) == pid);
        test_daemon_kill(&g.d);
        start(&g);
        assert_all_there(&g);
    }
    stop_readers(&g, &reading, 1);
    end(&g);
}

/* All that a start has is the log, and a configuration from before: it grows as it replays. */
static void a_log_that_needs_a_higher_ceiling_is_replayed(void **state)
{
    (void)state;
    struct growing g;
    char conf[TEST_PATH_SIZE + 32], text[2048], command[4 * TEST_PATH_SIZE];
    begin(&g);
    assert_int_equal(write_some(&g, 3000), 0);
    test_daemon_kill(&g.d);
    snprintf(conf, sizeof conf, "%s/" NAME "/collection.conf", test_path(&g.d.data, "data"));
    FILE *f = fopen(conf, "r+");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    char *at = strstr(text, "slot_max = ");
    assert_non_null(at);
    at += strlen("slot_max = ");
    assert_in_range(atoi(at), 3000, 8192);
    memcpy(at, "16  ", 4);
    rewind(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    snprintf(command, sizeof command, "rm -f %.*s/checkpoint-* %s", (int)(strrchr(conf, '/') - conf), conf,
             test_daemon_segment(&g.d, NAME));
    assert_int_equal(system(command), 0);
    start(&g);
    kith_close(g.k);
    assert_int_equal(attach(g.s->run, &g.k), 0);
    assert_true(test_daemon_logged(&g.d, "event=growth name=" NAME " from=16 "));
    assert_true(stats_of(g.k).slot_max >= 3000);
    assert_all_there(&g);
    assert_int_equal(write_some(&g, 6000), 0);
    assert_all_there(&g);
    end(&g);
}

/* So many changes of one payload, in one commit: each takes a blob until the commit is over. */
static int change_payload(kith *k, uint32_t times, struct kith_commit *commit)
{
    kith_batch *b = kith_batch_new(k);
    char text[32];
    int rc = b ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < times && rc == 0; i++) {
        snprintf(text, sizeof text, "{\"n\":%u}", i);
        rc = kith_batch_set_payload(b, "a", KITH_PAYLOAD_REPLACE, text);
    }
    *commit = (struct kith_commit){ .struct_size = sizeof *commit };
    rc = rc ? rc : kith_batch_commit(b, commit);
    kith_batch_free(b);
    return rc;
}

/* Slots are left, but ids and payloads of that size are not: a collection grows for those as for slots, or says what it lacks. */
static void a_full_class_of_ids_and_payloads_makes_it_grow_or_is_named(void **state)
{
    (void)state;
    struct growing g;
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    struct kith_commit commit;
    float v[DIM] = { 1 };
    kith *fixed = NULL;
    begin(&g);
    assert_int_equal(kith_upsert(g.k, "a", v, DIM, NULL), 0);
    int rc = change_payload(g.k, 6000, &commit);
    if (rc < 0)
        fail_msg("%s", commit.error.text);
    assert_true(growth_stat(g.k, "count") >= 1);
    assert_true(stats_of(g.k).slot_max > FIRST);
    /* What is replayed finds the same room. */
    test_daemon_kill(&g.d);
    assert_int_equal(unlink(test_daemon_segment(&g.d, NAME)), 0);
    start(&g);

    opts.dim = DIM;
    opts.metric = KITH_METRIC_L2;
    opts.max_vectors = FIRST;
    opts.fixed = 1;
    opts.run_dir = open.run_dir = g.s->run;
    assert_int_equal(kith_create("fixed", &opts), 0);
    assert_int_equal(kith_open("fixed", &open, &fixed), 0);
    assert_int_equal(kith_upsert(fixed, "a", v, DIM, NULL), 0);
    assert_int_equal(change_payload(fixed, 6000, &commit), KITH_E_FULL);
    fprintf(stderr, "%s\n", commit.error.text);
    assert_non_null(strstr(commit.error.text, "ids and payloads"));
    assert_non_null(strstr(commit.error.text, "--fixed"));
    assert_int_equal(change_payload(fixed, 100, &commit), 0);
    kith_close(fixed);
    end(&g);
}

#ifdef KITH_FAULT_POINTS

static void a_death_at_each_point_of_it_loses_nothing(void **state)
{
    (void)state;
    static const char *const points[] = { "crash-in-growth-named",   "crash-in-growth-made",
                                          "crash-in-enlarge",        "crash-in-enlarge:4",
                                          "crash-after-enlarge",     "crash-in-switch-linked",
                                          "crash-in-switch-renamed", "crash-after-growth-switch",
                                          "crash-after-growth" };
    struct growing g;
    struct test_child reading = { 0 };
    begin(&g);
    test_child_start(&reading, "reader", reader, g.s);
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++) {
        int status = 0;
        struct kith_stats before = stats_of(g.k);
        test_daemon_kill(&g.d);
        /* What a start finds left over may bring it there already. */
        snprintf(g.d.fault, sizeof g.d.fault, "%s", points[i]);
        test_daemon_spawn(&g.d);
        for (uint64_t until = test_now_ms() + PATIENCE; test_daemon_alive(&g.d, &status);) {
            if (test_now_ms() > until) {
                test_daemon_show_log(&g.d);
                fail_msg("kithd never came to %s", points[i]);
            }
            if (!test_daemon_answers(&g.d) || stats_of(g.k).slot_max > 64 * before.slot_max)
                test_nap(); /* enough was written; old segments have a grace */
            else
                (void)write_some(&g, atomic_load(&g.s->acked[0]) + 1);
        }
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
            test_daemon_show_log(&g.d);
            fail_msg("kithd did not die at %s: status 0x%x", points[i], (unsigned)status);
        }
        g.d.fault[0] = '\0';
        start(&g);
        assert_all_there(&g);
    }
    stop_readers(&g, &reading, 1);
    end(&g);
}

static void without_room_for_two_segments_it_says_so_and_is_full(void **state)
{
    (void)state;
    struct growing g;
    struct kith_commit commit;
    int rc = 0;
    begin(&g);
    test_daemon_kill(&g.d);
    snprintf(g.d.fault, sizeof g.d.fault,
             "enlarge-no-space:1,enlarge-no-space:2,enlarge-no-space:3,enlarge-no-space:4");
    start(&g);
    for (unsigned i = 0; i < 100 && rc == 0; i++)
        rc = write_batch(g.s, g.k, 0, 10, &commit);
    assert_int_equal(rc, KITH_E_FULL);
    fprintf(stderr, "%s\n", commit.error.text);
    assert_non_null(strstr(commit.error.text, "could not grow"));
    assert_true(test_daemon_logged(&g.d, "event=growth-failed"));
    assert_all_there(&g);
    /* It is tried again by and by; then there is room. */
    for (uint64_t until = test_now_ms() + PATIENCE; rc == KITH_E_FULL; test_nap()) {
        assert_true(test_now_ms() < until);
        rc = write_batch(g.s, g.k, 0, 10, &commit);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(write_some(&g, 3000), 0);
    assert_all_there(&g);
    end(&g);
}

#endif

/* A file system that has room for one segment, and not for two. */
static void a_full_file_system_is_named_with_figures(void **state)
{
    (void)state;
    struct growing g = { .k = NULL };
    struct kith_error error = { 0 };
    struct kith_commit commit;
    int rc = 0;
    test_daemon_init(&g.d);
    test_dir_remove(&g.d.run);
    if (!test_dir_mount(&g.d.run, 16u << 20)) {
        test_daemon_fini(&g.d);
        skip();
    }
    g.s = test_shared(sizeof *g.s);
    snprintf(g.s->run, sizeof g.s->run, "%.200s/run", g.d.run.path);
    mkdir(g.s->run, 0750);
    snprintf(g.d.sock, sizeof g.d.sock, "%.200s/run/kithd.sock", g.d.run.path);
    start(&g);
    if (create(&g, 16000, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(attach(g.s->run, &g.k), 0);
    while (rc == 0)
        rc = write_batch(g.s, g.k, 0, BATCH, &commit);
    fprintf(stderr, "%u vectors, then: %s\n", atomic_load(&g.s->acked[0]), commit.error.text);
    assert_true(rc == KITH_E_FULL || rc == KITH_E_NO_SPACE);
    assert_non_null(strstr(commit.error.text, "KiB"));
    assert_all_there(&g);
    kith_close(g.k);
    assert_int_equal(test_daemon_stop(&g.d), 0);
    test_daemon_fini(&g.d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writers_and_readers_never_meet_the_ceiling),
        cmocka_unit_test(rewriting_grows_to_what_it_needs_and_no_further),
        cmocka_unit_test(a_daemon_that_is_killed_at_any_moment_loses_nothing),
        cmocka_unit_test(a_log_that_needs_a_higher_ceiling_is_replayed),
        cmocka_unit_test(a_full_class_of_ids_and_payloads_makes_it_grow_or_is_named),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(a_death_at_each_point_of_it_loses_nothing),
        cmocka_unit_test(without_room_for_two_segments_it_says_so_and_is_full),
#endif
        cmocka_unit_test(a_full_file_system_is_named_with_figures),
    };
    fprintf(stderr, "KITH_SEED=%llu\n", (unsigned long long)test_seed());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
