/*
 * test_versions.c - versions of ids as four reader processes see them: of every id exactly one, while a writer replaces
 * them at full speed; one id that is rewritten again and again is found all the time; and what deletions leave is as good as new.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <kith/kith.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/id.h"
#include "shm/graph/view.h"
#include "shm/map/map.h"
#include "tests/support/child.h"
#include "tests/support/codes.h"
#include "tests/support/daemon.h"
#include "tests/support/index.h"
#include "tests/support/rand.h"

#define NAME       "versions"
#define READERS    4u
#define DIM        16u
#define IDS        240u /* a multiple of 2: ids 2i and 2i + 1 are always written together */
#define SMALL_MS   6000u
#define SMALL_LONG 60000u
#define CROWD      4000u
#define HOT        "hot"
#define HOT_NEAR   4u /* of so many that are read, the rewritten one is the first */
#define HOT_WRITES 2000u
#define HOT_LONG   100000u
#define HOT_SPAN   16u   /* of its batches: so many versions become visible at a time, one by one */
#define CALM       1500u /* searches of a reader before the first write */
#define EQUAL      3000u
#define BUCKETS    65536u
#define GRACE_MS   120000u

enum phase { PHASE_WAIT, PHASE_CALM, PHASE_FIRE, PHASE_END };

struct shared {
    _Atomic uint32_t phase;
    _Atomic uint32_t calm; /* readers that have measured */
    char run[TEST_PATH_SIZE + 8];
    char writer_text[512];
    uint64_t written;
    struct {
        char text[400];
        uint64_t searches, gets, pages, again, stale, missed;
        uint64_t calm[BUCKETS], fire[BUCKETS]; /* searches by microseconds */
    } readers[READERS];
};

struct role {
    struct shared *s;
    unsigned number;
};

struct stage {
    struct test_daemon d;
    struct shared *s;
    struct test_child readers[READERS], writer;
    kith *k;
    kith_results *r;
};

static bool complain(char *text, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool complain(char *text, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, size, fmt, ap);
    va_end(ap);
    return false;
}

static kith *attach(const struct shared *s)
{
    kith *k = NULL;
    struct kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    opts.run_dir = s->run;
    return kith_open(NAME, &opts, &k) < 0 ? NULL : k;
}

static void begin(struct stage *t)
{
    struct kith_create_opts create = KITH_CREATE_OPTS_INIT;
    struct kith_error error = { 0 };
    memset(t, 0, sizeof *t);
    t->s = test_shared(sizeof *t->s);
    test_daemon_init(&t->d);
    snprintf(t->s->run, sizeof t->s->run, "%s/run", t->d.run.path);
    create.dim = DIM;
    create.metric = KITH_METRIC_L2;
    create.quantization = test_quantization();
    create.keep = test_keep();
    create.ef_construction = 60;
    create.run_dir = t->s->run;
    create.error = &error;
    assert_int_equal(test_daemon_start(&t->d), 0);
    if (kith_create(NAME, &create) < 0)
        fail_msg("%s", error.text);
    t->r = kith_results_new();
    assert_non_null(t->r);
}

static void start(struct stage *t, test_role_fn *reader, test_role_fn *writer)
{
    struct role role = { .s = t->s };
    for (unsigned i = 0; i < READERS; i++) {
        role.number = i;
        test_child_start(&t->readers[i], "reader", reader, &role);
    }
    if (writer)
        test_child_start(&t->writer, "writer", writer, &role);
}

/* Wait for everybody. False after their messages. */
static bool ended(struct stage *t)
{
    bool ok = !t->writer.pid || test_child_wait(&t->writer, GRACE_MS) == 0;
    if (!ok)
        fprintf(stderr, "writer: %s\n", t->s->writer_text);
    for (unsigned i = 0; i < READERS; i++) {
        if (test_child_wait(&t->readers[i], GRACE_MS) != 0) {
            fprintf(stderr, "reader %u: %s\n", i, t->s->readers[i].text);
            ok = false;
        }
    }
    return ok;
}

