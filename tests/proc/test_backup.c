/*
 * test_backup.c - back-ups taken under fire and brought back: in the same kithd and in a fresh one, under another name, with every
 * vector and id of the epoch that they hold; refused when anything of them is damaged; whole or not there when kithd
 * dies at any named point; and what a user does wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <kith/kith.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/checkpoint/backup.h"
#include "server/checkpoint/format.h"
#include "server/wal/format.h"
#include "server/wal/scan.h"
#include "shm/base/bytes.h"
#include "shm/base/checksum.h"
#include "shm/map/map.h"
#include "tests/support/codes.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"

#define IDS      2000u
#define DIM      24u
#define BATCH    32u
#define LOG_MAX  200000u
#define DEATH_MS 60000u
#define FIRE_MS  120000u

/* What one commit did: ids from `first` on, wrapping, each with this version or deleted. */
struct commit {
    uint64_t epoch;
    uint32_t first;
    bool deletes;
};

/* The collection as it was written: version v of id i is a vector that follows from both. */
struct history {
    struct commit *commits;
    _Atomic uint32_t count;
    _Atomic bool stop, failed;
    pthread_t writer;
    struct test_daemon *d;
};

static struct test_daemon kithd, other;
static struct test_dir files;
static struct history history;
static struct test_rand r;

/* A path below the test's own directory; test_path() has few buffers. */
static const char *in_files(const char *name)
{
    static char paths[16][TEST_PATH_SIZE + 32];
    for (unsigned i = 0; i < 16; i++) {
        const char *have = strrchr(paths[i], '/');
        if (!have)
            snprintf(paths[i], sizeof paths[i], "%s/%s", files.path, name);
        if (!have || strcmp(have + 1, name) == 0)
            return paths[i];
    }
    test_die("too many files");
}

static void id_of(uint32_t i, char out[32])
{
    /* Some are too long for their record, and so in blobs. */
    snprintf(out, 32, i % 7 == 0 ? "a-longer-name-for-number-%06u" : "v%u", i);
}

static void vector_of(uint32_t i, uint64_t epoch, float *out)
{
    struct test_rand mine;
    test_rand_seed(&mine, (uint64_t)i * 1000003u + epoch);
    test_rand_floats(&mine, out, DIM);
}

static const char *run_of(const struct test_daemon *d)
{
    static char run[2][TEST_PATH_SIZE];
    char *out = run[d == &other];
    snprintf(out, TEST_PATH_SIZE, "%s", d->sock);
    *strrchr(out, '/') = '\0';
    return out;
}

static kith *attach(const struct test_daemon *d, const char *name)
{
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *k = NULL;
    opts.run_dir = run_of(d);
    opts.error = &error;
    if (kith_open(name, &opts, &k) < 0)
        fail_msg("%s", error.text);
    return k;
}

/* ---- writing ---- */

/* The version of a commit is its number, so that it is known before its epoch is. */
static int write_one(kith *k, uint32_t number, struct commit *c)
{
    kith_batch *b = kith_batch_new(k);
    struct kith_commit done = KITH_COMMIT_INIT;
    float v[DIM];
    char id[32];
    for (uint32_t j = 0; j < BATCH; j++) {
        id_of((c->first + j) % IDS, id);
        vector_of((c->first + j) % IDS, number, v);
        int rc = c->deletes ? kith_batch_delete(b, id) : kith_batch_upsert(b, id, v, DIM);
        if (rc < 0)
            test_die("batch: %s", kith_strerror(rc));
    }
    int rc = kith_batch_commit(b, &done);
    c->epoch = done.epoch;
    kith_batch_free(b);
    return rc;
}

static void *write_on(void *arg)
{
    struct history *h = arg;
    kith *k = attach(h->d, "docs");
    struct test_rand mine;
    test_rand_seed(&mine, test_seed() + 1);
    while (!atomic_load(&h->stop)) {
        uint32_t n = atomic_load(&h->count);
        if (n == LOG_MAX)
            break;
        struct commit *c = &h->commits[n];
        c->first = n < IDS / BATCH ? n * BATCH : test_rand_below(&mine, IDS);
        c->deletes = n >= IDS / BATCH && test_rand_below(&mine, 4) == 0;
        if (write_one(k, n, c) < 0) {
            atomic_store(&h->failed, true);
            break;
        }
        atomic_store(&h->count, n + 1);
    }
    kith_close(k);
    return NULL;
}

static void fire(void)
{
    atomic_store(&history.stop, false);
    history.d = &kithd;
    assert_int_equal(pthread_create(&history.writer, NULL, write_on, &history), 0);
}

static void cease(void)
{
    atomic_store(&history.stop, true);
    pthread_join(history.writer, NULL);
    assert_false(atomic_load(&history.failed));
}

static void wait_for_commits(uint32_t more)
{
    uint32_t want = atomic_load(&history.count) + more;
    uint64_t end = test_now_ms() + FIRE_MS;
    while (atomic_load(&history.count) < want) {
        assert_false(atomic_load(&history.failed));
        assert_true(test_now_ms() < end);
        test_nap();
    }
}

/* ---- comparing ---- */

/* Number of the commit that id i has its vector from at epoch, or UINT32_MAX. */
static void state_at(uint64_t epoch, uint32_t version[IDS])
{
    memset(version, 0xff, IDS * sizeof *version);
    uint32_t n = atomic_load(&history.count);
    for (uint32_t c = 0; c < n && history.commits[c].epoch <= epoch; c++)
        for (uint32_t j = 0; j < BATCH; j++)
            version[(history.commits[c].first + j) % IDS] = history.commits[c].deletes ? UINT32_MAX : c;
}

