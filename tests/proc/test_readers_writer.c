/*
 * test_readers_writer.c - four reader processes and one writer process at full speed: no reader error, and every search
 * returns only what was visible at its own epoch, checked against a log of commits. States the latency of readers
 * beside what it was before the writer began.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <kith/kith.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/child.h"
#include "tests/support/codes.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/model.h"
#include "tests/support/rand.h"

#define NAME        "crowd"
#define READERS     4u
#define ID_COUNT    6000u
#define DIM         32u
#define BATCH       64u
#define K           10u
#define EF          64u
#define BACKLOG     64u /* results that wait for the log to come up to their epoch */
#define LOG_MS      20000u
#define BUCKETS     32768u
#define BUCKET_NS   1000u
#define CALM_MS     1500u
#define SHORT_MS    6000u
#define LONG_MS     60000u
#define GRACE_MS    60000u
#define PAUSE_EVERY 8u   /* searches of the short form, so that the writer gets somewhere on two processors */
#define EXPECT_HITS 0.99 /* of k hits a search, while nothing is ever deleted without being written again */

enum phase { PHASE_WAIT, PHASE_CALM, PHASE_FIRE, PHASE_END };

struct latency {
    uint64_t count, buckets[BUCKETS]; /* of a microsecond; the last one takes all beyond */
};

struct shared {
    _Atomic uint32_t phase;
    struct test_model *model;
    char run[TEST_PATH_SIZE + 8];
    uint64_t batches, items;
    char writer_text[512];
    struct {
        struct latency calm, fire;
        uint64_t judged, restarts;
        char text[400];
    } readers[READERS];
};

struct role {
    struct shared *s;
    unsigned number;
};

struct result { /* of a search, until the log of commits covers its epoch */
    uint64_t epoch;
    uint32_t n;
    float query[DIM];
    struct test_hit hits[K];
};

static void latency_add(struct latency *l, uint64_t ns)
{
    uint64_t bucket = ns / BUCKET_NS;
    l->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    l->count++;
}

static uint64_t latency_us(const struct latency *l, double share)
{
    uint64_t want = (uint64_t)((double)l->count * share), sum = 0;
    for (uint64_t i = 0; i < BUCKETS; i++) {
        sum += l->buckets[i];
        if (sum > want)
            return i + 1;
    }
    return BUCKETS;
}

static kith *attach(const struct shared *s, char *text, size_t size)
{
    kith *k = NULL;
    struct kith_error error = { 0 };
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = s->run;
    opts.error = &error;
    int rc = kith_open(NAME, &opts, &k);
    if (rc < 0)
        snprintf(text, size, "kith_open: %s: %s", kith_errname(rc), error.text);
    return rc < 0 ? NULL : k;
}

static int writer_role(void *arg)
{
    struct shared *s = ((struct role *)arg)->s;
    struct test_model *m = s->model;
    struct test_rand r;
    struct kith_commit commit = { .struct_size = sizeof commit };
    test_rand_seed(&r, m->seed + 1);
    kith *k = attach(s, s->writer_text, sizeof s->writer_text);
    kith_batch *b = k ? kith_batch_new(k) : NULL;
    int rc = b ? 0 : -1;
    /* Every id once, then changes until the end. */
    for (uint32_t at = 0; rc == 0 && atomic_load(&s->phase) != PHASE_END;) {
        bool loading = at < ID_COUNT;
        if (!loading && atomic_load(&s->phase) != PHASE_FIRE) {
            if (atomic_load(&s->phase) == PHASE_WAIT)
                atomic_store(&s->phase, PHASE_CALM);
            test_nap();
            continue;
        }
        uint32_t n = loading ? BATCH : 1 + test_rand_below(&r, BATCH), ids[BATCH];
        uint64_t versions[BATCH];
        uint32_t start = loading ? at : test_rand_below(&r, ID_COUNT);
        kith_batch_clear(b);
        for (uint32_t i = 0; i < n && rc == 0; i++) {
            float vector[DIM];
            char name[TEST_ID_SIZE];
            ids[i] = (start + i) % ID_COUNT;
            bool gone = !loading && test_rand_below(&r, 8) == 0;
            versions[i] = gone ? 0 : test_model_version_new(m);
            test_model_id_format(ids[i], name);
            test_model_vector(m, ids[i], versions[i], vector);
            rc = gone ? kith_batch_delete(b, name) : kith_batch_upsert(b, name, vector, DIM);
        }
        if (rc == 0)
            rc = kith_batch_commit(b, &commit);
        if (rc) {
            snprintf(s->writer_text, sizeof s->writer_text, "%s: %s", kith_errname(rc), commit.error.text);
            break;
        }
        for (uint32_t i = 0; i < n; i++)
            test_model_note(m, ids[i], commit.epoch, versions[i]);
        test_model_complete(m, commit.epoch);
        at += loading ? n : 0;
        s->batches += !loading;
        s->items += loading ? 0 : n;
    }
    kith_batch_free(b);
    kith_close(k);
    return rc ? 1 : 0;
}

