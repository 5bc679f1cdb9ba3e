/*
 * copy.c - copying one index into another. See copy.h.
 *
 * Vectors are inserted as if they came anew: whatever the graph had suffered by deletions is left behind, and
 * each layout gets the graph that building with its own codes gives. A vector goes as it is when it is come to: one that has died by
 * then is passed over, since its death, and the birth of what replaced it, are among the changes that come later. A death is
 * copied as the deletion of its id, a birth as the vector in its slot with its payload, another payload as that, if that is still the one that was born, and alive. So the last
 * change of each id has the last word, and once all are copied both show the same.
 *
 * What is copied is born, and dies, at the epoch that `from` shows at that moment. Nobody reads `to` before the end, and whoever
 * does then begins at the last of these epochs; marks begin there, too: what died before was not copied, or not for long.
 */
#include "server/index/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "server/base/cgroup.h"
#include "server/base/fault.h"
#include "server/base/needs.h"
#include "server/index/index_priv.h"
#include "server/index/order.h"
#include "server/index/sampler.h"
#include "shm/base/assert.h"
#include "shm/base/bytes.h"
#include "shm/base/id.h"
#include "shm/graph/lookup.h"
#include "shm/graph/recall.h"

/* A part takes the workers about so long: one of the first pass, whose end nobody waits for, and one of changes, ... */
#define FIRST_US 40000.0
#define PART_US  8000.0
/* ... if it is of so many vectors, ... */
#define PART_MIN   32u
#define PART_MAX   2048u
#define PART_BYTES (4u << 20) /* of vectors */
/* ... and no more than so many deaths, and slots and changes of which nothing is to be copied. */
#define DEATHS_MAX 2048u
#define LOOKS_MAX  16384u
/* Nobody reads `to`, so the dead in it need not be waited for. */
#define GRACE_MS 1u
#define REST_MS  1u
/* An eighth more than there is. */
#define NEED_SHARE 8u
/* Changes that wait to be copied may take so much memory, or so many parts less than the copy. */
#define NOTES_MIN   (UINT64_C(64) << 20)
#define NOTES_SHARE 16u

enum work { WORK_NONE, WORK_ORDER, WORK_SWEEP, WORK_INSERT };

struct kithi_copy {
    struct kithi_index *from, *to;
    uint64_t epoch;            /* of the beginning */
    struct kithi_order *order; /* of the first pass; NULL: somebody else makes it */
    bool ordered;
    uint32_t next, end; /* slots of it, once they are ordered */
    enum work work;     /* jobs are staged */
    uint32_t jobs;
    uint64_t staged_us;
    uint64_t sweep_at_ms;
    uint32_t pending; /* ops that are gathered, and not staged for want of room that a sweep may make */
    uint32_t part, part_max, room;
    double insertion_us;
    uint64_t copied;
    uint64_t notes_most; /* bytes */
    bool took_notes;     /* the last part was one of changes */
    float *vectors;      /* of the part at hand, which the staged group points to */
    char *ids;           /* KITHI_ID_MAX + 1 bytes each */
    struct kithi_op *ops;
};

/* ---- room ---- */

uint64_t kithi_copy_need(const struct kithi_index *ix, const struct kithi_geometry *g)
{
    struct kithi_layout l;
    kithi_geometry_layout(g, &l);
    uint64_t live = ix->live + ix->live / NEED_SHARE, places = KITHI_IDS_CAPACITY_MIN,
             sum = KITHI_HEADER_SIZE;
    live = live < g->slot_max ? live : g->slot_max;
    while (places < 2 * live && places < l.id_capacity_max)
        places *= 2;
    for (unsigned r = KITHI_REGION_HEADER + 1; r < KITHI_REGION_COUNT; r++) {
        uint64_t items = live;
        if (r == KITHI_REGION_DOUBT)
            items = (live + 63) / 64;
        else if (r == KITHI_REGION_UPPER)
            items = live / (g->m - 1);
        else if (r == KITHI_REGION_IDS0)
            items = places;
        else if (r == KITHI_REGION_IDS1) /* the table before, half as large */
            items = places / 2;
        else if (kithi_region_blob_class(r) < KITHI_BLOB_CLASS_COUNT)
            items =
                ix->blob_used[kithi_region_blob_class(r)] - ix->blob_free[kithi_region_blob_class(r)].count;
        uint64_t bytes = items * l.unit[r];
        bytes = bytes < l.size[r] ? bytes : l.size[r];
        sum += bytes ? kithi_round_up(bytes + kithi_space_step(bytes), 4096) : 0;
    }
    return sum;
}

