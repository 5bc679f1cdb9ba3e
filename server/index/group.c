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
    if (op->type == KITHI_OP_NOTHING)
        return 0;
    if (!kithi_id_valid(op->id, op->id_len))
        return kithi_error_set(err, KITHI_E_ID, "%s (this one has %u bytes)", kithi_error_text(KITHI_E_ID),
                               op->id_len);
    if (op->payload_len > KITHI_PAYLOAD_BYTES)
        return kithi_error_set(err, KITHI_E_PARAMETER, "a payload of %u bytes; at most %u are allowed",
                               op->payload_len, KITHI_PAYLOAD_BYTES);
    if (op->type == KITHI_OP_DELETE || op->type == KITHI_OP_SET)
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

static int grow(void **items, size_t n, size_t size)
{
    void *p = realloc(*items, n * size);
    if (p)
        *items = p;
    return p ? 0 : -ENOMEM;
}

static int reserve_request(struct kithi_index *ix, uint32_t n)
{
    uint32_t places = 64;
    if (ix->levels_capacity >= n)
        return 0;
    while (places < 2 * n)
        places *= 2;
    if (grow((void **)&ix->levels, n, sizeof *ix->levels) < 0 ||
        grow((void **)&ix->places, n, sizeof *ix->places) < 0 ||
        grow((void **)&ix->missing, (n + 7) / 8, sizeof *ix->missing) < 0 ||
        grow((void **)&ix->payload_lens, n, sizeof *ix->payload_lens) < 0 ||
        grow((void **)&ix->same_ids, places, sizeof *ix->same_ids) < 0)
        return -ENOMEM;
    ix->same_ids_mask = places - 1;
    ix->levels_capacity = n;
    return 0;
}

/* The last op of the request before number i with its id, or NO_SLOT; i takes its place in the table. */
static uint32_t op_before(struct kithi_index *ix, const struct kithi_op *ops, uint32_t i, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & ix->same_ids_mask, before = NO_SLOT;
    for (; ix->same_ids[at]; at = (at + 1) & ix->same_ids_mask) {
        const struct kithi_op *o = &ops[ix->same_ids[at] - 1];
        if (o->id_len == ops[i].id_len && memcmp(o->id, ops[i].id, o->id_len) == 0) {
            before = ix->same_ids[at] - 1;
            break;
        }
    }
    ix->same_ids[at] = i + 1;
    return before;
}

/* Bytes of the payload that op i leaves behind its id; what it needs of blobs is added to d. */
static uint32_t survey_payload(struct kithi_index *ix, const struct kithi_op *ops, uint32_t i,
                               struct demand *d)
{
    const struct kithi_op *op = &ops[i];
    uint64_t hash = kithi_ids_hash(ix, op->id, op->id_len);
    uint32_t before = op_before(ix, ops, i, hash), len = op->payload_len;
    const unsigned char *bytes;
    if (op->type == KITHI_OP_DELETE)
        return 0;
    if (op->type == KITHI_OP_UPSERT && !(op->flags & KITHI_OP_PAYLOAD))
        len = before != NO_SLOT
                  ? ix->payload_lens[before]
                  : kithi_payload_bytes(ix, kithi_payload_newest(ix, hash, op->id, op->id_len), &bytes);
    /* A version without bytes takes a blob, too, where it is to replace another one. */
    if (len || op->type == KITHI_OP_SET)
        d->blobs[kithi_payload_size_class(ix, len)]++;
    return len;
}

