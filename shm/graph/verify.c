/*
 * verify.c - every structural rule of a segment, checked while readers read and the writer writes.
 *
 * A check reads several words that the writer may change one after the other, so a check that fails says
 * only that something deserves another look. What fails becomes a suspect; suspects are looked at again, with
 * fresh limits and a fresh epoch, in rounds that wait longer and longer, and what holds once is acquitted. The
 * rules themselves hold after every single store of the writer, so a segment whose daemon was killed or
 * stopped in the middle of a commit is clean, too.
 *
 * Trusts nothing: every number is compared with the view's limits, every loop ends after a number of steps
 * that this process holds.
 */
#include "shm/graph/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/base/hash.h"
#include "shm/base/id.h"
#include "shm/graph/lookup.h"
#include "shm/graph/payload.h"
#include "shm/graph/reach.h"
#include "shm/graph/search.h"
#include "shm/graph/view.h"
#include "shm/kernel/bits.h"
#include "shm/layout/curve.h"
#include "shm/layout/ledger.h"
#include "shm/layout/notes.h"
#include "shm/postings/postings.h"
#include "shm/sync/slotbytes.h"

#define TERMS_WORDS      (1u << 17) /* of postings that are looked at for a slot, in the mean */
#define SUSPECT_MAX      16384u     /* more of them are judged before the pass goes on */
#define VIEW_SLOTS       256u       /* slots that are checked with one view */
#define WINDOW_TRIES     4u         /* a slot refilled so often under our eyes is left alone */
#define SEEN_PROBE_MAX   1024u      /* only chosen ids make a longer run of hashes in a half empty set */
#define UNIT_LENGTH_SLOP 1e-3       /* of a kept vector under cosine, its codec's own error apart */
#define SIGNS_SLOP       0.04       /* of <signs, difference>, relative: 2 % of the signs, in the mean */
#define FACTOR_SLOP      1e-2       /* of a neighbour code's factors, relative */
#define FACTOR_ROUNDING  1e-5       /* and of the sums that they are the difference of */
#define ELEMENT_ROUNDING 4e-6  /* of elements decoded and rotated in another order, relative to all of them */
#define SQUARE_MIN       1e-30 /* squares beyond are not said well by floats; no factor is judged by them */
#define SQUARE_MAX       1e30

enum check {
    CHECK_HEADER,
    CHECK_ENTRY,
    CHECK_RECORD, /* a: slot */
    CHECK_UPPER,  /* a: slot */
    CHECK_LINKS,  /* a: slot */
    CHECK_VECTOR, /* a: slot */
    CHECK_NEAR,   /* a: slot, whose neighbour codes are meant */
    CHECK_TERMS,  /* a: slot */
    CHECK_LOOKUP, /* a: slot */
    CHECK_TWINS,  /* a, b: two slots with one id */
    CHECK_PLACE,  /* a: place in the id table that was current when the pass began */
    CHECK_LIVE,
    CHECK_COUNT,
};

struct suspect {
    uint32_t check, a, b;
};

/* Copies of what a segment holds of vectors. */
struct desk {
    alignas(64) float centre[KITHI_BITS_WIDTH_MAX];
    alignas(64) float neighbour[KITHI_BITS_WIDTH_MAX];
    alignas(64) unsigned char code[sizeof(struct kithi_code_head) + KITHI_DIM_MAX * sizeof(float)];
    alignas(64) unsigned char again[sizeof(struct kithi_code_head) + KITHI_DIM_MAX * sizeof(float)];
    float vector[KITHI_DIM_MAX];
    uint64_t signs[KITHI_BITS_WIDTH_MAX / 64];
    unsigned char payload[KITHI_PAYLOAD_BYTES];
};

struct run {
    const struct kithi_map *map;
    kithi_verify_fn *fn;
    void *arg;
    const _Atomic bool *stop; /* NULL: nobody ends it early */
    struct kithi_verify_report report;
    uint64_t patience_ms; /* of one trial */
    uint64_t wait_left_ms;
    uint64_t terms_left; /* words of postings that are looked at */
    uint64_t id_table;   /* the header's word when the pass over the table began */
    struct desk *desk;
    struct suspect *suspects;
    uint32_t suspect_count, suspect_max;
    const char *rule; /* of the check that failed last */
    char text[256];
};

