/*
 * stat.c - numbers about a collection: from the words of its header, and from the daemon.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "client/src/handle_priv.h"
#include "client/src/json.h"
#include "client/src/opts_priv.h"
#include "shm/graph/recall.h"
#include "shm/graph/search.h"
#include "shm/postings/postings.h"

/* A daemon that says nothing for so long is not called alive. */
#define ALIVE_PATIENCE_MS 1000u

/* Relaxed: these are figures for people, each right by itself. */
static uint64_t word(const _Atomic uint64_t *w)
{
    return atomic_load_explicit(w, memory_order_relaxed);
}

uint64_t kith_epoch(kith *index)
{
    struct kithi_call *c;
    if (!index || kithi_call_begin(index, &c) < 0)
        return 0;
    /* [P1 commit] acquire: who sees this epoch sees what was committed with it. */
    uint64_t epoch = atomic_load_explicit(&kithi_call_header(c)->epoch, memory_order_acquire);
    kithi_call_end(index, c);
    return epoch;
}

uint64_t kith_timeline(kith *index)
{
    struct kithi_call *c;
    if (!index || kithi_call_begin(index, &c) < 0)
        return 0;
    uint64_t timeline = word(&kithi_call_header(c)->timeline);
    kithi_call_end(index, c);
    return timeline;
}

int kith_count(kith *index, uint64_t *out_count)
{
    struct kithi_call *c;
    if (!index || !out_count)
        return -EINVAL;
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    *out_count = word(&kithi_call_header(c)->live);
    kithi_call_end(index, c);
    return 0;
}

/* What only the daemon knows. */
static void ask_daemon(struct kith *index, struct kith_stats *s)
{
    struct kithi_conn conn;
    struct kithi_opened opened;
    kithi_conn_init(&conn);
    int rc = kithi_handle_connect(index, &conn, ALIVE_PATIENCE_MS, &opened);
    s->daemon_alive = rc == 0 || rc == KITHI_E_STARTING;
    if (rc == 0) {
        s->quantization_wanted = opened.quantization;
        s->keep_wanted = opened.keep;
        s->undecided = opened.undecided ? 1 : opened.layout != s->quantization ? 2 : 0;
    }
    kithi_conn_close(&conn);
}

int kith_stats(kith *index, struct kith_stats *out)
{
    struct kithi_call *c;
    if (!index || !out)
        return -EINVAL;
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    const struct kithi_map *m = kithi_call_map(c);
    const struct kithi_header *h = kithi_call_header(c);
    struct kith_stats s = {
        .epoch = atomic_load_explicit(&h->epoch, memory_order_acquire),
        .live_count = word(&h->live),
        .dead_count = word(&h->tally_dead),
        .resting_count = word(&h->tally_resting),
        .free_count = word(&h->tally_free),
        .slot_count = word(&h->slots_used),
        .slot_max = m->geometry.slot_max,
        .bytes_reserved = m->layout.total,
        .generation = m->generation,
        .dim = m->geometry.dim,
        .metric = m->geometry.metric,
        .m = m->geometry.m,
        .ef_construction = m->geometry.ef_construction,
        .level_max = kithi_entry_level(word(&h->entry)),
        .quantization = m->geometry.quantization,
        .keep = m->geometry.keep,
        .quantization_wanted = m->geometry.quantization,
        .keep_wanted = m->geometry.keep,
        .code_bits = m->geometry.code_bits,
        .huge_bytes = word(&h->tally_huge),
        .huge_wanted_bytes = word(&h->tally_huge_wanted),
        .durable_epoch = word(&h->durable_epoch),
        .timeline = word(&h->timeline),
        .payload_count = word(&h->tally_payloads),
        .payload_bytes = word(&h->tally_payload_bytes),
        .index_declared = atomic_load_explicit(&h->declared, memory_order_relaxed) != 0,
        .index_fields = atomic_load_explicit(&h->tally_fields, memory_order_relaxed),
        .index_given_up = atomic_load_explicit(&h->tally_given_up, memory_order_relaxed),
        .index_whole = kithi_postings_whole(word(&h->postings)),
        .index_misfits = word(&h->tally_misfits),
    };
    s.durable_epoch = s.durable_epoch < s.epoch ? s.durable_epoch : s.epoch;
    for (unsigned r = 0; r < KITHI_REGION_COUNT; r++) {
        uint64_t taken = word(&h->taken[r]);
        s.bytes_taken += taken < m->layout.size[r] ? taken : m->layout.size[r];
    }
    kithi_call_end(index, c);
    ask_daemon(index, &s);
    return kithi_opts_out(out, &s, sizeof s, offsetof(struct kith_stats, quantization));
}

