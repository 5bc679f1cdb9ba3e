/*
 * sweep.c - from dead to free: one pass over all rows unlinks a batch of dead slots.
 *
 * A pass reads rows in order and unlinks thousands of dead slots at once, besides what it costs to hand
 * the lost links on; keeping lists of in-neighbours instead would cost memory for every link and two
 * random writes for every change of one. After the pass no finder leads to the batch:
 * no row (checked one by one), no id entry, not the entry point. Insertions that run beside it
 * cannot bring a link back: they choose no dead slot, and slots of the batch died before the first of those
 * insertions began.
 *
 * Jobs run on workers, under row locks; the batch itself does not change while they run.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/graph/walk.h"

#define SLOTS_PER_JOB 256u
/* A pass is due when this share of the slots is dead, ... */
#define DUE_SHARE 64u
#define DUE_MIN   64u
/* ... or when the oldest has waited so long that passes take at most about 1 % of the time. */
#define DUE_MS       250u
#define SLOTS_PER_MS 500u
/* Sweeps ask so often whether the census is over. */
#define CENSUS_MS 1u
/* Slots that are looked at between two groups, to make postings anew: those without payloads take a fraction of a millisecond. What payloads
 * take is bounded by a turn (KITHI_POSTINGS_TURN). */
#define REBUILD_SLOTS 4096u
/* The same for a piece of an audit. */
#define AUDIT_MS 1u
/*
 * Of the living neighbours of a lost one, so many of the nearest and so many of the farthest are looked at
 * as heirs. The near ones keep the neighbourhood together. The far ones are the ways out of it: a vector
 * that is written into a crowd larger than ef_construction finds neighbours in the crowd only, so a way
 * that is not handed on when its end dies never comes again, and crowds become islands (20,000 vectors in
 * 100 spots, all replaced five times: recall@10 fell from 1.000 to 0.984; with heirs it stays).
 */
#define HEIRS_NEAR 4u
#define HEIRS_FAR  4u
/*
 * A heir is left out when a link of the row is so much nearer to it (squared: 1.05 in length). That is nearly the rule for new rows: with 1.44, rows had
 * more links after a turnover than a fresh build's, and searches took a fifth longer (glove-twitter-25, none); with 1, fewer, and recall@10 at ef 32 was 0.006
 * below it.
 */
#define HEIR_SLACK 1.1f
/* The same for a way out, in rows with codes, which are filled anyhow (sift-grocery: with 1.1 recall@10 at ef 32 was 0.006 below a fresh build, with this
 * 0.005 above), and for whether a lost link needs an heir (squared: 1.2 in length). With 1 a way out counts as covered by neighbours who
 * have no such way. */
#define WAY_SLACK 1.44f
/* A far one is a way out when it is so much farther than all that the row leads to (squared: 1.5 in length). */
#define WAY_OUT 2.25f
/*
 * Heirs are from where the dead one was; who else is near by now only a search tells. One lost link in so many gives its row one: of three quarters that
 * died without any insertion, 0.005 of recall is missing then instead of 0.016, with neighbour codes 0.011 instead of 0.018 (unit.server.index.sweep).
 * More would make deletion dearer than insertion.
 */
#define LOOK_SHARE 40u
/* Its row is good still: a search of this share of ef_construction finds who came near, if it has room for the slot itself and a new row's worth. */
#define LOOK_EF_SHARE 4u
/* Heirs leave this share of a row free for those who will choose its slot. */
#define ROW_FREE_SHARE 4u
/* With less than this share of its places a row takes the nearest heir whoever covers it: two that cover for each other what they have lost would be left
 * with each other. In few dimensions, or with many places, that is most rows, fresh ones too. */
#define POOR_SHARE 4u
/* A row with neighbour codes is full enough with all but one part of so many of its places; a link that fills it is the nearest
 * of so many. */
