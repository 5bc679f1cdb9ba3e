/*
 * judge.c - see judge.h.
 */
#include "tests/crash/step/judge.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/base/log.h"
#include "server/wal/scan.h"
#include "server/writer/load.h"
#include "shm/graph/lookup.h"
#include "shm/graph/payload.h"
#include "shm/graph/scan.h"
#include "shm/graph/search.h"
#include "shm/graph/verify.h"
#include "shm/layout/notes.h"
#include "shm/wire/op.h"

#define TOLD_MAX       40u
#define K              10u
#define EF             32u
#define OPS_MAX        64u
#define SWEEPS_MAX     64u
#define IDS_GONE_SHARE 16u
/* Rounding of what is scaled to unit length and back. */
#define SLOP 1e-4

/* A state at hand, on its way through the judgement. */
struct trial {
    struct step_judge *j;
    const char *stage;
    uint64_t versions[STEP_ID_COUNT]; /* what should be visible: 0 is absence */
    uint64_t stamps[STEP_ID_COUNT];   /* ... and with which payload */
    struct kithi_index *ix;
    uint64_t now_ms;
};

static bool KITHI_PRINTF(2, 3) wrong(const struct trial *t, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (t->j->told++ < TOLD_MAX)
        fprintf(stderr, "BAD %s: %s: %s\n", t->j->where, t->stage, text);
    return false;
}

/* ---- content ---- */

static bool expect_epoch(struct trial *t, uint64_t epoch)
{
    for (uint32_t id = 0; id < STEP_ID_COUNT; id++)
        if (!test_model_at(t->j->model, id, epoch, &t->versions[id]) ||
            !test_model_at(t->j->payloads, id, epoch, &t->stamps[id]))
            return wrong(t, "the model does not know epoch %" PRIu64, epoch);
    return true;
}

static bool same_vector(const struct trial *t, uint32_t id, const float *have)
{
    float want[64];
    double error = 0, size = 0;
    test_model_kept(t->j->model, id, t->versions[id], want);
    for (uint32_t i = 0; i < t->j->model->dim; i++) {
        double d = (double)have[i] - (double)want[i];
        error += d * d;
        size += (double)want[i] * (double)want[i];
    }
    return error <= SLOP * SLOP * size;
}

/* Every id that should be there is, once, with its vector, and nothing else is. */
static bool check_content(struct trial *t, const struct kithi_map *map)
{
    struct kithi_scan scan;
    struct kithi_item item;
    float vector[64];
    uint8_t seen[STEP_ID_COUNT] = { 0 };
    int rc;
    kithi_scan_begin(map, &scan);
    while ((rc = kithi_scan_next(&scan, &item, vector)) == 1) {
        uint32_t id = test_model_id(t->j->model, item.id);
        if (id == UINT32_MAX || t->versions[id] == 0)
            return wrong(t, "\"%s\" is there at epoch %" PRIu64 ", and should not be", item.id,
                         scan.view.epoch);
        if (seen[id])
            return wrong(t, "id %u is there twice at epoch %" PRIu64, id, scan.view.epoch);
        seen[id] = 1;
        if (!same_vector(t, id, vector))
            return wrong(t, "id %u has another vector at epoch %" PRIu64, id, scan.view.epoch);
    }
    if (rc < 0)
        return wrong(t, "a scan ends with %s", kithi_error_name(rc));
    for (uint32_t id = 0; id < STEP_ID_COUNT; id++)
        if (t->versions[id] && !seen[id])
            return wrong(t, "id %u is missing at epoch %" PRIu64, id, scan.view.epoch);
    return true;
}

