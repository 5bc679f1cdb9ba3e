/*
 * test_payload.c - payloads beside vectors: whatever becomes of ids, by whatever groups, sweeps, crashes, images and copies, each
 * id has at each epoch the payload that a model says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/base/fault.h"
#include "server/index/ahead.h"
#include "server/index/copy.h"
#include "server/index/enlarge.h"
#include "server/index/image.h"
#include "server/index/restore.h"
#include "shm/graph/lookup.h"
#include "shm/graph/payload.h"
#include "shm/graph/scan.h"
#include "tests/support/rand.h"
#include "tests/support/solo.h"

#define DIM     4u
#define IDS     20u
#define OPS_MAX 6u
#define KEPT    64u /* epochs that the model remembers */
#define PAST    3u  /* of them those that are still to be seen */

/* What an id is at an epoch. */
struct state {
    bool there;
    uint32_t stamp; /* which payload; 0: none */
};
static struct state history[KEPT][IDS]; /* by epoch, modulo */
static uint64_t model_epoch;
static struct test_rand r;

static struct state *model(uint64_t epoch)
{
    return history[epoch % KEPT];
}

/* ---- payloads: opaque bytes of every class, none with a length of 0 ---- */

static uint32_t len_of(uint32_t stamp)
{
    static const uint32_t most[] = { 30, 90, 220, 540, 980, 4000, 16000, 65536 };
    uint32_t max = most[stamp % 61 == 0 ? 7 : stamp % 31 == 0 ? 6 : stamp % 7 == 0 ? 5 : stamp % 5];
    return 1 + (stamp * 2654435761u >> 8) % max;
}

static void fill(uint32_t stamp, unsigned char *out)
{
    uint32_t len = len_of(stamp);
    for (uint32_t i = 0; i < len; i++)
        out[i] = (unsigned char)(stamp * 31 + i * 7 + (i >> 8));
}

static void name(uint32_t n, char *out)
{
    snprintf(out, 80, n % 3 ? "%u" : "an id that is kept in a blob, number %u", n);
}

/* ---- groups: the same for the same epoch and the same state before ---- */

struct group {
    struct kithi_op ops[OPS_MAX];
    char ids[OPS_MAX][80];
    float vectors[OPS_MAX][DIM];
    unsigned char payloads[OPS_MAX][KITHI_PAYLOAD_BYTES];
    uint32_t n, found;
};
static struct group group;

/* Make the group of an epoch and note what it leaves. */
static const struct group *make_group(uint64_t seed, uint64_t epoch)
{
    struct group *g = &group;
    struct test_rand own;
    struct state *now = model(epoch);
    test_rand_seed(&own, seed ^ epoch * UINT64_C(0x9e3779b97f4a7c15));
    assert_int_equal(epoch, model_epoch + 1);
    memcpy(now, model(epoch - 1), sizeof history[0]);
    g->n = 1 + test_rand_below(&own, OPS_MAX);
    g->found = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        uint32_t id = test_rand_below(&own, IDS), stamp = (uint32_t)(epoch * OPS_MAX + i + 1);
        uint32_t what = test_rand_below(&own, 10);
        struct kithi_op *op = &g->ops[i];
        name(id, g->ids[i]);
        *op = (struct kithi_op){ .id = g->ids[i], .id_len = (uint16_t)strlen(g->ids[i]) };
        bool sets = what < 5 ? what < 2 : test_rand_below(&own, 6) != 0; /* else it keeps, or sets none */
        if (what == 9) {
            op->type = KITHI_OP_DELETE;
            g->found += now[id].there;
            now[id] = (struct state){ 0 };
            continue;
        }
        if (sets) {
            fill(stamp, g->payloads[i]);
            op->payload = g->payloads[i];
            op->payload_len = len_of(stamp);
        }
        if (what < 5) {
            op->type = KITHI_OP_UPSERT;
            op->dim = DIM;
            test_rand_floats(&own, g->vectors[i], DIM);
            op->vector = g->vectors[i];
            op->flags = what < 3 ? KITHI_OP_PAYLOAD : 0;
            now[id].there = true;
            if (op->flags)
                now[id].stamp = sets ? stamp : 0;
        } else {
            op->type = KITHI_OP_SET;
            g->found += now[id].there;
            if (now[id].there)
                now[id].stamp = sets ? stamp : 0;
        }
    }
    model_epoch = epoch;
    return g;
}