#define FILLED_SHARE 4u
#define FILL_LOOKS   12u
#define HEIRS_MAX    (2u * KITHI_M_MAX) /* that a worker has room for */
/* The dead whose neighbours are asked: the lost one and, through its links, others of the batch, since a
 * chain of dead ones may be the only way between two crowds. */
#define ASKED_MAX 8u

static bool is_doomed(const struct sweep *s, uint32_t slot)
{
    return slot < s->slots && (s->doomed[slot / 64] >> (slot % 64) & 1);
}

/* As much as a turn of postings allows. True: there is more now. */
static bool free_rested(struct kithi_index *ix, uint64_t now_ms)
{
    kithi_postings_turn(ix);
    while (ix->resting.count) {
        const struct waiting *w = &ix->resting.items[ix->resting.head];
        if (now_ms - w->since_ms < ix->tuning.rest_ms || !kithi_postings_rested_ms(ix, w->since_ms))
            return false;
        /* [P11 image] Whoever died after the epoch of an image is part of it. */
        const struct kithi_record *r = kithi_view_record(&ix->view, w->slot);
        if (ix->imaged && atomic_load_explicit(&r->death, memory_order_relaxed) > ix->image_epoch)
            return false;
        if (kithi_postings_has_worked(ix))
            return true;
        kithi_alloc_free(ix, kithi_queue_pop(&ix->resting).slot);
    }
    return false;
}

static uint64_t patience_ms(const struct kithi_index *ix)
{
    uint64_t ms = ix->slots_used / SLOTS_PER_MS;
    if (ix->sweep.hurried)
        return ix->tuning.grace_ms;
    if (ms < DUE_MS)
        ms = DUE_MS;
    return ms > ix->tuning.grace_ms ? ms : ix->tuning.grace_ms;
}

/* Dead slots whose grace is over, or 0 when a pass would not pay yet. */
static uint32_t due_count(const struct kithi_index *ix, uint64_t now_ms)
{
    /* The queue is in order of time: the boundary is found by halving. */
    uint32_t n = 0, end = ix->dead.count;
    while (n < end) {
        uint32_t mid = n + (end - n) / 2;
        if (now_ms - ix->dead.items[(ix->dead.head + mid) % ix->dead.capacity].since_ms >=
            ix->tuning.grace_ms)
            n = mid + 1;
        else
            end = mid;
    }
    if (n == 0)
        return 0;
    uint64_t age = now_ms - ix->dead.items[ix->dead.head].since_ms;
    bool crowded = n >= DUE_MIN && n >= ix->slots_used / DUE_SHARE;
    bool cramped = ix->slots_free.count + (ix->map.geometry.slot_max - ix->slots_used) < n;
    return crowded || cramped || age >= patience_ms(ix) ? n : 0;
}

static void wait_until(uint32_t *out, uint64_t due_ms, uint64_t now_ms)
{
    uint64_t ms = due_ms > now_ms ? due_ms - now_ms : 1;
    if (ms < *out)
        *out = (uint32_t)ms;
}

void kithi_sweep_hurry(struct kithi_index *ix)
{
    ix->sweep.hurried = true;
}

