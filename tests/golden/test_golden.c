/*
 * test_golden.c - do old files open? For each format version a segment, a log and a configuration, made by the kithd of
 * that time: readers attach to the segment, kithd adopts it, and kithd builds it anew from the log. A segment of a
 * format that is not read any more is refused in words that say so, and replaced from its log.
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

#include "server/checkpoint/format.h"
#include "shm/layout/header.h"
#include "tests/golden/pack.h"
#include "tests/golden/sample.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"

struct golden {
    const char *dir;
    uint32_t format; /* of the segment */
    const char *codes, *keep;
    float value_slop, distance_slop; /* of what comes back, for what is kept */
    uint32_t checkpoint;             /* format of the checkpoint; 0: there is none */
};

static const struct golden goldens[] = {
    { "v1", 1, "none", "f32", 1e-4f, 1e-5f, 0 },
    { "v2/none", 2, "none", "f32", 1e-4f, 1e-5f, 0 },
    { "v2/f16", 2, "f16", "none", 0.01f, 1e-3f, 0 },
    { "v2/sq8", 2, "sq8", "f32", 1e-4f, 1e-5f, 0 },
    { "v2/bits", 2, "bits", "none", 0.06f, 1e-2f, 0 },
    { "v2-checkpoint-v1/none", 2, "none", "f32", 1e-4f, 1e-5f, 1 },
    { "v2-checkpoint-v1/bits", 2, "bits", "none", 0.06f, 1e-2f, 1 },
    { "v3/none", 3, "none", "f32", 1e-4f, 1e-5f, 2 },
    { "v3/bits", 3, "bits", "none", 0.06f, 1e-2f, 2 },
    { "v4/none", 4, "none", "f32", 1e-4f, 1e-5f, 2 },
    { "v4/bits", 4, "bits", "none", 0.06f, 1e-2f, 2 },
    { "v5/none", 5, "none", "f32", 1e-4f, 1e-5f, 2 },
    { "v5/bits", 5, "bits", "none", 0.06f, 1e-2f, 2 },
};

/* What a start finds. */
enum found { LOG, SEGMENT, CHECKPOINT };

#define GOLDENS (sizeof goldens / sizeof goldens[0])

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
static void check_contents(const struct golden *g, const char *name, const char *run)
{
    struct kith_stats stats = KITH_STATS_INIT;
    struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
    struct kith_error error = { 0 };
    kith *k = NULL;
    open.run_dir = run;
    open.error = &error;
    if (kith_open(name, &open, &k) < 0)
        fail_msg("%s", error.text);
    kith_results *results = kith_results_new();
    struct kith_fetch_opts fetch = KITH_FETCH_OPTS_INIT;
    fetch.payloads = 1;
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
            assert_true(fabsf(want[i] - got[i]) <= g->value_slop);
        assert_int_equal(kith_search(k, want, SAMPLE_DIM, 5, NULL, results), 5);
        assert_string_equal(kith_results_id(results, 0), id);
        assert_true(fabsf(kith_results_distance(results, 0)) < g->distance_slop);
        char payload[41000] = "";
        if (g->format >= 3)
            sample_payload(n, SAMPLE_FINAL, payload, sizeof payload);
        assert_int_equal(kith_fetch(k, id, &fetch, results), 0);
        if (payload[0])
            assert_string_equal(kith_results_payload(results, 0), payload);
        else
            assert_null(kith_results_payload(results, 0));
    }
    assert_int_equal(kith_count(k, &count), 0);
    assert_int_equal(count, expected);
    assert_int_equal(kith_stats(k, &stats), 0);
    assert_string_equal(kithi_quantization_name(stats.quantization), g->codes);
    assert_string_equal(kithi_keep_name(stats.keep), g->keep);
    kith_results_free(results);
    kith_close(k);
}

static void old_segments_are_searched_without_a_daemon(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOLDENS; i++) {
        const struct golden *g = &goldens[i];
        struct test_dir dir;
        test_dir_make_shm(&dir);
        char path[TEST_PATH_SIZE + 16];
        snprintf(path, sizeof path, "%s/segment", dir.path);
        unpack(g->dir, "segment.pack", path);
        if (g->format == KITHI_FORMAT_VERSION) {
            check_contents(g, path, NULL);
            assert_true(test_verify_path(path));
        } else {
            struct kith_open_opts open = KITH_OPEN_OPTS_INIT;
            struct kith_error error = { 0 };
            char words[120];
            kith *k = NULL;
            open.error = &error;
            assert_int_equal(kith_open(path, &open, &k), KITH_E_VERSION);
            snprintf(words, sizeof words, "format version %u, this program reads version %u", g->format,
                     KITHI_FORMAT_VERSION);
            assert_non_null(strstr(error.text, words));
        }
        test_dir_remove(&dir);
    }
}

