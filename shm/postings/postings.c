/*
 * postings.c - the reader's half of [P19 postings]. See postings.h.
 */
#include "shm/postings/postings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/utf8.h"
#include "shm/postings/terms.h"
#include "shm/sync/slotbytes.h"

_Static_assert((int)KITHI_TERM_STRING == (int)KITHI_FILTER_STRING &&
                   (int)KITHI_TERM_NUMBER == (int)KITHI_FILTER_NUMBER &&
                   (int)KITHI_TERM_BOOL == (int)KITHI_FILTER_BOOL,
               "terms have the kinds of literals");

/* Words of 8 bytes that a look may read besides those of all the memory that postings have: terms, more than once. */
#define BUDGET_FLOOR (1u << 20)
/* Values of one list that are looked for. */
#define ASKED_MAX 256u

enum { UNKNOWN = 0, KNOWN = 1 };

struct look {
    const struct kithi_view *v;
    const struct kithi_filter *f;
    struct kithi_candidates *c; /* NULL: only bounds are asked for */
    uint64_t budget;            /* words that may still be read */
};

/* ---- from numbers to pointers ---- */

/* The block of a class that ref (cell + 1) leads to; NULL: it is not where there is memory. */
static void *block(const struct kithi_view *v, uint32_t ref, unsigned class)
{
    uint32_t cells = 1u << class;
    if (ref == 0 || class >= KITHI_POSTINGS_CLASSES || v->cell_limit < cells ||
        ref - 1 > v->cell_limit - cells)
        return NULL;
    return v->map->base + v->map->layout.off[KITHI_REGION_POSTINGS] + (size_t)(ref - 1) * KITHI_POSTINGS_CELL;
}

static const struct kithi_postings_field *field_at(const struct kithi_view *v, uint32_t i)
{
    const unsigned char *dict = v->map->base + v->map->layout.off[KITHI_REGION_DICT];
    return (const struct kithi_postings_field *)(const void *)dict + i;
}

static uint32_t field_limit(const struct kithi_view *v)
{
    return v->field_limit < KITHI_POSTINGS_FIELDS ? v->field_limit : KITHI_POSTINGS_FIELDS;
}

/* [P19 postings] acquire: the path stands before the state. Other half: new_field(). */
static uint32_t state_of(const struct kithi_postings_field *f)
{
    return atomic_load_explicit(&f->state, memory_order_acquire);
}

static enum kithi_declared_type declared_of(const struct kithi_postings_field *f)
{
    uint32_t declared;
    kithi_slot_load(&declared, &f->declared, sizeof declared);
    return declared <= KITHI_DECLARED_BOOL ? (enum kithi_declared_type)declared : KITHI_DECLARED_ANY;
}

/* Number of the field of a path that has postings, UINT32_MAX: none. */
static uint32_t find_field(const struct kithi_view *v, const char *path, uint32_t len)
{
    for (uint32_t i = 0; i < field_limit(v); i++) {
        const struct kithi_postings_field *f = field_at(v, i);
        uint32_t path_len;
        if (state_of(f) != KITHI_POSTINGS_KEPT)
            continue;
        kithi_slot_load(&path_len, &f->path_len, sizeof path_len);
        if (path_len == len && len <= KITHI_POSTINGS_PATH && kithi_slot_compare(path, f->path, len) == 0)
            return i;
    }
    return UINT32_MAX;
}

/* Place number i of a field's terms; NULL: it has no memory. */
static const struct kithi_postings_term *term_at(const struct kithi_view *v,
                                                 const struct kithi_postings_field *f, uint32_t i)
{
    uint32_t page = atomic_load_explicit(&f->pages[i / KITHI_POSTINGS_PAGE_TERMS], memory_order_acquire);
    const struct kithi_postings_term *terms = block(v, page, KITHI_POSTINGS_PAGE_CLASS);
    return terms ? &terms[i % KITHI_POSTINGS_PAGE_TERMS] : NULL;
}

