/*
 * walk.c - the beam, and the expansions that fill it.
 *
 * Numbers from shared memory are compared with the view's limits here, before anything is dereferenced;
 * a walk expands each slot at most once, because the visited set is private, and begins anew at most once.
 */
#include "shm/graph/walk.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "shm/base/error.h"
#include "shm/kernel/bits.h"

/* Expansions between two looks at the clock: some tens of microseconds. */
#define DEADLINE_STRIDE 16u
/* Steps of the descent on one level. Real graphs take a few dozen; bytes made to hurt get no more. */
#define DESCENT_MAX 512u
/* Ghosts that a walk keeps expanding although the beam is full of them: a crowd of dead versions at one
 * spot is crossed, some milliseconds long; a region of deleted vectors as large as the collection is not. */
#define CROWD_MAX 16384u
/* Codes asked for ahead of the one that is compared. */
#define JUDGE_AHEAD 8u
/* Codes compared in one step; a multiple of 4. */
#define JUDGE_STRIDE 64u
/* Entries that are counted rather than halved: four comparisons at once take as long as one whose address hangs on the
 * one before. */
#define COUNTED_MAX 24u
/*
 * Estimates are of no use when they are off by as much as the beam is wide: to a query that is far from everything,
 * all neighbours are about equally near. After so many expansions an error (root mean square) of more than this share
 * of the width sends the walk back to codes. It is 0.08 to 0.21 for queries like the vectors (fashion-mnist, labse,
 * mlnotes; ef 16 to 500), and 3 and more for labse's query_ood.
 */
#define TRUST_AFTER 8u
#define TRUST_SHARE 0.5f
/*
 * A walk by estimates has arrived when so many expansions in a row have led nobody among the nearest: the nearer half of
 * the beam, and all that are asked for.
 * Who then waits is compared by its own code, which is a fifth of what its row takes, and is not expanded. A
 * reader's recall at the same ef sinks by up to 0.003 and its rate rises by up to a quarter (bench_core: at equal recall
 * 12 % for mlnotes, 3 % for labse). Insertions, which choose from all that they have found, are content with less, and look at
 * the nearer part of who waits only: building fashion-mnist takes a quarter less CPU time, and the recall of searches at ef 64 sinks by
 * 0.001, by 0.004 in labse, where it sinks most.
 */
#define PATIENCE_READER(ef) ((ef) / 4 + 1)
#define PATIENCE_WRITER(ef) ((ef) / 5 + 1)
#define JUDGED_WRITER(n)    ((n) - (n) / 5 * 2)

static float sane(float d)
{
    return d == d ? d : FLT_MAX;
}

static const struct kithi_distances *walked(const struct kithi_view *v, const struct kithi_scratch *s)
{
    return kithi_kernel_distances(s->kernel, v->walked, v->map->geometry.metric);
}

int kithi_walk_query(const struct kithi_view *v, struct kithi_scratch *s, const float *query)
{
    const struct kithi_geometry *g = &v->map->geometry;
    if (!s->kernel)
        s->kernel = kithi_kernel_pick();
    int rc = kithi_query_reserve(&s->query, g->dim, v->bits_width);
    if (rc < 0)
        return rc;
    if (g->metric == KITHI_METRIC_COSINE) {
        kithi_normalise(kithi_query_values(&s->query), query, g->dim);
        query = NULL;
    }
    kithi_query_prepare(&s->query, query, v->walked, v->bits_width);
    return 0;
}

float kithi_walk_distance(const struct kithi_view *v, const struct kithi_scratch *s, uint32_t slot)
{
    return sane(walked(v, s)->one(&s->query, kithi_view_code(v, slot)));
}

float kithi_walk_exact(const struct kithi_view *v, const struct kithi_scratch *s, uint32_t slot)
{
    const struct kithi_distances *d = kithi_kernel_distances(s->kernel, v->kept, v->map->geometry.metric);
    return sane(d->one(&s->query, kithi_view_vector(v, slot)));
}