/* A daemon over an old data directory, with the log alone, or with the old segment or checkpoint, too. */
static void serve(const struct golden *g, enum found found)
{
    const bool with_segment = found == SEGMENT;
    struct test_daemon d;
    char data[TEST_PATH_SIZE + 16], run[TEST_PATH_SIZE + 16], path[2 * TEST_PATH_SIZE];
    test_daemon_init(&d);
    snprintf(data, sizeof data, "%s/data/%s", d.data.path, SAMPLE_NAME);
    snprintf(run, sizeof run, "%s/run", d.run.path);
    mkdir(data, 0700);
    snprintf(path, sizeof path, "%s/wal", data);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/wal/00000000000000000001.wal", data);
    unpack(g->dir, "wal.pack", path);
    snprintf(path, sizeof path, "%s/collection.conf", data);
    copy(g->dir, "collection.conf", path);
    if (found == CHECKPOINT) {
        snprintf(path, sizeof path, "%s/checkpoint-%020u", data, SAMPLE_EPOCH);
        unpack(g->dir, "checkpoint.pack", path);
    }
    int reader = -1;
    struct stat before, after;
    if (with_segment) {
        snprintf(path, sizeof path, "%s/%s", run, SAMPLE_NAME);
        mkdir(path, 0750);
        unpack(g->dir, "segment.pack", test_daemon_segment(&d, SAMPLE_NAME));
        reader = open(test_daemon_segment(&d, SAMPLE_NAME), O_RDONLY | O_CLOEXEC);
        assert_int_equal(fstat(reader, &before), 0);
    }
    if (test_daemon_start(&d) < 0)
        fail_msg("kithd does not start with the files of %s", g->dir);
    assert_int_equal(stat(test_daemon_segment(&d, SAMPLE_NAME), &after), 0);
    if (with_segment && g->format == KITHI_FORMAT_VERSION) /* adopted in place, not built anew */
        assert_int_equal(before.st_ino, after.st_ino);
    else if (with_segment) {
        /* Replaced, and its readers are told, who have a program of that time. */
        struct kithi_header h;
        assert_int_not_equal(before.st_ino, after.st_ino);
        assert_true(test_daemon_logged(&d, "status=KITH_E_VERSION"));
        assert_int_equal(pread(reader, &h, sizeof h, 0), sizeof h);
        assert_int_equal(h.version, g->format);
        assert_int_equal(atomic_load(&h.moved), 1);
    }
    if (found == CHECKPOINT)
        assert_true(test_daemon_logged(&d, "event=loaded"));
    check_contents(g, SAMPLE_NAME, run);
    assert_true(test_verify_path(test_daemon_segment(&d, SAMPLE_NAME)));
    assert_int_equal(test_daemon_stop(&d), 0);
    if (reader >= 0)
        close(reader);
    test_daemon_fini(&d);
}

static void old_segments_are_adopted_or_replaced(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOLDENS; i++)
        serve(&goldens[i], SEGMENT);
}

static void old_logs_are_replayed(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOLDENS; i++)
        serve(&goldens[i], LOG);
}

static void old_checkpoints_are_loaded(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOLDENS; i++)
        if (goldens[i].checkpoint)
            serve(&goldens[i], CHECKPOINT);
}

/* Back-ups of format version 1, with segments of format versions 2 and 3. */
static void old_back_ups_are_restored(void **state)
{
    (void)state;
    static const struct golden backups[] = { { "v2-backup-v1/none", 2, "none", "f32", 1e-4f, 1e-5f, 1 },
                                             { "v2-backup-v1/bits", 2, "bits", "none", 0.06f, 1e-2f, 1 },
                                             { "v3-backup-v1/none", 3, "none", "f32", 1e-4f, 1e-5f, 2 } };
    for (size_t i = 0; i < sizeof backups / sizeof backups[0]; i++) {
        const struct golden *g = &backups[i];
        struct kith_backup_opts opts = KITH_BACKUP_OPTS_INIT;
        struct kith_error error = { 0 };
        struct test_daemon d;
        char run[TEST_PATH_SIZE + 16], file[TEST_PATH_SIZE + 16];
        test_daemon_init(&d);
        snprintf(run, sizeof run, "%s/run", d.run.path);
        snprintf(file, sizeof file, "%s/backup", d.data.path);
        unpack(g->dir, "backup.pack", file);
        assert_int_equal(test_daemon_start(&d), 0);
        opts.run_dir = run;
        opts.error = &error;
        int rc = kith_restore("again", file, &opts, NULL);
        if (rc < 0)
            fail_msg("%s", error.text);
        check_contents(g, "again", run);
        assert_true(test_verify_path(test_daemon_segment(&d, "again")));
        assert_int_equal(test_daemon_stop(&d), 0);
        test_daemon_fini(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_segments_are_searched_without_a_daemon),
        cmocka_unit_test(old_segments_are_adopted_or_replaced),
        cmocka_unit_test(old_logs_are_replayed),
        cmocka_unit_test(old_checkpoints_are_loaded),
        cmocka_unit_test(old_back_ups_are_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