/* [P19 postings] acquire: a place is filled before the end is raised over it. Other half: publish_term(). */
static uint32_t term_end(const struct kithi_postings_field *f)
{
    uint32_t end = atomic_load_explicit(&f->term_end, memory_order_acquire);
    return end < KITHI_POSTINGS_TERMS ? end : KITHI_POSTINGS_TERMS;
}

/*
 * [P19 postings] Is what was read since the view began what its epoch sees, and more? Everything that went since had rested for a whole era, and
 * was not made anew. Other half: kithi_postings_tick().
 */
bool kithi_postings_fresh(const struct kithi_view *v)
{
    atomic_thread_fence(memory_order_acquire);
    uint64_t now = atomic_load_explicit(&v->header->postings, memory_order_relaxed);
    uint32_t eras = (kithi_postings_era(now) - kithi_postings_era(v->postings)) & KITHI_POSTINGS_ERAS;
    return kithi_postings_whole(v->postings) && kithi_postings_whole(now) && eras < 2 &&
           kithi_postings_generation(now) == kithi_postings_generation(v->postings);
}

/* ---- which terms a condition asks for ---- */

/* What a condition asks for, of the terms of its kind. */
enum asked_for {
    ASKED_ALL,    /* of every one */
    ASKED_RANGE,  /* of those that reach into from..to; from > to: of none */
    ASKED_KEYS,   /* of those that have one of the keys */
    ASKED_OTHERS, /* of all but those that have one of the keys and nothing else */
};

struct asked {
    enum asked_for what;
    uint64_t from, to;
    uint32_t count;
    uint64_t keys[ASKED_MAX]; /* they rise */
};

static const char *text_of(const struct look *l, const struct kithi_filter_literal *literal)
{
    return l->f->text + literal->off;
}

static uint64_t key_of(const struct look *l, const struct kithi_filter_literal *literal)
{
    switch (literal->type) {
    case KITHI_PAYLOAD_STRING:
        return kithi_term_string(l->v->map->hash_key, text_of(l, literal), literal->len);
    case KITHI_PAYLOAD_BOOL: return (uint64_t)literal->integer;
    case KITHI_PAYLOAD_DOUBLE: return kithi_term_number(literal->number);
    default: return kithi_term_integer(literal->integer);
    }
}

/* No other value has the key of this one: a short string; a number where no integer but the equal one is rounded to this double. */
static bool has_own_key(const struct kithi_filter_literal *literal)
{
    double v = literal->type == KITHI_PAYLOAD_DOUBLE ? literal->number : (double)literal->integer;
    if (literal->type == KITHI_PAYLOAD_STRING)
        return literal->len <= KITHI_TERM_HEAD;
    return literal->type == KITHI_PAYLOAD_BOOL || (v > -0x1p53 && v < 0x1p53);
}

/* Keys of values that stand on one side of a literal: below it, or above. */
static void ask_side(const struct look *l, const struct kithi_filter_node *n, bool below, bool equal,
                     struct asked *out)
{
    const struct kithi_filter_literal *literal = &l->f->literals[n->first];
    uint64_t key = key_of(l, literal);
    bool loose = equal || !has_own_key(literal);
    if (literal->type == KITHI_PAYLOAD_STRING &&
        !has_own_key(literal)) /* those that begin alike are on either side */
        key = below ? kithi_term_string_high(text_of(l, literal), literal->len)
                    : kithi_term_string_low(text_of(l, literal), literal->len);
    out->what = ASKED_RANGE;
    out->from = 0;
    out->to = UINT64_MAX;
    if (!loose && key == (below ? 0 : UINT64_MAX))
        out->from = 1, out->to = 0;
    else if (below)
        out->to = loose ? key : key - 1;
    else
        out->from = loose ? key : key + 1;
}