static void compare(const struct test_daemon *d, const char *name, uint64_t epoch)
{
    static uint32_t version[IDS];
    kith *k = attach(d, name);
    float want[DIM], got[DIM];
    char id[32];
    uint64_t live = 0, count = 0;
    state_at(epoch, version);
    assert_true(kith_epoch(k) >= epoch);
    for (uint32_t i = 0; i < IDS; i++) {
        id_of(i, id);
        int rc = kith_get(k, id, got, DIM, NULL);
        if (version[i] == UINT32_MAX) {
            assert_int_equal(rc, KITH_E_NOT_FOUND);
            continue;
        }
        live++;
        assert_int_equal(rc, 0);
        vector_of(i, version[i], want);
        test_codes_decoded(test_codes_kept(), false, want, DIM);
        assert_memory_equal(got, want, sizeof want);
    }
    assert_int_equal(kith_count(k, &count), 0);
    assert_int_equal(count, live);

    /* Searches find what exact ones find: a graph that lost links would not. */
    kith_results *walked = kith_results_new(), *exact = kith_results_new();
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT, all = KITH_SEARCH_OPTS_INIT;
    unsigned found = 0, asked = 0;
    opts.ef = 200;
    all.exact = 1;
    for (unsigned q = 0; q < 60; q++) {
        test_rand_floats(&r, want, DIM);
        int n = kith_search(k, want, DIM, 10, &opts, walked), m = kith_search(k, want, DIM, 10, &all, exact);
        assert_int_equal(m, 10);
        for (int i = 0; i < n; i++)
            found +=
                kith_results_distance(walked, (uint32_t)i) <= kith_results_distance(exact, 9) * 1.000001f;
        asked += 10;
    }
    assert_true(found * 100 >= asked * 97);
    kith_results_free(walked);
    kith_results_free(exact);
    kith_close(k);
    assert_true(test_verify_path(test_daemon_segment(d, name)));
}

static uint64_t timeline_of(const struct test_daemon *d, const char *name)
{
    struct kithi_map map = { 0 };
    assert_int_equal(kithi_map_attach_path(test_daemon_segment(d, name), false, &map, NULL), 0);
    uint64_t timeline = atomic_load(&kithi_map_header(&map)->timeline);
    kithi_map_detach(&map);
    return timeline;
}

/* ---- the calls ---- */

static int back_up(const char *path, bool replace, struct kith_backup_info *info, struct kith_error *error)
{
    struct kith_backup_opts opts = KITH_BACKUP_OPTS_INIT;
    kith *k = attach(&kithd, "docs");
    opts.replace = replace;
    opts.error = error;
    int rc = kith_backup(k, path, &opts, info);
    kith_close(k);
    return rc;
}

static int restore(const struct test_daemon *d, const char *name, const char *path,
                   struct kith_backup_info *info, struct kith_error *error)
{
    struct kith_backup_opts opts = KITH_BACKUP_OPTS_INIT;
    opts.run_dir = run_of(d);
    opts.error = error;
    return kith_restore(name, path, &opts, info);
}

static void must(int rc, const struct kith_error *error)
{
    if (rc < 0)
        fail_msg("%s: %s", kith_errname(rc), error->text);
}

static void drop(const struct test_daemon *d, const char *name)
{
    struct kith_error error = { 0 };
    must(kith_drop(name, run_of(d), &error), &error);
}

static bool has_collection(const struct test_daemon *d, const char *name)
{
    struct kith_error error = { 0 };
    char *names = NULL;
    bool there = false;
    int n = kith_list(run_of(d), &names, &error);
    must(n, &error);
    const char *at = names;
    for (int i = 0; i < n; i++, at += strlen(at) + 1)
        there |= strcmp(at, name) == 0;
    free(names);
    return there;
}

/* Entries of dir that a restore would have left: .creating-* or the name. */
static unsigned leftovers(const char *dir, const char *name)
{
    unsigned n = 0;
    DIR *all = opendir(dir);
    assert_non_null(all);
    for (const struct dirent *e; (e = readdir(all)) != NULL;)
        n += strncmp(e->d_name, ".creating-", 10) == 0 || strcmp(e->d_name, name) == 0;
    closedir(all);
    return n;
}

static void nothing_is_left(const struct test_daemon *d, const char *name)
{
    uint64_t end = test_now_ms() + FIRE_MS;
    /* What a client left is removed after it has gone. */
    while (leftovers(test_path(&d->data, "data"), name) || leftovers(run_of(d), name)) {
        assert_true(test_now_ms() < end);
        test_nap();
    }
    assert_false(has_collection(d, name));
}

/* A back-up that has groups of the log in it, small enough to be damaged everywhere. */
static const char *one_with_log(struct kithi_backup_header *h)
{
    static const char *path;
    unsigned char head[KITHI_BACKUP_BLOCK];
    struct kith_error error = { 0 };
    struct stat st;
    uint64_t end = test_now_ms() + FIRE_MS;
    path = in_files("log.bk");
    fire();
    do {
        wait_for_commits(3);
        must(back_up(path, true, NULL, &error), &error);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0 && fstat(fd, &st) == 0 && read(fd, head, sizeof head) == (ssize_t)sizeof head);
        close(fd);
        assert_int_equal(kithi_backup_header_decode(head, (uint64_t)st.st_size, h, NULL), 0);
        assert_true(test_now_ms() < end);
    } while (h->log_bytes == 0);
    cease();
    return path;
}

/* ---- tests ---- */

static int set_up(void **state)
{
    (void)state;
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    test_rand_seed(&r, test_seed());
    test_dir_make(&files);
    test_daemon_init(&kithd);
    test_daemon_init(&other);
    history.commits = calloc(LOG_MAX, sizeof *history.commits);
    if (!history.commits || test_daemon_start(&kithd) < 0 || test_daemon_start(&other) < 0)
        return -1;
    opts.dim = DIM;
    opts.metric = KITH_METRIC_L2;
    opts.quantization = test_quantization();
    opts.keep = test_keep();
    opts.max_vectors = 100000;
    opts.run_dir = run_of(&kithd);
    if (kith_create("docs", &opts) < 0)
        return -1;
    fire();
    wait_for_commits(IDS / BATCH + 20);
    cease();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_daemon_fini(&kithd);
    test_daemon_fini(&other);
    test_dir_remove(&files);
    free(history.commits);
    return 0;
}