static void run_group(struct test_solo *t, uint64_t seed)
{
    struct kithi_group_result result;
    struct kithi_errmsg err;
    const struct group *g = make_group(seed, kithi_index_epoch(t->ix) + 1);
    int rc = kithi_group_add(t->ix, g->ops, g->n, &result, &err);
    if (rc < 0)
        fail_msg("%s", err.text);
    assert_int_equal(result.found, g->found);
    test_solo_jobs(t);
    test_solo_publish(t);
    (void)test_solo_sweep(t, 17);
}

/* Begin again with what the model was at an epoch. */
static void play(uint64_t seed, uint64_t epoch)
{
    memset(history, 0, sizeof history);
    model_epoch = 0;
    while (model_epoch < epoch)
        make_group(seed, model_epoch + 1);
}

/* ---- what readers see ---- */

static void check_at(const struct kithi_map *map, uint64_t epoch)
{
    static unsigned char have[KITHI_PAYLOAD_BYTES], want[KITHI_PAYLOAD_BYTES];
    const struct kithi_moment at = {
        .epoch = epoch,
        .timeline = atomic_load(&kithi_map_header(map)->timeline),
    };
    struct kithi_view v;
    assert_int_equal(kithi_view_begin_at(map, &at, &v), 0);
    for (uint32_t id = 0; id < IDS; id++) {
        const struct state *s = &model(epoch)[id];
        struct kithi_found found;
        char text[80];
        uint32_t len = 0;
        name(id, text);
        int rc = kithi_lookup_at(map, &at, text, strlen(text), NULL, &found);
        if (rc != (s->there ? 0 : KITHI_E_NOT_FOUND))
            fail_msg("epoch %llu: id %s gives %d", (unsigned long long)epoch, text, rc);
        if (!s->there)
            continue;
        enum kithi_payload_seen seen = kithi_view_payload(&v, found.slot, found.birth, have, &len);
        if (seen != (s->stamp ? KITHI_PAYLOAD_FOUND : KITHI_PAYLOAD_NONE))
            fail_msg("epoch %llu of %llu: the payload of %s, stamp %u, is seen as %d",
                     (unsigned long long)epoch, (unsigned long long)model_epoch, text, s->stamp, (int)seen);
        if (!s->stamp)
            continue;
        fill(s->stamp, want);
        if (len != len_of(s->stamp) || memcmp(have, want, len) != 0)
            fail_msg("epoch %llu: the payload of %s is not number %u", (unsigned long long)epoch, text,
                     s->stamp);
    }
}

/* The payloads that there are, as the header counts them. */
static void check_counts(const struct test_solo *t)
{
    uint64_t n = 0, bytes = 0;
    for (uint32_t id = 0; id < IDS; id++) {
        const struct state *s = &model(model_epoch)[id];
        n += s->stamp != 0;
        bytes += s->stamp ? len_of(s->stamp) : 0;
    }
    assert_int_equal(atomic_load(&test_solo_header(t)->tally_payloads), n);
    assert_int_equal(atomic_load(&test_solo_header(t)->tally_payload_bytes), bytes);
}

static void check(struct test_solo *t, uint64_t past)
{
    assert_int_equal(kithi_index_epoch(t->ix), model_epoch);
    check_at(test_solo_map(t), model_epoch);
    for (uint64_t back = 1; back <= past && back < model_epoch; back++) {
        struct kithi_view v;
        const struct kithi_moment at = { .epoch = model_epoch - back,
                                         .timeline = atomic_load(&test_solo_header(t)->timeline) };
        if (kithi_view_begin_at(test_solo_map(t), &at, &v) == 0 && !kithi_view_unlinked(&v))
            check_at(test_solo_map(t), model_epoch - back);
    }
    if (!test_solo_clean(t))
        fail_msg("epoch %llu", (unsigned long long)model_epoch);
}