static void end(struct stage *t, bool ok)
{
    kith_results_free(t->r);
    kith_close(t->k);
    if (ok)
        ok = test_verify_path(test_daemon_segment(&t->d, NAME));
    if (!ok)
        test_daemon_show_log(&t->d);
    assert_true(ok);
    assert_int_equal(test_daemon_stop(&t->d), 0);
    test_daemon_fini(&t->d);
}

static void wait_ms(uint64_t ms)
{
    for (uint64_t until = test_now_ms() + ms; test_now_ms() < until;)
        test_nap();
}

/* ---- every id in exactly one version ---- */

/* The vector says what it is: 0 is the id, 1 the version, the others follow from both. */
static void vector_of(uint32_t id, uint32_t version, float *out)
{
    struct test_rand r;
    test_rand_seed(&r, (uint64_t)version << 32 | (id + 1));
    test_rand_floats(&r, out, DIM);
    out[0] = (float)id;
    out[1] = (float)version;
}

/* Is v a vector of id, whole? Its version in *out_version. */
static bool is_whole(uint32_t id, const float *v, uint32_t *out_version)
{
    float want[DIM];
    *out_version = (uint32_t)v[1];
    if (v[0] != (float)id || v[1] != (float)*out_version)
        return false;
    vector_of(id, *out_version, want);
    return memcmp(want, v, sizeof want) == 0;
}

static int small_writer(void *arg)
{
    struct shared *s = ((struct role *)arg)->s;
    struct test_rand r;
    struct kith_commit commit = { .struct_size = sizeof commit };
    kith *k = attach(s);
    kith_batch *b = k ? kith_batch_new(k) : NULL;
    kith_pipe *p = NULL;
    int rc = b ? kith_pipe_open(k, 8, &p) : -1;
    test_rand_seed(&r, test_seed() + 1);
    uint64_t n = 0;
    /* All of them once, in one batch; then pairs, as fast as they go. */
    for (uint32_t version = 1; rc >= 0 && atomic_load(&s->phase) != PHASE_END; version++) {
        uint32_t pairs = version == 1 ? IDS / 2 : 1 + test_rand_below(&r, 8);
        uint32_t at = version == 1 ? 0 : test_rand_below(&r, IDS / 2);
        kith_batch_clear(b);
        for (uint32_t i = 0; i < 2 * pairs && rc >= 0; i++) {
            float v[DIM];
            char name[16];
            uint32_t id = (2 * at + i) % IDS;
            snprintf(name, sizeof name, "%u", id);
            vector_of(id, version, v);
            rc = kith_batch_upsert(b, name, v, DIM);
        }
        int status = 0;
        while (rc >= 0 && (rc = kith_pipe_submit(p, b, version)) == -EAGAIN)
            if ((rc = kith_pipe_next(p, -1, NULL, &status, &commit)) == 1 && status < 0)
                rc = status;
        n += 2 * pairs;
        if (version == 1 && rc >= 0) {
            rc = kith_pipe_next(p, -1, NULL, &status, &commit) == 1 ? status : -1;
            atomic_store(&s->phase, PHASE_FIRE);
        }
    }
    while (rc >= 0 && kith_pipe_pending(p)) {
        int status = 0;
        rc = kith_pipe_next(p, -1, NULL, &status, &commit) == 1 ? status : -1;
    }
    if (rc < 0)
        snprintf(s->writer_text, sizeof s->writer_text, "%s: %s", kith_errname(rc), commit.error.text);
    s->written = n;
    kith_pipe_close(p);
    kith_batch_free(b);
    kith_close(k);
    return rc < 0;
}

/* Ids of hits, each once. */
static bool each_once(const kith_results *r, char *text, size_t size, const char *what)
{
    uint8_t seen[IDS] = { 0 };
    for (uint32_t i = 0; i < kith_results_count(r); i++) {
        unsigned long id = strtoul(kith_results_id(r, i), NULL, 10);
        if (id >= IDS || seen[id]++)
            return complain(text, size, "%s: id %s is there twice", what, kith_results_id(r, i));
    }
    return true;
}

