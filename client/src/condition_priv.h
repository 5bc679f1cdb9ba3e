/*
 * condition_priv.h - the filters that a call slot knows: compiled, and with what was learned of them.
 *
 * A slot belongs to one call at a time, so that looking a filter up takes no lock; the few that were used last are kept.
 */
#ifndef KITHI_CLIENT_CONDITION_PRIV_H
#define KITHI_CLIENT_CONDITION_PRIV_H

#include "client/src/handle_priv.h"
#include "client/src/results_priv.h"
#include "shm/graph/match.h"

#define KITHI_CONDITIONS 8u

struct kithi_conditions;

/* Bytes of bitmaps that all slots of a handle may have; of handles that are opened from here on. Tests lower it. */
extern uint64_t kithi_bitmap_bytes;

void kithi_conditions_free(struct kithi_conditions *all);

/* The call has ended: its bitmaps are kept for the next one, unless more than half of the handle's budget is taken. */
void kithi_conditions_end(struct kithi_conditions *all);

/*
 * The condition that text says, in *out until the call ends: compiled, when this slot has not done so. 0, KITH_E_FILTER with err filled, or
 * -ENOMEM.
 */
int kithi_condition_of(struct kithi_call *c, const char *text, struct kithi_errmsg *err,
                       struct kithi_condition **out);

/*
 * A call under a condition ended as rc says: report what is wrong with the filter to the caller's error (may be NULL), and put into out (may be
 * NULL) what there is to notice. Returns rc, or KITH_E_FILTER: strict, and a field that nothing has.
 */
int kithi_condition_end(struct kithi_condition *c, int rc, bool strict, struct kith_error *error,
                        kith_results *out);

#endif
