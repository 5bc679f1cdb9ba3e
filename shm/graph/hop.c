/*
 * hop.c - see hop.h. Numbers from shared memory are compared with the view's limits before anything is dereferenced; each slot is looked at at
 * most once, and its row read at most once, because the visited set is private.
 */
#include "shm/graph/hop.h"

#include <errno.h>
#include <math.h>

#include "shm/base/error.h"
#include "shm/kernel/bits.h"

/* Rows of those that do not match are read for a match: the nearest ones to the query of those that it leads to, and more while that has met nobody. */
#define BRIDGES 8u
/* Payloads asked for ahead of the one that is looked at. */
#define PAYLOAD_AHEAD 4u
/* Matches of the sample that a walk begins at: the nearest ones. */
#define SEEDS 4u
/* After so many estimates that were compared with codes it is known how far they are off, and so many times that is what they are trusted for. */
#define ERRORS_MIN  32u
#define ERROR_SLACK 2.0f
/* Beside a slot number in the visited set: its row was read, or need not be. */
#define ROW_DONE KITHI_SLOT_MAX_LIMIT

/* Slots at hand, with the distances of their codes. */
struct batch {
    uint32_t count;
    struct kithi_beam_entry at[2 * KITHI_M_MAX];
};

static int ensure_room(struct kithi_scratch *s)
{
    return kithi_visited_full(s) && kithi_scratch_grow_visited(s) < 0 ? -ENOMEM : 0;
}

/* Is a distance one that keeps nobody in the beam? */
static bool is_far(const struct kithi_scratch *s, float d)
{
    return s->live_count >= s->ef && d >= s->beam[s->beam_count - 1].distance;
}

/*
 * Which of the links in a block of a row are worth a look at their codes: where the row has codes of its own, those that may be near, by what
 * estimates were off until now. est has the estimates; NaN: there are none.
 */
static uint32_t sift(const struct kithi_view *v, struct kithi_scratch *s, const struct kithi_beam_entry *row,
                     uint32_t first, uint32_t places, float est[KITHI_BITS_PLACES])
{
    uint32_t left = places - first, mask = left < KITHI_BITS_PLACES ? (1u << left) - 1 : UINT32_MAX;
    float limit = INFINITY;
    if (!v->bits_width) {
        for (uint32_t i = 0; i < KITHI_BITS_PLACES; i++)
            est[i] = NAN;
        return mask;
    }
    if (s->live_count >= s->ef && s->error_count >= ERRORS_MIN)
        limit = s->beam[s->beam_count - 1].distance + ERROR_SLACK * sqrtf(s->error2 / (float)s->error_count);
    const unsigned char *block = kithi_view_block(v, row->slot, first / KITHI_BITS_PLACES);
    uint32_t near = s->kernel->estimate(&s->query, block, row->distance, limit, block, est);
    return limit == INFINITY ? mask : mask & near;
}

/* The links of a row that were not met before, into out; with `again` those, too, that were, and whose rows may be of use. 0 or -ENOMEM. */
static int gather(const struct kithi_view *v, struct kithi_scratch *s, const struct kithi_beam_entry *row,
                  struct batch *out, struct batch *again)
{
    uint32_t places;
    const kithi_link *links = kithi_view_links(v, row->slot, 0, &places);
    float est[KITHI_BITS_PLACES];
    out->count = 0;
    if (ensure_room(s) < 0)
        return -ENOMEM;
    for (uint32_t first = 0; links && first < places; first += KITHI_BITS_PLACES) {
        for (uint32_t mask = sift(v, s, row, first, places, est); mask; mask &= mask - 1) {
            uint32_t i = (uint32_t)__builtin_ctz(mask);
            /* Relaxed: a link is a hint, and what it leads to is checked by itself. */
            uint32_t link = atomic_load_explicit(&links[first + i], memory_order_relaxed);
            if (link - 1u >= v->slot_limit)
                continue;
            const struct kithi_beam_entry it = { .distance = est[i], .slot = link - 1 };
            if (kithi_visited_add(s, it.slot))
                out->at[out->count++] = it;
            else if (again && !kithi_visited_has(s, it.slot | ROW_DONE))
                again->at[again->count++] = it;
            else
                continue;
            KITHI_PREFETCH(kithi_view_code(v, link - 1));
        }
    }
    return 0;
}

