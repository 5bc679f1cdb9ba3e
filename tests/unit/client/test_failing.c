/*
 * test_failing.c - opening, and moving to the next generation, without memory, descriptors or address space: a handle is opened
 * whole or not at all, and says why; one that is open searches the generation that it has until it has the next one.
 */
#include <kith/kith.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/src/lock_priv.h"
#include "client/src/rundir_priv.h"
#include "shm/layout/header.h"
#include "shm/map/map.h"
#include "tests/support/failing.h"
#include "tests/support/index.h"
#include "tests/support/tmp.h"

enum { DIM = 4, COUNT = 40, CALLS = 10000 };

static struct test_dir run;
static char segment[2 * TEST_PATH_SIZE], beside[2 * TEST_PATH_SIZE];
static struct test_index *writer;
static struct kith_error err;

/* Id i has step * (i + 1) in every place. */
static struct test_index *make_segment(const char *path, float step)
{
    struct kithi_geometry g = {
        .dim = DIM, .metric = KITHI_METRIC_L2, .m = 8, .ef_construction = 50, .slot_max = 1000
    };
    struct test_index *t = malloc(sizeof *t);
    if (!t)
        test_die("out of memory");
    test_index_create(t, path, &g, 1, 50, 50);
    for (int i = 0; i < COUNT; i++) {
        char id[16];
        float v[DIM];
        struct kithi_errmsg why;
        for (int d = 0; d < DIM; d++)
            v[d] = step * (float)(i + 1);
        struct kithi_op op = { .type = KITHI_OP_UPSERT, .id = id, .dim = DIM, .vector = v };
        op.id_len = (uint16_t)snprintf(id, sizeof id, "%d", i);
        if (test_index_commit(t, &op, 1, &why) < 0)
            test_die("%s", why.text);
    }
    return t;
}

static void writer_close(void)
{
    test_index_close(writer);
    free(writer);
}

static int set_up(void **state)
{
    (void)state;
    test_dir_make_shm(&run);
    snprintf(segment, sizeof segment, "%s/c/segment", run.path);
    snprintf(beside, sizeof beside, "%s/c/segment.next", run.path);
    if (mkdir(test_path(&run, "c"), 0750) != 0)
        return -1;
    writer = make_segment(segment, 1.0f);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    writer_close();
    test_dir_remove(&run);
    return 0;
}

/* Put a new generation in place, as the writer does. */
static void switch_generation(float step)
{
    struct test_index *next = make_segment(beside, step);
    assert_int_equal(rename(beside, segment), 0);
    kithi_index_mark_moved(writer->ix);
    writer_close();
    writer = next;
}

static int open_as(const char *name, kith **out)
{
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    err = (struct kith_error){ 0 };
    o.run_dir = run.path;
    o.error = &err;
    return kith_open(name, &o, out);
}

static int nearest(kith *index, kith_results *r, float x)
{
    float q[DIM] = { x, x, x, x };
    int rc = kith_search(index, q, DIM, 1, NULL, r);
    return rc == 1 ? atoi(kith_results_id(r, 0)) : rc < 0 ? rc : -1;
}

static int segments_mapped(void)
{
    char line[1024];
    int n = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, run.path) != NULL;
    fclose(f);
    return n;
}

static void a_handle_is_opened_whole_or_not_at_all(void **state)
{
    (void)state;
    const char *const names[] = { "c", segment };
    kith_results *r = kith_results_new();
    int before = segments_mapped();
    for (unsigned i = 0; i < 2; i++)
        for (enum test_way way = 0; way < TEST_WAYS; way++) {
            bool met = true;
            unsigned failures = 0;
            for (uint64_t k = 1; met && k < CALLS; k++) {
                kith *index = NULL;
                test_failing_begin(k, way);
                int rc = open_as(names[i], &index);
                met = test_failing_end();
                assert_int_equal(rc == 0, index != NULL);
                if (rc == 0) {
                    assert_int_equal(nearest(index, r, 7.2f), 6);
                } else if (way == TEST_INTERRUPTED || err.code != rc || !err.text[0]) {
                    fail_msg("%s: %s, told as %d: %s", test_failing_what(), kith_errname(rc), err.code,
                             err.text);
                }
                kith_close(index);
                failures += rc != 0;
                assert_int_equal(segments_mapped(), before);
            }
            assert_false(met);
            assert_true(way == TEST_INTERRUPTED || failures > 3);
        }
    kith_results_free(r);
}