/* Every blob is held by somebody, or free: nothing gets lost. */
static void check_nothing_is_lost(struct test_solo *t)
{
    uint64_t held = 0, in_use = 0;
    test_solo_settle(t);
    (void)test_solo_sweep(t, 1000);
    for (uint32_t id = 0; id < IDS; id++) {
        const struct state *s = &model(model_epoch)[id];
        held += s->there && id % 3 == 0;
    }
    const struct kithi_map *map = test_solo_map(t);
    struct kithi_view v;
    kithi_view_begin(map, &v);
    for (uint32_t slot = 0; slot < v.slots_used; slot++) {
        const struct kithi_record *rec = kithi_view_record(&v, slot);
        held += rec->birth != 0 && rec->death == 0 && rec->payload != 0;
    }
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        in_use += atomic_load(&test_solo_header(t)->tally_blob[c]);
    assert_int_equal(in_use, held);
    assert_int_equal(atomic_load(&test_solo_header(t)->tally_versions), 0);
    check_counts(t);
}

static void begin(struct test_solo *t)
{
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 500);
    memset(history, 0, sizeof history);
    model_epoch = 0;
    test_solo_open(t, &g);
}

/* ---- the tests ---- */

static void each_epoch_shows_its_own_payloads(void **state)
{
    (void)state;
    struct test_solo t;
    uint64_t seed = test_rand_u64(&r);
    begin(&t);
    for (unsigned i = 0; i < (test_long() ? 3000 : 200); i++) {
        run_group(&t, seed);
        check(&t, PAST);
    }
    check_nothing_is_lost(&t);
    test_solo_close(&t);
}

/* Several groups stand behind each other, each on what those before it will leave. */
static void groups_under_way_build_on_each_other(void **state)
{
    (void)state;
    static struct group groups[KITHI_GROUPS_SEALED];
    struct test_solo t;
    struct kithi_group_result result;
    struct kithi_errmsg err;
    uint64_t seed = test_rand_u64(&r);
    begin(&t);
    for (unsigned round = 0; round < 60; round++) {
        uint32_t n = 1 + test_rand_below(&r, KITHI_GROUPS_SEALED);
        for (uint32_t i = 0; i < n; i++) {
            groups[i] = *make_group(seed, model_epoch + 1);
            for (uint32_t j = 0; j < groups[i].n; j++) {
                struct kithi_op *op = &groups[i].ops[j];
                op->id = groups[i].ids[j];
                op->vector = op->dim ? groups[i].vectors[j] : NULL;
                op->payload = op->payload_len ? groups[i].payloads[j] : NULL;
            }
            assert_int_equal(kithi_group_add(t.ix, groups[i].ops, groups[i].n, &result, &err), 0);
            assert_int_equal(result.found, groups[i].found);
            struct kithi_group *g = kithi_group_seal(t.ix);
            for (uint32_t j = 0; j < kithi_group_job_count(g); j++)
                kithi_group_job(t.ix, g, 0, j);
        }
        if (round % 5 == 0) { /* one that is taken back leaves nothing */
            struct kithi_op op = groups[0].ops[0];
            assert_int_equal(kithi_group_add(t.ix, &op, 1, &result, &err), 0);
            kithi_group_abort(t.ix);
        }
        for (uint32_t i = 0; i < n; i++)
            test_solo_publish(&t);
        (void)test_solo_sweep(&t, 60);
        check(&t, 1);
    }
    check_nothing_is_lost(&t);
    test_solo_close(&t);
}

