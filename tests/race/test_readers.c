/*
 * test_readers.c - the whole protocol on one mapping: a writer with its workers, and readers that search, look up,
 * scroll and scan meanwhile, now or at a moment that each keeps until it is stale. Slots rest for a millisecond or two only, so that reuse under the readers happens all the
 * time. Run under ThreadSanitizer as well, which sees races only within one mapping.
 *
 * What would be rare is made common: the writer pauses between the stores of a commit, and readers fall asleep in the
 * middle of a distance, for longer than slots rest.
 *
 * Every answer is compared with the model at the answer's own epoch: that says that a group is seen whole or not
 * at all, that nothing is seen twice, and that id and vector belong together.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "shm/graph/lookup.h"
#include "shm/graph/scan.h"
#include "shm/graph/scroll.h"
#include "shm/graph/search.h"
#include "shm/graph/verify.h"
#include "tests/support/codes.h"
#include "tests/support/index.h"
#include "tests/support/model.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

#define DIM      12u
#define ID_COUNT 150u
#define OPS_MAX  48u
#define K        10u
#define READERS  3u
#define NAP_IN   2000u /* one distance in so many is slept over, for up to NAP_US */
#define NAP_US   40000u
#define PAUSE_US 200u /* of the writer, in the middle of a commit */

struct shared {
    struct test_model *model;
    const struct kithi_map *map;
    _Atomic bool stop;
    _Atomic uint64_t searches, lookups, scans, verifies, stale, restarts;
    _Atomic uint64_t pages, past,
        overtaken; /* past: answers at a moment behind the newest; overtaken: it was stale */
    pthread_mutex_t lock;
    char text[512]; /* the first thing that was wrong */
};

/* ---- pauses ---- */

/* These take the place of server/base/fault.c here: each named point of a commit may take a while. */
#ifdef KITH_FAULT_POINTS
static _Atomic uint64_t pause_state = 1;

bool kithi_fault(const char *point)
{
    (void)point;
    return false;
}

void kithi_fault_crash(const char *point)
{
    /* Those of publishing are passed once a group, the others for every slot or link. */
    uint32_t one_in = strncmp(point, "crash-after-", 12) == 0 ? 4 : 512;
    struct test_rand r;
    test_rand_seed(&r, atomic_fetch_add(&pause_state, 1));
    if (test_rand_below(&r, one_in) == 0)
        usleep(test_rand_below(&r, PAUSE_US));
}
#endif

/* The kernel of this CPU, with naps; a walk and the window of a birth check both have distances in them. */
static const struct kithi_kernel *awake;
static _Thread_local struct test_rand sleeper;

static void maybe_nap(void)
{
    if (test_rand_below(&sleeper, NAP_IN) == 0)
        usleep(test_rand_below(&sleeper, NAP_US));
}

#define SLEEPY(codec, metric)                                                                                \
    static float one_##codec##_##metric(const struct kithi_query *q, const unsigned char *code)              \
    {                                                                                                        \
        maybe_nap();                                                                                         \
        return awake->of[codec][metric].one(q, code);                                                        \
    }                                                                                                        \
    static void four_##codec##_##metric(const struct kithi_query *q, const unsigned char *const codes[4],    \
                                        float out[4])                                                        \
    {                                                                                                        \
        maybe_nap();                                                                                         \
        awake->of[codec][metric].four(q, codes, out);                                                        \
    }
SLEEPY(0, 0)
SLEEPY(0, 1)
SLEEPY(1, 0)
SLEEPY(1, 1)
SLEEPY(2, 0)
SLEEPY(2, 1)
_Static_assert(KITHI_CODEC_COUNT == 3, "a sleeper for each codec");

static uint32_t sleepy_estimate(const struct kithi_query *q, const unsigned char *block, float distance,
                                float limit, const unsigned char *ahead, float est[32])
{
    maybe_nap();
    return awake->estimate(q, block, distance, limit, ahead, est);
}

static struct kithi_kernel sleepy;