/* Say what is wrong; the value of a check that fails. */
static bool KITHI_PRINTF(3, 4) wrong(struct run *run, const char *rule, const char *fmt, ...)
{
    run->rule = rule;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(run->text, sizeof run->text, fmt, ap);
    va_end(ap);
    return false;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static bool check_identity(struct run *run, const struct kithi_header *h)
{
    const struct kithi_map *m = run->map;
    const struct kithi_geometry *g = &m->geometry;
    if (atomic_load_explicit(&h->magic, memory_order_relaxed) != KITHI_SEGMENT_MAGIC)
        return wrong(run, "header-identity", "the magic is gone");
    if (h->version != KITHI_FORMAT_VERSION || h->header_size != KITHI_HEADER_SIZE)
        return wrong(run, "header-identity", "version %u, header of %u bytes; expected %u and %u", h->version,
                     h->header_size, KITHI_FORMAT_VERSION, KITHI_HEADER_SIZE);
    if (h->incompat_flags)
        return wrong(run, "header-identity", "incompatible flags 0x%" PRIx64, h->incompat_flags);
    if (h->dim != g->dim || h->metric != g->metric || h->m != g->m ||
        h->ef_construction != g->ef_construction || h->quantization != g->quantization ||
        h->keep != g->keep || h->code_bits != g->code_bits || h->slot_max != g->slot_max)
        return wrong(run, "header-identity", "the geometry is not the one that was attached");
    if (h->layout_sum != m->layout.sum)
        return wrong(run, "header-identity", "layout sum %016" PRIx64 ", computed %016" PRIx64, h->layout_sum,
                     m->layout.sum);
    if (memcmp(h->uid, m->uid, sizeof m->uid) != 0 ||
        memcmp(h->hash_key, m->hash_key, sizeof m->hash_key) != 0 || h->generation != m->generation)
        return wrong(run, "header-identity", "uid, hash key or generation are not those that were attached");
    return true;
}

static const struct kithi_notes *notes_of(const struct kithi_view *v)
{
    return (const struct kithi_notes *)(const void *)(v->map->base + KITHI_NOTES_OFF);
}

/* Does somebody keep notes? Right behind a commit or an adoption the answer may be no for a moment. */
static bool are_kept(const struct kithi_view *v)
{
    const struct kithi_notes *n = notes_of(v);
    return atomic_load_explicit(&n->magic, memory_order_acquire) == KITHI_NOTES_MAGIC &&
           atomic_load_explicit(&n->wake, memory_order_relaxed) ==
               atomic_load_explicit(&v->header->wake, memory_order_relaxed);
}

static bool check_notes(struct run *run, const struct kithi_view *v)
{
    const struct kithi_notes *n = notes_of(v);
    if (!are_kept(v))
        return true;
    uint32_t count = atomic_load_explicit(&n->count, memory_order_acquire);
    uint32_t uppers = atomic_load_explicit(&n->upper_used, memory_order_relaxed);
    uint64_t epoch = atomic_load_explicit(&n->epoch, memory_order_relaxed);
    if (count > KITHI_NOTES_MAX && count != KITHI_NOTES_OVERFLOW)
        return wrong(run, "notes", "%u slots are noted, there is room for %u", count, KITHI_NOTES_MAX);
    if (uppers > v->upper_limit)
        return wrong(run, "notes", "%u upper rows are noted as used, there is memory for %u", uppers,
                     v->upper_limit);
    for (unsigned c = 0; c < KITHI_BLOB_CLASS_COUNT; c++)
        if (atomic_load_explicit(&n->blob_used[c], memory_order_relaxed) > v->blob_limit[c])
            return wrong(run, "notes", "more blobs of class %u are noted as used than there is memory for",
                         c);
    /* A group may be published meanwhile; nothing is noted ahead of it. */
    if (epoch > atomic_load_explicit(&v->header->epoch, memory_order_acquire))
        return wrong(run, "notes", "the last group is noted as that of epoch %" PRIu64, epoch);
    return true;
}

/* [P14 notes] What is beyond the epoch is noted. */
static bool is_noted(const struct kithi_view *v, uint32_t slot)
{
    const struct kithi_notes *n = notes_of(v);
    uint32_t count = atomic_load_explicit(&n->count, memory_order_acquire);
    if (!are_kept(v) || count > KITHI_NOTES_MAX)
        return true;
    for (uint32_t i = 0; i < count; i++)
        if (atomic_load_explicit(&n->slots[i], memory_order_relaxed) == slot)
            return true;
    return false;
}

static const struct kithi_curve *curve_of(const struct kithi_view *v, unsigned number)
{
    return (const struct kithi_curve *)(const void *)(v->map->base + KITHI_CURVE_OFF) + number;
}

static const struct kithi_ledger *ledger_of(const struct kithi_view *v)
{
    return (const struct kithi_ledger *)(const void *)(v->map->base + KITHI_LEDGER_OFF);
}

/* Readers get along with anything that stands there; a writer that stores other things than a curve is wrong all the same. */
static bool check_curve(struct run *run, const struct kithi_view *v, unsigned number)
{
    const struct kithi_curve *c = curve_of(v, number);
    if (atomic_load_explicit(&c->magic, memory_order_acquire) != KITHI_CURVE_MAGIC)
        return true;
    uint32_t k = atomic_load_explicit(&c->k, memory_order_relaxed), ef = 0;
    uint32_t count = atomic_load_explicit(&c->count, memory_order_relaxed);
    if (k < 1 || k > KITHI_K_MAX || count < 1 || count > KITHI_CURVE_POINTS)
        return wrong(run, "header-curve", "recall curve %u has %u points for k %u", number, count, k);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t point = atomic_load_explicit(&c->points[i], memory_order_relaxed);
        if (kithi_curve_ef(point) <= ef || kithi_curve_ef(point) > KITHI_EF_MAX ||
            kithi_curve_recall(point) > KITHI_CURVE_UNIT)
            return wrong(run, "header-curve", "point %u of recall curve %u makes no sense: 0x%" PRIx64, i,
                         number, point);
        ef = kithi_curve_ef(point);
    }
    return true;
}

static bool check_reserved(struct run *run, const struct kithi_view *v)
{
    const struct kithi_header *h = v->header;
    const struct kithi_ledger *l = ledger_of(v);
    bool zero = all_zero(h->reserved0, sizeof h->reserved0) && all_zero(h->reserved1, sizeof h->reserved1) &&
                all_zero(h->reserved2, sizeof h->reserved2) && all_zero(h->reserved3, sizeof h->reserved3) &&
                all_zero(h->reserved4, sizeof h->reserved4) && l->reserved0 == 0 && l->reserved1 == 0 &&
                all_zero(l->reserved2, sizeof l->reserved2) &&
                all_zero((const uint8_t *)(l + 1), KITHI_NOTES_OFF - KITHI_LEDGER_OFF - sizeof *l) &&
                all_zero(notes_of(v)->reserved, sizeof notes_of(v)->reserved);
    for (unsigned i = 0; i < KITHI_CURVE_COUNT; i++)
        zero = zero && all_zero(curve_of(v, i)->reserved, sizeof curve_of(v, i)->reserved);
    return zero || wrong(run, "header-reserved", "a reserved byte is not zero");
}

static bool check_header(struct run *run, const struct kithi_view *v)
{
    const struct kithi_header *h = v->header;
    const struct kithi_layout *l = &run->map->layout;
    if (!check_identity(run, h))
        return false;

    uint64_t header_taken = atomic_load_explicit(&h->taken[KITHI_REGION_HEADER], memory_order_acquire);
    for (unsigned i = 0; i < KITHI_REGION_COUNT; i++) {
        uint64_t taken = atomic_load_explicit(&h->taken[i], memory_order_acquire);
        if (taken > l->size[i])
            return wrong(run, "header-taken", "region %s has %" PRIu64 " bytes taken of %" PRIu64,
                         kithi_region_name(i), taken, l->size[i]);
    }
    if (header_taken < KITHI_HEADER_SIZE)
        return wrong(run, "header-taken", "the header has %" PRIu64 " bytes taken, it needs %u", header_taken,
                     KITHI_HEADER_SIZE);
    if (!check_reserved(run, v) || !check_notes(run, v))
        return false;
    for (unsigned i = 0; i < KITHI_CURVE_COUNT; i++)
        if (!check_curve(run, v, i))
            return false;

    uint64_t used = atomic_load_explicit(&h->slots_used, memory_order_acquire);
    if (used > v->slot_limit)
        return wrong(run, "header-slots", "%" PRIu64 " slots are used, there is memory for %u", used,
                     v->slot_limit);

    uint64_t ids = atomic_load_explicit(&h->id_table, memory_order_acquire);
    if (ids) {
        unsigned area = kithi_ids_area(ids), log2 = kithi_ids_log2(ids);
        if (area > 1 || log2 < KITHI_IDS_CAPACITY_MIN_LOG2 || log2 > 32 ||
            UINT64_C(1) << log2 > l->id_capacity_max)
            return wrong(run, "header-ids", "id table in area %u with 2^%u places", area, log2);
        uint64_t taken = atomic_load_explicit(&h->taken[KITHI_REGION_IDS0 + area], memory_order_acquire);
        if (sizeof(uint64_t) << log2 > taken)
            return wrong(run, "header-ids", "id table with 2^%u places, area %u has %" PRIu64 " bytes taken",
                         log2, area, taken);
    }
    return true;
}