#ifdef KITH_FAULT_POINTS
/* The child dies at its n-th passage of a point; whoever adopts finds what the epoch showed, and nothing is lost. */
static void die_at(const char *point, unsigned least)
{
    struct test_solo t;
    uint64_t seed = test_rand_u64(&r);
    unsigned deaths = 0;
    char fault[64];
    begin(&t);
    test_solo_leave(&t);
    for (unsigned n = 1; n < 60; n += 1 + n / 2) {
        struct kithi_errmsg err = { 0 };
        snprintf(fault, sizeof fault, "%s:%u", point, n);
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            setenv("KITH_FAULT", fault, 1);
            if (test_solo_adopt(&t, &err) < 0)
                test_die("%s", err.text);
            for (unsigned i = 0; i < 40; i++)
                run_group(&t, seed);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        deaths += WIFSIGNALED(status) != 0;
        if (!WIFSIGNALED(status))
            assert_int_equal(WEXITSTATUS(status), 0);
        if (n % 3 == 0)
            test_solo_forget_notes(&t);
        if (test_solo_adopt_only(&t, &err) < 0)
            fail_msg("%s: %s", fault, err.text);
        play(seed, kithi_index_epoch(t.ix));
        check(&t, 0);
        /* Groups in between the pieces of the census. */
        while (kithi_index_census_due(t.ix)) {
            int64_t miscounted;
            run_group(&t, seed);
            int rc = kithi_index_census(t.ix, 40, &miscounted, &err);
            if (rc < 0)
                fail_msg("%s: %s", fault, err.text);
            check(&t, 0);
        }
        check_nothing_is_lost(&t);
        check(&t, 0);
        test_solo_leave(&t);
    }
    assert_true(deaths >= least);
    test_solo_close(&t);
}

static void death_between_births_of_payloads_leaves_those_of_before(void **state)
{
    (void)state;
    die_at("crash-after-payload-births", 5);
    die_at("crash-after-payload", 5);
}

static void death_before_and_after_the_epoch_leaves_one_version_or_the_other(void **state)
{
    (void)state;
    die_at("crash-before-epoch", 5);
    die_at("crash-after-epoch", 5);
    die_at("crash-after-freeing", 4);
}
#endif

/* The owner died after versions had rested, and nobody can say which blobs were ever used: what rested is handed out with its old birth on it. */
static void what_rested_is_filled_under_no_birth_after_an_adoption_without_notes(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_group_result result;
    struct kithi_errmsg err;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 10);
    struct kithi_payload_blob b;
    struct kithi_view v;
    float vector[DIM] = { 1 };
    unsigned char have[KITHI_PAYLOAD_BYTES];
    uint32_t len;
    test_solo_open(&t, &g);
    const struct kithi_op put[] = { test_upsert("a", vector, DIM), test_upsert("b", vector, DIM) };
    assert_int_equal(test_solo_commit(&t, put, 2), 0); /* epoch 1 */
    struct kithi_op set = {
        .type = KITHI_OP_SET, .id = "a", .id_len = 1, .payload = "version", .payload_len = 7
    };
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(test_solo_commit(&t, &set, 1), 0); /* 2 to 4: blobs 0 to 2 */
    (void)test_solo_sweep(&t, 1000);
    assert_int_equal(test_solo_commit(&t, &set, 1), 0); /* 5: a low blob again, before it blob 2 */
    kithi_view_begin(test_solo_map(&t), &v);
    uint64_t birth = atomic_load(&kithi_view_record(&v, 0)->birth);
    v.epoch = 4;
    assert_int_equal(kithi_view_payload(&v, 0, birth, have, &len), KITHI_PAYLOAD_FOUND);
    test_solo_leave(&t);
    test_solo_forget_notes(&t);
    assert_int_equal(test_solo_adopt(&t, &err), 0);

    set.payload = "not yet";
    for (const char *id = "ba"; *id; id++) { /* blobs 0 and 2 */
        set.id = id;
        assert_int_equal(kithi_group_add(t.ix, &set, 1, &result, &err), 0);
    }
    kithi_view_begin(test_solo_map(&t), &v);
    assert_int_equal(v.epoch, 5);
    assert_int_equal(kithi_view_payload(&v, 0, birth, have, &len), KITHI_PAYLOAD_FOUND);
    assert_memory_equal(have, "version", 7);
    v.epoch = 4;
    assert_int_equal(kithi_view_payload(&v, 0, birth, have, &len), KITHI_PAYLOAD_AGAIN);
    kithi_group_abort(t.ix);

    /* The same of a blob that is to hold an id. */
    assert_true(kithi_view_payload_blob(&v, kithi_payload_ref(0, 5), &b));
    atomic_store(&b.blob->birth, 4);
    for (unsigned i = 0; i < 6; i++) {
        char id[] = "an id that is kept in a blob, ?";
        id[sizeof id - 2] = (char)('0' + i);
        assert_int_equal(test_solo_put(&t, id, vector), 0);
    }
    assert_true(atomic_load(&b.blob->owner) != 0);
    assert_int_equal(atomic_load(&b.blob->birth), 0);
    test_solo_close(&t);
}

