/*
 * test_payloads.c - payloads among real processes: whoever reads at an epoch sees the payload of that epoch, beside a writer that changes payloads
 * alone as fast as it can; merges of many are all there; and what was acknowledged outlives kithd.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <kith/kith.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/child.h"
#include "tests/support/daemon.h"
#include "tests/support/rand.h"

#define DIM     4u
#define IDS     24u
#define WRITES  4000u /* at most */
#define READERS 3u
#define MERGERS 4u
#define MERGES  40u

static struct test_daemon d;

/* Of each epoch who was changed, and to what: written before it is asked for, since a reader may see it before the writer hears of it. */
struct log {
    _Atomic uint64_t stamp[IDS][WRITES]; /* of the n-th change of an id: its epoch, once it is known */
    _Atomic uint32_t changes[IDS];
    _Atomic uint64_t reads, checked;
    _Atomic bool over;
};
static struct log *shared;

static kith *attach_to(const char *name)
{
    struct kith_open_opts o = KITH_OPEN_OPTS_INIT;
    struct kith_error e = { 0 };
    char run[TEST_PATH_SIZE + 8];
    kith *k = NULL;
    snprintf(run, sizeof run, "%s/run", d.run.path);
    o.run_dir = run;
    o.attach_wait_ms = 10000;
    o.error = &e;
    if (kith_open(name, &o, &k) < 0)
        test_die("%s", e.text);
    return k;
}

static kith *attach(void)
{
    return attach_to("c");
}

static void vector_of(uint32_t id, float *v)
{
    for (uint32_t i = 0; i < DIM; i++)
        v[i] = (float)((id * 7 + i * 3) % 11);
}