static void fall_asleep(void)
{
    awake = kithi_kernel_pick();
#define BED(codec, metric)                                                                                   \
    {                                                                                                        \
        one_##codec##_##metric, four_##codec##_##metric, awake->of[codec][metric].pair                       \
    }
    const struct kithi_distances of[KITHI_CODEC_COUNT][2] = { { BED(0, 0), BED(0, 1) },
                                                              { BED(1, 0), BED(1, 1) },
                                                              { BED(2, 0), BED(2, 1) } };
    sleepy = *awake;
    sleepy.name = "sleepy";
    sleepy.estimate = sleepy_estimate;
    memcpy(sleepy.of, of, sizeof of);
}

/* ---- readers ---- */

struct reader {
    struct shared *shared;
    uint64_t seed;
    pthread_t thread;
    struct kithi_moment at;
};

static void KITHI_PRINTF(2, 3) complain(struct shared *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&s->lock);
    if (!s->text[0])
        vsnprintf(s->text, sizeof s->text, fmt, ap);
    pthread_mutex_unlock(&s->lock);
    va_end(ap);
    atomic_store(&s->stop, true);
}

/* The moment to ask at: now, or the one that is kept. */
static struct kithi_moment moment(struct reader *me, struct test_rand *r)
{
    const struct kithi_header *h = kithi_map_header(me->shared->map);
    if (me->at.epoch == 0 || test_rand_below(r, 64) == 0)
        me->at = (struct kithi_moment){ atomic_load_explicit(&h->epoch, memory_order_acquire),
                                        atomic_load_explicit(&h->timeline, memory_order_relaxed) };
    return test_rand_below(r, 3) ? (struct kithi_moment){ 0 } : me->at;
}

/* What was asked at it is stale, or was answered. */
static void note_stale(struct reader *me, const struct kithi_moment *at)
{
    atomic_fetch_add(at->epoch ? &me->shared->overtaken : &me->shared->stale, 1);
    if (at->epoch)
        me->at.epoch = 0;
}

static void note_good(struct reader *me, const struct kithi_moment *at)
{
    uint64_t now = atomic_load_explicit(&kithi_map_header(me->shared->map)->epoch, memory_order_relaxed);
    atomic_fetch_add(&me->shared->past, at->epoch && at->epoch < now);
}

static void check_search(struct reader *me, struct test_rand *r, struct kithi_scratch *scratch,
                         struct kithi_results *results)
{
    struct shared *s = me->shared;
    float query[DIM];
    test_rand_floats(r, query, DIM);
    struct kithi_search_params p = {
        .k = K, .ef = 64, .exact = test_rand_below(r, 4) == 0, .at = moment(me, r)
    };
    int n = kithi_search(s->map, scratch, query, &p, results);
    atomic_fetch_add(&s->searches, 1);
    if (n == KITHI_E_STALE) {
        note_stale(me, &p.at);
        return;
    }
    if (n < 0) {
        complain(s, "search: %s", kithi_error_text(n));
        return;
    }
    atomic_fetch_add(&s->restarts, results->stats.restart_count);
    note_good(me, &p.at);
    if (p.at.epoch && results->stats.epoch != p.at.epoch)
        complain(s, "a search at epoch %" PRIu64 " saw epoch %" PRIu64, p.at.epoch, results->stats.epoch);
    struct test_hit hits[K];
    for (int i = 0; i < n; i++) {
        snprintf(hits[i].id, sizeof hits[i].id, "%s", results->ids + results->hits[i].id_off);
        hits[i].distance = (double)results->hits[i].distance;
    }
    char text[256];
    uint64_t epoch = results->stats.epoch;
    bool good = p.exact
                    ? test_model_judge_exact(s->model, epoch, query, K, hits, (uint32_t)n, text, sizeof text)
                    : test_model_judge(s->model, epoch, query, hits, (uint32_t)n, text, sizeof text);
    if (!good)
        complain(s, "%s search: %s", p.exact ? "exact" : "graph", text);
}

/* Is this the vector of that version, as it is kept? */
static bool vector_matches(const struct test_model *m, uint32_t id, uint64_t version, const float *vector)
{
    float expected[DIM];
    test_model_kept(m, id, version, expected);
    for (uint32_t i = 0; i < DIM; i++)
        if (!(fabsf(vector[i] - expected[i]) <= (m->cosine ? 1e-5f : 0.0f)))
            return false;
    return true;
}