/* Compare them, whose distances are estimates or NaN, and leave the near ones. 0 or -ENOMEM. */
static int compare(const struct kithi_view *v, struct kithi_scratch *s, struct batch *b)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        uint32_t slot = b->at[i].slot;
        float d = kithi_walk_distance(v, s, slot), off = d - b->at[i].distance;
        if (isfinite(off)) { /* it was estimated, and by bytes that make sense */
            s->error2 += off * off;
            s->error_count++;
        }
        if (!is_far(s, d)) {
            KITHI_PREFETCH(kithi_view_record(v, slot));
            b->at[n++] = (struct kithi_beam_entry){ .distance = d, .slot = slot };
        } else if (ensure_room(s) < 0) {
            return -ENOMEM;
        } else {
            kithi_visited_add(s, slot | ROW_DONE); /* it will not be nearer */
        }
    }
    s->distance_count += b->count;
    b->count = n;
    return 0;
}

/* Does slot match at the view's epoch? As kithi_match(); one that is not visible does not. */
static int matches(const struct kithi_view *v, struct kithi_scratch *s, struct kithi_condition *c,
                   uint32_t slot)
{
    uint64_t birth;
    if (kithi_view_visible(v, kithi_view_record(v, slot), &birth))
        return kithi_match(v, slot, birth, c);
    s->stood_on_dead = true;
    return KITHI_MATCH_NO;
}

/*
 * Take those of b that match into the beam, and leave the others. Returns how many matched, -KITHI_HOP_AGAIN, KITHI_E_FILTER or
 * -ENOMEM.
 */
static int sieve(const struct kithi_view *v, struct kithi_scratch *s, struct kithi_condition *c,
                 struct batch *b)
{
    uint32_t n = 0, count = b->count;
    for (uint32_t i = 0; i < count && i < PAYLOAD_AHEAD; i++)
        kithi_match_prefetch(v, b->at[i].slot);
    for (uint32_t i = 0; i < count; i++) {
        struct kithi_beam_entry it = b->at[i];
        if (i + PAYLOAD_AHEAD < count)
            kithi_match_prefetch(v, b->at[i + PAYLOAD_AHEAD].slot);
        int rc = matches(v, s, c, it.slot);
        if (rc < 0)
            return rc;
        if (rc == KITHI_MATCH_AGAIN)
            return -KITHI_HOP_AGAIN;
        if (rc == KITHI_MATCH_NO) {
            b->at[n++] = it;
            continue;
        }
        if (ensure_room(s) < 0)
            return -ENOMEM;
        kithi_visited_add(s, it.slot | ROW_DONE); /* as that of a match, if ever */
        uint32_t place = kithi_beam_insert(s, s->ef, it.distance, it.slot, false);
        s->at = place < s->at ? place : s->at;
    }
    b->count = n;
    return (int)(count - n);
}

static void sort(struct batch *b)
{
    for (uint32_t i = 1; i < b->count; i++) {
        struct kithi_beam_entry it = b->at[i];
        uint32_t at = i;
        for (; at > 0 && b->at[at - 1].distance > it.distance; at--)
            b->at[at] = b->at[at - 1];
        b->at[at] = it;
    }
}

/* What a row leads to, each compared and then asked. As sieve(); those that do not match stay in b, and in again those that were met before. */
static int look_at_row(const struct kithi_view *v, struct kithi_scratch *s, struct kithi_condition *c,
                       const struct kithi_beam_entry *row, struct batch *b, struct batch *again)
{
    if (gather(v, s, row, b, again) < 0 || compare(v, s, b) < 0)
        return -ENOMEM;
    int rc = sieve(v, s, c, b);
    if (rc < 0 || !again)
        return rc;
    return compare(v, s, again) < 0 ? -ENOMEM : rc;
}