static bool check_entry(struct run *run, const struct kithi_view *v)
{
    uint64_t entry = atomic_load_explicit(&v->header->entry, memory_order_acquire);
    uint32_t link = kithi_entry_link(entry), level = kithi_entry_level(entry);
    if (entry == 0) {
        if (run->report.live_count && atomic_load_explicit(&v->header->live, memory_order_relaxed))
            return wrong(run, "entry", "there is no entry point to %" PRIu64 " vectors",
                         run->report.live_count);
        return true;
    }
    if (link == 0 || link > v->slots_used)
        return wrong(run, "entry", "the entry point is slot + 1 = %u of %u", link, v->slots_used);
    const struct kithi_record *r = kithi_view_record(v, link - 1);
    if (atomic_load_explicit(&r->linked, memory_order_relaxed) != 1)
        return wrong(run, "entry", "the entry point, slot %u, is not linked", link - 1);
    uint32_t own = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
    if (level > KITHI_LEVEL_MAX || level != own)
        return wrong(run, "entry", "the entry point is slot %u at level %u, its level is %u", link - 1, level,
                     own);
    return true;
}

/* The id of a record whose birth is not 0, inside the caller's birth window. */
static bool check_id(struct run *run, const struct kithi_view *v, uint32_t slot, const struct kithi_record *r)
{
    char id[KITHI_ID_MAX + 1];
    uint32_t len = kithi_meta_id_len(atomic_load_explicit(&r->meta, memory_order_relaxed));
    if (len == 0 || len > KITHI_ID_MAX)
        return wrong(run, "record-id", "slot %u has an id of %u bytes", slot, len);
    if (len > KITHI_ID_INLINE) {
        uint64_t ref = atomic_load_explicit(&r->id[0], memory_order_relaxed);
        uint32_t capacity;
        const struct kithi_blob *b = kithi_view_blob(v, ref, &capacity);
        if (!b)
            return wrong(run, "record-blob",
                         "slot %u keeps its id in blob %016" PRIx64 ", which does not exist", slot, ref);
        uint32_t owner = atomic_load_explicit(&b->owner, memory_order_relaxed);
        uint32_t held = atomic_load_explicit(&b->len, memory_order_relaxed);
        if (owner != slot + 1)
            return wrong(run, "record-blob", "slot %u keeps its id in blob %016" PRIx64 ", whose owner is %u",
                         slot, ref, owner);
        if (held != len || len > capacity)
            return wrong(run, "record-blob", "the id of slot %u has %u bytes, its blob says %u of %u", slot,
                         len, held, capacity);
    } else {
        uint64_t words[3];
        for (unsigned i = 0; i < 3; i++)
            words[i] = atomic_load_explicit(&r->id[i], memory_order_relaxed);
        uint8_t bytes[KITHI_ID_INLINE];
        memcpy(bytes, words, sizeof bytes);
        if (!all_zero(bytes + len, KITHI_ID_INLINE - len))
            return wrong(run, "record-id", "the id of slot %u is not padded with zeros", slot);
    }
    if (kithi_view_id(v, slot, id) != len || !kithi_id_valid(id, len))
        return wrong(run, "record-id", "the id of slot %u is not valid UTF-8 without NUL", slot);
    return true;
}

/* The newest version of a payload, of a slot of that birth: the slot's own, and born with it or after it. */
static bool check_payload(struct run *run, const struct kithi_view *v, uint32_t slot, uint64_t slot_birth,
                          uint32_t ref)
{
    struct kithi_view now;
    struct kithi_payload_blob b;
    if (!ref)
        return true;
    kithi_view_begin(v->map, &now); /* it may lie where there was no memory when v began */
    if (!kithi_view_payload_blob(&now, ref, &b))
        return wrong(run, "record-payload", "slot %u has its payload in blob %08x, which does not exist",
                     slot, ref);
    uint64_t birth = atomic_load_explicit(&b.blob->birth, memory_order_relaxed);
    uint32_t owner = atomic_load_explicit(&b.blob->owner, memory_order_relaxed);
    uint32_t len = atomic_load_explicit(&b.blob->len, memory_order_relaxed);
    if (owner != slot + 1)
        return wrong(run, "record-payload", "slot %u has its payload in blob %08x, whose owner is %u", slot,
                     ref, owner);
    if (birth < slot_birth)
        return wrong(run, "record-payload",
                     "the payload of slot %u, born at %" PRIu64 ", is of epoch %" PRIu64, slot, slot_birth,
                     birth);
    if (len > b.capacity)
        return wrong(run, "record-payload", "the payload of slot %u has %u bytes, its blob holds %u", slot,
                     len, b.capacity);
    return true;
}

