/*
 * results_priv.h - the caller's reusable results object.
 */
#ifndef KITHI_CLIENT_RESULTS_PRIV_H
#define KITHI_CLIENT_RESULTS_PRIV_H

#include <kith/kith.h>

#include "shm/graph/results.h"
#include "shm/graph/scroll.h"

/* Bytes of a notice, with its NUL. */
#define KITHI_NOTICE_MAX 224u

struct kith_results {
    struct kithi_results found;
    bool generation_changed;
    uint32_t ef, ef_basis; /* enum kith_ef_basis */

    /* Of a page (scroll.c). */
    struct kithi_scroll_scratch scroll;
    float *vectors; /* of the ids, as given */
    size_t vectors_capacity;
    uint32_t vector_dim; /* 0: it has none */
    char cursor[49];     /* "": it was the last */
    /* Of whatever was asked for payloads (payloads.c). */
    bool has_payloads;
    char *payloads; /* texts, each with its NUL */
    size_t payloads_len, payloads_capacity;
    size_t *payload_at; /* of each hit, + 1; 0: it has none */
    size_t payload_at_capacity;
    /* Of whatever was under a filter (condition.c). */
    char notice[KITHI_NOTICE_MAX]; /* "": there is nothing to notice */
    bool indexed;
    uint32_t plan, plan_reason;
    uint64_t evaluated, matched;
    double share;
};

/* Room for so many floats of vectors. 0 or -ENOMEM. */
int kithi_results_room(kith_results *r, size_t floats);

/* What it holds is no page any more, and has no payloads. */
static inline void kithi_results_forget_page(kith_results *r)
{
    r->vector_dim = 0;
    r->has_payloads = false;
    r->notice[0] = '\0';
    r->indexed = false;
    r->plan = r->plan_reason = 0;
    r->evaluated = r->matched = 0;
    r->share = 0;
    r->cursor[0] = '\0';
}

#endif
