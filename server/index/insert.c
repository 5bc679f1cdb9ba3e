/*
 * insert.c - one insertion: fill the slot, find neighbours, link both ways.
 *
 * Runs on worker threads. Until the group is published the slot is unborn: readers walk through
 * it and never return it. A crash at any point leaves a slot that adoption finds by `linked`.
 *
 * Locks: one row lock at a time, or the entry lock with row locks inside it. Loads of rows take
 * no lock; rows are hints for the writer too.
 */
#include <math.h>
#include <string.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/graph/walk.h"
#include "shm/sync/slotbytes.h"

/*
 * Estimates of neighbours are made for a whole block, whether its places are full or not. So rows with neighbour
 * codes are filled with near ones that the heuristic left out: those of a new slot up to half, those that are
 * pruned up to six sevenths; the rest is for links that come back (bench_core, mlnotes: recall@10 at ef 20
 * from 0.983 to 0.988 at the same cost).
 */
/* Of a row so much at most is kept for those whom nobody else seems to lead to, each time that it is pruned. */
#define STAY_SHARE            8u
#define FILLED_NEW(places)    ((places) / 2)
#define FILLED_PRUNED(places) ((places)*6 / 7)
/* Distances to the same bytes may differ by their rounding; to compare more than need be costs little. */
#define OWN_SLACK 1e-6f

pthread_mutex_t *kithi_row_lock(struct kithi_index *ix, uint32_t slot)
{
    return &ix->locks[slot & (ix->lock_count - 1)];
}

bool kithi_slot_eligible(const struct kithi_view *v, uint32_t slot)
{
    if (!kithi_view_doubt(v, slot))
        return true;
    const struct kithi_record *r = kithi_view_record(v, slot);
    return atomic_load_explicit(&r->linked, memory_order_acquire) &&
           atomic_load_explicit(&r->death, memory_order_relaxed) == 0;
}

static void fill_id(const struct kithi_view *v, struct worker *w, struct kithi_record *r,
                    const struct insertion *in)
{
    uint64_t words[3] = { 0, 0, 0 };
    if (in->id_len <= KITHI_ID_INLINE) {
        memcpy(words, in->id, in->id_len);
    } else {
        uint32_t capacity;
        struct kithi_blob *b = kithi_view_blob(v, in->blob, &capacity);
        atomic_store_explicit(&b->owner, in->slot + 1, memory_order_relaxed);
        atomic_store_explicit(&b->len, in->id_len, memory_order_relaxed);
        kithi_slot_store(b->bytes, in->id, in->id_len);
        kithi_stored(w->ix, b, sizeof *b + in->id_len);
        words[0] = in->blob;
    }
    for (unsigned i = 0; i < 3; i++)
        atomic_store_explicit(&r->id[i], words[i], memory_order_relaxed);
}

static void store_code(unsigned char *to, enum kithi_codec codec, struct worker *w, uint32_t dim)
{
    kithi_code_encode(codec, w->vector, dim, w->code);
    kithi_slot_store(to, w->code, kithi_code_size(codec, dim));
    kithi_stored(w->ix, to, kithi_code_size(codec, dim));
}

/* [P2 birth] The slot's birth is 0 and nothing leads here. */
static void fill(const struct kithi_view *v, struct worker *w, const struct insertion *in)
{
    const struct kithi_geometry *g = &v->map->geometry;
    struct kithi_record *r = kithi_view_record(v, in->slot);

    /* [P2 birth] release fence: whoever sees one of the stores below, and then an acquire fence,
     * sees birth = 0 or later. Other half: kithi_birth_same(). */
    atomic_thread_fence(memory_order_release);

    float norm = 1;
    if (g->metric == KITHI_METRIC_COSINE)
        norm = kithi_normalise(w->vector, in->vector, g->dim);
    else
        memcpy(w->vector, in->vector, g->dim * sizeof *w->vector);
    store_code(kithi_view_vector(v, in->slot), v->kept, w, g->dim);
    if (v->codes != v->vectors)
        store_code(kithi_view_code(v, in->slot), v->walked, w, g->dim);

    uint32_t norm_bits;
    memcpy(&norm_bits, &norm, sizeof norm_bits);
    atomic_store_explicit(&r->norm, norm_bits, memory_order_relaxed);
    atomic_store_explicit(&r->meta, kithi_meta_pack(in->level, in->id_len), memory_order_relaxed);
    atomic_store_explicit(&r->payload, in->payload, memory_order_relaxed);
    atomic_store_explicit(&r->prev, in->prev, memory_order_relaxed);
    atomic_store_explicit(&r->death, 0, memory_order_relaxed);
    fill_id(v, w, r, in);
    kithi_link *row = kithi_view_row(v, in->slot);
    for (uint32_t i = 0; i < v->link_count0; i++)
        atomic_store_explicit(&row[i], 0, memory_order_relaxed);
    atomic_store_explicit(&r->upper, in->upper, memory_order_release);

    KITHI_FAULT_CRASH("crash-while-filling");
    /* Before the first finder. Release: whoever finds the slot eligible sees it filled. */
    atomic_store_explicit(&r->linked, 1, memory_order_release);
    kithi_stored(w->ix, row, v->link_count0 * sizeof *row);
    kithi_stored(w->ix, r, sizeof *r);
}

