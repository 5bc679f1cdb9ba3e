/*
 * test_cli_surroundings.c - kith, the command line, where something around it is not as it should be: run directories, segments,
 * a full or read-only file system, no daemon.
 */
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/layout/header.h"
#include "tests/proc/cli.h"
#include "tests/support/rand.h"

static struct result run_at(const char *run, const char *command)
{
    struct result r;
    const char *argv[] = { getenv("KITH_TEST_KITH"), "--run", run, command, "x", NULL };
    run_argv(&r, argv);
    return r;
}

static void run_directories_that_cannot_be_used_are_named(void **state)
{
    (void)state;
    char path[TEST_PATH_SIZE], name[121], deep[TEST_PATH_SIZE + sizeof name];
    snprintf(path, sizeof path, "%s", test_path(&files, "no-such-run"));
    expect_fail(run_at(path, "count"), 1, path);
    expect_fail(run_at(path, "drop"), 1, path);
    snprintf(path, sizeof path, "%s", write_text("a-file", ""));
    expect_fail(run_at(path, "count"), 1, "not a directory");
    snprintf(path, sizeof path, "%s", test_path(&files, "dangling"));
    assert_int_equal(symlink("no-such-run", path), 0);
    expect_fail(run_at(path, "count"), 1, path);
    snprintf(path, sizeof path, "%s", test_path(&files, "open"));
    assert_int_equal(mkdir(path, 0700), 0);
    expect_fail(run_at(path, "count"), 1, "x");
    expect_fail(run_at(path, "drop"), 1, "kithd");
    assert_int_equal(chmod(path, 0707), 0);
    expect_fail(run_at(path, "count"), 1, "everybody may write");
    /* A path that leaves no room for the socket's name. */
    memset(name, 'd', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(deep, sizeof deep, "%s/%s", path, name);
    assert_int_equal(chmod(path, 0700), 0);
    assert_int_equal(mkdir(deep, 0700), 0);
    expect_fail(run_at(deep, "drop"), 1, "use a shorter run directory");
}

static void files_that_are_no_segments_are_refused(void **state)
{
    (void)state;
    static alignas(struct kithi_header) unsigned char bytes[KITHI_HEADER_SIZE];
    create("real", "2", "l2");
    FILE *f = fopen(test_daemon_segment(&daemon_, "real"), "rb");
    assert_non_null(f);
    assert_int_equal(fread(bytes, 1, sizeof bytes, f), sizeof bytes);
    fclose(f);
    const char *path = write_file("short", bytes, 100);
    expect_fail(KITH("count", path), 1, path);
    path = write_file("header-only", bytes, sizeof bytes);
    expect_fail(KITH("count", path), 1, path);
    expect_fail(KITH("inspect", path), 1, path);
    expect_fail(KITH("verify", path), 1, path);
    ((struct kithi_header *)(void *)bytes)->version = 99;
    path = write_file("newer", bytes, sizeof bytes);
    expect_fail(KITH("count", path), 1, "99");
    memset(bytes, 'z', sizeof bytes);
    path = write_file("garbage", bytes, sizeof bytes);
    expect_fail(KITH("count", path), 1, "not a kith segment");
    drop("real");
}

/* As many rows as fill 64 MiB, of the widest vectors there are. */
static const char *write_wide_rows(void)
{
    static unsigned char row[4 + 4096] = { 0, 16 };
    struct test_rand r;
    const char *path = test_path(&files, "wide.bvecs");
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    test_rand_seed(&r, 3);
    for (size_t i = 0; i < 4500; i++) {
        for (size_t j = 4; j < sizeof row; j++)
            row[j] = (unsigned char)test_rand_below(&r, 256);
        assert_int_equal(fwrite(row, 1, sizeof row, f), sizeof row);
    }
    assert_int_equal(fclose(f), 0);
    return path;
}

static void a_full_run_directory_is_an_error_and_nothing_is_lost(void **state)
{
    (void)state;
    static const uint64_t SIZES[] = { UINT64_C(64) << 20, UINT64_C(1) << 20 };
    char usual_path[sizeof run_path], path[TEST_PATH_SIZE], count[32];
    memcpy(usual_path, run_path, sizeof usual_path);
    snprintf(path, sizeof path, "%s", write_wide_rows());
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        struct test_daemon small;
        test_daemon_init(&small);
        test_dir_remove(&small.run);
        if (!test_dir_mount(&small.run, SIZES[i])) {
            test_daemon_fini(&small);
            skip();
        }
        snprintf(run_path, sizeof run_path, "%s/run", small.run.path);
        snprintf(small.sock, sizeof small.sock, "%.230s/run/kithd.sock", small.run.path);
        assert_int_equal(mkdir(run_path, 0750), 0);
        assert_int_equal(test_daemon_start(&small), 0);
        struct result r =
            KITH("create", "wide", "--dim", "4096", "--metric", "l2", "--m", "4", "--ef-construction", "8");
        if (r.status != 0) { /* too small for a collection at all: then it says so */
            expect_fail(r, 1, "enlarge the tmpfs");
        } else {
            done(&r);
            r = KITH("--json", "load", "wide", path);
            const char *at = strstr(r.out, "\"loaded\":");
            if (r.status != 1 || at == NULL || strstr(r.err, "enlarge the tmpfs") == NULL)
                fail_msg("status %d, stdout %s, stderr %s", r.status, r.out, r.err);
            snprintf(count, sizeof count, "%lu\n", strtoul(at + strlen("\"loaded\":"), NULL, 10));
            done(&r);
            expect_count("wide", count);
            expect_verified("wide");
            if (strcmp(count, "0\n") != 0) {
                expect_says(KITH("search", "wide", "--like", "0"), "DISTANCE", NULL);
                expect(KITH("delete", "wide", "0"), 0, NULL, "");
            }
            drop("wide");
        }
        expect_ok(KITH("list"), "no collections\n");
        assert_int_equal(test_daemon_stop(&small), 0);
        test_daemon_fini(&small);
    }
    memcpy(run_path, usual_path, sizeof run_path);
}

