/*
 * group.c - staging a group: every request is checked, provided for, and taken whole or not at all.
 *
 * After kithi_group_add() nothing of the group can fail: slots, upper rows, blobs, id-table places
 * and the private lists that will take them back have been reserved.
 */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/base/id.h"

static uint64_t next_random(struct kithi_index *ix)
{
    uint64_t x = ix->random; /* xorshift64* */
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    ix->random = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* Level l with probability m^-l (1 - 1/m). */
static uint8_t draw_level(struct kithi_index *ix)
{
    double u = ((double)(next_random(ix) >> 11) + 1) / 9007199254740993.0;
    double level = -log(u) / log((double)ix->map.geometry.m);
    return level > KITHI_LEVEL_MAX ? KITHI_LEVEL_MAX : (uint8_t)level;
}

/* Length of v, n finite floats, in double: no such vector but zero has none. */
static double length_of(const float *v, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)v[i] * v[i];
    return sqrt(sum);
}

/* The length of a vector is kept as a float, to give it back as it was. Rounding n elements to floats makes no vector of LENGTH_MOST
 * longer than that. */
#define LENGTH_MOST ((double)FLT_MAX * (1 - 0x1p-22))

static int check_vector(const struct kithi_geometry *g, const float *vector, struct kithi_errmsg *err)
{
    if (!kithi_floats_finite(vector, g->dim))
        return kithi_error_set(err, KITHI_E_NOT_FINITE, "%s", kithi_error_text(KITHI_E_NOT_FINITE));
    if (g->metric != KITHI_METRIC_COSINE)
        return 0;
    double length = length_of(vector, g->dim);
    if (!(length > 0))
        return kithi_error_set(err, KITHI_E_ZERO_VECTOR, "%s", kithi_error_text(KITHI_E_ZERO_VECTOR));
    if (length > (double)FLT_MAX)
        return kithi_error_set(err, KITHI_E_NOT_FINITE,
                               "the vector's length is %.3g, more than a float holds; "
                               "scale it down, cosine does not mind",
                               length);
    return 0;
}

static int check_op(const struct kithi_index *ix, const struct kithi_op *op, struct kithi_errmsg *err)
{
    const struct kithi_geometry *g = &ix->map.geometry;
    if (!kithi_id_valid(op->id, op->id_len))
        return kithi_error_set(err, KITHI_E_ID, "%s (this one has %u bytes)", kithi_error_text(KITHI_E_ID),
                               op->id_len);
    if (op->type == KITHI_OP_DELETE)
        return 0;
    if (op->dim != g->dim)
        return kithi_error_set(err, KITHI_E_DIMENSION, "the vector has %u dimensions, the collection has %u",
                               op->dim, g->dim);
    return check_vector(g, op->vector, err);
}

int kithi_group_vector_again(const struct kithi_index *ix, uint32_t slot, float *out,
                             struct kithi_errmsg *err)
{
    const struct kithi_geometry *g = &ix->map.geometry;
    kithi_view_decode_vector(&ix->view, slot, out);
    if (g->metric != KITHI_METRIC_COSINE)
        return check_vector(g, out, err);
    uint32_t bits = atomic_load_explicit(&kithi_view_record(&ix->view, slot)->norm, memory_order_relaxed);
    float norm, largest = 0;
    memcpy(&norm, &bits, sizeof norm);
    for (uint32_t i = 0; i < g->dim; i++)
        largest = fabsf(out[i]) > largest ? fabsf(out[i]) : largest;
    double scale = ((double)norm < LENGTH_MOST ? (double)norm : LENGTH_MOST) / length_of(out, g->dim);
    /* Else it is so short that it is nothing: the normalised one stands for it. */
    if ((float)((double)largest * scale) > 0)
        for (uint32_t i = 0; i < g->dim; i++)
            out[i] = (float)((double)out[i] * scale);
    return check_vector(g, out, err);
}