bool kithi_keeps_ways(const struct kithi_view *v)
{
    return v->map->geometry.metric != KITHI_METRIC_IP;
}

bool kithi_has_other_way(const struct kithi_view *v, uint32_t slot, uint32_t not_by)
{
    const kithi_link *own = kithi_view_row(v, slot);
    for (uint32_t i = 0; i < v->link_count0; i++) {
        uint32_t other = atomic_load_explicit(&own[i], memory_order_relaxed) - 1;
        if (other >= v->slot_limit || other == not_by || !kithi_slot_eligible(v, other))
            continue;
        const kithi_link *row = kithi_view_row(v, other);
        for (uint32_t j = 0; j < v->link_count0; j++)
            if (atomic_load_explicit(&row[j], memory_order_relaxed) == slot + 1)
                return true;
    }
    return false;
}

/*
 * A full row: choose anew among its neighbours and slot. Survivors keep their places, so that no
 * link is absent for a moment. Dead ones are not chosen, or they would keep the living out; they stay
 * where nobody living needs the place, for searches at older epochs, until a sweep comes by. At level 0 a link that may be the last
 * one to somebody stays, too. Returns whether add got a place.
 */
static bool row_prune(struct row *r, struct worker *w, unsigned level, const struct candidate *add,
                      const struct kithi_bits_edge *edge)
{
    const struct kithi_view *v = r->view;
    const struct kithi_kernel *k = w->scratch.kernel;
    struct candidate *c = w->candidates;
    uint32_t n = 0, place = UINT32_MAX;
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        if (link - 1u < v->slot_limit)
            KITHI_PREFETCH(kithi_view_code(v, link - 1));
    }
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        if (link - 1u >= v->slot_limit || !kithi_slot_eligible(v, link - 1))
            continue;
        c[n++] = (struct candidate){ kithi_pair(v, k, r->slot, link - 1), link - 1 };
    }
    c[n++] = *add;
    kithi_candidates_sort(c, n);
    kithi_candidates_mix(c, n, r->slot);
    uint32_t kept = kithi_select(v, k, c, n, r->count, w->chosen);
    if (r->coded)
        kept = kithi_select_more(c, n, w->chosen, kept, FILLED_PRUNED(r->count));

    bool chosen = false;
    for (uint32_t j = 0; j < kept; j++)
        chosen |= w->chosen[j].slot == add->slot;
    const bool wanted = chosen;
    uint32_t may_stay = kithi_keeps_ways(v) ? r->count / STAY_SHARE : 0;
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        bool stays = false;
        for (uint32_t j = 0; j < kept; j++)
            stays |= w->chosen[j].slot + 1 == link;
        if (stays || (link && link > v->slot_limit)) /* chosen, or newer than this view */
            continue;
        if (link && !kithi_slot_eligible(v, link - 1)) {
            place = i;
            continue;
        }
        if (link && level == 0 && may_stay > 0 && !kithi_has_other_way(v, link - 1, r->slot)) {
            may_stay--;
            continue;
        }
        if (chosen)
            kithi_row_put(r, w, i, add->slot, edge, true);
        else
            kithi_row_clear(r, w, i);
        chosen = false;
    }
    /* Everybody living stays: a dead one makes room. */
    if (chosen && place != UINT32_MAX) {
        kithi_row_put(r, w, place, add->slot, edge, true);
        chosen = false;
    }
    return wanted && !chosen;
}