static void check_lookup(struct reader *me, struct test_rand *r)
{
    struct shared *s = me->shared;
    const struct kithi_moment at = moment(me, r);
    uint32_t id = test_rand_below(r, ID_COUNT);
    char name[TEST_ID_SIZE];
    size_t len = test_model_id_format(id, name);
    float vector[DIM];
    struct kithi_found found;
    uint64_t version;
    uint64_t before = atomic_load_explicit(&kithi_map_header(s->map)->epoch, memory_order_acquire);
    int rc = kithi_lookup_at(s->map, &at, name, len, vector, &found);
    uint64_t after = atomic_load_explicit(&kithi_map_header(s->map)->epoch, memory_order_acquire);
    atomic_fetch_add(&s->lookups, 1);
    if (at.epoch)
        before = after = at.epoch;
    if (rc == 0 || rc == KITHI_E_NOT_FOUND)
        note_good(me, &at);
    if (rc == KITHI_E_STALE)
        note_stale(me, &at);
    else if (rc == 0) {
        if (test_model_at(s->model, id, found.epoch, &version) &&
            (version == 0 || !vector_matches(s->model, id, version, vector)))
            complain(s, "id %u looked up at epoch %" PRIu64 ": not its version %" PRIu64, id, found.epoch,
                     version);
    } else if (rc == KITHI_E_NOT_FOUND) {
        /* It was absent at some epoch between the two loads. */
        bool absent = false, unknown = false;
        for (uint64_t e = before; e <= after && !absent; e++) {
            bool known = test_model_at(s->model, id, e, &version);
            unknown |= !known;
            absent = known && version == 0;
        }
        if (!absent && !unknown)
            complain(s,
                     "id %u is not found between epochs %" PRIu64 " and %" PRIu64
                     ", and was there all the time",
                     id, before, after);
    } else
        complain(s, "lookup: %s", kithi_error_text(rc));
}

static void check_scan(struct shared *s)
{
    struct kithi_scan scan;
    struct kithi_item item;
    float vector[DIM];
    bool seen[ID_COUNT] = { false };
    uint64_t version;
    int rc;
    kithi_scan_begin(s->map, &scan);
    while ((rc = kithi_scan_next(&scan, &item, vector)) == 1) {
        uint32_t id = test_model_id(s->model, item.id);
        if (id == UINT32_MAX || seen[id]) {
            complain(s, "scan at epoch %" PRIu64 ": id \"%s\" is %s", scan.view.epoch, item.id,
                     id == UINT32_MAX ? "unknown" : "there twice");
            return;
        }
        seen[id] = true;
        if (test_model_at(s->model, id, scan.view.epoch, &version) &&
            (version == 0 || !vector_matches(s->model, id, version, vector))) {
            complain(s, "scan at epoch %" PRIu64 ": id %u is not at version %" PRIu64, scan.view.epoch, id,
                     version);
            return;
        }
    }
    atomic_fetch_add(&s->scans, 1);
    if (rc == KITHI_E_STALE) {
        atomic_fetch_add(&s->stale, 1);
        return;
    }
    if (rc < 0)
        complain(s, "scan: %s", kithi_error_text(rc));
    for (uint32_t id = 0; id < ID_COUNT; id++)
        if (!seen[id] && test_model_at(s->model, id, scan.view.epoch, &version) && version != 0) {
            complain(s, "scan at epoch %" PRIu64 " misses id %u, version %" PRIu64, scan.view.epoch, id,
                     version);
            return;
        }
}

static bool is_before(struct kithi_place a, struct kithi_place b)
{
    return a.hash < b.hash || (a.hash == b.hash && a.tie < b.tie);
}