int kith_index_text(kith *index, char *out, size_t cap)
{
    char text[KITHI_DECLARED_TEXT_MAX + 1];
    struct kithi_declared d;
    struct kithi_call *c;
    struct kithi_view v;
    if (!index || (!out && cap))
        return -EINVAL;
    int rc = kithi_call_begin(index, &c);
    if (rc < 0)
        return rc;
    bool read = false;
    for (unsigned tries = 0; !read && tries < KITHI_RESTART_MAX; tries++) {
        kithi_view_begin(kithi_call_map(c), &v);
        read = kithi_postings_declared(&v, &d) && kithi_declared_print(&d, text);
    }
    kithi_call_end(index, c);
    if (!read)
        return KITHI_E_CORRUPT;
    if (cap) {
        size_t n = strlen(text) < cap ? strlen(text) : cap - 1;
        memcpy(out, text, n);
        out[n] = '\0';
    }
    return (int)strlen(text);
}

int kith_recall_curve(kith *index, struct kith_recall *out)
{
    return kith_recall_curve_of(index, KITHI_CURVE_K, out);
}

int kith_recall_curve_of(kith *index, uint32_t k, struct kith_recall *out)
{
    struct kithi_recall_curve c;
    struct kithi_call *call;
    if (!index || !out)
        return -EINVAL;
    int rc = kithi_call_begin(index, &call);
    if (rc < 0)
        return rc;
    for (unsigned number = 0; number < KITHI_CURVE_COUNT; number++) {
        kithi_recall_read(kithi_call_map(call), number, &c);
        if (c.count && c.k == k)
            break;
        c.count = 0;
    }
    kithi_call_end(index, call);
    struct kith_recall r = { .point_count = c.count };
    if (c.count) {
        r.k = c.k;
        r.samples = c.samples;
        r.epoch = c.epoch;
        r.since = c.since;
        r.kept_samples = c.kept_samples;
        for (unsigned i = 0; i < KITHI_CURVE_TARGETS; i++)
            r.kept[i] = (float)c.kept[i];
    }
    for (uint32_t i = 0; i < c.count; i++) {
        const struct kithi_recall_point *p = &c.points[i];
        double low = p->recall - p->half, high = p->recall + p->half;
        r.points[i] = (struct kith_recall_point){ .ef = p->ef,
                                                  .recall = (float)p->recall,
                                                  .low = (float)(low > 0 ? low : 0),
                                                  .high = (float)(high < 1 ? high : 1) };
    }
    rc = kithi_opts_out(out, &r, sizeof r, offsetof(struct kith_recall, kept));
    return rc < 0 ? rc : (int)c.count;
}
_Static_assert(KITH_RECALL_POINTS == KITHI_CURVE_POINTS, "kith.h and curve.h disagree");

/* The answer's text as the caller's own string, if it is one JSON value. */
static int copy_json(const struct kithi_answer *answer, char **out)
{
    struct kithi_json j;
    kithi_json_init(&j);
    kithi_json_begin(&j, answer->text, answer->head.text_len);
    kithi_json_skip(&j);
    int rc = kithi_json_finish(&j);
    kithi_json_fini(&j);
    if (rc < 0)
        return rc == -ENOMEM ? rc : KITHI_E_PROTOCOL;
    *out = strndup(answer->text, answer->head.text_len);
    return *out ? 0 : -ENOMEM;
}

int kith_daemon_stats(kith *index, char **out_json)
{
    struct kithi_answer answer;
    struct kithi_conn conn;
    if (!index || !out_json)
        return -EINVAL;
    kithi_conn_init(&conn);
    int rc = kithi_handle_connect(index, &conn, ALIVE_PATIENCE_MS, NULL);
    if (rc == 0) {
        struct iovec body = { .iov_base = index->uid, .iov_len = sizeof index->uid };
        rc = kithi_conn_call(&conn, KITHI_FRAME_STATS, 0, &body, 1, &answer);
    }
    if (rc == 0 && answer.head.status < 0)
        rc = answer.head.status == KITHI_E_NO_COLLECTION ? KITHI_E_REPLACED : answer.head.status;
    if (rc == 0)
        rc = copy_json(&answer, out_json);
    kithi_conn_close(&conn);
    /* Nothing was to be changed, so it does not matter when the daemon went away. */
    if (rc == KITHI_E_UNKNOWN_OUTCOME)
        rc = KITHI_E_NO_DAEMON;
    return rc == -EAGAIN ? KITHI_E_TIMEOUT : rc;
}
