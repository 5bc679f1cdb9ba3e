/*
 * test_space.c - a run directory that is full: a tmpfs of 64 MiB and one of 1 MiB. Writes are refused with a sentence
 * that says so, what was acknowledged stays, deleting makes room, and readers get no signal: not from the full
 * file system, and not from links in the segment that lead into its holes.
 *
 * Needs the right to mount; says so and is skipped without it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <kith/kith.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/base/bytes.h"
#include "shm/layout/ids.h"
#include "shm/map/map.h"
#include "tests/support/child.h"
#include "tests/support/codes.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"

#define NAME     "tight"
#define DIM      1024u
#define BATCH    100u
#define TRY_MAX  1000u /* batches; far more than fit */
#define READ_MS  1500u
#define DEATH_MS 30000u
#define ROOM_MS  30000u
#define POKES    4000u

struct tight {
    struct test_daemon d;
    char run[TEST_PATH_SIZE + 8];
    kith *k;
    uint32_t written; /* ids 0 .. written - 1 are there */
};

static void vector_of(uint32_t id, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, id + 1);
    test_rand_floats(&r, out, DIM);
}

/* A daemon whose run directory is a tmpfs of this size. False: mounting is not permitted. */
static bool begin(struct tight *t, uint64_t bytes)
{
    memset(t, 0, sizeof *t);
    test_daemon_init(&t->d);
    test_dir_remove(&t->d.run);
    if (!test_dir_mount(&t->d.run, bytes)) {
        test_daemon_fini(&t->d);
        return false;
    }
    snprintf(t->run, sizeof t->run, "%s/run", t->d.run.path);
    mkdir(t->run, 0750);
    snprintf(t->d.sock, sizeof t->d.sock, "%.230s/run/kithd.sock", t->d.run.path);
    assert_int_equal(test_daemon_start(&t->d), 0);
    return true;
}

static int create(struct tight *t, struct kith_error *error)
{
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    opts.dim = DIM;
    opts.metric = KITH_METRIC_L2;
    opts.quantization = test_quantization();
    opts.keep = test_keep();
    opts.m = 8;
    opts.ef_construction = 20;
    opts.run_dir = t->run;
    opts.error = error;
    return kith_create(NAME, &opts);
}

static void attach(struct tight *t)
{
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = t->run;
    opts.error = &error;
    if (kith_open(NAME, &opts, &t->k) < 0)
        fail_msg("%s", error.text);
}

/* One batch of new ids; its status. */
static int write_batch(struct tight *t, struct kith_commit *commit)
{
    kith_batch *b = kith_batch_new(t->k);
    float vector[DIM];
    char id[16];
    assert_non_null(b);
    for (uint32_t i = 0; i < BATCH; i++) {
        snprintf(id, sizeof id, "%u", t->written + i);
        vector_of(t->written + i, vector);
        assert_int_equal(kith_batch_upsert(b, id, vector, DIM), 0);
    }
    *commit = (struct kith_commit){ .struct_size = sizeof *commit };
    int rc = kith_batch_commit(b, commit);
    if (rc == 0)
        t->written += BATCH;
    kith_batch_free(b);
    return rc;
}

static void fill_up(struct tight *t)
{
    struct kith_commit commit;
    int rc = 0;
    for (uint32_t i = 0; i < TRY_MAX && rc == 0; i++)
        rc = write_batch(t, &commit);
    assert_int_equal(rc, KITH_E_NO_SPACE);
    fprintf(stderr, "%u vectors, then: %s\n", t->written, commit.error.text);
    assert_non_null(strstr(commit.error.text, "run directory"));
    assert_true(test_daemon_alive(&t->d, NULL));
}

/* Take what the daemon left free, so that not one page is to be had. */
static void fill_rest(const struct tight *t)
{
    char path[TEST_PATH_SIZE + 16];
    static const char zeros[4096];
    snprintf(path, sizeof path, "%s/ballast", t->d.run.path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, zeros, sizeof zeros) == (ssize_t)sizeof zeros) {
    }
    assert_int_equal(errno, ENOSPC);
    close(fd);
}

static void remove_ballast(const struct tight *t)
{
    char path[TEST_PATH_SIZE + 16];
    snprintf(path, sizeof path, "%s/ballast", t->d.run.path);
    assert_int_equal(unlink(path), 0);
}

struct reading {
    char run[TEST_PATH_SIZE + 8];
    uint32_t written; /* 0: only the process has to survive */
};

static int reader_role(void *arg)
{
    const struct reading *r = arg;
    struct kith_open_opts open_opts = KITH_OPEN_OPTS_INIT;
    open_opts.run_dir = r->run;
    open_opts.prefault = 1;
    kith *k = NULL;
    kith_results *results = kith_results_new();
    if (kith_open(NAME, &open_opts, &k) < 0 || !results)
        return 1;
    float vector[DIM], got[DIM];
    char id[16];
    uint64_t end = test_now_ms() + READ_MS;
    int rc = 0;
    for (uint32_t i = 0; test_now_ms() < end && rc == 0; i++) {
        struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
        uint32_t number = r->written ? i % r->written : i % 100;
        snprintf(id, sizeof id, "%u", number);
        vector_of(number, vector);
        opts.exact = i % 16 == 0;
        int n = kith_search(k, vector, DIM, 10, &opts, results);
        int found = kith_get(k, id, got, DIM, NULL);
        test_codes_decoded(test_codes_kept(), false, vector, DIM);
        if (r->written && (n != 10 || found != 0 || memcmp(got, vector, sizeof got) != 0)) {
            fprintf(stderr, "id %s: %d hits, get says %s\n", id, n, kith_errname(found));
            rc = 1;
        }
    }
    kith_results_free(results);
    kith_close(k);
    return rc;
}