uint32_t kithi_sweep_begin(struct kithi_index *ix, uint64_t now_ms, uint32_t *out_wait_ms)
{
    struct sweep *s = &ix->sweep;
    KITHI_ASSERT(!s->running);
    bool rebuilding = kithi_postings_rebuild(ix, REBUILD_SLOTS);
    if (kithi_index_census_due(ix)) { /* who is dead is not known yet */
        *out_wait_ms = CENSUS_MS;
        return 0;
    }
    if (ix->audit.open) { /* what it links anew must not be swept under it */
        *out_wait_ms = AUDIT_MS;
        return 0;
    }
    kithi_postings_tick(ix, now_ms);
    rebuilding |= kithi_postings_clean(ix, now_ms);

    /* With more to be freed no pass begins: it would be seconds until the next turn, and what rests would become more and more. */
    bool more = free_rested(ix, now_ms);
    uint32_t wait = kithi_payload_forget(ix, now_ms);
    more |= wait == 0;
    uint32_t n = more ? 0 : due_count(ix, now_ms);
    if (more)
        wait = 1;
    if (ix->resting.count) {
        uint64_t since_ms = ix->resting.items[ix->resting.head].since_ms;
        uint64_t due_ms = since_ms + ix->tuning.rest_ms;
        if (due_ms <= now_ms) /* but readers of its postings may not have come to an end */
            due_ms = now_ms + kithi_postings_wait(ix, now_ms);
        wait_until(&wait, due_ms, now_ms);
    }
    if (rebuilding)
        wait_until(&wait, now_ms, now_ms);
    if (kithi_postings_resting(ix) || !kithi_postings_is_clean(ix))
        wait_until(&wait, now_ms + kithi_postings_wait(ix, now_ms), now_ms);
    if (kithi_postings_anew_at(ix) != UINT64_MAX)
        wait_until(&wait, kithi_postings_anew_at(ix), now_ms);
    if (ix->dead.count && n == 0)
        wait_until(&wait, ix->dead.items[ix->dead.head].since_ms + patience_ms(ix), now_ms);
    *out_wait_ms = wait;
    kithi_alloc_tallies(ix);
    if (n == 0)
        return 0;

    uint32_t words = (ix->slots_used + 63) / 64;
    if (s->doomed_words < words) {
        uint64_t *p = realloc(s->doomed, words * sizeof *p);
        if (!p) {
            wait_until(out_wait_ms, now_ms + DUE_MS, now_ms); /* it is tried again */
            return 0;
        }
        s->doomed = p;
        s->doomed_words = words;
    }
    memset(s->doomed, 0, words * sizeof *s->doomed);
    s->slots = ix->slots_used;
    s->slots_doomed.count = 0;
    s->since_ms = ix->dead.items[ix->dead.head].since_ms;
    uint64_t mark = 0;
    uint64_t durable_epoch = kithi_index_durable_epoch(ix);
    uint64_t began_epoch = ix->sealed ? kithi_group_at(ix, 0)->began_epoch : UINT64_MAX;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = ix->dead.items[ix->dead.head].slot;
        const struct kithi_record *r = kithi_view_record(&ix->view, slot);
        uint64_t death = atomic_load_explicit(&r->death, memory_order_relaxed);
        /* An aborted slot was never born: no reader can miss it, and its death says nothing, least of all before the first epoch. */
        bool born = atomic_load_explicit(&r->birth, memory_order_relaxed) != 0;
        /* A deletion that is not in the log yet may have to be written there by the next start, which learns of it here
         * (ahead.c). The log is never far behind. And insertions that began before it may have chosen the slot. */
        if (born && (death > durable_epoch || death > began_epoch))
            break;
        kithi_queue_pop(&ix->dead);
        if (born && death > mark)
            mark = death;
        s->doomed[slot / 64] |= UINT64_C(1) << (slot % 64);
        s->slots_doomed.items[s->slots_doomed.count++] = slot; /* room was reserved */
    }
    if (s->slots_doomed.count == 0) {
        wait_until(out_wait_ms, now_ms + DUE_MS, now_ms);
        return 0;
    }
    /* [P3 unlinked] the mark stands before the first finder goes: each job fences after it. Other
     * half: kithi_view_unlinked(). */
    kithi_mark_unlinked(ix, mark);
    kithi_view_begin(&ix->map, &s->view);
    /* First of all the entry point: searches that begin now must not start on rows that are being
     * emptied. Insertions take only living slots to it, so it does not lead into the batch again. */
    pthread_mutex_lock(&ix->entry_lock);
    uint64_t entry = atomic_load_explicit(&ix->header->entry, memory_order_relaxed);
    if (entry && is_doomed(s, kithi_entry_link(entry) - 1))
        kithi_entry_replace(ix);
    pthread_mutex_unlock(&ix->entry_lock);
    s->running = true;
    s->hurried = false;
    return (s->slots + SLOTS_PER_JOB - 1) / SLOTS_PER_JOB;
}