/* A call that has no memory of its own yet says so, and the next one gets it. */
static void a_first_search_without_memory_says_so(void **state)
{
    (void)state;
    bool met = true;
    kith_results *r = kith_results_new();
    unsigned failures = 0;
    for (uint64_t k = 1; met && k < CALLS; k++) {
        kith *index = NULL;
        assert_int_equal(open_as("c", &index), 0);
        test_failing_begin(k, TEST_FAILS);
        int got = nearest(index, r, 7.2f);
        met = test_failing_end();
        assert_true(got == 6 || (met && got == -ENOMEM));
        failures += got != 6;
        assert_int_equal(nearest(index, r, 7.2f), 6);
        kith_close(index);
    }
    assert_true(failures > 0);
    kith_results_free(r);
}

/* Until it can be attached, the old generation is searched; no file stays mapped for it. */
static void a_move_that_fails_is_made_later(void **state)
{
    (void)state;
    bool met = true;
    kith_results *r = kith_results_new();
    unsigned failures = 0;
    for (uint64_t k = 1; met && k < CALLS; k++) {
        const float step = k % 2 ? 2.0f : 1.0f;
        const int was = k % 2 ? 9 : 4, is = k % 2 ? 4 : 9; /* nearest to 10.2 */
        kith *index = NULL;
        assert_int_equal(open_as("c", &index), 0);
        assert_int_equal(nearest(index, r, 10.2f), was);
        switch_generation(step);
        int mapped = segments_mapped();
        test_failing_begin(k, TEST_FAILS);
        int got = nearest(index, r, 10.2f);
        met = test_failing_end();
        if (got != is && !(met && (got == was || got == -ENOMEM)))
            fail_msg("%s: %d", test_failing_what(), got);
        failures += got == was;
        if (got == was)
            assert_int_equal(segments_mapped(), mapped);
        for (uint64_t end = test_now_ms() + 30000; nearest(index, r, 10.2f) != is; test_nap())
            assert_true(test_now_ms() < end);
        kith_close(index);
    }
    assert_true(failures > 3);
    kith_results_free(r);
}

/* The old generation's marks send everybody away, and nothing newer can be attached: then why that is. */
static void a_used_up_generation_without_a_next_one_is_an_error_that_says_why(void **state)
{
    (void)state;
    kith_results *r = kith_results_new();
    kith *index = NULL;
    struct kithi_map map;
    assert_int_equal(open_as("c", &index), 0);
    assert_int_equal(nearest(index, r, 10.2f), 9);
    assert_int_equal(kithi_map_attach_path(segment, true, &map, NULL), 0);
    switch_generation(2.0f);
    struct kithi_header *h = kithi_map_header(&map);
    atomic_store(&h->unlinked, KITHI_MARK_ALL);
    atomic_store(&h->reused, KITHI_MARK_ALL);
    test_failing_begin(1, TEST_LASTS);
    int got = nearest(index, r, 10.2f);
    assert_true(test_failing_end());
    assert_true(got == -ENOMEM || got == -EMFILE);
    assert_int_equal(nearest(index, r, 10.2f), 4);
    kithi_map_detach(&map);
    kith_close(index);
    kith_results_free(r);
}

/* ---- generations that follow each other faster than a call does ---- */

static struct test_index *chain[8];
static unsigned chain_next;

static void next_of_chain(void)
{
    char path[2 * TEST_PATH_SIZE];
    if (chain_next < 8) {
        snprintf(path, sizeof path, "%s/c/chain-%u", run.path, chain_next++);
        if (rename(path, segment) < 0)
            test_die("cannot rename %s", path);
    }
}