/* Pages of a snapshot: each id once, each vector whole, ids that are written together of one version. */
static bool scroll_whole(kith *k, kith_results *r, const struct kith_snapshot *at, uint32_t limit, char *text,
                         size_t size, uint64_t *pages, bool *out_stale)
{
    uint32_t versions[IDS] = { 0 }, count = 0;
    char cursor[64] = "";
    struct kith_scroll_opts opts = KITH_SCROLL_OPTS_INIT;
    opts.limit = limit;
    opts.vectors = 1;
    opts.at = *at;
    *out_stale = false;
    do {
        int n = kith_scroll(k, cursor[0] ? cursor : NULL, &opts, r);
        if (n == KITH_E_STALE) {
            *out_stale = true;
            return true;
        }
        if (n < 0)
            return complain(text, size, "scroll: %s", kith_strerror(n));
        ++*pages;
        for (uint32_t i = 0; i < (uint32_t)n; i++, count++) {
            uint32_t id = (uint32_t)strtoul(kith_results_id(r, i), NULL, 10), version;
            if (id >= IDS || versions[id])
                return complain(text, size, "scroll: id %s came twice", kith_results_id(r, i));
            if (!is_whole(id, kith_results_vector(r, i), &version))
                return complain(text, size, "scroll: the vector of id %u is of no version of it", id);
            versions[id] = version;
        }
        const char *next = kith_results_cursor(r);
        snprintf(cursor, sizeof cursor, "%s", next ? next : "");
    } while (cursor[0]);
    for (uint32_t i = 0; at->epoch && i < IDS; i += 2)
        if (versions[i] != versions[i + 1])
            return complain(text, size, "epoch %" PRIu64 ": id %u of version %u, id %u of version %u",
                            at->epoch, i, versions[i], i + 1, versions[i + 1]);
    return count == IDS || complain(text, size, "scroll: %u of %u ids", count, IDS);
}

static bool small_round(struct shared *s, unsigned number, kith *k, kith_results *r, kith_results *again,
                        struct test_rand *rand, char *text, size_t size)
{
    float q[DIM], v[DIM];
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    struct kith_snapshot at, now = KITH_SNAPSHOT_INIT;
    bool stale;
    test_rand_floats(rand, q, DIM);
    q[0] = (float)test_rand_below(rand, IDS);
    /* An exact search is all of them. A walk that is as wide as that is, too, but for those that no link leads to
     * for a moment, when all of their neighbours have been rewritten. */
    for (opts.exact = 0; opts.exact < 2; opts.exact++) {
        opts.ef = 2 * IDS;
        int n = kith_search(k, q, DIM, 2 * IDS, &opts, r);
        if (n < 0)
            return complain(text, size, "search: %s", kith_strerror(n));
        s->readers[number].searches++;
        if (!each_once(r, text, size, opts.exact ? "exact" : "walk"))
            return false;
        if (opts.exact && n != (int)IDS)
            return complain(text, size, "exact: %d of %u ids", n, IDS);
        if (n < (int)(IDS - IDS / 4))
            return complain(text, size, "walk: %d of %u ids", n, IDS);
        s->readers[number].missed += IDS - (uint32_t)n;
    }
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t id = test_rand_below(rand, IDS), version;
        char name[16];
        snprintf(name, sizeof name, "%u", id);
        int rc = kith_get(k, name, v, DIM, NULL);
        s->readers[number].gets++;
        if (rc < 0)
            return complain(text, size, "get of id %u: %s", id, kith_strerror(rc));
        if (!is_whole(id, v, &version))
            return complain(text, size, "get: the vector of id %u is of no version of it", id);
    }
    /* The same moment twice: the same answer, or none. */
    int rc = kith_snapshot(k, &at);
    if (rc < 0)
        return complain(text, size, "snapshot: %s", kith_strerror(rc));
    opts.at = at;
    opts.exact = 1;
    int first = kith_search(k, q, DIM, 2 * IDS, &opts, r);
    if (!scroll_whole(k, again, &now, 1 + test_rand_below(rand, 2 * IDS), text, size,
                      &s->readers[number].pages, &stale))
        return false;
    int second = kith_search(k, q, DIM, 2 * IDS, &opts, again);
    if ((first < 0 && first != KITH_E_STALE) || (second < 0 && second != KITH_E_STALE))
        return complain(text, size, "search at a snapshot: %s", kith_strerror(first < 0 ? first : second));
    if (first >= 0 && second >= 0) {
        bool same = first == (int)IDS && second == (int)IDS;
        for (uint32_t i = 0; same && i < IDS; i++)
            same = strcmp(kith_results_id(r, i), kith_results_id(again, i)) == 0 &&
                   kith_results_distance(r, i) == kith_results_distance(again, i);
        if (!same)
            return complain(text, size, "epoch %" PRIu64 " has two answers: %d and %d hits", at.epoch, first,
                            second);
        s->readers[number].again++;
    }
    if (!scroll_whole(k, again, &at, 1 + test_rand_below(rand, 2 * IDS), text, size,
                      &s->readers[number].pages, &stale))
        return false;
    s->readers[number].stale += stale;
    return true;
}

