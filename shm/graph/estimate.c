/*
 * estimate.c - see estimate.h.
 */
#include "shm/graph/estimate.h"

#include <math.h>

#include "shm/graph/match.h"
#include "shm/postings/postings.h"

/* Slots of a sample. A share of one in a hundred is then known to within a half of it, and takes 0.1 ms to learn. */
#define SAMPLE_COUNT 512u
/* ... which is taken anew after so many commits, and when the slots have become so many eighths more. */
#define SAMPLE_GROUPS 1024u
/* Of so many matches of the sample so many links are looked at, for what matches have around them. */
#define BESIDE_KNOWN 16u
#define BESIDE_LINKS 8u
/* Standard deviations that a normal variable keeps within with a probability of 99 %. */
#define BOUND 2.576

/* Which postings these are, and whether they are whole: what a sample that is kept goes with. */
static uint64_t postings_of(const struct kithi_view *v)
{
    return v->postings & ~((uint64_t)KITHI_POSTINGS_ERAS << 1);
}

static bool is_fresh(const struct kithi_view *v, const struct kithi_sample *s)
{
    if (!s->count || v->epoch < s->epoch || s->postings != postings_of(v) || s->pinned != v->pinned)
        return false;
    return v->epoch - s->epoch < SAMPLE_GROUPS && v->slots_used <= s->used + s->used / 8;
}

/* Look at a slot; types that do not go together match nothing. As kithi_match(), AGAIN for one that is not visible, too. */
static int look(const struct kithi_view *v, struct kithi_condition *c, uint32_t slot)
{
    uint64_t birth;
    if (!kithi_view_visible(v, kithi_view_record(v, slot), &birth))
        return KITHI_MATCH_AGAIN;
    int rc = kithi_match(v, slot, birth, c);
    c->look.holds = (enum kithi_payload_type)0;
    c->sample.whole = c->sample.whole && rc != KITHI_MATCH_AGAIN;
    return rc < 0 ? KITHI_MATCH_NO : rc;
}

static void look_at(const struct kithi_view *v, struct kithi_condition *c, uint32_t slot)
{
    struct kithi_sample *s = &c->sample;
    int rc = look(v, c, slot);
    s->count += rc != KITHI_MATCH_AGAIN;
    s->matched += rc == KITHI_MATCH_YES;
    if (rc == KITHI_MATCH_YES && s->known_count < KITHI_SAMPLE_KNOWN)
        s->known[s->known_count++] = slot;
}

/* What stands beside a match. */
static void look_beside(const struct kithi_view *v, struct kithi_condition *c, uint32_t slot)
{
    uint32_t places, seen = 0;
    const kithi_link *links = kithi_view_links(v, slot, 0, &places);
    for (uint32_t i = 0; links && i < places && seen < BESIDE_LINKS; i++) {
        /* Relaxed: a link is a hint. */
        uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
        if (link - 1u >= v->slot_limit)
            continue;
        int rc = look(v, c, link - 1);
        c->sample.beside += rc != KITHI_MATCH_AGAIN;
        c->sample.beside_matched += rc == KITHI_MATCH_YES;
        seen++;
    }
}

static void take(const struct kithi_view *v, struct kithi_condition *c)
{
    uint32_t count = v->slots_used < SAMPLE_COUNT ? v->slots_used : SAMPLE_COUNT;
    c->sample =
        (struct kithi_sample){ .epoch = v->epoch, .used = v->slots_used, .whole = count == v->slots_used };
    for (uint32_t i = 0; i < count; i++) {
        /* One of each stretch of slots, at a place in it that has nothing to do with any order of them, and the stretches in an order that
         * leaves the known ones spread over all of them. */
        uint32_t at = (uint32_t)((uint64_t)i * 257 % count);
        if (count % 257 == 0)
            at = i;
        uint64_t low = (uint64_t)v->slots_used * at / count,
                 high = (uint64_t)v->slots_used * (at + 1) / count;
        uint64_t mixed = (at + 1) * UINT64_C(0x9e3779b97f4a7c15);
        look_at(v, c, (uint32_t)(low + (mixed >> 32) % (high - low)));
    }
    for (uint32_t i = 0; i < c->sample.known_count && i < BESIDE_KNOWN; i++)
        look_beside(v, c, c->sample.known[i]);
    struct kithi_match_bounds b;
    kithi_postings_bounds(v, c->filter, &b);
    c->sample.indexed = b.known;
    c->sample.candidates = b.most;
    c->sample.postings = postings_of(v);
    c->sample.pinned = v->pinned;
    c->evaluated = c->matched = 0;
}

/* The interval of Wilson, which holds for shares near 0 and 1, too. */
static void bound(const struct kithi_sample *s, struct kithi_estimate *e)
{
    double n = s->count, p = n > 0 ? s->matched / n : 0.5, z2 = BOUND * BOUND;
    double middle = (p + z2 / (2 * n)) / (1 + z2 / n);
    double half = BOUND / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n));
    double low = n > 0 && s->matched > 0 ? (middle - half) * (double)e->of : 0;
    double high = n > 0 && s->matched < s->count ? ceil((middle + half) * (double)e->of) : (double)e->of;
    e->low = low > 0 ? (uint64_t)low : 0;
    e->high = high < (double)e->of ? (uint64_t)high : e->of;
}

/* No more match than are looked at: a sample hardly knows the share of what is rare. */
static void keep_below(struct kithi_estimate *e)
{
    if (e->high > e->looks)
        e->high = e->looks;
    if (e->matches > e->high)
        e->matches = e->high;
    if (e->low > e->high)
        e->low = e->high;
    double most = ((double)e->looks + 0.5) / ((double)e->of + 1);
    if (e->share > most)
        e->share = most;
}

bool kithi_estimate(const struct kithi_view *v, struct kithi_condition *c, struct kithi_estimate *out)
{
    const struct kithi_sample *s = &c->sample;
    bool taken = !is_fresh(v, s);
    if (taken)
        take(v, c);
    bool whole = s->whole && s->epoch == v->epoch;
    struct kithi_estimate e = { .share = (s->matched + 0.5) / (s->count + 1.0), .exact = whole };
    /* With as much weight for the share as of some looks, as there may be none. */
    e.density = (s->beside_matched + 4 * e.share) / (s->beside + 4.0);
    /* Relaxed: about that of the epoch, and no more than there are slots. */
    e.of = atomic_load_explicit(&v->header->live, memory_order_relaxed);
    if (e.of > v->slots_used)
        e.of = v->slots_used;
    if (whole) {
        e.of = s->count;
        e.matches = e.low = e.high = s->matched;
    } else {
        bound(s, &e);
        e.matches = s->count ? (uint64_t)((double)s->matched / s->count * (double)e.of + 0.5) : 0;
        e.matches = e.matches < e.low ? e.low : e.matches > e.high ? e.high : e.matches;
    }
    e.indexed = s->indexed;
    e.looks = s->indexed && s->candidates < v->slots_used ? s->candidates : v->slots_used;
    if (e.indexed && !e.exact)
        keep_below(&e);
    if (e.indexed && e.looks == 0 && s->epoch == v->epoch)
        e.exact = true; /* an upper bound of none is a lower one, too */
    *out = e;
    return taken;
}
