/*
 * search.c - the walk, and the search around it: snapshot, descent, walk, check, marks.
 *
 * Owns the order in which a search looks at shared words, which is the reader's half of
 * PROTOCOL.md. Numbers from shared memory are compared with the view's limits here, before
 * anything is dereferenced; loops end by counts that this process holds: a walk expands each
 * slot at most once, because the visited set is private.
 */
#include "shm/graph/search.h"

#include <errno.h>
#include <float.h>
#include <string.h>
#include <time.h>

#include "shm/base/error.h"
#include "shm/base/id.h"

/* Lines of a vector that are asked for ahead; the hardware's own prefetcher follows from there. */
#define PREFETCH_LINES 8u
/* Expansions between two looks at the clock: some tens of microseconds. */
#define DEADLINE_STRIDE 16u
/* Steps of the descent on one level. Real graphs take a few dozen; bytes made to hurt get no more. */
#define DESCENT_MAX 512u
/* Ghosts that a walk keeps expanding although the beam is full of them: a crowd of dead versions at one
 * spot is crossed, some milliseconds long; a region of deleted vectors as large as the collection is not. */
#define CROWD_MAX 16384u
/* What search_graph() returns when the snapshot has to be taken anew, or better were. */
#define SEARCH_AGAIN 1
#define SEARCH_SHORT 2
/* Walks begun again because rows were emptied under them; the next answer is as good as a walk among
 * dead slots gets. A long search beside a busy writer would else never end. */
#define EMPTIED_MAX 2u

static float sane(float d)
{
    return d == d ? d : FLT_MAX;
}

static kithi_dist_fn *one_fn(const struct kithi_kernel *k, uint32_t metric)
{
    return metric == KITHI_METRIC_L2 ? k->l2 : k->ip;
}

static kithi_dist4_fn *four_fn(const struct kithi_kernel *k, uint32_t metric)
{
    return metric == KITHI_METRIC_L2 ? k->l2_4 : k->ip_4;
}

float kithi_view_distance(const struct kithi_view *v, const struct kithi_kernel *kernel, const float *query,
                          uint32_t slot)
{
    const struct kithi_geometry *g = &v->map->geometry;
    return sane(one_fn(kernel, g->metric)(query, kithi_view_vector(v, slot), g->dim));
}

/* A slot in doubt takes a place only when its record says so. */
static bool is_ghost(const struct kithi_view *v, uint32_t slot, enum kithi_eyes eyes)
{
    if (KITHI_LIKELY(!kithi_view_doubt(v, slot)))
        return false;
    const struct kithi_record *r = kithi_view_record(v, slot);
    if (eyes == KITHI_EYES_WRITER)
        return !atomic_load_explicit(&r->linked, memory_order_relaxed) ||
               atomic_load_explicit(&r->death, memory_order_relaxed) != 0;
    uint64_t birth;
    return !kithi_view_visible(v, r, &birth);
}

/*
 * Make room for an entry in a full beam, which holds a crowd of ghosts, as the living in it are at most
 * half. Ghosts that were expanded have done their work and go first; if there are none, or the crowd has
 * been followed far enough, the farthest ghost goes, which may be the one that asks: then false. The
 * living stay, or a crowd would hide them.
 */
static bool beam_thin(struct kithi_scratch *s, float d, bool ghost)
{
    const uint32_t done = KITHI_BEAM_EXPANDED | KITHI_BEAM_GHOST;
    struct kithi_beam_entry *b = s->beam;
    uint32_t n = 0, farthest = s->beam_count;
    if (s->ghost_count < CROWD_MAX) {
        for (uint32_t i = 0; i < s->beam_count; i++)
            if ((b[i].slot & done) != done)
                b[n++] = b[i];
        if (n < s->beam_count) {
            s->beam_count = n;
            return true;
        }
    }
    while (farthest > 1 && !(b[farthest - 1].slot & KITHI_BEAM_GHOST))
        farthest--;
    if (ghost && d >= b[farthest - 1].distance)
        return false;
    memmove(b + farthest - 1, b + farthest, (s->beam_count - farthest) * sizeof *b);
    s->beam_count--;
    return true;
}

/*
 * Put an entry into the sorted beam. Returns the lowest place from which on the beam has changed, or
 * UINT32_MAX when it has not.
 */