static void a_back_up_under_fire_brings_back_the_epoch_that_it_says(void **state)
{
    (void)state;
    struct kith_error error = { 0 };
    const char *path = in_files("fire.bk");
    char name[16];
    uint64_t with_log = 0;
    for (unsigned round = 0; round < (test_long() ? 40 : 5); round++) {
        struct kith_backup_info info = KITH_BACKUP_INFO_INIT, back = KITH_BACKUP_INFO_INIT;
        struct stat st;
        fire();
        wait_for_commits(8);
        uint64_t before = history.commits[atomic_load(&history.count) - 1].epoch;
        must(back_up(path, true, &info, &error), &error);
        assert_true(info.epoch >= before);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, info.bytes);
        assert_int_equal(st.st_mode & 0777, 0600);
        snprintf(name, sizeof name, "docs-%u", round);
        must(restore(&kithd, name, path, &back, &error), &error); /* beside the writer */
        assert_int_equal(back.epoch, info.epoch);
        cease();
        must(restore(&other, name, path, NULL, &error), &error);
        compare(&kithd, name, info.epoch);
        compare(&other, name, info.epoch);
        assert_int_equal(timeline_of(&kithd, name), back.timeline);
        assert_true(back.timeline != timeline_of(&kithd, "docs"));
        assert_true(back.timeline != timeline_of(&other, name));
        with_log += info.live_count != back.live_count;
        drop(&kithd, name);
        if (round > 0)
            drop(&other, name);
    }
    fprintf(stderr, "%u commits, %" PRIu64 " back-ups whose checkpoint alone would have been another state\n",
            atomic_load(&history.count), with_log);
}

static void what_was_restored_is_durable_and_goes_on(void **state)
{
    (void)state;
    struct kith_error error = { 0 };
    struct kith_backup_info info = KITH_BACKUP_INFO_INIT;
    struct kithi_backup_header h;
    const char *path = one_with_log(&h);
    float v[DIM], got[DIM];
    for (unsigned cold = 0; cold < 2; cold++) {
        uint64_t epoch = 0;
        must(restore(&other, "again", path, &info, &error), &error);
        test_daemon_kill(&other);
        if (cold)
            assert_int_equal(unlink(test_daemon_segment(&other, "again")), 0);
        assert_int_equal(test_daemon_start(&other), 0);
        compare(&other, "again", info.epoch);
        kith *k = attach(&other, "again");
        vector_of(1, 1, v);
        assert_int_equal(kith_upsert(k, "more", v, DIM, &epoch), 0);
        assert_int_equal(epoch, info.epoch + 1);
        assert_int_equal(kith_checkpoint(k, NULL, &error), 0);
        kith_close(k);
        test_daemon_kill(&other);
        assert_int_equal(unlink(test_daemon_segment(&other, "again")), 0);
        assert_int_equal(test_daemon_start(&other), 0);
        k = attach(&other, "again");
        test_codes_decoded(test_codes_kept(), false, v, DIM);
        assert_int_equal(kith_get(k, "more", got, DIM, NULL), 0);
        assert_memory_equal(got, v, sizeof v);
        kith_close(k);
        drop(&other, "again");
    }
}

/* Put ids "v<first>" and so on, below end: the first that there is no room for, or end. */
static uint32_t put(const struct test_daemon *d, const char *name, uint32_t first, uint32_t end)
{
    kith *k = attach(d, name);
    float v[DIM];
    char id[32];
    int rc = 0;
    uint32_t i = first;
    for (; i < end; i++) {
        snprintf(id, sizeof id, "v%u", i);
        vector_of(i, 0, v);
        if ((rc = kith_upsert(k, id, v, DIM, NULL)) < 0)
            break;
    }
    assert_int_equal(rc, i < end ? KITH_E_FULL : 0);
    kith_close(k);
    return i;
}

static void a_ceiling_that_is_kept_is_kept_by_what_was_restored(void **state)
{
    (void)state;
    enum { CEILING = 64, MORE = 100 };
    const char *path = in_files("ceiling.bk");
    for (uint32_t fixed = 0; fixed < 2; fixed++) {
        struct kith_error error = { 0 };
        struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
        struct kith_backup_opts replace = KITH_BACKUP_OPTS_INIT;
        opts.dim = DIM;
        opts.metric = KITH_METRIC_L2;
        opts.quantization = test_quantization();
        opts.keep = test_keep();
        opts.max_vectors = CEILING;
        opts.fixed = fixed;
        opts.run_dir = run_of(&kithd);
        assert_int_equal(kith_create("low", &opts), 0);
        uint32_t there = put(&kithd, "low", 0, fixed ? MORE : CEILING / 4);
        assert_int_equal(there, fixed ? CEILING : CEILING / 4);
        kith *k = attach(&kithd, "low");
        replace.replace = 1;
        replace.error = &error;
        must(kith_backup(k, path, &replace, NULL), &error);
        kith_close(k);
        drop(&kithd, "low");

        must(restore(&other, "low", path, NULL, &error), &error);
        assert_int_equal(put(&other, "low", there, MORE), fixed ? CEILING : MORE);
        /* It is in what the next start goes by. */
        test_daemon_kill(&other);
        assert_int_equal(unlink(test_daemon_segment(&other, "low")), 0);
        assert_int_equal(test_daemon_start(&other), 0);
        k = attach(&other, "low");
        uint64_t count = 0;
        assert_int_equal(kith_count(k, &count), 0);
        assert_int_equal(count, fixed ? CEILING : MORE);
        float v[DIM] = { 1 };
        assert_int_equal(kith_upsert(k, "one more", v, DIM, NULL), fixed ? KITH_E_FULL : 0);
        kith_close(k);
        drop(&other, "low");
    }
}