static int small_reader(void *arg)
{
    struct role *role = arg;
    struct shared *s = role->s;
    char *text = s->readers[role->number].text;
    const size_t size = sizeof s->readers[0].text;
    struct test_rand rand;
    kith_results *r = kith_results_new(), *again = kith_results_new();
    test_rand_seed(&rand, test_seed() + 10 + role->number);
    while (atomic_load(&s->phase) == PHASE_WAIT)
        test_nap();
    kith *k = attach(s);
    bool ok = k && r && again;
    while (ok && atomic_load(&s->phase) != PHASE_END)
        ok = small_round(s, role->number, k, r, again, &rand, text, size);
    kith_results_free(r);
    kith_results_free(again);
    kith_close(k);
    return !ok;
}

static void every_search_sees_one_version_of_every_id(void **state)
{
    (void)state;
    struct stage t;
    uint64_t searches = 0, gets = 0, pages = 0, again = 0, stale = 0, missed = 0;
    begin(&t);
    start(&t, small_reader, small_writer);
    wait_ms(test_long() ? SMALL_LONG : SMALL_MS);
    atomic_store(&t.s->phase, PHASE_END);
    bool ok = ended(&t);
    for (unsigned i = 0; i < READERS; i++) {
        searches += t.s->readers[i].searches;
        gets += t.s->readers[i].gets;
        pages += t.s->readers[i].pages;
        again += t.s->readers[i].again;
        stale += t.s->readers[i].stale;
        missed += t.s->readers[i].missed;
    }
    fprintf(stderr,
            "%" PRIu64 " versions written, %" PRIu64 " searches and %" PRIu64
            " gets, each of whole sets; %" PRIu64 " pages; snapshots: %" PRIu64
            " had the same answer twice, %" PRIu64 " scrolls were overtaken; walks missed %" PRIu64
            " of %" PRIu64 " ids\n",
            t.s->written, searches, gets, pages, again, stale, missed, searches / 2 * IDS);
    assert_true(!ok || missed * 100 <= searches / 2 * IDS);
    assert_true(!ok || (searches > 0 && gets > 0 && pages > 0 && t.s->written > IDS));
    assert_true(!ok || again > 0);
    end(&t, ok);
}

/* ---- one id, again and again ---- */

static void hot_vector(uint32_t version, float *out)
{
    for (uint32_t i = 0; i < DIM; i++)
        out[i] = 0.25f + (i == version % DIM ? 1e-4f * (float)(version % 97) : 0);
}