static uint32_t beam_insert(struct kithi_scratch *s, uint32_t ef, float d, uint32_t slot, bool ghost)
{
    struct kithi_beam_entry *b = s->beam;
    bool thinned = s->beam_count == s->beam_capacity;
    if (s->live_count >= ef && d >= b[s->beam_count - 1].distance)
        return UINT32_MAX;
    if (KITHI_UNLIKELY(thinned) && !beam_thin(s, d, ghost))
        return UINT32_MAX;
    uint32_t n = s->beam_count;
    /* Halving without branches: where the entry belongs is what no predictor knows. */
    uint32_t lo = 0;
    for (uint32_t len = n; len > 0;) {
        uint32_t half = (len + 1) / 2;
        lo = b[lo + half - 1].distance <= d ? lo + half : lo;
        len -= half;
    }
    memmove(b + lo + 1, b + lo, (n - lo) * sizeof *b);
    b[lo] = (struct kithi_beam_entry){ .distance = d, .slot = slot | (ghost ? KITHI_BEAM_GHOST : 0) };
    n++;
    if (!ghost)
        s->live_count++;
    if (s->live_count >= ef) {
        /* Ghosts beyond the ef-th living entry lead nowhere nearer; nor does a living one too many. */
        while (n > 0 && (b[n - 1].slot & KITHI_BEAM_GHOST))
            n--;
        if (s->live_count > ef) {
            n--;
            s->live_count--;
        }
        while (n > 0 && (b[n - 1].slot & KITHI_BEAM_GHOST))
            n--;
    }
    s->beam_count = n;
    return thinned ? 0 : lo;
}

int kithi_walk_seed(const struct kithi_view *v, struct kithi_scratch *s, const float *query, uint32_t slot,
                    enum kithi_eyes eyes)
{
    if (kithi_visited_full(s) && kithi_scratch_grow_visited(s) < 0)
        return -ENOMEM;
    if (!kithi_visited_add(s, slot))
        return 0;
    float d = kithi_view_distance(v, s->kernel, query, slot);
    s->distance_count++;
    beam_insert(s, UINT32_MAX, d, slot, is_ghost(v, slot, eyes));
    return 0;
}

/*
 * The neighbours of a row that are in range and were not met before, into s->found. The hottest
 * loop of a search: the set's fields are held in registers, which stores through it would undo.
 */
static inline uint32_t gather(const struct kithi_view *v, struct kithi_scratch *s, const kithi_link *links,
                              uint32_t count)
{
    uint32_t *const set = s->visited, *const list = s->visited_list, *const found = s->found;
    const uint32_t mask = s->visited_mask, limit = v->slot_limit;
    const unsigned char *const vectors = v->vectors;
    const size_t stride = v->vector_stride;
    uint32_t met = s->visited_count, n = 0;
    for (uint32_t i = 0; i < count; i++) {
        /* Relaxed: a link is a hint, and what it leads to is checked by itself (R4). */
        uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
        if (link - 1u >= limit)
            continue; /* empty, or beyond what this view knows */
        uint32_t at = kithi_visited_home(link, mask);
        while (set[at] && set[at] != link)
            at = (at + 1) & mask;
        if (set[at])
            continue;
        set[at] = link;
        list[met++] = link;
        KITHI_PREFETCH(vectors + (link - 1) * stride);
        found[n++] = link - 1;
    }
    s->visited_count = met;
    return n;
}