static bool check_payload(struct trial *t, const struct kithi_map *map, uint32_t id,
                          const struct kithi_found *found)
{
    static unsigned char have[KITHI_PAYLOAD_BYTES], want[STEP_PAYLOAD_MAX];
    struct kithi_view v;
    uint32_t len = 0, wanted = t->stamps[id] ? step_payload(t->stamps[id], want) : 0;
    kithi_view_begin(map, &v);
    v.epoch = found->epoch;
    enum kithi_payload_seen seen = kithi_view_payload(&v, found->slot, found->birth, have, &len);
    if (seen != (wanted ? KITHI_PAYLOAD_FOUND : KITHI_PAYLOAD_NONE))
        return wrong(t, "the payload of id %u, stamp %" PRIu64 ", is seen as %d at epoch %" PRIu64, id,
                     t->stamps[id], (int)seen, found->epoch);
    return (len == wanted && memcmp(have, want, len) == 0) || wrong(t, "id %u has another payload", id);
}

static bool check_lookups(struct trial *t, const struct kithi_map *map)
{
    char id[TEST_ID_SIZE];
    float vector[64];
    struct kithi_found found;
    uint32_t turn = test_rand_below(&t->j->r, IDS_GONE_SHARE);
    for (uint32_t number = 0; number < STEP_ID_COUNT; number++) {
        /* Of those that went long ago a few are enough. */
        if (!t->versions[number] && number >= STEP_ID_WAVES && number % IDS_GONE_SHARE != turn)
            continue;
        size_t len = test_model_id_format(number, id);
        int rc = kithi_lookup(map, id, len, vector, &found);
        if (rc != (t->versions[number] ? 0 : KITHI_E_NOT_FOUND))
            return wrong(t, "looking up id %u gives %s", number, kithi_error_name(rc));
        if (rc == 0 && !same_vector(t, number, vector))
            return wrong(t, "looking up id %u gives another vector", number);
        if (rc == 0 && !check_payload(t, map, number, &found))
            return false;
    }
    return true;
}

static bool check_search(struct trial *t, const struct kithi_map *map, bool exact)
{
    struct step_judge *j = t->j;
    struct kithi_search_params p = { .k = K, .ef = EF, .exact = exact };
    struct test_hit hits[K];
    char text[200];
    float query[64];
    uint32_t there = 0;
    test_rand_floats(&j->r, query, j->model->dim);
    int n = kithi_search(map, &j->scratch, query, &p, &j->results);
    if (n < 0)
        return wrong(t, "a search ends with %s", kithi_error_name(n));
    for (int i = 0; i < n; i++) {
        const struct kithi_hit *h = &j->results.hits[i];
        snprintf(hits[i].id, sizeof hits[i].id, "%s", j->results.ids + h->id_off);
        hits[i].distance = (double)h->distance;
    }
    uint64_t epoch = j->results.stats.epoch;
    bool good = exact
                    ? test_model_judge_exact(j->model, epoch, query, K, hits, (uint32_t)n, text, sizeof text)
                    : test_model_judge(j->model, epoch, query, hits, (uint32_t)n, text, sizeof text);
    if (!good)
        return wrong(t, "%s", text);
    if (exact)
        return true;
    for (uint32_t id = 0; id < STEP_ID_COUNT; id++)
        there += t->versions[id] != 0;
    if (there > K)
        there = K;
    j->searches++;
    j->found += (uint64_t)n;
    j->least += there;
    /* The graph of so few vectors is one piece: a walk of this breadth finds as many as it is asked for. */
    if ((uint32_t)n < there)
        return wrong(t, "a search finds %d of %u", n, there);
    return true;
}

/* ---- structure ---- */

static void tell_violation(void *arg, const char *rule, const char *text)
{
    wrong(arg, "%s: %s", rule, text);
}

static bool check_structure(struct trial *t, const struct kithi_map *map)
{
    struct kithi_verify_report report;
    int rc = kithi_verify_within(map, 0, tell_violation, t, &report);
    if (rc < 0)
        return wrong(t, "verify ends with %s", kithi_error_name(rc));
    return report.violation_count == 0;
}