static int hot_writer(void *arg)
{
    struct shared *s = ((struct role *)arg)->s;
    struct test_rand r;
    kith *k = attach(s);
    kith_batch *b = k ? kith_batch_new(k) : NULL;
    kith_pipe *p = NULL;
    float v[DIM];
    int rc = b ? kith_pipe_open(k, HOT_SPAN, &p) : -1, status = 0;
    test_rand_seed(&r, test_seed());
    for (uint32_t i = 0; rc >= 0 && i < CROWD; i++) {
        char name[16];
        test_rand_floats(&r, v, DIM);
        snprintf(name, sizeof name, "%u", i);
        rc = kith_batch_upsert(b, name, v, DIM);
    }
    hot_vector(0, v);
    if (rc >= 0)
        rc = kith_batch_upsert(b, HOT, v, DIM);
    if (rc >= 0)
        rc = kith_batch_commit(b, NULL);
    if (rc >= 0)
        atomic_store(&s->phase, PHASE_CALM);
    while (rc >= 0 && atomic_load(&s->calm) < READERS && atomic_load(&s->phase) != PHASE_END)
        test_nap();
    atomic_store(&s->phase, PHASE_FIRE);
    uint32_t count = test_long() ? HOT_LONG : HOT_WRITES;
    for (uint32_t i = 1; rc >= 0 && i <= count && atomic_load(&s->phase) == PHASE_FIRE; i++) {
        hot_vector(i, v);
        kith_batch_clear(b);
        rc = kith_batch_upsert(b, HOT, v, DIM);
        while (rc >= 0 && (rc = kith_pipe_submit(p, b, i)) == -EAGAIN)
            if ((rc = kith_pipe_next(p, -1, NULL, &status, NULL)) == 1 && status < 0)
                rc = status;
        s->written += rc >= 0;
    }
    while (rc >= 0 && kith_pipe_pending(p))
        rc = kith_pipe_next(p, -1, NULL, &status, NULL) == 1 ? status : -1;
    atomic_store(&s->phase, PHASE_END);
    if (rc < 0)
        snprintf(s->writer_text, sizeof s->writer_text, "%s", kith_strerror(rc));
    kith_pipe_close(p);
    kith_batch_free(b);
    kith_close(k);
    return rc < 0;
}

static int hot_reader(void *arg)
{
    struct role *role = arg;
    struct shared *s = role->s;
    char *text = s->readers[role->number].text;
    const size_t size = sizeof s->readers[0].text;
    kith_results *r = kith_results_new();
    float q[DIM];
    bool calm = true, ok = r != NULL;
    hot_vector(0, q);
    while (atomic_load(&s->phase) == PHASE_WAIT)
        test_nap();
    kith *k = attach(s);
    ok = ok && k;
    for (uint64_t n = 0; ok && atomic_load(&s->phase) != PHASE_END; n++) {
        bool fire = atomic_load(&s->phase) == PHASE_FIRE;
        uint64_t begun = test_now_ns();
        int found = kith_search(k, q, DIM, HOT_NEAR, NULL, r);
        uint64_t us = (test_now_ns() - begun) / 1000;
        us = us < BUCKETS ? us : BUCKETS - 1;
        (fire ? s->readers[role->number].fire : s->readers[role->number].calm)[us]++;
        s->readers[role->number].searches++;
        if (found < 0)
            ok = complain(text, size, "search: %s", kith_strerror(found));
        else if (found != (int)HOT_NEAR || strcmp(kith_results_id(r, 0), HOT) != 0)
            ok = complain(text, size, "search %" PRIu64 ": %d hits, the first is %s", n, found,
                          found > 0 ? kith_results_id(r, 0) : "none");
        if (calm && (n + 1 >= CALM || !ok)) {
            calm = false;
            atomic_fetch_add(&s->calm, 1);
        }
        if (fire && !test_long() && n % 8 == 0)
            test_nap(); /* the writer is to get somewhere on two processors */
    }
    kith_results_free(r);
    kith_close(k);
    if (!ok)
        atomic_store(&s->phase, PHASE_END);
    return !ok;
}