/* Every id between the page's two places that its epoch shows, and no other. */
static bool check_page(struct shared *s, const struct kithi_scroll_params *p,
                       const struct kithi_scroll_scratch *pages, const struct kithi_results *page)
{
    bool seen[ID_COUNT] = { false };
    uint64_t epoch = page->stats.epoch, version;
    for (uint32_t i = 0; i < page->count; i++) {
        uint32_t id = test_model_id(s->model, page->ids + page->hits[i].id_off);
        if (id == UINT32_MAX || seen[id]) {
            complain(s, "a page at epoch %" PRIu64 ": id \"%s\" is %s", epoch,
                     page->ids + page->hits[i].id_off, id == UINT32_MAX ? "unknown" : "there twice");
            return false;
        }
        seen[id] = true;
        if (test_model_at(s->model, id, epoch, &version) &&
            (version == 0 || !vector_matches(s->model, id, version, p->vectors + (size_t)i * DIM))) {
            complain(s, "a page at epoch %" PRIu64 ": id %u is not at version %" PRIu64, epoch, id, version);
            return false;
        }
    }
    for (uint32_t id = 0; id < ID_COUNT; id++) {
        char name[TEST_ID_SIZE];
        struct kithi_place place = kithi_scroll_place(s->map->hash_key, name, test_model_id_format(id, name));
        bool is_in = !is_before(place, p->from) && !(pages->more && !is_before(place, pages->next));
        bool is_there = test_model_at(s->model, id, epoch, &version) && version != 0;
        if (is_in ? is_there && !seen[id] : seen[id]) {
            complain(s, "a page at epoch %" PRIu64 " %s id %u", epoch, is_in ? "misses" : "should not have",
                     id);
            return false;
        }
    }
    return true;
}

static void check_scroll(struct reader *me, struct test_rand *r, struct kithi_scroll_scratch *pages,
                         struct kithi_results *page)
{
    struct shared *s = me->shared;
    float vectors[ID_COUNT * DIM];
    struct kithi_scroll_params p = { .at = moment(me, r),
                                     .limit = 1 + test_rand_below(r, ID_COUNT),
                                     .vectors = vectors };
    do {
        int rc = kithi_scroll(s->map, &p, pages, page);
        if (rc == KITHI_E_STALE) {
            note_stale(me, &p.at);
            return;
        }
        if (rc < 0) {
            complain(s, "scroll: %s", kithi_error_text(rc));
            return;
        }
        note_good(me, &p.at);
        atomic_fetch_add(&s->pages, 1);
        if (!check_page(s, &p, pages, page))
            return;
        p.from = pages->next;
    } while (pages->more && !atomic_load(&s->stop));
}

static void *read_all(void *arg)
{
    struct reader *me = arg;
    struct test_rand r;
    struct kithi_scratch scratch;
    struct kithi_results results;
    struct kithi_scroll_scratch pages;
    test_rand_seed(&r, me->seed);
    test_rand_seed(&sleeper, me->seed + 1);
    kithi_scratch_init(&scratch);
    scratch.kernel = &sleepy;
    kithi_results_init(&results);
    kithi_scroll_init(&pages);
    while (!atomic_load(&me->shared->stop)) {
        uint32_t what = test_rand_below(&r, 20);
        if (what < 12)
            check_search(me, &r, &scratch, &results);
        else if (what < 18)
            check_lookup(me, &r);
        else if (what < 19)
            check_scroll(me, &r, &pages, &results);
        else
            check_scan(me->shared);
    }
    kithi_scroll_fini(&pages);
    kithi_results_fini(&results);
    kithi_scratch_fini(&scratch);
    return NULL;
}

static void violation(void *arg, const char *rule, const char *text)
{
    complain(arg, "verify: %s: %s", rule, text);
}

static void *verify_all(void *arg)
{
    struct shared *s = arg;
    struct kithi_verify_report report;
    while (!atomic_load(&s->stop)) {
        int rc = kithi_verify(s->map, violation, s, &report);
        if (rc < 0)
            complain(s, "verify: %s", kithi_error_text(rc));
        atomic_fetch_add(&s->verifies, 1);
    }
    return NULL;
}