/* Judge what the log covers; wait for it when there are too many. */
static bool judge(struct shared *s, struct result *backlog, uint32_t *count, uint32_t left, char *text,
                  size_t size)
{
    uint64_t end = test_now_ms() + LOG_MS;
    for (;;) {
        uint32_t kept = 0;
        uint64_t complete = atomic_load_explicit(&s->model->complete, memory_order_acquire);
        for (uint32_t i = 0; i < *count; i++) {
            if (backlog[i].epoch > complete)
                backlog[kept++] = backlog[i];
            else if (!test_model_judge(s->model, backlog[i].epoch, backlog[i].query, backlog[i].hits,
                                       backlog[i].n, text, size))
                return false;
        }
        *count = kept;
        if (kept <= left)
            return true;
        if (test_now_ms() > end) {
            snprintf(text, size, "epoch %" PRIu64 " was seen and never acknowledged", backlog[0].epoch);
            return false;
        }
        test_nap();
    }
}

static int reader_role(void *arg)
{
    struct role *role = arg;
    struct shared *s = role->s;
    char *text = s->readers[role->number].text;
    const size_t size = sizeof s->readers[0].text;
    struct test_rand r;
    uint32_t waiting = 0;
    uint64_t hits = 0, searches = 0;
    struct result *backlog = calloc(BACKLOG, sizeof *backlog);
    kith_results *results = kith_results_new();
    test_rand_seed(&r, s->model->seed + 10 + role->number);
    while (atomic_load(&s->phase) == PHASE_WAIT)
        test_nap();
    kith *k = attach(s, text, size);
    bool ok = k && results && backlog;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.ef = EF;
    for (uint32_t phase; ok && (phase = atomic_load(&s->phase)) != PHASE_END;) {
        struct result *mine = &backlog[waiting];
        test_rand_floats(&r, mine->query, DIM);
        uint64_t begun = test_now_ns();
        int n = kith_search(k, mine->query, DIM, K, &opts, results);
        uint64_t took = test_now_ns() - begun;
        latency_add(phase == PHASE_CALM ? &s->readers[role->number].calm : &s->readers[role->number].fire,
                    took);
        if (n < 0) {
            snprintf(text, size, "search: %s: %s", kith_errname(n), kith_strerror(n));
            ok = false;
            break;
        }
        struct kith_search_info info = KITH_SEARCH_INFO_INIT;
        kith_results_info(results, &info);
        mine->epoch = info.epoch;
        mine->n = (uint32_t)n;
        s->readers[role->number].restarts += info.restart_count;
        for (uint32_t i = 0; i < (uint32_t)n; i++) {
            snprintf(mine->hits[i].id, TEST_ID_SIZE, "%s", kith_results_id(results, i));
            mine->hits[i].distance = (double)kith_results_distance(results, i);
        }
        hits += (uint64_t)n;
        searches++;
        if (!test_long() && searches % PAUSE_EVERY == 0)
            test_nap();
        if (++waiting == BACKLOG)
            ok = judge(s, backlog, &waiting, BACKLOG / 2, text, size);
    }
    ok = ok && judge(s, backlog, &waiting, 0, text, size);
    if (ok && (double)hits < EXPECT_HITS * (double)(searches * K)) {
        snprintf(text, size, "%" PRIu64 " searches found only %" PRIu64 " of %" PRIu64 " hits", searches,
                 hits, searches * K);
        ok = false;
    }
    s->readers[role->number].judged = searches;
    kith_results_free(results);
    kith_close(k);
    free(backlog);
    return ok ? 0 : 1;
}