/* What an entry leads to: matches among its links, and among the links of those that do not match. As kithi_hop_step(). */
static int expand(const struct kithi_view *v, struct kithi_scratch *s, struct kithi_condition *c,
                  const struct kithi_beam_entry *it)
{
    struct batch bridges, b, again; /* too large to be cleared */
    again.count = 0;
    s->expansion_count++;
    int met = look_at_row(v, s, c, it, &bridges, &again);
    if (met < 0)
        return met;
    /* A row has no more places than a batch, so both go into one. */
    for (uint32_t i = 0; i < again.count; i++)
        bridges.at[bridges.count++] = again.at[i];
    sort(&bridges);
    for (uint32_t i = 0; i < bridges.count && i < BRIDGES; i++)
        KITHI_PREFETCH(kithi_view_row(v, bridges.at[i].slot));
    for (uint32_t i = 0; i < bridges.count && (i < BRIDGES || met == 0); i++) {
        if (is_far(s, bridges.at[i].distance))
            break;
        if (ensure_room(s) < 0)
            return -ENOMEM;
        kithi_visited_add(s, bridges.at[i].slot | ROW_DONE);
        s->expansion_count++;
        int more = look_at_row(v, s, c, &bridges.at[i], &b, NULL);
        if (more < 0)
            return more;
        met += more;
    }
    return KITHI_HOP_ON;
}

/* The nearest matches of the sample, as far as they match still. As sieve(). */
static int seed(const struct kithi_view *v, struct kithi_scratch *s, struct kithi_condition *c)
{
    struct batch b;
    b.count = 0;
    for (uint32_t i = 0; i < c->sample.known_count; i++)
        KITHI_PREFETCH(kithi_view_code(v, c->sample.known[i]));
    if (ensure_room(s) < 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < c->sample.known_count; i++)
        if (c->sample.known[i] < v->slot_limit && kithi_visited_add(s, c->sample.known[i]))
            b.at[b.count++] = (struct kithi_beam_entry){ .distance = NAN, .slot = c->sample.known[i] };
    if (compare(v, s, &b) < 0)
        return -ENOMEM;
    sort(&b);
    b.count = b.count < SEEDS ? b.count : SEEDS;
    return sieve(v, s, c, &b);
}

/* What sieve() and expand() have returned, for who asked for a step. */
static int step_of(int rc)
{
    return rc == -KITHI_HOP_AGAIN ? KITHI_HOP_AGAIN : rc < 0 ? rc : KITHI_HOP_ON;
}

int kithi_hop_begin(const struct kithi_view *v, struct kithi_scratch *s, struct kithi_condition *c,
                    uint32_t entry)
{
    struct batch b;
    s->near_used = false;
    kithi_visited_add(s, entry);
    b.count = 1;
    b.at[0] = (struct kithi_beam_entry){ .distance = NAN, .slot = entry };
    if (compare(v, s, &b) < 0)
        return -ENOMEM;
    struct kithi_beam_entry it = b.at[0];
    int rc = sieve(v, s, c, &b);
    if (rc == 0) {
        kithi_visited_add(s, entry | ROW_DONE);
        rc = expand(v, s, c, &it);
    }
    return step_of(rc < 0 ? rc : seed(v, s, c));
}

int kithi_hop_step(const struct kithi_view *v, struct kithi_scratch *s, struct kithi_condition *c)
{
    uint32_t at = s->at;
    while (at < s->beam_count && (s->beam[at].slot & KITHI_BEAM_EXPANDED))
        at++;
    if (at >= s->beam_count)
        return KITHI_HOP_ENDED;
    if (KITHI_UNLIKELY(kithi_view_moved(v)))
        return KITHI_E_MOVED;
    struct kithi_beam_entry it = s->beam[at];
    s->beam[at].slot |= KITHI_BEAM_EXPANDED;
    s->at = at + 1;
    return step_of(expand(v, s, c, &it));
}