/* Check every op, draw levels, and add up what applying them needs. */
static int survey(struct kithi_index *ix, const struct kithi_op *ops, uint32_t n, struct demand *d,
                  struct kithi_group_result *out, struct kithi_errmsg *err)
{
    if (reserve_request(ix, n) < 0)
        return kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    if (n)
        memset(ix->same_ids, 0, (ix->same_ids_mask + 1) * sizeof *ix->same_ids);
    memset(d, 0, sizeof *d);
    uint32_t uppers = kithi_alloc_upper_available(ix);
    for (uint32_t i = 0; i < n; i++) {
        int rc = check_op(ix, &ops[i], err);
        if (rc < 0) {
            out->failed_item = i;
            return rc;
        }
        if (ops[i].type == KITHI_OP_NOTHING)
            continue;
        ix->payload_lens[i] = survey_payload(ix, ops, i, d);
        if (ops[i].type == KITHI_OP_SET) {
            d->changes++;
            continue;
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

const struct touched *kithi_group_touched(const struct kithi_group *g, uint64_t hash, const char *id,
                                          uint32_t id_len)
{
    return find_touched(g, hash, id, id_len);
}

/* What the group has done to this id; a new entry, of one that it keeps, when nothing yet. */
static struct touched *touch(struct kithi_group *g, uint64_t hash, const struct kithi_op *op)
{
    struct touched *t = find_touched(g, hash, op->id, op->id_len);
    if (t)
        return t;
    uint32_t at = (uint32_t)hash & g->overlay_mask;
    while (g->overlay[at])
        at = (at + 1) & g->overlay_mask;
    t = &g->touched[g->touched_count++];
    *t = (struct touched){ .hash = hash,
                           .id = op->id,
                           .id_len = op->id_len,
                           .insertion = NO_SLOT,
                           .keeps = true,
                           .change = NO_SLOT };
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
        if (t && !t->keeps && !*out_last)
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

/* What the group has done to the payload of an id alone is not done: something else becomes of the id. */
static void drop_change(struct kithi_index *ix, struct kithi_group *g, struct touched *t)
{
    if (t->change == NO_SLOT)
        return;
    kithi_payload_return(ix, g->changes[t->change].ref);
    g->changes[t->change].ref = 0;
    t->change = NO_SLOT;
}

/* A version of the payload for slot, as op says: its own or, where it says nothing, that of before. */
static uint32_t first_payload(struct kithi_index *ix, uint32_t slot, const struct kithi_op *op,
                              uint32_t before)
{
    const unsigned char *bytes = op->payload;
    uint32_t len = op->payload_len;
    if (!(op->flags & KITHI_OP_PAYLOAD))
        len = kithi_payload_bytes(ix, before, &bytes);
    return len ? kithi_payload_stage(ix, slot, 0, bytes, len) : 0;
}

/* Stage a change of the payload alone. False: there is no such id. */
static bool stage_payload(struct kithi_index *ix, const struct kithi_op *op)
{
    struct kithi_group *g = kithi_group_open(ix);
    uint64_t hash = kithi_ids_hash(ix, op->id, op->id_len);
    bool alive;
    uint32_t entry = version_before(ix, hash, op, &alive), newest;
    struct touched *t = find_touched(g, hash, op->id, op->id_len);
    if (t && !t->keeps) {
        if (t->insertion == NO_SLOT)
            return false;
        struct insertion *in = &g->insertions[t->insertion]; /* no job of it has begun */
        kithi_payload_return(ix, in->payload);
        in->payload =
            op->payload_len ? kithi_payload_stage(ix, in->slot, 0, op->payload, op->payload_len) : 0;
        t->payload = in->payload;
        return true;
    }
    if (!alive)
        return false;
    newest = kithi_payload_newest(ix, hash, op->id, op->id_len);
    t = touch(g, hash, op);
    if (t->change == NO_SLOT) {
        kithi_note_slot(ix, entry - 1);
        t->change = g->change_count++;
        g->changes[t->change] = (struct payload_change){ .slot = entry - 1, .prev = newest };
    }
    struct payload_change *c = &g->changes[t->change];
    kithi_payload_return(ix, c->ref); /* of an earlier op of the group */
    c->ref = t->payload = kithi_payload_stage(ix, c->slot, c->prev, op->payload, op->payload_len);
    return true;
}

/* Stage one op; everything it needs has been reserved. Returns true when the id was there before. */
static bool stage(struct kithi_index *ix, const struct kithi_op *op, uint8_t level, uint32_t place)
{
    struct kithi_group *g = kithi_group_open(ix);
    uint64_t hash = kithi_ids_hash(ix, op->id, op->id_len);
    bool alive, existed = false;
    uint32_t entry = version_before(ix, hash, op, &alive);
    uint32_t before = op->flags & KITHI_OP_PAYLOAD || op->type == KITHI_OP_DELETE
                          ? 0
                          : kithi_payload_newest(ix, hash, op->id, op->id_len);
    struct touched *t = touch(g, hash, op);
    bool fresh = t->keeps;

    if (!fresh && t->insertion != NO_SLOT) {
        g->insertions[t->insertion].superseded = true;
        existed = true;
    } else if (fresh && alive) {
        g->deaths.items[g->deaths.count++] = entry - 1;
        kithi_note_slot(ix, entry - 1);
        existed = true;
    }
    t->insertion = NO_SLOT;
    t->keeps = false;
    t->payload = 0;
    if (op->type == KITHI_OP_DELETE) {
        drop_change(ix, g, t);
        return existed;
    }

    if (!entry)
        g->new_ids++;
    uint32_t slot = kithi_alloc_slot(ix);
    kithi_note_slot(ix, slot);
    t->payload = first_payload(ix, slot, op, before);
    drop_change(ix, g, t); /* only now: its version may be what the new slot's was copied from */
    t->insertion = g->insertion_count;
    g->insertions[g->insertion_count++] = (struct insertion){
        .id = op->id,
        .vector = op->vector,
        .hash = hash,
        .blob = op->id_len > KITHI_ID_INLINE
                    ? kithi_alloc_blob(ix, kithi_blob_class(&ix->map.layout, op->id_len))
                    : 0,
        .payload = t->payload,
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
    if (rc == 0 && (reserve_group(g, d.slots, n) < 0 || kithi_ids_claims_reserve(g, d.ids) < 0 ||
                    kithi_payload_reserve(ix, d.changes) < 0))
        rc = kithi_error_set(err, -ENOMEM, "the daemon is out of memory");
    if (rc == 0)
        rc = claim_places(ix, ops, n, out, err);
    if (rc < 0)
        return rc;
    if (n)
        memset(ix->missing, 0, (n + 7) / 8);
    for (uint32_t i = 0; i < n; i++) {
        bool existed = false;
        if (ops[i].type == KITHI_OP_SET)
            existed = stage_payload(ix, &ops[i]);
        else if (ops[i].type != KITHI_OP_NOTHING)
            existed = stage(ix, &ops[i], ix->levels[i], ix->places[i]);
        if (ops[i].type == KITHI_OP_UPSERT)
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
    g->insertion_count = g->touched_count = g->deaths.count = g->new_ids = g->change_count = 0;
}

void kithi_group_fini(struct kithi_group *g)
{
    free(g->insertions);
    free(g->deaths.items);
    free(g->changes);
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
        kithi_payload_return(ix, in->payload);
        kithi_alloc_return(ix, in->slot, in->blob, in->upper);
    }
    for (uint32_t i = 0; i < g->change_count; i++)
        kithi_payload_return(ix, g->changes[i].ref);
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
    for (uint32_t i = 0; i <= ix->sealed; i++)
        noted += kithi_group_at(ix, i)->change_count;
    return noted < KITHI_NOTES_MAX ? (KITHI_NOTES_MAX - noted) / 2 : 0;
}

uint32_t kithi_group_job_count(const struct kithi_group *g)
{
    return g->insertion_count;
}