static void ask_prefix(const struct look *l, const struct kithi_filter_node *n, struct asked *out)
{
    const struct kithi_filter_literal *literal = &l->f->literals[n->first];
    const char *text = text_of(l, literal);
    out->what = ASKED_RANGE;
    out->from =
        literal->len > KITHI_TERM_HEAD ? kithi_term_string_low(text, literal->len) : key_of(l, literal);
    out->to = kithi_term_prefix_high(text, literal->len);
}

/* Keys of a list; with `own`, those that have their key for themselves. False: these are more than can be looked for. */
static bool ask_keys(const struct look *l, const struct kithi_filter_node *n, bool own, struct asked *out)
{
    out->count = 0;
    for (uint32_t i = 0; i < n->count; i++) {
        const struct kithi_filter_literal *literal = &l->f->literals[n->first + i];
        if (own && !has_own_key(literal))
            continue;
        if (out->count == ASKED_MAX)
            return own; /* the others are left to the payload */
        uint64_t key = key_of(l, literal);
        uint32_t at = out->count++; /* they rise already, but for long strings */
        for (; at > 0 && out->keys[at - 1] > key; at--)
            out->keys[at] = out->keys[at - 1];
        out->keys[at] = key;
    }
    return true;
}

/* False: these are more than can be looked for. */
static bool ask(const struct look *l, const struct kithi_filter_node *n, struct asked *out)
{
    switch (n->op) {
    case KITHI_FILTER_LT: ask_side(l, n, true, false, out); return true;
    case KITHI_FILTER_LE: ask_side(l, n, true, true, out); return true;
    case KITHI_FILTER_GT: ask_side(l, n, false, false, out); return true;
    case KITHI_FILTER_GE: ask_side(l, n, false, true, out); return true;
    case KITHI_FILTER_PREFIX: ask_prefix(l, n, out); return true;
    case KITHI_FILTER_EQ:
    case KITHI_FILTER_IN: out->what = ASKED_KEYS; return ask_keys(l, n, false, out);
    case KITHI_FILTER_NE:
    case KITHI_FILTER_NOT_IN: out->what = ASKED_OTHERS; return ask_keys(l, n, true, out);
    default: out->what = ASKED_ALL; return true; /* exists() */
    }
}

/* May a value between two keys, of the condition's kind, fulfil it? */
static bool asks_for(const struct asked *a, uint64_t low, uint64_t high)
{
    uint32_t from = 0, to = a->count;
    if (a->what == ASKED_ALL)
        return true;
    if (a->what == ASKED_RANGE)
        return low <= a->to && high >= a->from && a->from <= a->to;
    while (from < to) { /* the first key that is not below the interval */
        uint32_t middle = from + (to - from) / 2;
        if (a->keys[middle] < low)
            from = middle + 1;
        else
            to = middle;
    }
    bool has = from < a->count && a->keys[from] <= high;
    return a->what == ASKED_KEYS ? has : !has || low != high;
}

/* Is the budget enough for n words more? */
static bool spend(struct look *l, uint64_t n)
{
    bool enough = l->budget >= n;
    l->budget = enough ? l->budget - n : 0;
    return enough;
}

/* ---- slots ---- */

static uint64_t *level(const struct look *l, uint32_t i)
{
    return l->c->words + (size_t)i * l->c->width;
}