/* What a row's distances will read is asked for all at once: one after the other, three quarters of a sweep were waits for memory. */
static void ask_for_codes(const struct sweep *s, const struct row *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        if (link - 1u < s->view.slot_limit && !is_doomed(s, link - 1))
            kithi_code_ask(&s->view, link - 1);
    }
}

static void ask_for_row(const struct sweep *s, uint32_t slot, unsigned level)
{
    uint32_t places;
    const kithi_link *links = kithi_view_links(&s->view, slot, level, &places);
    for (uint32_t i = 0; links && i < places; i += KITHI_CACHE_LINE / sizeof *links)
        KITHI_PREFETCH(&links[i]);
}

static bool row_has(const struct row *r, uint32_t slot)
{
    for (uint32_t i = 0; i < r->count; i++)
        if (atomic_load_explicit(&r->links[i], memory_order_relaxed) == slot + 1)
            return true;
    return false;
}

/* Could slot get a place in it? Without the lock: whoever takes the last one meanwhile is as good. */
static bool wants(const struct row *r, uint32_t slot)
{
    bool place = false;
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        if (link == slot + 1)
            return false;
        place |= link == 0;
    }
    return place;
}

/* Is slot, at distance from the owner of a row, led to well enough by one of its links? */
static bool is_covered(const struct sweep *s, const struct kithi_kernel *k, const struct row *r,
                       uint32_t slot, float distance, float slack)
{
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        if (link - 1u >= s->view.slot_limit || is_doomed(s, link - 1))
            continue;
        float d = kithi_pair(&s->view, k, slot, link - 1);
        if ((d > 0 ? d * slack : d) < distance)
            return true;
    }
    return false;
}

/* Is that so much farther than all that a row leads to that it leads out of where they are? */
static bool is_way_out(const struct sweep *s, const struct kithi_kernel *k, const struct row *r,
                       float distance)
{
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        if (link - 1u < s->view.slot_limit && !is_doomed(s, link - 1) &&
            distance <= WAY_OUT * kithi_pair(&s->view, k, r->slot, link - 1))
            return false;
    }
    return true;
}

static bool among(const struct candidate *c, uint32_t n, uint32_t slot)
{
    for (uint32_t i = 0; i < n; i++)
        if (c[i].slot == slot)
            return true;
    return false;
}

/*
 * The living neighbours of lost, and of the dead that it leads to, that the row of centre does not name,
 * nearest to centre first. Rows of the batch stay as they are while jobs run, so that this works.
 */
static uint32_t gather_heirs(const struct sweep *s, struct worker *w, const struct row *r, uint32_t lost,
                             unsigned level, uint32_t max)
{
    const struct kithi_view *v = &s->view;
    struct candidate *c = w->candidates;
    uint32_t asked[ASKED_MAX] = { lost }, asked_count = 1, places, n = 0;
    /* The others are asked only while heirs are few: they would be six times the work of all sweeps. */
    for (uint32_t at = 0; at < asked_count && (at == 0 || n < HEIRS_NEAR + HEIRS_FAR); at++) {
        const kithi_link *theirs = kithi_view_links(v, asked[at], level, &places);
        for (uint32_t i = 0; theirs && i < places && n < max; i++) {
            uint32_t slot = atomic_load_explicit(&theirs[i], memory_order_relaxed) - 1;
            if (slot >= v->slot_limit || slot == r->slot)
                continue;
            if (is_doomed(s, slot)) {
                bool known = asked_count == ASKED_MAX;
                for (uint32_t j = 0; j < asked_count; j++)
                    known |= asked[j] == slot;
                if (!known)
                    asked[asked_count++] = slot;
                continue;
            }
            if (!kithi_slot_eligible(v, slot) || row_has(r, slot) || among(c, n, slot))
                continue;
            kithi_code_ask(v, slot);
            c[n++].slot = slot;
        }
    }
    for (uint32_t i = 0; i < n; i++)
        c[i].distance = kithi_pair(v, w->scratch.kernel, r->slot, c[i].slot);
    kithi_candidates_sort(c, n);
    kithi_candidates_mix(c, n, r->slot);
    return n;
}