static void wait_for(struct shared *s, uint32_t phase, uint64_t ms)
{
    uint64_t end = test_now_ms() + ms;
    while (atomic_load(&s->phase) < phase) {
        if (test_now_ms() > end || s->writer_text[0])
            fail_msg("the collection is not loaded: %s", s->writer_text);
        test_nap();
    }
}

static void four_readers_and_a_writer_agree_about_every_epoch(void **state)
{
    (void)state;
    struct test_daemon d;
    struct shared *s = test_shared(sizeof *s);
    struct test_child readers[READERS], writer;
    struct latency calm = { 0 }, fire = { 0 };
    uint64_t judged = 0, restarts = 0;
    s->model = test_model_new(test_seed(), ID_COUNT, DIM, false);
    test_daemon_init(&d);
    snprintf(s->run, sizeof s->run, "%s/run", d.run.path);
    struct role role = { .s = s };
    for (unsigned i = 0; i < READERS; i++) {
        role.number = i;
        test_child_start(&readers[i], "reader", reader_role, &role);
    }
    assert_int_equal(test_daemon_start(&d), 0);
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.quantization = test_quantization();
    create.keep = test_keep();
    create.ef_construction = 60;
    create.run_dir = s->run;
    assert_int_equal(kith_create(NAME, &create), 0);
    test_child_start(&writer, "writer", writer_role, &role);

    wait_for(s, PHASE_CALM, GRACE_MS);
    for (uint64_t end = test_now_ms() + CALM_MS; test_now_ms() < end;)
        test_nap();
    atomic_store(&s->phase, PHASE_FIRE);
    for (uint64_t end = test_now_ms() + (test_long() ? LONG_MS : SHORT_MS); test_now_ms() < end;)
        test_nap();
    atomic_store(&s->phase, PHASE_END);

    bool ok = test_child_wait(&writer, GRACE_MS) == 0;
    if (!ok)
        fprintf(stderr, "writer: %s\n", s->writer_text);
    for (unsigned i = 0; i < READERS; i++) {
        if (test_child_wait(&readers[i], GRACE_MS) != 0) {
            fprintf(stderr, "reader %u: %s\n", i, s->readers[i].text);
            ok = false;
        }
        for (uint32_t j = 0; j < BUCKETS; j++) {
            calm.buckets[j] += s->readers[i].calm.buckets[j];
            fire.buckets[j] += s->readers[i].fire.buckets[j];
        }
        calm.count += s->readers[i].calm.count;
        fire.count += s->readers[i].fire.count;
        judged += s->readers[i].judged;
        restarts += s->readers[i].restarts;
    }
    fprintf(stderr,
            "%" PRIu64 " batches with %" PRIu64 " writes, %" PRIu64 " searches judged, %" PRIu64
            " begun again\n"
            "readers undisturbed: p50 %" PRIu64 " us, p99 %" PRIu64 " us; beside the writer: p50 %" PRIu64
            " us, p99 %" PRIu64 " us\n",
            s->batches, s->items, judged, restarts, latency_us(&calm, 0.5), latency_us(&calm, 0.99),
            latency_us(&fire, 0.5), latency_us(&fire, 0.99));
    ok &= test_verify_path(test_daemon_segment(&d, NAME));
    if (!ok)
        test_daemon_show_log(&d);
    assert_true(ok);
    assert_true(s->batches > 0 && calm.count > 0 && fire.count > 0);
    assert_int_equal(test_daemon_stop(&d), 0);
    test_daemon_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(four_readers_and_a_writer_agree_about_every_epoch) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