static uint64_t quantile(const struct shared *s, bool fire, double share)
{
    uint64_t count = 0, sum = 0, i = 0;
    for (unsigned r = 0; r < READERS; r++)
        for (i = 0; i < BUCKETS; i++)
            count += (fire ? s->readers[r].fire : s->readers[r].calm)[i];
    for (i = 0; i + 1 < BUCKETS; i++) {
        for (unsigned r = 0; r < READERS; r++)
            sum += (fire ? s->readers[r].fire : s->readers[r].calm)[i];
        if ((double)sum > share * (double)count)
            break;
    }
    return i + 1;
}

static void an_id_that_is_rewritten_is_found_all_the_time(void **state)
{
    (void)state;
    struct stage t;
    uint64_t searches = 0;
    begin(&t);
    start(&t, hot_reader, hot_writer);
    bool ok = test_child_wait(&t.writer, test_long() ? 1800000 : GRACE_MS) == 0;
    t.writer.pid = 0;
    if (!ok)
        fprintf(stderr, "writer: %s\n", t.s->writer_text);
    atomic_store(&t.s->phase, PHASE_END);
    ok &= ended(&t);
    for (unsigned i = 0; i < READERS; i++)
        searches += t.s->readers[i].searches;
    fprintf(stderr,
            "%" PRIu64 " versions of one id among %u, %" PRIu64 " searches, all found it; before p50 %" PRIu64
            " us, p99 %" PRIu64 " us; meanwhile p50 %" PRIu64 " us, p99 %" PRIu64 " us\n",
            t.s->written, CROWD, searches, quantile(t.s, false, 0.5), quantile(t.s, false, 0.99),
            quantile(t.s, true, 0.5), quantile(t.s, true, 0.99));
    assert_true(!ok || t.s->written == (test_long() ? HOT_LONG : HOT_WRITES));
    end(&t, ok);
}

/* ---- what deletions leave ---- */

static void write_all(struct stage *t, uint32_t first, uint32_t count, bool gone)
{
    kith_batch *b = kith_batch_new(t->k);
    struct kith_commit commit = { .struct_size = sizeof commit };
    assert_non_null(b);
    for (uint32_t i = first; i < first + count; i++) {
        char name[16];
        float v[DIM];
        snprintf(name, sizeof name, "%u", i);
        vector_of(i, 1, v);
        v[0] = v[1] = 0;
        assert_int_equal(gone ? kith_batch_delete(b, name) : kith_batch_upsert(b, name, v, DIM), 0);
    }
    assert_int_equal(kith_batch_commit(b, &commit), 0);
    assert_int_equal(commit.found, gone ? count : 0);
    kith_batch_free(b);
}

/* Each of them is its own nearest neighbour, but for some that a walk may miss. */
static uint32_t found_of(struct stage *t, uint32_t first, uint32_t count)
{
    uint32_t n = 0;
    for (uint32_t i = first; i < first + count; i++) {
        char name[16];
        float v[DIM];
        snprintf(name, sizeof name, "%u", i);
        vector_of(i, 1, v);
        v[0] = v[1] = 0;
        assert_int_equal(kith_exists(t->k, name), 1);
        int rc = kith_search(t->k, v, DIM, 1, NULL, t->r);
        assert_int_equal(rc, 1);
        n += strcmp(kith_results_id(t->r, 0), name) == 0;
    }
    return n;
}