static void an_empty_collection_has_a_back_up_as_well(void **state)
{
    (void)state;
    struct kith_error error = { 0 };
    struct kith_backup_info info = KITH_BACKUP_INFO_INIT;
    struct kith_create_opts opts = KITH_CREATE_OPTS_INIT;
    struct kith_backup_opts none = KITH_BACKUP_OPTS_INIT;
    struct kith_stats stats = KITH_STATS_INIT;
    const char *path = in_files("empty.bk");
    opts.dim = 5;
    opts.metric = KITH_METRIC_COSINE;
    opts.quantization = KITH_QUANTIZATION_AUTO;
    opts.keep = KITH_KEEP_F16;
    opts.m = 9;
    opts.ef_construction = 77;
    opts.max_vectors = 12345;
    opts.run_dir = run_of(&kithd);
    assert_int_equal(kith_create("empty", &opts), 0);
    kith *k = attach(&kithd, "empty");
    none.error = &error;
    must(kith_backup(k, path, &none, &info), &error);
    kith_close(k);
    must(restore(&other, "full", path, &info, &error), &error);
    k = attach(&other, "full");
    assert_int_equal(kith_stats(k, &stats), 0);
    assert_int_equal(stats.live_count, 0);
    assert_int_equal(stats.dim, 5);
    assert_int_equal(stats.metric, KITH_METRIC_COSINE);
    assert_int_equal(stats.quantization_wanted, KITH_QUANTIZATION_AUTO);
    assert_int_equal(stats.keep_wanted, KITH_KEEP_F16);
    assert_int_equal(stats.undecided, 1);
    assert_int_equal(stats.m, 9);
    assert_int_equal(stats.ef_construction, 77);
    assert_int_equal(stats.slot_max, 12345);
    const float v[5] = { 1, 2, 3, 4, 5 };
    assert_int_equal(kith_upsert(k, "first", v, 5, NULL), 0);
    kith_close(k);
    drop(&other, "full");
    drop(&kithd, "empty");
}

/* ---- damage ---- */

struct copy {
    unsigned char *bytes;
    size_t len;
    char path[TEST_PATH_SIZE + 16];
};

static void copy_of(const char *path, struct copy *c)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    c->len = (size_t)st.st_size;
    c->bytes = malloc(c->len + 1);
    assert_non_null(c->bytes);
    assert_int_equal(read(fd, c->bytes, c->len), c->len);
    close(fd);
    snprintf(c->path, sizeof c->path, "%s", in_files("damaged.bk"));
}