static bool check_record_once(struct run *run, const struct kithi_view *v, uint32_t slot, bool *out_same)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    uint64_t birth = kithi_birth_begin(r);
    uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
    uint32_t linked = atomic_load_explicit(&r->linked, memory_order_relaxed);
    uint32_t meta = atomic_load_explicit(&r->meta, memory_order_relaxed);
    bool doubt = kithi_view_doubt(v, slot), ok = true, replaced = false;

    if (linked > 1)
        ok = wrong(run, "record-state", "slot %u: linked is %u", slot, linked);
    else if (linked == 0 && kithi_visible_at(birth, death, v->epoch))
        ok = wrong(run, "record-state",
                   "slot %u is visible (birth %" PRIu64 ", death %" PRIu64 ") and not linked", slot, birth,
                   death);
    else if (linked == 1 && birth && death && death < birth)
        ok = wrong(run, "record-state", "slot %u died at %" PRIu64 " and was born at %" PRIu64, slot, death,
                   birth);
    else if (!doubt && (linked == 0 || birth == 0 || birth > v->epoch || death != 0))
        ok = wrong(run, "doubt",
                   "slot %u is not plainly alive (linked %u, birth %" PRIu64 ", death %" PRIu64
                   ", epoch %" PRIu64 ") and has no doubt bit",
                   slot, linked, birth, death, v->epoch);
    else if (linked == 1 && (birth ? birth > v->epoch || death > v->epoch : death == 0) && !is_noted(v, slot))
        ok = wrong(run, "notes",
                   "slot %u (birth %" PRIu64 ", death %" PRIu64 ") is beyond epoch %" PRIu64
                   " and is not noted",
                   slot, birth, death, v->epoch);
    else if (linked == 1 && kithi_meta_level(meta) > KITHI_LEVEL_MAX)
        ok = wrong(run, "record-level", "slot %u is at level %u, the highest is %u", slot,
                   kithi_meta_level(meta), KITHI_LEVEL_MAX);
    else if (linked == 1 && birth != 0) {
        uint32_t prev = atomic_load_explicit(&r->prev, memory_order_relaxed);
        /* [P18 payload] acquire: what it leads to has its memory, its owner and its birth. */
        uint32_t payload = atomic_load_explicit(&r->payload, memory_order_acquire);
        if (prev > v->slots_used)
            ok = wrong(run, "record-prev", "slot %u refers to the version in slot + 1 = %u of %u", slot, prev,
                       v->slots_used);
        else
            ok = check_id(run, v, slot, r) && check_payload(run, v, slot, birth, payload);
        /* The version that a record refers to is not freed; another one may have taken its place. */
        atomic_thread_fence(memory_order_acquire);
        replaced = atomic_load_explicit(&r->payload, memory_order_relaxed) != payload;
    }
    *out_same = kithi_birth_same(r, birth) && !replaced;
    return ok;
}

static bool check_record(struct run *run, const struct kithi_view *v, uint32_t slot)
{
    bool same, ok = true;
    for (unsigned i = 0; i < WINDOW_TRIES; i++) {
        ok = check_record_once(run, v, slot, &same);
        if (same)
            return ok;
    }
    return true;
}

/* The chain of upper rows: as many as the level says, each owned by the slot. */
static bool check_upper(struct run *run, const struct kithi_view *v, uint32_t slot)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    if (atomic_load_explicit(&r->linked, memory_order_acquire) != 1)
        return true;
    uint32_t level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
    if (level > KITHI_LEVEL_MAX)
        return true; /* check_record() tells it */
    uint32_t ref = atomic_load_explicit(&r->upper, memory_order_acquire);
    for (uint32_t at = 1; at <= level; at++) {
        if (ref == 0 || ref > v->upper_limit)
            return wrong(run, "upper-chain", "slot %u: the row of level %u of %u is row + 1 = %u of %u", slot,
                         at, level, ref, v->upper_limit);
        const struct kithi_upper *u = kithi_view_upper(v, ref - 1);
        uint32_t owner = atomic_load_explicit(&u->owner, memory_order_relaxed);
        if (owner != slot + 1)
            return wrong(run, "upper-owner", "upper row %u serves slot %u at level %u, its owner is %u",
                         ref - 1, slot, at, owner);
        ref = atomic_load_explicit(&u->up, memory_order_acquire);
    }
    if (ref)
        return wrong(run, "upper-chain", "slot %u has a row above its level %u", slot, level);
    return true;
}

static bool check_row(struct run *run, const struct kithi_view *v, uint32_t slot, unsigned level)
{
    uint32_t count, seen[2 * KITHI_M_MAX], n = 0;
    const kithi_link *links = kithi_view_links(v, slot, level, &count);
    if (!links)
        return true; /* check_upper() tells it */
    const char *rule = level ? "upper-link" : "row-link";
    for (uint32_t i = 0; i < count; i++) {
        uint32_t link = atomic_load_explicit(&links[i], memory_order_acquire);
        if (link == 0)
            continue;
        if (link > v->slots_used)
            return wrong(run, rule, "slot %u, level %u, place %u leads to slot + 1 = %u of %u", slot, level,
                         i, link, v->slots_used);
        if (link == slot + 1)
            return wrong(run, rule, "slot %u, level %u, place %u leads to itself", slot, level, i);
        for (uint32_t j = 0; j < n; j++)
            if (seen[j] == link)
                return wrong(run, rule, "slot %u, level %u leads to slot %u twice", slot, level, link - 1);
        seen[n++] = link;
        const struct kithi_record *to = kithi_view_record(v, link - 1);
        if (atomic_load_explicit(&to->linked, memory_order_relaxed) != 1)
            return wrong(run, rule, "slot %u, level %u, place %u leads to slot %u, which is not linked", slot,
                         level, i, link - 1);
        uint32_t top = kithi_meta_level(atomic_load_explicit(&to->meta, memory_order_relaxed));
        if (top < level)
            return wrong(run, rule, "slot %u, level %u, place %u leads to slot %u, whose level is %u", slot,
                         level, i, link - 1, top);
    }
    return true;
}

static bool check_links(struct run *run, const struct kithi_view *v, uint32_t slot)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    if (atomic_load_explicit(&r->linked, memory_order_acquire) != 1)
        return true;
    uint32_t level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
    for (unsigned at = 0; at <= level && at <= KITHI_LEVEL_MAX; at++)
        if (!check_row(run, v, slot, at))
            return false;
    return true;
}

static double square_length(const float *v, uint32_t dim)
{
    double sum = 0;
    for (uint32_t i = 0; i < dim; i++)
        sum += (double)v[i] * (double)v[i];
    return sum;
}

/* How far from 1 the length of a unit vector may come back: sq8 is half a step wrong in every element at most. */
static double unit_slop(enum kithi_codec codec, const unsigned char *code, uint32_t dim)
{
    struct kithi_code_head head;
    if (codec != KITHI_CODEC_SQ8)
        return UNIT_LENGTH_SLOP;
    memcpy(&head, code, sizeof head);
    double step = fmin(fabs((double)head.scale), 2.0 / 255.0); /* from -1 to 1 */
    return UNIT_LENGTH_SLOP + step / 2 * sqrt(dim);
}