static void everything_may_be_deleted_and_begun_anew(void **state)
{
    (void)state;
    struct stage t;
    struct kith_snapshot at;
    float q[DIM] = { 0 };
    begin(&t);
    t.k = attach(t.s);
    assert_non_null(t.k);
    for (uint32_t round = 0; round < 4; round++) {
        uint64_t count = 1;
        struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
        write_all(&t, round * 100, 1000, false);
        assert_true(found_of(&t, round * 100, 1000) >= 990);
        assert_int_equal(kith_snapshot(t.k, &at), 0);
        write_all(&t, round * 100, 1000, true);
        assert_int_equal(kith_count(t.k, &count), 0);
        assert_int_equal(count, 0);
        assert_int_equal(kith_search(t.k, q, DIM, 10, NULL, t.r), 0);
        assert_int_equal(kith_scroll(t.k, NULL, NULL, t.r), 0);
        opts.at = at;
        for (;;) { /* whole until it is stale, and that it will be */
            int n = kith_search(t.k, q, DIM, 10, &opts, t.r);
            if (n == KITH_E_STALE)
                break;
            assert_int_equal(n, 10);
        }
    }
    end(&t, true);
}

/* The id of the graph's entry point, as the segment says. */
static void entry_id(const struct stage *t, char id[KITHI_ID_MAX + 1])
{
    struct kithi_map map;
    struct kithi_errmsg err;
    struct kithi_view v;
    assert_int_equal(kithi_map_attach_path(test_daemon_segment(&t->d, NAME), false, &map, &err), 0);
    kithi_view_begin(&map, &v);
    uint32_t link = kithi_entry_link(atomic_load(&v.header->entry));
    assert_true(link > 0 && link <= v.slots_used);
    id[kithi_view_id(&v, link - 1, id)] = '\0';
    kithi_map_detach(&map);
}

static void the_entry_point_may_be_deleted(void **state)
{
    (void)state;
    struct stage t;
    bool gone[600] = { false };
    begin(&t);
    t.k = attach(t.s);
    assert_non_null(t.k);
    write_all(&t, 0, 600, false);
    for (uint32_t round = 0; round < 30; round++) {
        char id[KITHI_ID_MAX + 1], before[KITHI_ID_MAX + 1];
        uint32_t found = 0, there = 0;
        entry_id(&t, id);
        unsigned long number = strtoul(id, NULL, 10);
        assert_true(number < 600 && !gone[number]);
        assert_int_equal(kith_delete(t.k, id, NULL), 0);
        gone[number] = true;
        for (uint32_t i = 0; i < 600; i += 7) {
            float v[DIM];
            char name[16];
            snprintf(name, sizeof name, "%u", i);
            vector_of(i, 1, v);
            v[0] = v[1] = 0;
            assert_int_equal(kith_search(t.k, v, DIM, 10, NULL, t.r), 10);
            there += !gone[i];
            found += !gone[i] && strcmp(kith_results_id(t.r, 0), name) == 0;
            for (uint32_t h = 0; h < 10; h++)
                assert_false(gone[strtoul(kith_results_id(t.r, h), NULL, 10)]);
        }
        assert_true(found * 100 >= there * 98);
        /* Another one takes its place. */
        snprintf(before, sizeof before, "%s", id);
        for (uint64_t until = test_now_ms() + GRACE_MS; strcmp(id, before) == 0; entry_id(&t, id)) {
            assert_true(test_now_ms() < until);
            test_nap();
        }
    }
    end(&t, true);
}

static void equal_vectors_are_all_found(void **state)
{
    (void)state;
    struct stage t;
    float v[DIM];
    uint32_t found = 0, exact = 0;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    begin(&t);
    t.k = attach(t.s);
    assert_non_null(t.k);
    write_all(&t, 10000, 500, false);
    kith_batch *b = kith_batch_new(t.k);
    for (uint32_t i = 0; i < EQUAL; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        hot_vector(0, v);
        assert_int_equal(kith_batch_upsert(b, name, v, DIM), 0);
    }
    assert_int_equal(kith_batch_commit(b, NULL), 0);
    kith_batch_free(b);
    hot_vector(0, v);
    /* At once by comparing all; by a walk at the latest when the audit has linked those anew that nothing led to. */
    for (opts.exact = 1;; opts.exact = 0) {
        uint8_t seen[EQUAL] = { 0 };
        uint32_t n = 0;
        opts.ef = 2 * EQUAL;
        int rc = kith_search(t.k, v, DIM, EQUAL, &opts, t.r);
        assert_int_equal(rc, EQUAL);
        for (uint32_t i = 0; i < EQUAL; i++) {
            unsigned long id = strtoul(kith_results_id(t.r, i), NULL, 10);
            if (kith_results_distance(t.r, i) != kith_results_distance(t.r, 0))
                continue;
            assert_true(id < EQUAL && !seen[id]);
            seen[id] = 1;
            n++;
        }
        if (opts.exact)
            exact = n;
        found = n;
        static uint64_t until;
        until = until ? until : test_now_ms() + GRACE_MS;
        if ((!opts.exact && found == EQUAL) || test_now_ms() > until)
            break;
        test_nap();
    }
    assert_int_equal(exact, EQUAL);
    assert_int_equal(found, EQUAL);
    end(&t, true);
}

