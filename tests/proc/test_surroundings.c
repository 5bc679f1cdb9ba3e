/*
 * test_surroundings.c - what a machine or a person does to kithd's directories: a disk that is full under log, checkpoint and
 * start; one that is read-only; files of a later version; a second daemon; half a copy of a checkpoint; a segment that is
 * removed under its readers. Each is an error that says what to do, or a way on; nothing that was acknowledged is lost.
 *
 * The full disk and the read-only one need the right to mount, and are skipped without it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <kith/kith.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/checkpoint/read.h"
#include "server/wal/files.h"
#include "server/wal/format.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/layout/header.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"

#define NAME       "docs"
#define DIM        256u
#define BATCH      40u
#define IDS_MAX    20000u
#define DEATH_MS   60000u
#define DISK_BYTES (160u << 20)
#define LEFT_BYTES (16u << 20)
#define PATH_SIZE  (2 * TEST_PATH_SIZE)

static struct test_daemon kithd;
static kith *k;
static uint32_t written; /* ids 0 .. written - 1 are there */
static char run_dir[PATH_SIZE];

static void vector_of(uint32_t id, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, id + 1);
    test_rand_floats(&r, out, DIM);
}

static void paths(void)
{
    snprintf(run_dir, sizeof run_dir, "%s/run", kithd.run.path);
    snprintf(kithd.sock, sizeof kithd.sock, "%.230s/run/kithd.sock", kithd.run.path);
    snprintf(kithd.log, sizeof kithd.log, "%.240s/kithd.log",
             kithd.run.path); /* never on the disk that is full */
}

static void attach(void)
{
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    struct kith_error error = { 0 };
    opts.run_dir = run_dir;
    opts.error = &error;
    if (kith_open(NAME, &opts, &k) < 0)
        fail_msg("%s", error.text);
}

static int write_batch(struct kith_commit *commit)
{
    kith_batch *b = kith_batch_new(k);
    float vector[DIM];
    char id[16];
    assert_non_null(b);
    for (uint32_t i = 0; i < BATCH; i++) {
        snprintf(id, sizeof id, "%u", written + i);
        vector_of(written + i, vector);
        assert_int_equal(kith_batch_upsert(b, id, vector, DIM), 0);
    }
    *commit = (struct kith_commit)KITH_COMMIT_INIT;
    int rc = kith_batch_commit(b, commit);
    written += rc == 0 ? BATCH : 0;
    kith_batch_free(b);
    return rc;
}

static void write_some(unsigned batches)
{
    struct kith_commit commit;
    for (unsigned i = 0; i < batches; i++)
        if (write_batch(&commit) < 0)
            fail_msg("%s", commit.error.text);
}

static int checkpoint(struct kith_error *error)
{
    uint64_t epoch;
    return kith_checkpoint(k, &epoch, error);
}

static void all_is_there(void)
{
    float vector[DIM], want[DIM];
    char id[16];
    uint64_t count = 0;
    assert_int_equal(kith_count(k, &count), 0);
    assert_int_equal(count, written);
    for (uint32_t i = 0; i < written; i++) {
        snprintf(id, sizeof id, "%u", i);
        vector_of(i, want);
        assert_int_equal(kith_get(k, id, vector, DIM, NULL), 0);
        assert_memory_equal(vector, want, sizeof want);
    }
    assert_true(test_verify_path(test_daemon_segment(&kithd, NAME)));
}

static void create(void)
{
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    struct kith_error error = { 0 };
    opts.dim = DIM;
    opts.metric = KITH_METRIC_L2;
    opts.m = 4;
    opts.ef_construction = 8;
    opts.run_dir = run_dir;
    opts.error = &error;
    if (kith_create(NAME, &opts) < 0)
        fail_msg("%s", error.text);
    attach();
}

static int set_up(void **state)
{
    (void)state;
    written = 0;
    k = NULL;
    test_daemon_init(&kithd);
    paths();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kith_close(k);
    test_daemon_fini(&kithd);
    return 0;
}

static void begin(void)
{
    assert_int_equal(test_daemon_start(&kithd), 0);
    create();
    write_some(5);
}

static void begin_again(void)
{
    assert_int_equal(test_daemon_start(&kithd), 0);
    all_is_there();
}