/* What distances take from a code's head instead of its elements. */
static bool check_head(struct run *run, uint32_t slot, enum kithi_codec codec)
{
    struct kithi_code_head head;
    uint32_t dim = run->map->geometry.dim, sum = 0, squares = 0;
    const unsigned char *code = run->desk->code;
    if (codec == KITHI_CODEC_F32)
        return true;
    memcpy(&head, code, sizeof head);
    for (uint32_t i = 0; codec == KITHI_CODEC_SQ8 && i < dim; i++) {
        uint32_t u = code[sizeof head + i];
        sum += u;
        squares += u * u;
    }
    if (head.sum != sum || head.squares != squares)
        return wrong(
            run, "code",
            "the bytes of the code of slot %u add up to %u, their squares to %u; its head says %u and %u",
            slot, sum, squares, head.sum, head.squares);
    return true;
}

/* Both forms of one vector, a being rounded to halves and b to 255 steps between its least and largest element. */
static bool check_forms(struct run *run, uint32_t slot, const float *a, const float *b)
{
    uint32_t dim = run->map->geometry.dim;
    float least, largest;
    kithi_floats_range(a, dim, &least, &largest);
    double half_step = ((double)largest - (double)least) / 510;
    double slop = half_step * 1.01 + fmax(fabs((double)least), fabs((double)largest)) * 0x1p-10 + 0x1p-126;
    for (uint32_t i = 0; i < dim; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= slop))
            return wrong(run, "code", "element %u of the code of slot %u is %g, of its vector %g", i, slot,
                         (double)b[i], (double)a[i]);
    return true;
}

/* The code that the walk reads, beside a kept vector. */
static bool check_code(struct run *run, const struct kithi_view *v, uint32_t slot)
{
    struct desk *d = run->desk;
    uint32_t dim = run->map->geometry.dim, size = kithi_code_size(v->walked, dim);
    kithi_slot_load(d->code, kithi_view_code(v, slot), size);
    if (v->kept == KITHI_CODEC_F32) {
        kithi_code_encode(v->walked, d->vector, dim, d->again);
        return memcmp(d->code, d->again, size) == 0 ||
               wrong(run, "code", "the code of slot %u is not that of its vector", slot);
    }
    float *decoded = (float *)(void *)d->again;
    kithi_code_decode(v->walked, d->code, dim, decoded);
    return check_forms(run, slot, d->vector, decoded) && check_head(run, slot, v->walked);
}

static bool check_vector_once(struct run *run, const struct kithi_view *v, uint32_t slot, bool *out_same)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    struct desk *d = run->desk;
    uint32_t dim = run->map->geometry.dim;
    uint64_t birth = kithi_birth_begin(r);
    *out_same = true;
    if (birth == 0 || atomic_load_explicit(&r->linked, memory_order_relaxed) != 1)
        return true;

    bool ok = true;
    kithi_slot_load(d->code, kithi_view_vector(v, slot), kithi_code_size(v->kept, dim));
    kithi_code_decode(v->kept, d->code, dim, d->vector);
    uint32_t bits = atomic_load_explicit(&r->norm, memory_order_relaxed);
    float norm;
    memcpy(&norm, &bits, sizeof norm);
    double length = sqrt(square_length(d->vector, dim));
    if (!kithi_floats_finite(d->vector, dim))
        ok = wrong(run, "vector", "the vector of slot %u holds NaN or infinity", slot);
    else if (run->map->geometry.metric == KITHI_METRIC_COSINE) {
        if (!(norm > 0) || !isfinite(norm))
            ok = wrong(run, "norm", "the norm of slot %u is %g", slot, (double)norm);
        else if (fabs(length - 1) > unit_slop(v->kept, d->code, dim))
            ok = wrong(run, "vector", "the vector of slot %u has length %.6f, not 1", slot, length);
    }
    ok = ok && check_head(run, slot, v->kept);
    ok = ok && (v->kept == v->walked || check_code(run, v, slot));
    *out_same = kithi_birth_same(r, birth);
    return ok;
}

static bool check_vector(struct run *run, const struct kithi_view *v, uint32_t slot)
{
    bool same, ok = true;
    for (unsigned i = 0; i < WINDOW_TRIES; i++) {
        ok = check_vector_once(run, v, slot, &same);
        if (same)
            return ok;
    }
    return true;
}

/* The code of slot as neighbour codes are made from it. */
static void rotated(const struct kithi_view *v, uint32_t slot, float *out)
{
    uint32_t dim = v->map->geometry.dim;
    kithi_view_decode_code(v, slot, out);
    memset(out + dim, 0, (v->bits_width - dim) * sizeof *out);
    kithi_bits_rotate(out, v->bits_width);
}

/*
 * The neighbour code and factors of one link (bits.h), against the two codes: signs that point along the
 * difference, and the factors that belong to these very signs, so that elements at 0 may have either.
 */
static bool check_neighbour(struct run *run, const struct kithi_view *v, uint32_t slot, uint32_t place,
                            float f1, float f2)
{
    const struct desk *d = run->desk;
    double length1 = 0, length2 = 0, along = 0, centre1 = 0, centre_signs = 0, centre_along = 0;
    for (uint32_t i = 0; i < v->bits_width; i++) {
        double c = (double)d->centre[i], r = (double)d->neighbour[i] - c;
        double sign = d->signs[i / 64] >> (i % 64) & 1 ? 1 : -1;
        length1 += fabs(r);
        length2 += r * r;
        along += sign * r;
        centre1 += fabs(c);
        centre_signs += sign * c;
        centre_along += r * c;
    }
    if (!isfinite(length1) || !isfinite(centre1))
        return true; /* elements near the largest floats: their rotation is beyond them, and estimates say nothing */
    if (length1 == 0)
        return (f1 == 0 && f2 == 0) ||
               wrong(run, "neighbour-code",
                     "slot %u, place %u leads to an equal vector with factors %g and %g", slot, place,
                     (double)f1, (double)f2);
    /* Nearly equal vectors: what is left of their difference is rounding, in part. */
    double dust = ELEMENT_ROUNDING * centre1 / length1, slop = FACTOR_SLOP + dust;
    if (!(length1 - along <= (SIGNS_SLOP + dust) * length1))
        return wrong(run, "neighbour-code", "slot %u, place %u: the signs give %.3f of the difference, not 1",
                     slot, place, along / length1);
    if (length2 < SQUARE_MIN || length2 > SQUARE_MAX || centre1 > SQUARE_MAX)
        return true;
    bool l2 = run->map->geometry.metric == KITHI_METRIC_L2;
    double slope = length2 / length1, want2 = l2 ? -2 * slope : -slope;
    double want1 = l2 ? length2 + 2 * slope * centre_signs : slope * centre_signs - centre_along;
    double slop1 = FACTOR_SLOP * (length2 + fabs(want1)) + (FACTOR_ROUNDING + dust) * slope * centre1;
    if (!(fabs((double)f2 - want2) <= slop * slope) || !(fabs((double)f1 - want1) <= slop1))
        return wrong(run, "neighbour-code", "slot %u, place %u has factors %g and %g, not %g and %g", slot,
                     place, (double)f1, (double)f2, want1, want2);
    return true;
}