/* Check every op, draw levels, and add up what applying them needs. */
static int survey(struct kithi_index *ix, const struct kithi_op *ops, uint32_t n, struct demand *d,
                  struct kithi_group_result *out, struct kithi_errmsg *err)
{
    if (ix->levels_capacity < n) {
        uint8_t *p = realloc(ix->levels, n);
        if (!p)
            return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
        ix->levels = p;
        uint32_t *places = realloc(ix->places, n * sizeof *places);
        if (!places)
            return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
        ix->places = places;
        uint8_t *missing = realloc(ix->missing, (n + 7) / 8);
        if (!missing)
            return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
        ix->missing = missing;
        ix->levels_capacity = n;
    }
    memset(d, 0, sizeof *d);
    uint32_t uppers = kithi_alloc_upper_available(ix);
    for (uint32_t i = 0; i < n; i++) {
        int rc = check_op(ix, &ops[i], err);
        if (rc < 0) {
            out->failed_item = i;
            return rc;
        }
        d->deaths++;
        if (ops[i].type == KITHI_OP_DELETE)
            continue;
        uint8_t level = draw_level(ix);
        if (d->uppers + level > uppers)
            level = 0; /* geometry.c: costs a little speed, no correctness */
        ix->levels[i] = level;
        d->slots++;
        d->ids++;
        d->uppers += level;
        if (ops[i].id_len > KITHI_ID_INLINE)
            d->blobs[kithi_blob_class(&ix->map.layout, ops[i].id_len)]++;
    }
    return 0;
}

static int reserve_group(struct kithi_group *g, uint32_t insertions, uint32_t touched)
{
    if (g->insertion_capacity - g->insertion_count < insertions) {
        uint32_t capacity = (g->insertion_count + insertions) * 2;
        struct insertion *p = realloc(g->insertions, capacity * sizeof *p);
        if (!p)
            return -ENOMEM;
        g->insertions = p;
        g->insertion_capacity = capacity;
    }
    if (g->touched_capacity - g->touched_count < touched) {
        uint32_t capacity = (g->touched_count + touched) * 2;
        struct touched *p = realloc(g->touched, capacity * sizeof *p);
        if (!p)
            return -ENOMEM;
        g->touched = p;
        g->touched_capacity = capacity;
    }
    uint32_t places = g->overlay ? g->overlay_mask + 1 : 0, want = places ? places : 64;
    while (want < 2 * (g->touched_count + touched))
        want *= 2;
    if (want > places) {
        uint32_t *p = calloc(want, sizeof *p);
        if (!p)
            return -ENOMEM;
        free(g->overlay);
        g->overlay = p;
        g->overlay_mask = want - 1;
        for (uint32_t i = 0; i < g->touched_count; i++) {
            uint32_t at = (uint32_t)g->touched[i].hash & g->overlay_mask;
            while (p[at])
                at = (at + 1) & g->overlay_mask;
            p[at] = i + 1;
        }
    }
    return 0;
}

static struct touched *find_touched(const struct kithi_group *g, uint64_t hash, const char *id,
                                    uint32_t id_len)
{
    if (g->touched_count == 0)
        return NULL;
    for (uint32_t at = (uint32_t)hash & g->overlay_mask; g->overlay[at]; at = (at + 1) & g->overlay_mask) {
        struct touched *t = &g->touched[g->overlay[at] - 1];
        if (t->hash == hash && t->id_len == id_len && memcmp(t->id, id, id_len) == 0)
            return t;
    }
    return NULL;
}

/* What the group has done to this id; a new entry when nothing yet (*out_new). */
static struct touched *touch(struct kithi_group *g, uint64_t hash, const struct kithi_op *op, bool *out_new)
{
    struct touched *t = find_touched(g, hash, op->id, op->id_len);
    *out_new = t == NULL;
    if (t)
        return t;
    uint32_t at = (uint32_t)hash & g->overlay_mask;
    while (g->overlay[at])
        at = (at + 1) & g->overlay_mask;
    t = &g->touched[g->touched_count++];
    *t = (struct touched){ .hash = hash, .id = op->id, .id_len = op->id_len, .insertion = NO_SLOT };
    g->overlay[at] = g->touched_count;
    return t;
}