static void a_call_follows_a_few_generations_and_then_says_that_it_is_stale(void **state)
{
    (void)state;
    kith_results *r = kith_results_new();
    kith *index = NULL;
    assert_int_equal(open_as("c", &index), 0);
    assert_int_equal(nearest(index, r, 10.2f), 9);
    for (unsigned i = 0; i < 8; i++) {
        char path[2 * TEST_PATH_SIZE];
        snprintf(path, sizeof path, "%s/c/chain-%u", run.path, i);
        chain[i] = make_segment(path, i == 7 ? 2.0f : 1.0f);
        if (i < 7)
            kithi_index_mark_moved(chain[i]->ix);
    }
    kithi_index_mark_moved(writer->ix);
    chain_next = 0;
    next_of_chain();
    test_failing_on_open(next_of_chain);
    assert_int_equal(nearest(index, r, 10.2f), KITH_E_STALE);
    assert_true(chain_next < 8);
    /* The next call begins anew, and gets to the last one. */
    assert_int_equal(nearest(index, r, 10.2f), 4);
    assert_int_equal(chain_next, 8);
    test_failing_on_open(NULL);
    kith_close(index);
    kith_results_free(r);
    for (unsigned i = 0; i < 8; i++) {
        test_index_close(chain[i]);
        free(chain[i]);
    }
}

/* ---- names and paths ---- */

static void refused(const char *name, const char *run_dir, uint32_t wait_ms, int code, const char *says)
{
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    kith *index = NULL;
    err = (struct kith_error){ 0 };
    o.run_dir = run_dir;
    o.attach_wait_ms = wait_ms;
    o.error = &err;
    int rc = kith_open(name, &o, &index);
    if (rc != code || err.code != code || !strstr(err.text, says))
        fail_msg("%s: %s (%s), not %s with '%s'", name, kith_errname(rc), err.text, kith_errname(code), says);
    assert_null(index);
}

static void a_path_says_what_it_belongs_to_and_what_is_wrong_with_it(void **state)
{
    (void)state;
    char path[2 * TEST_PATH_SIZE];
    kith *index = NULL;
    refused("/segment", NULL, 0, KITH_E_NO_COLLECTION, "there is no segment /segment");
    refused("/tmp/segment", NULL, 0, KITH_E_NO_COLLECTION, "there is no segment /tmp/segment");
    refused("/none/of/this/segment", NULL, 0, KITH_E_NO_COLLECTION, "a slash makes it the path");
    refused("nobody", run.path, 0, KITH_E_NO_COLLECTION, "there is no collection 'nobody' in");
    /* A file of another name is opened, without a daemon to write to. */
    assert_int_equal(link(segment, test_path(&run, "c/copy")), 0);
    assert_int_equal(kith_open(test_path(&run, "c/copy"), NULL, &index), 0);
    assert_string_equal(kith_name(index), test_path(&run, "c/copy"));
    assert_int_equal(kith_delete(index, "1", NULL), KITH_E_RUN_DIR);
    kith_close(index);
    /* So is one in a directory that is not named like a collection. */
    assert_int_equal(mkdir(test_path(&run, "c d"), 0750), 0);
    assert_int_equal(link(segment, test_path(&run, "c d/segment")), 0);
    assert_int_equal(kith_open(test_path(&run, "c d/segment"), NULL, &index), 0);
    assert_int_equal(kith_delete(index, "1", NULL), KITH_E_RUN_DIR);
    kith_close(index);
    snprintf(path, sizeof path, "%s-link", run.path);
    assert_int_equal(symlink("/nonexistent/directory", path), 0);
    refused("c", path, 0, KITH_E_RUN_DIR, "is a link that leads nowhere");
    assert_int_equal(unlink(path), 0);
    if (geteuid() == 0) {
        assert_int_equal(chmod(run.path, 0755), 0);
        assert_int_equal(chmod(test_path(&run, "c"), 0755), 0);
        assert_int_equal(chmod(segment, 0600), 0);
        assert_int_equal(seteuid(65534), 0);
        refused("c", run.path, 0, -EACCES, "your user may not read");
        assert_int_equal(seteuid(0), 0);
    }
}

static void without_a_name_the_run_directory_is_one_of_two(void **state)
{
    (void)state;
    const char *const first = "/dev/shm/kith", *const second = "/run/kith";
    unsetenv("KITH_RUN");
    const char *usual = kithi_run_dir(NULL);
    assert_true(strcmp(usual, first) == 0 || strcmp(usual, second) == 0);
    assert_string_equal(kithi_run_dir(""), usual);
    assert_int_equal(setenv("KITH_RUN", "", 1), 0);
    assert_string_equal(kithi_run_dir(NULL), usual);
    assert_int_equal(setenv("KITH_RUN", run.path, 1), 0);
    assert_string_equal(kithi_run_dir(NULL), run.path);
    assert_string_equal(kithi_run_dir("/elsewhere"), "/elsewhere");
    unsetenv("KITH_RUN");
    /* The second where there is no first, if there is that. */
    test_failing_begin(1, TEST_FAILS);
    usual = kithi_run_dir(NULL);
    assert_true(test_failing_end());
    assert_string_equal(usual, access(second, F_OK) == 0 ? second : first);
}