/* It does not start, and says these words. */
static void refuses_to_start(struct test_daemon *d, const char *words)
{
    uint64_t end = test_now_ms() + DEATH_MS;
    int status = 0;
    assert_true(truncate(d->log, 0) == 0 || errno == ENOENT); /* what earlier starts have said */
    test_daemon_spawn(d);
    while (test_daemon_alive(d, &status)) {
        if (test_now_ms() > end)
            fail_msg("kithd does not leave: \"%s\" was expected", words);
        test_nap();
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    if (!test_daemon_logged(d, words)) {
        test_daemon_show_log(d);
        fail_msg("kithd does not say \"%s\"", words);
    }
}

static void data_path(const char *name, char out[PATH_SIZE])
{
    snprintf(out, PATH_SIZE, "%.240s/data/" NAME "/%s", kithd.data.path, name);
}

static void newest_checkpoint(char out[PATH_SIZE], uint64_t *out_epoch)
{
    char dir[PATH_SIZE], name[KITHI_CHECKPOINT_NAME_SIZE];
    uint64_t *epochs = NULL;
    data_path("", dir);
    assert_true(kithi_checkpoint_list(dir, &epochs, NULL) > 0);
    kithi_checkpoint_name(name, epochs[0]);
    *out_epoch = epochs[0];
    free(epochs);
    data_path(name, out);
}

/* ---- a full disk ---- */

static void ballast(uint64_t leave)
{
    char path[PATH_SIZE];
    static const char zeros[65536];
    snprintf(path, sizeof path, "%s/ballast", kithd.data.path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    if (leave)
        assert_int_equal(fallocate(fd, 0, 0, (off_t)(DISK_BYTES - leave)), 0);
    else
        while (write(fd, zeros, sizeof zeros) > 0) {
        }
    close(fd);
}

static void drop_ballast(void)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/ballast", kithd.data.path);
    assert_int_equal(unlink(path), 0);
}

static void a_full_disk_refuses_log_checkpoint_and_start_and_loses_nothing(void **state)
{
    (void)state;
    struct kith_commit commit;
    struct kith_error error = { 0 };
    char path[PATH_SIZE];
    test_dir_remove(&kithd.data);
    if (!test_dir_mount(&kithd.data, DISK_BYTES)) {
        skip();
        return;
    }
    snprintf(path, sizeof path, "%s/data", kithd.data.path);
    assert_int_equal(mkdir(path, 0700), 0);

    /* The log: its file of 64 MiB does not fit, so it begins with one of 1 MiB, and there is no next one. */
    ballast(LEFT_BYTES);
    begin();
    int rc;
    while ((rc = write_batch(&commit)) == 0)
        assert_true(written < IDS_MAX);
    fprintf(stderr, "%u vectors, then %s: %s\n", written, kith_errname(rc), commit.error.text);
    assert_true(rc == -ENOSPC || rc == KITH_E_NO_SPACE);
    assert_non_null(strstr(commit.error.text, kithd.data.path));
    all_is_there();
    assert_int_equal(write_batch(&commit), rc);
    drop_ballast();
    write_some(2); /* there is room, and nobody has to be told */

    /* The checkpoint. */
    ballast(0);
    rc = checkpoint(&error);
    fprintf(stderr, "checkpoint: %s\n", error.text);
    assert_int_equal(rc, -ENOSPC);
    assert_non_null(strstr(error.text, kithd.data.path));
    data_path(KITHI_CHECKPOINT_NEW, path);
    assert_int_not_equal(access(path, F_OK), 0);
    write_some(2); /* the log's file has room still */
    all_is_there();

    /* The start: with its segment, and without. */
    for (unsigned cold = 0; cold < 2; cold++) {
        test_daemon_kill(&kithd);
        if (cold)
            assert_int_equal(unlink(test_daemon_segment(&kithd, NAME)), 0);
        ballast(0);
        refuses_to_start(&kithd, "No space left on device");
        drop_ballast();
        begin_again();
        ballast(0);
    }
    drop_ballast();
    assert_int_equal(checkpoint(&error), 0);
    write_some(1);
    all_is_there();
    assert_int_equal(test_daemon_stop(&kithd), 0);
}

static void a_read_only_data_directory_is_refused_with_the_reason(void **state)
{
    (void)state;
    struct test_dir disk, view = { .path = "" };
    begin();
    assert_int_equal(test_daemon_stop(&kithd), 0);
    if (!test_dir_bind_read_only(&kithd.data, &view)) {
        test_dir_remove(&view);
        skip();
        return;
    }
    disk = kithd.data;
    kithd.data = view;
    refuses_to_start(&kithd, "Read-only file system");
    kithd.data = disk;
    test_dir_remove(&view);
    begin_again();
}

/* ---- a later version ---- */

static int open_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail_msg("%s: %s", path, strerror(errno));
    return fd;
}