/* The neighbour codes of a row, each as long as its link stays the same. */
static bool check_near(struct run *run, const struct kithi_view *v, uint32_t slot)
{
    struct desk *d = run->desk;
    const kithi_link *row = kithi_view_row(v, slot);
    if (v->bits_width == 0 ||
        atomic_load_explicit(&kithi_view_record(v, slot)->linked, memory_order_acquire) != 1)
        return true;
    rotated(v, slot, d->centre);
    for (uint32_t i = 0; i < v->link_count0; i++) {
        const unsigned char *block = kithi_view_block(v, slot, i / KITHI_BITS_PLACES);
        uint32_t at = i % KITHI_BITS_PLACES, link = atomic_load_explicit(&row[i], memory_order_acquire);
        float f1, f2;
        if (link == 0 || link > v->slots_used)
            continue; /* check_row() tells it */
        rotated(v, link - 1, d->neighbour);
        kithi_bits_get(block, v->bits_width, at, d->signs);
        kithi_bits_factors(block, at, &f1, &f2);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&row[i], memory_order_relaxed) == link &&
            !check_neighbour(run, v, slot, i, f1, f2))
            return false;
    }
    return true;
}

/* Copy the id of a slot that v sees; its length, or 0 when v does not see it or the id is bad. */
static size_t visible_id(const struct kithi_view *v, uint32_t slot, char *out_id, uint64_t *out_birth)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    if (!kithi_view_visible(v, r, out_birth))
        return 0;
    size_t len = kithi_view_id(v, slot, out_id);
    return kithi_birth_same(r, *out_birth) ? len : 0;
}

/* Every id that can be seen is found, and leads here. */
/* Postings lead to a slot by each term of its payload. */
struct led {
    struct run *run;
    const struct kithi_view *view;
    uint32_t slot;
    bool ok;
};

static bool check_term(void *arg, const struct kithi_term *t)
{
    struct led *l = arg;
    if (!kithi_postings_leads(l->view, t, l->slot, &l->run->terms_left))
        l->ok = wrong(l->run, "postings", "slot %u has a value in field %.*s by which it is not found",
                      l->slot, (int)(t->path_len < 100 ? t->path_len : 100), t->path);
    return l->ok;
}

static bool check_terms(struct run *run, const struct kithi_view *v, uint32_t slot)
{
    struct kithi_payload p = { .bytes = run->desk->payload };
    struct led l = { .run = run, .view = v, .slot = slot, .ok = true };
    const struct kithi_record *r = kithi_view_record(v, slot);
    uint64_t birth;
    if (!kithi_postings_whole(v->postings) || !kithi_view_visible(v, r, &birth) ||
        kithi_view_payload(v, slot, birth, run->desk->payload, &p.len) != KITHI_PAYLOAD_FOUND)
        return true;
    kithi_terms_each(&p, run->map->hash_key, check_term, &l);
    return l.ok || !kithi_postings_fresh(v);
}

static bool check_lookup(struct run *run, const struct kithi_view *v, uint32_t slot)
{
    char id[KITHI_ID_MAX + 1];
    uint64_t birth, later_birth;
    size_t len = visible_id(v, slot, id, &birth);
    if (len == 0)
        return true;
    struct kithi_found found = { 0 };
    int rc = kithi_lookup(run->map, id, len, NULL, &found);
    if ((rc == 0 && found.slot == slot) || (rc != 0 && rc != KITHI_E_NOT_FOUND))
        return true;
    /* Seen before the look-up and after it is seen during it. */
    struct kithi_view later;
    kithi_view_begin(run->map, &later);
    if (!kithi_view_visible(&later, kithi_view_record(v, slot), &later_birth) || later_birth != birth)
        return true;
    if (rc == 0)
        return wrong(run, "id-lookup", "the id of slot %u leads to slot %u", slot, found.slot);
    return wrong(run, "id-lookup", "the id of slot %u (born at %" PRIu64 ") is not found", slot, birth);
}

static bool check_twins(struct run *run, const struct kithi_view *v, uint32_t a, uint32_t b)
{
    char id_a[KITHI_ID_MAX + 1], id_b[KITHI_ID_MAX + 1];
    uint64_t birth_a, birth_b;
    size_t len_a = visible_id(v, a, id_a, &birth_a), len_b = visible_id(v, b, id_b, &birth_b);
    if (len_a == 0 || len_a != len_b || memcmp(id_a, id_b, len_a) != 0)
        return true;
    return wrong(run, "id-unique", "slots %u and %u hold the same id (births %" PRIu64 " and %" PRIu64 ")", a,
                 b, birth_a, birth_b);
}

static const _Atomic uint64_t *id_places(const struct kithi_map *map, uint64_t word)
{
    return (
        const _Atomic uint64_t *)(const void *)(map->base +
                                                map->layout.off[KITHI_REGION_IDS0 + kithi_ids_area(word)]);
}