/* Links from one to another of the batch: they are of use until all jobs have ended. */
static void clear_rows(struct kithi_index *ix, uint32_t slot)
{
    const struct sweep *s = &ix->sweep;
    const struct kithi_record *r = kithi_view_record(&s->view, slot);
    unsigned level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
    for (unsigned at = 0; at <= level && at <= KITHI_LEVEL_MAX; at++) {
        uint32_t count;
        kithi_link *links = kithi_view_links(&s->view, slot, at, &count);
        for (uint32_t i = 0; links && i < count; i++) {
            uint32_t link = atomic_load_explicit(&links[i], memory_order_relaxed);
            if (link && is_doomed(s, link - 1))
                atomic_store_explicit(&links[i], 0, memory_order_relaxed);
        }
        if (links)
            kithi_stored(ix, links, count * sizeof *links);
    }
}

/* What codes of a link are made of, as seen from both ends. */
static void make_edge(const struct row *r, struct worker *w, uint32_t other, struct kithi_bits_edge *out)
{
    const struct kithi_view *v = r->view;
    kithi_rotated(v, r->slot, w->near_end);
    kithi_rotated(v, other, w->far_end);
    kithi_bits_encode(w->near_end, w->far_end, v->bits_width, v->map->geometry.metric, out);
}

/*
 * Hand the lost link in place on to its heirs: the first takes its place, the others take free ones. One that led where another link
 * leads as well has no heirs: most of the links of a full row are such. In rows with codes, which are filled with them, the nearest of some neighbours
 * takes its place, as long as the row is not full enough. Returns the first, or NO_SLOT. edge: room for what its codes are made of, where rows have them.
 */
static uint32_t hand_on(const struct sweep *s, struct worker *w, struct row *r, unsigned level,
                        uint32_t place, struct kithi_bits_edge *edge)
{
    const struct kithi_kernel *k = w->scratch.kernel;
    uint32_t lost = atomic_load_explicit(&r->links[place], memory_order_relaxed) - 1, free_count = 0, at = 0;
    uint32_t first = NO_SLOT, living = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t link = atomic_load_explicit(&r->links[i], memory_order_relaxed);
        free_count += link == 0;
        living += link && (link > s->view.slot_limit ||
                           (!is_doomed(s, link - 1) && kithi_slot_eligible(&s->view, link - 1)));
    }
    bool poor = living * POOR_SHARE < r->count;
    bool covered = !poor && is_covered(s, k, r, lost, kithi_pair(&s->view, k, r->slot, lost), WAY_SLACK);
    bool fills = covered && r->coded && living * FILLED_SHARE < r->count * (FILLED_SHARE - 1);
    uint32_t n = covered && !fills ? 0 : gather_heirs(s, w, r, lost, level, fills ? FILL_LOOKS : HEIRS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        const struct candidate *c = &w->candidates[i];
        if (i >= HEIRS_NEAR && i + HEIRS_FAR < n)
            continue;
        if (first != NO_SLOT && free_count <= r->count / ROW_FREE_SHARE)
            break;
        bool far = i >= HEIRS_NEAR;
        /* One heir is enough where there are others: each link costs every search. */
        if (!r->coded && !far && first != NO_SLOT && living * ROW_FREE_SHARE > r->count)
            continue;
        if (!r->coded && far && !is_way_out(s, k, r, c->distance))
            continue;
        bool taken = fills || (poor && first == NO_SLOT);
        if (!taken && is_covered(s, k, r, c->slot, c->distance, r->coded || far ? WAY_SLACK : HEIR_SLACK))
            continue;
        if (first != NO_SLOT) {
            while (at < r->count && atomic_load_explicit(&r->links[at], memory_order_relaxed))
                at++;
            kithi_row_put(r, w, at, c->slot, NULL, false);
            free_count--;
        } else {
            first = c->slot;
            if (edge)
                make_edge(r, w, first, edge);
            kithi_row_put(r, w, place, first, edge, false);
            if (fills)
                break;
        }
    }
    if (first == NO_SLOT)
        kithi_row_clear(r, w, place);
    return first;
}

