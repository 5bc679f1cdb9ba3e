/*
 * postings.c - which slots have which values: adding before publication, taking away behind a rest, and making all of it anew. The
 * writer's half of [P19 postings].
 *
 * Slots are added to terms before the group that gives them their payloads is published, and taken away when whoever may see the payload has
 * come to an end, or will find out that it has been too slow: two eras later. A container, a directory and a term that are
 * replaced stay as they are for as long. So a reader whose view was begun less than two eras ago has met everything that its epoch sees. What cannot be
 * kept, because memory is short, is given up, a field at a time, and readers are told: nothing depends on postings. They are
 * not part of a checkpoint and do not survive an owner; the next one makes them anew of the payloads, between groups.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/base/fault.h"
#include "server/index/index_priv.h"
#include "shm/base/assert.h"
#include "shm/graph/payload.h"
#include "shm/layout/postings.h"
#include "shm/postings/declared.h"
#include "shm/postings/terms.h"
#include "shm/sync/slotbytes.h"

/* With more terms than this the lightest become one with their neighbours, so many pairs at once. The rest of the places is for those that are about to
 * go, and for new values meanwhile. */
#define TERMS_MOST 3072u
#define MERGES     256u
/* ... as long as they have no more slots than this, all of them together: some milliseconds. */
#define MERGE_SLOTS 65536u
/* Terms that a payload has in fields with postings. */
#define OLD_TERMS (KITHI_POSTINGS_FIELDS * KITHI_TERMS_ELEMENTS)
/* Later versions that are asked, as a payload goes, whether they have its terms, too. Where there are more, the terms are noted, and looked at again
 * when these have gone: a slot that a term leads to in vain is an upper bound still. */
#define OLD_VERSIONS 64u
/* Where there are more notes than that, or no memory for them, all postings are made anew instead, but not again before so long. */
#define STALE_MOST 65536u
#define STALE_MS   300000u
#define NO_FIELD   UINT32_MAX

/* Of a field: an interval of keys, and the place that has it. By kind and keys. */
struct term {
    uint64_t low, high;
    uint32_t place;
    uint8_t kind;
};

struct field {
    char path[KITHI_POSTINGS_PATH];
    uint32_t path_len;
    enum kithi_declared_type declared;
    bool given_up;
    struct term *terms;
    uint32_t count, capacity;
    uint32_t place_end; /* places below were used at least once */
    struct stack places_free;
};

enum resting_what { RESTING_BLOCK, RESTING_TERM, RESTING_PLACE };

/* What readers may still be at. */
struct gone {
    uint32_t era, ref; /* first cell + 1, or a place */
    uint8_t what, class, field;
};

/* A term that may lead to a slot in vain. */
struct stale {
    uint64_t key; /* in it */
    uint32_t slot;
    uint8_t field, kind;
};

/* A term of a payload that goes. */
struct old {
    uint32_t field, place;
    bool kept;
};

struct postings {
    struct kithi_declared declared; /* stays when all else is forgotten, ... */
    uint64_t anew_ms;               /* ... and when that was last done for the sake of stale terms */
    bool whole;
    uint32_t generation, era;
    uint64_t era_ms[2]; /* when the last era ended, and the one before */
    uint32_t next_slot; /* of the rebuilding */
    struct field fields[KITHI_POSTINGS_FIELDS];
    uint32_t field_count;
    uint32_t cells_used;
    struct stack free[KITHI_POSTINGS_CLASSES];
    struct gone *gone; /* ring, the oldest first */
    uint32_t gone_head, gone_count, gone_capacity;
    uint64_t cells_free, cells_resting;
    uint64_t seen[KITHI_POSTINGS_CHUNK / 64]; /* zero between calls */
    struct old old[OLD_TERMS];
    uint32_t old_count, old_left; /* of them, that no later version has */
    uint64_t work;                /* of this turn */
    struct stale *stale;
    uint32_t stale_count, stale_capacity, stale_at; /* the one that is looked at next */
    bool stale_lost;                                /* some were not noted */
};

/* ---- words ---- */

static void *block_at(const struct kithi_index *ix, uint32_t ref)
{
    return ix->map.base + ix->map.layout.off[KITHI_REGION_POSTINGS] + (size_t)(ref - 1) * KITHI_POSTINGS_CELL;
}

static struct kithi_postings_field *field_at(const struct kithi_index *ix, uint32_t i)
{
    unsigned char *dict = ix->map.base + ix->map.layout.off[KITHI_REGION_DICT];
    return (struct kithi_postings_field *)(void *)dict + i;
}