/* One group of random changes; several requests of it may touch the same id, and the last one wins. */
static void write_group(struct test_index *t, struct shared *s, struct test_rand *r)
{
    static float vectors[OPS_MAX][DIM];
    static char names[OPS_MAX][TEST_ID_SIZE];
    struct kithi_op ops[OPS_MAX];
    uint64_t versions[OPS_MAX];
    uint32_t ids[OPS_MAX], n = 1 + test_rand_below(r, OPS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        /* A few ids are written again and again, so that dead versions crowd at one spot. */
        ids[i] = test_rand_below(r, test_rand_below(r, 3) ? ID_COUNT : 8);
        bool gone = test_rand_below(r, 5) == 0;
        versions[i] = gone ? 0 : test_model_version_new(s->model);
        test_model_vector(s->model, ids[i], versions[i], vectors[i]);
        ops[i] = (struct kithi_op){ .type = gone ? KITHI_OP_DELETE : KITHI_OP_UPSERT,
                                    .id_len = (uint16_t)test_model_id_format(ids[i], names[i]),
                                    .dim = gone ? 0 : DIM,
                                    .id = names[i],
                                    .vector = gone ? NULL : vectors[i] };
    }
    struct kithi_errmsg err;
    int rc = test_index_stage(t, ops, n, &err);
    if (rc == KITHI_E_FULL) {
        test_nap(); /* everything rests */
        test_index_publish(t);
        return;
    }
    if (rc < 0) {
        complain(s, "group: %s", err.text);
        return;
    }
    uint64_t epoch = kithi_index_epoch(t->ix) + 1;
    for (uint32_t i = 0; i < n; i++) {
        bool last = true;
        for (uint32_t j = i + 1; j < n; j++)
            last &= ids[j] != ids[i];
        if (last)
            test_model_note(s->model, ids[i], epoch, versions[i]);
    }
    test_index_publish(t);
    test_model_complete(s->model, epoch);
}

static void run(uint32_t metric, uint32_t grace_ms, uint32_t rest_ms)
{
    struct test_dir dir;
    struct test_index t;
    struct shared s = { .lock = PTHREAD_MUTEX_INITIALIZER };
    struct reader readers[READERS];
    pthread_t verifier;
    struct test_rand r;
    struct kithi_geometry g = {
        .dim = DIM, .metric = metric, .m = 6, .ef_construction = 40, .slot_max = 1u << 15
    };
    uint64_t seed = test_seed() + metric;
    fall_asleep();
    test_codes_give(&g);

    test_dir_make_shm(&dir);
    test_rand_seed(&r, seed);
    test_index_create(&t, test_path(&dir, "segment"), &g, 2, grace_ms, rest_ms);
    s.model = test_model_new(seed, ID_COUNT, DIM, metric == KITHI_METRIC_COSINE);
    s.map = test_index_map(&t);
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){ .shared = &s, .seed = seed ^ (0x1111u * (i + 1)) };
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]), 0);
    }
    assert_int_equal(pthread_create(&verifier, NULL, verify_all, &s), 0);

    uint64_t end = test_now_ms() + (test_long() ? 60000 : 4000), groups = 0;
    while (!atomic_load(&s.stop) && test_now_ms() < end) {
        write_group(&t, &s, &r);
        groups++;
    }
    atomic_store(&s.stop, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(readers[i].thread, NULL);
    pthread_join(verifier, NULL);

    const struct kithi_header *h = kithi_map_header(s.map);
    fprintf(stderr,
            "%s: %" PRIu64 " groups, %" PRIu64 " sweeps, %" PRIu64 " searches, %" PRIu64 " lookups, %" PRIu64
            " scans, %" PRIu64 " pages, %" PRIu64 " verifies; %" PRIu64 " restarts, %" PRIu64
            " stale; %" PRIu64 " answers of the past, %" PRIu64 " overtaken; %" PRIu64 " slots used, %" PRIu64
            " live\n",
            kithi_metric_name(metric), groups, t.sweep_count, s.searches, s.lookups, s.scans, s.pages,
            s.verifies, s.restarts, s.stale, s.past, s.overtaken, (uint64_t)h->slots_used, (uint64_t)h->live);
    if (s.text[0])
        fail_msg("%s", s.text);
    assert_true(s.searches > 0 && s.lookups > 0 && s.scans > 0 && s.verifies > 0);
    assert_true(s.pages > 0 && s.past > 0 && s.overtaken > 0);
    assert_true(h->reused > 0); /* slots were refilled under the readers */
    assert_true(s.stale < s.searches / 2 + 16);
    assert_true(test_index_settle(&t, 20000));
    assert_int_equal(h->live, test_model_count(s.model));
    assert_true(test_verify_clean(s.map));
    test_index_close(&t);
    test_dir_remove(&dir);
}

static void readers_see_each_epoch_whole_l2(void **state)
{
    (void)state;
    run(KITHI_METRIC_L2, 5, 5);
}

static void readers_see_each_epoch_whole_while_slots_hardly_rest(void **state)
{
    (void)state;
    run(KITHI_METRIC_COSINE, 1, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_each_epoch_whole_l2),
        cmocka_unit_test(readers_see_each_epoch_whole_while_slots_hardly_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