/* The slots of a container go to the level. False: that cannot be told. */
static bool add_container(struct look *l, uint64_t word, uint32_t to)
{
    uint64_t *bits = level(l, to);
    uint32_t chunk = kithi_container_chunk(word), first = chunk * (KITHI_POSTINGS_CHUNK / 64);
    unsigned class = kithi_block_class(word);
    const void *p = block(l->v, kithi_block_ref(word), class);
    if (first >= l->c->width)
        return true; /* nobody that the view sees */
    if (!p || class > KITHI_POSTINGS_BITMAP)
        return false; /* in memory that was taken since, perhaps with those of the container before it */
    if (class == KITHI_POSTINGS_BITMAP) {
        const _Atomic uint64_t *own = p;
        uint32_t n =
            l->c->width - first < KITHI_POSTINGS_CHUNK / 64 ? l->c->width - first : KITHI_POSTINGS_CHUNK / 64;
        for (uint32_t i = 0; i < n; i++)
            bits[first + i] |= atomic_load_explicit(&own[i], memory_order_relaxed);
        return spend(l, n);
    }
    const _Atomic uint16_t *own = p;
    uint32_t n = kithi_container_count(word), most = 8u << class;
    n = n < most ? n : most;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = atomic_load_explicit(&own[i], memory_order_relaxed);
        if (first + at / 64 < l->c->width)
            bits[first + at / 64] |= UINT64_C(1) << (at % 64);
    }
    return spend(l, 1 + n / 4);
}

static bool add_term(struct look *l, const struct kithi_postings_term *t, uint32_t to)
{
    /* [P19 postings] acquire, here and below: a block is filled before the word that leads to it. Other half: store_word(). */
    uint64_t directory = atomic_load_explicit(&t->directory, memory_order_acquire);
    unsigned class = kithi_block_class(directory);
    const _Atomic uint64_t *words = block(l->v, kithi_block_ref(directory), class);
    if (!words)
        return false;
    for (uint32_t i = 0; i < 2u << class; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_acquire);
        if (!spend(l, 1) || (word && !add_container(l, word, to)))
            return false;
    }
    return true;
}

/* ---- one condition ---- */

/* Its slots go to level `to`, and the sum of their counts to *most. */
static int condition(struct look *l, const struct kithi_filter_node *n, uint32_t to, uint64_t *most)
{
    const struct kithi_filter_field *path = &l->f->fields[n->field];
    uint32_t number = find_field(l->v, l->f->text + path->off, path->len);
    if (number == UINT32_MAX)
        return UNKNOWN;
    const struct kithi_postings_field *f = field_at(l->v, number);
    const uint32_t end = term_end(f);
    struct asked asked;
    *most = 0;
    if (!ask(l, n, &asked))
        return UNKNOWN;
    for (uint32_t i = 0; i < end; i++) {
        const struct kithi_postings_term *t = term_at(l->v, f, i);
        if (!t || !spend(l, sizeof *t / sizeof(uint64_t)))
            return UNKNOWN;
        /* [P19 postings] acquire: the rest of the term stands before its kind. Other half: publish_term(). */
        uint32_t kind = atomic_load_explicit(&t->kind, memory_order_acquire);
        if (kind == KITHI_TERM_NONE)
            continue;
        if (l->c)
            l->c->fields |= UINT64_C(1) << n->field;
        /* Those of another kind are an error of the filter, or none: the payload decides. */
        if (kind == n->kind && !asks_for(&asked, atomic_load_explicit(&t->low, memory_order_relaxed),
                                         atomic_load_explicit(&t->high, memory_order_relaxed)))
            continue;
        *most += atomic_load_explicit(&t->count, memory_order_relaxed);
        if (l->c && !add_term(l, t, to))
            return UNKNOWN;
    }
    /* Else what was read may be of a field that has just been given up. */
    return state_of(f) == KITHI_POSTINGS_KEPT;
}

/* ---- what joins them ---- */