/* len bytes of the copy, with one bit of byte at turned (at == len: none), are refused, and leave nothing. */
static int refused(const struct copy *c, size_t len, size_t at)
{
    struct kith_error error = { 0 };
    int fd = open(c->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    unsigned char byte = at < len ? c->bytes[at] ^ (unsigned char)(1u << test_rand_below(&r, 8)) : 0;
    assert_true(fd >= 0 && write(fd, c->bytes, len) == (ssize_t)len);
    if (at < len)
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
    int rc = restore(&other, "bad", c->path, NULL, &error);
    if (rc != KITH_E_CORRUPT && rc != KITH_E_FORMAT && rc != KITH_E_VERSION && rc != KITH_E_TRUNCATED)
        fail_msg("%zu bytes, byte %zu turned: %s: %s", len, at, kith_errname(rc), error.text);
    assert_non_null(strstr(error.text, "damaged.bk"));
    return rc;
}

static void no_damage_goes_unseen(void **state)
{
    (void)state;
    struct kithi_backup_header h;
    struct copy c;
    copy_of(one_with_log(&h), &c);
    assert_int_equal(c.len, kithi_backup_size(&h));
    size_t blocks = c.len / KITHI_BACKUP_BLOCK, step = test_long() ? 1 : 1 + blocks / 40;
    unsigned n = 0;
    /* The first and the last byte of blocks: each of header, checkpoint's header, table and log, some of the rest. */
    for (size_t b = 0; b < blocks; b++) {
        uint64_t off = b * KITHI_BACKUP_BLOCK;
        bool always = b < 2 || off + 2 * KITHI_BACKUP_BLOCK >= KITHI_BACKUP_BLOCK + h.checkpoint_bytes;
        if (!(always && n < 60) && b % step != 0)
            continue;
        assert_int_not_equal(refused(&c, c.len, off), KITH_E_TRUNCATED);
        assert_int_not_equal(refused(&c, c.len, off + KITHI_BACKUP_BLOCK - 1), KITH_E_TRUNCATED);
        int rc = refused(&c, off, off);
        assert_true(rc == KITH_E_TRUNCATED || (rc == KITH_E_FORMAT && off == 0));
        n++;
    }
    for (unsigned i = 0; i < (test_long() ? 2000u : 40u); i++) {
        refused(&c, c.len, (size_t)(test_rand_u64(&r) % c.len));
        refused(&c, (size_t)(test_rand_u64(&r) % c.len), c.len);
    }
    c.bytes[c.len] = 0;
    assert_int_equal(refused(&c, c.len + 1, c.len + 1), KITH_E_TRUNCATED); /* one byte too many */
    nothing_is_left(&other, "bad");
    assert_true(test_daemon_alive(&other, NULL));
    free(c.bytes);
}

static void a_later_version_is_told_from_damage(void **state)
{
    (void)state;
    struct kithi_backup_header h;
    struct kith_error error = { 0 };
    struct copy c;
    copy_of(one_with_log(&h), &c);
    c.bytes[8] = 2; /* its version */
    kithi_put32(c.bytes + 4092, kithi_crc32c(0, c.bytes, 4092));
    int fd = open(c.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write(fd, c.bytes, c.len) == (ssize_t)c.len);
    close(fd);
    assert_int_equal(restore(&other, "bad", c.path, NULL, &error), KITH_E_VERSION);
    assert_non_null(strstr(error.text, "version 2"));
    free(c.bytes);
}

/* Somebody who can compute checksums has changed a few bytes of a chunk. */
static void forge(struct copy *c, struct kithi_checkpoint_chunk *chunk)
{
    struct kithi_checkpoint_header h;
    struct kithi_checkpoint_plan plan;
    const uint32_t *sums;
    uint64_t end_epoch;
    unsigned char *base = c->bytes + KITHI_BACKUP_BLOCK;
    assert_int_equal(kithi_checkpoint_header_decode(base, NULL, &h), KITHI_CHECKPOINT_OK);
    assert_true(kithi_checkpoint_plan(&h, &plan));
    unsigned char *table = base + plan.table_off;
    assert_true(kithi_checkpoint_table_decode(table, &h, &plan, &sums, &end_epoch));
    uint32_t *mine = malloc(plan.chunk_count * sizeof *mine);
    assert_non_null(mine);
    memcpy(mine, sums, plan.chunk_count * sizeof *mine);
    uint32_t i = test_rand_below(&r, plan.chunk_count);
    *chunk = kithi_checkpoint_chunk_at(&h, &plan, i);
    for (unsigned n = 1 + test_rand_below(&r, 6); n > 0; n--) {
        uint32_t at = test_rand_below(&r, chunk->len) & ~3u, word = (uint32_t)test_rand_u64(&r);
        word = test_rand_below(&r, 2) ? word : word % (2 * IDS);
        memcpy(base + chunk->file_off + at, &word, sizeof word);
    }
    mine[i] = kithi_crc32c(0, base + chunk->file_off, chunk->size);
    kithi_checkpoint_table_encode(table, &h, &plan, mine, end_epoch);
    free(mine);
}

static void what_checksums_alone_speak_for_hurts_nobody(void **state)
{
    (void)state;
    struct kithi_backup_header h;
    struct kith_error error = { 0 };
    struct copy c;
    unsigned taken = 0, rounds = test_long() ? 3000 : 60;
    copy_of(one_with_log(&h), &c);
    unsigned char *was = malloc(c.len);
    assert_non_null(was);
    memcpy(was, c.bytes, c.len);
    for (unsigned round = 0; round < rounds; round++) {
        struct kithi_checkpoint_chunk chunk;
        forge(&c, &chunk);
        int fd = open(c.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0 && write(fd, c.bytes, c.len) == (ssize_t)c.len);
        close(fd);
        int rc = restore(&other, "forged", c.path, NULL, &error);
        if (rc == 0) { /* other values of vectors, say: an index all the same */
            assert_true(test_verify_path(test_daemon_segment(&other, "forged")));
            drop(&other, "forged");
            taken++;
        } else if (!test_daemon_alive(&other, NULL) || rc == KITH_E_NO_DAEMON ||
                   rc == KITH_E_UNKNOWN_OUTCOME) {
            test_daemon_show_log(&other);
            fail_msg("round %u, bytes of region %u: %s", round, chunk.region, error.text);
        }
        memcpy(c.bytes, was, c.len);
    }
    fprintf(stderr, "%u of %u forgeries are an index\n", taken, rounds);
    nothing_is_left(&other, "forged");
    free(was);
    free(c.bytes);
}

/* ---- death ---- */

#ifdef KITH_FAULT_POINTS
static void wait_for_death(const char *point)
{
    uint64_t end = test_now_ms() + DEATH_MS;
    int status = -1;
    while (test_daemon_alive(&other, &status)) {
        if (test_now_ms() > end) {
            test_daemon_show_log(&other);
            fail_msg("kithd never came to %s", point);
        }
        test_nap();
    }
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_death_at_each_point_of_a_restore_leaves_all_or_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool there; /* after the next start */
    } points[] = { { "crash-in-restore-begun", false },       { "crash-in-restore-receiving", false },
                   { "crash-in-restore-checked", false },     { "crash-in-restore-loaded", false },
                   { "crash-in-restore-run-renamed", false }, { "crash-in-restore-renamed", true },
                   { "crash-in-restore-synced", true },       { "crash-in-switch-linked", true },
                   { "crash-in-switch-renamed", true } };
    struct kithi_backup_header h;
    struct kith_error error = { 0 };
    const char *path = one_with_log(&h);
    for (unsigned i = 0; i < sizeof points / sizeof *points; i++) {
        test_daemon_kill(&other);
        snprintf(other.fault, sizeof other.fault, "%s:1", points[i].name);
        assert_int_equal(test_daemon_start(&other), 0);
        int rc = restore(&other, "mortal", path, NULL, &error);
        if (rc != KITH_E_NO_DAEMON && rc != KITH_E_UNKNOWN_OUTCOME)
            fail_msg("%s: %s: %s", points[i].name, kith_errname(rc), error.text);
        wait_for_death(points[i].name);
        other.fault[0] = '\0';
        assert_int_equal(test_daemon_start(&other), 0);
        assert_int_equal(has_collection(&other, "mortal"), points[i].there);
        if (points[i].there) {
            assert_int_equal(rc, KITH_E_UNKNOWN_OUTCOME);
            compare(&other, "mortal", h.last_epoch);
            assert_int_equal(leftovers(test_path(&other.data, "data"), "mortal"), 1);
            drop(&other, "mortal");
        }
        nothing_is_left(&other, "mortal");
    }
}

#endif

/* ---- what people do ---- */

static int leave_after_some(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    return done > total / 3;
}