/* Those that a dead slot led to and nobody else seems to lead to get another way in. */
static void keep_ways(struct kithi_index *ix, struct worker *w, uint32_t slot)
{
    const struct kithi_view *v = &ix->sweep.view;
    const kithi_link *row = kithi_view_row(v, slot);
    for (uint32_t i = 0; i < v->link_count0; i++) {
        uint32_t to = atomic_load_explicit(&row[i], memory_order_relaxed) - 1;
        if (to < v->slot_limit && !is_doomed(&ix->sweep, to))
            ask_for_row(&ix->sweep, to, 0);
    }
    for (uint32_t i = 0; i < v->link_count0; i++) {
        uint32_t to = atomic_load_explicit(&row[i], memory_order_relaxed) - 1;
        if (to >= v->slot_limit || is_doomed(&ix->sweep, to) || !kithi_slot_eligible(v, to) ||
            kithi_has_other_way(v, to, slot))
            continue;
        const kithi_link *own = kithi_view_row(v, to);
        bool done = false;
        for (uint32_t j = 0; j < v->link_count0 && !done; j++) {
            uint32_t other = atomic_load_explicit(&own[j], memory_order_relaxed) - 1;
            done =
                other < v->slot_limit && kithi_slot_eligible(v, other) && kithi_way_in(ix, v, w, other, to);
        }
    }
}

/* One lost link in so many: its row gets a look at what there is by now. The same for the same two, whoever asks. */
static bool is_drawn(uint32_t slot, uint32_t lost)
{
    uint32_t h = slot * UINT32_C(0x9e3779b1) ^ lost * UINT32_C(0x85ebca6b);
    h = (h ^ h >> 15) * UINT32_C(0x2c1b3c6d);
    return (h >> 8) % LOOK_SHARE == 0;
}

static uint32_t look_ef(const struct kithi_geometry *g)
{
    uint32_t ef = g->ef_construction / LOOK_EF_SHARE, least = g->m + 1;
    if (least > g->ef_construction)
        least = g->ef_construction;
    return ef > least ? ef : least;
}

/* What a row needs beside heirs. */
enum need { NEED_NOTHING, NEED_LOOK, NEED_ALL };

/* The doomed that the row of a slot at level 0 led to. */
struct lost {
    uint32_t slots[2 * KITHI_M_MAX], count;
};

