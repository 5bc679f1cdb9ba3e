/*
 * test_filter.c - searches, counts and scrolls under a filter beside a writer that changes payloads, and vectors, without a pause: every
 * hit fulfils the filter at the epoch of its answer, and there are k of them or all that did. What an id has at an epoch follows
 * from both, so that any answer can be judged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/base/error.h"
#include "shm/base/id.h"
#include "shm/graph/scroll.h"
#include "shm/graph/search.h"
#include "tests/support/index.h"
#include "tests/support/payload.h"
#include "tests/support/rand.h"
#include "tests/support/tmp.h"

enum {
    IDS = 1200,
    GROUP = 8,
    TURN = IDS / GROUP,
    DIM = 8,
    K = 10,
    READERS = 3,
    RUN_MS = 4000,
    NAP_US = 8000
};

static struct test_index ix;
static const char *const texts[] = { "n < 50", "n < 20 and not even = true", "not n >= 3",
                                     "n in (7, 99) or tag = \"t5\"", "n < 0" };
#define TEXTS (sizeof texts / sizeof *texts)
static uint64_t seed;
static _Atomic bool stop;
static _Atomic uint64_t answers, again, plans[KITHI_PLAN_HOPS + 1], known, unknown;
static struct kithi_payload all[100];

/* The last epoch up to e at which the payload of id changed: the group of epoch e changes those ids that are e modulo TURN. */
static uint64_t changed_at(uint32_t id, uint64_t e)
{
    return e - (e + TURN - id % TURN) % TURN;
}

/* Which of the payloads it is then. */
static uint32_t number_at(uint32_t id, uint64_t e)
{
    uint64_t x = (changed_at(id, e) * IDS + id) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)((x >> 40) % 100);
}

static bool is_match(size_t text, uint32_t n)
{
    switch (text) {
    case 0: return n < 50;
    case 1: return n < 20 && n % 2;
    case 2: return n < 3;
    case 3: return n == 7 || n == 99 || n % 10 == 5;
    default: return false;
    }
}

static uint32_t match_count(size_t text, uint64_t e)
{
    uint32_t n = 0;
    for (uint32_t id = 0; id < IDS; id++)
        n += is_match(text, number_at(id, e));
    return n;
}

static void judge(size_t text, const struct kithi_results *r, const char *what)
{
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t id = (uint32_t)strtoul(r->ids + r->hits[i].id_off, NULL, 10),
                 n = number_at(id, r->stats.epoch);
        if (!is_match(text, n))
            test_die("%s: id %u is %u at epoch %" PRIu64 ", and not %s", what, id, n, r->stats.epoch,
                     texts[text]);
    }
}

/* Only being overtaken is no answer. */
static bool is_answer(int rc, const char *what)
{
    if (rc == KITHI_E_STALE) {
        atomic_fetch_add(&again, 1);
        return false;
    }
    if (rc < 0)
        test_die("%s: %s", what, kithi_error_text(rc));
    atomic_fetch_add(&answers, 1);
    return true;
}

static void search(struct test_rand *r, struct kithi_condition *c, size_t text, struct kithi_scratch *s,
                   struct kithi_results *out)
{
    float query[DIM];
    const struct kithi_search_params p = {
        .k = K, .ef = 40, .exact = test_rand_below(r, 8) == 0, .condition = c
    };
    test_rand_floats(r, query, DIM);
    if (!is_answer(kithi_search(test_index_map(&ix), s, query, &p, out), "search"))
        return;
    atomic_fetch_add(&plans[c->plan], 1);
    judge(text, out, "search");
    uint32_t matches = match_count(text, out->stats.epoch);
    if (out->count != (matches < K ? matches : K))
        test_die("%u hits of %u that match %s at epoch %" PRIu64, out->count, matches, texts[text],
                 out->stats.epoch);
}

/*
 * Postings leave out nobody who fulfils the filter at the view's epoch, also when the reader has slept since it began: what has gone by then is gone for
 * good, payloads among it, so it is the model that says who does.
 */
static void look(struct test_rand *r, struct kithi_condition *c, size_t text)
{
    struct kithi_view v;
    char id[KITHI_ID_MAX + 1];
    kithi_view_begin(test_index_map(&ix), &v);
    if (test_rand_below(r, 2)) {
        const struct timespec pause = { .tv_nsec = (long)test_rand_below(r, NAP_US) * 1000 };
        nanosleep(&pause, NULL);
    }
    if (kithi_candidates_find(&v, c->filter, &c->candidates) != 1) {
        atomic_fetch_add(&unknown, 1);
        return;
    }
    atomic_fetch_add(&known, 1);
    for (uint32_t slot = 0; slot < v.slots_used; slot++) {
        const struct kithi_record *record = kithi_view_record(&v, slot);
        uint64_t birth;
        if (!kithi_view_visible(&v, record, &birth))
            continue;
        size_t len = kithi_view_id(&v, slot, id);
        if (len == 0 || !kithi_birth_same(record, birth))
            continue; /* refilled: its versions are in no posting that anybody reads at this epoch */
        id[len] = '\0';
        uint32_t n = number_at((uint32_t)strtoul(id, NULL, 10), v.epoch);
        if (is_match(text, n) && kithi_candidates_next(&c->candidates, slot) != slot)
            test_die("slot %u, id %s, is %u at epoch %" PRIu64 ", %" PRIu64
                     " epochs ago, which is %s, and no candidate",
                     slot, id, n, v.epoch, atomic_load(&v.header->epoch) - v.epoch, texts[text]);
    }
}