static void a_client_that_leaves_leaves_nothing(void **state)
{
    (void)state;
    struct kith_error error = { 0 };
    struct kithi_backup_header h;
    const char *path = one_with_log(&h), *half = in_files("half.bk");
    struct kith_backup_opts opts = KITH_BACKUP_OPTS_INIT;
    opts.progress = leave_after_some;
    opts.error = &error;
    opts.run_dir = run_of(&other);
    int rc = kith_restore("half", path, &opts, NULL);
    assert_int_equal(rc, -ECANCELED);
    nothing_is_left(&other, "half");
    kith *k = attach(&kithd, "docs");
    opts.run_dir = NULL;
    assert_int_equal(kith_backup(k, half, &opts, NULL), -ECANCELED);
    kith_close(k);
    assert_int_not_equal(access(half, F_OK), 0);
    assert_int_not_equal(access(in_files("half.bk.new"), F_OK), 0);
}

static void names_and_files_that_are_taken_are_refused(void **state)
{
    (void)state;
    struct kith_error error = { 0 };
    const char *path = in_files("taken.bk");
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0 && write(fd, "mine", 4) == 4);
    close(fd);
    assert_int_equal(back_up(path, false, NULL, &error), -EEXIST);
    assert_int_equal(restore(&kithd, "docs2", path, NULL, &error), KITH_E_FORMAT);
    must(back_up(path, true, NULL, &error), &error);
    assert_int_equal(restore(&kithd, "docs", path, NULL, &error), KITH_E_EXISTS);
    assert_int_equal(restore(&kithd, "no/name", path, NULL, &error), KITH_E_NAME);
    assert_int_equal(restore(&kithd, "docs2", files.path, NULL, &error), KITH_E_FORMAT);
    assert_int_equal(restore(&kithd, "docs2", "/nowhere/x.bk", NULL, &error), -ENOENT);
    assert_int_equal(back_up("/nowhere/x.bk", false, NULL, &error), -ENOENT);
    assert_int_equal(back_up(files.path, true, NULL, &error), -EEXIST);
    nothing_is_left(&kithd, "docs2");
    /* A checkpoint of a data directory is not a back-up, and is told by name. */
    char name[2 * TEST_PATH_SIZE];
    struct dirent **list = NULL;
    snprintf(name, sizeof name, "%s/docs", test_path(&kithd.data, "data"));
    int n = scandir(name, &list, NULL, alphasort);
    bool seen = false;
    for (int i = 0; i < n; i++) {
        if (strncmp(list[i]->d_name, "checkpoint-", 11) == 0 && !seen) {
            snprintf(name, sizeof name, "%s/docs/%.60s", test_path(&kithd.data, "data"), list[i]->d_name);
            assert_int_equal(restore(&kithd, "docs2", name, NULL, &error), KITH_E_FORMAT);
            assert_non_null(strstr(error.text, "checkpoint of a data directory"));
            seen = true;
        }
        free(list[i]);
    }
    free(list);
    assert_true(seen);
}

static void a_directory_that_cannot_be_written_is_said_and_nothing_else_happens(void **state)
{
    (void)state;
    struct kith_error error = { 0 };
    struct kith_backup_opts opts = KITH_BACKUP_OPTS_INIT;
    char dir[TEST_PATH_SIZE + 16], path[TEST_PATH_SIZE + 32];
    snprintf(dir, sizeof dir, "%s/locked", files.path);
    snprintf(path, sizeof path, "%s/x.bk", dir);
    assert_int_equal(mkdir(dir, 0555), 0);
    opts.error = &error;
    kith *k = attach(&kithd, "docs");
    bool root = geteuid() == 0;
    if (root) {
        assert_int_equal(chmod(files.path, 0755), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    int rc = kith_backup(k, path, &opts, NULL);
    if (root)
        assert_int_equal(seteuid(0), 0);
    kith_close(k);
    assert_int_equal(rc, -EACCES);
    assert_non_null(strstr(error.text, path));
}

static void no_room_is_said_with_where_and_leaves_nothing(void **state)
{
    (void)state;
    struct kith_error error = { 0 };
    struct kithi_backup_header h;
    const char *path = one_with_log(&h);
    struct test_dir small;
    char to[TEST_PATH_SIZE + 16];
#ifdef KITH_FAULT_POINTS
    /* While kithd writes what it is sent. */
    test_daemon_kill(&other);
    snprintf(other.fault, sizeof other.fault, "restore-write-enospc:1");
    assert_int_equal(test_daemon_start(&other), 0);
    assert_int_equal(restore(&other, "tight", path, NULL, &error), -ENOSPC);
    assert_non_null(strstr(error.text, "data directory"));
    nothing_is_left(&other, "tight");
    must(restore(&other, "tight", path, NULL, &error), &error);
    drop(&other, "tight");
    /* While room for it all is asked for: what was had by then is given back before anybody is told. */
    for (unsigned i = 1; i <= 2; i++) {
        test_daemon_kill(&other);
        snprintf(other.fault, sizeof other.fault, "restore-allocate-enospc:%u", i);
        assert_int_equal(test_daemon_start(&other), 0);
        assert_int_equal(restore(&other, "tight", path, NULL, &error), -ENOSPC);
        assert_int_equal(leftovers(test_path(&other.data, "data"), "tight"), 0);
        assert_non_null(strstr(error.text, "data directory"));
        nothing_is_left(&other, "tight");
    }
    other.fault[0] = '\0';
#endif

    test_dir_make(&small);
    if (!test_dir_mount(&small, 256 << 10)) { /* the file's disk */
        test_dir_remove(&small);
        return;
    }
    snprintf(to, sizeof to, "%s/x.bk", small.path);
    assert_int_equal(back_up(to, false, NULL, &error), -ENOSPC);
    assert_int_not_equal(access(to, F_OK), 0);
    snprintf(to, sizeof to, "%s/x.bk.new", small.path);
    assert_int_not_equal(access(to, F_OK), 0);
    test_dir_remove(&small);

    /* The data directory's disk, and the run directory's memory. */
    for (unsigned i = 0; i < 2; i++) {
        struct test_daemon tight;
        struct test_dir *dir;
        test_daemon_init(&tight);
        dir = i == 0 ? &tight.data : &tight.run;
        test_dir_remove(dir);
        assert_true(test_dir_mount(dir, i == 0 ? 256 << 10 : 192 << 10));
        snprintf(tight.log, sizeof tight.log, "%.240s/tight.log", files.path);
        if (i == 1) {
            snprintf(to, sizeof to, "%s/run", tight.run.path);
            mkdir(to, 0750);
            snprintf(tight.sock, sizeof tight.sock, "%.230s/run/kithd.sock", tight.run.path);
        }
        assert_int_equal(test_daemon_start(&tight), 0);
        int rc = restore(&tight, "tight", path, NULL, &error);
        if (rc != (i == 0 ? -ENOSPC : KITH_E_NO_SPACE))
            fail_msg("%u: %s: %s", i, kith_errname(rc), error.text);
        fprintf(stderr, "%s\n", error.text);
        assert_true(test_daemon_alive(&tight, NULL));
        nothing_is_left(&tight, "tight");
        test_daemon_fini(&tight);
    }
}

static void a_damaged_checkpoint_is_not_given_and_another_one_takes_its_place(void **state)
{
    (void)state;
    struct kith_error error = { 0 };
    struct kith_backup_info info = KITH_BACKUP_INFO_INIT;
    const char *path = in_files("mended.bk");
    char name[2 * TEST_PATH_SIZE];
    unsigned char byte;
    kith *k = attach(&kithd, "docs");
    uint64_t epoch = 0;
    must(kith_checkpoint(k, &epoch, &error), &error);
    kith_close(k);
    snprintf(name, sizeof name, "%s/docs/checkpoint-%020" PRIu64, test_path(&kithd.data, "data"), epoch);
    int fd = open(name, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, 8192), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, 8192), 1);
    close(fd);
    assert_int_equal(back_up(path, true, NULL, &error), KITH_E_CORRUPT);
    assert_non_null(strstr(error.text, "another checkpoint takes its place"));
    assert_int_not_equal(access(path, F_OK), 0);
    must(back_up(path, true, &info, &error), &error);
    assert_int_equal(info.epoch, epoch);
    must(restore(&other, "mended", path, NULL, &error), &error);
    compare(&other, "mended", epoch);
    drop(&other, "mended");
}