static bool check_all(struct trial *t, const struct kithi_map *map, const char *stage)
{
    t->stage = stage;
    return check_structure(t, map) && check_content(t, map) && check_lookups(t, map);
}

/* After everything dead was swept and freed: what the tallies count is what the living hold. */
static bool check_leaks(struct trial *t, const struct kithi_map *map)
{
    struct kithi_view v;
    uint64_t live = 0, uppers = 0, blobs = 0, held = 0;
    kithi_view_begin(map, &v);
    for (uint32_t slot = 0; slot < v.slots_used; slot++) {
        const struct kithi_record *r = kithi_view_record(&v, slot);
        if (!atomic_load_explicit(&r->linked, memory_order_relaxed))
            continue;
        uint32_t meta = atomic_load_explicit(&r->meta, memory_order_relaxed);
        live++;
        uppers += kithi_meta_level(meta);
        blobs += kithi_meta_id_len(meta) > KITHI_ID_INLINE;
        blobs += atomic_load_explicit(&r->payload, memory_order_relaxed) != 0;
    }
    const struct kithi_header *h = v.header;
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        held += atomic_load_explicit(&h->tally_blob[c], memory_order_relaxed);
    uint64_t slots_free = atomic_load_explicit(&h->tally_free, memory_order_relaxed);
    uint64_t rows = atomic_load_explicit(&h->tally_upper, memory_order_relaxed);
    if (live + slots_free != v.slots_used || live != atomic_load_explicit(&h->live, memory_order_relaxed))
        return wrong(t, "of %u slots %" PRIu64 " are linked and %" PRIu64 " are free", v.slots_used, live,
                     slots_free);
    if (rows != uppers)
        return wrong(t, "%" PRIu64 " upper rows are in use, the living have %" PRIu64, rows, uppers);
    if (held != blobs)
        return wrong(t, "%" PRIu64 " blobs are in use, the living have %" PRIu64, held, blobs);
    return true;
}

/* ---- the next daemon ---- */

static bool adopt(struct trial *t)
{
    struct kithi_errmsg err;
    kithi_index_close(t->ix);
    t->ix = NULL;
    int rc = kithi_index_adopt(t->j->frozen->copy.segment, &t->j->world->identity, &t->j->world->tuning, NULL,
                               &t->ix, &err);
    return rc == 0 || wrong(t, "adoption ends with %s: %s", kithi_error_name(rc), err.text);
}

/* Look at some of the records that the adoption has left for later, or at all of them. */
static bool census(struct trial *t, uint32_t slots)
{
    struct kithi_errmsg err;
    int64_t miscounted = 0;
    int rc = kithi_index_census(t->ix, slots, &miscounted, &err);
    if (rc < 0)
        return wrong(t, "the census ends with %s: %s", kithi_error_name(rc), err.text);
    return miscounted == 0 || wrong(t, "%" PRId64 " vectors were miscounted", miscounted);
}

/* The segment is closed. */
static void forget_notes(const struct trial *t)
{
    const struct step_bytes *s = &t->j->frozen->segment;
    memset(s->copy + KITHI_NOTES_OFF, 0, sizeof(uint32_t)); /* the magic */
}

static bool commit(struct trial *t, const struct kithi_op *ops, uint32_t n, uint64_t epoch)
{
    struct kithi_group_result result;
    struct kithi_errmsg err;
    int rc = kithi_group_add(t->ix, ops, n, &result, &err);
    if (rc < 0)
        return wrong(t, "a group is refused with %s: %s", kithi_error_name(rc), err.text);
    for (uint32_t i = 0; i < kithi_group_job_count(kithi_group_open(t->ix)); i++)
        kithi_group_job(t->ix, kithi_group_open(t->ix), 0, i);
    kithi_group_publish(t->ix, epoch, t->now_ms);
    return true;
}