/* Replace two bytes at `at`, and the checksum at crc_at of what stands before that. The bytes before go to *out_before. */
static void seal_version(const char *path, off_t base, unsigned at, unsigned crc_at, unsigned version,
                         unsigned char before[4096])
{
    unsigned char block[4096];
    int fd = open_file(path);
    assert_int_equal(pread(fd, block, sizeof block, base), (ssize_t)sizeof block);
    memcpy(before, block, sizeof block);
    block[at] = (unsigned char)version;
    block[at + 1] = (unsigned char)(version >> 8);
    kithi_put32(block + crc_at, kithi_crc32c(0, block, crc_at));
    assert_int_equal(pwrite(fd, block, sizeof block, base), (ssize_t)sizeof block);
    close(fd);
}

static void put_block(const char *path, off_t base, const unsigned char block[4096])
{
    int fd = open_file(path);
    assert_int_equal(pwrite(fd, block, 4096, base), 4096);
    close(fd);
}

static void last_log_file(char out[PATH_SIZE])
{
    char wal[PATH_SIZE], name[64];
    struct kithi_wal_file *files = NULL;
    data_path("wal", wal);
    int64_t n = kithi_wal_files_list(wal, &files, NULL);
    assert_true(n > 0);
    snprintf(name, sizeof name, "wal/%s", files[n - 1].name);
    free(files);
    data_path(name, out);
}

static void a_log_of_a_later_version_is_refused(void **state)
{
    (void)state;
    char path[PATH_SIZE];
    unsigned char before[4096];
    static const struct {
        off_t base;
        unsigned crc_at;
    } places[] = { { 0, 4092 }, { 4096, 124 } }; /* of the file, and of its first group */
    begin();
    test_daemon_kill(&kithd);
    last_log_file(path);
    for (unsigned i = 0; i < 2; i++) {
        seal_version(path, places[i].base, 4, places[i].crc_at, KITHI_WAL_VERSION + 1, before);
        refuses_to_start(&kithd, "KITH_E_VERSION");
        put_block(path, places[i].base, before);
    }
    begin_again();
}

static void a_configuration_of_a_later_version_is_refused(void **state)
{
    (void)state;
    char path[PATH_SIZE], text[4096], *at;
    begin();
    test_daemon_kill(&kithd);
    data_path("collection.conf", path);
    int fd = open_file(path);
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    assert_true(n > 0);
    text[n] = 0;
    at = strstr(text, "version = ");
    assert_non_null(at);
    char digit = at[10];
    at[10] = '9';
    assert_int_equal(pwrite(fd, text, (size_t)n, 0), n);
    refuses_to_start(&kithd, "collection.conf");
    assert_true(test_daemon_logged(&kithd, "KITH_E_VERSION"));
    at[10] = digit;
    assert_int_equal(pwrite(fd, text, (size_t)n, 0), n);
    close(fd);
    begin_again();
}

static void lose_segment(void)
{
    assert_int_equal(unlink(test_daemon_segment(&kithd, NAME)), 0);
}

static void a_checkpoint_of_a_later_version_is_passed_over(void **state)
{
    (void)state;
    char path[PATH_SIZE];
    unsigned char before[4096];
    uint64_t epoch;
    struct kith_error error;
    begin();
    assert_int_equal(checkpoint(&error), 0);
    write_some(1);
    assert_int_equal(checkpoint(&error), 0);
    write_some(1);
    test_daemon_kill(&kithd);
    lose_segment();
    newest_checkpoint(path, &epoch);
    seal_version(path, 0, 8, 4092, KITHI_CHECKPOINT_VERSION + 1, before);
    begin_again();
    assert_true(test_daemon_logged(&kithd, "another version of kithd"));
}

static void a_segment_of_a_later_version_is_built_anew(void **state)
{
    (void)state;
    uint32_t version = KITHI_FORMAT_VERSION + 1;
    begin();
    test_daemon_kill(&kithd);
    int fd = open_file(test_daemon_segment(&kithd, NAME));
    assert_int_equal(pwrite(fd, &version, sizeof version, offsetof(struct kithi_header, version)),
                     (ssize_t)sizeof version);
    close(fd);
    kith_close(k); /* it cannot read that segment, and nobody has told it that there is another */
    k = NULL;
    assert_int_equal(test_daemon_start(&kithd), 0);
    attach();
    all_is_there();
    assert_true(test_daemon_logged(&kithd, "not-adopted"));
}