/* Unlink the batch from one row. Returns NEED_ALL when the row of a living slot lost more than it kept. */
static enum need sweep_row(struct kithi_index *ix, struct worker *w, uint32_t slot, unsigned level,
                           bool alive, struct lost *out)
{
    const struct sweep *s = &ix->sweep;
    uint32_t lost = 0, kept = 0, heir_count = 0, heirs[2 * KITHI_M_MAX];
    struct row r;
    bool look = false;
    if (!kithi_row_open(&s->view, slot, level, &r))
        return NEED_NOTHING;
    for (uint32_t i = 0; i < r.count; i++) {
        uint32_t link = atomic_load_explicit(&r.links[i], memory_order_relaxed);
        if (link && is_doomed(s, link - 1)) {
            ask_for_row(s, link - 1, level);
            lost++;
            kithi_code_ask(&s->view, link - 1);
        } else if (link && (link > s->view.slot_limit || kithi_slot_eligible(&s->view, link - 1))) {
            kept++; /* slots beyond the view are new */
        }
    }
    if (!lost)
        return NEED_NOTHING;
    bool coded = r.coded;
    if (alive) {
        kithi_code_ask(&s->view, slot);
        ask_for_codes(s, &r);
    }
    pthread_mutex_lock(kithi_row_lock(ix, slot));
    for (uint32_t i = 0; i < r.count; i++) {
        uint32_t link = atomic_load_explicit(&r.links[i], memory_order_relaxed);
        if (!link || !is_doomed(s, link - 1))
            continue;
        look |= is_drawn(slot, link - 1);
        if (level == 0 && out->count < 2 * KITHI_M_MAX)
            out->slots[out->count++] = link - 1;
        if (alive) {
            uint32_t heir = hand_on(s, w, &r, level, i, coded ? &w->edges[heir_count] : NULL);
            if (heir != NO_SLOT) {
                ask_for_row(s, heir, level);
                heirs[heir_count++] = heir;
            }
        } else {
            kithi_row_clear(&r, w, i);
        }
        KITHI_FAULT_CRASH("crash-while-unlinking");
    }
    pthread_mutex_unlock(kithi_row_lock(ix, slot));

    if (heir_count)
        atomic_fetch_add_explicit(&ix->sweep.handed_on, heir_count, memory_order_relaxed);

    /* With the dead one went its link to this slot: the heir takes that over as well, or slots would
     * lose one way in after the other. */
    for (uint32_t i = 0; i < heir_count; i++) {
        if (!kithi_row_open(&s->view, heirs[i], level, &r) || !wants(&r, slot))
            continue;
        ask_for_codes(s, &r);
        pthread_mutex_lock(kithi_row_lock(ix, heirs[i]));
        float d = kithi_pair(&s->view, w->scratch.kernel, heirs[i], slot);
        if (!is_covered(s, w->scratch.kernel, &r, slot, d, coded ? WAY_SLACK : HEIR_SLACK))
            kithi_row_add(&r, w, slot, coded ? &w->edges[i] : NULL, true);
        pthread_mutex_unlock(kithi_row_lock(ix, heirs[i]));
    }
    if (!alive)
        return NEED_NOTHING;
    return lost > kept ? NEED_ALL : look && level == 0 ? NEED_LOOK : NEED_NOTHING;
}

void kithi_sweep_give_way(struct kithi_index *ix, kithi_give_way_fn *fn, void *arg)
{
    KITHI_ASSERT(!ix->sweep.running); /* jobs read it */
    ix->sweep.give_way = fn;
    ix->sweep.give_way_arg = arg;
}