/* While what is missing may still come it is waited for; what is damaged is not. */
static void opening_waits_for_what_may_still_come(void **state)
{
    (void)state;
    uint64_t magic = 0;
    uint32_t version = 99;
    refused("c", test_path(&run, "none"), 5, KITH_E_TIMEOUT, "waited 5 ms: there is no run directory");
    refused("nobody", run.path, 130, KITH_E_TIMEOUT, "waited 130 ms: there is no collection 'nobody'");
    assert_int_equal(mkdir(test_path(&run, "d"), 0750), 0);
    int fd = open(test_path(&run, "d/segment"), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    assert_true(fd >= 0);
    refused("d", run.path, 5, KITH_E_TIMEOUT, "waited 5 ms: not a kith segment: the file has only 0 bytes");
    assert_int_equal(pwrite(fd, kithi_map_header(test_index_map(writer)), sizeof(struct kithi_header), 0),
                     sizeof(struct kithi_header));
    assert_int_equal(pwrite(fd, &magic, sizeof magic, offsetof(struct kithi_header, magic)), sizeof magic);
    refused("d", run.path, 5, KITH_E_TIMEOUT, "waited 5 ms: the segment is still being built");
    magic = KITHI_SEGMENT_MAGIC;
    assert_int_equal(pwrite(fd, &magic, sizeof magic, offsetof(struct kithi_header, magic)), sizeof magic);
    assert_int_equal(pwrite(fd, &version, sizeof version, offsetof(struct kithi_header, version)),
                     sizeof version);
    refused("d", run.path, 60000, KITH_E_VERSION, "format version 99");
    close(fd);
}

/* A lock that a thread of a parent held as it forked is nobody's in the child. */
static void a_lock_of_another_process_is_taken_over(void **state)
{
    (void)state;
    struct kithi_lock l = { 0 };
    assert_true(kithi_lock_try(&l));
    assert_false(kithi_lock_try(&l));
    kithi_unlock(&l);
    atomic_store(&l.word, (uint32_t)getppid());
    kithi_lock(&l);
    assert_int_equal(atomic_load(&l.word), (uint32_t)getpid());
    kithi_unlock(&l);
    assert_int_equal(atomic_load(&l.word), 0);
}

static void *lock_once(void *arg)
{
    struct kithi_lock *l = arg;
    kithi_lock(l);
    kithi_unlock(l);
    return NULL;
}

static void threads_wait_for_a_lock_and_all_get_it(void **state)
{
    (void)state;
    struct kithi_lock l = { 0 };
    pthread_t threads[3];
    uint64_t end = test_now_ms() + 30000;
    kithi_lock(&l);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, lock_once, &l), 0);
    while (atomic_load(&l.word) == (uint32_t)getpid()) { /* somebody waits once it says so */
        assert_true(test_now_ms() < end);
        test_nap();
    }
    assert_false(kithi_lock_try(&l));
    kithi_unlock(&l);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_true(kithi_lock_try(&l));
    kithi_unlock(&l);
}

#define CLAIM(claim) cmocka_unit_test_setup_teardown(claim, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLAIM(a_handle_is_opened_whole_or_not_at_all),
        CLAIM(a_first_search_without_memory_says_so),
        CLAIM(a_move_that_fails_is_made_later),
        CLAIM(a_used_up_generation_without_a_next_one_is_an_error_that_says_why),
        CLAIM(a_call_follows_a_few_generations_and_then_says_that_it_is_stale),
        CLAIM(a_path_says_what_it_belongs_to_and_what_is_wrong_with_it),
        CLAIM(without_a_name_the_run_directory_is_one_of_two),
        CLAIM(opening_waits_for_what_may_still_come),
        CLAIM(a_lock_of_another_process_is_taken_over),
        CLAIM(threads_wait_for_a_lock_and_all_get_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