/* What a slot is to be linked with at one level. */
struct neighbours {
    struct candidate chosen[2 * KITHI_M_MAX];
    uint32_t count;  /* the slot's links, */
    uint32_t mutual; /* of which so many lead back */
};

/* What the codes of a slot's links are made of, once for both directions. */
static void make_edges(const struct kithi_view *v, struct worker *w, uint32_t slot,
                       const struct neighbours *n)
{
    if (!v->bits_width)
        return;
    kithi_rotated(v, slot, w->near_end);
    for (uint32_t i = 0; i < n->count; i++) {
        kithi_rotated(v, n->chosen[i].slot, w->far_end);
        kithi_bits_encode(w->near_end, w->far_end, v->bits_width, v->map->geometry.metric, &w->edges[i]);
    }
}

/* The slot's own links at level. */
static void link_forth(struct kithi_index *ix, const struct kithi_view *v, struct worker *w, uint32_t slot,
                       unsigned level, const struct neighbours *n)
{
    struct row own;
    if (!kithi_row_open(v, slot, level, &own))
        return;
    pthread_mutex_lock(kithi_row_lock(ix, slot));
    for (uint32_t i = 0; i < n->count; i++)
        kithi_row_add(&own, w, n->chosen[i].slot, own.coded ? &w->edges[i] : NULL, false);
    pthread_mutex_unlock(kithi_row_lock(ix, slot));
}

/* Lead the neighbours at level to the slot; at level 0 at least one, if there is any way. */
static void link_back(struct kithi_index *ix, const struct kithi_view *v, struct worker *w, uint32_t slot,
                      unsigned level, const struct neighbours *n)
{
    bool taken = false;
    for (uint32_t i = 0; i < n->mutual; i++) {
        struct row r;
        uint32_t other = n->chosen[i].slot;
        if (!kithi_row_open(v, other, level, &r))
            continue;
        const struct kithi_bits_edge *edge = r.coded ? &w->edges[i] : NULL;
        pthread_mutex_lock(kithi_row_lock(ix, other));
        taken |= kithi_row_add(&r, w, slot, edge, true) ||
                 row_prune(&r, w, level, &(struct candidate){ n->chosen[i].distance, slot }, edge);
        pthread_mutex_unlock(kithi_row_lock(ix, other));
        KITHI_FAULT_CRASH("crash-while-linking");
    }
    for (uint32_t i = 0; level == 0 && kithi_keeps_ways(v) && !taken && i < n->count; i++)
        taken = kithi_way_in(ix, v, w, n->chosen[i].slot, slot);
}

/* The eligible ones that the walk has found, without slot itself, nearest first. */
static uint32_t candidates_found(const struct kithi_scratch *s, uint32_t slot, struct candidate *out)
{
    uint32_t n = 0, count;
    const struct kithi_beam_entry *e = kithi_walk_found(s, &count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t found = e[i].slot & KITHI_BEAM_SLOT;
        if (!(e[i].slot & KITHI_BEAM_GHOST) && found != slot)
            out[n++] = (struct candidate){ e[i].distance, found };
    }
    return n;
}

/*
 * A walk compares with the vector, of which the slot's own code is a little off, and so is an equal's; between equal codes there is nothing. By
 * such distances one equal would cover all others, and no row that is full of them would take another: of thousands of equal vectors
 * a tenth was led to by nobody. So where somebody is about as near as the slot's own code, all are compared with that code.
 */
static void compare_codes(const struct kithi_view *v, const struct kithi_scratch *s, uint32_t slot,
                          struct candidate *c, uint32_t n)
{
    if (v->walked == KITHI_CODEC_F32 || n == 0)
        return;
    float own = kithi_walk_distance(v, s, slot);
    if (c[0].distance > own + OWN_SLACK * (1 + fabsf(own)))
        return;
    for (uint32_t i = 0; i < n; i++)
        c[i].distance = kithi_pair(v, s->kernel, slot, c[i].slot);
    kithi_candidates_sort(c, n);
}

