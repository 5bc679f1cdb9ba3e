/*
 * hop.h - a walk from match to match: best-first over the slots that fulfil a condition, and across those that do not.
 *
 * The beam holds matches only, so its breadth is that of a search without a condition, however few of all vectors match. What a match's row
 * leads to is compared first, and asked for its payload only where it is near enough for the beam; of those that do not match the rows of the nearest are
 * read instead, so that a match leads to those that are two links away (as ACORN-1 does it, which takes any of them). The walk begins where a search
 * without a condition would come down to, and at the nearest of the matches that a sample knows: those who match may lie far from the query.
 *
 * It is for conditions that have to do with the vectors, so that matches stand beside matches. Where they stand anywhere, a match has few around it, most of
 * what is looked at is in vain, and a wide walk, which asks only what it has found, costs less.
 *
 * Slots that the view does not see are crossed like those that do not match. Distances are those of codes; where rows have codes of their own, these
 * say whom it is worth comparing.
 */
#ifndef KITHI_GRAPH_HOP_H
#define KITHI_GRAPH_HOP_H

#include "shm/graph/match.h"
#include "shm/graph/walk.h"

enum { KITHI_HOP_ENDED = 0, KITHI_HOP_ON = 1, KITHI_HOP_AGAIN = 2 };

/*
 * Begin at slot `entry` (< slot_limit) and at matches of the condition's sample, in a scratch that kithi_walk_query() and
 * kithi_walk_begin() have prepared. ON; AGAIN: a payload cannot be told, take another view; KITHI_E_FILTER, -ENOMEM.
 */
int kithi_hop_begin(const struct kithi_view *v, struct kithi_scratch *s, struct kithi_condition *c,
                    uint32_t entry);

/*
 * Expand the nearest match that was not. ON, ENDED: all were, kithi_walk_found() has what was found; else as above, or KITHI_E_MOVED. Each slot
 * is asked for its payload at most once.
 */
int kithi_hop_step(const struct kithi_view *v, struct kithi_scratch *s, struct kithi_condition *c);

#endif
