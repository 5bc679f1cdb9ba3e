/*
 * results_priv.h - the caller's reusable results object.
 */
#ifndef KITHI_CLIENT_RESULTS_PRIV_H
#define KITHI_CLIENT_RESULTS_PRIV_H

#include <kith/kith.h>

#include "shm/graph/results.h"

struct kith_results {
    struct kithi_results found;
    bool generation_changed;
    uint32_t ef, ef_basis; /* enum kith_ef_basis */
};

#endif