/* ---- people ---- */

static void a_second_daemon_is_refused_on_either_directory(void **state)
{
    (void)state;
    struct test_daemon second;
    begin();
    for (unsigned same_run = 0; same_run < 2; same_run++) {
        test_daemon_init(&second);
        struct test_dir data = second.data, run = second.run;
        if (same_run)
            second.run = kithd.run;
        else
            second.data = kithd.data;
        refuses_to_start(&second, "another kithd owns");
        second.data = data;
        second.run = run;
        test_daemon_fini(&second);
        assert_true(test_daemon_answers(&kithd));
        write_some(1);
        all_is_there();
    }
    test_daemon_kill(&kithd);
    begin_again();
}

/* The first part of a file under another name, or cut off where it is. */
static void copy_part(const char *from, const char *to)
{
    struct stat st;
    int in = open_file(from);
    assert_int_equal(fstat(in, &st), 0);
    size_t half = (size_t)st.st_size / 2;
    char *bytes = malloc(half);
    assert_non_null(bytes);
    assert_int_equal(pread(in, bytes, half, 0), (ssize_t)half);
    close(in);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(out >= 0);
    assert_int_equal(write(out, bytes, half), (ssize_t)half);
    close(out);
    free(bytes);
}

static void a_checkpoint_that_a_person_copied_half_is_passed_over(void **state)
{
    (void)state;
    char path[PATH_SIZE], copy[PATH_SIZE], name[KITHI_CHECKPOINT_NAME_SIZE];
    uint64_t epoch;
    struct kith_error error;
    begin();
    assert_int_equal(checkpoint(&error), 0);
    write_some(2);
    /* One that was broken off; one under a name that is nobody's. */
    for (unsigned i = 0; i < 2; i++) {
        newest_checkpoint(path, &epoch);
        data_path(i == 0 ? strrchr(path, '/') + 1 : "checkpoint-of-monday", copy);
        copy_part(path, copy);
        for (unsigned cold = 0; cold < 2; cold++) {
            test_daemon_kill(&kithd);
            if (cold)
                lose_segment();
            begin_again();
            write_some(1);
            all_is_there();
        }
        assert_int_equal(checkpoint(&error), 0);
        write_some(1);
    }
    /* Under the name of an epoch that never was it says that the log has lost something. That is refused, with the way out. */
    newest_checkpoint(path, &epoch);
    kithi_checkpoint_name(name, epoch + 1000);
    data_path(name, copy);
    copy_part(path, copy);
    test_daemon_kill(&kithd);
    lose_segment();
    refuses_to_start(&kithd, "the newest checkpoint says");
    unlink(copy);
    begin_again();
}

static void a_segment_that_is_removed_is_read_on_and_comes_back(void **state)
{
    (void)state;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *late = NULL;
    float query[DIM];
    kith_results *r = kith_results_new();
    assert_non_null(r);
    vector_of(7, query);
    begin();
    lose_segment();
    /* Whoever has it goes on; kithd, too. */
    assert_int_equal(kith_search(k, query, DIM, 1, NULL, r), 1);
    assert_string_equal(kith_results_id(r, 0), "7");
    struct kith_commit commit;
    int rc = write_batch(&commit);
    fprintf(stderr, "a write to a removed segment: %s\n", rc ? commit.error.text : "done");
    assert_true(rc == 0 || rc == KITH_E_NO_COLLECTION || rc == KITH_E_REPLACED);
    opts.run_dir = run_dir;
    assert_int_equal(kith_open(NAME, &opts, &late), KITH_E_NO_COLLECTION);
    test_daemon_kill(&kithd);
    assert_int_equal(kith_search(k, query, DIM, 1, NULL, r), 1);
    assert_int_equal(test_daemon_start(&kithd), 0);
    kith_close(k);
    attach();
    all_is_there();
    kith_results_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_full_disk_refuses_log_checkpoint_and_start_and_loses_nothing,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_read_only_data_directory_is_refused_with_the_reason, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_log_of_a_later_version_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_configuration_of_a_later_version_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_checkpoint_of_a_later_version_is_passed_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_segment_of_a_later_version_is_built_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_second_daemon_is_refused_on_either_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_checkpoint_that_a_person_copied_half_is_passed_over, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_segment_that_is_removed_is_read_on_and_comes_back, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
