/*
 * test_golden.c - do old files open? For each format version a segment, a log and a configuration, made by the kithd of
 * that time: readers attach to the segment, kithd adopts it, and kithd builds it anew from the log.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <kith/kith.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/golden/pack.h"
#include "tests/golden/sample.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"

static const char *const versions[] = { "v1" };

static void unpack(const char *version, const char *name, const char *file)
{
    char packed[1024];
    snprintf(packed, sizeof packed, "%s/%s/%s", TEST_GOLDEN_DIR, version, name);
    int rc = test_unpack(packed, file);
    if (rc < 0)
        fail_msg("%s: %s", packed, strerror(-rc));
}

static void copy(const char *version, const char *name, const char *file)
{
    char from[1024], buf[4096];
    snprintf(from, sizeof from, "%s/%s/%s", TEST_GOLDEN_DIR, version, name);
    FILE *in = fopen(from, "rbe"), *out = fopen(file, "wbe");
    assert_true(in && out);
    size_t n = fread(buf, 1, sizeof buf, in);
    assert_true(n > 0 && fwrite(buf, 1, n, out) == n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

/* Everything that the sample holds is there, as it was given, and nothing else. */
static void check_contents(const char *name, const char *run)
{
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    struct kith_error error = { 0 };
    kith *k = NULL;
    open.run_dir = run;
    open.error = &error;
    if (kith_open(name, &open, &k) < 0)
        fail_msg("%s", error.text);
    kith_results *results = kith_results_new();
    uint64_t count = 0, expected = 0;
    for (uint32_t n = 0; n < SAMPLE_COUNT; n++) {
        char id[80];
        float want[SAMPLE_DIM], got[SAMPLE_DIM];
        sample_id(n, id);
        sample_vector(n, SAMPLE_FINAL, want);
        if (!sample_is_there(n)) {
            assert_int_equal(kith_get(k, id, got, SAMPLE_DIM, NULL), KITH_E_NOT_FOUND);
            continue;
        }
        expected++;
        assert_int_equal(kith_get(k, id, got, SAMPLE_DIM, NULL), 0);
        for (uint32_t i = 0; i < SAMPLE_DIM; i++)
            assert_true(fabsf(want[i] - got[i]) <= 1e-4f);
        assert_int_equal(kith_search(k, want, SAMPLE_DIM, 5, NULL, results), 5);
        assert_string_equal(kith_results_id(results, 0), id);
        assert_true(fabsf(kith_results_distance(results, 0)) < 1e-5f);
    }
    assert_int_equal(kith_count(k, &count), 0);
    assert_int_equal(count, expected);
    kith_results_free(results);
    kith_close(k);
}

static void old_segments_are_searched_without_a_daemon(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        struct test_dir dir;
        test_dir_make_shm(&dir);
        char path[TEST_PATH_SIZE + 16];
        snprintf(path, sizeof path, "%s/segment", dir.path);
        unpack(versions[i], "segment.pack", path);
        check_contents(path, NULL);
        assert_true(test_verify_path(path));
        test_dir_remove(&dir);
    }
}

/* A daemon over an old data directory, with the old segment or without. */
static void serve(const char *version, bool with_segment)
{
    struct test_daemon d;
    char data[TEST_PATH_SIZE + 16], run[TEST_PATH_SIZE + 16], path[2 * TEST_PATH_SIZE];
    test_daemon_init(&d);
    snprintf(data, sizeof data, "%s/data/%s", d.data.path, SAMPLE_NAME);
    snprintf(run, sizeof run, "%s/run", d.run.path);
    mkdir(data, 0700);
    snprintf(path, sizeof path, "%s/wal", data);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/wal/00000000000000000001.wal", data);
    unpack(version, "wal.pack", path);
    snprintf(path, sizeof path, "%s/collection.conf", data);
    copy(version, "collection.conf", path);
    if (with_segment) {
        snprintf(path, sizeof path, "%s/%s", run, SAMPLE_NAME);
        mkdir(path, 0750);
        unpack(version, "segment.pack", test_daemon_segment(&d, SAMPLE_NAME));
    }
    struct stat before, after;
    bool had = stat(test_daemon_segment(&d, SAMPLE_NAME), &before) == 0;
    if (test_daemon_start(&d) < 0)
        fail_msg("kithd does not start with files of format %s", version);
    assert_int_equal(stat(test_daemon_segment(&d, SAMPLE_NAME), &after), 0);
    if (had) /* adopted in place, not built anew */
        assert_int_equal(before.st_ino, after.st_ino);
    check_contents(SAMPLE_NAME, run);
    assert_true(test_verify_path(test_daemon_segment(&d, SAMPLE_NAME)));
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

static void old_segments_are_adopted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof versions / sizeof versions[0]; i++)
        serve(versions[i], true);
}

static void old_logs_are_replayed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof versions / sizeof versions[0]; i++)
        serve(versions[i], false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_segments_are_searched_without_a_daemon),
        cmocka_unit_test(old_segments_are_adopted),
        cmocka_unit_test(old_logs_are_replayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