/* Find neighbours of slot from entry down to level 0; returns how many living ones were met there. */
static uint32_t find_neighbours(const struct kithi_view *v, struct worker *w, uint32_t slot, unsigned first,
                                uint32_t from, const struct look *look, struct neighbours *out)
{
    struct kithi_scratch *s = &w->scratch;
    const uint32_t m = v->map->geometry.m;
    uint32_t seeds[KITHI_M_MAX], seed_count = 1, found = 0;
    seeds[0] = from;
    for (unsigned at = first + 1; at-- > 0;) {
        out[at].count = out[at].mutual = 0;
        /* Memory was set aside at start and grows only with visited nodes; without it the slot gets
         * the neighbours found so far. */
        if (kithi_walk_begin(v, s, look->ef, at, KITHI_EYES_WRITER) < 0)
            continue;
        for (uint32_t i = 0; i < seed_count; i++)
            kithi_walk_seed(v, s, seeds[i]);
        for (uint32_t i = 0; at == 0 && i < look->way_count; i++)
            kithi_walk_seed(v, s, look->ways[i]);
        (void)kithi_walk(v, s, 0, NULL);

        /* The next level begins where this one ended, ghosts included: they lead on. */
        uint32_t next = 0;
        for (uint32_t i = 0; i < s->beam_count && next < m; i++)
            seeds[next++] = s->beam[i].slot & KITHI_BEAM_SLOT;
        if (next)
            seed_count = next;

        found = candidates_found(s, slot, w->candidates);
        compare_codes(v, s, slot, w->candidates, found);
        kithi_candidates_mix(w->candidates, found, slot);
        out[at].mutual = out[at].count =
            kithi_select(v, s->kernel, w->candidates, found, at ? m : CHOSEN_AT_BASE(m), out[at].chosen);
        if (v->bits_width && at == 0)
            out[0].count =
                kithi_select_more(w->candidates, found, out[0].chosen, out[0].count, FILLED_NEW(2 * m));
    }
    return found;
}

/*
 * Find neighbours from entry downwards and link; false when no living slot was met at level 0. Nothing
 * leads to the slot at any level before its own rows of all levels are filled: a reader that comes
 * down on it from an upper level goes on from there.
 */
static bool link_slot(struct kithi_index *ix, const struct kithi_view *v, struct worker *w, uint32_t slot,
                      unsigned level, uint64_t entry, const struct look *look)
{
    unsigned top = kithi_entry_level(entry);
    if (kithi_entry_link(entry) - 1u >= v->slot_limit || top > KITHI_LEVEL_MAX)
        return false;
    const unsigned first = level < top ? level : top;
    struct neighbours linked[KITHI_LEVEL_MAX + 1];
    uint32_t found;
    if (kithi_walk_query(v, &w->scratch, w->vector) < 0)
        return false; /* its memory was set aside at start */
    for (unsigned attempt = 0;; attempt++) {
        /* [P9 emptied] as for readers: a walk under which rows were emptied is made once more. */
        uint64_t emptied = atomic_load_explicit(&ix->header->emptied, memory_order_acquire);
        uint32_t from = kithi_entry_link(entry) - 1;
        w->scratch.stood_on_dead = false;
        if (kithi_walk_begin(v, &w->scratch, 1, level, KITHI_EYES_WRITER) < 0)
            return false;
        kithi_walk_descend(v, &w->scratch, top, level, &from);
        found = find_neighbours(v, w, slot, first, from, look, linked);
        atomic_thread_fence(memory_order_acquire);
        if (attempt > 0 || !w->scratch.stood_on_dead ||
            atomic_load_explicit(&ix->header->emptied, memory_order_relaxed) == emptied)
            break;
    }
    make_edges(v, w, slot, &linked[0]);
    for (unsigned at = 0; at <= first; at++)
        link_forth(ix, v, w, slot, at, &linked[at]);
    for (unsigned at = 0; at <= first; at++)
        link_back(ix, v, w, slot, at, &linked[at]);
    return found > 0;
}

void kithi_mark_unlinked(struct kithi_index *ix, uint64_t death)
{
    /* Owner and workers raise the mark; it never falls. Release: others may go on from what they see. */
    uint64_t mark = atomic_load_explicit(&ix->header->unlinked, memory_order_relaxed);
    while (mark < death && !atomic_compare_exchange_weak_explicit(&ix->header->unlinked, &mark, death,
                                                                  memory_order_release, memory_order_relaxed))
        continue;
}

static bool may_be_entry(const struct kithi_view *v, uint32_t slot)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    return atomic_load_explicit(&r->linked, memory_order_acquire) &&
           atomic_load_explicit(&r->birth, memory_order_relaxed) != 0 &&
           atomic_load_explicit(&r->death, memory_order_relaxed) == 0;
}