void kithi_sweep_job(struct kithi_index *ix, unsigned worker, uint32_t i)
{
    struct sweep *s = &ix->sweep;
    const struct kithi_view *v = &s->view;
    /* [P3 unlinked] release fence between the mark, which the owner stored before it handed out the
     * jobs, and the unlinking below. */
    atomic_thread_fence(memory_order_release);
    uint32_t end = (i + 1) * SLOTS_PER_JOB < s->slots ? (i + 1) * SLOTS_PER_JOB : s->slots;
    for (uint32_t slot = i * SLOTS_PER_JOB; slot < end; slot++) {
        const struct kithi_record *r = kithi_view_record(v, slot);
        if (!atomic_load_explicit(&r->linked, memory_order_acquire))
            continue;
        if (s->give_way)
            s->give_way(s->give_way_arg, worker);
        if (is_doomed(s, slot)) { /* its row is emptied by kithi_sweep_end() */
            if (kithi_keeps_ways(v))
                keep_ways(ix, &ix->workers[worker], slot);
            continue;
        }
        bool alive = kithi_slot_eligible(v, slot);
        unsigned level = kithi_meta_level(atomic_load_explicit(&r->meta, memory_order_relaxed));
        if (level > KITHI_LEVEL_MAX)
            level = KITHI_LEVEL_MAX;
        /* Other dead ones get no heirs: searches walk through them, and they keep their links to the
         * living, who are the heirs in other rows. */
        enum need need = NEED_NOTHING;
        struct lost lost = { .count = 0 };
        for (unsigned at = 0; at <= level; at++) {
            enum need row = sweep_row(ix, &ix->workers[worker], slot, at, alive, &lost);
            need = row > need ? row : need;
        }
        /*
         * Its surroundings are gone, and the heirs with them: that takes a new look. It begins at the lost ones, too, whose rows
         * lead on until the pass is over: the entry point may have lost its links by now, and would be alone with the last of them.
         */
        if (need != NEED_NOTHING) {
            struct look look = { .ef = look_ef(&v->map->geometry) };
            if (need == NEED_ALL)
                look = (struct look){ .ef = v->map->geometry.ef_construction,
                                      .ways = lost.slots,
                                      .way_count = lost.count };
            kithi_relink(ix, worker, slot, &look);
            atomic_fetch_add_explicit(&s->torn, 1, memory_order_relaxed);
        }
    }
}

void kithi_sweep_end(struct kithi_index *ix, uint64_t now_ms)
{
    struct sweep *s = &ix->sweep;
    KITHI_ASSERT(s->running);
    /* [P9 emptied] counted before the first row is emptied, and so before any slot of the batch is
     * refilled: no walk that begins from here on gets to the batch, and one that is there already
     * begins again. Release: whoever begins with the new count meets no finder of the batch. The fence:
     * whoever meets an emptied row meets the count. */
    uint64_t emptied = atomic_load_explicit(&ix->header->emptied, memory_order_relaxed);
    atomic_store_explicit(&ix->header->emptied, emptied + 1, memory_order_release);
    atomic_thread_fence(memory_order_release);
    for (uint32_t i = 0; i < s->slots_doomed.count; i++) {
        uint32_t slot = s->slots_doomed.items[i];
        clear_rows(ix, slot);
        kithi_ids_redirect(ix, slot, 0);
        KITHI_FAULT_CRASH("crash-while-burying");
        kithi_held_moves(ix, slot, KITHI_HELD_DEAD, KITHI_HELD_RESTING);
        kithi_queue_push(&ix->resting, slot, now_ms); /* room was reserved */
    }
    s->repaired += s->slots_doomed.count;
    s->slots_doomed.count = 0;
    s->running = false;
    atomic_fetch_add_explicit(&ix->header->tally_sweeps, 1, memory_order_relaxed);
    kithi_alloc_tallies(ix);
}

void kithi_sweep_state(const struct kithi_index *ix, uint64_t now_ms, struct kithi_sweep_state *out)
{
    const struct sweep *s = &ix->sweep;
    /* What is being unlinked died before what waits. */
    uint64_t since_ms = s->slots_doomed.count ? s->since_ms
                        : ix->dead.count      ? ix->dead.items[ix->dead.head].since_ms
                                              : now_ms;
    *out = (struct kithi_sweep_state){
        .waiting = ix->dead.count,
        .running = s->slots_doomed.count,
        .resting = ix->resting.count,
        .oldest_ms = now_ms > since_ms ? now_ms - since_ms : 0,
        .repaired = s->repaired,
        /* Relaxed: figures for people. */
        .handed_on = atomic_load_explicit(&s->handed_on, memory_order_relaxed),
        .torn = atomic_load_explicit(&s->torn, memory_order_relaxed),
    };
}

void kithi_sweep_fini(struct kithi_index *ix)
{
    free(ix->sweep.doomed);
    free(ix->sweep.slots_doomed.items);
    free(ix->dead.items);
    free(ix->resting.items);
}