const struct insertion *kithi_group_version(const struct kithi_index *ix, uint32_t number, uint64_t hash,
                                            const char *id, uint32_t id_len, const struct touched **out_last)
{
    *out_last = NULL;
    while (number-- > 0) {
        const struct kithi_group *g = kithi_group_at(ix, number);
        const struct touched *t = find_touched(g, hash, id, id_len);
        if (t && !*out_last)
            *out_last = t;
        if (t && t->insertion != NO_SLOT)
            return &g->insertions[t->insertion];
    }
    return NULL;
}

/* Slot + 1 of the newest version of an id before the open group, published or not, or 0; *out_alive: that is not deleted. */
static uint32_t version_before(const struct kithi_index *ix, uint64_t hash, const struct kithi_op *op,
                               bool *out_alive)
{
    const struct touched *last;
    const struct insertion *in = kithi_group_version(ix, ix->sealed, hash, op->id, op->id_len, &last);
    uint32_t entry = in ? in->slot + 1 : kithi_ids_find(ix, hash, op->id, op->id_len);
    if (last)
        *out_alive = last->insertion != NO_SLOT;
    else
        *out_alive = entry && atomic_load_explicit(&kithi_view_record(&ix->view, entry - 1)->death,
                                                   memory_order_relaxed) == 0;
    return entry;
}

/* Stage one op; everything it needs has been reserved. Returns true when the id was there before. */
static bool stage(struct kithi_index *ix, const struct kithi_op *op, uint8_t level, uint32_t place)
{
    struct kithi_group *g = kithi_group_open(ix);
    uint64_t hash = kithi_ids_hash(ix, op->id, op->id_len);
    bool fresh, alive, existed = false;
    uint32_t entry = version_before(ix, hash, op, &alive);
    struct touched *t = touch(g, hash, op, &fresh);

    if (!fresh && t->insertion != NO_SLOT) {
        g->insertions[t->insertion].superseded = true;
        existed = true;
    } else if (fresh && alive) {
        g->deaths.items[g->deaths.count++] = entry - 1;
        kithi_note_slot(ix, entry - 1);
        existed = true;
    }
    t->insertion = NO_SLOT;
    if (op->type == KITHI_OP_DELETE)
        return existed;

    if (!entry)
        g->new_ids++;
    uint32_t slot = kithi_alloc_slot(ix);
    kithi_note_slot(ix, slot);
    t->insertion = g->insertion_count;
    g->insertions[g->insertion_count++] = (struct insertion){
        .id = op->id,
        .vector = op->vector,
        .hash = hash,
        .blob = op->id_len > KITHI_ID_INLINE
                    ? kithi_alloc_blob(ix, kithi_blob_class(&ix->map.layout, op->id_len))
                    : 0,
        .upper = kithi_alloc_upper(ix, slot, level),
        .slot = slot,
        .place = place,
        /* Past what this group supersedes: no epoch sees that, and a look-up goes back few steps. */
        .prev = entry,
        .id_len = op->id_len,
        .level = level,
    };
    return existed;
}

/* A place in the id table for every upsert of a request, the same id twice included; or for none. */
static int claim_places(struct kithi_index *ix, const struct kithi_op *ops, uint32_t n,
                        struct kithi_group_result *out, struct kithi_errmsg *err)
{
    struct kithi_group *g = kithi_group_open(ix);
    uint32_t before = g->claimed.count;
    for (uint32_t i = 0; i < n; i++) {
        if (ops[i].type != KITHI_OP_UPSERT)
            continue;
        uint64_t hash = kithi_ids_hash(ix, ops[i].id, ops[i].id_len);
        ix->places[i] = kithi_ids_claim(ix, hash, ops[i].id, ops[i].id_len);
        if (ix->places[i] == UINT32_MAX) {
            kithi_ids_claims_rewind(g, before);
            out->failed_item = i;
            return kithi_error_set(err, KITHI_E_FULL,
                                   "the id table has no place near the hash of this id: %u others share it; "
                                   "choose another id",
                                   KITHI_IDS_PROBE_MAX);
        }
    }
    return 0;
}

