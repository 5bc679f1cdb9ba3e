/*
 * estimate.h - how many vectors fulfil a condition, with bounds: all that the planner knows of it.
 *
 * It comes from a sample of payloads, which is kept with the condition and taken anew as the collection changes, and from postings, where they know the
 * condition: how many there are at most, and how many a scan looks at.
 */
#ifndef KITHI_GRAPH_ESTIMATE_H
#define KITHI_GRAPH_ESTIMATE_H

#include <stdbool.h>
#include <stdint.h>

struct kithi_view;
struct kithi_condition;

struct kithi_estimate {
    double share; /* of the vectors, above 0 and at most 1: what costs are computed with */
    double
        density; /* the same of those that matches link to: about the share where a condition has nothing to do with the vectors */
    uint64_t of; /* vectors of the collection */
    uint64_t matches;   /* the likely number of matches, low <= matches <= high <= of */
    uint64_t low, high; /* the number of matches lies between them with a probability of 99 % */
    bool exact;         /* low, matches and high are the number itself */
    uint64_t looks;     /* payloads that a scan looks at */
    bool indexed;       /* postings know the condition: looks are those that they leave */
};

/* Slots that were looked at. Zero at first. */
#define KITHI_SAMPLE_KNOWN 64u
struct kithi_sample {
    uint32_t count, matched;            /* that were looked at; and of these that matched */
    uint32_t known[KITHI_SAMPLE_KNOWN]; /* some of the slots that matched */
    uint32_t known_count;
    uint32_t beside, beside_matched; /* that known ones link to, looked at and matching */
    bool whole;                      /* every slot was looked at */
    uint64_t epoch, used;            /* of the collection, then: its epoch, and slots that were ever used */
    uint64_t candidates;             /* that postings left then, if they knew the condition */
    uint64_t postings;               /* of the view, without the era */
    bool indexed;
    bool pinned; /* the view was of a moment in the past, for which postings know nothing */
};

/* At the view's epoch, or at one that is not much older: takes a sample where there is none or it is out of date. true: it did. */
bool kithi_estimate(const struct kithi_view *v, struct kithi_condition *c, struct kithi_estimate *out);

#endif