uint64_t kithi_entry_replace(struct kithi_index *ix)
{
    uint64_t best = 0;
    struct kithi_view v; /* of now: the owner may be staging a group */
    kithi_view_begin(&ix->map, &v);
    /* Owners of upper rows are one slot in m or so; only without them all slots are looked at. */
    for (uint32_t i = 0; i < v.upper_limit; i++) {
        uint32_t owner = atomic_load_explicit(&kithi_view_upper(&v, i)->owner, memory_order_relaxed);
        if (owner - 1u >= v.slots_used || !may_be_entry(&v, owner - 1))
            continue;
        const struct kithi_record *r = kithi_view_record(&v, owner - 1);
        uint32_t level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
        if (best == 0 || level > kithi_entry_level(best))
            best = kithi_entry_pack(owner - 1, level);
    }
    for (uint32_t slot = 0; best == 0 && slot < v.slots_used; slot++)
        if (may_be_entry(&v, slot))
            best = kithi_entry_pack(slot, 0);
    /* Nothing is visible any more, and what was loses its last finder. Nothing is published while the lock is held. */
    if (best == 0)
        kithi_mark_unlinked(ix, ix->epoch);
    /* [P3 unlinked] release: whoever misses the old entry sees the mark. Other half: kithi_view_unlinked(). */
    atomic_store_explicit(&ix->header->entry, best, memory_order_release);
    return best;
}

/* A view that has the entry point's slot: of now, since groups that run beside may have added slots. */
static uint64_t seen(const struct kithi_index *ix, uint64_t entry, struct kithi_view *v)
{
    if (entry && kithi_entry_link(entry) - 1u >= v->slot_limit)
        kithi_view_begin(&ix->map, v);
    return entry;
}

static uint64_t entry_seen(const struct kithi_index *ix, struct kithi_view *v)
{
    return seen(ix, atomic_load_explicit(&ix->header->entry, memory_order_acquire), v);
}

void kithi_relink(struct kithi_index *ix, unsigned worker, uint32_t slot, const struct look *look)
{
    struct worker *w = &ix->workers[worker];
    struct kithi_view v;
    kithi_view_begin(&ix->map, &v);
    unsigned level =
        kithi_meta_level(atomic_load_explicit(&kithi_view_record(&v, slot)->meta, memory_order_relaxed));
    uint64_t entry = entry_seen(ix, &v);
    kithi_view_decode_vector(&v, slot, w->vector);
    if (entry && level <= KITHI_LEVEL_MAX)
        link_slot(ix, &v, w, slot, level, entry, look);
}

void kithi_group_job(struct kithi_index *ix, const struct kithi_group *g, unsigned worker, uint32_t i)
{
    struct worker *w = &ix->workers[worker];
    const struct insertion *in = &g->insertions[i];
    struct kithi_view v;
    const struct look look = { .ef = ix->map.geometry.ef_construction };
    kithi_view_begin(&ix->map, &v);
    fill(&v, w, in);

    /*
     * The entry is read under its lock, after `linked`: whoever comes next finds this slot or stands
     * before it. A slot that will be the new top keeps the lock while it links, as there is one top at
     * a time.
     */
    pthread_mutex_lock(&ix->entry_lock);
    uint64_t entry = entry_seen(ix, &v);
    bool top = entry == 0 || in->level > kithi_entry_level(entry);
    if (!top)
        pthread_mutex_unlock(&ix->entry_lock);

    if (entry == 0 || !link_slot(ix, &v, w, in->slot, in->level, entry, &look)) {
        /* Nobody living all round. If the entry is dead, a living one takes its place; if there is
         * none, this slot does, and whoever comes next finds it. */
        if (!top) {
            pthread_mutex_lock(&ix->entry_lock);
            entry = entry_seen(ix, &v);
        }
        if (entry && !kithi_slot_eligible(&v, kithi_entry_link(entry) - 1))
            entry = seen(ix, kithi_entry_replace(ix), &v);
        top = entry == 0 || in->level > kithi_entry_level(entry);
        if (!top)
            pthread_mutex_unlock(&ix->entry_lock);
        if (entry)
            link_slot(ix, &v, w, in->slot, in->level, entry, &look);
    }
    if (top) {
        /* Release: the rows that the entry leads to are filled. Other half: begin_walk(). */
        atomic_store_explicit(&ix->header->entry, kithi_entry_pack(in->slot, in->level),
                              memory_order_release);
        pthread_mutex_unlock(&ix->entry_lock);
    }
}