static void *reader(void *arg)
{
    struct test_rand r;
    struct kithi_scratch s;
    struct kithi_results out;
    struct kithi_scroll_scratch pages;
    struct kithi_condition conditions[TEXTS];
    unsigned char *payload = malloc(KITHI_PAYLOAD_MAX);
    test_rand_seed(&r, seed + (uintptr_t)arg);
    kithi_scratch_init(&s);
    kithi_results_init(&out);
    kithi_scroll_init(&pages);
    for (size_t i = 0; i < TEXTS; i++) {
        struct kithi_filter *f;
        if (!payload || kithi_filter_parse(texts[i], strlen(texts[i]), &f, NULL) < 0)
            test_die("%s", texts[i]);
        conditions[i] = (struct kithi_condition){ .filter = f, .payload = payload };
    }
    while (!atomic_load(&stop)) {
        size_t text = test_rand_below(&r, TEXTS);
        struct kithi_condition *c = &conditions[text];
        uint32_t what = test_rand_below(&r, 6);
        if (what < 2) {
            look(&r, c, text);
        } else if (what < 5) {
            search(&r, c, text, &s, &out);
        } else {
            struct kithi_scroll_params p = { .limit = 20, .condition = c };
            if (is_answer(kithi_scroll(test_index_map(&ix), &p, &pages, &out), "scroll"))
                judge(text, &out, "scroll");
        }
    }
    for (size_t i = 0; i < TEXTS; i++) {
        kithi_candidates_fini(&conditions[i].candidates);
        kithi_filter_free((struct kithi_filter *)conditions[i].filter);
    }
    free(payload);
    kithi_scroll_fini(&pages);
    kithi_results_fini(&out);
    kithi_scratch_fini(&s);
    return NULL;
}

/* The group of the next epoch: payloads of GROUP ids, now and then with a new vector. */
static void commit(struct test_rand *r, uint64_t epoch, bool all_vectors)
{
    char names[GROUP][16];
    float vectors[GROUP][DIM];
    struct kithi_op ops[GROUP];
    struct kithi_errmsg err;
    for (uint32_t i = 0; i < GROUP; i++) {
        uint32_t id = (uint32_t)(epoch % TURN) + i * TURN;
        const struct kithi_payload *p = &all[number_at(id, epoch)];
        bool vector = all_vectors || test_rand_below(r, 16) == 0;
        snprintf(names[i], sizeof names[i], "%u", id);
        test_rand_floats(r, vectors[i], DIM);
        ops[i] = (struct kithi_op){ .type = vector ? KITHI_OP_UPSERT : KITHI_OP_SET,
                                    .flags = vector ? KITHI_OP_PAYLOAD : 0,
                                    .id = names[i],
                                    .id_len = (uint16_t)strlen(names[i]),
                                    .dim = vector ? DIM : 0,
                                    .vector = vector ? vectors[i] : NULL,
                                    .payload = p->bytes,
                                    .payload_len = p->len };
    }
    if (test_index_commit(&ix, ops, GROUP, &err) < 0)
        test_die("%s", err.text);
}

static void every_hit_fulfils_the_filter_at_its_epoch(void **state)
{
    (void)state;
    struct kithi_geometry g = {
        .dim = DIM, .metric = KITHI_METRIC_L2, .m = 8, .ef_construction = 60, .slot_max = 4 * IDS
    };
    struct test_dir dir;
    struct test_rand r;
    pthread_t threads[READERS];
    char path[2 * TEST_PATH_SIZE];
    seed = test_seed();
    test_rand_seed(&r, seed);
    for (int n = 0; n < 100; n++) {
        char text[128];
        snprintf(text, sizeof text, "{\"n\":%d,\"even\":%s,\"tag\":\"t%d\"}", n, n % 2 ? "false" : "true",
                 n % 10);
        all[n] = test_payload(text);
    }
    test_dir_make_shm(&dir);
    snprintf(path, sizeof path, "%s/segment", dir.path);
    test_index_create(&ix, path, &g, 2, 2, 2);
    uint64_t epoch = 1;
    for (; epoch <= TURN; epoch++)
        commit(&r, epoch, true);
    for (uintptr_t i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, (void *)(i + 1)), 0);
    uint64_t end = test_now_ms() + (test_long() ? 10 * RUN_MS : RUN_MS);
    for (; test_now_ms() < end; epoch++)
        commit(&r, epoch, false);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    printf("%" PRIu64 " groups, %" PRIu64 " answers: %" PRIu64 " walks, %" PRIu64 " scans, %" PRIu64
           " hops, %" PRIu64 " scans after them; overtaken %" PRIu64 "; postings knew %" PRIu64
           " times and %" PRIu64 " times not\n",
           epoch, atomic_load(&answers), atomic_load(&plans[KITHI_PLAN_WALK]),
           atomic_load(&plans[KITHI_PLAN_SCAN]), atomic_load(&plans[KITHI_PLAN_HOPS]),
           atomic_load(&plans[KITHI_PLAN_WALK_SCAN]), atomic_load(&again), atomic_load(&known),
           atomic_load(&unknown));
    assert_true(atomic_load(&answers) > 50 && epoch > 2 * TURN);
    assert_true(atomic_load(&known) > 0 && atomic_load(&unknown) > 0);
    assert_true(atomic_load(&plans[KITHI_PLAN_WALK]) > 0 && atomic_load(&plans[KITHI_PLAN_SCAN]) > 0);
    assert_true(test_verify_clean(test_index_map(&ix)));
    test_index_close(&ix);
    test_dir_remove(&dir);
    for (int n = 0; n < 100; n++)
        test_payload_free(&all[n]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_hit_fulfils_the_filter_at_its_epoch) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