/* What is to happen to the first group of the log that a back-up has, once it has begun. */
struct rot {
    const char *path; /* of the back-up */
    unsigned way;     /* a bit of the header, of the ops, of the last byte; the block lost */
    bool done;
    char file[2 * TEST_PATH_SIZE];
    struct kithi_wal_group group;
    unsigned char before[KITHI_BACKUP_BLOCK];
    off_t at; /* of `before` */
};

static int note_group(void *arg, const struct kithi_wal_group *g)
{
    struct rot *rot = arg;
    rot->group = *g;
    snprintf(rot->file, sizeof rot->file, "%s/docs/wal/%s", test_path(&kithd.data, "data"), g->file);
    return 1;
}

/* Called by kith_backup(). The groups come after the checkpoint, and few pieces are asked for ahead: the first one is here. */
static int rot_now(void *arg, uint64_t done, uint64_t total)
{
    struct rot *rot = arg;
    struct kithi_backup_header h;
    struct kithi_wal_report report;
    char partial[TEST_PATH_SIZE + 64];
    unsigned char block[KITHI_BACKUP_BLOCK];
    if (done != KITHI_BACKUP_BLOCK)
        return 0;
    snprintf(partial, sizeof partial, "%s.new", rot->path);
    int fd = open(partial, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, block, sizeof block), sizeof block);
    close(fd);
    assert_int_equal(kithi_backup_header_decode(block, total, &h, NULL), 0);
    if (h.log_bytes == 0)
        return 0; /* nothing was written meanwhile */
    char *dir = strdup(test_path(&kithd.data, "data/docs/wal"));
    struct kithi_wal_scan_opts opts = { .dir = dir, .after_epoch = h.epoch, .fn = note_group, .arg = rot };
    struct kithi_errmsg err;
    memcpy(opts.uid, h.uid, sizeof opts.uid);
    assert_int_equal(kithi_wal_scan(&opts, &report, &err), 1);
    assert_int_equal(rot->group.epoch, h.epoch + 1);
    free(dir);
    rot->at = (off_t)(rot->way < 2 ? rot->group.off : rot->group.off + rot->group.size - sizeof block);
    fd = open(rot->file, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, rot->before, sizeof block, rot->at), sizeof block);
    memcpy(block, rot->before, sizeof block);
    switch (rot->way) {
    case 0: block[50] ^= 1; break;
    case 1: block[200] ^= 1; break;
    case 2: block[sizeof block - 1] ^= 1; break;
    default: memset(block, 0, sizeof block);
    }
    assert_int_equal(pwrite(fd, block, sizeof block, rot->at), sizeof block);
    close(fd);
    rot->done = true;
    return 0;
}

static void a_log_that_rots_under_a_back_up_is_not_given(void **state)
{
    (void)state;
    const char *path = in_files("rotten.bk");
    for (unsigned way = 0; way < 4; way++) {
        struct kith_backup_opts opts = KITH_BACKUP_OPTS_INIT;
        struct kith_backup_info info = KITH_BACKUP_INFO_INIT;
        struct kith_error error = { 0 };
        struct rot rot = { .path = path, .way = way };
        uint64_t end = test_now_ms() + FIRE_MS;
        char says[100];
        int rc;
        kith *k = attach(&kithd, "docs");
        opts.replace = 1;
        opts.error = &error;
        opts.progress = rot_now;
        opts.arg = &rot;
        fire();
        do {
            wait_for_commits(3);
            rc = kith_backup(k, path, &opts, NULL);
            assert_true(rot.done || rc == 0);
            assert_true(test_now_ms() < end);
        } while (!rot.done);
        cease();
        kith_close(k);
        if (rc != KITH_E_LOG_DAMAGED)
            fail_msg("way %u: %d %s", way, rc, error.text);
        snprintf(says, sizeof says, "group %" PRIu64 " at byte %" PRIu64, rot.group.epoch, rot.group.off);
        assert_non_null(strstr(error.text, says));
        assert_non_null(strstr(error.text, strrchr(rot.file, '/') + 1));
        assert_non_null(strstr(error.text, "try again"));
        if (way == 1) { /* one that needs groups after it */
            fire();
            do {
                wait_for_commits(3);
                rc = back_up(path, true, &info, &error);
                assert_true(test_now_ms() < end);
            } while (rc == 0);
            cease();
            if (rc != KITH_E_LOG_DAMAGED || !strstr(error.text, "while nobody writes"))
                fail_msg("%d %s", rc, error.text);
        }
        /* As it says. */
        must(back_up(path, true, &info, &error), &error);
        must(restore(&other, "mended", path, NULL, &error), &error);
        compare(&other, "mended", info.epoch);
        drop(&other, "mended");
        /* For what follows, and the next start. */
        int fd = open(rot.file, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, rot.before, sizeof rot.before, rot.at), sizeof rot.before);
        close(fd);
    }
}