static uint64_t notes_most(uint64_t need)
{
    return need / NOTES_SHARE > NOTES_MIN ? need / NOTES_SHARE : NOTES_MIN;
}

static unsigned long long mib(uint64_t bytes)
{
    return (unsigned long long)(bytes + (1u << 20) - 1) >> 20;
}

int kithi_copy_ask(const struct kithi_index *ix, const struct kithi_geometry *g, struct kithi_errmsg *err)
{
    struct statvfs fs;
    uint64_t need = kithi_copy_need(ix, g), left = kithi_cgroup_left("");
    if (KITHI_FAULT("copy-ask-no-space"))
        return kithi_error_set(err, KITHI_E_NO_SPACE, "no room for two generations: a test wants it so");
    if (fstatvfs(ix->fd, &fs) == 0 && fs.f_blocks > 0) {
        uint64_t reserve = kithi_need_reserve((uint64_t)fs.f_blocks * fs.f_frsize);
        uint64_t there = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (there < need + reserve)
            return kithi_error_set(
                err, KITHI_E_NO_SPACE,
                "no room for a second generation beside this one: it needs about %llu MiB, and the run directory's "
                "file system has %llu MiB free (%llu MiB of them are kept in reserve); enlarge the tmpfs",
                mib(need), mib(there), mib(reserve));
    }
    if (need + notes_most(need) > left)
        return kithi_error_set(
            err, KITHI_E_NO_SPACE,
            "no room for a second generation beside this one: it needs about %llu MiB and up to %llu MiB for what "
            "changes meanwhile, and the cgroup's memory limit leaves %llu MiB; raise it",
            mib(need), mib(notes_most(need)), mib(left));
    return 0;
}

/* ---- beginning and end ---- */

int kithi_copy_begin(struct kithi_index *from, struct kithi_copy **out, struct kithi_errmsg *err)
{
    KITHI_ASSERT(!kithi_index_census_due(from));
    struct kithi_copy *c = calloc(1, sizeof *c);
    if (!c)
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    c->from = from;
    c->epoch = from->epoch;
    kithi_journal_begin(from);
    *out = c;
    return 0;
}

static int begin_into(struct kithi_copy *c, struct kithi_index *to, struct kithi_errmsg *err)
{
    const uint32_t dim = c->from->map.geometry.dim;
    KITHI_ASSERT(dim == to->map.geometry.dim && c->from->map.geometry.metric == to->map.geometry.metric);
    KITHI_ASSERT(!c->to && to->sealed == 0 && !to->sweep.running && to->epoch <= c->epoch);
    size_t part = PART_BYTES / (dim * sizeof(float));
    part = part < PART_MIN ? PART_MIN : part > PART_MAX ? PART_MAX : part;
    c->part_max = (uint32_t)part;
    c->part = 8 * PART_MIN < c->part_max ? 8 * PART_MIN : c->part_max;
    c->room = c->part_max + DEATHS_MAX;
    c->vectors = malloc(part * dim * sizeof *c->vectors);
    c->ids = malloc(part * (KITHI_ID_MAX + 1));
    c->ops = malloc(c->room * sizeof *c->ops);
    if (!c->vectors || !c->ids || !c->ops)
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    c->to = to;
    c->notes_most = notes_most(kithi_copy_need(c->from, &to->map.geometry));
    kithi_index_tune(to, GRACE_MS, REST_MS);
    return 0;
}

int kithi_copy_fill(struct kithi_copy *c, struct kithi_index *to, struct kithi_errmsg *err)
{
    KITHI_ASSERT(to->slots_used == 0);
    int rc = begin_into(c, to, err);
    if (rc == 0)
        rc = kithi_order_new(c->from, &c->order, err);
    return rc;
}

int kithi_copy_follow(struct kithi_copy *c, struct kithi_index *to, struct kithi_errmsg *err)
{
    return begin_into(c, to, err);
}