/* ---- dropped under readers ---- */

static int drop_reader(void *arg)
{
    struct role *role = arg;
    struct shared *s = role->s;
    char *text = s->readers[role->number].text;
    const size_t size = sizeof s->readers[0].text;
    kith_results *r = kith_results_new();
    struct kith_snapshot at = KITH_SNAPSHOT_INIT;
    struct kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    float q[DIM] = { 0 };
    uint64_t count;
    kith *k = attach(s);
    bool ok = k && r && kith_snapshot(k, &at) == 0;
    int n = 0;
    for (uint64_t i = 0; ok && n >= 0; i++) {
        n = i % 3 ? kith_search(k, q, DIM, 10, NULL, r) : kith_scroll(k, NULL, NULL, r);
        ok = n > 0 || n == KITH_E_REPLACED || complain(text, size, "%d: %s", n, kith_strerror(n));
        if (i == 3)
            atomic_fetch_add(&s->calm, 1);
    }
    /* And from then on, whatever is asked. */
    opts.at = at;
    for (unsigned i = 0; ok && i < 100; i++) {
        int codes[] = { kith_search(k, q, DIM, 10, NULL, r),
                        kith_search(k, q, DIM, 10, &opts, r),
                        kith_search_id(k, "1", 1, NULL, r),
                        kith_get_at(k, &at, "1", q, DIM),
                        kith_exists(k, "1"),
                        kith_count(k, &count),
                        kith_count_at(k, &at, &count),
                        kith_scroll(k, NULL, NULL, r),
                        kith_snapshot(k, &at),
                        kith_upsert(k, "1", q, DIM, NULL),
                        kith_delete(k, "1", NULL) };
        for (unsigned j = 0; ok && j < sizeof codes / sizeof *codes; j++)
            ok = codes[j] == KITH_E_REPLACED ||
                 complain(text, size, "after the drop, call %u: %s", j, kith_strerror(codes[j]));
    }
    kith_results_free(r);
    kith_close(k);
    return !ok;
}

static void a_drop_is_told_to_all_who_search(void **state)
{
    (void)state;
    struct stage t;
    begin(&t);
    t.k = attach(t.s);
    assert_non_null(t.k);
    write_all(&t, 0, 500, false);
    start(&t, drop_reader, NULL);
    for (uint64_t until = test_now_ms() + GRACE_MS; atomic_load(&t.s->calm) < READERS; test_nap())
        assert_true(test_now_ms() < until);
    assert_int_equal(kith_drop(NAME, t.s->run, NULL), 0);
    assert_true(ended(&t));
    kith_results_free(t.r);
    kith_close(t.k);
    assert_int_equal(test_daemon_stop(&t.d), 0);
    test_daemon_fini(&t.d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_search_sees_one_version_of_every_id),
        cmocka_unit_test(an_id_that_is_rewritten_is_found_all_the_time),
        cmocka_unit_test(everything_may_be_deleted_and_begun_anew),
        cmocka_unit_test(the_entry_point_may_be_deleted),
        cmocka_unit_test(equal_vectors_are_all_found),
        cmocka_unit_test(a_drop_is_told_to_all_who_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