/* Own words: nobody else stores them. */
static uint64_t own(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static struct kithi_postings_term *term_at(const struct kithi_index *ix, uint32_t field, uint32_t place)
{
    uint32_t page = atomic_load_explicit(&field_at(ix, field)->pages[place / KITHI_POSTINGS_PAGE_TERMS],
                                         memory_order_relaxed);
    return (struct kithi_postings_term *)block_at(ix, page) + place % KITHI_POSTINGS_PAGE_TERMS;
}

static void store_state(struct kithi_index *ix)
{
    const struct postings *p = ix->postings;
    /* [P19 postings] release: whoever meets the era meets the epochs that were published before it; whoever meets that they are whole meets all of
     * them. The fence: whoever meets what is stored from here on meets the word. Other half: kithi_view_begin(), kithi_postings_fresh(). */
    atomic_store_explicit(&ix->header->postings, kithi_postings_pack(p->generation, p->era, p->whole),
                          memory_order_release);
    atomic_thread_fence(memory_order_release);
}

/* [P19 postings] release: a block is filled before the word that leads to it. Other half: add_term(). */
static void store_word(_Atomic uint64_t *word, uint64_t v)
{
    atomic_store_explicit(word, v, memory_order_release);
}

/* ---- blocks ---- */

/* A block of a class, filled with zeros; 0: there is no memory. */
static uint32_t take_block(struct kithi_index *ix, unsigned class)
{
    struct postings *p = ix->postings;
    const uint32_t cells = 1u << class;
    struct kithi_errmsg ignored;
    uint32_t ref;
    if (KITHI_FAULT("postings-no-space"))
        return 0;
    if (p->free[class].count) {
        ref = p->free[class].items[--p->free[class].count];
        p->cells_free -= cells;
    } else {
        uint64_t want = (uint64_t)p->cells_used + cells;
        if (want > UINT32_MAX || kithi_space_reserve(ix, KITHI_REGION_POSTINGS, want, &ignored) < 0)
            return 0;
        ref = p->cells_used + 1;
        p->cells_used += cells;
    }
    _Atomic uint64_t *words = block_at(ix, ref);
    for (uint32_t i = 0; i < 2 * cells; i++)
        atomic_store_explicit(&words[i], 0, memory_order_relaxed);
    return ref;
}

static void give_block(struct kithi_index *ix, uint32_t ref, unsigned class)
{
    struct postings *p = ix->postings;
    if (kithi_stack_push(&p->free[class], ref) == 0) /* else it is lost until the next restart */
        p->cells_free += 1u << class;
}

static bool gone_reserve(struct postings *p)
{
    if (p->gone_count < p->gone_capacity)
        return true;
    uint32_t capacity = p->gone_capacity ? 2 * p->gone_capacity : 256;
    struct gone *items = malloc(capacity * sizeof *items);
    if (!items)
        return false;
    for (uint32_t i = 0; i < p->gone_count; i++)
        items[i] = p->gone[(p->gone_head + i) % p->gone_capacity];
    free(p->gone);
    p->gone = items;
    p->gone_head = 0;
    p->gone_capacity = capacity;
    return true;
}

static void let_go(struct kithi_index *ix, const struct gone *g);

/* Nothing new leads there: it rests. Where nobody reads postings it goes at once. */
static void rest(struct kithi_index *ix, enum resting_what what, uint32_t field, uint32_t ref, unsigned class)
{
    struct postings *p = ix->postings;
    const struct gone g = {
        .era = p->era, .ref = ref, .what = (uint8_t)what, .class = (uint8_t) class, .field = (uint8_t)field
    };
    if (!p->whole) {
        let_go(ix, &g);
        return;
    }
    if (!gone_reserve(p))
        return; /* lost until the next restart */
    p->gone[(p->gone_head + p->gone_count++) % p->gone_capacity] = g;
    p->cells_resting += what == RESTING_BLOCK ? 1u << class : 0;
}

/* Directory and containers of a term. */
static void rest_blocks(struct kithi_index *ix, uint32_t field, const struct kithi_postings_term *t)
{
    uint64_t directory = own(&t->directory);
    if (!directory)
        return;
    const _Atomic uint64_t *words = block_at(ix, kithi_block_ref(directory));
    for (uint32_t i = 0; i < 2u << kithi_block_class(directory); i++)
        if (own(&words[i]))
            rest(ix, RESTING_BLOCK, field, kithi_block_ref(own(&words[i])),
                 kithi_block_class(own(&words[i])));
    rest(ix, RESTING_BLOCK, field, kithi_block_ref(directory), kithi_block_class(directory));
}

static void let_go(struct kithi_index *ix, const struct gone *g)
{
    struct postings *p = ix->postings;
    if (g->what == RESTING_BLOCK) {
        give_block(ix, g->ref, g->class);
    } else if (g->what == RESTING_PLACE) {
        if (!p->fields[g->field].given_up)
            (void)kithi_stack_push(&p->fields[g->field].places_free,
                                   g->ref); /* lost until the next restart */
    } else {
        /* Nobody comes to it from here on; who is at it gets two eras more. */
        struct kithi_postings_term *t = term_at(ix, g->field, g->ref);
        atomic_store_explicit(&t->kind, KITHI_TERM_NONE, memory_order_relaxed);
        rest_blocks(ix, g->field, t);
        rest(ix, RESTING_PLACE, g->field, g->ref, 0);
    }
}

/* ---- turns ---- */

void kithi_postings_turn(struct kithi_index *ix)
{
    ix->postings->work = 0;
}

uint64_t kithi_postings_work(const struct kithi_index *ix)
{
    return ix->postings->work;
}

bool kithi_postings_has_worked(const struct kithi_index *ix)
{
    return ix->postings->work >= KITHI_POSTINGS_TURN;
}

/* So much of the work of a turn is a look through n values, or words, beside that at the term. */
static uint64_t work_of(uint32_t n)
{
    return 1 + n / 64;
}

/* ---- eras ---- */

uint32_t kithi_postings_era_now(const struct kithi_index *ix)
{
    return ix->postings->era;
}

static bool is_over(const struct postings *p, uint32_t era)
{
    return ((p->era - era) & KITHI_POSTINGS_ERAS) >= 2;
}

bool kithi_postings_rested(const struct kithi_index *ix, uint32_t era)
{
    const struct postings *p = ix->postings;
    return !p->whole || p->field_count == 0 || is_over(p, era);
}

bool kithi_postings_rested_ms(const struct kithi_index *ix, uint64_t since_ms)
{
    const struct postings *p = ix->postings;
    return !p->whole || p->field_count == 0 || p->era_ms[1] >= since_ms;
}

/* Of both rests of the dead, a quarter of the second one: what has rested so long has seen two eras end. */
static uint64_t era_length(const struct kithi_index *ix)
{
    return ix->tuning.rest_ms / 4 ? ix->tuning.rest_ms / 4 : 1;
}

uint32_t kithi_postings_wait(const struct kithi_index *ix, uint64_t now_ms)
{
    uint64_t at = ix->postings->era_ms[0] + era_length(ix);
    return at > now_ms ? (uint32_t)(at - now_ms) : 1;
}

bool kithi_postings_resting(const struct kithi_index *ix)
{
    return ix->postings->whole && ix->postings->gone_count > 0;
}

void kithi_postings_tick(struct kithi_index *ix, uint64_t now_ms)
{
    struct postings *p = ix->postings;
    uint64_t passed = now_ms - p->era_ms[0], length = era_length(ix);
    if (!p->whole || p->field_count == 0 || passed < length ||
        (ix->resting.count == 0 && ix->old_payloads.count == 0 && p->gone_count == 0))
        return;
    /* Where nobody asked for long, two at once: what was begun before is asked to begin again, and nothing has to wait. */
    bool two = passed >= 2 * length;
    p->era_ms[1] = two ? now_ms : p->era_ms[0];
    p->era_ms[0] = now_ms;
    p->era = (p->era + (two ? 2 : 1)) & KITHI_POSTINGS_ERAS;
    store_state(ix);
    KITHI_FAULT_CRASH("crash-after-era");
    while (p->gone_count && is_over(p, p->gone[p->gone_head].era)) {
        struct gone g = p->gone[p->gone_head];
        p->gone_head = (p->gone_head + 1) % p->gone_capacity;
        p->gone_count--;
        p->cells_resting -= g.what == RESTING_BLOCK ? 1u << g.class : 0;
        let_go(ix, &g);
    }
}

/* ---- slots of a term ---- */

static uint32_t array_capacity(unsigned class)
{
    return 8u << class;
}

/* The smallest container that takes so many slots. */
static unsigned class_for(uint32_t count)
{
    unsigned class = 0;
    if (count > KITHI_POSTINGS_ARRAY_MAX)
        return KITHI_POSTINGS_BITMAP;
    while (array_capacity(class) < count)
        class ++;
    return class;
}

/* The word of a chunk in a directory, NULL: there is none; *out_free is one that is not in use, or NULL. Those of late slots come last. */
static _Atomic uint64_t *find_word(struct kithi_index *ix, uint64_t directory, uint32_t chunk,
                                   _Atomic uint64_t **out_free)
{
    _Atomic uint64_t *words = block_at(ix, kithi_block_ref(directory));
    *out_free = NULL;
    for (uint32_t i = 2u << kithi_block_class(directory); i-- > 0;) {
        uint64_t word = own(&words[i]);
        if (word && kithi_container_chunk(word) == chunk)
            return &words[i];
        if (!word)
            *out_free = &words[i];
    }
    return NULL;
}

/* A directory with twice as many words; NULL: no memory. Returns the first that is free. */
static _Atomic uint64_t *grow_directory(struct kithi_index *ix, uint32_t field, struct kithi_postings_term *t)
{
    uint64_t before = own(&t->directory);
    unsigned class = kithi_block_class(before);
    uint32_t ref = class + 1 < KITHI_POSTINGS_CLASSES ? take_block(ix, class + 1) : 0;
    if (!ref)
        return NULL;
    const _Atomic uint64_t *from = block_at(ix, kithi_block_ref(before));
    _Atomic uint64_t *to = block_at(ix, ref);
    for (uint32_t i = 0; i < 2u << class; i++)
        atomic_store_explicit(&to[i], own(&from[i]), memory_order_relaxed);
    store_word(&t->directory, kithi_block_pack(ref, class + 1));
    rest(ix, RESTING_BLOCK, field, kithi_block_ref(before), class);
    return &to[2u << class];
}

static uint16_t value_at(const _Atomic uint16_t *values, uint32_t i)
{
    return atomic_load_explicit(&values[i], memory_order_relaxed);
}

/* The container of a full array and one value more; 0: no memory. Repetitions are left behind. */
static uint64_t larger(struct kithi_index *ix, uint64_t word, uint32_t more)
{
    struct postings *p = ix->postings;
    const _Atomic uint16_t *from = block_at(ix, kithi_block_ref(word));
    uint16_t values[KITHI_POSTINGS_ARRAY_MAX + 1];
    uint32_t n = 0, places = kithi_container_count(word);
    for (uint32_t i = 0; i < places; i++) {
        uint16_t v = value_at(from, i);
        uint64_t bit = UINT64_C(1) << (v % 64);
        if (!(p->seen[v / 64] & bit))
            values[n++] = v;
        p->seen[v / 64] |= bit;
    }
    for (uint32_t i = 0; i < n; i++)
        p->seen[values[i] / 64] = 0;
    values[n++] = (uint16_t)more;
    unsigned class = class_for(n);
    uint32_t ref = take_block(ix, class);
    if (!ref)
        return 0;
    if (class == KITHI_POSTINGS_BITMAP) {
        _Atomic uint64_t *bits = block_at(ix, ref);
        for (uint32_t i = 0; i < n; i++)
            atomic_fetch_or_explicit(&bits[values[i] / 64], UINT64_C(1) << (values[i] % 64),
                                     memory_order_relaxed);
        n = 0;
    } else {
        _Atomic uint16_t *to = block_at(ix, ref);
        for (uint32_t i = 0; i < n; i++)
            atomic_store_explicit(&to[i], values[i], memory_order_relaxed);
    }
    return kithi_container_pack(ref, class, kithi_container_chunk(word), n);
}

static void count(struct kithi_postings_term *t, int32_t by)
{
    uint32_t n = atomic_load_explicit(&t->count, memory_order_relaxed);
    atomic_store_explicit(&t->count, n + (uint32_t)by, memory_order_relaxed); /* ordered by the epoch */
}

/* The term leads to slot. False: no memory. */
static bool add_slot(struct kithi_index *ix, uint32_t field, struct kithi_postings_term *t, uint32_t slot)
{
    const uint32_t chunk = slot / KITHI_POSTINGS_CHUNK, at = slot % KITHI_POSTINGS_CHUNK;
    _Atomic uint64_t *place, *word = find_word(ix, own(&t->directory), chunk, &place);
    if (!word) {
        uint32_t ref = take_block(ix, 0);
        if (ref && !place)
            place = grow_directory(ix, field, t);
        if (ref && !place)
            give_block(ix, ref, 0); /* nobody has met it */
        if (!ref || !place)
            return false;
        atomic_store_explicit((_Atomic uint16_t *)block_at(ix, ref), (uint16_t)at, memory_order_relaxed);
        store_word(place, kithi_container_pack(ref, 0, chunk, 1));
        count(t, 1);
        return true;
    }
    uint64_t v = own(word);
    unsigned class = kithi_block_class(v);
    if (class == KITHI_POSTINGS_BITMAP) {
        _Atomic uint64_t *bits = (_Atomic uint64_t *)block_at(ix, kithi_block_ref(v)) + at / 64;
        uint64_t bit = UINT64_C(1) << (at % 64);
        count(t, !(own(bits) & bit));
        atomic_store_explicit(bits, own(bits) | bit, memory_order_relaxed); /* ordered by the epoch */
        return true;
    }
    _Atomic uint16_t *values = block_at(ix, kithi_block_ref(v));
    uint32_t n = kithi_container_count(v);
    ix->postings->work += work_of(n);
    for (uint32_t i = n; i-- > 0;)
        if (value_at(values, i) == at)
            return true;
    if (n < array_capacity(class)) {
        atomic_store_explicit(&values[n], (uint16_t)at, memory_order_relaxed);
        store_word(word, kithi_container_pack(kithi_block_ref(v), class, chunk, n + 1));
    } else {
        uint64_t next = larger(ix, v, at);
        if (!next)
            return false;
        store_word(word, next);
        rest(ix, RESTING_BLOCK, field, kithi_block_ref(v), class);
    }
    count(t, 1);
    return true;
}

/*
 * The term leads to slot no more. In an array another slot takes its place, which is there twice then: who reads it meanwhile misses
 * nobody else.
 */
static void remove_slot(struct kithi_index *ix, uint32_t field, struct kithi_postings_term *t, uint32_t slot)
{
    const uint32_t at = slot % KITHI_POSTINGS_CHUNK;
    _Atomic uint64_t *ignored,
        *word = find_word(ix, own(&t->directory), slot / KITHI_POSTINGS_CHUNK, &ignored);
    ix->postings->work += work_of(2u << kithi_block_class(own(&t->directory)));
    if (!word)
        return;
    uint64_t v = own(word);
    if (kithi_block_class(v) == KITHI_POSTINGS_BITMAP) {
        _Atomic uint64_t *bits = (_Atomic uint64_t *)block_at(ix, kithi_block_ref(v)) + at / 64;
        uint64_t bit = UINT64_C(1) << (at % 64);
        count(t, own(bits) & bit ? -1 : 0);
        atomic_store_explicit(bits, own(bits) & ~bit, memory_order_relaxed);
        return;
    }
    _Atomic uint16_t *values = block_at(ix, kithi_block_ref(v));
    uint32_t n = kithi_container_count(v), other = n, found = 0;
    ix->postings->work += work_of(n);
    for (uint32_t i = 0; i < n; i++) {
        bool same = value_at(values, i) == at;
        found += same;
        other = same ? other : i;
    }
    if (!found)
        return;
    count(t, -1);
    if (other == n) { /* it was the last one */
        store_word(word, 0);
        rest(ix, RESTING_BLOCK, field, kithi_block_ref(v), kithi_block_class(v));
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        if (value_at(values, i) == at)
            atomic_store_explicit(&values[i], value_at(values, other), memory_order_relaxed);
}

/* All slots of one term go to another one, too. */
static bool add_all(struct kithi_index *ix, uint32_t field, struct kithi_postings_term *to,
                    const struct kithi_postings_term *from)
{
    uint64_t directory = own(&from->directory);
    const _Atomic uint64_t *words = block_at(ix, kithi_block_ref(directory));
    for (uint32_t i = 0; i < 2u << kithi_block_class(directory); i++) {
        uint64_t word = own(&words[i]);
        if (!word)
            continue;
        uint32_t first = kithi_container_chunk(word) * KITHI_POSTINGS_CHUNK;
        if (kithi_block_class(word) != KITHI_POSTINGS_BITMAP) {
            const _Atomic uint16_t *values = block_at(ix, kithi_block_ref(word));
            for (uint32_t n = 0; n < kithi_container_count(word); n++)
                if (!add_slot(ix, field, to, first + value_at(values, n)))
                    return false;
            continue;
        }
        const _Atomic uint64_t *bits = block_at(ix, kithi_block_ref(word));
        for (uint32_t n = 0; n < KITHI_POSTINGS_CHUNK / 64; n++)
            for (uint64_t left = own(&bits[n]); left; left &= left - 1)
                if (!add_slot(ix, field, to, first + n * 64 + (uint32_t)__builtin_ctzll(left)))
                    return false;
    }
    return true;
}

/* ---- terms of a field ---- */

/*
 * Its memory comes free: whoever reads its terms is done with them in two eras, or finds out that he has been too slow. Terms that went before
 * rest in front of the pages that they are in, and are let go before these.
 */
static void give_up(struct kithi_index *ix, uint32_t field)
{
    struct field *f = &ix->postings->fields[field];
    struct kithi_postings_field *shared = field_at(ix, field);
    f->given_up = true;
    /* Relaxed: ordered by the epoch of the first group of which it has not everything. */
    atomic_store_explicit(&shared->state, KITHI_POSTINGS_GIVEN_UP, memory_order_relaxed);
    for (uint32_t i = 0; i < f->count; i++)
        rest_blocks(ix, field, term_at(ix, field, f->terms[i].place));
    for (uint32_t i = 0; i < KITHI_POSTINGS_PAGES; i++) {
        uint32_t page = atomic_load_explicit(&shared->pages[i], memory_order_relaxed);
        if (page && i * KITHI_POSTINGS_PAGE_TERMS < f->place_end)
            rest(ix, RESTING_BLOCK, field, page, KITHI_POSTINGS_PAGE_CLASS);
    }
    free(f->terms);
    free(f->places_free.items);
    f->terms = NULL;
    f->places_free = (struct stack){ 0 };
    f->count = f->capacity = f->place_end = 0;
}

static int by_key(const struct term *t, enum kithi_term_kind kind, uint64_t key)
{
    if (t->kind != kind)
        return t->kind < (uint8_t)kind ? -1 : 1;
    return t->high < key ? -1 : t->low > key ? 1 : 0;
}

/* Where the term of a key stands among those of the field, or would; *out_there: it does. */
static uint32_t seek(const struct field *f, enum kithi_term_kind kind, uint64_t key, bool *out_there)
{
    uint32_t low = 0, high = f->count;
    *out_there = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = by_key(&f->terms[middle], kind, key);
        if (order == 0) {
            *out_there = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* A place for a term; UINT32_MAX: none is free. */
static uint32_t take_place(struct kithi_index *ix, uint32_t field)
{
    struct field *f = &ix->postings->fields[field];
    if (f->places_free.count)
        return f->places_free.items[--f->places_free.count];
    if (f->place_end == KITHI_POSTINGS_TERMS)
        return UINT32_MAX;
    if (f->place_end % KITHI_POSTINGS_PAGE_TERMS == 0) {
        uint32_t page = take_block(ix, KITHI_POSTINGS_PAGE_CLASS);
        if (!page)
            return UINT32_MAX;
        atomic_store_explicit(&field_at(ix, field)->pages[f->place_end / KITHI_POSTINGS_PAGE_TERMS], page,
                              memory_order_release);
    }
    return f->place_end++;
}

/* An empty term, which nobody finds yet; NULL: no memory. */
static struct kithi_postings_term *make_term(struct kithi_index *ix, uint32_t field, uint32_t place,
                                             uint64_t low, uint64_t high)
{
    struct kithi_postings_term *t = term_at(ix, field, place);
    uint32_t ref = take_block(ix, 0);
    if (!ref)
        return NULL;
    atomic_store_explicit(&t->low, low, memory_order_relaxed);
    atomic_store_explicit(&t->high, high, memory_order_relaxed);
    atomic_store_explicit(&t->count, 0, memory_order_relaxed);
    store_word(&t->directory, kithi_block_pack(ref, 0));
    return t;
}

static void publish_term(struct kithi_index *ix, uint32_t field, uint32_t place, enum kithi_term_kind kind)
{
    struct kithi_postings_field *f = field_at(ix, field);
    /* [P19 postings] release: the term stands before its kind, and that before the end that leads to it. Other half: condition(). */
    atomic_store_explicit(&term_at(ix, field, place)->kind, kind, memory_order_release);
    if (place >= atomic_load_explicit(&f->term_end, memory_order_relaxed))
        atomic_store_explicit(&f->term_end, place + 1, memory_order_release);
}

/* The two terms at i and behind it become one. What they were stays for two eras: whoever has passed the place of the new one meets them. */
static bool merge_pair(struct kithi_index *ix, uint32_t field, uint32_t i)
{
    struct field *f = &ix->postings->fields[field];
    struct term *a = &f->terms[i], *b = &f->terms[i + 1];
    uint32_t place = take_place(ix, field);
    struct kithi_postings_term *t = place == UINT32_MAX ? NULL : make_term(ix, field, place, a->low, b->high);
    if (!t || !add_all(ix, field, t, term_at(ix, field, a->place)) ||
        !add_all(ix, field, t, term_at(ix, field, b->place))) {
        if (t)
            rest_blocks(ix, field, t); /* of a term that nobody has met; the field is given up */
        return false;
    }
    publish_term(ix, field, place, (enum kithi_term_kind)a->kind);
    rest(ix, RESTING_TERM, field, a->place, 0);
    rest(ix, RESTING_TERM, field, b->place, 0);
    a->high = b->high;
    a->place = place;
    return true;
}

static uint32_t weight(const struct kithi_index *ix, uint32_t field, uint32_t i)
{
    const struct term *t = &ix->postings->fields[field].terms[i];
    return atomic_load_explicit(&term_at(ix, field, t->place)->count, memory_order_relaxed);
}

static int by_number(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Some of the lightest neighbours become one; there are as many places. False: no memory. */
static bool merge_lightest(struct kithi_index *ix, uint32_t field)
{
    struct field *f = &ix->postings->fields[field];
    uint32_t weights[KITHI_POSTINGS_TERMS], n = 0, merged = 0, to = 0;
    uint64_t slots = 0;
    for (uint32_t i = 0; i + 1 < f->count; i++)
        if (f->terms[i].kind == f->terms[i + 1].kind)
            weights[n++] = weight(ix, field, i) + weight(ix, field, i + 1);
    qsort(weights, n, sizeof *weights, by_number);
    uint32_t most = n ? weights[n > 2 * MERGES ? 2 * MERGES : n - 1] : 0; /* pairs share their members */
    bool fine = true;
    ix->postings->work += work_of(f->count);
    for (uint32_t i = 0; i < f->count; i++) {
        bool pair = fine && merged < MERGES && i + 1 < f->count && f->terms[i].kind == f->terms[i + 1].kind &&
                    weight(ix, field, i) + weight(ix, field, i + 1) <= most && slots < MERGE_SLOTS;
        if (pair) {
            slots += (uint64_t)weight(ix, field, i) + weight(ix, field, i + 1);
            fine = merge_pair(ix, field, i);
        }
        f->terms[to++] = f->terms[i];
        if (pair && fine) {
            merged++;
            i++;
        }
    }
    f->count = to;
    ix->postings->work += slots;
    return fine;
}

/* The lighter neighbour of a key takes it in. at: where it would stand. False: there is none of its kind with so few slots. */
static bool widen(struct kithi_index *ix, uint32_t field, enum kithi_term_kind kind, uint64_t key,
                  uint32_t at, uint64_t most, uint32_t *out)
{
    struct field *f = &ix->postings->fields[field];
    bool below = at > 0 && f->terms[at - 1].kind == kind, above = at < f->count && f->terms[at].kind == kind;
    if (!below && !above)
        return false;
    if (below && above)
        below = weight(ix, field, at - 1) <= weight(ix, field, at);
    if (weight(ix, field, below ? at - 1 : at) > most)
        return false;
    struct term *t = &f->terms[below ? at - 1 : at];
    struct kithi_postings_term *shared = term_at(ix, field, t->place);
    /* Relaxed: whom it lets in is added behind it, for an epoch that is not published yet. */
    if (below) {
        t->high = key;
        atomic_store_explicit(&shared->high, key, memory_order_relaxed);
    } else {
        t->low = key;
        atomic_store_explicit(&shared->low, key, memory_order_relaxed);
    }
    *out = t->place;
    return true;
}

/* Place of the term that a key belongs to; a new one, if need be. False: no memory. */
static bool term_for(struct kithi_index *ix, uint32_t field, enum kithi_term_kind kind, uint64_t key,
                     uint32_t *out)
{
    struct field *f = &ix->postings->fields[field];
    bool there;
    uint32_t at = seek(f, kind, key, &there);
    if (there) {
        *out = f->terms[at].place;
        return true;
    }
    /* A neighbour with no more than twice its share takes it in for nothing. */
    if (f->count >= TERMS_MOST && widen(ix, field, kind, key, at, 2 * (ix->live / TERMS_MOST + 1), out))
        return true;
    if (f->count >= TERMS_MOST && f->places_free.count + (KITHI_POSTINGS_TERMS - f->place_end) >= MERGES) {
        if (!merge_lightest(ix, field))
            return false;
        at = seek(f, kind, key, &there);
        if (there) { /* between the two of a pair */
            *out = f->terms[at].place;
            return true;
        }
    }
    if (f->count == f->capacity) {
        uint32_t capacity = f->capacity ? 2 * f->capacity : 16;
        struct term *terms = realloc(f->terms, capacity * sizeof *terms);
        if (!terms)
            return false;
        f->terms = terms;
        f->capacity = capacity;
    }
    uint32_t place = take_place(ix, field);
    if (place == UINT32_MAX)
        return widen(ix, field, kind, key, at, UINT64_MAX, out);
    if (!make_term(ix, field, place, key, key))
        return false;
    publish_term(ix, field, place, kind);
    ix->postings->work += work_of(f->count - at);
    memmove(&f->terms[at + 1], &f->terms[at], (f->count - at) * sizeof *f->terms);
    f->terms[at] = (struct term){ .low = key, .high = key, .place = place, .kind = (uint8_t)kind };
    f->count++;
    *out = place;
    return true;
}

/* ---- fields ---- */

static uint32_t find_field(const struct postings *p, const char *path, uint32_t len)
{
    for (uint32_t i = 0; i < p->field_count; i++)
        if (p->fields[i].path_len == len && memcmp(p->fields[i].path, path, len) == 0)
            return i;
    return NO_FIELD;
}

static void publish_field(struct kithi_index *ix, uint32_t i, enum kithi_postings_state state)
{
    const struct field *f = &ix->postings->fields[i];
    struct kithi_postings_field *shared = field_at(ix, i);
    uint32_t type = f->declared;
    kithi_slot_store(&shared->path_len, &f->path_len, sizeof f->path_len);
    kithi_slot_store(&shared->declared, &type, sizeof type);
    kithi_slot_store(shared->path, f->path, f->path_len);
    atomic_store_explicit(&shared->term_end, 0, memory_order_relaxed);
    /* [P19 postings] release: the path stands before the state. Other half: state_of(). */
    atomic_store_explicit(&shared->state, state, memory_order_release);
}

/* A field that no payload had before. NO_FIELD: there are too many, its path is too long, or there is no memory for it; then it never has postings. */
static uint32_t new_field(struct kithi_index *ix, const char *path, uint32_t len,
                          enum kithi_declared_type declared)
{
    struct postings *p = ix->postings;
    struct kithi_errmsg ignored;
    const uint32_t i = p->field_count;
    if (len > KITHI_POSTINGS_PATH || i == KITHI_POSTINGS_FIELDS)
        return NO_FIELD;
    bool room =
        !KITHI_FAULT("postings-no-space") && kithi_space_reserve(ix, KITHI_REGION_DICT, i + 1, &ignored) == 0;
    struct field *f = &p->fields[i];
    memcpy(f->path, path, len);
    f->path_len = len;
    f->declared = declared;
    f->given_up = !room; /* later payloads would not be all that have it */
    p->field_count++;
    if (!room)
        return NO_FIELD;
    /* There is room for those before it, too, which had none when they came. */
    for (uint32_t before = 0; before < i; before++)
        if (atomic_load_explicit(&field_at(ix, before)->state, memory_order_relaxed) == KITHI_POSTINGS_UNUSED)
            publish_field(ix, before, KITHI_POSTINGS_GIVEN_UP);
    publish_field(ix, i, KITHI_POSTINGS_KEPT);
    return i;
}

/* ---- payloads ---- */

struct posting {
    struct kithi_index *ix;
    uint32_t slot;
};

static bool post_term(void *arg, const struct kithi_term *told)
{
    const struct posting *to = arg;
    struct postings *p = to->ix->postings;
    struct kithi_term t = *told;
    uint32_t place, field = find_field(p, t.path, t.path_len);
    p->work++;
    if (field == NO_FIELD && p->declared.automatic)
        field = new_field(to->ix, t.path, t.path_len, KITHI_DECLARED_ANY);
    if (field == NO_FIELD || p->fields[field].given_up)
        return true;
    kithi_term_fit(&t, p->fields[field].declared);
    if (!term_for(to->ix, field, t.kind, t.key, &place) ||
        !add_slot(to->ix, field, term_at(to->ix, field, place), to->slot))
        give_up(to->ix, field);
    return true;
}

static void each_term(struct kithi_index *ix, uint32_t ref, kithi_term_fn *fn, void *arg)
{
    struct kithi_payload payload = { 0 };
    payload.len = kithi_payload_bytes(ix, ref, &payload.bytes);
    if (payload.len)
        kithi_terms_each(&payload, ix->map.hash_key, fn, arg);
}

static void post(struct kithi_index *ix, uint32_t slot, uint32_t ref)
{
    struct posting to = { .ix = ix, .slot = slot };
    if (ref)
        each_term(ix, ref, post_term, &to);
}

void kithi_postings_group(struct kithi_index *ix, const struct kithi_group *g)
{
    for (uint32_t i = 0; i < g->insertion_count; i++)
        if (!g->insertions[i].superseded)
            post(ix, g->insertions[i].slot, g->insertions[i].payload);
    for (uint32_t i = 0; i < g->change_count; i++)
        post(ix, g->changes[i].slot, g->changes[i].ref);
}

/* The term that the index has for one of a payload. False: none, or its field was given up. */
static bool find_term(struct postings *p, const struct kithi_term *told, struct old *out)
{
    struct kithi_term t = *told;
    uint32_t field = find_field(p, t.path, t.path_len);
    bool there;
    p->work++;
    if (field == NO_FIELD || p->fields[field].given_up)
        return false;
    kithi_term_fit(&t, p->fields[field].declared);
    uint32_t at = seek(&p->fields[field], t.kind, t.key, &there);
    if (there)
        *out = (struct old){ .field = field, .place = p->fields[field].terms[at].place };
    return there;
}

static int by_place(const void *a, const void *b)
{
    const struct old *x = a, *y = b;
    if (x->field != y->field)
        return x->field < y->field ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

static bool note_old(void *arg, const struct kithi_term *t)
{
    struct postings *p = ((struct kithi_index *)arg)->postings;
    struct old old;
    if (!find_term(p, t, &old))
        return true;
    if (p->old_count == OLD_TERMS) {
        p->stale_lost = true; /* no payload has so many, if its bytes are what they were */
        return false;
    }
    p->old[p->old_count++] = old;
    return true;
}

/* Note the terms of a payload that goes, each once and in order. */
static void note_all_old(struct kithi_index *ix, uint32_t ref)
{
    struct postings *p = ix->postings;
    uint32_t n = 0;
    p->old_count = 0;
    each_term(ix, ref, note_old, ix);
    qsort(p->old, p->old_count, sizeof *p->old, by_place);
    for (uint32_t i = 0; i < p->old_count; i++)
        if (n == 0 || by_place(&p->old[n - 1], &p->old[i]) != 0)
            p->old[n++] = p->old[i];
    p->old_count = p->old_left = n;
}

/* A later version has this term: the slot stays with it. */
static bool keep_old(void *arg, const struct kithi_term *t)
{
    struct postings *p = ((struct kithi_index *)arg)->postings;
    struct old key, *old;
    if (!find_term(p, t, &key))
        return true;
    old = bsearch(&key, p->old, p->old_count, sizeof *p->old, by_place);
    if (old && !old->kept) {
        old->kept = true;
        p->old_left--;
    }
    return p->old_left > 0;
}

/* A term without slots goes, too. */
static void drop_if_empty(struct kithi_index *ix, uint32_t field, uint32_t place)
{
    struct field *f = &ix->postings->fields[field];
    struct kithi_postings_term *t = term_at(ix, field, place);
    if (atomic_load_explicit(&t->count, memory_order_relaxed))
        return;
    bool there;
    uint32_t kind = atomic_load_explicit(&t->kind, memory_order_relaxed);
    uint32_t at = seek(f, (enum kithi_term_kind)kind, own(&t->low), &there);
    if (!there || f->terms[at].place != place)
        return; /* gone already */
    ix->postings->work += work_of(f->count - at);
    memmove(&f->terms[at], &f->terms[at + 1], (f->count - at - 1) * sizeof *f->terms);
    f->count--;
    rest(ix, RESTING_TERM, field, place, 0);
}

static void remove_old(struct kithi_index *ix, uint32_t slot)
{
    struct postings *p = ix->postings;
    for (uint32_t i = 0; i < p->old_count; i++) {
        if (p->old[i].kept)
            continue;
        remove_slot(ix, p->old[i].field, term_at(ix, p->old[i].field, p->old[i].place), slot);
        drop_if_empty(ix, p->old[i].field, p->old[i].place);
    }
}

/* ---- terms that lead to a slot in vain ---- */

static void note_stale(struct postings *p, const struct stale *s)
{
    if (p->stale_count == p->stale_capacity) {
        uint32_t capacity = p->stale_capacity ? 2 * p->stale_capacity : 64;
        struct stale *items = capacity <= STALE_MOST ? realloc(p->stale, capacity * sizeof *items) : NULL;
        if (!items) {
            p->stale_lost = true;
            return;
        }
        p->stale = items;
        p->stale_capacity = capacity;
    }
    p->stale[p->stale_count++] = *s;
}

/* Terms of the payload that goes, which have not been met in a later version yet. */
static void note_all_stale(struct kithi_index *ix, uint32_t slot)
{
    struct postings *p = ix->postings;
    for (uint32_t i = 0; i < p->old_count; i++) {
        const struct old *old = &p->old[i];
        const struct kithi_postings_term *t = term_at(ix, old->field, old->place);
        const struct stale s = {
            .key = own(&t->low),
            .slot = slot,
            .field = (uint8_t)old->field,
            .kind = (uint8_t)atomic_load_explicit(&t->kind, memory_order_relaxed),
        };
        if (!old->kept)
            note_stale(p, &s);
    }
}

/*
 * Ask the payloads of slot, the newest first and down to `until` (0: all), which of p->old they have. False: there are too many to tell of all of p->old.
 * The newest alone is asked then, as its own going is the time to ask again of what it has.
 */
static bool ask_versions(struct kithi_index *ix, uint32_t slot, uint32_t until)
{
    struct kithi_payload_blob b;
    uint32_t refs[OLD_VERSIONS], n = 0;
    uint32_t newer = atomic_load_explicit(&kithi_view_record(&ix->view, slot)->payload, memory_order_relaxed);
    while (newer && newer != until) {
        if (n == OLD_VERSIONS) {
            each_term(ix, refs[0], keep_old, ix);
            return ix->postings->old_left == 0;
        }
        if (!kithi_view_payload_blob(&ix->view, newer, &b) ||
            atomic_load_explicit(&b.blob->owner, memory_order_relaxed) != slot + 1)
            break; /* freed before: the slot is another one's by now */
        refs[n++] = newer;
        newer = atomic_load_explicit(&b.head->prev, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < n && ix->postings->old_left; i++)
        each_term(ix, refs[i], keep_old, ix);
    return true;
}

/* True: it is settled. */
static bool settle_stale(struct kithi_index *ix, const struct stale *s)
{
    struct postings *p = ix->postings;
    const struct field *f = &p->fields[s->field];
    bool there;
    uint32_t at = seek(f, (enum kithi_term_kind)s->kind, s->key, &there);
    p->work += 2;
    if (f->given_up || !there)
        return true;
    p->old[0] = (struct old){ .field = s->field, .place = f->terms[at].place };
    p->old_count = p->old_left = 1;
    if (!ask_versions(ix, s->slot, 0)) {
        p->work += OLD_VERSIONS;
        return false;
    }
    remove_old(ix, s->slot);
    return true;
}

bool kithi_postings_clean(struct kithi_index *ix, uint64_t now_ms)
{
    struct postings *p = ix->postings;
    if (!p->whole)
        return false;
    if (p->stale_lost && (p->anew_ms == 0 || now_ms - p->anew_ms >= STALE_MS)) {
        kithi_postings_restart(ix);
        p->anew_ms = now_ms ? now_ms : 1;
        return true;
    }
    const uint32_t before = p->stale_count;
    kithi_postings_turn(ix);
    for (uint32_t left = before; left > 0 && !kithi_postings_has_worked(ix); left--) {
        if (p->stale_at >= p->stale_count)
            p->stale_at = 0;
        if (settle_stale(ix, &p->stale[p->stale_at]))
            p->stale[p->stale_at] = p->stale[--p->stale_count];
        else
            p->stale_at++;
    }
    /* Else all that could be settled is, or it is not worth while: versions still come as fast. */
    return p->stale_count < before && kithi_postings_has_worked(ix);
}

bool kithi_postings_is_clean(const struct kithi_index *ix)
{
    return ix->postings->stale_count == 0;
}

uint64_t kithi_postings_anew_at(const struct kithi_index *ix)
{
    const struct postings *p = ix->postings;
    return p->stale_lost ? p->anew_ms + STALE_MS : UINT64_MAX;
}

void kithi_postings_forget(struct kithi_index *ix, uint32_t ref)
{
    struct postings *p = ix->postings;
    struct kithi_payload_blob b;
    if (p->field_count == 0 || !kithi_view_payload_blob(&ix->view, ref, &b))
        return;
    uint32_t slot = atomic_load_explicit(&b.blob->owner, memory_order_relaxed) - 1;
    if (slot >= ix->slots_used)
        return;
    note_all_old(ix, ref);
    if (ask_versions(ix, slot, ref))
        remove_old(ix, slot);
    else
        note_all_stale(ix, slot);
}

void kithi_postings_free(struct kithi_index *ix, uint32_t slot)
{
    struct postings *p = ix->postings;
    uint32_t ref = atomic_load_explicit(&kithi_view_record(&ix->view, slot)->payload, memory_order_relaxed);
    if (p->field_count == 0 || !ref)
        return;
    note_all_old(ix, ref);
    remove_old(ix, slot);
}

/* ---- beginning ---- */

int kithi_postings_init(struct kithi_index *ix)
{
    ix->postings = calloc(1, sizeof *ix->postings);
    if (!ix->postings)
        return -ENOMEM;
    ix->postings->declared.automatic = true;
    return 0;
}

/* All but what stays. */
static void forget_all(struct postings *p)
{
    const size_t from = offsetof(struct postings, whole);
    for (uint32_t i = 0; i < KITHI_POSTINGS_FIELDS; i++) {
        free(p->fields[i].terms);
        free(p->fields[i].places_free.items);
    }
    for (unsigned c = 0; c < KITHI_POSTINGS_CLASSES; c++)
        free(p->free[c].items);
    free(p->gone);
    free(p->stale);
    memset((unsigned char *)p + from, 0, sizeof *p - from);
}

void kithi_postings_fini(struct kithi_index *ix)
{
    if (ix->postings)
        forget_all(ix->postings);
    free(ix->postings);
    ix->postings = NULL;
}

void kithi_postings_restart(struct kithi_index *ix)
{
    struct postings *p = ix->postings;
    uint64_t before = own(&ix->header->postings);
    forget_all(p);
    p->generation = kithi_postings_generation(before) + 1;
    store_state(ix);
    for (uint32_t i = 0; i < ix->taken[KITHI_REGION_DICT] / sizeof(struct kithi_postings_field); i++)
        atomic_store_explicit(&field_at(ix, i)->state, KITHI_POSTINGS_UNUSED, memory_order_relaxed);
    /* Relaxed: for people. */
    atomic_store_explicit(&ix->header->declared, !p->declared.automatic, memory_order_relaxed);
    KITHI_FAULT_CRASH("crash-after-restart");
    for (uint32_t i = 0; i < p->declared.count; i++) {
        const struct kithi_declared_field *f = &p->declared.fields[i];
        (void)new_field(ix, f->path, f->path_len, f->type);
    }
    (void)kithi_postings_rebuild(ix, 0);
}

int kithi_index_declare(struct kithi_index *ix, const char *text, struct kithi_errmsg *err)
{
    struct kithi_declared d;
    int rc = kithi_declared_read(text, &d, err);
    if (rc == 0 && memcmp(&d, &ix->postings->declared, sizeof d) != 0) {
        ix->postings->declared = d;
        kithi_postings_restart(ix);
    }
    return rc;
}

bool kithi_postings_rebuild(struct kithi_index *ix, uint32_t slots)
{
    struct postings *p = ix->postings;
    if (p->whole)
        return false;
    kithi_postings_turn(ix);
    for (uint32_t i = 0; i < slots && p->next_slot < ix->slots_used && !kithi_postings_has_worked(ix); i++) {
        uint32_t slot = p->next_slot++;
        const struct kithi_record *r = kithi_view_record(&ix->view, slot);
        /* What has died was seen by nobody who will meet that the postings are whole, and what is born is added as it is published. */
        if (!atomic_load_explicit(&r->linked, memory_order_relaxed) ||
            atomic_load_explicit(&r->birth, memory_order_relaxed) == 0 ||
            atomic_load_explicit(&r->death, memory_order_relaxed))
            continue;
        post(ix, slot, atomic_load_explicit(&r->payload, memory_order_relaxed));
        KITHI_FAULT_CRASH("crash-in-rebuild");
    }
    p->whole = p->next_slot >= ix->slots_used;
    if (p->whole)
        store_state(ix);
    return !p->whole;
}

void kithi_postings_tallies(const struct kithi_index *ix)
{
    const struct postings *p = ix->postings;
    struct kithi_header *h = ix->header;
    uint32_t kept = 0, given_up = 0;
    uint64_t misfits = 0;
    for (uint32_t i = 0; i < p->field_count; i++) {
        const struct field *f = &p->fields[i];
        *(f->given_up ? &given_up : &kept) += 1;
        if (f->count && f->terms[f->count - 1].kind == KITHI_TERM_MISFIT) /* the last of kinds */
            misfits += weight(ix, i, f->count - 1);
    }
    atomic_store_explicit(&h->tally_fields, kept, memory_order_relaxed);
    atomic_store_explicit(&h->tally_given_up, given_up, memory_order_relaxed);
    atomic_store_explicit(&h->tally_misfits, misfits, memory_order_relaxed);
    /* Relaxed: for people. */
    atomic_store_explicit(&h->tally_cells, p->cells_used, memory_order_relaxed);
    atomic_store_explicit(&h->tally_cells_free, p->cells_free, memory_order_relaxed);
    atomic_store_explicit(&h->tally_cells_resting, p->cells_resting, memory_order_relaxed);
}