/* An entry of the id table leads to a linked slot whose id hashes to about here. */
static bool check_place(struct run *run, const struct kithi_view *v, uint32_t place)
{
    if (atomic_load_explicit(&v->header->id_table, memory_order_acquire) != run->id_table)
        return true; /* a table of the past */
    uint64_t entry = atomic_load_explicit(&id_places(run->map, run->id_table)[place], memory_order_acquire);
    uint32_t link = kithi_ids_link(entry);
    if (entry == 0 || link == KITHI_IDS_TOMBSTONE)
        return true;
    if (link == 0 || link > v->slots_used)
        return wrong(run, "id-entry", "place %u of the id table leads to slot + 1 = %u of %u", place, link,
                     v->slots_used);
    const struct kithi_record *r = kithi_view_record(v, link - 1);
    uint64_t birth = kithi_birth_begin(r);
    if (atomic_load_explicit(&r->linked, memory_order_relaxed) != 1)
        return wrong(run, "id-entry", "place %u of the id table leads to slot %u, which is not linked", place,
                     link - 1);
    if (birth == 0)
        return true;
    char id[KITHI_ID_MAX + 1];
    size_t len = kithi_view_id(v, link - 1, id);
    if (!kithi_birth_same(r, birth) || len == 0)
        return true;
    uint64_t hash = kithi_hash(run->map->hash_key, id, len);
    unsigned log2 = kithi_ids_log2(run->id_table);
    uint64_t distance = (place - kithi_ids_home(hash, log2)) & ((UINT64_C(1) << log2) - 1);
    if (!kithi_ids_tag_matches(entry, hash))
        return wrong(run, "id-entry", "place %u of the id table leads to slot %u, whose id has another hash",
                     place, link - 1);
    if (distance >= KITHI_IDS_PROBE_MAX)
        return wrong(run, "id-entry",
                     "place %u of the id table is %" PRIu64 " places from where slot %u belongs", place,
                     distance, link - 1);
    return true;
}

/* The header's count against the records; says nothing while a group is being published. */
static bool check_live(struct run *run, const struct kithi_view *v)
{
    uint64_t live = atomic_load_explicit(&v->header->live, memory_order_acquire), count = 0;
    for (uint32_t slot = 0; slot < v->slots_used; slot++) {
        const struct kithi_record *r = kithi_view_record(v, slot);
        uint64_t birth = atomic_load_explicit(&r->birth, memory_order_relaxed);
        uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
        if (birth > v->epoch || death > v->epoch)
            return true;
        count += kithi_visible_at(birth, death, v->epoch);
    }
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&v->header->epoch, memory_order_relaxed) != v->epoch || count == live)
        return true;
    return wrong(run, "header-live", "the header counts %" PRIu64 " vectors, %" PRIu64 " records are visible",
                 live, count);
}

static bool holds(struct run *run, const struct kithi_view *v, const struct suspect *s)
{
    switch ((enum check)s->check) {
    case CHECK_HEADER: return check_header(run, v);
    case CHECK_ENTRY: return check_entry(run, v);
    case CHECK_RECORD: return check_record(run, v, s->a);
    case CHECK_UPPER: return check_upper(run, v, s->a);
    case CHECK_LINKS: return check_links(run, v, s->a);
    case CHECK_VECTOR: return check_vector(run, v, s->a);
    case CHECK_NEAR: return check_near(run, v, s->a);
    case CHECK_TERMS: return check_terms(run, v, s->a);
    case CHECK_LOOKUP: return check_lookup(run, v, s->a);
    case CHECK_TWINS: return check_twins(run, v, s->a, s->b);
    case CHECK_PLACE: return check_place(run, v, s->a);
    case CHECK_LIVE: return check_live(run, v);
    case CHECK_COUNT: break;
    }
    return true;
}

/* A slot or place that a later view knows; taken words only rise, but hostile bytes may do anything. */
static bool still_there(const struct kithi_view *v, const struct suspect *s)
{
    switch ((enum check)s->check) {
    case CHECK_RECORD:
    case CHECK_UPPER:
    case CHECK_LINKS:
    case CHECK_VECTOR:
    case CHECK_NEAR:
    case CHECK_TERMS:
    case CHECK_LOOKUP: return s->a < v->slot_limit;
    case CHECK_TWINS: return s->a < v->slot_limit && s->b < v->slot_limit;
    default: return true;
    }
}

static void wait_ms(uint64_t ms)
{
    struct timespec t = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };
    nanosleep(&t, NULL);
}

/* Look at all suspects again, in rounds, and report those that never held. */
static void judge(struct run *run)
{
    uint64_t waited = 0, next = 1;
    bool last;
    do {
        if (run->suspect_count == 0)
            return;
        uint64_t ms = next;
        if (ms > run->patience_ms - waited)
            ms = run->patience_ms - waited;
        if (ms > run->wait_left_ms)
            ms = run->wait_left_ms;
        if (ms)
            wait_ms(ms);
        waited += ms;
        run->wait_left_ms -= ms;
        next *= 2;
        last = waited >= run->patience_ms || run->wait_left_ms == 0;

        uint32_t kept = 0;
        for (uint32_t i = 0; i < run->suspect_count; i++) {
            struct suspect s = run->suspects[i];
            struct kithi_view v;
            kithi_view_begin(run->map, &v);
            if (!still_there(&v, &s) || holds(run, &v, &s))
                continue;
            run->suspects[kept++] = s;
            if (last) {
                run->report.violation_count++;
                if (run->fn)
                    run->fn(run->arg, run->rule, run->text);
            }
        }
        run->suspect_count = kept;
    } while (!last);
    run->suspect_count = 0;
}

/* Check now; what fails is judged later. */
static bool examine(struct run *run, const struct kithi_view *v, enum check check, uint32_t a, uint32_t b)
{
    struct suspect s = { .check = check, .a = a, .b = b };
    if (holds(run, v, &s))
        return true;
    run->suspects[run->suspect_count++] = s;
    if (run->suspect_count == run->suspect_max)
        judge(run);
    return false;
}

/* Relaxed: it is a request, and what follows from it is somebody else's. */
static bool is_stopped(const struct run *run)
{
    return run->stop && atomic_load_explicit(run->stop, memory_order_relaxed);
}

