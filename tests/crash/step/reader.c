/*
 * reader.c - a process that searches the segment that is stepped through, all the time and unsynchronised: a search of
 * its may begin before an instruction of the writer and end many later. It keeps one mapping throughout a phase.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/graph/lookup.h"
#include "shm/graph/payload.h"
#include "shm/graph/search.h"
#include "tests/crash/step/step.h"
#include "tests/support/rand.h"

#define K  10u
#define EF 32u

struct reader {
    const struct step_reader_args *args;
    struct kithi_scratch scratch;
    struct kithi_results results;
    struct test_rand r;
};

static void wrong(struct reader *me, const char *what)
{
    struct step_shared *s = me->args->shared;
    if (atomic_fetch_add(&s->reader_errors, 1) == 0)
        snprintf(s->reader_text, sizeof s->reader_text, "%s", what);
}

static void search(struct reader *me, const struct kithi_map *map, bool exact)
{
    const struct test_model *m = me->args->model;
    struct kithi_search_params p = { .k = K, .ef = EF, .exact = exact };
    struct test_hit hits[K];
    char text[200] = "";
    float query[64];
    test_rand_floats(&me->r, query, m->dim);
    int n = kithi_search(map, &me->scratch, query, &p, &me->results);
    if (n < 0) {
        snprintf(text, sizeof text, "a search ends with %s", kithi_error_name(n));
        wrong(me, text);
        return;
    }
    for (int i = 0; i < n; i++) {
        const struct kithi_hit *h = &me->results.hits[i];
        snprintf(hits[i].id, sizeof hits[i].id, "%s", me->results.ids + h->id_off);
        hits[i].distance = (double)h->distance;
    }
    uint64_t epoch = me->results.stats.epoch;
    bool good = exact ? test_model_judge_exact(m, epoch, query, K, hits, (uint32_t)n, text, sizeof text)
                      : test_model_judge(m, epoch, query, hits, (uint32_t)n, text, sizeof text);
    if (!good)
        wrong(me, text);
}

/* The payload is the one that the epoch has, or it has been overtaken. */
static void get_payload(struct reader *me, const struct kithi_map *map, uint32_t id,
                        const struct kithi_found *found)
{
    static unsigned char have[KITHI_PAYLOAD_BYTES], want[STEP_PAYLOAD_MAX];
    struct kithi_view v;
    uint64_t stamp;
    uint32_t len = 0;
    char text[160];
    kithi_view_begin(map, &v);
    v.epoch = found->epoch;
    enum kithi_payload_seen seen = kithi_view_payload(&v, found->slot, found->birth, have, &len);
    if (seen == KITHI_PAYLOAD_AGAIN || !test_model_at(me->args->payloads, id, found->epoch, &stamp))
        return;
    uint32_t wanted = stamp ? step_payload(stamp, want) : 0;
    if ((seen == KITHI_PAYLOAD_FOUND) != (stamp != 0) || len != wanted || memcmp(have, want, len) != 0) {
        snprintf(text, sizeof text, "id %u has another payload at epoch %" PRIu64, id, found->epoch);
        wrong(me, text);
    }
}

/* What an id leads to is what the epoch that was asked has of it. */
static void get(struct reader *me, const struct kithi_map *map)
{
    const struct test_model *m = me->args->model;
    struct kithi_found found;
    char id[TEST_ID_SIZE], text[160];
    float vector[64];
    uint32_t number = test_rand_below(&me->r, STEP_ID_COUNT);
    uint64_t version;
    size_t len = test_model_id_format(number, id);
    int rc = kithi_lookup(map, id, len, vector, &found);
    if (rc != 0 && rc != KITHI_E_NOT_FOUND) {
        snprintf(text, sizeof text, "a look-up ends with %s", kithi_error_name(rc));
        wrong(me, text);
    } else if (rc == 0 && test_model_at(m, number, found.epoch, &version) && version == 0) {
        snprintf(text, sizeof text, "id %u is found at epoch %" PRIu64 ", when it was not there", number,
                 found.epoch);
        wrong(me, text);
    } else if (rc == 0) {
        get_payload(me, map, number, &found);
    }
}

int step_reader(void *arg)
{
    const struct step_reader_args *args = arg;
    struct step_shared *s = args->shared;
    struct reader *me = calloc(1, sizeof *me);
    if (!me)
        test_die("out of memory");
    me->args = args;
    kithi_scratch_init(&me->scratch);
    kithi_results_init(&me->results);
    test_rand_seed(&me->r, args->world->seed + 1);
    for (uint32_t at = 0; !atomic_load(&s->done);) {
        uint32_t watching = atomic_load(&s->watching);
        if (watching == at || watching == 0) {
            if (watching == 0)
                atomic_store(&s->watched, at = 0);
            test_nap();
            continue;
        }
        struct kithi_map map;
        struct kithi_errmsg err;
        if (kithi_map_attach_path(s->place.segment, false, &map, &err) < 0) {
            wrong(me, err.text);
            atomic_store(&s->watched, at = watching);
            continue;
        }
        for (uint32_t i = 0; atomic_load(&s->watching) == watching; i++) {
            search(me, &map, i % 4 == 3);
            get(me, &map);
            atomic_fetch_add(&s->searches, 1);
            atomic_store(&s->watched, at = watching);
            usleep(100); /* leaves the processor to the one that steps */
        }
        kithi_map_detach(&map);
    }
    kithi_scratch_fini(&me->scratch);
    kithi_results_fini(&me->results);
    free(me);
    return 0;
}