static int replay_group(void *arg, const struct kithi_wal_group *g)
{
    struct trial *t = arg;
    struct kithi_op ops[OPS_MAX];
    uint32_t n = 0;
    for (size_t at = 0; at < g->len; n++) {
        int64_t step = n < OPS_MAX ? kithi_op_decode((const char *)g->ops + at, g->len - at, &ops[n]) : -1;
        if (step < 0) {
            wrong(t, "epoch %" PRIu64 " of the log cannot be decoded", g->epoch);
            return -1;
        }
        at += (size_t)step;
    }
    return commit(t, ops, n, g->epoch) ? 0 : -1;
}

/* The log after what t->ix holds; it has to reach end_epoch. */
static bool replay(struct trial *t, const struct step_promise *p, uint64_t end_epoch)
{
    struct step_judge *j = t->j;
    struct kithi_wal_report report = { 0 };
    struct kithi_errmsg err;
    struct kithi_wal_scan_opts opts = { .dir = j->frozen->copy.log_dir,
                                        .after_epoch = kithi_index_epoch(t->ix),
                                        .known_durable_epoch = kithi_index_durable_epoch(t->ix),
                                        .fn = replay_group,
                                        .arg = t };
    memcpy(opts.uid, j->world->identity.uid, sizeof opts.uid);
    if (opts.known_durable_epoch < end_epoch)
        opts.known_durable_epoch = end_epoch;
    int rc = kithi_wal_scan(&opts, &report, &err);
    if (rc == -1)
        return false;
    if (rc < 0)
        return wrong(t, "the log: %s: %s", kithi_error_name(rc), err.text);
    uint64_t epoch = kithi_index_epoch(t->ix);
    if (report.last_epoch && report.last_epoch != epoch)
        return wrong(t, "the log ends at epoch %" PRIu64 ", the segment is at %" PRIu64, report.last_epoch,
                     epoch);
    if (epoch < p->durable || epoch < p->acked)
        return wrong(t, "epoch %" PRIu64 " was durable and %" PRIu64 " acked, %" PRIu64 " is there",
                     p->durable, p->acked, epoch);
    if (epoch < p->epoch_before || epoch > p->epoch_after)
        return wrong(t, "epoch %" PRIu64 " is there, not %" PRIu64 " to %" PRIu64, epoch, p->epoch_before,
                     p->epoch_after);
    return true;
}

/* Two new vectors, one in the place of another, one gone. */
static bool go_on(struct trial *t)
{
    const struct test_model *m = t->j->model;
    struct kithi_op ops[4];
    char ids[4][TEST_ID_SIZE];
    float vectors[3][64];
    unsigned char payload[STEP_PAYLOAD_MAX];
    uint32_t n = 0, first = test_rand_below(&t->j->r, STEP_ID_COUNT), living[2], living_count = 0;
    t->stage = "going on";
    for (uint32_t i = 0; i < STEP_ID_COUNT && living_count < 2; i++)
        if (t->versions[(first + i) % STEP_ID_COUNT])
            living[living_count++] = (first + i) % STEP_ID_COUNT;
    for (uint32_t i = 0; i < 2 + living_count; i++, n++) {
        uint32_t id = i < 2 ? STEP_ID_COUNT - 1 - i : living[i - 2];
        size_t len = test_model_id_format(id, ids[n]);
        ops[n] = (struct kithi_op){ .type = KITHI_OP_DELETE, .id_len = (uint16_t)len, .id = ids[n] };
        t->versions[id] = 0;
        if (i == 3) {
            t->stamps[id] = 0;
            continue;
        }
        if (i == 1) {
            t->stamps[id] = 12345;
            ops[n].flags = KITHI_OP_PAYLOAD;
            ops[n].payload = payload;
            ops[n].payload_len = step_payload(t->stamps[id], payload);
        }
        t->versions[id] = UINT64_C(1) << 40 | i;
        test_model_vector(m, id, t->versions[id], vectors[n]);
        ops[n].type = KITHI_OP_UPSERT;
        ops[n].dim = m->dim;
        ops[n].vector = vectors[n];
    }
    return commit(t, ops, n, kithi_index_epoch(t->ix) + 1);
}