static int read_in_a_process(const struct tight *t, uint32_t written)
{
    struct reading r = { .written = written };
    struct test_child child;
    snprintf(r.run, sizeof r.run, "%s", t->run);
    test_child_start(&child, "reader", reader_role, &r);
    return test_child_wait(&child, READ_MS + DEATH_MS);
}

/* Links, entry point and table entries that lead to slots without memory: holes of a file system that is full. */
static void poke(const struct tight *t)
{
    struct kithi_map map;
    struct kithi_errmsg err;
    struct test_rand r;
    test_rand_seed(&r, test_seed());
    if (kithi_map_attach_path(test_daemon_segment(&t->d, NAME), true, &map, &err) < 0)
        fail_msg("%s", err.text);
    struct kithi_header *h = kithi_map_header(&map);
    uint32_t used = (uint32_t)h->slots_used;
    for (uint32_t i = 0; i < POKES; i++) {
        uint32_t slot = test_rand_below(&r, used);
        uint32_t hole = used + test_rand_below(&r, map.geometry.slot_max - used);
        _Atomic uint32_t *row = (_Atomic uint32_t *)(void *)(map.base + map.layout.off[KITHI_REGION_ROWS] +
                                                             (uint64_t)slot * map.layout.row_stride);
        uint32_t places = i % 4 ? 2 * map.geometry.m : map.layout.row_stride / 4; /* codes, now and then */
        atomic_store(&row[test_rand_below(&r, places)], hole + 1);
    }
    uint64_t table = h->id_table;
    _Atomic uint64_t *ids =
        (_Atomic uint64_t *)(void *)(map.base + map.layout.off[KITHI_REGION_IDS0 + kithi_ids_area(table)]);
    for (uint32_t i = 0; i < 1u << kithi_ids_log2(table); i += 3)
        if (ids[i])
            atomic_store(&ids[i], (ids[i] & UINT64_C(0xffffffff00000000)) | (map.geometry.slot_max - i));
    atomic_store(&h->slots_used, map.geometry.slot_max);
    assert_int_equal(read_in_a_process(t, 0), 0);
    atomic_store(&h->entry, kithi_entry_pack(map.geometry.slot_max - 1, 3));
    assert_int_equal(read_in_a_process(t, 0), 0);
    kithi_map_detach(&map);
}

static void a_full_run_directory_refuses_writes_and_loses_nothing(void **state)
{
    (void)state;
    struct tight t;
    struct kith_error error;
    struct kith_commit commit;
    if (!begin(&t, 64u << 20)) {
        skip();
        return;
    }
    if (create(&t, &error) < 0)
        fail_msg("%s", error.text);
    attach(&t);
    fill_up(&t);
    fill_rest(&t);
    assert_int_equal(read_in_a_process(&t, t.written), 0);
    remove_ballast(&t);

    /* Deleted vectors make room once they have rested. */
    for (uint32_t id = 0; id < 2 * BATCH; id++) {
        char name[16];
        snprintf(name, sizeof name, "%u", id);
        assert_int_equal(kith_delete(t.k, name, NULL), 0);
    }
    int rc;
    for (uint64_t end = test_now_ms() + ROOM_MS; (rc = write_batch(&t, &commit)) == KITH_E_NO_SPACE;) {
        if (test_now_ms() > end)
            fail_msg("deleting made no room: %s", commit.error.text);
        test_nap();
    }
    assert_int_equal(rc, 0);
    assert_true(test_verify_path(test_daemon_segment(&t.d, NAME)));

    /* A daemon that is killed comes back on the full file system and has everything. */
    uint64_t count = 0;
    fill_rest(&t);
    test_daemon_kill(&t.d);
    assert_int_equal(test_daemon_start(&t.d), 0);
    assert_int_equal(kith_count(t.k, &count), 0);
    assert_int_equal(count, t.written - 2 * BATCH);

    test_daemon_kill(&t.d);
    poke(&t);
    kith_close(t.k);
    test_daemon_fini(&t.d);
}

static void a_tiny_run_directory_is_an_error_and_no_signal(void **state)
{
    (void)state;
    struct tight t;
    struct kith_error error = { 0 };
    if (!begin(&t, 1u << 20)) {
        skip();
        return;
    }
    int rc = create(&t, &error);
    fprintf(stderr, "create on 1 MiB: %s\n", rc < 0 ? error.text : "done");
    assert_true(rc == 0 || rc == KITH_E_NO_SPACE);
    assert_true(test_daemon_alive(&t.d, NULL));
    if (rc == 0) {
        attach(&t);
        fill_up(&t);
        fill_rest(&t);
        if (t.written)
            assert_int_equal(read_in_a_process(&t, t.written), 0);
        test_daemon_kill(&t.d);
        if (t.written)
            poke(&t);
        kith_close(t.k);
    }
    test_daemon_fini(&t.d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_run_directory_refuses_writes_and_loses_nothing),
        cmocka_unit_test(a_tiny_run_directory_is_an_error_and_no_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