/* ---- images ---- */

static void an_image_has_the_payloads_of_its_epoch(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 6; round++) {
        struct test_solo t, copy;
        struct kithi_image *image;
        struct kithi_restore *restore;
        struct kithi_errmsg err;
        unsigned char *bytes[KITHI_REGION_COUNT] = { NULL };
        uint64_t seed = test_rand_u64(&r);
        begin(&t);
        for (unsigned i = 0; i < 40; i++)
            run_group(&t, seed);
        uint64_t epoch = model_epoch;
        assert_int_equal(kithi_image_begin(t.ix, &image, &err), 0);
        const struct kithi_image_shape shape = *kithi_image_shape(image);
        /* Everything is replaced meanwhile, and would have rested long enough. */
        for (unsigned i = 0; i < 10 * round && model_epoch < epoch + KEPT / 2; i++)
            run_group(&t, seed);
        (void)test_solo_sweep(&t, 2000);
        for (unsigned at = 0; at < KITHI_REGION_COUNT; at++) {
            unsigned region = at == 0 ? KITHI_REGION_RECORDS : at == KITHI_REGION_RECORDS ? 0 : at;
            uint64_t len = shape.regions[region].bytes, chunk = shape.regions[region].chunk;
            bytes[region] = aligned_alloc(64, (len + 127) / 64 * 64);
            assert_non_null(bytes[region]);
            for (uint64_t off = 0; off < len; off += chunk) {
                uint32_t part = (uint32_t)(len - off < chunk ? len - off : chunk);
                assert_int_equal(kithi_image_copy(image, region, off, part, bytes[region] + off), 0);
                if (round && model_epoch < epoch + KEPT / 2) {
                    run_group(&t, seed);
                    (void)test_solo_sweep(&t, 700);
                }
            }
        }
        kithi_image_end(image);
        check(&t, 0);

        copy = t;
        kithi_scratch_init(&copy.scratch);
        kithi_results_init(&copy.results);
        snprintf(copy.path, sizeof copy.path, "%s/restored", t.dir.path);
        assert_int_equal(kithi_restore_begin(copy.path, &t.identity, 2, &t.tuning, &shape, &restore, &err),
                         0);
        for (unsigned region = 0; region < KITHI_REGION_COUNT; region++) {
            uint64_t len = shape.regions[region].bytes;
            if (len) {
                assert_int_equal(kithi_restore_need(restore, region, 0, len, &err), 0);
                memcpy(kithi_restore_place(restore, region, 0), bytes[region], len);
            }
            free(bytes[region]);
        }
        int rc = kithi_restore_end(restore, NULL, &copy.ix, &err);
        if (rc < 0)
            fail_msg("%s", err.text);
        /* The epochs after it are made again, as a log would. */
        play(seed, epoch);
        check(&copy, 0);
        for (unsigned i = 0; i < 20; i++) {
            run_group(&copy, seed);
            check(&copy, 1);
        }
        check_nothing_is_lost(&copy);
        kithi_index_close(copy.ix);
        kithi_scratch_fini(&copy.scratch);
        kithi_results_fini(&copy.results);
        test_solo_close(&t);
    }
}

/* Copies all records again and again, as workers do while the owner goes on. */
struct copier {
    struct kithi_image *image;
    struct kithi_record *records;
    uint32_t count, looks, without;
    int rc;
    _Atomic bool stop;
};

static void *copier_main(void *arg)
{
    struct copier *c = arg;
    do {
        c->rc |= kithi_image_copy(c->image, KITHI_REGION_RECORDS, 0, c->count * (uint32_t)sizeof *c->records,
                                  c->records);
        c->looks++;
        c->without += c->records[c->count - 1].payload == 0;
    } while (!atomic_load(&c->stop));
    return NULL;
}