static bool settle(struct trial *t)
{
    const struct kithi_header *h = kithi_map_header(kithi_index_map(t->ix));
    for (unsigned n = 0; n < SWEEPS_MAX; n++) {
        uint32_t wait_ms;
        t->now_ms += 1000;
        if (!census(t, UINT32_MAX))
            return false;
        uint32_t jobs = kithi_sweep_begin(t->ix, t->now_ms, &wait_ms);
        for (uint32_t i = 0; i < jobs; i++)
            kithi_sweep_job(t->ix, 0, i);
        if (jobs)
            kithi_sweep_end(t->ix, t->now_ms);
        if (!atomic_load(&h->tally_dead) && !atomic_load(&h->tally_resting))
            return true;
    }
    return wrong(t, "sweeping does not come to an end");
}

/* As readers find it while nobody owns it. */
static bool judge_left(struct trial *t, const struct kithi_map *map, const struct step_promise *p)
{
    uint64_t epoch = atomic_load(&kithi_map_header(map)->epoch);
    t->stage = "as it was left";
    if (epoch < p->epoch_before || epoch > p->epoch_after)
        return wrong(t, "epoch %" PRIu64 " shows, not %" PRIu64 " to %" PRIu64, epoch, p->epoch_before,
                     p->epoch_after);
    if (epoch < p->acked)
        return wrong(t, "epoch %" PRIu64 " was acked, %" PRIu64 " shows", p->acked, epoch);
    if (t->j->frozen->untaken < 0)
        return wrong(t, "%" PRId64 " bytes are taken that have no memory", -t->j->frozen->untaken);
    return expect_epoch(t, epoch) && check_all(t, map, "as it was left") && check_search(t, map, false) &&
           check_search(t, map, true);
}

static bool judge_adopted(struct trial *t, const struct kithi_map *map)
{
    uint64_t epoch = atomic_load(&kithi_map_header(map)->epoch);
    t->stage = "adopted";
    /* With notes, the census goes on beside whatever comes next. */
    if (!adopt(t) || !census(t, test_rand_below(&t->j->r, 64)))
        return false;
    if (kithi_index_epoch(t->ix) != epoch)
        return wrong(t, "adoption changes epoch %" PRIu64 " to %" PRIu64, epoch, kithi_index_epoch(t->ix));
    return expect_epoch(t, epoch) && check_all(t, map, "adopted") && check_search(t, map, false);
}

static bool judge_future(struct trial *t, const struct kithi_map *map)
{
    if (!go_on(t) || !census(t, test_rand_below(&t->j->r, 64)) || !check_all(t, map, "going on"))
        return false;
    t->stage = "adopted once more";
    if (!adopt(t) || !check_all(t, map, "adopted once more") || !settle(t) || !check_all(t, map, "swept"))
        return false;
    int64_t untaken = step_untaken_bytes(t->j->frozen, t->j->frozen->copy.segment);
    if (untaken > t->j->untaken)
        return wrong(t, "%" PRId64 " bytes have memory that was not taken", untaken);
    return check_leaks(t, map);
}

/*
 * Without the segment: the newest checkpoint, or the one before it as if that were damaged, and the log after it. Two there are,
 * whenever the writer dies, and what has its name is good.
 */