/* Whoever could foresee it could have the log refused (WAL.md, "Numbers"), and back-ups are for those who write. */
static void the_number_of_the_logs_file_is_not_in_a_back_up(void **state)
{
    (void)state;
    struct kithi_backup_header h;
    const char *path = one_with_log(&h);
    unsigned char head[KITHI_WAL_GROUP_HEADER];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t off = KITHI_BACKUP_BLOCK + h.checkpoint_bytes;
    for (uint64_t epoch = h.epoch + 1; epoch <= h.last_epoch; epoch++) {
        struct kithi_wal_group_header g;
        assert_int_equal(pread(fd, head, sizeof head, (off_t)off), sizeof head);
        assert_int_equal(kithi_wal_group_header_decode(head, h.uid, 1, &g), KITHI_WAL_OK);
        assert_int_equal(g.epoch, epoch);
        off += kithi_wal_group_size(g.len);
    }
    assert_int_equal(off, kithi_backup_size(&h));
    close(fd);
}

static void the_daemon_stops_cleanly_beside_restores(void **state)
{
    (void)state;
    struct kithi_backup_header h;
    const char *path = one_with_log(&h);
    for (unsigned round = 0; round < (test_long() ? 50 : 6); round++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct kith_error error = { 0 };
            int rc = 0;
            for (unsigned i = 0; rc == 0 && i < 1000; i++) {
                char name[32];
                snprintf(name, sizeof name, "many-%u-%u", round, i);
                rc = restore(&other, name, path, NULL, &error);
                if (rc == 0)
                    rc = kith_drop(name, run_of(&other), &error);
            }
            fprintf(stderr, "%s: %s\n", kith_errname(rc), error.text);
            _exit(rc == KITH_E_SHUTDOWN || rc == KITH_E_NO_DAEMON || rc == KITH_E_UNKNOWN_OUTCOME ? 0 : 1);
        }
        uint64_t end = test_now_ms() + 20 + test_rand_below(&r, 200);
        while (test_now_ms() < end)
            test_nap();
        assert_int_equal(test_daemon_stop(&other), 0);
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_int_equal(test_daemon_start(&other), 0);
    }
}

#ifdef KITH_FAULT_POINTS
/* What is held here would take as long as the collection is large. */
static void sigterm_is_heard_while_a_restore_is_checked(void **state)
{
    (void)state;
    struct kithi_backup_header h;
    const char *path = one_with_log(&h);
    char held[2 * TEST_PATH_SIZE];
    test_daemon_kill(&other);
    snprintf(other.hold, sizeof other.hold, "%s", files.path);
    snprintf(held, sizeof held, "%s/verify-checked", files.path);
    int fd = open(held, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(test_daemon_start(&other), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct kith_error error = { 0 };
        int rc = restore(&other, "checked", path, NULL, &error);
        fprintf(stderr, "%s: %s\n", kith_errname(rc), error.text);
        _exit(rc == KITH_E_SHUTDOWN ? 0 : 1);
    }
    for (uint64_t end = test_now_ms() + FIRE_MS; !test_daemon_logged(&other, "event=replayed name=checked");
         test_nap())
        assert_true(test_now_ms() < end);
    assert_int_equal(test_daemon_stop(&other), 0);
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(unlink(held), 0);
    other.hold[0] = '\0';
    assert_int_equal(test_daemon_start(&other), 0);
    nothing_is_left(&other, "checked");
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_back_up_under_fire_brings_back_the_epoch_that_it_says),
        cmocka_unit_test(what_was_restored_is_durable_and_goes_on),
        cmocka_unit_test(a_ceiling_that_is_kept_is_kept_by_what_was_restored),
        cmocka_unit_test(an_empty_collection_has_a_back_up_as_well),
        cmocka_unit_test(no_damage_goes_unseen),
        cmocka_unit_test(what_checksums_alone_speak_for_hurts_nobody),
        cmocka_unit_test(a_later_version_is_told_from_damage),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(a_death_at_each_point_of_a_restore_leaves_all_or_nothing),
#endif
        cmocka_unit_test(a_client_that_leaves_leaves_nothing),
        cmocka_unit_test(names_and_files_that_are_taken_are_refused),
        cmocka_unit_test(a_directory_that_cannot_be_written_is_said_and_nothing_else_happens),
        cmocka_unit_test(no_room_is_said_with_where_and_leaves_nothing),
        cmocka_unit_test(a_damaged_checkpoint_is_not_given_and_another_one_takes_its_place),
        cmocka_unit_test(a_log_that_rots_under_a_back_up_is_not_given),
        cmocka_unit_test(the_number_of_the_logs_file_is_not_in_a_back_up),
        cmocka_unit_test(the_daemon_stops_cleanly_beside_restores),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(sigterm_is_heard_while_a_restore_is_checked),
#endif
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
