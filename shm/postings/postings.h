/*
 * postings.h - which slots may fulfil a filter, by postings: how many at most, and which.
 *
 * What comes out is an upper bound: everything that the view's epoch sees and that fulfils the filter is among it, and more may be. So is what
 * holds a field as another type than a condition compares it with, unless another condition, joined by `and`, leaves it out. Whoever wants to know looks at the payload (graph/match.h). Where
 * postings cannot tell, they say so, and then anything may match: a field without postings, a condition that `not` turns round, a moment in
 * the past, a segment whose daemon has just started. The bytes are nobody's: every number is compared with what has memory, and the work
 * ends with a budget of words that are read. To clear bitmaps, a bit for each slot of the view, is not in it.
 */
#ifndef KITHI_POSTINGS_POSTINGS_H
#define KITHI_POSTINGS_POSTINGS_H

#include "shm/filter/filter.h"
#include "shm/graph/view.h"
#include "shm/layout/postings.h"
#include "shm/postings/declared.h"
#include "shm/postings/terms.h"

/*
 * Is what was read of postings since the view began an upper bound of what its epoch sees? What comes out below has been asked that; whoever reads by
 * himself asks it behind.
 */
bool kithi_postings_fresh(const struct kithi_view *v);

/* How many match. */
struct kithi_match_bounds {
    bool known; /* false: postings cannot tell; least is 0 then, and most every slot that was used */
    uint64_t least, most; /* least is 0: postings do not know what has gone */
};

/* Looks at terms, not at slots: some microseconds for each condition of the filter. Wait-free, allocates nothing. */
void kithi_postings_bounds(const struct kithi_view *v, const struct kithi_filter *f,
                           struct kithi_match_bounds *out);

/* Memory that many bitmaps share, of any threads. */
struct kithi_bitmap_budget {
    _Atomic uint64_t left; /* bytes; relaxed: it stands for itself */
};

/* Slots that may match, each once; kept from one search to the next, of one thread at a time. All zeros at first. */
struct kithi_candidates {
    struct kithi_bitmap_budget *budget; /* what words are charged to; NULL: nothing */
    uint64_t *words; /* level 0 is the answer, a bit a slot; the others are for conditions inside of others */
    size_t capacity; /* of words */
    uint32_t width;  /* words of a level */
    uint32_t slots;  /* slots that may be asked for */
    uint64_t count;  /* of candidates */
    bool known;      /* false: any slot may match */
    uint64_t
        fields; /* of the filter, a bit for each: those that some payload has, as far as postings were asked */
};

/*
 * Find them for a view, which must have been begun just before: 1; 0 when postings cannot tell, or the budget has no room for a bitmap more; -ENOMEM. They stay good for that view as long as
 * it lasts. Memory: a bit for each slot of the view, times the depth of the filter. Wait-free; allocates where there is not room yet.
 */
int kithi_candidates_find(const struct kithi_view *v, const struct kithi_filter *f,
                          struct kithi_candidates *c);

/* The first slot from `slot` on that may match, UINT32_MAX: none. Every slot may where nothing is known. */
uint32_t kithi_candidates_next(const struct kithi_candidates *c, uint32_t slot);

/* Gives the words back; what they are charged to stays. */
void kithi_candidates_fini(struct kithi_candidates *c);

/*
 * What may be read of a field and of a term, for those who look at all of them (kith inspect, kith verify). Copied out, and whole where
 * nothing changes meanwhile.
 */
struct kithi_field_seen {
    enum kithi_postings_state state;
    enum kithi_declared_type declared;
    uint32_t path_len;
    char path[KITHI_POSTINGS_PATH];
    uint32_t terms;   /* that are in use */
    uint64_t slots;   /* of all of them together */
    uint64_t bytes;   /* of terms, directories and containers */
    uint64_t misfits; /* payloads, or once: whose value is of another type than declared */
    uint32_t kinds[KITHI_TERM_KIND_COUNT]; /* terms by their kind */
};

/* Which fields were declared to have postings; those of a segment, in its order. False: what stands there makes no sense, or is being changed. */
bool kithi_postings_declared(const struct kithi_view *v, struct kithi_declared *out);

/* What there is of a field: UNKNOWN: no postings, as it was not declared, no payload has it, or there are too many. */
enum kithi_path_state { KITHI_PATH_UNKNOWN, KITHI_PATH_KEPT, KITHI_PATH_GIVEN_UP };
enum kithi_path_state kithi_postings_path(const struct kithi_view *v, const char *path, uint32_t len);

/* Field number i; false: there is none. */
bool kithi_postings_field(const struct kithi_view *v, uint32_t i, struct kithi_field_seen *out);

/*
 * Does a field with postings lead from a term of slot's newest payload to the slot, or has the field none? False where it should is a violation,
 * once the postings are whole. *budget: words that may still be read; true when they do not suffice.
 */
bool kithi_postings_leads(const struct kithi_view *v, const struct kithi_term *term, uint32_t slot,
                          uint64_t *budget);

#endif