static void a_read_only_mount_is_enough_for_reading(void **state)
{
    (void)state;
    struct test_dir bound;
    create("mounted", "2", "l2");
    expect(KITH("put", "mounted", "a", "--vector", "[1,2]"), 0, NULL, "");
    if (test_dir_bind_read_only(&daemon_.run, &bound)) {
        char usual_path[sizeof run_path];
        memcpy(usual_path, run_path, sizeof usual_path);
        snprintf(run_path, sizeof run_path, "%s/run", bound.path);
        expect_ok(KITH("get", "mounted", "a"), "[1,2]\n");
        expect_says(KITH("search", "mounted", "--vector", "[1,2]"), "DISTANCE", NULL);
        expect_says(KITH("inspect", "mounted"), "REGION", NULL);
        expect_verified("mounted");
        /* Connecting works there, too: what is allowed is the daemon's to decide. */
        expect(KITH("put", "mounted", "b", "--vector", "[3,4]"), 0, NULL, "");
        expect_count("mounted", "2\n");
        memcpy(run_path, usual_path, sizeof run_path);
    }
    test_dir_remove(&bound);
    drop("mounted");
}

static void without_a_daemon_reads_go_on_and_writes_say_why_not(void **state)
{
    (void)state;
    create("alone", "2", "l2");
    expect(KITH("put", "alone", "a", "--vector", "[1,2]"), 0, NULL, "");
    test_daemon_kill(&daemon_);
    expect_ok(KITH("get", "alone", "a"), "[1,2]\n");
    expect_ok(KITH("count", "alone"), "1\n");
    expect_says(KITH("list"), "alone", NULL);
    expect_says(KITH("--json", "stats", "alone"), "\"daemon\":false,\"state\":null,\"daemon_stats\":null}",
                NULL);
    expect_verified("alone");
    expect_says(KITH("search", "alone", "--vector", "[1,2]"), "a", NULL);
    expect_fail(KITH("put", "alone", "b", "--vector", "[1,2]"), 1, "no daemon answers");
    expect_fail(KITH("delete", "alone", "a"), 1, "no daemon answers");
    expect_fail(KITH("drop", "alone"), 1, "kithd");
    expect_fail(KITH("create", "other", "--dim", "2", "--metric", "l2"), 1, "kithd");
    expect_fail(KITH("load", "alone", write_text("l.jsonl", "{\"id\":1,\"vector\":[1,2]}\n")), 1,
                "no daemon answers");
    assert_int_equal(test_daemon_start(&daemon_), 0);
    expect(KITH("put", "alone", "b", "--vector", "[1,2]"), 0, NULL, "");
    expect_count("alone", "2\n");
    expect_verified("alone");
    drop("alone");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_directories_that_cannot_be_used_are_named),
        cmocka_unit_test(files_that_are_no_segments_are_refused),
        cmocka_unit_test(a_full_run_directory_is_an_error_and_nothing_is_lost),
        cmocka_unit_test(a_read_only_mount_is_enough_for_reading),
        cmocka_unit_test(without_a_daemon_reads_go_on_and_writes_say_why_not),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