void kithi_copy_end(struct kithi_copy *c)
{
    if (!c)
        return;
    kithi_journal_end(c->from);
    kithi_order_free(c->order);
    free(c->vectors);
    free(c->ids);
    free(c->ops);
    free(c);
}

void kithi_copy_tune(struct kithi_copy *c, uint64_t most)
{
    KITHI_ASSERT(c->to);
    c->notes_most = most;
}

/* What was measured of one graph says something of another of the same layout; it is measured anew all the same. */
static void carry_over(const struct kithi_copy *c)
{
    struct kithi_geometry a = c->from->map.geometry, b = c->to->map.geometry;
    struct kithi_recall_curve curve;
    const struct kithi_header *from = c->from->header;
    struct kithi_header *to = c->to->header;
    a.slot_max = b.slot_max;
    if (memcmp(&a, &b, sizeof a) != 0)
        return;
    for (unsigned number = KITHI_CURVE_COUNT; number-- > 0;) {
        kithi_recall_read(&c->from->map, number, &curve);
        if (curve.count)
            kithi_curve_publish(c->to, number, &curve);
    }
    /* Relaxed: hints. */
    atomic_store_explicit(&to->prefetch_row, atomic_load_explicit(&from->prefetch_row, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&to->prefetch_code,
                          atomic_load_explicit(&from->prefetch_code, memory_order_relaxed),
                          memory_order_relaxed);
}

int kithi_copy_finish(struct kithi_copy *c, uint64_t now_ms, struct kithi_errmsg *err)
{
    const struct kithi_header *from = c->from->header;
    struct kithi_header *to = c->to->header;
    struct kithi_copy_state s;
    kithi_copy_state(c, &s);
    KITHI_ASSERT(s.whole && s.noted == s.taken && c->work == WORK_NONE && c->pending == 0);
    KITHI_ASSERT(c->from->sealed == 0 && kithi_group_job_count(kithi_group_open(c->from)) == 0);
    if (c->to->epoch != c->from->epoch)
        kithi_publish_group(c->to, c->from->epoch, c->from->epoch, now_ms); /* there was nothing to copy */
    if (c->to->live != c->from->live)
        return kithi_error_set(err, KITHI_E_CORRUPT, "the copy shows %llu vectors, and the original %llu",
                               (unsigned long long)c->to->live, (unsigned long long)c->from->live);
    /* Relaxed: nobody reads this segment before it is in its place. */
    atomic_store_explicit(&to->durable_epoch,
                          atomic_load_explicit(&from->durable_epoch, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&to->timeline, atomic_load_explicit(&from->timeline, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&to->unlinked, c->from->epoch, memory_order_relaxed);
    atomic_store_explicit(&to->reused, c->from->epoch, memory_order_relaxed);
    carry_over(c);
    return 0;
}

/* ---- stages ---- */

void kithi_copy_state(const struct kithi_copy *c, struct kithi_copy_state *out)
{
    const struct journal *j = &c->from->journal;
    uint32_t left = !c->order ? 0 : c->ordered ? c->end - c->next : kithi_order_total(c->order);
    *out = (struct kithi_copy_state){ .whole = c->to && left == 0 && !c->pending && c->work == WORK_NONE,
                                      .slots_left = left,
                                      .slots = c->order ? kithi_order_total(c->order) : 0,
                                      .copied = c->copied,
                                      .noted = j->noted,
                                      .taken = j->taken,
                                      .crowded = c->to && j->bytes > c->notes_most,
                                      .insertion_us = c->insertion_us };
}

/* What was staged is done. */
static void complete(struct kithi_copy *c, uint64_t now_us)
{
    if (c->work == WORK_SWEEP)
        kithi_sweep_end(c->to, now_us / 1000);
    if (c->work == WORK_INSERT) {
        double us = (double)(now_us - c->staged_us) / c->jobs;
        c->insertion_us = c->insertion_us > 0 ? 0.75 * c->insertion_us + 0.25 * us : us;
        double part_us = c->next < c->end ? FIRST_US : PART_US;
        double part = c->insertion_us > 0 ? part_us / c->insertion_us : PART_MAX;
        c->part = part < PART_MIN ? PART_MIN : part < c->part_max ? (uint32_t)part : c->part_max;
        c->copied += c->jobs;
        kithi_publish_group(c->to, c->from->epoch, c->from->epoch, now_us / 1000);
        kithi_journal_forget_taken(c->from);
        KITHI_FAULT_CRASH("crash-in-copy");
    }
    c->work = WORK_NONE;
    if (c->order && !c->ordered && kithi_order_is_done(c->order)) {
        c->ordered = true;
        c->end = kithi_order_total(c->order);
    }
}

/* The newest payload of slot, which stays where it is until the op is staged: this thread forgets what was replaced. */
static void give_payload(struct kithi_copy *c, uint32_t slot, struct kithi_op *op)
{
    const unsigned char *bytes = NULL;
    uint32_t ref =
        atomic_load_explicit(&kithi_view_record(&c->from->view, slot)->payload, memory_order_relaxed);
    op->payload_len = kithi_payload_bytes(c->from, ref, &bytes);
    op->payload = bytes;
    op->flags = op->type == KITHI_OP_UPSERT ? KITHI_OP_PAYLOAD : 0;
}

/* The vector of slot, as op number n and vector number v of the part. */
static int put(struct kithi_copy *c, uint32_t slot, uint32_t n, uint32_t v, struct kithi_errmsg *err)
{
    const struct kithi_view *view = &c->from->view;
    const uint32_t dim = c->from->map.geometry.dim;
    float *vector = c->vectors + (size_t)v * dim;
    char *id = c->ids + (size_t)v * (KITHI_ID_MAX + 1);
    struct kithi_errmsg why;
    size_t len = kithi_view_id(view, slot, id);
    if (len == 0)
        return kithi_error_set(err, KITHI_E_CORRUPT, "the record of slot %u makes no sense", slot);
    int rc = kithi_group_vector_again(c->from, slot, vector, &why);
    if (rc < 0)
        return kithi_error_set(err, rc, "%s, in the vector of \"%.*s\"", why.text, (int)len, id);
    c->ops[n] = (struct kithi_op){
        .type = KITHI_OP_UPSERT, .id_len = (uint16_t)len, .dim = dim, .id = id, .vector = vector
    };
    give_payload(c, slot, &c->ops[n]);
    return 0;
}

/* The payload of slot alone, likewise: what there is by now, whatever has changed since. */
static int put_payload(struct kithi_copy *c, uint32_t slot, uint32_t n, uint32_t v, struct kithi_errmsg *err)
{
    char *id = c->ids + (size_t)v * (KITHI_ID_MAX + 1);
    size_t len = kithi_view_id(&c->from->view, slot, id);
    if (len == 0)
        return kithi_error_set(err, KITHI_E_CORRUPT, "the record of slot %u makes no sense", slot);
    c->ops[n] = (struct kithi_op){ .type = KITHI_OP_SET, .id_len = (uint16_t)len, .id = id };
    give_payload(c, slot, &c->ops[n]);
    return 0;
}

/* This thread publishes and frees, so what it sees of a record is not about to change. */
static bool is_alive(const struct kithi_copy *c, uint32_t slot, uint64_t *out_birth)
{
    const struct kithi_record *r = kithi_view_record(&c->from->view, slot);
    *out_birth = atomic_load_explicit(&r->birth, memory_order_relaxed);
    return *out_birth != 0 && atomic_load_explicit(&r->death, memory_order_relaxed) == 0;
}

/* Some of what was there at the beginning. Returns the ops. */
static int gather_first(struct kithi_copy *c, struct kithi_errmsg *err)
{
    uint32_t n = 0;
    uint64_t birth;
    for (uint32_t looks = 0; looks < LOOKS_MAX && n < c->part && c->next < c->end; looks++) {
        uint32_t slot = kithi_order_slot(c->order, c->next++);
        if (!is_alive(c, slot, &birth) || birth > c->epoch)
            continue;
        int rc = put(c, slot, n, n, err);
        if (rc < 0)
            return rc;
        n++;
    }
    return (int)n;
}

/* Some of what has changed since. */
static int gather_changes(struct kithi_copy *c, struct kithi_errmsg *err)
{
    uint32_t n = 0, vectors = 0;
    uint64_t birth;
    struct noted_change ch;
    for (uint32_t looks = 0; looks < LOOKS_MAX && vectors < c->part && n - vectors < DEATHS_MAX &&
                             kithi_journal_next(c->from, &ch);
         looks++) {
        if (ch.id_len) {
            c->ops[n++] =
                (struct kithi_op){ .type = KITHI_OP_DELETE, .id_len = (uint16_t)ch.id_len, .id = ch.id };
            continue;
        }
        if (!is_alive(c, ch.slot, &birth) || birth != ch.birth)
            continue;
        int rc = ch.payload ? put_payload(c, ch.slot, n, vectors, err) : put(c, ch.slot, n, vectors, err);
        if (rc < 0)
            return rc;
        n++;
        vectors++;
    }
    return (int)n;
}

/* Slots, or payloads that were replaced, that come free by themselves. */
static bool has_dead(const struct kithi_index *ix)
{
    return ix->dead.count + ix->resting.count + ix->old_payloads.count > 0;
}

/* Unlink and free what was copied and has died since, or was replaced, where it is time to. Returns the jobs of that. */
static uint32_t sweep(struct kithi_copy *c, uint64_t now_ms, bool hurry)
{
    uint32_t wait_ms;
    if (!has_dead(c->to) || (!hurry && now_ms < c->sweep_at_ms))
        return 0;
    if (hurry)
        kithi_sweep_hurry(c->to);
    uint32_t jobs = kithi_sweep_begin(c->to, now_ms, &wait_ms);
    c->sweep_at_ms =
        has_dead(c->to) ? now_ms + wait_ms : 0; /* with nothing left, what comes next is waited for anew */
    return jobs;
}

static int add(struct kithi_copy *c, struct kithi_errmsg *err)
{
    struct kithi_group_result result;
    if (KITHI_FAULT("copy-no-space"))
        return kithi_error_set(err, KITHI_E_NO_SPACE, "no room for the copy: a test wants it so");
    int rc = kithi_group_add(c->to, c->ops, c->pending, &result, err);
    if (rc < 0 && result.failed_item < c->pending) {
        struct kithi_errmsg why = *err;
        const struct kithi_op *op = &c->ops[result.failed_item];
        kithi_error_set(err, rc, "%s, in the copy of \"%.*s\"", why.text, (int)op->id_len, op->id);
    }
    return rc;
}

int kithi_copy_stage(struct kithi_copy *c, uint64_t now_us, bool last, struct kithi_errmsg *err)
{
    const uint64_t now_ms = now_us / 1000;
    complete(c, now_us);
    if (c->from->journal.lost)
        return kithi_error_set(err, -ENOMEM, "no memory to note what changes while the copy is made");
    if (c->order && !c->ordered) {
        c->work = WORK_ORDER;
        return 1;
    }
    bool starved = c->pending > 0;
    if (!last || starved) {
        c->jobs = sweep(c, now_ms, starved);
        if (c->jobs) {
            c->work = WORK_SWEEP;
            return (int)c->jobs;
        }
    }
    if (!starved) {
        /* A change may be copied before the first pass ends: whatever of its id that pass still comes to is dead. */
        bool crowded = c->from->journal.bytes > c->notes_most;
        c->took_notes = c->next == c->end || (crowded && !c->took_notes);
        int n = c->took_notes ? gather_changes(c, err) : gather_first(c, err);
        if (n <= 0)
            return n;
        c->pending = (uint32_t)n;
    }
    int rc = add(c, err);
    if ((rc == KITHI_E_FULL || rc == KITHI_E_NO_SPACE) && has_dead(c->to))
        return 0; /* the dead make room in a moment */
    if (rc < 0)
        return rc;
    c->pending = 0;
    c->jobs = kithi_group_job_count(kithi_group_open(c->to));
    if (c->jobs == 0) { /* deaths only */
        kithi_publish_group(c->to, c->from->epoch, c->from->epoch, now_ms);
        kithi_journal_forget_taken(c->from);
        return 0;
    }
    c->work = WORK_INSERT;
    c->staged_us = now_us;
    return (int)c->jobs;
}

void kithi_copy_job(struct kithi_copy *c, unsigned worker, uint32_t i)
{
    switch (c->work) {
    case WORK_ORDER: kithi_order_job(c->order); break;
    case WORK_SWEEP: kithi_sweep_job(c->to, worker, i); break;
    case WORK_INSERT: kithi_group_job(c->to, kithi_group_open(c->to), worker, i); break;
    case WORK_NONE: break;
    }
}