static bool judge_cold(struct trial *t, const struct step_promise *p, bool older)
{
    struct step_judge *j = t->j;
    struct kithi_collection *c = j->cold;
    uint64_t *epochs = NULL, end_epoch;
    char name[KITHI_CHECKPOINT_NAME_SIZE], path[KITHI_PATH_MAX];
    struct kithi_errmsg err = { .text = "" };
    int rc;
    t->stage = older ? "cold, from the older checkpoint" : "cold";
    kithi_index_close(t->ix);
    t->ix = NULL;
    step_frozen_thaw(j->frozen);
    int64_t n = kithi_checkpoint_list(c->data_dir, &epochs, &err);
    if (n < 2) {
        free(epochs);
        return wrong(t, "%" PRId64 " checkpoints are there", n);
    }
    uint64_t epoch = epochs[older];
    kithi_checkpoint_name(name, epochs[0]);
    free(epochs);
    rc = kithi_path(path, &err, "%s/%s", c->data_dir, name);
    if (rc < 0 || (older && unlink(path) < 0))
        test_die("%s: %s", path, strerror(errno));
    kithi_load_look(c);
    rc = kithi_load_checkpoint(c, &end_epoch, &err);
    t->ix = c->index;
    c->index = NULL;
    if (rc != 1)
        return wrong(t, "no checkpoint is loaded: %s: %s", kithi_error_name(rc), err.text);
    if (kithi_index_epoch(t->ix) != epoch)
        return wrong(t, "the checkpoint of epoch %" PRIu64 " is passed over: %s", epoch, err.text);
    const struct kithi_map *map = kithi_index_map(t->ix);
    if (!replay(t, p, end_epoch) || !expect_epoch(t, kithi_index_epoch(t->ix)) ||
        !check_all(t, map, t->stage) || !check_search(t, map, false) || !go_on(t) ||
        !check_all(t, map, "cold, going on") || !settle(t) || !check_all(t, map, "cold, swept"))
        return false;
    return check_leaks(t, map);
}

static bool judge_mapped(struct trial *t, const struct kithi_map *map, const struct step_promise *p)
{
    if (!judge_left(t, map, p) || !judge_adopted(t, map))
        return false;
    t->stage = "recovered";
    if (!replay(t, p, 0) || !expect_epoch(t, kithi_index_epoch(t->ix)) || !check_all(t, map, "recovered") ||
        !check_search(t, map, false) || !judge_future(t, map))
        return false;

    /* The same without the log, which would do the same things to the same ids as the group that was taken back, and
     * cover up what was not: the next group is another one. */
    kithi_index_close(t->ix);
    t->ix = NULL;
    step_frozen_thaw(t->j->frozen);
    if (t->j->trials++ % 2)
        forget_notes(t);
    if (!judge_adopted(t, map) || !judge_future(t, map))
        return false;
    return !t->j->frozen->copy.data_dir[0] || (judge_cold(t, p, false) && judge_cold(t, p, true));
}

bool step_judge(struct step_judge *j, const struct step_promise *p)
{
    struct trial t = { .j = j, .stage = "attaching", .now_ms = 1000 };
    struct kithi_map map;
    struct kithi_errmsg err;
    step_frozen_thaw(j->frozen);
    int rc = kithi_map_attach_path(j->frozen->copy.segment, false, &map, &err);
    if (rc < 0)
        return wrong(&t, "%s: %s", kithi_error_name(rc), err.text);
    bool good = judge_mapped(&t, &map, p);
    kithi_index_close(t.ix);
    kithi_map_detach(&map);
    return good;
}

void step_judge_init(struct step_judge *j, const struct step_world *w, const struct test_model *m,
                     const struct test_model *payloads, struct step_frozen *f)
{
    memset(j, 0, sizeof *j);
    j->world = w;
    j->model = m;
    j->payloads = payloads;
    j->frozen = f;
    kithi_scratch_init(&j->scratch);
    kithi_results_init(&j->results);
    j->cold = step_collection(w, f->dir, "copy-data");
    kithi_log_set_level(KITHI_LOG_ERROR);
    test_rand_seed(&j->r, w->seed + 2);
}

void step_judge_fini(struct step_judge *j)
{
    kithi_scratch_fini(&j->scratch);
    kithi_results_fini(&j->results);
    step_collection_free(j->cold);
}