int kithi_group_add(struct kithi_index *ix, const struct kithi_op *ops, uint32_t n,
                    struct kithi_group_result *out, struct kithi_errmsg *err)
{
    struct kithi_group *g = kithi_group_open(ix);
    struct demand d;
    *out = (struct kithi_group_result){ .failed_item = UINT32_MAX };
    int rc = survey(ix, ops, n, &d, out, err);
    if (rc == 0)
        rc = kithi_alloc_reserve(ix, &d, err);
    if (rc == 0 && (reserve_group(g, d.slots, n) < 0 || kithi_ids_claims_reserve(g, d.ids) < 0))
        rc = kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    if (rc == 0)
        rc = claim_places(ix, ops, n, out, err);
    if (rc < 0)
        return rc;
    if (n)
        memset(ix->missing, 0, (n + 7) / 8);
    for (uint32_t i = 0; i < n; i++) {
        bool existed = stage(ix, &ops[i], ix->levels[i], ix->places[i]);
        if (ops[i].type != KITHI_OP_DELETE)
            continue;
        out->found += existed;
        if (!existed)
            ix->missing[i / 8] |= (uint8_t)(1u << i % 8);
    }
    out->missing = ix->missing;
    kithi_alloc_tallies(ix);
    return 0;
}

void kithi_group_clear(struct kithi_group *g)
{
    /* The last comes first: whoever it had to go round still stands, so the way to it is whole. */
    for (uint32_t i = g->touched_count; i-- > 0;) {
        uint32_t at = (uint32_t)g->touched[i].hash & g->overlay_mask;
        while (g->overlay[at] != i + 1)
            at = (at + 1) & g->overlay_mask;
        g->overlay[at] = 0;
    }
    kithi_ids_claims_rewind(g, 0);
    g->insertion_count = g->touched_count = g->deaths.count = g->new_ids = 0;
}

void kithi_group_fini(struct kithi_group *g)
{
    free(g->insertions);
    free(g->deaths.items);
    free(g->touched);
    free(g->overlay);
    free(g->claims);
    free(g->claimed.items);
}

void kithi_group_abort(struct kithi_index *ix)
{
    struct kithi_group *g = kithi_group_open(ix);
    for (uint32_t i = g->insertion_count; i-- > 0;) {
        const struct insertion *in = &g->insertions[i];
        kithi_alloc_return(ix, in->slot, in->blob, in->upper);
    }
    kithi_group_clear(g);
    kithi_notes_abort_group(ix); /* nothing of it was stored in a record */
    kithi_alloc_tallies(ix);
}

struct kithi_group *kithi_group_open(struct kithi_index *ix)
{
    return kithi_group_at(ix, ix->sealed);
}

struct kithi_group *kithi_group_seal(struct kithi_index *ix)
{
    struct kithi_group *g = kithi_group_open(ix);
    KITHI_ASSERT(ix->sealed < KITHI_GROUPS_SEALED);
    g->began_epoch = ix->epoch;
    ix->sealed++;
    return g;
}

uint32_t kithi_groups_sealed(const struct kithi_index *ix)
{
    return ix->sealed;
}

uint32_t kithi_groups_dying(const struct kithi_index *ix)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i <= ix->sealed; i++) {
        const struct kithi_group *g = kithi_group_at(ix, i);
        n += g->deaths.count + g->insertion_count;
    }
    return n;
}

uint32_t kithi_group_room(const struct kithi_index *ix)
{
    uint32_t noted = kithi_groups_dying(ix);
    return noted < KITHI_NOTES_MAX ? (KITHI_NOTES_MAX - noted) / 2 : 0;
}

uint32_t kithi_group_job_count(const struct kithi_group *g)
{
    return g->insertion_count;
}