/* A slot in doubt takes a place only when its record says so; to eyes that look at the past each is. */
static bool is_ghost(const struct kithi_view *v, uint32_t slot, enum kithi_eyes eyes)
{
    if (KITHI_LIKELY(!kithi_view_doubt(v, slot)) && KITHI_LIKELY(eyes != KITHI_EYES_PAST))
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

typedef float four_floats __attribute__((vector_size(16)));
typedef int32_t four_ints __attribute__((vector_size(16)));

/* Where an entry belongs among n sorted ones, which make room for it. */
static inline uint32_t entry_place(struct kithi_beam_entry *b, uint32_t n, float d)
{
    /* Halving without branches, as where the entry belongs is what no predictor knows; then counting. */
    uint32_t lo = 0, len = n;
    while (len > COUNTED_MAX) {
        uint32_t half = (len + 1) / 2;
        lo = b[lo + half - 1].distance <= d ? lo + half : lo;
        len -= half;
    }
    four_ints count = { 0 };
    const four_floats all = { d, d, d, d };
    const struct kithi_beam_entry *p = b + lo;
    for (; len >= 4; len -= 4, p += 4) {
        four_floats next = { p[0].distance, p[1].distance, p[2].distance, p[3].distance };
        count += next <= all; /* -1 where it is */
    }
    uint32_t at = lo - (uint32_t)(count[0] + count[1] + count[2] + count[3]);
    for (; len > 0; len--, p++)
        at += p->distance <= d;
    memmove(b + at + 1, b + at, (n - at) * sizeof *b);
    return at;
}

uint32_t kithi_beam_insert(struct kithi_scratch *s, uint32_t ef, float d, uint32_t slot, bool ghost)
{
    struct kithi_beam_entry *b = s->beam;
    bool thinned = s->beam_count == s->beam_capacity;
    if (s->live_count >= ef && d >= b[s->beam_count - 1].distance)
        return UINT32_MAX;
    if (KITHI_UNLIKELY(thinned) && !beam_thin(s, d, ghost))
        return UINT32_MAX;
    uint32_t n = s->beam_count;
    uint32_t lo = entry_place(b, n, d);
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

int kithi_walk_begin(const struct kithi_view *v, struct kithi_scratch *s, uint32_t ef, unsigned level,
                     enum kithi_eyes eyes)
{
    /* No beam holds more than there are, and what a wide one takes is cleared for each walk. */
    if (ef > v->slot_limit)
        ef = v->slot_limit;
    if (ef == 0)
        ef = 1;
    int rc = kithi_scratch_prepare(s, ef);
    if (rc < 0)
        return rc;
    s->ef = ef;
    s->level = level;
    s->eyes = eyes;
    s->near_used = v->bits_width && level == 0;
    s->judge_count = 0;
    s->far_from = (ef + 1) / 2;
    s->patience = eyes == KITHI_EYES_WRITER ? PATIENCE_WRITER(ef) : PATIENCE_READER(ef);
    return 0;
}

int kithi_walk_seed(const struct kithi_view *v, struct kithi_scratch *s, uint32_t slot)
{
    if (kithi_visited_full(s) && kithi_scratch_grow_visited(s) < 0)
        return -ENOMEM;
    if (!kithi_visited_add(s, slot))
        return 0;
    float d = kithi_walk_distance(v, s, slot);
    s->distance_count++;
    kithi_beam_insert(s, UINT32_MAX, d, slot, is_ghost(v, slot, (enum kithi_eyes)s->eyes));
    return 0;
}

/* lines cache lines from p, without the first. */
static inline void prefetch_rest(const unsigned char *p, uint32_t lines)
{
    for (uint32_t i = 1; i < lines; i++)
        KITHI_PREFETCH(p + (size_t)i * KITHI_CACHE_LINE);
}

static inline void prefetch_code(const struct kithi_view *v, uint32_t slot)
{
    const unsigned char *code = kithi_view_code(v, slot);
    KITHI_PREFETCH(code);
    prefetch_rest(code, v->prefetch_code);
}

/* What the expansion of slot will read first. */
static inline void prefetch_row(const struct kithi_view *v, const struct kithi_scratch *s, uint32_t slot)
{
    const unsigned char *row = (const unsigned char *)kithi_view_row(v, slot);
    KITHI_PREFETCH(row);
    if (s->near_used)
        prefetch_rest(row, v->prefetch_row);
}

/*
 * The neighbours of a row that are in range and were not met before, into s->found. The hottest
 * loop of a search over plain rows: the set's fields are held in registers, which stores through it would undo.
 */
static inline uint32_t gather(const struct kithi_view *v, struct kithi_scratch *s, const kithi_link *links,
                              uint32_t count)
{
    uint32_t *const set = s->visited, *const list = s->visited_list, *const found = s->found;
    const uint32_t mask = s->visited_mask, limit = v->slot_limit;
    const unsigned char *const codes = v->codes;
    const size_t stride = v->code_stride;
    uint32_t met = s->visited_count, n = 0;
    for (uint32_t i = 0; i < count; i++) {
        /* Relaxed: a link is a hint, and what it leads to is checked by itself. */
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
        KITHI_PREFETCH(codes + (link - 1) * stride);
        found[n++] = link - 1;
    }
    s->visited_count = met;
    return n;
}

static float pair(const struct kithi_view *v, const struct kithi_scratch *s, uint32_t a, uint32_t b)
{
    return sane(walked(v, s)->pair(kithi_view_code(v, a), kithi_view_code(v, b), v->map->geometry.dim));
}

/* Is slot, at distance d from the owner of a row, in it, or led to well enough by one of its links? */
static bool is_covered(const struct kithi_view *v, const struct kithi_scratch *s, const kithi_link *links,
                       uint32_t places, uint32_t slot, float d)
{
    for (uint32_t i = 0; i < places; i++) {
        /* Relaxed: links are hints. */
        uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
        if (link - 1u < v->slot_limit && link != s->left_out &&
            (link == slot + 1 || pair(v, s, slot, link - 1) < d))
            return true;
    }
    return false;
}

/*
 * Whom the row of slot would lead to if the one that is left out were not there: of those that it leads to itself the nearest to slot
 * which no link of the row covers, as a sweep chooses when it hands the links of a dead one on. UINT32_MAX: nobody.
 */
static uint32_t find_heir(const struct kithi_view *v, const struct kithi_scratch *s, uint32_t slot,
                          const kithi_link *links, uint32_t places)
{
    const uint32_t out = s->left_out - 1;
    uint32_t count, heir = UINT32_MAX;
    float heir_distance = FLT_MAX;
    const kithi_link *theirs = out < v->slot_limit ? kithi_view_links(v, out, 0, &count) : NULL;
    for (uint32_t i = 0; theirs && i < count; i++) {
        uint32_t link = atomic_load_explicit(&theirs[i], memory_order_relaxed);
        if (link - 1u >= v->slot_limit || link == slot + 1)
            continue;
        float d = pair(v, s, slot, link - 1);
        if (d >= heir_distance || is_covered(v, s, links, places, link - 1, d))
            continue;
        heir = link - 1;
        heir_distance = d;
    }
    return heir;
}

static uint32_t heir_of(const struct kithi_view *v, const struct kithi_scratch *s, uint32_t slot,
                        const kithi_link *links, uint32_t places)
{
    struct kithi_heirs *h = s->heirs;
    for (uint32_t i = 0; i < h->count; i++)
        if (h->known[i].owner == slot)
            return h->known[i].heir;
    uint32_t heir = find_heir(v, s, slot, links, places);
    if (h->count < KITHI_HEIRS_MAX) {
        h->known[h->count].owner = slot;
        h->known[h->count++].heir = heir;
    }
    return heir;
}

/*
 * The row of slot, which was expanded, may lead to the one that is left out: a graph without it would have another link there. Returns the
 * place of the beam that has changed.
 */
static uint32_t expand_heir(const struct kithi_view *v, struct kithi_scratch *s, uint32_t slot,
                            const kithi_link *links, uint32_t places)
{
    bool leads = false;
    for (uint32_t i = 0; i < places && !leads; i++)
        leads = atomic_load_explicit(&links[i], memory_order_relaxed) == s->left_out;
    if (!leads || s->level != 0)
        return UINT32_MAX;
    uint32_t heir = heir_of(v, s, slot, links, places);
    if (heir >= v->slot_limit || !kithi_visited_add(s, heir))
        return UINT32_MAX;
    float d = kithi_walk_distance(v, s, heir);
    s->distance_count++;
    if (s->live_count >= s->ef && d >= s->beam[s->beam_count - 1].distance)
        return UINT32_MAX;
    return kithi_beam_insert(s, s->ef, d, heir, is_ghost(v, heir, (enum kithi_eyes)s->eyes));
}

/* Expand by the codes of the neighbours. Returns the lowest place of the beam that has changed. */
static uint32_t expand_codes(const struct kithi_view *v, struct kithi_scratch *s, uint32_t slot)
{
    const struct kithi_distances *const d = walked(v, s);
    uint32_t places, lowest = UINT32_MAX;
    const kithi_link *links = kithi_view_links(v, slot, s->level, &places);
    if (!links)
        return lowest;
    uint32_t n = gather(v, s, links, places);
    s->distance_count += n;
    float distance[4];
    for (uint32_t i = 0; i < n; i += 4) {
        uint32_t k = n - i < 4 ? n - i : 4;
        for (uint32_t j = i + 4; j < i + 8 && j < n; j++)
            prefetch_rest(kithi_view_code(v, s->found[j]), v->prefetch_code);
        if (k == 4) {
            const unsigned char *codes[4];
            for (uint32_t j = 0; j < 4; j++)
                codes[j] = kithi_view_code(v, s->found[i + j]);
            d->four(&s->query, codes, distance);
        } else {
            for (uint32_t j = 0; j < k; j++)
                distance[j] = d->one(&s->query, kithi_view_code(v, s->found[i + j]));
        }
        for (uint32_t j = 0; j < k; j++) {
            float dj = sane(distance[j]);
            if (s->live_count >= s->ef && dj >= s->beam[s->beam_count - 1].distance)
                continue;
            uint32_t found = s->found[i + j];
            uint32_t place =
                kithi_beam_insert(s, s->ef, dj, found, is_ghost(v, found, (enum kithi_eyes)s->eyes));
            if (place < lowest)
                lowest = place;
        }
    }
    return lowest;
}

void kithi_near_insert(struct kithi_scratch *s, float d, uint32_t slot)
{
    struct kithi_beam_entry *b = s->near;
    uint32_t n = s->near_count;
    if (n == s->near_max) {
        if (d >= b[n - 1].distance)
            return;
        n--;
    }
    uint32_t lo = entry_place(b, n, d);
    b[lo] = (struct kithi_beam_entry){ .distance = d, .slot = slot };
    s->near_count = n + 1;
}

/*
 * The neighbours in one block that are near enough and were not met before, into s->found and s->estimates. Returns
 * how many; the nearest of them in *out_best. Fields are held in registers, as in gather().
 */
static inline uint32_t sift(const struct kithi_view *v, struct kithi_scratch *s, const kithi_link *links,
                            uint32_t mask, const float *est, uint32_t *out_best)
{
    uint32_t *const set = s->visited, *const list = s->visited_list, *const found = s->found;
    float *const estimates = s->estimates;
    const uint32_t set_mask = s->visited_mask, limit = v->slot_limit;
    uint32_t met = s->visited_count, n = 0, best = 0;
    float least = INFINITY;
    for (; mask; mask &= mask - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(mask);
        /* Relaxed: a link is a hint, and what it leads to is checked by itself. */
        uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
        if (link - 1u >= limit)
            continue;
        /* Whether it was met is what no predictor knows: it takes no branch. */
        uint32_t at = kithi_visited_home(link, set_mask), held;
        while (KITHI_UNLIKELY((held = set[at]) != 0 && held != link))
            at = (at + 1) & set_mask;
        bool fresh = held == 0;
        set[at] = link;
        list[met] = link;
        met += fresh;
        float d = sane(est[i]);
        found[n] = link - 1;
        estimates[n] = d;
        bool nearer = fresh & (d < least);
        best = nearer ? n : best;
        least = nearer ? d : least;
        n += fresh;
    }
    s->visited_count = met;
    *out_best = best;
    return n;
}

/*
 * Expand by the neighbour codes in the row of slot, which was estimated before and takes a place among the near unless
 * it is a ghost. next: the entry of the beam that is to come after it, if it leads to nobody nearer.
 */
static uint32_t expand_bits(const struct kithi_view *v, struct kithi_scratch *s, uint32_t slot,
                            float estimate, bool ghost, uint32_t next)
{
    const kithi_link *links = kithi_view_row(v, slot);
    float est[KITHI_BITS_PLACES], next_distance = INFINITY;
    const unsigned char *ahead = kithi_view_block(v, slot, 0);
    uint32_t lowest = UINT32_MAX, best;
    if (next < s->beam_count) {
        uint32_t it = s->beam[next].slot & KITHI_BEAM_SLOT;
        next_distance = s->beam[next].distance;
        prefetch_row(v, s, it);
        ahead = (const unsigned char *)kithi_view_row(v, it) + (size_t)v->prefetch_row * KITHI_CACHE_LINE;
    }
    float own = kithi_walk_distance(v, s, slot), error = own - estimate;
    s->distance_count++;
    s->error2 += error * error;
    s->steps++;
    if (!ghost)
        kithi_near_insert(s, own, slot);
    for (uint32_t first = 0; first < v->link_count0; first += KITHI_BITS_PLACES) {
        float limit = s->live_count >= s->ef ? s->beam[s->beam_count - 1].distance : INFINITY;
        uint32_t left = v->link_count0 - first;
        uint32_t mask = s->kernel->estimate(&s->query, kithi_view_block(v, slot, first / KITHI_BITS_PLACES),
                                            own, limit, ahead, est);
        if (s->live_count < s->ef)
            mask = UINT32_MAX; /* an estimate beyond all floats keeps nobody out of a beam with room */
        if (left < KITHI_BITS_PLACES)
            mask &= (1u << left) - 1;
        uint32_t n = sift(v, s, links + first, mask, est, &best);
        if (n && s->estimates[best] < next_distance) { /* it is somebody else: ask at once */
            next_distance = s->estimates[best];
            prefetch_row(v, s, s->found[best]);
        }
        for (uint32_t i = 0; i < n; i++) {
            if (s->live_count >= s->ef && s->estimates[i] >= s->beam[s->beam_count - 1].distance)
                continue;
            bool is_dead = is_ghost(v, s->found[i], (enum kithi_eyes)s->eyes);
            uint32_t place = kithi_beam_insert(s, s->ef, s->estimates[i], s->found[i], is_dead);
            if (place < lowest)
                lowest = place;
        }
    }
    return lowest;
}

/* Do the estimates of this walk tell its beam apart? Not asked before the beam is full. */
static bool is_trusted(const struct kithi_scratch *s)
{
    if (s->steps < TRUST_AFTER || s->live_count < s->ef || s->near_count == 0)
        return true;
    float width = TRUST_SHARE * (s->beam[s->beam_count - 1].distance - s->near[0].distance);
    return width > 0 && s->error2 <= (float)s->steps * width * width;
}

/* Walk on by codes, from what was expanded so far. */
static void begin_anew(const struct kithi_view *v, struct kithi_scratch *s)
{
    s->near_used = false;
    s->beam_count = s->live_count = s->at = 0;
    kithi_visited_clear(s);
    for (uint32_t i = 0; i < s->near_count; i++) {
        kithi_visited_add(s, s->near[i].slot);
        kithi_beam_insert(s, s->ef, s->near[i].distance, s->near[i].slot,
                          is_ghost(v, s->near[i].slot, (enum kithi_eyes)s->eyes));
    }
}

/*
 * Count the calm expansions after one that has changed the beam from lowest on. Not while there are ghosts in it: the
 * living lie behind them, and they are expanded to the last.
 */
static void note_calm(struct kithi_scratch *s, uint32_t lowest)
{
    bool calm = s->live_count >= s->ef && s->beam_count == s->live_count && lowest >= s->far_from;
    s->calm_count = calm ? s->calm_count + 1 : 0;
}

/* The walk has arrived: what was not expanded is compared by codes. */
static void begin_judging(struct kithi_scratch *s)
{
    struct kithi_beam_entry *const b = s->beam;
    uint32_t n = 0, end = s->eyes == KITHI_EYES_WRITER ? JUDGED_WRITER(s->beam_count) : s->beam_count;
    for (uint32_t i = s->at; i < end; i++) {
        if (b[i].slot & (KITHI_BEAM_EXPANDED | KITHI_BEAM_GHOST))
            continue;
        b[n++] = b[i];
    }
    s->judge_at = 0;
    s->judge_count = n;
    s->beam_count = s->live_count = s->at = 0;
}

/* Compare some of them. Returns 1 while there are more. */
static int judge_some(const struct kithi_view *v, struct kithi_scratch *s)
{
    const struct kithi_distances *const d = walked(v, s);
    const struct kithi_beam_entry *const b = s->beam;
    const uint32_t first = s->judge_at, n = s->judge_count;
    const uint32_t end = n - first < JUDGE_STRIDE ? n : first + JUDGE_STRIDE;
    for (uint32_t i = first; i < n && i < first + JUDGE_AHEAD; i++)
        prefetch_code(v, b[i].slot);
    for (uint32_t i = first; i < end; i += 4) {
        for (uint32_t j = i + JUDGE_AHEAD; j < i + JUDGE_AHEAD + 4 && j < n; j++)
            prefetch_code(v, b[j].slot);
        /* The last group is filled up with its own last, so that four is always four. */
        const unsigned char *codes[4];
        float four[4];
        for (uint32_t j = 0; j < 4; j++)
            codes[j] = kithi_view_code(v, b[i + j < n ? i + j : n - 1].slot);
        d->four(&s->query, codes, four);
        for (uint32_t j = 0; j < 4 && i + j < n; j++)
            kithi_near_insert(s, sane(four[j]), b[i + j].slot);
    }
    s->distance_count += end - first;
    s->judge_at = end;
    if (end < n)
        return 1;
    s->judge_count = 0;
    return 0;
}

int kithi_walk_step(const struct kithi_view *v, struct kithi_scratch *s)
{
    if (KITHI_UNLIKELY(s->judge_count))
        return judge_some(v, s);
    if (KITHI_UNLIKELY(s->near_used && !is_trusted(s)))
        begin_anew(v, s);
    uint32_t at = s->at;
    while (at < s->beam_count && (s->beam[at].slot & KITHI_BEAM_EXPANDED))
        at++;
    if (at >= s->beam_count)
        return 0;
    /* Not before it was asked whether estimates are of use. */
    if (KITHI_UNLIKELY(s->near_used && s->calm_count >= s->patience && s->steps >= TRUST_AFTER)) {
        begin_judging(s);
        return judge_some(v, s);
    }
    if (KITHI_UNLIKELY(kithi_view_moved(v)))
        return KITHI_E_MOVED;
    if (KITHI_UNLIKELY(kithi_visited_full(s)) && kithi_scratch_grow_visited(s) < 0)
        return -ENOMEM;

    uint32_t slot = s->beam[at].slot & KITHI_BEAM_SLOT;
    float estimate = s->beam[at].distance;
    bool ghost = s->beam[at].slot & KITHI_BEAM_GHOST;
    s->ghost_count += ghost;
    s->stood_on_dead |= ghost;
    s->beam[at].slot |= KITHI_BEAM_EXPANDED;
    s->expansion_count++;
    uint32_t next = at + 1;
    while (next < s->beam_count && (s->beam[next].slot & KITHI_BEAM_EXPANDED))
        next++;
    uint32_t lowest =
        s->near_used ? expand_bits(v, s, slot, estimate, ghost, next) : expand_codes(v, s, slot);
    if (KITHI_UNLIKELY(s->heirs != NULL)) {
        uint32_t place = expand_heir(v, s, slot, kithi_view_row(v, slot), v->link_count0);
        lowest = place < lowest ? place : lowest;
    }
    note_calm(s, lowest);
    s->at = lowest <= at ? lowest : at + 1;
    for (at = s->at; at < s->beam_count && (s->beam[at].slot & KITHI_BEAM_EXPANDED);)
        at++;
    s->at = at;
    if (at < s->beam_count)
        prefetch_row(v, s, s->beam[at].slot & KITHI_BEAM_SLOT);
    return 1;
}

/* The walk is cut: of those that wait, the nearest by estimates are compared, as many as are asked for. */
static void judge_front(const struct kithi_view *v, struct kithi_scratch *s)
{
    if (!s->near_used)
        return;
    if (s->judge_count == 0)
        begin_judging(s);
    uint32_t left = s->judge_count - s->judge_at;
    if (left > s->near_max)
        s->judge_count = s->judge_at + s->near_max;
    while (judge_some(v, s) == 1)
        continue;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* the vDSO answers; no system call */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int kithi_walk(const struct kithi_view *v, struct kithi_scratch *s, uint64_t deadline_ns,
               bool *out_deadline_hit)
{
    if (out_deadline_hit)
        *out_deadline_hit = false;
    for (uint32_t steps = 1;; steps++) {
        if (deadline_ns && steps % DEADLINE_STRIDE == 0 && now_ns() >= deadline_ns) {
            *out_deadline_hit = true;
            judge_front(v, s);
            return 0;
        }
        int rc = kithi_walk_step(v, s);
        if (rc <= 0)
            return rc;
    }
}

const struct kithi_beam_entry *kithi_walk_found(const struct kithi_scratch *s, uint32_t *out_count)
{
    *out_count = s->near_used ? s->near_count : s->beam_count;
    return s->near_used ? s->near : s->beam;
}

/*
 * One level of the descent: to the nearest of the links until none is nearer. Whatever was met before, on this level
 * or above, is no nearer than the nearest so far and is not looked at again.
 */
static void descend_level(const struct kithi_view *v, struct kithi_scratch *s, unsigned level, uint32_t *slot,
                          float *distance)
{
    const struct kithi_distances *const d = walked(v, s);
    for (uint32_t steps = 0; steps < DESCENT_MAX; steps++) { /* each is strictly nearer */
        uint32_t places, best = *slot;
        s->stood_on_dead |= kithi_view_doubt(v, best);
        const kithi_link *links = kithi_view_links(v, best, level, &places);
        if (!links)
            return;
        if (KITHI_UNLIKELY(kithi_visited_full(s)))
            kithi_visited_clear(s); /* it only saves work */
        uint32_t n = gather(v, s, links, places);
        s->expansion_count++;
        s->distance_count += n;
        for (uint32_t i = 0; i < n; i += 4) {
            /* The last group is filled up with its own last, so that four is always four. */
            const unsigned char *codes[4];
            float four[4];
            for (uint32_t j = 0; j < 4; j++)
                codes[j] = kithi_view_code(v, s->found[i + j < n ? i + j : n - 1]);
            for (uint32_t j = i + 4; j < i + 8 && j < n; j++)
                prefetch_rest(kithi_view_code(v, s->found[j]), v->prefetch_code);
            d->four(&s->query, codes, four);
            for (uint32_t j = 0; j < 4; j++) {
                if (four[j] < *distance) {
                    *distance = four[j];
                    best = s->found[i + j < n ? i + j : n - 1];
                }
            }
        }
        if (best == *slot)
            return;
        *slot = best;
    }
}

void kithi_walk_descend(const struct kithi_view *v, struct kithi_scratch *s, unsigned from, unsigned to,
                        uint32_t *slot)
{
    if (from <= to)
        return;
    float distance = kithi_walk_distance(v, s, *slot);
    s->distance_count++;
    kithi_visited_add(s, *slot);
    for (unsigned level = from; level > to; level--)
        descend_level(v, s, level, slot, &distance);
    kithi_visited_clear(s);
}