/* Rows and records, one slot after the other; fills the histograms. */
static void pass_slots(struct run *run, uint32_t slots)
{
    struct kithi_view v;
    struct kithi_verify_report *out = &run->report;
    for (uint32_t slot = 0; slot < slots; slot++) {
        if (slot % VIEW_SLOTS == 0)
            kithi_view_begin(run->map, &v);
        if (slot >= v.slot_limit || (slot % VIEW_SLOTS == 0 && is_stopped(run)))
            return; /* only hostile bytes shrink a segment */
        examine(run, &v, CHECK_RECORD, slot, 0);
        examine(run, &v, CHECK_UPPER, slot, 0);
        examine(run, &v, CHECK_LINKS, slot, 0);
        examine(run, &v, CHECK_VECTOR, slot, 0);
        examine(run, &v, CHECK_NEAR, slot, 0);
        examine(run, &v, CHECK_TERMS, slot, 0);

        const struct kithi_record *r = kithi_view_record(&v, slot);
        if (atomic_load_explicit(&r->linked, memory_order_relaxed) != 1)
            continue;
        uint32_t level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed)), degree = 0;
        if (level <= KITHI_LEVEL_MAX)
            out->level_histogram[level]++;
        const kithi_link *row = kithi_view_row(&v, slot);
        for (uint32_t i = 0; i < v.link_count0; i++)
            degree += atomic_load_explicit(&row[i], memory_order_relaxed) != 0;
        out->degree_histogram[degree]++;
        out->link_count += degree;
    }
}

/* Ids: visible at one epoch, unique, and found. seen: open addressing, hash tag << 32 | slot + 1. */
static int pass_ids(struct run *run, const struct kithi_view *at)
{
    uint64_t places = 64;
    while (places < 2 * (uint64_t)at->slots_used)
        places *= 2;
    uint64_t *seen = calloc(places, sizeof *seen);
    if (!seen)
        return -ENOMEM;

    struct kithi_view v;
    for (uint32_t slot = 0; slot < at->slots_used; slot++) {
        if (slot % VIEW_SLOTS == 0)
            kithi_view_begin(run->map, &v);
        if (slot >= v.slot_limit || (slot % VIEW_SLOTS == 0 && is_stopped(run)))
            break;
        char id[KITHI_ID_MAX + 1];
        uint64_t birth;
        run->report.live_count += kithi_view_visible(at, kithi_view_record(at, slot), &birth);
        size_t len = visible_id(&v, slot, id, &birth);
        if (len == 0)
            continue;
        uint64_t hash = kithi_hash(run->map->hash_key, id, len), i = hash & (places - 1);
        bool twin = false;
        for (unsigned steps = 0; seen[i] && !twin && steps < SEEN_PROBE_MAX; steps++) {
            if (kithi_ids_tag_matches(seen[i], hash >> 32))
                twin = !examine(run, &v, CHECK_TWINS, kithi_ids_link(seen[i]) - 1, slot);
            i = (i + 1) & (places - 1);
        }
        if (!seen[i] && !twin)
            seen[i] = kithi_ids_entry(hash >> 32, slot + 1);
        examine(run, &v, CHECK_LOOKUP, slot, 0);
    }
    free(seen);
    return 0;
}

static void pass_table(struct run *run)
{
    struct kithi_view v;
    kithi_view_begin(run->map, &v);
    uint64_t word = atomic_load_explicit(&v.header->id_table, memory_order_acquire);
    unsigned area = kithi_ids_area(word), log2 = kithi_ids_log2(word);
    if (word == 0 || area > 1 || log2 < KITHI_IDS_CAPACITY_MIN_LOG2 || log2 > 31)
        return;
    /* The copied limits decide how far we go, whatever the word says. */
    uint64_t taken = atomic_load_explicit(&v.header->taken[KITHI_REGION_IDS0 + area], memory_order_acquire);
    if (taken > run->map->layout.size[KITHI_REGION_IDS0 + area])
        taken = run->map->layout.size[KITHI_REGION_IDS0 + area];
    uint32_t places = UINT32_C(1) << log2;
    if (places > taken / sizeof(uint64_t))
        places = (uint32_t)(taken / sizeof(uint64_t));
    run->id_table = word;
    for (uint32_t place = 0; place < places; place++) {
        if (place % VIEW_SLOTS == 0) {
            kithi_view_begin(run->map, &v);
            if (is_stopped(run))
                break;
        }
        examine(run, &v, CHECK_PLACE, place, 0);
    }
    judge(run); /* while run->id_table says which table is meant */
}

int kithi_verify_until(const struct kithi_map *map, uint32_t patience_ms, const _Atomic bool *stop,
                       kithi_verify_fn *report, void *arg, struct kithi_verify_report *out)
{
    struct run run = { .map = map,
                       .fn = report,
                       .arg = arg,
                       .stop = stop,
                       .patience_ms = patience_ms,
                       .wait_left_ms = 5 * (uint64_t)patience_ms };
    struct kithi_reach_report reach = { .epoch = 0 };
    int rc = -ENOMEM;

    struct kithi_view at;
    kithi_view_begin(map, &at);
    run.report.epoch = at.epoch;
    run.desk = aligned_alloc(alignof(struct desk), sizeof *run.desk);
    /* A small collection has no use for room that is mapped, zeroed and given back each time. */
    run.suspect_max = at.slots_used < SUSPECT_MAX / 16 ? 16 * (at.slots_used + 1) : SUSPECT_MAX;
    run.terms_left = ((uint64_t)at.slots_used + 1) * TERMS_WORDS;
    run.suspects = malloc(run.suspect_max * sizeof *run.suspects);
    if (!run.desk || !run.suspects)
        goto out;

    examine(&run, &at, CHECK_HEADER, 0, 0);
    rc = pass_ids(&run, &at);
    if (rc < 0)
        goto out;
    struct kithi_view v;
    kithi_view_begin(map, &v);
    examine(&run, &v, CHECK_ENTRY, 0, 0);
    examine(&run, &v, CHECK_LIVE, 0, 0);
    pass_slots(&run, at.slots_used);
    judge(&run);
    pass_table(&run);
    rc = kithi_reach_prove(map, patience_ms, stop, NULL, NULL, &reach);
    run.report.unreachable_count = reach.unreachable_count;
    if (rc == 0 && kithi_view_moved(&at))
        rc = KITHI_E_MOVED;
    if (rc == 0 && is_stopped(&run))
        rc = -ECANCELED;
    if (rc == 0)
        *out = run.report;
out:
    free(run.suspects);
    free(run.desk);
    return rc;
}

int kithi_verify_within(const struct kithi_map *map, uint32_t patience_ms, kithi_verify_fn *report, void *arg,
                        struct kithi_verify_report *out)
{
    return kithi_verify_until(map, patience_ms, NULL, report, arg, out);
}

int kithi_verify(const struct kithi_map *map, kithi_verify_fn *report, void *arg,
                 struct kithi_verify_report *out)
{
    return kithi_verify_within(map, KITHI_VERIFY_PATIENCE_MS, report, arg, out);
}