/* Take so many bytes of the budget. */
static bool charge(struct kithi_bitmap_budget *b, uint64_t bytes)
{
    if (!b)
        return true;
    uint64_t left = atomic_load_explicit(&b->left, memory_order_relaxed);
    while (left >= bytes)
        if (atomic_compare_exchange_weak_explicit(&b->left, &left, left - bytes, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void give_back(struct kithi_bitmap_budget *b, uint64_t bytes)
{
    if (b)
        atomic_fetch_add_explicit(&b->left, bytes, memory_order_relaxed);
}

/* Room for one level more, all zeros: KNOWN; UNKNOWN: the budget has none; -ENOMEM. */
static int clear(struct look *l, uint32_t i)
{
    struct kithi_candidates *c = l->c;
    size_t want = (size_t)(i + 1) * c->width;
    if (want > c->capacity) {
        uint64_t more = (want - c->capacity) * sizeof *c->words;
        if (!charge(c->budget, more))
            return UNKNOWN;
        uint64_t *words = realloc(c->words, want * sizeof *words);
        if (!words) {
            give_back(c->budget, more);
            return -ENOMEM;
        }
        c->words = words;
        c->capacity = want;
    }
    memset(level(l, i), 0, c->width * sizeof *c->words);
    return KNOWN;
}

static void join(struct look *l, uint32_t to, uint32_t from, bool both)
{
    uint64_t *a = level(l, to);
    const uint64_t *b = level(l, from);
    for (uint32_t i = 0; i < l->c->width; i++)
        a[i] = both ? a[i] & b[i] : a[i] | b[i];
}

/*
 * The node at *at; *at moves behind it. KNOWN: its slots are at level `to`, as many as *most; UNKNOWN: it may be true of any;
 * -ENOMEM. `not` goes down to the conditions: of `and` it makes `or`, and the other way round. Where it stands before a condition nothing
 * is known, as that is true of whoever does not have the field. As deep as the filter, which its making has bounded.
 */
static int node(struct look *l, uint32_t *at, uint32_t to, bool negated, uint64_t *most)
{
    const struct kithi_filter_node *n = &l->f->nodes[*at];
    const uint32_t behind = n->behind;
    const bool either = n->op == (negated ? KITHI_FILTER_AND : KITHI_FILTER_OR);
    bool known = either, first = true;
    *most = either ? 0 : l->v->slots_used;
    int room = l->c ? clear(l, to) : KNOWN;
    if (room != KNOWN) {
        *at = behind;
        return room;
    }
    if (n->op >= KITHI_FILTER_EQ) {
        *at = behind;
        return negated ? UNKNOWN : condition(l, n, to, most);
    }
    for (++*at; *at < behind;) {
        uint64_t part;
        const uint32_t part_to = first ? to : to + 1;
        int rc = node(l, at, part_to, negated != (n->op == KITHI_FILTER_NOT), &part);
        if (rc < 0)
            return rc;
        if (either && rc == UNKNOWN) {
            known = false;
            break;
        }
        if (rc == UNKNOWN)
            continue; /* what joins it by `and` may know better */
        if (l->c && !first)
            join(l, to, part_to, !either);
        *most = either ? *most + part : part < *most ? part : *most;
        first = false;
        known = true;
    }
    *at = behind;
    return known;
}

static struct look begin(const struct kithi_view *v, const struct kithi_filter *f, struct kithi_candidates *c)
{
    uint64_t words = (uint64_t)v->cell_limit * (KITHI_POSTINGS_CELL / sizeof(uint64_t));
    return (struct look){ .v = v, .f = f, .c = c, .budget = words + BUDGET_FLOOR };
}

/* [P19 postings] A moment in the past may see what has rested and gone. */
static bool is_able(const struct kithi_view *v)
{
    return !v->pinned && kithi_postings_whole(v->postings);
}

void kithi_postings_bounds(const struct kithi_view *v, const struct kithi_filter *f,
                           struct kithi_match_bounds *out)
{
    struct look l = begin(v, f, NULL);
    uint32_t at = 0;
    uint64_t most = 0;
    bool known = is_able(v) && node(&l, &at, 0, false, &most) == KNOWN && kithi_postings_fresh(v);
    *out = (struct kithi_match_bounds){
        .known = known,
        .most = known && most < v->slots_used ? most : v->slots_used,
    };
}

int kithi_candidates_find(const struct kithi_view *v, const struct kithi_filter *f,
                          struct kithi_candidates *c)
{
    struct look l = begin(v, f, c);
    uint32_t at = 0;
    uint64_t most;
    c->slots = v->slots_used;
    c->width = v->slots_used / 64 + 1;
    c->count = v->slots_used;
    c->known = false;
    c->fields = 0;
    if (!is_able(v))
        return 0;
    int rc = node(&l, &at, 0, false, &most);
    if (rc < 0)
        return rc;
    c->known = rc == KNOWN && kithi_postings_fresh(v);
    if (!c->known)
        return 0;
    c->count = 0;
    for (uint32_t i = 0; i < c->width; i++)
        c->count += (unsigned)__builtin_popcountll(c->words[i]);
    return 1;
}

uint32_t kithi_candidates_next(const struct kithi_candidates *c, uint32_t slot)
{
    if (slot >= c->slots)
        return UINT32_MAX;
    if (!c->known)
        return slot;
    uint32_t i = slot / 64;
    uint64_t word = c->words[i] & UINT64_MAX << (slot % 64);
    while (!word && ++i < c->width)
        word = c->words[i];
    slot = i * 64 + (word ? (uint32_t)__builtin_ctzll(word) : 0);
    return word && slot < c->slots ? slot : UINT32_MAX;
}

void kithi_candidates_fini(struct kithi_candidates *c)
{
    free(c->words);
    give_back(c->budget, c->capacity * sizeof *c->words);
    *c = (struct kithi_candidates){ .budget = c->budget };
}

/* ---- for those who look at all of it ---- */

/* Bytes of a term's directory and containers. */
static uint64_t term_bytes(const struct kithi_view *v, const struct kithi_postings_term *t)
{
    uint64_t directory = atomic_load_explicit(&t->directory, memory_order_acquire);
    unsigned class = kithi_block_class(directory);
    const _Atomic uint64_t *words = block(v, kithi_block_ref(directory), class);
    uint64_t bytes = words ? KITHI_POSTINGS_CELL << class : 0;
    for (uint32_t i = 0; words && i < 2u << class; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_acquire);
        if (block(v, kithi_block_ref(word), kithi_block_class(word)))
            bytes += KITHI_POSTINGS_CELL << kithi_block_class(word);
    }
    return bytes;
}

enum kithi_path_state kithi_postings_path(const struct kithi_view *v, const char *path, uint32_t len)
{
    for (uint32_t i = 0; i < field_limit(v); i++) {
        const struct kithi_postings_field *f = field_at(v, i);
        uint32_t state = state_of(f), path_len;
        kithi_slot_load(&path_len, &f->path_len, sizeof path_len);
        if (path_len == len && len <= KITHI_POSTINGS_PATH && kithi_slot_compare(path, f->path, len) == 0 &&
            state != KITHI_POSTINGS_UNUSED)
            return state == KITHI_POSTINGS_KEPT       ? KITHI_PATH_KEPT
                   : state == KITHI_POSTINGS_GIVEN_UP ? KITHI_PATH_GIVEN_UP
                                                      : KITHI_PATH_UNKNOWN;
    }
    return KITHI_PATH_UNKNOWN;
}

bool kithi_postings_declared(const struct kithi_view *v, struct kithi_declared *out)
{
    struct kithi_field_seen f;
    memset(out, 0, sizeof *out);
    /* Relaxed: for people. */
    out->automatic = !atomic_load_explicit(&v->header->declared, memory_order_relaxed);
    for (uint32_t i = 0; !out->automatic && kithi_postings_field(v, i, &f); i++) {
        struct kithi_declared_field *to = &out->fields[out->count];
        if (f.path_len == 0 || f.declared == KITHI_DECLARED_ANY || !kithi_utf8_valid(f.path, f.path_len))
            return false;
        to->path_len = f.path_len;
        to->type = f.declared;
        memcpy(to->path, f.path, f.path_len);
        out->count++;
    }
    /* Else what was read may be of another declaration, or of two. */
    atomic_thread_fence(memory_order_acquire);
    return kithi_postings_generation(atomic_load_explicit(&v->header->postings, memory_order_relaxed)) ==
           kithi_postings_generation(v->postings);
}

bool kithi_postings_field(const struct kithi_view *v, uint32_t i, struct kithi_field_seen *out)
{
    if (i >= field_limit(v))
        return false;
    const struct kithi_postings_field *f = field_at(v, i);
    uint32_t state = state_of(f), end = term_end(f);
    *out = (struct kithi_field_seen){ .state = (enum kithi_postings_state)state, .declared = declared_of(f) };
    kithi_slot_load(&out->path_len, &f->path_len, sizeof out->path_len);
    if ((state != KITHI_POSTINGS_KEPT && state != KITHI_POSTINGS_GIVEN_UP) ||
        out->path_len > KITHI_POSTINGS_PATH)
        return false;
    kithi_slot_load(out->path, f->path, out->path_len);
    for (uint32_t at = 0; at < end && state == KITHI_POSTINGS_KEPT; at++) {
        const struct kithi_postings_term *t = term_at(v, f, at);
        uint32_t kind = t ? atomic_load_explicit(&t->kind, memory_order_acquire) : KITHI_TERM_NONE;
        if (kind == KITHI_TERM_NONE || kind >= KITHI_TERM_KIND_COUNT)
            continue;
        out->terms++;
        out->kinds[kind]++;
        if (kind == KITHI_TERM_MISFIT)
            out->misfits += atomic_load_explicit(&t->count, memory_order_relaxed);
        out->slots += atomic_load_explicit(&t->count, memory_order_relaxed);
        out->bytes += sizeof *t + term_bytes(v, t);
    }
    return true;
}

static bool has_slot(const struct kithi_view *v, uint64_t word, uint32_t slot, uint64_t *budget)
{
    uint32_t at = slot % KITHI_POSTINGS_CHUNK;
    unsigned class = kithi_block_class(word);
    const void *p = block(v, kithi_block_ref(word), class);
    if (!p || class > KITHI_POSTINGS_BITMAP || kithi_container_chunk(word) != slot / KITHI_POSTINGS_CHUNK)
        return false;
    if (class == KITHI_POSTINGS_BITMAP)
        return atomic_load_explicit((const _Atomic uint64_t *)p + at / 64, memory_order_relaxed) >>
                   (at % 64) &
               1;
    uint32_t n = kithi_container_count(word), most = 8u << class;
    for (uint32_t i = 0; i < n && i < most && *budget; i++, --*budget)
        if (atomic_load_explicit((const _Atomic uint16_t *)p + i, memory_order_relaxed) == at)
            return true;
    return false;
}

bool kithi_postings_leads(const struct kithi_view *v, const struct kithi_term *told, uint32_t slot,
                          uint64_t *budget)
{
    uint32_t number = find_field(v, told->path, told->path_len);
    if (number == UINT32_MAX)
        return true;
    const struct kithi_postings_field *f = field_at(v, number);
    const uint32_t end = term_end(f);
    struct kithi_term own = *told, *term = &own;
    kithi_term_fit(term, declared_of(f));
    for (uint32_t at = 0; at < end && *budget; at++, --*budget) {
        const struct kithi_postings_term *t = term_at(v, f, at);
        if (!t || atomic_load_explicit(&t->kind, memory_order_acquire) != term->kind ||
            atomic_load_explicit(&t->low, memory_order_relaxed) > term->key ||
            atomic_load_explicit(&t->high, memory_order_relaxed) < term->key)
            continue;
        uint64_t directory = atomic_load_explicit(&t->directory, memory_order_acquire);
        const _Atomic uint64_t *words = block(v, kithi_block_ref(directory), kithi_block_class(directory));
        for (uint32_t w = 0; words && w < 2u << kithi_block_class(directory) && *budget; w++, --*budget)
            if (has_slot(v, atomic_load_explicit(&words[w], memory_order_acquire), slot, budget))
                return true;
    }
    return *budget == 0;
}
