/*
 * match.h - does what a slot holds fulfil a filter at the view's epoch, and how many do.
 */
#ifndef KITHI_GRAPH_MATCH_H
#define KITHI_GRAPH_MATCH_H

#include "shm/filter/filter.h"
#include "shm/graph/estimate.h"
#include "shm/graph/plan.h"
#include "shm/graph/view.h"
#include "shm/postings/postings.h"

/* A filter that one search at a time is under; kept from one to the next. Zero but for the first members at first. */
struct kithi_condition {
    const struct kithi_filter *filter;
    unsigned char *payload; /* KITHI_PAYLOAD_MAX bytes */
    enum kithi_plan only;   /* for measurements: this plan, whatever it costs; NONE: the planner chooses */
    struct kithi_filter_look look;
    struct kithi_candidates candidates; /* of the view at hand; whoever owns the condition frees them */
    struct kithi_sample sample;
    struct kithi_lessons lessons;
    /* Of the last search. */
    uint64_t evaluated, matched;
    uint32_t rank; /* where the k-th match was among what the walk had found, from 1; 0: there were fewer */
    uint32_t ef;   /* of the last walk or hops; 0: none */
    double share;  /* that matches, by the estimate; 0: none was needed */
    enum kithi_plan plan;
    enum kithi_plan_reason reason;
    bool indexed; /* postings know the filter */
};

enum { KITHI_MATCH_NO = 0, KITHI_MATCH_YES = 1, KITHI_MATCH_AGAIN = 2 };

/*
 * Does the payload that the view's epoch sees of slot (< slot_limit), whose birth then was `birth`, fulfil the filter? AGAIN: the slot or
 * its payload was refilled, begin again with another view; KITHI_E_FILTER: types do not go together, and c->look has which.
 */
int kithi_match(const struct kithi_view *v, uint32_t slot, uint64_t birth, struct kithi_condition *c);

/*
 * A pass over the slots of a view that may match, in their order, whose records and payloads are asked for ahead.
 *
 *   kithi_pass_begin(&v, c, true, &pass)
 *   while ((slot = kithi_pass_next(&v, &pass)) != UINT32_MAX) ...
 */
struct kithi_pass {
    const struct kithi_candidates *may; /* NULL: all slots */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none; of whoever goes through it, for kithi_pass_late() */
    uint32_t steps;       /* since it was looked at */
    uint32_t slot, near,
        far; /* the one at hand; the first whose payload, and record, was not asked for yet */
};

/*
 * For a view that has just been begun; c->candidates become those that postings leave, which are all where they cannot tell. c NULL: all slots. payloads: they are looked at. 0 or -ENOMEM.
 */
int kithi_pass_begin(const struct kithi_view *v, struct kithi_condition *c, bool payloads,
                     struct kithi_pass *out);

/* The next slot; UINT32_MAX: there is none. */
uint32_t kithi_pass_next(const struct kithi_view *v, struct kithi_pass *p);

/* Is the deadline over? Looked at once in 256 calls, which is a fraction of a millisecond. */
bool kithi_pass_late(struct kithi_pass *p);

/* Ask for the memory that kithi_match() will read, of a slot whose record was asked for before. */
void kithi_match_prefetch(const struct kithi_view *v, uint32_t slot);

/*
 * How many match at a moment. As kithi_scan_count(); KITHI_E_FILTER, too, and KITHI_E_TIMEOUT: it was not done by deadline_ns (CLOCK_MONOTONIC; 0:
 * none). Looks at every payload.
 */
int kithi_match_count(const struct kithi_map *map, const struct kithi_moment *at, struct kithi_condition *c,
                      uint64_t deadline_ns, uint64_t *out_count);

#endif
