/*
 * match.h - does what a slot holds fulfil a filter at the view's epoch, how many do, and how to search under it.
 *
 * Two plans answer a search under a filter, and both answer it rightly: a walk that is wide enough for k matches to be well
 * inside of what it finds, and a scan, which looks at every payload and compares the vectors of those that match. Where a walk is
 * too narrow a wider one follows, as long as it costs less than the scan; then the scan. So the answer always has k hits, or all
 * that match.
 */
#ifndef KITHI_GRAPH_MATCH_H
#define KITHI_GRAPH_MATCH_H

#include "shm/filter/filter.h"
#include "shm/graph/view.h"
#include "shm/postings/postings.h"

/* What answered. The numbers are those of enum kith_plan. */
enum kithi_plan {
    KITHI_PLAN_NONE = 0, /* there was no filter */
    KITHI_PLAN_WALK = 1,
    KITHI_PLAN_SCAN = 2,
    KITHI_PLAN_WALK_SCAN = 3, /* a scan, after walks that were not enough */
};

/* Why that. The numbers are those of enum kith_plan_reason. */
enum kithi_plan_reason {
    KITHI_PLAN_GIVEN = 0, /* exact search was asked for, or there was no filter */
    KITHI_PLAN_MANY = 1,  /* a sample says that so many match that a walk meets them */
    KITHI_PLAN_FEW = 2,   /* a sample says that so few match that a scan is cheaper than a walk to them */
    KITHI_PLAN_SHORT = 3, /* few match near the query, and a wider walk would have cost more than the scan */
};

/* A filter that one search at a time is under; kept from one to the next. Zero but for the first members at first. */
struct kithi_condition {
    const struct kithi_filter *filter;
    unsigned char *payload; /* KITHI_PAYLOAD_MAX bytes */
    bool only_walks;        /* for measurements: walks whatever they cost, and no scan after them */
    struct kithi_filter_look look;
    struct kithi_candidates candidates; /* of the view at hand; whoever owns the condition frees them */
    /* The sample. */
    uint32_t sampled, sample_matched;
    uint64_t sample_epoch, sample_used;
    /* Of the last search. */
    uint64_t evaluated, matched;
    uint32_t rank; /* where the k-th match was among what the walk had found, from 1; 0: there were fewer */
    uint32_t ef;   /* of the last walk; 0: none */
    enum kithi_plan plan;
    enum kithi_plan_reason reason;
};

enum { KITHI_MATCH_NO = 0, KITHI_MATCH_YES = 1, KITHI_MATCH_AGAIN = 2 };

/*
 * Does the payload that the view's epoch sees of slot (< slot_limit), whose birth then was `birth`, fulfil the filter? AGAIN: the slot or
 * its payload was refilled, begin again with another view; KITHI_E_FILTER: types do not go together, and c->look has which.
 */
int kithi_match(const struct kithi_view *v, uint32_t slot, uint64_t birth, struct kithi_condition *c);

/*
 * Find, by postings, the slots that may match, for a view that has just been begun: c->candidates, which are all slots where postings cannot
 * tell. 0 or -ENOMEM.
 */
int kithi_match_narrow(const struct kithi_view *v, struct kithi_condition *c);

/* Ask for the memory that kithi_match() will read, of a slot whose record was asked for before. */
void kithi_match_prefetch(const struct kithi_view *v, uint32_t slot);

/* How wide the first walk is for k hits at breadth ef; 0: scan. Takes a sample where there is none or it is out of date. */
uint32_t kithi_plan_first(const struct kithi_view *v, struct kithi_condition *c, uint32_t k, uint32_t ef);

/*
 * A walk of breadth c->ef has found count matches, at most k, with c->rank: how wide the next one is, 0: it was enough, UINT32_MAX: scan.
 */
uint32_t kithi_plan_next(const struct kithi_view *v, struct kithi_condition *c, uint32_t k, uint32_t ef,
                         uint32_t count);

/* The share of vectors that match, by the sample; above 0. */
double kithi_condition_share(const struct kithi_condition *c);

/*
 * How many match at a moment. As kithi_scan_count(); KITHI_E_FILTER, too. Looks at every payload.
 */
int kithi_match_count(const struct kithi_map *map, const struct kithi_moment *at, struct kithi_condition *c,
                      uint64_t *out_count);

#endif