/* Versions come up in memory that is taken while a chunk of records is copied: what the epoch saw is found behind them. */
static void copy_while_memory_is_taken(void)
{
    static unsigned char payload[KITHI_PAYLOAD_BYTES];
    enum { SLOTS = 2000 };
    struct test_solo t;
    struct copier c = { .count = SLOTS };
    struct kithi_errmsg err;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, SLOTS);
    pthread_t thread;
    char id[16];
    test_solo_open(&t, &g);
    for (uint32_t i = 0; i < SLOTS; i++) {
        float v[DIM] = { (float)i };
        snprintf(id, sizeof id, "%u", i);
        assert_int_equal(test_solo_put(&t, id, v), 0);
    }
    struct kithi_op set = {
        .type = KITHI_OP_SET, .id = id, .id_len = (uint16_t)strlen(id), .payload = payload, .payload_len = 20
    };
    assert_int_equal(test_solo_commit(&t, &set, 1), 0);
    c.records = calloc(SLOTS, sizeof *c.records);
    assert_non_null(c.records);
    assert_int_equal(kithi_image_begin(t.ix, &c.image, &err), 0);
    assert_int_equal(pthread_create(&thread, NULL, copier_main, &c), 0);
    for (unsigned i = 0; i < 6000; i++) {
        static const uint32_t lens[] = { 36, 100, 200, 500, 900, 4000, 4000, 16000 };
        set.payload_len = lens[i % 8]; /* a class each, and each takes memory in steps of its own */
        assert_int_equal(test_solo_commit(&t, &set, 1), 0);
    }
    atomic_store(&c.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    kithi_image_end(c.image);
    assert_int_equal(c.rc, 0);
    if (c.without)
        fail_msg("%u of %u copies have no payload", c.without, c.looks);
    free(c.records);
    test_solo_close(&t);
}

static void an_image_finds_what_stands_behind_memory_taken_meanwhile(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++)
        copy_while_memory_is_taken();
}

/* However often a payload is replaced while an image is taken, it has the one of its epoch. None of them is freed, so they are many. */
static void an_image_finds_what_was_replaced_a_hundred_thousand_times(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_image *image;
    struct kithi_errmsg err;
    struct kithi_record record;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 200000);
    float v[DIM] = { 1 };
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "a", v), 0);
    struct kithi_op set = {
        .type = KITHI_OP_SET, .id = "a", .id_len = 1, .payload = "version", .payload_len = 7
    };
    assert_int_equal(test_solo_commit(&t, &set, 1), 0);
    struct kithi_view view;
    kithi_view_begin(test_solo_map(&t), &view);
    uint32_t ref = atomic_load(&kithi_view_record(&view, 0)->payload);
    assert_int_equal(kithi_image_begin(t.ix, &image, &err), 0);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(test_solo_commit(&t, &set, 1), 0);
    assert_int_equal(kithi_image_copy(image, KITHI_REGION_RECORDS, 0, sizeof record, &record), 0);
    kithi_image_end(image);
    assert_int_equal(record.payload, ref);
    test_solo_close(&t);
}

/* ---- other segments ---- */

static void a_copy_takes_payloads_along_and_those_that_change_meanwhile(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        struct test_solo t;
        struct kithi_index *next;
        struct kithi_copy *copy;
        struct kithi_copy_state s = { 0 };
        struct kithi_errmsg err;
        char path[2 * TEST_PATH_SIZE + 8];
        uint64_t seed = test_rand_u64(&r);
        begin(&t);
        for (unsigned i = 0; i < 40; i++)
            run_group(&t, seed);
        snprintf(path, sizeof path, "%s.next", t.path);
        assert_int_equal(kithi_index_create(path, &t.identity, 2, &t.tuning, &next, &err), 0);
        assert_int_equal(kithi_copy_begin(t.ix, &copy, &err), 0);
        assert_int_equal(kithi_copy_fill(copy, next, &err), 0);
        for (unsigned i = 0; !(s.whole && s.noted == s.taken); i++) {
            int jobs = kithi_copy_stage(copy, ++t.now_ms * 1000, false, &err);
            if (jobs < 0)
                fail_msg("%s", err.text);
            for (int j = 0; j < jobs; j++)
                kithi_copy_job(copy, 0, (uint32_t)j);
            if (i < 30)
                run_group(&t, seed);
            kithi_copy_state(copy, &s);
        }
        assert_int_equal(kithi_copy_finish(copy, t.now_ms, &err), 0);
        kithi_copy_end(copy);
        kithi_index_close(t.ix);
        t.ix = next;
        kithi_index_tune(next, t.tuning.grace_ms, t.tuning.rest_ms);
        check(&t, 0);
        for (unsigned i = 0; i < 20; i++) {
            run_group(&t, seed);
            check(&t, 0);
        }
        check_nothing_is_lost(&t);
        test_solo_close(&t);
    }
}