static inline void prefetch_vector(const struct kithi_view *v, uint32_t slot, uint32_t lines)
{
    const char *p = (const char *)kithi_view_vector(v, slot);
    for (uint32_t i = 1; i < lines; i++)
        KITHI_PREFETCH(p + (size_t)i * KITHI_CACHE_LINE);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* the vDSO answers; no system call */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int kithi_walk(const struct kithi_view *v, struct kithi_scratch *s, const float *query, uint32_t ef,
               unsigned level, enum kithi_eyes eyes, uint64_t deadline_ns, bool *out_deadline_hit)
{
    const struct kithi_geometry *g = &v->map->geometry;
    kithi_dist4_fn *four = four_fn(s->kernel, g->metric);
    kithi_dist_fn *one = one_fn(s->kernel, g->metric);
    uint32_t lines = v->vector_stride / KITHI_CACHE_LINE;
    if (lines > PREFETCH_LINES)
        lines = PREFETCH_LINES;
    if (out_deadline_hit)
        *out_deadline_hit = false;

    uint32_t at = 0;
    for (uint32_t expansions = 0;;) {
        while (at < s->beam_count && (s->beam[at].slot & KITHI_BEAM_EXPANDED))
            at++;
        if (at >= s->beam_count)
            return 0;
        if (KITHI_UNLIKELY(kithi_view_moved(v)))
            return KITHI_E_MOVED;
        if (deadline_ns && ++expansions % DEADLINE_STRIDE == 0 && now_ns() >= deadline_ns) {
            if (out_deadline_hit)
                *out_deadline_hit = true;
            return 0;
        }
        if (KITHI_UNLIKELY(kithi_visited_full(s)) && kithi_scratch_grow_visited(s) < 0)
            return -ENOMEM;

        uint32_t slot = s->beam[at].slot & KITHI_BEAM_SLOT, places;
        s->ghost_count += (s->beam[at].slot & KITHI_BEAM_GHOST) != 0;
        s->stood_on_dead |= (s->beam[at].slot & KITHI_BEAM_GHOST) != 0;
        s->beam[at].slot |= KITHI_BEAM_EXPANDED;
        const kithi_link *links = kithi_view_links(v, slot, level, &places);
        if (!links)
            continue;
        uint32_t n = gather(v, s, links, places);
        s->expansion_count++;
        s->distance_count += n;

        uint32_t lowest = at + 1;
        float d[4];
        for (uint32_t i = 0; i < n; i += 4) {
            uint32_t k = n - i < 4 ? n - i : 4;
            for (uint32_t j = i + 4; j < i + 8 && j < n; j++)
                prefetch_vector(v, s->found[j], lines);
            if (k == 4) {
                const float *rows[4];
                for (uint32_t j = 0; j < 4; j++)
                    rows[j] = kithi_view_vector(v, s->found[i + j]);
                four(query, rows, g->dim, d);
            } else {
                for (uint32_t j = 0; j < k; j++)
                    d[j] = one(query, kithi_view_vector(v, s->found[i + j]), g->dim);
            }
            for (uint32_t j = 0; j < k; j++) {
                float dj = sane(d[j]);
                if (s->live_count >= ef && dj >= s->beam[s->beam_count - 1].distance)
                    continue;
                uint32_t found = s->found[i + j];
                uint32_t place = beam_insert(s, ef, dj, found, is_ghost(v, found, eyes));
                if (place < lowest)
                    lowest = place;
            }
        }
        if (lowest <= at)
            at = lowest;
        if (at < s->beam_count)
            KITHI_PREFETCH(kithi_view_row(v, s->beam[at].slot & KITHI_BEAM_SLOT));
    }
}

void kithi_descend(const struct kithi_view *v, struct kithi_scratch *s, const float *query, unsigned from,
                   unsigned to, uint32_t *slot)
{
    if (from <= to)
        return;
    uint32_t best = *slot;
    float best_d = kithi_view_distance(v, s->kernel, query, best);
    s->distance_count++;
    for (unsigned level = from; level > to; level--) {
        for (uint32_t steps = 0; steps < DESCENT_MAX; steps++) { /* each is strictly nearer */
            uint32_t places, next = best;
            s->stood_on_dead |= kithi_view_doubt(v, best);
            const kithi_link *links = kithi_view_links(v, best, level, &places);
            if (!links)
                break;
            s->expansion_count++;
            for (uint32_t i = 0; i < places; i++) {
                uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
                if (link - 1u >= v->slot_limit)
                    continue;
                float d = kithi_view_distance(v, s->kernel, query, link - 1);
                s->distance_count++;
                if (d < best_d) {
                    best_d = d;
                    next = link - 1;
                }
            }
            if (next == best)
                break;
            best = next;
        }
    }
    *slot = best;
}

/*
 * Copy slot out when it is visible and of one piece: id, and the exact distance computed inside the
 * birth window. Returns 1, 0 when it does not count, or -ENOMEM.
 */
static int take_hit(const struct kithi_view *v, struct kithi_scratch *s, const float *query, uint32_t slot,
                    struct kithi_results *out)
{
    const struct kithi_record *r = kithi_view_record(v, slot);
    uint64_t birth;
    char id[KITHI_ID_MAX + 1];
    if (!kithi_view_visible(v, r, &birth))
        return 0;
    size_t id_len = kithi_view_id(v, slot, id);
    float d = kithi_view_distance(v, s->kernel, query, slot);
    if (!kithi_birth_same(r, birth) || id_len == 0)
        return 0;
    int rc = kithi_results_add(out, d, slot, birth, id, id_len);
    return rc < 0 ? rc : 1;
}

static int search_graph(const struct kithi_view *v, struct kithi_scratch *s, const float *query,
                        const struct kithi_search_params *p, struct kithi_results *out)
{
    /* Acquire: the entry point's rows were filled before the word was stored. */
    uint64_t entry = atomic_load_explicit(&v->header->entry, memory_order_acquire);
    uint32_t link = kithi_entry_link(entry), level = kithi_entry_level(entry);
    if (link == 0)
        return 0; /* an empty graph */
    if (link > v->slot_limit)
        return SEARCH_AGAIN; /* it grew after this view began */
    if (level > KITHI_LEVEL_MAX)
        level = KITHI_LEVEL_MAX;
    uint32_t slot = link - 1;
    kithi_descend(v, s, query, level, 0, &slot);
    int rc = kithi_walk_seed(v, s, query, slot, KITHI_EYES_READER);
    if (rc == 0)
        rc = kithi_walk(v, s, query, p->ef, 0, KITHI_EYES_READER, p->deadline_ns, &out->stats.deadline_hit);
    if (rc < 0)
        return rc;

    uint32_t ahead = p->k < 8 ? p->k : 8;
    for (uint32_t i = 0; i < ahead && i < s->beam_count; i++)
        KITHI_PREFETCH(kithi_view_record(v, s->beam[i].slot & KITHI_BEAM_SLOT));
    bool newborn = false;
    for (uint32_t i = 0; i < s->beam_count && out->count < p->k; i++) {
        if (i + ahead < s->beam_count)
            KITHI_PREFETCH(kithi_view_record(v, s->beam[i + ahead].slot & KITHI_BEAM_SLOT));
        if (s->beam[i].slot & KITHI_BEAM_GHOST)
            continue;
        slot = s->beam[i].slot & KITHI_BEAM_SLOT;
        rc = take_hit(v, s, query, slot, out);
        if (rc < 0)
            return rc;
        newborn |= rc == 0 && kithi_birth_begin(kithi_view_record(v, slot)) > v->epoch;
    }
    /* A group that was published meanwhile takes places in ef from those that this snapshot sees. */
    return newborn && out->count < p->k ? SEARCH_SHORT : 0;
}

/* Every visible vector: the beam keeps the k best of a pass over the records. */
static int search_exact(const struct kithi_view *v, struct kithi_scratch *s, const float *query,
                        const struct kithi_search_params *p, struct kithi_results *out)
{
    for (uint32_t slot = 0; slot < v->slots_used; slot++) {
        if (slot % 1024 == 0) {
            if (kithi_view_moved(v))
                return KITHI_E_MOVED;
            if (p->deadline_ns && now_ns() >= p->deadline_ns) {
                out->stats.deadline_hit = true;
                break;
            }
        }
        const struct kithi_record *r = kithi_view_record(v, slot);
        uint64_t birth;
        if (!kithi_view_visible(v, r, &birth))
            continue;
        float d = kithi_view_distance(v, s->kernel, query, slot);
        s->distance_count++;
        if (!kithi_birth_same(r, birth))
            continue;
        beam_insert(s, p->k, d, slot, false);
    }
    for (uint32_t i = 0; i < s->beam_count; i++) {
        int rc = take_hit(v, s, query, s->beam[i].slot, out);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int kithi_search(const struct kithi_map *map, struct kithi_scratch *s, const float *query,
                 const struct kithi_search_params *params, struct kithi_results *out)
{
    const struct kithi_geometry *g = &map->geometry;
    memset(&out->stats, 0, sizeof out->stats);
    s->distance_count = s->expansion_count = 0;

    for (uint32_t attempt = 0; attempt <= KITHI_RESTART_MAX; attempt++) {
        kithi_results_clear(out);
        int rc = kithi_scratch_prepare(s, params->exact ? params->k : params->ef, g->dim);
        if (rc < 0)
            return rc;
        const float *q = query;
        if (g->metric == KITHI_METRIC_COSINE) {
            kithi_normalise(s->query, query, g->dim);
            q = s->query;
        }
        struct kithi_view v;
        kithi_view_begin(map, &v);
        s->stood_on_dead = false;
        rc = params->exact ? search_exact(&v, s, q, params, out) : search_graph(&v, s, q, params, out);
        if (rc < 0)
            return rc;
        out->stats.epoch = v.epoch;
        out->stats.distance_count = s->distance_count;
        out->stats.expansion_count = s->expansion_count;
        out->stats.restart_count = attempt;
        /* The marks come last: what they say covers everything that was read before. A scan of
         * records needs no finder, so only refilled slots can have escaped it. */
        if (kithi_view_moved(&v))
            return KITHI_E_MOVED;
        bool again = rc == SEARCH_AGAIN ||
                     (rc == SEARCH_SHORT && attempt < KITHI_RESTART_MAX && !out->stats.deadline_hit) ||
                     (s->stood_on_dead && attempt < EMPTIED_MAX && kithi_view_emptied(&v));
        if (!again && !(params->exact ? kithi_view_reused(&v) : kithi_view_unlinked(&v))) {
            kithi_results_sort(out);
            return (int)out->count;
        }
        out->stats.deadline_hit = false;
    }
    return KITHI_E_STALE;
}