/* The n-th payload of an id; lengths go through several classes of blobs. */
static void payload_of(uint32_t id, uint32_t n, char *out, size_t size)
{
    static const int lens[] = { 1, 60, 200, 700, 3000, 9000 };
    snprintf(out, size, "{\"fill\":\"%0*u\",\"id\":%u,\"n\":%u}", lens[(id + n) % 6], n, id, n);
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int writer(void *arg)
{
    const uint64_t ms = *(const uint64_t *)arg, end = now_ms() + ms;
    kith *k = attach();
    struct test_rand r;
    static char text[16384];
    test_rand_seed(&r, 11);
    kith_set_durability(k, KITH_DURABILITY_APPLIED);
    while (now_ms() < end) {
        uint32_t id = test_rand_below(&r, IDS);
        uint32_t n = atomic_load(&shared->changes[id]);
        char name[16];
        uint64_t epoch;
        if (n + 1 >= WRITES)
            break;
        snprintf(name, sizeof name, "id-%u", id);
        payload_of(id, n, text, sizeof text);
        float v[DIM];
        vector_of(id, v);
        /* One in twenty comes with its vector, or keeps what there is. */
        uint32_t what = test_rand_below(&r, 40);
        int rc = what == 0   ? kith_upsert_payload(k, name, v, DIM, text, &epoch)
                 : what == 1 ? kith_upsert(k, name, v, DIM, &epoch)
                             : kith_set_payload(k, name, KITH_PAYLOAD_REPLACE, text, &epoch);
        if (rc < 0)
            test_die("%s: %s", name, kith_strerror(rc));
        if (what == 1)
            continue;
        atomic_store(&shared->stamp[id][n], epoch);
        atomic_store(&shared->changes[id], n + 1);
    }
    kith_close(k);
    atomic_store(&shared->over, true);
    return 0;
}

/* What was read of id at an epoch: the version that was newest then. */
static void check(uint32_t id, uint64_t epoch, const char *text)
{
    static char want[16384];
    unsigned n = 0;
    const char *at = text ? strstr(text, "\"n\":") : NULL;
    if (!at || sscanf(at, "\"n\":%u", &n) != 1 || n >= WRITES)
        test_die("id %u at epoch %llu: %s", id, (unsigned long long)epoch, text ? text : "no payload");
    payload_of(id, n, want, sizeof want);
    if (strcmp(text, want) != 0)
        test_die("id %u at epoch %llu: not one version: %.200s", id, (unsigned long long)epoch, text);
    /* The next one came later. It may be answered only a moment after it is visible. */
    uint64_t own = atomic_load(&shared->stamp[id][n]), next = atomic_load(&shared->stamp[id][n + 1]);
    if (own && own > epoch)
        test_die("id %u at epoch %llu: version %u is of epoch %llu", id, (unsigned long long)epoch, n,
                 (unsigned long long)own);
    if (next && next <= epoch)
        test_die("id %u at epoch %llu: version %u, though %u is of epoch %llu", id, (unsigned long long)epoch,
                 n, n + 1, (unsigned long long)next);
    atomic_fetch_add(&shared->checked, own != 0);
}

static int reader(void *arg)
{
    struct test_rand r;
    kith *k = attach();
    kith_results *out = kith_results_new();
    struct kith_search_opts search = KITH_SEARCH_OPTS_INIT;
    struct kith_scroll_opts scroll = KITH_SCROLL_OPTS_INIT;
    struct kith_fetch_opts fetch = KITH_FETCH_OPTS_INIT;
    struct kith_search_info info = KITH_SEARCH_INFO_INIT;
    test_rand_seed(&r, *(const unsigned *)arg + 100);
    search.payloads = scroll.payloads = fetch.payloads = 1;
    while (!atomic_load(&shared->over)) {
        char name[16];
        float v[DIM];
        uint32_t id = test_rand_below(&r, IDS), what = test_rand_below(&r, 10);
        snprintf(name, sizeof name, "id-%u", id);
        vector_of(id, v);
        search.exact = what == 1;
        int rc = what < 4   ? kith_search(k, v, DIM, 5, &search, out)
                 : what < 5 ? kith_scroll(k, NULL, &scroll, out)
                            : kith_fetch(k, name, &fetch, out);
        if (rc < 0 && rc != KITH_E_STALE)
            test_die("a reader: %s", kith_strerror(rc));
        if (rc < 0)
            continue;
        kith_results_info(out, &info);
        for (uint32_t i = 0; i < kith_results_count(out); i++)
            check((uint32_t)atoi(kith_results_id(out, i) + 3), info.epoch, kith_results_payload(out, i));
        atomic_fetch_add(&shared->reads, 1);
    }
    kith_results_free(out);
    kith_close(k);
    return 0;
}

static void every_reader_sees_the_payload_of_its_epoch(void **state)
{
    (void)state;
    struct test_child w, readers[READERS];
    unsigned numbers[READERS];
    uint64_t ms = test_long() ? 60000 : 3000;
    memset(shared, 0, sizeof *shared);
    kith *k = attach();
    for (uint32_t id = 0; id < IDS; id++) {
        char name[16], text[16384];
        float v[DIM];
        uint64_t epoch;
        snprintf(name, sizeof name, "id-%u", id);
        vector_of(id, v);
        payload_of(id, 0, text, sizeof text);
        assert_int_equal(kith_upsert_payload(k, name, v, DIM, text, &epoch), 0);
        atomic_store(&shared->stamp[id][0], epoch);
        atomic_store(&shared->changes[id], 1);
    }
    kith_close(k);
    test_child_start(&w, "writer", writer, &ms);
    for (unsigned i = 0; i < READERS; i++) {
        numbers[i] = i;
        test_child_start(&readers[i], "reader", reader, &numbers[i]);
    }
    assert_int_equal(test_child_wait(&w, ms + 60000), 0);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(test_child_wait(&readers[i], 60000), 0);
    print_message("%llu answers, %llu payloads compared with the log\n",
                  (unsigned long long)atomic_load(&shared->reads),
                  (unsigned long long)atomic_load(&shared->checked));
    assert_true(atomic_load(&shared->reads) > 0 && atomic_load(&shared->checked) > 0);
}

/* What the writer was told is there, whatever was done to kithd, and what it had on the way is whole. */
static void expect_last(void)
{
    kith *k = attach();
    kith_results *out = kith_results_new();
    struct kith_fetch_opts fetch = KITH_FETCH_OPTS_INIT;
    fetch.payloads = 1;
    for (uint32_t id = 0; id < IDS; id++) {
        char name[16], want[16384];
        snprintf(name, sizeof name, "id-%u", id);
        assert_int_equal(kith_fetch(k, name, &fetch, out), 0);
        payload_of(id, atomic_load(&shared->changes[id]) - 1, want, sizeof want);
        assert_string_equal(kith_results_payload(out, 0), want);
    }
    kith_results_free(out);
    kith_close(k);
}

static void payloads_outlive_kithd(void **state)
{
    (void)state;
    kith *k = attach();
    uint64_t epoch;
    assert_int_equal(kith_flush(k, NULL), 0);
    kith_close(k);
    expect_last();
    test_daemon_kill(&d); /* a warm start */
    assert_int_equal(test_daemon_start(&d), 0);
    expect_last();
    k = attach();
    assert_int_equal(kith_checkpoint(k, &epoch, NULL), 0);
    assert_int_equal(kith_set_payload(k, "id-3", KITH_PAYLOAD_MERGE, "{\"n\":77777}", &epoch), 0);
    kith_close(k);
    assert_int_equal(test_daemon_stop(&d), 0); /* a cold one: the checkpoint, and the log after it */
    char path[2 * TEST_PATH_SIZE];
    snprintf(path, sizeof path, "%s", test_daemon_segment(&d, "c"));
    assert_int_equal(remove(path), 0);
    assert_int_equal(test_daemon_start(&d), 0);
    k = attach();
    kith_results *out = kith_results_new();
    struct kith_fetch_opts fetch = KITH_FETCH_OPTS_INIT;
    fetch.payloads = 1;
    assert_int_equal(kith_fetch(k, "id-3", &fetch, out), 0);
    assert_non_null(strstr(kith_results_payload(out, 0), "\"n\":77777"));
    char text[16384];
    payload_of(3, atomic_load(&shared->changes[3]) - 1, text, sizeof text);
    assert_int_equal(kith_set_payload(k, "id-3", KITH_PAYLOAD_REPLACE, text, NULL), 0);
    kith_results_free(out);
    kith_close(k);
    expect_last();
    k = attach();
    struct kith_alter_info info = KITH_ALTER_INFO_INIT;
    assert_int_equal(kith_optimize(k, &info, NULL), 0);
    kith_close(k);
    expect_last();
}

static int merger(void *arg)
{
    unsigned number = *(const unsigned *)arg;
    kith *k = attach();
    for (unsigned i = 0; i < MERGES; i++) {
        char text[80];
        snprintf(text, sizeof text, "{\"by\":{\"m%u-%u\":%u},\"last\":%u}", number, i, i, number);
        int rc = kith_set_payload(k, "merged", KITH_PAYLOAD_MERGE, text, NULL);
        if (rc < 0)
            test_die("merge: %s", kith_strerror(rc));
    }
    kith_close(k);
    return 0;
}

static void merges_of_many_are_all_there(void **state)
{
    (void)state;
    struct test_child c[MERGERS];
    unsigned numbers[MERGERS];
    float v[DIM] = { 1 };
    kith *k = attach();
    assert_int_equal(kith_upsert(k, "merged", v, DIM, NULL), 0);
    for (unsigned i = 0; i < MERGERS; i++) {
        numbers[i] = i;
        test_child_start(&c[i], "merger", merger, &numbers[i]);
    }
    for (unsigned i = 0; i < MERGERS; i++)
        assert_int_equal(test_child_wait(&c[i], 120000), 0);
    kith_results *out = kith_results_new();
    struct kith_fetch_opts fetch = KITH_FETCH_OPTS_INIT;
    fetch.payloads = 1;
    assert_int_equal(kith_fetch(k, "merged", &fetch, out), 0);
    for (unsigned n = 0; n < MERGERS; n++)
        for (unsigned i = 0; i < MERGES; i++) {
            char want[40];
            snprintf(want, sizeof want, "\"m%u-%u\":%u", n, i, i);
            if (!strstr(kith_results_payload(out, 0), want))
                fail_msg("%s is lost", want);
        }
    kith_results_free(out);
    kith_close(k);
}

/* All of them go, of a payload that is about as large as may be; a longer list is refused before anybody is asked. */
static void a_change_removes_64_fields_at_most(void **state)
{
    (void)state;
    static char text[65536], list[1024];
    float v[DIM] = { 3 };
    size_t len = 0;
    struct kith_error e = { 0 };
    kith *k = attach();
    for (unsigned i = 0; i < 4000; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%c\"k%u\":%u", i ? ',' : '{', i, i);
    strcpy(text + len, "}");
    assert_int_equal(kith_upsert_payload(k, "wide", v, DIM, text, NULL), 0);
    len = 0;
    for (unsigned i = 0; i < 65; i++)
        len += (size_t)snprintf(list + len, sizeof list - len, "%s\"k%u\"", i ? "," : "[", 61 * i);
    strcpy(list + len, "]");
    assert_int_equal(kith_payload_check(KITH_PAYLOAD_REMOVE, list, &e), KITH_E_PAYLOAD);
    assert_non_null(strstr(e.text, "more than 64 fields"));
    assert_int_equal(kith_set_payload(k, "wide", KITH_PAYLOAD_REMOVE, list, NULL), KITH_E_PAYLOAD);
    strcpy(strrchr(list, ','), "]");
    assert_int_equal(kith_set_payload(k, "wide", KITH_PAYLOAD_REMOVE, list, NULL), 0);
    kith_results *out = kith_results_new();
    struct kith_fetch_opts fetch = KITH_FETCH_OPTS_INIT;
    fetch.payloads = 1;
    assert_int_equal(kith_fetch(k, "wide", &fetch, out), 0);
    for (unsigned i = 0; i < 4000; i++) {
        char want[32];
        snprintf(want, sizeof want, "\"k%u\":%u", i, i);
        assert_int_equal(!strstr(kith_results_payload(out, 0), want), i % 61 == 0 && i / 61 < 64);
    }
    /* What has no payload has none then, not {}. */
    assert_int_equal(kith_set_payload(k, "wide", KITH_PAYLOAD_REPLACE, NULL, NULL), 0);
    assert_int_equal(kith_set_payload(k, "wide", KITH_PAYLOAD_REMOVE, list, NULL), 0);
    assert_int_equal(kith_fetch(k, "wide", &fetch, out), 0);
    assert_null(kith_results_payload(out, 0));
    assert_int_equal(kith_delete(k, "wide", NULL), 0);
    kith_results_free(out);
    kith_close(k);
}

#define EXPORTED   6000u
#define EXPORT_DIM 256u /* so that lines take longer than a version that was replaced is there */
#define CHANGES    40000u

static struct {
    struct {
        uint32_t id;
        uint64_t epoch;
    } change[CHANGES]; /* the n-th says n */
    _Atomic uint32_t count;
    _Atomic bool over;
} * changed;

/* Four payloads every 20 ms; they are larger than any before, so that they lie in memory that is new. */
static int changer(void *arg)
{
    (void)arg;
    kith *k = attach_to("exported");
    kith_batch *b = kith_batch_new(k);
    struct test_rand r;
    static char text[4000];
    test_rand_seed(&r, 12);
    kith_set_durability(k, KITH_DURABILITY_APPLIED);
    for (uint32_t n = 0; n + 4 <= CHANGES && !atomic_load(&changed->over); n += 4) {
        struct kith_commit commit = KITH_COMMIT_INIT;
        kith_batch_clear(b);
        for (uint32_t i = n; i < n + 4; i++) {
            char id[16];
            changed->change[i].id = test_rand_below(&r, EXPORTED);
            snprintf(id, sizeof id, "%u", changed->change[i].id);
            snprintf(text, sizeof text, "{\"fill\":\"%0*u\",\"n\":%u}", 500 * (1 + (int)(i % 7)), i, i);
            if (kith_batch_set_payload(b, id, KITH_PAYLOAD_REPLACE, text) < 0)
                test_die("no change");
        }
        if (kith_batch_commit(b, &commit) < 0)
            test_die("%s", commit.error.text);
        for (uint32_t i = n; i < n + 4; i++)
            changed->change[i].epoch = commit.epoch;
        atomic_store(&changed->count, n + 4);
        nanosleep(&(struct timespec){ .tv_nsec = 20 * 1000000 }, NULL);
    }
    kith_batch_free(b);
    kith_close(k);
    return 0;
}

/* What each line says is the last change of its id up to the epoch; those that said nothing were never changed. */
static void check_export(FILE *f, uint64_t epoch)
{
    static char line[1u << 16];
    static int32_t want[EXPORTED];
    uint32_t lines = 0, count = atomic_load(&changed->count);
    for (uint32_t id = 0; id < EXPORTED; id++)
        want[id] = -1;
    for (uint32_t n = 0; n < count; n++)
        if (changed->change[n].epoch <= epoch)
            want[changed->change[n].id] = (int32_t)n;
    for (; fgets(line, sizeof line, f); lines++) {
        unsigned id;
        int32_t n = -1;
        const char *at = strstr(line, "\"n\":");
        assert_int_equal(sscanf(line, "{\"id\":\"%u\"", &id), 1);
        assert_true(id < EXPORTED && at && sscanf(at, "\"n\":%d", &n) == 1);
        if (n != want[id])
            fail_msg("id %u at epoch %llu: change %d, not %d", id, (unsigned long long)epoch, n, want[id]);
    }
    assert_int_equal(lines, EXPORTED);
}

static void an_export_beside_changes_ends_and_is_of_one_epoch(void **state)
{
    (void)state;
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    char run[TEST_PATH_SIZE + 8], line[4 * TEST_PATH_SIZE], answer[1024], path[TEST_PATH_SIZE + 16];
    snprintf(run, sizeof run, "%s/run", d.run.path);
    snprintf(path, sizeof path, "%s/x.jsonl", d.data.path);
    create.dim = EXPORT_DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = run;
    create.m = 4;
    create.ef_construction = 16;
    assert_int_equal(kith_create("exported", &create), 0);
    kith *k = attach_to("exported");
    kith_batch *b = kith_batch_new(k);
    kith_set_durability(k, KITH_DURABILITY_APPLIED);
    for (uint32_t id = 0; id < EXPORTED; id++) {
        char name[16];
        float v[EXPORT_DIM];
        for (uint32_t i = 0; i < EXPORT_DIM; i++)
            v[i] = (float)((id * 7 + i * 31) % 1009) / 997.0f;
        snprintf(name, sizeof name, "%u", id);
        assert_int_equal(kith_batch_upsert_payload(b, name, v, EXPORT_DIM, "{\"n\":-1}"), 0);
        if (id % 1000 == 999) {
            assert_int_equal(kith_batch_commit(b, NULL), 0);
            kith_batch_clear(b);
        }
    }
    changed = test_shared(sizeof *changed);
    struct test_child c;
    test_child_start(&c, "changer", changer, NULL);
    while (!atomic_load(&changed->count))
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    snprintf(line, sizeof line, "timeout -s KILL 120 '%s' --json --run '%s' export exported '%s' 2>&1",
             getenv("KITH_TEST_KITH"), run, path);
    for (unsigned i = 0; i < 2; i++) {
        FILE *p = popen(line, "r");
        assert_non_null(p);
        answer[fread(answer, 1, sizeof answer - 1, p)] = '\0';
        if (pclose(p) != 0)
            fail_msg("%s", answer);
        const char *at = strstr(answer, "\"epoch\":");
        uint64_t epoch = at ? strtoull(at + 8, NULL, 10) : 0;
        assert_true(epoch > 0);
        FILE *f = fopen(path, "re");
        assert_non_null(f);
        check_export(f, epoch);
        fclose(f);
    }
    atomic_store(&changed->over, true);
    assert_int_equal(test_child_wait(&c, 30000), 0);
    kith_batch_free(b);
    kith_close(k);
    assert_int_equal(kith_drop("exported", run, NULL), 0);
}

/* In one batch: each change stands on those before it, and says whether it found its id. */
static void a_batch_is_one_story(void **state)
{
    (void)state;
    float v[DIM] = { 2 };
    kith *k = attach();
    kith_batch *b = kith_batch_new(k);
    struct kith_commit commit = KITH_COMMIT_INIT;
    assert_int_equal(kith_batch_upsert_payload(b, "s", v, DIM, "{\"a\":1,\"b\":{\"c\":2,\"d\":3}}"), 0);
    assert_int_equal(kith_batch_set_payload(b, "s", KITH_PAYLOAD_MERGE, "{\"b\":{\"c\":null},\"e\":\"x\"}"),
                     0);
    assert_int_equal(kith_batch_set_payload(b, "nobody", KITH_PAYLOAD_MERGE, "{\"a\":1}"), 0);
    assert_int_equal(kith_batch_upsert(b, "s", v, DIM), 0);
    assert_int_equal(kith_batch_set_payload(b, "s", KITH_PAYLOAD_REMOVE, "[\"a\",\"b.d\"]"), 0);
    assert_int_equal(kith_batch_delete(b, "gone"), 0);
    assert_int_equal(kith_batch_set_payload(b, "s", KITH_PAYLOAD_MERGE, "{"), KITH_E_PAYLOAD);
    assert_int_equal(kith_batch_count(b), 6);
    assert_int_equal(kith_batch_commit(b, &commit), 0);
    assert_int_equal(commit.found, 2);
    const int found[] = { 1, 1, 0, 1, 1, 0 };
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(kith_batch_found(b, i), found[i]);
    kith_results *out = kith_results_new();
    struct kith_fetch_opts fetch = KITH_FETCH_OPTS_INIT;
    fetch.payloads = 1;
    assert_int_equal(kith_fetch(k, "s", &fetch, out), 0);
    assert_string_equal(kith_results_payload(out, 0), "{\"b\":{},\"e\":\"x\"}");
    assert_int_equal(kith_set_payload(k, "nobody", KITH_PAYLOAD_REPLACE, "{}", NULL), KITH_E_NOT_FOUND);
    assert_int_equal(kith_delete(k, "s", NULL), 0);
    assert_int_equal(kith_upsert(k, "s", v, DIM, NULL), 0);
    assert_int_equal(kith_fetch(k, "s", &fetch, out), 0);
    assert_null(kith_results_payload(out, 0));
    kith_results_free(out);
    kith_batch_free(b);
    kith_close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reader_sees_the_payload_of_its_epoch),
        cmocka_unit_test(payloads_outlive_kithd),
        cmocka_unit_test(merges_of_many_are_all_there),
        cmocka_unit_test(a_change_removes_64_fields_at_most),
        cmocka_unit_test(a_batch_is_one_story),
        cmocka_unit_test(an_export_beside_changes_ends_and_is_of_one_epoch),
    };
    shared = test_shared(sizeof *shared);
    test_daemon_init(&d);
    if (test_daemon_start(&d) < 0)
        return 1;
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    char run[TEST_PATH_SIZE + 8];
    snprintf(run, sizeof run, "%s/run", d.run.path);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.run_dir = run;
    if (kith_create("c", &create) < 0)
        test_die("no collection");
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    test_daemon_fini(&d);
    return rc;
}