static void a_larger_segment_has_the_same_payloads(void **state)
{
    (void)state;
    struct test_solo t;
    struct kithi_index *next;
    struct kithi_enlarge *e;
    struct kithi_errmsg err;
    uint64_t seed = test_rand_u64(&r);
    char path[2 * TEST_PATH_SIZE + 8];
    begin(&t);
    for (unsigned i = 0; i < 40; i++)
        run_group(&t, seed);
    struct kithi_index_identity id = t.identity;
    id.geometry.slot_max *= 2;
    snprintf(path, sizeof path, "%s.next", t.path);
    assert_int_equal(kithi_index_create(path, &id, 2, &t.tuning, &next, &err), 0);
    assert_int_equal(kithi_enlarge_new(&t.identity.geometry, next, &e, &err), 0);
    assert_int_equal(kithi_enlarge_begin(e, t.ix, &err), 0);
    for (unsigned i = 0; i < 60; i++) {
        uint32_t n = kithi_enlarge_collect(e, 3);
        run_group(&t, seed);
        for (uint32_t j = 0; j < n; j++)
            kithi_enlarge_job(e, j);
        assert_int_equal(kithi_enlarge_collected(e, &err), 0);
    }
    assert_int_equal(kithi_enlarge_finish(e, &err), 0);
    assert_int_equal(rename(path, t.path), 0);
    kithi_enlarge_swap(e);
    kithi_enlarge_end(e);
    kithi_index_close(next);
    t.identity = id;
    check(&t, PAST);
    for (unsigned i = 0; i < 20; i++) {
        run_group(&t, seed);
        check(&t, PAST);
    }
    check_nothing_is_lost(&t);
    test_solo_close(&t);
}

/* What the log has not is made again from the segment: on what the log has, it leaves the same. */
static void what_is_ahead_of_the_log_leaves_the_same_payloads(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 5; round++) {
        struct test_solo t, again;
        struct kithi_errmsg err;
        struct kithi_ahead ahead;
        uint64_t seed = test_rand_u64(&r);
        begin(&t);
        for (unsigned i = 0; i < 30; i++)
            run_group(&t, seed);
        uint64_t durable = model_epoch;
        for (unsigned i = 0; i < 12; i++) { /* none of them is swept: they are not durable */
            struct kithi_group_result result;
            const struct group *g = make_group(seed, model_epoch + 1);
            assert_int_equal(kithi_group_add(t.ix, g->ops, g->n, &result, &err), 0);
            test_solo_jobs(&t);
            kithi_group_publish_ahead(t.ix, model_epoch, t.now_ms);
        }
        check(&t, 0);
        assert_int_equal(kithi_ahead_collect(t.ix, durable, &ahead, &err), 0);
        uint64_t last = model_epoch;
        struct kithi_geometry geometry = test_geometry(DIM, KITHI_METRIC_L2, 500);
        test_solo_open(&again, &geometry);
        play(seed, 0);
        while (model_epoch < durable)
            run_group(&again, seed);
        assert_int_equal(ahead.group_count, last - durable);
        for (uint32_t i = 0; i < ahead.group_count; i++) {
            struct kithi_op ops[4 * OPS_MAX];
            uint32_t n = 0;
            for (size_t at = 0; at < ahead.groups[i].len;) {
                struct kithi_op op;
                int64_t step =
                    kithi_op_decode((const char *)ahead.groups[i].ops + at, ahead.groups[i].len - at, &op);
                assert_true(step > 0 && n < 4 * OPS_MAX);
                if (kithi_op_is_known(op.type))
                    ops[n++] = op;
                at += (size_t)step;
            }
            assert_int_equal(test_solo_commit(&again, ops, n), 0);
        }
        kithi_ahead_fini(&ahead);
        play(seed, last);
        check(&again, 0);
        test_solo_close(&again);
        test_solo_close(&t);
    }
}

