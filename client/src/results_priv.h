/*
 * results_priv.h - the caller's reusable results object.
 */
#ifndef KITHI_CLIENT_RESULTS_PRIV_H
#define KITHI_CLIENT_RESULTS_PRIV_H

#include <kith/kith.h>

#include "shm/graph/results.h"
#include "shm/graph/scroll.h"

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
};

/* What it holds is no page any more. */
static inline void kithi_results_forget_page(kith_results *r)
{
    r->vector_dim = 0;
    r->cursor[0] = '\0';
}

#endif