/* A class that is full makes the collection full, and refuses the whole request, before anything of it is staged; what was replaced makes room once it has rested. */
static void a_class_without_room_is_full_names_a_ceiling_and_comes_back(void **state)
{
    (void)state;
    static unsigned char payload[20];
    struct test_solo t;
    struct kithi_group_result result;
    struct kithi_errmsg err;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 10);
    float v[DIM] = { 1 };
    test_solo_open(&t, &g);
    assert_int_equal(test_solo_put(&t, "a", v), 0);
    uint32_t room = test_solo_map(&t)->layout.blob_max[0], n = 0;
    struct kithi_op op = {
        .type = KITHI_OP_SET, .id = "a", .id_len = 1, .payload = payload, .payload_len = 20
    };
    int rc;
    while ((rc = kithi_group_add(t.ix, &op, 1, &result, &err)) == 0) {
        test_solo_publish(&t);
        n++;
    }
    assert_int_equal(rc, KITHI_E_FULL);
    assert_non_null(strstr(err.text, "ids and payloads"));
    assert_non_null(strstr(err.text, "will be free in a moment"));
    assert_int_equal(n, room);
    struct kithi_index_room left;
    kithi_index_room(t.ix, &left);
    assert_int_equal(left.payloads_soon, room - 1);
    assert_int_equal(left.blobs[0], room - 1);
    assert_int_equal(left.blobs[1], left.blob_max[1]);
    struct kithi_layout larger;
    g.slot_max = left.slots_wanted;
    kithi_geometry_layout(&g, &larger);
    assert_true(larger.blob_max[0] > room);
    g.slot_max--;
    kithi_geometry_layout(&g, &larger);
    assert_int_equal(larger.blob_max[0], room);
    assert_true(test_solo_clean(&t));
    (void)test_solo_sweep(&t, 1000);
    assert_int_equal(test_solo_commit(&t, &op, 1), 0);
    assert_true(test_solo_clean(&t));
    test_solo_close(&t);
}

static void a_payload_that_is_too_long_is_refused(void **state)
{
    (void)state;
    static unsigned char payload[KITHI_PAYLOAD_BYTES + 1];
    struct test_solo t;
    struct kithi_group_result result;
    struct kithi_errmsg err;
    struct kithi_geometry g = test_geometry(DIM, KITHI_METRIC_L2, 10);
    float v[DIM] = { 1 };
    test_solo_open(&t, &g);
    struct kithi_op op = test_upsert("a", v, DIM);
    op.flags = KITHI_OP_PAYLOAD;
    op.payload = payload;
    op.payload_len = sizeof payload;
    assert_int_equal(kithi_group_add(t.ix, &op, 1, &result, &err), KITHI_E_PARAMETER);
    assert_int_equal(result.failed_item, 0);
    assert_non_null(strstr(err.text, "65537 bytes"));
    op.payload_len--;
    assert_int_equal(test_solo_commit(&t, &op, 1), 0);
    test_solo_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_epoch_shows_its_own_payloads),
        cmocka_unit_test(groups_under_way_build_on_each_other),
#ifdef KITH_FAULT_POINTS
        cmocka_unit_test(death_between_births_of_payloads_leaves_those_of_before),
        cmocka_unit_test(death_before_and_after_the_epoch_leaves_one_version_or_the_other),
#endif
        cmocka_unit_test(what_rested_is_filled_under_no_birth_after_an_adoption_without_notes),
        cmocka_unit_test(an_image_has_the_payloads_of_its_epoch),
        cmocka_unit_test(an_image_finds_what_stands_behind_memory_taken_meanwhile),
        cmocka_unit_test(an_image_finds_what_was_replaced_a_hundred_thousand_times),
        cmocka_unit_test(a_copy_takes_payloads_along_and_those_that_change_meanwhile),
        cmocka_unit_test(a_larger_segment_has_the_same_payloads),
        cmocka_unit_test(what_is_ahead_of_the_log_leaves_the_same_payloads),
        cmocka_unit_test(a_class_without_room_is_full_names_a_ceiling_and_comes_back),
        cmocka_unit_test(a_payload_that_is_too_long_is_refused),
    };
    test_rand_init(&r);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
